//! The settings file: every setting, its meaning and its default. TOML; unknown settings are errors.

mod limits;
mod routing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use engine::caller::Action;
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::limit::{AttemptPolicy, WhenAway};
use engine::projection::AceDataNumbering;
use engine::{AccountsFrom, IssuerPolicy, Policy};
pub use limits::LimitsSettings;
pub use routing::{ProviderSettings, ProvidersSettings, RouteSettings, Secrets};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::Language;

/// All settings. Without a file everything has the default written beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where an installation listens and keeps its data.
    pub server: ServerSettings,
    /// Where the root key is.
    pub keys: KeySettings,
    /// How questions are decided and charged.
    pub policy: PolicySettings,
    /// Where an action differs from `[policy]`.
    pub actions: ActionsSettings,
    /// Requests a second across several nodes.
    pub limits: LimitsSettings,
    /// Attempts a day on the same card or person. In the sandbox nothing is counted unless this
    /// table is there; an empty one counts as the field does.
    pub attempts: Option<AttemptPolicy>,
    /// Who sends the same question again, and is charged once.
    pub idempotency: IdempotencySettings,
    /// What holds for all providers.
    pub providers: ProvidersSettings,
    /// Who is paid for answers.
    pub provider: Vec<ProviderSettings>,
    /// Who of them is asked about what.
    pub route: Vec<RouteSettings>,
    /// The Tencent wire.
    pub tencent: TencentSettings,
    /// The AceData wire.
    pub acedata: AceDataSettings,
    /// The console and the platform around it.
    pub platform: PlatformSettings,
    /// Bounds of the HTTP server.
    pub http: HttpSettings,
    /// Certificate and key; without them it is plain HTTP.
    pub tls: TlsSettings,
}

/// `[server]`: for `card4e serve`; a sandbox is told on the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// Address and port. Default `127.0.0.1:4400`.
    pub listen: SocketAddr,
    /// Data folder, from the folder of the settings file. Default `data`.
    pub data: PathBuf,
    /// Credits a new caller is granted, as text. Default `"10"`.
    pub free_quota: String,
    /// Nothing is answered while less of the data folder's disk is free, mebibytes; 0: until it is full.
    /// Default 64.
    pub disk_reserve_mb: u32,
    /// The database that several nodes share, as `postgres://USER@HOST:PORT/NAME`; empty: files in `data`.
    pub store: String,
    /// Its password; else the variable `CARD4E_STORE_PASSWORD`.
    pub store_password_file: Option<PathBuf>,
    /// CAs that its certificate is checked with, instead of the system's.
    pub store_ca: Option<PathBuf>,
    /// This node's name, which no other node has; empty: the host's name.
    pub node: String,
    /// Where this node finds the database's accounts. Default `"copy"`.
    pub accounts: AccountsFrom,
    /// How old this node's copy of the database's accounts may be, seconds; beyond, nothing is answered from
    /// it. Default 10.
    pub accounts_stale_max_seconds: u32,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 4400));
        ServerSettings {
            listen,
            data: "data".into(),
            free_quota: "10".into(),
            disk_reserve_mb: 64,
            store: String::new(),
            store_password_file: None,
            store_ca: None,
            node: String::new(),
            accounts: AccountsFrom::Copy,
            accounts_stale_max_seconds: 10,
        }
    }
}

impl ServerSettings {
    /// What is said of the database; settings are shown in logs and in the console.
    fn check_store(&self) -> anyhow::Result<()> {
        let user = self.store.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
        let user = user.and_then(|user| user.rsplit_once('@')).map_or("", |(user, _)| user);
        anyhow::ensure!(
            !self.store.is_empty() || self.accounts == AccountsFrom::Copy,
            "server.accounts says that the database is asked for accounts, and server.store names none"
        );
        anyhow::ensure!(
            !user.contains(':') && !self.store.contains("password="),
            "server.store has a password in it; put that into a file and name it in server.store_password_file"
        );
        Ok(())
    }
}

