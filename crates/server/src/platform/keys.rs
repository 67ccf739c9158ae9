//! Account tokens, applications, credentials: who may ask, with what, how much.

use std::sync::Arc;

use engine::action::Action;
use engine::caller::{
    AddressRange, Application, ApplicationId, CallerId, Credential, CredentialId, Proof, Standing,
};
use engine::clock::Millis;
use engine::register::{CredentialTerms, Kind as CredentialKind, Wish};
use engine::store::StoreError;
use serde_json::{Value, json};

use super::shapes::{self, Kind};
use super::time::{iso, parse};
use super::{Answer, Ask, Done, Refused, catalogue, created, list, ok};

/// A token or credential, and whose it is; whoever may not reach it is refused.
fn reached(ask: &Ask, id: &str) -> Result<(Arc<Credential>, CallerId), Refused> {
    ask.actor()?;
    let number = Kind::Credential.number(id)?;
    let directory = ask.engine().directory();
    let found = directory.credential(CredentialId(number)).cloned();
    let credential = found.ok_or_else(|| Refused::not_found("credential"))?;
    let owner = directory.owner(&credential).map(|caller| caller.id);
    let owner = owner.ok_or_else(|| Refused::not_found("credential"))?;
    ask.reaches(owner)?;
    Ok((credential, owner))
}

fn is_token(credential: &Credential) -> bool {
    matches!(credential.proof, Proof::Platform { .. })
}

/// `GET /platform-tokens/me/`
pub fn me(ask: &Ask) -> Answer {
    let actor = ask.actor()?;
    let person = ask.engine().platform().person_of(actor.caller.id)?;
    ok(json!({
        "id": Kind::User.id(actor.caller.id.0),
        "user_id": Kind::User.id(actor.caller.id.0),
        "username": actor.caller.name,
        "email": person.map(|person| person.login),
        "is_superuser": actor.is_operator(),
        "permissions": actor.permissions(),
    }))
}

/// `POST /platform-tokens/`
pub fn create_token(ask: &Ask) -> Answer {
    let caller = ask.actor()?.caller.clone();
    let expires_at_ms = match ask.body.get("expiration") {
        None | Some(Value::Null) => None,
        Some(seconds) => Some(
            seconds
                .as_i64()
                .and_then(|seconds| seconds.checked_mul(1000))
                .ok_or_else(|| Refused::invalid("expiration must be Unix seconds."))?,
        ),
    };
    let name = label(ask.text("name")?.unwrap_or_default())?;
    let (credential, secret) =
        issue(ask, &caller.name, CredentialKind::Platform, Wish { expires_at_ms, ..Wish::default() }, &name)?;
    created(shapes::token(ask.engine(), &credential, caller.id, Some(&secret))?)
}

/// `GET /platform-tokens/`
pub fn tokens(ask: &Ask) -> Answer {
    listed(ask, is_token, |credential, owner| shapes::token(ask.engine(), credential, owner, None))
}

/// A page of the credentials that are wanted; only what is on the page is read from the disk.
fn listed(
    ask: &Ask,
    is_wanted: impl Fn(&Credential) -> bool,
    shape: impl Fn(&Credential, CallerId) -> Result<Value, StoreError>,
) -> Answer {
    let whose = ask.whose()?;
    let directory = ask.engine().directory();
    let owner = |credential: &Credential| directory.owner(credential).map(|caller| caller.id);
    let is_reached = |credential: &&Arc<Credential>| {
        owner(credential).is_some_and(|owner| whose.is_none_or(|whose| whose == owner))
    };
    // The newest first, as the original orders them.
    let found: Vec<_> =
        directory.credentials().rev().filter(is_reached).filter(|credential| is_wanted(credential)).collect();
    let (limit, offset) = ask.page();
    let page = found.iter().skip(offset as usize).take(limit as usize);
    let shaped = page.map(|credential| shape(credential, owner(credential).unwrap_or(CallerId(0))));
    Ok(list(found.len(), shaped.collect::<Result<_, _>>()?))
}

