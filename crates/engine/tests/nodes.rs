//! Several engines on one database, as the nodes of an installation: together they answer as one would.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/draws.rs"]
mod draws;
#[path = "support/park.rs"]
mod park;
#[path = "support/postgres.rs"]
mod postgres;
#[expect(dead_code, reason = "no storm here")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/soon.rs"]
mod soon;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::action::Action;
use engine::bulk::{self, Job, Rows, Unsettled};
use engine::caller::{self, ApplicationId, CredentialId};
use engine::issuer::Issuers;
use engine::ledger::{Credits, Entry};
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::register::{CredentialTerms, Kind, Wish};
use engine::settle::{Desk, Settled, Settlement, Writing};
use engine::store::postgres::{Database, Session};
use engine::store::{Check, LedgerFile, LedgerPlace, LedgerReader, SharedStore, StoreError};
use engine::vault::{KeyRing, Vault};
use engine::verify::Refusal;
use engine::{AccountsFrom, Engine, Policy, Running};

use ask::wait;
use proxy::{Lose, Proxy};
use soon::soon;

const ROOT: [u8; 32] = [9; 32];
const GRANTED: Credits = Credits::whole(1_000_000);
const RIGHT: &str = "16100000001";
const WRONG: &str = "16100000002";

/// A node in a folder of its own.
struct Node {
    running: Running,
    folder: tempfile::TempDir,
}

impl Node {
    fn stop(self) -> tempfile::TempDir {
        self.running.stop();
        self.folder
    }
}

fn policy() -> Policy {
    Policy { accounts_stale_max: Duration::from_secs(600), ..ask::policy() }
}

fn open(database: &Arc<Database>, name: &str, granted: Credits, policy: Policy) -> Node {
    open_in(tempfile::tempdir().unwrap(), database, name, granted, policy)
}

fn open_in(
    folder: tempfile::TempDir,
    database: &Arc<Database>,
    name: &str,
    granted: Credits,
    policy: Policy,
) -> Node {
    let shared = SharedStore { database: Arc::clone(database), node: name.into() };
    let seed = shop::shop(granted);
    let running =
        Engine::open(folder.path(), &ROOT, policy, Issuers::built_in(), seed, Some(shared)).unwrap();
    Node { running, folder }
}

/// A node that has the account.
fn first(database: &Arc<Database>, granted: Credits, policy: Policy) -> Node {
    let node = open(database, "a", granted, policy);
    shop::put(&node.running.engine, "normal");
    node.has_account();
    node
}

impl Node {
    fn engine(&self) -> &Arc<Engine> {
        &self.running.engine
    }

    /// Waits until the account has come here, where a copy is kept.
    fn has_account(&self) {
        let engine = self.engine();
        let is_there = || {
            let Ok(accounts) = engine.accounts_to_read() else { return true };
            accounts.find("6217000000000000012", &engine.vault.keys()).is_ok_and(|row| row.is_some())
        };
        soon(is_there);
    }

    fn ask(&self, mobile: &str, key: Option<&str>) -> Settlement {
        let desk = self.engine().desk().unwrap();
        wait(&desk, asked(&desk, mobile, key))
    }

    fn balance(&self) -> Option<Credits> {
        let (application, _) = self.engine().directory().application(ApplicationId(1)).unwrap();
        self.engine().balance(&application)
    }
}

async fn asked(desk: &Desk, mobile: &str, key: Option<&str>) -> Settlement {
    ask::asked(desk, &shop::credential(&desk.engine.vault), mobile, key).await
}

fn outcome(settlement: Settlement) -> Outcome {
    settlement.unwrap().answer.outcome
}

fn place(database: &Arc<Database>) -> LedgerPlace {
    LedgerPlace::Shared { database: Arc::clone(database), node: "a".into() }
}

fn checked(database: &Arc<Database>, folder: &tempfile::TempDir) -> Result<Check, StoreError> {
    let vault = Vault::new(&KeyRing::open(&folder.path().join("keys.json"), &ROOT).unwrap());
    LedgerFile::check(place(database), &vault)
}

