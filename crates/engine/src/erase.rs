//! Erasing a person: the account of a card, and everything the ledger keeps about it besides the bare
//! fact that somebody asked, was answered and paid.
//!
//! What is erased: the account of record; of every entry about the card the side row (reference, masks,
//! idempotency, attempts, consent); stored answers. What stays: the entries and the tree over them, which
//! tell nothing about whom; and, in memory until midnight or a restart, the counters of the day. The card is never stored: while an erasure is
//! under way, the keyed references to it are noted, sealed.
//!
//! Where nodes share a database, each node's copy forgets the account as soon as it follows.
//!
//! Each step can be repeated, so an erasure that was interrupted is gone on with at the next start, or before
//! another card is erased, at whichever node that is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::background::Stopping;
use crate::ledger::Entry;
use crate::settle::Change;
use crate::store::{AccountsOfRecord, StoreError, Unerased};
use crate::subject::CardNumber;
use crate::vault::{BlindIndex, KeyedRef};

/// Why somebody is not erased, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Not a card number.
    #[error("that is not a card number: 13 to 19 digits")]
    Card,
    /// Another one is under way.
    #[error("an erasure is under way; try again when it is done")]
    UnderWay,
    /// The engine is stopping.
    #[error("{0}")]
    Stopping(#[from] Stopping),
    /// The data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

/// How far an erasure is, or what the last one removed. Tells nothing about whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureStatus {
    /// Whether one is under way.
    pub is_running: bool,
    /// Whether it is about another card than was asked: one that was interrupted comes to its end first.
    pub is_earlier: bool,
    /// Whether there was an account of record.
    pub account: bool,
    /// Ledger entries whose side row was emptied.
    pub records: u64,
    /// Those among them that had masks, which usage rows show.
    pub masks: u64,
    /// Why it stopped, if it did not come to its end.
    pub error: Option<String>,
}

/// What is erased: keyed references only. Does not print.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// References to the card, under every key there is.
    pub(crate) references: Vec<KeyedRef>,
    index: [u8; 16],
    keys: u32,
    /// Whether there was an account.
    pub(crate) had_account: bool,
}

impl Pending {
    /// Whether both are about one card. No key of these references is ever destroyed.
    pub(crate) fn is_of_card_of(&self, other: &Pending) -> bool {
        self.references.iter().any(|reference| other.references.contains(reference))
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending(…)")
    }
}

/// Entries about the card in some blocks.
#[derive(Clone, Default)]
pub struct Found {
    /// Block, and places in it.
    pub(crate) sides: Vec<(i64, Vec<usize>)>,
    /// How many of them have masks.
    pub(crate) masks: u64,
    /// Their answers, as they can be asked for again.
    pub(crate) answers: Vec<KeyedRef>,
    /// The last block that was looked at.
    pub(crate) until: i64,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Found({} records, …)", self.records())
    }
}

impl Found {
    /// Number of entries.
    pub(crate) fn records(&self) -> u64 {
        self.sides.iter().map(|(_, places)| places.len() as u64).sum()
    }
}

/// What the ledger's writer does for it.
#[derive(Clone, Debug)]
pub enum ErasureStep {
    /// Notes it.
    Begin(Pending),
    /// Empties side rows.
    Empty(Found),
    /// Forgets the note.
    End,
}

impl Engine {
    /// How far the erasure is, or what the last one removed.
    pub fn erasure(&self) -> ErasureStatus {
        self.erasing.status().clone()
    }

    /// Begins to erase everything about a card, in the background; or goes on with what was interrupted before, if
    /// that is about another card.
    pub(crate) fn erase(self: &Arc<Engine>, card: &str) -> Result<ErasureStatus, EraseError> {
        let card = CardNumber::parse(card).ok_or(EraseError::Card)?;
        let mut status = self.erasing.status();
        if status.is_running {
            return Err(EraseError::UnderWay);
        }
        let keys = self.vault.keys();
        // First: if an import or a rotation is in the way, nothing is begun.
        let mut accounts = self.accounts_alone()?;
        let had_account = accounts.find(card.as_str(), &keys)?.is_some();
        let mut pending = Pending {
            references: keys.subjects(card.as_str()),
            index: keys.index(card.as_str(), keys.accounts()).0,
            keys: keys.accounts().version,
            had_account,
        };
        drop(keys);
        let mut records = 0;
        if let Some(before) = self.ledger()?.unerased(&self.vault)? {
            if !before.pending.is_of_card_of(&pending) {
                *status = ErasureStatus { is_earlier: true, ..self.start_erasure(before, accounts)? };
                return Ok(status.clone());
            }
            pending.had_account |= before.pending.had_account;
            records = before.records;
        }
        self.change(Change::Erasure(ErasureStep::Begin(pending.clone())))?;
        *status = self.start_erasure(Unerased { pending, after: 0, records }, accounts)?;
        Ok(status.clone())
    }

    /// Goes on with an erasure that did not come to its end, if there is one.
    pub fn resume_erasure(self: &Arc<Engine>) -> Result<(), EraseError> {
        let ledger = self.ledger()?;
        if ledger.unerased(&self.vault)?.is_none() {
            return Ok(());
        }
        let mut status = self.erasing.status();
        let accounts = self.accounts_alone()?;
        // Another node may have brought it to its end meanwhile.
        let Some(unerased) = ledger.unerased(&self.vault)? else { return Ok(()) };
        *status = self.start_erasure(unerased, accounts)?;
        Ok(())
    }

    fn start_erasure(
        self: &Arc<Engine>,
        unerased: Unerased,
        accounts: AccountsOfRecord,
    ) -> Result<ErasureStatus, EraseError> {
        let (account, records) = (unerased.pending.had_account, unerased.records);
        let engine = Arc::clone(self);
        let run = move || {
            let done = engine.erase_to_end(unerased, accounts);
            let mut status = engine.erasing.status();
            status.is_running = false;
            if let Err(error) = done {
                if !matches!(error, EraseError::Stopping(_)) {
                    tracing::error!(%error, "an erasure did not come to its end");
                }
                status.error = Some(error.to_string());
            }
        };
        self.erasing.start("card4e-erase", run).map_err(EraseError::Thread)?;
        Ok(ErasureStatus { is_running: true, account, records, ..ErasureStatus::default() })
    }

    fn erase_to_end(&self, unerased: Unerased, mut accounts: AccountsOfRecord) -> Result<(), EraseError> {
        let Unerased { pending, mut after, .. } = unerased;
        let keys = self.vault.keys();
        if keys.accounts().version != pending.keys {
            return Err(StoreError::OtherKeys.into());
        }
        accounts.erase(&BlindIndex(pending.index), &keys)?;
        drop(keys);
        let ledger = self.ledger()?;
        while let Some(found) = ledger.find_sides(after, &pending, &self.vault)? {
            self.erasing.go_on()?;
            accounts.stay_alone()?;
            after = found.until;
            let (records, masks) = (found.records(), found.masks);
            self.change(Change::Erasure(ErasureStep::Empty(found)))?;
            let mut status = self.erasing.status();
            status.records += records;
            status.masks += masks;
        }
        drop(ledger);
        let ErasureStatus { records, account, .. } = self.erasure();
        // Until it is forgotten below, an interrupted erasure might record this twice; never not at all.
        self.record(Entry::Erased { at_ms: self.clock.now_ms(), records, account })?;
        if !accounts.overwrite_log()? {
            return Err(StoreError::LogInUse("accounts.db").into());
        }
        Ok(self.change(Change::Erasure(ErasureStep::End))?)
    }
}