/// `[keys]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeySettings {
    /// Who keeps the root key. Default `"file"`.
    pub custody: Custody,
    /// `file`: with the root key as 64 hex digits. Default `root.key`.
    pub root_key_file: PathBuf,
    /// `environment`: name of the variable with the root key. Default `CARD4E_ROOT_KEY`.
    pub root_key_env: String,
    /// `passphrase`: file with the sealed root key. Default `root.sealed`.
    pub sealed_key_file: PathBuf,
    /// `pkcs11`: the library of the token. There is no default.
    pub pkcs11_module: Option<PathBuf>,
    /// `pkcs11`: label of the token; needed if there are several.
    pub pkcs11_token: Option<String>,
    /// `pkcs11`: or the number of its slot.
    pub pkcs11_slot: Option<u64>,
    /// `pkcs11`: label of the AES-256 key that seals the root key. Default `card4e-root`.
    pub pkcs11_key: String,
    /// `pkcs11`: file with the root key that the token sealed. Default `root.token`.
    pub pkcs11_key_file: PathBuf,
}

/// Who keeps the root key, which opens all other keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// A file, in plain text.
    #[default]
    File,
    /// A variable of the environment, in plain text.
    #[value(skip)]
    Environment,
    /// A person who knows a passphrase; the file alone opens nothing.
    Passphrase,
    /// A key that never leaves a PKCS#11 token, and who knows the token's PIN; the file alone opens nothing.
    Pkcs11,
}

impl Custody {
    /// The word for it in the settings.
    pub const fn word(self) -> &'static str {
        match self {
            Custody::File => "file",
            Custody::Environment => "environment",
            Custody::Passphrase => "passphrase",
            Custody::Pkcs11 => "pkcs11",
        }
    }
}

impl Default for KeySettings {
    fn default() -> Self {
        KeySettings {
            custody: Custody::default(),
            root_key_file: "root.key".into(),
            root_key_env: "CARD4E_ROOT_KEY".into(),
            sealed_key_file: "root.sealed".into(),
            pkcs11_module: None,
            pkcs11_token: None,
            pkcs11_slot: None,
            pkcs11_key: "card4e-root".into(),
            pkcs11_key_file: "root.token".into(),
        }
    }
}

/// `[policy]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Price of a charged answer in credits, as text: `"1"`, `"0.057"`. Default `"1"`.
    pub price: String,
    /// Find accounts by identity number and mobile too, so that actions without a card can be answered;
    /// needs an import. Default `false`, in the sandbox always `true`.
    pub element_index: bool,
    /// Requests a second per application and action; 0: no limit. Default 20, in the sandbox 0.
    pub requests_per_second: Option<u32>,
    /// Tell the state of a card only to somebody who knows its holder. Default `false`.
    pub privacy_order: bool,
    /// A card whose prefix no issuer is known for: `"ask_source"` (default) or `"issuer_unknown"`.
    pub issuer: IssuerPolicy,
    /// A file of issuers whose rows override the built-in table, from the folder of the settings file.
    pub issuers_file: Option<PathBuf>,
    /// Keep masked elements (sealed) for usage pages. Default `true`.
    pub masks: bool,
    /// Counters of attempts a day at most, some five a question; once there are so many, questions that
    /// are counted are refused until midnight. Some 100 bytes of memory each. Default 20000000.
    pub attempt_counters_max: usize,
    /// Rows of one file or batch that are answered without an approval. Default 1000000.
    pub bulk_rows_max: u64,
    /// Accept names in Tibetan, Uyghur, Mongolian and Cyrillic letters. Default `false`.
    pub more_scripts: bool,
    /// Accept identity numbers of the unassigned province 99 and test cards, for trials with synthetic
    /// people; warned about at start and in `/readyz`. Default `false`, in the sandbox always `true`.
    pub test_land: bool,
}

impl Default for PolicySettings {
    fn default() -> Self {
        PolicySettings {
            price: "1".into(),
            element_index: false,
            requests_per_second: None,
            privacy_order: false,
            issuer: IssuerPolicy::default(),
            issuers_file: None,
            masks: true,
            attempt_counters_max: 20_000_000,
            bulk_rows_max: 1_000_000,
            more_scripts: false,
            test_land: false,
        }
    }
}

