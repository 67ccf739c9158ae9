//! An import: accounts in batches, with how far it came in the same commit, so that it goes on after
//! a kill as if nothing had happened.
//!
//! A batch is sorted by blind index before it is written: indexes are random, and in order each page
//! of the file is touched once. Readers are never in the way nor held up; another writer waits for
//! one batch.

use rusqlite::{Connection, params};

use super::leaves::{self, Batch, Edit};
use super::{AccountRow, Accounts, SCHEMA, generation, runs, table};
use crate::store::StoreError;
use crate::vault::{BlindIndex, Keys, Vault};
use crate::watch::LastImport;

/// Pages the log may hold before they are copied into the file: 128 MiB.
const LOG_PAGES: i64 = 32_768;
/// Memory for pages that are changed again and again, KiB.
const CACHE_KIB: i64 = 131_072;
/// Accounts looked at in one commit while the absent are removed.
const SWEEP_ROWS: usize = 50_000;

/// What a row of a file does to the accounts.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds the account, or replaces the one of the same card.
    Put(AccountRow, [u8; 16]),
    /// Removes the account of that card.
    Delete(BlindIndex),
    /// Leaves it as it is: its row is rejected, but the account is not absent from the file.
    Keep(BlindIndex),
}

impl Change {
    /// Adds or replaces an account; computes here, on any thread, what the writer need not.
    pub fn put(row: AccountRow, vault: &Vault) -> Change {
        // Without keys of its version it is refused when it is written.
        let mac = row.mac(&vault.keys()).unwrap_or_default();
        Change::Put(row, mac)
    }

    /// The same for many accounts, in their order.
    pub fn put_all(rows: Vec<AccountRow>, keys: &Keys) -> impl Iterator<Item = Change> {
        let macs = AccountRow::macs(rows.iter(), keys);
        rows.into_iter().zip(macs).map(|(row, mac)| Change::Put(row, mac.unwrap_or_default()))
    }

    pub(super) fn index(&self) -> &BlindIndex {
        match self {
            Change::Put(row, _) => &row.index,
            Change::Delete(index) | Change::Keep(index) => index,
        }
    }
}

/// What is imported, and how.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Tells the file from all others; nothing where that cannot be told, such as standard input.
    pub identity: Option<[u8; 32]>,
    /// The file is the whole truth: accounts absent from it are removed at the end.
    pub is_replacing: bool,
    /// Forget how far an interrupted import of the same file came.
    pub from_start: bool,
}

/// How far an import is. What is here is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Rows of the file that were read.
    pub rows: u64,
    /// Accounts added or replaced.
    pub put: u64,
    /// Accounts removed by a row.
    pub deleted: u64,
    /// Rows that were rejected.
    pub rejected: u64,
    /// Length of the file of rejected rows.
    pub rejected_bytes: u64,
    /// Accounts removed because the file does not have them.
    pub removed: u64,
    /// Whether all rows are read and the absent are being removed.
    pub is_sweeping: bool,
    /// Whether rows that were read are in runs ([`Accounts::add_run`]) and not yet among the accounts.
    pub has_runs: bool,
    /// Whether all are read, and some of them are among the accounts.
    pub is_merging: bool,
}

impl Accounts {
    /// Begins an import, or goes on with an interrupted one of the same source. Gives how far it is,
    /// and whether an unfinished import of another source is given up.
    pub fn begin_import(&mut self, source: &Source) -> Result<(Import, bool), StoreError> {
        let tuned = self.db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES);
        tuned
            .and_then(|()| self.db.pragma_update(None, "cache_size", -CACHE_KIB))
            .map_err(|cause| SCHEMA.error(cause))?;
        let path = self.path.clone();
        let (is, gave_up) = self.change(None, |db| {
            let identity = source.identity.as_ref().map(|identity| &identity[..]);
            let (last, stage, same) = last_import(db, identity, source.is_replacing)?;
            let is_unfinished = stage < DONE;
            if is_unfinished && same && !source.from_start && !runs::are_stale(db, &path)? {
                return Ok((last, false));
            }
            runs::forget(db)?;
            db.execute(
                "UPDATE import SET generation = generation + ?2, source = ?1, is_replacing = ?2, stage = 0, merged = NULL,
                 swept = NULL, rows = 0, put = 0, deleted = 0, rejected = 0, rejected_bytes = 0, removed = 0",
                params![identity, source.is_replacing],
            )?;
            Ok((Import::default(), is_unfinished && !same))
        })?;
        if !is.has_runs {
            runs::remove(&self.path)?;
        }
        Ok((is, gave_up))
    }

    /// Writes a batch and how far the import is with it, all or nothing; of several changes of one
    /// card the last one counts. Gives how far it is now.
    pub fn import(&mut self, batch: &[Change], read: Import) -> Result<Import, StoreError> {
        let mut batch = Batch::of(batch);
        batch.sort();
        drop(self.next_in_turn()?);
        self.change(batch.version(), |db| {
            table::begin_epoch(db)?;
            read_on(db, &read)?;
            write_all(db, &batch)
        })
    }

    /// After the last row: removes a part of the accounts that the file does not have, if it is the
    /// whole truth, and ends the import when none is left. Gives how far it is, and whether it has ended.
    pub fn sweep(&mut self) -> Result<(Import, bool), StoreError> {
        drop(self.next_in_turn()?);
        let swept = self.change(None, |db| {
            let (mut is, ..) = last_import(db, None, false)?;
            let (is_replacing, from): (bool, Vec<u8>) =
                db.query_row("SELECT is_replacing, coalesce(swept, x'') FROM import", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            let until = if is_replacing { sweep_after(db, &from, &mut is)? } else { None };
            let stage = if until.is_some() { SWEEPING } else { DONE };
            db.execute("UPDATE import SET stage = ?1, swept = ?2", params![stage, until])?;
            note(db, &is)?;
            Ok((is, stage == DONE))
        })?;
        if swept.1 {
            // The log was only as long as it was for the import.
            let emptied = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            emptied.map_err(|cause| SCHEMA.error(cause))?;
        }
        Ok(swept)
    }
}

