//! All accounts under new keys, without any plaintext: each row is unwrapped with the old keys and
//! wrapped with the new ones, in batches, with how far it came in the same commit.
//!
//! The blind index is the primary key, so a row that is wrapped again moves to another place. It leaves
//! the old one and enters the new one in one commit: a look-up that asks for both in one statement
//! finds it exactly once. Meanwhile changes of single accounts are written between two batches
//! (`order.rs`), and nothing else.

use std::collections::HashMap;

use rusqlite::{Connection, TransactionBehavior, params};
use zeroize::Zeroizing;

use super::leaves::{self, Batch, Edit};
use super::{AccountRow, Accounts, Keys, SCHEMA, StoreError, authentic, table};
use crate::vault::{AccountKeys, BlindIndex, Unwrapped};

/// Rows moved in one commit: a look-up never waits for it, a restart repeats none of it.
const BATCH_ROWS: usize = 5_000;
/// Rows read at once at the end, to see that all are there.
const PAGE_ROWS: usize = 10_000;
/// Pages the log may hold before they are copied into the file: 64 MiB.
const LOG_PAGES: i64 = 16_384;
/// Memory for pages that are changed again and again, KiB.
const CACHE_KIB: i64 = 65_536;

/// How far a re-wrapping is. What is here is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrap {
    /// Rows under the new keys.
    pub rows: u64,
    /// Whether none is left under the old ones.
    pub is_moved: bool,
}

