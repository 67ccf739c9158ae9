//! `card4e keys`: every key with its versions, and replacing them while the server answers.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use engine::rotate::RotationStatus;
use engine::vault::{KeyGroup, random};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::{Custody, Settings};
use crate::custody::{self, Kept, RootKey};
use crate::installation::{Installation, Place};
use crate::manage::{self, Answering, Request};

/// `card4e keys`
#[derive(Subcommand)]
pub enum Command {
    /// List every version of every key: what it is for, when it was made, what it still does. No values.
    #[command(after_help = "Example:\n  card4e keys list --config card4e.toml")]
    List {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Seal the root key with a passphrase or a PKCS#11 token; or replace it by a new one.
    ///
    /// To another custody than the one in the settings, the root key moves: the file of that custody is
    /// written and nothing else is changed. To the same custody, a new root key takes its place, under a new
    /// passphrase, or under the token's key that the settings name, while the server answers: who had the
    /// old one can open nothing that is written from now on. The old file is kept as FILE.old for backups
    /// made until now.
    #[command(after_help = "\
Passphrase and PIN are asked for on the terminal, or given as docs/keys.md says.

Examples:
  card4e keys seal --config card4e.toml               custody = \"file\": seals root.key with a passphrase
  card4e keys seal --to pkcs11 --config card4e.toml   with the key keys.pkcs11_key of a token; made if need be
  then: set custody under [keys]; see that `card4e keys list` works after a restart; destroy root.key

  card4e keys seal --config card4e.toml               custody = \"passphrase\": a new root key and passphrase
  card4e keys seal --to file --config card4e.toml     custody = \"file\": a new root.key")]
    Seal {
        /// Who shall keep it; by default whoever does, or a passphrase where it is in plain text.
        #[arg(long, value_enum, value_name = "CUSTODY")]
        to: Option<Custody>,
        /// The settings file.
        #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Replace keys while the server answers; goes on with a rotation that was interrupted.
    ///
    /// New data is under the new keys at once. All accounts are wrapped again, without any plaintext, and
    /// checked before the old keys are destroyed. Imports wait until that is done.
    #[command(after_help = "\
Groups:
  accounts      wrap index and verifiers of the accounts, authenticate their rows
  side          seals what belongs to ledger entries and can be erased
  credentials   seals the secret keys of callers
  tokens        hashes bearer and platform tokens
  subjects      references to cards in the audit
  idempotency   hashes idempotency keys
  audit         signs checkpoints
  receipts      signs receipts
  envelopes     open what callers encrypt; clients fetch the new ones from /encryption-keys, the old
                ones open for a month more

The inner key of the accounts is in none of them: replacing it needs every account anew (docs/keys.md).

Examples:
  card4e keys rotate --config card4e.toml                    all of them
  card4e keys rotate accounts audit --config card4e.toml     only these

The command can be stopped: the server goes on. The same command shows how far it is.")]
    Rotate {
        /// Which keys; by default all.
        #[arg(value_name = "GROUP", value_parser = group)]
        groups: Vec<KeyGroup>,
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn group(word: &str) -> Result<KeyGroup, String> {
    let all = || KeyGroup::ALL.map(KeyGroup::word).join(", ");
    KeyGroup::from_word(word).ok_or_else(|| format!("there is no group `{word}`; there is {}", all()))
}

/// Runs one of them.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { place, json } => list(&place, json),
        Command::Seal { to, config, json } => seal(&config, to, json),
        Command::Rotate { groups, place, json } => {
            let groups = if groups.is_empty() { KeyGroup::ALL.to_vec() } else { groups };
            rotate(&place, &groups, json)
        }
    }
}

fn list(place: &Place, json: bool) -> anyhow::Result<()> {
    let keys = match manage::ask_running(&place.folder()?, &Request::ListKeys) {
        Some(told) => told?,
        None => json!(place.open()?.keys),
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{keys}")?;
        return Ok(());
    }
    writeln!(out, "{:<16} {:>7}  {:<10} {:<21} replaced", "use", "version", "state", "created")?;
    for key in keys.as_array().into_iter().flatten() {
        let text = |member: &str| key[member].as_str().unwrap_or("-");
        let (usage, version, state) = (text("use"), &key["version"], text("state"));
        let (created, replaced) = (text("created"), text("replaced"));
        writeln!(out, "{usage:<16} {version:>7}  {state:<10} {created:<21} {replaced}")?;
    }
    Ok(())
}

fn seal(config: &Path, to: Option<Custody>, json: bool) -> anyhow::Result<()> {
    let settings = Settings::read(config)?;
    let base = config.parent().unwrap_or(Path::new("."));
    let kept = Kept::read(&settings, base)?;
    let secret = kept.ask()?;
    // The right one, or nothing is written.
    let installation = Installation::kept_by(&kept, secret.as_ref(), &settings, base)?;
    // Read again: one that waited to take its place may have done so.
    let kept = Kept::read(&settings, base)?;
    let root_key = kept.open(secret.as_ref())?;
    let is = settings.keys.custody;
    let is_plain = matches!(is, Custody::File | Custody::Environment);
    let to = to.unwrap_or(if is_plain { Custody::Passphrase } else { is });
    let path = custody::place(&settings.keys, base, to).context(
        "card4e cannot write the environment; seal the root key: card4e keys seal --to passphrase",
    )?;
    if to == is {
        replace(&path, &settings, base, installation, kept.begun(&root_key), json)
    } else {
        move_to(to, &path, config, &root_key, json)
    }
}

