//! The two wires card4e speaks: bytes to typed calls and back, in both directions.
//!
//! Nothing here does IO, reads a clock or knows what verification means; nothing of card4e is
//! imported. A third protocol is one more file here.

pub mod acedata;
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
        std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }
}

/// The language of a description or an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// `zh-CN`, what Tencent's domestic clients and the AceData guide's Chinese edition show.
    Chinese,
    /// `en-US`.
    English,
}
