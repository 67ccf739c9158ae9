//! Looking after callers: who may ask, with which keys, for how much.
//!
//! Secrets are made here and shown once, by whoever called; what stays is sealed or a keyed hash.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::action::Action;
use crate::caller::{
    AddressRange, Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Proof, Purpose,
    Secret, Standing,
};
use crate::clock::Millis;
use crate::erase::EraseError;
use crate::file::hex;
use crate::ledger::{Credits, Entry};
use crate::operator::{Act, Acting, kind_word};
use crate::rotate::RotateError;
use crate::settle::Change;
use crate::store::StoreError;
use crate::vault::random;

/// Why a change of callers is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No caller of that name.
    #[error("there is no caller `{0}`; `card4e caller list` shows them")]
    NoCaller(String),
    /// No credential of that number.
    #[error("there is no credential {0}; `card4e credential list` shows them")]
    NoCredential(u32),
    /// The name is taken.
    #[error("there is a caller `{0}` already; choose another name")]
    Taken(String),
    /// Not a name.
    #[error("a caller's name is 1 to 64 letters, digits, dots, hyphens or underscores")]
    Name,
    /// Somebody must look after the installation.
    #[error("`{0}` is the last operator; add another one first: card4e caller create NAME --operator")]
    LastOperator(String),
    /// A second rotation would end the overlap of the first.
    #[error("the secret before the last rotation is still taken; wait, or end its overlap with --overlap 0s")]
    OverlapRuns,
    /// Not an amount to give.
    #[error("an amount is more than 0 and at most a billion credits")]
    Amount,
    /// Taken back can only be what is left.
    #[error(
        "less than that is left of the balance: some of it was spent, or is set aside for questions under way"
    )]
    Spent,
    /// Not a purpose.
    #[error(
        "a purpose is 1 to 64 letters, digits, dots, hyphens or underscores, and its consent 1 to 128 characters"
    )]
    Purpose,
    /// Only signatures cover a body.
    #[error("only a credential of kind tencent signs payloads")]
    NothingSigned,
    /// Platform tokens are replaced, not rotated.
    #[error("a platform token has no overlap; create a new one and revoke this one")]
    NotRotated,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys are not replaced.
    #[error(transparent)]
    Keys(#[from] RotateError),
    /// Nobody is erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
}

/// The kinds of credentials that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SecretId and SecretKey for the Tencent wire.
    Signature,
    /// Bearer token for the AceData wire.
    Bearer,
    /// Platform token for management.
    Platform,
}

/// What a new credential is to be like.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Not valid from then on, Unix milliseconds.
    pub expires_at_ms: Option<Millis>,
    /// Where requests may come from; empty: anywhere.
    pub addresses: Vec<AddressRange>,
    /// Refuse requests whose signature does not cover the body.
    pub signed_payload_only: bool,
    /// What it may be used for; empty: everything.
    pub actions: Vec<Action>,
    /// Why it asks, where a wire has no member for it.
    pub purpose: Option<Purpose>,
    /// What it may be charged in all; `None`: as much as its application has.
    pub limit: Option<Credits>,
}

/// What is to change about what a caller may do; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Price of a charged answer.
    pub price: Option<Term<Credits>>,
    /// Requests a second per action; 0: no limit.
    pub requests_per_second: Option<Term<u32>>,
    /// Whether elements in plain text are refused.
    pub encryption_required: Option<bool>,
    /// Whether the native wire tells which element differs.
    pub reasons: Option<bool>,
    /// Whether the caller never runs out of balance.
    pub unlimited: Option<bool>,
    /// What it may ask.
    pub actions: Option<Vec<Action>>,
}

/// A value of a caller's own, or the installation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term<T> {
    /// As the installation has it.
    Default,
    /// This.
    Own(T),
}

impl<T> Term<T> {
    fn own(self) -> Option<T> {
        match self {
            Term::Default => None,
            Term::Own(value) => Some(value),
        }
    }
}

impl<T: FromStr<Err: ToString>> FromStr for Term<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Term<T>, String> {
        match text {
            "default" => Ok(Term::Default),
            own => own.parse().map(Term::Own).map_err(|wrong: T::Err| wrong.to_string()),
        }
    }
}

