//! Errors of the request: missing and mistyped members, unknown actions, and every business error
//! of Tencent's page on demand.

use serde_json::{Value, json};

use crate::support::Sandbox;

use super::client::{
    PASSED, SAMPLE, SAMPLE_MEMBERS, answered, elements, form, freeze, get, post, refused, said,
};

macro_rules! business_errors {
    ($($test:ident: $code:literal, $zh:literal, $en:literal;)*) => {$(
        #[test]
        fn $test() {
            a_business_error($code, $zh, $en);
        }
    )*};
}

business_errors! {
    decryption_failed: "FailedOperation.DecryptSystemError",
        "解密失败，请使用本服务的公钥加密，公钥见 `/encryption-keys`。",
        "Decryption failed. Encrypt with this server's public key, see `/encryption-keys`.";
    sts_unauthorized: "FailedOperation.StsUnAuthErrError",
        "STS未授权：不支持 KMS 数据密钥，请使用本服务的公钥加密，公钥见 `/encryption-keys`。",
        "STS unauthorized: KMS data keys are not supported, encrypt with this server's public key, see `/encryption-keys`.";
    unknown_internal_error: "FailedOperation.UnKnown", "内部未知错误。", "Unknown internal error.";
    invalid_parameter: "InvalidParameter", "参数错误。", "Invalid parameter.";
    unencrypted_fields: "InvalidParameter.UnsupportEncryptField",
        "存在不加密的字段，请参考文档修改。",
        "Unencrypted fields exist. Refer to the documentation to modify.";
    incorrect_parameter_value: "InvalidParameterValue", "参数取值错误。", "Incorrect parameter value.";
    arrears: "UnauthorizedOperation.Arrears", "账号已欠费。", "The account is in arrears.";
    charge_status_exception: "UnauthorizedOperation.ChargeStatusException",
        "计费状态异常。", "The billing status of the account is abnormal.";
    non_authorize: "UnauthorizedOperation.NonAuthorize", "账号未实名。", "The account has not been verified.";
    nonactivated: "UnauthorizedOperation.Nonactivated", "未开通服务。", "The service has not been activated.";
}

/// A fault rule answers it twice, and nothing is charged; then all is well again.
fn a_business_error(code: &str, zh: &str, en: &str) {
    let sandbox = Sandbox::start();
    sandbox.fault(&json!({ "wire": "tencent", "count": 2, "effect": { "error": code } }).to_string());
    assert_eq!(post(SAMPLE).said(&sandbox), refused(code, zh));
    assert_eq!(post(SAMPLE).english().said(&sandbox), refused(code, en));
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], 0);
    assert_eq!(sandbox.control("GET", "journal", "")["entries"][0]["error"], code);
    assert_eq!(post(SAMPLE).said(&sandbox), PASSED);
    assert_eq!(sandbox.charges(), 1);
}

/// Codes that any product of Tencent's can answer.
#[test]
fn common_errors_on_demand() {
    let sandbox = Sandbox::start();
    for (code, zh) in [
        ("InternalError", "内部错误。"),
        ("RequestLimitExceeded", "请求的次数超过了频率限制，请稍后重试。"),
        ("RequestLimitExceeded.UinLimitExceeded", "账号的请求次数超过了频率限制，请稍后重试。"),
        ("RequestLimitExceeded.IPLimitExceeded", "IP 的请求次数超过了频率限制，请稍后重试。"),
        ("ServiceUnavailable", "当前服务暂时不可用，请稍后重试。"),
        ("ResourceUnavailable", "资源不可用。"),
        ("AuthFailure.UnauthorizedOperation", "请求未授权，该密钥没有调用此接口的权限。"),
        ("AuthFailure.TokenFailure", "临时密钥的 `Token` 错误或已过期。"),
        ("IpNotInWhitelist", "请求来源 IP 不在白名单内。"),
        ("ActionOffline", "接口已下线。"),
    ] {
        sandbox.fault(&json!({ "count": 1, "effect": { "error": code } }).to_string());
        assert_eq!(post(SAMPLE).said(&sandbox), refused(code, zh));
    }
}

