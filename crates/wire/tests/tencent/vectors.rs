//! Published examples, recomputed: Tencent's documentation and the tests of a third-party SDK.
//! The derivation's intermediate keys are tested beside the code.

use http::Method;
use wire::tencent::signature::{
    DEFAULT_PUBLIC_NAMES, Proof, SigningKey, Unsigned, V1Method, sign_tc3, sign_v1, verify_tc3,
};

use crate::support::{Request, SECRET_ID, SECRET_KEY};

const ASTERISKS: &str = "********************************";
const OLDER_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3*******";
const DESCRIBE_INSTANCES: &str =
    r#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;

/// The example of the signature page, by key and by whether the action is signed too.
const TC3_POST: [(&str, bool, &str); 5] = [
    (ASTERISKS, true, "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"),
    (OLDER_KEY, true, "be4f67d323c78ab9acb7395e43c0dbcf822a9cfac32fea2449a7bc7726b770a3"),
    (OLDER_KEY, false, "2230eefd229f582d8b1b891af7107b91597240707d778ab3738f756258d7652c"),
    (SECRET_KEY, false, "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"),
    (SECRET_KEY, true, "644be983de9a8a3f00db8eadaba61467c3b429e2215758ba897b738ca469fd26"),
];

fn documented_post(action: Option<&'static str>) -> Unsigned<'static> {
    Unsigned {
        method: &Method::POST,
        host: "cvm.tencentcloudapi.com",
        content_type: "application/json; charset=utf-8",
        query: "",
        body: Some(DESCRIBE_INSTANCES.as_bytes()),
        action,
        timestamp: 1_551_113_065,
        service: "cvm",
    }
}

#[test]
fn tc3_post_is_signed_as_documented() {
    for (key, with_action, signature) in TC3_POST {
        let unsigned = documented_post(with_action.then_some("DescribeInstances"));
        let headers = if with_action { "content-type;host;x-tc-action" } else { "content-type;host" };
        assert_eq!(
            sign_tc3(&unsigned, SECRET_ID, key),
            format!(
                "TC3-HMAC-SHA256 Credential={SECRET_ID}/2019-02-25/cvm/tc3_request, \
                 SignedHeaders={headers}, Signature={signature}"
            )
        );
    }
}

#[test]
fn tc3_post_is_verified_as_documented() {
    for (key, with_action, _) in TC3_POST {
        let unsigned = documented_post(with_action.then_some("DescribeInstances"));
        let mut request = Request::parse(
            "POST / HTTP/1.1\n\
             Host: cvm.tencentcloudapi.com\n\
             Content-Type: application/json; charset=utf-8\n\
             X-TC-Action: DescribeInstances\n\
             X-TC-Timestamp: 1551113065\n\
             X-TC-Version: 2017-03-12",
        )
        .with("Authorization", &sign_tc3(&unsigned, SECRET_ID, key));
        request.body = DESCRIBE_INSTANCES.as_bytes().to_vec();
        let found = request.verified_with(key).unwrap();
        // Documentation signs `x-tc-action:describeinstances`.
        assert_eq!(found.lower_cased, with_action);
        assert_eq!(request.read().unwrap().action, "DescribeInstances");
    }
}

#[test]
fn tc3_get() {
    let unsigned = Unsigned {
        method: &Method::GET,
        host: "cvm.tencentcloudapi.com",
        content_type: "application/x-www-form-urlencoded",
        query: "Limit=10&Offset=0",
        body: Some(b""),
        action: None,
        timestamp: 1_539_084_154,
        service: "cvm",
    };
    let authorization = sign_tc3(&unsigned, SECRET_ID, SECRET_KEY);
    assert!(authorization.ends_with("5da7a33f6993f0614b047e5df4582db9e9bf4672ba50567dba16c6ccf174c474"));
    let request = Request::parse(
        "GET /?Limit=10&Offset=0 HTTP/1.1\n\
         Host: cvm.tencentcloudapi.com\n\
         Content-Type: application/x-www-form-urlencoded\n\
         X-TC-Action: DescribeInstances\n\
         X-TC-Timestamp: 1539084154\n\
         X-TC-Version: 2017-03-12",
    )
    .with("Authorization", &authorization);
    request.verified().unwrap();
}

#[test]
fn a_derived_key_serves_a_whole_day() {
    let request = Request::parse(include_str!("captures/node-tc3-post.http"));
    let call = request.read().unwrap();
    let Proof::Tc3(tc3) = &call.proof else { panic!("Node sends TC3") };
    let key = SigningKey::derive(SECRET_KEY, "2026-11-21", "127");
    for _ in 0..2 {
        // Twice the same bytes: honest clients repeat themselves within a second.
        verify_tc3(tc3, &request.incoming(), call.timestamp, &key, &DEFAULT_PUBLIC_NAMES).unwrap();
    }
    assert_eq!(format!("{key:?}"), "SigningKey(..)");
}

fn parameters(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn documented_v1(secret_id: &str) -> Vec<(String, String)> {
    parameters(&[
        ("Action", "DescribeInstances"),
        ("InstanceIds.0", "ins-09dx96dg"),
        ("Limit", "20"),
        ("Nonce", "11886"),
        ("Offset", "0"),
        ("Region", "ap-guangzhou"),
        ("SecretId", secret_id),
        ("Timestamp", "1465185768"),
        ("Version", "2017-03-12"),
    ])
}

#[test]
fn v1_get_is_signed_as_documented() {
    let asterisks = format!("AKID{ASTERISKS}");
    for (secret_id, key, signature) in [
        (SECRET_ID, SECRET_KEY, "EliP9YW3pW28FpsEdkXt/+WcGeI="),
        ("AKIDz8krbsJ5yKBZQpn74WFkmLPx3*******", OLDER_KEY, "zmmjn35mikh6pM3V7sUEuX4wyYM="),
        (&asterisks, ASTERISKS, "7RAM2xfNMO9EiVTNmPg06MRnCvQ="),
    ] {
        let parameters = documented_v1(secret_id);
        let target = "GETcvm.tencentcloudapi.com/";
        assert_eq!(sign_v1(target, &parameters, key, V1Method::HmacSha1), signature);
    }
    let mut sha256 = documented_v1(SECRET_ID);
    sha256.push(("SignatureMethod".to_owned(), "HmacSHA256".to_owned()));
    assert_eq!(
        sign_v1("GETcvm.tencentcloudapi.com/", &sha256, SECRET_KEY, V1Method::HmacSha256),
        "A8uy2/o7WBZXYCTWEFpMrVGhGBVlEGIOioeqRM+fzFs="
    );
}

#[test]
fn v1_as_a_third_party_sdk_signs_it() {
    let instances = [
        ("Action", "DescribeInstances"),
        ("InstanceIds.0", "ins-000000"),
        ("InstanceIds.1", "ins-000001"),
        ("Language", "zh-CN"),
        ("Region", "ap-shanghai"),
        ("Version", "2017-03-12"),
    ];
    // `Region` is empty and yet signed.
    let regions =
        [("Action", "DescribeRegions"), ("Product", "cvm"), ("Region", ""), ("Version", "2022-06-27")];
    let products = [("Action", "DescribeProducts"), ("Version", "2022-06-27")];
    let cvm = "cvm.tencentcloudapi.com";
    let region = "region.tencentcloudapi.com";
    let vectors = [
        ("GET", cvm, "8938", &instances[..], "tJ8iV7prk8YIzmTwwnjVmN9hlTQ="),
        ("POST", cvm, "5860", &instances, "ve2J8iIYWjHzJpsAFONELiSMbNA="),
        ("GET", region, "2173", &regions, "hMNWNgTcFjUZB7yVetq2wxeUjzE="),
        ("POST", region, "6457", &products, "orvrFH0/X202yBYL1kDjJ2RG+go="),
    ];
    for (method, host, nonce, own, signature) in vectors {
        let mut all = parameters(own);
        all.extend(parameters(&[
            ("Nonce", nonce),
            ("SecretId", "MY_TC_SECRET_ID"),
            ("Timestamp", "1000000000"),
        ]));
        let target = format!("{method}{host}/");
        let computed = sign_v1(&target, &all, "MY_TC_SECRET_KEY", V1Method::HmacSha1);
        assert_eq!(computed, signature);

        // And through the front door, the signature escaped as it would be sent.
        all.push(("Signature".to_owned(), signature.replace('+', "%2B").replace('=', "%3D")));
        let pairs: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let form = pairs.join("&");
        let text = if method == "GET" {
            format!("GET /?{form} HTTP/1.1\nHost: {host}")
        } else {
            format!(
                "POST / HTTP/1.1\nHost: {host}\n\
                 Content-Type: application/x-www-form-urlencoded\n\n{form}"
            )
        };
        let request = Request::parse(&text);
        request.verified_with("MY_TC_SECRET_KEY").unwrap();
    }
}

#[test]
fn v1_with_sha256_as_node_international_sends_it() {
    let pairs = parameters(&[
        ("Action", "BankCard4EVerification"),
        ("Name", "Wei Xiaobao"),
        ("Nonce", "4711"),
        ("SecretId", SECRET_ID),
        ("SignatureMethod", "HmacSHA256"),
        ("Timestamp", "1795284372"),
        ("Version", "2018-03-01"),
    ]);
    let signature = sign_v1("POSTfaceid.intl.tencentcloudapi.com/", &pairs, SECRET_KEY, V1Method::HmacSha256);
    let form: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={}", v.replace(' ', "+"))).collect();
    let text = format!(
        "POST / HTTP/1.1\nHost: faceid.intl.tencentcloudapi.com\n\
         Content-Type: application/x-www-form-urlencoded\n\n{}&Signature={}",
        form.join("&"),
        signature.replace('+', "%2B"),
    );
    Request::parse(&text).verified().unwrap();
    // Another spelling selects SHA-1, which this is not.
    let misspelt = text.replace("HmacSHA256", "HMACSHA256");
    Request::parse(&misspelt).verified().unwrap_err();
    // Ruby's base64 ends in a newline.
    Request::parse(&(text + "%0A")).verified().unwrap();
}
