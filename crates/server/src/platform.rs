//! The management API under `/api/v1`: AceData's shapes, so that its SDK, CLI and MCP server work.
//!
//! One question is one function on a thread that may wait for the disk; nothing here is on the way of a
//! verification. A caller sees and changes what is its own, an operator everything.

pub mod catalogue;
mod keys;
mod money;
pub mod openapi;
pub mod password;
pub mod shapes;
mod time;

pub use time::{day_text, parse as parse_time};

pub mod usage;

use std::net::IpAddr;
use std::sync::Arc;

use engine::Engine;
use engine::caller::{Caller, CallerId, Credential, CredentialId, Proof, Standing};
use engine::operator::{Acting, By};
use engine::platform::PlatformError;
use engine::register::RegisterError;
use engine::store::StoreError;
use engine::verify::{new_request_id, uuid_text};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use wire::Incoming;
use wire::acedata;

use crate::front::{Core, Server};
use crate::http::{Received, Reply};

/// Everything a call needs, owned, so that it can leave the core's thread.
pub struct Ask {
    /// The server.
    pub server: Arc<Server>,
    /// Who asks; `None`: a guest.
    pub actor: Option<Actor>,
    /// Where people find this service.
    pub public_url: String,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Value,
}

/// Somebody who has shown a platform token, or has a session.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who it is.
    pub caller: Caller,
    /// With which account token; `None`: in a session.
    pub token: Option<CredentialId>,
}

/// Who does something, for the record.
pub fn by(actor: Option<&Actor>) -> By {
    match actor {
        Some(Actor { token: Some(token), .. }) => By::Credential(*token),
        Some(Actor { caller, .. }) => By::Person(caller.id),
        None => By::Person(CallerId(0)),
    }
}

impl Actor {
    /// Reaches other accounts.
    pub fn is_operator(&self) -> bool {
        self.caller.operator && self.caller.standing == Standing::Active
    }

    /// What it may do, by the names of the management API.
    pub fn permissions(&self) -> Vec<String> {
        let plain = PERMISSIONS.iter().map(|name| (*name).to_owned());
        let any = PERMISSIONS.iter().map(|name| format!("{name}:any"));
        if self.is_operator() { plain.chain(any).collect() } else { plain.collect() }
    }
}

const PERMISSIONS: [&str; 9] = [
    "applications:read",
    "applications:write",
    "credentials:read",
    "credentials:write",
    "usage:read",
    "orders:read",
    "orders:write",
    "orders:refund",
    "recharge-cards:redeem",
];

/// What a call is answered with.
pub enum Done {
    /// A JSON body.
    Json(StatusCode, Value),
    /// A file of comma-separated values, and its name.
    Csv(&'static str, String),
    /// Nothing is left to say.
    Gone,
}

/// Why a call is not answered, in the envelope of the management API.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Refused {
        Refused { status, code, detail: detail.into() }
    }

    /// A field is missing or wrong.
    pub fn invalid(detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// No token, or nobody's.
    pub fn not_authenticated(detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::UNAUTHORIZED, "not_authenticated", detail)
    }

    /// Somebody else's, or the operator's.
    pub fn denied() -> Refused {
        let detail = "You do not have permission to perform this action.";
        Refused::new(StatusCode::FORBIDDEN, "permission_denied", detail)
    }

    /// Nothing there.
    pub fn not_found(what: &str) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }

    /// It exists already.
    pub fn duplication(detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, "duplication", detail)
    }

    /// Not now.
    pub fn too_fast(detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
    }

    fn reply(&self, path: &str) -> Reply {
        let trace_id = uuid_text(&new_request_id()).replace('-', "");
        let mut body = json!({ "detail": self.detail, "code": self.code, "trace_id": trace_id });
        // The pages about usage call the same member `error`.
        if path.starts_with("/api/v1/usage/") {
            body["error"] = self.code.into();
        }
        let mut reply = json_reply(self.status, &body);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            reply.header("retry-after", 60);
        }
        reply
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        tracing::error!(%error, "a management call could not be carried out");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", "Internal server error.")
    }
}

