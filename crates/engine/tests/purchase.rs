//! The engine with providers behind it: who is asked, what is durable before and after, who pays, and what
//! a crash leaves. The transport is a script; time and order are the test's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/park.rs"]
mod park;
#[path = "support/postgres.rs"]
#[expect(dead_code, reason = "no database is killed here")]
mod postgres;
#[path = "support/shop.rs"]
mod shop;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, ready};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use engine::caller::{Action, Purpose, Wire};
use engine::claim::Claim;
use engine::clock::Mode;
use engine::connector::{Call, Connector, Scripted};
use engine::issuer::Issuers;
use engine::ledger::{Credits, Entry};
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::{Outcome, Row};
use engine::provider::{Endpoint, Limits, Provider, ProviderStatus};
use engine::route::{NotAnswered, Received, RecordTurn, Route, Routing, Sending, Task, Transport};
use engine::settle::{Desk, Settled, Settlement};
use engine::spending::{Bought, Caps, Ending};
use engine::store::postgres::Database;
use engine::store::{LedgerPlace, LedgerReader, SharedStore};
use engine::verify::{Question, new_request_id, verify};
use engine::{Engine, Policy, Running};

use shop::{credential, put, shop};

const ROOT: [u8; 32] = [9; 32];
const NOON: i64 = 1_795_233_600_000; // 2026-11-21 12:00 in Beijing
const KNOWN: &str = "6217000000000000012";
const FOREIGN: &str = "6217000000000000020";

/// Replies in the order they are asked for; whatever is asked beyond them never comes back.
#[derive(Default)]
struct Script {
    replies: RefCell<VecDeque<Result<&'static str, NotAnswered>>>,
    asked: RefCell<Vec<String>>,
    tasks: RefCell<Vec<Task>>,
    stuck: Cell<bool>,
}

impl Transport for Script {
    fn run(&self, task: Task) {
        self.tasks.borrow_mut().push(task);
    }

    fn send(&self, provider: &Arc<Provider>, _: Call, _: Duration) -> Sending {
        self.asked.borrow_mut().push(provider.name.clone());
        match self.replies.borrow_mut().pop_front() {
            Some(reply) => Box::pin(ready(reply.map(|text| Received {
                status: 200,
                headers: Vec::new(),
                body: text.as_bytes().to_vec(),
            }))),
            None => {
                self.stuck.set(true);
                Box::pin(pending())
            }
        }
    }
}

fn unsent() -> Result<&'static str, NotAnswered> {
    Err(NotAnswered::Unsent("no route to host".into()))
}

fn provider(name: &str, caps: Caps) -> Arc<Provider> {
    Arc::new(Provider {
        name: name.into(),
        connector: Connector::Scripted(Scripted),
        endpoint: Endpoint { host: "127.0.0.1".into(), port: 1, tls: false, ca: None },
        price: Credits(700_000),
        prices: [None; Action::ALL.len()],
        caps,
        timeout_ms: 1000,
        connect_timeout_ms: 100,
        limits: Limits { concurrent_max: 8, requests_per_second: 0, failures: 3, open_ms: 10_000 },
        off: false,
    })
}

fn route() -> Route {
    Route {
        name: "all".into(),
        callers: vec![],
        actions: vec![],
        prefixes: vec![],
        record: RecordTurn::First,
        providers: vec![(0, 0), (1, 0)],
        deadline_ms: 5000,
        second_purchase: false,
        reuse_ms: 0,
        shadows: vec![],
    }
}

fn routing(route: Route, caps: Caps) -> Routing {
    let providers = vec![provider("first", caps), provider("second", Caps::default())];
    Routing { providers, routes: vec![route], lacking_kept_ms: 86_400_000, recorder: None }
}

fn policy(routing: Routing) -> Policy {
    Policy {
        test_land: true,
        requests_per_second: [0; Action::ALL.len()],
        attempts: AttemptPolicy::OFF,
        log_bytes: 0,
        routing: Some(Arc::new(routing)),
        ..Policy::default()
    }
}

/// Where an installation is: in files of its own, or in a database that nodes share.
struct Home {
    folder: TempDir,
    shared: Option<Arc<Database>>,
}

/// One of each kind; of the second only where PostgreSQL is installed.
fn homes() -> impl Iterator<Item = Home> {
    let database = postgres::shared().map(|server| server.database());
    let folder = || tempfile::tempdir().unwrap();
    let files = Home { folder: folder(), shared: None };
    [files].into_iter().chain(database.map(|database| Home { folder: folder(), shared: Some(database) }))
}

