//! Which of several things that are wrong is told: path, method, token, entitlement, standing,
//! balance, rate, body. Who is not known learns nothing about the rest.

use super::*;

const BROKEN: &str = "{\"name\":";

#[test]
fn path_before_method_before_token() {
    let sandbox = Sandbox::start();
    assert_eq!(refusal(&sandbox.request("GET", "/identity/x", &[], b"")), (404, "no_api".into()));
    assert_eq!(sandbox.request("GET", PATH, &[], b"").status, 405);
    assert_eq!(refusal(&sandbox.request("POST", PATH, &[], b"")), (401, "invalid_token".into()));
}

#[test]
fn token_before_everything_about_the_body() {
    let sandbox = Sandbox::start();
    for body in [BROKEN.to_owned(), "{}".to_owned(), "x".repeat(11 << 20)] {
        let reply = sandbox.request("POST", PATH, &[("Idempotency-Key", "a b")], body.as_bytes());
        assert_eq!(refusal(&reply), (401, "invalid_token".into()), "{} bytes", body.len());
        assert_eq!(refusal(&ask_as(&sandbox, EXPIRED, &body)), (401, "token_expired".into()));
    }
}

#[test]
fn account_before_body() {
    let sandbox = Sandbox::start();
    for (application, status, code) in [
        (NOT_ACTIVATED, 400, "token_mismatched"),
        (ARREARS, 403, "used_up"),
        (SUSPENDED, 403, "disabled"),
        (UNCONFIRMED, 403, "disabled"),
    ] {
        for body in [BROKEN, "{}", ""] {
            assert_eq!(refusal(&ask_as(&sandbox, application, body)), (status, code.into()), "{body}");
        }
    }
}

#[test]
fn account_before_rate() {
    let sandbox = Sandbox::configured("[policy]\nrequests_per_second = 1\n");
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276800}"#);
    for _ in 0..3 {
        assert_eq!(refusal(&ask_as(&sandbox, NOT_ACTIVATED, SAMPLE)).1, "token_mismatched");
        assert_eq!(refusal(&ask_as(&sandbox, ARREARS, SAMPLE)).1, "used_up");
        assert_eq!(refusal(&ask_as(&sandbox, SUSPENDED, SAMPLE)).1, "disabled");
    }
}

#[test]
fn rate_before_body() {
    let sandbox = Sandbox::start();
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276800}"#);
    assert_eq!(refusal(&ask_as(&sandbox, RATE_LIMITED, "{}")), (400, "bad_request".into()));
    assert_eq!(refusal(&ask_as(&sandbox, RATE_LIMITED, BROKEN)), (400, "bad_request".into()));
    assert_eq!(refusal(&ask_as(&sandbox, RATE_LIMITED, BROKEN)), (429, "too_many_requests".into()));
    assert_eq!(refusal(&ask_as(&sandbox, RATE_LIMITED, "{}")), (429, "too_many_requests".into()));
}

#[test]
fn a_refusal_costs_nothing_and_leaves_no_record() {
    let sandbox = Sandbox::start();
    for application in [NOT_ACTIVATED, ARREARS, SUSPENDED, UNCONFIRMED, EXPIRED] {
        assert_ne!(ask_as(&sandbox, application, SAMPLE).status, 200);
    }
    for body in [BROKEN, "{}", ""] {
        assert_eq!(ask_as(&sandbox, TRIAL, body).status, 400);
    }
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!(ledger["records"], 0);
    assert_eq!(ledger["balances"]["trial"], "10", "what was set aside is given back");
}
