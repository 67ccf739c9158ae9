//! One's own account: another password while logged in, or with a code of the operator's.

use askama::Template;
use engine::operator::By;
use http::StatusCode;

use super::look::{Frame, Notice};
use super::pages::rendered;
use super::{Seen, Visit, session};
use crate::platform::{Refused, password};

#[derive(Template)]
#[template(path = "account.html")]
struct Account {
    f: Frame,
    name: String,
    login: Option<String>,
}

/// `GET /console/account`, and again with what was wrong.
pub fn page(visit: &Visit, notice: Option<Notice>, status: StatusCode) -> Seen {
    let actor = visit.actor().ok_or_else(|| Refused::not_authenticated("Log in first."))?;
    let person = visit.server.engine.platform().person_of(actor.caller.id)?;
    let page = Account {
        f: Frame::of(visit, visit.says("Account", "账号"), notice),
        name: actor.caller.name.clone(),
        login: person.map(|person| person.login),
    };
    rendered(status, &page)
}

/// `POST /console/account/password`: the one before must be known, so that a session that was left open
/// does not give the account away. Every other session ends, and this one begins again.
pub fn change_password(visit: &Visit) -> Seen {
    let actor = visit.actor().ok_or_else(|| Refused::not_authenticated("Log in first."))?;
    let engine = &visit.server.engine;
    let refuse = |why: &str| page(visit, Some(Notice::bad(why)), StatusCode::BAD_REQUEST);
    let person = engine.platform().person_of(actor.caller.id)?;
    let person = person.ok_or_else(|| Refused::not_found("password of this account"))?;
    let guess = [(format!("login {}", person.login), 1)];
    if !visit.server.guesses.take(&guess, engine.clock.now_ms()) {
        let why = visit.says(
            "Too many wrong passwords: wait a quarter of an hour.",
            "密码错误次数过多，请十五分钟后再试。",
        );
        return page(visit, Some(Notice::bad(why)), StatusCode::TOO_MANY_REQUESTS);
    }
    if !password::matches(visit.raw("old"), Some(&person.password)) {
        return refuse(visit.says("The password until now is wrong.", "当前密码不正确。"));
    }
    visit.server.guesses.right(&guess);
    if let Some(flaw) = password::flaw(visit.raw("new"), &person.login) {
        return refuse(flaw);
    }
    let acting = engine.acting(crate::platform::by(Some(actor)));
    acting.set_password(person.caller, &password::hashed(visit.raw("new")))?;
    session::begin(visit, person.caller)
}

#[derive(Template)]
#[template(path = "reset.html")]
struct Reset {
    f: Frame,
    code: String,
}

/// `GET /auth/reset`, and again with what was wrong.
pub fn reset_page(visit: &Visit, refused: Option<Refused>) -> Seen {
    let status = refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let code = [visit.field("code"), visit.parameter("code")].concat();
    let f = Frame::of(
        visit,
        visit.says("Choose another password", "重设密码"),
        refused.map(|refused| Notice::bad(refused.detail)),
    );
    rendered(status, &Reset { f, code })
}

/// `POST /auth/reset`
pub fn reset(visit: &Visit) -> Seen {
    let server = &visit.server;
    let now = server.engine.clock.now_ms();
    let guess = [(format!("reset {}", visit.peer), 2)];
    if !server.guesses.take(&guess, now) {
        let why = visit.says(
            "Too many codes were tried: wait a quarter of an hour.",
            "尝试次数过多，请十五分钟后再试。",
        );
        return reset_page(visit, Some(Refused::too_fast(why)));
    }
    let code: String = visit.field("code").chars().filter(char::is_ascii_alphanumeric).collect();
    let code = code.to_ascii_uppercase();
    let unknown = || {
        let why = visit.says(
            "This code is not valid, or was used: ask the operator for another one.",
            "重设码无效或已使用，请联系管理员。",
        );
        reset_page(visit, Some(Refused::invalid(why)))
    };
    let Some(caller) = server.engine.platform().reset_of(&code, now)? else { return unknown() };
    server.guesses.right(&guess);
    let person = server.engine.platform().person_of(caller)?;
    let login = person.map(|person| person.login).unwrap_or_default();
    if let Some(flaw) = password::flaw(visit.raw("password"), &login) {
        return reset_page(visit, Some(Refused::invalid(flaw)));
    }
    let acting = server.engine.acting(By::Person(caller));
    match acting.reset_password(&code, &password::hashed(visit.raw("password"))) {
        Ok(_) => {}
        Err(engine::platform::PlatformError::Unknown(_)) => return unknown(),
        Err(error) => return Err(error.into()),
    }
    // Whoever could not log in because others guessed can now.
    server.guesses.right(&[(format!("login {login}"), 1)]);
    session::begin(visit, caller)
}
