//! Answers: an outcome with all that belongs to it, and a receipt that somebody else can check.

use std::process::Output;

use super::super::serve::fed;
use super::*;

#[test]
fn a_whole_answer() {
    let sandbox = Sandbox::configured("[attempts]\n");
    let reply = ask(&sandbox, &zhang_wei());
    assert_eq!(reply.status, 200);
    let mut told = reply.json();
    let taken = |told: &mut Value, member: &str| told[member].take().as_str().unwrap().to_owned();
    assert_eq!(taken(&mut told, "id"), reply.header("x-trace-id").unwrap());
    assert_eq!(taken(&mut told, "receipt").split('.').count(), 3);
    assert_eq!(taken(&mut told, "receipt_opening").len(), 32);
    assert!(taken(&mut told, "answered_at").ends_with('Z'));
    assert_eq!(
        told,
        json!({
            "id": null,
            "outcome": "PASS",
            "class": "pass",
            "name_match": { "class": "E0", "policy": "name-v1" },
            "policy": "decisions-v2",
            "action": "bankcard-4e",
            "attempts_left": 9,
            "purpose": "account_opening",
            "consent": "terms-7/4711",
            "charged": "1",
            "balance": null,
            "answered_at": null,
            "replayed": false,
            "reused": false,
            "receipt": null,
            "receipt_opening": null,
        })
    );
}

/// Every action can be asked here: the same members, of which each takes its own.
#[test]
fn every_action() {
    let sandbox = Sandbox::start();
    let asking = |action: &str, of: &[&str]| {
        let mut question = zhang_wei();
        for member in ["name", "bank_card", "phone", "id_card"] {
            if !of.contains(&member) {
                question.as_object_mut().unwrap().remove(member);
            }
        }
        question["action"] = json!(action);
        question
    };
    for (action, of) in [
        ("bankcard-4e", &["name", "bank_card", "phone", "id_card"][..]),
        ("bankcard-3e", &["name", "bank_card", "id_card"]),
        ("bankcard-2e", &["name", "bank_card"]),
        ("bankcard-1e", &["bank_card"]),
        ("idcard-2e", &["name", "id_card"]),
        ("phone-3e", &["name", "phone", "id_card"]),
        ("phone-2e", &["name", "phone"]),
    ] {
        let charges = sandbox.charges();
        let reply = ask(&sandbox, &asking(action, of));
        let told = reply.json();
        assert_eq!(
            (reply.status, told["action"].clone(), told["outcome"].clone(), told["charged"].clone()),
            (200, json!(action), json!("PASS"), json!("1")),
            "{told}"
        );
        assert_eq!(sandbox.charges(), charges + 1, "{action}");
        assert_eq!(told.get("bank").is_some(), action == "bankcard-1e", "{told}");
        let claims = told["receipt"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
        assert!(!claims.is_empty() && told["receipt_opening"].as_str().unwrap().len() == 32);
        for missing in of {
            let fewer: Vec<_> = of.iter().copied().filter(|member| member != missing).collect();
            let refused = ask(&sandbox, &asking(action, &fewer));
            assert_eq!((refused.status, refused.json()["code"].clone()), (400, json!("invalid")));
            assert!(refused.text().contains(missing), "{action}: {}", refused.text());
        }
        if of.contains(&"name") {
            let mut other = asking(action, of);
            other["name"] = json!("张三");
            assert_ne!(ask(&sandbox, &other).json()["class"], "pass", "{action}");
        }
        assert_eq!(sandbox.charges(), charges + if of.contains(&"name") { 2 } else { 1 }, "{action}");
    }
    let unknown = ask(&sandbox, &asking("bankcard-5e", &["bank_card"]));
    assert!(unknown.status == 400 && unknown.text().contains("no such action"), "{}", unknown.text());
}

#[test]
fn numbers_are_taken_as_people_write_them() {
    let sandbox = Sandbox::start();
    let mut question = zhang_wei();
    question["phone"] = json!("+86 161-0000-0001");
    question["name"] = json!(" 张 伟 ");
    assert_eq!(ask(&sandbox, &question).json()["outcome"], "PASS");
}

#[test]
fn reasons_are_an_entitlement_of_their_own() {
    let sandbox = Sandbox::start();
    let differs = |member: &str, value: &str| {
        let mut question = zhang_wei();
        question[member] = json!(value);
        (ask(&sandbox, &question).json(), ask_with(&sandbox, &token(REASONS), &[], &question).json())
    };
    for (member, value, reason) in [
        ("name", "张三", "name_differs"),
        ("phone", "16100000002", "phone_differs"),
        ("id_card", "990101199001010019", "id_differs"),
        ("bank_card", "6217000000000009990", "account_absent"),
    ] {
        let (not_entitled, entitled) = differs(member, value);
        assert_eq!(not_entitled.get("reasons"), None);
        assert_eq!(entitled["reasons"], json!([reason]), "{member}");
        assert_eq!(entitled["outcome"], not_entitled["outcome"]);
    }
    let passed = ask_with(&sandbox, &token(REASONS), &[], &zhang_wei()).json();
    assert_eq!(passed["reasons"], json!([]));
}

#[test]
fn privacy_order_gives_no_reasons() {
    let sandbox = Sandbox::configured("[policy]\nprivacy_order = true\n");
    let mut question = zhang_wei();
    question["bank_card"] = json!("6217000000000009990");
    let told = ask_with(&sandbox, &token(REASONS), &[], &question).json();
    assert_eq!((&told["outcome"], &told["reasons"]), (&json!("HOLDER_MISMATCH"), &json!([])));
}

#[test]
fn attempts_run_out() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 5\n");
    let mut question = zhang_wei();
    question["name"] = json!("张三");
    let left = || ask(&sandbox, &question).json()["attempts_left"].clone();
    assert_eq!([left(), left(), left(), left()], [json!(4), json!(3), json!(0), json!(0)], "the third locks");
}

