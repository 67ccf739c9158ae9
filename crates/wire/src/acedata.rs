//! The AceData wire: `POST /identity/bankcard/check-4e` and its family, a bearer token and a small JSON
//! body.
//!
//! A request is read in the order of this file: [`route`], [`bearer`], [`Check::read`];
//! a reply is [`success`] or [`failure`]. HTTP status tells about transport and account, never
//! about the verdict: "not matched" is a 200 like "passed".
//!
//! What this file does not do: look a token up, open an envelope (`envelope.rs` does), judge an element. An element that
//! is present but nonsense is the engine's to answer, with the free code of its format.

use std::borrow::Cow;
use std::fmt;

use http::Method;
use serde::Serialize;

use crate::code::ResultCode;
use crate::envelope::{Algorithm, Envelope, Parts};
use crate::{BadIdempotencyKey, Incoming, Language, visible_ascii};

pub mod client;
pub mod code;
mod error;
mod json;

pub use crate::Element;
pub use error::{ErrorCode, Fault, failure};
use json::Members;
pub(crate) use json::{Json, SCALAR};

/// The largest body worth reading, the gateway's own bound. The server stops there and answers
/// [`ErrorCode::RequestTooLarge`].
pub const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What a path of this wire asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Which bank issued a card, and of which kind it is.
    BankCard1E,
    /// Card and name.
    BankCard2E,
    /// Card, name and identity number.
    BankCard3E,
    /// Card, name, identity number and phone.
    BankCard4E,
    /// Name, identity number and how long the identity card is valid.
    IdCard2E,
    /// Phone and name.
    Phone2E,
    /// Phone, name and identity number.
    Phone3E,
}

/// What a body may hold.
#[derive(Debug)]
pub struct Takes {
    /// The elements under their names, all required and all encryptable, in the guide's order.
    pub elements: &'static [(Element, &'static str)],
    /// It takes `cert_type`.
    pub cert_type: bool,
    /// It requires `validity_begin` and `validity_end`.
    pub validity: bool,
    /// It takes `verify_mode`.
    pub verify_mode: bool,
    /// The members of `encryption` stand beside the elements.
    pub flat_encryption: bool,
}

