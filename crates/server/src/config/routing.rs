//! `[[provider]]`, `[[route]]` and `[providers]`: who is paid for answers, and in which order they are asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use engine::caller::Action;
use engine::connector::{AceData, Connector, Recipient, Secret, Tencent};
use engine::exchange::Recorder;
use engine::ledger::Credits;
use engine::projection::AceDataNumbering;
use engine::provider::{Endpoint, Limits, Provider};
use engine::route::{RecordTurn, Route, Routing};
use engine::spending::Caps;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Settings;

/// `[providers]`: what holds for all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProvidersSettings {
    /// That an issuer cannot check something is remembered so many days. Default 7.
    pub lacking_days: u32,
    /// Keep replies, without personal data, for `card4e replay`; so many mebibytes, 0: none. Default 0.
    pub exchanges_max_mb: u32,
}

impl Default for ProvidersSettings {
    fn default() -> Self {
        ProvidersSettings { lacking_days: 7, exchanges_max_mb: 0 }
    }
}

/// `[[provider]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Its name in routes, ledger and metrics: letters, digits, `-` and `_`.
    pub name: String,
    /// How it is spoken to.
    pub connector: ConnectorWord,
    /// Where it answers: `https://host`, or `http://` on this machine only.
    pub url: String,
    /// `tencent`: the key's public part.
    #[serde(default)]
    pub secret_id: Option<String>,
    /// Variable of the environment with the secret key or the token.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// Or a file with it, from the folder of the settings file.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// `tencent`: sent as region, if it is there.
    #[serde(default)]
    pub region: Option<String>,
    /// `tencent`: elements are sealed with the public key in this PEM file.
    #[serde(default)]
    pub seal_key: Option<PathBuf>,
    /// `acedata`: which numbers it answers with; must be stated.
    #[serde(default)]
    pub numbering: Option<AceDataNumbering>,
    /// CAs to trust, a PEM file; those of the system unless it is there.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What it charges for a charged answer, in credits, as text.
    pub price: String,
    /// Of an action, where it is another: `{ bankcard-2e = "0.3" }`.
    #[serde(default)]
    pub prices: std::collections::BTreeMap<String, String>,
    /// The most it may be paid on a day of Asia/Shanghai, credits, as text.
    #[serde(default)]
    pub daily_cap: Option<String>,
    /// The most in a month there.
    #[serde(default)]
    pub monthly_cap: Option<String>,
    /// One call may take so long. Default 3000.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// Connecting may take so long. Default 1000.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u32,
    /// Calls under way at most. Default 64.
    #[serde(default = "concurrent_max")]
    pub concurrent_max: u32,
    /// Calls a second at most; 0: no limit. Default 0.
    #[serde(default)]
    pub requests_per_second: u32,
    /// Failures in a row after which it is left alone; 0: never. Default 5.
    #[serde(default = "breaker_failures")]
    pub breaker_failures: u32,
    /// For so long, milliseconds, then one call tries. Default 10000.
    #[serde(default = "breaker_ms")]
    pub breaker_ms: u32,
}

fn timeout_ms() -> u32 {
    3000
}

fn connect_timeout_ms() -> u32 {
    1000
}

fn concurrent_max() -> u32 {
    64
}

fn breaker_failures() -> u32 {
    5
}

fn breaker_ms() -> u32 {
    10_000
}

/// How a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorWord {
    /// Tencent Cloud API 3.0.
    Tencent,
    /// AceData.
    #[serde(rename = "acedata")]
    AceData,
}

/// `[[route]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Its name in the ledger and in reports.
    pub name: String,
    /// Callers whose questions it takes. Default: all.
    #[serde(default)]
    pub callers: Vec<String>,
    /// Actions it takes. Default: all but bankcard-1e, which is never bought.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Beginnings of card numbers it takes. Default: all.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// When the accounts of record are asked: `"first"` (default), `"last"`, `"never"`.
    #[serde(default)]
    pub record: RecordTurn,
    /// Who is asked, in this order.
    #[serde(default)]
    pub providers: Vec<Step>,
    /// All of them together have so long. Default 5000.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u32,
    /// Ask the next one even when the one before may have charged. Default `false`.
    #[serde(default)]
    pub second_purchase: bool,
    /// Give a pass that was bought again, to the same caller for the same purpose, for so many hours, at
    /// most 168; 0: never. Default 0.
    #[serde(default)]
    pub reuse_hours: u32,
    /// Who is asked beside, for a share of the questions.
    #[serde(default)]
    pub shadows: Vec<Shadow>,
}

fn deadline_ms() -> u32 {
    5000
}

/// A provider of a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Which.
    pub name: String,
    /// Of those with a weight one is drawn to be first.
    #[serde(default)]
    pub weight: u32,
}

