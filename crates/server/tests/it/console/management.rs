//! The management API: catalogue, keys, usage, money; from the wire to the disk and back.

use super::*;

#[test]
fn acquired_once_with_the_free_quota_and_a_key_in_the_form() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let answer = ask(&sandbox, &key);
    assert_eq!((answer.status, answer.header("x-credits-remaining")), (200, Some("9")), "{}", answer.text());
    let token = ada.token();
    let again = call(&sandbox, &token, "POST", "applications/", json!({ "service_id": "identity" }));
    assert_eq!((again.status, again.json()["code"].clone()), (400, json!("duplication")));
    sandbox.stop();

    // All of it is on the disk.
    let sandbox = Sandbox::keeping(data.path(), "");
    let listed = ok(call(&sandbox, &token, "GET", "applications/?user_id=me", Value::Null));
    let own = &listed["items"][0];
    assert_eq!((own["remaining_amount"].clone(), own["used_amount"].clone()), (json!(9.0), json!(1.0)));
    assert_eq!(own["service"]["alias"], "identity");
    let shown = own["credentials"][0]["token"].as_str().unwrap();
    assert_eq!(shown, format!("••••{}", &key[28..]), "masked");
    assert_eq!(ask(&sandbox, &key).header("x-credits-remaining"), Some("8"));
    let reply = submit(&sandbox, "/auth/login", &[("login", "ada@example.com"), ("password", PASSWORD)]);
    assert_eq!(reply.status, 303);
}

#[test]
fn a_key_has_a_limit_an_end_and_places_it_is_used_from() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let token = ada.token();
    let own = ok(call(&sandbox, &token, "GET", "applications", Value::Null))["items"][0]["id"].clone();
    let make = |terms: Value| {
        let mut body = terms;
        body["application_id"] = own.clone();
        call(&sandbox, &token, "POST", "credentials/", body)
    };
    let made = ok(make(json!({ "name": "ci", "limited_amount": 2 })));
    let (id, key) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    let status = || ask(&sandbox, &key).status;
    assert_eq!((status(), status(), status()), (200, 200, 403), "two credits");
    assert!(ask(&sandbox, &key).text().contains("spending limit of this token is used up"));
    let change = |terms: Value| ok(call(&sandbox, &token, "PATCH", &format!("credentials/{id}"), terms));
    assert_eq!(change(json!({ "limited_amount": null }))["limited_amount"], Value::Null);
    assert_eq!(status(), 200);
    change(json!({ "addresses": ["192.0.2.0/24"] }));
    assert_eq!(status(), 400, "not from here");
    change(json!({ "host": "127.0.0.1" }));
    assert_eq!(status(), 200);
    change(json!({ "expired_at": "2020-01-01" }));
    assert_eq!(ask(&sandbox, &key).json()["error"]["code"], "token_expired");
    change(json!({ "expired_at": null }));
    let read = ok(call(&sandbox, &token, "GET", &format!("credentials/{id}/"), Value::Null));
    assert_eq!((read["used_amount"].clone(), read["name"].clone()), (json!(4.0), json!("ci")));

    let rotated = ok(call(&sandbox, &token, "POST", &format!("credentials/{id}/rotate/"), Value::Null));
    assert_eq!((status(), rotated["id"] == id), (401, true), "the old one is dead at once");
    assert_eq!(ask(&sandbox, rotated["token"].as_str().unwrap()).status, 200);
    for _ in 0..2 {
        // The SDK repeats a DELETE whose answer has no body.
        assert_eq!(call(&sandbox, &token, "DELETE", &format!("credentials/{id}"), Value::Null).status, 204);
    }
    assert_eq!(ask(&sandbox, rotated["token"].as_str().unwrap()).status, 401);

    for (wrong, said) in [
        (json!({ "limited_amount": -1 }), "limited_amount"),
        (json!({ "expired_at": "tomorrow" }), "expired_at"),
        (json!({ "allowed_api_ids": ["x"] }), "allowed_api_ids"),
        (json!({ "addresses": ["nowhere"] }), "nowhere"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "type": "Password" }), "type"),
    ] {
        let reply = make(wrong);
        assert_eq!((reply.status, reply.json()["code"].clone()), (400, json!("invalid")));
        assert!(reply.json()["detail"].as_str().unwrap().contains(said), "{}", reply.text());
    }
}

