//! Arbitrary bytes never panic; what is signed is verified; what is flattened comes back.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::{Map, Value};
use wire::tencent::action::{Action, Elements};
use wire::tencent::error::Fault;
use wire::tencent::flatten::{flatten, pairs, unflatten};
use wire::tencent::signature::{
    DEFAULT_PUBLIC_NAMES, Evidence, Tc3, Unsigned, V1Method, diagnose, sign_tc3, sign_v1, verify,
};
use wire::tencent::{claims, language};

use crate::support::{Request, SECRET_ID};

/// Header values and bodies that come close to the real thing.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"application/json".to_vec()),
        Just(b"application/x-www-form-urlencoded".to_vec()),
        Just(b"multipart/form-data; boundary=b".to_vec()),
        Just(b"--b\r\nContent-Disposition: form-data; name=\"A\"\r\n\r\nx\r\n--b--".to_vec()),
        Just(b"Timestamp=1&Action=A&Version=V&Nonce=1&SecretId=I&Signature=AAAA".to_vec()),
        Just(b"{\"Name\":\"x\",\"Encryption\":{\"EncryptList\":[1]}}".to_vec()),
        Just(b"TC3-HMAC-SHA256 Credential=I/1970-01-01/s/tc3_request, SignedHeaders=content-type;host, Signature=0000000000000000000000000000000000000000000000000000000000000000".to_vec()),
        Just(b"1".to_vec()),
        Just(b"9223372036854775807".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..80),
        "[A-Za-z0-9.&=%+:/ -]{0,60}".prop_map(String::into_bytes),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let names = [
        "host",
        "content-type",
        "authorization",
        "x-tc-action",
        "x-tc-version",
        "x-tc-timestamp",
        "x-tc-language",
        "x-tc-content-sha256",
    ];
    let header = (proptest::sample::select(names.to_vec()), fragment());
    let method = proptest::sample::select(vec![Method::GET, Method::POST, Method::HEAD]);
    let headers = proptest::collection::vec(header, 0..8);
    let query = fragment().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (method, "/[a-z]{0,3}", query, headers, fragment()).prop_map(|(method, path, query, headers, body)| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.insert(HeaderName::from_static(name), value);
            }
        }
        Request { method, path, query, headers: map, body }
    })
}

/// Members as the card actions have them: text, structures and lists that are not empty.
fn members() -> impl Strategy<Value = Map<String, Value>> {
    let name = "[A-Za-z][A-Za-z0-9_]{0,8}";
    let leaf = ".{0,12}".prop_map(Value::String);
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::Array),
            proptest::collection::btree_map(name, inner, 1..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map(name, value, 0..5).prop_map(|members| members.into_iter().collect())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn parsed(raw: &str) -> Result<Map<String, Value>, Fault> {
    let pairs = pairs(raw)?;
    unflatten(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
}

proptest! {
    #[test]
    fn no_request_panics(request in request()) {
        let incoming = request.incoming();
        claims(&incoming);
        language(&incoming, wire::Language::Chinese);
        if let Ok(call) = request.read() {
            let _ = Action::requested(&call);
            let _ = Elements::read(Action::BankCard4EVerification, &call);
            let _ = verify(&call, &incoming, "key", &DEFAULT_PUBLIC_NAMES);
            let evidence = Evidence {
                call: &call,
                incoming: &incoming,
                now: call.timestamp,
                secret_key: Some("key"),
                other_keys: &[("other", "secret")],
                port: None,
                public_names: &[],
            };
            if let Some(diagnosis) = diagnose(&evidence) {
                prop_assert!(!diagnosis.advice().is_empty());
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,100}") {
        let _ = Tc3::parse(&text);
        let _ = parsed(&text);
    }

    #[test]
    fn members_survive_flattening(members in members(), seed in any::<u64>()) {
        let mut flat: Vec<_> = flatten(&members)
            .into_iter()
            .map(|(name, value)| format!("{}={}", encode(&name), encode(&value)))
            .collect();
        // Any order will do.
        let len = flat.len().max(1);
        flat.rotate_left(usize::try_from(seed).unwrap_or(0) % len);
        flat.reverse();
        prop_assert_eq!(parsed(&flat.join("&")).unwrap(), members);
    }

    #[test]
    fn what_tc3_signs_it_verifies(
        secret in ".{0,40}",
        host in "[A-Za-z0-9.]{1,20}(:[0-9]{1,4})?",
        query in "([A-Za-z]{1,9}=[A-Za-z0-9]{0,9})?",
        body in "[ -~]{0,40}",
        service in "[a-z0-9:/]{1,12}",
        timestamp in 0_i64..253_402_300_799,
        get in any::<bool>(),
    ) {
        let method = if get { Method::GET } else { Method::POST };
        let body = serde_json::json!({ "Name": body }).to_string();
        let mut request = Request::parse("POST / HTTP/1.1\nX-TC-Action: A\nX-TC-Version: V")
            .with("Host", &host)
            .with("Content-Type", "application/json; charset=UTF-8")
            .with("X-TC-Timestamp", &timestamp.to_string());
        let unsigned = Unsigned {
            method: &method,
            host: &host,
            content_type: "application/json; charset=UTF-8",
            query: &query,
            body: Some(body.as_bytes()),
            action: Some("A"),
            timestamp,
            service: &service,
        };
        let authorization = sign_tc3(&unsigned, SECRET_ID, &secret);
        request = request.with("Authorization", &authorization);
        request.method = method;
        request.query = query;
        request.body = body.into_bytes();
        // The signer lower-cases the action alone, so it is sent in lower case.
        let request = request.having("X-TC-Action", "a");
        prop_assert!(request.verified_with(&secret).is_ok());
        let other = secret + "x";
        prop_assert!(request.verified_with(&other).is_err());
    }

    #[test]
    fn what_v1_signs_it_verifies(
        secret in ".{0,40}",
        name in "\\PC{0,20}",
        sha256 in any::<bool>(),
    ) {
        let method = if sha256 { V1Method::HmacSha256 } else { V1Method::HmacSha1 };
        let mut parameters: Vec<(String, String)> = [
            ("Version", "V"),
            ("Name", &name),
            ("Action", "A"),
            ("Region", ""),
            ("Nonce", "1"),
            ("SecretId", "I"),
            ("SignatureMethod", if sha256 { "HmacSHA256" } else { "HmacSHA1" }),
            ("Timestamp", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        let signature = sign_v1("GETh/", &parameters, &secret, method);
        parameters.push(("Signature".to_owned(), signature));
        let query: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let request = Request::parse(&format!("GET /?{} HTTP/1.1\nHost: h", query.join("&")));
        prop_assert!(request.verified_with(&secret).is_ok());
        let other = secret + "x";
        prop_assert!(request.verified_with(&other).is_err());
    }
}
