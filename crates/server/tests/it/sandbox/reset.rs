//! `POST /_sandbox/reset`: everything as at the start.

use super::*;

#[test]
fn everything_is_as_at_the_start() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 2\n");
    let people = sandbox.control("GET", "accounts", "");
    let key = [("Idempotency-Key", "1")];
    let fresh = |sandbox: &Sandbox| {
        assert_eq!(sandbox.control("GET", "clock", "")["mode"], "real");
        assert_eq!(sandbox.control("GET", "faults", "")["faults"], serde_json::json!([]));
        assert_eq!(sandbox.control("GET", "journal", "")["count"], 0);
        assert_eq!(sandbox.control("GET", "accounts", ""), people);
        assert_eq!(sandbox.control("GET", "ledger", "")["balances"]["trial"], "10");
    };
    fresh(&sandbox);
    assert_eq!(sandbox.charges(), 0);
    let kept = trace(&ask_with(&sandbox, &key, ZHANG_WEI));
    assert_eq!(trace(&ask_with(&sandbox, &key, ZHANG_WEI)), kept);
    assert_eq!(result(&ask_as(&sandbox, TRIAL, ZHANG_WEI)), "0");
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-17");
    sandbox.control(
        "POST",
        "accounts",
        r#"{"bank_card":"6217000000000000012","name":"许仙","id_number":"99010119610202001X","phone":"16100000001"}"#,
    );
    sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":864000}"#);
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-4", "ten days later, and the card is somebody else's");
    sandbox.fault(r#"{"effect":{"outcome":"SOURCE_BUSY"}}"#);
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "-16");

    assert_eq!(sandbox.control("POST", "reset", ""), serde_json::json!({ "reset": true }));
    fresh(&sandbox);
    assert_eq!(sandbox.charges(), 3, "a ledger is never rewritten");
    let again = ask_with(&sandbox, &key, ZHANG_WEI);
    assert_eq!(result(&again), "0", "no fault, the old holder, attempts from the start");
    assert_ne!(trace(&again), kept, "no memory of the key");
    assert_eq!(sandbox.control("GET", "journal", "")["entries"][0]["number"], 1);
    assert_eq!(result(&ask(&sandbox, ZHANG_WEI)), "0");
    assert_eq!(
        result(&ask(&sandbox, ZHANG_WEI)),
        "-17",
        "today is counted, not the day of the shifted clock"
    );
}

#[test]
fn an_added_account_is_gone() {
    let sandbox = Sandbox::start();
    sandbox.control(
        "POST",
        "accounts",
        r#"{"bank_card":"6217000000000099995","name":"许仙","id_number":"99010119610202001X","phone":"16100000099"}"#,
    );
    let asked = r#"{"name":"许仙","bank_card":"6217000000000099995","phone":"16100000099","id_card":"99010119610202001X"}"#;
    assert_eq!(result(&ask(&sandbox, asked)), "0");
    sandbox.control("POST", "reset", "");
    assert_eq!(result(&ask(&sandbox, asked)), "-7");
}

#[test]
fn a_delayed_answer_from_before_is_dropped() {
    let sandbox = Sandbox::start();
    sandbox.fault(r#"{"effect":{"delay_ms":25000}}"#);
    std::thread::scope(|scope| {
        let began = Instant::now();
        let waiting = scope.spawn(|| sandbox.try_send(&bytes_with(&sandbox, &[], ZHANG_WEI)));
        soon("the delayed request", Duration::from_secs(5), || {
            (sandbox.control("GET", "journal", "")["count"] == 1).then_some(())
        });
        sandbox.control("POST", "reset", "");
        assert!(waiting.join().unwrap().is_err(), "no answer");
        assert!(began.elapsed() < Duration::from_secs(10), "at once");
    });
    assert_eq!(sandbox.control("GET", "journal", "")["count"], 0);
    assert_eq!(sandbox.charges(), 1, "it was settled before it was delayed");
}

#[test]
fn a_rate_that_was_used_up_is_fresh() {
    let sandbox = Sandbox::start();
    let three = || {
        sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276800}"#);
        (0..3).map(|_| ask_as(&sandbox, 6, ZHANG_WEI).status).collect::<Vec<_>>()
    };
    assert_eq!(three(), [200, 200, 429]);
    sandbox.control("POST", "reset", "");
    assert_eq!(three(), [200, 200, 429]);
}

#[test]
fn a_reset_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "");
    ask_as(&sandbox, TRIAL, ZHANG_WEI);
    sandbox.control("POST", "reset", "");
    ask_as(&sandbox, TRIAL, ZHANG_WEI);
    sandbox.kill();
    let sandbox = Sandbox::keeping(data.path(), "");
    assert_eq!(sandbox.control("GET", "ledger", "")["balances"]["trial"], "9");
    assert_eq!(sandbox.charges(), 2);
}