#[test]
fn a_limit_holds_when_many_ask_at_once() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let token = ada.token();
    let own = ok(call(&sandbox, &token, "GET", "applications", Value::Null))["items"][0]["id"].clone();
    let made =
        call(&sandbox, &token, "POST", "credentials", json!({ "application_id": own, "limited_amount": 3 }));
    let key = ok(made)["token"].as_str().unwrap().to_owned();
    let passed: usize = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..12).map(|_| scope.spawn(|| ask(&sandbox, &key).status)).collect();
        asking.into_iter().filter_map(|asked| asked.join().ok()).filter(|status| *status == 200).count()
    });
    assert_eq!(passed, 3);
}

#[test]
fn usage_is_listed_summed_and_exported() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let token = ada.token();
    let first = ask(&sandbox, &key).header("x-trace-id").unwrap().to_owned();
    ask(&sandbox, &key);
    let get = |path: &str| ok(call(&sandbox, &token, "GET", path, Value::Null));
    let began = std::time::Instant::now();
    while get("usage/apis/")["count"] != 2 {
        assert!(began.elapsed().as_secs() < 10, "the rows lag behind");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let row = get(&format!("usage/apis/{first}"));
    assert_eq!((row["trace_id"].clone(), row["status_code"].clone()), (json!(first), json!(200)));
    assert_eq!((row["deducted_amount"].clone(), row["remaining_amount"].clone()), (json!(1.0), json!(9.0)));
    assert_eq!(
        (row["metadata"]["outcome"].clone(), row["metadata"]["wire"].clone()),
        (json!("PASS"), json!("acedata"))
    );
    let text = row.to_string();
    for element in ["6225768888888888", "韦小宝", "16137688175", "11204416541220243X"] {
        assert!(!text.contains(element), "{element} in {text}");
    }
    assert_eq!(
        get("usage/apis/?status_code=200&status_code=500&limit=1")["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(get("usage/apis/?status_code=500")["count"], 0);
    assert_eq!(get("usage/apis/?outcome=CARD_LOST")["count"], 0);
    let sums = get("usage/apis/aggregate/?timezone=Asia/Shanghai");
    assert_eq!((sums["total"].clone(), sums["requests"].clone()), (json!(2.0), json!(2)));
    assert_eq!(get("usage/apis/status-codes/")["items"], json!([200]));
    let file = call(&sandbox, &token, "GET", "usage/apis/export/", Value::Null);
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(file.header("content-disposition").unwrap().contains("usages.csv"));
    let text = file.text();
    assert_eq!(
        text.lines().next(),
        Some("Usage ID,API,Status Code,Deducted Amount,Original Amount,Trace ID,Created At")
    );
    assert_eq!((text.lines().count(), text.contains(&first)), (3, true));

    let old = call(&sandbox, &token, "GET", "usage/apis/?created_at_from=2020-01-01", Value::Null);
    let error = old.json();
    assert_eq!(
        (error["code"].clone(), error["error"].clone()),
        (json!("usage_history_expired"), json!("usage_history_expired"))
    );
    assert_eq!(call(&sandbox, &token, "GET", "usage/apis/?created_at_from=then", Value::Null).status, 400);
}

#[test]
fn money_comes_and_goes_once() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let token = ada.token();
    let operator = |method: &str, path: &str, body: Value| call(&sandbox, PLATFORM_TOKEN, method, path, body);
    let own = |method: &str, path: &str, body: Value| call(&sandbox, &token, method, path, body);
    let balance = || own("GET", "applications", Value::Null).json()["items"][0]["remaining_amount"].clone();

    let package =
        ok(operator("POST", "packages", json!({ "title": "Hundred", "amount": 100, "price": 9.9 })));
    let id = own("GET", "applications", Value::Null).json()["items"][0]["id"].clone();
    let order =
        ok(own("POST", "orders/", json!({ "application_ids": [id], "package_ids": [package["id"]] })));
    let number = order["id"].as_str().unwrap();
    assert_eq!(
        (order["state"].clone(), order["price"].clone(), balance()),
        (json!("Pending"), json!(9.9), json!(10.0))
    );
    let minimum = sandbox.get(&format!("/api/v1/orders/{number}"));
    assert_eq!(
        (minimum.status, minimum.json().get("user_id")),
        (200, None),
        "without a token: what is to be paid"
    );
    assert_eq!(own("POST", &format!("orders/{number}/finish/"), Value::Null).status, 403, "not oneself");
    assert_eq!(
        ok(own("POST", &format!("orders/{number}/pay/"), json!({ "pay_way": "BankTransfer" })))["state"],
        "Pending"
    );
    assert_eq!(ok(operator("POST", &format!("orders/{number}/finish/"), Value::Null))["state"], "Finished");
    assert_eq!(balance(), 110.0);
    assert_eq!(operator("POST", &format!("orders/{number}/finish/"), Value::Null).status, 400, "twice");
    assert_eq!(balance(), 110.0);
    let summary = ok(own("GET", "orders/summary/", Value::Null));
    assert_eq!(
        (summary["total_spent"].clone(), summary["state_counts"]["Finished"].clone()),
        (json!(9.9), json!(1))
    );
    assert_eq!(ok(operator("POST", &format!("orders/{number}/refund/"), Value::Null))["state"], "Refunded");
    assert_eq!(
        (balance(), operator("POST", &format!("orders/{number}/refund/"), Value::Null).status),
        (json!(10.0), 400)
    );

    let made = ok(operator("POST", "recharge-cards", json!({ "amount": 5, "count": 2 })));
    let code = made["codes"][0].as_str().unwrap();
    assert_eq!(
        ok(own("POST", "recharge-cards/redeem/", json!({ "code": code.to_lowercase() })))["pay_way"],
        "RechargeCard"
    );
    assert_eq!(own("POST", "recharge-cards/redeem/", json!({ "code": code })).status, 404, "once");
    assert_eq!(balance(), 15.0);
    assert!(!ok(operator("GET", "recharge-cards", Value::Null)).to_string().contains(code), "masked");
    let gift = ok(operator(
        "POST",
        &format!("applications/{}/sponsor/", id.as_str().unwrap()),
        json!({ "amount": 1.5 }),
    ));
    assert_eq!(
        (gift["state"].clone(), gift["pay_way"].clone(), balance()),
        (json!("Finished"), json!("Reward"), json!(16.5))
    );
    for _ in 0..16 {
        assert_eq!(ask(&sandbox, &key).status, 200);
    }
    let spent = operator("POST", &format!("orders/{}/refund/", gift["id"].as_str().unwrap()), Value::Null);
    assert_eq!(
        (spent.status, balance()),
        (400, json!(0.5)),
        "what was spent is not given back: {}",
        spent.text()
    );
    sandbox.stop();
    let sandbox = Sandbox::keeping(data.path(), "");
    let listed = ok(call(&sandbox, &token, "GET", "orders/?state=Finished,Refunded", Value::Null));
    assert_eq!(listed["count"], 3);
    let own = ok(call(&sandbox, &token, "GET", "applications", Value::Null));
    assert_eq!(own["items"][0]["remaining_amount"], 0.5);
}

#[test]
fn the_catalogue_needs_no_token_and_the_definition_is_whole() {
    let sandbox = Sandbox::start();
    let get = |path: &str| sandbox.get(&format!("/api/v1/{path}"));
    let service = ok(get("services/identity"));
    assert_eq!((service["free_amount"].clone(), service["applied"].clone()), (json!(10.0), json!(false)));
    let apis = ok(get("apis/?path=/identity/bankcard/check-4e"));
    let api = ok(get(&format!("apis/{}/", apis["items"][0]["id"].as_str().unwrap())));
    let definition = &api["definition"];
    assert_eq!(definition["servers"][0]["url"], format!("http://{}", sandbox.address));
    let post = &definition["paths"]["/identity/bankcard/check-4e"]["post"];
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["name", "bank_card", "phone", "id_card"]));
    let statuses: Vec<_> = post["responses"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(statuses, ["200", "400", "401", "403", "404", "405", "413", "429", "500", "504"]);
    assert_eq!(ok(get("documents/identity-bankcard-check-4e/openapi.json")), *definition);
    assert!(ok(get("search/?query=lost"))["items"].to_string().contains("CARD_LOST"));
    assert_eq!(get("apis/42").json()["code"], "invalid");
    assert_eq!(get("services/c4e00000-0004-4000-8000-000000000002").status, 404);
    assert_eq!(get("nothing").json()["code"], "not_found");
    assert_eq!(sandbox.request("PATCH", "/api/v1/platform-tokens/x", &[], b"").status, 405);
}