/// The version of all rows, and the one they are being brought to, if they are.
pub(super) fn versions(db: &Connection) -> rusqlite::Result<(u32, Option<u32>)> {
    db.prepare_cached("SELECT version, target FROM rewrap")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

impl Accounts {
    /// Sees that these keys are those of the file. An empty file takes whatever keys there are.
    pub fn agree_with(&self, keys: &Keys) -> Result<(), StoreError> {
        let newest = keys.accounts().version;
        let agree = || -> rusqlite::Result<(u32, bool)> {
            let (version, target) = versions(&self.db)?;
            if target == Some(newest) || keys.account_version(version).is_some() {
                return Ok((version, true));
            }
            let is_empty = leaves::count(&self.db)? == 0;
            if is_empty {
                self.db.execute("UPDATE rewrap SET version = ?1, target = NULL", [newest])?;
            }
            Ok((version, is_empty))
        };
        let (version, agrees) = agree().map_err(|cause| SCHEMA.error(cause))?;
        if agrees {
            return Ok(());
        }
        Err(other_backup(SCHEMA.file, version, newest))
    }

    /// Begins to bring all rows under the newest keys, or goes on with it. From here on nothing but orders
    /// is written to the accounts.
    pub fn begin_rewrap(&mut self, keys: &Keys) -> Result<(), StoreError> {
        let newest = keys.accounts().version;
        let begin = |db: &mut rusqlite::Connection| {
            db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            db.pragma_update(None, "cache_size", -CACHE_KIB)?;
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (version, target) = versions(&transaction)?;
            if version != newest && target != Some(newest) {
                transaction.execute(
                    "UPDATE rewrap SET target = ?1, after = x'', rows = 0, digest = zeroblob(16)",
                    [newest],
                )?;
                // An interrupted import that removes what its file does not have begins that anew: the
                // accounts change their order.
                transaction.execute("UPDATE import SET swept = NULL", [])?;
            }
            transaction.commit()
        };
        begin(&mut self.db).map_err(|cause| SCHEMA.error(cause))
    }

    /// Moves some rows; all of them or none.
    pub fn rewrap(&mut self, keys: &Keys) -> Result<Rewrap, StoreError> {
        let failed = |cause| SCHEMA.error(cause);
        drop(self.next_in_turn()?);
        let transaction =
            self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let (version, target) = versions(&transaction).map_err(failed)?;
        let Some(target) = target else { return Ok(Rewrap { rows: 0, is_moved: true }) };
        let (old, new) = both(keys, version, target)?;
        let (mut is, mut digest, after) = progress(&transaction).map_err(failed)?;
        let batch = batch(&transaction, &after, version).map_err(failed)?;
        is.is_moved = batch.len() < BATCH_ROWS;
        let last = batch.last().map(|((row, _), _)| row.index);
        let (batch, generations): (Vec<_>, Vec<u32>) = batch.into_iter().unzip();
        let moved = moved(batch, keys, [old, new], &mut digest)?;
        is.rows += moved.len() as u64;
        let generations: HashMap<BlindIndex, u32> =
            moved.iter().zip(generations).map(|((_, row), generation)| (row.index, generation)).collect();
        let write = || {
            table::begin_epoch(&transaction)?;
            let mut batch = Batch::default();
            for (from, row) in &moved {
                batch.delete(from);
                batch.put(row, row.mac(keys).unwrap_or_default());
            }
            batch.sort();
            let generation = |edit: &Edit<'_>| generations.get(&edit.index()).copied().unwrap_or_default();
            leaves::write_each(&transaction, batch.edits().map(|edit| (edit, generation(&edit))))?;
            let after = last.map_or(after, |last| last.0.to_vec());
            transaction.execute(
                "UPDATE rewrap SET after = ?1, rows = ?2, digest = ?3",
                params![after, is.rows as i64, &digest.to_be_bytes()[..]],
            )
        };
        write().map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(is)
    }

    /// Reads every row under the new keys and sees that what the inner key made of them is what it was;
    /// then the old keys are not needed any more.
    pub fn finish_rewrap(&mut self, keys: &Keys) -> Result<u64, StoreError> {
        let failed = |cause| SCHEMA.error(cause);
        let (version, target) = versions(&self.db).map_err(failed)?;
        let Some(target) = target else { return self.count() };
        let (_, new) = both(keys, version, target)?;
        // Who still looks at an older state of the file could look for a row under its old name.
        let turn = self.next_in_turn()?;
        let is_looked_at: bool =
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failed)?;
        drop(turn);
        if is_looked_at {
            return Err(StoreError::LogInUse(SCHEMA.file));
        }
        // One look at all rows and at what they must add up to; orders go on meanwhile.
        let look = self.db.unchecked_transaction().map_err(failed)?;
        let (is, digest, _) = progress(&look).map_err(failed)?;
        let (mut seen, mut last) = (Seen::new(keys, new), Vec::new());
        loop {
            let page = self.page(&last, PAGE_ROWS).map_err(failed)?;
            let is_last = page.len() < PAGE_ROWS;
            for (row, mac) in page {
                last = seen.see(row, mac)?.0.to_vec();
            }
            if is_last {
                break;
            }
        }
        look.commit().map_err(failed)?;
        let rows = seen.agree(is.rows, digest)?;
        self.db.execute("UPDATE rewrap SET version = target, target = NULL", []).map_err(failed)?;
        Ok(rows)
    }
}

impl AccountRow {
    fn unwrapped(&self, keys: &AccountKeys) -> Unwrapped {
        let inner = keys.unwrapped(&self.index, &self.verifiers);
        if self.has_mobile { inner } else { inner.without_mobile() }
    }

    /// A number that this account has under any keys.
    pub(super) fn fingerprint(&self, keys: &AccountKeys) -> u128 {
        self.unwrapped(keys).fingerprint(&self.rest(keys))
    }

    /// The same account, wrapped by other keys.
    pub(super) fn under(&self, old: &AccountKeys, new: &AccountKeys) -> AccountRow {
        self.wrapped(&self.unwrapped(old), old, new)
    }

    fn wrapped(&self, inner: &Unwrapped, old: &AccountKeys, new: &AccountKeys) -> AccountRow {
        let (index, verifiers) = new.wrapped(inner);
        let person = self.person.rewrapped(old, new);
        AccountRow { index, verifiers, keys: new.version, person, ..*self }
    }