/// What was written, for programs: where the root key is, in force or only once the settings say so.
fn print_sealed(to: Custody, path: &Path, former: Option<&Path>) -> anyhow::Result<()> {
    let sealed = json!({
        "custody": to.word(),
        "file": path,
        "in_force": former.is_some(),
        "former_file": former,
    });
    writeln!(std::io::stdout(), "{sealed}")?;
    Ok(())
}

/// The same root key, kept by somebody else once the settings say so.
fn move_to(to: Custody, path: &Path, config: &Path, root_key: &[u8; 32], json: bool) -> anyhow::Result<()> {
    let settings = Settings::read(config)?;
    let base = config.parent().unwrap_or(Path::new("."));
    let is = settings.keys.custody;
    ensure!(
        custody::place(&settings.keys, base, is).as_deref() != Some(path),
        "{} is what keeps the root key now; give each custody a file of its own under [keys]",
        path.display()
    );
    let (text, how) = custody::sealed(root_key, &settings.keys, base, to)?;
    engine::file::write_durably(path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    if json {
        return print_sealed(to, path, None);
    }
    let mut out = std::io::stdout().lock();
    let shown = path.display();
    writeln!(out, "{shown} holds the root key, {how}. Keep a copy of it elsewhere, and what opens it.")?;
    let word = to.word();
    writeln!(
        out,
        "\nNext: set custody = \"{word}\" under [keys] in {}, see that `card4e keys list` works",
        config.display()
    )?;
    match custody::place(&settings.keys, base, is) {
        Some(old) if is == Custody::File => {
            writeln!(out, "after a restart, and destroy the plain root key: shred -u {}", old.display())?
        }
        _ => writeln!(out, "after a restart, and destroy what kept the root key before.")?,
    }
    Ok(())
}

/// Another root key in its place, in force at once.
fn replace(
    path: &Path,
    settings: &Settings,
    base: &Path,
    installation: Installation,
    begun: Option<(RootKey, Zeroizing<String>)>,
    json: bool,
) -> anyhow::Result<()> {
    let old = custody::former(path);
    let shown = old.display();
    ensure!(
        !old.exists(),
        "{shown} is the root key before this one: put it where the backups are that need it, or destroy it \
         (shred -u {shown}); then do this again"
    );
    let (new, (text, how)) = match begun {
        Some((new, text)) => (new, (text, "in plain text".to_owned())),
        None => {
            let new = Zeroizing::new(random::<32>());
            let sealed = custody::sealed(&new, &settings.keys, base, settings.keys.custody)?;
            (new, sealed)
        }
    };
    custody::replace(path, &text, || installation.replace_root_key(&new))?;
    if json {
        return print_sealed(settings.keys.custody, path, Some(&old));
    }
    let mut out = std::io::stdout().lock();
    let path = path.display();
    writeln!(out, "{path} holds a new root key, {how}; it is in force. Keep a copy of it elsewhere.")?;
    if !settings.server.store.is_empty() {
        writeln!(
            out,
            "\nThe other nodes go on with the keys they have. Put {path} in place of theirs, and start them\n\
             again, one after the other: until then no other key is replaced."
        )?;
    }
    writeln!(
        out,
        "\n{shown} is the old one. Backups made until now open with nothing else: keep it with them, away\n\
         from here, or make a new backup and destroy it: shred -u {shown}\n\
         If somebody had the old one and a copy of keys.json, replace the keys too: card4e keys rotate"
    )?;
    Ok(())
}

fn rotate(place: &Place, groups: &[KeyGroup], json: bool) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    let began = Instant::now();
    let mut answering = Answering::of(place)?;
    let bar = bar();
    let follow = |answering: &mut Answering| -> anyhow::Result<RotationStatus> {
        let mut told = answering.ask(Request::RotateKeys { groups: groups.to_vec() })?;
        loop {
            let is: RotationStatus = serde_json::from_value(told)?;
            bar.set_length(is.accounts);
            bar.set_position(is.rewrapped);
            if !is.is_running {
                return Ok(is);
            }
            std::thread::sleep(PAUSE);
            told = answering.ask(Request::KeyRotation)?;
        }
    };
    let is = follow(&mut answering);
    bar.finish_and_clear();
    answering.stop();
    let is = is?;
    if let Some(error) = &is.error {
        bail!("{error}");
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", json!(is))?;
        return Ok(());
    }
    if is.is_resumed {
        writeln!(out, "A rotation that was interrupted has come to its end.")?;
    } else {
        let words: Vec<_> = groups.iter().map(|group| group.word()).collect();
        writeln!(out, "Replaced: {}.", words.join(", "))?;
    }
    if is.rewrapped > 0 {
        let rows = HumanCount(is.rewrapped);
        let seconds = began.elapsed().as_secs_f64();
        writeln!(out, "{rows} accounts are under the new keys, each was checked; {seconds:.1} s.")?;
    }
    writeln!(out, "`card4e keys list` shows what each version still does.")?;
    Ok(())
}

fn bar() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(5),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {human_pos} accounts, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
