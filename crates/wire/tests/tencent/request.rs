//! Reading a request: which wire, in which order it is refused, what shapes are accepted.

use wire::Language;
use wire::tencent::{
    QUERY_MAX_BYTES, TC3_BODY_MAX_BYTES, V1_BODY_MAX_BYTES, body_too_large, claims, idempotency_key, language,
};

use crate::support::{Request, SAMPLE, refusal, signed_tc3, unsigned_tc3};

const V1: &str = "Action=BankCard4EVerification&Nonce=1&SecretId=AKID&Signature=c2ln&\
                  Timestamp=1795284372&Version=2018-03-01";

fn form(body: &str) -> Request {
    Request::parse(&format!(
        "POST / HTTP/1.1\nHost: h\nContent-Type: application/x-www-form-urlencoded\n\n{body}"
    ))
}

#[test]
fn which_requests_belong_to_this_wire() {
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
    for (ours, text) in [
        (true, "POST / HTTP/1.1".to_owned()),
        (true, "GET / HTTP/1.1\nAccept: */*".to_owned()),
        (true, "DELETE / HTTP/1.1".to_owned()),
        (false, format!("GET / HTTP/1.1\n{browser}")),
        (true, format!("GET /?Action=X HTTP/1.1\n{browser}")),
        (true, format!("GET / HTTP/1.1\nX-TC-Action: X\n{browser}")),
        (false, "POST /identity/bankcard/check-4e HTTP/1.1\nAuthorization: Bearer t".to_owned()),
        (true, "POST /tc HTTP/1.1\nX-Tc-Traceid: 1".to_owned()),
        (true, "POST /tc HTTP/1.1\nAuthorization: SKIP".to_owned()),
        (true, "POST /tc HTTP/1.1\nAuthorization: TC3-HMAC-SHA256 x".to_owned()),
        (true, "GET /tc?Signature=x HTTP/1.1".to_owned()),
        (false, "GET /tc?MyAction=x&Signatures=y HTTP/1.1".to_owned()),
        (
            true,
            "POST /tc HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\n\nName=x&Action=y"
                .to_owned(),
        ),
        (false, "POST /tc HTTP/1.1\nContent-Type: application/json\n\nName=x&Action=y".to_owned()),
    ] {
        assert_eq!(claims(&Request::parse(&text).incoming()), ours, "{text}");
    }
}

/// Each request has everything wrong that the ones after it have, and one thing more.
#[test]
fn the_order_in_which_requests_are_refused() {
    let bare = "Host: h\nContent-Type: application/json";
    for (text, refused) in [
        (
            "PUT / HTTP/1.1".to_owned(),
            "UnsupportedProtocol: Only the HTTP methods `GET` and `POST` are supported.",
        ),
        (
            format!("POST / HTTP/1.1\n{bare}\nX-TC-Region:\nX-TC-Version: \nAuthorization: SKIP\n\n[1]"),
            "InvalidParameter: The request body is not a JSON object: line `1`, column `0`.",
        ),
        (
            format!("POST / HTTP/1.1\n{bare}\nX-TC-Version: \nAuthorization: SKIP\n\n{{}}"),
            "MissingParameter: The request is missing a required parameter `Timestamp`.",
        ),
        (
            format!("POST / HTTP/1.1\n{bare}\nX-TC-Timestamp: x\nAuthorization: SKIP\n\n{{}}"),
            "MissingParameter: The request is missing a required parameter `Action`.",
        ),
        (
            format!(
                "POST / HTTP/1.1\n{bare}\nX-TC-Timestamp: x\nX-TC-Action: x\nAuthorization: SKIP\n\n{{}}"
            ),
            "MissingParameter: The request is missing a required parameter `Version`.",
        ),
        (
            format!("POST / HTTP/1.1\n{bare}\nX-TC-Timestamp: x\nX-TC-Action: x\nX-TC-Version: x\n\n{{}}"),
            "MissingParameter: The request is missing a required parameter `Authorization`.",
        ),
        (
            format!(
                "POST / HTTP/1.1\n{bare}\nX-TC-Timestamp: x\nX-TC-Action: x\nX-TC-Version: x\nAuthorization: SKIP\n\n{{}}"
            ),
            "InvalidParameter: Parameter `Timestamp` type error.",
        ),
        (
            format!(
                "POST / HTTP/1.1\n{bare}\nX-TC-Timestamp: 1\nX-TC-Action: x\nX-TC-Version: x\nAuthorization: SKIP\n\n{{}}"
            ),
            "AuthFailure.InvalidAuthorization: The `Authorization` header does not follow the specification: `TC3-HMAC-SHA256`.",
        ),
    ] {
        assert_eq!(Request::parse(&text).refusal(), refused, "{text}");
    }
}

