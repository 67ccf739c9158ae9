//! An installation: `init`, `serve`, callers and credentials, as an operator does it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use wire::tencent::signature::JsonPost;

use super::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN, now};

/// A folder with an installation whose accounts are made-up people.
pub struct Installation {
    _folder: TempDir,
    pub config: PathBuf,
}

impl Installation {
    pub fn new(settings: &[(&str, &str)]) -> Installation {
        let folder = tempfile::tempdir().unwrap();
        let bank = folder.path().join("bank");
        let made = card4e(&["init", bank.to_str().unwrap()]);
        assert!(made.status.success(), "{}", error(&made));
        let config = bank.join("card4e.toml");
        let mut text = std::fs::read_to_string(&config).unwrap();
        for (from, to) in [("127.0.0.1:4400", "127.0.0.1:0"), ("test_land = false", "test_land = true")] {
            text = text.replace(from, to);
        }
        for (from, to) in settings {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(&config, text).unwrap();
        Installation { _folder: folder, config }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.config.parent().unwrap()
    }

    /// The settings of another node, in a folder of its own. Made before anybody serves this one.
    pub fn beside(&self, node: &str) -> PathBuf {
        let folder = self.folder().with_file_name(node);
        let copied = Command::new("cp").arg("-a").arg(self.folder()).arg(&folder).status();
        assert!(copied.unwrap().success());
        let config = folder.join("card4e.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("node = \"\"", &format!("node = \"{node}\""))).unwrap();
        config
    }

    /// Runs a command against it, which must succeed; gives its JSON.
    pub fn run(&self, arguments: &[&str]) -> Value {
        let config = ["--json", "--config", self.config.to_str().unwrap()];
        let done = card4e(&[arguments, &config].concat());
        assert!(done.status.success(), "{arguments:?}: {}", error(&done));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Runs a command that must fail; gives what it said.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let done = card4e(&[arguments, &["--config", self.config.to_str().unwrap()]].concat());
        assert!(!done.status.success());
        error(&done)
    }

    /// A caller with one credential of each wire.
    pub fn shop(&self) -> Shop {
        self.run(&["caller", "create", "shop"]);
        let signing = self.run(&["credential", "create", "shop", "--kind", "tencent"]);
        let bearer = self.run(&["credential", "create", "shop", "--kind", "acedata"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Shop {
            secret_id: text(&signing["secret_id"]),
            secret_key: text(&signing["secret"]),
            token: text(&bearer["secret"]),
        }
    }
}

pub struct Shop {
    pub secret_id: String,
    pub secret_key: String,
    pub token: String,
}

pub fn card4e(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_card4e")).args(arguments).output().unwrap()
}

/// Runs a command with something on standard input.
pub fn fed(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn error(of: &Output) -> String {
    String::from_utf8_lossy(&of.stderr).into_owned()
}

const CARD: &str = "6217000000000000012";

pub fn acedata(server: &Sandbox, token: &str, card: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let body = format!(
        r#"{{"name":"张伟","bank_card":"{card}","phone":"16100000001","id_card":"99010119610202001X"}}"#
    );
    let headers = [("authorization", bearer.as_str()), ("X-Sandbox-Outcome", "PASS")];
    server.request("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes())
}

pub fn tencent(server: &Sandbox, secret_id: &str, secret_key: &str, card: &str) -> String {
    let body = format!(
        r#"{{"Name":"张伟","BankCard":"{card}","Phone":"16100000001","IdCard":"99010119610202001X"}}"#
    );
    let post = JsonPost {
        host: &server.address,
        action: "BankCard4EVerification",
        body: body.as_bytes(),
        timestamp: now(),
    };
    let headers = post.headers(secret_id, secret_key);
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let reply = server.request("POST", "/", &headers, body.as_bytes());
    let response = &reply.json()["Response"];
    let said = response["Result"].as_str().or(response["Error"]["Code"].as_str());
    said.unwrap().to_owned()
}

#[test]
fn init_makes_an_installation_once() {
    let folder = tempfile::tempdir().unwrap();
    let bank = folder.path().join("bank");
    let made = card4e(&["init", bank.to_str().unwrap()]);
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(said.contains("platform-v1-") && said.contains("card4e serve --config"), "{said}");
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&bank.join("root.key")), 0o600);
    assert_eq!((mode(&bank), mode(&bank.join("data"))), (0o700, 0o700));
    let size = |name: &str| std::fs::metadata(bank.join("data").join(name)).unwrap().len();
    assert!(size("ledger.db") + size("ledger.db-wal") < 1 << 20, "an empty installation is small");
    let again = card4e(&["init", bank.to_str().unwrap()]);
    assert!(!again.status.success() && error(&again).contains("nothing was changed"), "{}", error(&again));
}

#[test]
fn a_caller_asks_on_both_wires_and_pays() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    // No account is there yet: the truth is "invalid card number", whatever a sandbox's header wants.
    let reply = acedata(&server, &shop.token, CARD);
    assert_eq!(reply.text(), r#"{"result":"-7","description":"Invalid card number"}"#);
    assert_eq!(reply.header("x-credits-remaining"), Some("9"));
    assert_eq!(reply.header("x-sandbox-decision"), None);
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, CARD), "-9");
    // A magic card is a card like any other.
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, "6200000000130000"), "-9");
    let callers = bank.run(&["caller", "list"]);
    assert_eq!(callers[1]["name"], "shop");
    assert_eq!(callers[1]["balance"], "7");
    server.stop();
    let audit = bank.run(&["audit", "check"]);
    assert_eq!((audit["answers"].as_u64(), audit["charges"].as_u64()), (Some(3), Some(3)));
}

