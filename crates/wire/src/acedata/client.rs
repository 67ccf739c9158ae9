//! The AceData wire from the client's side: a request with a bearer token, and what came back.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Endpoint;
use crate::client::{Asked, Request, Response, Said};

/// The request that asks an endpoint. `reference` goes into `X-Request-Id`, which the service echoes.
pub fn request(endpoint: Endpoint, asked: &Asked<'_>, token: &str, reference: &str) -> Request {
    let takes = endpoint.takes();
    let mut members = Map::new();
    for (element, name) in takes.elements {
        members.insert((*name).into(), asked.get(*element).into());
    }
    if takes.cert_type {
        members.insert("cert_type".into(), 0.into());
    }
    if let (true, Some((begin, end))) = (takes.validity, asked.validity) {
        members.insert("validity_begin".into(), begin.into());
        members.insert("validity_end".into(), end.into());
    }
    let text = |value: &str| Zeroizing::new(value.to_owned());
    let headers = vec![
        ("content-type", text("application/json")),
        ("accept", text("application/json")),
        ("accept-language", text("zh-CN")),
        ("authorization", Zeroizing::new(format!("Bearer {token}"))),
        ("x-request-id", text(reference)),
    ];
    // Text always serialises.
    let body = Zeroizing::new(serde_json::to_vec(&members).unwrap_or_default());
    Request { path: endpoint.path(), headers, body }
}

/// What a response says.
pub fn response(response: &Response<'_>) -> Said {
    let Ok(body) = serde_json::from_slice::<Value>(response.body) else { return Said::Unreadable };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let traced = response.header("x-trace-id").map(str::to_owned);
    let reference = text(&body["trace_id"]).or(traced).unwrap_or_default();
    if let Some(code) = text(&body["error"]["code"]) {
        return Said::Error { code, reference };
    }
    // The guide says text; a number there would be the same number.
    let result = text(&body["result"]).or_else(|| body["result"].as_i64().map(|number| number.to_string()));
    match (response.status, result) {
        (200, Some(result)) => Said::Result {
            result,
            description: text(&body["description"]).unwrap_or_default(),
            reference,
            charged: match response.header("x-charged") {
                Some("0") => Some(false),
                Some("1") => Some(true),
                _ => None,
            },
        },
        _ => Said::Unreadable,
    }
}