#[test]
fn requests_with_nothing_in_them() {
    let missing = "MissingParameter: The request is missing a required parameter `Timestamp`.";
    assert_eq!(Request::parse("GET / HTTP/1.1\nHost: h").refusal(), missing);
    assert_eq!(Request::parse("POST / HTTP/1.1\nHost: h").refusal(), missing);
    assert_eq!(form("").refusal(), missing);
    // The public cloud answers a JSON POST without headers with a parameter error.
    let json = "POST / HTTP/1.1\nHost: h\nContent-Type: application/json\n\n{}";
    assert_eq!(
        Request::parse(json).refusal(),
        "InvalidParameter: The request has no `X-TC-*` headers and no `Authorization`."
    );
}

#[test]
fn a_v1_request_misses_one_parameter_after_another() {
    let mut wanted = V1;
    form(wanted).read().unwrap();
    for name in ["Signature", "SecretId", "Nonce", "Version", "Action", "Timestamp"] {
        // Without this one and all that are asked for after it.
        let without: Vec<_> =
            wanted.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
        let body = without.join("&");
        assert_eq!(
            form(&body).refusal(),
            format!("MissingParameter: The request is missing a required parameter `{name}`."),
        );
        wanted = Box::leak(body.into_boxed_str());
    }
}

#[test]
fn v1_parameters_of_the_wrong_type() {
    for (from, to, refused) in [
        ("Nonce=1", "Nonce=-1", "InvalidParameter: Parameter `Nonce` type error."),
        ("Nonce=1", "Nonce=x", "InvalidParameter: Parameter `Nonce` type error."),
        ("=1795284372", "=17.5", "InvalidParameter: Parameter `Timestamp` type error."),
        ("=1795284372", "=-1", "InvalidParameter: Parameter `Timestamp` type error."),
        ("Nonce=1", "Nonce=1&Nonce=1", "InvalidParameter: Parameter `Nonce` is given twice."),
        ("Nonce=1", "Nonce=1&A.x=%ff", "InvalidParameter: The request's parameters are not valid UTF-8."),
        (
            "Nonce=1",
            "Nonce=1&A=1&A.B=2",
            "InvalidParameter: Parameter `A.B` is both a value and a structure.",
        ),
    ] {
        assert_eq!(form(&V1.replace(from, to)).refusal(), refused);
    }
    // Python and Go send nonces up to 2^63.
    form(&V1.replace("Nonce=1", "Nonce=9223372036854775808")).read().unwrap();
}

