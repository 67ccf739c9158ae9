//! Looking after callers and credentials: through the control socket of a running server, or alone
//! with the data folder when none runs.
//!
//! The socket is a file in the data folder that only its owner may open; one JSON request a line, one
//! JSON answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use engine::caller::{Action, AddressRange, Purpose, Standing};
use engine::clock::utc_text;
use engine::file::unhex;
use engine::ledger::{Credits, Entry};
use engine::operator::{Act, By};
use engine::register::{Kind, Terms, Wish};
use engine::settle::Desk;
use engine::spending::Billed;
use engine::vault::KeyGroup;
use engine::{Engine, Running};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::accounts;
use crate::installation::{Installation, Place};
use crate::upstream::Upstream;
use crate::verify::{self, Elements};

/// What can be asked of a server from its own machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// A new caller.
    CreateCaller { name: String, operator: bool, unlimited: bool, free: Credits },
    /// Who there is.
    ListCallers,
    /// Suspend, resume, or take back the confirmation.
    SetStanding { name: String, standing: Standing },
    /// Credits for a caller.
    Recharge { name: String, amount: Credits },
    /// Other terms for a caller.
    SetTerms { name: String, terms: Terms },
    /// A new credential.
    Issue {
        caller: String,
        kind: KindWord,
        expires_in_ms: Option<i64>,
        addresses: Vec<AddressRange>,
        signed_payload_only: bool,
        actions: Vec<Action>,
        purpose: Option<Purpose>,
    },
    /// Which credentials there are.
    ListCredentials { caller: Option<String> },
    /// A new secret for a credential.
    Rotate { id: u32, overlap_ms: i64 },
    /// Make a credential invalid.
    Revoke { id: u32 },
    /// Who logs in to the console with a password.
    ListPeople,
    /// An invitation to register.
    Invite { days: u32 },
    /// A code to choose another password with.
    ResetPassword { login: String },
    /// One question in a caller's name.
    Verify { caller: String, action: Action, elements: Elements, purpose: Option<Purpose> },
    /// Many questions in a caller's name; blocks of rows follow on the same connection.
    VerifyRows(crate::bulk::Asked),
    /// How the server is.
    Status,
    /// How providers are doing, and what was spent on them.
    Providers,
    /// What purchases cost after all, by a provider's bill.
    Billed { billed: Vec<Billed> },
    /// Begin to replace keys, or go on with what was begun.
    RotateKeys { groups: Vec<KeyGroup> },
    /// How far that is.
    KeyRotation,
    /// Every version of every key, without its value.
    ListKeys,
    /// Seal the key ring with another root key: 64 hex digits.
    ReplaceRootKey { root: Hidden },
    /// Begin to erase everything about a card.
    Erase { card: Hidden },
    /// How far that is.
    Erasure,
    /// How the account of a card stands.
    FindAccount { card: Hidden },
    /// A change of one account, as JSON.
    ChangeAccount { order: Hidden },
    /// Something is about to be done beside the server, which keeps the record of it.
    Record { act: Act },
    /// The passphrase, or the PIN of the token, for a locked server.
    Unseal { secret: Hidden },
}

/// An account, passphrase or key on its way to the server. Does not print.
#[derive(Serialize, Deserialize)]
pub struct Hidden(pub Zeroizing<String>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// The kinds of credentials as they are called on the command line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum KindWord {
    /// SecretId and SecretKey.
    Tencent,
    /// Bearer token.
    Acedata,
    /// Platform token, for management.
    Platform,
}

