//! What the server counts about itself, as Prometheus text.
//!
//! Own atomics: a tracing event costs more than a whole signature check, so nothing is logged per
//! request; the audit record is the log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::Engine;
use engine::caller::{Action, Wire};
use engine::outcome::Outcome;
use engine::provider::ProviderStatus;
use engine::settle::Writing;
use engine::store::Freshness;

use crate::limiter;

const OUTCOMES: usize = Outcome::ALL.len();
const WIRES: usize = Wire::ALL.len();
const ACTIONS: usize = Action::ALL.len();

/// Upper bounds of the latency histogram, microseconds; four to a decade is enough to see a knee.
pub const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];

/// Counters of the HTTP side.
#[derive(Default)]
pub struct Metrics {
    answers: [[[AtomicU64; OUTCOMES]; ACTIONS]; WIRES],
    latency: [[AtomicU64; BOUNDS_US.len() + 1]; WIRES],
    latency_sum_us: [AtomicU64; WIRES],
    refusals: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Requests whose handling panicked.
    pub panics: AtomicU64,
    /// TLS handshakes that led to nothing.
    pub handshakes_failed: AtomicU64,
}

impl Metrics {
    /// An answered question.
    pub fn answered(&self, wire: Wire, action: Action, outcome: Outcome, took: Duration) {
        let wire = wire as usize;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.answers[wire][action as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.latency[wire][bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_sum_us[wire].fetch_add(us, Ordering::Relaxed);
    }

    /// A request that was refused with an error code of its wire.
    pub fn refused(&self, wire: Wire, code: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry((wire.name(), code)).or_default() += 1;
    }

    /// All counters in the text format of Prometheus.
    pub fn render(&self, engine: &Engine, limiter: &limiter::Shared) -> String {
        let mut text = String::with_capacity(8192);
        self.render_answers(&mut text);
        self.render_latency(&mut text);
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        head(&mut text, "card4e_refusals_total", "counter", "Requests refused, by the wire's own code.");
        for ((wire, code), count) in refusals.iter() {
            let _ = writeln!(text, "card4e_refusals_total{{wire=\"{wire}\",code=\"{code}\"}} {count}");
        }
        let blocks = engine.metrics.blocks.load(Ordering::Relaxed);
        let projected = engine.metrics.projected.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            (
                "card4e_connections",
                "gauge",
                "Connections open now.",
                self.connections.load(Ordering::Relaxed),
            ),
            (
                "card4e_panics_total",
                "counter",
                "Requests that ended in a panic.",
                self.panics.load(Ordering::Relaxed),
            ),
            (
                "card4e_tls_handshakes_failed_total",
                "counter",
                "TLS handshakes that were refused, broken off or too slow.",
                self.handshakes_failed.load(Ordering::Relaxed),
            ),
            (
                "card4e_under_way",
                "gauge",
                "Questions handed to the ledger and not yet durable.",
                engine.under_way() as u64,
            ),
            ("card4e_ledger_blocks_total", "counter", "Durable commits since the start.", blocks),
            (
                "card4e_usage_lag_blocks",
                "gauge",
                "Blocks the usage rows are behind the ledger.",
                blocks.saturating_sub(projected),
            ),
            ("card4e_ledger_charges", "gauge", "Charged answers in the ledger.", engine.totals().charges),
            ("card4e_ledger_answers", "gauge", "Answers in the ledger.", engine.totals().answers),
            (
                "card4e_store_stopped",
                "gauge",
                "1 when the disk failed and nothing is answered until a restart.",
                u64::from(engine.writing() == Writing::Stopped),
            ),
            (
                "card4e_disk_full",
                "gauge",
                "1 while the disk is full and nothing is answered.",
                u64::from(engine.writing() == Writing::Full),
            ),
            (
                "card4e_store_away",
                "gauge",
                "1 while the database does not answer and nothing is answered.",
                u64::from(engine.writing() == Writing::Away),
            ),
        ] {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {value}");
        }
        limiter.render(&mut text);
        render_copy(&mut text, engine.copy_of_accounts());
        render_providers(&mut text, &engine.provider_status());
        render_process(&mut text);
        text
    }

    fn render_answers(&self, text: &mut String) {
        head(text, "card4e_answers_total", "counter", "Answered questions, by wire, action and outcome.");
        for (wire, actions) in Wire::ALL.into_iter().zip(&self.answers) {
            for (action, outcomes) in Action::ALL.into_iter().zip(actions) {
                for (outcome, count) in Outcome::ALL.into_iter().zip(outcomes) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let (wire, action, outcome) = (wire.name(), action.name(), outcome.name());
                        let _ = writeln!(
                            text,
                            "card4e_answers_total{{wire=\"{wire}\",action=\"{action}\",outcome=\"{outcome}\"}} {count}"
                        );
                    }
                }
            }
        }
    }

    fn render_latency(&self, text: &mut String) {
        let name = "card4e_answer_seconds";
        head(text, name, "histogram", "From the head of a request to its durable answer.");
        for wire in Wire::ALL {
            let mut total = 0;
            for (bucket, count) in self.latency[wire as usize].iter().enumerate() {
                total += count.load(Ordering::Relaxed);
                let bound = BOUNDS_US.get(bucket).map_or("+Inf".into(), |us| (*us as f64 / 1e6).to_string());
                let _ = writeln!(text, "{name}_bucket{{wire=\"{}\",le=\"{bound}\"}} {total}", wire.name());
            }
            let sum = self.latency_sum_us[wire as usize].load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(text, "{name}_sum{{wire=\"{}\"}} {sum}", wire.name());
            let _ = writeln!(text, "{name}_count{{wire=\"{}\"}} {total}", wire.name());
        }
    }
}