impl Home {
    /// Another folder for a process of the same node, or of another one.
    fn beside(&self) -> Home {
        Home { folder: tempfile::tempdir().unwrap(), shared: self.shared.clone() }
    }

    fn bought(&self) -> Vec<Bought> {
        let place = match &self.shared {
            None => LedgerPlace::from(&self.folder.path().join("ledger.db")),
            Some(database) => LedgerPlace::Shared { database: Arc::clone(database), node: "a".into() },
        };
        let mut all = Vec::new();
        let keep = |entry: &Entry| -> Result<(), engine::store::StoreError> {
            if let Entry::Bought(bought) = entry {
                all.push(bought.clone());
            }
            Ok(())
        };
        LedgerReader::open(place).unwrap().entries(&(i64::MIN..i64::MAX), keep).unwrap();
        all
    }
}

/// An installation at work, with one account of record, and a desk that buys through the script.
struct Bench {
    running: Running,
    script: Rc<Script>,
    desk: Desk,
    is_shared: bool,
}

impl Bench {
    fn open(home: &Home, routing: Routing) -> Bench {
        Bench::named("a", home, routing)
    }

    /// A node of that name, where there are several.
    fn named(name: &str, home: &Home, routing: Routing) -> Bench {
        let shared = home.shared.clone().map(|database| SharedStore { database, node: name.into() });
        let (is_shared, seed) = (shared.is_some(), shop(Credits::whole(10)));
        let (folder, issuers) = (home.folder.path(), Issuers::built_in());
        let running = Engine::open(folder, &ROOT, policy(routing), issuers, seed, shared).unwrap();
        running.engine.clock.set(Mode::Frozen(NOON));
        let script = Rc::new(Script::default());
        let desk = running.engine.desk().unwrap().buying_through(Rc::clone(&script) as Rc<dyn Transport>);
        put(&running.engine, "normal");
        let bench = Bench { running, script, desk, is_shared };
        bench.soon(|| {
            let engine = &bench.running.engine;
            let accounts = engine.accounts_to_read().unwrap();
            accounts.find(KNOWN, &engine.vault.keys()).is_ok_and(|row| row.is_some())
        });
        bench
    }

    fn soon(&self, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(20), "not within 20 seconds");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How providers are doing; nodes read once a second what all of them spent.
    fn status(&self) -> Vec<ProviderStatus> {
        if self.is_shared {
            std::thread::sleep(Duration::from_millis(2500));
        }
        self.running.engine.provider_status()
    }

