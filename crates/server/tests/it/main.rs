//! The real binary, asked over real sockets: whole requests, whole replies.
//!
//! The tree mirrors the wires. Every test starts a sandbox of its own on a free port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod acedata;
mod audit;
mod backup;
mod bulk;
mod cli;
mod console;
mod docs;
mod doctor;
mod envelope;
mod family;
mod full_disk;
mod hardening;
mod import;
mod keys;
mod ledger;
mod limiter;
mod native;
mod nodes;
mod operate;
#[path = "../../../engine/tests/support/postgres.rs"]
mod postgres;
mod providers;
mod reload;
mod sandbox;
mod screens;
mod serve;
mod shared_accounts;
mod store;
mod supply;
mod support;
mod tencent;
mod tls;
mod token;
mod traces;
mod trust;
