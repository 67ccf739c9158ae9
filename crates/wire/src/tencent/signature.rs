//! Both signature generations as pure functions: TC3-HMAC-SHA256, and v1 with HmacSHA1 or
//! HmacSHA256.
//!
//! What the official clients sign is not always what they send, so a request is tried against a
//! short, bounded list of candidates. There is no replay protection on purpose: TC3 has no nonce,
//! and two honest calls in one second carry the same signature.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_UNPADDED};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Call;
use super::calendar;
use super::error::Fault;
use super::flatten::Pair;
use crate::Incoming;

mod diagnosis;

pub use diagnosis::{Diagnosis, Evidence, diagnose};

/// How far a request's time may be from the server's, in seconds, either way.
pub const CLOCK_WINDOW_S: u64 = 300;

/// Names a client may have signed though it connected to us under another one.
pub const DEFAULT_PUBLIC_NAMES: [&str; 2] = ["faceid.tencentcloudapi.com", "faceid.intl.tencentcloudapi.com"];

/// Public names that are tried; more than that are ignored.
pub const PUBLIC_NAMES_MAX: usize = 8;

/// Bytes hashed for one request before no further candidate is tried, so that a large query or form
/// cannot be multiplied by the number of candidates.
const HASHED_MAX_BYTES: usize = 1024 * 1024;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Whether a request's time is close enough to the server's; both in unix seconds.
///
/// A timestamp in milliseconds, a frequent mistake, is far outside.
pub fn within_clock_window(timestamp: i64, now: i64) -> bool {
    timestamp.abs_diff(now) <= CLOCK_WINDOW_S
}

/// The UTC date of a credential scope, `YYYY-MM-DD`; empty for times no calendar has.
pub fn utc_date(unix_s: i64) -> String {
    let date = calendar::date(unix_s).unwrap_or_default();
    date.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

/// What a request offers as proof that it knows the secret key.
pub enum Proof<'a> {
    /// Signature v3, from the `Authorization` header.
    Tc3(Tc3<'a>),
    /// Signature v1, from the parameters.
    V1(V1<'a>),
}

/// Which candidate a valid signature was made for; worth counting, so that odd clients are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// The host that was signed.
    pub host: HostMatch,
    /// Whether the request's own path was signed rather than `/`.
    pub real_path: bool,
    /// Whether header values were signed in lower case though sent otherwise.
    pub lower_cased: bool,
}

/// Which host name was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// The `Host` header as received: nearly every client.
    AsReceived,
    /// The same without its port: Node with TC3.
    WithoutPort,
    /// The public name at this place of the list: Python, Go and Java with `ApigwEndpoint` connect
    /// to one name and sign another, and some proxies rewrite the header.
    PublicName(usize),
}

/// Why a signature was not accepted. The caller is told the same in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mismatch {
    /// The date of the credential scope is not the UTC date of the timestamp.
    Date,
    /// A header that is said to be signed is not there, or is there more than once.
    Header,
    /// No candidate gives the signature.
    Signature,
}

/// Verifies a call against a secret key, deriving whatever it takes.
///
/// A server with a cache of [`SigningKey`]s calls [`verify_tc3`] and [`verify_v1`] itself.
///
/// # Errors
/// The [`Mismatch`], which the caller sees as `AuthFailure.SignatureFailure`.
pub fn verify(
    call: &Call<'_>,
    incoming: &Incoming<'_>,
    secret_key: &str,
    public_names: &[impl AsRef<str>],
) -> Result<Match, Mismatch> {
    match &call.proof {
        Proof::Tc3(tc3) => {
            let key = SigningKey::derive(secret_key, tc3.date, tc3.service);
            verify_tc3(tc3, incoming, call.timestamp, &key, public_names)
        }
        Proof::V1(v1) => verify_v1(v1, incoming, secret_key, public_names),
    }
}

// ---------------------------------------------------------------- TC3

