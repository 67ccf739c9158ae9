//! `card4e caller` and `card4e credential`: what people type, and the tables they read.

use std::io::Write;

use clap::{Args, Subcommand};
use engine::caller::{Action, AddressRange, Purpose, Standing};
use engine::ledger::Credits;
use engine::register::{Term, Terms};
use serde_json::Value;

use crate::installation::Place;
use crate::manage::{KindWord, Request, ask};
use crate::table;

/// Which installation, and how to print.
#[derive(Args)]
pub struct Whose {
    /// Which one.
    #[command(flatten)]
    pub place: Place,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `card4e caller`
#[derive(Subcommand)]
pub enum CallerCommand {
    /// Add a caller: somebody who may ask, with a balance.
    #[command(after_help = "Example:\n  card4e caller create shop --config card4e.toml")]
    Create {
        /// Its name: letters, digits, dots, hyphens, underscores.
        name: String,
        /// Never runs out of balance.
        #[arg(long)]
        unlimited: bool,
        /// Looks after the installation instead of asking.
        #[arg(long)]
        operator: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// List all callers with balance and standing.
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Refuse everything a caller asks, from now on.
    Suspend {
        /// Its name.
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Let a suspended caller ask again.
    Resume {
        /// Its name.
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Change what a caller may do, and on which terms.
    #[command(after_help = "\
Examples:
  card4e caller set shop --price 0.5 --requests-per-second 100 --config card4e.toml
  card4e caller set shop --encryption-required true --config card4e.toml
  card4e caller set shop --action bankcard-4e --action bankcard-2e --config card4e.toml")]
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        terms: SetTerms,
        #[command(flatten)]
        whose: Whose,
    },
    /// Give a caller credits.
    #[command(after_help = "Example:\n  card4e caller recharge shop 1000 --config card4e.toml")]
    Recharge {
        /// Its name.
        name: String,
        /// Credits, such as 1000 or 0.5.
        amount: Credits,
        #[command(flatten)]
        whose: Whose,
    },
}

/// What `card4e caller set` can change.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct SetTerms {
    /// Credits for a charged answer, such as 0.5; `default`: the installation's price.
    #[arg(long)]
    price: Option<Term<Credits>>,
    /// Requests a second per action, 0 for no limit; `default`: the installation's limit.
    #[arg(long, value_name = "N")]
    requests_per_second: Option<Term<u32>>,
    /// Whether elements in plain text are refused.
    #[arg(long, value_name = "true|false")]
    encryption_required: Option<bool>,
    /// Whether the native API tells which element differs. It makes guessing much easier.
    #[arg(long, value_name = "true|false")]
    reasons: Option<bool>,
    /// Whether it never runs out of balance.
    #[arg(long, value_name = "true|false")]
    unlimited: Option<bool>,
    /// It may ask this action and no others, such as bankcard-4e; can be given several times.
    #[arg(long)]
    action: Vec<Action>,
}

/// `card4e credential`
#[derive(Subcommand)]
pub enum CredentialCommand {
    /// Make a credential; its secret is shown once and never again.
    #[command(after_help = "\
Examples:
  card4e credential create shop --kind tencent --config card4e.toml
  card4e credential create shop --kind acedata --expires 90d --address 10.0.0.0/8 --config card4e.toml")]
    Create {
        /// The caller's name.
        caller: String,
        /// What it is for.
        #[arg(long)]
        kind: KindWord,
        /// Not valid after this long: 90d, 12h, 30m.
        #[arg(long, value_parser = milliseconds, value_name = "TIME")]
        expires: Option<i64>,
        /// Take requests from this address or range only; can be given several times.
        #[arg(long, value_name = "ADDR")]
        address: Vec<AddressRange>,
        /// Refuse requests whose signature does not cover the body.
        #[arg(long)]
        signed_payload_only: bool,
        /// Take it for this action only, such as bankcard-4e; can be given several times.
        #[arg(long)]
        action: Vec<Action>,
        /// Why it asks: a word such as account_opening, for wires that have no member for it.
        #[arg(long, value_name = "WORD", requires = "consent")]
        purpose: Option<String>,
        /// Where the consent of those who are verified is on file.
        #[arg(long, value_name = "REFERENCE", requires = "purpose")]
        consent: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// List credentials; no secrets.
    List {
        /// Only those of this caller.
        caller: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Give a credential a new secret; the old one stays valid for a while.
    #[command(after_help = "Example:\n  card4e credential rotate 3 --overlap 24h --config card4e.toml")]
    Rotate {
        /// Its number.
        id: u32,
        /// How long the old secret is still taken: 24h, 30m, 0s.
        #[arg(long, value_parser = milliseconds, value_name = "TIME", default_value = "24h")]
        overlap: i64,
        #[command(flatten)]
        whose: Whose,
    },
    /// Make a credential invalid at once.
    Revoke {
        /// Its number.
        id: u32,
        #[command(flatten)]
        whose: Whose,
    },
}

/// `90d`, `12h`, `30m`, `10s` in milliseconds.
pub fn milliseconds(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no time; write 90d, 12h, 30m or 10s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds * 1000).filter(|all| *all >= 0).ok_or_else(wrong)
}

/// The largest unit that says it without a fraction.
fn time(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let fits = units.into_iter().find(|(unit, _)| seconds % unit == 0);
    fits.map_or_else(String::new, |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// Runs `card4e caller …`.
pub fn caller(command: CallerCommand) -> anyhow::Result<()> {
    match command {
        CallerCommand::Create { name, unlimited, operator, whose } => {
            let free = whose.place.settings()?.free_quota()?;
            let told =
                ask(&whose.place, Request::CreateCaller { name: name.clone(), operator, unlimited, free })?;
            let kind = if operator { "platform" } else { "tencent" };
            let place = whose.place.as_typed();
            whose.print(&told, |out, _| {
                writeln!(out, "Added {name}. Next: card4e credential create {name} --kind {kind} {place}")
            })
        }
        CallerCommand::List { whose } => {
            let told = ask(&whose.place, Request::ListCallers)?;
            whose.print(&told, callers)
        }
        CallerCommand::Suspend { name, whose } => standing(name, Standing::Suspended, &whose),
        CallerCommand::Resume { name, whose } => standing(name, Standing::Active, &whose),
        CallerCommand::Set { name, terms, whose } => {
            let SetTerms { price, requests_per_second, encryption_required, reasons, unlimited, action } =
                terms;
            let actions = (!action.is_empty()).then_some(action);
            let terms =
                Terms { price, requests_per_second, encryption_required, reasons, unlimited, actions };
            let told = ask(&whose.place, Request::SetTerms { name, terms })?;
            whose.print(&told, |out, told| {
                writeln!(out, "{}", text(&told["name"]))?;
                let own = |member: &str| match &told[member] {
                    Value::Null => "the installation's".to_owned(),
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                writeln!(out, "  price                {}", own("price"))?;
                writeln!(out, "  requests a second    {}", own("requests_per_second"))?;
                writeln!(out, "  balance              {}", told["balance"].as_str().unwrap_or("unlimited"))?;
                writeln!(out, "  encryption required  {}", told["encryption_required"])?;
                writeln!(out, "  reasons              {}", told["reasons"])?;
                let actions: Vec<_> = told["actions"].as_array().into_iter().flatten().map(text).collect();
                writeln!(out, "  actions              {}", actions.join(", "))
            })
        }
        CallerCommand::Recharge { name, amount, whose } => {
            let told = ask(&whose.place, Request::Recharge { name: name.clone(), amount })?;
            whose.print(&told, |out, told| match told["balance"].as_str() {
                Some(balance) => writeln!(out, "caller {name} has {balance} credits now"),
                None => writeln!(
                    out,
                    "caller {name} is unlimited and needs no credits; they are kept all the same"
                ),
            })
        }
    }
}

fn standing(name: String, standing: Standing, whose: &Whose) -> anyhow::Result<()> {
    let told = ask(&whose.place, Request::SetStanding { name: name.clone(), standing })?;
    let word = if standing == Standing::Active { "may ask again" } else { "is suspended" };
    whose.print(&told, |out, _| writeln!(out, "caller {name} {word}"))
}

/// Runs `card4e credential …`.
pub fn credential(command: CredentialCommand) -> anyhow::Result<()> {
    match command {
        CredentialCommand::Create {
            caller,
            kind,
            expires,
            address,
            signed_payload_only,
            action,
            purpose,
            consent,
            whose,
        } => {
            let request = Request::Issue {
                caller,
                kind,
                expires_in_ms: expires,
                addresses: address,
                signed_payload_only,
                actions: action,
                purpose: purpose.zip(consent).map(|(code, consent)| Purpose { code, consent }),
            };
            let told = ask(&whose.place, request)?;
            whose.print(&told, secret)
        }
        CredentialCommand::List { caller, whose } => {
            let told = ask(&whose.place, Request::ListCredentials { caller })?;
            whose.print(&told, credentials)
        }
        CredentialCommand::Rotate { id, overlap, whose } => {
            let told = ask(&whose.place, Request::Rotate { id, overlap_ms: overlap })?;
            whose.print(&told, |out, told| {
                secret(out, told)?;
                match overlap {
                    0 => writeln!(out, "The old secret is no longer taken."),
                    overlap => writeln!(out, "The old secret is taken for {} more.", time(overlap)),
                }
            })
        }
        CredentialCommand::Revoke { id, whose } => {
            let told = ask(&whose.place, Request::Revoke { id })?;
            whose.print(&told, |out, _| writeln!(out, "credential {id} is no longer valid"))
        }
    }
}

impl Whose {
    fn print(
        &self,
        told: &Value,
        people: impl FnOnce(&mut dyn Write, &Value) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{told}")?
        } else {
            people(&mut out, told)?
        }
        Ok(())
    }
}

fn secret(out: &mut dyn Write, told: &Value) -> std::io::Result<()> {
    writeln!(out, "credential  {}", told["credential"])?;
    if let Some(id) = told["secret_id"].as_str() {
        writeln!(out, "SecretId    {id}")?;
        writeln!(out, "SecretKey   {}", text(&told["secret"]))?;
    } else {
        writeln!(out, "token       {}", text(&told["secret"]))?;
    }
    writeln!(out, "\nThis is shown once. Keep it now; nobody can show it again.")
}

fn callers(out: &mut dyn Write, told: &Value) -> std::io::Result<()> {
    let row = |caller: &Value| {
        let role = if caller["operator"] == true { " operator" } else { "" };
        vec![
            text(&caller["name"]).to_owned(),
            format!("{}{role}", text(&caller["standing"])),
            caller["balance"].as_str().unwrap_or("unlimited").to_owned(),
            caller["credentials"].to_string(),
        ]
    };
    let rows: Vec<_> = told.as_array().into_iter().flatten().map(row).collect();
    table::print(out, &["caller", "standing", ">balance", ">credentials"], &rows)
}

fn credentials(out: &mut dyn Write, told: &Value) -> std::io::Result<()> {
    let row = |credential: &Value| {
        let listed = |name: &str, all: &str| {
            let words: Vec<_> = credential[name].as_array().into_iter().flatten().map(text).collect();
            if words.is_empty() { all.to_owned() } else { words.join(" ") }
        };
        vec![
            credential["id"].to_string(),
            text(&credential["caller"]).to_owned(),
            text(&credential["kind"]).to_owned(),
            text(&credential["shown"]).to_owned(),
            credential["expires"].as_str().unwrap_or("never").to_owned(),
            credential["overlap_until"].as_str().unwrap_or("-").to_owned(),
            if credential["signed_payload_only"] == true { "signed only" } else { "any" }.to_owned(),
            listed("addresses", "any"),
            listed("actions", "all"),
            credential["purpose"]["code"].as_str().unwrap_or("-").to_owned(),
        ]
    };
    let rows: Vec<_> = told.as_array().into_iter().flatten().map(row).collect();
    let headings = [
        ">id",
        "caller",
        "kind",
        "id or token",
        "expires",
        "old secret until",
        "payload",
        "addresses",
        "actions",
        "purpose",
    ];
    table::print(out, &headings, &rows)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(milliseconds("90d"), Ok(7_776_000_000));
        assert_eq!(milliseconds("0s"), Ok(0));
        assert_eq!((time(86_400_000), time(5_400_000)), ("1d".into(), "90m".into()));
        for wrong in ["", "d", "90", "1w", "-1d", "9999999999999999d", "秒"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
    }
}
