//! Money and evidence: entries, blocks, and the books they add up to.
//!
//! One answered question is one entry: its charge and its audit record are the same bytes, durable
//! in the same commit. Balances and counters live in memory ([`Books`]) and are rebuilt from a
//! snapshot and the blocks after it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::audit::{self, Frontier, Hash};
use crate::caller::{Action, Application, ApplicationId, Credential, CredentialId, Numbered, Wire};
use crate::claim::Masks;
use crate::clock::Millis;
use crate::limit::{AttemptPolicy, AttemptRefs, Attempts, COUNTER_BYTES, Counter};
use crate::operator::{Act, By};
use crate::outcome::{Class, Outcome, Reason, Row};
use crate::spending::{Asking, Billed, Bought, Spending, SumOf};
use crate::store::{Purse, PurseId, Slice};
use crate::subject::NameClass;
use crate::vault::{KeyedRef, nonce, wipe};

pub use crate::bulk::{Bulk, BulkSide, BulkSum, JobId};

/// An amount of credits, in millionths; AceData keeps amounts to six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Credits(pub i64);

impl Credits {
    /// Nothing.
    pub const ZERO: Credits = Credits(0);

    /// Whole credits.
    pub const fn whole(credits: i64) -> Credits {
        Credits(credits * 1_000_000)
    }
}

impl fmt::Display for Credits {
    /// `1`, `0.057`, `-2.5`: no trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let text = format!("{sign}{whole}.{fraction:06}");
        f.write_str(text.trim_end_matches('0'))
    }
}

impl FromStr for Credits {
    type Err = String;

    fn from_str(text: &str) -> Result<Credits, String> {
        let wrong = || format!("`{text}` is not an amount such as 1 or 0.057 (at most six decimals)");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return Err(wrong());
        }
        let micros = format!("{whole}{fraction:0<6}").parse().map_err(|_| wrong())?;
        Ok(Credits(micros))
    }
}

/// One line of the ledger and one leaf of the audit tree.
///
/// Written with postcard: variants and members are positional, so only ever append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A question was answered.
    Answer(Answer),
    /// Credits were given to an application.
    Grant {
        /// When, Unix milliseconds.
        at_ms: Millis,
        /// To whom.
        application: ApplicationId,
        /// How much.
        amount: Credits,
    },
    /// The sandbox was put back to its beginning: balances as first granted, nothing counted.
    SandboxReset {
        /// When, Unix milliseconds.
        at_ms: Millis,
    },
    /// What was kept about a card was erased; about which one is not kept either.
    Erased {
        /// When, Unix milliseconds.
        at_ms: Millis,
        /// Entries whose side row is empty since.
        records: u64,
        /// Whether there was an account of record.
        account: bool,
    },
    /// Somebody who looks after the installation did something; written before it takes effect.
    Operator {
        /// When, Unix milliseconds.
        at_ms: Millis,
        /// Who.
        by: By,
        /// What.
        act: Act,
    },
    /// An order was carried out or taken back. It counts once, however often it is recorded: the file
    /// that knows of orders is another one, and a crash between the two is mended by recording again.
    Payment {
        /// When, Unix milliseconds.
        at_ms: Millis,
        /// To whom.
        application: ApplicationId,
        /// How much; negative when it is taken back.
        amount: Credits,
        /// Of the order, and of its refund another one.
        reference: [u8; 16],
    },
    /// A provider is about to be asked; written before the question leaves.
    Asking(Asking),
    /// What became of that; what it cost is counted with it.
    Bought(Bought),
    /// What it cost after all, by the provider's bill.
    Billed(Billed),
    /// Many rows of a file or a stream were answered: sums, and a hash over the rows.
    Bulk(Bulk),
    /// The tree of another node, as this one found it: neither can go, or lose its end, unseen.
    Seen {
        /// When, Unix milliseconds.
        at_ms: Millis,
        /// Whose.
        node: u32,
        /// Its entries then.
        size: u64,
        /// Its root then.
        root: Hash,
    },
}

impl Entry {
    /// Reads the bytes of an entry, all of them; they are what its leaf covers.
    pub fn from_bytes(bytes: &[u8]) -> Result<Entry, BlockError> {
        match postcard::take_from_bytes(bytes)? {
            (entry, []) => Ok(entry),
            _ => Err(postcard::Error::DeserializeBadEncoding.into()),
        }
    }
}

/// The record of an answered question. Nothing in it tells about whom it was: that is in [`Side`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The id the caller saw (`RequestId`, `trace_id`): a version 4 UUID.
    pub request: [u8; 16],
    /// When it was settled, Unix milliseconds.
    pub at_ms: Millis,
    /// Who pays.
    pub application: ApplicationId,
    /// Which credential asked.
    pub credential: CredentialId,
    /// Over which wire.
    pub wire: Wire,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
    /// Which row of the decision table answered; 0: the sandbox's script.
    pub row: Row,
    /// How the name was found equal, under which policy: `name-v1`.
    pub name_class: Option<NameClass>,
    /// What was charged.
    pub charged: Credits,
    /// The balance afterwards; `None`: unlimited.
    pub balance: Option<Credits>,
    /// From the first byte of the request to the settlement, microseconds.
    pub elapsed_us: u32,
    /// Why it was asked; a word of the operator's.
    pub purpose: Option<String>,
    /// More than the outcome, where the caller was told; `None`: it was not.
    pub reasons: Option<Vec<Reason>>,
    /// How often the caller may still ask the same today; `None`: nothing limits it.
    pub attempts_left: Option<u32>,
}

/// What belongs to an entry and can be erased without touching the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Hides the rest of the row behind the commitment.
    pub salt: [u8; 16],
    /// Keyed reference to the card asked about.
    pub subject: Option<KeyedRef>,
    /// For people who look after the system; absent where the operator switched masks off.
    pub masks: Option<Masks>,
    /// The answer can be asked for again by this key.
    pub idempotency: Option<IdempotencyRef>,
    /// What was counted.
    pub attempts: Option<AttemptRefs>,
    /// The caller's reference to the consent of whom it is about.
    pub consent: Option<String>,
    /// The answers of many rows.
    pub bulk: Option<BulkSide>,
    /// The answer may be given again to the same caller for the same purpose.
    pub reuse: Option<ReuseRef>,
}

/// A pass that may be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseRef {
    /// Keyed hash of application, purpose, action and canonical elements.
    pub key: KeyedRef,
    /// Too old from then on, Unix milliseconds.
    pub until_ms: Millis,
}

impl Side {
    /// Until when a start must read this entry again, Unix milliseconds; 0: never.
    pub fn remembered_until(&self) -> Millis {
        let key = self.idempotency.map_or(0, |asked| asked.until_ms);
        let counted = self.attempts.iter().chain(self.bulk.iter().flat_map(BulkSide::counted));
        let day = counted.map(|refs| refs.day).max().map_or(0, crate::clock::beijing_day_ends);
        key.max(day).max(self.reuse.map_or(0, |reuse| reuse.until_ms))
    }
}

