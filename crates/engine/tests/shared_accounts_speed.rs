//! How fast accounts get into a database, from there into a node's copy, and how fast a single one is looked up
//! there, beside the driver alone:
//!
//! ```sh
//! CARD4E_ACCOUNTS=1000000 cargo test --release -p card4e-engine --test shared_accounts_speed -- --ignored --nocapture
//! ```

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement says what it found")]

#[expect(dead_code, reason = "nothing is killed here")]
#[path = "support/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::account::AccountText;
use engine::store::postgres::Session;
use engine::store::{AccountChange, Follower, Freshness, Import, SharedAccounts, Source, StoreError};
use engine::subject::{Date, ParseOptions};
use engine::vault::{KeyRing, Vault};

/// Rows of a batch, as `card4e import accounts` has them.
const BATCH: usize = 100_000;
const LOOK_UPS: u64 = 20_000;

fn number(card: u64) -> String {
    format!("621700{card:010}")
}

fn change(card: u64, vault: &Vault) -> AccountChange {
    let (number, mobile) = (number(card), format!("161{:08}", card % 100_000_000));
    let text = AccountText {
        card: &number,
        name: "李雷",
        id: "990101199001010019",
        mobile: &mobile,
        ..AccountText::default()
    };
    let options = ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2026, 1, 1).unwrap()) };
    AccountChange::put(text.row(&options, vault).unwrap(), vault)
}

fn said(what: &str, count: u64, took: Duration) {
    println!(
        "{what:<55} {count:>9} in {:>6.2} s {:>9.0}/s",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64()
    );
}

#[test]
#[ignore = "a measurement"]
fn how_fast() {
    let Some(server) = postgres::shared() else { return };
    let rows: u64 = std::env::var("CARD4E_ACCOUNTS").map_or(100_000, |rows| rows.parse().unwrap());
    let database = server.database();
    let vault = Vault::new(&KeyRing::generate());
    let mut shared = SharedAccounts::open_alone(&database, &vault).unwrap();
    shared.begin_import(&Source { identity: None, is_replacing: false, from_start: false }).unwrap();
    let mut took = Duration::ZERO;
    let cards: Vec<u64> = (0..rows).collect();
    for batch in cards.chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(|card| change(*card, &vault)).collect();
        let began = Instant::now();
        shared.import(batch, Import::default()).unwrap();
        took += began.elapsed();
    }
    said("import, rows that are computed", rows, took);

    let dir = tempfile::tempdir().unwrap();
    let fresh = Arc::new(Freshness::new(Duration::from_secs(60)));
    let mut follower = Follower::open(&database, &dir.path().join("accounts.db"), fresh).unwrap();
    let began = Instant::now();
    while !follower.step(&vault.keys()).unwrap().is_current {}
    said("copy of a new node", rows, began.elapsed());

    let keys = vault.keys();
    let card = |at: u64| at * 7919 % rows;
    let began = Instant::now();
    for at in 0..LOOK_UPS {
        assert!(shared.find(&number(card(at)), &keys).unwrap().is_some());
    }
    said("look-ups in the database, one connection", LOOK_UPS, began.elapsed());

    let indexes: Vec<_> = (0..LOOK_UPS).map(|at| vault.index(&number(card(at)))).collect();
    let mut session = Session::new(database).unwrap();
    let began = Instant::now();
    for index in &indexes {
        let found = session.attempt(async |connection| {
            let find = connection.prepared("SELECT * FROM account WHERE idx = $1").await;
            let rows =
                connection.client.query_opt(&find.map_err(StoreError::Database)?, &[&&index.0[..]]).await;
            rows.map_err(StoreError::Database)
        });
        assert!(found.unwrap().is_some());
    }
    said("tokio-postgres alone, the same rows, one connection", LOOK_UPS, began.elapsed());

    let size = session.read(async |connection| {
        connection.client.query_one("SELECT pg_total_relation_size('account')", &[]).await
    });
    println!("bytes of PostgreSQL a row: {}", size.unwrap().get::<_, i64>(0) as u64 / rows);
}
