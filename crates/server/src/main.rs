//! The binary: reads the command line, puts the parts together, runs.

mod cli;
mod config;
mod front;
mod http;
mod sandbox;
mod telemetry;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use clap::{CommandFactory, Parser};
use engine::Engine;
use engine::store::{Check, LedgerFile, Listed};
use engine::vault::{KeyRing, Vault};

use crate::cli::{Audit, Cli, Command, Data, Ledger};
use crate::config::Settings;
use crate::front::Server;
use crate::sandbox::{PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN, Sandbox};

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let done = match cli.command {
        Command::Sandbox(options) => run_sandbox(&options),
        Command::Audit(Audit::Check(data)) => check_audit(&data),
        Command::Ledger(Ledger::List(data)) => list_ledger(&data),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "card4e", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if even this cannot be written.
            let _ = writeln!(std::io::stderr(), "card4e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_sandbox(options: &cli::Sandbox) -> anyhow::Result<()> {
    ensure!(
        options.listen.ip().is_loopback() || options.expose_test_keys_to_the_network,
        "{} can be reached by others, and a sandbox lets everybody in who knows its public test keys; \
         listen on 127.0.0.1, or add --expose-test-keys-to-the-network if that is what you want",
        options.listen.ip()
    );
    let settings = options.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let listener = http::listen(options.listen)?;
    let address = listener.local_addr()?;
    let temporary = match &options.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("card4e-sandbox-").tempdir()?),
    };
    let folder =
        options.data.as_deref().or(temporary.as_ref().map(|dir| dir.path())).unwrap_or(Path::new("."));
    let running = Engine::open(
        folder,
        &sandbox::ROOT_KEY,
        settings.sandbox_policy()?,
        settings.issuers()?,
        sandbox::seeded_callers(),
    )?;
    let server = Arc::new(Server {
        engine: Arc::clone(&running.engine),
        language: settings.default_language()?,
        metrics: telemetry::Metrics::default(),
        sandbox: Some(Sandbox::new(options.seed)),
        connections: http::connection_bound(settings.http.connections_max),
        port: address.port(),
        diagnoses: Mutex::default(),
        settings,
    });
    if let Some(sandbox) = &server.sandbox {
        sandbox.store_seeded(&server)?;
    }
    let cores = options.cores.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let cores = http::Cores::start(&server, cores.clamp(1, 1024))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let until = told_to_stop()?;
        greet(address, options.data.as_deref())?;
        if let Some(file) = &options.ready_file {
            write_ready_file(file, address)?;
        }
        cores.accept(&server, listener, until).await
    })?;
    running.stop();
    Ok(())
}

/// Ready when the terminal or the supervisor asks to stop.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
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

fn greet(address: SocketAddr, data: Option<&Path>) -> anyhow::Result<()> {
    let base = format!("http://{address}");
    let kept = match data {
        Some(folder) => format!("kept in {}", folder.display()),
        None => "in a temporary folder, gone at the end (--data DIR keeps it)".to_owned(),
    };
    writeln!(
        std::io::stdout(),
        "\
card4e sandbox answers on {base}

  Tencent wire  endpoint   {address}  (scheme http)
                SecretId   {PUBLIC_SECRET_ID}
                SecretKey  {PUBLIC_SECRET_KEY}
  AceData wire  endpoint   {base}/identity/bankcard/check-4e
                token      {PUBLIC_TOKEN}
  Browser       {base}/  (all test keys, one card for every code)
  Ledger        {kept}

Try it:

{}

Stop with Ctrl-C.",
        cli::curl_line(&base)
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

fn sandbox_vault(folder: &Path) -> anyhow::Result<Vault> {
    ensure!(folder.join("ledger.db").exists(), "{} has no ledger; is it a data folder?", folder.display());
    let ring = KeyRing::open_or_create(&folder.join("keys.json"), &sandbox::ROOT_KEY)?;
    Ok(Vault::new(&ring))
}

fn check_audit(data: &Data) -> anyhow::Result<()> {
    let vault = sandbox_vault(&data.data)?;
    let check = LedgerFile::check(&data.data.join("ledger.db"), &vault)?;
    let mut out = std::io::stdout().lock();
    if data.json {
        writeln!(out, "{}", serde_json::to_string(&check)?)?;
        return Ok(());
    }
    let Check { blocks, entries, answers, charges, charged, erased, checkpoints, root } = check;
    writeln!(out, "The audit holds.\n")?;
    writeln!(out, "  {entries} entries in {blocks} blocks, {erased} with their side row erased")?;
    writeln!(out, "  {answers} answers, {charges} of them charged {charged} credits in all")?;
    writeln!(out, "  {checkpoints} signed checkpoints")?;
    writeln!(out, "  root {root}")?;
    Ok(())
}

fn list_ledger(data: &Data) -> anyhow::Result<()> {
    sandbox_vault(&data.data)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut failed = Ok(());
    if !data.json {
        writeln!(
            out,
            "{:<24} {:<36} {:<8} {:<18} {:>8}",
            "time (UTC)", "request id", "wire", "outcome", "credits"
        )?;
    }
    LedgerFile::list(&data.data.join("ledger.db"), |listed| {
        if failed.is_ok() {
            failed = print_listed(&mut out, &listed, data.json);
        }
    })?;
    failed.and_then(|()| Ok(out.flush()?))
}

fn print_listed(out: &mut impl Write, listed: &Listed, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(listed)?)?;
        return Ok(());
    }
    let at = engine::clock::utc_text(listed.at_ms);
    let Listed { request_id, wire, outcome, charged, .. } = listed;
    writeln!(out, "{at:<24} {request_id:<36} {wire:<8} {outcome:<18} {charged:>8}")?;
    Ok(())
}
