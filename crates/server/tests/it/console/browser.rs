//! The pages, as a browser without a script sees them.

use super::*;

#[test]
fn pages_are_small_and_have_nothing_inline() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let admin = operator(&sandbox);
    let assets: usize = ["style.css", "console.js", "icon.svg"]
        .iter()
        .map(|name| sandbox.get(&format!("/console/assets/{name}")).body.len())
        .sum();
    for path in [
        "/",
        "/services",
        "/service/identity",
        "/documents/identity-bankcard-check-4e",
        "/documents/explorer",
        "/documents/search?q=card",
        "/auth/login",
        "/auth/register",
        "/support",
        "/terms",
        "/console",
        "/console/platform-tokens",
        "/console/usages",
        "/console/orders",
        "/console/sandbox",
        "/documents/identity-bankcard-check-1e",
        "/documents/identity-idcard-check-2e",
        "/auth/reset",
        "/console/account",
        "/console/operator",
        "/console/operator/account/2",
        "/console/operator/data?issuer=62",
        "/console/operator/audit",
        "/console/operator/health",
        "/console/operator/providers",
    ] {
        let who = if path.starts_with("/console/operator") { &admin } else { &ada };
        let headers = [("Cookie", who.cookie.as_str()), ("Accept", "text/html")];
        let reply = sandbox.request("GET", path, &headers, b"");
        let text = reply.text();
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        for inline in ["<script>", "<style", " style=", "javascript:", " onclick", " onload", "src=\"http"] {
            assert!(!text.contains(inline), "{inline} in {path}");
        }
        assert!(!text.contains("{{") && !text.contains("{%"), "{path} is filled in");
        assert!(
            text.len() + assets < 100_000,
            "{path} weighs {} with {assets} of assets",
            text.len() + assets
        );
    }
}

#[test]
fn every_link_leads_somewhere() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let mut seen = std::collections::BTreeSet::new();
    let mut to_see = vec!["/services".to_owned()];
    while let Some(path) = to_see.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let headers = [("Cookie", ada.cookie.as_str()), ("Accept", "text/html")];
        let reply = sandbox.request("GET", &path, &headers, b"");
        assert_eq!(reply.status, 200, "{path}");
        if reply.header("content-type") == Some("text/html; charset=utf-8") {
            let text = reply.text().replace("&#38;", "&").replace("&amp;", "&");
            let links =
                text.split("href=\"").skip(1).map(|rest| rest.split(['"', '#']).next().unwrap().to_owned());
            to_see.extend(links.filter(|link| link.starts_with('/')));
        }
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[test]
fn two_languages_and_two_themes() {
    let sandbox = Sandbox::start();
    let page = |headers: &[(&str, &str)]| sandbox.request("GET", "/terms", headers, b"").text();
    assert!(page(&[]).contains("<html lang=\"en\" data-theme=\"auto\">"));
    assert!(page(&[("Accept-Language", "zh-CN,zh;q=0.9")]).contains("服务条款"));
    let set = submit(&sandbox, "/user/settings", &[("lang", "zh"), ("next", "/terms")]);
    assert_eq!((set.status, set.header("location")), (303, Some("/terms")));
    assert!(page(&[("Cookie", "lang=zh"), ("Accept-Language", "en")]).contains("服务条款"));
    let set = submit(&sandbox, "/user/settings", &[("theme", "dark"), ("next", "https://evil.example/")]);
    assert_eq!(set.header("location"), Some("/console/applications"), "never to another site");
    assert!(page(&[("Cookie", "theme=dark")]).contains("data-theme=\"dark\""));
    assert!(page(&[("Cookie", "theme=\"><script>")]).contains("data-theme=\"auto\""));
}

#[test]
fn the_code_of_the_page_has_this_server_and_the_key_of_this_instant() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let reply = ada.post("/console/acquire", &[("page", "identity-bankcard-check-4e"), ("terms", "yes")]);
    let page = reply.text();
    let key = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(page.matches(&key).count(), 1 + 11, "in the form and in the code of eleven languages");
    assert!(page.contains(&format!("http://{}/identity/bankcard/check-4e", sandbox.address)));
    let later = ada.get("/documents/identity-bankcard-check-4e").text();
    assert!(!later.contains(&key) && later.contains("{token}"), "shown once");
}

