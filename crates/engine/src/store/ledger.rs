//! The ledger: blocks, their erasable side rows, checkpoints, snapshots, and callers. A file of the data
//! folder, or tables of a database that several nodes share; there each node has blocks and a tree of its own.

mod db;
mod effects;
mod erasure;
mod evidence;
mod reader;
mod shared;

pub(super) use db::Db;
pub use erasure::Unerased;
pub use evidence::Leaf;
pub use reader::{LedgerReader, Newest};
pub use shared::LookedBack;
pub(super) use shared::{ADD_SPENT, ALIVE_MS, FENCE, RECALL, SHARED_SCHEMA, read_answer};

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::StoreError;
use super::either::Either;
use super::node::{Lease, LedgerPlace, first_block, node_of};
use super::postgres::Session;
use super::sqlite::{Durability, Schema, grow_log, overwrite_log};
use crate::audit::{self, Checkpoint, Frontier, Hash};
use crate::caller::{
    Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Directory, Proof, Secret,
};
use crate::clock::Millis;
use crate::ledger::{
    Block, Books, Credits, Entry, IdempotencyRef, JobId, Side, SideRows, StoredAnswer, encoded, side_matches,
};
use crate::vault::{KeyedRef, Seal, Vault};

const SCHEMA: Schema = Schema {
    file: "ledger.db",
    durability: Durability::Full,
    versions: &["
        CREATE TABLE block (
            seq   INTEGER PRIMARY KEY,
            at_ms INTEGER NOT NULL,
            size  INTEGER NOT NULL,       -- leaves of the audit tree after this block
            root  BLOB NOT NULL,          -- its root then
            bytes BLOB NOT NULL
        );
        CREATE TABLE side (               -- what can be erased; sealed
            seq   INTEGER PRIMARY KEY,
            bytes BLOB NOT NULL
        );
        CREATE TABLE bulk (               -- rows of jobs that are settled, and in which block
            job       BLOB NOT NULL,
            first_row INTEGER NOT NULL,
            rows      INTEGER NOT NULL,
            seq       INTEGER NOT NULL,
            PRIMARY KEY (job, first_row)
        ) WITHOUT ROWID;
        CREATE TABLE checkpoint (
            size      INTEGER PRIMARY KEY,
            root      BLOB NOT NULL,
            at_ms     INTEGER NOT NULL,
            signature BLOB NOT NULL,
            key       INTEGER NOT NULL   -- version of what signed it
        );
        CREATE TABLE snapshot (           -- state after a block; sealed, replaced
            seq   INTEGER PRIMARY KEY,
            bytes BLOB NOT NULL
        );
        CREATE TABLE caller (
            id       INTEGER PRIMARY KEY,
            name     TEXT NOT NULL,
            standing TEXT NOT NULL,
            operator INTEGER NOT NULL
        );
        CREATE TABLE application (
            id                  INTEGER PRIMARY KEY,
            caller              INTEGER NOT NULL REFERENCES caller,
            name                TEXT NOT NULL,
            actions             TEXT NOT NULL,
            unlimited           INTEGER NOT NULL,
            price               INTEGER,   -- millionths of a credit
            requests_per_second INTEGER,
            attempts            TEXT,
            encryption_required INTEGER NOT NULL,
            reasons             INTEGER NOT NULL
        );
        CREATE TABLE credential (
            id                  INTEGER PRIMARY KEY,
            application         INTEGER NOT NULL REFERENCES application,
            kind                TEXT NOT NULL,
            secret_id           TEXT UNIQUE,
            secret_key          BLOB,      -- sealed, bound to this row
            session_token       BLOB,      -- sealed, bound to this row
            signed_payload_only INTEGER NOT NULL DEFAULT 0,
            token_hash          BLOB UNIQUE,
            token_last4         TEXT,
            expires_at_ms       INTEGER,
            addresses           TEXT NOT NULL,
            previous            BLOB,      -- before the last rotation: sealed key, or token hash
            previous_until_ms   INTEGER,
            actions             TEXT NOT NULL,
            purpose             TEXT,
            spend_limit         INTEGER    -- millionths of a credit
        );
        CREATE TABLE erasure (            -- under way; gone when it is done
            one     INTEGER PRIMARY KEY CHECK (one = 1),
            bytes   BLOB NOT NULL,        -- keyed references of the card; sealed
            after   INTEGER NOT NULL,     -- blocks up to this one are done
            records INTEGER NOT NULL      -- side rows emptied
        );
    "],
};

/// The tables of a ledger, for whoever copies them.
pub(super) fn tables_of(place: &LedgerPlace) -> Result<Either, StoreError> {
    Ok(match place {
        LedgerPlace::File(path) => Either::File(SCHEMA.open(path)?, &SCHEMA),
        LedgerPlace::Shared { database, .. } => Either::Shared(Session::new(Arc::clone(database))?.into()),
    })
}

/// A snapshot is written after so many blocks, so that a start replays a bounded tail.
const BLOCKS_PER_SNAPSHOT: i64 = 10_000;

/// The log is folded into the file after so much; half of what it is grown to at the start.
const FOLD_BYTES: usize = 8 << 20;

const PAGE_BYTES: usize = 4096;

/// What a commit writes beside its bytes: the pages they end in and those that lead there.
const PAGES_PER_COMMIT: usize = 3;

/// The ledger in the hands of its one writer; in a database, the part of this node.
#[derive(Debug)]
pub struct LedgerFile {
    db: Db,
    place: LedgerPlace,
    /// This node's right to write, where there are others.
    lease: Option<Arc<Lease>>,
    /// Numbers of blocks begin with the number of their node: each names its block everywhere.
    next_seq: i64,
    snapshot_seq: i64,
    /// Written to the log since it was last folded into the file, bytes.
    unfolded_bytes: usize,
    /// What was remembered, by snapshot, since the first of which something still is.
    remembered: Vec<Span>,
    /// What was remembered since the last snapshot.
    span: Option<Span>,
}

/// Blocks between two snapshots, and until when something in them is remembered.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Span {
    first_seq: i64,
    until_ms: Millis,
}

