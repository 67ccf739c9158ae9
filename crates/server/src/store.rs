//! `card4e store`: moving an installation between the files of one machine and a database that nodes share.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Subcommand;
use engine::store::{Copied, CopyProgress, StorePlace};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::config::{Custody, Settings};
use crate::custody::{self, RootKey};
use crate::table::count;

/// `card4e store`
#[derive(Subcommand)]
pub enum Command {
    /// Copy an installation from its files into a database that nodes share, or back.
    ///
    /// Everything goes: accounts, callers, balances, the ledger with its audit tree, stored answers, today's
    /// attempts, people and orders, the key ring. No server may run on FROM, nor a node on TO. What was copied is
    /// read back and held against the original; from then on only the copy is served. Interrupted, the same
    /// command goes on.
    #[command(after_help = "\
FROM and TO are settings files; one of them names a database (server.store). Both need the same root key, and a data
folder each. The first node is the one that TO names (server.node); its audit tree goes on from the files'.

Examples:
  sed -e 's|^store = \"\"|store = \"postgres://card4e@db.example.com/card4e\"|' \\
      -e 's|^data = \"data\"|data = \"node\"|' bank/card4e.toml > bank/node.toml
  card4e store copy bank/card4e.toml bank/node.toml
  card4e serve --config bank/node.toml

  card4e store copy bank/node.toml bank/files.toml    back, while only that one node has written to the database

The originals are not removed: that is for you to do, once the copy has been backed up.")]
    Copy {
        /// The settings file of the installation.
        from: PathBuf,
        /// The settings file it is to have from then on; its database or data folder is empty.
        to: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of them.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Copy { from, to, json } = command;
    let (original, copy) = (Configured::read(from)?, Configured::read(to)?);
    ensure!(
        original.folder() != copy.folder(),
        "both settings files name the data folder {}: give each one of its own (server.data)",
        original.folder().display()
    );
    let root = copy.root_key_like(&original)?;
    let bar = bar();
    let mut show = |is: CopyProgress| {
        bar.set_message(is.what);
        bar.set_length(is.all);
        bar.set_position(is.done);
    };
    let copied = engine::store::copy(&original.place, &copy.place, &root, &mut show);
    bar.finish_and_clear();
    let copied = copied?;
    let mut out = std::io::stdout().lock();
    let (before, after) = (original.shown(), copy.shown());
    match (&copied, json) {
        (copied, true) => {
            writeln!(out, "{}", json!({ "from": before, "to": after, "copied": copied }))?;
        }
        (None, false) => {
            writeln!(out, "There is nothing to do: {before} was copied to {after}, and goes on there.")?;
        }
        (Some(copied), false) => {
            writeln!(out, "{before} is copied to {after}; all of it was read back and is the same.\n")?;
            print(copied, &mut out)?;
            writeln!(out, "\nNext:\n\n  card4e serve --config {}", to.display())?;
            writeln!(out, "\n{before} is not served any more. Remove it when the copy has been backed up.")?;
        }
    }
    Ok(())
}

fn print(copied: &Copied, out: &mut dyn Write) -> std::io::Result<()> {
    let Copied { audit, accounts, accounts_digest, platform_rows, balances, credits } = copied;
    let mut line = |name: &str, what: String| writeln!(out, "  {name:<16} {what}");
    line("accounts", count(*accounts, "account", "accounts"))?;
    let answers = count(audit.answers, "answer", "answers");
    let checkpoints = count(audit.checkpoints, "signed checkpoint", "signed checkpoints");
    line("ledger", format!("{}, {answers}, {checkpoints}", count(audit.entries, "entry", "entries")))?;
    line(
        "balances",
        format!("{}, {credits} credits in all", count(*balances, "application", "applications")),
    )?;
    line("platform", format!("{} of people, orders, vouchers", count(*platform_rows, "row", "rows")))?;
    line("audit root", audit.root.clone())?;
    line("accounts digest", accounts_digest.clone())
}

/// A settings file, and what it says of where things are kept.
struct Configured {
    settings: Settings,
    base: PathBuf,
    place: StorePlace,
}

impl Configured {
    fn read(config: &Path) -> anyhow::Result<Configured> {
        let settings = Settings::read(config)?;
        let base = config.parent().unwrap_or(Path::new("")).to_owned();
        let folder = base.join(&settings.server.data);
        let place = match crate::shared::store(&settings.server, &base)? {
            None => StorePlace::Files(folder),
            Some(store) => StorePlace::Shared(store, folder),
        };
        Ok(Configured { settings, base, place })
    }

    fn folder(&self) -> &Path {
        let (StorePlace::Files(folder) | StorePlace::Shared(_, folder)) = &self.place;
        folder
    }

    fn shown(&self) -> String {
        match &self.place {
            StorePlace::Files(folder) => folder.display().to_string(),
            StorePlace::Shared(store, _) => store.database.to_string(),
        }
    }

    /// The root key, which must be that of the other one too.
    fn root_key_like(&self, original: &Configured) -> anyhow::Result<RootKey> {
        let root = custody::root_key(&original.settings, &original.base)?;
        // What a person has to open is asked for once: another root key is told at the first start.
        let is_plain = matches!(self.settings.keys.custody, Custody::File | Custody::Environment);
        if is_plain {
            let other = custody::root_key(&self.settings, &self.base)
                .context("the copy needs the same root key as the original")?;
            ensure!(*root == *other, "the two settings files have different root keys: give both the same");
        }
        Ok(root)
    }
}

fn bar() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(5),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{spinner} {msg}  {human_pos}/{human_len}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
