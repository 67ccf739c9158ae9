//! Many questions at once, whoever sends them: rows are dealt to all cores in turn, taken back in turn, and
//! settled in their order.
//!
//! Whoever has the data folder settles. Where a server works in it, `card4e verify-file` sends its rows
//! through the control socket; where none does, it opens the folder itself. Both do it with [`run`].

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, available_parallelism};
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::Engine;
use engine::bulk::{Answers, BLOCK_ROWS, Job, Judged, NOT_ASKED, NotBegun, Rows, Session, Unsettled};
use engine::caller::{Action, Credential, Purpose, Wire};
use engine::file::{hex, unhex};
use engine::ledger::Credits;
use engine::operator::{Act, By};
use engine::outcome::Outcome;
use engine::register::RegisterError;
use engine::store::StoreError;
use engine::vault::Wiped;
use engine::verify::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::installation::Place;
use crate::manage::{Answering, Request, socket};
use crate::verify::said;
use crate::verify_file::csv;

/// Rows that follow one another, and the place of the first in its job, from 0.
pub struct Block {
    /// The place.
    pub first_row: u64,
    /// The rows.
    pub rows: Questions,
}

/// Rows, or the lines of a file that whoever looks them up makes rows of: one thread reads for all cores.
pub enum Questions {
    /// Rows.
    Rows(Rows),
    /// Lines.
    Lines(csv::Text),
}

impl Questions {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Questions::Rows(rows) => rows.len(),
            Questions::Lines(text) => text.len(),
        }
    }

    /// As rows.
    pub fn rows(self) -> Rows {
        match self {
            Questions::Rows(rows) => rows,
            Questions::Lines(text) => text.rows(),
        }
    }
}

/// Why rows are not answered. Nothing was charged for them.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// As with a single question.
    #[error("{}", said(*.0))]
    Refused(Refusal),
    /// More than may be without an approval.
    #[error("more than {0} rows need an approval")]
    NotApproved(u64),
    /// Not the rows of before.
    #[error("these are not the rows that were settled under this name: another file, or a changed one")]
    OtherRows,
    /// Answered at another node.
    #[error("another node has just answered these rows; send the same ones again when it has ended")]
    Elsewhere,
    /// Not to be read any more.
    #[error("the answers to these rows were erased from the ledger; begin anew")]
    Erased,
    /// The accounts.
    #[error("the accounts cannot be read: {0}")]
    Store(#[from] StoreError),
    /// No thread.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<Unsettled> for Stopped {
    fn from(unsettled: Unsettled) -> Stopped {
        match unsettled {
            Unsettled::Refused(refusal) => Stopped::Refused(refusal),
            Unsettled::OtherRows => Stopped::OtherRows,
            Unsettled::Erased => Stopped::Erased,
            Unsettled::Elsewhere => Stopped::Elsewhere,
        }
    }
}

/// Whether the other one still listens.
pub type IsHeard = bool;

