//! Which error wins: an earlier one tells less to somebody who has not shown who he is.

use crate::support::Sandbox;

use super::client::{
    Ask, EVENING, Key, PASSED, SAMPLE, SAMPLE_MEMBERS, Signed, answered, form, freeze, key_of, post, public,
    refused,
};
use super::errors::ACTIONS;

/// A request that is wrong in every way is mended one error at a time.
#[test]
fn a_request_wrong_in_every_way() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let now = EVENING.to_string();
    let request = Signed {
        method: "DELETE".into(),
        target: "/".into(),
        headers: vec![
            ("Host".into(), sandbox.address.clone()),
            ("Content-Type".into(), "application/json".into()),
            ("X-TC-Language".into(), "en-US".into()),
        ],
        body: vec![b' '; 10 * 1024 * 1024 + 1],
    };
    let authorization = |id: &str| {
        format!(
            "TC3-HMAC-SHA256 Credential={id}/2026-11-21/faceid/tc3_request, SignedHeaders=content-type;host, \
             Signature={}",
            "0".repeat(64)
        )
    };
    let expect = |request: &Signed, code: &str, message: &str| {
        assert_eq!(request.said(&sandbox), refused(code, message));
    };
    expect(&request, "UnsupportedProtocol", "Only the HTTP methods `GET` and `POST` are supported.");
    let request = Signed { method: "POST".into(), ..request }.having("Authorization", "SKIP");
    let too_large = "The request is larger than the limit of `10485760` bytes.";
    expect(&request, "RequestSizeLimitExceeded", too_large);
    let request = request.with_body("{\"Name\":");
    let no_json = "The request body is not a JSON object: line `1`, column `8`.";
    expect(&request, "InvalidParameter", no_json);
    let request = request.with_body("{}");
    let missing = |request: &Signed, common: &str| {
        let message = format!("The request is missing a required parameter `{common}`.");
        expect(request, "MissingParameter", &message);
    };
    missing(&request, "Timestamp");
    let request = request.having("X-TC-Timestamp", "yesterday");
    missing(&request, "Action");
    let request = request.having("X-TC-Action", "NoSuchAction");
    missing(&request, "Version");
    let request = request.having("X-TC-Version", "1999-12-31");
    missing(&request.clone().without("Authorization"), "Authorization");
    expect(&request, "InvalidParameter", "Parameter `Timestamp` type error.");
    let request = request.having("X-TC-Timestamp", &(EVENING - 301).to_string());
    let malformed = "The `Authorization` header does not follow the specification: `TC3-HMAC-SHA256`.";
    expect(&request, "AuthFailure.InvalidAuthorization", malformed);
    let request = request.having("Authorization", &authorization("AKIDnobody"));
    let expired = "The signature is expired, please request again. The request's `Timestamp` is `301` seconds \
                   behind the server's time `2026-11-21T18:06:12Z` (`1795284372`), `300` are allowed.";
    expect(&request, "AuthFailure.SignatureExpire", expired);
    let request = request.having("X-TC-Timestamp", &now);
    let not_found = "The SecretId is not found, please ensure that your SecretId is correct.";
    expect(&request, "AuthFailure.SecretIdNotFound", not_found);
    let request = request.having("Authorization", &authorization(&key_of("Temporary").id));
    let no_fit = "The provided credentials could not be validated. Please check your signature is correct.";
    expect(&request, "AuthFailure.SignatureFailure", no_fit);

    let expect = |ask: &Ask, code: &str, message: &str| {
        assert_eq!(ask.said(&sandbox), refused(code, message));
    };
    let ask = post("{}").english().at(EVENING).action("NoSuchAction").version("1999-12-31");
    let no_token = "The `Token` of the temporary key is wrong or has expired.";
    expect(&ask.clone().key(key_of("Temporary")), "AuthFailure.TokenFailure", no_token);
    let ask = ask.key(key_of("NotActivated"));
    let version = "The specified api version=`1999-12-31` does not exist in service=`faceid`.";
    expect(&ask, "NoSuchVersion", version);
    let ask = ask.version("2018-03-01");
    let action = &format!("The request `Action` is invalid or not found. Supported: {ACTIONS}.");
    expect(&ask, "InvalidAction", action);
    let ask = ask.action("BankCard4EVerification");
    expect(&ask, "UnauthorizedOperation.Nonactivated", "The service has not been activated.");
    let ask = ask.key(key_of("Arrears"));
    expect(&ask, "UnauthorizedOperation.Arrears", "The account is in arrears.");
    let ask = ask.key(public());
    expect(&ask, "MissingParameter", "The request is missing a required parameter `Name`.");
    assert_eq!(post(SAMPLE).at(EVENING).said(&sandbox), PASSED);
}

