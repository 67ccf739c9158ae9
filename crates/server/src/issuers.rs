//! `card4e issuers`: an operator's file of issuers, checked, and held against the built-in table.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use engine::issuer::{Issuer, Issuers, Provenance, provenance, read_operator_file};
use serde_json::json;

/// `card4e issuers`
#[derive(Subcommand)]
pub enum Command {
    /// Check a file of issuers: columns, prefixes, lengths, words, rows that are there twice.
    ///
    /// Ends with 1 at the first mistake, and says how to put it right. `policy.issuers_file` names the file
    /// that an installation uses.
    #[command(after_help = "\
Examples:
  card4e issuers check issuers.csv
  card4e issuers check issuers.csv --json

The header is prefix,length,bank_zh,bank_en,kind,verifies,phone_checked; kind is debit, credit, semi_credit or
prepaid; an empty length stands for any.")]
    Check {
        /// The file (CSV in UTF-8).
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show where a file of issuers and the built-in table differ, and how far the table can be trusted there.
    #[command(after_help = "Example:\n  card4e issuers diff issuers.csv")]
    Diff {
        /// The file (CSV in UTF-8).
        file: PathBuf,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of them.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Check { file, json } => check(&mut out, file, *json),
        Command::Diff { file, json } => diff(&mut out, file, *json),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Issuer>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    read_operator_file(&text).with_context(|| file.display().to_string())
}

fn check(out: &mut impl Write, file: &Path, json: bool) -> anyhow::Result<()> {
    let rows = read(file)?;
    let banks: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.bank_en).collect();
    let silent = rows.iter().filter(|row| !row.verifies).count();
    if json {
        let told = json!({ "rows": rows.len(), "banks": banks.len(), "not_verifying": silent });
        return Ok(writeln!(out, "{told}")?);
    }
    writeln!(out, "{} can be used.\n", file.display())?;
    writeln!(out, "  {} rows of {} banks, {silent} of them not verifying", rows.len(), banks.len())?;
    writeln!(out, "\nNext: card4e issuers diff {}", file.display())?;
    Ok(())
}

/// How a row of the file stands to the table.
enum Differs<'a> {
    /// The table has no row of this prefix and length.
    New,
    /// It has another.
    Changed(&'a Issuer),
}

fn diff(out: &mut impl Write, file: &Path, json: bool) -> anyhow::Result<()> {
    let (rows, table, sources) = (read(file)?, Issuers::built_in(), provenance());
    let mut same = 0;
    for row in &rows {
        let known =
            table.all().iter().find(|known| (&known.prefix, known.length) == (&row.prefix, row.length));
        let differs = match known {
            Some(known) if known == row => {
                same += 1;
                continue;
            }
            Some(known) => Differs::Changed(known),
            None => Differs::New,
        };
        let source = sources.get(&(&*row.prefix, row.length));
        if json { write_json(out, row, &differs, source)? } else { write_line(out, row, &differs, source)? }
    }
    if !json {
        writeln!(out, "\n{} rows: {same} as in the built-in table, {} not", rows.len(), rows.len() - same)?;
    }
    Ok(())
}

fn write_json(
    out: &mut impl Write,
    row: &Issuer,
    differs: &Differs<'_>,
    source: Option<&Provenance>,
) -> anyhow::Result<()> {
    let told = |row: &Issuer| {
        json!({ "bank_zh": row.bank_zh, "bank_en": row.bank_en, "kind": row.kind.word(),
            "verifies": row.verifies, "phone_checked": row.phone_checked })
    };
    let built_in = match differs {
        Differs::New => None,
        Differs::Changed(known) => Some(told(known)),
    };
    let line = json!({
        "prefix": row.prefix,
        "length": row.length,
        "file": told(row),
        "built_in": built_in,
        "source": source.map(|source| source.source),
        "confidence": source.map(|source| source.confidence),
    });
    Ok(writeln!(out, "{line}")?)
}

fn write_line(
    out: &mut impl Write,
    row: &Issuer,
    differs: &Differs<'_>,
    source: Option<&Provenance>,
) -> anyhow::Result<()> {
    let shown = |row: &Issuer| {
        let silent = if row.verifies { "" } else { ", does not verify" };
        let unchecked = if row.phone_checked { "" } else { ", phone not checked" };
        format!("{} {}{silent}{unchecked}", row.bank_en, row.kind.word())
    };
    let length = row.length.map_or("any".to_owned(), |length| length.to_string());
    let place = format!("{:<12} {length:>3}", row.prefix);
    match differs {
        Differs::New => writeln!(out, "+ {place}  {}", shown(row))?,
        Differs::Changed(known) => {
            let source = source.map_or(String::new(), |source| {
                format!(" ({}, confidence {})", source.source, source.confidence)
            });
            writeln!(out, "- {place}  {}{source}", shown(known))?;
            writeln!(out, "+ {place}  {}", shown(row))?;
        }
    }
    Ok(())
}
