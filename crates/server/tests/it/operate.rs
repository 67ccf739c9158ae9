//! `/healthz`, `/readyz`, `/metrics`, start and stop.

use super::support::Sandbox;

#[test]
fn health_and_readiness() {
    let sandbox = Sandbox::start();
    assert_eq!(sandbox.get("/healthz").text(), "{\"status\":\"ok\"}\n");
    let ready = sandbox.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["ready"], true);
    assert!(ready.json()["warnings"][0].as_str().unwrap().contains("test land"));
}

#[test]
fn a_second_sandbox_on_the_same_port_is_refused() {
    let sandbox = Sandbox::start();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["sandbox", "--listen", &sandbox.address])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("cannot listen on") && error.contains("--listen"), "{error}");
}

#[test]
fn only_loopback_unless_told_otherwise() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["sandbox", "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--expose-test-keys-to-the-network"), "{error}");
}

#[test]
fn a_stopped_sandbox_starts_again_with_its_ledger() {
    let data = tempfile::tempdir().unwrap();
    let ask = |sandbox: &Sandbox| {
        let body = r#"{"name":"张伟","bank_card":"6200000000000005","phone":"1","id_card":"1"}"#;
        let headers = [("authorization", "Bearer 4e000000000000000000000000000001")];
        sandbox.request("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes())
    };
    let first = Sandbox::keeping(data.path(), "");
    assert_eq!(ask(&first).header("x-credits-remaining"), Some("9"));
    first.stop();
    let second = Sandbox::keeping(data.path(), "");
    assert_eq!(ask(&second).header("x-credits-remaining"), Some("8"));
    assert_eq!(second.charges(), 2);
}

/// Measures for a second: every answer is right, none is lost, and the ledger has them all.
#[test]
fn bench_asks_as_clients_ask() {
    let sandbox = Sandbox::start();
    for (wire, more) in [
        ("tencent", &[][..]),
        ("acedata", &[]),
        ("tencent", &["--encrypted"]),
        ("acedata", &["--encrypted", "--rate", "200"]),
    ] {
        let before = sandbox.control("GET", "ledger", "")["records"].as_u64().unwrap();
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args([
                "bench",
                "--json",
                "--connections",
                "4",
                "--seconds",
                "1",
                "--warm-up",
                "0",
                "--wire",
                wire,
            ])
            .args(["--url", &format!("http://{}", sandbox.address)])
            .args(more)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let records = sandbox.control("GET", "ledger", "")["records"].as_u64().unwrap();
        assert_eq!(told["errors"], 0, "{told}");
        assert_eq!(told["requests"].as_u64(), Some(records - before), "{told}");
        let us = |member: &str| told[member].as_u64().unwrap();
        assert!(20 < us("p50_us") && us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us"), "{told}");
        assert!(told["server_cpu_us_per_request"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_counts_answers_that_are_wrong() {
    let sandbox = Sandbox::start();
    let folder = tempfile::tempdir().unwrap();
    let claims = folder.path().join("claims.csv");
    let lines = "bank_card,name,id_number,phone,outcome\n\
        6217000000000000012,张伟,99010119610202001X,16100000001,CARD_LOST\n";
    std::fs::write(&claims, lines).unwrap();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["bench", "--connections", "2", "--seconds", "1", "--claims", claims.to_str().unwrap()])
        .args(["--url", &format!("http://{}", sandbox.address)])
        .output()
        .unwrap();
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("answers are not what the claims say"), "{said}");
}

/// A sandbox that was killed cannot remove its folder; the next one does, and leaves those in use alone.
#[test]
fn folders_of_killed_sandboxes_are_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let start = || {
        let ready = temporary.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(["sandbox", "--listen", "127.0.0.1:0", "--ready-file", ready.to_str().unwrap()])
            .env("TMPDIR", temporary.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for(|| ready.exists());
        child
    };
    let folders = || {
        let entries = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<std::collections::BTreeSet<_>>()
    };
    let mut killed = start();
    let abandoned = folders();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut working = start();
    let in_use: Vec<_> = folders().difference(&abandoned).cloned().collect();
    for folder in folders() {
        let folder = std::fs::File::open(folder).unwrap();
        let an_hour_ago =
            folder.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(3600);
        folder.set_modified(an_hour_ago).unwrap();
    }
    let mut next = start();
    wait_for(|| !abandoned.iter().any(|folder| folder.exists()));
    assert!(in_use.iter().all(|folder| folder.join("ledger.db").exists()));
    for child in [&mut working, &mut next] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
