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
