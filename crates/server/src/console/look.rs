//! What all pages share: frame, assets, charts.

use std::fmt::Write;

use engine::action::Action;
use engine::outcome::{Class, Outcome};
use engine::store::DayUse;
use http::{HeaderValue, StatusCode, header};
use wire::Language;

use super::Visit;
use crate::http::Reply;
use crate::platform::catalogue;

/// What stands around a page.
pub struct Frame {
    /// Title.
    pub title: String,
    /// Chinese?
    pub zh: bool,
    /// `auto`, `light` or `dark`.
    pub theme: String,
    /// Name of who is logged in.
    pub user: Option<String>,
    /// Looks after the installation.
    pub operator: bool,
    /// What forms carry.
    pub csrf: String,
    /// Nothing is real.
    pub sandbox: bool,
    /// Whom to ask.
    pub support: String,
    /// Where to come back to.
    pub target: String,
    /// The same, as it stands in a query.
    pub target_encoded: String,
    /// What was searched for.
    pub query: String,
    /// The server's name as the browser has it.
    pub host: String,
    /// Alias of the page that people begin with.
    pub first_page: &'static str,
    /// Something that just happened.
    pub notice: Option<Notice>,
    path: String,
}

/// Something that just happened.
pub struct Notice {
    /// `good` or `bad`.
    pub kind: &'static str,
    /// What.
    pub text: String,
    /// A secret, shown this once.
    pub secret: Option<String>,
}

impl Notice {
    /// It worked.
    pub fn good(text: impl Into<String>) -> Notice {
        Notice { kind: "good", text: text.into(), secret: None }
    }

    /// It did not.
    pub fn bad(text: impl Into<String>) -> Notice {
        Notice { kind: "bad", text: text.into(), secret: None }
    }

    /// It worked, and this is never seen again.
    pub fn secret(text: impl Into<String>, secret: impl Into<String>) -> Notice {
        Notice { kind: "good", text: text.into(), secret: Some(secret.into()) }
    }
}

impl Frame {
    /// The frame of a page.
    pub fn of(visit: &Visit, title: &str, notice: Option<Notice>) -> Frame {
        Frame {
            title: title.to_owned(),
            zh: visit.language == Language::Chinese,
            theme: visit.theme.clone(),
            user: visit.actor().map(|actor| actor.caller.name.clone()),
            operator: visit.actor().is_some_and(super::Actor::is_operator),
            csrf: visit.session.as_ref().map(super::Session::token).unwrap_or_default(),
            sandbox: visit.server.sandbox.is_some(),
            support: visit.server.settings().platform.support_contact.clone(),
            target: visit.target(),
            target_encoded: super::form_encoded(&visit.target()),
            query: visit.parameter("q").to_owned(),
            host: visit.host.clone(),
            first_page: catalogue::page(Action::FourElements).alias,
            notice,
            path: visit.path.clone(),
        }
    }

    /// The same on a page that answers a form: it is this page's.
    pub fn at(self, path: &str) -> Frame {
        Frame { path: path.to_owned(), ..self }
    }

    /// One of two languages.
    pub fn t<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        if self.zh { zh } else { en }
    }

    /// Marks the link of the page that is shown.
    pub fn here(&self, prefix: &str) -> Marked {
        Marked(self.path.starts_with(prefix))
    }

    /// The same, for pages that begin like others.
    pub fn is_here(&self, path: &str) -> Marked {
        Marked(self.path == path)
    }

    /// The theme after this one.
    pub fn next_theme(&self) -> &'static str {
        match self.theme.as_str() {
            "auto" => "dark",
            "dark" => "light",
            _ => "auto",
        }
    }
}

/// An attribute, or none.
pub struct Marked(bool);

impl std::fmt::Display for Marked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { " aria-current=page" } else { "" })
    }
}

/// A file of the console's.
pub fn asset(path: &str) -> Option<Reply> {
    let (kind, text) = match path {
        "/console/assets/style.css" => ("text/css; charset=utf-8", include_str!("style.css")),
        "/console/assets/console.js" => ("text/javascript; charset=utf-8", include_str!("console.js")),
        "/console/assets/icon.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return None,
    };
    let mut reply = Reply::new(StatusCode::OK, kind, text);
    reply.set(&header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    reply.set(&header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(reply)
}

/// How an outcome is coloured.
pub fn class_of(outcome: &str) -> &'static str {
    match Outcome::named(outcome).map(Outcome::class) {
        Some(Class::Pass) => "pass",
        Some(Class::Mismatch) => "mismatch",
        _ => "other",
    }
}

/// Bars of the last days, stacked by class; a drawing and, for who does not see it, a table in words.
pub fn chart(days: &[DayUse], first: i64, last: i64, label: &str) -> String {
    const HEIGHT: u64 = 120;
    let count = (last - first + 1).clamp(1, 62);
    let of = |day: i64, class: &str| -> u64 {
        let fits = |use_: &&DayUse| use_.day == day && class_of(&use_.outcome) == class;
        days.iter().filter(fits).map(|use_| use_.answers).sum()
    };
    let totals = (0..count).map(|at| ["pass", "mismatch", "other"].map(|class| of(first + at, class)));
    let totals: Vec<[u64; 3]> = totals.collect();
    let most = totals.iter().map(|day| day.iter().sum()).max().unwrap_or(0).max(1u64);
    const WIDTH: f64 = 760.0;
    let step = WIDTH / count as f64;
    let bar = (step * 0.7).min(40.0);
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{label}: {}\">",
        HEIGHT + 16,
        totals.iter().flatten().sum::<u64>()
    );
    let _ = write!(svg, "<line x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>");
    for (at, day) in totals.iter().enumerate() {
        let x = at as f64 * step + (step - bar) / 2.0;
        let date = crate::platform::day_text(first + at as i64);
        let mut top = HEIGHT as f64;
        for (class, answers) in ["pass", "mismatch", "other"].into_iter().zip(day) {
            let height = *answers as f64 * (HEIGHT - 6) as f64 / most as f64;
            top -= height;
            if *answers > 0 {
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\"><title>{date}: {answers}</title></rect>"
                );
            }
        }
        if at as i64 % 7 == 0 {
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\">{}</text>", HEIGHT + 12, &date[5..]);
        }
    }
    svg + "</svg>"
}
