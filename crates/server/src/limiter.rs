//! Requests a second counted across nodes, in Redis or Valkey: one script a request, which is exact.
//!
//! A core has one connection, which its questions share. Whoever does not get an answer in time is not kept
//! waiting: from the first failure on the limiter is away for this core, and nobody asks it until a new
//! connection has answered. What becomes of a limit meanwhile is the engine's to say.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::caller::{Action, ApplicationId};
use engine::limit::{Counting, Limiter, Rate};
use engine::provider::Endpoint;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::telemetry::{BOUNDS_US, head};

/// Counts one request; what it does is said there.
const GCRA: &str = include_str!("limiter/gcra.lua");

/// Connecting may take so long: questions do not wait for it.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How soon a limiter that is away is tried again; doubled while that fails, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A connection that was lost sooner counts as one that failed.
const STEADY: Duration = Duration::from_secs(10);

/// Where a limiter is, and how it is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Host, port, TLS.
    pub endpoint: Endpoint,
    /// Number of its database.
    pub database: i64,
    /// Who asks.
    pub username: Option<String>,
    /// With which password.
    pub password: Option<Zeroizing<String>>,
    /// An answer is waited for so long.
    pub timeout: Duration,
}

impl fmt::Debug for Target {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&place(self)).finish()
    }
}

/// What all cores know of the limiter, and what they count about it.
pub struct Shared {
    target: watch::Sender<Option<Arc<Target>>>,
    /// Cores that it is away for.
    away: AtomicUsize,
    granted: AtomicU64,
    exceeded: AtomicU64,
    failures: AtomicU64,
    unasked: AtomicU64,
    latency: [AtomicU64; BOUNDS_US.len() + 1],
    latency_sum_us: AtomicU64,
}

impl Shared {
    /// A limiter, or none.
    pub fn new(target: Option<Target>) -> Shared {
        Shared {
            target: watch::Sender::new(target.map(Arc::new)),
            away: AtomicUsize::default(),
            granted: AtomicU64::default(),
            exceeded: AtomicU64::default(),
            failures: AtomicU64::default(),
            unasked: AtomicU64::default(),
            latency: Default::default(),
            latency_sum_us: AtomicU64::default(),
        }
    }

    /// Another limiter from now on, or none. One that stays the same keeps its connections.
    pub fn replace(&self, target: Option<Target>) {
        self.target.send_if_modified(|current| {
            let is_another = current.as_deref() != target.as_ref();
            if is_another {
                *current = target.map(Arc::new);
            }
            is_another
        });
    }

    /// Whether it answers: `None` when there is none; false while it is away for at least one core.
    pub fn is_there(&self) -> Option<bool> {
        let is_set = self.target.borrow().is_some();
        is_set.then(|| self.away.load(Ordering::Relaxed) == 0)
    }

    fn answered(&self, rate: Rate, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let counter = if rate.exceeded() { &self.exceeded } else { &self.granted };
        counter.fetch_add(1, Ordering::Relaxed);
        self.latency[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Ordering::Relaxed);
        self.latency_sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counters in the text format of Prometheus.
    pub fn render(&self, text: &mut String) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "card4e_limiter_requests_total";
        head(
            text,
            name,
            "counter",
            "Requests that a limit across nodes holds for, by how they were counted.",
        );
        for (end, count) in [
            ("granted", of(&self.granted)),
            ("exceeded", of(&self.exceeded)),
            ("failed", of(&self.failures)),
            ("unasked", of(&self.unasked)),
        ] {
            let _ = writeln!(text, "{name}{{end=\"{end}\"}} {count}");
        }
        let name = "card4e_limiter_away_cores";
        head(text, name, "gauge", "Cores that do not reach the limiter now, each with its share of a limit.");
        let _ = writeln!(text, "{name} {}", self.away.load(Ordering::Relaxed));
        let name = "card4e_limiter_seconds";
        head(text, name, "histogram", "From a request to the limiter's answer.");
        let mut total = 0;
        for (bucket, count) in self.latency.iter().enumerate() {
            total += of(count);
            let bound = BOUNDS_US.get(bucket).map_or("+Inf".into(), |us| (*us as f64 / 1e6).to_string());
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(text, "{name}_sum {}", of(&self.latency_sum_us) as f64 / 1e6);
        let _ = writeln!(text, "{name}_count {total}");
    }
}

/// One core's way to the limiter; stays on its thread, where [`OnCore::keep_connected`] must run.
#[derive(Clone)]
pub struct OnCore(Rc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    state: RefCell<State>,
    tried: Notify,
}

enum State {
    /// There is no limiter.
    Off,
    Away,
    There(Link),
}

/// A connection that answers, until one who asks finds that it does not.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    timeout: Duration,
    lost: Rc<Notify>,
}