/// What a ledger file holds when it is opened.
pub struct Opened {
    /// The file.
    pub file: LedgerFile,
    /// The state all entries add up to.
    pub books: Books,
    /// The audit tree.
    pub tree: Frontier,
    /// Who may ask.
    pub directory: Directory,
}

impl LedgerFile {
    /// Opens the file and replays what is not in the snapshot.
    pub fn open(path: &Path, vault: &Vault) -> Result<Opened, StoreError> {
        let db = SCHEMA.open(path)?;
        // The writer folds the log itself: what fails there must not be tried again unseen.
        db.pragma_update(None, "wal_autocheckpoint", 0).map_err(|cause| SCHEMA.error(cause))?;
        LedgerFile::replayed(Db::File(db), LedgerPlace::from(path), None, vault)
    }

    /// Opens the part of a node in a database, and replays what is not in its snapshot. What nodes share
    /// (balances, attempts, stored answers) is not in these books: the database has it.
    pub fn open_shared(place: LedgerPlace, lease: Arc<Lease>, vault: &Vault) -> Result<Opened, StoreError> {
        let db = Db::open(&place)?;
        LedgerFile::replayed(db, place, Some(lease), vault)
    }

    fn replayed(
        db: Db,
        place: LedgerPlace,
        lease: Option<Arc<Lease>>,
        vault: &Vault,
    ) -> Result<Opened, StoreError> {
        let before = lease.as_ref().map_or(0, |lease| first_block(lease.number));
        let is_shared = lease.is_some();
        let mut file = LedgerFile {
            db,
            place,
            lease,
            next_seq: before + 1,
            snapshot_seq: before,
            unfolded_bytes: 0,
            remembered: Vec::new(),
            span: None,
        };
        let (mut books, mut tree) = file.snapshot(vault)?;
        if is_shared {
            books.share();
        } else {
            file.remember(&mut books, vault)?;
        }
        loop {
            let page = page_after(&file.db, file.next_seq - 1)?;
            let Some(last) = page.last() else { break };
            file.next_seq = last.seq + 1;
            for read in &page {
                file.replay(&read.checked(&mut tree)?, &mut books, vault)?;
            }
        }
        let directory = file.directory(vault)?;
        Ok(Opened { file, books, tree, directory })
    }

    /// A second one that only reads.
    pub fn reader(&self) -> Result<LedgerReader, StoreError> {
        LedgerReader::open(self.place.clone())
    }

    /// Makes room for commits; see `sqlite::grow_log`.
    pub fn grow(&mut self, bytes: usize) -> Result<(), StoreError> {
        let (Db::File(db), LedgerPlace::File(path)) = (&mut self.db, &self.place) else { return Ok(()) };
        let log = path.with_extension("db-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() >= bytes as u64) {
            return Ok(());
        }
        grow_log(db, bytes).map_err(|cause| SCHEMA.error(cause))
    }

    /// Makes a block durable: the one commit that charges and audits.
    ///
    /// # Errors
    /// In a file, nothing was changed, or only a restart knows. In a database it depends:
    /// after [`StoreError::is_away`] and [`StoreError::Fenced`] ask [`LedgerFile::look_back`] before anything
    /// else; [`StoreError::Answered`], a question of it was answered by another node, and nothing was changed.
    pub fn append(&mut self, block: &Commit<'_>, vault: &Vault) -> Result<(), StoreError> {
        let seq = self.next_seq;
        let sealed = block.side_rows.sealed(|plain| seal_sides(seq, plain, vault));
        let bytes = block.block.as_bytes();
        match (&mut self.db, &self.lease) {
            (Db::File(db), _) => {
                let run = |db: &mut Connection| {
                    let transaction = db.transaction()?;
                    block.write(&transaction, seq, &sealed)?;
                    transaction.commit()
                };
                run(db).map_err(|cause| SCHEMA.error(cause))?;
            }
            (Db::Shared(shared), Some(lease)) => shared.append(lease, seq, block, &sealed)?,
            (Db::Shared(_), None) => return Err(StoreError::Stopped),
        }
        self.unfolded_bytes += bytes.len() + sealed.len() + PAGES_PER_COMMIT * PAGE_BYTES;
        self.appended(block);
        Ok(())
    }

    /// What became of a block after [`LedgerFile::append`] lost its connection or was fenced; and, of no
    /// block, whether this node still has what it had taken.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process has this node's place.
    pub fn look_back(&mut self, block: Option<&Commit<'_>>) -> Result<LookedBack, StoreError> {
        let (Db::Shared(shared), Some(lease)) = (&mut self.db, &self.lease) else {
            return Err(StoreError::Stopped);
        };
        let root = block.map(|block| block.tree.root());
        let found = shared.look_back(lease, self.next_seq, root.as_ref())?;
        if let (LookedBack::Appended { .. }, Some(block)) = (found, block) {
            self.appended(block);
        }
        Ok(found)
    }

