//! Where an installation is and how it is opened: settings, data folder, root key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use engine::route::Routing;
use engine::store::postgres::Database;
use engine::store::{AccountsOfRecord, LedgerPlace, SharedStore};
use engine::vault::custody::CustodyError;
use engine::vault::{KeyRing, ListedKey, RingError, Vault};
use engine::{Engine, OpenError, Policy, Running, Seed};
use zeroize::Zeroizing;

use crate::config::{Secrets, Settings};
use crate::custody::{Kept, Secret};
use crate::manage::{Answering, Hidden, Request};
use crate::sandbox;

/// Which installation a command is about.
#[derive(Args, Clone)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// The settings file of an installation.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    pub config: Option<PathBuf>,

    /// The data folder of a sandbox.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// An installation as its settings describe it.
pub struct Installation {
    /// The data folder.
    pub folder: PathBuf,
    /// Keys at work.
    pub vault: Vault,
    /// Every version of every key, without its value.
    pub keys: Vec<ListedKey>,
    /// How it verifies, counts and charges.
    pub policy: Policy,
    /// All settings.
    pub settings: Settings,
    /// The database that several nodes share, if it is one of them.
    pub shared: Option<SharedStore>,
    root_key: [u8; 32],
}

impl Place {
    /// The option as it was typed, to be pasted behind the next command.
    pub fn as_typed(&self) -> String {
        match (&self.config, &self.data) {
            (Some(config), _) => format!("--config {}", config.display()),
            (None, Some(data)) => format!("--data {}", data.display()),
            (None, None) => String::new(),
        }
    }

    /// The settings, without opening any key.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        match &self.config {
            Some(config) => Settings::read(config),
            None => Ok(Settings::default()),
        }
    }

    /// The data folder, without opening any key.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        match (&self.config, &self.data) {
            (Some(config), _) => {
                let server = self.settings()?.server;
                let folder = config.parent().unwrap_or(Path::new(".")).join(server.data);
                // A new node takes its keys from the database, when it opens them.
                if server.store.is_empty() { there(folder) } else { Ok(folder) }
            }
            (None, Some(folder)) => there(folder.clone()),
            (None, None) => Err(nowhere()),
        }
    }

    /// Where the ledger is, without opening any key.
    pub fn ledger(&self) -> anyhow::Result<LedgerPlace> {
        let base = self.config.as_ref().and_then(|config| config.parent()).unwrap_or(Path::new("."));
        let shared = crate::shared::store(&self.settings()?.server, base)?;
        Ok(ledger_of(&self.folder()?, shared.as_ref()))
    }

    /// Reads the settings and opens the keys. The data folder itself is not taken: a server may work in it.
    pub fn open(&self) -> anyhow::Result<Installation> {
        match (&self.config, &self.data) {
            (Some(config), _) => Installation::configured(config),
            (None, Some(folder)) => Installation::of_sandbox(folder),
            (None, None) => Err(nowhere()),
        }
    }
}

fn ledger_of(folder: &Path, shared: Option<&SharedStore>) -> LedgerPlace {
    match shared {
        None => LedgerPlace::File(folder.join("ledger.db")),
        Some(SharedStore { database, node }) => {
            LedgerPlace::Shared { database: Arc::clone(database), node: node.clone() }
        }
    }
}

/// A folder that has keys: opening the ring would make new ones, which open nothing that is there.
fn there(folder: PathBuf) -> anyhow::Result<PathBuf> {
    let keys = folder.join("keys.json");
    ensure!(
        keys.exists(),
        "{} is missing: without it nothing in the folder can be read; `card4e init DIR` makes an installation, \
         `card4e sandbox --data DIR` a sandbox's folder",
        keys.display()
    );
    Ok(folder)
}