/// As the message lists them.
pub const ACTIONS: &str = "`BankCard4EVerification`, `BankCardVerification`, `BankCard2EVerification`, \
    `CheckBankCardInformation`, `IdCardVerification`, `PhoneVerification`, `PhoneVerificationCMCC`, \
    `PhoneVerificationCUCC`, `PhoneVerificationCTCC`, `CheckPhoneAndName`";

#[test]
fn an_unknown_action_is_told_which_there_are() {
    let sandbox = Sandbox::start();
    for action in
        ["BankCard5EVerification", "IdCardOCRVerification", "bankcard4everification", "DescribeInstances"]
    {
        assert_eq!(
            post(SAMPLE).action(action).said(&sandbox),
            refused("InvalidAction", &format!("请求的 `Action` 无效或不存在，当前支持：{ACTIONS}。"))
        );
        assert_eq!(
            post(SAMPLE).action(action).english().said(&sandbox),
            refused(
                "InvalidAction",
                &format!("The request `Action` is invalid or not found. Supported: {ACTIONS}.")
            )
        );
        let form = form(&SAMPLE_MEMBERS).with("Action", action).with("Language", "en-US");
        assert!(form.said(&sandbox).contains(&format!("Supported: {ACTIONS}.")));
    }
}

#[test]
fn another_version() {
    let sandbox = Sandbox::start();
    assert_eq!(
        post(SAMPLE).version("2018-07-24").said(&sandbox),
        refused("NoSuchVersion", "指定的接口版本 version=`2018-07-24` 在服务 service=`faceid` 中不存在。")
    );
    assert_eq!(
        post(SAMPLE).version("2018-07-24").english().said(&sandbox),
        refused(
            "NoSuchVersion",
            "The specified api version=`2018-07-24` does not exist in service=`faceid`."
        )
    );
}

/// The sample with a member changed or, by `None`, left out.
fn sample_with(member: &str, value: Option<Value>) -> String {
    let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
    match value {
        Some(value) => body[member] = value,
        None => {
            body.as_object_mut().unwrap().remove(member);
        }
    }
    body.to_string()
}

