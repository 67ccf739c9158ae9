//! `/_sandbox/`: the sandbox under the control of a test suite, in JSON.

use engine::caller::Action;
use engine::clock::{Clock, Mode, utc_text};
use engine::ledger::Entry as LedgerEntry;
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use engine::store::StoreError;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::Incoming;
use wire::code::ResultCode;

use super::credentials::APPLICATIONS;
use super::fault::Rule;
use super::journal::Journal;
use super::people::{People, Person};
use super::{Sandbox, lock, samples};
use crate::front::Server;
use crate::http::Reply;

/// What can be called, for people who guess.
const ROUTES: &str = "POST /_sandbox/reset; GET or PUT /_sandbox/clock; GET, POST or DELETE /_sandbox/faults; \
    DELETE /_sandbox/faults/ID; GET or DELETE /_sandbox/journal; GET or POST /_sandbox/accounts; \
    GET /_sandbox/credentials, /_sandbox/cards, /_sandbox/ledger, /_sandbox/usage";

type Answer = Result<Value, (StatusCode, String)>;

impl Sandbox {
    /// Whether a path is the sandbox's own.
    pub fn owns(path: &str) -> bool {
        path == "/_sandbox" || path.starts_with("/_sandbox/")
    }

    /// Answers control requests.
    pub fn control(&self, server: &Server, incoming: &Incoming<'_>) -> Reply {
        if let Err(why) = from_here(incoming, server.scheme()) {
            return json_reply(StatusCode::FORBIDDEN, &json!({ "error": why }));
        }
        match self.call(server, incoming, incoming.path.trim_end_matches('/')) {
            Ok(answer) => json_reply(StatusCode::OK, &answer),
            Err((status, error)) => json_reply(status, &json!({ "error": error })),
        }
    }

    fn call(&self, server: &Server, incoming: &Incoming<'_>, path: &str) -> Answer {
        let what = path.strip_prefix("/_sandbox/").unwrap_or_default();
        if let Some(id) = what.strip_prefix("faults/") {
            return self.delete_fault(incoming, id);
        }
        match (incoming.method, what) {
            (&Method::POST, "reset") => self.reset(server),
            (&Method::GET, "clock") => Ok(clock(&server.engine.clock)),
            (&Method::PUT, "clock") => set_clock(&server.engine.clock, incoming.body),
            (&Method::GET, "faults") => Ok(json!({ "faults": lock(&self.faults).rules() })),
            (&Method::POST, "faults") => self.add_fault(incoming.body),
            (&Method::DELETE, "faults") => {
                lock(&self.faults).clear();
                Ok(json!({ "faults": [] }))
            }
            (&Method::GET, "journal") => self.journal(incoming.query),
            (&Method::DELETE, "journal") => {
                *lock(&self.journal) = Journal::default();
                Ok(json!({ "count": 0, "entries": [] }))
            }
            (&Method::GET, "accounts") => Ok(json!({ "accounts": lock(&self.people).all() })),
            (&Method::POST, "accounts") => self.add_accounts(server, incoming.body),
            (&Method::GET, "credentials") => Ok(json!(APPLICATIONS)),
            (&Method::GET, "cards") => Ok(cards()),
            (&Method::GET, "ledger") => Ok(ledger(server)),
            (&Method::GET, "usage") => usage(server, incoming.query),
            _ => Err((
                StatusCode::NOT_FOUND,
                format!("there is no {} {path}; there is {ROUTES}", incoming.method),
            )),
        }
    }

    /// Everything as at the start: clock, faults, journal, accounts, balances, counters, and what is
    /// still being delayed.
    fn reset(&self, server: &Server) -> Answer {
        let engine = &server.engine;
        engine.clock.set(Mode::Real);
        lock(&self.faults).clear();
        let people = People::seeded();
        store_people(server, people.all(), true)?;
        *lock(&self.people) = people;
        let reset = engine.record(LedgerEntry::SandboxReset { at_ms: engine.clock.now_ms() });
        reset.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        engine.forget_rates();
        self.epoch.send_modify(|epoch| *epoch += 1);
        // Last, so that delayed answers from before find nothing to add to.
        *lock(&self.journal) = Journal::default();
        Ok(json!({ "reset": true }))
    }

