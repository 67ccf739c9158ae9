//! `Encryption`: any elements, in any order, in any of the ways a request can be written.

use serde_json::{Value, json};
use wire::Element;
use wire::envelope::Algorithm;

use super::client::*;
use crate::envelope::{Sealed, sealed};
use crate::support::Sandbox;

const SAMPLE_ELEMENTS: [(Element, &str); 4] = [
    (Element::Name, "韦小宝"),
    (Element::BankCard, "6225768888888888"),
    (Element::Phone, "16137688175"),
    (Element::IdCard, "11204416541220243X"),
];

const CANNOT_OPEN: &str = "解密失败，请使用本服务的公钥加密，公钥见 `/encryption-keys`。";

fn name_of(element: Element) -> &'static str {
    match element {
        Element::Name => "Name",
        Element::BankCard => "BankCard",
        Element::Phone => "Phone",
        Element::IdCard => "IdCard",
    }
}

/// A request of these elements with those of the list encrypted, in the order of the list.
fn request(elements: &[(Element, &str)], algorithm: Algorithm, seed: u8, list: &[Element]) -> Value {
    let plain = |listed: &Element| elements.iter().find(|(element, _)| element == listed).unwrap();
    let listed: Vec<_> = list.iter().map(plain).map(|(element, text)| (*element, text.as_bytes())).collect();
    let mut body = json!({});
    for (element, text) in elements {
        body[name_of(*element)] = json!(text);
    }
    put(&mut body, &sealed(algorithm, seed, &listed));
    body
}

fn put(body: &mut Value, sealed: &Sealed) {
    for (element, text) in &sealed.elements {
        body[name_of(*element)] = json!(text);
    }
    let list: Vec<_> = sealed.elements.iter().map(|(element, _)| name_of(*element)).collect();
    body["Encryption"] = json!({
        "EncryptList": list,
        "CiphertextBlob": sealed.blob,
        "Iv": sealed.iv,
        "Algorithm": sealed.algorithm.as_str(),
        "TagList": sealed.tags,
    });
}

fn whole(algorithm: Algorithm) -> Value {
    request(&SAMPLE_ELEMENTS, algorithm, 1, &Element::ALL)
}

fn changed(path: &str, value: Value) -> String {
    let mut body = whole(Algorithm::Aes256Cbc);
    *body.pointer_mut(path).unwrap() = value;
    body.to_string()
}

#[test]
fn any_elements_in_any_order() {
    let sandbox = Sandbox::start();
    use Element::{BankCard, IdCard, Name, Phone};
    let lists: [&[Element]; 5] =
        [&Element::ALL, &[IdCard, BankCard, Name, Phone], &[Phone], &[BankCard, Name], &[IdCard]];
    for algorithm in Algorithm::ALL {
        for (seed, list) in (1..).zip(lists) {
            let body = request(&SAMPLE_ELEMENTS, algorithm, seed, list).to_string();
            assert_eq!(post(body).said(&sandbox), PASSED, "{algorithm:?} {list:?}");
        }
    }
    // An absent algorithm is AES, whose helpers send no tags.
    let mut body = whole(Algorithm::Aes256Cbc);
    body["Encryption"]["Algorithm"] = Value::Null;
    body["Encryption"].as_object_mut().unwrap().remove("TagList");
    assert_eq!(post(body.to_string()).said(&sandbox), PASSED);
}

#[test]
fn in_a_form_and_in_a_query() {
    let sandbox = Sandbox::start();
    for algorithm in Algorithm::ALL {
        let body = whole(algorithm);
        let mut members: Vec<(String, String)> = Vec::new();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for name in ["Name", "BankCard", "Phone", "IdCard"] {
            members.push((name.into(), text(&body[name])));
        }
        for name in ["CiphertextBlob", "Iv", "Algorithm"] {
            members.push((format!("Encryption.{name}"), text(&body["Encryption"][name])));
        }
        for name in ["EncryptList", "TagList"] {
            for (at, value) in body["Encryption"][name].as_array().unwrap().iter().enumerate() {
                members.push((format!("Encryption.{name}.{at}"), text(value)));
            }
        }
        let borrowed: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(form(&borrowed).said(&sandbox), PASSED);
        assert_eq!(form(&borrowed).get().said(&sandbox), PASSED);
        assert_eq!(get(&encoded(&members)).said(&sandbox), PASSED);
    }
}

