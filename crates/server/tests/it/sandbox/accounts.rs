//! People who exist here, and those a test adds.

use super::*;

const NEW: &str = r#"{"bank_card":"6217000000000099995","name":"许仙","id_number":"99010119610202001X","phone":"16100000099"}"#;
const ASKED: &str = r#"{"name":"许仙","bank_card":"6217000000000099995","phone":"16100000099","id_card":"99010119610202001X"}"#;

#[test]
fn about_forty_people_are_there_from_the_start() {
    let sandbox = Sandbox::start();
    let accounts = sandbox.control("GET", "accounts", "");
    let accounts = accounts["accounts"].as_array().unwrap();
    assert!((40..60).contains(&accounts.len()), "{}", accounts.len());
    assert_eq!(
        accounts[0],
        serde_json::json!({
            "bank_card": "6216261000000000018",
            "name": "胡印福",
            "id_type": "resident_id",
            "id_number": "341126197709218366",
            "phone": "13552535506",
            "status": "normal",
        })
    );
}

#[test]
fn an_account_can_be_added_and_counts_at_once() {
    let sandbox = Sandbox::start();
    assert_eq!(result(&ask(&sandbox, ASKED)), "-7");
    assert_eq!(sandbox.control("POST", "accounts", NEW), serde_json::json!({ "added": 1 }));
    assert_eq!(result(&ask(&sandbox, ASKED)), "0");
    assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &[], ASKED)), "0");
    let accounts = sandbox.control("GET", "accounts", "");
    assert_eq!(accounts["accounts"].as_array().unwrap().last().unwrap()["name"], "许仙");
}

#[test]
fn several_at_once_and_one_that_changes() {
    let sandbox = Sandbox::start();
    let lost = NEW.replace("{\"bank", "{\"status\":\"lost\",\"bank");
    let second = NEW.replace("6217000000000099995", "6217000000000099987");
    let added = sandbox.control("POST", "accounts", &format!(r#"{{"accounts":[{NEW},{second}]}}"#));
    assert_eq!(added["added"], 2);
    assert_eq!(result(&ask(&sandbox, ASKED)), "0");
    let count = sandbox.control("GET", "accounts", "")["accounts"].as_array().unwrap().len();
    sandbox.control("POST", "accounts", &lost);
    assert_eq!(result(&ask(&sandbox, ASKED)), "-11", "the same card, now lost");
    assert_eq!(sandbox.control("GET", "accounts", "")["accounts"].as_array().unwrap().len(), count);
}

#[test]
fn a_bad_account_names_its_column_and_nothing_is_added() {
    let sandbox = Sandbox::start();
    let count = || sandbox.control("GET", "accounts", "")["accounts"].as_array().unwrap().len();
    let before = count();
    for (from, to, column) in [
        ("6217000000000099995", "62170", "bank_card"),
        ("许仙", "X1", "name"),
        ("99010119610202001X", "990101196102020010", "id_number"),
        ("16100000099", "911", "phone"),
        ("{\"bank", "{\"status\":\"stolen\",\"bank", "status"),
        ("{\"bank", "{\"id_type\":\"driving_licence\",\"bank", "id_type"),
        ("\"name\"", "\"nmae\"", "nmae"),
        ("\"name\":\"许仙\",", "", "name"),
        ("\"16100000099\"", "16100000099", "string"),
    ] {
        let bad = NEW.replace(from, to);
        for (body, at) in [(bad.clone(), 1), (format!(r#"{{"accounts":[{NEW},{bad}]}}"#), 2)] {
            let (status, error) = refused(&sandbox, "POST", "accounts", &body);
            assert_eq!(status, 400, "{body}");
            assert!(error.contains(column) && error.contains(&format!("account {at}")), "{body}: {error}");
        }
    }
    assert_eq!(count(), before);
    assert_eq!(result(&ask(&sandbox, ASKED)), "-7");
    let (status, error) = refused(&sandbox, "POST", "accounts", "{");
    assert_eq!(status, 400);
    assert!(error.starts_with("the body is not right"), "{error}");
}

#[test]
fn accounts_are_kept_with_the_data() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    sandbox.control("POST", "accounts", NEW);
    sandbox.stop();
    let sandbox = Sandbox::keeping(data.path(), "");
    assert_eq!(result(&ask(&sandbox, ASKED)), "0");
}