#[test]
fn the_sandboxs_public_keys_open_nothing() {
    let bank = Installation::new(&[]);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(tencent(&server, SECRET_ID, SECRET_KEY, CARD), "AuthFailure.SecretIdNotFound");
    assert_eq!(acedata(&server, TOKEN, CARD).status, 401);
    assert_eq!(server.get("/_sandbox/journal").status, 404);
    assert_eq!(server.get("/readyz").json()["ready"], true);
}

#[test]
fn a_sandboxs_folder_is_not_served() {
    let data = tempfile::tempdir().unwrap();
    Sandbox::keeping(data.path(), "").stop();
    let bank = Installation::new(&[("data = \"data\"", &format!("data = {:?}", data.path()))]);
    let said = bank.refused(&["serve"]);
    assert!(said.contains("sealed by another root key"), "{said}");
}

#[test]
fn suspended_resumed_out_of_balance_recharged() {
    let bank = Installation::new(&[("free_quota = \"10\"", "free_quota = \"1\"")]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let code = |reply: Reply| reply.json()["error"]["code"].as_str().unwrap_or("answered").to_owned();
    assert_eq!(code(acedata(&server, &shop.token, CARD)), "answered");
    assert_eq!(code(acedata(&server, &shop.token, CARD)), "used_up");
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, CARD), "UnauthorizedOperation.Arrears");
    assert_eq!(bank.run(&["caller", "recharge", "shop", "1.5"])["balance"], "1.5");
    assert_eq!(code(acedata(&server, &shop.token, CARD)), "answered");
    bank.run(&["caller", "suspend", "shop"]);
    assert_eq!(code(acedata(&server, &shop.token, CARD)), "disabled");
    bank.run(&["caller", "resume", "shop"]);
    assert_eq!(code(acedata(&server, &shop.token, CARD)), "used_up", "half a credit is not one");
}

