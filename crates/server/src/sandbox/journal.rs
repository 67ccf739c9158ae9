//! The last requests, newest first: bounded from the first day, elements masked.

use std::collections::VecDeque;

use engine::caller::Wire;
use engine::claim::Masks;
use engine::clock::utc_text;
use engine::ledger::Credits;
use http::StatusCode;
use serde::Serialize;

use crate::front::{Note, Server};

/// Requests that are remembered.
const ENTRIES_MAX: usize = 1000;

/// One request and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counts up from 1 since the last reset.
    pub number: u64,
    /// The sandbox's time, UTC.
    pub at: String,
    /// What the caller saw as `RequestId` or `trace_id`.
    pub request_id: String,
    /// `tencent` or `acedata`.
    pub wire: &'static str,
    /// What was asked for.
    pub action: String,
    /// Who asked, once known.
    pub application: Option<String>,
    /// The elements, masked.
    pub elements: Option<Masks>,
    /// What was answered.
    pub outcome: Option<&'static str>,
    /// The number on the wire, as text.
    pub result: Option<String>,
    /// The error code on the wire.
    pub error: Option<&'static str>,
    /// Which row of the decision table, and who decided.
    pub decision: Option<String>,
    /// What to do about an error.
    pub hint: Option<String>,
    /// Credits charged for this request; a repeated one is not charged again.
    pub charged: String,
    /// The answer of an earlier request was given again.
    pub replayed: bool,
    /// HTTP status.
    pub status: u16,
    /// What a fault rule did.
    pub effect: Option<super::Effect>,
}

impl Entry {
    /// What is remembered of a request.
    pub fn of(server: &Server, wire: Wire, request_id: String, note: &Note, status: StatusCode) -> Entry {
        let answer = note.answered.as_ref().map(|settled| &settled.answer);
        let replayed = note.answered.as_ref().is_some_and(|settled| settled.replayed);
        let charged = answer.filter(|_| !replayed).map_or(Credits::ZERO, |answer| answer.charged);
        Entry {
            number: 0,
            at: utc_text(server.engine.clock.now_ms()),
            request_id,
            wire: wire.name(),
            action: note.action.clone().into_owned(),
            application: note.application.clone(),
            elements: note.masks.clone(),
            outcome: answer.map(|answer| answer.outcome.name()),
            result: note.result.map(|number| number.to_string()),
            error: note.error,
            decision: super::decision(note),
            hint: note.hint.clone(),
            charged: charged.to_string(),
            replayed,
            status: status.as_u16(),
            effect: note.effect.clone(),
        }
    }
}

/// The last requests.
#[derive(Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    count: u64,
}

impl Journal {
    /// Remembers a request and forgets the oldest when there are too many.
    pub fn add(&mut self, mut entry: Entry) {
        self.count += 1;
        entry.number = self.count;
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The newest `most`, newest first.
    pub fn newest(&self, most: usize) -> Vec<&Entry> {
        self.entries.iter().rev().take(most).collect()
    }

    /// Requests since the last reset, those forgotten included.
    pub fn count(&self) -> u64 {
        self.count
    }
}
