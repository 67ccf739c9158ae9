//! The engine with its store: open, ask, close, open again; and what is done to it in between. The same story on
//! files and on a database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/park.rs"]
mod park;
#[expect(dead_code, reason = "nothing is killed here")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/soon.rs"]
mod soon;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use engine::caller::{Action, ApplicationId, CallerId, CredentialId};
use engine::clock::{Clock, Mode};
use engine::erase::ErasureStatus;
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::limit::AttemptPolicy;
use engine::operator::By;
use engine::outcome::Outcome;
use engine::platform::{Order, OrderState, PlatformError};
use engine::register::{Kind, Wish};
use engine::rotate::RotateError;
use engine::settle::{Desk, Settlement, Writing};
use engine::store::postgres::{Database, Session};
use engine::store::{Check, LedgerFile, LedgerPlace, SharedStore, StoreError};
use engine::vault::{KeyGroup, KeyRing, Vault};
use engine::verify::Refusal;
use engine::{AccountsFrom, Engine, OpenError, Policy, Running, Seed};

use ask::wait;
use shop::{credential, shop};
use soon::soon;

const ROOT: [u8; 32] = [9; 32];
const DAY: i64 = 86_400_000;
const CARD: &str = "6217000000000000012";

/// Noon in Beijing, some days ahead: what a start sweeps out of a database, by the machine's clock, is older.
fn noon() -> i64 {
    let now = Clock::default().now_ms() + 8 * 3_600_000;
    now - now % DAY + 2 * DAY + DAY / 2 - 8 * 3_600_000
}

/// Where an installation keeps what it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Files,
    Database,
    /// The same, by a node that keeps no copy of its accounts.
    DatabaseWithoutCopy,
}

/// Tells each case on files, and on a database where PostgreSQL is installed: with a copy of its accounts, and without.
macro_rules! on_each_store {
    ($($case:ident,)+) => {
        mod on_files {
            $(#[test]
            fn $case() {
                super::$case(super::Store::Files);
            })+
        }
        mod on_a_database {
            $(#[test]
            fn $case() {
                if super::postgres::shared().is_some() {
                    super::$case(super::Store::Database);
                }
            })+
        }
        mod on_a_database_without_a_copy {
            $(#[test]
            fn $case() {
                if super::postgres::shared().is_some() {
                    super::$case(super::Store::DatabaseWithoutCopy);
                }
            })+
        }
    };
}

on_each_store! {
    balance_attempts_and_stored_answers_survive_a_restart,
    a_noisy_caller_cannot_keep_a_quiet_one_from_being_answered,
    a_twin_joins_the_question_under_way,
    a_client_that_goes_away_is_charged_for_what_it_asked,
    a_key_is_for_one_question,
    an_account_that_was_changed_behind_our_back_is_never_a_pass,
    a_changed_ledger_is_noticed_by_the_check_and_at_the_next_start,
    a_side_row_that_nobody_erased_is_missed,
    what_is_erased_is_nowhere_and_the_audit_holds,
    an_interrupted_erasure_is_gone_on_with,
    an_interrupted_erasure_comes_before_another,
    an_interrupted_erasure_that_begins_anew_counts_what_it_emptied_before,
    a_question_is_known_and_a_card_is_found_under_keys_from_before,
    a_store_that_cannot_commit_answers_nothing_and_charges_nothing,
    usage_rows_follow_the_ledger,
    what_is_remembered_outlives_snapshots_and_ends_in_time,
    a_full_memory_refuses_new_keys_on_files_and_never_asks_twice,
    full_counters_refuse_what_is_counted_until_the_day_ends,
    an_order_that_was_paid_before_a_crash_is_carried_out_once,
    a_start_that_fails_gives_the_folder_back,
}

/// One installation through its lives.
struct Installation {
    store: Store,
    folder: tempfile::TempDir,
    database: Option<Arc<Database>>,
}

impl Installation {
    fn new(store: Store) -> Installation {
        let database = (store != Store::Files).then(|| postgres::shared().unwrap().database());
        Installation { store, folder: tempfile::tempdir().unwrap(), database }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self, policy: Policy) -> Running {
        self.open_with(policy, shop(Credits::whole(100)))
    }