/// `GET /platform-tokens/{id}`
pub fn token(ask: &Ask, id: &str) -> Answer {
    let (credential, owner) = reached(ask, id)?;
    if !is_token(&credential) {
        return Err(Refused::not_found("account token"));
    }
    ok(shapes::token(ask.engine(), &credential, owner, None)?)
}

/// `POST /applications/`: *Acquire*.
pub fn acquire(ask: &Ask) -> Answer {
    let caller = ask.actor()?.caller.id;
    catalogue::check_service(ask.required("service_id")?)?;
    for (name, only) in [("type", "Usage"), ("scope", "Individual")] {
        if ask.text(name)?.is_some_and(|value| value != only) {
            return Err(Refused::invalid(format!("{name} can only be {only} here.")));
        }
    }
    let free = ask.server.settings().free_quota().unwrap_or_default();
    let application = ask.acting().acquire(caller, free)?;
    let (application, standing) = found(ask, application)?;
    created(shapes::application(ask, &application, standing)?)
}

fn found(ask: &Ask, id: ApplicationId) -> Result<(Arc<Application>, Standing), Refused> {
    let found = ask.engine().directory().application(id);
    found
        .filter(|(application, _)| !application.actions.is_empty())
        .ok_or_else(|| Refused::not_found("application"))
}

/// An application that the actor may reach.
pub(super) fn reached_application(ask: &Ask, id: &str) -> Result<(Arc<Application>, Standing), Refused> {
    ask.actor()?;
    let (application, standing) = found(ask, ApplicationId(Kind::Application.number(id)?))?;
    ask.reaches(application.caller)?;
    Ok((application, standing))
}

/// `GET /applications/`
pub fn applications(ask: &Ask) -> Answer {
    let whose = ask.whose()?;
    if ask.first("service_id").is_some_and(|id| catalogue::check_service(id).is_err()) {
        return Ok(list(0, Vec::new()));
    }
    let directory = ask.engine().directory();
    let is_wanted = |application: &&Arc<Application>| {
        whose.is_none_or(|whose| whose == application.caller) && !application.actions.is_empty()
    };
    let mut all: Vec<_> = directory.applications().filter(is_wanted).collect();
    all.sort_by_key(|application| application.id);
    let (limit, offset) = ask.page();
    let page = all.iter().skip(offset as usize).take(limit as usize);
    let shaped = page.filter_map(|application| {
        let (application, standing) = directory.application(application.id)?;
        Some(with_credentials(ask, &application, standing))
    });
    Ok(list(all.len(), shaped.collect::<Result<_, _>>()?))
}

fn with_credentials(ask: &Ask, application: &Application, standing: Standing) -> Result<Value, Refused> {
    let mut shaped = shapes::application(ask, application, standing)?;
    let directory = ask.engine().directory();
    let is_own =
        |credential: &&Arc<Credential>| credential.application == application.id && !is_token(credential);
    let own = directory.credentials().filter(is_own);
    let credentials: Result<Vec<_>, _> = own
        .map(|credential| shapes::credential(ask.engine(), credential, application.caller, None))
        .collect();
    shaped["credentials"] = credentials?.into();
    Ok(shaped)
}

/// `GET /applications/{id}`
pub fn application(ask: &Ask, id: &str) -> Answer {
    let (application, standing) = reached_application(ask, id)?;
    let mut shaped = with_credentials(ask, &application, standing)?;
    let packages = ask.engine().platform().packages()?;
    shaped["service"]["packages"] = packages.iter().map(shapes::package).collect();
    ok(shaped)
}

/// `POST /applications/{id}/update-disabled/`, for operators.
pub fn set_disabled(ask: &Ask, id: &str) -> Answer {
    ask.operator()?;
    let (application, _) = reached_application(ask, id)?;
    let disabled = ask.body.get("disabled").and_then(Value::as_bool);
    let disabled = disabled.ok_or_else(|| Refused::invalid("disabled must be true or false."))?;
    let standing = if disabled { Standing::Suspended } else { Standing::Active };
    ask.acting().set_standing(&application.name, standing)?;
    ok(shapes::application(ask, &application, standing)?)
}

