//! Many questions over HTTP: `POST /api/v1/verifications/batch`, a question a line in, an answer a line out,
//! in the same order, once it is on the disk. A client sends no faster than it is answered.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use engine::Engine;
use engine::bulk::{
    Answers, BLOCK_ROWS, Job, Judge, Judged, NotBegun, Rows, Session, SettledRows, Unsettled,
};
use engine::caller::{Action, Credential, Purpose, Wire};
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use engine::store::StoreError;
use engine::verify::{Refusal, new_request_id};
use http::Response;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use wire::Incoming;
use wire::acedata::{self as wire_acedata, ErrorCode, Fault};
use zeroize::Zeroizing;

use super::native::refusal;
use super::{Core, Server, acedata, from_own_pages};
use crate::bulk::{Stopped, next_block};
use crate::http::{Outgoing, Part, Reply, Streamed};

/// Where many questions are asked at once.
pub const PATH: &str = "/api/v1/verifications/batch";

/// A line is a question; longer ones are a mistake.
const LINE_MAX_BYTES: usize = 16 << 10;

/// Replies that wait for a client that does not read them.
const PARTS_MAX: usize = 4;

/// A question as it is sent. Strict, like a single one on this wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Question {
    /// The client's own word for it, which comes back.
    #[serde(rename = "ref")]
    reference: Option<String>,
    name: Zeroizing<String>,
    bank_card: Zeroizing<String>,
    id_card: Zeroizing<String>,
    phone: Zeroizing<String>,
    cert_type: i64,
}

impl Default for Question {
    fn default() -> Question {
        let none = Zeroizing::default;
        Question {
            reference: None,
            name: none(),
            bank_card: none(),
            id_card: none(),
            phone: none(),
            cert_type: 0,
        }
    }
}

/// Answers [`PATH`].
pub async fn stream(core: &Rc<Core>, streamed: Streamed) -> Response<Outgoing> {
    let incoming = Incoming {
        method: &streamed.head.method,
        path: streamed.head.uri.path(),
        query: streamed.head.uri.query().unwrap_or_default(),
        headers: &streamed.head.headers,
        body: b"",
    };
    let begun = match asked(&core.server, &incoming, streamed.peer) {
        Err(fault) => Err(fault),
        Ok((job, key)) => Batch::begin(&core.server, job, key).await,
    };
    match begun {
        Err(fault) => refusal(&fault, &new_request_id()).whole(),
        Ok(batch) => {
            let (parts, sent) = mpsc::channel(PARTS_MAX);
            tokio::task::spawn_local(batch.take(streamed, parts));
            Reply::streaming("application/x-ndjson", sent)
        }
    }
}

/// Whose batch it is, what it asks, and what its caller calls it.
fn asked(server: &Server, incoming: &Incoming<'_>, peer: IpAddr) -> Result<(Job, Option<String>), Fault> {
    from_own_pages(server, incoming)?;
    let credential = acedata::authenticate(server, incoming)?;
    if !credential.admits(peer) {
        let why = "The token may not be used from this address.";
        return Err(Fault::with_message(ErrorCode::TokenMismatched, why));
    }
    if server.requires_encryption(credential.application) {
        let why = "This application sends encrypted elements only, and a batch takes none; ask one by one.";
        return Err(Fault::bad_request(why));
    }
    let (mut action, mut purpose, mut consent) = (Action::FourElements, None, None);
    for (name, value) in form_urlencoded::parse(incoming.query.as_bytes()) {
        match &*name {
            "action" => action = value.parse().map_err(|_| Fault::bad_request(ACTION))?,
            "purpose" => purpose = Some(value.into_owned()),
            "consent" => consent = Some(value.into_owned()),
            _ => return Err(Fault::bad_request("The query takes action, purpose and consent.")),
        }
    }
    let purpose = match purpose.zip(consent) {
        Some((code, consent)) => Purpose { code, consent },
        None => credential.purpose.clone().ok_or_else(|| Fault::bad_request(MISSING))?,
    };
    if !purpose.is_sound() {
        return Err(Fault::bad_request(super::native::PURPOSE));
    }
    let key = wire_acedata::idempotency_key(incoming)?.map(str::to_owned);
    let (id, credential) = (engine::vault::random(), Credential::clone(&credential));
    Ok((Job { id, credential, wire: Wire::Native, action, purpose: Some(purpose) }, key))
}

