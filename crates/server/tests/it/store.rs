//! `card4e store copy`: an installation goes on in a database, killed on the way there as often as it takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::postgres;
use super::serve::{Installation, acedata, card4e, error};
use super::support::Sandbox;

const CARD: &str = "6217000000000000012";

/// Settings of the same installation in a database, or of another node of it, with a data folder of its own.
fn node(bank: &Installation, name: &str, url: &str) -> PathBuf {
    let text = std::fs::read_to_string(&bank.config).unwrap();
    let config = bank.folder().join(format!("{name}.toml"));
    let mut text = text.replace("store = \"\"", &format!("store = \"{url}\""));
    for (setting, value) in
        [("data = \"data\"", format!("data = \"{name}\"")), ("node = \"\"", format!("node = \"{name}\""))]
    {
        assert!(text.contains(setting), "{setting}");
        text = text.replace(setting, &value);
    }
    std::fs::write(&config, text).unwrap();
    config
}

fn run(arguments: &[&str], config: &Path) -> Value {
    let done = card4e(&[arguments, &["--json", "--config", config.to_str().unwrap()]].concat());
    assert!(done.status.success(), "{arguments:?}: {}", error(&done));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let done = card4e(arguments);
    assert!(!done.status.success(), "{arguments:?}");
    error(&done)
}

