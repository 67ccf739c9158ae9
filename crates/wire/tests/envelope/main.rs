//! Envelopes: published vectors, envelopes made here, and what becomes of tampered ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod properties;
mod seal;
mod tampering;
mod vectors;
