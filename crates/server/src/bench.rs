//! `card4e bench`: how fast a server answers, asked as its clients ask: signed, over sockets, every answer
//! read and compared.
//!
//! One thread, so that it can be given a core of its own. In a *closed* loop each connection asks again
//! once it is answered. In an *open* loop (`--rate`) questions fall due at fixed times, and each is timed
//! from when it was due: a server that stalls is charged for everybody who would have asked meanwhile.
//! Counted are the questions that were sent after the warm-up.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Args, ValueEnum};
use engine::clock::Clock;
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use engine::vault::random;
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use wire::acedata::Endpoint;
use wire::tencent::action::Action as Name;
use wire::tencent::signature::JsonPost;

use crate::sandbox::{PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN};

/// `card4e bench`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e bench --url http://127.0.0.1:4400 --wire tencent --connections 64 --seconds 10
  card4e bench --url http://127.0.0.1:4400 --wire acedata --rate 5000      at a fixed rate
  taskset -c 1 card4e bench --url http://127.0.0.1:4400 --wire tencent --claims claims.csv --json

Without keys it asks as the sandbox's public application. Give a server's own in the environment:
CARD4E_SECRET_ID and CARD4E_SECRET_KEY, or CARD4E_TOKEN.")]
pub struct Options {
    /// Where the server is, with http://.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4400")]
    url: String,

    /// Over which wire to ask.
    #[arg(long, value_enum, default_value = "tencent")]
    wire: Wire,

    /// Connections, each with one question at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,

    /// How long it is measured.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// How long it is asked before anything is measured; what is sent after that counts.
    #[arg(long, value_name = "S", default_value_t = 1)]
    warm_up: u64,

    /// Questions a second in all; without it as many as are answered.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// Ask about these, as `card4e synth --claims` writes them, and count answers that are not right.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,

    /// Encrypt the elements, with a key of its own for each question.
    #[arg(long)]
    encrypted: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[arg(long, env = "CARD4E_SECRET_ID", default_value = PUBLIC_SECRET_ID, hide = true)]
    secret_id: String,
    #[arg(long, env = "CARD4E_SECRET_KEY", default_value = PUBLIC_SECRET_KEY, hide = true, hide_env_values = true)]
    secret_key: String,
    #[arg(long, env = "CARD4E_TOKEN", default_value = PUBLIC_TOKEN, hide = true, hide_env_values = true)]
    token: String,
}

/// The wires that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Wire {
    /// BankCard4EVerification, signed with TC3.
    Tencent,
    /// check-4e with a bearer token.
    Acedata,
}

/// A question and what must come back: the number on the wire.
struct Claim {
    name: String,
    card: String,
    id: String,
    mobile: String,
    expected: Option<Outcome>,
}

impl Claim {
    /// The documented sample, which every sandbox knows.
    fn sample() -> Claim {
        let text = str::to_owned;
        Claim {
            name: text("韦小宝"),
            card: text("6225768888888888"),
            id: text("11204416541220243X"),
            mobile: text("16137688175"),
            expected: None,
        }
    }
}

/// What a run found.
#[derive(Debug, Serialize)]
struct Report {
    wire: Wire,
    connections: u32,
    seconds: f64,
    rate: Option<f64>,
    requests: u64,
    requests_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    /// The same from when a question was sent, where that is not when it was due: with a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<FromSent>,
    /// Questions the server had no time for, and said so.
    refused: u64,
    /// Other replies that are no answer, and connections that broke.
    errors: u64,
    /// Answers that are not the claim's.
    wrong: u64,
    /// CPU of the server for each request, microseconds; absent where it does not tell.
    server_cpu_us_per_request: Option<f64>,
}

/// Latencies from when a question was sent, and what was due and not sent.
#[derive(Debug, Serialize)]
struct FromSent {
    p50_us: u64,
    p99_us: u64,
    /// Questions that were due and whose connection still waited for the answer before, at the end.
    unsent: u64,
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let address =
        options.url.strip_prefix("http://").context("--url begins with http://; TLS is not measured")?;
    let address = address.trim_end_matches('/').to_owned();
    ensure!(options.rate.is_none_or(|rate| rate > 0.0), "--rate is more than 0");
    let claims = options.claims.as_deref().map_or_else(|| Ok(vec![Claim::sample()]), read_claims)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, measure(options, &address, claims))?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&mut out, &report)?;
    }
    ensure!(report.wrong == 0, "{} answers are not what the claims say", HumanCount(report.wrong));
    ensure!(report.requests > 0, "nothing was answered; is the rate limit of the caller off?");
    Ok(())
}

