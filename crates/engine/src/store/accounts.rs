//! Accounts of record: found by blind index, compared by verifiers, no plaintext element.
//!
//! Any number of readers and one writer at a time; nobody waits for long, because an import writes
//! in many short transactions (`accounts/import.rs`).

/// What [`read`] reads.
macro_rules! select {
    () => {
        "SELECT name_exact, name_loose, id, mobile, state, kind, keys, mac, idx,
         by_id, by_id_name, by_id_validity, by_mobile, by_mobile_name, by_mobile_id FROM account"
    };
}

mod direct;
mod follow;
mod import;
mod order;
mod record;
mod rewrap;
mod runs;
mod shared;
mod table;

pub(crate) use direct::{Looked, Records, Wanted};
pub(super) use direct::{look_up, sorted};
pub use follow::{Followed, Follower, Freshness};
pub use record::AccountsOfRecord;
pub use rewrap::Rewrap;
pub use shared::SharedAccounts;
pub use table::{Made, TableMaker, TablePlace};

pub use import::{Change, Import, Source};
pub use order::{Done, Order, Spot};

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::table::{Changes, Found, row_of};
use super::StoreError;
use super::sqlite::{Durability, Schema, overwrite_log};
use crate::account::{AccountState, DocumentKind};
use crate::vault::{AccountKeys, BlindIndex, ById, ByMobile, Keys, Vault, Verifier, Verifiers, random};

const SCHEMA: Schema = Schema {
    file: "accounts.db",
    durability: Durability::Full,
    versions: &[
        "
        CREATE TABLE account (
            idx        BLOB PRIMARY KEY,  -- blind index of the card number
            name_exact BLOB NOT NULL,     -- verifiers, bound to the card, each wrapped by its own key
            name_loose BLOB NOT NULL,
            id         BLOB NOT NULL,
            mobile     BLOB,              -- NULL: the bank has no mobile on file
            state      INTEGER NOT NULL,
            kind       INTEGER NOT NULL,  -- document the account was opened with
            mac        BLOB NOT NULL      -- over all of the above
        ) WITHOUT ROWID;
    ",
        "
        -- An import that makes its file the whole truth begins a generation; at its end the accounts
        -- of earlier ones go.
        ALTER TABLE account ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE import (
            one            INTEGER PRIMARY KEY CHECK (one = 1),  -- only the last import is remembered
            generation     INTEGER NOT NULL,   -- of every account written from now on
            source         BLOB,               -- which file; NULL: cannot be known again
            is_replacing   INTEGER NOT NULL,   -- its file is the whole truth
            stage          INTEGER NOT NULL,   -- 0: reads rows, 1: removes the absent, 2: done
            swept          BLOB,               -- the absent are removed up to this index
            rows           INTEGER NOT NULL,   -- read, and committed with what they did:
            put            INTEGER NOT NULL,
            deleted        INTEGER NOT NULL,
            rejected       INTEGER NOT NULL,
            rejected_bytes INTEGER NOT NULL,   -- length of the file of rejected rows
            removed        INTEGER NOT NULL
        );
        INSERT INTO import VALUES (1, 0, NULL, 0, 2, NULL, 0, 0, 0, 0, 0, 0);
    ",
        "
        ALTER TABLE account ADD COLUMN keys INTEGER NOT NULL DEFAULT 1;  -- version of what wraps the row
        CREATE TABLE rewrap (
            one     INTEGER PRIMARY KEY CHECK (one = 1),
            version INTEGER NOT NULL,     -- of all rows, when none are being wrapped again
            target  INTEGER,              -- they are being wrapped again under this one
            after   BLOB NOT NULL,        -- those up to this old index are done
            rows    INTEGER NOT NULL,     -- how many that are
            digest  BLOB NOT NULL         -- of what the inner key made of them
        );
        INSERT INTO rewrap VALUES (1, 1, NULL, x'', 0, zeroblob(16));
    ",
        "
        -- The element index, where the operator wants one: the account found by its holder's identity
        -- number, and by its mobile. All wrapped by one key, and NULL where there is nothing.
        ALTER TABLE account ADD COLUMN by_id BLOB;           -- blind index of the identity number
        ALTER TABLE account ADD COLUMN by_id_name BLOB;      -- verifiers, bound to that number
        ALTER TABLE account ADD COLUMN by_id_validity BLOB;
        ALTER TABLE account ADD COLUMN by_mobile BLOB;       -- blind index of the mobile
        ALTER TABLE account ADD COLUMN by_mobile_name BLOB;  -- verifiers, bound to that number
        ALTER TABLE account ADD COLUMN by_mobile_id BLOB;
        CREATE INDEX account_by_id ON account (by_id) WHERE by_id IS NOT NULL;
        CREATE INDEX account_by_mobile ON account (by_mobile) WHERE by_mobile IS NOT NULL;
    ",
        "
        -- How the sealed table made of this file stands to it; see table.rs.
        CREATE TABLE sealed (
            one   INTEGER PRIMARY KEY CHECK (one = 1),
            id    BLOB NOT NULL,     -- tells this file from all others
            epoch INTEGER NOT NULL   -- many accounts were changed at once so many times
        );
        INSERT INTO sealed VALUES (1, randomblob(16), 0);
        CREATE TABLE changed (       -- single accounts since that
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            idx    BLOB NOT NULL
        );
    ",
        "
        -- There is a row here when this file is a node's copy of the accounts of a database; see follow.rs.
        CREATE TABLE followed (
            one    INTEGER PRIMARY KEY CHECK (one = 1),
            source TEXT NOT NULL,      -- tells the accounts of that database from all others
            number INTEGER NOT NULL,   -- changes up to this one are here
            copied BLOB,               -- accounts up to this index were copied; NULL: all were
            erased INTEGER NOT NULL    -- nothing is left here of whoever was erased up to this change
        );
    ",
        "
        -- Rows of an import that were read and are in `accounts.runs`, to be written in order; see runs.rs.
        CREATE TABLE run (
            number INTEGER PRIMARY KEY,
            ends   INTEGER NOT NULL,   -- the byte behind its last row
            keys   INTEGER NOT NULL    -- version of the keys over its rows and indexes
        );
        CREATE TABLE left_alone (      -- accounts that were changed one by one since: they stay as they are
            idx BLOB PRIMARY KEY
        ) WITHOUT ROWID;
        ALTER TABLE import ADD COLUMN merged BLOB;  -- they are written up to this index
    ",
    ],
};

