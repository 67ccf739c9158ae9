//! Replacing keys while everything goes on, without any plaintext.
//!
//! The key ring is the log: new versions are written to it first, and the old ones are destroyed last,
//! when nothing needs them. Whatever a crash leaves in between is told by the ring and gone on with at
//! the next start or by the next `rotate`. What each group needs:
//!
//! | group | what is done with what the old key made |
//! |---|---|
//! | accounts | all rows are wrapped again (`store/accounts/rewrap.rs`), checked, old key destroyed |
//! | credentials | all are sealed again in one commit, the day key too, old key destroyed |
//! | side, subjects | read with the old key, which stays |
//! | tokens | found under the old key, which stays while a credential was hashed with it |
//! | idempotency | found under the old key, which stays as long as answers are kept |
//! | envelopes | opened with the old keys, which stay for a month: clients keep public keys |
//! | audit, receipts | the public half of the old key stays, to check what it signed |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::background::{Stopping, lock};
use crate::caller::Proof;
use crate::settle::Change;
use crate::store::{AccountsOfRecord, Nodes, StoreError};
use crate::vault::{KeyGroup, KeyRing, KeyUse, Keys, ListedKey, RingError};

/// Versions of the key that hashes tokens at most: each is tried for a token that is not known.
const TOKEN_KEYS_MAX: usize = 4;

/// A token that was made a moment before its key was replaced is known a moment later.
const TOKEN_KEY_KEPT_MS: i64 = 3_600_000;

/// Clients keep the public key they once fetched; what they encrypt for it is opened for this long.
const ENVELOPE_KEY_KEPT_MS: i64 = 30 * 86_400_000;

/// Private keys of a kind at most: each costs every new envelope an operation.
const ENVELOPE_KEYS_MAX: u32 = 4;

/// Why keys are not replaced, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Tokens that were never exchanged are known under the oldest keys only.
    #[error(
        "tokens of credentials {0} are still known under one of {TOKEN_KEYS_MAX} older keys only; give them new ones \
         (`card4e credential rotate ID`) or revoke them, or rotate the other keys: card4e keys rotate accounts side …"
    )]
    OldTokens(String),
    /// What they cannot open would be lost to them: changes of callers, above all.
    #[error(
        "not all nodes work with the keys there are: {0}. If the root key was replaced, put the new one there and start \
         the node again; one that is gone is not waited for after ten seconds. Then do this again"
    )]
    NodesBehind(String),
    /// It finds what it erases under the keys of when it was begun.
    #[error(
        "an erasure that was interrupted comes first: erase that card again (`card4e subject erase`), or start the \
         server again, which goes on with it. Then do this again"
    )]
    Erasing,
    /// The engine is stopping.
    #[error("{0}")]
    Stopping(#[from] Stopping),
    /// The keys.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The day key.
    #[error("the key of the day cannot be sealed again: {0}")]
    DayKey(std::io::Error),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

/// How far a rotation is, or how the last one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Whether one is under way.
    pub is_running: bool,
    /// Whether what was begun earlier is gone on with.
    pub is_resumed: bool,
    /// Accounts there are.
    pub accounts: u64,
    /// Accounts under the new keys.
    pub rewrapped: u64,
    /// Why the last one stopped, if it did not come to its end.
    pub error: Option<String>,
}

impl Engine {
    /// Every version of every key, without its value.
    pub fn list_keys(&self) -> Vec<ListedKey> {
        lock(&self.ring).ring.list()
    }

    /// Seals the key ring with another root key; see [`RingFile::replace_root`](crate::vault::RingFile).
    ///
    /// Where nodes share a database this is done there first. The others go on with the keys they have, and need
    /// the new root key when they are started again; until then no other key is replaced.
    pub fn replace_root_key(&self, root: &[u8; 32]) -> Result<(), RotateError> {
        self.wait_for_followers()?;
        let mut ring = lock(&self.ring);
        if let Some(sharing) = &self.sharing {
            let seen = sharing.keys.load(Ordering::SeqCst);
            let sealed = ring.sealed_by(root)?;
            Nodes::again(&sharing.store.database)?.replace_key_ring(&sealed, seen)?;
            ring.take_over(root, &sealed)?;
            sharing.keys.store(seen + 1, Ordering::SeqCst);
            return Ok(());
        }
        Ok(ring.replace_root(root)?)
    }

