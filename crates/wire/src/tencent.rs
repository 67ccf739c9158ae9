//! Tencent Cloud API 3.0 as the unmodified official SDKs speak it: bytes to a typed [`Call`], and
//! a result or a [`Fault`] to the bytes of a reply.
//!
//! [`read`] does what can be done without knowing any key: it tells the two signature generations
//! apart, finds the common parameters and the members. Verifying is [`signature`]'s, the members of
//! an action and its codes are [`action`]'s. Every reply goes out with HTTP status 200, errors
//! too: most SDKs throw the body away on any other status.

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, CONTENT_TYPE as TYPE, HOST};
use http::{HeaderName, Method};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::code::ResultCode;
use crate::{BadIdempotencyKey, Incoming, Language};

pub mod action;
mod calendar;
pub mod client;
pub mod code;
pub mod error;
pub mod flatten;
mod multipart;
pub mod signature;

use error::{ErrorCode, Fault};
use flatten::{Pair, pairs, unflatten};
use signature::{Proof, Tc3, V1};

/// Exactly this, without a charset: with `; charset=utf-8` the Python SDK and tccli skip their error
/// detection and hand the caller a "successful" response whose members are all null.
pub const CONTENT_TYPE: &str = "application/json";

/// Largest TC3 body in bytes (Tencent's page on request structure).
pub const TC3_BODY_MAX_BYTES: usize = 10 * 1024 * 1024;
/// Largest signature v1 body in bytes.
pub const V1_BODY_MAX_BYTES: usize = 1024 * 1024;
/// Largest query string in bytes.
pub const QUERY_MAX_BYTES: usize = 32 * 1024;

static X_TC_ACTION: HeaderName = HeaderName::from_static("x-tc-action");
static X_TC_VERSION: HeaderName = HeaderName::from_static("x-tc-version");
static X_TC_TIMESTAMP: HeaderName = HeaderName::from_static("x-tc-timestamp");
static X_TC_TOKEN: HeaderName = HeaderName::from_static("x-tc-token");
static X_TC_LANGUAGE: HeaderName = HeaderName::from_static("x-tc-language");
static X_TC_TRACE_ID: HeaderName = HeaderName::from_static("x-tc-traceid");
static X_TC_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-tc-content-sha256");

/// One request, read but not yet verified.
pub struct Call<'a> {
    /// `X-TC-Action` or `Action`, whether or not there is such an action.
    pub action: Cow<'a, str>,
    /// `X-TC-Version` or `Version`.
    pub version: Cow<'a, str>,
    /// `X-TC-Timestamp` or `Timestamp`, unix seconds as the client believes.
    pub timestamp: i64,
    /// `X-TC-Token` or `Token` of a temporary key; an empty one is none.
    pub token: Option<Cow<'a, str>>,
    /// The key the request claims to be signed with.
    pub secret_id: Cow<'a, str>,
    /// What has to be verified against that key.
    pub proof: Proof<'a>,
    /// The business parameters, nested.
    pub members: Map<String, Value>,
    /// Whether the members came as flat text, so that numbers are text.
    pub flattened: bool,
    /// The signature does not cover the body, by the client's choice.
    pub unsigned_payload: bool,
}

/// Prints who asks for what, never a member, token or signature.
impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("action", &self.action)
            .field("version", &self.version)
            .field("timestamp", &self.timestamp)
            .field("secret_id", &self.secret_id)
            .finish_non_exhaustive()
    }
}

/// The caller's idempotency key; see [`Incoming::idempotency_key`].
pub fn idempotency_key<'a>(incoming: &Incoming<'a>) -> Result<Option<&'a str>, Fault> {
    incoming.idempotency_key().map_err(|bad| match bad {
        BadIdempotencyKey::Ambiguous => Fault::new(
            ErrorCode::InvalidParameter,
            "请求头 `Idempotency-Key` 出现多次且取值不同。",
            "The header `Idempotency-Key` is given twice with different values.",
        ),
        BadIdempotencyKey::Malformed => Fault::new(
            ErrorCode::InvalidParameter,
            "请求头 `Idempotency-Key` 须为 1 至 255 个可见 ASCII 字符。",
            "The header `Idempotency-Key` must be 1 to 255 visible ASCII characters.",
        ),
    })
}

