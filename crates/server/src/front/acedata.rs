//! The AceData wire: a bearer token, HTTP statuses, and `error` envelopes with a trace id.

use std::sync::Arc;

use engine::caller::{Action, Credential, Proof, Wire};
use engine::claim::Claim;
use engine::ledger::Credits;
use engine::limit::Rate;
use engine::outcome::{Outcome, Row};
use engine::projection;
use engine::settle::Settled;
use engine::verify::{Question, Refusal, new_request_id, uuid_text, verify};
use http::{HeaderName, StatusCode};
use wire::Incoming;
use wire::acedata::{self, Accept, Bearer, Check, Element, Endpoint, ErrorCode, Extra, Fault};

use super::envelopes::Unopened;
use super::{Bank, Core, Note, Server, finish, mismatch_detail};
use crate::http::{BodyError, Received, Reply};

static X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
static X_CHARGED: HeaderName = HeaderName::from_static("x-charged");
static X_CREDITS_CHARGED: HeaderName = HeaderName::from_static("x-credits-charged");
static X_CREDITS_REMAINING: HeaderName = HeaderName::from_static("x-credits-remaining");

/// Answers a request of this wire, unknown paths included.
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let mut request = new_request_id();
    let mut note = Note::default();
    let mut rate = None;
    let asked = ask(core, incoming, received, request, &mut note, &mut rate).await;
    let mut reply = match asked {
        Ok(answered) => {
            // A stored answer keeps its id, so that caller and ledger speak of the same record.
            request = answered.settled.answer.request;
            success(&core.server, incoming, answered, &mut note)
        }
        Err(fault) => {
            note.error = Some(fault.code.as_str());
            failure(&fault, &uuid_text(&request))
        }
    };
    if let Some(rate) = rate.filter(|rate| rate.limit > 0) {
        tell_rate(&mut reply, rate);
    }
    identify(&mut reply, incoming, &request);
    finish(core, Wire::AceData, &request, received, note, reply).await
}

/// The reply to a request whose handling panicked, and its error code.
pub fn panicked(incoming: &Incoming<'_>, request: &[u8; 16]) -> (Wire, &'static str, Reply) {
    let fault = Fault::from(ErrorCode::ApiError);
    let mut reply = failure(&fault, &uuid_text(request));
    identify(&mut reply, incoming, request);
    (Wire::AceData, fault.code.as_str(), reply)
}

/// How the application stands in this second.
pub fn tell_rate(reply: &mut Reply, rate: Rate) {
    reply.header("ratelimit-limit", rate.limit);
    reply.header("ratelimit-remaining", rate.remaining());
    reply.header("ratelimit-reset", 1);
}

fn identify(reply: &mut Reply, incoming: &Incoming<'_>, request: &[u8; 16]) {
    reply.set(&X_TRACE_ID, uuid_text(request));
    if let Some(asked) = acedata::trace_id(incoming) {
        reply.header("x-request-id", asked);
    }
}

/// An answered question, and what its reply may have to say besides.
struct Answered {
    settled: Settled,
    endpoint: Endpoint,
    claim: Claim,
    detailed: bool,
}