/// The order of signature v1 up to the proof is its own.
#[test]
fn a_form_without_anything() {
    let sandbox = Sandbox::start();
    let form = form(&[]).with("Language", "en-US").with("Timestamp", "yesterday").with("Nonce", "one");
    let mut request = form.sign(&sandbox);
    let whole = request.body.clone();
    request.body = b"Language=en-US".to_vec();
    for name in ["Timestamp", "Action", "Version", "Nonce", "SecretId", "Signature"] {
        let message = format!("The request is missing a required parameter `{name}`.");
        assert_eq!(request.said(&sandbox), refused("MissingParameter", &message));
        request.body.extend(format!("&{name}=x").bytes());
    }
    request.body = whole;
    assert_eq!(request.said(&sandbox), refused("InvalidParameter", "Parameter `Timestamp` type error."));
}

/// The public cloud's: a bare GET misses its time first; a bare JSON POST has nowhere to keep it.
#[test]
fn requests_without_anything() {
    let sandbox = Sandbox::start();
    let missing = refused("MissingParameter", "请求缺少必填参数 `Timestamp`。");
    assert_eq!(super::client::said(&sandbox.get("/")), missing);
    assert_eq!(super::client::said(&sandbox.request("POST", "/", &[], b"")), missing);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(super::client::said(&sandbox.request("POST", "/", &form, b"")), missing);
    let json = sandbox.request("POST", "/", &[("content-type", "application/json")], b"{}");
    let nowhere = refused("InvalidParameter", "请求缺少 `X-TC-*` 公共请求头与 `Authorization`。");
    assert_eq!(super::client::said(&json), nowhere);
}

fn wrong_secret(application: &str) -> Key {
    Key { secret: "wrong".into(), ..key_of(application) }
}

/// Without the right secret nobody learns how an account stands.
#[test]
fn a_bad_signature_before_any_state_of_the_account() {
    let sandbox = Sandbox::start();
    let no_fit = refused("AuthFailure.SignatureFailure", "请求签名验证失败，请检查您的签名计算是否正确。");
    for application in ["NotActivated", "Arrears", "Suspended", "Unconfirmed", "Temporary", "RateLimited"] {
        assert_eq!(post("{}").key(wrong_secret(application)).said(&sandbox), no_fit, "{application}");
        let form = form(&[]).key(wrong_secret(application));
        assert_eq!(form.said(&sandbox), no_fit, "{application}");
    }
}

/// A key that is not there any more is missing before anybody looks at its signature.
#[test]
fn an_expired_key_before_a_bad_signature() {
    let sandbox = Sandbox::start();
    assert_eq!(
        post(SAMPLE).key(wrong_secret("Expired")).said(&sandbox),
        refused("AuthFailure.SecretIdNotFound", "SecretId不存在，请输入正确的密钥。")
    );
}

#[test]
fn the_action_before_the_state_of_the_account() {
    let sandbox = Sandbox::start();
    for application in ["NotActivated", "Arrears", "Suspended", "Unconfirmed"] {
        assert_eq!(
            post(SAMPLE).key(key_of(application)).action("BankCard5EVerification").said(&sandbox),
            refused("InvalidAction", &format!("请求的 `Action` 无效或不存在，当前支持：{ACTIONS}。")),
            "{application}"
        );
    }
}

#[test]
fn the_state_of_the_account_before_missing_members() {
    let sandbox = Sandbox::start();
    for (application, code, message) in [
        ("NotActivated", "UnauthorizedOperation.Nonactivated", "未开通服务。"),
        ("Arrears", "UnauthorizedOperation.Arrears", "账号已欠费。"),
        ("Suspended", "UnauthorizedOperation.ChargeStatusException", "计费状态异常。"),
        ("Unconfirmed", "UnauthorizedOperation.NonAuthorize", "账号未实名。"),
    ] {
        assert_eq!(post("{}").key(key_of(application)).said(&sandbox), refused(code, message));
        assert_eq!(form(&[]).key(key_of(application)).said(&sandbox), refused(code, message));
    }
}