fn number(database: &Arc<Database>, sql: &str) -> i64 {
    let mut session = Session::new(Arc::clone(database)).unwrap();
    session.read(async |connection| connection.client.query_one(sql, &[]).await).unwrap().get(0)
}

fn execute(database: &Arc<Database>, sql: &str) {
    let mut session = Session::new(Arc::clone(database)).unwrap();
    session.read(async |connection| connection.client.batch_execute(sql).await).unwrap();
}

#[test]
fn two_nodes_answer_as_one() {
    answer_as_one([AccountsFrom::Copy, AccountsFrom::Copy]);
}

#[test]
fn two_nodes_answer_as_one_where_one_keeps_no_copy_of_the_accounts() {
    answer_as_one([AccountsFrom::Copy, AccountsFrom::Database]);
}

#[test]
fn two_nodes_answer_as_one_where_neither_keeps_a_copy() {
    answer_as_one([AccountsFrom::Database, AccountsFrom::Database]);
}

fn answer_as_one(accounts_from: [AccountsFrom; 2]) {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let from = |accounts_from| Policy { attempts: AttemptPolicy::default(), accounts_from, ..policy() };
    let [of_a, of_b] = accounts_from;
    let a = first(&database, GRANTED, from(of_a));
    let b = open(&database, "b", GRANTED, from(of_b));
    b.has_account();

    let told = a.ask(RIGHT, Some("k")).unwrap();
    let again = b.ask(RIGHT, Some("k")).unwrap();
    assert!(!told.replayed && again.replayed, "one question, one charge");
    assert_eq!(told.answer, again.answer);
    assert_eq!(b.ask(WRONG, Some("k")).unwrap_err(), Refusal::KeyReused);

    assert_eq!(outcome(a.ask(WRONG, None)), Outcome::HolderMismatch);
    assert_eq!(outcome(b.ask(WRONG, None)), Outcome::HolderMismatch);
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass, "ends the run, also the other node's");
    for node in [&a, &b, &a] {
        assert_eq!(outcome(node.ask(WRONG, None)), Outcome::HolderMismatch);
    }
    assert_eq!(outcome(b.ask(RIGHT, None)), Outcome::AttemptsExceeded, "three in a row, wherever");

    // 7 charged; both know it a moment later.
    let left = Some(Credits(GRANTED.0 - Credits::whole(7).0));
    soon(|| a.balance() == left && b.balance() == left);
    a.stop();
    let folder = b.stop();
    let check = checked(&database, &folder).unwrap();
    assert_eq!((check.trees, check.charges), (2, 7));

    // And after a restart.
    let b = open_in(folder, &database, "b", GRANTED, from(of_b));
    assert!(b.ask(RIGHT, Some("k")).unwrap().replayed);
    assert_eq!(outcome(b.ask(RIGHT, None)), Outcome::AttemptsExceeded, "still locked");
    soon(|| b.engine().usage(None, 100).unwrap().len() == 9);
    b.stop();
}

#[test]
fn no_more_is_spent_than_was_granted_and_all_of_it_can_be() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let granted = Credits::whole(50);
    let nodes = [first(&database, granted, policy()), open(&database, "b", granted, policy())];
    nodes[1].has_account();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for node in &nodes {
            for _ in 0..2 {
                scope.spawn(|| {
                    let began = Instant::now();
                    // What the other node has taken and does not use comes back after a while.
                    while began.elapsed() < Duration::from_secs(8) {
                        match node.ask(RIGHT, None) {
                            Ok(_) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                            Err(Refusal::Arrears) => std::thread::sleep(Duration::from_millis(50)),
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                });
            }
        }
    });
    assert_eq!(answered.load(Ordering::SeqCst), 50);
    soon(|| nodes.iter().all(|node| node.balance() == Some(Credits::ZERO)));
    let [a, b] = nodes;
    a.stop();
    let check = checked(&database, &b.stop()).unwrap();
    assert_eq!((check.charges, check.charged.as_str()), (50, "50"));
}

