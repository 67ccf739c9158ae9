//! A ledger file as those see it who only read: lists, reports, a look at its health. A server may go
//! on writing meanwhile.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Checkpoint, ReadBlock, SCHEMA, damaged, directory, page_after, read_checkpoint, read_sides};
use crate::audit::Hash;
use crate::bulk::{Bulk, BulkSide, JobId, SettledRows};
use crate::caller::{ApplicationId, Directory};
use crate::clock::Millis;
use crate::ledger::Entry;
use crate::store::StoreError;
use crate::vault::Vault;

/// Blocks looked at in one go: a reader that stays longer keeps the log from being used again.
const WINDOW: i64 = 256;

/// A ledger file that is only read.
#[derive(Debug)]
pub struct LedgerReader {
    pub(super) db: Connection,
}

/// The newest block of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// When it was written, Unix milliseconds.
    pub at_ms: Millis,
    /// Entries up to and with it.
    pub entries: u64,
}

impl LedgerReader {
    /// Opens the file to read it.
    pub fn open(path: &Path) -> Result<LedgerReader, StoreError> {
        Ok(LedgerReader { db: SCHEMA.open_reader(path)? })
    }

    /// Names of the callers that own the applications in the ledger.
    pub fn callers(&self) -> Result<HashMap<ApplicationId, String>, StoreError> {
        let find = "SELECT application.id, caller.name FROM application JOIN caller ON caller.id = application.caller";
        let read = |row: &rusqlite::Row<'_>| Ok((ApplicationId(row.get(0)?), row.get(1)?));
        let run = || -> rusqlite::Result<_> { self.db.prepare(find)?.query_map([], read)?.collect() };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// Everybody who may ask; opens every sealed secret on the way.
    pub fn directory(&self, vault: &Vault) -> Result<Directory, StoreError> {
        directory(&self.db, vault)
    }

    /// Calls `each` for every entry that was settled in this time (Unix milliseconds), in the order of
    /// the ledger, up to the block that was the newest when this began.
    pub fn entries<E: From<StoreError>>(
        &self,
        settled: &Range<Millis>,
        mut each: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut after, last) = (0, self.last_seq()?);
        while after < last {
            for block in self.blocks(after, settled).map_err(|cause| SCHEMA.error(cause))? {
                block.decoded()?.entries.iter().try_for_each(&mut each)?;
            }
            after += WINDOW;
        }
        Ok(())
    }

    /// The rows of a job that were settled, in their order.
    pub fn settled_rows(&self, job: &JobId) -> Result<Vec<SettledRows>, StoreError> {
        let find = "SELECT first_row, rows, seq FROM bulk WHERE job = ?1 ORDER BY first_row";
        let read = |row: &rusqlite::Row<'_>| {
            let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
            Ok(SettledRows { first_row: number(0)?, rows: number(1)?, seq: row.get(2)? })
        };
        let run = || -> rusqlite::Result<_> { self.db.prepare(find)?.query_map([&job[..]], read)?.collect() };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// Many rows that were answered, and their answers; nothing where those were erased.
    pub fn bulk(&self, seq: i64, vault: &Vault) -> Result<Option<(Bulk, BulkSide)>, StoreError> {
        let found = page_after(&self.db, seq - 1)?.into_iter().next().filter(|block| block.seq == seq);
        let block = found.ok_or_else(|| damaged(format!("block {seq} is not there")))?.decoded()?;
        let side = read_sides(&self.db, seq, vault)?.into_iter().next().flatten();
        Ok(match (block.entries.into_iter().next(), side.and_then(|side| side.bulk)) {
            (Some(Entry::Bulk(bulk)), Some(side)) => Some((bulk, side)),
            _ => None,
        })
    }

    fn last_seq(&self) -> Result<i64, StoreError> {
        let last = self.db.query_row("SELECT coalesce(max(seq), 0) FROM block", [], |row| row.get(0));
        last.map_err(|cause| SCHEMA.error(cause))
    }

    /// The blocks of a window that were written in this time; all entries of a block have its time.
    fn blocks(&self, after: i64, written: &Range<Millis>) -> rusqlite::Result<Vec<ReadBlock>> {
        let find = "SELECT seq, size, root, bytes FROM block
                    WHERE seq > ?1 AND seq <= ?2 AND at_ms >= ?3 AND at_ms < ?4 ORDER BY seq";
        let window = params![after, after + WINDOW, written.start, written.end];
        self.db.prepare_cached(find)?.query_map(window, ReadBlock::read)?.collect()
    }

    /// The newest entries that are no answers, at most so many, newest first; of the last blocks only, so that
    /// it is over soon however long the ledger is.
    pub fn newest_acts(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        const WINDOWS: i64 = 64;
        let last = self.last_seq()?;
        let mut acts = Vec::new();
        for back in 1..=WINDOWS {
            let blocks = self.blocks(last - back * WINDOW, &(Millis::MIN..Millis::MAX));
            for block in blocks.map_err(|cause| SCHEMA.error(cause))?.iter().rev() {
                let entries = block.decoded()?.entries;
                acts.extend(entries.into_iter().rev().filter(|entry| !matches!(entry, Entry::Answer(_))));
            }
            if acts.len() >= most || last - back * WINDOW <= 0 {
                break;
            }
        }
        acts.truncate(most);
        Ok(acts)
    }

    /// The newest block, if there is one.
    pub fn newest(&self) -> Result<Option<Newest>, StoreError> {
        let find = "SELECT at_ms, size FROM block ORDER BY seq DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Newest { at_ms: row.get(0)?, entries: row.get::<_, i64>(1)? as u64 })
        };
        self.db.query_row(find, [], read).optional().map_err(|cause| SCHEMA.error(cause))
    }

    /// Holds the newest checkpoint against its signature and against the root stored with the block
    /// that ends there. Much less than an audit check, and done at once.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it does not hold.
    pub fn last_checkpoint(&self, vault: &Vault) -> Result<Option<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key FROM checkpoint ORDER BY size DESC LIMIT 1";
        let newest = self.db.query_row(find, [], read_checkpoint).optional();
        let Some(checkpoint) = newest.map_err(|cause| SCHEMA.error(cause))? else { return Ok(None) };
        let root = self.root_at(checkpoint.size).map_err(|cause| SCHEMA.error(cause))?;
        let public_key = vault.keys().audit_public_key(checkpoint.key);
        if root != Some(checkpoint.root) || !public_key.is_some_and(|key| checkpoint.holds(&key)) {
            return Err(damaged(format!("the checkpoint at {} does not hold", checkpoint.size)));
        }
        Ok(Some(checkpoint))
    }

    /// The root stored with the block that ends at this size; it is one of the last.
    fn root_at(&self, size: u64) -> rusqlite::Result<Option<Hash>> {
        let find = "SELECT root FROM block WHERE size <= ?1 ORDER BY seq DESC LIMIT 1";
        self.db.query_row(find, [size as i64], |row| row.get(0)).optional()
    }
}
