//! The request body as JSON, borrowed from its bytes and bounded.
//!
//! Types are looked at after parsing, not by serde while parsing: its messages would quote what was
//! sent, and a card number must not come back in an error. Nor is a whole tree kept: ten megabytes of
//! `[0,0,…]` would be a few hundred in memory, so only the places this wire reads are kept at all.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::{Element, Fault};

/// The members of a body that this wire reads; a missing one is [`Json::Null`].
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) name: Json<'a>,
    pub(super) bank_card: Json<'a>,
    pub(super) phone: Json<'a>,
    pub(super) id_card: Json<'a>,
    pub(super) cert_type: Json<'a>,
    pub(super) encryption: Json<'a>,
}

impl<'a> Members<'a> {
    /// Reads a body: JSON throughout, an object on top.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Fault::bad_request("The request body is not valid UTF-8."))?;
        if text.trim_ascii().is_empty() {
            return Ok(Members::default());
        }
        serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => Fault::bad_request("The request body must be a JSON object."),
            _ => Fault::bad_request(format!(
                "The request body is not valid JSON (line {}, column {}).",
                error.line(),
                error.column()
            )),
        })
    }

    /// All missing elements in one fault, so that a newcomer sends two requests and not five.
    pub(super) fn require_all(&self) -> Result<(), Fault> {
        let elements = [&self.name, &self.bank_card, &self.phone, &self.id_card];
        let missing: Vec<&str> = Element::ALL
            .into_iter()
            .zip(elements)
            .filter(|(_, json)| matches!(json, Json::Null))
            .map(|(element, _)| element.as_str())
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Fault::missing(&missing)) }
    }
}

/// The names of the members read.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Name,
    BankCard,
    Phone,
    IdCard,
    CertType,
    Encryption,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Written out, because a derived one would also take an array and refuse a member sent twice.
struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(member) = map.next_key()? {
            match member {
                Member::Name => members.name = map.next_value_seed(SCALAR)?,
                Member::BankCard => members.bank_card = map.next_value_seed(SCALAR)?,
                Member::Phone => members.phone = map.next_value_seed(SCALAR)?,
                Member::IdCard => members.id_card = map.next_value_seed(SCALAR)?,
                Member::CertType => members.cert_type = map.next_value_seed(SCALAR)?,
                Member::Encryption => members.encryption = map.next_value_seed(ENCRYPTION)?,
                Member::Other => drop(map.next_value::<IgnoredAny>()?),
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
