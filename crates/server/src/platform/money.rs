//! Packages, orders, vouchers: how credits are bought, given and taken back.

use engine::caller::CallerId;
use engine::ledger::Credits;
use engine::platform::{Order, OrderState, Package, PayWay};
use engine::verify::{new_request_id, uuid_text};
use serde_json::{Value, json};

use super::keys::reached_application;
use super::shapes::{self, Kind, amount};
use super::time::iso;
use super::{Answer, Ask, Done, Refused, created, list, ok};

/// `GET /packages/`
pub fn packages(ask: &Ask) -> Answer {
    let packages = ask.engine().platform().packages()?;
    Ok(ask.paged(packages.iter().map(shapes::package).collect()))
}

/// `POST /packages/`, for operators.
pub fn add_package(ask: &Ask) -> Answer {
    ask.operator()?;
    let title = ask.required("title")?.trim().to_owned();
    if !(1..=64).contains(&title.chars().count()) || title.chars().any(char::is_control) {
        return Err(Refused::invalid("title has 1 to 64 characters, in one line."));
    }
    let credits = positive(ask, "amount")?;
    let price_cents = price_cents(ask)?;
    let id = uuid_text(&new_request_id());
    let package = Package { id, title, credits, price_cents };
    ask.acting().put_package(&package)?;
    created(shapes::package(&package))
}

fn price_cents(ask: &Ask) -> Result<i64, Refused> {
    let price = ask.body.get("price").and_then(Value::as_f64);
    let price = price.filter(|price| (0.0..=1e9).contains(price));
    let price = price.ok_or_else(|| Refused::invalid("price must be a number, 0 or more."))?;
    Ok((price * 100.0).round() as i64)
}

/// `DELETE /packages/{id}`, for operators.
pub fn drop_package(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    ask.acting().drop_package(id)?;
    Ok(Done::Gone)
}

fn positive(ask: &Ask, name: &str) -> Result<Credits, Refused> {
    let value = ask.body.get(name).unwrap_or(&Value::Null);
    let credits = shapes::credits(value, name)?;
    let fits = credits > Credits::ZERO && credits <= Credits::whole(1_000_000_000);
    if fits { Ok(credits) } else { Err(Refused::invalid(format!("{name} must be more than 0."))) }
}

/// One of a name, or the only one of a list under its plural.
fn one_of<'a>(ask: &'a Ask, name: &str) -> Result<&'a str, Refused> {
    if let Some(id) = ask.text(name)? {
        return Ok(id);
    }
    match ask.body.get(format!("{name}s")).and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(id)]) => Ok(id),
        Some(_) => Err(Refused::invalid(format!("{name}s must have one id: order one thing at a time."))),
        None => Err(Refused::invalid(format!("{name} is required."))),
    }
}

/// Orders nobody has paid yet, of one account.
const PENDING_MAX: u32 = 20;

/// `POST /orders/`
pub fn order(ask: &Ask) -> Answer {
    let (application, _) = reached_application(ask, one_of(ask, "application_id")?)?;
    let wanted = one_of(ask, "package_id")?;
    let engine = ask.engine();
    let packages = engine.platform().packages()?;
    let package = packages.into_iter().find(|package| package.id == wanted);
    let package = package.ok_or_else(|| Refused::not_found("package"))?;
    let (pending, _) = engine.platform().orders(Some(application.caller), &[OrderState::Pending], (1, 0))?;
    if pending >= PENDING_MAX {
        return Err(Refused::invalid(format!("{PENDING_MAX} orders wait to be paid already.")));
    }
    let order = Order {
        package: Some(package.id),
        price_cents: package.price_cents,
        ..Order::new(application.caller, package.title, package.credits, engine.clock.now_ms())
    };
    engine.platform().add_order(&order)?;
    created(shapes::order(ask, &order, true))
}

/// `POST /orders/admin/create/`, for operators: an order in somebody else's name, of a package or of so many
/// credits, at any price.
pub fn make_order(ask: &Ask) -> Answer {
    ask.operator()?;
    let (application, _) = reached_application(ask, one_of(ask, "application_id")?)?;
    let engine = ask.engine();
    let mut order = match ask.text("package_id")? {
        None => {
            let title = ask.text("description")?.unwrap_or("Credits").trim().to_owned();
            if title.chars().count() > 64 || title.chars().any(char::is_control) {
                return Err(Refused::invalid("description has at most 64 characters, in one line."));
            }
            Order::new(application.caller, title, positive(ask, "amount")?, engine.clock.now_ms())
        }
        Some(wanted) => {
            let packages = engine.platform().packages()?;
            let package = packages.into_iter().find(|package| package.id == wanted);
            let package = package.ok_or_else(|| Refused::not_found("package"))?;
            let now = engine.clock.now_ms();
            Order {
                package: Some(package.id),
                price_cents: package.price_cents,
                ..Order::new(application.caller, package.title, package.credits, now)
            }
        }
    };
    if ask.body.get("price").is_some_and(|price| !price.is_null()) {
        order.price_cents = price_cents(ask)?;
    }
    ask.acting().make_order(&order)?;
    created(shapes::order(ask, &order, true))
}

