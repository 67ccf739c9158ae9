//! Who may ask: callers, their applications, and the credentials they present.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use crate::action::Action;
use crate::clock::Millis;
use crate::ledger::Credits;
use crate::limit::AttemptPolicy;
use crate::vault::KeyedRef;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub u32);
    };
}

id!(
    /// A caller: the person or firm that answers for what is asked.
    CallerId
);
id!(
    /// An application: what a caller acquired, with a balance and limits of its own.
    ApplicationId
);
id!(
    /// A credential of an application.
    CredentialId
);

/// A map by numbers that this program gave itself. Nobody outside can choose them so that they collide, and
/// several such maps are looked into for each question.
pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// See [`Numbered`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio: numbers that follow one another end up far apart, in the high bits too.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The wire a question came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wire {
    /// Tencent Cloud API 3.0.
    Tencent,
    /// AceData.
    AceData,
    /// card4e's own: `POST /api/v1/verifications`.
    Native,
}

impl Wire {
    /// Every wire, in the order of the discriminants.
    pub const ALL: [Wire; 3] = [Wire::Tencent, Wire::AceData, Wire::Native];

    /// The name used in journals, metrics and fault rules.
    pub const fn name(self) -> &'static str {
        match self {
            Wire::Tencent => "tencent",
            Wire::AceData => "acedata",
            Wire::Native => "native",
        }
    }
}

/// Whether a caller may ask at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// May ask.
    Active,
    /// The operator stopped it.
    Suspended,
    /// The operator has not confirmed who it is.
    Unconfirmed,
}

/// The person or firm that answers for what is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its number.
    pub id: CallerId,
    /// Its name, for people.
    pub name: String,
    /// Whether it may ask.
    pub standing: Standing,
    /// Looks after the installation: may change accounts and callers of others.
    pub operator: bool,
}

/// What a caller acquired: a balance, limits, and the actions it covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its number.
    pub id: ApplicationId,
    /// Whose it is.
    pub caller: CallerId,
    /// Its name, for people.
    pub name: String,
    /// The actions it may ask; empty: the service was never activated.
    pub actions: Vec<Action>,
    /// Never runs out of balance.
    pub unlimited: bool,
    /// Price of a charged answer; `None`: the installation's.
    pub price: Option<Credits>,
    /// Requests a second per action; `None`: the installation's, 0: no limit.
    pub requests_per_second: Option<u32>,
    /// Attempts a day; `None`: the installation's.
    pub attempts: Option<AttemptPolicy>,
    /// Elements in plain text are refused.
    pub encryption_required: bool,
    /// Is told which element differs, on the native wire alone: each detail makes guessing easier.
    pub reasons: bool,
}

impl Application {
    /// A caller's application with everything as the installation has it.
    pub fn of(id: ApplicationId, caller: &Caller) -> Application {
        Application {
            id,
            caller: caller.id,
            name: caller.name.clone(),
            actions: Action::ALL.to_vec(),
            unlimited: false,
            price: None,
            requests_per_second: None,
            attempts: None,
            encryption_required: false,
            reasons: false,
        }
    }
}

/// A secret that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret out of sight.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(secret.into()))
    }

    /// The secret itself; use it in the line that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a caller presents with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its number.
    pub id: CredentialId,
    /// Which application it speaks for.
    pub application: ApplicationId,
    /// How it proves itself.
    pub proof: Proof,
    /// Not valid from then on, Unix milliseconds.
    pub expires_at_ms: Option<Millis>,
    /// Where requests may come from; empty: anywhere.
    pub addresses: Vec<AddressRange>,
    /// What it may be used for; empty: everything its application may ask.
    pub actions: Vec<Action>,
    /// Why it asks, where a wire has no member for it; kept in the evidence.
    pub purpose: Option<Purpose>,
    /// What it may be charged in all; `None`: as much as its application has.
    pub limit: Option<Credits>,
}

/// Why somebody is verified, and what allows it. Personal information may only be processed for a
/// stated purpose, with the consent of whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purpose {
    /// A word of the operator's, such as `account_opening`.
    pub code: String,
    /// Where the consent is on file: a reference of the caller's, never a person's name.
    pub consent: String,
}

impl Purpose {
    /// Most characters of a code, and of a reference to a consent.
    pub const CHARS_MAX: (usize, usize) = (64, 128);

    /// Whether both are short and can be printed.
    pub fn is_sound(&self) -> bool {
        let sign = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        let short = |text: &str, most| (1..=most).contains(&text.chars().count());
        short(&self.code, Self::CHARS_MAX.0)
            && self.code.chars().all(sign)
            && short(&self.consent, Self::CHARS_MAX.1)
            && !self.consent.chars().any(char::is_control)
    }
}