    fn says(&self, replies: impl IntoIterator<Item = Result<&'static str, NotAnswered>>) {
        self.script.replies.borrow_mut().extend(replies);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.script.asked.borrow_mut())
    }

    fn ask(&self, card: &str) -> Settled {
        self.put(card, None, None).unwrap()
    }

    fn put(&self, card: &str, key: Option<&str>, purpose: Option<&Purpose>) -> Settlement {
        self.wait(self.question(Action::FourElements, card, key, purpose)).unwrap()
    }

    async fn question(
        &self,
        action: Action,
        card: &str,
        key: Option<&str>,
        purpose: Option<&Purpose>,
    ) -> Settlement {
        let claim = Claim::new("张伟", card, "99010119610202001X", "16100000001", 0);
        let credential = credential(&self.running.engine.vault);
        let admission = self.desk.admit(&credential, action, key.is_some()).await?;
        let question = Question {
            wire: Wire::AceData,
            action,
            credential: &credential,
            claim: &claim,
            idempotency_key: key,
            purpose,
            detailed: false,
            scripted: None,
            request: new_request_id(),
            began: Instant::now(),
        };
        verify(&self.desk, admission, question).await
    }

    /// Runs a future beside the desk's mail and the script's tasks. Nothing when a call never comes back.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let waker = park::waker();
        let mut context = Context::from_waker(&waker);
        let (mut work, mut mail) = (pin!(work), pin!(self.desk.carry_mail()));
        let mut done = None;
        loop {
            let _ = mail.as_mut().poll(&mut context);
            let mut tasks = std::mem::take(&mut *self.script.tasks.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            let new = self.script.tasks.borrow_mut().drain(..).collect::<Vec<_>>();
            let began_more = !new.is_empty();
            tasks.extend(new);
            let idle = tasks.is_empty();
            *self.script.tasks.borrow_mut() = tasks;
            if done.is_none()
                && let Poll::Ready(result) = work.as_mut().poll(&mut context)
            {
                done = Some(result);
            }
            if (done.is_some() && idle && self.script.tasks.borrow().is_empty()) || self.script.stuck.get() {
                return done;
            }
            if !began_more {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }

    fn stop(self) {
        self.script.tasks.borrow_mut().clear();
        drop(self.desk);
        self.running.stop();
    }
}

fn told(settled: &Settled) -> (Outcome, Credits) {
    (settled.answer.outcome, settled.answer.charged)
}

const ONE: Credits = Credits::whole(1);
const COST: Credits = Credits(700_000);

#[test]
fn only_what_is_not_on_record_is_bought_and_both_sides_of_the_money_are_kept() {
    for home in homes() {
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        assert_eq!(told(&bench.ask(KNOWN)), (Outcome::Pass, ONE));
        assert!(bench.asked().is_empty(), "what is on record costs nothing");
        bench.says([Ok("HOLDER_MISMATCH")]);
        let settled = bench.ask(FOREIGN);
        assert_eq!(told(&settled), (Outcome::HolderMismatch, ONE));
        assert_eq!((settled.answer.row, bench.asked()), (Row(23), vec!["first".into()]));
        let status = &bench.status()[0];
        assert_eq!((status.spent.as_str(), status.uncertain.as_str(), status.calls), ("0.7", "0", 1));
        bench.stop();
        let bought = home.bought();
        assert_eq!(bought.len(), 1);
        assert_eq!((bought[0].ending, bought[0].cost), (Ending::Answered, COST));
        assert_eq!(bought[0].asking.request, settled.answer.request);
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        assert_eq!(bench.status()[0].spent, "0.7", "after a restart too");
        bench.stop();
    }
}

#[test]
fn the_next_one_is_asked_only_when_the_one_before_surely_charged_nothing() {
    for home in homes() {
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        for free in [unsent(), Ok("refused"), Ok("SOURCE_BUSY")] {
            bench.says([free.clone(), Ok("PASS")]);
            assert_eq!(told(&bench.ask(FOREIGN)), (Outcome::Pass, ONE), "{free:?}");
            assert_eq!(bench.asked(), ["first", "second"]);
            bench.says([Ok("PASS")]);
            bench.ask(FOREIGN);
            bench.asked();
        }
        for unclear in [Err(NotAnswered::Unclear("closed".into())), Ok("<html>")] {
            bench.says([unclear]);
            assert_eq!(told(&bench.ask(FOREIGN)), (Outcome::SourceBusy, Credits::ZERO));
            assert_eq!(bench.asked(), ["first"], "a second purchase was not accepted");
        }
        assert_eq!(bench.status()[0].uncertain, "1.4");
        bench.stop();
        let twice = Route { second_purchase: true, ..route() };
        let bench = Bench::open(&home, routing(twice, Caps::default()));
        bench.says([Err(NotAnswered::Unclear("closed".into())), Ok("CARD_LOST")]);
        assert_eq!(told(&bench.ask(FOREIGN)), (Outcome::CardLost, ONE));
        assert_eq!(bench.asked(), ["first", "second"]);
        bench.says([unsent(), unsent()]);
        assert_eq!(told(&bench.ask(FOREIGN)), (Outcome::SourceBusy, Credits::ZERO), "nobody answers");
        bench.stop();
    }
}

#[test]
fn a_word_nobody_knows_is_declined_and_counted() {
    for home in homes() {
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        bench.says([Ok("unknown")]);
        assert_eq!(bench.ask(FOREIGN).answer.outcome, Outcome::Declined);
        assert_eq!(bench.asked(), ["first"]);
        // An action without that outcome: its source failed.
        bench.says([Ok("unknown")]);
        let settled = bench.wait(bench.question(Action::NameAndId, "", None, None)).unwrap();
        // A validity is missing in this claim, which is the answer.
        assert_ne!(settled.unwrap().answer.outcome, Outcome::Pass);
        let status = &bench.status()[0];
        assert!(status.counted.unknown >= 1 && status.uncertain != "0");
        bench.stop();
        assert_eq!(home.bought()[0].code, "unknown", "the raw code is in the evidence");
    }
}

#[test]
fn what_was_under_way_in_a_crash_is_found_counted_and_charged_to_nobody() {
    for home in homes() {
        let crashed = home.beside();
        let caps = Caps { daily: Some(Credits(1_000_000)), monthly: None };
        let bench = Bench::open(&home, routing(route(), caps));
        // The question left, and no reply comes: here the machine loses its power.
        assert!(bench.wait(bench.question(Action::FourElements, FOREIGN, Some("k"), None)).is_none());
        assert_eq!(bench.asked(), ["first"]);
        let frozen = match &home.shared {
            None => {
                for file in std::fs::read_dir(home.folder.path()).unwrap().map(Result::unwrap) {
                    if file.file_type().unwrap().is_file() {
                        let copy = crashed.folder.path().join(file.file_name());
                        std::fs::copy(file.path(), copy).unwrap();
                    }
                }
                bench.stop();
                None
            }
            // A process that does nothing any more, and whose place the next one takes.
            Some(_) => Some(bench),
        };
        // A crash of the copy's kind: nothing was settled, the purchase may have been charged.
        let bench = Bench::open(&crashed, routing(route(), caps));
        let engine = &bench.running.engine;
        assert_eq!((engine.totals().answers, engine.totals().charges), (0, 0));
        let status = &bench.status()[0];
        assert_eq!((status.spent_today.as_str(), status.uncertain.as_str()), ("0.7", "0.7"));
        assert_eq!(crashed.bought()[0].ending, Ending::Lost);
        // The cap stands: another 0.7 would cross it. The caller's own key is asked anew.
        bench.says([Ok("PASS")]);
        let settled = bench.put(FOREIGN, Some("k"), None).unwrap();
        assert_eq!((told(&settled), bench.asked()), ((Outcome::Pass, ONE), vec!["second".to_owned()]));
        bench.stop();
        if let Some(frozen) = frozen {
            frozen.stop();
            let endings: Vec<Ending> = home.bought().iter().map(|bought| bought.ending).collect();
            assert_eq!(endings, [Ending::Lost, Ending::Answered], "it wakes up and writes nothing");
            continue;
        }
        // The first one ended in order: its caller was told SOURCE_BUSY, for free.
        let bench = Bench::open(&home, routing(route(), caps));
        assert_eq!((bench.running.engine.totals().answers, bench.running.engine.totals().charges), (1, 0));
        assert_eq!(home.bought()[0].ending, Ending::Lost);
        bench.stop();
    }
}

#[test]
fn a_cap_is_a_cap_also_after_a_restart() {
    for home in homes() {
        let caps = Caps { daily: Some(Credits(1_500_000)), monthly: None };
        let alone = || Route { providers: vec![(0, 0)], ..route() };
        let bench = Bench::open(&home, routing(alone(), caps));
        bench.says([Ok("PASS"), Ok("PASS"), Ok("PASS")]);
        let asked = |bench: &Bench| bench.ask(FOREIGN).answer.outcome;
        assert_eq!(
            [asked(&bench), asked(&bench), asked(&bench)],
            [Outcome::Pass, Outcome::Pass, Outcome::SourceBusy]
        );
        assert_eq!(bench.asked().len(), 2);
        bench.stop();
        let bench = Bench::open(&home, routing(alone(), caps));
        bench.says([Ok("PASS")]);
        assert_eq!(asked(&bench), Outcome::SourceBusy);
        bench.running.engine.clock.set(Mode::Frozen(NOON + 12 * 3_600_000));
        assert_eq!(asked(&bench), Outcome::Pass, "midnight in Shanghai");
        assert_eq!(bench.status()[0].counted.capped, 1);
        bench.stop();
    }
}

#[test]
fn a_provider_that_fails_is_left_alone_and_tried_again() {
    for home in homes() {
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        for _ in 0..3 {
            bench.says([unsent(), Ok("PASS")]);
            bench.ask(FOREIGN);
        }
        bench.asked();
        bench.says([Ok("PASS")]);
        bench.ask(FOREIGN);
        assert_eq!(bench.asked(), ["second"]);
        assert_eq!(bench.status()[0].breaker, "open");
        bench.running.engine.clock.set(Mode::Frozen(NOON + 10_000));
        bench.says([Ok("PASS")]);
        bench.ask(FOREIGN);
        assert_eq!(bench.asked(), ["first"]);
        assert_eq!(bench.status()[0].breaker, "closed");
        bench.stop();
    }
}

#[test]
fn a_bought_pass_is_given_again_to_the_same_caller_for_the_same_purpose_and_for_free() {
    for home in homes() {
        let again = || Route { reuse_ms: 3_600_000, ..route() };
        let purpose = |code: &str| Purpose { code: code.into(), consent: "c-1".into() };
        let bench = Bench::open(&home, routing(again(), Caps::default()));
        bench.says([Ok("HOLDER_MISMATCH"), Ok("PASS"), Ok("PASS")]);
        assert_eq!(
            bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap().answer.outcome,
            Outcome::HolderMismatch
        );
        assert_eq!(told(&bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap()), (Outcome::Pass, ONE));
        assert_eq!(bench.asked().len(), 2, "a mismatch is never given again");
        let settled = bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap();
        assert_eq!((told(&settled), settled.answer.row), ((Outcome::Pass, Credits::ZERO), Row::REUSED));
        assert!(bench.asked().is_empty());
        bench.put(FOREIGN, None, Some(&purpose("opening"))).unwrap();
        assert_eq!(bench.asked().len(), 1, "another purpose");
        bench.stop();
        let bench = Bench::open(&home, routing(again(), Caps::default()));
        let settled = bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap();
        assert_eq!((settled.answer.row, bench.asked().len()), (Row::REUSED, 0), "after a restart too");
        bench.running.engine.clock.set(Mode::Frozen(NOON + 3_600_000));
        bench.says([Ok("PASS")]);
        assert_eq!(bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap().answer.charged, ONE);
        assert_eq!(bench.asked().len(), 1, "too old");
        assert_eq!(bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap().answer.row, Row::REUSED);
        // Who is erased has never passed.
        let engine = &bench.running.engine;
        engine.acting(By::Machine).erase(FOREIGN).unwrap();
        while engine.erasure().is_running {
            std::thread::sleep(Duration::from_millis(10));
        }
        bench.says([Ok("PASS")]);
        assert_eq!(bench.put(FOREIGN, None, Some(&purpose("loan"))).unwrap().answer.row, Row(25));
        bench.stop();
    }
}

#[test]
fn a_shadow_is_asked_beside_and_changes_nothing() {
    for home in homes() {
        let watched = Route { providers: vec![], shadows: vec![(1, 1.0)], ..route() };
        let bench = Bench::open(&home, routing(watched, Caps::default()));
        bench.says([Ok("HOLDER_MISMATCH")]);
        assert_eq!(told(&bench.ask(KNOWN)), (Outcome::Pass, ONE));
        assert_eq!(bench.asked(), ["second"]);
        bench.stop();
        let bought = home.bought();
        assert_eq!((bought[0].live, bought[0].outcome), (Some(Outcome::Pass), Some(Outcome::HolderMismatch)));
        assert_eq!(bought.len(), 1);
    }
}

#[test]
fn the_accounts_of_record_can_be_asked_last_or_never() {
    for home in homes() {
        let turned = |record| routing(Route { record, ..route() }, Caps::default());
        let bench = Bench::open(&home, turned(RecordTurn::Last));
        bench.says([Ok("CARD_LOST"), unsent(), unsent()]);
        assert_eq!(bench.ask(KNOWN).answer.outcome, Outcome::CardLost);
        assert_eq!(bench.ask(KNOWN).answer.outcome, Outcome::Pass, "nobody else answered");
        bench.stop();
        let bench = Bench::open(&home, turned(RecordTurn::Never));
        bench.says([unsent(), unsent()]);
        assert_eq!(bench.ask(KNOWN).answer.outcome, Outcome::SourceBusy);
        bench.stop();
    }
}

/// Whoever is known not to check cards of this issuer is asked last.
#[test]
fn what_a_provider_cannot_check_is_learned() {
    for home in homes() {
        let bench = Bench::open(&home, routing(route(), Caps::default()));
        bench.says([Ok("ISSUER_UNSUPPORTED"), Ok("PASS")]);
        assert_eq!(bench.ask(FOREIGN).answer.outcome, Outcome::IssuerUnsupported);
        assert_eq!(bench.ask(FOREIGN).answer.outcome, Outcome::Pass);
        assert_eq!(bench.asked(), ["first", "second"]);
        let lacking = &bench.status()[0].lacking;
        assert_eq!((lacking[0].issuer.as_str(), lacking[0].times), ("621700", 1));
        bench.running.engine.clock.set(Mode::Frozen(NOON + 86_400_001));
        bench.says([Ok("PASS")]);
        bench.ask(FOREIGN);
        assert_eq!(bench.asked(), ["first"], "that was long ago");
        bench.stop();
    }
}

/// Two nodes that share a database.
fn two_nodes(routing: impl Fn() -> Routing) -> Option<([Home; 2], Bench, Bench)> {
    let home = homes().find(|home| home.shared.is_some())?;
    let a = Bench::named("a", &home, routing());
    let other = home.beside();
    let b = Bench::named("b", &other, routing());
    Some(([home, other], a, b))
}

#[test]
fn a_cap_holds_for_all_nodes_together_to_the_last_purchase() {
    let caps = Caps { daily: Some(Credits(7 * 700_000)), monthly: None };
    let alone = || routing(Route { providers: vec![(0, 0)], ..route() }, caps);
    let Some(([home, _other], a, b)) = two_nodes(alone) else { return };
    let outcomes: Vec<Outcome> = [&a, &b]
        .into_iter()
        .cycle()
        .take(12)
        .map(|node| {
            node.says([Ok("PASS")]);
            node.ask(FOREIGN).answer.outcome
        })
        .collect();
    assert_eq!(outcomes[..7], [Outcome::Pass; 7]);
    assert_eq!(outcomes[7..], [Outcome::SourceBusy; 5]);
    assert_eq!((a.asked().len(), b.asked().len()), (4, 3));
    // Both show what both have spent.
    for node in [&a, &b] {
        let status = &node.status()[0];
        assert_eq!((status.spent_today.as_str(), status.spent.as_str(), status.calls), ("4.9", "4.9", 7));
    }
    b.stop();
    a.stop();
    assert_eq!(home.bought().len(), 7);
}

#[test]
fn what_a_purchase_did_not_cost_is_free_for_all_nodes_again() {
    let caps = Caps { daily: Some(COST), monthly: Some(Credits::whole(2)) };
    let alone = || routing(Route { providers: vec![(0, 0)], ..route() }, caps);
    let Some((_homes, a, b)) = two_nodes(alone) else { return };
    a.says([unsent(), Ok("refused")]);
    assert_eq!(a.ask(FOREIGN).answer.outcome, Outcome::SourceBusy);
    assert_eq!(a.ask(FOREIGN).answer.outcome, Outcome::SourceBusy);
    b.says([Ok("PASS"), Ok("PASS")]);
    assert_eq!(b.ask(FOREIGN).answer.outcome, Outcome::Pass);
    assert_eq!(b.ask(FOREIGN).answer.outcome, Outcome::SourceBusy, "now the cap is reached");
    assert_eq!((a.asked().len(), b.asked().len()), (2, 1));
    a.stop();
    b.stop();
}

#[test]
fn a_question_that_one_node_is_buying_is_not_bought_by_another() {
    let Some(([home, other], a, b)) = two_nodes(|| routing(route(), Caps::default())) else { return };
    // The provider does not answer for now; the client asks again, elsewhere.
    assert!(a.wait(a.question(Action::FourElements, FOREIGN, Some("k"), None)).is_none());
    b.says([Ok("PASS")]);
    assert_eq!(told(&b.put(FOREIGN, Some("k"), None).unwrap()), (Outcome::SourceBusy, Credits::ZERO));
    assert_eq!((a.asked().len(), b.asked().len()), (1, 0));
    // Its process dies; the next one of that name may ask again, and is the first to be answered.
    let next_home = other.beside();
    let next = Bench::named("a", &next_home, routing(route(), Caps::default()));
    next.says([Ok("PASS")]);
    assert_eq!(told(&next.put(FOREIGN, Some("k"), None).unwrap()), (Outcome::Pass, ONE));
    let again = b.put(FOREIGN, Some("k"), None).unwrap();
    assert!(again.replayed && told(&again) == (Outcome::Pass, ONE));
    assert_eq!(b.asked().len(), 0);
    // One that ends in order tells its caller to ask again, who may do so anywhere.
    assert!(next.wait(next.question(Action::FourElements, FOREIGN, Some("l"), None)).is_none());
    next.stop();
    assert_eq!(told(&b.put(FOREIGN, Some("l"), None).unwrap()), (Outcome::Pass, ONE));
    assert_eq!(b.asked().len(), 1);
    b.stop();
    a.stop();
    drop(home);
}

#[test]
fn a_pass_that_one_node_bought_another_gives_again() {
    let again = || routing(Route { reuse_ms: 3_600_000, ..route() }, Caps::default());
    let Some((_homes, a, b)) = two_nodes(again) else { return };
    a.says([Ok("PASS")]);
    assert_eq!(told(&a.ask(FOREIGN)), (Outcome::Pass, ONE));
    let settled = b.ask(FOREIGN);
    assert_eq!((told(&settled), settled.answer.row), ((Outcome::Pass, Credits::ZERO), Row::REUSED));
    assert!(b.asked().is_empty());
    a.stop();
    b.stop();
}
