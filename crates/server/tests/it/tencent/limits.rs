//! Requests a second, attempts a day.

use crate::support::Sandbox;

use super::client::{
    Ask, EVENING, PASSED, SAMPLE, answered, decision, elements, freeze, key_of, post, refused, said,
};

fn used_up() -> String {
    answered(-19, "验证次数超限，请次日重试")
}

fn too_fast(sent: u32, limit: u32) -> String {
    let message = format!("您当前每秒请求 `{sent}` 次，超过了每秒频率上限 `{limit}`，请稍后重试。");
    refused("RequestLimitExceeded", &message)
}

#[test]
fn two_requests_a_second() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let ask = post(SAMPLE).at(EVENING).key(key_of("RateLimited"));
    assert_eq!([ask.said(&sandbox), ask.said(&sandbox)], [PASSED, PASSED]);
    assert_eq!(ask.said(&sandbox), too_fast(3, 2));
    assert_eq!(
        ask.clone().english().said(&sandbox),
        refused(
            "RequestLimitExceeded",
            "You have sent `4` requests this second, more than the limit of `2` per second, please try again later."
        )
    );
    assert_eq!(post(SAMPLE).at(EVENING).said(&sandbox), PASSED, "others are not concerned");
    assert_eq!(sandbox.charges(), 3);
    freeze(&sandbox, EVENING + 1);
    assert_eq!(ask.said(&sandbox), PASSED, "the next second");
}

#[test]
fn the_rate_of_all_is_configured() {
    let sandbox = Sandbox::configured("[policy]\nrequests_per_second = 3\n");
    freeze(&sandbox, EVENING);
    let ask = post(SAMPLE).at(EVENING);
    assert_eq!([ask.said(&sandbox), ask.said(&sandbox), ask.said(&sandbox)], [PASSED; 3]);
    assert_eq!(ask.said(&sandbox), too_fast(4, 3));
    let own = ask.key(key_of("RateLimited"));
    assert_eq!([own.said(&sandbox), own.said(&sandbox)], [PASSED; 2]);
    assert_eq!(own.said(&sandbox), too_fast(3, 2));
}

#[test]
fn a_sandbox_limits_nothing_by_itself() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let ask = person(1, 1, 1, 1).at(EVENING);
    for _ in 0..50 {
        assert_eq!(ask.said(&sandbox), answered(-9, "无效卡号"));
    }
}

/// Nobody's card, name, mobile and identity number, each one of a few.
fn person(card: usize, name: usize, phone: usize, id: usize) -> Ask {
    let names = ["甲", "乙", "丙", "丁", "戊", "己"];
    let ids = [
        "990101198001010014",
        "990101198001010022",
        "990101198001010030",
        "990101198001010049",
        "990101198001010057",
        "990101198001010065",
    ];
    post(elements(
        &format!("王{}", names[name]),
        &format!("62170000000001000{card:02}"),
        &format!("161999999{phone:02}"),
        ids[id],
    ))
    .at(EVENING)
}

/// Each value of each element counts for itself: three a day here, 500 by default.
#[test]
fn each_element_is_counted() {
    let no_such_card = answered(-9, "无效卡号");
    let sandbox = Sandbox::configured("[attempts]\nper_value = 3\nper_card = 1000\nlock_after = 1000\n");
    freeze(&sandbox, EVENING);
    type Asked = fn(usize) -> Ask;
    let same: [(&str, Asked); 4] = [
        ("card", |at| person(0, at, at, at)),
        ("name", |at| person(at + 10, 0, at + 10, at)),
        ("phone", |at| person(at + 20, at, 0, at)),
        ("id", |at| person(at + 30, at, at + 30, 0)),
    ];
    for (element, ask) in same {
        sandbox.control("POST", "reset", "");
        freeze(&sandbox, EVENING);
        for at in 1..=3 {
            assert_eq!(ask(at).said(&sandbox), no_such_card, "{element}");
        }
        let fourth = ask(4).send(&sandbox);
        assert_eq!(said(&fourth), used_up(), "{element}");
        assert_eq!(decision(&fourth), "row=6 outcome=ATTEMPTS_EXCEEDED by=limits");
        assert_eq!(
            ask(4).key(key_of("SignedOnly")).said(&sandbox),
            no_such_card,
            "another caller: {element}"
        );
    }
}

/// A common name would use up the limit alone.
#[test]
fn an_element_may_be_left_out() {
    let settings = "[attempts]\nper_value = 2\nper_card = 1000\nlock_after = 1000\ncount_name = false\n";
    let sandbox = Sandbox::configured(settings);
    freeze(&sandbox, EVENING);
    for at in 0..6 {
        assert_eq!(person(at, 0, at, at).said(&sandbox), answered(-9, "无效卡号"));
    }
    assert_eq!(person(0, 1, 7, 0).said(&sandbox), answered(-9, "无效卡号"));
    assert_eq!(person(0, 2, 8, 0).said(&sandbox), used_up());
}

