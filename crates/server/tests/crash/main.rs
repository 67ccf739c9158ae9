//! `kill -9` and power cuts in the middle of a loaded run, again and again: what was answered is charged
//! and recorded exactly once, and nothing else is. On files, and on a database where nodes and database are killed.
//!
//! ```text
//! cargo test --release -p card4e --test crash                      # 5 of each, a new seed
//! CARD4E_KILLS=1000 CARD4E_SEED=7 cargo test --release -p card4e --test crash -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "figures, and a test that is left out says so past the harness")]

mod ledger;
mod load;
mod nodes;
#[path = "../../../engine/tests/support/postgres.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod postgres;
mod power;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the other integration tests")]
mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::Follower;
use load::{Callers, Dice, Load, Told};
use nodes::Nodes;
use power::PowerCut;
use support::{Sandbox, now};

/// One card may be asked six times a day here, and three mismatches lock a pair.
const SETTINGS: &str = "[attempts]\nper_card = 6\nper_value = 1000000\nlock_after = 3\n";

/// Lives of one installation: what a start has to read again grows with each, so that after some there is
/// a new one, and as many kills take as many times as long.
const LIVES: u64 = 50;

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The process is killed; what it wrote is there.
    Kill,
    /// The power goes: what was written and not synced is there or not.
    PowerCut,
    /// One of two nodes is killed, or both, or the database that they share.
    KillAmongNodes,
}

#[test]
fn nothing_answered_is_lost_and_nothing_is_invented() {
    lives(End::Kill).unwrap();
}

#[test]
fn nothing_answered_is_lost_when_the_power_goes() {
    if PowerCut::is_possible() {
        lives(End::PowerCut).unwrap();
    }
}

#[test]
fn nothing_answered_is_lost_when_nodes_and_their_database_are_killed() {
    if postgres::is_installed() {
        lives(End::KillAmongNodes).unwrap();
    }
}

/// So that the test of power cuts is known to see what it looks for.
#[test]
fn a_disk_that_only_says_so_is_found_out() {
    if !PowerCut::is_possible() {
        return;
    }
    let mut dice = Dice(seed());
    // A life can end before anything was told in it, or leave by chance all that was written.
    let told = (0..10).find_map(|_| {
        let mut installation = Installation::new(End::PowerCut);
        installation.live(&mut dice).unwrap();
        installation.power().unwrap().lie();
        installation.live(&mut dice).err()
    });
    let found = told.expect("answers that were told are lost, and nobody noticed").to_string();
    // What is lost can be an answer, entries at the end of the tree, or a page in the middle of the file.
    let ways = ["is not recorded", "entries", "malformed"];
    assert!(ways.iter().any(|way| found.contains(way)), "{found}");
}

fn lives(end: End) -> anyhow::Result<()> {
    let kills = setting("CARD4E_KILLS").unwrap_or(5);
    let seed = seed();
    let (mut dice, began, mut all) = (Dice(seed), Instant::now(), Told::default());
    let mut left = kills;
    while left > 0 {
        let mut installation = Installation::new(end);
        let lives = left.min(LIVES);
        left -= lives;
        let lived = (0..lives).try_for_each(|_| installation.live(&mut dice));
        let ended = lived.and_then(|()| installation.end()).with_context(|| {
            format!(
                "again: CARD4E_KILLS={kills} CARD4E_SEED={seed} cargo test -p card4e --test crash -- --nocapture"
            )
        })?;
        if kills > LIVES {
            eprintln!("{} of {kills}, {} s", kills - left, began.elapsed().as_secs());
        }
        all.sent += ended.sent;
        all.seen += ended.seen;
        all.recorded += ended.recorded;
    }
    let Told { sent, seen, recorded, .. } = all;
    let how = match end {
        End::Kill => "kills",
        End::PowerCut => "power cuts",
        End::KillAmongNodes => "kills of nodes or their database",
    };
    let took = began.elapsed().as_secs();
    eprintln!(
        "{kills} {how}, {sent} requests, {seen} answers seen by clients, {recorded} in the ledgers, {took} s"
    );
    ensure!(seen > kills, "there was load");
    Ok(())
}

