//! `card4e replay`: what would be different with other settings, by exchanges that were kept.
//!
//! Nothing is sent. Each reply is read again as the other settings read it, and each question is given to
//! the route that would take it. Elements are not there, so nothing can be said about what a provider
//! that was not asked would have answered.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use engine::caller::ApplicationId;
use engine::connector::Response;
use engine::exchange::{Exchange, read_as};
use engine::route::Routing;
use engine::store::LedgerReader;
use serde_json::json;

use crate::config::{Secrets, Settings};
use crate::installation::Place;
use crate::table;

/// `card4e replay`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e replay --config card4e.toml --with card4e.next.toml
  card4e replay --config card4e.toml --with card4e.next.toml --json

Exchanges are kept while `exchanges_max_mb` in [providers] is above 0: replies, with keyed tokens in place of
everything personal. Ends with 0 when nothing would differ, 3 when something would.")]
pub struct Options {
    /// The settings to try.
    #[arg(long, value_name = "FILE")]
    with: PathBuf,

    /// The exchanges; those of the installation if left out.
    #[arg(long, value_name = "FILE")]
    exchanges: Option<PathBuf>,

    #[command(flatten)]
    place: Place,

    /// Print JSON: one object a line for each exchange that would differ, then the sums.
    #[arg(long)]
    json: bool,
}

/// How an exchange would go with other settings.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Its reply would be taken for something else.
    Answer { was: String, would_be: String },
    /// No route would take the question: the accounts of record answer it.
    NoRoute,
    /// Another route would, in which this provider is not asked first, or not at all.
    Asked { was: String, would_be: String },
}

impl Difference {
    fn says(&self) -> String {
        match self {
            Difference::Answer { was, would_be } => format!("read as {would_be} instead of {was}"),
            Difference::NoRoute => "taken by no route".into(),
            Difference::Asked { was, would_be } => format!("{would_be} is asked instead of {was}"),
        }
    }
}

/// Runs `card4e replay`; false when something would differ.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let folder = options.place.folder()?;
    let settings = Settings::read(&options.with)?;
    let routing = settings.routing(&folder, Secrets::IfThere)?.unwrap_or_default();
    let callers = LedgerReader::open(options.place.ledger()?)?.callers()?;
    let kept = options.exchanges.clone().unwrap_or_else(|| folder.join("exchanges.jsonl"));
    let mut files = vec![kept.with_extension("jsonl.1"), kept.clone()];
    files.retain(|file| file.exists());
    ensure!(
        !files.is_empty(),
        "{} is not there: exchanges are kept while exchanges_max_mb in [providers] is above 0",
        kept.display()
    );
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut sums: BTreeMap<(String, Difference), u64> = BTreeMap::new();
    let mut all = 0u64;
    for file in &files {
        each(file, |exchange| {
            all += 1;
            for difference in differences(&exchange, &routing, &callers) {
                if options.json {
                    let said = json!({
                        "request_id": exchange.request,
                        "provider": exchange.provider,
                        "difference": difference.says(),
                    });
                    writeln!(out, "{said}")?;
                }
                *sums.entry((exchange.provider.clone(), difference)).or_default() += 1;
            }
            Ok(())
        })?;
    }
    let differ: u64 = sums.values().sum();
    if options.json {
        writeln!(out, "{}", json!({ "exchanges": all, "differences": differ }))?;
    } else {
        writeln!(out, "{}, {differ} would differ.", table::count(all, "exchange", "exchanges"))?;
        let row = |((provider, difference), count): (&(String, Difference), &u64)| {
            vec![provider.clone(), difference.says(), count.to_string()]
        };
        let rows: Vec<_> = sums.iter().map(row).collect();
        if !rows.is_empty() {
            writeln!(out)?;
            table::print(&mut out, &["provider", "with the other settings", ">times"], &rows)?;
        }
    }
    out.flush()?;
    Ok(differ == 0)
}

fn each(file: &Path, mut each: impl FnMut(Exchange) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let shown = file.display();
    let lines = BufReader::new(std::fs::File::open(file).with_context(|| format!("cannot read {shown}"))?);
    for (at, line) in lines.lines().enumerate() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(exchange) => each(exchange)?,
            // The last one may be cut off: the server was killed while it was written.
            Err(_) if at > 0 => {}
            Err(wrong) => return Err(wrong).with_context(|| format!("{shown} holds no exchanges")),
        }
    }
    Ok(())
}

fn differences(
    exchange: &Exchange,
    routing: &Routing,
    callers: &HashMap<ApplicationId, String>,
) -> Vec<Difference> {
    let Some(action) = exchange.asked() else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(provider) = routing.providers.iter().find(|provider| provider.name == exchange.provider) {
        let reply = exchange.reply();
        let response = Response { status: reply.status, headers: &reply.headers, body: &reply.body };
        let would_be = read_as(&provider.connector.read(action, &response).verdict);
        if would_be != exchange.read_as {
            found.push(Difference::Answer { was: exchange.read_as.clone(), would_be: would_be.into() });
        }
    }
    let caller = callers.get(&exchange.application).map_or("", String::as_str);
    let Some(place) = routing.route(caller, action, exchange.iin.as_deref()) else {
        found.push(Difference::NoRoute);
        return found;
    };
    let route = &routing.routes[place];
    let name = |place: &usize| routing.providers[*place].name.clone();
    let is_asked = |(place, _): &(usize, u32)| name(place) == exchange.provider;
    let watches = route.shadows.iter().any(|(place, _)| name(place) == exchange.provider);
    if !route.providers.iter().any(is_asked) && !watches {
        let would_be = route.providers.first().map_or_else(|| "nobody".into(), |(place, _)| name(place));
        found.push(Difference::Asked { was: exchange.provider.clone(), would_be });
    }
    found
}