/// `[actions]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActionsSettings {
    /// Card, name, identity number, mobile.
    #[serde(rename = "bankcard-4e")]
    pub four_elements: ActionSettings,
    /// Card, name, identity number.
    #[serde(rename = "bankcard-3e")]
    pub three_elements: ActionSettings,
    /// Card and name.
    #[serde(rename = "bankcard-2e")]
    pub two_elements: ActionSettings,
    /// Which bank issued a card.
    #[serde(rename = "bankcard-1e")]
    pub card_information: ActionSettings,
    /// Name and identity number.
    #[serde(rename = "idcard-2e")]
    pub name_and_id: ActionSettings,
    /// Mobile, name, identity number.
    #[serde(rename = "phone-3e")]
    pub mobile_name_and_id: ActionSettings,
    /// Mobile and name.
    #[serde(rename = "phone-2e")]
    pub mobile_and_name: ActionSettings,
}

/// Where one action differs from `[policy]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActionSettings {
    /// Price of a charged answer in credits, as text.
    pub price: Option<String>,
    /// Requests a second per application; 0: no limit.
    pub requests_per_second: Option<u32>,
    /// What becomes of that limit while the limiter is away.
    pub limiter_away: Option<WhenAway>,
}

impl ActionsSettings {
    fn of(&self, action: Action) -> &ActionSettings {
        match action {
            Action::FourElements => &self.four_elements,
            Action::ThreeElements => &self.three_elements,
            Action::TwoElements => &self.two_elements,
            Action::CardInformation => &self.card_information,
            Action::NameAndId => &self.name_and_id,
            Action::MobileNameAndId => &self.mobile_name_and_id,
            Action::MobileAndName => &self.mobile_and_name,
        }
    }

    fn prices(&self) -> anyhow::Result<[Option<Credits>; Action::ALL.len()]> {
        let mut prices = [None; Action::ALL.len()];
        for action in Action::ALL {
            if let Some(price) = &self.of(action).price {
                let wrong = |wrong: String| anyhow::anyhow!("actions.{}.price: {wrong}", action.name());
                prices[action as usize] = Some(price.parse().map_err(wrong)?);
            }
        }
        Ok(prices)
    }
}

/// `[idempotency]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencySettings {
    /// How long an answer is kept for its `Idempotency-Key`, hours. Default 24.
    pub key_kept_hours: u32,
    /// How long the same question counts as sent again without any key, seconds. Official SDKs
    /// re-send a POST after 408, 409, 429, 5xx and broken bodies. Default 0: never.
    pub content_window_seconds: u32,
    /// Keys remembered at most; while there are so many, a question with a new one is refused, because
    /// it could be charged twice. Some 300 bytes of memory each. Default 1000000.
    pub keys_max: usize,
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        IdempotencySettings { key_kept_hours: 24, content_window_seconds: 0, keys_max: 1_000_000 }
    }
}

/// `[tencent]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TencentSettings {
    /// Language of texts for clients that send none: `"zh-CN"` (default) or `"en-US"`.
    #[serde(deserialize_with = "language", serialize_with = "language_word")]
    pub language: Language,
    /// Host names clients may have signed instead of the one they sent: those of the service they
    /// think they talk to. Default: the two public names.
    pub public_names: Vec<String>,
}

impl Default for TencentSettings {
    fn default() -> Self {
        let public_names = wire::tencent::signature::DEFAULT_PUBLIC_NAMES.map(str::to_owned).to_vec();
        TencentSettings { language: Language::Chinese, public_names }
    }
}

fn language<'de, D: Deserializer<'de>>(from: D) -> Result<Language, D::Error> {
    match String::deserialize(from)?.as_str() {
        "zh-CN" => Ok(Language::Chinese),
        "en-US" => Ok(Language::English),
        other => {
            let wrong = format!("tencent.language is `{other}`; use \"zh-CN\" or \"en-US\"");
            Err(serde::de::Error::custom(wrong))
        }
    }
}

fn language_word<S: Serializer>(language: &Language, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if *language == Language::English { "en-US" } else { "zh-CN" })
}

