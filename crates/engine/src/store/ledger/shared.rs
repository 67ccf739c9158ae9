//! The ledger in a database: native SQL, each node its own rows. See [`super::Db`] for what each is for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::effects::Effects;
use super::{
    Application, ApplicationId, Caller, CallerId, Checkpoint, Commit, CredentialId, Credits, Hash, JobId,
    Lease, Millis, Put, ReadBlock, StoreError, StoredAnswer, StoredCredential, Vault, damaged, first_block,
    json, node_of,
};
use crate::bulk::SettledRows;
use crate::erase::Found;
use crate::store::copy::{Mark, Marked};
use crate::store::node::new_epoch;
use crate::store::postgres::{Connection, Database, Schema, Session};
use crate::store::shared::Purse;
use crate::vault::KeyedRef;

/// Tables of the ledger and of what nodes share. `seq` begins with the number of the node.
pub(in crate::store) const SHARED_SCHEMA: Schema = Schema {
    part: "ledger",
    versions: &["
        CREATE TABLE node (
            number      BIGINT PRIMARY KEY,
            name        TEXT NOT NULL UNIQUE,
            holder      BIGINT NOT NULL,       -- the process; random
            epoch       BIGINT NOT NULL,       -- random; another one when it was found dead
            alive_until BIGINT NOT NULL,       -- by the database's clock, Unix milliseconds
            keys        BIGINT NOT NULL DEFAULT 0 -- version of the key ring that it works with
        );
        CREATE TABLE block (
            node  BIGINT NOT NULL,
            seq   BIGINT NOT NULL,
            at_ms BIGINT NOT NULL,
            size  BIGINT NOT NULL,             -- leaves of the node's audit tree after this block
            root  BYTEA NOT NULL,              -- its root then
            bytes BYTEA NOT NULL,
            PRIMARY KEY (node, seq)
        );
        CREATE TABLE side (                    -- what can be erased; sealed
            node  BIGINT NOT NULL,
            seq   BIGINT NOT NULL,
            bytes BYTEA NOT NULL,
            PRIMARY KEY (node, seq)
        );
        CREATE TABLE bulk (                    -- rows of jobs that are settled, and in which block
            job       BYTEA NOT NULL,
            first_row BIGINT NOT NULL,
            n_rows    BIGINT NOT NULL,
            seq       BIGINT NOT NULL,
            PRIMARY KEY (job, first_row)
        );
        CREATE TABLE checkpoint (
            node        BIGINT NOT NULL,
            size        BIGINT NOT NULL,
            root        BYTEA NOT NULL,
            at_ms       BIGINT NOT NULL,
            signature   BYTEA NOT NULL,
            key_version BIGINT NOT NULL,
            PRIMARY KEY (node, size)
        );
        CREATE TABLE snapshot (                -- state of a node after a block; sealed, replaced
            node  BIGINT PRIMARY KEY,
            seq   BIGINT NOT NULL,
            bytes BYTEA NOT NULL
        );
        CREATE TABLE erasure (                 -- under way; gone when it is done
            one     BIGINT PRIMARY KEY CHECK (one = 1),
            bytes   BYTEA NOT NULL,
            after   BIGINT NOT NULL,
            records BIGINT NOT NULL
        );
        CREATE TABLE caller (
            id       BIGINT PRIMARY KEY,
            name     TEXT NOT NULL UNIQUE,
            standing TEXT NOT NULL,
            operator BOOLEAN NOT NULL
        );
        CREATE TABLE application (
            id                  BIGINT PRIMARY KEY,
            caller              BIGINT NOT NULL,
            name                TEXT NOT NULL,
            actions             TEXT NOT NULL,
            unlimited           BOOLEAN NOT NULL,
            price               BIGINT,
            requests_per_second BIGINT,
            attempts            TEXT,
            encryption_required BOOLEAN NOT NULL,
            reasons             BOOLEAN NOT NULL
        );
        CREATE TABLE credential (
            id                  BIGINT PRIMARY KEY,
            application         BIGINT NOT NULL,
            kind                TEXT NOT NULL,
            secret_id           TEXT UNIQUE,
            secret_key          BYTEA,
            session_token       BYTEA,
            signed_payload_only BOOLEAN NOT NULL,
            token_hash          BYTEA UNIQUE,
            token_last4         TEXT,
            expires_at_ms       BIGINT,
            addresses           TEXT NOT NULL,
            previous            BYTEA,
            previous_until_ms   BIGINT,
            actions             TEXT NOT NULL,
            purpose             TEXT,
            spend_limit         BIGINT
        );
        CREATE TABLE version (                 -- raised with every change that other nodes must see
            of_what TEXT PRIMARY KEY,
            n       BIGINT NOT NULL
        );
        INSERT INTO version VALUES ('callers', 0), ('keys', 0);
        CREATE TABLE purse (                   -- what no node has taken yet
            kind SMALLINT NOT NULL,            -- 0: of an application, 1: of a credential with a limit
            id   BIGINT NOT NULL,
            free BIGINT NOT NULL CHECK (kind = 1 OR free >= 0),
            PRIMARY KEY (kind, id)
        );
        CREATE TABLE slice (                   -- what a node has taken and not charged yet
            node    BIGINT NOT NULL,
            kind    SMALLINT NOT NULL,
            id      BIGINT NOT NULL,
            remains BIGINT NOT NULL,
            charged BIGINT NOT NULL,           -- by this node since the beginning
            PRIMARY KEY (node, kind, id)
        );
        CREATE TABLE payment (reference BYTEA PRIMARY KEY);
        CREATE TABLE attempt (
            day INT NOT NULL,
            ref BYTEA NOT NULL,
            n   BIGINT NOT NULL,
            PRIMARY KEY (day, ref)
        );
        CREATE TABLE answered (
            key      BYTEA PRIMARY KEY,
            payload  BYTEA NOT NULL,
            until_ms BIGINT NOT NULL,
            answer   BYTEA NOT NULL,
            name     BYTEA NOT NULL            -- the newest key it is known by: its rows are erased together
        );
        CREATE INDEX answered_by_name ON answered (name);
        CREATE TABLE passed (                  -- passes that were bought and may be given again
            key      BYTEA PRIMARY KEY,
            until_ms BIGINT NOT NULL
        );
        CREATE TABLE claim (                   -- questions that a node is asking a provider
            key      BYTEA PRIMARY KEY,        -- as in answered
            node     BIGINT NOT NULL,
            until_ms BIGINT NOT NULL           -- by the database's clock
        );
        CREATE TABLE spent (                   -- on providers, each node its part
            node     BIGINT NOT NULL,
            provider TEXT NOT NULL,
            kind     SMALLINT NOT NULL,        -- 0: on a day, 1: in a month, 2: in all, 3: of that uncertain, 4: calls
            period   INT NOT NULL,             -- the day or month; else 0
            amount   BIGINT NOT NULL,
            PRIMARY KEY (provider, kind, period, node)
        );
        CREATE TABLE budget (provider TEXT PRIMARY KEY);   -- held by whoever looks what caps leave
        CREATE TABLE day_key (day INT PRIMARY KEY, sealed BYTEA NOT NULL);
        CREATE TABLE key_ring (one BIGINT PRIMARY KEY CHECK (one = 1), sealed BYTEA NOT NULL);
        CREATE TABLE copy_mark (               -- whether this is copied elsewhere, or from there; see store/copy.rs
            one  BIGINT PRIMARY KEY CHECK (one = 1),
            mark TEXT NOT NULL
        );
        INSERT INTO copy_mark VALUES (1, '');
    "],
};

/// How long a node counts as alive after its last sign of life, milliseconds.
pub(in crate::store) const ALIVE_MS: i64 = 10_000;

/// Divides by zero when the node was declared dead: the transaction ends there, with all that follows it.
pub(in crate::store) const FENCE: &str = "
    WITH held AS (
        UPDATE node SET alive_until = (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + $3
        WHERE number = $1 AND epoch = $2 RETURNING number
    ) SELECT 1 / count(*) FROM held";

/// The same when one of the questions was answered before: charging it again would be charging it twice.
const KEEP_ANSWERS: &str = "
    WITH kept AS (
        INSERT INTO answered
        SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BIGINT[], $4::BYTEA[], $7::BYTEA[])
        ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, until_ms = excluded.until_ms,
            answer = excluded.answer, name = excluded.name
        WHERE answered.until_ms <= $5 RETURNING key
    ) SELECT 1 / CASE WHEN count(*) = $6 THEN 1 ELSE 0 END FROM kept";

/// The same when another node has settled these rows.
const KEEP_ROWS: &str = "
    WITH kept AS (INSERT INTO bulk VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING seq)
    SELECT 1 / count(*) FROM kept";

const CHARGE: &str = "
    INSERT INTO slice SELECT $1, kind, id, -charged, charged
    FROM unnest($2::SMALLINT[], $3::BIGINT[], $4::BIGINT[]) AS due (kind, id, charged)
    ON CONFLICT (node, kind, id) DO UPDATE
        SET remains = slice.remains + excluded.remains, charged = slice.charged + excluded.charged";

const MOVE_COUNTERS: &str = "
    INSERT INTO attempt SELECT * FROM unnest($1::INT[], $2::BYTEA[], $3::BIGINT[])
    ON CONFLICT (day, ref) DO UPDATE SET n = attempt.n + excluded.n";

const END_RUNS: &str = "
    UPDATE attempt SET n = 0 FROM unnest($1::INT[], $2::BYTEA[]) AS ended (day, ref)
    WHERE attempt.day = ended.day AND attempt.ref = ended.ref";

const KEEP_PASSES: &str = "
    INSERT INTO passed SELECT * FROM unnest($1::BYTEA[], $2::BIGINT[])
    ON CONFLICT (key) DO UPDATE SET until_ms = greatest(passed.until_ms, excluded.until_ms)";

const END_CLAIMS: &str = "DELETE FROM claim WHERE key = ANY ($1) AND node = $2";

/// Each node has rows of its own, so that no two wait for each other.
pub(in crate::store) const ADD_SPENT: &str = "
    INSERT INTO spent SELECT $1, provider, kind, period, amount
    FROM unnest($2::TEXT[], $3::SMALLINT[], $4::INT[], $5::BIGINT[]) AS added (provider, kind, period, amount)
    ON CONFLICT (provider, kind, period, node) DO UPDATE SET amount = spent.amount + excluded.amount";

const ADD_CREDITS: &str = "
    INSERT INTO purse VALUES (0, $1, $2) ON CONFLICT (kind, id) DO UPDATE SET free = purse.free + excluded.free";

/// What is taken back is against the CHECK if less is left. A CHECK looks at what is to be inserted, too, though it
/// is an update in the end; so nothing is, or where there is no purse something that is surely refused.
const ADD_PAYMENT: &str = "
    WITH first AS (INSERT INTO payment VALUES ($3) ON CONFLICT DO NOTHING RETURNING reference)
    INSERT INTO purse SELECT 0, $1, CASE
        WHEN $2::BIGINT >= 0 THEN $2
        WHEN EXISTS (SELECT 1 FROM purse WHERE kind = 0 AND id = $1) THEN 0
        ELSE -1 END FROM first
    ON CONFLICT (kind, id) DO UPDATE SET free = purse.free + $2";

const KEEP_CHECKPOINT: &str = "
    INSERT INTO checkpoint VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (node, size) DO UPDATE SET root = excluded.root, at_ms = excluded.at_ms,
        signature = excluded.signature, key_version = excluded.key_version";

/// A session of whoever reads or writes.
#[derive(Debug)]
pub(in crate::store) struct Shared {
    session: RefCell<Session>,
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Shared {
    pub(super) fn new(database: &Arc<Database>) -> Result<Shared, StoreError> {
        Ok(Shared { session: RefCell::new(Session::new(Arc::clone(database))?) })
    }

    fn rows(&self, sql: &'static str, with: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.session.borrow_mut().read(async |connection: &Connection| {
            connection.client.query(&connection.prepared(sql).await?, with).await
        })
    }

    fn row(&self, sql: &'static str, with: Params<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, with)?.into_iter().next())
    }

    pub(super) fn nodes(&self) -> Result<Vec<i64>, StoreError> {
        // Also those whose row in `node` is gone: their blocks are looked at all the same.
        let all = "SELECT number FROM node UNION SELECT node FROM block ORDER BY 1";
        Ok(self.rows(all, &[])?.iter().map(|row| row.get(0)).collect())
    }

    pub(super) fn node_named(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let row = self.row("SELECT number FROM node WHERE name = $1", &[&name])?;
        Ok(row.map(|row| row.get(0)))
    }

    pub(super) fn page_after(&self, after: i64) -> Result<Vec<ReadBlock>, StoreError> {
        let find = "SELECT seq, at_ms, size, root, bytes FROM block WHERE node = $1 AND seq > $2
                    ORDER BY seq LIMIT 256";
        Ok(self.rows(find, &[&node_of(after), &after])?.iter().map(read_block).collect())
    }

    pub(super) fn blocks(
        &self,
        after: i64,
        until: i64,
        written: &Range<Millis>,
    ) -> Result<Vec<ReadBlock>, StoreError> {
        let find = "SELECT seq, at_ms, size, root, bytes FROM block
                    WHERE node = $1 AND seq > $2 AND seq <= $3 AND at_ms >= $4 AND at_ms < $5 ORDER BY seq";
        let window: Params<'_> = &[&node_of(until), &after, &until, &written.start, &written.end];
        Ok(self.rows(find, window)?.iter().map(read_block).collect())
    }

    pub(super) fn side(&self, seq: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.row("SELECT bytes FROM side WHERE node = $1 AND seq = $2", &[&node_of(seq), &seq])?;
        Ok(row.map(|row| row.get(0)))
    }

    pub(super) fn last_seq(&self, node: i64) -> Result<i64, StoreError> {
        let row = self.row("SELECT max(seq) FROM block WHERE node = $1", &[&node])?;
        Ok(row.and_then(|row| row.get(0)).unwrap_or(first_block(node)))
    }

    pub(super) fn newest(&self, node: i64) -> Result<Option<(Millis, u64)>, StoreError> {
        let find = "SELECT at_ms, size FROM block WHERE node = $1 ORDER BY seq DESC LIMIT 1";
        Ok(self.row(find, &[&node])?.map(|row| (row.get(0), row.get::<_, i64>(1) as u64)))
    }

    pub(super) fn block_at(&self, node: i64, size: u64) -> Result<Option<(i64, Hash, u64)>, StoreError> {
        let find =
            "SELECT seq, root, size FROM block WHERE node = $1 AND size <= $2 ORDER BY seq DESC LIMIT 1";
        let found = self.row(find, &[&node, &(size as i64)])?;
        Ok(found.map(|row| (row.get(0), hash(&row, 1), row.get::<_, i64>(2) as u64)))
    }

    pub(super) fn leaves_of(
        &self,
        node: i64,
        settled: &Range<Millis>,
        size: i64,
    ) -> Result<(i64, Option<i64>), StoreError> {
        let find = "
            SELECT (SELECT coalesce(max(before.size), 0)::BIGINT FROM block before
                    WHERE before.node = $1 AND before.seq < found.low),
                   (SELECT last.size FROM block last WHERE last.node = $1 AND last.seq = found.high)
            FROM (SELECT min(seq) AS low, max(seq) AS high FROM block
                  WHERE node = $1 AND at_ms >= $2 AND at_ms < $3 AND size <= $4) found";
        let found = self.row(find, &[&node, &settled.start, &settled.end, &size])?;
        Ok(found.map_or((0, None), |row| (row.get(0), row.get(1))))
    }

    pub(super) fn checkpoints(&self, node: i64) -> Result<Vec<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key_version FROM checkpoint WHERE node = $1
                    ORDER BY size";
        self.rows(find, &[&node])?.iter().map(read_checkpoint).collect()
    }

    pub(super) fn last_checkpoint(&self, node: i64) -> Result<Option<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key_version FROM checkpoint WHERE node = $1
                    ORDER BY size DESC LIMIT 1";
        self.row(find, &[&node])?.as_ref().map(read_checkpoint).transpose()
    }

    pub(super) fn checkpoint_in(
        &self,
        node: i64,
        first: i64,
        end: i64,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let find = "SELECT size, root, at_ms, signature, key_version FROM checkpoint
                    WHERE node = $1 AND size >= $2 AND size < $3 ORDER BY size LIMIT 1";
        self.row(find, &[&node, &first, &end])?.as_ref().map(read_checkpoint).transpose()
    }

    pub(super) fn settled_rows(&self, job: &JobId) -> Result<Vec<SettledRows>, StoreError> {
        let find = "SELECT first_row, n_rows, seq FROM bulk WHERE job = $1 ORDER BY first_row";
        let read = |row: &Row| SettledRows {
            first_row: row.get::<_, i64>(0) as u64,
            rows: row.get::<_, i64>(1) as u64,
            seq: row.get(2),
        };
        Ok(self.rows(find, &[&&job[..]])?.iter().map(read).collect())
    }

    pub(super) fn callers(&self, find: &'static str) -> Result<HashMap<ApplicationId, String>, StoreError> {
        let read = |row: &Row| (ApplicationId(row.get::<_, i64>(0) as u32), row.get(1));
        Ok(self.rows(find, &[])?.iter().map(read).collect())
    }

    pub(super) fn snapshot(&self, node: i64) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
        let found = self.row("SELECT seq, bytes FROM snapshot WHERE node = $1", &[&node])?;
        Ok(found.map(|row| (row.get(0), row.get(1))))
    }

    pub(super) fn save_snapshot(&mut self, seq: i64, sealed: &[u8]) -> Result<(), StoreError> {
        // One of a process that was fenced is as true as any: it is of blocks that are there. An older one
        // never replaces a newer.
        let keep = "INSERT INTO snapshot VALUES ($1, $2, $3)
                    ON CONFLICT (node) DO UPDATE SET seq = excluded.seq, bytes = excluded.bytes
                    WHERE snapshot.seq < excluded.seq";
        self.rows(keep, &[&node_of(seq), &seq, &sealed]).map(drop)
    }

    pub(super) fn save_checkpoint(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (size, key) = (checkpoint.size as i64, i64::from(checkpoint.key));
        let with: Params<'_> = &[
            &lease.number,
            &size,
            &&checkpoint.root[..],
            &checkpoint.at_ms,
            &&checkpoint.signature[..],
            &key,
        ];
        self.rows(KEEP_CHECKPOINT, with).map(drop)
    }

    pub(super) fn answered(&self, keys: &[KeyedRef], now: Millis) -> Result<Vec<StoredAnswer>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        self.rows(RECALL, &[&keys, &now])?.iter().map(read_answer).collect()
    }

    /// The one commit of a block: in one round trip, and nothing of it when one of its conditions fails.
    pub(super) fn append(
        &mut self,
        lease: &Lease,
        seq: i64,
        commit: &Commit<'_>,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        let failed = |cause: crate::ledger::BlockError| damaged(format!("block {seq}: {cause}"));
        let effects =
            Effects::of(&commit.block.decoded().map_err(failed)?, commit.sides, commit.also_known_as);
        let steps = steps(lease, (seq, commit.block.as_bytes(), sealed), commit, &effects);
        self.session.get_mut().attempt(async |connection| append(connection, &steps).await)
    }

    /// The epoch is replaced first: whatever is still on its way under the old one comes to nothing, and
    /// the row's lock waits for what has begun.
    pub(super) fn look_back(
        &mut self,
        lease: &Lease,
        seq: i64,
        root: Option<&Hash>,
    ) -> Result<LookedBack, StoreError> {
        let (known, next) = (lease.epoch(), new_epoch());
        let found = self.session.get_mut().transaction(async |connection: &Connection| {
            // One that is copied elsewhere gives no place back.
            Mark::of_database(connection).await?.check(&Marked::Database)?;
            let run = async {
                let find = "SELECT epoch FROM node WHERE number = $1 AND holder = $2 FOR UPDATE";
                let found = connection.client.query_opt(find, &[&lease.number, &lease.holder]).await?;
                let replace = "UPDATE node SET epoch = $3 WHERE number = $1 AND holder = $2";
                connection.client.execute(replace, &[&lease.number, &lease.holder, &next]).await?;
                let find = "SELECT root FROM block WHERE node = $1 AND seq = $2";
                let block = connection.client.query_opt(find, &[&lease.number, &seq]).await?;
                Ok((found.map(|row| row.get::<_, i64>(0)), block.map(|row| hash(&row, 0))))
            };
            run.await.map_err(StoreError::Database)
        });
        match found? {
            (None, _) => Err(StoreError::Fenced),
            (Some(epoch), block) => {
                lease.set_epoch(next);
                match (block, root) {
                    (Some(block), Some(root)) if block == *root => {
                        Ok(LookedBack::Appended { was_buried: epoch != known })
                    }
                    // Somebody wrote in this node's name: nobody may.
                    (Some(_), _) => Err(StoreError::Fenced),
                    (None, _) if epoch != known => Ok(LookedBack::Buried),
                    (None, _) => Ok(LookedBack::Absent),
                }
            }
        }
    }

    pub(super) fn noted_erasure(&self) -> Result<Option<(Vec<u8>, i64, i64)>, StoreError> {
        let found = self.row("SELECT bytes, after, records FROM erasure", &[])?;
        Ok(found.map(|row| (row.get(0), row.get(1), row.get(2))))
    }

    /// Whether it is noted: nothing is but what was noted before, if anything, and it may be made twice.
    pub(super) fn begin_erasure(&mut self, sealed: &[u8], before: &[u8]) -> Result<usize, StoreError> {
        let note = "INSERT INTO erasure VALUES (1, $1, 0, 0)
                    ON CONFLICT (one) DO UPDATE SET bytes = excluded.bytes, after = 0
                    WHERE erasure.bytes IN ($2, excluded.bytes) RETURNING one";
        self.session.get_mut().transaction(async |connection: &Connection| {
            Mark::of_database(connection).await?.may_change()?;
            let noted = connection.client.query(note, &[&sealed, &before]).await;
            noted.map(|rows| rows.len()).map_err(StoreError::Database)
        })
    }

    pub(super) fn empty_sides(
        &mut self,
        emptied: &[(i64, Vec<u8>)],
        found: &Found,
    ) -> Result<(), StoreError> {
        let (until, records) = (found.until, found.records() as i64);
        let answers: Vec<&[u8]> = found.answers.iter().map(|key| &key[..]).collect();
        self.session.get_mut().transaction(async |connection: &Connection| {
            Mark::of_database(connection).await?.may_change()?;
            let run = async {
                let put =
                    connection.prepared("UPDATE side SET bytes = $3 WHERE node = $1 AND seq = $2").await?;
                for (seq, sealed) in emptied {
                    connection.client.execute(&put, &[&node_of(*seq), seq, sealed]).await?;
                }
                let forget = connection.prepared("DELETE FROM answered WHERE name = ANY ($1)").await?;
                connection.client.execute(&forget, &[&answers]).await?;
                let forget = connection.prepared("DELETE FROM passed WHERE key = ANY ($1)").await?;
                connection.client.execute(&forget, &[&answers]).await?;
                let done = "UPDATE erasure SET after = $1, records = records + $2";
                connection.client.execute(&connection.prepared(done).await?, &[&until, &records]).await
            };
            run.await.map(drop).map_err(StoreError::Database)
        })
    }

    pub(super) fn end_erasure(&mut self) -> Result<(), StoreError> {
        self.rows("DELETE FROM erasure", &[]).map(drop)
    }
}

