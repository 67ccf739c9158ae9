//! One verification from admission to settlement: the product.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use subtle::Choice;
use zeroize::Zeroizing;

use crate::account::AccountState;
use crate::action::{Action, Element};
use crate::caller::{Application, Credential, CredentialId, Purpose, Standing, Wire};
use crate::claim::Claim;
use crate::issuer::{Issuer, Issuers};
use crate::ledger::{Credits, Draft, IdempotencyRef, Recall, ReuseRef, Side};
use crate::limit::{AttemptPolicy, AttemptRefs, Counting, Rate, WhenAway, share};
use crate::node::{Asking, Sharing};
use crate::outcome::{Outcome, Reason, Row};
use crate::route::{Deal, Purchase, RecordTurn, Routing};
use crate::settle::{Desk, Settled, Settlement, Writing};
use crate::store::{AccountRow, Accounts, Looked, Records, StoreError, Wanted};
use crate::subject::card::luhn_holds;
use crate::subject::{CardNumber, NameClass, Subject};
use crate::vault::{Elements, Keys, Verifier, Verifiers, nonce};
use crate::{Engine, IssuerPolicy, Policy};

/// Why a question is not answered. Never charged, never written to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The application never activated this service.
    NotActivated,
    /// The credential may not be used for this.
    NotAllowed,
    /// This installation keeps nothing that could answer it.
    NotConfigured,
    /// The balance does not cover the price.
    Arrears,
    /// The credential was charged as much as it may be in all.
    LimitReached,
    /// The operator suspended the caller.
    Suspended,
    /// The operator has not confirmed the caller.
    Unconfirmed,
    /// Too many requests in this second.
    TooFast(Rate),
    /// The idempotency key was used for another question.
    KeyReused,
    /// More questions are under way than may be, or the limiter is away that would have to count this one.
    Overloaded,
    /// The store cannot be written, or does not answer.
    Stopped,
}

/// Leave to ask one question, with its price set aside.
pub struct Admission {
    /// Who asks.
    pub application: Arc<Application>,
    /// How the application stands in this second; absent when it was refused before.
    pub rate: Option<Rate>,
    hold: Result<Hold, Refusal>,
}

/// A price that is set aside; given back when the question is not asked after all.
struct Hold {
    engine: Arc<Engine>,
    application: Arc<Application>,
    credential: CredentialId,
    price: Credits,
    kept: bool,
}

impl Hold {
    /// The hold goes to the writer with the question.
    fn keep(mut self) -> Credits {
        self.kept = true;
        self.price
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept {
            self.engine.release(&self.application, self.credential, self.price);
        }
    }
}

/// What is asked, once the wire has been read.
pub struct Question<'a> {
    /// Over which wire.
    pub wire: Wire,
    /// What is asked.
    pub action: Action,
    /// With which credential.
    pub credential: &'a Credential,
    /// The elements as received.
    pub claim: &'a Claim,
    /// The caller's own key for this question, if it sent one.
    pub idempotency_key: Option<&'a str>,
    /// Why it is asked, where the wire has members for it; else the credential's.
    pub purpose: Option<&'a Purpose>,
    /// Whether a mismatch is to be explained, if the caller may be told.
    pub detailed: bool,
    /// What the sandbox's script answers, before any validation.
    pub scripted: Option<Outcome>,
    /// The id the caller will see.
    pub request: [u8; 16],
    /// When the request began.
    pub began: Instant,
}

impl Desk {
    /// What the credential allows, entitlement, standing, balance, rate: in this order. Whoever stops waiting
    /// for it has asked nothing, and what was set aside is given back.
    ///
    /// A stored answer is returned even when balance or rate would refuse now; so with `may_recall`
    /// those two refusals wait in the admission until [`verify`] has looked the key up.
    ///
    /// # Errors
    /// Why the question may not be asked.
    pub async fn admit(
        &self,
        credential: &Credential,
        action: Action,
        may_recall: bool,
    ) -> Result<Admission, Refusal> {
        let policy = self.engine.policy();
        let application = self.engine.entitled(credential, action, &policy)?;
        let (hold, rate) = match self.hold(&application, credential, action, &policy).await {
            Err(refusal) => (Err(refusal), None),
            Ok(hold) => match self.count(&application, action, &policy).await {
                None => (Err(Refusal::Overloaded), None),
                Some(rate) if rate.exceeded() => (Err(Refusal::TooFast(rate)), Some(rate)),
                Some(rate) => (Ok(hold), Some(rate)),
            },
        };
        match hold {
            Err(refusal) if !may_recall => Err(refusal),
            hold => Ok(Admission { application, rate, hold }),
        }
    }

    /// Sets the price of one question aside; of a balance that nodes share, takes some more of it first when
    /// this node has too little.
    async fn hold(
        &self,
        application: &Arc<Application>,
        credential: &Credential,
        action: Action,
        policy: &Policy,
    ) -> Result<Hold, Refusal> {
        /// Once for the balance and once for the credential's limit; and others may be quicker.
        const TRIES: u32 = 4;
        let engine = &self.engine;
        let mut held = engine.hold(application, credential, action, policy);
        let Some(sharing) = &engine.sharing else { return held };
        for _ in 0..TRIES {
            let Err(refusal @ (Refusal::Arrears | Refusal::LimitReached)) = held else { return held };
            let price = policy.price_of(application, action);
            Box::pin(engine.refill(sharing, refusal, application, credential, price)).await?;
            held = engine.hold(application, credential, action, policy);
        }
        held
    }

    /// Counts a request against the application's limit: where all nodes count, or else against this node's
    /// share. `None` when only the former would do and the limiter is away.
    async fn count(&self, application: &Application, action: Action, policy: &Policy) -> Option<Rate> {
        let usual = policy.requests_per_second[action as usize];
        let limit = application.requests_per_second.unwrap_or(usual);
        let here = || {
            let (share, now) = (share(limit, policy.nodes), self.engine.clock.now_ms());
            Some(self.engine.rates().count(application.id, action, share, now))
        };
        let limiter = self.limiter.as_ref().filter(|_| limit > 0);
        let counted = match limiter.map(|limiter| limiter.count(application.id, action, limit)) {
            None | Some(Counting::Here) => return here(),
            Some(Counting::Away) => None,
            Some(Counting::Asked(answer)) => answer.await,
        };
        match policy.limiter_away[action as usize] {
            WhenAway::Share => counted.or_else(here),
            WhenAway::Refuse => counted,
        }
    }
}