/// A provider that watches a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Which.
    pub name: String,
    /// Of how many questions, 0 to 1.
    pub share: f64,
}

/// Whether secrets must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Without one nothing starts.
    Required,
    /// A provider whose secret is missing is not asked: for commands that do something else.
    IfThere,
}

impl Settings {
    /// Providers and routes, checked; `None` when there are none. `data` is the data folder.
    ///
    /// # Errors
    /// What is wrong, by the name of the provider or route.
    pub fn routing(&self, data: &Path, secrets: Secrets) -> anyhow::Result<Option<Arc<Routing>>> {
        if self.provider.is_empty() && self.route.is_empty() {
            return Ok(None);
        }
        self.check_names()?;
        let provider = |settings: &ProviderSettings| {
            let built = settings.build(secrets);
            built.map(Arc::new).with_context(|| format!("provider `{}`", settings.name))
        };
        let providers = self.provider.iter().map(provider).collect::<anyhow::Result<Vec<_>>>()?;
        let route = |settings: &RouteSettings| {
            settings.build(&self.provider).with_context(|| format!("route `{}`", settings.name))
        };
        let routes = self.route.iter().map(route).collect::<anyhow::Result<Vec<_>>>()?;
        let bytes = u64::from(self.providers.exchanges_max_mb) << 20;
        let recorder = (bytes > 0).then(|| Arc::new(Recorder::new(data.join("exchanges.jsonl"), bytes / 2)));
        Ok(Some(Arc::new(Routing {
            providers,
            routes,
            lacking_kept_ms: i64::from(self.providers.lacking_days) * 86_400_000,
            recorder,
        })))
    }

    /// What can be seen without secrets, files and keys.
    pub(super) fn check_routing(&self) -> anyhow::Result<()> {
        self.check_names()?;
        for provider in &self.provider {
            provider.check().with_context(|| format!("provider `{}`", provider.name))?;
        }
        for route in &self.route {
            route.build(&self.provider).with_context(|| format!("route `{}`", route.name))?;
        }
        Ok(())
    }

    fn check_names(&self) -> anyhow::Result<()> {
        let letters = |name: &str| {
            !name.is_empty()
                && name.len() <= 40
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let named = [
            ("provider", self.provider.iter().map(|provider| &provider.name).collect::<Vec<_>>()),
            ("route", self.route.iter().map(|route| &route.name).collect::<Vec<_>>()),
        ];
        for (what, names) in named {
            for (at, name) in names.iter().enumerate() {
                ensure!(letters(name), "{what} `{name}`: a name is 1 to 40 letters, digits, `-` and `_`");
                ensure!(!names[..at].contains(name), "{what} `{name}` is there twice");
            }
        }
        Ok(())
    }

    /// Paths of providers start from the folder of the settings file.
    pub(super) fn place_provider_files(&mut self, folder: &Path) {
        for provider in &mut self.provider {
            let files = [&mut provider.secret_file, &mut provider.seal_key, &mut provider.ca];
            for path in files.into_iter().flatten() {
                *path = folder.join(&*path);
            }
        }
    }
}

fn credits(name: &str, text: &str) -> anyhow::Result<Credits> {
    text.parse().map_err(|wrong: String| anyhow!("{name}: {wrong}"))
}

impl ProviderSettings {
    /// Its price list and caps: price, prices by action, caps.
    fn money(&self) -> anyhow::Result<(Credits, [Option<Credits>; Action::ALL.len()], Caps)> {
        let mut prices = [None; Action::ALL.len()];
        for (action, price) in &self.prices {
            let action: Action = action.parse().map_err(|wrong: String| anyhow!("prices: {wrong}"))?;
            prices[action as usize] = Some(credits(&format!("prices.{}", action.name()), price)?);
        }
        let cap = |name, text: &Option<String>| text.as_deref().map(|text| credits(name, text)).transpose();
        let (daily, monthly) = (cap("daily_cap", &self.daily_cap)?, cap("monthly_cap", &self.monthly_cap)?);
        Ok((credits("price", &self.price)?, prices, Caps { daily, monthly }))
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let wrong = || anyhow!("url `{}`: write https://host or https://host:port, without a path", self.url);
        let (tls, rest) = match (self.url.strip_prefix("https://"), self.url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let authority: http::uri::Authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| wrong())?;
        ensure!(!authority.as_str().contains('@'), "url: no user or password belongs there");
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let endpoint = Endpoint { host, port, tls, ca: self.ca.clone() };
        ensure!(
            tls || endpoint.is_this_machine(),
            "url: elements of real people go to `{}`: use https:// (http:// is for this machine only)",
            endpoint.host
        );
        Ok(endpoint)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.money()?;
        self.endpoint()?;
        ensure!(
            self.secret_env.is_some() != self.secret_file.is_some(),
            "say where its secret is: secret_env = \"VARIABLE\" or secret_file = \"FILE\""
        );
        ensure!(self.concurrent_max > 0, "concurrent_max = 0 would never ask it; leave it out of the routes");
        match self.connector {
            ConnectorWord::Tencent => {
                ensure!(self.secret_id.is_some(), "secret_id is missing: the public part of the key");
                ensure!(
                    self.numbering.is_none(),
                    "numbering is for acedata; this one has Tencent's own numbers"
                );
            }
            ConnectorWord::AceData => {
                ensure!(
                    self.numbering.is_some(),
                    "numbering is missing: \"documented\" (the guide's numbers) or \"upstream_4e\" (Tencent's); \
                     the same number means something else in the other, so ask the provider"
                );
                ensure!(
                    self.secret_id.is_none() && self.region.is_none() && self.seal_key.is_none(),
                    "secret_id, region and seal_key are for tencent"
                );
            }
        }
        Ok(())
    }