/// The key that signs one day's requests to one service, as an HMAC state ready to be cloned.
///
/// Depends on the secret key, date and service only, so it may be cached; the service is the
/// client's choice, so a cache needs a bound, and should be filled only for a date that
/// [`Tc3::dated`] accepts. Cleared from memory when dropped.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// Derives the key. `date` is `YYYY-MM-DD`; `service` is whatever the client wrote, see
    /// [`Tc3::service`].
    pub fn derive(secret_key: &str, date: &str, service: &str) -> Self {
        let [_, _, signing] = derivation(secret_key, date, service);
        SigningKey(keyed(&signing[..]))
    }
}

/// The three steps of the derivation: date, service and signing key.
fn derivation(secret_key: &str, date: &str, service: &str) -> [Zeroizing<[u8; 32]>; 3] {
    let mut first = Zeroizing::new(Vec::with_capacity(3 + secret_key.len()));
    first.extend_from_slice(b"TC3");
    first.extend_from_slice(secret_key.as_bytes());
    let date_key = hmac_sha256(&first, date.as_bytes());
    let service_key = hmac_sha256(&date_key[..], service.as_bytes());
    let signing_key = hmac_sha256(&service_key[..], TERMINATOR.as_bytes());
    [date_key, service_key, signing_key]
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac: Hmac<Sha256> = keyed(key);
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// A TC3 `Authorization` header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tc3<'a> {
    /// The key the request claims to be signed with.
    pub secret_id: &'a str,
    /// `YYYY-MM-DD`, by its shape; compare with [`Tc3::dated`].
    pub date: &'a str,
    /// Input to the key derivation and nothing else. Java, PHP, Node, Ruby, .NET and C++ take it
    /// from the endpoint before its first dot: `faceid`, `127`, `localhost:18083`.
    pub service: &'a str,
    /// Lower-case header names joined by `;`, `content-type` and `host` among them.
    pub signed_headers: &'a str,
    /// The signature, decoded.
    pub signature: [u8; 32],
}

impl<'a> Tc3<'a> {
    /// Takes the header apart.
    ///
    /// # Errors
    /// `AuthFailure.InvalidAuthorization`, also for `SKIP`: some SDKs can be told to send it in
    /// place of a signature, for services that need none.
    pub fn parse(authorization: &'a str) -> Result<Self, Fault> {
        let invalid = Fault::invalid_authorization;
        // .NET writes two spaces after the algorithm.
        let fields = authorization.trim_ascii().strip_prefix(ALGORITHM);
        let fields = fields.filter(|fields| fields.starts_with([' ', '\t']));
        let fields = fields.ok_or_else(|| invalid(ALGORITHM))?;
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for field in fields.split(',') {
            let (name, value) = field.trim_ascii().split_once('=').unwrap_or((field, ""));
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(invalid("Credential=, SignedHeaders=, Signature=")),
            };
            if slot.replace(value).is_some() {
                return Err(invalid("Credential=, SignedHeaders=, Signature="));
            }
        }
        let (secret_id, date, service) = credential.and_then(scope).ok_or_else(|| invalid("Credential"))?;
        let signed_headers =
            signed_headers.filter(|names| are_header_names(names)).ok_or_else(|| invalid("SignedHeaders"))?;
        let signature = signature.and_then(lower_hex_32).ok_or_else(|| invalid("Signature"))?;
        Ok(Tc3 { secret_id, date, service, signed_headers, signature })
    }

    /// Whether the scope's date is the UTC date of the request's time, in unix seconds.
    ///
    /// It is not where a client in Beijing took its local date between midnight and eight.
    pub fn dated(&self, timestamp: i64) -> bool {
        calendar::date(timestamp).is_some_and(|date| date == self.date.as_bytes())
    }
}

/// `<SecretId>/<date>/<service>/tc3_request`; a service made from a URL may itself have slashes.
fn scope(credential: &str) -> Option<(&str, &str, &str)> {
    let (secret_id, rest) = credential.split_once('/')?;
    let (date, rest) = rest.split_once('/')?;
    let (service, terminator) = rest.rsplit_once('/')?;
    let sound = !secret_id.is_empty() && is_date(date) && !service.is_empty() && terminator == TERMINATOR;
    sound.then_some((secret_id, date, service))
}