/// Does what is asked, on an engine that is at work.
fn run(engine: &Arc<Engine>, request: Request, desk: &mut Option<Desk>) -> anyhow::Result<Value> {
    let acting = engine.acting(By::Machine);
    match request {
        Request::Verify { caller, action, elements, purpose } => {
            // Made once a thread: the engine keeps a letter box for each.
            let desk = match desk {
                Some(desk) => desk,
                none => none.insert(engine.desk()?.buying_through(Rc::new(Upstream::default()))),
            };
            verify::put(engine, desk, &caller, action, &elements, purpose)
        }
        Request::VerifyRows(_) => Err(anyhow!("rows come on a connection of their own")),
        Request::CreateCaller { name, operator, unlimited, free } => {
            acting.create_caller(&name, operator, unlimited, free)?;
            Ok(json!({ "created": name }))
        }
        Request::ListCallers => Ok(json!(engine.list_callers())),
        Request::SetStanding { name, standing } => {
            acting.set_standing(&name, standing)?;
            Ok(json!({ "caller": name, "standing": standing }))
        }
        Request::Recharge { name, amount } => {
            acting.grant(&name, amount)?;
            let balance = engine.count_balance(&name).with_context(|| {
                format!("{name} has the credits, so do not give them again; what it has now, `card4e caller list` says")
            })?;
            Ok(json!({ "caller": name, "balance": balance.map(|balance| balance.to_string()) }))
        }
        Request::SetTerms { name, terms } => {
            acting.set_terms(&name, terms)?;
            Ok(json!(engine.list_callers().into_iter().find(|caller| caller.name == name)))
        }
        Request::Issue { caller, kind, expires_in_ms, addresses, signed_payload_only, actions, purpose } => {
            let expires_at_ms = expires_in_ms.map(|after| engine.clock.now_ms().saturating_add(after));
            let wish = Wish { expires_at_ms, addresses, signed_payload_only, actions, purpose, limit: None };
            Ok(json!(acting.issue(&caller, kind.into(), wish)?))
        }
        Request::ListCredentials { caller } => Ok(json!(engine.list_credentials(caller.as_deref())?)),
        Request::Rotate { id, overlap_ms } => Ok(json!(acting.rotate(id, overlap_ms)?)),
        Request::ListPeople => {
            let directory = engine.directory();
            let person = |person: engine::platform::Person| {
                let caller = directory.caller(person.caller).map(|caller| caller.name.clone());
                json!({ "login": person.login, "caller": caller, "registered": utc_text(person.created_at_ms) })
            };
            let people = engine.platform().people()?;
            Ok(people.into_iter().map(person).collect())
        }
        Request::Invite { days } => {
            let (code, until_ms) = acting.invite(days)?;
            Ok(
                json!({ "code": code, "path": format!("/auth/register?invitation={code}"), "expires": utc_text(until_ms) }),
            )
        }
        Request::ResetPassword { login } => {
            let (code, until_ms) = acting.allow_password_reset(&login)?;
            Ok(
                json!({ "code": code, "path": format!("/auth/reset?code={code}"), "expires": utc_text(until_ms) }),
            )
        }
        Request::Revoke { id } => {
            acting.revoke(id)?;
            Ok(json!({ "revoked": id }))
        }
        Request::RotateKeys { groups } => Ok(json!(acting.rotate_keys(&groups)?)),
        Request::KeyRotation => Ok(json!(engine.rotation())),
        Request::ListKeys => Ok(json!(engine.list_keys())),
        Request::ReplaceRootKey { root } => {
            let root = unhex(&root.0).map(Zeroizing::new).context("a root key has 64 hex digits")?;
            let root =
                Zeroizing::new(<[u8; 32]>::try_from(&root[..]).context("a root key has 64 hex digits")?);
            acting.record_act(Act::RootKeyReplaced)?;
            engine.replace_root_key(&root)?;
            Ok(json!({ "replaced": true }))
        }
        Request::Erase { card } => Ok(json!(acting.erase(&card.0)?)),
        Request::Erasure => Ok(json!(engine.erasure())),
        Request::FindAccount { card } => Ok(json!(accounts::look_up(engine, &card.0)?)),
        Request::ChangeAccount { order } => accounts::change(engine, By::Machine, order.0.as_bytes()),
        Request::Record { act } => {
            acting.record_act(act)?;
            Ok(Value::Null)
        }
        Request::Unseal { .. } => Err(anyhow!("this server is not locked")),
        Request::Providers => Ok(json!(engine.provider_status())),
        Request::Billed { billed } => {
            let count = billed.len();
            acting.record_act(Act::BillTakenOver { purchases: count as u32 })?;
            for billed in billed {
                engine.record(Entry::Billed(Billed { at_ms: engine.clock.now_ms(), ..billed }))?;
            }
            Ok(json!({ "recorded": count }))
        }
        Request::Status => {
            let totals = engine.totals();
            Ok(json!({
                "answers": totals.answers,
                "charges": totals.charges,
                "charged_credits": totals.charged.to_string(),
                "under_way": engine.under_way(),
                "store": engine.writing().name(),
            }))
        }
    }
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Kind {
        match word {
            KindWord::Tencent => Kind::Signature,
            KindWord::Acedata => Kind::Bearer,
            KindWord::Platform => Kind::Platform,
        }
    }
}

/// A request is a line of a few hundred bytes; a bill that is taken over comes in parts.
const LINE_MAX_BYTES: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// The change of an account may wait for a batch of an import.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// So many are answered at a time: these are people, not load, but none of them shall wait for another
/// who says nothing.
const THREADS: usize = 4;

