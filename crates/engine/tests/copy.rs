//! An installation is copied from files into a database and back, interrupted wherever it can be, and goes on
//! there as if nothing had happened.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/draws.rs"]
mod draws;
#[path = "support/park.rs"]
mod park;
#[path = "support/postgres.rs"]
mod postgres;
#[expect(dead_code, reason = "nothing is lost here")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/soon.rs"]
mod soon;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::caller::{Action, ApplicationId};
use engine::issuer::Issuers;
use engine::ledger::{Credits, Entry};
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::register::{CredentialTerms, Kind, Wish};
use engine::settle::{Settled, Writing};
use engine::spending::Asking;
use engine::store::postgres::{Database, Session};
use engine::store::{
    AccountsOfRecord, Copied, CopyError, Import, LedgerFile, LedgerPlace, SharedStore, Source, StoreError,
    StorePlace, copy,
};
use engine::vault::{KeyRing, Vault};
use engine::verify::Refusal;
use engine::{Engine, OpenError, Policy, Running};
use rand::{RngExt, SeedableRng};

use ask::wait;
use proxy::Proxy;
use soon::soon;

const ROOT: [u8; 32] = [9; 32];
const GRANTED: Credits = Credits::whole(100);
const RIGHT: &str = "16100000001";
const WRONG: &str = "16100000002";

fn policy() -> Policy {
    Policy {
        attempts: AttemptPolicy::default(),
        accounts_stale_max: Duration::from_secs(600),
        ..ask::policy()
    }
}

fn open(folder: &Path, store: Option<SharedStore>) -> Result<Running, OpenError> {
    Engine::open(folder, &ROOT, policy(), Issuers::built_in(), shop::shop(GRANTED), store)
}

fn store(database: &Arc<Database>, node: &str) -> SharedStore {
    SharedStore { database: Arc::clone(database), node: node.into() }
}

fn asked(running: &Running, mobile: &str, key: Option<&str>) -> Result<Settled, Refusal> {
    let desk = running.engine.desk().unwrap();
    wait(&desk, ask::asked(&desk, &shop::credential(&running.engine.vault), mobile, key))
}

fn outcome(running: &Running, mobile: &str) -> Outcome {
    asked(running, mobile, None).unwrap().answer.outcome
}

fn balance(running: &Running) -> Credits {
    let (application, _) = running.engine.directory().application(ApplicationId(1)).unwrap();
    running.engine.balance(&application).unwrap()
}

fn has_account(running: &Running) -> bool {
    let accounts = running.engine.accounts_to_read().unwrap();
    accounts.find("6217000000000000012", &running.engine.vault.keys()).is_ok_and(|row| row.is_some())
}

/// An installation of one machine: two answers with keys, two mismatches in a row, a credential with a limit.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let running = open(folder.path(), None).unwrap();
    shop::put(&running.engine, "normal");
    assert!(!asked(&running, RIGHT, Some("k")).unwrap().replayed);
    assert!(!asked(&running, RIGHT, Some("l")).unwrap().replayed);
    assert_eq!(outcome(&running, WRONG), Outcome::HolderMismatch);
    assert_eq!(outcome(&running, WRONG), Outcome::HolderMismatch);
    let acting = running.engine.acting(By::Machine);
    acting.create_caller("other", false, false, Credits::whole(7)).unwrap();
    let issued = acting.issue("other", Kind::Bearer, Wish::default()).unwrap();
    let limited = CredentialTerms { limit: Some(Some(Credits::whole(3))), ..CredentialTerms::default() };
    acting.set_credential(issued.credential, limited).unwrap();
    // A provider is being asked: what that costs counts against its caps, wherever it goes on.
    let asking = Asking {
        at_ms: running.engine.clock.now_ms(),
        request: [7; 16],
        number: 0,
        application: ApplicationId(1),
        route: "cards".into(),
        provider: "north".into(),
        action: Action::FourElements,
        most: Credits::whole(2),
    };
    running.engine.record(Entry::Asking(asking)).unwrap();
    soon(|| running.engine.usage(None, 100).unwrap().len() == 4);
    running.stop();
    folder
}

