//! A disk that is full, for real: the data folder is a small file system in memory, in a namespace of
//! its own, which needs no privileges where user namespaces are allowed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::serve::{Installation, Shop, card4e};
use super::support::{Reply, Sandbox};

/// What `unshare` runs: copies an installation to a small disk and starts a server there.
const SCRIPT: &str = r#"mount -t tmpfs -o size=24m card4e "$1" && cp -a "$2/." "$1" && shift 2 && exec "$@""#;

/// A server on a small disk, with a caller who may ask as often as it likes.
struct SmallDisk {
    server: Sandbox,
    shop: Shop,
    /// The folder of the installation as it is seen from outside.
    seen: PathBuf,
    _bank: Installation,
    _mount: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, said aloud, where the machine allows no namespaces.
    fn start(reserve_mb: u32) -> Option<SmallDisk> {
        let allowed = Command::new("unshare").args(["-rm", "true"]).output();
        if !allowed.is_ok_and(|done| done.status.success()) {
            let said =
                "NOT RUN: the full disk; `unshare -rm true` does not work here, so no small disk can be made";
            let _ = writeln!(std::io::stderr(), "{said}");
            return None;
        }
        let bank = Installation::new(&[
            ("disk_reserve_mb = 64", &format!("disk_reserve_mb = {reserve_mb}")),
            ("free_quota = \"10\"", "free_quota = \"1000000\""),
            ("requests_per_second = 20", "requests_per_second = 0"),
            ("per_value = 500", "per_value = 0"),
        ]);
        let shop = bank.shop();
        let mount = tempfile::tempdir().unwrap();
        let inside = mount.path().to_str().unwrap();
        let config = mount.path().join("card4e.toml");
        let from = bank.folder().to_str().unwrap();
        let before = ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", inside, from];
        let server = Sandbox::serving_behind(&before, &config);
        let seen = PathBuf::from(format!("/proc/{}/root{inside}", server.pid()));
        Some(SmallDisk { server, shop, seen, _bank: bank, _mount: mount })
    }

    fn ask(&self, number: u32, key: Option<&str>) -> Reply {
        ask(&self.server, &self.shop, number, key)
    }

