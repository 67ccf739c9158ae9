//! What verification means. Knows no HTTP server.

pub mod outcome;
pub mod subject;
pub mod issuer;