/// An account as it is stored.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// Where it is found.
    pub index: BlindIndex,
    /// What the holder's elements must match; `mobile` counts only with `has_mobile`.
    pub verifiers: Verifiers,
    /// Whether the bank has a mobile on file.
    pub has_mobile: bool,
    /// The card's state.
    pub state: AccountState,
    /// The document it was opened with.
    pub kind: DocumentKind,
    /// Version of the keys that wrap it.
    pub keys: u32,
    /// How it is found without its card; empty where the operator wants no element index.
    pub person: Person,
    /// It is from the sealed table: only the first 8 bytes of its verifiers are known, and nothing of
    /// `person`.
    pub is_short: bool,
}

/// An account's place in the element index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Person {
    /// By identity number; `None` for other documents.
    pub by_id: Option<ById>,
    /// By mobile; `None` without one.
    pub by_mobile: Option<ByMobile>,
}

impl Person {
    /// The same under other keys.
    fn rewrapped(&self, old: &AccountKeys, new: &AccountKeys) -> Person {
        let wrap = |column: Option<[u8; 16]>| column.map(|it| new.person_wrapped(old.person_unwrapped(it)));
        Person::of(self.columns().map(wrap))
    }

    /// Which columns there are, a bit each.
    fn there(&self) -> u8 {
        self.columns().iter().fold(0, |there, column| there << 1 | u8::from(column.is_some()))
    }

    /// The columns, in their order.
    fn columns(&self) -> [Option<[u8; 16]>; 6] {
        let (id, mobile) = (self.by_id, self.by_mobile);
        [
            id.map(|id| id.index.0),
            id.map(|id| id.name.0),
            id.and_then(|id| id.validity).map(|validity| validity.0),
            mobile.map(|mobile| mobile.index.0),
            mobile.map(|mobile| mobile.name.0),
            mobile.map(|mobile| mobile.id.0),
        ]
    }

