//! Attempts a day: on one card across everybody, and by one caller who keeps guessing.

use super::*;
use crate::support::now;

/// 2026-11-21T15:59:59Z, one second before midnight in Beijing.
const BEFORE_MIDNIGHT: i64 = 1_795_276_799;

fn freeze(sandbox: &Sandbox, now: i64) {
    sandbox.control("PUT", "clock", &format!(r#"{{"mode":"frozen","now":{now}}}"#));
}

#[test]
fn nothing_is_counted_unless_asked_for() {
    let sandbox = Sandbox::start();
    for _ in 0..12 {
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    }
}

#[test]
fn a_card_is_counted_across_callers_and_wires() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 4\n");
    freeze(&sandbox, now());
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], ZHANG_WEI)), "0");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    assert_eq!(result(&ask_as(&sandbox, SIGNED_ONLY, NOT_ZHANG_WEI)), "-4");
    let fifth = ask(&sandbox, ZHANG_WEI);
    assert_eq!(
        transcript(&sandbox, &fifth),
        "200
content-type: application/json
x-charged: 0
x-credits-charged: 0
x-sandbox-decision: row=6 outcome=ATTEMPTS_EXCEEDED by=limits
x-trace-id: {trace}

{\"result\":\"-17\",\"description\":\"Exceeded the limit of verification attempts, please try again the next day\"}"
    );
    assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], ZHANG_WEI)), "-19");
    assert_eq!(result(&ask_as(&sandbox, SIGNED_ONLY, ZHANG_WEI)), "-17");
    let other = ZHANG_WEI.replace("6217000000000000012", "6217000000000000020");
    assert_eq!(result(&ask(&sandbox, &other)), "-7", "another card");
    assert_eq!(sandbox.charges(), 5);
}

#[test]
fn ten_a_card_is_the_default() {
    let sandbox = Sandbox::configured("[attempts]\n");
    for _ in 0..10 {
        assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    }
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17");
}

#[test]
fn what_is_malformed_or_scripted_takes_no_attempt() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 1\n");
    let malformed = ZHANG_WEI.replace("16100000001", "no phone");
    for _ in 0..3 {
        assert_eq!(result(&ask(&sandbox, &malformed)), "-1");
        assert_eq!(result(&ask(&sandbox, SAMPLE)), "0");
    }
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17");
    assert_eq!(result(&ask(&sandbox, &malformed)), "-1", "the format is looked at first");
}

#[test]
fn three_mismatches_in_a_row_lock_the_caller_and_nobody_else() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 100\n");
    for _ in 0..3 {
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    }
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17", "even if it is right now");
    assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], ZHANG_WEI)), "-19", "the same caller");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0", "another caller");
    let other = ZHANG_WEI.replace("6217000000000000012", "6217000000000000020");
    assert_eq!(result(&ask(&sandbox, &other)), "-7", "another card");
}

#[test]
fn a_pass_in_between_starts_again() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 100\n");
    for _ in 0..2 {
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
        assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    }
    for _ in 0..3 {
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    }
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17");
}

#[test]
fn a_caller_may_ask_so_often_about_one_value() {
    let settings = "[attempts]\nper_card = 100\nper_value = 2\ncount_card = false\ncount_name = false\ncount_mobile = false\n";
    let sandbox = Sandbox::configured(settings);
    let with_card = |card: &str| ZHANG_WEI.replace("6217000000000000012", card);
    assert_eq!(result(&ask(&sandbox, &with_card("6217000000000000020"))), "-7");
    assert_eq!(result(&ask(&sandbox, &with_card("6217000000000000038"))), "-7");
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17", "the third time the same identity number");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0", "another caller");
}

#[test]
fn it_all_ends_at_midnight_in_beijing() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 4\n");
    freeze(&sandbox, BEFORE_MIDNIGHT);
    for _ in 0..3 {
        assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    }
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17", "locked");
    assert_eq!(tencent_result(&ask_tencent(&sandbox, BEFORE_MIDNIGHT, &[], ZHANG_WEI)), "-19");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "-17", "the card is used up");
    freeze(&sandbox, BEFORE_MIDNIGHT + 1);
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
}

#[test]
fn attempts_outlive_a_stop_and_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let settings = "[attempts]\nper_card = 5\n";
    let start = || {
        let sandbox = Sandbox::keeping(data.path(), settings);
        freeze(&sandbox, BEFORE_MIDNIGHT);
        sandbox
    };
    let sandbox = start();
    assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    sandbox.stop();
    let sandbox = start();
    assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
    sandbox.kill();
    let sandbox = start();
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17", "three mismatches");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    sandbox.kill();
    let sandbox = start();
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "-17", "five on the card");
}
