//! card4e's own wire, under `/api/v1`: what goes in, and the whole of what comes out.

use serde_json::{Value, json};

use super::acedata::token;
use super::support::{Reply, Sandbox, TOKEN};

mod accounts;
mod errors;
mod verifications;

const PATH: &str = "/api/v1/verifications";

/// The application that is told which element differs.
const REASONS: u8 = 11;

/// Somebody with an account, who passes.
fn zhang_wei() -> Value {
    json!({
        "name": "张伟", "bank_card": "6217000000000000012", "phone": "16100000001",
        "id_card": "99010119610202001X", "purpose": "account_opening", "consent": "terms-7/4711",
    })
}

fn ask(sandbox: &Sandbox, body: &Value) -> Reply {
    ask_with(sandbox, TOKEN, &[], body)
}

fn ask_with(sandbox: &Sandbox, token: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [&[("authorization", bearer.as_str())], headers].concat();
    sandbox.request("POST", PATH, &headers, body.to_string().as_bytes())
}
