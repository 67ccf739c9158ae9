//! The Tencent wire: always HTTP 200, always a `RequestId`, errors in `Response.Error`.

use std::collections::HashMap;
use std::sync::Arc;

use engine::caller::{Action as Asked, Credential, Proof as Key, Wire};
use engine::claim::Claim;
use engine::outcome::{Outcome, Row};
use engine::projection;
use engine::settle::Settled;
use engine::verify::{Question, Refusal, new_request_id, uuid_text, verify as answer_question};
use http::{HeaderName, StatusCode};
use wire::tencent::action::{Action, Elements};
use wire::tencent::error::{ErrorCode, Fault};
use wire::tencent::signature::{
    Diagnosis, Evidence, Proof, SigningKey, Tc3, diagnose, verify, verify_tc3, verify_v1, within_clock_window,
};
use wire::tencent::{self, CONTENT_TYPE, Call, Extra};
use wire::{Element, Incoming, Language};

use super::envelopes::Unopened;
use super::{Bank, Core, Note, Server, finish, mismatch_detail};
use crate::http::{BodyError, Received, Reply};

static X_TC_REQUESTID: HeaderName = HeaderName::from_static("x-tc-requestid");

/// Answers a request of this wire.
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let language = tencent::language(incoming, core.server.settings().tencent.language);
    let mut request = new_request_id();
    let mut note = Note::default();
    let asked = ask(core, incoming, received, request, &mut note).await;
    let body = match asked {
        Ok(answered) => {
            // A stored answer keeps its id, so that caller and ledger speak of the same record.
            request = answered.settled.answer.request;
            success(core, answered, language, &mut note)
        }
        Err(fault) => {
            note.error = Some(fault.code.as_str());
            tencent::failure(&uuid_text(&request), &fault, language)
        }
    };
    let mut reply = reply(incoming, &uuid_text(&request), body);
    if note.answered.as_ref().is_some_and(|settled| settled.replayed) {
        reply.header("x-idempotent-replay", "true");
    }
    if note.answered.as_ref().is_some_and(|settled| settled.answer.row == Row::REUSED) {
        reply.header("x-reused", "true");
    }
    finish(core, Wire::Tencent, &request, received, note, reply).await
}

/// An answered question, and what its reply may have to say besides.
struct Answered {
    settled: Settled,
    name: Action,
    claim: Claim,
    detailed: bool,
}

fn success(core: &Core, answered: Answered, language: Language, note: &mut Note) -> Vec<u8> {
    let Answered { settled, name, claim, detailed } = answered;
    let (answer, server) = (&settled.answer, &core.server);
    let request = uuid_text(&answer.request);
    let Some(code) = projection::tencent(name, answer.outcome) else {
        // The engine settles nothing the action cannot answer.
        note.error = Some(ErrorCode::UnKnown.as_str());
        return tencent::failure(&request, &ErrorCode::UnKnown.into(), language);
    };
    note.result = Some(code.number);
    let passed = answer.outcome == Outcome::Pass;
    let bank = (passed && answer.action == Asked::CardInformation).then(|| Bank::of(server, &claim.card));
    let bank = bank.flatten();
    let extra = match answer.action {
        Asked::CardInformation => Extra::Card {
            account_bank: bank.as_ref().map_or("", |bank| bank.name(language)),
            account_type: bank.as_ref().map_or(-1, |bank| bank.kind),
        },
        Asked::MobileNameAndId => Extra::Phone {
            isp: if answer.row == Row::SCRIPT { sandbox_carrier(name, language) } else { "" },
            result_detail: (detailed && answer.outcome == Outcome::HolderMismatch)
                .then(|| mismatch_detail(answer)),
        },
        _ => Extra::None,
    };
    let body = tencent::success(&request, code, language, extra);
    note.answered = Some(settled);
    body
}

/// A sandbox names a carrier where it answers from its script, as the documented samples do.
fn sandbox_carrier(name: Action, language: Language) -> &'static str {
    let (zh, en) = match name {
        Action::PhoneVerificationCMCC => ("移动", "mobile"),
        Action::PhoneVerificationCUCC => ("联通", "cucc"),
        _ => ("电信", "telecom"),
    };
    if language == Language::Chinese { zh } else { en }
}

