//! Evidence: written by an installation, checked by somebody who has the public key alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::serve::{Installation, acedata, card4e};
use super::support::Sandbox;

const CARD: &str = "6217000000000000012";

/// Somebody who was given a public key, and checks what else is given.
struct Auditor(TempDir);

impl Auditor {
    fn given(keys: &str) -> Auditor {
        let auditor = Auditor(tempfile::tempdir().unwrap());
        auditor.keeps("keys", keys);
        auditor
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keeps(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// What the files show, or what is wrong with them.
    fn checks(&self, files: &[&str]) -> Result<Value, String> {
        let done = Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(["audit", "verify", "--json", "--key", "keys"])
            .args(files)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        if done.status.success() { Ok(serde_json::from_slice(&done.stdout).unwrap()) } else { Err(said) }
    }

    fn refuses(&self, files: &[&str]) -> String {
        self.checks(files).expect_err("it does not hold")
    }
}

/// What a command of the installation prints.
fn printed(bank: &Installation, arguments: &[&str]) -> String {
    let done = card4e(&[arguments, &["--config", bank.config.to_str().unwrap()]].concat());
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn exported(bank: &Installation, period: &[&str], out: &Path) {
    printed(bank, &[&["audit", "export", "--out", out.to_str().unwrap()], period].concat());
}

/// An installation with a few answers, asked in two parts with a moment between them that is given.
fn two_months() -> (Installation, String) {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    for card in [CARD, "6217000000000101017", CARD] {
        acedata(&server, &shop.token, card);
    }
    // Times are written in whole seconds.
    std::thread::sleep(Duration::from_millis(2100));
    let moment = utc(super::support::now());
    for card in [CARD, "12"] {
        acedata(&server, &shop.token, card);
    }
    server.stop();
    (bank, moment)
}

fn utc(seconds: i64) -> String {
    let date = Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%FT%TZ"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[test]
fn two_periods_follow_one_another_without_a_gap() {
    let (bank, moment) = two_months();
    let auditor = Auditor::given(&printed(&bank, &["audit", "key"]));
    exported(&bank, &["--until", &moment], &auditor.path("october"));
    exported(&bank, &["--since", &moment], &auditor.path("november"));
    exported(&bank, &[], &auditor.path("all"));

    let october = auditor.checks(&["october"]).unwrap();
    let november = auditor.checks(&["november"]).unwrap();
    let all = auditor.checks(&["all"]).unwrap();
    assert_eq!((&october["answers"], &october["charged"]), (&3.into(), &"3".into()));
    assert_eq!((&november["answers"], &november["charged"]), (&2.into(), &"1".into()), "{november}");
    assert_eq!(november["first_leaf"], october["end_leaf"]);
    assert_eq!(all["entries"], json!(all["end_leaf"].as_u64().unwrap()));
    assert_eq!(
        (&all["root"], &all["answers"]),
        (&bank.run(&["audit", "check"])["root"], &5.into()),
        "the installation itself has the same tree"
    );
    let both = auditor.checks(&["october", "november"]).unwrap();
    assert_eq!(
        (&both["entries"], &both["answers"], &both["root"]),
        (&all["entries"], &5.into(), &all["root"])
    );
    let said = auditor.refuses(&["november", "october"]);
    assert!(said.contains("do not follow one another"), "{said}");

    let text = std::fs::read_to_string(auditor.path("all")).unwrap();
    for personal in ["张伟", CARD, "16100000001", "99010119610202001X", "*"] {
        assert!(!text.contains(personal), "{personal} is in the evidence");
    }
}

#[test]
fn no_digit_of_an_export_can_be_changed_and_no_line_left_out() {
    let (bank, moment) = two_months();
    let auditor = Auditor::given(&printed(&bank, &["audit", "key"]));
    exported(&bank, &["--since", &moment], &auditor.path("november"));
    let text = std::fs::read_to_string(auditor.path("november")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 4, "{text}");
    for at in 0..lines.len() {
        let others = [&lines[..at], &lines[at + 1..]].concat();
        auditor.keeps("shorter", &others.join("\n"));
        // Checkpoints in between are more than is needed: the last one signs all.
        let is_between = lines[at].contains(r#""is":"checkpoint""#);
        assert_eq!(auditor.checks(&["shorter"]).is_ok(), is_between, "without line {at}: {}", lines[at]);
        let twice = [&lines[..=at], &lines[at..]].concat();
        auditor.keeps("longer", &twice.join("\n"));
        assert_eq!(auditor.checks(&["longer"]).is_ok(), is_between, "twice line {at}: {}", lines[at]);
    }
    // What the period was called is for people; everything else is covered.
    let covered: Vec<usize> = text
        .bytes()
        .enumerate()
        .filter(|(at, byte)| {
            byte.is_ascii_digit() && !(*at < lines[0].len() && lines[0][..*at].ends_with_period())
        })
        .map(|(at, _)| at)
        .collect();
    for at in covered.iter().step_by(covered.len() / 120 + 1) {
        let mut changed = text.clone().into_bytes();
        changed[*at] = b'0' + (changed[*at] - b'0' + 1) % 10;
        auditor.keeps("changed", std::str::from_utf8(&changed).unwrap());
        let said = auditor.refuses(&["changed"]);
        assert!(said.contains("line") || said.contains("signed"), "{at}: {said}");
    }
}

trait EndsWithPeriod {
    /// Whether what follows is within `since` or `until`.
    fn ends_with_period(&self) -> bool;
}

impl EndsWithPeriod for str {
    fn ends_with_period(&self) -> bool {
        let open = |name: &str| {
            let value = self.rsplit_once(name).map(|(_, value)| value);
            value.is_some_and(|value| !value.contains(','))
        };
        open(r#""since":"#) || open(r#""until":"#)
    }
}

#[test]
fn one_answer_is_proven_and_another_is_not() {
    let (bank, _) = two_months();
    let auditor = Auditor::given(&printed(&bank, &["audit", "key"]));
    let config = ["--json", "--config", bank.config.to_str().unwrap()];
    let list = card4e(&[&["ledger", "list"], &config[..]].concat());
    let list = String::from_utf8(list.stdout).unwrap();
    let answers: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for answer in &answers {
        let id = answer["request_id"].as_str().unwrap();
        auditor.keeps("answer", &printed(&bank, &["audit", "prove", id]));
        let shown = auditor.checks(&["answer"]).unwrap();
        for member in ["request_id", "outcome", "charged", "balance", "credential", "time"] {
            assert_eq!(shown["entry"][member], answer[member], "{member}");
        }
    }
    // The answer of one with the proof of another.
    let proof = |at: usize| {
        let id = answers[at]["request_id"].as_str().unwrap();
        serde_json::from_str::<Value>(&printed(&bank, &["audit", "prove", id])).unwrap()
    };
    let (mut mixed, other) = (proof(0), proof(1));
    mixed["entry"] = other["entry"].clone();
    auditor.keeps("mixed", &mixed.to_string());
    assert!(auditor.refuses(&["mixed"]).contains("not in the signed tree"));
    let mut prettier = proof(0);
    prettier["entry"]["says"]["outcome"] = "PASS".into();
    auditor.keeps("prettier", &prettier.to_string());
    assert!(auditor.refuses(&["prettier"]).contains("says something else"));
    let said = bank.refused(&["audit", "prove", "74e742e8-f91d-49c3-9744-c20f3baca117"]);
    assert!(said.contains("no answer") && said.contains("card4e ledger list"), "{said}");
}

#[test]
fn a_tree_that_grew_begins_with_the_one_somebody_kept() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let auditor = Auditor::given(&printed(&bank, &["audit", "key"]));
    let server = Sandbox::serving(&bank.config);
    acedata(&server, &shop.token, CARD);
    server.stop();
    auditor.keeps("monday", &printed(&bank, &["audit", "checkpoint"]));
    let monday = auditor.checks(&["monday"]).unwrap();
    let server = Sandbox::serving(&bank.config);
    for _ in 0..5 {
        acedata(&server, &shop.token, CARD);
    }
    let since = auditor.path("monday");
    // While the server answers: the next checkpoint is at most a second away.
    let growth = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let text = printed(&bank, &["audit", "checkpoint", "--since", since.to_str().unwrap()]);
        auditor.keeps("growth", &text);
        auditor.checks(&["growth"]).ok().filter(|shown| shown["signed_size"] != monday["signed_size"])
    });
    assert!(growth.unwrap()["signed_size"].as_u64() >= Some(monday["signed_size"].as_u64().unwrap() + 5));
    server.stop();

    let stranger = Installation::new(&[]);
    let foreign = printed(&stranger, &["audit", "key"]);
    let suspicious = Auditor::given(&foreign);
    suspicious.keeps("growth", &std::fs::read_to_string(auditor.path("growth")).unwrap());
    assert!(suspicious.refuses(&["growth"]).contains("not a key you gave"));
    let said = stranger.refused(&["audit", "checkpoint"]);
    assert!(said.contains("nothing was signed yet"), "{said}");
    suspicious.keeps("keys", "no key");
    assert!(suspicious.refuses(&["growth"]).contains("64 hex digits"));
}

/// The files in `docs/audit-vectors`, for whoever writes a checker of their own. With `UPDATE_GOLDEN`
/// they are made again, by an installation that is gone afterwards.
#[test]
fn the_vectors_hold() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit-vectors");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        make_vectors(&vectors);
    }
    let file = |name: &str| std::fs::read_to_string(vectors.join(name)).unwrap();
    let auditor = Auditor::given(&file("keys"));
    let expected: Value = serde_json::from_str(&file("expected.json")).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        auditor.keeps(name, &file(name));
        match expected.as_str() {
            Some(wrong) => assert!(auditor.refuses(&[name]).contains(wrong), "{name}"),
            None => assert_eq!(auditor.checks(&[name]).as_ref(), Ok(expected), "{name}"),
        }
    }
    assert_eq!(std::fs::read_dir(vectors).unwrap().count(), expected.as_object().unwrap().len() + 2);
}