/// `[acedata]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AceDataSettings {
    /// `"documented"` (default): the numbers of AceData's guide; `"upstream_4e"`: Tencent's
    /// four-element numbers, which the live service may pass through.
    pub numbering: AceDataNumbering,
    /// HTTP status of `token_mismatched`: 400 (default) as on the identity pages, or 401.
    pub token_mismatched_status: u16,
    /// Where people are sent for balance and services, in error texts. Default: where they came from.
    pub public_url: Option<String>,
}

impl Default for AceDataSettings {
    fn default() -> Self {
        AceDataSettings {
            numbering: AceDataNumbering::default(),
            token_mismatched_status: 400,
            public_url: None,
        }
    }
}

/// `[platform]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformSettings {
    /// Who may register in the console. Default `"invitation"`, in the sandbox `"open"`.
    pub registration: Option<Registration>,
    /// A session in the console ends after so many hours. Default 12.
    pub session_hours: u32,
    /// Whom people ask for help, and how orders are paid: shown as it is. Default: the operator.
    pub support_contact: String,
    /// What packages are priced in. Default `"CNY"`.
    pub currency: String,
}

impl Default for PlatformSettings {
    fn default() -> Self {
        PlatformSettings {
            registration: None,
            session_hours: 12,
            support_contact: "Ask the operator of this server.".into(),
            currency: "CNY".into(),
        }
    }
}

/// Who may register in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who has a code of the operator's.
    Invitation,
    /// Nobody.
    Closed,
}

impl Registration {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Registration::Open => "open",
            Registration::Invitation => "invitation",
            Registration::Closed => "closed",
        }
    }
}

/// `[http]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Connections at most; more wait to be accepted. Default 10000.
    pub connections_max: usize,
    /// Questions under way at most; more are refused. Default 8192.
    pub under_way_max: usize,
    /// A core that keeps something ready waiting for longer refuses some questions; 0: none. Default 250.
    pub late_ms_max: u64,
    /// A request's head must have arrived after so many seconds. Default 30.
    pub head_seconds: u64,
    /// A request's body must have arrived after so many seconds. Default 30.
    pub body_seconds: u64,
    /// At the end, requests under way have so many seconds to finish. Default 10.
    pub drain_seconds: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            connections_max: 10_000,
            under_way_max: 8192,
            late_ms_max: 250,
            head_seconds: 30,
            body_seconds: 30,
            drain_seconds: 10,
        }
    }
}

/// `[tls]`: PEM files, from the folder of the settings file; read again when they change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The server's certificate, then those between it and the CA. With it every connection is TLS.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key.
    pub key: Option<PathBuf>,
    /// CAs whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate. Default `"off"`.
    pub client_certificates: ClientCertificates,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Not at all.
    #[default]
    Off,
    /// Who shows one must show a right one.
    Optional,
    /// Nobody gets in without.
    Required,
}

