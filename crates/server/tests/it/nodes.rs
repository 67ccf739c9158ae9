//! Three nodes behind nginx that share a limiter, under load, while what can go away goes away: nothing that
//! was answered is lost or charged twice, no limit and no balance is exceeded beyond its bound.

pub mod nginx;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nginx::Nginx;
use serde_json::Value;
use wire::tencent::signature::JsonPost;

use super::limiter::redis_server::{Redis, free_port};
use super::limiter::{metric, until};
use super::postgres::Postgres;
use super::serve::{Installation, card4e, error};
use super::support::{Reply, Sandbox, now};

/// Requests a second of the caller that asks more than it may.
const LIMIT: u32 = 50;

/// Credits of the caller that runs out of them.
const CREDITS: u64 = 40;

/// Where the nodes keep their books.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Books {
    /// Each in its own data folder: the credentials are the same, the balances each node's own.
    EachItsOwn,
    /// All in one database.
    OneDatabase,
}

/// The nodes and what stands around them.
struct Cluster {
    books: Books,
    nodes: Vec<Node>,
    nginx: Nginx,
    redis: Redis,
    database: Option<Postgres>,
    callers: Vec<Caller>,
    /// What the nodes were copied from; its folder is theirs.
    _origin: Installation,
}

/// One node: its settings, and its server while it runs.
struct Node {
    config: PathBuf,
    address: String,
    server: Option<Sandbox>,
}

/// Somebody who asks, on both wires.
struct Caller {
    name: &'static str,
    secret_id: String,
    secret_key: String,
    token: String,
}

impl Cluster {
    /// Three nodes at work; `None`, loudly, where something is not installed.
    fn start(books: Books) -> Option<Cluster> {
        let redis = Redis::start()?;
        let database = match books {
            Books::EachItsOwn => None,
            Books::OneDatabase => Some(Postgres::start()?),
        };
        let store = database.as_ref().map(|database| format!("store = \"{}\"", database.url()));
        let store = store.as_ref().map(|store| ("store = \"\"", store.as_str()));
        let limits = format!("[limits]\nlimiter = \"{}\"\nnodes = 3\ntimeout_ms = 200\n#", redis.url());
        let free_quota = format!("free_quota = \"{CREDITS}\"");
        let requests = format!("requests_per_second = {LIMIT} ");
        let mut settings = vec![
            ("free_quota = \"10\"", &*free_quota),
            ("requests_per_second = 20 ", &*requests),
            ("[limits]\nnodes = 1 ", &limits),
            ("timeout_ms = 20 ", "#"),
            ("per_card = 10 ", "per_card = 0 "),
            ("per_value = 500 ", "per_value = 0 "),
            ("lock_after = 3 ", "lock_after = 0 "),
        ];
        settings.extend(store);
        let origin = Installation::new(&settings);
        let caller = |name: &'static str, more: &[&str]| {
            origin.run(&[&["caller", "create", name], more].concat());
            let issued = |kind| origin.run(&["credential", "create", name, "--kind", kind]);
            let (signing, bearer) = (issued("tencent"), issued("acedata"));
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            Caller {
                name,
                secret_id: text(&signing["secret_id"]),
                secret_key: text(&signing["secret"]),
                token: text(&bearer["secret"]),
            }
        };
        // Who asks without end, who asks more than it may, who runs out of credits.
        let callers =
            vec![caller("steady", &["--unlimited"]), caller("greedy", &["--unlimited"]), caller("poor", &[])];
        origin.run(&["caller", "set", "steady", "--requests-per-second", "0"]);
        let nodes: Vec<Node> = (0..3).map(|number| Node::copied(&origin, number)).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
        let nginx = Nginx::before(&addresses)?;
        let mut cluster = Cluster { books, nodes, nginx, redis, database, callers, _origin: origin };
        cluster.nodes.iter_mut().for_each(Node::run);
        Some(cluster)
    }

    /// All answers in the ledgers: by request, who asked and whether it was charged. One that is there twice
    /// ends the test.
    fn ledger(&self) -> HashMap<String, Recorded> {
        let mut all = HashMap::new();
        let ledgers = match self.books {
            Books::EachItsOwn => &self.nodes[..],
            Books::OneDatabase => &self.nodes[..1],
        };
        for (number, node) in ledgers.iter().enumerate() {
            let done = card4e(&["ledger", "list", "--json", "--config", node.config.to_str().unwrap()]);
            assert!(done.status.success(), "{}", error(&done));
            for line in String::from_utf8(done.stdout).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                let recorded =
                    Recorded { ledger: number, caller: text("caller"), charged: text("charged") == "1" };
                assert!(all.insert(text("request_id"), recorded).is_none(), "twice: {line}");
            }
            let checked = card4e(&["audit", "check", "--config", node.config.to_str().unwrap()]);
            assert!(checked.status.success(), "{}", error(&checked));
        }
        all
    }
}

