//! The AceData wire: `POST /identity/bankcard/check-4e`, a bearer token and a small JSON body.
//!
//! A request is read in the order of this file: [`route`], [`bearer`], [`CheckFourElements::read`];
//! a reply is [`success`] or [`failure`]. HTTP status tells about transport and account, never
//! about the verdict: "not matched" is a 200 like "passed".
//!
//! What this file does not do: look a token up, open an envelope (`envelope.rs` does), judge an element. An element that
//! is present but nonsense is the engine's to answer, with the free code of its format.

use std::borrow::Cow;
use std::fmt;

use http::Method;

use crate::envelope::{Algorithm, Envelope, Parts};
use crate::{BadIdempotencyKey, Incoming, Language, visible_ascii};

mod error;
mod json;

pub use crate::Element;
pub use error::{ErrorCode, Fault, failure};
use json::Members;
pub(crate) use json::{Json, SCALAR};

/// The path of the four-element check, without the slash some clients put at its end.
pub const PATH: &str = "/identity/bankcard/check-4e";

/// The largest body worth reading, the gateway's own bound. The server stops there and answers
/// [`ErrorCode::RequestTooLarge`].
pub const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What a path of this wire asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The four-element check of a bank card.
    Check4E,
}

/// The endpoint at a path, `None` where there is none.
///
/// Both slash forms are answered in place. A redirect between them would break callers: httpx
/// follows none, and `requests` turns the POST into a GET on the way.
pub fn endpoint(path: &str) -> Option<Endpoint> {
    (path.strip_suffix('/').unwrap_or(path) == PATH).then_some(Endpoint::Check4E)
}

/// The endpoint a request asks for, or why there is none: the path first, then the method.
pub fn route(request: &Incoming<'_>) -> Result<Endpoint, Fault> {
    let endpoint = endpoint(request.path).ok_or(ErrorCode::NoApi)?;
    match request.method {
        &Method::POST => Ok(endpoint),
        _ => Err(ErrorCode::MethodNotAllowed.into()),
    }
}

/// The secret a caller presented. Well-formed, not yet known to be anybody's.
#[derive(Clone, Copy)]
pub struct Bearer<'a>(&'a str);

impl<'a> Bearer<'a> {
    /// The secret itself; to be hashed in the line that asks for it.
    pub fn secret(self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(***)")
    }
}

/// The longest token the platform's contract allows.
const TOKEN_CHARS_MAX: usize = 512;

/// The bearer token of a request.
///
/// Only the header counts: a token in the query would end up in access logs.
pub fn bearer<'a>(request: &Incoming<'a>) -> Result<Bearer<'a>, Fault> {
    let bearer = presented(request)?;
    // The official SDKs send one token to both APIs, so the wrong kind is a common mistake.
    if bearer.0.starts_with("platform-v1-") {
        return Err(Fault::invalid_token(
            "This is an account token, which is for the management API. \
             This endpoint needs the API key of an application.",
        ));
    }
    Ok(bearer)
}

/// A bearer token of whatever kind.
pub fn presented<'a>(request: &Incoming<'a>) -> Result<Bearer<'a>, Fault> {
    let header = request.header("authorization").unwrap_or_default();
    let header = header.trim_ascii();
    if header.is_empty() {
        return Err(Fault::invalid_token("Send it in the header `authorization: Bearer <token>`."));
    }
    let (scheme, token) = header.split_once([' ', '\t']).unwrap_or((header, ""));
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Fault::invalid_token("The authorization scheme must be `Bearer`."));
    }
    match token_flaw(token) {
        Some(hint) => Err(Fault::invalid_token(hint)),
        None => Ok(Bearer(token)),
    }
}

/// What is wrong with a token, as a sentence for its owner.
fn token_flaw(token: &str) -> Option<&'static str> {
    if token.is_empty() {
        return Some("There is no token after `Bearer`.");
    }
    // The guide's snippets carry the literal `{token}` until their reader has chosen a key.
    if token.starts_with('{') && token.ends_with('}') {
        return Some("`{token}` is a placeholder: put your API key in its place.");
    }
    let is_token = token.len() <= TOKEN_CHARS_MAX && token.bytes().all(is_token_byte);
    (!is_token).then_some("It has characters, or a length, that no token has.")
}

