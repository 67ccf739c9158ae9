//! One of several nodes that share a database: what a question must ask of it, and what this node learns
//! from the others.
//!
//! Threads beside the writer. The teller asks for all questions that wait, in one round trip: was it
//! answered before, how often was this asked today, may credits be taken. The watcher says that this node
//! lives, reads what other nodes changed, and gives back what this one does not need; the listener wakes it
//! when another node says that there is something.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::caller::{Application, Credential};
use crate::clock::{self, Millis};
use crate::ledger::{Credits, Entry, StoredAnswer};
use crate::limit::AttemptRefs;
use crate::provider::Provider;
use crate::rotate::RotateError;
use crate::spending::{Spent, periods};
use crate::store::{
    Counter, Lease, LedgerReader, Looked, Nodes, Purse, PurseId, SharedAccounts, SharedStore, StoreError,
    Wanted,
};
use crate::vault::{KeyRing, KeyedRef, RingError, RingFile, Seal};
use crate::verify::Refusal;
use crate::{Engine, OpenError, day_key_place, file};

/// How often it counts what others have of balances, and looks for the dead.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What was taken and not used for so long is given back, so that another node can use it.
const IDLE_MOST: Duration = Duration::from_secs(2);

/// How often what is over is swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often a node notes in its tree what the trees of others are like, when they have grown.
const NOTE_EVERY: Duration = Duration::from_secs(600);

/// Questions asked in one round trip at most; more waits for the next.
const ASKED_MOST: usize = 4096;

/// A database that this node shares with others.
pub(crate) struct Sharing {
    pub(crate) store: SharedStore,
    pub(crate) lease: Arc<Lease>,
    waiting: Mutex<Waiting>,
    bell: Condvar,
    /// Held by whoever takes or gives back credits, until the books know it too.
    purses: Mutex<()>,
    /// What this node has taken is to be counted anew.
    recount: AtomicBool,
    /// Nodes that live, this one with them.
    alive: AtomicI64,
    /// Version of the key ring that this node has.
    pub(crate) keys: AtomicI64,
    /// Version of the one that this node could not open.
    unread: AtomicI64,
    /// What all nodes have spent on providers, as of a moment ago.
    spent: Mutex<HashMap<String, Spent>>,
    looks: Mutex<Looks>,
    looked: Condvar,
    /// When this node last gave a sign of life, milliseconds after `began`.
    lived_at: AtomicU64,
    began: Instant,
}

/// Looks of the watcher, by their numbers.
#[derive(Default)]
struct Looks {
    wanted: u64,
    begun: u64,
    done: u64,
    /// Notices that came from other nodes.
    notices: u64,
    is_closing: bool,
}

#[derive(Default)]
struct Waiting {
    wishes: Vec<(Wish, Tell<Told>)>,
    is_closing: bool,
}

/// What a question wants to know or to have.
enum Wish {
    /// Was it answered before? If not, one attempt is counted, and its accounts are looked up.
    Question(Asking),
    /// An attempt was counted, and nobody was asked.
    GiveBack(AttemptRefs),
    /// Credits of a purse: so many at least, and so many if there are.
    Credits(PurseId, i64, i64),
    /// The key of a day, sealed; this one if there is none yet.
    DayKey(u32, Vec<u8>),
    /// Leave to ask a provider.
    Buy(Buying),
    /// Whether a pass may be given again.
    Passed(KeyedRef),
}

/// A call to a provider that is about to be recorded.
pub(crate) struct Buying {
    pub(crate) provider: Arc<Provider>,
    pub(crate) at_ms: Millis,
    /// What it costs at most.
    pub(crate) most: Credits,
    /// All that its question is known by, so that no other node asks a provider for it too; none where it is known
    /// by nothing.
    pub(crate) names: Vec<KeyedRef>,
    /// How long it may take at most.
    pub(crate) most_time: Duration,
}

/// Whether a provider may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It may; its price is set aside.
    Granted,
    /// A cap of all nodes together leaves no room for it.
    CapReached,
    /// Another node asks one for the same question, or has its answer by now.
    AskedElsewhere,
}

/// What a question wants to know.
#[derive(Default)]
pub(crate) struct Asking {
    /// What it is known by.
    pub(crate) keys: Vec<KeyedRef>,
    /// What is counted of it.
    pub(crate) attempts: Option<AttemptRefs>,
    /// What is looked up, where this node keeps no accounts.
    pub(crate) wanted: Option<Wanted>,
}

