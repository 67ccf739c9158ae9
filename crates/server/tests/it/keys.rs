//! Keys at rest: replaced under load, across kills, without anybody noticing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::serve::{Installation, Shop, card4e, fed, tencent};
use super::support::{Reply, Sandbox};

/// A person of an import file.
#[derive(Clone)]
pub struct Person {
    pub card: String,
    pub name: String,
    pub id: String,
    pub phone: String,
}

impl Person {
    /// All people of a file that are in good standing and have a mobile and a resident identity card.
    pub fn read(csv: &Path) -> Vec<Person> {
        let text = std::fs::read_to_string(csv).unwrap();
        let people = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        let plain = people.filter(|c| matches!(c[2], "" | "resident_id") && matches!(c[5], "" | "normal"));
        plain
            .filter(|columns| !columns[4].is_empty() && columns[3].len() == 18)
            .map(|c| Person { card: c[0].into(), name: c[1].into(), id: c[3].into(), phone: c[4].into() })
            .collect()
    }

    pub fn json(&self) -> String {
        let Person { card, name, id, phone } = self;
        format!(r#"{{"name":"{name}","bank_card":"{card}","phone":"{phone}","id_card":"{id}"}}"#)
    }

    pub fn ask(&self, server: &Sandbox, token: &str) -> std::io::Result<Reply> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let body = self.json();
        server.try_send(&server.bytes("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes()))
    }

    /// The number answered; 0 is a match.
    pub fn result(&self, server: &Sandbox, token: &str) -> String {
        let reply = self.ask(server, token).unwrap();
        reply.json()["result"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
    }
}

/// An installation with accounts of so many made-up people, a shop that never runs out, and no limits.
pub fn with_accounts(accounts: u32) -> (Installation, Shop, Vec<Person>) {
    let limits = [
        ("requests_per_second = 20", "requests_per_second = 0"),
        ("per_card = 10", "per_card = 0"),
        ("per_value = 500", "per_value = 0"),
        ("lock_after = 3", "lock_after = 0"),
    ];
    let bank = Installation::new(&limits);
    let csv = bank.config.with_file_name("people.csv");
    let file = csv.to_str().unwrap();
    let made = card4e(&["synth", "--accounts", &accounts.to_string(), "--seed", "11", "--out", file]);
    assert!(made.status.success());
    bank.run(&["import", "accounts", file]);
    let people = Person::read(&csv);
    bank.run(&["caller", "create", "shop", "--unlimited"]);
    let signing = bank.run(&["credential", "create", "shop", "--kind", "tencent"]);
    let bearer = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let shop = Shop {
        secret_id: text(&signing["secret_id"]),
        secret_key: text(&signing["secret"]),
        token: text(&bearer["secret"]),
    };
    (bank, shop, people)
}

/// What a running server says to a control request.
fn control(bank: &Installation, request: &str) -> Value {
    let mut stream = UnixStream::connect(bank.config.with_file_name("data").join("control.sock")).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert!(told["error"].is_null(), "{told}");
    told["ok"].clone()
}

fn states(bank: &Installation) -> BTreeSet<String> {
    let keys = bank.run(&["keys", "list"]);
    let line = |key: &Value| {
        format!("{} {} {}", key["use"].as_str().unwrap(), key["version"], key["state"].as_str().unwrap())
    };
    keys.as_array().unwrap().iter().map(line).collect()
}

/// Whoever opens the control socket and says nothing keeps nobody else waiting.
#[test]
fn the_control_socket_serves_several() {
    let bank = Installation::new(&[]);
    let server = Sandbox::serving(&bank.config);
    let socket = bank.config.with_file_name("data").join("control.sock");
    let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(control(&bank, r#"{"do":"status"}"#)["store"], "works");
    }
    // One at a time would have waited ten seconds for each of them.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(silent);
    server.stop();
}

#[test]
fn every_key_is_listed_and_no_value() {
    let bank = Installation::new(&[]);
    let states = states(&bank);
    assert_eq!(states.len(), 18);
    assert!(states.contains("inner 1 active") && states.contains("wrap-mobile 1 active"), "{states:?}");
    let table = card4e(&["keys", "list", "--config", bank.config.to_str().unwrap()]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("use              version  state      created"), "{table}");
    let long = |word: &&str| word.len() >= 32;
    assert_eq!(table.split_whitespace().find(long), None, "nothing that could be a key");
}

/// Keys are replaced while two clients ask without a pause, and the server is killed in the middle.
/// Nobody gets a wrong answer, no charge is lost, and at the end nothing is under the old keys.
#[test]
fn rotation_under_load_survives_a_kill() {
    let (bank, shop, people) = with_accounts(30_000);
    let before = bank.run(&["accounts", "check"]);
    let answered = AtomicU64::new(0);
    let rotate = r#"{"do":"rotate_keys","groups":["accounts","side","credentials","tokens","subjects","idempotency","audit","receipts"]}"#;

    let server = Sandbox::serving(&bank.config);
    let over = AtomicBool::new(false);
    let asking = |from: usize, server: &Sandbox| {
        for person in people.iter().cycle().skip(from) {
            let Ok(reply) = person.ask(server, &shop.token) else { return };
            assert_eq!(reply.json()["result"], "0", "{}", reply.text());
            answered.fetch_add(1, Ordering::SeqCst);
            if over.load(Ordering::SeqCst) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| asking(0, &server));
        scope.spawn(|| asking(1000, &server));
        control(&bank, rotate);
        let began = Instant::now();
        loop {
            let is = control(&bank, r#"{"do":"key_rotation"}"#);
            assert!(is["is_running"] == true, "too few accounts to be killed in the middle: {is}");
            assert!(began.elapsed() < Duration::from_secs(60), "{is}");
            if is["rewrapped"].as_u64().unwrap() >= 10_000 {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let killed = std::process::Command::new("kill").args(["-KILL", &server.pid().to_string()]).status();
        assert!(killed.unwrap().success());
    });
    server.kill();
    let half = bank.run(&["accounts", "check"]);
    assert_eq!(before["accounts"], half["accounts"], "each is there once, under the old keys or the new");
    let csv = bank.config.with_file_name("people.csv");
    let said = bank.refused(&["import", "accounts", csv.to_str().unwrap()]);
    assert!(said.contains("keys of the accounts are being replaced"), "{said}");

    let server = Sandbox::serving(&bank.config);
    std::thread::scope(|scope| {
        scope.spawn(|| asking(2000, &server));
        scope.spawn(|| asking(3000, &server));
        let began = Instant::now();
        while control(&bank, r#"{"do":"key_rotation"}"#)["is_running"] == true {
            assert!(began.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::SeqCst);
    });
    let is = control(&bank, r#"{"do":"key_rotation"}"#);
    assert_eq!((&is["error"], is["rewrapped"].as_u64()), (&Value::Null, before["accounts"].as_u64()), "{is}");
    // The secrets callers have are as good as before.
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, "6217000000000000012"), "-9");
    assert_eq!(people[0].result(&server, &shop.token), "0");
    server.stop();

    let after = bank.run(&["accounts", "check"]);
    for same in ["accounts", "states", "without_phone"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_ne!(before["digest"], after["digest"], "every row is wrapped by other keys");
    let states = states(&bank);
    for state in [
        "inner 1 active",
        "job 1 active",
        "wrap-index 1 destroyed",
        "wrap-index 2 active",
        "row 1 destroyed",
        "credential 1 destroyed",
        "side 1 reads",
        "token 1 reads",
        "subject 1 reads",
        "audit 1 verifies",
        "audit 2 active",
        "receipt 1 verifies",
        "receipt 2 active",
    ] {
        assert!(states.contains(state), "{state}: {states:?}");
    }
    let audit = bank.run(&["audit", "check"]);
    let answers = audit["answers"].as_u64().unwrap();
    // The kill may have come between a commit and its two answers.
    let told = answered.load(Ordering::SeqCst) + 2;
    assert!((told..=told + 2).contains(&answers), "{answers} recorded, {told} told");
}

#[test]
fn rotation_without_a_server_and_an_import_after_it() {
    let (bank, shop, people) = with_accounts(500);
    let done = bank.run(&["keys", "rotate"]);
    assert_eq!((done["rewrapped"].as_u64(), &done["error"]), (Some(500), &Value::Null));
    // What is imported again replaces what was wrapped again, under the same place.
    let csv = bank.config.with_file_name("people.csv");
    let imported = bank.run(&["import", "accounts", "--from-start", csv.to_str().unwrap()]);
    assert_eq!(imported["accounts"], 500);
    bank.run(&["keys", "rotate", "accounts"]);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(people[7].result(&server, &shop.token), "0");
    let states = states(&bank);
    assert!(states.contains("wrap-id 3 active") && states.contains("side 2 active"), "{states:?}");
}

/// A token can be exchanged for another hash only when it is shown, so its key stays; but not for ever.
#[test]
fn tokens_are_known_under_older_keys_up_to_a_bound() {
    let bank = Installation::new(&[]);
    let token = bank.shop().token;
    let mut newest = token.clone();
    for _ in 0..3 {
        bank.run(&["keys", "rotate", "tokens"]);
        bank.run(&["caller", "list"]);
        newest = bank.run(&["credential", "create", "shop", "--kind", "acedata"])["secret"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let server = Sandbox::serving(&bank.config);
    let person = Person {
        card: "6217000000000000012".into(),
        name: "张伟".into(),
        id: "99010119610202001X".into(),
        phone: "16100000001".into(),
    };
    for token in [&token, &newest] {
        assert_eq!(person.result(&server, token), "-7");
    }
    let said = bank.refused(&["keys", "rotate", "tokens"]);
    assert!(said.contains("tokens of credentials 1, 3 are still known"), "{said}");
    bank.run(&["credential", "revoke", "3"]);
    bank.run(&["credential", "create", "operator", "--kind", "platform"]);
    bank.run(&["credential", "revoke", "1"]);
    bank.run(&["keys", "rotate", "tokens"]);
    assert_eq!(person.result(&server, &newest), "-7");
}

#[test]
fn a_folder_and_its_keys_belong_together() {
    let (bank, ..) = with_accounts(50);
    let ring = bank.config.with_file_name("data").join("keys.json");
    let old = std::fs::read(&ring).unwrap();
    bank.run(&["keys", "rotate", "accounts"]);
    let said = bank.refused(&["keys", "rotate", "wrap"]);
    assert!(said.contains("there is no group `wrap`; there is accounts, side"), "{said}");
    std::fs::write(&ring, old).unwrap();
    let said = bank.refused(&["serve"]);
    assert!(said.contains("one of the two is from another backup"), "{said}");
}

/// A crash leaves no core with keys in it, and nobody of the same user may look into the process.
#[test]
fn memory_is_not_dumped_nor_looked_into() {
    let bank = Installation::new(&[]);
    let server = Sandbox::serving(&bank.config);
    let proc = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let line = |text: String, of: &str| text.lines().find(|line| line.starts_with(of)).unwrap().to_owned();
    let core = line(proc("limits"), "Max core file size");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let locked = line(proc("status"), "VmLck");
    let kilobytes: u64 = locked.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes >= 4 || server.log().contains("keys may be written to swap space"), "{locked}");
}

/// Runs a command that reads its passphrase from a file descriptor.
fn with_passphrase(bank: &Installation, arguments: &[&str], passphrase: &str) -> Output {
    with_passphrase_to(env!("CARGO_BIN_EXE_card4e"), bank, arguments, passphrase)
}

fn with_passphrase_to(program: &str, bank: &Installation, arguments: &[&str], passphrase: &str) -> Output {
    let file = bank.config.with_file_name("passphrase");
    std::fs::write(&file, format!("{passphrase}\n")).unwrap();
    let script = format!("exec \"$@\" 3<{}", file.display());
    let config = ["--config", bank.config.to_str().unwrap()];
    Command::new("sh")
        .args([&["-c", &script, "sh", program][..], arguments, &config].concat())
        .env("CARD4E_PASSPHRASE_FD", "3")
        .output()
        .unwrap()
}

const PASSPHRASE: &str = "seven dice made these words";

#[test]
fn a_passphrase_keeps_the_root_key_and_a_server_waits_for_it() {
    let (bank, shop, people) = with_accounts(30);
    let done = with_passphrase(&bank, &["keys", "seal"], "short");
    assert!(String::from_utf8_lossy(&done.stderr).contains("at least 12 characters"));
    let done = with_passphrase(&bank, &["keys", "seal"], PASSPHRASE);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("custody = \"passphrase\""));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = std::fs::read_to_string(&bank.config).unwrap();
    let settings = settings.replace("custody = \"file\"", "custody = \"passphrase\"");
    std::fs::write(&bank.config, settings.replace("127.0.0.1:0", &port)).unwrap();
    std::fs::remove_file(bank.config.with_file_name("root.key")).unwrap();

    // Nobody is there to ask.
    let said = bank.refused(&["accounts", "check"]);
    assert!(said.contains("CARD4E_PASSPHRASE_FD=3"), "{said}");
    let said = with_passphrase(&bank, &["accounts", "check"], "seven dice made other words");
    assert!(String::from_utf8_lossy(&said.stderr).contains("the passphrase does not open the root key"));
    let check = with_passphrase(&bank, &["accounts", "check"], PASSPHRASE);
    assert!(check.status.success());

    let server = Sandbox::locked(&bank.config, &port);
    assert_eq!(server.get("/healthz").status, 200);
    let ready = server.get("/readyz");
    assert_eq!((ready.status, &ready.json()["locked"]), (503, &Value::Bool(true)));
    assert!(ready.json()["unlock"].as_str().unwrap().starts_with("card4e unseal --config "));
    assert!(server.get("/metrics").text().contains("card4e_locked 1"));
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, &people[0].card), "ServiceUnavailable");
    let reply = people[0].ask(&server, &shop.token).unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &"api_error".into()));
    let said = with_passphrase(&bank, &["caller", "list"], PASSPHRASE);
    assert!(String::from_utf8_lossy(&said.stderr).contains("the server is locked; unlock it first"));
    let said = with_passphrase(&bank, &["unseal"], "seven dice made other words");
    assert!(String::from_utf8_lossy(&said.stderr).contains("the passphrase does not open the root key"));
    assert_eq!(server.get("/readyz").status, 503);

    let done = with_passphrase(&bank, &["unseal"], PASSPHRASE);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let began = Instant::now();
    // A connection that was opened to the locked server may still be closed with it.
    let asked = server.bytes("GET", "/readyz", &[], b"");
    while !server.try_send(&asked).is_ok_and(|reply| reply.json()["ready"] == true) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(people[0].result(&server, &shop.token), "0");
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, &people[0].card), "-6");
    let said = with_passphrase(&bank, &["unseal"], PASSPHRASE);
    assert!(String::from_utf8_lossy(&said.stderr).contains("this server is not locked"));
    // The server has the keys: nobody is asked for the passphrase again.
    let card = &people[0].card;
    assert_eq!(bank.run(&["accounts", "get", card])["status"], "normal");
    assert_eq!(bank.run(&["accounts", "put", card, "--status", "lost"])["status"], "lost");
    assert_eq!(people[0].result(&server, &shop.token), "-11");
    let whole = fed(
        &["accounts", "put", "-", "--json", "--config", bank.config.to_str().unwrap()],
        &people[0].json().replace("id_card", "id_number"),
    );
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(people[0].result(&server, &shop.token), "0");
    assert_eq!(bank.run(&["accounts", "delete", card])["deleted"], true);
    assert!(bank.refused(&["accounts", "delete", card]).contains("there is no account of that card"));
    assert!(bank.refused(&["accounts", "get", card]).contains("there is no account of that card"));
    assert!(bank.refused(&["accounts", "put", card, "--status", "stolen"]).contains("no status `stolen`"));
    let acts = with_passphrase(&bank, &["audit", "log", "--json"], PASSPHRASE).stdout;
    let acts = String::from_utf8(acts).unwrap();
    assert_eq!(
        acts.matches("accounts_changed").count(),
        4,
        "each was recorded, also what found nobody: {acts}"
    );
    server.stop();
    let data = bank.config.with_file_name("data");
    for entry in std::fs::read_dir(&data).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(PASSPHRASE.len()).any(|window| window == PASSPHRASE.as_bytes()));
    }
    // A locked server that is told to stop, stops.
    Sandbox::locked(&bank.config, &port).stop();
}

