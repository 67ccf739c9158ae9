//! From a request to the front that understands it. One port, all wires.

pub mod accounts;
pub mod acedata;
mod batch;
pub mod envelopes;
pub mod native;
pub mod operate;
pub mod tencent;

use std::borrow::Cow;
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use engine::Engine;
use engine::caller::{Action, ApplicationId, Credential, CredentialId, Wire};
use engine::issuer::CardKind;
use engine::ledger::Answer;
use engine::outcome::Reason;
use engine::settle::Desk;
use engine::store::StoreError;
use engine::subject::CardNumber;
use engine::verify::{Admission, Refusal, new_request_id};
use tokio::sync::Semaphore;
use wire::acedata::{ErrorCode, Fault};
use wire::envelope::{CannotOpen, Envelope, Opened};
use wire::{Incoming, Language};

use crate::config::{Registration, Settings};
use crate::front::envelopes::Unopened;
use crate::http::{Outgoing, Received, Reply, Streamed, guarded};
use crate::limiter;
use crate::platform::password::Guesses;
use crate::sandbox::Sandbox;
use crate::telemetry::Metrics;
use crate::tls::Tls;
use crate::upstream::Upstream;

/// Everything the fronts need, shared by all cores.
pub struct Server {
    /// The engine.
    pub engine: Arc<Engine>,
    /// All settings; see [`Server::settings`].
    pub settings: RwLock<Arc<Settings>>,
    /// What the server counts about itself.
    pub metrics: Metrics,
    /// Script, faults, journal; `None` when real people are verified.
    pub sandbox: Option<Sandbox>,
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Opens encrypted elements.
    pub envelopes: envelopes::Current,
    /// Kibibytes of bodies there is still room for, from callers not yet known.
    pub room: Arc<Semaphore>,
    /// How many more connections there may be.
    pub connections: Arc<Semaphore>,
    /// Where it listens.
    pub port: u16,
    /// Explaining a bad signature costs many times a check: so many a second, no more.
    pub diagnoses: Mutex<(i64, u32)>,
    /// Passwords and vouchers that were guessed of late.
    pub guesses: Guesses,
    /// Counts requests a second for all nodes, if there are several.
    pub limiter: Arc<limiter::Shared>,
    /// A check of the audit that an operator asked for.
    pub checking: crate::console::Checking,
}

impl Server {
    /// All settings, as of now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other settings from now on.
    pub fn replace_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// What addresses of this server begin with.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Who may register in the console.
    pub fn registration(&self) -> Registration {
        let usual = if self.sandbox.is_some() { Registration::Open } else { Registration::Invitation };
        self.settings().platform.registration.unwrap_or(usual)
    }
}

/// One core's part of the server; stays on its thread.
pub struct Core {
    /// The server.
    pub server: Arc<Server>,
    /// Its place in the engine.
    pub desk: Desk,
    /// Its way to the limiter.
    pub limiter: limiter::OnCore,
    keys: RefCell<tencent::KeyCache>,
}

impl Core {
    /// A core's place; call it on the thread that will use it.
    pub fn new(server: Arc<Server>) -> Result<Core, StoreError> {
        let limiter = limiter::OnCore::new(Arc::clone(&server.limiter));
        let desk = server.engine.desk()?.buying_through(Rc::new(Upstream::default()));
        let desk = desk.counting_through(Rc::new(limiter.clone()));
        Ok(Core { server, desk, limiter, keys: RefCell::default() })
    }
}

impl Core {
    /// [`Desk::admit`], unless this core is too far behind to answer in time.
    async fn admit(
        &self,
        credential: &Credential,
        action: Action,
        may_recall: bool,
    ) -> Result<Admission, Refusal> {
        if self.desk.is_too_late_for(credential.application) {
            return Err(Refusal::Overloaded);
        }
        self.desk.admit(credential, action, may_recall).await
    }
}

impl Server {
    /// Opens the elements a caller has encrypted, if any.
    async fn opened(&self, envelope: Option<Envelope>, credential: &Credential) -> Result<Opened, Unopened> {
        let Some(envelope) = envelope else { return Ok(Opened::default()) };
        match self.envelopes.get(&self.engine.vault) {
            Some(envelopes) => Box::pin(envelopes.open(&envelope, credential)).await,
            // Never verified as if it were text.
            None => Err(Unopened::Cannot(CannotOpen::Failed)),
        }
    }

