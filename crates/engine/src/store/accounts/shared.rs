//! Accounts of record in a database that several nodes share: the same rows under the same keys, changed here
//! and copied to each node's own file (`follow.rs`), where questions find them.
//!
//! Whatever changes accounts first takes the next numbers of `account_state` and keeps that row locked until it
//! commits: numbers become visible in their order, and a node that has seen one has seen all before it. Each
//! row bears the number of its last change. A deleted account stays as a row without anything in it but its
//! blind index, until every node surely knows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::import::{DONE, SWEEPING, last_of_each, version_of};
use super::order::{Moving, Plan};
use super::rewrap::{Seen, both, moved, other_backup};
use super::{
    AccountRow, Census, Change, Counting, Done, Import, Order, Person, Rewrap, Source, authentic, indexes,
};
use crate::account::{AccountState, DocumentKind};
use crate::clock::Millis;
use crate::file::hex;
use crate::store::StoreError;
use crate::store::copy::Mark;
use crate::store::ledger::SHARED_SCHEMA;
use crate::store::postgres::lease::{self, LEASES};
use crate::store::postgres::{Connection, Database, Schema, Session};
use crate::vault::{BlindIndex, Keys, Vault, Verifier, Verifiers, random};
use crate::watch::LastImport;

const SCHEMA: Schema = Schema {
    part: "accounts",
    versions: &["
    CREATE TABLE account (
        idx            BYTEA PRIMARY KEY,   -- blind index of the card number
        name_exact     BYTEA NOT NULL,      -- these as in accounts.db
        name_loose     BYTEA NOT NULL,
        id             BYTEA NOT NULL,
        mobile         BYTEA,
        mac            BYTEA NOT NULL,
        by_id          BYTEA,
        by_id_name     BYTEA,
        by_id_validity BYTEA,
        by_mobile      BYTEA,
        by_mobile_name BYTEA,
        by_mobile_id   BYTEA,
        state          SMALLINT NOT NULL,
        kind           SMALLINT NOT NULL,
        keys           INTEGER NOT NULL,
        generation     BIGINT NOT NULL,
        changed        BIGINT NOT NULL,     -- number of its last change
        gone           BOOLEAN NOT NULL     -- it was deleted: nothing is left but its place
    );
    CREATE INDEX account_changed ON account (changed);
    CREATE INDEX account_by_id ON account (by_id) WHERE by_id IS NOT NULL;
    CREATE INDEX account_by_mobile ON account (by_mobile) WHERE by_mobile IS NOT NULL;
    CREATE TABLE account_state (
        one            SMALLINT PRIMARY KEY CHECK (one = 1),
        source         TEXT NOT NULL,       -- tells these accounts from all others
        number         BIGINT NOT NULL,     -- of the last change
        erased         BIGINT NOT NULL,     -- the last change that erased a person
        forgotten      BIGINT NOT NULL,     -- deletions up to this one are not known any more
        noted          BIGINT NOT NULL,     -- the number there was at that time
        noted_at_ms    BIGINT NOT NULL,
        version        INTEGER NOT NULL,    -- of the keys; these as in accounts.db, tables rewrap and import
        target         INTEGER,
        moved_after    BYTEA NOT NULL,
        moved_rows     BIGINT NOT NULL,
        moved_digest   BYTEA NOT NULL,
        generation     BIGINT NOT NULL,
        import_of      BYTEA,
        is_replacing   BOOLEAN NOT NULL,
        stage          SMALLINT NOT NULL,
        swept          BYTEA NOT NULL,
        read           BIGINT NOT NULL,
        put            BIGINT NOT NULL,
        deleted        BIGINT NOT NULL,
        rejected       BIGINT NOT NULL,
        rejected_bytes BIGINT NOT NULL,
        removed        BIGINT NOT NULL
    );
"],
};

/// What a damaged row is said to be in.
const PLACE: &str = "table account of the database";

/// Rows of one statement, and of one number: a node takes over whole numbers.
pub(super) const CHUNK_ROWS: usize = 10_000;
/// Rows moved to other keys in one commit; each leaves one behind.
const REWRAP_ROWS: i64 = 5_000;
/// Rows read at once.
pub(super) const PAGE_ROWS: i64 = 20_000;
/// Deletions forgotten in one commit.
const FORGET_ROWS: i64 = 10_000;

/// How long a deletion is known at least: a node that was away for longer copies all accounts again.
pub(super) const DELETION_KEPT_MS: i64 = 7 * 86_400_000;

/// The one job of changing many accounts.
const JOB: &str = "accounts";

/// The accounts of a database, in the hands of one thread.
pub struct SharedAccounts {
    session: Session,
    /// Who holds the job of changing many, if this does.
    holder: Option<String>,
}

impl fmt::Debug for SharedAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.fmt(f)
    }
}

