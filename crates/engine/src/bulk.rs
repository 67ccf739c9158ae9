//! Many questions at once: the rows of a file or of a stream.
//!
//! Looking rows up is anybody's work, on any core ([`Judge`]). Settling them is done in their order,
//! a block of rows in one durable commit: one ledger entry with the answers of each outcome, what they
//! cost, and a hash over the rows ([`Session::settle`]). The answers themselves are in the entry's sealed
//! side row, so that a job that was interrupted is gone on with: what was settled is told again, and
//! nothing is charged twice.
//!
//! A file asks the accounts of record and nobody else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Engine;
use crate::action::{Action, Element};
use crate::audit::Hash;
use crate::caller::{Application, ApplicationId, Credential, CredentialId, Purpose, Standing, Wire};
use crate::claim::ClaimText;
use crate::clock::Millis;
use crate::ledger::{Answer, Credits};
use crate::limit::{AttemptPolicy, AttemptRefs, Attempts, UsedUp};
use crate::node::{self, Sharing};
use crate::outcome::{self, Outcome};
use crate::settle::Writing;
use crate::store::{Accounts, Counter, LedgerReader, Nodes, Purse, StoreError};
use crate::subject::{self, ParseOptions, Subject};
use crate::vault::{Elements, Wiped, nonce, wipe};
use crate::verify::{Refusal, all_on_record, elements_of, on_record};

/// Tells a job from all others; made by whoever begins it.
pub type JobId = [u8; 16];

/// Rows settled in one commit at most. More would hold up who waits for one answer.
pub const BLOCK_ROWS: usize = 16_384;

/// Rows that are looked up together, one kind of work after the other: as many as stay in a core's own cache.
const NEAR: usize = 512;

/// Jobs under way at most: each has threads, and rows in memory.
const JOBS_MAX: usize = 32;

/// Rows whose attempts are counted without letting others in between.
const COUNTED_AT_ONCE: usize = 512;

/// How long rows wait for credits that other nodes have taken: what those do not need comes back by then.
const OTHERS_MOST: Duration = Duration::from_secs(4);

/// The record of many answered rows. Tells about nobody: the answers are in [`BulkSide`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Which job.
    pub job: JobId,
    /// When they were settled, Unix milliseconds.
    pub at_ms: Millis,
    /// Who pays.
    pub application: ApplicationId,
    /// Which credential asked.
    pub credential: CredentialId,
    /// Over which wire.
    pub wire: Wire,
    /// What was asked.
    pub action: Action,
    /// The first of the rows, counted in its job from 0.
    pub first_row: u64,
    /// How many rows; those that could not be asked are among them, and in no sum.
    pub rows: u64,
    /// Answers by outcome, in the order of their numbers.
    pub sums: Vec<BulkSum>,
    /// Price of a charged answer.
    pub price: Credits,
    /// The balance afterwards; `None`: unlimited.
    pub balance: Option<Credits>,
    /// Over the rows and their answers; see [`digest`].
    pub digest: Hash,
    /// Why it was asked; a word of the operator's.
    pub purpose: Option<String>,
}

/// How often one outcome was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkSum {
    /// What was answered.
    pub outcome: Outcome,
    /// How often.
    pub answers: u64,
    /// What that was charged in all.
    pub charged: Credits,
}

impl Bulk {
    /// What all rows were charged.
    pub fn charged(&self) -> Credits {
        Credits(self.sums.iter().map(|sum| sum.charged.0).sum())
    }

    /// The sums as answers, each with how often it was given, for whoever counts by outcome: the request is the
    /// job's number, what was charged is that of all of them.
    pub fn by_outcome(&self) -> impl Iterator<Item = (Answer, u64)> + '_ {
        self.sums.iter().map(|sum| {
            let answer = Answer {
                request: self.job,
                at_ms: self.at_ms,
                application: self.application,
                credential: self.credential,
                wire: self.wire,
                action: self.action,
                outcome: sum.outcome,
                row: outcome::Row::SCRIPT,
                name_class: None,
                charged: sum.charged,
                balance: self.balance,
                elapsed_us: 0,
                purpose: self.purpose.clone(),
                reasons: None,
                attempts_left: None,
            };
            (answer, sum.answers)
        })
    }

    /// How many rows were answered.
    pub fn answers(&self) -> u64 {
        self.sums.iter().map(|sum| sum.answers).sum()
    }
}

/// What belongs to a [`Bulk`] and can be erased: each row's answer, and what was counted of it today.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkSide {
    /// Hides the rows behind the hash.
    pub opening: [u8; 16],
    /// Number of each row's outcome; [`NOT_ASKED`] where it could not be asked.
    pub answers: Vec<u8>,
    /// By row; empty where nothing is counted.
    pub attempts: Vec<Option<AttemptRefs>>,
}