/// Answers blocks in their order until none comes any more, nobody listens or one is not answered.
///
/// Rows settled before are told again, if they come in the same pieces ([`Session::settled`]). No more
/// than `approved` rows are answered in all.
pub fn run(
    session: Session,
    approved: u64,
    blocks: Receiver<Block>,
    mut tell: impl FnMut(Answers) -> IsHeard,
) -> Result<(), Stopped> {
    type Looked = (u64, usize, Result<Judged, Refusal>);
    let workers = available_parallelism().map_or(1, usize::from);
    let (mut dealt, mut taken) = (Vec::new(), Vec::new());
    let settled: Arc<[u64]> = session.settled().iter().map(|settled| settled.first_row).collect();
    for _ in 0..workers {
        let (deal, given) = sync_channel::<Block>(1);
        let (give, judged) = sync_channel::<Looked>(1);
        let (judge, settled) = (session.judge()?, Arc::clone(&settled));
        let work = move || {
            // Whoever asks one question goes first.
            let _ = rustix::process::nice(5);
            for Block { first_row, rows } in given {
                let count = rows.len();
                let judged = match settled.binary_search(&first_row) {
                    Ok(_) => Ok(Judged::again(rows.rows())),
                    Err(_) => judge.judge(rows.rows()),
                };
                if give.send((first_row, count, judged)).is_err() {
                    return;
                }
            }
        };
        Builder::new().name("card4e-rows".into()).spawn(work)?;
        dealt.push(deal);
        taken.push(judged);
    }
    let deal_out = move || {
        for (to, block) in dealt.iter().cycle().zip(blocks) {
            if to.send(block).is_err() {
                return;
            }
        }
    };
    Builder::new().name("card4e-deal".into()).spawn(deal_out)?;
    for from in taken.iter().cycle() {
        // Whoever dealt has ended: the next in turn has nothing.
        let Ok((first_row, count, judged)) = from.recv() else { return Ok(()) };
        let is_new = settled.binary_search(&first_row).is_err();
        if is_new && first_row + count as u64 > approved {
            return Err(Stopped::NotApproved(approved));
        }
        let answers = session.settle(first_row, judged.map_err(Stopped::Refused)?)?;
        let answered = answers.outcomes.len();
        if !tell(answers) {
            return Ok(());
        }
        if answered < count {
            return Err(Stopped::Refused(Refusal::Arrears));
        }
    }
    Ok(())
}

/// How many rows may go into the next block: those that were settled come again in the same pieces.
pub fn next_block(settled: &[Piece], first_row: u64) -> usize {
    match settled.iter().find(|(first, rows)| first + rows > first_row) {
        Some((first, rows)) if *first <= first_row => (first + rows - first_row) as usize,
        Some((first, _)) => ((first - first_row) as usize).min(BLOCK_ROWS),
        None => BLOCK_ROWS,
    }
}

/// First row and number of rows that were settled.
pub type Piece = (u64, u64);

/// What is asked in a caller's name, from the machine itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The caller.
    pub caller: String,
    /// What is asked of each row.
    pub action: Action,
    /// Why.
    pub purpose: Option<Purpose>,
    /// The job, 32 hex digits.
    pub job: String,
    /// So many rows somebody has approved.
    pub approved: Option<u64>,
}

