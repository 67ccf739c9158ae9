//! A way to a PostgreSQL server on which messages are lost: at a commit that is named, or as a seed says.
//!
//! Each connection draws from its own seed which of its messages fails, and how; so the same seed breaks the same
//! messages of the same connections, as far as the nodes' threads ask the same in the same order.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::store::postgres::Database;

use super::draws::Draws;
use super::postgres;

/// The way, and who stands on it.
pub struct Proxy {
    shared: Arc<Shared>,
    database: Arc<Database>,
}

struct Shared {
    /// Port of the server.
    server: u16,
    seed: u64,
    connections: AtomicU64,
    /// Faults of the seed happen.
    is_stormy: AtomicBool,
    /// Nothing gets through, and nobody is let in.
    is_cut: AtomicBool,
    /// No block is written.
    is_held: AtomicBool,
    /// Nobody can listen for notices.
    is_deaf: AtomicBool,
    next: Mutex<Option<Loss>>,
    live: Mutex<Vec<TcpStream>>,
    faults: AtomicU64,
}

/// What is to be lost.
struct Loss {
    /// How the statement begins.
    of: &'static str,
    /// Of so many before it nothing is.
    after: u32,
    what: Lose,
}

/// What is lost of a change to the database.
pub enum Lose {
    /// All of it: it is never made.
    Change,
    /// Its answer. Before whoever asked sees that the connection is gone, this is done.
    Answer(Box<dyn FnOnce() + Send>),
}

/// What the seed does to a message on its way to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is lost, and the connection with it.
    Lost,
    /// It arrives, and what is answered up to the end of its transaction is lost with the connection.
    AnswerLost,
    /// It arrives; of the answer so many messages.
    AnswerCut(u64),
    /// It arrives late.
    Late(Duration),
}

impl Proxy {
    /// To the server of this address. The seed counts only in [`Proxy::storm`].
    pub fn new(url: &str, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_, rest) = url.split_once("127.0.0.1:").unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let shared = Arc::new(Shared {
            server: server.parse().unwrap(),
            seed,
            connections: AtomicU64::new(0),
            is_stormy: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            next: Mutex::new(None),
            live: Mutex::default(),
            faults: AtomicU64::new(0),
        });
        let url = format!("postgres://card4e@127.0.0.1:{port}/{name}");
        let database = postgres::database_at(&url);
        let all = Arc::clone(&shared);
        // Ends with the process.
        std::thread::spawn(move || listener.incoming().for_each(|near| all.connect(near.unwrap())));
        Proxy { shared, database }
    }

    /// The database at the end of it.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Loses this of the next statement that begins so, after some of its kind: of the transaction it is in, at
    /// its commit.
    pub fn lose(&self, of: &'static str, after: u32, what: Lose) {
        *self.shared.next.lock().unwrap() = Some(Loss { of, after, what });
    }

    /// The same of the next block that is written.
    pub fn lose_block(&self, what: Lose) {
        self.lose(BLOCK, 0, what);
    }

    /// From now on, or no longer, the writing of a block stands still before its first row.
    pub fn hold_blocks(&self, is_held: bool) {
        self.shared.is_held.store(is_held, Ordering::SeqCst);
    }

    /// From now on whoever wants to listen for notices loses the connection.
    pub fn deafen(&self) {
        self.shared.is_deaf.store(true, Ordering::SeqCst);
    }

    /// From now on, or no longer, messages fail as the seed says.
    pub fn storm(&self, is_stormy: bool) {
        self.shared.is_stormy.store(is_stormy, Ordering::SeqCst);
    }

    /// Cuts every connection, and lets nobody in until it is mended.
    pub fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
        if is_cut {
            self.shared
                .live
                .lock()
                .unwrap()
                .drain(..)
                .for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }

    /// How many messages failed.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

/// One connection, seen from both directions.
struct Line {
    near: TcpStream,
    far: TcpStream,
    /// Answers that still go through; what is to be done when the one is due that does not.
    answers: Mutex<Answers>,
}

enum Answers {
    Pass,
    /// So many more.
    Most(u64),
    /// None; at the end of the transaction this is done.
    Lost(Box<dyn FnOnce() + Send>),
}

