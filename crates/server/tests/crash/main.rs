//! `kill -9` and power cuts in the middle of a loaded run, again and again: what was answered is charged
//! and recorded exactly once, and nothing else is.
//!
//! ```text
//! cargo test --release -p card4e --test crash                      # 5 of each, a new seed
//! CARD4E_KILLS=1000 CARD4E_SEED=7 cargo test --release -p card4e --test crash -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "figures, and a test that is left out says so past the harness")]

mod ledger;
mod load;
mod power;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the other integration tests")]
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::Follower;
use load::{Dice, Load, Told};
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

/// So that the test above is known to see what it looks for.
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
        installation.power.as_ref().unwrap().lie();
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
    let how = if end == End::Kill { "kills" } else { "power cuts" };
    let took = began.elapsed().as_secs();
    eprintln!(
        "{kills} {how}, {sent} requests, {seen} answers seen by clients, {recorded} in the ledgers, {took} s"
    );
    ensure!(seen > kills, "there was load");
    Ok(())
}

/// A data folder through its lives, and what the clients were told in them.
struct Installation {
    folder: tempfile::TempDir,
    power: Option<PowerCut>,
    told: Arc<Mutex<Told>>,
    follower: Follower,
}

impl Installation {
    fn new(end: End) -> Installation {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let power = (end == End::PowerCut).then(|| PowerCut::new(&data, &folder.path().join("kept")));
        Installation { follower: Follower::new(&data), folder, power, told: Arc::default() }
    }

    fn start(&self) -> Sandbox {
        let data = self.folder.path().join("data");
        let before = self.power.as_ref().map(PowerCut::command).unwrap_or_default();
        let sandbox = Sandbox::keeping_behind(&before, &data, SETTINGS);
        let books = sandbox.control("GET", "ledger", "");
        assert_eq!(books["records"], self.follower.answers, "the books after a start");
        assert_eq!(books["charges"], self.follower.charges, "the books after a start");
        sandbox
    }

    /// One life: a start, load, an end at any moment of it, and what is then in the ledger.
    fn live(&mut self, dice: &mut Dice) -> anyhow::Result<()> {
        let sandbox = self.start();
        let load = Load::start(&sandbox.address, &self.told, dice.next());
        // From before the first commit to some thousands of them.
        std::thread::sleep(Duration::from_millis(5 + dice.next() % 400));
        sandbox.kill();
        load.stop();
        if let Some(power) = &self.power {
            power.lose_unsynced(dice);
        }
        self.follower.follow(&mut self.told.lock().unwrap())
    }

    /// The last life ends in order and agrees with all before it.
    fn end(mut self) -> anyhow::Result<Told> {
        let sandbox = self.start();
        load::repeat_known_keys(&sandbox, &self.told.lock().unwrap());
        sandbox.stop();
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        self.follower.follow(&mut told)?;
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