/// What is to change about a credential; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct CredentialTerms {
    /// Not valid from then on, Unix milliseconds; `Some(None)`: no end.
    pub expires_at_ms: Option<Option<Millis>>,
    /// What it may be charged in all; `Some(None)`: as much as its application has.
    pub limit: Option<Option<Credits>>,
    /// Where requests may come from; empty: anywhere.
    pub addresses: Option<Vec<AddressRange>>,
    /// What it may be used for; empty: everything.
    pub actions: Option<Vec<Action>>,
}

/// A credential with its secret, which is never to be seen again.
#[derive(Serialize)]
pub struct Issued {
    /// Its number.
    pub credential: u32,
    /// The public half, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_id: Option<String>,
    /// The secret.
    pub secret: String,
}

/// A caller as it is listed.
#[derive(Debug, Serialize)]
pub struct ListedCaller {
    /// Its name.
    pub name: String,
    /// Whether it may ask.
    pub standing: Standing,
    /// Looks after the installation.
    pub operator: bool,
    /// Credits left; absent when unlimited.
    pub balance: Option<String>,
    /// Credentials it has.
    pub credentials: usize,
    /// Credits a charged answer costs it, where that is not the installation's price.
    pub price: Option<String>,
    /// Requests a second it may send, where that is not the installation's limit.
    pub requests_per_second: Option<u32>,
    /// Elements in plain text are refused.
    pub encryption_required: bool,
    /// The native wire tells it which element differs.
    pub reasons: bool,
    /// What it may ask.
    pub actions: Vec<&'static str>,
}

/// A credential as it is listed: nothing that lets anybody in.
#[derive(Debug, Serialize)]
pub struct ListedCredential {
    /// Its number.
    pub id: u32,
    /// Whose it is.
    pub caller: String,
    /// `tencent`, `acedata` or `platform`.
    pub kind: &'static str,
    /// SecretId, or the last four characters of the token.
    pub shown: String,
    /// Not valid from then on.
    pub expires: Option<String>,
    /// The secret before the last rotation is still valid, until then.
    pub overlap_until: Option<String>,
    /// Where requests may come from; empty: anywhere.
    pub addresses: Vec<AddressRange>,
    /// What it may be used for; empty: everything its caller may ask.
    pub actions: Vec<&'static str>,
    /// Why it asks, where a wire has no member for it.
    pub purpose: Option<Purpose>,
    /// Requests whose signature does not cover the body are refused.
    pub signed_payload_only: bool,
}