/// An answer that can be asked for again, as nodes share it.
#[derive(Clone, Debug)]
pub struct StoredAnswer {
    /// See [`IdempotencyRef::key`].
    pub key: KeyedRef,
    /// See [`IdempotencyRef::payload`].
    pub payload: KeyedRef,
    /// The answer.
    pub answer: Answer,
}

/// The identity of a question for whoever sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRef {
    /// Keyed hash of application and key, or of application and payload.
    pub key: KeyedRef,
    /// Keyed hash of action and canonical elements.
    pub payload: KeyedRef,
    /// Forgotten then, Unix milliseconds.
    pub until_ms: Millis,
}

/// All entries of one commit, in the bytes that are stored: version and number of leaves before it; then of each entry
/// the commitment to its side row, its length, and the entry as postcard bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block(Vec<u8>);

/// Version byte in front of a block's bytes.
pub const BLOCK_VERSION: u8 = 1;

/// Why bytes are no block.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Written by a later card4e.
    #[error("block version {0} is newer than this card4e")]
    Version(u8),
    /// Not what postcard wrote.
    #[error("the bytes are not a block: {0}")]
    Damaged(#[from] postcard::Error),
    /// A block without its version byte.
    #[error("the block is empty")]
    Empty,
    /// Its entries do not end where it ends.
    #[error("the block is cut off")]
    Cut,
}

/// Bytes before the first entry.
const HEAD_BYTES: usize = 1 + size_of::<u64>();

impl Block {
    /// A block that follows so many leaves, with room for about so many entries.
    pub fn new(first_leaf: u64, entries: usize) -> Block {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + entries * USUAL_BYTES);
        bytes.push(BLOCK_VERSION);
        bytes.extend(first_leaf.to_le_bytes());
        Block(bytes)
    }

    /// The bytes that are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what [`Block::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Block, BlockError> {
        match bytes.first() {
            None => Err(BlockError::Empty),
            Some(&BLOCK_VERSION) => {
                let mut rest = bytes.get(HEAD_BYTES..).ok_or(BlockError::Cut)?;
                while !rest.is_empty() {
                    (_, _, rest) = first_entry(rest).ok_or(BlockError::Cut)?;
                }
                Ok(Block(bytes.to_vec()))
            }
            Some(&version) => Err(BlockError::Version(version)),
        }
    }

    /// Number of leaves before this block.
    pub fn first_leaf(&self) -> u64 {
        self.0.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Of each entry the commitment to its side row, and its bytes.
    pub fn entries(&self) -> impl Iterator<Item = (&Hash, &[u8])> + Clone {
        let mut rest = self.0.get(HEAD_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (commitment, entry, behind) = first_entry(rest)?;
            rest = behind;
            Some((commitment, entry))
        })
    }

    /// The entries, decoded.
    pub fn decoded(&self) -> Result<Vec<Entry>, BlockError> {
        self.entries().map(|(_, bytes)| Entry::from_bytes(bytes)).collect()
    }

    /// Adds an entry and its leaf, and to `sides` its side row.
    pub fn push(&mut self, entry: &Entry, side: &mut Side, tree: &mut Frontier, sides: &mut SideRows) {
        side.salt = nonce();
        let commitment = audit::commitment(&side.salt, sides.push(side));
        let bytes = &mut self.0;
        bytes.extend_from_slice(&commitment);
        let length_at = bytes.len();
        bytes.extend([0; LENGTH_BYTES]);
        encode_behind(bytes, entry);
        let (before, written) = bytes.split_at_mut(length_at + LENGTH_BYTES);
        before[length_at..].copy_from_slice(&(written.len() as u32).to_le_bytes());
        tree.push(audit::leaf(&commitment, written));
    }
}

/// Bytes that say how long an entry is.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Commitment and entry, and what is behind them.
fn first_entry(bytes: &[u8]) -> Option<(&Hash, &[u8], &[u8])> {
    let (commitment, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let (entry, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((commitment, entry, behind))
}

/// The side rows of a block as they are sealed: what postcard makes of the list of them, each being there. Encoded once,
/// for the commitment and for sealing; wiped.
#[derive(Default)]
pub struct SideRows {
    rows: u64,
    bytes: Vec<u8>,
}

impl SideRows {
    /// Room for about so many.
    pub fn with_room_for(rows: usize) -> SideRows {
        SideRows { rows: 0, bytes: Vec::with_capacity(2 * USUAL_BYTES * rows) }
    }

    /// Adds one; gives its bytes.
    fn push(&mut self, side: &Side) -> &[u8] {
        const IS_THERE: u8 = 1;
        self.rows += 1;
        self.bytes.push(IS_THERE);
        let begin = self.bytes.len();
        encode_behind(&mut self.bytes, side);
        &self.bytes[begin..]
    }

    /// What becomes of the list where it is sealed.
    pub(crate) fn sealed(&self, seal: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut plain = Vec::with_capacity(16 + self.bytes.len());
        encode_behind(&mut plain, &self.rows);
        plain.extend_from_slice(&self.bytes);
        let sealed = seal(&plain);
        wipe(&mut plain);
        sealed
    }
}

impl Drop for SideRows {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Whether a side row is the one that was committed to.
pub fn side_matches(side: &Side, commitment: &Hash) -> bool {
    audit::commitment(&side.salt, &encoded(side)) == *commitment
}

/// An entry or a side row has about as many; what is longer grows.
const USUAL_BYTES: usize = 256;

/// Postcard bytes of plain data.
pub(crate) fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    encode_behind(&mut bytes, value);
    bytes
}

/// The same behind what is there already.
fn encode_behind<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    #[expect(clippy::expect_used, reason = "plain data of known length goes into a growing vector")]
    postcard::serialize_with_flavor(value, Growing(bytes)).expect("plain data can be encoded");
}

/// Where postcard writes to. Its own vectors begin empty, or grow byte by byte: most of what is encoded are
/// hashes, which come a byte at a time.
struct Growing<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Growing<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The state all entries add up to.
///
/// Snapshots hold the sums. What is remembered for a day or less is read from the blocks again: there
/// may be millions of it, and to write it all again and again would hold everybody up.
#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone, Debug, PartialEq))]
pub struct Books {
    accounts: Numbered<ApplicationId, Account>,
    credentials: Numbered<CredentialId, Spent>,
    payments: HashSet<[u8; 16]>,
    #[serde(skip)]
    pub(crate) attempts: Attempts,
    #[serde(skip)]
    pub(crate) memory: Memory,
    #[serde(skip)]
    under_way: UnderWay,
    /// Balances, limits, stored answers and attempts are in a database that nodes share: what is granted
    /// here is what this node has taken of it.
    #[serde(skip)]
    is_shared: bool,
    /// Totals since the beginning.
    pub(crate) totals: Totals,
    /// What providers are asked and paid.
    pub(crate) spending: Spending,
}

/// Sums over all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Answered questions.
    pub answers: u64,
    /// Answers that were charged.
    pub charges: u64,
    /// Sum of the charges.
    pub charged: Credits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    granted: Credits,
    charged: Credits,
    #[serde(skip)]
    held: Credits,
    /// Of a balance that nodes share: what is not this node's.
    #[serde(skip)]
    elsewhere: Credits,
    #[serde(skip)]
    charged_elsewhere: Credits,
}