fn is_of_other_root(error: &anyhow::Error) -> bool {
    let ring = match error.downcast_ref() {
        Some(OpenError::Ring(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    matches!(ring, Some(RingError::OtherRoot { .. } | RingError::OtherRootThere))
}

/// Whether the root key that waits to take the place of this one may be what is needed.
fn may_need_next(error: &anyhow::Error) -> bool {
    is_of_other_root(error) || matches!(error.downcast_ref(), Some(CustodyError::WrongPassphrase))
}

fn nowhere() -> anyhow::Error {
    anyhow::anyhow!("say which installation: --config FILE, or --data DIR of a sandbox")
}

impl Installation {
    /// The installation of a settings file; relative paths in it start from its folder.
    pub fn configured(config: &Path) -> anyhow::Result<Installation> {
        let settings = Settings::read(config)?;
        let base = config.parent().unwrap_or(Path::new("."));
        let kept = Kept::read(&settings, base)?;
        let secret = kept.ask()?;
        match Installation::kept_by(&kept, secret.as_ref(), &settings, base) {
            // A server sealed the ring with the next root key since that was read.
            Err(error) if is_of_other_root(&error) => {
                Installation::kept_by(&Kept::read(&settings, base)?, secret.as_ref(), &settings, base)
            }
            opened => opened,
        }
    }

    /// The same, with the root key as it was read, and what opens it.
    pub fn kept_by(
        kept: &Kept,
        secret: Option<&Secret>,
        settings: &Settings,
        base: &Path,
    ) -> anyhow::Result<Installation> {
        let opened =
            kept.open(secret).and_then(|root_key| Installation::unlocked(settings.clone(), base, &root_key));
        match opened {
            // Of several nodes this one sealed the ring that they share with its next root key, and was killed.
            Err(error) if !settings.server.store.is_empty() && may_need_next(&error) => {
                let next = kept.open_next(secret);
                match next.map(|next| Installation::unlocked(settings.clone(), base, &next)) {
                    Some(Ok(installation)) => Ok(installation),
                    _ => Err(kept.naming_next(error)),
                }
            }
            opened => opened,
        }
    }

    /// The same, from settings that were read, with the root key somebody gave.
    fn unlocked(settings: Settings, base: &Path, root_key: &[u8; 32]) -> anyhow::Result<Installation> {
        let policy = settings.serve_policy()?;
        let shared = crate::shared::store(&settings.server, base)?;
        if let Some(shared) = &shared {
            Engine::join(&base.join(&settings.server.data), shared, root_key)?;
        }
        let installation = Installation::open(base.join(&settings.server.data), *root_key, policy, settings)?;
        Ok(Installation { shared, ..installation })
    }

    fn of_sandbox(folder: &Path) -> anyhow::Result<Installation> {
        let settings = Settings::default();
        let policy = settings.sandbox_policy()?;
        Installation::open(folder.to_owned(), sandbox::ROOT_KEY, policy, settings)
    }

    fn open(
        folder: PathBuf,
        root_key: [u8; 32],
        policy: Policy,
        settings: Settings,
    ) -> anyhow::Result<Installation> {
        let folder = there(folder)?;
        let ring = KeyRing::open(&folder.join("keys.json"), &root_key)?;
        Ok(Installation {
            folder,
            vault: Vault::new(&ring),
            keys: ring.list(),
            policy,
            settings,
            shared: None,
            root_key,
        })
    }

    /// Where its ledger is.
    pub fn ledger(&self) -> LedgerPlace {
        ledger_of(&self.folder, self.shared.as_ref())
    }

    /// The accounts of record, to change some or to read all.
    pub fn accounts(&self) -> anyhow::Result<AccountsOfRecord> {
        Ok(AccountsOfRecord::open(&self.folder, self.database())?)
    }

    /// The same, to change many, alone.
    pub fn accounts_alone(&self) -> anyhow::Result<AccountsOfRecord> {
        Ok(AccountsOfRecord::open_alone(&self.folder, self.database(), &self.vault)?)
    }

    fn database(&self) -> Option<&Arc<Database>> {
        self.shared.as_ref().map(|shared| &shared.database)
    }

    /// Opens a copy of the key ring.
    pub fn ring(&self, keys: &Path) -> anyhow::Result<KeyRing> {
        Ok(KeyRing::open_or_create(keys, &self.root_key)?)
    }

    /// Seals the key ring with another root key: the running server does, or this process when none runs.
    pub fn replace_root_key(self, new: &[u8; 32]) -> anyhow::Result<()> {
        let root = Hidden(Zeroizing::new(engine::file::hex(new)));
        let mut answering = Answering::with(self)?;
        let done = answering.ask(Request::ReplaceRootKey { root });
        answering.stop();
        done.map(|_| ())
    }

    /// Takes the data folder and sets an engine to work in it. Providers whose secrets are not there are
    /// not asked.
    pub fn start(self) -> anyhow::Result<Running> {
        let routing = self.settings.routing(&self.folder, Secrets::IfThere)?;
        self.start_with(routing)
    }

    /// The same, with these providers and routes.
    pub fn start_with(self, routing: Option<Arc<Routing>>) -> anyhow::Result<Running> {
        let issuers = self.settings.issuers()?;
        let policy = Policy { routing, ..self.policy };
        Ok(Engine::open(&self.folder, &self.root_key, policy, issuers, Seed::nobody(), self.shared)?)
    }
}
