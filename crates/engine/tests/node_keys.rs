//! Keys are replaced while several nodes answer: no question is taken for two, and no node is left with keys that
//! open nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/park.rs"]
mod park;
#[expect(dead_code, reason = "written for tests that stop the server too")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/soon.rs"]
mod soon;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engine::bulk::{Job, Rows};
use engine::caller::{Action, Wire};
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::operator::By;
use engine::rotate::RotateError;
use engine::settle::Settled;
use engine::store::SharedStore;
use engine::store::postgres::{Database, Session};
use engine::vault::{KeyGroup, RingError};
use engine::verify::Refusal;
use engine::{Engine, OpenError, Policy, Running};

use ask::wait;
use soon::soon;

const OLD: [u8; 32] = [9; 32];
const NEW: [u8; 32] = [8; 32];
const GRANTED: Credits = Credits::whole(1_000_000);
const RIGHT: &str = "16100000001";

fn open(folder: &Path, database: &Arc<Database>, node: &str, root: &[u8; 32]) -> Result<Running, OpenError> {
    let policy = Policy { accounts_stale_max: Duration::from_secs(600), ..ask::policy() };
    let store = SharedStore { database: Arc::clone(database), node: node.into() };
    Engine::open(folder, root, policy, Issuers::built_in(), shop::shop(GRANTED), Some(store))
}

fn asked(running: &Running, key: &str) -> Result<Settled, Refusal> {
    let desk = running.engine.desk().unwrap();
    wait(&desk, ask::asked(&desk, &shop::credential(&running.engine.vault), RIGHT, Some(key)))
}

fn has_account(running: &Running) -> bool {
    let accounts = running.engine.accounts_to_read().unwrap();
    accounts.find("6217000000000000012", &running.engine.vault.keys()).is_ok_and(|row| row.is_some())
}

fn rotated(running: &Running, group: KeyGroup) -> Result<(), RotateError> {
    running.engine.acting(By::Machine).rotate_keys(&[group])?;
    soon(|| !running.engine.rotation().is_running);
    assert_eq!(running.engine.rotation().error, None);
    Ok(())
}

#[test]
fn a_question_at_two_nodes_is_charged_once_while_the_key_of_its_key_is_replaced() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let a = open(folders[0].path(), &database, "a", &OLD).unwrap();
    shop::put(&a.engine, "normal");
    let b = open(folders[1].path(), &database, "b", &OLD).unwrap();
    soon(|| has_account(&a) && has_account(&b));
    let (is_over, number) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let key = format!("k{}", number.fetch_add(1, Ordering::SeqCst));
                    // At both nodes at the same moment: whoever is second is told what the first was.
                    let told = std::thread::scope(|both| {
                        let [one, two] = [&a, &b].map(|node| both.spawn(|| asked(node, &key).unwrap()));
                        [one.join().unwrap(), two.join().unwrap()]
                    });
                    assert_eq!(told[0].answer, told[1].answer, "{key}");
                }
            });
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            rotated(&a, KeyGroup::Idempotency).unwrap();
        }
        std::thread::sleep(Duration::from_millis(700));
        is_over.store(true, Ordering::SeqCst);
    });
    let asked_in_all = number.load(Ordering::SeqCst);
    let answers = || a.engine.totals().answers + b.engine.totals().answers;
    assert!(asked_in_all > 20, "{asked_in_all} questions");
    assert_eq!(answers(), asked_in_all);
    // From before the first rotation, and under every name.
    assert!(asked(&b, "k0").unwrap().replayed && asked(&a, "k0").unwrap().replayed);
    assert_eq!(answers(), asked_in_all);

    // With its person goes an answer under all of its names.
    let mut session = Session::new(Arc::clone(&database)).unwrap();
    let count = "SELECT count(*) FROM answered";
    let mut stored = || -> i64 {
        let row = session.read(async |connection| connection.client.query_one(count, &[]).await).unwrap();
        row.get(0)
    };
    assert!(stored() > asked_in_all as i64, "some are there twice");
    a.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    soon(|| !a.engine.erasure().is_running);
    assert_eq!(stored(), 0);
    a.stop();
    b.stop();
}

