//! Routes: which providers are asked in whose name, in which order, and the story of a purchase.
//!
//! A provider is asked only when the accounts of record hold no answer, one at a time. The next one is
//! asked only when the one before surely gave no answer that it charges, or where the route says that a
//! second purchase is acceptable. There is no asking of two at once: that would be a second purchase and
//! a second attempt on the card. When nobody answers, the outcome is SOURCE_BUSY: never a pass, never a
//! charge to the caller.
//!
//! Sending is handed in ([`Transport`]): nothing here knows sockets.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::Engine;
use crate::action::Action;
use crate::caller::ApplicationId;
use crate::clock::{Millis, utc_text};
use crate::connector::{Call, Put, Reading, Response, Verdict};
use crate::exchange::Recorder;
use crate::ledger::{Credits, Draft, Entry};
use crate::node::{Buying, Leave};
use crate::outcome::{Class, DECISIONS, FAMILY_DECISIONS, Outcome, Row};
use crate::provider::{CallEnd, LackingStatus, Provider, ProviderStatus};
use crate::settle::Ticket;
use crate::spending::{Asking, Bought, Ending, SHADOWS};
use crate::subject::Subject;
use crate::vault::KeyedRef;
use crate::verify::{Refusal, uuid_text};

/// All providers and routes.
#[derive(Debug, Default)]
pub struct Routing {
    /// Providers.
    pub providers: Vec<Arc<Provider>>,
    /// Routes; the first that takes a question is the one.
    pub routes: Vec<Route>,
    /// What a provider or issuer was found not to check is remembered so long, milliseconds.
    pub lacking_kept_ms: Millis,
    /// Keeps exchanges, without personal data, to be replayed.
    pub recorder: Option<Arc<Recorder>>,
}

/// Who is asked about which questions.
#[derive(Debug)]
pub struct Route {
    /// Its name, in the ledger too.
    pub name: String,
    /// Callers whose questions it takes; none: all.
    pub callers: Vec<String>,
    /// Actions it takes; none: all that providers can answer.
    pub actions: Vec<Action>,
    /// Beginnings of card numbers it takes; none: all, and questions without a card too.
    pub prefixes: Vec<String>,
    /// When the accounts of record are asked.
    pub record: RecordTurn,
    /// Providers, by their place in [`Routing::providers`], with their weights. One of those with a weight
    /// is drawn to be asked first; the others follow in this order.
    pub providers: Vec<(usize, u32)>,
    /// All of them together have so long, milliseconds.
    pub deadline_ms: u32,
    /// The next provider is asked even when the one before may have charged.
    pub second_purchase: bool,
    /// A pass that was bought is given again to the same caller, for the same purpose, for so long,
    /// milliseconds; 0: never.
    pub reuse_ms: Millis,
    /// Providers that are asked beside, for a share of the questions, from 0 to 1.
    pub shadows: Vec<(usize, f64)>,
}

/// When the accounts of record are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordTurn {
    /// First; a provider only about what they do not hold.
    #[default]
    First,
    /// When no provider has answered.
    Last,
    /// Not at all.
    Never,
}

impl Routing {
    /// The route that takes a question, by its place.
    pub fn route(&self, caller: &str, action: Action, card: Option<&str>) -> Option<usize> {
        self.routes.iter().position(|route| route.takes(caller, action, card))
    }

    /// Whether providers can answer an action for anybody.
    pub fn covers(&self, action: Action) -> bool {
        self.routes.iter().any(|route| route.takes_action(action) && !route.providers.is_empty())
    }

    /// The provider at a place.
    fn at(&self, place: usize) -> &Arc<Provider> {
        &self.providers[place]
    }
}

impl Route {
    fn takes_action(&self, action: Action) -> bool {
        // Which bank issued a card is read from the issuer table; there is nothing to buy.
        action != Action::CardInformation && (self.actions.is_empty() || self.actions.contains(&action))
    }

    /// Whether it takes a question of a caller about some card.
    pub fn takes_some(&self, caller: &str, action: Action) -> bool {
        self.takes_action(action)
            && (self.callers.is_empty() || self.callers.iter().any(|known| known == caller))
    }

