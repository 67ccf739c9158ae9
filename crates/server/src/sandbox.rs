//! What makes a sandbox of the server: public credentials, documented samples, one card per code,
//! faults, a clock to set, and a journal.
//!
//! The fronts and the engine work as in production; the sandbox only says what is to be answered
//! before anything is validated, and what becomes of the reply.

mod control;
mod credentials;
mod fault;
mod journal;
mod page;
mod people;
mod samples;

pub use control::is_local_name;
pub use credentials::{
    PUBLIC_PLATFORM_TOKEN, PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN, ROOT_KEY,
    seed as seeded_callers,
};
pub use fault::Effect;
pub use page::{application_rows, card_rows, where_answered};

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::caller::{Action, Wire};
use engine::claim::Claim;
use engine::outcome::{Outcome, Row};
use engine::projection;
use engine::settle::Settled;
use engine::verify::uuid_text;
use http::StatusCode;
use tokio::sync::watch;
use wire::Incoming;
use wire::envelope::{BadKey, Opener};
use wire::tencent::action::Action as Name;

use crate::front::{Bank, Note, Server};
use crate::http::{Delivery, Reply};
use fault::{Faults, When};
use journal::{Entry, Journal};
use people::People;

/// The sandbox's fixed private keys for envelopes. They are public, see there.
const ENVELOPE_KEYS: [&str; 2] =
    [include_str!("sandbox/public-test-rsa-key.pem"), include_str!("sandbox/public-test-sm2-key.pem")];

/// Opens what was encrypted for a sandbox.
pub fn opener() -> Result<Opener, BadKey> {
    let [rsa, sm2] = ENVELOPE_KEYS;
    Opener::new(&[rsa], &[sm2])
}

/// A sandbox's own state, all of it in memory.
pub struct Sandbox {
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    people: Mutex<People>,
    /// Moves on at every reset; what is still being delayed from before is dropped.
    epoch: watch::Sender<u64>,
}

/// What a request is to be given, whatever it asks.
#[derive(Default)]
pub struct Ordered {
    /// This outcome.
    pub outcome: Option<Outcome>,
    /// This error code of its wire, before the engine is asked.
    pub error: Option<String>,
}

/// Asks for an outcome in a request header: its name, or a four-element code.
const OUTCOME_HEADER: &str = "x-sandbox-outcome";

impl Sandbox {
    /// A sandbox whose random draws follow from the seed.
    pub fn new(seed: u64) -> Sandbox {
        Sandbox {
            faults: Mutex::new(Faults::new(seed)),
            journal: Mutex::default(),
            people: Mutex::new(People::seeded()),
            epoch: watch::Sender::new(0),
        }
    }

    /// What a fault rule or a header orders, in this order; notes the rule's effect on the reply.
    ///
    /// # Errors
    /// What is wrong with the header: silence would be worse than an error.
    pub fn order(
        &self,
        wire: Wire,
        name: Name,
        card: &str,
        incoming: &Incoming<'_>,
        note: &mut Note,
    ) -> Result<Ordered, String> {
        let action = projection::asked_by_name(name);
        let on_wire = match wire {
            Wire::Tencent => name.name(),
            Wire::AceData => projection::endpoint_of(action).name(),
            Wire::Native => action.name(),
        };
        let effect = lock(&self.faults).draw(wire, [on_wire, action.name()], card);
        if let Some(effect) = effect {
            return Ok(ordered_by(effect, name, note));
        }
        let Some(asked) = incoming.header(OUTCOME_HEADER) else { return Ok(Ordered::default()) };
        let outcome = outcome(name, asked).ok_or_else(|| {
            format!(
                "`X-Sandbox-Outcome` is neither an outcome such as CARD_LOST nor a code such as -13: {asked}"
            )
        })?;
        if !action.gives(outcome) {
            let given: Vec<_> = action.outcomes().iter().map(|outcome| outcome.name()).collect();
            return Err(format!(
                "`X-Sandbox-Outcome`: {} never answers {}; it answers {}",
                action.name(),
                outcome.name(),
                given.join(", ")
            ));
        }
        note.script = Some("header");
        Ok(Ordered { outcome: Some(outcome), error: None })
    }

