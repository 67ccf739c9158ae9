//! Screens of who looks after the installation.

use askama::Template;
use engine::caller::Standing;
use engine::register::{Term, Terms};
use http::StatusCode;
use serde_json::{Value, json};

use super::look::{Frame, Notice};
use super::pages::{OrderRow, PackageRow, money, order_rows, package_rows, rendered, text};
use super::{Seen, Visit};
use crate::platform::Refused;
use crate::platform::shapes::Kind;

#[derive(Template)]
#[template(path = "operator.html")]
struct Operator {
    f: Frame,
    facts: Vec<(&'static str, String)>,
    orders: Vec<OrderRow>,
    callers: Vec<CallerRow>,
    packages: Vec<PackageRow>,
    currency: String,
}

struct CallerRow {
    name: String,
    operator: bool,
    balance: String,
    keys: usize,
    state: &'static str,
    suspended: bool,
    rate: String,
    price: String,
    application: Option<String>,
}

/// Whether whoever visits looks after the installation.
pub(super) fn check(visit: &Visit) -> Result<(), Refused> {
    match visit.actor() {
        None => Err(Refused::not_authenticated("Log in first.")),
        Some(actor) if actor.is_operator() => Ok(()),
        Some(_) => Err(Refused::denied()),
    }
}

/// `GET /console/operator`
pub fn page(visit: &Visit, notice: Option<Notice>) -> Seen {
    check(visit)?;
    let engine = &visit.server.engine;
    let totals = engine.totals();
    let query = [("user_id", "all"), ("state", "Pending,Paid,Finished"), ("limit", "50")];
    let page = Operator {
        f: Frame::of(visit, visit.says("Operator", "运维"), notice),
        facts: vec![
            (visit.says("Answers", "应答总数"), totals.answers.to_string()),
            (visit.says("Charged", "计费总额"), totals.charged.to_string()),
            (visit.says("Under way", "处理中"), engine.under_way().to_string()),
            (
                visit.says("Ledger", "账本"),
                if engine.writing() != engine::settle::Writing::Works { "stopped" } else { "ok" }.to_owned(),
            ),
        ],
        orders: order_rows(&visit.get("orders", &query)?, visit),
        callers: callers(visit),
        packages: package_rows(&visit.get("packages", &[("limit", "100")])?),
        currency: visit.server.settings().platform.currency.clone(),
    };
    rendered(StatusCode::OK, &page)
}

fn callers(visit: &Visit) -> Vec<CallerRow> {
    let engine = &visit.server.engine;
    let directory = engine.directory();
    let numbers = directory.callers();
    let rows = engine.list_callers().into_iter().zip(numbers).map(|(listed, caller)| {
        let application = directory.application(engine::caller::ApplicationId(caller.id.0));
        let active = application.is_some_and(|(application, _)| !application.actions.is_empty());
        CallerRow {
            name: listed.name,
            operator: listed.operator,
            balance: listed.balance.unwrap_or_else(|| visit.says("unlimited", "不限").to_owned()),
            keys: listed.credentials,
            state: match listed.standing {
                Standing::Active => visit.says("active", "正常"),
                Standing::Suspended => visit.says("suspended", "已停用"),
                Standing::Unconfirmed => visit.says("unconfirmed", "待确认"),
            },
            suspended: listed.standing != Standing::Active,
            rate: listed.requests_per_second.map(|rate| rate.to_string()).unwrap_or_default(),
            price: listed.price.unwrap_or_default(),
            application: active.then(|| Kind::Application.id(caller.id.0)),
        }
    });
    rows.collect()
}

/// A form of the operator's.
pub fn act(visit: &Visit, what: &str) -> Seen {
    check(visit)?;
    match done(visit, what) {
        Ok(notice) => page(visit, Some(notice)),
        Err(refused) => page(visit, Some(Notice::bad(refused.detail))),
    }
}

fn done(visit: &Visit, what: &str) -> Result<Notice, Refused> {
    let said = |en: &str, zh: &str| Notice::good(visit.says(en, zh));
    let (order, application) = (visit.field("order"), visit.field("application"));
    match what {
        "finish" => visit
            .post(&format!("orders/{order}/finish"), json!({}))
            .map(|_| said("The order is finished.", "订单已确认到账。")),
        "refund" => visit
            .post(&format!("orders/{order}/refund"), json!({}))
            .map(|_| said("The order is refunded.", "订单已退款。")),
        "sponsor" => {
            let body = json!({ "amount": visit.field("amount") });
            visit
                .post(&format!("applications/{application}/sponsor"), body)
                .map(|_| said("Given.", "已赠送。"))
        }
        "disable" => {
            let body = json!({ "disabled": visit.field("disabled") == "yes" });
            visit
                .post(&format!("applications/{application}/update-disabled"), body)
                .map(|_| said("Done.", "已完成。"))
        }
        "limits" => limits(visit).map(|()| said("Saved.", "已保存。")),
        "package" => {
            let price: f64 =
                visit.field("price").parse().map_err(|_| Refused::invalid("price must be a number."))?;
            let body =
                json!({ "title": visit.field("title"), "amount": visit.field("amount"), "price": price });
            visit.post("packages", body).map(|_| said("Added.", "已添加。"))
        }
        "drop-package" => {
            let path = format!("packages/{}", visit.field("package"));
            visit.call("DELETE", &path, &[], json!({})).map(|_| said("Taken off.", "已下架。"))
        }
        "voucher" => {
            let made = visit.post("recharge-cards", json!({ "amount": visit.field("amount") }))?;
            let text_ = visit.says("The voucher, shown this once:", "充值卡密仅显示这一次：");
            Ok(Notice::secret(text_, text(&made["codes"][0])))
        }
        "invite" => {
            let made =
                visit.post("invitations", json!({ "days": visit.field("days").parse::<i64>().ok() }))?;
            let text_ = visit.says("The invitation, shown this once:", "邀请链接仅显示这一次：");
            Ok(Notice::secret(text_, text(&made["url"])))
        }
        "lookup" => lookup(visit),
        _ => Err(Refused::not_found("page")),
    }
}

fn limits(visit: &Visit) -> Result<(), Refused> {
    fn term<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<Term<T>, Refused> {
        if text.is_empty() { "default" } else { text }.parse().map_err(Refused::invalid)
    }
    let terms = Terms {
        requests_per_second: Some(term(visit.field("rate"))?),
        price: Some(term(visit.field("price"))?),
        ..Terms::default()
    };
    let acting = visit.server.engine.acting(crate::platform::by(visit.actor()));
    Ok(acting.set_terms(visit.field("caller"), terms)?)
}

/// An account by its full number: what there is to tell without telling whose it is. Who looked is in the
/// log, which card is not.
fn lookup(visit: &Visit) -> Result<Notice, Refused> {
    let wrong = || Refused::invalid(visit.says("That is no card number.", "卡号格式不正确。"));
    let digits: String = visit.field("card").chars().filter(|c| !c.is_whitespace()).collect();
    let card = engine::subject::CardNumber::parse(&digits).ok_or_else(wrong)?;
    let engine = &visit.server.engine;
    let found = engine.accounts_to_change()?.find(card.as_str(), &engine.vault.keys())?;
    let who = visit.actor().map(|actor| actor.caller.name.as_str()).unwrap_or_default();
    tracing::info!(
        operator = who,
        found = found.is_some(),
        "an account of record was looked up in the console"
    );
    let Some(row) = found else {
        return Ok(Notice::bad(visit.says("There is no account of that card.", "没有该卡的账户记录。")));
    };
    let told = json!(crate::accounts::Told::of(&row));
    let last4 = &digits[digits.len() - 4..];
    let parts: Vec<String> = match &told {
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}: {}", money(value))).collect()
        }
        _ => Vec::new(),
    };
    Ok(Notice::good(format!("••••{last4}: {}", parts.join(", "))))
}