    /// Whether it takes a question.
    pub fn takes(&self, caller: &str, action: Action, card: Option<&str>) -> bool {
        let begins = |prefix: &String| card.is_some_and(|card| card.starts_with(prefix.as_str()));
        self.takes_some(caller, action) && (self.prefixes.is_empty() || self.prefixes.iter().any(begins))
    }

    /// The order in which providers are asked for a request.
    pub fn order(&self, request: &[u8; 16]) -> Vec<usize> {
        let all: u64 = self.providers.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut order: Vec<usize> = self.providers.iter().map(|(place, _)| *place).collect();
        if all == 0 {
            return order;
        }
        let mut drawn = draw(request, 0) % all;
        for (at, (_, weight)) in self.providers.iter().enumerate() {
            if drawn < u64::from(*weight) {
                order[..=at].rotate_right(1);
                break;
            }
            drawn -= u64::from(*weight);
        }
        order
    }

    /// The providers that are asked beside for a request.
    fn shadows_of(&self, request: &[u8; 16]) -> Vec<usize> {
        let drawn = draw(request, 9) as f64 / f64::from(u32::MAX);
        let falls = |(_, share): &&(usize, f64)| *share >= 1.0 || drawn < *share;
        self.shadows.iter().filter(falls).map(|(place, _)| *place).collect()
    }
}

/// A number out of a request's id, which is drawn at random.
fn draw(request: &[u8; 16], from: usize) -> u64 {
    u64::from(u32::from_be_bytes([request[from], request[from + 1], request[from + 2], request[from + 3]]))
}

/// Something that runs to its end on this thread.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A reply on its way.
pub type Sending = Pin<Box<dyn Future<Output = Result<Received, NotAnswered>>>>;

/// Sends calls to providers; the server's is HTTP, a test's is whatever it says.
pub trait Transport {
    /// Runs a task on this thread, whether or not whoever asked still waits.
    fn run(&self, task: Task);

    /// Sends a call and reads the whole reply, or gives up after this time.
    fn send(&self, provider: &Arc<Provider>, call: Call, at_most: Duration) -> Sending;
}

/// A reply, read completely.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// HTTP status.
    pub status: u16,
    /// Headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnswered {
    /// Not one byte of the question left: no connection, no handshake.
    Unsent(String),
    /// It left, at least in part.
    Unclear(String),
}

/// A question on its way to providers. Should its task end early, the question is answered with
/// SOURCE_BUSY all the same.
pub(crate) struct Purchase {
    deal: Rc<Deal>,
    draft: Option<Draft>,
    ticket: Ticket,
    /// What the accounts of record say, where they are asked last.
    record: Option<(Outcome, Row)>,
}

/// What all purchases for one question have in common.
pub(crate) struct Deal {
    pub(crate) engine: Arc<Engine>,
    pub(crate) transport: Rc<dyn Transport>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) route: usize,
    pub(crate) request: [u8; 16],
    pub(crate) application: ApplicationId,
    pub(crate) action: Action,
    pub(crate) subject: Subject,
    /// Prefix of the card's issuer, if one is known.
    pub(crate) issuer: Option<String>,
}

impl Purchase {
    pub(crate) fn new(deal: Deal, draft: Draft, ticket: Ticket, record: Option<(Outcome, Row)>) -> Purchase {
        Purchase { deal: Rc::new(deal), draft: Some(draft), ticket, record }
    }