#[test]
fn a_rotated_secret_overlaps_and_a_revoked_one_is_gone() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let listed = bank.run(&["credential", "list", "shop"]);
    let id = |kind: &str| {
        let found = listed.as_array().unwrap().iter().find(|credential| credential["kind"] == kind);
        found.unwrap()["id"].to_string()
    };
    let rotated = bank.run(&["credential", "rotate", &id("tencent"), "--overlap", "1h"]);
    let new_key = rotated["secret"].as_str().unwrap().to_owned();
    assert_eq!(rotated["secret_id"], shop.secret_id.as_str(), "the id stays");
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, CARD), "-9", "the old one overlaps");
    assert_eq!(tencent(&server, &shop.secret_id, &new_key, CARD), "-9");
    let said = bank.refused(&["credential", "rotate", &id("tencent"), "--overlap", "1h"]);
    assert!(said.contains("still taken"), "{said}");
    let newest = bank.run(&["credential", "rotate", &id("tencent"), "--overlap", "0s"]);
    assert_eq!(tencent(&server, &shop.secret_id, &new_key, CARD), "AuthFailure.SignatureFailure");

    let bearer = bank.run(&["credential", "rotate", &id("acedata"), "--overlap", "1h"]);
    assert_eq!(acedata(&server, &shop.token, CARD).status, 200);
    assert_eq!(acedata(&server, bearer["secret"].as_str().unwrap(), CARD).status, 200);
    bank.run(&["credential", "revoke", &id("acedata")]);
    assert_eq!(acedata(&server, &shop.token, CARD).status, 401);
    assert_eq!(acedata(&server, bearer["secret"].as_str().unwrap(), CARD).status, 401);

    // A new credential does not get the number of the revoked one: the ledger names numbers.
    let next = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    assert_ne!(next["credential"].to_string(), id("acedata"));
    server.stop();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(
        tencent(&server, &shop.secret_id, newest["secret"].as_str().unwrap(), CARD),
        "-9",
        "after a restart"
    );
}

#[test]
fn credentials_expire_and_are_tied_to_addresses() {
    let bank = Installation::new(&[]);
    bank.run(&["caller", "create", "shop"]);
    let create = |wish: &[&str]| {
        let made = bank.run(&[&["credential", "create", "shop"], wish].concat());
        (
            made["secret_id"].as_str().unwrap_or_default().to_owned(),
            made["secret"].as_str().unwrap().to_owned(),
        )
    };
    let near = create(&["--kind", "tencent", "--address", "127.0.0.0/8"]);
    let far = create(&["--kind", "tencent", "--address", "192.0.2.0/24"]);
    let far_token = create(&["--kind", "acedata", "--address", "192.0.2.1"]).1;
    let short = create(&["--kind", "acedata", "--expires", "0s"]).1;
    let server = Sandbox::serving(&bank.config);
    assert_eq!(tencent(&server, &near.0, &near.1, CARD), "-9");
    assert_eq!(tencent(&server, &far.0, &far.1, CARD), "IpNotInWhitelist");
    assert_eq!(acedata(&server, &far_token, CARD).json()["error"]["code"], "token_mismatched");
    assert_eq!(acedata(&server, &short, CARD).json()["error"]["code"], "token_expired");
}

#[test]
fn data_may_be_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (bank, data) = (folder.path().join("bank"), folder.path().join("var \"lib\""));
    let made = card4e(&["init", bank.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    assert!(made.status.success(), "{}", error(&made));
    assert!(data.join("keys.json").exists() && !bank.join("data").exists());
    let config = bank.join("card4e.toml");
    let listed = card4e(&["caller", "list", "--json", "--config", config.to_str().unwrap()]);
    assert!(String::from_utf8(listed.stdout).unwrap().contains("operator"));
}

#[test]
fn the_log_is_one_object_a_line_for_collectors() {
    let bank = Installation::new(&[]);
    let server = Sandbox::serving_with(&bank.config, &["--log-format", "json"]);
    let log = server.log();
    assert!(log.contains("test land is on"), "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string() && line["level"].is_string() && line["timestamp"].is_string());
    }
}

#[test]
fn a_caller_on_terms_of_its_own() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let terms = bank.run(&["caller", "set", "shop", "--price", "0.25", "--requests-per-second", "100"]);
    assert_eq!((&terms["price"], &terms["requests_per_second"]), (&json!("0.25"), &json!(100)));
    assert_eq!(acedata(&server, &shop.token, CARD).header("x-credits-charged"), Some("0.25"));
    bank.run(&["caller", "set", "shop", "--encryption-required", "true"]);
    let refused = tencent(&server, &shop.secret_id, &shop.secret_key, CARD);
    assert_eq!(refused, "InvalidParameter.UnsupportEncryptField");
    bank.run(&["caller", "set", "shop", "--encryption-required", "false", "--price", "default"]);
    bank.run(&["caller", "set", "shop", "--unlimited", "true"]);
    let reply = acedata(&server, &shop.token, CARD);
    assert_eq!((reply.header("x-credits-charged"), reply.header("x-credits-remaining")), (Some("1"), None));
    let nothing = bank.refused(&["caller", "set", "shop"]);
    assert!(nothing.contains("--price"), "{nothing}");
}

