//! Usage rows for people: filtered, page by page, and summed up.

use std::collections::{BinaryHeap, HashMap};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::clock::Millis;
use crate::outcome::Outcome;

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

/// What single answers are held against.
pub(super) struct Wanted {
    credentials: Option<Vec<u32>>,
    actions: Option<Vec<u8>>,
    outcomes: Option<Vec<u8>>,
    from_ms: Millis,
    until_ms: Millis,
    request: Option<[u8; 16]>,
}

impl Wanted {
    fn of(filter: &UsageFilter) -> Wanted {
        fn some<T, U>(list: &[T], number: impl Fn(&T) -> Option<U>) -> Option<Vec<U>> {
            // A name that nobody knows restricts, too.
            (!list.is_empty()).then(|| list.iter().filter_map(number).collect())
        }
        Wanted {
            credentials: some(&filter.credentials, |number| Some(*number)),
            actions: some(&filter.actions, |name| name.parse::<Action>().ok().map(|action| action as u8)),
            outcomes: some(&filter.outcomes, |name| Outcome::named(name).map(|outcome| outcome as u8)),
            from_ms: filter.from_ms.unwrap_or(Millis::MIN),
            until_ms: filter.until_ms.unwrap_or(Millis::MAX),
            request: filter.request,
        }
    }

    pub(super) fn fits(&self, answer: &Packed) -> bool {
        fn one_of<T: PartialEq>(wanted: &Option<Vec<T>>, is: T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted.contains(&is))
        }
        answer.at_ms >= self.from_ms
            && answer.at_ms < self.until_ms
            && self.request.is_none_or(|request| request == answer.request)
            && one_of(&self.credentials, answer.credential)
            && one_of(&self.actions, answer.action)
            && one_of(&self.outcomes, answer.outcome)
    }
}

/// Calls `each` with what may hold answers that are wanted (the time of its newest, the application, the answers), the
/// newest first, until that has enough.
fn look_through(
    db: &Connection,
    filter: &UsageFilter,
    mut each: impl FnMut(Millis, u32, &[u8]) -> bool,
) -> rusqlite::Result<()> {
    let mut sql = String::from("SELECT id, until_ms FROM usage WHERE until_ms >= ? AND from_ms < ?");
    let mut values = vec![filter.from_ms.unwrap_or(Millis::MIN), filter.until_ms.unwrap_or(Millis::MAX)];
    if let Some(applications) = &filter.applications {
        sql += &format!(" AND application IN ({})", vec!["?"; applications.len()].join(","));
        values.extend(applications.iter().map(|number| i64::from(*number)));
    }
    // Only where they are is put in order by SQLite: the answers are read one after the other.
    let mut find = db.prepare(&format!("{sql} ORDER BY until_ms DESC"))?;
    let mut fetch = db.prepare("SELECT application, answers FROM usage WHERE id = ?1")?;
    let mut places = find.query(params_from_iter(&values))?;
    while let Some(place) = places.next()? {
        let (id, until_ms): (i64, Millis) = (place.get(0)?, place.get(1)?);
        let mut found = fetch.query([id])?;
        if let Some(row) = found.next()?
            && !each(until_ms, row.get(0)?, row.get_ref(1)?.as_blob()?)
        {
            break;
        }
    }
    Ok(())
}

/// A page (limit, offset) of the answers that are wanted, the newest first, and whose they are.
fn newest_first(
    db: &Connection,
    filter: &UsageFilter,
    (limit, offset): (u32, u32),
) -> rusqlite::Result<Vec<(Packed, u32)>> {
    let wanted = Wanted::of(filter);
    let (mut page, mut passed) = (Vec::new(), 0);
    // Answers of several applications and nodes lie beside each other: they wait until all others are older.
    let mut waiting: BinaryHeap<(Packed, u32)> = BinaryHeap::new();
    let mut take = |waiting: &mut BinaryHeap<(Packed, u32)>, newer_than: Millis| {
        while page.len() < limit as usize
            && waiting.peek().is_some_and(|(answer, _)| answer.at_ms > newer_than)
        {
            let newest = waiting.pop();
            page.extend(newest.filter(|_| passed >= offset));
            passed += 1;
        }
        page.len() < limit as usize
    };
    look_through(db, filter, |until_ms, application, answers| {
        let lacks = take(&mut waiting, until_ms);
        waiting.extend(Packed::wanted(answers, &wanted).map(|answer| (answer, application)));
        lacks
    })?;
    take(&mut waiting, Millis::MIN);
    Ok(page)
}

fn read<T>(path: &Path, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
    run(&SCHEMA.open_reader(path)?).map_err(|cause| SCHEMA.error(cause))
}

