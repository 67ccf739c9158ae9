//! What the official clients really send, verified with the key they were given.

use wire::tencent::action::{Action, Algorithm, Elements};
use wire::tencent::claims;
use wire::tencent::signature::{DEFAULT_PUBLIC_NAMES, HostMatch, Match, Mismatch, Proof, verify};

use crate::support::{Request, SECRET_ID, SECRET_KEY};

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("captures/", $name, ".http"))
    };
}

fn matched(host: HostMatch) -> Result<Match, Mismatch> {
    Ok(Match { host, real_path: false, lower_cased: false })
}

/// Every capture, the service in its scope if it is TC3, and what verification finds.
fn verifiable() -> [(&'static str, Option<&'static str>, Result<Match, Mismatch>); 11] {
    let as_received = matched(HostMatch::AsReceived);
    [
        (capture!("python-tc3-post"), Some("faceid"), as_received),
        (capture!("python-tc3-get-nested"), Some("faceid"), as_received),
        (capture!("python-v1-form"), None, as_received),
        (capture!("python-tc3-unsigned-payload"), Some("faceid"), as_received),
        // Connected to us, signed Tencent's own name.
        (capture!("python-tc3-apigw-endpoint"), Some("faceid"), matched(HostMatch::PublicName(0))),
        (capture!("python-async-tc3-post"), Some("faceid"), as_received),
        // `Host: http://127.0.0.1:18082`, and signed so.
        (capture!("tccli-tc3-post"), Some("faceid"), as_received),
        // Sent 127.0.0.1:18083, signed 127.0.0.1, service `127`.
        (capture!("node-tc3-post"), Some("127"), matched(HostMatch::WithoutPort)),
        (capture!("go-tc3-post"), Some("faceid"), as_received),
        (capture!("go-v1-form"), None, as_received),
        // Signs `Encryption=Array`; the public cloud cannot verify it either.
        (capture!("php-v1-form-nested"), None, Err(Mismatch::Signature)),
    ]
}

#[test]
fn every_client_is_verified() {
    for (text, service, expected) in verifiable() {
        let request = Request::parse(text);
        if let Some(length) = request.headers.get("content-length") {
            assert_eq!(length.to_str().unwrap(), request.body.len().to_string(), "{text}");
        }
        assert!(claims(&request.incoming()), "{text}");
        let call = request.read().unwrap();
        assert_eq!(call.secret_id, SECRET_ID);
        assert_eq!(Action::requested(&call).unwrap(), Action::BankCard4EVerification);
        match &call.proof {
            Proof::Tc3(tc3) => assert_eq!(Some(tc3.service), service, "{text}"),
            Proof::V1(_) => assert_eq!(service, None, "{text}"),
        }
        let found = verify(&call, &request.incoming(), SECRET_KEY, &DEFAULT_PUBLIC_NAMES);
        assert_eq!(found, expected, "{text}");
        let other = verify(&call, &request.incoming(), "another key", &DEFAULT_PUBLIC_NAMES);
        assert_eq!(other, Err(Mismatch::Signature), "{text}");
    }
}

#[test]
fn every_client_sends_the_same_sample() {
    for (text, ..) in verifiable() {
        let request = Request::parse(text);
        let call = request.read().unwrap();
        let elements = Elements::read(Action::BankCard4EVerification, &call).unwrap();
        // Go and PHP were given a name with characters that need escaping.
        assert!(elements.name.starts_with("韦小宝"), "{text}");
        assert_eq!(elements.bank_card, "6225768888888888");
        assert_eq!(elements.phone, "16137688175");
        assert_eq!(elements.id_card, "11204416541220243X");
        assert_eq!(elements.cert_type, 0);
    }
}

#[test]
fn escapes_survive() {
    let go = Request::parse(capture!("go-v1-form"));
    let call = go.read().unwrap();
    let elements = Elements::read(Action::BankCard4EVerification, &call).unwrap();
    assert_eq!(elements.name, "韦小宝 <&>");
    let encryption = elements.encryption.unwrap();
    assert_eq!(encryption.encrypt_list, ["Name", "IdCard"]);
    assert_eq!(encryption.ciphertext_blob, "QUJD+/==");
    assert_eq!(encryption.iv, "AAEC");
    assert_eq!(encryption.algorithm, Algorithm::Sm4Gcm);
    assert_eq!(encryption.tag_list, ["dA==", "dB=="]);

    let node_like = Request::parse(capture!("go-tc3-post"));
    let call = node_like.read().unwrap();
    assert_eq!(Elements::read(Action::BankCard4EVerification, &call).unwrap().name, "韦小宝 <&>");
}

#[test]
fn a_nested_get_is_rebuilt() {
    let request = Request::parse(capture!("python-tc3-get-nested"));
    let call = request.read().unwrap();
    assert!(call.flattened);
    let encryption = Elements::read(Action::BankCard4EVerification, &call).unwrap().encryption.unwrap();
    assert_eq!(encryption.encrypt_list, ["Name", "IdCard"]);
    assert_eq!(encryption.ciphertext_blob, "QUJD+/==");
    assert_eq!(encryption.iv, "AAECAwQFBgcICQoLDA0ODw==");
    assert_eq!(encryption.algorithm, Algorithm::Aes256Cbc);
    // The client's empty TagList was not transmitted.
    assert!(encryption.tag_list.is_empty());
}

#[test]
fn what_is_read_beside_the_elements() {
    let request = Request::parse(capture!("python-tc3-unsigned-payload"));
    let call = request.read().unwrap();
    assert_eq!(call.timestamp, 1_795_284_372);
    assert_eq!(call.token.as_deref(), Some("tok123"));
    assert!(call.unsigned_payload);

    let request = Request::parse(capture!("python-v1-form"));
    let call = request.read().unwrap();
    let members: Vec<_> = call.members.keys().map(String::as_str).collect();
    assert_eq!(members, ["BankCard", "CertType", "Encryption", "IdCard", "Name", "Phone"]);
}

#[test]
fn skip_is_no_signature() {
    let request = Request::parse(capture!("go-skip"));
    assert!(claims(&request.incoming()));
    assert_eq!(
        request.refusal(),
        "AuthFailure.InvalidAuthorization: The `Authorization` header does not follow the \
         specification: `TC3-HMAC-SHA256`."
    );
}

#[test]
fn nothing_printable_holds_an_element() {
    for (text, ..) in verifiable() {
        let request = Request::parse(text);
        let call = request.read().unwrap();
        let elements = Elements::read(Action::BankCard4EVerification, &call).unwrap();
        let printed = format!("{call:?} {elements:?}");
        let printed = match &call.proof {
            Proof::V1(v1) => printed + &format!("{v1:?}"),
            Proof::Tc3(tc3) => printed + &format!("{tc3:?}"),
        };
        for element in ["韦小宝", "6225768888888888", "16137688175", "11204416541220243X"] {
            assert!(!printed.contains(element), "{printed}");
        }
    }
}
