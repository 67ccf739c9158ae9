//! The console: pages for people, made on the server. What they show and do goes through the management
//! API's own functions, in the name of whoever has the session; a script adds only *Try*, the signature
//! view and live panels.

mod account;
mod explorer;
mod look;
mod operator;
mod pages;
mod providers;
mod session;
mod snippets;
mod try_it;
mod watch;

pub use watch::Checking;

use std::sync::Arc;

use engine::caller::CallerId;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use wire::{Incoming, Language};

use crate::front::{Core, Server};
use crate::http::{Received, Reply};
use crate::platform::{self, Actor, Ask, Done, Refused};
use session::Session;

/// Whether a path is the console's own.
pub fn owns(path: &str) -> bool {
    const ROOMS: [&str; 6] = ["/service/", "/documents/", "/console/", "/auth/", "/user/", "/services/"];
    const PAGES: [&str; 5] = ["/", "/services", "/support", "/terms", "/console"];
    PAGES.contains(&path) || ROOMS.iter().any(|room| path.starts_with(room))
}

/// A page asked for, owned, so that it can leave the core's thread.
pub struct Visit {
    server: Arc<Server>,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    form: Vec<(String, String)>,
    language: Language,
    theme: String,
    public_url: String,
    host: String,
    session: Option<Session>,
    peer: std::net::IpAddr,
}

