//! The wires card4e speaks: bytes to typed calls and back, in both directions.
//!
//! Nothing here does IO, reads a clock or knows what verification means; nothing of card4e is
//! imported. Another protocol is one more file here.

pub mod acedata;
pub mod client;
pub mod code;
pub mod envelope;
pub mod native;
pub mod tencent;

/// One HTTP request as it stood on the wire, with its body read completely.
///
/// Signatures cover raw bytes, so nothing is decoded or normalised before it gets here.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Request method.
    pub method: &'a http::Method,
    /// Raw path of the target, `/` for Tencent's clients nearly always; without the query.
    pub path: &'a str,
    /// Raw query string as sent, without the `?`; empty when there is none.
    pub query: &'a str,
    /// All headers; on HTTP/2 the server has copied `:authority` into `host`.
    pub headers: &'a http::HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// First value of a header as text; `None` when absent or not UTF-8.
    ///
    /// Header values are read as UTF-8, not only ASCII: clients send raw Chinese in some of them.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        // To find it by hash, `HeaderMap` first parses the name: more work than to look at all of a request.
        let (wanted, last) = (name.as_bytes(), name.bytes().last()?.to_ascii_lowercase());
        // Names in it are in lower case. Most of the same length differ in the last letter.
        let is_named = |known: &[u8]| {
            known.len() == wanted.len() && known.ends_with(&[last]) && known.eq_ignore_ascii_case(wanted)
        };
        let (_, value) = self.headers.iter().find(|(known, _)| is_named(known.as_str().as_bytes()))?;
        std::str::from_utf8(value.as_bytes()).ok()
    }

    /// The same for a name that need not be parsed: found by its hash, in a third of the time.
    pub fn known_header(&self, name: &http::HeaderName) -> Option<&'a str> {
        std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }
}

/// A header that names a question for whoever sends it again, spelled in a way nobody can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadIdempotencyKey {
    /// Both spellings, or one twice, with different values.
    Ambiguous,
    /// Not 1 to 255 visible ASCII characters.
    Malformed,
}

impl<'a> Incoming<'a> {
    /// The caller's idempotency key, under either spelling in use: `Idempotency-Key`, or
    /// `X-Idempotency-Key` as Tencent's Go SDK sends it. Neither wire has such a member; without one,
    /// an SDK that repeats a POST after a timeout could not tell us that it is the same question.
    ///
    /// # Errors
    /// An unusable key is not ignored: who sends one relies on being charged once.
    pub fn idempotency_key(&self) -> Result<Option<&'a str>, BadIdempotencyKey> {
        if !self.headers.keys().any(|name| name.as_str().ends_with("idempotency-key")) {
            return Ok(None);
        }
        let named = ["idempotency-key", "x-idempotency-key"].into_iter();
        let mut keys = named.flat_map(|name| self.headers.get_all(name)).map(|value| value.as_bytes());
        let Some(key) = keys.next() else { return Ok(None) };
        if keys.any(|other| other != key) {
            return Err(BadIdempotencyKey::Ambiguous);
        }
        visible_ascii(key, 255).map(Some).ok_or(BadIdempotencyKey::Malformed)
    }
}

/// Bytes that can be echoed and logged: 1 to `len_max` visible ASCII characters.
pub(crate) fn visible_ascii(bytes: &[u8], len_max: usize) -> Option<&str> {
    let visible = bytes.iter().all(u8::is_ascii_graphic);
    let sized = (1..=len_max).contains(&bytes.len());
    (visible && sized).then(|| std::str::from_utf8(bytes).ok())?
}

/// One of the four elements. Each wire has spellings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Name of the card's holder.
    Name,
    /// Number of the bank card.
    BankCard,
    /// Mobile number reserved with the bank.
    Phone,
    /// Number of the identity document.
    IdCard,
}

impl Element {
    /// All four, in the order both wires document them.
    pub const ALL: [Element; 4] = [Element::Name, Element::BankCard, Element::Phone, Element::IdCard];
}

/// The language of a description or an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// `zh-CN`, what Tencent's domestic clients and the AceData guide's Chinese edition show.
    Chinese,
    /// `en-US`.
    English,
}
