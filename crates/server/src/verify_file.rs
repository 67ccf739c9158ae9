//! `card4e verify-file`: every row of a file is asked, in its order, and the answers are written beside it.
//!
//! What is settled is in the ledger, block by block; the file of answers is made from there. So a command
//! that was killed is simply given again: rows that were settled are told again, the others are asked, and
//! nothing is charged twice.

pub mod csv;
mod parquet;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use engine::AccountsFrom;
use engine::bulk::{Answers, BLOCK_ROWS, parsed};
use engine::caller::{Action, Purpose};
use engine::clock::Clock;
use engine::ledger::Credits;
use engine::outcome::Outcome;
use engine::projection;
use engine::subject::ParseOptions;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::bulk::{Asked, Asking, Block, Event, Questions, new_job, next_block};
use crate::import::file::{Done, is_gzip, is_parquet, opened};
use crate::import::{Encoding, Unusable};
use crate::installation::Place;
use crate::table;

/// `card4e verify-file`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e verify-file --caller shop --config card4e.toml customers.csv answers.csv
  card4e verify-file --caller shop --config card4e.toml --dry-run customers.csv -
  card4e verify-file --caller shop --config card4e.toml customers.parquet answers.parquet
  card4e verify-file --caller shop --config card4e.toml --range 2/4 customers.csv answers-2.csv
  zcat customers.csv.gz | card4e verify-file --caller shop --config card4e.toml - - > answers.csv

Interrupted, the same command goes on: what was settled is not charged again. Ends with 0 when every row has
its answer, with 2 when the file is not of this form, and with 1 when it stopped on the way.")]
pub struct Options {
    /// The file: CSV, gzipped CSV or Parquet; `-` is standard input.
    #[arg(value_name = "IN")]
    file: PathBuf,

    /// Where the rows go with their answers: CSV, gzipped if it ends in .gz; Parquet for Parquet; `-` is
    /// standard output.
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// Who asks, and pays.
    #[arg(long, value_name = "NAME")]
    caller: String,

    /// What is asked: bankcard-4e, bankcard-3e, bankcard-2e, bankcard-1e, idcard-2e, phone-3e or phone-2e.
    #[arg(long, value_name = "ACTION", default_value = "bankcard-4e")]
    action: Action,

    /// Why: a word such as account_opening, kept in the evidence.
    #[arg(long, value_name = "WORD", requires = "consent")]
    purpose: Option<String>,

    /// Where the consent of those it is about is on file.
    #[arg(long, value_name = "REFERENCE", requires = "purpose")]
    consent: Option<String>,

    /// Which installation.
    #[command(flatten)]
    place: Place,

    /// Only the K-th of N parts of the file, for N machines; the answers of all parts, one after the other,
    /// are those of the file.
    #[arg(long, value_name = "K/N")]
    range: Option<Range>,

    /// Somebody approves so many rows; needed for more than `policy.bulk_rows_max`.
    #[arg(long, value_name = "ROWS")]
    approve: Option<u64>,

    /// Ask and charge nothing, and say nothing about anybody: only which rows are not well-formed.
    #[arg(long)]
    dry_run: bool,

    /// Begin anew, and pay anew, even if this file was begun.
    #[arg(long)]
    from_start: bool,

    /// Where it is kept how this job is called; by default beside OUT, as OUT.job. Without it an interrupted
    /// job cannot be gone on with.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,

    /// Encoding of a CSV file.
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: Encoding,

    /// Print the summary as a JSON object, on standard error where OUT is standard output.
    #[arg(long)]
    json: bool,
}

/// One of several parts of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Which, from 0.
    part: u64,
    of: u64,
}

impl Range {
    /// The whole.
    const WHOLE: Range = Range { part: 0, of: 1 };

    /// Where it begins and ends in something of that size.
    pub fn within(self, size: u64) -> (u64, u64) {
        let at = |part: u64| (u128::from(size) * u128::from(part) / u128::from(self.of)) as u64;
        (at(self.part), at(self.part + 1))
    }

    /// Whether the file's first row is in it.
    pub fn is_first(self) -> bool {
        self.part == 0
    }
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let wrong = || format!("`{text}` is not a part such as 2/4");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let (part, of): (u64, u64) = (part.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if part == 0 || part > of {
            return Err(wrong());
        }
        Ok(Range { part: part - 1, of })
    }
}

/// The columns that are added.
pub const ADDED: [&str; 5] = ["outcome", "tencent_result", "acedata_result", "description", "charged"];