#[test]
fn the_wrong_token_is_told_what_is_right() {
    let sandbox = Sandbox::start();
    let key = call(&sandbox, TOKEN, "GET", "applications", Value::Null);
    let said = key.json();
    assert_eq!((key.status, said["code"].clone()), (401, json!("not_authenticated")));
    assert!(said["detail"].as_str().unwrap().contains("platform-v1-"), "{said}");
    assert_eq!(said["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(sandbox.get("/api/v1/applications").status, 401);
    let me = ok(call(&sandbox, PLATFORM_TOKEN, "GET", "platform-tokens/me/", Value::Null));
    assert!(me["permissions"].as_array().unwrap().contains(&json!("orders:write:any")), "{me}");
    let bad = sandbox.request(
        "POST",
        "/api/v1/platform-tokens",
        &[("Authorization", &format!("Bearer {PLATFORM_TOKEN}"))],
        b"[]",
    );
    assert_eq!(bad.json()["code"], "invalid");
}

/// Asks until the rows have caught up.
fn when(get: impl Fn() -> Value, is_there: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let told = get();
        if is_there(&told) {
            return told;
        }
        assert!(began.elapsed().as_secs() < 10, "the rows lag behind: {told}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_refused_request_is_listed_counted_and_free() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let ada = register(&sandbox, "ada");
    let key = ada.acquire();
    let token = ada.token();
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let refused = sandbox.request("POST", "/identity/bankcard/check-3e", &headers, b"{}");
    assert_eq!((refused.status, refused.json()["error"]["code"].clone()), (400, json!("bad_request")));
    let id = refused.header("x-trace-id").unwrap().to_owned();
    sandbox.request("POST", "/identity/bankcard/check-4e", &headers, b"{}");
    let answered = ask(&sandbox, &key).header("x-trace-id").unwrap().to_owned();
    // Nobody's: a wrong token is not a usage of anybody's.
    assert_eq!(ask(&sandbox, "0123456789abcdef0123456789abcdef").status, 401);
    let get = |sandbox: &Sandbox, path: &str| ok(call(sandbox, &token, "GET", path, Value::Null));
    let all = when(|| get(&sandbox, "usage/apis/"), |told| told["count"] == 3);
    assert_eq!(all["items"][0]["id"], json!(answered), "the newest first, answers and refusals as one list");
    let second = get(&sandbox, "usage/apis/?limit=1&offset=2");
    assert_eq!((second["count"].clone(), second["items"][0]["id"].clone()), (json!(3), json!(id)));
    let row = get(&sandbox, &format!("usage/apis/{id}"));
    assert_eq!((row["status_code"].clone(), row["deducted_amount"].clone()), (json!(400), json!(0.0)));
    assert_eq!(
        (row["metadata"]["error"].clone(), row["metadata"]["action"].clone(), row["response"].clone()),
        (json!("bad_request"), json!("bankcard-3e"), json!({ "error": "bad_request" }))
    );
    for (filter, count) in [
        ("status_code=400", 2),
        ("status_code=200", 1),
        ("status_code=200&status_code=400", 3),
        ("status_code=500", 0),
        ("outcome=REFUSED", 2),
        ("outcome=PASS", 1),
        ("outcome=PASS,REFUSED", 3),
        ("status_code=400&outcome=PASS", 0),
    ] {
        assert_eq!(get(&sandbox, &format!("usage/apis/?{filter}"))["count"], count, "{filter}");
    }
    let codes = get(&sandbox, "usage/apis/status-codes/");
    assert_eq!(codes["items"], json!([200, 400]));
    let counted = json!([{ "wire": "acedata", "code": "bad_request", "status_code": 400, "requests": 2 }]);
    assert_eq!(codes["errors"], counted);
    let file = call(&sandbox, &token, "GET", "usage/apis/export/", Value::Null).text();
    assert!(
        file.lines().count() == 4
            && file.contains(&format!("{id},\"Bank card three-element verification\",400,0,0")),
        "{file}"
    );
    assert_eq!(get(&sandbox, "usage/apis/aggregate/")["requests"], 1, "only answers are summed up");
    assert_eq!(get(&sandbox, "applications")["items"][0]["used_amount"], 1.0);
    // Others' are not shown, an operator sees all.
    let eve = register(&sandbox, "eve");
    eve.acquire();
    let theirs = eve.token();
    assert_eq!(call(&sandbox, &theirs, "GET", &format!("usage/apis/{id}"), Value::Null).status, 403);
    assert_eq!(ok(call(&sandbox, &theirs, "GET", "usage/apis/", Value::Null))["count"], 0);
    let samples =
        |token: &str| call(&sandbox, token, "GET", "apis/identity-bankcard-check-4e/usage/", Value::Null);
    assert_eq!(samples("").status, 401);
    assert_eq!(
        (ok(samples(&token))["count"].clone(), ok(samples(&theirs))["count"].clone()),
        (json!(2), json!(0))
    );
    assert_eq!(ok(samples(PLATFORM_TOKEN))["items"][0]["status_code"], 200);
    // They are still there after a restart, though nothing of them is in the ledger.
    sandbox.stop();
    let sandbox = Sandbox::keeping(data.path(), "");
    assert_eq!(get(&sandbox, "usage/apis/?outcome=REFUSED")["count"], 2);
    assert_eq!(get(&sandbox, "usage/apis/status-codes/")["errors"], counted);
}

#[test]
fn an_operator_makes_an_order_and_changes_its_price_until_it_is_paid() {
    let sandbox = Sandbox::start();
    let ada = register(&sandbox, "ada");
    ada.acquire();
    let token = ada.token();
    let own = ok(call(&sandbox, &token, "GET", "applications", Value::Null))["items"][0]["id"].clone();
    let operator = |path: &str, body: Value| call(&sandbox, PLATFORM_TOKEN, "POST", path, body);
    let order = json!({ "application_id": own, "amount": 500, "price": 45, "description": "Autumn" });
    assert_eq!(call(&sandbox, &token, "POST", "orders/admin/create/", order.clone()).status, 403);
    let made = ok(operator("orders/admin/create/", order));
    assert_eq!(
        (made["state"].clone(), made["price"].clone(), made["description"].clone()),
        (json!("Pending"), json!(45.0), json!("Autumn"))
    );
    let id = made["id"].as_str().unwrap();
    let price = |price: f64| operator(&format!("orders/{id}/update-price/"), json!({ "price": price }));
    assert_eq!(ok(price(40.5))["price"], 40.5);
    assert_eq!(price(-1.0).json()["code"], "invalid");
    assert_eq!(ok(call(&sandbox, &token, "GET", &format!("orders/{id}"), Value::Null))["price"], 40.5);
    ok(operator(&format!("orders/{id}/finish/"), json!({})));
    let late = price(1.0);
    assert!(late.status == 400 && late.text().contains("Finished"), "{}", late.text());
    let listed = ok(call(&sandbox, &token, "GET", "applications", Value::Null));
    assert_eq!(listed["items"][0]["remaining_amount"], 510.0);
    for (wrong, said) in [
        (json!({ "application_id": own }), "amount"),
        (json!({ "application_id": own, "amount": 1, "price": "much" }), "price"),
        (json!({ "application_id": own, "package_id": "c4e00000-0000-4000-8000-000000000000" }), "package"),
    ] {
        let reply = operator("orders/admin/create/", wrong);
        assert!(matches!(reply.status, 400 | 404) && reply.text().contains(said), "{}", reply.text());
    }
}