#[test]
fn a_question_is_tried_on_both_wires_and_charged() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let made = ada.post("/console/keys", &[("kind", "Signature"), ("name", "tc"), ("limit", "")]);
    assert_eq!(secret(&made.text()).len(), 32, "a SecretKey");
    let page = ada.get("/documents/identity-bankcard-check-4e").text();
    let keys: Vec<&str> =
        page.split("<option value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(keys.len(), 2);
    let csrf = ada.csrf();
    let members = json!({ "name": "韦小宝", "bank_card": "6225768888888888", "phone": "16137688175",
        "id_card": "11204416541220243X", "cvv": "123" });
    let attempt = |credential: &str, csrf: &str| {
        let body =
            json!({ "alias": "identity-bankcard-check-4e", "credential": credential, "members": members });
        let headers = [("Cookie", ada.cookie.as_str()), ("X-CSRF-Token", csrf)];
        sandbox.request("POST", "/console/try", &headers, body.to_string().as_bytes())
    };
    let bearer = attempt(keys[0], &csrf).json();
    assert_eq!(
        (bearer["status"].clone(), bearer["headers"]["x-credits-remaining"].clone()),
        (json!(200), json!("9")),
        "{bearer}"
    );
    let answer: Value = serde_json::from_str(bearer["body"].as_str().unwrap()).unwrap();
    assert_eq!(answer["result"], "0");
    let signed = attempt(keys[1], &csrf).json();
    let answer: Value = serde_json::from_str(signed["body"].as_str().unwrap()).unwrap();
    assert_eq!(answer["Response"]["Result"], "0", "{signed}");
    assert_eq!(attempt(keys[0], "").status, 403);
    let others = register(&sandbox, "eve");
    others.acquire();
    let body = json!({ "alias": "identity-bankcard-check-4e", "credential": keys[0], "members": members });
    let token = others.csrf();
    let headers = [("Cookie", others.cookie.as_str()), ("X-CSRF-Token", token.as_str())];
    let reply = sandbox.request("POST", "/console/try", &headers, body.to_string().as_bytes());
    assert_eq!(reply.status, 400, "somebody else's key: {}", reply.text());
}

#[test]
fn the_debugger_names_the_line() {
    let sandbox = Sandbox::start();
    // A clock that is wrong would be named first.
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276799}"#);
    let admin = operator(&sandbox);
    let request = "POST / HTTP/1.1\nHost: faceid.tencentcloudapi.com\nContent-Type: application/json\n\
        X-TC-Action: BankCard4EVerification\nX-TC-Version: 2018-03-01\nX-TC-Timestamp: 1795276799\n\
        Authorization: TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2026-11-21/faceid/tc3_request, \
        SignedHeaders=content-type;host, Signature=0000000000000000000000000000000000000000000000000000000000000000\n\n{}";
    let empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let yours = format!(
        "POST\n/\n\ncontent-type:application/json; charset=utf-8\nhost:faceid.tencentcloudapi.com\n\ncontent-type;host\n{empty}"
    );
    let reply = admin.post("/console/explorer", &[("request", request), ("canonical", &yours)]);
    let page = reply.text();
    assert!(page.contains("line 4 of the canonical request differs"), "{page}");
    assert!(page.contains(empty));
    let stranger = register(&sandbox, "eve");
    let refused = stranger.post("/console/explorer", &[("request", request)]).text();
    assert!(refused.contains("none of your keys") && !refused.contains(empty), "{refused}");
    let nonsense = admin.post("/console/explorer", &[("request", "hello")]).text();
    assert!(nonsense.contains("That is not a request"));
}

#[test]
fn an_operator_looks_after_everything() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let admin = operator(&sandbox);
    let page = admin.get("/console/operator").text();
    assert!(page.contains("Orders to finish") && page.contains(">ada</a>"), "{page}");
    admin.post("/console/operator/package", &[("title", "Hundred"), ("amount", "100"), ("price", "9.9")]);
    let shelf = ada.get("/service/identity").text();
    let package =
        shelf.split("name=\"package\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let orders = ada.post("/console/orders", &[("package", &package)]).text();
    assert!(orders.contains("Pending"), "{orders}");
    let page = admin.get("/console/operator").text();
    let order = page.split("name=\"order\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(admin.post("/console/operator/finish", &[("order", &order)]).text().contains("is finished"));
    assert!(ada.get("/console").text().contains("<dd>110</dd>"));
    let voucher = secret(&admin.post("/console/operator/voucher", &[("amount", "5")]).text());
    assert!(ada.post("/console/redeem", &[("code", &voucher)]).text().contains("Credits you got: 5"));
    let limits = [("caller", "ada"), ("rate", "7"), ("price", "0.5")];
    assert!(admin.post("/console/operator/limits", &limits).text().contains("Saved."));
    assert_eq!(ask(&sandbox, &key).header("x-credits-remaining"), Some("114.5"));
    let looked = admin.post("/console/operator/lookup", &[("card", "6217000000000000012")]).text();
    assert!(
        looked.contains("••••0012")
            && looked.contains("status: normal")
            && !looked.contains("6217000000000000012")
    );
    let number = page.split("\">ada</a>").next().unwrap().rsplit('/').next().unwrap();
    let page = admin.get(&format!("/console/operator/account/{number}")).text();
    assert!(page.contains("Refund") && page.contains("value=\"7\""), "{page}");
    let application = page.rsplit("name=\"application\" value=\"").next().unwrap().split('"').next().unwrap();
    admin.post("/console/operator/disable", &[("application", application), ("disabled", "yes")]);
    assert_eq!(ask(&sandbox, &key).json()["error"]["code"], "disabled");
    assert_eq!(ada.get("/console").status, 303, "a suspended account has no session");
}
