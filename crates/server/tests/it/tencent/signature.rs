//! Both signature generations: what is covered, what is tried, what is refused and explained.

use crate::support::{SECRET_ID, Sandbox};

use super::client::{
    EVENING, Key, PASSED, SAMPLE, SAMPLE_MEMBERS, Signed, form, freeze, get, key_of, post, public, refused,
    said,
};

const FAILURE_ZH: &str = "请求签名验证失败，请检查您的签名计算是否正确。";
const FAILURE_EN: &str =
    "The provided credentials could not be validated. Please check your signature is correct.";

fn failure() -> String {
    refused("AuthFailure.SignatureFailure", FAILURE_ZH)
}

fn not_found() -> String {
    refused("AuthFailure.SecretIdNotFound", "SecretId不存在，请输入正确的密钥。")
}

/// A sandbox at a fixed time, and the sample signed for it.
fn signed_sample() -> (Sandbox, Signed) {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let signed = post(SAMPLE).at(EVENING).sign(&sandbox);
    assert_eq!(signed.said(&sandbox), PASSED);
    (sandbox, signed)
}

#[test]
fn a_changed_body() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.replacing("16137688175", "16137688174").said(&sandbox), failure());
}

#[test]
fn a_changed_host() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.having("Host", "127.0.0.2").said(&sandbox), failure());
}

#[test]
fn a_changed_content_type() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.having("Content-Type", "application/json; charset=utf-8").said(&sandbox), failure());
}

#[test]
fn a_changed_timestamp() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.having("X-TC-Timestamp", &(EVENING ^ 1).to_string()).said(&sandbox), failure());
}

#[test]
fn a_changed_date() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.replacing("/2026-11-21/", "/2026-11-20/").said(&sandbox), failure());
}

#[test]
fn a_changed_service() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.replacing("/faceid/", "/faceie/").said(&sandbox), failure());
}

#[test]
fn a_changed_query() {
    let sandbox = Sandbox::start();
    let members = "Name=a&BankCard=6200000000000005&Phone=1&IdCard=1";
    let signed = get(members).sign(&sandbox);
    assert_eq!(signed.said(&sandbox), PASSED);
    assert_eq!(signed.replacing("Phone=1", "Phone=2").said(&sandbox), failure());
}

#[test]
fn a_changed_key_id() {
    let (sandbox, signed) = signed_sample();
    assert_eq!(signed.replacing("AKIDz8krbsJ5y", "AKIDz8krbsJ5x").said(&sandbox), not_found());
}

#[test]
fn a_changed_signature() {
    let (sandbox, signed) = signed_sample();
    let authorization = signed.header("Authorization").to_owned();
    let last = authorization.chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    let changed = format!("{}{other}", &authorization[..authorization.len() - 1]);
    assert_eq!(signed.having("Authorization", &changed).said(&sandbox), failure());
}

#[test]
fn the_words_for_a_bad_signature_and_an_unknown_key() {
    let sandbox = Sandbox::start();
    let wrong = Key { secret: "wrong".into(), ..public() };
    let unknown = Key { id: "AKIDnobody".into(), ..public() };
    assert_eq!(post(SAMPLE).key(wrong.clone()).said(&sandbox), failure());
    assert_eq!(
        post(SAMPLE).key(wrong).english().said(&sandbox),
        refused("AuthFailure.SignatureFailure", FAILURE_EN)
    );
    assert_eq!(post(SAMPLE).key(unknown.clone()).said(&sandbox), not_found());
    assert_eq!(
        post(SAMPLE).key(unknown).english().said(&sandbox),
        refused(
            "AuthFailure.SecretIdNotFound",
            "The SecretId is not found, please ensure that your SecretId is correct."
        )
    );
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], 0);
}

/// The `Authorization` header taken apart: .NET writes two blanks, others none after the commas.
#[test]
fn an_authorization_header_with_other_blanks() {
    let (sandbox, signed) = signed_sample();
    let authorization = signed.header("Authorization").to_owned();
    for other in [
        authorization.replacen("TC3-HMAC-SHA256 ", "TC3-HMAC-SHA256  ", 1),
        authorization.replace(", ", ","),
        authorization.replace(", ", " ,\t"),
    ] {
        assert_eq!(signed.clone().having("Authorization", &other).said(&sandbox), PASSED, "{other}");
    }
}

