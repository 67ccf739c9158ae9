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
