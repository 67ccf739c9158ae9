//! `card4e audit`: the check of the whole tree, and evidence for those who were given a public key.

mod evidence;

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use engine::audit::{Checkpoint, Frontier, Hash, proof};
use engine::clock::{Clock, Millis, utc_text};
use engine::file::{hex, unhex};
use engine::ledger::Entry;
use engine::store::{Check, LedgerFile, LedgerReader};
use engine::vault::Vault;
use engine::verify::uuid_text;
use serde_json::{Value, json};

use crate::installation::{Installation, Place};
use crate::ledger::Time;
use crate::table::{self, Heading, count};

pub use evidence::says;
use evidence::{Line, Signed, Stated, VERSION, written};

/// `card4e audit`
#[derive(Subcommand)]
pub enum Command {
    /// Recompute the tree, hold every record, side row and signed checkpoint against it.
    ///
    /// Ends with 1 when anything does not hold.
    #[command(
        after_help = "Example:\n  card4e audit check --config ./bank/card4e.toml\n  card4e audit check --data ./card4e-data     of a sandbox"
    )]
    Check(Data),

    /// Print the public keys that signed checkpoints, the oldest first. Give them to whoever will check.
    #[command(after_help = "Example:\n  card4e audit key --config ./bank/card4e.toml > audit.keys")]
    Key(Data),

    /// List what operators did, and what else is not an answer; oldest first.
    #[command(after_help = "\
Examples:
  card4e audit log --since 7d --config ./bank/card4e.toml
  card4e audit log --config ./bank/card4e.toml --json | jq 'select(.by.credential)'

Who is `machine` (a command on the machine itself) or the number of the credential that was presented. An
act is recorded before it takes effect.")]
    Log {
        /// Only from then on: 2026-11-21 (midnight in Beijing), 2026-11-21T08:00:00Z, or 24h ago.
        #[arg(long, value_name = "TIME", value_parser = Time::parse)]
        since: Option<Time>,

        /// Only before then; written as for --since.
        #[arg(long, value_name = "TIME", value_parser = Time::parse)]
        until: Option<Time>,

        #[command(flatten)]
        data: Data,
    },

    /// Write all entries of a period with what proves that they were signed and none is missing.
    #[command(after_help = "\
Examples:
  card4e audit export --since 2026-11-01 --until 2026-12-01 --out november.jsonl --config ./bank/card4e.toml
  card4e audit verify november.jsonl --key audit.keys

No element is in it, no mask, no reference to a card. It holds whole blocks, so entries of the same moment
as the first and the last may be in it too.")]
    Export {
        /// Only from then on: 2026-11-21 (midnight in Beijing), 2026-11-21T08:00:00Z, or 24h ago.
        #[arg(long, value_name = "TIME", value_parser = Time::parse)]
        since: Option<Time>,

        /// Only before then; written as for --since.
        #[arg(long, value_name = "TIME", value_parser = Time::parse)]
        until: Option<Time>,

        /// The file to write, which must not be there yet; `-` is standard output.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,

        #[command(flatten)]
        place: Place,
    },

    /// Prove that one answer is in the tree that was signed last.
    #[command(after_help = "\
Example:
  card4e audit prove 74e742e8-f91d-49c3-9744-c20f3baca117 --config ./bank/card4e.toml > answer.jsonl
  card4e audit verify answer.jsonl --key audit.keys")]
    Prove {
        /// The answer's RequestId or trace_id.
        #[arg(value_name = "REQUEST_ID")]
        request: String,

        #[command(flatten)]
        place: Place,
    },

    /// Print the newest signed checkpoint; with an older one, prove that nothing before it was changed.
    #[command(after_help = "\
Examples:
  card4e audit checkpoint --config ./bank/card4e.toml > monday.jsonl       somebody else keeps it
  card4e audit checkpoint --since monday.jsonl --config ./bank/card4e.toml > growth.jsonl
  card4e audit verify growth.jsonl --key audit.keys")]
    Checkpoint {
        /// A checkpoint that was printed earlier.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,

        #[command(flatten)]
        place: Place,
    },

    /// Check evidence with the public keys alone; needs no installation, no network.
    ///
    /// Ends with 1 when it does not hold.
    #[command(after_help = "\