/// The row of `account_state`.
pub(super) struct State {
    pub(super) source: String,
    pub(super) number: i64,
    pub(super) forgotten: i64,
    pub(super) erased: i64,
    pub(super) version: u32,
    pub(super) target: Option<u32>,
    moved_after: Vec<u8>,
    moved_rows: i64,
    moved_digest: u128,
    generation: i64,
    import_of: Option<Vec<u8>>,
    is_replacing: bool,
    stage: u8,
    swept: Vec<u8>,
    import: Import,
}

macro_rules! state {
    () => {
        "source, number, forgotten, version, target, moved_after, moved_rows, moved_digest, generation, import_of,
         is_replacing, stage, swept, read, put, deleted, rejected, rejected_bytes, removed, erased"
    };
}

impl State {
    fn read(row: &Row) -> Result<State, StoreError> {
        let count = |at: usize| row.get::<_, i64>(at) as u64;
        let stage = row.get::<_, i16>(11) as u8;
        Ok(State {
            source: row.get(0),
            number: row.get(1),
            forgotten: row.get(2),
            erased: row.get(19),
            version: row.get::<_, i32>(3) as u32,
            target: row.get::<_, Option<i32>>(4).map(|target| target as u32),
            moved_after: row.get(5),
            moved_rows: row.get(6),
            moved_digest: u128::from_be_bytes(bytes(row, 7)?),
            generation: row.get(8),
            import_of: row.get(9),
            is_replacing: row.get(10),
            stage,
            swept: row.get(12),
            import: Import {
                rows: count(13),
                put: count(14),
                deleted: count(15),
                rejected: count(16),
                rejected_bytes: count(17),
                removed: count(18),
                is_sweeping: stage == SWEEPING,
                has_runs: false,
                is_merging: false,
            },
        })
    }

    /// Whether rows of that version may be written now.
    fn writable(&self, version: Option<u32>) -> Result<(), StoreError> {
        match (self.target, version) {
            (Some(_), _) => Err(StoreError::Rewrapping),
            (None, Some(version)) if version != self.version => Err(StoreError::OtherKeys),
            _ => Ok(()),
        }
    }
}

/// What a node takes over.
pub(super) enum Taken {
    Put(AccountRow, [u8; 16]),
    Gone(BlindIndex),
}

impl Taken {
    pub(super) fn index(&self) -> &BlindIndex {
        match self {
            Taken::Put(row, _) => &row.index,
            Taken::Gone(index) => index,
        }
    }
}

macro_rules! select {
    () => {
        "SELECT name_exact, name_loose, id, mobile, state, kind, keys, mac, idx,
         by_id, by_id_name, by_id_validity, by_mobile, by_mobile_name, by_mobile_id, changed, gone FROM account"
    };
}

/// What is left of an account that is deleted.
macro_rules! bury {
    () => {
        "UPDATE account SET gone = TRUE, changed = $1, name_exact = '', name_loose = '', id = '', mobile = NULL,
         mac = '', by_id = NULL, by_id_name = NULL, by_id_validity = NULL, by_mobile = NULL, by_mobile_name = NULL,
         by_mobile_id = NULL, state = 0, kind = 0"
    };
}

