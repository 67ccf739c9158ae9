//! The little of `multipart/form-data` this wire needs: text parts as flat members.
//!
//! No card action is documented to take it, but the protocol has it and an error code for it.

use serde_json::{Map, Value};

use super::error::{ErrorCode, Fault};
use super::flatten::{PARAMETERS_MAX, unflatten};
use crate::Incoming;

/// Reads every part as a flat parameter.
///
/// # Errors
/// `InvalidRequest` for a body that is not well-formed or not text, `InvalidParameter` for names
/// that contradict each other.
pub(super) fn members(incoming: &Incoming<'_>) -> Result<Map<String, Value>, Fault> {
    let content_type = incoming.header("content-type").unwrap_or_default();
    let parts = boundary(content_type).and_then(|boundary| parts(incoming.body, boundary));
    unflatten(parts.ok_or_else(|| Fault::from(ErrorCode::InvalidRequest))?)
}

fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.split(';').skip(1);
    let value = parameters.filter_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    });
    value.last().filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// `--boundary CRLF headers CRLF CRLF content CRLF --boundary ... --boundary--`
fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let part = rest.strip_prefix(b"\r\n")?;
        let (part, next) = cut(part, delimiter.as_bytes())?;
        let (head, content) = cut(part, b"\r\n\r\n")?;
        parts.push((name(head)?, std::str::from_utf8(content).ok()?));
        if parts.len() > PARAMETERS_MAX {
            return None;
        }
        rest = next;
    }
    Some(parts)
}

/// `Content-Disposition: form-data; name="Name"`
fn name(head: &[u8]) -> Option<&str> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    disposition.split(';').find_map(|parameter| {
        let value = parameter.trim_ascii().strip_prefix("name=")?;
        Some(value.trim_matches('"'))
    })
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}
