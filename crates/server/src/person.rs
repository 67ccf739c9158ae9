//! `card4e person`: people who log in to the console with a password. There is no mail server: what lets
//! somebody in is a code that the operator passes on.

use std::io::Write;

use clap::Subcommand;
use serde_json::Value;

use crate::manage::{Request, ask};
use crate::register::Whose;
use crate::table;

/// `card4e person`
#[derive(Subcommand)]
pub enum Command {
    /// List who logs in with a password, and as which caller.
    List {
        #[command(flatten)]
        whose: Whose,
    },
    /// Make an invitation to register, for one account; its code is shown once and never again.
    #[command(after_help = "\
Example:
  card4e person invite --days 3 --config card4e.toml

Needed where `platform.registration` is invitation, which is usual outside a sandbox. Pass the link on.")]
    Invite {
        /// Days it is valid.
        #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
        #[command(flatten)]
        whose: Whose,
    },
    /// Let somebody choose another password: makes a code that is valid once, for a day.
    ///
    /// The password until now goes on working until the code is used; then all their sessions end.
    #[command(after_help = "Example:\n  card4e person reset ada@example.com --config card4e.toml")]
    Reset {
        /// The e-mail address they log in with.
        #[arg(value_name = "E-MAIL")]
        login: String,
        #[command(flatten)]
        whose: Whose,
    },
}

/// Runs `card4e person …`.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List { whose } => list(whose),
        Command::Invite { days, whose } => code(whose, Request::Invite { days: *days }),
        Command::Reset { login, whose } => code(whose, Request::ResetPassword { login: login.clone() }),
    }
}

fn list(whose: &Whose) -> anyhow::Result<()> {
    let told = ask(&whose.place, Request::ListPeople)?;
    let people = told.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if whose.json {
        for person in people {
            writeln!(out, "{person}")?;
        }
        return Ok(());
    }
    let text = |person: &Value, name: &str| person[name].as_str().unwrap_or("-").to_owned();
    let row = |person: &Value| ["login", "caller", "registered"].map(|name| text(person, name)).to_vec();
    let rows: Vec<_> = people.iter().map(row).collect();
    Ok(table::print(&mut out, &["e-mail", "caller", "registered (UTC)"], &rows)?)
}

/// Prints where a code is used: behind the address people know the server by, if the settings tell it.
fn code(whose: &Whose, request: Request) -> anyhow::Result<()> {
    let public_url = whose.place.settings()?.acedata.public_url.unwrap_or_default();
    let told = ask(&whose.place, request)?;
    let link = format!("{}{}", public_url.trim_end_matches('/'), told["path"].as_str().unwrap_or_default());
    let (code, expires) = (&told["code"], &told["expires"]);
    let mut out = std::io::stdout().lock();
    if whose.json {
        let told = serde_json::json!({ "code": code, "link": link, "expires": expires });
        return Ok(writeln!(out, "{told}")?);
    }
    writeln!(out, "code       {}", code.as_str().unwrap_or_default())?;
    writeln!(out, "link       {link}")?;
    writeln!(out, "valid to   {}", expires.as_str().unwrap_or_default())?;
    let behind = if public_url.is_empty() { " The link goes behind the server's address." } else { "" };
    writeln!(out, "\nShown this once; pass it on to that person alone.{behind}")?;
    Ok(())
}
