//! Limits that hold across nodes: the script against a model, servers that share a Redis, and a Redis that
//! is slow, gone, flushed, or not who it says.

pub mod redis_server;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use redis_server::Redis;
use serde_json::Value;

use super::serve::{Installation, Shop, acedata, card4e};
use super::support::Sandbox;

const GCRA: &str = include_str!("../../src/limiter/gcra.lua");
const CARD: &str = "6217000000000000012";

/// The generic cell rate algorithm as it is published, with its theoretical arrival time in units of
/// 1/limit microseconds: all whole numbers.
#[derive(Default)]
struct Model {
    arrival: u128,
}

impl Model {
    fn count(&mut self, limit: u32, now_us: u64) -> u32 {
        const INTERVAL: u128 = 1_000_000;
        let (limit_wide, now) = (u128::from(limit), u128::from(now_us) * u128::from(limit));
        let arrival = self.arrival.max(now) + INTERVAL;
        if arrival - now > limit_wide * INTERVAL {
            return limit + 1;
        }
        self.arrival = arrival;
        (arrival - now).div_ceil(INTERVAL) as u32
    }
}

/// Begins a little before now: whole microseconds since 1970 must be exact.
const BEGIN_US: u64 = 1_800_000_000_000_000;

fn counted(redis: &mut redis::Connection, key: &str, limit: u32, now_us: u64) -> u32 {
    redis::cmd("EVAL").arg(GCRA).arg(1).arg(key).arg(limit).arg(now_us).query(redis).unwrap()
}

