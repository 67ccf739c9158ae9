//! *Try*: a real question in the name of one of the caller's own keys, through the same front as everybody's,
//! and what came back. The key itself never is in the page.

use std::sync::Arc;

use engine::caller::{Credential, CredentialId, Proof};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use wire::Incoming;
use wire::tencent::signature::JsonPost;

use super::Visit;
use crate::front::Core;
use crate::http::{Received, Reply};
use crate::platform::catalogue::{self, Page};
use crate::platform::shapes::Kind;

/// Answers `POST /console/try`: a key, an action and the members of the question.
pub async fn answer(core: &Core, visit: Visit, incoming: &Incoming<'_>, received: &Received) -> Reply {
    let refuse = |status, why: &str| {
        let body = json!({ "error": why });
        Reply::new(status, "application/json", body.to_string())
    };
    let Some(session) = &visit.session else {
        return refuse(StatusCode::UNAUTHORIZED, "Your session is over: log in again.");
    };
    if visit.method != Method::POST || !session.has_token(incoming.header("x-csrf-token").unwrap_or_default())
    {
        return refuse(StatusCode::FORBIDDEN, "This is not done from pages of other sites.");
    }
    let asked: Value = serde_json::from_slice(incoming.body).unwrap_or_default();
    let action = asked["alias"].as_str().and_then(catalogue::action_of_document);
    let credential = asked["credential"].as_str().and_then(|id| own(&visit, id));
    let (Some(action), Some(credential), Value::Object(members)) = (action, credential, &asked["members"])
    else {
        return refuse(StatusCode::BAD_REQUEST, "Choose one of your keys first.");
    };
    let page = catalogue::page(action);
    let Some(question) = question(&visit, page, &credential, members) else {
        return refuse(StatusCode::BAD_REQUEST, "This key cannot be used here.");
    };
    let question = Received::inner(question.0, question.1, received.peer, Some(credential));
    // A future of itself has no size.
    let reply = Box::pin(crate::front::answer(core, &question)).await;
    let shown: Map<String, Value> = reply
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let body = json!({
        "status": reply.status.as_u16(),
        "headers": shown,
        "body": String::from_utf8_lossy(&reply.body),
        "milliseconds": question.began.elapsed().as_secs_f64() * 1000.0,
    });
    Reply::new(StatusCode::OK, "application/json", body.to_string())
}

fn own(visit: &Visit, id: &str) -> Option<Arc<Credential>> {
    let number = Kind::Credential.number(id).ok()?;
    let directory = visit.server.engine.directory();
    let found = directory.credential(CredentialId(number))?;
    (directory.owner(found).map(|owner| owner.id) == visit.caller()).then(|| Arc::clone(found))
}

/// The request as a client would send it: with a token on the AceData wire, signed on the Tencent wire.
fn question(
    visit: &Visit,
    page: &Page,
    credential: &Credential,
    members: &Map<String, Value>,
) -> Option<(http::request::Parts, Vec<u8>)> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        HeaderValue::from_str(value).map(|value| headers.insert(name, value)).is_ok()
    };
    put("host", &visit.host);
    put("content-type", "application/json");
    put("accept-language", visit.says("en-US", "zh-CN"));
    let known = catalogue::members(page.action);
    let named = known.iter().filter_map(|member| Some((member, members.get(member.name)?)));
    let (path, body) = match &credential.proof {
        Proof::Platform { .. } => return None,
        // The front knows whose request it is: the token itself is not known here.
        Proof::Bearer { .. } => {
            let body: Map<String, Value> =
                named.map(|(m, value)| (m.name.to_owned(), value.clone())).collect();
            (page.path, Value::from(body).to_string())
        }
        Proof::Signature { secret_id, secret_key, .. } => {
            let body: Map<String, Value> = named
                .filter(|(m, _)| !m.tencent.is_empty())
                .map(|(m, value)| (m.tencent.to_owned(), value.clone()))
                .collect();
            let body = Value::from(body).to_string();
            let timestamp = visit.server.engine.clock.now_ms().div_euclid(1000);
            let post = JsonPost { host: &visit.host, action: page.tencent, body: body.as_bytes(), timestamp };
            for (name, value) in post.headers(secret_id, secret_key.expose()) {
                put(name, &value);
            }
            put("x-tc-language", visit.says("en-US", "zh-CN"));
            ("/", body)
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut request = http::Request::builder().method(Method::POST).uri(path).body(()).ok()?;
    *request.headers_mut() = headers;
    Some((request.into_parts().0, body.into_bytes()))
}
