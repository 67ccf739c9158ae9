//! `card4e reconcile`: a provider's bill held against what the ledger says was bought from it.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use engine::clock::{Millis, utc_text};
use engine::ledger::Credits;
use engine::spending::Billed;
use serde_json::{Value, json};

use crate::installation::Place;
use crate::ledger::Time;
use crate::manage::{Answering, Request};
use crate::provider::{self, Purchase};
use crate::table;

/// `card4e reconcile`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e reconcile november.csv --provider main --since 2026-11-01 --until 2026-12-01 --config card4e.toml
  card4e reconcile november.csv --provider main --since 2026-11-01 --until 2026-12-01 --config card4e.toml --record

The bill is CSV in UTF-8, with these columns in any order; others are ignored:
  reference  the provider's id of the question (RequestId, trace_id)
  time       2026-11-21T08:00:00Z or 2026-11-21T16:00:00+08:00
  amount     what it charges, in credits; 0 and empty rows count as not charged

Ends with 0 when both agree, 3 when they do not, and 1 when the bill cannot be read.")]
pub struct Options {
    /// The bill.
    file: PathBuf,

    /// Whose bill it is.
    #[arg(long, value_name = "NAME")]
    provider: String,

    /// The time it covers begins then: 2026-11-01 is midnight in Beijing.
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    since: Option<Time>,

    /// And ends before then.
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    until: Option<Time>,

    /// Write into the ledger what uncertain purchases cost by this bill.
    #[arg(long)]
    record: bool,

    #[command(flatten)]
    place: Place,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A line of a bill that charges something.
struct Line {
    number: usize,
    reference: String,
    at_ms: Option<Millis>,
    amount: Credits,
}

/// A purchase whose reply never came has no reference; a line this near to it may be its own.
const NEAR_MS: Millis = 120_000;

/// What the comparison found.
#[derive(Default)]
struct Found {
    same: u64,
    /// On both sides, with another amount.
    amounts: Vec<(Purchase, Line)>,
    /// Uncertain, and explained by a line that is near in time.
    explained: Vec<(Purchase, Line)>,
    /// Uncertain, and not on the bill.
    not_charged: Vec<Purchase>,
    /// Counted as charged, and not on the bill.
    missing: Vec<Purchase>,
    /// On the bill, and never bought.
    unknown: Vec<Line>,
    /// On the bill more than once.
    twice: Vec<Line>,
    ours: Credits,
    billed: Credits,
}

impl Found {
    fn of(purchases: Vec<Purchase>, lines: Vec<Line>) -> Found {
        let mut found = Found::default();
        let mut by_reference: HashMap<String, Vec<Line>> = HashMap::new();
        let mut without = Vec::new();
        for line in lines {
            found.billed.0 += line.amount.0;
            match line.reference.is_empty() {
                true => without.push(line),
                false => by_reference.entry(line.reference.clone()).or_default().push(line),
            }
        }
        let mut nameless = Vec::new();
        for purchase in purchases {
            found.ours.0 += purchase.cost().0;
            let reference = &purchase.bought.reference;
            if reference.is_empty() && (purchase.is_uncertain() || purchase.cost() > Credits::ZERO) {
                nameless.push(purchase);
                continue;
            }
            let mut lines = by_reference.remove(reference).unwrap_or_default().into_iter();
            found.compare(purchase, lines.next());
            found.twice.extend(lines);
        }
        let mut left: Vec<Line> = by_reference.into_values().flatten().chain(without).collect();
        left.sort_by_key(|line| line.number);
        // The nearest first: each line explains one purchase.
        for purchase in nameless {
            let asked = purchase.bought.asking.at_ms;
            let distance =
                |line: &Line| line.at_ms.map(|at| (at - asked).abs()).filter(|away| *away <= NEAR_MS);
            let nearest = left.iter().enumerate().filter_map(|(at, line)| Some((distance(line)?, at))).min();
            let line = nearest.map(|(_, at)| left.remove(at));
            found.compare(purchase, line);
        }
        found.unknown = left;
        found
    }

    /// A purchase and the line of the bill that is about it.
    fn compare(&mut self, purchase: Purchase, line: Option<Line>) {
        match line {
            Some(line) if purchase.is_uncertain() => self.explained.push((purchase, line)),
            Some(line) if line.amount == purchase.cost() => self.same += 1,
            Some(line) => self.amounts.push((purchase, line)),
            None if purchase.is_uncertain() => self.not_charged.push(purchase),
            None if purchase.cost() > Credits::ZERO => self.missing.push(purchase),
            None => self.same += 1,
        }
    }