/// What became of a block whose commit was lost, and of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookedBack {
    /// It is durable.
    Appended {
        /// Since then others found this node dead: what it had taken of balances is given back.
        was_buried: bool,
    },
    /// It is not there, and never will be.
    Absent,
    /// Nor is it, and what this node had taken of balances is given back: others found it dead.
    Buried,
}

/// Answers that can be asked for again.
pub(in crate::store) const RECALL: &str =
    "SELECT key, payload, answer FROM answered WHERE key = ANY ($1) AND until_ms > $2";

/// A row of [`RECALL`].
pub(in crate::store) fn read_answer(row: &Row) -> Result<StoredAnswer, StoreError> {
    let keyed = |column| KeyedRef::try_from(row.get::<_, &[u8]>(column)).unwrap_or_default();
    let answer =
        postcard::from_bytes(row.get(2)).map_err(|cause| damaged(format!("a stored answer: {cause}")))?;
    Ok(StoredAnswer { key: keyed(0), payload: keyed(1), answer })
}

fn hash(row: &Row, column: usize) -> Hash {
    // What is no hash is no block's.
    Hash::try_from(row.get::<_, &[u8]>(column)).unwrap_or_default()
}

fn read_block(row: &Row) -> ReadBlock {
    let (seq, at_ms, size) = (row.get(0), row.get(1), row.get(2));
    ReadBlock { seq, at_ms, size, root: hash(row, 3), bytes: row.get(4) }
}

