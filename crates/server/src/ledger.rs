//! `card4e ledger`: what was answered, for whom, and what it cost; read from the blocks, which are the
//! truth, while a server goes on writing them.

mod margin;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use engine::caller::ApplicationId;
use engine::clock::{Clock, Millis, utc_text};
use engine::ledger::{Answer, Credits, Entry};
use engine::outcome::Outcome;
use engine::store::LedgerReader;
use engine::subject::Date;
use engine::verify::uuid_text;
use indicatif::HumanCount;
use serde::Serialize;
use serde_json::{Value, json};

use crate::installation::Place;
use crate::table::{self, Heading, count};

/// `card4e ledger`
#[derive(Subcommand)]
pub enum Command {
    /// Add it all up: in all, by outcome, by caller.
    #[command(after_help = "\
Examples:
  card4e ledger summary --config card4e.toml --since 2026-11-01 --until 2026-12-01
  card4e ledger summary --config card4e.toml --since 24h --caller shop")]
    Summary(Report),

    /// Add it up by day and caller; days begin at midnight in Beijing (UTC+8).
    #[command(after_help = "\
Example:
  card4e ledger days --config card4e.toml --caller shop --since 2026-11-01")]
    Days(Report),

    /// List all answered questions, oldest first, without elements.
    #[command(after_help = "\
Examples:
  card4e ledger list --config card4e.toml --since 1h --outcome HOLDER_MISMATCH
  card4e ledger list --data ./card4e-data --json | jq -r .outcome | sort | uniq -c")]
    List(Report),

    /// Add up what callers paid and what providers charged, by route.
    #[command(after_help = "\
Example:
  card4e ledger margin --config card4e.toml --since 2026-11-01 --until 2026-12-01")]
    Margin(Report),

    /// Write the list for a spreadsheet or another program.
    #[command(after_help = "\
Examples:
  card4e ledger export --csv november.csv --config card4e.toml --since 2026-11-01 --until 2026-12-01
  card4e ledger export --csv --config card4e.toml | gzip > ledger.csv.gz

The file is CSV as RFC 4180 has it, in UTF-8. What a spreadsheet would take for a formula has a ' before it.")]
    Export {
        /// Write CSV to this file, which must not be there yet; without FILE to standard output.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", required = true)]
        csv: PathBuf,
        /// Which answers.
        #[command(flatten)]
        which: Which,
        /// Which installation.
        #[command(flatten)]
        place: Place,
    },
}

/// What is reported, and how.
#[derive(Args)]
pub struct Report {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    place: Place,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Which answers.
#[derive(Args)]
pub struct Which {
    /// Only those of this caller.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,

    /// Only from then on: 2026-11-21 (midnight in Beijing), 2026-11-21T08:00:00Z, or 24h ago.
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    since: Option<Time>,

    /// Only before then; written as for --since.
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    until: Option<Time>,

    /// Only this outcome, such as PASS or HOLDER_MISMATCH.
    #[arg(long, value_name = "NAME", value_parser = outcome)]
    outcome: Option<Outcome>,
}

/// A moment, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Then.
    At(Millis),
    /// So many milliseconds before now.
    Ago(Millis),
}

impl Time {
    /// Reads it as `--since` takes it.
    pub fn parse(text: &str) -> Result<Time, String> {
        let wrong = || format!("`{text}` is no time; write 2026-11-21, 2026-11-21T08:00:00Z, or 24h");
        if let Ok(ago) = crate::register::milliseconds(text) {
            return Ok(Time::Ago(ago));
        }
        let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00+08:00"));
        moment(date, time).map(Time::At).ok_or_else(wrong)
    }

    /// In Unix milliseconds.
    pub fn at_ms(self, now: Millis) -> Millis {
        match self {
            Time::At(at) => at,
            Time::Ago(ago) => now - ago,
        }
    }
}

/// `2026-11-21` and `08:00:00Z` or `16:00:00+08:00`, in Unix milliseconds.
fn moment(date: &str, time: &str) -> Option<Millis> {
    let numbers = |text: &str, sign: char| -> Option<Vec<u16>> {
        let two = |part: &str| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split(sign).map(|part| part.parse().ok().filter(|_| two(part))).collect()
    };
    let &[year, month, day] = numbers(date, '-')?.as_slice() else { return None };
    let date = Date::new(year, month.try_into().ok()?, day.try_into().ok()?)?;
    let (time, ahead_hours) = match time.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => (time.strip_suffix("+08:00")?, 8),
    };
    let &[hour @ 0..24, minute @ 0..60, second @ 0..60] = numbers(time, ':')?.as_slice() else {
        return None;
    };
    let hours = date.unix_days() * 24 + i64::from(hour) - ahead_hours;
    Some(((hours * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1000)
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let names = || Outcome::ALL.map(Outcome::name).join(", ");
    Outcome::named(text).ok_or_else(|| format!("there is no outcome `{text}`; there is {}", names()))
}

/// Runs one of them.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Summary(report) => summary(report),
        Command::Days(report) => days(report),
        Command::List(report) => list(report),
        Command::Margin(report) => margin::report(report),
        Command::Export { csv, which, place } => export(csv, which, place),
    }
}