/// Copies, and is interrupted again and again; nothing is served in between. Gives what was copied at last.
fn interrupted(from: &StorePlace, to: &StorePlace, seed: u64) -> Copied {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let is_refused = |place: &StorePlace| {
        let opened = match place {
            StorePlace::Files(folder) => open(folder, None),
            StorePlace::Shared(store, folder) => open(folder, Some(store.clone())),
        };
        match opened {
            Err(OpenError::Store(StoreError::Copying(why))) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it is served"),
        }
    };
    for round in 0.. {
        let mut steps = rng.random_range(1..8 + 4 * round);
        let run = AssertUnwindSafe(|| {
            copy(from, to, &ROOT, &mut |_| {
                steps -= 1;
                if steps == 0 {
                    // Without the message of a panic.
                    std::panic::resume_unwind(Box::new("interrupted"));
                }
            })
        });
        if let Ok(copied) = catch_unwind(run) {
            assert!(round > 0, "seed {seed}: it was never interrupted");
            return copied.unwrap().unwrap();
        }
        assert!(is_refused(from).contains("is being copied to"), "seed {seed}");
        assert!(is_refused(to).contains("not whole"), "seed {seed}");
    }
    unreachable!("it grows without end")
}

fn check(place: LedgerPlace, folder: &Path) -> engine::store::Check {
    let vault = Vault::new(&KeyRing::open(&folder.join("keys.json"), &ROOT).unwrap());
    LedgerFile::check(place, &vault).unwrap()
}

fn ledger_of(database: &Arc<Database>) -> LedgerPlace {
    LedgerPlace::Shared { database: Arc::clone(database), node: "a".into() }
}

/// The same, gone on with in this database, where no node works yet: both places.
fn in_database(database: &Arc<Database>, node: &Path) -> (tempfile::TempDir, StorePlace) {
    let files = files();
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(database, "a"), node.to_owned());
    copy(&from, &to, &ROOT, &mut |_| {}).unwrap().unwrap();
    (files, to)
}

fn execute(database: &Arc<Database>, sql: &str) {
    let mut session = Session::new(Arc::clone(database)).unwrap();
    session.read(async |connection| connection.client.batch_execute(sql).await).unwrap();
}

/// Why it is not served.
fn refused(folder: &Path, store: Option<SharedStore>) -> String {
    open(folder, store).err().unwrap().to_string()
}

