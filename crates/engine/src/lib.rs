//! What verifying a bank card means. Knows no HTTP server; sees `wire` only where an outcome becomes
//! a code (`projection.rs`) and in connectors.
//!
//! Start with [`verify::verify`]: one verification from admission to settlement.

// The tests' own PostgreSQL is written for tests outside of this crate.
#[cfg(test)]
extern crate self as engine;

pub mod account;
pub mod action;
pub mod audit;
mod background;
pub mod bulk;
pub mod caller;
pub mod claim;
pub mod clock;
pub mod connector;
pub mod erase;
pub mod exchange;
pub mod file;
#[cfg(test)]
mod golden;
pub mod issuer;
pub mod ledger;
pub mod limit;
mod node;
pub mod operator;
pub mod outcome;
pub mod overload;
pub mod platform;
pub mod projection;
pub mod provider;
pub mod register;
pub mod rotate;
pub mod route;
pub mod settle;
pub mod spending;
pub mod store;
pub mod subject;
pub mod vault;
pub mod verify;
pub mod watch;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::action::{Action, Element};
use crate::background::Background;
use crate::caller::{Application, Caller, CallerId, Credential, CredentialId, Directory};
use crate::clock::Clock;
use crate::erase::ErasureStatus;
use crate::issuer::Issuers;
use crate::ledger::{Books, Credits, Entry, Totals};
use crate::limit::{AttemptPolicy, AttemptRefs, Rates, WhenAway};
use crate::node::Sharing;
use crate::provider::Providers;
use crate::rotate::RotationStatus;
use crate::route::Routing;
use crate::settle::{Change, Desk, Post, Queue, Writer, Writing};
use crate::store::postgres::Database;
use crate::store::{
    Accounts, AccountsOfRecord, Folder, Follower, Freshness, LedgerFile, LedgerPlace, LedgerReader, Nodes,
    Opened, Platform, Put, Refusals, SharedAccounts, SharedStore, StoreError, TablePlace, UsageFile,
};
use crate::subject::{Date, ParseOptions, Subject};
use crate::vault::{Cmac, RingError, RingFile, Seal, Vault, random};
use crate::verify::Refusal;

/// What to answer for a card whose prefix no issuer is known for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssuerPolicy {
    /// The sources decide; the accounts of record alone know such a card as "no such account".
    #[default]
    AskSource,
    /// ISSUER_UNKNOWN.
    IssuerUnknown,
}

/// Where a node finds the accounts of a database that nodes share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountsFrom {
    /// In a copy of its own, which follows the database.
    #[default]
    Copy,
    /// In the database, which each question then asks.
    Database,
}

/// Why a node with [`AccountsFrom::Database`] takes no files and batches.
pub const KEEPS_NO_ACCOUNTS: &str = "this node keeps no accounts (server.accounts), and files and batches are \
     answered from them: ask at a node that keeps a copy";