impl Engine {
    /// The application that may ask this, as things stand.
    fn entitled(
        &self,
        credential: &Credential,
        action: Action,
        policy: &Policy,
    ) -> Result<Arc<Application>, Refusal> {
        if !credential.allows(action) {
            return Err(Refusal::NotAllowed);
        }
        let directory = self.directory();
        let found = directory.application(credential.application);
        let (application, standing) = found.ok_or(Refusal::NotActivated)?;
        if !application.actions.contains(&action) {
            return Err(Refusal::NotActivated);
        }
        if !policy.offers(action) {
            return Err(Refusal::NotConfigured);
        }
        match standing {
            Standing::Active => {}
            Standing::Suspended => return Err(Refusal::Suspended),
            Standing::Unconfirmed => return Err(Refusal::Unconfirmed),
        }
        if self.writing() != Writing::Works {
            return Err(Refusal::Stopped);
        }
        Ok(application)
    }

    /// Sets the price of one question aside.
    fn hold(
        self: &Arc<Engine>,
        application: &Arc<Application>,
        credential: &Credential,
        action: Action,
        policy: &Policy,
    ) -> Result<Hold, Refusal> {
        let price = policy.price_of(application, action);
        {
            let mut books = self.books();
            if !books.has_room(application.id, policy.under_way_max) {
                return Err(Refusal::Overloaded);
            }
            if books.hold(application, price).is_err() {
                return Err(Refusal::Arrears);
            }
            if books.hold_limit(credential, price).is_err() {
                books.release(application, price);
                return Err(Refusal::LimitReached);
            }
        }
        Ok(Hold {
            engine: Arc::clone(self),
            application: Arc::clone(application),
            credential: credential.id,
            price,
            kept: false,
        })
    }

    /// Whether an answer may be recalled for this question without a key of the caller's own.
    pub fn recalls_by_content(&self) -> bool {
        self.policy().content_window_ms > 0
    }
}

/// Answers one question: recall, script or format, limits, look-up, decision, settlement.
///
/// There is nothing to wait for before the question is handed to the writer, or to a task of its own that
/// asks providers (`route.rs`), so a client that goes away can not leave it half asked; and after that it
/// is settled in any case. Where nodes share a database, there is one thing: what they know of the question.
/// A client that goes away then has asked nothing; at most its attempt is counted.
///
/// # Errors
/// A [`Refusal`]: nothing was charged or recorded.
pub async fn verify(desk: &Desk, admission: Admission, question: Question<'_>) -> Settlement {
    let asked = match begin(desk, admission, &question)? {
        Begin::Over(asked) => asked,
        Begin::Open(open) => match &desk.engine.sharing {
            None => {
                let counted = Counted::here(&desk.engine, &open, &question)?;
                finish(desk, open, (counted, &Looked::default()), &question)?
            }
            // On the heap, because one machine alone has no use for the room it needs.
            Some(sharing) => Box::pin(ask_everywhere(desk, sharing, open, &question)).await?,
        },
    };
    let (ticket, differs) = match asked {
        Asked::Recalled(settled) => return Ok(settled),
        Asked::HandedOver(ticket, differs) => (ticket, differs),
    };
    let settled = desk.settled(ticket).await?;
    Ok(Settled { differs, ..settled })
}

enum Asked {
    Recalled(Settled),
    HandedOver(crate::settle::Ticket, Option<Differs>),
}

/// A question that is not known yet, and nothing is counted of it.
struct Open<'a> {
    /// One for the whole question, whatever is read again meanwhile.
    policy: Arc<Policy>,
    subject: Result<Subject, (Outcome, Row)>,
    keys: Arc<Keys>,
    known_as: Vec<IdempotencyRef>,
    begun: Begun<'a>,
    admission: Admission,
}

enum Begin<'a> {
    Over(Asked),
    Open(Open<'a>),
}

/// Looks a question up among those that this node knows.
fn begin<'a>(desk: &'a Desk, admission: Admission, question: &Question<'_>) -> Result<Begin<'a>, Refusal> {
    let engine = &desk.engine;
    let policy = engine.policy();
    let options = policy.parse_options(engine.clock.now_ms());
    let subject = Subject::parse(question.action, question.claim, &options);
    let (known_as, keys) = loop {
        let keys = engine.vault.keys();
        let known_as =
            identities(engine, &policy, &keys, &admission.application, question, subject.as_ref().ok());
        let Some(asked) = known_as.first() else { break (known_as, keys) };
        let mut books = engine.books();
        if !engine.vault.is_current(&keys) {
            // A key was replaced just now: twins must not be known by different names.
            continue;
        }
        let now = engine.clock.now_ms();
        for asked in &known_as {
            match books.memory.recall(asked, now) {
                Recall::Answered(answer) => {
                    let settled = Settled { answer, replayed: true, differs: None };
                    return Ok(Begin::Over(Asked::Recalled(settled)));
                }
                Recall::Conflict => return Err(Refusal::KeyReused),
                Recall::UnderWay => {
                    return Ok(Begin::Over(Asked::HandedOver(desk.join(asked.key), None)));
                }
                Recall::New => {}
            }
        }
        // Without room to remember it, asking it could charge it twice.
        if books.memory.is_full(policy.keys_max, now) {
            return Err(Refusal::Overloaded);
        }
        if admission.hold.is_ok() {
            books.memory.begin(asked, now);
        }
        drop(books);
        break (known_as, keys);
    };
    let asked = known_as.first().copied().filter(|_| admission.hold.is_ok());
    let begun = Begun { engine, asked };
    Ok(Begin::Open(Open { policy, subject, keys, known_as, begun, admission }))
}

/// The same where nodes share a database: it is asked what the others know.
async fn ask_everywhere(
    desk: &Desk,
    sharing: &Sharing,
    open: Open<'_>,
    question: &Question<'_>,
) -> Result<Asked, Refusal> {
    match Counted::everywhere(&desk.engine, sharing, &open, question).await? {
        Ok((counted, looked)) => finish(desk, open, (counted, &looked), question),
        Err(settled) => {
            let settled = Ok(settled);
            if let Some(asked) = open.begun.over() {
                desk.engine.recalled(&asked.key, &settled);
            }
            settled.map(Asked::Recalled)
        }
    }
}