    fn open_with(&self, policy: Policy, seed: Seed) -> Running {
        let running = self.try_open(policy, seed).unwrap();
        running.engine.clock.set(Mode::Frozen(noon()));
        running
    }

    fn try_open(&self, policy: Policy, seed: Seed) -> Result<Running, OpenError> {
        let shared =
            |database: &Arc<Database>| SharedStore { database: Arc::clone(database), node: "a".into() };
        let shared = self.database.as_ref().map(shared);
        let accounts_from = match self.store {
            Store::DatabaseWithoutCopy => AccountsFrom::Database,
            _ => AccountsFrom::Copy,
        };
        let policy = Policy { accounts_from, ..policy };
        Engine::open(self.path(), &ROOT, policy, Issuers::built_in(), seed, shared)
    }

    fn vault(&self) -> Vault {
        Vault::new(&KeyRing::open(&self.path().join("keys.json"), &ROOT).unwrap())
    }

    fn checked(&self) -> Result<Check, StoreError> {
        let place = match &self.database {
            None => LedgerPlace::File(self.path().join("ledger.db")),
            Some(database) => LedgerPlace::Shared { database: Arc::clone(database), node: "a".into() },
        };
        LedgerFile::check(place, &self.vault())
    }

    /// One of two, where the stores say the same differently.
    fn either<T>(&self, on_files: T, on_a_database: T) -> T {
        if self.database.is_none() { on_files } else { on_a_database }
    }

    /// What somebody does to a table behind the engine's back.
    fn meddle(&self, file: &str, sql: &str) {
        match &self.database {
            None => rusqlite::Connection::open(self.path().join(file)).unwrap().execute_batch(sql).unwrap(),
            Some(database) => {
                let mut session = Session::new(Arc::clone(database)).unwrap();
                session.read(async |connection| connection.client.batch_execute(sql).await).unwrap();
            }
        }
    }

