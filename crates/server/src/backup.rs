//! `card4e backup` and `card4e restore`: a folder with everything that cannot be made again, except
//! what opens it.
//!
//! A backup is made while the server answers and is read back before it gets its name; a restore is
//! checked in full before it is put in place. Neither the root key is in it nor the key of the day.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use engine::clock::{Clock, utc_text};
use engine::file::{create_private_dir, hex, unhex};
use engine::issuer::Issuers;
use engine::operator::{Act, By};
use engine::store::{Accounts, Check, LedgerFile, LedgerReader, Platform};
use engine::vault::{KeyRing, Vault};
use engine::{Engine, Policy, Seed};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Settings;
use crate::custody;
use crate::installation::Installation;
use crate::table::count;

/// `card4e backup`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e backup /backups/2026-11-21 --config ./bank/card4e.toml
  card4e backup /backups/$(date +%F) --config ./bank/card4e.toml --json

Not in it, on purpose: the root key, the settings file, certificates, the key of the day. Keep the root
key elsewhere: a backup is of no use without it, and whoever has both can read what is sealed.")]
pub struct Backup {
    /// The folder to make; it must not be there yet.
    #[arg(value_name = "DEST")]
    dest: PathBuf,

    /// The settings file of an installation.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    config: PathBuf,

    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// `card4e restore`
#[derive(Args)]
#[command(after_help = "\
Example:
  card4e restore /backups/2026-11-21 --config ./bank/card4e.toml

The settings file and the root key must be there; the data folder must be empty or absent. What was
answered after the backup is lost with its charges; what was revoked or erased after it is back.")]
pub struct Restore {
    /// A folder that `card4e backup` made.
    #[arg(value_name = "SRC")]
    src: PathBuf,

    /// The settings file of the installation to restore.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    config: PathBuf,

    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// What a backup holds, as `manifest.json` says it; `manifest.sig` is the audit key's signature over it.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// Version of the card4e that made it.
    card4e: String,
    /// When it was begun; what was answered before is in it.
    made_at: String,
    files: Vec<Held>,
    audit: Check,
    accounts: u64,
    /// Digest of all accounts, as `card4e accounts check` shows it.
    accounts_digest: String,
    callers: usize,
    credentials: usize,
    /// When the newest entry of the ledger was settled.
    newest_entry: Option<String>,
}

/// A file in a backup.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    name: String,
    bytes: u64,
    sha256: String,
}

const FORMAT: u32 = 1;
const FILES: [&str; 4] = ["accounts.db", "platform.db", "ledger.db", "keys.json"];
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";

/// Makes a backup.
pub fn backup(options: &Backup) -> anyhow::Result<()> {
    let installation = Installation::configured(&options.config)?;
    ensure!(
        installation.shared.is_none(),
        "what server.store names is backed up with the database's own means (pg_basebackup, pg_dump); keep keys.json \
         of the data folder beside it"
    );
    let dest = &options.dest;
    ensure!(!dest.exists(), "{} is there already; name a folder that is not", dest.display());
    let unfinished = Unfinished::make(dest, "backup")?;
    let made_at = Clock::default().now_ms();
    let keys = copy_all(&installation, &unfinished.path)?;
    // What is checked is the copy, with the keys of the copy.
    let vault = Vault::new(&installation.ring(&keys)?);
    let checked = check(&unfinished.path, &vault)?;
    let files = FILES.iter().map(|name| held(&unfinished.path, name)).collect::<anyhow::Result<_>>()?;
    let manifest = Manifest {
        format: FORMAT,
        card4e: env!("CARGO_PKG_VERSION").into(),
        made_at: utc_text(made_at),
        files,
        ..checked
    };
    write_manifest(&unfinished.path, &manifest, &vault)?;
    unfinished.finish(dest)?;
    if options.json {
        return Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&manifest)?)?);
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} is a backup of {}, read back and found whole.\n",
        dest.display(),
        installation.folder.display()
    )?;
    print(&manifest, &mut out)?;
    writeln!(
        out,
        "
NOT in it, keep them elsewhere:

  the root key          without it this backup can never be opened; whoever has both can try card
                        numbers out against the accounts, so keep them apart
  settings, certificates, issuers file

To go back to it:

  card4e restore {} --config {}",
        dest.display(),
        options.config.display()
    )?;
    Ok(())
}

