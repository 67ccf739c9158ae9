//! Sockets to requests and back: one thread and one runtime per core, sockets handed out in turn.
//!
//! Knows bounds and deadlines, no protocol of ours: what a request means is `front`'s.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::caller::Credential;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming as HyperBody, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::unconstrained;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::front::{Core, Server};
use crate::tls::{self, Tls};

/// No wire takes more than this; Tencent's limit for signed JSON is 10 MB.
pub const BODY_MAX_BYTES: usize = wire::tencent::TC3_BODY_MAX_BYTES;

/// A refused body is still read to here, so that a client that is busy sending gets to see why.
const DRAIN_MAX_BYTES: usize = 64 << 20;

/// A request with its body read.
pub struct Received {
    /// Method, target, headers.
    pub head: http::request::Parts,
    /// What there is of the body.
    pub body: Result<Bytes, BodyError>,
    /// When its head had arrived.
    pub began: Instant,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
    /// Whose question it is, where that is known without a token: one that is tried in the console.
    pub asker: Option<Arc<Credential>>,
    _held: Held,
}

impl Received {
    /// A request that this server makes of itself.
    pub fn inner(
        head: http::request::Parts,
        body: Vec<u8>,
        peer: IpAddr,
        asker: Option<Arc<Credential>>,
    ) -> Received {
        Received { head, body: Ok(body.into()), began: Instant::now(), peer, asker, _held: None }
    }
}

/// The room a body takes, given back with the request.
type Held = Option<OwnedSemaphorePermit>;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Longer than any wire takes.
    TooLarge,
    /// Not there in time, or broken off.
    Incomplete,
    /// Too many bytes of other bodies are being held.
    NoRoom,
}

/// What goes back, and how well.
pub struct Reply {
    /// Status line.
    pub status: StatusCode,
    /// Headers, each name once; length and date are added.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// How it is delivered; only the sandbox's fault rules make it anything but whole.
    pub delivery: Delivery,
}

/// How a reply leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Whole.
    #[default]
    Whole,
    /// The connection is closed instead.
    Dropped,
    /// So many bytes of the body, then the connection is closed.
    Truncated(usize),
}

impl Reply {
    /// A reply of this type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
        let mut headers = Vec::with_capacity(8);
        headers.push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        Reply { status, headers, body: body.into(), delivery: Delivery::Whole }
    }

    /// Sets a header whose value may not be one; then it is left out.
    pub fn header(&mut self, name: &'static str, value: impl fmt::Display) {
        self.set(&HeaderName::from_static(name), value.to_string());
    }

    /// The same for a name that need not be parsed.
    pub fn set(&mut self, name: &HeaderName, value: impl TryInto<HeaderValue>) {
        let Ok(value) = value.try_into() else { return };
        match self.headers.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.headers.push((name.clone(), value)),
        }
    }
}