    fn agrees(&self) -> bool {
        self.amounts.is_empty()
            && self.explained.is_empty()
            && self.not_charged.is_empty()
            && self.missing.is_empty()
            && self.unknown.is_empty()
            && self.twice.is_empty()
    }

    /// What the bill settles: what uncertain purchases cost.
    fn corrections(&self) -> Vec<Billed> {
        let explained = self.explained.iter().map(|(purchase, line)| (purchase, line.amount));
        let settled = explained.chain(self.not_charged.iter().map(|purchase| (purchase, Credits::ZERO)));
        settled
            .map(|(purchase, cost)| Billed {
                at_ms: 0,
                asking: purchase.bought.asking.clone(),
                was: purchase.cost(),
                cost,
            })
            .collect()
    }

    /// Every difference: what it is, the purchase, the line.
    fn differences(&self) -> Vec<(&'static str, Option<&Purchase>, Option<&Line>)> {
        let mut all = Vec::new();
        for (what, pairs) in [("another amount", &self.amounts), ("uncertain, charged", &self.explained)] {
            all.extend(pairs.iter().map(|(purchase, line)| (what, Some(purchase), Some(line))));
        }
        for (what, purchases) in
            [("uncertain, not charged", &self.not_charged), ("not on the bill", &self.missing)]
        {
            all.extend(purchases.iter().map(|purchase| (what, Some(purchase), None)));
        }
        for (what, lines) in [("never bought", &self.unknown), ("billed twice", &self.twice)] {
            all.extend(lines.iter().map(|line| (what, None, Some(line))));
        }
        all
    }
}

/// Runs `card4e reconcile`; false when the two do not agree.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let now = engine::clock::Clock::default().now_ms();
    let bound = |time: Option<Time>, otherwise| time.map_or(otherwise, |time| time.at_ms(now));
    let covers = bound(options.since, Millis::MIN)..bound(options.until, Millis::MAX);
    ensure!(covers.start < covers.end, "--since is not before --until; nothing can lie between them");
    let shown = options.file.display();
    let text = std::fs::read_to_string(&options.file).with_context(|| format!("cannot read {shown}"))?;
    let lines = lines(&text).with_context(|| format!("{shown} is no bill"))?;
    let mut purchases = provider::read(&options.place, Some(&options.provider))?;
    ensure!(
        !purchases.is_empty(),
        "nothing was ever bought from `{}`; `card4e provider list` shows who there is",
        options.provider
    );
    purchases.retain(|purchase| covers.contains(&purchase.bought.asking.at_ms));
    let found = Found::of(purchases, lines);
    let corrections = found.corrections();
    let recorded = if options.record { record(&options.place, &corrections)? } else { 0 };
    print(options, &found, corrections.len(), recorded)?;
    Ok(found.agrees())
}

/// In parts, so that each fits into a line of the control socket.
fn record(place: &Place, corrections: &[Billed]) -> anyhow::Result<usize> {
    if corrections.is_empty() {
        return Ok(0);
    }
    let mut answering = Answering::of(place)?;
    let mut done = Ok(Value::Null);
    for part in corrections.chunks(100) {
        done = done.and_then(|_| answering.ask(Request::Billed { billed: part.to_vec() }));
    }
    answering.stop();
    done.map(|_| corrections.len())
}

