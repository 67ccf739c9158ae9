//! The root key under a PKCS#11 token: SoftHSM2, where it is installed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::serve::error;
use super::support::Sandbox;

const PIN: &str = "135790";

/// SoftHSM2 with one token, in a folder of its own.
struct Hsm {
    folder: TempDir,
    module: PathBuf,
}

impl Hsm {
    /// Nothing, loudly, where SoftHSM2 is not installed; a failure where nothing may be left out.
    fn new() -> Option<Hsm> {
        let places =
            ["/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm"];
        let found =
            places.iter().map(|place| Path::new(place).join("libsofthsm2.so")).find(|path| path.exists());
        let Some(module) = found else {
            assert!(
                std::env::var_os("CARD4E_REQUIRE_ALL").is_none(),
                "SoftHSM2 is missing: apt-get install softhsm2"
            );
            // Written past the test harness, which keeps to itself what a test prints.
            let said = "SKIPPED: the root key under a PKCS#11 token; apt-get install softhsm2, or ./test\n";
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        };
        let hsm = Hsm { folder: tempfile::tempdir().unwrap(), module };
        std::fs::create_dir(hsm.folder.path().join("tokens")).unwrap();
        hsm.with_mechanisms("ALL");
        hsm.token("bank");
        Some(hsm)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    fn with_mechanisms(&self, mechanisms: &str) {
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nslots.mechanisms = {mechanisms}\n",
            self.folder.path().join("tokens").display()
        );
        std::fs::write(self.configuration(), text).unwrap();
    }

    fn token(&self, label: &str) {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "97531000"])
            .env("SOFTHSM2_CONF", self.configuration())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", error(&made));
    }

    fn command(&self, arguments: &[&str], pin: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_card4e"));
        command.args(arguments).env("SOFTHSM2_CONF", self.configuration()).stdin(Stdio::null());
        if let Some(pin) = pin {
            command.env("CARD4E_PIN", pin);
        }
        command
    }

    fn card4e(&self, arguments: &[&str], pin: Option<&str>) -> Output {
        self.command(arguments, pin).output().unwrap()
    }

    /// A new installation that this token opens.
    fn init(&self, name: &str) -> (Output, Bank<'_>) {
        let bank = self.folder.path().join(name);
        let module = self.module.to_str().unwrap();
        let arguments = ["init", bank.to_str().unwrap(), "--custody", "pkcs11", "--pkcs11-module", module];
        let made = self.card4e(&[&arguments[..], &["--pkcs11-token", "bank"]].concat(), Some(PIN));
        (made, Bank { hsm: self, config: bank.join("card4e.toml") })
    }
}

struct Bank<'a> {
    hsm: &'a Hsm,
    config: PathBuf,
}

