//! The same question sent again is charged once, and answered the same.

use std::time::Duration;

use crate::support::{Reply, Sandbox};

use super::client::{
    Ask, EVENING, PASSED, SAMPLE, SAMPLE_MEMBERS, answered, elements, form, freeze, key_of, post, refused,
    said,
};

fn keyed(body: impl Into<Vec<u8>>, key: &str) -> Ask {
    post(body).header("Idempotency-Key", key)
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("x-idempotent-replay") == Some("true")
}

fn reused() -> String {
    refused("InvalidParameter", "`Idempotency-Key` 已用于另一请求。")
}

#[test]
fn the_second_answer_is_the_first() {
    for header in ["Idempotency-Key", "X-Idempotency-Key"] {
        let sandbox = Sandbox::start();
        let ask = || post(SAMPLE).header(header, "order-1");
        let (first, second) = (ask().send(&sandbox), ask().send(&sandbox));
        assert_eq!(said(&first), PASSED);
        assert_eq!(first.body, second.body, "the RequestId too: both speak of one record");
        assert_eq!((is_replay(&first), is_replay(&second)), (false, true));
        assert_eq!(second.header("x-tc-requestid"), first.header("x-tc-requestid"));
        assert_eq!(second.header("x-sandbox-decision"), Some("row=0 outcome=PASS by=idempotency"));
        let ledger = sandbox.control("GET", "ledger", "");
        assert_eq!((&ledger["records"], &ledger["charges"]), (&1.into(), &1.into()));
        // Another key is another question; none at all, too.
        assert!(!is_replay(&post(SAMPLE).header(header, "order-2").send(&sandbox)));
        assert!(!is_replay(&post(SAMPLE).send(&sandbox)));
        assert_eq!(sandbox.charges(), 3);
    }
}

/// Who sends a key relies on being charged once; one that cannot be kept is not ignored.
#[test]
fn a_key_that_cannot_be_used() {
    let sandbox = Sandbox::start();
    for key in ["", "  ", "order 1", "订单", &"x".repeat(256)] {
        let malformed = "请求头 `Idempotency-Key` 须为 1 至 255 个可见 ASCII 字符。";
        for header in ["Idempotency-Key", "X-Idempotency-Key"] {
            let refusal = post(SAMPLE).header(header, key).send(&sandbox);
            assert_eq!(said(&refusal), refused("InvalidParameter", malformed), "{key}");
        }
    }
    let twice = |other: &str| keyed(SAMPLE, "order-1").english().header("X-Idempotency-Key", other);
    let ambiguous = "The header `Idempotency-Key` is given twice with different values.";
    assert_eq!(twice("order-2").said(&sandbox), refused("InvalidParameter", ambiguous));
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], 0);
    assert_eq!(twice("order-1").said(&sandbox), answered(0, "Authentication passed"));
    assert_eq!(keyed(SAMPLE, &"x".repeat(255)).said(&sandbox), PASSED);
}

/// It is the elements that count, not how they are written: retries are serialised anew.
#[test]
fn a_retry_may_be_written_differently() {
    let sandbox = Sandbox::start();
    let (name, card, phone, id) = ("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    let first = keyed(elements(name, card, phone, id), "order-1").send(&sandbox);
    assert_eq!(said(&first), PASSED);
    let other_spelling = elements(" 张伟", "6217 0000 0000 0000 012", phone, "99010119610202001x");
    let members = [("Name", name), ("BankCard", card), ("Phone", phone), ("IdCard", id)];
    for retry in [
        keyed(other_spelling, "order-1").send(&sandbox),
        form(&members).header("X-Idempotency-Key", "order-1").send(&sandbox),
        form(&members).header("X-Idempotency-Key", "order-1").get().send(&sandbox),
    ] {
        assert_eq!(retry.body, first.body);
    }
    // The language is not part of the question.
    let english = keyed(elements(name, card, phone, id), "order-1").english().send(&sandbox);
    assert_eq!(said(&english), answered(0, "Authentication passed"));
    assert_eq!((sandbox.charges(), is_replay(&english)), (1, true));
}

/// Never a status SDKs would retry, and never an answer to another question.
#[test]
fn a_key_used_for_another_question() {
    let sandbox = Sandbox::start();
    assert_eq!(keyed(SAMPLE, "order-1").said(&sandbox), PASSED);
    let other = SAMPLE.replace("6225768888888888", "6226090210146748");
    assert_eq!(keyed(other.clone(), "order-1").said(&sandbox), reused());
    assert_eq!(
        keyed(other, "order-1").english().said(&sandbox),
        refused("InvalidParameter", "The `Idempotency-Key` was used for another question.")
    );
    let other_document = SAMPLE.replace('}', r#","CertType":1}"#);
    assert_eq!(keyed(other_document, "order-1").said(&sandbox), reused());
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn keys_belong_to_their_application() {
    let sandbox = Sandbox::start();
    assert_eq!(keyed(SAMPLE, "order-1").said(&sandbox), PASSED);
    let other = keyed(SAMPLE.replace("6225768888888888", "6226090210146748"), "order-1");
    assert_eq!(other.key(key_of("SignedOnly")).said(&sandbox), answered(-6, "持卡人信息有误"));
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn twins_at_once_are_charged_once() {
    let sandbox = Sandbox::start();
    let body = elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    for round in 1..=20 {
        let request = keyed(body.clone(), &format!("order-{round}")).sign(&sandbox);
        let replies: Vec<Reply> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| request.send(&sandbox))).collect();
            asked.into_iter().map(|reply| reply.join().unwrap()).collect()
        });
        assert_eq!(said(&replies[0]), PASSED);
        assert!(replies.iter().all(|reply| reply.body == replies[0].body), "one RequestId");
        assert_eq!(replies.iter().filter(|reply| is_replay(reply)).count(), 3);
        assert_eq!(sandbox.charges(), round);
    }
}

