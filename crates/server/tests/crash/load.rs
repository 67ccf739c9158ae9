//! Clients that ask while the server lives, and what they were told.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wire::tencent::signature::JsonPost;

use super::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN, now};

/// Who asks. The trial application has ten credits, so that a lost or invented charge would show as a balance.
#[derive(Clone)]
pub struct Callers {
    pub secret_id: String,
    pub secret_key: String,
    pub token: String,
    pub trial_token: String,
}

impl Callers {
    /// The sandbox's.
    pub fn public() -> Callers {
        Callers {
            secret_id: SECRET_ID.into(),
            secret_key: SECRET_KEY.into(),
            token: TOKEN.into(),
            trial_token: "4e000000000000000000000000000001".into(),
        }
    }
}

const WORKERS: u64 = 8;

/// What clients were told, over all lives of an installation.
#[derive(Default)]
pub struct Told {
    /// Answers not yet found in the ledger, by request id.
    pub answers: HashMap<String, ToldAnswer>,
    /// Idempotency keys of the public application whose answers are kept.
    keys: HashSet<String>,
    /// Requests sent, whether or not they were answered.
    pub sent: u64,
    /// Answers seen.
    pub seen: u64,
    /// Answers in the ledger.
    pub recorded: u64,
}

/// What a reply says.
#[derive(Debug)]
pub struct ToldAnswer {
    pub on_tencent: bool,
    pub result: String,
    pub is_charged: bool,
}

/// Clients that ask on both wires, over and over, until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Asks at all of these addresses.
    pub fn start(addresses: &[String], callers: &Callers, told: &Arc<Mutex<Told>>, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number: u64| {
            let address = addresses[number as usize % addresses.len()].clone();
            let asker = Asker { address, callers: callers.clone() };
            let (told, stop) = (Arc::clone(told), Arc::clone(&stop));
            let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(number));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if asker.connect(&told, &stop, &mut dice).is_err() {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        };
        Load { workers: (0..WORKERS).map(worker).collect(), stop }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
}

/// One client of one server.
struct Asker {
    address: String,
    callers: Callers,
}

impl Asker {
    fn connect(&self, told: &Mutex<Told>, stop: &AtomicBool, dice: &mut Dice) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        while !stop.load(Ordering::Relaxed) {
            ask(&mut socket, self, told, dice)?;
        }
        Ok(())
    }
}

/// One question: on either wire, from the sample people, with or without an idempotency key.
fn ask(
    socket: &mut (impl Read + Write),
    Asker { address, callers }: &Asker,
    told: &Mutex<Told>,
    dice: &mut Dice,
) -> std::io::Result<()> {
    let (name, card, phone, id) = elements(dice);
    let key = (dice.next().is_multiple_of(4)).then(|| format!("key-{}", dice.next()));
    let on_tencent = dice.next().is_multiple_of(2);
    let is_trial = dice.next().is_multiple_of(8);
    let token = if is_trial { &callers.trial_token } else { &callers.token };
    let request = if on_tencent {
        let body = format!(r#"{{"Name":"{name}","BankCard":"{card}","Phone":"{phone}","IdCard":"{id}"}}"#);
        tencent(address, callers, &body, key.as_deref())
    } else {
        let body = format!(r#"{{"name":"{name}","bank_card":"{card}","phone":"{phone}","id_card":"{id}"}}"#);
        acedata(address, token, &body, key.as_deref())
    };
    told.lock().unwrap().sent += 1;
    socket.write_all(request.as_bytes())?;
    let reply = Reply::read(socket)?;
    let answer = if on_tencent { tencent_answer(&reply) } else { acedata_answer(&reply) };
    if let Some((id, result, is_charged)) = answer {
        let mut told = told.lock().unwrap();
        told.seen += 1;
        // "Too many attempts" is not kept for its key: it invites to ask again.
        let kept = !matches!(result.as_str(), "-19" | "-17") && (on_tencent || !is_trial);
        let answer = ToldAnswer { on_tencent, result, is_charged };
        assert!(told.answers.insert(id.clone(), answer).is_none(), "{id} was used twice");
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

fn tencent(address: &str, callers: &Callers, body: &str, key: Option<&str>) -> String {
    let post =
        JsonPost { host: address, action: "BankCard4EVerification", body: body.as_bytes(), timestamp: now() };
    let key: Vec<_> = key.map(|key| ("x-idempotency-key", key)).into_iter().collect();
    String::from_utf8(post.to_http1(&callers.secret_id, &callers.secret_key, &key)).unwrap()
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

/// A key that was answered before the kill is known after it.
pub fn repeat_known_keys(server: &Sandbox, callers: &Callers, told: &Told) {
    let body = r#"{"name":"nobody","bank_card":"1","phone":"1","id_card":"1"}"#;
    for key in told.keys.iter().take(50) {
        let request = acedata(&server.address, &callers.token, body, Some(key));
        let reply = server.send(request.as_bytes());
        // Another question under a known key is refused: so the key is known.
        assert_eq!(reply.status, 400, "{key}: {}", reply.text());
    }
}

/// SplitMix64: small, and the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
