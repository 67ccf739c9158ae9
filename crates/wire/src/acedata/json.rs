//! The request body as JSON, borrowed from its bytes and bounded.
//!
//! Types are looked at after parsing, not by serde while parsing: its messages would quote what was
//! sent, and a card number must not come back in an error. Nor is a whole tree kept: ten megabytes of
//! `[0,0,…]` would be a few hundred in memory, so only the places this wire reads are kept at all.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::{Fault, Takes};

/// Every member that this wire reads, on any of its endpoints, and how deep it may be.
const KNOWN: [(&str, Depth); 13] = [
    ("name", SCALAR),
    ("bank_card", SCALAR),
    ("phone", SCALAR),
    ("mobile", SCALAR),
    ("id_card", SCALAR),
    ("cert_type", SCALAR),
    ("validity_begin", SCALAR),
    ("validity_end", SCALAR),
    ("verify_mode", SCALAR),
    ("iv", SCALAR),
    ("ciphertext_blob", SCALAR),
    ("encrypt_list", LIST),
    ("encryption", ENCRYPTION),
];

/// The members of a body that this wire reads; a missing one is [`Json::Null`].
#[derive(Default)]
pub(super) struct Members<'a>([Json<'a>; KNOWN.len()]);

impl<'a> Members<'a> {
    /// Reads a body: JSON throughout, an object on top.
    pub(super) fn parse(takes: &Takes, body: &'a [u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Fault::bad_request("The request body is not valid UTF-8."))?;
        if text.trim_ascii().is_empty() {
            return Ok(Members::default());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(MembersVisitor(takes)).and_then(|read| json.end().map(|()| read));
        read.map_err(|error| match error.classify() {
            Category::Data => Fault::bad_request("The request body must be a JSON object."),
            _ => Fault::bad_request(format!(
                "The request body is not valid JSON (line {}, column {}).",
                error.line(),
                error.column()
            )),
        })
    }

    /// The member of that name.
    pub(super) fn take(&mut self, name: &str) -> Json<'a> {
        at(name).map_or(Json::Null, |at| std::mem::take(&mut self.0[at]))
    }

    /// All missing members in one fault, so that a newcomer sends two requests and not five.
    pub(super) fn require_all(&self, takes: &Takes) -> Result<(), Fault> {
        let validity: &[&str] = if takes.validity { &["validity_begin", "validity_end"] } else { &[] };
        let required = takes.names().into_iter().chain(validity.iter().copied());
        let is_missing = |name: &&str| at(name).is_none_or(|at| matches!(self.0[at], Json::Null));
        let missing: Vec<&str> = required.filter(is_missing).collect();
        if missing.is_empty() { Ok(()) } else { Err(Fault::missing(&missing)) }
    }
}

fn at(name: &str) -> Option<usize> {
    KNOWN.iter().position(|(known, _)| *known == name)
}

/// Written out, because a derived one would also take an array and refuse a member sent twice.
struct MembersVisitor<'t>(&'t Takes);

impl<'de> Visitor<'de> for MembersVisitor<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key_seed(SCALAR)? {
            // What the endpoint does not take is not even looked at.
            let known = match &name {
                Json::Text(name) if self.0.reads(name) => at(name),
                _ => None,
            };
            match known {
                Some(at) => members.0[at] = map.next_value_seed(KNOWN[at].1)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
    }
}

/// A JSON value, kept as far as it is of use.
#[derive(Default)]
pub(crate) enum Json<'a> {
    /// `null`, or not there at all: this wire makes no difference.
    #[default]
    Null,
    /// A number that is an `i64`.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Borrowed unless it has escapes.
    Text(Cow<'a, str>),
    /// Fewer than [`ENTRIES_MAX`] values.
    Array(Vec<Json<'a>>),
    /// Fewer than [`ENTRIES_MAX`] members.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    /// What is never of use: a boolean, or a container too deep or too large.
    Other,
}

/// A container with this many entries is of no use; the longest list in use has four.
const ENTRIES_MAX: usize = 32;

/// How many containers may stand around a value that is kept.
#[derive(Clone, Copy)]
pub(crate) struct Depth(u8);

pub(crate) const SCALAR: Depth = Depth(0);
/// A list of scalars.
const LIST: Depth = Depth(1);
/// The array, its object, and the lists in that.
const ENCRYPTION: Depth = Depth(3);

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(number).map_or(Json::Float(number as f64), Json::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        if let Some(inner) = self.0.checked_sub(1).map(Depth) {
            while items.len() < ENTRIES_MAX {
                match seq.next_element_seed(inner)? {
                    Some(item) => items.push(item),
                    None => return Ok(Json::Array(items)),
                }
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members = Vec::new();
        if let Some(inner) = self.0.checked_sub(1).map(Depth) {
            while members.len() < ENTRIES_MAX {
                match map.next_key_seed(SCALAR)? {
                    Some(Json::Text(name)) => members.push((name, map.next_value_seed(inner)?)),
                    Some(_) => drop(map.next_value::<IgnoredAny>()?),
                    None => return Ok(Json::Object(members)),
                }
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }
}