impl SharedAccounts {
    /// The accounts of a database; makes their tables if need be.
    pub fn open(database: &Arc<Database>) -> Result<SharedAccounts, StoreError> {
        let mut session = Session::new(Arc::clone(database))?;
        session.migrate(&LEASES)?;
        session.migrate(&SCHEMA)?;
        // The mark of a copy is looked at before each change.
        session.migrate(&SHARED_SCHEMA)?;
        session.transaction(async |connection| {
            let first = "INSERT INTO account_state VALUES (1, $1, 0, 0, 0, 0, 0, 1, NULL, '', 0, $2, 0, NULL, FALSE, 2, '',
                0, 0, 0, 0, 0, 0) ON CONFLICT (one) DO NOTHING";
            let source = hex(&random::<16>());
            execute(connection, first, &[&source, &&[0u8; 16][..]]).await
        })?;
        Ok(SharedAccounts { session, holder: None })
    }

    /// Another session with tables that [`SharedAccounts::open`] has seen.
    pub(crate) fn again(database: &Arc<Database>) -> Result<SharedAccounts, StoreError> {
        Ok(SharedAccounts { session: Session::new(Arc::clone(database))?, holder: None })
    }

    /// The same, to change many of them, alone: somebody else who wants the same is refused, whichever node
    /// that is on. Who was killed meanwhile is waited for, until its lease ends.
    pub fn open_alone(database: &Arc<Database>, vault: &Vault) -> Result<SharedAccounts, StoreError> {
        let mut accounts = SharedAccounts::open_to_copy(database)?;
        accounts.agree_with(&vault.keys())?;
        Ok(accounts)
    }

    /// The same for whoever changes nothing.
    pub(in crate::store) fn open_to_copy(database: &Arc<Database>) -> Result<SharedAccounts, StoreError> {
        const WAIT: Duration = Duration::from_secs(35);
        let mut accounts = SharedAccounts::open(database)?;
        let holder = hex(&random::<8>());
        accounts.holder = Some(holder.clone());
        let began = Instant::now();
        while !accounts.session.transaction(async |connection| lease::hold(connection, JOB, &holder).await)? {
            let is_alive = accounts.is_renewed(WAIT.saturating_sub(began.elapsed()))?;
            if is_alive {
                accounts.holder = None;
                return Err(StoreError::ImportingShared);
            }
        }
        Ok(accounts)
    }

    /// Goes on holding the job.
    pub(super) fn stay_alone(&mut self) -> Result<(), StoreError> {
        let holder = self.holder.clone();
        self.session.transaction(async |connection| hold(connection, holder.as_deref()).await)
    }

    /// Watches whoever holds the job, until they have it renewed, have ended, or the time is up.
    fn is_renewed(&mut self, most: Duration) -> Result<bool, StoreError> {
        let began = Instant::now();
        let mut seen = None;
        loop {
            let held = self.session.read(async |connection| {
                let find =
                    "SELECT holder || ' ' || CAST(until AS TEXT), until < now() FROM lease WHERE name = $1";
                connection.client.query_opt(find, &[&JOB]).await
            })?;
            let Some(held) = held else { return Ok(false) };
            let (holder, is_over): (String, bool) = (held.get(0), held.get(1));
            if is_over {
                return Ok(false);
            }
            if *seen.get_or_insert_with(|| holder.clone()) != holder || began.elapsed() >= most {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The account of a card; see [`super::Accounts::find`].
    pub fn find(&mut self, card: &str, keys: &Keys) -> Result<Option<AccountRow>, StoreError> {
        let [newest, older] = indexes(card, keys);
        let find = concat!(select!(), " WHERE idx IN ($1, $2) AND NOT gone");
        let found = self.session.read(async |connection| {
            let find = connection.prepared(find).await?;
            connection.client.query_opt(&find, &[&&newest.0[..], &&older.0[..]]).await
        })?;
        let Some(row) = found else { return Ok(None) };
        let (row, mac) = account(&row)?;
        genuine(row, mac, keys).map(Some)
    }

    /// Carries out orders in one commit; see [`super::Accounts::carry_out`].
    pub fn carry_out(&mut self, orders: &[Order], vault: &Vault) -> Result<Vec<Done>, StoreError> {
        let keys = vault.keys();
        self.session.change(async |connection| {
            let state = begin(connection, 1).await?;
            let (rows, digest) = (state.moved_rows, state.moved_digest);
            let moving = state.target.map(|target| Moving { target, rows, digest });
            let mut plan = Plan::new(&keys, state.version, moving);
            let places = plan.places(orders)?;
            for row in at(connection, &places).await? {
                plan.found([account(&row)?]);
            }
            let done = orders.iter().map(|order| plan.carry_out(order)).collect::<Result<Vec<_>, _>>()?;
            let gone: Vec<BlindIndex> = plan.gone().copied().collect();
            bury(connection, &gone, state.number).await?;
            let put = plan.put();
            let rows = put.iter().map(|row| (row, row.mac(&keys).unwrap_or_default()));
            write(connection, &rows.collect::<Vec<_>>(), state.generation, state.number).await?;
            if let Some(Moving { rows, digest, .. }) = plan.moving {
                let note = "UPDATE account_state SET moved_rows = $1, moved_digest = $2";
                execute(connection, note, &[&rows, &&digest.to_be_bytes()[..]]).await?;
            }
            Ok(done)
        })
    }

    /// Removes the account of that index; whether there was one.
    pub fn delete(&mut self, index: &BlindIndex, keys: &Keys) -> Result<bool, StoreError> {
        let version = Some(keys.accounts().version);
        self.session.change(async |connection| {
            let state = begin(connection, 1).await?;
            state.writable(version)?;
            Ok(bury(connection, &[*index], state.number).await? > 0)
        })
    }

    /// Removes the account of that index, and sees that no node keeps anything of it.
    pub fn erase(&mut self, index: &BlindIndex, keys: &Keys) -> Result<(), StoreError> {
        let version = Some(keys.accounts().version);
        self.session.change(async |connection| {
            let state = begin(connection, 1).await?;
            state.writable(version)?;
            bury(connection, &[*index], state.number).await?;
            execute(connection, "UPDATE account_state SET erased = number", &[]).await.map(drop)
        })
    }

    /// Begins an import, or goes on with one; see [`super::Accounts::begin_import`].
    pub fn begin_import(&mut self, source: &Source) -> Result<(Import, bool), StoreError> {
        let holder = self.holder.clone();
        self.session.transaction(async |connection| {
            hold(connection, holder.as_deref()).await?;
            let state = begin(connection, 0).await?;
            state.writable(None)?;
            let identity = source.identity.as_ref().map(|identity| &identity[..]);
            let is_same = identity.is_some()
                && state.import_of.as_deref() == identity
                && state.is_replacing == source.is_replacing;
            let is_unfinished = state.stage < DONE;
            if is_unfinished && is_same && !source.from_start {
                return Ok((state.import, false));
            }
            let generation = state.generation + i64::from(source.is_replacing);
            let begin =
                "UPDATE account_state SET generation = $1, import_of = $2, is_replacing = $3, stage = 0,
                swept = '', read = 0, put = 0, deleted = 0, rejected = 0, rejected_bytes = 0, removed = 0";
            execute(connection, begin, &[&generation, &identity, &source.is_replacing]).await?;
            Ok((Import::default(), is_unfinished && !is_same))
        })
    }

    /// Writes a batch and how far the import is with it; see [`super::Accounts::import`].
    pub fn import(&mut self, mut batch: Vec<Change>, read: Import) -> Result<Import, StoreError> {
        batch.sort_by_key(|change| *change.index());
        let version = version_of(&batch);
        let (mut put, mut gone, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for change in last_of_each(&batch) {
            match change {
                Change::Put(row, mac) => put.push((row, *mac)),
                Change::Delete(index) => gone.push(*index),
                Change::Keep(index) => kept.push(*index),
            }
        }
        let numbers = put.len().div_ceil(CHUNK_ROWS) + gone.len().div_ceil(CHUNK_ROWS);
        let holder = self.holder.clone();
        self.session.change(async |connection| {
            hold(connection, holder.as_deref()).await?;
            let state = begin(connection, numbers as i64).await?;
            state.writable(version)?;
            let mut number = state.number - numbers as i64;
            let mut is = state.import;
            for rows in put.chunks(CHUNK_ROWS) {
                number += 1;
                write(connection, rows, state.generation, number).await?;
            }
            for rows in gone.chunks(CHUNK_ROWS) {
                number += 1;
                is.deleted += bury(connection, rows, number).await?;
            }
            for rows in kept.chunks(CHUNK_ROWS) {
                let keep = "UPDATE account SET generation = $2 WHERE idx = ANY($1) AND NOT gone";
                execute(connection, keep, &[&of(rows), &state.generation]).await?;
            }
            is.put += read.put;
            is.rows += read.rows;
            is.rejected += read.rejected;
            is.rejected_bytes = read.rejected_bytes;
            let [rows, put, deleted, rejected, bytes] =
                [is.rows, is.put, is.deleted, is.rejected, is.rejected_bytes].map(|count| count as i64);
            let note = "UPDATE account_state SET read = $1, put = $2, deleted = $3, rejected = $4, rejected_bytes = $5";
            execute(connection, note, &[&rows, &put, &deleted, &rejected, &bytes]).await?;
            Ok(is)
        })
    }

    /// Removes a part of what the file does not have; see [`super::Accounts::sweep`].
    pub fn sweep(&mut self) -> Result<(Import, bool), StoreError> {
        let holder = self.holder.clone();
        self.session.change(async |connection| {
            hold(connection, holder.as_deref()).await?;
            let state = begin(connection, 1).await?;
            state.writable(None)?;
            let mut is = state.import;
            let mut until = None;
            if state.is_replacing {
                let find =
                    "SELECT idx FROM account WHERE idx > $1 AND NOT gone ORDER BY idx LIMIT 1 OFFSET $2";
                let last = query(connection, find, &[&state.swept, &(CHUNK_ROWS as i64 - 1)]).await?;
                until = last.first().map(|row| row.get::<_, Vec<u8>>(0));
                // The rest is fewer than a chunk; no index is longer than 16 bytes.
                let end = until.clone().unwrap_or_else(|| vec![0xff; 17]);
                let absent =
                    concat!(bury!(), " WHERE idx > $2 AND idx <= $3 AND generation < $4 AND NOT gone");
                let values: [&(dyn ToSql + Sync); 4] = [&state.number, &state.swept, &end, &state.generation];
                is.removed += execute(connection, absent, &values).await?;
            }
            is.is_sweeping = until.is_some();
            let stage = i16::from(if is.is_sweeping { SWEEPING } else { DONE });
            let note = "UPDATE account_state SET stage = $1, swept = $2, removed = $3";
            execute(connection, note, &[&stage, &until.unwrap_or_default(), &(is.removed as i64)]).await?;
            Ok((is, !is.is_sweeping))
        })
    }

    /// The newest import; `None` when there was none.
    pub fn last_import(&mut self) -> Result<Option<LastImport>, StoreError> {
        let state = self.state()?;
        let State { import: is, is_replacing, .. } = state;
        let was_begun = state.import_of.is_some() || is.rows > 0 || is.put > 0;
        Ok(was_begun.then_some(LastImport { is, is_done: state.stage == DONE, is_replacing }))
    }

    /// Sees that these keys are those of the accounts; see [`super::Accounts::agree_with`].
    pub fn agree_with(&mut self, keys: &Keys) -> Result<(), StoreError> {
        let newest = keys.accounts().version;
        let agreed = self.session.transaction(async |connection| {
            let state = begin(connection, 0).await?;
            if state.target == Some(newest) || keys.account_version(state.version).is_some() {
                return Ok(Ok(()));
            }
            if !query(connection, "SELECT 1 FROM account WHERE NOT gone LIMIT 1", &[]).await?.is_empty() {
                return Ok(Err(other_backup(PLACE, state.version, newest)));
            }
            let take = "UPDATE account_state SET version = $1, target = NULL";
            execute(connection, take, &[&(newest as i32)]).await.map(|_| Ok(()))
        });
        agreed?
    }

    /// Begins to bring all rows under the newest keys; see [`super::Accounts::begin_rewrap`].
    pub fn begin_rewrap(&mut self, keys: &Keys) -> Result<(), StoreError> {
        let newest = keys.accounts().version;
        let holder = self.holder.clone();
        self.session.transaction(async |connection| {
            hold(connection, holder.as_deref()).await?;
            let state = begin(connection, 0).await?;
            if state.version == newest || state.target == Some(newest) {
                return Ok(());
            }
            // The accounts change their order, so an interrupted import begins anew to remove what is absent.
            let begin =
                "UPDATE account_state SET target = $1, moved_after = '', moved_rows = 0, moved_digest = $2,
                swept = ''";
            execute(connection, begin, &[&(newest as i32), &&[0u8; 16][..]]).await.map(drop)
        })
    }

    /// Moves some rows, all of them or none; see [`super::Accounts::rewrap`].
    pub fn rewrap(&mut self, keys: &Keys) -> Result<Rewrap, StoreError> {
        let holder = self.holder.clone();
        self.session.change(async |connection| {
            hold(connection, holder.as_deref()).await?;
            let state = begin(connection, 1).await?;
            let Some(target) = state.target else { return Ok(Rewrap { rows: 0, is_moved: true }) };
            let (old, new) = both(keys, state.version, target)?;
            let find = concat!(select!(), " WHERE idx > $1 AND keys = $2 AND NOT gone ORDER BY idx LIMIT $3");
            let version = state.version as i32;
            let batch = query(connection, find, &[&state.moved_after, &version, &REWRAP_ROWS]).await?;
            let batch = batch.iter().map(account).collect::<Result<Vec<_>, _>>()?;
            let after = batch.last().map_or(state.moved_after, |(row, _)| row.index.0.to_vec());
            let is_moved = (batch.len() as i64) < REWRAP_ROWS;
            let mut digest = state.moved_digest;
            let moved = moved(batch, keys, [old, new], &mut digest)?;
            let gone: Vec<BlindIndex> = moved.iter().map(|(from, _)| *from).collect();
            bury(connection, &gone, state.number).await?;
            let put = moved.iter().map(|(_, row)| (row, row.mac(keys).unwrap_or_default()));
            write(connection, &put.collect::<Vec<_>>(), state.generation, state.number).await?;
            let rows = state.moved_rows + moved.len() as i64;
            let note = "UPDATE account_state SET moved_after = $1, moved_rows = $2, moved_digest = $3";
            execute(connection, note, &[&after, &rows, &&digest.to_be_bytes()[..]]).await?;
            Ok(Rewrap { rows: rows as u64, is_moved })
        })
    }

    /// Reads every row under the new keys, then lets the old ones go; see [`super::Accounts::finish_rewrap`].
    pub fn finish_rewrap(&mut self, keys: &Keys) -> Result<u64, StoreError> {
        let state = self.state()?;
        let Some(target) = state.target else { return self.count() };
        let (_, new) = both(keys, state.version, target)?;
        // One look at all rows and at what they must add up to; orders go on meanwhile.
        let rows = self.session.look(async |connection| {
            let state = read_state(connection).await?;
            let (mut seen, mut last) = (Seen::new(keys, new), Vec::new());
            loop {
                let page = page(connection, &last).await?;
                for row in &page {
                    let (row, mac) = account(row)?;
                    last = seen.see(row, mac)?.0.to_vec();
                }
                if (page.len() as i64) < PAGE_ROWS {
                    break;
                }
            }
            seen.agree(state.moved_rows as u64, state.moved_digest)
        })?;
        let holder = self.holder.clone();
        self.session.change(async |connection| {
            hold(connection, holder.as_deref()).await?;
            execute(connection, "UPDATE account_state SET version = target, target = NULL", &[]).await
        })?;
        Ok(rows)
    }

    /// Number of accounts.
    pub fn count(&mut self) -> Result<u64, StoreError> {
        let count = "SELECT count(*) FROM account WHERE NOT gone";
        let row = self.session.read(async |connection| connection.client.query_one(count, &[]).await)?;
        Ok(row.get::<_, i64>(0) as u64)
    }

    /// Reads every account; see [`super::Accounts::census`].
    pub fn census(&mut self, vault: &Vault) -> Result<Census, StoreError> {
        let keys = vault.keys();
        let (mut counting, mut last) = (Counting::default(), Vec::new());
        loop {
            let page = self.page(&last)?;
            let is_last = (page.len() as i64) < PAGE_ROWS;
            for (row, mac) in page {
                last = row.index.0.to_vec();
                counting.count(row, mac, |row, mac| genuine(row, mac, &keys))?;
            }
            if is_last {
                return Ok(counting.census(None));
            }
        }
    }

    /// Of the first `most` accounts, how many are not in the element index and could be; see
    /// [`super::Accounts::missing_in_element_index`].
    pub fn missing_in_element_index(&mut self, most: u32) -> Result<u64, StoreError> {
        let find = "SELECT mobile IS NOT NULL AND by_mobile IS NULL, kind, by_id IS NULL FROM account
            WHERE NOT gone ORDER BY idx LIMIT $1";
        let rows =
            self.session.read(async |connection| connection.client.query(find, &[&i64::from(most)]).await)?;
        let is_missing = |row: &&Row| {
            let kind = DocumentKind::from_code(row.get::<_, i16>(1) as u8);
            row.get(0) || row.get(2) && kind.is_some_and(DocumentKind::counts_as_resident_id)
        };
        Ok(rows.iter().filter(is_missing).count() as u64)
    }

    /// Forgets deletions that every node knows by now; from time to time is enough.
    pub fn forget_deletions(&mut self, now: Millis) -> Result<(), StoreError> {
        let is_due = self.session.transaction(async |connection| {
            // Whoever is first does it for all nodes.
            let note = "UPDATE account_state SET forgotten = noted, noted = number, noted_at_ms = $1
                WHERE noted_at_ms <= $2";
            execute(connection, note, &[&now, &(now - DELETION_KEPT_MS)]).await
        })? > 0;
        let mut is_due = is_due;
        while is_due {
            is_due = self.session.transaction(async |connection| {
                let forget = "DELETE FROM account WHERE idx IN (SELECT a.idx FROM account a, account_state s
                    WHERE a.gone AND a.changed <= s.forgotten LIMIT $1)";
                execute(connection, forget, &[&FORGET_ROWS]).await
            })? == FORGET_ROWS as u64;
        }
        Ok(())
    }

    pub(super) fn state(&mut self) -> Result<State, StoreError> {
        let row = self.session.read(async |connection| {
            let find = connection.prepared(concat!("SELECT ", state!(), " FROM account_state")).await?;
            connection.client.query_one(&find, &[]).await
        })?;
        State::read(&row)
    }

    /// Accounts after an index, in their order.
    pub(super) fn page(&mut self, after: &[u8]) -> Result<Vec<(AccountRow, [u8; 16])>, StoreError> {
        let rows = self.session.read(async |connection| {
            let find = connection.prepared(PAGE).await?;
            connection.client.query(&find, &[&after, &PAGE_ROWS]).await
        })?;
        rows.iter().map(account).collect()
    }

    pub(super) fn last_index(&mut self) -> Result<Vec<u8>, StoreError> {
        let find = "SELECT idx FROM account WHERE NOT gone ORDER BY idx DESC LIMIT 1";
        let row = self.session.read(async |connection| connection.client.query_opt(find, &[]).await)?;
        Ok(row.map_or(Vec::new(), |row| row.get(0)))
    }

    /// What was changed after a number, up to another, in the order of the changes; whole numbers only. Gives
    /// the number that is reached with it.
    pub(super) fn changed(&mut self, after: i64, until: i64) -> Result<(Vec<Taken>, i64), StoreError> {
        const MOST: i64 = 3 * CHUNK_ROWS as i64;
        let find = concat!(select!(), " WHERE changed > $1 AND changed <= $2 ORDER BY changed LIMIT $3");
        let read = async |connection: &Connection, most: i64| {
            let find = connection.prepared(find).await?;
            connection.client.query(&find, &[&after, &until, &most]).await
        };
        let mut rows = self.session.read(async |connection| read(connection, MOST).await)?;
        let number = |row: &Row| row.get::<_, i64>(15);
        let is_cut = rows.len() as i64 == MOST;
        let mut reached = if is_cut { rows.last().map_or(until, |row| number(row) - 1) } else { until };
        if reached == after {
            // One number that has more rows than are read at once; only many orders together come to that.
            rows = self.session.read(async |connection| read(connection, i64::MAX).await)?;
            reached = until;
        }
        let taken = rows.iter().take_while(|row| number(row) <= reached).map(|row| {
            if row.get(16) {
                return Ok(Taken::Gone(BlindIndex(bytes(row, 8)?)));
            }
            account(row).map(|(row, mac)| Taken::Put(row, mac))
        });
        Ok((taken.collect::<Result<_, StoreError>>()?, reached))
    }
}

impl Drop for SharedAccounts {
    fn drop(&mut self) {
        // Who does not get to it is free of the job when the lease ends.
        if let Some(holder) = self.holder.take() {
            let _ = self.session.attempt(async |connection| lease::give_back(connection, JOB, &holder).await);
        }
    }
}

const PAGE: &str = concat!(select!(), " WHERE idx > $1 AND NOT gone ORDER BY idx LIMIT $2");

async fn page(connection: &Connection, after: &[u8]) -> Result<Vec<Row>, StoreError> {
    query(connection, PAGE, &[&after, &PAGE_ROWS]).await
}

async fn read_state(connection: &Connection) -> Result<State, StoreError> {
    let rows = query(connection, concat!("SELECT ", state!(), " FROM account_state"), &[]).await?;
    State::read(rows.first().ok_or(StoreError::Stopped)?)
}

/// Takes so many numbers; from here to the commit nobody else changes accounts, nor marks them as copied elsewhere.
async fn begin(connection: &Connection, numbers: i64) -> Result<State, StoreError> {
    let begin = concat!("UPDATE account_state SET number = number + $1 RETURNING ", state!());
    let rows = query(connection, begin, &[&numbers]).await?;
    Mark::seen(connection).await?.may_change()?;
    State::read(rows.first().ok_or(StoreError::Stopped)?)
}

async fn hold(connection: &Connection, holder: Option<&str>) -> Result<(), StoreError> {
    match holder {
        Some(holder) if !lease::hold(connection, JOB, holder).await? => Err(StoreError::ImportingShared),
        _ => Ok(()),
    }
}

async fn at(connection: &Connection, places: &BTreeSet<BlindIndex>) -> Result<Vec<Row>, StoreError> {
    let places: Vec<&[u8]> = places.iter().map(|index| &index.0[..]).collect();
    query(connection, concat!(select!(), " WHERE idx = ANY($1) AND NOT gone"), &[&places]).await
}

async fn bury(connection: &Connection, gone: &[BlindIndex], number: i64) -> Result<u64, StoreError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let bury = concat!(bury!(), " WHERE idx = ANY($2) AND NOT gone");
    execute(connection, bury, &[&number, &of(gone)]).await
}

fn of(indexes: &[BlindIndex]) -> Vec<&[u8]> {
    indexes.iter().map(|index| &index.0[..]).collect()
}

/// Adds rows or replaces them, in one statement.
async fn write(
    connection: &Connection,
    rows: &[(&AccountRow, [u8; 16])],
    generation: i64,
    number: i64,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut columns: [Vec<Option<&[u8]>>; 6] = Default::default();
    let mut person: [Vec<Option<Vec<u8>>>; 6] = Default::default();
    let (mut states, mut kinds, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (row, mac) in rows {
        let v = &row.verifiers;
        let mobile = row.has_mobile.then_some(&v.mobile.0[..]);
        let values = [&row.index.0[..], &v.name_exact.0, &v.name_loose.0, &v.id.0].map(Some);
        let [idx, exact, loose, id] = values;
        for (column, value) in columns.iter_mut().zip([idx, exact, loose, id, mobile, Some(&mac[..])]) {
            column.push(value);
        }
        for (column, value) in person.iter_mut().zip(row.person.columns()) {
            column.push(value.map(|value| value.to_vec()));
        }
        states.push(i16::from(row.state.code()));
        kinds.push(i16::from(row.kind.code()));
        keys.push(row.keys as i32);
    }
    let [idx, exact, loose, id, mobile, mac] = &columns;
    let [by_id, by_id_name, by_id_validity, by_mobile, by_mobile_name, by_mobile_id] = &person;
    let put = "INSERT INTO account
        SELECT u.*, $16, $17, FALSE
          FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BYTEA[], $4::BYTEA[], $5::BYTEA[], $6::BYTEA[], $7::BYTEA[],
            $8::BYTEA[], $9::BYTEA[], $10::BYTEA[], $11::BYTEA[], $12::BYTEA[], $13::SMALLINT[], $14::SMALLINT[],
            $15::INTEGER[]) AS u
        ON CONFLICT (idx) DO UPDATE SET name_exact = excluded.name_exact, name_loose = excluded.name_loose,
          id = excluded.id, mobile = excluded.mobile, mac = excluded.mac, by_id = excluded.by_id,
          by_id_name = excluded.by_id_name, by_id_validity = excluded.by_id_validity,
          by_mobile = excluded.by_mobile, by_mobile_name = excluded.by_mobile_name,
          by_mobile_id = excluded.by_mobile_id, state = excluded.state, kind = excluded.kind,
          keys = excluded.keys, generation = excluded.generation, changed = excluded.changed, gone = FALSE";
    let values: [&(dyn ToSql + Sync); 17] = [
        idx,
        exact,
        loose,
        id,
        mobile,
        mac,
        by_id,
        by_id_name,
        by_id_validity,
        by_mobile,
        by_mobile_name,
        by_mobile_id,
        &states,
        &kinds,
        &keys,
        &generation,
        &number,
    ];
    execute(connection, put, &values).await.map(drop)
}

async fn execute(
    connection: &Connection,
    sql: &'static str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let run = async {
        let run = connection.prepared(sql).await?;
        connection.client.execute(&run, values).await
    };
    run.await.map_err(StoreError::Database)
}