fn read_checkpoint(row: &Row) -> Result<Checkpoint, StoreError> {
    let size = row.get::<_, i64>(0) as u64;
    let signature = row.get::<_, &[u8]>(3).try_into();
    let signature = signature.map_err(|_| damaged(format!("the checkpoint at {size} has no signature")))?;
    let key = row.get::<_, i64>(4) as u32;
    Ok(Checkpoint { size, root: hash(row, 1), at_ms: row.get(2), signature, key })
}

/// One statement of a commit.
struct Step<'a> {
    sql: &'static str,
    with: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
    /// What it means when it divides by zero, or is against a CHECK.
    otherwise: fn() -> StoreError,
}

/// A statement on its way.
type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + 'a>>;

/// What is only ever written.
fn plain<'a>(sql: &'static str, with: Vec<Box<dyn ToSql + Sync + Send + 'a>>) -> Step<'a> {
    Step { sql, with, otherwise: || StoreError::Stopped }
}

impl Step<'_> {
    fn error(&self, error: tokio_postgres::Error) -> StoreError {
        match error.code() {
            Some(&SqlState::DIVISION_BY_ZERO | &SqlState::CHECK_VIOLATION) => (self.otherwise)(),
            _ => StoreError::Database(error),
        }
    }
}

/// What a block writes, in the order of its statements. Rows are in the order of their keys, so that two
/// blocks that touch the same ones do not lock each other out.
fn steps<'a>(
    lease: &Lease,
    (seq, bytes, sealed): (i64, &'a [u8], &'a [u8]),
    commit: &'a Commit<'_>,
    effects: &'a Effects,
) -> Vec<Step<'a>> {
    let (node, epoch) = (lease.number, lease.epoch());
    let (size, root) = (commit.tree.size() as i64, commit.tree.root().to_vec());
    let mut steps = vec![
        Step {
            sql: FENCE,
            with: vec![Box::new(node), Box::new(epoch), Box::new(ALIVE_MS)],
            otherwise: || StoreError::Fenced,
        },
        plain(
            "INSERT INTO block VALUES ($1, $2, $3, $4, $5, $6)",
            vec![
                Box::new(node),
                Box::new(seq),
                Box::new(commit.at_ms),
                Box::new(size),
                Box::new(root),
                Box::new(bytes),
            ],
        ),
        plain("INSERT INTO side VALUES ($1, $2, $3)", vec![Box::new(node), Box::new(seq), Box::new(sealed)]),
    ];
    if let Some((job, first_row, rows)) = &commit.rows {
        let with: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(&job[..]), Box::new(*first_row as i64), Box::new(*rows as i64), Box::new(seq)];
        steps.push(Step { sql: KEEP_ROWS, with, otherwise: || StoreError::Answered });
    }
    if let Some(signed) = commit.checkpoint {
        let with: Vec<Box<dyn ToSql + Sync + Send>> = vec![
            Box::new(node),
            Box::new(signed.size as i64),
            Box::new(&signed.root[..]),
            Box::new(signed.at_ms),
            Box::new(&signed.signature[..]),
            Box::new(i64::from(signed.key)),
        ];
        steps.push(plain(KEEP_CHECKPOINT, with));
    }
    if !effects.charged.is_empty() {
        let (kinds, ids): (Vec<i16>, Vec<i64>) = effects.charged.keys().copied().unzip();
        let amounts: Vec<i64> = effects.charged.values().copied().collect();
        let with: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(node), Box::new(kinds), Box::new(ids), Box::new(amounts)];
        steps.push(plain(CHARGE, with));
    }
    if !effects.answered.is_empty() {
        let keys: Vec<&[u8]> = effects.answered.keys().map(|key| &key[..]).collect();
        let kept = || effects.answered.values();
        let payloads: Vec<&[u8]> = kept().map(|kept| &kept.payload[..]).collect();
        let untils: Vec<i64> = kept().map(|kept| kept.until_ms).collect();
        let answers: Vec<&[u8]> = kept().map(|kept| &kept.answer[..]).collect();
        let names: Vec<&[u8]> = kept().map(|kept| &kept.name[..]).collect();
        let count = keys.len() as i64;
        let with: Vec<Box<dyn ToSql + Sync + Send>> = vec![
            Box::new(keys),
            Box::new(payloads),
            Box::new(untils),
            Box::new(answers),
            Box::new(commit.at_ms),
            Box::new(count),
            Box::new(names),
        ];
        steps.push(Step { sql: KEEP_ANSWERS, with, otherwise: || StoreError::Answered });
    }
    if !effects.ended.is_empty() {
        let days: Vec<i32> = effects.ended.iter().map(|(day, _)| *day).collect();
        let counters: Vec<&[u8]> = effects.ended.iter().map(|(_, counter)| &counter[..]).collect();
        steps.push(plain(END_RUNS, vec![Box::new(days), Box::new(counters)]));
    }
    let moved = || effects.moved.iter().filter(|(_, by)| **by != 0);
    if moved().next().is_some() {
        let days: Vec<i32> = moved().map(|((day, _), _)| *day).collect();
        let counters: Vec<&[u8]> = moved().map(|((_, counter), _)| &counter[..]).collect();
        let by: Vec<i64> = moved().map(|(_, by)| *by).collect();
        steps.push(plain(MOVE_COUNTERS, vec![Box::new(days), Box::new(counters), Box::new(by)]));
    }
    if !effects.passed.is_empty() {
        let keys: Vec<&[u8]> = effects.passed.keys().map(|key| &key[..]).collect();
        let untils: Vec<i64> = effects.passed.values().copied().collect();
        steps.push(plain(KEEP_PASSES, vec![Box::new(keys), Box::new(untils)]));
    }
    if !effects.claimed.is_empty() {
        let keys: Vec<&[u8]> = effects.claimed.iter().map(|key| &key[..]).collect();
        steps.push(plain(END_CLAIMS, vec![Box::new(keys), Box::new(node)]));
    }
    if !effects.spent.is_empty() {
        let providers: Vec<&str> = effects.spent.keys().map(|(provider, ..)| provider.as_str()).collect();
        let kinds: Vec<i16> = effects.spent.keys().map(|(_, kind, _)| *kind as i16).collect();
        let periods: Vec<i32> = effects.spent.keys().map(|(.., period)| *period).collect();
        let amounts: Vec<i64> = effects.spent.values().copied().collect();
        let with: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(node), Box::new(providers), Box::new(kinds), Box::new(periods), Box::new(amounts)];
        steps.push(plain(ADD_SPENT, with));
    }
    for (application, amount, reference) in &effects.credits {
        let mut with: Vec<Box<dyn ToSql + Sync + Send>> = vec![Box::new(*application), Box::new(*amount)];
        let sql = match reference {
            None => ADD_CREDITS,
            Some(reference) => {
                with.push(Box::new(&reference[..]));
                ADD_PAYMENT
            }
        };
        steps.push(Step { sql, with, otherwise: || StoreError::Spent });
    }
    steps
}

