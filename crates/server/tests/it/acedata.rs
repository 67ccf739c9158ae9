//! `POST /identity/bankcard/check-4e`: what goes in, and the whole of what comes out.

use super::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN};

mod answers;
mod attempts;
mod encryption;
mod errors;
mod idempotency;
mod precedence;

pub const PATH: &str = "/identity/bankcard/check-4e";

/// The documented person, who passes.
pub const SAMPLE: &str = r#"{"name":"韦小宝","bank_card":"6225768888888888","phone":"16137688175","id_card":"11204416541220243X"}"#;

/// Somebody with an account, who passes.
pub const ZHANG_WEI: &str = r#"{"name":"张伟","bank_card":"6217000000000000012","phone":"16100000001","id_card":"99010119610202001X"}"#;

/// Somebody else's name for the same card.
pub const NOT_ZHANG_WEI: &str = r#"{"name":"张三","bank_card":"6217000000000000012","phone":"16100000001","id_card":"99010119610202001X"}"#;

/// The token of a test application, by its number.
pub fn token(number: u8) -> String {
    format!("4e{number:030}")
}

pub const TRIAL: u8 = 1;
pub const NOT_ACTIVATED: u8 = 2;
pub const ARREARS: u8 = 3;
pub const SUSPENDED: u8 = 4;
pub const UNCONFIRMED: u8 = 5;
pub const RATE_LIMITED: u8 = 6;
pub const SIGNED_ONLY: u8 = 8;
pub const EXPIRED: u8 = 9;

/// Asks with the public token.
pub fn ask(sandbox: &Sandbox, body: &str) -> Reply {
    ask_with(sandbox, &[], body)
}

/// Asks with the public token and further headers.
pub fn ask_with(sandbox: &Sandbox, headers: &[(&str, &str)], body: &str) -> Reply {
    sandbox.send(&bytes_with(sandbox, headers, body))
}

/// The bytes of [`ask_with`].
pub fn bytes_with(sandbox: &Sandbox, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let bearer = format!("Bearer {TOKEN}");
    let own = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    sandbox.bytes("POST", PATH, &[&own, headers].concat(), body.as_bytes())
}

/// Asks with another application's token.
pub fn ask_as(sandbox: &Sandbox, application: u8, body: &str) -> Reply {
    authorized(sandbox, &format!("Bearer {}", token(application)), body)
}

/// Asks with this `Authorization`.
pub fn authorized(sandbox: &Sandbox, authorization: &str, body: &str) -> Reply {
    let headers = [("authorization", authorization), ("content-type", "application/json")];
    sandbox.request("POST", PATH, &headers, body.as_bytes())
}

/// The same question on the other wire, signed at `now`.
pub fn ask_tencent(sandbox: &Sandbox, now: i64, headers: &[(&str, &str)], body: &str) -> Reply {
    let renamed = [("name", "Name"), ("bank_card", "BankCard"), ("phone", "Phone"), ("id_card", "IdCard")];
    let body = renamed
        .iter()
        .fold(body.to_owned(), |body, (from, to)| body.replace(&format!("\"{from}\""), &format!("\"{to}\"")));
    let post = wire::tencent::signature::JsonPost {
        host: &sandbox.address,
        action: "BankCard4EVerification",
        body: body.as_bytes(),
        timestamp: now,
    };
    let own = post.headers(SECRET_ID, SECRET_KEY);
    let own = own.each_ref().map(|(name, value)| (*name, value.as_str()));
    sandbox.request("POST", "/", &[&own, headers].concat(), body.as_bytes())
}

/// `Result` on the other wire.
pub fn tencent_result(reply: &Reply) -> String {
    let result = &reply.json()["Response"]["Result"];
    result.as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

/// `result` on this wire.
pub fn result(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["result"].as_str().unwrap().to_owned()
}

/// Status and error code of a refusal.
pub fn refusal(reply: &Reply) -> (u16, String) {
    let code = &reply.json()["error"]["code"];
    (reply.status, code.as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned())
}

/// The id of the record behind a reply.
pub fn trace(reply: &Reply) -> String {
    reply.header("x-trace-id").unwrap().to_owned()
}

/// The whole reply as text. What differs each time is replaced: the trace id, which must be a UUID
/// and the same wherever it stands, by `{trace}`, the sandbox's address by `{address}`. `date` and
/// `content-length` are left out.
pub fn transcript(sandbox: &Sandbox, reply: &Reply) -> String {
    let trace = trace(reply);
    assert!(is_uuid_v4(&trace), "{trace}");
    let mut lines: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "content-length"))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    let text = format!("{}\n{}\n\n{}", reply.status, lines.join("\n"), reply.text());
    text.replace(&trace, "{trace}").replace(&sandbox.address, "{address}")
}

fn is_uuid_v4(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && text.as_bytes()[14] == b'4'
        && b"89ab".contains(&text.as_bytes()[19])
}
