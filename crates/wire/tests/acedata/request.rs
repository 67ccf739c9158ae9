//! From the request line to the token: the parts a request has around its body.

use wire::Language;
use wire::acedata::{
    Accept, Check, Endpoint, ErrorCode, FOUR_ELEMENTS, Fault, bearer, endpoint, idempotency_key, language,
    route, trace_id,
};

use crate::{Transcript, with_headers};

/// The guide's curl snippet, its token put in; the body indented as printed.
const CURL: &str = r#"POST /identity/bankcard/check-4e HTTP/1.1
User-Agent: curl/7.88.1
accept: application/json
authorization: Bearer 0123456789abcdef0123456789abcdef
content-type: application/json
Content-Length: 79

{
  "name": "胡印福",
  "phone": "***",
  "id_card": "***",
  "bank_card": "***"
}"#;

/// The guide's Python snippet as `requests` sends it before a key was chosen: escapes in the body and
/// the placeholder in the header.
const REQUESTS: &str = r#"POST /identity/bankcard/check-4e HTTP/1.1
User-Agent: python-requests/2.34.2
Accept-Encoding: gzip, deflate
accept: application/json
Connection: keep-alive
authorization: Bearer {token}
content-type: application/json
Content-Length: 84

{"name": "\u80e1\u5370\u798f", "phone": "***", "id_card": "***", "bank_card": "***"}"#;