Examples:
  card4e audit verify november.jsonl --key audit.keys
  card4e audit verify october.jsonl november.jsonl --key audit.keys     and no entry between them is missing")]
    Verify {
        /// What export, prove or checkpoint wrote; exports in the order of their time. `-` is standard input.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,

        /// A public key in hex, or a file with what `card4e audit key` printed.
        #[arg(long, value_name = "KEY")]
        key: String,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which data, and how to print it.
#[derive(Args)]
pub struct Data {
    #[command(flatten)]
    pub place: Place,

    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `card4e audit …`.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Check(data) => check(data),
        Command::Key(data) => key(data),
        Command::Log { since, until, data } => log(*since, *until, data),
        Command::Export { since, until, out, place } => export(*since, *until, out, place),
        Command::Prove { request, place } => prove(request, place),
        Command::Checkpoint { since, place } => checkpoint(since.as_deref(), place),
        Command::Verify { files, key, json } => verify(files, key, *json),
    }
}

fn check(data: &Data) -> anyhow::Result<()> {
    let installation = data.place.open()?;
    let check = LedgerFile::check(installation.ledger(), &installation.vault)?;
    let mut out = std::io::stdout().lock();
    if data.json {
        writeln!(out, "{}", serde_json::to_string(&check)?)?;
        return Ok(());
    }
    let Check { blocks, entries, answers, charges, charged, erased, checkpoints, trees, root, .. } = check;
    writeln!(out, "The audit holds.\n")?;
    let entries = count(entries, "entry", "entries");
    writeln!(
        out,
        "  {entries} in {}, {erased} with their side row erased",
        count(blocks, "block", "blocks")
    )?;
    let credits = if charged == "1" { "credit" } else { "credits" };
    let answers = count(answers, "answer", "answers");
    writeln!(out, "  {answers}, {charges} of them charged {charged} {credits} in all")?;
    writeln!(out, "  {}", count(checkpoints, "signed checkpoint", "signed checkpoints"))?;
    match trees {
        1 => writeln!(out, "  root {root}")?,
        _ => writeln!(out, "  {trees} trees, one of each node")?,
    }
    Ok(())
}

/// All audit keys there ever were, the oldest first.
fn public_keys(vault: &Vault) -> Vec<[u8; 32]> {
    vault.keys().audit_public_keys()
}

fn key(data: &Data) -> anyhow::Result<()> {
    let Installation { vault, .. } = data.place.open()?;
    let mut out = std::io::stdout().lock();
    for key in public_keys(&vault) {
        match data.json {
            true => writeln!(out, "{}", json!({ "public_key": hex(&key) }))?,
            false => writeln!(out, "{}", hex(&key))?,
        }
    }
    Ok(())
}

const LOG: [Heading; 4] = ["time (UTC)", "by", "what", "details"];

fn log(since: Option<Time>, until: Option<Time>, data: &Data) -> anyhow::Result<()> {
    let ledger = LedgerReader::open(data.place.open()?.ledger())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let widths = [20, 12, 18, 0];
    if !data.json {
        table::line(&mut out, &LOG, &widths, &LOG.map(|heading| table::name(heading).to_owned()))?;
    }
    ledger.entries(&period(since, until)?, |entry| {
        if matches!(entry, Entry::Answer(_) | Entry::Bulk(_)) {
            return Ok(());
        }
        let says = evidence::says(entry);
        if data.json {
            return Ok(writeln!(out, "{says}")?);
        }
        anyhow::Ok(table::line(&mut out, &LOG, &widths, &log_row(&says))?)
    })?;
    Ok(out.flush()?)
}

/// An entry as it is listed: time, who, what, details.
pub fn log_row(says: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let by = match &says["by"] {
        Value::Object(by) => by.iter().map(|(kind, number)| format!("{kind} {number}")).collect(),
        Value::Null => "-".to_owned(),
        by => text(by),
    };
    // An act is a word, or a word with members.
    let (what, members) = match &says["act"] {
        Value::Object(act) => {
            act.iter().next().map_or_else(Default::default, |(k, m)| (k.clone(), m.clone()))
        }
        Value::Null => (text(&says["kind"]), says.clone()),
        act => (text(act), Value::Null),
    };
    let is_shown = |(name, value): &(&String, &Value)| {
        !value.is_null() && !["kind", "time", "at_ms", "by", "act"].contains(&name.as_str())
    };
    let members = members.as_object().cloned().unwrap_or_default();
    let details: Vec<_> =
        members.iter().filter(is_shown).map(|(name, value)| format!("{name}={}", text(value))).collect();
    [text(&says["time"]), by, what.replace('_', " "), details.join(" ")]
}

/// What lies between two times, Unix milliseconds.
fn period(since: Option<Time>, until: Option<Time>) -> anyhow::Result<Range<Millis>> {
    let now = Clock::default().now_ms();
    let bound = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.at_ms(now));
    let period = bound(since, Millis::MIN)..bound(until, Millis::MAX);
    ensure!(period.start < period.end, "--since is not before --until; nothing can lie between them");
    Ok(period)
}

const NOT_SIGNED: &str =
    "nothing was signed yet; a server signs within a second of its first answer, and when it stops";

