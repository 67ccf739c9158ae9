//! Several engines on one database, each behind a network that fails, all of it from a seed.
//!
//! The seed decides what is asked where, which messages to the database are lost, late, or cut off from their answers
//! (`support/proxy.rs`), when a node is found dead, cut off or restarted, and when the database ends all sessions; how
//! the threads take their turns between is the machine's.
//!
//! At the end of each world the network is mended, and then: no answered charge is lost or there twice, none is
//! invented, what was refused is not there, one key is one answer wherever it was sent, no balance is overspent, no
//! attempt is left uncounted, all trees hold, and what nodes and tables say of balances adds up.
//!
//! ```sh
//! cargo test -p card4e-engine --test nodes_under_faults                                      # some seconds
//! CARD4E_SIMULATE=1000000 cargo test --release -p card4e-engine --test nodes_under_faults -- --nocapture  # a tenth of it
//! CARD4E_SEED=7 cargo test -p card4e-engine --test nodes_under_faults -- --nocapture         # one seed again
//! ```

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "figures, and the seed of what failed, past the harness")]

#[path = "support/all.rs"]
mod all;
#[expect(dead_code, reason = "questions here are of many kinds")]
#[path = "support/ask.rs"]
mod ask;
#[path = "support/draws.rs"]
mod draws;
#[path = "support/park.rs"]
mod park;
#[expect(dead_code, reason = "the server lives")]
#[path = "support/postgres.rs"]
mod postgres;
#[expect(dead_code, reason = "the seed says what is lost")]
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use engine::account::AccountText;
use engine::caller::{
    Action, Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Proof, Standing, Wire,
};
use engine::claim::Claim;
use engine::clock::{Clock, Mode};
use engine::issuer::Issuers;
use engine::ledger::{Answer, Credits, Entry};
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::{Class, Outcome};
use engine::settle::{Desk, Settlement, Writing};
use engine::store::postgres::{Database, Session};
use engine::store::{LedgerFile, LedgerPlace, LedgerReader, SharedStore, StoreError};
use engine::subject::{Date, ParseOptions};
use engine::vault::{KeyRing, Vault};
use engine::verify::{Question, Refusal, new_request_id, verify};
use engine::{AccountsFrom, Engine, Policy, Running, Seed};

use draws::Draws;
use proxy::Proxy;

const ROOT: [u8; 32] = [9; 32];
const DAY: i64 = 86_400_000;
const RIGHT: &str = "16100000001";
const WRONG: &str = "16100000002";

/// Seeds that are always tried; a seed that ever failed is added.
const SEEDS: [u64; 1] = [1];
const NODES: usize = 3;
const STEPS: u32 = 50;

/// Cards with an account; the last is asked about with a wrong mobile only.
const CARDS: u64 = 24;
const GUESSED: u64 = CARDS - 1;

/// So often a day a card may be asked about, and so many mismatches in a row lock it.
const PER_CARD: u32 = 25;
const LOCK_AFTER: u32 = 3;
const GRANTED: i64 = 250;

/// Longer than the database may leave a session in a transaction, a node wait for it, and all of it again.
const STEP_MOST: Duration = Duration::from_secs(120);

#[test]
fn nothing_answered_is_lost_and_nothing_is_invented_on_several_nodes() {
    let Some(server) = postgres::shared() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let new: u64 = u64::from_be_bytes(engine::vault::random());
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("CARD4E_SEED"), number("CARD4E_SIMULATE")) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(_)) => Box::new(SEEDS.into_iter().chain((0..).map(|turn| new.wrapping_add(turn)))),
        (None, None) => Box::new(SEEDS.into_iter().chain([new])),
    };
    println!("a new seed: CARD4E_SEED={new}");
    let began = Instant::now();
    let wanted = number("CARD4E_SIMULATE").map_or(u64::MAX, |questions| questions / 10);
    let mut all = Seen::default();
    for seed in seeds {
        let again = Again(seed);
        let seen = World::new(server, seed).run();
        std::mem::forget(again);
        all.add(&seen);
        println!("seed {seed}: {} asked, {} s", all.asked, began.elapsed().as_secs());
        if all.asked >= wanted {
            break;
        }
    }
    println!("{all:?}");
    if number("CARD4E_SEED").is_some() {
        return;
    }
    assert!(all.answered * 4 > all.asked && all.refused > 0 && all.recalled > 0, "{all:?}");
    assert!(all.faults > 0 && all.found_dead > 0 && all.cut > 0 && all.restarts > 0, "{all:?}");
}