/// An answer as a ledger has it.
struct Recorded {
    ledger: usize,
    caller: String,
    charged: bool,
}

impl Node {
    /// A copy of an installation that nobody serves, with a port of its own.
    fn copied(origin: &Installation, number: usize) -> Node {
        let folder = origin.folder().with_file_name(format!("node{number}"));
        let copied = Command::new("cp").arg("-a").arg(origin.folder()).arg(&folder).status();
        assert!(copied.unwrap().success());
        let (config, address) = (folder.join("card4e.toml"), format!("127.0.0.1:{}", free_port()));
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains("listen = \"127.0.0.1:0\""));
        let text = text.replace("127.0.0.1:0", &address);
        std::fs::write(&config, text.replace("node = \"\"", &format!("node = \"node{number}\""))).unwrap();
        Node { config, address, server: None }
    }

    fn run(&mut self) {
        self.server = Some(Sandbox::serving(&self.config));
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// By request: whether it was charged.
    answers: HashMap<String, bool>,
    /// By caller and code or status.
    refused: BTreeMap<(&'static str, String), u32>,
    /// Questions that nginx or a broken connection gave no answer to, since the load began.
    lost: Vec<Duration>,
    /// When the steady caller was answered, since the load began.
    steady: Vec<Duration>,
}

/// What all who ask have in common.
struct Load<'a> {
    address: &'a str,
    began: Instant,
    stop: &'a AtomicBool,
    told: &'a Mutex<Told>,
}

impl Load<'_> {
    /// Asks through nginx until it is told to stop.
    fn ask(&self, caller: &Caller, seed: u64) {
        let mut number = seed * 1_000_000;
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(mut socket) = TcpStream::connect(self.address) else { continue };
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.set_nodelay(true).unwrap();
            while !self.stop.load(Ordering::Relaxed) {
                number += 1;
                let request = request(self.address, caller, number);
                let reply = socket.write_all(&request).and_then(|()| Reply::read(&mut socket));
                let mut told = self.told.lock().unwrap();
                let Ok(reply) = reply else {
                    told.lost.push(self.began.elapsed());
                    break;
                };
                told.note(caller.name, &reply, self.began.elapsed());
                // nginx ends a connection after a thousand requests.
                if reply.header("connection") == Some("close") {
                    break;
                }
            }
        }
    }
}

impl Told {
    fn note(&mut self, caller: &'static str, reply: &Reply, at: Duration) {
        match read(reply) {
            Said::Answer(request, charged) => {
                if caller == "steady" {
                    self.steady.push(at);
                }
                let before = self.answers.insert(request, charged);
                assert!(before.is_none(), "a request's id came twice: {}", reply.text());
            }
            Said::Refusal(code) => *self.refused.entry((caller, code)).or_default() += 1,
            Said::Nothing => self.lost.push(at),
        }
    }
}