/// A listener that nobody shares.
///
/// Without `SO_REUSEPORT` on purpose: a second sandbox on the same port must fail, not take every
/// other request.
pub fn listen(at: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(at).with_context(|| {
        format!("cannot listen on {at}; choose another with --listen ADDR:PORT (port 0 is any free one)")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Threads that serve until they are told to stop.
pub struct Cores {
    senders: Vec<mpsc::UnboundedSender<std::net::TcpStream>>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Cores {
    /// Starts `count` threads.
    pub fn start(server: &Arc<Server>, count: usize) -> anyhow::Result<Cores> {
        let (stop, stopping) = watch::channel(false);
        let mut cores = Cores { senders: Vec::new(), threads: Vec::new(), stop };
        let (started, all_started) = std::sync::mpsc::channel();
        for number in 0..count {
            let (sender, sockets) = mpsc::unbounded_channel();
            let (server, stopping) = (Arc::clone(server), stopping.clone());
            let started = started.clone();
            let run = move || serve_core(server, sockets, stopping, &started);
            let thread = std::thread::Builder::new().name(format!("card4e-core-{number}")).spawn(run)?;
            cores.senders.push(sender);
            cores.threads.push(thread);
        }
        // A core that cannot start would drop every socket that is handed to it.
        drop(started);
        all_started.iter().take(count).collect::<anyhow::Result<()>>()?;
        Ok(cores)
    }

    /// Accepts and hands out sockets in turn until `until` is ready, then drains.
    pub async fn accept(
        mut self,
        server: &Arc<Server>,
        listener: std::net::TcpListener,
        until: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        if let Some(tls) = server.tls.clone() {
            tokio::spawn(async move { tls.watch().await });
        }
        let mut until = pin!(until);
        for turn in 0.. {
            let next = async {
                // Taken before accepting: what is too much waits in the kernel's queue.
                let permit = Arc::clone(&server.connections).acquire_owned().await;
                (listener.accept().await, permit)
            };
            tokio::select! {
                () = &mut until => break,
                (accepted, permit) = next => match accepted {
                    Ok((socket, _)) => {
                        // Given back by the connection's end; see `Connection`.
                        permit.into_iter().for_each(tokio::sync::OwnedSemaphorePermit::forget);
                        self.hand_out(turn, socket);
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: wait for some to be closed.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        self.stop.send_replace(true);
        self.senders.clear();
        tokio::task::spawn_blocking(move || self.threads.into_iter().for_each(|thread| drop(thread.join())))
            .await?;
        Ok(())
    }

    fn hand_out(&self, turn: usize, socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        if let Ok(socket) = socket.into_std() {
            // A core that has ended is one that is being stopped.
            let _ = self.senders[turn % self.senders.len()].send(socket);
        }
    }
}

fn serve_core(
    server: Arc<Server>,
    mut sockets: mpsc::UnboundedReceiver<std::net::TcpStream>,
    stopping: watch::Receiver<bool>,
    started: &std::sync::mpsc::Sender<anyhow::Result<()>>,
) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let opened = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| Ok((runtime, Core::new(Arc::clone(&server))?)));
    let (runtime, core) = match opened {
        Ok((runtime, core)) => (runtime, Rc::new(core)),
        Err(error) => return drop(started.send(Err(error.context("a core cannot start")))),
    };
    runtime.spawn_local({
        let core = Rc::clone(&core);
        async move { core.limiter.keep_connected().await }
    });
    runtime.block_on(core.limiter.tried());
    // Whoever started it waits for it.
    let _ = started.send(Ok(()));
    runtime.spawn_local({
        let core = Rc::clone(&core);
        async move { core.desk.carry_mail().await }
    });
    runtime.spawn_local(measure_lateness(Rc::clone(&core)));
    runtime.block_on(async {
        let mut connections = tokio::task::JoinSet::new();
        while let Some(socket) = sockets.recv().await {
            // One that is gone already has no address any more.
            let peer = socket.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
            let connection = Connection { core: Rc::clone(&core), stopping: stopping.clone(), peer };
            connections.spawn_local(connection.serve(socket));
            while connections.try_join_next().is_some() {}
        }
        let drain = Duration::from_secs(server.settings().http.drain_seconds);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!("some connections were still busy and are closed");
        }
    });
}

/// How often a core looks how far behind it is.
const LATENESS_EVERY: Duration = Duration::from_millis(20);

/// Measures, for ever, how long something that is ready waits for its turn on this core: everything that
/// became ready before it goes first.
async fn measure_lateness(core: Rc<Core>) {
    loop {
        let asleep = Instant::now();
        tokio::time::sleep(LATENESS_EVERY).await;
        // The timer itself is looked at only once in a turn.
        let overslept = asleep.elapsed().saturating_sub(LATENESS_EVERY);
        let ready = Instant::now();
        tokio::task::yield_now().await;
        // A sandbox refuses nothing of its own accord: whoever tests against it wants the same each time.
        let most = if core.server.sandbox.is_some() { 0 } else { core.server.settings().http.late_ms_max };
        let most = Duration::from_millis(most);
        core.desk.measured(overslept.max(ready.elapsed()), most);
    }
}

/// One connection; counts itself while it lives.
struct Connection {
    core: Rc<Core>,
    stopping: watch::Receiver<bool>,
    peer: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.core.server.connections.add_permits(1);
        self.core.server.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    async fn serve(mut self, socket: std::net::TcpStream) {
        self.core.server.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(socket) = TcpStream::from_std(socket) else { return };
        let Some(tls) = self.core.server.tls.as_deref() else { return self.serve_http1(socket).await };
        let handshake = shake_hands(tls, socket);
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.head_deadline(), handshake) => shaken.ok().flatten(),
            _ = self.stopping.wait_for(|stop| *stop) => return,
        };
        match shaken {
            None => _ = self.core.server.metrics.handshakes_failed.fetch_add(1, Ordering::Relaxed),
            Some(socket) if socket.get_ref().1.alpn_protocol() == Some(tls::H2) => {
                self.serve_http2(socket).await;
            }
            Some(socket) => self.serve_http1(socket).await,
        }
    }

    fn head_deadline(&self) -> Duration {
        Duration::from_secs(self.core.server.settings().http.head_seconds)
    }

    async fn serve_http1(&mut self, socket: impl AsyncRead + AsyncWrite + Unpin) {
        let (core, peer, stopping) = (Rc::clone(&self.core), self.peer, self.stopping.clone());
        // The future of a request is large: on the heap, because hyper moves it twice, and at one place for all
        // requests of a connection, because they come one after the other.
        let place = Rc::new(RefCell::new(Box::pin(None)));
        let was_asked = Rc::new(Cell::new(false));
        let asked = Rc::clone(&was_asked);
        let service = service_fn(move |request| {
            asked.set(true);
            let response = respond(Rc::clone(&core), peer, stopping.clone(), request);
            place.borrow_mut().as_mut().set(Some(response));
            let place = Rc::clone(&place);
            poll_fn(move |context| {
                let mut place = place.borrow_mut();
                let response =
                    place.as_mut().as_pin_mut().map_or(Poll::Pending, |response| response.poll(context));
                if response.is_ready() {
                    place.as_mut().set(None);
                }
                response
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_deadline())
            .max_buf_size(256 << 10)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let told = self.stopping.clone();
        // Not bounded by the turn's budget: one that is used up would be no waiting.
        let mut stop = pin!(unconstrained(self.stopping.wait_for(|stop| *stop)));
        let mut waits = false;
        let is_over = poll_fn(|context| {
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            // Waiting for the end once is enough: it wakes this task whenever it comes.
            let is_news = !std::mem::replace(&mut waits, true) || !matches!(told.has_changed(), Ok(false));
            if is_news { stop.as_mut().poll(context).map(|_| false) } else { Poll::Pending }
        });
        // A connection that breaks is the client's affair; there is nobody left to tell.
        // Nor is there to whoever has not even sent the head of a first request: a stop does not wait for the rest.
        if !is_over.await && was_asked.get() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }

    async fn serve_http2(&mut self, socket: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let (core, peer, stopping) = (Rc::clone(&self.core), self.peer, self.stopping.clone());
        let head_deadline = self.head_deadline();
        let activity = Rc::new(Activity::default());
        let service = service_fn({
            let activity = Rc::clone(&activity);
            move |request| {
                let (core, under_way) = (Rc::clone(&core), UnderWay::of(&activity));
                let stopping = stopping.clone();
                async move {
                    let response = respond(core, peer, stopping, request).await;
                    drop(under_way);
                    response
                }
            }
        });
        let connection = http2::Builder::new(OnThisCore)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_MAX_BYTES)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.stopping.wait_for(|stop| *stop) => {}
            () = activity.ended(head_deadline) => {}
        }
        // What is under way is answered, new requests go to a new connection.
        connection.as_mut().graceful_shutdown();
        activity.last.set(Instant::now());
        tokio::select! {
            _ = connection => {}
            () = activity.ended(head_deadline) => {}
        }
    }
}

/// HTTP/2: requests at once on one connection. Each may hold a body, so it is a bound on memory.
const STREAMS_MAX: u32 = 100;

/// HTTP/2: a request's head; GET requests carry everything in it.
const HEADERS_MAX_BYTES: u32 = 128 << 10;

/// The TLS handshake, or `None` and whatever can be told to the client.
pub async fn shake_hands(tls: &Tls, mut socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE => TlsAcceptor::from(tls.current()).accept(socket).await.ok(),
        Ok(1) if first[0].is_ascii_uppercase() => {
            refuse_plain(&mut socket).await;
            None
        }
        _ => None,
    }
}

/// Tells a client that speaks plain HTTP what is wrong; nothing it sends is looked at.
async fn refuse_plain(socket: &mut TcpStream) {
    const REPLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 88\r\n\
        Connection: close\r\n\r\nThis port speaks TLS: use https. What was sent here went over the network in the clear.\n";
    let told = socket.write_all(REPLY).await.is_ok() && socket.shutdown().await.is_ok();
    let mut rest = [0; 4096];
    // Closed with something unread, the connection would be reset before the reply is seen.
    let mut left = if told { REFUSED_MAX_BYTES } else { 0 };
    while left > 0 {
        match socket.read(&mut rest).await {
            Ok(read) if read > 0 => left = left.saturating_sub(read),
            _ => break,
        }
    }
}

/// What a client that is refused may still send.
const REFUSED_MAX_BYTES: usize = 1 << 20;

/// Runs the parts of an HTTP/2 connection on the thread that has it.
#[derive(Clone, Copy)]
pub struct OnThisCore;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, part: F) {
        tokio::task::spawn_local(part);
    }
}

/// Whether an HTTP/2 connection is in use. Over HTTP/1.1 hyper itself closes a connection whose next
/// head does not come.
struct Activity {
    under_way: Cell<u32>,
    last: Cell<Instant>,
}

impl Default for Activity {
    fn default() -> Self {
        Activity { under_way: Cell::new(0), last: Cell::new(Instant::now()) }
    }
}

impl Activity {
    /// Ready when nothing has been under way for so long.
    async fn ended(&self, idle: Duration) {
        loop {
            let quiet = if self.under_way.get() > 0 { Duration::ZERO } else { self.last.get().elapsed() };
            if quiet >= idle {
                return;
            }
            tokio::time::sleep(idle - quiet).await;
        }
    }
}

/// One request of a connection; one that is reset is dropped like one that is answered.
struct UnderWay(Rc<Activity>);

impl UnderWay {
    fn of(connection: &Rc<Activity>) -> UnderWay {
        connection.under_way.set(connection.under_way.get() + 1);
        UnderWay(Rc::clone(connection))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.last.set(Instant::now());
    }
}

/// Makes hyper close the connection without an answer.
#[derive(Debug)]
pub struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped on request")
    }
}