/// Whether a request belongs to this wire rather than to any other on the same port.
///
/// It does if it has an `X-TC-*` header, an `Authorization` of this protocol, an `Action` or
/// `Signature` parameter, or simply asks `/` without wanting a page for a browser.
pub fn claims(incoming: &Incoming<'_>) -> bool {
    let is_authorized =
        |scheme| incoming.known_header(&AUTHORIZATION).is_some_and(|text| text.starts_with(scheme));
    incoming.headers.keys().any(|name| name.as_str().starts_with("x-tc-"))
        || is_authorized("TC3-")
        || is_authorized("SKIP")
        || has_parameter(incoming, &["Action", "Signature"])
        || (incoming.path == "/" && !accepts_html(incoming))
}

fn accepts_html(incoming: &Incoming<'_>) -> bool {
    let mut accepts = incoming.headers.get_all("accept").iter();
    accepts.any(|value| value.as_bytes().windows(9).any(|part| part == b"text/html"))
}

/// Reads a request as far as is possible without any key.
///
/// # Errors
/// In this order: `UnsupportedProtocol`; size; unreadable parameters or body; common parameters
/// that are missing (`Timestamp`, `Action`, `Version`, then what the signature needs), then those of
/// a wrong type; `AuthFailure.InvalidAuthorization`. The order is Tencent's where stored traces
/// show it.
pub fn read<'a>(incoming: &Incoming<'a>) -> Result<Call<'a>, Fault> {
    check_method(incoming)?;
    check_sizes(incoming)?;
    refuse_repeated_headers(incoming)?;
    if is_tc3(incoming) { read_tc3(incoming) } else { read_v1(incoming) }
}

/// The very first question, before a body is looked at or even was read; [`read`] asks it too.
///
/// # Errors
/// `UnsupportedProtocol`.
pub fn check_method(incoming: &Incoming<'_>) -> Result<(), Fault> {
    match *incoming.method {
        Method::GET | Method::POST => Ok(()),
        _ => Err(ErrorCode::UnsupportedProtocol.into()),
    }
}

/// The action a request asks for by its plain spelling, also one that [`read`] refused.
pub fn action_name<'a>(incoming: &Incoming<'a>) -> Option<&'a str> {
    incoming.known_header(&X_TC_ACTION).or_else(|| plain_values(incoming, "Action").next())
}

/// `X-TC-TraceId`, a header in both signature generations: Node shows it in its error objects.
pub fn trace_id<'a>(incoming: &Incoming<'a>) -> Option<&'a str> {
    incoming.known_header(&X_TC_TRACE_ID).filter(|trace| trace.len() <= 128)
}

/// The language of a reply, also to a request that [`read`] refused.
///
/// `X-TC-Language` or `Language` decides, then a host of the international service; Node, Java,
/// PHP and C++ say nothing, so `default` is what most callers see.
pub fn language(incoming: &Incoming<'_>, default: Language) -> Language {
    let stated = incoming.known_header(&X_TC_LANGUAGE).and_then(language_named);
    let stated = stated.or_else(|| plain_values(incoming, "Language").find_map(language_named));
    stated.or_else(|| language_of_host(incoming)).unwrap_or(default)
}

/// What to answer when a body is over its limit and was therefore not read.
///
/// Signature v1 has a limit and a text of its own; `incoming` needs no body here.
pub fn body_too_large(incoming: &Incoming<'_>) -> Fault {
    if is_tc3(incoming) || media_type(incoming) != Media::Form {
        Fault::request_too_large(TC3_BODY_MAX_BYTES)
    } else {
        Fault::v1_body_too_large()
    }
}

