//! The engine with its store: open, ask, close, open again; and what is done to it in between.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/park.rs"]
mod park;
#[path = "support/shop.rs"]
mod shop;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use engine::caller::{Action, ApplicationId, CallerId, CredentialId};
use engine::clock::Mode;
use engine::erase::ErasureStatus;
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::platform::{Order, OrderState, PlatformError};
use engine::register::{Kind, Wish};
use engine::settle::{Desk, Settlement, Writing};
use engine::store::{Check, LedgerFile};
use engine::vault::{KeyGroup, KeyRing, Vault};
use engine::verify::Refusal;
use engine::{Engine, Policy, Running, Seed};

use ask::{policy, wait};
use shop::{credential, put, shop};

const ROOT: [u8; 32] = [9; 32];
const NOON: i64 = 1_795_233_600_000; // 2026-11-21 12:00 in Beijing
const DAY: i64 = 86_400_000;

fn open(folder: &Path, policy: Policy) -> Running {
    let running =
        Engine::open(folder, &ROOT, policy, Issuers::built_in(), shop(Credits::whole(100)), None).unwrap();
    running.engine.clock.set(Mode::Frozen(NOON));
    running
}

fn ask(engine: &Arc<Engine>, mobile: &str, key: Option<&str>) -> Settlement {
    let desk = engine.desk().unwrap();
    wait(&desk, asked(&desk, mobile, key))
}

async fn asked(desk: &Desk, mobile: &str, key: Option<&str>) -> Settlement {
    ask::asked(desk, &credential(&desk.engine.vault), mobile, key).await
}

fn outcome(settlement: Settlement) -> Outcome {
    settlement.unwrap().answer.outcome
}

#[test]
fn balance_attempts_and_stored_answers_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let policy = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    let first = ask(&running.engine, "16100000001", Some("k")).unwrap().answer;
    assert_eq!((first.outcome, first.balance), (Outcome::Pass, Some(Credits::whole(99))));
    for _ in 0..3 {
        assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch);
    }
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::AttemptsExceeded, "locked");
    running.stop();

    let running = open(dir.path(), policy());
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::AttemptsExceeded, "still locked");
    let again = ask(&running.engine, "16100000001", Some("k")).unwrap();
    assert!(again.replayed);
    assert_eq!(again.answer, first);
    assert_eq!(running.engine.totals().charges, 4);
    running.engine.clock.set(Mode::Frozen(NOON + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "a new day");
    running.stop();
}

#[test]
fn a_noisy_caller_cannot_keep_a_quiet_one_from_being_answered() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), Policy { under_way_max: 8, ..policy() });
    put(&running.engine, "normal");
    let engine = &running.engine;
    engine.acting(By::Machine).create_caller("quiet", false, true, Credits::ZERO).unwrap();
    let issued = engine.acting(By::Machine).issue("quiet", Kind::Bearer, Wish::default()).unwrap();
    let directory = engine.directory();
    let quiet = Arc::clone(directory.credential(CredentialId(issued.credential)).unwrap());
    let noisy = credential(&engine.vault);
    // Admitted, and not asked yet: as many as there may be, again and again.
    let desk = engine.desk().unwrap();
    let mut under_way = Vec::new();
    let mut refused = 0;
    for _ in 0..100 {
        match wait(&desk, desk.admit(&noisy, Action::FourElements, false)) {
            Ok(admission) => under_way.push(admission),
            Err(Refusal::Overloaded) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((under_way.len(), refused), (4, 96));
    for _ in 0..20 {
        assert!(
            wait(&desk, desk.admit(&quiet, Action::FourElements, false)).is_ok(),
            "and given back at once"
        );
    }
    assert_eq!(engine.totals().answers, 0, "a refusal never touches the ledger");
    let balance = engine.balance(&under_way[0].application).unwrap();
    under_way.clear();
    assert_eq!(
        outcome(ask(engine, "16100000001", None)),
        Outcome::Pass,
        "who stops asking too much is answered"
    );
    assert_eq!(engine.totals().answers, 1);
    assert_eq!(balance, Credits::whole(100), "what was set aside is not charged");
    running.stop();
}

#[test]
fn a_twin_joins_the_question_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "lost");
    let desk = running.engine.desk().unwrap();
    let both = async {
        let mut first = pin!(asked(&desk, "16100000001", Some("k")));
        let mut twin = pin!(asked(&desk, "16100000001", Some("k")));
        // Both are under way before either is answered.
        std::future::poll_fn(|context| {
            let _ = first.as_mut().poll(context);
            let _ = twin.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        (first.await, twin.await)
    };
    let (first, twin) = wait(&desk, both);
    let (first, twin) = (first.unwrap(), twin.unwrap());
    assert_eq!(first.answer, twin.answer);
    assert!(!first.replayed && twin.replayed);
    assert_eq!(running.engine.totals().charges, 1);
    drop(desk);
    running.stop();
}

#[test]
fn a_client_that_goes_away_is_charged_for_what_it_asked() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    let desk = running.engine.desk().unwrap();
    {
        let mut abandoned = Box::pin(asked(&desk, "16100000001", None));
        let _ = abandoned.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(desk);
    running.stop();
    let running = open(dir.path(), policy());
    assert_eq!(running.engine.totals().charges, 1);
    running.stop();
}

#[test]
fn a_key_is_for_one_question() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    assert_eq!(ask(&running.engine, "16100000002", Some("k")).unwrap_err(), Refusal::KeyReused);
    running.engine.clock.set(Mode::Frozen(NOON + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000002", Some("k"))), Outcome::HolderMismatch, "forgotten");
    running.stop();
}

#[test]
fn an_account_that_was_changed_behind_our_back_is_never_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "lost");
    let db = rusqlite::Connection::open(dir.path().join("accounts.db")).unwrap();
    db.execute("UPDATE account SET state = 0", []).unwrap();
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Stopped);
    assert_eq!(running.engine.totals().charges, 0);
    running.stop();
}

