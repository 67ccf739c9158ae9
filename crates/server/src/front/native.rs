//! card4e's own wire, `POST /api/v1/verifications`: the same question, with its purpose and consent, and
//! an answer that says more: class, how the name was found equal, attempts left, a receipt.

use engine::caller::{Action, Purpose, Wire};
use engine::claim::Claim;
use engine::clock::utc_text;
use engine::ledger::Credits;
use engine::limit::Rate;
use engine::outcome::{Outcome, Reason, Row};
use engine::projection;
use engine::settle::Settled;
use engine::verify::{Question, Refusal, new_request_id, uuid_text, verify};
use http::Method;
use serde::Serialize;
use wire::acedata::{ErrorCode, Fault};
use wire::native::{self, Verification};
use wire::{Element, Incoming, Language};

use super::{Bank, Core, Note, Server, acedata, finish};
use crate::http::{Received, Reply};
use crate::receipt::{self, Receipt};

/// Answers a request to [`native::PATH`].
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let mut request = new_request_id();
    let (mut note, mut rate) = (Note::default(), None);
    note.action = "verifications".into();
    let mut reply = match ask(core, incoming, received, request, &mut note, &mut rate).await {
        Ok((settled, why, claim)) => {
            // A stored answer keeps its id, so that caller and ledger speak of the same record.
            request = settled.answer.request;
            let reply = success(&core.server, &settled, &why, &claim);
            note.answered = Some(settled);
            reply
        }
        Err(fault) => {
            note.error = Some(native::code_of(fault.code));
            refusal(&fault, &request)
        }
    };
    if let Some(rate) = rate.filter(|rate| rate.limit > 0) {
        acedata::tell_rate(&mut reply, rate);
    }
    reply.header("x-trace-id", uuid_text(&request));
    finish(core, Wire::Native, &request, received, note, reply).await
}

/// The reply to a request whose handling panicked, and its error code.
pub fn panicked(request: &[u8; 16]) -> (Wire, &'static str, Reply) {
    let code = ErrorCode::ApiError;
    (Wire::Native, native::code_of(code), refusal(&code.into(), request))
}

/// A failure of anything under `/api/v1`.
pub fn refusal(fault: &Fault, request: &[u8; 16]) -> Reply {
    let (status, body) = native::failure(fault, &uuid_text(request));
    let mut reply = Reply::new(status, "application/json", body);
    acedata::tell_what_helps(&mut reply, fault.code);
    reply
}

/// The answer as it is written.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    action: &'static str,
    outcome: &'static str,
    class: &'static str,
    /// Absent unless the caller may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<&'a [Reason]>,
    name_match: Option<NameMatch>,
    /// Version of the order in which facts are looked at.
    policy: &'static str,
    attempts_left: Option<u32>,
    purpose: &'a str,
    consent: &'a str,
    charged: String,
    balance: Option<String>,
    answered_at: String,
    replayed: bool,
    /// A pass that was bought before is given again.
    reused: bool,
    receipt: String,
    receipt_opening: String,
    /// What `bankcard-1e` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    bank: Option<Issued>,
}

#[derive(Serialize)]
struct Issued {
    name_zh: String,
    name_en: String,
    kind: &'static str,
}

#[derive(Serialize)]
struct NameMatch {
    class: &'static str,
    policy: &'static str,
}

fn success(server: &Server, settled: &Settled, why: &Purpose, claim: &Claim) -> Reply {
    let answer = &settled.answer;
    let id = uuid_text(&answer.request);
    let directory = server.engine.directory();
    let caller = directory.application(answer.application).map(|(application, _)| application.name.clone());
    let name_match = answer
        .name_class
        .map(|class| NameMatch { class: class.name(), policy: engine::subject::name::VERSION });
    let vault = &server.engine.vault;
    let opening = vault.keys().opening(&answer.request);
    let settings = server.settings();
    let receipt = Receipt {
        iss: settings.acedata.public_url.as_deref().unwrap_or("card4e"),
        jti: &id,
        iat: answer.at_ms.div_euclid(1000),
        action: answer.action.name(),
        caller: caller.as_deref().unwrap_or_default(),
        purpose: &why.code,
        consent: &why.consent,
        outcome: answer.outcome.name(),
        class: answer.outcome.class_name(),
        name_match: name_match.as_ref().map(|name| name.class),
        policy: engine::outcome::POLICY,
        elements: receipt::commitment(&opening, [&claim.name, &claim.card, &claim.id, &claim.mobile]),
    };
    let found = answer.outcome == Outcome::Pass && answer.action == Action::CardInformation;
    let bank = found.then(|| Bank::of(server, &claim.card)).flatten();
    // A stored answer was charged when it was given.
    let charged = if settled.replayed { Credits::ZERO } else { answer.charged };
    let body = Body {
        id: &id,
        action: answer.action.name(),
        outcome: answer.outcome.name(),
        class: answer.outcome.class_name(),
        reasons: answer.reasons.as_deref(),
        name_match,
        policy: engine::outcome::POLICY,
        attempts_left: answer.attempts_left,
        purpose: &why.code,
        consent: &why.consent,
        charged: charged.to_string(),
        balance: answer.balance.map(|balance| balance.to_string()),
        answered_at: utc_text(answer.at_ms),
        replayed: settled.replayed,
        reused: answer.row == Row::REUSED,
        receipt: receipt.signed(vault),
        receipt_opening: engine::file::hex(&opening),
        bank: bank.map(|bank| Issued {
            name_zh: bank.name(Language::Chinese).into(),
            name_en: bank.name(Language::English).into(),
            kind: ["debit", "credit", "prepaid", "semi_credit"][(bank.kind.clamp(1, 4) - 1) as usize],
        }),
    };
    // Structures of text and numbers always serialise.
    Reply::new(http::StatusCode::OK, "application/json", serde_json::to_vec(&body).unwrap_or_default())
}

