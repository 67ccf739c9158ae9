//! Refusals: the `error` envelope, its status, and what the sentence tells the reader to do.

use super::*;

fn refused(status: u16, code: &str, message: &str) -> String {
    format!(
        "{status}
content-type: application/json
x-charged: 0
x-trace-id: {{trace}}

{{\"error\":{{\"code\":\"{code}\",\"message\":\"{message}\"}},\"trace_id\":\"{{trace}}\"}}"
    )
}

#[test]
fn a_token_that_cannot_be_one_is_told_what_is_wrong() {
    let sandbox = Sandbox::start();
    let platform = format!("Bearer platform-v1-{}", "4e".repeat(32));
    let published = "The specified token is invalid or wrong.";
    for (authorization, hint) in [
        ("Bearer", "There is no token after `Bearer`."),
        ("Bearer {token}", "`{token}` is a placeholder: put your API key in its place."),
        ("Token 4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e", "The authorization scheme must be `Bearer`."),
        (TOKEN, "The authorization scheme must be `Bearer`."),
        (
            &platform,
            "This is an account token, which is for the management API. \
             This endpoint needs the API key of an application.",
        ),
        ("Bearer 4e4e 4e4e", "It has characters, or a length, that no token has."),
    ] {
        let reply = authorized(&sandbox, authorization, SAMPLE);
        assert_eq!(
            transcript(&sandbox, &reply),
            refused(401, "invalid_token", &format!("{published} {hint}")),
            "{authorization}"
        );
    }
}

#[test]
fn no_token() {
    let sandbox = Sandbox::start();
    let reply = sandbox.request("POST", PATH, &[], SAMPLE.as_bytes());
    let message =
        "The specified token is invalid or wrong. Send it in the header `authorization: Bearer <token>`.";
    assert_eq!(transcript(&sandbox, &reply), refused(401, "invalid_token", message));
    let in_query = sandbox.request("POST", &format!("{PATH}?token={TOKEN}"), &[], SAMPLE.as_bytes());
    assert_eq!(refusal(&in_query), (401, "invalid_token".into()), "a token in an address ends up in logs");
}

#[test]
fn a_token_nobody_has() {
    let sandbox = Sandbox::start();
    let reply = authorized(&sandbox, "Bearer 00000000000000000000000000000000", SAMPLE);
    let message = "The specified token is invalid or wrong.";
    assert_eq!(transcript(&sandbox, &reply), refused(401, "invalid_token", message));
}

#[test]
fn a_token_that_has_expired() {
    let sandbox = Sandbox::start();
    let reply = ask_as(&sandbox, EXPIRED, SAMPLE);
    assert_eq!(transcript(&sandbox, &reply), refused(401, "token_expired", "token expired."));
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1577836799}"#);
    assert_eq!(result(&ask_as(&sandbox, EXPIRED, SAMPLE)), "0", "the second before");
}

#[test]
fn a_service_that_was_never_acquired() {
    let sandbox = Sandbox::start();
    let message =
        "The specified token is not matched with API. Acquire the service identity at http://{address}";
    let reply = ask_as(&sandbox, NOT_ACTIVATED, SAMPLE);
    assert_eq!(transcript(&sandbox, &reply), refused(400, "token_mismatched", message));

    let newer = Sandbox::configured(
        "[acedata]\ntoken_mismatched_status = 401\npublic_url = \"https://verify.example\"\n",
    );
    let reply = ask_as(&newer, NOT_ACTIVATED, SAMPLE);
    let message = message.replace("http://{address}", "https://verify.example");
    assert_eq!(transcript(&newer, &reply), refused(401, "token_mismatched", &message));
}

#[test]
fn no_balance() {
    let sandbox = Sandbox::start();
    let reply = ask_as(&sandbox, ARREARS, SAMPLE);
    let message = "Your balance is not sufficient for current request, please buy more at http://{address}";
    assert_eq!(transcript(&sandbox, &reply), refused(403, "used_up", message));
}

#[test]
fn callers_that_may_not_ask() {
    let sandbox = Sandbox::start();
    for (application, message) in [
        (SUSPENDED, "Your application is suspended, please ask the operator of this service."),
        (UNCONFIRMED, "Your account is not confirmed yet, please ask the operator of this service."),
    ] {
        let reply = ask_as(&sandbox, application, SAMPLE);
        assert_eq!(transcript(&sandbox, &reply), refused(403, "disabled", message));
    }
}

#[test]
fn more_requests_in_a_second_than_allowed() {
    let sandbox = Sandbox::start();
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276800}"#);
    for remaining in ["1", "0"] {
        let reply = ask_as(&sandbox, RATE_LIMITED, SAMPLE);
        assert_eq!(result(&reply), "0");
        assert_eq!(reply.header("ratelimit-limit"), Some("2"));
        assert_eq!(reply.header("ratelimit-remaining"), Some(remaining));
        assert_eq!(reply.header("ratelimit-reset"), Some("1"));
    }
    assert_eq!(
        transcript(&sandbox, &ask_as(&sandbox, RATE_LIMITED, SAMPLE)),
        "429
content-type: application/json
ratelimit-limit: 2
ratelimit-remaining: 0
ratelimit-reset: 1
retry-after: 1
x-charged: 0
x-trace-id: {trace}

{\"error\":{\"code\":\"too_many_requests\",\"message\":\"You have exceeded the rate limit. \
3 requests were sent within a second, 2 are allowed.\"},\"trace_id\":\"{trace}\"}"
    );
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276801}"#);
    assert_eq!(result(&ask_as(&sandbox, RATE_LIMITED, SAMPLE)), "0", "the next second");
    assert_eq!(ask(&sandbox, SAMPLE).header("ratelimit-limit"), None, "no limit, no header");
}

