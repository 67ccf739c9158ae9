//! Who decides: a fault, a header, the card, a documented sample, or the engine; and how it is told.

use super::*;

fn decision(reply: &Reply) -> &str {
    reply.header("x-sandbox-decision").unwrap_or_else(|| panic!("{}", reply.text()))
}

#[test]
fn each_answer_tells_who_decided_and_by_which_row() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 6\n");
    let changed = |from: &str, to: &str| ask(&sandbox, &ZHANG_WEI.replace(from, to));
    for (reply, told) in [
        (ask(&sandbox, ZHANG_WEI), "row=25 outcome=PASS by=records"),
        (changed("张伟", "张三"), "row=23 outcome=HOLDER_MISMATCH by=records differs=name"),
        (changed("16100000001", "16100000002"), "row=23 outcome=HOLDER_MISMATCH by=records differs=mobile"),
        (ask(&sandbox, ZHANG_WEI), "row=25 outcome=PASS by=records"),
        (
            changed(r#""99010119610202001X""#, r#""990101196203030022""#),
            "row=23 outcome=HOLDER_MISMATCH by=records differs=id",
        ),
        (
            ask(&sandbox, &NOT_ZHANG_WEI.replace("99010119610202001X", "990101196203030022")),
            "row=23 outcome=HOLDER_MISMATCH by=records differs=name,id",
        ),
        (ask(&sandbox, ZHANG_WEI), "row=6 outcome=ATTEMPTS_EXCEEDED by=limits"),
        (changed("张伟", "1"), "row=1 outcome=NAME_INVALID by=format"),
        (changed("{\"name\"", "{\"cert_type\":1,\"name\""), "row=2 outcome=DOC_UNSUPPORTED by=format"),
        (changed("99010119610202001X", "990101196102020010"), "row=3 outcome=ID_INVALID by=format"),
        (changed("6217000000000000012", "6217"), "row=4 outcome=PAN_MALFORMED by=format"),
        (changed("16100000001", "911"), "row=5 outcome=PHONE_INVALID by=format"),
        (changed("6217000000000000012", "6217000000000000020"), "row=10 outcome=PAN_INVALID by=records"),
        (changed("6217000000000000012", "6200000000130000"), "row=0 outcome=CARD_LOST by=magic-card"),
        (ask(&sandbox, SAMPLE), "row=0 outcome=PASS by=sample"),
        (
            ask_with(&sandbox, &[("X-Sandbox-Outcome", "CARD_LOST")], ZHANG_WEI),
            "row=0 outcome=CARD_LOST by=header",
        ),
    ] {
        assert_eq!(decision(&reply), told);
    }
}

#[test]
fn a_header_asks_for_an_outcome_by_name_or_code_on_both_wires() {
    let sandbox = Sandbox::start();
    for (asked, acedata, tencent) in [
        ("PASS", "0", "0"),
        ("CARD_LOST", "-11", "-13"),
        ("-13", "-11", "-13"),
        (" -6 ", "-4", "-6"),
        ("0", "0", "0"),
        ("PHONE_UNCHECKABLE", "-15", "-17"),
        ("-20", "-1", "-20"),
    ] {
        let header = [("X-Sandbox-Outcome", asked)];
        assert_eq!(result(&ask_with(&sandbox, &header, NOT_ZHANG_WEI)), acedata, "{asked}");
        assert_eq!(tencent_result(&ask_tencent(&sandbox, now(), &header, NOT_ZHANG_WEI)), tencent, "{asked}");
    }
}

#[test]
fn a_header_that_is_no_outcome_is_the_wires_own_error() {
    let sandbox = Sandbox::start();
    for asked in ["LOST", "-22", "13", ""] {
        let header = [("X-Sandbox-Outcome", asked)];
        let reply = ask_with(&sandbox, &header, ZHANG_WEI);
        assert_eq!(refusal(&reply), (400, "bad_request".into()), "{asked}");
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("CARD_LOST") && message.contains("-13"), "{message}");
        let reply = ask_tencent(&sandbox, now(), &header, ZHANG_WEI);
        assert_eq!(reply.status, 200);
        let error = &reply.json()["Response"]["Error"];
        assert_eq!(error["Code"], "InvalidParameter", "{asked}");
        assert!(error["Message"].as_str().unwrap().contains("CARD_LOST"), "{error}");
    }
    assert_eq!(sandbox.charges(), 0);
}

#[test]
fn fault_before_header_before_card() {
    let sandbox = Sandbox::start();
    let magic = ZHANG_WEI.replace("6217000000000000012", "6200000000130000");
    let header = [("X-Sandbox-Outcome", "CARD_EXPIRED")];
    sandbox.fault(r#"{"count":1,"effect":{"outcome":"SOURCE_BUSY"}}"#);
    assert_eq!(decision(&ask_with(&sandbox, &header, &magic)), "row=0 outcome=SOURCE_BUSY by=fault");
    assert_eq!(decision(&ask_with(&sandbox, &header, &magic)), "row=0 outcome=CARD_EXPIRED by=header");
    assert_eq!(decision(&ask(&sandbox, &magic)), "row=0 outcome=CARD_LOST by=magic-card");
}

#[test]
fn an_outcome_on_order_needs_the_members_and_not_their_sense() {
    let sandbox = Sandbox::start();
    let header = [("X-Sandbox-Outcome", "PASS")];
    let nonsense = r#"{"name":"","bank_card":"","phone":"","id_card":""}"#;
    assert_eq!(result(&ask_with(&sandbox, &header, nonsense)), "0");
    assert_eq!(refusal(&ask_with(&sandbox, &header, "{}")), (400, "bad_request".into()));
}

#[test]
fn refusals_decide_nothing() {
    let sandbox = Sandbox::start();
    assert_eq!(ask(&sandbox, "{}").header("x-sandbox-decision"), None);
}