fn print(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let Report { requests, seconds, requests_per_second, p50_us, p99_us, p999_us, max_us, .. } = report;
    let Report { refused, errors, .. } = report;
    writeln!(
        out,
        "{} answers in {seconds:.1} s on {} connections\n",
        HumanCount(*requests),
        report.connections
    )?;
    writeln!(out, "  requests/s  {}", HumanCount(*requests_per_second as u64))?;
    writeln!(out, "  latency     p50 {p50_us} us, p99 {p99_us} us, p99.9 {p999_us} us, most {max_us} us")?;
    if let Some(FromSent { p50_us, p99_us, unsent }) = &report.sent {
        writeln!(
            out,
            "  from sent   p50 {p50_us} us, p99 {p99_us} us; {} were due and not sent",
            HumanCount(*unsent)
        )?;
    }
    writeln!(out, "  refused     {}", HumanCount(*refused))?;
    writeln!(out, "  errors      {}", HumanCount(*errors))?;
    match report.server_cpu_us_per_request {
        Some(us) => writeln!(out, "  server CPU  {us:.1} us a request"),
        None => Ok(()),
    }
}

fn read_claims(path: &Path) -> anyhow::Result<Vec<Claim>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    ensure!(
        lines.next() == Some("bank_card,name,id_number,phone,outcome"),
        "{} is not what `card4e synth --claims` writes",
        path.display()
    );
    let claim = |line: &str| {
        let [card, name, id, mobile, outcome] = line.split(',').collect::<Vec<_>>()[..] else {
            bail!("a line of {} has not five columns", path.display())
        };
        let [card, name, id, mobile] = [card, name, id, mobile].map(str::to_owned);
        Ok(Claim { name, card, id, mobile, expected: Outcome::named(outcome) })
    };
    lines.map(claim).collect()
}

/// Everything the connections share.
struct Shared {
    address: String,
    wire: Wire,
    keys: [String; 3],
    claims: Vec<Claim>,
    sealer: Option<Sealer>,
    clock: Clock,
    /// By claim: a request and when it was signed. What is asked again is sent again as it is, so that
    /// signing does not bound what can be measured.
    signed: RefCell<Vec<Option<Signed>>>,
}

/// A request, and when it was signed, unix seconds.
type Signed = (i64, Rc<[u8]>);

/// For so long a signed request is sent again; servers take it for five minutes.
const SIGNED_FOR_S: i64 = 120;

/// Times in microseconds, three digits of each; what is later than an hour counts as an hour.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    const HOUR_US: u64 = 3_600_000_000;
    Ok(Histogram::new_with_bounds(1, HOUR_US, 3)?)
}

/// What a server that has no time answers on either wire.
const REFUSALS: [&str; 3] = ["\"ServiceUnavailable\"", "\"RequestLimitExceeded\"", "\"too_many_requests\""];

/// What one connection counts.
struct Tally {
    times: Histogram<u64>,
    from_sent: Histogram<u64>,
    unsent: u64,
    refused: u64,
    errors: u64,
    wrong: u64,
}

impl Tally {
    fn new() -> anyhow::Result<Tally> {
        let (times, from_sent) = (histogram()?, histogram()?);
        Ok(Tally { times, from_sent, unsent: 0, refused: 0, errors: 0, wrong: 0 })
    }
}