/// Copies the files as they are at one moment each, and the keys that open them.
fn copy_all(installation: &Installation, to: &Path) -> anyhow::Result<PathBuf> {
    let from = &installation.folder;
    let ring = from.join("keys.json");
    // Keys may be rotated meanwhile: then the copies may need keys that were not there yet, or are gone.
    for _ in 0..3 {
        let keys = std::fs::read(&ring).with_context(|| format!("cannot read {}", ring.display()))?;
        let bar = bar("copying accounts.db", COPYING);
        Accounts::copy(&from.join("accounts.db"), &to.join("accounts.db"), |done, all| {
            show(&bar, done, all)
        })?;
        // Before the ledger: an order that is finished in between is finished again from the copy, once;
        // the other way round it would be finished without its credits.
        Platform::copy(&from.join("platform.db"), &to.join("platform.db"), |done, all| {
            show(&bar, done, all)
        })?;
        bar.set_message("copying ledger.db");
        LedgerFile::copy(&from.join("ledger.db"), &to.join("ledger.db"), |done, all| show(&bar, done, all))?;
        bar.finish_and_clear();
        if std::fs::read(&ring).is_ok_and(|now| now == keys) {
            let copy = to.join("keys.json");
            engine::file::write_durably(&copy, &keys).with_context(|| cannot_write(&copy))?;
            return Ok(copy);
        }
        for name in ["accounts.db", "platform.db", "ledger.db"] {
            std::fs::remove_file(to.join(name))?;
        }
    }
    bail!("the keys changed each time the files were copied; try again when the rotation is done")
}

/// Reads everything: structure, audit tree, accounts, credentials. Gives a manifest of what was found.
fn check(folder: &Path, vault: &Vault) -> anyhow::Result<Manifest> {
    let (accounts, ledger) = (folder.join("accounts.db"), folder.join("ledger.db"));
    let bar = bar("checking accounts.db", "{spinner} {msg}, {elapsed}");
    Accounts::check_structure(&accounts)?;
    let census = Accounts::open_reader(&accounts)?.census(vault)?;
    bar.set_message("checking ledger.db");
    LedgerFile::check_structure(&ledger)?;
    Platform::check_structure(&folder.join("platform.db"))?;
    let audit = LedgerFile::check(&ledger, vault)?;
    let reader = LedgerReader::open(&ledger)?;
    let directory = reader.directory(vault)?;
    let newest_entry = reader.newest()?.map(|newest| utc_text(newest.at_ms));
    bar.finish_and_clear();
    Ok(Manifest {
        format: FORMAT,
        card4e: String::new(),
        made_at: String::new(),
        files: Vec::new(),
        audit,
        accounts: census.accounts,
        accounts_digest: hex(&census.digest),
        callers: directory.callers().len(),
        credentials: directory.credentials().len(),
        newest_entry,
    })
}

fn write_manifest(folder: &Path, manifest: &Manifest, vault: &Vault) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(manifest)? + "\n";
    let signature = hex(&vault.sign(&signed(text.as_bytes())));
    for (name, text) in [(MANIFEST, &text), (SIGNATURE, &signature)] {
        let path = folder.join(name);
        engine::file::write_durably(&path, text.as_bytes()).with_context(|| cannot_write(&path))?;
    }
    Ok(())
}

/// What is signed cannot be mistaken for a checkpoint, which begins otherwise.
fn signed(manifest: &[u8]) -> Vec<u8> {
    [b"card4e backup v1\n", manifest].concat()
}

