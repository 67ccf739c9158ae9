//! `card4e import accounts`: accounts of record from a file, while the server answers.
//!
//! One thread reads, one a core checks rows and computes verifiers, this one writes batches. Chunks
//! of rows are dealt out in turn and taken back in turn, so that they arrive in the order of the file.

pub mod file;
mod parquet_file;
mod rejected;

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use engine::account::{Account, AccountError, AccountText};
use engine::clock::Clock;
use engine::operator::Act;
use engine::store::{AccountBatch, AccountChange, AccountsOfRecord, Import, Source, TableMaker};
use engine::subject::{CardNumber, ParseOptions};
use engine::vault::{Keys, Vault};
use engine::{Engine, Policy};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::installation::{Installation, Place};
use crate::table;
use file::{Input, Row, Rows};
use rejected::Rejected;

/// Rows in a chunk: enough that handing it on costs nothing.
const CHUNK_ROWS: usize = 1024;

/// A file of more batches than this is sorted before it is written, some batches at a time.
const FEW_BATCHES: u64 = 10;
const RUN_BATCHES: usize = 5;

/// What can be imported.
#[derive(Subcommand)]
pub enum What {
    /// Load accounts of record from CSV, gzipped CSV or Parquet, while the server answers.
    ///
    /// Columns: bank_card,name,id_type,id_number,phone,status and, if wanted, op (upsert or delete) and
    /// id_validity (YYYYMMDD-YYYYMMDD).
    /// Rows that cannot be taken go to FILE.rejected.csv with line and reason, the rest is loaded.
    /// Interrupted, the same command goes on after the last batch that was written.
    ///
    /// Ends with 0 when rows were loaded, with 2 when none could be or the file is not of this form.
    #[command(after_help = "\
Examples:
  card4e import accounts --config card4e.toml accounts.csv.gz
  card4e import accounts --config card4e.toml --replace accounts.parquet
  unzip -p accounts.zip | card4e import accounts --config card4e.toml --rejected rejected.csv -")]
    Accounts(Options),
}

/// `card4e import accounts`
#[derive(Args)]
pub struct Options {
    /// The file; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Which installation.
    #[command(flatten)]
    pub place: Place,

    /// The file is the whole truth: accounts that it does not have are removed at the end.
    #[arg(long)]
    pub replace: bool,

    /// Begin with the first row, even if an import of this file was interrupted.
    #[arg(long)]
    pub from_start: bool,

    /// Where rejected rows are listed; by default beside the file, as FILE.rejected.csv.
    #[arg(long, value_name = "FILE")]
    pub rejected: Option<PathBuf>,

    /// Encoding of a CSV file.
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    pub encoding: Encoding,

    /// Rows written in one commit; more are faster, and another writer waits longer.
    #[arg(long, value_name = "N", default_value = "100000")]
    pub batch: NonZeroUsize,

    /// Print the summary as a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[value(name = "utf-8")]
    Utf8,
    /// GB 18030, which includes GBK and GB 2312.
    Gbk,
}

/// The file is of no use: nothing of it was, or can be, loaded. Ends the process with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// How accounts are read: the keys and rules of the installation they are for.
pub struct Rules<'a> {
    /// Keys.
    pub vault: &'a Vault,
    /// What well-formed means there.
    pub options: ParseOptions,
}

impl Rules<'_> {
    /// The rules that hold today.
    pub fn of(installation: &Installation) -> Rules<'_> {
        let Installation { vault, policy, .. } = installation;
        Rules { vault, options: options(policy, &Clock::default()) }
    }

    /// The rules of an engine at work.
    pub fn at_work(engine: &Engine) -> Rules<'_> {
        Rules { vault: &engine.vault, options: options(&engine.policy(), &engine.clock) }
    }
}

fn options(policy: &Policy, clock: &Clock) -> ParseOptions {
    policy.parse_options(clock.now_ms())
}

/// What an import did.
#[derive(Serialize)]
struct Summary<'a> {
    file: &'a Path,
    rows: u64,
    resumed_after: u64,
    put: u64,
    deleted: u64,
    removed: u64,
    rejected: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_file: Option<&'a Path>,
    accounts: u64,
    seconds: f64,
    rows_per_second: u64,
}

