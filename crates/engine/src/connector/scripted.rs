//! A provider for tests: the call holds nothing, and the reply is the name of an outcome, or `refused`.

use zeroize::Zeroizing;

use super::{Call, Put, Reading, Response, Verdict};
use crate::action::Action;
use crate::outcome::Outcome;

/// Answers whatever its transport returns: `PASS`, `HOLDER_MISMATCH`, `refused`; the rest is unclear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scripted;

impl Scripted {
    pub(super) fn call(self, _put: &Put<'_>) -> Call {
        Call { path: "/", headers: Vec::new(), body: Zeroizing::new(Vec::new()) }
    }

    pub(super) fn read(self, action: Action, reply: &Response<'_>) -> Reading {
        let code = String::from_utf8_lossy(reply.body).into_owned();
        let verdict = match Outcome::named(&code) {
            Some(outcome) => Verdict::Answer { outcome, charged: action.charges(outcome) },
            None if code == "refused" => Verdict::Refused,
            None if code == "unknown" => Verdict::Unknown,
            None => Verdict::Unclear,
        };
        Reading { verdict, code, reference: String::new() }
    }
}