/// Puts a backup in place of a data folder that is empty.
pub fn restore(options: &Restore) -> anyhow::Result<()> {
    let settings = Settings::read(&options.config)?;
    let base = options.config.parent().unwrap_or(Path::new(""));
    let root_key = custody::root_key(&settings, base)?;
    let data = base.join(&settings.server.data);
    let src = &options.src;
    let text = std::fs::read(src.join(MANIFEST))
        .with_context(|| format!("{} is no backup: it has no {MANIFEST}", src.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text).with_context(|| {
        format!("{} cannot be read; another card4e may have made it", src.join(MANIFEST).display())
    })?;
    ensure!(manifest.format == FORMAT, "the backup is of format {}, newer than this card4e", manifest.format);
    refuse_full(&data)?;

    let unfinished = Unfinished::make(&data, "restore")?;
    let whole: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let bar = bar("copying", COPYING);
    for name in FILES {
        let copied = copy(src, &unfinished.path, name, &bar, whole)?;
        ensure!(
            manifest.files.contains(&copied),
            "{} is not the file that the manifest names; nothing was restored, take another backup",
            src.join(name).display()
        );
    }
    bar.finish_and_clear();
    let ring = KeyRing::open_or_create(&unfinished.path.join("keys.json"), &root_key).context(
        "the root key of this installation does not open the backup; put back the one it had then",
    )?;
    let vault = Vault::new(&ring);
    ensure!(
        signature_of(src).is_some_and(|by| vault.signed(&signed(&text), &by)),
        "{MANIFEST} was changed after it was signed, or {SIGNATURE} is missing; nothing was restored, take another backup"
    );
    // A backup of an earlier card4e is brought forward; and the books must add up.
    Accounts::open(&unfinished.path.join("accounts.db"))?;
    Platform::open(&unfinished.path.join("platform.db"))?;
    LedgerFile::open(&unfinished.path.join("ledger.db"), &vault)?;
    let found = check(&unfinished.path, &vault)?;
    ensure!(
        found.audit == manifest.audit && found.accounts_digest == manifest.accounts_digest,
        "the files hold something else than the manifest says; nothing was restored, take another backup"
    );
    // Said in the ledger that takes effect: its tree goes on from here, and not from where it was.
    let policy = Policy { log_bytes: 0, ..settings.serve_policy()? };
    let running =
        Engine::open(&unfinished.path, &root_key, policy, Issuers::built_in(), Seed::nobody(), None)?;
    let recorded =
        running.engine.acting(By::Machine).record_act(Act::Restored { entries: found.audit.entries });
    running.stop();
    recorded?;
    if data.exists() {
        std::fs::remove_dir(&data)
            .with_context(|| format!("cannot put a folder in place of {}", data.display()))?;
    }
    unfinished.finish(&data)?;
    told(options, &manifest, &data)
}

fn told(options: &Restore, manifest: &Manifest, data: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(manifest)?)?);
    }
    writeln!(out, "{} is as it was at {}.\n", data.display(), manifest.made_at)?;
    print(manifest, &mut out)?;
    writeln!(
        out,
        "
What came after is not there:

  answers        lost with their charges and audit records; balances are what they were, and who
                 sends a question again is charged for it
  credentials    those revoked since then are valid again: revoke them again
  accounts       as they were: import again what has changed
  erased data    is back: erase it again
  attempts       today's begin at none

Next:

  card4e doctor --config {config}
  card4e serve --config {config}",
        config = options.config.display()
    )?;
    Ok(())
}

fn print(manifest: &Manifest, out: &mut dyn Write) -> std::io::Result<()> {
    let bytes = |name: &str| {
        let file = manifest.files.iter().find(|file| file.name == name);
        HumanBytes(file.map_or(0, |file| file.bytes)).to_string()
    };
    let mut line = |name: &str, what: String| writeln!(out, "  {name:<12} {:>12}  {what}", bytes(name));
    line("accounts.db", count(manifest.accounts, "account", "accounts"))?;
    let newest =
        manifest.newest_entry.as_ref().map_or(String::new(), |at| format!(", the newest entry of {at}"));
    line(
        "ledger.db",
        format!(
            "{}, {}, {}{newest}",
            count(manifest.audit.answers, "answer", "answers"),
            count(manifest.callers as u64, "caller", "callers"),
            count(manifest.credentials as u64, "credential", "credentials"),
        ),
    )?;
    line("platform.db", "people, orders, vouchers".into())?;
    line("keys.json", "the key ring, sealed by the root key".into())?;
    writeln!(out, "\n  audit root       {}", manifest.audit.root)?;
    writeln!(out, "  accounts digest  {}", manifest.accounts_digest)
}

