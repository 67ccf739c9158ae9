//! `card4e doctor`: looks at everything an installation stands on, one line each, and says what to do.
//!
//! Changes nothing, and can be run while the server answers.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use engine::clock::{Clock, Millis, utc_text};
use engine::store::{Accounts, AccountsOfRecord, LedgerPlace, LedgerReader, SharedStore};
use engine::vault::{KeyRing, Vault};
use indicatif::HumanBytes;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::{Custody, Secrets, Settings};
use crate::custody;
use crate::limiter::{self, Target};
use crate::manage::{self, Request};
use crate::table::{self, count};
use crate::tls::Tls;

/// `card4e doctor`
#[derive(Args)]
#[command(after_help = "\
Example:
  card4e doctor --config ./bank/card4e.toml

Ends with 1 when there is a problem; warnings alone end with 0. It reads the newest checkpoint only:
`card4e audit check` and `card4e accounts check` read everything.")]
pub struct Options {
    /// The settings file of an installation.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    config: PathBuf,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warning,
    Problem,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Problem => "problem",
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All that was looked at.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, what: &'static str, found: impl Into<String>) {
        self.0.push(Finding { what, state: State::Ok, found: found.into(), remedy: None });
    }

    fn warning(&mut self, what: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let (state, remedy) = (State::Warning, Some(remedy.into()));
        self.0.push(Finding { what, state, found: found.into(), remedy });
    }

    fn problem(&mut self, what: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let (state, remedy) = (State::Problem, Some(remedy.into()));
        self.0.push(Finding { what, state, found: found.into(), remedy });
    }

    fn number_of(&self, state: State) -> u64 {
        self.0.iter().filter(|finding| finding.state == state).count() as u64
    }
}

/// Looks at everything; an error when there is a problem.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    match Settings::read(&options.config) {
        Err(wrong) => findings.problem(
            "settings",
            format!("{wrong:#}"),
            "nothing else can be looked at before this is right",
        ),
        Ok(settings) => look(&options.config, &settings, &mut findings),
    }
    print(&findings, options.json)?;
    let problems = findings.number_of(State::Problem);
    ensure!(problems == 0, "there is something to do: {}", count(problems, "problem", "problems"));
    Ok(())
}

fn look(config: &Path, settings: &Settings, findings: &mut Findings) {
    let base = config.parent().unwrap_or(Path::new(""));
    let data = base.join(&settings.server.data);
    let now = Clock::default().now_ms();
    look_at_settings(config, settings, findings);
    let root_key = look_at_root_key(base, settings, findings);
    let is_there = look_at_folder(&data, findings);
    if is_there {
        look_at_space(&data, findings);
        look_at_commits(&data, findings);
    }
    if let (Some(root_key), true) = (root_key, is_there)
        && let Some(vault) = look_at_keys(&data, &root_key, findings)
    {
        look_at_accounts(base, &data, settings, findings);
        look_at_ledger(base, &data, settings, &vault, now, findings);
    }
    look_at_certificate(base, settings, now, findings);
    look_at_limiter(settings, findings);
    look_at_providers(&data, settings, findings);
    look_at_server(&data, settings, findings);
}

fn look_at_settings(config: &Path, settings: &Settings, findings: &mut Findings) {
    let shown = config.display();
    if let Err(wrong) = settings.serve_policy().and(settings.issuers().map(|_| ())) {
        return findings.problem("settings", format!("{wrong:#}"), format!("correct it in {shown}"));
    }
    findings.ok("settings", shown.to_string());
    if settings.policy.test_land {
        let found = "test land is on: identity numbers nobody has and test cards are accepted";
        findings.warning("settings", found, "set policy.test_land = false before real people are verified");
    }
    let listen = settings.server.listen;
    if !listen.ip().is_loopback() && settings.tls.certificate.is_none() {
        let found = format!("{listen} can be reached by others, without TLS");
        findings.warning(
            "settings",
            found,
            "set tls.certificate and tls.key, or let a proxy on this machine speak TLS",
        );
    }
}

