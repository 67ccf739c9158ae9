//! How a request may be written: what each official client really sends, and the shapes between.

use crate::support::Sandbox;

use super::client::{
    EVENING, PASSED, SAMPLE, SAMPLE_MEMBERS, Signed, answered, decision, elements, escaped, form, freeze,
    get, post, refused, said,
};

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("../../../../wire/tests/tencent/captures/", $name, ".http"))
    };
}

/// A capture as it went over the socket, and when.
fn on_the_wire(capture: &str) -> (Vec<u8>, i64) {
    let (head, body) = capture.split_once("\n\n").unwrap();
    let stated = capture.to_ascii_lowercase();
    let (_, rest) = stated.split_once("timestamp: ").or_else(|| stated.split_once("timestamp=")).unwrap();
    let at = rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    (format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes(), at.parse().unwrap())
}

const CANNOT_OPEN_ZH: &str = "解密失败，请使用本服务的公钥加密，公钥见 `/encryption-keys`。";
const CANNOT_OPEN_EN: &str =
    "Decryption failed. Encrypt with this server's public key, see `/encryption-keys`.";

/// Byte for byte what the clients sent to another server on another day.
#[test]
fn what_every_client_sends_is_answered() {
    let encrypted = |message| refused("FailedOperation.DecryptSystemError", message);
    // Go was given a name with characters that need escaping, and they are no part of a name.
    let no_name = answered(-2, "姓名校验不通过");
    let bad_signature =
        refused("AuthFailure.SignatureFailure", "请求签名验证失败，请检查您的签名计算是否正确。");
    let no_signature =
        refused("AuthFailure.InvalidAuthorization", "请求头 `Authorization` 不符合规范：`TC3-HMAC-SHA256`。");
    let sandbox = Sandbox::start();
    for (capture, expected) in [
        (capture!("python-tc3-post"), PASSED),
        (capture!("python-tc3-get-nested"), &encrypted(CANNOT_OPEN_ZH)),
        (capture!("python-v1-form"), &encrypted(CANNOT_OPEN_ZH)),
        // A permanent key, with a token that is nobody's.
        (capture!("python-tc3-unsigned-payload"), &encrypted(CANNOT_OPEN_EN)),
        // Connected to us, signed Tencent's own name.
        (capture!("python-tc3-apigw-endpoint"), PASSED),
        // `POST /?`
        (capture!("python-async-tc3-post"), PASSED),
        // `Host: http://127.0.0.1:18082`, and signed so.
        (capture!("tccli-tc3-post"), PASSED),
        // Sent 127.0.0.1:18083, signed 127.0.0.1 and the service `127`.
        (capture!("node-tc3-post"), PASSED),
        (capture!("go-tc3-post"), &no_name),
        (capture!("go-v1-form"), &encrypted(CANNOT_OPEN_ZH)),
        // Signs `Encryption=Array`: nobody can verify that.
        (capture!("php-v1-form-nested"), &bad_signature),
        (capture!("go-skip"), &no_signature),
    ] {
        let (bytes, at) = on_the_wire(capture);
        freeze(&sandbox, at);
        assert_eq!(said(&sandbox.send(&bytes)), expected, "{capture}");
    }
}