/// How this installation verifies, counts and charges. All of it is configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Price of a charged answer.
    pub price: Credits,
    /// Of an action, where it is another; by [`Action`]'s discriminant.
    pub prices: [Option<Credits>; Action::ALL.len()],
    /// Requests a second per application; 0: no limit. By [`Action`]'s discriminant.
    pub requests_per_second: [u32; Action::ALL.len()],
    /// Nodes at most that share the work; each has its share of a limit where no limiter counts for all.
    pub nodes: u32,
    /// What becomes of a limit while the limiter is away. By [`Action`]'s discriminant.
    pub limiter_away: [WhenAway; Action::ALL.len()],
    /// Accounts are found by identity number and mobile too, so that actions without a card can be
    /// answered.
    pub element_index: bool,
    /// Attempts a day.
    pub attempts: AttemptPolicy,
    /// Holder checks before card state; see [`outcome::DECISIONS`].
    pub privacy_order: bool,
    /// What an unknown prefix answers.
    pub issuer: IssuerPolicy,
    /// Accept identity numbers of the unassigned province 99.
    pub test_land: bool,
    /// Accept names in Tibetan, Uyghur, Mongolian and Cyrillic letters.
    pub more_scripts: bool,
    /// Keep masked elements for usage pages.
    pub keep_masks: bool,
    /// How long an answer is kept for its idempotency key, milliseconds.
    pub key_kept_ms: i64,
    /// How long a question is known by its content alone, milliseconds; 0: not at all.
    pub content_window_ms: i64,
    /// Idempotency keys (and contents) remembered at most; while there are so many, a question with a
    /// new one is refused.
    pub keys_max: usize,
    /// Counters of attempts a day at most, some five a question; once there are so many, questions that
    /// are counted are refused until the day ends.
    pub counters_max: usize,
    /// Rows of one file or stream that are answered without an approval.
    pub bulk_rows_max: u64,
    /// Questions under way at most; more are refused.
    pub under_way_max: usize,
    /// The ledger's log is grown to this at start, bytes.
    pub log_bytes: usize,
    /// Nothing is answered while less of the disk is free, bytes; 0: until it is full.
    pub disk_reserve_bytes: u64,
    /// Providers and routes; `None`: the accounts of record answer everything.
    pub routing: Option<Arc<Routing>>,
    /// How often a node looks for what others have changed in the database they share, when it does not hear of it.
    pub look_every: Duration,
    /// How old this node's copy of a database's accounts may be to be answered from; only what it is at the start
    /// counts.
    pub accounts_stale_max: Duration,
    /// Where a node finds the accounts of a database; only what it is at the start counts.
    pub accounts_from: AccountsFrom,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            price: Credits::whole(1),
            prices: [None; Action::ALL.len()],
            requests_per_second: Action::ALL.map(Action::requests_per_second),
            nodes: 1,
            limiter_away: [WhenAway::Share; Action::ALL.len()],
            element_index: false,
            attempts: AttemptPolicy::default(),
            privacy_order: false,
            issuer: IssuerPolicy::default(),
            test_land: false,
            more_scripts: false,
            keep_masks: true,
            key_kept_ms: 24 * 3_600_000,
            content_window_ms: 0,
            keys_max: 1_000_000,
            counters_max: 20_000_000,
            bulk_rows_max: 1_000_000,
            under_way_max: 8192,
            log_bytes: 32 << 20,
            disk_reserve_bytes: 0,
            routing: None,
            look_every: Duration::from_millis(250),
            accounts_stale_max: Duration::from_secs(10),
            accounts_from: AccountsFrom::Copy,
        }
    }
}

impl Policy {
    /// Whether this installation can answer an action.
    pub fn offers(&self, action: Action) -> bool {
        self.element_index
            || !action.needs_element_index()
            || self.routing.as_ref().is_some_and(|routing| routing.covers(action))
    }

    /// What a charged answer costs an application.
    pub(crate) fn price_of(&self, application: &Application, action: Action) -> Credits {
        application.price.or(self.prices[action as usize]).unwrap_or(self.price)
    }

    /// Every action this installation can answer.
    pub fn actions(&self) -> Vec<Action> {
        Action::ALL.into_iter().filter(|action| self.offers(*action)).collect()
    }

    /// What is asked of a claim and of an account to be well-formed.
    pub fn parse_options(&self, now_ms: clock::Millis) -> ParseOptions {
        ParseOptions {
            test_land: self.test_land,
            more_scripts: self.more_scripts,
            element_index: self.element_index,
            today: Date::in_beijing(now_ms.div_euclid(1000)),
        }
    }
}

/// Counters of the engine, for `/metrics`.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Blocks committed since the start.
    pub blocks: AtomicU64,
    /// Blocks the projection has taken over since the start.
    pub projected: AtomicU64,
}

/// Why an installation does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

/// Everything a verification needs, shared by all cores.
pub struct Engine {
    /// Tells the time.
    pub clock: Clock,
    /// Keys at work.
    pub vault: Vault,
    /// Counters.
    pub metrics: Metrics,
    pub(crate) queue: Queue,
    pub(crate) post: Post,
    policy: RwLock<Arc<Policy>>,
    issuers: RwLock<Arc<Issuers>>,
    pub(crate) rotating: Background<RotationStatus>,
    pub(crate) erasing: Background<ErasureStatus>,
    ring: Mutex<RingFile>,
    folder: Folder,
    directory: RwLock<Arc<Directory>>,
    books: Mutex<Books>,
    rates: Mutex<Rates>,
    pub(crate) providers: Mutex<Providers>,
    day: Mutex<Option<DayKey>>,
    registering: Mutex<()>,
    pub(crate) jobs: bulk::Jobs,
    table: Arc<TablePlace>,
    ledger: LedgerPlace,
    /// The other nodes, where there are any.
    pub(crate) sharing: Option<Arc<Sharing>>,
    /// Accounts are in this folder: those of record, or a copy.
    pub(crate) keeps_accounts: bool,
    /// How fresh this node's copy of the database's accounts is.
    fresh: Option<Arc<Freshness>>,
    platform: Mutex<Platform>,
    refusals: Mutex<Refusals>,
}

/// The key of one Beijing day, under which that day's attempts are counted.
struct DayKey {
    day: u32,
    cmac: Cmac,
}