    /// One column of bytes.
    fn column(&self, file: &str, sql: &str) -> Vec<Vec<u8>> {
        match &self.database {
            None => {
                let db = rusqlite::Connection::open(self.path().join(file)).unwrap();
                let mut find = db.prepare(sql).unwrap();
                find.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
            }
            Some(database) => {
                let mut session = Session::new(Arc::clone(database)).unwrap();
                let rows = session.read(async |connection| connection.client.query(sql, &[]).await).unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

fn policy() -> Policy {
    Policy { accounts_stale_max: Duration::from_secs(5), ..ask::policy() }
}

/// Puts the account where questions find it.
fn put(engine: &Engine, state: &str) {
    shop::put(engine, state);
    let is_there = || {
        let Ok(accounts) = engine.accounts_to_read() else { return true };
        let found = accounts.find(CARD, &engine.vault.keys());
        found.is_ok_and(|row| row.is_some_and(|row| row.state.word() == state))
    };
    soon(is_there);
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

fn balance_attempts_and_stored_answers_survive_a_restart(store: Store) {
    let bank = Installation::new(store);
    let policy = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let running = bank.open(policy());
    put(&running.engine, "normal");
    let first = ask(&running.engine, "16100000001", Some("k")).unwrap().answer;
    assert_eq!((first.outcome, first.balance), (Outcome::Pass, Some(Credits::whole(99))));
    for _ in 0..3 {
        assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch);
    }
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::AttemptsExceeded, "locked");
    running.stop();

    let running = bank.open(policy());
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::AttemptsExceeded, "still locked");
    let again = ask(&running.engine, "16100000001", Some("k")).unwrap();
    assert!(again.replayed);
    assert_eq!(again.answer, first);
    assert_eq!(running.engine.totals().charges, 4);
    running.engine.clock.set(Mode::Frozen(noon() + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "a new day");
    running.stop();
}

fn a_noisy_caller_cannot_keep_a_quiet_one_from_being_answered(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(Policy { under_way_max: 8, ..policy() });
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

fn a_twin_joins_the_question_under_way(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
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

fn a_client_that_goes_away_is_charged_for_what_it_asked(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "normal");
    // On a database the first of all questions waits for credits, and who goes away then has asked nothing.
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    let desk = running.engine.desk().unwrap();
    {
        let mut abandoned = Box::pin(asked(&desk, "16100000001", None));
        let _ = abandoned.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(desk);
    running.stop();
    let running = bank.open(policy());
    // Without a copy each question waits for its look-up, and who goes away meanwhile has asked nothing; unless the
    // look-up was quicker than he was.
    let asked_nothing = store == Store::DatabaseWithoutCopy && running.engine.totals().charges == 1;
    assert!(asked_nothing || running.engine.totals().charges == 2);
    running.stop();
}

fn a_key_is_for_one_question(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    assert_eq!(ask(&running.engine, "16100000002", Some("k")).unwrap_err(), Refusal::KeyReused);
    running.engine.clock.set(Mode::Frozen(noon() + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000002", Some("k"))), Outcome::HolderMismatch, "forgotten");
    running.stop();
}

fn an_account_that_was_changed_behind_our_back_is_never_a_pass(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "lost");
    match store {
        Store::DatabaseWithoutCopy => bank.meddle("", "UPDATE account SET state = 0"),
        // On a database in the node's copy, which questions are answered from.
        _ => {
            let accounts = rusqlite::Connection::open(bank.path().join("accounts.db")).unwrap();
            // The state of its only row.
            let change =
                "UPDATE leaf SET rows = CAST(substr(rows, 1, 18) || x'00' || substr(rows, 20) AS BLOB)";
            accounts.execute(change, []).unwrap();
        }
    }
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Stopped);
    assert_eq!(running.engine.totals().charges, 0);
    running.stop();
}

fn a_changed_ledger_is_noticed_by_the_check_and_at_the_next_start(store: Store) {
    for (what, on_files, on_a_database) in [
        (
            "an entry",
            "UPDATE block SET bytes = CAST(substr(bytes, 1, length(bytes) - 1) || x'01' AS BLOB)",
            "UPDATE block SET bytes = set_byte(bytes, length(bytes) - 1, 1)",
        ),
        (
            "a root",
            "UPDATE block SET root = zeroblob(32)",
            "UPDATE block SET root = decode(repeat('00', 32), 'hex')",
        ),
        (
            "a cut end",
            "DELETE FROM block WHERE seq = (SELECT max(seq) FROM block)",
            "DELETE FROM block WHERE seq = (SELECT max(seq) FROM block)",
        ),
        (
            "a side row",
            "UPDATE side SET bytes = zeroblob(64)",
            "UPDATE side SET bytes = decode(repeat('00', 64), 'hex')",
        ),
        (
            "a checkpoint",
            "UPDATE checkpoint SET signature = zeroblob(64)",
            "UPDATE checkpoint SET signature = decode(repeat('00', 64), 'hex')",
        ),
    ] {
        let bank = Installation::new(store);
        let running = bank.open(policy());
        put(&running.engine, "normal");
        assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
        running.stop();
        let check = bank.checked().unwrap();
        assert_eq!((check.answers, check.charges, check.checkpoints), (1, 1, 1));

        bank.meddle("ledger.db", bank.either(on_files, on_a_database));
        let error = bank.checked().unwrap_err();
        assert!(error.to_string().contains("damaged"), "{what}: {error}");
    }
}

fn a_side_row_that_nobody_erased_is_missed(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    running.stop();
    bank.meddle("ledger.db", "DELETE FROM side");
    let error = bank.checked().unwrap_err();
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

/// The first bytes of everything sealed about the only card there is, and its row. Of the card's place in a database
/// nothing is said: it is kept for a while, so that every node hears that the account is gone.
fn traces(bank: &Installation) -> Vec<Vec<u8>> {
    let about = "SELECT substr(bytes, 5, 40) FROM side WHERE seq > (SELECT min(seq) FROM side)";
    let mut traces = bank.column("ledger.db", about);
    match bank.database.is_some() {
        true => traces.extend(bank.column("accounts.db", "SELECT id FROM account")),
        false => ["SELECT substr(rows, 1, 16) FROM leaf", "SELECT substr(rows, 53, 16) FROM leaf"]
            .into_iter()
            .for_each(|part| traces.extend(bank.column("accounts.db", part))),
    }
    traces
}

/// Files of the folder that have some of them, and rows of the database.
fn linger(bank: &Installation, traces: &[Vec<u8>]) -> Vec<String> {
    let has =
        |bytes: &[u8]| traces.iter().any(|trace| bytes.windows(trace.len()).any(|window| window == trace));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(bank.path()).unwrap() {
        let path = entry.unwrap().path();
        if has(&std::fs::read(&path).unwrap()) {
            found.push(path.display().to_string());
        }
    }
    let rows = ["SELECT bytes FROM side", "SELECT id FROM account", "SELECT answer FROM answered"];
    for sql in rows.into_iter().filter(|_| bank.database.is_some()) {
        found.extend(bank.column("", sql).iter().filter(|bytes| has(bytes)).map(|_| sql.to_owned()));
    }
    found
}

fn what_is_erased_is_nowhere_and_the_audit_holds(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    running.stop();
    let running = bank.open(policy());
    assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch);
    while running.engine.usage(None, 10).unwrap().len() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let traces = traces(&bank);
    assert_eq!(traces.len(), bank.either(4, 3), "two side rows, what the account says, where it stands");
    assert!(!linger(&bank, &traces).is_empty());

    running.engine.acting(By::Machine).erase("6217 0000 0000 0000 012").unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks, is.error), (true, 2, 2, None));
    // A node's copy of a database follows.
    if let Ok(accounts) = running.engine.accounts_to_read() {
        soon(|| accounts.find(CARD, &running.engine.vault.keys()).is_ok_and(|row| row.is_none()));
    }
    assert!(running.engine.usage(None, 10).unwrap().iter().all(|row| row.masks.is_none()));
    let again = ask(&running.engine, "16100000001", Some("k")).unwrap();
    assert_eq!((again.replayed, again.answer.outcome), (false, Outcome::PanInvalid), "it is a new question");
    running.stop();
    let held = bank.checked().unwrap();
    assert_eq!((held.answers, held.charges, held.erased), (3, 3, 2));
    assert_eq!(linger(&bank, &traces), Vec::<String>::new());

    // Erased again, with nothing but the question since; and after a restart nothing is counted twice.
    let running = bank.open(policy());
    assert_eq!(running.engine.totals().charges, 3);
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks), (false, 1, 1));
    running.stop();
    assert_eq!(bank.checked().unwrap().erased, 3);
}

/// Whoever changes an account of the database is told that it is locked.
const IN_THE_WAY: &str = "
    CREATE FUNCTION in_the_way() RETURNS trigger AS $$ BEGIN RAISE 'locked'; END $$ LANGUAGE plpgsql;
    CREATE TRIGGER in_the_way BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION in_the_way();";

/// An account, a question about it, and an erasure that was noted and got no further.
fn with_an_interrupted_erasure(bank: &Installation) -> Running {
    let running = bank.open(policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    while running.engine.usage(None, 10).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Somebody in the way of the accounts stops it after it was noted.
    let accounts = (bank.store == Store::Files)
        .then(|| rusqlite::Connection::open(bank.path().join("accounts.db")).unwrap());
    match &accounts {
        Some(accounts) => accounts.execute_batch("BEGIN IMMEDIATE").unwrap(),
        None => bank.meddle("", IN_THE_WAY),
    }
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    let is = erased(&running.engine);
    assert!(is.error.is_some_and(|error| error.contains("locked")));
    match accounts {
        Some(accounts) => drop(accounts),
        None => bank.meddle("", "DROP TRIGGER in_the_way ON account"),
    }
    running
}

fn an_interrupted_erasure_is_gone_on_with(store: Store) {
    let bank = Installation::new(store);
    with_an_interrupted_erasure(&bank).stop();
    assert_eq!(bank.checked().unwrap().erased, 0);

    let running = bank.open(policy());
    running.engine.resume_erasure().unwrap();
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.masks, is.error), (true, 1, 1, None));
    running.engine.resume_erasure().unwrap();
    assert_eq!(erased(&running.engine).records, 1, "there is nothing left to go on with");
    running.stop();
    assert_eq!(bank.checked().unwrap().erased, 1);
}

