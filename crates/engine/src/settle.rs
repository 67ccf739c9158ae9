//! From "this is the answer" to "it is durable": one thread writes what all cores hand over.
//!
//! What costs most is not work but waking another thread. So everything that waits is settled in one
//! block, and each core is woken once per block, not once per request.
//!
//! The books change only after the commit. One that fails leaves nothing to undo: what was held is
//! given back, and everybody in the block is refused.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::Engine;
use crate::audit::{Checkpoint, Frontier};
use crate::bulk::{Answers, Bulk, BulkDraft, JobId, Unsettled};
use crate::caller::{Application, ApplicationId, Caller, Credential, CredentialId, Numbered};
use crate::erase::ErasureStep;
use crate::ledger::{
    Answer, Block, Credits, Draft, Entry, IdempotencyRef, Pending, Side, SideRows, Uncovered, encoded,
};
use crate::limit::Limiter;
use crate::node::told;
use crate::outcome::Outcome;
use crate::overload::Lateness;
use crate::route::Transport;
use crate::store::{Accounts, Commit, LedgerFile, LookedBack, Nodes, Put, StoreError};
use crate::vault::KeyedRef;
use crate::verify::{Differs, Refusal};

/// What became of a question: an answer that is durable, or nothing at all.
pub type Settlement = Result<Settled, Refusal>;

/// An answer that is durable.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The record of it.
    pub answer: Answer,
    /// It is the answer of an earlier request with the same idempotency key.
    pub replayed: bool,
    /// Which elements differed, where a record was compared. For the sandbox only: telling a caller
    /// which element differs would let it guess one at a time.
    pub differs: Option<Differs>,
}

/// Where the answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    core: usize,
    number: u64,
}

/// Entries of one block at most; more waits for the next.
const BLOCK_ENTRIES_MAX: usize = 4096;

/// A pause of this length after the start is taken to grow the log.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How often a growing tree is signed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// How often a database that is away is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long a node that ends waits for it.
const CLOSING_MOST: Duration = Duration::from_secs(10);

/// How often a full disk is tried again, and a disk that is not full looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether answers can be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Writing {
    /// They can.
    Works,
    /// The disk is full, or nearly: nothing is answered until there is room again.
    Full,
    /// The disk failed: nothing is answered until a restart has read back what is on it. Or another process
    /// has this node's place.
    Stopped,
    /// The database that nodes share does not answer: nothing is answered until it does.
    Away,
}

impl Writing {
    /// `works`, `full`, `stopped` or `away`.
    pub fn name(self) -> &'static str {
        match self {
            Writing::Works => "works",
            Writing::Full => "full",
            Writing::Stopped => "stopped",
            Writing::Away => "away",
        }
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    /// Questions handed over and not yet settled.
    pub(crate) under_way: AtomicUsize,
    writing: AtomicU8,
}

/// Told once it is durable, or cannot be.
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Default)]
struct Waiting {
    questions: Vec<Question>,
    entries: Vec<(Entry, Done)>,
    changes: Vec<(Change, Done)>,
    bulks: VecDeque<(BulkDraft, BulkDone)>,
    closing: bool,
    /// The writer has gone: nobody takes anything any more.
    is_over: bool,
    asleep: bool,
}

type BulkDone = SyncSender<Result<Answers, Unsettled>>;

/// Something about callers is to be kept otherwise than it is.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new caller with its application, both or neither.
    New(Caller, Application),
    /// A caller that is there.
    Caller(Caller),
    /// An application, new or changed.
    Application(Application),
    /// A credential, new or changed.
    Credential(Credential),
    /// No longer a credential.
    Revoked(CredentialId),
    /// All secrets of credentials are sealed again, with the newest key.
    Resealed,
    /// A step of erasing what is kept about a card.
    Erasure(ErasureStep),
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only pushes and swaps happen under this lock; a panic cannot leave it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, questions: &mut Vec<Question>) {
        if !questions.is_empty() {
            let mut waiting = self.lock();
            waiting.questions.append(questions);
            self.ring(waiting);
        }
    }

    /// Makes an entry durable that is no answer; waits for it.
    pub(crate) fn record(&self, entry: Entry) -> Result<(), StoreError> {
        self.wait_for(|waiting, done| waiting.entries.push((entry, done)))
    }

    /// Makes a change of callers durable and known to everybody; waits for it.
    pub(crate) fn change(&self, change: Change) -> Result<(), StoreError> {
        self.wait_for(|waiting, done| waiting.changes.push((change, done)))
    }

    /// Answers rows in a commit of their own; waits for it.
    pub(crate) fn settle_bulk(&self, draft: BulkDraft) -> Result<Answers, Unsettled> {
        let (done, settled) = std::sync::mpsc::sync_channel(1);
        let mut waiting = self.lock();
        if waiting.closing {
            drop(waiting);
            return Err(Refusal::Stopped.into());
        }
        waiting.bulks.push_back((draft, done));
        self.ring(waiting);
        settled.recv().unwrap_or(Err(Refusal::Stopped.into()))
    }

    fn wait_for(&self, push: impl FnOnce(&mut Waiting, Done)) -> Result<(), StoreError> {
        let (done, kept) = std::sync::mpsc::sync_channel(1);
        let mut waiting = self.lock();
        if waiting.is_over {
            return Err(StoreError::Stopped);
        }
        // Whoever asked may have gone.
        push(&mut waiting, Box::new(move |kept| drop(done.send(kept))));
        self.ring(waiting);
        kept.recv().unwrap_or(Err(StoreError::Stopped))
    }

    /// Makes an entry durable that is no answer, without keeping a core waiting.
    pub(crate) fn keep(&self, entry: Entry) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (tell, wait) = told();
        let mut waiting = self.lock();
        // Too late: it is told so when this is dropped.
        if !waiting.is_over {
            waiting.entries.push((entry, Box::new(move |kept| tell.tell(kept))));
        }
        self.ring(waiting);
        wait
    }

    pub(crate) fn writing(&self) -> Writing {
        match self.writing.load(Ordering::SeqCst) {
            0 => Writing::Works,
            1 => Writing::Full,
            3 => Writing::Away,
            _ => Writing::Stopped,
        }
    }

    fn set_writing(&self, writing: Writing) {
        self.writing.store(writing as u8, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closing
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closing = true;
        self.ring(waiting);
    }

    /// Whoever still waits for the writer is told that there is none any more.
    fn end(&self) {
        let mut waiting = self.lock();
        waiting.is_over = true;
        let rest = (std::mem::take(&mut waiting.entries), std::mem::take(&mut waiting.changes));
        drop(waiting);
        drop(rest);
    }

    /// Wakes the writer, once it can have the lock: else it would wake only to wait for that.
    fn ring(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.bell.notify_one();
        }
    }
}