/// The purpose of a credential is evidence for wires that have no member for it.
#[test]
fn a_credential_for_a_purpose_and_some_actions() {
    let bank = Installation::new(&[]);
    bank.run(&["caller", "create", "shop"]);
    let made = bank.run(&[
        "credential",
        "create",
        "shop",
        "--kind",
        "acedata",
        "--action",
        "bankcard-4e",
        "--purpose",
        "account_opening",
        "--consent",
        "terms-7",
    ]);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(acedata(&server, made["secret"].as_str().unwrap(), CARD).status, 200);
    let listed = bank.run(&["credential", "list", "shop"]);
    assert_eq!(listed[0]["actions"], json!(["bankcard-4e"]));
    assert_eq!(listed[0]["purpose"], json!({ "code": "account_opening", "consent": "terms-7" }));
}

/// A question for AceData whose elements are encrypted for these published keys.
fn encrypted_for(keys: &Value, server: &Sandbox, token: &str) -> Reply {
    use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
    use base64::Engine;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let pem: String =
        keys["rsa"]["spki_pem"].as_str().unwrap().lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(pem).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let (key, iv) = ([7; 32], [9; 16]);
    let mut blob = vec![0; public.ciphertext_size()];
    let blob = base64(public.encrypt(&key, &mut blob).unwrap());
    let seal = |text: &str| base64(&super::envelope::seal::cbc(&key, &iv, text.as_bytes()));
    let body = json!({
        "name": seal("张伟"), "bank_card": seal(CARD), "phone": seal("16100000001"),
        "id_card": seal("99010119610202001X"),
        "encryption": {
            "algorithm": "AES-256-CBC", "ciphertext_blob": blob, "iv": base64(&iv),
            "encrypt_list": ["name", "bank_card", "phone", "id_card"],
        },
    });
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    server.request("POST", "/identity/bankcard/check-4e", &headers, body.to_string().as_bytes())
}

#[test]
fn envelope_keys_are_the_installations_own_and_can_be_replaced() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    let first = server.get("/encryption-keys").json();
    assert_ne!(first, Sandbox::start().get("/encryption-keys").json(), "not those that everybody knows");
    bank.run(&["caller", "set", "shop", "--encryption-required", "true"]);
    assert_eq!(acedata(&server, &shop.token, CARD).status, 400);
    let answered = |server: &Sandbox, keys: &Value| {
        let reply = encrypted_for(keys, server, &shop.token);
        (reply.status, reply.json()["result"].as_str().map(str::to_owned))
    };
    let no_account = (200, Some("-7".to_owned()));
    assert_eq!(answered(&server, &first), no_account);

    bank.run(&["keys", "rotate", "envelopes"]);
    let second = server.get("/encryption-keys").json();
    assert_ne!(first["rsa"], second["rsa"]);
    assert_ne!(first["sm2"], second["sm2"]);
    assert_eq!(answered(&server, &first), no_account, "whoever has fetched the old key may use it");
    assert_eq!(answered(&server, &second), no_account);
    server.stop();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(server.get("/encryption-keys").json(), second);
    assert_eq!((answered(&server, &first), answered(&server, &second)), (no_account.clone(), no_account));

    // With a month gone by, the next rotation destroys them; by hand they are destroyed by being many.
    for _ in 0..3 {
        bank.run(&["keys", "rotate", "envelopes"]);
    }
    assert_eq!(answered(&server, &first).0, 400, "four versions at most");
    assert_eq!(answered(&server, &second).0, 200);
}