#[test]
fn a_database_that_is_killed_under_load_loses_nothing_and_doubles_nothing() {
    let Some(mut server) = postgres::Postgres::start() else { return };
    let database = server.database();
    let nodes = [first(&database, GRANTED, policy()), open(&database, "b", GRANTED, policy())];
    nodes[1].has_account();
    let (is_over, number) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let answers = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for node in nodes.iter().cycle().take(6) {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(60) {
                    let key = format!("k{}", number.fetch_add(1, Ordering::SeqCst));
                    match node.ask(RIGHT, Some(&key)) {
                        Ok(Settled { answer, .. }) => answers.lock().unwrap().push((key, answer)),
                        Err(Refusal::Stopped | Refusal::Arrears) => {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(500));
            server.kill();
            std::thread::sleep(Duration::from_millis(300));
            server.run();
            let before = answers.lock().unwrap().len();
            soon(|| answers.lock().unwrap().len() > before + 10);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    soon(|| nodes.iter().all(|node| node.engine().writing() == Writing::Works));
    let answers = answers.into_inner().unwrap();
    for (key, answer) in answers.iter().take(50) {
        let again = nodes[0].ask(RIGHT, Some(key)).unwrap();
        assert!(again.replayed && again.answer == *answer, "{key} is known by its answer");
    }
    let [a, b] = nodes;
    a.stop();
    let folder = b.stop();
    let check = checked(&database, &folder).unwrap();
    let reader = LedgerReader::open(place(&database)).unwrap();
    let mut requests = HashSet::new();
    let mut entries = 0;
    reader
        .entries(&(i64::MIN..i64::MAX), |entry| -> Result<(), StoreError> {
            if let Entry::Answer(answer) = entry {
                entries += 1;
                requests.insert(answer.request);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(requests.len(), entries, "none is there twice");
    assert!(answers.iter().all(|(_, answer)| requests.contains(&answer.request)), "none is lost");
    assert_eq!(check.charges as usize, entries);
    let a = open(&database, "a", GRANTED, policy());
    let left = GRANTED.0 - Credits::whole(entries as i64).0;
    soon(|| a.balance() == Some(Credits(left)));
    a.stop();
}

#[test]
fn a_commit_that_is_lost_on_its_way_or_on_its_way_back_is_made_once() {
    let Some(server) = postgres::shared() else { return };
    let proxy = Proxy::new(&server.url(), 0);
    let a = first(proxy.database(), GRANTED, policy());
    let mut told = Vec::new();
    for number in 0..40 {
        match number % 3 {
            1 => proxy.lose_block(Lose::Change),
            2 => proxy.lose_block(Lose::Answer(Box::new(|| {}))),
            _ => {}
        }
        let key = format!("k{number}");
        let settled = loop {
            match a.ask(RIGHT, Some(&key)) {
                Err(Refusal::Stopped | Refusal::Arrears) => std::thread::sleep(Duration::from_millis(20)),
                settled => break settled.unwrap(),
            }
        };
        told.push(settled.answer.request);
    }
    soon(|| a.engine().writing() == Writing::Works);
    let left = GRANTED.0 - Credits::whole(40).0;
    soon(|| a.balance() == Some(Credits(left)));
    let check = checked(proxy.database(), &a.stop()).unwrap();
    assert_eq!((check.answers, check.charges), (40, 40), "each once, whatever was lost");
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), 40);
}

#[test]
fn a_process_whose_place_was_taken_writes_no_more() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let older = first(&database, GRANTED, policy());
    let newer = open(&database, "a", GRANTED, policy());
    newer.has_account();
    assert_eq!(outcome(newer.ask(RIGHT, None)), Outcome::Pass);
    soon(|| older.engine().writing() == Writing::Stopped);
    assert_eq!(older.ask(RIGHT, None).unwrap_err(), Refusal::Stopped);
    older.stop();
    assert_eq!(outcome(newer.ask(RIGHT, None)), Outcome::Pass);
    let check = checked(&database, &newer.stop()).unwrap();
    assert_eq!((check.trees, check.answers), (1, 2));
}

#[test]
fn what_a_node_had_taken_when_it_died_comes_back() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let granted = Credits::whole(10);
    let a = first(&database, granted, policy());
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass);
    let b = open(&database, "b", granted, policy());
    b.has_account();
    // As if all of it were with a node that gives no sign of life.
    execute(
        &database,
        "INSERT INTO node VALUES (9, 'dead', 1, 1, 0, 0);
         INSERT INTO slice SELECT 9, 0, 1, free, 0 FROM purse WHERE kind = 0 AND id = 1;
         UPDATE purse SET free = 0 WHERE kind = 0 AND id = 1;",
    );
    soon(|| b.ask(RIGHT, None).is_ok());
    soon(|| b.balance() == Some(Credits::whole(8)));
    a.stop();
    b.stop();
}

#[test]
fn a_node_that_was_found_dead_and_is_not_counts_anew_and_goes_on() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, Credits::whole(10), policy());
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass);
    // What another node does that finds it dead; and somebody else spends it.
    execute(
        &database,
        "UPDATE node SET epoch = 1; UPDATE slice SET remains = 0; UPDATE purse SET free = 2000000;",
    );
    let answered = (0..10).filter(|_| a.ask(RIGHT, None).is_ok()).count();
    assert_eq!(answered, 2, "what there is, and not what it thinks it has");
    let check = checked(&database, &a.stop()).unwrap();
    assert_eq!(check.charges, 3);
}

