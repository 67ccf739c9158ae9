//! Why a signature does not fit: the mistakes people make with this protocol, recognised by trying
//! them.
//!
//! For a sandbox, a journal or a support page. Costs many times a verification, so not for every
//! refused request of a public server. A body that was serialised a second time after signing
//! cannot be recognised: what was signed is gone.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::{
    Candidate, DEFAULT_PUBLIC_NAMES, Proof, SigningKey, UNSIGNED_PAYLOAD, V1, V1Method, hex_of, hosts,
    payload_hash, payload_is_unsigned, v1_matches, verify, within_clock_window, without_port,
};
use crate::Incoming;
use crate::tencent::Call;

/// Everything that is known about a refused request. Times are unix seconds.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The call as read.
    pub call: &'a Call<'a>,
    /// The request it was read from.
    pub incoming: &'a Incoming<'a>,
    /// The server's time.
    pub now: i64,
    /// The secret key of the call's own `SecretId`; `None` while only the clock is in question.
    pub secret_key: Option<&'a str>,
    /// Other keys of the same caller, id and secret; eight are tried.
    pub other_keys: &'a [(&'a str, &'a str)],
    /// The port the request arrived at, if known.
    pub port: Option<u16>,
    /// As given to the verification.
    pub public_names: &'a [String],
}

/// A recognised mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// The timestamp is in milliseconds.
    TimestampInMilliseconds,
    /// The client's clock is wrong by this many seconds; positive when it is slow.
    Clock {
        /// Server's time less the request's.
        behind_s: i64,
    },
    /// The date of the scope is the one of this offset from UTC in hours.
    LocalDate {
        /// Hours east of Greenwich; 8 in Beijing.
        offset_hours: i8,
        /// The date that should have been used.
        utc_date: String,
    },
    /// The secret of another key of the same caller was used.
    OtherKey {
        /// The id that belongs to the secret.
        secret_id: String,
    },
    /// The secret was used with blanks or a line break around it.
    SecretWithBlanks,
    /// Another host than the one sent was signed.
    OtherHost {
        /// What was signed.
        signed: String,
    },
    /// The payload was signed as unsigned, but the header that says so did not arrive.
    UnsignedPayloadHeaderLost,
    /// The signature is that of an empty body.
    EmptyBodySigned,
    /// Signature v1 with the other HMAC than `SignatureMethod` says.
    OtherMethod {
        /// What was used.
        used: V1Method,
    },
    /// Signature v1 over values that were already percent-encoded.
    EncodedValuesSigned,
}

impl Diagnosis {
    /// What the client's author should do, in English.
    pub fn advice(&self) -> String {
        match self {
            Diagnosis::TimestampInMilliseconds => {
                "The timestamp is in milliseconds: divide it by 1000, it is unix seconds.".into()
            }
            Diagnosis::Clock { behind_s } => format!(
                "The client's clock is {} seconds {}: synchronise it.",
                behind_s.unsigned_abs(),
                if *behind_s < 0 { "fast" } else { "slow" },
            ),
            Diagnosis::LocalDate { offset_hours, utc_date } => format!(
                "The date in Credential is the local date at UTC{offset_hours:+}: use the UTC date \
                 of X-TC-Timestamp, {utc_date}, in both the scope and the key derivation.",
            ),
            Diagnosis::OtherKey { secret_id } => format!(
                "The request names another SecretId than the one its secret belongs to: \
                 the secret is that of {secret_id}.",
            ),
            Diagnosis::SecretWithBlanks => {
                "The SecretKey was used with white space around it: trim it where it is read.".into()
            }
            Diagnosis::OtherHost { signed } => format!(
                "The host {signed} was signed but another one was sent: sign exactly the Host \
                 header, keep it through proxies, or add {signed} to the server's public names.",
            ),
            Diagnosis::UnsignedPayloadHeaderLost => {
                "The payload was signed as UNSIGNED-PAYLOAD but the header X-TC-Content-SHA256: \
                 UNSIGNED-PAYLOAD did not arrive: send it, and let proxies pass it."
                    .into()
            }
            Diagnosis::EmptyBodySigned => {
                "The signature is that of an empty body: hash the bytes that are sent.".into()
            }
            Diagnosis::OtherMethod { used } => format!(
                "The signature is an {}: SignatureMethod has to say so in exactly this spelling \
                 (HmacSHA1 is what anything else means).",
                match used {
                    V1Method::HmacSha1 => "HmacSHA1",
                    V1Method::HmacSha256 => "HmacSHA256",
                },
            ),
            Diagnosis::EncodedValuesSigned => {
                "The values were percent-encoded before they were signed: sign them raw, encode \
                 them only to send them."
                    .into()
            }
        }
    }
}

/// Finds out why a request was refused by clock or signature; `None` when no known mistake fits.
///
/// With a secret key every answer but the clock's and the date's is certain: the mistake was
/// repeated and gives the signature that was sent.
pub fn diagnose(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    clock(evidence)
        .or_else(|| local_date(evidence))
        .or_else(|| other_secret(evidence))
        .or_else(|| other_host(evidence))
        .or_else(|| match &evidence.call.proof {
            Proof::Tc3(_) => other_payload(evidence),
            Proof::V1(v1) => other_v1(evidence, v1),
        })
}

fn clock(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    let Evidence { call, now, .. } = evidence;
    if within_clock_window(call.timestamp, *now) {
        return None;
    }
    // A day of tolerance: a clock can be wrong as well.
    if (call.timestamp / 1000).abs_diff(*now) <= 86_400 {
        return Some(Diagnosis::TimestampInMilliseconds);
    }
    Some(Diagnosis::Clock { behind_s: now.saturating_sub(call.timestamp) })
}

