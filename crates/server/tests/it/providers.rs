//! Three live processes: an installation in front of two sandboxes, one asked over each wire, that delay,
//! drop, cut, fail and misnumber by seed. No wrong pass, no double charge, no cap crossed, and every
//! purchase in the ledger.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cli::assert_screen;
use super::postgres;
use super::screens::steady;
use super::serve::{Installation, Shop, card4e, error, fed};
use super::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN};

/// Known to both sandboxes with [`PHONE`], and not to the front.
const CARD: &str = "6217000000000000012";
const PHONE: &str = "16100000001";

/// The front's settings: providers `t` and `a`, one route, no limits but those that are tested.
struct Front<'a> {
    tencent: &'a str,
    acedata: &'a str,
    numbering: &'a str,
    /// Further settings of both providers.
    provider: &'a str,
    route: &'a str,
    /// The database of several nodes; empty: files.
    store: &'a str,
}

impl Default for Front<'_> {
    fn default() -> Self {
        Front {
            tencent: "127.0.0.1:1",
            acedata: "127.0.0.1:1",
            numbering: "documented",
            provider: "",
            route: "providers = [{ name = \"t\" }, { name = \"a\" }]",
            store: "",
        }
    }
}

impl Front<'_> {
    fn settings(&self, secrets: &Path) -> String {
        let secret = |name: &str, secret: &str| {
            let path = secrets.join(name);
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            path.display().to_string()
        };
        let (tencent, acedata) = (secret("t.key", SECRET_KEY), secret("a.token", TOKEN));
        let Front { provider, route, numbering, .. } = self;
        format!(
            "[[provider]]\nname = \"t\"\nconnector = \"tencent\"\nurl = \"http://{}\"\nsecret_id = \"{SECRET_ID}\"\n\
             secret_file = \"{tencent}\"\nprice = \"0.7\"\n{provider}\n\
             [[provider]]\nname = \"a\"\nconnector = \"acedata\"\nurl = \"http://{}\"\nnumbering = \"{numbering}\"\n\
             secret_file = \"{acedata}\"\nprice = \"0.5\"\n{provider}\n\
             [[route]]\nname = \"all\"\n{route}\n\n[tencent]\nlanguage",
            self.tencent, self.acedata
        )
    }

    fn installed(&self) -> (Installation, Shop) {
        let secrets = tempfile::tempdir().unwrap().keep();
        let settings = self.settings(&secrets);
        let store = format!("store = {:?}", self.store);
        let bank = Installation::new(&[
            ("store = \"\"", &store),
            ("[tencent]\nlanguage", &settings),
            ("requests_per_second = 20 ", "requests_per_second = 0 "),
            ("per_card = 10", "per_card = 0"),
            ("per_value = 500", "per_value = 0"),
            ("lock_after = 3", "lock_after = 0"),
        ]);
        let shop = bank.shop();
        bank.run(&["caller", "recharge", "shop", "1000"]);
        (bank, shop)
    }
}

