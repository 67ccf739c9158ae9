//! What an operator watches: accounts of record and how they come in, issuers, the audit, health.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use engine::clock::{Millis, utc_text};
use engine::ledger::Entry;
use engine::operator::By;
use engine::settle::Writing;
use engine::store::{AccountDone, Check, UsageFilter};
use engine::watch::LastImport;
use http::StatusCode;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use wire::Incoming;

use super::look::{Frame, Notice};
use super::operator::check;
use super::pages::rendered;
use super::{Seen, Visit};
use crate::front::Server;
use crate::http::Reply;
use crate::import::Rules;
use crate::platform::{self, Refused};

/// A check of the whole audit tree that somebody asked for; one at a time, beside the answers.
#[derive(Default)]
pub struct Checking(Mutex<Stage>);

#[derive(Clone, Default)]
enum Stage {
    #[default]
    Never,
    Runs {
        since: Millis,
    },
    Ended {
        at: Millis,
        held: Result<Check, String>,
    },
}

impl Checking {
    fn stage(&self) -> Stage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Begins one, unless one runs.
    fn begin(server: &Arc<Server>) -> std::io::Result<()> {
        let mut stage = server.checking.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stage, Stage::Runs { .. }) {
            return Ok(());
        }
        let checked = Arc::clone(server);
        std::thread::Builder::new().name("card4e-check".into()).spawn(move || {
            // Whoever waits for an answer goes first.
            let _ = rustix::process::nice(10);
            let held = checked.engine.check_audit().map_err(|error| error.to_string());
            if let Err(error) = &held {
                tracing::error!(%error, "the audit check that was asked for in the console did not hold");
            }
            let at = checked.engine.clock.now_ms();
            checked.checking.set(Stage::Ended { at, held });
        })?;
        *stage = Stage::Runs { since: server.engine.clock.now_ms() };
        Ok(())
    }
}

/// A line of facts.
pub struct Fact {
    what: String,
    value: String,
    /// `good`, `bad`, or nothing to say about that.
    kind: &'static str,
}

fn fact(what: &str, value: impl Into<String>) -> Fact {
    Fact { what: what.to_owned(), value: value.into(), kind: "" }
}

fn judged(what: &str, value: impl Into<String>, is_good: bool) -> Fact {
    Fact { kind: if is_good { "good" } else { "bad" }, ..fact(what, value) }
}

struct IssuerRow {
    prefix: String,
    length: String,
    bank: String,
    kind: &'static str,
    verifies: bool,
    phone_checked: bool,
}

#[derive(Template)]
#[template(path = "operator_data.html")]
struct Data {
    f: Frame,
    import: Vec<Fact>,
    standstill: bool,
    issuers: Vec<Fact>,
    wanted: String,
    rows: Vec<IssuerRow>,
    more: bool,
}

/// `GET /console/operator/data`
pub fn data(visit: &Visit, notice: Option<Notice>) -> Seen {
    const ROWS_MAX: usize = 50;
    check(visit)?;
    let engine = &visit.server.engine;
    let import = engine.last_import()?;
    let issuers = engine.issuers();
    let wanted = visit.parameter("issuer").to_lowercase();
    let fits = |issuer: &&engine::issuer::Issuer| {
        let of_number = wanted.starts_with(issuer.prefix.as_str()) || issuer.prefix.starts_with(&wanted);
        of_number || issuer.bank_zh.contains(&wanted) || issuer.bank_en.to_lowercase().contains(&wanted)
    };
    let found: Vec<_> = match wanted.as_str() {
        "" => Vec::new(),
        _ => issuers.all().iter().filter(fits).take(ROWS_MAX + 1).collect(),
    };
    let row = |issuer: &&engine::issuer::Issuer| IssuerRow {
        prefix: issuer.prefix.clone(),
        length: issuer.length.map_or(visit.says("any", "不限").to_owned(), |length| length.to_string()),
        bank: visit.says(&issuer.bank_en, &issuer.bank_zh).to_owned(),
        kind: issuer.kind.word(),
        verifies: issuer.verifies,
        phone_checked: issuer.phone_checked,
    };
    let page = Data {
        f: Frame::of(visit, visit.says("Data", "数据"), notice).at("/console/operator/data"),
        standstill: import.is_some_and(|import| !import.is_done),
        import: import_facts(visit, import),
        issuers: issuer_facts(visit),
        more: found.len() > ROWS_MAX,
        rows: found.iter().take(ROWS_MAX).map(row).collect(),
        wanted: visit.parameter("issuer").to_owned(),
    };
    rendered(StatusCode::OK, &page)
}