/// All statements leave before the first is answered. One that fails ends the transaction, so that COMMIT
/// undoes it; the first that fails says why.
async fn append(connection: &Connection, steps: &[Step<'_>]) -> Result<(), StoreError> {
    let client = &connection.client;
    let mut statements = Vec::new();
    for step in steps {
        statements.push(connection.prepared(step.sql).await.map_err(StoreError::Database)?);
    }
    let mut pipeline: Vec<Sent<'_>> = Vec::new();
    pipeline.push(Box::pin(async { client.batch_execute("BEGIN").await.map_err(StoreError::Database) }));
    for (step, statement) in steps.iter().zip(&statements) {
        pipeline.push(Box::pin(async move {
            let with = step.with.iter().map(|value| &**value as &(dyn ToSql + Sync));
            let done = client.execute_raw(statement, with).await;
            done.map(drop).map_err(|error| step.error(error))
        }));
    }
    pipeline.push(Box::pin(crate::store::postgres::commit(connection)));
    crate::store::postgres::together(pipeline.into_iter()).await
}

/// Callers, applications, credentials.
impl Shared {
    pub(super) fn put(&mut self, lease: &Lease, rows: &[Put<'_>], vault: &Vault) -> Result<(), StoreError> {
        let (number, epoch, seen) = (lease.number, lease.epoch(), lease.callers());
        let put = self.session.get_mut().change(async |connection: &Connection| {
            let fence = connection.prepared(FENCE).await.map_err(StoreError::Database)?;
            let held = connection.client.query(&fence, &[&number, &epoch, &ALIVE_MS]).await;
            held.map_err(|error| match error.code() {
                Some(&SqlState::DIVISION_BY_ZERO) => StoreError::Fenced,
                _ => StoreError::Database(error),
            })?;
            let raise = "UPDATE version SET n = n + 1 WHERE of_what = 'callers' AND n = $1";
            let raise = connection.prepared(raise).await.map_err(StoreError::Database)?;
            if connection.client.execute(&raise, &[&seen]).await.map_err(StoreError::Database)? == 0 {
                return Err(StoreError::ChangedElsewhere);
            }
            for row in rows {
                put(connection, row, vault).await.map_err(StoreError::Database)?;
            }
            Ok(())
        });
        // Whether it was made is not known: then this node reads it like one of another node's.
        put?;
        lease.set_callers(seen + 1);
        Ok(())
    }

    #[expect(clippy::type_complexity, reason = "three tables as they are read, and a number")]
    pub(super) fn directory(
        &self,
    ) -> Result<
        (Vec<Caller>, Vec<Application>, Vec<(CredentialId, ApplicationId, StoredCredential)>, Option<u32>),
        StoreError,
    > {
        let callers = self.rows("SELECT id, name, standing, operator FROM caller", &[])?;
        let callers = callers.iter().map(read_caller).collect::<Result<_, _>>()?;
        let applications = self.rows("SELECT * FROM application", &[])?;
        let applications = applications.iter().map(read_application).collect::<Result<_, _>>()?;
        let credentials = self.rows("SELECT * FROM credential WHERE kind <> 'revoked'", &[])?;
        let credentials = credentials.iter().map(read_credential).collect();
        let last = self.row("SELECT coalesce(max(id), 0)::BIGINT FROM credential", &[])?;
        Ok((callers, applications, credentials, last.map(|row| row.get::<_, i64>(0) as u32)))
    }
}

async fn put(connection: &Connection, row: &Put<'_>, vault: &Vault) -> Result<(), tokio_postgres::Error> {
    let client = &connection.client;
    match row {
        Put::Caller(caller) => {
            let put = "INSERT INTO caller VALUES ($1, $2, $3, $4)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, standing = excluded.standing,
                    operator = excluded.operator";
            let with: Params<'_> =
                &[&i64::from(caller.id.0), &caller.name, &json(&caller.standing), &caller.operator];
            client.execute(&connection.prepared(put).await?, with).await.map(drop)
        }
        Put::Application(application) => {
            let put = "INSERT INTO application VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                ON CONFLICT (id) DO UPDATE SET caller = excluded.caller, name = excluded.name,
                    actions = excluded.actions, unlimited = excluded.unlimited, price = excluded.price,
                    requests_per_second = excluded.requests_per_second, attempts = excluded.attempts,
                    encryption_required = excluded.encryption_required, reasons = excluded.reasons";
            let with: Params<'_> = &[
                &i64::from(application.id.0),
                &i64::from(application.caller.0),
                &application.name,
                &json(&application.actions),
                &application.unlimited,
                &application.price.map(|price| price.0),
                &application.requests_per_second.map(i64::from),
                &application.attempts.as_ref().map(json),
                &application.encryption_required,
                &application.reasons,
            ];
            client.execute(&connection.prepared(put).await?, with).await.map(drop)
        }
        Put::Credential(credential) => {
            let (kind, id) = Purse::credential(credential.id.0);
            let old = connection.prepared("SELECT spend_limit FROM credential WHERE id = $1").await?;
            let old: Option<i64> = client.query_opt(&old, &[&id]).await?.and_then(|row| row.get(0));
            let limit = credential.limit.map(|limit| limit.0);
            if old != limit {
                // What any node has charged counts against it, and what nodes had taken of another one is void:
                // they count anew when they see the change.
                let spend = "INSERT INTO purse SELECT $1, $2, $3
                    - coalesce((SELECT sum(charged) FROM slice WHERE kind = $1 AND id = $2), 0)::BIGINT
                    ON CONFLICT (kind, id) DO UPDATE SET free = excluded.free";
                let spend = connection.prepared(spend).await?;
                client.execute(&spend, &[&kind, &id, &limit.unwrap_or(0)]).await?;
                let void =
                    connection.prepared("UPDATE slice SET remains = 0 WHERE kind = $1 AND id = $2").await?;
                client.execute(&void, &[&kind, &id]).await?;
            }
            let row = StoredCredential::of(credential, vault);
            let put = "INSERT INTO credential
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
                ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, secret_id = excluded.secret_id,
                    secret_key = excluded.secret_key, session_token = excluded.session_token,
                    signed_payload_only = excluded.signed_payload_only, token_hash = excluded.token_hash,
                    token_last4 = excluded.token_last4, expires_at_ms = excluded.expires_at_ms,
                    addresses = excluded.addresses, previous = excluded.previous,
                    previous_until_ms = excluded.previous_until_ms, actions = excluded.actions,
                    purpose = excluded.purpose, spend_limit = excluded.spend_limit";
            let with: Params<'_> = &[
                &id,
                &i64::from(credential.application.0),
                &row.kind,
                &row.secret_id,
                &row.secret_key,
                &row.session_token,
                &row.signed_payload_only,
                &row.token_hash.as_ref().map(|hash| &hash[..]),
                &row.token_last4,
                &credential.expires_at_ms,
                &json(&credential.addresses),
                &row.previous,
                &row.previous_until_ms,
                &json(&credential.actions),
                &credential.purpose.as_ref().map(json),
                &credential.limit.map(|limit| limit.0),
            ];
            client.execute(&connection.prepared(put).await?, with).await.map(drop)
        }
        Put::Revoked(id) => {
            let put = "UPDATE credential SET kind = 'revoked', secret_id = NULL, secret_key = NULL,
                session_token = NULL, token_hash = NULL, previous = NULL WHERE id = $1";
            client.execute(&connection.prepared(put).await?, &[&i64::from(id.0)]).await.map(drop)
        }
    }
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|cause| damaged(cause.to_string()))
}

