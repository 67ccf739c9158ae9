//! `card4e provider`: how providers are doing, what was bought from them, and how shadows compare.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use engine::clock::{Clock, utc_text};
use engine::ledger::Entry;
use engine::outcome::Outcome;
use engine::spending::{Billed, Bought, PurchaseId, SHADOWS};
use engine::store::LedgerReader;
use engine::verify::uuid_text;
use serde_json::{Value, json};

use crate::installation::Place;
use crate::ledger::Time;
use crate::manage::{Request, ask};
use crate::table::{self, Heading};

/// `card4e provider`
#[derive(Subcommand)]
pub enum Command {
    /// Show each provider: its breaker, its budget, and what it was found not to check.
    #[command(after_help = "\
Example:
  card4e provider list --config card4e.toml")]
    List {
        /// Which installation.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },

    /// List what was asked of providers, oldest first: one line a purchase, without elements.
    #[command(after_help = "\
Examples:
  card4e provider purchases --config card4e.toml --since 24h
  card4e provider purchases --config card4e.toml --uncertain --json")]
    Purchases {
        /// Which of them.
        #[command(flatten)]
        which: Which,
        /// Only those that may have been charged, and nobody knows.
        #[arg(long)]
        uncertain: bool,
    },

    /// Compare what shadows answered with what callers were told.
    #[command(after_help = "\
Example:
  card4e provider shadows --config card4e.toml --since 7d")]
    Shadows {
        /// Which of them.
        #[command(flatten)]
        which: Which,
    },
}

/// Which purchases.
#[derive(Args)]
pub struct Which {
    /// Only from this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,

    /// Only from then on: 2026-11-21 (midnight in Beijing), 2026-11-21T08:00:00Z, or 24h ago.
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    since: Option<Time>,

    #[command(flatten)]
    place: Place,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List { place, json } => list(place, *json),
        Command::Purchases { which, uncertain } => purchases(which, *uncertain),
        Command::Shadows { which } => shadows(which),
    }
}

fn list(place: &Place, as_json: bool) -> anyhow::Result<()> {
    let told = ask(place, Request::Providers)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        return Ok(writeln!(out, "{told}")?);
    }
    let providers = told.as_array().map(Vec::as_slice).unwrap_or_default();
    if providers.is_empty() {
        return Ok(writeln!(out, "No providers; docs/providers.md says how to set one up.")?);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |spent: &Value, cap: &Value| match cap.as_str() {
        Some(cap) => format!("{} of {cap}", text(spent)),
        None => text(spent),
    };
    let row = |is: &Value| {
        vec![
            text(&is["name"]),
            text(&is["connector"]),
            text(&is["breaker"]),
            of(&is["spent_today"], &is["daily_cap"]),
            of(&is["spent_this_month"], &is["monthly_cap"]),
            text(&is["spent"]),
            text(&is["uncertain"]),
            text(&is["calls"]),
        ]
    };
    let rows: Vec<_> = providers.iter().map(row).collect();
    let headings: [Heading; 8] =
        ["provider", "connector", "breaker", ">today", ">this month", ">in all", ">uncertain", ">calls"];
    table::print(&mut out, &headings, &rows)?;
    let lacking = providers.iter().flat_map(|is| {
        let of = is["lacking"].as_array().map(Vec::as_slice).unwrap_or_default();
        of.iter().map(move |lacks| {
            ["issuer", "action", "times", "last"].iter().fold(vec![text(&is["name"])], |mut row, member| {
                row.push(text(&lacks[*member]));
                row
            })
        })
    });
    let lacking: Vec<_> = lacking.collect();
    if !lacking.is_empty() {
        writeln!(out, "\nFound not to check, and asked last about:\n")?;
        table::print(&mut out, &["provider", "issuer", "action", ">times", "last (UTC)"], &lacking)?;
    }
    Ok(())
}

/// A purchase with what its bill said, if one was held against it.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// What became of it.
    pub bought: Bought,
    /// What the bill said.
    pub billed: Option<Billed>,
}

impl Purchase {
    /// What it counts for now.
    pub fn cost(&self) -> engine::ledger::Credits {
        self.billed.as_ref().map_or(self.bought.cost, |billed| billed.cost)
    }

    /// Whether nobody knows yet what it cost.
    pub fn is_uncertain(&self) -> bool {
        self.bought.ending.is_uncertain() && self.billed.is_none()
    }