#[test]
fn malformed_authorization_headers() {
    let good = signed_tc3("{}").header("authorization");
    for (from, to, part) in [
        ("TC3-HMAC-SHA256", "TC3-HMAC-SM3", "TC3-HMAC-SHA256"),
        ("TC3-HMAC-SHA256 ", "TC3-HMAC-SHA256", "TC3-HMAC-SHA256"),
        ("2026-11-21", "20261121", "Credential"),
        ("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "", "Credential"),
        ("/faceid/tc3_request", "/tc3_request", "Credential"),
        ("tc3_request", "tc4_request", "Credential"),
        ("content-type;host", "host", "SignedHeaders"),
        ("content-type;host", "content-type", "SignedHeaders"),
        ("content-type;host", "Content-Type;Host", "SignedHeaders"),
        ("content-type;host", "content-type;;host", "SignedHeaders"),
        ("Signature=", "Signature=0", "Signature"),
        ("Signature=", "Signatur=", "Credential=, SignedHeaders=, Signature="),
        (", Sig", ", Credential=x, Sig", "Credential=, SignedHeaders=, Signature="),
    ] {
        let bad = good.replace(from, to);
        let request = signed_tc3("{}").having("Authorization", &bad);
        assert_eq!(
            request.refusal(),
            format!(
                "AuthFailure.InvalidAuthorization: The `Authorization` header does not follow \
                 the specification: `{part}`."
            ),
            "{bad}"
        );
    }
    let upper = good[good.len() - 64..].to_uppercase();
    let upper = format!("{}{upper}", &good[..good.len() - 64]);
    let request = signed_tc3("{}").having("Authorization", &upper);
    assert!(request.refusal().starts_with("AuthFailure.InvalidAuthorization"));
    let bearer = signed_tc3("{}").having("Authorization", "Bearer t");
    assert!(bearer.refusal().starts_with("AuthFailure.InvalidAuthorization"));
}

#[test]
fn sizes() {
    let mut tc3 = signed_tc3("");
    tc3.body = format!("{{\"Name\":\"{}\"}}", "x".repeat(TC3_BODY_MAX_BYTES - 11)).into_bytes();
    assert_eq!(tc3.body.len(), TC3_BODY_MAX_BYTES);
    tc3.read().unwrap();
    tc3.body.push(b' ');
    let too_large = "RequestSizeLimitExceeded: The request is larger than the limit of `10485760` bytes.";
    assert_eq!(tc3.refusal(), too_large);

    let padding = "x".repeat(V1_BODY_MAX_BYTES - V1.len() - "&Name=".len());
    let mut v1 = form(&format!("{V1}&Name={padding}"));
    assert_eq!(v1.body.len(), V1_BODY_MAX_BYTES);
    v1.read().unwrap();
    v1.body.push(b'x');
    let special = "AuthFailure.SignatureFailure: The provided credentials could not be validated \
                   because of exceeding request size limit, please use new signature method \
                   `TC3-HMAC-SHA256`.";
    assert_eq!(v1.refusal(), special);
    // The server stops reading at the limit and asks which error it is.
    v1.body.clear();
    assert_eq!(refusal(&body_too_large(&v1.incoming())), special);
    tc3.body.clear();
    assert_eq!(refusal(&body_too_large(&tc3.incoming())), too_large);

    let mut get = Request::parse(&format!("GET /?{V1} HTTP/1.1\nHost: h"));
    get.query += &format!("&Name={}", "x".repeat(QUERY_MAX_BYTES - V1.len() - "&Name=".len()));
    assert_eq!(get.query.len(), QUERY_MAX_BYTES);
    get.read().unwrap();
    get.query.push('x');
    assert_eq!(
        get.refusal(),
        "RequestSizeLimitExceeded: The request is larger than the limit of `32768` bytes."
    );
}

#[test]
fn shapes_that_are_accepted() {
    // Java: a charset, which is signed.
    let java = unsigned_tc3(SAMPLE).having("Content-Type", "application/json; charset=utf-8");
    crate::support::sign(java).verified().unwrap();
    // Java and .NET: empty headers.
    let empty = signed_tc3(SAMPLE).with("X-TC-Region", "").with("X-TC-Token", "");
    assert_eq!(empty.read().unwrap().token, None);
    empty.verified().unwrap();
    // No members at all: what is missing is told once the signature has been verified.
    assert!(signed_tc3("").read().unwrap().members.is_empty());
    // A plus and %20 are both a space, in any order of parameters.
    let body = format!("Name=Wei+Xiaobao%20Wei&{V1}");
    assert_eq!(form(&body).read().unwrap().members["Name"], "Wei Xiaobao Wei");
    // The query of a POST is not considered; .NET posts to `/?`.
    let mut query = form(V1);
    query.query = "Timestamp=1&Name=x".to_owned();
    let call = query.read().unwrap();
    assert_eq!(call.timestamp, 1_795_284_372);
    assert!(call.members.is_empty());
    // In TC3 a parameter called Action is an ordinary one.
    let action = signed_tc3(r#"{"Action":"DeleteEverything"}"#);
    let call = action.read().unwrap();
    assert_eq!(call.action, "BankCard4EVerification");
    assert_eq!(call.members["Action"], "DeleteEverything");
    // A trace id alone does not make a request TC3.
    form(V1).with("X-TC-TraceId", "1").read().unwrap();
}

#[test]
fn bodies_that_are_refused() {
    for (content_type, body, refused) in [
        (
            "application/json",
            "[]",
            "InvalidParameter: The request body is not a JSON object: line `1`, column `0`.",
        ),
        (
            "application/json",
            "null",
            "InvalidParameter: The request body is not a JSON object: line `1`, column `4`.",
        ),
        (
            "application/json",
            "{\"Name\":\"",
            "InvalidParameter: The request body is not a JSON object: line `1`, column `9`.",
        ),
        ("text/plain", "{}", "InvalidParameter: The header `Content-Type` has to be `application/json`."),
        (
            "multipart/form-data; boundary=b",
            "--c",
            "InvalidRequest: The `multipart/form-data` body of the request is malformed.",
        ),
        (
            "multipart/form-data",
            "--b--",
            "InvalidRequest: The `multipart/form-data` body of the request is malformed.",
        ),
    ] {
        let request = signed_tc3(body).having("Content-Type", content_type);
        assert_eq!(request.refusal(), refused, "{body}");
    }
    let mut latin1 = signed_tc3("");
    latin1.body = b"{\"Name\":\"\xe9\"}".to_vec();
    assert!(latin1.refusal().starts_with("InvalidParameter: The request body is not"));
}

#[test]
fn multipart_members() {
    let body = "--b\r\nContent-Disposition: form-data; name=\"Name\"\r\n\r\n韦小宝\r\n\
                --b\r\nContent-Disposition: form-data; name=\"Encryption.EncryptList.0\"\r\n\
                Content-Type: text/plain\r\n\r\nName\r\n--b--\r\n";
    let request = unsigned_tc3(body).having("Content-Type", "multipart/form-data; boundary=\"b\"");
    let request = crate::support::sign(request);
    request.verified().unwrap();
    let call = request.read().unwrap();
    assert!(call.flattened);
    assert_eq!(
        serde_json::to_string(&call.members).unwrap(),
        r#"{"Encryption":{"EncryptList":["Name"]},"Name":"韦小宝"}"#
    );
}

#[test]
fn a_header_given_twice_is_refused() {
    let twice = signed_tc3(SAMPLE).with("Host", "elsewhere");
    assert_eq!(twice.refusal(), "InvalidParameter: The header `Host` is given more than once.");
    signed_tc3(SAMPLE).with("Accept", "a").with("Accept", "b").read().unwrap();
}

#[test]
fn idempotency_keys() {
    let key = |request: &Request| {
        let incoming = request.incoming();
        idempotency_key(&incoming)
            .map(|key| key.map(str::to_owned))
            .map_err(|fault| fault.message(Language::English).to_owned())
    };
    let request = signed_tc3(SAMPLE);
    assert_eq!(key(&request), Ok(None));
    let go = || signed_tc3(SAMPLE).with("X-Idempotency-Key", "go");
    assert_eq!(key(&go()), Ok(Some("go".into())));
    assert_eq!(key(&go().with("Idempotency-Key", "go")), Ok(Some("go".into())));
    let both = go().with("Idempotency-Key", "standard");
    let ambiguous = "The header `Idempotency-Key` is given twice with different values.";
    assert_eq!(key(&both), Err(ambiguous.into()));
    let malformed = "The header `Idempotency-Key` must be 1 to 255 visible ASCII characters.";
    for unusable in [" ", "a b", &"k".repeat(256)] {
        assert_eq!(key(&go().having("X-Idempotency-Key", unusable)), Err(malformed.into()), "{unusable}");
    }
}

#[test]
fn the_language_of_a_reply() {
    let (chinese, english) = (Language::Chinese, Language::English);
    for (text, expected) in [
        ("GET / HTTP/1.1\nHost: h", chinese),
        ("GET / HTTP/1.1\nHost: faceid.intl.tencentcloudapi.com", english),
        ("GET / HTTP/1.1\nHost: faceid.intl.tencentcloudapi.com\nX-TC-Language: zh-CN", chinese),
        ("GET / HTTP/1.1\nHost: h\nX-TC-Language: en-US", english),
        ("GET / HTTP/1.1\nHost: h\nX-TC-Language: ja-JP", chinese),
        ("GET /?A=b&Language=en-US HTTP/1.1\nHost: h", english),
        (
            "POST / HTTP/1.1\nHost: h\nContent-Type: application/x-www-form-urlencoded\n\nLanguage=en-US",
            english,
        ),
        ("PATCH / HTTP/1.1\nHost: h\nX-TC-Language: en-US", english),
    ] {
        assert_eq!(language(&Request::parse(text).incoming(), chinese), expected, "{text}");
    }
}