/// Where the control socket of a data folder is.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// Listens on the control socket until the process ends.
pub fn listen(engine: Arc<Engine>, folder: &Path) -> anyhow::Result<()> {
    let path = socket(folder);
    // The folder is ours alone, so a socket that is there was left behind.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot make the control socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    for _ in 0..THREADS {
        let (engine, listener) = (Arc::clone(&engine), listener.try_clone()?);
        std::thread::Builder::new().name("card4e-control".into()).spawn(move || {
            let mut desk = None;
            for stream in listener.incoming().flatten() {
                if let Err(error) = answer(&engine, stream, &mut desk) {
                    tracing::warn!(%error, "a control request could not be answered");
                }
            }
        })?;
    }
    Ok(())
}

fn answer(engine: &Arc<Engine>, stream: UnixStream, desk: &mut Option<Desk>) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Zeroizing::new(String::new());
    if BufReader::new((&stream).take(LINE_MAX_BYTES)).read_line(&mut line)? == 0 {
        // Somebody looked whether a server runs.
        return Ok(());
    }
    let told = match serde_json::from_str(&line) {
        Ok(request) => match run_on(engine, request, desk, &stream) {
            Ok(answer) => json!({ "ok": answer }),
            Err(refused) => json!({ "error": format!("{refused:#}") }),
        },
        Err(wrong) => json!({ "error": format!("this server does not understand the request: {wrong}") }),
    };
    Ok((&stream).write_all(format!("{told}\n").as_bytes())?)
}

fn run_on(
    engine: &Arc<Engine>,
    request: Request,
    desk: &mut Option<Desk>,
    stream: &UnixStream,
) -> anyhow::Result<Value> {
    match request {
        Request::VerifyRows(asked) => crate::bulk::serve(engine, asked, stream),
        request => run(engine, request, desk),
    }
}

/// Asks the running server, or does it here when none runs.
pub fn ask(place: &Place, request: Request) -> anyhow::Result<Value> {
    let mut answering = Answering::of(place)?;
    let done = answering.ask(request);
    answering.stop();
    done
}

/// Records what is about to be done in the data folder itself; when it fails, it must not be done. What
/// is done to a sandbox nobody has to answer for.
pub fn record(place: &Place, act: Act) -> anyhow::Result<()> {
    if place.config.is_none() {
        return Ok(());
    }
    let recorded = ask(place, Request::Record { act });
    recorded.map(drop).context("what is about to be done could not be recorded, so it was not done")
}

/// Who does what is asked: the server of an installation, or this process when none runs.
pub enum Answering {
    /// The server that works in this folder.
    Server(PathBuf),
    /// An engine of our own.
    Here(Running),
}

impl Answering {
    /// Looks whether a server runs; only if none does are the keys opened.
    pub fn of(place: &Place) -> anyhow::Result<Answering> {
        let folder = place.folder()?;
        if UnixStream::connect(socket(&folder)).is_ok() {
            return Ok(Answering::Server(folder));
        }
        Answering::here(place.open()?)
    }

    /// The same, where the keys are open already.
    pub fn with(installation: Installation) -> anyhow::Result<Answering> {
        match UnixStream::connect(socket(&installation.folder)) {
            Ok(_) => Ok(Answering::Server(installation.folder)),
            Err(_) => Answering::here(installation),
        }
    }

    fn here(mut installation: Installation) -> anyhow::Result<Answering> {
        // The log is grown by a server, which has the time.
        installation.policy.log_bytes = 0;
        Ok(Answering::Here(installation.start()?))
    }

    /// Asks one thing.
    pub fn ask(&mut self, request: Request) -> anyhow::Result<Value> {
        match self {
            Answering::Server(folder) => {
                let stream = UnixStream::connect(socket(folder)).context("the server has stopped")?;
                ask_server(&stream, &request)
            }
            Answering::Here(running) => {
                if matches!(request, Request::Verify { .. }) {
                    running.engine.await_accounts()?;
                }
                run(&running.engine, request, &mut None)
            }
        }
    }

    /// Ends an engine of our own.
    pub fn stop(self) {
        if let Answering::Here(running) = self {
            running.stop();
        }
    }
}

/// Asks the server that works in a data folder; `None` when none does.
pub fn ask_running(folder: &Path, request: &Request) -> Option<anyhow::Result<Value>> {
    Some(ask_server(&UnixStream::connect(socket(folder)).ok()?, request))
}

/// Asks one thing on a connection to a server.
pub fn ask_server(mut stream: &UnixStream, request: &Request) -> anyhow::Result<Value> {
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut line = Zeroizing::new(serde_json::to_vec(request)?);
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut told: Value = serde_json::from_str(&line).context("the server's answer cannot be read")?;
    match told["error"].as_str() {
        Some(refused) => Err(anyhow!("{refused}")),
        None => Ok(told["ok"].take()),
    }
}