#[test]
fn a_root_key_is_replaced_at_one_node_and_the_others_go_on() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let a = open(folders[0].path(), &database, "a", &OLD).unwrap();
    shop::put(&a.engine, "normal");
    let b = open(folders[1].path(), &database, "b", &OLD).unwrap();
    soon(|| has_account(&a) && has_account(&b));
    a.engine.replace_root_key(&NEW).unwrap();
    for (node, key) in [(&a, "k"), (&b, "l")] {
        assert!(!asked(node, key).unwrap().replayed);
    }
    // What it could not read would be lost to it.
    let behind = rotated(&a, KeyGroup::Credentials).unwrap_err();
    assert!(matches!(&behind, RotateError::NodesBehind(names) if names == "b"), "{behind}");
    assert!(asked(&a, "m").is_ok(), "it has not lost its place while it waited");
    b.stop();
    let refused = open(folders[1].path(), &database, "b", &OLD).err().unwrap();
    assert!(matches!(refused, OpenError::Ring(RingError::OtherRootThere)), "{refused}");
    let b = open(folders[1].path(), &database, "b", &NEW).unwrap();
    rotated(&a, KeyGroup::Credentials).unwrap();
    soon(|| b.engine.list_keys() == a.engine.list_keys());
    assert!(asked(&b, "k").unwrap().replayed);
    a.stop();
    let a = open(folders[0].path(), &database, "a", &NEW).unwrap();
    rotated(&b, KeyGroup::Credentials).unwrap();
    assert!(asked(&a, "l").unwrap().replayed);
    a.stop();
    b.stop();
}

/// A name stands for its rows for ever, also when no key is kept under which questions are known again.
#[test]
fn a_batch_is_charged_once_whatever_keys_are_replaced() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let forgetful = |folder: &Path, node: &str| {
        let policy = Policy {
            accounts_stale_max: Duration::from_secs(1),
            key_kept_ms: 0,
            content_window_ms: 0,
            ..ask::policy()
        };
        let store = SharedStore { database: Arc::clone(&database), node: node.into() };
        Engine::open(folder, &OLD, policy, Issuers::built_in(), shop::shop(GRANTED), Some(store)).unwrap()
    };
    let a = forgetful(folders[0].path(), "a");
    shop::put(&a.engine, "normal");
    let b = forgetful(folders[1].path(), "b");
    soon(|| has_account(&a) && has_account(&b));
    let batch = |node: &Running| {
        let credential = shop::credential(&node.engine.vault);
        let id = node.engine.job_named(credential.application, "monday");
        let (wire, action) = (Wire::Native, Action::FourElements);
        let session = node.engine.bulk(Job { id, credential, wire, action, purpose: None }).ok().unwrap();
        let mut rows = Rows::default();
        rows.push(["6217000000000000012", "张伟", "", "99010119610202001X", RIGHT]);
        let judged = session.judge().unwrap().judge(rows).ok().unwrap();
        (id, session.settle(0, judged).unwrap().replayed)
    };
    let other = b.engine.job_named(shop::credential(&b.engine.vault).application, "tuesday");
    let (id, replayed) = batch(&a);
    assert!(!replayed && id != other);
    for _ in 0..2 {
        rotated(&a, KeyGroup::Idempotency).unwrap();
        // One that has the new keys, and one that may not have them yet.
        assert_eq!([batch(&a), batch(&b)], [(id, true); 2]);
        soon(|| b.engine.list_keys() == a.engine.list_keys());
        assert_eq!(batch(&b), (id, true));
    }
    rotated(&a, KeyGroup::Accounts).unwrap();
    assert_eq!(batch(&a), (id, true));
    a.stop();
    b.stop();
}