#[test]
fn an_installation_goes_on_in_a_database_and_back_in_files() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let seed = std::env::var("CARD4E_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("CARD4E_SEED={seed}");
    let (files, node) = (files(), tempfile::tempdir().unwrap());
    let before = check(LedgerPlace::from(&files.path().join("ledger.db")), files.path());
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    let copied = interrupted(&from, &to, seed);
    assert_eq!((copied.accounts, copied.balances, copied.credits.as_str()), (1, 2, "103"));
    assert_eq!(copied.audit, before, "root, entries, charges, checkpoints");
    assert_eq!(copy(&from, &to, &ROOT, &mut |_| {}).unwrap(), None, "there is nothing to do");
    let refused = open(files.path(), None).err().unwrap().to_string();
    assert!(refused.contains("spent twice"), "{refused}");
    let mut session = Session::new(Arc::clone(&database)).unwrap();
    let spent =
        "SELECT CAST(sum(amount) AS BIGINT) FROM spent WHERE provider = 'north' AND kind IN (0, 1, 2)";
    let row = session.read(async |connection| connection.client.query_one(spent, &[]).await).unwrap();
    assert_eq!(row.get::<_, i64>(0), 3 * Credits::whole(2).0, "of the day, of the month, in all");

    // Goes on: old balances, old answers, what was counted today.
    let a = open(node.path(), Some(store(&database, "a"))).unwrap();
    soon(|| has_account(&a) && balance(&a) == Credits::whole(96));
    assert!(asked(&a, RIGHT, Some("k")).unwrap().replayed);
    assert_eq!(asked(&a, WRONG, Some("l")).unwrap_err(), Refusal::KeyReused);
    assert_eq!(outcome(&a, WRONG), Outcome::HolderMismatch, "the third in a row");
    assert_eq!(outcome(&a, RIGHT), Outcome::AttemptsExceeded, "two of them were asked of the files");
    assert_eq!(a.engine.usage(None, 100).unwrap().len() - 4, 0, "the old days, at once");
    soon(|| a.engine.usage(None, 100).unwrap().len() == 6);
    let refused = copy(&to, &StorePlace::Files(node.path().join("x")), &ROOT, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, CopyError::NodesLive(_)), "{refused}");
    a.stop();
    let after = check(ledger_of(&database), node.path());
    assert_eq!((after.trees, after.charges), (1, 5));
    assert!(after.entries > before.entries && after.checkpoints > before.checkpoints, "the tree goes on");

    // And back: the books are added up anew from the one tree.
    let again = tempfile::tempdir().unwrap();
    let back = StorePlace::Files(again.path().join("data"));
    let copied = interrupted(&to, &back, seed);
    assert_eq!(copied.audit, after);
    let refused = open(node.path(), Some(store(&database, "a"))).err().unwrap().to_string();
    assert!(refused.contains("spent twice"), "{refused}");
    let running = open(&again.path().join("data"), None).unwrap();
    assert_eq!(balance(&running), Credits::whole(95));
    assert!(has_account(&running));
    assert!(asked(&running, RIGHT, Some("l")).unwrap().replayed);
    assert_eq!(outcome(&running, RIGHT), Outcome::AttemptsExceeded, "still locked");
    running.stop();
    let last = check(LedgerPlace::from(&again.path().join("data/ledger.db")), &again.path().join("data"));
    assert!(last.entries > after.entries);
}

#[test]
fn a_server_at_work_a_database_in_use_and_several_trees_are_refused() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (files, node) = (files(), tempfile::tempdir().unwrap());
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    let refused = || copy(&from, &to, &ROOT, &mut |_| {}).unwrap_err();
    let running = open(files.path(), None).unwrap();
    assert!(matches!(refused(), CopyError::Store(StoreError::InUse(_))));
    running.stop();
    assert!(matches!(copy(&from, &from, &ROOT, &mut |_| {}), Err(CopyError::SameKind)));

    // Another installation is there; this one is served on.
    let other = tempfile::tempdir().unwrap();
    open(other.path(), Some(store(&database, "x"))).unwrap().stop();
    assert!(matches!(refused(), CopyError::NotEmpty(_)));
    open(files.path(), None).unwrap().stop();

    // Two nodes are two trees, which no file can hold.
    let database = server.database();
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    copy(&from, &to, &ROOT, &mut |_| {}).unwrap().unwrap();
    let b = tempfile::tempdir().unwrap();
    for (folder, name) in [(node.path(), "a"), (b.path(), "b")] {
        let running = open(folder, Some(store(&database, name))).unwrap();
        soon(|| has_account(&running));
        assert!(asked(&running, RIGHT, Some("k")).unwrap().replayed, "{name}");
        assert!(!asked(&running, RIGHT, Some(name)).unwrap().replayed);
        running.stop();
    }
    let back = StorePlace::Files(b.path().join("data"));
    assert!(matches!(copy(&to, &back, &ROOT, &mut |_| {}), Err(CopyError::SeveralTrees)));
    assert_eq!(check(ledger_of(&database), node.path()).trees, 2);
    open(node.path(), Some(store(&database, "a"))).unwrap().stop();
}