/// The reply to a request whose handling panicked, and its error code.
pub fn panicked(core: &Core, incoming: &Incoming<'_>, request: &[u8; 16]) -> (Wire, &'static str, Reply) {
    let named = tencent::action_name(incoming).is_some_and(|name| Action::named(name).is_some());
    let fault = Fault::from(if named { ErrorCode::UnKnown } else { ErrorCode::InternalError });
    let request = uuid_text(request);
    let language = tencent::language(incoming, core.server.settings().tencent.language);
    let body = tencent::failure(&request, &fault, language);
    (Wire::Tencent, fault.code.as_str(), reply(incoming, &request, body))
}

/// The reply of a server that waits for its passphrase: official clients try again later.
pub fn locked(incoming: &Incoming<'_>, language: wire::Language) -> Reply {
    let request = uuid_text(&new_request_id());
    let language = tencent::language(incoming, language);
    let fault = Fault::from(ErrorCode::ServiceUnavailable);
    reply(incoming, &request, tencent::failure(&request, &fault, language))
}

fn reply(incoming: &Incoming<'_>, request: &str, body: Vec<u8>) -> Reply {
    let mut reply = Reply::new(StatusCode::OK, CONTENT_TYPE, body);
    reply.set(&X_TC_REQUESTID, request);
    if let Some(trace) = tencent::trace_id(incoming) {
        reply.header("x-tc-traceid", trace);
    }
    reply
}

/// The order of errors: so that an unauthenticated caller learns nothing about business.
async fn ask(
    core: &Core,
    incoming: &Incoming<'_>,
    received: &Received,
    request: [u8; 16],
    note: &mut Note,
) -> Result<Answered, Fault> {
    tencent::check_method(incoming)?;
    match received.body {
        Ok(_) => {}
        Err(BodyError::NoRoom) => return Err(ErrorCode::ServiceUnavailable.into()),
        Err(BodyError::TooLarge) => return Err(tencent::body_too_large(incoming)),
        Err(BodyError::Incomplete) => {
            return Err(Fault::new(
                ErrorCode::InvalidParameter,
                "请求包体不完整。",
                "The body did not arrive completely.",
            ));
        }
    }
    let call = tencent::read(incoming)?;
    note.action = match Action::named(&call.action) {
        Some(action) => action.name().into(),
        None => call.action.chars().take(64).collect(),
    };
    let credential = authenticate(core, incoming, &call, note)?;
    note.asked_by(&core.server, &credential);
    if !credential.admits(received.peer) {
        return Err(ErrorCode::IpNotInWhitelist.into());
    }
    let name = Action::requested(&call)?;
    let asked = projection::asked_by_name(name);
    note.asked = Some(asked);
    let server = &core.server;
    let mut forced = None;
    if let Some(sandbox) = &server.sandbox {
        let card = call.members.get("BankCard").and_then(|card| card.as_str()).unwrap_or_default();
        let ordered = sandbox.order(Wire::Tencent, name, card, incoming, note).map_err(invalid)?;
        if let Some(code) = ordered.error {
            return Err(fault_named(&code));
        }
        forced = ordered.outcome;
    }
    let key = tencent::idempotency_key(incoming)?;
    let may_recall = key.is_some() || server.engine.recalls_by_content();
    let admission = core.admit(&credential, asked, may_recall).await;
    let admission = admission.map_err(refused)?;
    let elements = Elements::read(name, &call)?;
    if server.requires_encryption(credential.application) {
        elements.require_encryption()?;
    }
    let opened = server.opened(elements.envelope()?, &credential).await.map_err(unopened)?;
    let claim = Claim::new(
        opened.or(Element::Name, elements.name),
        opened.or(Element::BankCard, elements.bank_card),
        opened.or(Element::IdCard, elements.id_card),
        opened.or(Element::Phone, elements.phone),
        elements.cert_type,
    );
    let question = Question {
        wire: Wire::Tencent,
        action: asked,
        credential: &credential,
        claim: &claim,
        idempotency_key: key,
        purpose: None,
        detailed: elements.detailed,
        scripted: server
            .sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.script(Wire::Tencent, asked, &claim, forced, note)),
        request,
        began: received.began,
    };
    let detailed = elements.detailed;
    let settled = answer_question(&core.desk, admission, question).await.map_err(refused)?;
    Ok(Answered { settled, name, claim, detailed })
}