/// The part of a ledger that is reported.
struct Part {
    ledger: LedgerReader,
    callers: HashMap<ApplicationId, String>,
    caller: Option<ApplicationId>,
    outcome: Option<Outcome>,
    settled: Range<Millis>,
}

impl Part {
    fn open(place: &Place, which: &Which) -> anyhow::Result<Part> {
        let ledger = LedgerReader::open(place.ledger()?)?;
        let callers = ledger.callers()?;
        let caller = match &which.caller {
            None => None,
            Some(name) => {
                let found = callers.iter().find(|(_, known)| *known == name);
                Some(
                    *found
                        .with_context(|| {
                            format!("there is no caller `{name}`; `card4e caller list` shows them")
                        })?
                        .0,
                )
            }
        };
        let now = Clock::default().now_ms();
        let bound = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.at_ms(now));
        let settled = bound(which.since, Millis::MIN)..bound(which.until, Millis::MAX);
        ensure!(settled.start < settled.end, "--since is not before --until; nothing can lie between them");
        Ok(Part { ledger, callers, caller, outcome: which.outcome, settled })
    }

    fn name(&self, application: ApplicationId) -> String {
        let known = self.callers.get(&application).cloned();
        known.unwrap_or_else(|| format!("application {}", application.0))
    }

    fn is_about(&self, application: ApplicationId) -> bool {
        self.caller.is_none_or(|caller| caller == application)
    }

    fn entries(&self, each: impl FnMut(&Entry) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.ledger.entries(&self.settled, each)
    }

    /// Every answer, and how often it was given: rows of a file are summed up by outcome.
    fn answers(&self, mut each: impl FnMut(&Answer, u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.entries(|entry| match entry {
            Entry::Answer(answer) if self.takes(answer) => each(answer, 1),
            Entry::Bulk(bulk) => {
                let mut taken = bulk.by_outcome().filter(|(answer, _)| self.takes(answer));
                taken.try_for_each(|(answer, answers)| each(&answer, answers))
            }
            _ => Ok(()),
        })
    }

    fn takes(&self, answer: &Answer) -> bool {
        self.is_about(answer.application) && self.outcome.is_none_or(|outcome| outcome == answer.outcome)
    }
}

/// What answers add up to.
#[derive(Clone, Copy, Default)]
struct Sum {
    answers: u64,
    charges: u64,
    charged: Credits,
}

impl Sum {
    fn add(&mut self, answer: &Answer, answers: u64) {
        self.answers += answers;
        self.charges += if answer.charged > Credits::ZERO { answers } else { 0 };
        self.charged.0 += answer.charged.0;
    }

    fn cells(&self) -> [String; 3] {
        let number = |number| HumanCount(number).to_string();
        [number(self.answers), number(self.charges), self.charged.to_string()]
    }

    /// The sum as JSON, behind what it is of.
    fn json(&self, mut of: Value) -> Value {
        of["answers"] = self.answers.into();
        of["charges"] = self.charges.into();
        of["charged"] = self.charged.to_string().into();
        of
    }
}

/// Everything a summary tells.
#[derive(Default)]
struct Summary {
    all: Sum,
    outcomes: BTreeMap<&'static str, Sum>,
    /// With what each was granted.
    callers: BTreeMap<String, (Sum, Credits)>,
    /// When the first and the last were settled.
    time: Option<(Millis, Millis)>,
}