/// Beijing first, then the nearest offset: several can share a date.
fn local_date(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    let timestamp = evidence.call.timestamp;
    let Proof::Tc3(tc3) = &evidence.call.proof else { return None };
    if tc3.dated(timestamp) {
        return None;
    }
    let mut offsets: Vec<i8> = (-12..=14).collect();
    offsets.sort_by_key(|offset| (*offset != 8, offset.abs()));
    let offset_hours = offsets.into_iter().find(|offset| tc3.dated(timestamp + 3600 * i64::from(*offset)))?;
    Some(Diagnosis::LocalDate { offset_hours, utc_date: super::utc_date(timestamp) })
}

fn other_secret(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    const KEYS_MAX: usize = 8;
    let Evidence { call, incoming, public_names, .. } = evidence;
    let fits = |secret: &str| verify(call, incoming, secret, public_names).is_ok();
    let keys = evidence.other_keys.iter().filter(|(id, _)| *id != call.secret_id);
    if let Some((id, _)) = keys.take(KEYS_MAX).find(|(_, secret)| fits(secret)) {
        return Some(Diagnosis::OtherKey { secret_id: (*id).to_owned() });
    }
    let secret = evidence.secret_key?;
    let blanks = [("", "\n"), ("", "\r\n"), ("", " "), (" ", ""), (" ", " "), ("", "\r")];
    let with_blanks = |(before, after)| fits(&format!("{before}{secret}{after}"));
    blanks.into_iter().any(with_blanks).then_some(Diagnosis::SecretWithBlanks)
}

fn other_host(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    let signed = likely_hosts(evidence).into_iter().find(|host| fits_host(evidence, host, None))?;
    Some(Diagnosis::OtherHost { signed })
}

/// Names that verification does not accept by itself: the same host with another port, the other
/// names of this machine, Tencent's regional names.
fn likely_hosts(evidence: &Evidence<'_>) -> Vec<String> {
    let received = evidence.incoming.header("host").unwrap_or_default().trim_ascii();
    let bare = without_port(received).unwrap_or(received);
    let own_port = received.strip_prefix(bare).and_then(|port| port.strip_prefix(':'));
    let mut ports = vec!["80".to_owned(), "443".into(), "8080".into(), "8443".into(), "4400".into()];
    ports.extend(own_port.map(str::to_owned));
    ports.extend(evidence.port.map(|port| port.to_string()));
    let mut hosts = Vec::new();
    for name in [bare, "localhost", "127.0.0.1"] {
        hosts.push(name.to_owned());
        hosts.extend(ports.iter().map(|port| format!("{name}:{port}")));
    }
    hosts.extend(DEFAULT_PUBLIC_NAMES.map(str::to_owned));
    let regions = ["ap-guangzhou", "ap-shanghai", "ap-beijing", "ap-chengdu", "ap-hongkong", "ap-singapore"];
    hosts.extend(regions.map(|region| format!("faceid.{region}.tencentcloudapi.com")));
    hosts
}

fn other_payload(evidence: &Evidence<'_>) -> Option<Diagnosis> {
    let fits = |payload: &str| {
        let payload = hex_of(Sha256::digest(payload).into());
        let hosts = hosts(evidence.incoming, evidence.public_names);
        hosts.into_iter().any(|(_, host)| fits_host(evidence, host, Some(&payload)))
    };
    if !payload_is_unsigned(evidence.incoming) && fits(UNSIGNED_PAYLOAD) {
        return Some(Diagnosis::UnsignedPayloadHeaderLost);
    }
    fits("").then_some(Diagnosis::EmptyBodySigned)
}

/// Whether the signature is right for another host, or another payload, than those received.
fn fits_host(evidence: &Evidence<'_>, host: &str, payload: Option<&[u8; 64]>) -> bool {
    let Some(secret) = evidence.secret_key else { return false };
    let Evidence { call, incoming, .. } = evidence;
    match &call.proof {
        Proof::V1(v1) => v1_matches(v1, incoming, secret, [host, "/", &v1.sorted()]),
        Proof::Tc3(tc3) => {
            let key = SigningKey::derive(secret, tc3.date, tc3.service);
            let own = payload_hash(incoming);
            let payload = payload.unwrap_or(&own);
            let timestamp = call.timestamp;
            let candidate = Candidate { tc3, incoming, timestamp, host, path: "/", payload };
            candidate.matches(&key, false) == Ok(true)
        }
    }
}

fn other_v1(evidence: &Evidence<'_>, v1: &V1<'_>) -> Option<Diagnosis> {
    let secret = evidence.secret_key?;
    let used = match v1.method {
        V1Method::HmacSha1 => V1Method::HmacSha256,
        V1Method::HmacSha256 => V1Method::HmacSha1,
    };
    let fits = |v1: &V1<'_>| super::verify_v1(v1, evidence.incoming, secret, evidence.public_names).is_ok();
    if fits(&V1 { method: used, ..v1.clone() }) {
        return Some(Diagnosis::OtherMethod { used });
    }
    let mut encoded = v1.clone();
    for (_, value) in &mut encoded.parameters {
        *value = utf8_percent_encode(value, UNRESERVED).to_string().into();
    }
    fits(&encoded).then_some(Diagnosis::EncodedValuesSigned)
}

/// All but RFC 3986's unreserved characters are encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
