//! All 22 result codes, their words in both languages, and what is charged.

use crate::support::Sandbox;

use super::client::{PASSED, answered, decision, elements, form, post, refused, said};

/// Code, Chinese and English words, and whether an answer is charged; as on Tencent's pages.
const CODES: [(i8, &str, &str, bool); 22] = [
    (0, "认证通过", "Authentication passed", true),
    (-1, "认证未通过", "Authentication failed", true),
    (-2, "姓名校验不通过", "Name verification failed", false),
    (-3, "身份证号码有误", "Identity number error", false),
    (-4, "银行卡号格式有误", "Incorrect bank card number format", false),
    (-5, "手机号码不合法", "Invalid phone number", false),
    (-6, "持卡人信息有误", "Cardholder information is incorrect", true),
    (-7, "未开通无卡支付", "Cardless payment not enabled", true),
    (-8, "此卡被没收", "Card confiscated", true),
    (-9, "无效卡号", "Invalid card number", true),
    (-10, "此卡无对应发卡行", "No corresponding issuing bank for this card", true),
    (-11, "该卡未初始化或睡眠卡", "The card is uninitialized or a Sleep Card", true),
    (-12, "作弊卡、吞卡", "Cheat card, card confiscation", true),
    (-13, "此卡已挂失", "Reported lost", true),
    (-14, "该卡已过期", "The card has expired.", true),
    (-15, "受限制的卡", "Restricted card", true),
    (-16, "密码错误次数超限", "Exceeded the number of password errors", true),
    (-17, "发卡行不支持此交易", "Issuer does not support this transaction", true),
    (-18, "验证中心服务繁忙", "Verification Center Service busy", false),
    (
        -19,
        "验证次数超限，请次日重试",
        "Exceeded maximum verification attempts. Please retry the next day.",
        false,
    ),
    (
        -20,
        "该证件号暂不支持核验，当前仅支持二代身份证",
        "The ID number is not currently supported for verification. Currently only support second-generation \
         resident identity card.",
        false,
    ),
    (-21, "卡状态异常或卡号错误", "Card status exception or card number error", true),
];

/// The card that gets a code, whatever the other elements say.
fn magic_card(code: i8) -> String {
    let body = format!("6200000000{:02}000", -code);
    let card = (0..10).map(|check| format!("{body}{check}")).find(|card| luhn(card));
    card.unwrap()
}

fn luhn(card: &str) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = card.chars().rev().map(|digit| digit.to_digit(10).unwrap()).enumerate();
    digits.map(|(at, digit)| if at % 2 == 1 { doubled(digit) } else { digit }).sum::<u32>() % 10 == 0
}

#[test]
fn the_cards_of_the_documentation() {
    assert_eq!(magic_card(0), "6200000000000005");
    assert_eq!(magic_card(-13), "6200000000130000");
}

#[test]
fn every_code_in_chinese() {
    let sandbox = Sandbox::start();
    for (code, zh, _, _) in CODES {
        let body = elements("?", &magic_card(code), "", "");
        assert_eq!(post(body.clone()).said(&sandbox), answered(code, zh));
        assert_eq!(post(body).header("X-TC-Language", "zh-CN").said(&sandbox), answered(code, zh));
    }
}

#[test]
fn every_code_in_english() {
    let sandbox = Sandbox::start();
    for (code, _, en, _) in CODES {
        let body = elements("?", &magic_card(code), "", "");
        assert_eq!(post(body).english().said(&sandbox), answered(code, en));
    }
}

#[test]
fn every_code_by_signature_v1_in_both_languages() {
    let sandbox = Sandbox::start();
    for (code, zh, en, _) in CODES {
        let card = magic_card(code);
        let form = form(&[("Name", "?"), ("BankCard", &card), ("Phone", ""), ("IdCard", "")]);
        assert_eq!(form.said(&sandbox), answered(code, zh));
        assert_eq!(form.clone().with("Language", "zh-CN").get().said(&sandbox), answered(code, zh));
        assert_eq!(form.clone().with("Language", "en-US").said(&sandbox), answered(code, en));
        assert_eq!(form.sha256().get().with("Language", "en-US").said(&sandbox), answered(code, en));
    }
}