/// One exchange in full, but for what every HTTP server adds.
#[test]
fn a_whole_exchange() {
    let sandbox = Sandbox::start();
    let (bytes, at) = on_the_wire(capture!("python-tc3-post"));
    freeze(&sandbox, at);
    let reply = sandbox.send(&bytes);
    assert_eq!(said(&reply), PASSED);
    let id = super::client::request_id(&reply);
    let mut headers: Vec<_> = reply.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    headers.sort();
    let expected = [
        ("content-length", reply.body.len().to_string()),
        ("content-type", "application/json".into()),
        ("x-sandbox-decision", "row=0 outcome=PASS by=sample".into()),
        ("x-tc-requestid", id),
        ("x-tc-traceid", "c428f4bd-9300-45f5-8af2-b3d3a23a4435".into()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn the_documented_samples() {
    let sandbox = Sandbox::start();
    let mismatch = answered(-6, "持卡人信息有误");
    for (name, card, expected) in [
        ("韦小宝", "6225768888888888", PASSED),
        ("Wei Xiaobao", "6225768888888888", PASSED),
        ("韦小宝", "6226090210146748", &mismatch),
        // The blanks of Tencent's own pages.
        ("韦小宝", " 6226090210146748", &mismatch),
        (" 韦小宝 ", "6225768888888888 ", PASSED),
    ] {
        let body = elements(name, card, "16137688175", " 11204416541220243X");
        assert_eq!(post(body.clone()).said(&sandbox), expected, "{body}");
    }
}

#[test]
fn members_of_a_get_are_in_the_query_in_any_order() {
    let sandbox = Sandbox::start();
    let name = escaped("韦小宝");
    for query in [
        format!("Name={name}&BankCard=6225768888888888&Phone=16137688175&IdCard=11204416541220243X"),
        format!(
            "IdCard=11204416541220243X&CertType=0&Phone=16137688175&Name={name}&BankCard=6225768888888888"
        ),
        // A blank in both spellings, and a member nobody knows.
        format!(
            "BankCard=+6225768888888888&Phone=16137688175%20&IdCard=11204416541220243X&Name={name}&New.Member.0=1"
        ),
        format!("BankCard=6225768888888888&&Phone=16137688175&IdCard=11204416541220243X&Name={name}&Empty"),
    ] {
        assert_eq!(get(&query).said(&sandbox), PASSED, "{query}");
    }
}

/// Go, Java and PHP write a blank as `+`, the others as `%20`; the name has one.
#[test]
fn a_blank_within_a_value() {
    let sandbox = Sandbox::start();
    for blank in ["+", "%20"] {
        let query = format!(
            "Name=Wei{blank}Xiaobao&BankCard=6225768888888888&Phone=16137688175&IdCard=11204416541220243X"
        );
        assert_eq!(get(&query).said(&sandbox), PASSED);
    }
    let form = form(&SAMPLE_MEMBERS).with("Name", "Wei Xiaobao").sign(&sandbox);
    assert_eq!(form.said(&sandbox), PASSED);
    assert_eq!(form.replacing("Wei%20Xiaobao", "Wei+Xiaobao").said(&sandbox), PASSED);
}

/// Java sends the elements of a list in the order of their hashes.
#[test]
fn list_elements_come_in_any_order() {
    let sandbox = Sandbox::start();
    let body =
        |list: &str| format!("{}&{list}&Encryption.Iv=QUJD&Encryption.CiphertextBlob=QUJD", sample_query());
    let cannot_open = refused("FailedOperation.DecryptSystemError", CANNOT_OPEN_ZH);
    for list in [
        "Encryption.EncryptList.0=Name&Encryption.EncryptList.1=IdCard",
        "Encryption.EncryptList.1=IdCard&Encryption.EncryptList.0=Name",
        "Encryption.EncryptList.10=IdCard&Encryption.EncryptList.2=Name",
    ] {
        assert_eq!(get(&body(list)).said(&sandbox), cannot_open, "{list}");
    }
    let both = "Encryption.EncryptList.0=Name&Encryption.EncryptList.First=IdCard";
    let contradiction = refused("InvalidParameter", "参数 `Encryption` 既是列表又是结构。");
    assert_eq!(get(&body(both)).said(&sandbox), contradiction);
    let twice = "Encryption.EncryptList.0=Name&Encryption.EncryptList.0=Name";
    let given_twice = refused("InvalidParameter", "参数 `Encryption.EncryptList.0` 重复。");
    assert_eq!(get(&body(twice)).said(&sandbox), given_twice);
}

fn sample_query() -> String {
    let owned = SAMPLE_MEMBERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    super::client::encoded(&owned)
}

/// Node's helper sends an empty list when it had nothing to encrypt, PHP null members.
#[test]
fn an_empty_list_encrypts_nothing() {
    let sandbox = Sandbox::start();
    for encryption in [
        r#"null"#,
        r#"{}"#,
        r#"{"EncryptList":[],"Iv":null,"CiphertextBlob":null,"TagList":[]}"#,
        r#"{"EncryptList":null}"#,
    ] {
        let body = SAMPLE.replace('}', &format!(r#","Encryption":{encryption}}}"#));
        assert_eq!(post(body).said(&sandbox), PASSED, "{encryption}");
    }
}

/// Ciphertext is never verified as if it were text: here it would be a free answer.
#[test]
fn what_is_no_envelope_is_refused() {
    let sandbox = Sandbox::start();
    let body = r#"{"Name":"QUJD","BankCard":"QUJD","Phone":"16137688175","IdCard":"QUJD",
        "Encryption":{"EncryptList":["Name","IdCard","BankCard"],"CiphertextBlob":"QUJD","Iv":"QUJD"}}"#;
    assert_eq!(post(body).said(&sandbox), refused("FailedOperation.DecryptSystemError", CANNOT_OPEN_ZH));
    assert_eq!(
        post(body).english().said(&sandbox),
        refused("FailedOperation.DecryptSystemError", CANNOT_OPEN_EN)
    );
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], 0);
}

/// Python escapes with blanks, Go escapes `<`, PHP escapes slashes, the others write UTF-8.
#[test]
fn json_in_every_spelling() {
    let sandbox = Sandbox::start();
    for body in [
        r#"{"Name": "\u97e6\u5c0f\u5b9d", "BankCard": "6225768888888888", "Phone": "16137688175", "IdCard": "11204416541220243X"}"#,
        r#"{"IdCard":"11204416541220243X","Phone":"16137688175","BankCard":"6225768888888888","Name":"韦小宝"}"#,
        "\n{\t\"Name\":\"韦小宝\",\r\n\"BankCard\":\"6225768888888888\",\"Phone\":\"16137688175\",\"IdCard\":\"11204416541220243\\u0058\"} ",
        r#"{"Name":"韦小宝","BankCard":"6225768888888888","Phone":"16137688175","IdCard":"11204416541220243X","CertType":0,"Url":"a\/b","New":{"Member":[1,null]}}"#,
    ] {
        assert_eq!(post(body).said(&sandbox), PASSED, "{body}");
    }
}

#[test]
fn java_states_a_charset_and_signs_it() {
    let sandbox = Sandbox::start();
    assert_eq!(post(SAMPLE).content_type("application/json; charset=utf-8").said(&sandbox), PASSED);
    assert_eq!(post(SAMPLE).content_type("application/json; charset=UTF-8").said(&sandbox), PASSED);
}

#[test]
fn a_form_may_be_signed_with_tc3_too() {
    let sandbox = Sandbox::start();
    let form = post(sample_query()).content_type("application/x-www-form-urlencoded");
    assert_eq!(form.said(&sandbox), PASSED);
}

#[test]
fn a_multipart_body() {
    let sandbox = Sandbox::start();
    let part = |name: &str, value: &str| {
        format!("--b4e\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts: String = SAMPLE_MEMBERS.iter().map(|(name, value)| part(name, value)).collect();
    let multipart = "multipart/form-data; boundary=b4e";
    let whole = post(format!("{parts}--b4e--\r\n")).content_type(multipart);
    assert_eq!(whole.said(&sandbox), PASSED);
    let malformed = refused("InvalidRequest", "请求 body 的 `multipart/form-data` 格式错误。");
    assert_eq!(post(parts.clone()).content_type(multipart).said(&sandbox), malformed);
    assert_eq!(post(parts).content_type("multipart/form-data").said(&sandbox), malformed);
}

#[test]
fn another_content_type_has_no_members() {
    let sandbox = Sandbox::start();
    let wrong = refused("InvalidParameter", "请求头 `Content-Type` 应为 `application/json`。");
    assert_eq!(post(SAMPLE).content_type("text/plain").said(&sandbox), wrong);
    assert_eq!(post(SAMPLE).sign(&sandbox).without("Content-Type").said(&sandbox), wrong);
}

#[test]
fn a_body_that_is_no_json_object() {
    let sandbox = Sandbox::start();
    for (body, line, column) in
        [("[1]", 1, 0), ("{\"Name\":", 1, 8), ("{\n\"Name\" 1}", 2, 8), ("null", 1, 4)]
    {
        let message = format!("请求 body 不是有效的 JSON 对象：第 `{line}` 行第 `{column}` 列。");
        assert_eq!(post(body).said(&sandbox), refused("InvalidParameter", &message), "{body}");
    }
}

/// Empty headers as Java and .NET send them; Node's trace id comes back.
#[test]
fn headers_that_say_nothing() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE)
        .header("X-TC-Region", "")
        .header("X-TC-Token", "")
        .header("X-TC-Language", "")
        .header("X-TC-TraceId", "93418459-ed19-4d34-b9e7-38824be2b486");
    let reply = ask.send(&sandbox);
    assert_eq!(said(&reply), PASSED);
    assert_eq!(reply.header("x-tc-traceid"), Some("93418459-ed19-4d34-b9e7-38824be2b486"));
}

/// Header names have no case, and Go and Ruby write theirs as `X-Tc-Action`.
#[test]
fn header_names_in_any_case() {
    let sandbox = Sandbox::start();
    let signed = post(SAMPLE).sign(&sandbox);
    let lower = |signed: &Signed| {
        let headers =
            signed.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        Signed { headers, ..signed.clone() }
    };
    assert_eq!(lower(&signed).said(&sandbox), PASSED);
}

/// In TC3 a parameter called `Action` is a member like any other, and nobody knows it.
#[test]
fn common_parameters_of_one_generation_are_nothing_in_the_other() {
    let sandbox = Sandbox::start();
    let body = SAMPLE.replace('}', r#","Action":"DeleteEverything","Region":"x","Version":"1"}"#);
    assert_eq!(post(body).said(&sandbox), PASSED);
}

/// An answer of a person on record, so that the members were really read and not only a sample.
#[test]
fn every_shape_reaches_the_records() {
    let sandbox = Sandbox::start();
    let members = [
        ("Name", "张伟"),
        ("BankCard", "6217000000000000012"),
        ("Phone", "16100000001"),
        ("IdCard", "99010119610202001X"),
    ];
    let query = super::client::encoded(&members.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let body = elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    let form = form(&members);
    for reply in [
        post(body).send(&sandbox),
        get(&query).send(&sandbox),
        form.send(&sandbox),
        form.clone().get().send(&sandbox),
        form.clone().sha256().send(&sandbox),
        form.sha256().get().send(&sandbox),
    ] {
        assert_eq!(said(&reply), PASSED);
        assert_eq!(decision(&reply), "row=25 outcome=PASS by=records");
    }
    assert_eq!(sandbox.charges(), 6);
}

/// Two identical requests within a second carry the same signature, and both are honest.
#[test]
fn there_is_no_replay_protection() {
    let sandbox = Sandbox::start();
    freeze(&sandbox, EVENING);
    let request = post(SAMPLE).at(EVENING).sign(&sandbox);
    let (first, second) = (request.send(&sandbox), request.send(&sandbox));
    assert_eq!([said(&first), said(&second)], [PASSED, PASSED]);
    assert_ne!(super::client::request_id(&first), super::client::request_id(&second));
    // Go before 1.20 begins every process with the same nonce.
    let form = form(&SAMPLE_MEMBERS).with("Timestamp", &EVENING.to_string()).sign(&sandbox);
    assert_eq!([form.said(&sandbox), form.said(&sandbox)], [PASSED, PASSED]);
    assert_eq!(sandbox.charges(), 4);
}