impl Takes {
    /// These elements and `encryption`.
    pub const fn only(elements: &'static [(Element, &'static str)]) -> Takes {
        Takes { elements, cert_type: false, validity: false, verify_mode: false, flat_encryption: false }
    }

    /// The names of its elements.
    fn names(&self) -> Vec<&'static str> {
        self.elements.iter().map(|(_, name)| *name).collect()
    }

    /// The name of an element; empty if it is not taken.
    fn name_of(&self, wanted: Element) -> &'static str {
        let found = self.elements.iter().find(|(element, _)| *element == wanted);
        found.map_or("", |(_, name)| name)
    }

    /// Whether a member is read at all.
    fn reads(&self, name: &str) -> bool {
        match name {
            "encryption" => true,
            "cert_type" => self.cert_type,
            "validity_begin" | "validity_end" => self.validity,
            "verify_mode" => self.verify_mode,
            "iv" | "ciphertext_blob" | "encrypt_list" => self.flat_encryption,
            name => self.elements.iter().any(|(_, known)| *known == name),
        }
    }

    /// The element meant by an entry of `encrypt_list`. The guide does not say how they are spelled:
    /// its own members are in snake case, while people who come from Tencent's API write `BankCard`.
    fn listed(&self, name: &str) -> Option<Element> {
        let found = self.elements.iter().find(|(_, known)| name == *known || name == pascal(known));
        found.map(|(element, _)| *element)
    }
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Endpoint; 7] = [
        Endpoint::BankCard1E,
        Endpoint::BankCard2E,
        Endpoint::BankCard3E,
        Endpoint::BankCard4E,
        Endpoint::IdCard2E,
        Endpoint::Phone2E,
        Endpoint::Phone3E,
    ];

    /// Its path, without the slash some clients put at its end.
    pub const fn path(self) -> &'static str {
        match self {
            Endpoint::BankCard1E => "/identity/bankcard/check-1e",
            Endpoint::BankCard2E => "/identity/bankcard/check-2e",
            Endpoint::BankCard3E => "/identity/bankcard/check-3e",
            Endpoint::BankCard4E => "/identity/bankcard/check-4e",
            Endpoint::IdCard2E => "/identity/idcard/check-2e",
            Endpoint::Phone2E => "/identity/phone/check-2e",
            Endpoint::Phone3E => "/identity/phone/check-3e",
        }
    }

    /// Its name in lists: the path without what all have in common.
    pub const fn name(self) -> &'static str {
        match self {
            Endpoint::BankCard1E => "bankcard/check-1e",
            Endpoint::BankCard2E => "bankcard/check-2e",
            Endpoint::BankCard3E => "bankcard/check-3e",
            Endpoint::BankCard4E => "bankcard/check-4e",
            Endpoint::IdCard2E => "idcard/check-2e",
            Endpoint::Phone2E => "phone/check-2e",
            Endpoint::Phone3E => "phone/check-3e",
        }
    }

    /// What its body may hold.
    pub const fn takes(self) -> &'static Takes {
        use Element::{BankCard, IdCard, Name, Phone};
        const CARD_1E: &Takes = &Takes::only(&[(BankCard, "bank_card")]);
        const CARD_2E: &Takes = &Takes::only(&[(Name, "name"), (BankCard, "bank_card")]);
        const CARD_3E: &Takes = &Takes {
            cert_type: true,
            ..Takes::only(&[(Name, "name"), (BankCard, "bank_card"), (IdCard, "id_card")])
        };
        const ID_2E: &Takes =
            &Takes { validity: true, ..Takes::only(&[(Name, "name"), (IdCard, "id_card")]) };
        // Called `mobile` here and `phone` everywhere else.
        const PHONE_2E: &Takes = &Takes::only(&[(Name, "name"), (Phone, "mobile")]);
        const PHONE_3E: &Takes = &Takes {
            verify_mode: true,
            flat_encryption: true,
            ..Takes::only(&[(Name, "name"), (Phone, "phone"), (IdCard, "id_card")])
        };
        match self {
            Endpoint::BankCard1E => CARD_1E,
            Endpoint::BankCard2E => CARD_2E,
            Endpoint::BankCard3E => CARD_3E,
            Endpoint::BankCard4E => &FOUR_ELEMENTS,
            Endpoint::IdCard2E => ID_2E,
            Endpoint::Phone2E => PHONE_2E,
            Endpoint::Phone3E => PHONE_3E,
        }
    }
}

/// `bank_card` as `BankCard`.
fn pascal(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('_').map(word).collect()
}

/// What the check of all four takes.
pub const FOUR_ELEMENTS: Takes = Takes {
    cert_type: true,
    ..Takes::only(&[
        (Element::Name, "name"),
        (Element::BankCard, "bank_card"),
        (Element::Phone, "phone"),
        (Element::IdCard, "id_card"),
    ])
};

/// The endpoint at a path, `None` where there is none.
///
/// Both slash forms are answered in place. A redirect between them would break callers: httpx
/// follows none, and `requests` turns the POST into a GET on the way.
pub fn endpoint(path: &str) -> Option<Endpoint> {
    let path = path.strip_suffix('/').unwrap_or(path);
    Endpoint::ALL.into_iter().find(|endpoint| endpoint.path() == path)
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

/// One question, as read from the body: do these elements belong together?
///
/// The elements are as sent, except that ASCII white space around them is gone: it comes with
/// pasting into the guide's form and is no part of any of them. Nothing here is checked beyond its
/// JSON type; an empty text is a present element. Those the endpoint does not take are empty.
pub struct Check<'a> {
    takes: &'static Takes,
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
    /// Begin and end of the identity card's validity, where they are required.
    pub validity: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// A mismatch is to be explained.
    pub detailed: bool,
    /// How elements are encrypted; `None` when none is.
    pub encryption: Option<Encryption<'a>>,
}