/// In place of an outcome: the row is no question.
pub const NOT_ASKED: u8 = u8::MAX;

impl BulkSide {
    /// Each row's outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = Option<Outcome>> + '_ {
        self.answers.iter().map(|answer| Outcome::ALL.get(usize::from(*answer)).copied())
    }

    /// What was counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &AttemptRefs> {
        self.attempts.iter().flatten()
    }
}

/// The hash over rows and their answers: `SHA-256(opening || SHA-256(rows) || answers)`, the rows as
/// [`Rows::digest`] takes them, an answer as a byte.
pub fn digest(opening: &[u8; 16], rows: &Hash, answers: &[u8]) -> Hash {
    Sha256::new().chain_update(opening).chain_update(rows).chain_update(answers).finalize().into()
}

/// The columns of a row, in their order.
pub const COLUMNS: [&str; 5] = ["bank_card", "name", "id_type", "id_number", "phone"];

/// Rows, in memory that is wiped: they are people's data. They stand in the text of a file, which others may hold
/// too, or have text of their own. Does not print.
#[derive(Default)]
pub struct Rows {
    file: Arc<Wiped>,
    own: Wiped,
    /// Where each column of a row is; all [`NO_QUESTION`] for a row that cannot be asked.
    places: Vec<[Place; COLUMNS.len()]>,
}

/// Where a value is: in the text of the file, or as far behind its end in the rows' own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    bytes: u32,
}

const NO_QUESTION: Place = Place { start: u32::MAX, bytes: u32::MAX };

/// Bytes of rows that are hashed in one go.
const HASHED_AT_ONCE: usize = 16 << 10;

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({}, …)", self.places.len())
    }
}

/// The elements of one row as they were sent, in the order of [`COLUMNS`].
pub type Row<'a> = [&'a str; COLUMNS.len()];

/// The same as bytes, which are text.
type RowBytes<'a> = [&'a [u8]; COLUMNS.len()];

impl Rows {
    /// None yet, with room for so many that stand in this text, of less than 4 GiB.
    pub fn of_file(file: Arc<Wiped>, rows: usize) -> Rows {
        Rows { file, own: Wiped::default(), places: Vec::with_capacity(rows) }
    }

    /// Adds a question.
    pub fn push(&mut self, row: Row<'_>) {
        let places = row.map(|value| self.keep(value));
        self.push_at(places);
    }

    /// Adds a question whose columns are there; in the text of the file, or where [`Rows::keep`] has put them.
    /// One of which any is not text cannot be asked.
    pub fn push_at(&mut self, places: [Range<usize>; COLUMNS.len()]) {
        let places = places.map(|at| Place { start: at.start as u32, bytes: at.len() as u32 });
        let is_text = |place: &Place| {
            let value = self.value(*place);
            value.is_ascii() || std::str::from_utf8(value).is_ok()
        };
        let is_question = places.iter().all(is_text);
        self.places.push(if is_question { places } else { [NO_QUESTION; COLUMNS.len()] });
    }

    /// Takes a value into the rows' own text.
    pub fn keep(&mut self, value: &str) -> Range<usize> {
        let start = self.file.0.len() + self.own.0.len();
        self.own.extend(value.as_bytes());
        start..start + value.len()
    }

    /// Adds a row that cannot be asked.
    pub fn push_unasked(&mut self) {
        self.places.push([NO_QUESTION; COLUMNS.len()]);
    }

    /// Takes the rows from a place on out.
    pub fn split_off(&mut self, at: usize) -> Rows {
        let mut rest = Rows::default();
        for row in self.iter().skip(at) {
            match row {
                Some(row) => rest.push(row),
                None => rest.push_unasked(),
            }
        }
        self.places.truncate(at);
        rest
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The rows; `None` for one that cannot be asked.
    pub fn iter(&self) -> impl Iterator<Item = Option<Row<'_>>> {
        self.bytes().map(|row| row.map(|row| row.map(text)))
    }