fn refuse_full(data: &Path) -> anyhow::Result<()> {
    let Ok(mut files) = std::fs::read_dir(data) else { return Ok(()) };
    let shown = data.display();
    if UnixStream::connect(data.join("control.sock")).is_ok() {
        bail!("a server works in {shown}; stop it first, then move the folder away: mv {shown} {shown}.old");
    }
    ensure!(
        files.next().is_none(),
        "{shown} is not empty, and nothing is overwritten; move it away first: mv {shown} {shown}.old"
    );
    Ok(())
}

fn signature_of(folder: &Path) -> Option<[u8; 64]> {
    let text = std::fs::read_to_string(folder.join(SIGNATURE)).ok()?;
    unhex(text.trim())?.try_into().ok()
}

/// A folder that gets its name when it is whole, and is removed if it never is.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Unfinished {
    /// Makes it beside the folder it is to become, so that a rename is enough.
    fn make(dest: &Path, what: &str) -> anyhow::Result<Unfinished> {
        let name = dest.file_name().context("name a folder, not the end of a path such as `..`")?;
        let path = dest.with_file_name(format!("{}.{what}", name.to_string_lossy()));
        let shown = path.display();
        ensure!(
            !path.exists(),
            "{shown} is there: another {what} is at work, or one was interrupted; then remove it: rm -r {shown}"
        );
        create_private_dir(&path).with_context(|| format!("cannot make {shown}"))?;
        Ok(Unfinished { path, kept: false })
    }

    /// Makes it durable and gives it its name.
    fn finish(mut self, dest: &Path) -> anyhow::Result<()> {
        let run = || -> std::io::Result<()> {
            for file in std::fs::read_dir(&self.path)? {
                let file = File::open(file?.path())?;
                file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
                file.sync_all()?;
            }
            File::open(&self.path)?.sync_all()?;
            std::fs::rename(&self.path, dest)?;
            // A relative path of one part has an empty parent.
            let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        run().with_context(|| cannot_write(dest))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // What is left of it says so by its name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn held(folder: &Path, name: &str) -> anyhow::Result<Held> {
    let path = folder.join(name);
    let mut sink = std::io::sink();
    hashed(&path, name, &mut sink, |_| {}).with_context(|| format!("cannot read {}", path.display()))
}

fn copy(from: &Path, to: &Path, name: &str, bar: &ProgressBar, whole: u64) -> anyhow::Result<Held> {
    let (from, to) = (from.join(name), to.join(name));
    let mut copy = private(&to).with_context(|| cannot_write(&to))?;
    let before = bar.position();
    hashed(&from, name, &mut copy, |done| show(bar, before + done, whole))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn private(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads a file to its end, passes it on, and says what it was.
fn hashed(
    path: &Path,
    name: &str,
    to: &mut dyn Write,
    mut progress: impl FnMut(u64),
) -> std::io::Result<Held> {
    let mut file = File::open(path)?;
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part)? {
            0 => break,
            read => {
                digest.update(&part[..read]);
                to.write_all(&part[..read])?;
                bytes += read as u64;
                progress(bytes);
            }
        }
    }
    Ok(Held { name: name.to_owned(), bytes, sha256: hex(&digest.finalize()) })
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

const COPYING: &str = "{spinner} {msg} {bytes}/{total_bytes}, {elapsed}";

fn bar(what: &'static str, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(5),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar.set_message(what);
    bar
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