fn success(server: &Server, incoming: &Incoming<'_>, answered: Answered, note: &mut Note) -> Reply {
    let Answered { settled, endpoint, claim, detailed } = answered;
    let (accept, language) = (Accept::of(incoming), acedata::language(incoming));
    let answer = &settled.answer;
    let numbering = server.settings().acedata.numbering;
    let Some(code) = projection::acedata(numbering, endpoint, answer.outcome) else {
        // The engine settles nothing the action cannot answer.
        note.error = Some(ErrorCode::ApiError.as_str());
        return failure(&ErrorCode::ApiError.into(), &uuid_text(&answer.request));
    };
    note.result = Some(code.number);
    let passed = answer.outcome == Outcome::Pass;
    let bank = (passed && answer.action == Action::CardInformation).then(|| Bank::of(server, &claim.card));
    let bank = bank.flatten();
    let extra = match answer.action {
        Action::CardInformation => Extra::Card {
            account_bank: bank.as_ref().map_or("", |bank| bank.name(language)),
            account_type: bank.as_ref().map_or(-1, |bank| bank.kind),
        },
        Action::MobileNameAndId => Extra::Phone {
            // As in the guide's sample.
            isp: if answer.row == Row::SCRIPT { "Mobile" } else { "" },
            result_detail: (detailed && answer.outcome == Outcome::HolderMismatch)
                .then(|| mismatch_detail(answer)),
        },
        _ => Extra::None,
    };
    let body = acedata::success(code, language, extra, accept);
    let mut reply = Reply::new(StatusCode::OK, accept.content_type(), body);
    // A stored answer was charged when it was given.
    let charged = if settled.replayed { Credits::ZERO } else { answer.charged };
    reply.set(&X_CHARGED, u16::from(charged > Credits::ZERO));
    reply.set(&X_CREDITS_CHARGED, charged.to_string());
    if let Some(balance) = answer.balance {
        reply.set(&X_CREDITS_REMAINING, balance.to_string());
    }
    if settled.replayed {
        reply.header("x-idempotent-replay", "true");
    }
    if answer.row == Row::REUSED {
        reply.header("x-reused", "true");
    }
    note.answered = Some(settled);
    reply
}

fn failure(fault: &Fault, trace: &str) -> Reply {
    let mut reply = Reply::new(fault.status, "application/json", acedata::failure(fault, trace));
    reply.header("x-charged", 0);
    tell_what_helps(&mut reply, fault.code);
    reply
}

/// Headers that say what to do about a failure.
pub fn tell_what_helps(reply: &mut Reply, code: ErrorCode) {
    match code {
        ErrorCode::TooManyRequests => reply.header("retry-after", 1),
        ErrorCode::MethodNotAllowed => reply.header("allow", "POST"),
        _ => {}
    }
}

async fn ask(
    core: &Core,
    incoming: &Incoming<'_>,
    received: &Received,
    request: [u8; 16],
    note: &mut Note,
    rate: &mut Option<Rate>,
) -> Result<Answered, Fault> {
    let endpoint = acedata::route(incoming)?;
    let (action, takes) = (projection::asked_at(endpoint), endpoint.takes());
    note.action = endpoint.name().into();
    let server = &core.server;
    let credential = match &received.asker {
        Some(asker) if asker.is_over(server.engine.clock.now_ms()) => {
            return Err(ErrorCode::TokenExpired.into());
        }
        Some(asker) => Arc::clone(asker),
        None => authenticate(server, incoming)?,
    };
    note.asked_by(server, &credential);
    note.asked = Some(action);
    if !credential.admits(received.peer) {
        let why = "The specified token is not matched with API: it may not be used from this address.";
        return Err(statused(server, Fault::with_message(ErrorCode::TokenMismatched, why)));
    }
    let mut forced = None;
    if let Some(sandbox) = &server.sandbox {
        let peeked = Check::read(takes, incoming.body);
        let card = peeked.as_ref().map_or("", |elements| &elements.bank_card);
        let ordered = sandbox.order(Wire::AceData, projection::name_of(action), card, incoming, note);
        let ordered = ordered.map_err(Fault::bad_request)?;
        if let Some(code) = ordered.error {
            return Err(statused(server, fault_named(&code)));
        }
        forced = ordered.outcome;
    }
    let key = acedata::idempotency_key(incoming)?;
    let may_recall = key.is_some() || server.engine.recalls_by_content();
    let refused = |refusal| statused(server, fault_of(refusal, &public_url(server, incoming)));
    let admission = core.admit(&credential, action, may_recall).await;
    if let Err(Refusal::TooFast(exceeded)) = &admission {
        *rate = Some(*exceeded);
    }
    let admission = admission.map_err(refused)?;
    *rate = admission.rate;
    whole(received)?;
    let elements = Check::read(takes, incoming.body)?;
    if server.requires_encryption(credential.application) {
        elements.require_encryption()?;
    }
    let opened = server.opened(elements.envelope()?, &credential).await.map_err(unopened)?;
    let claim = Claim::new(
        opened.or(Element::Name, &elements.name),
        opened.or(Element::BankCard, &elements.bank_card),
        opened.or(Element::IdCard, &elements.id_card),
        opened.or(Element::Phone, &elements.phone),
        elements.cert_type,
    )
    .with_validity(elements.validity.as_ref().map(|(begin, end)| (&**begin, &**end)));
    let detailed = elements.detailed;
    let question = Question {
        wire: Wire::AceData,
        action,
        credential: &credential,
        claim: &claim,
        idempotency_key: key,
        purpose: None,
        detailed,
        scripted: server
            .sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.script(Wire::AceData, action, &claim, forced, note)),
        request,
        began: received.began,
    };
    let settled = verify(&core.desk, admission, question).await.map_err(refused)?;
    Ok(Answered { settled, endpoint, claim, detailed })
}