/// The TypeScript SDK, whose transport Node's `fetch` is.
const NODE: &str = r#"POST /identity/bankcard/check-4e/ HTTP/1.1
accept: */*
accept-language: *
sec-fetch-mode: cors
accept-encoding: gzip, deflate
user-agent: acedatacloud-node/0.1.0
authorization: Bearer 0123456789abcdef0123456789abcdef
content-type: application/json

{"name":"张三","phone":"13800000000","id_card":"11010119900307888X","bank_card":"6222020000000000000"}"#;

#[test]
fn guides_curl_snippet() {
    let request = Transcript::new(CURL);
    let request = request.incoming();
    assert_eq!(route(&request), Ok(Endpoint::BankCard4E));
    assert_eq!(bearer(&request).unwrap().secret(), "0123456789abcdef0123456789abcdef");
    assert_eq!(Accept::of(&request), Accept::Json);
    assert_eq!(language(&request), Language::English);
    let call = Check::read(&FOUR_ELEMENTS, request.body).unwrap();
    assert_eq!(
        [&*call.name, &*call.phone, &*call.id_card, &*call.bank_card],
        ["胡印福", "***", "***", "***"]
    );
    assert_eq!(call.cert_type, 0);
    assert!(call.encryption.is_none());
}

#[test]
fn guides_python_snippet() {
    let request = Transcript::new(REQUESTS);
    let request = request.incoming();
    assert_eq!(request.body.len(), 84);
    assert_eq!(route(&request), Ok(Endpoint::BankCard4E));
    let fault = bearer(&request).unwrap_err();
    assert_eq!(fault.status, 401);
    assert_eq!(
        fault.message,
        "The specified token is invalid or wrong. \
         `{token}` is a placeholder: put your API key in its place."
    );
    let call = Check::read(&FOUR_ELEMENTS, request.body).unwrap();
    assert_eq!(
        [&*call.name, &*call.phone, &*call.id_card, &*call.bank_card],
        ["胡印福", "***", "***", "***"]
    );
}

#[test]
fn typescript_sdk() {
    let request = Transcript::new(NODE);
    let request = request.incoming();
    assert_eq!(route(&request), Ok(Endpoint::BankCard4E));
    assert_eq!(Accept::of(&request), Accept::Json);
    assert_eq!(language(&request), Language::English);
    let call = Check::read(&FOUR_ELEMENTS, request.body).unwrap();
    assert_eq!(call.name, "张三");
    assert_eq!(call.phone, "13800000000");
    assert_eq!(call.id_card, "11010119900307888X");
    assert_eq!(call.bank_card, "6222020000000000000");
}

#[test]
fn paths() {
    assert_eq!(endpoint("/identity/bankcard/check-4e"), Some(Endpoint::BankCard4E));
    assert_eq!(endpoint("/identity/bankcard/check-4e/"), Some(Endpoint::BankCard4E));
    for path in [
        "",
        "/",
        "/identity/",
        "/identity/bankcard/check-5e",
        "/identity/idcard/ocr",
        "/identity/phone/check-1e",
        "/identity/bankcard/check-4e//",
        "//identity/bankcard/check-4e",
        "/identity/bankcard/check-4E",
        "/serp/google",
    ] {
        assert_eq!(endpoint(path), None, "{path}");
    }
}

#[test]
fn every_endpoint_has_a_path_of_its_own() {
    for one in Endpoint::ALL {
        assert_eq!(endpoint(one.path()), Some(one));
        assert!(one.path().ends_with(one.name()));
    }
}

/// The guide says `mobile` here and `phone` there, and one endpoint has its encryption flattened.
#[test]
fn naming_traps() {
    let read = |endpoint: Endpoint, body: &'static str| Check::read(endpoint.takes(), body.as_bytes());
    let mobile = read(Endpoint::Phone2E, r#"{"name":"a","mobile":"1"}"#).unwrap();
    assert_eq!(mobile.phone, "1");
    assert_eq!(
        read(Endpoint::Phone2E, r#"{"name":"a","phone":"1"}"#).unwrap_err().message,
        "Required and missing: mobile."
    );
    assert_eq!(
        read(Endpoint::Phone3E, r#"{"name":"a","mobile":"1","id_card":"2"}"#).unwrap_err().message,
        "Required and missing: phone."
    );
    assert_eq!(
        read(Endpoint::IdCard2E, r#"{"name":"a","id_card":"2"}"#).unwrap_err().message,
        "Required and missing: validity_begin, validity_end."
    );
    let flat = r#"{"name":"a","phone":"1","id_card":"2","verify_mode":"1","encrypt_list":["phone","Name"],"iv":"x"}"#;
    let flat = read(Endpoint::Phone3E, flat).unwrap();
    assert!(flat.detailed);
    assert_eq!(flat.envelope().unwrap_err().message, "Required and missing: ciphertext_blob.");
    // Elsewhere these are members nobody knows.
    let four =
        r#"{"name":"a","bank_card":"3","phone":"1","id_card":"2","encrypt_list":["phone"],"iv":1e999}"#;
    assert!(read(Endpoint::BankCard4E, four).unwrap().encryption.is_none());
    let not_taken = r#"{"bank_card":"3","encryption":{"encrypt_list":["phone"]}}"#;
    assert_eq!(
        read(Endpoint::BankCard1E, not_taken).unwrap().envelope().unwrap_err().message,
        "encryption.encrypt_list has an entry `phone` that cannot be encrypted; bank_card can."
    );
}

#[test]
fn path_before_method() {
    let fault = |line: &str| route(&Transcript::new(line).incoming()).unwrap_err();
    assert_eq!(fault("GET /identity/nowhere HTTP/1.1"), Fault::from(ErrorCode::NoApi));
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let line = format!("{method} /identity/bankcard/check-4e HTTP/1.1");
        assert_eq!(fault(&line), Fault::from(ErrorCode::MethodNotAllowed));
    }
}

#[test]
fn tokens_read() {
    for line in [
        "authorization: Bearer abc-._~+/09=",
        "Authorization: bearer abc-._~+/09=",
        "AUTHORIZATION: BEARER \t abc-._~+/09=  ",
    ] {
        let request = with_headers(line);
        assert_eq!(bearer(&request.incoming()).unwrap().secret(), "abc-._~+/09=", "{line}");
    }
    let longest = "a".repeat(512);
    let request = with_headers(&format!("authorization: Bearer {longest}"));
    assert_eq!(bearer(&request.incoming()).unwrap().secret(), longest);
}

#[test]
fn tokens_refused() {
    let not_one = "It has characters, or a length, that no token has.";
    let nowhere = "Send it in the header `authorization: Bearer <token>`.";
    let other_scheme = "The authorization scheme must be `Bearer`.";
    let too_long = format!("authorization: Bearer {}", "a".repeat(513));
    let account = format!("authorization: Bearer platform-v1-{}", "0".repeat(64));
    for (line, hint) in [
        ("accept: */*", nowhere),
        ("authorization:", nowhere),
        ("authorization: Bearer", "There is no token after `Bearer`."),
        ("authorization: Bearer   ", "There is no token after `Bearer`."),
        ("authorization: Basic YTpi", other_scheme),
        ("authorization: 0123456789abcdef0123456789abcdef", other_scheme),
        ("authorization: Bearer:abc", other_scheme),
        ("authorization: Bearer Bearer abc", not_one),
        ("authorization: Bearer \"abc\"", not_one),
        ("authorization: Bearer 密钥", not_one),
        (&too_long, not_one),
        ("authorization: Bearer {your_key}", "`{token}` is a placeholder: put your API key in its place."),
        (
            &account,
            "This is an account token, which is for the management API. \
             This endpoint needs the API key of an application.",
        ),
    ] {
        let fault = bearer(&with_headers(line).incoming()).unwrap_err();
        assert_eq!((fault.code, fault.status.as_u16()), (ErrorCode::InvalidToken, 401), "{line}");
        assert_eq!(fault.message, format!("The specified token is invalid or wrong. {hint}"), "{line}");
    }
}

