//! The sandbox's time: real, frozen or shifted, the same for everything that looks at a clock.

use super::*;

#[test]
fn three_modes() {
    let sandbox = Sandbox::start();
    let clock = sandbox.control("GET", "clock", "");
    assert_eq!(clock["mode"], "real");
    assert!((clock["now"].as_i64().unwrap() - now()).abs() <= 2);

    let frozen = sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1795276799}"#);
    assert_eq!(
        frozen,
        serde_json::json!({ "mode": "frozen", "now": 1_795_276_799, "utc": "2026-11-21T15:59:59Z" })
    );
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(sandbox.control("GET", "clock", ""), frozen, "it stands");

    let shifted = sandbox.control("PUT", "clock", r#"{"mode":"shifted","seconds":-86400}"#);
    assert_eq!((&shifted["mode"], &shifted["seconds"]), (&"shifted".into(), &(-86_400).into()));
    assert!((shifted["now"].as_i64().unwrap() + 86_400 - now()).abs() <= 2);

    assert_eq!(sandbox.control("PUT", "clock", r#"{"mode":"real"}"#)["mode"], "real");
}

#[test]
fn mistakes_are_refused() {
    let sandbox = Sandbox::start();
    for (body, said) in [
        ("", "the body is not right"),
        (r#"{"mode":"slow"}"#, "slow"),
        (r#"{"mode":"frozen"}"#, "now"),
        (r#"{"mode":"frozen","now":1795276799,"zone":"UTC"}"#, "zone"),
        (r#"{"mode":"frozen","now":1795276799000}"#, "not milliseconds"),
        (r#"{"mode":"shifted","seconds":-9223372036854775808}"#, "too far away"),
    ] {
        let (status, error) = refused(&sandbox, "PUT", "clock", body);
        assert_eq!(status, 400, "{body}");
        assert!(error.contains(said), "{body}: {error}");
    }
    assert_eq!(sandbox.control("GET", "clock", "")["mode"], "real");
}

#[test]
fn signatures_and_journal_go_by_it() {
    let sandbox = Sandbox::start();
    sandbox.control("PUT", "clock", r#"{"mode":"frozen","now":1700000000}"#);
    assert_eq!(tencent_result(&ask_tencent(&sandbox, 1_700_000_000, &[], ZHANG_WEI)), "0");
    let late = ask_tencent(&sandbox, now(), &[], ZHANG_WEI);
    assert_eq!(late.json()["Response"]["Error"]["Code"], "AuthFailure.SignatureExpire");
    let journal = sandbox.control("GET", "journal", "");
    assert_eq!(journal["entries"][1]["at"], "2023-11-14T22:13:20Z");
}
