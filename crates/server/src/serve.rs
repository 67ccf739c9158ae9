//! `card4e init` and `card4e serve`: an installation that answers for real people.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::operator::By;
use engine::register::{Kind, Wish};
use engine::vault::random;
use engine::{Engine, Policy, Seed};
use zeroize::Zeroizing;

use crate::config::{Custody, Secrets, Settings};
use crate::custody::Kept;
use crate::front::{Server, envelopes};
use crate::installation::Installation;
use crate::tls::Tls;
use crate::{
    Announced, answer_until_told, custody, http, limiter, locked, manage, platform, process, sandbox, shared,
    telemetry,
};

/// The settings file as `init` writes it: every setting with its default and what it means.
pub const TEMPLATE: &str = include_str!("card4e.toml");

/// `card4e init`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e init ./bank && card4e serve --config ./bank/card4e.toml
  card4e init ./bank --custody passphrase
  card4e init ./bank --custody pkcs11 --pkcs11-module /usr/lib/softhsm/libsofthsm2.so --pkcs11-token bank
  CARD4E_STORE_PASSWORD=… card4e init ./bank --store postgres://card4e@db.example.com/card4e

With --store it is the first of several nodes; the others get its settings and its root key, and no `init`.
A passphrase or a token's PIN is asked for on the terminal, or given as docs/keys.md says. The token's key is
made if it is not there.")]
pub struct Init {
    /// The folder to make; it must not hold an installation yet.
    dir: PathBuf,

    /// Where the data goes, if not into the same folder: from there, or beginning with /.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Who keeps the root key.
    #[arg(long, value_enum, default_value = "file")]
    custody: Custody,

    /// The PKCS#11 library of the token.
    #[arg(long, value_name = "FILE", required_if_eq("custody", "pkcs11"))]
    pkcs11_module: Option<PathBuf>,

    /// Label of the token, if there are several.
    #[arg(long, value_name = "LABEL")]
    pkcs11_token: Option<String>,

    /// The database that several nodes are to share, empty as yet.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// `card4e serve`
#[derive(Args)]
#[command(after_help = "\
Example:
  card4e serve --config ./bank/card4e.toml

SIGTERM drains and stops. SIGHUP reads the settings file again; the log says what of it is in force.")]
pub struct Serve {
    /// The settings file.
    #[arg(long, value_name = "FILE", env = "CARD4E_CONFIG")]
    config: PathBuf,

    /// Write the address here once it answers.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// Threads that serve; by default one for each core.
    #[arg(long, value_name = "N")]
    cores: Option<usize>,