impl OnCore {
    /// A core's, not connected yet.
    pub fn new(shared: Arc<Shared>) -> OnCore {
        OnCore(Rc::new(Inner { shared, state: RefCell::new(State::Off), tried: Notify::new() }))
    }

    /// Ready once the limiter was reached or not, or when there is none: so that the first question already
    /// is counted as it should be.
    pub async fn tried(&self) {
        self.0.tried.notified().await;
    }

    /// Connects, and again when the connection was lost or the settings name another limiter; for ever.
    pub async fn keep_connected(&self) {
        let core = &*self.0;
        let mut target = core.shared.target.subscribe();
        let mut pause = PAUSE_MIN;
        loop {
            let wanted = target.borrow_and_update().clone();
            let Some(wanted) = wanted else {
                core.becomes(State::Off, "");
                core.tried.notify_one();
                if target.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = Instant::now();
            let why = match timeout(CONNECT_MAX, connected(&wanted)).await {
                Ok(Ok((link, driver))) => {
                    let lost = Rc::clone(&link.lost);
                    core.becomes(State::There(link), &place(&wanted));
                    core.tried.notify_one();
                    tokio::select! {
                        () = driver => "the connection was closed".to_owned(),
                        () = lost.notified() => String::new(),
                        _ = target.changed() => "the settings name another one".to_owned(),
                    }
                }
                Ok(Err(why)) => format!("{why:#}"),
                Err(_) => format!("no connection within {CONNECT_MAX:?}"),
            };
            core.becomes(State::Away, &format!("{}: {why}", place(&wanted)));
            core.tried.notify_one();
            if began.elapsed() >= STEADY {
                pause = PAUSE_MIN;
            }
            if !target.has_changed().unwrap_or(false) {
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                    _ = target.changed() => target.mark_changed(),
                }
            }
        }
    }
}

impl Inner {
    /// Somebody found that the connection does not answer; nobody else asks there.
    fn lose(&self, link: &Link, why: &str) {
        let is_current = match &*self.state.borrow() {
            State::There(current) => Rc::ptr_eq(&current.lost, &link.lost),
            _ => false,
        };
        if is_current {
            self.becomes(State::Away, why);
            link.lost.notify_one();
        }
    }

    /// Says in the log what has changed for the server, not what has for each core.
    fn becomes(&self, next: State, about: &str) {
        let is_away = matches!(next, State::Away);
        let is_there = matches!(next, State::There(_));
        let was_away = matches!(self.state.replace(next), State::Away);
        let away = &self.shared.away;
        if !was_away && is_away && away.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "the limiter does not answer; until it does each node grants its share of a limit, or nothing \
                 where the settings say so: {about}"
            );
        }
        if was_away && !is_away && away.fetch_sub(1, Ordering::Relaxed) == 1 && is_there {
            tracing::info!("the limiter answers again: {about}");
        }
    }
}

