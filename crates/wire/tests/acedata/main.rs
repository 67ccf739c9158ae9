//! The AceData wire as a transcript: whole requests in, whole replies out.

mod body;
mod error;
mod fuzz;
mod reply;
mod request;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::Incoming;
use wire::acedata::{Check, FOUR_ELEMENTS, Fault};

/// A request as a transcript shows it: request line, headers, an empty line, the body.
pub(crate) struct Transcript {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Transcript {
    pub(crate) fn new(text: &str) -> Transcript {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let mut start = lines.next().unwrap_or_default().split(' ');
        let method = start.next().unwrap_or_default().parse().expect("a method");
        let path = start.next().expect("a path").to_owned();
        let headers = lines.map(|line| line.split_once(':').expect("a header")).map(header).collect();
        Transcript { method, path, headers, body: body.as_bytes().to_vec() }
    }

    pub(crate) fn incoming(&self) -> Incoming<'_> {
        Incoming {
            method: &self.method,
            path: &self.path,
            query: "",
            headers: &self.headers,
            body: &self.body,
        }
    }
}

fn header((name, value): (&str, &str)) -> (HeaderName, HeaderValue) {
    let value = value.strip_prefix(' ').unwrap_or(value);
    (name.parse().expect("a header name"), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
}

/// A request with these header lines and nothing else of interest.
pub(crate) fn with_headers(headers: &str) -> Transcript {
    Transcript::new(&format!("POST /identity/bankcard/check-4e HTTP/1.1\n{headers}"))
}

pub(crate) fn read(body: &str) -> Result<Check<'_>, Fault> {
    Check::read(&FOUR_ELEMENTS, body.as_bytes())
}
