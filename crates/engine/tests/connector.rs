//! Connectors against whole replies of both wires: what an answer means, and what is no answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use engine::action::Action;
use engine::claim::Claim;
use engine::connector::{AceData, Connector, Put, Reading, Recipient, Response, Secret, Tencent, Verdict};
use engine::outcome::Outcome;
use engine::projection::AceDataNumbering;
use engine::subject::{Date, ParseOptions, Subject};
use zeroize::Zeroizing;

fn subject(action: Action) -> Subject {
    let claim = Claim::new("张伟", "6217000000000000012", "99010119610202001X", "16100000001", 0)
        .with_validity(Some(("20200101", "20400101")));
    let today = Date::new(2026, 11, 21).unwrap();
    let options = ParseOptions { test_land: true, ..ParseOptions::new(today) };
    Subject::parse(action, &claim, &options).unwrap()
}

fn put(subject: &Subject, action: Action) -> Put<'_> {
    Put { action, subject, reference: "r-1", now_ms: 1_795_233_600_000, host: "127.0.0.1:4400" }
}

fn acedata(numbering: AceDataNumbering) -> Connector {
    Connector::AceData(AceData { token: Secret(Zeroizing::new("token".into())), numbering })
}

fn tencent(recipient: Option<Recipient>) -> Connector {
    Connector::Tencent(Tencent {
        secret_id: "AKID".into(),
        secret_key: Secret(Zeroizing::new("key".into())),
        region: String::new(),
        recipient,
    })
}

fn read(connector: &Connector, action: Action, status: u16, body: &str) -> Reading {
    connector.read(action, &Response { status, headers: &[], body: body.as_bytes() })
}

#[test]
fn nothing_of_a_connector_prints_a_secret_or_an_element() {
    let connector = tencent(None);
    assert!(!format!("{connector:?}").contains("\"key\""));
    let subject = subject(Action::FourElements);
    let call = connector.call(&put(&subject, Action::FourElements)).unwrap();
    assert_eq!(format!("{call:?}"), "Request { path: \"/\", .. }");
}

/// What is sent is what the front of that wire reads.
#[test]
fn calls_hold_the_elements_of_their_action() {
    for action in Action::ALL {
        let subject = subject(action);
        let body = tencent(None).call(&put(&subject, action)).unwrap().body;
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(body.contains("6217000000000000012"), subject.card.is_some(), "{action:?}");
        assert_eq!(body.contains("16100000001"), subject.mobile.is_some(), "{action:?}");
        let call = acedata(AceDataNumbering::Documented).call(&put(&subject, action)).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(body["id_card"].is_string(), subject.id.is_some(), "{action:?}");
        assert_eq!(body["validity_begin"].is_string(), action == Action::NameAndId);
    }
}

#[test]
fn the_same_number_means_what_its_own_table_says() {
    let action = Action::FourElements;
    let reply = |text| format!(r#"{{"result":"-4","description":"{text}"}}"#);
    let guide = read(&acedata(AceDataNumbering::Documented), action, 200, &reply("持卡人信息有误"));
    let answer = |outcome, charged| Verdict::Answer { outcome, charged };
    assert_eq!(guide.verdict, answer(Outcome::HolderMismatch, true));
    let upstream = acedata(AceDataNumbering::Upstream4E);
    let passed_through = read(&upstream, action, 200, &reply("银行卡号格式有误"));
    assert_eq!(passed_through.verdict, answer(Outcome::PanMalformed, false));
    // Whoever has set the wrong numbering: the text of the other table beside a number of this one.
    let crossed = read(&acedata(AceDataNumbering::Documented), action, 200, &reply("银行卡号格式有误"));
    assert_eq!(crossed.verdict, Verdict::Unknown, "never what another table says");
    assert_eq!(crossed.code, "-4");
}

#[test]
fn what_nobody_knows_is_never_an_answer() {
    let action = Action::FourElements;
    let tencent = tencent(None);
    for body in ["", "{}", "[]", "null", "{\"Response\":{}}", "{\"Response\":{\"Result\":0}}", "<html>"] {
        assert_eq!(read(&tencent, action, 200, body).verdict, Verdict::Unclear, "{body}");
    }
    let odd = r#"{"Response":{"Result":"7","Description":"?","RequestId":"r\u0000x"}}"#;
    let odd = read(&tencent, action, 200, odd);
    assert_eq!((odd.verdict, odd.code.as_str(), odd.reference.as_str()), (Verdict::Unknown, "7", "rx"));
    let passed = r#"{"Response":{"Result":"0","Description":"认证通过","RequestId":"r"}}"#;
    let answer = Verdict::Answer { outcome: Outcome::Pass, charged: true };
    assert_eq!(read(&tencent, action, 200, passed).verdict, answer);
    assert_eq!(read(&tencent, action, 502, passed).verdict, Verdict::Unclear, "no reply of the service");
    assert_eq!(read(&tencent, action, 429, "<html>").verdict, Verdict::Refused, "a proxy's");
    let failed =
        r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":""},"RequestId":"r"}}"#;
    assert_eq!(read(&tencent, action, 200, failed).verdict, Verdict::Refused);
    let internal = failed.replace("AuthFailure.SignatureFailure", "InternalError");
    assert_eq!(read(&tencent, action, 200, &internal).verdict, Verdict::Unclear);
}

/// Each number of each table comes back as an outcome that has this number.
#[test]
fn every_published_number_is_read() {
    use wire::Language::{Chinese, English};
    for action in Action::ALL {
        for outcome in Outcome::ALL {
            let name = engine::projection::name_of(action);
            if let Some(code) = engine::projection::tencent(name, outcome) {
                for language in [Chinese, English] {
                    let body = wire::tencent::success("r", code, language, wire::tencent::Extra::None);
                    let body = String::from_utf8(body).unwrap();
                    let Verdict::Answer { outcome: read, charged } =
                        read(&tencent(None), action, 200, &body).verdict
                    else {
                        panic!("{action:?} {outcome:?} {body}")
                    };
                    assert_eq!(engine::projection::tencent(name, read), Some(code));
                    assert_eq!((read == Outcome::Pass, charged), (code.number == 0, code.charged));
                }
            }
        }
    }
}