/// Finds the answer out, and hands the question over. `known`: its attempts, and where the database was asked for them
/// its accounts.
fn finish(
    desk: &Desk,
    open: Open<'_>,
    known: (Counted, &Looked),
    question: &Question<'_>,
) -> Result<Asked, Refusal> {
    let Open { policy, subject, keys, known_as, begun, admission } = open;
    let (engine, claim) = (&desk.engine, question.claim);
    let hold = admission.hold?;
    let found = find_out(desk, &policy, &keys, question, &subject, known)?;
    let purpose = question.purpose.or(question.credential.purpose.as_ref());
    let routed = match &policy.routing {
        None => None,
        Some(routing) => Routed::of(desk, routing, &admission.application, question, &subject, &found)?,
    };
    let reuse = routed.as_ref().and_then(|routed| routed.reuse(engine, &keys, purpose));
    let reused =
        reuse.is_some_and(|reuse| engine.books().memory.has_passed(&reuse.key, engine.clock.now_ms()));
    let side = Side {
        subject: Some(keys.subject(&subject_text(question.action, claim, subject.as_ref().ok()))),
        masks: policy.keep_masks.then(|| claim.masked()),
        idempotency: known_as.first().copied(),
        consent: purpose.map(|purpose| purpose.consent.clone()),
        attempts: found.attempts.as_ref().map(|(refs, _)| refs.clone()),
        // Not of an answer that is given again: it would never grow too old.
        reuse: reuse.filter(|_| !reused),
        ..Side::default()
    };
    let wants = question.wire == Wire::Native || question.detailed;
    let tells = wants && admission.application.reasons;
    let draft = Draft {
        request: question.request,
        application: Arc::clone(&admission.application),
        credential: question.credential.id,
        limit: question.credential.limit,
        wire: question.wire,
        action: question.action,
        outcome: found.outcome,
        row: found.row,
        name_class: found.name_class,
        purpose: purpose.map(|purpose| purpose.code.clone()),
        reasons: tells.then_some(found.reasons),
        price: hold.keep(),
        attempts: found.attempts,
        side,
        also_known_as: match engine.sharing {
            None => Vec::new(),
            Some(_) => known_as.into_iter().skip(1).collect(),
        },
        bought: Vec::new(),
        free: reused,
        began: question.began,
    };
    begun.goes_on();
    let Some(routed) = routed else {
        return Ok(Asked::HandedOver(desk.hand_over(draft), found.differs));
    };
    let Routed { deal, buys, record } = routed;
    if reused {
        let draft = Draft { outcome: Outcome::Pass, row: Row::REUSED, name_class: None, ..draft };
        return Ok(Asked::HandedOver(desk.hand_over(draft), None));
    }
    if !buys {
        // A question that the accounts of record have answered may be asked of others beside.
        let (deal, outcome) = (Rc::new(deal), draft.outcome);
        let ticket = desk.hand_over(draft);
        deal.beside(outcome);
        return Ok(Asked::HandedOver(ticket, found.differs));
    }
    let transport = Rc::clone(&deal.transport);
    let (outcome, row) = crate::route::busy(question.action);
    let draft = Draft { outcome, row, name_class: None, reasons: draft.reasons.map(|_| Vec::new()), ..draft };
    let ticket = desk.expect();
    transport.run(Box::pin(Purchase::new(deal, draft, ticket, record).run()));
    Ok(Asked::HandedOver(ticket, None))
}

/// A question that a route takes.
struct Routed {
    deal: Deal,
    /// Providers are asked; else only those that watch.
    buys: bool,
    /// What the accounts of record say, where they are asked last.
    record: Option<(Outcome, Row)>,
}

impl Routed {
    /// Nothing where no route takes it, or where there was nothing to look up: it was malformed, or asked
    /// too often.
    fn of(
        desk: &Desk,
        routing: &Arc<Routing>,
        application: &Application,
        question: &Question<'_>,
        subject: &Result<Subject, (Outcome, Row)>,
        found: &Found,
    ) -> Result<Option<Routed>, Refusal> {
        let held = match found.record {
            Record::NotAsked => return Ok(None),
            Record::Holds => true,
            Record::Misses => false,
        };
        let Ok(subject) = subject else { return Ok(None) };
        let card = subject.card.as_ref().map(|card| card.as_str());
        let Some(place) = routing.route(&application.name, question.action, card) else { return Ok(None) };
        let route = &routing.routes[place];
        let answered = held && route.record == RecordTurn::First;
        let buys = !route.providers.is_empty() && !answered;
        let Some(transport) = &desk.transport else {
            if !buys {
                return Ok(None);
            }
            // "No such account" would be an answer that nobody gave.
            tracing::error!("a question is for a provider, and nothing here can ask one");
            return Err(Refusal::Stopped);
        };
        let issuers = desk.engine.issuers();
        let issuer = subject.card.as_ref().and_then(|card| issuers.lookup(card));
        Ok(Some(Routed {
            buys,
            record: (held && route.record == RecordTurn::Last).then_some((found.outcome, found.row)),
            deal: Deal {
                engine: Arc::clone(&desk.engine),
                transport: Rc::clone(transport),
                routing: Arc::clone(routing),
                route: place,
                request: question.request,
                application: application.id,
                action: question.action,
                issuer: issuer.map(|issuer| issuer.prefix.clone()),
                subject: subject.clone(),
            },
        }))
    }

    /// What a pass that is bought is known by, where the route allows to give it again.
    fn reuse(&self, engine: &Engine, keys: &Keys, purpose: Option<&Purpose>) -> Option<ReuseRef> {
        let deal = &self.deal;
        let kept_ms = deal.routing.routes[deal.route].reuse_ms;
        if !self.buys || kept_ms == 0 {
            return None;
        }
        let subject = &deal.subject;
        let key = keys.idempotency(&[
            b"reuse",
            &deal.application.0.to_be_bytes(),
            purpose.map_or("", |purpose| purpose.code.as_str()).as_bytes(),
            &[deal.action as u8],
            subject.name.as_ref().map_or("", |name| name.as_str()).as_bytes(),
            subject.card.as_ref().map_or("", |card| card.as_str()).as_bytes(),
            subject.id.as_ref().map_or("", |id| id.as_str()).as_bytes(),
            subject.mobile.as_ref().map_or("", |mobile| mobile.as_str()).as_bytes(),
            subject.validity.as_ref().map_or("", |validity| validity.as_str()).as_bytes(),
        ]);
        Some(ReuseRef { key, until_ms: engine.clock.now_ms().saturating_add(kept_ms) })
    }
}