    /// Asks one provider after the other, then settles.
    pub(crate) async fn run(mut self) {
        match self.is_reused().await {
            // Handed over as it is.
            Ok(true) => return,
            Ok(false) => {}
            Err(refusal) => return self.refuse(refusal),
        }
        match self.ask().await {
            Ok((outcome, row)) => {
                if let Some(draft) = &mut self.draft {
                    (draft.outcome, draft.row) = (outcome, row);
                }
                let deal = Rc::clone(&self.deal);
                drop(self);
                deal.beside(outcome);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Whether it is a pass that was bought before, at any of the nodes that share a database; then it is given
    /// again.
    async fn is_reused(&mut self) -> Result<bool, Refusal> {
        let engine = Arc::clone(&self.deal.engine);
        let (Some(sharing), Some(draft)) = (&engine.sharing, &mut self.draft) else { return Ok(false) };
        let Some(reuse) = draft.side.reuse else { return Ok(false) };
        if !sharing.has_passed(reuse.key).await? {
            return Ok(false);
        }
        (draft.outcome, draft.row, draft.free) = (Outcome::Pass, Row::REUSED, true);
        draft.side.reuse = None;
        Ok(true)
    }

    /// Nothing can be asked or recorded now. What was bought before is paid for: then it is settled as busy,
    /// which is free.
    fn refuse(mut self, refusal: Refusal) {
        if let Some(draft) = self.draft.take_if(|draft| draft.bought.is_empty()) {
            self.deal.engine.refuse(self.ticket, &draft, refusal);
        }
    }

    async fn ask(&mut self) -> Result<(Outcome, Row), Refusal> {
        let deal = Rc::clone(&self.deal);
        let route = deal.route();
        let began = Instant::now();
        let mut last = busy(deal.action);
        for (number, place) in deal.order().into_iter().enumerate() {
            let left = Duration::from_millis(route.deadline_ms.into()).saturating_sub(began.elapsed());
            // No time for a round trip: a call would be paid for and its answer not awaited.
            if left < Duration::from_millis(10) {
                break;
            }
            let provider = deal.routing.at(place);
            let known_as = self.draft.iter().flat_map(Draft::known_as);
            let names = known_as.map(|asked| asked.key).collect();
            let turn = Turn { number: number as u8, left, names, live: None };
            let (bought, verdict) = match deal.buy(provider, turn).await? {
                Deed::Bought(bought, verdict) => (*bought, verdict),
                Deed::PassedOver => continue,
                // Whoever asks again in a moment is told what the other node was.
                Deed::AskedElsewhere => return Ok(busy(deal.action)),
            };
            if let Some(draft) = &mut self.draft {
                draft.bought.push((bought, Default::default()));
            }
            match verdict {
                Verdict::Answer { outcome, .. } if !is_busy(outcome) => {
                    return Ok((outcome, row_of(deal.action, outcome)));
                }
                Verdict::Unknown => return Ok(declined(deal.action)),
                Verdict::Answer { outcome, charged } => {
                    last = (outcome, row_of(deal.action, outcome));
                    if charged && !route.second_purchase {
                        break;
                    }
                }
                Verdict::Refused => {}
                Verdict::Unclear if route.second_purchase => {}
                Verdict::Unclear => break,
            }
        }
        Ok(self.record.unwrap_or(last))
    }
}

impl Drop for Purchase {
    /// Also when the server stops in the middle: what was bought is settled, and what is under way is
    /// found by the next start.
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.deal.engine.hand_over_late(self.ticket, draft);
        }
    }
}

impl Deal {
    fn route(&self) -> &Route {
        &self.routing.routes[self.route]
    }

    /// Who is asked, in order; whoever is known not to check such cards comes last.
    fn order(&self) -> Vec<usize> {
        let mut order = self.route().order(&self.request);
        if let Some(issuer) = &self.issuer {
            let since = self.engine.clock.now_ms() - self.routing.lacking_kept_ms;
            let books = self.engine.books();
            let lacks = |place: &usize| {
                books.spending.lacks(&self.routing.at(*place).name, issuer, self.action, since)
            };
            let lacking: Vec<bool> = order.iter().map(lacks).collect();
            drop(books);
            let (able, unable): (Vec<_>, Vec<_>) =
                order.into_iter().zip(lacking).partition(|(_, lacks)| !lacks);
            order = able.into_iter().chain(unable).map(|(place, _)| place).collect();
        }
        order
    }

