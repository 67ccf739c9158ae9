//! Refusals: the management API's envelope, free of charge.

use super::super::acedata::{ARREARS, EXPIRED, NOT_ACTIVATED, RATE_LIMITED, SUSPENDED, UNCONFIRMED};
use super::super::support::PLATFORM_TOKEN;
use super::*;

fn told(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    let text = |member: &str| body[member].as_str().unwrap().to_owned();
    assert_eq!(text("trace_id").len(), 32, "{body}");
    (reply.status, text("code"), text("detail"))
}

#[test]
fn who_may_not_ask_is_told_why() {
    let sandbox = Sandbox::start();
    for (number, status, code) in [
        (NOT_ACTIVATED, 403, "permission_denied"),
        (ARREARS, 403, "used_up"),
        (SUSPENDED, 403, "disabled"),
        (UNCONFIRMED, 403, "disabled"),
        (EXPIRED, 401, "token_expired"),
    ] {
        let (was, said, _) = told(&ask_with(&sandbox, &token(number), &[], &zhang_wei()));
        assert_eq!((was, said.as_str()), (status, code), "application {number}");
    }
    for stranger in ["4e4e", PLATFORM_TOKEN] {
        assert_eq!(told(&ask_with(&sandbox, stranger, &[], &zhang_wei())).1, "not_authenticated");
    }
    let limited = || ask_with(&sandbox, &token(RATE_LIMITED), &[], &zhang_wei());
    let refused = (0..6).map(|_| limited()).find(|reply| reply.status == 429).expect("two a second");
    assert_eq!((told(&refused).1.as_str(), refused.header("retry-after")), ("too_many_requests", Some("1")));
    assert_eq!(sandbox.control("GET", "ledger", "")["balances"]["arrears"], "0");
}

#[test]
fn a_body_that_is_not_as_documented() {
    let sandbox = Sandbox::start();
    for (member, value, said) in [
        ("purpose", Value::Null, "Required and missing: purpose."),
        ("consent", Value::Null, "Required and missing: consent."),
        ("purpose", json!("account opening"), "purpose is 1 to 64 letters"),
        ("consent", json!("c".repeat(129)), "consent is a reference of 1 to 128"),
        ("bank_card", json!(6217000000000000012_u64), "bank_card must be a string."),
        ("cvv2", json!("123"), "is not known here"),
        ("pin", json!("123456"), "`pin` is not known here"),
    ] {
        let mut question = zhang_wei();
        question[member] = value;
        let (status, code, detail) = told(&ask(&sandbox, &question));
        assert_eq!((status, code.as_str()), (400, "invalid"), "{member}");
        assert!(detail.contains(said), "{member}: {detail}");
        assert!(!detail.contains("6217"), "{detail}");
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn other_paths_and_methods() {
    let sandbox = Sandbox::start();
    assert_eq!(told(&sandbox.get("/api/v1/nothing")).1, "not_found");
    let got = sandbox.get(PATH);
    assert_eq!((told(&got).1.as_str(), got.header("allow")), ("method_not_allowed", Some("POST")));
}

#[test]
fn pages_of_other_sites_are_refused() {
    let sandbox = Sandbox::start();
    let from = |origin: &str| ask_with(&sandbox, TOKEN, &[("Origin", origin)], &zhang_wei()).status;
    assert_eq!(from("https://evil.example"), 403);
    assert_eq!(from(&format!("http://{}", sandbox.address)), 200);
}

/// An internal failure is told as one, and is no charge.
#[test]
fn a_panic_is_an_internal_error() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"wire":"native","count":1,"effect":{"panic":true}}"#);
    assert_eq!(told(&ask(&sandbox, &zhang_wei())).1, "api_error");
    assert_eq!(sandbox.charges(), 0);
    assert_eq!(ask(&sandbox, &zhang_wei()).status, 200);
}
