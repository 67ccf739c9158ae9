//! The database that several nodes share, as the settings name it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use engine::store::SharedStore;
use engine::store::postgres::Database;
use zeroize::Zeroizing;

use crate::config::ServerSettings;

/// The password where no file has it.
const PASSWORD: &str = "CARD4E_STORE_PASSWORD";

/// The database and this node's name; nothing where `server.store` names none. Connects to nothing yet.
/// Relative paths start from `base`.
pub fn store(settings: &ServerSettings, base: &Path) -> anyhow::Result<Option<SharedStore>> {
    if settings.store.is_empty() {
        return Ok(None);
    }
    let password = match &settings.store_password_file {
        Some(file) => {
            let file = base.join(file);
            let text = std::fs::read_to_string(&file);
            Some(text.with_context(|| format!("server.store_password_file: cannot read {}", file.display()))?)
        }
        None => std::env::var(PASSWORD).ok(),
    };
    let password = password.map(Zeroizing::new);
    let wrong = |wrong| anyhow!("server.store: {wrong}; write postgres://USER@HOST:PORT/NAME");
    let ca = settings.store_ca.as_ref().map(|ca| base.join(ca));
    let tls = match Database::is_encrypted(&settings.store).map_err(wrong)? {
        true => crate::upstream::trusting(ca.as_deref()).context("server.store_ca")?,
        // A machine without CAs may well have a database of its own.
        false => crate::upstream::trusting_nobody()?,
    };
    let password = password.as_ref().map(|password| password.trim_end());
    let database = Database::new(&settings.store, password, (*tls).clone()).map_err(wrong)?;
    let node = match settings.node.as_str() {
        "" => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("server.node: this machine does not tell its name; set one")?
            .trim()
            .to_owned(),
        node => node.to_owned(),
    };
    Ok(Some(SharedStore { database: Arc::new(database), node }))
}
