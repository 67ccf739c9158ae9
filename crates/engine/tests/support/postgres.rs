//! A PostgreSQL server of Debian's, for as long as this test process lives.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use engine::store::postgres::Database;

/// A server in a folder of its own, on a port of the loopback.
pub struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    keeper: Option<Child>,
}

/// Keeps a server until the process that wanted it ends, however that ends: then nobody holds the other end of its
/// input, and its folder goes too, unless that was said before. What the shell says itself, of a server that was killed,
/// is nobody's.
const KEEP: &str = r#"
    folder=$1; shift; exec 3<&0; "$@" & server=$!; exec 2>/dev/null
    (read -r _ <&3 || { kill -INT $server; while kill -0 $server; do sleep 0.1; done; rm -rf "$folder"; }) &
    wait $server"#;

/// The server that all tests of this process share; none where PostgreSQL is not installed, and it says so.
pub fn shared() -> Option<&'static Postgres> {
    static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
    SHARED.get_or_init(Postgres::start).as_ref()
}

impl Postgres {
    /// Starts one.
    pub fn start() -> Option<Postgres> {
        let bin = is_installed().then(installed)??;
        let folder = tempfile::tempdir().unwrap();
        if let Some((user, group)) = other_user() {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Postgres { folder, bin, port, keeper: None };
        let made = server
            .command("initdb")
            .args(["--auth=trust", "--username=card4e", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        server.run();
        Some(server)
    }

    /// A database with nothing in it.
    pub fn database(&self) -> Arc<Database> {
        database_at(&self.url())
    }

    /// Where a database with nothing in it is.
    pub fn url(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let made = self
            .command("createdb")
            .args(["-h", "127.0.0.1", "-U", "card4e", "-p"])
            .arg(self.port.to_string())
            .arg(&name)
            .status();
        assert!(made.unwrap().success(), "createdb failed");
        format!("postgres://card4e@127.0.0.1:{}/{name}", self.port)
    }

    /// Kills all its processes in the middle of whatever they do; what was committed stays.
    pub fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let signal = |signal: &str, of: &[String]| {
            // Some have ended by themselves.
            Command::new("kill").arg(signal).args(of).stderr(Stdio::null()).status().unwrap();
        };
        // It makes no more children, which would live on for a moment: a start refuses while one of them does.
        signal("-STOP", std::slice::from_ref(&pid));
        until(|| state(&pid) == Some('T'));
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let mut all: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
        all.push(pid);
        signal("-KILL", &all);
        until(|| all.iter().all(|pid| matches!(state(pid), None | Some('Z'))));
        let mut keeper = self.keeper.take().unwrap();
        keeper.stdin.take().unwrap().write_all(b"stay\n").unwrap();
        keeper.wait().unwrap();
    }

    /// Starts it, again after [`Postgres::kill`].
    pub fn run(&mut self) {
        let mut command = self.command_of(Path::new("/bin/sh"));
        command.args(["-c", KEEP, "sh"]).arg(self.folder.path()).arg(self.bin.join("postgres"));
        command.arg("-D").arg(self.data());
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        // What a crash of the machine would lose is not what is tested.
        command.args(["-c", "fsync=off", "-c", "max_connections=200", "-c", "log_min_messages=panic"]);
        self.keeper = Some(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        while !self.answers() {
            assert!(began.elapsed() < Duration::from_secs(60), "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let is_there = match TcpStream::connect(("127.0.0.1", self.port)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
            connected => connected.is_ok(),
        };
        let ready = || {
            self.command("pg_isready")
                .args(["-q", "-U", "card4e", "-d", "postgres", "-h", "127.0.0.1", "-p"])
                .arg(self.port.to_string())
                .status()
        };
        is_there && ready().unwrap().success()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(&self.bin.join(program))
    }

    /// PostgreSQL does not run as root.
    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// The database of an address.
pub fn database_at(url: &str) -> Arc<Database> {
    Arc::new(Database::new(url, None, plain()).unwrap())
}

/// No certificate is trusted: the loopback is not encrypted.
pub fn plain() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// What a process does, as the kernel says; nothing if it is gone.
fn state(pid: &str) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit(") ").next()?.chars().next()
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether there is one to start; if not, that is said.
pub fn is_installed() -> bool {
    let found = installed().is_some();
    if !found {
        let must = std::env::var_os("CARD4E_REQUIRE_ALL").is_some();
        assert!(!must, "PostgreSQL is missing: install postgresql-15");
        // Written past the test harness, which keeps to itself what a test prints.
        let said = "SKIPPED: PostgreSQL is not installed; apt-get install postgresql-15, or ./test\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    found
}

/// The newest of Debian's.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let version = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    let bin = Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin");
    bin.join("initdb").exists().then_some(bin)
}

/// Debian's user for it, when root runs the tests.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line =
        users.lines().find(|line| line.starts_with("postgres:")).expect("Debian's package makes this user");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}