async fn measure(options: &Options, address: &str, claims: Vec<Claim>) -> anyhow::Result<Report> {
    let sealer = if options.encrypted { Some(Sealer::of(address).await?) } else { None };
    let shared = Rc::new(Shared {
        address: address.to_owned(),
        wire: options.wire,
        keys: [options.secret_id.clone(), options.secret_key.clone(), options.token.clone()],
        signed: RefCell::new(vec![None; claims.len()]),
        claims,
        sealer,
        clock: Clock::default(),
    });
    shared.sign_all();
    let begin = Instant::now() + Duration::from_secs(options.warm_up);
    let end = begin + Duration::from_secs(options.seconds);
    let connections = u64::from(options.connections);
    let every = options.rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..connections {
        let offset = every.map_or(Duration::ZERO, |every| every.mul_f64(number as f64 / connections as f64));
        let asker = Asker { shared: Rc::clone(&shared), next: number, step: connections };
        asking.spawn_local(asker.ask(begin, end, every.map(|every| (every, offset))));
    }
    tokio::time::sleep_until(begin.into()).await;
    let cpu_before = server_cpu(address).await;
    let mut all = Tally::new()?;
    while let Some(tally) = asking.join_next().await {
        let tally = tally?.with_context(|| format!("cannot reach {address}"))?;
        all.times.add(&tally.times)?;
        all.from_sent.add(&tally.from_sent)?;
        all.unsent += tally.unsent;
        all.refused += tally.refused;
        all.errors += tally.errors;
        all.wrong += tally.wrong;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_after = server_cpu(address).await;
    let requests = all.times.len();
    let cpu =
        cpu_before.zip(cpu_after).map(|(before, after)| (after - before) * 1e6 / requests.max(1) as f64);
    Ok(Report {
        wire: options.wire,
        connections: options.connections,
        seconds,
        rate: options.rate,
        requests,
        requests_per_second: requests as f64 / seconds,
        p50_us: all.times.value_at_quantile(0.5),
        p99_us: all.times.value_at_quantile(0.99),
        p999_us: all.times.value_at_quantile(0.999),
        max_us: all.times.max(),
        sent: options.rate.map(|_| FromSent {
            p50_us: all.from_sent.value_at_quantile(0.5),
            p99_us: all.from_sent.value_at_quantile(0.99),
            unsent: all.unsent,
        }),
        refused: all.refused,
        errors: all.errors,
        wrong: all.wrong,
        server_cpu_us_per_request: cpu,
    })
}

/// One connection.
struct Asker {
    shared: Rc<Shared>,
    next: u64,
    step: u64,
}

impl Asker {
    async fn ask(
        mut self,
        begin: Instant,
        end: Instant,
        open: Option<(Duration, Duration)>,
    ) -> anyhow::Result<Tally> {
        let mut tally = Tally::new()?;
        let mut connection = Connection::open(&self.shared.address).await?;
        let mut due = Instant::now() + open.map_or(Duration::ZERO, |(_, offset)| offset);
        loop {
            if open.is_some() {
                until(due).await;
            } else {
                due = Instant::now();
            }
            let sent = Instant::now();
            if due >= end || sent >= end {
                let late = end.saturating_duration_since(due);
                tally.unsent = open.map_or(0, |(every, _)| late.div_duration_f64(every) as u64);
                return Ok(tally);
            }
            let at = (self.next % self.shared.claims.len() as u64) as usize;
            self.next += self.step;
            let (claim, request) = (&self.shared.claims[at], self.shared.request(at));
            let answered = connection.exchange(&request).await;
            // Not by when it was due: above what can be answered, what is sent after the warm-up was due in it.
            let (took, counts) = ([due.elapsed(), sent.elapsed()], sent >= begin);
            match answered {
                Ok(body) if counts => self.shared.judge(claim, body, took, &mut tally),
                Ok(_) => {}
                Err(_) => {
                    tally.errors += u64::from(counts);
                    connection = Connection::open(&self.shared.address).await?;
                }
            }
            if let Some((every, _)) = open {
                due += every;
            }
        }
    }
}

/// The runtime's timer knows milliseconds; the rest of the way is waited for awake.
async fn until(due: Instant) {
    tokio::time::sleep_until((due.checked_sub(Duration::from_millis(2)).unwrap_or(due)).into()).await;
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

impl Shared {
    /// `took`: since it was due, and since it was sent.
    fn judge(&self, claim: &Claim, body: &str, took: [Duration; 2], tally: &mut Tally) {
        let member = match self.wire {
            Wire::Tencent => "\"Result\":\"",
            Wire::Acedata => "\"result\":\"",
        };
        let number = body.split_once(member).and_then(|(_, rest)| rest.split_once('"'));
        let Some((number, _)) = number else {
            let is_refused = REFUSALS.iter().any(|word| body.contains(word));
            *if is_refused { &mut tally.refused } else { &mut tally.errors } += 1;
            return;
        };
        let [from_due, from_sent] = took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        tally.times.saturating_record(from_due);
        tally.from_sent.saturating_record(from_sent);
        let number_of = |outcome| match self.wire {
            Wire::Tencent => projection::tencent(Name::BankCard4EVerification, outcome),
            Wire::Acedata => projection::acedata(AceDataNumbering::Documented, Endpoint::BankCard4E, outcome),
        };
        let expected = claim.expected.and_then(number_of).map(|code| code.number);
        tally.wrong += u64::from(expected.is_some_and(|expected| number != expected.to_string()));
    }

    /// Signs every question, before anything is measured.
    fn sign_all(&self) {
        if self.sealer.is_none() {
            (0..self.claims.len()).for_each(|at| drop(self.request(at)));
        }
    }

    /// The bytes of a question, signed now or lately. Encrypted ones are made each time: each has a key of
    /// its own.
    fn request(&self, at: usize) -> Rc<[u8]> {
        let now = self.clock.now_ms().div_euclid(1000);
        if let Some((when, request)) = &self.signed.borrow()[at]
            && now - when < SIGNED_FOR_S
        {
            return Rc::clone(request);
        }
        let request: Rc<[u8]> = self.sign(&self.claims[at], now).into();
        if self.sealer.is_none() {
            self.signed.borrow_mut()[at] = Some((now, Rc::clone(&request)));
        }
        request
    }

    fn sign(&self, claim: &Claim, timestamp: i64) -> Vec<u8> {
        let body = self.body(claim).to_string();
        let [secret_id, secret_key, token] = &self.keys;
        let (length, host) = (body.len(), &self.address);
        match self.wire {
            Wire::Acedata => format!(
                "POST /identity/bankcard/check-4e HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes(),
            Wire::Tencent => {
                let action = "BankCard4EVerification";
                let post = JsonPost { host, action, body: body.as_bytes(), timestamp };
                post.to_http1(secret_id, secret_key, &[])
            }
        }
    }

    fn body(&self, claim: &Claim) -> Value {
        let Claim { name, card, id, mobile, .. } = claim;
        let plain = [name.as_str(), card, id, mobile];
        let sealed = self.sealer.as_ref().map(|sealer| sealer.seal(plain));
        let [name, card, id, mobile] = match &sealed {
            Some(sealed) => sealed.elements.each_ref().map(String::as_str),
            None => plain,
        };
        let mut body = match self.wire {
            Wire::Tencent => json!({ "Name": name, "BankCard": card, "IdCard": id, "Phone": mobile }),
            Wire::Acedata => json!({ "name": name, "bank_card": card, "id_card": id, "phone": mobile }),
        };
        if let Some(Sealed { blob, iv, .. }) = &sealed {
            match self.wire {
                Wire::Tencent => {
                    body["Encryption"] = json!({
                        "EncryptList": ["Name", "BankCard", "IdCard", "Phone"],
                        "CiphertextBlob": blob, "Iv": iv, "Algorithm": "AES-256-CBC",
                    });
                }
                Wire::Acedata => {
                    body["encryption"] = json!({
                        "encrypt_list": ["name", "bank_card", "id_card", "phone"],
                        "ciphertext_blob": blob, "iv": iv, "algorithm": "AES-256-CBC",
                    });
                }
            }
        }
        body
    }
}

/// Encrypts for the server's RSA key, as Tencent's helpers do.
struct Sealer(Pkcs1PublicEncryptingKey);

struct Sealed {
    blob: String,
    iv: String,
    elements: [String; 4],
}

impl Sealer {
    async fn of(address: &str) -> anyhow::Result<Sealer> {
        let keys = get(address, "/encryption-keys").await?;
        let keys: Value = serde_json::from_str(&keys).context("/encryption-keys is not JSON")?;
        let pem = keys["rsa"]["spki_pem"].as_str().context("the server has no RSA key to encrypt for")?;
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).context("the server's RSA key is no PEM")?;
        let broken = |_| anyhow::anyhow!("the server's RSA key cannot be read");
        let key = PublicEncryptingKey::from_der(&der).map_err(broken)?;
        let key = Pkcs1PublicEncryptingKey::new(key)
            .map_err(|_| anyhow::anyhow!("the RSA key does not encrypt"))?;
        Ok(Sealer(key))
    }

    fn seal(&self, elements: [&str; 4]) -> Sealed {
        let (key, iv): ([u8; 32], [u8; 16]) = (random(), random());
        let mut blob = vec![0; self.0.ciphertext_size()];
        // A key of 32 bytes always fits.
        let blob =
            self.0.encrypt(&key, &mut blob).map(|blob| BASE64_STANDARD.encode(blob)).unwrap_or_default();
        let elements = elements.map(|text| BASE64_STANDARD.encode(cbc(&key, &iv, text.as_bytes())));
        Sealed { blob, iv: BASE64_STANDARD.encode(iv), elements }
    }
}

/// AES-256-CBC with PKCS#7 padding, the client's side.
fn cbc(key: &[u8; 32], iv: &[u8; 16], text: &[u8]) -> Vec<u8> {
    use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
    let sealed = || {
        let key = UnboundCipherKey::new(&AES_256, key).ok()?;
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
        let mut text = text.to_vec();
        key.less_safe_encrypt(&mut text, EncryptionContext::Iv128((*iv).into())).ok()?;
        Some(text)
    };
    sealed().unwrap_or_default()
}

/// A connection that is kept, and what it has read.
struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> std::io::Result<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, read: Vec::with_capacity(4096) })
    }

    /// Sends a request and gives the body of its reply. Knows no more of HTTP than this server sends.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<&str> {
        const PATIENCE: Duration = Duration::from_secs(30);
        self.socket.write_all(request).await?;
        self.read.clear();
        loop {
            if let Some((from, until)) = body_of(&self.read)?
                && self.read.len() >= until
            {
                return Ok(std::str::from_utf8(&self.read[from..until])?);
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.read)).await??;
            ensure!(read > 0, "the connection was closed");
        }
    }
}