    fn appended(&mut self, block: &Commit<'_>) {
        self.note(self.next_seq, block.sides.iter().copied());
        self.next_seq += 1;
    }

    /// Answers that other nodes gave, or this one before, by the keys they can be asked for again.
    pub fn answered(&mut self, keys: &[KeyedRef], now: Millis) -> Result<Vec<StoredAnswer>, StoreError> {
        match &self.db {
            Db::File(_) => Ok(Vec::new()),
            Db::Shared(shared) => shared.answered(keys, now),
        }
    }

    /// That the disk is full.
    pub fn full() -> StoreError {
        StoreError::Full { file: SCHEMA.file }
    }

    /// Writes and syncs something that goes again, to see whether there is room.
    pub fn try_room(&mut self) -> Result<(), StoreError> {
        let Db::File(db) = &mut self.db else { return Ok(()) };
        grow_log(db, 1).map_err(|cause| SCHEMA.error(cause))
    }

    /// Folds the log into the file once it has grown by some megabytes.
    pub fn fold_when_due(&mut self) -> Result<(), StoreError> {
        if self.unfolded_bytes < FOLD_BYTES {
            return Ok(());
        }
        // Also when it fails: the next try is due after as much again.
        self.unfolded_bytes = 0;
        let Db::File(db) = &self.db else { return Ok(()) };
        let folded = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        folded.map_err(|cause| SCHEMA.error(cause))
    }

    /// Folds the log into the file, so that what is copied or looked at afterwards is whole.
    ///
    /// The log keeps its length, and the next start reads it as far as it was written: so it is begun anew.
    pub fn close(&mut self) -> Result<(), StoreError> {
        let run = |db: &Connection| {
            db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
            // The first write after that is at the beginning of the log, and ends what a start reads of it.
            let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            db.pragma_update(None, "user_version", version)?;
            db.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))
        };
        let Db::File(db) = &self.db else { return Ok(()) };
        run(db).map_err(|cause| SCHEMA.error(cause))
    }

    /// Whether a snapshot is due.
    pub fn snapshot_is_due(&self) -> bool {
        self.next_seq - 1 - self.snapshot_seq >= BLOCKS_PER_SNAPSHOT
    }

    /// Keeps the state (encoded tree and books), so that a start need not replay everything.
    pub fn save_snapshot(&mut self, state: &[u8], now: Millis, vault: &Vault) -> Result<(), StoreError> {
        let seq = self.next_seq - 1;
        if seq == self.snapshot_seq {
            return Ok(());
        }
        // Also when it fails: the next try is due after as many blocks again, not after each.
        self.snapshot_seq = seq;
        self.remembered.extend(self.span.take());
        // Only from the front: what comes after the first that is still remembered is read in its order.
        let over = self.remembered.iter().take_while(|span| span.until_ms <= now).count();
        self.remembered.drain(..over);
        let state = [&encoded(&self.remembered), state].concat();
        let sealed = vault.seal(Seal::Side, place("snapshot", seq).as_bytes(), &state);
        let run = |db: &mut Connection| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM snapshot", [])?;
            transaction.execute("INSERT INTO snapshot VALUES (?1, ?2)", params![seq, sealed])?;
            transaction.commit()
        };
        match &mut self.db {
            Db::File(db) => run(db).map_err(|cause| SCHEMA.error(cause)),
            Db::Shared(shared) => shared.save_snapshot(seq, &sealed),
        }
    }

    /// Keeps a signed statement of how the tree looks.
    pub fn save_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        match (&self.db, &self.lease) {
            (Db::File(db), _) => save_checkpoint(db, checkpoint).map_err(|cause| SCHEMA.error(cause)),
            (Db::Shared(shared), Some(lease)) => shared.save_checkpoint(lease, checkpoint),
            (Db::Shared(_), None) => Err(StoreError::Stopped),
        }
    }

    fn snapshot(&mut self, vault: &Vault) -> Result<(Books, Frontier), StoreError> {
        let newest = "SELECT seq, bytes FROM snapshot ORDER BY seq DESC LIMIT 1";
        let found: Option<(i64, Vec<u8>)> = match &self.db {
            Db::File(db) => db
                .query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(|cause| SCHEMA.error(cause))?,
            Db::Shared(shared) => shared.snapshot(node_of(self.next_seq))?,
        };
        let Some((seq, sealed)) = found else { return Ok(Default::default()) };
        let plain = vault
            .open(Seal::Side, place("snapshot", seq).as_bytes(), &sealed)
            .map_err(|cause| damaged(cause.to_string()))?;
        let read = postcard::from_bytes(&plain).map_err(|cause| damaged(cause.to_string()))?;
        let (remembered, tree, books) = read;
        self.remembered = remembered;
        self.snapshot_seq = seq;
        self.next_seq = seq + 1;
        Ok((books, tree))
    }

    fn replay(&mut self, block: &CheckedBlock, books: &mut Books, vault: &Vault) -> Result<(), StoreError> {
        // Stored answers and attempts of a node that shares them are in the database.
        let sides = if self.lease.is_some() { Vec::new() } else { read_sides(&self.db, block.seq, vault)? };
        let erased = Side::default();
        for (at, entry) in block.entries.iter().enumerate() {
            books.apply(entry, side_at(&sides, at).unwrap_or(&erased));
        }
        self.note(block.seq, sides.iter().flatten());
        Ok(())
    }

    /// Reads what is remembered for a day or less from the blocks that the snapshot counted.
    fn remember(&self, books: &mut Books, vault: &Vault) -> Result<(), StoreError> {
        let Some(first) = self.remembered.first() else { return Ok(()) };
        let erased = Side::default();
        let mut after = first.first_seq - 1;
        while after < self.snapshot_seq {
            let page = page_after(&self.db, after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            for read in page.iter().filter(|read| read.seq <= self.snapshot_seq) {
                let sides = read_sides(&self.db, read.seq, vault)?;
                for (at, entry) in read.decoded()?.entries.iter().enumerate() {
                    books.remember(entry, side_at(&sides, at).unwrap_or(&erased));
                }
            }
        }
        Ok(())
    }

    fn note<'a>(&mut self, seq: i64, sides: impl Iterator<Item = &'a Side>) {
        let until_ms = sides.map(Side::remembered_until).max().unwrap_or(0);
        let span = self.span.get_or_insert(Span { first_seq: seq, until_ms });
        span.until_ms = span.until_ms.max(until_ms);
    }
}