    fn bytes(&self) -> impl Iterator<Item = Option<RowBytes<'_>>> {
        self.places
            .iter()
            .map(|places| (places[0] != NO_QUESTION).then(|| places.map(|place| self.value(place))))
    }

    fn value(&self, place: Place) -> &[u8] {
        let (start, bytes) = (place.start as usize, place.bytes as usize);
        match start.checked_sub(self.file.0.len()) {
            None => &self.file.0[start..start + bytes],
            Some(start) => &self.own.0[start..start + bytes],
        }
    }

    /// SHA-256 over the rows: each column behind its length, 4 bytes big-endian; of a row that cannot
    /// be asked five times `ffffffff`.
    pub fn digest(&self) -> Hash {
        self.digest_of(self.len())
    }

    fn digest_of(&self, rows: usize) -> Hash {
        let mut hash = Sha256::new();
        let mut framed = Vec::with_capacity(HASHED_AT_ONCE + 1024);
        for row in self.bytes().take(rows) {
            if framed.len() >= HASHED_AT_ONCE {
                hash.update(&framed);
                framed.clear();
            }
            match row {
                None => framed.extend_from_slice(&[0xff; 4 * COLUMNS.len()]),
                Some(row) => row.iter().for_each(|value| {
                    framed.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    framed.extend_from_slice(value);
                }),
            }
        }
        hash.update(&framed);
        wipe(&mut framed);
        hash.finalize().into()
    }

    /// The bytes that go from one process to another on the same machine: how many rows, where each column of a row
    /// ends in the text behind, and the text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length: usize = self.bytes().flatten().flatten().map(<[u8]>::len).sum();
        let mut bytes = Vec::with_capacity(4 + 4 * COLUMNS.len() * self.len() + length);
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        let mut end = 0;
        for row in self.bytes() {
            let ends = row.map(|row| {
                row.map(|value| {
                    end += value.len() as u32;
                    end
                })
            });
            let ends = ends.unwrap_or([u32::MAX; COLUMNS.len()]);
            ends.iter().for_each(|end| bytes.extend_from_slice(&end.to_le_bytes()));
        }
        self.bytes().flatten().flatten().for_each(|value| bytes.extend_from_slice(value));
        bytes
    }

    /// Reads what [`Rows::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Rows> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (ends, text) = rest.split_at_checked(count.checked_mul(4 * COLUMNS.len())?)?;
        let mut start = 0;
        let text = std::str::from_utf8(text).ok()?;
        let mut rows = Rows {
            own: Wiped(text.as_bytes().to_vec()),
            places: Vec::with_capacity(count),
            ..Rows::default()
        };
        for row in ends.chunks_exact(4 * COLUMNS.len()) {
            let mut places = [NO_QUESTION; COLUMNS.len()];
            if row.iter().any(|byte| *byte != u8::MAX) {
                for (place, end) in places.iter_mut().zip(row.as_chunks().0) {
                    let end = u32::from_le_bytes(*end);
                    text.get(start as usize..end as usize)?;
                    *place = Place { start, bytes: end - start };
                    start = end;
                }
            }
            rows.places.push(places);
        }
        (start as usize == text.len()).then_some(rows)
    }
}

/// A value of [`Rows`]: when it was added, somebody looked whether it is text.
fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

/// Who asks what, and under which name it is gone on with.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// Who asks; it says who pays, too.
    pub credential: Credential,
    /// Over which wire.
    pub wire: Wire,
    /// What is asked of each row.
    pub action: Action,
    /// Why.
    pub purpose: Option<Purpose>,
}

/// Jobs under way.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<HashSet<JobId>>);

/// Why a job does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// As many as may be are under way.
    #[error("too many jobs are under way; try again when one has ended")]
    TooMany,
    /// It is under way already.
    #[error("this job is under way already")]
    UnderWay,
    /// A route buys answers for this caller; rows are not bought, and an account that is not held here
    /// would be answered as one that does not exist.
    #[error(
        "a route buys answers to this caller's questions, and rows of files and batches are not bought; ask them \
         one by one, or leave this action or caller out of the route"
    )]
    Routed,
    /// The ledger.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Rows of a job that were settled: the first of them, and their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledRows {
    /// The first, counted from 0.
    pub first_row: u64,
    /// How many.
    pub rows: u64,
    /// The block that has them.
    pub(crate) seq: i64,
}

/// A job in somebody's hands; nobody else can have it meanwhile.
pub struct Session {
    engine: Arc<Engine>,
    job: Job,
    settled: Vec<SettledRows>,
    ledger: LedgerReader,
    /// Where nodes share the counters of attempts: the rows of a block hold up no single question there.
    nodes: Option<RefCell<Nodes>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.engine.jobs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job.id);
    }
}

/// What became of some rows. It is on the disk.
#[derive(Clone, Debug)]
pub struct Answers {
    /// By row, for as many as the balance covered; `None`: it could not be asked.
    pub outcomes: Vec<Option<Outcome>>,
    /// Price of a charged answer.
    pub price: Credits,
    /// They were settled before, and are only told again.
    pub replayed: bool,
}

/// Why rows of a job are not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// As with a single question; nothing was charged or recorded.
    Refused(Refusal),
    /// Other rows than those that were settled under this name.
    OtherRows,
    /// What was settled cannot be read again: its side row was erased.
    Erased,
    /// Another node has answered these rows, just now.
    Elsewhere,
}

impl From<Refusal> for Unsettled {
    fn from(refusal: Refusal) -> Unsettled {
        Unsettled::Refused(refusal)
    }
}

