//! Several engines that share the accounts and the platform of a database: what one changes the others know soon,
//! and none answers from what may be old.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/park.rs"]
mod park;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/shop.rs"]
mod shop;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::account::AccountState;
use engine::caller::CallerId;
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::store::postgres::Database;
use engine::store::{AccountOrder, AccountSpot, SharedStore};
use engine::vault::KeyGroup;
use engine::verify::Refusal;
use engine::{AccountsFrom, Engine, Policy, Running};

use ask::{asked, wait};

const ROOT: [u8; 32] = [9; 32];
const CARD: &str = "6217000000000000012";

fn open(folder: &Path, node: &str, database: &Arc<Database>) -> Running {
    open_with(folder, node, database, AccountsFrom::Copy)
}

fn open_with(folder: &Path, node: &str, database: &Arc<Database>, accounts_from: AccountsFrom) -> Running {
    let policy = Policy { accounts_stale_max: Duration::from_secs(2), accounts_from, ..ask::policy() };
    let shared = SharedStore { database: Arc::clone(database), node: node.into() };
    let seed = shop::shop(Credits::whole(100_000));
    Engine::open(folder, &ROOT, policy, Issuers::built_in(), seed, Some(shared)).unwrap()
}

fn ask(engine: &Arc<Engine>) -> Result<Outcome, Refusal> {
    let desk = engine.desk().unwrap();
    let credential = shop::credential(&engine.vault);
    wait(&desk, asked(&desk, &credential, "16100000001", None)).map(|settled| settled.answer.outcome)
}

