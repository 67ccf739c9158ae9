//! The page at `/`.

use super::*;

fn page(sandbox: &Sandbox) -> Reply {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    sandbox.request("GET", "/", &[("Accept", accept)], b"")
}

#[test]
fn it_shows_all_test_keys_and_cards() {
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
}

#[test]
fn its_curl_line_works_as_printed() {
    let sandbox = Sandbox::start();
    let text = page(&sandbox).text();
    let line = text.split("<pre tabindex=\"0\">").nth(1).unwrap().split("</pre>").next().unwrap();
    let line = line.replace("&#39;", "'").replace("&#34;", "\"").replace("&quot;", "\"");
    let body = line.split("-d '").nth(1).unwrap().trim().trim_end_matches('\'');
    assert!(line.contains(&format!("Bearer {}", super::super::support::TOKEN)), "{line}");
    assert_eq!(result(&ask(&sandbox, body)), "0", "{body}");
}
