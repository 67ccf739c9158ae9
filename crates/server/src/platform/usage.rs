//! What was asked, answered and charged: lists, sums, a file.

use engine::action::Action;
use engine::caller::CallerId;
use engine::clock::Millis;
use engine::ledger::Credits;
use engine::store::{UsageFilter, UsageRow};
use serde_json::{Value, json};

use super::money::csv_text;
use super::shapes::{self, Kind, amount};
use super::time::{day_text, iso, month_begin, parse, zone_offset_ms};
use super::{Answer, Ask, Done, Refused, catalogue, list, ok};

/// Rows are listed this long.
const KEPT_MS: i64 = 60 * 86_400_000;

const DAY_MS: i64 = 86_400_000;

/// Which rows are asked for. A filter that nothing can fit finds nothing.
fn filter(ask: &Ask) -> Result<UsageFilter, Refused> {
    let mut applications = ask.whose()?.map(|CallerId(number)| vec![number]);
    if let Some(asked) = numbers(ask, "application_id", Kind::Application)? {
        let operator = ask.actor()?.is_operator();
        let own = |number: &u32| operator || applications.as_ref().is_none_or(|own| own.contains(number));
        if !asked.iter().all(own) {
            return Err(Refused::denied());
        }
        applications = Some(asked);
    }
    let actions: Option<Vec<String>> = match ask.all("api_id").as_slice() {
        [] => None,
        ids => {
            let named = |id: &&str| catalogue::action_of_id(id).map(|action| action.name().to_owned());
            Some(ids.iter().filter_map(named).collect())
        }
    };
    // Every row is an answer, and every answer is a 200.
    let wrong_status = !ask.all("status_code").is_empty() && !ask.all("status_code").contains(&"200");
    let wrong_service = !ask.all("service_id").is_empty()
        && !ask.all("service_id").iter().any(|id| catalogue::check_service(id).is_ok());
    if actions.as_ref().is_some_and(Vec::is_empty) || wrong_status || wrong_service {
        applications = Some(Vec::new());
    }
    let (from_ms, until_ms) = range(ask)?;
    Ok(UsageFilter {
        applications,
        credentials: numbers(ask, "credential_id", Kind::Credential)?.unwrap_or_default(),
        actions: actions.unwrap_or_default(),
        outcomes: ask.all("outcome").into_iter().map(str::to_owned).collect(),
        from_ms,
        until_ms,
        request: None,
    })
}

fn numbers(ask: &Ask, name: &str, kind: Kind) -> Result<Option<Vec<u32>>, Refused> {
    let ids = ask.all(name);
    let numbers: Result<Vec<u32>, Refused> = ids.iter().map(|id| kind.number(id)).collect();
    Ok(if ids.is_empty() { None } else { Some(numbers?) })
}

/// From and until; a day alone as the end includes that day.
fn range(ask: &Ask) -> Result<(Option<Millis>, Option<Millis>), Refused> {
    let bound = |names: [&str; 2], is_end: bool| -> Result<Option<Millis>, Refused> {
        let Some(text) = names.iter().find_map(|name| ask.first(name)) else { return Ok(None) };
        let (at, is_day) = parse(text).ok_or_else(|| {
            Refused::invalid(format!("{} must be a time such as 2026-11-01T00:00:00Z.", names[0]))
        })?;
        Ok(Some(if is_end && is_day { at + DAY_MS } else { at }))
    };
    Ok((bound(["created_at_from", "start_time"], false)?, bound(["created_at_to", "end_time"], true)?))
}

/// `GET /usage/apis/`
pub fn rows(ask: &Ask) -> Answer {
    let filter = filter(ask)?;
    let available = ask.engine().clock.now_ms() - KEPT_MS;
    if filter.from_ms.is_some_and(|from| from < available - DAY_MS) {
        let detail = format!("Usage is listed for 60 days: available_from {}.", iso(available));
        return Err(Refused { status: http::StatusCode::BAD_REQUEST, code: "usage_history_expired", detail });
    }
    let filter = UsageFilter { from_ms: Some(filter.from_ms.unwrap_or(available)), ..filter };
    let (count, rows) = ask.engine().usage_page(&filter, ask.page())?;
    Ok(list(count as usize, rows.iter().map(|row| shapes::usage(ask.engine(), row)).collect()))
}

