//! `card4e accounts`: one account of record at a time, and a look at all of them. A lost card must not
//! wait for a file.
//!
//! Asks the server that works in the data folder, and works on the folder itself where none does: only
//! then is the root key opened, which may need a passphrase. What an account looks like in JSON is the
//! same here and over HTTP ([`read`]).

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use engine::Engine;
use engine::account::{AccountState, AccountText};
use engine::file::hex;
use engine::operator::{Act, By};
use engine::store::{
    AccountDone, AccountOrder, AccountRow, AccountSpot, Accounts, AccountsOfRecord, Census, TablePlace,
};
use engine::subject::CardNumber;
use engine::vault::Vault;
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::import::Rules;
use crate::installation::{Installation, Place};
use crate::manage::{Hidden, Request, ask_running};

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
        /// Also time so many look-ups of accounts drawn at random.
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
        look_ups: u32,
        /// Also look accounts up for so long, as fast as one thread can: what an import does to others, say.
        #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
        seconds: u64,
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

/// An account in plain text, or a change of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default)]
    op: Op,
    bank_card: Zeroizing<String>,
    name: Option<Zeroizing<String>>,
    id_type: Option<String>,
    id_number: Option<Zeroizing<String>>,
    phone: Option<Zeroizing<String>>,
    status: Option<String>,
    id_validity: Option<Zeroizing<String>>,
}

/// What an object is to do; the words of an import's column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Add the account, replace it, or, with nothing but a status, give it another state.
    #[default]
    Upsert,
    /// Remove it.
    Delete,
}

impl Plain {
    fn order(&self, rules: &Rules<'_>) -> Result<AccountOrder, String> {
        let spot = || {
            let card = CardNumber::parse(&self.bank_card).ok_or("bank_card: not 13 to 19 digits")?;
            Ok::<_, String>(AccountSpot::of(card.as_str(), rules.vault))
        };
        let holder = [&self.name, &self.id_number, &self.phone, &self.id_validity]
            .map(Option::is_some)
            .contains(&true);
        let holder = [holder, self.id_type.is_some()];
        match (self.op, holder.contains(&true)) {
            (Op::Delete, false) if self.status.is_none() => Ok(AccountOrder::Delete(spot()?)),
            (Op::Delete, _) => Err("op: delete takes nothing but bank_card".into()),
            (Op::Upsert, false) => match &self.status {
                Some(status) => {
                    Ok(AccountOrder::SetState(spot()?, state(status).map_err(|e| e.to_string())?))
                }
                None => Err("say what to put: a status, or name, id_number and phone".into()),
            },
            (Op::Upsert, true) => self.row(rules).map(AccountOrder::Put),
        }
    }

    fn row(&self, rules: &Rules<'_>) -> Result<AccountRow, String> {
        let (Some(name), Some(id)) = (&self.name, &self.id_number) else {
            return Err(
                "a whole account has name and id_number; a change of state has neither, nor phone".into()
            );
        };
        let text = AccountText {
            card: &self.bank_card,
            name,
            kind: self.id_type.as_deref().unwrap_or_default(),
            id,
            mobile: self.phone.as_ref().map_or("", |phone| phone),
            state: self.status.as_deref().unwrap_or_default(),
            validity: self.id_validity.as_ref().map_or("", |validity| validity),
        };
        text.row(&rules.options, rules.vault).map_err(|wrong| wrong.to_string())
    }
}

/// Reads an order: an account, `{"bank_card","status"}`, or `{"op":"delete","bank_card"}`. Its errors
/// never quote what was sent.
pub fn read(json: &[u8], rules: &Rules<'_>) -> Result<AccountOrder, String> {
    read_as(json, None, rules)
}

/// As [`read`], where something other than the member `op` says what is to be done.
pub fn read_as(json: &[u8], op: Option<Op>, rules: &Rules<'_>) -> Result<AccountOrder, String> {
    let mut plain: Plain = serde_json::from_slice(json).map_err(|wrong| {
        format!(
            "column {}: not an account; its members are bank_card, name, id_type, id_number, phone, status, id_validity and op",
            wrong.column()
        )
    })?;
    plain.op = op.unwrap_or(plain.op);
    plain.order(rules)
}

/// What may be told about an account.
#[derive(Serialize, Deserialize)]
pub struct Told {
    /// The word of its state.
    pub status: String,
    id_type: String,
    has_phone: bool,
}

impl Told {
    /// Of an account as it is stored.
    pub fn of(row: &AccountRow) -> Told {
        Told { status: row.state.word().into(), id_type: row.kind.word().into(), has_phone: row.has_mobile }
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
        Command::Check { look_ups, seconds, place, json } => check(place, *look_ups, *seconds, *json),
    }
}

