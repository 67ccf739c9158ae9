//! Envelopes: published vectors, envelopes made here, and what becomes of tampered ones.

mod properties;
mod seal;
mod tampering;
mod vectors;
