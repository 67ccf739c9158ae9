//! A PostgreSQL-wire database, for threads that may wait: each has a [`Session`] with a connection and a
//! small runtime of its own. Only SQL that PostgreSQL 15, Citus, CockroachDB and YugabyteDB all document.
//!
//! What failed is told by what is known afterwards: [`StoreError::Database`], nothing was changed;
//! [`StoreError::Unknown`], the connection was lost while a commit was under way, so look before asking again.

pub mod lease;
mod notice;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StoreError;

/// How long connecting may take.
const CONNECT_MOST: Duration = Duration::from_secs(5);

/// How long one piece of work may take, a commit of a block above all. Longer than a failover of a managed
/// database usually interrupts.
const WORK_MOST: Duration = Duration::from_secs(30);

/// What a session is begun with. That a table is there already is no news. A node that freezes in the middle of
/// a transaction must not keep the others from what it has locked.
const SESSION: &str =
    "-c client_min_messages=warning -c idle_in_transaction_session_timeout=5s -c lock_timeout=15s";

/// How often a transaction is tried again that others were in the way of.
const TRIES: u32 = 10;

/// Where the database is, and how it is spoken to.
pub struct Database {
    config: Config,
    tls: Arc<rustls::ClientConfig>,
}

impl fmt::Debug for Database {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("hosts", &self.config.get_hosts())
            .field("ports", &self.config.get_ports())
            .field("name", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Database {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<String> = hosts.collect();
        let ports: Vec<String> = self.config.get_ports().iter().map(u16::to_string).collect();
        write!(f, "postgres://{}", hosts.join(","))?;
        if !ports.is_empty() {
            write!(f, ":{}", ports.join(","))?;
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl Database {
    /// Reads `postgres://user@host:port/name?sslmode=…`. With a host that is not this machine the
    /// connection is encrypted and the certificate checked, unless `sslmode=disable` says otherwise.
    ///
    /// # Errors
    /// What is wrong with it, in words without the password.
    pub fn new(url: &str, password: Option<&str>, tls: rustls::ClientConfig) -> Result<Database, String> {
        let mut config = read(url)?;
        if let Some(password) = password {
            config.password(password);
        }
        config.application_name("card4e").connect_timeout(CONNECT_MOST);
        if config.get_options().is_none() {
            config.options(SESSION);
        }
        config.keepalives_idle(Duration::from_secs(10)).tcp_user_timeout(WORK_MOST);
        Ok(Database { config, tls: Arc::new(tls) })
    }

    /// Whether TLS is spoken with the database of this address.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn is_encrypted(url: &str) -> Result<bool, String> {
        Ok(read(url)?.get_ssl_mode() != SslMode::Disable)
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        let run = async {
            if self.config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(connection);
                return Ok(client);
            }
            let tls = MakeRustlsConnect::new((*self.tls).clone());
            let (client, connection) = self.config.connect(tls).await?;
            tokio::spawn(connection);
            Ok(client)
        };
        match timeout(CONNECT_MOST, run).await {
            Ok(Ok(client)) => Ok(Connection { client, statements: RefCell::default() }),
            Ok(Err(cause)) => Err(StoreError::Database(cause)),
            Err(_) => Err(StoreError::DatabaseSlow(CONNECT_MOST)),
        }
    }
}

fn read(url: &str) -> Result<Config, String> {
    // libpq's name for what is done here whenever there is TLS at all.
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    let mut config: Config = url.parse().map_err(|error| format!("it cannot be read: {error}"))?;
    if config.get_hosts().is_empty() {
        return Err("it names no host".to_owned());
    }
    if config.get_dbname().is_none() {
        return Err("it names no database".to_owned());
    }
    if config.get_ssl_mode() == SslMode::Prefer {
        let is_near = config.get_hosts().iter().all(is_this_machine);
        config.ssl_mode(if is_near { SslMode::Disable } else { SslMode::Require });
    }
    Ok(config)
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// A connection, and what was prepared on it.
pub struct Connection {
    /// To ask with; what is asked together without waiting in between goes in one round trip.
    pub client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
}

impl Connection {
    /// The statement, prepared at its first use on this connection.
    pub async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.statements.borrow().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }
}

/// One thread's way to the database. Connects when it is first needed, and again after it was lost.
pub struct Session {
    database: Arc<Database>,
    runtime: Runtime,
    connection: Option<Connection>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.database).finish()
    }
}