#[test]
fn a_repeated_question_is_answered_and_receipted_as_before() {
    let sandbox = Sandbox::start();
    let key = [("Idempotency-Key", "order-4711")];
    let first = ask_with(&sandbox, TOKEN, &key, &zhang_wei()).json();
    let again = ask_with(&sandbox, TOKEN, &key, &zhang_wei()).json();
    assert_eq!((&again["replayed"], &again["charged"]), (&json!(true), &json!("0")));
    for member in ["id", "receipt", "receipt_opening", "outcome", "answered_at"] {
        assert_eq!(first[member], again[member], "{member}");
    }
    assert_eq!(sandbox.charges(), 1);
    let mut other_consent = zhang_wei();
    other_consent["consent"] = json!("terms-8");
    assert_eq!(ask_with(&sandbox, TOKEN, &key, &other_consent).status, 400, "is another question");
}

#[test]
fn magic_cards_and_ordered_outcomes() {
    let sandbox = Sandbox::start();
    let mut question = zhang_wei();
    question["bank_card"] = json!("6200000000130000");
    assert_eq!(ask(&sandbox, &question).json()["outcome"], "CARD_LOST");
    let ordered = ask_with(&sandbox, TOKEN, &[("X-Sandbox-Outcome", "CARD_EXPIRED")], &zhang_wei());
    assert_eq!(ordered.json()["outcome"], "CARD_EXPIRED");
    assert_eq!(ordered.header("x-sandbox-decision"), Some("row=0 outcome=CARD_EXPIRED by=header"));
}

fn check(arguments: &[&str], input: &str) -> Output {
    fed(&[&["receipt", "check"], arguments].concat(), input)
}

/// With the public key and nothing else; the sandbox is gone by then.
#[test]
fn a_receipt_is_checked_by_who_has_the_public_key_alone() {
    let sandbox = Sandbox::start();
    let answer = ask(&sandbox, &zhang_wei()).text();
    let folder = tempfile::tempdir().unwrap();
    let keep = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = keep("keys.json", &sandbox.get("/api/v1/receipt-keys").text());
    let other_keys = keep("other.json", &Sandbox::start().get("/api/v1/receipt-keys").text());
    sandbox.stop();

    let checked = check(&["--key", &keys, "--json", "-"], &answer);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(
        (&told["says"]["outcome"], &told["says"]["purpose"]),
        (&json!("PASS"), &json!("account_opening"))
    );
    assert!(!checked.stdout.windows(6).any(|w| w == "621700".as_bytes()), "it names no element");

    let file = keep("answer.json", &answer);
    let elements = r#"{"name":"张伟","bank_card":"6217000000000000012","phone":"16100000001","id_card":"99010119610202001X"}"#;
    assert!(check(&["--key", &keys, "--elements", "-", &file], elements).status.success());
    let others = elements.replace("张伟", "张三");
    let said = String::from_utf8(check(&["--key", &keys, "--elements", "-", &file], &others).stderr).unwrap();
    assert!(said.contains("not about these elements"), "{said}");

    let receipt = serde_json::from_str::<Value>(&answer).unwrap()["receipt"].as_str().unwrap().to_owned();
    assert!(check(&["--key", &keys, "-"], &receipt).status.success(), "the receipt alone");
    for (arguments, input) in
        [(["--key", &keys, "-"], receipt.replacen('A', "B", 1)), (["--key", &other_keys, "-"], receipt)]
    {
        let wrong = check(&arguments, &input);
        assert_eq!(wrong.status.code(), Some(1));
    }
}
