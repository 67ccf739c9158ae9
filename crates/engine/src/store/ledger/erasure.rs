//! Erasing what the ledger keeps about a card: the side rows of its entries. The leaves stay, so the tree
//! can still be checked.
//!
//! An erasure that was begun is noted, sealed, until its end, so that a restart goes on with it.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    LedgerFile, LedgerReader, SCHEMA, Seal, Side, StoreError, Vault, Zeroizing, damaged, encoded,
    overwrite_log, page_after, read_sides, seal_sides, side_at,
};
use crate::erase::{Found, Pending};

const PLACE: &[u8] = b"card4e erasure";

/// An erasure that did not come to its end.
#[derive(Debug)]
pub struct Unerased {
    /// What is erased.
    pub pending: Pending,
    /// Blocks up to this one are done.
    pub after: i64,
    /// Side rows emptied so far.
    pub records: u64,
}

/// Side rows that an erasure under way has emptied: its entry is not in the ledger yet.
pub(super) fn under_way(db: &Connection) -> Result<u64, StoreError> {
    let records: Option<i64> = db
        .query_row("SELECT records FROM erasure", [], |row| row.get(0))
        .optional()
        .map_err(|cause| SCHEMA.error(cause))?;
    Ok(records.unwrap_or(0) as u64)
}

impl LedgerFile {
    /// Notes what is to be erased; an erasure that was begun before is given up for it.
    pub(crate) fn begin_erasure(&mut self, pending: &Pending, vault: &Vault) -> Result<(), StoreError> {
        let sealed = vault.seal(Seal::Side, PLACE, &Zeroizing::new(encoded(pending)));
        let noted = self.db.execute("INSERT OR REPLACE INTO erasure VALUES (1, ?1, 0, 0)", [sealed]);
        noted.map(|_| ()).map_err(|cause| SCHEMA.error(cause))
    }

    /// Empties side rows, all or none.
    pub(crate) fn empty_sides(&mut self, found: &Found, vault: &Vault) -> Result<(), StoreError> {
        let mut emptied = Vec::new();
        for (block, places) in &found.sides {
            let sides = read_sides(&self.db, *block, vault)?;
            let kept = |at: usize| if places.contains(&at) { None } else { side_at(&sides, at) };
            let kept: Vec<Option<&Side>> = (0..sides.len()).map(kept).collect();
            emptied.push((*block, seal_sides(*block, &kept, vault)));
        }
        let run = |db: &mut Connection| {
            let transaction = db.transaction()?;
            for (block, sealed) in &emptied {
                transaction.execute("UPDATE side SET bytes = ?2 WHERE seq = ?1", params![block, sealed])?;
            }
            transaction.execute(
                "UPDATE erasure SET after = ?1, records = records + ?2",
                params![found.until, found.records() as i64],
            )?;
            transaction.commit()
        };
        run(&mut self.db).map_err(|cause| SCHEMA.error(cause))
    }

    /// Forgets what was erased, and overwrites the log.
    pub(crate) fn end_erasure(&mut self) -> Result<(), StoreError> {
        let run = |db: &mut Connection| {
            db.execute("DELETE FROM erasure", [])?;
            overwrite_log(db, &self.path)
        };
        match run(&mut self.db) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::LogInUse(SCHEMA.file)),
            Err(cause) => Err(SCHEMA.error(cause)),
        }
    }
}

impl LedgerReader {
    /// The erasure that did not come to its end, if there is one.
    pub fn unerased(&self, vault: &Vault) -> Result<Option<Unerased>, StoreError> {
        let found: Option<(Vec<u8>, i64, i64)> = self
            .db
            .query_row("SELECT bytes, after, records FROM erasure", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(|cause| SCHEMA.error(cause))?;
        let Some((sealed, after, records)) = found else { return Ok(None) };
        let plain = vault.open(Seal::Side, PLACE, &sealed).map_err(|cause| damaged(cause.to_string()))?;
        let pending: Pending = postcard::from_bytes(&plain).map_err(|cause| damaged(cause.to_string()))?;
        Ok(Some(Unerased { pending, after, records: records as u64 }))
    }

    /// Looks through some blocks after one for entries about a card; nothing after the last block.
    pub fn find_sides(
        &self,
        after: i64,
        pending: &Pending,
        vault: &Vault,
    ) -> Result<Option<Found>, StoreError> {
        let page = page_after(&self.db, after)?;
        let Some(last) = page.last() else { return Ok(None) };
        let mut found = Found { until: last.seq, ..Found::default() };
        for read in &page {
            let sides = read_sides(&self.db, read.seq, vault)?;
            let about = |at: &usize| {
                let subject = side_at(&sides, *at).and_then(|side| side.subject);
                subject.is_some_and(|subject| pending.references.contains(&subject))
            };
            let places: Vec<usize> = (0..sides.len()).filter(about).collect();
            if places.is_empty() {
                continue;
            }
            for side in places.iter().filter_map(|at| side_at(&sides, *at)) {
                found.masks += u64::from(side.masks.is_some());
                found.answers.extend(side.idempotency.map(|asked| asked.key));
                found.answers.extend(side.reuse.map(|reuse| reuse.key));
            }
            found.sides.push((read.seq, places));
        }
        Ok(Some(found))
    }
}
