//! A node's own copy of the accounts of a database: `accounts.db` and the sealed table beside it are then
//! derived, and questions are answered from them as fast as on one machine.
//!
//! [`Follower::step`] is repeated on a thread of its own. A copy that is new, or was left behind too far, first
//! takes all accounts over, in their order; then it takes over what was changed, whole numbers at a time. Every
//! question sees the copy as the database was at some moment, and [`Freshness`] says how long ago that may be:
//! beyond, nothing is answered from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::shared::{PAGE_ROWS, State, Taken};
use super::{Accounts, Batch, SCHEMA, SharedAccounts, leaves, table, write_all};
use crate::clock::Millis;
use crate::store::StoreError;
use crate::store::postgres::Database;
use crate::vault::Keys;

/// More changes than this in one commit, and the sealed table is made anew instead of told each.
const MANY: usize = 1000;

/// How long ago a node's copy was as the database is. Shared by all who look into it.
#[derive(Debug)]
pub struct Freshness {
    began: Instant,
    /// Milliseconds after `began`, and one more; 0: the copy is not whole yet.
    current_at: AtomicU64,
    most: Duration,
    /// Changes that are still to be taken over.
    behind: AtomicU64,
}

impl Freshness {
    /// Of a copy that nothing is known of yet, and is answered from until it is so old.
    pub fn new(most: Duration) -> Freshness {
        Freshness {
            began: Instant::now(),
            current_at: AtomicU64::default(),
            most,
            behind: AtomicU64::default(),
        }
    }

    /// How old the copy may be now; `None`: it is not whole yet.
    pub fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// Numbers of changes that are still to be taken over.
    pub fn behind(&self) -> u64 {
        self.behind.load(Ordering::Relaxed)
    }

    /// Whether questions may be answered from the copy.
    pub fn check(&self) -> Result<(), StoreError> {
        let why = match self.age() {
            Some(age) if age <= self.most => return Ok(()),
            Some(age) => format!(
                "this node's copy of the accounts may be {} s old, and server.accounts_stale_max allows {} s: see \
                 that it reaches the database",
                age.as_secs(),
                self.most.as_secs()
            ),
            None => {
                "this node's copy of the accounts is not whole yet: wait, or see that it reaches the database"
                    .into()
            }
        };
        Err(StoreError::Stale(why))
    }

    fn note(&self, at: Instant) {
        let at = at.duration_since(self.began).as_millis() as u64;
        self.current_at.store(at + 1, Ordering::Release);
    }

    fn forget(&self) {
        self.current_at.store(0, Ordering::Release);
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Accounts that were taken over, or removed.
    pub rows: u64,
    /// All accounts are being copied; else what was changed is.
    pub is_copying: bool,
    /// Whether the copy is now as the database was when the step began.
    pub is_current: bool,
}

/// Follows the accounts of a database into a file.
#[derive(Debug)]
pub struct Follower {
    shared: SharedAccounts,
    accounts: Accounts,
    fresh: Arc<Freshness>,
}

/// How far the copy is, as it says itself.
struct Place {
    source: String,
    number: i64,
    copied: Option<Vec<u8>>,
    erased: i64,
}

impl Follower {
    /// Of the file at a place.
    ///
    /// # Errors
    /// Also when the file has accounts of its own: they would be lost.
    pub fn open(
        database: &Arc<Database>,
        file: &std::path::Path,
        fresh: Arc<Freshness>,
    ) -> Result<Follower, StoreError> {
        let accounts = Accounts::open(file)?;
        if place(&accounts)?.is_none() && accounts.count()? > 0 {
            return Err(StoreError::OtherAccounts(
                "accounts.db has accounts of its own and server.store names a database: give this node a new data \
                 folder and import the accounts into the database",
            ));
        }
        Ok(Follower { shared: SharedAccounts::open(database)?, accounts, fresh })
    }

    /// Takes a part of what is missing over; repeated without a pause until it is current.
    pub fn step(&mut self, keys: &Keys) -> Result<Followed, StoreError> {
        let began = Instant::now();
        let state = self.shared.state()?;
        let has_keys = |version| keys.account_version(version).is_some();
        if !has_keys(state.version) || state.target.is_some_and(|target| !has_keys(target)) {
            // Rows that this node could not find again must not be taken for absent.
            return Err(StoreError::OtherKeys);
        }
        let place = match place(&self.accounts)? {
            Some(place) if place.source == state.source && is_within(&place, &state) => place,
            _ => self.start_over(&state)?,
        };
        let behind = (state.number - place.number) as u64;
        self.fresh.behind.store(behind, Ordering::Relaxed);
        let followed = match &place.copied {
            Some(after) => self.copy(&place, after)?,
            None => self.take_over(&place, &state)?,
        };
        if followed.is_current && place.erased < state.erased {
            self.forget_erased(state.erased)?;
        }
        if followed.is_current {
            self.fresh.behind.store(0, Ordering::Relaxed);
            self.fresh.note(began);
        }
        Ok(followed)
    }

