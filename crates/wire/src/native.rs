//! card4e's own wire: `POST /api/v1/verifications`. The members of the AceData wire, what is asked, and two
//! more that personal information may not be processed without: a purpose and a reference to the consent.
//!
//! Unlike the other two it has no clients to be faithful to, so it is strict: a member it does not know
//! is an error, because a slip would be lost in silence, and because what must never be sent here (a PIN,
//! a security code) would be.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::Element;
use crate::acedata::{Check, Endpoint, ErrorCode, FOUR_ELEMENTS, Fault, Json, SCALAR, Takes};

/// Where questions are asked.
pub const PATH: &str = "/api/v1/verifications";

/// All members of a question.
pub const MEMBERS: [&str; 9] =
    ["action", "name", "bank_card", "id_card", "phone", "cert_type", "encryption", "purpose", "consent"];

/// What a question of that action takes; `None` when there is none. A phone is always called `phone` here.
pub fn takes(action: &str) -> Option<&'static Takes> {
    const NAME_AND_ID: &Takes = &Takes::only(&[(Element::Name, "name"), (Element::IdCard, "id_card")]);
    const PHONE_AND_NAME: &Takes = &Takes::only(&[(Element::Name, "name"), (Element::Phone, "phone")]);
    const PHONE_NAME_AND_ID: &Takes =
        &Takes::only(&[(Element::Name, "name"), (Element::Phone, "phone"), (Element::IdCard, "id_card")]);
    match action {
        "bankcard-4e" => Some(&FOUR_ELEMENTS),
        "bankcard-3e" => Some(Endpoint::BankCard3E.takes()),
        "bankcard-2e" => Some(Endpoint::BankCard2E.takes()),
        "bankcard-1e" => Some(Endpoint::BankCard1E.takes()),
        "idcard-2e" => Some(NAME_AND_ID),
        "phone-3e" => Some(PHONE_NAME_AND_ID),
        "phone-2e" => Some(PHONE_AND_NAME),
        _ => None,
    }
}

/// What is asked when nothing is said.
const FOUR: &str = "bankcard-4e";

/// One question.
pub struct Verification<'a> {
    /// What is asked; the engine's name for it.
    pub action: Cow<'a, str>,
    /// The elements, encrypted or not.
    pub elements: Check<'a>,
    /// Why it is asked: a word agreed with the operator.
    pub purpose: Cow<'a, str>,
    /// Where the consent is on file: the caller's own reference.
    pub consent: Cow<'a, str>,
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl<'a> Verification<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Result<Self, Fault> {
        // A body that is no object at all is best explained by the reader of elements.
        let Ok(why) = serde_json::from_slice::<Why<'a>>(body) else {
            return Err(Check::read(&FOUR_ELEMENTS, body)
                .err()
                .unwrap_or_else(|| ErrorCode::BadRequest.into()));
        };
        if let Some(unknown) = &why.unknown {
            return Err(unknown_member(unknown));
        }
        let action = match why.action {
            Json::Null => Cow::Borrowed(FOUR),
            Json::Text(action) => trimmed(action),
            _ => return Err(Fault::wrong_type("action", "a string")),
        };
        let takes = takes(&action)
            .ok_or_else(|| Fault::bad_request("There is no such action; docs/actions.md lists them."))?;
        // A slip must not be lost: who sends a phone wants it verified.
        let is_taken = |name: &&str| takes.elements.iter().any(|(_, taken)| taken == name);
        if let Some(extra) = why.elements.iter().find(|name| !is_taken(name)) {
            return Err(Fault::bad_request(format!("{extra} is not asked about by {action}; leave it out.")));
        }
        let elements = Check::read(takes, body)?;
        let text = |json, member| match json {
            Json::Text(text) => Ok(trimmed(text)),
            Json::Null => Err(Fault::missing(&[member])),
            _ => Err(Fault::wrong_type(member, "a string")),
        };
        let purpose = text(why.purpose, "purpose")?;
        let consent = text(why.consent, "consent")?;
        Ok(Verification { action, elements, purpose, consent })
    }
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
        Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_owned()),
    }
}

fn unknown_member(name: &str) -> Fault {
    // Quoted only if it looks like a name: a value in its place must not come back.
    let is_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let which = if is_name { format!("`{name}`") } else { "a member of the body".to_owned() };
    Fault::bad_request(format!("{which} is not known here; the members are {}.", MEMBERS.join(", ")))
}

/// A mobile number as people write it, as the eleven digits that are verified: without blanks, hyphens
/// and the country's code. Anything else is left as it is and judged by the engine.
pub fn national_mobile(text: &str) -> Cow<'_, str> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
    let national = ["+86", "0086", "86"].into_iter().find_map(|code| digits.strip_prefix(code));
    match national.filter(|rest| rest.len() == 11) {
        Some(rest) => Cow::Owned(rest.to_owned()),
        None if digits.len() == text.len() => Cow::Borrowed(text),
        None => Cow::Owned(digits),
    }
}

#[derive(Default)]
struct Why<'a> {
    action: Json<'a>,
    /// Names of elements that are there.
    elements: Vec<&'static str>,
    purpose: Json<'a>,
    consent: Json<'a>,
    unknown: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Why<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WhyVisitor)
    }
}

struct WhyVisitor;

