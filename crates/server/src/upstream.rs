//! Sends calls to providers: HTTP/1.1 over TCP or TLS, connections kept and used again on each core.
//!
//! What matters is to know whether a question has left. Before the first byte of it was handed to a
//! connection, any failure is [`NotAnswered::Unsent`]; after that it is [`NotAnswered::Unclear`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use engine::connector::Call;
use engine::provider::{Endpoint, Provider};
use engine::route::{NotAnswered, Received, Sending, Task, Transport};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// An answer has a few hundred bytes; more is read to here and no further.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// A connection that was not used for longer is not used again: the other side may just be closing it,
/// and a question sent then would be one that may have been charged.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// Idle connections kept for one provider on one core.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// One core's connections to providers; stays on its thread, within a `LocalSet`.
#[derive(Clone, Default)]
pub struct Upstream(Rc<Kept>);

#[derive(Default)]
struct Kept {
    idle: RefCell<HashMap<String, Vec<Idle>>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Transport for Upstream {
    fn run(&self, task: Task) {
        tokio::task::spawn_local(task);
    }

    fn send(&self, provider: &Arc<Provider>, call: Call, at_most: Duration) -> Sending {
        let (kept, provider) = (Rc::clone(&self.0), Arc::clone(provider));
        Box::pin(async move { exchange(&kept, &provider, &call, Instant::now() + at_most).await })
    }
}

async fn exchange(
    kept: &Kept,
    provider: &Provider,
    call: &Call,
    until: Instant,
) -> Result<Received, NotAnswered> {
    let request = request(provider, call).map_err(|wrong| NotAnswered::Unsent(wrong.to_string()))?;
    // A kept connection that turns out to be closed has taken nothing: a new one is made.
    while let Some(sender) = kept.take(&provider.name) {
        match sent(kept, provider, sender, request.clone(), until).await {
            Err(NotAnswered::Unsent(_)) => {}
            done => return done,
        }
    }
    let within = Duration::from_millis(provider.connect_timeout_ms.into());
    let within = within.min(until.saturating_duration_since(Instant::now()));
    let connected = timeout(within, connect(&provider.endpoint)).await;
    let sender = match connected {
        Ok(Ok(sender)) => sender,
        Ok(Err(why)) => return Err(NotAnswered::Unsent(format!("{why:#}"))),
        Err(_) => return Err(NotAnswered::Unsent("no connection in time".into())),
    };
    sent(kept, provider, sender, request, until).await
}

fn request(provider: &Provider, call: &Call) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(call.path)
        .header(header::HOST, provider.endpoint.authority())
        .header(header::USER_AGENT, "card4e");
    for (name, value) in &call.headers {
        let mut value = http::HeaderValue::try_from(value.as_str())?;
        value.set_sensitive(true);
        request = request.header(*name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(&call.body)))
}

async fn sent(
    kept: &Kept,
    provider: &Provider,
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    until: Instant,
) -> Result<Received, NotAnswered> {
    let unsent = |why: &str| Err(NotAnswered::Unsent(why.into()));
    if sender.ready().await.is_err() {
        return unsent("the connection was closed");
    }
    let left = until.saturating_duration_since(Instant::now());
    let reply = match timeout(left, sender.try_send_request(request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(mut failed)) => {
            // It comes back when nothing of it was taken.
            if failed.take_message().is_some() {
                return unsent("the connection was closed");
            }
            return Err(NotAnswered::Unclear(failed.error().to_string()));
        }
        Err(_) => return Err(NotAnswered::Unclear("no reply in time".into())),
    };
    let (head, body) = reply.into_parts();
    let left = until.saturating_duration_since(Instant::now());
    let body = match timeout(left, Limited::new(body, REPLY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(broken)) => return Err(NotAnswered::Unclear(broken.to_string())),
        Err(_) => return Err(NotAnswered::Unclear("half a reply in time".into())),
    };
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let received = Received { status: head.status.as_u16(), headers: headers.collect(), body: body.to_vec() };
    kept.put(&provider.name, sender);
    Ok(received)
}

impl Kept {
    fn take(&self, provider: &str) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        let of = idle.get_mut(provider)?;
        of.retain(|idle| idle.since.elapsed() < IDLE_MAX && !idle.sender.is_closed());
        of.pop().map(|idle| idle.sender)
    }

    fn put(&self, provider: &str, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.borrow_mut();
        let of = idle.entry(provider.to_owned()).or_default();
        if !sender.is_closed() && of.len() < IDLE_CONNECTIONS_MAX {
            of.push(Idle { sender, since: Instant::now() });
        }
    }
}

async fn connect(endpoint: &Endpoint) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    let _ = socket.set_nodelay(true);
    if !endpoint.tls {
        return begun(socket).await;
    }
    let config = trusting(endpoint.ca.as_deref())?;
    let name = ServerName::try_from(endpoint.host.clone())?;
    begun(TlsConnector::from(config).connect(name, socket).await?).await
}

async fn begun(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(socket)).await?;
    // A connection that breaks tells whoever waits for a reply on it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// Where systems keep the CAs they trust.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS that trusts the CAs of a file, or those of the system; read once.
///
/// # Errors
/// There is no such file, or no CA in it.
pub fn trusting(ca: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    type Known = Mutex<HashMap<PathBuf, Arc<ClientConfig>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let path = match ca {
        Some(ca) => ca.to_owned(),
        None => {
            let found = SYSTEM_CAS.iter().map(Path::new).find(|path| path.exists());
            found.context("this system has no CA bundle; set `ca` to a PEM file")?.to_owned()
        }
    };
    let mut known = KNOWN.get_or_init(Known::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = known.get(&path) {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    let shown = path.display();
    let certificates =
        CertificateDer::pem_file_iter(&path).with_context(|| format!("cannot read {shown}"))?;
    for certificate in certificates {
        // A system's bundle may hold a few that rustls does not take.
        let _ = roots.add(certificate.with_context(|| format!("{shown} is no PEM file"))?);
    }
    ensure!(!roots.is_empty(), "{shown} has no CA that can be used");
    let config = with_roots(roots)?;
    known.insert(path, Arc::clone(&config));
    Ok(config)
}

/// TLS that trusts no CA, for where none is spoken.
pub fn trusting_nobody() -> anyhow::Result<Arc<ClientConfig>> {
    with_roots(RootCertStore::empty())
}

fn with_roots(roots: RootCertStore) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
