//! Accounts of record over HTTP, for operators: one, or a stream of changes from the bank's own system.
//!
//! Card numbers are in bodies, never in paths: paths end up in logs. What is answered is on the disk.

use std::rc::Rc;
use std::sync::Arc;

use engine::Engine;
use engine::caller::{Credential, Proof};
use engine::operator::{Act, By};
use engine::store::{AccountDone, AccountOrder, StoreError};
use engine::verify::new_request_id;
use http::{Method, Response, StatusCode};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::Incoming;
use wire::acedata::{self, ErrorCode, Fault};

use super::native::refusal;
use super::{Core, Server, from_own_pages};
use crate::accounts::{Op, Told, act, read, read_as};
use crate::http::{Outgoing, Part, Received, Reply, Streamed};
use crate::import::Rules;

/// One account.
pub const PATH: &str = "/api/v1/accounts";
/// How an account stands.
pub const LOOKUP_PATH: &str = "/api/v1/accounts/lookup";
/// Changes, one a line.
pub const STREAM_PATH: &str = "/api/v1/accounts/stream";

const NOBODY: &str = "There is no account of that card.";

/// Answers a request to [`PATH`] or [`LOOKUP_PATH`].
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let server = &core.server;
    match one(server, incoming, received).await {
        Ok(told) => Reply::new(StatusCode::OK, "application/json", format!("{told}\n")),
        Err(fault) => refusal(&fault, &new_request_id()),
    }
}

async fn one(server: &Arc<Server>, incoming: &Incoming<'_>, received: &Received) -> Result<Value, Fault> {
    let by = By::Credential(operator(server, incoming, received.peer)?.id);
    let is_lookup = incoming.path == LOOKUP_PATH;
    match (incoming.method, is_lookup) {
        (&Method::PUT | &Method::DELETE, false) | (&Method::POST, true) => {}
        _ => return Err(wrong_method(is_lookup)),
    }
    if received.body.is_err() {
        return Err(Fault::bad_request("The body did not arrive completely."));
    }
    if is_lookup {
        return look_up(server, by, incoming.body).await;
    }
    let op = if incoming.method == Method::DELETE { Op::Delete } else { Op::Upsert };
    let order =
        read_as(incoming.body, Some(op), &Rules::at_work(&server.engine)).map_err(Fault::bad_request)?;
    let done = carry_out(&server.engine, by, vec![order]).await.map_err(failed)?;
    match done.first() {
        Some(AccountDone::Is(row)) => Ok(json!(Told::of(row))),
        Some(AccountDone::Deleted) => Ok(json!({ "deleted": true })),
        _ => Err(Fault::with_message(ErrorCode::NoApi, NOBODY)),
    }
}

async fn look_up(server: &Arc<Server>, by: By, body: &[u8]) -> Result<Value, Fault> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let card = asked["bank_card"].as_str().and_then(engine::subject::CardNumber::parse);
    let card = card.ok_or_else(|| Fault::bad_request("Send {\"bank_card\":\"13 to 19 digits\"}."))?;
    let engine = Arc::clone(&server.engine);
    let found = move || {
        engine.acting(by).record_act(Act::AccountLookedUp)?;
        let keys = engine.vault.keys();
        engine.accounts_to_change()?.find(card.as_str(), &keys)
    };
    let found = off_the_core(found).await;
    let row = found.map_err(failed)?.ok_or_else(|| Fault::with_message(ErrorCode::NoApi, NOBODY))?;
    Ok(json!(Told::of(&row)))
}

fn wrong_method(is_lookup: bool) -> Fault {
    let methods = if is_lookup { "POST" } else { "PUT and DELETE" };
    Fault::with_message(ErrorCode::MethodNotAllowed, format!("This path takes {methods}."))
}

fn failed(error: StoreError) -> Fault {
    if matches!(error, StoreError::OtherKeys) {
        let why =
            "The keys of the accounts were replaced at that moment and nothing was changed; send it again.";
        return Fault::with_message(ErrorCode::ApiError, why);
    }
    tracing::error!(%error, "an account could not be changed");
    ErrorCode::ApiError.into()
}

/// A platform token of somebody who looks after the installation.
fn operator(
    server: &Server,
    incoming: &Incoming<'_>,
    peer: std::net::IpAddr,
) -> Result<Arc<Credential>, Fault> {
    from_own_pages(server, incoming)?;
    let credential = super::acedata::known(server, acedata::presented(incoming)?)?;
    let is_platform = matches!(credential.proof, Proof::Platform { .. });
    if !is_platform || !server.engine.directory().is_operator(&credential) {
        let why =
            "Only an operator may do this: card4e credential create NAME --kind platform makes its token.";
        return Err(Fault::with_message(ErrorCode::TokenMismatched, why));
    }
    if !credential.admits(peer) {
        let why = "The token may not be used from this address.";
        return Err(Fault::with_message(ErrorCode::TokenMismatched, why));
    }
    Ok(credential)
}