    /// The outcome before any validation: what was ordered, else the magic card's, identity number's or
    /// mobile's, else a sample's.
    pub fn script(
        &self,
        wire: Wire,
        action: Action,
        claim: &Claim,
        ordered: Option<Outcome>,
        note: &mut Note,
    ) -> Option<Outcome> {
        note.masks = Some(claim.masked());
        let found = |by: &'static str, outcome: Option<Outcome>| outcome.map(|outcome| (by, outcome));
        let (by, outcome) = found(note.script.unwrap_or("fault"), ordered)
            .or_else(|| found(samples::magic_name(action), samples::magic(action, claim)))
            .or_else(|| found("sample", samples::documented(wire, action, claim)))?;
        note.script = Some(by);
        Some(outcome)
    }

    /// What is told of a card: as documented of the samples, and a bank that does not exist of cards that
    /// none issues.
    pub fn bank(card: &str, issued: Option<Bank>) -> Bank {
        match card.trim() {
            "6225768888888888" => Bank::new("招商银行信用卡", "China Merchants Bank", 2),
            card if samples::is_blanked(card) => {
                Bank::new("中国工商银行", "Industrial and Commercial Bank of China", 1)
            }
            _ => issued.unwrap_or_else(|| Bank::new("沙箱银行", "Sandbox Bank", 1)),
        }
    }

    /// Headers, journal, and what a fault rule does to the reply.
    pub async fn finish(
        &self,
        server: &Server,
        wire: Wire,
        request: &[u8; 16],
        note: Note,
        mut reply: Reply,
    ) -> Reply {
        if let Some(decision) = decision(&note) {
            reply.header("x-sandbox-decision", decision);
        }
        if let Some(hint) = &note.hint {
            reply.header("x-sandbox-hint", hint);
        }
        let effect = note.effect.clone().unwrap_or_default();
        if let Some(status) = effect.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            reply.status = status;
            reply.body = format!("a fault rule of the sandbox answers {status}\n").into();
            reply.set(&http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        }
        reply.delivery = match (effect.drop, effect.truncate) {
            (Some(_), _) => Delivery::Dropped,
            (None, Some(bytes)) => Delivery::Truncated(bytes),
            (None, None) => Delivery::Whole,
        };
        let mut resets = self.epoch.subscribe();
        // Before the delay, so that a client that gives up waiting still finds its request.
        lock(&self.journal).add(Entry::of(server, wire, uuid_text(request), &note, reply.status));
        if let Some(delay) = effect.delay_ms.map(Duration::from_millis) {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = resets.changed() => reply.delivery = Delivery::Dropped,
            }
        }
        reply
    }
}

fn ordered_by(effect: Effect, name: Name, note: &mut Note) -> Ordered {
    #[expect(clippy::panic, reason = "a fault rule asks for it, to show that a panic is answered")]
    if effect.panic {
        panic!("a fault rule of the sandbox asked for a panic");
    }
    let possible = |outcome: &Outcome| projection::asked_by_name(name).gives(*outcome);
    let outcome = effect.outcome.as_deref().and_then(|text| outcome(name, text)).filter(possible);
    let before = effect.when == Some(When::Before) || effect.drop == Some(When::Before);
    // Not asked at all: the reply is replaced or dropped, and nothing is charged.
    let error = effect.error.clone().or_else(|| before.then(|| "InternalError".to_owned()));
    note.script = Some("fault");
    note.effect = Some(effect);
    Ordered { outcome, error }
}

/// An outcome by name, or by its number under a name of the Tencent wire.
fn outcome(name: Name, text: &str) -> Option<Outcome> {
    let text = text.trim();
    Outcome::named(text).or_else(|| projection::outcome_of_number(name, text.parse().ok()?))
}

/// `row=23 outcome=HOLDER_MISMATCH by=records differs=mobile`
fn decision(note: &Note) -> Option<String> {
    let Settled { answer, replayed, differs } = note.answered.as_ref()?;
    let by = match (replayed, answer.row) {
        (true, _) => "idempotency",
        (false, Row::SCRIPT) => note.script.unwrap_or("script"),
        (false, Row(1..=5)) => "format",
        (false, Row(6)) => "limits",
        (false, _) => "records",
    };
    let mut text = format!("row={} outcome={} by={by}", answer.row.0, answer.outcome.name());
    if let Some(differs) = differs {
        let named = [("name", differs.name), ("id", differs.id), ("mobile", differs.mobile)];
        let named: Vec<_> = named.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
        if !named.is_empty() {
            text = format!("{text} differs={}", named.join(","));
        }
    }
    Some(text)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Worst case after a panic is a journal with a line missing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