/// What the reply of some actions has besides the result.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(untagged)]
pub enum Extra<'a> {
    /// Nothing.
    #[default]
    None,
    /// `CheckBankCardInformation`.
    #[serde(rename_all = "PascalCase")]
    Card {
        /// The bank, as it is called in the language of the reply; empty when none is known.
        account_bank: &'a str,
        /// 1 debit, 2 credit, 3 prepaid, 4 semi-credit; -1 when none is known.
        account_type: i64,
    },
    /// `PhoneVerification` and its aliases.
    #[serde(rename_all = "PascalCase")]
    Phone {
        /// The carrier; empty when it is not known.
        isp: &'a str,
        /// Which element differs, where it was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        result_detail: Option<&'a str>,
    },
}

/// The reply to a verification that was answered, whatever the answer.
pub fn success(request_id: &str, code: ResultCode, language: Language, extra: Extra<'_>) -> Vec<u8> {
    // A string, though it holds a number: Go and C++ fail to parse an integer here.
    let result = code.number.to_string();
    let description = code.text(language);
    write(&Answer { result: &result, description, extra, request_id })
}

/// The reply to a request that was not answered.
///
/// It always has its `RequestId`: without it Python and C++ lose the error code.
pub fn failure(request_id: &str, fault: &Fault, language: Language) -> Vec<u8> {
    let error = ErrorBody { code: fault.code.as_str(), message: fault.message(language) };
    write(&Failure { error, request_id })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a, T> {
    response: &'a T,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    result: &'a str,
    description: &'a str,
    #[serde(flatten)]
    extra: Extra<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure<'a> {
    error: ErrorBody<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

fn write<T: Serialize>(response: &T) -> Vec<u8> {
    serde_json::to_vec(&Reply { response }).expect("structures of strings always serialise")
}

/// What the parameters of a request are written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Form,
    Multipart,
    /// No `Content-Type`.
    Unstated,
    Other,
}

/// Parameters such as `; charset=utf-8` (Java) are ignored here, though they are signed.
fn media_type(incoming: &Incoming<'_>) -> Media {
    let Some(value) = incoming.known_header(&TYPE) else { return Media::Unstated };
    let essence = value.split(';').next().unwrap_or_default().trim_ascii();
    let known = [
        ("application/json", Media::Json),
        ("application/x-www-form-urlencoded", Media::Form),
        ("multipart/form-data", Media::Multipart),
    ];
    let found = known.into_iter().find(|(name, _)| essence.eq_ignore_ascii_case(name));
    found.map_or(Media::Other, |(_, media)| media)
}

/// Where plain parameters are: the query of a GET, the form of a POST. The query of a POST is not
/// considered.
fn raw_parameters<'a>(incoming: &Incoming<'a>) -> &'a [u8] {
    if incoming.method == Method::GET {
        incoming.query.as_bytes()
    } else if media_type(incoming) == Media::Form {
        incoming.body
    } else {
        b""
    }
}

