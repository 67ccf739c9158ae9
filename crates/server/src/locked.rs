//! A server whose root key is sealed and whose passphrase, or whose token's PIN, nobody has given yet: it answers `/healthz`,
//! `/readyz`, `/metrics` and `card4e unseal`, and tells everybody else that it is unavailable.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use engine::store::Folder;
use engine::verify::new_request_id;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming as HyperBody};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use wire::{Incoming, Language};
use zeroize::Zeroizing;

use crate::config::Settings;
use crate::custody::{Kept, Secret};
use crate::front::{acedata, tencent};
use crate::http::{OnThisCore, Reply, connection_bound, shake_hands};
use crate::installation::Installation;
use crate::manage::{Hidden, Request as Asked, socket};
use crate::tls::{self, Tls};
use crate::{custody, process, told_to_stop};

/// `card4e unseal`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e unseal --config card4e.toml                                        asks on the terminal
  CARD4E_PASSPHRASE_FD=3 card4e unseal --config card4e.toml 3< passphrase   reads the first line of a file
  CARD4E_PIN_FD=3 card4e unseal --config card4e.toml 3< pin                 with a token as custody")]
pub struct Unseal {
    /// The settings file.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Gives a locked server its passphrase, or the PIN of its token.
pub fn unseal(options: &Unseal) -> anyhow::Result<()> {
    /// The passphrase is stretched on purpose; on a small machine that takes seconds.
    const PATIENCE: Duration = Duration::from_secs(120);
    let settings = Settings::read(&options.config)?;
    let folder = options.config.parent().unwrap_or(Path::new(".")).join(&settings.server.data);
    let stream = UnixStream::connect(socket(&folder))
        .with_context(|| format!("no server works in {}; start `card4e serve` first", folder.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let secret = Hidden(custody::secret(settings.keys.custody)?.text);
    let mut line = Zeroizing::new(serde_json::to_vec(&Asked::Unseal { secret })?);
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut told = String::new();
    BufReader::new(&stream).read_line(&mut told)?;
    let told: Value = serde_json::from_str(&told).context("the server's answer cannot be read")?;
    if let Some(refused) = told["error"].as_str() {
        return Err(anyhow!("{refused}"));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", if options.json { r#"{"unsealed":true}"# } else { "Unsealed; the server starts." })?;
    Ok(())
}

/// What a locked server knows.
struct Locked {
    tls: Option<Arc<Tls>>,
    language: Language,
    unseal: String,
    head_deadline: Duration,
    connections: Arc<Semaphore>,
}

/// Answers until somebody gives passphrase or PIN; `None` when it is told to stop instead.
pub fn until_unsealed(
    kept: Kept,
    listener: &std::net::TcpListener,
    settings: &Settings,
    config: &Path,
    tls: Option<Arc<Tls>>,
) -> anyhow::Result<Option<Installation>> {
    let base = config.parent().unwrap_or(Path::new("."));
    let data = base.join(&settings.server.data);
    // Another server's control socket must not be taken away.
    let _folder = Folder::take(&data)?;
    let unseal = format!("card4e unseal --config {}", config.display());
    let (give, given) = oneshot::channel();
    let (of, base) = (settings.clone(), base.to_owned());
    let open = move |secret: &Secret| Installation::kept_by(&kept, Some(secret), &of, &base);
    listen(&data, open, give, unseal.clone())?;
    let locked = Arc::new(Locked {
        tls,
        language: settings.tencent.language,
        unseal: unseal.clone(),
        head_deadline: Duration::from_secs(settings.http.head_seconds),
        connections: connection_bound(process::allow_connections(settings.http.connections_max)),
    });
    let listener = listener.try_clone()?;
    writeln!(std::io::stdout(), "card4e is locked on {}; unlock it: {unseal}", listener.local_addr()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let opened = local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stop = told_to_stop()?;
        tokio::select! {
            () = stop => Ok::<_, anyhow::Error>(None),
            opened = given => Ok(opened.ok()),
            () = accept(&listener, &locked) => Ok(None),
        }
    })?;
    // If it is left behind, the next server replaces it.
    let _ = std::fs::remove_file(socket(&data));
    Ok(opened)
}

/// One attempt at a time, each of which stretches the passphrase.
fn listen(
    folder: &Path,
    open: impl Fn(&Secret) -> anyhow::Result<Installation> + Send + 'static,
    give: oneshot::Sender<Installation>,
    unseal: String,
) -> anyhow::Result<()> {
    let path = socket(folder);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot make the control socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("card4e-locked".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            match attempt(&stream, &open) {
                Ok(Some(installation)) => {
                    // Whoever waits for it may have been told to stop.
                    let _ = give.send(installation);
                    let _ = (&stream).write_all(b"{\"ok\":{\"unsealed\":true}}\n");
                    return;
                }
                Ok(None) => {
                    let refused = format!("the server is locked; unlock it first: {unseal}");
                    let _ = (&stream).write_all(format!("{}\n", json!({ "error": refused })).as_bytes());
                }
                Err(wrong) => {
                    let wrong = format!("{wrong:#}");
                    tracing::warn!(%wrong, "an attempt to unseal failed");
                    let wrong = json!({ "error": wrong });
                    let _ = (&stream).write_all(format!("{wrong}\n").as_bytes());
                }
            }
        }
    })?;
    Ok(())
}

fn attempt(
    stream: &UnixStream,
    open: impl Fn(&Secret) -> anyhow::Result<Installation>,
) -> anyhow::Result<Option<Installation>> {
    const LINE_MAX_BYTES: u64 = 8 << 10;
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut line = Zeroizing::new(String::with_capacity(LINE_MAX_BYTES as usize));
    // One that sends nothing only looks whether a server runs.
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = BufReader::new(stream.take(LINE_MAX_BYTES)).read_line(&mut line);
    match serde_json::from_str(&line) {
        Ok(Asked::Unseal { secret: Hidden(text) }) => open(&Secret { text, is_attended: true }).map(Some),
        _ => Ok(None),
    }
}

async fn accept(listener: &tokio::net::TcpListener, locked: &Arc<Locked>) {
    loop {
        let Ok(permit) = Arc::clone(&locked.connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let locked = Arc::clone(locked);
                tokio::task::spawn_local(async move {
                    serve(&locked, socket).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, most likely: wait for some to be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(locked: &Arc<Locked>, socket: tokio::net::TcpStream) {
    let of = Arc::clone(locked);
    let service = service_fn(move |request| {
        let locked = Arc::clone(&of);
        async move { Ok::<_, Infallible>(respond(&locked, request).await) }
    });
    let mut http1 = http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(locked.head_deadline);
    // A connection that breaks is the client's affair.
    let Some(tls) = &locked.tls else {
        let _ = http1.serve_connection(TokioIo::new(socket), service).await;
        return;
    };
    match tokio::time::timeout(locked.head_deadline, shake_hands(tls, socket)).await {
        Ok(Some(socket)) if socket.get_ref().1.alpn_protocol() == Some(tls::H2) => {
            let http2 = http2::Builder::new(OnThisCore).serve_connection(TokioIo::new(socket), service);
            let _ = tokio::time::timeout(locked.head_deadline, http2).await;
        }
        Ok(Some(socket)) => _ = http1.serve_connection(TokioIo::new(socket), service).await,
        Ok(None) | Err(_) => {}
    }
}

async fn respond(locked: &Locked, request: Request<HyperBody>) -> Response<Full<Bytes>> {
    const BODY_MAX_BYTES: usize = 1 << 20;
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(locked.head_deadline, Limited::new(body, BODY_MAX_BYTES).collect()).await;
    let body = read.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let incoming = Incoming {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        body: &body,
    };
    let Reply { status, headers, body, .. } = answer(locked, &incoming);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers.into_iter().collect();
    response
}

fn answer(locked: &Locked, incoming: &Incoming<'_>) -> Reply {
    if wire::tencent::claims(incoming) {
        return tencent::locked(incoming, locked.language);
    }
    match incoming.path {
        "/healthz" | "/health" => Reply::new(StatusCode::OK, "application/json", "{\"status\":\"ok\"}\n"),
        "/readyz" => {
            let body = json!({ "ready": false, "locked": true, "unlock": locked.unseal });
            Reply::new(StatusCode::SERVICE_UNAVAILABLE, "application/json", format!("{body:#}\n"))
        }
        "/metrics" => {
            let text = "# HELP card4e_locked Whether the server waits for its passphrase or PIN.\n\
                        # TYPE card4e_locked gauge\ncard4e_locked 1\n";
            Reply::new(StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        _ => acedata::panicked(incoming, &new_request_id()).2,
    }
}
