//! `kill -9` in the middle of a loaded run, again and again: what was answered is charged and
//! recorded exactly once, and nothing else is.
//!
//! ```text
//! cargo test --release -p card4e --test crash                      # 5 kills, a new seed
//! CARD4E_KILLS=50 CARD4E_SEED=7 cargo test --release -p card4e --test crash -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/support.rs"]
#[expect(dead_code, reason = "shared with the other integration tests")]
mod support;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN, now};
use wire::tencent::signature::{Unsigned, sign_tc3};

/// The trial application: ten credits, so that a lost or invented charge would show as a balance.
const TRIAL_TOKEN: &str = "4e000000000000000000000000000001";
const WORKERS: u64 = 8;

/// One card may be asked six times a day here, and three mismatches lock a pair.
const SETTINGS: &str = "[attempts]\nper_card = 6\nper_value = 1000000\nlock_after = 3\n";

/// What clients were told, over all lives of the server.
#[derive(Default)]
struct Told {
    /// Answer by request id: outcome number, charged, wire.
    answers: HashMap<String, (String, bool)>,
    /// Idempotency keys of the public application whose answers are kept.
    keys: HashSet<String>,
    /// Requests sent, whether or not they were answered.
    sent: u64,
}

#[test]
fn nothing_answered_is_lost_and_nothing_is_invented() {
    let kills = setting("CARD4E_KILLS").unwrap_or(5);
    let seed = setting("CARD4E_SEED").unwrap_or_else(|| now() as u64);
    println!("{kills} kills with CARD4E_SEED={seed}");
    let data = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut dice = Dice(seed);
    for life in 0..kills {
        let sandbox = Sandbox::keeping(data.path(), SETTINGS);
        let load = Load::start(&sandbox.address, &told, dice.next());
        // From before the first commit to some thousands of them.
        std::thread::sleep(Duration::from_millis(5 + dice.next() % 400));
        sandbox.kill();
        load.stop();
        check(data.path(), &told.lock().unwrap(), life);
    }
    // The last life ends in order and agrees with everything before it.
    let sandbox = Sandbox::keeping(data.path(), SETTINGS);
    repeat_known_keys(&sandbox, &told.lock().unwrap());
    sandbox.stop();
    let told = told.lock().unwrap();
    let charges = check(data.path(), &told, kills);
    println!(
        "{} requests, {} answers seen by clients, {charges} charges in the ledger, {kills} kills",
        told.sent,
        told.answers.len()
    );
    assert!(told.answers.len() as u64 > kills, "there was load");
}

/// Clients that ask on both wires, over and over, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: &str, told: &Arc<Mutex<Told>>, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number: u64| {
            let (address, told, stop) = (address.to_owned(), Arc::clone(told), Arc::clone(&stop));
            let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(number));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if connection(&address, &told, &stop, &mut dice).is_err() {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        };
        Load { workers: (0..WORKERS).map(worker).collect(), stop }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}

fn connection(address: &str, told: &Mutex<Told>, stop: &AtomicBool, dice: &mut Dice) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut socket, address, told, dice)?;
    }
    Ok(())
}