/// The values of a parameter of that plain spelling, not decoded.
fn plain_values<'a>(incoming: &Incoming<'a>, name: &'static str) -> impl Iterator<Item = &'a str> {
    let raw = std::str::from_utf8(raw_parameters(incoming)).unwrap_or_default();
    raw.split('&').filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Whether one of these is a parameter, by its plain spelling, in the query or in a form.
fn has_parameter(incoming: &Incoming<'_>, names: &[&str]) -> bool {
    let is_named = |piece: &[u8]| {
        let end = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        names.iter().any(|name| name.as_bytes() == &piece[..end])
    };
    let form: &[u8] = if media_type(incoming) == Media::Form { incoming.body } else { b"" };
    let query = incoming.query.as_bytes();
    [query, form].into_iter().any(|raw| raw.split(|byte| *byte == b'&').any(is_named))
}

/// TC3 keeps its common parameters in headers; signature v1 has them all among the parameters, save
/// for the trace id.
fn is_tc3(incoming: &Incoming<'_>) -> bool {
    let common = [&X_TC_TIMESTAMP, &X_TC_ACTION, &X_TC_VERSION];
    incoming.headers.contains_key(AUTHORIZATION)
        || (common.into_iter().any(|name| incoming.headers.contains_key(name))
            && !has_parameter(incoming, &["Signature"]))
}

fn check_sizes(incoming: &Incoming<'_>) -> Result<(), Fault> {
    if incoming.query.len() > QUERY_MAX_BYTES {
        return Err(Fault::request_too_large(QUERY_MAX_BYTES));
    }
    let v1 = !is_tc3(incoming) && media_type(incoming) == Media::Form;
    let limit = if v1 { V1_BODY_MAX_BYTES } else { TC3_BODY_MAX_BYTES };
    if incoming.body.len() > limit { Err(body_too_large(incoming)) } else { Ok(()) }
}

/// A repeated header could be read by a proxy in one way and by us in another.
fn refuse_repeated_headers(incoming: &Incoming<'_>) -> Result<(), Fault> {
    const SINGLE: [&str; 8] = [
        "Host",
        "Content-Type",
        "Authorization",
        "X-TC-Action",
        "X-TC-Version",
        "X-TC-Timestamp",
        "X-TC-Token",
        "X-TC-Content-SHA256",
    ];
    if incoming.headers.len() == incoming.headers.keys_len() {
        return Ok(());
    }
    match SINGLE.iter().find(|name| incoming.headers.get_all(**name).iter().count() > 1) {
        None => Ok(()),
        Some(name) => Err(Fault::new(
            ErrorCode::InvalidParameter,
            format!("请求头 `{name}` 重复。"),
            format!("The header `{name}` is given more than once."),
        )),
    }
}

fn read_tc3<'a>(incoming: &Incoming<'a>) -> Result<Call<'a>, Fault> {
    let (members, flattened) = tc3_members(incoming)?;
    let timestamp = required(incoming, &X_TC_TIMESTAMP, "Timestamp")?;
    let action = required(incoming, &X_TC_ACTION, "Action")?;
    let version = required(incoming, &X_TC_VERSION, "Version")?;
    let authorization = required(incoming, &AUTHORIZATION, "Authorization")?;
    let timestamp = unix_seconds(timestamp)?;
    let proof = Tc3::parse(authorization)?;
    Ok(Call {
        action: action.into(),
        version: version.into(),
        timestamp,
        token: filled(incoming, &X_TC_TOKEN).map(Cow::Borrowed),
        secret_id: proof.secret_id.into(),
        members,
        flattened,
        unsigned_payload: signature::payload_is_unsigned(incoming),
        proof: Proof::Tc3(proof),
    })
}

/// The business parameters of a TC3 request; a parameter called `Action` here is none of ours.
fn tc3_members(incoming: &Incoming<'_>) -> Result<(Map<String, Value>, bool), Fault> {
    if incoming.method == Method::GET {
        return Ok((unflattened(&pairs(incoming.query)?)?, true));
    }
    match media_type(incoming) {
        Media::Json => Ok((json_object(incoming.body)?, false)),
        Media::Form => Ok((unflattened(&pairs(form_text(incoming.body)?)?)?, true)),
        Media::Multipart => Ok((multipart::members(incoming)?, true)),
        Media::Unstated | Media::Other => Err(wrong_content_type()),
    }
}

fn read_v1<'a>(incoming: &Incoming<'a>) -> Result<Call<'a>, Fault> {
    let mut parameters = V1Parameters(v1_pairs(incoming)?);
    parameters.0.sort_by(|a, b| a.0.cmp(&b.0));
    let members = unflattened(&parameters.0)?;
    let members = members.into_iter().filter(|(name, _)| !is_v1_common(name)).collect();
    let timestamp = parameters.required("Timestamp")?;
    let action = parameters.required("Action")?;
    let version = parameters.required("Version")?;
    let nonce = parameters.required("Nonce")?;
    let secret_id = parameters.required("SecretId")?;
    let signature = parameters.required("Signature")?;
    let timestamp = unix_seconds(&timestamp)?;
    // Not kept: Go before 1.20 sends the same first nonce in every process, so that refusing a
    // nonce seen before would refuse honest traffic.
    nonce.parse::<u64>().map_err(|_| Fault::type_error("Nonce"))?;
    Ok(Call {
        action,
        version,
        timestamp,
        token: parameters.filled("Token"),
        secret_id,
        members,
        flattened: true,
        unsigned_payload: false,
        proof: Proof::V1(V1::new(parameters.0, signature)),
    })
}

