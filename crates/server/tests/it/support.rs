//! Starting a sandbox and talking to it in plain bytes, so that a test shows what is on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Public test credentials; the same in every sandbox, for ever.
pub const SECRET_ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
pub const SECRET_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
pub const TOKEN: &str = "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";
pub const PLATFORM_TOKEN: &str =
    "platform-v1-4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";

/// A running sandbox; stopped by its process id when it goes out of scope.
pub struct Sandbox {
    child: Child,
    pub address: String,
    pub folder: TempDir,
}

impl Sandbox {
    /// With every default.
    pub fn start() -> Sandbox {
        Sandbox::configured("")
    }

    /// With a settings file of this text.
    pub fn configured(settings: &str) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("card4e.toml");
        std::fs::write(&config, settings).unwrap();
        Sandbox::launched(folder, &["--config", config.to_str().unwrap()])
    }

    /// Keeping its data in `data`; the folder outlives the sandbox.
    pub fn keeping(data: &Path, settings: &str) -> Sandbox {
        Sandbox::keeping_behind(&[], data, settings)
    }

    /// The same, started by another command that is given in front of it.
    pub fn keeping_behind(before: &[String], data: &Path, settings: &str) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("card4e.toml");
        std::fs::write(&config, settings).unwrap();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
        let sandbox = ["sandbox", "--listen", "127.0.0.1:0", "--config", config, "--data", data];
        let command = [&before[..], &[env!("CARGO_BIN_EXE_card4e")], &sandbox].concat();
        Sandbox::spawned_as(command[0], folder, &command[1..])
    }

    /// With further arguments.
    pub fn with(arguments: &[&str]) -> Sandbox {
        Sandbox::launched(tempfile::tempdir().unwrap(), arguments)
    }

    /// `card4e serve` on an installation, whose settings say where it listens.
    pub fn serving(config: &Path) -> Sandbox {
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        Sandbox::spawned(tempfile::tempdir().unwrap(), &arguments)
    }

    /// The same, started by another command that is given in front of it.
    pub fn serving_behind(before: &[&str], config: &Path) -> Sandbox {
        let arguments =
            [before, &[env!("CARGO_BIN_EXE_card4e"), "serve", "--config", config.to_str().unwrap()]];
        Sandbox::spawned_as(before[0], tempfile::tempdir().unwrap(), &arguments.concat()[1..])
    }

    /// `card4e serve` with further arguments.
    pub fn serving_with(config: &Path, arguments: &[&str]) -> Sandbox {
        let serve = ["serve", "--config", config.to_str().unwrap()];
        Sandbox::spawned(tempfile::tempdir().unwrap(), &[&serve, arguments].concat())
    }

    /// `card4e serve` on an installation that waits for its passphrase, at this address.
    pub fn locked(config: &Path, address: &str) -> Sandbox {
        Sandbox::locked_with(config, address, &[])
    }

    /// The same, with these variables.
    pub fn locked_with(config: &Path, address: &str, variables: &[(&str, &str)]) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_card4e"))
            .args(["serve", "--config", config.to_str().unwrap()])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sandbox = Sandbox { child, address: address.to_owned(), folder };
        let began = Instant::now();
        // Its port is open a moment before it knows how to stop.
        let asked = sandbox.bytes("GET", "/healthz", &[], b"");
        while sandbox.try_send(&asked).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "no server: {}", sandbox.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        sandbox
    }

    fn launched(folder: TempDir, arguments: &[&str]) -> Sandbox {
        let sandbox = ["sandbox", "--listen", "127.0.0.1:0"];
        Sandbox::spawned(folder, &[&sandbox, arguments].concat())
    }

    fn spawned(folder: TempDir, arguments: &[&str]) -> Sandbox {
        Sandbox::spawned_as(env!("CARGO_BIN_EXE_card4e"), folder, arguments)
    }

    fn spawned_as(program: &str, folder: TempDir, arguments: &[&str]) -> Sandbox {
        let ready = folder.path().join("ready");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .args(["--cores", "2", "--ready-file"])
            .arg(&ready)
            // A sandbox that is killed leaves its folder; this one goes with the test.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sandbox = Sandbox { child, address: String::new(), folder };
        sandbox.address = sandbox.wait_for(&ready);
        sandbox
    }

    fn wait_for(&mut self, ready: &PathBuf) -> String {
        let began = Instant::now();
        loop {
            if let Ok(address) = std::fs::read_to_string(ready) {
                return address.trim().to_owned();
            }
            let over = self.child.try_wait().unwrap();
            assert!(
                over.is_none() && began.elapsed() < Duration::from_secs(30),
                "no sandbox: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(asked.success());
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Sends these bytes and reads one reply.
    pub fn send(&self, request: &[u8]) -> Reply {
        self.try_send(request).unwrap()
    }

    /// Like [`Sandbox::send`], where the connection may be closed without a reply.
    pub fn try_send(&self, request: &[u8]) -> std::io::Result<Reply> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.write_all(request)?;
        Reply::read(&mut socket)
    }

    /// `GET`, with no headers but `Host`.
    pub fn get(&self, target: &str) -> Reply {
        self.request("GET", target, &[], b"")
    }

    /// Any request; `Host` and `Content-Length` are added.
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send(&self.bytes(method, target, headers, body))
    }

    /// The bytes of [`Sandbox::request`].
    pub fn bytes(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method != "GET" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    /// A control call: its answer, which must be 200.
    pub fn control(&self, method: &str, what: &str, body: &str) -> Value {
        let reply = self.request(method, &format!("/_sandbox/{what}"), &[], body.as_bytes());
        assert_eq!(reply.status, 200, "{method} {what}: {}", reply.text());
        reply.json()
    }

    /// Posts a fault rule.
    pub fn fault(&self, rule: &str) {
        self.control("POST", "faults", rule);
    }

    /// Charged answers so far.
    pub fn charges(&self) -> u64 {
        self.control("GET", "ledger", "")["charges"].as_u64().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads head and body; a body that breaks off is an error.
    pub fn read(from: &mut impl Read) -> std::io::Result<Reply> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            from.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        if status == 100 {
            return Reply::read(from);
        }
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
        from.read_exact(&mut body)?;
        Ok(Reply { status, headers, body })
    }

    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The machine's time, Unix seconds.
#[expect(clippy::disallowed_methods, reason = "a client signs with the machine's time")]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}