/// One question: on either wire, from the sample people, with or without an idempotency key.
fn ask(
    socket: &mut (impl Read + Write),
    address: &str,
    told: &Mutex<Told>,
    dice: &mut Dice,
) -> std::io::Result<()> {
    let (name, card, phone, id) = elements(dice);
    let key = (dice.next().is_multiple_of(4)).then(|| format!("key-{}", dice.next()));
    let on_tencent = dice.next().is_multiple_of(2);
    let token = if dice.next().is_multiple_of(8) { TRIAL_TOKEN } else { TOKEN };
    let request = if on_tencent {
        let body = format!(r#"{{"Name":"{name}","BankCard":"{card}","Phone":"{phone}","IdCard":"{id}"}}"#);
        tencent(address, &body, key.as_deref())
    } else {
        let body = format!(r#"{{"name":"{name}","bank_card":"{card}","phone":"{phone}","id_card":"{id}"}}"#);
        acedata(address, token, &body, key.as_deref())
    };
    told.lock().unwrap().sent += 1;
    socket.write_all(request.as_bytes())?;
    let reply = Reply::read(socket)?;
    let answer = if on_tencent { tencent_answer(&reply) } else { acedata_answer(&reply) };
    if let Some((id, result, charged)) = answer {
        let mut told = told.lock().unwrap();
        // "Too many attempts" is not kept for its key: it invites to ask again.
        let kept = !matches!(result.as_str(), "-19" | "-17") && (on_tencent || token == TOKEN);
        assert!(told.answers.insert(id.clone(), (result, charged)).is_none(), "{id} was used twice");
        if let Some(key) = key.filter(|_| kept) {
            told.keys.insert(key);
        }
    }
    Ok(())
}

/// A person who passes, one who does not match, a lost card, a malformed one; of many cards, so that
/// attempt limits are reached on some of them only.
fn elements(dice: &mut Dice) -> (&'static str, String, &'static str, &'static str) {
    match dice.next() % 6 {
        0 => ("张伟", "6217000000000000012".into(), "16100000001", "99010119610202001X"),
        1 => ("王芳", "6228480000000000026".into(), "16100000099", "990101196203030022"),
        2 => ("吴三", "6222020000000000083".into(), "16100000008", "990101196809090089"),
        3 => ("张伟", "12345".into(), "16100000001", "99010119610202001X"),
        // Unknown cards: charged, and each counted on its own.
        _ => (
            "张伟",
            format!("62170000{:011}", dice.next() % 100_000_000),
            "16100000001",
            "99010119610202001X",
        ),
    }
}

fn tencent(address: &str, body: &str, key: Option<&str>) -> String {
    let timestamp = now();
    let unsigned = Unsigned {
        method: &http::Method::POST,
        host: address,
        content_type: "application/json",
        query: "",
        body: Some(body.as_bytes()),
        action: None,
        timestamp,
        service: "faceid",
    };
    let authorization = sign_tc3(&unsigned, SECRET_ID, SECRET_KEY);
    let key = key.map_or(String::new(), |key| format!("X-Idempotency-Key: {key}\r\n"));
    format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nX-TC-Action: BankCard4EVerification\r\n\
         X-TC-Version: 2018-03-01\r\nX-TC-Timestamp: {timestamp}\r\nAuthorization: {authorization}\r\n{key}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn acedata(address: &str, token: &str, body: &str, key: Option<&str>) -> String {
    let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
    format!(
        "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{key}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Request id, result, and whether such a result is charged.
fn tencent_answer(reply: &Reply) -> Option<(String, String, bool)> {
    let response = &reply.json()["Response"];
    let result = response["Result"].as_str()?;
    let free = matches!(result, "-2" | "-3" | "-4" | "-5" | "-18" | "-19" | "-20");
    Some((response["RequestId"].as_str()?.into(), result.into(), !free))
}

fn acedata_answer(reply: &Reply) -> Option<(String, String, bool)> {
    let body = reply.json();
    let result = body["result"].as_str()?;
    Some((reply.header("x-trace-id")?.into(), result.into(), reply.header("x-charged") == Some("1")))
}

/// Holds the ledger of a dead server against what its clients were told. Gives the charges in it.
fn check(data: &Path, told: &Told, life: u64) -> u64 {
    let audit = command(data, &["audit", "check"]);
    let audit: Value = serde_json::from_str(audit.trim()).unwrap();
    let listed = command(data, &["ledger", "list"]);
    let mut seen = HashSet::new();
    let mut charges = 0;
    let mut balance = 10;
    let mut matched: HashMap<String, (String, bool)> = HashMap::new();
    for line in listed.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let id = record["request_id"].as_str().unwrap().to_owned();
        assert!(seen.insert(id.clone()), "life {life}: two records of {id}");
        let charged = record["charged"] != "0";
        charges += u64::from(charged);
        if let Some(left) = record["balance"].as_str() {
            balance -= i64::from(charged);
            assert_eq!(left, balance.to_string(), "life {life}: a charge was lost or invented");
            assert!(balance >= 0, "life {life}: overspent");
        }
        matched.insert(id, (record["outcome"].as_str().unwrap().to_owned(), charged));
    }
    for (id, (result, charged)) in &told.answers {
        let record = matched
            .get(id)
            .unwrap_or_else(|| panic!("life {life}: {id} was answered {result} but is not recorded"));
        assert_eq!(record.1, *charged, "life {life}: {id} {result} {record:?}");
    }
    assert!(seen.len() as u64 <= told.sent, "life {life}: more records than requests");
    assert_eq!(audit["answers"], seen.len(), "life {life}");
    assert_eq!(audit["charges"], charges, "life {life}");
    limits_held(&listed, life);
    charges
}

/// A mismatch is counted; no pair may have got more of them than lock it.
///
/// One pair of caller and card mismatches here: 王芳's card asked with a wrong mobile. A lock lasts
/// until midnight, so over all lives (of one day) there are three and no more.
fn limits_held(listed: &str, life: u64) {
    let mut by_application_and_day: HashMap<(u64, i64), u64> = HashMap::new();
    for record in listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if record["outcome"] == "HOLDER_MISMATCH" {
            let day = (record["at_ms"].as_i64().unwrap() + 8 * 3_600_000) / 86_400_000;
            *by_application_and_day.entry((record["application"].as_u64().unwrap(), day)).or_default() += 1;
        }
    }
    for ((application, _), mismatches) in by_application_and_day {
        assert!(
            mismatches <= 3,
            "life {life}: application {application} got {mismatches} mismatches past a lock of 3"
        );
    }
}

/// A key that was answered before the kill gives the same answer after it, uncharged.
fn repeat_known_keys(sandbox: &Sandbox, told: &Told) {
    let before = sandbox.charges();
    let body = r#"{"name":"nobody","bank_card":"1","phone":"1","id_card":"1"}"#;
    for key in told.keys.iter().take(50) {
        let request = acedata(&sandbox.address, TOKEN, body, Some(key));
        let reply = sandbox.send(request.as_bytes());
        // Another question under a known key is refused: so the key is known.
        assert_eq!(reply.status, 400, "{key}: {}", reply.text());
    }
    assert_eq!(sandbox.charges(), before);
}

fn command(data: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .arg("--json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