impl Account {
    fn balance(&self) -> Credits {
        Credits(self.granted.0 - self.charged.0)
    }
}

/// Questions that were admitted and are not settled yet, by application.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug, PartialEq))]
struct UnderWay {
    all: usize,
    of: Numbered<ApplicationId, usize>,
}

impl UnderWay {
    fn has_room(&self, application: ApplicationId, most: usize) -> bool {
        let own = self.of.get(&application).copied().unwrap_or(0);
        let asking = self.of.len() + usize::from(own == 0);
        self.all < most && own < (most / (asking + 1)).max(1)
    }

    fn begin(&mut self, application: ApplicationId) {
        self.all += 1;
        *self.of.entry(application).or_default() += 1;
    }

    fn end(&mut self, application: ApplicationId) {
        let Some(own) = self.of.get_mut(&application) else { return };
        self.all -= 1;
        *own -= 1;
        if *own == 0 {
            self.of.remove(&application);
        }
    }
}

/// What a credential was charged, whoever pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Spent {
    charged: Credits,
    #[serde(skip)]
    held: Credits,
    /// Of a limit that nodes share: what this node has taken of it.
    #[serde(skip)]
    granted: Credits,
    #[serde(skip)]
    charged_elsewhere: Credits,
}

impl Spent {
    /// What may still be charged under this limit.
    fn left(&self, limit: Credits, is_shared: bool) -> i64 {
        let all = if is_shared { self.granted } else { limit };
        all.0 - self.charged.0 - self.held.0
    }
}

/// How many of so many questions are covered where so much is left of a balance and of a limit.
fn covered(left: Option<i64>, limit: Option<i64>, price: Credits, questions: usize) -> usize {
    if price <= Credits::ZERO {
        return questions;
    }
    let least = left.into_iter().chain(limit).min();
    least.map_or(questions, |least| questions.min((least / price.0).max(0) as usize))
}

/// See [`Books::to_share`].
pub(crate) struct ToShare {
    /// What each has left, and what it was charged.
    pub(crate) applications: Vec<(ApplicationId, Credits, Credits)>,
    /// What each was charged.
    pub(crate) credentials: Vec<(CredentialId, Credits)>,
    /// References of orders that are in the books.
    pub(crate) payments: Vec<[u8; 16]>,
    /// Answers that can be asked for again, and until when.
    pub(crate) answers: Vec<(StoredAnswer, Millis)>,
    /// Passes that were bought and may be given again, and until when.
    pub(crate) passes: Vec<(KeyedRef, Millis)>,
    /// What was spent on providers.
    pub(crate) spent: Vec<(SumOf, i64)>,
    /// The day, and what was counted on it.
    pub(crate) attempts: (u32, Vec<([u8; COUNTER_BYTES], i64)>),
}

/// A balance does not cover the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrears;

/// What does not cover the price of a question that is to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncovered {
    /// The application's balance.
    Balance,
    /// What the credential may be charged in all.
    Limit,
}

impl Books {
    /// What is left to an application; `None`: unlimited. Of a balance that nodes share, as it was known a
    /// moment ago.
    pub fn balance(&self, application: &Application) -> Option<Credits> {
        let account = self.accounts.get(&application.id).copied().unwrap_or_default();
        (!application.unlimited).then(|| Credits(account.balance().0 + account.elsewhere.0))
    }

    /// What of it may be charged here.
    pub(crate) fn own_balance(&self, application: &Application) -> Option<Credits> {
        let account = self.accounts.get(&application.id).copied().unwrap_or_default();
        (!application.unlimited).then(|| account.balance())
    }

    pub(crate) fn elsewhere(&self, application: ApplicationId) -> Credits {
        self.accounts.get(&application).copied().unwrap_or_default().elsewhere
    }