/// RFC 6750's alphabet of a bearer token.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// The caller's idempotency key; see [`Incoming::idempotency_key`].
pub fn idempotency_key<'a>(request: &Incoming<'a>) -> Result<Option<&'a str>, Fault> {
    request.idempotency_key().map_err(|bad| {
        Fault::bad_request(match bad {
            BadIdempotencyKey::Ambiguous => "Idempotency-Key was sent twice with different values.",
            BadIdempotencyKey::Malformed => "Idempotency-Key must be 1 to 255 visible ASCII characters.",
        })
    })
}

/// The `X-Request-Id` a caller chose, when it is fit to be echoed and logged.
pub fn trace_id<'a>(request: &Incoming<'a>) -> Option<&'a str> {
    visible_ascii(request.headers.get("x-request-id")?.as_bytes(), 128)
}

/// The language a caller wants `description` in: Chinese when its `Accept-Language` begins so,
/// else English, also for the `*` that Node's `fetch` sends.
pub fn language(request: &Incoming<'_>) -> Language {
    let wanted = request.header("accept-language").unwrap_or_default();
    let primary = wanted.split(['-', '_', ',', ';']).next().unwrap_or_default();
    if primary.trim_ascii().eq_ignore_ascii_case("zh") { Language::Chinese } else { Language::English }
}

/// The form of a success reply. There is no 406: browsers and Node's `fetch` send `*/*`, SDK
/// streaming helpers `text/event-stream`, and all of them read JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accept {
    /// One JSON object.
    Json,
    /// The same object as one line.
    Ndjson,
}

impl Accept {
    /// The form a request asks for; if it names both, the one named first.
    pub fn of(request: &Incoming<'_>) -> Accept {
        request
            .headers
            .get_all("accept")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(Accept::of_media_type)
            .unwrap_or(Accept::Json)
    }

    fn of_media_type(range: &str) -> Option<Accept> {
        let media_type = range.split(';').next().unwrap_or_default().trim_ascii();
        [Accept::Json, Accept::Ndjson]
            .into_iter()
            .find(|form| media_type.eq_ignore_ascii_case(form.content_type()))
    }

    /// The `Content-Type` of this form. Failures are always [`Accept::Json`].
    pub fn content_type(self) -> &'static str {
        match self {
            Accept::Json => "application/json",
            Accept::Ndjson => "application/x-ndjson",
        }
    }
}

/// One question, as read from the body: do these four belong together?
///
/// The elements are as sent, except that ASCII white space around them is gone: it comes with
/// pasting into the guide's form and is no part of any of them. Nothing here is checked beyond its
/// JSON type; an empty text is a present element.
pub struct CheckFourElements<'a> {
    /// Name of the card's holder.
    pub name: Cow<'a, str>,
    /// Number of the bank card.
    pub bank_card: Cow<'a, str>,
    /// Mobile number the bank has on file.
    pub phone: Cow<'a, str>,
    /// Number of the document of kind `cert_type`.
    pub id_card: Cow<'a, str>,
    /// Kind of document the account was opened with; 0, also when not sent, is the resident
    /// identity card.
    pub cert_type: i64,
    /// How elements are encrypted; `None` when none is.
    pub encryption: Option<Encryption<'a>>,
}

impl<'a> CheckFourElements<'a> {
    /// Reads a body. Unknown members are ignored, also `callback_url` and `async`, which the
    /// platform's asynchronous services take and this one has no use for; of a member sent twice the
    /// last counts, as in JavaScript and Python. An empty body is `{}`: clients send
    /// `Content-Length: 0` where they have nothing to say.
    pub fn read(body: &'a [u8]) -> Result<Self, Fault> {
        let members = Members::parse(body)?;
        members.require_all()?;
        Ok(CheckFourElements {
            name: element(members.name, Element::Name)?,
            bank_card: element(members.bank_card, Element::BankCard)?,
            phone: element(members.phone, Element::Phone)?,
            id_card: element(members.id_card, Element::IdCard)?,
            cert_type: cert_type(members.cert_type)?,
            encryption: encryption(members.encryption)?,
        })
    }
}

