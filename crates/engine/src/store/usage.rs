//! The ledger as rows to query. Derived from the blocks and droppable; it lags by less than a second
//! unless the machine is overloaded, and says by how much.

mod packed;
mod query;
mod refusals;

pub use query::{DayUse, UsageFilter};
pub use refusals::{Refusal, RefusalCount, RefusalRow, Refusals};

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use self::packed::Packed;
use super::StoreError;
use super::ledger::{LedgerReader, ReadBlock, read_sides, side_at};
use super::node::{first_block, node_of};
use super::sqlite::{Durability, Schema};
use crate::action::Action;
use crate::caller::{ApplicationId, Numbered};
use crate::claim::Masks;
use crate::ledger::{Credits, Entry, Side};
use crate::vault::Vault;

const SCHEMA: Schema = Schema {
    file: "usage.db",
    durability: Durability::Derived,
    versions: &["
        CREATE TABLE usage (                 -- see packed.rs
            id          INTEGER PRIMARY KEY,
            application INTEGER NOT NULL,
            from_ms     INTEGER NOT NULL,    -- the oldest of the answers
            until_ms    INTEGER NOT NULL,    -- the newest
            answers     BLOB NOT NULL
        );
        CREATE INDEX usage_by_time ON usage (until_ms, from_ms, application);
        CREATE INDEX usage_by_application ON usage (application, until_ms, from_ms);
        CREATE TABLE refusal (
            id          INTEGER PRIMARY KEY,
            request     BLOB NOT NULL,
            at_ms       INTEGER NOT NULL,
            application INTEGER NOT NULL,
            credential  INTEGER NOT NULL,
            wire        TEXT NOT NULL,
            action      TEXT NOT NULL,       -- empty: not known
            code        TEXT NOT NULL,
            status      INTEGER NOT NULL,
            elapsed_us  INTEGER NOT NULL
        );
        CREATE INDEX refusal_by_application ON refusal (application, id);
        CREATE TABLE refused (
            day         INTEGER NOT NULL,    -- since 1970, UTC
            application INTEGER NOT NULL,
            wire        TEXT NOT NULL,
            action      TEXT NOT NULL,
            code        TEXT NOT NULL,
            status      INTEGER NOT NULL,
            requests    INTEGER NOT NULL,
            PRIMARY KEY (day, application, wire, action, code, status)
        ) WITHOUT ROWID;
        CREATE TABLE progress (node INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
    "],
};

/// Blocks taken over in one go: a millisecond's work where each has some dozens of answers.
const BLOCKS_AT_ONCE: usize = 32;

/// The usage file and a reader of the ledger that feeds it.
#[derive(Debug)]
pub struct UsageFile {
    db: Connection,
    ledger: LedgerReader,
    /// The row of an application that may have room for more answers, since the start.
    open: Numbered<ApplicationId, i64>,
}

/// One answered question, for people who look after the system.
#[derive(Clone, Debug, serde::Serialize)]
pub struct UsageRow {
    /// The id the caller saw.
    pub request_id: String,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Who paid.
    pub application: u32,
    /// With which credential; 0: on the machine itself.
    pub credential: u32,
    /// `tencent`, `acedata` or `native`.
    pub wire: String,
    /// What was asked.
    pub action: String,
    /// What was answered.
    pub outcome: String,
    /// Which row of the decision table; 0: the sandbox's script.
    pub row: u8,
    /// Credits.
    pub charged: String,
    /// Credits left; absent when unlimited.
    pub balance: Option<String>,
    /// Microseconds from the request to the settlement.
    pub elapsed_us: u32,
    /// Rows of a file that were answered so at once; `request_id` is then the job's.
    #[serde(skip_serializing_if = "is_one")]
    pub answers: u64,
    /// The elements, masked; absent where the operator switched masks off.
    pub masks: Option<Masks>,
}

impl UsageFile {
    /// Opens the file; `ledger` is what it is made from.
    pub fn open(path: &Path, ledger: LedgerReader) -> Result<UsageFile, StoreError> {
        Ok(UsageFile { db: SCHEMA.open(path)?, ledger, open: Numbered::default() })
    }

    /// Copies the file as it is now; see [`super::Accounts::copy`].
    pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
        SCHEMA.copy(from, to, |_, _| {})
    }

    /// Takes over what the ledger has and this has not; gives the number of blocks taken.
    pub fn catch_up(&mut self) -> Result<u64, StoreError> {
        let mut taken = 0;
        for node in self.ledger.nodes()? {
            loop {
                let page = self.ledger.db.page_after(self.progress(node)?)?;
                if page.is_empty() {
                    break;
                }
                for blocks in page.chunks(BLOCKS_AT_ONCE) {
                    self.take(blocks)?;
                    taken += blocks.len() as u64;
                    // Whoever answers questions may share the core, and has waited for it meanwhile.
                    std::thread::yield_now();
                }
            }
        }
        Ok(taken)
    }

    fn progress(&self, node: i64) -> Result<i64, StoreError> {
        let find = "SELECT coalesce(max(seq), ?2) FROM progress WHERE node = ?1";
        self.db
            .query_row(find, [node, first_block(node)], |row| row.get(0))
            .map_err(|cause| SCHEMA.error(cause))
    }

    fn take(&mut self, blocks: &[ReadBlock]) -> Result<(), StoreError> {
        let Some(until) = blocks.last().map(|block| block.seq) else { return Ok(()) };
        let answers = by_application(blocks)?;
        let mut run = || {
            let transaction = self.db.transaction()?;
            for (application, answers) in &answers {
                add(&transaction, &mut self.open, *application, answers)?;
            }
            transaction
                .execute("INSERT OR REPLACE INTO progress VALUES (?1, ?2)", [node_of(until), until])?;
            transaction.commit()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }
}

fn by_application(blocks: &[ReadBlock]) -> Result<BTreeMap<ApplicationId, Vec<Packed>>, StoreError> {
    let mut all: BTreeMap<ApplicationId, Vec<Packed>> = BTreeMap::new();
    for block in blocks {
        for (at, entry) in block.decoded()?.entries.iter().enumerate() {
            match entry {
                Entry::Answer(answer) => {
                    let of = all.entry(answer.application).or_default();
                    of.push(Packed::new(block.seq, at, answer, 1));
                }
                Entry::Bulk(bulk) => {
                    let packed = |(answer, answers)| Packed::new(block.seq, at, &answer, answers);
                    all.entry(bulk.application).or_default().extend(bulk.by_outcome().map(packed));
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

/// Fills the row that has room, then others.
fn add(
    db: &Connection,
    open: &mut Numbered<ApplicationId, i64>,
    application: ApplicationId,
    mut answers: &[Packed],
) -> rusqlite::Result<()> {
    let find = "SELECT id, answers FROM usage WHERE id = ?1 AND application = ?2";
    // One that was not committed in the end is not there.
    let mut last: Option<(i64, Vec<u8>)> = match open.get(&application) {
        None => None,
        Some(id) => db
            .prepare_cached(find)?
            .query_row(params![id, application.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?,
    };
    while !answers.is_empty() {
        let (id, mut bytes) = last.take().map_or((None, Vec::new()), |(id, bytes)| (Some(id), bytes));
        let room = packed::ANSWERS_MAX.saturating_sub(bytes.len() / packed::BYTES);
        let (fit, rest) = answers.split_at(room.min(answers.len()));
        answers = rest;
        let times = || fit.iter().map(|answer| answer.at_ms);
        let (Some(from_ms), Some(until_ms)) = (times().min(), times().max()) else { continue };
        fit.iter().for_each(|answer| answer.write(&mut bytes));
        let id = match id {
            Some(id) => {
                let change = "UPDATE usage SET from_ms = min(from_ms, ?2), until_ms = max(until_ms, ?3),
                              answers = ?4 WHERE id = ?1";
                db.prepare_cached(change)?.execute(params![id, from_ms, until_ms, bytes])?;
                id
            }
            None => {
                let add =
                    "INSERT INTO usage (application, from_ms, until_ms, answers) VALUES (?1, ?2, ?3, ?4)";
                db.prepare_cached(add)?.execute(params![application.0, from_ms, until_ms, bytes])?;
                db.last_insert_rowid()
            }
        };
        open.insert(application, id);
    }
    Ok(())
}

/// Rows for people, with the masks of their side rows, unless those are erased.
fn with_masks(
    answers: &[(Packed, u32)],
    ledger: &LedgerReader,
    vault: &Vault,
) -> Result<Vec<UsageRow>, StoreError> {
    // Answers of one block follow one another: its side row is opened once.
    let mut opened: Option<(i64, Vec<Option<Side>>)> = None;
    let with_masks = |(answer, application): &(Packed, u32)| {
        if opened.as_ref().is_none_or(|(known, _)| *known != answer.seq) {
            opened = Some((answer.seq, read_sides(&ledger.db, answer.seq, vault)?));
        }
        let side = opened.as_ref().and_then(|(_, sides)| side_at(sides, answer.at as usize));
        let masks = side.and_then(|side| side.masks.clone());
        Ok(UsageRow { masks, ..answer.row(*application)? })
    };
    answers.iter().map(with_masks).collect()
}

fn is_one(answers: &u64) -> bool {
    *answers == 1
}
