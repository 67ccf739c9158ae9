//! `[limits]`: requests a second where several nodes share the work.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use engine::limit::WhenAway;
use engine::provider::Endpoint;
use redis::IntoConnectionInfo;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::limiter::Target;

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSettings {
    /// Nodes at most that share the work. Default 1.
    pub nodes: u32,
    /// Redis or Valkey, which all nodes count in. Default: none, each node grants its share of a limit.
    pub limiter: Option<Address>,
    /// Its user, if it has users; or in the address.
    pub username: Option<String>,
    /// A file with the password, from the folder of the settings file; or in the address.
    pub password_file: Option<PathBuf>,
    /// CAs to trust, a PEM file; those of the system unless it is there.
    pub ca: Option<PathBuf>,
    /// An answer of the limiter is waited for so long, milliseconds. Default 20.
    pub timeout_ms: u32,
    /// What becomes of a limit while the limiter is away. Default `"share"`.
    pub away: WhenAway,
}

impl Default for LimitsSettings {
    fn default() -> Self {
        LimitsSettings {
            nodes: 1,
            limiter: None,
            username: None,
            password_file: None,
            ca: None,
            timeout_ms: 20,
            away: WhenAway::default(),
        }
    }
}

/// Where a limiter is; shown without the password that may be in it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Address(Zeroizing<String>);

impl Address {
    fn shown(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://***@{place}"),
            _ => self.0.to_string(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown())
    }
}

impl LimitsSettings {
    /// Where the limiter is and how it is asked; `None` when there is none.
    ///
    /// # Errors
    /// What is wrong with the settings, or with a file they name; never the password.
    pub fn target(&self) -> anyhow::Result<Option<Target>> {
        let Some(address) = &self.limiter else { return Ok(None) };
        let mut target = self.read(address)?;
        if let Some(file) = &self.password_file {
            let text = std::fs::read_to_string(file).map(Zeroizing::new);
            let text =
                text.with_context(|| format!("limits.password_file: cannot read {}", file.display()))?;
            ensure!(!text.trim().is_empty(), "limits.password_file: {} is empty", file.display());
            target.password = Some(Zeroizing::new(text.trim().to_owned()));
        }
        if target.endpoint.tls {
            // What is wrong with the CAs is said at once.
            crate::upstream::trusting(target.endpoint.ca.as_deref()).context("limits.ca")?;
        }
        Ok(Some(target))
    }

    /// What can be seen without files.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.nodes > 0, "limits.nodes is at least 1");
        ensure!((1..=1000).contains(&self.timeout_ms), "limits.timeout_ms is 1 to 1000");
        match &self.limiter {
            Some(address) => self.read(address).map(drop),
            None => {
                let of_it = self.username.is_some() || self.password_file.is_some() || self.ca.is_some();
                ensure!(
                    !of_it,
                    "limits.username, password_file and ca belong to limits.limiter, which is not set"
                );
                Ok(())
            }
        }
    }

    fn read(&self, address: &Address) -> anyhow::Result<Target> {
        let wrong = || {
            anyhow!("limits.limiter is redis://host:6379/0, or rediss:// for TLS; not `{}`", address.shown())
        };
        let (scheme, rest) = address.0.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(wrong()),
        };
        ensure!(
            !rest.contains(['?', '#']),
            "limits.limiter takes no options: end it with the database's number"
        );
        // TLS is ours: with the same library, and the same certificates trusted, as everywhere else here.
        let plain = Zeroizing::new(format!("redis://{rest}"));
        let read = plain.as_str().into_connection_info().map_err(|_| wrong())?;
        let redis::ConnectionAddr::Tcp(host, port) = read.addr() else { return Err(wrong()) };
        let inside = read.redis_settings();
        let username = self.username.clone().or(inside.username().map(str::to_owned));
        let password = inside.password().map(|password| Zeroizing::new(password.to_owned()));
        ensure!(
            password.is_none() || self.password_file.is_none(),
            "limits.limiter has a password, and limits.password_file another: keep the file"
        );
        Ok(Target {
            endpoint: Endpoint { host: host.clone(), port: *port, tls, ca: self.ca.clone() },
            database: inside.db(),
            username,
            password,
            timeout: Duration::from_millis(self.timeout_ms.into()),
        })
    }

    /// Paths start from the folder of the settings file.
    pub(super) fn place_files(&mut self, folder: &Path) {
        for path in [&mut self.password_file, &mut self.ca].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    #[test]
    fn a_password_is_never_shown() {
        let text = "[limits]\nlimiter = \"rediss://card4e:s3cr%40t@cache.example.com:7000/3\"\n";
        let settings = Settings::parse(text).unwrap();
        let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(
            shown.contains("rediss://***@cache.example.com:7000/3") && !shown.contains("s3cr"),
            "{shown}"
        );
        let target = settings.limits.target().unwrap().unwrap();
        assert_eq!(target.password.as_ref().unwrap().as_str(), "s3cr@t");
        assert_eq!((target.username.as_deref(), target.database), (Some("card4e"), 3));
        assert!(target.endpoint.tls);
        assert!(!format!("{target:?}").contains("s3cr"), "{target:?}");
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        for (text, named) in [
            ("limiter = \"http://h\"", "rediss:// for TLS"),
            ("limiter = \"redis://:s3cret@h:port\"", "not `redis://***@h:port`"),
            ("limiter = \"redis://h/0?protocol=3\"", "no options"),
            ("limiter = \"redis://:s3cret@h\"\npassword_file = \"p\"", "keep the file"),
            ("password_file = \"p\"", "which is not set"),
            ("nodes = 0", "at least 1"),
            ("timeout_ms = 0", "1 to 1000"),
            ("away = \"open\"", "share"),
        ] {
            let error = format!("{:#}", Settings::parse(&format!("[limits]\n{text}\n")).unwrap_err());
            assert!(error.contains(named) && !error.contains("s3cret"), "{text}: {error}");
        }
        let settings =
            Settings::parse("[limits]\nlimiter = \"redis://h\"\npassword_file = \"/none\"\n").unwrap();
        let error = format!("{:#}", settings.limits.target().unwrap_err());
        assert!(error.contains("limits.password_file: cannot read /none"), "{error}");
    }
}