    fn of(columns: [Option<[u8; 16]>; 6]) -> Person {
        let [id, id_name, validity, mobile, mobile_name, mobile_id] = columns;
        let verifier = |bytes: Option<[u8; 16]>| bytes.map(Verifier);
        Person {
            by_id: id.zip(id_name).map(|(index, name)| ById {
                index: BlindIndex(index),
                name: Verifier(name),
                validity: verifier(validity),
            }),
            by_mobile: mobile.zip(mobile_name).zip(mobile_id).map(|((index, name), id)| ByMobile {
                index: BlindIndex(index),
                name: Verifier(name),
                id: Verifier(id),
            }),
        }
    }
}

/// Accounts of one person, or with one mobile, that are looked at.
const OF_ONE_PERSON_MAX: i64 = 256;

impl AccountRow {
    /// Authenticates what the verifiers do not: state, kind, and the row they stand in. Nothing if
    /// there are no keys of its version.
    fn mac(&self, keys: &Keys) -> Option<[u8; 16]> {
        Some(keys.account_version(self.keys)?.row_mac(&[&self.authenticated()]))
    }

    /// [`AccountRow::mac`] of many rows, in their order.
    fn macs<'a>(rows: impl Iterator<Item = &'a AccountRow> + Clone, keys: &Keys) -> Vec<Option<[u8; 16]>> {
        let version = rows.clone().next().map(|row| row.keys);
        let under = version.and_then(|version| keys.account_version(version));
        match under.filter(|under| rows.clone().all(|row| row.keys == under.version)) {
            Some(under) => {
                under.row_macs(rows.map(AccountRow::authenticated)).into_iter().map(Some).collect()
            }
            None => rows.map(|row| row.mac(keys)).collect(),
        }
    }

    /// What is authenticated.
    fn authenticated(&self) -> [u8; AUTHENTICATED_BYTES] {
        let Verifiers { name_exact, name_loose, id, mobile } = &self.verifiers;
        // What is not stored is not covered: without it, the row reads as nothing.
        let mobile = if self.has_mobile { mobile.0 } else { [0; 16] };
        let plain = [u8::from(self.has_mobile), self.state.code(), self.kind.code()];
        // Which of these there are is told by the first byte: without it they could change places.
        let (person, there) = (self.person.columns().map(Option::unwrap_or_default), [self.person.there()]);
        let parts: [&[u8]; 8] = [
            &self.index.0,
            &plain,
            &name_exact.0,
            &name_loose.0,
            &id.0,
            &mobile,
            &there,
            person.as_flattened(),
        ];
        let mut all = [0; AUTHENTICATED_BYTES];
        let mut rest = &mut all[..];
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        all
    }
}

const AUTHENTICATED_BYTES: usize = 16 + 3 + 4 * 16 + 1 + 6 * 16;

/// How old what a reader sees may be.
const LOOK_AT_MOST: Duration = Duration::from_millis(20);

/// The accounts file, for one writer or one reader.
#[derive(Debug)]
pub struct Accounts {
    db: Connection,
    path: PathBuf,
    /// Since when a reader looks at one state of the file.
    looking: Cell<Option<Instant>>,
    /// The sealed table, where there is one to look into.
    table: Option<RefCell<Changes>>,
    /// How fresh this copy of a database's accounts is; nothing where the file is of record itself.
    fresh: Option<Arc<Freshness>>,
    _lock: Option<File>,
}

/// What all accounts come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Number of accounts.
    pub accounts: u64,
    /// How many are in each state, in the order of [`AccountState::ALL`].
    pub states: [u64; AccountState::ALL.len()],
    /// How many have no mobile on file.
    pub without_mobile: u64,
    /// How many are found by identity number or mobile too.
    pub in_element_index: u64,
    /// A digest of all accounts in their order. The same accounts under the same keys have the same.
    pub digest: [u8; 32],
    /// Bytes of the file; `None` for accounts in a database.
    pub file_bytes: Option<u64>,
}

/// A census under way.
#[derive(Default)]
struct Counting {
    accounts: u64,
    states: [u64; AccountState::ALL.len()],
    without_mobile: u64,
    in_element_index: u64,
    digest: Sha256,
}