/// An installation through its lives, and what the clients were told in them.
struct Installation {
    servers: Servers,
    callers: Callers,
    told: Arc<Mutex<Told>>,
    follower: Follower,
}

/// Who answers.
enum Servers {
    One(OnFiles),
    Nodes(Box<Nodes>),
}

/// A server on a data folder.
struct OnFiles {
    folder: tempfile::TempDir,
    power: Option<PowerCut>,
    running: Option<Sandbox>,
}

impl OnFiles {
    fn new(end: End) -> OnFiles {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let power = (end == End::PowerCut).then(|| PowerCut::new(&data, &folder.path().join("kept")));
        OnFiles { folder, power, running: None }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&mut self, follower: &Follower) {
        let before = self.power.as_ref().map(PowerCut::command).unwrap_or_default();
        let sandbox = Sandbox::keeping_behind(&before, &self.data(), SETTINGS);
        let books = sandbox.control("GET", "ledger", "");
        assert_eq!(books["records"], follower.answers, "the books after a start");
        assert_eq!(books["charges"], follower.charges, "the books after a start");
        self.running = Some(sandbox);
    }
}

impl Servers {
    fn start(&mut self, follower: &Follower) {
        match self {
            Servers::One(server) => server.start(follower),
            Servers::Nodes(nodes) => nodes.start(),
        }
    }

    fn running(&self) -> Vec<&Sandbox> {
        match self {
            Servers::One(server) => server.running.iter().collect(),
            Servers::Nodes(nodes) => nodes.running(),
        }
    }

    fn stop(&mut self) {
        match self {
            Servers::One(server) => server.running.take().unwrap().stop(),
            Servers::Nodes(nodes) => nodes.stop(),
        }
    }
}

impl Installation {
    fn new(end: End) -> Installation {
        let (servers, callers, follower) = if end == End::KillAmongNodes {
            let nodes = Nodes::new().unwrap();
            let follower = Follower::of_nodes(nodes.ledger(), &nodes.config(), 2);
            let callers = nodes.callers.clone();
            (Servers::Nodes(Box::new(nodes)), callers, follower)
        } else {
            let server = OnFiles::new(end);
            let follower = Follower::of_file(&server.data());
            (Servers::One(server), Callers::public(), follower)
        };
        Installation { servers, callers, told: Arc::default(), follower }
    }

    fn power(&self) -> Option<&PowerCut> {
        match &self.servers {
            Servers::One(server) => server.power.as_ref(),
            Servers::Nodes(_) => None,
        }
    }

    /// One life: a start, load, an end at any moment of it, and what is then in the ledger.
    fn live(&mut self, dice: &mut Dice) -> anyhow::Result<()> {
        self.servers.start(&self.follower);
        let addresses: Vec<String> =
            self.servers.running().iter().map(|server| server.address.clone()).collect();
        let load = Load::start(&addresses, &self.callers, &self.told, dice.next());
        // From before the first commit to some thousands of them.
        std::thread::sleep(Duration::from_millis(5 + dice.next() % 400));
        match &mut self.servers {
            Servers::One(server) => server.running.take().unwrap().kill(),
            Servers::Nodes(nodes) => nodes.kill(dice, &self.told),
        }
        load.stop();
        if let Some(power) = self.power() {
            power.lose_unsynced(dice);
        }
        self.follower.follow(&mut self.told.lock().unwrap())
    }

    /// The last life ends in order and agrees with all before it.
    fn end(mut self) -> anyhow::Result<Told> {
        self.servers.start(&self.follower);
        // What a node had under way when it was killed may have been made after it was looked for.
        self.follower.follow(&mut self.told.lock().unwrap())?;
        let before = self.follower.answers;
        for server in self.servers.running() {
            load::repeat_known_keys(server, &self.callers, &self.told.lock().unwrap());
        }
        self.servers.stop();
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        self.follower.follow(&mut told)?;
        ensure!(self.follower.answers == before, "a key that is known was asked again");
        self.follower.check_all()?;
        told.recorded = self.follower.answers;
        Ok(told)
    }
}

fn seed() -> u64 {
    setting("CARD4E_SEED").unwrap_or_else(|| now() as u64)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
