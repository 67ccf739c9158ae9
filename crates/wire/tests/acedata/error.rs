//! Every failure, with its status and its whole body.

use std::collections::HashSet;

use wire::acedata::{ErrorCode, Fault, failure};

const TRACE_ID: &str = "2efa9340-b21b-4e26-9e14-4aac95f343ab";
const URL: &str = "https://card4e.example";

/// The status line's number and the body of a failure.
fn reply(fault: impl Into<Fault>) -> (u16, String) {
    let fault = fault.into();
    let body = String::from_utf8(failure(&fault, TRACE_ID)).expect("JSON is UTF-8");
    (fault.status.as_u16(), body)
}

fn gateway(code: &str, message: &str) -> String {
    format!(r#"{{"error":{{"code":"{code}","message":"{message}"}},"trace_id":"{TRACE_ID}"}}"#)
}

fn worker(code: &str, message: &str) -> String {
    format!(
        r#"{{"success":false,"error":{{"code":"{code}","message":"{message}"}},"trace_id":"{TRACE_ID}"}}"#
    )
}

#[test]
fn every_code() {
    let expected = [
        (400, gateway("bad_request", "The request is not as documented.")),
        (400, gateway("token_mismatched", "The specified token is not matched with API.")),
        (400, gateway("api_not_implemented", "The API is not implemented.")),
        (401, gateway("invalid_token", "The specified token is invalid or wrong.")),
        (401, gateway("token_expired", "token expired.")),
        (403, gateway("used_up", "Your balance is not sufficient for current request.")),
        (403, gateway("disabled", "Your application is disabled.")),
        (404, gateway("no_api", "API does not exist, please make sure url is correct.")),
        (405, gateway("bad_request", "This API is called with POST.")),
        (413, gateway("request_too_large", "The request body is larger than 10 MB.")),
        (429, gateway("too_many_requests", "You have exceeded the rate limit.")),
        (500, worker("api_error", "Internal server error.")),
        (504, worker("timeout", "There was no result in time.")),
    ];
    assert_eq!(ErrorCode::ALL.map(reply), expected);
    assert_eq!(ErrorCode::ALL.into_iter().collect::<HashSet<_>>().len(), expected.len());
}

#[test]
fn no_status_the_sdks_misread() {
    for code in ErrorCode::ALL {
        assert!(![402, 409, 425].contains(&code.status().as_u16()), "{code:?}");
    }
}

/// The guide's failure sample, as compact as the gateway sends it.
#[test]
fn guides_sample() {
    assert_eq!(
        reply(Fault::with_message(ErrorCode::ApiError, "fetch failed")).1,
        r#"{"success":false,"error":{"code":"api_error","message":"fetch failed"},"trace_id":"2efa9340-b21b-4e26-9e14-4aac95f343ab"}"#
    );
}

#[test]
fn token_mismatched_may_be_401() {
    let mut fault = Fault::from(ErrorCode::TokenMismatched);
    fault.status = http::StatusCode::UNAUTHORIZED;
    assert_eq!(
        reply(fault),
        (401, gateway("token_mismatched", "The specified token is not matched with API."))
    );
}

#[test]
fn every_worded_fault() {
    let used_up = |message: &str| (403, gateway("used_up", message));
    let bad_request = |message: &str| (400, gateway("bad_request", message));
    for (fault, expected) in [
        (
            Fault::not_entitled(URL),
            (
                400,
                gateway(
                    "token_mismatched",
                    "The specified token is not matched with API. \
                     Acquire the service identity at https://card4e.example",
                ),
            ),
        ),
        (
            Fault::action_not_allowed(),
            (
                400,
                gateway(
                    "token_mismatched",
                    "The specified token is not matched with API. The token is restricted to other APIs.",
                ),
            ),
        ),
        (
            Fault::balance_used_up(URL),
            used_up(
                "Your balance is not sufficient for current request, \
                 please buy more at https://card4e.example",
            ),
        ),
        (
            Fault::credential_limit_used_up(URL),
            used_up(
                "The spending limit of this token is used up, \
                 its owner can raise it at https://card4e.example",
            ),
        ),
        (
            Fault::suspended(),
            (
                403,
                gateway(
                    "disabled",
                    "Your application is suspended, please ask the operator of this service.",
                ),
            ),
        ),
        (
            Fault::caller_unconfirmed(),
            (
                403,
                gateway(
                    "disabled",
                    "Your account is not confirmed yet, please ask the operator of this service.",
                ),
            ),
        ),
        (
            Fault::rate_exceeded(21, 20),
            (
                429,
                gateway(
                    "too_many_requests",
                    "You have exceeded the rate limit. 21 requests were sent within a second, 20 are allowed.",
                ),
            ),
        ),
        (
            Fault::overloaded(),
            (429, gateway("too_many_requests", "The service is busy, please retry later.")),
        ),
        (
            Fault::envelope_failed(),
            bad_request(
                "encryption: the elements could not be decrypted. \
                 The keys to encrypt for are listed at /encryption-keys",
            ),
        ),
        (Fault::algorithm_unsupported(), bad_request("encryption.algorithm must be AES-256-CBC or SM4-GCM.")),
        (
            Fault::not_encryptable("cert_type", &["name", "bank_card", "phone", "id_card"]),
            bad_request(
                "encryption.encrypt_list has an entry `cert_type` that cannot be encrypted; \
                 name, bank_card, phone and id_card can.",
            ),
        ),
        (
            Fault::not_encryptable("6222020000000000000", &["name", "bank_card", "phone", "id_card"]),
            bad_request(
                "encryption.encrypt_list has an entry that cannot be encrypted; \
                 name, bank_card, phone and id_card can.",
            ),
        ),
        (
            Fault::encryption_required("phone"),
            bad_request("phone must be encrypted: list it in encryption.encrypt_list."),
        ),
        (
            Fault::idempotency_key_reused(),
            bad_request("Idempotency-Key was used before for another request."),
        ),
    ] {
        assert_eq!(reply(fault), expected);
    }
}