#[test]
fn a_changed_ledger_is_noticed_by_the_check_and_at_the_next_start() {
    for (what, sql) in [
        ("an entry", "UPDATE block SET bytes = CAST(substr(bytes, 1, length(bytes) - 1) || x'01' AS BLOB)"),
        ("a root", "UPDATE block SET root = zeroblob(32)"),
        ("a cut end", "DELETE FROM block WHERE seq = (SELECT max(seq) FROM block)"),
        ("a side row", "UPDATE side SET bytes = zeroblob(64)"),
        ("a checkpoint", "UPDATE checkpoint SET signature = zeroblob(64)"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let running = open(dir.path(), policy());
        put(&running.engine, "normal");
        assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
        running.stop();
        let ring = KeyRing::open_or_create(&dir.path().join("keys.json"), &ROOT).unwrap();
        let vault = Vault::new(&ring);
        let ledger = dir.path().join("ledger.db");
        let check = LedgerFile::check(&ledger, &vault).unwrap();
        assert_eq!((check.answers, check.charges, check.checkpoints), (1, 1, 1));

        rusqlite::Connection::open(&ledger).unwrap().execute_batch(sql).unwrap();
        let error = LedgerFile::check(&ledger, &vault).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{what}: {error}");
    }
}

#[test]
fn a_side_row_that_nobody_erased_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    running.stop();
    let ledger = dir.path().join("ledger.db");
    rusqlite::Connection::open(&ledger).unwrap().execute_batch("DELETE FROM side").unwrap();
    let vault = Vault::new(&KeyRing::open_or_create(&dir.path().join("keys.json"), &ROOT).unwrap());
    let error = LedgerFile::check(&ledger, &vault).unwrap_err();
    assert!(error.to_string().contains("2 side rows are missing"), "{error}");
}

/// Waits until an erasure has come to its end or stopped.
fn erased(engine: &Arc<Engine>) -> ErasureStatus {
    loop {
        let is = engine.erasure();
        if !is.is_running {
            return is;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check(folder: &Path) -> Check {
    let vault = Vault::new(&KeyRing::open(&folder.join("keys.json"), &ROOT).unwrap());
    LedgerFile::check(&folder.join("ledger.db"), &vault).unwrap()
}

/// The first bytes of everything sealed about the only card there is, and its row.
fn traces(folder: &Path) -> Vec<Vec<u8>> {
    let read = |file: &str, sql: &str| -> Vec<Vec<u8>> {
        let db = rusqlite::Connection::open(folder.join(file)).unwrap();
        let mut find = db.prepare(sql).unwrap();
        find.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut traces = read("ledger.db", "SELECT substr(bytes, 5, 40) FROM side WHERE seq > 1");
    traces.extend(read("accounts.db", "SELECT idx FROM account"));
    traces.extend(read("accounts.db", "SELECT id FROM account"));
    traces
}

fn linger(folder: &Path, traces: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let has = |trace: &Vec<u8>| bytes.windows(trace.len()).any(|window| window == &trace[..]);
        if traces.iter().any(has) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_is_erased_is_nowhere_and_the_audit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    running.stop();
    let running = open(dir.path(), policy());
    assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch);
    while running.engine.usage(None, 10).unwrap().len() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let traces = traces(dir.path());
    assert_eq!(traces.len(), 4, "two side rows, where the account stands, what it says");
    assert!(!linger(dir.path(), &traces).is_empty());

    running.engine.acting(By::Machine).erase("6217 0000 0000 0000 012").unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks, is.error), (true, 2, 2, None));
    assert!(running.engine.usage(None, 10).unwrap().iter().all(|row| row.masks.is_none()));
    let again = ask(&running.engine, "16100000001", Some("k")).unwrap();
    assert_eq!((again.replayed, again.answer.outcome), (false, Outcome::PanInvalid), "it is a new question");
    running.stop();
    let held = check(dir.path());
    assert_eq!((held.answers, held.charges, held.erased), (3, 3, 2));
    assert_eq!(linger(dir.path(), &traces), Vec::<String>::new());

    // Erased again, with nothing but the question since; and after a restart nothing is counted twice.
    let running = open(dir.path(), policy());
    assert_eq!(running.engine.totals().charges, 3);
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks), (false, 1, 1));
    running.stop();
    assert_eq!(check(dir.path()).erased, 3);
}