/// Node, Java, PHP and C++ say no language; the international service is known by its name.
#[test]
fn every_code_of_the_international_host_is_english() {
    let sandbox = Sandbox::start();
    for (code, zh, en, _) in CODES {
        let ask = post(elements("?", &magic_card(code), "", "")).host("faceid.intl.tencentcloudapi.com");
        assert_eq!(ask.said(&sandbox), answered(code, en));
        assert_eq!(
            ask.header("X-TC-Language", "zh-CN").said(&sandbox),
            answered(code, zh),
            "what is said wins"
        );
    }
}

#[test]
fn the_language_of_clients_that_say_none_is_configured() {
    let sandbox = Sandbox::configured("[tencent]\nlanguage = \"en-US\"\n");
    let lost = post(elements("?", &magic_card(-13), "", ""));
    assert_eq!(lost.said(&sandbox), answered(-13, "Reported lost"));
    assert_eq!(lost.header("X-TC-Language", "zh-CN").said(&sandbox), answered(-13, "此卡已挂失"));
}

#[test]
fn an_unknown_language_is_none() {
    let sandbox = Sandbox::start();
    let lost = post(elements("?", &magic_card(-13), "", ""));
    assert_eq!(lost.clone().header("X-TC-Language", "ja-JP").said(&sandbox), answered(-13, "此卡已挂失"));
    assert_eq!(lost.header("X-TC-Language", "EN-us").said(&sandbox), answered(-13, "Reported lost"));
}

/// 15 codes are charged, 7 are free, all 22 are on record.
#[test]
fn what_is_charged() {
    let sandbox = Sandbox::start();
    for (code, zh, _, charged) in CODES {
        let before = sandbox.charges();
        assert_eq!(post(elements("?", &magic_card(code), "", "")).said(&sandbox), answered(code, zh));
        assert_eq!(sandbox.charges() - before, u64::from(charged), "{code}");
    }
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!((&ledger["records"], &ledger["charges"]), (&22.into(), &15.into()));
    assert_eq!(ledger["charged_credits"], "15");
}

/// Any request gets any code by a header of its own.
#[test]
fn an_outcome_can_be_asked_for() {
    let sandbox = Sandbox::start();
    let body = elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    for (asked, expected) in [
        ("-13", answered(-13, "此卡已挂失")),
        ("CARD_LOST", answered(-13, "此卡已挂失")),
        (" SOURCE_BUSY ", answered(-18, "验证中心服务繁忙")),
        ("PHONE_UNCHECKABLE", answered(-17, "发卡行不支持此交易")),
        ("0", PASSED.to_owned()),
    ] {
        let reply = post(body.clone()).header("X-Sandbox-Outcome", asked).send(&sandbox);
        assert_eq!(said(&reply), expected, "{asked}");
        assert!(decision(&reply).ends_with(" by=header"), "{}", decision(&reply));
    }
    let nonsense = post(body).english().header("X-Sandbox-Outcome", "LOST").said(&sandbox);
    assert_eq!(
        nonsense,
        refused(
            "InvalidParameter",
            "`X-Sandbox-Outcome` is neither an outcome such as CARD_LOST nor a code such as \
             -13: LOST"
        )
    );
}

/// Required members must be there all the same.
#[test]
fn a_magic_card_is_no_excuse_for_a_missing_member() {
    let sandbox = Sandbox::start();
    let body = r#"{"BankCard":"6200000000000005","Phone":"","IdCard":""}"#;
    assert_eq!(post(body).said(&sandbox), refused("MissingParameter", "请求缺少必填参数 `Name`。"));
}
