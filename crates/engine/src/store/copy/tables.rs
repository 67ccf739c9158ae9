//! What is in the ledger's tables, as one kind of store has it and as the other has it.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CopyError, Progress};
use crate::ledger::{Credits, ToShare, encoded};
use crate::store::StoreError;
use crate::store::either::{Either, Value};
use crate::store::ledger::{LedgerFile, Opened};
use crate::store::shared::PurseId;
use crate::vault::Vault;

/// Rows of one commit where they are small.
const ROWS: usize = 1000;

/// A table as both kinds of store have it. The first column of a page is the key, a whole number.
pub(super) struct Table {
    what: &'static str,
    file: Texts,
    shared: Texts,
}

struct Texts {
    page: &'static str,
    put: &'static str,
    last: &'static str,
    count: &'static str,
}

impl Table {
    fn texts(&self, of: &Either) -> &Texts {
        match of {
            Either::File(..) => &self.file,
            Either::Shared(_) => &self.shared,
        }
    }
}

/// A table of these columns, of which the first is the key; in a database, of node 0.
macro_rules! of_node {
    ($what:literal, $table:literal, $columns:literal, $shared:literal, $key:literal, $values:literal, $most:literal) => {
        Table {
            what: $what,
            file: of_all!($table, $columns, $key, $values, $most),
            shared: Texts {
                page: concat!(
                    "SELECT ",
                    $shared,
                    " FROM ",
                    $table,
                    " WHERE node = 0 AND ",
                    $key,
                    " > $1 ORDER BY ",
                    $key,
                    " LIMIT ",
                    $most
                ),
                put: concat!("INSERT INTO ", $table, " (", $shared, ", node) VALUES (", $values, ", 0)"),
                last: concat!("SELECT max(", $key, ") FROM ", $table, " WHERE node = 0"),
                count: concat!("SELECT count(*) FROM ", $table, " WHERE node = 0"),
            },
        }
    };
}

/// A table that no node has for itself.
macro_rules! of_all {
    ($what:literal, $table:literal, $columns:literal, $shared:literal, $key:literal, $values:literal) => {
        Table {
            what: $what,
            file: of_all!($table, $columns, $key, $values, "1000"),
            shared: of_all!($table, $shared, $key, $values, "1000"),
        }
    };
    ($table:literal, $columns:literal, $key:literal, $values:literal, $most:literal) => {
        Texts {
            page: concat!(
                "SELECT ",
                $columns,
                " FROM ",
                $table,
                " WHERE ",
                $key,
                " > $1 ORDER BY ",
                $key,
                " LIMIT ",
                $most
            ),
            put: concat!("INSERT INTO ", $table, " (", $columns, ") VALUES (", $values, ")"),
            last: concat!("SELECT max(", $key, ") FROM ", $table),
            count: concat!("SELECT count(*) FROM ", $table),
        }
    };
}

/// In an order in which each row finds what it refers to. Blocks come last: where one is, its side row is.
pub(super) const LEDGER: [Table; 7] = [
    of_all!(
        "callers", "caller", "id, name, standing, operator", "id, name, standing, operator", "id", "$1, $2, $3, $4"
    ),
    of_all!(
        "applications", "application",
        "id, caller, name, actions, unlimited, price, requests_per_second, attempts, encryption_required, reasons",
        "id, caller, name, actions, unlimited, price, requests_per_second, attempts, encryption_required, reasons",
        "id", "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10"
    ),
    of_all!(
        "credentials", "credential",
        "id, application, kind, secret_id, secret_key, session_token, signed_payload_only, token_hash, token_last4,
         expires_at_ms, addresses, previous, previous_until_ms, actions, purpose, spend_limit",
        "id, application, kind, secret_id, secret_key, session_token, signed_payload_only, token_hash, token_last4,
         expires_at_ms, addresses, previous, previous_until_ms, actions, purpose, spend_limit",
        "id", "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16"
    ),
    of_all!(
        "rows of files", "bulk", "seq, job, first_row, rows", "seq, job, first_row, n_rows", "seq", "$1, $2, $3, $4"
    ),
    of_node!(
        "checkpoints", "checkpoint", "size, root, at_ms, signature, key",
        "size, root, at_ms, signature, key_version", "size", "$1, $2, $3, $4, $5", "1000"
    ),
    of_node!("side rows", "side", "seq, bytes", "seq, bytes", "seq", "$1, $2", "256"),
    of_node!(
        "blocks", "block", "seq, at_ms, size, root, bytes", "seq, at_ms, size, root, bytes", "seq",
        "$1, $2, $3, $4, $5", "256"
    ),
];