    fn ready(&self) -> (u16, String) {
        let reply = self.server.get("/readyz");
        (reply.status, reply.json()["store"].as_str().unwrap().to_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Value, String> {
        let config = self.seen.join("card4e.toml");
        let done = card4e(&[arguments, &["--json", "--config", config.to_str().unwrap()]].concat());
        if !done.status.success() {
            return Err(String::from_utf8(done.stderr).unwrap());
        }
        Ok(serde_json::from_slice(&done.stdout).unwrap())
    }

    /// What a command prints, whatever it thinks of it.
    fn said(&self, arguments: &[&str]) -> String {
        let config = self.seen.join("card4e.toml");
        let done = card4e(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        String::from_utf8(done.stdout).unwrap()
    }

    fn balance(&self) -> u64 {
        let callers = self.run(&["caller", "list"]).unwrap();
        callers[1]["balance"].as_str().unwrap().parse().unwrap()
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.seen.join("ballast")).unwrap();
        for length in [1 << 20, 4096, 1] {
            while ballast.write(&vec![1; length]).is_ok_and(|written| written > 0) {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.seen.join("ballast")).unwrap();
        let began = Instant::now();
        while self.ready().0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(10), "{:?} {}", self.ready(), self.server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A question about a card that is not there, which is charged.
fn ask(server: &Sandbox, shop: &Shop, number: u32, key: Option<&str>) -> Reply {
    let body = format!(
        r#"{{"name":"张伟","bank_card":"62170000{number:011}","phone":"16100000001","id_card":"99010119610202001X"}}"#
    );
    let bearer = format!("Bearer {}", shop.token);
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    server.request("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes())
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([&from.join("."), to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_full_disk_charges_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::start(0) else { return };
    assert_eq!(disk.ask(0, Some("before")).status, 200);
    disk.fill();
    // The log has some room of its own; then nothing fits.
    let mut answered = 1;
    let refused = loop {
        match disk.ask(answered, None) {
            reply if reply.status == 200 => answered += 1,
            reply => break reply,
        }
        assert!(answered < 20_000, "the disk is never full");
    };
    assert_eq!((refused.status, refused.header("x-charged")), (500, Some("0")), "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "api_error");
    let (status, store) = disk.ready();
    assert_eq!(status, 503);
    assert!(store.starts_with("disk full") && store.contains("make room"), "{store}");
    assert_eq!(disk.ask(7, Some("while")).status, 500);
    // It looks every second; meanwhile nothing is answered, nothing changed, nothing charged.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(disk.ready().0, 503);
    assert_eq!(disk.ask(8, None).status, 500);
    let said = disk.run(&["caller", "create", "late"]).unwrap_err();
    assert!(said.contains("disk is full") && said.contains("make room"), "{said}");
    assert_eq!(disk.balance(), 1_000_000 - u64::from(answered));
    let findings = disk.said(&["doctor"]);
    assert!(findings.contains("answers nobody: the disk is full"), "{findings}");

    disk.make_room();
    // What was refused is asked as if for the first time; what was answered is remembered.
    let first = disk.ask(7, Some("while"));
    assert_eq!((first.status, first.header("x-charged")), (200, Some("1")), "{}", first.text());
    let again = disk.ask(7, Some("while"));
    assert_eq!(again.header("x-trace-id"), first.header("x-trace-id"));
    assert_eq!(disk.ask(0, Some("before")).header("x-charged"), Some("0"));
    disk.run(&["caller", "create", "late"]).unwrap();
    let charged = u64::from(answered) + 1;
    assert_eq!(disk.balance(), 1_000_000 - charged);

    // As after a crash: the files as they are now, opened by another server.
    let after = tempfile::tempdir().unwrap();
    copy(&disk.seen, after.path());
    let config = after.path().join("card4e.toml");
    let server = Sandbox::serving(&config);
    let done = card4e(&["caller", "list", "--json", "--config", config.to_str().unwrap()]);
    let callers: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(callers[1]["balance"], (1_000_000 - charged).to_string());
    server.stop();
    let done = card4e(&["audit", "check", "--json", "--config", config.to_str().unwrap()]);
    let audit: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((audit["answers"].as_u64(), audit["charges"].as_u64()), (Some(charged), Some(charged)));
}

#[test]
fn a_reserve_is_kept_free() {
    let Some(disk) = SmallDisk::start(16) else { return };
    assert_eq!(disk.ask(0, None).status, 200);
    std::fs::write(disk.seen.join("ballast"), vec![1; 12 << 20]).unwrap();
    let began = Instant::now();
    while disk.ready().0 == 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "the reserve is not looked at");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(disk.ask(1, None).status, 500);
    assert_eq!(disk.balance(), 999_999);
    disk.make_room();
    assert_eq!(disk.ask(1, None).status, 200);
    assert_eq!(disk.balance(), 999_998);
}

/// A limit on the size of files, which needs no privileges, fails writes as a quota does.
#[test]
fn a_limit_on_files_is_a_full_disk() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let before = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let server = Sandbox::serving_behind(&before, &bank.folder().join("card4e.toml"));
    let limit = |bytes: &str| {
        let arguments = ["--pid", &server.pid().to_string(), &format!("--fsize={bytes}:unlimited")];
        let done = Command::new("prlimit").args(arguments).status();
        done.is_ok_and(|done| done.success())
    };
    assert_eq!(ask(&server, &shop, 0, None).status, 200);
    if !limit("4096") {
        let _ = writeln!(std::io::stderr(), "NOT RUN: a limit on files; `prlimit` does not work here");
        return;
    }
    assert_eq!(ask(&server, &shop, 1, None).status, 500);
    let store = server.get("/readyz").json()["store"].as_str().unwrap().to_owned();
    assert!(store.starts_with("disk full"), "{store}");
    assert!(limit("unlimited"));
    let began = Instant::now();
    while server.get("/readyz").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&server, &shop, 1, None).header("x-credits-remaining"), Some("8"));
    server.stop();
    let audit = bank.run(&["audit", "check"]);
    assert_eq!((audit["answers"].as_u64(), audit["charges"].as_u64()), (Some(2), Some(2)));
}