/// Clock, key, signature, token: who asks, proven.
fn authenticate(
    core: &Core,
    incoming: &Incoming<'_>,
    call: &Call<'_>,
    note: &mut Note,
) -> Result<Arc<Credential>, Fault> {
    let engine = &core.server.engine;
    let now = engine.clock.now_ms();
    if !within_clock_window(call.timestamp, now.div_euclid(1000)) {
        explain(core, incoming, call, None, note);
        return Err(Fault::signature_expire(call.timestamp, now.div_euclid(1000)));
    }
    let directory = engine.directory();
    let credential = directory.signing(&call.secret_id).ok_or_else(|| unknown_key(&call.secret_id))?;
    let Key::Signature { secret_key, previous, session_token, signed_payload_only, .. } = &credential.proof
    else {
        return Err(ErrorCode::InvalidSecretId.into());
    };
    // A permanent key that has expired is not there any more; of a temporary one it is the token.
    let is_over = credential.is_over(now);
    if is_over && session_token.is_none() {
        return Err(ErrorCode::SecretIdNotFound.into());
    }
    let settings = core.server.settings();
    let names = &settings.tencent.public_names;
    let fits = match &call.proof {
        Proof::Tc3(tc3) => core.keys.borrow_mut().fits(&credential, tc3, call, |key| {
            verify_tc3(tc3, incoming, call.timestamp, key, names).is_ok()
        }),
        Proof::V1(v1) => verify_v1(v1, incoming, secret_key.expose(), names).is_ok(),
    };
    // After a rotation the key before it signs until its overlap ends.
    let old_fits = || {
        let old = previous.as_ref().filter(|(_, until)| *until > now);
        old.is_some_and(|(old, _)| verify(call, incoming, old.expose(), names).is_ok())
    };
    if !fits && !old_fits() {
        explain(core, incoming, call, Some(&credential), note);
        return Err(ErrorCode::SignatureFailure.into());
    }
    if call.unsigned_payload && *signed_payload_only {
        return Err(Fault::new(
            ErrorCode::SignatureFailure,
            "请求签名验证失败：该密钥要求对请求包体签名，不接受 `UNSIGNED-PAYLOAD`。",
            "The provided credentials could not be validated: this key requires a signed payload, not `UNSIGNED-PAYLOAD`.",
        ));
    }
    // Only a temporary key checks the token: users of permanent keys often send an empty or old one.
    match session_token {
        Some(expected) if is_over || call.token.as_deref() != Some(expected.expose()) => {
            Err(ErrorCode::TokenFailure.into())
        }
        _ => Ok(credential),
    }
}

