//! The ledger as rows to query. Derived from the blocks and droppable; it lags by less than a second
//! unless the machine is overloaded, and says by how much.

mod query;
mod refusals;

pub use query::{DayUse, UsageFilter};
pub use refusals::{Refusal, RefusalCount, RefusalRow, Refusals};

use std::path::Path;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, params, params_from_iter};

use super::StoreError;
use super::ledger::{CheckedBlock, LedgerReader, ReadBlock, read_sides, side_at};
use super::node::{first_block, node_of};
use super::sqlite::{Durability, Schema};
use crate::claim::Masks;
use crate::ledger::{Answer, Credits, Entry, Side};
use crate::vault::Vault;
use crate::verify::uuid_text;

const SCHEMA: Schema = Schema {
    file: "usage.db",
    durability: Durability::Derived,
    versions: &["
        CREATE TABLE usage (
            leaf        INTEGER NOT NULL,    -- its number in the tree of its node, that node's before it: rows are only ever appended
            part        INTEGER NOT NULL,    -- of many rows of a file: the number of the outcome; else 0
            seq         INTEGER NOT NULL,    -- the block, whose side row has the masks until it is erased
            at          INTEGER NOT NULL,    -- which entry of the block
            request     BLOB NOT NULL,
            at_ms       INTEGER NOT NULL,
            application INTEGER NOT NULL,
            credential  INTEGER NOT NULL,
            wire        TEXT NOT NULL,
            action      TEXT NOT NULL,
            outcome     TEXT NOT NULL,
            row         INTEGER NOT NULL,
            charged     INTEGER NOT NULL,    -- millionths of a credit
            balance     INTEGER,
            elapsed_us  INTEGER NOT NULL,
            answers     INTEGER NOT NULL,    -- 1, or how many rows of a file
            PRIMARY KEY (leaf, part)
        ) WITHOUT ROWID;
        CREATE INDEX usage_by_time ON usage (at_ms);
        CREATE INDEX usage_by_application ON usage (application, at_ms);
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

/// The usage file and a reader of the ledger that feeds it.
#[derive(Debug)]
pub struct UsageFile {
    db: Connection,
    ledger: LedgerReader,
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
        Ok(UsageFile { db: SCHEMA.open(path)?, ledger })
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
                let blocks = page.iter().map(ReadBlock::decoded).collect::<Result<Vec<_>, _>>()?;
                let Some(last) = blocks.last() else { break };
                self.take(&blocks, last.seq).map_err(|cause| SCHEMA.error(cause))?;
                taken += blocks.len() as u64;
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

    fn take(&mut self, blocks: &[CheckedBlock], until: i64) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        let many = insert(ROWS_AT_ONCE);
        let mut rows: Vec<NewRow> = Vec::with_capacity(ROWS_AT_ONCE);
        let mut add = |row: NewRow| -> rusqlite::Result<()> {
            rows.push(row);
            if rows.len() == ROWS_AT_ONCE {
                transaction.prepare_cached(&many)?.execute(params_from_iter(rows.drain(..).flatten()))?;
            }
            Ok(())
        };
        for block in blocks {
            for (at, entry) in block.entries.iter().enumerate() {
                match entry {
                    Entry::Answer(answer) => add(new_row(block, at, 0, (answer, 1)))?,
                    Entry::Bulk(bulk) => {
                        for (answer, answers) in bulk.by_outcome() {
                            add(new_row(block, at, answer.outcome as i64, (&answer, answers)))?;
                        }
                    }
                    _ => {}
                }
            }
        }
        for row in rows {
            transaction.prepare_cached(&insert(1))?.execute(params_from_iter(row))?;
        }
        transaction.execute("INSERT OR REPLACE INTO progress VALUES (?1, ?2)", [node_of(until), until])?;
        transaction.commit()
    }

    /// The newest answers, of one application or of all; `ledger` has their masks.
    pub fn newest(
        path: &Path,
        ledger: &LedgerReader,
        application: Option<u32>,
        most: u32,
        vault: &Vault,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let db = SCHEMA.open_reader(path)?;
        let of = if application.is_some() { "WHERE application = ?1" } else { "WHERE ?1 IS NULL" };
        let find = format!("SELECT {COLUMNS} FROM usage {of} ORDER BY at_ms DESC, leaf DESC LIMIT ?2");
        let run = || -> rusqlite::Result<Vec<(i64, usize, UsageRow)>> {
            db.prepare(&find)?.query_map(params![application, most], read)?.collect()
        };
        let rows = run().map_err(|cause| SCHEMA.error(cause))?;
        with_masks(rows, ledger, vault)
    }
}

/// Rows with the masks of their side rows, unless those are erased.
fn with_masks(
    rows: Vec<(i64, usize, UsageRow)>,
    ledger: &LedgerReader,
    vault: &Vault,
) -> Result<Vec<UsageRow>, StoreError> {
    // Rows of one block follow one another: its side row is opened once.
    let mut opened: Option<(i64, Vec<Option<Side>>)> = None;
    let with_masks = |(seq, at, mut row): (i64, usize, UsageRow)| {
        if opened.as_ref().is_none_or(|(known, _)| *known != seq) {
            opened = Some((seq, read_sides(&ledger.db, seq, vault)?));
        }
        let side = opened.as_ref().and_then(|(_, sides)| side_at(sides, at));
        row.masks = side.and_then(|side| side.masks.clone());
        Ok(row)
    };
    rows.into_iter().map(with_masks).collect()
}

/// What [`read`] reads, in its order.
const COLUMNS: &str = "seq, at, request, at_ms, application, wire, outcome, row, charged, balance, elapsed_us, \
     credential, action, answers";

fn is_one(answers: &u64) -> bool {
    *answers == 1
}

/// Rows that one statement adds: to begin one and find the places for its first row takes longer than to add
/// another row behind it.
const ROWS_AT_ONCE: usize = 32;

/// Adds so many rows.
fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; ROW_COLUMNS].join(","));
    format!("INSERT OR IGNORE INTO usage VALUES {}", vec![row; rows].join(","))
}