async fn query(
    connection: &Connection,
    sql: &'static str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let run = async {
        let run = connection.prepared(sql).await?;
        connection.client.query(&run, values).await
    };
    run.await.map_err(StoreError::Database)
}

/// A column of 16 bytes.
fn bytes(row: &Row, at: usize) -> Result<[u8; 16], StoreError> {
    let value: &[u8] = row.try_get(at).map_err(StoreError::Database)?;
    value.try_into().map_err(|_| damaged())
}

fn maybe(row: &Row, at: usize) -> Result<Option<[u8; 16]>, StoreError> {
    let value: Option<&[u8]> = row.try_get(at).map_err(|error: Error| StoreError::Database(error))?;
    value.map(|value| value.try_into().map_err(|_| damaged())).transpose()
}

pub(super) fn damaged() -> StoreError {
    StoreError::Damaged { file: PLACE, what: "an account was changed outside card4e".into() }
}

pub(super) fn genuine(row: AccountRow, mac: [u8; 16], keys: &Keys) -> Result<AccountRow, StoreError> {
    authentic(row, mac, keys).map_err(|error| match error {
        StoreError::Damaged { .. } => damaged(),
        error => error,
    })
}

pub(super) fn account(row: &Row) -> Result<(AccountRow, [u8; 16]), StoreError> {
    let mobile = maybe(row, 3)?;
    let mut person = [None; 6];
    for (at, column) in person.iter_mut().enumerate() {
        *column = maybe(row, 9 + at)?;
    }
    let code = |at: usize| row.get::<_, i16>(at) as u8;
    let account = AccountRow {
        index: BlindIndex(bytes(row, 8)?),
        verifiers: Verifiers {
            name_exact: Verifier(bytes(row, 0)?),
            name_loose: Verifier(bytes(row, 1)?),
            id: Verifier(bytes(row, 2)?),
            mobile: Verifier(mobile.unwrap_or_default()),
        },
        has_mobile: mobile.is_some(),
        state: AccountState::from_code(code(4)).unwrap_or(AccountState::Abnormal),
        kind: DocumentKind::from_code(code(5)).unwrap_or(DocumentKind::Other),
        keys: row.get::<_, i32>(6) as u32,
        person: Person::of(person),
        is_short: false,
    };
    Ok((account, bytes(row, 7)?))
}