impl Engine {
    /// The job that a caller calls by this name: for ever the same, at every node, whatever keys are replaced.
    pub fn job_named(&self, application: ApplicationId, name: &str) -> JobId {
        self.vault.keys().job(&[&application.0.to_be_bytes(), name.as_bytes()])
    }

    /// Begins a job, or goes on with it.
    pub fn bulk(self: &Arc<Engine>, job: Job) -> Result<Session, NotBegun> {
        self.has_accounts_to_read()?;
        if self.buys(&job) {
            return Err(NotBegun::Routed);
        }
        {
            let mut jobs = self.jobs.0.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.len() >= JOBS_MAX {
                return Err(NotBegun::TooMany);
            }
            if !jobs.insert(job.id) {
                return Err(NotBegun::UnderWay);
            }
        }
        let found = self.ledger().and_then(|ledger| {
            let nodes = self.sharing.as_ref().map(|sharing| Nodes::again(&sharing.store.database));
            Ok((ledger.settled_rows(&job.id)?, ledger, nodes.transpose()?.map(RefCell::new)))
        });
        match found {
            Ok((settled, ledger, nodes)) => {
                Ok(Session { engine: Arc::clone(self), job, settled, ledger, nodes })
            }
            Err(error) => {
                self.jobs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
                Err(error.into())
            }
        }
    }
}

/// Looks rows up; one for each thread.
pub struct Judge {
    engine: Arc<Engine>,
    accounts: Accounts,
    application: ApplicationId,
    action: Action,
}

/// What some rows come to, before anything is counted or charged.
pub struct Judged {
    outcomes: Vec<Option<Outcome>>,
    /// With the policy they are counted by.
    attempts: Option<(AttemptPolicy, Vec<Option<AttemptRefs>>)>,
    /// So that rows can be left out for want of balance.
    rows: Rows,
    digest: Hash,
}

impl Judged {
    /// Rows that are not looked up because they were settled before.
    pub fn again(rows: Rows) -> Judged {
        let digest = rows.digest();
        Judged { outcomes: Vec::new(), attempts: None, rows, digest }
    }
}

impl Judge {
    /// Looks every row up.
    pub fn judge(&self, rows: Rows) -> Result<Judged, Refusal> {
        let engine = &self.engine;
        let policy = engine.policy();
        let keys = engine.vault.keys();
        let options = policy.parse_options(engine.clock.now_ms());
        let directory = engine.directory();
        let (application, _) = directory.application(self.application).ok_or(Refusal::NotActivated)?;
        let counted = application.attempts.unwrap_or(policy.attempts);
        let mut attempts = counted.counts().then(|| (counted, Vec::with_capacity(rows.len())));
        let mut outcomes = Vec::with_capacity(rows.len());
        // While a rotation moves the accounts, and where no card is asked about, rows are looked up one by one.
        let is_together = keys.account_versions().len() == 1 && self.action.takes(Element::Card);
        let needs_subject = attempts.is_some() || !is_together;
        let mut near = Vec::with_capacity(NEAR);
        let mut all = rows.bytes();
        loop {
            let next = all.by_ref().take(NEAR);
            near.extend(next.map(|row| Asked::of(self.action, row, &options, needs_subject)));
            if near.is_empty() {
                break;
            }
            let mut answers = if is_together {
                let mut claims = Vec::with_capacity(near.len());
                claims.extend(near.iter().filter_map(Asked::elements));
                all_on_record(engine, &self.accounts, &policy, &keys, self.action, &claims)?
            } else {
                let one = |subject| on_record(engine, &self.accounts, &policy, &keys, self.action, subject);
                near.iter().filter_map(Asked::subject).map(one).collect::<Result<_, _>>()?
            }
            .into_iter();
            for asked in near.drain(..) {
                if let Some((counted, all)) = &mut attempts {
                    let refs = |subject| {
                        let refs = || engine.attempt_refs(application.caller, self.action, subject, counted);
                        match &engine.sharing {
                            None => refs(),
                            // Whose key of the day has to be asked for, once a day.
                            Some(sharing) => refs().or_else(|_| {
                                node::wait(engine.ensure_day_key(sharing))?;
                                refs()
                            }),
                        }
                    };
                    all.push(asked.subject().map(refs).transpose()?);
                }
                outcomes.push(match asked {
                    Asked::Not => None,
                    Asked::Wrong(outcome) => Some(outcome),
                    Asked::Canonical(_) | Asked::Read(_) => answers.next(),
                });
            }
        }
        self.accounts.look_away();
        drop((all, near));
        let digest = rows.digest();
        Ok(Judged { outcomes, attempts, rows, digest })
    }
}

/// A row on its way to an answer.
enum Asked<'a> {
    /// It cannot be asked.
    Not,
    /// Answered by its form.
    Wrong(Outcome),
    /// As it stands.
    Canonical(Elements<'a>),
    /// Brought into form.
    Read(Box<Subject>),
}

