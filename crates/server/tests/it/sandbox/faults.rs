//! Fault rules: what they match, how often, and each thing they can do.

use super::*;

const BUSY: &str = r#""effect":{"outcome":"SOURCE_BUSY"}"#;

/// Whether each of so many questions was struck by a rule that answers "busy".
fn struck(sandbox: &Sandbox, times: usize) -> String {
    (0..times).map(|_| if result(&ask(sandbox, ZHANG_WEI)) == "-16" { 'x' } else { '.' }).collect()
}

#[test]
fn a_rule_matches_wire_action_and_card() {
    let sandbox = Sandbox::start();
    for (matched, acedata, tencent) in [
        (String::new(), "-16", "-18"),
        (r#""wire":"acedata","#.into(), "-16", "0"),
        (r#""wire":"tencent","#.into(), "0", "-18"),
        (r#""action":"bankcard/check-4e","#.into(), "-16", "0"),
        (r#""action":"BankCard4EVerification","#.into(), "0", "-18"),
        (r#""card":"6217000000000000012","#.into(), "-16", "-18"),
        (r#""card":"6217000000000000020","#.into(), "0", "0"),
    ] {
        sandbox.control("DELETE", "faults", "");
        sandbox.fault(&format!("{{{matched}{BUSY}}}"));
        assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), acedata, "{matched}");
        assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], ZHANG_WEI)), tencent, "{matched}");
    }
}