impl CheckFourElements<'_> {
    /// The envelope in which elements are sealed; `None` when all are plain text.
    ///
    /// # Errors
    /// A member of `encryption` that is missing or impossible, an entry of `encrypt_list` that is no
    /// element or stands there twice, and whatever is wrong with the envelope's form.
    pub fn envelope(&self) -> Result<Option<Envelope>, Fault> {
        let Some(encryption) = &self.encryption else { return Ok(None) };
        let elements = encryption.elements()?;
        let required = |member: &'static str, value: &'_ Option<Cow<'_, str>>| match value {
            Some(value) => Ok(value.to_string()),
            None => Err(Fault::missing(&[member])),
        };
        let blob = required("encryption.ciphertext_blob", &encryption.ciphertext_blob)?;
        let iv = required("encryption.iv", &encryption.iv)?;
        let listed: Vec<_> = elements.into_iter().map(|element| (element, self.element(element))).collect();
        let tags: Vec<_> = encryption.tag_list.iter().map(AsRef::as_ref).collect();
        let parts = Parts {
            algorithm: encryption.algorithm()?,
            ciphertext_blob: &blob,
            iv: &iv,
            listed: &listed,
            tags: &tags,
        };
        Envelope::read(parts).map(Some).map_err(|_| Fault::envelope_failed())
    }

    /// For operators who accept no element in plain text.
    ///
    /// # Errors
    /// Naming the first element that is.
    pub fn require_encryption(&self) -> Result<(), Fault> {
        let encrypted = |element| {
            let listed = self.encryption.iter().flat_map(|encryption| &encryption.encrypt_list);
            listed.into_iter().any(|listed| *listed == Listed::Known(element))
        };
        let plain = Element::ALL.into_iter().find(|element| !encrypted(*element));
        plain.map_or(Ok(()), |element| Err(Fault::encryption_required(element)))
    }

    /// The element as it stands in the request.
    fn element(&self, element: Element) -> &str {
        match element {
            Element::Name => &self.name,
            Element::BankCard => &self.bank_card,
            Element::Phone => &self.phone,
            Element::IdCard => &self.id_card,
        }
    }
}

impl fmt::Debug for CheckFourElements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckFourElements")
            .field("cert_type", &self.cert_type)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl Element {
    /// Its member's name on this wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Element::Name => "name",
            Element::BankCard => "bank_card",
            Element::Phone => "phone",
            Element::IdCard => "id_card",
        }
    }

    /// The element meant by an entry of `encrypt_list`. The guide does not say how they are spelled:
    /// its own members are in snake case, while people who come from Tencent's API write `BankCard`.
    fn listed(name: &str) -> Option<Element> {
        match name {
            "name" | "Name" => Some(Element::Name),
            "bank_card" | "BankCard" => Some(Element::BankCard),
            "phone" | "Phone" => Some(Element::Phone),
            "id_card" | "IdCard" => Some(Element::IdCard),
            _ => None,
        }
    }
}

/// How some of the elements are encrypted, not yet judged.
pub struct Encryption<'a> {
    /// `AES-256-CBC` or `SM4-GCM`; absent means the former.
    pub algorithm: Option<Cow<'a, str>>,
    /// Initial vector of the encryption.
    pub iv: Option<Cow<'a, str>>,
    /// The encrypted elements, at least one, in the order of `tag_list`.
    pub encrypt_list: Vec<Listed<'a>>,
    /// The data key, wrapped. The guide calls it a number, which it can hardly be: both are read.
    pub ciphertext_blob: Option<Cow<'a, str>>,
    /// Authentication tags, for SM4-GCM.
    pub tag_list: Vec<Cow<'a, str>>,
}

impl Encryption<'_> {
    /// The encrypted elements in their order, or the fault of the first name that is none, or is
    /// there for the second time.
    pub fn elements(&self) -> Result<Vec<Element>, Fault> {
        let mut elements = Vec::with_capacity(Element::ALL.len());
        for listed in &self.encrypt_list {
            match listed {
                Listed::Unknown(name) => return Err(Fault::not_encryptable(name)),
                Listed::Known(element) if elements.contains(element) => {
                    return Err(Fault::listed_twice(*element));
                }
                Listed::Known(element) => elements.push(*element),
            }
        }
        Ok(elements)
    }

    /// Nothing there means AES, as does the empty text of a form builder.
    fn algorithm(&self) -> Result<Algorithm, Fault> {
        match self.algorithm.as_deref() {
            None | Some("") => Ok(Algorithm::Aes256Cbc),
            Some(name) => Algorithm::named(name).ok_or_else(Fault::algorithm_unsupported),
        }
    }
}

impl fmt::Debug for Encryption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("encrypt_list", &self.encrypt_list).finish_non_exhaustive()
    }
}

/// An entry of `encrypt_list`.
#[derive(Clone, PartialEq, Eq)]
pub enum Listed<'a> {
    /// One of the four.
    Known(Element),
    /// Anything else, as sent.
    Unknown(Cow<'a, str>),
}

impl fmt::Debug for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listed::Known(element) => element.fmt(f),
            // Whatever was put here by mistake may be an element's content.
            Listed::Unknown(_) => f.write_str("Unknown(***)"),
        }
    }
}