    /// Whether an application may send no element in plain text.
    fn requires_encryption(&self, application: ApplicationId) -> bool {
        let found = self.engine.directory().application(application);
        found.is_some_and(|(application, _)| application.encryption_required)
    }
}

/// Answers any request at all, a panic included.
pub async fn answer(core: &Core, received: &Received) -> Reply {
    let incoming = Incoming {
        method: &received.head.method,
        path: received.head.uri.path(),
        query: received.head.uri.query().unwrap_or_default(),
        headers: &received.head.headers,
        body: received.body.as_deref().unwrap_or_default(),
    };
    let is_tencent = tencent_claims(&incoming);
    match guarded(pin!(route(core, &incoming, received, is_tencent))).await {
        Ok(reply) => reply,
        Err(_) => {
            core.server.metrics.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a request ended in a panic; its caller was told of an internal error");
            let request = new_request_id();
            let (wire, code, reply) = match is_tencent {
                true => tencent::panicked(core, &incoming, &request),
                false if incoming.path.starts_with(API) => native::panicked(&request),
                false => acedata::panicked(&incoming, &request),
            };
            let note = Note { error: Some(code), ..Note::default() };
            Box::pin(finish(core, wire, &request, received, note, reply)).await
        }
    }
}

fn tencent_claims(incoming: &Incoming<'_>) -> bool {
    wire::tencent::claims(incoming)
}

/// Only what is asked most is in the future itself, whose size is moved about for each request.
async fn route(core: &Core, incoming: &Incoming<'_>, received: &Received, is_tencent: bool) -> Reply {
    if is_tencent {
        return tencent::answer(core, incoming, received).await;
    }
    if let Some(reply) = operate::answer(&core.server, incoming) {
        return reply;
    }
    if crate::console::owns(incoming.path) {
        return Box::pin(crate::console::answer(core, incoming, received)).await;
    }
    match &core.server.sandbox {
        Some(sandbox) if Sandbox::owns(incoming.path) => sandbox.control(&core.server, incoming),
        _ if incoming.path.starts_with(API) => Box::pin(api(core, incoming, received)).await,
        _ => acedata::answer(core, incoming, received).await,
    }
}

/// What is card4e's own.
const API: &str = "/api/v1/";

async fn api(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    match incoming.path.strip_suffix('/').unwrap_or(incoming.path) {
        wire::native::PATH => native::answer(core, incoming, received).await,
        "/api/v1/receipt-keys" => native::receipt_keys(&core.server),
        accounts::PATH | accounts::LOOKUP_PATH => accounts::answer(core, incoming, received).await,
        _ => crate::platform::answer(core, incoming, received).await,
    }
}

/// Whether a request's reply begins before its body has ended.
pub fn is_streamed(head: &http::request::Parts) -> bool {
    head.method == http::Method::POST && matches!(head.uri.path(), accounts::STREAM_PATH | batch::PATH)
}

/// Answers such a request.
pub async fn stream(core: &Rc<Core>, streamed: Streamed) -> http::Response<Outgoing> {
    match streamed.head.uri.path() {
        batch::PATH => batch::stream(core, streamed).await,
        _ => accounts::stream(core, streamed),
    }
}

/// Refuses what a page of another site would send through a visitor's browser.
pub fn from_own_pages(server: &Server, incoming: &Incoming<'_>) -> Result<(), Fault> {
    let host = incoming.header("host").unwrap_or_default();
    match incoming.header("origin") {
        Some(origin) if origin != format!("{}://{host}", server.scheme()) => {
            let why = "This is not answered to pages of other sites.";
            Err(Fault::with_message(ErrorCode::TokenMismatched, why))
        }
        _ => Ok(()),
    }
}

/// What `bankcard-1e` tells of a card: its bank and the published number of its kind.
pub struct Bank {
    name_zh: String,
    name_en: String,
    /// 1 debit, 2 credit, 3 prepaid, 4 semi-credit.
    pub kind: i64,
}