    /// How far the rotation is.
    pub fn rotation(&self) -> RotationStatus {
        self.rotating.status().clone()
    }

    /// Begins to replace keys, in the background. If an earlier rotation did not come to its end, goes
    /// on with that one instead. Nothing is begun twice.
    pub(crate) fn rotate_keys(
        self: &Arc<Engine>,
        groups: &[KeyGroup],
    ) -> Result<RotationStatus, RotateError> {
        self.wait_for_followers()?;
        let mut status = self.rotating.status();
        if status.is_running {
            return Ok(status.clone());
        }
        let mut ring = lock(&self.ring);
        let is_resumed = ring.ring.is_rotating();
        let mut accounts = None;
        if groups.contains(&KeyGroup::Accounts) || is_resumed {
            // First: an import under way must not find other keys than it began with.
            accounts = Some(self.accounts_alone()?);
        }
        let mut before = None;
        if !is_resumed {
            self.refuse_old_tokens(groups)?;
            if accounts.is_some() && self.ledger()?.unerased(&self.vault)?.is_some() {
                return Err(RotateError::Erasing);
            }
            let now = self.clock.now_ms();
            self.change_ring(&mut ring, |ring| groups.iter().for_each(|group| ring.add(*group, now)))?;
            before = Some(self.put_to_work(&ring.ring));
        }
        drop(ring);
        *status = RotationStatus { is_running: true, is_resumed, ..RotationStatus::default() };
        let engine = Arc::clone(self);
        let run = move || {
            let done = engine.bring_to_end(before, accounts);
            let mut status = engine.rotating.status();
            status.is_running = false;
            if let Err(error) = done {
                if !matches!(error, RotateError::Stopping(_)) {
                    tracing::error!(%error, "the rotation of keys did not come to its end");
                }
                status.error = Some(error.to_string());
            }
        };
        let started = self.rotating.start("card4e-keys", run);
        status.is_running = started.is_ok();
        started.map_err(RotateError::Thread)?;
        Ok(status.clone())
    }

    /// Makes keys to encrypt for, unless there are some.
    pub fn ensure_envelope_keys(&self) -> Result<(), RotateError> {
        let mut ring = lock(&self.ring);
        if ring.ring.newest_version(KeyUse::EnvelopeRsa) > 0 {
            return Ok(());
        }
        let now = self.clock.now_ms();
        match self.change_ring(&mut ring, |ring| ring.add(KeyGroup::Envelopes, now)) {
            // Another node made some at the same moment, and this one reads them a moment later.
            Err(RotateError::Store(StoreError::ChangedElsewhere)) => return Ok(()),
            changed => changed?,
        }
        self.put_to_work(&ring.ring);
        Ok(())
    }

    /// Goes on with a rotation that did not come to its end, if there is one.
    pub fn resume_rotation(self: &Arc<Engine>) -> Result<(), RotateError> {
        if self.is_half_rotated() {
            self.rotate_keys(&[])?;
        }
        Ok(())
    }

    fn is_half_rotated(&self) -> bool {
        lock(&self.ring).ring.is_rotating()
    }

