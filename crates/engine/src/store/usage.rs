//! The ledger as rows to query. Derived from the blocks and droppable; it lags by less than a second
//! unless the machine is overloaded, and says by how much.

use std::path::Path;

use rusqlite::{Connection, params};

use super::StoreError;
use super::ledger::{CheckedBlock, page_after, read_sides};
use super::sqlite::{Durability, Schema};
use crate::claim::Masks;
use crate::ledger::{Answer, Entry, Side, encoded};
use crate::vault::{Seal, Vault};
use crate::verify::uuid_text;

const SCHEMA: Schema = Schema {
    file: "usage.db",
    durability: Durability::Derived,
    versions: &["
        CREATE TABLE usage (
            request     BLOB PRIMARY KEY,
            at_ms       INTEGER NOT NULL,
            application INTEGER NOT NULL,
            credential  INTEGER NOT NULL,
            wire        TEXT NOT NULL,
            outcome     TEXT NOT NULL,
            row         INTEGER NOT NULL,
            charged     INTEGER NOT NULL,  -- millionths of a credit
            balance     INTEGER,
            elapsed_us  INTEGER NOT NULL,
            masks       BLOB               -- sealed, bound to the request
        ) WITHOUT ROWID;
        CREATE INDEX usage_by_application ON usage (application, at_ms);
        CREATE INDEX usage_by_time ON usage (at_ms);
        CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
        INSERT INTO progress VALUES (1, 0);
    "],
};

/// The usage file and a reader of the ledger that feeds it.
#[derive(Debug)]
pub struct UsageFile {
    db: Connection,
    ledger: Connection,
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
    /// `tencent` or `acedata`.
    pub wire: String,
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
    /// The elements, masked; absent where the operator switched masks off.
    pub masks: Option<Masks>,
}

impl UsageFile {
    /// Opens the file; `ledger` is a reader of the ledger file.
    pub fn open(path: &Path, ledger: Connection) -> Result<UsageFile, StoreError> {
        Ok(UsageFile { db: SCHEMA.open(path)?, ledger })
    }

    /// Takes over what the ledger has and this has not; gives the number of blocks taken.
    pub fn catch_up(&mut self, vault: &Vault) -> Result<u64, StoreError> {
        let mut taken = 0;
        loop {
            let after = self.progress()?;
            let page = page_after(&self.ledger, after)?;
            let Some(last) = page.last() else { return Ok(taken) };
            let until = last.seq;
            let mut blocks = Vec::with_capacity(page.len());
            for read in &page {
                let block = read.decoded()?;
                let sides = read_sides(&self.ledger, block.seq, vault)?;
                blocks.push((block, sides));
            }
            taken += blocks.len() as u64;
            self.take(&blocks, until, vault).map_err(|cause| SCHEMA.error(cause))?;
        }
    }

    fn progress(&self) -> Result<i64, StoreError> {
        self.db
            .query_row("SELECT seq FROM progress", [], |row| row.get(0))
            .map_err(|cause| SCHEMA.error(cause))
    }

    fn take(
        &mut self,
        blocks: &[(CheckedBlock, Vec<Side>)],
        until: i64,
        vault: &Vault,
    ) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        for (block, sides) in blocks {
            for (at, entry) in block.entries.iter().enumerate() {
                if let Entry::Answer(answer) = entry {
                    insert(&transaction, answer, sides.get(at), vault)?;
                }
            }
        }
        transaction.execute("UPDATE progress SET seq = ?1", [until])?;
        transaction.commit()
    }

    /// The newest answers, of one application or of all.
    pub fn newest(
        path: &Path,
        application: Option<u32>,
        most: u32,
        vault: &Vault,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let db = SCHEMA.open_reader(path)?;
        let find =
            "SELECT request, at_ms, application, wire, outcome, row, charged, balance, elapsed_us, masks
                    FROM usage WHERE ?1 IS NULL OR application = ?1 ORDER BY at_ms DESC LIMIT ?2";
        let run = || -> rusqlite::Result<Vec<UsageRow>> {
            db.prepare(find)?.query_map(params![application, most], |row| read(row, vault))?.collect()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }
}

fn insert(db: &Connection, answer: &Answer, side: Option<&Side>, vault: &Vault) -> rusqlite::Result<()> {
    let masks = side.and_then(|side| side.masks.as_ref());
    let sealed = masks.map(|masks| vault.seal(Seal::Side, &answer.request, &encoded(masks)));
    db.prepare_cached("INSERT OR IGNORE INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
        &answer.request[..],
        answer.at_ms,
        answer.application.0,
        answer.credential.0,
        answer.wire.name(),
        answer.outcome.name(),
        answer.row.0,
        answer.charged.0,
        answer.balance.map(|balance| balance.0),
        answer.elapsed_us,
        sealed,
    ])?;
    Ok(())
}

fn read(row: &rusqlite::Row<'_>, vault: &Vault) -> rusqlite::Result<UsageRow> {
    use crate::ledger::Credits;
    let request: [u8; 16] = row.get(0)?;
    let sealed: Option<Vec<u8>> = row.get(9)?;
    let masks = sealed.and_then(|sealed| {
        let plain = vault.open(Seal::Side, &request, &sealed).ok()?;
        postcard::from_bytes(&plain).ok()
    });
    let balance: Option<i64> = row.get(7)?;
    Ok(UsageRow {
        request_id: uuid_text(&request),
        at_ms: row.get(1)?,
        application: row.get(2)?,
        wire: row.get(3)?,
        outcome: row.get(4)?,
        row: row.get(5)?,
        charged: Credits(row.get(6)?).to_string(),
        balance: balance.map(|balance| Credits(balance).to_string()),
        elapsed_us: row.get(8)?,
        masks,
    })
}
