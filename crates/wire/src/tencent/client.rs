//! The Tencent wire from the client's side: a TC3-signed request, and what came back.

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::CONTENT_TYPE;
use super::action::{Action, SERVICE, VERSION};
use super::signature::{Unsigned, sign_tc3};
use crate::client::{Asked, Request, Response, Said};
use crate::envelope::seal::Sealed;

/// With what, and for whom, a request is signed.
pub struct Signer<'a> {
    /// The key's public part.
    pub secret_id: &'a str,
    /// The key's secret part.
    pub secret_key: &'a str,
    /// The host, with its port unless it is the scheme's own, as it goes into `Host`.
    pub host: &'a str,
    /// `X-TC-Region`; empty: none, the service needs none.
    pub region: &'a str,
    /// Unix seconds; the service accepts five minutes of difference.
    pub timestamp: i64,
}

/// The request that asks an action, with its elements as text or sealed.
pub fn request(action: Action, asked: &Asked<'_>, sealed: Option<&Sealed>, signer: &Signer<'_>) -> Request {
    let body = Zeroizing::new(members(action, asked, sealed));
    let unsigned = Unsigned {
        method: &http::Method::POST,
        host: signer.host,
        content_type: CONTENT_TYPE,
        query: "",
        body: Some(&body),
        action: Some(action.name()),
        timestamp: signer.timestamp,
        service: SERVICE,
    };
    let authorization = sign_tc3(&unsigned, signer.secret_id, signer.secret_key);
    let text = |value: &str| Zeroizing::new(value.to_owned());
    let mut headers = vec![
        ("content-type", text(CONTENT_TYPE)),
        ("authorization", Zeroizing::new(authorization)),
        ("x-tc-action", text(action.name())),
        ("x-tc-version", text(VERSION)),
        ("x-tc-timestamp", text(&signer.timestamp.to_string())),
        ("x-tc-language", text("zh-CN")),
    ];
    if !signer.region.is_empty() {
        headers.push(("x-tc-region", text(signer.region)));
    }
    Request { path: "/", headers, body }
}

fn members(action: Action, asked: &Asked<'_>, sealed: Option<&Sealed>) -> Vec<u8> {
    let takes = action.members();
    let mut members = Map::new();
    for (element, name) in takes.elements {
        let value = sealed.and_then(|sealed| sealed.get(*element)).unwrap_or(asked.get(*element));
        members.insert((*name).into(), value.into());
    }
    if let Some(sealed) = sealed {
        let listed = takes.elements.iter().filter(|(element, _)| sealed.get(*element).is_some());
        let listed: Vec<&str> = listed.map(|(_, name)| *name).collect();
        let mut encryption = json!({
            "EncryptList": listed,
            "CiphertextBlob": sealed.ciphertext_blob,
            "Iv": sealed.iv,
            "Algorithm": sealed.algorithm.as_str(),
        });
        if !sealed.tags.is_empty() {
            encryption["TagList"] = sealed.tags.clone().into();
        }
        match (takes.flat_encryption, encryption) {
            (true, Value::Object(flat)) => members.extend(flat),
            (_, encryption) => drop(members.insert("Encryption".into(), encryption)),
        }
    }
    // Text and lists of text always serialise.
    serde_json::to_vec(&members).unwrap_or_default()
}

/// What a response says. The HTTP status is 200 for errors too; any other is not the service's own.
pub fn response(response: &Response<'_>) -> Said {
    let Ok(read) = serde_json::from_slice::<Value>(response.body) else { return Said::Unreadable };
    let body = &read["Response"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reference = text(&body["RequestId"]).unwrap_or_default();
    if let Some(code) = text(&body["Error"]["Code"]) {
        return Said::Error { code, reference };
    }
    match (response.status, text(&body["Result"])) {
        (200, Some(result)) => Said::Result {
            result,
            description: text(&body["Description"]).unwrap_or_default(),
            reference,
            charged: None,
        },
        _ => Said::Unreadable,
    }
}
