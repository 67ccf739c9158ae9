//! The page at `/`.

use super::*;

fn page(sandbox: &Sandbox) -> Reply {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    sandbox.request("GET", "/", &[("Accept", accept)], b"")
}

#[test]
fn it_needs_nothing_inline_and_says_so() {
    let sandbox = Sandbox::start();
    let reply = page(&sandbox);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = reply.text().to_lowercase();
    for inline in ["<script", "<style", " style=", "javascript:", " onclick", " onload", "src=\"http", "{{"] {
        assert!(!text.contains(inline), "{inline} in the page");
    }
    assert!(text.contains("<link rel=\"stylesheet\" href=\"/_sandbox/style.css\">"));
    let style = sandbox.get("/_sandbox/style.css");
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(!style.text().contains("http"), "nothing is loaded from elsewhere");
}

#[test]
fn it_shows_all_test_keys_and_cards_and_every_link_leads_somewhere() {
    let sandbox = Sandbox::start();
    let text = page(&sandbox).text();
    for application in sandbox.control("GET", "credentials", "").as_array().unwrap() {
        for shown in ["secret_id", "secret_key", "bearer"] {
            assert!(text.contains(application[shown].as_str().unwrap()), "{shown} of {application}");
        }
    }
    for card in sandbox.control("GET", "cards", "")["cards"].as_array().unwrap() {
        assert!(text.contains(card["bank_card"].as_str().unwrap()), "{card}");
    }
    assert!(text.contains(&format!("http://{}{PATH}", sandbox.address)));
    for link in text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert_eq!(sandbox.get(link).status, 200, "{link}");
    }
}

#[test]
fn its_curl_line_works_as_printed() {
    let sandbox = Sandbox::start();
    let text = page(&sandbox).text();
    let line = text.split("<pre tabindex=\"0\">").nth(1).unwrap().split("</pre>").next().unwrap();
    let body = line.split("-d &#39;").nth(1).or_else(|| line.split("-d '").nth(1)).unwrap();
    let body = body.trim().trim_end_matches('\'').replace("&quot;", "\"");
    assert!(line.contains(&format!("Bearer {}", super::super::support::TOKEN)), "{line}");
    assert_eq!(result(&ask(&sandbox, &body)), "0", "{body}");
}
