//! What nobody may do: act through a visitor's browser, use a session that was planted, reach another
//! account's objects, run a script in somebody's page, guess passwords.

use super::*;

#[test]
fn a_form_of_another_site_does_nothing() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let csrf = ada.csrf();
    let fields = encoded(&[("csrf", &csrf), ("page", "identity-bankcard-check-4e"), ("terms", "yes")]);
    let own = format!("http://{}", sandbox.address);
    let send = |path: &str, name: &str, value: &str, body: &str| {
        let headers = [("Cookie", ada.cookie.as_str()), (name, value)];
        sandbox.request("POST", path, &headers, body.as_bytes()).status
    };
    for path in [
        "/console/acquire",
        "/auth/login",
        "/auth/register",
        "/auth/reset",
        "/auth/logout",
        "/user/settings",
        "/console/try",
        "/console/account/password",
        "/console/operator/import",
        "/console/operator/check",
    ] {
        assert_eq!(send(path, "Origin", "https://evil.example", &fields), 403, "{path}");
        assert_eq!(send(path, "Origin", "null", &fields), 403, "{path}");
        assert_eq!(send(path, "Sec-Fetch-Site", "cross-site", &fields), 403, "{path}");
    }
    for wrong in ["", "csrf=", "csrf=0123456789abcdef0123456789abcdef"] {
        assert_eq!(send("/console/acquire", "Origin", &own, &format!("{wrong}&terms=yes")), 403, "{wrong}");
    }
    let eve = register(&sandbox, "eve");
    let theirs = encoded(&[("csrf", &eve.csrf()), ("page", "identity-bankcard-check-4e"), ("terms", "yes")]);
    assert_eq!(send("/console/acquire", "Origin", &own, &theirs), 403, "another session's token");
    assert_eq!(send("/console/acquire", "Origin", &own, &fields), 200);
    // A name that was pointed here.
    let rebound = [("Host", "evil.example"), ("Accept", "text/html")];
    assert_eq!(sandbox.request("GET", "/", &rebound, b"").status, 403);
    let api = [
        ("Authorization", format!("Bearer {PLATFORM_TOKEN}")),
        ("Origin", "https://evil.example".to_owned()),
    ];
    let api: Vec<(&str, &str)> = api.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(sandbox.request("POST", "/api/v1/platform-tokens", &api, b"{}").status, 403);
}

#[test]
fn a_session_begins_with_a_key_of_its_own_and_ends_when_it_is_left() {
    let sandbox = Sandbox::start();
    let planted = "card4e_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    register(&sandbox, "ada");
    let login = encoded(&[("login", "ada@example.com"), ("password", PASSWORD)]);
    let reply = sandbox.request("POST", "/auth/login", &[("Cookie", planted)], login.as_bytes());
    let cookie = session_of(&reply);
    assert_ne!(cookie, planted);
    let set = reply.header("set-cookie").unwrap();
    for flag in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
        assert!(set.contains(flag), "{set}");
    }
    assert!(!set.contains("Secure"), "not over plain HTTP: {set}");
    assert_eq!(sandbox.request("GET", "/console", &[("Cookie", planted)], b"").status, 303);
    let ada = Visitor { sandbox: &sandbox, cookie };
    assert_eq!(ada.get("/console").status, 200);
    assert_eq!(ada.post("/auth/logout", &[]).status, 303);
    assert_eq!(ada.get("/console").status, 303, "over on the server too");

    let sandbox = Sandbox::configured("[acedata]\npublic_url = \"https://verify.example.com\"\n");
    let fields = [("name", "ada"), ("login", "ada@example.com"), ("password", PASSWORD), ("terms", "yes")];
    let reply = submit(&sandbox, "/auth/register", &fields);
    assert!(reply.header("set-cookie").unwrap().contains("; Secure"));
}

#[test]
fn a_session_ends_by_the_clock() {
    let sandbox = Sandbox::configured("[platform]\nsession_hours = 1\n");
    let ada = register(&sandbox, "ada");
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":3599}"#);
    assert_eq!(ada.get("/console").status, 200);
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":3601}"#);
    assert_eq!(ada.get("/console").status, 303);
}