/// Says how to do the same once more, should this end in a panic.
struct Again(u64);

impl Again {
    fn say(&self) {
        let Again(seed) = self;
        eprintln!(
            "again: CARD4E_SEED={seed} cargo test -p card4e-engine --test nodes_under_faults -- --nocapture"
        );
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.say();
    }
}

/// What happened, to see that something did.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    asked: u64,
    answered: u64,
    recalled: u64,
    refused: u64,
    /// Told nothing, and in the ledger all the same.
    unknown: u64,
    /// Messages that failed.
    faults: u64,
    found_dead: u64,
    cut: u64,
    restarts: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        let Seen { asked, answered, recalled, refused, unknown, faults, found_dead, cut, restarts } = other;
        self.asked += asked;
        self.answered += answered;
        self.recalled += recalled;
        self.refused += refused;
        self.unknown += unknown;
        self.faults += faults;
        self.found_dead += found_dead;
        self.cut += cut;
        self.restarts += restarts;
    }
}

/// A question somebody asks.
#[derive(Clone, Debug)]
struct Wish {
    request: [u8; 16],
    application: u32,
    card: u64,
    mobile: &'static str,
    key: Option<String>,
    day: i64,
    /// Whoever asks goes away when it was looked at so often.
    gone_after: Option<u64>,
}

struct Node {
    name: String,
    folder: tempfile::TempDir,
    proxy: Proxy,
    running: Option<Running>,
}

impl Node {
    fn engine(&self) -> &Arc<Engine> {
        &self.running.as_ref().unwrap().engine
    }

    /// The first keeps no copy of the accounts.
    fn policy(&self) -> Policy {
        let is_first = self.name.ends_with('0');
        Policy {
            accounts_from: if is_first { AccountsFrom::Database } else { AccountsFrom::Copy },
            ..policy()
        }
    }

    /// In calm weather: an installation that cannot be opened is not what this is about.
    fn start(&mut self, now: i64) {
        self.proxy.storm(false);
        let shared = SharedStore { database: Arc::clone(self.proxy.database()), node: self.name.clone() };
        let running =
            Engine::open(self.folder.path(), &ROOT, self.policy(), Issuers::built_in(), seed(), Some(shared))
                .unwrap();
        running.engine.clock.set(Mode::Frozen(now));
        self.running = Some(running);
        self.proxy.storm(true);
    }

    fn stop(&mut self) {
        self.running.take().unwrap().stop();
    }
}

/// One installation through all that happens to it, and what its callers were told.
struct World {
    draws: Draws,
    /// Past the network that fails.
    database: Arc<Database>,
    nodes: Vec<Node>,
    now: i64,
    seen: Seen,
    asked: HashMap<[u8; 16], Wish>,
    /// Answers that callers were told, by request.
    told: HashMap<[u8; 16], Answer>,
    /// Questions whose callers were told nothing: they may be in the ledger.
    open: HashSet<[u8; 16]>,
    /// What was told of an answer that somebody else's question had, or an earlier one.
    recalled: Vec<(Wish, Answer)>,
    /// Grants that may have happened, whole credits; and those that were confirmed.
    perhaps_granted: i64,
    granted: i64,
}

fn policy() -> Policy {
    Policy {
        attempts: AttemptPolicy {
            per_card: Some(PER_CARD),
            per_value: Some(0),
            lock_after: Some(LOCK_AFTER),
            ..AttemptPolicy::default()
        },
        accounts_stale_max: Duration::from_secs(600),
        ..ask::policy()
    }
}