#[test]
fn an_interrupted_erasure_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    while running.engine.usage(None, 10).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Somebody in the way of the accounts stops it after it was noted.
    let accounts = rusqlite::Connection::open(dir.path().join("accounts.db")).unwrap();
    accounts.execute_batch("BEGIN IMMEDIATE").unwrap();
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    let is = erased(&running.engine);
    assert!(is.error.is_some_and(|error| error.contains("locked")));
    drop(accounts);
    running.stop();
    assert_eq!(check(dir.path()).erased, 0);

    let running = open(dir.path(), policy());
    running.engine.resume_erasure().unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks, is.error), (true, 1, 1, None));
    running.engine.resume_erasure().unwrap();
    assert_eq!(erased(&running.engine).records, 1, "there is nothing left to go on with");
    running.stop();
    assert_eq!(check(dir.path()).erased, 1);
}

#[test]
fn a_question_is_known_and_a_card_is_found_under_keys_from_before() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    running.engine.acting(By::Machine).rotate_keys(&KeyGroup::ALL).unwrap();
    while running.engine.rotation().is_running {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.engine.rotation().error, None);
    assert!(ask(&running.engine, "16100000001", Some("k")).unwrap().replayed);
    assert_eq!(ask(&running.engine, "16100000002", Some("k")).unwrap_err(), Refusal::KeyReused);
    running.stop();
    let running = open(dir.path(), policy());
    assert!(ask(&running.engine, "16100000001", Some("k")).unwrap().replayed, "after a restart");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    assert_eq!(erased(&running.engine).records, 2, "one under each key");
    running.stop();

    // A checkpoint under the replaced key, though its public half is kept, is not taken any more.
    assert_eq!(check(dir.path()).erased, 2);
    let db = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    db.execute("UPDATE checkpoint SET key = 1 WHERE size = (SELECT max(size) FROM checkpoint)", []).unwrap();
    let vault = Vault::new(&KeyRing::open(&dir.path().join("keys.json"), &ROOT).unwrap());
    let error = LedgerFile::check(&dir.path().join("ledger.db"), &vault).unwrap_err();
    assert!(error.to_string().contains("does not hold"), "{error}");
}

#[test]
fn a_store_that_cannot_commit_answers_nothing_and_charges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    // A table that is gone fails the next commit, as a full or broken disk would.
    let db = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    db.execute_batch("ALTER TABLE side RENAME TO hidden").unwrap();
    assert_eq!(ask(&running.engine, "16100000001", Some("k")).unwrap_err(), Refusal::Stopped);
    assert_eq!(running.engine.writing(), Writing::Stopped);
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Stopped, "and stays so");
    db.execute_batch("ALTER TABLE hidden RENAME TO side").unwrap();
    drop(db);
    running.stop();
    let running = open(dir.path(), policy());
    assert_eq!(running.engine.totals().charges, 1);
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    running.stop();
}

#[test]
fn usage_rows_follow_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), policy());
    put(&running.engine, "lost");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::CardLost);
    running.stop();
    let running = open(dir.path(), policy());
    let rows = running.engine.usage(Some(1), 10).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].outcome.as_str(), rows[0].charged.as_str()), ("CARD_LOST", "1"));
    assert_eq!(rows[0].masks.as_ref().unwrap().card, "621700*********0012");
    assert!(running.engine.usage(Some(2), 10).unwrap().is_empty());
    running.stop();
}