/// An engine at work: its threads end, in order, with [`Running::stop`].
pub struct Running {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Writer and projector.
    threads: Vec<JoinHandle<()>>,
    /// Teller, watcher, listener and whoever follows the accounts, where nodes share a database.
    among_others: Vec<JoinHandle<()>>,
    /// Nothing is done with it. But whoever closes a file as the last one folds its whole log into it, and the next one
    /// to open it reads all of that log again.
    _kept_open: Option<Box<Mutex<Accounts>>>,
}

/// Callers that must exist, whatever the data folder holds: the sandbox's public ones.
pub struct Seed {
    /// Callers.
    pub callers: Vec<Caller>,
    /// Applications and what each is granted when it is new.
    pub applications: Vec<(Application, Credits)>,
    /// Credentials, built with the vault because tokens are kept as keyed hashes.
    pub credentials: fn(&Vault) -> Vec<Credential>,
}

impl Seed {
    /// Nobody.
    pub fn nobody() -> Seed {
        Seed { callers: Vec::new(), applications: Vec::new(), credentials: |_| Vec::new() }
    }
}

impl Engine {
    /// Opens a data folder and sets its threads to work; with `shared`, as one of several nodes. What is in
    /// the folder then is only this node's, and derived, but for its copy of the key ring.
    pub fn open(
        folder: &Path,
        root_key: &[u8; 32],
        policy: Policy,
        issuers: Issuers,
        seed: Seed,
        shared: Option<SharedStore>,
    ) -> Result<Running, OpenError> {
        let folder = Folder::take(folder)?;
        let keys = folder.file("keys.json");
        let mut nodes = shared.as_ref().map(|store| Nodes::open(&store.database)).transpose()?;
        nodes.as_mut().map_or(Ok(()), Nodes::is_to_be_served)?;
        let keys_version =
            nodes.as_mut().map(|nodes| node::share_keys(nodes, &keys, root_key)).transpose()?;
        let ring = RingFile::open_or_create(&keys, root_key)?;
        let vault = Vault::new(&ring.ring);
        let accounts = folder.file("accounts.db");
        let database = shared.as_ref().map(|shared| &shared.database);
        let keeps_accounts = database.is_none() || policy.accounts_from == AccountsFrom::Copy;
        if !keeps_accounts && accounts.exists() && Accounts::open_reader(&accounts)?.count()? > 0 {
            return Err(StoreError::OtherAccounts(
                "accounts.db has accounts and server.accounts says that this node keeps none: nobody would bring them up \
                 to date. If it is a copy, remove accounts.db* and accounts.table; if not, import them into the database",
            )
            .into());
        }
        let copied = database.filter(|_| keeps_accounts);
        let fresh = copied.map(|_| Arc::new(Freshness::new(policy.accounts_stale_max)));
        let follower = copied
            .zip(fresh.as_ref())
            .map(|(database, fresh)| Follower::open(database, &accounts, Arc::clone(fresh)));
        let follower = follower.transpose()?;
        let mut of_record = AccountsOfRecord::open(folder.path(), database)?;
        of_record.agree_with(&vault.keys())?;
        let mut sharing = None;
        let (mut opened, ledger) = match (shared.clone(), &mut nodes) {
            (Some(store), Some(nodes)) => {
                let lease = nodes.take_place(&store, keys_version.unwrap_or(0))?;
                let place =
                    LedgerPlace::Shared { database: Arc::clone(&store.database), node: store.node.clone() };
                let shared = Arc::new(Sharing::new(store, lease, keys_version.unwrap_or(0)));
                let lease = Arc::clone(&shared.lease);
                let mut opened = LedgerFile::open_shared(place.clone(), lease, &vault)?;
                opened.books.share_out(&nodes.slices(&shared.lease)?, true);
                nodes.keep_spent(&shared.lease, &opened.books.spending.sums())?;
                shared.read_spent(nodes, Clock::default().now_ms())?;
                sharing = Some(shared);
                (opened, place)
            }
            _ => {
                let file = folder.file("ledger.db");
                (LedgerFile::open(&file, &vault)?, LedgerPlace::File(file))
            }
        };
        let directory = opened.directory;
        let (directory, grants) = seeded(&mut opened.file, &opened.books, directory, seed, &vault)?;
        let Opened { file, books, tree, .. } = opened;
        let usage = UsageFile::open(&folder.file("usage.db"), file.reader()?)?;
        let platform = match database {
            None => Platform::open(&folder.file("platform.db"))?,
            Some(database) => Platform::shared(database)?,
        };
        let grow_log_bytes = policy.log_bytes;
        let engine = Arc::new(Engine {
            clock: Clock::default(),
            vault,
            metrics: Metrics::default(),
            queue: Queue::default(),
            post: Post::default(),
            policy: RwLock::new(Arc::new(policy)),
            issuers: RwLock::new(Arc::new(issuers)),
            rotating: Background::default(),
            erasing: Background::default(),
            ring: Mutex::new(ring),
            folder,
            directory: RwLock::new(Arc::new(directory)),
            books: Mutex::new(books),
            rates: Mutex::default(),
            providers: Mutex::default(),
            day: Mutex::default(),
            registering: Mutex::default(),
            jobs: bulk::Jobs::default(),
            table: Arc::new(TablePlace::of(&accounts)),
            ledger,
            sharing,
            keeps_accounts,
            fresh,
            platform: Mutex::new(platform),
            refusals: Mutex::default(),
        });
        let writer = Writer { engine: Arc::clone(&engine), file, tree, grow_log_bytes, nodes };
        let kept_open = match of_record {
            AccountsOfRecord::File(accounts) => Some(Box::new(Mutex::new(accounts))),
            AccountsOfRecord::Shared(_) => None,
        };
        let (threads, among_others) = (Vec::new(), Vec::new());
        let mut running = Running { engine, threads, among_others, _kept_open: kept_open };
        let begun = running.begin(writer, usage, follower, grants);
        if let Err(error) = begun {
            // Threads that have begun would keep the folder until the process ends.
            running.stop();
            return Err(error);
        }
        Ok(running)
    }