/// Where the body of a reply begins and ends, once its head is there.
fn body_of(read: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end])?;
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("a reply without its length")?;
    Ok(Some((end + 4, end + 4 + length)))
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut connection =
        Connection::open(address).await.with_context(|| format!("cannot reach {address}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    Ok(connection.exchange(request.as_bytes()).await?.to_owned())
}

/// Seconds of CPU the server has used.
async fn server_cpu(address: &str) -> Option<f64> {
    let metrics = get(address, "/metrics").await.ok()?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "))?;
    line.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each request of a connection after a while, whatever it asks.
    async fn slow_server(listener: tokio::net::TcpListener, takes: Duration) {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"result\":\"0\"}";
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = socket.read(&mut request).await {
                    tokio::time::sleep(takes).await;
                    let _ = socket.write_all(ANSWER).await;
                }
            });
        }
    }

    #[test]
    fn more_than_can_be_answered_is_counted_by_when_it_was_sent() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let line = "bench --wire acedata --connections 2 --rate 1000 --warm-up 1 --seconds 1";
        let Line { options } = clap::Parser::parse_from(line.split(' '));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            tokio::task::spawn_local(slow_server(listener, Duration::from_millis(20)));
            measure(&options, &address, vec![Claim::sample()]).await.unwrap()
        });
        // All of them were due within the first tenth of a second.
        assert!((2..=110).contains(&report.requests), "{report:?}");
        let sent = report.sent.unwrap();
        assert!(report.p50_us > 900_000 && sent.p50_us < 900_000, "{} and {}", report.p50_us, sent.p50_us);
        assert!(sent.unsent > 1_000, "{}", sent.unsent);
    }

    #[test]
    fn a_reply_is_whole_when_its_length_is_there() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body_of(&reply[..20]).unwrap(), None);
        assert_eq!(body_of(reply).unwrap(), Some((38, 40)));
        assert!(body_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
