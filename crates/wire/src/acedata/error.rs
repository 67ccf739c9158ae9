//! The failures of the AceData wire: a closed list of codes, and the body that carries one.
//!
//! The statuses are chosen by what the official SDKs do with them. They repeat 408, 409, 429 and
//! every 5xx of a POST twice, so a permanent fault never gets one of those; they take an unknown 403
//! for moderation, so there is none; 402 and 425 do not occur. What each SDK raises for a code is
//! noted where it decided something.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

/// Why a request got no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body, a member of it or a header is not as documented; the message names it.
    ///
    /// The guide has no code for this under 400; the platform's own list has this one.
    BadRequest,
    /// The token is valid, but not for this: its application is not entitled to the service, or the
    /// token is restricted to other endpoints. A 400 by the guide; newer pages of the platform say
    /// 401, so the status of the [`Fault`] may be changed.
    TokenMismatched,
    /// The endpoint exists, but nothing is configured that could answer it.
    ApiNotImplemented,
    /// There is no token, or it is nobody's.
    InvalidToken,
    /// The token was valid until its end.
    TokenExpired,
    /// A balance or a limit is used up. SDKs raise their own error for it, at 403.
    UsedUp,
    /// The application is suspended, or its owner not confirmed yet.
    Disabled,
    /// There is nothing at this path.
    NoApi,
    /// There is something at this path, but not for this method. No such code is documented: sent as
    /// `bad_request` with 405.
    MethodNotAllowed,
    /// The body is larger than [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX).
    RequestTooLarge,
    /// The rate limit is exceeded, or the server has more to do than it can; goes with `Retry-After`.
    TooManyRequests,
    /// Something broke on the server's side.
    ApiError,
    /// The time ran out before there was a result.
    Timeout,
}

impl ErrorCode {
    /// All of them, by status.
    pub const ALL: [ErrorCode; 13] = [
        ErrorCode::BadRequest,
        ErrorCode::TokenMismatched,
        ErrorCode::ApiNotImplemented,
        ErrorCode::InvalidToken,
        ErrorCode::TokenExpired,
        ErrorCode::UsedUp,
        ErrorCode::Disabled,
        ErrorCode::NoApi,
        ErrorCode::MethodNotAllowed,
        ErrorCode::RequestTooLarge,
        ErrorCode::TooManyRequests,
        ErrorCode::ApiError,
        ErrorCode::Timeout,
    ];

    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadRequest | ErrorCode::MethodNotAllowed => "bad_request",
            ErrorCode::TokenMismatched => "token_mismatched",
            ErrorCode::ApiNotImplemented => "api_not_implemented",
            ErrorCode::InvalidToken => "invalid_token",
            ErrorCode::TokenExpired => "token_expired",
            ErrorCode::UsedUp => "used_up",
            ErrorCode::Disabled => "disabled",
            ErrorCode::NoApi => "no_api",
            ErrorCode::RequestTooLarge => "request_too_large",
            ErrorCode::TooManyRequests => "too_many_requests",
            ErrorCode::ApiError => "api_error",
            ErrorCode::Timeout => "timeout",
        }
    }

    /// The HTTP status it is sent with, unless its [`Fault`] says otherwise.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorCode::BadRequest | ErrorCode::TokenMismatched | ErrorCode::ApiNotImplemented => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::InvalidToken | ErrorCode::TokenExpired => StatusCode::UNAUTHORIZED,
            ErrorCode::UsedUp | ErrorCode::Disabled => StatusCode::FORBIDDEN,
            ErrorCode::NoApi => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::ApiError => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The published message where there is one, else ours.
    pub fn message(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "The request is not as documented.",
            ErrorCode::TokenMismatched => "The specified token is not matched with API.",
            ErrorCode::ApiNotImplemented => "The API is not implemented.",
            ErrorCode::InvalidToken => "The specified token is invalid or wrong.",
            ErrorCode::TokenExpired => "token expired.",
            ErrorCode::UsedUp => "Your balance is not sufficient for current request.",
            ErrorCode::Disabled => "Your application is disabled.",
            ErrorCode::NoApi => "API does not exist, please make sure url is correct.",
            ErrorCode::MethodNotAllowed => "This API is called with POST.",
            ErrorCode::RequestTooLarge => "The request body is larger than 10 MB.",
            ErrorCode::TooManyRequests => "You have exceeded the rate limit.",
            ErrorCode::ApiError => "Internal server error.",
            ErrorCode::Timeout => "There was no result in time.",
        }
    }

    /// Whether the fault arises behind the gateway, whose bodies begin with `"success": false`.
    ///
    /// The guide's failure sample has that member and the API's definition has not; the sample is an
    /// `api_error`, the text of a worker that could not reach its upstream.
    pub fn behind_gateway(self) -> bool {
        matches!(self, ErrorCode::ApiError | ErrorCode::Timeout)
    }
}

/// One failure, as its caller gets to see it. The messages never quote an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What programs look at.
    pub code: ErrorCode,
    /// The HTTP status of the reply.
    pub status: StatusCode,
    /// What people look at.
    pub message: Cow<'static, str>,
}

impl From<ErrorCode> for Fault {
    fn from(code: ErrorCode) -> Fault {
        Fault::with_message(code, code.message())
    }
}

impl Fault {
    /// A failure in words of its own.
    pub fn with_message(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { code, status: code.status(), message: message.into() }
    }

