//! Answers: 200, `result` as text, `description`, and headers that tell what was charged.

use super::*;

#[test]
fn the_documented_sample() {
    let sandbox = Sandbox::start();
    let reply = ask(&sandbox, SAMPLE);
    assert_eq!(
        transcript(&sandbox, &reply),
        "200
content-type: application/json
x-charged: 1
x-credits-charged: 1
x-sandbox-decision: row=0 outcome=PASS by=sample
x-trace-id: {trace}

{\"result\":\"0\",\"description\":\"Authentication passed\"}"
    );
}

#[test]
fn the_guides_curl_snippet_as_printed() {
    let sandbox = Sandbox::start();
    let body = "{
  \"name\": \"胡印福\",
  \"bank_card\": \"***\",
  \"phone\": \"***\",
  \"id_card\": \"***\"
}";
    let request = format!(
        "POST /identity/bankcard/check-4e HTTP/1.1\r
Host: {}\r
User-Agent: curl/8.5.0\r
authorization: Bearer {TOKEN}\r
accept: application/json\r
content-type: application/json\r
Content-Length: {}\r
\r
{body}",
        sandbox.address,
        body.len()
    );
    let reply = sandbox.send(request.as_bytes());
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), r#"{"result":"0","description":"Authentication passed"}"#);
}

#[test]
fn the_guides_python_snippet_as_printed() {
    let sandbox = Sandbox::start();
    let body = br#"{"name": "\u80e1\u5370\u798f", "bank_card": "***", "phone": "***", "id_card": "***"}"#;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        ("User-Agent", "python-requests/2.32.5"),
        ("Accept-Encoding", "gzip, deflate"),
        ("accept", "application/json"),
        ("Connection", "keep-alive"),
        ("authorization", &bearer),
        ("content-type", "application/json"),
    ];
    let reply = sandbox.request("POST", PATH, &headers, body);
    assert_eq!(reply.text(), r#"{"result":"0","description":"Authentication passed"}"#);
    assert_eq!(reply.header("x-charged"), Some("1"));
}

#[test]
fn blanked_elements_pass_with_any_name_but_only_all_three_together() {
    let sandbox = Sandbox::start();
    let blanked = r#"{"name":"谁","bank_card":"***","phone":"***","id_card":"***"}"#;
    assert_eq!(result(&ask(&sandbox, blanked)), "0");
    let partly = r#"{"name":"谁","bank_card":"***","phone":"16137688175","id_card":"***"}"#;
    assert_ne!(result(&ask(&sandbox, partly)), "0");
}

#[test]
fn both_slash_forms_are_answered_in_place() {
    let sandbox = Sandbox::start();
    let bearer = format!("bearer {TOKEN}");
    for path in [PATH, "/identity/bankcard/check-4e/", "/identity/bankcard/check-4e?from=form"] {
        let reply = sandbox.request("POST", path, &[("Authorization", &bearer)], SAMPLE.as_bytes());
        assert_eq!(result(&reply), "0", "{path}");
    }
}

#[test]
fn accept_chooses_between_json_and_one_line_of_json() {
    let sandbox = Sandbox::start();
    let json = r#"{"result":"0","description":"Authentication passed"}"#;
    let line = format!("{json}\n");
    for (accept, content_type, body) in [
        (Some("application/json"), "application/json", json),
        (Some("application/x-ndjson"), "application/x-ndjson", line.as_str()),
        (Some("application/x-ndjson, application/json"), "application/x-ndjson", line.as_str()),
        (Some("text/event-stream"), "application/json", json),
        (Some("*/*"), "application/json", json),
        (Some("text/html"), "application/json", json),
        (None, "application/json", json),
    ] {
        let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
        let reply = ask_with(&sandbox, &headers, SAMPLE);
        assert_eq!(reply.status, 200, "{accept:?}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{accept:?}");
        assert_eq!(reply.text(), body, "{accept:?}");
    }
}

#[test]
fn chinese_for_those_who_ask_for_it_and_english_for_all_others() {
    let sandbox = Sandbox::start();
    for (language, description) in [
        ("zh", "认证通过"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "认证通过"),
        ("en-US,zh;q=0.5", "Authentication passed"),
        ("de", "Authentication passed"),
        ("*", "Authentication passed"),
    ] {
        let reply = ask_with(&sandbox, &[("accept-language", language)], SAMPLE);
        assert_eq!(reply.json()["description"], description, "{language}");
    }
    assert_eq!(ask(&sandbox, SAMPLE).json()["description"], "Authentication passed");
}

