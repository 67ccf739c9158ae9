//! The engine on a disk that fails, under a clock that jumps and before providers that fail, all of it from
//! a seed.
//!
//! The seed decides what is asked, when the clock is turned, and when and how the disk breaks; how the threads
//! take their turns between is the machine's.
//!
//! After every step the ledger is followed: no answered charge is lost, none is invented, what was refused
//! never touched it, its tree grew and did not change, and the books are what the blocks add up to; no
//! provider was asked before that was durable, what was bought is what was answered, and no cap is crossed. At
//! the end of each world everything is read once more, and no element is in any file.
//!
//! ```sh
//! cargo test -p card4e-engine --test simulation                                      # some seconds
//! CARD4E_SIMULATE=1000000 cargo test --release -p card4e-engine --test simulation -- --nocapture
//! CARD4E_SEED=7 cargo test -p card4e-engine --test simulation -- --nocapture         # one seed again
//! ```

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on fails")]

#[path = "../support/all.rs"]
mod all;
mod disk;
#[path = "../support/park.rs"]
mod park;
mod providers;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use all::all;
use engine::account::AccountText;
use engine::audit::Frontier;
use engine::caller::{
    Action, Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Proof, Standing, Wire,
};
use engine::claim::Claim;
use engine::clock::Mode;
use engine::issuer::Issuers;
use engine::ledger::{Answer, Credits, Entry};
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::settle::{Desk, Settlement, Writing};
use engine::store::{LedgerFile, LedgerReader, StoreError};
use engine::subject::{Date, ParseOptions};
use engine::vault::{KeyRing, Vault};
use engine::verify::{Question, Refusal, new_request_id, verify};
use engine::{Engine, Policy, Running, Seed};

use disk::State;
use providers::{Budget, Providers};

const ROOT: [u8; 32] = [9; 32];
const NOON: i64 = 1_795_233_600_000; // 2026-11-21 12:00 in Beijing
const CARDS: [&str; 3] = ["6217000000000000012", "6217000000000101017", "6217000000000202013"];

/// No account of record has it; what is told about it is bought.
const FOREIGN: &str = "6217000000000000020";

/// Seeds that are always tried; a seed that ever failed is added.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const STEPS: u32 = 150;

#[test]
fn nothing_answered_is_lost_and_nothing_is_invented() {
    disk::install();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let new: u64 = u64::from_be_bytes(engine::vault::random());
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("CARD4E_SEED"), number("CARD4E_SIMULATE")) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(_)) => Box::new(SEEDS.into_iter().chain((0..).map(|turn| new.wrapping_add(turn)))),
        (None, None) => Box::new(SEEDS.into_iter().chain([new])),
    };
    println!("a new seed: CARD4E_SEED={new}");
    let began = Instant::now();
    let (mut all, wanted) = (Seen::default(), number("CARD4E_SIMULATE").unwrap_or(u64::MAX));
    for seed in seeds {
        let seen = std::panic::catch_unwind(|| World::new(seed).run());
        let seen = seen.unwrap_or_else(|panic| {
            eprintln!(
                "again: CARD4E_SEED={seed} cargo test -p card4e-engine --test simulation -- --nocapture"
            );
            std::panic::resume_unwind(panic)
        });
        all.add(&seen);
        if all.asked / 100_000 > (all.asked - seen.asked) / 100_000 {
            println!("{} asked, {} s", all.asked, began.elapsed().as_secs());
        }
        if all.asked >= wanted {
            break;
        }
    }
    println!("{all:?}");
    assert!(all.answered * 10 > all.asked && all.refused > 0, "{all:?}");
    assert!(all.faults > 0 && all.restarts > 0 && all.power_cuts > 0 && all.recalled > 0, "{all:?}");
    assert!(all.bought > 0 && all.sent > all.bought, "{all:?}");
}