/// `POST /credentials/`
pub fn create(ask: &Ask) -> Answer {
    let (application, _) = reached_application(ask, ask.required("application_id")?)?;
    let kind = match ask.text("type")? {
        None | Some("Token") => CredentialKind::Bearer,
        Some("Signature") => CredentialKind::Signature,
        Some(_) => return Err(Refused::invalid("type can be Token or Signature.")),
    };
    let name = label(ask.text("name")?.unwrap_or_default())?;
    let terms = terms(ask)?;
    let wish = Wish {
        expires_at_ms: terms.expires_at_ms.flatten(),
        limit: terms.limit.flatten(),
        addresses: terms.addresses.unwrap_or_default(),
        actions: terms.actions.unwrap_or_default(),
        ..Wish::default()
    };
    let (credential, secret) = issue(ask, &application.name, kind, wish, &name)?;
    created(shapes::credential(ask.engine(), &credential, application.caller, Some(&secret))?)
}

/// Most credentials of one account: each is kept in memory.
const CREDENTIALS_MAX: usize = 200;

fn issue(
    ask: &Ask,
    caller: &str,
    kind: CredentialKind,
    wish: Wish,
    name: &str,
) -> Result<(Arc<Credential>, String), Refused> {
    let engine = ask.engine();
    if engine.list_credentials(Some(caller))?.len() >= CREDENTIALS_MAX {
        return Err(Refused::invalid(format!("An account has at most {CREDENTIALS_MAX} keys: delete some.")));
    }
    let issued = ask.acting().issue(caller, kind, wish)?;
    let credential = numbered(ask, issued.credential)?;
    engine.platform().set_label(credential.id, Some(name), engine.clock.now_ms())?;
    Ok((credential, issued.secret))
}

fn numbered(ask: &Ask, number: u32) -> Result<Arc<Credential>, Refused> {
    let directory = ask.engine().directory();
    directory.credential(CredentialId(number)).cloned().ok_or_else(|| Refused::not_found("credential"))
}

/// A name of somebody's choice.
fn label(text: &str) -> Result<String, Refused> {
    if text.chars().count() > 64 || text.chars().any(char::is_control) {
        return Err(Refused::invalid("name has at most 64 characters, in one line."));
    }
    Ok(text.trim().to_owned())
}

fn terms(ask: &Ask) -> Result<CredentialTerms, Refused> {
    if ask.body.get("for_user_id").is_some_and(|value| !value.is_null()) {
        return Err(Refused::invalid("for_user_id: keys are not delegated here."));
    }
    let limit = match ask.body.get("limited_amount") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => Some(Some(shapes::credits(value, "limited_amount")?)),
    };
    let actions = match ask.body.get("allowed_api_ids") {
        None => None,
        Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(ids)) => {
            let known = |id: &Value| id.as_str().and_then(catalogue::action_of_id);
            let actions: Option<Vec<Action>> = ids.iter().map(known).collect();
            Some(actions.ok_or_else(|| Refused::invalid("allowed_api_ids has an id that is no API's."))?)
        }
        Some(_) => return Err(Refused::invalid("allowed_api_ids must be an array.")),
    };
    Ok(CredentialTerms { expires_at_ms: expiry(ask)?, limit, addresses: addresses(ask)?, actions })
}

fn expiry(ask: &Ask) -> Result<Option<Option<Millis>>, Refused> {
    match ask.body.get("expired_at") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => {
            let at = value.as_str().and_then(parse).map(|(at, _)| at);
            let at = at
                .ok_or_else(|| Refused::invalid("expired_at must be a time such as 2027-01-31T00:00:00Z."))?;
            Ok(Some(Some(at)))
        }
    }
}

