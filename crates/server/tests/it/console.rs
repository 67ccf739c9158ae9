//! The console and the management API on the wire: people, keys, money, and what nobody may do.

use super::support::{PLATFORM_TOKEN, Reply, Sandbox, TOKEN};
use serde_json::{Value, json};

mod browser;
mod management;
mod safety;

const PASSWORD: &str = "correct horse battery";

/// Somebody with a session.
struct Visitor<'a> {
    sandbox: &'a Sandbox,
    cookie: String,
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (byte as char).to_string(),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// A form of a guest's.
fn submit(sandbox: &Sandbox, path: &str, fields: &[(&str, &str)]) -> Reply {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    sandbox.request("POST", path, &headers, encoded(fields).as_bytes())
}

fn session_of(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap_or_else(|| panic!("{}: {}", reply.status, reply.text()));
    set.split(';').next().unwrap().to_owned()
}

fn register<'a>(sandbox: &'a Sandbox, name: &str) -> Visitor<'a> {
    let login = format!("{name}@example.com");
    let fields = [("name", name), ("login", &login), ("password", PASSWORD), ("terms", "yes")];
    let reply = submit(sandbox, "/auth/register", &fields);
    assert_eq!(reply.status, 303, "{}", reply.text());
    Visitor { sandbox, cookie: session_of(&reply) }
}

fn operator(sandbox: &Sandbox) -> Visitor<'_> {
    let reply = submit(sandbox, "/auth/login", &[("password", PLATFORM_TOKEN)]);
    assert_eq!(reply.status, 303, "{}", reply.text());
    Visitor { sandbox, cookie: session_of(&reply) }
}

fn log_in<'a>(sandbox: &'a Sandbox, login: &str, password: &str) -> Visitor<'a> {
    let reply = submit(sandbox, "/auth/login", &[("login", login), ("password", password)]);
    assert_eq!(reply.status, 303, "{}", reply.text());
    Visitor { sandbox, cookie: session_of(&reply) }
}

impl Visitor<'_> {
    fn get(&self, path: &str) -> Reply {
        self.sandbox.request("GET", path, &[("Cookie", &self.cookie)], b"")
    }

    fn csrf(&self) -> String {
        let page = self.get("/terms").text();
        page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    /// A form of theirs.
    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let csrf = self.csrf();
        self.post_with(path, &[&[("csrf", csrf.as_str())], fields].concat())
    }

    fn post_with(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        self.sandbox.request("POST", path, &[("Cookie", &self.cookie), kind], encoded(fields).as_bytes())
    }

    /// *Acquire*; gives the key that is in the form.
    fn acquire(&self) -> String {
        let reply =
            self.post("/console/acquire", &[("page", "identity-bankcard-check-4e"), ("terms", "yes")]);
        let page = reply.text();
        assert_eq!(reply.status, 200, "{page}");
        page.split("id=\"token\" name=\"token\" value=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    }

    /// An account token of theirs.
    fn token(&self) -> String {
        let page = self.post("/console/platform-tokens", &[("name", "ci")]).text();
        secret(&page)
    }
}

/// The secret that a page shows this once.
fn secret(page: &str) -> String {
    let shown = page.split("id=\"secret\">").nth(1).unwrap_or_else(|| panic!("{page}"));
    shown.split('<').next().unwrap().to_owned()
}

/// A call of the management API.
fn call(sandbox: &Sandbox, token: &str, method: &str, path: &str, body: Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    sandbox.request(method, &format!("/api/v1/{path}"), &headers, text.as_bytes())
}

fn ok(reply: Reply) -> Value {
    assert!(matches!(reply.status, 200 | 201), "{}: {}", reply.status, reply.text());
    reply.json()
}

fn ask(sandbox: &Sandbox, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = json!({ "name": "韦小宝", "bank_card": "6225768888888888", "phone": "16137688175",
        "id_card": "11204416541220243X" });
    sandbox.request("POST", "/identity/bankcard/check-4e", &headers, body.to_string().as_bytes())
}