/// Asks until that is the answer; gives how long it took.
fn until(engine: &Arc<Engine>, answer: Result<Outcome, Refusal>) -> Duration {
    let began = Instant::now();
    loop {
        let told = ask(engine);
        if told == answer {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{told:?} and not {answer:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Two data folders with the same keys.
fn folders() -> [tempfile::TempDir; 2] {
    let both = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    engine::vault::KeyRing::open_or_create(&both[0].path().join("keys.json"), &ROOT).unwrap();
    copy_keys(&both);
    both
}

fn copy_keys([from, to]: &[tempfile::TempDir; 2]) {
    std::fs::copy(from.path().join("keys.json"), to.path().join("keys.json")).unwrap();
}

#[test]
fn what_one_node_changes_the_other_knows_within_a_second() {
    let Some(server) = postgres::shared() else { return };
    let (database, folders) = (server.database(), folders());
    let [a, b] = [0, 1].map(|at| open(folders[at].path(), ["a", "b"][at], &database));
    until(&b.engine, Ok(Outcome::PanInvalid));
    shop::put(&a.engine, "normal");
    let took = [&a, &b].map(|node| until(&node.engine, Ok(Outcome::Pass)));
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");
    let order = AccountOrder::SetState(AccountSpot::of(CARD, &b.engine.vault), AccountState::Lost);
    b.engine.accounts_to_change().unwrap().carry_out(&[order], &b.engine.vault).unwrap();
    let took = [&a, &b].map(|node| until(&node.engine, Ok(Outcome::CardLost)));
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");
    a.engine.platform().begin_session("key", CallerId(1), i64::MAX, 1).unwrap();
    assert_eq!(b.engine.platform().session("key", 2).unwrap(), Some(CallerId(1)));
    [a, b].into_iter().for_each(Running::stop);
}

#[test]
fn without_a_copy_it_is_the_database_that_answers_and_nothing_is_kept() {
    let Some(mut server) = postgres::Postgres::start() else { return };
    let database = server.database();
    let folder = tempfile::tempdir().unwrap();
    let node = open_with(folder.path(), "a", &database, AccountsFrom::Database);
    until(&node.engine, Ok(Outcome::PanInvalid));
    shop::put(&node.engine, "normal");
    assert_eq!(ask(&node.engine), Ok(Outcome::Pass), "at once");
    let order = AccountOrder::SetState(AccountSpot::of(CARD, &node.engine.vault), AccountState::Lost);
    node.engine.accounts_to_change().unwrap().carry_out(&[order], &node.engine.vault).unwrap();
    assert_eq!(ask(&node.engine), Ok(Outcome::CardLost), "at once");
    let charges = node.engine.totals().charges;
    server.kill();
    assert_eq!(ask(&node.engine), Err(Refusal::Stopped));
    server.run();
    until(&node.engine, Ok(Outcome::CardLost));
    assert_eq!(node.engine.totals().charges, charges + 1, "a database that is away is no charge");
    let order = AccountOrder::Delete(AccountSpot::of(CARD, &node.engine.vault));
    node.engine.accounts_to_change().unwrap().carry_out(&[order], &node.engine.vault).unwrap();
    assert_eq!(ask(&node.engine), Ok(Outcome::PanInvalid), "what is left of it is nobody's");
    assert!(node.engine.accounts_to_read().is_err() && !folder.path().join("accounts.db").exists());
    shop::put(&node.engine, "normal");
    node.stop();

    // A copy that nobody would bring up to date, and from which nobody who is erased would go.
    let copying = open(folder.path(), "a", &database);
    until(&copying.engine, Ok(Outcome::Pass));
    copying.stop();
    let shared = SharedStore { database, node: "a".into() };
    let policy = Policy { accounts_from: AccountsFrom::Database, ..ask::policy() };
    let seed = shop::shop(Credits::whole(1));
    let refused = Engine::open(folder.path(), &ROOT, policy, Issuers::built_in(), seed, Some(shared));
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("remove accounts.db*"), "{said}");
}

#[test]
fn a_copy_that_could_not_follow_is_not_answered_from_until_it_can_again() {
    let Some(mut server) = postgres::Postgres::start() else { return };
    let (database, folders) = (server.database(), folders());
    let node = open(folders[0].path(), "a", &database);
    shop::put(&node.engine, "normal");
    until(&node.engine, Ok(Outcome::Pass));
    server.kill();
    let copy = node.engine.copy_of_accounts().unwrap();
    assert!(copy.check().is_ok());
    let began = Instant::now();
    while copy.check().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() > Duration::from_secs(1), "not before it is old");
    let said = copy.check().unwrap_err().to_string();
    assert!(said.contains("accounts_stale_max"), "{said}");
    server.run();
    until(&node.engine, Ok(Outcome::Pass));
    node.stop();
}

/// Keys are replaced at the first; meanwhile each of these knows of the account, or answers nothing.
fn rotate_and_ask(at: &Running, nodes: &[&Running]) {
    at.engine.acting(By::Machine).rotate_keys(&[KeyGroup::Accounts]).unwrap();
    let began = Instant::now();
    while at.engine.rotation().is_running || began.elapsed() < Duration::from_secs(4) {
        for node in nodes {
            let told = ask(&node.engine);
            assert!(matches!(told, Ok(Outcome::Pass) | Err(Refusal::Stopped)), "{told:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((at.engine.rotation().error, at.engine.rotation().rewrapped), (None, 1));
}

/// Keys that were replaced where no copy is kept were destroyed at once.
#[test]
fn keys_are_replaced_at_a_node_without_a_copy_while_a_copy_cannot_follow() {
    let Some(server) = postgres::shared() else { return };
    let (database, folders) = (server.database(), folders());
    let copy = open(folders[0].path(), "copy", &database);
    let without = open_with(folders[1].path(), "without", &database, AccountsFrom::Database);
    shop::put(&without.engine, "normal");
    until(&copy.engine, Ok(Outcome::Pass));
    // A disk on which nothing can be written for a while.
    let slow = rusqlite::Connection::open(folders[0].path().join("accounts.db")).unwrap();
    slow.execute_batch("BEGIN IMMEDIATE").unwrap();
    rotate_and_ask(&without, &[&copy, &without]);
    drop(slow);
    for node in [&copy, &without] {
        until(&node.engine, Ok(Outcome::Pass));
    }
    [copy, without].into_iter().for_each(Running::stop);
}

/// A node that does not have the new keys yet would find nobody: it must not say that there is nobody.
#[test]
fn while_keys_are_replaced_no_node_takes_an_account_for_absent() {
    let Some(server) = postgres::shared() else { return };
    let (database, folders) = (server.database(), folders());
    let [a, b] = [0, 1].map(|at| open(folders[at].path(), ["a", "b"][at], &database));
    let without = tempfile::tempdir().unwrap();
    let c = open_with(without.path(), "c", &database, AccountsFrom::Database);
    shop::put(&a.engine, "normal");
    for node in [&a, &b, &c] {
        until(&node.engine, Ok(Outcome::Pass));
    }
    rotate_and_ask(&a, &[&a, &b, &c]);
    for node in [&a, &b, &c] {
        until(&node.engine, Ok(Outcome::Pass));
    }
    [a, b, c].into_iter().for_each(Running::stop);
}
