//! `encryption`: an object or an array of one, in either spelling of the elements.

use serde_json::{Value, json};
use wire::Element;
use wire::envelope::Algorithm;

use super::{SAMPLE, ask, refusal, token};
use crate::envelope::sealed;
use crate::support::Sandbox;

const ENCRYPTED_ONLY: u8 = 10;

/// The sample with all its elements encrypted.
fn whole(algorithm: Algorithm) -> Value {
    let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
    let text = |element: Element| body[element_name(element)].as_str().unwrap().to_owned();
    let texts: Vec<_> = Element::ALL.iter().map(|element| (*element, text(*element))).collect();
    let listed: Vec<_> = texts.iter().map(|(element, text)| (*element, text.as_bytes())).collect();
    let sealed = sealed(algorithm, 1, &listed);
    for (element, text) in &sealed.elements {
        body[element_name(*element)] = json!(text);
    }
    body["encryption"] = json!({
        "algorithm": algorithm.as_str(),
        "iv": sealed.iv,
        "encrypt_list": Element::ALL.map(element_name),
        "ciphertext_blob": sealed.blob,
        "tag_list": sealed.tags,
    });
    body
}

fn element_name(element: Element) -> &'static str {
    let elements = wire::acedata::FOUR_ELEMENTS.elements.iter();
    elements.clone().find(|(known, _)| *known == element).unwrap().1
}

fn passes(sandbox: &Sandbox, body: &Value) {
    let reply = ask(sandbox, &body.to_string());
    assert_eq!((reply.status, reply.json()["result"].as_str()), (200, Some("0")), "{}", reply.text());
}

fn message(sandbox: &Sandbox, body: &Value) -> String {
    let reply = ask(sandbox, &body.to_string());
    assert_eq!(refusal(&reply), (400, "bad_request".into()));
    assert_eq!(reply.header("x-charged"), Some("0"));
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn as_the_guide_and_as_tencent_spell_it() {
    let sandbox = Sandbox::start();
    for algorithm in Algorithm::ALL {
        let mut body = whole(algorithm);
        passes(&sandbox, &body);
        body["encryption"] = json!([body["encryption"]]);
        passes(&sandbox, &body);
        body["encryption"][0]["encrypt_list"] = json!(["Name", "BankCard", "Phone", "IdCard"]);
        passes(&sandbox, &body);
    }
    let mut body = whole(Algorithm::Aes256Cbc);
    for nothing in [Value::Null, json!("")] {
        body["encryption"]["algorithm"] = nothing;
        passes(&sandbox, &body);
    }
}

#[test]
fn what_does_not_open_is_one_error() {
    let sandbox = Sandbox::start();
    let cannot = "encryption: the elements could not be decrypted. The keys to encrypt for are listed at /encryption-keys";
    for (member, value) in [
        ("ciphertext_blob", json!("QUJD")),
        ("ciphertext_blob", json!(12345)),
        ("ciphertext_blob", json!("a-k-b==-k-c")),
        ("iv", json!("aabbccddeeffgghh")),
        ("algorithm", json!("SM4-GCM")),
    ] {
        let mut body = whole(Algorithm::Aes256Cbc);
        body["encryption"][member] = value;
        assert_eq!(message(&sandbox, &body), cannot);
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn members_that_cannot_be() {
    let sandbox = Sandbox::start();
    for (member, value, said) in [
        ("iv", Value::Null, "Required and missing: encryption.iv."),
        ("ciphertext_blob", Value::Null, "Required and missing: encryption.ciphertext_blob."),
        ("algorithm", json!("sm4-gcm"), "encryption.algorithm must be AES-256-CBC or SM4-GCM."),
        ("encrypt_list", json!(["name", "Name"]), "encryption.encrypt_list names name twice."),
        (
            "encrypt_list",
            json!(["cert_type"]),
            "encryption.encrypt_list has an entry `cert_type` that cannot be encrypted; name, bank_card, phone and id_card can.",
        ),
    ] {
        let mut body = whole(Algorithm::Aes256Cbc);
        body["encryption"][member] = value;
        assert_eq!(message(&sandbox, &body), said);
    }
}

#[test]
fn encryption_required() {
    let sandbox = Sandbox::start();
    let ask = |body: &str| {
        let bearer = format!("Bearer {}", token(ENCRYPTED_ONLY));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        sandbox.request("POST", super::PATH, &headers, body.as_bytes())
    };
    let plain = ask(SAMPLE);
    assert_eq!(refusal(&plain), (400, "bad_request".into()));
    assert_eq!(
        plain.json()["error"]["message"],
        "name must be encrypted: list it in encryption.encrypt_list."
    );
    let mut three = whole(Algorithm::Aes256Cbc);
    three["encryption"]["encrypt_list"] = json!(["name", "bank_card", "phone"]);
    assert_eq!(
        ask(&three.to_string()).json()["error"]["message"],
        "id_card must be encrypted: list it in encryption.encrypt_list."
    );
    assert_eq!(ask(&whole(Algorithm::Sm4Gcm).to_string()).json()["result"], "0");
}