/// A ledger, and the checkpoint that evidence ends in. Where nodes share a database, the tree of one of them.
struct Source {
    ledger: LedgerReader,
    vault: Vault,
    newest: Checkpoint,
}

impl Source {
    fn open(place: &Place) -> anyhow::Result<Source> {
        let installation = place.open()?;
        let ledger = LedgerReader::open(installation.ledger())?;
        let vault = installation.vault;
        let newest = ledger.last_checkpoint(&vault)?.context(NOT_SIGNED)?;
        Ok(Source { ledger, vault, newest })
    }

    /// One for the tree of every node that has signed something.
    fn all(place: &Place) -> anyhow::Result<Vec<Source>> {
        let nodes = LedgerReader::open(place.open()?.ledger())?.nodes()?;
        let mut all = Vec::new();
        for node in nodes {
            let installation = place.open()?;
            let ledger = LedgerReader::open(installation.ledger())?.of_node(node);
            let vault = installation.vault;
            if let Some(newest) = ledger.last_checkpoint(&vault)? {
                all.push(Source { ledger, vault, newest });
            }
        }
        ensure!(!all.is_empty(), NOT_SIGNED);
        Ok(all)
    }

    fn signed(&self, checkpoint: &Checkpoint) -> anyhow::Result<Signed> {
        let key = self.vault.keys().audit_public_key(checkpoint.key);
        Ok(Signed::of(checkpoint, &key.context("the key ring does not have the key of a checkpoint")?))
    }
}

fn export(since: Option<Time>, until: Option<Time>, file: &Path, place: &Place) -> anyhow::Result<()> {
    let source = Source::open(place)?;
    let settled = period(since, until)?;
    let leaves = source.ledger.leaves_of(&settled, source.newest.size)?;
    let leaves = leaves.context("nothing that was signed lies in this time")?;
    let text = |time: Option<Time>, at| time.map(|_| utc_text(at));
    let begin = |peaks: &[Hash]| Line::Export {
        version: VERSION,
        since: text(since, settled.start),
        until: text(until, settled.end),
        first_leaf: leaves.start,
        peaks: written(peaks),
    };
    if file == Path::new("-") {
        let mut out = BufWriter::new(std::io::stdout().lock());
        write_export(&source, &leaves, begin, &mut out)?;
        return Ok(out.flush()?);
    }
    let shown = file.display();
    ensure!(!file.exists(), "{shown} is there already; name another file, or remove it");
    let made = std::fs::File::create_new(file).with_context(|| format!("cannot make {shown}"))?;
    let mut out = BufWriter::new(made);
    let done = write_export(&source, &leaves, begin, &mut out).and_then(|()| Ok(out.flush()?));
    done.with_context(|| format!("cannot write {shown}; it is not whole"))?;
    let entries = count(leaves.end - leaves.start, "entry", "entries");
    writeln!(std::io::stdout(), "{entries} in {shown}, from {} on", leaves.start)?;
    Ok(())
}

/// One reading of the ledger: the tree before the period, its entries with the checkpoints between
/// them, and the proof that they are in the tree that was signed last.
fn write_export(
    source: &Source,
    leaves: &Range<u64>,
    begin: impl Fn(&[Hash]) -> Line,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut before = Frontier::default();
    let mut rest = proof::Gathered::new(proof::consistency(leaves.end, source.newest.size));
    let next_checkpoint = |after: u64| source.ledger.checkpoint_in(after + 1..leaves.end.saturating_add(1));
    let mut checkpoint = next_checkpoint(leaves.start)?;
    source.ledger.leaves(source.newest.size, |leaf| {
        rest.pass(leaf.place, leaf.hash);
        if leaf.place == leaves.start {
            write_line(out, &begin(before.peaks()))?;
        }
        if leaf.place < leaves.start {
            before.push(leaf.hash);
        } else if leaf.place < leaves.end {
            write_line(out, &Line::Entry(Stated::of(&leaf)))?;
        }
        if let Some(signed) = checkpoint.take_if(|signed| signed.size == leaf.place + 1) {
            write_line(out, &Line::Checkpoint(source.signed(&signed)?))?;
            checkpoint = next_checkpoint(signed.size)?;
        }
        anyhow::Ok(())
    })?;
    let consistency = written(&rest.roots().context("the ledger changed while it was read")?);
    write_line(out, &Line::End { checkpoint: source.signed(&source.newest)?, consistency })
}

fn write_line(out: &mut impl Write, line: &Line) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    Ok(out.write_all(b"\n")?)
}

