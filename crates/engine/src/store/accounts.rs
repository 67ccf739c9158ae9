//! Accounts of record: found by blind index, compared by verifiers, no plaintext element.
//!
//! Any number of readers and one writer at a time; nobody waits for long, because an import writes
//! in many short transactions (`accounts/import.rs`).

mod direct;
mod follow;
mod import;
mod leaves;
mod order;
mod record;
mod rewrap;
mod runs;
mod shared;
mod table;

pub(crate) use direct::{Looked, Records, Wanted};
pub(super) use direct::{look_up, sorted};
pub use follow::{Followed, Follower, Freshness};
pub use leaves::Batch;
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

use rusqlite::{Connection, TransactionBehavior};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::leaves::{Covered, Edit, Entries};
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
        -- The accounts: rows one behind the other, in the order of the blind indexes of their cards; see leaves.rs.
        CREATE TABLE leaf (
            first INTEGER PRIMARY KEY,  -- its rows are those from here up to the next leaf
            rows  BLOB NOT NULL
        );
        CREATE TABLE total (
            one      INTEGER PRIMARY KEY CHECK (one = 1),
            accounts INTEGER NOT NULL
        );
        INSERT INTO total VALUES (1, 0);
        -- The element index, where the operator wants one: an account by its holder's identity number, or its mobile.
        CREATE TABLE person (
            found_by BLOB NOT NULL,  -- blind index of one or the other
            idx      BLOB NOT NULL,  -- of the account
            PRIMARY KEY (found_by, idx)
        ) WITHOUT ROWID;
        -- An import that makes its file the whole truth begins a generation; at its end the accounts
        -- of earlier ones go.
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
            removed        INTEGER NOT NULL,
            merged         BLOB                -- rows that were sorted are written up to this index
        );
        INSERT INTO import VALUES (1, 0, NULL, 0, 2, NULL, 0, 0, 0, 0, 0, 0, NULL);
        CREATE TABLE rewrap (
            one     INTEGER PRIMARY KEY CHECK (one = 1),
            version INTEGER NOT NULL,     -- of all rows, when none are being wrapped again
            target  INTEGER,              -- they are being wrapped again under this one
            after   BLOB NOT NULL,        -- those up to this old index are done
            rows    INTEGER NOT NULL,     -- how many that are
            digest  BLOB NOT NULL         -- of what the inner key made of them
        );
        INSERT INTO rewrap VALUES (1, 1, NULL, x'', 0, zeroblob(16));
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
        -- There is a row here when this file is a node's copy of the accounts of a database; see follow.rs.
        CREATE TABLE followed (
            one    INTEGER PRIMARY KEY CHECK (one = 1),
            source TEXT NOT NULL,      -- tells the accounts of that database from all others
            number INTEGER NOT NULL,   -- changes up to this one are here
            copied BLOB,               -- accounts up to this index were copied; NULL: all were
            erased INTEGER NOT NULL    -- nothing is left here of whoever was erased up to this change
        );
        -- Rows of an import that were read and are in `accounts.runs`, to be written in order; see runs.rs.
        CREATE TABLE run (
            number INTEGER PRIMARY KEY,
            ends   INTEGER NOT NULL,   -- the byte behind its last row
            keys   INTEGER NOT NULL    -- version of the keys over its rows and indexes
        );
        CREATE TABLE left_alone (      -- accounts that were changed one by one since: they stay as they are
            idx BLOB PRIMARY KEY
        ) WITHOUT ROWID;
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
        Some(keys.account_version(self.keys)?.row_mac(&[Covered::of(self).as_ref()]))
    }

    /// [`AccountRow::mac`] of many rows, in their order.
    fn macs<'a>(rows: impl Iterator<Item = &'a AccountRow> + Clone, keys: &Keys) -> Vec<Option<[u8; 16]>> {
        let version = rows.clone().next().map(|row| row.keys);
        let under = version.and_then(|version| keys.account_version(version));
        match under.filter(|under| rows.clone().all(|row| row.keys == under.version)) {
            Some(under) => under.row_macs(rows.map(Covered::of)).into_iter().map(Some).collect(),
            None => rows.map(|row| row.mac(keys)).collect(),
        }
    }
}

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
    /// What the element index has to hold; see [`leaves::Entries`].
    entries: Entries,
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
        let found_by = [by_id.map(|id| id.index), by_mobile.map(|mobile| mobile.index)];
        found_by.iter().flatten().for_each(|by| self.entries.add(by, &row.index));
        Ok(())
    }

    fn census(self, file_bytes: Option<u64>) -> Census {
        let Counting { accounts, states, without_mobile, in_element_index, digest, .. } = self;
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
        let db = SCHEMA.open(path)?;
        // Changing one account takes a dozen of them.
        db.set_prepared_statement_cache_capacity(64);
        Ok(Accounts {
            db,
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
        let found = leaves::find(&self.db, at).map_err(|cause| SCHEMA.error(cause))?;
        found.map(|(row, mac)| authentic(row, mac, keys)).transpose()
    }

    /// The accounts of an identity number; during a rotation under both versions.
    pub fn find_by_id(&self, id: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        let index = |under: &AccountKeys| keys.by_id(id, b"", None, under).index;
        self.find_all(places(keys, index), keys, |person| person.by_id.map(|by| by.index))
    }

    /// The accounts of a mobile number; during a rotation under both versions.
    pub fn find_by_mobile(&self, mobile: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        let index = |under: &AccountKeys| keys.by_mobile(mobile, b"", "", under).index;
        self.find_all(places(keys, index), keys, |person| person.by_mobile.map(|by| by.index))
    }

    /// Accounts that are found by what is not their card number.
    fn find_all(
        &self,
        at: [BlindIndex; 2],
        keys: &Keys,
        found_by: impl Fn(&Person) -> Option<BlindIndex>,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let run = || -> rusqlite::Result<Vec<Option<leaves::Found>>> {
            // One look at the file: between its statements an account could move.
            let _look = if self.db.is_autocommit() { Some(self.db.unchecked_transaction()?) } else { None };
            let indexes = leaves::found_by(&self.db, at, OF_ONE_PERSON_MAX)?;
            indexes.iter().map(|index| leaves::find(&self.db, [index, index])).collect()
        };
        let found = run().map_err(|cause| SCHEMA.error(cause))?;
        let account = |found: Option<leaves::Found>| {
            let (row, mac) = found.ok_or_else(changed)?;
            let row = authentic(row, mac, keys)?;
            // Its row says the same, and is authenticated: what pointed there is not.
            let is_found = found_by(&row.person).is_some_and(|by| at.contains(&by));
            if is_found { Ok(row) } else { Err(changed()) }
        };
        found.into_iter().map(account).collect()
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
            leaves::clear(db)?;
            table::begin_epoch(db)?;
            put_all(db, rows, &keys)
        })
    }

    /// Reads every account, and fails at the first that was changed outside card4e.
    pub fn census(&self, vault: &Vault) -> Result<Census, StoreError> {
        let keys = vault.keys();
        const PAGE: usize = 10_000;
        let (mut counting, mut last) = (Counting::default(), Vec::new());
        let begun_at = table::data_version(&self.db).map_err(|cause| SCHEMA.error(cause))?;
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
        self.agrees_with(&counting, begun_at)?;
        let bytes = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let bytes = self.db.query_row(bytes, [], |row| row.get::<_, i64>(0));
        Ok(counting.census(Some(bytes.map_err(|cause| SCHEMA.error(cause))? as u64)))
    }

    /// Sees that the number of accounts and the element index are those of the accounts that were counted. While others
    /// change them there is nothing to compare.
    fn agrees_with(&self, counted: &Counting, begun_at: i64) -> Result<(), StoreError> {
        let look = || -> rusqlite::Result<_> {
            let look = self.db.unchecked_transaction()?;
            Ok((leaves::count(&look)?, Entries::of(&look)?, table::data_version(&look)?))
        };
        let (accounts, entries, now_at) = look().map_err(|cause| SCHEMA.error(cause))?;
        let what = match (accounts == counted.accounts, entries == counted.entries) {
            _ if now_at != begun_at => return Ok(()),
            (true, true) => return Ok(()),
            (false, _) => format!("it has {} accounts and says {accounts}", counted.accounts),
            (true, false) => "its index by identity number and mobile is not that of its accounts".into(),
        };
        Err(StoreError::Damaged { file: SCHEMA.file, what })
    }

    fn page(&self, after: &[u8], rows: usize) -> rusqlite::Result<Vec<(AccountRow, [u8; 16])>> {
        leaves::page(&self.db, after, rows)
    }

    fn last_index(&self) -> Result<Vec<u8>, StoreError> {
        leaves::last_index(&self.db).map_err(|cause| SCHEMA.error(cause))
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
            leaves::page(&self.db, &from, 1).map(|page| page.first().map(|(row, _)| row.index))
        };
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            match draw(random()).map_err(|cause| SCHEMA.error(cause))? {
                Some(index) => drawn.push(index),
                // Past the last one; with few accounts that happens often, without any always.
                None if self.has_none()? => return Ok(Vec::new()),
                None => {}
            }
        }
        Ok(drawn)
    }

    /// Of the first `most` accounts, how many could be found by identity number or mobile and are not:
    /// they were put there before the operator wanted that. An account's place in the file is a keyed
    /// reference, so these are as good as drawn at random.
    pub fn missing_in_element_index(&self, most: u32) -> Result<u64, StoreError> {
        let page = self.page(b"", most as usize).map_err(|cause| SCHEMA.error(cause))?;
        let is_missing = |row: &AccountRow| {
            let Person { by_id, by_mobile } = row.person;
            row.has_mobile && by_mobile.is_none() || row.kind.counts_as_resident_id() && by_id.is_none()
        };
        Ok(page.iter().filter(|(row, _)| is_missing(row)).count() as u64)
    }

    /// Number of accounts.
    pub fn count(&self) -> Result<u64, StoreError> {
        leaves::count(&self.db).map_err(|cause| SCHEMA.error(cause))
    }

    /// Whether there are no accounts: looked for, because a wrong number must not make it so.
    fn has_none(&self) -> Result<bool, StoreError> {
        self.page(&[], 1).map(|first| first.is_empty()).map_err(|cause| SCHEMA.error(cause))
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

/// Removes a file, if it is there.
fn remove(path: PathBuf) -> Result<(), StoreError> {
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Folder { path, cause }),
        _ => Ok(()),
    }
}

