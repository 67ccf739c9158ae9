//! TLS on the same listener: right certificates, new ones without a restart, clients' own, and
//! those who only disturb.

mod authority;
mod http2;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use wire::tencent::signature::JsonPost;

use super::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, TOKEN, now};
use authority::Authority;

pub const SAMPLE: &str =
    r#"{"Name":"韦小宝","BankCard":"6225768888888888","Phone":"16137688175","IdCard":"11204416541220243X"}"#;

/// A sandbox with files of its own, and the CA a client needs.
struct Secured {
    sandbox: Sandbox,
    files: TempDir,
    ca: Authority,
}

impl Secured {
    /// Further lines of `[tls]`; `clients.pem` has the CA of [`Secured::clients`].
    fn configured(more: &str, clients: Option<&Authority>) -> Secured {
        Secured::set("", more, clients)
    }

    fn set(before: &str, more: &str, clients: Option<&Authority>) -> Secured {
        let files = tempfile::tempdir().unwrap();
        let ca = Authority::named("servers");
        ca.server("localhost").write(files.path());
        if let Some(clients) = clients {
            std::fs::write(files.path().join("clients.pem"), clients.pem()).unwrap();
        }
        // Relative names start from the settings file's folder.
        let config = files.path().join("card4e.toml");
        let text = format!("{before}\n[tls]\ncertificate = \"server.pem\"\nkey = \"server-key.pem\"\n{more}");
        std::fs::write(&config, text).unwrap();
        let sandbox = Sandbox::with(&["--config", config.to_str().unwrap()]);
        Secured { sandbox, files, ca }
    }

    fn start() -> Secured {
        Secured::configured("", None)
    }

    fn client(&self) -> Client {
        Client::trusting(&self.ca.pem())
    }

    /// Asks until the certificate shown is this one.
    fn shows(&self, client: &Client, certificate: &CertificateDer<'_>) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let mut socket = client.connect(&self.sandbox.address);
            if socket.flush().is_ok()
                && socket.conn.peer_certificates().is_some_and(|shown| &shown[0] == certificate)
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

/// A blocking client for HTTP/1.1.
pub struct Client(Arc<ClientConfig>);

impl Client {
    pub fn trusting(ca: &str) -> Client {
        Client::with(ca, None)
    }

    fn with(ca: &str, own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        Client(Arc::new(match own {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        }))
    }

    fn connect(&self, address: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), socket)
    }

    pub fn try_send(&self, address: &str, request: &[u8]) -> io::Result<Reply> {
        let mut socket = self.connect(address);
        socket.write_all(request)?;
        Reply::read(&mut socket)
    }

    fn send(&self, address: &str, request: &[u8]) -> Reply {
        self.try_send(address, request).unwrap()
    }

    /// The sample on the Tencent wire, signed.
    fn passes(&self, sandbox: &Sandbox) {
        let reply = self.send(&sandbox.address, &signed(&sandbox.address));
        assert_eq!(
            (reply.status, &reply.json()["Response"]["Result"]),
            (200, &"0".into()),
            "{}",
            reply.text()
        );
    }
}

/// Authorization and time of the sample, signed for this host.
fn proof(host: &str) -> [(&'static str, String); 5] {
    sample(host).headers(SECRET_ID, SECRET_KEY)
}

fn sample(host: &str) -> JsonPost<'_> {
    JsonPost { host, action: "BankCard4EVerification", body: SAMPLE.as_bytes(), timestamp: now() }
}

fn signed(host: &str) -> Vec<u8> {
    sample(host).to_http1(SECRET_ID, SECRET_KEY, &[])
}

#[test]
fn both_wires_over_https() {
    let secured = Secured::start();
    let (client, address) = (secured.client(), &secured.sandbox.address);
    client.passes(&secured.sandbox);
    let body = r#"{"name":"韦小宝","bank_card":"6225768888888888","phone":"16137688175","id_card":"11204416541220243X"}"#;
    let headers = [("authorization", &*format!("Bearer {TOKEN}")), ("content-type", "application/json")];
    let request = secured.sandbox.bytes("POST", "/identity/bankcard/check-4e", &headers, body.as_bytes());
    let reply = client.send(address, &request);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), r#"{"result":"0","description":"Authentication passed"}"#);
}

#[test]
fn one_connection_takes_many_requests() {
    let secured = Secured::start();
    let mut socket = secured.client().connect(&secured.sandbox.address);
    for _ in 0..20 {
        socket.write_all(&signed(&secured.sandbox.address)).unwrap();
        assert_eq!(Reply::read(&mut socket).unwrap().json()["Response"]["Result"], "0");
    }
}

#[test]
fn the_page_and_its_control_are_on_https() {
    let secured = Secured::start();
    let address = &secured.sandbox.address;
    let page = secured.sandbox.bytes("GET", "/", &[("accept", "text/html")], b"");
    let page = secured.client().send(address, &page);
    assert!(page.text().contains(&format!("curl -s https://{address}/identity/bankcard/check-4e")));
    assert!(!page.text().contains("http://"), "{}", page.text());
    for (origin, status) in [("https", 200), ("http", 403)] {
        let headers = [("origin", &*format!("{origin}://{address}"))];
        let request = secured.sandbox.bytes("POST", "/_sandbox/reset", &headers, b"");
        assert_eq!(secured.client().send(address, &request).status, status, "{origin}");
    }
}