impl std::error::Error for Dropped {}

async fn respond(
    core: Rc<Core>,
    peer: IpAddr,
    stopping: watch::Receiver<bool>,
    request: Request<HyperBody>,
) -> Result<Response<Outgoing>, Dropped> {
    let began = Instant::now();
    let is_ambiguous = request.version() != Version::HTTP_2 && is_ambiguous(request.headers());
    let deadline = Duration::from_secs(core.server.settings().http.body_seconds);
    let (mut head, body) = request.into_parts();
    if head.version == Version::HTTP_2 {
        name_host(&mut head);
    }
    let mut response = if crate::front::is_streamed(&head) {
        // On the heap: each question's future would have room for it.
        Box::pin(crate::front::stream(&core, Streamed { head, body, peer, stopping, deadline })).await
    } else {
        let mut held = None;
        let body = read_body(&head, body, deadline, &core.server.room, &mut held).await;
        let received = Received { head, body, began, peer, asker: None, _held: held };
        crate::front::answer(&core, &received).await.to(received)?
    };
    if is_ambiguous {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Whether a proxy before us may have read the end of this request, or whom it is for, otherwise than we do:
/// what it takes for the next request, or for the rest of this one, is not to be looked at.
fn is_ambiguous(headers: &HeaderMap) -> bool {
    let repeats = headers.len() != headers.keys_len();
    let several = |name| repeats && headers.get_all(name).iter().nth(1).is_some();
    let coding = headers.get(header::TRANSFER_ENCODING);
    let is_coded = coding.is_some();
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    several(header::HOST)
        || several(header::CONTENT_LENGTH)
        || several(header::TRANSFER_ENCODING)
        || is_coded && headers.contains_key(header::CONTENT_LENGTH)
        || coding.is_some_and(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        || host.iter().any(|byte| !byte.is_ascii_graphic())
}

/// A request whose body is read while its reply is written.
pub struct Streamed {
    /// Method, target, headers.
    pub head: http::request::Parts,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
    body: HyperBody,
    stopping: watch::Receiver<bool>,
    deadline: Duration,
}

/// What comes next in a streamed body.
pub enum Part {
    /// Some bytes.
    Bytes(Bytes),
    /// That was all.
    End,
    /// Nothing came in time, or the connection broke.
    Broken,
    /// The server stops.
    Stopping,
}

impl Streamed {
    /// The next part; to be asked for when the one before it is dealt with, so that a client sends no
    /// faster than it is answered.
    pub async fn next(&mut self) -> Part {
        loop {
            let frame = tokio::time::timeout(self.deadline, self.body.frame());
            let frame = tokio::select! {
                frame = frame => frame,
                _ = self.stopping.wait_for(|stop| *stop) => return Part::Stopping,
            };
            match frame {
                Ok(None) => return Part::End,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Part::Bytes(data),
                    _ => {}
                },
                Ok(Some(Err(_))) | Err(_) => return Part::Broken,
            }
        }
    }
}

/// A connection keeps room for so many headers between its requests; more is asked for again.
const HEADERS_KEPT: usize = 48;

impl Reply {
    /// As the response to a request.
    fn to(self, received: Received) -> Result<Response<Outgoing>, Dropped> {
        let cut = match self.delivery {
            Delivery::Dropped => return Err(Dropped),
            Delivery::Whole => None,
            Delivery::Truncated(bytes) => Some(bytes.min(self.body.len())),
        };
        let mut headers = received.head.headers;
        if headers.capacity() > HEADERS_KEPT {
            return Ok(self.into_response(cut, HeaderMap::with_capacity(8)));
        }
        // hyper reads the next request's head into the map of this response: this one has room for it.
        headers.clear();
        Ok(self.into_response(cut, headers))
    }

    fn into_response(self, cut: Option<usize>, mut headers: HeaderMap) -> Response<Outgoing> {
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        let whole = Whole { body: self.body, cut, sent: false, flushed: false };
        Reply::response(self.status, headers, Outgoing::Whole(whole))
    }

    /// As it is, for a streamed request that is refused.
    pub fn whole(self) -> Response<Outgoing> {
        self.into_response(None, HeaderMap::with_capacity(8))
    }

    /// A reply whose body is what `parts` brings, part by part.
    pub fn streaming(content_type: &'static str, parts: mpsc::Receiver<Bytes>) -> Response<Outgoing> {
        let reply = Reply::new(StatusCode::OK, content_type, Bytes::new());
        Reply::response(reply.status, reply.headers.into_iter().collect(), Outgoing::Parts(parts))
    }

    fn response(status: StatusCode, headers: HeaderMap, body: Outgoing) -> Response<Outgoing> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// HTTP/2 says in `:authority` what `Host` was; signatures cover it.
fn name_host(head: &mut http::request::Parts) {
    let authority = head.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(host) = authority.and_then(|host| HeaderValue::from_maybe_shared(Bytes::from(host)).ok()) {
        head.headers.insert(header::HOST, host);
    }
}

async fn read_body(
    head: &http::request::Parts,
    body: HyperBody,
    deadline: Duration,
    room: &Arc<Semaphore>,
    held: &mut Held,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = body.size_hint().lower();
    if announced > BODY_MAX_BYTES as u64 && head.headers.contains_key(header::EXPECT) {
        // The client asks first (`100-continue`): it is told before it sends anything.
        return Err(BodyError::TooLarge);
    }
    let read = async {
        let mut body = pin!(body);
        let mut whole = Vec::with_capacity(announced.min(64 << 10) as usize);
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyError::Incomplete)?;
            let Ok(data) = frame.into_data() else { continue };
            seen += data.len();
            if seen > DRAIN_MAX_BYTES {
                break;
            }
            if seen <= BODY_MAX_BYTES {
                take_room(seen, room, held)?;
                whole.extend_from_slice(&data);
            }
        }
        if seen > BODY_MAX_BYTES { Err(BodyError::TooLarge) } else { Ok(Bytes::from(whole)) }
    };
    let mut read = pin!(read);
    // Nearly always it came with the head, and no timer is needed.
    let arrived = poll_fn(|context| match read.as_mut().poll(context) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending => Poll::Ready(None),
    });
    match arrived.await {
        Some(read) => read,
        None => tokio::time::timeout(deadline, read).await.unwrap_or(Err(BodyError::Incomplete)),
    }
}