/// It charged 1,173 of 1,010 credits: it went on with what had been given back and was spent by others.
#[test]
fn a_node_that_was_found_dead_between_its_commit_and_the_lost_answer_to_it_counts_anew() {
    let Some(server) = postgres::shared() else { return };
    let url = server.url();
    let (proxy, others) = (Proxy::new(&url, 0), postgres::database_at(&url));
    let a = first(proxy.database(), Credits::whole(10), policy());
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass);
    let found_dead =
        "UPDATE node SET epoch = 1; UPDATE slice SET remains = 0; UPDATE purse SET free = 2000000;";
    let bury = Arc::clone(&others);
    proxy.lose_block(Lose::Answer(Box::new(move || execute(&bury, found_dead))));
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass, "it was made, and is not made again");
    let answered = (0..10).filter(|_| a.ask(RIGHT, None).is_ok()).count();
    assert_eq!(answered, 2, "what there is, and not what it thinks it has");
    assert_eq!(checked(&others, &a.stop()).unwrap().charges, 4);
}

/// Both nodes had counted it, and the one that came second kept the attempt.
#[test]
fn a_key_that_is_asked_at_two_nodes_at_once_is_one_answer_and_one_attempt() {
    let Some(server) = postgres::shared() else { return };
    let url = server.url();
    let (proxy, others) = (Proxy::new(&url, 0), postgres::database_at(&url));
    let counted = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let a = first(proxy.database(), GRANTED, counted());
    let b = open(&others, "b", GRANTED, counted());
    b.has_account();
    // From here on neither has to wait for credits.
    for node in [&a, &b] {
        assert_eq!(outcome(node.ask(RIGHT, None)), Outcome::Pass);
    }
    let attempts = || number(&others, "SELECT max(n) FROM attempt");
    assert_eq!(attempts(), 2);
    proxy.hold_blocks(true);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| a.ask(RIGHT, Some("k")).unwrap());
        soon(|| attempts() == 3);
        let first = b.ask(RIGHT, Some("k")).unwrap();
        assert_eq!(attempts(), 4, "it was not known there yet");
        proxy.hold_blocks(false);
        let second = held.join().unwrap();
        assert!(!first.replayed && second.replayed);
        assert_eq!(first.answer, second.answer);
    });
    soon(|| attempts() == 3);
    a.stop();
    assert_eq!(checked(&others, &b.stop()).unwrap().charges, 3);
}

