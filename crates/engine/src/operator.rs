//! What operators do, and who did it: an entry of the ledger each, durable before it takes effect.
//!
//! An entry says what was asked for. If the disk fails right after it, that may not have happened; what
//! has happened was always said before. Where the entry cannot be written, nothing is done.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::caller::{ApplicationId, CallerId, CredentialId, Directory, Proof, Standing};
use crate::clock::Millis;
use crate::erase::{EraseError, ErasureStatus};
use crate::ledger::{Credits, Entry};
use crate::rotate::{RotateError, RotationStatus};
use crate::settle::Change;
use crate::store::StoreError;
use crate::subject::CardNumber;
use crate::vault::KeyGroup;

/// Who did it. Written with postcard: only ever append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Somebody who may open the data folder, on the machine itself.
    Machine,
    /// Whoever presented this credential.
    Credential(CredentialId),
    /// Somebody who logged in, by the caller they own; 0: who is only just registering.
    Person(CallerId),
}

/// What was done; numbers, never names or elements. Written with postcard: variants and members are
/// positional, so only ever append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A caller was added, with its application.
    CallerAdded {
        /// Which.
        caller: CallerId,
        /// Looks after the installation.
        operator: bool,
        /// Never runs out of balance.
        unlimited: bool,
    },
    /// A caller was suspended, or may ask again.
    StandingSet {
        /// Which.
        caller: CallerId,
        /// How it stands now.
        standing: Standing,
    },
    /// What an application may do, and on which terms; all of them, as they are now.
    TermsSet {
        /// Which.
        application: ApplicationId,
        /// What it may ask, by name.
        actions: Vec<String>,
        /// Never runs out of balance.
        unlimited: bool,
        /// Price of a charged answer, if its own.
        price: Option<Credits>,
        /// Requests a second, if its own.
        requests_per_second: Option<u32>,
        /// Elements in plain text are refused.
        encryption_required: bool,
        /// Is told which element differs.
        reasons: bool,
    },
    /// A credential was made.
    CredentialIssued {
        /// Which.
        credential: CredentialId,
        /// Whose.
        application: ApplicationId,
        /// `tencent`, `acedata` or `platform`.
        kind: String,
        /// Not valid from then on, Unix milliseconds.
        expires_at_ms: Option<Millis>,
    },
    /// A credential was given a new secret, or other limits.
    CredentialChanged {
        /// Which.
        credential: CredentialId,
        /// Not valid from then on, Unix milliseconds.
        expires_at_ms: Option<Millis>,
    },
    /// A credential is no longer valid.
    CredentialRevoked {
        /// Which.
        credential: CredentialId,
    },
    /// Credits were given; an entry of its own adds them.
    Recharged {
        /// To whom.
        application: ApplicationId,
        /// How much.
        amount: Credits,
    },
    /// Accounts of record were changed one by one; at most so many: some may not have been there.
    AccountsChanged {
        /// Added or replaced.
        put: u32,
        /// Given another state.
        state_set: u32,
        /// Removed.
        deleted: u32,
    },
    /// Accounts of record were loaded from a file.
    Imported {
        /// Accounts that the file does not have are removed.
        replaces: bool,
    },
    /// Keys were replaced.
    KeysRotated {
        /// Which, by their words; none: what was begun earlier was gone on with.
        groups: Vec<String>,
    },
    /// Everything about a card is to be erased; about which one is not kept.
    ErasureBegun,
    /// A backup was put in place: what came after it is not there.
    Restored {
        /// Entries the ledger had then.
        entries: u64,
    },
    /// The key that opens the key ring was replaced.
    RootKeyReplaced,
    /// A package was put on the shelf.
    PackagePut {
        /// Its id.
        package: String,
        /// How much it gives.
        credits: Credits,
        /// What it costs, in hundredths of the installation's currency.
        price_cents: i64,
    },
    /// A package was taken off the shelf.
    PackageDropped {
        /// Its id.
        package: String,
    },
    /// Vouchers were made.
    VouchersIssued {
        /// How many.
        count: u32,
        /// How much each gives.
        credits: Credits,
    },
    /// An invitation to register was made.
    Invited {
        /// Not valid from then on, Unix milliseconds.
        until_ms: Millis,
    },
    /// An order was made for somebody else.
    OrderMade {
        /// Its id.
        order: String,
        /// For whom.
        application: ApplicationId,
        /// How much it gives.
        credits: Credits,
        /// What it costs, in hundredths of the installation's currency.
        price_cents: i64,
    },
    /// An order that waits to be paid was given another price.
    OrderPriced {
        /// Its id.
        order: String,
        /// What it costs now, in hundredths of the installation's currency.
        price_cents: i64,
    },
    /// An order was carried out; a payment of its own adds its credits.
    OrderFinished {
        /// Its id.
        order: String,
        /// For whom.
        application: ApplicationId,
        /// How much it gives.
        credits: Credits,
    },
    /// An order was taken back; a payment of its own takes its credits.
    OrderRefunded {
        /// Its id.
        order: String,
        /// Whose.
        application: ApplicationId,
        /// How much it gave.
        credits: Credits,
    },
    /// How an account of record stands was looked up by card; by which is not kept.
    AccountLookedUp,
    /// Somebody may choose another password, with a code that is valid once.
    PasswordResetAllowed {
        /// Whose.
        caller: CallerId,
        /// Not valid from then on, Unix milliseconds.
        until_ms: Millis,
    },
    /// A password was replaced, and all sessions under the old one ended.
    PasswordSet {
        /// Whose.
        caller: CallerId,
    },
    /// What purchases cost was put right by a provider's bill; an entry for each does it.
    BillTakenOver {
        /// How many.
        purchases: u32,
    },
    /// More rows of a file may be answered than usual.
    BulkApproved {
        /// Who pays.
        application: ApplicationId,
        /// How many.
        rows: u64,
    },
}