impl Credential {
    /// What somebody needs who asks on the machine itself: nothing. Number 0 in the ledger.
    pub fn of_this_machine(application: ApplicationId) -> Credential {
        Credential {
            id: CredentialId(0),
            application,
            proof: Proof::Platform { hash: [0; 16], last4: String::new() },
            expires_at_ms: None,
            addresses: Vec::new(),
            actions: Vec::new(),
            purpose: None,
            limit: None,
        }
    }

    /// Whether it may be used for this.
    pub fn allows(&self, action: Action) -> bool {
        self.actions.is_empty() || self.actions.contains(&action)
    }

    /// Whether it has expired.
    pub fn is_over(&self, now: Millis) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now)
    }

    /// Whether requests may come from this address.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|range| range.contains(address))
    }
}

/// A range of addresses, written `10.0.0.0/8`, `2001:db8::/32` or as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Whether an address lies in it; an IPv4 address also when it is written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (range, range_width) = bits(self.first);
        let (address, width) = bits(address.to_canonical());
        let shift = u32::from(range_width - self.prefix);
        range_width == width && (self.prefix == 0 || range >> shift == address >> shift)
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressRange, String> {
        let wrong =
            || format!("`{text}` is no address or range; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32");
        let (first, prefix) = text.split_once('/').unzip();
        let first: IpAddr = first.unwrap_or(text).parse().map_err(|_| wrong())?;
        let (_, width) = bits(first);
        let prefix = prefix.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        (prefix <= width).then_some(AddressRange { first, prefix }).ok_or_else(wrong)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<AddressRange, String> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.to_string()
    }
}

/// How a credential proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Signs requests (Tencent wire).
    Signature {
        /// The public half.
        secret_id: String,
        /// The secret half; sealed at rest, because a signature can only be checked with it.
        secret_key: Secret,
        /// The one before the last rotation, and until when it still signs (Unix milliseconds).
        previous: Option<(Secret, Millis)>,
        /// A temporary credential is valid only together with this token.
        session_token: Option<Secret>,
        /// Requests whose signature does not cover the body are refused.
        signed_payload_only: bool,
    },
    /// Presents a token (AceData wire); only its keyed hash is kept.
    Bearer {
        /// Keyed hash of the token.
        hash: KeyedRef,
        /// Its last four characters, for lists.
        last4: String,
        /// The one before the last rotation, and until when it is still taken (Unix milliseconds).
        previous: Option<(KeyedRef, Millis)>,
    },
    /// Presents a platform token (management); only its keyed hash is kept.
    Platform {
        /// Keyed hash of the token.
        hash: KeyedRef,
        /// Its last four characters, for lists.
        last4: String,
    },
}

impl Proof {
    /// Until when the secret before the last rotation is taken.
    pub fn overlap_until(&self) -> Option<Millis> {
        match self {
            Proof::Signature { previous, .. } => previous.as_ref().map(|(_, until)| *until),
            Proof::Bearer { previous, .. } => previous.as_ref().map(|(_, until)| *until),
            Proof::Platform { .. } => None,
        }
    }
}

/// Everybody who may ask, for look-ups; replaced as a whole when something changes.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    callers: Numbered<CallerId, Caller>,
    applications: Numbered<ApplicationId, Arc<Application>>,
    by_secret_id: HashMap<String, Arc<Credential>>,
    by_token: HashMap<KeyedRef, Arc<Credential>>,
    by_number: BTreeMap<CredentialId, Arc<Credential>>,
    last_credential: u32,
}

impl Directory {
    /// Builds the look-up tables.
    pub fn new(
        callers: Vec<Caller>,
        applications: Vec<Application>,
        credentials: Vec<Credential>,
    ) -> Directory {
        let mut directory = Directory {
            callers: callers.into_iter().map(|caller| (caller.id, caller)).collect(),
            applications: applications.into_iter().map(|a| (a.id, Arc::new(a))).collect(),
            ..Directory::default()
        };
        for credential in credentials {
            directory.last_credential = directory.last_credential.max(credential.id.0);
            directory.add(Arc::new(credential));
        }
        directory
    }

    /// Says that credentials up to this number exist or existed: a number is never used again.
    pub fn with_last_credential(mut self, number: u32) -> Directory {
        self.last_credential = self.last_credential.max(number);
        self
    }

    /// The number of the next credential.
    pub fn next_credential(&self) -> CredentialId {
        CredentialId(self.last_credential + 1)
    }

    /// Adds a caller, or replaces the one of that number.
    pub(crate) fn put_caller(&mut self, caller: Caller) {
        self.callers.insert(caller.id, caller);
    }

    /// Adds an application, or replaces the one of that number.
    pub(crate) fn put_application(&mut self, application: Application) {
        self.applications.insert(application.id, Arc::new(application));
    }

