//! The journal: every request of both wires, the newest first, with its elements masked.

use std::io::Write;
use std::net::TcpStream;

use super::*;

#[test]
fn an_entry_tells_what_became_of_a_request() {
    let sandbox = Sandbox::start();
    let reply = ask(&sandbox, NOT_ZHANG_WEI);
    let journal = sandbox.control("GET", "journal", "");
    assert_eq!(journal["count"], 1);
    let mut entry = journal["entries"][0].clone();
    assert!(entry["at"].as_str().unwrap().ends_with('Z'));
    entry["at"] = Value::Null;
    assert_eq!(
        entry,
        serde_json::json!({
            "number": 1,
            "at": null,
            "request_id": trace(&reply),
            "wire": "acedata",
            "action": "bankcard/check-4e",
            "application": "public",
            "elements": {
                "name": "张*",
                "card": "621700*********0012",
                "id": "9****************X",
                "mobile": "161****0001",
            },
            "outcome": "HOLDER_MISMATCH",
            "result": "-4",
            "error": null,
            "decision": "row=23 outcome=HOLDER_MISMATCH by=records differs=name",
            "hint": null,
            "charged": "1",
            "replayed": false,
            "status": 200,
            "effect": null,
        })
    );
}

#[test]
fn refusals_and_faults_are_in_it() {
    let sandbox = Sandbox::start();
    ask(&sandbox, "{}");
    sandbox.request("POST", "/identity/nothing", &[], b"");
    sandbox.fault(r#"{"count":1,"effect":{"drop":"after"}}"#);
    let _ = sandbox.try_send(&bytes_with(&sandbox, &[], ZHANG_WEI));
    let again = [("Idempotency-Key", "1")];
    ask_with(&sandbox, &again, ZHANG_WEI);
    ask_with(&sandbox, &again, ZHANG_WEI);
    let journal = sandbox.control("GET", "journal", "");
    let entries = journal["entries"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| [&entry["status"], &entry["error"], &entry["charged"], &entry["replayed"]])
        .map(|told| told.map(Value::to_string).join(" "))
        .collect();
    assert_eq!(
        told,
        [
            r#"400 "bad_request" "0" false"#,
            r#"404 "no_api" "0" false"#,
            r#"200 null "1" false"#,
            r#"200 null "1" false"#,
            r#"200 null "0" true"#,
        ]
    );
    assert_eq!(entries[2]["effect"], serde_json::json!({ "drop": "after" }));
}

#[test]
fn it_shows_no_element() {
    let sandbox = Sandbox::start();
    let malformed = r#"{"name":"诸葛孔明 6217000000000000012","bank_card":"99010119610202001X","phone":"张伟","id_card":"16100000001"}"#;
    for body in [ZHANG_WEI, NOT_ZHANG_WEI, SAMPLE, malformed] {
        ask(&sandbox, body);
        ask_tencent(&sandbox, now(), &[], body);
    }
    ask(&sandbox, "{\"bank_card\":6217000000000000012}");
    ask(&sandbox, "{\"bank_card\":\"6217000000000000012\",\"phone\":\"16100000001\"");
    let text = sandbox.get("/_sandbox/journal?limit=1000").text();
    assert_eq!(text.matches("\"number\"").count(), 10);
    for element in [
        "张伟",
        "张三",
        "韦小宝",
        "诸葛",
        "孔明",
        "6217000000000000012",
        "6225768888888888",
        "99010119610202001X",
        "11204416541220243X",
        "16100000001",
        "16137688175",
    ] {
        assert!(!text.contains(element), "{element} is in the journal");
    }
}

#[test]
fn an_entry_is_written_before_a_delay() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"count":1,"effect":{"delay_ms":60000}}"#);
    let mut patient = TcpStream::connect(&sandbox.address).unwrap();
    patient.write_all(&bytes_with(&sandbox, &[], ZHANG_WEI)).unwrap();
    let entry = soon("the entry", Duration::from_secs(5), || {
        sandbox.control("GET", "journal", "")["entries"].get(0).cloned()
    });
    assert_eq!((&entry["outcome"], &entry["effect"]["delay_ms"]), (&"PASS".into(), &60_000.into()));
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn it_is_bounded_and_counts_on() {
    let sandbox = Sandbox::start();
    let mut socket = TcpStream::connect(&sandbox.address).unwrap();
    let request = sandbox.bytes("POST", "/identity/nothing", &[], b"");
    for _ in 0..1005 {
        socket.write_all(&request).unwrap();
        assert_eq!(Reply::read(&mut socket).unwrap().status, 404);
    }
    let journal = sandbox.control("GET", "journal?limit=5000", "");
    assert_eq!(journal["count"], 1005);
    let entries = journal["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1000);
    assert_eq!((&entries[0]["number"], &entries[999]["number"]), (&1005.into(), &6.into()));
    assert_eq!(sandbox.control("GET", "journal", "")["entries"].as_array().unwrap().len(), 100);
    assert_eq!(sandbox.control("GET", "journal?limit=3", "")["entries"].as_array().unwrap().len(), 3);
}

#[test]
fn it_can_be_emptied() {
    let sandbox = Sandbox::start();
    ask(&sandbox, ZHANG_WEI);
    let empty = serde_json::json!({ "count": 0, "entries": [] });
    assert_eq!(sandbox.control("DELETE", "journal", ""), empty);
    assert_eq!(sandbox.control("GET", "journal", ""), empty);
    assert_eq!(sandbox.charges(), 1, "nothing else is");
}