/// The sums of a node up to a block. They mean something else where several nodes share what is granted, so
/// they only go there: files add theirs up anew.
pub(super) const SNAPSHOT: Table =
    of_node!("sums", "snapshot", "seq, bytes", "seq, bytes", "seq", "$1, $2", "2");

/// Copies a table, from where it ends in the other place.
pub(super) fn copy_table(
    table: &Table,
    from: &Either,
    to: &Either,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), CopyError> {
    let all = count(table, from)?;
    let mut done = count(table, to)?;
    let last = to.one(table.texts(to).last, vec![], |row| row.get::<Option<i64>>(0))?.flatten();
    let mut after = Value::Int(last.unwrap_or(-1));
    loop {
        tell(Progress { what: table.what, done, all });
        let rows = from.rows(table.texts(from).page, &after)?;
        let Some(last) = rows.last() else { break };
        after = last[0].clone();
        to.put_all(table.texts(to).put, &rows)?;
        done += rows.len() as u64;
    }
    CopyError::unless_same(table.what, all, count(table, to)?)
}

fn count(table: &Table, of: &Either) -> Result<u64, StoreError> {
    let count = of.one(table.texts(of).count, vec![], |row| row.get::<i64>(0))?;
    Ok(count.unwrap_or(0) as u64)
}

/// What a machine knows from its ledger alone and nodes share beside theirs: what is left, what was charged, and
/// what is remembered for a day.
pub(super) struct Shares {
    /// What is left, and what was charged, millionths of a credit. Of credentials, what was charged.
    pub(super) purses: BTreeMap<PurseId, (i64, i64)>,
    /// What is left of credentials' limits.
    limits: Vec<(i64, i64)>,
    rest: Option<ToShare>,
}

impl Shares {
    /// As the ledger of a file comes to.
    pub(super) fn of_file(ledger: &Path, vault: &Vault) -> Result<Shares, StoreError> {
        let Opened { books, directory, .. } = LedgerFile::open(ledger, vault)?;
        let shares = books.to_share();
        let applications = shares.applications.iter();
        let credentials = shares.credentials.iter();
        let purses = applications
            .map(|(id, left, charged)| ((0, i64::from(id.0)), (left.0, charged.0)))
            .chain(credentials.map(|(id, charged)| ((1, i64::from(id.0)), (0, charged.0))));
        let limits = directory.credentials().filter_map(|credential| {
            Some((i64::from(credential.id.0), credential.limit?.0 - books.spent(credential.id).0))
        });
        Ok(Shares { purses: purses.collect(), limits: limits.collect(), rest: Some(shares) })
    }

    /// As nodes share it.
    pub(super) fn of_database(database: &Either) -> Result<Shares, StoreError> {
        let find = "
            SELECT CAST(kind AS BIGINT), id, CAST(sum(remains) AS BIGINT), CAST(sum(charged) AS BIGINT) FROM (
                SELECT kind, id, free AS remains, 0 AS charged FROM purse
                UNION ALL SELECT kind, id, remains, charged FROM slice
            ) AS parts GROUP BY kind, id";
        let purses = database.many(find, vec![], |row| {
            let (kind, id) = (row.get::<i64>(0)? as i16, row.get(1)?);
            // What is left of a limit is no credit of anybody's.
            let left = if kind == 0 { row.get(2)? } else { 0 };
            Ok(((kind, id), (left, row.get(3)?)))
        })?;
        Ok(Shares { purses: purses.into_iter().collect(), limits: Vec::new(), rest: None })
    }

    /// What is left to everybody, of how many.
    pub(super) fn balances(&self) -> (u64, Credits) {
        let applications = self.purses.iter().filter(|((kind, _), _)| *kind == 0);
        let left: Vec<i64> = applications.map(|(_, (left, _))| *left).collect();
        (left.len() as u64, Credits(left.iter().sum()))
    }

