//! Requests that are refused, and what their authors are told.

use wire::tencent::signature::{
    Diagnosis, Evidence, SigningKey, Unsigned, V1Method, diagnose, sign_tc3, sign_v1,
};

use crate::support::{NOW, Request, SAMPLE, SECRET_ID, SECRET_KEY, signed_tc3, unsigned_tc3};

const OTHER_KEYS: [(&str, &str); 2] = [("AKIDother", "other"), ("AKIDthird", "third")];

fn diagnosed(request: &Request) -> Option<Diagnosis> {
    let call = request.read().unwrap();
    let incoming = request.incoming();
    diagnose(&Evidence {
        call: &call,
        incoming: &incoming,
        now: NOW,
        secret_key: Some(SECRET_KEY),
        other_keys: &OTHER_KEYS,
        port: Some(4400),
        public_names: &[],
    })
}

/// The sample, signed with a host, a body and a secret of one's choice.
fn signed_as(host: &str, body: Option<&[u8]>, secret_key: &str) -> Request {
    let request = unsigned_tc3(SAMPLE);
    let unsigned = Unsigned {
        method: &request.method,
        host,
        content_type: "application/json",
        query: "",
        body,
        action: None,
        timestamp: NOW,
        service: "faceid",
    };
    let authorization = sign_tc3(&unsigned, SECRET_ID, secret_key);
    request.with("Authorization", &authorization)
}

#[test]
fn nothing_is_found_where_nothing_is_known() {
    let request = signed_as("somewhere.example", Some(b"else"), SECRET_KEY);
    assert_eq!(diagnosed(&request), None);
}

#[test]
fn clocks() {
    let milliseconds = signed_tc3(SAMPLE).having("X-TC-Timestamp", "1795284372000");
    assert_eq!(diagnosed(&milliseconds), Some(Diagnosis::TimestampInMilliseconds));
    let slow = signed_tc3(SAMPLE).having("X-TC-Timestamp", &(NOW - 3600).to_string());
    let diagnosis = diagnosed(&slow).unwrap();
    assert_eq!(diagnosis, Diagnosis::Clock { behind_s: 3600 });
    assert_eq!(diagnosis.advice(), "The client's clock is 3600 seconds slow: synchronise it.");
}

/// At 02:06 in Beijing the UTC date is still yesterday's.
#[test]
fn the_local_date() {
    let request = signed_tc3(SAMPLE);
    let local = request.header("authorization").replace("2026-11-21", "2026-11-22");
    let diagnosis = diagnosed(&request.having("Authorization", &local)).unwrap();
    let utc_date = "2026-11-21".to_owned();
    assert_eq!(diagnosis, Diagnosis::LocalDate { offset_hours: 8, utc_date });
    assert_eq!(
        diagnosis.advice(),
        "The date in Credential is the local date at UTC+8: use the UTC date of X-TC-Timestamp, \
         2026-11-21, in both the scope and the key derivation."
    );
    // Yesterday is no offset's date at this hour, but it is this one's.
    let request = signed_tc3(SAMPLE);
    let far = request.header("authorization").replace("2026-11-21", "2026-11-19");
    assert_eq!(diagnosed(&request.having("Authorization", &far)), None);
}

#[test]
fn secrets() {
    let host = "card4e.test:4400";
    let body = Some(SAMPLE.as_bytes());
    let secret_id = "AKIDthird".to_owned();
    assert_eq!(diagnosed(&signed_as(host, body, "third")), Some(Diagnosis::OtherKey { secret_id }));
    let newline = format!("{SECRET_KEY}\n");
    assert_eq!(diagnosed(&signed_as(host, body, &newline)), Some(Diagnosis::SecretWithBlanks));
}

#[test]
fn hosts() {
    let body = Some(SAMPLE.as_bytes());
    for signed in ["card4e.test:8080", "localhost:4400", "faceid.ap-guangzhou.tencentcloudapi.com"] {
        let expected = Diagnosis::OtherHost { signed: signed.to_owned() };
        assert_eq!(diagnosed(&signed_as(signed, body, SECRET_KEY)), Some(expected));
    }
    // The port the client signed was lost on the way.
    let bare = signed_as("card4e.test:4400", body, SECRET_KEY).having("Host", "card4e.test");
    let signed = "card4e.test:4400".to_owned();
    assert_eq!(diagnosed(&bare), Some(Diagnosis::OtherHost { signed }));
}

#[test]
fn payloads() {
    let host = "card4e.test:4400";
    let request = signed_as(host, None, SECRET_KEY);
    assert_eq!(diagnosed(&request), Some(Diagnosis::UnsignedPayloadHeaderLost));
    let request = signed_as(host, Some(b""), SECRET_KEY);
    assert_eq!(diagnosed(&request), Some(Diagnosis::EmptyBodySigned));
}

#[test]
fn signature_v1() {
    let sent = [
        ("Action", "BankCard4EVerification"),
        ("Name", "韦 小宝"),
        ("Nonce", "1"),
        ("SecretId", SECRET_ID),
        ("Timestamp", "1795284372"),
        ("Version", "2018-03-01"),
    ];
    let request = |method: V1Method, encoded: bool| {
        let signed: Vec<_> = sent
            .iter()
            .map(|(name, value)| {
                let value = if encoded {
                    value.replace("韦 小宝", "%E9%9F%A6%20%E5%B0%8F%E5%AE%9D")
                } else {
                    (*value).to_owned()
                };
                ((*name).to_owned(), value)
            })
            .collect();
        let signature = sign_v1("POSTh/", &signed, SECRET_KEY, method).replace('+', "%2B");
        let form: Vec<_> = sent.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Request::parse(&format!(
            "POST / HTTP/1.1\nHost: h\nContent-Type: application/x-www-form-urlencoded\n\n\
             {}&Signature={signature}",
            form.join("&")
        ))
    };
    request(V1Method::HmacSha1, false).verified().unwrap();
    assert_eq!(
        diagnosed(&request(V1Method::HmacSha256, false)),
        Some(Diagnosis::OtherMethod { used: V1Method::HmacSha256 })
    );
    assert_eq!(diagnosed(&request(V1Method::HmacSha1, true)), Some(Diagnosis::EncodedValuesSigned));
}

#[test]
fn no_advice_holds_a_secret() {
    let found = diagnosed(&signed_as("card4e.test:4400", Some(SAMPLE.as_bytes()), "third"));
    let text = format!("{found:?} {}", found.as_ref().map_or(String::new(), Diagnosis::advice));
    assert!(!text.contains("\"third\"") && text.contains("AKIDthird"));
    let key = SigningKey::derive(SECRET_KEY, "2026-11-21", "faceid");
    assert!(!format!("{key:?}").contains(SECRET_KEY));
}