/// What happened, to see that something did.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    asked: u64,
    answered: u64,
    recalled: u64,
    refused: u64,
    /// Refused by a commit that failed, and in the ledger all the same: nobody can know.
    unknown: u64,
    faults: u64,
    restarts: u64,
    power_cuts: u64,
    /// Calls to providers.
    sent: u64,
    /// Answers that were bought.
    bought: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        let Seen { asked, answered, recalled, refused, unknown, faults, restarts, power_cuts, sent, bought } =
            other;
        self.asked += asked;
        self.answered += answered;
        self.recalled += recalled;
        self.refused += refused;
        self.unknown += unknown;
        self.faults += faults;
        self.restarts += restarts;
        self.power_cuts += power_cuts;
        self.sent += sent;
        self.bought += bought;
    }
}

/// SplitMix64.
struct Draws(u64);

impl Draws {
    /// Less than `below`.
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// One installation through all that happens to it, and what its callers were told.
struct World {
    draws: Draws,
    folder: tempfile::TempDir,
    running: Option<Running>,
    desk: Option<Desk>,
    now: i64,
    seen: Seen,
    /// Open as long as the engine runs.
    ledger: Option<LedgerReader>,
    /// The ledger as far as it was followed.
    tree: Frontier,
    /// Answers that callers were told, by request.
    told: HashMap<[u8; 16], Answer>,
    /// Those of them not yet found in the ledger.
    unseen: HashSet<[u8; 16]>,
    /// Questions that may be in the ledger although their callers were told nothing.
    open: HashSet<[u8; 16]>,
    /// Answers that were told to somebody who joined a question whose asker is not looked at yet.
    joined: Vec<Answer>,
    /// Grants that were confirmed, and those that may have happened; whole credits.
    granted: [i64; 2],
    perhaps_granted: [i64; 2],
    /// What the ledger holds: grants and charges by application, in millionths, and answers.
    granted_there: [i64; 2],
    charged: [i64; 2],
    answers: u64,
    providers: Rc<Providers>,
    budget: Budget,
    /// Requests about the card that no account of record has.
    foreign: HashSet<[u8; 16]>,
}

fn application(number: u32) -> Application {
    let caller = caller(number);
    Application {
        actions: vec![Action::FourElements],
        unlimited: number == 2,
        ..Application::of(ApplicationId(number), &caller)
    }
}

fn caller(number: u32) -> Caller {
    let name = if number == 1 { "shop" } else { "bank" };
    Caller { id: CallerId(number), name: name.into(), standing: Standing::Active, operator: false }
}

fn credential(vault: &Vault, number: u32) -> Credential {
    let token = format!("token {number}");
    let proof = Proof::Bearer { hash: vault.token(&token), last4: "oken".into(), previous: None };
    let (id, application) = (CredentialId(number), ApplicationId(number));
    let (addresses, actions) = (vec![], vec![]);
    Credential { id, application, proof, expires_at_ms: None, addresses, actions, purpose: None, limit: None }
}

fn seed() -> Seed {
    Seed {
        callers: vec![caller(1), caller(2)],
        applications: vec![(application(1), Credits::whole(500)), (application(2), Credits::ZERO)],
        credentials: |vault| vec![credential(vault, 1), credential(vault, 2)],
    }
}

fn open(folder: &Path) -> Result<Running, engine::OpenError> {
    let policy = Policy {
        test_land: true,
        requests_per_second: [150; Action::ALL.len()],
        attempts: AttemptPolicy { per_card: Some(40), ..AttemptPolicy::default() },
        log_bytes: 0,
        routing: Some(Arc::new(providers::routing())),
        under_way_max: 64,
        ..Policy::default()
    };
    Engine::open(folder, &ROOT, policy, Issuers::built_in(), seed(), None)
}

fn put_people(engine: &Engine) {
    let today = Date::new(2026, 11, 21).unwrap();
    let options = ParseOptions { test_land: true, ..ParseOptions::new(today) };
    let row = |(at, card): (usize, &&str)| {
        let state = ["normal", "lost", "normal"][at];
        let (name, id, mobile) = ("张伟", "99010119610202001X", "16100000001");
        let text = AccountText { card, name, id, mobile, state, ..AccountText::default() };
        text.row(&options, &engine.vault).unwrap()
    };
    let rows: Vec<_> = CARDS.iter().enumerate().map(row).collect();
    engine.accounts_to_change().unwrap().put(&rows, &engine.vault).unwrap();
}

impl World {
    fn new(seed: u64) -> World {
        disk::mend();
        let folder = tempfile::tempdir().unwrap();
        let mut world = World {
            draws: Draws(seed),
            folder,
            running: None,
            desk: None,
            now: NOON,
            seen: Seen::default(),
            ledger: None,
            tree: Frontier::default(),
            told: HashMap::new(),
            unseen: HashSet::new(),
            open: HashSet::new(),
            joined: Vec::new(),
            granted: [500, 0],
            perhaps_granted: [0, 0],
            granted_there: [0, 0],
            charged: [0, 0],
            answers: 0,
            providers: Rc::new(Providers::new(Draws(seed ^ 0x5eed))),
            budget: Budget::default(),
            foreign: HashSet::new(),
        };
        world.start();
        put_people(world.engine());
        world
    }

