//! The eighteen documented results, as they stand on the wire.

use wire::Language;
use wire::acedata::code::{CardInformationCode, CheckCode, PhoneCode};
use wire::acedata::{Accept, Extra, success};

/// Number, whether it is charged, the body in English and in Chinese.
const RESULTS: [(i8, bool, &str, &str); 18] = [
    (
        0,
        true,
        r#"{"result":"0","description":"Authentication passed"}"#,
        r#"{"result":"0","description":"认证通过"}"#,
    ),
    (
        -1,
        true,
        r#"{"result":"-1","description":"Authentication not passed"}"#,
        r#"{"result":"-1","description":"认证未通过"}"#,
    ),
    (
        -2,
        false,
        r#"{"result":"-2","description":"Name verification not passed"}"#,
        r#"{"result":"-2","description":"姓名校验不通过"}"#,
    ),
    (
        -3,
        false,
        r#"{"result":"-3","description":"Bank card number is incorrect"}"#,
        r#"{"result":"-3","description":"银行卡号码有误"}"#,
    ),
    (
        -4,
        true,
        r#"{"result":"-4","description":"Cardholder information is incorrect"}"#,
        r#"{"result":"-4","description":"持卡人信息有误"}"#,
    ),
    (
        -5,
        true,
        r#"{"result":"-5","description":"No card payment activated"}"#,
        r#"{"result":"-5","description":"未开通无卡支付"}"#,
    ),
    (
        -6,
        true,
        r#"{"result":"-6","description":"This card has been confiscated"}"#,
        r#"{"result":"-6","description":"此卡被没收"}"#,
    ),
    (
        -7,
        true,
        r#"{"result":"-7","description":"Invalid card number"}"#,
        r#"{"result":"-7","description":"无效卡号"}"#,
    ),
    (
        -8,
        true,
        r#"{"result":"-8","description":"This card has no corresponding issuing bank"}"#,
        r#"{"result":"-8","description":"此卡无对应发卡行"}"#,
    ),
    (
        -9,
        true,
        r#"{"result":"-9","description":"The card is not initialized or is a dormant card"}"#,
        r#"{"result":"-9","description":"该卡未初始化或睡眠卡"}"#,
    ),
    (
        -10,
        true,
        r#"{"result":"-10","description":"Fraudulent card, card swallowed"}"#,
        r#"{"result":"-10","description":"作弊卡、吞卡"}"#,
    ),
    (
        -11,
        true,
        r#"{"result":"-11","description":"This card has been reported lost"}"#,
        r#"{"result":"-11","description":"此卡已挂失"}"#,
    ),
    (
        -12,
        true,
        r#"{"result":"-12","description":"This card has expired"}"#,
        r#"{"result":"-12","description":"该卡已过期"}"#,
    ),
    (
        -13,
        true,
        r#"{"result":"-13","description":"Restricted card"}"#,
        r#"{"result":"-13","description":"受限制的卡"}"#,
    ),
    (
        -14,
        true,
        r#"{"result":"-14","description":"Exceeded the limit of incorrect password attempts"}"#,
        r#"{"result":"-14","description":"密码错误次数超限"}"#,
    ),
    (
        -15,
        true,
        r#"{"result":"-15","description":"The issuing bank does not support this transaction"}"#,
        r#"{"result":"-15","description":"发卡行不支持此交易"}"#,
    ),
    (
        -16,
        false,
        r#"{"result":"-16","description":"Verification center service busy"}"#,
        r#"{"result":"-16","description":"验证中心服务繁忙"}"#,
    ),
    (
        -17,
        false,
        r#"{"result":"-17","description":"Exceeded the limit of verification attempts, please try again the next day"}"#,
        r#"{"result":"-17","description":"验证次数超限，请次日重试"}"#,
    ),
];

#[test]
fn every_documented_result() {
    for (code, (number, charged, english, chinese)) in CheckCode::ALL.into_iter().zip(RESULTS) {
        assert_eq!(code.number(), number);
        assert_eq!(code.charged(), charged, "{number}");
        let body =
            |language| String::from_utf8(success(code.row(), language, Extra::None, Accept::Json)).unwrap();
        assert_eq!(body(Language::English), english);
        assert_eq!(body(Language::Chinese), chinese);
    }
}

#[test]
fn ndjson_is_the_same_object_as_a_line() {
    let body = success(CheckCode::Passed.row(), Language::English, Extra::None, Accept::Ndjson);
    assert_eq!(body, b"{\"result\":\"0\",\"description\":\"Authentication passed\"}\n");
}

#[test]
fn some_endpoints_add_members() {
    let text =
        |code, extra| String::from_utf8(success(code, Language::English, extra, Accept::Json)).unwrap();
    assert_eq!(
        text(
            CardInformationCode::Found.row(),
            Extra::Card { account_bank: "Industrial and Commercial Bank of China", account_type: 1 }
        ),
        r#"{"result":"0","description":"Query successful","account_bank":"Industrial and Commercial Bank of China","account_type":1}"#
    );
    assert_eq!(
        text(PhoneCode::Consistent.row(), Extra::Phone { isp: "Mobile", result_detail: None }),
        r#"{"result":"0","description":"Verification result is consistent","isp":"Mobile","result_detail":null}"#
    );
}