    /// What else must stay as it is: what is not wrapped, and the element index without its wrapping.
    fn rest(&self, keys: &AccountKeys) -> Zeroizing<Vec<u8>> {
        let plain = [u8::from(self.has_mobile), self.state.code(), self.kind.code(), self.person.there()];
        let mut rest = Zeroizing::new(plain.to_vec());
        for column in self.person.columns().into_iter().flatten() {
            rest.extend_from_slice(&keys.person_unwrapped(column));
        }
        rest
    }
}

/// Accounts and key ring do not belong together.
pub(super) fn other_backup(file: &'static str, version: u32, newest: u32) -> StoreError {
    let what = format!(
        "it is under version {version} of the keys and keys.json has version {newest}: one of the two is \
         from another backup"
    );
    StoreError::Damaged { file, what }
}

/// Where rows stand and what becomes of them; adds to the sum of what must be found at the end.
pub(super) fn moved(
    batch: Vec<(AccountRow, [u8; 16])>,
    keys: &Keys,
    [old, new]: [&AccountKeys; 2],
    digest: &mut u128,
) -> Result<Vec<(BlindIndex, AccountRow)>, StoreError> {
    let moved = batch.into_iter().map(|(row, mac)| {
        let row = authentic(row, mac, keys)?;
        let inner = row.unwrapped(old);
        *digest = digest.wrapping_add(inner.fingerprint(&row.rest(old)));
        Ok((row.index, row.wrapped(&inner, old, new)))
    });
    moved.collect()
}

/// How many rows of these pages there are under the new keys, and their sum.
pub(super) struct Seen<'a> {
    keys: &'a Keys,
    new: &'a AccountKeys,
    rows: u64,
    digest: u128,
}

impl<'a> Seen<'a> {
    pub(super) fn new(keys: &'a Keys, new: &'a AccountKeys) -> Seen<'a> {
        Seen { keys, new, rows: 0, digest: 0 }
    }

    /// Sees one more row.
    pub(super) fn see(&mut self, row: AccountRow, mac: [u8; 16]) -> Result<BlindIndex, StoreError> {
        let row = authentic(row, mac, self.keys)?;
        if row.keys != self.new.version {
            return Err(changed("a row is still under the old keys"));
        }
        self.digest = self.digest.wrapping_add(row.fingerprint(self.new));
        self.rows += 1;
        Ok(row.index)
    }

    /// Sees that these are all rows that were moved.
    pub(super) fn agree(&self, rows: u64, digest: u128) -> Result<u64, StoreError> {
        if (self.rows, self.digest) == (rows, digest) {
            return Ok(rows);
        }
        Err(changed("the accounts under the new keys are not those that were under the old ones"))
    }
}

pub(super) fn both(
    keys: &Keys,
    version: u32,
    target: u32,
) -> Result<(&AccountKeys, &AccountKeys), StoreError> {
    keys.account_version(version).zip(keys.account_version(target)).ok_or(StoreError::OtherKeys)
}

pub(super) fn progress(db: &Connection) -> rusqlite::Result<(Rewrap, u128, Vec<u8>)> {
    db.prepare_cached("SELECT rows, digest, after FROM rewrap")?.query_row([], |row| {
        let rows: i64 = row.get(0)?;
        Ok((Rewrap { rows: rows as u64, is_moved: false }, u128::from_be_bytes(row.get(1)?), row.get(2)?))
    })
}

/// A row, what authenticates it, and the generation it was written in.
type Lying = ((AccountRow, [u8; 16]), u32);

/// Rows that were moved stand anywhere, so it is their version that tells them apart.
fn batch(db: &Connection, after: &[u8], version: u32) -> rusqlite::Result<Vec<Lying>> {
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    leaves::scan(db, after, |row, generation| {
        if row.keys() == version {
            batch.push(((row.row(), row.mac()), generation));
        }
        Ok(batch.len() < BATCH_ROWS)
    })?;
    Ok(batch)
}

fn changed(what: &str) -> StoreError {
    StoreError::Damaged { file: SCHEMA.file, what: format!("{what}; the old keys are kept") }
}