/// A client that has waited long enough asks again while its first reply is still on its way.
#[test]
fn a_retry_while_the_first_reply_is_delayed() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"delay_ms":1500}}"#);
    let request = keyed(SAMPLE, "order-1").sign(&sandbox);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| request.send(&sandbox));
        // Journalled before the delay: then it was asked.
        while sandbox.control("GET", "journal", "")["count"] == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = request.send(&sandbox);
        assert!(!first.is_finished(), "the first still waits");
        let first = first.join().unwrap();
        assert_eq!((said(&first).as_str(), first.body), (PASSED, second.body.clone()));
        assert!(is_replay(&second));
    });
    assert_eq!(sandbox.charges(), 1);
}

/// The answer was lost on its way, three ways; the retry gets it and costs nothing.
#[test]
fn a_retry_after_a_lost_reply() {
    for effect in [r#"{"drop":"after"}"#, r#"{"truncate":10}"#, r#"{"status":502,"when":"after"}"#] {
        let sandbox = Sandbox::start();
        sandbox.fault(&format!(r#"{{"count":1,"effect":{effect}}}"#));
        let request = keyed(SAMPLE, "order-1").sign(&sandbox);
        match sandbox.try_send(&request.bytes()) {
            Ok(reply) => assert_eq!((reply.status, effect.contains("502")), (502, true), "{effect}"),
            Err(_) => assert!(!effect.contains("502"), "{effect}"),
        }
        assert_eq!(sandbox.charges(), 1, "{effect}");
        let retry = request.send(&sandbox);
        assert_eq!((said(&retry).as_str(), is_replay(&retry)), (PASSED, true), "{effect}");
        assert_eq!(sandbox.charges(), 1);
    }
}

/// What was paid for can be had again, whatever has become of balance, rate and attempts.
#[test]
fn a_stored_answer_is_given_though_the_balance_is_used_up() {
    let sandbox = Sandbox::start();
    let trial = |key: &str| keyed(SAMPLE, key).key(key_of("Trial"));
    let paid = trial("order-0").send(&sandbox);
    for order in 1..10 {
        assert_eq!(trial(&format!("order-{order}")).said(&sandbox), PASSED);
    }
    let arrears = refused("UnauthorizedOperation.Arrears", "账号已欠费。");
    assert_eq!(trial("order-10").said(&sandbox), arrears);
    let again = trial("order-0").send(&sandbox);
    assert_eq!((said(&again).as_str(), &again.body), (PASSED, &paid.body));
    assert_eq!(trial("order-10").said(&sandbox), arrears, "a refusal is not stored as an answer");
    assert_eq!(sandbox.charges(), 10);
}

#[test]
fn a_stored_answer_is_given_though_rate_and_attempts_are_used_up() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 1\n");
    freeze(&sandbox, EVENING);
    let body = elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    let ask = |key: &str| keyed(body.clone(), key).at(EVENING).key(key_of("RateLimited"));
    let paid = ask("order-1").send(&sandbox);
    assert_eq!(said(&paid), PASSED);
    assert_eq!(ask("order-2").said(&sandbox), answered(-19, "验证次数超限，请次日重试"));
    let too_fast = "您当前每秒请求 `3` 次，超过了每秒频率上限 `2`，请稍后重试。";
    assert_eq!(ask("order-3").said(&sandbox), refused("RequestLimitExceeded", too_fast));
    assert_eq!(ask("order-1").send(&sandbox).body, paid.body);
    assert_eq!(sandbox.charges(), 1);
}

/// A key is no way around the signature, nor a way to learn of others' questions.
#[test]
fn a_stored_answer_needs_its_signature() {
    let sandbox = Sandbox::start();
    let request = keyed(SAMPLE, "order-1").sign(&sandbox);
    assert_eq!(request.said(&sandbox), PASSED);
    let forged = request.replacing("/faceid/", "/faceie/").said(&sandbox);
    assert!(forged.contains("AuthFailure.SignatureFailure"), "{forged}");
}

/// "Busy" and "too many attempts" invite to ask again: the next one is asked.
#[test]
fn busy_is_not_stored() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"sequence":[{"outcome":"SOURCE_BUSY"},{"outcome":"ATTEMPTS_EXCEEDED"}]}"#);
    let replies = [0, 1, 2, 3].map(|_| keyed(SAMPLE, "order-1").send(&sandbox));
    let expected = [
        answered(-18, "验证中心服务繁忙"),
        answered(-19, "验证次数超限，请次日重试"),
        PASSED.to_owned(),
        PASSED.to_owned(),
    ];
    assert_eq!(replies.each_ref().map(said), expected);
    assert_eq!(replies.each_ref().map(is_replay), [false, false, false, true]);
    assert_eq!(sandbox.charges(), 1);
}

