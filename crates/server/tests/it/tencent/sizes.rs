//! How large a request may be: 32 KB of query, 1 MB with signature v1, 10 MB with TC3.

use crate::support::Sandbox;

use super::client::{PASSED, SAMPLE, SAMPLE_MEMBERS, encoded, form, get, post, refused};

const KB: usize = 1024;
const MB: usize = 1024 * 1024;

#[test]
fn a_query_of_32_kb() {
    let sandbox = Sandbox::start();
    let members = encoded(&SAMPLE_MEMBERS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let query = |bytes: usize| format!("{members}&New={}", "x".repeat(bytes - members.len() - 5));
    assert_eq!(get(&query(32 * KB)).said(&sandbox), PASSED);
    let too_large = refused("RequestSizeLimitExceeded", "请求包超过大小限制 `32768` 字节。");
    assert_eq!(get(&query(32 * KB + 1)).said(&sandbox), too_large);
    assert_eq!(get(&query(60 * KB)).said(&sandbox), too_large);
    assert_eq!(form(&SAMPLE_MEMBERS).with("New", &"x".repeat(32 * KB)).get().said(&sandbox), too_large);
}

#[test]
fn a_form_of_1_mb() {
    let sandbox = Sandbox::start();
    let ask = |nonce: u32, fill: usize| {
        let form = form(&SAMPLE_MEMBERS).with("Nonce", &nonce.to_string());
        form.with("New", &"x".repeat(fill)).sign(&sandbox)
    };
    // Signed anew until nothing in the signature has to be escaped, so that the length is known.
    let bare = String::from_utf8(ask(1000, 0).body).unwrap();
    let bare_len = bare.find("&Signature=").unwrap() + "&Signature=".len() + 27 + "%3D".len();
    let whole = (1000..1200).map(|nonce| ask(nonce, MB - bare_len)).find(|form| form.body.len() == MB);
    let whole = whole.unwrap();
    assert_eq!(whole.said(&sandbox), PASSED);
    let zh = "由于请求包大小超过限制，请求签名验证失败，请使用新的签名方法 `TC3-HMAC-SHA256`。";
    let en = "The provided credentials could not be validated because of exceeding request size limit, please use \
              new signature method `TC3-HMAC-SHA256`.";
    for bytes in [MB + 1, 11 * MB] {
        let form = form(&SAMPLE_MEMBERS).with("New", &"x".repeat(bytes));
        assert_eq!(form.said(&sandbox), refused("AuthFailure.SignatureFailure", zh));
    }
    let form = form(&SAMPLE_MEMBERS).with("Language", "en-US").with("New", &"x".repeat(MB));
    assert_eq!(form.said(&sandbox), refused("AuthFailure.SignatureFailure", en));
}

#[test]
fn a_json_body_of_10_mb() {
    let sandbox = Sandbox::start();
    let body = |bytes: usize| SAMPLE.to_owned() + &" ".repeat(bytes - SAMPLE.len());
    assert_eq!(post(body(10 * MB)).said(&sandbox), PASSED);
    let zh = refused("RequestSizeLimitExceeded", "请求包超过大小限制 `10485760` 字节。");
    assert_eq!(post(body(10 * MB + 1)).said(&sandbox), zh);
    assert_eq!(post(body(11 * MB)).said(&sandbox), zh);
    let en = refused("RequestSizeLimitExceeded", "The request is larger than the limit of `10485760` bytes.");
    assert_eq!(post(body(11 * MB)).english().said(&sandbox), en);
    assert_eq!(post(SAMPLE).said(&sandbox), PASSED);
}