/// Imports the file.
pub fn run(What::Accounts(options): &What) -> anyhow::Result<()> {
    crate::manage::record(&options.place, Act::Imported { replaces: options.replace })?;
    let installation = options.place.open()?;
    let rules = &Rules::of(&installation);
    let mut accounts = installation.accounts_alone()?;
    let mut input = Input::open(&options.file, options.encoding)?;
    let source =
        Source { identity: input.identity, is_replacing: options.replace, from_start: options.from_start };
    let (mut is, gave_up) = accounts.begin_import(&source)?;
    let resumed_after = is.rows;
    say_where_it_begins(&is, gave_up)?;
    let began = Instant::now();
    let path = options.rejected.clone().unwrap_or_else(|| rejected::beside(&options.file));
    ensure!(
        path != options.file,
        "the rejected rows would overwrite the file itself; name another --rejected"
    );
    let mut rejected = Rejected::open(path, is.rejected_bytes)?;
    let (keys, mut table) = (installation.vault.keys(), None);
    if !is.is_sweeping {
        let bar = bar(&input, is.rows);
        let batch_rows = options.batch.get();
        let is_large = input.rows_about() > FEW_BATCHES * batch_rows as u64;
        let way = match is.has_runs || is.rows == 0 && is_large && accounts.takes_runs() {
            true => Way::Sorted,
            false => Way::Direct,
        };
        if !is.is_merging {
            input.skip(is.rows)?;
            is = load(&mut accounts, input, is, &mut rejected, rules, way, batch_rows, &bar)?;
        }
        if is.has_runs {
            table = write_runs(&mut accounts, &is, &keys, batch_rows, &bar)?;
        }
        bar.finish_and_clear();
    }
    let taken = is.rows - is.rejected;
    // A file nothing could be read of must not empty the accounts.
    let mut has_ended = taken == 0 && options.replace;
    while !has_ended {
        (is, has_ended) = accounts.sweep()?;
    }
    accounts.make_table_if_due(table, &keys)?;
    let rejected_file = rejected.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    let summary = Summary {
        file: &options.file,
        rows: is.rows,
        resumed_after,
        put: is.put,
        deleted: is.deleted,
        removed: is.removed,
        rejected: is.rejected,
        rejected_file: rejected_file.as_deref(),
        accounts: accounts.count()?,
        seconds,
        rows_per_second: ((is.rows - resumed_after) as f64 / seconds.max(0.001)) as u64,
    };
    print(&summary, options)?;
    if taken > 0 {
        return Ok(());
    }
    let unchanged = if options.replace { "; the accounts are as they were" } else { "" };
    Err(match rejected_file {
        Some(file) => {
            Unusable(format!("every row was rejected, {} says why{unchanged}", file.display())).into()
        }
        None => Unusable(format!("the file has no rows{unchanged}")).into(),
    })
}

fn say_where_it_begins(is: &Import, gave_up: bool) -> anyhow::Result<()> {
    let mut err = std::io::stderr().lock();
    if gave_up {
        writeln!(err, "An unfinished import of another file is given up; what it had loaded stays.")?;
    }
    if is.rows > 0 {
        let rows = HumanCount(is.rows);
        writeln!(
            err,
            "An import of this file was interrupted; going on after row {rows} (--from-start begins again)."
        )?;
    }
    Ok(())
}