fn ask(server: &Sandbox, shop: &Shop, phone: &str, key: Option<&str>) -> Reply {
    let bearer = format!("Bearer {}", shop.token);
    let body =
        format!(r#"{{"name":"张伟","bank_card":"{CARD}","phone":"{phone}","id_card":"99010119610202001X"}}"#);
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    server.request("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes())
}

fn result(reply: &Reply) -> String {
    reply.json()["result"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

fn provider<'a>(status: &'a Value, name: &str) -> &'a Value {
    status.as_array().unwrap().iter().find(|is| is["name"] == name).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn both_wires_are_bought_from_and_the_money_of_both_sides_is_in_the_ledger() {
    let (tencent, acedata) = (Sandbox::start(), Sandbox::start());
    let front = Front { tencent: &tencent.address, acedata: &acedata.address, ..Front::default() };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0");
    assert_eq!(result(&ask(&server, &shop, "16100000009", None)), "-4", "in the front's own numbering");
    assert_eq!((tencent.charges(), acedata.charges()), (2, 0));
    tencent.fault(r#"{"effect":{"outcome":"SOURCE_BUSY"}}"#);
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0", "the other one answers");
    acedata.fault(r#"{"effect":{"outcome":"SOURCE_BUSY"}}"#);
    let busy = ask(&server, &shop, PHONE, None);
    assert_eq!((result(&busy).as_str(), busy.header("x-charged")), ("-16", Some("0")));
    let status = bank.run(&["provider", "list"]);
    assert_eq!(provider(&status, "t")["spent"], "1.4");
    assert_eq!(provider(&status, "a")["spent"], "0.5");
    // The same provider, however the question comes in.
    tencent.control("DELETE", "faults", "");
    let ready = server.get("/readyz").json();
    assert_eq!((&ready["ready"], &ready["providers"][0]["breaker"]), (&true.into(), &"closed".into()));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("card4e_provider_spent_today_credits{provider=\"t\"} 1.4"), "{metrics}");
    assert!(metrics.contains("card4e_provider_calls_total{provider=\"t\",end=\"answered\"} 4"), "{metrics}");
    server.stop();
    assert_eq!(provider(&bank.run(&["provider", "list"]), "t")["spent"], "1.4", "after a restart");
    let margins = bank.run(&["ledger", "margin"]);
    let all = &margins.as_array().unwrap()[0];
    assert_eq!(
        (&all["route"], &all["charged"], &all["cost"], &all["margin"]),
        (&"all".into(), &"3".into(), &"1.9".into(), &"1.1".into())
    );
    assert!(bank.run(&["audit", "check"])["answers"] == 4);
}

#[test]
fn a_provider_with_a_sealing_key_gets_no_element_in_the_clear() {
    let tencent = Sandbox::start();
    let keys = tencent.get("/encryption-keys").json();
    for kind in ["rsa", "sm2"] {
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("key.pem");
        std::fs::write(&pem, keys[kind]["spki_pem"].as_str().unwrap()).unwrap();
        let front =
            Front { tencent: &tencent.address, route: "providers = [{ name = \"t\" }]", ..Front::default() };
        let (bank, shop) = front.installed();
        let text = std::fs::read_to_string(&bank.config).unwrap();
        let sealing = format!("secret_id = \"{SECRET_ID}\"\nseal_key = \"{}\"\n", pem.display());
        std::fs::write(&bank.config, text.replace(&format!("secret_id = \"{SECRET_ID}\"\n"), &sealing))
            .unwrap();
        let server = Sandbox::serving(&bank.config);
        assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0", "{kind}");
        assert_eq!(result(&ask(&server, &shop, "16100000009", None)), "-4", "{kind}");
    }
}

#[test]
fn a_wrong_numbering_and_a_wrong_clock_give_no_wrong_answer() {
    let (tencent, acedata) = (Sandbox::start(), Sandbox::start());
    // Tencent's numbers are expected, the guide's come: -4 would be "malformed", and free.
    let front = Front {
        tencent: &tencent.address,
        acedata: &acedata.address,
        numbering: "upstream_4e",
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    // Ten minutes off: the signature is refused, for free, and the other provider is asked.
    tencent.control("PUT", "clock", r#"{"mode":"shifted","seconds":-600}"#);
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0");
    assert_eq!(
        result(&ask(&server, &shop, "16100000009", None)),
        "-1",
        "declined, not what -4 means elsewhere"
    );
    let status = bank.run(&["provider", "list"]);
    assert_eq!(provider(&status, "t")["refused"], 2);
    assert_eq!(provider(&status, "a")["unknown"], 1);
    assert!(server.log().contains("nobody knows"), "{}", server.log());
    server.stop();
    let (file, config) = (bank.folder().join("audit.jsonl"), bank.config.to_str().unwrap());
    let out = ["audit", "export", "--out", file.to_str().unwrap(), "--config", config];
    let exported = card4e(&out);
    assert!(exported.status.success(), "{}", error(&exported));
    let exported = std::fs::read_to_string(file).unwrap();
    let raw: Vec<&str> = exported.lines().filter(|line| line.contains(r#""ending":"unclear""#)).collect();
    assert!(raw.len() == 1 && raw[0].contains(r#""code":"-4""#), "the raw code is in the evidence: {raw:?}");
}

/// By seed: delays over the time limit, drops before and after the answer, halves of bodies, 5xx, busy and
/// rate errors, on both providers; four callers at once, each question twice with its key.
#[test]
fn under_faults_by_seed_no_wrong_pass_no_double_charge_and_no_cap_crossed() {
    for seed in ["1", "7"] {
        under_faults(seed, "");
    }
}

/// The same of two nodes that share a database: who asks again asks the other one.
#[test]
fn nor_where_two_nodes_are_asked() {
    if let Some(database) = postgres::shared() {
        under_faults("3", &database.url());
    }
}

fn under_faults(seed: &str, store: &str) {
    let (tencent, acedata) = (Sandbox::with(&["--seed", seed]), Sandbox::with(&["--seed", seed]));
    for sandbox in [&tencent, &acedata] {
        for effect in [
            r#""drop":"after""#,
            r#""drop":"before""#,
            r#""truncate":9"#,
            r#""status":502,"when":"after""#,
            r#""delay_ms":1500"#,
            r#""outcome":"SOURCE_BUSY""#,
        ] {
            sandbox.fault(&format!(r#"{{"probability":0.08,"effect":{{{effect}}}}}"#));
        }
    }
    tencent.fault(r#"{"probability":0.1,"effect":{"error":"RequestLimitExceeded"}}"#);
    acedata.fault(r#"{"probability":0.1,"effect":{"error":"too_many_requests"}}"#);
    let front = Front {
        tencent: &tencent.address,
        acedata: &acedata.address,
        provider: "daily_cap = \"22\"\ntimeout_ms = 700\nbreaker_ms = 200\nbreaker_failures = 3",
        route: "providers = [{ name = \"t\", weight = 1 }, { name = \"a\", weight = 1 }]\ndeadline_ms = 2000",
        store,
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let other = (!store.is_empty()).then(|| bank.beside("other"));
    let mut servers = vec![Sandbox::serving(&bank.config)];
    servers.extend(other.map(|config| Sandbox::serving(&config)));
    let asked = |number: usize| {
        let phone = if number.is_multiple_of(2) { PHONE } else { "16100000009" };
        let key = format!("k-{number}");
        let [first, second] = [0, 1].map(|again| {
            let server = &servers[(number / 2 + again) % servers.len()];
            ask(server, &shop, phone, Some(&key))
        });
        let is_pass = number.is_multiple_of(2);
        let mut charged = 0;
        for reply in [&first, &second] {
            let result = result(reply);
            assert!(result != "0" || is_pass, "a wrong pass: {number}");
            assert!(["0", "-4", "-16"].contains(&result.as_str()), "{result}");
            assert!(result != "-4" || !is_pass, "{number}");
            charged += u64::from(reply.header("x-charged") == Some("1"));
            assert!(result != "-16" || reply.header("x-charged") == Some("0"));
        }
        assert!(charged <= 1, "charged twice for one question: {number}");
        charged
    };
    let charged: u64 = std::thread::scope(|scope| {
        let worker = |worker: usize| (0..30).map(|at| asked(worker * 30 + at)).sum::<u64>();
        let workers: Vec<_> = (0..4).map(|number| scope.spawn(move || worker(number))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    servers.into_iter().for_each(Sandbox::stop);
    // What was told to the caller is what is in the ledger.
    assert_eq!(bank.run(&["audit", "check"])["charges"].as_u64(), Some(charged), "seed {seed}");
    let status = bank.run(&["provider", "list"]);
    for (name, sandbox, price) in [("t", &tencent, 0.7), ("a", &acedata, 0.5)] {
        let is = provider(&status, name);
        let paid = sandbox.charges() as f64 * price;
        assert!(paid <= 22.0 + 1e-9, "{name}: {paid} is over the cap, seed {seed}");
        assert!(number(&is["spent"]) <= 22.0 && number(&is["spent"]) >= paid - 1e-9, "{is} against {paid}");
        // What may have been charged covers what the provider charged and we have no answer of.
        assert!(number(&is["uncertain"]) > 0.0, "the faults must have left something uncertain: {is}");
    }
    assert!(charged > 10, "most questions were answered: {charged}");
}

/// The second provider answers when the first is gone: how long that takes, and how long after the breaker
/// has opened.
#[test]
fn failing_over_is_quick() {
    let acedata = Sandbox::start();
    // Connections to this address are refused at once; elsewhere they may also hang until the limit.
    let front = Front { acedata: &acedata.address, provider: "breaker_ms = 600000", ..Front::default() };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0");
        took.push(began.elapsed());
    }
    let median = |of: &mut [Duration]| {
        of.sort_unstable();
        of[of.len() / 2]
    };
    let (first, rest) = took.split_at_mut(5);
    let (failing_over, open) = (median(first), median(rest));
    println!("failover: {failing_over:?} with the breaker closed, {open:?} with it open");
    assert!(failing_over < Duration::from_secs(1), "{failing_over:?}");
    let status = bank.run(&["provider", "list"]);
    assert_eq!(
        (&provider(&status, "t")["breaker"], &provider(&status, "t")["unsent"]),
        (&"open".into(), &5.into())
    );
    assert!(number(&provider(&status, "t")["spent"]) == 0.0, "what was never sent costs nothing");
}

/// Killed while a provider is being asked: the purchase is found, nobody is charged, the caller may ask
/// again.
#[test]
fn a_kill_in_the_middle_of_a_purchase_is_resolved_at_the_next_start() {
    killed_in_the_middle_of_a_purchase("");
}

#[test]
fn and_where_nodes_share_a_database() {
    if let Some(database) = postgres::shared() {
        killed_in_the_middle_of_a_purchase(&database.url());
    }
}

fn killed_in_the_middle_of_a_purchase(store: &str) {
    let tencent = Sandbox::start();
    tencent.fault(r#"{"count":1,"effect":{"delay_ms":20000}}"#);
    let front = Front {
        tencent: &tencent.address,
        provider: "timeout_ms = 60000",
        route: "providers = [{ name = \"t\" }]\ndeadline_ms = 60000",
        store,
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    std::thread::scope(|scope| {
        let (address, token) = (server.address.clone(), shop.token.clone());
        scope.spawn(move || {
            use std::io::{Read, Write};
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            let body = format!(
                r#"{{"name":"张伟","bank_card":"{CARD}","phone":"{PHONE}","id_card":"99010119610202001X"}}"#
            );
            let head = format!(
                "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            socket.write_all(head.as_bytes()).unwrap();
            socket.write_all(body.as_bytes()).unwrap();
            // Until the server is gone.
            let _ = socket.read(&mut [0]);
        });
        while provider(&bank.run(&["provider", "list"]), "t")["calls"] != 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server.kill();
    });
    let server = Sandbox::serving(&bank.config);
    assert!(server.log().contains("purchases were under way"), "{}", server.log());
    let status = bank.run(&["provider", "list"]);
    assert_eq!(
        (&provider(&status, "t")["spent"], &provider(&status, "t")["uncertain"]),
        (&"0.7".into(), &"0.7".into())
    );
    assert_eq!(bank.run(&["ledger", "summary"])["charges"], 0);
    let lost = bank.run(&["provider", "purchases", "--uncertain"]);
    assert_eq!((&lost["ending"], &lost["provider"]), (&"lost".into(), &"t".into()));
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0");
}

#[test]
fn what_is_wrong_with_a_provider_is_said_at_the_start() {
    let (bank, _) = Front::default().installed();
    let text = std::fs::read_to_string(&bank.config).unwrap();
    let at = text.find("\nsecret_file").unwrap();
    let line = text[at..].lines().nth(1).unwrap();
    std::fs::write(&bank.config, text.replace(line, "secret_env = \"CARD4E_TEST_NOT_SET\"")).unwrap();
    let said = bank.refused(&["serve"]);
    assert!(said.contains("provider `t`") && said.contains("set CARD4E_TEST_NOT_SET"), "{said}");
    // Other commands do without.
    bank.run(&["caller", "list"]);
}

/// A bill that agrees in part: what is wrong is listed, what nobody knew is settled.
#[test]
fn a_bill_is_held_against_the_ledger() {
    let tencent = Sandbox::start();
    let front = Front {
        tencent: &tencent.address,
        provider: "timeout_ms = 500",
        route: "providers = [{ name = \"t\" }]",
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    for phone in [PHONE, PHONE, "16100000009"] {
        ask(&server, &shop, phone, None);
    }
    // Two are answered and charged there, and their replies are lost; of one the provider forgets the charge.
    tencent.fault(r#"{"count":2,"effect":{"drop":"after"}}"#);
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "-16");
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "-16");
    let listed = lines(&bank, &["provider", "purchases"]);
    assert_eq!(listed.len(), 5);
    let reference = |at: usize| listed[at]["reference"].as_str().unwrap();
    let bill = format!(
        "Product,Reference,Amount,Time\n4E,{},0.7,\n4E,{},0.8,\n4E,,0.7,{}\n4E,nobody,0.7,2020-01-01T00:00:00Z\n",
        reference(0),
        reference(1),
        listed[3]["asked_at"].as_str().unwrap(),
    );
    let file = bank.folder().join("bill.csv");
    std::fs::write(&file, bill).unwrap();
    let config = bank.config.to_str().unwrap();
    let reconcile = |more: &[&str]| {
        let bill = ["reconcile", file.to_str().unwrap(), "--provider", "t", "--config", config, "--json"];
        let done = card4e(&[&bill, more].concat());
        let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", error(&done)));
        (done.status.code(), said)
    };
    let (code, said) = reconcile(&[]);
    assert_eq!(
        (code, &said["same"], &said["ours"], &said["billed"]),
        (Some(3), &1.into(), &"3.5".into(), &"2.9".into())
    );
    let found: Vec<_> =
        said["differences"].as_array().unwrap().iter().map(|is| is["difference"].as_str().unwrap()).collect();
    let differences =
        ["another amount", "uncertain, charged", "uncertain, not charged", "not on the bill", "never bought"];
    assert_eq!(found, differences);
    // Written by the server that is at work.
    assert_eq!(reconcile(&["--record"]).1["recorded"], 2);
    let status = bank.run(&["provider", "list"]);
    assert_eq!(
        (&provider(&status, "t")["spent"], &provider(&status, "t")["uncertain"]),
        (&"2.8".into(), &"0".into())
    );
    server.stop();
    let (_, said) = reconcile(&[]);
    assert_eq!((&said["ours"], said["differences"].as_array().unwrap().len()), (&"2.8".into(), 3));
    assert!(lines(&bank, &["provider", "purchases", "--uncertain"]).is_empty());
    assert_eq!(provider(&bank.run(&["provider", "list"]), "t")["spent"], "2.8", "after a restart");
    let said = bank.refused(&["reconcile", file.to_str().unwrap(), "--provider", "x"]);
    assert!(said.contains("nothing was ever bought from `x`"), "{said}");
}

/// The lines of JSON that a command prints.
fn lines(bank: &Installation, arguments: &[&str]) -> Vec<Value> {
    let done = card4e(&[arguments, &["--json", "--config", bank.config.to_str().unwrap()]].concat());
    assert!(done.status.success(), "{}", error(&done));
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Beside the accounts of record a new provider is watched; its replies are kept, and tried with other
/// settings. Nothing personal is in the file.
#[test]
fn shadows_are_compared_and_kept_exchanges_replayed() {
    let acedata = Sandbox::start();
    let front = Front {
        acedata: &acedata.address,
        route: "providers = [{ name = \"t\" }, { name = \"a\" }]\nshadows = [{ name = \"a\", share = 1.0 }]\n\
                reuse_hours = 1",
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let text = std::fs::read_to_string(&bank.config).unwrap();
    std::fs::write(&bank.config, text.replace("exchanges_max_mb = 0", "exchanges_max_mb = 1")).unwrap();
    let server = Sandbox::serving(&bank.config);
    let first = ask(&server, &shop, PHONE, None);
    assert_eq!((result(&first).as_str(), first.header("x-reused")), ("0", None));
    let again = ask(&server, &shop, PHONE, None);
    let told = (again.header("x-reused"), again.header("x-charged"), again.header("x-credits-charged"));
    assert_eq!(told, (Some("true"), Some("0"), Some("0")));
    acedata.fault(r#"{"skip":1,"count":1,"effect":{"outcome":"CARD_LOST"}}"#);
    assert_eq!(result(&ask(&server, &shop, "16100000009", None)), "-4");
    // The shadows are nobody's to wait for.
    let began = Instant::now();
    while lines(&bank, &["provider", "purchases"]).len() < 6 && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let compared = lines(&bank, &["provider", "shadows"]);
    assert_eq!((&compared[0]["asked"], &compared[0]["same"]), (&2.into(), &1.into()), "{compared:?}");
    assert_eq!(compared[0]["differences"][0]["shadow"], "CARD_LOST");
    let kept = std::fs::read_to_string(bank.folder().join("data/exchanges.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 4, "{kept}");
    for personal in [CARD, PHONE, "张伟", "99010119610202001X"] {
        assert!(!kept.contains(personal), "{personal}");
    }
    let next = bank.folder().join("next.toml");
    let replay = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&bank.config).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&next, text.replace(from, to)).unwrap();
        let config = ["--config", bank.config.to_str().unwrap(), "--json"];
        let done = card4e(&[&["replay", "--with", next.to_str().unwrap()][..], &config].concat());
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        let last = text.lines().last().unwrap_or_else(|| panic!("{}", error(&done)));
        (done.status.code(), serde_json::from_str::<Value>(last).unwrap()["differences"].clone(), text)
    };
    assert_eq!(replay("price = \"0.5\"", "price = \"0.6\"").1, 0);
    let (code, differ, text) =
        replay("numbering = \"documented\"\nsecret", "numbering = \"upstream_4e\"\nsecret");
    assert_eq!((code, differ), (Some(3), 2.into()), "a pass is 0 in both: {text}");
    assert!(text.contains("read as unknown instead of HOLDER_MISMATCH"), "{text}");
    let (_, differ, text) = replay("\nname = \"all\"\n", "\nname = \"all\"\nprefixes = [\"9\"]\n");
    assert!(differ == 4 && text.contains("taken by no route"), "{text}");
    server.stop();
}

/// Over TLS the provider's certificate must be one that a trusted CA has signed; else nothing leaves.
#[test]
fn a_provider_is_trusted_only_with_its_own_ca() {
    let data = tempfile::tempdir().unwrap();
    let acedata = Sandbox::with(&["--tls", "--data", data.path().to_str().unwrap()]);
    let other = data.path().join("other");
    assert!(card4e(&["tls", "dev-ca", "--out", other.to_str().unwrap()]).status.success());
    for (ca, told, spent) in [(data.path().join("tls"), "0", "0.5"), (other, "-16", "0")] {
        let front = Front { route: "providers = [{ name = \"a\" }]", ..Front::default() };
        let (bank, shop) = front.installed();
        let text = std::fs::read_to_string(&bank.config).unwrap();
        let (before, after) = text.split_once("[[route]]\nname = \"all\"\n").unwrap();
        let (before, settings) = before.rsplit_once("name = \"a\"").unwrap();
        let settings = settings.replace("http://127.0.0.1:1\"", &format!("https://{}\"", acedata.address));
        let ca = ca.join("ca.pem");
        let text = format!(
            "{before}name = \"a\"\nca = \"{}\"{settings}[[route]]\nname = \"all\"\n{after}",
            ca.display()
        );
        std::fs::write(&bank.config, text).unwrap();
        let server = Sandbox::serving(&bank.config);
        assert_eq!(result(&ask(&server, &shop, PHONE, None)), told, "{}", server.log());
        assert_eq!(provider(&bank.run(&["provider", "list"]), "a")["spent"], spent);
    }
}

/// What an operator sees of providers, word for word; and that a question from the machine itself, without
/// a server, is bought too.
#[test]
fn screens_of_providers() {
    let acedata = Sandbox::start();
    acedata.fault(r#"{"skip":1,"count":1,"effect":{"outcome":"ISSUER_UNSUPPORTED"}}"#);
    acedata.fault(r#"{"skip":1,"count":1,"effect":{"drop":"after"}}"#);
    let front = Front {
        acedata: &acedata.address,
        provider: "daily_cap = \"100\"\nmonthly_cap = \"2000\"",
        route: "providers = [{ name = \"a\" }]",
        ..Front::default()
    };
    let (bank, _) = front.installed();
    let config = bank.config.to_str().unwrap();
    let elements =
        format!(r#"{{"name":"张伟","bank_card":"{CARD}","phone":"{PHONE}","id_card":"99010119610202001X"}}"#);
    let asked = [(); 3].map(|()| {
        let done = fed(&["verify", "--caller", "shop", "--config", config, "--json"], &elements);
        let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", error(&done)));
        told["outcome"].as_str().unwrap().to_owned()
    });
    assert_eq!(asked, ["PASS", "ISSUER_UNSUPPORTED", "SOURCE_BUSY"]);
    let said = |arguments: &[&str]| {
        let done = card4e(&[arguments, &["--config", config]].concat());
        steady(&String::from_utf8(done.stdout).unwrap())
    };
    assert_screen("provider-list.txt", &said(&["provider", "list"]));
    assert_screen("provider-purchases.txt", &said(&["provider", "purchases"]));
    assert_screen("provider-shadows-none.txt", &said(&["provider", "shadows"]));
    assert_screen("ledger-margin.txt", &said(&["ledger", "margin"]));
    let bill = bank.folder().join("bill.csv");
    std::fs::write(&bill, "reference,time,amount\nnobody,2020-01-01T00:00:00Z,0.5\n").unwrap();
    let bill = bill.to_str().unwrap();
    assert_screen("reconcile.txt", &said(&["reconcile", bill, "--provider", "a", "--record"]));
    let doctor = said(&["doctor"]);
    assert!(doctor.contains("`t` is in no route"), "{doctor}");
}

/// An account that is not held here may be one that a provider knows: rows are not told that it does not exist.
#[test]
fn files_and_batches_are_refused_where_answers_are_bought() {
    let acedata = Sandbox::start();
    let front = Front { acedata: &acedata.address, ..Front::default() };
    let (bank, shop) = front.installed();
    let file = bank.folder().join("questions.csv");
    std::fs::write(
        &file,
        format!("bank_card,name,id_number,phone\n{CARD},张伟,99010119610202001X,{PHONE}\n"),
    )
    .unwrap();
    let (config, out) = (bank.config.to_str().unwrap(), bank.folder().join("out.csv"));
    let [from, to] = [&file, &out].map(|path| path.to_str().unwrap());
    let done = card4e(&["verify-file", "--caller", "shop", "--config", config, from, to]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("are not bought; ask them one by one"), "{said}");
    let server = Sandbox::serving(&bank.config);
    let bearer = format!("Bearer {}", shop.token);
    let line =
        format!(r#"{{"name":"张伟","bank_card":"{CARD}","phone":"{PHONE}","id_card":"99010119610202001X"}}"#);
    let path = "/api/v1/verifications/batch?purpose=account_opening&consent=terms-7";
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    let reply = server.request("POST", path, &headers, line.as_bytes());
    assert!(reply.status == 400 && reply.text().contains("are not bought"), "{}", reply.text());
    assert_eq!(acedata.charges(), 0);
    server.stop();
    assert_eq!(bank.run(&["ledger", "summary"])["answers"], 0);
}

/// Providers and routes change without a restart; a mistake in them changes nothing.
#[test]
fn routes_are_read_again() {
    let acedata = Sandbox::start();
    let front = Front {
        acedata: &acedata.address,
        route: "providers = [{ name = \"t\" }]\nrecord = \"first\"",
        ..Front::default()
    };
    let (bank, shop) = front.installed();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "-16");
    let hang_up = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&bank.config).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&bank.config, text.replace(from, to)).unwrap();
        let told = std::process::Command::new("kill").args(["-HUP", &server.pid().to_string()]).status();
        assert!(told.unwrap().success());
    };
    let logged = |what: &str| {
        let began = Instant::now();
        while !server.log().contains(what) {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    hang_up("providers = [{ name = \"t\" }]\nrecord", "providers = [{ name = \"nobody\" }]\nrecord");
    logged("no [[provider]] named `nobody`");
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "-16", "everything stays as it was");
    hang_up("providers = [{ name = \"nobody\" }]\nrecord", "providers = [{ name = \"a\" }]\nrecord");
    logged("was read again; changed: route");
    assert_eq!(result(&ask(&server, &shop, PHONE, None)), "0");
}