impl Acting<'_> {
    /// Adds a caller with its application; `free` is granted to it.
    pub fn create_caller(
        &self,
        name: &str,
        operator: bool,
        unlimited: bool,
        free: Credits,
    ) -> Result<(), RegisterError> {
        check_name(name)?;
        let actions = if operator { Vec::new() } else { self.policy().actions() };
        self.add_caller(name, |caller, application| {
            caller.operator = operator;
            application.unlimited = unlimited;
            application.actions = actions;
        })?;
        if free > Credits::ZERO && !unlimited && !operator {
            self.grant(name, free)?;
        }
        Ok(())
    }

    /// Adds a caller who has not activated the service: a person who registered.
    pub fn register_caller(&self, name: &str) -> Result<CallerId, RegisterError> {
        check_name(name)?;
        self.add_caller(name, |_, application| application.actions = Vec::new())
    }

    fn add_caller(
        &self,
        name: &str,
        fill: impl FnOnce(&mut Caller, &mut Application),
    ) -> Result<CallerId, RegisterError> {
        let _one_at_a_time = self.registering();
        let directory = self.directory();
        let callers = directory.callers();
        if callers.iter().any(|caller| caller.name == name) {
            return Err(RegisterError::Taken(name.into()));
        }
        let number = callers.last().map_or(1, |last| last.id.0 + 1);
        let id = CallerId(number);
        let mut caller = Caller { id, name: name.into(), standing: Standing::Active, operator: false };
        let mut application = Application::of(ApplicationId(number), &caller);
        fill(&mut caller, &mut application);
        self.change(Change::New(caller, application))?;
        Ok(id)
    }

    /// Activates the service for a caller; `false` when it was active already.
    pub fn activate(&self, caller: CallerId) -> Result<bool, RegisterError> {
        let _one_at_a_time = self.registering();
        let found = self.directory().application(ApplicationId(caller.0));
        let (application, _) = found.ok_or_else(|| RegisterError::NoCaller(caller.0.to_string()))?;
        if !application.actions.is_empty() {
            return Ok(false);
        }
        let application = Application { actions: self.policy().actions(), ..(*application).clone() };
        self.change(Change::Application(application))?;
        Ok(true)
    }

    /// Changes what a credential may do.
    pub fn set_credential(&self, id: u32, terms: CredentialTerms) -> Result<(), RegisterError> {
        let _one_at_a_time = self.registering();
        let mut credential = self.credential(id)?;
        let CredentialTerms { expires_at_ms, limit, addresses, actions } = terms;
        credential.expires_at_ms = expires_at_ms.unwrap_or(credential.expires_at_ms);
        credential.limit = limit.unwrap_or(credential.limit);
        credential.addresses = addresses.unwrap_or(credential.addresses);
        credential.actions = actions.unwrap_or(credential.actions);
        Ok(self.change(Change::Credential(credential))?)
    }

    /// Puts an order into the books; once, however often it is called.
    pub fn pay(
        &self,
        application: ApplicationId,
        amount: Credits,
        reference: [u8; 16],
    ) -> Result<(), RegisterError> {
        if self.books().has_payment(&reference) {
            return Ok(());
        }
        if amount.0.unsigned_abs() > MOST.0.unsigned_abs() {
            return Err(RegisterError::Amount);
        }
        let paid = Entry::Payment { at_ms: self.clock.now_ms(), application, amount, reference };
        Ok(self.record(paid)?)
    }

    /// Takes an order back out of the books; once, and only what is still there and not set aside for
    /// questions under way.
    pub fn take_back(
        &self,
        application: ApplicationId,
        amount: Credits,
        reference: [u8; 16],
    ) -> Result<(), RegisterError> {
        if self.books().has_payment(&reference) {
            return Ok(());
        }
        let found = self.directory().application(application);
        let (holder, _) = found.ok_or_else(|| RegisterError::NoCaller(application.0.to_string()))?;
        if self.sharing.is_some() {
            // What no node has taken; the commit sees to it.
            return match self.pay(application, Credits(-amount.0), reference) {
                Err(RegisterError::Store(StoreError::Spent)) => Err(RegisterError::Spent),
                taken => taken,
            };
        }
        self.books().hold(&holder, amount).map_err(|_| RegisterError::Spent)?;
        let taken = self.pay(application, Credits(-amount.0), reference);
        self.books().release(&holder, amount);
        taken
    }

    /// Numbers are given out and rows replaced whole: one change at a time.
    fn registering(&self) -> MutexGuard<'_, ()> {
        if let Some(sharing) = &self.sharing {
            sharing.catch_up();
        }
        self.registering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Suspends a caller, lets it ask again, or takes back its confirmation.
    pub fn set_standing(&self, name: &str, standing: Standing) -> Result<(), RegisterError> {
        let _one_at_a_time = self.registering();
        let caller = self.caller(name)?;
        let directory = self.directory();
        let able =
            |other: &&Caller| other.operator && other.standing == Standing::Active && other.id != caller.id;
        if caller.operator && standing != Standing::Active && !directory.callers().iter().any(able) {
            return Err(RegisterError::LastOperator(name.into()));
        }
        Ok(self.change(Change::Caller(Caller { standing, ..caller }))?)
    }

    /// Changes what a caller may do, and on which terms.
    pub fn set_terms(&self, name: &str, terms: Terms) -> Result<(), RegisterError> {
        let _one_at_a_time = self.registering();
        let id = ApplicationId(self.caller(name)?.id.0);
        let (application, _) =
            self.directory().application(id).ok_or_else(|| RegisterError::NoCaller(name.into()))?;
        let mut application = (*application).clone();
        let Terms { price, requests_per_second, encryption_required, reasons, unlimited, actions } = terms;
        application.price = price.map_or(application.price, Term::own);
        application.requests_per_second =
            requests_per_second.map_or(application.requests_per_second, Term::own);
        application.encryption_required = encryption_required.unwrap_or(application.encryption_required);
        application.reasons = reasons.unwrap_or(application.reasons);
        application.unlimited = unlimited.unwrap_or(application.unlimited);
        application.actions = actions.unwrap_or(application.actions);
        Ok(self.change(Change::Application(application))?)
    }

    /// Gives credits to a caller.
    pub fn grant(&self, name: &str, amount: Credits) -> Result<(), RegisterError> {
        if amount <= Credits::ZERO || amount > MOST {
            return Err(RegisterError::Amount);
        }
        let application = ApplicationId(self.caller(name)?.id.0);
        self.record_act(Act::Recharged { application, amount })?;
        let granted = Entry::Grant { at_ms: self.clock.now_ms(), application, amount };
        Ok(self.record(granted)?)
    }
}