/// One core's letter box for settlements.
#[derive(Default)]
struct Mailbox(Mutex<Mail>);

#[derive(Default)]
struct Mail {
    letters: Vec<(u64, Settlement)>,
    reader: Option<Waker>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, letters: &mut Vec<(u64, Settlement)>) {
        let mut mail = self.lock();
        mail.letters.append(letters);
        let reader = mail.reader.take();
        drop(mail);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Letter boxes of all cores, and who else waits for a question under way.
#[derive(Default)]
pub(crate) struct Post {
    boxes: Mutex<Vec<Arc<Mailbox>>>,
    twins: Mutex<HashMap<KeyedRef, Vec<Ticket>>>,
}

impl Post {
    fn open_box(&self) -> (usize, Arc<Mailbox>) {
        let mut boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
        boxes.push(Arc::default());
        (boxes.len() - 1, Arc::clone(&boxes[boxes.len() - 1]))
    }

    fn join(&self, key: KeyedRef, ticket: Ticket) {
        let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        twins.entry(key).or_default().push(ticket);
    }

    fn twins_of(&self, key: &KeyedRef) -> Vec<Ticket> {
        let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        twins.remove(key).unwrap_or_default()
    }

    /// One wake for each core that has something to read.
    fn deliver(&self, settled: Vec<(Ticket, Settlement)>) {
        let boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sorted: Vec<Vec<(u64, Settlement)>> = vec![Vec::new(); boxes.len()];
        for (ticket, settlement) in settled {
            sorted[ticket.core].push((ticket.number, settlement));
        }
        for (mailbox, mut letters) in boxes.iter().zip(sorted) {
            if !letters.is_empty() {
                mailbox.deliver(&mut letters);
            }
        }
    }
}

/// One core's place in the engine: its reader of accounts, and the questions it waits for.
///
/// Stays on its thread; [`Desk::carry_mail`] must run there for questions to leave and answers to arrive.
pub struct Desk {
    /// The engine it belongs to.
    pub engine: Arc<Engine>,
    /// `None`: the database is asked.
    pub(crate) accounts: Option<Accounts>,
    core: usize,
    mailbox: Arc<Mailbox>,
    next: Cell<u64>,
    awaited: RefCell<Numbered<u64, Awaited>>,
    /// Handed over in this turn of the core's loop, and not yet with the writer.
    outbox: RefCell<Vec<Question>>,
    carrier: RefCell<Option<Waker>>,
    lateness: RefCell<Lateness>,
    /// Sends questions to providers.
    pub(crate) transport: Option<Rc<dyn Transport>>,
    /// Counts for all nodes.
    pub(crate) limiter: Option<Rc<dyn Limiter>>,
}

enum Awaited {
    Nobody,
    Waiting(Waker),
    Arrived(Settlement),
}

impl Desk {
    pub(crate) fn new(engine: Arc<Engine>, accounts: Option<Accounts>) -> Desk {
        let (core, mailbox) = engine.post.open_box();
        Desk {
            engine,
            accounts,
            core,
            mailbox,
            next: Cell::new(0),
            awaited: RefCell::default(),
            outbox: RefCell::default(),
            carrier: RefCell::default(),
            lateness: RefCell::default(),
            transport: None,
            limiter: None,
        }
    }

    /// What this core asks goes to providers through this, where a route says so.
    pub fn buying_through(mut self, transport: Rc<dyn Transport>) -> Desk {
        self.transport = Some(transport);
        self
    }

    /// What is asked at this core is counted through this, where its settings say so.
    pub fn counting_through(mut self, limiter: Rc<dyn Limiter>) -> Desk {
        self.limiter = Some(limiter);
        self
    }

    /// Whoever runs this core found something ready to have waited so long; see [`Lateness::measured`].
    pub fn measured(&self, waited: Duration, most: Duration) {
        self.lateness.borrow_mut().measured(waited, most);
    }

    /// Whether this core is so far behind that it refuses one more question of this application.
    pub fn is_too_late_for(&self, application: ApplicationId) -> bool {
        self.lateness.borrow_mut().refuses(application)
    }

    /// Takes questions to the writer, and settlements to those who wait for them, for ever.
    ///
    /// It gets its turn after the requests that are ready now, so that their questions leave together:
    /// waking the writer costs more than a question, and a block of many costs little more than of one.
    pub async fn carry_mail(&self) {
        loop {
            let letters = poll_fn(|context| {
                self.engine.queue.push(&mut self.outbox.borrow_mut());
                *self.carrier.borrow_mut() = Some(context.waker().clone());
                let mut mail = self.mailbox.lock();
                if mail.letters.is_empty() {
                    mail.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(std::mem::take(&mut mail.letters))
            })
            .await;
            // Whoever looked an account up had it settled: a look at the accounts is not kept for longer.
            self.accounts.iter().for_each(Accounts::look_away);
            for (number, settlement) in letters {
                self.arrived(number, settlement);
            }
        }
    }

    fn arrived(&self, number: u64, settlement: Settlement) {
        let mut awaited = self.awaited.borrow_mut();
        // Absent when the client has gone: the answer is settled all the same.
        if let Some(place) = awaited.get_mut(&number)
            && let Awaited::Waiting(waker) = std::mem::replace(place, Awaited::Arrived(settlement))
        {
            waker.wake();
        }
    }

    /// Hands a question over. From here on it is settled whether or not anybody still waits.
    pub(crate) fn hand_over(&self, draft: Draft) -> Ticket {
        let ticket = self.ticket();
        self.engine.queue.under_way.fetch_add(1, Ordering::Relaxed);
        self.outbox.borrow_mut().push(Question::new(ticket, draft));
        if let Some(carrier) = self.carrier.borrow_mut().take() {
            carrier.wake();
        }
        ticket
    }

    /// A place for the answer of a question that is handed over later.
    pub(crate) fn expect(&self) -> Ticket {
        self.ticket()
    }

    /// Waits for the answer of a question that somebody else asked.
    ///
    /// To be called under the lock of the books, so that the question cannot be settled in between.
    pub(crate) fn join(&self, key: KeyedRef) -> Ticket {
        let ticket = self.ticket();
        self.engine.post.join(key, ticket);
        ticket
    }

    fn ticket(&self) -> Ticket {
        let number = self.next.replace(self.next.get() + 1);
        self.awaited.borrow_mut().insert(number, Awaited::Nobody);
        Ticket { core: self.core, number }
    }

    /// Waits until the question is settled.
    pub(crate) async fn settled(&self, ticket: Ticket) -> Settlement {
        let _forget = Forget(self, ticket.number);
        poll_fn(|context| {
            let mut awaited = self.awaited.borrow_mut();
            let Some(place) = awaited.get_mut(&ticket.number) else {
                return Poll::Ready(Err(Refusal::Stopped));
            };
            match std::mem::replace(place, Awaited::Waiting(context.waker().clone())) {
                Awaited::Arrived(settlement) => Poll::Ready(settlement),
                Awaited::Nobody | Awaited::Waiting(_) => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Desk {
    /// What was handed over is settled, whoever still waits for it.
    fn drop(&mut self) {
        self.engine.queue.push(self.outbox.get_mut());
    }
}

/// Frees the place of a question when its answer is taken, or when the client has gone.
struct Forget<'a>(&'a Desk, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.awaited.borrow_mut().remove(&self.1);
    }
}

/// The one thread that writes the ledger.
pub(crate) struct Writer {
    pub(crate) engine: Arc<Engine>,
    pub(crate) file: LedgerFile,
    pub(crate) tree: Frontier,
    /// The log is grown to this once, in the background of the first requests.
    pub(crate) grow_log_bytes: usize,
    /// Where the ledger is in a database that nodes share.
    pub(crate) nodes: Option<Nodes>,
}

/// Why a block is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uncommitted {
    /// Some of its questions were answered before, or its rows.
    Answered,
    /// What it charges may be another node's by now: to be decided again.
    Recounted,
    /// Less is left than it takes back.
    Spent,
    /// It cannot be written; see [`Writing`].
    Failed,
}

impl Writer {
    /// Settles until the queue is closed and empty, then keeps a snapshot and a checkpoint.
    pub(crate) fn run(mut self) {
        let (mut grown, began) = (false, Instant::now());
        let mut signed_size = 0;
        let mut signed_at = Instant::now();
        let mut looked_at = None;
        loop {
            let work = self.wait(if grown { CHECKPOINT_EVERY } else { FIRST_PAUSE });
            if looked_at.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY) {
                looked_at = Some(Instant::now());
                self.look_at_disk();
            }
            let (idle, closing) = (work.is_idle(), work.closing);
            if !grown && (idle || began.elapsed() >= CHECKPOINT_EVERY) {
                self.grow();
                grown = true;
            }
            let is_stopped = self.engine.writing() == Writing::Stopped;
            if !is_stopped && self.engine.sharing.as_ref().is_some_and(|sharing| sharing.wants_recount()) {
                self.find_place();
            }
            self.change(work.changes);
            self.record(work.entries);
            let due = signed_at.elapsed() >= CHECKPOINT_EVERY;
            let settled = self.settle(work.questions, due);
            if let Some((draft, done)) = work.bulk {
                // Whoever asked may have gone; it is settled all the same.
                let _ = done.send(self.settle_bulk(draft));
            }
            let closing = closing && idle;
            if idle && (due || closing) && signed_size != self.tree.size() {
                signed_at = Instant::now();
                if self.sign_alone() {
                    signed_size = self.tree.size();
                }
            } else if settled && due {
                signed_at = Instant::now();
                signed_size = self.tree.size();
            }
            self.fold();
            if closing {
                self.snapshot();
                if let Err(error) = self.file.close() {
                    tracing::warn!(%error, "the log could not be folded into the ledger; the next start does it");
                }
                self.engine.queue.end();
                return;
            }
            if self.file.snapshot_is_due() {
                self.snapshot();
            }
        }
    }

    /// Grows the log in the first pause: nobody waits for it at the start.
    fn grow(&mut self) {
        let needed = self.engine.policy().disk_reserve_bytes + 4 * self.grow_log_bytes as u64;
        if self.engine.folder.free_bytes().is_ok_and(|free| free < needed) {
            tracing::warn!("too little of the disk is free to grow the log; commits will be slower");
            return;
        }
        if let Err(error) = self.file.grow(self.grow_log_bytes) {
            tracing::warn!(%error, "the log could not be grown; commits will be slower");
        }
    }

    /// Stops answering while there is still room to end in order, and goes on when there is room again.
    fn look_at_disk(&mut self) {
        let reserve = self.engine.policy().disk_reserve_bytes;
        // A file system that cannot say how much is free is left to fail by itself.
        let free = self.engine.folder.free_bytes().unwrap_or(u64::MAX);
        match self.engine.writing() {
            Writing::Works if free < reserve => {
                tracing::error!(
                    free,
                    reserve,
                    "the disk is nearly full; nothing is answered until there is room"
                );
                self.engine.queue.set_writing(Writing::Full);
            }
            Writing::Full if free >= reserve => match self.file.try_room() {
                Ok(()) => {
                    tracing::info!("the disk has room again; questions are answered again");
                    self.engine.queue.set_writing(Writing::Works);
                }
                Err(StoreError::Full { .. }) => {}
                Err(error) => self.failed(&error),
            },
            _ => {}
        }
    }

    /// What a write that failed means for the next ones.
    fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Full { .. } if self.engine.writing() == Writing::Works => {
                tracing::error!(%error, "nothing is answered until there is room; that is tried every second");
                self.engine.queue.set_writing(Writing::Full);
            }
            StoreError::Full { .. } => {}
            StoreError::Fenced => {
                tracing::error!(%error, "nothing is answered");
                self.engine.queue.set_writing(Writing::Stopped);
            }
            // A failed sync is never retried: what is on the disk is unknown until a restart reads it
            // back.
            error => {
                tracing::error!(%error, "the ledger cannot be written; nothing is answered until a restart");
                self.engine.queue.set_writing(Writing::Stopped);
            }
        }
    }

    /// Nothing is written where nothing may be.
    fn may_write(&self) -> Result<(), StoreError> {
        match self.engine.writing() {
            Writing::Works => Ok(()),
            Writing::Full => Err(LedgerFile::full()),
            Writing::Stopped => Err(StoreError::Stopped),
            // Whoever is in the queue already waits for it.
            Writing::Away => Ok(()),
        }
    }

    fn change(&mut self, changes: Vec<(Change, Done)>) {
        for (change, done) in changes {
            done(self.keep(&change));
        }
    }

    fn keep(&mut self, change: &Change) -> Result<(), StoreError> {
        self.may_write()?;
        let engine = Arc::clone(&self.engine);
        let vault = &engine.vault;
        let kept = match change {
            Change::New(caller, application) => {
                self.file.put(&[Put::Caller(caller), Put::Application(application)], vault)
            }
            Change::Caller(caller) => self.file.put(&[Put::Caller(caller)], vault),
            Change::Application(application) => self.file.put(&[Put::Application(application)], vault),
            Change::Credential(credential) => self.file.put(&[Put::Credential(credential)], vault),
            Change::Revoked(id) => self.file.put(&[Put::Revoked(*id)], vault),
            Change::Resealed => self.file.reseal_credentials(vault),
            Change::Erasure(step) => self.erase(step),
        };
        if let Err(error) = &kept
            && error.is_of_the_disk()
        {
            self.failed(error);
        }
        kept?;
        if let Change::Credential(_) = change {
            // If its limit is another one, what this node had taken of the former is void.
            self.recount();
        }
        // Changed in a copy: reading everybody again, with all secrets to open, would hold up the answers.
        let mut directory = (*self.engine.directory()).clone();
        match change {
            Change::New(caller, application) => {
                directory.put_caller(caller.clone());
                directory.put_application(application.clone());
            }
            Change::Caller(caller) => directory.put_caller(caller.clone()),
            Change::Application(application) => directory.put_application(application.clone()),
            Change::Credential(credential) => directory.put_credential(credential.clone()),
            Change::Revoked(id) => directory.remove_credential(*id),
            Change::Resealed | Change::Erasure(_) => return Ok(()),
        }
        self.engine.replace_directory(directory);
        Ok(())
    }

    /// The callers stay as they are; the stored answers go with the side rows.
    fn erase(&mut self, step: &ErasureStep) -> Result<(), StoreError> {
        let vault = &self.engine.vault;
        match step {
            ErasureStep::Begin(pending) => self.file.begin_erasure(pending, vault),
            ErasureStep::Empty(found) => {
                self.file.empty_sides(found, vault)?;
                let mut books = self.engine.books();
                found.answers.iter().for_each(|key| books.memory.erase(key));
                Ok(())
            }
            ErasureStep::End => self.file.end_erasure(),
        }
    }

    fn wait(&self, at_most: Duration) -> Work {
        let queue = &self.engine.queue;
        let mut waiting = queue.lock();
        let idle = waiting.is_empty();
        if idle && !waiting.closing {
            waiting.asleep = true;
            waiting = queue.bell.wait_timeout(waiting, at_most).unwrap_or_else(PoisonError::into_inner).0;
            waiting.asleep = false;
        }
        let taken = waiting.questions.len().min(BLOCK_ENTRIES_MAX);
        let rest = waiting.questions.split_off(taken);
        Work {
            questions: std::mem::replace(&mut waiting.questions, rest),
            entries: std::mem::take(&mut waiting.entries),
            changes: std::mem::take(&mut waiting.changes),
            // One at a time: those who wait for one answer come in between.
            bulk: waiting.bulks.pop_front(),
            closing: waiting.closing,
        }
    }

    /// One block of entries that are no answers. In a database an entry that takes credits back is alone: it
    /// may be refused.
    fn record(&mut self, entries: Vec<(Entry, Done)>) {
        let takes_back =
            |(entry, _): &(Entry, Done)| matches!(entry, Entry::Payment { amount, .. } if amount.0 < 0);
        let (alone, together): (Vec<_>, Vec<_>) = match self.nodes {
            None => (Vec::new(), entries),
            Some(_) => entries.into_iter().partition(takes_back),
        };
        self.record_block(together);
        alone.into_iter().for_each(|entry| self.record_block(vec![entry]));
    }

    fn record_block(&mut self, entries: Vec<(Entry, Done)>) {
        if entries.is_empty() {
            return;
        }
        let mut sides = vec![Side::default(); entries.len()];
        let committed = loop {
            let mut batch = Batch::new(&self.tree, entries.len());
            for ((entry, _), side) in entries.iter().zip(&mut sides) {
                batch.add(entry, side);
            }
            let may_write = self.may_write().map_err(|_| Uncommitted::Failed);
            let sides: Vec<&Side> = sides.iter().collect();
            match may_write.and_then(|()| self.commit(batch, &sides, false)) {
                // They hold whatever was charged.
                Err(Uncommitted::Recounted) => {}
                committed => break committed,
            }
        };
        if committed.is_ok() {
            let mut books = self.engine.books();
            entries.iter().zip(&sides).for_each(|((entry, _), side)| books.apply(entry, side));
        }
        for (_, done) in entries {
            done(match committed {
                Ok(()) => Ok(()),
                Err(Uncommitted::Spent) => Err(StoreError::Spent),
                Err(_) => self.may_write().and(Err(StoreError::Stopped)),
            });
        }
    }

    /// One block of answers: decide, commit, count, then tell everybody. Gives whether it was committed.
    fn settle(&mut self, mut questions: Vec<Question>, sign: bool) -> bool {
        if questions.is_empty() {
            return false;
        }
        let handed_over = questions.len();
        let is_durable = loop {
            let may_write = self.may_write().is_ok();
            if may_write {
                self.decide(&mut questions);
            } else {
                questions.iter_mut().for_each(|question| question.decided = Err(Refusal::Stopped));
            }
            let mut batch = Batch::new(&self.tree, questions.len());
            for Question { draft, decided, .. } in &mut questions {
                if let Ok(answer) = decided {
                    batch.add(&Entry::Answer(answer.clone()), &mut draft.side);
                    let name = draft.side.idempotency.iter().map(|asked| asked.key);
                    batch.also_known_as.extend(name.flat_map(|name| draft.aliases(name)));
                }
                // Also when it is refused after all: it was paid for.
                for (bought, side) in &mut draft.bought {
                    batch.add(&Entry::Bought(bought.clone()), side);
                }
            }
            let sides: Vec<&Side> = questions.iter().flat_map(Question::sides).collect();
            let committed = if may_write && !sides.is_empty() {
                self.commit(batch, &sides, sign)
            } else {
                Err(Uncommitted::Failed)
            };
            match committed {
                Err(Uncommitted::Answered) => questions = self.tell_answered(questions),
                Err(Uncommitted::Recounted) => {}
                committed => {
                    self.tell(questions, committed.is_ok());
                    break committed.is_ok();
                }
            }
            if questions.is_empty() {
                break false;
            }
        };
        self.engine.queue.under_way.fetch_sub(handed_over, Ordering::Relaxed);
        is_durable
    }

    /// Other nodes were first with some of these: they get the stored answers, and the others are decided
    /// again.
    fn tell_answered(&mut self, questions: Vec<Question>) -> Vec<Question> {
        let keys: Vec<KeyedRef> =
            questions.iter().flat_map(|question| question.draft.known_as()).map(|asked| asked.key).collect();
        let known = match self.file.answered(&keys, self.engine.clock.now_ms()) {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "stored answers cannot be read; the questions are refused");
                self.tell(questions, false);
                return Vec::new();
            }
        };
        let (mut told, mut rest) = (Vec::new(), Vec::new());
        let mut bought: Vec<(Entry, Done)> = Vec::new();
        let mut books = self.engine.books();
        for mut question in questions {
            let stored = question
                .draft
                .known_as()
                .find_map(|asked| known.iter().find(|stored| stored.key == asked.key).zip(Some(*asked)));
            let Some((stored, asked)) = stored else {
                rest.push(question);
                continue;
            };
            let settlement = match stored.payload == asked.payload {
                true => Ok(Settled { answer: stored.answer.clone(), replayed: true, differs: None }),
                false => Err(Refusal::KeyReused),
            };
            books.settle(&question.draft, None);
            if let (Some(sharing), Some((refs, _))) = (&self.engine.sharing, &question.draft.attempts) {
                // It was counted there, too.
                sharing.give_back(refs);
            }
            let first = question.draft.side.idempotency.map(|asked| asked.key);
            let twins = first.map_or(Vec::new(), |first| self.engine.post.twins_of(&first)).into_iter();
            told.extend(twins.map(|twin| (twin, replayed(&settlement))));
            told.push((question.ticket, settlement));
            let paid = question.draft.bought.drain(..).map(|(paid, _)| Entry::Bought(paid));
            bought.extend(paid.map(|paid| (paid, Box::new(|_| {}) as Done)));
        }
        drop(books);
        self.engine.post.deliver(told);
        // What was bought in vain was paid for all the same; where it cannot be kept, the next start finds it.
        self.record_block(bought);
        rest
    }

    fn decide(&self, questions: &mut [Question]) {
        let now = self.engine.clock.now_ms();
        let mut pending = Pending::default();
        let books = self.engine.books();
        for Question { draft, decided, .. } in questions {
            *decided = books.decide(&mut pending, draft, now).map_err(Refusal::from);
        }
    }

    /// Gives back what was held, counts what is durable, and tells everybody who waits, also those who
    /// joined a question under way.
    fn tell(&self, mut questions: Vec<Question>, durable: bool) {
        let mut told = Vec::with_capacity(questions.len());
        let mut books = self.engine.books();
        for Question { ticket, draft, decided } in &mut questions {
            let settlement = match std::mem::replace(decided, Err(Refusal::Stopped)) {
                Ok(_) if !durable => Err(Refusal::Stopped),
                decided => decided.map(|answer| Settled { answer, replayed: false, differs: None }),
            };
            books.settle(draft, settlement.as_ref().ok().map(|settled| &settled.answer));
            draft.bought.iter().filter(|_| durable).for_each(|(bought, _)| books.spending.bought(bought));
            if let Some(asked) = &draft.side.idempotency {
                let twins = self.engine.post.twins_of(&asked.key).into_iter();
                told.extend(twins.map(|twin| (twin, replayed(&settlement))));
            }
            told.push((*ticket, settlement));
        }
        drop(books);
        self.engine.post.deliver(told);
        // Their memory is given back here, when nobody waits for the books or for this any more.
        drop(questions);
    }

    /// One block with the answers of many rows: decide, commit, count.
    fn settle_bulk(&mut self, mut draft: BulkDraft) -> Result<Answers, Unsettled> {
        let settled = loop {
            let decided = self.may_write().map_err(|_| Refusal::Stopped);
            let decided = decided.and_then(|()| self.decide_bulk(&mut draft));
            let committed = decided.map_err(Unsettled::from).map(|bulk| {
                let consent = draft.purpose.as_ref().map(|purpose| purpose.consent.clone());
                let side = Side { consent, bulk: Some(draft.side()), ..Side::default() };
                self.commit_bulk(bulk, side)
            });
            match committed {
                Err(refused) => break Err(refused),
                Ok(Ok(bulk)) => break Ok(bulk),
                Ok(Err(Uncommitted::Recounted)) => {}
                Ok(Err(Uncommitted::Answered)) => break Err(Unsettled::Elsewhere),
                Ok(Err(_)) => break Err(Refusal::Stopped.into()),
            }
        };
        let engine = Arc::clone(&self.engine);
        for rows in draft.counted() {
            let mut books = engine.books();
            for (refs, policy, outcome) in rows {
                books.attempts.release(refs, policy);
                if settled.is_ok() {
                    books.attempts.settle(refs, outcome);
                }
            }
        }
        let mut books = engine.books();
        books.release(&draft.application, draft.held());
        books.release_limit(draft.credential, draft.held());
        let bulk = settled?;
        books.count_bulk(&bulk);
        Ok(Answers { outcomes: draft.outcomes, price: draft.price, replayed: false })
    }

    /// What the rows come to at this moment; a pair that was locked meanwhile is answered so.
    fn decide_bulk(&self, draft: &mut BulkDraft) -> Result<Bulk, Refusal> {
        let mut pending = Pending::default();
        let books = self.engine.books();
        if let Some((policy, all)) = &draft.attempts {
            for (outcome, refs) in draft.outcomes.iter_mut().zip(all) {
                let Some((found, refs)) = outcome.as_mut().zip(refs.as_ref()) else { continue };
                if pending.run(&books.attempts, refs).is_some_and(|run| policy.locks(run)) {
                    *found = Outcome::AttemptsExceeded;
                }
                pending.count_attempt(&books.attempts, refs, *found);
            }
        }
        let sums = draft.sums();
        let charged: i64 = sums.iter().map(|sum| sum.charged.0).sum();
        let before = books.own_balance(&draft.application);
        if before.is_some_and(|before| before.0 < charged) {
            return Err(Refusal::Arrears);
        }
        let left = draft.limit.map(|limit| books.chargeable(draft.credential, limit, &pending));
        if left.is_some_and(|left| left.0 < charged) {
            return Err(Refusal::LimitReached);
        }
        let elsewhere = books.elsewhere(draft.application.id);
        Ok(Bulk {
            job: draft.job,
            at_ms: self.engine.clock.now_ms(),
            application: draft.application.id,
            credential: draft.credential,
            wire: draft.wire,
            action: draft.action,
            first_row: draft.first_row,
            rows: draft.outcomes.len() as u64,
            sums,
            price: draft.price,
            balance: before.map(|before| Credits(before.0 - charged + elsewhere.0)),
            digest: draft.rows,
            purpose: draft.purpose.as_ref().map(|purpose| purpose.code.clone()),
        })
    }

    fn commit_bulk(&mut self, mut bulk: Bulk, mut side: Side) -> Result<Bulk, Uncommitted> {
        if let Some(answers) = &side.bulk {
            bulk.digest = crate::bulk::digest(&answers.opening, &bulk.digest, &answers.answers);
        }
        let mut batch = Batch::new(&self.tree, 1);
        batch.add(&Entry::Bulk(bulk.clone()), &mut side);
        batch.rows = Some((bulk.job, bulk.first_row, bulk.rows));
        self.commit(batch, &[&side], false).map(|()| bulk)
    }

    fn commit(&mut self, batch: Batch, sides: &[&Side], sign: bool) -> Result<(), Uncommitted> {
        let at_ms = self.engine.clock.now_ms();
        let checkpoint = sign.then(|| self.checkpoint(&batch.tree, at_ms));
        let commit = Commit {
            block: &batch.block,
            sides,
            side_rows: &batch.side_rows,
            tree: &batch.tree,
            also_known_as: &batch.also_known_as,
            checkpoint: checkpoint.as_ref(),
            rows: batch.rows,
            at_ms,
        };
        self.append(&commit)?;
        self.tree = batch.tree;
        self.engine.metrics.blocks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a block durable. A database that is away is waited for: what became of the block can be found
    /// out there, and only there.
    fn append(&mut self, commit: &Commit<'_>) -> Result<(), Uncommitted> {
        let mut given_up = None;
        loop {
            let error = match self.file.append(commit, &self.engine.vault) {
                Ok(()) => {
                    // Each commit is a sign of life.
                    self.engine.sharing.iter().for_each(|sharing| sharing.lives());
                    return Ok(());
                }
                Err(StoreError::Answered) => return Err(Uncommitted::Answered),
                Err(StoreError::Spent) => return Err(Uncommitted::Spent),
                // Others were in the way; nothing was changed.
                Err(error) if error.is_in_the_way() => continue,
                Err(error) => error,
            };
            if self.nodes.is_none() || !(error.is_away() || matches!(error, StoreError::Fenced)) {
                self.failed(&error);
                return Err(Uncommitted::Failed);
            }
            match self.find_out(commit, &error, &mut given_up)? {
                LookedBack::Appended { was_buried } => {
                    if was_buried {
                        // Before the next question is decided, and after these are counted.
                        self.recount_later();
                    }
                    return Ok(());
                }
                LookedBack::Absent => {}
                LookedBack::Buried => return Err(Uncommitted::Recounted),
            }
        }
    }

    /// Asks until there is an answer what became of a block; meanwhile nothing new is taken on.
    fn find_out(
        &mut self,
        commit: &Commit<'_>,
        error: &StoreError,
        given_up: &mut Option<Instant>,
    ) -> Result<LookedBack, Uncommitted> {
        if error.is_away() && self.engine.writing() == Writing::Works {
            tracing::error!(%error, "the database is away; nothing is answered until it is back");
            self.engine.queue.set_writing(Writing::Away);
        }
        loop {
            match self.file.look_back(Some(commit)) {
                Ok(found) => {
                    self.is_back();
                    if found == LookedBack::Buried {
                        self.recount();
                    }
                    return Ok(found);
                }
                Err(error) if error.is_away() || error.is_in_the_way() => {}
                Err(error) => {
                    self.failed(&error);
                    return Err(Uncommitted::Failed);
                }
            }
            let since = self.engine.queue.is_closed().then(|| *given_up.get_or_insert_with(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= CLOSING_MOST) {
                // The next start finds out.
                self.engine.queue.set_writing(Writing::Stopped);
                return Err(Uncommitted::Failed);
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn is_back(&self) {
        if self.engine.writing() == Writing::Away {
            tracing::info!("the database is back; questions are answered again");
            self.engine.queue.set_writing(Writing::Works);
        }
    }

    /// Makes sure that this node has its place, and of balances what it thinks it has.
    fn find_place(&mut self) {
        match self.file.look_back(None) {
            Ok(_) => {
                self.is_back();
                self.recount();
            }
            Err(error) if error.is_away() || error.is_in_the_way() => self.recount_later(),
            Err(error) => self.failed(&error),
        }
    }

    /// Counts what this node has taken anew. No commit is under way: this thread makes them.
    fn recount(&mut self) {
        let engine = Arc::clone(&self.engine);
        let (Some(sharing), Some(nodes)) = (&engine.sharing, &mut self.nodes) else { return };
        let _nobody_takes = sharing.purses();
        let counted = nodes.slices(&sharing.lease).and_then(|slices| {
            engine.books().share_out(&slices, true);
            // For the questions under way; where there is not so much any more, some are refused.
            let overdrawn = engine.books().overdrawn();
            overdrawn.into_iter().try_for_each(|(purse, lacking)| {
                let taken = nodes.take(&sharing.lease, purse, (1, lacking), sharing.alive())?;
                engine.books().take_slice(purse, taken);
                Ok(())
            })
        });
        if let Err(error) = counted {
            // What may not be there any more is not spent.
            engine.books().share_out(&[], true);
            tracing::warn!(%error, "balances cannot be counted; it is tried again");
            sharing.recount_later();
        }
    }

    fn recount_later(&self) {
        if let Some(sharing) = &self.engine.sharing {
            sharing.recount_later();
        }
    }

    fn checkpoint(&self, tree: &Frontier, at_ms: i64) -> Checkpoint {
        let (size, root) = (tree.size(), tree.root());
        let message = Checkpoint::message(size, &root, at_ms);
        let (key, signature) = self.engine.vault.keys().sign(message.as_bytes());
        Checkpoint { size, root, at_ms, signature, key }
    }

    fn sign_alone(&mut self) -> bool {
        if self.may_write().is_err() {
            return false;
        }
        let checkpoint = self.checkpoint(&self.tree, self.engine.clock.now_ms());
        let kept = self.file.save_checkpoint(&checkpoint);
        if let Err(error) = &kept {
            tracing::warn!(%error, "the audit checkpoint could not be kept; it is tried again");
            if error.is_of_the_disk() {
                self.failed(error);
            }
        }
        kept.is_ok()
    }

    /// Folds the log into the file when it has grown, after the answers have left.
    fn fold(&mut self) {
        if let Err(error) = self.file.fold_when_due() {
            tracing::warn!(%error, "the log could not be folded into the ledger; it grows meanwhile");
            if !matches!(error, StoreError::Full { .. }) {
                self.failed(&error);
            }
        }
    }

    fn snapshot(&mut self) {
        if self.may_write().is_err() {
            return;
        }
        // Only the encoding needs the books: sealing and writing must not hold everybody up.
        let state = encoded(&(&self.tree, &*self.engine.books()));
        if let Err(error) = self.file.save_snapshot(&state, self.engine.clock.now_ms(), &self.engine.vault) {
            tracing::warn!(%error, "the snapshot could not be kept; the next start takes longer");
            if !matches!(error, StoreError::Full { .. }) {
                self.failed(&error);
            }
        }
    }
}

struct Work {
    questions: Vec<Question>,
    entries: Vec<(Entry, Done)>,
    changes: Vec<(Change, Done)>,
    bulk: Option<(BulkDraft, BulkDone)>,
    closing: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.questions.is_empty()
            && self.entries.is_empty()
            && self.changes.is_empty()
            && self.bulks.is_empty()
    }
}

impl Work {
    fn is_idle(&self) -> bool {
        self.questions.is_empty() && self.entries.is_empty() && self.changes.is_empty() && self.bulk.is_none()
    }
}

/// What one commit will make durable, and the tree after it.
struct Batch {
    block: Block,
    side_rows: SideRows,
    tree: Frontier,
    /// See [`Commit::also_known_as`].
    also_known_as: Vec<(KeyedRef, IdempotencyRef)>,
    /// Job, first row and number of the rows it settles.
    rows: Option<(JobId, u64, u64)>,
}

impl Batch {
    fn new(tree: &Frontier, entries: usize) -> Batch {
        Batch {
            block: Block::new(tree.size(), entries),
            side_rows: SideRows::with_room_for(entries),
            tree: tree.clone(),
            also_known_as: Vec::new(),
            rows: None,
        }
    }

    fn add(&mut self, entry: &Entry, side: &mut Side) {
        self.block.push(entry, side, &mut self.tree, &mut self.side_rows);
    }
}

/// A question, and what is answered once that is durable. A large thing, and decided in its place.
struct Question {
    ticket: Ticket,
    draft: Draft,
    decided: Result<Answer, Refusal>,
}

impl Question {
    fn new(ticket: Ticket, draft: Draft) -> Question {
        Question { ticket, draft, decided: Err(Refusal::Stopped) }
    }

    /// What goes into the commit: of the answer nothing when it is refused, then of what was bought.
    fn sides(&self) -> impl Iterator<Item = &Side> {
        let answer = self.decided.is_ok().then_some(&self.draft.side);
        answer.into_iter().chain(self.draft.bought.iter().map(|(_, side)| side))
    }
}

impl From<Uncovered> for Refusal {
    fn from(uncovered: Uncovered) -> Refusal {
        match uncovered {
            Uncovered::Balance => Refusal::Arrears,
            Uncovered::Limit => Refusal::LimitReached,
        }
    }
}

fn replayed(settlement: &Settlement) -> Settlement {
    settlement.clone().map(|settled| Settled { replayed: true, ..settled })
}

impl Engine {
    /// Makes an entry durable that is no answer, without keeping a core waiting.
    pub(crate) fn keep(&self, entry: Entry) -> impl Future<Output = Result<(), StoreError>> + use<> {
        self.queue.keep(entry)
    }

    /// Hands over a question whose answer is expected already; see [`Desk::expect`].
    pub(crate) fn hand_over_late(&self, ticket: Ticket, draft: Draft) {
        self.queue.under_way.fetch_add(1, Ordering::Relaxed);
        self.queue.push(&mut vec![Question::new(ticket, draft)]);
    }

    /// Tells whoever expects an answer that there will be none; nothing is recorded or charged.
    pub(crate) fn refuse(&self, ticket: Ticket, draft: &Draft, refusal: Refusal) {
        let mut told = vec![(ticket, Err(refusal))];
        let mut books = self.books();
        books.settle(draft, None);
        if let Some(asked) = &draft.side.idempotency {
            told.extend(self.post.twins_of(&asked.key).into_iter().map(|twin| (twin, Err(refusal))));
        }
        drop(books);
        self.post.deliver(told);
    }

    /// A question that was begun was answered before, at another node: whoever joined it is told the same.
    pub(crate) fn recalled(&self, key: &KeyedRef, settlement: &Settlement) {
        self.books().memory.forget(key);
        let twins = self.post.twins_of(key).into_iter().map(|twin| (twin, settlement.clone()));
        self.post.deliver(twins.collect());
    }

    /// A question that was begun will not be asked after all: whoever joined it is refused.
    pub(crate) fn forget(&self, key: &KeyedRef) {
        self.books().memory.forget(key);
        let twins = self.post.twins_of(key).into_iter().map(|twin| (twin, Err(Refusal::Stopped)));
        self.post.deliver(twins.collect());
    }
}
