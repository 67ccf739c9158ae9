//! A ledger file as those see it who only read: lists, reports, a look at its health. A server may go
//! on writing meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::{Checkpoint, Db, ReadBlock, SCHEMA, damaged, directory, page_after, read_sides};
use crate::bulk::{Bulk, BulkSide, JobId, SettledRows};
use crate::caller::{ApplicationId, Directory};
use crate::clock::Millis;
use crate::ledger::Entry;
use crate::store::StoreError;
use crate::store::node::{LedgerPlace, first_block};
use crate::vault::Vault;

/// Blocks looked at in one go: a reader that stays longer keeps the log from being used again.
const WINDOW: i64 = 256;

/// A node that never wrote anything: it has a name in its settings, and no number yet.
const NOBODY: i64 = -1;

/// A ledger that is only read.
#[derive(Debug)]
pub struct LedgerReader {
    pub(in crate::store) db: Db,
    /// Whose tree it is about where it is about one.
    pub(super) node: i64,
}

/// The newest block of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// When it was written, Unix milliseconds.
    pub at_ms: Millis,
    /// Entries up to and with it.
    pub entries: u64,
}

/// The blocks of one node that are still to be told, read a few at a time.
struct Blocks {
    read: VecDeque<ReadBlock>,
    after: i64,
    last: i64,
}

impl Blocks {
    fn of(db: &Db, node: i64) -> Result<Blocks, StoreError> {
        Ok(Blocks { read: VecDeque::new(), after: first_block(node), last: db.last_seq(node)? })
    }

    /// When the next of them was written; nothing when there is none any more.
    fn next_at(&mut self, db: &Db, written: &Range<Millis>) -> Result<Option<Millis>, StoreError> {
        while self.read.is_empty() && self.after < self.last {
            self.read = db.blocks(self.after, (self.after + WINDOW).min(self.last), written)?.into();
            self.after += WINDOW;
        }
        Ok(self.read.front().map(|block| block.at_ms))
    }
}

impl LedgerReader {
    /// Opens it to read it.
    pub fn open(place: impl Into<LedgerPlace>) -> Result<LedgerReader, StoreError> {
        let place = place.into();
        let db = Db::open(&place)?;
        let node = match (&db, &place) {
            (Db::Shared(shared), LedgerPlace::Shared { node, .. }) => {
                shared.node_named(node)?.unwrap_or(NOBODY)
            }
            _ => 0,
        };
        Ok(LedgerReader { db, node })
    }

    /// Every node that has written here: each has a tree of its own.
    pub fn nodes(&self) -> Result<Vec<i64>, StoreError> {
        self.db.nodes()
    }

    /// About the tree of this node from now on.
    pub fn of_node(self, node: i64) -> LedgerReader {
        LedgerReader { node, ..self }
    }

    /// Names of the callers that own the applications in the ledger.
    pub fn callers(&self) -> Result<HashMap<ApplicationId, String>, StoreError> {
        let find = "SELECT application.id, caller.name FROM application JOIN caller ON caller.id = application.caller";
        let read = |row: &rusqlite::Row<'_>| Ok((ApplicationId(row.get(0)?), row.get(1)?));
        match &self.db {
            Db::File(db) => {
                let run = || -> rusqlite::Result<_> { db.prepare(find)?.query_map([], read)?.collect() };
                run().map_err(|cause| SCHEMA.error(cause))
            }
            Db::Shared(shared) => shared.callers(find),
        }
    }

    /// Everybody who may ask; opens every sealed secret on the way.
    pub fn directory(&self, vault: &Vault) -> Result<Directory, StoreError> {
        directory(&self.db, vault)
    }

