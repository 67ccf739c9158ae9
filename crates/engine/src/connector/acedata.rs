//! AceData as a provider.

use wire::acedata::client::{request, response};
use wire::client::Said;

use super::{Call, Put, Reading, Response, Secret, Verdict, asked, unreadable};
use crate::action::Action;
use crate::projection::{self, AceDataNumbering};

/// An application with the service.
#[derive(Debug)]
pub struct AceData {
    /// Its bearer token.
    pub token: Secret,
    /// Which numbers it answers with; stated for each provider, because a number tells nothing of it.
    pub numbering: AceDataNumbering,
}

impl AceData {
    pub(super) fn call(&self, put: &Put<'_>) -> Call {
        request(projection::endpoint_of(put.action), &asked(put.subject), &self.token.0, put.reference)
    }

    pub(super) fn read(&self, action: Action, reply: &Response<'_>) -> Reading {
        match response(reply) {
            Said::Result { result, description, reference, charged: said } => {
                let endpoint = projection::endpoint_of(action);
                let read = projection::outcome_of_reply(&result, &description, |outcome| {
                    projection::acedata(self.numbering, endpoint, outcome)
                });
                // What the reply says of the charge counts, then the published table.
                let verdict = read.map_or(Verdict::Unknown, |(outcome, listed)| Verdict::Answer {
                    outcome,
                    charged: said.unwrap_or(listed),
                });
                Reading { verdict, code: result, reference }
            }
            // Statuses below 500 are about token, balance, rate and members, all of them before the check.
            Said::Error { code, reference } => {
                let verdict = if reply.status < 500 { Verdict::Refused } else { Verdict::Unclear };
                Reading { verdict, code, reference }
            }
            Said::Unreadable => unreadable(reply),
        }
    }
}