    /// The secret, or that it is missing.
    fn secret(&self) -> anyhow::Result<Zeroizing<String>> {
        let secret = match (&self.secret_env, &self.secret_file) {
            (Some(variable), _) => Zeroizing::new(
                std::env::var(variable)
                    .with_context(|| format!("its secret is not in the environment: set {variable}"))?,
            ),
            (None, Some(file)) => Zeroizing::new(
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
            ),
            (None, None) => bail!("it has no secret"),
        };
        let secret = Zeroizing::new(secret.trim().to_owned());
        let is_one = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_one, "its secret is empty, or has characters that no secret has");
        Ok(secret)
    }

    fn build(&self, secrets: Secrets) -> anyhow::Result<Provider> {
        self.check()?;
        let (price, prices, caps) = self.money()?;
        let (secret, off) = match self.secret() {
            Ok(secret) => (Secret(secret), false),
            Err(_) if secrets == Secrets::IfThere => (Secret(Zeroizing::default()), true),
            Err(missing) => return Err(missing),
        };
        let endpoint = self.endpoint()?;
        if endpoint.tls && secrets == Secrets::Required {
            crate::upstream::trusting(endpoint.ca.as_deref())?;
        }
        let connector = match self.connector {
            ConnectorWord::Tencent => Connector::Tencent(Tencent {
                secret_id: self.secret_id.clone().unwrap_or_default(),
                secret_key: secret,
                region: self.region.clone().unwrap_or_default(),
                recipient: self.seal_key.as_deref().map(recipient).transpose()?,
            }),
            ConnectorWord::AceData => {
                Connector::AceData(AceData { token: secret, numbering: self.numbering.unwrap_or_default() })
            }
        };
        Ok(Provider {
            name: self.name.clone(),
            connector,
            endpoint,
            price,
            prices,
            caps,
            timeout_ms: self.timeout_ms,
            connect_timeout_ms: self.connect_timeout_ms,
            limits: Limits {
                concurrent_max: self.concurrent_max,
                requests_per_second: self.requests_per_second,
                failures: self.breaker_failures,
                open_ms: self.breaker_ms,
            },
            off,
        })
    }
}

fn recipient(file: &Path) -> anyhow::Result<Recipient> {
    let shown = file.display();
    let pem = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let read = Recipient::from_pem(&pem);
    read.map_err(|_| anyhow!("{shown} is no RSA or SM2 public key (-----BEGIN PUBLIC KEY-----)"))
}

