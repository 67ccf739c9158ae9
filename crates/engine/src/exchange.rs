//! Exchanges with providers, kept so that a change of settings can be tried on them (`card4e replay`).
//!
//! Off unless the operator switches it on. What is kept is the reply, with everything personal in it
//! replaced by keyed tokens: nobody can read them, but the same card has the same token. The question is
//! not kept at all, apart from the first six digits of its card.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Action;
use crate::caller::ApplicationId;
use crate::clock::Millis;
use crate::connector::{Reading, Verdict};
use crate::outcome::Outcome;
use crate::route::Received;
use crate::spending::Asking;
use crate::subject::Subject;
use crate::vault::Vault;
use crate::verify::uuid_text;

/// One exchange, a line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// When, Unix milliseconds.
    pub at_ms: Millis,
    /// The request it was for.
    pub request: String,
    /// For whom.
    pub application: ApplicationId,
    /// What was asked.
    pub action: String,
    /// By which route.
    pub route: String,
    /// Which provider.
    pub provider: String,
    /// First six digits of the card, where there was one.
    pub iin: Option<String>,
    /// Prefix of its issuer, if one is known.
    pub issuer: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// Headers that say something of the answer.
    pub headers: Vec<(String, String)>,
    /// The reply, with tokens in place of what is personal; absent when it was no JSON.
    pub body: Option<Value>,
    /// What it was taken for: an outcome, `refused`, `unclear` or `unknown`.
    pub read_as: String,
}

impl Exchange {
    /// What was asked; nothing when a later card4e wrote it.
    pub fn asked(&self) -> Option<Action> {
        self.action.parse().ok()
    }

    /// The reply as it can be read again.
    pub fn reply(&self) -> Received {
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        Received { status: self.status, headers: self.headers.clone(), body: body.into_bytes() }
    }
}

/// What a reply is taken for, in a word.
pub fn read_as(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Answer { outcome, .. } => Outcome::name(*outcome),
        Verdict::Unknown => "unknown",
        Verdict::Refused => "refused",
        Verdict::Unclear => "unclear",
    }
}

/// Appends exchanges to a file; when that is full, to a new one, and the one before is kept.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    bytes_max: u64,
    one_at_a_time: Mutex<()>,
    failed: AtomicBool,
}

impl Recorder {
    /// Keeps them in this file, and at most twice so many bytes.
    pub fn new(path: PathBuf, bytes_max: u64) -> Recorder {
        Recorder { path, bytes_max, one_at_a_time: Mutex::default(), failed: AtomicBool::new(false) }
    }

    pub(crate) fn keep(
        &self,
        vault: &Vault,
        asking: &Asking,
        subject: &Subject,
        issuer: Option<&str>,
        reply: &Received,
        reading: &Reading,
    ) {
        let tells = |name: &str| matches!(name, "x-charged" | "x-trace-id");
        let exchange = Exchange {
            at_ms: asking.at_ms,
            request: uuid_text(&asking.request),
            application: asking.application,
            action: asking.action.name().into(),
            route: asking.route.clone(),
            provider: asking.provider.clone(),
            iin: subject.card.as_ref().and_then(|card| card.as_str().get(..6)).map(str::to_owned),
            issuer: issuer.map(str::to_owned),
            status: reply.status,
            headers: reply.headers.iter().filter(|(name, _)| tells(name)).cloned().collect(),
            body: redacted(&reply.body, subject, vault),
            read_as: read_as(&reading.verdict).into(),
        };
        if let Err(error) = self.append(&exchange)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "exchanges with providers cannot be kept; answers do not depend on it");
        }
    }

    fn append(&self, exchange: &Exchange) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(exchange)?;
        line.push(b'\n');
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() + line.len() as u64 > self.bytes_max) {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(&line)
    }
}

/// The reply with tokens in place of every element it repeats.
fn redacted(body: &[u8], subject: &Subject, vault: &Vault) -> Option<Value> {
    let mut body = serde_json::from_slice(body).ok()?;
    let elements: [(&str, Option<&str>); 4] = [
        ("name", subject.name.as_ref().map(|name| name.as_str())),
        ("card", subject.card.as_ref().map(|card| card.as_str())),
        ("id", subject.id.as_ref().map(|id| id.as_str())),
        ("mobile", subject.mobile.as_ref().map(|mobile| mobile.as_str())),
    ];
    let keys = vault.keys();
    let tokens: Vec<(String, String)> = elements
        .into_iter()
        .filter_map(|(what, text)| Some((what, text.filter(|text| !text.is_empty())?)))
        .map(|(what, text)| {
            let token = keys.idempotency(&[b"exchange", what.as_bytes(), text.as_bytes()]);
            (text.to_owned(), format!("<{what} {}>", crate::file::hex(&token[..8])))
        })
        .collect();
    replace(&mut body, &tokens);
    Some(body)
}

fn replace(value: &mut Value, tokens: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (element, token) in tokens {
                if text.contains(element.as_str()) {
                    *text = text.replace(element.as_str(), token);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, tokens)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, tokens)),
        // A card or a phone as a number is no less personal.
        Value::Number(number) => {
            let text = number.to_string();
            if let Some((_, token)) = tokens.iter().find(|(element, _)| *element == text) {
                *value = Value::String(token.clone());
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::subject::{Date, ParseOptions};
    use crate::vault::KeyRing;

    #[test]
    fn nothing_personal_is_kept_and_what_is_kept_is_read_the_same() {
        let vault = Vault::new(&KeyRing::generate());
        let claim = Claim::new("张伟", "6217000000000000012", "99010119610202001X", "16100000001", 0);
        let options = ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2026, 11, 21).unwrap()) };
        let subject = Subject::parse(Action::FourElements, &claim, &options).unwrap();
        let asking = Asking {
            at_ms: 1,
            request: [7; 16],
            number: 0,
            application: ApplicationId(1),
            route: "all".into(),
            provider: "p".into(),
            action: Action::FourElements,
            most: crate::ledger::Credits::ZERO,
        };
        let body = r#"{"result":"-4","echo":["\u5f20\u4f1f 6217000000000000012",16100000001],"id":{"x":"99010119610202001X"}}"#;
        let reply = Received { status: 200, headers: vec![], body: body.as_bytes().to_vec() };
        let verdict = Verdict::Answer { outcome: Outcome::HolderMismatch, charged: true };
        let reading = Reading { verdict, code: "-4".into(), reference: String::new() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exchanges.jsonl");
        let recorder = Recorder::new(path.clone(), 1500);
        for _ in 0..20 {
            recorder.keep(&vault, &asking, &subject, Some("621700"), &reply, &reading);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for personal in ["张伟", "5f20", "0000000012", "16100000001", "99010119610202001X"] {
            assert!(!text.contains(personal), "{personal}: {text}");
        }
        assert!(text.len() <= 1500 && path.with_extension("jsonl.1").exists(), "bounded");
        let read: Exchange = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((read.iin.as_deref(), read.read_as.as_str()), (Some("621700"), "HOLDER_MISMATCH"));
        assert!(String::from_utf8(read.reply().body).unwrap().contains(r#""result":"-4""#));
    }
}
