//! The members of `BankCard4EVerification`: what is missing, what is of the wrong type.

use wire::tencent::action::{Action, Algorithm, Elements};

use crate::support::{Request, SAMPLE, refusal, signed_tc3};

fn refused(body: &str) -> String {
    let request = signed_tc3(body);
    let call = request.read().unwrap();
    refusal(&Elements::read(Action::BankCard4EVerification, &call).unwrap_err())
}

/// The sample with a member changed or added; `null` stands for itself.
fn sample_with(name: &str, json: &str) -> String {
    let mut members: serde_json::Value = serde_json::from_str(SAMPLE).unwrap();
    members[name] = serde_json::from_str(json).unwrap();
    members.to_string()
}

#[test]
fn missing_elements_are_named_in_order() {
    for (body, name) in [
        ("{}", "Name"),
        (r#"{"Name":null,"Phone":1}"#, "Name"),
        (r#"{"Name":1}"#, "BankCard"),
        (r#"{"Name":"","BankCard":""}"#, "Phone"),
        (r#"{"Name":"","BankCard":"","Phone":""}"#, "IdCard"),
    ] {
        assert_eq!(
            refused(body),
            format!("MissingParameter: The request is missing a required parameter `{name}`.")
        );
    }
}

#[test]
fn elements_of_the_wrong_type() {
    for (name, json) in [
        ("Name", "1"),
        ("BankCard", "6225768888888888"),
        ("Phone", "[\"16137688175\"]"),
        ("IdCard", "{}"),
        ("CertType", "\"0\""),
        ("CertType", "0.5"),
        ("CertType", "true"),
        ("Encryption", "\"x\""),
        ("Encryption", "[]"),
    ] {
        assert_eq!(
            refused(&sample_with(name, json)),
            format!("InvalidParameter: Parameter `{name}` type error.")
        );
    }
}

#[test]
fn blanks_around_an_element_are_taken_off() {
    let body = SAMPLE.replace("\"1120", "\" 1120").replace("\"6225", "\" 6225");
    let request = signed_tc3(&body);
    let call = request.read().unwrap();
    let elements = Elements::read(Action::BankCard4EVerification, &call).unwrap();
    assert_eq!(elements.id_card, "11204416541220243X");
    assert_eq!(elements.bank_card, "6225768888888888");
}

#[test]
fn an_empty_element_is_present() {
    let request = signed_tc3(r#"{"Name":" ","BankCard":"","Phone":"","IdCard":""}"#);
    let call = request.read().unwrap();
    assert_eq!(Elements::read(Action::BankCard4EVerification, &call).unwrap().name, "");
}

#[test]
fn cert_type_may_be_text_only_where_everything_is() {
    let json = signed_tc3(&sample_with("CertType", "1"));
    let call = json.read().unwrap();
    assert_eq!(Elements::read(Action::BankCard4EVerification, &call).unwrap().cert_type, 1);

    let query = "Name=a&BankCard=b&Phone=c&IdCard=d&CertType=";
    for (text, cert_type) in [("0", Some(0)), ("2", Some(2)), ("x", None), ("", None)] {
        let mut request = signed_tc3("");
        request.method = http::Method::GET;
        request.query = format!("{query}{text}");
        let call = request.read().unwrap();
        let elements = Elements::read(Action::BankCard4EVerification, &call);
        assert_eq!(elements.ok().map(|elements| elements.cert_type), cert_type);
    }
}

#[test]
fn nothing_is_encrypted() {
    for json in [
        "null",
        "{}",
        r#"{"EncryptList":[]}"#,
        // Node's helper, given nothing to encrypt.
        r#"{"EncryptList":[],"CiphertextBlob":"x","Iv":null,"Algorithm":"AES-256-CBC","TagList":[]}"#,
        r#"{"EncryptList":null,"Algorithm":"rot13"}"#,
    ] {
        let request = signed_tc3(&sample_with("Encryption", json));
        let call = request.read().unwrap();
        assert_eq!(Elements::read(Action::BankCard4EVerification, &call).unwrap().encryption, None, "{json}");
    }
}

#[test]
fn envelopes() {
    let json = r#"{"EncryptList":["Phone","Name"],"CiphertextBlob":"b","Iv":"i"}"#;
    let request = signed_tc3(&sample_with("Encryption", json));
    let call = request.read().unwrap();
    let encryption = Elements::read(Action::BankCard4EVerification, &call).unwrap().encryption.unwrap();
    assert_eq!(encryption.algorithm, Algorithm::Aes256Cbc);
    assert_eq!(encryption.encrypt_list, ["Phone", "Name"]);
    assert!(!format!("{encryption:?}").contains("\"b\""));

    for (json, expected) in [
        (
            r#"{"EncryptList":["Name"],"Iv":"i"}"#,
            "MissingParameter: The request is missing a required parameter `Encryption.CiphertextBlob`.",
        ),
        (
            r#"{"EncryptList":["Name"],"CiphertextBlob":"b"}"#,
            "MissingParameter: The request is missing a required parameter `Encryption.Iv`.",
        ),
        (
            r#"{"EncryptList":"Name","CiphertextBlob":"b","Iv":"i"}"#,
            "InvalidParameter: Parameter `Encryption.EncryptList` type error.",
        ),
        (
            r#"{"EncryptList":["Name"],"CiphertextBlob":"b","Iv":"i","TagList":[1]}"#,
            "InvalidParameter: Parameter `Encryption.TagList` type error.",
        ),
        (
            r#"{"EncryptList":["Name"],"CiphertextBlob":"b","Iv":"i","Algorithm":"sm4-gcm"}"#,
            "InvalidParameterValue: The value of parameter `Encryption.Algorithm` is not acceptable, \
             it must be one of `AES-256-CBC`, `SM4-GCM`.",
        ),
    ] {
        assert_eq!(refused(&sample_with("Encryption", json)), expected);
    }
}

#[test]
fn versions_and_actions() {
    let asked = |request: &Request| match Action::requested(&request.read().unwrap()) {
        Ok(action) => action.name().to_owned(),
        Err(fault) => refusal(&fault),
    };
    let request = signed_tc3(SAMPLE);
    assert_eq!(asked(&request), "BankCard4EVerification");
    let request = request.having("X-TC-Action", "bankcard4EVerification");
    assert_eq!(
        asked(&request),
        "InvalidAction: The request `Action` is invalid or not found. \
         Supported: `BankCard4EVerification`, `BankCardVerification`, \
         `BankCard2EVerification`, `CheckBankCardInformation`, `IdCardVerification`, `PhoneVerification`, \
         `PhoneVerificationCMCC`, `PhoneVerificationCUCC`, `PhoneVerificationCTCC`, `CheckPhoneAndName`."
    );
    let request = request.having("X-TC-Version", "2018-07-24");
    assert_eq!(
        asked(&request),
        "NoSuchVersion: The specified api version=`2018-07-24` does not exist in service=`faceid`."
    );
}