impl<'de> Visitor<'de> for WhyVisitor {
    type Value = Why<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Why<'de>, A::Error> {
        let mut why = Why::default();
        while let Some(name) = map.next_key_seed(SCALAR)? {
            let Json::Text(name) = name else { continue };
            match name.as_ref() {
                "action" => why.action = map.next_value_seed(SCALAR)?,
                "purpose" => why.purpose = map.next_value_seed(SCALAR)?,
                "consent" => why.consent = map.next_value_seed(SCALAR)?,
                known => {
                    let element = FOUR_ELEMENTS.elements.iter().find(|(_, name)| *name == known);
                    let element = element.map(|(_, name)| *name);
                    if !MEMBERS.contains(&known) {
                        why.unknown.get_or_insert(name);
                    }
                    // Sent as null it is not sent.
                    let is_there = map.next_value::<Option<IgnoredAny>>()?.is_some();
                    why.elements.extend(element.filter(|_| is_there));
                }
            }
        }
        Ok(why)
    }
}

/// The status and body of a failure under `/api/v1`: the management API's envelope, with the codes of
/// its guide where it has one, else those of the AceData wire.
pub fn failure(fault: &Fault, trace_id: &str) -> (StatusCode, Vec<u8>) {
    let status = match fault.code {
        ErrorCode::TokenMismatched => StatusCode::FORBIDDEN,
        _ => fault.status,
    };
    let body =
        Body { detail: &fault.message, code: code_of(fault.code), trace_id: &trace_id.replace('-', "") };
    (status, serde_json::to_vec(&body).unwrap_or_default())
}

/// What a failure is called here.
pub fn code_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "invalid",
        ErrorCode::TokenMismatched => "permission_denied",
        ErrorCode::InvalidToken => "not_authenticated",
        ErrorCode::NoApi => "not_found",
        ErrorCode::MethodNotAllowed => "method_not_allowed",
        other => other.as_str(),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    detail: &'a str,
    code: &'a str,
    trace_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = r#"{"name":"韦小宝","bank_card":"6225768888888888","id_card":"11204416541220243X",
        "phone":"16137688175","purpose":" account_opening ","consent":"terms-7/2026-11-21"}"#;

    fn wrong(body: &str) -> String {
        Verification::read(body.as_bytes()).unwrap_err().message.into_owned()
    }

    #[test]
    fn a_question_has_a_purpose_and_a_consent() {
        let question = Verification::read(WHOLE.as_bytes()).unwrap();
        assert_eq!((&*question.purpose, &*question.consent), ("account_opening", "terms-7/2026-11-21"));
        assert_eq!(question.elements.phone, "16137688175");
        assert_eq!(wrong(&WHOLE.replace("purpose", "cert_type2")), unknown("a member of the body"));
        assert_eq!(
            wrong(&WHOLE.replace("\"consent\":\"terms-7/2026-11-21\"", "\"consent\":null")),
            "Required and missing: consent."
        );
        assert_eq!(wrong(&WHOLE.replace("\" account_opening \"", "7")), "purpose must be a string.");
    }

    fn unknown(which: &str) -> String {
        format!("{which} is not known here; the members are {}.", MEMBERS.join(", "))
    }

    #[test]
    fn an_action_takes_its_elements_and_no_others() {
        let three = WHOLE.replace('{', r#"{"action":"bankcard-3e","#);
        assert_eq!(wrong(&three), "phone is not asked about by bankcard-3e; leave it out.");
        let three = three.replace(r#""16137688175""#, "null");
        let three = Verification::read(three.as_bytes()).unwrap();
        assert_eq!((&*three.action, &*three.elements.phone), ("bankcard-3e", ""));
        assert_eq!(
            wrong(r#"{"action":"phone-2e","name":"a","purpose":"p","consent":"c"}"#),
            "Required and missing: phone."
        );
        assert_eq!(
            wrong(&WHOLE.replace('{', r#"{"action":"bankcard-5e","#)),
            "There is no such action; docs/actions.md lists them."
        );
        assert_eq!(wrong(&WHOLE.replace('{', r#"{"action":4,"#)), "action must be a string.");
    }

    #[test]
    fn what_must_not_be_sent_is_named_and_never_quoted() {
        assert_eq!(wrong(&WHOLE.replace("{", r#"{"cvv":"123","#)), unknown("`cvv`"));
        assert_eq!(wrong(&WHOLE.replace("{", r#"{"6225768888888888":1,"#)), unknown("a member of the body"));
        assert_eq!(wrong("[]"), "The request body must be a JSON object.");
        assert_eq!(wrong(""), "Required and missing: name, bank_card, phone, id_card.");
    }

    #[test]
    fn mobiles_are_read_as_people_write_them() {
        for text in
            ["16137688175", "+86 161 3768 8175", "0086-161-3768-8175", "8616137688175", "(+86)16137688175"]
        {
            assert_eq!(national_mobile(text), "16137688175", "{text}");
        }
        assert_eq!(national_mobile("86137688175"), "86137688175", "eleven digits of its own");
        assert_eq!(national_mobile("+852 9123 4567"), "+85291234567");
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(body in "\\PC{0,200}") {
            let _ = Verification::read(body.as_bytes());
            let _ = national_mobile(&body);
        }
    }
}