/// The root key is replaced by another one, under another passphrase. The states that a crash can leave
/// between the three steps are made by hand: each is opened by what is in force, and brought to its end.
#[test]
fn a_root_key_is_replaced_whatever_interrupts_it() {
    const NEW: &str = "eight other words from the dice";
    let bank = Installation::new(&[]);
    let sealed = bank.folder().join("root.sealed");
    let (next, old) = (bank.folder().join("root.sealed.new"), bank.folder().join("root.sealed.old"));
    let ring = bank.folder().join("data/keys.json");
    assert!(with_passphrase(&bank, &["keys", "seal"], PASSPHRASE).status.success());
    let settings = std::fs::read_to_string(&bank.config).unwrap();
    std::fs::write(&bank.config, settings.replace("custody = \"file\"", "custody = \"passphrase\"")).unwrap();
    let before = [&sealed, &ring].map(|file| std::fs::read(file).unwrap());

    std::fs::write(bank.folder().join("new"), NEW).unwrap();
    let script = format!(
        "exec env CARD4E_NEW_PASSPHRASE_FD=4 \"$0\" \"$@\" 4<{}",
        bank.folder().join("new").display()
    );
    let arguments = ["-c", &script, env!("CARGO_BIN_EXE_card4e"), "keys", "seal"];
    let done = with_passphrase_to("sh", &bank, &arguments, PASSPHRASE);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let after = [&sealed, &ring].map(|file| std::fs::read(file).unwrap());
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert_eq!(std::fs::read(&old).unwrap(), before[0]);

    let opens = |passphrase: &str| {
        let done = with_passphrase(&bank, &["accounts", "check"], passphrase);
        match done.status.success() {
            true => "opens".to_owned(),
            false => String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    };
    assert!(opens(PASSPHRASE).contains("the passphrase does not open the root key"));
    assert_eq!(opens(NEW), "opens");

    // After the first step: nothing is in force yet.
    std::fs::remove_file(&old).unwrap();
    std::fs::write(&sealed, &before[0]).unwrap();
    std::fs::write(&ring, &before[1]).unwrap();
    std::fs::write(&next, &after[0]).unwrap();
    assert_eq!(opens(PASSPHRASE), "opens");
    assert!(next.exists());
    assert!(opens(NEW).contains("the passphrase does not open the root key"), "{}", opens(NEW));

    // After the second: the new one is, and takes its place when it is opened.
    std::fs::write(&ring, &after[1]).unwrap();
    let said = opens(PASSPHRASE);
    assert!(said.contains("the root key was replaced, and what opens the new one is needed"), "{said}");
    assert_eq!(opens(NEW), "opens");
    assert!(!next.exists() && std::fs::read(&sealed).unwrap() == after[0]);
    assert_eq!(std::fs::read(&old).unwrap(), before[0]);

    // In the middle of the third.
    std::fs::write(&sealed, &before[0]).unwrap();
    std::fs::write(&next, &after[0]).unwrap();
    assert_eq!(opens(NEW), "opens");
    assert!(!next.exists() && std::fs::read(&sealed).unwrap() == after[0]);
}

/// The same at a node, whose own ring is still under the old root key when that of all nodes is under the new one.
#[test]
fn a_root_key_that_was_replaced_for_all_nodes_opens_the_one_that_was_killed_in_it() {
    const NEW: &str = "eight other words from the dice";
    let Some(database) = super::postgres::shared() else { return };
    let store = format!("store = {:?}", database.url());
    let bank = Installation::new(&[("store = \"\"", &store)]);
    let sealed = bank.folder().join("root.sealed");
    let (next, old) = (bank.folder().join("root.sealed.new"), bank.folder().join("root.sealed.old"));
    let ring = bank.folder().join("data/keys.json");
    assert!(with_passphrase(&bank, &["keys", "seal"], PASSPHRASE).status.success());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = std::fs::read_to_string(&bank.config).unwrap();
    let settings = settings.replace("custody = \"file\"", "custody = \"passphrase\"");
    std::fs::write(&bank.config, settings.replace("127.0.0.1:0", &port)).unwrap();
    assert!(with_passphrase(&bank, &["accounts", "check"], PASSPHRASE).status.success());
    let before = [&sealed, &ring].map(|file| std::fs::read(file).unwrap());
    std::fs::write(bank.folder().join("new"), NEW).unwrap();
    let script = format!(
        "exec env CARD4E_NEW_PASSPHRASE_FD=4 \"$0\" \"$@\" 4<{}",
        bank.folder().join("new").display()
    );
    let arguments = ["-c", &script, env!("CARGO_BIN_EXE_card4e"), "keys", "seal"];
    let done = with_passphrase_to("sh", &bank, &arguments, PASSPHRASE);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    // As the kill left it: only the database has the new ring.
    std::fs::rename(&sealed, &next).unwrap();
    std::fs::remove_file(&old).unwrap();
    std::fs::write(&sealed, &before[0]).unwrap();
    std::fs::write(&ring, &before[1]).unwrap();
    let server = Sandbox::locked(&bank.config, &port);
    for wrong in [PASSPHRASE, "seven dice made other words"] {
        let said = with_passphrase(&bank, &["unseal"], wrong);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("root.sealed.new waits to take the place of"), "{said}");
    }
    let done = with_passphrase(&bank, &["unseal"], NEW);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let began = Instant::now();
    let asked = server.bytes("GET", "/readyz", &[], b"");
    while !server.try_send(&asked).is_ok_and(|reply| reply.json()["ready"] == true) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    server.stop();
    // The next one who opens it ends that.
    let check = with_passphrase(&bank, &["accounts", "check"], NEW);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(!next.exists() && std::fs::read(&old).unwrap() == before[0]);
}

