//! Every way a body can be read, and every way it can be wrong.

use wire::acedata::{Check, Element, Encryption, FOUR_ELEMENTS, Fault, Listed};

use crate::read;

/// A body with the four elements in place and these members after them.
fn and(members: &str) -> String {
    format!(r#"{{"name":"张三","bank_card":"6222","phone":"138","id_card":"11",{members}}}"#)
}

fn complaint(body: &str) -> String {
    let fault = read(body).expect_err(body);
    assert_eq!((fault.code.as_str(), fault.status.as_u16()), ("bad_request", 400), "{body}");
    fault.message.into_owned()
}

fn encryption(members: &str) -> Encryption<'static> {
    let body: &'static str = and(members).leak();
    read(body).expect(members).encryption.expect(members)
}

#[test]
fn empty_text_is_a_present_element() {
    let call = read(r#"{"name":"","bank_card":"","phone":" ","id_card":"\t"}"#).unwrap();
    assert_eq!([&*call.name, &*call.bank_card, &*call.phone, &*call.id_card], [""; 4]);
}

#[test]
fn ascii_white_space_is_trimmed_and_no_other() {
    let call = read(
        r#"{"name":"　张 三 ","bank_card":" 6222 0200\n","phone":"\r\n138\t","id_card":" 11010119900307888X"}"#,
    )
    .unwrap();
    assert_eq!(call.name, "　张 三");
    assert_eq!(call.bank_card, "6222 0200");
    assert_eq!(call.phone, "138");
    assert_eq!(call.id_card, "11010119900307888X");
}

#[test]
fn text_without_escapes_is_borrowed() {
    use std::borrow::Cow;
    let call = read(r#"{"name":"张三","bank_card":" 6222 ","phone":"\u0031","id_card":""}"#).unwrap();
    assert!(matches!(call.name, Cow::Borrowed("张三")));
    assert!(matches!(call.bank_card, Cow::Borrowed("6222")));
    assert!(matches!(&call.phone, Cow::Owned(text) if text == "1"));
}

#[test]
fn unknown_members_are_ignored() {
    let call = and(
        r#""callback_url":"https://example.com","async":true,"mobile":1e999,"deep":[[{"a":[null]}]],"":{}"#,
    );
    assert_eq!(read(&call).unwrap().bank_card, "6222");
}

#[test]
fn last_of_two_counts() {
    assert_eq!(read(&and(r#""name":"李四""#)).unwrap().name, "李四");
    assert_eq!(complaint(&and(r#""name":null"#)), "Required and missing: name.");
    assert_eq!(read(&and(r#""n\u0061me":"李四""#)).unwrap().name, "李四");
}

#[test]
fn missing_members_are_named_in_order() {
    let all = "Required and missing: name, bank_card, phone, id_card.";
    assert_eq!(complaint(""), all);
    assert_eq!(complaint(" \r\n"), all);
    assert_eq!(complaint("{}"), all);
    assert_eq!(
        complaint(r#"{"name":null,"id_card":"1","mobile":"2"}"#),
        "Required and missing: name, bank_card, phone."
    );
    assert_eq!(complaint(r#"{"name":"a","bank_card":"b","id_card":"d"}"#), "Required and missing: phone.");
    // Missing goes before wrong.
    assert_eq!(complaint(r#"{"name":1,"bank_card":"b","id_card":"d"}"#), "Required and missing: phone.");
}

#[test]
fn wrong_types_are_named() {
    for member in ["name", "bank_card", "phone", "id_card"] {
        for value in ["6222020000000000000", "1.5", "true", "[]", "[\"a\"]", "{}", "{\"a\":1}"] {
            let body = and(&format!(r#""{member}":{value}"#));
            assert_eq!(complaint(&body), format!("{member} must be a string."));
        }
    }
    assert_eq!(complaint(&and(r#""id_card":1,"bank_card":2"#)), "bank_card must be a string.");
}

#[test]
fn cert_types() {
    for (value, number) in [
        ("0", 0),
        ("\"0\"", 0),
        ("null", 0),
        ("1", 1),
        ("-1", -1),
        ("0.0", 0),
        ("-0.0", 0),
        ("2e0", 2),
        ("\" 3 \"", 3),
        ("9223372036854775807", i64::MAX),
    ] {
        let body = and(&format!(r#""cert_type":{value}"#));
        assert_eq!(read(&body).expect(value).cert_type, number, "{value}");
    }
    for value in ["0.5", "\"\"", "\"x\"", "\"0.0\"", "true", "[0]", "{}", "9223372036854775808", "1e300"] {
        let body = and(&format!(r#""cert_type":{value}"#));
        assert_eq!(complaint(&body), "cert_type must be an integer.", "{value}");
    }
}

#[test]
fn not_json() {
    assert_eq!(complaint("{"), "The request body is not valid JSON (line 1, column 1).");
    assert_eq!(complaint("name=a&phone=b"), "The request body is not valid JSON (line 1, column 2).");
    assert_eq!(complaint("{}\n{}"), "The request body is not valid JSON (line 2, column 1).");
    assert_eq!(complaint(r#"{"name":"\ud800"}"#), "The request body is not valid JSON (line 1, column 16).");
    let deep = format!(r#"{{"x":{}"#, "[".repeat(10_000));
    assert!(complaint(&deep).starts_with("The request body is not valid JSON (line 1, column "));
    for body in ["[]", "null", "1", "\"name\"", "[\"a\",\"b\",\"c\",\"d\"]"] {
        assert_eq!(complaint(body), "The request body must be a JSON object.", "{body}");
    }
    let gbk = Check::read(&FOUR_ELEMENTS, b"{\"name\":\"\xd5\xc5\xc8\xfd\"}").unwrap_err();
    assert_eq!(gbk, Fault::bad_request("The request body is not valid UTF-8."));
}

#[test]
fn encryption_as_the_guide_has_it() {
    let encryption = encryption(
        r#""encryption":[{"algorithm":"SM4-GCM","iv":"0123456789abcdef","encrypt_list":["name","bank_card","phone","id_card"],"ciphertext_blob":"YmxvYg==","tag_list":["t1","t2","t3","t4"],"x":1}]"#,
    );
    assert_eq!(encryption.algorithm.as_deref(), Some("SM4-GCM"));
    assert_eq!(encryption.iv.as_deref(), Some("0123456789abcdef"));
    assert_eq!(encryption.ciphertext_blob.as_deref(), Some("YmxvYg=="));
    assert_eq!(encryption.tag_list, ["t1", "t2", "t3", "t4"]);
    assert_eq!(encryption.elements(&FOUR_ELEMENTS), Ok(Element::ALL.to_vec()));
}

#[test]
fn encryption_as_tencent_has_it() {
    let encryption = encryption(
        r#""encryption":{"EncryptList":[],"encrypt_list":["IdCard","Name","Phone","BankCard"],"ciphertext_blob":"YmxvYg=="}"#,
    );
    assert_eq!(encryption.algorithm, None);
    assert_eq!(encryption.iv, None);
    assert!(encryption.tag_list.is_empty());
    use Element::{BankCard, IdCard, Name, Phone};
    assert_eq!(encryption.elements(&FOUR_ELEMENTS), Ok(vec![IdCard, Name, Phone, BankCard]));
}

#[test]
fn ciphertext_blob_as_a_number() {
    for (number, text) in
        [("12345", "12345"), ("-1", "-1"), ("1.5", "1.5"), ("18446744073709551615", "18446744073709552000")]
    {
        let encryption =
            encryption(&format!(r#""encryption":[{{"encrypt_list":["name"],"ciphertext_blob":{number}}}]"#));
        assert_eq!(encryption.ciphertext_blob.as_deref(), Some(text));
    }
}

#[test]
fn nothing_listed_is_nothing_encrypted() {
    for value in [
        "null",
        "[]",
        "{}",
        "[{}]",
        r#"{"encrypt_list":[]}"#,
        r#"{"encrypt_list":null,"tag_list":null,"iv":null,"algorithm":null,"ciphertext_blob":null}"#,
        r#"[{"algorithm":"","iv":"","encrypt_list":[],"ciphertext_blob":0,"tag_list":[]}]"#,
    ] {
        let body = and(&format!(r#""encryption":{value}"#));
        assert!(read(&body).expect(value).encryption.is_none(), "{value}");
    }
}

#[test]
fn encryption_wrong() {
    let wrong = "encryption must be an object or an array of one object.";
    let list = "encryption.encrypt_list must be an array of strings.";
    let many = format!(r#"{{"encrypt_list":[{}]}}"#, vec!["\"name\""; 32].join(","));
    let wide: Vec<String> = (0..40).map(|n| format!(r#""x{n}":0"#)).collect();
    let wide = format!("{{{}}}", wide.join(","));
    for (value, message) in [
        ("[{},{}]", "encryption must not hold more than one object."),
        ("true", wrong),
        ("1", wrong),
        ("\"AES-256-CBC\"", wrong),
        ("[null]", wrong),
        ("[[]]", wrong),
        ("[[{}]]", wrong),
        (&wide, wrong),
        (&many, list),
        (r#"{"encrypt_list":"name"}"#, list),
        (r#"{"encrypt_list":{}}"#, list),
        (r#"{"encrypt_list":["name",1]}"#, list),
        (r#"{"encrypt_list":["name",null]}"#, list),
        (r#"{"encrypt_list":[["name"]]}"#, list),
        (r#"{"tag_list":[1]}"#, "encryption.tag_list must be an array of strings."),
        (r#"{"algorithm":1}"#, "encryption.algorithm must be a string."),
        (r#"{"iv":[]}"#, "encryption.iv must be a string."),
        (r#"{"ciphertext_blob":true}"#, "encryption.ciphertext_blob must be a string."),
    ] {
        assert_eq!(complaint(&and(&format!(r#""encryption":{value}"#))), message, "{value}");
    }
}

const NAMES: [&str; 4] = ["name", "bank_card", "phone", "id_card"];

#[test]
fn unknown_listed_names_are_kept() {
    let encryption = encryption(r#""encryption":{"encrypt_list":["name","CertType","bankCard"]}"#);
    let unknown = |name: &'static str| Listed::Unknown(name.into());
    assert_eq!(
        encryption.encrypt_list,
        [Listed::Known(Element::Name), unknown("CertType"), unknown("bankCard")]
    );
    assert_eq!(encryption.elements(&FOUR_ELEMENTS), Err(Fault::not_encryptable("CertType", &NAMES)));
}

#[test]
fn elements_do_not_print() {
    let body =
        and(r#""encryption":[{"iv":"0123","encrypt_list":["phone","6222"],"ciphertext_blob":"YmxvYg"}]"#);
    let printed = format!("{:?}", read(&body).unwrap());
    assert_eq!(
        printed,
        "Check { cert_type: 0, encryption: Some(Encryption { encrypt_list: [Phone, Unknown(***)], .. }), .. }"
    );
}
