//! `card4e keys`: every key with its versions, and replacing them while the server answers.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use engine::rotate::RotationStatus;
use engine::vault::{KeyGroup, ListedKey};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::config::{Custody, Settings};
use crate::custody;
use crate::installation::{Installation, Place};
use crate::manage::{Answering, Request};

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
    /// Seal the root key with a passphrase, or with another one.
    ///
    /// The passphrase is asked for on the terminal, or read as docs/keys.md says. Writes the file of
    /// `keys.sealed_key_file` and changes nothing else.
    #[command(after_help = "\
Example:
  card4e keys seal --config card4e.toml
  then: custody = \"passphrase\" under [keys]; see that `card4e keys list` still works; destroy root.key")]
    Seal {
        /// The settings file.
        #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
        config: PathBuf,
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
        Command::List { place, json } => list(place.open()?, json),
        Command::Seal { config } => seal(&config),
        Command::Rotate { groups, place, json } => {
            let groups = if groups.is_empty() { KeyGroup::ALL.to_vec() } else { groups };
            rotate(place.open()?, &groups, json)
        }
    }
}

fn list(installation: Installation, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", json!(installation.keys))?;
        return Ok(());
    }
    writeln!(out, "{:<16} {:>7}  {:<10} {:<21} replaced", "use", "version", "state", "created")?;
    for ListedKey { usage, version, state, created, replaced } in &installation.keys {
        let (usage, state) = (json!(usage), json!(state));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let replaced = replaced.as_deref().unwrap_or("-");
        writeln!(out, "{:<16} {version:>7}  {:<10} {created:<21} {replaced}", text(&usage), text(&state))?;
    }
    Ok(())
}

fn seal(config: &Path) -> anyhow::Result<()> {
    let settings = Settings::read(config)?;
    let base = config.parent().unwrap_or(Path::new("."));
    let root_key = custody::root_key(&settings.keys, base)?;
    // The right one, or nothing is written.
    Installation::unlocked(config, &root_key)?;
    let path = base.join(&settings.keys.sealed_key_file);
    let sealed = custody::seal(&root_key)?;
    engine::file::write_durably(&path, sealed.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let path = path.display();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{path} holds the root key, sealed. Keep a copy of it, and the passphrase, elsewhere.")?;
    if settings.keys.custody != Custody::Passphrase {
        writeln!(
            out,
            "\nNext: set custody = \"passphrase\" under [keys] in {}, see that `card4e keys list` works,\n\
             and destroy the plain root key: shred -u {}",
            config.display(),
            base.join(&settings.keys.root_key_file).display()
        )?;
    }
    Ok(())
}

fn rotate(installation: Installation, groups: &[KeyGroup], json: bool) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    let began = Instant::now();
    let mut answering = Answering::of(installation)?;
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