#[test]
fn what_somebody_writes_into_the_copy_meanwhile_is_found() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (files, node) = (files(), tempfile::tempdir().unwrap());
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    let mut session = Session::new(Arc::clone(&database)).unwrap();
    let spoil = "UPDATE purse SET free = free + 1000000 WHERE kind = 0 AND id = 1";
    let refused = copy(&from, &to, &ROOT, &mut |is| {
        if is.what == "checking the audit" {
            return;
        }
        // Nothing is there before its table is copied.
        let _ = session.attempt(async |connection| {
            connection.client.batch_execute(spoil).await.map_err(StoreError::Database)
        });
    });
    assert!(matches!(refused, Err(CopyError::Differs { what: "the balances", .. })), "{refused:?}");
    let refused = open(node.path(), Some(store(&database, "a"))).err().unwrap().to_string();
    assert!(refused.contains("not whole"), "{refused}");
}

#[test]
fn a_database_that_is_killed_meanwhile_is_copied_to_all_the_same() {
    let Some(mut server) = postgres::Postgres::start() else { return };
    let database = server.database();
    let (files, node) = (files(), tempfile::tempdir().unwrap());
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    let (mut kill_at, mut failed) = (2, 0);
    let copied = loop {
        let mut steps = 0;
        let done = copy(&from, &to, &ROOT, &mut |_| {
            steps += 1;
            if steps == kill_at {
                server.kill();
                server.run();
            }
        });
        // Goes on by itself where nothing was under way; else it says so, and the same again goes on.
        match done {
            Ok(copied) => break copied,
            Err(CopyError::Store(StoreError::Database(_) | StoreError::Unknown(_))) => failed += 1,
            Err(other) => panic!("{other}"),
        }
        kill_at += 4;
        assert!(failed < 50);
    };
    assert_eq!(copied.unwrap().credits, "103");
    let a = open(node.path(), Some(store(&database, "a"))).unwrap();
    soon(|| has_account(&a) && balance(&a) == Credits::whole(96));
    a.stop();
}

/// It answered on, and so did the copy: the same credits were spent twice.
#[test]
fn a_node_that_stood_still_while_its_database_was_copied_answers_nothing_any_more() {
    let Some(server) = postgres::shared() else { return };
    let url = server.url();
    let (proxy, database) = (Proxy::new(&url, 0), postgres::database_at(&url));
    let (node, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_files, from) = in_database(&database, node.path());
    let a = open(node.path(), Some(store(proxy.database(), "a"))).unwrap();
    soon(|| has_account(&a) && balance(&a) == Credits::whole(96));
    proxy.cut(true);
    // As after ten seconds.
    execute(&database, "UPDATE node SET alive_until = 0");
    copy(&from, &StorePlace::Files(again.path().join("data")), &ROOT, &mut |_| {}).unwrap().unwrap();
    proxy.cut(false);
    soon(|| a.engine.writing() == Writing::Stopped);
    assert!(asked(&a, RIGHT, Some("m")).is_err());
    a.stop();
    assert!(refused(node.path(), Some(store(&database, "a"))).contains("spent twice"));
    open(&again.path().join("data"), None).unwrap().stop();
}

/// Both became whole, with all credits in each.
#[test]
fn of_two_copies_of_one_database_one_becomes_whole() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (node, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_files, from) = in_database(&database, node.path());
    let [one, two] = ["one", "two"].map(|name| copies.path().join(name));
    let second = || copy(&from, &StorePlace::Files(two.clone()), &ROOT, &mut |_| {});
    let first = copy(&from, &StorePlace::Files(one.clone()), &ROOT, &mut |is| {
        if is.what == "checking the audit" {
            let refused = second().unwrap_err().to_string();
            assert!(
                refused.contains(one.to_str().unwrap()) && refused.contains("UPDATE copy_mark"),
                "{refused}"
            );
            // As that says.
            execute(&database, "UPDATE copy_mark SET mark = ''");
            second().unwrap().unwrap();
        }
    });
    assert!(matches!(first, Err(CopyError::GivenUp)), "{first:?}");
    assert!(refused(&one, None).contains("not whole"));
    let running = open(&two, None).unwrap();
    assert_eq!(balance(&running), Credits::whole(96));
    running.stop();
    assert_eq!(second().unwrap(), None, "there is nothing to do");
}