/// Whether the body is there, and what to say if it is not.
pub fn whole(received: &Received) -> Result<(), Fault> {
    match received.body {
        Ok(_) => Ok(()),
        Err(BodyError::NoRoom) => Err(Fault::overloaded()),
        Err(BodyError::TooLarge) => Err(ErrorCode::RequestTooLarge.into()),
        Err(BodyError::Incomplete) => Err(Fault::bad_request("The body did not arrive completely.")),
    }
}

/// A token of an application that is known and not expired.
pub fn authenticate(server: &Server, incoming: &Incoming<'_>) -> Result<Arc<Credential>, Fault> {
    let credential = known(server, acedata::bearer(incoming)?)?;
    match credential.proof {
        Proof::Bearer { .. } => Ok(credential),
        _ => Err(ErrorCode::InvalidToken.into()),
    }
}

/// The credential of a token that has not expired.
pub fn known(server: &Server, bearer: Bearer<'_>) -> Result<Arc<Credential>, Fault> {
    let engine = &server.engine;
    let credential = engine.credential_of_token(bearer.secret()).ok_or(ErrorCode::InvalidToken)?;
    if credential.is_over(engine.clock.now_ms()) {
        return Err(ErrorCode::TokenExpired.into());
    }
    Ok(credential)
}

/// Why elements were not opened, in the words of this wire.
pub fn unopened(why: Unopened) -> Fault {
    match why {
        Unopened::Cannot(_) => Fault::envelope_failed(),
        Unopened::Busy => Fault::overloaded(),
    }
}

/// Why the engine does not answer, in the words of this wire.
pub fn fault_of(refusal: Refusal, public_url: &str) -> Fault {
    match refusal {
        Refusal::NotActivated => Fault::not_entitled(public_url),
        Refusal::NotAllowed => Fault::action_not_allowed(),
        Refusal::NotConfigured => Fault::not_configured(),
        Refusal::Arrears => Fault::balance_used_up(public_url),
        Refusal::LimitReached => Fault::credential_limit_used_up(public_url),
        Refusal::Suspended => Fault::suspended(),
        Refusal::Unconfirmed => Fault::caller_unconfirmed(),
        Refusal::TooFast(rate) => Fault::rate_exceeded(rate.sent.into(), rate.limit.into()),
        Refusal::KeyReused => Fault::idempotency_key_reused(),
        Refusal::Overloaded => Fault::overloaded(),
        Refusal::Stopped => ErrorCode::ApiError.into(),
    }
}

/// `token_mismatched` is 400 on the identity pages and 401 on newer ones; a setting decides.
fn statused(server: &Server, mut fault: Fault) -> Fault {
    if fault.code == ErrorCode::TokenMismatched
        && let Ok(status) = StatusCode::from_u16(server.settings().acedata.token_mismatched_status)
    {
        fault.status = status;
    }
    fault
}

/// The error a fault rule asks for.
pub fn fault_named(code: &str) -> Fault {
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
    Fault::from(known.copied().unwrap_or(ErrorCode::ApiError))
}

/// Where people find this service.
pub fn public_url(server: &Server, incoming: &Incoming<'_>) -> String {
    let own = || format!("{}://{}", server.scheme(), incoming.header("host").unwrap_or("localhost"));
    server.settings().acedata.public_url.clone().unwrap_or_else(own)
}