    /// Makes a node's folder ready: the key ring is taken from the database, if that has one.
    pub fn join(folder: &Path, store: &SharedStore, root_key: &[u8; 32]) -> Result<(), OpenError> {
        node::join(folder, store, root_key)
    }

    /// Whether a database has an installation: its nodes share a key ring.
    pub fn is_begun(store: &SharedStore) -> Result<bool, OpenError> {
        let mut nodes = Nodes::open(&store.database)?;
        nodes.is_to_be_served()?;
        Ok(nodes.known_key_ring()?.is_some())
    }

    /// A core's place; call it on the thread that will use it.
    pub fn desk(self: &Arc<Engine>) -> Result<Desk, StoreError> {
        let accounts = self.keeps_accounts.then(|| self.accounts_to_read()).transpose()?;
        Ok(Desk::new(Arc::clone(self), accounts))
    }

    /// A reader of this folder's accounts, for a thread that is no core.
    pub fn accounts_to_read(&self) -> Result<Accounts, StoreError> {
        self.has_accounts_to_read()?;
        let reader = Accounts::open_reader_of(&self.folder.file("accounts.db"), Arc::clone(&self.table))?;
        Ok(match &self.fresh {
            Some(fresh) => reader.while_fresh(Arc::clone(fresh)),
            None => reader,
        })
    }

    /// Whether there is something for such a reader here.
    pub(crate) fn has_accounts_to_read(&self) -> Result<(), StoreError> {
        match self.keeps_accounts {
            true => Ok(()),
            false => Err(StoreError::OtherAccounts(KEEPS_NO_ACCOUNTS)),
        }
    }

    /// The accounts of record, to change some; may wait for a database.
    pub fn accounts_to_change(&self) -> Result<AccountsOfRecord, StoreError> {
        match self.database() {
            None => AccountsOfRecord::open(self.folder.path(), None),
            Some(database) => Ok(AccountsOfRecord::Shared(SharedAccounts::again(database)?)),
        }
    }

    /// The same, to change many, alone.
    pub(crate) fn accounts_alone(&self) -> Result<AccountsOfRecord, StoreError> {
        AccountsOfRecord::open_alone(self.folder.path(), self.database(), &self.vault)
    }

    fn database(&self) -> Option<&Arc<Database>> {
        self.sharing.as_ref().map(|sharing| &sharing.store.database)
    }

    /// How fresh this node's copy of the accounts is; `None` where the node has its own.
    pub fn copy_of_accounts(&self) -> Option<&Freshness> {
        self.fresh.as_deref()
    }

    /// Waits for a copy of the accounts that may be answered from, a minute at most: a node that has just begun takes
    /// over what was changed, and a new one copies all.
    ///
    /// # Errors
    /// There is none yet. What was copied stays, and the next start goes on with it.
    pub fn await_accounts(&self) -> Result<(), StoreError> {
        const MOST: Duration = Duration::from_secs(60);
        let Some(copy) = &self.fresh else { return Ok(()) };
        let began = Instant::now();
        loop {
            match copy.check() {
                Err(_) if began.elapsed() < MOST => std::thread::sleep(Duration::from_millis(10)),
                checked => return checked,
            }
        }
    }

