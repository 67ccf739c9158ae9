//! Debian's nginx before several nodes, as `docs/scale.md` shows it.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::limiter::redis_server::free_port;

/// An nginx with a folder of its own, on a port of the loopback.
pub struct Nginx {
    child: Child,
    /// Where clients find it.
    pub address: String,
    folder: TempDir,
}

impl Nginx {
    /// Starts one. Nothing, loudly, where nginx is not installed; a failure where nothing may be left out.
    pub fn before(nodes: &[String]) -> Option<Nginx> {
        let places = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
        let Some(program) = places.iter().map(Path::new).find(|path| path.exists()) else {
            assert!(
                std::env::var_os("CARD4E_REQUIRE_ALL").is_none(),
                "nginx is missing: apt-get install nginx"
            );
            let said = "SKIPPED: nodes behind nginx; apt-get install nginx, or ./test\n";
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        std::fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), &address, nodes))
            .unwrap();
        let child = Command::new(program)
            .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf", "-e", "log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Nginx { child, address, folder };
        let began = Instant::now();
        while TcpStream::connect(&nginx.address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "no nginx: {}", nginx.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(nginx)
    }

    /// What it complained of.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It has a worker, which ends with it only when it is asked.
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        if asked.is_ok_and(|asked| asked.success()) {
            let _ = self.child.wait();
        }
    }
}

/// What the page says, with the test's addresses.
fn configuration(folder: &Path, address: &str, nodes: &[String]) -> String {
    let server = |node: &String| format!("  server {node} max_fails=1 fail_timeout=1s;\n");
    let servers: String = nodes.iter().map(server).collect();
    let temporary = |kind| {
        let path: PathBuf = folder.join(kind);
        format!("  {kind}_temp_path {};\n", path.display())
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temporary).concat();
    // Its workers would not be root, and could not get at the folder.
    let user = if std::fs::metadata(folder).unwrap().uid() == 0 { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;\nworker_processes 1;\npid pid;\nevents {{ worker_connections 512; }}\nhttp {{\n  access_log off;\n\
         {temporary}{}}}\n",
        page()
            .replace(&page_servers(), &servers)
            .replace("listen 443 ssl;", &format!("listen {address};"))
            .replace("server_name faceid.example.com;", "")
    )
}

/// The configuration that `docs/scale.md` shows.
fn page() -> String {
    let page = include_str!("../../../../../docs/scale.md");
    let block = page.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    block.to_owned()
}

/// Its lines with nodes.
fn page_servers() -> String {
    let page = page();
    let lines = page.lines().filter(|line| line.trim_start().starts_with("server 10."));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(page.contains(&lines) && lines.lines().count() == 3, "{page}");
    lines
}