fn caller(number: u32) -> Caller {
    let name = if number == 1 { "shop" } else { "bank" };
    Caller { id: CallerId(number), name: name.into(), standing: Standing::Active, operator: false }
}

/// The first pays, the second is unlimited.
fn application(number: u32) -> Application {
    Application { unlimited: number == 2, ..Application::of(ApplicationId(number), &caller(number)) }
}

fn credential(vault: &Vault, number: u32) -> Credential {
    let hash = vault.token(&format!("token {number}"));
    let proof = Proof::Bearer { hash, last4: "oken".into(), previous: None };
    let (id, application) = (CredentialId(number), ApplicationId(number));
    let (addresses, actions) = (vec![], vec![]);
    Credential { id, application, proof, expires_at_ms: None, addresses, actions, purpose: None, limit: None }
}

fn seed() -> Seed {
    Seed {
        callers: vec![caller(1), caller(2)],
        applications: vec![(application(1), Credits::whole(GRANTED)), (application(2), Credits::ZERO)],
        credentials: |vault| vec![credential(vault, 1), credential(vault, 2)],
    }
}

fn number(card: u64) -> String {
    format!("621700{card:010}")
}

fn is_lost(card: u64) -> bool {
    card % 8 == 7 && card != GUESSED
}

fn put_people(engine: &Engine) {
    let options = ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2026, 11, 21).unwrap()) };
    let row = |card: u64| {
        let (card, state) = (number(card), if is_lost(card) { "lost" } else { "normal" });
        let (name, id) = ("张伟", "99010119610202001X");
        let text = AccountText { card: &card, name, id, mobile: RIGHT, state, ..AccountText::default() };
        text.row(&options, &engine.vault).unwrap()
    };
    let rows: Vec<_> = (0..CARDS).map(row).collect();
    // The connection may be one that fails.
    soon("the accounts are put", || {
        engine.accounts_to_change().is_ok_and(|mut accounts| accounts.put(&rows, &engine.vault).is_ok())
    });
}

