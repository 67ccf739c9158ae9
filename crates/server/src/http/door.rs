//! The door of a connection whose core is late: a question is refused here for a fraction of what hyper and
//! the fronts need to refuse it, so that the core can answer others meanwhile.
//!
//! It knows plain requests of HTTP/1.1, as SDKs send them. Whatever else comes, and whoever is not refused,
//! is handed on as it was read.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::Incoming;

use super::{Place, Reply, Rewound, is_ambiguous, keeps_alive};
use crate::front::{Core, refuse_late};

/// For so many times the wait that is too long nothing is read from who was refused.
const PAUSE: u32 = 2;

/// What a request usually has.
const REQUEST_BYTES: usize = 2 << 10;

/// A longer request is handed on.
const REQUEST_MAX_BYTES: usize = 64 << 10;

const HEADERS_MAX: usize = 64;

/// Refuses questions until one is let in, the core is in time again, or the server stops; then gives the
/// connection back with what was read of it. `None`: it has ended.
pub async fn wait<S: AsyncRead + AsyncWrite + Unpin>(
    place: &Place,
    at: Rewound<S>,
    stopping: &mut watch::Receiver<bool>,
) -> Option<Rewound<S>> {
    let core = &place.core;
    if !core.desk.is_late() {
        return Some(at);
    }
    let http = core.server.settings().http.clone();
    let patience = Duration::from_secs(http.head_seconds);
    // Who is refused and asks again at once waits in its own socket: else a core could be busy with refusals alone.
    let pause = Duration::from_millis(http.late_ms_max) * PAUSE;
    let Rewound { read, mut socket } = at;
    let mut read = Vec::from(read);
    // As hyper counts it: from the end of the request before, whatever trickles in meanwhile.
    let mut until = Instant::now() + patience;
    while core.desk.is_late() {
        match asked(place, &read) {
            Asked::Refused { length, reply } => {
                read.drain(..length);
                let reply = written(core, &reply);
                let sent = async { socket.write_all(&reply).await.and(socket.flush().await) };
                tokio::time::timeout(patience, sent).await.ok()?.ok()?;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopping.wait_for(|stop| *stop) => break,
                }
                until = Instant::now() + patience;
            }
            Asked::Incomplete => {
                read.reserve(REQUEST_BYTES);
                let more = tokio::time::timeout_at(until, socket.read_buf(&mut read));
                let more = tokio::select! {
                    more = more => more,
                    _ = stopping.wait_for(|stop| *stop) => break,
                };
                // Also whoever has sent a part of it is too late.
                if more.ok()?.ok()? == 0 {
                    return None;
                }
            }
            Asked::ToBeLookedAt => break,
        }
    }
    Some(Rewound { read: Bytes::from(read), socket })
}

/// What stands at the beginning of what was read.
enum Asked {
    /// Less than a request.
    Incomplete,
    /// A question that is refused, of so many bytes.
    Refused { length: usize, reply: Reply },
    /// Anything else.
    ToBeLookedAt,
}

fn asked(place: &Place, read: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_length = match head.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if read.len() < REQUEST_MAX_BYTES => return Asked::Incomplete,
        _ => return Asked::ToBeLookedAt,
    };
    let Some((headers, body_length)) = plain(&head) else { return Asked::ToBeLookedAt };
    let length = head_length.saturating_add(body_length);
    if length > REQUEST_MAX_BYTES {
        return Asked::ToBeLookedAt;
    }
    let Some(body) = read.get(head_length..length) else { return Asked::Incomplete };
    let (path, query) =
        head.path.and_then(|target| target.split_once('?')).unwrap_or((head.path.unwrap_or_default(), ""));
    let incoming = Incoming { method: &Method::POST, path, query, headers: &headers, body };
    match refuse_late(&place.core, &incoming, place.was_forged.get()) {
        Some(reply) => Asked::Refused { length, reply },
        None => {
            place.let_in.set(true);
            Asked::ToBeLookedAt
        }
    }
}

