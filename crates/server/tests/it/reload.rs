//! `SIGHUP`: settings that change while questions are answered.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::serve::{Installation, acedata, card4e};
use super::support::Sandbox;
use super::tls::Client;

const CARD: &str = "6217000000000000012";

/// Puts other settings in the file and asks the server to read them; gives what the log then says.
pub fn reload(bank: &Installation, server: &Sandbox, changes: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(&bank.config).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    std::fs::write(&bank.config, text).unwrap();
    let before = server.log().len();
    let asked = Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().unwrap();
    assert!(asked.success());
    let began = Instant::now();
    loop {
        let log = server.log();
        if log[before..].contains("read again") {
            // The warning about what waits follows at once.
            std::thread::sleep(Duration::from_millis(50));
            return server.log()[before..].to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_changes_holds_for_the_next_question() {
    let bank = Installation::new(&[("free_quota = \"10\"", "free_quota = \"100\"")]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let left =
        |card: &str| acedata(&server, &shop.token, card).header("x-credits-remaining").unwrap().to_owned();
    assert_eq!(left(CARD), "99");
    let log = reload(&bank, &server, &[("price = \"1\" ", "price = \"2.5\" ")]);
    assert!(log.contains(r#"changed: policy.price = "2.5" (was "1")"#), "{log}");
    assert_eq!(left(CARD), "96.5");

    // An unknown prefix, decided by the issuers file that is named now, from the folder of the settings.
    let unknown = "6299001234567890";
    let result = |card: &str| acedata(&server, &shop.token, card).json()["result"].clone();
    std::fs::write(
        bank.config.with_file_name("issuers.csv"),
        "prefix,length,bank_zh,bank_en,kind,verifies,phone_checked\n629900,,某行,Some Bank,debit,false,false\n",
    )
    .unwrap();
    let before = result(unknown);
    reload(&bank, &server, &[("# issuers_file =", "issuers_file =")]);
    assert_ne!(result(unknown), before, "an issuer that does not verify");

    // Attempts: two of today's are counted already.
    let code = |card: &str| acedata(&server, &shop.token, card).json()["result"].clone();
    let log = reload(
        &bank,
        &server,
        &[("per_card = 10", "per_card = 2"), ("numbering = \"documented\"", "numbering = \"upstream_4e\"")],
    );
    assert!(log.contains("acedata.numbering") && log.contains("attempts.per_card"), "{log}");
    assert_eq!(code(CARD), "-19", "too many on one card, in Tencent's numbers");
    let log = reload(&bank, &server, &[("requests_per_second = 20", "requests_per_second = 1")]);
    assert!(log.contains("policy.requests_per_second = 1 (was 20)"), "{log}");
    let refused = (0..20).any(|_| acedata(&server, &shop.token, CARD).status == 429);
    assert!(refused, "one a second is not twenty");
    server.stop();
    assert!(bank.run(&["audit", "check"])["answers"].as_u64().unwrap() >= 5);
}

#[test]
fn a_mistake_changes_nothing() {
    let bank = Installation::new(&[("free_quota = \"10\"", "free_quota = \"100\"")]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let price = ("price = \"1\" ", "price = \"3\" ");
    for (right, wrong, why) in [
        ("privacy_order = false", "privacy_ordre = false", "did you mean `privacy_order`?"),
        ("# issuers_file =", "issuers_file =", "cannot read"),
        ("# certificate = \"server.pem\"", "certificate = \"server.pem\"", "belong together"),
    ] {
        let text = std::fs::read_to_string(&bank.config).unwrap();
        let log = reload(&bank, &server, &[price, (right, wrong)]);
        assert!(log.contains("not read again") && log.contains(why), "{wrong}: {log}");
        std::fs::write(&bank.config, text).unwrap();
    }
    assert_eq!(
        acedata(&server, &shop.token, CARD).header("x-credits-remaining"),
        Some("99"),
        "still one credit"
    );
    let log = reload(&bank, &server, &[]);
    assert!(log.contains("no setting has changed"), "{log}");
}

#[test]
fn what_needs_a_restart_is_said_each_time() {
    let bank = Installation::new(&[]);
    let server = Sandbox::serving(&bank.config);
    let changes =
        [("connections_max = 10000", "connections_max = 3"), ("data = \"data\"", "data = \"elsewhere\"")];
    let log = reload(&bank, &server, &changes);
    let waits = r#"these changes wait for a restart: http.connections_max = 3 (was 10000), server.data = "elsewhere" (was "data")"#;
    assert!(log.contains(waits), "{log}");
    let log = reload(&bank, &server, &[]);
    assert!(log.contains(waits) && log.contains("no setting has changed"), "{log}");
    assert_eq!(server.get("/readyz").json()["ready"], true);
}

#[test]
fn questions_go_on_while_settings_change() {
    let bank = Installation::new(&[
        ("requests_per_second = 20", "requests_per_second = 0"),
        ("per_card = 10", "per_card = 0"),
        ("per_value = 500", "per_value = 0"),
    ]);
    bank.run(&["caller", "create", "shop", "--unlimited"]);
    let bearer = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    let token = bearer["secret"].as_str().unwrap().to_owned();
    let server = Sandbox::serving(&bank.config);
    let (over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(acedata(&server, &token, CARD).json()["result"], "-7");
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Some at each price, however slow the machine is.
        let some_more = || {
            let (enough, began) = (asked.load(Ordering::SeqCst) + 3, Instant::now());
            while asked.load(Ordering::SeqCst) < enough {
                if began.elapsed() > Duration::from_secs(60) {
                    over.store(true, Ordering::SeqCst);
                    panic!("nothing is answered");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        some_more();
        for (from, to) in [("1", "2"), ("2", "1"), ("1", "2")] {
            reload(&bank, &server, &[(&format!("price = \"{from}\" "), &format!("price = \"{to}\" "))]);
            some_more();
        }
        over.store(true, Ordering::SeqCst);
    });
    let summary = bank.run(&["ledger", "summary"]);
    let (answers, charged) = (summary["answers"].as_u64().unwrap(), summary["charged"].as_str().unwrap());
    let charged: u64 = charged.parse().unwrap();
    assert!((answers..=2 * answers).contains(&charged) && charged > answers, "{charged} for {answers}");
}

#[test]
fn another_certificate_is_shown_at_once() {
    let bank = Installation::new(&[]);
    let made = |name: &str| {
        let out = bank.config.with_file_name(name);
        assert!(card4e(&["tls", "dev-ca", "--out", out.to_str().unwrap()]).status.success());
        Client::trusting(&std::fs::read_to_string(out.join("ca.pem")).unwrap())
    };
    let (first, second) = (made("first"), made("second"));
    let text = std::fs::read_to_string(&bank.config).unwrap();
    let tls = "[tls]\ncertificate = \"first/server.pem\"\nkey = \"first/server-key.pem\"";
    std::fs::write(&bank.config, text.replace("[tls]", tls)).unwrap();
    let server = Sandbox::serving(&bank.config);
    let ready = server.bytes("GET", "/readyz", &[], b"");
    let trusts =
        |client: &Client| client.try_send(&server.address, &ready).is_ok_and(|reply| reply.status == 200);
    assert!(trusts(&first) && !trusts(&second));
    let log = reload(&bank, &server, &[("first/server", "second/server")]);
    assert!(log.contains("tls.certificate") && log.contains("tls.key"), "{log}");
    assert!(!trusts(&first) && trusts(&second));
    // From TLS to none needs a restart: nobody may be talked to in the clear all of a sudden.
    let log = reload(
        &bank,
        &server,
        &[("certificate = \"second", "# certificate = \"second"), ("key = \"second", "# key = \"second")],
    );
    assert!(log.contains("wait for a restart: tls.certificate"), "{log}");
    assert!(trusts(&second));
}
