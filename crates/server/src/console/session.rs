//! Logging in and out. A session is a random key in a cookie that no script sees; its forms carry a token
//! made of it, which a page elsewhere cannot know.

use engine::caller::CallerId;
use engine::file::hex;
use engine::vault::random;
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::Incoming;

use super::{Seen, Shown, Visit, pages};
use crate::config::Registration;
use crate::front::Server;
use crate::platform::{Actor, Refused, actor_of, password};

/// The cookie.
pub const NAME: &str = "card4e_session";

/// Who is logged in.
pub struct Session {
    key: String,
    /// Who it is.
    pub actor: Actor,
}

impl Session {
    /// What its forms carry.
    pub fn token(&self) -> String {
        hex(&Sha256::digest(format!("card4e form {}", self.key))[..16])
    }

    /// Whether a form comes from one of its pages.
    pub fn has_token(&self, token: &str) -> bool {
        self.token().as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// A cookie of a request.
pub fn cookie<'a>(incoming: &Incoming<'a>, name: &str) -> Option<&'a str> {
    let all = incoming.headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// The session of a key; `None` when it is over.
pub fn find(server: &Server, key: String) -> Result<Option<Session>, Refused> {
    let engine = &server.engine;
    let Some(caller) = engine.platform().session(&key, engine.clock.now_ms())? else { return Ok(None) };
    let directory = engine.directory();
    let suspended = engine::caller::Standing::Suspended;
    let caller = directory.caller(caller).filter(|caller| caller.standing != suspended).cloned();
    Ok(caller.map(|caller| Session { key, actor: Actor { caller, token: None } }))
}

/// A page to come back to: of this server, whatever was sent.
fn next(visit: &Visit) -> String {
    let next = visit.field("next");
    let own = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t']);
    if own { next.to_owned() } else { "/console/applications".into() }
}

/// Begins a session, always under a new key: one that somebody else chose is worth nothing.
pub fn begin(visit: &Visit, caller: CallerId) -> Seen {
    let engine = &visit.server.engine;
    let key = hex(&random::<32>());
    let hours = i64::from(visit.server.settings().platform.session_hours.clamp(1, 24 * 30));
    let now = engine.clock.now_ms();
    let platform = engine.platform();
    if let Some(old) = &visit.session {
        platform.end_session(&old.key)?;
    }
    platform.begin_session(&key, caller, now + hours * 3_600_000, now)?;
    let age = hours * 3600;
    Ok(Shown::WithCookie(next(visit), own_cookie(visit, NAME, &key, age, true)))
}

fn own_cookie(visit: &Visit, name: &str, value: &str, age: i64, hidden: bool) -> String {
    let secure = if visit.public_url.starts_with("https://") { "; Secure" } else { "" };
    let hidden = if hidden { "; HttpOnly" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={age}; SameSite=Lax{hidden}{secure}")
}

/// `POST /auth/login`: e-mail and password, or an account token.
pub fn log_in(visit: &Visit) -> Seen {
    let server = &visit.server;
    let now = server.engine.clock.now_ms();
    let login = visit.field("login").to_lowercase();
    // An address may be that of a whole office: ten times as many guesses.
    let by_login = [(format!("login {login}"), 1)];
    let by_peer = [(format!("address {}", visit.peer), 10)];
    let all = [by_login, by_peer].concat();
    if !server.guesses.take(&all, now) {
        let why = visit.says(
            "Too many wrong passwords: wait a quarter of an hour.",
            "密码错误次数过多，请十五分钟后再试。",
        );
        return pages::login(visit, Some(Refused::too_fast(why)));
    }
    let password = visit.raw("password");
    let wrong = || {
        let why = visit.says("E-mail or password is wrong.", "邮箱或密码不正确。");
        pages::login(visit, Some(Refused::not_authenticated(why)))
    };
    if login.is_empty() && password.starts_with("platform-v1-") {
        let vault_hash = server.engine.vault.token(password);
        let credential = server.engine.directory().token(&vault_hash, now);
        return match credential.filter(|credential| !credential.is_over(now)) {
            Some(credential) => {
                let caller = actor_of(&server.engine, &credential, visit.peer)?.caller.id;
                server.guesses.right(&all);
                begin(visit, caller)
            }
            None => wrong(),
        };
    }
    let person = server.engine.platform().person(&login)?;
    if !password::matches(password, person.as_ref().map(|person| person.password.as_str())) {
        return wrong();
    }
    let Some(person) = person else { return wrong() };
    let standing = server.engine.directory().caller(person.caller).map(|caller| caller.standing);
    if standing.is_none_or(|standing| standing == engine::caller::Standing::Suspended) {
        let why = visit.says("This account is suspended.", "该账号已被停用。");
        return pages::login(visit, Some(Refused::not_authenticated(why)));
    }
    server.guesses.right(&all);
    begin(visit, person.caller)
}

/// `POST /auth/register`
pub fn register(visit: &Visit) -> Seen {
    let server = &visit.server;
    let now = server.engine.clock.now_ms();
    let refuse = |why: &str| pages::register(visit, Some(Refused::invalid(why)));
    let login = visit.field("login").to_lowercase();
    let (local, domain) = login.split_once('@').unwrap_or_default();
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | ',' | ';');
    if local.is_empty() || !domain.contains('.') || login.len() > 254 || login.contains(odd) {
        return refuse(visit.says("That is not an e-mail address.", "这不是有效的邮箱地址。"));
    }
    let password = visit.raw("password");
    if let Some(flaw) = password::flaw(password, &login) {
        return refuse(flaw);
    }
    if visit.field("terms") != "yes" {
        return refuse(visit.says("Accept the terms first.", "请先同意服务条款。"));
    }
    if !server.guesses.take(&[(format!("register {}", visit.peer), 20)], now) {
        let why =
            visit.says("Too many accounts from your address: wait a while.", "注册过于频繁，请稍后再试。");
        return pages::register(visit, Some(Refused::too_fast(why)));
    }
    let code: String = visit.field("invitation").chars().filter(char::is_ascii_alphanumeric).collect();
    let code = code.to_ascii_uppercase();
    match server.registration() {
        Registration::Open => {}
        Registration::Closed => {
            return refuse(visit.says("Nobody can register here.", "本站未开放注册。"));
        }
        Registration::Invitation => {
            // Looked at first, used up when the rest is right.
            if !server.engine.platform().has_invitation(&code, now)? {
                return refuse(visit.says(
                    "This invitation is not valid: ask the operator for one.",
                    "邀请码无效，请联系管理员获取。",
                ));
            }
        }
    }
    let acting = server.engine.acting(crate::platform::by(None));
    let caller = match acting.register(visit.field("name"), &login, password::hashed(password)) {
        Ok(caller) => caller,
        Err(error) => return pages::register(visit, Some(error.into())),
    };
    if server.registration() == Registration::Invitation
        && !server.engine.platform().take_invitation(&code, now)?
    {
        // Somebody else was faster with the same code.
        acting.set_standing(visit.field("name"), engine::caller::Standing::Suspended)?;
        return refuse(visit.says("This invitation was used.", "邀请码已被使用。"));
    }
    begin(visit, caller)
}

/// `POST /auth/logout`
pub fn log_out(visit: &Visit) -> Seen {
    if let Some(session) = &visit.session {
        visit.server.engine.platform().end_session(&session.key)?;
    }
    Ok(Shown::WithCookie("/".into(), own_cookie(visit, NAME, "", 0, true)))
}

/// `POST /user/settings`: language and theme, for guests too.
pub fn settings(visit: &Visit) -> Seen {
    const YEAR_S: i64 = 31_536_000;
    let cookie = match (visit.field("lang"), visit.field("theme")) {
        (lang @ ("zh" | "en"), _) => own_cookie(visit, "lang", lang, YEAR_S, true),
        (_, theme @ ("light" | "dark" | "auto")) => own_cookie(visit, "theme", theme, YEAR_S, true),
        _ => return Err(Refused::invalid(json!({ "lang": "zh or en" }).to_string())),
    };
    Ok(Shown::WithCookie(next(visit), cookie))
}