    /// Keeps the sealed table beside the accounts up to date, on a thread of its own that ends with the
    /// engine. Without it everything is answered all the same, only slower.
    pub fn keep_table(self: &Arc<Engine>) -> std::io::Result<()> {
        if !self.keeps_accounts {
            return Ok(());
        }
        let engine = Arc::clone(self);
        let keep = move || {
            // Whoever waits for an answer goes first.
            let _ = rustix::process::nice(15);
            let (mut epoch, mut fails) = (None, false);
            while !engine.is_closed() {
                let made = engine.make_table_if_due(&mut epoch);
                // Said once: a full disk stays full for a while.
                if let (Err(error), false) = (&made, fails) {
                    tracing::warn!(%error, "the sealed table could not be made; accounts are looked up in accounts.db");
                }
                fails = made.is_err();
                let pauses = if fails { 300 } else { 10 };
                for _ in (0..pauses).take_while(|_| !engine.is_closed()) {
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        };
        std::thread::Builder::new().name("card4e-table".into()).spawn(keep).map(drop)
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn make_table_if_due(&self, seen: &mut Option<i64>) -> Result<(), StoreError> {
        let accounts = Accounts::open_reader(&self.folder.file("accounts.db"))?;
        let (keys, epoch) = (self.vault.keys(), accounts.epoch()?);
        // While an import or a rotation of keys goes on, it would be of no use when it is made.
        let is_quiet = seen.replace(epoch).is_none_or(|seen| seen == epoch);
        if is_quiet && accounts.table_is_due(&keys)? {
            let needed = self.policy().disk_reserve_bytes + 128 * accounts.count()?;
            if self.folder.free_bytes().is_ok_and(|free| free < needed) {
                return Err(StoreError::Full { file: "accounts.table" });
            }
            accounts.make_table(&keys, || !self.is_closed() && self.vault.is_current(&keys))?;
        }
        Ok(())
    }

    /// The newest rows of the projection, of one application or of all.
    pub fn usage(&self, application: Option<u32>, most: u32) -> Result<Vec<store::UsageRow>, StoreError> {
        let ledger = self.ledger()?;
        UsageFile::newest(&self.folder.file("usage.db"), &ledger, application, most, &self.vault)
    }

    /// How this installation verifies, counts and charges, as of now.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which prefix belongs to which bank, as of now.
    pub fn issuers(&self) -> Arc<Issuers> {
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the next question on it is verified, counted and charged like this. A price that was set
    /// aside stays what it was.
    pub fn replace_policy(&self, policy: Policy, issuers: Issuers) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(issuers);
    }

    /// The ledger, to read it.
    pub(crate) fn ledger(&self) -> Result<LedgerReader, StoreError> {
        LedgerReader::open(self.ledger.clone())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.file(name)
    }

    /// Rows of the projection, newest first: how many there are in all, and one page of them.
    pub fn usage_page(
        &self,
        filter: &store::UsageFilter,
        page: (u32, u32),
    ) -> Result<(u32, Vec<store::UsageRow>), StoreError> {
        let ledger = self.ledger()?;
        UsageFile::page(&self.folder.file("usage.db"), &ledger, filter, page, &self.vault)
    }

    /// The projection summed up by day, action and outcome.
    pub fn usage_days(
        &self,
        filter: &store::UsageFilter,
        offset_ms: i64,
    ) -> Result<Vec<store::DayUse>, StoreError> {
        UsageFile::days(&self.folder.file("usage.db"), filter, offset_ms)
    }

    /// Notes that a request of a known caller was refused, for its usage pages.
    pub fn note_refusal(&self, refusal: store::Refusal) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).note(refusal);
    }

    /// Refused requests, newest first: how many are kept, and one page of them.
    pub fn refusal_page(
        &self,
        filter: &store::UsageFilter,
        page: (u32, u32),
    ) -> Result<(u32, Vec<store::RefusalRow>), StoreError> {
        UsageFile::refusals(&self.folder.file("usage.db"), filter, page)
    }

    /// How often which code was answered.
    pub fn refusal_counts(
        &self,
        filter: &store::UsageFilter,
    ) -> Result<Vec<store::RefusalCount>, StoreError> {
        UsageFile::refusal_counts(&self.folder.file("usage.db"), filter)
    }

    /// Everybody who may ask, as of now.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a change durable and known to everybody. What somebody asked for goes through
    /// [`operator::Acting`] instead, which records it first.
    pub(crate) fn change(&self, change: Change) -> Result<(), StoreError> {
        self.queue.change(change)
    }

    /// The credential that somebody presents this token of, if it is known and not exchanged.
    pub fn credential_of_token(&self, token: &str) -> Option<Arc<Credential>> {
        let (directory, now) = (self.directory(), self.clock.now_ms());
        self.vault.keys().tokens(token).find_map(|hash| directory.token(&hash, now))
    }

    pub(crate) fn replace_directory(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }

    /// Makes an entry durable that is no answer.
    pub fn record(&self, entry: Entry) -> Result<(), StoreError> {
        self.queue.record(entry)
    }

    /// Whether answers can be made durable; while they cannot, nothing is answered.
    pub fn writing(&self) -> Writing {
        self.queue.writing()
    }

    /// How long ago this node last told the database that it lives; `None` where it shares none. Beyond ten seconds
    /// the others take it for dead.
    pub fn silent_for(&self) -> Option<Duration> {
        self.sharing.as_ref().map(|sharing| sharing.silent_for())
    }

    /// Questions handed to the writer and not yet settled.
    pub fn under_way(&self) -> usize {
        self.queue.under_way.load(Ordering::Relaxed)
    }

    /// Sums over all entries.
    pub fn totals(&self) -> Totals {
        self.books().totals
    }

    /// What is left to an application; `None`: unlimited.
    pub fn balance(&self, application: &Application) -> Option<Credits> {
        self.books().balance(application)
    }

    /// Forgets the requests of the current second.
    pub fn forget_rates(&self) {
        *self.rates() = Rates::default();
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // A panic while the books were changed leaves them unknown; nobody may be answered from them.
        #[expect(clippy::expect_used, reason = "fails closed: each request becomes an internal error")]
        self.books.lock().expect("the books are whole")
    }

    /// Gives a hold back; after a panic there are no books left to give it back to.
    pub(crate) fn release(&self, application: &Application, credential: CredentialId, price: Credits) {
        if let Ok(mut books) = self.books.lock() {
            books.release(application, price);
            books.release_limit(credential, price);
        }
    }

    pub(crate) fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attempt_refs(
        &self,
        caller: CallerId,
        action: Action,
        subject: &Subject,
        policy: &AttemptPolicy,
    ) -> Result<AttemptRefs, Refusal> {
        let mut key = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that around midnight the key only ever turns forward.
        let today = clock::beijing_day(self.clock.now_ms());
        if key.as_ref().is_none_or(|key| key.day != today) && self.sharing.is_some() {
            // It was there a moment ago, and midnight came in between.
            return Err(Refusal::Stopped);
        }
        if key.as_ref().is_none_or(|key| key.day != today) {
            *key = Some(self.day_key(today).map_err(|error| {
                tracing::error!(%error, "the key of the day cannot be kept; attempts cannot be counted");
                Refusal::Stopped
            })?);
        }
        let Some(DayKey { cmac, .. }) = key.as_ref() else { return Err(Refusal::Stopped) };
        let value = |field: u8, text: Option<&[u8]>| text.map(|text| cmac.mac(&[&[field], text]));
        let card = subject.card.as_ref().map(|card| card.as_str().as_bytes());
        let name = subject.name.as_ref().map(|name| name.e1());
        let id = subject.id.as_ref().map(|id| id.as_str().as_bytes());
        let mobile = subject.mobile.as_ref().map(|mobile| mobile.as_str().as_bytes());
        let found_by = match action.found_by() {
            Element::Card => card,
            Element::Name => name,
            Element::Id => id,
            Element::Mobile => mobile,
        };
        let card_ref = value(0, card);
        Ok(AttemptRefs {
            day: today,
            caller,
            values: [
                card_ref.filter(|_| policy.count_card),
                value(1, name.filter(|_| policy.count_name)),
                value(2, id.filter(|_| policy.count_id)),
                value(3, mobile.filter(|_| policy.count_mobile)),
            ],
            card: cmac.mac(&[&[0x80 | action as u8], found_by.unwrap_or_default()]),
            across: card_ref.filter(|_| action.is_about_holder()),
        })
    }

    /// Today's key, which nodes share.
    pub(crate) async fn ensure_day_key(&self, sharing: &Sharing) -> Result<(), Refusal> {
        let today = clock::beijing_day(self.clock.now_ms());
        let is_known = |key: &Option<DayKey>| key.as_ref().is_some_and(|key| key.day == today);
        if is_known(&self.day.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let place = day_key_place(today);
        let own = self.vault.seal(Seal::Credential, place.as_bytes(), &random::<32>());
        let sealed = sharing.day_key(today, own).await?;
        let opened = self.vault.open(Seal::Credential, place.as_bytes(), &sealed);
        let key = opened.ok().and_then(|key| <[u8; 32]>::try_from(&key[..]).ok()).ok_or_else(|| {
            tracing::error!("the key of the day cannot be opened; attempts cannot be counted");
            Refusal::Stopped
        })?;
        *self.day.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(DayKey { day: today, cmac: Cmac::new(&key) });
        Ok(())
    }

    /// Seals today's key with the newest key, if there is one.
    pub(crate) fn reseal_day_key(&self) -> std::io::Result<()> {
        // Nobody may make a new one meanwhile.
        let _day = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.file("day.key");
        let kept = match std::fs::read(&path) {
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            kept => kept?,
        };
        let Some((day, sealed)) = kept.split_first_chunk::<4>() else { return Ok(()) };
        let place = day_key_place(u32::from_be_bytes(*day));
        // One that does not open is yesterday's, or is replaced when it is asked for.
        let Ok(key) = self.vault.open(Seal::Credential, place.as_bytes(), sealed) else { return Ok(()) };
        let sealed = self.vault.seal(Seal::Credential, place.as_bytes(), &key);
        file::write_durably(&path, &[&day[..], &sealed].concat())
    }

    /// Today's key from its file, or a new one in its place; yesterday's is overwritten first.
    fn day_key(&self, today: u32) -> std::io::Result<DayKey> {
        let path = self.folder.file("day.key");
        if let Ok(kept) = std::fs::read(&path)
            && let Some((day, sealed)) = kept.split_first_chunk::<4>()
        {
            let day = u32::from_be_bytes(*day);
            let opened = self.vault.open(Seal::Credential, day_key_place(day).as_bytes(), sealed);
            if day == today
                && let Ok(key) = opened
                && let Ok(key) = key[..].try_into()
            {
                return Ok(DayKey { day, cmac: Cmac::new(&key) });
            }
            file::overwrite(&path)?;
        }
        let key: [u8; 32] = random();
        let sealed = self.vault.seal(Seal::Credential, day_key_place(today).as_bytes(), &key);
        file::write_durably(&path, &[&today.to_be_bytes()[..], &sealed].concat())?;
        Ok(DayKey { day: today, cmac: Cmac::new(&key) })
    }
}

fn day_key_place(day: u32) -> String {
    format!("card4e day key {day}")
}

impl Running {
    /// Sets the threads to work, and does what was left undone.
    fn begin(
        &mut self,
        writer: Writer,
        usage: UsageFile,
        follower: Option<Follower>,
        grants: Vec<Entry>,
    ) -> Result<(), OpenError> {
        let engine = &self.engine;
        if let Some(sharing) = &engine.sharing {
            let threads = &mut self.among_others;
            set_among_others(engine, sharing, threads)?;
            if let Some(follower) = follower {
                threads.push(follow_accounts(Arc::clone(engine), Arc::clone(sharing), follower)?);
            }
        }
        self.threads.push(thread("card4e-ledger", move || run_or_abort(writer))?);
        self.threads.push(projector(Arc::clone(engine), usage)?);
        grants.into_iter().try_for_each(|grant| engine.record(grant))?;
        engine.resume_orders()?;
        engine.resolve_purchases();
        Ok(())
    }

    /// Settles what waits, keeps a snapshot, ends the threads.
    pub fn stop(self) {
        self.engine.erasing.stop();
        self.engine.rotating.stop();
        self.engine.queue.close();
        join(self.threads);
        let Some(sharing) = &self.engine.sharing else { return };
        sharing.close();
        self.among_others.iter().for_each(|thread| thread.thread().unpark());
        join(self.among_others);
        let left = Nodes::again(&sharing.store.database).and_then(|mut nodes| nodes.leave(&sharing.lease));
        if let Err(error) = left {
            tracing::warn!(%error, "what this node has of balances is given back in a few seconds, by another one");
        }
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the engine ended in a panic");
        }
    }
}

/// Starts the threads of a node that shares a database.
fn set_among_others(
    engine: &Arc<Engine>,
    sharing: &Arc<Sharing>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), OpenError> {
    let (teller, watcher) = (Nodes::again(&sharing.store.database)?, Nodes::again(&sharing.store.database)?);
    let (engine_of_teller, sharing_of_teller) = (Arc::clone(engine), Arc::clone(sharing));
    let (engine, sharing_of_watcher, listener) =
        (Arc::clone(engine), Arc::clone(sharing), Arc::clone(sharing));
    threads.push(thread("card4e-teller", move || {
        node::tell_all(&engine_of_teller, &sharing_of_teller, teller)
    })?);
    threads.push(thread("card4e-watcher", move || node::watch(&engine, &sharing_of_watcher, watcher))?);
    threads.push(thread("card4e-listener", move || node::listen(&listener))?);
    Ok(())
}

/// Without its writer nothing can be answered any more, and everybody would wait for ever: a panic
/// there ends the process, and the next start reads back what is durable.
fn run_or_abort(writer: Writer) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run())).is_err() {
        tracing::error!("the ledger's thread ended in a panic; the process ends, nothing durable is lost");
        std::process::abort();
    }
}