impl<'a> Check<'a> {
    /// Reads a body. Unknown members are ignored, also `callback_url` and `async`, which the
    /// platform's asynchronous services take and this one has no use for; of a member sent twice the
    /// last counts, as in JavaScript and Python. An empty body is `{}`: clients send
    /// `Content-Length: 0` where they have nothing to say.
    pub fn read(takes: &'static Takes, body: &'a [u8]) -> Result<Self, Fault> {
        let mut members = Members::parse(takes, body)?;
        members.require_all(takes)?;
        let mut text = |wanted: Element| match takes.name_of(wanted) {
            "" => Ok(Cow::Borrowed("")),
            name => element(members.take(name), name),
        };
        let (name, bank_card) = (text(Element::Name)?, text(Element::BankCard)?);
        let (phone, id_card) = (text(Element::Phone)?, text(Element::IdCard)?);
        Ok(Check {
            takes,
            name,
            bank_card,
            phone,
            id_card,
            cert_type: if takes.cert_type { cert_type(members.take("cert_type"))? } else { 0 },
            validity: match takes.validity {
                true => {
                    let mut date = |name: &'static str| element(members.take(name), name);
                    Some((date("validity_begin")?, date("validity_end")?))
                }
                false => None,
            },
            detailed: takes.verify_mode && verify_mode(members.take("verify_mode"))?,
            encryption: encryption(&mut members, takes)?,
        })
    }

    /// The envelope in which elements are sealed; `None` when all are plain text.
    ///
    /// # Errors
    /// A member of `encryption` that is missing or impossible, an entry of `encrypt_list` that is no
    /// element or stands there twice, and whatever is wrong with the envelope's form.
    pub fn envelope(&self) -> Result<Option<Envelope>, Fault> {
        let Some(encryption) = &self.encryption else { return Ok(None) };
        let elements = encryption.elements(self.takes)?;
        let required = |member: &'static str, value: &'_ Option<Cow<'_, str>>| match value {
            Some(value) => Ok(value.to_string()),
            None if encryption.is_flat => Err(Fault::missing(&[member])),
            None => Err(Fault::missing(&[&format!("encryption.{member}")])),
        };
        let blob = required("ciphertext_blob", &encryption.ciphertext_blob)?;
        let iv = required("iv", &encryption.iv)?;
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
        let encrypted = |element: Element| {
            let listed = self.encryption.iter().flat_map(|encryption| &encryption.encrypt_list);
            listed.into_iter().any(|listed| *listed == Listed::Known(element))
        };
        let plain = self.takes.elements.iter().find(|(element, _)| !encrypted(*element));
        plain.map_or(Ok(()), |(_, name)| Err(Fault::encryption_required(name)))
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

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("cert_type", &self.cert_type)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
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
    /// It stood beside the elements.
    is_flat: bool,
}