/// Takes room for so many bytes of a body in all, in addition to what it holds already.
fn take_room(bytes: usize, room: &Arc<Semaphore>, held: &mut Held) -> Result<(), BodyError> {
    let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = bytes.div_ceil(1024).saturating_sub(has);
    if more == 0 {
        return Ok(());
    }
    let taken = Arc::clone(room).try_acquire_many_owned(more as u32).map_err(|_| BodyError::NoRoom)?;
    match held {
        Some(held) => held.merge(taken),
        None => *held = Some(taken),
    }
    Ok(())
}

/// The body of a reply.
pub enum Outgoing {
    /// Known from the beginning.
    Whole(Whole),
    /// Becomes known while it is sent.
    Parts(mpsc::Receiver<Bytes>),
}

/// A body that is sent whole, or cut short on purpose.
pub struct Whole {
    body: Bytes,
    cut: Option<usize>,
    sent: bool,
    flushed: bool,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match self.get_mut() {
            Outgoing::Whole(whole) => whole.poll(context),
            Outgoing::Parts(parts) => {
                parts.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(whole) => whole.cut.is_none() && (whole.sent || whole.body.is_empty()),
            Outgoing::Parts(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // The whole length even when cut, so that the client notices.
            Outgoing::Whole(whole) => {
                SizeHint::with_exact(if whole.sent { 0 } else { whole.body.len() as u64 })
            }
            Outgoing::Parts(_) => SizeHint::default(),
        }
    }
}

impl Whole {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if std::mem::replace(&mut self.sent, true) {
            if self.cut.is_some() && !std::mem::replace(&mut self.flushed, true) {
                // One turn later, so that hyper sends the part before it closes the connection.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(self.cut.map(|_| Err(Dropped)));
        }
        let part = self.body.slice(..self.cut.unwrap_or(self.body.len()));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

/// Kibibytes of bodies that are held at once; a body is read before it is known whose it is.
const ROOM_KIB: usize = 256 << 10;

/// Room for the bodies of all requests.
pub fn body_room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM_KIB))
}

/// How many connections there may be.
pub fn connection_bound(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)))
}

/// Runs a future and turns a panic in it into an error.
pub fn guarded<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = Result<T, Box<dyn std::any::Any + Send>>> {
    poll_fn(move |context| {
        let polled = std::panic::AssertUnwindSafe(|| work.as_mut().poll(context));
        match std::panic::catch_unwind(polled) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
}