#[test]
fn what_is_remembered_outlives_snapshots_and_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let policy = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let mut first = None;
    // Each start reads again what an earlier snapshot has counted.
    for number in 0..4 {
        let running = open(dir.path(), policy());
        put(&running.engine, "normal");
        let kept = ask(&running.engine, "16100000001", Some("k")).unwrap();
        let first = first.get_or_insert(kept.answer.clone());
        assert_eq!((&kept.answer, kept.replayed), (&*first, number > 0));
        let mismatch = outcome(ask(&running.engine, "16100000002", None));
        let expected = if number < 3 { Outcome::HolderMismatch } else { Outcome::AttemptsExceeded };
        assert_eq!(mismatch, expected, "start {number}");
        assert_eq!(running.engine.totals().charges, 2 + number.min(2));
        running.stop();
    }
    for _ in 0..2 {
        let running = open(dir.path(), policy());
        running.engine.clock.set(Mode::Frozen(NOON + DAY));
        assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch, "a new day");
        running.stop();
    }
    let running = open(dir.path(), policy());
    running.engine.clock.set(Mode::Frozen(NOON + DAY));
    assert!(!ask(&running.engine, "16100000001", Some("k")).unwrap().replayed, "its day is over");
    running.stop();
}

#[test]
fn a_full_memory_refuses_new_keys_and_never_asks_twice() {
    let dir = tempfile::tempdir().unwrap();
    let running = open(dir.path(), Policy { keys_max: 2, ..policy() });
    put(&running.engine, "normal");
    for key in ["a", "b"] {
        assert_eq!(outcome(ask(&running.engine, "16100000001", Some(key))), Outcome::Pass);
    }
    assert_eq!(ask(&running.engine, "16100000001", Some("c")).unwrap_err(), Refusal::Overloaded);
    assert!(ask(&running.engine, "16100000001", Some("b")).unwrap().replayed);
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "without a key");
    assert_eq!(running.engine.totals().charges, 3);
    running.engine.clock.set(Mode::Frozen(NOON + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("c"))), Outcome::Pass, "room again");
    running.stop();
}

#[test]
fn full_counters_refuse_what_is_counted_until_the_day_ends() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { attempts: AttemptPolicy::default(), counters_max: 9, ..policy() };
    let running = open(dir.path(), policy);
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Overloaded);
    assert_eq!(running.engine.totals().charges, 1);
    running.engine.clock.set(Mode::Frozen(NOON + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "a new day");
    running.stop();
}

#[test]
fn an_order_that_was_paid_before_a_crash_is_carried_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        || Engine::open(dir.path(), &ROOT, policy(), Issuers::built_in(), Seed::nobody(), None).unwrap();
    let balance = |engine: &Engine, caller: CallerId| {
        let (application, _) = engine.directory().application(ApplicationId(caller.0)).unwrap();
        engine.balance(&application)
    };
    let running = start();
    let engine = &running.engine;
    let caller = engine.acting(By::Machine).register("ada", "ada@example.com", "hash".into()).unwrap();
    assert!(matches!(
        engine.acting(By::Machine).register("bob", "ada@example.com", "hash".into()),
        Err(PlatformError::LoginTaken)
    ));
    engine.acting(By::Machine).acquire(caller, Credits::whole(10)).unwrap();
    assert!(matches!(
        engine.acting(By::Machine).acquire(caller, Credits::whole(10)),
        Err(PlatformError::Acquired)
    ));
    assert_eq!(balance(engine, caller), Some(Credits::whole(10)));
    // The money has come and was noted; then the power went.
    let order =
        Order { state: OrderState::Paid, ..Order::new(caller, "Hundred".into(), Credits::whole(100), NOON) };
    engine.platform().add_order(&order).unwrap();
    running.stop();

    for _ in 0..2 {
        let running = start();
        let engine = &running.engine;
        assert_eq!(balance(engine, caller), Some(Credits::whole(110)));
        assert_eq!(engine.platform().order(&order.id).unwrap().unwrap().state, OrderState::Finished);
        // Or it went after the ledger had the credits: the same once more.
        engine.platform().set_order(&order.id, OrderState::Paid, None, NOON).unwrap();
        running.stop();
    }
    let running = start();
    let refunded = running.engine.acting(By::Machine).refund_order(&order.id).unwrap();
    assert_eq!(
        (refunded.state, balance(&running.engine, caller)),
        (OrderState::Refunded, Some(Credits::whole(10)))
    );
    running.stop();
}