/// One question about a card that nobody asked about before; wires in turn.
fn request(address: &str, caller: &Caller, number: u64) -> Vec<u8> {
    let card = format!("62170000{:011}", number % 100_000_000_000);
    if number.is_multiple_of(2) {
        let body = format!(
            r#"{{"Name":"张伟","BankCard":"{card}","Phone":"16100000001","IdCard":"99010119610202001X"}}"#
        );
        let post = JsonPost {
            host: address,
            action: "BankCard4EVerification",
            body: body.as_bytes(),
            timestamp: now(),
        };
        return post.to_http1(&caller.secret_id, &caller.secret_key, &[]);
    }
    let body = format!(
        r#"{{"name":"张伟","bank_card":"{card}","phone":"16100000001","id_card":"99010119610202001X"}}"#
    );
    let (token, length) = (&caller.token, body.len());
    format!(
        "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// What a reply says.
enum Said {
    /// An answer, by request; whether it is charged.
    Answer(String, bool),
    Refusal(String),
    /// nginx had nobody to ask, or lost who it asked.
    Nothing,
}

fn read(reply: &Reply) -> Said {
    if matches!(reply.status, 502 | 504) {
        return Said::Nothing;
    }
    let body = reply.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let response = &body["Response"];
    if let Some(result) = response["Result"].as_str() {
        let free = matches!(result, "-2" | "-3" | "-4" | "-5" | "-18" | "-19" | "-20");
        return Said::Answer(text(&response["RequestId"]), !free);
    }
    if body["result"].is_string() {
        let request = reply.header("x-trace-id").unwrap().to_owned();
        return Said::Answer(request, reply.header("x-charged") == Some("1"));
    }
    let code = text(if response.is_null() { &body["error"]["code"] } else { &response["Error"]["Code"] });
    assert!(!code.is_empty(), "{body}");
    Said::Refusal(code)
}

/// When what happened, since the load began.
#[derive(Default)]
struct Times {
    killed: Duration,
    database: Option<(Duration, Duration)>,
    limiter_gone: Duration,
    limiter_back: Duration,
    ended: Duration,
}

/// Under load a node is killed and started again, then the database if there is one, then the limiter.
fn bad_day(cluster: &mut Cluster, told: &Mutex<Told>) -> Times {
    let (began, stop, mut times) = (Instant::now(), AtomicBool::new(false), Times::default());
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
    let Cluster { nodes, nginx, redis, database, callers, .. } = cluster;
    std::thread::scope(|threads| {
        for (caller, seed) in callers.iter().chain(&*callers).zip(1..) {
            let load = Load { address: &nginx.address, began, stop: &stop, told };
            threads.spawn(move || load.ask(caller, seed));
        }
        pause(2000);
        times.killed = began.elapsed();
        nodes[1].server.take().unwrap().kill();
        pause(3000);
        nodes[1].run();
        pause(2000);
        if let Some(database) = database {
            let gone = began.elapsed();
            database.kill();
            pause(500);
            database.run();
            times.database = Some((gone, began.elapsed()));
            until("there are answers again", || {
                told.lock().unwrap().steady.last() > times.database.map(|(_, back)| back).as_ref()
            });
            pause(2000);
        }
        times.limiter_gone = began.elapsed();
        redis.kill();
        until("all nodes miss the limiter", || limiter_is(nodes, "away"));
        pause(2000);
        redis.run();
        until("all nodes have the limiter", || limiter_is(nodes, "ok"));
        times.limiter_back = began.elapsed();
        pause(2000);
        stop.store(true, Ordering::Relaxed);
    });
    times.ended = began.elapsed();
    times
}

/// Whether every node says this of the limiter.
fn limiter_is(nodes: &[Node], state: &str) -> bool {
    let mut servers = nodes.iter().filter_map(|node| node.server.as_ref());
    servers.all(|server| server.get("/readyz").json()["limiter"] == state)
}

#[test]
fn nothing_is_lost_or_charged_twice_and_no_limit_is_exceeded_on_a_bad_day() {
    survives_a_bad_day(Books::EachItsOwn);
}

#[test]
fn nor_on_one_database_which_is_killed_as_well() {
    survives_a_bad_day(Books::OneDatabase);
}

fn survives_a_bad_day(books: Books) {
    let Some(mut cluster) = Cluster::start(books) else { return };
    assert!(limiter_is(&cluster.nodes, "ok"));
    let told = Mutex::default();
    let times = bad_day(&mut cluster, &told);
    let decision_us = decision_us(&cluster.nodes);
    for node in &mut cluster.nodes {
        node.server.take().unwrap().stop();
    }
    let (told, ledger) = (told.into_inner().unwrap(), cluster.ledger());
    every_answer_is_there_once(&told, &ledger, &times);
    no_balance_is_overspent(&cluster, &told, &ledger);
    no_limit_is_exceeded(&told, &ledger, &times);
    print(&told, &ledger, &times, decision_us);
}

/// How long an answer of the limiter takes, microseconds.
fn decision_us(nodes: &[Node]) -> f64 {
    let servers: Vec<_> = nodes.iter().filter_map(|node| node.server.as_ref()).collect();
    let sum = |name| servers.iter().map(|server| metric(server, name)).sum::<f64>();
    sum("card4e_limiter_seconds_sum") * 1e6 / sum("card4e_limiter_seconds_count")
}

fn every_answer_is_there_once(told: &Told, ledger: &HashMap<String, Recorded>, times: &Times) {
    for (request, charged) in &told.answers {
        let recorded =
            ledger.get(request).unwrap_or_else(|| panic!("{request} was answered and is in no ledger"));
        assert_eq!(recorded.charged, *charged, "{request}");
    }
    // What was answered but not heard was lost on its way: between a node and nginx, or nginx and a client.
    let unheard = ledger.len() - told.answers.len();
    assert!(unheard <= told.lost.len(), "{unheard} answers nobody heard, {} questions lost", told.lost.len());
    assert!(told.answers.len() > 1000 && told.steady.len() > 500, "there was hardly any load");
    // Each who asks can have had one question at the node that was killed; the limiter costs nobody an answer.
    let at_the_kill = times.killed..times.killed + Duration::from_secs(3);
    let (near, far): (Vec<Duration>, Vec<Duration>) =
        told.lost.iter().partition(|at| at_the_kill.contains(*at));
    assert!(near.len() <= 12 && far.is_empty(), "{near:?} {far:?} of {:?}", times.killed);
}

fn no_balance_is_overspent(cluster: &Cluster, told: &Told, ledger: &HashMap<String, Recorded>) {
    let mut spent = BTreeMap::<usize, u64>::new();
    for recorded in ledger.values().filter(|recorded| recorded.caller == "poor" && recorded.charged) {
        *spent.entry(recorded.ledger).or_default() += 1;
    }
    let (accounts, least) = match cluster.books {
        Books::EachItsOwn => (3, CREDITS),
        // What the killed node had taken of it comes back later.
        Books::OneDatabase => (1, CREDITS / 2),
    };
    assert_eq!(spent.len(), accounts);
    assert!(
        spent.values().all(|spent| (least..=CREDITS).contains(spent)),
        "all of it and no more: {spent:?}"
    );
    let refused = |code: &str| told.refused.get(&("poor", code.to_owned())).copied().unwrap_or(0);
    assert!(refused("UnauthorizedOperation.Arrears") > 0 && refused("used_up") > 0, "{:?}", told.refused);
}

/// The bound of `docs/scale.md`: what the limiter grants, once more for its restart, and all shares in each
/// second of the clock in which a node did not reach it.
fn no_limit_is_exceeded(told: &Told, ledger: &HashMap<String, Recorded>, times: &Times) {
    let granted = ledger.values().filter(|recorded| recorded.caller == "greedy").count() as f64;
    let away = times.limiter_back - times.limiter_gone;
    let by_limiter = f64::from(LIMIT) * (times.ended.as_secs_f64() + 2.0);
    let by_shares = f64::from(LIMIT + 2) * (away.as_secs_f64().ceil() + 1.0);
    assert!(granted <= by_limiter + by_shares, "{granted} granted, {by_limiter} and {by_shares} may be");
    // And it is the limit that holds it back, which is not much lower.
    assert!(granted > 0.6 * f64::from(LIMIT) * times.ended.as_secs_f64(), "{granted} in {:?}", times.ended);
    let refused = |code: &str| told.refused.get(&("greedy", code.to_owned())).copied().unwrap_or(0);
    assert!(refused("RequestLimitExceeded") > 0 && refused("too_many_requests") > 0, "{:?}", told.refused);
}

/// The figures of failing over, past the test harness, which keeps to itself what a test prints.
fn print(told: &Told, ledger: &HashMap<String, Recorded>, times: &Times, decision_us: f64) {
    let between = |from: Duration, to: Duration| {
        let mut at = told.steady.iter().filter(|at| (from..to).contains(*at)).collect::<Vec<_>>();
        at.sort();
        let gap = at.windows(2).map(|pair| *pair[1] - *pair[0]).max().unwrap_or_default();
        let lost = told.lost.iter().filter(|at| (from..to).contains(*at)).count();
        format!("longest silence {} ms, {lost} lost", gap.as_millis())
    };
    let second = Duration::from_secs(1);
    let restarted = times.database.map(|(gone, back)| {
        format!(
            "the database gone for {} ms: {}; ",
            (back - gone).as_millis(),
            between(gone - second, back + 3 * second)
        )
    });
    let restarted = restarted.unwrap_or_default();
    let text = format!(
        "three nodes, {} answers in {:.1} s, {} lost on the way ({} of them answered): a node killed: {}; {restarted}the \
         limiter killed: {}; its return: {}; an answer of the limiter takes {decision_us:.0} us\n",
        told.answers.len(),
        times.ended.as_secs_f64(),
        told.lost.len(),
        ledger.len() - told.answers.len(),
        between(times.killed - second, times.killed + 2 * second),
        between(times.limiter_gone - second, times.limiter_gone + 2 * second),
        between(times.limiter_back - second, times.limiter_back + second),
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