/// What goes into one commit.
pub struct Commit<'a> {
    /// The entries.
    pub block: &'a Block,
    /// Their side rows.
    pub sides: &'a [&'a Side],
    /// The same in bytes.
    pub side_rows: &'a SideRows,
    /// The tree after them.
    pub tree: &'a Frontier,
    /// Other names of questions in it, by the newest one; see [`Draft::also_known_as`](crate::ledger::Draft).
    pub also_known_as: &'a [(KeyedRef, IdempotencyRef)],
    /// A checkpoint of that tree, when one is due.
    pub checkpoint: Option<&'a Checkpoint>,
    /// Job, first row and number of the rows it settles, if its one entry is of such.
    pub rows: Option<(JobId, u64, u64)>,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

impl Commit<'_> {
    fn write(&self, db: &Transaction<'_>, seq: i64, sealed: &[u8]) -> rusqlite::Result<()> {
        let size = self.tree.size() as i64;
        db.prepare_cached("INSERT INTO block VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            seq,
            self.at_ms,
            size,
            &self.tree.root()[..],
            self.block.as_bytes()
        ])?;
        db.prepare_cached("INSERT INTO side VALUES (?1, ?2)")?.execute(params![seq, sealed])?;
        if let Some((job, first_row, rows)) = &self.rows {
            db.prepare_cached("INSERT INTO bulk VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                &job[..],
                *first_row as i64,
                *rows as i64,
                seq
            ])?;
        }
        self.checkpoint.map_or(Ok(()), |checkpoint| save_checkpoint(db, checkpoint))
    }
}

fn save_checkpoint(db: &Connection, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO checkpoint VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        checkpoint.size as i64,
        &checkpoint.root[..],
        checkpoint.at_ms,
        &checkpoint.signature[..],
        checkpoint.key,
    ])?;
    Ok(())
}

/// `plain`: what postcard makes of a list of [`Side`]s, each there or erased.
fn seal_sides(seq: i64, plain: &[u8], vault: &Vault) -> Vec<u8> {
    vault.seal(Seal::Side, place("side", seq).as_bytes(), plain)
}

/// The side row of the entry at a place in a block, unless it was erased.
pub(super) fn side_at(sides: &[Option<Side>], at: usize) -> Option<&Side> {
    sides.get(at).and_then(Option::as_ref)
}

/// The side rows of a block; none where they were erased.
pub(super) fn read_sides(db: &Db, seq: i64, vault: &Vault) -> Result<Vec<Option<Side>>, StoreError> {
    let sealed = match db {
        Db::File(db) => db
            .prepare_cached("SELECT bytes FROM side WHERE seq = ?1")
            .and_then(|mut find| find.query_row([seq], |row| row.get::<_, Vec<u8>>(0)).optional())
            .map_err(|cause| SCHEMA.error(cause))?,
        Db::Shared(shared) => shared.side(seq)?,
    };
    let Some(sealed) = sealed else { return Ok(Vec::new()) };
    let plain = vault
        .open(Seal::Side, place("side", seq).as_bytes(), &sealed)
        .map_err(|cause| damaged(format!("side row {seq}: {cause}")))?;
    postcard::from_bytes(&plain).map_err(|cause| damaged(format!("side row {seq}: {cause}")))
}

fn place(what: &str, seq: i64) -> String {
    format!("card4e {what} {seq}")
}

fn damaged(what: String) -> StoreError {
    StoreError::Damaged { file: SCHEMA.file, what }
}

/// A block as it was read.
pub(super) struct ReadBlock {
    pub(super) seq: i64,
    pub(super) at_ms: Millis,
    size: i64,
    root: Hash,
    bytes: Vec<u8>,
}

/// A block whose leaves were found to give the root that is stored with it.
pub(super) struct CheckedBlock {
    pub(super) seq: i64,
    pub(super) block: Block,
    pub(super) entries: Vec<Entry>,
}