impl Settings {
    /// Reads and checks a settings file.
    pub fn read(path: &Path) -> anyhow::Result<Settings> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut settings =
            Settings::parse(&text).with_context(|| format!("{} is not a settings file", path.display()))?;
        if let (Some(issuers), Some(folder)) = (&mut settings.policy.issuers_file, path.parent()) {
            *issuers = folder.join(&*issuers);
        }
        if let Some(folder) = path.parent() {
            settings.place_provider_files(folder);
            settings.limits.place_files(folder);
        }
        Ok(settings)
    }

    /// Reads settings and sees that they make sense.
    pub fn parse(text: &str) -> anyhow::Result<Settings> {
        let settings: Settings = toml::from_str(text).map_err(|wrong| match nearest(wrong.message()) {
            Some(nearest) => anyhow::anyhow!("{wrong}did you mean `{nearest}`?"),
            None => wrong.into(),
        })?;
        settings.policy.price()?;
        settings.actions.prices()?;
        settings.free_quota()?;
        settings.server.check_store()?;
        anyhow::ensure!(
            settings.server.accounts_stale_max_seconds > 0,
            "server.accounts_stale_max_seconds is 1 or more: a copy is always a moment old"
        );
        settings.check_routing()?;
        settings.limits.check()?;
        anyhow::ensure!(
            matches!(settings.acedata.token_mismatched_status, 400 | 401),
            "acedata.token_mismatched_status is 400 or 401"
        );
        let names = settings.tencent.public_names.len();
        let most = wire::tencent::signature::PUBLIC_NAMES_MAX;
        anyhow::ensure!(names <= most, "tencent.public_names has {names} names; at most {most} are tried");
        Ok(settings)
    }

    /// The built-in issuers, with the operator's rows over them.
    pub fn issuers(&self) -> anyhow::Result<Issuers> {
        let Some(path) = &self.policy.issuers_file else { return Ok(Issuers::built_in()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Issuers::with_operator_file(&text).with_context(|| path.display().to_string())
    }

    /// How a sandbox verifies: test land, nothing counted and no rate unless asked for.
    pub fn sandbox_policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy {
            requests_per_second: self.requests_per_second(|_| 0),
            element_index: true,
            attempts: self.attempts.unwrap_or(AttemptPolicy::OFF),
            test_land: true,
            log_bytes: 4 << 20,
            // It ends with its folder; there is nothing to keep room for.
            disk_reserve_bytes: 0,
            ..self.serve_policy()?
        })
    }

    /// Credits a new caller is granted.
    pub fn free_quota(&self) -> anyhow::Result<Credits> {
        let quota = &self.server.free_quota;
        quota.parse().map_err(|wrong: String| anyhow::anyhow!("server.free_quota: {wrong}"))
    }

    /// An action's own setting, else the one for all, else the usual.
    fn requests_per_second(&self, usual: fn(Action) -> u32) -> [u32; Action::ALL.len()] {
        let all = self.policy.requests_per_second;
        Action::ALL.map(|action| {
            self.actions.of(action).requests_per_second.or(all).unwrap_or_else(|| usual(action))
        })
    }

    /// How an installation verifies.
    pub fn serve_policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy {
            price: self.policy.price()?,
            prices: self.actions.prices()?,
            requests_per_second: self.requests_per_second(Action::requests_per_second),
            nodes: self.limits.nodes,
            limiter_away: Action::ALL
                .map(|action| self.actions.of(action).limiter_away.unwrap_or(self.limits.away)),
            element_index: self.policy.element_index,
            attempts: self.attempts.unwrap_or_default(),
            privacy_order: self.policy.privacy_order,
            issuer: self.policy.issuer,
            test_land: self.policy.test_land,
            more_scripts: self.policy.more_scripts,
            keep_masks: self.policy.masks,
            key_kept_ms: i64::from(self.idempotency.key_kept_hours) * 3_600_000,
            content_window_ms: i64::from(self.idempotency.content_window_seconds) * 1000,
            keys_max: self.idempotency.keys_max,
            counters_max: self.policy.attempt_counters_max,
            bulk_rows_max: self.policy.bulk_rows_max,
            under_way_max: self.http.under_way_max,
            log_bytes: 16 << 20,
            disk_reserve_bytes: u64::from(self.server.disk_reserve_mb) << 20,
            look_every: Policy::default().look_every,
            accounts_stale_max: Duration::from_secs(self.server.accounts_stale_max_seconds.into()),
            accounts_from: self.server.accounts,
            // Needs secrets and the data folder: [`Settings::routing`].
            routing: None,
        })
    }
}

