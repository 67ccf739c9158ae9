//! Who may ask: callers, their applications, and the credentials they present.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

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

/// What can be asked. One action has one name on each wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Card number, holder name, identity number and mobile.
    FourElements,
}

/// The wire a question came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wire {
    /// Tencent Cloud API 3.0.
    Tencent,
    /// AceData.
    AceData,
}

impl Wire {
    /// The name used in journals, metrics and fault rules.
    pub const fn name(self) -> &'static str {
        match self {
            Wire::Tencent => "tencent",
            Wire::AceData => "acedata",
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
    },
    /// Presents a platform token (management); only its keyed hash is kept.
    Platform {
        /// Keyed hash of the token.
        hash: KeyedRef,
        /// Its last four characters, for lists.
        last4: String,
    },
}

/// Everybody who may ask, for look-ups; replaced as a whole when something changes.
#[derive(Debug, Default)]
pub struct Directory {
    callers: HashMap<CallerId, Caller>,
    applications: HashMap<ApplicationId, Arc<Application>>,
    by_secret_id: HashMap<String, Arc<Credential>>,
    by_token: HashMap<KeyedRef, Arc<Credential>>,
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
            directory.add(Arc::new(credential));
        }
        directory
    }

    fn add(&mut self, credential: Arc<Credential>) {
        match &credential.proof {
            Proof::Signature { secret_id, .. } => {
                self.by_secret_id.insert(secret_id.clone(), credential);
            }
            Proof::Bearer { hash, .. } | Proof::Platform { hash, .. } => {
                self.by_token.insert(*hash, credential);
            }
        }
    }

    /// The signing credential of that public id.
    pub fn signing(&self, secret_id: &str) -> Option<Arc<Credential>> {
        self.by_secret_id.get(secret_id).cloned()
    }

    /// The credential whose token has this keyed hash.
    pub fn token(&self, hash: &KeyedRef) -> Option<Arc<Credential>> {
        self.by_token.get(hash).cloned()
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
