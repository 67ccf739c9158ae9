//! What objects look like on the management API.

use engine::Engine;
use engine::action::Action;
use engine::caller::{Application, ApplicationId, CallerId, Credential, CredentialId, Proof, Standing};
use engine::ledger::Credits;
use engine::platform::{Label, Order, Package};
use engine::store::{RefusalRow, StoreError, UsageRow};
use serde_json::{Value, json};

use super::catalogue;
use super::time::iso;
use super::{Ask, Refused};

/// What a UUID is of. The API speaks UUIDs, the books count: the number is in the last twelve digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A caller.
    User = 1,
    /// An application.
    Application = 2,
    /// A credential of any kind, account tokens too.
    Credential = 3,
    /// The one service.
    Service = 4,
    /// An action.
    Api = 5,
    /// The page of an action.
    Document = 6,
}

impl Kind {
    /// The UUID of a number.
    pub fn id(self, number: u32) -> String {
        format!("c4e00000-{:04x}-4000-8000-{number:012x}", self as u16)
    }

    /// The number of a UUID.
    ///
    /// # Errors
    /// `invalid` when it is no UUID, `not_found` when it is one of something else.
    pub fn number(self, id: &str) -> Result<u32, Refused> {
        let id = id.to_ascii_lowercase();
        if !is_uuid(&id) {
            return Err(Refused::invalid(format!("“{}” is not a valid UUID.", printable(&id))));
        }
        let number = id.strip_prefix(&self.id(0)[..24]).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| Refused::not_found("object"))
    }
}

/// Whether a text has the form of a UUID.
pub fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| if dash(at) { b == b'-' } else { b.is_ascii_hexdigit() })
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// Credits as a JSON number.
pub fn amount(credits: Credits) -> Value {
    // Exact to the millionth up to nine billion credits, more than an order may be about.
    json!(credits.0 as f64 / 1e6)
}

/// Reads a JSON number, or text, of credits.
pub fn credits(value: &Value, name: &str) -> Result<Credits, Refused> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(Refused::invalid(format!("{name} must be a number."))),
    };
    let text = text.strip_suffix(".0").unwrap_or(&text);
    text.parse().map_err(|wrong| Refused::invalid(format!("{name}: {wrong}")))
}

/// An application.
pub fn application(ask: &Ask, application: &Application, standing: Standing) -> Result<Value, StoreError> {
    let engine = ask.engine();
    let id = application.id;
    let remaining = engine.balance(application);
    let acquired = engine.platform().acquired_at(id)?.unwrap_or_default();
    let paid = engine.platform().has_finished_order(application.caller)?;
    Ok(json!({
        "id": Kind::Application.id(id.0),
        "name": application.name,
        "service_id": catalogue::service_id(),
        "user_id": Kind::User.id(application.caller.0),
        "type": "Usage",
        "scope": "Individual",
        "remaining_amount": remaining.map(amount),
        "used_amount": amount(engine.charged(id)),
        "paid": paid,
        "disabled": standing != Standing::Active,
        "allow_consume_global": false,
        "expired_at": null,
        "tags": [],
        "metadata": { "price": amount(application.price.unwrap_or(engine.policy().price)) },
        "client_ip": null,
        "client_fingerprint": null,
        "role": "owner",
        "created_at": iso(acquired),
        "updated_at": iso(acquired),
        "service": catalogue::service_summary(),
    }))
}

/// A credential. `secret` only when it was made this instant: nobody sees it again.
pub fn credential(
    engine: &Engine,
    credential: &Credential,
    owner: CallerId,
    secret: Option<&str>,
) -> Result<Value, StoreError> {
    let label = engine.platform().label(credential.id)?;
    let Label { name, created_at_ms, updated_at_ms, used_at_ms } = label;
    let (kind, shown, secret_id) = match &credential.proof {
        Proof::Bearer { last4, .. } => ("Token", format!("••••{last4}"), None),
        Proof::Platform { last4, .. } => ("Platform", format!("platform-v1-••••{last4}"), None),
        Proof::Signature { secret_id, .. } => ("Signature", "••••".to_owned(), Some(secret_id.clone())),
    };
    let apis: Vec<_> = credential.actions.iter().map(|action| catalogue::api_id(*action)).collect();
    Ok(json!({
        "id": Kind::Credential.id(credential.id.0),
        "application_id": Kind::Application.id(credential.application.0),
        "user_id": Kind::User.id(owner.0),
        "creator_id": Kind::User.id(owner.0),
        "type": kind,
        "name": name,
        "token": secret.unwrap_or(&shown),
        "secret_id": secret_id,
        "limited_amount": credential.limit.map(amount),
        "used_amount": amount(engine.spent(credential.id)),
        "expired_at": credential.expires_at_ms.map(iso),
        "used_at": used_at_ms.map(iso),
        "allowed_api_ids": apis,
        "host": credential.addresses.first().map(ToString::to_string),
        "addresses": credential.addresses,
        "granted": false,
        "granted_to_user_id": null,
        "tags": [],
        "metadata": {},
        "created_at": iso(created_at_ms),
        "updated_at": iso(updated_at_ms),
    }))
}