/// What the erasable reference in the records is made of: the element a record is found by.
fn subject_text(action: Action, claim: &Claim, subject: Option<&Subject>) -> Zeroizing<String> {
    let raw = |element: Element| match element {
        Element::Card => claim.card.trim(),
        Element::Name => claim.name.trim(),
        Element::Id => claim.id.trim(),
        Element::Mobile => claim.mobile.trim(),
    };
    let found_by = action.found_by();
    let canonical = subject.and_then(|subject| match found_by {
        Element::Card => subject.card.as_ref().map(|card| card.as_str()),
        Element::Name => subject.name.as_ref().map(|name| name.as_str()),
        Element::Id => subject.id.as_ref().map(|id| id.as_str()),
        Element::Mobile => subject.mobile.as_ref().map(|mobile| mobile.as_str()),
    });
    // However a card was written, also beside a name that is none: who is erased later is found by the
    // digits.
    let card = CardNumber::parse(&claim.card).filter(|_| found_by == Element::Card);
    let text = canonical.or(card.as_ref().map(CardNumber::as_str)).unwrap_or_else(|| raw(found_by));
    // A card stands for itself; of the others an identity number can have a card's digits.
    Zeroizing::new(match found_by {
        Element::Card => text.to_owned(),
        other => format!("{}:{text}", other.name()),
    })
}

/// A question that others may join; should it end before it is handed over, they must not wait.
struct Begun<'a> {
    engine: &'a Engine,
    asked: Option<IdempotencyRef>,
}

impl Begun<'_> {
    fn goes_on(mut self) {
        self.asked = None;
    }

    /// Whoever joined it is told otherwise.
    fn over(mut self) -> Option<IdempotencyRef> {
        self.asked.take()
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked {
            self.engine.forget(&asked.key);
        }
    }
}

/// What a question is known by when it is sent again: the caller's key, or its content. After a
/// rotation also what it was known by before.
fn identities(
    engine: &Engine,
    policy: &Policy,
    keys: &Keys,
    application: &Application,
    question: &Question<'_>,
    subject: Option<&Subject>,
) -> Vec<IdempotencyRef> {
    let window_ms = match question.idempotency_key {
        Some(_) => policy.key_kept_ms,
        None if policy.content_window_ms > 0 => policy.content_window_ms,
        None => return Vec::new(),
    };
    let claim = question.claim;
    // Canonical where there is a canonical form: clients escape and pad the same text differently.
    let name = subject.and_then(|s| s.name.as_ref()).map_or(claim.name.trim(), |name| name.as_str());
    let card = subject.and_then(|s| s.card.as_ref()).map_or(claim.card.trim(), |card| card.as_str());
    let id = subject.and_then(|s| s.id.as_ref()).map_or(claim.id.trim(), |id| id.as_str());
    let mobile =
        subject.and_then(|s| s.mobile.as_ref()).map_or(claim.mobile.trim(), |mobile| mobile.as_str());
    let validity = claim.validity.as_ref().map_or("", |validity| validity.as_str());
    let owner = application.id.0.to_be_bytes();
    let action = [question.action as u8];
    let (purpose, consent) = question.purpose.map_or(("", ""), |why| (&why.code, &why.consent));
    let kind = claim.document_kind.to_be_bytes();
    let payloads = keys.idempotencies(&[
        b"payload",
        &owner,
        &action,
        &kind,
        name.as_bytes(),
        card.as_bytes(),
        id.as_bytes(),
        mobile.as_bytes(),
        validity.as_bytes(),
        purpose.as_bytes(),
        consent.as_bytes(),
    ]);
    let names = match question.idempotency_key {
        Some(key) => keys.idempotencies(&[b"key", &owner, key.as_bytes()]),
        None => payloads.clone(),
    };
    let until_ms = engine.clock.now_ms().saturating_add(window_ms);
    names.into_iter().zip(payloads).map(|(key, payload)| IdempotencyRef { key, payload, until_ms }).collect()
}

struct Found {
    outcome: Outcome,
    row: Row,
    name_class: Option<NameClass>,
    attempts: Option<(AttemptRefs, AttemptPolicy)>,
    differs: Option<Differs>,
    reasons: Vec<Reason>,
    record: Record,
}

/// Whether the accounts of record know the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// They were not asked.
    NotAsked,
    /// They do.
    Holds,
    /// They have nothing about it: another source may.
    Misses,
}

impl Found {
    fn by((outcome, row): (Outcome, Row)) -> Found {
        Found {
            outcome,
            row,
            name_class: None,
            attempts: None,
            differs: None,
            reasons: Vec::new(),
            record: Record::NotAsked,
        }
    }
}

/// Whether a question may be looked up, as often as the same was asked today.
enum Counted {
    /// Nothing limits it, or there is nothing to look up.
    Nothing,
    /// Asked too often.
    UsedUp,
    /// One attempt is set aside for it.
    Held(AttemptRefs, AttemptPolicy),
}

impl Counted {
    /// By this node alone.
    fn here(engine: &Engine, open: &Open<'_>, question: &Question<'_>) -> Result<Counted, Refusal> {
        // What cannot be asked is not counted either.
        if open.admission.hold.is_err() {
            return Ok(Counted::Nothing);
        }
        let Some((refs, counted)) = engine.attempts_of(open, question)? else { return Ok(Counted::Nothing) };
        let mut books = engine.books();
        if books.attempts.is_full(refs.day, open.policy.counters_max) {
            return Err(Refusal::Overloaded);
        }
        if books.attempts.hold(&refs, &counted).is_err() {
            return Ok(Counted::UsedUp);
        }
        Ok(Counted::Held(refs, counted))
    }

