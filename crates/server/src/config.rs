//! The settings file: every setting, its meaning and its default. TOML; unknown settings are errors.

use std::path::{Path, PathBuf};

use anyhow::Context;
use engine::issuer::Issuers;
use engine::ledger::Credits;
use engine::limit::AttemptPolicy;
use engine::projection::AceDataNumbering;
use engine::{IssuerPolicy, Policy};
use serde::Deserialize;
use wire::Language;

/// All settings. Without a file everything has the default written beside it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How questions are decided and charged.
    pub policy: PolicySettings,
    /// Attempts a day on the same card or person. In the sandbox nothing is counted unless this
    /// table is there; an empty one counts as the field does.
    pub attempts: Option<AttemptPolicy>,
    /// Who sends the same question again, and is charged once.
    pub idempotency: IdempotencySettings,
    /// The Tencent wire.
    pub tencent: TencentSettings,
    /// The AceData wire.
    pub acedata: AceDataSettings,
    /// Bounds of the HTTP server.
    pub http: HttpSettings,
}

/// `[policy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Price of a charged answer in credits, as text: `"1"`, `"0.057"`. Default `"1"`.
    pub price: String,
    /// Requests a second per application and action; 0: no limit. Default 20, in the sandbox 0.
    pub requests_per_second: Option<u32>,
    /// Tell the state of a card only to somebody who knows its holder. Default `false`.
    pub privacy_order: bool,
    /// A card whose prefix no issuer is known for: `"ask_source"` (default) or `"issuer_unknown"`.
    pub issuer: IssuerPolicy,
    /// A file of issuers whose rows override the built-in table.
    pub issuers_file: Option<PathBuf>,
    /// Keep masked elements (sealed) for usage pages. Default `true`.
    pub masks: bool,
    /// Accept names in Tibetan, Uyghur, Mongolian and Cyrillic letters. Default `false`.
    pub more_scripts: bool,
}

impl Default for PolicySettings {
    fn default() -> Self {
        PolicySettings {
            price: "1".into(),
            requests_per_second: None,
            privacy_order: false,
            issuer: IssuerPolicy::default(),
            issuers_file: None,
            masks: true,
            more_scripts: false,
        }
    }
}

/// `[idempotency]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencySettings {
    /// How long an answer is kept for its `Idempotency-Key`, hours. Default 24.
    pub key_kept_hours: u32,
    /// How long the same question counts as sent again without any key, seconds. Official SDKs
    /// re-send a POST after 408, 409, 429, 5xx and broken bodies. Default 0: never.
    pub content_window_seconds: u32,
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        IdempotencySettings { key_kept_hours: 24, content_window_seconds: 0 }
    }
}

/// `[tencent]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TencentSettings {
    /// Language of texts for clients that send none: `"zh-CN"` (default) or `"en-US"`.
    pub language: String,
    /// Host names clients may have signed instead of the one they sent: those of the service they
    /// think they talk to. Default: the two public names.
    pub public_names: Vec<String>,
}

impl Default for TencentSettings {
    fn default() -> Self {
        let public_names = wire::tencent::signature::DEFAULT_PUBLIC_NAMES.map(str::to_owned).to_vec();
        TencentSettings { language: "zh-CN".into(), public_names }
    }
}

/// `[acedata]`
#[derive(Clone, Debug, Deserialize)]
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

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Connections at most; more wait to be accepted. Default 10000.
    pub connections_max: usize,
    /// Questions under way at most; more are refused. Default 8192.
    pub under_way_max: usize,
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
            head_seconds: 30,
            body_seconds: 30,
            drain_seconds: 10,
        }
    }
}

impl Settings {
    /// Reads and checks a settings file.
    pub fn read(path: &Path) -> anyhow::Result<Settings> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Settings::parse(&text).with_context(|| format!("{} is not a settings file", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Settings> {
        let settings: Settings = toml::from_str(text)?;
        settings.default_language()?;
        settings.policy.price()?;
        anyhow::ensure!(
            matches!(settings.acedata.token_mismatched_status, 400 | 401),
            "acedata.token_mismatched_status is 400 or 401"
        );
        let names = settings.tencent.public_names.len();
        let most = wire::tencent::signature::PUBLIC_NAMES_MAX;
        anyhow::ensure!(names <= most, "tencent.public_names has {names} names; at most {most} are tried");
        Ok(settings)
    }

    /// The language for clients that send none.
    pub fn default_language(&self) -> anyhow::Result<Language> {
        match self.tencent.language.as_str() {
            "zh-CN" => Ok(Language::Chinese),
            "en-US" => Ok(Language::English),
            other => anyhow::bail!("tencent.language is `{other}`; use \"zh-CN\" or \"en-US\""),
        }
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
            price: self.policy.price()?,
            requests_per_second: self.policy.requests_per_second.unwrap_or(0),
            attempts: self.attempts.unwrap_or(AttemptPolicy::OFF),
            privacy_order: self.policy.privacy_order,
            issuer: self.policy.issuer,
            test_land: true,
            more_scripts: self.policy.more_scripts,
            keep_masks: self.policy.masks,
            key_kept_ms: i64::from(self.idempotency.key_kept_hours) * 3_600_000,
            content_window_ms: i64::from(self.idempotency.content_window_seconds) * 1000,
            under_way_max: self.http.under_way_max,
            log_bytes: 4 << 20,
        })
    }
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

    /// The example in the documentation has every setting with its default.
    #[test]
    fn the_documentation_shows_the_defaults() {
        let page = include_str!("../../../docs/settings.md");
        let shown = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let shown = Settings::parse(shown).unwrap();
        let defaults = Settings {
            attempts: Some(AttemptPolicy::default()),
            policy: PolicySettings { requests_per_second: Some(0), ..PolicySettings::default() },
            ..Settings::default()
        };
        assert_eq!(format!("{shown:#?}"), format!("{defaults:#?}"));
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
    fn mistakes_are_named() {
        for (text, named) in [
            ("[polcy]\n", "polcy"),
            ("[policy]\nprice = \"a lot\"\n", "policy.price"),
            ("[acedata]\nnumbering = \"2e\"\n", "upstream_4e"),
            ("[acedata]\ntoken_mismatched_status = 403\n", "400 or 401"),
            ("[tencent]\nlanguage = \"de\"\n", "zh-CN"),
        ] {
            let error = format!("{:#}", Settings::parse(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
