//! `card4e accounts`: one account of record at a time, and a look at all of them. A lost card must not
//! wait for a file.
//!
//! Works on the data folder directly; a server that answers from it knows at once.

use std::io::{Read, Write};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use engine::account::{AccountState, AccountText};
use engine::file::hex;
use engine::store::{AccountRow, Accounts, Census};
use engine::subject::CardNumber;
use engine::vault::{BlindIndex, Vault};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::import::Rules;
use crate::installation::{Installation, Place};

/// What can be done with accounts.
#[derive(Subcommand)]
pub enum Command {
    /// Tell the state of a card's account; ends with 1 if there is none.
    ///
    /// Tells state, kind of document and whether there is a mobile on file: nothing else is readable.
    #[command(after_help = CARD_HELP)]
    Get(Card),

    /// Add an account, replace it, or change only its state.
    #[command(after_help = "\
Examples:
  card4e accounts put --config card4e.toml - --status lost      asks nobody for the holder
  card4e accounts put --config card4e.toml - < account.json     the columns of an import as members:
     {\"bank_card\":\"…\",\"name\":\"…\",\"id_type\":\"\",\"id_number\":\"…\",\"phone\":\"…\",\"status\":\"\"}

With `-` the card is read from standard input, so that it is not in the shell's history nor in the
list of processes. Names, identity numbers and mobiles are only ever read from there.")]
    Put {
        /// Which card.
        #[command(flatten)]
        card: Card,
        /// The new state of an account that is there; its holder stays.
        #[arg(long, value_name = "WORD")]
        status: Option<String>,
    },

    /// Remove a card's account; ends with 1 if there is none.
    #[command(after_help = CARD_HELP)]
    Delete(Card),

    /// Read all accounts, check that none was changed outside card4e, and count them.
    Check {
        /// Which installation.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

const CARD_HELP: &str = "\
With `-` the card is read from standard input, so that it is not in the shell's history nor in the
list of processes.";

/// Which card's account.
#[derive(Args)]
pub struct Card {
    /// The card number; `-` reads it from standard input.
    #[arg(value_name = "CARD")]
    pub card: String,
    /// Which installation.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// An account in plain text, as it is read from standard input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    bank_card: Zeroizing<String>,
    name: Zeroizing<String>,
    #[serde(default)]
    id_type: String,
    id_number: Zeroizing<String>,
    #[serde(default)]
    phone: Zeroizing<String>,
    #[serde(default)]
    status: String,
}

/// What may be told about an account.
#[derive(Serialize)]
struct Told {
    status: &'static str,
    id_type: &'static str,
    has_phone: bool,
}

impl Told {
    fn of(row: &AccountRow) -> Told {
        Told { status: row.state.word(), id_type: row.kind.word(), has_phone: row.has_mobile }
    }

    fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let Told { status, id_type, has_phone } = self;
        writeln!(out, "status            {status}")?;
        writeln!(out, "opened with       {id_type}")?;
        writeln!(out, "mobile on file    {}", if *has_phone { "yes" } else { "no" })?;
        Ok(())
    }
}

/// Runs one of them.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Get(card) => get(card),
        Command::Put { card, status } => put(card, status.as_deref()),
        Command::Delete(card) => delete(card),
        Command::Check { place, json } => check(place, *json),
    }
}

fn get(card: &Card) -> anyhow::Result<()> {
    let Installation { folder, vault, .. } = card.place.open()?;
    let index = index(&card_text(&card.card)?, &vault)?;
    let accounts = Accounts::open(&folder.join("accounts.db"))?;
    Told::of(&found(&accounts, &index, &vault)?).print(card.json)
}

fn put(card: &Card, status: Option<&str>) -> anyhow::Result<()> {
    let installation = card.place.open()?;
    let vault = &installation.vault;
    let given = card_text(&card.card)?;
    let mut accounts = Accounts::open_alone(&installation.folder)?;
    let row = match (status, given.starts_with('{')) {
        (Some(status), false) => {
            let row = found(&accounts, &index(&given, vault)?, vault)?;
            AccountRow { state: state(status)?, ..row }
        }
        (None, true) => whole(&given, &Rules::of(&installation))?,
        (Some(_), true) => bail!("give --status or an account as JSON, not both"),
        (None, false) => bail!(
            "say what to put: --status WORD for an account that is there, or `-` and an account as JSON \
             on standard input"
        ),
    };
    accounts.put(std::slice::from_ref(&row), vault)?;
    Told::of(&row).print(card.json)
}