    /// From now on, a node's books of what several share.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
    }

    /// What this node has of everything, and what others have. `is_all`: counted anew from the database,
    /// to be called when no commit is under way; else only what others have.
    pub(crate) fn share_out(&mut self, slices: &[Slice], is_all: bool) {
        if is_all {
            self.accounts.values_mut().for_each(|account| account.granted = account.charged);
            self.credentials.values_mut().for_each(|spent| spent.granted = spent.charged);
        }
        for slice in slices {
            match slice.purse {
                (0, id) => {
                    let account = self.accounts.entry(ApplicationId(id as u32)).or_default();
                    account.elsewhere = Credits(slice.elsewhere);
                    account.charged_elsewhere = Credits(slice.charged_elsewhere);
                    if is_all {
                        account.granted = Credits(account.charged.0 + slice.remains);
                    }
                }
                (_, id) => {
                    let spent = self.credentials.entry(CredentialId(id as u32)).or_default();
                    spent.charged_elsewhere = Credits(slice.charged_elsewhere);
                    if is_all {
                        spent.granted = Credits(spent.charged.0 + slice.remains);
                    }
                }
            }
        }
    }

    /// Adds what was taken for this node; negative: gives it back.
    pub(crate) fn take_slice(&mut self, (kind, id): PurseId, credits: i64) {
        let id = id as u32;
        if kind == 0 {
            let account = self.accounts.entry(ApplicationId(id)).or_default();
            account.granted.0 += credits;
            // What was counted a moment ago may lack what another node gave back since.
            account.elsewhere.0 = (account.elsewhere.0 - credits).max(0);
        } else {
            self.credentials.entry(CredentialId(id)).or_default().granted.0 += credits;
        }
    }

    /// How many credits this node has too few of for one more question.
    pub(crate) fn lacking(&self, (kind, id): PurseId, price: Credits) -> Credits {
        let id = id as u32;
        let left = match kind {
            0 => self
                .accounts
                .get(&ApplicationId(id))
                .map_or(0, |account| account.balance().0 - account.held.0),
            _ => {
                let spent = self.credentials.get(&CredentialId(id)).copied().unwrap_or_default();
                spent.left(Credits::ZERO, true)
            }
        };
        Credits((price.0 - left).max(0))
    }

    /// What this node has too little of for the questions under way, and how much is missing: others have had it.
    pub(crate) fn overdrawn(&self) -> Vec<(PurseId, i64)> {
        let of_applications = self
            .accounts
            .iter()
            .filter(|(_, account)| account.held > Credits::ZERO)
            .map(|(id, account)| (Purse::application(id.0), account.held.0 - account.balance().0));
        let of_credentials =
            self.credentials.iter().filter(|(_, spent)| spent.held > Credits::ZERO).map(|(id, spent)| {
                (Purse::credential(id.0), spent.held.0 - (spent.granted.0 - spent.charged.0))
            });
        of_applications.chain(of_credentials).filter(|(_, lacking)| *lacking > 0).collect()
    }

    /// What this node has taken and nobody needs at this moment.
    pub(crate) fn idle_slices(&self) -> Vec<(PurseId, i64)> {
        let of_applications = self
            .accounts
            .iter()
            .map(|(id, account)| (Purse::application(id.0), account.balance().0 - account.held.0));
        let of_credentials = self
            .credentials
            .iter()
            .map(|(id, spent)| (Purse::credential(id.0), spent.granted.0 - spent.charged.0 - spent.held.0));
        of_applications.chain(of_credentials).filter(|(_, idle)| *idle > 0).collect()
    }

    /// Whether an application was ever granted anything.
    pub fn was_granted(&self, application: ApplicationId) -> bool {
        let is_known = |account: &Account| account.granted.0 + account.elsewhere.0 > 0;
        self.accounts.get(&application).is_some_and(is_known) || self.charged(application) > Credits::ZERO
    }

    /// Sets the price aside, so that requests in flight cannot overspend a balance.
    pub fn hold(&mut self, application: &Application, price: Credits) -> Result<(), Arrears> {
        if application.unlimited {
            self.under_way.begin(application.id);
            return Ok(());
        }
        let account = self.accounts.entry(application.id).or_default();
        if account.balance().0 - account.held.0 < price.0 {
            return Err(Arrears);
        }
        account.held.0 += price.0;
        self.under_way.begin(application.id);
        Ok(())
    }

    /// Whether one more question of an application may be under way, of `most` in all. When many are,
    /// each application has an equal share, and one share is kept free: whoever asks little is answered
    /// while somebody else asks too much.
    pub fn has_room(&self, application: ApplicationId, most: usize) -> bool {
        self.under_way.has_room(application, most)
    }

    /// How many of so many questions at this price a balance and a credential's limit cover; where nodes share
    /// them, what this node has taken of both.
    pub(crate) fn covers(
        &self,
        application: &Application,
        credential: &Credential,
        price: Credits,
        questions: usize,
    ) -> usize {
        let account = self.accounts.get(&application.id).copied().unwrap_or_default();
        let spent = self.credentials.get(&credential.id).copied().unwrap_or_default();
        let left = (!application.unlimited).then(|| account.balance().0 - account.held.0);
        let limit = credential.limit.map(|limit| spent.left(limit, self.is_shared));
        covered(left, limit, price, questions)
    }

    /// The same with what others have taken and may not need.
    pub(crate) fn covers_everywhere(
        &self,
        application: &Application,
        credential: &Credential,
        price: Credits,
        questions: usize,
    ) -> usize {
        let account = self.accounts.get(&application.id).copied().unwrap_or_default();
        let spent = self.credentials.get(&credential.id).copied().unwrap_or_default();
        let left = self.balance(application).map(|balance| balance.0 - account.held.0);
        let limit = credential.limit.map(|limit| spent.left(limit, false) - spent.charged_elsewhere.0);
        covered(left, limit, price, questions)
    }

    /// Gives back what [`Books::hold`] set aside.
    pub fn release(&mut self, application: &Application, price: Credits) {
        self.under_way.end(application.id);
        if !application.unlimited
            && let Some(account) = self.accounts.get_mut(&application.id)
        {
            account.held.0 = (account.held.0 - price.0).max(0);
        }
    }

    /// What was charged to an application that can run out of balance.
    pub fn charged(&self, application: ApplicationId) -> Credits {
        let account = self.accounts.get(&application).copied().unwrap_or_default();
        Credits(account.charged.0 + account.charged_elsewhere.0)
    }

    /// What was charged to a credential since the beginning.
    pub fn spent(&self, credential: CredentialId) -> Credits {
        let spent = self.credentials.get(&credential).copied().unwrap_or_default();
        Credits(spent.charged.0 + spent.charged_elsewhere.0)
    }

    /// Sets the price aside from what a credential may be charged in all.
    pub fn hold_limit(&mut self, credential: &Credential, price: Credits) -> Result<(), Arrears> {
        let Some(limit) = credential.limit else { return Ok(()) };
        let is_shared = self.is_shared;
        let spent = self.credentials.entry(credential.id).or_default();
        if spent.left(limit, is_shared) < price.0 {
            return Err(Arrears);
        }
        spent.held.0 += price.0;
        Ok(())
    }

    /// Gives back what [`Books::hold_limit`] set aside; without a limit nothing was.
    pub fn release_limit(&mut self, credential: CredentialId, price: Credits) {
        if let Some(spent) = self.credentials.get_mut(&credential) {
            spent.held.0 = (spent.held.0 - price.0).max(0);
        }
    }

    /// What these books of one machine come to where nodes share them, and what they must agree with when
    /// they are made of what nodes shared.
    pub(crate) fn to_share(&self) -> ToShare {
        let of_application =
            |(id, account): (&ApplicationId, &Account)| (*id, account.balance(), account.charged);
        ToShare {
            applications: self.accounts.iter().map(of_application).collect(),
            credentials: self.credentials.iter().map(|(id, spent)| (*id, spent.charged)).collect(),
            payments: self.payments.iter().copied().collect(),
            answers: self.memory.answers().collect(),
            passes: self.memory.passes.iter().map(|(key, until_ms)| (*key, *until_ms)).collect(),
            spent: self.spending.sums(),
            attempts: self.attempts.to_share(),
        }
    }

    /// Whether an order, or its refund, is in the books.
    pub fn has_payment(&self, reference: &[u8; 16]) -> bool {
        self.payments.contains(reference)
    }

    /// Adds an entry, when it is settled and again when it is replayed after a restart.
    pub fn apply(&mut self, entry: &Entry, side: &Side) {
        match entry {
            Entry::Answer(answer) => {
                self.count(answer);
                self.remember(entry, side);
            }
            // The database has them already, and nodes take from there.
            Entry::Grant { .. } if self.is_shared => {}
            Entry::Payment { reference, .. } if self.is_shared => {
                self.payments.insert(*reference);
            }
            Entry::Grant { application, amount, .. } => {
                self.accounts.entry(*application).or_default().granted.0 += amount.0;
            }
            Entry::SandboxReset { .. } => self.reset(),
            Entry::Erased { .. } | Entry::Operator { .. } | Entry::Seen { .. } => {}
            Entry::Asking(asking) => self.spending.asking(asking),
            Entry::Bought(bought) => self.spending.bought(bought),
            Entry::Billed(billed) => self.spending.billed(billed),
            Entry::Bulk(bulk) => {
                self.count_bulk(bulk);
                self.remember_bulk(side);
            }
            Entry::Payment { application, amount, reference, .. } => {
                if self.payments.insert(*reference) {
                    self.accounts.entry(*application).or_default().granted.0 += amount.0;
                }
            }
        }
    }

    fn count(&mut self, answer: &Answer) {
        self.totals.answers += 1;
        self.totals.charges += u64::from(answer.charged > Credits::ZERO);
        self.totals.charged.0 += answer.charged.0;
        if answer.balance.is_some() {
            self.accounts.entry(answer.application).or_default().charged.0 += answer.charged.0;
        }
        if answer.charged > Credits::ZERO {
            self.credentials.entry(answer.credential).or_default().charged.0 += answer.charged.0;
        }
    }

    /// Takes from an entry what is remembered for a day or less; its sums are counted already.
    pub fn remember(&mut self, entry: &Entry, side: &Side) {
        match entry {
            Entry::Answer(answer) => {
                if let Some(refs) = &side.attempts {
                    self.attempts.settle(refs, answer.outcome);
                }
                self.remember_answer(answer, side);
            }
            Entry::Grant { .. } | Entry::Erased { .. } | Entry::Operator { .. } | Entry::Payment { .. } => {}
            Entry::Asking(_) | Entry::Bought(_) | Entry::Billed(_) | Entry::Seen { .. } => {}
            Entry::Bulk(_) => self.remember_bulk(side),
            Entry::SandboxReset { .. } => self.forget_all(),
        }
    }

    /// Adds the sums of many rows; what was counted of them is added by [`Attempts::settle`].
    pub(crate) fn count_bulk(&mut self, bulk: &Bulk) {
        for sum in &bulk.sums {
            self.totals.answers += sum.answers;
            self.totals.charges += if sum.charged > Credits::ZERO { sum.answers } else { 0 };
        }
        let charged = bulk.charged();
        self.totals.charged.0 += charged.0;
        if bulk.balance.is_some() {
            self.accounts.entry(bulk.application).or_default().charged.0 += charged.0;
        }
        if charged > Credits::ZERO {
            self.credentials.entry(bulk.credential).or_default().charged.0 += charged.0;
        }
    }

    fn remember_bulk(&mut self, side: &Side) {
        let Some(bulk) = &side.bulk else { return };
        for (refs, outcome) in bulk.attempts.iter().zip(bulk.outcomes()) {
            if let Some((refs, outcome)) = refs.as_ref().zip(outcome) {
                self.attempts.settle(refs, outcome);
            }
        }
    }

    fn remember_answer(&mut self, answer: &Answer, side: &Side) {
        match &side.idempotency {
            // Whoever asks again finds it in the database, at any node.
            Some(idempotency) if self.is_shared => self.memory.forget(&idempotency.key),
            Some(idempotency) => self.memory.settled(idempotency, answer),
            None => {}
        }
        // Only a pass, and only one that was paid for: mismatches are never given again.
        if let Some(reuse) = side.reuse.filter(|_| answer.outcome == Outcome::Pass && !self.is_shared) {
            self.memory.passed(reuse);
        }
    }

    fn reset(&mut self) {
        self.accounts.values_mut().for_each(|account| account.charged = Credits::ZERO);
        self.credentials.values_mut().for_each(|spent| spent.charged = Credits::ZERO);
        self.forget_all();
    }

    fn forget_all(&mut self) {
        self.attempts = Attempts::default();
        self.memory = Memory::default();
    }

    /// Decides, at the last moment before the commit, what a question costs and whether it may still
    /// be answered at all. The books stay as they are until [`Books::settle`]: a commit that fails
    /// leaves nothing to undo. `pending` is what the questions before it in the same block come to.
    ///
    /// # Errors
    /// What was set aside is not there any more: the operator took credits back, or other nodes found this one
    /// dead and had what it had taken. Nothing is recorded then.
    pub fn decide(&self, pending: &mut Pending, draft: &mut Draft, now: Millis) -> Result<Answer, Uncovered> {
        if let Some((refs, policy)) = &draft.attempts
            && pending.run(&self.attempts, refs).is_some_and(|run| policy.locks(run))
        {
            // Another question of the same pair was settled meanwhile and locked it.
            draft.outcome = Outcome::AttemptsExceeded;
            draft.row = Row(6);
            draft.name_class = None;
            draft.reasons = draft.reasons.take().map(|_| Vec::new());
        }
        let is_charged = !draft.free && draft.action.charges(draft.outcome);
        let charged = if is_charged { draft.price } else { Credits::ZERO };
        let before = self.own_balance(&draft.application);
        let before = before.map(|before| Credits(before.0 - pending.charged(draft.application.id).0));
        let elsewhere = self.elsewhere(draft.application.id);
        if before.is_some_and(|before| before < charged) {
            return Err(Uncovered::Balance);
        }
        let left = draft.limit.map(|limit| self.chargeable(draft.credential, limit, pending));
        if left.is_some_and(|left| left < charged) {
            return Err(Uncovered::Limit);
        }
        pending.count(&self.attempts, draft, before.map(|_| charged), charged);
        let attempts_left = match &draft.attempts {
            _ if draft.outcome == Outcome::AttemptsExceeded => Some(0),
            Some((refs, policy)) => {
                let run = pending.run(&self.attempts, refs);
                self.attempts.left_after(refs, policy, draft.outcome, run)
            }
            None => None,
        };
        let elapsed = pending.began.saturating_duration_since(draft.began);
        Ok(Answer {
            request: draft.request,
            at_ms: now,
            application: draft.application.id,
            credential: draft.credential,
            wire: draft.wire,
            action: draft.action,
            outcome: draft.outcome,
            row: draft.row,
            name_class: draft.name_class,
            charged,
            balance: before.map(|before| Credits(before.0 - charged.0 + elsewhere.0)),
            elapsed_us: u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX),
            purpose: draft.purpose.clone(),
            reasons: draft.reasons.clone(),
            attempts_left,
        })
    }

    /// What may still be charged to a credential under this limit, whatever is set aside.
    pub(crate) fn chargeable(&self, credential: CredentialId, limit: Credits, pending: &Pending) -> Credits {
        let spent = self.credentials.get(&credential).copied().unwrap_or_default();
        let all = if self.is_shared { spent.granted } else { limit };
        Credits(all.0 - spent.charged.0 - pending.of_credential(credential).0)
    }

    /// What was held for a question is given back; then its answer, once durable, is counted.
    /// Without an answer the question is as if it had never been asked.
    pub fn settle(&mut self, draft: &Draft, durable: Option<&Answer>) {
        self.release(&draft.application, draft.price);
        self.release_limit(draft.credential, draft.price);
        match (&draft.attempts, durable) {
            (Some((refs, policy)), Some(answer)) => self.attempts.settle_held(refs, policy, answer.outcome),
            (Some((refs, policy)), None) => self.attempts.release(refs, policy),
            (None, _) => {}
        }
        match (durable, &draft.side.idempotency) {
            (Some(answer), _) => {
                self.count(answer);
                self.remember_answer(answer, &draft.side);
            }
            (None, Some(asked)) => self.memory.forget(&asked.key),
            (None, None) => {}
        }
    }
}