    /// By all nodes, in their database, with what was looked up there; or the answer, where one of them gave it before.
    async fn everywhere(
        engine: &Engine,
        sharing: &Sharing,
        open: &Open<'_>,
        question: &Question<'_>,
    ) -> Result<Result<(Counted, Looked), Settled>, Refusal> {
        let attempts = match &open.admission.hold {
            // Only a stored answer can be given.
            Err(_) => None,
            Ok(_) => {
                engine.ensure_day_key(sharing).await?;
                engine.attempts_of(open, question)?
            }
        };
        let asks = !engine.keeps_accounts && open.admission.hold.is_ok() && question.scripted.is_none();
        let subject = open.subject.as_ref().ok().filter(|_| asks);
        let asking = Asking {
            keys: open.known_as.iter().map(|asked| asked.key).collect(),
            attempts: attempts.as_ref().map(|(refs, _)| refs.clone()),
            wanted: subject.and_then(|subject| Wanted::of(subject, &open.keys)),
        };
        let asked = engine.books().attempts.settled();
        let told = sharing.question(asking).await?;
        if let Some(stored) = told.answer {
            let is_this = |asked: &IdempotencyRef| asked.key == stored.key && asked.payload == stored.payload;
            if !open.known_as.iter().any(is_this) {
                return Err(Refusal::KeyReused);
            }
            return Ok(Err(Settled { answer: stored.answer, replayed: true, differs: None }));
        }
        let looked = told.looked;
        let Some((refs, counted)) = attempts else { return Ok(Ok((Counted::Nothing, looked))) };
        let mut books = engine.books();
        let is_full = books.attempts.is_full(refs.day, open.policy.counters_max);
        if is_full || books.attempts.know(&refs, &counted, &told.counts, told.run, asked).is_err() {
            drop(books);
            sharing.give_back(&refs);
            return if is_full { Err(Refusal::Overloaded) } else { Ok(Ok((Counted::UsedUp, looked))) };
        }
        Ok(Ok((Counted::Held(refs, counted), looked)))
    }
}

impl Engine {
    /// What is counted of a question, if anything is.
    fn attempts_of(
        &self,
        open: &Open<'_>,
        question: &Question<'_>,
    ) -> Result<Option<(AttemptRefs, AttemptPolicy)>, Refusal> {
        let application = &open.admission.application;
        let counted = application.attempts.unwrap_or(open.policy.attempts);
        let is_counted = question.scripted.is_none() && counted.counts();
        let Some(subject) = open.subject.as_ref().ok().filter(|_| is_counted) else { return Ok(None) };
        let refs = self.attempt_refs(application.caller, question.action, subject, &counted)?;
        Ok(Some((refs, counted)))
    }
}

fn find_out(
    desk: &Desk,
    policy: &Policy,
    keys: &Keys,
    question: &Question<'_>,
    subject: &Result<Subject, (Outcome, Row)>,
    (counted, looked): (Counted, &Looked),
) -> Result<Found, Refusal> {
    if let Some(outcome) = question.scripted {
        return Ok(Found::by((outcome, Row::SCRIPT)));
    }
    let subject = match subject {
        Ok(subject) => subject,
        Err(decision) => return Ok(Found::by(*decision)),
    };
    let engine = &desk.engine;
    let attempts = match counted {
        Counted::Nothing => None,
        Counted::UsedUp => return Ok(Found::by((Outcome::AttemptsExceeded, Row(6)))),
        Counted::Held(refs, counted) => Some((refs, counted)),
    };
    let records = desk.accounts.as_ref().map_or(Records::There(looked), Records::Here);
    let found = match &subject.card {
        Some(card) => about_card(engine, &records, policy, keys, question.action, card, subject),
        None => about_person(&records, keys, question.action, subject),
    };
    match found.and_then(|found| possible(question.action, found.outcome).map(|_| found)) {
        Ok(found) => Ok(Found { attempts, ..found }),
        Err(refusal) => {
            if let Some((refs, counted)) = &attempts {
                engine.books().attempts.release(refs, counted);
                if let Some(sharing) = &engine.sharing {
                    sharing.give_back(refs);
                }
            }
            Err(refusal)
        }
    }
}

/// What the accounts of record say about many cards with what is claimed of them; nothing is counted or charged.
/// What takes time is done for all of them at once: fetching from memory, and enciphering.
///
/// Only under the one version of the keys that there is: while a rotation moves the accounts, each is looked for
/// under two and compared under its own ([`on_record`]).
pub(crate) fn all_on_record(
    engine: &Engine,
    accounts: &Accounts,
    policy: &Policy,
    keys: &Keys,
    action: Action,
    claims: &[Elements<'_>],
) -> Result<Vec<Outcome>, Refusal> {
    let under = keys.accounts();
    let indexes = keys.index_many(claims.iter().map(|claim| claim.card), under);
    accounts.look_with(keys).map_err(unread)?;
    accounts.fetch(&indexes);
    let claimed = keys.verify_many(claims, under);
    let issuers = engine.issuers();
    let answer = |at: usize, record: Option<&AccountRow>| {
        let facts = facts(&issuers, policy, action, claims[at].card, record, &claimed[at]);
        possible(action, decided(&facts, claims[at].card).0)
    };
    accounts.find_many(&indexes, keys, answer).map_err(unread)?.into_iter().collect()
}

/// What the accounts of record say about a subject; nothing is counted or charged.
pub(crate) fn on_record(
    engine: &Engine,
    accounts: &Accounts,
    policy: &Policy,
    keys: &Keys,
    action: Action,
    subject: &Subject,
) -> Result<Outcome, Refusal> {
    let records = Records::Here(accounts);
    let found = match &subject.card {
        Some(card) => about_card(engine, &records, policy, keys, action, card, subject),
        None => about_person(&records, keys, action, subject),
    };
    found.and_then(|found| possible(action, found.outcome))
}

/// An answer that the action has no number for is nobody's to charge.
fn possible(action: Action, outcome: Outcome) -> Result<Outcome, Refusal> {
    if action.gives(outcome) {
        return Ok(outcome);
    }
    let (action, outcome) = (action.name(), outcome.name());
    tracing::error!(action, outcome, "an answer this action does not have");
    Err(Refusal::Stopped)
}

fn unread(error: StoreError) -> Refusal {
    // Of a copy that is too old, whoever keeps it has told already.
    if !matches!(error, StoreError::Stale(_)) {
        tracing::error!(%error, "an account could not be read");
    }
    Refusal::Stopped
}

/// Everything asked of a card: rows 7 to 28.
fn about_card(
    engine: &Engine,
    records: &Records<'_>,
    policy: &Policy,
    keys: &Keys,
    action: Action,
    card: &CardNumber,
    subject: &Subject,
) -> Result<Found, Refusal> {
    let record = records.find(card.as_str(), keys).map_err(unread)?;
    let version = record.as_ref().and_then(|row| keys.account_version(row.keys));
    let claimed = keys.verifiers(&elements_of(card, subject), version.unwrap_or(keys.accounts()));
    let issuers = engine.issuers();
    let facts = facts(&issuers, policy, action, card.as_bytes(), record.as_ref(), &claimed);
    Ok(compared(&facts, card))
}

pub(crate) fn elements_of<'a>(card: &'a CardNumber, subject: &'a Subject) -> Elements<'a> {
    Elements {
        card: card.as_bytes(),
        name_exact: subject.name.as_ref().map_or(&[], |name| name.e0()),
        name_loose: subject.name.as_ref().map_or(&[], |name| name.e1()),
        id: subject.id.as_ref().map_or(&[], |id| id.as_bytes()),
        mobile: subject.mobile.as_ref().map_or(&[], |mobile| mobile.as_bytes()),
    }
}

/// How a card's record and a claim's verifiers stand to each other.
fn facts<'a>(
    issuers: &'a Issuers,
    policy: &Policy,
    action: Action,
    card: &[u8],
    record: Option<&'a AccountRow>,
    claimed: &Verifiers,
) -> Facts<'a> {
    // Without a record the comparison is made all the same, so that its time tells nothing.
    let bytes = if record.is_some_and(|row| row.is_short) { 8 } else { 16 };
    let on_record = record.map_or_else(dummy, |row| row.verifiers);
    Facts {
        action,
        record,
        compared: Compared::of(action, &on_record, claimed, bytes),
        issuer: issuers.lookup_digits(card),
        issuer_policy: policy.issuer,
        privacy_order: policy.privacy_order,
    }
}

