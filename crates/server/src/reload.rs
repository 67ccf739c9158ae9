//! `SIGHUP`: the settings file is read again, and what can change without a restart does.
//!
//! All of it or nothing: a file with a mistake in it changes nothing, and the log says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Policy;
use serde_json::Value;

use crate::config::{Secrets, Settings};
use crate::front::Server;
use crate::tls::Tls;

/// Settings that are looked at only at the start. `src/card4e.toml` marks each as `(restart)`.
const AT_START: &[&str] = &[
    "server.listen",
    "server.data",
    "server.store",
    "server.store_password_file",
    "server.store_ca",
    "server.node",
    "server.accounts",
    "server.accounts_stale_max_seconds",
    "keys.custody",
    "keys.root_key_file",
    "keys.root_key_env",
    "keys.sealed_key_file",
    "keys.pkcs11_module",
    "keys.pkcs11_token",
    "keys.pkcs11_slot",
    "keys.pkcs11_key",
    "keys.pkcs11_key_file",
    "http.connections_max",
];

/// Reads the settings again on each `SIGHUP`; never ends. To be called before anybody is told that the
/// server answers: until then the signal ends the process.
pub fn on_hangup(server: Arc<Server>, config: PathBuf) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = signal(SignalKind::hangup())?;
    Ok(async move {
        while asked.recv().await.is_some() {
            match reload(&server, &config) {
                Ok(done) => done.log(&config),
                Err(wrong) => {
                    tracing::error!("the settings were not read again, everything stays as it was: {wrong:#}")
                }
            }
        }
    })
}

/// What became of changed settings, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reloaded {
    applied: Vec<String>,
    at_next_start: Vec<String>,
}

impl Reloaded {
    fn log(&self, config: &Path) {
        let config = config.display();
        match self.applied.as_slice() {
            [] => tracing::info!("{config} was read again; no setting has changed"),
            applied => tracing::info!("{config} was read again; changed: {}", applied.join(", ")),
        }
        if !self.at_next_start.is_empty() {
            tracing::warn!("these changes wait for a restart: {}", self.at_next_start.join(", "));
        }
    }
}

/// Reads and checks everything first, then puts it in force.
fn reload(server: &Server, config: &Path) -> anyhow::Result<Reloaded> {
    let former = server.settings();
    let mut settings = Settings::read(config)?;
    let routing = settings.routing(&data_folder(&former, config), Secrets::Required)?;
    let (policy, issuers) = (Policy { routing, ..settings.serve_policy()? }, settings.issuers()?);
    let tls = Tls::open(&settings.tls, config.parent().unwrap_or(Path::new("")))?;
    let limiter = settings.limits.target()?;
    let mut done = compare(&former, &settings);
    keep_what_waits(&former, &mut settings);
    match (&server.tls, tls) {
        (Some(current), Some(next)) => current.replace(next),
        (None, None) => {}
        // There is one kind of connection or the other from the start to the end.
        _ => {
            let (tls, rest) = done.applied.into_iter().partition(|name: &String| name.starts_with("tls."));
            done.applied = rest;
            done.at_next_start.extend::<Vec<_>>(tls);
            settings.tls = former.tls.clone();
        }
    }
    if policy.test_land && !server.engine.policy().test_land {
        tracing::warn!("test land is on: identity numbers of province 99 and test cards are accepted");
    }
    server.engine.replace_policy(policy, issuers);
    server.limiter.replace(limiter);
    server.replace_settings(settings);
    Ok(done)
}

/// Where the data is, whatever the file says now: that waits for a restart.
fn data_folder(former: &Settings, config: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(&former.server.data)
}

fn compare(former: &Settings, settings: &Settings) -> Reloaded {
    let (former, settings) = (named(former), named(settings));
    let mut done = Reloaded::default();
    for ((name, before), (_, now)) in former.into_iter().zip(settings) {
        if before != now {
            let to =
                if AT_START.contains(&name.as_str()) { &mut done.at_next_start } else { &mut done.applied };
            to.push(format!("{name} = {now} (was {before})"));
        }
    }
    done
}

/// Every setting with its name and value, always the same ones in the same order.
fn named(settings: &Settings) -> Vec<(String, Value)> {
    let Ok(Value::Object(tables)) = serde_json::to_value(settings) else { return Vec::new() };
    let mut all = Vec::new();
    for (table, members) in tables {
        match members {
            Value::Object(members) => {
                all.extend(members.into_iter().map(|(name, value)| (format!("{table}.{name}"), value)))
            }
            whole => all.push((table, whole)),
        }
    }
    all
}

/// What is in use until the next start stays on record as it is, so that the next reload tells of it again.
fn keep_what_waits(former: &Settings, settings: &mut Settings) {
    settings.server.listen = former.server.listen;
    settings.server.data.clone_from(&former.server.data);
    settings.server.store.clone_from(&former.server.store);
    settings.server.store_password_file.clone_from(&former.server.store_password_file);
    settings.server.store_ca.clone_from(&former.server.store_ca);
    settings.server.node.clone_from(&former.server.node);
    settings.server.accounts = former.server.accounts;
    settings.server.accounts_stale_max_seconds = former.server.accounts_stale_max_seconds;
    settings.keys = former.keys.clone();
    settings.http.connections_max = former.http.connections_max;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the template says of a restart is what happens.
    #[test]
    fn the_template_marks_what_needs_a_restart() {
        let (mut table, mut marked) = (String::new(), Vec::new());
        for line in crate::serve::TEMPLATE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                table = name.to_owned();
            }
            if let (Some((name, _)), true) = (line.split_once(" = "), line.contains("(restart)")) {
                marked.push(format!("{table}.{}", name.trim_start_matches("# ")));
            }
        }
        assert_eq!(marked, AT_START);
    }

    #[test]
    fn what_waits_for_a_restart_is_told_each_time() {
        let former = Settings::default();
        let mut next = former.clone();
        next.server.listen = ([127, 0, 0, 1], 1).into();
        next.server.data = "elsewhere".into();
        next.server.store = "postgres://db/card4e".into();
        next.server.store_password_file = Some("password".into());
        next.server.store_ca = Some("ca.pem".into());
        next.server.node = "a".into();
        next.server.accounts = engine::AccountsFrom::Database;
        next.server.accounts_stale_max_seconds = 1;
        next.keys.root_key_file = "other.key".into();
        next.keys.root_key_env = "KEY".into();
        next.keys.sealed_key_file = "other.sealed".into();
        next.keys.custody = crate::config::Custody::Pkcs11;
        next.keys.pkcs11_module = Some("other.so".into());
        next.keys.pkcs11_token = Some("other".into());
        next.keys.pkcs11_slot = Some(1);
        next.keys.pkcs11_key = "other".into();
        next.keys.pkcs11_key_file = "other.token".into();
        next.http.connections_max = 1;
        next.policy.price = "2".into();
        for _ in 0..2 {
            let done = compare(&former, &next);
            assert_eq!(done.at_next_start.len(), AT_START.len(), "{done:?}");
            assert_eq!(done.applied, ["policy.price = \"2\" (was \"1\")"]);
        }
        keep_what_waits(&former, &mut next);
        assert_eq!(compare(&former, &next).at_next_start, Vec::<String>::new());
    }
}