impl Session {
    /// A session that has not connected yet.
    pub fn new(database: Arc<Database>) -> Result<Session, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StoreError::Runtime)?;
        Ok(Session { database, runtime, connection: None })
    }

    /// Reads something. Tried once more on a new connection when the old one turns out to be lost, so
    /// nothing may be changed by it.
    pub fn read<T>(
        &mut self,
        work: impl AsyncFn(&Connection) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let is_new = self.connection.is_none();
        match self.attempt(async |connection| work(connection).await.map_err(StoreError::Database)) {
            Err(error) if error.is_of_the_connection() && !is_new => {
                self.attempt(async |connection| work(connection).await.map_err(StoreError::Database))
            }
            done => done,
        }
    }

    /// Changes something, all or nothing: `work` between BEGIN and COMMIT. Tried again when others were in
    /// the way of it (a serialization failure or a deadlock), and when the connection was lost before COMMIT.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the connection was lost while COMMIT was under way.
    pub fn transaction<T>(
        &mut self,
        work: impl AsyncFn(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 0;
        loop {
            let is_new = self.connection.is_none();
            let done = self.attempt(async |connection| {
                connection.client.batch_execute("BEGIN").await.map_err(StoreError::Database)?;
                match work(connection).await {
                    Ok(done) => commit(connection).await.map(|()| done),
                    Err(error) => {
                        // The connection may be what failed; a new one begins without a transaction.
                        drop(connection.client.batch_execute("ROLLBACK").await);
                        Err(error)
                    }
                }
            });
            tries += 1;
            match done {
                Err(error) if tries < TRIES && error.is_in_the_way() => {}
                Err(error) if tries < TRIES && !is_new && error.is_of_the_connection() => {}
                done => return done,
            }
        }
    }

    /// The same for what other nodes copy or remember: those that listen look at once ([`Database::listen`]).
    pub fn change<T>(
        &mut self,
        work: impl AsyncFn(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.transaction(work);
        if done.is_ok() {
            self.notify();
        }
        done
    }

    /// Runs something once, within the time that work may take. A connection on which anything but the
    /// database's own answer went wrong is not used again.
    pub fn attempt<T>(
        &mut self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.without_limit(async |connection| {
            let done = timeout(WORK_MOST, work(connection)).await;
            done.unwrap_or(Err(StoreError::DatabaseSlow(WORK_MOST)))
        })
    }

    fn without_limit<T>(
        &mut self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Session { database, runtime, connection } = self;
        let done = runtime.block_on(async {
            if connection.as_ref().is_none_or(|connection| connection.client.is_closed()) {
                *connection = Some(database.connect().await?);
            }
            let Some(connection) = connection.as_ref() else { return Err(StoreError::Stopped) };
            work(connection).await
        });
        if let Err(error) = &done
            && !error.is_answer_of_the_database()
        {
            self.connection = None;
            // Its task is told now: a transaction it leaves behind would hold its locks until the next question.
            runtime.block_on(tokio::task::yield_now());
        }
        done
    }

    /// Reads at one state of the database, for as long as that takes: each statement of `work` has the time that
    /// work may take otherwise.
    pub fn look<T>(
        &mut self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let most = WORK_MOST.as_millis();
        // What was read is written elsewhere before more is.
        let limit = format!(
            "SET LOCAL statement_timeout = {most}; SET LOCAL idle_in_transaction_session_timeout = {most}"
        );
        self.without_limit(async |connection| {
            for statement in [begin, &limit] {
                connection.client.batch_execute(statement).await.map_err(StoreError::Database)?;
            }
            let done = work(connection).await;
            // It only reads, so there is nothing to lose; the next statement finds out what is wrong.
            drop(connection.client.batch_execute("ROLLBACK").await);
            done
        })
    }

    /// Brings a part of the schema to this card4e's version. Several nodes may begin at the same time.
    pub fn migrate(&mut self, schema: &Schema) -> Result<(), StoreError> {
        self.attempt(async |connection| {
            let table =
                "CREATE TABLE IF NOT EXISTS schema_part (part TEXT PRIMARY KEY, version BIGINT NOT NULL)";
            match connection.client.batch_execute(table).await {
                // Two nodes made it at once: PostgreSQL tells the second one so, in spite of IF NOT EXISTS.
                Err(error) if is_made_twice(&error) => Ok(()),
                done => done.map_err(StoreError::Database),
            }
        })?;
        self.transaction(async |connection| bring_forward(connection, schema).await)
    }
}

/// The words for it depend on how far the other one was.
fn is_made_twice(error: &tokio_postgres::Error) -> bool {
    let made = [&SqlState::UNIQUE_VIOLATION, &SqlState::DUPLICATE_OBJECT, &SqlState::DUPLICATE_TABLE];
    error.code().is_some_and(|code| made.contains(&code))
}

/// Tables of a part, one script a version; only ever forward.
pub struct Schema {
    /// Its name.
    pub part: &'static str,
    /// What makes version 1 of nothing, 2 of 1 and so on.
    pub versions: &'static [&'static str],
}