#[test]
fn token_does_not_print() {
    let request = with_headers("authorization: Bearer 0123456789abcdef");
    assert_eq!(format!("{:?}", bearer(&request.incoming()).unwrap()), "Bearer(***)");
}

#[test]
fn accept_is_never_refused() {
    for (header, form) in [
        ("x-none: 1", Accept::Json),
        ("accept: application/json", Accept::Json),
        ("accept: application/x-ndjson", Accept::Ndjson),
        ("Accept: Application/X-NDJSON; charset=utf-8", Accept::Ndjson),
        ("accept: text/html, application/x-ndjson;q=0.9, */*", Accept::Ndjson),
        ("accept: application/json, application/x-ndjson", Accept::Json),
        ("accept: text/plain\naccept: application/x-ndjson", Accept::Ndjson),
        ("accept: text/event-stream", Accept::Json),
        ("accept: application/x-ndjson-not", Accept::Json),
        ("accept: 无", Accept::Json),
        ("accept: */*", Accept::Json),
    ] {
        assert_eq!(Accept::of(&with_headers(header).incoming()), form, "{header}");
    }
    assert_eq!(Accept::Json.content_type(), "application/json");
    assert_eq!(Accept::Ndjson.content_type(), "application/x-ndjson");
}

#[test]
fn language_of_the_description() {
    for (header, expected) in [
        ("x-none: 1", Language::English),
        ("accept-language: *", Language::English),
        ("accept-language: en-US,zh;q=0.5", Language::English),
        ("accept-language: zha", Language::English),
        ("accept-language: zh", Language::Chinese),
        ("accept-language:  ZH-tw, en", Language::Chinese),
        ("accept-language: zh;q=0.8,en;q=0.2", Language::Chinese),
        ("accept-language: zh_CN", Language::Chinese),
    ] {
        assert_eq!(language(&with_headers(header).incoming()), expected, "{header}");
    }
}

#[test]
fn idempotency_keys() {
    let longest = format!("Idempotency-Key: {}", "k".repeat(255));
    for (headers, expected) in [
        ("x-none: 1", None),
        ("Idempotency-Key: order-7", Some("order-7")),
        ("X-Idempotency-Key: order-7", Some("order-7")),
        ("Idempotency-Key: order-7\nX-Idempotency-Key: order-7", Some("order-7")),
        (&longest, Some(&longest["Idempotency-Key: ".len()..])),
    ] {
        assert_eq!(idempotency_key(&with_headers(headers).incoming()), Ok(expected), "{headers}");
    }
    let too_long = format!("{longest}k");
    for headers in ["Idempotency-Key:", "Idempotency-Key: a b", "X-Idempotency-Key: 钥", &too_long] {
        let fault = idempotency_key(&with_headers(headers).incoming()).unwrap_err();
        assert_eq!(
            fault,
            Fault::bad_request("Idempotency-Key must be 1 to 255 visible ASCII characters."),
            "{headers}"
        );
    }
    let two = with_headers("Idempotency-Key: one\nX-Idempotency-Key: two");
    assert_eq!(
        idempotency_key(&two.incoming()),
        Err(Fault::bad_request("Idempotency-Key was sent twice with different values."))
    );
}

#[test]
fn trace_ids_worth_echoing() {
    let sane = with_headers("X-Request-Id: 2efa9340-b21b-4e26-9e14-4aac95f343ab");
    assert_eq!(trace_id(&sane.incoming()), Some("2efa9340-b21b-4e26-9e14-4aac95f343ab"));
    let too_long = format!("X-Request-Id: {}", "a".repeat(129));
    for header in ["x-none: 1", "X-Request-Id:", "X-Request-Id: a b", "X-Request-Id: 号", &too_long] {
        assert_eq!(trace_id(&with_headers(header).incoming()), None, "{header}");
    }
}