fn bar(input: &Input, rows: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(input.size(), target);
    let template = match input.size() {
        Some(_) => "{bar:30} {percent:>3} %  {msg}, {eta} left",
        None => "{spinner} {msg}, {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(format!("{} rows", HumanCount(rows)));
    bar
}

/// What became of a chunk.
struct Checked {
    rows: u64,
    put: u64,
    changes: Changes,
    rejected: Vec<(u64, Reason)>,
}

/// What rows do to the accounts, for one way or the other.
enum Changes {
    Direct(Vec<AccountChange>),
    Sorted(Vec<AccountBatch>),
}

impl Changes {
    fn none(way: Way) -> Changes {
        match way {
            Way::Direct => Changes::Direct(Vec::new()),
            Way::Sorted => Changes::Sorted(Vec::new()),
        }
    }

    fn of(changes: impl Iterator<Item = AccountChange>, way: Way) -> Changes {
        match way {
            Way::Direct => Changes::Direct(changes.collect()),
            Way::Sorted => Changes::Sorted(vec![AccountBatch::of(changes)]),
        }
    }

    fn extend(&mut self, more: Changes) {
        match (self, more) {
            (Changes::Direct(all), Changes::Direct(more)) => all.extend(more),
            (Changes::Sorted(all), Changes::Sorted(more)) => all.extend(more),
            _ => unreachable!("an import goes one way"),
        }
    }

    /// All of them, and none are left.
    fn take(&mut self) -> Changes {
        match self {
            Changes::Direct(all) => Changes::Direct(std::mem::take(all)),
            Changes::Sorted(all) => Changes::Sorted(std::mem::take(all)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Changes::Direct(changes) => changes.len(),
            Changes::Sorted(batches) => batches.iter().map(AccountBatch::len).sum(),
        }
    }
}

/// Why a row is not taken. Names the column and what belongs there, never what is there.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("op: unknown; use upsert or delete, or leave it empty")]
    Op,
    #[error("{0}: not in the encoding of the file")]
    Encoding(&'static str),
    #[error("the row has {0} columns and the header {1}; a value cannot contain a comma")]
    Columns(usize, usize),
}

type Chunk = anyhow::Result<Rows>;

/// How rows come among the accounts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As they come.
    Direct,
    /// Sorted by index before.
    Sorted,
}

/// Writes rows that were read and sorted. Gives the sealed table of them, if they are all there is.
fn write_runs(
    accounts: &mut AccountsOfRecord,
    is: &Import,
    keys: &Keys,
    batch_rows: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Option<TableMaker>> {
    let (began, mut written) = (Instant::now(), 0);
    bar.set_length(is.rows);
    let told = |rows| {
        written += rows;
        let rate = written as f64 / began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        bar.set_message(format!(
            "{} rows read, {} written, {}/s",
            HumanCount(is.rows),
            HumanCount(written),
            HumanCount(rate as u64)
        ));
        bar.set_position(written);
    };
    Ok(accounts.merge_runs(batch_rows, keys, told)?)
}

/// Reads, checks and writes to the end of the file.
#[expect(clippy::too_many_arguments, reason = "it is the story of an import, and these take part in it")]
fn load(
    accounts: &mut AccountsOfRecord,
    mut input: Input,
    mut is: Import,
    rejected: &mut Rejected,
    rules: &Rules<'_>,
    way: Way,
    batch_rows: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Import> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let depth = (batch_rows / CHUNK_ROWS / workers).clamp(2, 256);
    let batch_rows = if way == Way::Sorted { RUN_BATCHES * batch_rows } else { batch_rows };
    let done = input.done();
    let (began, first) = (Instant::now(), is.rows);
    std::thread::scope(|scope| {
        let mut dealt = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..workers {
            let (deal, chunks) = sync_channel::<Chunk>(2);
            let (give, checked) = sync_channel(depth);
            scope.spawn(move || check_all(&chunks, &give, rules, way));
            dealt.push(deal);
            taken.push(checked);
        }
        scope.spawn(move || read_all(&mut input, &dealt));

        let mut batch = Changes::none(way);
        let mut read = Import::default();
        for from in taken.iter().cycle() {
            // A reader that ended has dealt the last chunk to somebody; the next in turn has nothing.
            let chunk = from.recv().ok().transpose();
            if let Ok(Some(Checked { rows, put, rejected: reasons, .. })) = &chunk {
                read.rows += rows;
                read.rejected += reasons.len() as u64;
                read.put += put;
                reasons.iter().try_for_each(|(line, reason)| rejected.add(*line, reason))?;
            }
            let is_last = !matches!(chunk, Ok(Some(_)));
            if let Ok(Some(checked)) = chunk {
                batch.extend(checked.changes);
                if batch.len() < batch_rows && read.rows < 4 * batch_rows as u64 {
                    continue;
                }
                is = commit(accounts, batch.take(), &mut read, rejected)?;
            } else {
                is = commit(accounts, batch.take(), &mut read, rejected)?;
                let are = if way == Way::Sorted { "read, and none is loaded" } else { "loaded" };
                chunk.with_context(|| {
                    format!("the file cannot be read on; {} rows of it are {are}", HumanCount(is.rows))
                })?;
            }
            let rate = (is.rows - first) as f64 / began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
            bar.set_message(format!("{} rows, {}/s", HumanCount(is.rows), HumanCount(rate as u64)));
            bar.set_position(done.get());
            if is_last {
                break;
            }
        }
        Ok(is)
    })
}

fn commit(
    accounts: &mut AccountsOfRecord,
    batch: Changes,
    read: &mut Import,
    rejected: &mut Rejected,
) -> anyhow::Result<Import> {
    // First, so that a commit never promises lines that are not there.
    read.rejected_bytes = rejected.flush()?;
    let read = std::mem::take(read);
    Ok(match batch {
        Changes::Direct(changes) => accounts.import(changes, read)?,
        Changes::Sorted(batches) => accounts.add_run(&batches, read)?,
    })
}

fn read_all(input: &mut Input, dealt: &[SyncSender<Chunk>]) {
    for to in dealt.iter().cycle() {
        let mut rows = Rows::default();
        let read = input.read(&mut rows, CHUNK_ROWS);
        let is_last = read.is_err() || rows.is_empty();
        if read.is_ok() && rows.is_empty() || to.send(read.map(|()| rows)).is_err() || is_last {
            return;
        }
    }
}

fn check_all(
    chunks: &Receiver<Chunk>,
    give: &SyncSender<anyhow::Result<Checked>>,
    rules: &Rules<'_>,
    way: Way,
) {
    for chunk in chunks {
        if give.send(chunk.map(|rows| check(&rows, rules, way))).is_err() {
            return;
        }
    }
}

fn check(rows: &Rows, rules: &Rules<'_>, way: Way) -> Checked {
    let keys = rules.vault.keys();
    let (mut accounts, mut orders) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    let mut rejected = Vec::new();
    for row in rows.iter() {
        match order(&row, rules) {
            Ok(Order::Put(account)) => {
                accounts.push(account);
                orders.push(None);
            }
            Ok(Order::Delete(card)) => {
                let index = keys.index(card.as_str(), keys.accounts());
                orders.push(Some(AccountChange::Delete(index)));
            }
            Err(reason) => {
                rejected.push((row.line, reason));
                // Not absent, if it can be told whose row it is.
                let card = row.text(file::CARD).ok().and_then(|text| CardNumber::parse(&text));
                let index = card.map(|card| keys.index(card.as_str(), keys.accounts()));
                orders.extend(index.map(|index| Some(AccountChange::Keep(index))));
            }
        }
    }
    // All accounts at once: they are enciphered side by side.
    let mut put = AccountChange::put_all(Account::rows(&accounts, &rules.options, &keys), &keys);
    let changes = orders.into_iter().filter_map(|order| order.or_else(|| put.next()));
    let changes = Changes::of(changes, way);
    Checked { rows: rows.len() as u64, put: accounts.len() as u64, changes, rejected }
}

/// What a row wants.
enum Order<'a> {
    Put(Account<'a>),
    Delete(CardNumber),
}

fn order<'a>(row: &Row<'a>, rules: &Rules<'_>) -> Result<Order<'a>, Reason> {
    if let Some((columns, wanted)) = row.wrong_columns {
        return Err(Reason::Columns(columns, wanted));
    }
    let card = row.text(file::CARD)?;
    match row.text(file::OP)?.trim() {
        "" | "upsert" => {}
        "delete" => {
            return Ok(Order::Delete(CardNumber::parse(&card).ok_or(AccountError::Card)?));
        }
        _ => return Err(Reason::Op),
    }
    let texts = [
        card,
        row.text(file::NAME)?,
        row.text(file::KIND)?,
        row.text(file::ID)?,
        row.text(file::MOBILE)?,
        row.text(file::STATE)?,
        row.text(file::VALIDITY)?,
    ];
    let in_the_file = texts.each_ref().map(|text| match text {
        Cow::Borrowed(text) => Some(*text),
        Cow::Owned(_) => None,
    });
    Ok(Order::Put(match in_the_file {
        [Some(card), Some(name), Some(kind), Some(id), Some(mobile), Some(state), Some(validity)] => {
            AccountText { card, name, kind, id, mobile, state, validity }.read(&rules.options)?
        }
        // In another encoding: what was made of it does not stay.
        _ => {
            let [card, name, kind, id, mobile, state, validity] = texts.each_ref().map(|text| &text[..]);
            AccountText { card, name, kind, id, mobile, state, validity }.read_copied(&rules.options)?
        }
    }))
}

fn print(summary: &Summary<'_>, options: &Options) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(summary)?)?;
        return Ok(());
    }
    let count = |count: u64, one: &str, many: &str| {
        format!("{:>12} {}", HumanCount(count).to_string(), if count == 1 { one } else { many })
    };
    let after = match summary.resumed_after {
        0 => String::new(),
        rows => format!(", {} of them before", HumanCount(rows)),
    };
    writeln!(
        out,
        "Read {} of {}{after}, in {:.1} s ({} rows/s).\n",
        table::count(summary.rows, "row", "rows"),
        summary.file.display(),
        summary.seconds,
        HumanCount(summary.rows_per_second)
    )?;
    writeln!(out, "{} added or replaced", count(summary.put, "account", "accounts"))?;
    if summary.deleted > 0 {
        writeln!(out, "{} deleted", count(summary.deleted, "account", "accounts"))?;
    }
    if options.replace {
        let removed = count(summary.removed, "account", "accounts");
        writeln!(out, "{removed} removed, because the file does not have them")?;
    }
    if let Some(file) = summary.rejected_file {
        let rejected = count(summary.rejected, "row", "rows");
        writeln!(out, "{rejected} rejected: lines and reasons in {}", file.display())?;
    }
    writeln!(out, "{} in all", count(summary.accounts, "account", "accounts"))?;
    Ok(())
}