/// Writing may wait for the batch of an import or a rotation, which must not hold up a core.
async fn off_the_core<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Stopped))
}

/// Records who changes accounts, then does it.
async fn carry_out(
    engine: &Arc<Engine>,
    by: By,
    orders: Vec<AccountOrder>,
) -> Result<Vec<AccountDone>, StoreError> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let engine = Arc::clone(engine);
    off_the_core(move || {
        engine.acting(by).record_act(act(&orders))?;
        engine.accounts_to_change()?.carry_out(&orders, &engine.vault)
    })
    .await
}

/// A line is an account; longer ones are a mistake.
const LINE_MAX_BYTES: usize = 16 << 10;

/// Replies that wait for a client that does not read them.
const PARTS_MAX: usize = 4;

/// Answers [`STREAM_PATH`]: each line that comes in is a change, each line that goes out says what became
/// of it, in the same order, once it is on the disk.
pub fn stream(core: &Rc<Core>, streamed: Streamed) -> Response<Outgoing> {
    let incoming = Incoming {
        method: &streamed.head.method,
        path: streamed.head.uri.path(),
        query: "",
        headers: &streamed.head.headers,
        body: b"",
    };
    let by = match operator(&core.server, &incoming, streamed.peer) {
        Ok(credential) => By::Credential(credential.id),
        Err(fault) => return refusal(&fault, &new_request_id()).whole(),
    };
    let (parts, sent) = mpsc::channel(PARTS_MAX);
    let engine = Arc::clone(&core.server.engine);
    tokio::task::spawn_local(Lines { engine, by, parts, rest: Vec::new(), line: 0 }.take(streamed));
    Reply::streaming("application/x-ndjson", sent)
}

struct Lines {
    engine: Arc<Engine>,
    /// Who sends them.
    by: By,
    parts: mpsc::Sender<Bytes>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// Number of the last line read.
    line: u64,
}

impl Lines {
    async fn take(mut self, mut streamed: Streamed) {
        let ended = loop {
            match streamed.next().await {
                Part::Bytes(bytes) => self.rest.extend_from_slice(&bytes),
                Part::End => break None,
                Part::Broken => break Some("nothing came for too long, or the connection broke"),
                Part::Stopping => break Some("the server stops; send the lines without an answer again"),
            }
            let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = self.rest.drain(..whole).collect();
            if !self.carry_out(lines).await {
                return;
            }
            if self.rest.len() > LINE_MAX_BYTES {
                break Some("a line is longer than 16 KiB");
            }
        };
        match ended {
            None => {
                // The last line may have no end.
                let last = std::mem::take(&mut self.rest);
                self.carry_out(last).await;
            }
            Some(why) => {
                _ = self.say(format!("{}\n", json!({ "ended": why, "after_line": self.line }))).await
            }
        }
    }

    async fn say(&self, text: String) -> bool {
        self.parts.send(Bytes::from(text)).await.is_ok()
    }

    /// Carries out whole lines in one commit; `false` when nobody listens any more.
    async fn carry_out(&mut self, lines: Vec<u8>) -> bool {
        let lines = zeroize::Zeroizing::new(lines);
        let mut told = Vec::new();
        let mut orders = Vec::new();
        {
            let rules = Rules::at_work(&self.engine);
            for line in lines.split(|byte| *byte == b'\n') {
                self.line += 1;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                match read(line, &rules) {
                    Ok(order) => {
                        told.push((self.line, None));
                        orders.push(order);
                    }
                    Err(wrong) => told.push((self.line, Some(wrong))),
                }
            }
            // What follows the last line end is no line.
            self.line -= 1;
        }
        if told.is_empty() {
            return true;
        }
        match carry_out(&self.engine, self.by, orders).await {
            Ok(done) => self.say(replies(told, done)).await,
            Err(error) => {
                tracing::error!(%error, "accounts could not be changed");
                let why = "the accounts could not be written; send the lines without an answer again";
                self.say(format!("{}\n", json!({ "ended": why }))).await;
                false
            }
        }
    }
}

fn replies(told: Vec<(u64, Option<String>)>, done: Vec<AccountDone>) -> String {
    let mut done = done.into_iter();
    let mut text = String::new();
    for (line, wrong) in told {
        let reply = match wrong.map_or_else(|| Ok(done.next()), Err) {
            Err(wrong) => json!({ "line": line, "error": wrong }),
            Ok(Some(AccountDone::Is(row))) => json!({ "line": line, "status": Told::of(&row).status }),
            Ok(Some(AccountDone::Deleted)) => json!({ "line": line, "deleted": true }),
            Ok(_) => json!({ "line": line, "error": NOBODY }),
        };
        text.push_str(&format!("{reply}\n"));
    }
    text
}