impl Accounts {
    /// The newest import; `None` when there was none.
    pub fn last_import(&self) -> Result<Option<LastImport>, StoreError> {
        let run = || -> rusqlite::Result<_> {
            let (is, stage, _) = last_import(&self.db, None, false)?;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let find = "SELECT is_replacing, source IS NOT NULL OR rows > 0 OR put > 0 FROM import";
            let (is_replacing, was_begun): (bool, bool) = self.db.query_row(find, [], read)?;
            Ok(was_begun.then_some(LastImport { is, is_done: stage == DONE, is_replacing }))
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }
}

pub(super) const SWEEPING: u8 = 1;
pub(super) const DONE: u8 = 2;

/// The last import, its stage, and whether it was of that source.
fn last_import(
    db: &Connection,
    identity: Option<&[u8]>,
    is_replacing: bool,
) -> rusqlite::Result<(Import, u8, bool)> {
    let mut last = db.prepare_cached(
        "SELECT rows, put, deleted, rejected, rejected_bytes, removed, stage,
         source IS NOT NULL AND source IS ?1 AND is_replacing = ?2,
         EXISTS (SELECT 1 FROM run), merged IS NOT NULL FROM import",
    )?;
    last.query_row(params![identity, is_replacing], |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
        let stage: u8 = row.get(6)?;
        let import = Import {
            rows: number(0)?,
            put: number(1)?,
            deleted: number(2)?,
            rejected: number(3)?,
            rejected_bytes: number(4)?,
            removed: number(5)?,
            is_sweeping: stage == SWEEPING,
            has_runs: row.get(8)?,
            is_merging: row.get(9)?,
        };
        Ok((import, stage, row.get(7)?))
    })
}

fn note(db: &Connection, is: &Import) -> rusqlite::Result<()> {
    let counts = [is.rows, is.put, is.deleted, is.rejected, is.rejected_bytes, is.removed];
    db.prepare_cached(
        "UPDATE import SET rows = ?1, put = ?2, deleted = ?3, rejected = ?4, rejected_bytes = ?5, removed = ?6",
    )?
    .execute(rusqlite::params_from_iter(counts.map(|count| count as i64)))?;
    Ok(())
}

/// What counts of a sorted batch: one change of each card.
pub(super) fn last_of_each(batch: &[Change]) -> impl Iterator<Item = &Change> {
    batch.chunk_by(|one, next| one.index() == next.index()).map(|of_one_card| {
        // Sorting kept the order of the file. A rejected row undoes nothing that came before it.
        let last = of_one_card.iter().rev().find(|change| !matches!(change, Change::Keep(_)));
        last.unwrap_or(&of_one_card[0])
    })
}

/// The version of the keys that a batch is written under.
pub(super) fn version_of(batch: &[Change]) -> Option<u32> {
    batch.iter().find_map(|change| match change {
        Change::Put(row, _) => Some(row.keys),
        Change::Delete(_) | Change::Keep(_) => None,
    })
}

/// Notes that more rows were read; gives how far it is.
pub(super) fn read_on(db: &Connection, read: &Import) -> rusqlite::Result<Import> {
    let (mut is, ..) = last_import(db, None, false)?;
    is.put += read.put;
    is.rows += read.rows;
    is.rejected += read.rejected;
    is.rejected_bytes = read.rejected_bytes;
    note(db, &is)?;
    Ok(is)
}

/// Writes a batch that is in order; gives how far it is.
pub(super) fn write_all(db: &Connection, batch: &Batch) -> rusqlite::Result<Import> {
    let (mut is, ..) = last_import(db, None, false)?;
    is.deleted += leaves::write(db, leaves::last_of_each(batch.edits()), generation(db)?)?;
    note(db, &is)?;
    Ok(is)
}

/// Looks at some accounts after an index and removes those of earlier generations. Gives the last it
/// looked at, or nothing at the end.
fn sweep_after(db: &Connection, from: &[u8], is: &mut Import) -> rusqlite::Result<Option<Vec<u8>>> {
    table::begin_epoch(db)?;
    let (newest, mut looked_at, mut absent, mut until) = (generation(db)?, 0, Vec::new(), None);
    leaves::scan(db, from, |row, generation| {
        if generation < newest {
            absent.push(Edit::Delete(row.index()));
        }
        looked_at += 1;
        until = Some(row.index().0.to_vec());
        Ok(looked_at < SWEEP_ROWS)
    })?;
    is.removed += leaves::write(db, absent.into_iter(), newest)?;
    Ok(until)
}
