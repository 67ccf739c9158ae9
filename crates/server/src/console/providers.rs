//! The screen of providers: who is asked, how that goes, and what it costs.

use askama::Template;
use engine::provider::ProviderStatus;
use http::StatusCode;

use super::look::Frame;
use super::operator::check;
use super::pages::rendered;
use super::{Seen, Visit};

#[derive(Template)]
#[template(path = "providers.html")]
struct Providers {
    f: Frame,
    providers: Vec<Row>,
}

struct Row {
    is: ProviderStatus,
    state: &'static str,
    today: String,
    month: String,
    /// Of the daily cap, percent; for the meter.
    used: u32,
    average_ms: u64,
    failed: u64,
}

/// `GET /console/operator/providers`
pub fn page(visit: &Visit) -> Seen {
    check(visit)?;
    let row = |is: ProviderStatus| Row {
        state: match is.breaker {
            "closed" => visit.says("answers", "正常"),
            "open" => visit.says("left alone", "已熔断"),
            _ => visit.says("being tried", "试探中"),
        },
        today: of(&is.spent_today, is.daily_cap.as_deref()),
        month: of(&is.spent_this_month, is.monthly_cap.as_deref()),
        used: used(&is.spent_today, is.daily_cap.as_deref()),
        average_ms: is.counted.answered_ms.checked_div(is.counted.answered).unwrap_or(0),
        failed: is.counted.unsent + is.counted.unclear + is.counted.refused,
        is,
    };
    let page = Providers {
        f: Frame::of(visit, visit.says("Providers", "上游服务商"), None),
        providers: visit.server.engine.provider_status().into_iter().map(row).collect(),
    };
    rendered(StatusCode::OK, &page)
}

fn of(spent: &str, cap: Option<&str>) -> String {
    cap.map_or_else(|| spent.to_owned(), |cap| format!("{spent} / {cap}"))
}

fn used(spent: &str, cap: Option<&str>) -> u32 {
    let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    match cap.map(number) {
        Some(cap) if cap > 0.0 => (number(spent) / cap * 100.0).clamp(0.0, 100.0) as u32,
        _ => 0,
    }
}
