//! Accounts of record over HTTP, for operators: a lost card does not wait for a file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::super::support::PLATFORM_TOKEN;
use super::*;

const CARD: &str = "6217000000000000012";

fn send(sandbox: &Sandbox, method: &str, path: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {PLATFORM_TOKEN}");
    sandbox.request(method, path, &[("Authorization", &bearer)], body.as_bytes())
}

fn outcome(sandbox: &Sandbox, card: &str) -> String {
    let mut question = zhang_wei();
    question["bank_card"] = json!(card);
    ask(sandbox, &question).json()["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn an_account_is_lost_found_replaced_and_deleted() {
    let sandbox = Sandbox::start();
    let lost =
        send(&sandbox, "PUT", "/api/v1/accounts", &format!(r#"{{"bank_card":"{CARD}","status":"lost"}}"#));
    assert_eq!((lost.status, lost.json()["status"].clone()), (200, json!("lost")), "{}", lost.text());
    assert_eq!(outcome(&sandbox, CARD), "CARD_LOST");

    let looked = send(&sandbox, "POST", "/api/v1/accounts/lookup", &format!(r#"{{"bank_card":"{CARD}"}}"#));
    assert_eq!(looked.json(), json!({ "status": "lost", "id_type": "resident_id", "has_phone": true }));

    let whole = r#"{"bank_card":"6217000000000000012","name":"张伟","id_number":"99010119610202001X","phone":"16100000001"}"#;
    assert_eq!(send(&sandbox, "PUT", "/api/v1/accounts", whole).json()["status"], "normal");
    assert_eq!(outcome(&sandbox, CARD), "PASS");

    let card = format!(r#"{{"bank_card":"{CARD}"}}"#);
    assert_eq!(send(&sandbox, "DELETE", "/api/v1/accounts", &card).json(), json!({ "deleted": true }));
    assert_eq!(outcome(&sandbox, CARD), "PAN_INVALID");
    let again = send(&sandbox, "DELETE", "/api/v1/accounts", &card);
    assert_eq!((again.status, again.json()["code"].clone()), (404, json!("not_found")));
}

#[test]
fn what_is_wrong_is_named_and_never_quoted() {
    let sandbox = Sandbox::start();
    for (body, said) in [
        ("", "not an account"),
        (r#"{"bank_card":"6217000000000000012"}"#, "say what to put"),
        (r#"{"bank_card":"62170","status":"lost"}"#, "bank_card: not 13 to 19 digits"),
        (r#"{"bank_card":"6217000000000000012","status":"stolen"}"#, "there is no status"),
        (r#"{"bank_card":"6217000000000000012","name":"张伟"}"#, "has name and id_number"),
        (r#"{"bank_card":"6217000000000000012","cvv":"123"}"#, "not an account"),
        (r#"{"bank_card":"6217000000000000012","name":"张伟","id_number":"1"}"#, "id_number"),
    ] {
        let reply = send(&sandbox, "PUT", "/api/v1/accounts", body);
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, 400, "{body}");
        assert!(
            detail.contains(said) && !detail.contains("张伟") && !detail.contains("6217"),
            "{body}: {detail}"
        );
    }
    assert_eq!(send(&sandbox, "POST", "/api/v1/accounts", "{}").status, 405);
}

#[test]
fn only_operators() {
    let sandbox = Sandbox::start();
    let body = format!(r#"{{"bank_card":"{CARD}","status":"lost"}}"#);
    for path in ["/api/v1/accounts", "/api/v1/accounts/stream"] {
        let method = if path.ends_with("stream") { "POST" } else { "PUT" };
        let asked = |token: &str| {
            let bearer = format!("Bearer {token}");
            sandbox.request(method, path, &[("Authorization", &bearer)], body.as_bytes()).status
        };
        assert_eq!((asked(TOKEN), asked("4e4e")), (403, 401), "{path}");
        assert_eq!(sandbox.request(method, path, &[], body.as_bytes()).status, 401);
    }
    assert_eq!(outcome(&sandbox, CARD), "PASS");
}

/// A connection on which lines go in and come out at the same time.
struct Stream {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Stream {
    fn open(sandbox: &Sandbox) -> Stream {
        let mut to = TcpStream::connect(&sandbox.address).unwrap();
        to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST /api/v1/accounts/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {PLATFORM_TOKEN}\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            sandbox.address
        );
        to.write_all(head.as_bytes()).unwrap();
        let from = BufReader::new(to.try_clone().unwrap());
        Stream { to, from }
    }

    fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.to.write_all(chunk.as_bytes()).unwrap();
    }

    /// The next line of the reply's body, whatever its chunks are.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the reply has ended");
        }
        serde_json::from_str(&line).unwrap()
    }
}

/// Each line is answered, in order, before the next is sent.
#[test]
fn a_stream_of_changes() {
    let sandbox = Sandbox::start();
    let mut stream = Stream::open(&sandbox);
    stream.send(&format!("{{\"bank_card\":\"{CARD}\",\"status\":\"lost\"}}\n"));
    assert_eq!(stream.line(), json!({ "line": 1, "status": "lost" }));
    assert_eq!(outcome(&sandbox, CARD), "CARD_LOST", "what was answered is on the disk");

    stream.send("\n{\"bank_card\":\"1\",\"status\":\"lost\"}\n{\"bank_card\":\"62170000000000");
    assert_eq!(stream.line(), json!({ "line": 3, "error": "bank_card: not 13 to 19 digits" }));
    stream.send("00012\",\"op\":\"delete\"}\n{\"op\":\"delete\",\"bank_card\":\"6217000000000000012\"}");
    assert_eq!(stream.line(), json!({ "line": 4, "deleted": true }));
    stream.send("");
    assert_eq!(
        stream.line(),
        json!({ "line": 5, "error": "There is no account of that card." }),
        "no line end at the end"
    );
    let mut rest = String::new();
    stream.to.write_all(b"").unwrap();
    stream.from.by_ref().take(7).read_to_string(&mut rest).unwrap();
    assert!(rest.contains("0\r\n"), "{rest:?}");
}

#[test]
fn a_stream_ends_when_the_server_stops_and_says_so() {
    let sandbox = Sandbox::start();
    let mut stream = Stream::open(&sandbox);
    stream.send(&format!("{{\"bank_card\":\"{CARD}\",\"status\":\"lost\"}}\n"));
    stream.line();
    sandbox.stop();
    assert!(stream.line()["ended"].as_str().unwrap().contains("the server stops"));
}

#[test]
fn a_line_without_end_is_not_waited_for() {
    let sandbox = Sandbox::start();
    let mut stream = Stream::open(&sandbox);
    stream.send(&"x".repeat(20 << 10));
    assert_eq!(stream.line()["ended"], "a line is longer than 16 KiB");
}