fn read_caller(row: &Row) -> Result<Caller, StoreError> {
    Ok(Caller {
        id: CallerId(row.get::<_, i64>(0) as u32),
        name: row.get(1),
        standing: from_json(row.get(2))?,
        operator: row.get(3),
    })
}

fn read_application(row: &Row) -> Result<Application, StoreError> {
    let attempts: Option<&str> = row.get(7);
    Ok(Application {
        id: ApplicationId(row.get::<_, i64>(0) as u32),
        caller: CallerId(row.get::<_, i64>(1) as u32),
        name: row.get(2),
        actions: from_json(row.get(3))?,
        unlimited: row.get(4),
        price: row.get::<_, Option<i64>>(5).map(Credits),
        requests_per_second: row.get::<_, Option<i64>>(6).map(|rate| rate as u32),
        attempts: attempts.map(from_json).transpose()?,
        encryption_required: row.get(8),
        reasons: row.get(9),
    })
}

fn read_credential(row: &Row) -> (CredentialId, ApplicationId, StoredCredential) {
    let stored = StoredCredential {
        kind: row.get(2),
        secret_id: row.get(3),
        secret_key: row.get(4),
        session_token: row.get(5),
        signed_payload_only: row.get(6),
        token_hash: row.get::<_, Option<&[u8]>>(7).and_then(|hash| hash.try_into().ok()),
        token_last4: row.get(8),
        expires_at_ms: row.get(9),
        addresses: row.get(10),
        previous: row.get(11),
        previous_until_ms: row.get(12),
        actions: row.get(13),
        purpose: row.get(14),
        limit: row.get(15),
    };
    (CredentialId(row.get::<_, i64>(0) as u32), ApplicationId(row.get::<_, i64>(1) as u32), stored)
}
