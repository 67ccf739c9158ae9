//! Tencent Cloud API 3.0 as a provider.

use wire::Element;
use wire::client::Said;
use wire::tencent::client::{Signer, request, response};

use super::{Call, CannotCall, Put, Reading, Recipient, Response, Secret, Verdict, asked, drawn, unreadable};
use crate::action::Action;
use crate::projection;

/// An account with the service.
#[derive(Debug)]
pub struct Tencent {
    /// The key's public part.
    pub secret_id: String,
    /// The key's secret part.
    pub secret_key: Secret,
    /// `ap-guangzhou`; empty: none is sent.
    pub region: String,
    /// Elements are sealed with this key; `None`: they go as text, within TLS.
    pub recipient: Option<Recipient>,
}

impl Tencent {
    pub(super) fn call(&self, put: &Put<'_>) -> Result<Call, CannotCall> {
        let name = projection::name_of(put.action);
        let asked = asked(put.subject);
        let sealed = match &self.recipient {
            None => None,
            Some(recipient) => {
                let elements = name.members().elements;
                let elements: Vec<(Element, &str)> =
                    elements.iter().map(|(element, _)| (*element, asked.get(*element))).collect();
                Some(recipient.seal(&elements, &drawn()).map_err(|_| CannotCall)?)
            }
        };
        let signer = Signer {
            secret_id: &self.secret_id,
            secret_key: &self.secret_key.0,
            host: put.host,
            region: &self.region,
            timestamp: put.now_ms.div_euclid(1000),
        };
        Ok(request(name, &asked, sealed.as_ref(), &signer))
    }

    pub(super) fn read(&self, action: Action, reply: &Response<'_>) -> Reading {
        match response(reply) {
            Said::Result { result, description, reference, .. } => {
                let name = projection::name_of(action);
                let read = projection::outcome_of_reply(&result, &description, |outcome| {
                    projection::tencent(name, outcome)
                });
                let verdict =
                    read.map_or(Verdict::Unknown, |(outcome, charged)| Verdict::Answer { outcome, charged });
                Reading { verdict, code: result, reference }
            }
            Said::Error { code, reference } => {
                let verdict = if may_have_asked(&code) { Verdict::Unclear } else { Verdict::Refused };
                Reading { verdict, code, reference }
            }
            Said::Unreadable => unreadable(reply),
        }
    }
}

/// Errors after which nobody knows how far the question came. All others are of the request: signature,
/// rate, entitlement, balance, members.
fn may_have_asked(code: &str) -> bool {
    code.starts_with("InternalError") || code.starts_with("FailedOperation.UnKnown")
}
