//! The same question sent again: official clients repeat a POST after 5xx, timeouts and broken
//! bodies, and it must be charged once.

use std::sync::Barrier;

use super::*;

const WINDOW: &str = "[idempotency]\ncontent_window_seconds = 60\n";
const KEY: [(&str, &str); 1] = [("Idempotency-Key", "order-4711")];

/// What keeps the client from learning the answer, once.
const MISHAPS: [&str; 4] = [
    r#"{"count":1,"effect":{"status":502,"when":"after"}}"#,
    r#"{"count":1,"effect":{"drop":"after"}}"#,
    r#"{"count":1,"effect":{"truncate":5}}"#,
    r#"{"count":1,"effect":{"truncate":0}}"#,
];

/// The trace id of the newest request.
fn newest_trace(sandbox: &Sandbox) -> String {
    let entry = &sandbox.control("GET", "journal?limit=1", "")["entries"][0];
    entry["request_id"].as_str().unwrap().to_owned()
}

#[test]
fn with_a_key_it_is_charged_once() {
    for key in ["Idempotency-Key", "X-Idempotency-Key"] {
        let sandbox = Sandbox::start();
        let headers = [(key, "order-4711")];
        let first = ask_with(&sandbox, &headers, ZHANG_WEI);
        assert_eq!(first.header("x-idempotent-replay"), None);
        assert_eq!(first.header("x-charged"), Some("1"));
        let again = ask_with(&sandbox, &headers, ZHANG_WEI);
        assert_eq!(
            transcript(&sandbox, &again),
            "200
content-type: application/json
x-charged: 0
x-credits-charged: 0
x-idempotent-replay: true
x-sandbox-decision: row=25 outcome=PASS by=idempotency
x-trace-id: {trace}

{\"result\":\"0\",\"description\":\"Authentication passed\"}"
        );
        assert_eq!(trace(&again), trace(&first));
        assert_eq!(again.body, first.body);
        assert_eq!(sandbox.charges(), 1);
        assert_eq!(sandbox.control("GET", "ledger", "")["records"], 1);
    }
}

#[test]
fn after_a_mishap_it_is_charged_once_with_a_key_or_within_the_window() {
    for mishap in MISHAPS {
        for (settings, headers) in [(WINDOW, &[][..]), ("", &KEY[..])] {
            let sandbox = Sandbox::configured(settings);
            sandbox.fault(mishap);
            let lost = sandbox.try_send(&bytes_with(&sandbox, headers, ZHANG_WEI));
            if let Ok(reply) = &lost {
                assert_eq!(reply.status, 502, "{mishap}");
                assert!(serde_json::from_slice::<serde_json::Value>(&reply.body).is_err(), "{mishap}");
            }
            assert_eq!(lost.is_err(), !mishap.contains("502"), "{mishap}");
            assert_eq!(sandbox.charges(), 1, "{mishap}");
            let charged = newest_trace(&sandbox);
            let again = ask_with(&sandbox, headers, ZHANG_WEI);
            assert_eq!(result(&again), "0", "{mishap}");
            assert_eq!(trace(&again), charged, "{mishap}");
            assert_eq!(again.header("x-idempotent-replay"), Some("true"), "{mishap}");
            assert_eq!(sandbox.charges(), 1, "{mishap}");
        }
    }
}

#[test]
fn without_either_it_is_charged_twice() {
    let sandbox = Sandbox::start();
    for (mishap, charges) in MISHAPS.into_iter().zip([2, 4, 6, 8]) {
        sandbox.fault(mishap);
        let _ = sandbox.try_send(&bytes_with(&sandbox, &[], ZHANG_WEI));
        let again = ask(&sandbox, ZHANG_WEI);
        assert_eq!(again.header("x-idempotent-replay"), None, "{mishap}");
        assert_eq!(sandbox.charges(), charges, "{mishap}");
    }
}

#[test]
fn what_happened_before_the_question_was_asked_is_not_charged() {
    for mishap in [
        r#"{"count":1,"effect":{"status":502,"when":"before"}}"#,
        r#"{"count":1,"effect":{"drop":"before"}}"#,
    ] {
        let sandbox = Sandbox::configured(WINDOW);
        sandbox.fault(mishap);
        let _ = sandbox.try_send(&bytes_with(&sandbox, &[], ZHANG_WEI));
        assert_eq!(sandbox.charges(), 0, "{mishap}");
        let again = ask(&sandbox, ZHANG_WEI);
        assert_eq!(again.header("x-idempotent-replay"), None, "{mishap}");
        assert_eq!(sandbox.charges(), 1, "{mishap}");
    }
}

#[test]
fn the_window_closes() {
    let sandbox = Sandbox::configured(WINDOW);
    let at = |now: i64| sandbox.control("PUT", "clock", &format!(r#"{{"mode":"frozen","now":{now}}}"#));
    at(1_795_276_800);
    let first = ask(&sandbox, ZHANG_WEI);
    at(1_795_276_859);
    assert_eq!(trace(&ask(&sandbox, ZHANG_WEI)), trace(&first), "after 59 seconds");
    at(1_795_276_860);
    let later = ask(&sandbox, ZHANG_WEI);
    assert_ne!(trace(&later), trace(&first), "after 60 seconds");
    assert_eq!(later.header("x-idempotent-replay"), None);
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn a_key_is_kept_for_a_day() {
    let sandbox = Sandbox::start();
    let first = ask_with(&sandbox, &KEY, ZHANG_WEI);
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":86000}"#);
    assert_eq!(trace(&ask_with(&sandbox, &KEY, ZHANG_WEI)), trace(&first));
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":86460}"#);
    assert_ne!(trace(&ask_with(&sandbox, &KEY, ZHANG_WEI)), trace(&first));
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn the_same_content_however_it_is_written() {
    let sandbox = Sandbox::configured(WINDOW);
    let first = ask(&sandbox, ZHANG_WEI);
    for body in [
        r#"{"name":"\u5f20\u4f1f","bank_card":"6217000000000000012","phone":"16100000001","id_card":"99010119610202001X"}"#,
        r#"{"id_card":"99010119610202001X", "phone":"16100000001", "bank_card":"6217000000000000012", "name":"张伟"}"#,
        r#"{"name":" 张伟 ","bank_card":"6217\u0030\u0030\u0030000000000012","phone":"16100000001","id_card":"99010119610202001x","cert_type":0}"#,
    ] {
        let again = ask(&sandbox, body);
        assert_eq!(trace(&again), trace(&first), "{body}");
    }
    assert_eq!(sandbox.charges(), 1);
    assert_ne!(trace(&ask(&sandbox, NOT_ZHANG_WEI)), trace(&first), "another name is another question");
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn a_key_belongs_to_one_question() {
    let sandbox = Sandbox::start();
    let first = ask_with(&sandbox, &KEY, ZHANG_WEI);
    let reply = ask_with(&sandbox, &KEY, NOT_ZHANG_WEI);
    assert_eq!(
        transcript(&sandbox, &reply),
        "400
content-type: application/json
x-charged: 0
x-trace-id: {trace}

{\"error\":{\"code\":\"bad_request\",\"message\":\"Idempotency-Key was used before for another request.\"},\
\"trace_id\":\"{trace}\"}"
    );
    assert_eq!(trace(&ask_with(&sandbox, &KEY, ZHANG_WEI)), trace(&first));
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn a_key_belongs_to_one_application() {
    let sandbox = Sandbox::start();
    let body = ZHANG_WEI.as_bytes();
    let bearer = format!("Bearer {}", token(SIGNED_ONLY));
    let first = ask_with(&sandbox, &KEY, ZHANG_WEI);
    let other = sandbox.request("POST", PATH, &[("authorization", &bearer), KEY[0]], body);
    assert_ne!(trace(&other), trace(&first));
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn twins_at_the_same_time_are_charged_once() {
    let sandbox = Sandbox::start();
    for round in 0..5 {
        let key = format!("round-{round}");
        let barrier = Barrier::new(8);
        let twin = || {
            barrier.wait();
            trace(&ask_with(&sandbox, &[("Idempotency-Key", &key)], ZHANG_WEI))
        };
        let traces: Vec<_> = std::thread::scope(|scope| {
            let twins: Vec<_> = (0..8).map(|_| scope.spawn(twin)).collect();
            twins.into_iter().map(|twin| twin.join().unwrap()).collect()
        });
        assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
        assert_eq!(sandbox.charges(), round + 1);
    }
}

#[test]
fn busy_is_asked_again_and_not_recalled() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"sequence":[{"outcome":"SOURCE_BUSY"},{"outcome":"SOURCE_BUSY"}]}"#);
    assert_eq!(result(&ask_with(&sandbox, &KEY, ZHANG_WEI)), "-16");
    assert_eq!(result(&ask_with(&sandbox, &KEY, ZHANG_WEI)), "-16");
    assert_eq!(result(&ask_with(&sandbox, &KEY, ZHANG_WEI)), "0");
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn a_used_up_quota_still_returns_what_was_paid_for() {
    let sandbox = Sandbox::start();
    let bearer = format!("Bearer {}", token(TRIAL));
    let keyed = |key: &str| {
        let headers = [("authorization", bearer.as_str()), ("Idempotency-Key", key)];
        sandbox.request("POST", PATH, &headers, ZHANG_WEI.as_bytes())
    };
    let first = keyed("1");
    assert_eq!(first.header("x-credits-remaining"), Some("9"));
    for number in 2..=10 {
        let reply = keyed(&number.to_string());
        assert_eq!(reply.header("x-credits-remaining"), Some((10 - number).to_string().as_str()));
    }
    assert_eq!(refusal(&keyed("11")), (403, "used_up".into()));
    assert_eq!(refusal(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), (403, "used_up".into()));
    let again = keyed("1");
    assert_eq!((result(&again).as_str(), trace(&again)), ("0", trace(&first)));
    assert_eq!(again.header("x-charged"), Some("0"));
    assert_eq!(sandbox.charges(), 10);
}

#[test]
fn an_exceeded_rate_still_returns_what_was_paid_for() {
    let sandbox = Sandbox::start();
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276800}"#);
    let bearer = format!("Bearer {}", token(RATE_LIMITED));
    let keyed = |key: &str| {
        let headers = [("authorization", bearer.as_str()), ("Idempotency-Key", key)];
        sandbox.request("POST", PATH, &headers, ZHANG_WEI.as_bytes())
    };
    let first = keyed("1");
    for _ in 0..3 {
        assert_eq!(trace(&keyed("1")), trace(&first));
    }
    assert_eq!(refusal(&keyed("2")), (429, "too_many_requests".into()));
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn a_key_outlives_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let first = ask_with(&sandbox, &KEY, ZHANG_WEI);
    sandbox.kill();
    let sandbox = Sandbox::keeping(data.path(), "");
    let again = ask_with(&sandbox, &KEY, ZHANG_WEI);
    assert_eq!(trace(&again), trace(&first));
    assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    assert_eq!(sandbox.charges(), 1);
}