/// What the facts about a card come to.
fn decided(facts: &Facts<'_>, card: &[u8]) -> (Outcome, Row) {
    match facts.action {
        Action::CardInformation => card_information(facts, luhn_holds(card)),
        _ => decide(facts),
    }
}

/// The same, with what else is told or kept about it.
fn compared(facts: &Facts<'_>, card: &CardNumber) -> Found {
    let Facts { compared, record, .. } = facts;
    let decision = decided(facts, card.as_bytes());
    if facts.action == Action::CardInformation {
        return Found::by(decision);
    }
    let name_class = (decision.0 == Outcome::Pass).then_some(compared.name_class);
    let differs = record.is_some().then(|| compared.differs());
    let reasons = reasons(decision.1, facts);
    // An issuer that is known not to take part is nobody's to ask.
    let holds = record.is_some() || decision.1 == Row(8);
    let record = if holds { Record::Holds } else { Record::Misses };
    Found { name_class, differs, reasons, record, ..Found::by(decision) }
}

/// Rows 26 to 28 and 36.
fn card_information(facts: &Facts<'_>, check_digit_holds: bool) -> (Outcome, Row) {
    match facts.issuer {
        None => (Outcome::IssuerUnknown, Row(26)),
        Some(issuer) if !issuer.verifies => (Outcome::KindUnsupported, Row(27)),
        Some(_) if !check_digit_holds && facts.record.is_none() && !facts.privacy_order => {
            (Outcome::PanInvalid, Row(28))
        }
        Some(_) => (Outcome::Pass, Row(36)),
    }
}

/// Everything asked of a person: rows 32 to 36. A person can have many accounts, and a family one mobile.
fn about_person(
    records: &Records<'_>,
    keys: &Keys,
    action: Action,
    subject: &Subject,
) -> Result<Found, Refusal> {
    let name = subject.name.as_ref().map_or(&[][..], |name| name.e1());
    let validity = subject.validity.as_ref().map(|validity| validity.as_str());
    let mut best: Option<(Differs, bool)> = None;
    // Fewer differences first, then a validity on record before none.
    let mut keep = |differs: Differs, silent: bool| {
        let rank = |(differs, silent): &(Differs, bool)| (differs.count(), *silent);
        if best.as_ref().is_none_or(|best| rank(&(differs, silent)) < rank(best)) {
            best = Some((differs, silent));
        }
    };
    match (&subject.mobile, &subject.id) {
        (Some(mobile), id) => {
            let id = id.as_ref().map_or("", |id| id.as_str());
            for row in records.find_by_mobile(mobile.as_str(), keys).map_err(unread)? {
                let under = keys.account_version(row.keys).unwrap_or(keys.accounts());
                let claimed = keys.by_mobile(mobile.as_str(), name, id, under);
                let Some(known) = row.person.by_mobile.filter(|_| row.state != AccountState::Closed) else {
                    continue;
                };
                let name: bool = known.name.matches(&claimed.name).into();
                let same_id: bool = known.id.matches(&claimed.id).into();
                keep(
                    Differs { name: !name, id: action.takes(Element::Id) && !same_id, mobile: false },
                    false,
                );
            }
        }
        (None, Some(id)) => {
            for row in records.find_by_id(id.as_str(), keys).map_err(unread)? {
                let under = keys.account_version(row.keys).unwrap_or(keys.accounts());
                let claimed = keys.by_id(id.as_str(), name, validity, under);
                let Some(known) = row.person.by_id.filter(|_| row.state != AccountState::Closed) else {
                    continue;
                };
                let name: bool = known.name.matches(&claimed.name).into();
                let valid = match (&claimed.validity, &known.validity) {
                    (None, _) => Some(true),
                    (Some(_), None) => None,
                    (Some(claimed), Some(known)) => Some(known.matches(claimed).into()),
                };
                // What else an identity card says counts as its number.
                let silent = name && valid.is_none();
                keep(Differs { name: !name, id: valid == Some(false), mobile: false }, silent);
            }
        }
        (None, None) => return Err(Refusal::Stopped),
    }
    let record = if best.is_some() { Record::Holds } else { Record::Misses };
    let found = match best {
        None => Found::by((Outcome::NoRecord, Row(32))),
        Some((differs, silent)) if differs == Differs::default() && silent => {
            Found::by((Outcome::NoRecord, Row(34)))
        }
        Some((differs, _)) if differs == Differs::default() => {
            // The index keeps only the name without dots and blanks.
            Found { name_class: Some(NameClass::E1), ..Found::by((Outcome::Pass, Row(36))) }
        }
        Some((differs, _)) => Found {
            reasons: differs.reasons(),
            differs: Some(differs),
            ..Found::by((Outcome::HolderMismatch, Row(33)))
        },
    };
    Ok(Found { record, ..found })
}