impl ReadBlock {
    /// A row of `seq, at_ms, size, root, bytes`.
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<ReadBlock> {
        let (seq, at_ms, size) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(ReadBlock { seq, at_ms, size, root: row.get(3)?, bytes: row.get(4)? })
    }

    pub(super) fn decoded(&self) -> Result<CheckedBlock, StoreError> {
        let seq = self.seq;
        let failed = |cause: crate::ledger::BlockError| damaged(format!("block {seq}: {cause}"));
        let block = Block::from_bytes(&self.bytes).map_err(failed)?;
        let entries = block.decoded().map_err(failed)?;
        Ok(CheckedBlock { seq, block, entries })
    }

    fn checked(&self, tree: &mut Frontier) -> Result<CheckedBlock, StoreError> {
        let decoded = self.decoded()?;
        if decoded.block.first_leaf() != tree.size() {
            return Err(damaged(format!("block {} does not follow the one before it", self.seq)));
        }
        for (commitment, bytes) in decoded.block.entries() {
            tree.push(audit::leaf(commitment, bytes));
        }
        if tree.size() != self.size as u64 || tree.root() != self.root {
            return Err(damaged(format!("block {} does not give the root stored with it", self.seq)));
        }
        Ok(decoded)
    }
}

/// The next few blocks of the same tree. Pages are short, because a long reader keeps the log from being
/// reused.
pub(super) fn page_after(db: &Db, after: i64) -> Result<Vec<ReadBlock>, StoreError> {
    let db = match db {
        Db::File(db) => db,
        Db::Shared(shared) => return shared.page_after(after),
    };
    let find = "SELECT seq, at_ms, size, root, bytes FROM block WHERE seq > ?1 ORDER BY seq LIMIT 256";
    let run = || -> rusqlite::Result<Vec<ReadBlock>> {
        db.prepare_cached(find)?.query_map([after], ReadBlock::read)?.collect()
    };
    run().map_err(|cause| SCHEMA.error(cause))
}

/// What an audit check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// Blocks read.
    pub blocks: u64,
    /// Entries in them, each a leaf.
    pub entries: u64,
    /// Answered questions among them.
    pub answers: u64,
    /// Answers that were charged.
    pub charges: u64,
    /// Sum of the charges, in credits.
    pub charged: String,
    /// Entries whose side row was erased; their leaves hold all the same.
    pub erased: u64,
    /// Side rows that erasures recorded in the ledger account for.
    pub erasures_account_for: u64,
    /// Signed checkpoints that hold.
    pub checkpoints: u64,
    /// Trees: one of each node.
    pub trees: u64,
    /// Root of the tree, hex; of several, that of the last.
    pub root: String,
}

impl LedgerFile {
    /// Recomputes every tree from its blocks, holds every side row against its commitment and every
    /// checkpoint against the tree and the signature. Of a file, nobody writes to it meanwhile; of a
    /// database, what comes later is not looked at.
    pub fn check(place: impl Into<LedgerPlace>, vault: &Vault) -> Result<Check, StoreError> {
        let db = Db::open(&place.into())?;
        let (mut check, mut charged) = (Check::default(), Credits::ZERO);
        let nodes = db.nodes()?;
        let mut seen = Vec::new();
        for node in &nodes {
            let root = check_tree(&db, *node, vault, &mut check, &mut charged, &mut seen)?;
            check.root = crate::file::hex(&root);
        }
        check_seen(&db, &seen)?;
        if check.erased > check.erasures_account_for + erasure::under_way(&db)? {
            return Err(damaged(format!(
                "{} side rows are missing, and the erasures in the ledger account for {} only",
                check.erased, check.erasures_account_for
            )));
        }
        check.trees = nodes.len() as u64;
        check.charged = charged.to_string();
        Ok(check)
    }
}

/// Checks the tree of one node; gives its root.
fn check_tree(
    db: &Db,
    node: i64,
    vault: &Vault,
    check: &mut Check,
    charged: &mut Credits,
    seen: &mut Vec<Seen>,
) -> Result<Hash, StoreError> {
    // In this order: what is signed now is of blocks that are there.
    let mut checkpoints = db.checkpoints(node)?.into_iter().peekable();
    let last = db.last_seq(node)?;
    let keys = vault.keys();
    let mut signing_key = 0;
    let mut tree = Frontier::default();
    let mut after = first_block(node);
    while after < last {
        let page = page_after(db, after)?;
        let Some(end) = page.last() else { break };
        after = end.seq;
        for read in page.into_iter().take_while(|read| read.seq <= last) {
            let block = read.checked(&mut tree)?;
            check.blocks += 1;
            check_sides(&block, &read_sides(db, block.seq, vault)?, check)?;
            for entry in &block.entries {
                charged.0 += check.count(entry).0;
                if let Entry::Seen { node, size, root, .. } = entry {
                    seen.push(Seen { node: i64::from(*node), size: *size, root: *root });
                }
            }
            while let Some(checkpoint) = checkpoints.next_if(|c| c.size == tree.size()) {
                // A replaced key signs nothing any more, whoever has got hold of it.
                let public_key = keys.audit_public_key(checkpoint.key);
                let holds = checkpoint.root == tree.root()
                    && checkpoint.key >= signing_key
                    && public_key.is_some_and(|key| checkpoint.holds(&key));
                signing_key = checkpoint.key;
                if !holds {
                    return Err(damaged(format!("the checkpoint at {} does not hold", checkpoint.size)));
                }
                check.checkpoints += 1;
            }
        }
    }
    if let Some(checkpoint) = checkpoints.next() {
        // Blocks before a signed size are missing: the tree was cut.
        return Err(damaged(format!("no block ends at the checkpoint of size {}", checkpoint.size)));
    }
    Ok(tree.root())
}