#[test]
fn skip_count_and_sequence() {
    let sandbox = Sandbox::start();
    sandbox.fault(&format!(r#"{{"skip":2,"count":3,{BUSY}}}"#));
    assert_eq!(struck(&sandbox, 8), "..xxx...");

    sandbox.control("DELETE", "faults", "");
    let steps = r#"[{"outcome":"SOURCE_BUSY"},{"outcome":"SOURCE_BUSY"},{"outcome":"PASS"}]"#;
    sandbox.fault(&format!(r#"{{"sequence":{steps}}}"#));
    assert_eq!(struck(&sandbox, 6), "xx....");

    sandbox.control("DELETE", "faults", "");
    sandbox.fault(&format!(r#"{{"sequence":{steps},"count":7}}"#));
    assert_eq!(struck(&sandbox, 9), "xx.xx.x..");
}

#[test]
fn the_first_rule_that_applies_wins() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"outcome":"CARD_LOST"}}"#);
    sandbox.fault(r#"{"count":2,"effect":{"outcome":"CARD_EXPIRED"}}"#);
    let answers: Vec<_> = (0..4).map(|_| result(&ask(&sandbox, ZHANG_WEI))).collect();
    assert_eq!(answers, ["-11", "-12", "-12", "0"]);
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let drawn = |seed: &str| {
        let sandbox = Sandbox::with(&["--seed", seed]);
        sandbox.fault(&format!(r#"{{"probability":0.5,{BUSY}}}"#));
        let first = struck(&sandbox, 48);
        sandbox.control("POST", "reset", "");
        sandbox.fault(&format!(r#"{{"probability":0.5,{BUSY}}}"#));
        assert_eq!(struck(&sandbox, 48), first, "a reset begins again");
        first
    };
    let seven = drawn("7");
    assert_eq!(drawn("7"), seven);
    assert_ne!(drawn("8"), seven);
    let hits = seven.matches('x').count();
    assert!((10..39).contains(&hits), "{hits} of 48 at one half");
}

#[test]
fn probability_at_its_ends() {
    let sandbox = Sandbox::start();
    sandbox.fault(&format!(r#"{{"probability":0,{BUSY}}}"#));
    assert_eq!(struck(&sandbox, 20), ".".repeat(20));
    sandbox.control("DELETE", "faults", "");
    sandbox.fault(&format!(r#"{{"probability":1,{BUSY}}}"#));
    assert_eq!(struck(&sandbox, 20), "x".repeat(20));
}

#[test]
fn an_outcome_is_charged_by_what_it_is() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"sequence":[{"outcome":"CARD_LOST"},{"outcome":"-18"}]}"#);
    let lost = ask(&sandbox, ZHANG_WEI);
    assert_eq!((result(&lost).as_str(), lost.header("x-charged")), ("-11", Some("1")));
    let busy = ask(&sandbox, ZHANG_WEI);
    assert_eq!((result(&busy).as_str(), busy.header("x-charged")), ("-16", Some("0")));
}

#[test]
fn an_error_is_not_charged() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"wire":"acedata","count":1,"effect":{"error":"too_many_requests"}}"#);
    assert_eq!(refusal(&ask(&sandbox, ZHANG_WEI)), (429, "too_many_requests".into()));
    sandbox.fault(r#"{"wire":"tencent","count":1,"effect":{"error":"RequestLimitExceeded"}}"#);
    let reply = ask_tencent(&sandbox, now(), &[], ZHANG_WEI);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["Response"]["Error"]["Code"], "RequestLimitExceeded");
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn a_delay() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"delay_ms":400}}"#);
    let began = Instant::now();
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_delay_holds_nobody_else_up() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":2,"effect":{"delay_ms":3000}}"#);
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..2).map(|_| scope.spawn(|| ask(&sandbox, ZHANG_WEI))).collect();
        soon("both delayed", Duration::from_secs(2), || {
            (sandbox.control("GET", "journal", "")["count"] == 2).then_some(())
        });
        let began = Instant::now();
        (0..4).for_each(|_| assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0"));
        assert!(began.elapsed() < Duration::from_secs(2));
        slow.into_iter().for_each(|slow| assert_eq!(result(&slow.join().unwrap()), "0"));
    });
}

#[test]
fn a_status_before_or_after() {
    let sandbox = Sandbox::start();
    for (when, charges) in [(r#","when":"before""#, 0), (r#","when":"after""#, 1), ("", 1)] {
        sandbox.control("POST", "reset", "");
        sandbox.fault(&format!(r#"{{"count":1,"effect":{{"status":503{when}}}}}"#));
        let before = sandbox.charges();
        let reply = ask(&sandbox, ZHANG_WEI);
        assert_eq!(reply.status, 503, "{when}");
        assert_eq!(reply.header("content-type"), Some("text/plain"));
        assert_eq!(reply.text(), "a fault rule of the sandbox answers 503 Service Unavailable\n");
        assert_eq!(sandbox.charges() - before, charges, "{when}");
    }
}

#[test]
fn a_connection_dropped_before_or_after() {
    let sandbox = Sandbox::start();
    for (when, charges) in [("before", 0), ("after", 1)] {
        sandbox.control("POST", "reset", "");
        let before = sandbox.charges();
        sandbox.fault(&format!(r#"{{"count":1,"effect":{{"drop":"{when}"}}}}"#));
        let lost = sandbox.try_send(&bytes_with(&sandbox, &[], ZHANG_WEI));
        assert_eq!(lost.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof, "{when}: not one byte");
        assert_eq!(sandbox.charges() - before, charges, "{when}");
    }
}

#[test]
fn a_truncated_body_is_announced_whole() {
    use std::io::{Read, Write};
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"truncate":10}}"#);
    let mut socket = std::net::TcpStream::connect(&sandbox.address).unwrap();
    socket.write_all(&bytes_with(&sandbox, &[], ZHANG_WEI)).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-length: 52"), "{head}");
    assert_eq!(body, r#"{"result":"#);
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn several_effects_at_once() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"outcome":"CARD_LOST","delay_ms":300,"status":504}}"#);
    let began = Instant::now();
    assert_eq!(ask(&sandbox, ZHANG_WEI).status, 504);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let entry = &sandbox.control("GET", "journal", "")["entries"][0];
    assert_eq!((&entry["outcome"], &entry["status"]), (&"CARD_LOST".into(), &504.into()));
}

#[test]
fn rules_are_listed_with_their_counts_and_deleted() {
    let sandbox = Sandbox::start();
    let added = sandbox.control("POST", "faults", &format!(r#"{{"wire":"acedata","skip":1,{BUSY}}}"#));
    assert_eq!(added["id"], 1);
    sandbox.fault(r#"{"effect":{"delay_ms":1}}"#);
    struck(&sandbox, 3);
    let rules = sandbox.control("GET", "faults", "");
    assert_eq!(
        rules["faults"][0],
        serde_json::json!({
            "id": 1,
            "wire": "acedata",
            "skip": 1,
            "effect": { "outcome": "SOURCE_BUSY" },
            "matched": 3,
            "applied": 2,
        })
    );
    assert_eq!(sandbox.control("DELETE", "faults/1", "")["deleted"], 1);
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    for id in ["1", "4711", "first"] {
        let (status, error) = refused(&sandbox, "DELETE", &format!("faults/{id}"), "");
        assert_eq!(status, 404);
        assert!(error.contains("GET /_sandbox/faults"), "{error}");
    }
    assert_eq!(sandbox.control("DELETE", "faults", ""), serde_json::json!({ "faults": [] }));
}

#[test]
fn a_rule_that_is_none_is_refused_with_what_to_write() {
    let sandbox = Sandbox::start();
    for (rule, said) in [
        ("", "the body is not right"),
        ("{}", "give an `effect`"),
        (r#"{"effect":{}}"#, "at least one of"),
        (r#"{"effect":{"outcme":"PASS"}}"#, "outcme"),
        (r#"{"effect":{"outcome":"LOST"}}"#, "CARD_LOST"),
        (r#"{"effect":{"error":"Nonsense"}}"#, "Nonsense"),
        (r#"{"effect":{"status":99}}"#, "between 200 and 599"),
        (r#"{"effect":{"drop":"during"}}"#, "during"),
        (r#"{"wire":"soap","effect":{"outcome":"PASS"}}"#, "acedata"),
        (r#"{"probability":1.5,"effect":{"outcome":"PASS"}}"#, "between 0 and 1"),
        (r#"{"effect":{"outcome":"PASS"},"sequence":[{"outcome":"PASS"}]}"#, "not both"),
    ] {
        let (status, error) = refused(&sandbox, "POST", "faults", rule);
        assert_eq!(status, 400, "{rule}");
        assert!(error.contains(said), "{rule}: {error}");
    }
    assert_eq!(sandbox.control("GET", "faults", ""), serde_json::json!({ "faults": [] }));
}