/// Tencent's number of a magic card, the guide's number, whether charged, and the guide's words.
const CARDS: [(&str, i8, &str, bool, &str, &str); 22] = [
    ("6200000000000005", 0, "0", true, "Authentication passed", "认证通过"),
    ("6200000000010004", -1, "-1", true, "Authentication not passed", "认证未通过"),
    ("6200000000020003", -2, "-2", false, "Name verification not passed", "姓名校验不通过"),
    ("6200000000030002", -3, "-1", false, "Authentication not passed", "认证未通过"),
    ("6200000000040001", -4, "-3", false, "Bank card number is incorrect", "银行卡号码有误"),
    ("6200000000050000", -5, "-1", false, "Authentication not passed", "认证未通过"),
    ("6200000000060009", -6, "-4", true, "Cardholder information is incorrect", "持卡人信息有误"),
    ("6200000000070008", -7, "-5", true, "No card payment activated", "未开通无卡支付"),
    ("6200000000080007", -8, "-6", true, "This card has been confiscated", "此卡被没收"),
    ("6200000000090006", -9, "-7", true, "Invalid card number", "无效卡号"),
    ("6200000000100003", -10, "-8", true, "This card has no corresponding issuing bank", "此卡无对应发卡行"),
    (
        "6200000000110002",
        -11,
        "-9",
        true,
        "The card is not initialized or is a dormant card",
        "该卡未初始化或睡眠卡",
    ),
    ("6200000000120001", -12, "-10", true, "Fraudulent card, card swallowed", "作弊卡、吞卡"),
    ("6200000000130000", -13, "-11", true, "This card has been reported lost", "此卡已挂失"),
    ("6200000000140009", -14, "-12", true, "This card has expired", "该卡已过期"),
    ("6200000000150008", -15, "-13", true, "Restricted card", "受限制的卡"),
    (
        "6200000000160007",
        -16,
        "-14",
        true,
        "Exceeded the limit of incorrect password attempts",
        "密码错误次数超限",
    ),
    (
        "6200000000170006",
        -17,
        "-15",
        true,
        "The issuing bank does not support this transaction",
        "发卡行不支持此交易",
    ),
    ("6200000000180005", -18, "-16", false, "Verification center service busy", "验证中心服务繁忙"),
    (
        "6200000000190004",
        -19,
        "-17",
        false,
        "Exceeded the limit of verification attempts, please try again the next day",
        "验证次数超限，请次日重试",
    ),
    ("6200000000200001", -20, "-1", false, "Authentication not passed", "认证未通过"),
    ("6200000000210000", -21, "-1", true, "Authentication not passed", "认证未通过"),
];

