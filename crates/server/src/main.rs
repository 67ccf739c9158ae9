//! The binary: reads the command line, puts the parts together, runs.

mod accounts;
mod audit;
mod backup;
mod bench;
mod bulk;
mod cli;
mod config;
mod console;
mod custody;
mod doctor;
mod front;
mod http;
mod import;
mod installation;
mod issuers;
mod keys;
mod ledger;
mod limiter;
mod locked;
mod manage;
mod person;
mod pkcs11;
mod platform;
mod process;
mod provider;
mod receipt;
mod reconcile;
mod register;
mod reload;
mod replay;
mod sandbox;
mod serve;
mod shared;
mod store;
mod subject;
mod synth;
mod table;
mod telemetry;
mod tls;
mod upstream;
mod verify;
mod verify_file;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{CommandFactory, Parser};
use engine::Engine;
use engine::clock::Clock;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{Cli, Command};
use crate::config::Settings;
use crate::front::Server;
use crate::front::envelopes;
use crate::sandbox::{PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN, Sandbox};
use crate::serve::LogFormat;
use crate::tls::Tls;
use crate::tls::dev_ca::{self, DevCa};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(matches!(&cli.command, Command::Serve(options) if options.log_format == LogFormat::Json));
    if let Err(error) = process::hide_memory() {
        tracing::warn!(%error, "this system does not let card4e forbid core dumps: keys could be in one");
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done if even this cannot be written.
            let _ = writeln!(std::io::stderr(), "card4e: {error:#}");
            ExitCode::from(if error.is::<import::Unusable>() { 2 } else { 1 })
        }
    }
}

fn start_log(json: bool) {
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    // It complains of each mechanism of a token that it has no name for; our errors tell the rest.
    let quiet = Targets::new().with_default(LevelFilter::INFO).with_target("cryptoki", LevelFilter::OFF);
    if json {
        log.json().flatten_event(true).finish().with(quiet).init()
    } else {
        log.finish().with(quiet).init()
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Sandbox(options) => run_sandbox(&options)?,
        Command::Init(options) => serve::init(&options)?,
        Command::Serve(options) => serve::serve(&options)?,
        // The one command whose exit code tells more than whether it worked.
        Command::Verify(options) => return verify::run(&options),
        Command::VerifyFile(options) => as_far_as_read(verify_file::run(&options))?,
        Command::Caller(command) => register::caller(command)?,
        Command::Credential(command) => register::credential(command)?,
        Command::Person(command) => person::run(&command)?,
        Command::Import(what) => import::run(&what)?,
        Command::Accounts(command) => accounts::run(&command)?,
        Command::Issuers(command) => as_far_as_read(issuers::run(&command))?,
        Command::Synth(options) => synth::run(&options)?,
        Command::Keys(command) => keys::run(command)?,
        Command::Unseal(options) => locked::unseal(&options)?,
        Command::Subject(command) => subject::run(command)?,
        Command::Receipt(command) => receipt::run(&command)?,
        Command::Audit(command) => as_far_as_read(audit::run(&command))?,
        Command::Ledger(command) => as_far_as_read(ledger::run(&command))?,
        Command::Provider(command) => as_far_as_read(provider::run(&command))?,
        Command::Reconcile(options) => return Ok(agreed(reconcile::run(&options)?)),
        Command::Replay(options) => return Ok(agreed(replay::run(&options)?)),
        Command::Backup(options) => backup::backup(&options)?,
        Command::Restore(options) => backup::restore(&options)?,
        Command::Store(command) => store::run(&command)?,
        Command::Bench(options) => bench::run(&options)?,
        Command::Doctor(options) => doctor::run(&options)?,
        Command::Tls(cli::Tls::DevCa { out, names }) => make_dev_ca(&out, &names)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "card4e", &mut std::io::stdout());
        }
        Command::Man { out } => write_man_pages(&out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of a comparison.
fn agreed(agrees: bool) -> ExitCode {
    ExitCode::from(if agrees { 0 } else { 3 })
}

/// A reader of the output that has seen enough, such as `head`, is no error.
fn as_far_as_read(done: anyhow::Result<()>) -> anyhow::Result<()> {
    let unread = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    match done {
        Err(error) if error.downcast_ref().is_some_and(unread) => Ok(()),
        done => done,
    }
}

fn run_sandbox(options: &cli::Sandbox) -> anyhow::Result<()> {
    ensure!(
        options.listen.ip().is_loopback() || options.expose_test_keys_to_the_network,
        "{} can be reached by others, and a sandbox lets everybody in who knows its public test keys; \
         listen on 127.0.0.1, or add --expose-test-keys-to-the-network if that is what you want",
        options.listen.ip()
    );
    let announced =
        Announced { ready_file: options.ready_file.as_deref(), cores: options.cores, settings: None };
    announced.forget();
    let settings = options.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let limiter = settings.limits.target()?;
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    let temporary = match &options.data {
        Some(_) => None,
        None => {
            // Nobody waits for it.
            std::thread::spawn(remove_abandoned);
            Some(tempfile::Builder::new().prefix(TEMPORARY).tempdir()?)
        }
    };
    let folder =
        options.data.as_deref().or(temporary.as_ref().map(|dir| dir.path())).unwrap_or(Path::new("."));
    let tls = Tls::for_sandbox(options, &settings.tls, folder, address)?.map(Arc::new);
    let running = Engine::open(
        folder,
        &sandbox::ROOT_KEY,
        settings.sandbox_policy()?,
        settings.issuers()?,
        sandbox::seeded_callers(),
        None,
    )?;
    let server = Arc::new(Server {
        engine: Arc::clone(&running.engine),
        metrics: telemetry::Metrics::default(),
        sandbox: Some(Sandbox::new(options.seed)),
        envelopes: envelopes::Current::of_sandbox(),
        tls,
        room: http::body_room(),
        connections: http::connection_bound(process::allow_connections(settings.http.connections_max)),
        port: address.port(),
        diagnoses: Mutex::default(),
        guesses: platform::password::Guesses::default(),
        checking: console::Checking::default(),
        limiter: Arc::new(limiter::Shared::new(limiter)),
        settings: RwLock::new(Arc::new(settings)),
    });
    if let Some(sandbox) = &server.sandbox {
        sandbox.store_seeded(&server)?;
    }
    answer_until_told(&server, listener, announced, || greet(&server, address, options.data.as_deref()))?;
    running.stop();
    Ok(())
}

/// What the temporary folder of a sandbox is called.
const TEMPORARY: &str = "card4e-sandbox-";

/// Removes the folders of sandboxes that were killed: nobody holds their lock any more.
fn remove_abandoned() {
    const BEING_MADE: Duration = Duration::from_secs(60);
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for folder in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        let age = folder.metadata().and_then(|about| about.modified()).ok();
        let lock = std::fs::File::open(folder.path().join("lock"));
        let is_old = age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > BEING_MADE);
        if is_old && lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // Another sandbox may be removing it too.
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// How a server starts, apart from what it answers.
pub struct Announced<'a> {
    /// Its address goes here once it answers.
    pub ready_file: Option<&'a Path>,
    /// Threads; by default one for each core.
    pub cores: Option<usize>,
    /// A settings file that `SIGHUP` reads again.
    pub settings: Option<&'a Path>,
}