#[test]
fn nobody_reaches_what_is_anothers() {
    let sandbox = Sandbox::start();
    let (ada, eve) = (register(&sandbox, "ada"), register(&sandbox, "eve"));
    let key = ada.acquire();
    eve.acquire();
    let (own, other) = (ada.token(), eve.token());
    let get = |path: &str| ok(call(&sandbox, &own, "GET", path, Value::Null));
    let application = get("applications")["items"][0]["id"].as_str().unwrap().to_owned();
    let credential = get("credentials")["items"][0]["id"].as_str().unwrap().to_owned();
    let token = get("platform-tokens")["items"][0]["id"].as_str().unwrap().to_owned();
    let user = get("platform-tokens/me")["id"].as_str().unwrap().to_owned();
    let package = ok(call(
        &sandbox,
        PLATFORM_TOKEN,
        "POST",
        "packages",
        json!({ "title": "A", "amount": 1, "price": 1 }),
    ));
    let order = call(
        &sandbox,
        &own,
        "POST",
        "orders",
        json!({ "application_id": application, "package_id": package["id"] }),
    );
    let order = ok(order)["id"].as_str().unwrap().to_owned();
    let usage = ask(&sandbox, &key).header("x-trace-id").unwrap().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(600));
    let package = package["id"].as_str().unwrap();

    let table = [
        ("GET", format!("applications/{application}"), json!(null)),
        ("POST", format!("applications/{application}/update-disabled"), json!({ "disabled": true })),
        ("POST", format!("applications/{application}/sponsor"), json!({ "amount": 1 })),
        ("GET", format!("applications?user_id={user}"), json!(null)),
        ("GET", "applications?user_id=all".into(), json!(null)),
        ("POST", "credentials".into(), json!({ "application_id": application })),
        ("GET", format!("credentials?user_id={user}"), json!(null)),
        ("GET", format!("credentials/{credential}"), json!(null)),
        ("PATCH", format!("credentials/{credential}"), json!({ "name": "mine" })),
        ("POST", format!("credentials/{credential}/rotate"), json!(null)),
        ("DELETE", format!("credentials/{credential}"), json!(null)),
        ("GET", format!("platform-tokens?user_id={user}"), json!(null)),
        ("GET", format!("platform-tokens/{token}"), json!(null)),
        ("DELETE", format!("platform-tokens/{token}"), json!(null)),
        ("GET", format!("usage/apis?user_id={user}"), json!(null)),
        ("GET", format!("usage/apis?application_id={application}"), json!(null)),
        ("GET", format!("usage/apis/aggregate?user_id={user}"), json!(null)),
        ("GET", format!("usage/apis/status-codes?user_id={user}"), json!(null)),
        ("GET", format!("usage/apis/export?user_id={user}"), json!(null)),
        ("GET", format!("usage/apis/{usage}"), json!(null)),
        ("POST", "orders".into(), json!({ "application_id": application, "package_id": package })),
        ("GET", format!("orders?user_id={user}"), json!(null)),
        ("GET", format!("orders/summary?user_id={user}"), json!(null)),
        ("GET", format!("orders/export?user_id={user}"), json!(null)),
        ("GET", format!("orders/{order}"), json!(null)),
        ("GET", format!("orders/{order}/payment-options"), json!(null)),
        ("POST", format!("orders/{order}/pay"), json!({ "pay_way": "BankTransfer" })),
        ("POST", format!("orders/{order}/refresh"), json!(null)),
        ("POST", format!("orders/{order}/finish"), json!(null)),
        ("POST", format!("orders/{order}/refund"), json!(null)),
        ("POST", format!("orders/{order}/update-price"), json!({ "price": 0 })),
        ("POST", "orders/admin/create".into(), json!({ "application_id": application, "amount": 1 })),
        ("POST", "packages".into(), json!({ "title": "B", "amount": 1, "price": 0 })),
        ("DELETE", format!("packages/{package}"), json!(null)),
        ("POST", "recharge-cards".into(), json!({ "amount": 1000 })),
        ("GET", "recharge-cards".into(), json!(null)),
        ("POST", "invitations".into(), json!({})),
    ];
    for (method, path, body) in table {
        let reply = call(&sandbox, &other, method, &path, body);
        assert_eq!(
            (reply.status, reply.json()["code"].clone()),
            (403, json!("permission_denied")),
            "{method} {path}"
        );
    }
    let credentials = format!("/console/keys/{credential}");
    let pages = [
        ("GET", "/console/operator".to_owned()),
        ("GET", "/console/operator/account/1".into()),
        ("GET", "/console/operator/data".into()),
        ("GET", "/console/operator/audit".into()),
        ("GET", "/console/operator/health".into()),
        ("POST", "/console/operator/check".into()),
        ("POST", "/console/operator/import".into()),
        ("GET", format!("/console/usages/{usage}")),
        ("POST", format!("{credentials}/rotate")),
        ("POST", format!("{credentials}/delete")),
        ("POST", format!("{credentials}/change")),
        ("POST", format!("/console/platform-tokens/{token}/delete")),
    ];
    let forms = [
        "finish",
        "refund",
        "price",
        "order",
        "sponsor",
        "disable",
        "limits",
        "reset",
        "package",
        "drop-package",
        "voucher",
        "invite",
        "lookup",
    ];
    let forms = forms.map(|form| ("POST", format!("/console/operator/{form}")));
    let pages = pages.into_iter().chain(forms);
    for (method, path) in pages {
        let reply = if method == "GET" { eve.get(&path) } else { eve.post(&path, &[("order", &order)]) };
        assert_eq!(reply.status, 403, "{method} {path}: {}", reply.text());
    }
    assert_eq!(ask(&sandbox, &key).status, 200, "nothing happened");
    // An operator reaches all of it.
    assert_eq!(call(&sandbox, PLATFORM_TOKEN, "GET", &format!("orders/{order}"), Value::Null).status, 200);
    assert_eq!(call(&sandbox, PLATFORM_TOKEN, "GET", "applications?user_id=all", Value::Null).status, 200);
}