/// What is added to a row with this answer.
pub struct Added {
    outcome: &'static str,
    tencent: String,
    acedata: String,
    description: &'static str,
    charged: String,
}

impl Added {
    /// To a row that was not asked.
    fn nothing() -> Added {
        let description =
            "not asked: the row has other columns than the header, or is not in the encoding of the file";
        Added {
            outcome: "",
            tencent: String::new(),
            acedata: String::new(),
            description,
            charged: "0".into(),
        }
    }

    /// The values, in the order of [`ADDED`].
    pub fn values(&self) -> [&str; ADDED.len()] {
        [self.outcome, &self.tencent, &self.acedata, self.description, &self.charged]
    }
}

/// What is added, by outcome: it is made once.
pub struct AllAdded {
    of: Vec<Added>,
    nothing: Added,
}

impl AllAdded {
    /// For an action at a price.
    fn new(action: Action, price: Credits, numbering: projection::AceDataNumbering) -> AllAdded {
        let number =
            |code: Option<wire::code::ResultCode>| code.map_or(String::new(), |code| code.number.to_string());
        let added = |outcome: Outcome| Added {
            outcome: outcome.name(),
            tencent: number(projection::tencent(projection::name_of(action), outcome)),
            acedata: number(projection::acedata(numbering, projection::endpoint_of(action), outcome)),
            description: outcome.sentence(),
            charged: if action.charges(outcome) { price.to_string() } else { "0".into() },
        };
        AllAdded { of: Outcome::ALL.map(added).into(), nothing: Added::nothing() }
    }

    /// To a row with this answer.
    pub fn of(&self, outcome: Option<Outcome>) -> &Added {
        outcome.map_or(&self.nothing, |outcome| &self.of[outcome as usize])
    }
}

/// Rows as they stand in the file, to be written again beside their answers.
pub enum Raw {
    /// Lines.
    Csv(csv::Text),
    /// Columns.
    Parquet(parquet::Columns),
}

/// The file that is read.
enum Input {
    Csv(Box<csv::Reader>),
    Parquet(Box<parquet::Reader>),
}

impl Input {
    fn open(options: &Options) -> anyhow::Result<(Input, Option<u64>, Done)> {
        let done = Done::default();
        let range = options.range.unwrap_or(Range::WHOLE);
        let (raw, head, size) = opened(&options.file)?;
        if is_parquet(&options.file, &head)? {
            let reader =
                parquet::Reader::open(File::open(&options.file)?, options.action, range, done.clone())?;
            let rows = reader.rows();
            return Ok((Input::Parquet(Box::new(reader)), Some(rows), done));
        }
        if options.range.is_some() {
            let why =
                "a part can only be found in a file that is neither gzipped nor standard input: unpack it";
            ensure!(size.is_some() && !is_gzip(&head), Unusable(why.into()));
        }
        let size = size.map(|size| range.within(size)).map(|(from, to)| to - from);
        let text = csv::Reader::open(&options.file, raw, head, range, options, done.clone())?;
        Ok((Input::Csv(Box::new(text)), size, done))
    }

    /// Reads so many rows, or as many as there are; none at the end.
    fn read(&mut self, at_most: usize) -> anyhow::Result<(Questions, Raw)> {
        Ok(match self {
            Input::Csv(csv) => {
                let text = csv.read(at_most)?;
                (Questions::Lines(text.clone()), Raw::Csv(text))
            }
            Input::Parquet(parquet) => {
                let (rows, all) = parquet.read(at_most)?;
                (Questions::Rows(rows), Raw::Parquet(all))
            }
        })
    }

    /// How many rows there are, where that is known at once.
    fn rows(&self) -> Option<u64> {
        match self {
            Input::Csv(_) => None,
            Input::Parquet(parquet) => Some(parquet.rows()),
        }
    }
}

/// The file that is written.
enum Output {
    Csv(csv::Writer),
    Parquet(Box<parquet::Writer>),
}

