//! The Tencent explorer: a signature step by step, and why another one does not fit.

use askama::Template;
use engine::caller::Proof;
use engine::projection::asked_by_name;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use wire::tencent::action::Action as Name;
use wire::tencent::error::ErrorCode;
use wire::tencent::signature::{self, Diagnosis, Evidence, diagnose, payload_is_unsigned, verify};
use wire::tencent::{self};
use wire::{Incoming, Language};

use super::look::Frame;
use super::{Seen, Visit};
use crate::platform::catalogue::{self, Member};

#[derive(Template)]
#[template(path = "explorer.html")]
struct Explorer {
    f: Frame,
    calls: Vec<Call>,
    members: Vec<Member>,
    secret_id: &'static str,
    secret_key: &'static str,
    errors: Vec<(&'static str, &'static str)>,
    request: String,
    canonical: String,
    found: Option<Found>,
}

/// A name that can be called on the Tencent wire.
struct Call {
    name: &'static str,
    title: &'static str,
    /// Its members, with blanks between.
    members: String,
    chosen: bool,
}

/// Every name of the wire that this installation answers: several may ask the same.
fn calls(visit: &Visit) -> Vec<Call> {
    let offered = visit.server.engine.policy().actions();
    let wanted = visit.parameter("call");
    let call = |name: &Name| {
        let action = asked_by_name(*name);
        let elements = name.members().elements;
        offered.contains(&action).then(|| Call {
            name: name.name(),
            title: catalogue::page(action).title(visit.language),
            members: elements.iter().map(|(_, member)| *member).collect::<Vec<_>>().join(" "),
            chosen: name.name() == wanted,
        })
    };
    Name::ALL.iter().filter_map(call).collect()
}

/// Every member of any of them, once.
fn members(visit: &Visit) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for action in visit.server.engine.policy().actions() {
        for name in Name::ALL.iter().filter(|name| asked_by_name(**name) == action) {
            for (element, tencent) in name.members().elements {
                if members.iter().all(|known| known.tencent != *tencent) {
                    members.push(catalogue::member(*element, "", tencent));
                }
            }
        }
    }
    members
}

/// What the debugger found.
pub struct Found {
    kind: &'static str,
    verdict: String,
    lines: Vec<Line>,
}

struct Line {
    server: String,
    yours: String,
    differs: bool,
}

/// `GET /documents/explorer`
pub fn page(visit: &Visit, found: Option<Found>) -> Seen {
    let title = visit.says("Signature", "签名");
    let sandbox = visit.server.sandbox.is_some();
    let page = Explorer {
        f: Frame::of(visit, title, None),
        calls: calls(visit),
        members: members(visit),
        secret_id: if sandbox { crate::sandbox::PUBLIC_SECRET_ID } else { "" },
        secret_key: if sandbox { crate::sandbox::PUBLIC_SECRET_KEY } else { "" },
        errors: ErrorCode::ALL.iter().map(|code| (code.as_str(), code.about())).collect(),
        request: visit.field("request").to_owned(),
        canonical: visit.field("canonical").to_owned(),
        found,
    };
    super::pages::rendered(StatusCode::OK, &page)
}

/// `POST /console/explorer`
pub fn debug(visit: &Visit) -> Seen {
    let found = match checked(visit) {
        Ok(found) => found,
        Err(why) => Found { kind: "bad", verdict: why, lines: Vec::new() },
    };
    page(visit, Some(found))
}

/// A request as somebody pasted it.
struct Pasted {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: String,
}

fn pasted(text: &str) -> Option<Pasted> {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.trim_start().lines();
    let mut first = lines.next()?.split_whitespace();
    let (method, target) = (first.next()?, first.next()?);
    let target =
        target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    Some(Pasted { method, path: path.to_owned(), query: query.to_owned(), headers, body: body.to_owned() })
}