impl RouteSettings {
    fn build(&self, providers: &[ProviderSettings]) -> anyhow::Result<Route> {
        let place = |name: &str| {
            let found = providers.iter().position(|provider| provider.name == name);
            found.with_context(|| format!("there is no [[provider]] named `{name}`"))
        };
        let actions = self.actions.iter().map(|name| name.parse().map_err(|wrong: String| anyhow!(wrong)));
        let actions = actions.collect::<anyhow::Result<Vec<Action>>>()?;
        ensure!(
            !actions.contains(&Action::CardInformation),
            "bankcard-1e is answered from the issuer table and never bought; leave it out"
        );
        let digits = |prefix: &String| {
            !prefix.is_empty() && prefix.len() <= 12 && prefix.bytes().all(|byte| byte.is_ascii_digit())
        };
        if let Some(wrong) = self.prefixes.iter().find(|prefix| !digits(prefix)) {
            bail!("prefixes: `{wrong}` is not 1 to 12 digits");
        }
        ensure!(
            !self.providers.is_empty() || !self.shadows.is_empty(),
            "it has neither providers nor shadows, so it does nothing"
        );
        ensure!(
            self.record != RecordTurn::Never || !self.providers.is_empty(),
            "nobody would answer: record is never asked, and there are no providers"
        );
        ensure!((1..=168).contains(&self.reuse_hours) || self.reuse_hours == 0, "reuse_hours is at most 168");
        ensure!((100..=60_000).contains(&self.deadline_ms), "deadline_ms is 100 to 60000");
        let step = |step: &Step| Ok((place(&step.name)?, step.weight));
        let steps = self.providers.iter().map(step).collect::<anyhow::Result<Vec<_>>>()?;
        for (at, (provider, _)) in steps.iter().enumerate() {
            let twice = steps[..at].iter().any(|(other, _)| other == provider);
            ensure!(!twice, "`{}` is there twice", self.providers[at].name);
        }
        let shadow = |shadow: &Shadow| {
            ensure!((0.0..=1.0).contains(&shadow.share), "shadow `{}`: share is 0 to 1", shadow.name);
            Ok((place(&shadow.name)?, shadow.share))
        };
        Ok(Route {
            name: self.name.clone(),
            callers: self.callers.clone(),
            actions,
            prefixes: self.prefixes.clone(),
            record: self.record,
            providers: steps,
            deadline_ms: self.deadline_ms,
            second_purchase: self.second_purchase,
            reuse_ms: i64::from(self.reuse_hours) * 3_600_000,
            shadows: self.shadows.iter().map(shadow).collect::<anyhow::Result<Vec<_>>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = r#"
        [[provider]]
        name = "main"
        connector = "acedata"
        url = "http://127.0.0.1:1"
        numbering = "documented"
        secret_env = "CARD4E_TEST_NOT_THERE"
        price = "0.7"
    "#;

    const ROUTE: &str = r#"
        [[route]]
        name = "all"
        providers = [{ name = "main" }]
    "#;

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        let provider = |from: &str, to: &str| PROVIDER.replace(from, to);
        let route = |from: &str, to: &str| format!("{PROVIDER}{}", ROUTE.replace(from, to));
        for (text, named) in [
            (provider("numbering = \"documented\"", ""), "numbering is missing"),
            (provider("http://127.0.0.1:1", "http://api.example.com"), "use https://"),
            (provider("http://127.0.0.1:1", "https://h/path"), "without a path"),
            (provider("secret_env = \"CARD4E_TEST_NOT_THERE\"", ""), "secret_env"),
            (provider("price = \"0.7\"", "price = \"a lot\""), "price"),
            (provider("price = \"0.7\"", "price = \"1\"\ndaily_cap = \"x\""), "daily_cap"),
            (provider("price = \"0.7\"", "price = \"1\"\nprices = { bankcard-9e = \"1\" }"), "bankcard-9e"),
            (provider("\"acedata\"", "\"tencent\""), "secret_id is missing"),
            (provider("\"main\"", "\"ma in\""), "letters"),
            (format!("{PROVIDER}{PROVIDER}"), "twice"),
            (route("\"main\"", "\"other\""), "no [[provider]] named `other`"),
            (route("providers", "prefixes = [\"62x\"]\nproviders"), "62x"),
            (route("providers", "reuse_hours = 1000\nproviders"), "168"),
            (route("providers", "actions = [\"bankcard-1e\"]\nproviders"), "never bought"),
            (route("providers = [{ name = \"main\" }]", ""), "does nothing"),
        ] {
            let error = format!("{:#}", Settings::parse(&text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
        let settings = Settings::parse(&route("", "")).unwrap();
        let missing = format!("{:#}", settings.routing(Path::new("."), Secrets::Required).unwrap_err());
        assert!(
            missing.contains("provider `main`") && missing.contains("set CARD4E_TEST_NOT_THERE"),
            "{missing}"
        );
        let routing = settings.routing(Path::new("."), Secrets::IfThere).unwrap().unwrap();
        assert!(routing.providers[0].off, "never asked without its secret");
        assert_eq!(routing.providers[0].endpoint.authority(), "127.0.0.1:1");
    }

    /// The settings in the template are examples, commented out; they must be right all the same.
    #[test]
    fn the_template_shows_every_setting_of_a_provider_and_a_route() {
        let lines = crate::serve::TEMPLATE.lines().skip_while(|line| !line.starts_with("# [[provider]]"));
        let lines = lines.take_while(|line| !line.starts_with("# End of the example"));
        let text: String = lines.map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
        let settings = Settings::parse(&text).unwrap_or_else(|wrong| panic!("{wrong:#}: {text}"));
        assert_eq!((settings.provider.len(), settings.route.len()), (2, 1));
        let shown = |what: &str, value: &serde_json::Value| {
            for name in value.as_object().unwrap().keys() {
                assert!(text.contains(&format!("{name} =")), "{what}.{name} is missing in src/card4e.toml");
            }
        };
        shown("provider", &serde_json::to_value(&settings.provider[1]).unwrap());
        shown("route", &serde_json::to_value(&settings.route[0]).unwrap());
    }
}
