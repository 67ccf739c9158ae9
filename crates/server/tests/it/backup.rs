//! Backup and restore: made under load, checked, refused where anything is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use super::serve::{Installation, acedata, card4e};
use super::support::Sandbox;

const CARD: &str = "6217000000000000012";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn data(bank: &Installation) -> PathBuf {
    bank.config.with_file_name("data")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn restore(bank: &Installation, from: &Path) -> Output {
    card4e(&["restore", text(from), "--config", text(&bank.config)])
}

/// An installation with an unlimited caller that was answered once, its token, and a backup of it.
fn backed_up() -> (Installation, String, PathBuf) {
    let bank = Installation::new(&[]);
    let token = unlimited(&bank);
    let server = Sandbox::serving(&bank.config);
    acedata(&server, &token, CARD);
    let to = bank.config.with_file_name("backup");
    bank.run(&["backup", text(&to)]);
    server.stop();
    (bank, token, to)
}

fn unlimited(bank: &Installation) -> String {
    bank.run(&["caller", "create", "shop", "--unlimited"]);
    let bearer = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    bearer["secret"].as_str().unwrap().to_owned()
}

#[test]
fn made_while_a_server_answers_and_an_import_runs() {
    let bank = Installation::new(&[
        ("requests_per_second = 20", "requests_per_second = 0"),
        ("per_card = 10", "per_card = 0"),
        ("per_value = 500", "per_value = 0"),
    ]);
    let token = unlimited(&bank);
    let accounts = bank.config.with_file_name("accounts.csv");
    assert!(card4e(&["synth", "--accounts", "60000", "--out", text(&accounts)]).status.success());
    let server = Sandbox::serving(&bank.config);
    let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let to = bank.config.with_file_name("backup");
    let (before, manifest, after) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(acedata(&server, &token, CARD).json()["result"], "-7");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let import =
            ["import", "accounts", "--batch", "1000", text(&accounts), "--config", text(&bank.config)];
        let mut import =
            Command::new(env!("CARGO_BIN_EXE_card4e")).args(import).stdout(Stdio::null()).spawn().unwrap();
        while answered.load(Ordering::SeqCst) < 20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let before = answered.load(Ordering::SeqCst);
        let manifest = bank.run(&["backup", text(&to)]);
        // Answers that are on the way have not been counted yet.
        let after = answered.load(Ordering::SeqCst) + 2;
        over.store(true, Ordering::SeqCst);
        assert!(import.wait().unwrap().success());
        (before, manifest, after)
    });
    let answers = manifest["audit"]["answers"].as_u64().unwrap();
    assert!((before..=after).contains(&answers), "{before} <= {answers} <= {after}");
    assert!(!to.join("accounts.db-wal").exists() && !to.join("ledger.db-wal").exists(), "each is one file");
    server.stop();

    std::fs::rename(data(&bank), bank.config.with_file_name("data.old")).unwrap();
    let restored = restore(&bank, &to);
    assert!(restored.status.success(), "{}", said(&restored));
    let (audit, then) = (bank.run(&["audit", "check"]), &manifest["audit"]);
    for member in ["answers", "charges", "charged", "erased"] {
        assert_eq!(audit[member], then[member], "{member}");
    }
    assert_eq!(audit["entries"], then["entries"].as_u64().unwrap() + 1, "and that it was restored");
    assert_eq!(bank.run(&["accounts", "check"])["digest"], manifest["accounts_digest"]);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(acedata(&server, &token, CARD).json()["result"], "-7", "it goes on from there");
    // The import goes on where it was at the backup.
    let import = bank.run(&["import", "accounts", text(&accounts)]);
    assert_eq!((&import["rows"], &import["accounts"]), (&60_000.into(), &60_000.into()));
    server.stop();
    assert_eq!(bank.run(&["audit", "check"])["answers"], answers + 1);
}

#[test]
fn it_holds_nothing_that_opens_it() {
    let (bank, token, to) = backed_up();
    let root = std::fs::read_to_string(bank.config.with_file_name("root.key")).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&to)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["accounts.db", "keys.json", "ledger.db", "manifest.json", "manifest.sig", "platform.db"]
    );
    assert!(data(&bank).join("day.key").exists(), "there was one to leave out");
    for name in names {
        use std::os::unix::fs::PermissionsExt;
        let file = to.join(&name);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let bytes = std::fs::read(&file).unwrap();
        for secret in [root.trim(), &token, CARD, "16100000001"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
        }
    }
}

