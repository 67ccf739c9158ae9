//! `card4e ledger margin`: what callers paid, what providers charged, and what is left, by route.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use engine::ledger::{Credits, Entry};
use engine::outcome::Row;
use engine::spending::SHADOWS;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::{Part, Report};
use crate::table;

/// What is charged for answers that no provider was paid for.
const RECORD: &str = "(accounts of record)";

/// Both sides of the money of one route.
#[derive(Clone, Copy, Default)]
struct Sides {
    answers: u64,
    charged: Credits,
    calls: u64,
    cost: Credits,
    uncertain: Credits,
    shadows: Credits,
    reused: u64,
}

impl Sides {
    fn margin(&self) -> Credits {
        Credits(self.charged.0 - self.cost.0)
    }

    fn cells(&self) -> Vec<String> {
        let number = |number| HumanCount(number).to_string();
        vec![
            number(self.answers),
            self.charged.to_string(),
            number(self.calls),
            self.cost.to_string(),
            self.margin().to_string(),
            self.uncertain.to_string(),
            self.shadows.to_string(),
            number(self.reused),
        ]
    }

    fn json(&self, route: &str) -> Value {
        json!({
            "route": route,
            "answers": self.answers,
            "charged": self.charged.to_string(),
            "calls": self.calls,
            "cost": self.cost.to_string(),
            "margin": self.margin().to_string(),
            "uncertain": self.uncertain.to_string(),
            "shadows": self.shadows.to_string(),
            "reused": self.reused,
        })
    }
}

/// Prints it.
pub(super) fn report(report: &Report) -> anyhow::Result<()> {
    let part = Part::open(&report.place, &report.which)?;
    let routes = sum(&part)?;
    let mut out = std::io::stdout().lock();
    if report.json {
        let all: Vec<_> = routes.iter().map(|(route, sides)| sides.json(route)).collect();
        return Ok(writeln!(out, "{}", Value::from(all))?);
    }
    let row = |(route, sides): (&String, &Sides)| [vec![route.clone()], sides.cells()].concat();
    let rows: Vec<_> = routes.iter().map(row).collect();
    let headings =
        ["route", ">answers", ">charged", ">calls", ">cost", ">margin", ">uncertain", ">shadows", ">reused"];
    table::print(&mut out, &headings, &rows)?;
    writeln!(out, "\nuncertain: of the cost, what may not have been charged (`card4e reconcile`)")?;
    writeln!(out, "shadows: of the cost, what was spent on asking beside")?;
    Ok(())
}

/// By route. A purchase stands in the ledger before the answer it is for, which tells by its request
/// which route it came by.
fn sum(part: &Part) -> anyhow::Result<BTreeMap<String, Sides>> {
    let mut routes: BTreeMap<String, Sides> = BTreeMap::new();
    let mut asked: HashMap<[u8; 16], String> = HashMap::new();
    part.entries(|entry| {
        match entry {
            Entry::Asking(asking) if part.is_about(asking.application) => {
                if asking.number < SHADOWS {
                    asked.insert(asking.request, asking.route.clone());
                }
                routes.entry(asking.route.clone()).or_default().calls += 1;
            }
            Entry::Bought(bought) if part.is_about(bought.asking.application) => {
                let sides = routes.entry(bought.asking.route.clone()).or_default();
                sides.cost.0 += bought.cost.0;
                if bought.ending.is_uncertain() {
                    sides.uncertain.0 += bought.cost.0;
                }
                if bought.asking.number >= SHADOWS {
                    sides.shadows.0 += bought.cost.0;
                }
            }
            Entry::Billed(billed) if part.is_about(billed.asking.application) => {
                let sides = routes.entry(billed.asking.route.clone()).or_default();
                sides.cost.0 += billed.cost.0 - billed.was.0;
                sides.uncertain.0 -= billed.was.0;
            }
            Entry::Answer(answer) if part.takes(answer) => {
                // Taken out again: a ledger is too long to hold all of it.
                let route = asked.remove(&answer.request).unwrap_or_else(|| RECORD.into());
                let sides = routes.entry(route).or_default();
                sides.answers += 1;
                sides.charged.0 += answer.charged.0;
                sides.reused += u64::from(answer.row == Row::REUSED);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(routes)
}
