//! Connectors to providers: each builds a call and reads a reply, and does no IO.
//!
//! A provider's numbers never meet another's: what a reply says becomes an [`Outcome`] here, through the
//! table of its own wire and action. A word nobody knows is never a pass; see [`Reading`].

mod acedata;
mod scripted;
mod tencent;

use std::fmt;

pub use acedata::AceData;
pub use scripted::Scripted;
pub use tencent::Tencent;
pub use wire::client::{Request as Call, Response};
pub use wire::envelope::seal::{Drawn, Recipient};
use zeroize::Zeroizing;

use crate::action::Action;
use crate::clock::Millis;
use crate::outcome::Outcome;
use crate::subject::Subject;
use crate::vault::{nonce, random};

/// How a provider is spoken to.
#[derive(Debug)]
pub enum Connector {
    /// Tencent Cloud API 3.0, or another card4e under that name.
    Tencent(Tencent),
    /// AceData, or another card4e under that name.
    AceData(AceData),
    /// Whatever a test says; no setting makes one.
    Scripted(Scripted),
}

/// A secret of a provider's. Does not print.
pub struct Secret(pub Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a provider is asked.
pub struct Put<'a> {
    /// Which question.
    pub action: Action,
    /// About whom.
    pub subject: &'a Subject,
    /// Our own id of it, as text.
    pub reference: &'a str,
    /// Now, Unix milliseconds.
    pub now_ms: Millis,
    /// The host to be signed, with its port unless it is the scheme's own.
    pub host: &'a str,
}

/// What a reply comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it says.
    pub verdict: Verdict,
    /// The provider's own number or error code, for the evidence.
    pub code: String,
    /// The id the provider knows the question by; bills have it.
    pub reference: String,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer.
    Answer {
        /// Which.
        outcome: Outcome,
        /// Whether the provider charges it.
        charged: bool,
    },
    /// A number that is in no table, or that goes with the text of another table: nobody may rely on it,
    /// and the operator must look.
    Unknown,
    /// It refused the request and surely charged nothing.
    Refused,
    /// It may have answered and charged: an error after the fact, or nothing that can be read.
    Unclear,
}

/// Longest code or reference that is kept; a provider could send anything.
const WORD_CHARS_MAX: usize = 64;

impl Connector {
    /// The request that asks it.
    ///
    /// # Errors
    /// The elements cannot be sealed; nothing may be sent then.
    pub fn call(&self, put: &Put<'_>) -> Result<Call, CannotCall> {
        match self {
            Connector::Tencent(tencent) => tencent.call(put),
            Connector::AceData(acedata) => Ok(acedata.call(put)),
            Connector::Scripted(scripted) => Ok(scripted.call(put)),
        }
    }

    /// What a reply to a question of this action says.
    pub fn read(&self, action: Action, response: &Response<'_>) -> Reading {
        let mut reading = match self {
            Connector::Tencent(tencent) => tencent.read(action, response),
            Connector::AceData(acedata) => acedata.read(action, response),
            Connector::Scripted(scripted) => scripted.read(action, response),
        };
        reading.code = word(&reading.code);
        reading.reference = word(&reading.reference);
        if let Verdict::Answer { outcome, .. } = reading.verdict
            && !action.gives(outcome)
        {
            reading.verdict = Verdict::Unknown;
        }
        reading
    }

    /// Its kind as settings spell it.
    pub const fn word(&self) -> &'static str {
        match self {
            Connector::Tencent(_) => "tencent",
            Connector::AceData(_) => "acedata",
            Connector::Scripted(_) => "scripted",
        }
    }
}

/// The elements could not be sealed for the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotCall;

/// Visible ASCII only, so that what a provider sends does no harm in a log or on a terminal.
fn word(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(WORD_CHARS_MAX).collect()
}

/// The elements of a subject in their canonical form, those the action takes.
fn asked(subject: &Subject) -> wire::client::Asked<'_> {
    wire::client::Asked {
        name: subject.name.as_ref().map_or("", |name| name.as_str()),
        bank_card: subject.card.as_ref().map_or("", |card| card.as_str()),
        id_card: subject.id.as_ref().map_or("", |id| id.as_str()),
        phone: subject.mobile.as_ref().map_or("", |mobile| mobile.as_str()),
        validity: subject.validity.as_ref().and_then(|validity| validity.as_str().split_once('-')),
    }
}

/// What was not written by the service. These statuses say that the request was not even looked at, or
/// that whoever is in front of the service did not let it through.
fn unreadable(reply: &Response<'_>) -> Reading {
    let verdict =
        if matches!(reply.status, 401 | 403 | 404 | 429) { Verdict::Refused } else { Verdict::Unclear };
    Reading { verdict, code: reply.status.to_string(), reference: String::new() }
}

fn drawn() -> Drawn {
    Drawn { key: Zeroizing::new(random()), iv: nonce(), nonce: Zeroizing::new(random()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::projection::AceDataNumbering;
    use crate::subject::{Date, ParseOptions};

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
                let name = crate::projection::name_of(action);
                if let Some(code) = crate::projection::tencent(name, outcome) {
                    for language in [Chinese, English] {
                        let body = wire::tencent::success("r", code, language, wire::tencent::Extra::None);
                        let body = String::from_utf8(body).unwrap();
                        let Verdict::Answer { outcome: read, charged } =
                            read(&tencent(None), action, 200, &body).verdict
                        else {
                            panic!("{action:?} {outcome:?} {body}")
                        };
                        assert_eq!(crate::projection::tencent(name, read), Some(code));
                        assert_eq!((read == Outcome::Pass, charged), (code.number == 0, code.charged));
                    }
                }
            }
        }
    }
}
