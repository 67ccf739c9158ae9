//! A Redis server of Debian's, for as long as a test needs it.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server in a folder of its own, on a port of the loopback. It keeps nothing on the disk.
pub struct Redis {
    folder: TempDir,
    port: u16,
    tls_port: u16,
    more: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one. Nothing, loudly, where Redis is not installed; a failure where nothing may be left out.
    pub fn start() -> Option<Redis> {
        Redis::start_with(&[])
    }

    /// The same with further options of its command line.
    pub fn start_with(more: &[&str]) -> Option<Redis> {
        let missing = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err();
        if missing {
            assert!(
                std::env::var_os("CARD4E_REQUIRE_ALL").is_none(),
                "Redis is missing: apt-get install redis-server"
            );
            // Written past the test harness, which keeps to itself what a test prints.
            let said = "SKIPPED: limits across nodes; apt-get install redis-server, or ./test\n";
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        }
        let mut redis = Redis {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            tls_port: free_port(),
            more: more.iter().map(|more| (*more).to_owned()).collect(),
            child: None,
        };
        redis.run();
        Some(redis)
    }

    /// Starts it, again after [`Redis::kill`].
    pub fn run(&mut self) {
        let log = self.log_file();
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir", self.folder.path().to_str().unwrap()])
            .args(self.more.iter().map(|more| more.replace("TLS_PORT", &self.tls_port.to_string())))
            .stdout(std::fs::File::create(log).unwrap())
            .spawn();
        self.child = Some(child.unwrap());
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = std::fs::read_to_string(self.log_file()).unwrap();
            assert!(began.elapsed() < Duration::from_secs(20), "Redis does not answer: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where it is over TLS, if its options say so.
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}/0", self.tls_port)
    }

    /// A connection of the test's own.
    pub fn client(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    fn log_file(&self) -> PathBuf {
        Path::new(self.folder.path()).join("log")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