/// `PhoneVerification` has the members of the envelope beside the elements, not in an object of their own; as JSON,
/// as a form and in a query; and the nested object too, which newer helpers send.
#[test]
fn an_envelope_beside_the_elements() {
    use Element::{IdCard, Name, Phone};
    let sandbox = Sandbox::start();
    const ELEMENTS: [(Element, &str); 3] =
        [(IdCard, "99010119610202001X"), (Name, "张伟"), (Phone, "16100000001")];
    let result = |reply: crate::support::Reply| reply.json()["Response"]["Result"].clone();
    for algorithm in Algorithm::ALL {
        for (seed, list) in (20..).zip([&[IdCard, Name, Phone][..], &[Phone, IdCard], &[Name]]) {
            let nested = request(&ELEMENTS, algorithm, seed, list);
            let mut flat = nested.clone();
            let envelope = flat.as_object_mut().unwrap().remove("Encryption").unwrap();
            flat.as_object_mut().unwrap().extend(envelope.as_object().unwrap().clone());
            let ask =
                |body: &Value| result(post(body.to_string()).action("PhoneVerification").send(&sandbox));
            assert_eq!((ask(&nested), ask(&flat)), (json!("0"), json!("0")), "{algorithm:?} {list:?}");

            let mut members: Vec<(String, String)> = Vec::new();
            for (name, value) in flat.as_object().unwrap() {
                match value {
                    Value::Array(list) => members.extend(
                        list.iter()
                            .zip(0..)
                            .map(|(one, at)| (format!("{name}.{at}"), one.as_str().unwrap().into())),
                    ),
                    value => members.push((name.clone(), value.as_str().unwrap().into())),
                }
            }
            let query = get(&encoded(&members)).action("PhoneVerification");
            assert_eq!(result(query.send(&sandbox)), "0", "{algorithm:?} {list:?}");
        }
        // Decrypted to somebody else it does not pass; what does not open is refused, never taken for text.
        let other = [ELEMENTS[0], (Name, "张三"), ELEMENTS[2]];
        let mut body = request(&other, algorithm, 30, &[Name]);
        let envelope = body.as_object_mut().unwrap().remove("Encryption").unwrap();
        body.as_object_mut().unwrap().extend(envelope.as_object().unwrap().clone());
        let ask = |body: &Value| post(body.to_string()).action("PhoneVerification").send(&sandbox);
        assert_ne!(result(ask(&body)), "0");
        let charges = sandbox.charges();
        body["CiphertextBlob"] = json!("AAAA");
        assert_eq!(ask(&body).json()["Response"]["Error"]["Code"], "FailedOperation.DecryptSystemError");
        assert_eq!(sandbox.charges(), charges);
    }
    // Beside the elements it is of this action alone: elsewhere such members mean nothing.
    let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
    body["EncryptList"] = json!(["Name"]);
    assert_eq!(post(body.to_string()).said(&sandbox), PASSED);
}

/// Helpers of before August 2023 wrap a key once and use it for a while.
#[test]
fn one_blob_with_new_ivs() {
    let sandbox = Sandbox::start();
    let first = sealed(Algorithm::Sm4Gcm, 3, &[(Element::Name, "韦小宝".as_bytes())]);
    for iv in 1..=3u8 {
        let nonce = [iv; 12];
        let (text, tag) = crate::envelope::seal::gcm(&[3; 16], &nonce, "韦小宝".as_bytes());
        let mut body = serde_json::from_str(SAMPLE).unwrap();
        let again = Sealed {
            iv: crate::envelope::base64(&nonce),
            elements: vec![(Element::Name, crate::envelope::base64(&text))],
            tags: vec![crate::envelope::base64(&tag)],
            blob: first.blob.clone(),
            ..sealed(Algorithm::Sm4Gcm, 3, &[])
        };
        put(&mut body, &again);
        assert_eq!(post(body.to_string()).said(&sandbox), PASSED);
    }
}

/// The script comes after the envelope: samples and magic cards work encrypted.
#[test]
fn a_magic_card_encrypted() {
    let sandbox = Sandbox::start();
    let mut elements = SAMPLE_ELEMENTS;
    elements[1].1 = "6200000000130000";
    let plain = post(elements_of(&elements)).said(&sandbox);
    for algorithm in Algorithm::ALL {
        let body = request(&elements, algorithm, 9, &Element::ALL).to_string();
        assert_eq!(post(body).said(&sandbox), plain);
    }
}

fn elements_of(of: &[(Element, &str); 4]) -> String {
    elements(of[0].1, of[1].1, of[2].1, of[3].1)
}