impl Output {
    fn open(options: &Options, input: &Input) -> anyhow::Result<Output> {
        let to = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let range = options.range.unwrap_or(Range::WHOLE);
        let ends_in = |end: &str| options.out.extension().is_some_and(|extension| extension == end);
        match input {
            Input::Parquet(reader) => {
                let why = "the answers to a Parquet file are a Parquet file: name one that ends in .parquet";
                ensure!(ends_in("parquet"), why);
                Ok(Output::Parquet(Box::new(parquet::Writer::open(to(&part(&options.out))?, reader)?)))
            }
            Input::Csv(_) if ends_in("parquet") => {
                bail!("the answers to a CSV file are CSV: name one that ends in .csv or .csv.gz")
            }
            Input::Csv(reader) => {
                let file: Box<dyn Write> = match is_dash(&options.out) {
                    true => Box::new(std::io::stdout()),
                    false => Box::new(to(&part(&options.out))?),
                };
                let header = range.is_first().then(|| reader.header());
                Ok(Output::Csv(csv::Writer::open(file, ends_in("gz"), header)?))
            }
        }
    }

    fn write(&mut self, raw: Raw, answers: &Answers, added: &AllAdded) -> anyhow::Result<()> {
        match (self, raw) {
            (Output::Csv(to), Raw::Csv(text)) => to.write(&text, &answers.outcomes, added),
            (Output::Parquet(to), Raw::Parquet(columns)) => to.write(columns, &answers.outcomes, added),
            _ => bail!("the file changed its form"),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Output::Csv(to) => to.finish(),
            Output::Parquet(to) => to.finish(),
        }
    }
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Where answers go until all are there.
fn part(out: &Path) -> PathBuf {
    beside(out, ".part")
}

/// How a job is called, and what it is about.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    job: String,
    file: PathBuf,
    caller: String,
    action: Action,
    part: Range,
}

/// What was done.
#[derive(Serialize)]
struct Summary<'a> {
    file: &'a Path,
    out: &'a Path,
    job: Option<&'a str>,
    rows: u64,
    /// Settled by an earlier run of this job.
    settled_before: u64,
    not_asked: u64,
    outcomes: std::collections::BTreeMap<&'static str, u64>,
    charged: String,
    seconds: f64,
    rows_per_second: u64,
}

/// What the answers add up to.
struct Sum {
    rows: u64,
    before: u64,
    not_asked: u64,
    outcomes: [u64; Outcome::ALL.len()],
    charged: Credits,
}

impl Sum {
    fn new() -> Sum {
        Sum { rows: 0, before: 0, not_asked: 0, outcomes: [0; Outcome::ALL.len()], charged: Credits::ZERO }
    }

    fn add(&mut self, action: Action, answers: &Answers) {
        self.rows += answers.outcomes.len() as u64;
        self.before += if answers.replayed { answers.outcomes.len() as u64 } else { 0 };
        for outcome in &answers.outcomes {
            match outcome {
                None => self.not_asked += 1,
                Some(outcome) => {
                    self.outcomes[*outcome as usize] += 1;
                    self.charged.0 += if action.charges(*outcome) { answers.price.0 } else { 0 };
                }
            }
        }
    }
}

/// Runs `card4e verify-file`.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let (mut input, size, done) = Input::open(options)?;
    if options.dry_run {
        return dry_run(options, &mut input);
    }
    ensure!(
        is_dash(&options.out) || !options.out.exists(),
        "{} is there already; name another file, or remove it",
        options.out.display()
    );
    let settings = options.place.settings()?;
    let keeps_accounts = settings.server.accounts == AccountsFrom::Copy;
    ensure!(keeps_accounts, engine::KEEPS_NO_ACCOUNTS);
    let most = options.approve.unwrap_or(0).max(settings.policy.bulk_rows_max);
    if let Some(rows) = input.rows().filter(|rows| *rows > most) {
        bail!("the file has {rows} rows and {most} are answered without an approval; add --approve {rows}");
    }
    let kept = options.job.clone().or_else(|| (!is_dash(&options.out)).then(|| beside(&options.out, ".job")));
    let begun = begin(options, kept.as_deref())?;
    let asked = Asked {
        caller: options.caller.clone(),
        action: options.action,
        purpose: options
            .purpose
            .clone()
            .zip(options.consent.clone())
            .map(|(code, consent)| Purpose { code, consent }),
        job: begun.job.clone(),
        approved: options.approve,
    };
    let mut asking = Asking::begin(&options.place, asked)?;
    let output = Output::open(options, &input)?;
    let began = Instant::now();
    let sum = ask_all(options, input, output, &mut asking, settings.acedata.numbering, &bar(size, &done));
    asking.stop();
    let sum = sum?;
    if !is_dash(&options.out) {
        File::open(part(&options.out))?.sync_all()?;
        std::fs::rename(part(&options.out), &options.out)?;
        engine::file::sync_folder_of(&options.out)?;
    }
    if let Some(kept) = &kept {
        std::fs::remove_file(kept)?;
    }
    print(options, &sum, kept.is_some().then_some(begun.job.as_str()), began.elapsed())
}