    /// A request that is not as documented.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::with_message(ErrorCode::BadRequest, message)
    }

    /// Required members that are not there, or null.
    pub(crate) fn missing(members: &[&str]) -> Fault {
        Fault::bad_request(format!("Required and missing: {}.", members.join(", ")))
    }

    /// A member of another type than it should have.
    pub(crate) fn wrong_type(member: &str, expected: &str) -> Fault {
        Fault::bad_request(format!("{member} must be {expected}."))
    }

    /// The published sentence, and after it what to do: whoever compares its beginning still can.
    fn hinted(code: ErrorCode, hint: &str) -> Fault {
        Fault::with_message(code, format!("{} {hint}", code.message()))
    }

    /// A token that cannot be one.
    pub(super) fn invalid_token(hint: &str) -> Fault {
        Fault::hinted(ErrorCode::InvalidToken, hint)
    }

    /// The application has not acquired the service. `public_url` is where that is done.
    pub fn not_entitled(public_url: &str) -> Fault {
        let hint = format!("Acquire the service identity at {public_url}");
        Fault::hinted(ErrorCode::TokenMismatched, &hint)
    }

    /// The token is restricted to other endpoints.
    pub fn action_not_allowed() -> Fault {
        Fault::hinted(ErrorCode::TokenMismatched, "The token is restricted to other APIs.")
    }

    /// The installation keeps nothing that could answer it.
    pub fn not_configured() -> Fault {
        let hint = "This installation does not find accounts by identity number or mobile (element_index).";
        Fault::hinted(ErrorCode::ApiNotImplemented, hint)
    }

    /// The application has no balance left. `public_url` is where more is to be had.
    pub fn balance_used_up(public_url: &str) -> Fault {
        used_up("Your balance is not sufficient for current request, please buy more at", public_url)
    }

    /// The token has spent what its owner let it spend.
    pub fn credential_limit_used_up(public_url: &str) -> Fault {
        used_up("The spending limit of this token is used up, its owner can raise it at", public_url)
    }

    /// The operator has suspended the application.
    pub fn suspended() -> Fault {
        Fault::with_message(
            ErrorCode::Disabled,
            "Your application is suspended, please ask the operator of this service.",
        )
    }

    /// Nobody has confirmed yet who the caller is.
    pub fn caller_unconfirmed() -> Fault {
        Fault::with_message(
            ErrorCode::Disabled,
            "Your account is not confirmed yet, please ask the operator of this service.",
        )
    }

    /// More requests than allowed within one second.
    pub fn rate_exceeded(sent: u64, limit: u64) -> Fault {
        let hint = format!("{sent} requests were sent within a second, {limit} are allowed.");
        Fault::hinted(ErrorCode::TooManyRequests, &hint)
    }

    /// The server has more to do than it can, or is about to stop. Not a 503: none is documented.
    pub fn overloaded() -> Fault {
        Fault::with_message(ErrorCode::TooManyRequests, "The service is busy, please retry later.")
    }

    /// Anything that went wrong in opening the encryption. One text for all of it: to tell a wrong
    /// key from a wrong padding would help to decrypt what is somebody else's.
    pub fn envelope_failed() -> Fault {
        Fault::bad_request(
            "encryption: the elements could not be decrypted. \
             The keys to encrypt for are listed at /encryption-keys",
        )
    }

    /// An algorithm that is none of the two.
    pub fn algorithm_unsupported() -> Fault {
        Fault::wrong_type("encryption.algorithm", "AES-256-CBC or SM4-GCM")
    }

    /// A name in `encrypt_list` that is none of the elements there are.
    pub fn not_encryptable(name: &str, names: &[&str]) -> Fault {
        // Quoted only if it looks like a name: people put the ciphertext here, or the plaintext.
        let is_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let which = if is_name { format!(" `{name}`") } else { String::new() };
        let names = match names {
            [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
            names => names.concat(),
        };
        Fault::bad_request(format!(
            "encryption.encrypt_list has an entry{which} that cannot be encrypted; {names} can."
        ))
    }

    /// An element that `encrypt_list` names twice: which of its two tags would count?
    pub(super) fn listed_twice(name: &str) -> Fault {
        Fault::bad_request(format!("encryption.encrypt_list names {name} twice."))
    }

    /// An element in plain text, where the operator accepts none.
    pub fn encryption_required(name: &str) -> Fault {
        Fault::bad_request(format!("{name} must be encrypted: list it in encryption.encrypt_list."))
    }

    /// An idempotency key seen before with another question. Not a 409: the SDKs repeat those.
    pub fn idempotency_key_reused() -> Fault {
        Fault::bad_request("Idempotency-Key was used before for another request.")
    }
}

fn used_up(sentence: &str, public_url: &str) -> Fault {
    Fault::with_message(ErrorCode::UsedUp, format!("{sentence} {public_url}"))
}

/// The body of a failure, always `application/json`. `trace_id` is a UUID with dashes, the one by
/// which the operator finds the request.
pub fn failure(fault: &Fault, trace_id: &str) -> Vec<u8> {
    let body = Body {
        success: fault.code.behind_gateway().then_some(false),
        error: BodyError { code: fault.code.as_str(), message: &fault.message },
        trace_id,
    };
    serde_json::to_vec(&body).expect("text in memory always serialises")
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    error: BodyError<'a>,
    trace_id: &'a str,
}

#[derive(Serialize)]
struct BodyError<'a> {
    code: &'static str,
    message: &'a str,
}
