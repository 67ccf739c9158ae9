//! `card4e doctor` finds what is wrong, and names what helps.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::serve::{Installation, card4e};
use super::support::Sandbox;

/// Every line about this, with whether the whole ended well.
fn doctor(bank: &Installation, what: &str) -> (bool, Vec<Value>) {
    let done = card4e(&["doctor", "--json", "--config", bank.config.to_str().unwrap()]);
    let text = String::from_utf8(done.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (done.status.success(), lines.filter(|line| line["what"] == what).collect())
}

/// It must say this of that, with a remedy unless all is well.
fn finds(bank: &Installation, what: &str, state: &str, found: &str) {
    let (is_well, lines) = doctor(bank, what);
    assert_eq!(is_well, state != "problem", "{lines:?}");
    let fits = |line: &&Value| line["state"] == state && line["found"].as_str().unwrap().contains(found);
    let line = lines.iter().find(fits).unwrap_or_else(|| panic!("{what}: {lines:?}"));
    assert_eq!(line["remedy"].is_null(), state == "ok", "{line}");
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn each_complaint() {
    let bank = Installation::new(&[]);
    let path = |name: &str| bank.config.with_file_name(name);
    finds(&bank, "settings", "warning", "test land");
    finds(&bank, "accounts", "warning", "there are none");
    finds(&bank, "ledger", "ok", "the checkpoint of");

    chmod(&path("root.key"), 0o644);
    finds(&bank, "root key", "problem", "everybody");
    chmod(&path("root.key"), 0o640);
    finds(&bank, "root key", "warning", "the group");
    chmod(&path("root.key"), 0o600);
    chmod(&path("data"), 0o755);
    finds(&bank, "data folder", "warning", "others can look into");
    chmod(&path("data"), 0o700);

    let key = std::fs::read(path("root.key")).unwrap();
    std::fs::write(path("root.key"), "11".repeat(32)).unwrap();
    finds(&bank, "keys", "problem", "another root key");
    std::fs::remove_file(path("root.key")).unwrap();
    finds(&bank, "root key", "problem", "cannot read the root key");
    std::fs::write(path("root.key"), key).unwrap();
    chmod(&path("root.key"), 0o600);

    std::fs::rename(path("data/keys.json"), path("keys.kept")).unwrap();
    finds(&bank, "keys", "problem", "is missing");
    std::fs::rename(path("keys.kept"), path("data/keys.json")).unwrap();
    std::fs::rename(path("data/accounts.db"), path("accounts.kept")).unwrap();
    finds(&bank, "accounts", "problem", "unable to open");
    std::fs::rename(path("accounts.kept"), path("data/accounts.db")).unwrap();

    let ledger = std::fs::File::options().write(true).open(path("data/ledger.db")).unwrap();
    let changed = ledger.metadata().unwrap().modified().unwrap();
    ledger.set_modified(changed + Duration::from_secs(86_400)).unwrap();
    finds(&bank, "clock", "problem", "but the ledger was written at");
    ledger.set_modified(changed).unwrap();
    finds(&bank, "clock", "ok", "20");

    let text = std::fs::read_to_string(&bank.config).unwrap();
    std::fs::write(&bank.config, text.replace("[tls]", "[tls]\ncertificate = \"no.pem\"\nkey = \"no.pem\""))
        .unwrap();
    finds(&bank, "certificate", "problem", "no.pem");
    std::fs::write(&bank.config, text.replace("127.0.0.1:0", "0.0.0.0:0")).unwrap();
    finds(&bank, "settings", "warning", "without TLS");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::write(&bank.config, text.replace("127.0.0.1:0", &address)).unwrap();
    finds(&bank, "server", "problem", "cannot be had");
    std::fs::write(&bank.config, text.replace("[policy]", "[policy]\nprize = 1")).unwrap();
    finds(&bank, "settings", "problem", "did you mean `price`?");
    std::fs::write(&bank.config, text).unwrap();

    let server = Sandbox::serving(&bank.config);
    finds(&bank, "server", "ok", "runs, 0 answers");
    server.stop();
    finds(&bank, "server", "ok", "none runs");
}

#[test]
fn a_checkpoint_that_does_not_hold() {
    let bank = Installation::new(&[]);
    bank.run(&["caller", "create", "shop"]);
    finds(&bank, "ledger", "ok", "holds");
    super::backup::change_newest_root(&bank);
    finds(&bank, "ledger", "problem", "does not hold");
}