/// Kills the copy after more and more time, until it comes to its end; nothing is served in between.
fn copied(from: &str, to: &str) -> Value {
    for round in 1.. {
        let mut copying = Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(["store", "copy", from, to, "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * round));
        let is_over = copying.try_wait().unwrap().is_some();
        copying.kill().unwrap();
        let done = copying.wait_with_output().unwrap();
        if is_over {
            assert!(done.status.success() && round > 1, "killed {} times: {}", round - 1, error(&done));
            return serde_json::from_slice(&done.stdout).unwrap();
        }
        // Killed before it began, it has left no mark, and the original could still be served.
        let mark = std::fs::read_to_string(PathBuf::from(from).with_file_name("data/copy.json"));
        if mark.is_ok_and(|mark| mark.contains(r#""is_done":false"#)) {
            assert!(
                refused(&["serve", "--config", from]).contains("is being copied to postgres://"),
                "{round}"
            );
        }
    }
    unreachable!()
}

#[test]
fn an_installation_goes_on_in_a_database() {
    let Some(server) = postgres::shared() else { return };
    let bank = Installation::new(&[]);
    let made = bank.folder().join("synth.jsonl");
    let done = card4e(&["synth", "--accounts", "3000", "--out", made.to_str().unwrap()]);
    assert!(done.status.success(), "{}", error(&done));
    bank.run(&["import", "accounts", made.to_str().unwrap()]);
    let shop = bank.shop();
    let server_of_files = Sandbox::serving(&bank.config);
    for _ in 0..3 {
        assert_eq!(acedata(&server_of_files, &shop.token, CARD).status, 200);
    }
    let config = bank.config.to_str().unwrap();
    let url = server.url();
    let a = node(&bank, "a", &url);
    let to = a.to_str().unwrap();
    assert!(refused(&["store", "copy", config, to]).contains("in use by another card4e"));
    server_of_files.stop();
    let before = bank.run(&["audit", "check"]);
    let balance = |config: &Path| {
        let callers = run(&["caller", "list"], config);
        let shop =
            callers.as_array().unwrap().iter().find(|caller| caller["name"] == "shop").unwrap().clone();
        shop["balance"].as_str().unwrap().to_owned()
    };
    let left = balance(&bank.config);
    // What somebody outside was given before.
    let printed = |arguments: &[&str], config: &Path| {
        let done = card4e(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        assert!(done.status.success(), "{arguments:?}: {}", error(&done));
        String::from_utf8(done.stdout).unwrap()
    };
    let answers = |config: &Path| -> Vec<Value> {
        let listed = printed(&["ledger", "list", "--json"], config);
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = answers(&bank.config)[0]["request_id"].as_str().unwrap().to_owned();
    let given = tempfile::tempdir().unwrap();
    let kept = |name: &str, text: String| {
        let path = given.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = kept("keys", printed(&["audit", "key"], &bank.config));
    let monday = kept("monday", printed(&["audit", "checkpoint"], &bank.config));
    let holds = |evidence: &str| {
        let done = card4e(&["audit", "verify", evidence, "--key", &keys]);
        assert!(done.status.success(), "{}", error(&done));
    };

    let told = copied(config, to);
    // Killed after the last commit and before it could say so, the next one finds nothing to do.
    assert!(told["copied"].is_null() || told["copied"]["accounts"] == 3000, "{told}");
    assert_eq!(run(&["audit", "check"], &a), before);
    assert_eq!(run(&["accounts", "check"], &a)["accounts"], 3000);
    let again = card4e(&["store", "copy", config, to]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("There is nothing to do"), "{again:?}");
    assert!(refused(&["serve", "--config", config]).contains("was copied to postgres://127.0.0.1:"));
    assert!(refused(&["caller", "list", "--config", config]).contains("spent twice"));
    let doctor = card4e(&["doctor", "--config", config]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("spent twice"), "{doctor:?}");
    let elsewhere = node(&bank, "z", &server.url());
    let error = refused(&["store", "copy", config, elsewhere.to_str().unwrap()]);
    assert!(error.contains("it was copied to postgres://127.0.0.1:"), "{error}");

    // A node that never ran has no key ring in its folder: it takes it, and nobody calls that a problem.
    let b = node(&bank, "b", &url);
    let doctor = card4e(&["doctor", "--config", b.to_str().unwrap()]);
    assert!(doctor.status.success(), "{doctor:?}");
    assert_eq!(balance(&b), left);
    let doctor = card4e(&["doctor", "--config", b.to_str().unwrap()]);
    assert!(doctor.status.success(), "{doctor:?}");
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("3,000 accounts"), "{doctor:?}");

    let nodes = [Sandbox::serving(&a), Sandbox::serving(&b)];
    for node in &nodes {
        super::limiter::until("ready", || node.request("GET", "/readyz", &[], b"").status == 200);
        assert_eq!(acedata(node, &shop.token, CARD).status, 200);
    }
    nodes.into_iter().for_each(Sandbox::stop);
    let after = run(&["audit", "check"], &a);
    assert_eq!(after["answers"].as_u64(), before["answers"].as_u64().map(|answers| answers + 2));
    assert_eq!(after["trees"], 2);
    holds(&kept("growth", printed(&["audit", "checkpoint", "--since", &monday], &a)));
    holds(&kept("old answer", printed(&["audit", "prove", &first], &a)));
    holds(&kept("the same from another node", printed(&["audit", "prove", &first], &b)));
    assert_eq!(answers(&b).len(), 5);
}

#[test]
fn a_root_key_is_replaced_on_one_node_and_taken_to_the_others() {
    let Some(server) = postgres::shared() else { return };
    let bank = Installation::new(&[("store = \"\"", &format!("store = \"{}\"", server.url()))]);
    let shop = bank.shop();
    // Another node, elsewhere: its own folder with the settings and the root key.
    let elsewhere = tempfile::tempdir().unwrap();
    let (b, key) = (elsewhere.path().join("card4e.toml"), elsewhere.path().join("root.key"));
    let text = std::fs::read_to_string(&bank.config).unwrap();
    std::fs::write(&b, text.replace("node = \"\"", "node = \"b\"")).unwrap();
    std::fs::copy(bank.folder().join("root.key"), &key).unwrap();
    let nodes = [Sandbox::serving(&bank.config), Sandbox::serving(&b)];
    let answers = |node: &Sandbox| {
        super::limiter::until("ready", || node.request("GET", "/readyz", &[], b"").status == 200);
        assert_eq!(acedata(node, &shop.token, CARD).status, 200);
    };
    nodes.iter().for_each(answers);

    let sealed = bank.run(&["keys", "seal", "--to", "file"]);
    assert_eq!((&sealed["in_force"], &sealed["custody"]), (&Value::from(true), &Value::from("file")));
    nodes.iter().for_each(answers);
    // It goes on with what it has; no other key is replaced before it has the new one.
    let refused_by_node = bank.refused(&["keys", "rotate", "receipts"]);
    assert!(refused_by_node.contains("not all nodes work with the keys there are: b."), "{refused_by_node}");
    let [a, old] = nodes;
    old.stop();
    let refused_at_start = refused(&["serve", "--config", b.to_str().unwrap()]);
    assert!(
        refused_at_start.contains("put the root key of the other nodes in its place"),
        "{refused_at_start}"
    );
    std::fs::copy(bank.folder().join("root.key"), &key).unwrap();
    let new = Sandbox::serving(&b);
    answers(&new);
    bank.run(&["keys", "rotate", "receipts", "idempotency"]);
    answers(&new);
    for server in [a, new] {
        server.stop();
    }
    assert_eq!(run(&["audit", "check"], &b)["answers"], 6);
}