/// Begins it, or goes on with it; may wait for a database.
fn begun(engine: &Arc<Engine>, mut job: Job, key: Option<&str>) -> Result<(Session, Judge), Fault> {
    let unread = |error: StoreError| {
        if let StoreError::OtherAccounts(why) = error {
            return Fault::with_message(ErrorCode::ApiNotImplemented, format!("{why}."));
        }
        tracing::error!(%error, "a batch cannot be begun");
        Fault::from(ErrorCode::ApiError)
    };
    if let Some(key) = key {
        job.id = engine.job_named(job.credential.application, key);
    }
    let session = engine.bulk(job).map_err(|why| match why {
        NotBegun::Routed => Fault::with_message(ErrorCode::ApiNotImplemented, format!("{why}.")),
        NotBegun::Store(error) => unread(error),
        NotBegun::TooMany | NotBegun::UnderWay => {
            let why = format!("{why}; send it again when it has ended.");
            Fault::with_message(ErrorCode::TooManyRequests, why)
        }
    })?;
    let judge = session.judge().map_err(unread)?;
    Ok((session, judge))
}

const MISSING: &str =
    "Say why in the query: ?purpose=account_opening&consent=terms-7 (or give the credential a purpose).";
const ACTION: &str = "There is no such action; docs/actions.md lists them.";

/// One row: its line, what the client calls it, and why it is no question.
struct Asked {
    line: u64,
    reference: Option<String>,
    wrong: Option<String>,
}

struct Batch {
    /// Away while rows are looked up.
    at_work: Option<(Session, Judge)>,
    action: Action,
    numbering: AceDataNumbering,
    settled: Vec<(u64, u64)>,
    rows_max: u64,
    /// The beginning of a line whose end has not come yet.
    rest: Zeroizing<Vec<u8>>,
    /// Number of the last line read.
    line: u64,
    asked: Vec<Asked>,
    rows: Rows,
    first_row: u64,
}

impl Drop for Batch {
    /// What it holds may have a connection to a database, which is not let go on a core.
    fn drop(&mut self) {
        if let Some(at_work) = self.at_work.take() {
            std::thread::spawn(move || drop(at_work));
        }
    }
}

impl Batch {
    async fn begin(server: &Arc<Server>, job: Job, key: Option<String>) -> Result<Batch, Fault> {
        let engine = Arc::clone(&server.engine);
        // So that who may not ask is told so by a status.
        engine.may_ask(&job).map_err(|refusal| acedata::fault_of(refusal, ""))?;
        let action = job.action;
        let begin = move || begun(&engine, job, key.as_deref());
        let begun = tokio::task::spawn_blocking(begin).await;
        let (session, judge) = begun.unwrap_or_else(|_| Err(Fault::from(ErrorCode::ApiError)))?;
        let piece = |settled: &SettledRows| (settled.first_row, settled.rows);
        Ok(Batch {
            settled: session.settled().iter().map(piece).collect(),
            at_work: Some((session, judge)),
            action,
            numbering: server.settings().acedata.numbering,
            rows_max: server.engine.policy().bulk_rows_max,
            rest: Zeroizing::default(),
            line: 0,
            asked: Vec::new(),
            rows: Rows::default(),
            first_row: 0,
        })
    }

    async fn take(mut self, mut streamed: Streamed, parts: mpsc::Sender<Bytes>) {
        let ended = loop {
            let last = match streamed.next().await {
                Part::Bytes(bytes) => {
                    self.rest.extend_from_slice(&bytes);
                    None
                }
                Part::End => Some(None),
                Part::Broken => Some(Some("nothing came for too long, or the connection broke".to_owned())),
                Part::Stopping => Some(Some("the server stops".to_owned())),
            };
            self.read(last == Some(None));
            if let Err(why) = self.answer_all(last.is_some(), &parts).await {
                break Some(why);
            }
            if let Some(ended) = last {
                break ended;
            }
            if self.rest.len() > LINE_MAX_BYTES {
                break Some("a line is longer than 16 KiB".into());
            }
        };
        if let Some(why) = ended {
            let text = json!({ "ended": why, "after_row": self.first_row });
            // Whoever asked may have gone.
            let _ = parts.send(Bytes::from(format!("{text}\n"))).await;
        }
        // Before the reply ends: whoever reads its end may send the same again at once.
        let at_work = self.at_work.take();
        let _ = tokio::task::spawn_blocking(move || drop(at_work)).await;
    }

    /// Takes whole lines; at the end also one without an end.
    fn read(&mut self, is_last: bool) {
        let mut bytes = std::mem::take(&mut self.rest);
        let whole = match is_last {
            true => bytes.len(),
            false => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.line += 1;
            if !line.trim_ascii().is_empty() {
                self.push(line.trim_ascii());
            }
        }
        self.rest = Zeroizing::new(bytes.split_off(whole));
    }