#[test]
fn a_ca_that_signed_something_else_is_no_use() {
    let secured = Secured::start();
    let stranger = Client::trusting(&Authority::named("servers").pem());
    assert!(stranger.try_send(&secured.sandbox.address, &signed(&secured.sandbox.address)).is_err());
    secured.client().passes(&secured.sandbox);
}

#[test]
fn plain_http_is_told_to_use_tls() {
    let secured = Secured::start();
    let mut socket = TcpStream::connect(&secured.sandbox.address).unwrap();
    socket.write_all(&signed(&secured.sandbox.address)).unwrap();
    let reply = Reply::read(&mut socket).unwrap();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(
        reply.text(),
        "This port speaks TLS: use https. What was sent here went over the network in the clear.\n"
    );
    assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0, "and the connection is closed");
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    let secured = Secured::start();
    let (client, folder) = (secured.client(), secured.files.path());
    // An honest client's connection goes on through all of it.
    let mut open = client.connect(&secured.sandbox.address);
    open.write_all(&signed(&secured.sandbox.address)).unwrap();
    assert_eq!(Reply::read(&mut open).unwrap().status, 200);

    let next = secured.ca.server("localhost");
    next.write(folder);
    assert!(secured.shows(&client, &next.certificate), "{}", secured.sandbox.log());

    // Not a certificate: the last right one stays, and the log says why.
    std::fs::write(folder.join("server.pem"), "half a certifi").unwrap();
    let said = "has no certificate; it must be PEM";
    let end = Instant::now() + Duration::from_secs(20);
    while !secured.sandbox.log().contains(said) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = secured.sandbox.log();
    assert!(log.contains("the former ones stay in use") && log.contains(said), "{log}");
    assert!(secured.shows(&client, &next.certificate));

    let last = secured.ca.server("localhost");
    last.write(folder);
    assert!(secured.shows(&client, &last.certificate), "{}", secured.sandbox.log());
    open.write_all(&signed(&secured.sandbox.address)).unwrap();
    assert_eq!(Reply::read(&mut open).unwrap().json()["Response"]["Result"], "0");
}

#[test]
fn a_certificate_that_ends_soon_is_warned_about() {
    let secured = Secured::start();
    let warned = || {
        let request = secured.sandbox.bytes("GET", "/readyz", &[], b"");
        let reply = secured.client().send(&secured.sandbox.address, &request);
        assert_eq!(reply.status, 200);
        reply.text().contains("the TLS certificate ends within two weeks, or has ended")
    };
    assert!(!warned());
    // It is good until 4096.
    let clock = br#"{"mode":"frozen","now":67090000000}"#;
    let request = secured.sandbox.bytes("PUT", "/_sandbox/clock", &[], clock);
    assert_eq!(secured.client().send(&secured.sandbox.address, &request).status, 200);
    assert!(warned());
}

#[test]
fn sighup_reads_the_files_at_once() {
    let secured = Secured::start();
    let client = secured.client();
    let next = secured.ca.server("localhost");
    next.write(secured.files.path());
    let asked = Command::new("kill").args(["-HUP", &secured.sandbox.pid().to_string()]).status().unwrap();
    assert!(asked.success());
    assert!(secured.shows(&client, &next.certificate));
    assert!(secured.sandbox.log().contains("TLS files were read again; the certificate is valid until "));
}

#[test]
fn client_certificates() {
    let clients = Authority::named("clients");
    for (asked, without) in [("required", false), ("optional", true)] {
        let more = format!("client_ca = \"clients.pem\"\nclient_certificates = \"{asked}\"\n");
        let secured = Secured::configured(&more, Some(&clients));
        let ask = |own: Option<&Authority>| {
            let own = own.map(|ca| ca.client("shop").of_client());
            let request = signed(&secured.sandbox.address);
            let reply = Client::with(&secured.ca.pem(), own).try_send(&secured.sandbox.address, &request);
            reply.is_ok_and(|reply| reply.json()["Response"]["Result"] == "0")
        };
        assert!(ask(Some(&clients)), "{asked}: {}", secured.sandbox.log());
        assert!(!ask(Some(&Authority::named("clients"))), "{asked}: a client certificate of somebody else");
        assert_eq!(ask(None), without, "{asked}, without a certificate");
    }
}