    /// Those that are not as if they had never been.
    pub(super) fn known(&self) -> BTreeMap<PurseId, (i64, i64)> {
        let is_known = |(_, (left, charged)): &(&PurseId, &(i64, i64))| (*left, *charged) != (0, 0);
        self.purses.iter().filter(is_known).map(|(purse, sums)| (*purse, *sums)).collect()
    }

    /// Puts it into a database, where a part of it may be already.
    pub(super) fn put(&self, to: &Either, tell: &mut dyn FnMut(Progress)) -> Result<(), StoreError> {
        let Some(rest) = &self.rest else { return Ok(()) };
        let number = |number: i64| Value::Int(number);
        // What was overdrawn stays with the node that overdrew it: nobody can take less than nothing.
        let applications = self.purses.iter().filter(|((kind, _), _)| *kind == 0);
        let free = applications.map(|(&(_, id), &(left, _))| (0, id, left.max(0)));
        let limits = self.limits.iter().map(|&(id, left)| (1, id, left));
        let free = free.chain(limits).map(|(kind, id, free)| vec![number(kind), number(id), number(free)]);
        let slices = self.purses.iter().map(|(&(kind, id), &(left, charged))| {
            vec![number(kind.into()), number(id), number(left.min(0)), number(charged)]
        });
        let payments = rest.payments.iter().map(|reference| vec![Value::Bytes(reference.to_vec())]);
        let answers = rest.answers.iter().map(|(stored, until_ms)| {
            let bytes =
                [stored.key.to_vec(), stored.payload.to_vec(), encoded(&stored.answer)].map(Value::Bytes);
            let [key, payload, answer] = bytes;
            vec![key.clone(), payload, number(*until_ms), answer, key]
        });
        let passes = rest.passes.iter();
        let passes = passes.map(|(key, until_ms)| vec![Value::Bytes(key.to_vec()), number(*until_ms)]);
        let spent = rest.spent.iter().map(|((provider, sum, period), amount)| {
            vec![
                Value::from(provider.as_str()),
                number(*sum as i64),
                number((*period).into()),
                number(*amount),
            ]
        });
        let (day, counters) = &rest.attempts;
        let attempts = counters.iter().map(|(counter, count)| {
            vec![number(i64::from(*day)), Value::Bytes(counter.to_vec()), number(*count)]
        });
        let mut put = |what, all: usize, put, rows: &mut dyn Iterator<Item = Vec<Value>>| {
            let (mut done, all) = (0, all as u64);
            loop {
                tell(Progress { what, done, all });
                let part: Vec<Vec<Value>> = rows.take(ROWS).collect();
                if part.is_empty() {
                    return Ok::<_, StoreError>(());
                }
                done += part.len() as u64;
                to.put_all(put, &part)?;
            }
        };
        let purses = self.purses.len();
        put("balances", purses, PURSE, &mut { free })?;
        put("charges", purses, SLICE, &mut { slices })?;
        put("payments", rest.payments.len(), PAYMENT, &mut { payments })?;
        put("answers", rest.answers.len(), ANSWERED, &mut { answers })?;
        put("passes", rest.passes.len(), PASSED, &mut { passes })?;
        put("what providers cost", rest.spent.len(), SPENT, &mut { spent })?;
        put("attempts", counters.len(), ATTEMPT, &mut { attempts })
    }
}

const PURSE: &str = "INSERT INTO purse VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const SLICE: &str = "INSERT INTO slice VALUES (0, $1, $2, $3, $4) ON CONFLICT DO NOTHING";
const PAYMENT: &str = "INSERT INTO payment VALUES ($1) ON CONFLICT DO NOTHING";
const ANSWERED: &str = "INSERT INTO answered VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const PASSED: &str = "INSERT INTO passed VALUES ($1, $2) ON CONFLICT DO NOTHING";
const SPENT: &str = "INSERT INTO spent VALUES (0, $1, $2, $3, $4) ON CONFLICT DO NOTHING";
const ATTEMPT: &str = "INSERT INTO attempt VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
