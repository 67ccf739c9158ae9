//! `card4e ledger`: reports from the blocks, while a server writes them.

use serde_json::{Value, json};

use super::serve::{Installation, acedata, card4e, tencent};
use super::support::Sandbox;

const CARD: &str = "6217000000000000012";

fn lines(bank: &Installation, arguments: &[&str]) -> Vec<Value> {
    let config = ["--json", "--config", bank.config.to_str().unwrap()];
    let done = card4e(&[&["ledger"], arguments, &config].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn reports_while_a_server_answers() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    bank.run(&["caller", "create", "other"]);
    let other = bank.run(&["credential", "create", "other", "--kind", "acedata"]);
    let server = Sandbox::serving(&bank.config);
    for _ in 0..2 {
        acedata(&server, &shop.token, CARD);
    }
    tencent(&server, &shop.secret_id, &shop.secret_key, "1");
    acedata(&server, other["secret"].as_str().unwrap(), CARD);

    let summary = &lines(&bank, &["summary"])[0];
    assert_eq!(
        *summary,
        json!({
            "answers": 4, "charges": 3, "charged": "3", "first": summary["first"], "last": summary["last"],
            "outcomes": [
                { "outcome": "PAN_INVALID", "answers": 3, "charges": 3, "charged": "3" },
                { "outcome": "PAN_MALFORMED", "answers": 1, "charges": 0, "charged": "0" },
            ],
            "callers": [
                { "caller": "other", "answers": 1, "charges": 1, "charged": "1", "granted": "10" },
                { "caller": "shop", "answers": 3, "charges": 2, "charged": "2", "granted": "10" },
            ],
        })
    );
    let one = &lines(&bank, &["summary", "--caller", "shop", "--outcome", "PAN_INVALID"])[0];
    assert_eq!((&one["answers"], &one["callers"][0]["granted"]), (&2.into(), &"0".into()));
    let days = lines(&bank, &["days"]);
    assert_eq!(days.len(), 2);
    assert_eq!((&days[1]["caller"], &days[1]["answers"]), (&"shop".into(), &3.into()));

    let list = lines(&bank, &["list", "--caller", "shop"]);
    let shown =
        |entry: &Value| (entry["credential"].clone(), entry["wire"].clone(), entry["outcome"].clone());
    assert_eq!(
        list.iter().map(shown).collect::<Vec<_>>(),
        [
            (3.into(), "acedata".into(), "PAN_INVALID".into()),
            (3.into(), "acedata".into(), "PAN_INVALID".into()),
            (2.into(), "tencent".into(), "PAN_MALFORMED".into()),
        ]
    );
    // Bounds: from the second answer on, and before it.
    let at = list[1]["at_ms"].as_i64().unwrap();
    let since = list[1]["time"].as_str().unwrap();
    assert!(list.iter().all(|entry| entry["at_ms"].as_i64().unwrap() >= at / 1000 * 1000 - 1000));
    assert!(lines(&bank, &["list", "--since", since]).len() >= 3);
    assert_eq!(lines(&bank, &["list", "--until", "2020-01-01"]).len(), 0);
    assert_eq!(lines(&bank, &["list", "--since", "1h"]).len(), 4);
    assert_eq!(lines(&bank, &["list", "--since", "0s"]).len(), 0);
    let said = bank.refused(&["ledger", "list", "--since", "1h", "--until", "2h"]);
    assert!(said.contains("nothing can lie between"), "{said}");
    server.stop();
    assert_eq!(lines(&bank, &["list"]).len(), 4, "the same without a server");
}

#[test]
fn a_spreadsheet_takes_the_export_for_what_it_is() {
    let bank = Installation::new(&[]);
    let config = bank.config.to_str().unwrap();
    let named = |arguments: &[&str]| {
        let done = card4e(&[arguments, &["--json", "--config", config, "--", "-shop"]].concat());
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    named(&["caller", "create"]);
    let bearer = named(&["credential", "create", "--kind", "acedata"]);
    let server = Sandbox::serving(&bank.config);
    acedata(&server, bearer["secret"].as_str().unwrap(), CARD);
    let file = bank.config.with_file_name("all.csv");
    let export = ["ledger", "export", "--config", config, "--csv"];
    let printed = card4e(&export);
    let csv = String::from_utf8(printed.stdout).unwrap();
    let rows: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|row| row.split(',').collect()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[0].join(","),
        "time,request_id,caller,credential,wire,action,outcome,row,purpose,charged,balance,elapsed_us,answers"
    );
    assert_eq!(rows[1][2..10], ["'-shop", "2", "acedata", "bankcard-4e", "PAN_INVALID", "10", "", "1"]);
    assert!(card4e(&[&export[..], &[file.to_str().unwrap()]].concat()).status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), csv);
}