impl Counting {
    /// Counts one more account, in their order.
    fn count(
        &mut self,
        row: AccountRow,
        mac: [u8; 16],
        authentic: impl FnOnce(AccountRow, [u8; 16]) -> Result<AccountRow, StoreError>,
    ) -> Result<(), StoreError> {
        self.digest.update(row.index.0);
        // It covers everything else.
        self.digest.update(mac);
        let row = authentic(row, mac)?;
        self.accounts += 1;
        self.states[row.state.code() as usize] += 1;
        self.without_mobile += u64::from(!row.has_mobile);
        let Person { by_id, by_mobile } = row.person;
        self.in_element_index += u64::from(by_id.is_some() || by_mobile.is_some());
        Ok(())
    }

    fn census(self, file_bytes: Option<u64>) -> Census {
        let Counting { accounts, states, without_mobile, in_element_index, digest } = self;
        Census {
            accounts,
            states,
            without_mobile,
            in_element_index,
            digest: digest.finalize().into(),
            file_bytes,
        }
    }
}

impl Accounts {
    /// Opens the file to change accounts.
    pub fn open(path: &Path) -> Result<Accounts, StoreError> {
        Ok(Accounts {
            db: SCHEMA.open(path)?,
            path: path.to_owned(),
            looking: Cell::default(),
            table: None,
            fresh: None,
            _lock: None,
        })
    }

    /// Opens the file of a data folder to change many accounts, alone: somebody else who wants the
    /// same is refused, a server may go on answering from it.
    pub fn open_alone(folder: &Path, vault: &Vault) -> Result<Accounts, StoreError> {
        let path = folder.join("accounts.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|cause| StoreError::Folder { path: path.clone(), cause })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StoreError::Importing(folder.to_owned())),
            Err(std::fs::TryLockError::Error(cause)) => return Err(StoreError::Folder { path, cause }),
        }
        let accounts = Accounts { _lock: Some(lock), ..Accounts::open(&folder.join(SCHEMA.file))? };
        accounts.agree_with(&vault.keys())?;
        Ok(accounts)
    }

    /// Opens the file to look accounts up.
    pub fn open_reader(path: &Path) -> Result<Accounts, StoreError> {
        Ok(Accounts {
            db: SCHEMA.open_reader(path)?,
            path: path.to_owned(),
            looking: Cell::default(),
            table: None,
            fresh: None,
            _lock: None,
        })
    }

    /// The same, with the sealed table beside it if there is one.
    pub fn open_reader_of(path: &Path, place: Arc<TablePlace>) -> Result<Accounts, StoreError> {
        Ok(Accounts { table: Some(RefCell::new(Changes::new(place))), ..Accounts::open_reader(path)? })
    }

    /// The same for a copy of a database's accounts, which is looked into only while it is fresh.
    pub fn while_fresh(self, fresh: Arc<Freshness>) -> Accounts {
        Accounts { fresh: Some(fresh), ..self }
    }

    /// Keeps what is found next at one state of the file, because locking the file costs more than
    /// finding a row in it. A look that is older than [`LOOK_AT_MOST`] is renewed.
    ///
    /// # Errors
    /// Also when this is a copy that is not fresh.
    pub fn look_with(&self, keys: &Keys) -> Result<(), StoreError> {
        self.fresh.as_ref().map_or(Ok(()), |fresh| fresh.check())?;
        if self.looking.get().is_some_and(|since| since.elapsed() < LOOK_AT_MOST) {
            return Ok(());
        }
        self.look_away();
        let begun = self.db.prepare_cached("BEGIN").and_then(|mut begin| begin.execute([]));
        begun.map_err(|cause| SCHEMA.error(cause))?;
        if let Some(table) = &self.table {
            table.borrow_mut().look(&self.db, keys).map_err(|cause| SCHEMA.error(cause))?;
        }
        self.looking.set(Some(Instant::now()));
        Ok(())
    }

    /// Ends a look. One that is kept would keep the log of an import from being used again.
    pub fn look_away(&self) {
        if self.looking.take().is_some() {
            if let Some(table) = &self.table {
                table.borrow_mut().look_away();
            }
            // It only reads: nothing can be lost, and the next look says what is wrong with the file.
            let _ = self.db.prepare_cached("COMMIT").and_then(|mut end| end.execute([]));
        }
    }