/// A key of another kind is told apart from one that does not exist.
fn unknown_key(secret_id: &str) -> Fault {
    let is_token = secret_id.starts_with("platform-v1-")
        || (secret_id.len() == 32 && secret_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_token { ErrorCode::InvalidSecretId } else { ErrorCode::SecretIdNotFound }.into()
}

/// Explanations of bad signatures a second; each costs dozens of checks, and anybody can ask for it.
const DIAGNOSES_PER_SECOND: u32 = 5;

/// Says in the log, and in the sandbox to the caller, what was probably done wrong.
fn explain(
    core: &Core,
    incoming: &Incoming<'_>,
    call: &Call<'_>,
    credential: Option<&Credential>,
    note: &mut Note,
) {
    let server = &core.server;
    let now = server.engine.clock.now_ms().div_euclid(1000);
    if server.sandbox.is_none() && !may_explain(server, now) {
        return;
    }
    let siblings = credential.map(|own| server.engine.directory().siblings(own)).unwrap_or_default();
    let others: Vec<(&str, &str)> = siblings.iter().filter_map(|other| key_pair(other)).collect();
    let settings = server.settings();
    let evidence = Evidence {
        call,
        incoming,
        now,
        secret_key: credential.and_then(key_pair).map(|(_, secret)| secret),
        other_keys: &others,
        port: Some(server.port),
        public_names: &settings.tencent.public_names,
    };
    let advice = diagnose(&evidence).as_ref().map(Diagnosis::advice);
    if let Some(advice) = &advice {
        tracing::warn!(secret_id = ?call.secret_id.chars().take(64).collect::<String>(), "a request was not signed as it should be: {advice}");
    }
    note.hint = advice;
}

fn may_explain(server: &Server, now: i64) -> bool {
    let mut spent = server.diagnoses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if spent.0 != now {
        *spent = (now, 0);
    }
    spent.1 += 1;
    spent.1 <= DIAGNOSES_PER_SECOND
}

fn key_pair(credential: &Credential) -> Option<(&str, &str)> {
    match &credential.proof {
        Key::Signature { secret_id, secret_key, .. } => Some((secret_id, secret_key.expose())),
        Key::Bearer { .. } | Key::Platform { .. } => None,
    }
}

/// About a header of the sandbox, whose users read English.
fn invalid(wrong: String) -> Fault {
    Fault::new(ErrorCode::InvalidParameter, wrong.clone(), wrong)
}

/// The error a fault rule asks for.
fn fault_named(code: &str) -> Fault {
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
    Fault::from(known.copied().unwrap_or(ErrorCode::InternalError))
}

fn unopened(why: Unopened) -> Fault {
    match why {
        Unopened::Cannot(cannot) => cannot.into(),
        Unopened::Busy => ErrorCode::ServiceUnavailable.into(),
    }
}

fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NotActivated => ErrorCode::Nonactivated.into(),
        Refusal::NotAllowed => ErrorCode::AuthUnauthorizedOperation.into(),
        Refusal::NotConfigured => Fault::new(
            ErrorCode::Nonactivated,
            "未开通服务：本系统未启用证件号与手机号索引（`element_index`）。",
            "The service has not been activated: this installation does not find accounts by identity number \
             or mobile (`element_index`).",
        ),
        Refusal::Arrears | Refusal::LimitReached => ErrorCode::Arrears.into(),
        Refusal::Suspended => ErrorCode::ChargeStatusException.into(),
        Refusal::Unconfirmed => ErrorCode::NonAuthorize.into(),
        Refusal::TooFast(rate) => Fault::request_limit_exceeded(rate.sent.into(), rate.limit.into()),
        Refusal::KeyReused => Fault::new(
            ErrorCode::InvalidParameter,
            "`Idempotency-Key` 已用于另一请求。",
            "The `Idempotency-Key` was used for another question.",
        ),
        Refusal::Overloaded => ErrorCode::ServiceUnavailable.into(),
        Refusal::Stopped => ErrorCode::UnKnown.into(),
    }
}

/// Derived signing keys of one core; deriving costs more than a whole check.
///
/// Bounded, because the service in a scope is the client's choice: Java, Node and others write the
/// first label of whatever host they call.
#[derive(Default)]
pub struct KeyCache(HashMap<String, (Arc<Credential>, SigningKey)>);

const KEYS_MAX: usize = 4096;

/// A longer service is no host's first label; its key is derived each time.
const SERVICE_MAX_BYTES: usize = 64;

impl KeyCache {
    /// Verifies with the derived key, and keeps the key only if the signature fits: whoever knows a
    /// SecretId alone must not be able to fill the memory.
    fn fits(
        &mut self,
        credential: &Arc<Credential>,
        tc3: &Tc3<'_>,
        call: &Call<'_>,
        verify: impl FnOnce(&SigningKey) -> bool,
    ) -> bool {
        let Some((secret_id, secret_key)) = key_pair(credential) else { return false };
        let derive = || SigningKey::derive(secret_key, tc3.date, tc3.service);
        if !tc3.dated(call.timestamp) || tc3.service.len() > SERVICE_MAX_BYTES {
            return verify(&derive());
        }
        let scope = [secret_id, tc3.date, tc3.service].join("/");
        if let Some((owner, key)) = self.0.get(&scope)
            // A rotated key is another credential under the same id.
            && Arc::ptr_eq(owner, credential)
        {
            return verify(key);
        }
        let key = derive();
        let fits = verify(&key);
        if fits {
            if self.0.len() >= KEYS_MAX {
                self.0.clear();
            }
            self.0.insert(scope, (Arc::clone(credential), key));
        }
        fits
    }
}