fn checked(visit: &Visit) -> Result<Found, String> {
    let unreadable = || {
        visit
            .says(
                "That is not a request: begin with POST / HTTP/1.1, then a header a line, a blank line, the body.",
                "无法识别请求报文：请以 POST / HTTP/1.1 开头，每行一个请求头，空一行后为请求体。",
            )
            .to_owned()
    };
    let pasted = pasted(visit.field("request")).ok_or_else(unreadable)?;
    let incoming = Incoming {
        method: &pasted.method,
        path: &pasted.path,
        query: &pasted.query,
        headers: &pasted.headers,
        body: pasted.body.as_bytes(),
    };
    let call = tencent::read(&incoming).map_err(|fault| fault.message(visit.language).to_owned())?;
    let directory = visit.server.engine.directory();
    let credential = directory.signing(&call.secret_id);
    let owner =
        credential.as_ref().and_then(|credential| directory.owner(credential)).map(|caller| caller.id);
    let operator = visit.actor().is_some_and(super::Actor::is_operator);
    let Some(credential) = credential.filter(|_| owner == visit.caller() || operator) else {
        return Err(visit
            .says("Its SecretId is none of your keys.", "该 SecretId 不属于您的账号。")
            .to_owned());
    };
    let Proof::Signature { secret_key, .. } = &credential.proof else { return Err(unreadable()) };
    let names = &visit.server.settings().tencent.public_names;
    let lines = canonical_lines(&call, &incoming).map(|server| compared(&server, visit.field("canonical")));
    let lines = lines.unwrap_or_default();
    let now = visit.server.engine.clock.now_ms().div_euclid(1000);
    if verify(&call, &incoming, secret_key.expose(), names).is_ok() {
        // A request that was pasted is old: that its time is over is no mistake of its author.
        let verdict = visit.says("The signature is right.", "签名正确。").to_owned();
        return Ok(Found { kind: "good", verdict, lines });
    }
    let siblings = directory.siblings(&credential);
    let others: Vec<(&str, &str)> = siblings
        .iter()
        .filter_map(|other| match &other.proof {
            Proof::Signature { secret_id, secret_key, .. } => Some((secret_id.as_str(), secret_key.expose())),
            _ => None,
        })
        .collect();
    let diagnosis = diagnose(&Evidence {
        call: &call,
        incoming: &incoming,
        // Its own time: how old it is is not the question.
        now: if call.timestamp.abs_diff(now) < 86_400 { call.timestamp } else { now },
        secret_key: Some(secret_key.expose()),
        other_keys: &others,
        port: Some(visit.server.port),
        public_names: names,
    });
    let differs = lines.iter().position(|line| line.differs).map(|at| at + 1);
    let verdict = match (diagnosis.as_ref().map(Diagnosis::advice), differs) {
        (Some(advice), _) => advice,
        (None, Some(line)) if visit.language == Language::Chinese => format!("签名不正确：规范请求串第 {line} 行不同。"),
        (None, Some(line)) => format!("The signature is wrong: line {line} of the canonical request differs."),
        (None, None) => visit
            .says(
                "The signature is wrong, by no mistake that is known here. Compare what the server signs with yours.",
                "签名不正确，且不属于已知错误。请与下方服务端规范请求串逐行比对。",
            )
            .to_owned(),
    };
    Ok(Found { kind: "bad", verdict, lines })
}

/// The canonical request as the server makes it first; `None` for the older signature.
fn canonical_lines(call: &tencent::Call<'_>, incoming: &Incoming<'_>) -> Option<String> {
    let signature::Proof::Tc3(tc3) = &call.proof else { return None };
    let get = incoming.method == Method::GET;
    let payload = match (payload_is_unsigned(incoming), get) {
        (true, _) => "UNSIGNED-PAYLOAD".as_bytes(),
        (false, true) => b"",
        (false, false) => incoming.body,
    };
    let mut text = format!("{}\n/\n{}\n", incoming.method, if get { incoming.query } else { "" });
    for name in tc3.signed_headers.split(';') {
        text += &format!("{name}:{}\n", incoming.header(name).unwrap_or_default().trim());
    }
    text += &format!("\n{}\n{}", tc3.signed_headers, engine::file::hex(&Sha256::digest(payload)));
    Some(text)
}

fn compared(server: &str, yours: &str) -> Vec<Line> {
    let yours = yours.replace("\r\n", "\n");
    let own: Vec<&str> = yours.lines().collect();
    let line = |(at, server): (usize, &str)| {
        let yours = own.get(at).copied().unwrap_or_default();
        let differs = !own.is_empty() && yours != server;
        Line { server: server.to_owned(), yours: yours.to_owned(), differs }
    };
    server.split('\n').enumerate().map(line).collect()
}
