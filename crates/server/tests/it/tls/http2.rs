//! HTTP/2 by ALPN: `:authority` instead of `Host`, many questions on one connection, bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, Version};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{SAMPLE, Secured, proof};

/// One connection.
struct Connection {
    sender: SendRequest<Bytes>,
    ended: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    async fn open(secured: &Secured) -> Connection {
        let mut config = (*secured.client().0).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = TcpStream::connect(&secured.sandbox.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        Connection { sender, ended: tokio::spawn(connection) }
    }

    async fn send(&self, request: Request<()>, body: &[u8]) -> Result<Response<RecvStream>, h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        response.await
    }

    async fn ask(&self, authority: &str) -> Result<Value, h2::Error> {
        let response = self.send(question(authority), SAMPLE.as_bytes()).await?;
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        let body = whole(response.into_body()).await?;
        Ok(serde_json::from_slice(&body).unwrap())
    }

    async fn control(&self, method: Method, what: &str, body: &str, authority: &str) -> Value {
        let target = format!("https://{authority}/_sandbox/{what}");
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        let response = self.send(request, body.as_bytes()).await.unwrap();
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&whole(response.into_body()).await.unwrap()).unwrap()
    }
}

/// The sample, signed for what goes into `:authority`; no `Host` at all.
fn question(authority: &str) -> Request<()> {
    let mut request = Request::builder().method(Method::POST).uri(format!("https://{authority}/"));
    for (name, value) in proof(authority) {
        request = request.header(name, value);
    }
    request.version(Version::HTTP_2).body(()).unwrap()
}

async fn whole(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() });
}

#[test]
fn the_authority_is_the_host_that_was_signed() {
    let secured = Secured::start();
    run(async {
        let connection = Connection::open(&secured).await;
        for authority in
            [&*secured.sandbox.address, "localhost", "faceid.verify.example.com", "LocalHost:4400"]
        {
            let reply = connection.ask(authority).await.unwrap();
            assert_eq!(reply["Response"]["Result"], "0", "{authority}: {reply}");
        }
        // Signed for one, sent to another.
        let mut request = question("localhost:4400");
        *request.uri_mut() = "https://elsewhere.example.com/".parse().unwrap();
        let response = connection.send(request, SAMPLE.as_bytes()).await.unwrap();
        let reply: Value = serde_json::from_slice(&whole(response.into_body()).await.unwrap()).unwrap();
        assert_eq!(reply["Response"]["Error"]["Code"], "AuthFailure.SignatureFailure");
        // A `Host` beside it does not count.
        let mut request = question("localhost:4400");
        request.headers_mut().insert("host", "elsewhere.example.com".parse().unwrap());
        let response = connection.send(request, SAMPLE.as_bytes()).await.unwrap();
        let reply: Value = serde_json::from_slice(&whole(response.into_body()).await.unwrap()).unwrap();
        assert_eq!(reply["Response"]["Result"], "0", "{reply}");
    });
}

#[test]
fn many_questions_on_one_connection() {
    let secured = Secured::start();
    run(async {
        let connection = Arc::new(Connection::open(&secured).await);
        let address = secured.sandbox.address.clone();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (connection, address) = (Arc::clone(&connection), address.clone());
            asked.spawn(async move { connection.ask(&address).await.unwrap() });
        }
        let mut ids = std::collections::HashSet::new();
        while let Some(reply) = asked.join_next().await {
            let reply = reply.unwrap();
            assert_eq!(reply["Response"]["Result"], "0");
            ids.insert(reply["Response"]["RequestId"].as_str().unwrap().to_owned());
        }
        assert_eq!(ids.len(), 300);
        let ledger = connection.control(Method::GET, "ledger", "", &address).await;
        assert_eq!((&ledger["records"], &ledger["charges"]), (&300.into(), &300.into()));
    });
}

#[test]
fn a_dropped_or_cut_reply_resets_its_stream_alone() {
    let secured = Secured::start();
    run(async {
        let connection = Connection::open(&secured).await;
        let address = &secured.sandbox.address;
        for effect in [r#"{"drop":"after"}"#, r#"{"truncate":10}"#] {
            let rule = format!(r#"{{"count":1,"effect":{effect}}}"#);
            connection.control(Method::POST, "faults", &rule, address).await;
            let error = connection.ask(address).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{effect}: {error}");
            assert_eq!(connection.ask(address).await.unwrap()["Response"]["Result"], "0", "{effect}");
        }
    });
}

#[test]
fn a_body_that_is_too_long_or_does_not_come() {
    let secured = Secured::set("[http]\nbody_seconds = 1\n", "", None);
    run(async {
        let connection = Connection::open(&secured).await;
        let address = &secured.sandbox.address;
        // 11 MB; as much as the windows let through at a time.
        let mut sender = connection.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(question(address), false).unwrap();
        let mut left = 11 << 20;
        stream.reserve_capacity(left);
        while left > 0 {
            let Some(given) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
                break;
            };
            let part = given.unwrap().min(left);
            left -= part;
            stream.send_data(Bytes::from(vec![b' '; part]), left == 0).unwrap();
        }
        let reply = whole(response.await.unwrap().into_body()).await.unwrap();
        assert!(String::from_utf8(reply).unwrap().contains("RequestSizeLimitExceeded"));
        // Nothing comes.
        let began = Instant::now();
        let mut sender = connection.sender.clone().ready().await.unwrap();
        let (response, _stream) = sender.send_request(question(address), false).unwrap();
        let reply = whole(response.await.unwrap().into_body()).await.unwrap();
        assert!(
            String::from_utf8(reply).unwrap().contains("The body did not arrive completely")
                || began.elapsed() >= Duration::from_secs(1)
        );
        assert_eq!(connection.ask(address).await.unwrap()["Response"]["Result"], "0");
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let secured = Secured::set("[http]\nhead_seconds = 1\n", "", None);
    run(async {
        let connection = Connection::open(&secured).await;
        let address = &secured.sandbox.address;
        // One answer takes longer than an idle connection may live.
        let rule = r#"{"count":1,"effect":{"delay_ms":2500}}"#;
        connection.control(Method::POST, "faults", rule, address).await;
        assert_eq!(connection.ask(address).await.unwrap()["Response"]["Result"], "0");
        let Connection { sender, ended } = connection;
        // Told to go; a last word of the client's own may find nobody there.
        let ended = ended.await.unwrap();
        assert!(ended.as_ref().is_ok() || ended.as_ref().is_err_and(h2::Error::is_io), "{ended:?}");
        drop(sender);
    });
}

#[test]
fn requests_under_way_are_answered_at_the_end() {
    let secured = Secured::start();
    run(async {
        let connection = Connection::open(&secured).await;
        let address = secured.sandbox.address.clone();
        connection
            .control(Method::POST, "faults", r#"{"count":1,"effect":{"delay_ms":700}}"#, &address)
            .await;
        let pid = secured.sandbox.pid().to_string();
        let asked = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap()
        };
        let (reply, _) = tokio::join!(connection.ask(&address), asked);
        assert_eq!(reply.unwrap()["Response"]["Result"], "0");
    });
}

#[test]
fn a_client_without_alpn_gets_http1() {
    let secured = Secured::start();
    secured.client().passes(&secured.sandbox);
}