/// The job that was begun, or a new one whose name is kept before anything is asked.
fn begin(options: &Options, kept: Option<&Path>) -> anyhow::Result<Begun> {
    let begun = Begun {
        job: new_job(),
        file: options.file.clone(),
        caller: options.caller.clone(),
        action: options.action,
        part: options.range.unwrap_or(Range::WHOLE),
    };
    let Some(kept) = kept else { return Ok(begun) };
    if !options.from_start && kept.exists() {
        let read = std::fs::read(kept).with_context(|| format!("cannot read {}", kept.display()))?;
        let known: Begun =
            serde_json::from_slice(&read).with_context(|| format!("{} is not a job", kept.display()))?;
        let same = Begun { job: known.job.clone(), ..begun };
        ensure!(
            known == same,
            "{} is of another job: {} for {}, {}; name another OUT, or add --from-start to leave it",
            kept.display(),
            known.file.display(),
            known.caller,
            known.action.name()
        );
        return Ok(known);
    }
    let text = serde_json::to_vec(&begun)?;
    engine::file::write_durably(kept, &text).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(begun)
}

/// Sends every row and writes every answer.
fn ask_all(
    options: &Options,
    mut input: Input,
    mut output: Output,
    asking: &mut Asking,
    numbering: projection::AceDataNumbering,
    bar: &ProgressBar,
) -> anyhow::Result<Sum> {
    let settled = std::mem::take(&mut asking.settled);
    if let Some((first, rows)) = settled.last() {
        let rows = HumanCount(first + rows);
        writeln!(
            std::io::stderr(),
            "This job was interrupted; going on after row {rows} (--from-start begins again)."
        )?;
    }
    // As many as can be on their way, and some more: whoever sends never waits for whoever writes.
    let (send, sent) = sync_channel::<Raw>(32);
    let blocks = std::mem::replace(&mut asking.blocks, sync_channel(0).0);
    let read_all = move || -> anyhow::Result<()> {
        let mut first_row = 0;
        loop {
            let (rows, raw) = input.read(next_block(&settled, first_row))?;
            let count = rows.len() as u64;
            // Whoever does not listen any more says why elsewhere.
            if count == 0 || send.send(raw).is_err() || blocks.send(Block { first_row, rows }).is_err() {
                return Ok(());
            }
            first_row += count;
        }
    };
    let reader = std::thread::Builder::new().name("card4e-read".into()).spawn(read_all)?;
    let (mut sum, mut added) = (Sum::new(), None::<(Credits, AllAdded)>);
    let began = Instant::now();
    let stopped = loop {
        let answers = match asking.told.recv() {
            Ok(Event::Answers(answers)) => answers,
            Ok(Event::Done) => break None,
            Ok(Event::Stopped(why)) => break Some(why),
            Err(_) => break Some("it ended without an answer; the log says why".into()),
        };
        let raw = sent.recv().context("more rows were answered than were asked")?;
        // A price can change on the way.
        if added.as_ref().is_none_or(|(price, _)| *price != answers.price) {
            added = Some((answers.price, AllAdded::new(options.action, answers.price, numbering)));
        }
        sum.add(options.action, &answers);
        if let Some((_, added)) = &added {
            output.write(raw, &answers, added)?;
        }
        let rate =
            (sum.rows - sum.before) as f64 / began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        bar.set_message(format!("{} rows, {}/s", HumanCount(sum.rows), HumanCount(rate as u64)));
    };
    bar.finish_and_clear();
    if let Some(why) = stopped {
        let rows = HumanCount(sum.rows);
        bail!("{why}\nAfter {rows} rows that are answered and settled; the same command goes on from there.");
    }
    match reader.join() {
        Ok(read) => read.with_context(|| {
            format!("the file cannot be read on after row {}; those before are settled", HumanCount(sum.rows))
        })?,
        Err(_) => bail!("reading ended in a panic"),
    }
    output.finish()?;
    Ok(sum)
}