    /// How the log on standard error is written.
    #[arg(long, value_enum, default_value = "text", env = "CARD4E_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How a log is written. There is no line for a request, and never an element in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Makes settings, keys, an empty data folder and the first operator.
pub fn init(options: &Init) -> anyhow::Result<()> {
    let dir = &options.dir;
    let config = dir.join("card4e.toml");
    let text = options.settings();
    let Settings { keys, server, .. } = Settings::parse(&text)?;
    let root = custody::place(&keys, dir, keys.custody).context("a root key has a file")?;
    for path in [&config, &root] {
        ensure!(!path.exists(), "{} is there already; nothing was changed", path.display());
    }
    let shared = shared::store(&server, dir)?;
    if let Some(shared) = &shared {
        ensure!(
            !Engine::is_begun(shared)?,
            "this database has an installation already; give another node the settings and the root key of the first, \
             and no `init`. Nothing was changed"
        );
    }
    let root_key = Zeroizing::new(random::<32>());
    // First: a token or a passphrase that is refused leaves nothing behind.
    let (kept, how) = custody::sealed(&root_key, &keys, dir, keys.custody)?;
    engine::file::create_private_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    engine::file::write_durably(&root, kept.as_bytes())?;
    std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let settings = Settings::read(&config)?;
    let data = dir.join(&settings.server.data);
    // The log is grown by the first server, which has the time.
    let policy = Policy { log_bytes: 0, ..settings.serve_policy()? };
    let running = Engine::open(&data, &root_key, policy, Issuers::built_in(), Seed::nobody(), shared)?;
    let acting = running.engine.acting(By::Machine);
    acting.create_caller("operator", true, false, Credits::ZERO)?;
    let token = acting.issue("operator", Kind::Platform, Wish::default())?;
    running.engine.ensure_envelope_keys()?;
    running.stop();
    let config = config.display();
    writeln!(
        std::io::stdout(),
        "\
{dir} is an installation now:

  card4e.toml  every setting and what it means
  {root:<11}  opens all other keys{how}; keep a copy elsewhere: without it nothing can be read
  {shown:<11}  keys, accounts, ledger

The operator's token, shown once:

  {token}

Next:

  card4e import accounts accounts.csv --config {config}
  card4e caller create shop --config {config}
  card4e credential create shop --kind tencent --config {config}
  card4e serve --config {config}",
        dir = dir.display(),
        root = root.file_name().unwrap_or_default().to_string_lossy(),
        how = if keys.custody == Custody::File { String::new() } else { format!(" ({how})") },
        shown = options.data.as_deref().unwrap_or(Path::new("data/")).display(),
        token = token.secret,
    )?;
    Ok(())
}

impl Init {
    /// The settings file to write: the template, with what was said on the command line.
    fn settings(&self) -> String {
        let quoted = |text: String| toml::Value::from(text).to_string();
        let mut settings = TEMPLATE.to_owned();
        let mut set = |name: &str, of: &str, to: Option<String>| {
            if let Some(to) = to {
                settings = settings.replacen(of, &format!("{name} = {}", quoted(to)), 1);
            }
        };
        let path = |path: &PathBuf| path.display().to_string();
        set("data", "data = \"data\"", self.data.as_ref().map(path));
        set("store", "store = \"\"", self.store.clone());
        set("custody", "custody = \"file\"", Some(self.custody.word().into()));
        let module = "# pkcs11_module = \"/usr/lib/softhsm/libsofthsm2.so\"";
        set("pkcs11_module", module, self.pkcs11_module.as_ref().map(path));
        set("pkcs11_token", "# pkcs11_token = \"bank\"", self.pkcs11_token.clone());
        settings
    }
}

/// Serves until it is told to stop.
pub fn serve(options: &Serve) -> anyhow::Result<()> {
    let announced = Announced {
        ready_file: options.ready_file.as_deref(),
        cores: options.cores,
        settings: Some(&options.config),
    };
    announced.forget();
    let base = options.config.parent().unwrap_or(Path::new(""));
    let settings = Settings::read(&options.config)?;
    let kept = Kept::read(&settings, base)?;
    let (installation, listener, tls) = match kept.is_locked() {
        false => {
            let installation = Installation::kept_by(&kept, kept.ask()?.as_ref(), &settings, base)?;
            (installation, http::listen(settings.server.listen)?, None)
        }
        true => {
            let listener = http::listen(settings.server.listen)?;
            let tls = Tls::open(&settings.tls, base)?.map(Arc::new);
            let given = locked::until_unsealed(kept, &listener, &settings, &options.config, tls.clone())?;
            let Some(installation) = given else { return Ok(()) };
            (installation, listener, tls)
        }
    };
    let folder = installation.folder.clone();
    // Before anything is opened: what is wrong with a provider or the limiter is said at once.
    let routing = settings.routing(&folder, Secrets::Required)?;
    let limiter = settings.limits.target()?;
    let address = listener.local_addr()?;
    let running = installation.start_with(routing)?;
    refuse_test_credentials(&running.engine)?;
    running.engine.ensure_envelope_keys()?;
    if running.engine.policy().test_land {
        tracing::warn!("test land is on: identity numbers of province 99 and test cards are accepted");
    }
    warn_of_missing_element_index(&running.engine)?;
    let tls = match tls {
        Some(tls) => Some(tls),
        None => Tls::open(&settings.tls, base)?.map(Arc::new),
    };
    // First: its references are under the keys of when it was begun.
    if let Err(error) = running.engine.resume_erasure() {
        tracing::error!(%error, "an erasure that was interrupted is not gone on with; erase that card again");
    }
    if let Err(error) = running.engine.resume_rotation() {
        tracing::error!(%error, "a rotation of keys that was interrupted is not gone on with; `card4e keys rotate` does");
    }
    running.engine.keep_table()?;
    manage::listen(Arc::clone(&running.engine), &folder)?;
    let server = Arc::new(Server {
        engine: Arc::clone(&running.engine),
        metrics: telemetry::Metrics::default(),
        sandbox: None,
        envelopes: envelopes::Current::of_ring(),
        tls,
        room: http::body_room(),
        connections: http::connection_bound(process::allow_connections(settings.http.connections_max)),
        port: address.port(),
        diagnoses: Mutex::default(),
        guesses: platform::password::Guesses::default(),
        checking: crate::console::Checking::default(),
        limiter: Arc::new(limiter::Shared::new(limiter)),
        settings: RwLock::new(Arc::new(settings)),
    });
    let data = folder.display();
    answer_until_told(&server, listener, announced, || {
        let scheme = server.scheme();
        Ok(writeln!(std::io::stdout(), "card4e answers on {scheme}://{address}, data in {data}")?)
    })?;
    running.stop();
    remove_socket(&folder);
    Ok(())
}

/// A sandbox's folder cannot be opened with another root key; but keys can be copied.
/// Whoever is not in the element index is answered as if there were no such account.
fn warn_of_missing_element_index(engine: &Engine) -> anyhow::Result<()> {
    /// Enough to see it, few enough not to be felt.
    const LOOKED_AT: u32 = 1000;
    if engine.policy().element_index {
        let missing = engine.accounts_to_change()?.missing_in_element_index(LOOKED_AT)?;
        if missing > 0 {
            tracing::warn!(
                missing,
                looked_at = LOOKED_AT,
                "accounts cannot be found by identity number or mobile: import them again"
            );
        }
    }
    Ok(())
}

fn refuse_test_credentials(engine: &Engine) -> anyhow::Result<()> {
    let directory = engine.directory();
    let known = directory.signing(sandbox::PUBLIC_SECRET_ID).is_some()
        || engine.credential_of_token(sandbox::PUBLIC_TOKEN).is_some();
    ensure!(
        !known,
        "this data folder has the sandbox's public test credentials: everybody knows them; make an installation with `card4e init`"
    );
    Ok(())
}

fn remove_socket(folder: &Path) {
    // Left behind it does no harm: the next server replaces it.
    let _ = std::fs::remove_file(folder.join("control.sock"));
}