fn look_at_root_key(
    base: &Path,
    settings: &Settings,
    findings: &mut Findings,
) -> Option<Zeroizing<[u8; 32]>> {
    let keys = &settings.keys;
    let key = match custody::root_key(settings, base) {
        Ok(key) => key,
        Err(wrong) => {
            findings.problem("root key", format!("{wrong:#}"), "put back the copy that is kept elsewhere");
            return None;
        }
    };
    let path = match keys.custody {
        Custody::File => base.join(&keys.root_key_file),
        Custody::Environment => {
            findings.ok("root key", format!("from the variable {}", keys.root_key_env));
            return Some(key);
        }
        Custody::Passphrase | Custody::Pkcs11 => {
            let found = match keys.custody {
                Custody::Pkcs11 => format!("{}, by the token", keys.pkcs11_key_file.display()),
                _ => format!("{}, by its passphrase", keys.sealed_key_file.display()),
            };
            findings.ok("root key", found);
            let plain = base.join(&keys.root_key_file);
            if plain.exists() {
                let found = format!("{} is there in plain text, too", plain.display());
                findings.warning("root key", found, format!("shred -u {}", plain.display()));
            }
            return Some(key);
        }
    };
    let (shown, mode) = (path.display(), mode(&path));
    match mode {
        mode if mode & 0o007 != 0 => findings.problem(
            "root key",
            format!("everybody on this machine can get at {shown}"),
            format!("chmod 600 {shown}"),
        ),
        mode if mode & 0o070 != 0 => findings.warning(
            "root key",
            format!("the group of {shown} can get at it"),
            format!("chmod 600 {shown}, unless that is meant"),
        ),
        _ => findings.ok("root key", shown.to_string()),
    }
    Some(key)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |file| file.permissions().mode())
}

fn look_at_folder(data: &Path, findings: &mut Findings) -> bool {
    let shown = data.display();
    if !data.is_dir() {
        let remedy =
            "make an installation with `card4e init DIR`, or go back to a backup with `card4e restore`";
        findings.problem("data folder", format!("{shown} is not there"), remedy);
        return false;
    }
    match mode(data) & 0o077 {
        0 => findings.ok("data folder", shown.to_string()),
        _ => findings.warning(
            "data folder",
            format!("others can look into {shown}"),
            format!("chmod 700 {shown}"),
        ),
    }
    true
}

/// A ledger that cannot grow answers nothing.
fn look_at_space(data: &Path, findings: &mut Findings) {
    const PROBLEM_BYTES: u64 = 256 << 20;
    const WARNING_BYTES: u64 = 2 << 30;
    let free = match rustix::fs::statvfs(data) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(wrong) => return findings.problem("disk space", wrong.to_string(), "look at the file system"),
    };
    let found = format!("{} free", HumanBytes(free));
    match free {
        ..PROBLEM_BYTES => {
            findings.problem("disk space", found, "make room now: a server that cannot write stops answering")
        }
        PROBLEM_BYTES..WARNING_BYTES => {
            findings.warning("disk space", found, "make room: a server that cannot write stops answering")
        }
        _ => findings.ok("disk space", found),
    }
}

/// Every answer waits for a commit, and a commit for the disk.
fn look_at_commits(data: &Path, findings: &mut Findings) {
    const SLOW: Duration = Duration::from_millis(20);
    match commit_times(data) {
        Err(wrong) => findings.problem(
            "disk writes",
            format!("{}: {wrong}", data.display()),
            "run card4e as the folder's owner, and look at the file system",
        ),
        Ok(times) => {
            let [median, worst] = [times[times.len() / 2], times[times.len() - 1]];
            let text = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
            let found = format!("4 KiB are durable after {} (worst {})", text(median), text(worst));
            match median > SLOW {
                true => {
                    findings.warning("disk writes", found, "every answer waits that long: use a faster disk")
                }
                false => findings.ok("disk writes", found),
            }
        }
    }
}

/// How long it takes until a few bytes are durable, shortest first.
fn commit_times(data: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(data)?;
    let mut times = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times)
}

fn look_at_keys(data: &Path, root_key: &[u8; 32], findings: &mut Findings) -> Option<Vault> {
    let path = data.join("keys.json");
    if !path.exists() {
        let remedy = "put it back from a backup; without it no account can be read";
        findings.problem("keys", format!("{} is missing", path.display()), remedy);
        return None;
    }
    match KeyRing::open_or_create(&path, root_key) {
        Ok(ring) => {
            findings.ok("keys", "the root key opens the key ring");
            Some(Vault::new(&ring))
        }
        Err(wrong) => {
            findings.problem(
                "keys",
                wrong.to_string(),
                "put back keys.json and root key that belong together",
            );
            None
        }
    }
}

