#![no_main]

#[path = "../shapes/wire.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod shapes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shapes::request(bytes));