    /// Asks the providers that only watch; nobody waits for it, and it changes no answer.
    pub(crate) fn beside(self: &Rc<Deal>, live: Outcome) {
        for (number, place) in self.route().shadows_of(&self.request).into_iter().enumerate() {
            let deal = Rc::clone(self);
            self.transport.run(Box::pin(async move {
                let left = Duration::from_millis(deal.route().deadline_ms.into());
                let number = SHADOWS.saturating_add(number as u8);
                let turn = Turn { number, left, names: Vec::new(), live: Some(live) };
                if let Ok(Deed::Bought(bought, _)) = deal.buy(deal.routing.at(place), turn).await {
                    // A stopped store has said so in the log.
                    let _ = deal.engine.keep(Entry::Bought(*bought)).await;
                }
            }));
        }
    }

    /// One purchase: place, budget, durable entry, call, reply.
    async fn buy(&self, provider: &Arc<Provider>, turn: Turn) -> Result<Deed, Refusal> {
        let Turn { number, left, names, live } = turn;
        let engine = &self.engine;
        let Some(mut place) = Place::take(engine, provider) else { return Ok(Deed::PassedOver) };
        let most = provider.price_of(self.action);
        let Some(budget) = Budget::take(engine, provider, most) else { return Ok(Deed::PassedOver) };
        let at_ms = engine.clock.now_ms();
        let reference = uuid_text(&self.request);
        let host = provider.endpoint.authority();
        let put = Put {
            action: self.action,
            subject: &self.subject,
            reference: &reference,
            now_ms: at_ms,
            host: &host,
        };
        let Ok(call) = provider.connector.call(&put) else { return Ok(Deed::PassedOver) };
        if let Some(sharing) = &engine.sharing {
            let most_time = left + CLAIM_MORE;
            let buying = Buying { provider: Arc::clone(provider), at_ms, most, names, most_time };
            match sharing.leave_to_buy(buying).await? {
                Leave::Granted => {}
                Leave::CapReached => {
                    engine.note_capped(provider);
                    return Ok(Deed::PassedOver);
                }
                Leave::AskedElsewhere => return Ok(Deed::AskedElsewhere),
            }
        }
        let asking = Asking {
            at_ms,
            request: self.request,
            number,
            application: self.application,
            route: self.route().name.clone(),
            provider: provider.name.clone(),
            action: self.action,
            most,
        };
        if engine.keep(Entry::Asking(asking.clone())).await.is_err() {
            return Err(Refusal::Stopped);
        }
        // It counts as spent from here on.
        drop(budget);
        let at_most = left.min(Duration::from_millis(provider.timeout_ms.into()));
        let sent_at = Instant::now();
        place.end = CallEnd::Fails;
        let reply = self.transport.send(provider, call, at_most).await;
        let elapsed_ms = u32::try_from(sent_at.elapsed().as_millis()).unwrap_or(u32::MAX);
        let (ending, reading) = read(provider, self.action, &reply);
        if let (Some(recorder), Ok(reply)) = (&self.routing.recorder, &reply) {
            recorder.keep(&engine.vault, &asking, &self.subject, self.issuer.as_deref(), reply, &reading);
        }
        place.end = if answers(&reading.verdict, ending) { CallEnd::Works } else { CallEnd::Fails };
        place.count(&reading, ending, elapsed_ms);
        let (outcome, cost) = match reading.verdict {
            Verdict::Answer { outcome, charged } => {
                (Some(outcome), if charged { most } else { Credits::ZERO })
            }
            Verdict::Unknown => (Some(declined(self.action).0), most),
            Verdict::Refused => (None, Credits::ZERO),
            Verdict::Unclear => (None, most),
        };
        let bought = Bought {
            at_ms: engine.clock.now_ms(),
            asking,
            ending,
            cost,
            outcome,
            code: reading.code,
            reference: reading.reference,
            issuer: self.issuer.clone(),
            live,
            elapsed_ms,
        };
        Ok(Deed::Bought(Box::new(bought), reading.verdict))
    }
}

/// One of the providers of a question, in its turn.
struct Turn {
    /// The number of the purchase.
    number: u8,
    /// So long is left for it.
    left: Duration,
    /// What the question is known by when it is sent again.
    names: Vec<KeyedRef>,
    /// Of a shadow: what the caller was told.
    live: Option<Outcome>,
}

/// What became of a turn.
enum Deed {
    Bought(Box<Bought>, Verdict),
    /// Not asked: left alone, or a cap is reached.
    PassedOver,
    /// Another node asks for the same question.
    AskedElsewhere,
}

/// A question stays its node's for so long after its deadline, for the commit of its answer.
const CLAIM_MORE: Duration = Duration::from_secs(10);

/// What came back, and what that means for the money.
fn read(provider: &Provider, action: Action, reply: &Result<Received, NotAnswered>) -> (Ending, Reading) {
    let nothing = |verdict, code: &str| Reading { verdict, code: code.to_owned(), reference: String::new() };
    match reply {
        Err(NotAnswered::Unsent(why)) => {
            tracing::debug!(provider = provider.name, why, "a provider could not be reached");
            (Ending::Free, nothing(Verdict::Refused, "unsent"))
        }
        Err(NotAnswered::Unclear(why)) => {
            tracing::debug!(provider = provider.name, why, "a provider did not answer");
            (Ending::Unclear, nothing(Verdict::Unclear, "no_reply"))
        }
        Ok(Received { status, headers, body }) => {
            let reading = provider.connector.read(action, &Response { status: *status, headers, body });
            let ending = match reading.verdict {
                Verdict::Answer { .. } => Ending::Answered,
                Verdict::Refused => Ending::Free,
                Verdict::Unknown | Verdict::Unclear => Ending::Unclear,
            };
            (ending, reading)
        }
    }
}

/// Whether a provider does what it is paid for.
fn answers(verdict: &Verdict, ending: Ending) -> bool {
    match verdict {
        Verdict::Answer { outcome, .. } => !is_busy(*outcome),
        Verdict::Unknown => ending != Ending::Free,
        Verdict::Refused | Verdict::Unclear => false,
    }
}

/// Busy, failing or being upgraded: another one may do better.
fn is_busy(outcome: Outcome) -> bool {
    outcome.class() == Class::Retryable && outcome != Outcome::AttemptsExceeded
}

pub(crate) fn busy(action: Action) -> (Outcome, Row) {
    (Outcome::SourceBusy, row_of(action, Outcome::SourceBusy))
}

/// What is answered where a provider said something nobody knows.
fn declined(action: Action) -> (Outcome, Row) {
    let known = [Outcome::Declined, Outcome::SourceError, Outcome::SourceBusy];
    let outcome = known.into_iter().find(|outcome| action.gives(*outcome)).unwrap_or(Outcome::SourceBusy);
    (outcome, row_of(action, outcome))
}

/// The row of the decision table a provider's answer stands for: the last with this outcome where a card's
/// holder is asked about (elements after documents), else the first.
fn row_of(action: Action, outcome: Outcome) -> Row {
    let of_holder = || DECISIONS.iter().rev().find(|decision| decision.outcome == outcome);
    let of_family = || FAMILY_DECISIONS.iter().find(|decision| decision.outcome == outcome);
    let found = if action.is_about_holder() { of_holder() } else { of_family().or_else(of_holder) };
    found.map_or(Row(24), |decision| decision.row)
}

/// A place among the calls to a provider; given back when it goes out of scope.
struct Place<'a> {
    engine: &'a Engine,
    provider: &'a Provider,
    end: CallEnd,
}