/// Else side rows are missing that no erasure in the ledger accounts for.
fn an_interrupted_erasure_that_begins_anew_counts_what_it_emptied_before(store: Store) {
    let bank = Installation::new(store);
    let running = with_an_interrupted_erasure(&bank);
    bank.meddle("ledger.db", "UPDATE erasure SET records = 2");
    assert!(!running.engine.acting(By::Machine).erase(CARD).unwrap().is_earlier);
    let is = erased(&running.engine);
    assert_eq!((is.account, is.records, is.error), (true, 3, None));
    running.stop();
}

/// It was forgotten for the other one.
fn an_interrupted_erasure_comes_before_another(store: Store) {
    const OTHER: &str = "6217000000000103013";
    let bank = Installation::new(store);
    let running = with_an_interrupted_erasure(&bank);
    let operator = running.engine.acting(By::Machine);
    let refused = operator.rotate_keys(&[KeyGroup::Accounts]).unwrap_err();
    assert!(matches!(refused, RotateError::Erasing), "{refused}");
    assert!(operator.erase(OTHER).unwrap().is_earlier);
    let is = erased(&running.engine);
    assert_eq!((is.is_earlier, is.account, is.records, is.masks, is.error), (true, true, 1, 1, None));
    assert!(!operator.erase(OTHER).unwrap().is_earlier);
    let is = erased(&running.engine);
    assert_eq!((is.is_earlier, is.account, is.records, is.error), (false, false, 0, None));
    running.stop();
    assert_eq!(bank.checked().unwrap().erased, 1);
}

