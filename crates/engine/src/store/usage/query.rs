//! Usage rows for people: filtered, page by page, and summed up.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::clock::Millis;

/// Which rows; what is empty or `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// Of these applications; `None`: of all.
    pub applications: Option<Vec<u32>>,
    /// With these credentials.
    pub credentials: Vec<u32>,
    /// Actions by name.
    pub actions: Vec<String>,
    /// Outcomes by name.
    pub outcomes: Vec<String>,
    /// Not before, Unix milliseconds.
    pub from_ms: Option<Millis>,
    /// Before, Unix milliseconds.
    pub until_ms: Option<Millis>,
    /// The one with this id.
    pub request: Option<[u8; 16]>,
    /// HTTP statuses of refused requests; an answer's is always 200.
    pub statuses: Vec<u16>,
}

/// Answers of one day, action and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayUse {
    /// Days since 1970, counted in the time zone that was asked for.
    pub day: i64,
    /// What was asked.
    pub action: String,
    /// What was answered.
    pub outcome: String,
    /// How often.
    pub answers: u64,
    /// What that was charged.
    pub charged: Credits,
}

impl UsageFilter {
    pub(super) fn sql(&self) -> (String, Vec<Value>) {
        let mut sql = String::from("1");
        let mut values: Vec<Value> = Vec::new();
        let mut one_of = |column: &str, wanted: Vec<Value>| {
            let marks = vec!["?"; wanted.len()].join(",");
            sql += &format!(" AND {column} IN ({marks})");
            values.extend(wanted);
        };
        let numbers = |list: &[u32]| list.iter().map(|number| Value::from(*number)).collect();
        let texts = |list: &[String]| list.iter().map(|text| Value::from(text.clone())).collect();
        if let Some(applications) = &self.applications {
            one_of("application", numbers(applications));
        }
        if !self.credentials.is_empty() {
            one_of("credential", numbers(&self.credentials));
        }
        if !self.actions.is_empty() {
            one_of("action", texts(&self.actions));
        }
        if !self.outcomes.is_empty() {
            one_of("outcome", texts(&self.outcomes));
        }
        if let Some(request) = &self.request {
            one_of("request", vec![Value::from(request.to_vec())]);
        }
        for (bound, at) in [(">=", self.from_ms), ("<", self.until_ms)] {
            if let Some(at) = at {
                sql += &format!(" AND at_ms {bound} ?");
                values.push(at.into());
            }
        }
        (sql, values)
    }
}

impl UsageFile {
    /// How many rows there are, and one page (limit, offset) of them, the newest first.
    pub fn page(
        path: &Path,
        ledger: &LedgerReader,
        filter: &UsageFilter,
        page: (u32, u32),
        vault: &Vault,
    ) -> Result<(u32, Vec<UsageRow>), StoreError> {
        let (wanted, values) = filter.sql();
        let (limit, offset) = page;
        let run = |db: Connection| -> rusqlite::Result<_> {
            let count = format!("SELECT count(*) FROM usage WHERE {wanted}");
            let count = db.query_row(&count, params_from_iter(&values), |row| row.get(0))?;
            let find = format!(
                "SELECT {COLUMNS} FROM usage WHERE {wanted} ORDER BY at_ms DESC, leaf DESC
                   LIMIT {limit} OFFSET {offset}"
            );
            let rows: Vec<_> = db
                .prepare(&find)?
                .query_map(params_from_iter(&values), read)?
                .collect::<rusqlite::Result<_>>()?;
            Ok((count, rows))
        };
        let (count, rows) = run(SCHEMA.open_reader(path)?).map_err(|cause| SCHEMA.error(cause))?;
        Ok((count, with_masks(rows, ledger, vault)?))
    }

    /// Sums by day, action and outcome; a day begins `offset_ms` before midnight UTC.
    pub fn days(path: &Path, filter: &UsageFilter, offset_ms: i64) -> Result<Vec<DayUse>, StoreError> {
        let (wanted, values) = filter.sql();
        let find = format!(
            "SELECT (at_ms + {offset_ms}) / 86400000 AS day, action, outcome, sum(answers), sum(charged) FROM usage
               WHERE {wanted} GROUP BY day, action, outcome ORDER BY day, action, outcome"
        );
        let read = |row: &rusqlite::Row<'_>| {
            let (action, outcome) = (row.get(1)?, row.get(2)?);
            Ok(DayUse {
                day: row.get(0)?,
                action,
                outcome,
                answers: row.get::<_, i64>(3)? as u64,
                charged: Credits(row.get(4)?),
            })
        };
        let run = |db: Connection| -> rusqlite::Result<Vec<DayUse>> {
            db.prepare(&find)?.query_map(params_from_iter(&values), read)?.collect()
        };
        run(SCHEMA.open_reader(path)?).map_err(|cause| SCHEMA.error(cause))
    }
}