impl<'a> Place<'a> {
    fn take(engine: &'a Engine, provider: &'a Provider) -> Option<Place<'a>> {
        if provider.off {
            return None;
        }
        let limits = provider.limits.share_of(engine.policy().nodes);
        let mut providers = engine.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let health = providers.entry(provider.name.clone()).or_default();
        match health.enter(&limits, engine.clock.now_ms()) {
            Ok(()) => Some(Place { engine, provider, end: CallEnd::NotMade }),
            Err(_) => {
                health.counted.left_alone += 1;
                None
            }
        }
    }

    fn count(&self, reading: &Reading, ending: Ending, elapsed_ms: u32) {
        let mut providers = self.engine.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(health) = providers.get_mut(&self.provider.name) else { return };
        let counted = &mut health.counted;
        let provider = self.provider.name.as_str();
        match (reading.verdict, ending) {
            (Verdict::Answer { .. }, _) => {
                counted.answered += 1;
                counted.answered_ms += u64::from(elapsed_ms);
            }
            (Verdict::Unknown, _) => {
                counted.unknown += 1;
                let code = reading.code.as_str();
                tracing::error!(
                    provider,
                    code,
                    "a provider answered with a code that nobody knows: the answer was DECLINED; check its \
                     numbering, and ask the provider"
                );
            }
            (Verdict::Refused, _) if reading.code == "unsent" => counted.unsent += 1,
            (Verdict::Refused, _) => {
                counted.refused += 1;
                let code = reading.code.as_str();
                tracing::warn!(provider, code, "a provider refused a request");
            }
            (Verdict::Unclear, _) => counted.unclear += 1,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = self.engine.clock.now_ms();
        let mut providers = self.engine.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(health) = providers.get_mut(&self.provider.name) else { return };
        let was = health.breaker.name();
        let opened = health.leave(&self.provider.limits, self.end, now);
        let provider = self.provider.name.as_str();
        if opened {
            tracing::warn!(provider, "a provider does not answer and is left alone for a while");
        } else if was != "closed" && health.breaker.name() == "closed" {
            tracing::info!(provider, "a provider answers again");
        }
    }
}