/// It was given back once more when the answer to that was lost: a card could be asked about once too often.
#[test]
fn an_attempt_that_is_given_back_over_a_connection_that_breaks_is_given_back_once() {
    let Some(server) = postgres::shared() else { return };
    let url = server.url();
    let (proxy, others) = (Proxy::new(&url, 0), postgres::database_at(&url));
    let attempts = AttemptPolicy { per_card: Some(2), ..AttemptPolicy::default() };
    let a = first(proxy.database(), GRANTED, Policy { attempts, ..policy() });
    for _ in 0..2 {
        assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::Pass);
    }
    // The first is that of the question, which is one too many.
    proxy.lose("INSERT INTO attempt", 1, Lose::Answer(Box::new(|| {})));
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::AttemptsExceeded);
    soon(|| number(&others, "SELECT max(n) FROM attempt") == 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(outcome(a.ask(RIGHT, None)), Outcome::AttemptsExceeded, "two are two");
    a.stop();
}

#[test]
fn a_spend_limit_holds_for_all_nodes_together_and_for_what_was_spent_before() {
    a_limit_that_is_set_later_holds_for(&[0, 1]);
}

#[test]
fn a_spend_limit_counts_what_another_node_charged_before_there_was_one() {
    a_limit_that_is_set_later_holds_for(&[1]);
}

/// The first node has charged five when the limit is set; then these are asked until they refuse.
fn a_limit_that_is_set_later_holds_for(asked: &[usize]) {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let nodes = [first(&database, GRANTED, policy()), open(&database, "b", GRANTED, policy())];
    nodes[1].has_account();
    (0..5).for_each(|_| assert_eq!(outcome(nodes[0].ask(RIGHT, None)), Outcome::Pass));
    let terms = CredentialTerms { limit: Some(Some(Credits::whole(20))), ..CredentialTerms::default() };
    nodes[1].engine().acting(By::Machine).set_credential(1, terms).unwrap();
    let limited = |node: &Node| {
        let directory = node.engine().directory();
        directory.credential(CredentialId(1)).is_some_and(|credential| credential.limit.is_some())
    };
    soon(|| nodes.iter().all(limited));
    let began = Instant::now();
    let mut answered = 5;
    while began.elapsed() < Duration::from_secs(6) {
        for node in asked.iter().map(|at| &nodes[*at]) {
            let credential = Arc::clone(node.engine().directory().credential(CredentialId(1)).unwrap());
            let desk = node.engine().desk().unwrap();
            match wait(&desk, ask::asked(&desk, &credential, RIGHT, None)) {
                Ok(_) => answered += 1,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::LimitReached);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
    assert_eq!(answered, 20);
    soon(|| nodes.iter().all(|node| node.engine().spent(CredentialId(1)) == Credits::whole(20)));
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

/// What it had taken of the former limit was void, and it went on with it: 22 of 3 credits.
#[test]
fn a_spend_limit_that_is_changed_holds_at_once_at_the_node_that_changed_it() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, GRANTED, policy());
    let limit = |limit: Option<i64>| {
        let terms = CredentialTerms { limit: Some(limit.map(Credits::whole)), ..CredentialTerms::default() };
        a.engine().acting(By::Machine).set_credential(1, terms).unwrap();
    };
    let answered = |asked: usize| {
        let credential = Arc::clone(a.engine().directory().credential(CredentialId(1)).unwrap());
        let desk = a.engine().desk().unwrap();
        let told = (0..asked).map(|_| wait(&desk, ask::asked(&desk, &credential, RIGHT, None)));
        told.filter(Result::is_ok).count()
    };
    limit(Some(100));
    assert_eq!(answered(2), 2);
    limit(Some(3));
    assert_eq!(answered(20), 1, "no more than the limit");
    limit(None);
    assert_eq!(answered(7), 7);
    limit(Some(12));
    assert_eq!(answered(20), 2, "and no less");
    assert_eq!(a.engine().spent(CredentialId(1)), Credits::whole(12));
    a.stop();
}

#[test]
fn questions_under_way_when_their_node_is_found_dead_do_not_go_beyond_a_spend_limit() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, GRANTED, policy());
    let terms = CredentialTerms { limit: Some(Some(Credits::whole(5))), ..CredentialTerms::default() };
    a.engine().acting(By::Machine).set_credential(1, terms).unwrap();
    let credential = Arc::clone(a.engine().directory().credential(CredentialId(1)).unwrap());
    let desk = a.engine().desk().unwrap();
    let admissions: Vec<_> = (0..3)
        .map(|_| wait(&desk, desk.admit(&credential, Action::FourElements, false)).ok().unwrap())
        .collect();
    // What another node does that finds this one dead; and somebody else has charged all but one.
    execute(
        &database,
        "UPDATE node SET epoch = 1; UPDATE slice SET remains = 0; UPDATE purse SET free = 1000000 WHERE kind = 1;",
    );
    let settled: Vec<_> = admissions
        .into_iter()
        .map(|admission| wait(&desk, ask::admitted(&desk, admission, &credential, RIGHT, None)))
        .map(|settled| settled.map(|settled| settled.answer.outcome))
        .collect();
    let (pass, refused) = (Ok(Outcome::Pass), Err(Refusal::LimitReached));
    assert_eq!(settled, [pass, refused, refused]);
    drop(desk);
    let check = checked(&database, &a.stop()).unwrap();
    assert_eq!(check.charges, 1);
}