    /// Number of accounts there are to copy.
    pub fn count(&mut self) -> Result<u64, StoreError> {
        self.shared.count()
    }

    /// Forgets deletions that every node knows by now; from time to time is enough.
    pub fn forget_deletions(&mut self, now: Millis) -> Result<(), StoreError> {
        self.shared.forget_deletions(now)
    }

    /// Sees that nothing is left of a person who was erased, neither in the sealed table nor in the log.
    fn forget_erased(&mut self, erased: i64) -> Result<(), StoreError> {
        self.accounts.drop_table()?;
        if !self.accounts.overwrite_log()? {
            return Err(StoreError::LogInUse(SCHEMA.file));
        }
        let noted = self.accounts.db.execute("UPDATE followed SET erased = ?1", [erased]);
        noted.map(drop).map_err(|cause| SCHEMA.error(cause))
    }

    fn start_over(&mut self, state: &State) -> Result<Place, StoreError> {
        self.fresh.forget();
        let begin = |db: &mut rusqlite::Connection| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            table::begin_epoch(&transaction)?;
            leaves::clear(&transaction)?;
            let note = "INSERT OR REPLACE INTO followed VALUES (1, ?1, ?2, x'', 0)";
            transaction.execute(note, params![state.source, state.number])?;
            transaction.commit()
        };
        begin(&mut self.accounts.db).map_err(|cause| SCHEMA.error(cause))?;
        Ok(Place { source: state.source.clone(), number: state.number, copied: Some(Vec::new()), erased: 0 })
    }

    /// Copies the next accounts in their order. What changes meanwhile is taken over afterwards.
    fn copy(&mut self, place: &Place, after: &[u8]) -> Result<Followed, StoreError> {
        let page = self.shared.page(after)?;
        let is_last = (page.len() as i64) < PAGE_ROWS;
        let copied = page.last().map(|(row, _)| row.index.0.to_vec()).filter(|_| !is_last);
        let taken: Vec<Taken> = page.into_iter().map(|(row, mac)| Taken::Put(row, mac)).collect();
        self.write(&taken, place.number, copied.as_deref())?;
        Ok(Followed { rows: taken.len() as u64, is_copying: true, is_current: false })
    }

    /// Takes over what was changed.
    fn take_over(&mut self, place: &Place, state: &State) -> Result<Followed, StoreError> {
        if place.number == state.number {
            return Ok(Followed { is_current: true, ..Followed::default() });
        }
        let (taken, number) = self.shared.changed(place.number, state.number)?;
        self.write(&taken, number, None)?;
        Ok(Followed { rows: taken.len() as u64, is_copying: false, is_current: number == state.number })
    }

    /// Writes accounts and how far the copy is with them, all or nothing.
    fn write(&mut self, taken: &[Taken], number: i64, copied: Option<&[u8]>) -> Result<(), StoreError> {
        let run = |db: &mut rusqlite::Connection| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if taken.len() > MANY {
                table::begin_epoch(&transaction)?;
            }
            let mut batch = Batch::default();
            for change in taken {
                if taken.len() <= MANY {
                    table::note_change(&transaction, change.index())?;
                }
                match change {
                    Taken::Put(row, mac) => batch.put(row, *mac),
                    Taken::Gone(index) => batch.delete(index),
                }
            }
            write_all(&transaction, &mut batch, 0)?;
            let note = "UPDATE followed SET number = ?1, copied = ?2";
            transaction.prepare_cached(note)?.execute(params![number, copied])?;
            transaction.commit()
        };
        run(&mut self.accounts.db).map_err(|cause| SCHEMA.error(cause))
    }
}

impl Accounts {
    /// Refuses a file that is a node's copy: what is not in it may well be in the database.
    pub fn is_of_record(&self) -> Result<(), StoreError> {
        match place(self)? {
            None => Ok(()),
            Some(_) => Err(StoreError::OtherAccounts(
                "accounts.db is a copy of a database's accounts and server.store names none: name it again, or \
                 take a new data folder and import the accounts there",
            )),
        }
    }
}

/// Whether what the copy lacks is still known.
fn is_within(place: &Place, state: &State) -> bool {
    // A copy that knows more was made before the database was restored from a backup.
    place.number >= state.forgotten && place.number <= state.number
}

fn place(accounts: &Accounts) -> Result<Option<Place>, StoreError> {
    let find = accounts.db.prepare_cached("SELECT source, number, copied, erased FROM followed");
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Place { source: row.get(0)?, number: row.get(1)?, copied: row.get(2)?, erased: row.get(3)? })
    };
    find.and_then(|mut find| find.query_row([], read).optional()).map_err(|cause| SCHEMA.error(cause))
}