async fn bring_forward(connection: &Connection, schema: &Schema) -> Result<(), StoreError> {
    let client = &connection.client;
    client
        .execute("INSERT INTO schema_part VALUES ($1, 0) ON CONFLICT DO NOTHING", &[&schema.part])
        .await
        .map_err(StoreError::Database)?;
    let row = client
        .query_one("SELECT version FROM schema_part WHERE part = $1 FOR UPDATE", &[&schema.part])
        .await
        .map_err(StoreError::Database)?;
    let version = row.get::<_, i64>(0) as usize;
    if version > schema.versions.len() {
        let what = format!("its schema ({} {version}) is newer than this card4e", schema.part);
        return Err(StoreError::Damaged { file: "the database", what });
    }
    for script in &schema.versions[version..] {
        client.batch_execute(script).await.map_err(StoreError::Database)?;
    }
    let now = schema.versions.len() as i64;
    client
        .execute("UPDATE schema_part SET version = $2 WHERE part = $1", &[&schema.part, &now])
        .await
        .map(drop)
        .map_err(StoreError::Database)
}

/// Sends statements without waiting in between: each leaves when it is first polled, so they leave in their
/// order. The first that fails says why.
pub(super) async fn together<T, E>(
    statements: impl Iterator<Item = impl Future<Output = Result<T, E>> + Unpin>,
) -> Result<(), E> {
    let mut sent: Vec<_> = statements.map(|statement| (statement, None)).collect();
    std::future::poll_fn(|context| {
        for (statement, done) in sent.iter_mut().filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(result) = Pin::new(statement).poll(context) {
                *done = Some(result.map(drop));
            }
        }
        if sent.iter().all(|(_, done)| done.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    sent.into_iter().filter_map(|(_, done)| done).collect()
}

/// Two that do not wait for each other; what they send leaves in their order.
pub(super) async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(done) = one.as_mut().poll(context)
        {
            first = Some(done);
        }
        if second.is_none()
            && let Poll::Ready(done) = other.as_mut().poll(context)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            undone => {
                (first, second) = undone;
                Poll::Pending
            }
        }
    })
    .await
}

pub(super) async fn commit(connection: &Connection) -> Result<(), StoreError> {
    match connection.client.batch_execute("COMMIT").await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN) => {
            Err(StoreError::Unknown(error))
        }
        Err(error) if error.code().is_some() => Err(StoreError::Database(error)),
        Err(error) => Err(StoreError::Unknown(error)),
    }
}

/// Whether the server ended the session: it stops or starts, or nobody went on with a transaction.
fn ended_session(code: &SqlState) -> bool {
    code.code().starts_with("57P") || code == &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

impl StoreError {
    /// Whether others were in the way, so that the same may succeed when it is asked again.
    pub(crate) fn is_in_the_way(&self) -> bool {
        let StoreError::Database(error) = self else { return false };
        matches!(
            error.code(),
            Some(
                &SqlState::T_R_SERIALIZATION_FAILURE
                    | &SqlState::T_R_DEADLOCK_DETECTED
                    | &SqlState::LOCK_NOT_AVAILABLE
            )
        )
    }

    /// Whether the connection was lost before anything was changed.
    pub(super) fn is_of_the_connection(&self) -> bool {
        let StoreError::Database(error) = self else { return false };
        match error.code() {
            None => {
                error.is_closed()
                    || std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
            }
            Some(code) => ended_session(code),
        }
    }

    /// Whether the database is away, or cannot do its work now; whether a commit was made is not known.
    pub fn is_away(&self) -> bool {
        match self {
            StoreError::Unknown(_) | StoreError::DatabaseSlow(_) => true,
            StoreError::Database(error) => error.code().is_none_or(|code| {
                // Lost, out of something, stopping, read only after a failover.
                let code = code.code();
                ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
                    || matches!(code, "25006" | "25P03")
            }),
            _ => false,
        }
    }

    /// Whether the database itself said so, and goes on.
    fn is_answer_of_the_database(&self) -> bool {
        match self {
            StoreError::Database(error) => error.code().is_some_and(|code| !ended_session(code)),
            StoreError::DatabaseSlow(_) | StoreError::Unknown(_) => false,
            _ => true,
        }
    }
}
