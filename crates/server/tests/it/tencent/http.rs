//! HTTP as clients and proxies speak it, and what comes back when something goes wrong below.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::{Reply, Sandbox};

use super::client::{PASSED, SAMPLE, SAMPLE_MEMBERS, Signed, form, get, post, refused, said};

fn connect(sandbox: &Sandbox) -> TcpStream {
    let socket = TcpStream::connect(&sandbox.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn pass(sandbox: &Sandbox) {
    assert_eq!(post(SAMPLE).said(sandbox), PASSED);
}

#[test]
fn only_get_and_post() {
    let sandbox = Sandbox::start();
    for method in ["DELETE", "PUT", "PATCH", "OPTIONS", "BREW"] {
        let request = Signed { method: method.into(), ..post(SAMPLE).sign(&sandbox) };
        let message = "HTTP(S) 请求协议错误，只支持 `GET` 和 `POST` 请求。";
        assert_eq!(request.said(&sandbox), refused("UnsupportedProtocol", message), "{method}");
        assert_eq!(
            request.having("X-TC-Language", "en-US").said(&sandbox),
            refused("UnsupportedProtocol", "Only the HTTP methods `GET` and `POST` are supported.")
        );
    }
}

/// `HEAD` gets what a `GET` would, without its body.
#[test]
fn head_has_no_body() {
    let sandbox = Sandbox::start();
    let mut socket = connect(&sandbox);
    socket.write_all(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
}

/// Whatever the path: a client of this wire must not meet another wire's error.
#[test]
fn an_unknown_path() {
    let sandbox = Sandbox::start();
    let missing = refused("MissingParameter", "请求缺少必填参数 `Timestamp`。");
    for path in ["/v1/nowhere", "/identity/bankcard/check-4e", "/_sandbox/ledger", "/healthz"] {
        let headers = [("x-tc-action", "BankCard4EVerification"), ("content-type", "application/json")];
        assert_eq!(said(&sandbox.request("POST", path, &headers, b"{}")), missing, "{path}");
        assert_eq!(said(&sandbox.get(&format!("{path}?Action=BankCard4EVerification"))), missing, "{path}");
    }
}

/// A panic is the caller's affair as far as its code says: the request was understood, or it was not.
#[test]
fn a_panic_is_answered() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":4,"effect":{"panic":true}}"#);
    let unknown = refused("FailedOperation.UnKnown", "内部未知错误。");
    assert_eq!(post(SAMPLE).said(&sandbox), unknown);
    assert_eq!(
        post(SAMPLE).english().said(&sandbox),
        refused("FailedOperation.UnKnown", "Unknown internal error.")
    );
    assert_eq!(form(&SAMPLE_MEMBERS).said(&sandbox), unknown);
    assert_eq!(form(&SAMPLE_MEMBERS).get().said(&sandbox), unknown);
    pass(&sandbox);
    assert_eq!(sandbox.charges(), 1);
    assert!(sandbox.get("/metrics").text().contains("card4e_panics_total 4\n"));
    let log = sandbox.log();
    assert!(log.contains("a request ended in a panic; its caller was told of an internal error"), "{log}");
}

/// The client closes its half of the connection in the middle of the body.
#[test]
fn a_body_that_breaks_off() {
    let sandbox = Sandbox::start();
    let bytes = post(SAMPLE).sign(&sandbox).bytes();
    let mut socket = connect(&sandbox);
    socket.write_all(&bytes[..bytes.len() - 10]).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let reply = Reply::read(&mut socket).unwrap();
    assert_eq!(said(&reply), refused("InvalidParameter", "请求包体不完整。"));
    assert_eq!(sandbox.charges(), 0);
    pass(&sandbox);
}

#[test]
fn a_body_that_does_not_come() {
    let sandbox = Sandbox::configured("[http]\nbody_seconds = 1\n");
    let bytes = post(SAMPLE).english().sign(&sandbox).bytes();
    let mut socket = connect(&sandbox);
    socket.write_all(&bytes[..bytes.len() - 10]).unwrap();
    let reply = Reply::read(&mut socket).unwrap();
    let message = "The body did not arrive completely.";
    assert_eq!(said(&reply), refused("InvalidParameter", message));
    pass(&sandbox);
}

/// As proxies are asked: the whole URL in the request line.
#[test]
fn a_target_in_absolute_form() {
    let sandbox = Sandbox::start();
    let address = sandbox.address.clone();
    for target in ["/".to_owned(), String::new(), "/?".to_owned()] {
        let request = Signed { target: format!("http://{address}{target}"), ..post(SAMPLE).sign(&sandbox) };
        assert_eq!(request.said(&sandbox), PASSED, "{target}");
    }
    let query = "Name=a&BankCard=6200000000000005&Phone=1&IdCard=1";
    let signed = get(query).sign(&sandbox);
    let request = Signed { target: format!("http://{address}/?{query}"), ..signed };
    assert_eq!(request.said(&sandbox), PASSED);
}

/// .NET's form and Python's async client ask for `/?`.
#[test]
fn an_empty_query() {
    let sandbox = Sandbox::start();
    assert_eq!(post(SAMPLE).target("/?").said(&sandbox), PASSED);
    let form = form(&SAMPLE_MEMBERS).sign(&sandbox);
    assert_eq!(Signed { target: "/?".into(), ..form.clone() }.said(&sandbox), PASSED);
    // The query of a POST is not considered at all.
    assert_eq!(Signed { target: "/?Name=x&Action=y".into(), ..form }.said(&sandbox), PASSED);
}

/// C++ asks before it sends a large body.
#[test]
fn expect_100_continue() {
    let sandbox = Sandbox::start();
    let bytes = post(SAMPLE).header("Expect", "100-continue").sign(&sandbox).bytes();
    let (head, body) = bytes.split_at(bytes.len() - SAMPLE.len());
    let mut socket = connect(&sandbox);
    socket.write_all(head).unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).unwrap();
    assert_eq!(std::str::from_utf8(&go_on).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(body).unwrap();
    assert_eq!(said(&Reply::read(&mut socket).unwrap()), PASSED);
}

/// Told before it has sent anything.
#[test]
fn expect_100_continue_of_too_much() {
    let sandbox = Sandbox::start();
    let signed = post(SAMPLE).header("Expect", "100-continue").sign(&sandbox);
    let head = String::from_utf8(Signed { body: Vec::new(), ..signed }.bytes()).unwrap();
    let head = head.replace("Content-Length: 0", "Content-Length: 11534336");
    let mut socket = connect(&sandbox);
    socket.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    socket.peek(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200", "and no 100 before it");
    let reply = Reply::read(&mut socket).unwrap();
    let message = "请求包超过大小限制 `10485760` 字节。";
    assert_eq!(said(&reply), refused("RequestSizeLimitExceeded", message));
}

/// A proxy may read one of them and we the other.
#[test]
fn a_header_given_twice() {
    let sandbox = Sandbox::start();
    for (name, value) in [
        ("Host", "faceid.tencentcloudapi.com"),
        ("Content-Type", "application/json"),
        ("X-TC-Action", "BankCard4EVerification"),
        ("X-TC-Version", "2018-03-01"),
        ("X-TC-Timestamp", "1"),
        ("Authorization", "SKIP"),
    ] {
        let mut request = post(SAMPLE).english().sign(&sandbox);
        request.headers.push((name.into(), value.into()));
        let message = format!("The header `{name}` is given more than once.");
        assert_eq!(request.said(&sandbox), refused("InvalidParameter", &message));
    }
    let twice_anything = post(SAMPLE).header("X-Forwarded-For", "1").header("X-Forwarded-For", "2");
    assert_eq!(twice_anything.said(&sandbox), PASSED);
}

#[test]
fn a_body_in_chunks() {
    let sandbox = Sandbox::start();
    let signed = post(SAMPLE).header("Transfer-Encoding", "chunked").sign(&sandbox);
    let bytes = signed.bytes();
    let head = String::from_utf8(bytes[..bytes.len() - SAMPLE.len()].to_vec()).unwrap();
    let head = head.replace(&format!("Content-Length: {}\r\n", SAMPLE.len()), "");
    let (first, second) = SAMPLE.as_bytes().split_at(50);
    let mut request = head.into_bytes();
    for chunk in [first, second, b""] {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend([chunk, b"\r\n"].concat());
    }
    assert_eq!(said(&sandbox.send(&request)), PASSED);
}

#[test]
fn many_requests_on_one_connection() {
    let sandbox = Sandbox::start();
    let bytes = post(SAMPLE).sign(&sandbox).bytes();
    let mut socket = connect(&sandbox);
    for _ in 0..5 {
        socket.write_all(&bytes).unwrap();
        assert_eq!(said(&Reply::read(&mut socket).unwrap()), PASSED);
    }
    // All at once, an error among them.
    let bad = post("{").sign(&sandbox).bytes();
    socket.write_all(&[&bytes[..], &bad, &bytes].concat()).unwrap();
    let replies = [0, 1, 2].map(|_| said(&Reply::read(&mut socket).unwrap()));
    let no_json = refused("InvalidParameter", "请求 body 不是有效的 JSON 对象：第 `1` 行第 `1` 列。");
    assert_eq!(replies, [PASSED.to_owned(), no_json, PASSED.to_owned()]);
}

/// PHP and C++ close after every call.
#[test]
fn connection_close() {
    let sandbox = Sandbox::start();
    let bytes = post(SAMPLE).header("Connection", "close").sign(&sandbox).bytes();
    let mut socket = connect(&sandbox);
    socket.write_all(&bytes).unwrap();
    assert_eq!(said(&Reply::read(&mut socket).unwrap()), PASSED);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "closed");
}

/// An HTTP/1.0 client, or proxy, has no `Host`; whoever signed the public name is still verified.
#[test]
fn without_a_host() {
    let sandbox = Sandbox::start();
    let request = post(SAMPLE).signed_host("faceid.tencentcloudapi.com").sign(&sandbox).without("Host");
    let bytes = String::from_utf8(request.bytes()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
    assert_eq!(said(&sandbox.send(bytes.as_bytes())), PASSED);
}

/// What is no HTTP request at all gets plain HTTP's own answer, and the server lives on.
#[test]
fn what_the_http_parser_refuses() {
    let sandbox = Sandbox::start();
    let long_line = format!("GET /?{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(66 * 1024));
    let long_head = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(600 * 1024));
    let headers = "X-Many: 1\r\n".repeat(200);
    let many_headers = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    for (request, status) in [
        (long_line.as_str(), 414),
        (&long_head, 431),
        (&many_headers, 431),
        ("GET /?a=<b> HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nBad Header: 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ten\r\n\r\n", 400),
        ("\x16\x03\x01\x02\r\n\r\n", 400),
    ] {
        let short: String = request.chars().take(60).collect();
        let mut socket = connect(&sandbox);
        // It may be refused before it has been sent.
        let _ = socket.write_all(request.as_bytes());
        let reply = Reply::read(&mut socket).unwrap_or_else(|error| panic!("{short}: {error}"));
        assert_eq!((reply.status, reply.body.len()), (status, 0), "{short}");
        pass(&sandbox);
    }
}