impl Line {
    fn end(&self) {
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, near: TcpStream) {
        // One that is refused, like one that is cut later, is tried again.
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let mut live = self.live.lock().unwrap();
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        live.push(near.try_clone().unwrap());
        drop(live);
        let line = Arc::new(Line { near, far, answers: Mutex::new(Answers::Pass) });
        let (there, back) = (Arc::clone(self), Arc::clone(&line));
        std::thread::spawn(move || {
            let draws = Draws(there.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
            let _ = there.carry_there(&line, draws);
            line.end();
        });
        std::thread::spawn(move || {
            let _ = carry_back(&back);
            back.end();
        });
    }

    /// What is to be lost of this statement.
    fn lost_of(&self, statement: &str) -> Option<Lose> {
        let mut next = self.next.lock().unwrap();
        let loss = next.as_mut().filter(|loss| statement.starts_with(loss.of))?;
        if loss.after > 0 {
            loss.after -= 1;
            return None;
        }
        next.take().map(|loss| loss.what)
    }

    /// Carries what the node says.
    fn carry_there(&self, line: &Line, mut draws: Draws) -> std::io::Result<()> {
        let (mut from, mut to) = (BufReader::new(line.near.try_clone()?), line.far.try_clone()?);
        // The first message has no kind.
        let mut message = read_sized(&mut from, Vec::new())?;
        let mut storm = Storm::new(&mut draws);
        let (mut seen, mut lost) = (Seen::default(), None);
        loop {
            let says = |what: &[u8]| message.starts_with(b"Q") && message[5..].starts_with(what);
            let is_commit = says(b"COMMIT");
            if says(b"LISTEN") && self.is_deaf.load(Ordering::SeqCst) {
                return Ok(());
            }
            let statement = seen.statement(&message);
            while statement.is_some_and(|text| text.starts_with(BLOCK)) && self.is_held.load(Ordering::SeqCst)
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            if let Some(what) = statement.and_then(|text| self.lost_of(text)) {
                lost = Some(what);
            }
            if is_commit || !seen.is_in_transaction {
                match lost.take() {
                    Some(Lose::Change) => return Ok(()),
                    Some(Lose::Answer(then)) => *line.answers.lock().unwrap() = Answers::Lost(then),
                    None => {}
                }
            }
            let is_stormy = self.is_stormy.load(Ordering::SeqCst);
            if let Some(fault) = is_stormy.then(|| storm.next(&mut draws, is_commit)).flatten() {
                self.faults.fetch_add(1, Ordering::SeqCst);
                match fault {
                    Fault::Lost => return Ok(()),
                    // In the middle of a transaction nothing would end the silence.
                    Fault::AnswerLost if !is_commit => *line.answers.lock().unwrap() = Answers::Most(0),
                    Fault::AnswerLost => *line.answers.lock().unwrap() = Answers::Lost(Box::new(|| {})),
                    Fault::AnswerCut(after) => *line.answers.lock().unwrap() = Answers::Most(after),
                    Fault::Late(by) => std::thread::sleep(by),
                }
            }
            to.write_all(&message)?;
            message = read_message(&mut from)?;
        }
    }
}

/// How the statement begins that writes a block.
const BLOCK: &str = "INSERT INTO block";

/// What a connection has prepared and begun.
#[derive(Default)]
struct Seen {
    statements: HashMap<Vec<u8>, String>,
    is_in_transaction: bool,
}

impl Seen {
    /// The prepared statement that is to be carried out with this message.
    fn statement(&mut self, message: &[u8]) -> Option<&str> {
        let mut texts = message.get(5..).unwrap_or_default().split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        match message.first()? {
            // Parse: name, query.
            b'P' => {
                let query = String::from_utf8_lossy(second).trim_start().to_owned();
                self.statements.insert(first.to_vec(), query);
                None
            }
            // Bind: portal, name.
            b'B' => self.statements.get(second).map(String::as_str),
            b'Q' => {
                let was_in = self.is_in_transaction;
                self.is_in_transaction =
                    first == b"BEGIN" || was_in && first != b"COMMIT" && first != b"ROLLBACK";
                None
            }
            _ => None,
        }
    }
}

/// Carries what the server says.
fn carry_back(line: &Line) -> std::io::Result<()> {
    let (mut from, mut to) = (BufReader::new(line.far.try_clone()?), line.near.try_clone()?);
    loop {
        let message = read_message(&mut from)?;
        let mut answers = line.answers.lock().unwrap();
        match &mut *answers {
            Answers::Pass => {}
            Answers::Most(0) => return Ok(()),
            Answers::Most(left) => *left -= 1,
            Answers::Lost(_) => {
                // "Ready", and in no transaction: it was made, or undone.
                if message[..] == *b"Z\0\0\0\x05I"
                    && let Answers::Lost(then) = std::mem::replace(&mut *answers, Answers::Pass)
                {
                    then();
                    return Ok(());
                }
                continue;
            }
        }
        drop(answers);
        to.write_all(&message)?;
    }
}

/// Which message of a connection fails, and how.
struct Storm {
    /// After so many more messages; at the next commit then.
    after: u64,
    at_commit: bool,
    fault: Fault,
}

impl Storm {
    fn new(draws: &mut Draws) -> Storm {
        let fault = match draws.below(100) {
            0..20 => Fault::Lost,
            20..50 => Fault::AnswerLost,
            50..65 => Fault::AnswerCut(draws.below(12)),
            65..99 => Fault::Late(Duration::from_millis(draws.below(60))),
            // Longer than a transaction may stand still.
            _ => Fault::Late(Duration::from_millis(5500)),
        };
        Storm { after: draws.below(400), at_commit: draws.one_in(2), fault }
    }

    /// The fault of this message; late ones are not the last.
    fn next(&mut self, draws: &mut Draws, is_commit: bool) -> Option<Fault> {
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        if self.at_commit && !is_commit {
            return None;
        }
        let fault = self.fault;
        *self = Storm::new(draws);
        Some(fault)
    }
}

/// A kind, a length that counts itself, the rest.
fn read_message(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut kind = vec![0];
    from.read_exact(&mut kind)?;
    read_sized(from, kind)
}

fn read_sized(from: &mut impl Read, mut message: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    message.extend(length);
    let start = message.len();
    message.resize(start + u32::from_be_bytes(length) as usize - 4, 0);
    from.read_exact(&mut message[start..])?;
    Ok(message)
}