fn make_vectors(vectors: &Path) {
    let (bank, moment) = two_months();
    let auditor = Auditor::given(&printed(&bank, &["audit", "key"]));
    let out = auditor.path("export.jsonl");
    exported(&bank, &["--since", &moment], &out);
    let export = std::fs::read_to_string(out).unwrap();
    let entry: Value = serde_json::from_str(export.lines().nth(1).unwrap()).unwrap();
    let id = entry["says"]["request_id"].as_str().unwrap();
    let inclusion = printed(&bank, &["audit", "prove", id]);
    let checkpoint = printed(&bank, &["audit", "checkpoint"]);
    auditor.keeps("checkpoint.jsonl", &checkpoint);
    let server = Sandbox::serving(&bank.config);
    let bearer = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    acedata(&server, bearer["secret"].as_str().unwrap(), CARD);
    server.stop();
    let since = auditor.path("checkpoint.jsonl");
    let growth = printed(&bank, &["audit", "checkpoint", "--since", since.to_str().unwrap()]);

    std::fs::create_dir_all(vectors).unwrap();
    let changed = export.replacen(r#""charged":"1""#, r#""charged":"0""#, 1);
    let lines: Vec<&str> = export.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let forged = inclusion.replacen(r#""leaf":"#, r#""leaf":1"#, 1);
    let mut expected = serde_json::Map::new();
    for (name, text, wrong) in [
        ("export.jsonl", &export, None),
        ("inclusion.jsonl", &inclusion, None),
        ("checkpoint.jsonl", &checkpoint, None),
        ("growth.jsonl", &growth, None),
        ("changed.jsonl", &changed, Some("says something else than its bytes")),
        ("cut.jsonl", &cut, Some("it was cut")),
        ("forged.jsonl", &forged, Some("not in the signed tree")),
    ] {
        std::fs::write(vectors.join(name), text).unwrap();
        auditor.keeps(name, text);
        let shown = wrong.map_or_else(|| auditor.checks(&[name]).unwrap(), Value::from);
        expected.insert(name.into(), shown);
    }
    std::fs::write(vectors.join("keys"), std::fs::read_to_string(auditor.path("keys")).unwrap()).unwrap();
    let expected = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(vectors.join("expected.json"), expected + "\n").unwrap();
}