impl<'a> Asked<'a> {
    #[inline]
    fn of(
        action: Action,
        row: Option<RowBytes<'a>>,
        options: &ParseOptions,
        needs_subject: bool,
    ) -> Asked<'a> {
        let Some(row) = row else { return Asked::Not };
        let [card, name, kind, id, mobile] = row;
        let claimed = Elements { card, name_exact: name, name_loose: name, id, mobile };
        // Of other words for it, `claim` makes sense.
        let is_resident_id = matches!(kind, b"" | b"resident_id");
        let canonical = || subject::canonical(action, &claimed, is_resident_id, options);
        if let Some(elements) = (!needs_subject).then(canonical).flatten() {
            return Asked::Canonical(elements);
        }
        let parsed = parsed(action, row.map(text), options);
        parsed.map_or_else(Asked::Wrong, |subject| Asked::Read(Box::new(subject)))
    }

    fn elements(&self) -> Option<Elements<'_>> {
        match self {
            Asked::Canonical(elements) => Some(*elements),
            Asked::Read(subject) => subject.card.as_ref().map(|card| elements_of(card, subject)),
            Asked::Not | Asked::Wrong(_) => None,
        }
    }

    fn subject(&self) -> Option<&Subject> {
        match self {
            Asked::Read(subject) => Some(subject),
            _ => None,
        }
    }
}

