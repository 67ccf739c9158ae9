//! `/_sandbox/` and what it does to both wires: the sandbox in the hands of a test suite.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::acedata::{
    NOT_ZHANG_WEI, PATH, SAMPLE, TRIAL, ZHANG_WEI, ask, ask_as, ask_tencent, ask_with, bytes_with, refusal,
    result, tencent_result, trace,
};
use super::support::{Reply, Sandbox, now};

mod accounts;
mod clock;
mod faults;
mod journal;
mod page;
pub mod privacy;
mod protection;
mod reset;
mod script;

/// Waits until something is there; fails when it does not come in time.
fn soon<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < within, "{what} did not come within {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A control call that must be refused: its status and sentence.
fn refused(sandbox: &Sandbox, method: &str, what: &str, body: &str) -> (u16, String) {
    let reply = sandbox.request(method, &format!("/_sandbox/{what}"), &[], body.as_bytes());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    (reply.status, reply.json()["error"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned())
}

#[test]
fn an_unknown_path_lists_what_there_is() {
    let sandbox = Sandbox::start();
    for (method, what) in [("GET", "resets"), ("GET", "reset"), ("PUT", "faults"), ("GET", "")] {
        let (status, error) = refused(&sandbox, method, what, "");
        assert_eq!(status, 404, "{method} {what}");
        assert!(error.starts_with(&format!("there is no {method} /_sandbox")), "{error}");
        for known in
            ["reset", "clock", "faults", "journal", "accounts", "credentials", "cards", "ledger", "usage"]
        {
            assert!(error.contains(&format!("/_sandbox/{known}")), "{known} is not in: {error}");
        }
    }
}

#[test]
fn credentials_for_every_state_of_an_account() {
    let sandbox = Sandbox::start();
    let credentials = sandbox.control("GET", "credentials", "");
    let names: Vec<_> =
        credentials.as_array().unwrap().iter().map(|app| app["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "public",
            "trial",
            "not-activated",
            "arrears",
            "suspended",
            "unconfirmed",
            "rate-limited",
            "temporary",
            "signed-only",
            "expired",
            "encrypted-only",
            "reasons"
        ]
    );
    assert_eq!(
        credentials[0],
        serde_json::json!({
            "name": "public",
            "state": "everything works, no limits",
            "secret_id": "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
            "secret_key": "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
            "token": null,
            "bearer": "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e",
        })
    );
}

#[test]
fn cards_tell_what_they_answer_on_both_wires() {
    let sandbox = Sandbox::start();
    let cards = sandbox.control("GET", "cards", "");
    let cards = cards["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 22);
    assert_eq!(
        cards[13],
        serde_json::json!({
            "bank_card": "6200000000130000",
            "outcome": "CARD_LOST",
            "tencent": "-13",
            "acedata": "-11",
            "charged": true,
        })
    );
    for card in cards {
        let body = format!(r#"{{"name":"","bank_card":{},"phone":"","id_card":""}}"#, card["bank_card"]);
        assert_eq!(result(&ask(&sandbox, &body)), card["acedata"], "{card}");
        assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], &body)), card["tencent"], "{card}");
    }
}

#[test]
fn the_ledger_tells_sums_and_balances() {
    let sandbox = Sandbox::start();
    ask(&sandbox, ZHANG_WEI);
    ask_as(&sandbox, TRIAL, ZHANG_WEI);
    ask_as(&sandbox, TRIAL, &ZHANG_WEI.replace("16100000001", "no phone"));
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!((&ledger["records"], &ledger["charges"]), (&3.into(), &2.into()));
    assert_eq!(ledger["charged_credits"], "2");
    assert_eq!(ledger["balances"]["trial"], "9");
    assert_eq!(ledger["balances"]["arrears"], "0");
    assert_eq!(ledger["balances"]["public"], Value::Null, "unlimited");
}

#[test]
fn usage_follows_within_two_seconds() {
    let sandbox = Sandbox::start();
    let trial = trace(&ask_as(&sandbox, TRIAL, ZHANG_WEI));
    let public = trace(&ask(&sandbox, NOT_ZHANG_WEI));
    let within = Duration::from_secs(2);
    let usage = soon("both rows", within, || {
        let usage = sandbox.control("GET", "usage", "");
        (usage["rows"].as_array().unwrap().len() == 2).then_some(usage)
    });
    let (newest, oldest) = (&usage["rows"][0], &usage["rows"][1]);
    assert_eq!((&newest["request_id"], &newest["outcome"]), (&public.into(), &"HOLDER_MISMATCH".into()));
    assert_eq!((&oldest["request_id"], &oldest["outcome"]), (&trial.clone().into(), &"PASS".into()));
    assert_eq!((&oldest["charged"], &oldest["balance"]), (&"1".into(), &"9".into()));
    assert_eq!((&oldest["wire"], &oldest["row"]), (&"acedata".into(), &25.into()));
    assert_eq!(
        oldest["masks"],
        serde_json::json!({
            "name": "张*",
            "card": "621700*********0012",
            "id": "9****************X",
            "mobile": "161****0001",
        })
    );
    let own = sandbox.control("GET", "usage?application=2&limit=5", "");
    assert_eq!(own["rows"].as_array().unwrap().len(), 1);
    assert_eq!(own["rows"][0]["request_id"], trial);
    assert_eq!(sandbox.control("GET", "usage?limit=1", "")["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn masks_can_be_switched_off() {
    let sandbox = Sandbox::configured("[policy]\nmasks = false\n");
    ask(&sandbox, ZHANG_WEI);
    let row = soon("the row", Duration::from_secs(2), || {
        sandbox.control("GET", "usage", "")["rows"].get(0).cloned()
    });
    assert_eq!(row["masks"], Value::Null);
}