/// What the questions of a block that is not durable yet come to, over the books.
pub struct Pending {
    /// When the block was begun: one look at the clock for all of its questions.
    began: Instant,
    charged: Numbered<ApplicationId, Credits>,
    credentials: Numbered<CredentialId, Credits>,
    runs: Numbered<Counter, u32>,
}

impl Default for Pending {
    fn default() -> Pending {
        Pending {
            began: Instant::now(),
            charged: Numbered::default(),
            credentials: Numbered::default(),
            runs: Numbered::default(),
        }
    }
}

impl Pending {
    fn charged(&self, application: ApplicationId) -> Credits {
        self.charged.get(&application).copied().unwrap_or_default()
    }

    fn of_credential(&self, credential: CredentialId) -> Credits {
        self.credentials.get(&credential).copied().unwrap_or_default()
    }

    /// Mismatches in a row of a pair of caller and card; `None` when its day is over.
    pub(crate) fn run(&self, attempts: &Attempts, refs: &AttemptRefs) -> Option<u32> {
        let run = attempts.run(refs)?;
        Some(self.runs.get(&refs.run()).copied().unwrap_or(run))
    }

    /// `of_balance`: what of `charged` a balance pays.
    fn count(&mut self, attempts: &Attempts, draft: &Draft, of_balance: Option<Credits>, charged: Credits) {
        if let Some(of_balance) = of_balance {
            self.charged.entry(draft.application.id).or_default().0 += of_balance.0;
        }
        if draft.limit.is_some() {
            self.credentials.entry(draft.credential).or_default().0 += charged.0;
        }
        let Some((refs, _)) = &draft.attempts else { return };
        self.count_attempt(attempts, refs, draft.outcome);
    }

