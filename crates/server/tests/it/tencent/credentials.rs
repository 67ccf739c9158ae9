//! Kinds of keys: permanent, temporary, expired, not for this wire.

use crate::support::{Sandbox, TOKEN};

use super::client::{Key, PASSED, SAMPLE, SAMPLE_MEMBERS, form, key_of, post, refused};

const SESSION: &str = "sandbox-session-token-EXAMPLE";

fn token_failure() -> String {
    refused("AuthFailure.TokenFailure", "临时密钥的 `Token` 错误或已过期。")
}

#[test]
fn a_temporary_key_needs_its_token() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).key(key_of("Temporary"));
    assert_eq!(ask.clone().header("X-TC-Token", SESSION).said(&sandbox), PASSED);
    assert_eq!(ask.said(&sandbox), token_failure());
    assert_eq!(ask.clone().header("X-TC-Token", "").said(&sandbox), token_failure());
    assert_eq!(ask.clone().header("X-TC-Token", "tok123").said(&sandbox), token_failure());
    assert_eq!(
        ask.english().header("X-TC-Token", "tok123").said(&sandbox),
        refused("AuthFailure.TokenFailure", "The `Token` of the temporary key is wrong or has expired.")
    );
}

#[test]
fn a_temporary_key_with_signature_v1() {
    let sandbox = Sandbox::start();
    let form = form(&SAMPLE_MEMBERS).key(key_of("Temporary"));
    assert_eq!(form.clone().with("Token", SESSION).said(&sandbox), PASSED);
    assert_eq!(form.clone().sha256().get().with("Token", SESSION).said(&sandbox), PASSED);
    assert_eq!(form.said(&sandbox), token_failure());
    assert_eq!(form.with("Token", "tok123").said(&sandbox), token_failure());
}

/// Users of permanent keys often send an old or somebody else's token.
#[test]
fn a_permanent_key_ignores_a_token() {
    let sandbox = Sandbox::start();
    assert_eq!(post(SAMPLE).header("X-TC-Token", "tok123").said(&sandbox), PASSED);
    assert_eq!(form(&SAMPLE_MEMBERS).with("Token", "tok123").said(&sandbox), PASSED);
}

#[test]
fn an_expired_key_is_not_found_any_more() {
    let sandbox = Sandbox::start();
    let not_found = refused("AuthFailure.SecretIdNotFound", "SecretId不存在，请输入正确的密钥。");
    assert_eq!(post(SAMPLE).key(key_of("Expired")).said(&sandbox), not_found);
    assert_eq!(form(&SAMPLE_MEMBERS).key(key_of("Expired")).said(&sandbox), not_found);
    // A second before it expired.
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1577836799}"#);
    assert_eq!(post(SAMPLE).key(key_of("Expired")).at(1_577_836_799).said(&sandbox), PASSED);
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1577836800}"#);
    assert_eq!(post(SAMPLE).key(key_of("Expired")).at(1_577_836_800).said(&sandbox), not_found);
}

/// A token of the other wire, or of the management API, in the place of a `SecretId`.
#[test]
fn a_key_of_another_kind() {
    let sandbox = Sandbox::start();
    let platform = format!("platform-v1-{}", "4e".repeat(32));
    for id in [TOKEN, platform.as_str(), "0123456789abcdef0123456789ABCDEF"] {
        let key = Key { id: id.into(), secret: "anything".into() };
        let refusal = refused("AuthFailure.InvalidSecretId", "密钥非法，不是 API 密钥类型。");
        assert_eq!(post(SAMPLE).key(key.clone()).said(&sandbox), refusal, "{id}");
        assert_eq!(form(&SAMPLE_MEMBERS).key(key.clone()).said(&sandbox), refusal, "{id}");
        assert_eq!(
            post(SAMPLE).key(key).english().said(&sandbox),
            refused("AuthFailure.InvalidSecretId", "The SecretId is not of the API key type.")
        );
    }
}

/// A bearer token has no business here; `Authorization` of another scheme is malformed.
#[test]
fn a_bearer_token_is_no_signature() {
    let sandbox = Sandbox::start();
    let request = post(SAMPLE).sign(&sandbox).having("Authorization", &format!("Bearer {TOKEN}"));
    assert_eq!(
        request.said(&sandbox),
        refused("AuthFailure.InvalidAuthorization", "请求头 `Authorization` 不符合规范：`TC3-HMAC-SHA256`。")
    );
}