impl Bank {
    /// The bank that issued a card. A sandbox has a made-up one for the cards that no bank issues.
    fn of(server: &Server, card: &str) -> Option<Bank> {
        let issued = || {
            let card = CardNumber::parse(card)?;
            let issuers = server.engine.issuers();
            let issuer = issuers.lookup(&card)?;
            Some(Bank {
                name_zh: issuer.bank_zh.clone(),
                name_en: issuer.bank_en.clone(),
                kind: match issuer.kind {
                    CardKind::Debit => 1,
                    CardKind::Credit => 2,
                    CardKind::Prepaid => 3,
                    CardKind::SemiCredit => 4,
                },
            })
        };
        match &server.sandbox {
            None => issued(),
            Some(_) => Some(Sandbox::bank(card, issued())),
        }
    }

    /// Made of parts.
    pub fn new(name_zh: &str, name_en: &str, kind: i64) -> Bank {
        Bank { name_zh: name_zh.into(), name_en: name_en.into(), kind }
    }

    /// Its name.
    pub fn name(&self, language: Language) -> &str {
        match language {
            Language::Chinese => &self.name_zh,
            Language::English => &self.name_en,
        }
    }
}

/// Why a mismatch of mobile, name and identity number is one, in the published words; to who may not be
/// told, nothing more than that it is.
pub fn mismatch_detail(answer: &Answer) -> &'static str {
    let told = answer.reasons.as_deref().unwrap_or_default();
    match (told.contains(&Reason::NameDiffers), told.contains(&Reason::IdDiffers)) {
        (true, true) => "PhoneNameIdCardMismatch",
        (true, false) => "PhoneNameMismatch",
        (false, true) => "PhoneIdCardMismatch",
        (false, false) => "OtherMismatch",
    }
}

/// What became of a request, for the journal and the sandbox's headers.
#[derive(Default)]
pub struct Note {
    /// `BankCard4EVerification`, `bankcard/check-4e`, or whatever was asked for.
    pub action: Cow<'static, str>,
    /// Name of the application that asked.
    pub application: Option<String>,
    /// Who asked, proven: with which credential, of which application.
    pub asker: Option<(ApplicationId, CredentialId)>,
    /// What was asked.
    pub asked: Option<Action>,
    /// The elements, masked.
    pub masks: Option<engine::claim::Masks>,
    /// What was answered.
    pub answered: Option<engine::settle::Settled>,
    /// The number on the wire.
    pub result: Option<i8>,
    /// The error code on the wire.
    pub error: Option<&'static str>,
    /// Who decided, where it was not the engine: `fault`, `header`, `magic-card`, `sample`.
    pub script: Option<&'static str>,
    /// What to do about an error, for its author.
    pub hint: Option<String>,
    /// A fault rule that applies to the reply.
    pub effect: Option<crate::sandbox::Effect>,
}

impl Note {
    /// Whose request this is, refused or not.
    fn asked_by(&mut self, server: &Server, credential: &Credential) {
        self.asker = Some((credential.application, credential.id));
        // For the journal.
        if server.sandbox.is_some() {
            let found = server.engine.directory().application(credential.application);
            self.application = found.map(|(application, _)| application.name.clone());
        }
    }
}

/// Counts what was answered and lets the sandbox have its way with the reply.
pub async fn finish(
    core: &Core,
    wire: Wire,
    request: &[u8; 16],
    received: &Received,
    note: Note,
    reply: Reply,
) -> Reply {
    if let Some(settled) = &note.answered {
        let answer = &settled.answer;
        core.server.metrics.answered(wire, answer.action, answer.outcome, received.began.elapsed());
    } else if let Some(code) = note.error {
        core.server.metrics.refused(wire, code);
        if let Some((application, credential)) = note.asker {
            core.server.engine.note_refusal(engine::store::Refusal {
                request: *request,
                at_ms: core.server.engine.clock.now_ms(),
                application,
                credential,
                wire,
                action: note.asked,
                code,
                status: reply.status.as_u16(),
                elapsed_us: u32::try_from(received.began.elapsed().as_micros()).unwrap_or(u32::MAX),
            });
        }
    }
    match &core.server.sandbox {
        Some(sandbox) => Box::pin(sandbox.finish(&core.server, wire, request, note, reply)).await,
        None => reply,
    }
}