/// What a visit is answered with.
pub enum Shown {
    /// A page.
    Page(StatusCode, String),
    /// Go and see another one, with this cookie.
    WithCookie(String, String),
    /// A file.
    File(&'static str, String),
}

/// The result of a visit.
type Seen = Result<Shown, Refused>;

/// Answers a request for a page.
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    if let Some(asset) = look::asset(incoming.path) {
        return asset;
    }
    let server = &core.server;
    if let Err(why) = from_own_pages(server, incoming) {
        return dressed(Reply::new(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", why));
    }
    let visit = match read(server, incoming, received).await {
        Ok(visit) => visit,
        Err(refused) => {
            return dressed(Reply::new(refused.status, "text/plain; charset=utf-8", refused.detail));
        }
    };
    match visit.path.as_str() {
        "/console/try" => return dressed(try_it::answer(core, visit, incoming, received).await),
        "/console/operator/import" => return dressed(watch::import(visit, incoming).await),
        _ => {}
    }
    let permit = match visit.path.as_str() {
        // A hash takes memory and a core: so many at once, the others wait.
        "/auth/login" | "/auth/register" | "/auth/reset" | "/console/account/password"
            if visit.method == Method::POST =>
        {
            server.guesses.at_once.acquire().await.ok()
        }
        _ => None,
    };
    let visit = Arc::new(visit);
    let to_show = Arc::clone(&visit);
    let shown = platform::off_the_core(move || show(&to_show)).await;
    drop(permit);
    let mut reply = match shown {
        Ok(Shown::Page(status, page)) => Reply::new(status, "text/html; charset=utf-8", page),
        Ok(Shown::WithCookie(to, cookie)) => {
            let mut reply = elsewhere(&to);
            reply.header("set-cookie", cookie);
            reply
        }
        Ok(Shown::File(kind, text)) => Reply::new(StatusCode::OK, kind, text),
        Err(refused) if refused.code == "not_authenticated" && visit.method == Method::GET => {
            elsewhere(&format!("/auth/login?next={}", form_encoded(&visit.target())))
        }
        Err(refused) => {
            let status = refused.status;
            Reply::new(status, "text/html; charset=utf-8", pages::refused(&visit, &refused))
        }
    };
    reply.header("vary", "cookie, accept-language");
    dressed(reply)
}

fn elsewhere(to: &str) -> Reply {
    let mut reply = Reply::new(StatusCode::SEE_OTHER, "text/plain", "");
    reply.header("location", to);
    reply
}

/// A text as it stands in a query.
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Nothing inline, nothing from elsewhere, in nobody's frame, in no cache.
fn dressed(mut reply: Reply) -> Reply {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
        connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        reply.set(&name, HeaderValue::from_static(value));
    }
    reply
}

/// A page of another site must not act through a visitor's browser, nor a name that was pointed here: so a
/// sandbox, where everybody is let in, answers to addresses and `localhost` only.
fn from_own_pages(server: &Server, incoming: &Incoming<'_>) -> Result<(), &'static str> {
    const ELSEWHERE: &str = "This is not done from pages of other sites.";
    if server.sandbox.is_some() && !crate::sandbox::is_local_name(incoming.header("host").unwrap_or_default())
    {
        return Err("The sandbox is not reached through a name; use localhost or an address.");
    }
    let reads = matches!(*incoming.method, Method::GET | Method::HEAD);
    if reads {
        return Ok(());
    }
    let site = incoming.header("sec-fetch-site");
    let foreign = matches!(site, Some("cross-site" | "same-site"));
    let own = crate::front::from_own_pages(server, incoming).is_ok() || origin_is_public(server, incoming);
    if foreign || !own { Err(ELSEWHERE) } else { Ok(()) }
}

/// Behind a proxy that ends TLS, the browser's origin is the public address.
fn origin_is_public(server: &Server, incoming: &Incoming<'_>) -> bool {
    let settings = server.settings();
    let public = settings.acedata.public_url.as_deref().map(|url| url.trim_end_matches('/'));
    public.is_some() && incoming.header("origin") == public
}

async fn read(server: &Arc<Server>, incoming: &Incoming<'_>, received: &Received) -> Result<Visit, Refused> {
    if received.body.is_err() || incoming.body.len() > 256 << 10 {
        return Err(Refused::invalid("The form did not arrive completely, or is too large."));
    }
    let decoded = |text: &[u8]| form_urlencoded::parse(text).into_owned().collect::<Vec<(String, String)>>();
    let key = session::cookie(incoming, session::NAME).map(str::to_owned);
    let session = match key {
        None => None,
        Some(key) => {
            let server = Arc::clone(server);
            platform::off_the_core(move || session::find(&server, key)).await?
        }
    };
    let theme = session::cookie(incoming, "theme").unwrap_or_default();
    // Elements that a script sends are read once, where they are used.
    let is_form = incoming.header("content-type").is_none_or(|kind| !kind.contains("json"));
    Ok(Visit {
        server: Arc::clone(server),
        method: incoming.method.clone(),
        path: match incoming.path.trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        query: decoded(incoming.query.as_bytes()),
        form: if is_form { decoded(incoming.body) } else { Vec::new() },
        language: match session::cookie(incoming, "lang") {
            Some("zh") => Language::Chinese,
            Some("en") => Language::English,
            _ => wire::acedata::language(incoming),
        },
        theme: ["light", "dark"].into_iter().find(|known| *known == theme).unwrap_or("auto").to_owned(),
        public_url: crate::front::acedata::public_url(server, incoming),
        host: incoming.header("host").unwrap_or("localhost").to_owned(),
        session,
        peer: received.peer,
    })
}

/// One arm for each page.
fn show(visit: &Visit) -> Seen {
    let parts: Vec<&str> = visit.path.trim_matches('/').split('/').collect();
    let get = matches!(visit.method, Method::GET | Method::HEAD);
    if !get {
        return act(visit, &parts);
    }
    match parts.as_slice() {
        [""] => pages::home(visit),
        ["services"] | ["service", "identity"] => pages::service(visit, None),
        ["documents", "search"] => pages::search(visit),
        ["documents", "explorer"] => explorer::page(visit, None),
        ["documents", alias] => pages::api(visit, alias, None, None),
        ["auth", "login"] => pages::login(visit, None),
        ["auth", "register"] => pages::register(visit, None),
        ["auth", "reset"] => account::reset_page(visit, None),
        ["support"] => pages::support(visit),
        ["terms"] => pages::terms_page(visit),
        ["console"] | ["console", "applications"] => pages::applications(visit, None, None),
        ["console", "platform-tokens"] => pages::tokens(visit, None, None),
        ["console", "usages"] => pages::usages(visit),
        ["console", "usages", "export"] => pages::usage_export(visit),
        ["console", "usages", id] => pages::usage(visit, id),
        ["console", "orders"] | ["console", "orders", _] => pages::orders(visit, None),
        ["console", "account"] => account::page(visit, None, StatusCode::OK),
        ["console", "operator"] => operator::page(visit, None),
        ["console", "operator", "account", number] => operator::account(visit, number, None),
        ["console", "operator", "data"] => watch::data(visit, None),
        ["console", "operator", "audit"] => watch::audit(visit, None),
        ["console", "operator", "health"] => watch::health(visit),
        ["console", "operator", "providers"] => providers::page(visit),
        ["console", "sandbox"] if visit.server.sandbox.is_some() => pages::sandbox(visit),
        _ => Err(Refused::not_found("page")),
    }
}

/// One arm for each form. What needs a session needs its token too.
fn act(visit: &Visit, parts: &[&str]) -> Seen {
    match parts {
        ["auth", "login"] => return session::log_in(visit),
        ["auth", "register"] => return session::register(visit),
        ["auth", "reset"] => return account::reset(visit),
        ["user", "settings"] => return session::settings(visit),
        _ => {}
    }
    let session = visit.session.as_ref().ok_or_else(|| Refused::not_authenticated("Log in first."))?;
    if !session.has_token(visit.field("csrf")) {
        return Err(Refused::denied());
    }
    match parts {
        ["auth", "logout"] => session::log_out(visit),
        ["console", "acquire"] => pages::acquire(visit),
        ["console", "keys"] => pages::create_key(visit),
        ["console", "keys", id, what @ ("rotate" | "delete" | "change")] => {
            pages::change_key(visit, id, what)
        }
        ["console", "platform-tokens"] => pages::create_token(visit),
        ["console", "platform-tokens", id, "delete"] => pages::delete_token(visit, id),
        ["console", "orders"] => pages::order(visit),
        ["console", "redeem"] => pages::redeem(visit),
        ["console", "explorer"] => explorer::debug(visit),
        ["console", "account", "password"] => account::change_password(visit),
        ["console", "operator", "check"] => watch::begin_check(visit),
        ["console", "operator", what] if operator::FORMS.contains(what) => operator::act(visit, what),
        _ => Err(Refused::not_found("page")),
    }
}

impl Visit {
    fn actor(&self) -> Option<&Actor> {
        self.session.as_ref().map(|session| &session.actor)
    }

    fn caller(&self) -> Option<CallerId> {
        self.actor().map(|actor| actor.caller.id)
    }

    /// First value of a field of the form.
    fn field(&self, name: &str) -> &str {
        self.form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// First value of a field as it was typed, blanks and all.
    fn raw(&self, name: &str) -> &str {
        self.form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// First value of a parameter.
    fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// Path and query, to come back to.
    fn target(&self) -> String {
        if self.method != Method::GET {
            return "/console/applications".into();
        }
        match form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish() {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    fn zh(&self) -> bool {
        self.language == Language::Chinese
    }

    fn says<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        if self.language == Language::Chinese { zh } else { en }
    }

    /// A call of the management API in the name of who has the session.
    fn call(&self, method: &str, path: &str, query: &[(&str, &str)], body: Value) -> Result<Value, Refused> {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ask =
            Ask::made(&self.server, self.actor().cloned(), &self.public_url, (method, path), query, body);
        match platform::call(&ask)? {
            Done::Json(_, value) => Ok(value),
            Done::Csv(_, text) => Ok(Value::String(text)),
            Done::Gone => Ok(Value::Null),
        }
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Refused> {
        self.call("GET", path, query, json!({}))
    }

    fn post(&self, path: &str, body: Value) -> Result<Value, Refused> {
        self.call("POST", path, &[], body)
    }
}