/// The tree of another node, as a node has seen it.
struct Seen {
    node: i64,
    size: u64,
    root: Hash,
}

/// Every tree that was ever seen is there, with what it had then.
fn check_seen(db: &Db, seen: &[Seen]) -> Result<(), StoreError> {
    for Seen { node, size, root } in seen {
        if *size > 0 && db.root_at(*node, *size)? != Some(*root) {
            return Err(damaged(format!(
                "the tree of node {node} was seen with {size} entries by another node, and they are not there"
            )));
        }
    }
    Ok(())
}

impl Check {
    fn count(&mut self, entry: &Entry) -> Credits {
        self.entries += 1;
        if let Entry::Erased { records, .. } = entry {
            self.erasures_account_for += records;
        }
        match entry {
            Entry::Answer(answer) => {
                self.answers += 1;
                self.charges += u64::from(answer.charged > Credits::ZERO);
                answer.charged
            }
            Entry::Bulk(bulk) => {
                self.answers += bulk.answers();
                let charged = bulk.sums.iter().filter(|sum| sum.charged > Credits::ZERO);
                self.charges += charged.map(|sum| sum.answers).sum::<u64>();
                bulk.charged()
            }
            _ => Credits::ZERO,
        }
    }
}

fn check_sides(block: &CheckedBlock, sides: &[Option<Side>], check: &mut Check) -> Result<(), StoreError> {
    for (at, (commitment, _)) in block.block.entries().enumerate() {
        let Some(side) = side_at(sides, at) else {
            check.erased += 1;
            continue;
        };
        if !side_matches(side, commitment) {
            return Err(damaged(format!("a side row of block {} is not what was committed to", block.seq)));
        }
    }
    Ok(())
}

fn read_checkpoint(row: &rusqlite::Row<'_>) -> rusqlite::Result<Checkpoint> {
    let size: i64 = row.get(0)?;
    Ok(Checkpoint {
        size: size as u64,
        root: row.get(1)?,
        at_ms: row.get(2)?,
        signature: row.get(3)?,
        key: row.get(4)?,
    })
}