/// `GET /usage/apis/{id}`: the elements only masked, because no body is kept.
pub fn row(ask: &Ask, id: &str) -> Answer {
    ask.actor()?;
    let hex: String = id.chars().filter(|c| *c != '-').collect();
    let request = engine::file::unhex(&hex).and_then(|bytes| bytes.try_into().ok());
    let request: [u8; 16] = request.ok_or_else(|| Refused::invalid("That is not a valid UUID."))?;
    let found = one(ask, request)?.ok_or_else(|| Refused::not_found("usage"))?;
    let directory = ask.engine().directory();
    let owner = directory.application(engine::caller::ApplicationId(found.application));
    ask.reaches(owner.map_or(CallerId(0), |(application, _)| application.caller))?;
    let mut shaped = shapes::usage(ask.engine(), &found);
    shaped["request"] = json!(found.masks);
    shaped["response"] = json!({ "outcome": found.outcome, "charged": found.charged });
    ok(shaped)
}

fn one(ask: &Ask, request: [u8; 16]) -> Result<Option<UsageRow>, Refused> {
    let filter = UsageFilter { request: Some(request), ..UsageFilter::default() };
    Ok(ask.engine().usage_page(&filter, (1, 0))?.1.into_iter().next())
}

/// `GET /usage/apis/aggregate/`
pub fn aggregate(ask: &Ask) -> Answer {
    let mut filter = filter(ask)?;
    let now = ask.engine().clock.now_ms();
    filter.from_ms = Some(filter.from_ms.unwrap_or(month_begin(now)));
    let offset_ms = zone_offset_ms(ask.first("timezone").unwrap_or("UTC"));
    let days = ask.engine().usage_days(&filter, offset_ms)?;
    let mut items: Vec<(i64, String, Credits)> = Vec::new();
    for day in &days {
        match items.last_mut() {
            Some((known, action, sum)) if *known == day.day && *action == day.action => {
                sum.0 += day.charged.0
            }
            _ => items.push((day.day, day.action.clone(), day.charged)),
        }
    }
    let total = Credits(days.iter().map(|day| day.charged.0).sum());
    let requests: u64 = days.iter().map(|day| day.answers).sum();
    let id = |action: &str| action.parse::<Action>().map(catalogue::api_id).unwrap_or_default();
    let apis: serde_json::Map<String, Value> = Action::ALL
        .into_iter()
        .filter(|action| days.iter().any(|day| day.action == action.name()))
        .map(|action| (catalogue::api_id(action), json!({ "title": catalogue::page(action).title_en })))
        .collect();
    let items: Vec<_> = items
        .into_iter()
        .map(|(day, action, sum)| json!({ "date": day_text(day), "api_id": id(&action), "amount": amount(sum) }))
        .collect();
    ok(json!({ "items": items, "total": amount(total), "apis": apis, "requests": requests, "models": [] }))
}

/// `GET /usage/apis/status-codes/`: refused requests are neither charged nor kept.
pub fn status_codes(ask: &Ask) -> Answer {
    let filter = UsageFilter { request: None, ..filter(ask)? };
    let (count, _) = ask.engine().usage_page(&filter, (1, 0))?;
    ok(json!({ "items": if count > 0 { vec![200] } else { vec![] } }))
}

/// Rows of a file at most.
const EXPORT_MAX: u32 = 1_000_000;

/// `GET /usage/apis/export/`
pub fn export(ask: &Ask) -> Answer {
    const PAGE: u32 = 5000;
    let mut filter = filter(ask)?;
    let now = ask.engine().clock.now_ms();
    filter.from_ms = Some(filter.from_ms.unwrap_or(month_begin(now)));
    // What comes while pages are read must not shift them.
    filter.until_ms = Some(filter.until_ms.unwrap_or(now + 1).min(now + 1));
    let mut text =
        String::from("Usage ID,API,Status Code,Deducted Amount,Original Amount,Trace ID,Created At\n");
    let mut offset = 0;
    loop {
        let (count, rows) = ask.engine().usage_page(&filter, (PAGE, offset))?;
        for row in &rows {
            let title = row.action.parse::<Action>().map_or("", |action| catalogue::page(action).title_en);
            let (id, charged) = (&row.request_id, &row.charged);
            text += &format!("{id},{},200,{charged},{charged},{id},{}\n", csv_text(title), iso(row.at_ms));
        }
        offset += PAGE;
        if offset >= count {
            return Ok(Done::Csv("usages.csv", text));
        }
        if offset >= EXPORT_MAX {
            text += &format!("# truncated: {count} rows, the newest {EXPORT_MAX} are here\n");
            return Ok(Done::Csv("usages.csv", text));
        }
    }
}
