//! From "this is the answer" to "it is durable": one thread writes what all cores hand over.
//!
//! What costs most is not work but waking another thread. So everything that waits is settled in one
//! block, and each core is woken once per block, not once per request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::Engine;
use crate::audit::{Checkpoint, Frontier};
use crate::caller::{Application, Caller, Credential, CredentialId};
use crate::ledger::{Answer, Block, Draft, Entry, Side, encoded};
use crate::store::Commit;
use crate::store::{Accounts, LedgerFile, StoreError};
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

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    /// Questions handed over and not yet settled.
    pub(crate) under_way: AtomicUsize,
    /// A commit failed: nothing is answered any more until a restart.
    pub(crate) stopped: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    drafts: Vec<(Ticket, Draft)>,
    entries: Vec<(Entry, SyncSender<bool>)>,
    changes: Vec<(Change, SyncSender<Result<(), StoreError>>)>,
    closing: bool,
    asleep: bool,
}

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
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only pushes and swaps happen under this lock; a panic cannot leave it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, ticket: Ticket, draft: Draft) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lock();
        waiting.drafts.push((ticket, draft));
        self.ring(&mut waiting);
    }

    /// Makes an entry durable that is no answer; waits for it.
    pub(crate) fn record(&self, entry: Entry) -> bool {
        let (done, settled) = std::sync::mpsc::sync_channel(1);
        let mut waiting = self.lock();
        waiting.entries.push((entry, done));
        self.ring(&mut waiting);
        drop(waiting);
        settled.recv().unwrap_or(false)
    }

    /// Makes a change of callers durable and known to everybody; waits for it.
    pub(crate) fn change(&self, change: Change) -> Result<(), StoreError> {
        let (done, kept) = std::sync::mpsc::sync_channel(1);
        let mut waiting = self.lock();
        waiting.changes.push((change, done));
        self.ring(&mut waiting);
        drop(waiting);
        kept.recv().unwrap_or_else(|_| Err(StoreError::Stopped))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closing
    }

    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closing = true;
        self.ring(&mut waiting);
    }

    fn ring(&self, waiting: &mut Waiting) {
        if waiting.asleep {
            waiting.asleep = false;
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
/// Stays on its thread; [`Desk::read_mail`] must run there for answers to arrive.
pub struct Desk {
    /// The engine it belongs to.
    pub engine: Arc<Engine>,
    pub(crate) accounts: Accounts,
    core: usize,
    mailbox: Arc<Mailbox>,
    next: Cell<u64>,
    awaited: RefCell<HashMap<u64, Awaited>>,
}

enum Awaited {
    Nobody,
    Waiting(Waker),
    Arrived(Settlement),
}

impl Desk {
    pub(crate) fn new(engine: Arc<Engine>, accounts: Accounts) -> Desk {
        let (core, mailbox) = engine.post.open_box();
        Desk { engine, accounts, core, mailbox, next: Cell::new(0), awaited: RefCell::default() }
    }

    /// Hands settlements to those who wait for them, for ever.
    pub async fn read_mail(&self) {
        loop {
            let letters = poll_fn(|context| {
                let mut mail = self.mailbox.lock();
                if mail.letters.is_empty() {
                    mail.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(std::mem::take(&mut mail.letters))
            })
            .await;
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
        self.engine.queue.push(ticket, draft);
        ticket
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
}

impl Writer {
    /// Settles until the queue is closed and empty, then keeps a snapshot and a checkpoint.
    pub(crate) fn run(mut self) {
        let (mut grown, began) = (false, Instant::now());
        let mut signed_size = 0;
        let mut signed_at = Instant::now();
        loop {
            let mut work = self.wait(if grown { CHECKPOINT_EVERY } else { FIRST_PAUSE });
            for (change, done) in std::mem::take(&mut work.changes) {
                // Whoever asked may have gone.
                let _ = done.send(self.keep(&change));
            }
            let idle = work.is_idle();
            if !grown && (idle || began.elapsed() >= CHECKPOINT_EVERY) {
                self.grow();
                grown = true;
            }
            let due = signed_at.elapsed() >= CHECKPOINT_EVERY;
            let closing = work.closing && idle;
            if idle {
                if (due || closing) && signed_size != self.tree.size() {
                    signed_at = Instant::now();
                    if self.sign_alone() {
                        signed_size = self.tree.size();
                    }
                }
            } else if self.settle(work, due) && due {
                signed_size = self.tree.size();
                signed_at = Instant::now();
            }
            if closing {
                self.snapshot();
                if let Err(error) = self.file.close() {
                    tracing::warn!(%error, "the log could not be folded into the ledger; the next start does it");
                }
                return;
            }
            if self.file.snapshot_is_due() {
                self.snapshot();
            }
        }
    }

    /// Grows the log in the first pause: nobody waits for it at the start.
    fn grow(&mut self) {
        if let Err(error) = self.file.grow(self.grow_log_bytes) {
            tracing::warn!(%error, "the log could not be grown; commits will be slower");
        }
    }

    fn keep(&mut self, change: &Change) -> Result<(), StoreError> {
        if self.engine.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let vault = &self.engine.vault;
        match change {
            Change::New(caller, application) => self.file.put_new(caller, application)?,
            Change::Caller(caller) => self.file.put_caller(caller)?,
            Change::Application(application) => self.file.put_application(application)?,
            Change::Credential(credential) => self.file.put_credential(credential, vault)?,
            Change::Revoked(id) => self.file.revoke_credential(*id)?,
        }
        self.engine.replace_directory(self.file.directory(vault)?);
        Ok(())
    }

    fn wait(&self, at_most: Duration) -> Work {
        let queue = &self.engine.queue;
        let mut waiting = queue.lock();
        let idle = waiting.drafts.is_empty() && waiting.entries.is_empty() && waiting.changes.is_empty();
        if idle && !waiting.closing {
            waiting.asleep = true;
            waiting = queue.bell.wait_timeout(waiting, at_most).unwrap_or_else(PoisonError::into_inner).0;
            waiting.asleep = false;
        }
        let taken = waiting.drafts.len().min(BLOCK_ENTRIES_MAX);
        let rest = waiting.drafts.split_off(taken);
        Work {
            drafts: std::mem::replace(&mut waiting.drafts, rest),
            entries: std::mem::take(&mut waiting.entries),
            changes: std::mem::take(&mut waiting.changes),
            closing: waiting.closing,
        }
    }

    /// One block: decide, commit, then tell everybody. Gives whether it was committed.
    fn settle(&mut self, work: Work, sign: bool) -> bool {
        let handed_over = work.drafts.len();
        let committed = self.try_settle(work, sign);
        self.engine.queue.under_way.fetch_sub(handed_over, Ordering::Relaxed);
        committed
    }

    fn try_settle(&mut self, work: Work, sign: bool) -> bool {
        let now = self.engine.clock.now_ms();
        let mut batch = Batch::new(self.tree.size());
        let mut tree = self.tree.clone();
        let stopped = self.engine.is_stopped();
        if stopped {
            batch.refuse(work);
        } else {
            batch.decide(&self.engine, work, &mut tree, now);
            if batch.block.entries.is_empty() {
                batch.tell(&self.engine, true);
                return false;
            }
            match self.commit(&batch, &tree, sign, now) {
                Ok(()) => {
                    self.tree = tree;
                    self.engine.metrics.blocks.fetch_add(1, Ordering::Relaxed);
                    batch.tell(&self.engine, true);
                    return true;
                }
                Err(error) => {
                    // A failed sync is never retried: what is on the disk is unknown until a restart
                    // reads it back.
                    tracing::error!(%error, "the ledger cannot be written; nothing is answered until a restart");
                    self.engine.queue.stopped.store(true, Ordering::SeqCst);
                }
            }
        }
        batch.tell(&self.engine, false);
        false
    }

    fn commit(&mut self, batch: &Batch, tree: &Frontier, sign: bool, now: i64) -> Result<(), StoreError> {
        let checkpoint = sign.then(|| self.checkpoint(tree, now));
        let commit = Commit {
            block: &batch.block,
            sides: &batch.sides,
            tree,
            checkpoint: checkpoint.as_ref(),
            at_ms: now,
        };
        self.file.append(&commit, &self.engine.vault)
    }

    fn checkpoint(&self, tree: &Frontier, at_ms: i64) -> Checkpoint {
        let (size, root) = (tree.size(), tree.root());
        let signature = self.engine.vault.sign(Checkpoint::message(size, &root, at_ms).as_bytes());
        Checkpoint { size, root, at_ms, signature }
    }

    fn sign_alone(&mut self) -> bool {
        let checkpoint = self.checkpoint(&self.tree, self.engine.clock.now_ms());
        let kept = self.file.save_checkpoint(&checkpoint);
        if let Err(error) = &kept {
            tracing::warn!(%error, "the audit checkpoint could not be kept; it is tried again");
        }
        kept.is_ok()
    }

    fn snapshot(&mut self) {
        if self.engine.is_stopped() {
            return;
        }
        // Only the encoding needs the books: sealing and writing must not hold everybody up.
        let state = encoded(&(&self.tree, &*self.engine.books()));
        if let Err(error) = self.file.save_snapshot(&state, &self.engine.vault) {
            tracing::warn!(%error, "the snapshot could not be kept; the next start takes longer");
        }
    }
}

struct Work {
    drafts: Vec<(Ticket, Draft)>,
    entries: Vec<(Entry, SyncSender<bool>)>,
    changes: Vec<(Change, SyncSender<Result<(), StoreError>>)>,
    closing: bool,
}

impl Work {
    fn is_idle(&self) -> bool {
        self.drafts.is_empty() && self.entries.is_empty() && self.changes.is_empty()
    }
}

/// What one commit will make durable, and who waits for it.
struct Batch {
    block: Block,
    sides: Vec<Side>,
    settled: Vec<(Ticket, Option<KeyedRef>, Settlement)>,
    recorded: Vec<SyncSender<bool>>,
}

impl Batch {
    fn new(first_leaf: u64) -> Batch {
        let block = Block { first_leaf, entries: Vec::new() };
        Batch { block, sides: Vec::new(), settled: Vec::new(), recorded: Vec::new() }
    }

    fn decide(&mut self, engine: &Engine, work: Work, tree: &mut Frontier, now: i64) {
        let mut books = engine.books();
        for (entry, done) in work.entries {
            books.apply(&entry, &Side::default());
            self.add(&entry, Side::default(), tree);
            self.recorded.push(done);
        }
        for (ticket, mut draft) in work.drafts {
            let settlement = books.settle(&mut draft, now);
            let side = std::mem::take(&mut draft.side);
            let asked = side.idempotency.map(|asked| asked.key);
            let settlement = match settlement {
                Err(_) => Err(Refusal::Arrears),
                Ok(entry) => {
                    self.add(&entry, side, tree);
                    answered(entry)
                }
            };
            self.settled.push((ticket, asked, settlement));
        }
    }

    fn add(&mut self, entry: &Entry, mut side: Side, tree: &mut Frontier) {
        self.block.push(entry, &mut side, tree);
        self.sides.push(side);
    }

    fn refuse(&mut self, work: Work) {
        let refused = |(ticket, draft): (Ticket, Draft)| {
            (ticket, draft.side.idempotency.map(|asked| asked.key), Err(Refusal::Stopped))
        };
        self.settled.extend(work.drafts.into_iter().map(refused));
        self.recorded.extend(work.entries.into_iter().map(|(_, done)| done));
    }

    /// Tells everybody who waits, and those who joined a question under way.
    fn tell(self, engine: &Engine, durable: bool) {
        let mut told = Vec::with_capacity(self.settled.len());
        let mut books = engine.books();
        for (ticket, asked, settlement) in self.settled {
            let settlement = if durable { settlement } else { Err(Refusal::Stopped) };
            if let Some(key) = asked {
                books.memory.over(&key, settlement.is_ok());
                let joined = replayed(&settlement);
                told.extend(engine.post.twins_of(&key).into_iter().map(|twin| (twin, joined.clone())));
            }
            told.push((ticket, settlement));
        }
        drop(books);
        engine.post.deliver(told);
        for done in self.recorded {
            // Whoever asked may have gone.
            let _ = done.send(durable);
        }
    }
}

fn replayed(settlement: &Settlement) -> Settlement {
    settlement.clone().map(|settled| Settled { replayed: true, ..settled })
}

impl Engine {
    /// A question that was begun will not be asked after all: whoever joined it is refused.
    pub(crate) fn forget(&self, key: &KeyedRef) {
        self.books().memory.over(key, false);
        let twins = self.post.twins_of(key).into_iter().map(|twin| (twin, Err(Refusal::Stopped)));
        self.post.deliver(twins.collect());
    }
}

fn answered(entry: Entry) -> Settlement {
    match entry {
        Entry::Answer(answer) => Ok(Settled { answer, replayed: false, differs: None }),
        Entry::Grant { .. } | Entry::SandboxReset { .. } => Err(Refusal::Stopped),
    }
}