#[test]
fn the_script_counts_as_the_model_does() {
    let Some(server) = Redis::start() else { return };
    let (redis, number) = (RefCell::new(server.client()), Cell::new(0));
    let pauses = prop_oneof![0..3u64, 0..2000u64, 0..200_000u64, 900_000..1_100_000u64];
    let limits = prop_oneof![1..4u32, 1..100u32, Just(999), Just(1_000_000), Just(u32::MAX - 1)];
    let mut runner = proptest::test_runner::TestRunner::default();
    let cases = (limits, prop::collection::vec(pauses, 1..200));
    let ran = runner.run(&cases, |(limit, pauses)| {
        number.set(number.get() + 1);
        let (key, mut model, mut now_us) = (format!("test:{}", number.get()), Model::default(), BEGIN_US);
        let mut granted = Vec::new();
        for pause in pauses {
            now_us += pause;
            let sent = counted(&mut redis.borrow_mut(), &key, limit, now_us);
            prop_assert_eq!(sent, model.count(limit, now_us), "{} at {}", limit, now_us);
            if sent <= limit {
                granted.push(now_us);
            }
        }
        // What it is for: in no second more than the burst and what a second brings.
        for (at, began) in granted.iter().enumerate() {
            let within = granted[at..].iter().take_while(|when| **when < began + 1_000_000).count();
            prop_assert!(within as u64 <= 2 * u64::from(limit), "{} in a second of {}", within, limit);
        }
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn a_limit_that_changes_and_a_clock_that_is_set_back_do_not_lock_anybody_out() {
    let Some(server) = Redis::start() else { return };
    let mut redis = server.client();
    let mut ask = |limit: u32, at_us: u64| counted(&mut redis, "test", limit, at_us);
    for sent in 1..=100 {
        assert_eq!(ask(100, BEGIN_US), sent);
    }
    assert_eq!(ask(100, BEGIN_US), 101, "used up");
    assert_eq!(ask(10, BEGIN_US + 99_999), 11, "of the lower limit as well, and no more than that");
    assert_eq!(ask(10, BEGIN_US + 100_000), 10, "a tenth of a second brings one");
    assert_eq!(ask(10, BEGIN_US - 3_600_000_000), 11, "an hour back nothing is given");
    assert_eq!(
        ask(1000, BEGIN_US - 3_600_000_000),
        11,
        "a higher limit has room, and the time is the new one"
    );
    assert_eq!(ask(1000, BEGIN_US - 3_600_000_000 + 9_000), 3, "nine milliseconds brought nine");
    let left: i64 = redis::cmd("PTTL").arg("test").query(&mut redis).unwrap();
    assert!((1..=10_000).contains(&left), "the key goes by itself: {left}");
}

/// What a node's settings need for these tests.
fn settings(more: &str) -> Vec<(&'static str, String)> {
    let off = ["per_card = 10 ", "per_value = 500 ", "lock_after = 3 "];
    let off = off.map(|line| (line, format!("{} = 0 ", line.split(' ').next().unwrap())));
    let mut settings = vec![
        ("free_quota = \"10\"", "free_quota = \"100000\"".to_owned()),
        ("[limits]\nnodes = 1 ", format!("[limits]\n{more}\n#")),
        ("timeout_ms = 20 ", "#".to_owned()),
        ("away = \"share\"", "#".to_owned()),
    ];
    settings.extend(off);
    settings
}

/// An installation whose `[limits]` are these, with a shop of its own.
fn bank(limits: &str) -> (Installation, Shop) {
    let settings = settings(limits);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let bank = Installation::new(&settings);
    let shop = bank.shop();
    (bank, shop)
}

fn ready(server: &Sandbox) -> Value {
    server.get("/readyz").json()
}

/// A value of `/metrics`.
pub fn metric(server: &Sandbox, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).split(' ').nth(1).unwrap().parse().unwrap()
}

/// Waits until it is so, and tells how long that took.
pub fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Asks until it is told to stop; gives how many were granted.
fn granted(server: &Sandbox, token: &str, stop: &AtomicBool, pause: Duration) -> (u32, u32) {
    let (mut granted, mut refused) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match acedata(server, token, CARD).status {
            200 => granted += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
        std::thread::sleep(pause);
    }
    (granted, refused)
}

#[test]
fn two_servers_share_one_limit() {
    let Some(redis) = Redis::start() else { return };
    let limits = format!("nodes = 2\nlimiter = \"{}\"\ntimeout_ms = 1000", redis.url());
    let banks = [bank(&limits), bank(&limits)];
    let servers = banks.each_ref().map(|(bank, _)| Sandbox::serving(&bank.config));
    for server in &servers {
        assert_eq!(ready(server)["limiter"], "ok");
    }
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let answered: u32 = std::thread::scope(|threads| {
        let ask = |at: usize| granted(&servers[at], &banks[at].1.token, &stop, Duration::ZERO).0;
        let asking: Vec<_> = [0, 1, 0, 1].map(|at| threads.spawn(move || ask(at))).into_iter().collect();
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        asking.into_iter().map(|asking| asking.join().unwrap()).sum()
    });
    let seconds = began.elapsed().as_secs_f64();
    let most = 20.0 * (seconds + 1.0);
    assert!(f64::from(answered) <= most, "{answered} in {seconds} s of 20 a second");
    assert!(f64::from(answered) > 0.8 * most - 4.0, "{answered} in {seconds} s: who asks enough gets it all");
    let sum = |end| servers.iter().map(|server| metric(server, &requests(end))).sum::<f64>();
    assert_eq!((sum("granted"), sum("failed"), sum("unasked")), (f64::from(answered), 0.0, 0.0));
    // Both wires tell how the application stands, whichever node it asks.
    std::thread::sleep(Duration::from_secs(1));
    let told = |at: usize| {
        let reply = acedata(&servers[at], &banks[at].1.token, CARD);
        (
            reply.header("ratelimit-limit").unwrap().to_owned(),
            reply.header("ratelimit-remaining").unwrap().to_owned(),
        )
    };
    assert_eq!(told(0), ("20".into(), "19".into()));
    let (limit, remaining) = told(1);
    assert!(limit == "20" && ["18", "19"].contains(&remaining.as_str()), "{remaining}");
    let answers = banks.iter().map(|(bank, _)| bank.run(&["audit", "check"])["answers"].as_u64().unwrap());
    assert_eq!(answers.sum::<u64>(), u64::from(answered) + 2, "what was refused is in no ledger");
}

fn requests(end: &str) -> String {
    format!("card4e_limiter_requests_total{{end=\"{end}\"}}")
}

/// Without a limiter the nodes grant the limit between them, and at most one request a second more for each
/// node but the first.
#[test]
fn without_a_limiter_each_node_has_its_share() {
    let (bank, shop) = bank("nodes = 3");
    let server = Sandbox::serving(&bank.config);
    let reply = acedata(&server, &shop.token, CARD);
    assert_eq!((reply.status, reply.header("ratelimit-limit")), (200, Some("7")), "a third of twenty");
    assert!(ready(&server)["limiter"].is_null());
    let refused = (0..16).filter(|_| acedata(&server, &shop.token, CARD).status == 429).count();
    assert!(refused > 0, "seven a second, in two seconds fourteen");
}

/// A limiter that is killed, stays away and comes back, while questions are asked all the time.
#[test]
fn a_limiter_that_dies_is_not_waited_for_and_comes_back() {
    let Some(mut redis) = Redis::start() else { return };
    // Long enough for a busy machine: it must not go away for another reason.
    let limits = |away: &str| format!("nodes = 2\nlimiter = \"{}\"\ntimeout_ms = 300\n{away}", redis.url());
    let (shares, shop) = bank(&limits(""));
    let (refuses, other) = bank(&limits("away = \"refuse\""));
    let (shares, refuses) = (Sandbox::serving(&shares.config), Sandbox::serving(&refuses.config));
    let (stop, slowest_ms) = (Arc::new(AtomicBool::new(false)), AtomicU32::new(0));
    // Fewer than its share: then nobody may be refused, whatever happens to the limiter.
    let pause = Duration::from_millis(130);
    std::thread::scope(|threads| {
        let open = threads.spawn(|| {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(acedata(&shares, &shop.token, CARD).status, 200);
                slowest_ms.fetch_max(began.elapsed().as_millis() as u32, Ordering::Relaxed);
                answered += 1;
                std::thread::sleep(pause);
            }
            answered
        });
        assert_eq!(acedata(&refuses, &other.token, CARD).status, 200);
        redis.kill();
        until("it is away", || ready(&refuses)["limiter"] == "away" && ready(&shares)["limiter"] == "away");
        assert_eq!(ready(&refuses)["ready"], true, "an answer may still be given again");
        let ended = Instant::now();
        while ended.elapsed() < Duration::from_millis(1200) {
            let reply = acedata(&refuses, &other.token, CARD);
            assert_eq!(
                (reply.status, reply.json()["error"]["code"].as_str()),
                (429, Some("too_many_requests"))
            );
            assert!(reply.header("ratelimit-limit").is_none(), "nobody knows how it stands");
            std::thread::sleep(pause);
        }
        redis.run();
        let back =
            until("it is back", || ready(&refuses)["limiter"] == "ok" && ready(&shares)["limiter"] == "ok");
        assert!(back < Duration::from_secs(3), "{back:?}");
        assert_eq!(acedata(&refuses, &other.token, CARD).status, 200);
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        assert!(open.join().unwrap() >= 10);
    });
    assert!(metric(&shares, &requests("unasked")) >= 3.0, "it was not asked while it was away");
    assert_eq!(metric(&shares, "card4e_limiter_away_cores"), 0.0);
    for server in [&shares, &refuses] {
        let log = server.log();
        for once in ["the limiter does not answer", "the limiter answers again"] {
            assert_eq!(log.matches(once).count(), 1, "{log}");
        }
    }
    let slowest_ms = slowest_ms.into_inner();
    assert!(slowest_ms < 1000, "{slowest_ms} ms");
}

/// A limiter that hangs costs one question the time limit, not each.
#[test]
fn a_limiter_that_hangs_is_left_alone() {
    let Some(redis) = Redis::start() else { return };
    let limits = format!("limiter = \"{}\"\ntimeout_ms = 60", redis.url());
    let settings = settings(&limits);
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(from, to)| (*from, to.as_str())).collect();
    settings.push(("requests_per_second = 20 ", "requests_per_second = 100000 "));
    let bank = Installation::new(&settings);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(acedata(&server, &shop.token, CARD).status, 200);
    let () = redis::cmd("CLIENT").arg("PAUSE").arg(3000).query(&mut redis.client()).unwrap();
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(acedata(&server, &shop.token, CARD).status, 200);
    }
    assert!(began.elapsed() < Duration::from_millis(3000), "100 times 60 ms were not waited");
    let failed = metric(&server, &requests("failed"));
    assert!((1.0..=2.0).contains(&failed), "once for each core: {failed}");
    assert!(server.log().contains("no answer within limits.timeout_ms, 60 ms"), "{}", server.log());
    until("it is asked again", || ready(&server)["limiter"] == "ok");
}