fn element<'a>(json: Json<'a>, element: Element) -> Result<Cow<'a, str>, Fault> {
    match json {
        Json::Text(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.trim_ascii())),
        Json::Text(Cow::Owned(text)) => Ok(Cow::Owned(text.trim_ascii().to_owned())),
        // A number is refused, not printed: JavaScript has rounded a 19-digit card by then.
        _ => Err(Fault::wrong_type(element.as_str(), "a string")),
    }
}

/// `0` and `"0"` both occur: the guide says number, form builders send text.
fn cert_type(json: Json<'_>) -> Result<i64, Fault> {
    let number = match json {
        Json::Null => Some(0),
        Json::Integer(number) => Some(number),
        // Within 2^53 the cast is exact.
        Json::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
        Json::Text(text) => text.trim_ascii().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| Fault::wrong_type("cert_type", "an integer"))
}

/// An array of one object by the guide, one object by the API it descends from. Nothing listed is
/// nothing encrypted: form builders send the whole skeleton, empty.
fn encryption(json: Json<'_>) -> Result<Option<Encryption<'_>>, Fault> {
    let object = match json {
        Json::Null => return Ok(None),
        Json::Array(mut items) => match items.len() {
            0 => return Ok(None),
            1 => items.remove(0),
            _ => {
                return Err(Fault::bad_request("encryption must not hold more than one object."));
            }
        },
        json => json,
    };
    let Json::Object(members) = object else {
        return Err(Fault::wrong_type("encryption", "an object or an array of one object"));
    };
    let encryption = encryption_object(members)?;
    Ok((!encryption.encrypt_list.is_empty()).then_some(encryption))
}

fn encryption_object<'a>(members: Vec<(Cow<'a, str>, Json<'a>)>) -> Result<Encryption<'a>, Fault> {
    let mut read = Encryption {
        algorithm: None,
        iv: None,
        encrypt_list: Vec::new(),
        ciphertext_blob: None,
        tag_list: Vec::new(),
    };
    for (name, json) in members {
        match name.as_ref() {
            "algorithm" => read.algorithm = optional_text(json, "encryption.algorithm")?,
            "iv" => read.iv = optional_text(json, "encryption.iv")?,
            "ciphertext_blob" => {
                read.ciphertext_blob = optional_text(number_as_text(json), "encryption.ciphertext_blob")?;
            }
            "encrypt_list" => {
                let names = texts(json, "encryption.encrypt_list")?;
                read.encrypt_list = names.into_iter().map(listed).collect();
            }
            "tag_list" => read.tag_list = texts(json, "encryption.tag_list")?,
            _ => {}
        }
    }
    Ok(read)
}

fn listed(name: Cow<'_, str>) -> Listed<'_> {
    match Element::listed(&name) {
        Some(element) => Listed::Known(element),
        None => Listed::Unknown(name),
    }
}

fn number_as_text(json: Json<'_>) -> Json<'_> {
    match json {
        Json::Integer(number) => Json::Text(number.to_string().into()),
        Json::Float(number) => Json::Text(number.to_string().into()),
        json => json,
    }
}

fn optional_text<'a>(json: Json<'a>, member: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    match json {
        Json::Null => Ok(None),
        Json::Text(text) => Ok(Some(text)),
        _ => Err(Fault::wrong_type(member, "a string")),
    }
}

fn texts<'a>(json: Json<'a>, member: &str) -> Result<Vec<Cow<'a, str>>, Fault> {
    let wrong_type = || Fault::wrong_type(member, "an array of strings");
    let items = match json {
        Json::Null => Vec::new(),
        Json::Array(items) => items,
        _ => return Err(wrong_type()),
    };
    let text = |item| match item {
        Json::Text(text) => Ok(text),
        _ => Err(wrong_type()),
    };
    items.into_iter().map(text).collect()
}