impl Bank<'_> {
    fn card4e(&self, arguments: &[&str], pin: Option<&str>) -> Output {
        self.hsm.card4e(&[arguments, &["--config", self.config.to_str().unwrap()]].concat(), pin)
    }

    /// Runs a command that must succeed.
    fn done(&self, arguments: &[&str]) -> String {
        let done = self.card4e(arguments, Some(PIN));
        assert!(done.status.success(), "{arguments:?}: {}", error(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs a command that must fail, with an error that says this.
    fn refused(&self, arguments: &[&str], pin: Option<&str>, says: &str) {
        let done = self.card4e(arguments, pin);
        let said = error(&done);
        assert!(!done.status.success() && said.contains(says), "{arguments:?}: {said}");
    }

    fn set(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    fn root(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.config.with_file_name("root.token")).unwrap()).unwrap()
    }
}

/// From `init` on nothing but the token opens the installation, and a server starts with it, or waits for
/// the PIN, and lets go of it.
#[test]
fn a_token_keeps_the_root_key() {
    let Some(hsm) = Hsm::new() else { return };
    let (made, bank) = hsm.init("bank");
    assert!(made.status.success(), "{}", error(&made));
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(said.contains("sealed by a new AES-256 key `card4e-root` of the token `bank`"), "{said}");
    assert!(!bank.config.with_file_name("root.key").exists());
    assert_eq!((&bank.root()["mechanism"], &bank.root()["key"]), (&"aes-gcm".into(), &"card4e-root".into()));
    bank.done(&["accounts", "check"]);
    bank.refused(
        &["accounts", "check"],
        None,
        "the variable CARD4E_PIN or the systemd credential card4e-pin",
    );

    // A server that is given the PIN starts; while it answers, nobody else needs the PIN.
    bank.set("127.0.0.1:4400", "127.0.0.1:0");
    bank.set("test_land = false", "test_land = true");
    let ready = hsm.folder.path().join("ready");
    let config = bank.config.to_str().unwrap();
    let mut server = hsm
        .command(&["serve", "--config", config, "--ready-file", ready.to_str().unwrap()], Some(PIN))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !ready.exists() {
        assert!(began.elapsed() < Duration::from_secs(30) && server.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    for command in [&["caller", "create", "shop"][..], &["keys", "list"], &["keys", "rotate", "side"]] {
        let done = bank.card4e(command, None);
        assert!(done.status.success(), "{command:?}: {}", error(&done));
    }
    // The root key is replaced under the server, which goes on with the new one.
    bank.done(&["keys", "seal"]);
    std::fs::remove_file(bank.config.with_file_name("root.token.old")).unwrap();
    let done = bank.card4e(&["keys", "rotate", "side"], None);
    assert!(done.status.success(), "{}", error(&done));
    server.kill().unwrap();
    server.wait().unwrap();
    bank.done(&["accounts", "check"]);
}

#[test]
fn a_locked_server_takes_the_pin() {
    let Some(hsm) = Hsm::new() else { return };
    let (_, bank) = hsm.init("bank");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    bank.set("127.0.0.1:4400", &port);
    let configuration = hsm.configuration();
    let server =
        Sandbox::locked_with(&bank.config, &port, &[("SOFTHSM2_CONF", configuration.to_str().unwrap())]);
    assert_eq!(server.get("/readyz").json()["locked"], true);
    bank.refused(&["unseal"], Some("000000"), "refuses the PIN");
    bank.done(&["unseal"]);
    let began = Instant::now();
    let asked = server.bytes("GET", "/readyz", &[], b"");
    while !server.try_send(&asked).is_ok_and(|reply| reply.json()["ready"] == true) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    server.stop();
}

/// From a plain file to the token, to another key of it, and back; each time it opens or says why not.
#[test]
fn the_root_key_moves_to_a_token_and_between_its_keys() {
    let Some(hsm) = Hsm::new() else { return };
    let folder = hsm.folder.path().join("bank");
    assert!(hsm.card4e(&["init", folder.to_str().unwrap()], None).status.success());
    let bank = Bank { hsm: &hsm, config: folder.join("card4e.toml") };
    bank.refused(&["keys", "seal", "--to", "pkcs11"], Some(PIN), "keys.pkcs11_module is not set");
    let module = format!("pkcs11_module = \"{}\"", hsm.module.display());
    bank.set("# pkcs11_module = \"/usr/lib/softhsm/libsofthsm2.so\"", &module);
    let said = bank.done(&["keys", "seal", "--to", "pkcs11"]);
    assert!(said.contains("custody = \"pkcs11\"") && said.contains("shred -u"), "{said}");
    bank.set("custody = \"file\"", "custody = \"pkcs11\"");
    std::fs::remove_file(folder.join("root.key")).unwrap();
    bank.done(&["accounts", "check"]);

    // Another key of the token, and a new root key with it.
    let ring = std::fs::read(folder.join("data/keys.json")).unwrap();
    bank.set("pkcs11_key = \"card4e-root\"", "pkcs11_key = \"second\"");
    bank.done(&["accounts", "check"]);
    let said = bank.done(&["keys", "seal"]);
    assert!(said.contains("a new AES-256 key `second`"), "{said}");
    assert_eq!(bank.root()["key"], "second");
    bank.done(&["accounts", "check"]);
    bank.refused(&["keys", "seal"], Some(PIN), "put it where the backups are that need it");
    // The old file opens the old ring, and not the new one.
    let new = std::fs::read(folder.join("root.token")).unwrap();
    let old = std::fs::read(folder.join("root.token.old")).unwrap();
    std::fs::write(folder.join("root.token"), &old).unwrap();
    bank.refused(&["accounts", "check"], Some(PIN), "was sealed by another root key");
    let now = std::fs::read(folder.join("data/keys.json")).unwrap();
    std::fs::write(folder.join("data/keys.json"), ring).unwrap();
    bank.done(&["accounts", "check"]);
    std::fs::write(folder.join("data/keys.json"), now).unwrap();
    std::fs::write(folder.join("root.token"), new).unwrap();

    // A changed file does not open, nor one whose key is gone.
    let text = std::fs::read_to_string(folder.join("root.token")).unwrap();
    std::fs::write(folder.join("root.token"), text.replace("\"second\"", "\"card4e-root\"")).unwrap();
    bank.refused(&["accounts", "check"], Some(PIN), "does not open the root key");
    std::fs::write(folder.join("root.token"), text.replace("\"second\"", "\"third\"")).unwrap();
    bank.refused(&["accounts", "check"], Some(PIN), "has no AES key `third`, which sealed the root key");
    std::fs::write(folder.join("root.token"), &text).unwrap();

    bank.done(&["keys", "seal", "--to", "file"]);
    bank.set("custody = \"pkcs11\"", "custody = \"file\"");
    assert!(bank.card4e(&["accounts", "check"], None).status.success());
}

#[test]
fn what_is_wrong_with_a_token_is_told() {
    let Some(hsm) = Hsm::new() else { return };
    let (_, bank) = hsm.init("bank");
    let check = ["accounts", "check"];
    bank.refused(&check, Some("000000"), "the token `bank` refuses the PIN");
    bank.set("pkcs11_token = \"bank\"", "pkcs11_token = \"vault\"");
    bank.refused(&check, Some(PIN), "there is no token `vault`, there is `bank` in slot ");
    bank.set("pkcs11_token = \"vault\"", "# pkcs11_token = \"vault\"");
    bank.done(&check);
    hsm.token("other");
    bank.refused(&check, Some(PIN), "several tokens would do");
    let module = hsm.module.display().to_string();
    bank.set(&module, "/nowhere/token.so");
    bank.refused(&check, Some(PIN), "/nowhere/token.so is not there; install the software of the token");
    bank.set("/nowhere/token.so", "card4e.toml");
    bank.refused(&check, Some(PIN), "cannot be loaded as a PKCS#11 library");
}

/// Tokens without AES-GCM wrap the root key; a key made for one is not of use for the other.
#[test]
fn a_token_without_gcm_wraps() {
    let Some(hsm) = Hsm::new() else { return };
    hsm.with_mechanisms("CKM_AES_KEY_GEN,CKM_AES_KEY_WRAP,CKM_SHA256");
    let (made, bank) = hsm.init("bank");
    assert!(made.status.success(), "{}", error(&made));
    assert_eq!(bank.root()["mechanism"], "aes-key-wrap");
    bank.done(&["accounts", "check"]);
    bank.done(&["keys", "seal"]);
    bank.done(&["accounts", "check"]);
    let mut root = bank.root();
    let sealed = root["sealed"].as_str().unwrap().replace(['0', '1'], "2");
    root["sealed"] = sealed.into();
    let path = bank.config.with_file_name("root.token");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, root.to_string()).unwrap();
    bank.refused(&["accounts", "check"], Some(PIN), "does not open the root key");
    std::fs::write(&path, good).unwrap();

    hsm.with_mechanisms("ALL");
    bank.done(&["accounts", "check"]);
    std::fs::remove_file(bank.config.with_file_name("root.token.old")).unwrap();
    bank.refused(
        &["keys", "seal"],
        Some(PIN),
        "does not encrypt with that key; name another one in keys.pkcs11_key",
    );
    hsm.with_mechanisms("CKM_SHA256,CKM_SHA512");
    let (made, _) = hsm.init("another");
    assert!(error(&made).contains("has neither AES-GCM nor AES key wrap"), "{}", error(&made));
    assert!(!hsm.folder.path().join("another").exists(), "nothing is left behind");
}