/// Errors are no answers; free answers are.
#[test]
fn what_is_stored() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"error":"InternalError"}}"#);
    assert_eq!(keyed(SAMPLE, "order-1").said(&sandbox), refused("InternalError", "内部错误。"));
    assert_eq!(
        keyed("{}", "order-1").said(&sandbox),
        refused("MissingParameter", "请求缺少必填参数 `Name`。")
    );
    assert_eq!(keyed(SAMPLE, "order-1").said(&sandbox), PASSED);
    let malformed = elements("1", "1", "1", "1");
    let replies = [0, 1].map(|_| keyed(malformed.clone(), "order-2").send(&sandbox));
    assert_eq!(said(&replies[0]), answered(-2, "姓名校验不通过"));
    assert_eq!((replies[0].body == replies[1].body, is_replay(&replies[1])), (true, true));
}

#[test]
fn keys_are_kept_for_a_day() {
    let sandbox = Sandbox::start();
    let at = |off: i64| {
        freeze(&sandbox, EVENING + off);
        keyed(SAMPLE, "order-1").at(EVENING + off).send(&sandbox)
    };
    let first = at(0);
    assert_eq!(at(86_399).body, first.body);
    let next = at(86_400);
    assert_eq!((said(&next).as_str(), is_replay(&next)), (PASSED, false));
    assert_eq!(sandbox.charges(), 2);
}

#[test]
fn keys_survive_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let first = Sandbox::keeping(data.path(), "");
    let paid = keyed(SAMPLE, "order-1").send(&first);
    first.stop();
    let second = Sandbox::keeping(data.path(), "");
    let again = keyed(SAMPLE, "order-1").send(&second);
    assert_eq!((again.body == paid.body, is_replay(&again)), (true, true));
    let also_paid = keyed(SAMPLE, "order-2").send(&second);
    second.kill();
    let third = Sandbox::keeping(data.path(), "");
    assert_eq!(keyed(SAMPLE, "order-2").send(&third).body, also_paid.body, "after a crash too");
    assert_eq!(keyed(SAMPLE, "order-1").send(&third).body, paid.body);
    assert_eq!(third.charges(), 2);
    let other = SAMPLE.replace("6225768888888888", "6226090210146748");
    assert_eq!(keyed(other, "order-1").said(&third), reused());
}

/// SDKs re-send after broken connections without any key; a window recognises the content.
#[test]
fn a_window_for_the_same_content() {
    let sandbox = Sandbox::configured("[idempotency]\ncontent_window_seconds = 60\n");
    let at = |off: i64, body: &str| {
        freeze(&sandbox, EVENING + off);
        post(body).at(EVENING + off).send(&sandbox)
    };
    let first = at(0, SAMPLE);
    assert_eq!((said(&first).as_str(), is_replay(&first)), (PASSED, false));
    let second = at(59, SAMPLE);
    assert_eq!((&second.body, is_replay(&second)), (&first.body, true));
    let other = at(59, &SAMPLE.replace("6225768888888888", "6226090210146748"));
    assert_eq!((said(&other), is_replay(&other)), (answered(-6, "持卡人信息有误"), false));
    assert_eq!(sandbox.charges(), 2);
    assert!(!is_replay(&at(60, SAMPLE)), "the window is over");
    assert_eq!(sandbox.charges(), 3);
    // Over signature v1 it is the same question.
    let form = form(&SAMPLE_MEMBERS).with("Timestamp", &(EVENING + 60).to_string());
    assert!(is_replay(&form.send(&sandbox)));
    assert_eq!(sandbox.charges(), 3);
}

#[test]
fn twins_within_the_window_are_charged_once() {
    let sandbox = Sandbox::configured("[idempotency]\ncontent_window_seconds = 60\n");
    let request = post(SAMPLE).sign(&sandbox);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| request.send(&sandbox))).collect();
        asked.into_iter().map(|reply| reply.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|reply| reply.body == replies[0].body));
    assert_eq!((said(&replies[0]).as_str(), sandbox.charges()), (PASSED, 1));
}

#[test]
fn how_long_keys_are_kept_is_configured() {
    let sandbox = Sandbox::configured("[idempotency]\nkey_kept_hours = 1\n");
    let at = |off: i64| {
        freeze(&sandbox, EVENING + off);
        keyed(SAMPLE, "order-1").at(EVENING + off).send(&sandbox)
    };
    assert_eq!([at(0), at(3599), at(3600)].each_ref().map(is_replay), [false, true, false]);
}