impl UsageFile {
    /// The newest answers, of one application or of all; `ledger` has their masks.
    pub fn newest(
        path: &Path,
        ledger: &LedgerReader,
        application: Option<u32>,
        most: u32,
        vault: &Vault,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let filter = UsageFilter {
            applications: application.map(|application| vec![application]),
            ..UsageFilter::default()
        };
        with_masks(&read(path, |db| newest_first(db, &filter, (most, 0)))?, ledger, vault)
    }

    /// How many rows there are, and one page (limit, offset) of them, the newest first.
    pub fn page(
        path: &Path,
        ledger: &LedgerReader,
        filter: &UsageFilter,
        page: (u32, u32),
        vault: &Vault,
    ) -> Result<(u32, Vec<UsageRow>), StoreError> {
        let wanted = Wanted::of(filter);
        let (count, rows) = read(path, |db| {
            let mut count = 0;
            look_through(db, filter, |_, _, answers| {
                count += Packed::wanted(answers, &wanted).count();
                true
            })?;
            Ok((count, newest_first(db, filter, page)?))
        })?;
        Ok((u32::try_from(count).unwrap_or(u32::MAX), with_masks(&rows, ledger, vault)?))
    }

    /// Sums by day, action and outcome; a day begins `offset_ms` before midnight UTC.
    pub fn days(path: &Path, filter: &UsageFilter, offset_ms: i64) -> Result<Vec<DayUse>, StoreError> {
        let wanted = Wanted::of(filter);
        let mut sums: HashMap<(i64, u8, u8), (Packed, u64, i64)> = HashMap::new();
        read(path, |db| {
            look_through(db, filter, |_, _, answers| {
                for answer in Packed::wanted(answers, &wanted) {
                    let day = (answer.at_ms + offset_ms).div_euclid(86_400_000);
                    let (_, number, charged) =
                        sums.entry((day, answer.action, answer.outcome)).or_insert((answer, 0, 0));
                    *number += answer.answers;
                    *charged += answer.charged;
                }
                true
            })
        })?;
        let day_use = |((day, ..), (answer, answers, charged)): ((i64, u8, u8), (Packed, u64, i64))| {
            let (action, outcome) = answer.kind()?;
            Ok(DayUse {
                day,
                action: action.name().into(),
                outcome: outcome.name().into(),
                answers,
                charged: Credits(charged),
            })
        };
        let mut days: Vec<DayUse> = sums.into_iter().map(day_use).collect::<Result<_, StoreError>>()?;
        days.sort_by(|a, b| (a.day, &a.action, &a.outcome).cmp(&(b.day, &b.action, &b.outcome)));
        Ok(days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Frontier;
    use crate::caller::{CredentialId, Wire};
    use crate::ledger::{Answer, Block, SideRows};
    use crate::outcome::Row;
    use crate::store::{Commit, LedgerFile, Opened};
    use crate::vault::{KeyRing, nonce};
    use proptest::prelude::*;

    /// Application, credential, time, action, outcome.
    type Asked = (u32, u32, i64, usize, usize);

    fn answer((application, credential, at_ms, action, outcome): Asked) -> Answer {
        Answer {
            request: nonce(),
            at_ms,
            application: ApplicationId(application),
            credential: CredentialId(credential),
            wire: Wire::Native,
            action: Action::ALL[action],
            outcome: Outcome::ALL[outcome],
            row: Row(3),
            name_class: None,
            charged: Credits(at_ms),
            balance: (credential == 1).then_some(Credits(-1)),
            elapsed_us: 7,
            purpose: None,
            reasons: None,
            attempts_left: None,
        }
    }

    /// Makes answers durable in one block; gives its tree.
    fn append(file: &mut LedgerFile, tree: &Frontier, vault: &Vault, answers: &[Answer]) -> Frontier {
        let (mut block, mut tree, mut side_rows) =
            (Block::new(tree.size(), answers.len()), tree.clone(), SideRows::default());
        let mut sides = vec![Side::default(); answers.len()];
        for (answer, side) in answers.iter().zip(&mut sides) {
            block.push(&Entry::Answer(answer.clone()), side, &mut tree, &mut side_rows);
        }
        let commit = Commit {
            block: &block,
            sides: &sides.iter().collect::<Vec<_>>(),
            side_rows: &side_rows,
            tree: &tree,
            also_known_as: &[],
            checkpoint: None,
            rows: None,
            at_ms: 1,
        };
        file.append(&commit, vault).unwrap();
        tree
    }

    fn filter() -> impl Strategy<Value = UsageFilter> {
        let some = |numbers: std::ops::Range<u32>| proptest::collection::vec(numbers, 0..3);
        let bound = || proptest::option::of(0i64..1500);
        (proptest::option::of(some(1..5)), some(1..4), some(0..9), some(0..30), bound(), bound()).prop_map(
            |(applications, credentials, actions, outcomes, from_ms, until_ms)| UsageFilter {
                applications,
                credentials,
                actions: actions
                    .iter()
                    .map(|at| Action::ALL.get(*at as usize).map_or("none", |action| action.name()).into())
                    .collect(),
                outcomes: outcomes
                    .iter()
                    .map(|at| Outcome::ALL.get(*at as usize).map_or("none", |outcome| outcome.name()).into())
                    .collect(),
                from_ms,
                until_ms,
                ..UsageFilter::default()
            },
        )
    }

    fn is_wanted(filter: &UsageFilter, answer: &Answer) -> bool {
        let names = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
        filter.applications.as_ref().is_none_or(|wanted| wanted.contains(&answer.application.0))
            && (filter.credentials.is_empty() || filter.credentials.contains(&answer.credential.0))
            && names(&filter.actions, answer.action.name())
            && names(&filter.outcomes, answer.outcome.name())
            && filter.from_ms.is_none_or(|from| answer.at_ms >= from)
            && filter.until_ms.is_none_or(|until| answer.at_ms < until)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever is asked, at times in whatever order, and taken over in how many parts.
        #[test]
        fn pages_and_sums_are_those_of_the_answers(
            asked in proptest::collection::vec((1u32..4, 1u32..3, 0i64..1500, 0usize..7, 0usize..28), 1..900),
            blocks in proptest::collection::vec((1usize..200, any::<bool>()), 1..12),
            filters in proptest::collection::vec(filter(), 12),
            (limit, offset) in (0u32..300, 0u32..300),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let vault = Vault::new(&KeyRing::generate());
            let Opened { mut file, mut tree, .. } =
                LedgerFile::open(&dir.path().join("ledger.db"), &vault).unwrap();
            let (ledger, path) = (file.reader().unwrap(), dir.path().join("usage.db"));
            let mut usage = UsageFile::open(&path, file.reader().unwrap()).unwrap();
            let mut all: Vec<((i64, usize), Answer)> = Vec::new();
            let mut rest = asked.iter().copied().map(answer);
            for (number, (entries, taken_over)) in blocks.iter().enumerate() {
                let answers: Vec<Answer> = rest.by_ref().take(*entries).collect();
                if answers.is_empty() {
                    break;
                }
                tree = append(&mut file, &tree, &vault, &answers);
                all.extend(answers.into_iter().enumerate().map(|(at, answer)| ((number as i64, at), answer)));
                if *taken_over {
                    usage.catch_up().unwrap();
                    // As a start does.
                    usage.open.retain(|_, _| number % 2 == 0);
                }
            }
            usage.catch_up().unwrap();
            all.sort_by_key(|(place, answer)| std::cmp::Reverse((answer.at_ms, *place)));
            for filter in filters {
                let wanted: Vec<&Answer> =
                    all.iter().map(|(_, answer)| answer).filter(|answer| is_wanted(&filter, answer)).collect();
                let (count, rows) = UsageFile::page(&path, &ledger, &filter, (limit, offset), &vault).unwrap();
                prop_assert_eq!(count as usize, wanted.len());
                let page: Vec<_> = wanted.iter().skip(offset as usize).take(limit as usize).collect();
                prop_assert_eq!(rows.len(), page.len());
                for (row, answer) in rows.iter().zip(page) {
                    prop_assert_eq!(&row.request_id, &crate::verify::uuid_text(&answer.request));
                    prop_assert_eq!(
                        (row.at_ms, row.application, row.credential, &*row.wire, &*row.action, &*row.outcome),
                        (answer.at_ms, answer.application.0, answer.credential.0, "native", answer.action.name(),
                            answer.outcome.name())
                    );
                    prop_assert_eq!((row.row, row.elapsed_us, row.answers), (3, 7, 1));
                    prop_assert_eq!(&row.charged, &answer.charged.to_string());
                    prop_assert_eq!(&row.balance, &answer.balance.map(|balance| balance.to_string()));
                }
                let days = UsageFile::days(&path, &filter, 86_400_000 - 700).unwrap();
                prop_assert!(days.is_sorted_by_key(|day| (day.day, day.action.clone(), day.outcome.clone())));
                let sums: (u64, i64) =
                    days.iter().fold((0, 0), |(all, sum), day| (all + day.answers, sum + day.charged.0));
                prop_assert_eq!(sums, (wanted.len() as u64, wanted.iter().map(|answer| answer.charged.0).sum()));
                let second = wanted.iter().filter(|answer| answer.at_ms >= 700).count() as u64;
                prop_assert_eq!(days.iter().filter(|day| day.day == 1).map(|day| day.answers).sum::<u64>(), second);
            }
        }
    }
}
