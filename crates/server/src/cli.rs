//! The command line: what can be said, and help with examples.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::register::{CallerCommand, CredentialCommand};
use crate::sandbox::PUBLIC_TOKEN;
use crate::serve::{Init, Serve};

/// Self-hosted four-element bank card verification.
///
/// Verifies that card number, holder name, identity number and mobile number belong to one person,
/// for clients of Tencent Cloud (BankCard4EVerification) and AceData (bankcard/check-4e).
#[derive(Parser)]
#[command(name = "card4e", version, verbatim_doc_comment)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What card4e can do.
#[derive(Subcommand)]
pub enum Command {
    /// Run a sandbox: public test keys, made-up people, every result code on demand.
    Sandbox(Sandbox),
    /// Make an installation: settings, keys, an empty data folder, the first operator.
    Init(Init),
    /// Answer for real people, from an installation's own accounts of record.
    Serve(Serve),
    /// Ask one question on the machine itself, in a caller's name.
    Verify(crate::verify::Options),
    /// Ask every row of a file, in a caller's name.
    VerifyFile(crate::verify_file::Options),
    /// Look after callers: who may ask, and what they have left.
    #[command(subcommand)]
    Caller(CallerCommand),
    /// Look after credentials: make, list, rotate, revoke.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Look after people who log in to the console: list, invite, let them choose another password.
    #[command(subcommand)]
    Person(crate::person::Command),
    /// Load accounts of record from a file.
    #[command(subcommand)]
    Import(crate::import::What),
    /// Look at, add, change or remove one account of record; check all of them.
    #[command(subcommand)]
    Accounts(crate::accounts::Command),
    /// Check a file of issuers, and hold it against the built-in table.
    #[command(subcommand)]
    Issuers(crate::issuers::Command),
    /// Make accounts of people who do not exist, to try out and to measure with.
    Synth(crate::synth::Options),
    /// Check receipts of the native API.
    #[command(subcommand)]
    Receipt(crate::receipt::Command),
    /// Look after keys: list and replace them.
    #[command(subcommand)]
    Keys(crate::keys::Command),
    /// Give a locked server its passphrase, or the PIN of its token.
    Unseal(crate::locked::Unseal),
    /// Erase people.
    #[command(subcommand)]
    Subject(crate::subject::Command),
    /// Check the audit tree, and give evidence that others can check.
    #[command(subcommand)]
    Audit(crate::audit::Command),
    /// Read the ledger: who asked, what was answered, what it cost.
    #[command(subcommand)]
    Ledger(crate::ledger::Command),
    /// Look after the providers that are paid for answers.
    #[command(subcommand)]
    Provider(crate::provider::Command),
    /// Hold a provider's bill against the ledger.
    Reconcile(crate::reconcile::Options),
    /// Try other settings on exchanges with providers that were kept.
    Replay(crate::replay::Options),
    /// Copy keys, accounts and ledger to a folder while the server answers, and check the copy.
    Backup(crate::backup::Backup),
    /// Put a backup in place of an empty data folder, after checking all of it.
    Restore(crate::backup::Restore),
    /// Move an installation into a database that several nodes share, or back into files.
    #[command(subcommand)]
    Store(crate::store::Command),
    /// Look whether everything is as it should be, and say what to do where it is not.
    Doctor(crate::doctor::Options),
    /// Measure how fast a server answers.
    Bench(crate::bench::Options),
    /// Make certificates for trying TLS out.
    #[command(subcommand)]
    Tls(Tls),
    /// Print completions for a shell.
    ///
    /// Example: card4e completions bash > /etc/bash_completion.d/card4e
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages, one for each command.
    ///
    /// Example: card4e man --out /usr/local/share/man/man1
    Man {
        /// The folder they go to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// `card4e sandbox`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e sandbox                                      on http://127.0.0.1:4400
  card4e sandbox --listen 127.0.0.1:0 --ready-file F  any free port, its address in F
  card4e sandbox --data ./card4e-data                 keep ledger and accounts
  card4e sandbox --tls                                on https, with a certificate of its own

While it runs, a browser at / shows all test keys and cards, and /_sandbox/ controls it:
  curl -X POST http://127.0.0.1:4400/_sandbox/reset
  curl http://127.0.0.1:4400/_sandbox/journal")]
pub struct Sandbox {
    /// Where to listen; port 0 is any free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4400")]
    pub listen: SocketAddr,

    /// Write the address here once it answers.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Keep everything in this folder; without it, in a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Settings (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Seed of the fault rules' random draws.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub seed: u64,

    /// Threads that serve; by default one for each core.
    #[arg(long, value_name = "N")]
    pub cores: Option<usize>,

    /// Speak TLS with a certificate made for it; says where ca.pem is, which clients must trust.
    #[arg(long, conflicts_with_all = ["tls_certificate", "tls_key"])]
    pub tls: bool,

    /// Speak TLS with this certificate (PEM; the server's own first).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// Listen on an address that others can reach, with test keys that everybody knows.
    #[arg(long)]
    pub expose_test_keys_to_the_network: bool,
}

/// `card4e tls`
#[derive(Subcommand)]
pub enum Tls {
    /// Make a local CA and a certificate for this machine, and print how each client trusts it.
    ///
    /// For development: the CA's key is thrown away, so it can never sign anything else.
    #[command(after_help = "\
Examples:
  card4e tls dev-ca --out ./tls                        for localhost, 127.0.0.1 and ::1
  card4e tls dev-ca --out ./tls --name faceid.test     and for this name
  card4e sandbox --tls-certificate tls/server.pem --tls-key tls/server-key.pem")]
    DevCa {
        /// Where ca.pem, server.pem and server-key.pem go.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,

        /// Another name or address of the server; may be given several times.
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
}

/// A line that can be pasted and answers at once.
pub fn curl_line(base: &str, ca: Option<&Path>) -> String {
    let trusting = ca.map_or(String::new(), |ca| format!(" --cacert {}", ca.display()));
    format!(
        "curl -s{trusting} {base}/identity/bankcard/check-4e \\
  -H 'authorization: Bearer {PUBLIC_TOKEN}' \\
  -H 'content-type: application/json' \\
  -d '{{\"name\":\"韦小宝\",\"bank_card\":\"6225768888888888\",\"phone\":\"16137688175\",\"id_card\":\"11204416541220243X\"}}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