    fn push(&mut self, line: &[u8]) {
        let number = self.line;
        match serde_json::from_slice::<Question>(line) {
            Ok(question) => {
                let Question { reference, name, bank_card, id_card, phone, cert_type } = question;
                let kind = if cert_type == 0 { "" } else { "other" };
                let phone = wire::native::national_mobile(&phone);
                self.rows.push([&bank_card, &name, kind, &id_card, &phone]);
                self.asked.push(Asked { line: number, reference, wrong: None });
            }
            // What serde says of a wrong value would show it.
            Err(wrong) => {
                let wrong = format!(
                    "column {}: not a question; its members are bank_card, name, id_card, phone, cert_type and ref",
                    wrong.column()
                );
                self.rows.push_unasked();
                self.asked.push(Asked { line: number, reference: None, wrong: Some(wrong) });
            }
        }
    }

    /// Answers what has come; what was settled in one piece waits until it has come whole.
    async fn answer_all(&mut self, is_last: bool, parts: &mpsc::Sender<Bytes>) -> Result<(), String> {
        while !self.asked.is_empty() {
            let wanted = next_block(&self.settled, self.first_row);
            let again = self.settled.iter().any(|(first, _)| *first == self.first_row);
            if again && self.asked.len() < wanted && !is_last {
                return Ok(());
            }
            let count = self.asked.len().min(wanted).min(BLOCK_ROWS);
            let rest = self.rows.split_off(count);
            let rows = std::mem::replace(&mut self.rows, rest);
            let asked: Vec<Asked> = self.asked.drain(..count).collect();
            if !again && self.first_row + count as u64 > self.rows_max {
                return Err(Stopped::NotApproved(self.rows_max).to_string());
            }
            let answers = self.settle(rows, again).await.map_err(|why| Stopped::from(why).to_string())?;
            let answered = answers.outcomes.len();
            let text = self.told(&asked, &answers);
            self.first_row += answered as u64;
            if parts.send(Bytes::from(text)).await.is_err() {
                return Err("nobody listens".into());
            }
            if answered < count {
                return Err(Stopped::Refused(Refusal::Arrears).to_string());
            }
        }
        Ok(())
    }

    /// Looks rows up and settles them, away from the core.
    async fn settle(&mut self, rows: Rows, again: bool) -> Result<Answers, Unsettled> {
        let Some((session, judge)) = self.at_work.take() else { return Err(Refusal::Stopped.into()) };
        let first_row = self.first_row;
        let work = move || {
            let judged = if again { Ok(Judged::again(rows)) } else { judge.judge(rows) };
            let answers =
                judged.map_err(Unsettled::from).and_then(|judged| session.settle(first_row, judged));
            (session, judge, answers)
        };
        let Ok((session, judge, answers)) = tokio::task::spawn_blocking(work).await else {
            return Err(Refusal::Stopped.into());
        };
        self.at_work = Some((session, judge));
        answers
    }

    fn told(&self, asked: &[Asked], answers: &Answers) -> String {
        let mut text = String::new();
        for (asked, outcome) in asked.iter().zip(&answers.outcomes) {
            let mut told = Map::new();
            told.insert("line".into(), asked.line.into());
            if let Some(reference) = &asked.reference {
                told.insert("ref".into(), reference.as_str().into());
            }
            match outcome {
                None => {
                    told.insert("error".into(), asked.wrong.as_deref().unwrap_or("not asked").into());
                }
                Some(outcome) => self.tell(&mut told, *outcome, answers),
            }
            text.push_str(&Value::from(told).to_string());
            text.push('\n');
        }
        text
    }

    fn tell(&self, told: &mut Map<String, Value>, outcome: Outcome, answers: &Answers) {
        let tencent = projection::tencent(projection::name_of(self.action), outcome);
        let acedata = projection::acedata(self.numbering, projection::endpoint_of(self.action), outcome);
        let number = |code: Option<wire::code::ResultCode>| code.map(|code| code.number.to_string());
        let charges = self.action.charges(outcome) && !answers.replayed;
        for (name, value) in [
            ("outcome", Some(outcome.name().to_owned())),
            ("class", Some(outcome.class_name().to_owned())),
            ("tencent_result", number(tencent)),
            ("acedata_result", number(acedata)),
            ("description", Some(outcome.sentence().to_owned())),
            ("charged", Some(if charges { answers.price.to_string() } else { "0".into() })),
        ] {
            told.insert(name.into(), value.into());
        }
        if answers.replayed {
            told.insert("replayed".into(), true.into());
        }
    }
}