#[test]
fn arrears_before_the_rate() {
    let sandbox = Sandbox::configured("[policy]\nrequests_per_second = 1\n");
    freeze(&sandbox, EVENING);
    let arrears = refused("UnauthorizedOperation.Arrears", "账号已欠费。");
    for _ in 0..3 {
        assert_eq!(post(SAMPLE).at(EVENING).key(key_of("Arrears")).said(&sandbox), arrears);
    }
    assert_eq!(post(SAMPLE).at(EVENING).said(&sandbox), PASSED);
    let too_fast = "您当前每秒请求 `2` 次，超过了每秒频率上限 `1`，请稍后重试。";
    assert_eq!(post(SAMPLE).at(EVENING).said(&sandbox), refused("RequestLimitExceeded", too_fast));
}

#[test]
fn the_rate_before_missing_members() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let ask = post("{}").at(EVENING).key(key_of("RateLimited"));
    let missing = refused("MissingParameter", "请求缺少必填参数 `Name`。");
    assert_eq!([ask.said(&sandbox), ask.said(&sandbox)], [missing.clone(), missing]);
    let too_fast = "您当前每秒请求 `3` 次，超过了每秒频率上限 `2`，请稍后重试。";
    assert_eq!(ask.said(&sandbox), refused("RequestLimitExceeded", too_fast));
}

#[test]
fn missing_members_before_types_before_values_before_decryption() {
    let sandbox = Sandbox::start();
    let encryption =
        r#""Encryption":{"EncryptList":["Name"],"CiphertextBlob":"QUJD","Iv":"QUJD","Algorithm":"DES"}"#;
    let missing = format!(r#"{{"Name":1,"BankCard":"1","Phone":"1",{encryption}}}"#);
    assert_eq!(post(missing).said(&sandbox), refused("MissingParameter", "请求缺少必填参数 `IdCard`。"));
    let mistyped = format!(r#"{{"Name":1,"BankCard":"1","Phone":"1","IdCard":"1",{encryption}}}"#);
    assert_eq!(post(mistyped).said(&sandbox), refused("InvalidParameter", "参数 `Name` 类型错误。"));
    let wrong_value = format!(r#"{{"Name":"1","BankCard":"1","Phone":"1","IdCard":"1",{encryption}}}"#);
    let one_of = "参数 `Encryption.Algorithm` 取值错误，可选值：`AES-256-CBC`, `SM4-GCM`。";
    assert_eq!(post(wrong_value.clone()).said(&sandbox), refused("InvalidParameterValue", one_of));
    let encrypted = wrong_value.replace("DES", "SM4-GCM");
    assert!(post(encrypted).said(&sandbox).contains("FailedOperation.DecryptSystemError"));
}

/// What is sent wrong is free, and takes no attempt.
#[test]
fn formats_before_attempts() {
    let sandbox = Sandbox::configured("[attempts]\nper_value = 1\n");
    let (zh_wei, id, phone) = ("张伟", "99010119610202001X", "16100000001");
    let body = |card: &str| super::client::elements(zh_wei, card, phone, id);
    for _ in 0..3 {
        assert_eq!(post(body("1")).said(&sandbox), answered(-4, "银行卡号格式有误"));
    }
    assert_eq!(post(body("6217000000000000012")).said(&sandbox), PASSED);
    let used_up = answered(-19, "验证次数超限，请次日重试");
    assert_eq!(post(body("6217000000000000012")).said(&sandbox), used_up);
    assert_eq!(post(body("1")).said(&sandbox), answered(-4, "银行卡号格式有误"));
    // And the samples of the documentation are answered in any case.
    assert_eq!(post(SAMPLE).said(&sandbox), PASSED);
    assert_eq!(form(&SAMPLE_MEMBERS).said(&sandbox), PASSED);
    assert_eq!(form(&SAMPLE_MEMBERS).said(&sandbox), PASSED);
}