fn delete(card: &Card) -> anyhow::Result<()> {
    let Installation { folder, vault, .. } = card.place.open()?;
    let index = index(&card_text(&card.card)?, &vault)?;
    ensure!(Accounts::open_alone(&folder)?.delete(&index)?, NOBODY);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", if card.json { r#"{"deleted":true}"# } else { "The account is deleted." })?;
    Ok(())
}

fn check(place: &Place, json: bool) -> anyhow::Result<()> {
    let Installation { folder, vault, .. } = place.open()?;
    let Census { accounts, states, without_mobile, digest, file_bytes } =
        Accounts::open(&folder.join("accounts.db"))?.census(&vault)?;
    let states = AccountState::ALL.map(AccountState::word).into_iter().zip(states);
    let mut out = std::io::stdout().lock();
    if json {
        let states: serde_json::Map<_, _> =
            states.map(|(word, count)| (word.to_owned(), count.into())).collect();
        let census = serde_json::json!({
            "accounts": accounts,
            "states": states,
            "without_phone": without_mobile,
            "digest": hex(&digest),
            "file_bytes": file_bytes,
        });
        writeln!(out, "{census}")?;
        return Ok(());
    }
    let line = |count: u64, what: &str| format!("{:>14}  {what}", HumanCount(count).to_string());
    writeln!(out, "The accounts are as card4e wrote them.\n")?;
    writeln!(out, "{}", line(accounts, "accounts"))?;
    for (word, count) in states.filter(|(_, count)| *count > 0) {
        writeln!(out, "{}", line(count, word))?;
    }
    writeln!(out, "{}", line(without_mobile, "without a mobile on file"))?;
    writeln!(out, "{}", line(file_bytes, "bytes of file"))?;
    writeln!(out, "\nDigest {}", hex(&digest))?;
    writeln!(
        out,
        "The same accounts under the same keys have the same digest, in a restored copy for example."
    )?;
    Ok(())
}

const NOBODY: &str = "there is no account of that card";

fn found(accounts: &Accounts, index: &BlindIndex, vault: &Vault) -> anyhow::Result<AccountRow> {
    accounts.find(index, vault)?.context(NOBODY)
}

fn index(card: &str, vault: &Vault) -> anyhow::Result<BlindIndex> {
    let card = CardNumber::parse(card).context("that is not a card number: 13 to 19 digits")?;
    Ok(vault.index(card.as_str()))
}

fn state(word: &str) -> anyhow::Result<AccountState> {
    let known = || AccountState::ALL.map(AccountState::word).join(", ");
    AccountState::from_word(word)
        .with_context(|| format!("there is no status `{word}`; there is {}", known()))
}

fn whole(json: &str, rules: &Rules<'_>) -> anyhow::Result<AccountRow> {
    // What serde says of a wrong value would show it.
    let plain: Plain = serde_json::from_str(json)
        .map_err(|wrong| anyhow::anyhow!("line {} column {}: not an account; its members are bank_card, name, id_number and, if wanted, id_type, phone, status", wrong.line(), wrong.column()))?;
    let text = AccountText {
        card: &plain.bank_card,
        name: &plain.name,
        kind: &plain.id_type,
        id: &plain.id_number,
        mobile: &plain.phone,
        state: &plain.status,
    };
    Ok(text.row(&rules.options, rules.vault)?)
}

/// What was given as a card, which is on standard input for `-`.
fn card_text(card: &str) -> anyhow::Result<Zeroizing<String>> {
    /// More than any account in JSON.
    const BYTES_MAX: u64 = 16 << 10;
    let mut text = Zeroizing::new(card.to_owned());
    if card == "-" {
        text.clear();
        std::io::stdin().take(BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}
