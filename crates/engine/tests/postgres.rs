//! The database itself: connections that are lost, transactions in each other's way, versions of tables.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/postgres.rs"]
mod postgres;

use std::sync::Arc;

use engine::store::StoreError;
use engine::store::postgres::{Database, Schema, Session};

const SCHEMA: Schema =
    Schema { part: "test", versions: &["CREATE TABLE counter (id INT PRIMARY KEY, n BIGINT NOT NULL)"] };

fn session(database: &Arc<Database>) -> Session {
    let mut session = Session::new(Arc::clone(database)).unwrap();
    session.migrate(&SCHEMA).unwrap();
    session
}

fn add(session: &mut Session, id: i32) -> Result<(), StoreError> {
    session.transaction(async |connection| {
        let run = async {
            let put =
                connection.prepared("INSERT INTO counter VALUES ($1, 0) ON CONFLICT DO NOTHING").await?;
            connection.client.execute(&put, &[&id]).await?;
            let add = connection.prepared("UPDATE counter SET n = n + 1 WHERE id = $1").await?;
            connection.client.execute(&add, &[&id]).await
        };
        run.await.map(drop).map_err(StoreError::Database)
    })
}

fn counted(session: &mut Session, id: i32) -> i64 {
    let count = session.read(async |connection| {
        connection
            .client
            .query_one("SELECT coalesce(sum(n), 0)::BIGINT FROM counter WHERE id = $1", &[&id])
            .await
    });
    count.unwrap().get(0)
}

#[test]
fn nodes_that_begin_together_make_the_tables_once_and_lose_no_change() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let database = Arc::clone(&database);
            scope.spawn(move || {
                let mut session = session(&database);
                (0..25).for_each(|_| add(&mut session, 1).unwrap());
            });
        }
    });
    assert_eq!(counted(&mut session(&database), 1), 100);
}

#[test]
fn a_newer_schema_is_left_alone() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let newer = Schema { part: "test", versions: &["CREATE TABLE a (b INT)", "CREATE TABLE c (d INT)"] };
    Session::new(Arc::clone(&database)).unwrap().migrate(&newer).unwrap();
    let error = Session::new(database).unwrap().migrate(&SCHEMA).unwrap_err();
    assert!(error.to_string().contains("(test 2) is newer than this card4e"), "{error}");
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    let Some(mut server) = postgres::Postgres::start() else { return };
    let database = server.database();
    let mut session = session(&database);
    add(&mut session, 1).unwrap();
    server.kill();
    let error = add(&mut session, 1).unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    server.run();
    add(&mut session, 1).unwrap();
    assert_eq!(counted(&mut session, 1), 2);
}

#[test]
fn who_freezes_in_a_transaction_does_not_keep_the_others_waiting() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let (mut frozen, mut other) = (session(&database), session(&database));
    add(&mut other, 1).unwrap();
    let begun = frozen.attempt(async |connection| {
        let begin = "BEGIN; UPDATE counter SET n = n + 100 WHERE id = 1";
        connection.client.batch_execute(begin).await.map_err(StoreError::Database)
    });
    begun.unwrap();
    add(&mut other, 1).unwrap();
    add(&mut frozen, 1).unwrap();
    assert_eq!(counted(&mut other, 1), 3, "what was begun and not gone on with is as if it had not been");
}

#[test]
fn what_cannot_be_meant_is_said_and_no_password_is_shown() {
    let new = |url: &str| Database::new(url, Some("hidden"), postgres::plain()).unwrap_err();
    assert_eq!(new("postgres:///card4e"), "it names no host");
    assert_eq!(new("postgres://db.example"), "it names no database");
    assert!(new("http://db.example/").starts_with("it cannot be read"));
    let database = Database::new("postgres://a:secret@db.example/card4e", None, postgres::plain()).unwrap();
    let shown = format!("{database:?}");
    assert!(shown.contains("db.example") && !shown.contains("secret"), "{shown}");
}

#[test]
fn tls_is_spoken_with_whoever_is_not_this_machine() {
    let is_encrypted = |rest: &str| Database::is_encrypted(&format!("postgres://card4e@{rest}"));
    for near in
        ["127.0.0.1:5432/card4e", "localhost/card4e", "[::1]/card4e", "db.example.com/card4e?sslmode=disable"]
    {
        assert_eq!(is_encrypted(near), Ok(false), "{near}");
    }
    for far in ["db.example.com/card4e", "10.0.0.7/card4e", "localhost/card4e?sslmode=verify-full"] {
        assert_eq!(is_encrypted(far), Ok(true), "{far}");
    }
    assert!(Database::is_encrypted("postgres://card4e@db.example.com").unwrap_err().contains("no database"));
}