/// What an entitled caller is told besides the outcome. In privacy order nothing: it would tell what
/// that order hides.
fn reasons(row: Row, facts: &Facts<'_>) -> Vec<Reason> {
    let differs = facts.compared.differs();
    match row {
        _ if facts.privacy_order => Vec::new(),
        Row(10) if facts.record.is_some() => vec![Reason::AccountClosed],
        Row(10) => vec![Reason::AccountAbsent],
        Row(20) => vec![Reason::DocumentDiffers],
        Row(21) => vec![Reason::PhoneAbsent],
        Row(23) => differs.reasons(),
        _ => Vec::new(),
    }
}

/// Verifiers that nothing matches.
fn dummy() -> Verifiers {
    let verifier = || Verifier(nonce());
    Verifiers { name_exact: verifier(), name_loose: verifier(), id: verifier(), mobile: verifier() }
}

/// How the elements of a claim stand to those of a record; all are always compared, and those that were
/// not asked about count as the same.
#[derive(Clone, Copy, Debug)]
struct Compared {
    name: bool,
    id: bool,
    mobile: bool,
    name_class: NameClass,
}

/// Which elements of a claim differ from the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differs {
    /// The holder name.
    pub name: bool,
    /// The identity number.
    pub id: bool,
    /// The mobile number.
    pub mobile: bool,
}

impl Differs {
    fn count(&self) -> u8 {
        u8::from(self.name) + u8::from(self.id) + u8::from(self.mobile)
    }

    fn reasons(&self) -> Vec<Reason> {
        let named = [
            (self.name, Reason::NameDiffers),
            (self.id, Reason::IdDiffers),
            (self.mobile, Reason::PhoneDiffers),
        ];
        named.into_iter().filter_map(|(differs, reason)| differs.then_some(reason)).collect()
    }
}

impl Compared {
    fn differs(&self) -> Differs {
        Differs { name: !self.name, id: !self.id, mobile: !self.mobile }
    }

    /// By so many of the verifiers' first bytes.
    fn of(action: Action, record: &Verifiers, claimed: &Verifiers, bytes: usize) -> Compared {
        let same = |element, matches: Choice| bool::from(matches) | !action.takes(element);
        let exact: Choice = record.name_exact.begins_like(&claimed.name_exact, bytes);
        let loose: Choice = record.name_loose.begins_like(&claimed.name_loose, bytes);
        let id = record.id.begins_like(&claimed.id, bytes);
        let mobile = record.mobile.begins_like(&claimed.mobile, bytes);
        Compared {
            name: same(Element::Name, exact | loose),
            id: same(Element::Id, id),
            mobile: same(Element::Mobile, mobile),
            name_class: if exact.into() { NameClass::E0 } else { NameClass::E1 },
        }
    }
}

/// Everything rows 7 to 28 look at.
struct Facts<'a> {
    action: Action,
    record: Option<&'a AccountRow>,
    compared: Compared,
    issuer: Option<&'a Issuer>,
    issuer_policy: IssuerPolicy,
    privacy_order: bool,
}

/// Rows 7 to 25 of the decision table, in their order.
fn decide(facts: &Facts<'_>) -> (Outcome, Row) {
    let record = facts.record;
    if record.is_none() && facts.issuer.is_none() && facts.issuer_policy == IssuerPolicy::IssuerUnknown {
        return (Outcome::IssuerUnknown, Row(7));
    }
    if facts.issuer.is_some_and(|issuer| !issuer.verifies) {
        return (Outcome::IssuerUnsupported, Row(8));
    }
    let state = record.map(|record| record.state.decision());
    let state = match state {
        None => Some((Outcome::PanInvalid, Row(10))),
        Some(decision) => decision,
    };
    let elements = record.and_then(|record| elements(record, facts));
    let first = if facts.privacy_order {
        // Only somebody who knows the holder is told how the card stands; to everybody else a card
        // that does not exist looks like any other mismatch.
        match state {
            Some((Outcome::PanInvalid, row)) => Some((Outcome::HolderMismatch, row)),
            _ => elements.or(state),
        }
    } else {
        state.or(elements)
    };
    first.unwrap_or((Outcome::Pass, Row(25)))
}

/// Rows 20 to 23.
fn elements(record: &AccountRow, facts: &Facts<'_>) -> Option<(Outcome, Row)> {
    let compared = &facts.compared;
    let (asks_id, asks_mobile) = (facts.action.takes(Element::Id), facts.action.takes(Element::Mobile));
    if asks_id && !record.kind.counts_as_resident_id() {
        Some((Outcome::HolderMismatch, Row(20)))
    } else if asks_mobile && !record.has_mobile {
        Some((Outcome::HolderMismatch, Row(21)))
    } else if asks_mobile && facts.issuer.is_some_and(|issuer| !issuer.phone_checked) {
        Some((Outcome::PhoneUncheckable, Row(22)))
    } else if !(compared.name && compared.id && compared.mobile) {
        Some((Outcome::HolderMismatch, Row(23)))
    } else {
        None
    }
}