/// A job in an engine at work, and how many rows of it may be answered; nothing while somebody else is at it.
fn begun(engine: &Arc<Engine>, asked: Asked) -> anyhow::Result<Option<(Session, u64)>> {
    let Asked { caller, action, purpose, job, approved } = asked;
    let directory = engine.directory();
    let found = directory.applications().find(|application| application.name == caller);
    let application = found.ok_or_else(|| RegisterError::NoCaller(caller.clone()))?;
    if purpose.as_ref().is_some_and(|purpose| !purpose.is_sound()) {
        return Err(RegisterError::Purpose.into());
    }
    let id = unhex(&job).and_then(|id| id.try_into().ok()).context("a job has 32 hex digits")?;
    let usual = engine.policy().bulk_rows_max;
    if let Some(rows) = approved.filter(|rows| *rows > usual) {
        engine.acting(By::Machine).record_act(Act::BulkApproved { application: application.id, rows })?;
    }
    let credential = Credential::of_this_machine(application.id);
    let approved = approved.unwrap_or(0).max(usual);
    match engine.bulk(Job { id, credential, wire: Wire::Native, action, purpose }) {
        Ok(session) => Ok(Some((session, approved))),
        Err(NotBegun::UnderWay) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// How long the last rows of a client that was killed may take a server.
const ENDING: Duration = Duration::from_secs(30);

const BUSY: &str = "another `card4e verify-file` is at this job; let it end";

/// What comes back.
pub enum Event {
    /// Answers to the rows in turn.
    Answers(Answers),
    /// No more; why.
    Stopped(String),
    /// All rows are answered.
    Done,
}

/// A job under way, here or in a server.
pub struct Asking {
    /// What was settled of it before.
    pub settled: Vec<Piece>,
    /// Blocks go here; dropped, that was all.
    pub blocks: SyncSender<Block>,
    /// Answers come from here.
    pub told: Receiver<Event>,
    answering: Option<Answering>,
}

/// Blocks on their way.
const DEPTH: usize = 2;

impl Asking {
    /// Begins a job, or goes on with it: through the server that works in the folder, or here.
    pub fn begin(place: &Place, asked: Asked) -> anyhow::Result<Asking> {
        let answering = Answering::of(place)?;
        let (blocks, given) = sync_channel(DEPTH);
        let (tell, told) = sync_channel(DEPTH);
        let settled = match &answering {
            Answering::Here(running) => {
                running.engine.await_accounts()?;
                let (session, approved) = begun(&running.engine, asked)?.context(BUSY)?;
                running.engine.keep_table()?;
                let settled = pieces(&session);
                Builder::new()
                    .name("card4e-bulk".into())
                    .spawn(move || here(session, approved, given, &tell))?;
                settled
            }
            Answering::Server(folder) => {
                let (mut stream, told) = connected(folder, asked)?;
                stream.set_read_timeout(None)?;
                let mut from = stream.try_clone()?;
                Builder::new().name("card4e-send".into()).spawn(move || send_all(given, &mut stream))?;
                Builder::new().name("card4e-hear".into()).spawn(move || hear_all(&mut from, &tell))?;
                serde_json::from_value(told["settled"].clone())
                    .context("the server's answer cannot be read")?
            }
        };
        Ok(Asking { settled, blocks, told, answering: Some(answering) })
    }

    /// Ends an engine of our own.
    pub fn stop(&mut self) {
        if let Some(answering) = self.answering.take() {
            answering.stop();
        }
    }
}

/// A connection on which rows can be sent, and what the server said first.
fn connected(folder: &Path, asked: Asked) -> anyhow::Result<(UnixStream, Value)> {
    let (request, began) = (Request::VerifyRows(asked), Instant::now());
    loop {
        let stream = UnixStream::connect(socket(folder)).context("the server has stopped")?;
        let told = crate::manage::ask_server(&stream, &request)?;
        if told["busy"] != true {
            return Ok((stream, told));
        }
        anyhow::ensure!(began.elapsed() < ENDING, BUSY);
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn pieces(session: &Session) -> Vec<Piece> {
    session.settled().iter().map(|settled| (settled.first_row, settled.rows)).collect()
}

fn here(session: Session, approved: u64, given: Receiver<Block>, tell: &SyncSender<Event>) {
    let done = run(session, approved, given, |answers| tell.send(Event::Answers(answers)).is_ok());
    // Whoever asked may have gone.
    let _ = tell.send(done.map_or_else(|why| Event::Stopped(why.to_string()), |()| Event::Done));
}

/// A block is that long at most: rows of a few hundred bytes.
const FRAME_MAX_BYTES: u32 = 256 << 20;

/// Kinds of what a server sends: a byte in front of length and bytes.
const ANSWERS: u8 = 1;
const STOPPED: u8 = 2;
const DONE: u8 = 3;

/// First row, length, bytes; a length of 0 ends it.
fn send_all(given: Receiver<Block>, to: &mut UnixStream) {
    let send = |to: &mut UnixStream, first_row: u64, rows: &[u8]| {
        to.write_all(&first_row.to_le_bytes())?;
        to.write_all(&(rows.len() as u32).to_le_bytes())?;
        to.write_all(rows)
    };
    for Block { first_row, rows } in given {
        if send(to, first_row, &Wiped(rows.rows().to_bytes()).0).is_err() {
            // The reader is told that the server has gone, or why it stopped.
            return;
        }
    }
    let _ = send(to, 0, &[]);
}

fn hear_all(from: &mut UnixStream, tell: &SyncSender<Event>) {
    let mut from = BufReader::new(from);
    loop {
        let event = hear(&mut from).unwrap_or_else(|_| Event::Stopped("the server has stopped".into()));
        let is_last = !matches!(event, Event::Answers(_));
        if tell.send(event).is_err() || is_last {
            return;
        }
    }
}

fn hear(from: &mut impl Read) -> anyhow::Result<Event> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    let Wiped(bytes) = &frame(from)?;
    Ok(match kind[0] {
        ANSWERS => {
            let (price, rest) = bytes.split_first_chunk::<8>().context("too short")?;
            let (replayed, answers) = rest.split_first().context("too short")?;
            let outcome = |answer: &u8| Outcome::ALL.get(usize::from(*answer)).copied();
            Event::Answers(Answers {
                outcomes: answers.iter().map(outcome).collect(),
                price: Credits(i64::from_le_bytes(*price)),
                replayed: *replayed != 0,
            })
        }
        STOPPED => Event::Stopped(String::from_utf8_lossy(bytes).into_owned()),
        _ => Event::Done,
    })
}

fn frame(from: &mut impl Read) -> anyhow::Result<Wiped> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    anyhow::ensure!(length <= FRAME_MAX_BYTES, "a block is too long");
    let mut bytes = Wiped(vec![0; length as usize]);
    from.read_exact(&mut bytes.0)?;
    Ok(bytes)
}

/// Answers a job that came through the control socket, on a thread of its own. Gives what is told first.
pub fn serve(engine: &Arc<Engine>, asked: Asked, stream: &UnixStream) -> anyhow::Result<Value> {
    let Some((session, approved)) = begun(engine, asked)? else { return Ok(json!({ "busy": true })) };
    let told = json!({ "settled": pieces(&session) });
    let (mut to, from) = (stream.try_clone()?, stream.try_clone()?);
    from.set_read_timeout(None)?;
    to.set_write_timeout(None)?;
    let (blocks, given) = sync_channel(DEPTH);
    Builder::new().name("card4e-hear".into()).spawn(move || receive_all(from, &blocks))?;
    let work = move || {
        let done = run(session, approved, given, |answers| send_answers(&mut to, &answers).is_ok());
        let (kind, text) = done.map_or_else(|why| (STOPPED, why.to_string()), |()| (DONE, String::new()));
        // Whoever asked may have gone.
        let _ = send_frame(&mut to, kind, text.as_bytes());
        let _ = to.shutdown(std::net::Shutdown::Both);
    };
    Builder::new().name("card4e-bulk".into()).spawn(work)?;
    Ok(told)
}

fn receive_all(from: UnixStream, blocks: &SyncSender<Block>) {
    let mut from = BufReader::with_capacity(1 << 18, from);
    let mut receive = || -> anyhow::Result<Option<Block>> {
        let mut first_row = [0; 8];
        from.read_exact(&mut first_row)?;
        let Wiped(bytes) = &frame(&mut from)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let rows = Rows::from_bytes(bytes).context("not a block")?;
        Ok(Some(Block { first_row: u64::from_le_bytes(first_row), rows: Questions::Rows(rows) }))
    };
    while let Ok(Some(block)) = receive() {
        if blocks.send(block).is_err() {
            return;
        }
    }
}

fn send_answers(to: &mut UnixStream, answers: &Answers) -> std::io::Result<()> {
    let answer = |outcome: &Option<Outcome>| outcome.map_or(NOT_ASKED, |outcome| outcome as u8);
    let mut bytes = answers.price.0.to_le_bytes().to_vec();
    bytes.push(u8::from(answers.replayed));
    bytes.extend(answers.outcomes.iter().map(answer));
    send_frame(to, ANSWERS, &bytes)
}

fn send_frame(to: &mut UnixStream, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(&[&[kind][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat())
}

/// A new job's number.
pub fn new_job() -> String {
    hex(&engine::vault::random::<16>())
}
