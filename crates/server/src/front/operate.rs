//! `/healthz`, `/readyz`, `/metrics`: for those who keep the server running. `/encryption-keys`: for those
//! who encrypt for it.

use std::time::Duration;

use engine::provider::ProviderStatus;
use engine::settle::Writing;
use http::StatusCode;
use serde_json::json;
use wire::Incoming;

use super::Server;
use crate::http::Reply;

/// Without a sign of life for so long, the other nodes take one for dead.
const SILENT_MOST: Duration = Duration::from_secs(10);

/// Answers if the path is one of these.
pub fn answer(server: &Server, incoming: &Incoming<'_>) -> Option<Reply> {
    let reply = match incoming.path {
        // AceData's clients call `/health` as a harmless address.
        "/healthz" | "/health" => Reply::new(StatusCode::OK, "application/json", "{\"status\":\"ok\"}\n"),
        "/readyz" => ready(server),
        "/metrics" => {
            let text = server.metrics.render(&server.engine, &server.limiter);
            Reply::new(StatusCode::OK, "text/plain; version=0.0.4", text)
        }
        "/encryption-keys" => encryption_keys(server),
        _ => return None,
    };
    Some(reply)
}

fn encryption_keys(server: &Server) -> Reply {
    match server.envelopes.get(&server.engine.vault) {
        Some(envelopes) => Reply::new(StatusCode::OK, "application/json", envelopes.published().to_owned()),
        None => {
            let body = "{\"error\":\"this server has no keys to encrypt for; send the elements as text\"}\n";
            Reply::new(StatusCode::NOT_FOUND, "application/json", body)
        }
    }
}

/// Ready to answer: the ledger can be written, and a copy of the accounts is fresh.
fn ready(server: &Server) -> Reply {
    let writing = server.engine.writing();
    let accounts = server.engine.copy_of_accounts().map(|copy| copy.check());
    // Its sign of life waits for a lock, or the database is slow: others are about to take it for dead.
    let is_silent = server.engine.silent_for().is_some_and(|silent| silent > SILENT_MOST);
    let ready = writing == Writing::Works && !is_silent && !matches!(accounts, Some(Err(_)));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let store = match writing {
        Writing::Works if is_silent => {
            "the database (server.store) has taken no sign of life of this node for ten seconds: look what holds a \
             lock on its row of table node; it goes on by itself"
        }
        Writing::Works => "ok",
        Writing::Full => {
            "disk full, or less of it free than server.disk_reserve_mb: nothing is answered or charged; \
             make room, and it goes on by itself"
        }
        Writing::Stopped => {
            "stopped: the disk failed, or another process has this node's place; look at the log, mend it, restart"
        }
        Writing::Away => {
            "the database (server.store) does not answer: nothing is answered or charged; it goes on by itself \
             when that is back"
        }
    };
    let mut warnings = Vec::new();
    if server.engine.policy().test_land {
        warnings.push("test land is on: identity numbers of province 99 and test cards are accepted");
    }
    if server.tls.as_ref().is_some_and(|tls| tls.ends_soon(server.engine.clock.now_ms())) {
        warnings.push("the TLS certificate ends within two weeks, or has ended");
    }
    if server.limiter.is_there() == Some(false) {
        warnings.push(
            "the limiter does not answer: each node grants its share of a limit, or nothing where the settings \
             say so",
        );
    }
    let mut body = json!({
        "ready": ready,
        "store": store,
        "under_way": server.engine.under_way(),
        "warnings": warnings,
    });
    if let Some(is_there) = server.limiter.is_there() {
        body["limiter"] = json!(if is_there { "ok" } else { "away" });
    }
    if let Some(copy) = accounts {
        body["accounts"] = copy.map_or_else(|stale| json!(stale.to_string()), |()| json!("ok"));
    }
    // Not ready only for its own faults: without providers the accounts of record still answer.
    let providers = server.engine.provider_status();
    if !providers.is_empty() {
        let tells = |is: &ProviderStatus| {
            json!({
                "name": is.name,
                "breaker": is.breaker,
                "spent_today": is.spent_today,
                "daily_cap": is.daily_cap,
                "spent_this_month": is.spent_this_month,
                "monthly_cap": is.monthly_cap,
            })
        };
        body["providers"] = providers.iter().map(tells).collect();
    }
    Reply::new(status, "application/json", format!("{body:#}\n"))
}