/// `YYYY-MM-DD`. Who takes milliseconds for seconds comes to a year of five digits, and learns more
/// from being told about his clock than about the form of his header.
fn is_date(text: &str) -> bool {
    let digits = |part: &str, count: std::ops::RangeInclusive<usize>| {
        count.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = text.split('-');
    let [year, month, day, rest] = [(); 4].map(|()| parts.next());
    let sound = |part: Option<&str>, count| part.is_some_and(|part| digits(part, count));
    sound(year, 4..=6) && sound(month, 2..=2) && sound(day, 2..=2) && rest.is_none()
}

/// `content-type` and `host` have to be there: without them a request could be sent elsewhere.
fn are_header_names(names: &str) -> bool {
    const NAMES_MAX: usize = 32;
    let lower = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    names.split(';').count() <= NAMES_MAX
        && names.split(';').all(lower)
        && ["content-type", "host"].iter().all(|must| names.split(';').any(|name| name == *must))
}

fn lower_hex_32(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whether the request says that its signature does not cover the body.
///
/// The header itself is never signed, which harms nobody: a signature over the body does not fit a
/// request that suddenly has the header.
pub fn payload_is_unsigned(incoming: &Incoming<'_>) -> bool {
    incoming.known_header(&super::X_TC_CONTENT_SHA256) == Some(UNSIGNED_PAYLOAD)
}

/// Verifies a TC3 signature against a key derived from the proof's own date and service.
///
/// `timestamp` is the request's, in unix seconds; whether it is recent is
/// [`within_clock_window`]'s question. The first candidate, which nearly every client means, costs
/// one hash of the body, one of a short text and one HMAC, and allocates nothing.
///
/// # Errors
/// The [`Mismatch`].
pub fn verify_tc3(
    tc3: &Tc3<'_>,
    incoming: &Incoming<'_>,
    timestamp: i64,
    key: &SigningKey,
    public_names: &[impl AsRef<str>],
) -> Result<Match, Mismatch> {
    if !tc3.dated(timestamp) {
        return Err(Mismatch::Date);
    }
    let payload = payload_hash(incoming);
    let mut hashed_bytes = 0;
    for (host_match, host) in hosts(incoming, public_names) {
        for path in paths(incoming) {
            let candidate = Candidate { tc3, incoming, timestamp, host, path, payload: &payload };
            // Documentation lower-cases header values, SDKs do not.
            for lower_cased in [false, true] {
                if lower_cased && !candidate.has_upper_case()? {
                    continue;
                }
                if candidate.matches(key, lower_cased)? {
                    return Ok(Match { host: host_match, real_path: path != "/", lower_cased });
                }
                hashed_bytes += 1024 + incoming.query.len();
                if hashed_bytes > HASHED_MAX_BYTES {
                    return Err(Mismatch::Signature);
                }
            }
        }
    }
    Err(Mismatch::Signature)
}

/// The hash of the body as received, in hex; of nothing for a GET.
fn payload_hash(incoming: &Incoming<'_>) -> [u8; 64] {
    if payload_is_unsigned(incoming) {
        hex_of(Sha256::digest(UNSIGNED_PAYLOAD).into())
    } else if incoming.method == http::Method::GET {
        hex_of(Sha256::digest(b"").into())
    } else {
        hex_of(Sha256::digest(incoming.body).into())
    }
}

/// The hosts a client may have signed, the likely ones first, none twice.
fn hosts<'a>(
    incoming: &Incoming<'a>,
    public_names: &'a [impl AsRef<str>],
) -> impl Iterator<Item = (HostMatch, &'a str)> {
    let received = incoming.known_header(&http::header::HOST).map(str::trim_ascii);
    let bare = received.and_then(without_port);
    let named = public_names.iter().map(AsRef::as_ref).take(PUBLIC_NAMES_MAX).enumerate();
    let named = named
        .filter(move |(_, name)| Some(*name) != received && Some(*name) != bare)
        .map(|(place, name)| (HostMatch::PublicName(place), name));
    let received = received.map(|host| (HostMatch::AsReceived, host));
    let bare = bare.map(|host| (HostMatch::WithoutPort, host));
    received.into_iter().chain(bare).chain(named)
}

/// The host without its port; `None` when it has none.
fn without_port(host: &str) -> Option<&str> {
    let (bare, port) = host.rsplit_once(':')?;
    let numeric = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (numeric && !bare.is_empty()).then_some(bare)
}

/// Every client signs `/` whatever its path, but Node with a path prefix.
fn paths<'a>(incoming: &Incoming<'a>) -> impl Iterator<Item = &'a str> {
    let real = Some(incoming.path).filter(|path| !matches!(*path, "/" | ""));
    std::iter::once("/").chain(real)
}