    fn run(mut self) -> Seen {
        for _ in 0..STEPS {
            match self.draws.below(100) {
                0..80 => self.ask_some(),
                80..89 => self.turn_the_clock(),
                89..92 => self.recharge(),
                92..95 => self.break_something(),
                95..98 => self.restart(),
                _ => self.cut_power(),
            }
            self.follow();
            self.check();
        }
        self.restart();
        self.check_all();
        self.stop();
        self.seen.sent = self.providers.sent();
        self.seen
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.running.as_ref().unwrap().engine
    }

    /// Many questions at once, so that one commit holds several and some join others.
    fn ask_some(&mut self) {
        let count = 1 + self.draws.below(48);
        let wishes: Vec<Wish> = (0..count).map(|_| self.wish()).collect();
        let foreign = wishes.iter().filter(|wish| wish.card == FOREIGN);
        self.foreign.extend(foreign.map(|wish| wish.request));
        let desk = self.desk.take().unwrap();
        let settlements =
            wait(&desk, &self.providers, all(wishes.iter().map(|wish| asked(&desk, wish)).collect()));
        self.desk = Some(desk);
        for (wish, settlement) in wishes.iter().zip(settlements) {
            self.seen.asked += 1;
            match settlement {
                Ok(settled) => self.take(wish, &settled.answer, settled.replayed),
                // A commit that failed may be on the disk all the same.
                Err(Refusal::Stopped) => {
                    self.seen.refused += 1;
                    self.open.insert(wish.request);
                }
                Err(_) => self.seen.refused += 1,
            }
        }
        for answer in std::mem::take(&mut self.joined) {
            assert_eq!(self.told.get(&answer.request), Some(&answer), "a twin was told something else");
        }
    }

    fn wish(&mut self) -> Wish {
        Wish {
            request: new_request_id(),
            application: 1 + self.draws.below(2) as u32,
            card: [CARDS[0], CARDS[1], CARDS[2], FOREIGN][self.draws.below(4) as usize],
            mobile: if self.draws.one_in(4) { "16100000002" } else { "16100000001" },
            key: self.draws.one_in(3).then(|| format!("key {}", self.draws.below(200))),
        }
    }

    fn take(&mut self, wish: &Wish, answer: &Answer, is_replayed: bool) {
        assert_eq!(answer.application, ApplicationId(wish.application));
        if is_replayed {
            self.seen.recalled += 1;
            assert!(wish.key.is_some());
            // Of a question whose caller was told nothing, or of one that was told the same.
            match self.told.get(&answer.request) {
                Some(told) => assert_eq!(told, answer),
                None => {
                    assert!(self.open.contains(&answer.request) || self.told.is_empty() || wish.key.is_some())
                }
            }
            return;
        }
        assert_eq!(answer.request, wish.request);
        let expected = match (wish.card == CARDS[1], wish.mobile == "16100000001") {
            // Held against what was bought, when the ledger is followed.
            _ if wish.card == FOREIGN => {
                &[Outcome::Pass, Outcome::HolderMismatch, Outcome::SourceBusy, Outcome::Declined][..]
            }
            (true, _) => &[Outcome::CardLost, Outcome::HolderMismatch][..],
            (false, true) => &[Outcome::Pass],
            (false, false) => &[Outcome::HolderMismatch],
        };
        let is_expected = expected.contains(&answer.outcome) || answer.outcome == Outcome::AttemptsExceeded;
        assert!(is_expected, "{:?} for {} {}", answer.outcome, wish.card, wish.mobile);
        self.seen.answered += 1;
        self.unseen.insert(answer.request);
        assert!(self.told.insert(answer.request, answer.clone()).is_none(), "answered twice");
    }