#[test]
fn each_member_is_required() {
    let sandbox = Sandbox::start();
    for member in ["Name", "BankCard", "Phone", "IdCard"] {
        let zh = refused("MissingParameter", &format!("请求缺少必填参数 `{member}`。"));
        let en =
            refused("MissingParameter", &format!("The request is missing a required parameter `{member}`."));
        assert_eq!(post(sample_with(member, None)).said(&sandbox), zh);
        assert_eq!(post(sample_with(member, None)).english().said(&sandbox), en);
        assert_eq!(post(sample_with(member, Some(Value::Null))).said(&sandbox), zh);
        assert_eq!(form(&SAMPLE_MEMBERS).without(member).said(&sandbox), zh);
        assert_eq!(form(&SAMPLE_MEMBERS).without(member).get().said(&sandbox), zh);
    }
    // The order of the documentation, which is the order of the first complaint.
    for (body, first) in [
        ("{}", "Name"),
        ("", "Name"),
        (r#"{"Name":"x"}"#, "BankCard"),
        (r#"{"Name":"x","BankCard":"x"}"#, "Phone"),
        (r#"{"Name":"x","BankCard":"x","Phone":"x"}"#, "IdCard"),
    ] {
        let message = format!("请求缺少必填参数 `{first}`。");
        assert_eq!(post(body).said(&sandbox), refused("MissingParameter", &message));
    }
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], 0);
}

/// Member names have a case, as the parameters of the real service do.
#[test]
fn a_member_in_another_case_is_another_member() {
    let sandbox = Sandbox::start();
    let body = SAMPLE.replace("\"IdCard\"", "\"idCard\"");
    assert_eq!(post(body).said(&sandbox), refused("MissingParameter", "请求缺少必填参数 `IdCard`。"));
}

#[test]
fn a_member_of_the_wrong_type() {
    let sandbox = Sandbox::start();
    for (member, value) in [
        ("Name", json!(1)),
        ("BankCard", json!(6_225_768_888_888_888_i64)),
        ("Phone", json!(16_137_688_175_i64)),
        ("IdCard", json!(["11204416541220243X"])),
        ("Name", json!({ "First": "小宝" })),
        ("Phone", json!(true)),
        ("CertType", json!("0")),
        ("CertType", json!(0.5)),
        ("CertType", json!("x")),
        ("CertType", json!([])),
        ("Encryption", json!("AES-256-CBC")),
    ] {
        let body = sample_with(member, Some(value));
        let zh = refused("InvalidParameter", &format!("参数 `{member}` 类型错误。"));
        let en = refused("InvalidParameter", &format!("Parameter `{member}` type error."));
        assert_eq!(post(body.clone()).said(&sandbox), zh, "{body}");
        assert_eq!(post(body.clone()).english().said(&sandbox), en, "{body}");
    }
}

#[test]
fn members_of_the_encryption() {
    let sandbox = Sandbox::start();
    let refusal = |encryption: Value| post(sample_with("Encryption", Some(encryption))).said(&sandbox);
    let whole = json!({ "EncryptList": ["Name"], "CiphertextBlob": "QUJD", "Iv": "QUJD" });
    let with = |member: &str, value: Value| {
        let mut changed = whole.clone();
        changed[member] = value;
        changed
    };
    for (encryption, expected) in [
        (
            with("CiphertextBlob", Value::Null),
            refused("MissingParameter", "请求缺少必填参数 `Encryption.CiphertextBlob`。"),
        ),
        (with("Iv", Value::Null), refused("MissingParameter", "请求缺少必填参数 `Encryption.Iv`。")),
        (with("Iv", json!(1)), refused("InvalidParameter", "参数 `Encryption.Iv` 类型错误。")),
        (
            with("EncryptList", json!("Name")),
            refused("InvalidParameter", "参数 `Encryption.EncryptList` 类型错误。"),
        ),
        (
            with("EncryptList", json!([1])),
            refused("InvalidParameter", "参数 `Encryption.EncryptList` 类型错误。"),
        ),
        (with("TagList", json!({})), refused("InvalidParameter", "参数 `Encryption.TagList` 类型错误。")),
        (
            with("Algorithm", json!("aes-256-cbc")),
            refused(
                "InvalidParameterValue",
                "参数 `Encryption.Algorithm` 取值错误，可选值：`AES-256-CBC`, `SM4-GCM`。",
            ),
        ),
    ] {
        assert_eq!(refusal(encryption), expected);
    }
}

/// Only the resident identity card can be verified; that is an answer, free, and no error.
#[test]
fn cert_type_is_zero() {
    let sandbox = Sandbox::start();
    let body = |cert_type: Value| sample_with("CertType", Some(cert_type));
    let unsupported = answered(-20, "该证件号暂不支持核验，当前仅支持二代身份证");
    assert_eq!(post(SAMPLE).said(&sandbox), PASSED);
    assert_eq!(post(body(json!(0))).said(&sandbox), PASSED);
    assert_eq!(post(body(Value::Null)).said(&sandbox), PASSED);
    assert_eq!(post(body(json!(1))).said(&sandbox), unsupported);
    assert_eq!(post(body(json!(-1))).said(&sandbox), unsupported);
    // Integers arrive as text in flat requests, and only there.
    assert_eq!(form(&SAMPLE_MEMBERS).with("CertType", "0").said(&sandbox), PASSED);
    assert_eq!(form(&SAMPLE_MEMBERS).with("CertType", "1").said(&sandbox), unsupported);
    let type_error = refused("InvalidParameter", "参数 `CertType` 类型错误。");
    assert_eq!(form(&SAMPLE_MEMBERS).with("CertType", "zero").said(&sandbox), type_error);
    assert_eq!(sandbox.charges(), 4);
}

/// An empty string is there, and wrong: a free answer, no missing parameter.
#[test]
fn empty_elements_are_answered_for_free() {
    let sandbox = Sandbox::start();
    for (member, expected) in [
        ("Name", answered(-2, "姓名校验不通过")),
        ("IdCard", answered(-3, "身份证号码有误")),
        ("BankCard", answered(-4, "银行卡号格式有误")),
        ("Phone", answered(-5, "手机号码不合法")),
    ] {
        let mut body: Value = serde_json::from_str(&elements(
            "张伟",
            "6217000000000000012",
            "16100000001",
            "99010119610202001X",
        ))
        .unwrap();
        for empty in ["", "  "] {
            body[member] = json!(empty);
            assert_eq!(post(body.to_string()).said(&sandbox), expected);
        }
    }
    let query = "Name=&BankCard=&Phone=&IdCard=";
    assert_eq!(get(query).said(&sandbox), answered(-2, "姓名校验不通过"));
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!((&ledger["records"], &ledger["charges"]), (&9.into(), &0.into()), "on record, not charged");
}

/// The first wrong element answers, in the order of the codes.
#[test]
fn wrong_formats() {
    let sandbox = Sandbox::start();
    let (name, id, card, phone) = ("张伟", "99010119610202001X", "6217000000000000012", "16100000001");
    for (body, expected) in [
        (elements("张3", card, phone, id), answered(-2, "姓名校验不通过")),
        (elements("1", "1", "1", "1"), answered(-2, "姓名校验不通过")),
        (elements(name, "1", "1", "1"), answered(-3, "身份证号码有误")),
        // Check digit, length, a date that does not exist, a letter.
        (elements(name, card, phone, "990101196102020011"), answered(-3, "身份证号码有误")),
        (elements(name, card, phone, "9901011961020200"), answered(-3, "身份证号码有误")),
        (elements(name, card, phone, "99010119610230001X"), answered(-3, "身份证号码有误")),
        (elements(name, card, phone, "9901011961020200IX"), answered(-3, "身份证号码有误")),
        // Documents of another kind: first generation, passport, permit.
        (elements(name, card, phone, "990101610202001"), answered(-20, DOCUMENT)),
        (elements(name, card, phone, "E12345678"), answered(-20, DOCUMENT)),
        (elements(name, card, phone, "H12345678"), answered(-20, DOCUMENT)),
        (elements(name, "621700000000", phone, id), answered(-4, "银行卡号格式有误")),
        (elements(name, "62170000000000000123", phone, id), answered(-4, "银行卡号格式有误")),
        (elements(name, "621700000000000001X", phone, id), answered(-4, "银行卡号格式有误")),
        (elements(name, card, "1610000000", id), answered(-5, "手机号码不合法")),
        (elements(name, card, "26100000001", id), answered(-5, "手机号码不合法")),
        (elements(name, card, "+8616100000001", id), answered(-5, "手机号码不合法")),
        (elements(name, card, "12100000001", id), answered(-5, "手机号码不合法")),
    ] {
        assert_eq!(post(body.clone()).said(&sandbox), expected, "{body}");
    }
    assert_eq!(sandbox.charges(), 0);
}

const DOCUMENT: &str = "该证件号暂不支持核验，当前仅支持二代身份证";

/// Back-ticks and control characters of a caller cannot leave their place in a message.
#[test]
fn a_message_quotes_with_care() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, super::client::EVENING);
    let version = format!("1`\"\\<script>{}", "x".repeat(100));
    let reply = post(SAMPLE).at(super::client::EVENING).version(&version).english().send(&sandbox);
    let quoted = format!(r#"1\"\\<script>{}"#, "x".repeat(64 - 11));
    assert_eq!(
        said(&reply),
        refused(
            "NoSuchVersion",
            &format!("The specified api version=`{quoted}` does not exist in service=`faceid`.")
        )
    );
}