    fn add_fault(&self, body: &[u8]) -> Answer {
        let rule: Rule = read(body)?;
        let mut faults = lock(&self.faults);
        let rule = faults.add(rule).map_err(|wrong| (StatusCode::BAD_REQUEST, wrong))?;
        Ok(json!(rule))
    }

    fn delete_fault(&self, incoming: &Incoming<'_>, id: &str) -> Answer {
        let gone = |id| lock(&self.faults).remove(id);
        match (incoming.method, id.parse()) {
            (&Method::DELETE, Ok(id)) if gone(id) => Ok(json!({ "deleted": id })),
            _ => Err((
                StatusCode::NOT_FOUND,
                format!("there is no fault rule {id}; GET /_sandbox/faults lists them"),
            )),
        }
    }

    fn journal(&self, query: &str) -> Answer {
        let most = number(query, "limit").unwrap_or(100);
        let journal = lock(&self.journal);
        Ok(json!({ "count": journal.count(), "entries": journal.newest(most as usize) }))
    }

    fn add_accounts(&self, server: &Server, body: &[u8]) -> Answer {
        let mut body: Value = read(body)?;
        let people = match body.get_mut("accounts").map(Value::take) {
            Some(Value::Array(many)) => many,
            Some(_) => return Err((StatusCode::BAD_REQUEST, "`accounts` must be an array".into())),
            None => vec![body],
        };
        let person = |(at, person)| {
            let wrong = |wrong| (StatusCode::BAD_REQUEST, format!("account {}: {wrong}", at + 1));
            serde_json::from_value::<Person>(person).map_err(wrong)
        };
        let people = people.into_iter().enumerate().map(person).collect::<Result<Vec<_>, _>>()?;
        let count = people.len();
        store_people(server, &people, false)?;
        lock(&self.people).add(people);
        Ok(json!({ "added": count }))
    }
}