fn delete_in(db: &Connection, index: &BlindIndex) -> rusqlite::Result<u64> {
    note_change(db, index)?;
    leaves::write(db, std::iter::once(Edit::Delete(*index)), 0)
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
    let mut batch = Batch::default();
    for row in rows {
        note_change(db, &row.index)?;
        batch.put(row, row.mac(keys).unwrap_or_default());
    }
    write_all(db, &mut batch, generation(db)?).map(drop)
}

/// Writes changes, in the order of their indexes: indexes are random, and so each leaf is touched once. Gives how many
/// accounts went.
fn write_all(db: &Connection, batch: &mut Batch, generation: u32) -> rusqlite::Result<u64> {
    batch.sort();
    leaves::write(db, leaves::last_of_each(batch.edits()), generation)
}

/// The generation every account is written in.
fn generation(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("SELECT generation FROM import", [], |row| row.get(0))
}

fn authentic(row: AccountRow, mac: [u8; 16], keys: &Keys) -> Result<AccountRow, StoreError> {
    let own = row.mac(keys);
    holds(own, mac).map(|()| row)
}

const CHANGED: &str = "an account was changed outside card4e";

fn changed() -> StoreError {
    StoreError::Damaged { file: SCHEMA.file, what: CHANGED.into() }
}

/// Whether what authenticates a row is what it should be; nothing should be under keys that there are not.
fn holds(own: Option<[u8; 16]>, mac: [u8; 16]) -> Result<(), StoreError> {
    match own {
        Some(own) if bool::from(own.ct_eq(&mac)) => Ok(()),
        Some(_) => Err(changed()),
        None => Err(StoreError::OtherKeys),
    }
}