#[test]
fn used_up_attempts_are_free_and_take_no_attempt() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 2\n");
    freeze(&sandbox, EVENING);
    for _ in 0..2 {
        assert_eq!(person(1, 1, 1, 1).said(&sandbox), answered(-9, "无效卡号"));
    }
    for _ in 0..3 {
        assert_eq!(person(1, 1, 1, 1).said(&sandbox), used_up());
    }
    assert_eq!(
        person(1, 1, 1, 1).english().said(&sandbox),
        answered(-19, "Exceeded maximum verification attempts. Please retry the next day.")
    );
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!((&ledger["records"], &ledger["charges"]), (&6.into(), &2.into()));
}

/// Guessing works where every shop counts alone: a card is counted across callers.
#[test]
fn a_card_is_counted_across_callers() {
    let sandbox = Sandbox::configured("[attempts]\n");
    freeze(&sandbox, EVENING);
    let callers = ["SignedOnly", "RateLimited", "Trial"];
    for at in 0..10 {
        freeze(&sandbox, EVENING + at);
        let ask = person(1, 1, 1, 1).key(key_of(callers[at as usize % 3]));
        assert_eq!(ask.said(&sandbox), answered(-9, "无效卡号"), "{at}");
    }
    assert_eq!(person(1, 2, 2, 2).said(&sandbox), used_up(), "ten a day");
    assert_eq!(person(2, 1, 1, 1).said(&sandbox), answered(-9, "无效卡号"), "another card");
}

fn zhang_wei(phone: &str) -> Ask {
    post(elements("张伟", "6217000000000000012", phone, "99010119610202001X")).at(EVENING)
}

/// Three mismatches in a row lock the pair of caller and card; a pass before that begins anew.
#[test]
fn three_mismatches_lock_a_card_for_their_caller() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 100\n");
    freeze(&sandbox, EVENING);
    let mismatch = answered(-6, "持卡人信息有误");
    let (right, wrong) = (zhang_wei("16100000001"), zhang_wei("16100000002"));
    assert_eq!([wrong.said(&sandbox), wrong.said(&sandbox)], [mismatch.clone(), mismatch.clone()]);
    assert_eq!(right.said(&sandbox), PASSED);
    for _ in 0..3 {
        assert_eq!(wrong.said(&sandbox), mismatch);
    }
    assert_eq!([wrong.said(&sandbox), right.said(&sandbox)], [used_up(), used_up()]);
    assert_eq!(right.clone().key(key_of("SignedOnly")).said(&sandbox), PASSED, "nobody else's customers");
    // 2026-11-22T16:00:00Z is midnight in Beijing.
    let midnight = 1_795_363_200;
    freeze(&sandbox, midnight - 1);
    assert_eq!(right.clone().at(midnight - 1).said(&sandbox), used_up());
    freeze(&sandbox, midnight);
    assert_eq!(right.at(midnight).said(&sandbox), PASSED);
}

/// Banks in China release a card at their midnight, which is 16:00 UTC.
#[test]
fn attempts_begin_anew_at_midnight_in_beijing() {
    let sandbox = Sandbox::configured("[attempts]\nper_value = 2\n");
    let no_such_card = answered(-9, "无效卡号");
    let midnight = 1_795_363_200;
    for (at, expected) in [
        (EVENING, &no_such_card),
        // Midnight UTC is nothing.
        (midnight - 16 * 3600, &no_such_card),
        (midnight - 1, &used_up()),
        (midnight, &no_such_card),
        (midnight + 1, &no_such_card),
        (midnight + 2, &used_up()),
        (midnight + 86_400, &no_such_card),
    ] {
        freeze(&sandbox, at);
        assert_eq!(&person(1, 1, 1, 1).at(at).said(&sandbox), expected, "{at}");
    }
}

#[test]
fn attempts_survive_a_restart() {
    let settings = "[attempts]\nper_value = 3\n";
    let data = tempfile::tempdir().unwrap();
    let ask = person(1, 1, 1, 1);
    for (before, expected) in [(0, answered(-9, "无效卡号")), (1, answered(-9, "无效卡号")), (2, used_up())]
    {
        let sandbox = Sandbox::keeping(data.path(), settings);
        freeze(&sandbox, EVENING);
        assert_eq!(sandbox.charges(), before + u64::from(before == 2), "{before}");
        assert_eq!(ask.said(&sandbox), expected);
        match before {
            // Once as it should be, once as it happens.
            0 => sandbox.stop(),
            1 => {
                assert_eq!(ask.said(&sandbox), expected);
                sandbox.kill();
            }
            _ => {}
        }
    }
}

/// Requests at once on one card: each holds its attempt before it is looked up.
#[test]
fn attempts_at_once_cannot_exceed_the_limit() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 4\n");
    let request = zhang_wei("16100000001").at(crate::support::now()).sign(&sandbox);
    let replies: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| said(&request.send(&sandbox)))).collect();
        asked.into_iter().map(|reply| reply.join().unwrap()).collect()
    });
    let passed = replies.iter().filter(|reply| *reply == PASSED).count();
    let refused = replies.iter().filter(|reply| **reply == used_up()).count();
    assert_eq!((passed, refused), (4, 12), "{replies:?}");
}
