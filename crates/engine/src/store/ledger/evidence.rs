//! What evidence is made of: the leaves of the audit tree in their order, and signed checkpoints.

use std::ops::Range;

use rusqlite::params;

use super::{Checkpoint, Db, LedgerReader, SCHEMA, StoreError, damaged, first_block, page_after};
use crate::audit::{self, Frontier, Hash};
use crate::clock::Millis;
use crate::ledger::Entry;

/// A leaf of the audit tree, with what it covers.
pub struct Leaf<'a> {
    /// How many are before it.
    pub place: u64,
    /// Its hash.
    pub hash: Hash,
    /// To the side row.
    pub commitment: &'a Hash,
    /// The entry, as it was written.
    pub bytes: &'a [u8],
    /// The same, read.
    pub entry: &'a Entry,
}

impl LedgerReader {
    /// Calls `each` for the first `size` leaves. Blocks are held against the roots stored with them.
    ///
    /// Reads the ledger from its beginning: a proof needs the hash of what is before, and only the
    /// blocks have it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a block does not give its root, or there are not so many leaves.
    pub fn leaves<E: From<StoreError>>(
        &self,
        size: u64,
        each: impl FnMut(Leaf<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.leaves_after(&mut Frontier::default(), size, each)
    }

    /// Calls `each` for the leaves that follow those of `tree`, up to `size` of them in all, and grows
    /// `tree` by the blocks they are in: who follows a ledger reads each block once. `tree` ends where a
    /// block ends.
    ///
    /// # Errors
    /// As [`LedgerReader::leaves`]; also when what is in `tree` is not the beginning of this ledger.
    pub fn leaves_after<E: From<StoreError>>(
        &self,
        tree: &mut Frontier,
        size: u64,
        mut each: impl FnMut(Leaf<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = self.last_block_of(tree)?;
        while tree.size() < size {
            let page = page_after(&self.db, after)?;
            let Some(last) = page.last() else {
                return Err(damaged(format!("it ends at {} of {size} entries", tree.size())).into());
            };
            after = last.seq;
            for read in page {
                let first = tree.size();
                let block = read.checked(tree)?;
                let all = block.block.entries().zip(&block.entries);
                for (place, ((commitment, bytes), entry)) in (first..size).zip(all) {
                    let hash = audit::leaf(commitment, bytes);
                    each(Leaf { place, hash, commitment, bytes, entry })?;
                }
            }
        }
        Ok(())
    }

    /// The block that a tree ends with.
    fn last_block_of(&self, tree: &Frontier) -> Result<i64, StoreError> {
        if tree.size() == 0 {
            return Ok(first_block(self.node));
        }
        match self.db.block_at(self.node, tree.size())? {
            Some((seq, root, _)) if root == tree.root() => Ok(seq),
            _ => Err(damaged(format!("its first {} entries are not those it had before", tree.size()))),
        }
    }

    /// Where the leaves are of what was settled in this time, Unix milliseconds: from the first block of
    /// it to the last, but none beyond the first `size`. A clock that was set back may bring others
    /// between them. `None` when there are none.
    pub fn leaves_of(&self, settled: &Range<Millis>, size: u64) -> Result<Option<Range<u64>>, StoreError> {
        // Entries before a block: those up to the one before it.
        let find =
            "SELECT (SELECT coalesce(max(before.size), 0) FROM block before WHERE before.seq < found.low),
                      (SELECT last.size FROM block last WHERE last.seq = found.high)
                    FROM (SELECT min(seq) AS low, max(seq) AS high FROM block
                          WHERE at_ms >= ?1 AND at_ms < ?2 AND size <= ?3) found";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let (first, end) = match &self.db {
            Db::File(db) => db
                .query_row(find, params![settled.start, settled.end, size], read)
                .map_err(|cause| SCHEMA.error(cause))?,
            Db::Shared(shared) => shared.leaves_of(self.node, settled, size)?,
        };
        Ok(end.map(|end| first as u64..end as u64))
    }

    /// The first checkpoint of a size in this range.
    pub fn checkpoint_in(&self, sizes: Range<u64>) -> Result<Option<Checkpoint>, StoreError> {
        let bound = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        self.db.checkpoint_in(self.node, bound(sizes.start), bound(sizes.end))
    }
}