/// The documented result codes of the four-element check.
///
/// The published table is that of the two-element check, so there is no code for a malformed
/// identity number or phone. Tencent numbers its own four-element check differently from -3 on: never
/// let a number of one meet the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum CheckCode {
    /// The four belong together.
    Passed = 0,
    /// Refused without a cause that has a code.
    NotPassed = -1,
    /// The name cannot be a name.
    NameInvalid = -2,
    /// The card number cannot be a card number.
    CardMalformed = -3,
    /// Name, document or phone are not those of the card's holder.
    HolderMismatch = -4,
    /// Payment without the card at hand is off for this card.
    CardlessNotEnabled = -5,
    /// Confiscated.
    CardConfiscated = -6,
    /// The issuer knows no such card.
    CardInvalid = -7,
    /// No bank issues cards with this prefix.
    NoIssuer = -8,
    /// Not initialised, or dormant.
    CardInactive = -9,
    /// Marked as fraudulent, to be retained.
    CardFraud = -10,
    /// Reported lost.
    CardLost = -11,
    /// Expired.
    CardExpired = -12,
    /// Restricted.
    CardRestricted = -13,
    /// Too many wrong PINs.
    PinLocked = -14,
    /// The issuer does not offer this check.
    IssuerUnsupported = -15,
    /// Nobody could answer now. A code and not a 5xx, because the SDKs repeat a 5xx at once.
    Busy = -16,
    /// Too many attempts today.
    AttemptsExceeded = -17,
}

impl CheckCode {
    /// All of them, from 0 down.
    pub const ALL: [CheckCode; 18] = [
        CheckCode::Passed,
        CheckCode::NotPassed,
        CheckCode::NameInvalid,
        CheckCode::CardMalformed,
        CheckCode::HolderMismatch,
        CheckCode::CardlessNotEnabled,
        CheckCode::CardConfiscated,
        CheckCode::CardInvalid,
        CheckCode::NoIssuer,
        CheckCode::CardInactive,
        CheckCode::CardFraud,
        CheckCode::CardLost,
        CheckCode::CardExpired,
        CheckCode::CardRestricted,
        CheckCode::PinLocked,
        CheckCode::IssuerUnsupported,
        CheckCode::Busy,
        CheckCode::AttemptsExceeded,
    ];

    /// The number sent, as text, in `result`.
    pub fn number(self) -> i8 {
        self as i8
    }

    /// Whether the published table charges for this code.
    pub fn charged(self) -> bool {
        use CheckCode::*;
        !matches!(self, NameInvalid | CardMalformed | Busy | AttemptsExceeded)
    }

    /// The published text, sent in `description`; the guide's own words in both languages.
    pub fn text(self, language: Language) -> &'static str {
        let (chinese, english) = self.texts();
        match language {
            Language::Chinese => chinese,
            Language::English => english,
        }
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            CheckCode::Passed => ("认证通过", "Authentication passed"),
            CheckCode::NotPassed => ("认证未通过", "Authentication not passed"),
            CheckCode::NameInvalid => ("姓名校验不通过", "Name verification not passed"),
            CheckCode::CardMalformed => ("银行卡号码有误", "Bank card number is incorrect"),
            CheckCode::HolderMismatch => ("持卡人信息有误", "Cardholder information is incorrect"),
            CheckCode::CardlessNotEnabled => ("未开通无卡支付", "No card payment activated"),
            CheckCode::CardConfiscated => ("此卡被没收", "This card has been confiscated"),
            CheckCode::CardInvalid => ("无效卡号", "Invalid card number"),
            CheckCode::NoIssuer => ("此卡无对应发卡行", "This card has no corresponding issuing bank"),
            CheckCode::CardInactive => {
                ("该卡未初始化或睡眠卡", "The card is not initialized or is a dormant card")
            }
            CheckCode::CardFraud => ("作弊卡、吞卡", "Fraudulent card, card swallowed"),
            CheckCode::CardLost => ("此卡已挂失", "This card has been reported lost"),
            CheckCode::CardExpired => ("该卡已过期", "This card has expired"),
            CheckCode::CardRestricted => ("受限制的卡", "Restricted card"),
            CheckCode::PinLocked => ("密码错误次数超限", "Exceeded the limit of incorrect password attempts"),
            CheckCode::IssuerUnsupported => {
                ("发卡行不支持此交易", "The issuing bank does not support this transaction")
            }
            CheckCode::Busy => ("验证中心服务繁忙", "Verification center service busy"),
            CheckCode::AttemptsExceeded => (
                "验证次数超限，请次日重试",
                "Exceeded the limit of verification attempts, please try again the next day",
            ),
        }
    }
}

/// The body of a success: `result` as text, `description`, nothing else.
///
/// Number and text come separately because an operator may choose Tencent's numbering here.
/// Never empty: the TypeScript SDK sends the question again when a 200 is not JSON.
pub fn success(number: i8, text: &str, accept: Accept) -> Vec<u8> {
    let text = serde_json::to_string(text).expect("text in memory always serialises");
    let mut body = format!(r#"{{"result":"{number}","description":{text}}}"#);
    if accept == Accept::Ndjson {
        body.push('\n');
    }
    body.into_bytes()
}