impl Engine {
    /// What is left to a caller, counted at this moment; `None`: unlimited. [`Engine::balance`] is what was known a
    /// moment ago.
    pub fn count_balance(&self, name: &str) -> Result<Option<Credits>, RegisterError> {
        let found = self.directory().application(ApplicationId(self.caller(name)?.id.0));
        let (application, _) = found.ok_or_else(|| RegisterError::NoCaller(name.into()))?;
        Ok(self.count(&application)?)
    }

    /// What was charged to an application that can run out of balance.
    pub fn charged(&self, application: ApplicationId) -> Credits {
        self.books().charged(application)
    }

    /// What was charged to a credential since the beginning.
    pub fn spent(&self, credential: CredentialId) -> Credits {
        self.books().spent(credential)
    }

    /// All callers.
    pub fn list_callers(&self) -> Vec<ListedCaller> {
        let directory = self.directory();
        let mut counts: HashMap<ApplicationId, usize> = HashMap::new();
        for credential in directory.credentials() {
            *counts.entry(credential.application).or_default() += 1;
        }
        let listed = |caller: &&Caller| {
            let id = ApplicationId(caller.id.0);
            let application = directory.application(id).map(|(application, _)| application);
            let balance = application.as_ref().and_then(|application| self.balance(application));
            let own = application.as_deref();
            ListedCaller {
                name: caller.name.clone(),
                standing: caller.standing,
                operator: caller.operator,
                balance: balance.map(|balance| balance.to_string()),
                credentials: counts.get(&id).copied().unwrap_or(0),
                price: own.and_then(|own| own.price).map(|price| price.to_string()),
                requests_per_second: own.and_then(|own| own.requests_per_second),
                encryption_required: own.is_some_and(|own| own.encryption_required),
                reasons: own.is_some_and(|own| own.reasons),
                actions: own.iter().flat_map(|own| &own.actions).map(|action| action.name()).collect(),
            }
        };
        directory.callers().iter().map(listed).collect()
    }
}

impl Acting<'_> {
    /// Makes a credential for a caller.
    pub fn issue(&self, name: &str, kind: Kind, wish: Wish) -> Result<Issued, RegisterError> {
        if wish.signed_payload_only && kind != Kind::Signature {
            return Err(RegisterError::NothingSigned);
        }
        if wish.purpose.as_ref().is_some_and(|purpose| !purpose.is_sound()) {
            return Err(RegisterError::Purpose);
        }
        let _one_at_a_time = self.registering();
        let application = ApplicationId(self.caller(name)?.id.0);
        let id = self.directory().next_credential();
        let (proof, issued) = match kind {
            Kind::Signature => {
                // The shape people know from Tencent: AKID and 32 letters, a key of 32.
                let secret_id = format!("AKID{}", letters(32));
                let secret = letters(32);
                let proof = Proof::Signature {
                    secret_id: secret_id.clone(),
                    secret_key: Secret::new(secret.clone()),
                    previous: None,
                    session_token: None,
                    signed_payload_only: wish.signed_payload_only,
                };
                (proof, Issued { credential: id.0, secret_id: Some(secret_id), secret })
            }
            Kind::Bearer => {
                let secret = hex(&random::<16>());
                let proof =
                    Proof::Bearer { hash: self.vault.token(&secret), last4: last4(&secret), previous: None };
                (proof, Issued { credential: id.0, secret_id: None, secret })
            }
            Kind::Platform => {
                let secret = format!("platform-v1-{}", hex(&random::<32>()));
                let proof = Proof::Platform { hash: self.vault.token(&secret), last4: last4(&secret) };
                (proof, Issued { credential: id.0, secret_id: None, secret })
            }
        };
        let Wish { expires_at_ms, addresses, actions, purpose, limit, .. } = wish;
        let credential =
            Credential { id, application, proof, expires_at_ms, addresses, actions, purpose, limit };
        self.change(Change::Credential(credential))?;
        Ok(issued)
    }

    /// Gives a credential a new secret; the old one is valid for `overlap_ms` more.
    pub fn rotate(&self, id: u32, overlap_ms: Millis) -> Result<Issued, RegisterError> {
        let _one_at_a_time = self.registering();
        let mut credential = self.credential(id)?;
        // Who repeats a rotation whose answer got lost must not cut off the secret that is in use.
        if overlap_ms > 0 && credential.proof.overlap_until().is_some_and(|until| until > self.clock.now_ms())
        {
            return Err(RegisterError::OverlapRuns);
        }
        let until = self.clock.now_ms().saturating_add(overlap_ms);
        let issued = match &mut credential.proof {
            Proof::Signature { secret_id, secret_key, previous, .. } => {
                let secret = letters(32);
                let old = std::mem::replace(secret_key, Secret::new(secret.clone()));
                *previous = (overlap_ms > 0).then_some((old, until));
                Issued { credential: id, secret_id: Some(secret_id.clone()), secret }
            }
            Proof::Bearer { hash, last4: shown, previous } => {
                let secret = hex(&random::<16>());
                let old = std::mem::replace(hash, self.vault.token(&secret));
                *previous = (overlap_ms > 0).then_some((old, until));
                *shown = last4(&secret);
                Issued { credential: id, secret_id: None, secret }
            }
            Proof::Platform { .. } => return Err(RegisterError::NotRotated),
        };
        self.change(Change::Credential(credential))?;
        Ok(issued)
    }

    /// Makes a credential invalid at once.
    pub fn revoke(&self, id: u32) -> Result<(), RegisterError> {
        let _one_at_a_time = self.registering();
        let credential = self.credential(id)?;
        Ok(self.change(Change::Revoked(credential.id))?)
    }
}