    pub(crate) fn count_attempt(&mut self, attempts: &Attempts, refs: &AttemptRefs, outcome: Outcome) {
        let run = match (outcome, self.run(attempts, refs)) {
            (Outcome::HolderMismatch, Some(run)) => run + 1,
            (Outcome::Pass, Some(_)) => 0,
            _ => return,
        };
        self.runs.insert(refs.run(), run);
    }
}

/// A question on its way to the ledger, with what is held for it.
pub struct Draft {
    /// The id the caller will see.
    pub request: [u8; 16],
    /// Who pays.
    pub application: std::sync::Arc<Application>,
    /// Which credential asked.
    pub credential: CredentialId,
    /// What it may be charged in all, as of when the question was admitted.
    pub limit: Option<Credits>,
    /// Over which wire.
    pub wire: Wire,
    /// What was asked.
    pub action: Action,
    /// What is to be answered.
    pub outcome: Outcome,
    /// Which row decided it.
    pub row: Row,
    /// How the name was found equal.
    pub name_class: Option<NameClass>,
    /// Why it was asked.
    pub purpose: Option<String>,
    /// More than the outcome, if the caller may be told.
    pub reasons: Option<Vec<Reason>>,
    /// What is set aside for it, and charged if the outcome is billable.
    pub price: Credits,
    /// Attempts that are held for it.
    pub attempts: Option<(AttemptRefs, AttemptPolicy)>,
    /// What belongs to it and can be erased.
    pub side: Side,
    /// What nodes that have not all of the keys yet may know it by, beside `side.idempotency`: while the key of
    /// idempotency keys is replaced, two nodes must not take one question for two.
    pub also_known_as: Vec<IdempotencyRef>,
    /// What was bought for it; durable in the same commit.
    pub bought: Vec<(Bought, Side)>,
    /// It costs nothing, whatever the outcome.
    pub free: bool,
    /// When its request began.
    pub began: std::time::Instant,
}

impl Draft {
    /// All that it is known by, the newest first.
    pub(crate) fn known_as(&self) -> impl Iterator<Item = &IdempotencyRef> {
        self.side.idempotency.iter().chain(&self.also_known_as)
    }

    /// What it is known by beside its newest name.
    pub(crate) fn aliases(&self, name: KeyedRef) -> impl Iterator<Item = (KeyedRef, IdempotencyRef)> {
        self.also_known_as.iter().map(move |asked| (name, *asked))
    }
}

/// Answers that can be asked for again, and questions under way that others can join.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug, PartialEq))]
pub struct Memory {
    known: HashMap<KeyedRef, Known>,
    /// Passes that may be given again, and until when.
    passes: HashMap<KeyedRef, Millis>,
    /// Swept of what has expired when it has grown to this.
    sweep_at: usize,
    /// When it was last swept because it was full.
    swept_at: Millis,
}

/// How often a full memory is looked through for what has expired, milliseconds.
const SWEEP_FULL_EVERY: Millis = 1000;

#[derive(Clone, Debug, PartialEq)]
struct Known {
    payload: KeyedRef,
    until_ms: Millis,
    /// `None` while the first is under way.
    answer: Option<Answer>,
}

/// What is known about a question that may have been asked before.
pub enum Recall {
    /// Never asked, or forgotten: go on.
    New,
    /// Under way: its answer will be this one's too.
    UnderWay,
    /// Answered.
    Answered(Answer),
    /// The key was used for another question.
    Conflict,
}

impl Memory {
    /// Looks a question up.
    pub fn recall(&self, asked: &IdempotencyRef, now: Millis) -> Recall {
        match self.known.get(&asked.key) {
            None => Recall::New,
            Some(known) if known.answer.is_some() && known.until_ms <= now => Recall::New,
            Some(known) if known.payload != asked.payload => Recall::Conflict,
            Some(Known { answer: Some(answer), .. }) => Recall::Answered(answer.clone()),
            Some(_) => Recall::UnderWay,
        }
    }

    /// All answers, and until when each can be asked for.
    fn answers(&self) -> impl Iterator<Item = (StoredAnswer, Millis)> {
        self.known.iter().filter_map(|(key, known)| {
            let answer = known.answer.clone()?;
            Some((StoredAnswer { key: *key, payload: known.payload, answer }, known.until_ms))
        })
    }

    /// Whether there is no room for another question; what has expired makes room.
    pub fn is_full(&mut self, most: usize, now: Millis) -> bool {
        if self.known.len() + self.passes.len() >= most && (now - self.swept_at).abs() >= SWEEP_FULL_EVERY {
            self.swept_at = now;
            self.known.retain(|_, known| known.answer.is_none() || known.until_ms > now);
            self.passes.retain(|_, until| *until > now);
        }
        self.known.len() + self.passes.len() >= most
    }

    /// Notes that a question is under way, so that a twin joins it instead of being asked itself.
    pub fn begin(&mut self, asked: &IdempotencyRef, now: Millis) {
        self.sweep(now);
        let known = Known { payload: asked.payload, until_ms: asked.until_ms, answer: None };
        self.known.insert(asked.key, known);
    }

    /// The question will not be asked after all: whoever comes now is the first.
    pub fn forget(&mut self, key: &KeyedRef) {
        self.known.remove(key);
    }

    /// Whether a pass of this caller, purpose and subject is young enough to be given again.
    pub fn has_passed(&self, key: &KeyedRef, now: Millis) -> bool {
        self.passes.get(key).is_some_and(|until| *until > now)
    }

    fn passed(&mut self, reuse: ReuseRef) {
        let until = self.passes.entry(reuse.key).or_default();
        *until = (*until).max(reuse.until_ms);
    }

    /// Forgets an answer whose subject is erased; a question under way is none yet.
    pub fn erase(&mut self, key: &KeyedRef) {
        self.passes.remove(key);
        if self.known.get(key).is_some_and(|known| known.answer.is_some()) {
            self.known.remove(key);
        }
    }

    fn settled(&mut self, asked: &IdempotencyRef, answer: &Answer) {
        // "Busy" and "too many attempts" invite to ask again: the next one must be asked, not recalled.
        if answer.outcome.class() == Class::Retryable {
            self.known.remove(&asked.key);
            return;
        }
        let known = Known { payload: asked.payload, until_ms: asked.until_ms, answer: Some(answer.clone()) };
        self.known.insert(asked.key, known);
    }