#[test]
fn a_client_ca_is_replaced_without_a_restart() {
    let (former, next) = (Authority::named("clients"), Authority::named("clients"));
    let more = "client_ca = \"clients.pem\"\nclient_certificates = \"required\"\n";
    let secured = Secured::configured(more, Some(&former));
    let ask = |ca: &Authority| {
        let client = Client::with(&secured.ca.pem(), Some(ca.client("shop").of_client()));
        client.try_send(&secured.sandbox.address, &signed(&secured.sandbox.address)).is_ok()
    };
    assert!(ask(&former) && !ask(&next));
    std::fs::write(secured.files.path().join("clients.pem"), next.pem()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !ask(&next) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(ask(&next) && !ask(&former));
}

#[test]
fn those_who_only_disturb() {
    let secured = Secured::set("[http]\nhead_seconds = 1\nconnections_max = 8\n", "", None);
    let address = &secured.sandbox.address;
    let mut hello = Vec::new();
    secured.client().connect(address).conn.write_tls(&mut hello).unwrap();
    // As many as there may be connections, three times over: nothing, half a handshake's first word
    // or all of it and then silence, garbage.
    let began = Instant::now();
    let disturbing: Vec<TcpStream> = (0..24)
        .map(|turn| {
            let mut socket = TcpStream::connect(address).unwrap();
            let sent = [&b""[..], &hello[..hello.len() / 2], &hello, b"\x16garbage", b"\x00\xff"][turn % 5];
            socket.write_all(sent).unwrap();
            socket
        })
        .collect();
    for _ in 0..5 {
        secured.client().passes(&secured.sandbox);
    }
    // Silent ones have gone after `head_seconds`, each of at most three rounds.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(disturbing);
    let metrics = secured.client().send(address, &secured.sandbox.bytes("GET", "/metrics", &[], b"")).text();
    let failed = metrics.lines().find_map(|line| line.strip_prefix("card4e_tls_handshakes_failed_total "));
    assert!(failed.unwrap().parse::<u64>().unwrap() >= 12, "{failed:?}");
}

fn refused(files: &Path, tls: &str) -> String {
    let config = files.join("card4e.toml");
    std::fs::write(&config, format!("[tls]\n{tls}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["sandbox", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn mistakes_are_explained() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path();
    let ca = Authority::named("servers");
    ca.server("localhost").write(folder);
    std::fs::write(folder.join("other-key.pem"), ca.server("localhost").key_pem()).unwrap();
    std::fs::write(
        folder.join("locked.pem"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let both = "certificate = \"server.pem\"\nkey = \"server-key.pem\"\n";
    for (tls, said) in [
        ("certificate = \"server.pem\"", "tls.certificate and tls.key belong together"),
        ("certificate = \"nowhere.pem\"\nkey = \"server-key.pem\"", "nowhere.pem: No such file"),
        ("certificate = \"server-key.pem\"\nkey = \"server-key.pem\"", "has no certificate"),
        ("certificate = \"server.pem\"\nkey = \"server.pem\"", "has no private key"),
        ("certificate = \"server.pem\"\nkey = \"other-key.pem\"", "does not belong to the first certificate"),
        ("certificate = \"server.pem\"\nkey = \"locked.pem\"", "openssl pkey -in"),
        (&format!("{both}client_certificates = \"required\""), "tls.client_ca is missing"),
        (&format!("{both}client_ca = \"server.pem\""), "say tls.client_certificates"),
        ("client_certificates = \"required\"", "need tls.certificate and tls.key"),
        (&format!("{both}client_certificates = \"maybe\""), "`off`, `optional`, `required`"),
    ] {
        let error = refused(folder, tls);
        assert!(error.contains(said), "{tls}: {error}");
        assert!(!error.contains("BEGIN PRIVATE KEY-----\\n"), "{error}");
    }
}

#[test]
fn a_development_ca() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tls");
    let make = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_card4e"));
        command.args(["tls", "dev-ca", "--name", "faceid.test", "--out"]).arg(&out).output().unwrap()
    };
    let made = make();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = String::from_utf8(made.stdout).unwrap();
    let ca = out.join("ca.pem");
    for line in [
        "localhost, 127.0.0.1, ::1, faceid.test",
        &format!("HttpProfile(certification=\"{}\")", ca.display()),
        &format!("NODE_EXTRA_CA_CERTS={}", ca.display()),
        &format!("curl --cacert {}", ca.display()),
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    let mode = |name| std::fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("server-key.pem"), 0o600);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3, "the CA's own key is not kept");

    // A second one does not take the first one's place: clients trust it.
    let again = make();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("is there already"));

    let [certificate, key] =
        ["server.pem", "server-key.pem"].map(|name| out.join(name).display().to_string());
    let sandbox = Sandbox::with(&["--tls-certificate", &certificate, "--tls-key", &key]);
    Client::trusting(&std::fs::read_to_string(ca).unwrap()).passes(&sandbox);
}

#[test]
fn a_sandbox_with_a_ca_of_its_own_keeps_it() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--tls", "--data", data.path().to_str().unwrap()];
    let ca = data.path().join("tls/ca.pem");
    let sandbox = Sandbox::with(&arguments);
    let client = Client::trusting(&std::fs::read_to_string(&ca).unwrap());
    client.passes(&sandbox);
    sandbox.stop();
    client.passes(&Sandbox::with(&arguments));
}