fn look_at_accounts(base: &Path, data: &Path, settings: &Settings, findings: &mut Findings) {
    /// Looked at for their place in the element index.
    const SOME: u32 = 100_000;
    let shared = match crate::shared::store(&settings.server, base) {
        Ok(shared) => shared,
        Err(wrong) => return findings.problem("accounts", format!("{wrong:#}"), "correct the settings"),
    };
    let remedy = match &shared {
        None => "go back to a backup with `card4e restore`, or import the accounts again",
        Some(_) => "see that this machine reaches the database of server.store, and may make tables there",
    };
    // A file that is not there must not be made by looking. A node's copy may well not be there.
    let is_there = match &shared {
        None => Accounts::open_reader(&data.join("accounts.db")).map(drop),
        Some(_) => Ok(()),
    };
    let database = shared.as_ref().map(|shared| &shared.database);
    let looked = is_there.and_then(|_| AccountsOfRecord::open(data, database));
    let looked =
        looked.and_then(|mut accounts| Ok((accounts.count()?, accounts.missing_in_element_index(SOME)?)));
    match looked {
        Ok((0, _)) => findings.warning("accounts", "there are none", "card4e import accounts FILE"),
        Ok((all, missing)) if settings.policy.element_index && missing > 0 => findings.warning(
            "accounts",
            format!(
                "{}; of {} looked at, {missing} cannot be found by identity number or mobile",
                count(all, "account", "accounts"),
                all.min(SOME.into()),
            ),
            "they are older than policy.element_index = true: import them again",
        ),
        Ok((all, _)) => findings.ok("accounts", count(all, "account", "accounts")),
        Err(wrong) => findings.problem("accounts", wrong.to_string(), remedy),
    }
}

fn look_at_ledger(
    base: &Path,
    data: &Path,
    settings: &Settings,
    vault: &Vault,
    now: Millis,
    findings: &mut Findings,
) {
    let path = data.join("ledger.db");
    let (place, remedy) = match crate::shared::store(&settings.server, base) {
        // Said of the accounts already.
        Err(_) => return,
        Ok(None) => (
            LedgerPlace::from(&path),
            "keep a copy of the file as it is; then go back to a backup with `card4e restore`",
        ),
        Ok(Some(SharedStore { database, node })) => (
            LedgerPlace::Shared { database, node },
            "see that this machine reaches the database of server.store; what is damaged comes back from its backup",
        ),
    };
    let looked =
        LedgerReader::open(place).and_then(|ledger| Ok((ledger.newest()?, ledger.last_checkpoint(vault)?)));
    let (newest, checkpoint) = match looked {
        Ok(looked) => looked,
        Err(wrong) => return findings.problem("ledger", wrong.to_string(), remedy),
    };
    let entries = newest.map_or(0, |newest| newest.entries);
    let found = match &checkpoint {
        None => "no checkpoint yet".to_owned(),
        Some(checkpoint) => format!("the checkpoint of {} holds", utc_text(checkpoint.at_ms)),
    };
    match checkpoint.is_none() && entries > 0 {
        true => findings.warning("ledger", found, "start the server: it signs the ledger each second"),
        false => findings.ok("ledger", format!("{}, {found}", count(entries, "entry", "entries"))),
    }
    let changed = std::fs::metadata(&path).map_or(0, |file| file.mtime() * 1000);
    look_at_clock(now, newest.map_or(0, |newest| newest.at_ms).max(changed), findings);
}

/// Signatures, expiry and days are told by the clock; it must not go back behind what was written.
fn look_at_clock(now: Millis, newest: Millis, findings: &mut Findings) {
    const TOLERANCE_MS: Millis = 60_000;
    if newest > now + TOLERANCE_MS {
        let found = format!("it is {}, but the ledger was written at {}", utc_text(now), utc_text(newest));
        return findings.problem(
            "clock",
            found,
            "set the clock (timedatectl, chrony): requests are refused by it",
        );
    }
    findings.ok("clock", utc_text(now));
}

fn look_at_certificate(base: &Path, settings: &Settings, now: Millis, findings: &mut Findings) {
    match Tls::open(&settings.tls, base) {
        Err(wrong) => {
            findings.problem("certificate", format!("{wrong:#}"), "correct [tls] or the file; docs/tls.md")
        }
        Ok(None) => findings.ok("certificate", "none: plain HTTP"),
        Ok(Some(tls)) => {
            let end = tls.not_after().map_or("an unknown time".to_owned(), utc_text);
            if tls.not_after().is_some_and(|end| end <= now) {
                findings.problem(
                    "certificate",
                    format!("ended at {end}"),
                    "get a new one; it is read when the file changes",
                );
            } else if tls.ends_soon(now) {
                findings.warning(
                    "certificate",
                    format!("ends at {end}"),
                    "get a new one; it is read when the file changes",
                );
            } else {
                findings.ok("certificate", format!("valid until {end}"));
            }
        }
    }
}