/// One reading of what the client may have signed.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    tc3: &'a Tc3<'a>,
    incoming: &'a Incoming<'a>,
    timestamp: i64,
    host: &'a str,
    path: &'a str,
    payload: &'a [u8; 64],
}

impl<'a> Candidate<'a> {
    fn matches(&self, key: &SigningKey, lower_cased: bool) -> Result<bool, Mismatch> {
        let request = self.canonical_request_hash(lower_cased)?;
        let expected = sign_hash(key, self.timestamp, self.tc3.date, self.tc3.service, request);
        Ok(expected.ct_eq(&self.tc3.signature).into())
    }

    /// The query is taken raw: Python, Java, PHP, .NET and Node do not sort it.
    fn canonical_request_hash(&self, lower_cased: bool) -> Result<[u8; 64], Mismatch> {
        let query = if self.incoming.method == http::Method::GET { self.incoming.query } else { "" };
        let mut hash = Sha256::new();
        for line in [self.incoming.method.as_str(), self.path, query] {
            hash.update(line);
            hash.update(b"\n");
        }
        for name in self.tc3.signed_headers.split(';') {
            hash.update(name);
            hash.update(b":");
            update_cased(&mut hash, self.header(name)?, lower_cased);
            hash.update(b"\n");
        }
        hash.update(b"\n");
        hash.update(self.tc3.signed_headers);
        hash.update(b"\n");
        hash.update(self.payload);
        Ok(hex_of(hash.finalize().into()))
    }

    fn has_upper_case(&self) -> Result<bool, Mismatch> {
        for name in self.tc3.signed_headers.split(';') {
            if self.header(name)?.iter().any(u8::is_ascii_uppercase) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn header(&self, name: &str) -> Result<&'a [u8], Mismatch> {
        if name == "host" {
            return Ok(self.host.as_bytes());
        }
        let mut values = self.incoming.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => Ok(HeaderValue::as_bytes(only).trim_ascii()),
            _ => Err(Mismatch::Header),
        }
    }
}

fn update_cased(hash: &mut Sha256, value: &[u8], lower_cased: bool) {
    if !lower_cased {
        return hash.update(value);
    }
    let mut lower = [0; 64];
    for chunk in value.chunks(lower.len()) {
        let lower = &mut lower[..chunk.len()];
        lower.copy_from_slice(chunk);
        lower.make_ascii_lowercase();
        hash.update(lower);
    }
}

/// The signature of a canonical request, by its hash in hex.
fn sign_hash(key: &SigningKey, timestamp: i64, date: &str, service: &str, request: [u8; 64]) -> [u8; 32] {
    let mut decimal = [0; 20];
    let mut unwritten = &mut decimal[..];
    write!(unwritten, "{timestamp}").expect("every i64 has at most 20 characters");
    let unwritten_len = unwritten.len();
    let mut mac = key.0.clone();
    for part in [ALGORITHM, "\n"] {
        mac.update(part.as_bytes());
    }
    mac.update(&decimal[..20 - unwritten_len]);
    for part in ["\n", date, "/", service, "/", TERMINATOR, "\n"] {
        mac.update(part.as_bytes());
    }
    mac.update(&request);
    mac.finalize().into_bytes().into()
}

fn hex_of(bytes: [u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(bytes, &mut text).expect("64 digits for 32 bytes");
    text
}

// ---------------------------------------------------------------- v1

/// The HMAC of a signature v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum V1Method {
    /// `HmacSHA1`: also what an absent or unknown `SignatureMethod` means.
    HmacSha1,
    /// `HmacSHA256`: only this exact spelling. Node's international SDK uses it by default.
    HmacSha256,
}

