//! What the readers of a ledger ask, of a file and of a database.

use rusqlite::{Connection, OptionalExtension, params};

use super::shared::Shared;
use super::{Checkpoint, Hash, ReadBlock, SCHEMA, StoreError, page_after, read_checkpoint};
use crate::clock::Millis;
use crate::store::node::LedgerPlace;

/// A file, which has the blocks of one node, or a database with those of several.
#[derive(Debug)]
pub(in crate::store) enum Db {
    /// `ledger.db`
    File(Connection),
    /// Tables that nodes share.
    Shared(Shared),
}

impl Db {
    /// To read; the file must have been opened by its writer before.
    pub(in crate::store) fn open(place: &LedgerPlace) -> Result<Db, StoreError> {
        Ok(match place {
            LedgerPlace::File(path) => Db::File(SCHEMA.open_reader(path)?),
            LedgerPlace::Shared { database, .. } => Db::Shared(Shared::new(database)?),
        })
    }

    /// Every node that has ever written here.
    pub(in crate::store) fn nodes(&self) -> Result<Vec<i64>, StoreError> {
        match self {
            Db::File(_) => Ok(vec![0]),
            Db::Shared(shared) => shared.nodes(),
        }
    }

    /// The number of the newest block of a node; where there is none, that before its first.
    pub(super) fn last_seq(&self, node: i64) -> Result<i64, StoreError> {
        match self {
            Db::File(db) => {
                let last = db.query_row("SELECT coalesce(max(seq), 0) FROM block", [], |row| row.get(0));
                last.map_err(|cause| SCHEMA.error(cause))
            }
            Db::Shared(shared) => shared.last_seq(node),
        }
    }

    /// When the newest block of a node was written, and the entries up to it.
    pub(super) fn newest(&self, node: i64) -> Result<Option<(Millis, u64)>, StoreError> {
        let find = "SELECT at_ms, size FROM block ORDER BY seq DESC LIMIT 1";
        match self {
            Db::File(db) => db
                .query_row(find, [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))
                .optional()
                .map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.newest(node),
        }
    }

    /// All signed statements about the tree of a node, the smallest first.
    pub(super) fn checkpoints(&self, node: i64) -> Result<Vec<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key FROM checkpoint ORDER BY size";
        let of_file = |db: &Connection| {
            db.prepare(find)?.query_map([], read_checkpoint)?.collect::<rusqlite::Result<_>>()
        };
        match self {
            Db::File(db) => of_file(db).map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.checkpoints(node),
        }
    }

    /// The newest of them.
    pub(super) fn last_checkpoint(&self, node: i64) -> Result<Option<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key FROM checkpoint ORDER BY size DESC LIMIT 1";
        match self {
            Db::File(db) => {
                db.query_row(find, [], read_checkpoint).optional().map_err(|cause| SCHEMA.error(cause))
            }
            Db::Shared(shared) => shared.last_checkpoint(node),
        }
    }

    /// The first of a size in this range.
    pub(super) fn checkpoint_in(
        &self,
        node: i64,
        first: i64,
        end: i64,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key FROM checkpoint WHERE size >= ?1 AND size < ?2
                    ORDER BY size LIMIT 1";
        let of_file =
            |db: &Connection| db.prepare_cached(find)?.query_row([first, end], read_checkpoint).optional();
        match self {
            Db::File(db) => of_file(db).map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.checkpoint_in(node, first, end),
        }
    }

    /// The block of a node that ends at this size or is the last before it, its root and its size. It is one
    /// of the last.
    pub(super) fn block_at(&self, node: i64, size: u64) -> Result<Option<(i64, Hash, u64)>, StoreError> {
        let find = "SELECT seq, root, size FROM block WHERE size <= ?1 ORDER BY seq DESC LIMIT 1";
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Hash>(1)?, row.get::<_, i64>(2)? as u64));
        match self {
            Db::File(db) => {
                db.query_row(find, [size as i64], read).optional().map_err(|cause| SCHEMA.error(cause))
            }
            Db::Shared(shared) => shared.block_at(node, size),
        }
    }

    /// The root stored with the block that ends at this size.
    pub(super) fn root_at(&self, node: i64, size: u64) -> Result<Option<Hash>, StoreError> {
        let found = self.block_at(node, size)?;
        Ok(found.filter(|(_, _, ends)| *ends == size).map(|(_, root, _)| root))
    }

    /// The blocks of a node after one, up to another, that were written in this time.
    pub(super) fn blocks(
        &self,
        after: i64,
        until: i64,
        written: &std::ops::Range<Millis>,
    ) -> Result<Vec<ReadBlock>, StoreError> {
        let find = "SELECT seq, at_ms, size, root, bytes FROM block
                    WHERE seq > ?1 AND seq <= ?2 AND at_ms >= ?3 AND at_ms < ?4 ORDER BY seq";
        let window = params![after, until, written.start, written.end];
        let of_file = |db: &Connection| {
            db.prepare_cached(find)?.query_map(window, ReadBlock::read)?.collect::<rusqlite::Result<_>>()
        };
        match self {
            Db::File(db) => of_file(db).map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.blocks(after, until, written),
        }
    }

    /// The blocks of one tree that come next.
    pub(in crate::store) fn page_after(&self, after: i64) -> Result<Vec<ReadBlock>, StoreError> {
        page_after(self, after)
    }
}
