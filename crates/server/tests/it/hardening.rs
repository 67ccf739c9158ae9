//! What a hostile client does to a server: each shape has an answer or an end, memory is bounded, and
//! honest clients are answered meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::{Reply, Sandbox, TOKEN};

/// Deadlines short enough for a test.
const HASTY: &str = "[http]\nhead_seconds = 1\nbody_seconds = 1\n";

fn connect(sandbox: &Sandbox) -> TcpStream {
    let socket = TcpStream::connect(&sandbox.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

const QUESTION: &str = r#"{"name":"韦小宝","bank_card":"6225768888888888","phone":"16137688175","id_card":"11204416541220243X"}"#;

fn honest(sandbox: &Sandbox) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let reply = sandbox.request("POST", "/identity/bankcard/check-4e", &headers, QUESTION.as_bytes());
    assert_eq!(reply.json()["result"], "0", "{}", reply.text());
}

/// Everything until the server closes the connection, however it does that.
fn until_closed(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it is neither answered nor closed: {error}; {}", all.escape_ascii()),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn statuses(replies: &str) -> Vec<&str> {
    replies.split("HTTP/1.1 ").skip(1).map(|reply| &reply[..3]).collect()
}

/// Resident memory, KiB.
fn resident_kib(sandbox: &Sandbox) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn heads_that_come_a_byte_at_a_time_end() {
    let sandbox = Sandbox::configured(HASTY);
    let began = Instant::now();
    let mut sockets: Vec<TcpStream> = (0..50).map(|_| connect(&sandbox)).collect();
    for (at, byte) in b"POST / HTTP/1.1\r\nHost: h\r\nX-Slow: ".iter().enumerate() {
        for socket in &mut sockets {
            // It ends in the middle: then nobody takes more of it.
            let _ = socket.write_all(&[*byte]);
        }
        if at % 8 == 0 {
            honest(&sandbox);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for socket in &mut sockets {
        let end = until_closed(socket);
        assert!(end.is_empty() || end.starts_with("HTTP/1.1 408"), "{end}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A head is waited for as long as a head may take, but no stop waits for one.
#[test]
fn a_head_that_has_only_begun_does_not_hold_a_stop() {
    let sandbox = Sandbox::configured("[http]\nhead_seconds = 60\ndrain_seconds = 60\n");
    let mut begun: Vec<TcpStream> = (0..3).map(|_| connect(&sandbox)).collect();
    for socket in &mut begun {
        socket.write_all(b"GET /hea").unwrap();
    }
    honest(&sandbox);
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    sandbox.stop();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn bodies_that_come_a_byte_at_a_time_end() {
    let sandbox = Sandbox::configured(HASTY);
    let head = format!(
        "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
    );
    let mut sockets: Vec<TcpStream> = (0..50).map(|_| connect(&sandbox)).collect();
    sockets.iter_mut().for_each(|socket| socket.write_all(head.as_bytes()).unwrap());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        sockets.iter_mut().for_each(|socket| _ = socket.write_all(b" "));
        honest(&sandbox);
        std::thread::sleep(Duration::from_millis(100));
    }
    for socket in &mut sockets {
        let end = until_closed(socket);
        assert_eq!(statuses(&end).len(), 1, "{end}");
        assert!(end.contains("bad_request"), "{end}");
    }
}

#[test]
fn a_body_without_an_end_is_refused_and_takes_no_memory() {
    let sandbox = Sandbox::start();
    honest(&sandbox);
    let before = resident_kib(&sandbox);
    let head = "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sockets: Vec<TcpStream> = (0..8).map(|_| connect(&sandbox)).collect();
    sockets.iter_mut().for_each(|socket| socket.write_all(head.as_bytes()).unwrap());
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let mut most = 0;
    for _ in 0..80 {
        let wrote = sockets.iter_mut().map(|socket| u32::from(socket.write_all(&chunk).is_ok())).sum::<u32>();
        most = most.max(resident_kib(&sandbox));
        if wrote == 0 {
            break;
        }
    }
    honest(&sandbox);
    // 8 bodies of 10 MB at most are held, whatever is sent; half as much again for copies on the way.
    assert!(most < before + 160 * 1024, "{before} KiB before, {most} KiB at most");
    for socket in &mut sockets {
        let end = until_closed(socket);
        assert!(statuses(&end).iter().all(|status| *status != "200"), "{end}");
    }
}

/// What one reader takes for one request and another for two.
#[test]
fn nothing_can_be_smuggled() {
    let sandbox = Sandbox::configured(HASTY);
    let hidden = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    let to = "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: h\r\n";
    let shapes = [
        (
            "both",
            format!(
                "{to}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                5 + hidden.len()
            ),
        ),
        (
            "both, turned",
            format!("{to}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("{to}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len())),
        ("a list of lengths", format!("{to}Content-Length: 0, {}\r\n\r\n{hidden}", hidden.len())),
        ("a signed length", format!("{to}Content-Length: +0\r\n\r\n{hidden}")),
        ("a folded header", format!("{to}X-Folded: 1\r\n Content-Length: 50\r\n\r\n{hidden}")),
        ("a blank before the colon", format!("{to}Content-Length : 0\r\n\r\n{hidden}")),
        ("a bare carriage return", format!("{to}X-Bare: 1\rContent-Length: 0\r\n\r\n{hidden}")),
        ("a zero byte", format!("{to}X-Zero: a\0b\r\n\r\n{hidden}")),
        ("chunked is not last", format!("{to}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{hidden}")),
        ("chunked twice", format!("{to}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("an unknown coding", format!("{to}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        (
            "coding of HTTP/1.0",
            format!("{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", to.replace("/1.1", "/1.0")),
        ),
        ("a size in C", format!("{to}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}")),
        ("a negative size", format!("{to}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}")),
        (
            "a size beyond 64 bits",
            format!("{to}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk longer than it says",
            format!("{to}Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a line feed in an extension",
            format!("{to}Transfer-Encoding: chunked\r\n\r\n2;a\nxx\r\n0\r\n\r\n{hidden}"),
        ),
        ("two hosts", format!("{to}Host: other\r\nContent-Length: 0\r\n\r\n{hidden}")),
        (
            "a host with a blank",
            format!("{}Content-Length: 0\r\n\r\n{hidden}", to.replace("Host: h", "Host: a b")),
        ),
    ];
    // Not half-closed: then nothing after the first request would be looked at. All at once, because what
    // is neither answered nor refused ends with its deadline.
    let send = |bytes: &str| {
        let mut socket = connect(&sandbox);
        socket.write_all(bytes.as_bytes()).unwrap();
        socket
    };
    // So that the test sees what it looks for: two requests that are two.
    let two = until_closed(&mut send(&format!("{to}Content-Length: 0\r\n\r\n{hidden}")));
    assert!(statuses(&two).len() == 2 && two.contains("\"ok\""), "{two}");
    // A bare line feed ends a line, as RFC 9112, section 2.2, lets a reader take it; proxies refuse it or agree.
    let two = until_closed(&mut send(&format!("{to}X-Bare: 1\nContent-Length: 0\r\n\r\n{hidden}")));
    assert_eq!(statuses(&two), ["401", "200"]);
    let sockets: Vec<_> = shapes.iter().map(|(name, bytes)| (*name, send(bytes))).collect();
    let mut smuggled = Vec::new();
    for (name, mut socket) in sockets {
        let replies = until_closed(&mut socket);
        if replies.contains("\"ok\"") || statuses(&replies).contains(&"200") {
            smuggled.push((name, statuses(&replies).join(" ")));
        }
    }
    assert!(smuggled.is_empty(), "{smuggled:#?}");
    honest(&sandbox);
    assert_eq!(sandbox.charges(), 1);
}

#[test]
fn a_flood_of_headers_is_refused() {
    let sandbox = Sandbox::start();
    honest(&sandbox);
    let before = resident_kib(&sandbox);
    for _ in 0..20 {
        let mut socket = connect(&sandbox);
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n");
        let line = format!("X-Flood: {}\r\n", "x".repeat(1000));
        let flooded = (0..10_000).take_while(|_| socket.write_all(line.as_bytes()).is_ok()).count();
        assert!(flooded < 10_000, "ten megabytes of headers were taken");
    }
    honest(&sandbox);
    let after = resident_kib(&sandbox);
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
}

/// Connections that say nothing; the kernel's limit on files may allow fewer, which is then said.
#[test]
fn thousands_of_idle_connections() {
    const WANTED: usize = 10_000;
    let sandbox = Sandbox::configured("[http]\nconnections_max = 12000\nhead_seconds = 60\n");
    honest(&sandbox);
    let before = resident_kib(&sandbox);
    let mut idle = Vec::with_capacity(WANTED);
    while idle.len() < WANTED {
        match TcpStream::connect(&sandbox.address) {
            Ok(mut socket) if idle.len() % 2 == 0 => {
                // Half of them begin to say something.
                socket.write_all(b"POST / HTTP/1.1\r\nHost:").unwrap();
                idle.push(socket);
            }
            Ok(socket) => idle.push(socket),
            Err(error) => {
                eprintln!("ONLY {} OF {WANTED} CONNECTIONS COULD BE TRIED: {error}", idle.len());
                break;
            }
        }
    }
    assert!(idle.len() >= 500, "too few to tell anything: raise the limit on files (ulimit -n)");
    let began = Instant::now();
    for _ in 0..20 {
        honest(&sandbox);
    }
    let took = began.elapsed() / 20;
    let each = (resident_kib(&sandbox).saturating_sub(before)) as f64 / idle.len() as f64;
    eprintln!("{} idle connections: {each:.1} KiB each, an honest question takes {took:?}", idle.len());
    assert!(each < 32.0, "{each} KiB a connection");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn handshakes_that_are_dropped_cost_nobody_else() {
    let sandbox = Sandbox::with(&["--tls"]);
    let before = resident_kib(&sandbox);
    // The first bytes of a ClientHello that never ends.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut left_open = Vec::new();
    for turn in 0..600 {
        let mut socket = connect(&sandbox);
        socket.write_all(&hello[..1 + turn % hello.len()]).unwrap();
        if turn % 3 == 0 {
            left_open.push(socket);
        }
    }
    let ca = sandbox.log();
    assert!(!ca.contains("panicked"), "{ca}");
    // Whoever speaks plain HTTP is told; that takes a connection, a thread's turn and no handshake.
    let reply = sandbox.get("/healthz");
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("This port speaks TLS"));
    let after = resident_kib(&sandbox);
    assert!(after < before + 64 * 1024, "{before} KiB before, {after} KiB after");
}

/// What real clients sent, as bytes on the wire.
fn captures() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/tencent/captures");
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let on_the_wire = |bytes: Vec<u8>| {
        let end = bytes.windows(2).position(|two| two == b"\n\n").map_or(bytes.len(), |at| at + 2);
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().replace('\n', "\r\n");
        [head.as_bytes(), &bytes[end..]].concat()
    };
    files.map(on_the_wire).collect()
}

/// Requests of real clients, with a few bytes of them changed: something is answered, or the connection ends.
#[test]
fn nonsense_has_an_end() {
    let sandbox = Sandbox::configured(HASTY);
    let captures = captures();
    let mut seed = 0x4e4e_4e4e_u64;
    for turn in 0..300 {
        let mut bytes = captures[turn % captures.len()].clone();
        for _ in 0..turn % 6 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 25) as u8;
        }
        let mut socket = connect(&sandbox);
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        until_closed(&mut socket);
    }
    honest(&sandbox);
    let panics = Reply::text(&sandbox.get("/metrics"));
    assert!(panics.contains("card4e_panics_total 0\n"), "{panics}");
}