/// The price of a call, set aside until the call is durable.
struct Budget<'a> {
    engine: &'a Engine,
    provider: &'a Provider,
    most: Credits,
}

impl<'a> Budget<'a> {
    fn take(engine: &'a Engine, provider: &'a Provider, most: Credits) -> Option<Budget<'a>> {
        let now = engine.clock.now_ms();
        let held = engine.books().spending.hold(&provider.name, most, &provider.caps, now);
        if held.is_ok() {
            return Some(Budget { engine, provider, most });
        }
        engine.note_capped(provider);
        None
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.engine.books().spending.release(&self.provider.name, self.most);
    }
}

impl Engine {
    fn note_capped(&self, provider: &Provider) {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = &mut providers.entry(provider.name.clone()).or_default().counted;
        counted.capped += 1;
        // Said once in a while: a cap that is reached stays so until midnight.
        if counted.capped.is_power_of_two() {
            let provider = provider.name.as_str();
            tracing::warn!(provider, "the spending cap of a provider is reached; it is not asked");
        }
    }

    /// How every configured provider is doing here, and what was spent on it: where nodes share a database, by
    /// all of them, as of a moment ago.
    pub fn provider_status(&self) -> Vec<ProviderStatus> {
        let policy = self.policy();
        let Some(routing) = &policy.routing else { return Vec::new() };
        let now = self.clock.now_ms();
        let books = self.books();
        let providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |provider: &Arc<Provider>| {
            let health = providers.get(&provider.name).cloned().unwrap_or_default();
            let spent = match &self.sharing {
                None => books.spending.spent(&provider.name, now),
                Some(sharing) => sharing.spent(&provider.name),
            };
            let lacking = books.spending.lacking(now - routing.lacking_kept_ms);
            let lacking = lacking.filter(|((name, ..), _)| *name == provider.name);
            let lacking = lacking.map(|((_, issuer, action), lacking)| LackingStatus {
                issuer: issuer.clone(),
                action: action.name(),
                times: lacking.times,
                last: utc_text(lacking.at_ms),
            });
            ProviderStatus {
                name: provider.name.clone(),
                connector: provider.connector.word(),
                breaker: health.breaker.name(),
                under_way: health.under_way,
                spent_today: spent.of_day.to_string(),
                daily_cap: provider.caps.daily.map(|cap| cap.to_string()),
                spent_this_month: spent.of_month.to_string(),
                monthly_cap: provider.caps.monthly.map(|cap| cap.to_string()),
                spent: spent.total.to_string(),
                uncertain: spent.uncertain.max(Credits::ZERO).to_string(),
                calls: spent.calls,
                lacking: lacking.collect(),
                counted: health.counted,
            }
        };
        routing.providers.iter().map(status).collect()
    }