/// A new version 4 UUID: `RequestId` on one wire, `trace_id` on the other.
pub fn new_request_id() -> [u8; 16] {
    let mut id: [u8; 16] = nonce();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// `74e742e8-f91d-49c3-9744-c20f3baca117`
pub fn uuid_text(id: &[u8; 16]) -> String {
    let (mut text, mut at) = ([b'-'; 36], 0);
    for (number, byte) in id.iter().enumerate() {
        at += usize::from(matches!(number, 4 | 6 | 8 | 10));
        [text[at], text[at + 1]] = crate::file::hex_digits(*byte);
        at += 2;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountState, DocumentKind};
    use crate::issuer::CardKind;
    use crate::outcome::DECISIONS;
    use crate::store::Person;
    use crate::vault::BlindIndex;

    fn record(state: AccountState) -> AccountRow {
        let index = BlindIndex([0; 16]);
        let (kind, person) = (DocumentKind::ResidentId, Person::default());
        AccountRow {
            index,
            verifiers: dummy(),
            has_mobile: true,
            state,
            kind,
            keys: 1,
            person,
            is_short: false,
        }
    }

    fn issuer(verifies: bool, phone_checked: bool) -> Issuer {
        let text = String::new;
        let (bank_zh, bank_en) = (text(), text());
        Issuer {
            prefix: "621700".into(),
            length: None,
            bank_zh,
            bank_en,
            kind: CardKind::Debit,
            verifies,
            phone_checked,
        }
    }

    fn compared(same: bool) -> Compared {
        Compared { name: same, id: same, mobile: same, name_class: NameClass::E0 }
    }

    struct Case {
        action: Action,
        record: Option<AccountRow>,
        issuer: Option<Issuer>,
        same: bool,
        unknown_prefix_is: IssuerPolicy,
    }

    impl Case {
        fn of(record: AccountRow) -> Case {
            Case {
                action: Action::FourElements,
                record: Some(record),
                issuer: Some(issuer(true, true)),
                same: true,
                unknown_prefix_is: IssuerPolicy::AskSource,
            }
        }

        fn decided(&self, privacy_order: bool) -> (Outcome, u8) {
            let facts = Facts {
                action: self.action,
                record: self.record.as_ref(),
                compared: compared(self.same),
                issuer: self.issuer.as_ref(),
                issuer_policy: self.unknown_prefix_is,
                privacy_order,
            };
            let (outcome, row) = decide(&facts);
            (outcome, row.0)
        }
    }

    /// Each row of the table from 7 on that accounts of record can reach, with everything after it
    /// true as well: the first row wins.
    #[test]
    fn the_first_row_that_holds_wins() {
        let everything_wrong = |state| {
            let record = AccountRow { has_mobile: false, kind: DocumentKind::Passport, ..record(state) };
            Case { same: false, ..Case::of(record) }
        };
        let unknown = Case { record: None, issuer: None, ..everything_wrong(AccountState::Lost) };
        let unknown = Case { unknown_prefix_is: IssuerPolicy::IssuerUnknown, ..unknown };
        assert_eq!(unknown.decided(false), (Outcome::IssuerUnknown, 7));
        let silent = Case { issuer: Some(issuer(false, false)), ..everything_wrong(AccountState::Lost) };
        assert_eq!(silent.decided(false), (Outcome::IssuerUnsupported, 8));
        let absent = Case { record: None, ..everything_wrong(AccountState::Lost) };
        assert_eq!(absent.decided(false), (Outcome::PanInvalid, 10));
        for state in AccountState::ALL.into_iter().filter(|state| *state != AccountState::Normal) {
            let (outcome, row) = state.decision().unwrap();
            assert_eq!(everything_wrong(state).decided(false), (outcome, row.0), "{state:?}");
        }
        assert_eq!(everything_wrong(AccountState::Normal).decided(false), (Outcome::HolderMismatch, 20));

        let no_phone = AccountRow { has_mobile: false, ..record(AccountState::Normal) };
        let no_phone = Case { same: false, issuer: Some(issuer(true, false)), ..Case::of(no_phone) };
        assert_eq!(no_phone.decided(false), (Outcome::HolderMismatch, 21));
        let unchecked =
            Case { same: false, issuer: Some(issuer(true, false)), ..Case::of(record(AccountState::Normal)) };
        assert_eq!(unchecked.decided(false), (Outcome::PhoneUncheckable, 22));
        let differs = Case { same: false, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(differs.decided(false), (Outcome::HolderMismatch, 23));
        assert_eq!(Case::of(record(AccountState::Normal)).decided(false), (Outcome::Pass, 25));
    }

    /// With fewer elements the rows about the others do not hold.
    #[test]
    fn what_is_not_asked_about_cannot_differ() {
        let other_document = AccountRow { kind: DocumentKind::Passport, ..record(AccountState::Normal) };
        let without_phone = AccountRow { has_mobile: false, ..record(AccountState::Normal) };
        let asked = |action, record: &AccountRow| {
            Case { action, issuer: Some(issuer(true, false)), ..Case::of(record.clone()) }.decided(false)
        };
        assert_eq!(asked(Action::FourElements, &other_document), (Outcome::HolderMismatch, 20));
        assert_eq!(asked(Action::ThreeElements, &other_document), (Outcome::HolderMismatch, 20));
        assert_eq!(asked(Action::TwoElements, &other_document), (Outcome::Pass, 25));
        assert_eq!(asked(Action::FourElements, &without_phone), (Outcome::HolderMismatch, 21));
        assert_eq!(asked(Action::ThreeElements, &without_phone), (Outcome::Pass, 25));
    }

    #[test]
    fn an_unknown_prefix_is_the_sources_affair_unless_the_policy_says_otherwise() {
        let mut case = Case { record: None, issuer: None, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(case.decided(false), (Outcome::PanInvalid, 10));
        case.unknown_prefix_is = IssuerPolicy::IssuerUnknown;
        assert_eq!(case.decided(false), (Outcome::IssuerUnknown, 7));
        case.record = Some(record(AccountState::Normal));
        assert_eq!(case.decided(false), (Outcome::Pass, 25), "a record is proof enough of an issuer");
    }

    /// In privacy order nobody learns how a card stands, or whether it exists, without its holder.
    #[test]
    fn privacy_order_tells_the_state_only_to_who_knows_the_holder() {
        for state in AccountState::ALL {
            let stranger = Case { same: false, ..Case::of(record(state)) };
            assert_eq!(stranger.decided(true).0, Outcome::HolderMismatch, "{state:?}");
            let closed = state == AccountState::Closed;
            let expected =
                if closed { Outcome::HolderMismatch } else { Case::of(record(state)).decided(false).0 };
            assert_eq!(Case::of(record(state)).decided(true).0, expected, "{state:?}");
        }
        let absent = Case { record: None, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(absent.decided(true).0, Outcome::HolderMismatch);
    }

    #[test]
    fn every_decision_is_a_row_of_the_published_table() {
        for state in AccountState::ALL {
            for (same, privacy) in [(true, false), (false, false), (true, true), (false, true)] {
                let (outcome, row) = Case { same, ..Case::of(record(state)) }.decided(privacy);
                let published = DECISIONS.iter().find(|decision| decision.row.0 == row).unwrap();
                let hidden = privacy && outcome == Outcome::HolderMismatch && row == 10;
                assert!(published.outcome == outcome || hidden, "{state:?} {row} {outcome:?}");
            }
        }
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let text = uuid_text(&new_request_id());
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
    }
}