/// Waits until it is so.
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < STEP_MOST, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl World {
    fn new(server: &postgres::Postgres, seed: u64) -> World {
        let url = server.url();
        // Some days ahead: what a start sweeps, by the machine's clock, is older.
        let now = Clock::default().now_ms();
        let node = |number: usize| Node {
            name: format!("node {number}"),
            folder: tempfile::tempdir().unwrap(),
            proxy: Proxy::new(&url, seed ^ (number as u64) << 32),
            running: None,
        };
        let mut world = World {
            draws: Draws(seed),
            database: postgres::database_at(&url),
            nodes: (0..NODES).map(node).collect(),
            now: now - now % DAY + 3 * DAY,
            seen: Seen::default(),
            asked: HashMap::new(),
            told: HashMap::new(),
            open: HashSet::new(),
            recalled: Vec::new(),
            perhaps_granted: GRANTED,
            granted: GRANTED,
        };
        let now = world.now;
        world.nodes.iter_mut().for_each(|node| node.start(now));
        put_people(world.nodes[0].engine());
        let last = number(CARDS - 1);
        for node in &world.nodes {
            let (engine, keys) = (node.engine(), node.engine().vault.keys());
            let Ok(accounts) = engine.accounts_to_read() else { continue };
            soon("the accounts are copied", || accounts.find(&last, &keys).is_ok_and(|row| row.is_some()));
        }
        world
    }

    fn run(mut self) -> Seen {
        let watched = Watchdog::new(self.draws.0);
        for _ in 0..STEPS {
            match self.draws.below(100) {
                0..72 => self.ask_some(),
                72..82 => self.find_dead(),
                82..88 => self.cut_off(),
                88..91 => self.restart(),
                91..94 => self.recharge(),
                94..97 => self.end_sessions(),
                _ => self.next_day(),
            }
            watched.step();
        }
        self.mend();
        watched.step();
        self.ask_again();
        self.nodes.iter_mut().for_each(Node::stop);
        self.check();
        self.seen.faults = self.nodes.iter().map(|node| node.proxy.faults()).sum();
        self.seen
    }

    /// Many questions at all nodes at once.
    fn ask_some(&mut self) {
        let wishes: Vec<Vec<Wish>> = (0..NODES)
            .map(|_| {
                let count = 1 + self.draws.below(24);
                (0..count).map(|_| self.wish()).collect()
            })
            .collect();
        self.ask(wishes);
    }

    fn ask(&mut self, wishes: Vec<Vec<Wish>>) {
        let settled: Vec<Vec<Option<Settlement>>> = std::thread::scope(|scope| {
            let ask = |(node, wishes): (&Node, &Vec<Wish>)| {
                let (engine, wishes) = (Arc::clone(node.engine()), wishes.clone());
                scope.spawn(move || ask_all(&engine, &wishes))
            };
            let threads: Vec<_> = self.nodes.iter().zip(&wishes).map(ask).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (wish, settlement) in wishes.into_iter().flatten().zip(settled.into_iter().flatten()) {
            self.take(wish, settlement);
        }
    }

    fn wish(&mut self) -> Wish {
        let card = self.draws.below(CARDS);
        let is_wrong = card == GUESSED || self.draws.one_in(6);
        Wish {
            request: new_request_id(),
            application: 1 + self.draws.below(2) as u32,
            card,
            mobile: if is_wrong { WRONG } else { RIGHT },
            key: self.draws.one_in(3).then(|| format!("day {} key {}", self.now / DAY, self.draws.below(60))),
            day: self.now / DAY,
            gone_after: self.draws.one_in(20).then(|| 1 + self.draws.below(4)),
        }
    }

    fn take(&mut self, wish: Wish, settlement: Option<Settlement>) {
        self.seen.asked += 1;
        match settlement {
            Some(Ok(settled)) if settled.replayed => {
                self.seen.recalled += 1;
                assert!(wish.key.is_some());
                self.recalled.push((wish.clone(), settled.answer));
            }
            Some(Ok(settled)) => {
                let answer = settled.answer;
                assert_eq!((answer.request, answer.application.0), (wish.request, wish.application));
                let expected = match (is_lost(wish.card), wish.mobile) {
                    (true, _) => &[Outcome::CardLost, Outcome::HolderMismatch][..],
                    (false, RIGHT) => &[Outcome::Pass],
                    (false, _) => &[Outcome::HolderMismatch],
                };
                let is_expected =
                    expected.contains(&answer.outcome) || answer.outcome == Outcome::AttemptsExceeded;
                assert!(is_expected, "{:?} for {wish:?}", answer.outcome);
                self.seen.answered += 1;
                assert!(self.told.insert(answer.request, answer).is_none(), "answered twice");
            }
            Some(Err(Refusal::Arrears)) => {
                self.seen.refused += 1;
                assert_eq!(wish.application, 1, "unlimited");
            }
            Some(Err(Refusal::KeyReused)) => {
                self.seen.refused += 1;
                assert!(wish.key.is_some());
            }
            Some(Err(Refusal::Stopped)) => {
                self.seen.refused += 1;
                self.open.insert(wish.request);
            }
            Some(Err(other)) => panic!("{other:?}"),
            None => drop(self.open.insert(wish.request)),
        }
        self.asked.insert(wish.request, wish);
    }

    fn meddle(&self, sql: &str) {
        let mut session = Session::new(Arc::clone(&self.database)).unwrap();
        // Several attempts: nodes may be in the way.
        let done = session.transaction(async |connection| {
            connection.client.batch_execute(sql).await.map_err(StoreError::Database)
        });
        done.unwrap();
    }

    fn draw_node(&mut self) -> usize {
        self.draws.below(NODES as u64) as usize
    }

    /// Another node finds one dead that lives, while questions are asked: it does what `Nodes::bury` does.
    fn find_dead(&mut self) {
        self.seen.found_dead += 1;
        let (node, epoch) = (self.draw_node() + 1, self.draws.below(u64::MAX) as i64);
        let pause = Duration::from_millis(self.draws.below(30));
        let sql = format!(
            "UPDATE node SET epoch = {epoch} WHERE number = {node};
             INSERT INTO purse SELECT kind, id, remains FROM slice WHERE node = {node} AND remains > 0
             ORDER BY kind, id ON CONFLICT (kind, id) DO UPDATE SET free = purse.free + excluded.free;
             UPDATE slice SET remains = 0 WHERE node = {node} AND remains > 0;"
        );
        self.beside(move |world| {
            std::thread::sleep(pause);
            world.meddle(&sql);
        });
    }

    /// A node does not reach the database for a while.
    fn cut_off(&mut self) {
        self.seen.cut += 1;
        let node = self.draw_node();
        let (pause, away) = (self.draws.below(30), 50 + self.draws.below(800));
        self.beside(move |world| {
            std::thread::sleep(Duration::from_millis(pause));
            world.nodes[node].proxy.cut(true);
            std::thread::sleep(Duration::from_millis(away));
            world.nodes[node].proxy.cut(false);
        });
    }

    /// The database ends all sessions, as one that is restarted.
    fn end_sessions(&mut self) {
        let pause = Duration::from_millis(self.draws.below(30));
        self.beside(move |world| {
            std::thread::sleep(pause);
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            world.meddle(end);
        });
    }

    /// Something happens while questions are asked.
    fn beside(&mut self, what: impl FnOnce(&World) + Send) {
        let wishes: Vec<Vec<Wish>> = (0..NODES).map(|_| (0..16).map(|_| self.wish()).collect()).collect();
        let settled: Vec<Vec<Option<Settlement>>> = std::thread::scope(|scope| {
            let world = &*self;
            scope.spawn(move || what(world));
            let ask = |(node, wishes): (&Node, &Vec<Wish>)| {
                let (engine, wishes) = (Arc::clone(node.engine()), wishes.clone());
                scope.spawn(move || ask_all(&engine, &wishes))
            };
            let threads: Vec<_> = world.nodes.iter().zip(&wishes).map(ask).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (wish, settlement) in wishes.into_iter().flatten().zip(settled.into_iter().flatten()) {
            self.take(wish, settlement);
        }
    }

    fn restart(&mut self) {
        self.seen.restarts += 1;
        let (node, now) = (self.draw_node(), self.now);
        self.nodes[node].stop();
        self.nodes[node].start(now);
    }

    fn recharge(&mut self) {
        let (node, amount) = (self.draw_node(), 1 + self.draws.below(60) as i64);
        self.perhaps_granted += amount;
        let granted = self.nodes[node].engine().acting(By::Machine).grant("shop", Credits::whole(amount));
        self.granted += if granted.is_ok() { amount } else { 0 };
    }

    /// Counters begin again.
    fn next_day(&mut self) {
        self.now += DAY;
        for node in &self.nodes {
            node.engine().clock.set(Mode::Frozen(self.now));
        }
    }

    /// From here on nothing fails, and all nodes go on.
    fn mend(&mut self) {
        for node in &self.nodes {
            node.proxy.storm(false);
            soon("the node answers again", || node.engine().writing() == Writing::Works);
        }
    }

    /// A key that was answered is known at every node.
    fn ask_again(&mut self) {
        let mut known: Vec<&Wish> = self
            .told
            .values()
            .filter(|answer| is_kept(answer))
            .map(|answer| &self.asked[&answer.request])
            .collect();
        known.retain(|wish| wish.key.is_some() && wish.day == self.now / DAY);
        let again = known.into_iter().take(60).map(|wish| Wish {
            request: new_request_id(),
            gone_after: None,
            ..wish.clone()
        });
        let again: Vec<Wish> = again.collect();
        let before = self.seen.recalled;
        let count = again.len() as u64;
        let wishes =
            (0..NODES).map(|node| again.iter().skip(node).step_by(NODES).cloned().collect()).collect();
        self.ask(wishes);
        assert_eq!(self.seen.recalled - before, count, "a key that was answered is asked again");
    }

    fn column(&self, sql: &str) -> i64 {
        let mut session = Session::new(Arc::clone(&self.database)).unwrap();
        session.read(async |connection| connection.client.query_one(sql, &[]).await).unwrap().get(0)
    }

    /// The ledger of all nodes is what callers were told, and no more; and everything adds up to it.
    fn check(&mut self) {
        let vault =
            Vault::new(&KeyRing::open(&self.nodes[0].folder.path().join("keys.json"), &ROOT).unwrap());
        let place = LedgerPlace::Shared { database: Arc::clone(&self.database), node: "node 0".into() };
        let audit =
            LedgerFile::check(place.clone(), &vault).unwrap_or_else(|error| panic!("the audit: {error}"));
        assert_eq!(audit.trees, NODES as u64);
        let (mut answers, mut granted) = (HashMap::new(), 0);
        let all = i64::MIN..i64::MAX;
        let read = LedgerReader::open(place).unwrap().entries(&all, |entry| {
            match entry {
                Entry::Answer(answer) => {
                    let before = answers.insert(answer.request, answer.clone());
                    assert!(before.is_none(), "an answer is in the ledger twice: {answer:?}");
                }
                Entry::Grant { amount, .. } => granted += amount.0 / 1_000_000,
                _ => {}
            }
            Ok::<_, StoreError>(())
        });
        read.unwrap();
        for (request, told) in &self.told {
            assert_eq!(answers.get(request), Some(told), "what a caller was told is not in the ledger");
        }
        for answer in answers.values().filter(|answer| !self.told.contains_key(&answer.request)) {
            assert!(self.open.contains(&answer.request), "nobody asked, or it was refused: {answer:?}");
            self.seen.unknown += 1;
        }
        for (wish, told) in &self.recalled {
            let first = &self.asked[&told.request];
            assert_eq!(answers.get(&told.request), Some(told), "what was given again is not in the ledger");
            let same = |wish: &Wish| (wish.application, wish.card, wish.mobile, wish.key.clone());
            assert_eq!(same(first), same(wish), "another question's answer");
        }
        assert!((self.granted..=self.perhaps_granted).contains(&granted), "{granted} granted");
        self.check_keys_and_attempts(&answers);
        self.check_balances(&answers, granted);
    }

    fn check_keys_and_attempts(&self, answers: &HashMap<[u8; 16], Answer>) {
        let mut by_key: HashMap<(u32, &str), u32> = HashMap::new();
        let mut by_card: HashMap<(i64, u64), u32> = HashMap::new();
        let mut guesses: HashMap<(i64, u32), u32> = HashMap::new();
        for answer in answers.values().filter(|answer| is_kept(answer)) {
            let wish = &self.asked[&answer.request];
            if let Some(key) = &wish.key {
                *by_key.entry((wish.application, key)).or_default() += 1;
            }
            *by_card.entry((wish.day, wish.card)).or_default() += 1;
            if wish.card == GUESSED {
                *guesses.entry((wish.day, wish.application)).or_default() += 1;
            }
        }
        assert!(by_key.values().all(|times| *times == 1), "a key was answered twice: {by_key:?}");
        assert!(by_card.values().all(|times| *times <= PER_CARD), "a card was asked too often: {by_card:?}");
        // Questions under way on several nodes do not see each other.
        let most = LOCK_AFTER * NODES as u32;
        assert!(guesses.values().all(|times| *times <= most), "guessed too often: {guesses:?}");
        // Day and counter of each card are not known here; the sums are. Counters of the last two days are kept.
        let last = by_card.iter().filter(|((day, _), _)| *day >= self.now / DAY - 1);
        let counted = self.column(
            r"SELECT coalesce(sum(n), 0)::BIGINT FROM attempt WHERE substr(ref, 1, 5) = '\xffffffff00'
              AND day >= (SELECT max(day) FROM attempt) - 1",
        );
        let answered: u32 = last.map(|(_, times)| *times).sum();
        assert!(counted >= i64::from(answered), "{answered} answered, {counted} counted");
        let fewest = self.column("SELECT coalesce(min(n), 0)::BIGINT FROM attempt");
        assert!(fewest >= 0, "an attempt was given back twice: {fewest}");
    }

    fn check_balances(&self, answers: &HashMap<[u8; 16], Answer>, granted: i64) {
        let of_shop = answers.values().filter(|answer| answer.application.0 == 1);
        let charged: i64 = of_shop.map(|answer| answer.charged.0).sum();
        let left = granted * 1_000_000 - charged;
        assert!(left >= 0, "overspent: {left}");
        let free = self.column("SELECT free FROM purse WHERE kind = 0 AND id = 1");
        let taken =
            self.column("SELECT coalesce(sum(remains), 0)::BIGINT FROM slice WHERE kind = 0 AND id = 1");
        assert_eq!(free + taken, left, "what is left: {free} free, {taken} with nodes");
        assert!(answers.values().filter_map(|answer| answer.balance).all(|left| left >= Credits::ZERO));
        let noted =
            self.column("SELECT coalesce(sum(charged), 0)::BIGINT FROM slice WHERE kind = 0 AND id = 1");
        assert_eq!(noted, charged, "what nodes have noted as charged");
    }
}

/// "Busy" and "too many attempts" are neither kept for a key nor counted.
fn is_kept(answer: &Answer) -> bool {
    answer.outcome.class() != Class::Retryable
}

/// A step that takes for ever is a failure like any other; threads that hang cannot be ended.
struct Watchdog(Arc<AtomicU64>);

impl Watchdog {
    fn new(seed: u64) -> Watchdog {
        let steps = Arc::new(AtomicU64::new(0));
        let weak = Arc::downgrade(&steps);
        std::thread::spawn(move || {
            let (mut seen, mut since) = (u64::MAX, Instant::now());
            while let Some(steps) = weak.upgrade() {
                let now = steps.load(Ordering::SeqCst);
                drop(steps);
                if now != std::mem::replace(&mut seen, now) {
                    since = Instant::now();
                }
                if since.elapsed() > STEP_MOST + Duration::from_secs(10) {
                    eprintln!("step {now} does not end");
                    Again(seed).say();
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Watchdog(steps)
    }

    fn step(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// All of them at once, at one node; `None` for those whose client went away.
fn ask_all(engine: &Arc<Engine>, wishes: &[Wish]) -> Vec<Option<Settlement>> {
    let desk = engine.desk().unwrap();
    let work = wishes.iter().map(|wish| patient(asked(&desk, wish), wish.gone_after)).collect();
    ask::wait(&desk, all::all(work))
}

/// Polls it so often at most.
async fn patient<T>(work: impl Future<Output = T>, most: Option<u64>) -> Option<T> {
    let mut work = pin!(work);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        if most.is_some_and(|most| polls >= most) {
            return Poll::Ready(None);
        }
        polls += 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

async fn asked(desk: &Desk, wish: &Wish) -> Settlement {
    let card = number(wish.card);
    let claim = Claim::new("张伟", &card, "99010119610202001X", wish.mobile, 0);
    let credential = credential(&desk.engine.vault, wish.application);
    let admission = desk.admit(&credential, Action::FourElements, wish.key.is_some()).await?;
    let question = Question {
        wire: Wire::AceData,
        action: Action::FourElements,
        credential: &credential,
        claim: &claim,
        idempotency_key: wish.key.as_deref(),
        purpose: None,
        scripted: None,
        detailed: false,
        request: wish.request,
        began: Instant::now(),
    };
    verify(desk, admission, question).await
}