/// What it is told.
#[derive(Default)]
pub(crate) struct Told {
    /// It was answered before.
    pub(crate) answer: Option<StoredAnswer>,
    /// Its counters with this attempt, in the order of [`AttemptRefs::counters`].
    pub(crate) counts: Vec<i64>,
    /// Mismatches in a row of its pair.
    pub(crate) run: i64,
    /// What it wanted to be looked up.
    pub(crate) looked: Looked,
    day_key: Vec<u8>,
    leave: Option<Leave>,
    has_passed: bool,
}

/// Somebody waits for a value that another thread has.
pub(crate) struct Tell<T>(Option<Arc<Mutex<Kept<T>>>>);

struct Kept<T> {
    value: Option<Result<T, StoreError>>,
    waker: Option<Waker>,
}

/// A place for a value, and the future that waits for it.
pub(crate) fn told<T>() -> (Tell<T>, impl Future<Output = Result<T, StoreError>> + use<T>) {
    let shared = Arc::new(Mutex::new(Kept { value: None, waker: None }));
    let tell = Tell(Some(Arc::clone(&shared)));
    let wait = poll_fn(move |context| {
        let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                kept.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    (tell, wait)
}

/// Waits for what another thread says, on a thread that may wait.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(told) => return told,
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

impl<T> Tell<T> {
    /// Tells whoever still waits.
    pub(crate) fn tell(mut self, value: Result<T, StoreError>) {
        self.put(value);
    }

    fn put(&mut self, value: Result<T, StoreError>) {
        let Some(shared) = self.0.take() else { return };
        let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
        kept.value = Some(value);
        if let Some(waker) = kept.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Drop for Tell<T> {
    /// Also when the other thread is gone.
    fn drop(&mut self) {
        self.put(Err(StoreError::Stopped));
    }
}

impl Sharing {
    pub(crate) fn new(store: SharedStore, lease: Lease, keys: i64) -> Sharing {
        Sharing {
            store,
            lease: Arc::new(lease),
            waiting: Mutex::default(),
            bell: Condvar::new(),
            purses: Mutex::default(),
            recount: AtomicBool::new(false),
            alive: AtomicI64::new(1),
            keys: AtomicI64::new(keys),
            unread: AtomicI64::new(-1),
            spent: Mutex::default(),
            looks: Mutex::default(),
            looked: Condvar::new(),
            lived_at: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Waits until this node knows what others have changed up to now, but not for ever: whoever changes
    /// callers must not do it from what is old.
    pub(crate) fn catch_up(&self) {
        const MOST: Duration = Duration::from_secs(2);
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.wanted = looks.begun + 1;
        let wanted = looks.wanted;
        self.looked.notify_all();
        let is_waiting = |looks: &mut Looks| looks.done < wanted;
        drop(self.looked.wait_timeout_while(looks, MOST, is_waiting).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the next look is due, or wanted.
    fn next_look(&self, due: Duration) {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = |looks: &mut Looks| looks.wanted <= looks.begun && !looks.is_closing;
        let waited = self.looked.wait_timeout_while(looks, due, is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).0.begun += 1;
    }

    /// Another node says that it has changed something: whoever copies or remembers it looks at once.
    pub(crate) fn notice(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.notices += 1;
        looks.wanted = looks.begun + 1;
        drop(looks);
        self.looked.notify_all();
    }

    /// Waits for a notice that was not `seen`, but not for longer than this, nor when this node ends.
    pub(crate) fn next_notice(&self, seen: &mut u64, at_most: Duration) {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = |looks: &mut Looks| looks.notices == *seen && !looks.is_closing;
        let waited = self.looked.wait_timeout_while(looks, at_most, is_idle);
        *seen = waited.unwrap_or_else(PoisonError::into_inner).0.notices;
    }

    fn is_closing(&self) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).is_closing
    }

    /// This node lives: the database has just been told.
    pub(crate) fn lives(&self) {
        self.lived_at.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn silent_for(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.lived_at.load(Ordering::Relaxed)))
    }

    fn look_done(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.done = looks.begun;
        drop(looks);
        self.looked.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, wish: Wish) -> impl Future<Output = Result<Told, StoreError>> + use<> {
        let (tell, wait) = told();
        let mut waiting = self.lock();
        // One that comes too late is told so when it is dropped.
        if !waiting.is_closing {
            waiting.wishes.push((wish, tell));
        }
        drop(waiting);
        self.bell.notify_one();
        wait
    }

    /// Whether a question was answered before; if not, its attempt is counted, and its accounts are looked up.
    pub(crate) async fn question(&self, asking: Asking) -> Result<Told, Refusal> {
        if asking.keys.is_empty() && asking.attempts.is_none() && asking.wanted.is_none() {
            return Ok(Told::default());
        }
        self.ask(Wish::Question(asking)).await.map_err(unanswered)
    }

    /// Nobody was asked after all; nobody waits for that to be counted.
    pub(crate) fn give_back(&self, attempts: &AttemptRefs) {
        drop(self.ask(Wish::GiveBack(attempts.clone())));
    }

    /// Takes credits for this node, if there are `least` of them.
    pub(crate) async fn refill(
        &self,
        purse: PurseId,
        least: Credits,
        wanted: Credits,
    ) -> Result<(), Refusal> {
        self.ask(Wish::Credits(purse, least.0, wanted.0)).await.map(drop).map_err(unanswered)
    }

    /// The sealed key of a day.
    pub(crate) async fn day_key(&self, day: u32, own: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        self.ask(Wish::DayKey(day, own)).await.map(|told| told.day_key).map_err(unanswered)
    }

    /// Leave to ask a provider.
    pub(crate) async fn leave_to_buy(&self, buying: Buying) -> Result<Leave, Refusal> {
        let told = self.ask(Wish::Buy(buying)).await.map_err(unanswered)?;
        told.leave.ok_or(Refusal::Stopped)
    }

    /// Whether a pass was bought, at any node, and may be given again.
    pub(crate) async fn has_passed(&self, key: KeyedRef) -> Result<bool, Refusal> {
        self.ask(Wish::Passed(key)).await.map(|told| told.has_passed).map_err(unanswered)
    }

    /// What all nodes have spent on a provider, as of a moment ago.
    pub(crate) fn spent(&self, provider: &str) -> Spent {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.get(provider).copied().unwrap_or_default()
    }

    /// Reads that.
    pub(crate) fn read_spent(&self, nodes: &mut Nodes, now: Millis) -> Result<(), StoreError> {
        let spent = Spent::by_provider(nodes.spent(periods(now))?);
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = spent;
        Ok(())
    }

    /// What this node has is counted anew before the next block.
    pub(crate) fn wants_recount(&self) -> bool {
        self.recount.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn recount_later(&self) {
        self.recount.store(true, Ordering::SeqCst);
    }

    /// Nodes that live, this one with them, as of a moment ago.
    pub(crate) fn alive(&self) -> i64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Nobody takes or gives back credits meanwhile.
    pub(crate) fn purses(&self) -> MutexGuard<'_, ()> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.lock().is_closing = true;
        self.bell.notify_one();
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).is_closing = true;
        self.looked.notify_all();
    }

    fn wait(&self) -> Option<Vec<(Wish, Tell<Told>)>> {
        let mut waiting = self.lock();
        while waiting.wishes.is_empty() {
            if waiting.is_closing {
                return None;
            }
            waiting = self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = waiting.wishes.len().min(ASKED_MOST);
        let rest = waiting.wishes.split_off(taken);
        Some(std::mem::replace(&mut waiting.wishes, rest))
    }
}

fn unanswered(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the database that nodes share did not answer a question");
    Refusal::Stopped
}

/// Answers wishes until it is closed.
pub(crate) fn tell_all(engine: &Engine, sharing: &Sharing, mut nodes: Nodes) {
    while let Some(wishes) = sharing.wait() {
        let mut questions = Vec::new();
        let mut purses: BTreeMap<PurseId, (i64, i64, Vec<Tell<Told>>)> = BTreeMap::new();
        let (mut back, mut buying, mut passes) = (Vec::new(), Vec::new(), Vec::new());
        for (wish, tell) in wishes {
            match wish {
                Wish::Question(asking) => questions.push((asking, tell)),
                Wish::Buy(wanted) => buying.push((wanted, tell)),
                Wish::Passed(key) => passes.push((key, tell)),
                Wish::GiveBack(attempts) => back.push(attempts),
                Wish::Credits(purse, least, wanted) => {
                    let (of_one, all, tells) = purses.entry(purse).or_insert((least, 0, Vec::new()));
                    *of_one = least.min(*of_one);
                    *all = all.saturating_add(wanted);
                    tells.push(tell);
                }
                Wish::DayKey(day, own) => {
                    tell.tell(nodes.day_key(day, &own).map(|day_key| Told { day_key, ..Told::default() }));
                }
            }
        }
        for (purse, (least, wanted, tells)) in purses {
            let taken = engine.take_slice(sharing, &mut nodes, purse, (least, wanted));
            let mut error = taken.err();
            for tell in tells {
                // Said once, to the first; the others see that they have nothing.
                tell.tell(error.take().map_or(Ok(Told::default()), Err));
            }
        }
        answer(engine, &mut nodes, questions);
        give_leave(engine, sharing, &mut nodes, buying);
        find_passes(engine, &mut nodes, passes);
        // Nobody waits for that.
        give_back(&mut nodes, &back);
    }
}

type Questions = Vec<(Asking, Tell<Told>)>;

fn answer(engine: &Engine, nodes: &mut Nodes, questions: Questions) {
    let keys: Vec<KeyedRef> = questions.iter().flat_map(|(asking, _)| &asking.keys).copied().collect();
    let mut known: HashMap<KeyedRef, StoredAnswer> = HashMap::new();
    if !keys.is_empty() {
        match nodes.recall(&keys, engine.clock.now_ms()) {
            Ok(found) => known.extend(found.into_iter().map(|answer| (answer.key, answer))),
            Err(error) => return refuse_all(questions, error),
        }
    }
    let is_new = |asking: &Asking| !asking.keys.iter().any(|key| known.contains_key(key));
    let new = || questions.iter().map(|(asking, _)| asking).filter(|asking| is_new(asking));
    let counted: Vec<&AttemptRefs> = new().filter_map(|asking| asking.attempts.as_ref()).collect();
    let runs: Vec<_> = counted.iter().map(|refs| (refs.day as i32, refs.pair())).collect();
    let counters = how_often(counted);
    let wanted: Vec<Wanted> = new().filter_map(|asking| asking.wanted).collect();
    let asked = if counters.is_empty() && wanted.is_empty() {
        Ok(Default::default())
    } else {
        nodes.ask(&counters, &runs, &wanted)
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse_all(questions, error),
    };
    // Of several questions about one card in this round trip each is told the count after itself.
    let mut after: HashMap<_, i64> =
        counters.iter().zip(&asked.counts).map(|((counter, by), count)| (*counter, count - by)).collect();
    let (mut runs, mut looked) = (asked.runs.iter(), asked.looked.into_iter());
    for (Asking { keys, attempts, wanted }, tell) in questions {
        let answer = keys.iter().find_map(|key| known.get(key)).cloned();
        let mut told = Told { answer, ..Told::default() };
        if told.answer.is_none() && wanted.is_some() {
            told.looked = looked.next().unwrap_or_default();
        }
        if let Some(refs) = attempts.filter(|_| told.answer.is_none()) {
            let day = refs.day as i32;
            let mut next = |counter| {
                let count = after.entry((day, counter)).or_default();
                *count += 1;
                *count
            };
            told.counts = refs.counters().map(&mut next).collect();
            told.run = runs.next().copied().unwrap_or(0);
        }
        tell.tell(Ok(told));
    }
}

/// Counters of some questions, in the order of their bytes, and how many of the questions have each.
pub(crate) fn how_often<'a>(questions: impl IntoIterator<Item = &'a AttemptRefs>) -> Vec<(Counter, i64)> {
    let mut counters: BTreeMap<Counter, i64> = BTreeMap::new();
    for refs in questions {
        counters_of(refs).for_each(|counter| *counters.entry(counter).or_default() += 1);
    }
    counters.into_iter().collect()
}

/// The counters of one question.
pub(crate) fn counters_of(refs: &AttemptRefs) -> impl Iterator<Item = Counter> + '_ {
    refs.counters().map(|counter| (refs.day as i32, counter))
}

fn give_back(nodes: &mut Nodes, attempts: &[AttemptRefs]) {
    if !attempts.is_empty()
        && let Err(error) = nodes.give_back_attempts(&how_often(attempts))
    {
        tracing::warn!(%error, "attempts of questions that were not asked may stay counted");
    }
}

/// First a question is claimed, then it is asked whether it was answered meanwhile: whoever answers it gives up
/// its claim in the same commit.
fn give_leave(engine: &Engine, sharing: &Sharing, nodes: &mut Nodes, buying: Vec<(Buying, Tell<Told>)>) {
    let claim = |(wanted, _): &(Buying, Tell<Told>)| {
        let for_ms = wanted.most_time.as_millis() as i64;
        wanted.names.iter().map(|name| (*name, for_ms)).collect::<Vec<_>>()
    };
    let claims: BTreeMap<KeyedRef, i64> = buying.iter().flat_map(claim).collect();
    let mut own = HashSet::new();
    if !claims.is_empty() {
        let claimed = nodes.claim(&sharing.lease, &claims).and_then(|claimed| {
            let keys: Vec<KeyedRef> = claimed.iter().copied().collect();
            Ok((claimed, nodes.recall(&keys, engine.clock.now_ms())?))
        });
        match claimed {
            Ok((claimed, answered)) => {
                own = claimed;
                own.retain(|key| answered.iter().all(|answer| answer.key != *key));
            }
            Err(error) => return refuse(buying.into_iter().map(|(_, tell)| tell), &error),
        }
    }
    type Turn = ((i32, i32), Vec<(Buying, Tell<Told>)>);
    let mut by_provider: BTreeMap<String, Vec<Turn>> = BTreeMap::new();
    for (wanted, tell) in buying {
        if !wanted.names.iter().all(|name| own.contains(name)) {
            tell.tell(Ok(Told { leave: Some(Leave::AskedElsewhere), ..Told::default() }));
            continue;
        }
        let (of, at) = (wanted.provider.name.clone(), periods(wanted.at_ms));
        let turns = by_provider.entry(of).or_default();
        match turns.last_mut().filter(|(period, _)| *period == at) {
            Some((_, same)) => same.push((wanted, tell)),
            None => turns.push((at, vec![(wanted, tell)])),
        }
    }
    for (provider, turns) in by_provider {
        for (at, wanted) in turns {
            let prices: Vec<i64> = wanted.iter().map(|(wanted, _)| wanted.most.0).collect();
            let caps = wanted[0].0.provider.caps;
            match nodes.set_aside(&sharing.lease, &provider, at, &caps, &prices) {
                Err(error) => refuse(wanted.into_iter().map(|(_, tell)| tell), &error),
                Ok(granted) => {
                    for ((_, tell), granted) in wanted.into_iter().zip(granted) {
                        let leave = if granted { Leave::Granted } else { Leave::CapReached };
                        tell.tell(Ok(Told { leave: Some(leave), ..Told::default() }));
                    }
                }
            }
        }
    }
}

fn find_passes(engine: &Engine, nodes: &mut Nodes, asked: Vec<(KeyedRef, Tell<Told>)>) {
    if asked.is_empty() {
        return;
    }
    let keys: Vec<KeyedRef> = asked.iter().map(|(key, _)| *key).collect();
    match nodes.passed(&keys, engine.clock.now_ms()) {
        Err(error) => refuse(asked.into_iter().map(|(_, tell)| tell), &error),
        Ok(passed) => {
            for (key, tell) in asked {
                tell.tell(Ok(Told { has_passed: passed.contains(&key), ..Told::default() }));
            }
        }
    }
}

fn refuse_all(questions: Questions, error: StoreError) {
    refuse(questions.into_iter().map(|(_, tell)| tell), &error);
}

fn refuse(tells: impl Iterator<Item = Tell<Told>>, error: &StoreError) {
    tracing::warn!(%error, "the database that nodes share cannot be asked");
    tells.for_each(|tell| tell.tell(Err(StoreError::Stopped)));
}

impl Engine {
    fn take_slice(
        &self,
        sharing: &Sharing,
        nodes: &mut Nodes,
        purse: PurseId,
        least_and_wanted: (i64, i64),
    ) -> Result<(), StoreError> {
        let _one_at_a_time = sharing.purses();
        let mut take = || nodes.take(&sharing.lease, purse, least_and_wanted, sharing.alive());
        let taken = match take() {
            // The writer has just made sure of this node's place.
            Err(StoreError::ChangedElsewhere) => take(),
            taken => taken,
        };
        match taken {
            Ok(taken) => {
                self.books().take_slice(purse, taken);
                Ok(())
            }
            Err(error) => {
                // It may have been taken all the same, or this node was found dead.
                sharing.recount_later();
                Err(error)
            }
        }
    }

    /// What an application or a credential needs more of, after it was refused here.
    pub(crate) async fn refill(
        &self,
        sharing: &Sharing,
        refusal: Refusal,
        application: &Application,
        credential: &Credential,
        price: Credits,
    ) -> Result<(), Refusal> {
        let purse = match refusal {
            Refusal::Arrears => Purse::application(application.id.0),
            Refusal::LimitReached => Purse::credential(credential.id.0),
            other => return Err(other),
        };
        let lacking = self.books().lacking(purse, price);
        sharing.refill(purse, lacking, lacking).await
    }
}

/// What the watcher remembers from look to look.
#[derive(Default)]
struct Watched {
    counted: Option<Instant>,
    swept: Option<Instant>,
    /// What lay idle, and since when.
    idle: HashMap<PurseId, (i64, Instant)>,
    /// When the trees of others were noted, and how large they were.
    noted: HashMap<i64, (Instant, i64)>,
    /// The version of the key ring that the others know this node to have.
    keys: Option<i64>,
    /// Said once: a database stays away for a while.
    is_away: bool,
}

/// Looks after this node among the others until the engine is closed.
pub(crate) fn watch(engine: &Engine, sharing: &Sharing, mut nodes: Nodes) {
    let mut watched = Watched::default();
    while !engine.queue.is_closed() {
        match engine.look_around(sharing, &mut nodes, &mut watched) {
            Ok(()) => watched.is_away = false,
            // The writer takes this node's place again, unless it is another's.
            Err(StoreError::Fenced) => sharing.recount_later(),
            Err(StoreError::ChangedElsewhere) => {}
            // The writer is gone already: nothing is noted any more.
            Err(StoreError::Stopped) if engine.queue.is_closed() => {}
            Err(error) => {
                if !std::mem::replace(&mut watched.is_away, true) {
                    tracing::warn!(%error, "the database that nodes share cannot be watched; it is tried again");
                }
            }
        }
        sharing.look_done();
        sharing.next_look(engine.policy().look_every);
    }
}

/// Hears from other nodes until this one ends. Where that is not possible, it looks by itself all the same.
pub(crate) fn listen(sharing: &Arc<Sharing>) {
    let hears = Arc::clone(sharing);
    let heard: Arc<dyn Fn() + Send + Sync> = Arc::new(move || hears.notice());
    if let Err(error) = sharing.store.database.listen(&heard, || sharing.is_closing()) {
        tracing::info!(%error, "the database has no LISTEN; changes of other nodes are looked for");
    }
}

fn is_due(at: &mut Option<Instant>, every: Duration) -> bool {
    let is_due = at.is_none_or(|at| at.elapsed() >= every);
    if is_due {
        *at = Some(Instant::now());
    }
    is_due
}

impl Engine {
    fn look_around(
        &self,
        sharing: &Sharing,
        nodes: &mut Nodes,
        watched: &mut Watched,
    ) -> Result<(), StoreError> {
        let (callers, keys) = nodes.sign_of_life(&sharing.lease)?;
        sharing.lives();
        // First: what callers have may be sealed with a new key.
        if keys != sharing.keys.load(Ordering::SeqCst) {
            self.read_key_ring(sharing, nodes)?;
        }
        let keys = sharing.keys.load(Ordering::SeqCst);
        if watched.keys != Some(keys) {
            nodes.has_keys(&sharing.lease, keys)?;
            watched.keys = Some(keys);
        }
        if callers != sharing.lease.callers() {
            self.read_callers(sharing, callers)?;
        }
        if is_due(&mut watched.counted, COUNT_EVERY) {
            sharing.alive.store(nodes.alive()?, Ordering::Relaxed);
            let slices = nodes.slices(&sharing.lease)?;
            self.books().share_out(&slices, false);
            self.give_back_idle(sharing, nodes, &mut watched.idle)?;
            for dead in nodes.bury()? {
                tracing::warn!(
                    node = dead,
                    "a node gave no sign of life; what it had taken of balances is given back"
                );
            }
            self.note_trees(sharing, nodes, &mut watched.noted)?;
            if self.policy().routing.is_some() {
                sharing.read_spent(nodes, self.clock.now_ms())?;
            }
        }
        if is_due(&mut watched.swept, SWEEP_EVERY) {
            let now = self.clock.now_ms();
            nodes.sweep(clock::beijing_day(now), now)?;
            if !self.keeps_accounts {
                // Whoever follows the accounts does it; there may be nobody.
                SharedAccounts::again(&sharing.store.database)?.forget_deletions(now)?;
            }
        }
        Ok(())
    }

    /// What is left to an application, counted at this moment; `None`: unlimited.
    pub(crate) fn count(&self, application: &Application) -> Result<Option<Credits>, StoreError> {
        let Some(sharing) = &self.sharing else { return Ok(self.balance(application)) };
        let slices = Nodes::again(&sharing.store.database)?.slices(&sharing.lease)?;
        let purse = Purse::application(application.id.0);
        let found = slices.iter().find(|slice| slice.purse == purse);
        let all = found.map_or(0, |slice| slice.remains + slice.elsewhere);
        Ok((!application.unlimited).then_some(Credits(all)))
    }

    /// Takes over what other nodes changed about callers.
    fn read_callers(&self, sharing: &Sharing, version: i64) -> Result<(), StoreError> {
        let _no_change_meanwhile = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = LedgerReader::open(self.ledger.clone())?.directory(&self.vault)?;
        self.replace_directory(directory);
        sharing.lease.set_callers(version);
        // A limit may be another one.
        sharing.recount_later();
        Ok(())
    }

    fn give_back_idle(
        &self,
        sharing: &Sharing,
        nodes: &mut Nodes,
        idle: &mut HashMap<PurseId, (i64, Instant)>,
    ) -> Result<(), StoreError> {
        let now = self.books().idle_slices();
        idle.retain(|purse, (credits, _)| now.contains(&(*purse, *credits)));
        for (purse, credits) in now {
            let (_, since) = *idle.entry(purse).or_insert((credits, Instant::now()));
            if since.elapsed() < IDLE_MOST {
                continue;
            }
            idle.remove(&purse);
            let _one_at_a_time = sharing.purses();
            {
                let mut books = self.books();
                // Somebody may have needed it since.
                if !books.idle_slices().contains(&(purse, credits)) {
                    continue;
                }
                books.take_slice(purse, -credits);
            }
            if let Err(error) = nodes.give_back(&sharing.lease, purse, credits) {
                // Less is known here than there is; never more.
                sharing.recount_later();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes what the trees of others are like, in this node's own.
    fn note_trees(
        &self,
        sharing: &Sharing,
        nodes: &mut Nodes,
        noted: &mut HashMap<i64, (Instant, i64)>,
    ) -> Result<(), StoreError> {
        for (node, size, root) in nodes.other_trees(&sharing.lease)? {
            let is_known =
                noted.get(&node).is_some_and(|(at, known)| at.elapsed() < NOTE_EVERY || *known == size);
            let (Ok(number), Ok(root)) = (u32::try_from(node), root.try_into()) else { continue };
            if is_known {
                continue;
            }
            noted.insert(node, (Instant::now(), size));
            self.record(Entry::Seen { at_ms: self.clock.now_ms(), node: number, size: size as u64, root })?;
        }
        Ok(())
    }
}

/// The key ring is everybody's: the first node's goes into the database, the others take it from there.
pub(crate) fn share_keys(nodes: &mut Nodes, path: &Path, root: &[u8; 32]) -> Result<i64, OpenError> {
    if let Some(shared) = nodes.known_key_ring()?
        && path.exists()
    {
        take_over(path, &read(path)?, &shared, root)?;
    }
    RingFile::open_or_create(path, root)?;
    let own = read(path)?;
    let (shared, version) = nodes.key_ring(&own)?;
    take_over(path, &own, &shared, root)?;
    Ok(version)
}

/// Brings a node's copy of the ring up to date before anything is opened with it: a new node has none yet, and
/// the root key may have been replaced at another. Whoever needs the database finds out by himself that it is away.
pub(crate) fn join(folder: &Path, store: &SharedStore, root: &[u8; 32]) -> Result<(), OpenError> {
    let path = folder.join("keys.json");
    let own = match std::fs::read(&path) {
        Ok(own) => own,
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(cause) => return Err(of_file(&path, cause)),
    };
    let mut nodes = match Nodes::open(&store.database) {
        Err(_) if !own.is_empty() => return Ok(()),
        opened => opened?,
    };
    match nodes.known_key_ring()? {
        Some(shared) => {
            file::create_private_dir(folder).map_err(|cause| of_file(folder, cause))?;
            take_over(&path, &own, &shared, root)
        }
        // Not begun, or a copy that is not whole.
        None => Ok(nodes.is_to_be_served()?),
    }
}

/// Puts the shared ring in place of this node's, which is kept beside it.
fn take_over(path: &Path, own: &[u8], shared: &[u8], root: &[u8; 32]) -> Result<(), OpenError> {
    if own == shared {
        return Ok(());
    }
    let next = path.with_extension("next");
    file::write_durably(&next, shared).map_err(|cause| of_file(&next, cause))?;
    // Of another installation, or sealed by another root key: then nothing is replaced.
    let opened = KeyRing::open(&next, root).map_err(|error| match error {
        RingError::OtherRoot { .. } => RingError::OtherRootThere,
        error => error,
    });
    let kept = opened.map_err(OpenError::from).and_then(|_| {
        if !own.is_empty() {
            let before = path.with_extension("before");
            file::write_durably(&before, own).map_err(|cause| of_file(&before, cause))?;
        }
        file::write_durably(path, shared).map_err(|cause| of_file(path, cause))
    });
    let _ = std::fs::remove_file(&next);
    kept
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|cause| of_file(path, cause))
}

fn of_file(path: &Path, cause: std::io::Error) -> OpenError {
    OpenError::Store(StoreError::Folder { path: path.to_owned(), cause })
}

impl Engine {
    /// Takes over the key ring that another node changed.
    fn read_key_ring(&self, sharing: &Sharing, nodes: &mut Nodes) -> Result<(), StoreError> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.file("keys.json");
        let own = std::fs::read(&path).map_err(|cause| StoreError::Folder { path: path.clone(), cause })?;
        let (shared, version) = nodes.key_ring(&own)?;
        if let Err(error) = take_over(&path, &own, &shared, ring.root()).and_then(|()| Ok(ring.reopen()?)) {
            // Said once: it stays so until somebody puts the new root key here.
            if sharing.unread.swap(version, Ordering::SeqCst) != version {
                tracing::error!(%error, "this node goes on with the keys it has; start it again then");
            }
            return Ok(());
        }
        {
            let _books = self.books();
            self.vault.replace(&ring.ring);
        }
        sharing.keys.store(version, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until all nodes that live work with the key ring as it is, longer than a dead one counts as alive.
    /// To be called without the lock of the ring, which the watcher needs to give signs of life.
    pub(crate) fn wait_for_followers(&self) -> Result<(), RotateError> {
        const MOST: Duration = Duration::from_secs(12);
        let Some(sharing) = &self.sharing else { return Ok(()) };
        let (began, mut nodes) = (Instant::now(), Nodes::again(&sharing.store.database)?);
        loop {
            let behind = nodes.without_keys(&sharing.lease, sharing.keys.load(Ordering::SeqCst))?;
            if behind.is_empty() {
                return Ok(());
            }
            if began.elapsed() > MOST {
                return Err(RotateError::NodesBehind(behind.join(", ")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Changes the key ring, here and for all nodes: in the database first, because what was sealed with a key
    /// that only this node has would be lost with it.
    pub(crate) fn change_ring(
        &self,
        ring: &mut RingFile,
        change: impl FnOnce(&mut KeyRing),
    ) -> Result<(), RotateError> {
        let Some(sharing) = &self.sharing else { return Ok(ring.change(change)?) };
        let sealed = ring.changed(change)?;
        let seen = sharing.keys.load(Ordering::SeqCst);
        let shared =
            Nodes::again(&sharing.store.database).and_then(|mut nodes| nodes.replace_key_ring(&sealed, seen));
        if let Err(error) = shared {
            // If it is there all the same, the watcher reads it.
            ring.reopen()?;
            return Err(error.into());
        }
        ring.keep(&sealed)?;
        sharing.keys.store(seen + 1, Ordering::SeqCst);
        Ok(())
    }

    /// Seals today's key in the database with the newest key, if there is one.
    pub(crate) fn reseal_shared_day_key(&self, sharing: &Sharing) -> Result<(), StoreError> {
        let today = clock::beijing_day(self.clock.now_ms());
        let place = day_key_place(today);
        let mut nodes = Nodes::again(&sharing.store.database)?;
        let Some(sealed) = nodes.known_day_key(today)? else { return Ok(()) };
        // One that does not open stays what it is.
        let Ok(key) = self.vault.open(Seal::Credential, place.as_bytes(), &sealed) else { return Ok(()) };
        nodes.replace_day_key(today, &self.vault.seal(Seal::Credential, place.as_bytes(), &key))
    }
}