impl Summary {
    fn of(part: &Part) -> anyhow::Result<Summary> {
        let mut is = Summary::default();
        part.entries(|entry| {
            match entry {
                Entry::Answer(answer) if part.takes(answer) => {
                    is.add(answer, 1, part.name(answer.application))
                }
                Entry::Bulk(bulk) => {
                    let taken = bulk.by_outcome().filter(|(answer, _)| part.takes(answer));
                    taken.for_each(|(answer, answers)| {
                        is.add(&answer, answers, part.name(answer.application));
                    });
                }
                // A grant has no outcome to be asked for.
                Entry::Grant { application, amount, .. }
                    if part.is_about(*application) && part.outcome.is_none() =>
                {
                    is.callers.entry(part.name(*application)).or_default().1.0 += amount.0;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(is)
    }

    fn add(&mut self, answer: &Answer, answers: u64, caller: String) {
        self.all.add(answer, answers);
        self.outcomes.entry(answer.outcome.name()).or_default().add(answer, answers);
        self.callers.entry(caller).or_default().0.add(answer, answers);
        let first = self.time.map_or(answer.at_ms, |(first, _)| first);
        self.time = Some((first, answer.at_ms));
    }

    fn json(&self) -> Value {
        let outcomes = self.outcomes.iter().map(|(outcome, sum)| sum.json(json!({ "outcome": outcome })));
        let callers = self.callers.iter().map(|(name, (sum, granted))| {
            sum.json(json!({ "caller": name, "granted": granted.to_string() }))
        });
        self.all.json(json!({
            "first": self.time.map(|(first, _)| utc_text(first)),
            "last": self.time.map(|(_, last)| utc_text(last)),
            "outcomes": outcomes.collect::<Vec<_>>(),
            "callers": callers.collect::<Vec<_>>(),
        }))
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Sum { answers, charges, charged } = self.all;
        if answers == 0 {
            writeln!(out, "No answers.")?;
        }
        let credits = if charged == Credits::whole(1) { "credit" } else { "credits" };
        let answers = count(answers, "answer", "answers");
        if let Some((first, last)) = self.time {
            writeln!(out, "{answers}, {} of them charged {charged} {credits} in all", HumanCount(charges))?;
            writeln!(out, "The first at {}, the last at {}\n", utc_text(first), utc_text(last))?;
            let row = |(outcome, sum): (&&str, &Sum)| [&[outcome.to_string()][..], &sum.cells()].concat();
            let rows: Vec<_> = self.outcomes.iter().map(row).collect();
            table::print(out, &["outcome", ">answers", ">charged", ">credits"], &rows)?;
        }
        if !self.callers.is_empty() {
            let row = |(name, (sum, granted)): (&String, &(Sum, Credits))| {
                [&[name.clone()][..], &sum.cells(), &[granted.to_string()]].concat()
            };
            let rows: Vec<_> = self.callers.iter().map(row).collect();
            writeln!(out)?;
            table::print(out, &["caller", ">answers", ">charged", ">credits", ">granted"], &rows)?;
        }
        Ok(())
    }
}

fn summary(report: &Report) -> anyhow::Result<()> {
    let summary = Summary::of(&Part::open(&report.place, &report.which)?)?;
    let mut out = std::io::stdout().lock();
    if report.json {
        return Ok(writeln!(out, "{}", summary.json())?);
    }
    Ok(summary.print(&mut out)?)
}

fn days(report: &Report) -> anyhow::Result<()> {
    let part = Part::open(&report.place, &report.which)?;
    let mut days: BTreeMap<(Date, String), Sum> = BTreeMap::new();
    part.answers(|answer, answers| {
        let day = Date::in_beijing(answer.at_ms.div_euclid(1000));
        days.entry((day, part.name(answer.application))).or_default().add(answer, answers);
        Ok(())
    })?;
    let text = |day: &Date| format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day());
    let mut out = std::io::stdout().lock();
    if report.json {
        for ((day, caller), sum) in &days {
            let of = json!({ "day": text(day), "caller": caller });
            writeln!(out, "{}", sum.json(of))?;
        }
        return Ok(());
    }
    let row = |((day, caller), sum): (&(Date, String), &Sum)| {
        [&[text(day), caller.clone()][..], &sum.cells()].concat()
    };
    let rows: Vec<_> = days.iter().map(row).collect();
    table::print(&mut out, &["day (Beijing)", "caller", ">answers", ">charged", ">credits"], &rows)?;
    Ok(())
}

/// One answer, as it is listed.
#[derive(Serialize)]
struct Listed {
    request_id: String,
    time: String,
    at_ms: Millis,
    caller: String,
    application: u32,
    credential: u32,
    wire: &'static str,
    action: &'static str,
    outcome: &'static str,
    /// Row of the decision table; 0: the sandbox's script.
    row: u8,
    /// Why it was asked, a word of the operator's.
    purpose: Option<String>,
    charged: String,
    balance: Option<String>,
    elapsed_us: u32,
    /// Rows of a file that were answered so at once; the request is then the job.
    #[serde(skip_serializing_if = "is_one")]
    answers: u64,
}

fn is_one(answers: &u64) -> bool {
    *answers == 1
}

impl Listed {
    fn of(answer: &Answer, answers: u64, part: &Part) -> Listed {
        Listed {
            answers,
            request_id: uuid_text(&answer.request),
            time: utc_text(answer.at_ms),
            at_ms: answer.at_ms,
            caller: part.name(answer.application),
            application: answer.application.0,
            credential: answer.credential.0,
            wire: answer.wire.name(),
            action: answer.action.name(),
            outcome: answer.outcome.name(),
            row: answer.row.0,
            purpose: answer.purpose.clone(),
            charged: answer.charged.to_string(),
            balance: answer.balance.map(|balance| balance.to_string()),
            elapsed_us: answer.elapsed_us,
        }
    }
}

const LIST: [Heading; 8] =
    ["time (UTC)", "request id", "caller", ">credential", "wire", "action", "outcome", ">credits"];

fn list(report: &Report) -> anyhow::Result<()> {
    let part = Part::open(&report.place, &report.which)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    // Of what is long the width is known before; the ledger is too long to be held.
    let caller = part.callers.values().map(|name| unicode_width::UnicodeWidthStr::width(name.as_str())).max();
    let widths = [20, 36, caller.unwrap_or(0).max(6), 10, 7, 11, 18, 8];
    if !report.json {
        table::line(&mut out, &LIST, &widths, &LIST.map(|heading| table::name(heading).to_owned()))?;
    }
    part.answers(|answer, answers| {
        let listed = Listed::of(answer, answers, &part);
        if report.json {
            return Ok(writeln!(out, "{}", serde_json::to_string(&listed)?)?);
        }
        let Listed { request_id, time, caller, credential, wire, action, outcome, charged, .. } = listed;
        let outcome = if answers == 1 { outcome.to_owned() } else { format!("{outcome} x {answers}") };
        let (wire, action) = (wire.to_owned(), action.to_owned());
        let row = [time, request_id, caller, credential.to_string(), wire, action, outcome, charged];
        Ok(table::line(&mut out, &LIST, &widths, &row)?)
    })?;
    Ok(out.flush()?)
}

fn export(file: &Path, which: &Which, place: &Place) -> anyhow::Result<()> {
    let part = Part::open(place, which)?;
    if file == Path::new("-") {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        write_csv(&part, &mut out)?;
        return Ok(out.flush()?);
    }
    let shown = file.display();
    ensure!(!file.exists(), "{shown} is there already; name another file, or remove it");
    let made = std::fs::File::create_new(file).with_context(|| format!("cannot make {shown}"))?;
    let mut out = std::io::BufWriter::new(made);
    let rows =
        write_csv(&part, &mut out).with_context(|| format!("cannot write {shown}; it is not whole"))?;
    out.flush().with_context(|| format!("cannot write {shown}; it is not whole"))?;
    writeln!(std::io::stdout(), "{} in {shown}", count(rows, "answer", "answers"))?;
    Ok(())
}

/// Writes a header and a line an answer; gives the number of answers.
fn write_csv(part: &Part, out: &mut impl Write) -> anyhow::Result<u64> {
    let mut rows = 0;
    write!(
        out,
        "time,request_id,caller,credential,wire,action,outcome,row,purpose,charged,balance,elapsed_us,answers\r\n"
    )?;
    part.answers(|answer, answers| {
        rows += answers;
        let is = Listed::of(answer, answers, part);
        let (caller, purpose) = (csv_text(&is.caller), csv_text(is.purpose.as_deref().unwrap_or_default()));
        write!(
            out,
            "{},{},{caller},{},{},{},{},{},{purpose},{},{},{},{answers}\r\n",
            is.time,
            is.request_id,
            is.credential,
            is.wire,
            is.action,
            is.outcome,
            is.row,
            is.charged,
            is.balance.as_deref().unwrap_or_default(),
            is.elapsed_us
        )?;
        Ok(())
    })?;
    Ok(rows)
}

/// Text that somebody chose, as a field of CSV that no spreadsheet takes for a formula.
fn csv_text(text: &str) -> String {
    let quote = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    let text = format!("{quote}{text}");
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        // 2026-11-21T00:00:00+08:00
        let midnight = 1_795_190_400_000;
        for text in ["2026-11-21", "2026-11-20T16:00:00Z", "2026-11-21T00:00:00+08:00"] {
            assert_eq!(Time::parse(text), Ok(Time::At(midnight)), "{text}");
        }
        assert_eq!(Time::parse("2h"), Ok(Time::Ago(7_200_000)));
        assert_eq!(Time::Ago(1000).at_ms(5000), 4000);
        for wrong in [
            "",
            "yesterday",
            "2026-02-30",
            "2026-11-21T24:00:00Z",
            "2026-11-21T08:00:00",
            "26-1-1-1",
            "2026-1-+1",
        ] {
            assert!(Time::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_name_is_a_formula() {
        assert_eq!(csv_text("shop"), "shop");
        assert_eq!(csv_text("=1+1"), "'=1+1");
        assert_eq!(csv_text("-2"), "'-2");
        assert_eq!(csv_text("@SUM(A1)"), "'@SUM(A1)");
        assert_eq!(csv_text("a,\"b\"\r\n"), "\"a,\"\"b\"\"\r\n\"");
    }
}