/// The copy of a database's accounts. A node with accounts of its own is never behind.
fn render_copy(text: &mut String, copy: Option<&Freshness>) {
    let whole = copy.is_none_or(|copy| copy.age().is_some());
    let age = copy.and_then(Freshness::age).unwrap_or_default().as_secs_f64();
    let behind = copy.map_or(0, Freshness::behind);
    for (name, help, value) in [
        (
            "card4e_accounts_copy_whole",
            "0 while a node's copy of a shared database's accounts is not whole yet.",
            f64::from(u8::from(whole)),
        ),
        ("card4e_accounts_copy_age_seconds", "How old that copy may be.", age),
        ("card4e_accounts_copy_behind", "Changes of accounts that it has not taken over.", behind as f64),
    ] {
        head(text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
}

/// Providers: whether they are asked, how that ends, what it costs.
fn render_providers(text: &mut String, providers: &[ProviderStatus]) {
    if providers.is_empty() {
        return;
    }
    type Value = fn(&ProviderStatus) -> Option<String>;
    let gauges: [(&str, &str, Value); 8] = [
        (
            "card4e_provider_breaker_open",
            "1 while a provider is left alone because it does not answer.",
            |is| Some(u8::from(is.breaker != "closed").to_string()),
        ),
        ("card4e_provider_under_way", "Calls under way.", |is| Some(is.under_way.to_string())),
        (
            "card4e_provider_spent_today_credits",
            "Spent today in Asia/Shanghai, with all that calls under way may cost.",
            |is| Some(is.spent_today.clone()),
        ),
        ("card4e_provider_daily_cap_credits", "The most that may be spent on a day.", |is| {
            is.daily_cap.clone()
        }),
        ("card4e_provider_spent_this_month_credits", "Spent this month.", |is| {
            Some(is.spent_this_month.clone())
        }),
        ("card4e_provider_monthly_cap_credits", "The most that may be spent in a month.", |is| {
            is.monthly_cap.clone()
        }),
        (
            "card4e_provider_uncertain_credits",
            "Of what was spent, what may not have been charged; `card4e reconcile` finds out.",
            |is| Some(is.uncertain.clone()),
        ),
        ("card4e_provider_lacking", "Issuers and actions a provider was found not to check.", |is| {
            Some(is.lacking.len().to_string())
        }),
    ];
    for (name, help, value) in gauges {
        head(text, name, "gauge", help);
        for provider in providers {
            if let Some(value) = value(provider) {
                let _ = writeln!(text, "{name}{{provider=\"{}\"}} {value}", provider.name);
            }
        }
    }
    head(text, "card4e_provider_calls_total", "counter", "Calls since the start, by how they ended.");
    for ProviderStatus { name, counted, .. } in providers {
        for (end, count) in [
            ("answered", counted.answered),
            ("refused", counted.refused),
            ("unsent", counted.unsent),
            ("unclear", counted.unclear),
            ("unknown_code", counted.unknown),
            ("left_alone", counted.left_alone),
            ("capped", counted.capped),
        ] {
            let _ =
                writeln!(text, "card4e_provider_calls_total{{provider=\"{name}\",end=\"{end}\"}} {count}");
        }
    }
    let name = "card4e_provider_answer_seconds_total";
    head(text, name, "counter", "Time the answered calls took, seconds.");
    for provider in providers {
        let seconds = provider.counted.answered_ms as f64 / 1000.0;
        let _ = writeln!(text, "{name}{{provider=\"{}\"}} {seconds}", provider.name);
    }
}

/// The process as the kernel sees it, under the names every Prometheus client uses.
fn render_process(text: &mut String) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The name in the second field may have blanks; what follows it has not.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpu = (number(11) + number(12)) as f64 / ticks;
    head(text, "process_cpu_seconds_total", "counter", "CPU used, user and system, seconds.");
    let _ = writeln!(text, "process_cpu_seconds_total {cpu}");
    let resident = number(21) * rustix::param::page_size() as u64;
    head(text, "process_resident_memory_bytes", "gauge", "Memory in use, bytes.");
    let _ = writeln!(text, "process_resident_memory_bytes {resident}");
}

/// What a metric is, before its values.
pub fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