impl From<RegisterError> for Refused {
    fn from(error: RegisterError) -> Refused {
        match error {
            RegisterError::Store(error) => error.into(),
            RegisterError::NoCaller(_) => Refused::not_found("account"),
            RegisterError::NoCredential(_) => Refused::not_found("credential"),
            RegisterError::Taken(_) => Refused::duplication(error.to_string()),
            error => Refused::invalid(error.to_string()),
        }
    }
}

impl From<PlatformError> for Refused {
    fn from(error: PlatformError) -> Refused {
        match error {
            PlatformError::Store(error) => error.into(),
            PlatformError::Register(error) => error.into(),
            PlatformError::Unknown(what) => Refused::not_found(what),
            PlatformError::Acquired | PlatformError::LoginTaken => Refused::duplication(error.to_string()),
            PlatformError::State { .. } => Refused::invalid(error.to_string()),
        }
    }
}

/// The result of a call.
pub type Answer = Result<Done, Refused>;

/// Answers a request under `/api/v1/`.
pub async fn answer(core: &Core, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let server = &core.server;
    let ask = match read(server, incoming, received) {
        Ok(ask) => ask,
        Err(refused) => return refused.reply(incoming.path),
    };
    match off_the_core(move || call(&ask)).await {
        Ok(Done::Json(status, body)) => json_reply(status, &body),
        Ok(Done::Csv(name, text)) => {
            let mut reply = Reply::new(StatusCode::OK, "text/csv; charset=utf-8", text);
            reply.header("content-disposition", format!("attachment; filename=\"{name}\""));
            reply
        }
        Ok(Done::Gone) => Reply::new(StatusCode::NO_CONTENT, "application/json", ""),
        Err(refused) => refused.reply(incoming.path),
    }
}

/// Runs what may wait for the disk, or for a slow hash, elsewhere.
pub async fn off_the_core<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(StoreError::Stopped.into()))
}

fn json_reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Reply::new(status, "application/json", body.to_string());
    reply.header("cache-control", "no-store");
    reply
}

fn read(server: &Arc<Server>, incoming: &Incoming<'_>, received: &Received) -> Result<Ask, Refused> {
    if crate::front::from_own_pages(server, incoming).is_err() {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "permission_denied",
            "This is not answered to pages of other sites.",
        ));
    }
    let actor = authenticate(server, incoming, received.peer)?;
    if received.body.is_err() {
        return Err(Refused::invalid("The body did not arrive completely."));
    }
    let body = match incoming.body.trim_ascii() {
        // A rotation is a POST of nothing that calls itself JSON.
        [] => json!({}),
        body => serde_json::from_slice(body)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| Refused::invalid("The body must be a JSON object."))?,
    };
    Ok(Ask {
        server: Arc::clone(server),
        actor,
        public_url: crate::front::acedata::public_url(server, incoming),
        method: incoming.method.clone(),
        path: incoming.path.to_owned(),
        query: form_urlencoded::parse(incoming.query.as_bytes()).into_owned().collect(),
        body,
    })
}

/// Whoever a platform token belongs to; nobody without one.
fn authenticate(server: &Server, incoming: &Incoming<'_>, peer: IpAddr) -> Result<Option<Actor>, Refused> {
    if incoming.header("authorization").is_none_or(|header| header.trim().is_empty()) {
        return Ok(None);
    }
    let unknown = |fault: acedata::Fault| Refused::not_authenticated(fault.message.into_owned());
    let bearer = acedata::presented(incoming).map_err(unknown)?;
    let credential = crate::front::acedata::known(server, bearer).map_err(unknown)?;
    Ok(Some(actor_of(&server.engine, &credential, peer)?))
}

/// The account a platform token speaks for.
pub fn actor_of(engine: &Engine, credential: &Credential, peer: IpAddr) -> Result<Actor, Refused> {
    if !matches!(credential.proof, Proof::Platform { .. }) {
        return Err(Refused::not_authenticated(
            "This is the API key of an application. The management API needs an account token, which begins \
             with platform-v1-.",
        ));
    }
    if !credential.admits(peer) {
        return Err(Refused::not_authenticated("The token may not be used from this address."));
    }
    let directory = engine.directory();
    let caller = directory.owner(credential).cloned();
    let caller = caller.ok_or_else(|| Refused::not_authenticated("The token's account is gone."))?;
    if caller.standing == Standing::Suspended {
        return Err(Refused::new(StatusCode::FORBIDDEN, "disabled", "The account is suspended."));
    }
    Ok(Actor { caller, token: Some(credential.id) })
}

