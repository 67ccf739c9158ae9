//! Accounts of record in bulk: while a sandbox answers, after kills, with rows of every kind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::acedata::{self, ask};
use super::support::Sandbox;

const HEADER: &str = "bank_card,name,id_type,id_number,phone,status";
const LI: &str = "6217000000000101017,李雷,resident_id,990101199001010019,16100000101,normal";
const ASK_LI: &str = r#"{"name":"李雷","bank_card":"6217000000000101017","phone":"16100000101","id_card":"990101199001010019"}"#;

fn card4e(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused before it read anything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A data folder in which no sandbox works any more, and a place for files.
struct Place {
    data: TempDir,
    files: TempDir,
}

impl Place {
    fn new() -> Place {
        let data = tempfile::tempdir().unwrap();
        Sandbox::keeping(data.path(), "").stop();
        Place { data, files: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn synth(&self, accounts: u32, seed: u32) -> PathBuf {
        let out = self.files.path().join(format!("{accounts}-{seed}.csv"));
        let (accounts, seed) = (accounts.to_string(), seed.to_string());
        let made = card4e(&["synth", "--accounts", &accounts, "--seed", &seed, "--out", path(&out)], b"");
        assert!(made.status.success());
        out
    }

    fn import_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let all = [&["import", "accounts", "--json", "--data", path(self.data.path())], arguments].concat();
        card4e(&all, input)
    }

    fn import(&self, arguments: &[&str]) -> Value {
        let output = self.import_with(arguments, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn check(&self) -> Value {
        self.check_with(&[])
    }

    fn check_with(&self, arguments: &[&str]) -> Value {
        let all = [&["accounts", "check", "--json", "--data", path(self.data.path())], arguments].concat();
        let output = card4e(&all, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn accounts_are_answered_for_without_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    assert_eq!(acedata::result(&ask(&sandbox, ASK_LI)), "-7");
    let place = Place { data, files: tempfile::tempdir().unwrap() };
    let file = place.file("a.csv", format!("\u{feff}{HEADER}\r\n{LI}\r\n"));
    assert_eq!(place.import(&[path(&file)])["put"], 1);
    assert_eq!(acedata::result(&ask(&sandbox, ASK_LI)), "0");
    let gone = place.file("b.csv", format!("{HEADER},op\n6217000000000101017,,,,,,delete\n"));
    assert_eq!(place.import(&[path(&gone)])["deleted"], 1);
    assert_eq!(acedata::result(&ask(&sandbox, ASK_LI)), "-7");
}

#[test]
fn look_ups_are_timed_where_there_are_accounts() {
    let place = Place::new();
    let timed = ["--seconds", "1", "--look-ups", "100"];
    let Value::Object(rush) = place.check_with(&timed)["rush"].take() else { panic!("nothing was timed") };
    let us = |name: &str| rush[name].as_f64().unwrap();
    assert!(
        us("per_second") > 100.0 && us("longest_us") >= us("p99_us") && us("p99_us") >= us("p50_us"),
        "{rush:?}"
    );
    // For so few accounts no table is made.
    assert_eq!(rush["in_table"], 0.0);
    assert_eq!(place.check()["rush"], Value::Null, "nobody asked for it");
}

#[test]
fn rejected_rows_are_listed_without_their_values() {
    let place = Place::new();
    let text = format!(
        "{HEADER},op\n{LI},\n12,李雷,,990101199001010019,,,\n6217000000000101017,李2,,990101199001010019,,,\n\
         6217000000000101017,李雷,,990101199001010018,,,\n6217000000000101017,李雷,,990101199001010019,5,,\n\
         6217000000000101017,李雷,,990101199001010019,,stolen,\n6217000000000101017,李雷,,990101199001010019,,,drop\n1,2\n"
    );
    let file = place.file("a.csv", text);
    let summary = place.import(&[path(&file)]);
    assert_eq!((&summary["rows"], &summary["put"], &summary["rejected"]), (&8.into(), &1.into(), &7.into()));
    let rejected = std::fs::read_to_string(place.files.path().join("a.csv.rejected.csv")).unwrap();
    assert_eq!(
        rejected,
        "line,reason
3,\"bank_card: not 13 to 19 digits\"
4,\"name: not a name of 1 to 50 letters\"
5,\"id_number: not a number of that document: length, check digit, date or province\"
6,\"phone: not a mobile number\"
7,\"status: unknown; use one of normal, seized, fraud, lost, expired, restricted, pin_locked, inactive, cnp_disabled, abnormal, closed\"
8,\"op: unknown; use upsert or delete, or leave it empty\"
9,\"the row has 2 columns and the header 7; a value cannot contain a comma\"
"
    );
}

#[test]
fn a_file_of_no_use_ends_with_2_and_changes_nothing() {
    let place = Place::new();
    let before = place.check();
    let none = place.file("none.csv", format!("{HEADER}\n1,,,,,\n"));
    let wrong = place.file("wrong.csv", "card,name\n");
    for (arguments, said) in [
        (vec![path(&none)], "every row was rejected"),
        (vec![path(&none), "--replace"], "the accounts are as they were"),
        (vec![path(&wrong)], "the column `card` is not known"),
    ] {
        let output = place.import_with(&arguments, b"");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(place.check(), before);
}

#[test]
fn a_file_can_be_the_whole_truth() {
    let place = Place::new();
    place.import(&[path(&place.synth(3000, 1))]);
    let file = place.synth(2000, 2);
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("6217000000000101017,李雷,,1,,\n");
    std::fs::write(&file, text).unwrap();
    place.import(&[path(&place.file("li.csv", format!("{HEADER}\n{LI}\n")))]);
    let summary = place.import(&[path(&file), "--replace"]);
    assert_eq!((&summary["put"], &summary["rejected"]), (&2000.into(), &1.into()));
    assert_eq!(summary["accounts"], 2001, "a rejected row leaves its account as it was");
}

/// Killed several times on the way, at moments that follow from a seed.
#[test]
fn killed_and_resumed_it_comes_to_the_same() {
    let (whole, killed) = (Place::new(), Place::new());
    std::fs::copy(whole.data.path().join("keys.json"), killed.data.path().join("keys.json")).unwrap();
    let file = whole.synth(40_000, 5);
    for place in [&whole, &killed] {
        // The people a sandbox starts with are stored under keys that were just replaced.
        let first = place.file("first.csv", format!("{HEADER}\n{LI}\n"));
        place.import(&[path(&first), "--replace"]);
    }
    whole.import(&[path(&file)]);
    let arguments =
        ["import", "accounts", "--batch", "1000", "--data", path(killed.data.path()), path(&file)];
    let (mut kills, mut dice) = (0, 7_u64);
    for _ in 0..8 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(30 + (dice >> 33) % 120));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "it was never killed on the way");
    killed.import(&[path(&file)]);
    assert_eq!(killed.check()["digest"], whole.check()["digest"]);
}

#[test]
fn gzip_and_standard_input() {
    let place = Place::new();
    let file = std::fs::read(place.synth(500, 3)).unwrap();
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(&file).unwrap();
    let zip = zip.finish().unwrap();
    let named = place.file("a.csv.gz", &zip);
    assert_eq!(place.import(&[path(&named)])["put"], 500);
    let rejected = place.files.path().join("rejected.csv");
    for bytes in [&file, &zip] {
        let output = place.import_with(&["--rejected", path(&rejected), "-"], bytes);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn parquet() {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let place = Place::new();
    let names: Vec<_> = HEADER.split(',').collect();
    let columns: String = names.iter().map(|name| format!("REQUIRED BYTE_ARRAY {name} (UTF8);")).collect();
    let schema = parquet::schema::parser::parse_message_type(&format!("message m {{ {columns} }}")).unwrap();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(Vec::new(), schema.into(), Default::default())
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    for value in LI.split(',') {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    let file = place.file("a.parquet", writer.into_inner().unwrap());
    assert_eq!(place.import(&[path(&file)])["put"], 1);
    let get = card4e(
        &["accounts", "get", "-", "--json", "--data", path(place.data.path())],
        b"6217000000000101017\n",
    );
    assert_eq!(
        String::from_utf8(get.stdout).unwrap(),
        "{\"status\":\"normal\",\"id_type\":\"resident_id\",\"has_phone\":true}\n"
    );
}

#[test]
fn a_second_import_is_refused() {
    let place = Place::new();
    let lock = std::fs::File::create(place.data.path().join("accounts.lock")).unwrap();
    lock.try_lock().unwrap();
    let output = place.import_with(&[path(&place.synth(10, 1))], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("are being changed by another card4e"));
}

#[test]
fn a_lost_card_does_not_wait_for_a_file() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let place = ["--data", path(data.path())];
    let run = |arguments: &[&str], input: &str| card4e(&[arguments, &place].concat(), input.as_bytes());
    let json = r#"{"bank_card":"6217000000000101017","name":"李雷","id_number":"990101199001010019","phone":"16100000101"}"#;
    assert!(run(&["accounts", "put", "-"], json).status.success());
    assert_eq!(acedata::result(&ask(&sandbox, ASK_LI)), "0");
    let lost = run(&["accounts", "put", "-", "--status", "lost"], "6217000000000101017");
    assert_eq!(
        String::from_utf8(lost.stdout).unwrap(),
        "status            lost\nopened with       resident_id\nmobile on file    yes\n"
    );
    assert_ne!(acedata::result(&ask(&sandbox, ASK_LI)), "0");
    assert!(run(&["accounts", "delete", "-"], "6217000000000101017").status.success());
    let gone = run(&["accounts", "get", "-"], "6217000000000101017");
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(String::from_utf8(gone.stderr).unwrap(), "card4e: there is no account of that card\n");
}

#[test]
fn synth_follows_from_its_seed() {
    let synth = |seed| card4e(&["synth", "--accounts", "200", "--seed", seed], b"").stdout;
    assert_eq!(synth("7"), synth("7"));
    assert_ne!(synth("7"), synth("8"));
    assert!(!String::from_utf8(synth("7")).unwrap().contains("\n620000"));
}
