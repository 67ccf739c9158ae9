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
    suspicious.keeps("keys", "no key");
    assert!(suspicious.refuses(&["growth"]).contains("64 hex digits"));
}

#[test]
fn what_is_erased_and_which_keys_are_replaced_changes_no_proof() {
    let (bank, moment) = two_months();
    let old_keys = printed(&bank, &["audit", "key"]);
    let auditor = Auditor::given(&old_keys);
    exported(&bank, &["--until", &moment], &auditor.path("october"));
    let listed = printed(&bank, &["ledger", "list", "--json"]);
    let first: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let id = first["request_id"].as_str().unwrap().to_owned();

    bank.run(&["keys", "rotate", "audit"]);
    assert_eq!(super::traces::erase(&bank, CARD)["records"], 3);
    exported(&bank, &["--since", &moment], &auditor.path("november"));
    exported(&bank, &["--until", &moment], &auditor.path("october-again"));
    auditor.keeps("answer", &printed(&bank, &["audit", "prove", &id]));
    let said = auditor.refuses(&["november"]);
    assert!(said.contains("not a key you gave"), "{said}");

    let new_keys = printed(&bank, &["audit", "key"]);
    assert!(new_keys.starts_with(&old_keys) && new_keys.lines().count() == 2);
    auditor.keeps("keys", &new_keys);
    auditor.checks(&["october", "november"]).unwrap();
    auditor.checks(&["answer"]).unwrap();
    let entries = |name: &str| {
        let text = std::fs::read_to_string(auditor.path(name)).unwrap();
        text.lines().filter(|line| line.contains(r#""is":"entry""#)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(entries("october"), entries("october-again"), "an erasure leaves the entries as they are");
    // The other way round, the replaced key would have signed the newer tree.
    let turned: String = new_keys.lines().rev().map(|key| format!("{key}\n")).collect();
    auditor.keeps("keys", &turned);
    let said = auditor.refuses(&["october", "november"]);
    assert!(said.contains("key that was replaced"), "{said}");
}

/// What is not an answer, as `card4e audit log --json` tells it, without times.
fn acts(bank: &Installation) -> Vec<Value> {
    let text = printed(bank, &["audit", "log", "--json"]);
    let mut all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for says in &mut all {
        let says = says.as_object_mut().unwrap();
        assert!(says.remove("at_ms").is_some() && says.remove("time").is_some());
        if let Some(act) = says.get_mut("act").and_then(Value::as_object_mut)
            && let Some(members) = act.values_mut().next().and_then(Value::as_object_mut)
        {
            members.retain(|_, value| !value.is_null());
        }
    }
    all
}

#[test]
fn every_act_of_an_operator_is_in_the_ledger_with_who_did_it() {
    let bank = Installation::new(&[]);
    let told = bank.run(&["credential", "create", "operator", "--kind", "platform"]);
    let platform = format!("Bearer {}", told["secret"].as_str().unwrap());
    let headers = [("authorization", platform.as_str())];
    let people = bank.config.with_file_name("people.csv");
    let file = people.to_str().unwrap();
    assert!(card4e(&["synth", "--accounts", "3", "--out", file]).status.success());
    bank.run(&["caller", "create", "shop"]);
    let server = Sandbox::serving(&bank.config);
    bank.run(&["credential", "create", "shop", "--kind", "acedata", "--expires", "90d"]);
    bank.run(&["credential", "rotate", "3", "--overlap", "0s"]);
    bank.run(&["credential", "revoke", "3"]);
    bank.run(&["caller", "suspend", "shop"]);
    bank.run(&["caller", "resume", "shop"]);
    bank.run(&["caller", "set", "shop", "--price", "0.5", "--unlimited", "true"]);
    bank.run(&["caller", "recharge", "shop", "2.5"]);
    bank.run(&["import", "accounts", file]);
    let csv = std::fs::read_to_string(&people).unwrap();
    let card = csv.lines().nth(1).unwrap().split(',').next().unwrap();
    bank.run(&["accounts", "put", card, "--status", "lost"]);
    let lost = format!(r#"{{"bank_card":"{card}","status":"lost"}}"#);
    assert_eq!(server.request("PUT", "/api/v1/accounts", &headers, lost.as_bytes()).status, 200);
    let gone = format!(r#"{{"bank_card":"{card}"}}"#);
    assert_eq!(server.request("DELETE", "/api/v1/accounts", &headers, gone.as_bytes()).status, 200);
    let lines = format!("{lost}\n{{\"op\":\"delete\",\"bank_card\":\"{card}\"}}\n");
    let streamed = server.bytes("POST", "/api/v1/accounts/stream", &headers, lines.as_bytes());
    assert!(streamed_lines(&server, &streamed).contains("\"line\":2"));
    bank.run(&["keys", "rotate", "audit", "receipts"]);
    super::traces::erase(&bank, card);
    server.stop();
    bank.refused(&["caller", "suspend", "nobody"]);
    bank.refused(&["accounts", "put", card, "--status", "nonsense"]);

    let by = |by: Value, act: Value| json!({ "kind": "operator", "by": by, "act": act });
    let machine = |act: Value| by("machine".into(), act);
    let changed = |put: u32, state_set: u32, deleted: u32| json!({ "accounts_changed": { "put": put, "state_set": state_set, "deleted": deleted } });
    let issued = |id: u32, of: u32, kind: &str| {
        machine(json!({ "credential_issued": { "credential": id, "application": of, "kind": kind } }))
    };
    let mut all = acts(&bank);
    let expiring = all[6]["act"]["credential_issued"].as_object_mut().unwrap();
    let expires = expiring.remove("expires_at_ms").unwrap();
    let terms = json!({
        "application": 2, "actions": all[11]["act"]["terms_set"]["actions"], "unlimited": true, "price": "0.5",
        "encryption_required": false, "reasons": false,
    });
    assert_eq!(
        all,
        [
            machine(json!({ "caller_added": { "caller": 1, "operator": true, "unlimited": false } })),
            issued(1, 1, "platform"),
            issued(2, 1, "platform"),
            machine(json!({ "caller_added": { "caller": 2, "operator": false, "unlimited": false } })),
            machine(json!({ "recharged": { "application": 2, "amount": "10" } })),
            json!({ "kind": "grant", "application": 2, "amount": "10" }),
            issued(3, 2, "acedata"),
            machine(json!({ "credential_changed": { "credential": 3, "expires_at_ms": expires } })),
            machine(json!({ "credential_revoked": { "credential": 3 } })),
            machine(json!({ "standing_set": { "caller": 2, "standing": "suspended" } })),
            machine(json!({ "standing_set": { "caller": 2, "standing": "active" } })),
            machine(json!({ "terms_set": terms })),
            machine(json!({ "recharged": { "application": 2, "amount": "2.5" } })),
            json!({ "kind": "grant", "application": 2, "amount": "2.5" }),
            machine(json!({ "imported": { "replaces": false } })),
            machine(changed(0, 1, 0)),
            by(json!({ "credential": 2 }), changed(0, 1, 0)),
            by(json!({ "credential": 2 }), changed(0, 0, 1)),
            by(json!({ "credential": 2 }), changed(0, 1, 1)),
            machine(json!({ "keys_rotated": { "groups": ["audit", "receipts"] } })),
            machine("erasure_begun".into()),
            json!({ "kind": "erased", "records": 0, "account": false }),
        ]
    );
    let shown = printed(&bank, &["audit", "log", "--since", "1h"]);
    assert!(shown.contains("credential 2  accounts changed    deleted=1 put=0 state_set=1"), "{shown}");
    assert!(!shown.contains(card) && !shown.contains(told["secret"].as_str().unwrap()));
    assert_eq!(printed(&bank, &["audit", "log", "--until", "2020-01-01"]).lines().count(), 1);
    assert_eq!(bank.run(&["audit", "check"])["entries"], 22);
}

/// What people do in the console and programs over the management API is on record like what is typed.
#[test]
fn every_act_of_the_platform_is_in_the_ledger_with_who_did_it() {
    let bank = Installation::new(&[]);
    let told = bank.run(&["credential", "create", "operator", "--kind", "platform"]);
    let platform = format!("Bearer {}", told["secret"].as_str().unwrap());
    let server = Sandbox::serving(&bank.config);
    let call = |method: &str, path: &str, body: Value| {
        let headers = [("authorization", platform.as_str())];
        let reply = server.request(method, &format!("/api/v1/{path}"), &headers, body.to_string().as_bytes());
        assert!(matches!(reply.status, 200..=204), "{path}: {} {}", reply.status, reply.text());
        reply
    };
    let submit = |path: &str, fields: &str| {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        server.request("POST", path, &kind, fields.as_bytes())
    };
    let invited = bank.run(&["person", "invite", "--days", "2"]);
    let code = invited["code"].as_str().unwrap();
    assert!(invited["link"].as_str().unwrap().ends_with(&format!("/auth/register?invitation={code}")));
    let person = format!(
        "name=ada&login=ada%40example.com&password=correct+horse+battery&terms=yes&invitation={code}"
    );
    assert_eq!(submit("/auth/register", &person).status, 303);
    let people = bank.run(&["person", "list"]);
    assert_eq!((people["login"].clone(), people["caller"].clone()), (json!("ada@example.com"), json!("ada")));
    let reset = bank.run(&["person", "reset", "Ada@example.com"]);
    let new = format!("code={}&password=staple+correct+horse", reset["code"].as_str().unwrap());
    assert_eq!(submit("/auth/reset", &new).status, 303);
    assert_eq!(submit("/auth/login", "login=ada%40example.com&password=correct+horse+battery").status, 401);
    assert_eq!(submit("/auth/login", "login=ada%40example.com&password=staple+correct+horse").status, 303);
    assert!(bank.refused(&["person", "reset", "nobody@example.com"]).contains("no such person"));

    // The operator opens the service for the new account, and sells to it.
    bank.run(&["caller", "set", "ada", "--action", "bankcard-4e"]);
    let application = "c4e00000-0002-4000-8000-000000000002";
    let package =
        call("POST", "packages", json!({ "title": "A", "amount": 5, "price": 2 })).json()["id"].clone();
    call("DELETE", &format!("packages/{}", package.as_str().unwrap()), json!({}));
    call("POST", "recharge-cards", json!({ "amount": 3, "count": 2 }));
    let order = json!({ "application_id": application, "amount": 7, "price": 4 });
    let order = call("POST", "orders/admin/create", order).json()["id"].clone();
    let of = |what: &str| format!("orders/{}/{what}", order.as_str().unwrap());
    call("POST", &of("update-price"), json!({ "price": 3.5 }));
    call("POST", &of("finish"), json!({}));
    call("POST", &of("refund"), json!({}));
    let gift =
        call("POST", &format!("applications/{application}/sponsor"), json!({ "amount": 1 })).json()["id"]
            .clone();
    call("POST", &format!("applications/{application}/update-disabled"), json!({ "disabled": true }));
    let body = br#"{"bank_card":"6217000000000000012"}"#;
    let looked = server.request("POST", "/api/v1/accounts/lookup", &[("authorization", &platform)], body);
    assert_eq!(looked.status, 404);
    server.stop();

    let by = |by: Value, act: Value| json!({ "kind": "operator", "by": by, "act": act });
    let machine = |act: Value| by("machine".into(), act);
    let token = |act: Value| by(json!({ "credential": 2 }), act);
    let all = acts(&bank);
    let began = all.iter().position(|says| says["act"].get("invited").is_some()).unwrap();
    let until = |at: usize, act: &str| all[at]["act"][act]["until_ms"].clone();
    let terms = all[began + 4].clone();
    assert_eq!(terms["act"]["terms_set"]["actions"], json!(["bankcard-4e"]));
    let (cents, reference) = (|cents: i64| json!(cents), |at: usize| all[at]["reference"].clone());
    let payment = |at: usize, amount: &str| json!({ "kind": "payment", "application": 2, "amount": amount, "reference": reference(at) });
    let on = |order: &Value, amount: &str| json!({ "order": order, "application": 2, "credits": amount });
    let priced = |order: &Value, amount: &str, cents: Value| json!({ "order": order, "application": 2, "credits": amount, "price_cents": cents });
    assert_eq!(
        all[began..],
        [
            machine(json!({ "invited": { "until_ms": until(began, "invited") } })),
            by(
                json!({ "person": 0 }),
                json!({ "caller_added": { "caller": 2, "operator": false, "unlimited": false } })
            ),
            machine(
                json!({ "password_reset_allowed": { "caller": 2, "until_ms": until(began + 2, "password_reset_allowed") } })
            ),
            by(json!({ "person": 2 }), json!({ "password_set": { "caller": 2 } })),
            terms,
            token(json!({ "package_put": { "package": package, "credits": "5", "price_cents": 200 } })),
            token(json!({ "package_dropped": { "package": package } })),
            token(json!({ "vouchers_issued": { "count": 2, "credits": "3" } })),
            token(json!({ "order_made": priced(&order, "7", cents(400)) })),
            token(json!({ "order_priced": { "order": order, "price_cents": 350 } })),
            token(json!({ "order_finished": on(&order, "7") })),
            payment(began + 11, "7"),
            token(json!({ "order_refunded": on(&order, "7") })),
            payment(began + 13, "-7"),
            token(json!({ "order_made": priced(&gift, "1", cents(0)) })),
            token(json!({ "order_finished": on(&gift, "1") })),
            payment(began + 16, "1"),
            token(json!({ "standing_set": { "caller": 2, "standing": "suspended" } })),
            token("account_looked_up".into()),
        ]
    );
    let shown = printed(&bank, &["audit", "log"]);
    assert!(!shown.contains("ada@example.com") && !shown.contains("6217000000000000012"), "{shown}");
}

/// All that comes back until the connection ends.
fn streamed_lines(server: &Sandbox, request: &[u8]) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(request).unwrap();
    let mut text = String::new();
    let mut part = [0; 4096];
    while !text.contains("0\r\n\r\n") {
        let read = socket.read(&mut part).unwrap();
        assert!(read > 0, "{text}");
        text += std::str::from_utf8(&part[..read]).unwrap();
    }
    text
}

#[test]
fn nothing_is_done_that_cannot_be_recorded() {
    let bank = Installation::new(&[]);
    // Somebody has the folder, and no control socket answers: nobody can write the ledger.
    let held = std::fs::File::create(bank.folder().join("data/lock")).unwrap();
    held.lock().unwrap();
    let said = bank.refused(&["accounts", "put", CARD, "--status", "lost"]);
    assert!(said.contains("could not be recorded, so it was not done"), "{said}");
    let file = bank.config.with_file_name("people.csv");
    std::fs::write(&file, "bank_card,name,id_type,id_number,phone,status\n").unwrap();
    let said = bank.refused(&["import", "accounts", file.to_str().unwrap()]);
    assert!(said.contains("could not be recorded"), "{said}");
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
    assert_eq!(entry["says"]["kind"], "answer");
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