/// Counts something nobody has asked.
fn look_at_limiter(settings: &Settings, findings: &mut Findings) {
    let measured = |target: &Target| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(limiter::answer_time(target))
    };
    match settings.limits.target() {
        Ok(None) => {}
        Ok(Some(target)) => {
            let place = limiter::place(&target);
            let text = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
            match measured(&target) {
                Err(wrong) => findings.problem(
                    "limiter",
                    format!("{place}: {wrong:#}"),
                    "start it, or correct [limits]; until then each node grants its share of a limit, or nothing",
                ),
                Ok(took) if took > target.timeout => findings.warning(
                    "limiter",
                    format!("{place} answers after {}", text(took)),
                    "that is over limits.timeout_ms, so it is not waited for: bring it nearer, or wait longer",
                ),
                Ok(_) if target.password.is_some() && !target.endpoint.tls && !target.endpoint.is_this_machine() => findings.warning(
                    "limiter",
                    format!("{place}: the password goes over the network in the clear"),
                    "let it speak TLS, and write rediss://",
                ),
                Ok(took) => findings.ok("limiter", format!("{place} answers after {}", text(took))),
            }
        }
        Err(wrong) => findings.problem(
            "limiter",
            format!("{wrong:#}"),
            "correct [limits] in the settings; the server does not start like this",
        ),
    }
}

/// Their secrets, keys and CAs; nobody is asked anything, that would cost something.
fn look_at_providers(data: &Path, settings: &Settings, findings: &mut Findings) {
    match settings.routing(data, Secrets::Required) {
        Ok(None) => {}
        Ok(Some(routing)) => {
            let (providers, routes) = (routing.providers.len() as u64, routing.routes.len() as u64);
            let providers = count(providers, "provider", "providers");
            findings.ok("providers", format!("{providers}, {}", count(routes, "route", "routes")));
            let unused = |place: usize| {
                let mut routes = routing.routes.iter();
                !routes.any(|route| {
                    let shadows = route.shadows.iter().map(|(place, _)| place);
                    route.providers.iter().map(|(place, _)| place).chain(shadows).any(|of| *of == place)
                })
            };
            for (_, provider) in routing.providers.iter().enumerate().filter(|(place, _)| unused(*place)) {
                let found = format!("`{}` is in no route", provider.name);
                findings.warning("providers", found, "name it in a [[route]], or take it out");
            }
        }
        Err(wrong) => findings.problem(
            "providers",
            format!("{wrong:#}"),
            "correct it in the settings; the server does not start like this",
        ),
    }
}

fn look_at_server(data: &Path, settings: &Settings, findings: &mut Findings) {
    let listen = settings.server.listen;
    match manage::ask_running(data, &Request::Status) {
        None => match TcpListener::bind(listen) {
            Ok(_) => findings.ok("server", format!("none runs, {listen} is free")),
            Err(wrong) => findings.problem(
                "server",
                format!("none runs in this data folder, and {listen} cannot be had: {wrong}"),
                "stop what listens there, or set server.listen",
            ),
        },
        Some(Err(wrong)) => findings.problem(
            "server",
            format!("it runs, but does not answer: {wrong:#}"),
            "look at its log, then restart it",
        ),
        Some(Ok(status)) if status["store"] == "stopped" => findings.problem(
            "server",
            "it runs, but answers nobody: the disk failed",
            "look at its log, mend the disk, restart it",
        ),
        Some(Ok(status)) if status["store"] == "full" => findings.problem(
            "server",
            "it runs, but answers nobody: the disk is full, or less of it free than server.disk_reserve_mb",
            "make room; it goes on by itself",
        ),
        Some(Ok(_)) if !accepts(listen) => findings.problem(
            "server",
            format!("it runs, but {listen} takes no connection"),
            "has server.listen changed? then restart it; or look at its log",
        ),
        Some(Ok(status)) => {
            let answers = count(status["answers"].as_u64().unwrap_or(0), "answer", "answers");
            findings.ok("server", format!("runs, {answers} so far"));
        }
    }
}

/// Whether somebody takes connections there.
fn accepts(mut listen: SocketAddr) -> bool {
    if listen.port() == 0 {
        // Where it listens only its ready file knows.
        return true;
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    TcpStream::connect_timeout(&listen, Duration::from_secs(3)).is_ok()
}

fn print(findings: &Findings, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        for finding in &findings.0 {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for Finding { what, state, found, remedy } in &findings.0 {
        rows.push([state.word(), what, found].map(str::to_owned).to_vec());
        rows.extend(remedy.iter().map(|remedy| vec![String::new(), String::new(), format!("-> {remedy}")]));
    }
    table::print(&mut out, &["", "", ""], &rows)?;
    let (problems, warnings) = (findings.number_of(State::Problem), findings.number_of(State::Warning));
    match (problems, warnings) {
        (0, 0) => writeln!(out, "\nAll is well.")?,
        _ => writeln!(
            out,
            "\n{}, {}.",
            count(problems, "problem", "problems"),
            count(warnings, "warning", "warnings")
        )?,
    }
    Ok(())
}