#[test]
fn a_malformed_authorization_header() {
    let (sandbox, signed) = signed_sample();
    let fields = "Credential=, SignedHeaders=, Signature=";
    for (from, to, part) in [
        ("TC3-HMAC-SHA256 ", "TC3-HMAC-SHA1 ", "TC3-HMAC-SHA256"),
        ("TC3-HMAC-SHA256 ", "Bearer ", "TC3-HMAC-SHA256"),
        ("/tc3_request", "/tc4_request", "Credential"),
        ("/2026-11-21", "/21.11.2026", "Credential"),
        ("SignedHeaders=content-type;host", "SignedHeaders=host", "SignedHeaders"),
        ("SignedHeaders=content-type;host", "SignedHeaders=content-type", "SignedHeaders"),
        ("SignedHeaders=content-type;host", "SignedHeaders=Content-Type;host", "SignedHeaders"),
        ("Signature=", "Signature=zz", "Signature"),
        ("Signature=", "Signatur=", fields),
        ("Signature=", "Extra=1, Signature=", fields),
    ] {
        let message = format!("请求头 `Authorization` 不符合规范：`{part}`。");
        let reply = signed.clone().replacing(from, to).said(&sandbox);
        assert_eq!(reply, refused("AuthFailure.InvalidAuthorization", &message), "{to}");
    }
}

/// Some SDKs can be told to send this in place of a signature, for services that need none.
#[test]
fn skip_is_no_signature() {
    let (sandbox, signed) = signed_sample();
    let refusal = |message| refused("AuthFailure.InvalidAuthorization", message);
    assert_eq!(
        signed.clone().having("Authorization", "SKIP").said(&sandbox),
        refusal("请求头 `Authorization` 不符合规范：`TC3-HMAC-SHA256`。")
    );
    assert_eq!(
        signed.having("Authorization", "SKIP").having("X-TC-Language", "en-US").said(&sandbox),
        refusal("The `Authorization` header does not follow the specification: `TC3-HMAC-SHA256`.")
    );
}

/// Node signs the host without its port; with `ApigwEndpoint` Tencent's own name is signed.
#[test]
fn the_host_that_was_signed_is_not_always_the_one_sent() {
    let sandbox = Sandbox::start();
    for signed in ["127.0.0.1", "faceid.tencentcloudapi.com", "faceid.intl.tencentcloudapi.com"] {
        assert_eq!(post(SAMPLE).signed_host(signed).said(&sandbox), PASSED, "{signed}");
    }
    assert_eq!(post(SAMPLE).signed_host("faceid.example.com").said(&sandbox), failure());
    // tccli over plain http, and a client with a path in its endpoint.
    for host in ["http://127.0.0.1:4400", "127.0.0.1:4400/tc", "LocalHost"] {
        assert_eq!(post(SAMPLE).host(host).said(&sandbox), PASSED, "{host}");
    }
    // The documentation lower-cases what it signs.
    assert_eq!(post(SAMPLE).host("LocalHost").signed_host("localhost").said(&sandbox), PASSED);
}

#[test]
fn names_that_may_be_signed_are_configured() {
    let sandbox = Sandbox::configured("[tencent]\npublic_names = [\"faceid.example.com\"]\n");
    assert_eq!(post(SAMPLE).signed_host("faceid.example.com").said(&sandbox), PASSED);
    assert_eq!(post(SAMPLE).signed_host("faceid.tencentcloudapi.com").said(&sandbox), failure());
}

/// The signed path is `/` nearly always, even where the endpoint has one.
#[test]
fn a_path_in_front() {
    let sandbox = Sandbox::start();
    assert_eq!(post(SAMPLE).target("/tc").said(&sandbox), PASSED);
    assert_eq!(post(SAMPLE).target("/tc/v3?x=y").said(&sandbox), PASSED);
}

#[test]
fn the_body_may_be_left_unsigned() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).unsigned_payload();
    assert_eq!(ask.said(&sandbox), PASSED);
    // Nothing in the body is protected then, by the client's own choice.
    let signed = ask.sign(&sandbox);
    let mismatch = signed.clone().replacing("6225768888888888", "6226090210146748").said(&sandbox);
    assert_eq!(mismatch, super::client::answered(-6, "持卡人信息有误"));
    // And nobody on the way can make an ordinary request one of these, or the other way round.
    assert_eq!(signed.without("X-TC-Content-SHA256").said(&sandbox), failure());
    let ordinary = post(SAMPLE).sign(&sandbox);
    assert_eq!(ordinary.having("X-TC-Content-SHA256", "UNSIGNED-PAYLOAD").said(&sandbox), failure());
}

#[test]
fn a_key_may_refuse_unsigned_bodies() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).key(key_of("SignedOnly"));
    assert_eq!(ask.said(&sandbox), PASSED);
    let ask = ask.unsigned_payload();
    let zh = "请求签名验证失败：该密钥要求对请求包体签名，不接受 `UNSIGNED-PAYLOAD`。";
    assert_eq!(ask.said(&sandbox), refused("AuthFailure.SignatureFailure", zh));
    let en = "The provided credentials could not be validated: this key requires a signed payload, not \
              `UNSIGNED-PAYLOAD`.";
    assert_eq!(ask.english().said(&sandbox), refused("AuthFailure.SignatureFailure", en));
}