    /// Copies the file as it is now, while others read and write it. `progress` is told how many bytes
    /// are copied and how many there are. The copy is one file, without a log beside it.
    ///
    /// While it runs, the log of the original can only grow.
    pub fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        SCHEMA.copy(from, to, progress)
    }

    /// Whether SQLite finds its own structures whole; not what they hold, which [`Accounts::census`] does.
    pub fn check_structure(path: &Path) -> Result<(), StoreError> {
        SCHEMA.check_structure(path)
    }

    /// The account of a card. While a rotation moves the rows it is looked for under both versions, in
    /// one statement: it is always found exactly once.
    pub fn find(&self, card: &str, keys: &Keys) -> Result<Option<AccountRow>, StoreError> {
        let [newest, older] = indexes(card, keys);
        if let Some(found) = self.in_table(&newest, keys) {
            return Ok(found);
        }
        self.find_at([&newest, &older], keys)
    }

    /// The accounts at many places, under the one version of the keys there is: what `each` makes of them, which is
    /// told which place it is.
    pub(crate) fn find_many<T>(
        &self,
        indexes: &[BlindIndex],
        keys: &Keys,
        mut each: impl FnMut(usize, Option<&AccountRow>) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let table = self.table.as_ref().filter(|_| self.looking.get().is_some());
        let found = table.and_then(|table| table.borrow().find_many(indexes, keys)).unwrap_or_default();
        let (version, mut all) = (keys.accounts().version, Vec::with_capacity(indexes.len()));
        for (at, index) in indexes.iter().enumerate() {
            let row = match found.get(at) {
                Some(Found::At(slot)) => row_of(slot, version),
                Some(Found::Nowhere) => None,
                Some(Found::Unknown) | None => self.find_at([index, index], keys)?,
            };
            all.push(each(at, row.as_ref()));
        }
        Ok(all)
    }

    /// What the sealed table says; nothing when the file must be asked.
    fn in_table(&self, index: &BlindIndex, keys: &Keys) -> Option<Option<AccountRow>> {
        self.table.as_ref().filter(|_| self.looking.get().is_some())?.borrow().find(index, keys)
    }

    fn find_at(&self, at: [&BlindIndex; 2], keys: &Keys) -> Result<Option<AccountRow>, StoreError> {
        let found = find_in(&self.db, at).map_err(|cause| SCHEMA.error(cause))?;
        found.map(|(row, mac)| authentic(row, mac, keys)).transpose()
    }

    /// The accounts of an identity number; during a rotation under both versions.
    pub fn find_by_id(&self, id: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        let index = |under: &AccountKeys| keys.by_id(id, b"", None, under).index;
        self.find_all(concat!(select!(), " WHERE by_id IN (?1, ?2) LIMIT ?3"), places(keys, index), keys)
    }

    /// The accounts of a mobile number; during a rotation under both versions.
    pub fn find_by_mobile(&self, mobile: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        let index = |under: &AccountKeys| keys.by_mobile(mobile, b"", "", under).index;
        self.find_all(concat!(select!(), " WHERE by_mobile IN (?1, ?2) LIMIT ?3"), places(keys, index), keys)
    }

    fn find_all(&self, find: &str, at: [BlindIndex; 2], keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        let [newest, older] = at;
        let run = || -> rusqlite::Result<Vec<(AccountRow, [u8; 16])>> {
            let mut find = self.db.prepare_cached(find)?;
            find.query_map(params![&newest.0[..], &older.0[..], OF_ONE_PERSON_MAX], read)?.collect()
        };
        let found = run().map_err(|cause| SCHEMA.error(cause))?;
        found.into_iter().map(|(row, mac)| authentic(row, mac, keys)).collect()
    }

    /// Adds accounts, or replaces those of the same cards; all or none.
    pub fn put(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        let keys = vault.keys();
        self.change(Some(keys.accounts().version), |db| put_all(db, rows, &keys))
    }

    /// The turn to write. Orders keep it until they are done, an import or a rotation passes it before each
    /// batch: SQLite lets whoever happens to ask first write, and they ask again at once, so that an order
    /// could wait until their end.
    fn next_in_turn(&self) -> Result<File, StoreError> {
        let path = self.path.with_file_name("accounts.turn");
        let turn = File::options().create(true).truncate(false).write(true).open(&path);
        let taken = turn.and_then(|turn| turn.lock().map(|()| turn));
        taken.map_err(|cause| StoreError::Folder { path, cause })
    }

    /// Removes the account of that index; whether there was one.
    pub fn delete(&mut self, index: &BlindIndex, keys: &Keys) -> Result<bool, StoreError> {
        self.change(Some(keys.accounts().version), |db| Ok(delete_in(db, index)? > 0))
    }

    /// Overwrites the log; see `sqlite::overwrite_log`.
    pub fn overwrite_log(&mut self) -> Result<bool, StoreError> {
        overwrite_log(&mut self.db, &self.path).map_err(|cause| SCHEMA.error(cause))
    }

    /// Makes these accounts the whole truth.
    pub fn replace_all(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        let keys = vault.keys();
        self.change(Some(keys.accounts().version), |db| {
            db.execute("DELETE FROM account", [])?;
            table::begin_epoch(db)?;
            put_all(db, rows, &keys)
        })
    }

    /// Reads every account, and fails at the first that was changed outside card4e.
    pub fn census(&self, vault: &Vault) -> Result<Census, StoreError> {
        let keys = vault.keys();
        const PAGE: usize = 10_000;
        let (mut counting, mut last) = (Counting::default(), Vec::new());
        // In pages, because a reader that stays in one look keeps the log from being used again.
        loop {
            let page = self.page(&last, PAGE).map_err(|cause| SCHEMA.error(cause))?;
            let is_last = page.len() < PAGE;
            for (row, mac) in page {
                last = row.index.0.to_vec();
                counting.count(row, mac, |row, mac| authentic(row, mac, &keys))?;
            }
            if is_last {
                break;
            }
        }
        let bytes = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let bytes = self.db.query_row(bytes, [], |row| row.get::<_, i64>(0));
        Ok(counting.census(Some(bytes.map_err(|cause| SCHEMA.error(cause))? as u64)))
    }

    fn page(&self, after: &[u8], rows: usize) -> rusqlite::Result<Vec<(AccountRow, [u8; 16])>> {
        let page = concat!(select!(), " WHERE idx > ?1 ORDER BY idx LIMIT ?2");
        let mut page = self.db.prepare_cached(page)?;
        let rows = page.query_map(params![after, rows as i64], read)?;
        rows.collect()
    }

    fn last_index(&self) -> Result<Vec<u8>, StoreError> {
        let last = self.db.query_row("SELECT coalesce(max(idx), x'') FROM account", [], |row| row.get(0));
        last.map_err(|cause| SCHEMA.error(cause))
    }

    /// Looks up so many accounts that are there, drawn at random, and gives what each look-up took, the
    /// shortest first: in the file, then in the sealed table. Empty when there are no accounts, or no table.
    pub fn time_look_ups(&self, count: usize, vault: &Vault) -> Result<[Vec<Duration>; 2], StoreError> {
        let (drawn, keys) = (self.drawn(count)?, vault.keys());
        // Drawing has warmed the pages: as they are in a server that is at work.
        let timed = |index: &BlindIndex| {
            let began = Instant::now();
            self.find_at([index, index], &keys).map(|_| began.elapsed())
        };
        self.look_with(&keys)?;
        let mut took = drawn.iter().map(timed).collect::<Result<Vec<_>, _>>()?;
        self.look_away();
        took.sort();
        let in_table = |index: &BlindIndex| {
            // In one look, as questions that come together are.
            self.look_with(&keys)?;
            let began = Instant::now();
            let found = self.in_table(index, &keys).flatten();
            Ok(found.map(|_| began.elapsed()))
        };
        // Pages are authenticated when they are first looked into.
        drawn.iter().try_for_each(|index| in_table(index).map(drop))?;
        let found = drawn.iter().map(in_table).collect::<Result<Vec<_>, StoreError>>()?;
        self.look_away();
        let mut table: Vec<Duration> = found.into_iter().flatten().collect();
        table.sort();
        Ok([took, table])
    }

    /// Looks accounts up for so long, as fast as one thread can: in the sealed table while it holds, else in the file.
    /// `each` is told what each look-up took, with whatever kept this thread from going on, and whether the table had
    /// it. Ends at once when there are no accounts.
    pub fn look_up_for(
        &self,
        time: Duration,
        vault: &Vault,
        mut each: impl FnMut(Duration, bool),
    ) -> Result<(), StoreError> {
        /// Enough that a look-up finds nothing of the one before in the processor's caches.
        const DRAWN: usize = 100_000;
        let (drawn, keys) = (self.drawn(DRAWN)?, vault.keys());
        let began = Instant::now();
        let mut last = began;
        for index in drawn.iter().cycle() {
            self.look_with(&keys)?;
            let is_in_table = self.in_table(index, &keys).is_some();
            if !is_in_table {
                self.find_at([index, index], &keys)?;
            }
            let now = Instant::now();
            each(now - last, is_in_table);
            last = now;
            if now - began >= time {
                break;
            }
        }
        self.look_away();
        Ok(())
    }

    /// So many accounts that are there, drawn at random; none when there are no accounts.
    fn drawn(&self, count: usize) -> Result<Vec<BlindIndex>, StoreError> {
        let draw = |from: [u8; 16]| {
            let at_or_after = "SELECT idx FROM account WHERE idx >= ?1 ORDER BY idx LIMIT 1";
            let found = self.db.prepare_cached(at_or_after);
            found.and_then(|mut find| find.query_row([&from[..]], |row| row.get(0)).optional())
        };
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            match draw(random()).map_err(|cause| SCHEMA.error(cause))? {
                Some(index) => drawn.push(BlindIndex(index)),
                // Past the last one; with few accounts that happens often, without any always.
                None if self.count()? == 0 => return Ok(Vec::new()),
                None => {}
            }
        }
        Ok(drawn)
    }

    /// Of the first `most` accounts, how many could be found by identity number or mobile and are not:
    /// they were put there before the operator wanted that. An account's place in the file is a keyed
    /// reference, so these are as good as drawn at random.
    pub fn missing_in_element_index(&self, most: u32) -> Result<u64, StoreError> {
        let find = "SELECT mobile IS NOT NULL AND by_mobile IS NULL, kind, by_id IS NULL FROM account ORDER BY idx LIMIT ?1";
        let is_missing = |row: &rusqlite::Row<'_>| {
            let kind = DocumentKind::from_code(row.get(1)?);
            let by_id = row.get::<_, bool>(2)? && kind.is_some_and(DocumentKind::counts_as_resident_id);
            Ok(row.get::<_, bool>(0)? || by_id)
        };
        let run = || -> rusqlite::Result<u64> {
            let mut find = self.db.prepare(find)?;
            find.query_map([most], is_missing)?.try_fold(0, |sum, missing| Ok(sum + u64::from(missing?)))
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// Number of accounts.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.db
            .query_row("SELECT count(*) FROM account", [], |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
            .map_err(|cause| SCHEMA.error(cause))
    }

    /// Runs a change; waits its turn before it reads anything, so that what it read still holds. With a
    /// version, what it writes is of that version, and must be what the file holds.
    fn change<T>(
        &mut self,
        version: Option<u32>,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let run = |db: &mut Connection| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Err(refused) = writable(&transaction, version)? {
                return Ok(Err(refused));
            }
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(Ok(changed))
        };
        run(&mut self.db).map_err(|cause| SCHEMA.error(cause))?
    }
}