    fn turn_the_clock(&mut self) {
        let by = match self.draws.below(10) {
            0 => 26 * 3_600_000,
            1 => -(self.draws.below(3_600_000) as i64),
            2..5 => self.draws.below(3_600_000) as i64,
            _ => self.draws.below(3000) as i64,
        };
        self.now += by;
        self.engine().clock.set(Mode::Frozen(self.now));
    }

    fn recharge(&mut self) {
        let amount = 1 + self.draws.below(50) as i64;
        match self.engine().acting(By::Machine).grant("shop", Credits::whole(amount)) {
            Ok(()) => self.granted[0] += amount,
            Err(_) => self.perhaps_granted[0] += amount,
        }
    }

    fn break_something(&mut self) {
        let states = [State::Slow, State::Full, State::SyncFails, State::Torn, State::Dead];
        let into = states[self.draws.below(states.len() as u64) as usize];
        disk::break_after(1 + self.draws.below(40) as u32, into);
        self.seen.faults += 1;
    }

    fn restart(&mut self) {
        self.stop();
        let is_broken = !disk::is_sound();
        // A failed sync or a torn write: what was not synced may be gone.
        if is_broken && self.draws.one_in(2) {
            disk::lose_unsynced(|below| self.draws.below(below));
        }
        disk::mend();
        self.seen.restarts += 1;
        self.start();
    }

    fn cut_power(&mut self) {
        disk::cut_power();
        self.ask_some();
        self.stop();
        disk::lose_unsynced(|below| self.draws.below(below));
        disk::mend();
        self.seen.power_cuts += 1;
        self.start();
    }

    fn stop(&mut self) {
        (self.desk, self.ledger) = (None, None);
        self.providers.forget();
        self.running.take().unwrap().stop();
    }

    fn start(&mut self) {
        let running = open(self.folder.path()).unwrap_or_else(|error| panic!("it does not start: {error}"));
        running.engine.clock.set(Mode::Frozen(self.now));
        let transport = Rc::clone(&self.providers);
        self.desk = Some(running.engine.desk().unwrap().buying_through(transport));
        self.running = Some(running);
        self.ledger = Some(LedgerReader::open(&self.folder.path().join("ledger.db")).unwrap());
        self.follow();
        self.budget.nothing_is_open();
        // Nothing that may still come to light is older than a restart.
        self.open.clear();
        (self.granted, self.perhaps_granted) = (self.granted_there.map(|sum| sum / 1_000_000), [0, 0]);
        self.check();
    }

    /// Reads what is new in the ledger and holds it against what callers were told.
    fn follow(&mut self) {
        let ledger = self.ledger.take().unwrap();
        let entries = ledger.newest().unwrap().map_or(0, |newest| newest.entries);
        assert!(entries >= self.tree.size(), "{entries} entries, where there were {}", self.tree.size());
        let mut tree = std::mem::take(&mut self.tree);
        let followed = ledger.leaves_after(&mut tree, entries, |leaf| {
            match leaf.entry {
                Entry::Answer(answer) => self.find(answer),
                Entry::Grant { application, amount, .. } => {
                    self.granted_there[application.0 as usize - 1] += amount.0;
                }
                Entry::Asking(asking) => self.budget.ask(asking),
                Entry::Bought(bought) => {
                    self.seen.bought += u64::from(bought.outcome.is_some());
                    self.budget.end(bought);
                }
                _ => {}
            }
            Ok::<_, StoreError>(())
        });
        followed.unwrap_or_else(|error| panic!("the audit: {error}"));
        (self.tree, self.ledger) = (tree, Some(ledger));
        self.budget.check(self.providers.sent());
        assert!(self.unseen.is_empty(), "answers that callers were told are not in the ledger");
        for (at, granted) in self.granted_there.into_iter().enumerate() {
            let is = granted / 1_000_000;
            let most = self.granted[at] + self.perhaps_granted[at];
            assert!((self.granted[at]..=most).contains(&is), "{is} granted, {most} at most");
        }
    }