/// `POST /orders/{id}/update-price/`, for operators: until it is paid.
pub fn set_price(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    let order = reached_order(ask, id)?;
    ok(shapes::order(ask, &ask.acting().set_price(&order.id, price_cents(ask)?)?, true))
}

fn reached_order(ask: &Ask, id: &str) -> Result<Order, Refused> {
    ask.actor()?;
    let order = known(ask, id)?;
    ask.reaches(order.caller)?;
    Ok(order)
}

fn known(ask: &Ask, id: &str) -> Result<Order, Refused> {
    if !shapes::is_uuid(id) {
        return Err(Refused::invalid("That is not a valid UUID."));
    }
    ask.engine().platform().order(id)?.ok_or_else(|| Refused::not_found("order"))
}

fn states(ask: &Ask) -> Result<Vec<OrderState>, Refused> {
    let named = |name: &str| OrderState::ALL.into_iter().find(|state| state.name() == name);
    let asked = ask.all("state");
    // `Expired` is a state of the original's that no order here comes to.
    let known = asked.iter().filter_map(|name| named(name)).collect::<Vec<_>>();
    match asked.iter().find(|name| named(name).is_none() && **name != "Expired") {
        Some(_) => Err(Refused::invalid("state is one of Pending, Paid, Finished, Refunded, Failed.")),
        None if known.is_empty() && !asked.is_empty() => Ok(vec![OrderState::Failed]),
        None => Ok(known),
    }
}

/// `GET /orders/`
pub fn orders(ask: &Ask) -> Answer {
    let (count, orders) = ask.engine().platform().orders(ask.whose()?, &states(ask)?, ask.page())?;
    Ok(list(count as usize, orders.iter().map(|order| shapes::order(ask, order, true)).collect()))
}

/// `GET /orders/{id}`: whoever has the id may see what is to be paid; somebody else's account may not.
pub fn one(ask: &Ask, id: &str) -> Answer {
    let order = match &ask.actor {
        None => known(ask, id)?,
        Some(_) => reached_order(ask, id)?,
    };
    ok(shapes::order(ask, &order, ask.actor.is_some()))
}

/// `GET /orders/{id}/payment-options/`
pub fn payment_options(ask: &Ask, id: &str) -> Answer {
    let order = reached_order(ask, id)?;
    let options = json!([{
        "pay_way": PayWay::BankTransfer.name(),
        "description": ask.server.settings().platform.support_contact,
    }]);
    ok(json!({ "order_id": order.id, "items": options, "count": 1 }))
}

/// `POST /orders/{id}/pay/`: says how it will be paid; the operator confirms that it was.
pub fn pay(ask: &Ask, id: &str) -> Answer {
    let order = reached_order(ask, id)?;
    if ask.text("pay_way")?.unwrap_or("BankTransfer") != "BankTransfer" {
        return Err(Refused::invalid(
            "pay_way can be BankTransfer; a voucher is redeemed at /recharge-cards/redeem/.",
        ));
    }
    if order.state != OrderState::Pending {
        return Err(Refused::invalid(format!("The order is {}, not Pending.", order.state.name())));
    }
    let engine = ask.engine();
    let now = engine.clock.now_ms();
    engine.platform().set_order(id, OrderState::Pending, Some(PayWay::BankTransfer), now)?;
    ok(shapes::order(ask, &known(ask, id)?, true))
}

/// `POST /orders/{id}/finish/`, for operators: the money has come.
pub fn finish(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    let order = reached_order(ask, id)?;
    ok(shapes::order(ask, &ask.acting().finish_order(&order.id, None)?, true))
}

/// `POST /orders/{id}/refund/`, for operators.
pub fn refund(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    let order = reached_order(ask, id)?;
    ok(shapes::order(ask, &ask.acting().refund_order(&order.id)?, true))
}