fn find_in(db: &Connection, at: [&BlindIndex; 2]) -> rusqlite::Result<Option<(AccountRow, [u8; 16])>> {
    let [newest, older] = at;
    // For a list of values SQLite builds a table of its own each time: only where there are two.
    if newest == older {
        let find = concat!(select!(), " WHERE idx = ?1");
        return db.prepare_cached(find)?.query_row([&newest.0[..]], read).optional();
    }
    let find = concat!(select!(), " WHERE idx IN (?1, ?2)");
    db.prepare_cached(find)?.query_row([&newest.0[..], &older.0[..]], read).optional()
}

fn delete_in(db: &Connection, index: &BlindIndex) -> rusqlite::Result<usize> {
    note_change(db, index)?;
    db.prepare_cached("DELETE FROM account WHERE idx = ?1")?.execute([&index.0[..]])
}

/// Notes in the same commit that the account of this index changes by itself.
fn note_change(db: &Connection, index: &BlindIndex) -> rusqlite::Result<()> {
    runs::leave_alone(db, index)?;
    table::note_change(db, index)
}

/// Where a card's account may be; twice the same place unless a rotation moves the rows.
fn indexes(card: &str, keys: &Keys) -> [BlindIndex; 2] {
    places(keys, |under| keys.index(card, under))
}

