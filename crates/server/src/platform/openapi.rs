//! An OpenAPI 3.0 document of an action on the AceData wire, with this server's own address.

use std::collections::BTreeMap;

use engine::action::Action;
use serde_json::{Map, Value, json};
use wire::acedata::ErrorCode;
use wire::envelope::Algorithm;

use super::catalogue::{self, codes, members};
use crate::front::Server;

/// The document.
pub fn document(action: Action, public_url: &str, server: &Server) -> Value {
    let page = catalogue::page(action);
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": page.title_en,
            "description": page.about_en,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": public_url }],
        "security": [{ "bearer": [] }],
        "paths": { page.path: { "post": operation(action, server) } },
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Error": error_schema(),
                "Encryption": encryption_schema(action),
            },
        },
    })
}

fn operation(action: Action, server: &Server) -> Value {
    let page = catalogue::page(action);
    json!({
        "operationId": page.alias.replace('-', "_"),
        "summary": page.title_en,
        "description": page.about_en,
        "tags": [catalogue::SERVICE_TITLE],
        "parameters": [
            {
                "name": "accept",
                "in": "header",
                "required": false,
                "description": "The form of the answer: an object, or the same in one line.",
                "schema": { "type": "string", "enum": ["application/json", "application/x-ndjson"] },
            },
            {
                "name": "idempotency-key",
                "in": "header",
                "required": false,
                "description": "Sent again with the same key, a question is answered again and charged once.",
                "schema": { "type": "string", "pattern": "^[!-~]{1,255}$" },
            },
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": question_schema(action), "example": example(action) } },
        },
        "responses": responses(action, server),
    })
}

/// The example of the form, as the body of a question.
pub fn example(action: Action) -> Value {
    let members = members(action).into_iter();
    members.map(|member| (member.name.to_owned(), json!(member.example))).collect::<Map<_, _>>().into()
}

fn question_schema(action: Action) -> Value {
    let mut properties = Map::new();
    let members = members(action);
    for member in &members {
        let schema =
            json!({ "type": "string", "description": member.en, "example": member.example, "rank": 10 });
        properties.insert(member.name.to_owned(), schema);
    }
    let takes = engine::projection::endpoint_of(action).takes();
    if takes.cert_type {
        let what =
            "Kind of document the account was opened with; 0, the default, is the resident identity card.";
        let schema = json!({ "type": "integer", "description": what, "default": 0, "rank": 30 });
        properties.insert("cert_type".into(), schema);
    }
    let envelope = json!({
        "type": "array",
        "maxItems": 1,
        "description": "How elements are encrypted, if any is.",
        "items": { "$ref": "#/components/schemas/Encryption" },
        "rank": 30,
    });
    properties.insert("encryption".into(), envelope);
    let required: Vec<_> = members.iter().map(|member| member.name).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn encryption_schema(action: Action) -> Value {
    let takes = engine::projection::endpoint_of(action).takes();
    let names: Vec<_> = takes.elements.iter().map(|(_, name)| *name).collect();
    let algorithms = ["AES-256-CBC", "SM4-GCM"].map(|name| Algorithm::named(name).map(|_| name));
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    json!({
        "type": "object",
        "required": ["encrypt_list", "ciphertext_blob", "iv"],
        "properties": {
            "algorithm": { "type": "string", "enum": algorithms, "default": algorithms[0] },
            "iv": { "type": "string", "description": "Initial vector." },
            "encrypt_list": { "type": "array", "items": { "type": "string", "enum": names } },
            "ciphertext_blob": { "type": "string", "description": "The data key, wrapped with a key of /encryption-keys." },
            "tag_list": texts,
        },
    })
}

fn responses(action: Action, server: &Server) -> Value {
    let lines = codes(action).into_iter().map(|code| {
        let charged = if code.charged { "charged" } else { "free" };
        (code.acedata, format!("{}: {} ({charged})", code.acedata, code.en))
    });
    // Several outcomes may share a number of this wire; the first is the documented one.
    let by_number: BTreeMap<i8, String> = lines.rev().collect();
    let numbers: Vec<_> = by_number.keys().rev().map(ToString::to_string).collect();
    let meaning = by_number.values().rev().cloned().collect::<Vec<_>>().join("; ");
    let mut responses = Map::new();
    let schema = json!({
        "type": "object",
        "required": ["result", "description"],
        "properties": {
            "result": { "type": "string", "enum": numbers, "description": meaning },
            "description": { "type": "string" },
        },
    });
    let answer = json!({
        "description": "The answer; also when the elements do not belong together.",
        "headers": {
            "x-trace-id": { "description": "Id of this answer.", "schema": { "type": "string", "format": "uuid" } },
            "x-charged": { "description": "1 when the answer was charged.", "schema": { "type": "string" } },
            "x-credits-remaining": { "description": "Balance afterwards.", "schema": { "type": "string" } },
        },
        "content": { "application/json": { "schema": schema }, "application/x-ndjson": { "schema": schema } },
    });
    responses.insert("200".into(), answer);
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in ErrorCode::ALL {
        let status = match code {
            ErrorCode::TokenMismatched => server.settings().acedata.token_mismatched_status,
            code => code.status().as_u16(),
        };
        by_status.entry(status).or_default().push(code);
    }
    for (status, codes) in by_status {
        responses.insert(status.to_string(), failure(&codes));
    }
    responses.into()
}

fn failure(codes: &[ErrorCode]) -> Value {
    let texts: Vec<_> = codes.iter().map(|code| format!("{}: {}", code.as_str(), code.message())).collect();
    let example = |code: &ErrorCode| {
        let error = json!({ "code": code.as_str(), "message": code.message() });
        let body = json!({ "error": error, "trace_id": "2cf86e86-22a4-46e1-ac2f-032c0f2a4e89" });
        (format!("{code:?}"), json!({ "value": body }))
    };
    let examples: Map<String, Value> = codes.iter().map(example).collect();
    json!({
        "description": texts.join(" "),
        "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/Error" },
            "examples": examples,
        } },
    })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error", "trace_id"],
        "properties": {
            "success": { "type": "boolean" },
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": { "code": { "type": "string" }, "message": { "type": "string" } },
            },
            "trace_id": { "type": "string", "format": "uuid" },
        },
    })
}
