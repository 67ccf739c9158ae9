//! Tencent Cloud API 3.0, as bytes: every test shows a request and what becomes of it.
//!
//! `captures/` holds requests of unmodified official clients, recorded on loopback with the sample
//! key pair of Tencent's older documentation; heads have line feeds for reading, bodies are exact.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should stop")]

mod captures;
mod diagnosis;
mod flatten;
mod fuzz;
mod members;
mod reply;
mod request;
mod support;
mod tampering;
mod vectors;