/// Rows about the account, by their mobiles.
fn rows(mobiles: &[&str]) -> Rows {
    let mut rows = Rows::default();
    mobiles.iter().for_each(|mobile| {
        rows.push(["6217000000000000012", "张伟", "resident_id", "99010119610202001X", mobile]);
    });
    rows
}

impl Node {
    /// Begins a job of the shop, or goes on with it.
    fn job(&self, id: u8) -> bulk::Session {
        let credential = shop::credential(&self.engine().vault);
        let (wire, action) = (caller::Wire::Native, Action::FourElements);
        self.engine().bulk(Job { id: [id; 16], credential, wire, action, purpose: None }).ok().unwrap()
    }
}

fn settled(session: &bulk::Session, first_row: u64, mobiles: &[&str]) -> Result<bulk::Answers, Unsettled> {
    let judged = session.judge().unwrap().judge(rows(mobiles)).ok().unwrap();
    session.settle(first_row, judged)
}

fn outcomes(answers: Result<bulk::Answers, Unsettled>) -> Vec<Outcome> {
    answers.unwrap().outcomes.into_iter().map(Option::unwrap).collect()
}

#[test]
fn a_job_is_gone_on_with_at_another_node_and_no_row_is_charged_twice() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let counted = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let granted = Credits::whole(30);
    let a = first(&database, granted, counted());
    let b = open(&database, "b", granted, counted());
    b.has_account();
    let (pass, no, locked) = (Outcome::Pass, Outcome::HolderMismatch, Outcome::AttemptsExceeded);

    let begun = a.job(1);
    assert_eq!(outcomes(settled(&begun, 0, &[RIGHT, WRONG, WRONG, RIGHT])), [pass, no, no, pass]);
    let gone_on = b.job(1);
    assert_eq!(gone_on.settled().len(), 1);
    let again = settled(&gone_on, 0, &[RIGHT, WRONG, WRONG, RIGHT]).unwrap();
    assert!(again.replayed && again.outcomes.len() == 4);
    assert_eq!(settled(&gone_on, 0, &[RIGHT]).err(), Some(Unsettled::OtherRows));
    assert_eq!(outcomes(settled(&gone_on, 4, &[RIGHT, WRONG])), [pass, no]);
    // The first node knows nothing of that.
    assert_eq!(settled(&begun, 4, &[RIGHT, WRONG]).err(), Some(Unsettled::Elsewhere));

    // Six attempts of ten; a run of one. Both are everybody's.
    assert_eq!(outcomes(settled(&begun, 6, &[WRONG, WRONG, RIGHT])), [no, no, locked]);
    assert_eq!(outcome(b.ask(RIGHT, None)), locked, "a row's mismatch counts like a question's");
    drop((begun, gone_on));
    let left = Some(Credits(granted.0 - Credits::whole(8).0));
    soon(|| a.balance() == left && b.balance() == left);
    a.stop();
    let check = checked(&database, &b.stop()).unwrap();
    assert_eq!((check.charges, check.charged.as_str()), (8, "8"));
}