/// Adds what the seed asks for and the folder does not have yet.
fn seeded(
    file: &mut LedgerFile,
    books: &Books,
    directory: Directory,
    seed: Seed,
    vault: &Vault,
) -> Result<(Directory, Vec<Entry>), StoreError> {
    if seed.callers.is_empty() {
        return Ok((directory, Vec::new()));
    }
    let credentials = (seed.credentials)(vault);
    let callers = seed.callers.iter().map(Put::Caller);
    let applications = seed.applications.iter().map(|(application, _)| Put::Application(application));
    let all: Vec<_> = callers.chain(applications).chain(credentials.iter().map(Put::Credential)).collect();
    file.put(&all, vault)?;
    // Asked of the books, not of the applications: a crash in between must not lose the grant.
    let is_due = |(application, amount): &&(Application, Credits)| {
        *amount > Credits::ZERO && !books.was_granted(application.id)
    };
    let grant = |(application, amount): &(Application, Credits)| Entry::Grant {
        at_ms: 0,
        application: application.id,
        amount: *amount,
    };
    Ok((file.directory(vault)?, seed.applications.iter().filter(is_due).map(grant).collect()))
}

fn projector(engine: Arc<Engine>, mut usage: UsageFile) -> Result<JoinHandle<()>, OpenError> {
    const PAUSE: Duration = Duration::from_millis(200);
    thread("card4e-usage", move || {
        // Whoever waits for an answer goes first, also where all share one core.
        let _ = rustix::process::nice(19);
        let mut lags = false;
        loop {
            // Asked before, so that what was settled until the end is still taken over.
            let closing = engine.queue.is_closed();
            match usage.catch_up() {
                Ok(taken) => {
                    engine.metrics.projected.fetch_add(taken, Ordering::Relaxed);
                    lags = false;
                }
                // Said once: a full disk stays full for a while.
                Err(error) if !lags => {
                    tracing::warn!(%error, "the usage rows lag behind the ledger; they are tried again");
                    lags = true;
                }
                Err(_) => {}
            }
            let refused =
                std::mem::take(&mut *engine.refusals.lock().unwrap_or_else(PoisonError::into_inner));
            if !refused.is_empty()
                && let Err(error) = usage.take_refusals(&refused, engine.clock.now_ms())
            {
                tracing::warn!(%error, "refused requests are missing from the usage rows");
            }
            if closing {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    })
}

/// Keeps this node's copy of the accounts up to date, until the engine ends.
fn follow_accounts(
    engine: Arc<Engine>,
    sharing: Arc<Sharing>,
    mut follower: Follower,
) -> Result<JoinHandle<()>, OpenError> {
    /// How often somebody looks whether deletions can be forgotten.
    const FORGET_EVERY: Duration = Duration::from_secs(3600);
    /// How often the log says how far a first copy is.
    const SAY_EVERY: Duration = Duration::from_secs(10);
    let follow = move || {
        let (mut lags, mut copied, mut seen) = (false, 0u64, 0u64);
        let (mut said, mut forgot) = (Instant::now(), None);
        while !engine.is_closed() {
            // Before anything is looked up with them: the copy must hold what these keys find.
            let keys = engine.vault.keys();
            let is = follower.step(&keys);
            drop(keys);
            match is {
                Ok(is) => {
                    if is.is_copying {
                        copied += is.rows;
                    }
                    if is.is_copying && said.elapsed() > SAY_EVERY {
                        tracing::info!(copied, "copying the accounts from the database");
                        said = Instant::now();
                    }
                    if is.is_current && copied > 0 {
                        tracing::info!(accounts = copied, "the accounts are copied from the database");
                        copied = 0;
                    }
                    if lags {
                        tracing::info!("the accounts of the database are followed again");
                    }
                    lags = false;
                    if !is.is_current {
                        continue;
                    }
                }
                // Said once: a database that is away stays away for a while.
                Err(error) => {
                    if !lags {
                        tracing::warn!(%error, "the accounts of the database cannot be followed; it is tried again");
                    }
                    lags = true;
                }
            }
            if forgot.is_none_or(|at: Instant| at.elapsed() >= FORGET_EVERY) {
                forgot = Some(Instant::now());
                if let Err(error) = follower.forget_deletions(engine.clock.now_ms()) {
                    tracing::warn!(%error, "deletions that every node knows are not forgotten yet");
                }
            }
            sharing.next_notice(&mut seen, engine.policy().look_every);
        }
    };
    thread("card4e-accounts", follow)
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}