impl Announced<'_> {
    /// Removes the address of a server that does not answer: an earlier one's at the start, ours at the end.
    pub fn forget(&self) {
        if let Some(file) = self.ready_file {
            // It is most likely not there.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Answers until a signal asks to stop, then drains.
pub fn answer_until_told(
    server: &Arc<Server>,
    listener: std::net::TcpListener,
    announced: Announced<'_>,
    greet: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let cores = http::Cores::start(server, announced.cores.unwrap_or_else(all).clamp(1, 1024))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anybody is told that it answers, and may want it to stop.
        let until = told_to_stop()?;
        match (announced.settings, &server.tls) {
            (Some(config), _) => {
                tokio::spawn(reload::on_hangup(Arc::clone(server), config.to_owned())?);
            }
            // A sandbox has no settings to read again, but perhaps a certificate.
            (None, Some(tls)) => {
                tokio::spawn(tls::on_hangup(Arc::clone(tls))?);
            }
            (None, None) => {}
        }
        greet()?;
        if let Some(file) = announced.ready_file {
            write_ready_file(file, address)?;
        }
        let done = cores.accept(server, listener, until).await;
        announced.forget();
        done
    })
}

/// Ready when the terminal or the supervisor asks to stop.
pub fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn greet(server: &Server, address: SocketAddr, data: Option<&Path>) -> anyhow::Result<()> {
    let scheme = server.scheme();
    let base = format!("{scheme}://{address}");
    let ca = server.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let trust = ca.map_or(String::new(), |ca| {
        format!("\nWhat makes each client trust its certificate:\n\n{}", dev_ca::trust(ca))
    });
    let kept = match data {
        Some(folder) => format!("kept in {}", folder.display()),
        None => "in a temporary folder, gone at the end (--data DIR keeps it)".to_owned(),
    };
    writeln!(
        std::io::stdout(),
        "\
card4e sandbox answers on {base}

  Tencent wire  endpoint   {address}  (scheme {scheme})
                SecretId   {PUBLIC_SECRET_ID}
                SecretKey  {PUBLIC_SECRET_KEY}
  AceData wire  endpoint   {base}/identity/bankcard/check-4e
                token      {PUBLIC_TOKEN}
  Browser       {base}/  (all test keys, one card for every code)
  Ledger        {kept}
{trust}
Try it:

{}

Stop with Ctrl-C.",
        cli::curl_line(&base, ca)
    )?;
    Ok(())
}

fn make_dev_ca(out: &Path, names: &[String]) -> anyhow::Result<()> {
    let DevCa { ca, certificate, key } = DevCa::make(out, names, &Clock::default())?;
    let (names, days) = (dev_ca::all_names(names).join(", "), dev_ca::VALID_DAYS);
    writeln!(
        std::io::stdout(),
        "\
{ca}
  is what clients must trust. Its key was thrown away: it signed one certificate and can sign no other.
{certificate}
{key}
  are the server's certificate, for {names}, good for {days} days, and its key, for your eyes alone.

Start a sandbox with them:

  card4e sandbox --tls-certificate {certificate} --tls-key {key}

What makes each client trust it:

{trust}",
        trust = dev_ca::trust(&ca),
        ca = ca.display(),
        certificate = certificate.display(),
        key = key.display(),
    )?;
    Ok(())
}

/// In one step, so that who waits for the file never reads half an address.
fn write_ready_file(file: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&next, file))
        .with_context(|| format!("cannot write the ready file {}", file.display()))
}

fn write_man_pages(out: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write man pages to {}", out.display());
    std::fs::create_dir_all(out).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), out).with_context(failed)?;
    let shown = out.display();
    writeln!(std::io::stdout(), "The man pages are in {shown}. Read one: man {shown}/card4e.1")?;
    Ok(())
}