/// One question from the machine itself, with and without a server.
#[test]
fn verify_asks_pays_and_ends_with_what_it_found() {
    let bank = Installation::new(&[]);
    bank.run(&["caller", "create", "shop"]);
    let account = r#"{"bank_card":"6217000000000000012","name":"张伟","id_number":"99010119610202001X","phone":"16100000001"}"#;
    let config = ["--config", bank.config.to_str().unwrap()];
    assert!(fed(&[&["accounts", "put", "-"], &config[..]].concat(), account).status.success());
    let ask = |name: &str, options: &[&str]| {
        let elements = format!(
            r#"{{"name":"{name}","bank_card":"6217000000000000012","id_card":"99010119610202001X","phone":"+86 161 0000 0001"}}"#
        );
        fed(&[&["verify", "--caller", "shop"], options, &config[..]].concat(), &elements)
    };
    let alone = ask("张伟", &["--json"]);
    let told: Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(
        (alone.status.code(), &told["outcome"], &told["balance"]),
        (Some(0), &json!("PASS"), &json!("9"))
    );

    let server = Sandbox::serving(&bank.config);
    let differs = ask("张三", &["--purpose", "account_opening", "--consent", "terms-7"]);
    let said = String::from_utf8(differs.stdout).unwrap();
    assert_eq!(differs.status.code(), Some(3), "{}", String::from_utf8_lossy(&differs.stderr));
    assert!(said.starts_with("HOLDER_MISMATCH: name, identity number or mobile differs"), "{said}");
    assert!(said.contains("charged      1 credit, 8 credits left"), "{said}");
    assert_eq!(ask("", &[]).status.code(), Some(5), "input that could never be verified");
    bank.run(&["caller", "suspend", "shop"]);
    let refused = ask("张伟", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(error(&refused).contains("card4e caller resume"), "{}", error(&refused));
    server.stop();
    assert_eq!(bank.run(&["audit", "check"])["charges"], 2);
}

#[test]
fn mistakes_say_what_to_do() {
    let bank = Installation::new(&[]);
    bank.run(&["caller", "create", "shop"]);
    for (arguments, said) in [
        (&["caller", "create", "shop"][..], "there is a caller `shop` already"),
        (&["caller", "create", "a shop"], "1 to 64 letters"),
        (&["caller", "suspend", "shpo"], "card4e caller list"),
        (&["credential", "create", "nobody", "--kind", "tencent"], "card4e caller list"),
        (&["credential", "revoke", "77"], "card4e credential list"),
        (&["credential", "create", "shop", "--kind", "tencent", "--address", "home"], "192.0.2.7"),
        (&["credential", "create", "shop", "--kind", "acedata", "--signed-payload-only"], "kind tencent"),
        (&["caller", "suspend", "operator"], "the last operator"),
        (&["caller", "recharge", "shop", "0"], "more than 0"),
        (&["credential", "create", "shop", "--kind", "tencent", "--action", "bankcard-9e"], "bankcard-4e"),
        (&["caller", "set", "shop", "--price", "much"], "such as 1 or 0.057"),
        (&["caller", "recharge", "shop", "9000000000"], "a billion"),
        (&["credential", "create", "shop", "--kind", "tencent", "--expires", "soon"], "90d"),
    ] {
        let error = bank.refused(arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn a_wrong_setting_is_named_with_the_nearest_known_one() {
    let bank = Installation::new(&[("privacy_order", "privacy_ordre")]);
    let error = bank.refused(&["serve"]);
    assert!(error.contains("did you mean `privacy_order`?"), "{error}");
}

/// The secrets are nowhere in what the server keeps or says.
#[test]
fn secrets_are_sealed_or_hashed() {
    let bank = Installation::new(&[]);
    let shop = bank.shop();
    let server = Sandbox::serving(&bank.config);
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, CARD), "-9");
    assert_eq!(acedata(&server, &shop.token, CARD).status, 200);
    let log = server.log();
    server.stop();
    let data = bank.config.with_file_name("data");
    for entry in std::fs::read_dir(data).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [&shop.secret_key, &shop.token] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
            assert!(!log.contains(secret.as_str()));
        }
    }
}