fn a_question_is_known_and_a_card_is_found_under_keys_from_before(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
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
    let running = bank.open(policy());
    assert!(ask(&running.engine, "16100000001", Some("k")).unwrap().replayed, "after a restart");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    running.engine.acting(By::Machine).erase("6217000000000000012").unwrap();
    assert_eq!(erased(&running.engine).records, 2, "one under each key");
    running.stop();

    // A checkpoint under the replaced key, though its public half is kept, is not taken any more.
    assert_eq!(bank.checked().unwrap().erased, 2);
    let column = bank.either("key", "key_version");
    let older = format!("UPDATE checkpoint SET {column} = 1 WHERE size = (SELECT max(size) FROM checkpoint)");
    bank.meddle("ledger.db", &older);
    let error = bank.checked().unwrap_err();
    assert!(error.to_string().contains("does not hold"), "{error}");
}

fn a_store_that_cannot_commit_answers_nothing_and_charges_nothing(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    // A table that is gone fails the next commit, as a full or broken disk would.
    bank.meddle("ledger.db", "ALTER TABLE side RENAME TO hidden");
    assert_eq!(ask(&running.engine, "16100000001", Some("k")).unwrap_err(), Refusal::Stopped);
    assert_eq!(running.engine.writing(), Writing::Stopped);
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Stopped, "and stays so");
    bank.meddle("ledger.db", "ALTER TABLE hidden RENAME TO side");
    running.stop();
    let running = bank.open(policy());
    assert_eq!(running.engine.totals().charges, 1);
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("k"))), Outcome::Pass);
    running.stop();
}

fn usage_rows_follow_the_ledger(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(policy());
    put(&running.engine, "lost");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::CardLost);
    running.stop();
    let running = bank.open(policy());
    let rows = running.engine.usage(Some(1), 10).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].outcome.as_str(), rows[0].charged.as_str()), ("CARD_LOST", "1"));
    assert_eq!(rows[0].masks.as_ref().unwrap().card, "621700*********0012");
    assert!(running.engine.usage(Some(2), 10).unwrap().is_empty());
    // All of them at once: many are packed together.
    (0..70).for_each(|_| assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::CardLost));
    running.stop();
    for file in ["usage.db", "usage.db-wal", "usage.db-shm"] {
        let _ = std::fs::remove_file(bank.path().join(file));
    }
    bank.open(policy()).stop();
    let running = bank.open(policy());
    let rows = running.engine.usage(Some(1), 100).unwrap();
    assert_eq!(rows.len(), 71);
    assert!(rows.iter().all(|row| row.outcome == "CARD_LOST" && row.answers == 1));
    let requests: std::collections::HashSet<_> = rows.iter().map(|row| &row.request_id).collect();
    assert_eq!(requests.len(), 71);
    running.stop();
}