#[test]
fn missing_members_are_named_all_at_once() {
    let sandbox = Sandbox::start();
    for (body, missing) in [
        ("", "name, bank_card, phone, id_card"),
        ("{}", "name, bank_card, phone, id_card"),
        (r#"{"name":"韦小宝","mobile":"16137688175"}"#, "bank_card, phone, id_card"),
        (r#"{"name":"韦小宝","bank_card":"6225768888888888","phone":null,"id_card":"1"}"#, "phone"),
    ] {
        let reply = ask(&sandbox, body);
        let message = format!("Required and missing: {missing}.");
        assert_eq!(transcript(&sandbox, &reply), refused(400, "bad_request", &message), "{body}");
    }
}

#[test]
fn members_of_a_wrong_type_are_named_and_never_quoted() {
    let sandbox = Sandbox::start();
    for (from, to, message) in [
        (r#""6225768888888888""#, "6225768888888888", "bank_card must be a string."),
        (r#""16137688175""#, "16137688175", "phone must be a string."),
        (r#""韦小宝""#, r#"["韦小宝"]"#, "name must be a string."),
        (r#""11204416541220243X""#, "true", "id_card must be a string."),
        (r#"{"name""#, r#"{"cert_type":"resident","name""#, "cert_type must be an integer."),
        (
            r#"{"name""#,
            r#"{"encryption":"AES","name""#,
            "encryption must be an object or an array of one object.",
        ),
    ] {
        let reply = ask(&sandbox, &SAMPLE.replace(from, to));
        assert_eq!(transcript(&sandbox, &reply), refused(400, "bad_request", message));
    }
}

#[test]
fn bodies_that_are_no_json_object() {
    let sandbox = Sandbox::start();
    for (body, message) in [
        ("{\"name\":\"韦小宝\",", "The request body is not valid JSON (line 1, column 20)."),
        ("name=x&bank_card=6225768888888888", "The request body is not valid JSON (line 1, column 2)."),
        ("[]", "The request body must be a JSON object."),
        ("\"6225768888888888\"", "The request body must be a JSON object."),
    ] {
        assert_eq!(
            transcript(&sandbox, &ask(&sandbox, body)),
            refused(400, "bad_request", message),
            "{body}"
        );
    }
    let bearer = format!("Bearer {TOKEN}");
    let reply = sandbox.request("POST", PATH, &[("authorization", &bearer)], b"{\"name\":\"\xce\xa4\"}\xff");
    assert_eq!(
        transcript(&sandbox, &reply),
        refused(400, "bad_request", "The request body is not valid UTF-8.")
    );
}

#[test]
fn ciphertext_is_never_verified_as_if_it_were_text() {
    let sandbox = Sandbox::start();
    let listed = r#"{"algorithm":"AES-256-CBC","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","encrypt_list":["bank_card"],"ciphertext_blob":"x"}"#;
    for encryption in [listed.to_owned(), format!("[{listed}]")] {
        let reply =
            ask(&sandbox, &SAMPLE.replace("{\"name\"", &format!("{{\"encryption\":{encryption},\"name\"")));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("encryption: "), "{message}");
        assert_eq!(transcript(&sandbox, &reply), refused(400, "bad_request", &message));
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn other_methods_are_told_which_one() {
    let sandbox = Sandbox::start();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = sandbox.request(method, PATH, &[], b"");
        assert_eq!(
            transcript(&sandbox, &reply),
            "405
allow: POST
content-type: application/json
x-charged: 0
x-trace-id: {trace}

{\"error\":{\"code\":\"bad_request\",\"message\":\"This API is called with POST.\"},\"trace_id\":\"{trace}\"}",
            "{method}"
        );
    }
}

#[test]
fn paths_that_do_not_exist() {
    let sandbox = Sandbox::start();
    for path in ["/identity/bankcard/check-5e", "/identity", "/identity/bankcard/check-4e//", "/nowhere"] {
        let reply = sandbox.request("POST", path, &[], SAMPLE.as_bytes());
        let message = "API does not exist, please make sure url is correct.";
        assert_eq!(transcript(&sandbox, &reply), refused(404, "no_api", message), "{path}");
    }
}

#[test]
fn a_body_of_eleven_megabytes() {
    let sandbox = Sandbox::start();
    let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(11 << 20));
    let reply = ask(&sandbox, &body);
    let message = "The request body is larger than 10 MB.";
    assert_eq!(transcript(&sandbox, &reply), refused(413, "request_too_large", message));
    assert_eq!(result(&ask(&sandbox, SAMPLE)), "0", "and the next one is answered");
}

#[test]
fn a_panic_is_an_answer_and_not_the_end() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"panic":true}}"#);
    assert_eq!(
        transcript(&sandbox, &ask(&sandbox, SAMPLE)),
        "500
content-type: application/json
x-charged: 0
x-trace-id: {trace}

{\"success\":false,\"error\":{\"code\":\"api_error\",\"message\":\"Internal server error.\"},\"trace_id\":\"{trace}\"}"
    );
    assert_eq!(result(&ask(&sandbox, SAMPLE)), "0");
    assert_eq!(sandbox.charges(), 1);
    assert!(sandbox.get("/metrics").text().contains("card4e_panics_total 1\n"));
}

#[test]
fn every_error_code_can_be_asked_for() {
    let sandbox = Sandbox::start();
    for (code, status) in [
        ("bad_request", 400),
        ("token_mismatched", 400),
        ("api_not_implemented", 400),
        ("invalid_token", 401),
        ("token_expired", 401),
        ("used_up", 403),
        ("disabled", 403),
        ("no_api", 404),
        ("request_too_large", 413),
        ("too_many_requests", 429),
        ("api_error", 500),
        ("timeout", 504),
    ] {
        sandbox.fault(&format!(r#"{{"wire":"acedata","count":1,"effect":{{"error":"{code}"}}}}"#));
        let reply = ask(&sandbox, SAMPLE);
        assert_eq!(refusal(&reply), (status, code.to_owned()));
        assert_eq!(reply.json()["trace_id"], trace(&reply), "{code}");
        let behind_gateway = matches!(code, "api_error" | "timeout");
        assert_eq!(reply.json().get("success"), behind_gateway.then_some(&false.into()), "{code}");
        assert_eq!(reply.header("retry-after"), (code == "too_many_requests").then_some("1"), "{code}");
        assert_eq!(reply.header("x-charged"), Some("0"), "{code}");
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn an_idempotency_key_that_is_none() {
    let sandbox = Sandbox::start();
    for (keys, message) in [
        (vec![("Idempotency-Key", "")], "Idempotency-Key must be 1 to 255 visible ASCII characters."),
        (vec![("X-Idempotency-Key", "a b")], "Idempotency-Key must be 1 to 255 visible ASCII characters."),
        (
            vec![("Idempotency-Key", "a"), ("X-Idempotency-Key", "b")],
            "Idempotency-Key was sent twice with different values.",
        ),
    ] {
        let reply = ask_with(&sandbox, &keys, SAMPLE);
        assert_eq!(transcript(&sandbox, &reply), refused(400, "bad_request", message), "{keys:?}");
    }
}