/// One arm for each call.
pub fn call(ask: &Ask) -> Answer {
    if let Some(token) = ask.actor.as_ref().and_then(|actor| actor.token) {
        let engine = ask.engine();
        engine.platform().used(token, engine.clock.now_ms())?;
    }
    let path = ask.path.trim_start_matches("/api/v1/").trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let method = ask.method.as_str();
    match (method, parts.as_slice()) {
        ("GET", ["config"]) => catalogue::config(ask),
        ("GET", ["models" | "announcements"]) => Ok(list(0, Vec::new())),
        ("GET", ["search"]) => catalogue::search(ask),
        ("GET", ["services"]) => catalogue::services(ask),
        ("GET", ["services", id]) => catalogue::service(ask, id),
        ("GET", ["services", id, "apis"]) => catalogue::apis_of(ask, id),
        ("GET", ["apis"]) => catalogue::apis(ask),
        ("GET", ["apis", id]) => catalogue::api(ask, id),
        ("GET", ["apis", id, "usage"]) => usage::samples(ask, id),
        ("GET", ["documents"]) => catalogue::documents(ask),
        ("GET", ["documents", id]) => catalogue::document(ask, id),
        ("GET", ["documents", id, "openapi.json"]) => catalogue::openapi(ask, id),

        ("POST", ["platform-tokens"]) => keys::create_token(ask),
        ("GET", ["platform-tokens"]) => keys::tokens(ask),
        ("GET", ["platform-tokens", "me"]) => keys::me(ask),
        ("GET", ["platform-tokens", id]) => keys::token(ask, id),
        ("DELETE", ["platform-tokens", id]) => keys::delete(ask, id),

        ("POST", ["applications"]) => keys::acquire(ask),
        ("GET", ["applications"]) => keys::applications(ask),
        ("GET", ["applications", id]) => keys::application(ask, id),
        ("POST", ["applications", id, "update-disabled"]) => keys::set_disabled(ask, id),
        ("POST", ["applications", id, "sponsor"]) => money::sponsor(ask, id),

        ("POST", ["credentials"]) => keys::create(ask),
        ("GET", ["credentials"]) => keys::credentials(ask),
        ("GET", ["credentials", id]) => keys::credential(ask, id),
        ("PATCH" | "PUT", ["credentials", id]) => keys::change(ask, id),
        ("DELETE", ["credentials", id]) => keys::delete(ask, id),
        ("POST", ["credentials", id, "rotate"]) => keys::rotate(ask, id),

        ("GET", ["usage", "apis"]) => usage::rows(ask),
        ("GET", ["usage", "apis", "aggregate"]) => usage::aggregate(ask),
        ("GET", ["usage", "apis", "status-codes"]) => usage::status_codes(ask),
        ("GET", ["usage", "apis", "export"]) => usage::export(ask),
        ("GET", ["usage", "apis", id]) => usage::row(ask, id),

        ("GET", ["packages"]) => money::packages(ask),
        ("POST", ["packages"]) => money::add_package(ask),
        ("DELETE", ["packages", id]) => money::drop_package(ask, id),
        ("POST", ["orders"]) => money::order(ask),
        ("POST", ["orders", "admin", "create"]) => money::make_order(ask),
        ("GET", ["orders"]) => money::orders(ask),
        ("GET", ["orders", "summary"]) => money::summary(ask),
        ("GET", ["orders", "export"]) => money::export(ask),
        ("GET", ["orders", id]) => money::one(ask, id),
        ("GET", ["orders", id, "payment-options"]) => money::payment_options(ask, id),
        ("POST", ["orders", id, "pay"]) => money::pay(ask, id),
        ("POST", ["orders", id, "refresh"]) => money::one(ask, id),
        ("POST", ["orders", id, "finish"]) => money::finish(ask, id),
        ("POST", ["orders", id, "refund"]) => money::refund(ask, id),
        ("POST", ["orders", id, "update-price"]) => money::set_price(ask, id),
        ("POST", ["recharge-cards"]) => money::issue_vouchers(ask),
        ("GET", ["recharge-cards"]) => money::vouchers(ask),
        ("POST", ["recharge-cards", "redeem"]) => money::redeem(ask),
        ("POST", ["invitations"]) => keys::invite(ask),
        (_, [first, ..]) if ROOMS.contains(first) => Err(Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("Method \"{method}\" not allowed, or there is no such path."),
        )),
        _ => Err(Refused::not_found("path")),
    }
}