#[test]
fn what_does_not_open_is_one_error() {
    let sandbox = Sandbox::start();
    let expected = refused("FailedOperation.DecryptSystemError", CANNOT_OPEN);
    let blob = whole(Algorithm::Aes256Cbc)["Encryption"]["CiphertextBlob"].as_str().unwrap().to_owned();
    let flipped = format!("{}{}", if blob.starts_with('A') { "B" } else { "A" }, &blob[1..]);
    for (path, value) in [
        ("/Encryption/CiphertextBlob", json!(flipped)),
        ("/Encryption/CiphertextBlob", json!("QUJD")),
        ("/Encryption/CiphertextBlob", json!("not base64")),
        ("/Encryption/CiphertextBlob", json!("")),
        ("/Encryption/Iv", json!("QUJD")),
        ("/Encryption/Iv", json!("aabbccddeeffgghh")),
        ("/Encryption/Algorithm", json!("SM4-GCM")),
        ("/Name", json!("QUJD")),
        ("/Name", json!("韦小宝")),
        ("/Name", json!("")),
    ] {
        assert_eq!(post(changed(path, value.clone())).said(&sandbox), expected, "{path} {value}");
    }
    let mut untagged = whole(Algorithm::Sm4Gcm);
    untagged["Encryption"]["TagList"] = json!([]);
    assert_eq!(post(untagged.to_string()).said(&sandbox), expected);
    assert_eq!(
        post(changed("/Encryption/Iv", json!(""))).english().said(&sandbox),
        refused(
            "FailedOperation.DecryptSystemError",
            "Decryption failed. Encrypt with this server's public key, see `/encryption-keys`."
        )
    );
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn a_key_of_the_key_management_service() {
    let sandbox = Sandbox::start();
    let blob = json!("EtJLP5vB-k-bX6DHyKbBqLXP/gPYA==-k-7WCkYyA1xvT5Kd9AaFDvpw==");
    assert_eq!(
        post(changed("/Encryption/CiphertextBlob", blob)).said(&sandbox),
        refused(
            "FailedOperation.StsUnAuthErrError",
            "STS未授权：不支持 KMS 数据密钥，请使用本服务的公钥加密，公钥见 `/encryption-keys`。"
        )
    );
}

#[test]
fn a_list_that_cannot_be() {
    let sandbox = Sandbox::start();
    for (list, message) in [
        (
            json!(["Name", "CertType"]),
            "`Encryption.EncryptList` 中的字段 `CertType` 不支持加密，支持：`Name`, `BankCard`, `Phone`, `IdCard`。",
        ),
        (
            json!(["name"]),
            "`Encryption.EncryptList` 中的字段 `name` 不支持加密，支持：`Name`, `BankCard`, `Phone`, `IdCard`。",
        ),
        (
            json!(["6225768888888888"]),
            "`Encryption.EncryptList` 中的字段 不支持加密，支持：`Name`, `BankCard`, `Phone`, `IdCard`。",
        ),
        (json!(["Name", "Phone", "Name"]), "`Encryption.EncryptList` 中的字段 `Name` 重复。"),
    ] {
        let reply = post(changed("/Encryption/EncryptList", list)).said(&sandbox);
        assert_eq!(reply, refused("InvalidParameter.UnsupportEncryptField", message));
    }
    let mut absent = whole(Algorithm::Aes256Cbc);
    absent.as_object_mut().unwrap().remove("Phone");
    assert_eq!(
        post(absent.to_string()).said(&sandbox),
        refused("MissingParameter", "请求缺少必填参数 `Phone`。")
    );
}

/// An application whose owner must not send plain text.
#[test]
fn encryption_required() {
    let sandbox = Sandbox::start();
    let expected = refused("InvalidParameter.UnsupportEncryptField", "存在不加密的字段，请参考文档修改。");
    let key = || key_of("EncryptedOnly");
    assert_eq!(post(SAMPLE).key(key()).said(&sandbox), expected);
    let three = request(&SAMPLE_ELEMENTS, Algorithm::Sm4Gcm, 1, &Element::ALL[..3]).to_string();
    assert_eq!(post(three).key(key()).said(&sandbox), expected);
    for algorithm in Algorithm::ALL {
        assert_eq!(post(whole(algorithm).to_string()).key(key()).said(&sandbox), PASSED);
    }
}

/// Nobody unknown makes the server open anything.
#[test]
fn who_asks_comes_first() {
    let sandbox = Sandbox::start();
    let body = changed("/Encryption/CiphertextBlob", json!("QUJD"));
    let wrong = Key { secret: "wrong".into(), ..public() };
    assert!(post(body.clone()).key(wrong).said(&sandbox).contains("AuthFailure.SignatureFailure"));
    assert!(post(body).key(key_of("Arrears")).said(&sandbox).contains("UnauthorizedOperation.Arrears"));
}

/// A retry is encrypted anew; what it asks is the same.
#[test]
fn a_key_names_the_question_and_not_its_encryption() {
    let sandbox = Sandbox::start();
    let ask = |body: &str| post(body).header("Idempotency-Key", "order-1").send(&sandbox);
    let first = ask(SAMPLE);
    for (seed, algorithm) in (1..).zip(Algorithm::ALL) {
        let again = ask(&request(&SAMPLE_ELEMENTS, algorithm, seed, &Element::ALL).to_string());
        assert_eq!(request_id(&again), request_id(&first));
        assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    }
    assert_eq!(sandbox.charges(), 1);
}

/// Tencent's Java helper before v1.0.4 on a Chinese Windows.
#[test]
fn a_name_in_gbk_is_read_and_its_key_named_in_the_log() {
    let sandbox = Sandbox::start();
    let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
    // 韦小宝
    put(&mut body, &sealed(Algorithm::Aes256Cbc, 4, &[(Element::Name, b"\xce\xa4\xd0\xa1\xb1\xa6")]));
    for _ in 0..2 {
        assert_eq!(post(body.to_string()).said(&sandbox), PASSED);
    }
    let log = sandbox.log();
    assert_eq!(log.matches("GBK").count(), 1, "{log}");
    assert!(log.contains(crate::support::SECRET_ID) && !log.contains("韦"), "{log}");
}