fn import_facts(visit: &Visit, import: Option<LastImport>) -> Vec<Fact> {
    let Some(LastImport { is, is_done, is_replacing }) = import else {
        return Vec::new();
    };
    let count = |count: u64| HumanCount(count).to_string();
    let state = match (is_done, is.is_sweeping) {
        (true, _) => visit.says("done", "已完成"),
        (false, true) => visit.says("removes what the file does not have", "正在移除文件中没有的账户"),
        (false, false) => visit.says("loads", "导入中"),
    };
    let mut facts = vec![
        judged(visit.says("State", "状态"), state, is_done),
        fact(visit.says("Rows read", "已读行数"), count(is.rows)),
        fact(visit.says("Added or replaced", "新增或更新"), count(is.put)),
        fact(visit.says("Deleted", "已删除"), count(is.deleted)),
        fact(visit.says("Rejected", "被拒绝"), count(is.rejected)),
    ];
    if is_replacing {
        facts.push(fact(visit.says("Removed, not in the file", "文件中没有而移除"), count(is.removed)));
    }
    facts
}

fn issuer_facts(visit: &Visit) -> Vec<Fact> {
    let issuers = visit.server.engine.issuers();
    let settings = visit.server.settings();
    let file = settings.policy.issuers_file.as_ref().map(|path| path.display().to_string());
    let built_in = visit.says("the built-in table", "内置发卡行表").to_owned();
    let banks: BTreeSet<&str> = issuers.all().iter().map(|issuer| issuer.bank_en.as_str()).collect();
    let silent = issuers.all().iter().filter(|issuer| !issuer.verifies).count();
    vec![
        fact(visit.says("From", "来源"), file.unwrap_or(built_in)),
        fact(visit.says("Rows", "行数"), HumanCount(issuers.len() as u64).to_string()),
        fact(visit.says("Banks", "银行数"), banks.len().to_string()),
        fact(visit.says("Not verifying", "不支持核验"), silent.to_string()),
    ]
}

/// Most lines of one part of a file that comes from the page.
const LINES_MAX: usize = 2_000;

/// Answers `POST /console/operator/import`: a part of a file, an account a line as JSON, with what became of
/// it. The page sends one part after the other and so knows how far it is.
pub async fn import(visit: Visit, incoming: &Incoming<'_>) -> Reply {
    let told = |status: StatusCode, body: &Value| Reply::new(status, "application/json", body.to_string());
    let refused = |refused: Refused| told(refused.status, &json!({ "error": refused.detail }));
    if let Err(why) = check(&visit) {
        return refused(why);
    }
    let own = visit
        .session
        .as_ref()
        .is_some_and(|session| session.has_token(incoming.header("x-csrf-token").unwrap_or_default()));
    if visit.method != http::Method::POST || !own {
        return refused(Refused::denied());
    }
    let lines = zeroize::Zeroizing::new(incoming.body.to_vec());
    match platform::off_the_core(move || carry_out(&visit, &lines)).await {
        Ok(done) => told(StatusCode::OK, &done),
        Err(why) => refused(why),
    }
}