fn print(options: &Options, found: &Found, open: usize, recorded: usize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let difference = Credits(found.billed.0 - found.ours.0);
    if options.json {
        let differences: Vec<_> = found
            .differences()
            .into_iter()
            .map(|(what, purchase, line)| {
                json!({
                    "difference": what,
                    "purchase": purchase.map(Purchase::json),
                    "line": line.map(|line| json!({
                        "number": line.number,
                        "reference": line.reference,
                        "time": line.at_ms.map(utc_text),
                        "amount": line.amount.to_string(),
                    })),
                })
            })
            .collect();
        let said = json!({
            "provider": options.provider,
            "same": found.same,
            "ours": found.ours.to_string(),
            "billed": found.billed.to_string(),
            "difference": difference.to_string(),
            "differences": differences,
            "recorded": recorded,
        });
        return Ok(writeln!(out, "{said}")?);
    }
    let (ours, billed) = (found.ours, found.billed);
    let (amount, than) = (Credits(difference.0.abs()), if difference.0 < 0 { "less" } else { "more" });
    writeln!(out, "By the ledger {ours} credits; by the bill {billed}, which is {amount} {than}.")?;
    writeln!(out, "{} agree.", table::count(found.same, "purchase", "purchases"))?;
    let row = |(what, purchase, line): (&str, Option<&Purchase>, Option<&Line>)| {
        let reference = |purchase: &Purchase| purchase.bought.reference.clone();
        vec![
            what.to_owned(),
            purchase.map_or_else(String::new, |purchase| utc_text(purchase.bought.asking.at_ms)),
            line.map(|line| line.reference.clone()).or(purchase.map(reference)).unwrap_or_default(),
            purchase.map_or_else(String::new, |purchase| purchase.cost().to_string()),
            line.map_or_else(String::new, |line| line.amount.to_string()),
            line.map_or_else(String::new, |line| line.number.to_string()),
        ]
    };
    let rows: Vec<_> = found.differences().into_iter().map(row).collect();
    if !rows.is_empty() {
        writeln!(out)?;
        let headings = ["difference", "asked (UTC)", "reference", ">ledger", ">bill", ">line"];
        table::print(&mut out, &headings, &rows)?;
    }
    match (recorded, open) {
        (0, 0) => {}
        (0, open) => {
            let purchases = table::count(open as u64, "uncertain purchase", "uncertain purchases");
            writeln!(out, "\nThe bill settles {purchases}; --record writes that into the ledger.")?;
        }
        (recorded, _) => writeln!(out, "\n{recorded} settled in the ledger.")?,
    }
    Ok(())
}

/// The lines of a bill that charge something.
fn lines(text: &str) -> anyhow::Result<Vec<Line>> {
    let mut rows = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end_matches('\r')));
    let Some((_, head)) = rows.next() else { bail!("it is empty") };
    let head: Vec<String> = fields(head.trim_start_matches('\u{feff}'))
        .iter()
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let column = |name: &str| head.iter().position(|known| known == name);
    let amount = column("amount").context("line 1: there is no column `amount`")?;
    let (reference, time) = (column("reference"), column("time"));
    ensure!(
        reference.is_some() || time.is_some(),
        "line 1: there is neither a column `reference` nor `time`"
    );
    let mut lines = Vec::new();
    for (number, row) in rows.filter(|(_, row)| !row.trim().is_empty()) {
        let fields = fields(row);
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).map_or("", |field| field.trim());
        let charged = field(Some(amount));
        let charged = if charged.is_empty() { "0" } else { charged };
        let amount: Credits =
            charged.parse().map_err(|wrong| anyhow::anyhow!("line {number}: amount: {wrong}"))?;
        let at_ms = match field(time) {
            "" => None,
            text => match Time::parse(text) {
                Ok(Time::At(at)) => Some(at),
                _ => bail!("line {number}: time: `{text}`; write 2026-11-21T08:00:00Z"),
            },
        };
        if amount > Credits::ZERO {
            lines.push(Line { number, reference: field(reference).to_owned(), at_ms, amount });
        }
    }
    Ok(lines)
}

/// The fields of a line of CSV; quoted ones may hold commas, and quotes twice.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => fields[last].push(letter),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_read_whatever_else_it_has() {
        let text = "\u{feff}Product,Amount,Reference,time\r\n\"a, \"\"b\"\"\",0.7,r-1,2026-11-21T08:00:00Z\r\n\
                    x,0,r-2,\r\n\r\ny,0.5,,2026-11-21T16:00:00+08:00\r\n";
        let read = lines(text).unwrap();
        let told: Vec<_> = read
            .iter()
            .map(|line| (line.number, line.reference.as_str(), line.amount.0, line.at_ms))
            .collect();
        let at = Some(1_795_248_000_000);
        assert_eq!(told, [(2, "r-1", 700_000, at), (5, "", 500_000, at)]);
        assert_eq!(fields("\"a, \"\"b\"\"\",2"), ["a, \"b\"", "2"]);
        for (wrong, said) in [
            ("", "empty"),
            ("reference\nr", "no column `amount`"),
            ("amount\n1", "neither"),
            ("amount,time\n1,yesterday", "line 2: time"),
            ("amount,time\n-1,", "line 2: amount"),
        ] {
            let error = format!("{:#}", lines(wrong).err().unwrap());
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
