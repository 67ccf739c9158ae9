//! The screens, and the forms on them.

use askama::Template;
use engine::outcome::Outcome;
use engine::store::UsageFilter;
use http::StatusCode;
use serde_json::{Value, json};
use wire::acedata::ErrorCode;

use super::look::{self, Frame, Notice};
use super::snippets::{self, Snippet};
use super::{Seen, Shown, Visit, form_encoded};
use crate::config::Registration;
use crate::platform::catalogue::{self, Code, Hit, Member, Page};
use crate::platform::usage::REFUSED;
use crate::platform::{Refused, day_text, parse_time};

/// A page as it is sent.
pub fn rendered(status: StatusCode, page: &impl Template) -> Seen {
    match page.render() {
        Ok(text) => Ok(Shown::Page(status, text)),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Err(Refused::not_found("page"))
        }
    }
}

/// Text of a JSON value.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// An amount without a needless fraction.
pub fn money(value: &Value) -> String {
    let text = text(value);
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn unless_null(value: &Value, otherwise: &str) -> String {
    if value.is_null() { otherwise.to_owned() } else { money(value) }
}

/// `2026-11-22 08:30` of a time.
fn minute(value: &Value) -> String {
    let text = text(value);
    text.get(..16).map_or(String::new(), |minute| minute.replace('T', " "))
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    f: Frame,
    curl: String,
    host: String,
    scheme: &'static str,
    base: String,
    cards: String,
    applications: String,
}

/// `GET /`
pub fn home(visit: &Visit) -> Seen {
    let server = &visit.server;
    let base = format!("{}://{}", server.scheme(), visit.host);
    let ca = server.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let page = Home {
        f: Frame::of(visit, visit.says("Bank card verification", "银行卡核验"), None),
        curl: crate::cli::curl_line(&base, ca),
        host: visit.host.clone(),
        scheme: server.scheme(),
        base,
        cards: crate::sandbox::card_rows(visit.language),
        applications: crate::sandbox::application_rows(),
    };
    rendered(StatusCode::OK, &page)
}

/// A package on the shelf.
pub struct PackageRow {
    pub id: String,
    pub title: String,
    pub credits: String,
    pub price: String,
}

/// Packages of the management API.
pub fn package_rows(listed: &Value) -> Vec<PackageRow> {
    let row = |package: &Value| PackageRow {
        id: text(&package["id"]),
        title: text(&package["title"]),
        credits: money(&package["amount"]),
        price: format!("{:.2}", package["price"].as_f64().unwrap_or_default()),
    };
    items(listed).iter().map(row).collect()
}

fn items(listed: &Value) -> &[Value] {
    listed["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "service.html")]
struct Service {
    f: Frame,
    price: String,
    free: String,
    applied: String,
    balance: Option<String>,
    back: &'static str,
    pages: Vec<(&'static Page, String)>,
    packages: Vec<PackageRow>,
    currency: String,
}

/// The application of who is logged in, and its keys; `None`: not acquired.
fn application(visit: &Visit) -> Result<Option<Value>, Refused> {
    if visit.session.is_none() {
        return Ok(None);
    }
    Ok(items(&visit.get("applications", &[])?).first().cloned())
}

fn free(visit: &Visit) -> String {
    visit.server.settings().free_quota().unwrap_or_default().to_string()
}

/// `GET /service/identity`
pub fn service(visit: &Visit, notice: Option<Notice>) -> Seen {
    let service = visit.get("services/identity", &[])?;
    let application = application(visit)?;
    let balance =
        application.map(|own| unless_null(&own["remaining_amount"], visit.says("unlimited", "不限")));
    let page = Service {
        f: Frame::of(visit, visit.says("Identity authentication", "身份核验"), notice),
        price: money(&service["cost"][0]["consumption"]),
        free: free(visit),
        applied: text(&service["applied_count"]),
        balance,
        back: catalogue::page(engine::action::Action::FourElements).alias,
        pages: catalogue::priced(&visit.server.engine, visit.caller()),
        packages: package_rows(&json!({ "items": service["packages"] })),
        currency: visit.server.settings().platform.currency.clone(),
    };
    rendered(StatusCode::OK, &page)
}

struct Key {
    id: String,
    shown: String,
    wire: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "api.html")]
struct Api {
    f: Frame,
    page: &'static Page,
    base: String,
    members: Vec<Member>,
    codes: Vec<Code>,
    errors: Vec<(u16, &'static str, &'static str)>,
    acquired: bool,
    back: &'static str,
    price: String,
    native: String,
    cert_type: bool,
    free: String,
    keys: Vec<Key>,
    fresh: Option<String>,
    snippets: Vec<Snippet>,
}

/// `GET /documents/{alias}`: everything about one API. `fresh` is a key that was made this instant: its id and
/// its secret.
pub fn api(visit: &Visit, alias: &str, notice: Option<Notice>, fresh: Option<(String, String)>) -> Seen {
    let action = catalogue::action_of_document(alias).ok_or_else(|| Refused::not_found("page"))?;
    let page = catalogue::page(action);
    let own = application(visit)?;
    let chosen = fresh.as_ref().map(|(id, _)| id.clone());
    let keys = own.iter().flat_map(|own| own["credentials"].as_array().cloned().unwrap_or_default());
    let keys = keys.map(|key| {
        let tencent = key["type"] == "Signature";
        let shown = if tencent { text(&key["secret_id"]) } else { text(&key["token"]) };
        let id = text(&key["id"]);
        let name = text(&key["name"]);
        Key {
            chosen: chosen.as_ref() == Some(&id),
            id,
            shown: format!("{} {shown} {name}", if tencent { "Tencent" } else { "AceData" }),
            wire: if tencent { "tencent" } else { "acedata" },
        }
    });
    let keys = keys.collect();
    let (mut members, mut codes) = (catalogue::members(action), catalogue::codes(action));
    if visit.server.sandbox.is_some() {
        // A person's elements never are in an address; here nobody is real.
        for member in &mut members {
            member.typed = Some(visit.parameter(member.name).to_owned()).filter(|text| !text.is_empty());
        }
        for code in &mut codes {
            code.try_it = crate::sandbox::where_answered(action, code.outcome);
        }
    }
    let error = |code: ErrorCode| (code.status().as_u16(), code.as_str(), code.message());
    let secret = fresh.map(|(_, secret)| secret);
    let shown = Api {
        f: Frame::of(visit, page.title(visit.language), notice),
        page,
        base: visit.public_url.clone(),
        members,
        codes,
        errors: ErrorCode::ALL.map(error).to_vec(),
        acquired: own.is_some(),
        back: page.alias,
        price: catalogue::price(&visit.server.engine, visit.caller(), action).to_string(),
        native: action.name().to_owned(),
        cert_type: engine::projection::endpoint_of(action).takes().cert_type,
        free: free(visit),
        keys,
        snippets: snippets::of(visit, page, secret.as_deref()),
        fresh: secret,
    };
    rendered(StatusCode::OK, &shown)
}

/// `POST /console/acquire`: the service, and a first key in the form at once.
pub fn acquire(visit: &Visit) -> Seen {
    let alias = visit.field("page");
    if visit.field("terms") != "yes" {
        let why = visit.says("Accept the terms first.", "请先同意服务条款。");
        return api(visit, alias, Some(Notice::bad(why)), None);
    }
    match visit.post("applications", json!({ "service_id": catalogue::service_id() })) {
        Ok(_) => {}
        // Twice is once: the key is what is missing.
        Err(refused) if refused.code == "duplication" => {
            let why = visit.says("You have it already.", "您已开通该服务。");
            return api(visit, alias, Some(Notice::good(why)), None);
        }
        Err(refused) => return Err(refused),
    }
    let own = application(visit)?.ok_or_else(|| Refused::not_found("application"))?;
    let made = visit.post("credentials", json!({ "application_id": own["id"], "name": "first" }))?;
    let said = visit.says("It is yours. Try it.", "开通成功，可立即调试。");
    api(visit, alias, Some(Notice::good(said)), Some((text(&made["id"]), text(&made["token"]))))
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    f: Frame,
    next: String,
    next_encoded: String,
    login: String,
    registers: bool,
    sandbox_token: &'static str,
}

fn next(visit: &Visit) -> String {
    let asked = [visit.field("next"), visit.parameter("next")].into_iter().find(|next| !next.is_empty());
    asked.unwrap_or("/console/applications").to_owned()
}

/// `GET /auth/login`, and again with what was wrong.
pub fn login(visit: &Visit, refused: Option<Refused>) -> Seen {
    let status = refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let page = Login {
        f: Frame::of(visit, visit.says("Log in", "登录"), refused.map(|refused| Notice::bad(refused.detail))),
        next: next(visit),
        next_encoded: form_encoded(&next(visit)),
        login: visit.field("login").to_owned(),
        registers: visit.server.registration() != Registration::Closed,
        sandbox_token: crate::sandbox::PUBLIC_PLATFORM_TOKEN,
    };
    rendered(status, &page)
}

#[derive(Template)]
#[template(path = "register.html")]
struct Register {
    f: Frame,
    next: String,
    next_encoded: String,
    login: String,
    name: String,
    invited: bool,
    closed: bool,
    invitation: String,
}

/// `GET /auth/register`, and again with what was wrong.
pub fn register(visit: &Visit, refused: Option<Refused>) -> Seen {
    let status = refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let invitation = [visit.field("invitation"), visit.parameter("invitation")].concat();
    let page = Register {
        f: Frame::of(
            visit,
            visit.says("Register", "注册"),
            refused.map(|refused| Notice::bad(refused.detail)),
        ),
        next: next(visit),
        next_encoded: form_encoded(&next(visit)),
        login: visit.field("login").to_owned(),
        name: visit.field("name").to_owned(),
        invited: visit.server.registration() == Registration::Invitation,
        closed: visit.server.registration() == Registration::Closed,
        invitation,
    };
    rendered(status, &page)
}

struct KeyRow {
    id: String,
    name: String,
    shown: String,
    kind: &'static str,
    used: String,
    limit: String,
    limit_value: String,
    ends: String,
    from: String,
}

#[derive(Template)]
#[template(path = "applications.html")]
struct Applications {
    f: Frame,
    acquired: bool,
    back: &'static str,
    free: String,
    balance: String,
    used: String,
    price: String,
    disabled: bool,
    keys: Vec<KeyRow>,
}

fn key_row(visit: &Visit, key: &Value) -> KeyRow {
    let tencent = key["type"] == "Signature";
    let from = key["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    KeyRow {
        id: text(&key["id"]),
        name: text(&key["name"]),
        shown: if tencent { text(&key["secret_id"]) } else { text(&key["token"]) },
        kind: if tencent { "Tencent" } else { "AceData" },
        used: money(&key["used_amount"]),
        limit: unless_null(&key["limited_amount"], visit.says("none", "不限")),
        limit_value: money(&key["limited_amount"]),
        ends: text(&key["expired_at"]).get(..10).unwrap_or_default().to_owned(),
        from: from.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

/// `GET /console/applications`
pub fn applications(visit: &Visit, notice: Option<Notice>, status: Option<StatusCode>) -> Seen {
    visit.session.as_ref().ok_or_else(|| Refused::not_authenticated("Log in first."))?;
    let own = application(visit)?;
    let acquired = own.is_some();
    let own = own.unwrap_or_default();
    let keys = own["credentials"].as_array().map(Vec::as_slice).unwrap_or_default();
    let page = Applications {
        f: Frame::of(visit, visit.says("Keys", "密钥"), notice),
        acquired,
        back: catalogue::page(engine::action::Action::FourElements).alias,
        free: free(visit),
        balance: unless_null(&own["remaining_amount"], visit.says("unlimited", "不限")),
        used: money(&own["used_amount"]),
        price: money(&own["metadata"]["price"]),
        disabled: own["disabled"] == true,
        keys: keys.iter().map(|key| key_row(visit, key)).collect(),
    };
    rendered(status.unwrap_or(StatusCode::OK), &page)
}

/// The terms of a key as the form has them; an empty field takes the restriction away.
fn terms(visit: &Visit) -> Value {
    let field = |name: &str| Some(visit.field(name)).filter(|text| !text.is_empty());
    let addresses: Vec<&str> = visit.field("addresses").split([',', ' ']).filter(|a| !a.is_empty()).collect();
    json!({
        "name": visit.field("name"),
        "limited_amount": field("limit"),
        "expired_at": field("ends"),
        "addresses": addresses,
    })
}

/// `POST /console/keys`
pub fn create_key(visit: &Visit) -> Seen {
    let own = application(visit)?.ok_or_else(|| Refused::not_found("application"))?;
    let mut body = terms(visit);
    body["application_id"] = own["id"].clone();
    body["type"] = visit.field("kind").into();
    match visit.post("credentials", body) {
        Ok(made) => applications(visit, Some(secret_notice(visit, &made)), None),
        Err(refused) => applications(visit, Some(Notice::bad(refused.detail)), Some(refused.status)),
    }
}

fn secret_notice(visit: &Visit, made: &Value) -> Notice {
    let said = visit.says("Shown this once, copy it now.", "密钥仅显示这一次，请立即复制。");
    match text(&made["secret_id"]) {
        id if id.is_empty() => Notice::secret(said, text(&made["token"])),
        id => Notice::secret(format!("{said} SecretId {id}, SecretKey"), text(&made["token"])),
    }
}

/// `POST /console/keys/{id}/…`
pub fn change_key(visit: &Visit, id: &str, what: &str) -> Seen {
    let done = match what {
        "rotate" => {
            visit.post(&format!("credentials/{id}/rotate"), json!({})).map(|made| secret_notice(visit, &made))
        }
        "delete" => visit
            .call("DELETE", &format!("credentials/{id}"), &[], json!({}))
            .map(|_| Notice::good(visit.says("Deleted: it is dead at once.", "已删除，立即失效。"))),
        _ => visit
            .call("PATCH", &format!("credentials/{id}"), &[], terms(visit))
            .map(|_| Notice::good(visit.says("Saved.", "已保存。"))),
    };
    match done {
        Ok(notice) => applications(visit, Some(notice), None),
        Err(refused) if refused.code == "invalid" => {
            applications(visit, Some(Notice::bad(refused.detail)), Some(refused.status))
        }
        Err(refused) => Err(refused),
    }
}

struct TokenRow {
    id: String,
    name: String,
    shown: String,
    used: String,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Tokens {
    f: Frame,
    tokens: Vec<TokenRow>,
}

/// `GET /console/platform-tokens`
pub fn tokens(visit: &Visit, notice: Option<Notice>, status: Option<StatusCode>) -> Seen {
    let listed = visit.get("platform-tokens", &[("limit", "100")])?;
    let row = |token: &Value| TokenRow {
        id: text(&token["id"]),
        name: text(&token["name"]),
        shown: text(&token["token"]),
        used: minute(&token["used_at"]),
    };
    let tokens = items(&listed).iter().map(row).collect();
    let f = Frame::of(visit, visit.says("Account tokens", "账号令牌"), notice);
    rendered(status.unwrap_or(StatusCode::OK), &Tokens { f, tokens })
}

/// `POST /console/platform-tokens`
pub fn create_token(visit: &Visit) -> Seen {
    match visit.post("platform-tokens", json!({ "name": visit.field("name") })) {
        Ok(made) => tokens(visit, Some(secret_notice(visit, &made)), None),
        Err(refused) => tokens(visit, Some(Notice::bad(refused.detail)), Some(refused.status)),
    }
}

/// `POST /console/platform-tokens/{id}/delete`
pub fn delete_token(visit: &Visit, id: &str) -> Seen {
    visit.call("DELETE", &format!("platform-tokens/{id}"), &[], json!({}))?;
    tokens(visit, Some(Notice::good(visit.says("Deleted.", "已删除。"))), None)
}

struct UseRow {
    id: String,
    at: String,
    outcome: String,
    class: &'static str,
    charged: String,
    balance: String,
    took: String,
    wire: String,
    key: String,
}

#[derive(Template)]
#[template(path = "usages.html")]
struct Usages {
    f: Frame,
    from: String,
    to: String,
    outcomes: Vec<(&'static str, bool)>,
    refused: bool,
    count: String,
    total: String,
    refusals: String,
    errors: Vec<(String, String, String, String)>,
    chart: String,
    rows: Vec<UseRow>,
    newer: Option<String>,
    older: Option<String>,
}

/// From and to as days, the last two weeks by default.
fn days(visit: &Visit) -> (i64, i64) {
    const DAY_MS: i64 = 86_400_000;
    let today = visit.server.engine.clock.now_ms().div_euclid(DAY_MS);
    let day = |name: &str| parse_time(visit.parameter(name)).map(|(at, _)| at.div_euclid(DAY_MS));
    let to = day("to").unwrap_or(today).min(today);
    let from = day("from").unwrap_or(to - 13).clamp(to - 59, to);
    (from, to)
}

/// `GET /console/usages`
pub fn usages(visit: &Visit) -> Seen {
    const PAGE: u64 = 50;
    let caller = visit.caller().ok_or_else(|| Refused::not_authenticated("Log in first."))?;
    let (first, last) = days(visit);
    let (from, to) = (day_text(first), day_text(last));
    let offset: u64 = visit.parameter("offset").parse().unwrap_or(0);
    let outcome = visit.parameter("outcome");
    let (limit, at) = (PAGE.to_string(), offset.to_string());
    let mut query =
        vec![("created_at_from", &*from), ("created_at_to", &*to), ("limit", &limit), ("offset", &at)];
    if !outcome.is_empty() {
        query.push(("outcome", outcome));
    }
    let listed = visit.get("usage/apis", &query)?;
    let filter = UsageFilter {
        applications: Some(vec![caller.0]),
        outcomes: Some(outcome.to_owned())
            .filter(|outcome| !outcome.is_empty() && outcome != REFUSED)
            .into_iter()
            .collect(),
        from_ms: Some(first * 86_400_000),
        until_ms: Some((last + 1) * 86_400_000),
        ..UsageFilter::default()
    };
    let sums = visit.server.engine.usage_days(&filter, 0)?;
    let total = engine::ledger::Credits(sums.iter().map(|day| day.charged.0).sum());
    let count = listed["count"].as_u64().unwrap_or(0);
    let codes =
        visit.get("usage/apis/status-codes", &[("created_at_from", &*from), ("created_at_to", &*to)])?;
    let errors = codes["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refusals: u64 = errors.iter().filter_map(|error| error["requests"].as_u64()).sum();
    let error =
        |e: &Value| (text(&e["wire"]), text(&e["code"]), text(&e["status_code"]), text(&e["requests"]));
    let other = |offset: u64| {
        format!("/console/usages?from={from}&to={to}&outcome={}&offset={offset}", form_encoded(outcome))
    };
    let page = Usages {
        f: Frame::of(visit, visit.says("Usage", "用量"), None),
        outcomes: Outcome::ALL.map(|known| (known.name(), known.name() == outcome)).to_vec(),
        refused: outcome == REFUSED,
        count: sums.iter().map(|day| day.answers).sum::<u64>().to_string(),
        total: total.to_string(),
        refusals: refusals.to_string(),
        errors: errors.iter().map(error).collect(),
        chart: look::chart(&sums, first, last, visit.says("Answers by day", "每日应答数")),
        rows: items(&listed).iter().map(|row| use_row(visit, row)).collect(),
        newer: (offset > 0).then(|| other(offset.saturating_sub(PAGE))),
        older: (offset + PAGE < count).then(|| other(offset + PAGE)),
        from,
        to,
    };
    rendered(StatusCode::OK, &page)
}

fn use_row(visit: &Visit, row: &Value) -> UseRow {
    let outcome = match &row["metadata"]["error"] {
        Value::Null => text(&row["metadata"]["outcome"]),
        error => format!("{} {}", visit.says("refused:", "拒绝："), text(error)),
    };
    UseRow {
        id: text(&row["id"]),
        at: text(&row["created_at"]).get(..19).map_or(String::new(), |at| at.replace('T', " ")),
        class: look::class_of(&outcome),
        outcome,
        charged: money(&row["deducted_amount"]),
        balance: match row["metadata"]["error"].is_null() {
            true => unless_null(&row["remaining_amount"], visit.says("unlimited", "不限")),
            false => String::new(),
        },
        took: format!("{:.1} ms", row["elapsed"].as_f64().unwrap_or_default() * 1000.0),
        wire: text(&row["metadata"]["wire"]),
        key: text(&row["credential"]["name"]),
    }
}

/// `GET /console/usages/export`
pub fn usage_export(visit: &Visit) -> Seen {
    let (first, last) = days(visit);
    let (from, to) = (day_text(first), day_text(last));
    let text_ = visit.get("usage/apis/export", &[("created_at_from", &from), ("created_at_to", &to)])?;
    Ok(Shown::File("text/csv; charset=utf-8", text(&text_)))
}

#[derive(Template)]
#[template(path = "usage.html")]
struct Usage {
    f: Frame,
    pairs: Vec<(String, String)>,
}

/// `GET /console/usages/{id}`
pub fn usage(visit: &Visit, id: &str) -> Seen {
    let row = visit.get(&format!("usage/apis/{id}"), &[]);
    let row = match row {
        // The rows lag behind the answers by a moment.
        Err(refused) if refused.code == "not_found" => {
            std::thread::sleep(std::time::Duration::from_millis(400));
            visit.get(&format!("usage/apis/{id}"), &[])?
        }
        row => row?,
    };
    let masked = row["metadata"]["masked"].as_object().cloned().unwrap_or_default();
    let mut pairs = vec![
        (visit.says("Id", "编号").to_owned(), text(&row["id"])),
        (visit.says("Time", "时间").to_owned(), text(&row["created_at"])),
        (visit.says("API", "接口").to_owned(), text(&row["api"]["title"])),
        (visit.says("Wire", "协议").to_owned(), text(&row["metadata"]["wire"])),
        (visit.says("Refused with", "拒绝原因").to_owned(), text(&row["metadata"]["error"])),
        (visit.says("HTTP status", "HTTP 状态码").to_owned(), text(&row["status_code"])),
        (visit.says("Outcome", "结果").to_owned(), text(&row["metadata"]["outcome"])),
        (visit.says("Decided by row", "判定规则").to_owned(), text(&row["metadata"]["decision_row"])),
        (visit.says("Charged", "计费").to_owned(), money(&row["deducted_amount"])),
        (
            visit.says("Balance afterwards", "扣费后余额").to_owned(),
            unless_null(&row["remaining_amount"], visit.says("unlimited", "不限")),
        ),
        (
            visit.says("Took", "耗时").to_owned(),
            format!("{:.2} ms", row["elapsed"].as_f64().unwrap_or_default() * 1000.0),
        ),
        (visit.says("Key", "密钥").to_owned(), text(&row["credential"]["name"])),
    ];
    // Nobody decides a refused request, and a balance it has none.
    let is_refused = !row["metadata"]["error"].is_null();
    let balance = visit.says("Balance afterwards", "扣费后余额").to_owned();
    pairs.retain(|(what, value)| !value.is_empty() && (!is_refused || *what != balance));
    pairs.extend(masked.iter().map(|(name, value)| (name.clone(), text(value))));
    let f = Frame::of(visit, visit.says("One request", "请求详情"), None);
    rendered(StatusCode::OK, &Usage { f, pairs })
}

/// An order in a list.
pub struct OrderRow {
    pub id: String,
    pub what: String,
    pub whose: String,
    pub credits: String,
    pub price: String,
    pub state: String,
    pub at: String,
}

/// Orders of the management API.
pub fn order_rows(listed: &Value, visit: &Visit) -> Vec<OrderRow> {
    let directory = visit.server.engine.directory();
    let whose = |order: &Value| {
        let number =
            order["user_id"].as_str().and_then(|id| crate::platform::shapes::Kind::User.number(id).ok());
        let caller = number.and_then(|number| directory.caller(engine::caller::CallerId(number)));
        caller.map(|caller| caller.name.clone()).unwrap_or_default()
    };
    let row = |order: &Value| OrderRow {
        id: text(&order["id"]),
        what: text(&order["description"]),
        whose: whose(order),
        credits: money(&order["amount"]),
        price: format!(
            "{:.2} {}",
            order["price"].as_f64().unwrap_or_default(),
            text(&order["metadata"]["currency"])
        ),
        state: text(&order["state"]),
        at: minute(&order["created_at"]),
    };
    items(listed).iter().map(row).collect()
}

#[derive(Template)]
#[template(path = "orders.html")]
struct Orders {
    f: Frame,
    count: String,
    spent: String,
    pending: String,
    currency: String,
    orders: Vec<OrderRow>,
}

/// `GET /console/orders`
pub fn orders(visit: &Visit, notice: Option<Notice>) -> Seen {
    let summary = visit.get("orders/summary", &[])?;
    let page = Orders {
        orders: order_rows(&visit.get("orders", &[("limit", "100")])?, visit),
        f: Frame::of(visit, visit.says("Orders", "订单"), notice),
        count: text(&summary["total_count"]),
        spent: format!("{:.2}", summary["total_spent"].as_f64().unwrap_or_default()),
        pending: text(&summary["state_counts"]["Pending"]),
        currency: visit.server.settings().platform.currency.clone(),
    };
    rendered(StatusCode::OK, &page)
}

/// `POST /console/orders`
pub fn order(visit: &Visit) -> Seen {
    let own = application(visit)?.ok_or_else(|| Refused::not_found("application"))?;
    let body = json!({ "application_id": own["id"], "package_id": visit.field("package") });
    let notice = match visit.post("orders", body) {
        Ok(_) => Notice::good(
            visit.says("Ordered: pay it, the operator confirms.", "下单成功，付款后由管理员确认。"),
        ),
        Err(refused) => Notice::bad(refused.detail),
    };
    orders(visit, Some(notice))
}

/// `POST /console/redeem`
pub fn redeem(visit: &Visit) -> Seen {
    let notice = match visit.post("recharge-cards/redeem", json!({ "code": visit.field("code") })) {
        Ok(order) => {
            let credits = money(&order["amount"]);
            Notice::good(format!("{} {credits}", visit.says("Credits you got:", "已到账点数：")))
        }
        Err(refused) => Notice::bad(refused.detail),
    };
    orders(visit, Some(notice))
}

#[derive(Template)]
#[template(path = "sandbox.html")]
struct SandboxPage {
    f: Frame,
    clock: String,
    outcomes: Vec<&'static str>,
}

/// `GET /console/sandbox`
pub fn sandbox(visit: &Visit) -> Seen {
    let page = SandboxPage {
        f: Frame::of(visit, visit.says("Sandbox", "沙箱"), None),
        clock: engine::clock::utc_text(visit.server.engine.clock.now_ms()),
        outcomes: Outcome::ALL.map(Outcome::name).to_vec(),
    };
    rendered(StatusCode::OK, &page)
}

#[derive(Template)]
#[template(path = "text.html")]
struct Words {
    f: Frame,
    paragraphs: Vec<String>,
    hits: Vec<Hit>,
    back: Option<(&'static str, String)>,
}

fn words(visit: &Visit, title: &str, paragraphs: &[&str]) -> Words {
    Words {
        f: Frame::of(visit, title, None),
        paragraphs: paragraphs.iter().map(|text| (*text).to_owned()).collect(),
        hits: Vec::new(),
        back: None,
    }
}

/// `GET /documents/search`
pub fn search(visit: &Visit) -> Seen {
    let hits = catalogue::find(visit.parameter("q"), visit.language);
    let found = match hits.len() {
        0 => visit.says(
            "Nothing found: try a code, a member or a word of an error.",
            "未找到结果，请尝试结果码、字段名或错误码。",
        ),
        _ => visit.says("Found:", "搜索结果："),
    };
    let hits = hits.into_iter().take(50).collect();
    rendered(StatusCode::OK, &Words { hits, ..words(visit, visit.says("Search", "搜索"), &[found]) })
}

/// `GET /support`
pub fn support(visit: &Visit) -> Seen {
    let contact = visit.server.settings().platform.support_contact.clone();
    let about = visit.says(
        "Send the id of the request: x-trace-id on the AceData wire, RequestId on the Tencent wire. Never send card, name, identity or phone numbers.",
        "咨询时请提供请求编号：AceData 为 x-trace-id，腾讯云为 RequestId。请勿发送卡号、姓名、身份证号或手机号。",
    );
    rendered(StatusCode::OK, &words(visit, visit.says("Support", "支持"), &[&contact, about]))
}

/// `GET /terms`
pub fn terms_page(visit: &Visit) -> Seen {
    let text = if visit.zh() {
        [
            "仅可在持卡人知情并同意的前提下提交其信息，且须用于您声明的目的。",
            "每次应答均计费（结果码表标注免费的除外）并写入审计账本；要素仅以脱敏形式保留。",
            "请妥善保管密钥；泄露后请立即轮换或删除。",
        ]
    } else {
        [
            "Send somebody's elements only with their knowledge and consent, and for the purpose you state.",
            "Every answer is charged, unless the code table calls it free, and is written to an audited ledger; elements are kept masked only.",
            "Keep your keys to yourself; rotate or delete one that got out.",
        ]
    };
    rendered(StatusCode::OK, &words(visit, visit.says("Terms", "服务条款"), &text))
}

/// The page of a refusal.
pub fn refused(visit: &Visit, refused: &Refused) -> String {
    let title = match refused.status {
        StatusCode::NOT_FOUND => visit.says("There is nothing here", "页面不存在"),
        StatusCode::FORBIDDEN => visit.says("This is not yours", "没有权限"),
        StatusCode::UNAUTHORIZED => visit.says("Log in first", "请先登录"),
        _ => visit.says("That did not work", "操作未完成"),
    };
    let support = visit.server.settings().platform.support_contact.clone();
    let mut page = words(visit, title, &[&refused.detail, &support]);
    page.back = Some(("/", visit.says("To the beginning", "返回首页").to_owned()));
    page.render().unwrap_or_else(|_| refused.detail.clone())
}