impl Encryption<'_> {
    /// The encrypted elements in their order, or the fault of the first name that is none, or is
    /// there for the second time.
    pub fn elements(&self, takes: &Takes) -> Result<Vec<Element>, Fault> {
        let mut elements = Vec::with_capacity(Element::ALL.len());
        for listed in &self.encrypt_list {
            match listed {
                Listed::Unknown(name) => return Err(Fault::not_encryptable(name, &takes.names())),
                Listed::Known(element) if elements.contains(element) => {
                    return Err(Fault::listed_twice(takes.name_of(*element)));
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

fn element<'a>(json: Json<'a>, name: &str) -> Result<Cow<'a, str>, Fault> {
    match json {
        Json::Text(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.trim_ascii())),
        Json::Text(Cow::Owned(text)) => Ok(Cow::Owned(text.trim_ascii().to_owned())),
        // A number is refused, not printed: JavaScript has rounded a 19-digit card by then.
        _ => Err(Fault::wrong_type(name, "a string")),
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

/// 1 is the long mode, 0 the short one, as text or as a number.
fn verify_mode(json: Json<'_>) -> Result<bool, Fault> {
    match json {
        Json::Null | Json::Integer(0) => Ok(false),
        Json::Integer(1) => Ok(true),
        Json::Text(mode) if matches!(mode.trim_ascii(), "" | "0") => Ok(false),
        Json::Text(mode) if mode.trim_ascii() == "1" => Ok(true),
        _ => Err(Fault::wrong_type("verify_mode", "0 or 1")),
    }
}

/// An array of one object by the guide, one object by the API it descends from. Nothing listed is
/// nothing encrypted: form builders send the whole skeleton, empty. It is looked for everywhere, also
/// where its members stand beside the elements: what it lists must never be taken for text.
fn encryption<'a>(members: &mut Members<'a>, takes: &Takes) -> Result<Option<Encryption<'a>>, Fault> {
    if takes.flat_encryption {
        const FLAT: [&str; 3] = ["iv", "encrypt_list", "ciphertext_blob"];
        let flat = FLAT.map(|name| (Cow::Borrowed(name), members.take(name))).into();
        let encryption = encryption_object(flat, takes, true)?;
        if !encryption.encrypt_list.is_empty() {
            return Ok(Some(encryption));
        }
    }
    let object = match members.take("encryption") {
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
    let encryption = encryption_object(members, takes, false)?;
    Ok((!encryption.encrypt_list.is_empty()).then_some(encryption))
}

fn encryption_object<'a>(
    members: Vec<(Cow<'a, str>, Json<'a>)>,
    takes: &Takes,
    is_flat: bool,
) -> Result<Encryption<'a>, Fault> {
    let mut read = Encryption {
        algorithm: None,
        iv: None,
        encrypt_list: Vec::new(),
        ciphertext_blob: None,
        tag_list: Vec::new(),
        is_flat,
    };
    let full_name = |name: &str| if is_flat { name.to_owned() } else { format!("encryption.{name}") };
    for (name, json) in members {
        match name.as_ref() {
            "algorithm" => read.algorithm = optional_text(json, &full_name(&name))?,
            "iv" => read.iv = optional_text(json, &full_name(&name))?,
            "ciphertext_blob" => {
                read.ciphertext_blob = optional_text(number_as_text(json), &full_name(&name))?;
            }
            "encrypt_list" => {
                let names = texts(json, &full_name(&name))?;
                read.encrypt_list = names.into_iter().map(|name| listed(name, takes)).collect();
            }
            "tag_list" => read.tag_list = texts(json, &full_name(&name))?,
            _ => {}
        }
    }
    Ok(read)
}

fn listed<'a>(name: Cow<'a, str>, takes: &Takes) -> Listed<'a> {
    match takes.listed(&name) {
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

/// What the reply of some endpoints has besides the result.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(untagged)]
pub enum Extra<'a> {
    /// Nothing.
    #[default]
    None,
    /// `bankcard/check-1e`.
    Card {
        /// The bank, as it is called in the language of the reply; empty when none is known.
        account_bank: &'a str,
        /// 1 debit, 2 credit, 3 prepaid, 4 semi-credit; -1 when none is known.
        account_type: i64,
    },
    /// `phone/check-3e`.
    Phone {
        /// The carrier; empty when it is not known.
        isp: &'a str,
        /// Which element differs, where it was asked for.
        result_detail: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    result: &'a str,
    description: &'a str,
    #[serde(flatten)]
    extra: Extra<'a>,
}

/// The body of a success: `result` as text, `description`, and what some endpoints add.
///
/// Never empty: the TypeScript SDK sends the question again when a 200 is not JSON.
pub fn success(code: ResultCode, language: Language, extra: Extra<'_>, accept: Accept) -> Vec<u8> {
    let answer = Answer { result: &code.number.to_string(), description: code.text(language), extra };
    let mut body = serde_json::to_vec(&answer).expect("text in memory always serialises");
    if accept == Accept::Ndjson {
        body.push(b'\n');
    }
    body
}
