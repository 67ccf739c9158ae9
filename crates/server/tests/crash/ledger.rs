//! The ledger of a dead server, held against what its clients were told: each life what is new, and all
//! of it at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use engine::audit::Frontier;
use engine::caller::ApplicationId;
use engine::ledger::{Answer, Credits, Entry};
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use engine::store::{LedgerPlace, LedgerReader, StoreError};
use engine::verify::uuid_text;
use serde_json::Value;
use wire::acedata::Endpoint;
use wire::tencent::action::Action as Name;

use super::load::{Told, ToldAnswer};

/// Follows a ledger from life to life.
pub struct Follower {
    place: LedgerPlace,
    /// What `card4e audit check` is told of it.
    arguments: [String; 2],
    /// All leaves so far, of each node.
    trees: BTreeMap<i64, Frontier>,
    seen: HashSet<[u8; 16]>,
    pub answers: u64,
    pub charges: u64,
    nodes: u64,
    /// Of the trial application, whole credits.
    balance: i64,
    /// Mismatches by application and day.
    mismatches: HashMap<(ApplicationId, i64), u64>,
}

impl Follower {
    pub fn of_file(data: &Path) -> Follower {
        let arguments = ["--data".into(), data.to_str().unwrap().into()];
        Follower::new(LedgerPlace::File(data.join("ledger.db")), arguments, 1)
    }

    pub fn of_nodes(place: LedgerPlace, config: &Path, nodes: u64) -> Follower {
        Follower::new(place, ["--config".into(), config.to_str().unwrap().into()], nodes)
    }

    fn new(place: LedgerPlace, arguments: [String; 2], nodes: u64) -> Follower {
        Follower {
            place,
            arguments,
            trees: BTreeMap::new(),
            nodes,
            seen: HashSet::new(),
            answers: 0,
            charges: 0,
            balance: 10,
            mismatches: HashMap::new(),
        }
    }

    /// Reads what is new: it follows what was there, and every answer that was told is in it.
    pub fn follow(&mut self, told: &mut Told) -> anyhow::Result<()> {
        let mut new = Vec::new();
        for node in LedgerReader::open(self.place.clone())?.nodes()? {
            let ledger = LedgerReader::open(self.place.clone())?.of_node(node);
            let tree = self.trees.entry(node).or_default();
            let entries = ledger.tree_size()?;
            ensure!(entries >= tree.size(), "{entries} entries, where there were {}", tree.size());
            ledger.leaves_after(tree, entries, |leaf| {
                if let Entry::Answer(answer) = leaf.entry {
                    new.push(answer.clone());
                }
                Ok::<_, StoreError>(())
            })?;
        }
        for answer in new {
            self.count(&answer)?;
            let id = uuid_text(&answer.request);
            if let Some(told) = told.answers.remove(&id) {
                same(&told, &answer)
                    .with_context(|| format!("{id}: {told:?}, but the ledger has {answer:?}"))?;
            }
        }
        if let Some((id, answer)) = told.answers.iter().next() {
            anyhow::bail!("{id} was answered {answer:?} but is not recorded");
        }
        ensure!(self.answers <= told.sent, "{} records of {} requests", self.answers, told.sent);
        Ok(())
    }

    fn count(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let id = uuid_text(&answer.request);
        ensure!(self.seen.insert(answer.request), "two records of {id}");
        let is_charged = answer.charged > Credits::ZERO;
        self.answers += 1;
        self.charges += u64::from(is_charged);
        if let Some(left) = answer.balance {
            self.balance -= i64::from(is_charged);
            // What one of several nodes says of a balance is a moment old.
            let is_known = self.nodes > 1 || left == Credits::whole(self.balance);
            ensure!(is_known, "{id}: a charge was lost or invented: {left}");
            ensure!(left >= Credits::ZERO && self.balance >= 0, "{id}: overspent");
        }
        if answer.outcome == Outcome::HolderMismatch {
            // One pair of caller and card mismatches here, and three lock it until midnight in Beijing; questions
            // that are under way on several nodes do not see each other.
            let day = (answer.at_ms + 8 * 3_600_000) / 86_400_000;
            let mismatches = self.mismatches.entry((answer.application, day)).or_default();
            *mismatches += 1;
            ensure!(*mismatches <= 3 * self.nodes, "{id}: {mismatches} mismatches past a lock of 3");
        }
        Ok(())
    }

    /// The whole ledger, by the command that operators have.
    pub fn check_all(&self) -> anyhow::Result<()> {
        let output = Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(["audit", "check", "--json"])
            .args(&self.arguments)
            .output()?;
        ensure!(output.status.success(), "audit check: {}", String::from_utf8_lossy(&output.stderr));
        let audit: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(audit["answers"] == self.answers && audit["charges"] == self.charges, "{audit}");
        // Of several trees it says how many there are.
        if let [tree] = &self.trees.values().collect::<Vec<_>>()[..] {
            let root = engine::file::hex(&tree.root());
            ensure!(audit["root"] == root, "{audit}: what was followed is {root}");
        }
        Ok(())
    }
}

/// The record says what the client was told.
fn same(told: &ToldAnswer, answer: &Answer) -> anyhow::Result<()> {
    let code = if told.on_tencent {
        projection::tencent(Name::BankCard4EVerification, answer.outcome)
    } else {
        projection::acedata(AceDataNumbering::Documented, Endpoint::BankCard4E, answer.outcome)
    };
    let number = code.context("an outcome of another action")?.number.to_string();
    ensure!(number == told.result, "another result");
    ensure!((answer.charged > Credits::ZERO) == told.is_charged, "charged otherwise");
    Ok(())
}