    /// Drops what has expired, whenever the map has doubled since it was last swept.
    fn sweep(&mut self, now: Millis) {
        if self.known.len() < self.sweep_at.max(1024) {
            return;
        }
        self.known.retain(|_, known| known.answer.is_none() || known.until_ms > now);
        self.sweep_at = self.known.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::CallerId;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn application(unlimited: bool) -> Arc<Application> {
        Arc::new(Application {
            id: ApplicationId(1),
            caller: CallerId(1),
            name: "shop".into(),
            actions: vec![Action::FourElements],
            unlimited,
            price: None,
            requests_per_second: None,
            attempts: None,
            encryption_required: false,
            reasons: false,
        })
    }

    fn draft(application: &Arc<Application>, outcome: Outcome) -> Draft {
        Draft {
            request: nonce(),
            application: Arc::clone(application),
            credential: CredentialId(1),
            limit: None,
            wire: Wire::AceData,
            action: Action::FourElements,
            outcome,
            row: Row(25),
            name_class: None,
            purpose: None,
            reasons: None,
            price: Credits::whole(1),
            attempts: None,
            side: Side::default(),
            also_known_as: Vec::new(),
            bought: Vec::new(),
            free: false,
            began: std::time::Instant::now(),
        }
    }

    fn granted(amount: i64) -> Books {
        let mut books = Books::default();
        let amount = Credits::whole(amount);
        books.apply(&Entry::Grant { at_ms: 0, application: ApplicationId(1), amount }, &Side::default());
        books
    }

    fn settle(books: &mut Books, draft: &mut Draft, now: Millis) -> Answer {
        let answer = books.decide(&mut Pending::default(), draft, now).unwrap();
        books.settle(draft, Some(&answer));
        answer
    }

    /// A balance of -3 was answered: what another node had given back meanwhile was not known yet.
    #[test]
    fn what_is_taken_of_a_balance_that_grew_meanwhile_is_not_told_as_a_debt() {
        let app = application(false);
        let mut books = Books::default();
        books.share();
        let purse = Purse::application(app.id.0);
        let slice = Slice { purse, remains: 0, elsewhere: 2, charged_elsewhere: 0 };
        books.share_out(&[slice], true);
        books.take_slice(purse, 5);
        assert_eq!((books.own_balance(&app), books.balance(&app)), (Some(Credits(5)), Some(Credits(5))));
        books.take_slice(purse, -5);
        assert_eq!(books.balance(&app), Some(Credits(5)));
    }

    #[test]
    fn a_payment_counts_once_however_often_it_is_recorded() {
        let app = application(false);
        let mut books = granted(1);
        let paid = |amount: i64, reference: u8| Entry::Payment {
            at_ms: 0,
            application: app.id,
            amount: Credits::whole(amount),
            reference: [reference; 16],
        };
        for entry in [paid(5, 1), paid(5, 1), paid(2, 2), paid(-2, 3), paid(-2, 3)] {
            books.apply(&entry, &Side::default());
        }
        assert_eq!(books.balance(&app), Some(Credits::whole(6)));
        assert!(books.has_payment(&[3; 16]) && !books.has_payment(&[4; 16]));
        let read: Books = postcard::from_bytes(&encoded(&books)).unwrap();
        assert!(read.has_payment(&[1; 16]), "a snapshot knows them too");
    }

    #[test]
    fn a_credential_is_charged_no_more_than_its_limit() {
        let app = application(false);
        let mut books = granted(10);
        let one = Credits::whole(1);
        let credential = Credential {
            limit: Some(Credits::whole(2)),
            ..Credential { id: CredentialId(1), ..Credential::of_this_machine(app.id) }
        };
        assert_eq!(books.hold_limit(&credential, one), Ok(()));
        assert_eq!(books.hold_limit(&credential, one), Ok(()));
        assert_eq!(books.hold_limit(&credential, one), Err(Arrears), "both are under way");
        settle(&mut books, &mut draft(&app, Outcome::NameInvalid), 0);
        assert_eq!(books.hold_limit(&credential, one), Ok(()), "a free answer gives it back");
        settle(&mut books, &mut draft(&app, Outcome::Pass), 0);
        settle(&mut books, &mut draft(&app, Outcome::Pass), 0);
        assert_eq!(
            (books.hold_limit(&credential, one), books.spent(CredentialId(1))),
            (Err(Arrears), Credits::whole(2))
        );
        let unlimited = Credential { limit: None, ..credential };
        assert_eq!(books.hold_limit(&unlimited, one), Ok(()));
    }

    #[test]
    fn requests_in_flight_cannot_overspend() {
        let app = application(false);
        let mut books = granted(2);
        assert_eq!(books.hold(&app, Credits::whole(1)), Ok(()));
        assert_eq!(books.hold(&app, Credits::whole(1)), Ok(()));
        assert_eq!(books.hold(&app, Credits::whole(1)), Err(Arrears));
        settle(&mut books, &mut draft(&app, Outcome::Pass), 0);
        settle(&mut books, &mut draft(&app, Outcome::NameInvalid), 0);
        assert_eq!(books.balance(&app), Some(Credits::whole(1)), "rejected input is free");
        assert_eq!(books.hold(&app, Credits::whole(1)), Ok(()));
    }

    #[test]
    fn who_asks_too_much_leaves_room_for_who_asks_little() {
        let app = |id: u32| Application { id: ApplicationId(id), ..(*application(true)).clone() };
        let (noisy, quiet, other) = (app(1), app(2), app(3));
        let mut books = Books::default();
        let ask = |books: &mut Books, of: &Application, times: usize| {
            let asked = (0..times).filter(|_| {
                let has_room = books.has_room(of.id, 12);
                has_room.then(|| books.hold(of, Credits::whole(1)).unwrap()).is_some()
            });
            asked.count()
        };
        assert_eq!(ask(&mut books, &noisy, 100), 6, "alone, half of all");
        assert_eq!(ask(&mut books, &quiet, 1), 1);
        assert_eq!(ask(&mut books, &noisy, 100), 0);
        assert_eq!(ask(&mut books, &quiet, 100), 3, "two of them, a third each");
        assert_eq!(ask(&mut books, &other, 100), 2, "and never more than all");
        books.release(&noisy, Credits::whole(1));
        assert_eq!(ask(&mut books, &noisy, 100), 0, "still over its share");
        assert_eq!(ask(&mut books, &other, 100), 1);
        (0..5).for_each(|_| books.release(&noisy, Credits::whole(1)));
        (0..4).for_each(|_| books.release(&quiet, Credits::whole(1)));
        (0..3).for_each(|_| books.release(&other, Credits::whole(1)));
        assert_eq!(books, Books::default(), "nothing is left of it");
        assert!(books.has_room(noisy.id, 1) && !books.has_room(noisy.id, 0));
    }

    #[test]
    fn an_unlimited_application_is_charged_on_paper() {
        let app = application(true);
        let mut books = Books::default();
        assert_eq!(books.hold(&app, Credits::whole(1)), Ok(()));
        let answer = settle(&mut books, &mut draft(&app, Outcome::CardLost), 7);
        assert_eq!((answer.charged, answer.balance), (Credits::whole(1), None));
        assert_eq!(books.totals.charges, 1);
    }

    #[test]
    fn a_question_is_recalled_until_it_expires_unless_it_should_be_asked_again() {
        let app = application(true);
        let mut books = Books::default();
        let asked = IdempotencyRef { key: [1; 16], payload: [2; 16], until_ms: 100 };
        assert!(matches!(books.memory.recall(&asked, 0), Recall::New));
        books.memory.begin(&asked, 0);
        assert!(matches!(books.memory.recall(&asked, 0), Recall::UnderWay));

        let mut busy = draft(&app, Outcome::SourceBusy);
        busy.side.idempotency = Some(asked);
        settle(&mut books, &mut busy, 0);
        assert!(matches!(books.memory.recall(&asked, 0), Recall::New), "busy is asked again");

        let mut pass = draft(&app, Outcome::Pass);
        pass.side.idempotency = Some(asked);
        books.memory.begin(&asked, 0);
        let answer = books.decide(&mut Pending::default(), &mut pass, 0).unwrap();
        assert!(matches!(books.memory.recall(&asked, 99), Recall::UnderWay), "not durable yet");
        books.settle(&pass, Some(&answer));
        assert!(matches!(books.memory.recall(&asked, 99), Recall::Answered(_)));
        assert!(matches!(books.memory.recall(&asked, 100), Recall::New));
        let other = IdempotencyRef { payload: [3; 16], ..asked };
        assert!(matches!(books.memory.recall(&other, 99), Recall::Conflict));
    }

    #[test]
    fn amounts_read_and_print() {
        for text in ["0", "1", "0.057", "12.000001"] {
            assert_eq!(text.parse::<Credits>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "1.0000001", "1,5", ".5"] {
            assert!(text.parse::<Credits>().is_err(), "{text}");
        }
    }

    fn refs(card: u8) -> AttemptRefs {
        AttemptRefs {
            day: 1,
            caller: CallerId(1),
            values: [Some([card; 16]), None, None, None],
            card: [card; 16],
            across: Some([card; 16]),
        }
    }

    /// Holds what admission holds, and hands over a question about this card.
    fn held(books: &mut Books, app: &Arc<Application>, outcome: Outcome, card: u8, key: u8) -> Option<Draft> {
        let asked = IdempotencyRef { key: [key; 16], payload: [card; 16], until_ms: 1000 };
        if !matches!(books.memory.recall(&asked, 0), Recall::New)
            || books.hold(app, Credits::whole(1)).is_err()
        {
            return None;
        }
        let policy = AttemptPolicy::default();
        if books.attempts.hold(&refs(card), &policy).is_err() {
            books.release(app, Credits::whole(1));
            return None;
        }
        books.memory.begin(&asked, 0);
        let side = Side { idempotency: Some(asked), attempts: Some(refs(card)), ..Side::default() };
        Some(Draft { attempts: Some((refs(card), policy)), side, ..draft(app, outcome) })
    }

    #[test]
    fn a_block_cannot_overspend_nor_pass_a_lock() {
        let app = application(false);
        let mut books = granted(4);
        let mut drafts: Vec<_> =
            (0..4).filter_map(|key| held(&mut books, &app, Outcome::HolderMismatch, 7, key)).collect();
        assert_eq!(drafts.len(), 4, "all of them look innocent");
        let mut pending = Pending::default();
        let decided: Vec<_> =
            drafts.iter_mut().map(|draft| books.decide(&mut pending, draft, 5).unwrap()).collect();
        assert_eq!(decided[2].balance, Some(Credits::whole(1)));
        assert_eq!(decided[3].outcome, Outcome::AttemptsExceeded, "three mismatches lock");
        assert_eq!(decided[3].balance, Some(Credits::whole(1)), "and that is free");

        // The operator takes back what was set aside.
        let takes = Entry::Grant { at_ms: 0, application: ApplicationId(1), amount: Credits::whole(-3) };
        books.apply(&takes, &Side::default());
        let mut pending = Pending::default();
        drafts.iter_mut().for_each(|draft| draft.attempts = None);
        assert!(books.decide(&mut pending, &mut drafts[0], 5).is_ok());
        assert_eq!(books.decide(&mut pending, &mut drafts[1], 5).unwrap_err(), Uncovered::Balance);
    }

    proptest! {
        #[test]
        fn a_block_that_is_not_committed_was_never_asked(
            before in proptest::collection::vec((0usize..23, 0u8..4), 0..20),
            lost in proptest::collection::vec((0usize..23, 0u8..4), 1..20),
        ) {
            let app = application(false);
            let mut books = granted(15);
            books.attempts.hold(&refs(9), &AttemptPolicy::default()).unwrap();
            books.attempts.release(&refs(9), &AttemptPolicy::default());
            for (key, (outcome, card)) in before.iter().enumerate() {
                let Some(mut draft) = held(&mut books, &app, Outcome::ALL[*outcome], *card, key as u8) else { continue };
                settle(&mut books, &mut draft, 5);
            }
            let as_before = books.clone();
            let mut pending = Pending::default();
            let mut drafts = Vec::new();
            for (key, (outcome, card)) in lost.iter().enumerate() {
                let key = 100 + key as u8;
                drafts.extend(held(&mut books, &app, Outcome::ALL[*outcome], *card, key));
            }
            for draft in &mut drafts {
                let _ = books.decide(&mut pending, draft, 5);
            }
            drafts.iter().for_each(|draft| books.settle(draft, None));
            prop_assert_eq!(books, as_before);
        }

        #[test]
        fn replaying_the_entries_gives_the_same_books(
            outcomes in proptest::collection::vec(0usize..23, 1..60),
        ) {
            let app = application(false);
            let mut live = granted(40);
            let mut replayed = granted(40);
            for index in outcomes {
                if live.hold(&app, Credits::whole(1)).is_err() { break; }
                let mut draft = draft(&app, Outcome::ALL[index]);
                let answer = settle(&mut live, &mut draft, 5);
                replayed.apply(&Entry::Answer(answer), &draft.side);
            }
            prop_assert_eq!(live.balance(&app), replayed.balance(&app));
            prop_assert_eq!(live.totals, replayed.totals);
            prop_assert!(live.balance(&app).unwrap() >= Credits::ZERO);
        }

        #[test]
        fn a_block_reads_back(count in 0usize..20) {
            let (mut block, mut sides) = (Block::new(3, count), SideRows::default());
            let mut tree = Frontier::default();
            let mut pushed = Vec::new();
            for at in 0..count {
                let entry = Entry::SandboxReset { at_ms: at as i64 };
                let mut side = Side { consent: Some("c".repeat(at)), ..Side::default() };
                block.push(&entry, &mut side, &mut tree, &mut sides);
                pushed.push(side);
            }
            let read = Block::from_bytes(block.as_bytes()).unwrap();
            prop_assert_eq!(&read, &block);
            prop_assert_eq!((read.first_leaf(), read.decoded().unwrap().len()), (3, count));
            let read_sides: Vec<Option<Side>> = postcard::from_bytes(&sides.sealed(<[u8]>::to_vec)).unwrap();
            let read_sides: Vec<Side> = read_sides.into_iter().flatten().collect();
            prop_assert_eq!(&read_sides, &pushed);
            prop_assert!(read.entries().zip(&pushed).all(|((commitment, _), side)| side_matches(side, commitment)));
        }
    }
}
