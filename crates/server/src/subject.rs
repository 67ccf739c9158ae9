//! `card4e subject erase`: everything about a card goes, but the bare fact that somebody asked.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Subcommand;
use engine::erase::ErasureStatus;
use indicatif::HumanCount;
use serde_json::json;
use zeroize::Zeroizing;

use crate::installation::Place;
use crate::manage::{Answering, Hidden, Request};

/// `card4e subject`
#[derive(Subcommand)]
pub enum Command {
    /// Erase everything that is kept about a card, while the server answers.
    ///
    /// The card is read from standard input, so that it is in no history and no list of processes. Its
    /// account of record goes, and of every ledger entry about it what tells about whom it was: reference,
    /// masks, stored answer. Entries, charges and the audit tree stay and can still be checked. The day's
    /// attempt counters stay in memory until midnight or a restart: nobody can read them.
    ///
    /// Can be repeated. Interrupted, it is gone on with at the next start of the server, or before another card is
    /// erased.
    #[command(after_help = "\
Examples:
  card4e subject erase --config card4e.toml < card.txt
  read -rs CARD && printf %s \"$CARD\" | card4e subject erase --config card4e.toml --json

Backups made before still have it, and so has the file it was imported from.")]
    Erase {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs it.
pub fn run(Command::Erase { place, json }: Command) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let card = card()?;
    let mut answering = Answering::of(&place)?;
    let erase = |answering: &mut Answering| -> anyhow::Result<ErasureStatus> {
        let request = || Request::Erase { card: Hidden(card.clone()) };
        let mut told = answering.ask(request())?;
        loop {
            let is: ErasureStatus = serde_json::from_value(told)?;
            told = match is.error {
                _ if is.is_running => {
                    std::thread::sleep(PAUSE);
                    answering.ask(Request::Erasure)?
                }
                Some(error) if is.is_earlier => {
                    bail!(
                        "an erasure that was interrupted comes first, and does not come to its end: {error}"
                    )
                }
                None if is.is_earlier => answering.ask(request())?,
                _ => return Ok(is),
            };
        }
    };
    let erased = erase(&mut answering);
    answering.stop();
    let ErasureStatus { account, records, masks, error, .. } = erased?;
    if let Some(error) = error {
        bail!("{error}");
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", json!({ "account": account, "records": records, "masks": masks }))?;
        return Ok(());
    }
    let count = |count: u64| format!("{:>12}", HumanCount(count).to_string());
    writeln!(out, "Erased:\n")?;
    writeln!(out, "{}  account of record", count(account.into()))?;
    writeln!(out, "{}  ledger entries: about whom they were, and their stored answers", count(records))?;
    writeln!(out, "{}  of them had masks, which usage rows showed", count(masks))?;
    writeln!(out, "\nThe entries themselves stay; `card4e audit check` counts them as erased.")?;
    Ok(())
}

fn card() -> anyhow::Result<Zeroizing<String>> {
    /// More than any card number.
    const BYTES_MAX: u64 = 256;
    if std::io::stdin().is_terminal() {
        writeln!(std::io::stderr(), "Card number, then Ctrl-D:")?;
    }
    let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX as usize));
    std::io::stdin().take(BYTES_MAX).read_to_string(&mut text)?;
    let card = Zeroizing::new(text.trim().to_owned());
    ensure!(!card.is_empty(), "no card number on standard input: card4e subject erase … < card.txt");
    Ok(card)
}