/// The parameters of a signature v1 request, sorted by the bytes of their names.
struct V1Parameters<'a>(Vec<Pair<'a>>);

impl<'a> V1Parameters<'a> {
    fn filled(&self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        Some(self.0[at].1.clone()).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &str) -> Result<Cow<'a, str>, Fault> {
        self.filled(name).ok_or_else(|| Fault::missing(name))
    }
}

/// A POST that is neither TC3 nor a form has nowhere to keep its common parameters; the public
/// cloud calls that a parameter error, not a missing one. An empty POST counts as an empty form.
fn v1_pairs<'a>(incoming: &Incoming<'a>) -> Result<Vec<Pair<'a>>, Fault> {
    if incoming.method == Method::GET {
        return pairs(incoming.query);
    }
    match media_type(incoming) {
        Media::Form => pairs(form_text(incoming.body)?),
        Media::Unstated if incoming.body.is_empty() => Ok(Vec::new()),
        Media::Json | Media::Multipart => Err(Fault::new(
            ErrorCode::InvalidParameter,
            "请求缺少 `X-TC-*` 公共请求头与 `Authorization`。",
            "The request has no `X-TC-*` headers and no `Authorization`.",
        )),
        Media::Unstated | Media::Other => Err(wrong_content_type()),
    }
}

fn is_v1_common(name: &str) -> bool {
    const COMMON: [&str; 11] = [
        "Action",
        "Version",
        "Timestamp",
        "Region",
        "SecretId",
        "Signature",
        "SignatureMethod",
        "Nonce",
        "Token",
        "Language",
        "RequestClient",
    ];
    COMMON.contains(&name)
}

fn unflattened(pairs: &[Pair<'_>]) -> Result<Map<String, Value>, Fault> {
    unflatten(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
}

fn form_text(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|_| {
        Fault::new(
            ErrorCode::InvalidParameter,
            "请求参数不是有效的 UTF-8 编码。",
            "The request's parameters are not valid UTF-8.",
        )
    })
}

/// No body at all is a request without members.
fn json_object(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    // Only the position is told: the error's own text could quote an element.
    let at = |error: serde_json::Error| (error.line(), error.column());
    serde_json::from_slice(body).map_err(at).map_err(|(line, column)| {
        Fault::new(
            ErrorCode::InvalidParameter,
            format!("请求 body 不是有效的 JSON 对象：第 `{line}` 行第 `{column}` 列。"),
            format!("The request body is not a JSON object: line `{line}`, column `{column}`."),
        )
    })
}

fn wrong_content_type() -> Fault {
    Fault::new(
        ErrorCode::InvalidParameter,
        "请求头 `Content-Type` 应为 `application/json`。",
        "The header `Content-Type` has to be `application/json`.",
    )
}

/// A header with something in it: Java and .NET send `X-TC-Region` and others empty.
fn filled<'a>(incoming: &Incoming<'a>, header: &HeaderName) -> Option<&'a str> {
    incoming.known_header(header).map(str::trim_ascii).filter(|value| !value.is_empty())
}

fn required<'a>(incoming: &Incoming<'a>, header: &HeaderName, parameter: &str) -> Result<&'a str, Fault> {
    filled(incoming, header).ok_or_else(|| Fault::missing(parameter))
}

fn unix_seconds(text: &str) -> Result<i64, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| Fault::type_error("Timestamp"))
}

fn language_named(name: &str) -> Option<Language> {
    match name {
        _ if name.eq_ignore_ascii_case("zh-CN") => Some(Language::Chinese),
        _ if name.eq_ignore_ascii_case("en-US") => Some(Language::English),
        _ => None,
    }
}

/// The international service is `faceid.intl.tencentcloudapi.com`.
fn language_of_host(incoming: &Incoming<'_>) -> Option<Language> {
    incoming.known_header(&HOST).filter(|host| host.contains(".intl.")).map(|_| Language::English)
}