/// The copy was served, and the original could still be copied to another database.
#[test]
fn a_copy_is_whole_only_when_its_original_says_so() {
    let Some(server) = postgres::shared() else { return };
    let (database, elsewhere) = (server.database(), server.database());
    let (files, node, again) = (files(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = StorePlace::Files(files.path().to_owned());
    let to = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    // As killed at the end: the mark of the files can be written no more.
    let blocked_at_the_end = |from: &StorePlace, to: &StorePlace, folder: &Path| {
        let blocks = folder.join("copy.next");
        let blocked = copy(from, to, &ROOT, &mut |is| {
            if is.what == "checking the accounts" {
                std::fs::create_dir(&blocks).unwrap();
            }
        });
        assert!(matches!(blocked, Err(CopyError::Store(StoreError::Folder { .. }))), "{blocked:?}");
        std::fs::remove_dir(&blocks).unwrap();
    };
    blocked_at_the_end(&from, &to, files.path());
    assert!(refused(node.path(), Some(store(&database, "a"))).contains("not whole"));
    let other = StorePlace::Shared(store(&elsewhere, "a"), node.path().join("other"));
    let error = copy(&from, &other, &ROOT, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, CopyError::UnderWay { to, .. } if *to == database.to_string()), "{error}");
    assert!(copy(&from, &to, &ROOT, &mut |_| {}).unwrap().is_some());

    let back = again.path().join("data");
    blocked_at_the_end(&to, &StorePlace::Files(back.clone()), &back);
    assert!(refused(node.path(), Some(store(&database, "a"))).contains("spent twice"));
    assert!(refused(&back, None).contains("not whole"));
    assert!(copy(&to, &StorePlace::Files(back.clone()), &ROOT, &mut |_| {}).unwrap().is_some());
    open(&back, None).unwrap().stop();
}

/// Its last row blocked a card where nobody asked any more, and the copy passed it.
#[test]
fn an_import_into_a_database_comes_before_its_copy() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (node, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, from) = in_database(&database, node.path());
    let to = StorePlace::Files(again.path().join("data"));
    let vault = Vault::new(&KeyRing::open(&files.path().join("keys.json"), &ROOT).unwrap());
    let mut import = AccountsOfRecord::open_alone(node.path(), Some(&database), &vault).unwrap();
    let source = Source { identity: Some([1; 32]), is_replacing: false, from_start: false };
    import.begin_import(&source).unwrap();
    let refused = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&from, &to, &ROOT, &mut |_| {}));
        while !copying.is_finished() {
            import.import(Vec::new(), Import::default()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        copying.join().unwrap()
    });
    assert!(matches!(refused, Err(CopyError::Store(StoreError::ImportingShared))), "{refused:?}");
    drop(import);

    // Opened before, as by a node that stood still.
    let mut accounts = AccountsOfRecord::open(node.path(), Some(&database)).unwrap();
    copy(&from, &to, &ROOT, &mut |_| {}).unwrap().unwrap();
    assert!(matches!(accounts.put(&[], &vault), Err(StoreError::Copying(_))));
    assert!(matches!(accounts.begin_import(&source), Err(StoreError::Copying(_))));
}

/// It was marked as the original first, and then called damaged.
#[test]
fn a_database_without_an_installation_is_not_marked() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (node, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = StorePlace::Shared(store(&database, "a"), node.path().to_owned());
    let nothing = copy(&from, &StorePlace::Files(files.path().join("data")), &ROOT, &mut |_| {});
    assert!(matches!(nothing, Err(CopyError::NotBegun(_))), "{nothing:?}");
    open(node.path(), Some(store(&database, "a"))).unwrap().stop();
}