/// Writes people into the accounts; all or none.
pub(super) fn store_people(
    server: &Server,
    people: &[Person],
    replace: bool,
) -> Result<(), (StatusCode, String)> {
    let engine = &server.engine;
    let options = engine.policy().parse_options(engine.clock.now_ms());
    let mut rows = Vec::with_capacity(people.len());
    for (at, person) in people.iter().enumerate() {
        let row = person.row(&options, &engine.vault);
        rows.push(row.map_err(|wrong| (StatusCode::BAD_REQUEST, format!("account {}: {wrong}", at + 1)))?);
    }
    let write = || -> Result<(), StoreError> {
        let mut accounts = engine.accounts_to_change()?;
        if replace { accounts.replace_all(&rows, &engine.vault) } else { accounts.put(&rows, &engine.vault) }
    };
    write().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

impl Sandbox {
    /// Puts the people every sandbox starts with into the accounts.
    pub fn store_seeded(&self, server: &Server) -> anyhow::Result<()> {
        let people = lock(&self.people);
        store_people(server, people.all(), false)
            .map_err(|(_, wrong)| anyhow::anyhow!("seeded accounts: {wrong}"))
    }
}

fn cards() -> Value {
    let magic = |action: Action| {
        let name = projection::name_of(action);
        let endpoint = projection::endpoint_of(action);
        let row = |(value, outcome): (String, Outcome)| {
            let number = |code: Option<ResultCode>| code.map(|code| code.number.to_string());
            json!({
                action.found_by().name(): value,
                "outcome": outcome.name(),
                "tencent": number(projection::tencent(name, outcome)),
                "acedata": number(projection::acedata(AceDataNumbering::Documented, endpoint, outcome)),
                "charged": action.charges(outcome),
            })
        };
        samples::all(action).map(row).collect::<Vec<_>>()
    };
    let by_action: serde_json::Map<String, Value> =
        Action::ALL.into_iter().map(|action| (action.name().into(), json!(magic(action)))).collect();
    json!({ "cards": magic(Action::FourElements), "actions": by_action })
}

fn ledger(server: &Server) -> Value {
    let totals = server.engine.totals();
    let directory = server.engine.directory();
    let balances: serde_json::Map<String, Value> = directory
        .applications()
        .map(|app| (app.name.clone(), json!(server.engine.balance(app).map(|balance| balance.to_string()))))
        .collect();
    json!({
        "records": totals.answers,
        "charges": totals.charges,
        "charged_credits": totals.charged.to_string(),
        "balances": balances,
    })
}

fn usage(server: &Server, query: &str) -> Answer {
    let most = number(query, "limit").unwrap_or(100).min(1000) as u32;
    let application = number(query, "application").map(|number| number as u32);
    let rows = server.engine.usage(application, most);
    let rows = rows.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(json!({ "rows": rows }))
}

/// The clock as it is read and set.
#[derive(Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
enum ClockMode {
    Real {},
    Frozen { now: i64 },
    Shifted { seconds: i64 },
}

fn clock(clock: &Clock) -> Value {
    let mode = match clock.mode() {
        Mode::Real => ClockMode::Real {},
        Mode::Frozen(at) => ClockMode::Frozen { now: at.div_euclid(1000) },
        Mode::Shifted(by) => ClockMode::Shifted { seconds: by.div_euclid(1000) },
    };
    let now = clock.now_ms();
    let mut told = json!(mode);
    told["now"] = json!(now.div_euclid(1000));
    told["utc"] = json!(utc_text(now));
    told
}

fn set_clock(to_set: &Clock, body: &[u8]) -> Answer {
    const LATEST_S: u64 = 253_402_300_799; // the end of the year 9999
    let mode = read(body)?;
    let (ClockMode::Frozen { now: seconds } | ClockMode::Shifted { seconds }) = mode else {
        to_set.set(Mode::Real);
        return Ok(clock(to_set));
    };
    if seconds.unsigned_abs() > LATEST_S / 2 {
        return Err((
            StatusCode::BAD_REQUEST,
            "that is too far away; give Unix seconds, not milliseconds".into(),
        ));
    }
    let milliseconds = seconds * 1000;
    to_set.set(match mode {
        ClockMode::Frozen { .. } => Mode::Frozen(milliseconds),
        _ => Mode::Shifted(milliseconds),
    });
    Ok(clock(to_set))
}

/// Refuses what a web page from elsewhere, or a name that was pointed here, would send through a
/// visitor's browser.
///
/// A rebound name is a name: so addresses and `localhost` are let through, other names are not.
fn from_here(incoming: &Incoming<'_>, scheme: &str) -> Result<(), String> {
    let host = incoming.header("host").unwrap_or_default();
    if !is_local_name(host) {
        return Err(format!(
            "the sandbox is not controlled through the name `{host}`; use localhost or an address"
        ));
    }
    if incoming.header("origin").is_some_and(|origin| origin != format!("{scheme}://{host}")) {
        return Err("the sandbox is not controlled from pages of other sites".into());
    }
    match incoming.header("sec-fetch-site") {
        Some("cross-site" | "same-site") => {
            Err("the sandbox is not controlled from pages of other sites".into())
        }
        _ => Ok(()),
    }
}

/// Whether a `Host` is an address or `localhost`.
pub fn is_local_name(host: &str) -> bool {
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body)
        .map_err(|wrong| (StatusCode::BAD_REQUEST, format!("the body is not right: {wrong}")))
}

fn number(query: &str, name: &str) -> Option<u64> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
}

fn json_reply(status: StatusCode, body: &Value) -> Reply {
    Reply::new(status, "application/json", format!("{body:#}\n"))
}