/// An account token.
pub fn token(
    engine: &Engine,
    credential: &Credential,
    owner: CallerId,
    secret: Option<&str>,
) -> Result<Value, StoreError> {
    let label = engine.platform().label(credential.id)?;
    let Proof::Platform { last4, .. } = &credential.proof else { return Ok(Value::Null) };
    let shown = format!("platform-v1-••••{last4}");
    Ok(json!({
        "id": Kind::Credential.id(credential.id.0),
        "name": label.name,
        "token": secret.unwrap_or(&shown),
        "expiration": credential.expires_at_ms.map(|at| at.div_euclid(1000)),
        "user_id": Kind::User.id(owner.0),
        "used_at": label.used_at_ms.map(iso),
        "created_at": iso(label.created_at_ms),
        "updated_at": iso(label.updated_at_ms),
    }))
}

/// An answered question.
pub fn usage(engine: &Engine, row: &UsageRow) -> Value {
    let directory = engine.directory();
    let application = directory.application(ApplicationId(row.application)).map(|(found, _)| found);
    let user = application.map(|application| Kind::User.id(application.caller.0));
    let action = row.action.parse::<Action>().ok();
    let used: Credits = row.charged.parse().unwrap_or_default();
    let left: Option<Credits> = row.balance.as_deref().and_then(|text| text.parse().ok());
    let name = engine.platform().label(CredentialId(row.credential)).map(|label| label.name);
    let elapsed = f64::from(row.elapsed_us) / 1e6;
    let (id, at) = (&row.request_id, iso(row.at_ms));
    json!({
        "id": id,
        "trace_id": id,
        "status_code": 200,
        "user_id": user,
        "actor_user_id": user,
        "application_id": Kind::Application.id(row.application),
        "api_id": action.map(catalogue::api_id),
        "credential_id": Kind::Credential.id(row.credential),
        "used_amount": amount(used),
        "original_amount": amount(used),
        "deducted_amount": amount(used),
        "remaining_amount": left.map(amount),
        "started_at": iso(row.at_ms - i64::from(row.elapsed_us / 1000)),
        "finished_at": at,
        "elapsed": elapsed,
        "created_at": at,
        "updated_at": at,
        "metadata": {
            "wire": row.wire,
            "action": row.action,
            "outcome": row.outcome,
            "decision_row": row.row,
            "charged": used > Credits::ZERO,
            "masked": row.masks,
        },
        "api": { "title": action.map(|action| catalogue::page(action).title_en) },
        "service": { "id": catalogue::service_id(), "title": catalogue::SERVICE_TITLE },
        "credential": {
            "id": Kind::Credential.id(row.credential),
            "name": name.unwrap_or_default(),
        },
    })
}

/// A refused request, in the same form.
pub fn refusal(engine: &Engine, row: &RefusalRow) -> Value {
    let answered = UsageRow {
        request_id: row.request_id.clone(),
        at_ms: row.at_ms,
        application: row.application,
        credential: row.credential,
        wire: row.wire.clone(),
        action: row.action.clone(),
        outcome: String::new(),
        row: 0,
        charged: "0".into(),
        balance: None,
        elapsed_us: row.elapsed_us,
        masks: None,
        answers: 1,
    };
    let mut shaped = usage(engine, &answered);
    shaped["status_code"] = row.status.into();
    shaped["metadata"] = json!({
        "wire": row.wire,
        "action": row.action,
        "error": row.code,
        "charged": false,
    });
    shaped
}

/// A package.
pub fn package(package: &Package) -> Value {
    json!({
        "id": package.id,
        "title": package.title,
        "type": "Usage",
        "price": package.price_cents as f64 / 100.0,
        "amount": amount(package.credits),
        "duration": null,
        "private": false,
    })
}

/// An order; whoever has only its id sees no more than what is to be paid.
pub fn order(ask: &Ask, order: &Order, whole: bool) -> Value {
    let pay_url = matches!(order.state, engine::platform::OrderState::Pending)
        .then(|| format!("{}/console/orders/{}", ask.public_url, order.id));
    let mut shown = json!({
        "id": order.id,
        "description": order.description,
        "price": order.price_cents as f64 / 100.0,
        "state": order.state.name(),
        "pay_way": order.pay_way.map(|way| way.name()),
        "pay_url": pay_url,
        "expired_at": null,
        "created_at": iso(order.created_at_ms),
    });
    if whole {
        let application = Kind::Application.id(order.caller.0);
        let more = json!({
            "user_id": Kind::User.id(order.caller.0),
            "application_id": application,
            "application_ids": [application],
            "package_id": order.package,
            "package_ids": order.package.iter().collect::<Vec<_>>(),
            "amount": amount(order.credits),
            "discount": 0,
            "remaining_amount": null,
            "pay_id": null,
            "finished_at": order.finished_at_ms.map(iso),
            "invoice": null,
            "metadata": { "currency": ask.server.settings().platform.currency },
            "updated_at": iso(order.updated_at_ms),
        });
        if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
            shown.extend(more);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_uuids_and_the_other_way_round() {
        let id = Kind::Credential.id(42);
        assert_eq!(id, "c4e00000-0003-4000-8000-00000000002a");
        assert_eq!(Kind::Credential.number(&id).unwrap(), 42);
        assert_eq!(Kind::Application.number(&id).unwrap_err().code, "not_found");
        assert_eq!(Kind::Application.number("42").unwrap_err().code, "invalid");
        assert_eq!(Kind::User.number("c4e00000-0001-4000-8000-ffffffffffff").unwrap_err().code, "not_found");
        assert!(!is_uuid("c4e00000-0001-4000-8000-00000000000g") && !is_uuid("é"));
    }
}
