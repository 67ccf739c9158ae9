//! What strangers send, read as the server reads it. Whatever the bytes are, nothing panics.
//!
//! Used by the fuzz targets, and on every `cargo test` by `crates/wire/tests/shapes.rs`.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::acedata::{self, Check, Endpoint};
use wire::native::Verification;
use wire::tencent::signature::{DEFAULT_PUBLIC_NAMES, Tc3, verify};
use wire::tencent::{self, flatten};
use wire::{Incoming, Language};

/// A request with line feeds in its head: request line, headers, an empty line, the body.
pub fn request(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = (&bytes[..end], bytes.get(end + 2..).unwrap_or_default());
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().and_then(|word| word.parse().ok()).unwrap_or(Method::POST);
    let target = first.next().unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.trim().as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    read(&Incoming { method: &method, path, query, headers: &headers, body });
}

fn read(incoming: &Incoming<'_>) {
    let _ = tencent::claims(incoming);
    let _ = tencent::language(incoming, Language::Chinese);
    let _ = incoming.idempotency_key();
    if let Ok(call) = tencent::read(incoming) {
        let _ = verify(&call, incoming, "key", &DEFAULT_PUBLIC_NAMES);
    }
    let _ = acedata::route(incoming);
    let _ = acedata::bearer(incoming);
    let _ = acedata::language(incoming);
    body(incoming.body);
}

/// A body of the wires that take JSON.
pub fn body(bytes: &[u8]) {
    for endpoint in Endpoint::ALL {
        let _ = Check::read(endpoint.takes(), bytes).map(|check| check.envelope());
    }
    let _ = Verification::read(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Tc3::parse(text);
        if let Ok(pairs) = flatten::pairs(text) {
            let _ = flatten::unflatten(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        }
    }
}