/// What paths begin with.
const ROOMS: [&str; 16] = [
    "config",
    "models",
    "announcements",
    "search",
    "services",
    "apis",
    "documents",
    "platform-tokens",
    "applications",
    "credentials",
    "usage",
    "packages",
    "orders",
    "recharge-cards",
    "invitations",
    "files",
];

fn list(count: usize, items: Vec<Value>) -> Done {
    Done::Json(StatusCode::OK, json!({ "count": count, "items": items }))
}

fn ok(body: Value) -> Answer {
    Ok(Done::Json(StatusCode::OK, body))
}

fn created(body: Value) -> Answer {
    Ok(Done::Json(StatusCode::CREATED, body))
}

impl Ask {
    /// A call that comes from a page of the console: `what` is its method and path.
    pub fn made(
        server: &Arc<Server>,
        actor: Option<Actor>,
        public_url: &str,
        what: (&str, &str),
        query: Vec<(String, String)>,
        body: Value,
    ) -> Ask {
        let method = Method::from_bytes(what.0.as_bytes()).unwrap_or_default();
        let path = format!("/api/v1/{}", what.1);
        Ask {
            server: Arc::clone(server),
            actor,
            public_url: public_url.to_owned(),
            method,
            path,
            query,
            body,
        }
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.server.engine
    }

    /// The engine in the hands of who asks: what is changed through it is recorded under that name.
    fn acting(&self) -> Acting<'_> {
        self.engine().acting(by(self.actor.as_ref()))
    }

    fn actor(&self) -> Result<&Actor, Refused> {
        self.actor.as_ref().ok_or_else(|| {
            Refused::not_authenticated(
                "Authentication credentials were not provided. Send an account token: \
                 authorization: Bearer platform-v1-…",
            )
        })
    }

    fn operator(&self) -> Result<&Actor, Refused> {
        let actor = self.actor()?;
        if actor.is_operator() { Ok(actor) } else { Err(Refused::denied()) }
    }

    /// First value of a query parameter.
    fn first(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(known, value)| known == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    /// All values of a query parameter, repeated or with commas.
    fn all(&self, name: &str) -> Vec<&str> {
        let found = self.query.iter().filter(|(known, _)| known == name);
        found.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
    }

    /// `limit` and `offset`: nonsense is the default, too much is the most.
    fn page(&self) -> (u32, u32) {
        let number = |name: &str| self.first(name).and_then(|text| text.parse::<u32>().ok());
        (number("limit").unwrap_or(10).clamp(1, 100), number("offset").unwrap_or(0))
    }

    /// Whose rows are asked for; `None`: everybody's. Own ones without `user_id`, because the Skills
    /// script sends none.
    fn whose(&self) -> Result<Option<CallerId>, Refused> {
        let actor = self.actor()?;
        let own = actor.caller.id;
        let asked = match self.first("user_id") {
            None | Some("me") => Some(own),
            Some("all") => None,
            Some(id) => Some(CallerId(shapes::Kind::User.number(id)?)),
        };
        if asked == Some(own) || actor.is_operator() { Ok(asked) } else { Err(Refused::denied()) }
    }

    /// Refuses who neither owns an object nor is an operator.
    fn reaches(&self, owner: CallerId) -> Result<(), Refused> {
        let actor = self.actor()?;
        if actor.caller.id == owner || actor.is_operator() { Ok(()) } else { Err(Refused::denied()) }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refused> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused::invalid(format!("{name} must be a string."))),
        }
    }

    fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name)?.ok_or_else(|| Refused::invalid(format!("{name} is required.")))
    }

    /// A page of what is in memory.
    fn paged(&self, items: Vec<Value>) -> Done {
        let (limit, offset) = self.page();
        let count = items.len();
        list(count, items.into_iter().skip(offset as usize).take(limit as usize).collect())
    }
}
