//! Two nodes and their database: what is killed is one of them, or both, or the database.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use engine::store::LedgerPlace;
use serde_json::Value;

use super::load::{Callers, Dice, Told};
use super::postgres::Postgres;
use super::support::Sandbox;

/// The people that are asked about, as the sandbox has them.
const PEOPLE: &str = "\
bank_card,name,id_type,id_number,phone,status
6217000000000000012,张伟,resident_id,99010119610202001X,16100000001,normal
6228480000000000026,王芳,resident_id,990101196203030022,16100000002,normal
6222020000000000083,吴三,resident_id,990101196809090089,16100000008,lost
";

/// How long the nodes may take to answer again once the database is back.
const BACK_MOST: Duration = Duration::from_secs(60);

pub struct Nodes {
    folder: tempfile::TempDir,
    url: String,
    database: Postgres,
    /// Settings of each, and its server while it runs.
    nodes: Vec<(PathBuf, Option<Sandbox>)>,
    pub callers: Callers,
}

impl Nodes {
    /// None of them runs yet; `None` where there is no PostgreSQL.
    pub fn new() -> Option<Nodes> {
        let database = Postgres::start()?;
        let url = database.url();
        let folder = tempfile::tempdir().unwrap();
        let bank = folder.path().join("bank");
        card4e(&["init", bank.to_str().unwrap()]);
        let config = bank.join("card4e.toml");
        let store = format!("store = \"{url}\"");
        change(
            &config,
            &[
                ("127.0.0.1:4400", "127.0.0.1:0"),
                ("store = \"\"", &store),
                ("test_land = false", "test_land = true"),
                ("requests_per_second = 20 ", "requests_per_second = 0 "),
                ("per_card = 10 ", "per_card = 6 "),
                ("per_value = 500 ", "per_value = 1000000 "),
            ],
        );
        let people = bank.join("people.csv");
        std::fs::write(&people, PEOPLE).unwrap();
        let run = |arguments: &[&str]| {
            let done = card4e(&[arguments, &["--json", "--config", config.to_str().unwrap()]].concat());
            serde_json::from_slice::<Value>(&done).unwrap()
        };
        run(&["import", "accounts", people.to_str().unwrap()]);
        run(&["caller", "create", "public", "--unlimited"]);
        run(&["caller", "create", "trial"]);
        let issued = |caller, kind| run(&["credential", "create", caller, "--kind", kind]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let signing = issued("public", "tencent");
        let callers = Callers {
            secret_id: text(&signing["secret_id"]),
            secret_key: text(&signing["secret"]),
            token: text(&issued("public", "acedata")["secret"]),
            trial_token: text(&issued("trial", "acedata")["secret"]),
        };
        // One has a copy of the accounts, the other asks the database for them.
        let node = |(name, accounts): (&str, &str)| {
            let to = folder.path().join(name);
            let copied = Command::new("cp").arg("-a").arg(&bank).arg(&to).status();
            assert!(copied.unwrap().success());
            // The commands above have made a copy of the accounts already.
            for file in ["accounts.db", "accounts.db-wal", "accounts.db-shm", "accounts.table"] {
                let _ = std::fs::remove_file(to.join("data").join(file));
            }
            let config = to.join("card4e.toml");
            let accounts = format!("accounts = \"{accounts}\"");
            change(
                &config,
                &[("node = \"\"", &format!("node = \"{name}\"")), ("accounts = \"copy\"", &accounts)],
            );
            (config, None)
        };
        let nodes = [("one", "copy"), ("two", "database")].map(node).into();
        Some(Nodes { folder, url, database, nodes, callers })
    }

    /// Starts those that do not run.
    pub fn start(&mut self) {
        for (config, server) in self.nodes.iter_mut().filter(|(_, server)| server.is_none()) {
            *server = Some(Sandbox::serving(config));
        }
    }

    pub fn running(&self) -> Vec<&Sandbox> {
        self.nodes.iter().filter_map(|(_, server)| server.as_ref()).collect()
    }

    /// Kills something.
    pub fn kill(&mut self, dice: &mut Dice, told: &Mutex<Told>) {
        match dice.next() % 4 {
            0 => self.kill_nodes(0..1),
            1 => self.kill_nodes(1..2),
            2 => self.kill_nodes(0..2),
            _ => self.kill_database(dice, told),
        }
    }

    fn kill_nodes(&mut self, which: std::ops::Range<usize>) {
        self.nodes[which].iter_mut().for_each(|(_, server)| server.take().unwrap().kill());
    }

    /// The nodes live on, and answer again when it is back.
    fn kill_database(&mut self, dice: &mut Dice, told: &Mutex<Told>) {
        self.database.kill();
        std::thread::sleep(Duration::from_millis(dice.next() % 600));
        self.database.run();
        let (before, began) = (told.lock().unwrap().seen, Instant::now());
        while told.lock().unwrap().seen < before + 10 {
            let logs = || self.running().iter().map(|server| server.log()).collect::<String>();
            assert!(began.elapsed() < BACK_MOST, "nothing is answered: {}", logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop(&mut self) {
        self.nodes.iter_mut().filter_map(|(_, server)| server.take()).for_each(Sandbox::stop);
    }

    pub fn ledger(&self) -> LedgerPlace {
        let database = super::postgres::database_at(&self.url);
        LedgerPlace::Shared { database, node: "one".into() }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("one").join("card4e.toml")
    }
}

fn change(config: &PathBuf, settings: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(config).unwrap();
    for (from, to) in settings {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    std::fs::write(config, text).unwrap();
}

/// What a command says, which must succeed.
fn card4e(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(env!("CARGO_BIN_EXE_card4e")).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
