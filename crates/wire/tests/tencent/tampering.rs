//! One thing changed after signing: refused each time, and with which code.

use wire::tencent::error::ErrorCode;
use wire::tencent::signature::{
    DEFAULT_PUBLIC_NAMES, HostMatch, Match, Mismatch, PUBLIC_NAMES_MAX, Unsigned, V1Method, sign_tc3,
    sign_v1, verify, within_clock_window,
};

use crate::support::{NOW, Request, SAMPLE, SECRET_ID, SECRET_KEY, sign, signed_tc3, unsigned_tc3};

/// One bit of the last byte before `end` of a text.
fn flip(text: &str, end: &str) -> String {
    let at = text.find(end).unwrap() - 1;
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_untouched_request_is_accepted() {
    signed_tc3(SAMPLE).verified().unwrap();
}

#[test]
fn one_flipped_bit_is_refused() {
    let signed = signed_tc3(SAMPLE);
    let authorization = signed.header("authorization");
    let mut body = signed.clone();
    body.body[SAMPLE.find("16137688175").unwrap()] ^= 1;
    let flipped: [(&str, Request, Mismatch); 7] = [
        ("body", body, Mismatch::Signature),
        ("host", signed.clone().having("Host", "card4d.test:4400"), Mismatch::Signature),
        ("content-type", signed.clone().having("Content-Type", "application/json;"), Mismatch::Signature),
        ("timestamp", signed.clone().having("X-TC-Timestamp", &(NOW ^ 1).to_string()), Mismatch::Signature),
        ("date", signed.clone().having("Authorization", &flip(&authorization, "/faceid")), Mismatch::Date),
        (
            "service",
            signed.clone().having("Authorization", &flip(&authorization, "/tc3_request")),
            Mismatch::Signature,
        ),
        (
            "another day altogether",
            signed.having("X-TC-Timestamp", &(NOW - 86_400).to_string()),
            Mismatch::Date,
        ),
    ];
    for (what, request, mismatch) in flipped {
        assert_eq!(request.verified(), Err(mismatch), "{what}");
    }
}

/// The key's name is not signed itself; a changed one finds another secret, or none.
#[test]
fn a_changed_secret_id_names_another_key() {
    let signed = signed_tc3(SAMPLE);
    let changed = flip(&signed.header("authorization"), "/2026");
    let request = signed.having("Authorization", &changed);
    assert_eq!(request.read().unwrap().secret_id, "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLD");
    assert_eq!(request.verified_with("another secret"), Err(Mismatch::Signature));
}

/// What is no longer JSON is refused as such, before anyone is authenticated.
#[test]
fn every_bit_of_the_body_counts() {
    let signed = signed_tc3(SAMPLE);
    for bit in 0..SAMPLE.len() * 8 {
        let mut flipped = signed.clone();
        flipped.body[bit / 8] ^= 1 << (bit % 8);
        match flipped.read() {
            Ok(_) => assert_eq!(flipped.verified(), Err(Mismatch::Signature)),
            Err(fault) => assert_eq!(fault.code, ErrorCode::InvalidParameter),
        }
    }
}

#[test]
fn every_bit_of_the_signature_counts() {
    let signed = signed_tc3(SAMPLE);
    let authorization = signed.header("authorization");
    for digit in authorization.len() - 64..authorization.len() {
        let mut bytes = authorization.clone().into_bytes();
        bytes[digit] = if bytes[digit] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(bytes).unwrap();
        let request = signed.clone().having("Authorization", &changed);
        assert_eq!(request.verified(), Err(Mismatch::Signature));
    }
}

#[test]
fn an_unsigned_payload_cannot_be_claimed_afterwards() {
    let signed = signed_tc3(SAMPLE);
    let claimed = signed.with("X-TC-Content-SHA256", "UNSIGNED-PAYLOAD");
    assert_eq!(claimed.verified(), Err(Mismatch::Signature));
}

#[test]
fn every_signed_header_has_to_be_there() {
    let request = unsigned_tc3(SAMPLE);
    let authorization = format!(
        "TC3-HMAC-SHA256 Credential={SECRET_ID}/2026-11-21/faceid/tc3_request, \
         SignedHeaders=content-type;host;x-custom, Signature={}",
        "0".repeat(64)
    );
    let request = request.with("Authorization", &authorization);
    assert_eq!(request.verified(), Err(Mismatch::Header));
    let twice = request.with("X-Custom", "a").with("X-Custom", "b");
    assert_eq!(twice.verified(), Err(Mismatch::Header));
}

#[test]
fn the_clock_may_be_five_minutes_off() {
    assert!(within_clock_window(NOW - 299, NOW));
    assert!(within_clock_window(NOW + 299, NOW));
    assert!(within_clock_window(NOW + 300, NOW));
    assert!(!within_clock_window(NOW - 301, NOW));
    assert!(!within_clock_window(NOW + 301, NOW));
    assert!(!within_clock_window(NOW * 1000, NOW));
    assert!(!within_clock_window(i64::MAX, i64::MIN));
}

#[test]
fn the_real_path_may_be_signed() {
    let request = unsigned_tc3(SAMPLE);
    let signed = sign(request);
    // Every client but Node signs `/` under a path prefix.
    let prefixed = Request { path: "/tc/".to_owned(), ..signed };
    assert!(!prefixed.verified().unwrap().real_path);

    assert!(!signed_v1("POSTh/", "x").verified().unwrap().real_path);
    assert!(signed_v1("POSTh/tc/", "x").verified().unwrap().real_path);
}

#[test]
fn only_the_first_public_names_are_tried() {
    let names: Vec<String> = (0..20).map(|n| format!("name{n}.example")).collect();
    for (place, name) in names.iter().enumerate() {
        let request = sign(unsigned_tc3(SAMPLE).having("Host", name)).having("Host", "gateway");
        let call = request.read().unwrap();
        let found = verify(&call, &request.incoming(), SECRET_KEY, &names);
        let host = HostMatch::PublicName(place);
        let expected = if place < PUBLIC_NAMES_MAX {
            Ok(Match { host, real_path: false, lower_cased: false })
        } else {
            Err(Mismatch::Signature)
        };
        assert_eq!(found, expected);
    }
}

/// A large form is not hashed once for every name it could have been signed with.
#[test]
fn a_large_form_is_tried_less_often() {
    let names: Vec<String> = (0..PUBLIC_NAMES_MAX).map(|n| format!("name{n}.example")).collect();
    for (len, accepted) in [(1_000, true), (300_000, false)] {
        let request = signed_v1("POSTname7.example/", &"x".repeat(len));
        let call = request.read().unwrap();
        let found = verify(&call, &request.incoming(), SECRET_KEY, &names);
        assert_eq!(found.is_ok(), accepted, "{len}");
    }
}

/// A form sent to `h/tc/`, signed for `target`.
fn signed_v1(target: &str, name: &str) -> Request {
    let parameters = [
        ("Action", "BankCard4EVerification"),
        ("Name", name),
        ("Nonce", "1"),
        ("SecretId", SECRET_ID),
        ("Timestamp", "1795284372"),
        ("Version", "2018-03-01"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let signature = sign_v1(target, &parameters, SECRET_KEY, V1Method::HmacSha1);
    let form = parameters.map(|(name, value)| format!("{name}={value}")).join("&");
    Request::parse(&format!(
        "POST /tc/ HTTP/1.1\n\
         Host: h\n\
         Content-Type: application/x-www-form-urlencoded\n\n\
         {form}&Signature={}",
        signature.replace('+', "%2B")
    ))
}

#[test]
fn proxies_in_front() {
    // A proxy that rewrites Host: the client's name has to be a public name.
    let signed = sign(unsigned_tc3(SAMPLE).having("Host", "verify.bank.example"));
    let rewritten = signed.having("Host", "10.0.0.7:4400");
    assert_eq!(rewritten.verified(), Err(Mismatch::Signature));
    let call = rewritten.read().unwrap();
    let names = ["verify.bank.example"];
    verify(&call, &rewritten.incoming(), SECRET_KEY, &names).unwrap();
}

/// .NET writes two spaces after the algorithm, URL-shaped endpoints give services with slashes.
#[test]
fn odd_but_honest_authorization_headers() {
    let request = unsigned_tc3(SAMPLE);
    for service in ["faceid", "localhost:18083", "http://127.0.0.1:4400/tc", "127"] {
        let authorization = sign_tc3(
            &Unsigned {
                method: &request.method,
                host: "card4e.test:4400",
                content_type: "application/json",
                query: "",
                body: Some(&request.body),
                action: None,
                timestamp: NOW,
                service,
            },
            SECRET_ID,
            SECRET_KEY,
        );
        for authorization in [
            authorization.replace("SHA256 Cred", "SHA256  Cred"),
            authorization.replace(", ", ","),
            authorization.replace(", ", " ,  "),
            format!(" {authorization} "),
        ] {
            let request = request.clone().with("Authorization", &authorization);
            let call = request.read().unwrap();
            verify(&call, &request.incoming(), SECRET_KEY, &DEFAULT_PUBLIC_NAMES).unwrap();
        }
    }
}