    /// Purchases that were under way when the server last ended: they may have been charged, nobody was
    /// answered, and nobody is charged for them.
    ///
    /// Where that cannot be written now, the next start does it; until then they count as spent anyway.
    pub(crate) fn resolve_purchases(&self) {
        let open: Vec<Asking> = self.books().spending.open().cloned().collect();
        let lost = |asking: &Asking| Bought {
            at_ms: self.clock.now_ms(),
            asking: asking.clone(),
            ending: Ending::Lost,
            cost: asking.most,
            outcome: None,
            code: String::new(),
            reference: String::new(),
            issuer: None,
            live: None,
            elapsed_ms: 0,
        };
        if let Err(error) = open.iter().try_for_each(|asking| self.record(Entry::Bought(lost(asking)))) {
            tracing::error!(%error, "purchases that were under way cannot be recorded as lost yet");
        }
        if !open.is_empty() {
            let purchases = open.len();
            tracing::warn!(
                purchases,
                "purchases were under way when the server ended: they count as charged until \
                 `card4e reconcile` finds otherwise; nobody was answered or charged for them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(providers: &[(usize, u32)]) -> Route {
        Route {
            name: "all".into(),
            callers: vec![],
            actions: vec![],
            prefixes: vec![],
            record: RecordTurn::First,
            providers: providers.to_vec(),
            deadline_ms: 5000,
            second_purchase: false,
            reuse_ms: 0,
            shadows: vec![(0, 0.25)],
        }
    }

    #[test]
    fn a_route_takes_what_it_says() {
        let card = Some("6217000000000000012");
        let all = route(&[(0, 0)]);
        assert!(all.takes("shop", Action::FourElements, card) && all.takes("x", Action::NameAndId, None));
        assert!(!all.takes("shop", Action::CardInformation, card), "there is nothing to buy");
        let narrow = Route { callers: vec!["shop".into()], prefixes: vec!["6217".into()], ..route(&[]) };
        assert!(narrow.takes("shop", Action::FourElements, card));
        assert!(!narrow.takes("other", Action::FourElements, card));
        assert!(!narrow.takes("shop", Action::FourElements, Some("6222000000000000012")));
        assert!(!narrow.takes("shop", Action::NameAndId, None));
    }

    #[test]
    fn weights_draw_who_is_first_and_the_rest_follow_in_order() {
        assert_eq!(route(&[(2, 0), (0, 0), (1, 0)]).order(&[9; 16]), [2, 0, 1]);
        let weighted = route(&[(0, 3), (1, 1), (2, 0)]);
        let mut first = [0; 3];
        for number in 0..4000u32 {
            let mut request = [0; 16];
            // Spread over all numbers as random ids are.
            request[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            let order = weighted.order(&request);
            first[order[0]] += 1;
            assert_eq!(order.len(), 3);
            assert!(order == [0, 1, 2] || order == [1, 0, 2], "{order:?}");
        }
        assert!((2800..3200).contains(&first[0]) && first[2] == 0, "{first:?}");
    }

    #[test]
    fn a_share_is_a_share() {
        let route = route(&[]);
        let asked = (0..4000u32).filter(|number| {
            let mut request = [0; 16];
            request[9..13].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            !route.shadows_of(&request).is_empty()
        });
        assert!((900..1100).contains(&asked.count()));
    }

    #[test]
    fn every_answer_of_a_provider_has_a_row_that_says_the_same() {
        for action in Action::ALL.into_iter().filter(|action| *action != Action::CardInformation) {
            for outcome in action.outcomes() {
                let row = row_of(action, *outcome);
                let mut rows = DECISIONS.iter().chain(&FAMILY_DECISIONS);
                let said = rows.find(|decision| decision.row == row).unwrap();
                assert_eq!(said.outcome, *outcome, "{action:?}");
            }
            assert!(action.gives(declined(action).0) && action.gives(busy(action).0));
            assert_ne!(declined(action).0, Outcome::Pass);
        }
        assert_eq!(row_of(Action::FourElements, Outcome::HolderMismatch), Row(23));
    }
}