/// `host` as in the original, one address or range; `addresses` is ours, several.
fn addresses(ask: &Ask) -> Result<Option<Vec<AddressRange>>, Refused> {
    let texts: Vec<&str> = match (ask.body.get("addresses"), ask.body.get("host")) {
        (None, None) => return Ok(None),
        (None | Some(Value::Null), Some(Value::Null) | None) => return Ok(Some(Vec::new())),
        (None, Some(Value::String(host))) if host.is_empty() => return Ok(Some(Vec::new())),
        (None, Some(Value::String(host))) => vec![host],
        (Some(Value::Array(many)), _) => many.iter().map(|item| item.as_str().unwrap_or_default()).collect(),
        _ => return Err(Refused::invalid("addresses must be an array of strings, host a string.")),
    };
    let ranges: Result<Vec<AddressRange>, String> = texts.into_iter().map(str::parse).collect();
    ranges.map(Some).map_err(Refused::invalid)
}

/// `GET /credentials/`
pub fn credentials(ask: &Ask) -> Answer {
    let application = ask.first("application_id").map(|id| Kind::Application.number(id)).transpose()?;
    let is_named = |credential: &Credential| {
        ask.first("name").is_none_or(|name| {
            ask.engine().platform().label(credential.id).is_ok_and(|label| label.name == name)
        })
    };
    let is_wanted = |credential: &Credential| {
        !is_token(credential)
            && application.is_none_or(|wanted| credential.application.0 == wanted)
            && ask.first("granted") != Some("true")
            && is_named(credential)
    };
    listed(ask, is_wanted, |credential, owner| shapes::credential(ask.engine(), credential, owner, None))
}

/// `GET /credentials/{id}`
pub fn credential(ask: &Ask, id: &str) -> Answer {
    let (credential, owner) = reached(ask, id)?;
    ok(shapes::credential(ask.engine(), &credential, owner, None)?)
}

/// `PATCH /credentials/{id}`
pub fn change(ask: &Ask, id: &str) -> Answer {
    let (credential, owner) = reached(ask, id)?;
    let name = ask.text("name")?.map(label).transpose()?;
    let engine = ask.engine();
    ask.acting().set_credential(credential.id.0, terms(ask)?)?;
    engine.platform().set_label(credential.id, name.as_deref(), engine.clock.now_ms())?;
    ok(shapes::credential(engine, &*numbered(ask, credential.id.0)?, owner, None)?)
}

/// `POST /credentials/{id}/rotate/`: the old secret is dead at once.
pub fn rotate(ask: &Ask, id: &str) -> Answer {
    let (credential, owner) = reached(ask, id)?;
    let engine = ask.engine();
    let issued = ask.acting().rotate(credential.id.0, 0)?;
    engine.platform().set_label(credential.id, None, engine.clock.now_ms())?;
    ok(shapes::credential(engine, &*numbered(ask, credential.id.0)?, owner, Some(&issued.secret))?)
}

/// `DELETE` of a credential or an account token; one that is gone already is deleted too, because the
/// TypeScript SDK sends a DELETE again whose answer has no body.
pub fn delete(ask: &Ask, id: &str) -> Answer {
    ask.actor()?;
    match reached(ask, id) {
        Ok((credential, _)) => ask.acting().revoke(credential.id.0)?,
        Err(refused) if refused.code == "not_found" => {
            let ever = Kind::Credential.number(id)? < ask.engine().directory().next_credential().0;
            if !ever {
                return Err(refused);
            }
        }
        Err(refused) => return Err(refused),
    }
    Ok(Done::Gone)
}

/// `POST /invitations/`, for operators: a code that lets somebody register.
pub fn invite(ask: &Ask) -> Answer {
    ask.operator()?;
    let days = ask.body.get("days").and_then(Value::as_i64).unwrap_or(14).clamp(1, 365);
    let (code, until) = ask.acting().invite(days as u32)?;
    let url = format!("{}/auth/register?invitation={code}", ask.public_url);
    created(json!({ "code": code, "url": url, "expired_at": iso(until) }))
}