    fn find(&mut self, answer: &Answer) {
        self.answers += 1;
        if self.foreign.contains(&answer.request) {
            self.budget.answer(answer);
        }
        self.charged[answer.application.0 as usize - 1] += answer.charged.0;
        match self.told.get(&answer.request) {
            Some(told) => {
                assert_eq!(told, answer, "the ledger has another answer than the caller");
                assert!(self.unseen.remove(&answer.request), "an answer is in the ledger twice");
            }
            None => {
                let is_open = self.open.remove(&answer.request);
                assert!(is_open, "the ledger has an answer that nobody asked for, or that was refused");
                self.seen.unknown += 1;
                self.told.insert(answer.request, answer.clone());
            }
        }
    }

    /// Everything, from its beginning, and every byte of every file.
    fn check_all(&self) {
        let folder = self.folder.path();
        let vault = Vault::new(&KeyRing::open_or_create(&folder.join("keys.json"), &ROOT).unwrap());
        let check = LedgerFile::check(&folder.join("ledger.db"), &vault);
        let check = check.unwrap_or_else(|error| panic!("the audit: {error}"));
        assert_eq!(check.answers, self.answers);
        assert_eq!(check.root, engine::file::hex(&self.tree.root()));
        let elements =
            [&CARDS[..], &[FOREIGN, "99010119610202001X", "16100000001", "16100000002", "张伟"]].concat();
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            let Ok(bytes) = std::fs::read(&file) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            for element in &elements {
                assert!(!text.contains(element), "{element} is in {}", file.display());
            }
        }
    }

    /// The books are what callers were told, and no more.
    fn check(&self) {
        let engine = self.engine();
        let totals = engine.totals();
        assert_eq!(totals.answers, self.answers, "answers counted");
        assert_eq!(totals.charged.0, self.charged[0] + self.charged[1], "charges counted");
        if self.perhaps_granted[0] == 0 {
            let balance = engine.balance(&application(1)).unwrap();
            assert_eq!(balance.0, self.granted[0] * 1_000_000 - self.charged[0], "balance");
            assert!(balance >= Credits::ZERO);
        }
        if disk::is_sound() {
            assert_eq!(engine.writing(), Writing::Works);
        }
    }
}

/// A question somebody asks.
struct Wish {
    request: [u8; 16],
    application: u32,
    card: &'static str,
    mobile: &'static str,
    key: Option<String>,
}

async fn asked(desk: &Desk, wish: &Wish) -> Settlement {
    let engine = &desk.engine;
    let claim = Claim::new("张伟", wish.card, "99010119610202001X", wish.mobile, 0);
    let credential = credential(&engine.vault, wish.application);
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

/// Runs one future beside the desk's mail and the purchases, on this thread; all of them to their end.
fn wait<T>(desk: &Desk, providers: &Providers, work: impl Future<Output = T>) -> T {
    let waker = park::waker();
    let mut context = Context::from_waker(&waker);
    let (mut work, mut mail) = (pin!(work), pin!(desk.carry_mail()));
    let mut done = None;
    loop {
        let _ = mail.as_mut().poll(&mut context);
        if done.is_none()
            && let Poll::Ready(is) = work.as_mut().poll(&mut context)
        {
            done = Some(is);
        }
        match providers.go_on(&mut context) {
            is_idle if is_idle && done.is_some() => break,
            _ => std::thread::park(),
        }
    }
    // There is something in it by now.
    done.unwrap()
}
