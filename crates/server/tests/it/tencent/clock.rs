//! Five minutes either way: the most frequent support case of this protocol.

use crate::support::Sandbox;

use super::client::{EVENING, PASSED, SAMPLE, SAMPLE_MEMBERS, form, freeze, post, refused, said};

fn expired(sandbox: &Sandbox, at: i64) -> (String, String) {
    let ask = post(SAMPLE).at(at);
    (ask.said(sandbox), ask.english().said(sandbox))
}

#[test]
fn five_minutes_are_forgiven() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    for off in [-300, -299, -1, 0, 1, 299, 300] {
        assert_eq!(post(SAMPLE).at(EVENING + off).said(&sandbox), PASSED, "{off}");
        let form = form(&SAMPLE_MEMBERS).with("Timestamp", &(EVENING + off).to_string());
        assert_eq!(form.said(&sandbox), PASSED, "{off}");
    }
}

#[test]
fn a_slow_clock_is_told_the_time() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let (zh, en) = expired(&sandbox, EVENING - 301);
    assert_eq!(
        zh,
        refused(
            "AuthFailure.SignatureExpire",
            "签名已过期，请重新请求。请求的 `Timestamp` 比服务器时间 `2026-11-21T18:06:12Z`（`1795284372`）慢 `301` 秒，允许相差 `300` 秒。"
        )
    );
    assert_eq!(
        en,
        refused(
            "AuthFailure.SignatureExpire",
            "The signature is expired, please request again. The request's `Timestamp` is `301` seconds behind \
             the server's time `2026-11-21T18:06:12Z` (`1795284372`), `300` are allowed."
        )
    );
}

#[test]
fn a_fast_clock_is_told_the_time() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let (zh, en) = expired(&sandbox, EVENING + 301);
    assert_eq!(
        zh,
        refused(
            "AuthFailure.SignatureExpire",
            "签名已过期，请重新请求。请求的 `Timestamp` 比服务器时间 `2026-11-21T18:06:12Z`（`1795284372`）快 `301` 秒，允许相差 `300` 秒。"
        )
    );
    assert_eq!(
        en,
        refused(
            "AuthFailure.SignatureExpire",
            "The signature is expired, please request again. The request's `Timestamp` is `301` seconds ahead of \
             the server's time `2026-11-21T18:06:12Z` (`1795284372`), `300` are allowed."
        )
    );
}

#[test]
fn signature_v1_expires_with_the_same_words() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let form = form(&SAMPLE_MEMBERS).with("Timestamp", &(EVENING - 301).to_string());
    assert_eq!(form.said(&sandbox), expired(&sandbox, EVENING - 301).0);
}

/// The hint is in the reply, for whoever writes the client, and in the log, for the operator.
#[test]
fn the_reply_and_the_log_say_what_is_wrong_with_the_clock() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let ask = post(SAMPLE).at(EVENING).sign(&sandbox);
    let milliseconds = EVENING * 1000 + 7;
    let in_milliseconds = ask.having("X-TC-Timestamp", &milliseconds.to_string());
    let divide = "The timestamp is in milliseconds: divide it by 1000, it is unix seconds.";
    for (request, at, hint) in [
        (
            post(SAMPLE).at(EVENING - 301).sign(&sandbox),
            EVENING - 301,
            "The client's clock is 301 seconds slow: synchronise it.",
        ),
        (
            post(SAMPLE).at(EVENING + 3600).sign(&sandbox),
            EVENING + 3600,
            "The client's clock is 3600 seconds fast: synchronise it.",
        ),
        (in_milliseconds.clone(), milliseconds, divide),
        // Whose date is made from the same number.
        (in_milliseconds.replacing("/2026-11-21/", "/58860-09-14/"), milliseconds, divide),
    ] {
        let reply = request.send(&sandbox);
        let off = EVENING.abs_diff(at);
        let way = if at < EVENING { "慢" } else { "快" };
        let message = format!(
            "签名已过期，请重新请求。请求的 `Timestamp` 比服务器时间 `2026-11-21T18:06:12Z`（`1795284372`）{way} `{off}` 秒，允许相差 `300` 秒。"
        );
        assert_eq!(said(&reply), refused("AuthFailure.SignatureExpire", &message));
        assert_eq!(reply.header("x-sandbox-hint"), Some(hint));
        let log = sandbox.log();
        assert!(log.contains(&format!("a request was not signed as it should be: {hint}")), "{log}");
    }
    let entry = &sandbox.control("GET", "journal?limit=1", "")["entries"][0];
    assert_eq!(entry["error"], "AuthFailure.SignatureExpire");
    assert_eq!(entry["hint"], "The timestamp is in milliseconds: divide it by 1000, it is unix seconds.");
}

#[test]
fn a_timestamp_is_whole_unix_seconds() {
    let sandbox = Sandbox::start();
    for wrong in ["1795284372.5", "2026-11-21T18:06:12Z", "-1", "99999999999999999999"] {
        let type_error = refused("InvalidParameter", "参数 `Timestamp` 类型错误。");
        let tc3 = post(SAMPLE).sign(&sandbox).having("X-TC-Timestamp", wrong);
        assert_eq!(tc3.said(&sandbox), type_error, "{wrong}");
        assert_eq!(form(&SAMPLE_MEMBERS).with("Timestamp", wrong).said(&sandbox), type_error, "{wrong}");
    }
}

/// The sandbox's clock can be set, and clients of that time are believed.
#[test]
fn another_time_can_be_set() {
    let sandbox = Sandbox::start();
    let shifted = sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":86400}"#);
    let tomorrow = shifted["now"].as_i64().unwrap();
    assert_eq!(post(SAMPLE).at(tomorrow).said(&sandbox), PASSED);
    assert!(post(SAMPLE).said(&sandbox).contains("AuthFailure.SignatureExpire"));
    sandbox.control("PUT", "clock", r#"{"mode":"real"}"#);
    assert_eq!(post(SAMPLE).said(&sandbox), PASSED);
}
