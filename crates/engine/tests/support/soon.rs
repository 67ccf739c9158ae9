//! Waiting for what other threads do.

use std::time::{Duration, Instant};

/// Waits until it is so; fails after far longer than that takes anywhere.
pub fn soon(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}