#[test]
fn attempts_of_rows_are_counted_with_those_of_other_nodes_to_the_last() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let counted =
        || Policy { attempts: AttemptPolicy { per_card: Some(5), ..AttemptPolicy::OFF }, ..policy() };
    let a = first(&database, GRANTED, counted());
    let b = open(&database, "b", GRANTED, counted());
    b.has_account();
    let (pass, used_up) = (Outcome::Pass, Outcome::AttemptsExceeded);
    assert_eq!(outcomes(settled(&a.job(1), 0, &[RIGHT; 3])), [pass; 3]);
    assert_eq!(outcomes(settled(&b.job(2), 0, &[RIGHT; 4])), [pass, pass, used_up, used_up]);
    assert_eq!(outcome(a.ask(RIGHT, None)), used_up);
    a.stop();
    b.stop();
}

#[test]
fn rows_whose_node_is_found_dead_meanwhile_are_charged_once_from_what_there_is() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, Credits::whole(40), policy());
    let job = a.job(1);
    assert_eq!(settled(&job, 0, &[RIGHT; 10]).unwrap().outcomes.len(), 10);
    let judged = job.judge().unwrap().judge(rows(&[RIGHT; 20])).ok().unwrap();
    // Found dead, and what it had taken given back: nothing is lost.
    let bury = "UPDATE node SET epoch = 1; UPDATE purse SET free = free + (SELECT coalesce(sum(remains), 0) FROM slice
        WHERE slice.kind = purse.kind AND slice.id = purse.id AND remains > 0) WHERE kind = 0;
        UPDATE slice SET remains = 0;";
    execute(&database, bury);
    assert_eq!(job.settle(10, judged).unwrap().outcomes.len(), 20);
    // And again, when somebody else spends five of the ten that are left.
    let judged = job.judge().unwrap().judge(rows(&[RIGHT; 10])).ok().unwrap();
    execute(&database, bury);
    execute(&database, "UPDATE purse SET free = 5000000 WHERE kind = 0;");
    let covered = match job.settle(30, judged) {
        Ok(answers) => answers.outcomes.len(),
        Err(Unsettled::Refused(Refusal::Arrears)) => 0,
        Err(other) => panic!("{other:?}"),
    };
    let judged = job.judge().unwrap().judge(rows(&[RIGHT; 10])).ok().unwrap();
    let rest = job.settle(30 + covered as u64, judged).map(|answers| answers.outcomes.len());
    assert_eq!(covered + rest.unwrap_or(0), 5, "what there is, and no more");
    drop(job);
    let check = checked(&database, &a.stop()).unwrap();
    assert_eq!((check.answers, check.charges), (35, 35));
}

