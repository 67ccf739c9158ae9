//! Screens of who looks after the installation.

use askama::Template;
use engine::action::Action;
use engine::caller::{ApplicationId, CallerId, Standing};
use engine::operator::Act;
use engine::register::{Term, Terms};
use http::StatusCode;
use serde_json::{Value, json};

use super::look::{Frame, Notice};
use super::pages::{OrderRow, PackageRow, money, order_rows, package_rows, rendered, text};
use super::{Seen, Visit, form_encoded};
use crate::platform::Refused;
use crate::platform::shapes::Kind;

#[derive(Template)]
#[template(path = "operator.html")]
struct Operator {
    f: Frame,
    facts: Vec<(&'static str, String)>,
    orders: Vec<OrderRow>,
    wanted: String,
    callers: Vec<CallerRow>,
    newer: Option<String>,
    older: Option<String>,
    packages: Vec<PackageRow>,
    currency: String,
    back: String,
}

#[derive(Template)]
#[template(path = "operator_account.html")]
struct Account {
    f: Frame,
    c: CallerRow,
    orders: Vec<OrderRow>,
    currency: String,
    back: String,
}

struct CallerRow {
    number: u32,
    name: String,
    login: Option<String>,
    operator: bool,
    balance: String,
    keys: usize,
    state: &'static str,
    suspended: bool,
    rate: String,
    price: String,
    encryption_required: bool,
    reasons: bool,
    unlimited: bool,
    actions: Vec<(&'static str, bool)>,
    application: Option<String>,
}

/// Refuses who does not look after the installation.
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
    let wanted = visit.parameter("name");
    let offset: usize = visit.parameter("offset").parse().unwrap_or(0);
    let people = engine.platform().people()?;
    let directory = engine.directory();
    let letters = wanted.to_lowercase();
    let fits = |caller: CallerId| {
        let name = directory.caller(caller).map(|caller| caller.name.to_lowercase());
        let login = people.iter().find(|person| person.caller == caller).map(|person| &person.login);
        name.is_some_and(|name| name.contains(&letters))
            || login.is_some_and(|login| login.contains(&letters))
    };
    let (count, callers) = callers(visit, fits, offset)?;
    let other = |offset: usize| format!("/console/operator?name={}&offset={offset}", form_encoded(wanted));
    let query = [("user_id", "all"), ("state", "Pending,Paid"), ("limit", "20")];
    let page = Operator {
        f: Frame::of(visit, visit.says("Operator", "运维"), notice).at("/console/operator"),
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
        callers,
        newer: (offset > 0).then(|| other(offset.saturating_sub(CALLERS_SHOWN))),
        older: (offset + CALLERS_SHOWN < count).then(|| other(offset + CALLERS_SHOWN)),
        wanted: wanted.to_owned(),
        packages: package_rows(&visit.get("packages", &[("limit", "100")])?),
        currency: visit.server.settings().platform.currency.clone(),
        back: String::new(),
    };
    rendered(StatusCode::OK, &page)
}

/// `GET /console/operator/account/{number}`: one account, its limits and orders.
pub fn account(visit: &Visit, number: &str, notice: Option<Notice>) -> Seen {
    check(visit)?;
    let unknown = || Refused::not_found("account");
    let number: u32 = number.parse().map_err(|_| unknown())?;
    let (_, rows) = callers(visit, |caller| caller.0 == number, 0)?;
    let c = rows.into_iter().next().ok_or_else(unknown)?;
    let user = Kind::User.id(number);
    let orders = visit.get("orders", &[("user_id", &user), ("limit", "20")])?;
    let page = Account {
        f: Frame::of(visit, &c.name, notice).at("/console/operator"),
        orders: order_rows(&orders, visit),
        c,
        currency: visit.server.settings().platform.currency.clone(),
        back: format!("<input type=\"hidden\" name=\"account\" value=\"{number}\">"),
    };
    rendered(StatusCode::OK, &page)
}

/// Accounts of a page: a page is small however many there are.
const CALLERS_SHOWN: usize = 25;

/// How many callers fit, and a page of them.
fn callers(
    visit: &Visit,
    fits: impl Fn(CallerId) -> bool,
    offset: usize,
) -> Result<(usize, Vec<CallerRow>), Refused> {
    let engine = &visit.server.engine;
    let directory = engine.directory();
    let all = engine.list_callers().into_iter().zip(directory.callers());
    let found: Vec<_> = all.filter(|(_, caller)| fits(caller.id)).collect();
    let count = found.len();
    let rows = found.into_iter().skip(offset).take(CALLERS_SHOWN).map(|(listed, caller)| {
        let application =
            directory.application(ApplicationId(caller.id.0)).map(|(application, _)| application);
        let active = application.as_ref().is_some_and(|application| !application.actions.is_empty());
        let actions = Action::ALL.map(|action| (action.name(), listed.actions.contains(&action.name())));
        Ok(CallerRow {
            number: caller.id.0,
            login: engine.platform().person_of(caller.id)?.map(|person| person.login),
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
            encryption_required: listed.encryption_required,
            reasons: listed.reasons,
            unlimited: application.is_some_and(|application| application.unlimited),
            actions: actions.to_vec(),
            application: active.then(|| Kind::Application.id(caller.id.0)),
        })
    });
    Ok((count, rows.collect::<Result<_, Refused>>()?))
}

/// The forms.
pub const FORMS: [&str; 13] = [
    "finish",
    "refund",
    "price",
    "order",
    "sponsor",
    "disable",
    "limits",
    "reset",
    "package",
    "drop-package",
    "voucher",
    "invite",
    "lookup",
];

/// A form of the operator's.
pub fn act(visit: &Visit, what: &str) -> Seen {
    check(visit)?;
    let notice = done(visit, what).unwrap_or_else(|refused| Notice::bad(refused.detail));
    match (what, visit.field("account")) {
        ("lookup", _) => super::watch::data(visit, Some(notice)),
        (_, "") => page(visit, Some(notice)),
        (_, number) => account(visit, number, Some(notice)),
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
        "order" => {
            let price = price(visit)?;
            let body = json!({
                "application_id": application,
                "amount": visit.field("amount"),
                "price": price,
                "description": Some(visit.field("description")).filter(|text| !text.is_empty()),
            });
            visit.post("orders/admin/create", body).map(|_| said("The order is made.", "订单已创建。"))
        }
        "price" => visit
            .post(&format!("orders/{order}/update-price"), json!({ "price": price(visit)? }))
            .map(|_| said("The price is changed.", "价格已修改。")),
        "reset" => {
            let acting = visit.server.engine.acting(crate::platform::by(visit.actor()));
            let (code, _) = acting.allow_password_reset(visit.field("login"))?;
            let base = visit.public_url.trim_end_matches('/');
            let text_ = visit.says(
                "For the account's owner, valid once, for a day:",
                "请转交账号本人，一天内有效，仅可使用一次：",
            );
            Ok(Notice::secret(text_, format!("{base}/auth/reset?code={code}")))
        }
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
            let price = price(visit)?;
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

fn price(visit: &Visit) -> Result<f64, Refused> {
    visit.field("price").parse().map_err(|_| Refused::invalid("price must be a number."))
}

fn limits(visit: &Visit) -> Result<(), Refused> {
    let yes = |name: &str| match visit.field(name) {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let chosen = visit.form.iter().filter(|(name, _)| name == "action");
    let actions: Result<Vec<Action>, String> = chosen.map(|(_, value)| value.parse()).collect();
    let actions = actions.map_err(Refused::invalid)?;
    if actions.is_empty() && !visit.field("has_actions").is_empty() {
        let why = visit
            .says("Leave one action at least, or suspend the account.", "请至少保留一个接口，或停用该账号。");
        return Err(Refused::invalid(why));
    }

    fn term<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<Term<T>, Refused> {
        if text.is_empty() { "default" } else { text }.parse().map_err(Refused::invalid)
    }
    let terms = Terms {
        requests_per_second: Some(term(visit.field("rate"))?),
        price: Some(term(visit.field("price"))?),
        encryption_required: yes("encryption_required"),
        reasons: yes("reasons"),
        unlimited: yes("unlimited"),
        actions: Some(actions).filter(|actions| !actions.is_empty()),
    };
    let acting = visit.server.engine.acting(crate::platform::by(visit.actor()));
    Ok(acting.set_terms(visit.field("caller"), terms)?)
}

/// An account by its full number: what there is to tell without telling whose it is. That somebody looked is on
/// record, which card they looked for is not.
fn lookup(visit: &Visit) -> Result<Notice, Refused> {
    let wrong = || Refused::invalid(visit.says("That is no card number.", "卡号格式不正确。"));
    let digits: String = visit.field("card").chars().filter(|c| !c.is_whitespace()).collect();
    let card = engine::subject::CardNumber::parse(&digits).ok_or_else(wrong)?;
    let engine = &visit.server.engine;
    engine.acting(crate::platform::by(visit.actor())).record_act(Act::AccountLookedUp)?;
    let found = engine.accounts_to_change()?.find(card.as_str(), &engine.vault.keys())?;
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