#[test]
fn a_changed_backup_is_not_restored() {
    let (bank, _, to) = backed_up();
    std::fs::remove_dir_all(data(&bank)).unwrap();
    let flip = |name: &str, at: usize| {
        let mut bytes = std::fs::read(to.join(name)).unwrap();
        let at = at.min(bytes.len() - 2);
        bytes[at] ^= 1;
        std::fs::write(to.join(name), bytes).unwrap();
    };
    for (name, at, why) in [
        ("accounts.db", 5000, "not the file that the manifest names"),
        ("ledger.db", usize::MAX, "not the file that the manifest names"),
        ("keys.json", 300, "not the file that the manifest names"),
        ("manifest.sig", 0, "changed after it was signed"),
    ] {
        flip(name, at);
        let refused = restore(&bank, &to);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).contains(why), "{name}: {}", said(&refused));
        assert!(!data(&bank).exists() && !bank.config.with_file_name("data.restore").exists(), "{name}");
        flip(name, at);
    }
    // A manifest that was made to fit has no signature.
    let manifest = std::fs::read_to_string(to.join("manifest.json")).unwrap();
    std::fs::write(to.join("manifest.json"), manifest.replace("\"credentials\": 2", "\"credentials\": 3"))
        .unwrap();
    assert!(said(&restore(&bank, &to)).contains("changed after it was signed"));
    std::fs::write(to.join("manifest.json"), manifest).unwrap();

    let root = bank.config.with_file_name("root.key");
    let right = std::fs::read(&root).unwrap();
    std::fs::write(&root, "00".repeat(32)).unwrap();
    assert!(said(&restore(&bank, &to)).contains("put back the one it had then"));
    std::fs::write(&root, right).unwrap();
    assert!(restore(&bank, &to).status.success(), "it was whole before and is again");
}

#[test]
fn nothing_is_overwritten() {
    let (bank, _, to) = backed_up();
    let refused = |output: &Output, why: &str| {
        assert_eq!(output.status.code(), Some(1));
        assert!(said(output).contains(why), "{}", said(output));
    };
    refused(&restore(&bank, &to), "is not empty");
    let server = Sandbox::serving(&bank.config);
    refused(&restore(&bank, &to), "a server works in");
    server.stop();
    let again = card4e(&["backup", text(&to), "--config", text(&bank.config)]);
    refused(&again, "is there already");
    std::fs::create_dir(bank.config.with_file_name("other.backup")).unwrap();
    let other = bank.config.with_file_name("other");
    refused(&card4e(&["backup", text(&other), "--config", text(&bank.config)]), "was interrupted");
}

/// Changes the newest root in the ledger, which a restore just put there as one file without a log.
pub fn change_newest_root(bank: &Installation) {
    let to = bank.config.with_file_name("whole");
    bank.run(&["backup", text(&to)]);
    std::fs::remove_dir_all(data(bank)).unwrap();
    assert!(restore(bank, &to).status.success());
    let root: Value = bank.run(&["audit", "check"])["root"].clone();
    let digit = |at: usize| u8::from_str_radix(&root.as_str().unwrap()[at * 2..at * 2 + 2], 16).unwrap();
    let root: Vec<u8> = (0..32).map(digit).collect();
    let ledger = data(bank).join("ledger.db");
    // Everything in it was folded into the file when the restore ended.
    std::fs::remove_file(data(bank).join("ledger.db-wal")).unwrap();
    let mut bytes = std::fs::read(&ledger).unwrap();
    let places: Vec<_> = (0..bytes.len() - 32).filter(|at| bytes[*at..].starts_with(&root)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 3] ^= 1);
    std::fs::write(&ledger, bytes).unwrap();
}

#[test]
fn a_damaged_ledger_gives_no_backup() {
    let (bank, ..) = backed_up();
    change_newest_root(&bank);
    let to = bank.config.with_file_name("second");
    let refused = card4e(&["backup", text(&to), "--config", text(&bank.config)]);
    assert!(said(&refused).contains("ledger.db is damaged"), "{}", said(&refused));
    assert!(!to.exists() && !bank.config.with_file_name("second.backup").exists());
}