#[test]
fn what_several_nodes_answered_is_told_in_the_order_of_time() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, GRANTED, policy());
    let b = open(&database, "b", GRANTED, policy());
    b.has_account();
    let ask = |node: &Node| {
        // Of two in one millisecond nobody knows which was first.
        std::thread::sleep(Duration::from_millis(2));
        node.ask(RIGHT, None).unwrap().answer.request
    };
    let told: Vec<_> = [&a, &b, &b, &a, &b, &a].map(ask).into();
    let mut read = Vec::new();
    let all = LedgerReader::open(place(&database)).unwrap();
    all.entries(&(i64::MIN..i64::MAX), |entry| -> Result<(), StoreError> {
        if let Entry::Answer(answer) = entry {
            read.push(answer.request);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(read, told);
    a.stop();
    b.stop();
}

#[test]
fn callers_that_one_node_changes_are_known_to_the_others_within_a_second() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let nodes = [open(&database, "a", GRANTED, policy()), open(&database, "b", GRANTED, policy())];
    let [a, b] = [nodes[0].engine(), nodes[1].engine()];
    let began = Instant::now();
    a.acting(By::Machine).create_caller("bank", false, false, Credits::whole(5)).unwrap();
    let issued = a.acting(By::Machine).issue("bank", Kind::Bearer, Wish::default()).unwrap();
    soon(|| b.credential_of_token(&issued.secret).is_some());
    b.acting(By::Machine).revoke(issued.credential).unwrap();
    soon(|| a.credential_of_token(&issued.secret).is_none());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let next = b.acting(By::Machine).issue("bank", Kind::Bearer, Wish::default()).unwrap();
    assert_eq!(next.credential, issued.credential + 1, "a number is given out once");
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

/// Two nodes that look seldom; what one changes is known to the other after this.
fn known_after(database: &Arc<Database>, look_every: Duration) -> Duration {
    let seldom = || Policy { look_every, ..policy() };
    let nodes = [open(database, "a", GRANTED, seldom()), open(database, "b", GRANTED, seldom())];
    let [a, b] = [nodes[0].engine(), nodes[1].engine()];
    // Both have looked, and listen if they can.
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    a.acting(By::Machine).create_caller("bank", false, false, Credits::whole(5)).unwrap();
    let issued = a.acting(By::Machine).issue("bank", Kind::Bearer, Wish::default()).unwrap();
    soon(|| b.credential_of_token(&issued.secret).is_some());
    shop::put(a, "normal");
    nodes[1].has_account();
    let known = began.elapsed();
    nodes.into_iter().for_each(|node| drop(node.stop()));
    known
}

#[test]
fn a_change_is_known_to_the_other_node_before_it_looks() {
    let Some(server) = postgres::shared() else { return };
    let known = known_after(&server.database(), Duration::from_secs(6));
    assert!(known < Duration::from_secs(3), "{known:?}");
}

#[test]
fn and_by_looking_where_it_cannot_be_heard() {
    let Some(server) = postgres::shared() else { return };
    let way = Proxy::new(&server.url(), 0);
    way.deafen();
    let known = known_after(way.database(), Duration::from_millis(1500));
    assert!((Duration::from_millis(800)..Duration::from_secs(10)).contains(&known), "{known:?}");
}

#[test]
fn a_tree_that_was_removed_or_cut_is_found() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let a = first(&database, GRANTED, policy());
    let b = open(&database, "b", GRANTED, policy());
    b.has_account();
    for node in [&a, &b] {
        assert_eq!(outcome(node.ask(RIGHT, None)), Outcome::Pass);
    }
    let noted = || {
        let mut noted = 0;
        let reader = LedgerReader::open(place(&database)).unwrap();
        let count = |entry: &Entry| -> Result<(), StoreError> {
            noted += u32::from(matches!(entry, Entry::Seen { .. }));
            Ok(())
        };
        reader.entries(&(i64::MIN..i64::MAX), count).unwrap();
        noted
    };
    soon(|| noted() >= 2);
    a.stop();
    let folder = b.stop();
    checked(&database, &folder).unwrap();
    execute(
        &database,
        "DELETE FROM block WHERE node = 1; DELETE FROM side WHERE node = 1; DELETE FROM checkpoint WHERE node = 1;
         DELETE FROM snapshot WHERE node = 1; DELETE FROM slice WHERE node = 1; DELETE FROM node WHERE number = 1;",
    );
    let error = checked(&database, &folder).unwrap_err();
    assert!(error.to_string().contains("the tree of node 1 was seen"), "{error}");
}
