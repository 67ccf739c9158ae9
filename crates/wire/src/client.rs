//! What both wires share when card4e is the client: a question to put, a request to send, a response to
//! read. `tencent/client.rs` and `acedata/client.rs` know the rest. No IO.

use std::fmt;

use zeroize::Zeroizing;

use crate::Element;

/// The elements of a question; those that are not asked about are empty. Does not print.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Holder name.
    pub name: &'a str,
    /// Card number.
    pub bank_card: &'a str,
    /// Identity number.
    pub id_card: &'a str,
    /// Mobile number.
    pub phone: &'a str,
    /// Begin and end of the identity card's validity, `YYYYMMDD`.
    pub validity: Option<(&'a str, &'a str)>,
}

impl<'a> Asked<'a> {
    /// One of the elements.
    pub fn get(&self, element: Element) -> &'a str {
        match element {
            Element::Name => self.name,
            Element::BankCard => self.bank_card,
            Element::IdCard => self.id_card,
            Element::Phone => self.phone,
        }
    }
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked(…)")
    }
}

/// A POST request, ready to be sent but for `Host` and `Content-Length`. Does not print.
pub struct Request {
    /// Its path.
    pub path: &'static str,
    /// Its headers, `Authorization` among them.
    pub headers: Vec<(&'static str, Zeroizing<String>)>,
    /// Its body, with the elements in it.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A response as it stood on the wire, with its body read completely.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// HTTP status.
    pub status: u16,
    /// Headers; names in lower case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// First value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The question was answered.
    Result {
        /// The number, as text: whatever stands there.
        result: String,
        /// The text beside it.
        description: String,
        /// The id the other side knows the question by.
        reference: String,
        /// Whether it says that it charged; most do not say.
        charged: Option<bool>,
    },
    /// It was refused with an error code of the wire.
    Error {
        /// The code.
        code: String,
        /// The id the other side knows the request by.
        reference: String,
    },
    /// Nothing of this wire: a proxy's page, half a body.
    Unreadable,
}