impl V1Method {
    /// What a `SignatureMethod` selects.
    pub fn named(name: Option<&str>) -> Self {
        match name {
            Some("HmacSHA256") => V1Method::HmacSha256,
            _ => V1Method::HmacSha1,
        }
    }

    fn sign(self, secret_key: &str, parts: &[&[u8]]) -> Vec<u8> {
        fn mac<M: Mac + KeyInit>(secret_key: &str, parts: &[&[u8]]) -> Vec<u8> {
            let mut mac: M = keyed(secret_key.as_bytes());
            for part in parts {
                Mac::update(&mut mac, part);
            }
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            V1Method::HmacSha1 => mac::<Hmac<Sha1>>(secret_key, parts),
            V1Method::HmacSha256 => mac::<Hmac<Sha256>>(secret_key, parts),
        }
    }
}

/// A signature v1: everything that was signed, and the signature.
#[derive(Clone)]
pub struct V1<'a> {
    /// Every parameter but `Signature`, decoded, sorted by the bytes of its name.
    parameters: Vec<Pair<'a>>,
    method: V1Method,
    /// `None` when the signature is not base64.
    signature: Option<Vec<u8>>,
}

impl fmt::Debug for V1<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("V1").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> V1<'a> {
    /// From sorted parameters and the value of `Signature`, which may be among them.
    pub(super) fn new(mut parameters: Vec<Pair<'a>>, signature: Cow<'a, str>) -> Self {
        parameters.retain(|(name, _)| name != "Signature");
        let method = parameters.iter().find(|(name, _)| name == "SignatureMethod");
        V1 {
            method: V1Method::named(method.map(|(_, value)| value.as_ref())),
            signature: v1_signature(&signature),
            parameters,
        }
    }

    /// `k1=v1&k2=v2`, values raw. Empty values are part of it: Go sends `Region=` and signs it.
    ///
    /// Python and Java replace `_` by `.` in names when they sign; no parameter here has one.
    fn sorted(&self) -> String {
        let length = self.parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut sorted = String::with_capacity(length);
        for (name, value) in &self.parameters {
            if !sorted.is_empty() {
                sorted.push('&');
            }
            sorted.push_str(name);
            sorted.push('=');
            sorted.push_str(value);
        }
        sorted
    }
}

/// Ruby's base64 ends in a newline; a `+` that was not escaped arrives as a space; padding does not
/// matter.
fn v1_signature(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_ascii().trim_end_matches('=').replace(' ', "+");
    BASE64_UNPADDED.decode(text).ok()
}

/// Verifies a signature v1.
///
/// # Errors
/// [`Mismatch::Signature`].
pub fn verify_v1(
    v1: &V1<'_>,
    incoming: &Incoming<'_>,
    secret_key: &str,
    public_names: &[impl AsRef<str>],
) -> Result<Match, Mismatch> {
    let sorted = v1.sorted();
    let mut hashed_bytes = 0;
    for (host_match, host) in hosts(incoming, public_names) {
        for path in paths(incoming) {
            if v1_matches(v1, incoming, secret_key, [host, path, &sorted]) {
                return Ok(Match { host: host_match, real_path: path != "/", lower_cased: false });
            }
            hashed_bytes += 1024 + sorted.len();
            if hashed_bytes > HASHED_MAX_BYTES {
                return Err(Mismatch::Signature);
            }
        }
    }
    Err(Mismatch::Signature)
}

/// Compares decoded bytes, so that padding is no question.
fn v1_matches(
    v1: &V1<'_>,
    incoming: &Incoming<'_>,
    secret_key: &str,
    [host, path, sorted]: [&str; 3],
) -> bool {
    let Some(signature) = &v1.signature else { return false };
    let parts = [incoming.method.as_str(), host, path, "?", sorted].map(str::as_bytes);
    v1.method.sign(secret_key, &parts).ct_eq(signature).into()
}

// ---------------------------------------------------------------- signing