const ROW_COLUMNS: usize = 16;

/// The columns of a row, in their order.
type NewRow = [ToSqlOutput<'static>; ROW_COLUMNS];

fn new_row(block: &CheckedBlock, at: usize, part: i64, (answer, answers): (&Answer, u64)) -> NewRow {
    let number = |number: i64| ToSqlOutput::from(number);
    [
        number(first_block(node_of(block.seq)) + block.block.first_leaf as i64 + at as i64),
        number(part),
        number(block.seq),
        number(at as i64),
        ToSqlOutput::from(answer.request.to_vec()),
        number(answer.at_ms),
        number(answer.application.0.into()),
        number(answer.credential.0.into()),
        ToSqlOutput::from(answer.wire.name()),
        ToSqlOutput::from(answer.action.name()),
        ToSqlOutput::from(answer.outcome.name()),
        number(answer.row.0.into()),
        number(answer.charged.0),
        ToSqlOutput::Owned(answer.balance.map_or(Value::Null, |balance| Value::Integer(balance.0))),
        number(answer.elapsed_us.into()),
        number(answers as i64),
    ]
}

/// A row without its masks, and where those are.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, usize, UsageRow)> {
    let request: [u8; 16] = row.get(2)?;
    let balance: Option<i64> = row.get(9)?;
    let usage = UsageRow {
        request_id: uuid_text(&request),
        at_ms: row.get(3)?,
        application: row.get(4)?,
        wire: row.get(5)?,
        outcome: row.get(6)?,
        row: row.get(7)?,
        charged: Credits(row.get(8)?).to_string(),
        balance: balance.map(|balance| Credits(balance).to_string()),
        elapsed_us: row.get(10)?,
        answers: row.get::<_, i64>(13)? as u64,
        masks: None,
        credential: row.get(11)?,
        action: row.get(12)?,
    };
    Ok((row.get(0)?, row.get::<_, i64>(1)? as usize, usage))
}