#[test]
fn v1_in_all_four_forms() {
    let sandbox = Sandbox::start();
    let form = form(&SAMPLE_MEMBERS);
    for form in [form.clone(), form.clone().get(), form.clone().sha256(), form.sha256().get()] {
        assert_eq!(form.said(&sandbox), PASSED);
        // Go sends and signs `Region=`.
        assert_eq!(form.clone().with("Region", "").said(&sandbox), PASSED);
        assert_eq!(form.clone().with("Region", "ap-guangzhou").with("Token", "").said(&sandbox), PASSED);
        // Ruby's base64 ends in a newline.
        let signed = form.sign(&sandbox);
        assert_eq!(signed.replacing("%3D", "%3D%0A").said(&sandbox), PASSED);
        let wrong = Key { secret: "wrong".into(), ..public() };
        assert_eq!(form.key(wrong).said(&sandbox), failure());
    }
}

/// Everything but the signature is signed, common parameters and members alike.
#[test]
fn a_changed_parameter_of_v1() {
    let sandbox = Sandbox::start();
    let form = form(&SAMPLE_MEMBERS).with("Region", "");
    for (from, to) in [
        ("Phone=16137688175", "Phone=16137688174"),
        ("Nonce=5577006791947779410", "Nonce=1"),
        ("Region=", "Region=x"),
        ("&Region=", ""),
        ("Region=", "Region=&New=1"),
    ] {
        for signed in [form.sign(&sandbox), form.clone().get().sign(&sandbox)] {
            assert_eq!(signed.replacing(from, to).said(&sandbox), failure(), "{to}");
        }
    }
}

#[test]
fn nonces_of_v1() {
    let sandbox = Sandbox::start();
    for nonce in ["1", "65535", "2147483648", "18446744073709551615"] {
        assert_eq!(form(&SAMPLE_MEMBERS).with("Nonce", nonce).said(&sandbox), PASSED, "{nonce}");
    }
    for nonce in ["one", "-1", "1.5"] {
        let refusal = refused("InvalidParameter", "Parameter `Nonce` type error.");
        let form = form(&SAMPLE_MEMBERS).with("Nonce", nonce).with("Language", "en-US");
        assert_eq!(form.said(&sandbox), refusal, "{nonce}");
    }
}

/// What a client's author most often did wrong is recognised and said: in the reply and in the log.
#[test]
fn recognised_mistakes() {
    let (sandbox, signed) = signed_sample();
    let ask = post(SAMPLE).at(EVENING);
    let secret_with = |blank: &str| Key { secret: public().secret + blank, ..public() };
    let sha1_said_sha256 =
        form(&SAMPLE_MEMBERS).with("Timestamp", &EVENING.to_string()).with("SignatureMethod", "HmacSHA256");
    let address = sandbox.address.clone();
    for (request, hint) in [
        (
            signed.clone().replacing("/2026-11-21/", "/2026-11-22/"),
            "The date in Credential is the local date at UTC+8: use the UTC date of X-TC-Timestamp, 2026-11-21, \
             in both the scope and the key derivation."
                .to_owned(),
        ),
        (
            ask.clone().key(secret_with("\n")).sign(&sandbox),
            "The SecretKey was used with white space around it: trim it where it is read.".to_owned(),
        ),
        (
            ask.clone().host("localhost").signed_host(&address).sign(&sandbox),
            format!(
                "The host {address} was signed but another one was sent: sign exactly the Host header, keep it \
                 through proxies, or add {address} to the server's public names."
            ),
        ),
        (
            ask.unsigned_payload().sign(&sandbox).without("X-TC-Content-SHA256"),
            "The payload was signed as UNSIGNED-PAYLOAD but the header X-TC-Content-SHA256: UNSIGNED-PAYLOAD did \
             not arrive: send it, and let proxies pass it."
                .to_owned(),
        ),
        (
            post("").at(EVENING).sign(&sandbox).with_body(SAMPLE),
            "The signature is that of an empty body: hash the bytes that are sent.".to_owned(),
        ),
        (
            sha1_said_sha256.sign(&sandbox),
            "The signature is an HmacSHA1: SignatureMethod has to say so in exactly this spelling (HmacSHA1 is \
             what anything else means)."
                .to_owned(),
        ),
    ] {
        let reply = request.send(&sandbox);
        assert_eq!(said(&reply), failure(), "{hint}");
        assert_eq!(reply.header("x-sandbox-hint"), Some(hint.as_str()));
        let log = sandbox.log();
        assert!(log.contains(&hint) && log.contains(SECRET_ID), "{log}");
    }
    // No known mistake fits: nothing is made up.
    let reply = signed.replacing("16137688175", "16137688174").send(&sandbox);
    assert_eq!((said(&reply), reply.header("x-sandbox-hint")), (failure(), None));
}