fn get(card: &Card) -> anyhow::Result<()> {
    let given = card_text(&card.card)?;
    let number = card_number(&given)?;
    let folder = card.place.folder()?;
    if let Some(told) = ask_running(&folder, &Request::FindAccount { card: Hidden(given) }) {
        return serde_json::from_value::<Told>(told?)?.print(card.json);
    }
    let installation = card.place.open()?;
    Told::of(&found(&mut installation.accounts()?, &number, &installation.vault)?).print(card.json)
}

fn put(card: &Card, status: Option<&str>) -> anyhow::Result<()> {
    let given = card_text(&card.card)?;
    let order = match (status, given.starts_with('{')) {
        (Some(word), false) => {
            state(word)?;
            json!({ "bank_card": card_number(&given)?.as_str(), "status": word }).to_string().into()
        }
        (None, true) => given,
        (Some(_), true) => bail!("give --status or an account as JSON, not both"),
        (None, false) => bail!(
            "say what to put: --status WORD for an account that is there, or `-` and an account as JSON \
             on standard input"
        ),
    };
    one(card, order)
}

fn delete(card: &Card) -> anyhow::Result<()> {
    let number = card_number(&card_text(&card.card)?)?;
    one(card, json!({ "op": Op::Delete, "bank_card": number.as_str() }).to_string().into())
}