impl Engine {
    /// All credentials, of one caller or of all.
    pub fn list_credentials(&self, of: Option<&str>) -> Result<Vec<ListedCredential>, RegisterError> {
        let only = of.map(|name| self.caller(name)).transpose()?.map(|caller| caller.id);
        let directory = self.directory();
        let name = |id: ApplicationId| {
            directory.caller(CallerId(id.0)).map(|caller| caller.name.clone()).unwrap_or_default()
        };
        let wanted = directory.credentials().filter(|c| only.is_none_or(|only| only.0 == c.application.0));
        let now = self.clock.now_ms();
        let listed = |c: &std::sync::Arc<Credential>| ListedCredential::of(c, name(c.application), now);
        Ok(wanted.map(listed).collect())
    }

    fn caller(&self, name: &str) -> Result<Caller, RegisterError> {
        let directory = self.directory();
        let found = directory.callers().into_iter().find(|caller| caller.name == name).cloned();
        found.ok_or_else(|| RegisterError::NoCaller(name.into()))
    }

    fn credential(&self, id: u32) -> Result<Credential, RegisterError> {
        let directory = self.directory();
        let found = directory.credential(CredentialId(id));
        found.map(|credential| (**credential).clone()).ok_or(RegisterError::NoCredential(id))
    }
}

/// The most credits one order or grant is about.
const MOST: Credits = Credits::whole(1_000_000_000);

fn check_name(name: &str) -> Result<(), RegisterError> {
    let sign = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let sound = (1..=64).contains(&name.chars().count()) && name.chars().all(sign);
    if sound { Ok(()) } else { Err(RegisterError::Name) }
}

impl ListedCredential {
    fn of(credential: &Credential, caller: String, now: Millis) -> ListedCredential {
        let utc = |at: Option<Millis>| at.map(crate::clock::utc_text);
        let shown = match &credential.proof {
            Proof::Signature { secret_id, .. } => secret_id.clone(),
            Proof::Bearer { last4, .. } | Proof::Platform { last4, .. } => format!("…{last4}"),
        };
        ListedCredential {
            id: credential.id.0,
            caller,
            kind: kind_word(&credential.proof),
            shown,
            expires: utc(credential.expires_at_ms),
            overlap_until: utc(credential.proof.overlap_until().filter(|until| *until > now)),
            addresses: credential.addresses.clone(),
            actions: credential.actions.iter().map(|action| action.name()).collect(),
            purpose: credential.purpose.clone(),
            signed_payload_only: matches!(
                credential.proof,
                Proof::Signature { signed_payload_only: true, .. }
            ),
        }
    }
}

fn last4(token: &str) -> String {
    token[token.len() - 4..].to_owned()
}

/// Random letters and digits; 32 of them carry 190 bits.
fn letters(count: usize) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(count);
    while text.len() < count {
        // Bytes past the largest multiple of 62 are thrown away: each letter is equally likely.
        let drawn = random::<64>().into_iter().filter(|byte| *byte < 248);
        text.extend(drawn.map(|byte| LETTERS[usize::from(byte) % 62] as char).take(count - text.len()));
    }
    text
}
