//! Requests that were refused: neither charged nor audited, kept beside the answers for whoever wonders
//! why something fails. They come from memory, so a crash may lose the last moment of them.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::{SCHEMA, StoreError, UsageFile, UsageFilter};
use crate::action::Action;
use crate::caller::{ApplicationId, CredentialId, Wire};
use crate::clock::Millis;
use crate::verify::uuid_text;
use std::path::Path;

/// A refused request of a known caller.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The id the caller saw.
    pub request: [u8; 16],
    /// Unix milliseconds.
    pub at_ms: Millis,
    /// Who asked.
    pub application: ApplicationId,
    /// With which credential.
    pub credential: CredentialId,
    /// On which wire.
    pub wire: Wire,
    /// What was asked, if that was known.
    pub action: Option<Action>,
    /// The wire's own code.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Microseconds from the request to its refusal.
    pub elapsed_us: u32,
}

/// What is counted together: day (UTC), application, wire, action, code, status.
type Counted = (i64, ApplicationId, Wire, Option<Action>, &'static str, u16);

/// Refusals that are not in the file yet. However many come, counts are exact; of the requests themselves the
/// first of a moment are kept.
#[derive(Debug, Default)]
pub struct Refusals {
    requests: Vec<Refusal>,
    counts: HashMap<Counted, u64>,
}

/// Requests kept of a moment: the projector comes several times a second.
const WAITING_MAX: usize = 2_000;

/// Requests kept of an application, the newest.
const KEPT_MAX: u32 = 1_000;

/// Days that are kept.
const KEPT_DAYS: i64 = 60;

impl Refusals {
    /// Notes one.
    pub fn note(&mut self, refusal: Refusal) {
        let Refusal { at_ms, application, wire, action, code, status, .. } = refusal;
        let day = at_ms.div_euclid(86_400_000);
        *self.counts.entry((day, application, wire, action, code, status)).or_default() += 1;
        if self.requests.len() < WAITING_MAX {
            self.requests.push(refusal);
        }
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// A refused request as it is listed.
#[derive(Clone, Debug)]
pub struct RefusalRow {
    /// The id the caller saw.
    pub request_id: String,
    /// Unix milliseconds.
    pub at_ms: Millis,
    /// Who asked.
    pub application: u32,
    /// With which credential.
    pub credential: u32,
    /// `tencent`, `acedata` or `native`.
    pub wire: String,
    /// What was asked; empty: that was not known.
    pub action: String,
    /// The wire's own code.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// Microseconds from the request to its refusal.
    pub elapsed_us: u32,
}

/// How often a code was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalCount {
    /// `tencent`, `acedata` or `native`.
    pub wire: String,
    /// The wire's own code.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// How often.
    pub requests: u64,
}

impl UsageFile {
    /// Takes over what was refused, and forgets what is old.
    pub fn take_refusals(&mut self, refusals: &Refusals, now: Millis) -> Result<(), StoreError> {
        let mut run = || -> rusqlite::Result<()> {
            let transaction = self.db.transaction()?;
            for refusal in &refusals.requests {
                insert(&transaction, refusal)?;
            }
            for ((day, application, wire, action, code, status), count) in &refusals.counts {
                let action = action.map_or("", Action::name);
                transaction
                    .prepare_cached(
                        "INSERT INTO refused VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                           ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
                    )?
                    .execute(params![day, application.0, wire.name(), action, code, status, *count as i64])?;
            }
            let mut applications: Vec<u32> =
                refusals.counts.keys().map(|(_, application, ..)| application.0).collect();
            applications.sort_unstable();
            applications.dedup();
            for application in applications {
                transaction
                    .prepare_cached(
                        "DELETE FROM refusal WHERE application = ?1 AND id <= (SELECT id FROM refusal
                           WHERE application = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                    )?
                    .execute(params![application, KEPT_MAX])?;
            }
            let oldest = now.div_euclid(86_400_000) - KEPT_DAYS;
            transaction.prepare_cached("DELETE FROM refused WHERE day < ?1")?.execute([oldest])?;
            transaction.commit()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// How many refused requests are kept, and one page (limit, offset) of them, the newest first.
    pub fn refusals(
        path: &Path,
        filter: &UsageFilter,
        page: (u32, u32),
    ) -> Result<(u32, Vec<RefusalRow>), StoreError> {
        // Refused requests have no outcome.
        let of_any_outcome = UsageFilter { outcomes: Vec::new(), ..filter.clone() };
        let (wanted, mut values) = of_any_outcome.sql();
        let wanted = wanted + &statuses(filter, &mut values);
        let (limit, offset) = page;
        let run = |db: Connection| -> rusqlite::Result<_> {
            let count = format!("SELECT count(*) FROM refusal WHERE {wanted}");
            let count = db.query_row(&count, params_from_iter(&values), |row| row.get(0))?;
            let find = format!(
                "SELECT request, at_ms, application, credential, wire, action, code, status, elapsed_us
                   FROM refusal WHERE {wanted} ORDER BY id DESC LIMIT {limit} OFFSET {offset}"
            );
            let mut find = db.prepare(&find)?;
            let rows: rusqlite::Result<Vec<RefusalRow>> =
                find.query_map(params_from_iter(&values), read)?.collect();
            Ok((count, rows?))
        };
        run(SCHEMA.open_reader(path)?).map_err(|cause| SCHEMA.error(cause))
    }

    /// How often which code was answered, by whole days (UTC), the most frequent first.
    pub fn refusal_counts(path: &Path, filter: &UsageFilter) -> Result<Vec<RefusalCount>, StoreError> {
        const DAY_MS: i64 = 86_400_000;
        let days = UsageFilter {
            applications: filter.applications.clone(),
            actions: filter.actions.clone(),
            ..UsageFilter::default()
        };
        let (mut wanted, mut values) = days.sql();
        wanted += &statuses(filter, &mut values);
        for (bound, day) in [
            (">=", filter.from_ms.map(|at| at.div_euclid(DAY_MS))),
            ("<=", filter.until_ms.map(|at| (at - 1).div_euclid(DAY_MS))),
        ] {
            if let Some(day) = day {
                wanted += &format!(" AND day {bound} ?");
                values.push(day.into());
            }
        }
        let find = format!(
            "SELECT wire, code, status, sum(requests) AS requests FROM refused WHERE {wanted}
               GROUP BY wire, code, status ORDER BY requests DESC, wire, code"
        );
        let read = |row: &rusqlite::Row<'_>| {
            let (wire, code, status) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(RefusalCount { wire, code, status, requests: row.get::<_, i64>(3)? as u64 })
        };
        let run = |db: Connection| -> rusqlite::Result<Vec<RefusalCount>> {
            db.prepare(&find)?.query_map(params_from_iter(&values), read)?.collect()
        };
        run(SCHEMA.open_reader(path)?).map_err(|cause| SCHEMA.error(cause))
    }
}

fn statuses(filter: &UsageFilter, values: &mut Vec<Value>) -> String {
    if filter.statuses.is_empty() {
        return String::new();
    }
    values.extend(filter.statuses.iter().map(|status| Value::from(*status)));
    format!(" AND status IN ({})", vec!["?"; filter.statuses.len()].join(","))
}

fn insert(db: &Connection, refusal: &Refusal) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO refusal VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?.execute(
        params![
            &refusal.request[..],
            refusal.at_ms,
            refusal.application.0,
            refusal.credential.0,
            refusal.wire.name(),
            refusal.action.map_or("", Action::name),
            refusal.code,
            refusal.status,
            refusal.elapsed_us,
        ],
    )?;
    Ok(())
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<RefusalRow> {
    let request: [u8; 16] = row.get(0)?;
    Ok(RefusalRow {
        request_id: uuid_text(&request),
        at_ms: row.get(1)?,
        application: row.get(2)?,
        credential: row.get(3)?,
        wire: row.get(4)?,
        action: row.get(5)?,
        code: row.get(6)?,
        status: row.get(7)?,
        elapsed_us: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LedgerFile;
    use crate::vault::{KeyRing, Vault};

    fn refusal(application: u32, at_ms: i64, code: &'static str, status: u16) -> Refusal {
        Refusal {
            request: [at_ms as u8; 16],
            at_ms,
            application: ApplicationId(application),
            credential: CredentialId(1),
            wire: Wire::AceData,
            action: Some(Action::FourElements),
            code,
            status,
            elapsed_us: 10,
        }
    }

    #[test]
    fn refusals_are_counted_listed_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&KeyRing::generate());
        let ledger = LedgerFile::open(&dir.path().join("ledger.db"), &vault).unwrap().file;
        let path = dir.path().join("usage.db");
        let mut file = UsageFile::open(&path, ledger.reader().unwrap()).unwrap();
        for part in 0..3 {
            let mut refusals = Refusals::default();
            for at in 0..700 {
                refusals.note(refusal(1, 1000 * part + at, "too_many_requests", 429));
            }
            refusals.note(refusal(2, 5, "used_up", 403));
            file.take_refusals(&refusals, 1).unwrap();
        }
        let of = |application: u32| UsageFilter {
            applications: Some(vec![application]),
            ..UsageFilter::default()
        };
        let (count, rows) = UsageFile::refusals(&path, &of(1), (2, 1)).unwrap();
        assert_eq!((count, rows[0].at_ms, rows[1].at_ms), (KEPT_MAX, 2698, 2697), "the newest, of one");
        assert_eq!(
            UsageFile::refusals(&path, &of(2), (10, 0)).unwrap().0,
            3,
            "nobody is pushed out by another"
        );
        let counts = UsageFile::refusal_counts(&path, &of(1)).unwrap();
        assert_eq!((counts.len(), counts[0].requests, counts[0].status), (1, 2100, 429), "all are counted");
        let other = UsageFilter { statuses: vec![403], ..UsageFilter::default() };
        assert_eq!(UsageFile::refusals(&path, &other, (10, 0)).unwrap().0, 3);
        // Old days go.
        file.take_refusals(&Refusals::default(), 61 * 86_400_000).unwrap();
        assert_eq!(UsageFile::refusal_counts(&path, &of(1)).unwrap(), []);
    }
}