fn with_card(card: &str) -> String {
    format!(r#"{{"name":"","bank_card":"{card}","phone":"","id_card":""}}"#)
}

#[test]
fn one_card_for_every_code() {
    let sandbox = Sandbox::start();
    let mut charges = 0;
    for (card, tencent, number, charged, english, chinese) in CARDS {
        charges += u64::from(charged);
        let reply = ask(&sandbox, &with_card(card));
        assert_eq!(
            reply.text(),
            format!(r#"{{"result":"{number}","description":"{english}"}}"#),
            "{card} is {tencent} on the other wire"
        );
        let price = if charged { "1" } else { "0" };
        assert_eq!(reply.header("x-charged"), Some(price), "{card}");
        assert_eq!(reply.header("x-credits-charged"), Some(price), "{card}");
        assert!(reply.header("x-sandbox-decision").unwrap().ends_with("by=magic-card"), "{card}");
        assert_eq!(sandbox.charges(), charges, "{card}");
        let reply = ask_with(&sandbox, &[("accept-language", "zh-CN")], &with_card(card));
        charges += u64::from(charged);
        assert_eq!(reply.text(), format!(r#"{{"result":"{number}","description":"{chinese}"}}"#), "{card}");
    }
}

#[test]
fn upstream_numbering_answers_with_the_other_wires_numbers_and_words() {
    let sandbox = Sandbox::configured("[acedata]\nnumbering = \"upstream_4e\"\n");
    for (card, number, _, charged, _, _) in CARDS {
        let reply = ask(&sandbox, &with_card(card));
        assert_eq!(result(&reply), number.to_string(), "{card}");
        assert_eq!(reply.header("x-charged"), Some(if charged { "1" } else { "0" }), "{card}");
    }
    let phone = ask_with(&sandbox, &[("accept-language", "zh")], &with_card("6200000000050000"));
    assert_eq!(phone.text(), r#"{"result":"-5","description":"手机号码不合法"}"#);
}

#[test]
fn a_price_of_a_fraction_of_a_credit() {
    let sandbox = Sandbox::configured("[policy]\nprice = \"0.057\"\n");
    let reply = ask_as(&sandbox, TRIAL, SAMPLE);
    assert_eq!(reply.header("x-charged"), Some("1"));
    assert_eq!(reply.header("x-credits-charged"), Some("0.057"));
    assert_eq!(reply.header("x-credits-remaining"), Some("9.943"));
}

#[test]
fn everybody_in_the_accounts_gets_the_answer_of_their_card() {
    let sandbox = Sandbox::start();
    for person in sandbox.control("GET", "accounts", "")["accounts"].as_array().unwrap() {
        let text = |column: &str| person[column].as_str().unwrap();
        let body = serde_json::json!({
            "name": text("name"),
            "bank_card": text("bank_card"),
            "phone": text("phone"),
            "id_card": text("id_number"),
        });
        let expected = match (text("id_type"), text("status"), text("phone")) {
            (_, "seized", _) => "-6",
            (_, "fraud", _) => "-10",
            (_, "lost", _) => "-11",
            (_, "expired", _) => "-12",
            (_, "restricted", _) => "-13",
            (_, "pin_locked", _) => "-14",
            (_, "inactive", _) => "-9",
            (_, "cnp_disabled", _) => "-5",
            (_, "abnormal", _) => "-1",
            (_, "closed", _) => "-7",
            // Nothing but an identity number can be asked about; those of other documents are none.
            ("passport" | "hk_macau_permit" | "taiwan_permit", ..) => "-1",
            // An empty mobile is no mobile, 15 digits are no identity number any more.
            (_, _, "") => "-1",
            _ if text("id_number").len() == 15 => "-1",
            _ => "0",
        };
        assert_eq!(result(&ask(&sandbox, &body.to_string())), expected, "{person}");
    }
}

#[test]
fn what_is_present_but_nonsense_gets_the_free_code_of_its_format() {
    let sandbox = Sandbox::start();
    for (name, card, phone, id, number) in [
        ("", "6217000000000000012", "16100000001", "99010119610202001X", "-2"),
        ("张伟", "6217000000000000012", "16100000001", "990101196102020010", "-1"),
        ("张伟", "621700", "16100000001", "99010119610202001X", "-3"),
        ("张伟", "6217000000000000012", "12345678901", "99010119610202001X", "-1"),
        ("", "", "", "", "-2"),
    ] {
        let body = format!(r#"{{"name":"{name}","bank_card":"{card}","phone":"{phone}","id_card":"{id}"}}"#);
        let reply = ask(&sandbox, &body);
        assert_eq!(result(&reply), number, "{body}");
        assert_eq!(reply.header("x-charged"), Some("0"), "{body}");
        assert!(reply.header("x-sandbox-decision").unwrap().ends_with("by=format"), "{body}");
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn other_documents_are_not_passed_and_free() {
    let sandbox = Sandbox::start();
    for kind in ["1", "\"1\"", "-7"] {
        let body = ZHANG_WEI.replace("{\"name\"", &format!("{{\"cert_type\":{kind},\"name\""));
        let reply = ask(&sandbox, &body);
        assert_eq!((result(&reply).as_str(), reply.header("x-charged")), ("-1", Some("0")), "{kind}");
    }
    for kind in ["0", "\"0\"", "0.0", "null"] {
        let body = ZHANG_WEI.replace("{\"name\"", &format!("{{\"cert_type\":{kind},\"name\""));
        assert_eq!(result(&ask(&sandbox, &body)), "0", "{kind}");
    }
}

#[test]
fn a_request_id_of_the_callers_is_echoed() {
    let sandbox = Sandbox::start();
    let reply = ask_with(&sandbox, &[("X-Request-Id", "order-4711")], SAMPLE);
    assert_eq!(reply.header("x-request-id"), Some("order-4711"));
    assert_ne!(reply.header("x-trace-id"), Some("order-4711"));
    let reply = ask_with(&sandbox, &[("X-Request-Id", "with a blank")], SAMPLE);
    assert_eq!(reply.header("x-request-id"), None);
}

#[test]
fn members_nobody_knows_are_ignored() {
    let sandbox = Sandbox::start();
    let body = SAMPLE.replace(
        "{\"name\"",
        r#"{"callback_url":"http://127.0.0.1:1/","async":true,"mobile":[{"deep":[[]]}],"encryption":[{"algorithm":"","iv":"","encrypt_list":[],"ciphertext_blob":0}],"name""#,
    );
    assert_eq!(ask(&sandbox, &body).text(), r#"{"result":"0","description":"Authentication passed"}"#);
}