    fn bring_to_end(
        &self,
        before: Option<Arc<Keys>>,
        accounts: Option<AccountsOfRecord>,
    ) -> Result<(), RotateError> {
        if let Some(before) = before {
            self.wait_until_unused(&before)?;
        }
        let keys = self.vault.keys();
        self.reseal_callers()?;
        match &self.sharing {
            None => self.reseal_day_key().map_err(RotateError::DayKey)?,
            Some(sharing) => self.reseal_shared_day_key(sharing)?,
        }
        if let Some(mut accounts) = accounts {
            self.rotating.status().accounts = accounts.count()?;
            accounts.begin_rewrap(&keys)?;
            loop {
                self.rotating.go_on()?;
                let is = accounts.rewrap(&keys)?;
                self.rotating.status().rewrapped = is.rows;
                if is.is_moved {
                    break;
                }
            }
            self.wait_for_other_nodes()?;
            accounts.finish_rewrap(&keys)?;
        }
        drop(keys);
        self.wait_for_followers()?;
        let mut ring = lock(&self.ring);
        let tokens = self.token_keys_in_use();
        let now = self.clock.now_ms();
        let policy = self.policy();
        let answers_end = now - policy.key_kept_ms.max(policy.content_window_ms);
        self.change_ring(&mut ring, |ring| {
            ring.destroy_older(KeyGroup::Accounts, |_, _| false);
            ring.destroy_older(KeyGroup::Credentials, |_, _| false);
            ring.destroy_older(KeyGroup::Tokens, |version, replaced| {
                tokens.contains(&(version as u8)) || replaced.is_none_or(|at| at > now - TOKEN_KEY_KEPT_MS)
            });
            ring.destroy_older(KeyGroup::Idempotency, |_, replaced| {
                replaced.is_none_or(|at| at > answers_end)
            });
            let newest = ring.newest_version(KeyUse::EnvelopeRsa);
            ring.destroy_older(KeyGroup::Envelopes, |version, replaced| {
                version + ENVELOPE_KEYS_MAX > newest
                    && replaced.is_none_or(|at| at > now - ENVELOPE_KEY_KEPT_MS)
            });
        })?;
        self.put_to_work(&ring.ring);
        Ok(())
    }

    /// With all that other nodes have changed; again, where one changes something at the same moment.
    fn reseal_callers(&self) -> Result<(), RotateError> {
        loop {
            if let Some(sharing) = &self.sharing {
                sharing.catch_up();
            }
            match self.change(Change::Resealed) {
                Err(StoreError::ChangedElsewhere) => self.rotating.go_on()?,
                kept => return Ok(kept?),
            }
        }
    }

    /// Under the lock of the books, so that nobody looks a question up by its old name and notes it by
    /// its new one.
    fn put_to_work(&self, ring: &KeyRing) -> Arc<Keys> {
        let _books = self.books();
        self.vault.replace(ring)
    }

    /// Waits for the questions that were begun with these keys: they must not look for a row under its
    /// old name once it has moved. Each holds them for microseconds.
    fn wait_until_unused(&self, keys: &Arc<Keys>) -> Result<(), RotateError> {
        while Arc::strong_count(keys) > 1 {
            self.rotating.go_on()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until every node has followed or answers nothing: none must look for a row under its old name
    /// only, when the old keys are destroyed. Others may keep copies where this node keeps none.
    fn wait_for_other_nodes(&self) -> Result<(), RotateError> {
        if self.sharing.is_none() {
            return Ok(());
        }
        let until = Instant::now() + self.policy().accounts_stale_max;
        while Instant::now() < until {
            self.rotating.go_on()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn refuse_old_tokens(&self, groups: &[KeyGroup]) -> Result<(), RotateError> {
        let mut used = self.token_keys_in_use();
        used.sort();
        used.dedup();
        if !groups.contains(&KeyGroup::Tokens) || used.len() < TOKEN_KEYS_MAX {
            return Ok(());
        }
        let has_oldest = |proof: &Proof| hashes(proof).any(|hash| Some(&hash[0]) == used.first());
        let directory = self.directory();
        let old = directory.credentials().filter(|credential| has_oldest(&credential.proof));
        let old: Vec<String> = old.map(|credential| credential.id.0.to_string()).collect();
        Err(RotateError::OldTokens(old.join(", ")))
    }

    fn token_keys_in_use(&self) -> Vec<u8> {
        let directory = self.directory();
        directory.credentials().flat_map(|credential| hashes(&credential.proof).map(|hash| hash[0])).collect()
    }
}

fn hashes(proof: &Proof) -> impl Iterator<Item = [u8; 16]> {
    let (hash, previous) = match proof {
        Proof::Bearer { hash, previous, .. } => (Some(*hash), previous.map(|(old, _)| old)),
        Proof::Platform { hash, .. } => (Some(*hash), None),
        Proof::Signature { .. } => (None, None),
    };
    hash.into_iter().chain(previous)
}