/// Carries an order out, in JSON: the running server does, or this process when none runs.
fn one(card: &Card, order: Zeroizing<String>) -> anyhow::Result<()> {
    let running =
        ask_running(&card.place.folder()?, &Request::ChangeAccount { order: Hidden(order.clone()) });
    let done = match running {
        Some(done) => done?,
        None => one_here(&card.place, &order)?,
    };
    let mut out = std::io::stdout();
    match done["deleted"].is_boolean() {
        true if card.json => writeln!(out, r#"{{"deleted":true}}"#)?,
        true => writeln!(out, "The account is deleted.")?,
        false => serde_json::from_value::<Told>(done)?.print(card.json)?,
    }
    Ok(())
}

fn one_here(place: &Place, order: &str) -> anyhow::Result<Value> {
    let installation = place.open()?;
    let order = read(order.as_bytes(), &Rules::of(&installation)).map_err(anyhow::Error::msg)?;
    crate::manage::record(place, act(std::slice::from_ref(&order)))?;
    told(installation.accounts()?.carry_out(&[order], &installation.vault)?)
}

/// How the account of a card stands, from an engine at work.
pub fn look_up(engine: &Engine, card: &str) -> anyhow::Result<Told> {
    Ok(Told::of(&found(&mut engine.accounts_to_change()?, &card_number(card)?, &engine.vault)?))
}

/// Records a change in JSON, then carries it out, on an engine at work.
pub fn change(engine: &Arc<Engine>, by: By, order: &[u8]) -> anyhow::Result<Value> {
    let order = read(order, &Rules::at_work(engine)).map_err(anyhow::Error::msg)?;
    engine.acting(by).record_act(act(std::slice::from_ref(&order)))?;
    told(engine.accounts_to_change()?.carry_out(&[order], &engine.vault)?)
}

/// What became of one order: the account as it is now, or that it is deleted.
fn told(mut done: Vec<AccountDone>) -> anyhow::Result<Value> {
    match done.pop() {
        Some(AccountDone::Is(row)) => Ok(json!(Told::of(&row))),
        Some(AccountDone::Deleted) => Ok(json!({ "deleted": true })),
        Some(AccountDone::Absent) | None => bail!(NOBODY),
    }
}

/// What orders are, for the record: how many of each kind.
pub fn act(orders: &[AccountOrder]) -> Act {
    let (mut put, mut state_set, mut deleted) = (0, 0, 0);
    for order in orders {
        *match order {
            AccountOrder::Put(_) => &mut put,
            AccountOrder::SetState(..) => &mut state_set,
            AccountOrder::Delete(_) => &mut deleted,
        } += 1;
    }
    Act::AccountsChanged { put, state_set, deleted }
}

/// What look-ups one after the other came to.
#[derive(Serialize)]
struct Rush {
    seconds: u64,
    per_second: f64,
    /// Share of them that the sealed table had.
    in_table: f64,
    p50_us: f64,
    p99_us: f64,
    longest_us: f64,
}

impl Rush {
    /// Looks accounts up for so long; nothing for no time, and without accounts.
    fn of(reader: &Accounts, seconds: u64, vault: &Vault) -> anyhow::Result<Option<Rush>> {
        if seconds == 0 {
            return Ok(None);
        }
        /// What takes longer counts as a minute.
        const MINUTE_NS: u64 = 60_000_000_000;
        let (mut took_ns, mut in_table) = (Histogram::<u64>::new_with_bounds(1, MINUTE_NS, 3)?, 0u64);
        reader.look_up_for(Duration::from_secs(seconds), vault, |took, is_in_table| {
            took_ns.saturating_record(took.as_nanos() as u64);
            in_table += u64::from(is_in_table);
        })?;
        let us = |ns: u64| ns as f64 / 1000.0;
        Ok((!took_ns.is_empty()).then(|| Rush {
            seconds,
            per_second: took_ns.len() as f64 / seconds as f64,
            in_table: in_table as f64 / took_ns.len() as f64,
            p50_us: us(took_ns.value_at_quantile(0.5)),
            p99_us: us(took_ns.value_at_quantile(0.99)),
            longest_us: us(took_ns.max()),
        }))
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Rush { seconds, per_second, in_table, p50_us, p99_us, longest_us } = self;
        writeln!(
            out,
            "\nFor {seconds} s one thread looked up {} a second, {:.0} % of them in the sealed table: p50 {p50_us:.2} us, \
             p99 {p99_us:.2} us, longest {longest_us:.0} us.",
            HumanCount(*per_second as u64),
            in_table * 100.0
        )
    }
}

fn check(place: &Place, look_ups: u32, seconds: u64, json: bool) -> anyhow::Result<()> {
    let installation = place.open()?;
    let Census { accounts, states, without_mobile, in_element_index, digest, file_bytes } =
        installation.accounts()?.census(&installation.vault)?;
    let Installation { folder, vault, .. } = installation;
    let path = folder.join("accounts.db");
    // Where nodes share a database, look-ups go to this node's copy.
    drop(Accounts::open(&path)?);
    let reader = Accounts::open_reader_of(&path, Arc::new(TablePlace::of(&path)))?;
    let timed = reader.time_look_ups(look_ups as usize, &vault)?;
    let rush = Rush::of(&reader, seconds, &vault)?;
    let quantiles = |took: &Vec<Duration>| {
        let quantile =
            |share: usize| took.get(took.len() * share / 1000).map(|took| took.as_nanos() as f64 / 1000.0);
        [500, 990, 999].map(quantile)
    };
    let [took, table] = timed.each_ref().map(quantiles);
    let states = AccountState::ALL.map(AccountState::word).into_iter().zip(states);
    let mut out = std::io::stdout().lock();
    if json {
        let states: serde_json::Map<_, _> =
            states.map(|(word, count)| (word.to_owned(), count.into())).collect();
        let census = serde_json::json!({
            "accounts": accounts,
            "states": states,
            "without_phone": without_mobile,
            "in_element_index": in_element_index,
            "digest": hex(&digest),
            "file_bytes": file_bytes,
            "look_up_us": { "p50": took[0], "p99": took[1], "p99.9": took[2] },
            "table_look_up_us": { "p50": table[0], "p99": table[1], "p99.9": table[2] },
            "rush": rush,
        });
        writeln!(out, "{census}")?;
        return Ok(());
    }
    let line = |count: u64, what: &str| format!("{:>14}  {what}", HumanCount(count).to_string());
    writeln!(out, "The accounts are as card4e wrote them.\n")?;
    writeln!(out, "{}", line(accounts, if accounts == 1 { "account" } else { "accounts" }))?;
    for (word, count) in states.filter(|(_, count)| *count > 0) {
        writeln!(out, "{}", line(count, word))?;
    }
    writeln!(out, "{}", line(without_mobile, "without a mobile on file"))?;
    if in_element_index > 0 {
        writeln!(out, "{}", line(in_element_index, "found by identity number or mobile too"))?;
    }
    if let Some(bytes) = file_bytes {
        writeln!(out, "{}", line(bytes, "bytes of file"))?;
    }
    if let [Some(p50), Some(p99), Some(p999)] = took {
        writeln!(out, "\nA look-up takes {p50:.1} us, one in 100 {p99:.1} us, one in 1,000 {p999:.1} us.")?;
    }
    if let Some(rush) = rush {
        rush.print(&mut out)?;
    }
    writeln!(out, "\nDigest {}", hex(&digest))?;
    writeln!(
        out,
        "The same accounts under the same keys have the same digest, in a restored copy for example."
    )?;
    Ok(())
}

const NOBODY: &str = "there is no account of that card";

fn found(accounts: &mut AccountsOfRecord, card: &CardNumber, vault: &Vault) -> anyhow::Result<AccountRow> {
    let keys = vault.keys();
    let found = accounts.find(card.as_str(), &keys)?;
    // Under keys that were replaced since they were read, there is nobody to be found.
    accounts.agree_with(&keys)?;
    found.context(NOBODY)
}

fn card_number(card: &str) -> anyhow::Result<CardNumber> {
    CardNumber::parse(card).context("that is not a card number: 13 to 19 digits")
}

fn state(word: &str) -> anyhow::Result<AccountState> {
    let known = || AccountState::ALL.map(AccountState::word).join(", ");
    AccountState::from_word(word)
        .with_context(|| format!("there is no status `{word}`; there is {}", known()))
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