fn prove(request: &str, place: &Place) -> anyhow::Result<()> {
    let sources = Source::all(place)?;
    let mut found = None;
    for source in &sources {
        source.ledger.leaves(source.newest.size, |leaf| {
            if let Entry::Answer(answer) = leaf.entry
                && uuid_text(&answer.request).eq_ignore_ascii_case(request)
            {
                found = Some((source, Stated::of(&leaf)));
            }
            anyhow::Ok(())
        })?;
    }
    let (source, entry) = found.with_context(|| {
        format!(
            "there is no answer `{request}` among the {} entries that are signed; `card4e ledger list` shows \
             them. One that was given again for an idempotency key has the id of the first.",
            sources.iter().map(|source| source.newest.size).sum::<u64>()
        )
    })?;
    let mut path = proof::Gathered::new(proof::inclusion(entry.leaf, source.newest.size));
    gather(source, &mut path)?;
    let path = written(&path.roots().context("the ledger changed while it was read")?);
    let checkpoint = source.signed(&source.newest)?;
    let proof = Line::Inclusion { version: VERSION, entry, path, checkpoint };
    write_line(&mut std::io::stdout().lock(), &proof)
}

fn gather(source: &Source, into: &mut proof::Gathered) -> anyhow::Result<()> {
    source.ledger.leaves(source.newest.size, |leaf| {
        into.pass(leaf.place, leaf.hash);
        anyhow::Ok(())
    })
}

fn checkpoint(since: Option<&Path>, place: &Place) -> anyhow::Result<()> {
    let source = Source::open(place)?;
    let new = source.signed(&source.newest)?;
    let mut out = std::io::stdout().lock();
    let Some(file) = since else { return write_line(&mut out, &Line::Checkpoint(new)) };
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let old = match serde_json::from_str(text.trim()) {
        Ok(Line::Checkpoint(signed) | Line::Growth { new: signed, .. }) => signed,
        _ => anyhow::bail!("{shown} is not what `card4e audit checkpoint` printed"),
    };
    old.checked(&public_keys(&source.vault))?;
    ensure!(
        old.size <= new.size,
        "{shown} has {} entries, and {} are signed here: entries are missing, as after a restore of a backup",
        old.size,
        new.size
    );
    let mut path = proof::Gathered::new(proof::consistency(old.size, new.size));
    gather(&source, &mut path)?;
    let consistency = written(&path.roots().context("the ledger changed while it was read")?);
    write_line(&mut out, &Line::Growth { version: VERSION, old, new, consistency })
}

fn verify(files: &[PathBuf], key: &str, as_json: bool) -> anyhow::Result<()> {
    let keys = trusted(key)?;
    let shown = evidence::check(chained(files)?, &keys)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut all = serde_json::to_value(&shown)?;
        all["holds"] = true.into();
        return Ok(writeln!(out, "{all}")?);
    }
    writeln!(out, "The evidence holds.\n")?;
    if let (Some(first), Some(end)) = (shown.first_leaf, shown.end_leaf) {
        let entries = count(shown.entries, "entry", "entries");
        writeln!(out, "  {entries}, numbers {first} to {}", end - 1)?;
        let answers = count(shown.answers, "answer", "answers");
        writeln!(out, "  {answers} among them, charged {} in all", shown.charged)?;
    }
    if let (Some(first), Some(last)) = (&shown.first, &shown.last) {
        writeln!(out, "  the first answer at {first}, the last at {last}")?;
    }
    if let Some(entry) = &shown.entry {
        writeln!(out, "  {entry}")?;
    }
    writeln!(out, "  {}", count(shown.checkpoints, "signature", "signatures"))?;
    writeln!(out, "  newest tree: {} entries, signed at {}", shown.signed_size, shown.signed)?;
    writeln!(out, "  root {}", shown.root)?;
    Ok(())
}

fn chained(files: &[PathBuf]) -> anyhow::Result<Box<dyn BufRead>> {
    let mut all: Box<dyn BufRead> = Box::new(std::io::empty());
    for file in files {
        let next: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            let opened = std::fs::File::open(file);
            Box::new(opened.with_context(|| format!("cannot read {}", file.display()))?)
        };
        all = Box::new(all.chain(BufReader::new(next)));
    }
    Ok(all)
}

/// The keys that whoever checks was given.
fn trusted(given: &str) -> anyhow::Result<Vec<[u8; 32]>> {
    let as_key = |text: &str| unhex(text.trim()).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if let Some(key) = as_key(given) {
        return Ok(vec![key]);
    }
    let text = std::fs::read_to_string(given)
        .with_context(|| format!("`{given}` is no key of 64 hex digits, and no file with some"))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let keys: Option<Vec<_>> = lines.map(as_key).collect();
    let keys = keys.filter(|keys| !keys.is_empty());
    keys.with_context(|| format!("{given} does not hold public keys of 64 hex digits, one a line"))
}