/// `POST /applications/{id}/sponsor/`, for operators: a gift, as an order that is finished at once.
pub fn sponsor(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    let (application, _) = reached_application(ask, id)?;
    let credits = positive(ask, "amount")?;
    let engine = ask.engine();
    let order = Order::new(application.caller, "Reward".into(), credits, engine.clock.now_ms());
    ask.acting().make_order(&order)?;
    created(shapes::order(ask, &ask.acting().finish_order(&order.id, Some(PayWay::Reward))?, true))
}

/// Calls `each` for all orders that are asked for, a page at a time.
fn all(ask: &Ask, mut each: impl FnMut(&Order)) -> Result<u32, Refused> {
    const PAGE: u32 = 500;
    let (whose, states) = (ask.whose()?, states(ask)?);
    let mut offset = 0;
    loop {
        let (count, orders) = ask.engine().platform().orders(whose, &states, (PAGE, offset))?;
        orders.iter().for_each(&mut each);
        offset += PAGE;
        if offset >= count {
            return Ok(count);
        }
    }
}

/// `GET /orders/summary/`
pub fn summary(ask: &Ask) -> Answer {
    let mut counts: serde_json::Map<String, Value> =
        OrderState::ALL.iter().map(|state| (state.name().to_owned(), json!(0))).collect();
    let mut spent_cents = 0;
    let count = all(ask, |order| {
        let so_far = counts[order.state.name()].as_u64().unwrap_or(0);
        counts[order.state.name()] = json!(so_far + 1);
        if order.state == OrderState::Finished {
            spent_cents += order.price_cents;
        }
    })?;
    ok(json!({ "total_count": count, "total_spent": spent_cents as f64 / 100.0, "state_counts": counts }))
}

/// `GET /orders/export/`
pub fn export(ask: &Ask) -> Answer {
    let mut text = String::from("Order ID,Description,Credits,Price,State,Pay Way,Created At,Finished At\n");
    all(ask, |order| {
        let finished = order.finished_at_ms.map(iso).unwrap_or_default();
        let way = order.pay_way.map_or("", PayWay::name);
        text += &format!(
            "{},{},{},{:.2},{},{way},{},{finished}\n",
            order.id,
            csv_text(&order.description),
            order.credits,
            order.price_cents as f64 / 100.0,
            order.state.name(),
            iso(order.created_at_ms),
        );
    })?;
    Ok(Done::Csv("orders.csv", text))
}

/// A field that a spreadsheet takes for text, whatever it begins with.
pub(super) fn csv_text(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// `POST /recharge-cards/`, for operators: vouchers, whose codes are shown this once.
pub fn issue_vouchers(ask: &Ask) -> Answer {
    ask.operator()?;
    let credits = positive(ask, "amount")?;
    let count = ask.body.get("count").map_or(Some(1), Value::as_u64);
    let count = count.filter(|count| (1..=1000).contains(count));
    let count = count.ok_or_else(|| Refused::invalid("count is 1 to 1000."))?;
    let codes = ask.acting().issue_vouchers(count as u32, credits)?;
    created(json!({ "count": count, "amount": amount(credits), "codes": codes }))
}

/// `GET /recharge-cards/`, for operators: what became of them.
pub fn vouchers(ask: &Ask) -> Answer {
    ask.operator()?;
    let vouchers = ask.engine().platform().vouchers()?;
    let shape = |voucher: &engine::platform::Voucher| {
        json!({
            "code": format!("••••{}", voucher.last4),
            "amount": amount(voucher.credits),
            "created_at": iso(voucher.created_at_ms),
            "redeemed_by": voucher.redeemed_by.map(|CallerId(number)| Kind::User.id(number)),
        })
    };
    Ok(ask.paged(vouchers.iter().map(shape).collect()))
}

/// `POST /recharge-cards/redeem/`
pub fn redeem(ask: &Ask) -> Answer {
    let actor = ask.actor()?;
    let code: String = ask.required("code")?.chars().filter(char::is_ascii_alphanumeric).collect();
    let code = code.to_ascii_uppercase();
    let now = ask.engine().clock.now_ms();
    let guess = [(format!("voucher {}", actor.caller.id.0), 2)];
    if !ask.server.guesses.take(&guess, now) {
        return Err(Refused::too_fast("Too many vouchers were tried: wait a quarter of an hour."));
    }
    let order = ask.acting().redeem(actor.caller.id, &code)?;
    ask.server.guesses.right(&guess);
    ok(shapes::order(ask, &order, true))
}