    /// Calls `each` for every entry that was settled in this time (Unix milliseconds), up to the blocks that
    /// were the newest when this began: those of a node in the order of its ledger, those of several by the
    /// time of their blocks.
    pub fn entries<E: From<StoreError>>(
        &self,
        settled: &Range<Millis>,
        mut each: impl FnMut(&Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut trees = Vec::new();
        for node in self.db.nodes()? {
            trees.push(Blocks::of(&self.db, node)?);
        }
        loop {
            let mut first: Option<(Millis, usize)> = None;
            for (at, tree) in trees.iter_mut().enumerate() {
                let next = tree.next_at(&self.db, settled)?;
                first = first.into_iter().chain(next.map(|at_ms| (at_ms, at))).min();
            }
            let Some(block) = first.and_then(|(_, at)| trees[at].read.pop_front()) else { return Ok(()) };
            block.decoded()?.entries.iter().try_for_each(&mut each)?;
        }
    }

    /// The rows of a job that were settled, in their order.
    pub fn settled_rows(&self, job: &JobId) -> Result<Vec<SettledRows>, StoreError> {
        let find = "SELECT first_row, rows, seq FROM bulk WHERE job = ?1 ORDER BY first_row";
        let read = |row: &rusqlite::Row<'_>| {
            let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
            Ok(SettledRows { first_row: number(0)?, rows: number(1)?, seq: row.get(2)? })
        };
        match &self.db {
            Db::File(db) => {
                let run =
                    || -> rusqlite::Result<_> { db.prepare(find)?.query_map([&job[..]], read)?.collect() };
                run().map_err(|cause| SCHEMA.error(cause))
            }
            Db::Shared(shared) => shared.settled_rows(job),
        }
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

    /// The newest entries that are no answers, at most so many, newest first; of the last blocks only, so that
    /// it is over soon however long the ledger is.
    pub fn newest_acts(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        let mut acts = Vec::new();
        for node in self.db.nodes()? {
            acts.extend(self.newest_acts_of(node, most)?);
        }
        // Of several nodes, by the block they are in; those of one block keep their order.
        acts.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
        acts.truncate(most);
        Ok(acts.into_iter().map(|(_, entry)| entry).collect())
    }

    fn newest_acts_of(&self, node: i64, most: usize) -> Result<Vec<(Millis, Entry)>, StoreError> {
        const WINDOWS: i64 = 64;
        let (first, last) = (first_block(node), self.db.last_seq(node)?);
        let mut acts = Vec::new();
        for back in 1..=WINDOWS {
            let after = last - back * WINDOW;
            let blocks = self.db.blocks(after, after + WINDOW, &(Millis::MIN..Millis::MAX))?;
            for block in blocks.iter().rev() {
                let entries = block.decoded()?.entries.into_iter().rev();
                let others = entries.filter(|entry| !matches!(entry, Entry::Answer(_) | Entry::Seen { .. }));
                acts.extend(others.map(|entry| (block.at_ms, entry)));
            }
            if acts.len() >= most || after <= first {
                break;
            }
        }
        Ok(acts)
    }

    /// The newest block, if there is one; of several nodes, the newest of all and the entries of all.
    pub fn newest(&self) -> Result<Option<Newest>, StoreError> {
        let mut newest: Option<Newest> = None;
        for node in self.db.nodes()? {
            let Some((at_ms, entries)) = self.db.newest(node)? else { continue };
            let all = newest.get_or_insert(Newest { at_ms, entries: 0 });
            *all = Newest { at_ms: all.at_ms.max(at_ms), entries: all.entries + entries };
        }
        Ok(newest)
    }

    /// Entries in the tree of the node this is about.
    pub fn tree_size(&self) -> Result<u64, StoreError> {
        Ok(self.db.newest(self.node)?.map_or(0, |(_, entries)| entries))
    }

    /// Holds the newest checkpoint of every node against its signature and against the root stored with
    /// the block that ends there; gives this node's. Much less than an audit check, and done at once.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when one does not hold.
    pub fn last_checkpoint(&self, vault: &Vault) -> Result<Option<Checkpoint>, StoreError> {
        let mut own = None;
        for node in self.db.nodes()? {
            let Some(checkpoint) = self.db.last_checkpoint(node)? else { continue };
            let root = self.db.root_at(node, checkpoint.size)?;
            let public_key = vault.keys().audit_public_key(checkpoint.key);
            if root != Some(checkpoint.root) || !public_key.is_some_and(|key| checkpoint.holds(&key)) {
                return Err(damaged(format!("the checkpoint at {} does not hold", checkpoint.size)));
            }
            if node == self.node {
                own = Some(checkpoint);
            }
        }
        Ok(own)
    }
}