    /// Adds a credential, or replaces the one of that number with all its secrets.
    pub(crate) fn put_credential(&mut self, credential: Credential) {
        self.remove_credential(credential.id);
        self.last_credential = self.last_credential.max(credential.id.0);
        self.add(Arc::new(credential));
    }

    /// Takes a credential out: nobody gets in with it any more.
    pub(crate) fn remove_credential(&mut self, id: CredentialId) {
        let Some(old) = self.by_number.remove(&id) else { return };
        match &old.proof {
            Proof::Signature { secret_id, .. } => drop(self.by_secret_id.remove(secret_id)),
            Proof::Bearer { hash, previous, .. } => {
                self.by_token.remove(hash);
                previous.iter().for_each(|(old, _)| drop(self.by_token.remove(old)));
            }
            Proof::Platform { hash, .. } => drop(self.by_token.remove(hash)),
        }
    }

    fn add(&mut self, credential: Arc<Credential>) {
        self.by_number.insert(credential.id, Arc::clone(&credential));
        match &credential.proof {
            Proof::Signature { secret_id, .. } => {
                self.by_secret_id.insert(secret_id.clone(), credential);
            }
            Proof::Bearer { hash, previous, .. } => {
                if let Some((old, _)) = previous {
                    self.by_token.insert(*old, Arc::clone(&credential));
                }
                self.by_token.insert(*hash, credential);
            }
            Proof::Platform { hash, .. } => {
                self.by_token.insert(*hash, credential);
            }
        }
    }

    /// The signing credential of that public id.
    pub fn signing(&self, secret_id: &str) -> Option<Arc<Credential>> {
        self.by_secret_id.get(secret_id).cloned()
    }

    /// The credential whose token has this keyed hash; an exchanged token counts until its overlap ends.
    pub fn token(&self, hash: &KeyedRef, now: Millis) -> Option<Arc<Credential>> {
        let found = self.by_token.get(hash)?;
        match &found.proof {
            Proof::Bearer { previous: Some((old, until)), .. } if old == hash && *until <= now => None,
            _ => Some(Arc::clone(found)),
        }
    }

    /// All callers, by number.
    pub fn callers(&self) -> Vec<&Caller> {
        let mut callers: Vec<_> = self.callers.values().collect();
        callers.sort_by_key(|caller| caller.id);
        callers
    }

    /// All credentials, by number.
    pub fn credentials(&self) -> impl DoubleEndedIterator<Item = &Arc<Credential>> + ExactSizeIterator {
        self.by_number.values()
    }

    /// The credential of that number.
    pub fn credential(&self, id: CredentialId) -> Option<&Arc<Credential>> {
        self.by_number.get(&id)
    }

    /// The caller of that number.
    pub fn caller(&self, id: CallerId) -> Option<&Caller> {
        self.callers.get(&id)
    }

    /// Whose credential this is.
    pub fn owner(&self, credential: &Credential) -> Option<&Caller> {
        self.callers.get(&self.applications.get(&credential.application)?.caller)
    }

    /// Whether this credential belongs to somebody who looks after the installation.
    pub fn is_operator(&self, credential: &Credential) -> bool {
        let application = self.applications.get(&credential.application);
        let caller = application.and_then(|application| self.callers.get(&application.caller));
        caller.is_some_and(|caller| caller.operator && caller.standing == Standing::Active)
    }

    /// All signing credentials of the caller that owns this one: to tell a caller that it mixed them up.
    pub fn siblings(&self, credential: &Credential) -> Vec<Arc<Credential>> {
        let owner = |c: &Credential| self.applications.get(&c.application).map(|a| a.caller);
        let caller = owner(credential);
        let other = |c: &&Arc<Credential>| c.id != credential.id && owner(c) == caller;
        self.by_secret_id.values().filter(other).cloned().collect()
    }

    /// The application a credential speaks for, and its caller's standing.
    pub fn application(&self, id: ApplicationId) -> Option<(Arc<Application>, Standing)> {
        let application = self.applications.get(&id)?;
        let caller = self.callers.get(&application.caller)?;
        Some((Arc::clone(application), caller.standing))
    }

    /// All applications, in no order.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_contain_what_they_say() {
        let inside = |text: &str, address: &str| range(text).contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.1.2"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("192.0.2.7", "192.0.2.7"));
        assert!(!inside("192.0.2.7", "192.0.2.8"));
        assert!(inside("0.0.0.0/0", "1.2.3.4"));
        assert!(inside("10.0.0.0/8", "::ffff:10.0.0.1"), "IPv4 written as IPv6");
        assert!(inside("2001:db8::/32", "2001:db8:1::1"));
        assert!(!inside("2001:db8::/32", "10.0.0.1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host", "::/129"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
        assert_eq!(range("10.0.0.0/8").to_string(), "10.0.0.0/8");
    }
}
