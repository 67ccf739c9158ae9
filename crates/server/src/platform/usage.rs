//! What was asked, answered and charged: lists, sums, a file.

use engine::Engine;
use engine::action::Action;
use engine::caller::{ApplicationId, CallerId};
use engine::clock::Millis;
use engine::ledger::Credits;
use engine::store::{RefusalCount, RefusalRow, UsageFilter, UsageRow};
use serde_json::{Value, json};

use super::money::csv_text;
use super::shapes::{self, Kind, amount};
use super::time::{day_text, iso, month_begin, parse, zone_offset_ms};
use super::{Answer, Ask, Done, Refused, catalogue, list, ok};

/// Rows are listed this long.
const KEPT_MS: i64 = 60 * 86_400_000;

const DAY_MS: i64 = 86_400_000;

/// Among outcomes: requests that were refused.
pub const REFUSED: &str = "REFUSED";

/// Which rows are asked for.
struct Wanted {
    answers: bool,
    refusals: bool,
    filter: UsageFilter,
}

/// Which rows are asked for. A filter that nothing can fit finds nothing.
fn wanted(ask: &Ask) -> Result<Wanted, Refused> {
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
    let statuses: Vec<u16> = ask.all("status_code").iter().filter_map(|text| text.parse().ok()).collect();
    let wrong_status = statuses.is_empty() && !ask.all("status_code").is_empty();
    let wrong_service = !ask.all("service_id").is_empty()
        && !ask.all("service_id").iter().any(|id| catalogue::check_service(id).is_ok());
    if actions.as_ref().is_some_and(Vec::is_empty) || wrong_status || wrong_service {
        applications = Some(Vec::new());
    }
    let outcomes = ask.all("outcome");
    let is_any = outcomes.is_empty();
    let (refused, answered): (Vec<&str>, Vec<&str>) = outcomes.into_iter().partition(|name| *name == REFUSED);
    let (from_ms, until_ms) = range(ask)?;
    Ok(Wanted {
        // An answer is always a 200.
        answers: (is_any || !answered.is_empty()) && (statuses.is_empty() || statuses.contains(&200)),
        refusals: is_any || !refused.is_empty(),
        filter: UsageFilter {
            applications,
            credentials: numbers(ask, "credential_id", Kind::Credential)?.unwrap_or_default(),
            actions: actions.unwrap_or_default(),
            outcomes: answered.into_iter().map(str::to_owned).collect(),
            from_ms,
            until_ms,
            request: None,
            statuses,
        },
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

/// `GET /usage/apis/`: answers, and requests that were refused, the newest first.
pub fn rows(ask: &Ask) -> Answer {
    let mut wanted = wanted(ask)?;
    let available = ask.engine().clock.now_ms() - KEPT_MS;
    if wanted.filter.from_ms.is_some_and(|from| from < available - DAY_MS) {
        let detail = format!("Usage is listed for 60 days: available_from {}.", iso(available));
        return Err(Refused { status: http::StatusCode::BAD_REQUEST, code: "usage_history_expired", detail });
    }
    wanted.filter.from_ms.get_or_insert(available);
    let (count, rows) = page(ask.engine(), &wanted, ask.page())?;
    Ok(list(count as usize, rows.iter().map(|row| row.shape(ask.engine())).collect()))
}

/// A row of the list.
enum Row {
    Answer(UsageRow),
    Refusal(RefusalRow),
}

impl Row {
    fn at_ms(&self) -> Millis {
        match self {
            Row::Answer(row) => row.at_ms,
            Row::Refusal(row) => row.at_ms,
        }
    }

    fn shape(&self, engine: &Engine) -> Value {
        match self {
            Row::Answer(row) => shapes::usage(engine, row),
            Row::Refusal(row) => shapes::refusal(engine, row),
        }
    }
}

/// How many rows there are, and a page (limit, offset) of answers and refusals as one list.
fn page(engine: &Engine, wanted: &Wanted, (limit, offset): (u32, u32)) -> Result<(u32, Vec<Row>), Refused> {
    let until = offset.saturating_add(limit);
    let (refusals, newest) = match wanted.refusals {
        true => engine.refusal_page(&wanted.filter, (until, 0))?,
        false => (0, Vec::new()),
    };
    // So many answers are before the page whatever lies between them: they need not be read.
    let passed = offset.saturating_sub(newest.len() as u32);
    let (answers, rows) = match wanted.answers {
        true => engine.usage_page(&wanted.filter, (until - passed, passed))?,
        false => (0, Vec::new()),
    };
    let passed = if wanted.answers { passed } else { 0 };
    let mut all: Vec<Row> = rows.into_iter().map(Row::Answer).collect();
    all.extend(newest.into_iter().map(Row::Refusal));
    all.sort_by_key(|row| std::cmp::Reverse(row.at_ms()));
    let page = all.into_iter().skip((offset - passed) as usize).take(limit as usize);
    Ok((answers + refusals, page.collect()))
}

/// `GET /usage/apis/{id}`: the elements only masked, because no body is kept.
pub fn row(ask: &Ask, id: &str) -> Answer {
    ask.actor()?;
    let hex: String = id.chars().filter(|c| *c != '-').collect();
    let request = engine::file::unhex(&hex).and_then(|bytes| bytes.try_into().ok());
    let request: [u8; 16] = request.ok_or_else(|| Refused::invalid("That is not a valid UUID."))?;
    let filter = UsageFilter { request: Some(request), ..UsageFilter::default() };
    let (_, found) = page(ask.engine(), &Wanted { answers: true, refusals: true, filter }, (1, 0))?;
    let found = found.into_iter().next().ok_or_else(|| Refused::not_found("usage"))?;
    let application = match &found {
        Row::Answer(row) => row.application,
        Row::Refusal(row) => row.application,
    };
    let directory = ask.engine().directory();
    let owner = directory.application(ApplicationId(application));
    ask.reaches(owner.map_or(CallerId(0), |(application, _)| application.caller))?;
    let mut shaped = found.shape(ask.engine());
    match &found {
        Row::Answer(row) => {
            shaped["request"] = json!(row.masks);
            shaped["response"] = json!({ "outcome": row.outcome, "charged": row.charged });
        }
        Row::Refusal(row) => shaped["response"] = json!({ "error": row.code }),
    }
    ok(shaped)
}

/// `GET /apis/{id}/usage/`: how the last quarter of an hour went, without whose requests they were. The
/// original shows it to anybody; here it takes an account token, because a bank's traffic is its own affair,
/// and others' requests only an operator's.
pub fn samples(ask: &Ask, id: &str) -> Answer {
    const RECENT_MS: i64 = 15 * 60_000;
    const SAMPLES_MAX: u32 = 5_000;
    let actor = ask.actor()?;
    let action = catalogue::action_of_document(id).ok_or_else(|| Refused::not_found("API"))?;
    let filter = UsageFilter {
        applications: (!actor.is_operator()).then(|| vec![actor.caller.id.0]),
        actions: vec![action.name().to_owned()],
        from_ms: Some(ask.engine().clock.now_ms() - RECENT_MS),
        ..UsageFilter::default()
    };
    let wanted = Wanted { answers: true, refusals: true, filter };
    let (_, rows) = page(ask.engine(), &wanted, (SAMPLES_MAX, 0))?;
    let sample = |row: &Row| {
        let (id, status, elapsed_us) = match row {
            Row::Answer(row) => (&row.request_id, 200, row.elapsed_us),
            Row::Refusal(row) => (&row.request_id, row.status, row.elapsed_us),
        };
        json!({
            "api_id": catalogue::api_id(action),
            "created_at": iso(row.at_ms()),
            "trace_id": id,
            "status_code": status,
            "elapsed": f64::from(elapsed_us) / 1e6,
        })
    };
    Ok(list(rows.len(), rows.iter().map(sample).collect()))
}

/// `GET /usage/apis/aggregate/`
pub fn aggregate(ask: &Ask) -> Answer {
    let mut filter = wanted(ask)?.filter;
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

/// `GET /usage/apis/status-codes/`, and beside them how often each error was answered.
pub fn status_codes(ask: &Ask) -> Answer {
    let wanted = wanted(ask)?;
    let (answers, _) = ask.engine().usage_page(&wanted.filter, (1, 0))?;
    let refused = ask.engine().refusal_counts(&wanted.filter)?;
    let mut statuses: Vec<u16> = refused.iter().map(|count| count.status).collect();
    statuses.extend((answers > 0).then_some(200));
    statuses.sort_unstable();
    statuses.dedup();
    let error = |count: &RefusalCount| json!({ "wire": count.wire, "code": count.code, "status_code": count.status, "requests": count.requests });
    ok(json!({ "items": statuses, "errors": refused.iter().map(error).collect::<Vec<_>>() }))
}

/// Rows of a file at most.
const EXPORT_MAX: u32 = 1_000_000;

/// `GET /usage/apis/export/`: answers, then refused requests; each the newest first.
pub fn export(ask: &Ask) -> Answer {
    let mut wanted = wanted(ask)?;
    let now = ask.engine().clock.now_ms();
    wanted.filter.from_ms = Some(wanted.filter.from_ms.unwrap_or(month_begin(now)));
    // What comes while pages are read must not shift them.
    wanted.filter.until_ms = Some(wanted.filter.until_ms.unwrap_or(now + 1).min(now + 1));
    let mut text =
        String::from("Usage ID,API,Status Code,Deducted Amount,Original Amount,Trace ID,Created At\n");
    for (answers, refusals) in [(wanted.answers, false), (false, wanted.refusals)] {
        let filter = wanted.filter.clone();
        let count = export_into(ask.engine(), &Wanted { answers, refusals, filter }, &mut text)?;
        if count > EXPORT_MAX {
            text += &format!("# truncated: {count} rows, the newest {EXPORT_MAX} are here\n");
            break;
        }
    }
    Ok(Done::Csv("usages.csv", text))
}

fn export_into(engine: &Engine, wanted: &Wanted, text: &mut String) -> Result<u32, Refused> {
    const PAGE: u32 = 5000;
    let mut offset = 0;
    loop {
        let (count, rows) = page(engine, wanted, (PAGE, offset))?;
        for row in &rows {
            let (id, action, status, charged) = match row {
                Row::Answer(row) => (&row.request_id, &row.action, 200, row.charged.as_str()),
                Row::Refusal(row) => (&row.request_id, &row.action, row.status, "0"),
            };
            let title = action.parse::<Action>().map_or("", |action| catalogue::page(action).title_en);
            let at = iso(row.at_ms());
            *text += &format!("{id},{},{status},{charged},{charged},{id},{at}\n", csv_text(title));
        }
        offset += PAGE;
        if offset >= count || offset >= EXPORT_MAX {
            return Ok(count);
        }
    }
}