/// A request about to be signed with TC3.
#[derive(Clone, Copy)]
pub struct Unsigned<'a> {
    /// Request method.
    pub method: &'a http::Method,
    /// `Host` as it will be sent.
    pub host: &'a str,
    /// `Content-Type` as it will be sent.
    pub content_type: &'a str,
    /// Raw query string without the `?`; signed for a GET only.
    pub query: &'a str,
    /// The body; `None` signs `UNSIGNED-PAYLOAD`, which needs the header of that name's value.
    pub body: Option<&'a [u8]>,
    /// Signed beside `content-type` and `host` if given, in lower case as the documentation does.
    pub action: Option<&'a str>,
    /// Unix seconds, as sent in `X-TC-Timestamp`.
    pub timestamp: i64,
    /// Part of the scope: `faceid`, or what a client makes of its endpoint.
    pub service: &'a str,
}

/// The `Authorization` header for a request, path `/`.
pub fn sign_tc3(request: &Unsigned<'_>, secret_id: &str, secret_key: &str) -> String {
    let date = utc_date(request.timestamp);
    let signed = if request.action.is_some() { "content-type;host;x-tc-action" } else { "content-type;host" };
    let key = SigningKey::derive(secret_key, &date, request.service);
    let hash = hex_of(Sha256::digest(canonical_request(request, signed)).into());
    let signature = sign_hash(&key, request.timestamp, &date, request.service, hash);
    format!(
        "{ALGORITHM} Credential={secret_id}/{date}/{service}/{TERMINATOR}, \
         SignedHeaders={signed}, Signature={signature}",
        service = request.service,
        signature = hex::encode(signature),
    )
}

/// A question as most clients put it: JSON, posted to `/`, signed with TC3 for the service `faceid`.
#[derive(Clone, Copy)]
pub struct JsonPost<'a> {
    /// `Host` as it will be sent.
    pub host: &'a str,
    /// What is asked, such as `BankCard4EVerification`.
    pub action: &'a str,
    /// The members.
    pub body: &'a [u8],
    /// Unix seconds.
    pub timestamp: i64,
}

impl JsonPost<'_> {
    /// All its headers but `Host` and `Content-Length`, names in lower case.
    pub fn headers(&self, secret_id: &str, secret_key: &str) -> [(&'static str, String); 5] {
        const CONTENT_TYPE: &str = "application/json";
        let unsigned = Unsigned {
            method: &http::Method::POST,
            host: self.host,
            content_type: CONTENT_TYPE,
            query: "",
            body: Some(self.body),
            action: None,
            timestamp: self.timestamp,
            service: "faceid",
        };
        [
            ("authorization", sign_tc3(&unsigned, secret_id, secret_key)),
            ("content-type", CONTENT_TYPE.into()),
            ("x-tc-action", self.action.into()),
            ("x-tc-version", super::action::VERSION.into()),
            ("x-tc-timestamp", self.timestamp.to_string()),
        ]
    }

    /// The whole request in the bytes of HTTP/1.1; `more` are headers besides.
    pub fn to_http1(&self, secret_id: &str, secret_key: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("POST / HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in self.headers(secret_id, secret_key) {
            head += &format!("{name}: {value}\r\n");
        }
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", self.body.len());
        [head.as_bytes(), self.body].concat()
    }
}

fn canonical_request(request: &Unsigned<'_>, signed_headers: &str) -> String {
    let get = request.method == http::Method::GET;
    let payload: &[u8] = match request.body {
        None => UNSIGNED_PAYLOAD.as_bytes(),
        Some(_) if get => b"",
        Some(body) => body,
    };
    let action = request.action.map(|action| format!("x-tc-action:{}\n", action.to_lowercase()));
    format!(
        "{}\n/\n{}\ncontent-type:{}\nhost:{}\n{}\n{signed_headers}\n{}",
        request.method,
        if get { request.query } else { "" },
        request.content_type,
        request.host,
        action.unwrap_or_default(),
        hex::encode(Sha256::digest(payload)),
    )
}