async fn ask(
    core: &Core,
    incoming: &Incoming<'_>,
    received: &Received,
    request: [u8; 16],
    note: &mut Note,
    rate: &mut Option<Rate>,
) -> Result<(Settled, Purpose, Claim), Fault> {
    if incoming.method != Method::POST {
        return Err(ErrorCode::MethodNotAllowed.into());
    }
    super::from_own_pages(&core.server, incoming)?;
    let server = &core.server;
    // The token the AceData wire takes.
    let credential = acedata::authenticate(server, incoming)?;
    note.asked_by(server, &credential);
    if !credential.admits(received.peer) {
        let why = "The token may not be used from this address.";
        return Err(Fault::with_message(ErrorCode::TokenMismatched, why));
    }
    // What a body asks is read before anything is set aside for it; what is wrong with it is told after.
    let asked = Verification::read(incoming.body);
    let action = asked.as_ref().map_or(Action::FourElements, action);
    note.asked = asked.as_ref().ok().map(|_| action);
    let mut forced = None;
    if let Some(sandbox) = &server.sandbox {
        let card = asked.as_ref().map_or("", |question| &question.elements.bank_card);
        let name = projection::name_of(action);
        let ordered = sandbox.order(Wire::Native, name, card, incoming, note).map_err(Fault::bad_request)?;
        if let Some(code) = ordered.error {
            return Err(acedata::fault_named(&code));
        }
        forced = ordered.outcome;
    }
    let key = wire::acedata::idempotency_key(incoming)?;
    let may_recall = key.is_some() || server.engine.recalls_by_content();
    let admission = core.admit(&credential, action, may_recall).await;
    if let Err(Refusal::TooFast(exceeded)) = &admission {
        *rate = Some(*exceeded);
    }
    let refused = |refusal| acedata::fault_of(refusal, &acedata::public_url(server, incoming));
    let admission = admission.map_err(refused)?;
    *rate = admission.rate;
    acedata::whole(received)?;
    let Verification { elements, purpose, consent, .. } = asked?;
    let why = Purpose { code: purpose.into_owned(), consent: consent.into_owned() };
    if !why.is_sound() {
        return Err(Fault::bad_request(PURPOSE));
    }
    if server.requires_encryption(credential.application) {
        elements.require_encryption()?;
    }
    let opened = server.opened(elements.envelope()?, &credential).await.map_err(acedata::unopened)?;
    let claim = Claim::new(
        opened.or(Element::Name, &elements.name),
        opened.or(Element::BankCard, &elements.bank_card),
        opened.or(Element::IdCard, &elements.id_card),
        &native::national_mobile(opened.or(Element::Phone, &elements.phone)),
        elements.cert_type,
    );
    let question = Question {
        wire: Wire::Native,
        action,
        credential: &credential,
        claim: &claim,
        idempotency_key: key,
        purpose: Some(&why),
        detailed: true,
        scripted: server
            .sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.script(Wire::Native, action, &claim, forced, note)),
        request,
        began: received.began,
    };
    let settled = verify(&core.desk, admission, question).await.map_err(refused)?;
    Ok((settled, why, claim))
}

/// What a question asks; the wire knows the same names.
fn action(question: &Verification<'_>) -> Action {
    question.action.parse().unwrap_or(Action::FourElements)
}

/// What a purpose and a consent are.
pub const PURPOSE: &str = "purpose is 1 to 64 letters, digits, dots, hyphens or underscores, such as \
    account_opening; consent is a reference of 1 to 128 characters to where the consent is on file.";

/// The keys that receipts are signed with, as a JSON Web Key Set.
pub fn receipt_keys(server: &Server) -> Reply {
    let keys = receipt::published(server.engine.vault.keys().receipt_public_keys());
    Reply::new(http::StatusCode::OK, "application/json", format!("{keys:#}\n"))
}