impl Limiter for OnCore {
    fn count(&self, application: ApplicationId, action: Action, limit: u32) -> Counting {
        let mut link = match &*self.0.state.borrow() {
            State::Off => return Counting::Here,
            State::Away => {
                self.0.shared.unasked.fetch_add(1, Ordering::Relaxed);
                return Counting::Away;
            }
            State::There(link) => link.clone(),
        };
        let core = Rc::clone(&self.0);
        Counting::Asked(Box::pin(async move {
            let began = Instant::now();
            let key = format!("card4e:rate:{{{}:{}}}", application.0, action.name());
            let why = match timeout(link.timeout, counted(&mut link.connection, &key, limit)).await {
                Ok(Ok(rate)) => {
                    core.shared.answered(rate, began.elapsed());
                    return Some(rate);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within limits.timeout_ms, {} ms", link.timeout.as_millis()),
            };
            core.shared.failures.fetch_add(1, Ordering::Relaxed);
            core.lose(&link, &why);
            None
        }))
    }
}

/// Asks for one request: by the script's hash, and with its text where that is not known (any more).
async fn counted(connection: &mut MultiplexedConnection, key: &str, limit: u32) -> Result<Rate, RedisError> {
    static HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(GCRA).get_hash().to_owned());
    let command = |name, script: &str| {
        let mut command = redis::cmd(name);
        command.arg(script).arg(1).arg(key).arg(limit);
        command
    };
    let asked = command("EVALSHA", &HASH).query_async(connection).await;
    let sent = match asked {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            command("EVAL", GCRA).query_async(connection).await?
        }
        asked => asked?,
    };
    Ok(Rate { limit, sent })
}

/// `redis://host:port`, or `rediss://`.
pub fn place(target: &Target) -> String {
    let Endpoint { host, port, tls, .. } = &target.endpoint;
    format!("{}://{host}:{port}", if *tls { "rediss" } else { "redis" })
}

/// A connection that has answered as fast as it has to, and what drives it.
async fn connected(target: &Target) -> anyhow::Result<(Link, Driver)> {
    let (connection, mut driver) = open(target).await?;
    let took = tokio::select! {
        took = trial(connection.clone()) => took?,
        () = &mut driver => bail!("the connection was closed"),
    };
    if took > target.timeout {
        bail!(
            "it answers after {} ms, limits.timeout_ms is {}",
            took.as_millis(),
            target.timeout.as_millis()
        );
    }
    Ok((Link { connection, timeout: target.timeout, lost: Rc::default() }, driver))
}

/// How long the limiter takes for one answer: connects to it, and counts something nobody has asked.
///
/// # Errors
/// Why it cannot be used.
pub async fn answer_time(target: &Target) -> anyhow::Result<Duration> {
    let measured = async {
        let (connection, driver) = open(target).await?;
        tokio::select! {
            took = trial(connection) => took,
            () = driver => bail!("the connection was closed"),
        }
    };
    timeout(CONNECT_MAX, measured).await.with_context(|| format!("no answer within {CONNECT_MAX:?}"))?
}

/// Counts something nobody has asked, twice: the first time it may have to learn the script.
async fn trial(mut connection: MultiplexedConnection) -> anyhow::Result<Duration> {
    const KEY: &str = "card4e:rate:{trial}";
    counted(&mut connection, KEY, 1_000_000).await?;
    let began = Instant::now();
    counted(&mut connection, KEY, 1_000_000).await?;
    Ok(began.elapsed())
}

type Driver = std::pin::Pin<Box<dyn Future<Output = ()>>>;

async fn open(target: &Target) -> anyhow::Result<(MultiplexedConnection, Driver)> {
    let Endpoint { host, port, tls, ca } = &target.endpoint;
    let socket = TcpStream::connect((host.as_str(), *port)).await?;
    socket.set_nodelay(true)?;
    if !tls {
        return signed_in(target, socket).await;
    }
    let config = crate::upstream::trusting(ca.as_deref())?;
    let name = ServerName::try_from(host.clone())?;
    signed_in(target, TlsConnector::from(config).connect(name, socket).await?).await
}

async fn signed_in(
    target: &Target,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<(MultiplexedConnection, Driver)> {
    let mut who = RedisConnectionInfo::default().set_db(target.database).set_skip_set_lib_name();
    if let Some(username) = &target.username {
        who = who.set_username(username);
    }
    if let Some(password) = &target.password {
        who = who.set_password(password.as_str());
    }
    // How long to wait is told by who asks.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
    let (connection, driver) = MultiplexedConnection::new_with_config(&who, socket, config).await?;
    Ok((connection, Box::pin(driver)))
}
