//! Every screen an operator sees, word for word. What changes from run to run is replaced by a word
//! in angle brackets; screens are files under `screens/`.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::acedata::NOT_ZHANG_WEI;
use super::cli::assert_screen;
use super::support::Sandbox;

const CARD: &str = "6217000000000101017";

/// A folder to work in, as an operator's shell does: names in screens are short.
struct Desk(TempDir);

impl Desk {
    fn with_bank() -> (Desk, String) {
        let desk = Desk(tempfile::tempdir().unwrap());
        let made = desk.said(&["init", "bank"]);
        let config = desk.0.path().join("bank/card4e.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text =
            text.replace("127.0.0.1:4400", "127.0.0.1:0").replace("test_land = false", "test_land = true");
        std::fs::write(&config, text).unwrap();
        (desk, made)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut card4e = Command::new(env!("CARGO_BIN_EXE_card4e"));
        card4e.args(arguments).current_dir(self.0.path()).env("CARD4E_CONFIG", "bank/card4e.toml");
        card4e.output().unwrap()
    }

    /// What a command that succeeds prints.
    fn said(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a command that fails prints, then what it says of it.
    fn failed(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(!done.status.success(), "{arguments:?}");
        String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn serve(&self) -> Sandbox {
        Sandbox::serving(&self.0.path().join("bank/card4e.toml"))
    }
}

/// Puts words in place of what changes from run to run.
pub fn steady(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(steady_line).collect();
    lines.push(String::new());
    lines.join("\n")
}

/// A word of the same width, so that columns still show whether they are aligned.
fn steady_line(line: &str) -> String {
    let mut out = String::new();
    let is_word = |sign: char| sign.is_ascii_alphanumeric() || "-:.…".contains(sign);
    for part in line.split_inclusive(|sign| !is_word(sign)) {
        let word = part.trim_end_matches(|sign| !is_word(sign));
        let word = word.trim_end_matches('.');
        out += &replaced(word);
        out += &part[word.len()..];
    }
    out
}

fn replaced(word: &str) -> String {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let filled =
        |name: &str| format!("<{name}{}>", "_".repeat(word.chars().count().saturating_sub(name.len() + 2)));
    let bytes = word.as_bytes();
    match bytes.len() {
        20.. if word.starts_with("platform-v1-") => filled("token"),
        36 if word.starts_with("AKID") => filled("secret-id"),
        36 if bytes[8] == b'-' && bytes[13] == b'-' => filled("request-id"),
        20 if bytes[10] == b'T' && bytes[19] == b'Z' => filled("time"),
        10 if bytes[4] == b'-' && word.starts_with("20") => filled("day"),
        64 if hex(word) => filled("hash"),
        32 if hex(word) => filled("token"),
        32 if word.bytes().all(|byte| byte.is_ascii_alphanumeric()) => filled("secret"),
        _ if word.starts_with('…') => filled("end"),
        _ => word.to_owned(),
    }
}

/// Replaces the number before each of these units.
fn without_numbers_of(text: &str, units: &[&str]) -> String {
    let mut text = text.to_owned();
    for unit in units {
        let mut from = 0;
        while let Some(at) = text[from..].find(unit).map(|at| at + from) {
            let begin = text[..at].rfind(|sign: char| !sign.is_ascii_digit() && !".,".contains(sign));
            let begin = begin.map_or(0, |begin| begin + 1);
            text.replace_range(begin..at, "<n>");
            from = begin + 3 + unit.len();
        }
    }
    text
}

#[test]
fn an_operators_day() {
    let (desk, made) = Desk::with_bank();
    assert_screen("init.txt", &steady(&made));
    assert_screen("init-again.txt", &desk.failed(&["init", "bank"]));

    desk.file(
        "accounts.csv",
        &format!(
            "bank_card,name,id_type,id_number,phone,status\n{CARD},李雷,,990101199001010019,16100000101,\n12,韩梅,,1,,\n"
        ),
    );
    let imported = desk.said(&["import", "accounts", "accounts.csv"]);
    assert_screen("import.txt", &without_numbers_of(&imported, &[" s (", " rows/s"]));
    let rejected = std::fs::read_to_string(desk.0.path().join("accounts.csv.rejected.csv")).unwrap();
    assert_screen("import-rejected.csv", &rejected);
    desk.file("nothing.csv", "bank_card,name,id_type,id_number,phone,status\n1,,,,,\n");
    let nothing = desk.failed(&["import", "accounts", "nothing.csv"]);
    assert_screen("import-nothing.txt", &without_numbers_of(&nothing, &[" s (", " rows/s"]));
    assert_screen("accounts-get.txt", &desk.said(&["accounts", "get", CARD]));
    assert_screen("accounts-get-none.txt", &desk.failed(&["accounts", "get", "6217000000000000012"]));
    assert_screen(
        "accounts-check.txt",
        &steady(&without_numbers_of(&desk.said(&["accounts", "check"]), &["  bytes"])),
    );
    assert_screen("synth.txt", &desk.said(&["synth", "--accounts", "3"]));

    assert_screen("caller-create.txt", &desk.said(&["caller", "create", "shop"]));
    desk.said(&["caller", "create", "商店二", "--unlimited"]);
    assert_screen("caller-create-twice.txt", &desk.failed(&["caller", "create", "shop"]));
    assert_screen("caller-list.txt", &desk.said(&["caller", "list"]));
    assert_screen("caller-recharge.txt", &desk.said(&["caller", "recharge", "shop", "2.5"]));
    assert_screen("caller-suspend.txt", &desk.said(&["caller", "suspend", "商店二"]));
    assert_screen("caller-resume.txt", &desk.said(&["caller", "resume", "商店二"]));

    let bearer = desk.said(&["credential", "create", "shop", "--kind", "acedata", "--expires", "90d"]);
    assert_screen("credential-create-acedata.txt", &steady(&bearer));
    let signing = ["credential", "create", "商店二", "--kind", "tencent", "--signed-payload-only"];
    let signing = desk.said(&[&signing[..], &["--address", "10.0.0.0/8"]].concat());
    assert_screen("credential-create-tencent.txt", &steady(&signing));
    assert_screen("credential-rotate.txt", &steady(&desk.said(&["credential", "rotate", "3"])));
    assert_screen("credential-rotate-twice.txt", &desk.failed(&["credential", "rotate", "3"]));
    assert_screen("credential-list.txt", &steady(&desk.said(&["credential", "list"])));
    assert_screen("credential-revoke.txt", &desk.said(&["credential", "revoke", "3"]));

    let server = desk.serve();
    let token = bearer.lines().find_map(|line| line.strip_prefix("token       ")).unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let ask = |body: &str| {
        let reply = server.request("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let li = r#"{"name":"李雷","bank_card":"6217000000000101017","phone":"16100000101","id_card":"990101199001010019"}"#;
    ask(li);
    ask(&li.replace("李雷", "韩梅"));
    ask(NOT_ZHANG_WEI);
    assert_screen("doctor-serving.txt", &doctor(&desk.said(&["doctor"])));
    server.stop();

    assert_screen("ledger-summary.txt", &steady(&desk.said(&["ledger", "summary"])));
    assert_screen("ledger-summary-nothing.txt", &desk.said(&["ledger", "summary", "--until", "2020-01-01"]));
    assert_screen("ledger-days.txt", &steady(&desk.said(&["ledger", "days"])));
    assert_screen(
        "ledger-list.txt",
        &steady(&desk.said(&["ledger", "list", "--caller", "shop", "--since", "1h"])),
    );
    assert_screen("ledger-list-no-caller.txt", &desk.failed(&["ledger", "list", "--caller", "shup"]));
    assert_screen("ledger-list-no-outcome.txt", &desk.failed(&["ledger", "list", "--outcome", "PAST"]));
    assert_screen("ledger-export.txt", &desk.said(&["ledger", "export", "--csv", "all.csv"]));
    assert_screen("ledger-export-twice.txt", &desk.failed(&["ledger", "export", "--csv", "all.csv"]));
    // How many seconds it all took is how many checkpoints there are.
    let audit = desk.said(&["audit", "check"]).replace("checkpoints", "checkpoint");
    assert_screen("audit-check.txt", &steady(&without_numbers_of(&audit, &[" signed"])));
    assert_screen("doctor.txt", &doctor(&desk.said(&["doctor"])));

    let sizes = [" KiB", " MiB"];
    let done = desk.said(&["backup", "backup-1"]);
    assert_screen("backup.txt", &steady(&without_numbers_of(&done, &sizes)));
    assert_screen("backup-twice.txt", &desk.failed(&["backup", "backup-1"]));
    assert_screen("restore-full.txt", &desk.failed(&["restore", "backup-1"]));
    std::fs::rename(desk.0.path().join("bank/data"), desk.0.path().join("bank/data.old")).unwrap();
    assert_screen("doctor-no-data.txt", &doctor(&desk.failed(&["doctor"])));
    assert_screen("restore-no-backup.txt", &desk.failed(&["restore", "bank"]));
    let done = desk.said(&["restore", "backup-1"]);
    assert_screen("restore.txt", &steady(&without_numbers_of(&done, &sizes)));
}

/// Free space and speed are the machine's own.
fn doctor(text: &str) -> String {
    let steady = steady(&without_numbers_of(text, &[" ms", " GiB", " TiB", " MiB"]));
    let lines = steady.lines().filter(|line| !line.contains("make room"));
    let own = |line: &str| match line.split_once("disk ") {
        Some((_, rest)) => {
            format!("<state>  disk {}\n", rest.replace(" TiB", " GiB").replace(" MiB", " GiB"))
        }
        None => format!("{line}\n"),
    };
    lines.map(own).collect()
}

#[test]
fn the_greeting_of_a_server() {
    let (desk, _) = Desk::with_bank();
    let ready = desk.0.path().join("ready");
    let mut server = Command::new(env!("CARGO_BIN_EXE_card4e"));
    let mut server = server
        .args(["serve", "--config", "bank/card4e.toml", "--cores", "1", "--ready-file", "ready"])
        .current_dir(desk.0.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(server.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let address = std::fs::read_to_string(&ready).unwrap();
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    let greeting = String::from_utf8(server.wait_with_output().unwrap().stdout).unwrap();
    assert_screen("serve.txt", &greeting.replace(address.trim(), "127.0.0.1:4400"));
}

/// Every command's help in the order it is listed, found by walking from the first.
pub fn helps() -> Vec<(Vec<String>, String)> {
    let mut commands = vec![Vec::<String>::new()];
    let mut helps = Vec::new();
    while let Some(command) = commands.pop() {
        let mut card4e = Command::new(env!("CARGO_BIN_EXE_card4e"));
        card4e.args(&command).arg("--help").env_remove("CARD4E_CONFIG");
        let text = String::from_utf8(card4e.output().unwrap().stdout).unwrap();
        let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        let names = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
        let mut below: Vec<_> = names.map(|name| [&command[..], &[name.to_owned()]].concat()).collect();
        below.reverse();
        commands.append(&mut below);
        helps.push((command, text));
    }
    helps
}

/// A new command has its screen or fails here.
#[test]
fn every_help() {
    let helps = helps();
    for (command, text) in &helps {
        let name = if command.is_empty() { "card4e".to_owned() } else { command.join("-") };
        assert_screen(&format!("help/{name}.txt"), text);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/screens/help");
    let kept = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(helps.len(), kept, "a screen of a command that is gone");
}

#[test]
fn man_pages_for_every_command() {
    let out = tempfile::tempdir().unwrap();
    let desk = Desk(tempfile::tempdir().unwrap());
    desk.said(&["man", "--out", out.path().to_str().unwrap()]);
    for page in ["card4e.1", "card4e-serve.1", "card4e-ledger-export.1", "card4e-backup.1"] {
        let text = std::fs::read_to_string(out.path().join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}