impl Act {
    /// What a change of callers is. Secrets that are sealed again are part of replacing the keys, and the
    /// steps of an erasure part of that.
    pub(crate) fn of(change: &Change, directory: &Directory) -> Option<Act> {
        Some(match change {
            Change::New(caller, application) => Act::CallerAdded {
                caller: caller.id,
                operator: caller.operator,
                unlimited: application.unlimited,
            },
            Change::Caller(caller) => Act::StandingSet { caller: caller.id, standing: caller.standing },
            Change::Application(application) => Act::TermsSet {
                application: application.id,
                actions: application.actions.iter().map(|action| action.name().to_owned()).collect(),
                unlimited: application.unlimited,
                price: application.price,
                requests_per_second: application.requests_per_second,
                encryption_required: application.encryption_required,
                reasons: application.reasons,
            },
            Change::Credential(credential) => {
                let (id, expires_at_ms) = (credential.id, credential.expires_at_ms);
                if directory.credential(id).is_some() {
                    Act::CredentialChanged { credential: id, expires_at_ms }
                } else {
                    let (application, kind) = (credential.application, kind_word(&credential.proof).into());
                    Act::CredentialIssued { credential: id, application, kind, expires_at_ms }
                }
            }
            Change::Revoked(id) => Act::CredentialRevoked { credential: *id },
            Change::Resealed | Change::Erasure(_) => return None,
        })
    }
}

/// The word of a credential's kind.
pub fn kind_word(proof: &Proof) -> &'static str {
    match proof {
        Proof::Signature { .. } => "tencent",
        Proof::Bearer { .. } => "acedata",
        Proof::Platform { .. } => "platform",
    }
}

/// The engine in the hands of somebody who looks after it.
#[derive(Clone, Copy)]
pub struct Acting<'a> {
    engine: &'a Arc<Engine>,
    by: By,
}

impl Engine {
    /// The engine in the hands of `by`: what is changed through it is recorded under that name.
    pub fn acting(self: &Arc<Engine>, by: By) -> Acting<'_> {
        Acting { engine: self, by }
    }
}

impl Deref for Acting<'_> {
    type Target = Arc<Engine>;

    fn deref(&self) -> &Arc<Engine> {
        self.engine
    }
}

impl Acting<'_> {
    /// Records what is about to be done; when it fails, it must not be done.
    pub fn record_act(&self, act: Act) -> Result<(), StoreError> {
        self.engine.record(Entry::Operator { at_ms: self.engine.clock.now_ms(), by: self.by, act })
    }

    /// Makes a change of callers durable and known to everybody, after it was recorded.
    pub fn change(&self, change: Change) -> Result<(), StoreError> {
        if let Some(act) = Act::of(&change, &self.engine.directory()) {
            self.record_act(act)?;
        }
        self.engine.change(change)
    }

    /// Begins to replace keys, in the background, or goes on with what was begun.
    pub fn rotate_keys(&self, groups: &[KeyGroup]) -> Result<RotationStatus, RotateError> {
        let groups_by_word = groups.iter().map(|group| group.word().to_owned()).collect();
        self.record_act(Act::KeysRotated { groups: groups_by_word })?;
        self.engine.rotate_keys(groups)
    }

    /// Begins to erase everything about a card, in the background.
    pub fn erase(&self, card: &str) -> Result<ErasureStatus, EraseError> {
        if CardNumber::parse(card).is_none() {
            return Err(EraseError::Card);
        }
        self.record_act(Act::ErasureBegun)?;
        self.engine.erase(card)
    }
}
