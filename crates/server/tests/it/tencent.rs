//! The Tencent wire as an unmodified SDK meets it.
//!
//! In expected replies `…` stands for the `RequestId`, a version 4 UUID; everything else is compared.

pub mod client;

mod clock;
mod codes;
mod credentials;
mod encryption;
mod errors;
mod http;
mod idempotency;
mod limits;
mod people;
mod policy;
mod precedence;
mod request;
mod signature;
mod sizes;
mod standing;