/// The known name that is nearest to an unknown one, out of serde's message that lists them.
fn nearest(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("unknown field `")?;
    let (unknown, known) = after.split_once('`')?;
    let names = known.split('`').skip(1).step_by(2);
    let near = names.map(|name| (strsim::jaro_winkler(unknown, name), name));
    near.filter(|(likeness, _)| *likeness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

impl PolicySettings {
    fn price(&self) -> anyhow::Result<Credits> {
        self.price.parse().map_err(|wrong: String| anyhow::anyhow!("policy.price: {wrong}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_every_default() {
        let settings = Settings::parse("").unwrap();
        assert_eq!(settings.policy.price().unwrap(), Credits::whole(1));
        assert_eq!(settings.sandbox_policy().unwrap().attempts, AttemptPolicy::OFF);
        assert_eq!(settings.acedata.numbering, AceDataNumbering::Documented);
    }

    /// The file that `init` writes is the documentation: every setting, with its default.
    #[test]
    fn the_template_shows_the_defaults_and_the_documentation_shows_the_template() {
        let template = Settings::parse(crate::serve::TEMPLATE).unwrap();
        let defaults = Settings {
            attempts: Some(AttemptPolicy::default()),
            policy: PolicySettings { requests_per_second: Some(20), ..PolicySettings::default() },
            actions: ActionsSettings {
                name_and_id: ActionSettings { requests_per_second: Some(100), ..ActionSettings::default() },
                ..ActionsSettings::default()
            },
            ..Settings::default()
        };
        assert_eq!(format!("{template:#?}"), format!("{defaults:#?}"));
        let page = include_str!("../../../docs/settings.md");
        assert!(page.contains(crate::serve::TEMPLATE), "copy src/card4e.toml into docs/settings.md");
    }

    /// No setting is left out of the template: each name of each table is in it, perhaps commented out.
    #[test]
    fn the_template_names_every_setting() {
        for name in known_settings() {
            assert!(
                crate::serve::TEMPLATE.contains(&format!("{name} =")),
                "{name} is missing in src/card4e.toml"
            );
        }
    }

    /// What serde accepts, as its own error message lists it.
    fn known_settings() -> Vec<String> {
        let listed = |text: &str| -> Vec<String> {
            let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
            error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
        };
        let tables = listed("nothing = 1");
        assert!(tables.len() > 5, "{tables:?}");
        // Lists of tables; `config/routing.rs` sees to them.
        let tables: Vec<_> =
            tables.into_iter().filter(|table| table != "provider" && table != "route").collect();
        tables.iter().flat_map(|table| listed(&format!("[{table}]\nnothing = 1"))).collect()
    }

    #[test]
    fn an_empty_attempts_table_counts_as_the_field_does() {
        let settings = Settings::parse("[attempts]\nper_card = 5\n").unwrap();
        let attempts = settings.sandbox_policy().unwrap().attempts;
        assert_eq!(
            (attempts.per_card, attempts.per_value, attempts.lock_after),
            (Some(5), Some(500), Some(3))
        );
    }

    #[test]
    fn an_action_differs_where_its_settings_say_so() {
        let text = "[policy]\nrequests_per_second = 7\n\
            [actions]\nphone-2e = { price = \"0.2\", requests_per_second = 0 }\n";
        let settings = Settings::parse(text).unwrap();
        let policy = settings.serve_policy().unwrap();
        assert_eq!(policy.requests_per_second, [7, 7, 7, 7, 7, 7, 0]);
        assert_eq!(policy.prices[Action::MobileAndName as usize], Some(Credits(200_000)));
        assert_eq!(policy.prices[Action::FourElements as usize], None);
        let defaults = Settings::default().serve_policy().unwrap();
        assert_eq!(defaults.requests_per_second, [20, 20, 20, 20, 100, 20, 20]);
        assert_eq!(Settings::default().sandbox_policy().unwrap().requests_per_second, [0; 7]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("[polcy]\n", "did you mean `policy`?"),
            ("[attempts]\nper_crad = 3\n", "did you mean `per_card`?"),
            ("[policy]\nprice = \"a lot\"\n", "policy.price"),
            ("[actions]\nphone-2e = { price = \"a lot\" }\n", "actions.phone-2e.price"),
            ("[actions]\nphone2e = { price = \"1\" }\n", "did you mean `phone-2e`?"),
            ("[acedata]\nnumbering = \"2e\"\n", "upstream_4e"),
            ("[acedata]\ntoken_mismatched_status = 403\n", "400 or 401"),
            ("[tencent]\nlanguage = \"de\"\n", "zh-CN"),
            ("[server]\nstore = \"postgres://a:b@db/card4e\"\n", "store_password_file"),
            ("[server]\nstore = \"postgres://a@db/card4e?password=b\"\n", "store_password_file"),
        ] {
            let error = format!("{:#}", Settings::parse(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