fn claim(row: Row<'_>) -> ClaimText<'_> {
    let [card, name, kind, id, mobile] = row;
    let document_kind = i64::from(!matches!(kind.trim(), "" | "resident_id"));
    ClaimText { name, card, id, mobile, document_kind, validity: None }
}

/// The subject of a row, or what is wrong with it.
pub fn parsed(action: Action, row: Row<'_>, options: &ParseOptions) -> Result<Subject, Outcome> {
    Subject::of(action, &claim(row), options).map_err(|(outcome, _)| outcome)
}

impl Session {
    /// A place to look rows up.
    pub fn judge(&self) -> Result<Judge, StoreError> {
        Ok(Judge {
            engine: Arc::clone(&self.engine),
            accounts: self.engine.accounts_to_read()?,
            application: self.job.credential.application,
            action: self.job.action,
        })
    }

    /// What was settled under this name before, in its order. Rows must be sent in the same pieces.
    pub fn settled(&self) -> &[SettledRows] {
        &self.settled
    }

    /// Answers rows that were looked up: in one durable commit, or from the one that has answered them.
    ///
    /// Answers fewer rows than there are when the balance covers no more.
    ///
    /// # Errors
    /// Nothing was charged or recorded.
    pub fn settle(&self, first_row: u64, judged: Judged) -> Result<Answers, Unsettled> {
        let at = self.settled.binary_search_by_key(&first_row, |settled| settled.first_row);
        match at {
            Ok(at) => self.again(self.settled[at], &judged),
            Err(_) => self.first(first_row, judged),
        }
    }

    fn again(&self, settled: SettledRows, judged: &Judged) -> Result<Answers, Unsettled> {
        let found = self.ledger.bulk(settled.seq, &self.engine.vault).map_err(|error| {
            tracing::error!(%error, "what was settled of a job cannot be read");
            Refusal::Stopped
        })?;
        let Some((bulk, side)) = found else { return Err(Unsettled::Erased) };
        let is_same = judged.rows.len() as u64 == bulk.rows
            && bulk.action == self.job.action
            && bulk.application == self.job.credential.application
            && digest(&side.opening, &judged.digest, &side.answers) == bulk.digest;
        if !is_same {
            return Err(Unsettled::OtherRows);
        }
        Ok(Answers { outcomes: side.outcomes().collect(), price: bulk.price, replayed: true })
    }

    fn first(&self, first_row: u64, mut judged: Judged) -> Result<Answers, Unsettled> {
        let engine = &self.engine;
        let (application, price) = engine.may_ask(&self.job)?;
        if judged.attempts.is_some()
            && !engine.books().attempts.has_room(judged.rows.len(), engine.policy().counters_max)
        {
            return Err(Refusal::Overloaded.into());
        }
        let covered = self.hold(&application, price, judged.rows.len())?;
        if covered < judged.rows.len() {
            judged.outcomes.truncate(covered);
            if let Some((_, attempts)) = &mut judged.attempts {
                attempts.truncate(covered);
            }
            judged.digest = judged.rows.digest_of(covered);
        }
        let counted = match self.count(&mut judged) {
            Ok(counted) => counted,
            Err(error) => {
                tracing::warn!(%error, "the database that nodes share cannot count the attempts of rows");
                engine.release(&application, self.job.credential.id, Credits(price.0 * covered as i64));
                return Err(Refusal::Stopped.into());
            }
        };
        let settled = engine.queue.settle_bulk(self.draft(first_row, judged, application, price));
        // Where nobody knows whether it is durable, too many are counted rather than too few.
        if matches!(settled, Err(why) if why != Unsettled::Refused(Refusal::Stopped)) {
            self.give_back(&counted);
        }
        settled
    }

    /// Sets the price of as many rows aside as are covered. Of what nodes share, takes what this node has too
    /// little of, and waits a moment for what others have and may not need.
    fn hold(&self, application: &Application, price: Credits, rows: usize) -> Result<usize, Refusal> {
        let (engine, credential) = (&self.engine, &self.job.credential);
        let began = Instant::now();
        loop {
            let refilled = match &engine.sharing {
                None => Ok(()),
                Some(sharing) => self.refill(sharing, application, price, rows),
            };
            if refilled.is_err() && began.elapsed() < OTHERS_MOST {
                // Others found this node dead: the writer is about to take its place again.
                std::thread::sleep(OTHERS_MOST / 20);
                continue;
            }
            refilled?;
            let mut books = engine.books();
            let covered = books.covers(application, credential, price, rows);
            let may_come = covered < books.covers_everywhere(application, credential, price, rows);
            if may_come && began.elapsed() < OTHERS_MOST {
                drop(books);
                std::thread::sleep(OTHERS_MOST / 20);
                continue;
            }
            if covered == 0 && rows > 0 {
                return Err(Refusal::Arrears);
            }
            let held = Credits(price.0 * covered as i64);
            books.hold(application, held).map_err(|_| Refusal::Arrears)?;
            if books.hold_limit(credential, held).is_err() {
                books.release(application, held);
                return Err(Refusal::LimitReached);
            }
            return Ok(covered);
        }
    }

    fn refill(
        &self,
        sharing: &Sharing,
        application: &Application,
        price: Credits,
        rows: usize,
    ) -> Result<(), Refusal> {
        let credential = &self.job.credential;
        let purses = [
            (!application.unlimited).then(|| Purse::application(application.id.0)),
            credential.limit.map(|_| Purse::credential(credential.id.0)),
        ];
        for purse in purses.into_iter().flatten() {
            let (of_one, of_all) = {
                let books = self.engine.books();
                (books.lacking(purse, price), books.lacking(purse, Credits(price.0 * rows as i64)))
            };
            if of_all > Credits::ZERO {
                node::wait(sharing.refill(purse, of_one, of_all))?;
            }
        }
        Ok(())
    }

    /// Takes the attempts; a row that has none left is answered so. Gives what is to be taken from the counters
    /// that nodes share, should the rows not be answered after all.
    fn count(&self, judged: &mut Judged) -> Result<Vec<(Counter, i64)>, StoreError> {
        let Judged { outcomes, attempts: Some((policy, refs)), .. } = judged else { return Ok(Vec::new()) };
        let mut known = match &self.nodes {
            None => None,
            Some(nodes) => Some(Known::of(&self.engine, &mut nodes.borrow_mut(), refs)?),
        };
        for (outcomes, refs) in outcomes.chunks_mut(COUNTED_AT_ONCE).zip(refs.chunks_mut(COUNTED_AT_ONCE)) {
            let mut books = self.engine.books();
            for (outcome, place) in outcomes.iter_mut().zip(refs) {
                let Some(refs) = place else { continue };
                let held = match &mut known {
                    None => books.attempts.hold(refs, policy),
                    Some(known) => known.hold(&mut books.attempts, refs, policy),
                };
                if held.is_err() {
                    (*outcome, *place) = (Some(Outcome::AttemptsExceeded), None);
                }
            }
        }
        let Some(Known { taken, refused, .. }) = known else { return Ok(Vec::new()) };
        self.give_back(&counters(refused));
        Ok(counters(taken))
    }

    /// Takes attempts from the counters that nodes share: nobody was asked.
    fn give_back(&self, counted: &[(Counter, i64)]) {
        let Some(nodes) = self.nodes.as_ref().filter(|_| !counted.is_empty()) else { return };
        if let Err(error) = nodes.borrow_mut().give_back_attempts(counted) {
            tracing::warn!(%error, "attempts of rows that were not asked stay counted until midnight");
        }
    }

    fn draft(
        &self,
        first_row: u64,
        judged: Judged,
        application: Arc<Application>,
        price: Credits,
    ) -> BulkDraft {
        let Judged { outcomes, attempts, digest, .. } = judged;
        BulkDraft {
            job: self.job.id,
            application,
            credential: self.job.credential.id,
            limit: self.job.credential.limit,
            wire: self.job.wire,
            action: self.job.action,
            purpose: self.job.purpose.clone(),
            first_row,
            outcomes,
            price,
            attempts,
            rows: digest,
        }
    }
}

/// What the counters that nodes share say about the rows of a block, which they have counted already.
struct Known {
    /// [`Attempts::settled`] before they were asked.
    asked: u64,
    /// Without the rows of this block that come later.
    counts: HashMap<Counter, i64>,
    runs: HashMap<Counter, i64>,
    /// What is to be taken back of rows that have their attempt, if they are not answered; and of the others.
    taken: BTreeMap<Counter, i64>,
    refused: BTreeMap<Counter, i64>,
}

impl Known {
    /// Counts all rows in one round trip, before anything is answered.
    fn of(engine: &Engine, nodes: &mut Nodes, rows: &[Option<AttemptRefs>]) -> Result<Known, StoreError> {
        let asked = engine.books().attempts.settled();
        let wanted = node::how_often(rows.iter().flatten());
        let pairs: BTreeSet<Counter> =
            rows.iter().flatten().map(|refs| (refs.day as i32, refs.pair())).collect();
        let pairs: Vec<Counter> = pairs.into_iter().collect();
        let told = nodes.ask(&wanted, &pairs, &[])?;
        let before = |((counter, by), after): (&(Counter, i64), i64)| (*counter, after - by);
        Ok(Known {
            asked,
            counts: wanted.iter().zip(told.counts).map(before).collect(),
            runs: pairs.into_iter().zip(told.runs).collect(),
            taken: BTreeMap::new(),
            refused: BTreeMap::new(),
        })
    }

    /// Takes the attempts of one row, in its turn.
    fn hold(
        &mut self,
        attempts: &mut Attempts,
        refs: &AttemptRefs,
        policy: &AttemptPolicy,
    ) -> Result<(), UsedUp> {
        let count_of = |counter| self.counts.get(&counter).copied().unwrap_or(0) + 1;
        let counts: Vec<i64> = node::counters_of(refs).map(count_of).collect();
        let run = self.runs.get(&(refs.day as i32, refs.pair())).copied().unwrap_or(0);
        let held = attempts.know(refs, policy, &counts, run, self.asked);
        let back = if held.is_ok() { &mut self.taken } else { &mut self.refused };
        node::counters_of(refs).for_each(|counter| *back.entry(counter).or_default() += 1);
        if held.is_ok() {
            node::counters_of(refs).for_each(|counter| *self.counts.entry(counter).or_default() += 1);
        }
        held
    }
}

fn counters(by: BTreeMap<Counter, i64>) -> Vec<(Counter, i64)> {
    by.into_iter().collect()
}

impl Engine {
    /// Whether single questions like those of a job may be bought.
    fn buys(&self, job: &Job) -> bool {
        let (policy, directory) = (self.policy(), self.directory());
        let application = directory.application(job.credential.application);
        let routes = policy.routing.iter().flat_map(|routing| &routing.routes);
        application.is_some_and(|(application, _)| {
            routes.into_iter().any(|route| route.takes_some(&application.name, job.action))
        })
    }

    /// Whether a job's caller may ask now, and at which price.
    ///
    /// # Errors
    /// Why not.
    pub fn may_ask(&self, job: &Job) -> Result<(Arc<Application>, Credits), Refusal> {
        let (credential, action) = (&job.credential, job.action);
        if !credential.allows(action) {
            return Err(Refusal::NotAllowed);
        }
        let directory = self.directory();
        let found = directory.application(credential.application);
        let (application, standing) = found.ok_or(Refusal::NotActivated)?;
        let policy = self.policy();
        match standing {
            _ if !application.actions.contains(&action) => return Err(Refusal::NotActivated),
            _ if !policy.offers(action) => return Err(Refusal::NotConfigured),
            Standing::Active => {}
            Standing::Suspended => return Err(Refusal::Suspended),
            Standing::Unconfirmed => return Err(Refusal::Unconfirmed),
        }
        if self.writing() != Writing::Works {
            return Err(Refusal::Stopped);
        }
        let own = application.price.or(policy.prices[action as usize]);
        Ok((application, own.unwrap_or(policy.price)))
    }
}

/// Rows on their way to the ledger, with what is held for them.
pub(crate) struct BulkDraft {
    pub(crate) job: JobId,
    pub(crate) application: Arc<Application>,
    pub(crate) credential: CredentialId,
    pub(crate) limit: Option<Credits>,
    pub(crate) wire: Wire,
    pub(crate) action: Action,
    pub(crate) purpose: Option<Purpose>,
    pub(crate) first_row: u64,
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// Of a charged answer; so much is held for every row.
    pub(crate) price: Credits,
    pub(crate) attempts: Option<(AttemptPolicy, Vec<Option<AttemptRefs>>)>,
    /// [`Rows::digest`].
    pub(crate) rows: Hash,
}

impl BulkDraft {
    /// What is set aside for all rows.
    pub(crate) fn held(&self) -> Credits {
        Credits(self.price.0 * self.outcomes.len() as i64)
    }

    /// The rows whose attempts are held, a few at a time.
    pub(crate) fn counted(&self) -> impl Iterator<Item = Vec<(&AttemptRefs, &AttemptPolicy, Outcome)>> {
        let (policy, refs) = match &self.attempts {
            Some((policy, refs)) => (policy, &refs[..]),
            None => (&AttemptPolicy::OFF, &[][..]),
        };
        let rows = self.outcomes.chunks(COUNTED_AT_ONCE).zip(refs.chunks(COUNTED_AT_ONCE));
        rows.map(move |(outcomes, refs)| {
            let both = outcomes.iter().zip(refs);
            both.filter_map(|(outcome, refs)| Some((refs.as_ref()?, policy, (*outcome)?))).collect()
        })
    }

    /// The answers by outcome.
    pub(crate) fn sums(&self) -> Vec<BulkSum> {
        let mut answers = [0u64; Outcome::ALL.len()];
        self.outcomes.iter().flatten().for_each(|outcome| answers[*outcome as usize] += 1);
        let sum = |(outcome, answers): (Outcome, u64)| {
            let price = if self.action.charges(outcome) { self.price } else { Credits::ZERO };
            BulkSum { outcome, answers, charged: Credits(price.0 * answers as i64) }
        };
        Outcome::ALL.into_iter().zip(answers).filter(|(_, answers)| *answers > 0).map(sum).collect()
    }

    /// The sealed side of it.
    pub(crate) fn side(&self) -> BulkSide {
        let answer = |outcome: &Option<Outcome>| outcome.map_or(NOT_ASKED, |outcome| outcome as u8);
        BulkSide {
            opening: nonce(),
            answers: self.outcomes.iter().map(answer).collect(),
            attempts: self.attempts.as_ref().map(|(_, refs)| refs.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(rows: Vec<Option<[String; 5]>>) {
            let mut all = Rows::default();
            for row in &rows {
                match row {
                    Some(row) => all.push(row.each_ref().map(String::as_str)),
                    None => all.push_unasked(),
                }
            }
            let read = Rows::from_bytes(&all.to_bytes()).unwrap();
            let texts = |row: Option<Row<'_>>| row.map(|row| row.map(str::to_owned));
            prop_assert_eq!(&read.iter().map(texts).collect::<Vec<_>>(), &rows);
            prop_assert_eq!(read.digest(), all.digest());
            let (mut first, at) = (read, rows.len() / 2);
            let second = first.split_off(at);
            let both: Vec<_> = first.iter().chain(second.iter()).map(texts).collect();
            prop_assert_eq!(both, rows);
        }

        /// Of the text of a file or of their own: the same rows.
        #[test]
        fn rows_are_the_same_wherever_they_stand(rows: Vec<[String; 5]>) {
            let text = Arc::new(Wiped(rows.iter().flatten().flat_map(|value| value.bytes()).collect()));
            let (mut standing, mut own, mut start) = (Rows::of_file(text, rows.len()), Rows::default(), 0);
            for row in &rows {
                let place = |value: &String| {
                    start += value.len();
                    start - value.len()..start
                };
                let mut places = row.each_ref().map(place);
                // One that is written otherwise than it stands there.
                places[4] = standing.keep(&row[4]);
                standing.push_at(places);
                own.push(row.each_ref().map(String::as_str));
            }
            prop_assert!(standing.iter().eq(own.iter()));
            prop_assert_eq!(standing.digest(), own.digest());
            prop_assert_eq!(standing.to_bytes(), own.to_bytes());
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
            if let Some(rows) = Rows::from_bytes(&bytes) {
                let _ = (rows.iter().count(), rows.digest());
            }
        }
    }

    #[test]
    fn what_is_not_text_is_not_asked() {
        let mut rows = Rows::of_file(Arc::new(Wiped(b"1\xff2".to_vec())), 2);
        rows.push_at([0..1, 0..1, 0..0, 0..1, 2..3]);
        rows.push_at([0..1, 0..2, 0..0, 0..1, 2..3]);
        assert!(rows.iter().eq([Some(["1", "1", "", "1", "2"]), None]));
    }

    #[test]
    fn the_hash_tells_where_a_column_ends_and_which_row_is_none() {
        let of = |row: Option<Row<'_>>| {
            let mut rows = Rows::default();
            match row {
                Some(row) => rows.push(row),
                None => rows.push_unasked(),
            }
            rows.digest()
        };
        assert_ne!(of(Some(["1", "23", "", "", ""])), of(Some(["12", "3", "", "", ""])));
        assert_ne!(of(Some([""; 5])), of(None));
    }
}
