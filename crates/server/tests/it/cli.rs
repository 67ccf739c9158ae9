//! The command line: screens word for word, exit codes, and sentences that help.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::acedata::{self, NOT_ZHANG_WEI, SAMPLE, ZHANG_WEI, ask, trace};
use super::support::Sandbox;

fn card4e(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_card4e")).args(arguments).output().unwrap()
}

/// What a command that must succeed prints.
fn printed(arguments: &[&str]) -> String {
    let output = card4e(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    assert_eq!(said, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail says.
fn refused(arguments: &[&str]) -> String {
    let output = card4e(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Holds a text against a file under `screens/`.
pub fn assert_screen(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/screens").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "screens/{name} is not what is printed; if that is meant, run with UPDATE_GOLDEN=1.\n\
         --- printed:\n{text}\n--- expected:\n{expected}"
    );
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("card4e") && script.contains("sandbox"), "{shell}");
    }
}

#[test]
fn a_command_nobody_knows() {
    let output = card4e(&["sanbox"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("sanbox") && said.contains("'sandbox'"), "{said}");
}

/// A folder a sandbox has worked in, with what it answered: three questions, two of them charged.
fn used_folder() -> (TempDir, Vec<String>) {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let malformed = ZHANG_WEI.replace("16100000001", "911");
    let traces = [ZHANG_WEI, NOT_ZHANG_WEI, &malformed].map(|body| trace(&ask(&sandbox, body))).to_vec();
    sandbox.stop();
    (data, traces)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn audit_check_of_a_folder_that_holds() {
    let (data, _) = used_folder();
    let check = ["audit", "check", "--data", text(data.path())];
    let said = printed(&check);
    let (said, root) = said.trim_end().rsplit_once("root ").unwrap();
    assert!(root.len() == 64 && root.bytes().all(|byte| byte.is_ascii_hexdigit()), "{root}");
    // Beside the three answers there is the trial's grant. How many questions share a block is a
    // matter of time, so asked one after the other each has its own.
    assert_eq!(
        said,
        "The audit holds.

  4 entries in 4 blocks, 0 with their side row erased
  3 answers, 2 of them charged 2 credits in all
  1 signed checkpoint
  "
    );
    let json: Value = serde_json::from_str(&printed(&[&check[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "blocks": 4,
            "entries": 4,
            "answers": 3,
            "charges": 2,
            "charged": "2",
            "erased": 0,
            "erasures_account_for": 0,
            "checkpoints": 1,
            "trees": 1,
            "root": root,
        })
    );
}

#[test]
fn audit_check_after_a_crash_and_more_work() {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let sandbox = Sandbox::keeping(data.path(), "");
        ask(&sandbox, ZHANG_WEI);
        sandbox.kill();
        let said = printed(&["audit", "check", "--data", text(data.path())]);
        assert!(said.starts_with("The audit holds."), "{said}");
    }
    let said = printed(&["audit", "check", "--data", text(data.path())]);
    assert!(said.contains("2 answers, 2 of them charged 2 credits in all"), "{said}");
}

/// Flips a bit so many bytes after the beginning of these bytes, wherever they stand in the file.
fn tamper(file: &Path, bytes: &[u8], after: usize) {
    let mut text = std::fs::read(file).unwrap();
    let places: Vec<_> = (0..text.len() - after).filter(|at| text[*at..].starts_with(bytes)).collect();
    assert!(!places.is_empty(), "nothing to tamper with");
    places.iter().for_each(|at| text[at + after] ^= 1);
    std::fs::write(file, text).unwrap();
}

fn request_bytes(trace: &str) -> Vec<u8> {
    let digits: Vec<_> = trace.bytes().filter(|byte| *byte != b'-').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn audit_check_finds_a_single_bit() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let traces: Vec<_> = (0..900).map(|_| trace(&ask(&sandbox, SAMPLE))).collect();
    sandbox.stop();
    let check = ["audit", "check", "--data", text(data.path())];
    assert!(printed(&check).starts_with("The audit holds."));
    // The oldest are out of the write-ahead log by now. Behind the request id stand the time, the
    // application, the outcome and the charge.
    let (ledger, second) = (data.path().join("ledger.db"), request_bytes(&traces[1]));
    for after in [16, 18, 24, 28] {
        tamper(&ledger, &second, after);
        let said = refused(&check);
        assert!(said.starts_with("card4e: ledger.db is damaged: block 3"), "{after} bytes on: {said}");
        tamper(&ledger, &second, after);
    }
}

#[test]
fn audit_check_finds_keys_that_are_not_the_folders() {
    let (data, _) = used_folder();
    let (other, _) = used_folder();
    std::fs::copy(other.path().join("keys.json"), data.path().join("keys.json")).unwrap();
    let said = refused(&["audit", "check", "--data", text(data.path())]);
    assert!(said.starts_with("card4e: ledger.db is damaged"), "{said}");
}

#[test]
fn a_folder_that_is_none_is_left_as_it_is() {
    let (data, _) = used_folder();
    std::fs::remove_file(data.path().join("keys.json")).unwrap();
    let empty = tempfile::tempdir().unwrap();
    for command in [["audit", "check"], ["ledger", "list"]] {
        let said = refused(&[command[0], command[1], "--data", text(empty.path())]);
        assert!(said.contains("keys.json is missing"), "{said}");
        assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
        let said = refused(&[command[0], command[1], "--data", text(data.path())]);
        assert!(said.contains("keys.json"), "{said}");
        assert!(!data.path().join("keys.json").exists(), "no new keys for an old ledger");
    }
}

#[test]
fn ledger_list() {
    let (data, traces) = used_folder();
    let list = ["ledger", "list", "--data", text(data.path())];
    let said = printed(&list);
    let lines: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["time", "(UTC)", "request", "id", "caller", "credential", "wire", "action", "outcome", "credits"]
    );
    let listed: Vec<_> = lines[1..].iter().map(|line| [&line[1..2], &line[4..]].concat()).collect();
    assert_eq!(
        listed,
        [
            [traces[0].as_str(), "acedata", "bankcard-4e", "PASS", "1"],
            [traces[1].as_str(), "acedata", "bankcard-4e", "HOLDER_MISMATCH", "1"],
            [traces[2].as_str(), "acedata", "bankcard-4e", "PHONE_INVALID", "0"],
        ]
    );
    let json = printed(&[&list[..], &["--json"]].concat());
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        serde_json::json!({
            "request_id": traces[0],
            "time": first["time"],
            "at_ms": first["at_ms"],
            "caller": "public",
            "application": 1,
            "credential": 3,
            "wire": "acedata",
            "action": "bankcard-4e",
            "outcome": "PASS",
            "row": 25,
            "purpose": null,
            "charged": "1",
            "balance": null,
            "elapsed_us": first["elapsed_us"],
        })
    );
    assert_eq!(json.lines().count(), 3);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    (0..400).for_each(|_| drop(ask(&sandbox, SAMPLE)));
    sandbox.stop();
    let mut list = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["ledger", "list", "--json", "--data", text(data.path())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(list.stdout.take());
    let output = list.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn a_wrong_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("card4e.toml");
    for (settings, said) in [
        ("[polcy]\n", "polcy"),
        ("[policy]\nprice = 1\n", "price"),
        ("[policy]\nprice = \"a lot\"\n", "policy.price: `a lot` is not an amount"),
        ("[attempts]\nper_crad = 4\n", "per_crad"),
        ("[acedata]\nnumbering = \"2e\"\n", "upstream_4e"),
        ("[acedata]\ntoken_mismatched_status = 402\n", "acedata.token_mismatched_status is 400 or 401"),
        ("[tencent]\nlanguage = \"de\"\n", "tencent.language is `de`; use \"zh-CN\" or \"en-US\""),
        ("[policy]\nissuers_file = \"/nowhere/issuers.csv\"\n", "/nowhere/issuers.csv"),
        ("price", "line 1"),
    ] {
        std::fs::write(&config, settings).unwrap();
        let error = refused(&["sandbox", "--listen", "127.0.0.1:0", "--config", text(&config)]);
        assert!(error.starts_with("card4e: ") && error.contains(said), "{settings}: {error}");
    }
    let missing = refused(&["sandbox", "--listen", "127.0.0.1:0", "--config", "/nowhere/card4e.toml"]);
    assert!(missing.contains("cannot read /nowhere/card4e.toml"), "{missing}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    let said = refused(&["sandbox", "--listen", "127.0.0.1:0", "--data", text(data.path())]);
    assert_eq!(
        said,
        format!(
            "card4e: {} is in use by another card4e; stop that one first, or give this one a folder of its own\n",
            data.path().display()
        )
    );
    assert_eq!(acedata::result(&ask(&sandbox, ZHANG_WEI)), "0", "the first goes on");
}

#[test]
fn a_temporary_folder_is_gone_at_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    let ready = temporary.path().join("ready");
    let places = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["sandbox", "--listen", "127.0.0.1:0", "--cores", "1", "--ready-file", text(&ready)])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(sandbox.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(places().len(), 1);
    let address = std::fs::read_to_string(&ready).unwrap();
    assert!(Command::new("kill").args(["-TERM", &sandbox.id().to_string()]).status().unwrap().success());
    let output = sandbox.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(places(), Vec::<PathBuf>::new());
    let greeting = String::from_utf8(output.stdout).unwrap();
    assert_screen("greeting.txt", &greeting.replace(address.trim(), "127.0.0.1:4400"));
}