#[test]
fn scripts_that_are_flushed_are_sent_again() {
    let Some(redis) = Redis::start() else { return };
    let (bank, shop) = bank(&format!("limiter = \"{}\"\ntimeout_ms = 1000", redis.url()));
    let server = Sandbox::serving(&bank.config);
    let stop = AtomicBool::new(false);
    let flushed = std::thread::scope(|threads| {
        let flushing = threads.spawn(|| {
            let (mut client, mut times) = (redis.client(), 0);
            while !stop.load(Ordering::Relaxed) {
                let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut client).unwrap();
                times += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        let began = Instant::now();
        let mut answered = 0;
        while began.elapsed() < Duration::from_secs(2) {
            answered += u32::from(acedata(&server, &shop.token, CARD).status == 200);
        }
        stop.store(true, Ordering::Relaxed);
        let most = 20.0 * (began.elapsed().as_secs_f64() + 1.0);
        assert!(answered > 30 && f64::from(answered) <= most, "{answered}");
        flushing.join().unwrap()
    });
    assert!(flushed > 100, "{flushed}");
    assert_eq!((metric(&server, &requests("failed")), metric(&server, &requests("unasked"))), (0.0, 0.0));
}

/// The user that `docs/scale.md` says is enough, as it is written after `user` in Redis's settings.
fn limited_user(password: &str) -> String {
    let page = include_str!("../../../../docs/scale.md");
    let line = page.lines().find_map(|line| line.strip_prefix("user ")).unwrap();
    line.replace("PASSWORD", password)
}

#[test]
fn certificates_and_passwords_are_checked() {
    let files = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let out = files.path().join(name);
        assert!(card4e(&["tls", "dev-ca", "--out", out.to_str().unwrap()]).status.success());
        out
    };
    let (right, wrong) = (made("right"), made("wrong"));
    let file = |name: &str| right.join(name).display().to_string();
    let (certificate, key) = (file("server.pem"), file("server-key.pem"));
    let options = ["--tls-port", "TLS_PORT", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let user = limited_user("s3cret-of-card4e");
    let user: Vec<&str> = user.split(' ').collect();
    let secured = ["--tls-auth-clients", "no", "--requirepass", "s3cret-of-redis", "--user"];
    let Some(redis) = Redis::start_with(&[&options[..], &secured, &user].concat()) else { return };
    let password = |of: &str| {
        let file = files.path().join(of);
        std::fs::write(&file, format!("s3cret-of-{of}\n")).unwrap();
        format!("password_file = \"{}\"", file.display())
    };
    let known = password("redis");
    let limited = format!("username = \"card4e\"\n{}", password("card4e"));
    let limits = |ca: &std::path::Path, password: &str| {
        format!(
            "limiter = \"{}\"\nca = \"{}\"\n{password}\naway = \"refuse\"\ntimeout_ms = 1000",
            redis.tls_url(),
            ca.join("ca.pem").display()
        )
    };
    for (ca, password, found) in [
        (&right, known.as_str(), None),
        (&right, limited.as_str(), None),
        (&wrong, known.as_str(), Some("invalid peer certificate")),
        (&right, "", Some("NOAUTH")),
    ] {
        let (bank, shop) = bank(&limits(ca, password));
        let done = card4e(&["doctor", "--json", "--config", bank.config.to_str().unwrap()]);
        let said = String::from_utf8(done.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("\"limiter\"")).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        let server = Sandbox::serving(&bank.config);
        let status = acedata(&server, &shop.token, CARD).status;
        match found {
            None => {
                assert_eq!(
                    (status, &line["state"], ready(&server)["limiter"].as_str()),
                    (200, &"ok".into(), Some("ok"))
                );
            }
            Some(why) => {
                assert_eq!((status, &line["state"]), (429, &"problem".into()), "{line}");
                assert!(
                    server.log().contains(why) && line["found"].as_str().unwrap().contains(why),
                    "{}",
                    server.log()
                );
                assert!(
                    ready(&server)["warnings"][1].as_str().unwrap().contains("the limiter does not answer")
                );
            }
        }
        assert!(!server.log().contains("s3cret") && !said.contains("s3cret"));
    }
}

#[test]
fn a_limiter_can_be_set_and_removed_while_questions_are_answered() {
    let Some(redis) = Redis::start() else { return };
    let (bank, shop) = bank("nodes = 2");
    let server = Sandbox::serving(&bank.config);
    let limit = || acedata(&server, &shop.token, CARD).header("ratelimit-limit").unwrap().to_owned();
    assert_eq!(limit(), "10");
    let set =
        format!("nodes = 2\nlimiter = \"{}\"", redis.url().replace("redis://", "redis://:pass-phrase@"));
    let log = super::reload::reload(&bank, &server, &[("nodes = 2", &set)]);
    assert!(
        log.contains("limits.limiter = \"redis://***@127.0.0.1") && !log.contains("pass-phrase"),
        "{log}"
    );
    until("it is seen", || ready(&server)["limiter"] == "away");
    let log = super::reload::reload(&bank, &server, &[(":pass-phrase@", "")]);
    assert!(log.contains("limits.limiter"), "{log}");
    until("it answers", || ready(&server)["limiter"] == "ok");
    assert_eq!(limit(), "20");
    super::reload::reload(&bank, &server, &[("limiter = \"redis:", "# limiter = \"redis:")]);
    until("it is gone", || ready(&server)["limiter"].is_null());
    assert_eq!(limit(), "10");
}