#[test]
fn text_of_a_visitor_stays_text() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let nasty = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";
    ada.post("/console/keys", &[("name", nasty), ("kind", "Token")]);
    ada.post("/console/platform-tokens", &[("name", nasty)]);
    let admin = operator(&sandbox);
    admin.post("/console/operator/package", &[("title", nasty), ("amount", "1"), ("price", "1")]);
    let refused = submit(&sandbox, "/auth/register", &[("name", nasty), ("login", nasty), ("password", "x")]);
    assert_eq!(refused.status, 400);
    let pages = [
        ada.get("/console").text(),
        ada.get("/console/platform-tokens").text(),
        ada.get("/documents/identity-bankcard-check-4e").text(),
        ada.get("/service/identity").text(),
        admin.get("/console/operator").text(),
        refused.text(),
        sandbox.get("/documents/search?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text(),
        sandbox.get("/auth/login?next=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text(),
        sandbox.get("/auth/register?invitation=%22%3E%3Cscript%3E").text(),
        ada.post("/console/explorer", &[("request", nasty), ("canonical", nasty)]).text(),
    ];
    for (at, page) in pages.iter().enumerate() {
        assert!(!page.contains("<script>") && !page.contains("<img"), "page {at}: {page}");
    }
    assert!(pages[0].contains("&#60;script&#62;"), "and it is shown: {}", pages[0]);
    let formula = call(
        &sandbox,
        PLATFORM_TOKEN,
        "POST",
        "packages",
        json!({ "title": "=1+1", "amount": 1, "price": 1 }),
    );
    let token = ada.token();
    let own = ok(call(&sandbox, &token, "GET", "applications", Value::Null))["items"][0]["id"].clone();
    call(
        &sandbox,
        &token,
        "POST",
        "orders",
        json!({ "application_id": own, "package_id": ok(formula)["id"] }),
    );
    let file = call(&sandbox, &token, "GET", "orders/export", Value::Null).text();
    assert!(file.contains("\"'=1+1\""), "{file}");
}

#[test]
fn passwords_cannot_be_guessed() {
    let sandbox = Sandbox::start();
    register(&sandbox, "ada");
    let guess = |login: &str, password: &str| {
        submit(&sandbox, "/auth/login", &[("login", login), ("password", password)]).status
    };
    for _ in 0..5 {
        assert_eq!(guess("ada@example.com", "wrong wrong wrong"), 401);
    }
    let locked = submit(&sandbox, "/auth/login", &[("login", "ada@example.com"), ("password", PASSWORD)]);
    assert_eq!(locked.status, 429, "the right one neither");
    register(&sandbox, "bob");
    assert_eq!(guess("bob@example.com", PASSWORD), 303, "others are not locked out");
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":901}"#);
    assert_eq!(guess("ada@example.com", PASSWORD), 303);
    // The same words for a wrong password and for nobody.
    let page = |login: &str| {
        let text =
            submit(&sandbox, "/auth/login", &[("login", login), ("password", "wrong wrong wrong")]).text();
        text.split("role=\"status\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    assert_eq!(page("ada@example.com"), page("nobody@example.com"));
    let weak = submit(
        &sandbox,
        "/auth/register",
        &[("name", "c"), ("login", "c@example.com"), ("password", "short"), ("terms", "yes")],
    );
    assert_eq!(weak.status, 400);
    let twice = [("name", "ada2"), ("login", "ADA@example.com"), ("password", PASSWORD), ("terms", "yes")];
    assert_eq!(submit(&sandbox, "/auth/register", &twice).status, 400);
    assert!(!sandbox.log().contains("wrong wrong"), "{}", sandbox.log());
}

#[test]
fn a_password_is_changed_by_who_knows_it_and_reset_with_a_code_once() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let elsewhere = log_in(&sandbox, "ada@example.com", PASSWORD);
    let change = |visitor: &Visitor<'_>, old: &str, new: &str| {
        visitor.post("/console/account/password", &[("old", old), ("new", new)])
    };
    assert_eq!(change(&ada, "wrong wrong wrong", "staple correct horse").status, 400);
    assert_eq!(change(&ada, PASSWORD, "short").status, 400);
    let changed = change(&ada, PASSWORD, "staple correct horse");
    assert_eq!(changed.status, 303, "{}", changed.text());
    let ada = Visitor { sandbox: &sandbox, cookie: session_of(&changed) };
    assert_eq!(ada.get("/console/account").status, 200, "this session goes on under a new key");
    assert_eq!(elsewhere.get("/console").status, 303, "every other is over");
    let try_login = |password: &str| {
        submit(&sandbox, "/auth/login", &[("login", "ada@example.com"), ("password", password)]).status
    };
    assert_eq!((try_login(PASSWORD), try_login("staple correct horse")), (401, 303));

    let admin = operator(&sandbox);
    let code = |login: &str| {
        let page = admin.post("/console/operator/reset", &[("login", login)]).text();
        page.contains("id=\"secret\"").then(|| secret(&page).split("code=").nth(1).unwrap().to_owned())
    };
    assert_eq!(code("nobody@example.com"), None);
    let (first, second) = (code("ada@example.com").unwrap(), code("ada@example.com").unwrap());
    let reset = |code: &str, password: &str| {
        submit(&sandbox, "/auth/reset", &[("code", code), ("password", password)]).status
    };
    assert_eq!(reset(&first, "battery staple correct"), 400, "the newer one took its place");
    assert_eq!(reset(&second, "short"), 400);
    assert_eq!(ada.get("/console").status, 200, "nothing has happened yet");
    assert_eq!(reset(&second, "battery staple correct"), 303);
    assert_eq!(reset(&second, "battery staple correct"), 400, "once");
    assert_eq!(ada.get("/console").status, 303, "all sessions are over");
    assert_eq!((try_login("staple correct horse"), try_login("battery staple correct")), (401, 303));
    let old = code("ada@example.com").unwrap();
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":86401}"#);
    assert_eq!(reset(&old, "battery staple correct"), 400, "for a day");
    for _ in 0..10 {
        reset("GUESS", "battery staple correct");
    }
    assert_eq!(reset("GUESS", "battery staple correct"), 429, "not guessed");
}

#[test]
fn what_the_operator_sends_in_parts_is_on_the_disk_and_on_record() {
    let sandbox = Sandbox::start();
    let admin = operator(&sandbox);
    let csrf = admin.csrf();
    let import = |csrf: &str, lines: &str| {
        let headers = [("Cookie", admin.cookie.as_str()), ("x-csrf-token", csrf)];
        sandbox.request("POST", "/console/operator/import", &headers, lines.as_bytes())
    };
    let card = "6228480402564890018";
    let line = json!({ "bank_card": card, "name": "许仙", "id_number": "99010119610202001X", "phone": "16100000099" });
    assert_eq!(import("0123456789abcdef0123456789abcdef", &line.to_string()).status, 403);
    let wrong = r#"{"bank_card":"1","name":"x","id_number":"x"}"#;
    let gone = r#"{"op":"delete","bank_card":"6228480402564890026"}"#;
    let told = ok(import(&csrf, &format!("{line}\n{wrong}\n\n{gone}\n")));
    assert_eq!((told["absent"].clone(), told["rejected"][0]["line"].clone()), (json!(1), json!(1)), "{told}");
    assert!(!told.to_string().contains("许仙") && told["done"] == 1, "{told}");
    let many = format!("{wrong}\n").repeat(2_001);
    assert_eq!(import(&csrf, &many).status, 400);
    let found = admin.post("/console/operator/lookup", &[("card", card)]).text();
    assert!(found.contains("0018: ") && found.contains("status: normal"), "{found}");
    assert!(!found.contains(card), "the whole number is not shown again");
    let audit = admin.get("/console/operator/audit").text();
    assert!(audit.contains("accounts changed") && audit.contains("account looked up"), "{audit}");
    assert!(audit.contains("(public)") && !audit.contains(card), "by whom, not about whom: {audit}");
    admin.post("/console/operator/check", &[]);
    let began = std::time::Instant::now();
    while !admin.get("/console/operator/audit").text().contains("Signed checkpoints") {
        assert!(began.elapsed().as_secs() < 20, "the check does not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn limits_of_an_account_are_set_from_the_console() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let admin = operator(&sandbox);
    let set = |fields: &[(&str, &str)]| {
        let page = admin.post("/console/operator/limits", &[&[("caller", "ada")], fields].concat()).text();
        page.split("role=\"status\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    assert_eq!(set(&[("price", "0.5"), ("unlimited", "no")]), "Saved.");
    assert_eq!(ask(&sandbox, &key).header("x-credits-remaining"), Some("9.5"));
    set(&[("encryption_required", "yes")]);
    assert_eq!(ask(&sandbox, &key).status, 400, "plain text is refused");
    set(&[("encryption_required", "no"), ("has_actions", "yes"), ("action", "bankcard-2e")]);
    assert_eq!(ask(&sandbox, &key).status, 400, "not this action");
    assert!(set(&[("has_actions", "yes")]).starts_with("Leave one action"));
    assert!(set(&[("rate", "fast")]).contains("invalid"));
    set(&[("has_actions", "yes"), ("action", "bankcard-4e"), ("unlimited", "yes")]);
    assert_eq!(ask(&sandbox, &key).status, 200);
    assert!(admin.get("/console/operator?name=ad").text().contains(">ada</a>"));
    assert!(!admin.get("/console/operator?name=nobody").text().contains(">ada</a>"));
    assert_eq!(admin.get("/console/operator/account/999").status, 404);
    assert_eq!(admin.post("/console/operator/nonsense", &[]).status, 404);
}

#[test]
fn registration_by_invitation() {
    let sandbox = Sandbox::configured("[platform]\nregistration = \"invitation\"\n");
    let code = ok(call(&sandbox, PLATFORM_TOKEN, "POST", "invitations", json!({})))["code"]
        .as_str()
        .unwrap()
        .to_owned();
    let attempt = |name: &str, code: &str| {
        let login = format!("{name}@example.com");
        let fields = [
            ("name", name),
            ("login", &login),
            ("password", PASSWORD),
            ("terms", "yes"),
            ("invitation", code),
        ];
        submit(&sandbox, "/auth/register", &fields).status
    };
    assert_eq!((attempt("ada", ""), attempt("ada", "NONE")), (400, 400));
    assert_eq!((attempt("ada", &code), attempt("eve", &code)), (303, 400), "one account a code");
    let closed = Sandbox::configured("[platform]\nregistration = \"closed\"\n");
    let fields = [("name", "ada"), ("login", "a@example.com"), ("password", PASSWORD), ("terms", "yes")];
    assert_eq!(submit(&closed, "/auth/register", &fields).status, 400);
}

#[test]
fn nothing_that_lets_anybody_in_is_on_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let ada = register(&sandbox, "ada");
    let (key, token) = (ada.acquire(), ada.token());
    let voucher = ok(call(&sandbox, PLATFORM_TOKEN, "POST", "recharge-cards", json!({ "amount": 1 })));
    let voucher = voucher["codes"][0].as_str().unwrap().to_owned();
    let session = ada.cookie.split('=').nth(1).unwrap().to_owned();
    ask(&sandbox, &key);
    sandbox.stop();
    for entry in std::fs::read_dir(data.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for secret in [&key, &token, &voucher, &session, PASSWORD, "6225768888888888", "16137688175"] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "a secret is on the disk");
        }
    }
}
