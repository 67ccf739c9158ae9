//! Erasing what the ledger keeps about a card: the side rows of its entries. The leaves stay, so the tree
//! can still be checked.
//!
//! An erasure that was begun is noted, sealed, until its end, so that a restart goes on with it.

use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::{
    Db, LedgerFile, LedgerPlace, LedgerReader, ReadBlock, SCHEMA, Seal, Side, StoreError, Vault, damaged,
    encoded, first_block, node_of, overwrite_log, page_after, read_sides, seal_sides, side_at,
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
pub(super) fn under_way(db: &Db) -> Result<u64, StoreError> {
    Ok(noted(db)?.map_or(0, |(_, _, records)| records as u64))
}

/// What was noted, sealed; the last block that is done; side rows emptied.
fn noted(db: &Db) -> Result<Option<(Vec<u8>, i64, i64)>, StoreError> {
    match db {
        Db::File(db) => db
            .query_row("SELECT bytes, after, records FROM erasure", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(|cause| SCHEMA.error(cause)),
        Db::Shared(shared) => shared.noted_erasure(),
    }
}

fn opened(sealed: &[u8], vault: &Vault) -> Result<Pending, StoreError> {
    let plain = vault.open(Seal::Side, PLACE, sealed).map_err(|cause| damaged(cause.to_string()))?;
    postcard::from_bytes(&plain).map_err(|cause| damaged(cause.to_string()))
}

impl LedgerFile {
    /// Notes what is to be erased. An erasure of the same card that was begun before begins anew, and what it emptied
    /// stays counted; one of another card is never given up.
    pub(crate) fn begin_erasure(&mut self, pending: &Pending, vault: &Vault) -> Result<(), StoreError> {
        let before = noted(&self.db)?.map(|(sealed, ..)| sealed).unwrap_or_default();
        if !before.is_empty() && !opened(&before, vault)?.is_of_card_of(pending) {
            return Err(StoreError::Erasing);
        }
        let sealed = vault.seal(Seal::Side, PLACE, &Zeroizing::new(encoded(pending)));
        let noted = match &mut self.db {
            Db::File(db) => {
                let note = "INSERT INTO erasure VALUES (1, ?1, 0, 0)
                    ON CONFLICT (one) DO UPDATE SET bytes = excluded.bytes, after = 0 WHERE erasure.bytes = ?2";
                db.execute(note, params![sealed, before]).map_err(|cause| SCHEMA.error(cause))?
            }
            Db::Shared(shared) => shared.begin_erasure(&sealed, &before)?,
        };
        if noted == 0 { Err(StoreError::Erasing) } else { Ok(()) }
    }

    /// Empties side rows, all or none.
    pub(crate) fn empty_sides(&mut self, found: &Found, vault: &Vault) -> Result<(), StoreError> {
        let mut emptied = Vec::new();
        for (block, places) in &found.sides {
            let sides = read_sides(&self.db, *block, vault)?;
            let kept = |at: usize| if places.contains(&at) { None } else { side_at(&sides, at) };
            let kept: Vec<Option<&Side>> = (0..sides.len()).map(kept).collect();
            emptied.push((*block, seal_sides(*block, &Zeroizing::new(encoded(&kept)), vault)));
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
        match &mut self.db {
            Db::File(db) => run(db).map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.empty_sides(&emptied, found),
        }
    }

    /// Forgets what was erased, and overwrites the log.
    pub(crate) fn end_erasure(&mut self) -> Result<(), StoreError> {
        let (db, path) = match (&mut self.db, &self.place) {
            (Db::Shared(shared), _) => return shared.end_erasure(),
            (Db::File(_), LedgerPlace::Shared { .. }) => return Err(StoreError::Stopped),
            (Db::File(db), LedgerPlace::File(path)) => (db, path),
        };
        let run = |db: &mut Connection| {
            db.execute("DELETE FROM erasure", [])?;
            overwrite_log(db, path)
        };
        match run(db) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::LogInUse(SCHEMA.file)),
            Err(cause) => Err(SCHEMA.error(cause)),
        }
    }
}

impl LedgerReader {
    /// The erasure that did not come to its end, if there is one.
    pub fn unerased(&self, vault: &Vault) -> Result<Option<Unerased>, StoreError> {
        let found = noted(&self.db)?;
        let Some((sealed, after, records)) = found else { return Ok(None) };
        Ok(Some(Unerased { pending: opened(&sealed, vault)?, after, records: records as u64 }))
    }

    /// Looks through some blocks after one for entries about a card; nothing after the last block of the
    /// last node.
    pub fn find_sides(
        &self,
        after: i64,
        pending: &Pending,
        vault: &Vault,
    ) -> Result<Option<Found>, StoreError> {
        let page = self.next_page(after)?;
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

    /// The blocks that come next, those of the next node after the last of one.
    fn next_page(&self, after: i64) -> Result<Vec<ReadBlock>, StoreError> {
        let nodes = self.db.nodes()?;
        let from = |node: &i64| first_block(*node).max(after);
        for node in nodes.iter().filter(|node| **node >= node_of(after)) {
            let page = page_after(&self.db, from(node))?;
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }
}
