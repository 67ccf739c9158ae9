//! Accounts of an installation whose settings name a database: every command about them works there.

use std::path::Path;

use serde_json::json;

use super::postgres;
use super::serve::{Installation, fed};

const CSV: &str = "\
bank_card,name,id_type,id_number,phone,status
6217000000000101017,李雷,resident_id,990101199001010019,16100000101,normal
6217000000000102015,韩梅梅,resident_id,990101199001010027,16100000102,lost
6217000000000103013,张三,resident_id,990101199001010019,,closed
not a card,张三,resident_id,990101199001010019,,normal
";

#[test]
fn commands_change_and_read_them_there() {
    let Some(server) = postgres::shared() else { return };
    let store = format!("store = {:?}", server.url());
    let bank = Installation::new(&[("store = \"\"", &store)]);
    let file = bank.folder().join("accounts.csv");
    std::fs::write(&file, CSV).unwrap();
    let done = bank.run(&["import", "accounts", file.to_str().unwrap()]);
    assert_eq!(
        [&done["put"], &done["rejected"], &done["accounts"]],
        [3, 1, 3].map(|count| json!(count)).each_ref()
    );

    let get = |bank: &Installation, card: &str| bank.run(&["accounts", "get", card])["status"].clone();
    assert_eq!(get(&bank, "6217000000000102015"), "lost");
    bank.run(&["accounts", "put", "6217000000000101017", "--status", "expired"]);
    assert_eq!(get(&bank, "6217000000000101017"), "expired");
    assert_eq!(bank.run(&["accounts", "delete", "6217000000000103013"]), json!({ "deleted": true }));
    assert!(bank.refused(&["accounts", "get", "6217000000000103013"]).contains("no account of that card"));

    let census = bank.run(&["accounts", "check"]);
    assert_eq!((&census["accounts"], &census["file_bytes"]), (&json!(2), &json!(null)), "{census}");
    let doctor = super::serve::card4e(&["doctor", "--json", "--config", bank.config.to_str().unwrap()]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    let line = said.lines().find(|line| line.contains(r#""what":"accounts""#)).unwrap();
    assert!(line.contains("2 accounts"), "{line}");

    // The file of the data folder is a copy at most: it is never taken for the accounts themselves.
    let own = std::fs::read_to_string(&bank.config).unwrap().replace(&store, "store = \"\"");
    let config = bank.folder().join("own.toml");
    std::fs::write(&config, own).unwrap();
    let own = said_by(&config, "6217000000000101017");
    assert!(own.contains("is a copy of a database's accounts"), "{own}");
    let backup = bank.refused(&["backup", bank.folder().join("copy").to_str().unwrap()]);
    assert!(backup.contains("backed up with the database's own means"), "{backup}");
}

fn said_by(config: &Path, card: &str) -> String {
    let done = fed(&["accounts", "get", "-", "--config", config.to_str().unwrap()], card);
    String::from_utf8(done.stderr).unwrap()
}