/// Something about callers as it is to be kept, in place of what was kept before.
#[derive(Clone, Copy, Debug)]
pub enum Put<'a> {
    /// A caller.
    Caller(&'a Caller),
    /// An application.
    Application(&'a Application),
    /// A credential; secrets are sealed, tokens kept as hashes.
    Credential(&'a Credential),
    /// No longer a credential: its secrets are forgotten. Its number stays taken, because the ledger names it.
    Revoked(CredentialId),
}

/// Callers, applications, credentials.
impl LedgerFile {
    /// Changes of callers in one commit, all or none.
    ///
    /// # Errors
    /// [`StoreError::ChangedElsewhere`] when another node changed callers since this one has read them.
    pub fn put(&mut self, rows: &[Put<'_>], vault: &Vault) -> Result<(), StoreError> {
        match (&mut self.db, &self.lease) {
            (Db::File(db), _) => {
                let run = |db: &mut Connection| {
                    let transaction = db.transaction()?;
                    rows.iter().try_for_each(|row| put(&transaction, row, vault))?;
                    transaction.commit()
                };
                run(db).map_err(|cause| SCHEMA.error(cause))
            }
            (Db::Shared(shared), Some(lease)) => shared.put(lease, rows, vault),
            (Db::Shared(_), None) => Err(StoreError::Stopped),
        }
    }

    /// Seals all secrets again, all or none; those that are kept as hashes stay as they are.
    pub fn reseal_credentials(&mut self, vault: &Vault) -> Result<(), StoreError> {
        let directory = self.directory(vault)?;
        let all: Vec<_> = directory.credentials().map(|credential| Put::Credential(credential)).collect();
        self.put(&all, vault)
    }

    /// Everybody who may ask.
    pub fn directory(&self, vault: &Vault) -> Result<Directory, StoreError> {
        directory(&self.db, vault)
    }

    /// Copies the file as it is now; see [`super::Accounts::copy`].
    pub fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        SCHEMA.copy(from, to, progress)
    }

    /// Whether SQLite finds its own structures whole; not what they hold, which [`LedgerFile::check`] does.
    pub fn check_structure(path: &Path) -> Result<(), StoreError> {
        SCHEMA.check_structure(path)
    }
}

fn put(db: &Connection, row: &Put<'_>, vault: &Vault) -> rusqlite::Result<()> {
    match row {
        Put::Caller(caller) => db.execute(
            "INSERT INTO caller VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, standing = excluded.standing,
               operator = excluded.operator",
            params![caller.id.0, caller.name, json(&caller.standing), caller.operator],
        ),
        Put::Application(application) => db.execute(
            "INSERT INTO application VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET caller = excluded.caller, name = excluded.name,
               actions = excluded.actions, unlimited = excluded.unlimited, price = excluded.price,
               requests_per_second = excluded.requests_per_second, attempts = excluded.attempts,
               encryption_required = excluded.encryption_required, reasons = excluded.reasons",
            params![
                application.id.0,
                application.caller.0,
                application.name,
                json(&application.actions),
                application.unlimited,
                application.price.map(|price| price.0),
                application.requests_per_second,
                application.attempts.as_ref().map(json),
                application.encryption_required,
                application.reasons,
            ],
        ),
        Put::Credential(credential) => put_credential(db, credential, vault),
        Put::Revoked(id) => db.execute(
            "UPDATE credential SET kind = 'revoked', secret_id = NULL, secret_key = NULL, session_token = NULL,
               token_hash = NULL, previous = NULL WHERE id = ?1",
            [id.0],
        ),
    }
    .map(drop)
}

fn put_credential(db: &Connection, credential: &Credential, vault: &Vault) -> rusqlite::Result<usize> {
    let row = StoredCredential::of(credential, vault);
    db.execute(
        "INSERT OR REPLACE INTO credential VALUES
           (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            credential.id.0,
            credential.application.0,
            row.kind,
            row.secret_id,
            row.secret_key,
            row.session_token,
            row.signed_payload_only,
            row.token_hash,
            row.token_last4,
            credential.expires_at_ms,
            json(&credential.addresses),
            row.previous,
            row.previous_until_ms,
            json(&credential.actions),
            credential.purpose.as_ref().map(json),
            credential.limit.map(|limit| limit.0),
        ],
    )
}

fn directory(db: &Db, vault: &Vault) -> Result<Directory, StoreError> {
    let (callers, applications, credentials, last) = match db {
        Db::File(db) => (
            rows(db, "SELECT id, name, standing, operator FROM caller", read_caller)?,
            rows(db, "SELECT * FROM application", read_application)?,
            rows(db, "SELECT * FROM credential WHERE kind <> 'revoked'", read_credential)?,
            rows(db, "SELECT coalesce(max(id), 0) FROM credential", |row| row.get(0))?.first().copied(),
        ),
        Db::Shared(shared) => shared.directory()?,
    };
    let credentials: Result<Vec<_>, _> =
        credentials.into_iter().map(|(id, application, row)| row.opened(id, application, vault)).collect();
    Ok(Directory::new(callers, applications, credentials?).with_last_credential(last.unwrap_or(0)))
}

fn read_caller(row: &rusqlite::Row<'_>) -> rusqlite::Result<Caller> {
    let (id, name, standing) = (CallerId(row.get(0)?), row.get(1)?, row.get::<_, String>(2)?);
    Ok(Caller { id, name, standing: from_json(&standing)?, operator: row.get(3)? })
}

fn rows<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let run = || -> rusqlite::Result<Vec<T>> { db.prepare(sql)?.query_map([], read)?.collect() };
    run().map_err(|cause| SCHEMA.error(cause))
}

fn read_application(row: &rusqlite::Row<'_>) -> rusqlite::Result<Application> {
    let actions: String = row.get(3)?;
    let attempts: Option<String> = row.get(7)?;
    let price: Option<i64> = row.get(5)?;
    Ok(Application {
        id: ApplicationId(row.get(0)?),
        caller: CallerId(row.get(1)?),
        name: row.get(2)?,
        actions: from_json(&actions)?,
        unlimited: row.get(4)?,
        price: price.map(Credits),
        requests_per_second: row.get(6)?,
        attempts: attempts.map(|text| from_json(&text)).transpose()?,
        encryption_required: row.get(8)?,
        reasons: row.get(9)?,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // Plain enums and structs of numbers: nothing that JSON cannot say.
    serde_json::to_string(value).unwrap_or_default()
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|cause| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, cause.into())
    })
}

#[derive(Default)]
struct StoredCredential {
    kind: String,
    secret_id: Option<String>,
    secret_key: Option<Vec<u8>>,
    session_token: Option<Vec<u8>>,
    signed_payload_only: bool,
    token_hash: Option<[u8; 16]>,
    token_last4: Option<String>,
    expires_at_ms: Option<i64>,
    addresses: String,
    previous: Option<Vec<u8>>,
    previous_until_ms: Option<i64>,
    actions: String,
    purpose: Option<String>,
    limit: Option<i64>,
}

impl StoredCredential {
    fn of(credential: &Credential, vault: &Vault) -> StoredCredential {
        let seal = |what: &str, secret: &Secret| {
            let place = credential_place(what, credential.id);
            vault.seal(Seal::Credential, place.as_bytes(), secret.expose().as_bytes())
        };
        let token = |kind: &str, hash: &[u8; 16], last4: &String| StoredCredential {
            kind: kind.into(),
            token_hash: Some(*hash),
            token_last4: Some(last4.clone()),
            ..StoredCredential::default()
        };
        match &credential.proof {
            Proof::Bearer { hash, last4, previous } => StoredCredential {
                previous: previous.as_ref().map(|(old, _)| old.to_vec()),
                previous_until_ms: previous.as_ref().map(|(_, until)| *until),
                ..token("bearer", hash, last4)
            },
            Proof::Platform { hash, last4 } => token("platform", hash, last4),
            Proof::Signature { secret_id, secret_key, previous, session_token, signed_payload_only } => {
                StoredCredential {
                    kind: "signature".into(),
                    secret_id: Some(secret_id.clone()),
                    secret_key: Some(seal("secret key", secret_key)),
                    session_token: session_token.as_ref().map(|token| seal("session token", token)),
                    signed_payload_only: *signed_payload_only,
                    previous: previous.as_ref().map(|(old, _)| seal("previous key", old)),
                    previous_until_ms: previous.as_ref().map(|(_, until)| *until),
                    ..StoredCredential::default()
                }
            }
        }
    }

