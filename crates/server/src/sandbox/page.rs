//! The page at `/`: everything somebody needs who has just started a sandbox.

use engine::caller::Action;
use engine::outcome::Outcome;
use engine::projection::{self, AceDataNumbering};
use http::{HeaderValue, StatusCode, header};
use wire::acedata::Endpoint;
use wire::code::ResultCode;
use wire::tencent::action::Action as Name;
use wire::{Incoming, Language};

use super::credentials::APPLICATIONS;
use super::samples;
use crate::front::Server;
use crate::http::Reply;

const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

/// The page.
pub fn page(server: &Server, incoming: &Incoming<'_>) -> Reply {
    let host = escaped(incoming.header("host").unwrap_or("127.0.0.1:4400"));
    let scheme = server.scheme();
    let base = format!("{scheme}://{host}");
    let ca = server.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let text = include_str!("page.html")
        .replace("{{host}}", &host)
        .replace("{{base}}", &base)
        .replace("{{scheme}}", scheme)
        .replace("{{curl}}", &escaped(&crate::cli::curl_line(&base, ca)))
        .replace("{{applications}}", &applications())
        .replace("{{cards}}", &cards());
    let mut reply = Reply::new(StatusCode::OK, "text/html; charset=utf-8", text);
    reply.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Its style sheet; a file of its own, so that the page needs no inline style.
pub fn style() -> Reply {
    Reply::new(StatusCode::OK, "text/css; charset=utf-8", include_str!("page.css"))
}

fn applications() -> String {
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

fn cards() -> String {
    let row = |(card, outcome): (String, Outcome)| {
        let tencent = projection::tencent(Name::BankCard4EVerification, outcome);
        let acedata = projection::acedata(AceDataNumbering::Documented, Endpoint::BankCard4E, outcome);
        let number = |code: Option<ResultCode>| code.map_or_else(String::new, |code| code.number.to_string());
        format!(
            "<tr><td><code>{card}</code></td><td>{}</td><td>{}</td><td>{}<small>{}</small></td><td>{}</td></tr>\n",
            number(tencent),
            number(acedata),
            outcome.name(),
            tencent.map_or("", |code| code.text(Language::Chinese)),
            if outcome.billable() { "charged" } else { "free" },
        )
    };
    samples::all(Action::FourElements).map(row).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