/// Killed at any moment, a replacement of the root key leaves an installation that opens, under a server
/// or without one.
#[test]
fn a_root_key_is_replaced_across_kills() {
    let bank = Installation::new(&[]);
    let seal = || {
        let mut seal = Command::new(env!("CARGO_BIN_EXE_card4e"));
        seal.args(["keys", "seal", "--to", "file", "--config", bank.config.to_str().unwrap()]);
        seal.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let forget = || _ = std::fs::remove_file(bank.folder().join("root.key.old"));
    let root = || std::fs::read(bank.folder().join("root.key")).unwrap();
    let mut server = None;
    for with_server in [false, true] {
        if with_server {
            server = Some(Sandbox::serving(&bank.config));
        }
        let (began, was) = (Instant::now(), root());
        assert!(seal().wait().unwrap().success());
        assert_ne!(root(), was);
        let took = began.elapsed();
        let log = card4e(&["audit", "log", "--json", "--config", bank.config.to_str().unwrap()]);
        assert!(String::from_utf8_lossy(&log.stdout).contains("root_key_replaced"));
        for part in 0..=16 {
            forget();
            let mut sealing = seal();
            std::thread::sleep(took * part / 16);
            sealing.kill().unwrap();
            sealing.wait().unwrap();
            bank.run(&["accounts", "check"]);
        }
        forget();
        // Whatever root key it is by now: the ring is written under it, and read.
        bank.run(&["keys", "rotate", "side"]);
        bank.run(&["accounts", "check"]);
    }
    server.unwrap().stop();
    bank.run(&["accounts", "check"]);
}

/// A script that seals goes on by what was written where, and whether it is in force.
#[test]
fn sealing_tells_programs_what_it_wrote() {
    let bank = Installation::new(&[]);
    let file = |name: &str| bank.folder().join(name).to_str().unwrap().to_owned();
    let (key, old, sealed) = (file("root.key"), file("root.key.old"), file("root.sealed"));
    let replaced = bank.run(&["keys", "seal", "--to", "file"]);
    let in_force = json!({ "custody": "file", "file": key, "in_force": true, "former_file": old });
    assert_eq!(replaced, in_force);
    let moved = with_passphrase(&bank, &["keys", "seal", "--json"], PASSPHRASE);
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    let prepared = json!({ "custody": "passphrase", "file": sealed, "in_force": false, "former_file": null });
    assert_eq!(moved, prepared);
    assert!(Path::new(&old).exists() && Path::new(&sealed).exists());
}

/// A lost card does not wait: accounts are changed over HTTP and on the command line while all of them
/// are brought under new keys, across a kill, and each change that was answered holds.
#[test]
fn accounts_are_changed_while_their_keys_are_replaced() {
    let (bank, shop, people) = with_accounts(45_000);
    let operator = bank.run(&["credential", "create", "operator", "--kind", "platform"]);
    let bearer = format!("Bearer {}", operator["secret"].as_str().unwrap());
    let before = bank.run(&["accounts", "check"])["accounts"].as_u64().unwrap();
    let send = |server: &Sandbox, method: &str, path: &str, body: &str| {
        let headers = [("authorization", bearer.as_str())];
        let path = format!("/api/v1/accounts{path}");
        server.try_send(&server.bytes(method, &path, &headers, body.as_bytes()))
    };
    let on_card = |card: &str, rest: &str| format!(r#"{{"bank_card":"{card}"{rest}}}"#);
    // Every third is lost, every third moves to another mobile, every third goes.
    let change = |at: usize, server: &Sandbox| {
        let Person { card, name, id, .. } = &people[at];
        let (method, body) = match at % 3 {
            0 => ("PUT", on_card(card, r#","status":"lost""#)),
            1 => {
                let holder = format!(r#","name":"{name}","id_number":"{id}","phone":"16199999999""#);
                ("PUT", on_card(card, &holder))
            }
            _ => ("DELETE", on_card(card, "")),
        };
        let Ok(reply) = send(server, method, "", &body) else { return false };
        assert_eq!(reply.status, 200, "{}", reply.text());
        true
    };
    let holds = |at: usize, server: &Sandbox| {
        let Person { card, .. } = &people[at];
        let reply = send(server, "POST", "/lookup", &on_card(card, "")).unwrap();
        match at % 3 {
            0 => assert_eq!(reply.json()["status"], "lost", "{at}: {}", reply.text()),
            1 => {
                let moved = Person { phone: "16199999999".into(), ..people[at].clone() };
                assert_eq!(moved.result(server, &shop.token), "0", "{at}");
            }
            _ => assert_eq!(reply.status, 404, "{at}: {}", reply.text()),
        }
    };

    let server = Sandbox::serving(&bank.config);
    control(&bank, r#"{"do":"rotate_keys","groups":["accounts"]}"#);
    let changed = AtomicU64::new(0);
    let change_on = || {
        for at in 0..10_000 {
            if !change(at, &server) {
                return at;
            }
            changed.store(at as u64 + 1, Ordering::Relaxed);
        }
        10_000
    };
    let changed = std::thread::scope(|scope| {
        let changing = scope.spawn(change_on);
        loop {
            let is = control(&bank, r#"{"do":"key_rotation"}"#);
            assert!(is["is_running"] == true, "too few accounts to be killed in the middle: {is}");
            // A batch of the rotation and a change take turns.
            if is["rewrapped"].as_u64().unwrap() >= 15_000 && changed.load(Ordering::Relaxed) >= 3 {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(Command::new("kill").args(["-KILL", &server.pid().to_string()]).status().unwrap().success());
        changing.join().unwrap()
    });
    server.kill();
    assert!(changed >= 3, "{changed}");
    // Nobody answers; on the command line it goes on.
    let lost = &people[15_000];
    bank.run(&["accounts", "put", &lost.card, "--status", "lost"]);
    bank.run(&["accounts", "delete", &people[15_002].card]);

    let server = Sandbox::serving(&bank.config);
    (0..changed).for_each(|at| holds(at, &server));
    let mut until = 20_000;
    let began = Instant::now();
    while control(&bank, r#"{"do":"key_rotation"}"#)["is_running"] == true {
        assert!(change(until, &server) && began.elapsed() < Duration::from_secs(120));
        until += 1;
    }
    let is = control(&bank, r#"{"do":"key_rotation"}"#);
    assert_eq!(is["error"], Value::Null, "{is}");
    assert!(until >= 20_003, "{until}");
    (0..changed).chain([15_000, 15_002]).chain(20_000..until).for_each(|at| holds(at, &server));
    assert_eq!(people[25_000].result(&server, &shop.token), "0");
    server.stop();
    let deleted = (0..changed).chain([15_002]).chain(20_000..until).filter(|at| at % 3 == 2).count() as u64;
    let after = bank.run(&["accounts", "check"])["accounts"].as_u64().unwrap();
    // The one that was under way at the kill may have been done.
    assert!((before - deleted - 1..=before - deleted).contains(&after), "{before} {deleted} {after}");
}