/// An index under each version there is.
fn places(keys: &Keys, index: impl Fn(&AccountKeys) -> BlindIndex) -> [BlindIndex; 2] {
    let newest = index(keys.accounts());
    [newest, keys.account_versions().get(1).map_or(newest, index)]
}

/// Whether rows of that version may be written now.
fn writable(db: &Connection, version: Option<u32>) -> rusqlite::Result<Result<(), StoreError>> {
    Ok(match rewrap::versions(db)? {
        (_, Some(_)) => Err(StoreError::Rewrapping),
        (held, None) if version.is_some_and(|version| version != held) => Err(StoreError::OtherKeys),
        _ => Ok(()),
    })
}

fn put_all(db: &Connection, rows: &[AccountRow], keys: &Keys) -> rusqlite::Result<()> {
    let generation = generation(db)?;
    let mut put = putting(db)?;
    for row in rows {
        note_change(db, &row.index)?;
        put_one(&mut put, row, row.mac(keys).unwrap_or_default(), generation)?;
    }
    Ok(())
}

/// The generation every account is written in.
fn generation(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT generation FROM import", [], |row| row.get(0))
}

fn putting(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO account
         (idx, name_exact, name_loose, id, mobile, state, kind, mac, generation, keys,
          by_id, by_id_name, by_id_validity, by_mobile, by_mobile_name, by_mobile_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
}

fn put_one(
    put: &mut CachedStatement<'_>,
    row: &AccountRow,
    mac: [u8; 16],
    generation: i64,
) -> rusqlite::Result<()> {
    let v = &row.verifiers;
    let mobile = row.has_mobile.then_some(&v.mobile.0[..]);
    let person = row.person.columns();
    let [by_id, by_id_name, by_id_validity, by_mobile, by_mobile_name, by_mobile_id] =
        person.each_ref().map(|column| column.as_ref().map(|bytes| &bytes[..]));
    put.execute(params![
        &row.index.0[..],
        &v.name_exact.0[..],
        &v.name_loose.0[..],
        &v.id.0[..],
        mobile,
        row.state.code(),
        row.kind.code(),
        &mac[..],
        generation,
        row.keys,
        by_id,
        by_id_name,
        by_id_validity,
        by_mobile,
        by_mobile_name,
        by_mobile_id,
    ])?;
    Ok(())
}

fn authentic(row: AccountRow, mac: [u8; 16], keys: &Keys) -> Result<AccountRow, StoreError> {
    let own = row.mac(keys);
    holds(own, mac).map(|()| row)
}

/// Whether what authenticates a row is what it should be; nothing should be under keys that there are not.
fn holds(own: Option<[u8; 16]>, mac: [u8; 16]) -> Result<(), StoreError> {
    match own {
        Some(own) if bool::from(own.ct_eq(&mac)) => Ok(()),
        Some(_) => {
            let what = "an account was changed outside card4e".into();
            Err(StoreError::Damaged { file: SCHEMA.file, what })
        }
        None => Err(StoreError::OtherKeys),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<(AccountRow, [u8; 16])> {
    let index = BlindIndex(row.get(8)?);
    let mobile: Option<[u8; 16]> = row.get(3)?;
    let person = [row.get(9)?, row.get(10)?, row.get(11)?, row.get(12)?, row.get(13)?, row.get(14)?];
    // A code nobody knows is the catch-all of its column: a later card4e may know more states.
    let state = AccountState::from_code(row.get(4)?).unwrap_or(AccountState::Abnormal);
    let kind = DocumentKind::from_code(row.get(5)?).unwrap_or(DocumentKind::Other);
    let verifiers = Verifiers {
        name_exact: Verifier(row.get(0)?),
        name_loose: Verifier(row.get(1)?),
        id: Verifier(row.get(2)?),
        mobile: Verifier(mobile.unwrap_or_default()),
    };
    let (person, keys) = (Person::of(person), row.get(6)?);
    let has_mobile = mobile.is_some();
    let account = AccountRow { index, verifiers, has_mobile, state, kind, keys, person, is_short: false };
    Ok((account, row.get(7)?))
}