fn bar(size: Option<u64>, done: &Done) -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(size, target);
    let template = match size {
        Some(_) => "{bar:30} {percent:>3} %  {msg}, {eta} left",
        None => "{spinner} {msg}, {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    if shown {
        let (bar, done) = (bar.downgrade(), done.clone());
        std::thread::spawn(move || {
            while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
                bar.set_position(done.get());
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }
    bar
}

/// Says which rows are not well-formed, and nothing about anybody.
fn dry_run(options: &Options, input: &mut Input) -> anyhow::Result<()> {
    let (policy, now_ms) = match &options.place.config {
        Some(_) => (options.place.settings()?.serve_policy()?, Clock::default().now_ms()),
        None => (options.place.settings()?.sandbox_policy()?, Clock::default().now_ms()),
    };
    let rules: ParseOptions = policy.parse_options(now_ms);
    let (mut sum, began) = (Sum::new(), Instant::now());
    let mut well_formed = 0u64;
    loop {
        let rows = input.read(BLOCK_ROWS)?.0.rows();
        if rows.is_empty() {
            break;
        }
        sum.rows += rows.len() as u64;
        for row in rows.iter() {
            match row.map(|row| parsed(options.action, row, &rules)) {
                None => sum.not_asked += 1,
                Some(Ok(_)) => well_formed += 1,
                Some(Err(outcome)) => sum.outcomes[outcome as usize] += 1,
            }
        }
    }
    let mut out = std::io::stdout().lock();
    let wrong = Outcome::ALL.into_iter().zip(sum.outcomes).filter(|(_, rows)| *rows > 0);
    if options.json {
        let outcomes: serde_json::Map<_, _> =
            wrong.map(|(outcome, rows)| (outcome.name().into(), rows.into())).collect();
        let told = serde_json::json!({
            "rows": sum.rows, "well_formed": well_formed, "not_asked": sum.not_asked, "wrong": outcomes,
        });
        return Ok(writeln!(out, "{told}")?);
    }
    let (rows, seconds) = (table::count(sum.rows, "row", "rows"), began.elapsed().as_secs_f64());
    writeln!(
        out,
        "Read {rows} of {} in {seconds:.1} s. Nothing was asked or charged.\n",
        options.file.display()
    )?;
    let line = |count: u64, text: &str| format!("{:>12} {text}", HumanCount(count).to_string());
    writeln!(out, "{}", line(well_formed, "well-formed"))?;
    for (outcome, rows) in wrong {
        writeln!(out, "{}", line(rows, &format!("{}: {}", outcome.name(), outcome.sentence())))?;
    }
    if sum.not_asked > 0 {
        writeln!(out, "{}", line(sum.not_asked, Added::nothing().description))?;
    }
    Ok(())
}

fn print(options: &Options, sum: &Sum, job: Option<&str>, took: Duration) -> anyhow::Result<()> {
    let seconds = took.as_secs_f64();
    let outcomes = Outcome::ALL.into_iter().zip(sum.outcomes).filter(|(_, rows)| *rows > 0);
    let summary = Summary {
        file: &options.file,
        out: &options.out,
        job,
        rows: sum.rows,
        settled_before: sum.before,
        not_asked: sum.not_asked,
        outcomes: outcomes.map(|(outcome, rows)| (outcome.name(), rows)).collect(),
        charged: sum.charged.to_string(),
        seconds,
        rows_per_second: ((sum.rows - sum.before) as f64 / seconds.max(0.001)) as u64,
    };
    let mut to: Box<dyn Write> = match is_dash(&options.out) {
        true => Box::new(std::io::stderr()),
        false => Box::new(std::io::stdout()),
    };
    if options.json {
        return Ok(writeln!(to, "{}", serde_json::to_string(&summary)?)?);
    }
    let before = match sum.before {
        0 => String::new(),
        rows => format!(", {} of them settled before", HumanCount(rows)),
    };
    let (rows, rate) = (table::count(sum.rows, "row", "rows"), HumanCount(summary.rows_per_second));
    writeln!(
        to,
        "Answered {rows} of {}{before}, in {seconds:.1} s ({rate} rows/s).\n",
        options.file.display()
    )?;
    let line = |count: u64, text: &str| format!("{:>12} {text}", HumanCount(count).to_string());
    for (outcome, rows) in &summary.outcomes {
        writeln!(to, "{}", line(*rows, outcome))?;
    }
    if sum.not_asked > 0 {
        writeln!(to, "{}", line(sum.not_asked, Added::nothing().description))?;
    }
    let charged = &summary.charged;
    let credits = if charged == "1" { "credit" } else { "credits" };
    writeln!(to, "\nCharged {charged} {credits} in all.")?;
    Ok(())
}
