//! What the console shows of a sandbox: test keys, and one card for every code.

use engine::action::Action;
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use wire::Language;
use wire::acedata::Endpoint;
use wire::code::ResultCode;
use wire::tencent::action::Action as Name;

use super::credentials::APPLICATIONS;
use super::samples;

/// Rows of a table: one application for every state of an account.
pub fn application_rows() -> String {
    let row = |app: &super::credentials::TestApplication| {
        format!(
            "<tr><td>{}<small>{}</small></td><td><code>{}</code><code>{}</code>{}</td><td><code>{}</code></td></tr>\n",
            app.name,
            app.state,
            app.secret_id,
            app.secret_key,
            app.token.map_or(String::new(), |token| format!("<code>{token}</code>")),
            app.bearer,
        )
    };
    APPLICATIONS.iter().map(row).collect()
}

/// Rows of a table: one card for every code.
pub fn card_rows(language: Language) -> String {
    let row = |(card, outcome): (String, Outcome)| {
        let tencent = projection::tencent(Name::BankCard4EVerification, outcome);
        let acedata = projection::acedata(AceDataNumbering::Documented, Endpoint::BankCard4E, outcome);
        let number = |code: Option<ResultCode>| code.map_or_else(String::new, |code| code.number.to_string());
        format!(
            "<tr><td><a href=\"{}\"><code>{card}</code></a></td><td>{}</td><td>{}</td><td>{}<small>{}</small></td><td>{}</td></tr>\n",
            where_answered(Action::FourElements, outcome.name()).unwrap_or_default(),
            number(tencent),
            number(acedata),
            outcome.name(),
            tencent.map_or("", |code| code.text(language)),
            match (outcome.billable(), language) {
                (true, Language::Chinese) => "计费",
                (false, Language::Chinese) => "免费",
                (true, Language::English) => "charged",
                (false, Language::English) => "free",
            },
        )
    };
    samples::all(Action::FourElements).map(row).collect()
}

/// The page of an action with the value in its form that answers this outcome.
pub fn where_answered(action: Action, outcome: &str) -> Option<String> {
    let (value, _) = samples::all(action).find(|(_, answered)| answered.name() == outcome)?;
    let page = crate::platform::catalogue::page(action);
    let found_by = crate::platform::catalogue::members(action).into_iter().find(|member| {
        // The phone is `mobile` in one action.
        [action.found_by().name(), "mobile"].contains(&member.name)
    })?;
    Some(format!("/documents/{}?{}={value}#try", page.alias, found_by.name))
}