/// The `Signature` parameter, base64, over all other parameters, decoded and in any order.
///
/// `target` is method, host and path run together: `POSTfaceid.tencentcloudapi.com/`.
pub fn sign_v1(target: &str, parameters: &[(String, String)], secret_key: &str, method: V1Method) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort();
    let sorted: Vec<_> = sorted.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sorted = sorted.join("&");
    let parts = [target, "?", &sorted].map(str::as_bytes);
    BASE64.encode(method.sign(secret_key, &parts))
}

#[cfg(test)]
mod tests {
    use super::{Candidate, SigningKey, Tc3, derivation, hex_of, sign_hash};
    use crate::Incoming;
    use http::{HeaderMap, Method};
    use sha2::{Digest, Sha256};

    /// The intermediate keys Tencent's signature page prints.
    #[test]
    fn derivation_as_published() {
        let keys = derivation("********************************", "2019-02-25", "cvm");
        assert_eq!(
            keys.map(|key| hex::encode(&key[..])),
            [
                "da98fb70dcf6b112dc21038d1eeeb3a95c74b4dcb12c1131f864f6066bd02be0",
                "8d70cbefb03939f929db64d32dc2ba89b1095620119fe3e050e2b18c5bd2752f",
                "b596b923aad85185e2d1f6659d2a062e0a86731226e021e61bfe06f7ed05f5af",
            ]
        );
    }

    /// The hashes of canonical requests that page prints, by signed headers.
    #[test]
    fn canonical_requests_as_published() {
        let body =
            br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
        let payload = hex_of(Sha256::digest(body).into());
        assert_eq!(
            std::str::from_utf8(&payload).unwrap(),
            "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064"
        );
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json; charset=utf-8".parse().unwrap());
        headers.insert("x-tc-action", "DescribeInstances".parse().unwrap());
        let incoming = Incoming { method: &Method::POST, path: "/", query: "", headers: &headers, body };
        for (signed_headers, hash) in [
            (
                "content-type;host;x-tc-action",
                "7019a55be8395899b900fb5564e4200d984910f34794a27cb3fb7d10ff6a1e84",
            ),
            ("content-type;host", "5ffe6a04c0664d6b969fab9a13bdab201d63ee709638e2749d62a09ca18d7031"),
        ] {
            let tc3 = Tc3 {
                secret_id: "AKID",
                date: "2019-02-25",
                service: "cvm",
                signed_headers,
                signature: [0; 32],
            };
            let candidate = Candidate {
                tc3: &tc3,
                incoming: &incoming,
                timestamp: 1_551_113_065,
                host: "cvm.tencentcloudapi.com",
                path: "/",
                payload: &payload,
            };
            let computed = candidate.canonical_request_hash(true).unwrap();
            assert_eq!(std::str::from_utf8(&computed).unwrap(), hash);
        }
    }

    /// The GET example of the same page.
    #[test]
    fn canonical_get_as_published() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let incoming = Incoming {
            method: &Method::GET,
            path: "/",
            query: "Limit=10&Offset=0",
            headers: &headers,
            body: b"",
        };
        let payload = super::payload_hash(&incoming);
        let tc3 = Tc3 {
            secret_id: "AKID",
            date: "2018-10-09",
            service: "cvm",
            signed_headers: "content-type;host",
            signature: [0; 32],
        };
        let candidate = Candidate {
            tc3: &tc3,
            incoming: &incoming,
            timestamp: 1_539_084_154,
            host: "cvm.tencentcloudapi.com",
            path: "/",
            payload: &payload,
        };
        let hash = candidate.canonical_request_hash(false).unwrap();
        assert_eq!(
            std::str::from_utf8(&hash).unwrap(),
            "91c9c192c14460df6c1ffc69e34e6c5e90708de2a6d282cccf957dbf1aa7f3a7"
        );
        let key = SigningKey::derive("Gu5t9xGARNpq86cd98joQYCN3EXAMPLE", "2018-10-09", "cvm");
        let signature = sign_hash(&key, 1_539_084_154, "2018-10-09", "cvm", hash);
        assert_eq!(
            hex::encode(signature),
            "5da7a33f6993f0614b047e5df4582db9e9bf4672ba50567dba16c6ccf174c474"
        );
    }
}