    fn opened(
        self,
        id: CredentialId,
        application: ApplicationId,
        vault: &Vault,
    ) -> Result<Credential, StoreError> {
        let open = |what: &str, sealed: &[u8]| {
            let place = credential_place(what, id);
            let plain = vault.open(Seal::Credential, place.as_bytes(), sealed);
            let plain = plain.map_err(|cause| damaged(format!("credential {}: {cause}", id.0)))?;
            Ok(Secret::new(String::from_utf8_lossy(&plain)))
        };
        let previous_token = self.previous_token();
        let hash = self.token_hash.unwrap_or_default();
        let last4 = self.token_last4.unwrap_or_default();
        let proof = match self.kind.as_str() {
            "bearer" => Proof::Bearer { hash, last4, previous: previous_token },
            "platform" => Proof::Platform { hash, last4 },
            "signature" => Proof::Signature {
                secret_id: self.secret_id.unwrap_or_default(),
                secret_key: open("secret key", &self.secret_key.unwrap_or_default())?,
                previous: match self.previous.zip(self.previous_until_ms) {
                    Some((sealed, until)) => Some((open("previous key", &sealed)?, until)),
                    None => None,
                },
                session_token: self.session_token.map(|sealed| open("session token", &sealed)).transpose()?,
                signed_payload_only: self.signed_payload_only,
            },
            other => return Err(damaged(format!("credential {} is of unknown kind `{other}`", id.0))),
        };
        let failed = |cause| SCHEMA.error(cause);
        Ok(Credential {
            id,
            application,
            proof,
            expires_at_ms: self.expires_at_ms,
            addresses: from_json(&self.addresses).map_err(failed)?,
            actions: from_json(&self.actions).map_err(failed)?,
            purpose: self.purpose.map(|text| from_json(&text)).transpose().map_err(failed)?,
            limit: self.limit.map(Credits),
        })
    }

    fn previous_token(&self) -> Option<([u8; 16], i64)> {
        let hash = self.previous.as_deref()?.try_into().ok()?;
        Some((hash, self.previous_until_ms?))
    }
}

fn credential_place(what: &str, id: CredentialId) -> String {
    format!("card4e credential {} {what}", id.0)
}

fn read_credential(
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<(CredentialId, ApplicationId, StoredCredential)> {
    let stored = StoredCredential {
        kind: row.get(2)?,
        secret_id: row.get(3)?,
        secret_key: row.get(4)?,
        session_token: row.get(5)?,
        signed_payload_only: row.get(6)?,
        token_hash: row.get(7)?,
        token_last4: row.get(8)?,
        expires_at_ms: row.get(9)?,
        addresses: row.get(10)?,
        previous: row.get(11)?,
        previous_until_ms: row.get(12)?,
        actions: row.get(13)?,
        purpose: row.get(14)?,
        limit: row.get(15)?,
    };
    Ok((CredentialId(row.get(0)?), ApplicationId(row.get(1)?), stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::KeyRing;

    /// A block of entries that fill some pages.
    fn appended(file: &mut LedgerFile, tree: &Frontier, vault: &Vault) -> Result<Frontier, StoreError> {
        let (mut tree, mut block) = (tree.clone(), Block::new(tree.size(), 500));
        let mut side_rows = SideRows::default();
        let mut sides = vec![Side::default(); 500];
        for side in &mut sides {
            block.push(&Entry::SandboxReset { at_ms: 1 }, side, &mut tree, &mut side_rows);
        }
        let sides: Vec<&Side> = sides.iter().collect();
        let commit = Commit {
            block: &block,
            sides: &sides,
            side_rows: &side_rows,
            tree: &tree,
            also_known_as: &[],
            checkpoint: None,
            rows: None,
            at_ms: 1,
        };
        file.append(&commit, vault).map(|()| tree)
    }

    fn connection(file: &LedgerFile) -> &Connection {
        let Db::File(db) = &file.db else { panic!("a file") };
        db
    }

    #[test]
    fn a_block_that_does_not_fit_is_not_there_and_the_next_one_that_fits_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let vault = Vault::new(&KeyRing::generate());
        let Opened { mut file, tree, .. } = LedgerFile::open(&path, &vault).unwrap();
        let tree = appended(&mut file, &tree, &vault).unwrap();
        let pages: i64 = connection(&file).pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection(&file).pragma_update(None, "max_page_count", pages + 2).unwrap();
        for _ in 0..3 {
            let error = appended(&mut file, &tree, &vault).unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
            assert!(matches!(file.try_room().unwrap_err(), StoreError::Full { .. }));
        }
        assert!(connection(&file).is_autocommit(), "nothing is left open");
        connection(&file).pragma_update(None, "max_page_count", 1 << 20).unwrap();
        file.try_room().unwrap();
        appended(&mut file, &tree, &vault).unwrap();
        file.close().unwrap();
        drop(file);
        let check = LedgerFile::check(&path, &vault).unwrap();
        assert_eq!((check.blocks, check.entries), (2, 1000));
        LedgerFile::open(&path, &vault).unwrap();
    }
}