/// The headers of a request whose end nobody can mistake, and how long its body is.
fn plain(head: &httparse::Request<'_, '_>) -> Option<(HeaderMap, usize)> {
    if head.method != Some("POST") || head.version != Some(1) {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(16);
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let unusual = [header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE];
    if is_ambiguous(&headers)
        || !keeps_alive(&headers)
        || unusual.iter().any(|name| headers.contains_key(name))
    {
        return None;
    }
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let length = length.bytes().all(|digit| digit.is_ascii_digit()).then(|| length.parse().ok())??;
    Some((headers, length))
}

/// A reply as it stands on the wire.
fn written(core: &Core, reply: &Reply) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512 + reply.body.len());
    let mut line = String::with_capacity(128);
    let now = Duration::from_millis(core.server.engine.clock.now_ms().unsigned_abs());
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + now);
    // Writing to memory does not fail.
    let _ =
        write!(line, "HTTP/1.1 {}\r\ncontent-length: {}\r\ndate: {date}\r\n", reply.status, reply.body.len());
    bytes.extend_from_slice(line.as_bytes());
    for (name, value) in &reply.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&reply.body);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::rc::Rc;
    use std::sync::{Arc, Mutex, RwLock};

    use engine::caller::Action;
    use engine::clock::Clock;
    use engine::issuer::Issuers;
    use engine::ledger::Credits;
    use engine::limit::AttemptPolicy;
    use engine::operator::By;
    use engine::register::{Issued, Kind, Wish};
    use engine::{Engine, Policy, Running, Seed};
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::runtime::LocalOptions;
    use tokio::sync::watch;
    use wire::tencent::signature::JsonPost;

    use super::*;
    use crate::config::Settings;
    use crate::front::{Server, envelopes};
    use crate::http::{Connection, body_room, connection_bound};
    use crate::telemetry::Metrics;

    const BODY: &str = r#"{"name":"张伟","bank_card":"6217000000000000012","id_card":"11010119610202001X","phone":"13800000001"}"#;

    /// No pause after a refusal; what is late is said by the test.
    const AT_ONCE: &str = "[http]\nlate_ms_max = 0\n";

    /// One core, and who asks it.
    struct Shop {
        core: Rc<Core>,
        stop: watch::Sender<bool>,
        noisy: [Issued; 2],
        quiet: [Issued; 2],
    }

    impl Shop {
        fn new(engine: &Arc<Engine>, settings: &str) -> Shop {
            let settings = Settings::parse(settings).unwrap();
            let server = Server {
                engine: Arc::clone(engine),
                settings: RwLock::new(Arc::new(settings)),
                metrics: Metrics::default(),
                sandbox: None,
                tls: None,
                envelopes: envelopes::Current::of_ring(),
                room: body_room(),
                connections: connection_bound(10),
                port: 0,
                diagnoses: Mutex::default(),
                guesses: crate::platform::password::Guesses::default(),
                checking: crate::console::Checking::default(),
                limiter: Arc::new(crate::limiter::Shared::new(None)),
            };
            let issued = |name: &str| {
                let acting = engine.acting(By::Machine);
                acting.create_caller(name, false, true, Credits::ZERO).unwrap();
                [Kind::Bearer, Kind::Signature].map(|kind| acting.issue(name, kind, Wish::default()).unwrap())
            };
            let core = Rc::new(Core::new(Arc::new(server)).unwrap());
            tokio::task::spawn_local({
                let core = Rc::clone(&core);
                async move { core.desk.carry_mail().await }
            });
            Shop { core, stop: watch::channel(false).0, noisy: issued("noisy"), quiet: issued("quiet") }
        }

        /// Found late so often that as much is refused as ever is: 950 of 1,000.
        fn is_late(&self) {
            let most = Duration::from_millis(250);
            (0..50).for_each(|_| self.core.desk.measured(most * 2, most));
        }

        fn is_in_time(&self) {
            (0..50).for_each(|_| self.core.desk.measured(Duration::ZERO, Duration::from_millis(250)));
        }

        fn connect(&self) -> DuplexStream {
            let (client, socket) = duplex(64 << 10);
            let (core, stopping) = (Rc::clone(&self.core), self.stop.subscribe());
            let mut connection = Connection { core, stopping, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) };
            tokio::task::spawn_local(async move { connection.serve_http1(socket).await });
            client
        }

        fn refusals(&self) -> u64 {
            let metrics =
                self.core.server.metrics.render(&self.core.server.engine, &self.core.server.limiter);
            let counts = metrics.lines().filter(|line| line.starts_with("card4e_refusals_total{"));
            counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        }
    }

    fn bearer(whose: &[Issued; 2]) -> Vec<u8> {
        let (token, length) = (&whose[0].secret, BODY.len());
        format!(
            "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{BODY}"
        )
        .into_bytes()
    }

    fn tc3(whose: &[Issued; 2], secret_key: &str) -> Vec<u8> {
        let body = r#"{"Name":"张伟","BankCard":"6217000000000000012","IdCard":"11010119610202001X","Phone":"13800000001"}"#;
        let timestamp = Clock::default().now_ms().div_euclid(1000);
        let post = JsonPost { host: "h", action: "BankCard4EVerification", body: body.as_bytes(), timestamp };
        post.to_http1(whose[1].secret_id.as_ref().unwrap(), secret_key, &[])
    }

    /// Status, head and body of the next reply.
    async fn reply(client: &mut DuplexStream) -> (u16, String, Value) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        client.read_exact(&mut body).await.unwrap();
        (head[9..12].parse().unwrap(), head, serde_json::from_slice(&body).unwrap())
    }

    async fn ask(client: &mut DuplexStream, request: &[u8]) -> (u16, String, Value) {
        client.write_all(request).await.unwrap();
        reply(client).await
    }

    /// How many of so many are refused.
    async fn refused(client: &mut DuplexStream, request: &[u8], questions: u32) -> u32 {
        let mut refused = 0;
        for _ in 0..questions {
            refused += u32::from(ask(client, request).await.0 == 429);
        }
        refused
    }

    fn on_one_core(settings: &str, test: impl AsyncFnOnce(&Shop)) {
        let folder = tempfile::tempdir().unwrap();
        let policy = Policy {
            requests_per_second: [0; Action::ALL.len()],
            attempts: AttemptPolicy::OFF,
            log_bytes: 0,
            ..Policy::default()
        };
        let running: Running =
            Engine::open(folder.path(), &[9; 32], policy, Issuers::built_in(), Seed::nobody(), None).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async { test(&Shop::new(&running.engine, settings)).await });
        drop(runtime);
        running.stop();
    }

    #[test]
    fn who_asks_most_is_refused_and_who_asks_little_is_answered() {
        on_one_core(AT_ONCE, async |shop| {
            let (mut noisy, mut quiet) = (shop.connect(), shop.connect());
            assert_eq!(refused(&mut noisy, &bearer(&shop.noisy), 100).await, 0);
            shop.is_late();
            assert_eq!(refused(&mut noisy, &bearer(&shop.noisy), 1000).await, 950);
            assert_eq!(refused(&mut quiet, &bearer(&shop.quiet), 100).await, 0);
            let answers = shop.core.server.engine.totals().answers;
            assert_eq!(answers, 250, "each that was answered is in the ledger, no other");
            assert_eq!(shop.refusals(), 950);
            shop.is_in_time();
            assert_eq!(refused(&mut noisy, &bearer(&shop.noisy), 100).await, 0);
        });
    }

    #[test]
    fn it_refuses_in_the_words_of_the_wire() {
        on_one_core(AT_ONCE, async |shop| {
            shop.is_late();
            let mut client = shop.connect();
            // One in twenty is let in: not the next ones.
            refused(&mut client, &bearer(&shop.noisy), 101).await;
            let (status, head, body) = ask(&mut client, &bearer(&shop.noisy)).await;
            assert_eq!((status, &body["error"]["code"]), (429, &"too_many_requests".into()));
            assert!(
                head.contains(&format!("x-trace-id: {}\r\n", body["trace_id"].as_str().unwrap())),
                "{head}"
            );
            assert!(head.contains("retry-after: 1\r\n") && head.contains("\r\ndate: "), "{head}");
            let (status, head, body) = ask(&mut client, &tc3(&shop.noisy, &shop.noisy[1].secret)).await;
            let body = &body["Response"];
            assert_eq!((status, &body["Error"]["Code"]), (200, &"ServiceUnavailable".into()));
            assert!(
                head.contains(&format!("x-tc-requestid: {}\r\n", body["RequestId"].as_str().unwrap())),
                "{head}"
            );
        });
    }

    #[test]
    fn a_forged_claim_is_worth_nothing() {
        on_one_core(AT_ONCE, async |shop| {
            shop.is_late();
            let (mut noisy, mut forger, mut quiet) = (shop.connect(), shop.connect(), shop.connect());
            refused(&mut noisy, &bearer(&shop.noisy), 1000).await;
            let forged = tc3(&shop.quiet, "not the secret");
            let mut codes = Vec::new();
            for _ in 0..100 {
                let (.., body) = ask(&mut forger, &forged).await;
                codes.push(body["Response"]["Error"]["Code"].as_str().unwrap().to_owned());
            }
            assert_eq!(codes[0], "AuthFailure.SignatureFailure", "looked at once");
            let refused_at_the_door = codes.iter().filter(|code| *code == "ServiceUnavailable").count();
            assert!(refused_at_the_door >= 94, "{codes:?}");
            assert_eq!(refused(&mut quiet, &bearer(&shop.quiet), 20).await, 0);
        });
    }

    #[test]
    fn the_end_of_a_request_is_never_mistaken() {
        on_one_core(AT_ONCE, async |shop| {
            let mut client = shop.connect();
            let request = bearer(&shop.noisy);
            assert_eq!(ask(&mut client, &request).await.0, 200);
            shop.is_late();
            // Two and a half at once, on a connection that is hyper's, then the rest: three replies.
            let [half, rest] = [&request[..request.len() / 2], &request[request.len() / 2..]];
            for _ in 0..20 {
                client.write_all(&[&request[..], &request, half].concat()).await.unwrap();
                reply(&mut client).await;
                reply(&mut client).await;
                assert!([200, 429].contains(&ask(&mut client, rest).await.0));
            }
            // What could be read in two ways is answered as ever, and ends the connection.
            let chunked =
                b"POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
                Content-Length: 5\r\n\r\n0\r\n\r\n";
            let (status, head, _) = ask(&mut client, chunked).await;
            assert!(status >= 400 && head.contains("connection: close"), "{status} {head}");
            let mut other = shop.connect();
            other.write_all(b"no request at all\r\n\r\n").await.unwrap();
            let mut all = String::new();
            other.read_to_string(&mut all).await.unwrap();
            assert!(all.starts_with("HTTP/1.1 400"), "{all}");
        });
    }

    #[test]
    fn what_trickles_in_ends() {
        on_one_core("[http]\nlate_ms_max = 0\nhead_seconds = 1\n", async |shop| {
            shop.is_late();
            let mut client = shop.connect();
            for byte in b"POST / HTTP/1.1\r\nHost: h\r\nX-Slow: ".iter().cycle() {
                if client.write_u8(*byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}
