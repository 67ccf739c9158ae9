//! Control is closed to other sites: neither a page from elsewhere nor a name that was pointed here
//! can drive a sandbox through a visitor's browser.

use super::*;

const RESET: &str = "/_sandbox/reset";

fn status(sandbox: &Sandbox, headers: &[(&str, &str)]) -> u16 {
    let reply = sandbox.request("POST", RESET, headers, b"");
    if reply.status != 200 {
        assert!(reply.json()["error"].as_str().unwrap().starts_with("the sandbox is not controlled"));
    }
    assert_eq!(reply.header("access-control-allow-origin"), None);
    reply.status
}

#[test]
fn addresses_and_localhost_are_let_through_and_other_names_are_not() {
    let sandbox = Sandbox::start();
    let port = sandbox.address.rsplit(':').next().unwrap().to_owned();
    for (host, expected) in [
        ("localhost".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        ("127.0.0.1".to_owned(), 200),
        ("[::1]".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        ("192.168.1.7:4400".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        (format!("evil.example:{port}"), 403),
        ("localhost.evil.example".to_owned(), 403),
        ("127.0.0.1.evil.example".to_owned(), 403),
        (String::new(), 403),
    ] {
        assert_eq!(status(&sandbox, &[("Host", &host)]), expected, "{host}");
    }
}

#[test]
fn pages_from_elsewhere_are_refused() {
    let sandbox = Sandbox::start();
    let own = format!("http://{}", sandbox.address);
    let port = sandbox.address.rsplit(':').next().unwrap();
    for (origin, expected) in [
        (own.as_str(), 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        (&format!("http://localhost:{port}"), 403),
    ] {
        assert_eq!(status(&sandbox, &[("Origin", origin)]), expected, "{origin}");
    }
    for (site, expected) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        assert_eq!(status(&sandbox, &[("Sec-Fetch-Site", site)]), expected, "{site}");
    }
}

#[test]
fn it_holds_for_everything_that_is_the_sandboxs() {
    let sandbox = Sandbox::start();
    for path in
        ["journal", "accounts", "credentials", "clock", "faults", "ledger", "usage", "cards", "nothing"]
    {
        let path = format!("/_sandbox/{path}");
        for header in
            [("Host", "evil.example"), ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")]
        {
            assert_eq!(sandbox.request("GET", &path, &[header], b"").status, 403, "{path} {header:?}");
        }
    }
    let page = [("Host", "evil.example"), ("Accept", "text/html")];
    assert_eq!(sandbox.request("GET", "/", &page, b"").status, 403);
}

#[test]
fn a_refused_call_changes_nothing() {
    let sandbox = Sandbox::start();
    ask(&sandbox, ZHANG_WEI);
    let foreign = [("Origin", "https://evil.example"), ("Content-Type", "text/plain")];
    assert_eq!(status(&sandbox, &foreign), 403);
    let rule = br#"{"effect":{"outcome":"PASS"}}"#;
    assert_eq!(sandbox.request("POST", "/_sandbox/faults", &foreign, rule).status, 403);
    assert_eq!(sandbox.charges(), 1);
    assert_eq!(result(&ask(&sandbox, NOT_ZHANG_WEI)), "-4");
}

#[test]
fn the_wires_answer_under_any_name_and_permit_no_page() {
    let sandbox = Sandbox::start();
    let headers = [("Host", "api.acedata.example"), ("Origin", "https://evil.example")];
    let reply = ask_with(&sandbox, &headers, ZHANG_WEI);
    assert_eq!(result(&reply), "0");
    assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control-")));
}