fn carry_out(visit: &Visit, lines: &[u8]) -> Result<Value, Refused> {
    let engine = &visit.server.engine;
    let by = visit.actor().map_or(By::Machine, |actor| By::Person(actor.caller.id));
    let (mut orders, mut rejected, mut absent) = (Vec::new(), Vec::new(), 0);
    let rules = Rules::at_work(engine);
    for (at, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        if at > LINES_MAX {
            return Err(Refused::invalid(format!("A part has at most {LINES_MAX} lines.")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match crate::accounts::read(line, &rules) {
            Ok(order) => orders.push(order),
            Err(why) => rejected.push(json!({ "line": at, "error": why })),
        }
    }
    if !orders.is_empty() {
        engine.acting(by).record_act(crate::accounts::act(&orders))?;
        let done = engine.accounts_to_change()?.carry_out(&orders, &engine.vault)?;
        absent = done.iter().filter(|done| matches!(done, AccountDone::Absent)).count();
    }
    Ok(json!({ "done": orders.len() - absent, "absent": absent, "rejected": rejected }))
}

struct ActRow {
    at: String,
    by: String,
    what: String,
    details: String,
}

#[derive(Template)]
#[template(path = "operator_audit.html")]
struct Audit {
    f: Frame,
    checkpoint: Vec<Fact>,
    runs: bool,
    check: Vec<Fact>,
    acts: Vec<ActRow>,
}

/// `GET /console/operator/audit`
pub fn audit(visit: &Visit, notice: Option<Notice>) -> Seen {
    const ACTS_MAX: usize = 50;
    check(visit)?;
    let server = &visit.server;
    let stage = server.checking.stage();
    let page = Audit {
        f: Frame::of(visit, visit.says("Audit", "审计"), notice).at("/console/operator/audit"),
        checkpoint: checkpoint_facts(visit),
        runs: matches!(stage, Stage::Runs { .. }),
        check: check_facts(visit, stage),
        acts: server.engine.newest_acts(ACTS_MAX)?.iter().map(|entry| act_row(visit, entry)).collect(),
    };
    rendered(StatusCode::OK, &page)
}

fn checkpoint_facts(visit: &Visit) -> Vec<Fact> {
    let newest = visit.says("Newest signed checkpoint", "最新签名检查点");
    match visit.server.engine.last_checkpoint() {
        Err(error) => vec![judged(newest, error.to_string(), false)],
        Ok(None) => vec![fact(newest, visit.says("none yet", "尚无"))],
        Ok(Some(checkpoint)) => vec![
            judged(newest, visit.says("holds", "验证通过"), true),
            fact(visit.says("Entries", "条目数"), HumanCount(checkpoint.size).to_string()),
            fact(visit.says("Signed", "签名时间"), utc_text(checkpoint.at_ms)),
            fact(visit.says("Root", "根哈希"), engine::file::hex(&checkpoint.root)),
        ],
    }
}

fn check_facts(visit: &Visit, stage: Stage) -> Vec<Fact> {
    let whole = visit.says("The whole ledger", "完整账本");
    match stage {
        Stage::Never => vec![fact(whole, visit.says("not checked since the start", "启动后尚未检查"))],
        Stage::Runs { since } => {
            vec![fact(visit.says("Being checked since", "检查中，开始于"), utc_text(since))]
        }
        Stage::Ended { at, held: Err(why) } => {
            vec![judged(whole, why, false), fact(visit.says("Checked", "检查时间"), utc_text(at))]
        }
        Stage::Ended { at, held: Ok(check) } => vec![
            judged(whole, visit.says("holds", "验证通过"), true),
            fact(visit.says("Checked", "检查时间"), utc_text(at)),
            fact(visit.says("Blocks", "区块数"), HumanCount(check.blocks).to_string()),
            fact(visit.says("Entries", "条目数"), HumanCount(check.entries).to_string()),
            fact(visit.says("Answers", "应答数"), HumanCount(check.answers).to_string()),
            fact(visit.says("Charged, credits", "计费（点）"), check.charged),
            fact(visit.says("Erased side rows", "已擦除附属记录"), check.erased.to_string()),
            fact(visit.says("Signed checkpoints", "签名检查点"), check.checkpoints.to_string()),
            fact(visit.says("Root", "根哈希"), check.root),
        ],
    }
}

fn act_row(visit: &Visit, entry: &Entry) -> ActRow {
    let [at, by, what, details] = crate::audit::log_row(&crate::audit::says(entry));
    let directory = visit.server.engine.directory();
    let named = match entry {
        Entry::Operator { by: By::Person(caller), .. } => directory.caller(*caller),
        Entry::Operator { by: By::Credential(id), .. } => {
            directory.credential(*id).and_then(|credential| directory.owner(credential))
        }
        _ => None,
    };
    let by = named.map_or(by.clone(), |caller| format!("{by} ({})", caller.name));
    ActRow { at, by, what, details }
}

/// `POST /console/operator/check`: begins a check of the whole ledger.
pub fn begin_check(visit: &Visit) -> Seen {
    check(visit)?;
    if let Err(error) = Checking::begin(&visit.server) {
        tracing::error!(%error, "no thread can be started for a check of the audit");
        let why = visit.says("No thread can be started now; try again.", "暂时无法启动检查，请稍后再试。");
        return audit(visit, Some(Notice::bad(why)));
    }
    let said =
        visit.says("It runs beside the answers; you may leave this page.", "检查在后台进行，可离开本页。");
    audit(visit, Some(Notice::good(said)))
}

struct ErrorRow {
    wire: String,
    code: String,
    status: u16,
    requests: String,
}

#[derive(Template)]
#[template(path = "operator_health.html")]
struct Health {
    f: Frame,
    facts: Vec<Fact>,
    errors: Vec<ErrorRow>,
}

/// `GET /console/operator/health`
pub fn health(visit: &Visit) -> Seen {
    check(visit)?;
    let engine = &visit.server.engine;
    let today = engine.clock.now_ms().div_euclid(86_400_000) * 86_400_000;
    let filter = UsageFilter { from_ms: Some(today), ..UsageFilter::default() };
    let errors = engine.refusal_counts(&filter)?;
    let error = |count: engine::store::RefusalCount| ErrorRow {
        wire: count.wire,
        code: count.code,
        status: count.status,
        requests: HumanCount(count.requests).to_string(),
    };
    let page = Health {
        f: Frame::of(visit, visit.says("Health", "健康"), None),
        facts: health_facts(visit),
        errors: errors.into_iter().map(error).collect(),
    };
    rendered(StatusCode::OK, &page)
}

fn health_facts(visit: &Visit) -> Vec<Fact> {
    const LOW_BYTES: u64 = 2 << 30;
    let (server, engine) = (&visit.server, &visit.server.engine);
    let now = engine.clock.now_ms();
    let writing = match engine.writing() {
        Writing::Works => visit.says("can be written", "可写入"),
        Writing::Full => visit.says(
            "the disk is full, nothing is answered: make room, and it goes on by itself",
            "磁盘已满，暂停应答：腾出空间后自动恢复",
        ),
        Writing::Away => visit.says(
            "the database does not answer, nothing is answered: it goes on by itself when that is back",
            "数据库无响应，暂停应答：恢复后自动继续",
        ),
        Writing::Stopped => visit.says(
            "the disk failed, nothing is answered: look at the log, mend it, restart",
            "磁盘故障，停止应答：查看日志，修复后重启",
        ),
    };
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let lag = count(&engine.metrics.blocks).saturating_sub(count(&engine.metrics.projected));
    let panics = count(&server.metrics.panics);
    let rotation = engine.rotation();
    let (yes, no) = (visit.says("yes", "是"), visit.says("no", "否"));
    let mut facts = vec![
        judged(visit.says("Ledger", "账本"), writing, engine.writing() == Writing::Works),
        fact(visit.says("Questions under way", "处理中请求"), engine.under_way().to_string()),
        judged(
            visit.says("Blocks the usage pages are behind", "用量页落后区块数"),
            lag.to_string(),
            lag < 100,
        ),
        fact(visit.says("Connections", "连接数"), count(&server.metrics.connections).to_string()),
        judged(visit.says("Internal failures", "内部故障"), panics.to_string(), panics == 0),
    ];
    if let Some(free) = engine.disk_free_bytes() {
        let text = HumanBytes(free).to_string();
        facts.push(judged(visit.says("Disk free", "磁盘可用空间"), text, free >= LOW_BYTES));
    }
    let tls = match &server.tls {
        None => fact("TLS", visit.says("off: plain HTTP", "未启用（HTTP）")),
        Some(tls) if tls.ends_soon(now) => {
            let text =
                visit.says("the certificate ends within two weeks, or has ended", "证书两周内到期或已过期");
            judged("TLS", text, false)
        }
        Some(_) => judged("TLS", visit.says("on", "已启用"), true),
    };
    facts.push(tls);
    let keys = match (&rotation.error, rotation.is_running) {
        (Some(error), _) => judged(visit.says("Replacing keys", "密钥轮换"), error.as_str(), false),
        (None, true) => {
            let text = format!("{} / {}", HumanCount(rotation.rewrapped), HumanCount(rotation.accounts));
            fact(visit.says("Replacing keys", "密钥轮换"), text)
        }
        (None, false) => fact(visit.says("Replacing keys", "密钥轮换"), visit.says("not now", "无")),
    };
    facts.push(keys);
    let test_land = engine.policy().test_land;
    let sandbox = server.sandbox.is_some();
    let tests = if test_land { yes } else { no };
    facts.push(judged(visit.says("Test identities accepted", "接受测试身份"), tests, sandbox || !test_land));
    facts.push(fact(visit.says("Clock (UTC)", "时钟（UTC）"), utc_text(now)));
    facts.push(fact(visit.says("Version", "版本"), env!("CARGO_PKG_VERSION")));
    facts
}
