//! Whole replies, and the tables behind them word for word.

use std::collections::BTreeSet;

use wire::Language::{Chinese, English};
use wire::tencent::code::{BankCard4ECode, CardInformationCode, PhoneCode};
use wire::tencent::error::{ErrorCode, Fault};
use wire::tencent::{CONTENT_TYPE, Extra, failure, success};

use crate::support::NOW;

const REQUEST_ID: &str = "74e742e8-f91d-49c3-9744-c20f3baca117";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_answer_is_the_documented_sample() {
    assert_eq!(CONTENT_TYPE, "application/json");
    assert_eq!(
        text(success(REQUEST_ID, BankCard4ECode::Passed.row(), Chinese, Extra::None)),
        r#"{"Response":{"Result":"0","Description":"认证通过","RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
    assert_eq!(
        text(success(REQUEST_ID, BankCard4ECode::HolderMismatch.row(), English, Extra::None)),
        r#"{"Response":{"Result":"-6","Description":"Cardholder information is incorrect","RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
}

/// Tencent's own samples of actions that answer more than a result.
#[test]
fn some_actions_add_members() {
    let card = Extra::Card { account_bank: "招商银行信用卡", account_type: 2 };
    assert_eq!(
        text(success(REQUEST_ID, CardInformationCode::Found.row(), Chinese, card)),
        r#"{"Response":{"Result":"0","Description":"查询成功","AccountBank":"招商银行信用卡","AccountType":2,"RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
    let phone = Extra::Phone { isp: "联通", result_detail: None };
    assert_eq!(
        text(success(REQUEST_ID, PhoneCode::Inconsistent.row(), Chinese, phone)),
        r#"{"Response":{"Result":"-4","Description":"信息不一致","Isp":"联通","RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
    let phone = Extra::Phone { isp: "", result_detail: Some("PhoneNameMismatch") };
    assert_eq!(
        text(success(REQUEST_ID, PhoneCode::Inconsistent.row(), English, phone)),
        r#"{"Response":{"Result":"-4","Description":"Three-element information inconsistency.","Isp":"","ResultDetail":"PhoneNameMismatch","RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
}

#[test]
fn a_failure_has_its_request_id() {
    let fault = Fault::from(ErrorCode::SignatureFailure);
    assert_eq!(
        text(failure(REQUEST_ID, &fault, English)),
        r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"The provided credentials could not be validated. Please check your signature is correct."},"RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
    assert_eq!(
        text(failure(REQUEST_ID, &fault, Chinese)),
        r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"请求签名验证失败，请检查您的签名计算是否正确。"},"RequestId":"74e742e8-f91d-49c3-9744-c20f3baca117"}}"#
    );
}

/// The result codes: number, charged, Chinese of the domestic page, English of the international one.
const RESULTS: &str = "\
0 charged 认证通过 / Authentication passed
-1 charged 认证未通过 / Authentication failed
-2 free 姓名校验不通过 / Name verification failed
-3 free 身份证号码有误 / Identity number error
-4 free 银行卡号格式有误 / Incorrect bank card number format
-5 free 手机号码不合法 / Invalid phone number
-6 charged 持卡人信息有误 / Cardholder information is incorrect
-7 charged 未开通无卡支付 / Cardless payment not enabled
-8 charged 此卡被没收 / Card confiscated
-9 charged 无效卡号 / Invalid card number
-10 charged 此卡无对应发卡行 / No corresponding issuing bank for this card
-11 charged 该卡未初始化或睡眠卡 / The card is uninitialized or a Sleep Card
-12 charged 作弊卡、吞卡 / Cheat card, card confiscation
-13 charged 此卡已挂失 / Reported lost
-14 charged 该卡已过期 / The card has expired.
-15 charged 受限制的卡 / Restricted card
-16 charged 密码错误次数超限 / Exceeded the number of password errors
-17 charged 发卡行不支持此交易 / Issuer does not support this transaction
-18 free 验证中心服务繁忙 / Verification Center Service busy
-19 free 验证次数超限，请次日重试 / Exceeded maximum verification attempts. Please retry the next day.
-20 free 该证件号暂不支持核验，当前仅支持二代身份证 / The ID number is not currently supported for verification. Currently only support second-generation resident identity card.
-21 charged 卡状态异常或卡号错误 / Card status exception or card number error
";

#[test]
fn the_table_of_results() {
    let table: String = BankCard4ECode::ALL
        .iter()
        .map(|code| {
            let charged = if code.charged() { "charged" } else { "free" };
            let (zh, en) = (code.text(Chinese), code.text(English));
            format!("{} {charged} {zh} / {en}\n", code.number())
        })
        .collect();
    assert_eq!(table, RESULTS);
    for code in BankCard4ECode::ALL {
        assert_eq!(BankCard4ECode::numbered(code.number()), Some(code));
    }
    assert_eq!(BankCard4ECode::numbered(-22), None);
}

/// The errors, in the order of the table.
const ERRORS: &str = "\
ActionOffline
AuthFailure.InvalidAuthorization
AuthFailure.InvalidSecretId
AuthFailure.SecretIdNotFound
AuthFailure.SignatureExpire
AuthFailure.SignatureFailure
AuthFailure.TokenFailure
AuthFailure.UnauthorizedOperation
FailedOperation.DecryptSystemError
FailedOperation.StsUnAuthErrError
FailedOperation.UnKnown
InternalError
InvalidAction
InvalidParameter
InvalidParameter.UnsupportEncryptField
InvalidParameterValue
InvalidRequest
IpInBlacklist
IpNotInWhitelist
MissingParameter
NoSuchProduct
NoSuchVersion
RequestLimitExceeded
RequestLimitExceeded.IPLimitExceeded
RequestLimitExceeded.UinLimitExceeded
RequestSizeLimitExceeded
ResourceUnavailable
ServiceUnavailable
UnauthorizedOperation.Arrears
UnauthorizedOperation.ChargeStatusException
UnauthorizedOperation.NonAuthorize
UnauthorizedOperation.Nonactivated
UnknownParameter
UnsupportedProtocol
";

#[test]
fn the_table_of_errors() {
    let names: String = ErrorCode::ALL.iter().map(|code| format!("{}\n", code.as_str())).collect();
    assert_eq!(names, ERRORS);
    let distinct: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(distinct.len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        let fault = Fault::from(*code);
        assert!(fault.message(Chinese).ends_with('。'), "{code:?}");
        assert!(fault.message(English).ends_with('.'), "{code:?}");
        assert!(code.about().ends_with('.') && !code.about().starts_with(' '), "{code:?}");
        // Back-ticks come in pairs in both languages.
        for language in [Chinese, English] {
            assert_eq!(fault.message(language).matches('`').count() % 2, 0, "{code:?}");
        }
    }
}

/// Texts people search for, as the public cloud words them, and those that carry numbers.
#[test]
fn messages() {
    let both = |fault: &Fault| [fault.message(Chinese).to_owned(), fault.message(English).to_owned()];
    for (fault, expected) in [
        (
            Fault::from(ErrorCode::SecretIdNotFound),
            [
                "SecretId不存在，请输入正确的密钥。",
                "The SecretId is not found, please ensure that your SecretId is correct.",
            ],
        ),
        (
            Fault::signature_expire(NOW - 301, NOW),
            [
                "签名已过期，请重新请求。请求的 `Timestamp` 比服务器时间 `2026-11-21T18:06:12Z`（`1795284372`）慢 `301` 秒，允许相差 `300` 秒。",
                "The signature is expired, please request again. The request's `Timestamp` is `301` seconds behind the server's time `2026-11-21T18:06:12Z` (`1795284372`), `300` are allowed.",
            ],
        ),
        (
            Fault::missing("Timestamp"),
            ["请求缺少必填参数 `Timestamp`。", "The request is missing a required parameter `Timestamp`."],
        ),
        (Fault::type_error("Nonce"), ["参数 `Nonce` 类型错误。", "Parameter `Nonce` type error."]),
        (
            Fault::request_limit_exceeded(103, 100),
            [
                "您当前每秒请求 `103` 次，超过了每秒频率上限 `100`，请稍后重试。",
                "You have sent `103` requests this second, more than the limit of `100` per second, \
                 please try again later.",
            ],
        ),
        (
            Fault::no_such_version("2018-07-24", "10"),
            [
                "指定的接口版本 version=`2018-07-24` 在服务 service=`10` 中不存在。",
                "The specified api version=`2018-07-24` does not exist in service=`10`.",
            ],
        ),
        (
            Fault::v1_body_too_large(),
            [
                "由于请求包大小超过限制，请求签名验证失败，请使用新的签名方法 `TC3-HMAC-SHA256`。",
                "The provided credentials could not be validated because of exceeding request size \
                 limit, please use new signature method `TC3-HMAC-SHA256`.",
            ],
        ),
    ] {
        assert_eq!(both(&fault), expected);
    }
    // Client text stays inside its back-ticks and is bounded.
    let echoed = Fault::no_such_version(&"`\n1".repeat(100), "faceid");
    assert!(echoed.message(English).contains(&format!("version=`{}` does", "1".repeat(64))));
}