fn what_is_remembered_outlives_snapshots_and_ends_in_time(store: Store) {
    let bank = Installation::new(store);
    let policy = || Policy { attempts: AttemptPolicy::default(), ..policy() };
    let mut first = None;
    // Each start reads again what an earlier snapshot has counted.
    for number in 0..4 {
        let running = bank.open(policy());
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
        let running = bank.open(policy());
        running.engine.clock.set(Mode::Frozen(noon() + DAY));
        assert_eq!(outcome(ask(&running.engine, "16100000002", None)), Outcome::HolderMismatch, "a new day");
        running.stop();
    }
    let running = bank.open(policy());
    running.engine.clock.set(Mode::Frozen(noon() + DAY));
    assert!(!ask(&running.engine, "16100000001", Some("k")).unwrap().replayed, "its day is over");
    running.stop();
}

fn a_full_memory_refuses_new_keys_on_files_and_never_asks_twice(store: Store) {
    let bank = Installation::new(store);
    let running = bank.open(Policy { keys_max: 2, ..policy() });
    put(&running.engine, "normal");
    for key in ["a", "b"] {
        assert_eq!(outcome(ask(&running.engine, "16100000001", Some(key))), Outcome::Pass);
    }
    match store {
        Store::Files => {
            assert_eq!(ask(&running.engine, "16100000001", Some("c")).unwrap_err(), Refusal::Overloaded);
            assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "without a key");
        }
        // The database remembers them, and has room.
        _ => assert!(!ask(&running.engine, "16100000001", Some("c")).unwrap().replayed),
    }
    assert!(ask(&running.engine, "16100000001", Some("b")).unwrap().replayed);
    assert_eq!(running.engine.totals().charges, 3);
    running.engine.clock.set(Mode::Frozen(noon() + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", Some("c"))), Outcome::Pass, "room again");
    running.stop();
}

fn full_counters_refuse_what_is_counted_until_the_day_ends(store: Store) {
    let bank = Installation::new(store);
    let policy = Policy { attempts: AttemptPolicy::default(), counters_max: 9, ..policy() };
    let running = bank.open(policy);
    put(&running.engine, "normal");
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass);
    assert_eq!(ask(&running.engine, "16100000001", None).unwrap_err(), Refusal::Overloaded);
    assert_eq!(running.engine.totals().charges, 1);
    running.engine.clock.set(Mode::Frozen(noon() + DAY));
    assert_eq!(outcome(ask(&running.engine, "16100000001", None)), Outcome::Pass, "a new day");
    running.stop();
}

fn an_order_that_was_paid_before_a_crash_is_carried_out_once(store: Store) {
    let bank = Installation::new(store);
    let start = || bank.open_with(policy(), Seed::nobody());
    // On a database it is seen a moment later.
    let soon_has = |engine: &Engine, caller: CallerId, credits: i64| {
        let (application, _) = engine.directory().application(ApplicationId(caller.0)).unwrap();
        soon(|| engine.balance(&application) == Some(Credits::whole(credits)));
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
    soon_has(engine, caller, 10);
    // The money has come and was noted; then the power went.
    let order = Order {
        state: OrderState::Paid,
        ..Order::new(caller, "Hundred".into(), Credits::whole(100), noon())
    };
    engine.platform().add_order(&order).unwrap();
    running.stop();

    for _ in 0..2 {
        let running = start();
        let engine = &running.engine;
        soon_has(engine, caller, 110);
        assert_eq!(engine.platform().order(&order.id).unwrap().unwrap().state, OrderState::Finished);
        // Or it went after the ledger had the credits: the same once more.
        engine.platform().set_order(&order.id, OrderState::Paid, None, noon()).unwrap();
        running.stop();
    }
    let running = start();
    let refunded = running.engine.acting(By::Machine).refund_order(&order.id).unwrap();
    assert_eq!(refunded.state, OrderState::Refunded);
    soon_has(&running.engine, caller, 10);
    running.stop();
}

fn a_start_that_fails_gives_the_folder_back(store: Store) {
    let bank = Installation::new(store);
    bank.open(policy()).stop();
    // What was paid is looked for when all threads are at work already.
    bank.meddle("platform.db", "ALTER TABLE purchase RENAME TO lost");
    for _ in 0..2 {
        let error = bank.try_open(policy(), Seed::nobody()).err().unwrap().to_string();
        assert!(error.contains("purchase"), "{error}");
    }
    bank.meddle("platform.db", "ALTER TABLE lost RENAME TO purchase");
    bank.open(policy()).stop();
}