    /// As it is listed.
    pub fn json(&self) -> Value {
        let bought = &self.bought;
        json!({
            "asked_at": utc_text(bought.asking.at_ms),
            "request_id": uuid_text(&bought.asking.request),
            "number": bought.asking.number,
            "route": bought.asking.route,
            "provider": bought.asking.provider,
            "action": bought.asking.action.name(),
            "ending": bought.ending.name(),
            "outcome": bought.outcome.map(Outcome::name),
            "code": bought.code,
            "reference": bought.reference,
            "cost": self.cost().to_string(),
            "uncertain": self.is_uncertain(),
            "live": bought.live.map(Outcome::name),
            "elapsed_ms": bought.elapsed_ms,
        })
    }
}

/// All purchases of a ledger, in its order, of one provider or of all.
///
/// # Errors
/// The ledger cannot be read.
pub fn read(place: &Place, provider: Option<&str>) -> anyhow::Result<Vec<Purchase>> {
    let ledger = LedgerReader::open(place.ledger()?)?;
    let mut all: Vec<Purchase> = Vec::new();
    let mut places: BTreeMap<PurchaseId, usize> = BTreeMap::new();
    ledger.entries(&(i64::MIN..i64::MAX), |entry| -> anyhow::Result<()> {
        match entry {
            Entry::Bought(bought) if provider.is_none_or(|name| name == bought.asking.provider) => {
                places.insert(bought.asking.id(), all.len());
                all.push(Purchase { bought: bought.clone(), billed: None });
            }
            Entry::Billed(billed) => {
                if let Some(place) = places.get(&billed.asking.id()) {
                    all[*place].billed = Some(billed.clone());
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(all)
}

impl Which {
    fn read(&self) -> anyhow::Result<Vec<Purchase>> {
        let since = self.since.map_or(i64::MIN, |time| time.at_ms(Clock::default().now_ms()));
        let mut all = read(&self.place, self.provider.as_deref())?;
        all.retain(|purchase| purchase.bought.asking.at_ms >= since);
        Ok(all)
    }
}

fn purchases(which: &Which, uncertain: bool) -> anyhow::Result<()> {
    let mut all = which.read()?;
    all.retain(|purchase| !uncertain || purchase.is_uncertain());
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if which.json {
        for purchase in &all {
            writeln!(out, "{}", purchase.json())?;
        }
        return Ok(out.flush()?);
    }
    let row = |purchase: &Purchase| {
        let bought = &purchase.bought;
        vec![
            utc_text(bought.asking.at_ms),
            uuid_text(&bought.asking.request),
            bought.asking.route.clone(),
            bought.asking.provider.clone(),
            bought.asking.action.name().to_owned(),
            bought.ending.name().to_owned(),
            bought.outcome.map_or("", Outcome::name).to_owned(),
            bought.code.clone(),
            purchase.cost().to_string(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let headings: [Heading; 9] =
        ["asked (UTC)", "request id", "route", "provider", "action", "ending", "outcome", "code", ">cost"];
    table::print(&mut out, &headings, &rows)?;
    Ok(out.flush()?)
}

/// What the caller was told, and what the shadow answered.
type Pair = (&'static str, &'static str);

fn shadows(which: &Which) -> anyhow::Result<()> {
    let mut of: BTreeMap<(String, String), BTreeMap<Pair, u64>> = BTreeMap::new();
    for purchase in which.read()? {
        let Bought { asking, live: Some(live), outcome, ending, .. } = purchase.bought else { continue };
        if asking.number < SHADOWS {
            continue;
        }
        let answered = outcome.map_or(ending.name(), Outcome::name);
        let pairs = of.entry((asking.route, asking.provider)).or_default();
        *pairs.entry((live.name(), answered)).or_default() += 1;
    }
    let mut out = std::io::stdout().lock();
    if of.is_empty() && !which.json {
        return Ok(writeln!(out, "No shadow was asked; `shadows` of a [[route]] names them.")?);
    }
    for ((route, provider), pairs) in &of {
        let all: u64 = pairs.values().sum();
        let same: u64 =
            pairs.iter().filter(|((live, shadow), _)| live == shadow).map(|(_, count)| count).sum();
        let differ = pairs.iter().filter(|((live, shadow), _)| live != shadow);
        if which.json {
            let differ: Vec<_> = differ
                .map(|((live, shadow), count)| json!({ "live": live, "shadow": shadow, "count": count }))
                .collect();
            let said = json!({
                "route": route, "provider": provider, "asked": all, "same": same, "differences": differ,
            });
            writeln!(out, "{said}")?;
            continue;
        }
        writeln!(out, "{provider} beside {route}: {same} of {all} the same\n")?;
        let rows: Vec<_> = differ
            .map(|((live, shadow), count)| vec![(*live).to_owned(), (*shadow).to_owned(), count.to_string()])
            .collect();
        if !rows.is_empty() {
            table::print(&mut out, &["caller was told", "shadow said", ">times"], &rows)?;
            writeln!(out)?;
        }
    }
    Ok(())
}
