//! The one place where card4e learns what time it is.
//!
//! Handed in everywhere, so that a day can pass in a test and a failure replays from its seed.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::subject::Date;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// How a clock tells the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The machine's time.
    Real,
    /// Always this instant.
    Frozen(Millis),
    /// The machine's time plus this many milliseconds.
    Shifted(Millis),
}

/// Tells the time; shared by everything that asks for it.
#[derive(Debug)]
pub struct Clock(Mutex<Mode>);

impl Default for Clock {
    fn default() -> Self {
        Clock(Mutex::new(Mode::Real))
    }
}

impl Clock {
    /// A clock in this mode.
    pub fn new(mode: Mode) -> Self {
        Clock(Mutex::new(mode))
    }

    /// Now.
    pub fn now_ms(&self) -> Millis {
        match self.mode() {
            Mode::Real => machine_ms(),
            Mode::Frozen(at) => at,
            Mode::Shifted(by) => machine_ms().saturating_add(by),
        }
    }

    /// How it tells the time.
    pub fn mode(&self) -> Mode {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes how it tells the time, for everybody at once.
    pub fn set(&self, mode: Mode) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = mode;
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where the time is handed in")]
fn machine_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const BEIJING_MS: Millis = 8 * 3_600_000;
const DAY_MS: Millis = 86_400_000;

/// The day in Asia/Shanghai (UTC+8, no summer time), counted from 1970-01-01.
///
/// Attempts are counted by it: banks there release a card at midnight.
pub fn beijing_day(at: Millis) -> u32 {
    u32::try_from((at + BEIJING_MS).div_euclid(DAY_MS)).unwrap_or(0)
}

/// The first millisecond after a Beijing day.
pub fn beijing_day_ends(day: u32) -> Millis {
    (i64::from(day) + 1) * DAY_MS - BEIJING_MS
}

/// `2026-11-21T18:06:12Z`, for messages and journals; UTC.
pub fn utc_text(at: Millis) -> String {
    let seconds = at.div_euclid(1000);
    let today = Date::in_utc(seconds);
    let (year, month, day) = (today.year(), today.month(), today.day());
    let rest = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_is_beijings() {
        // 2026-11-21T15:59:59Z is one second before midnight in Beijing.
        let before = 1_795_276_799_000;
        assert_eq!(utc_text(before), "2026-11-21T15:59:59Z");
        assert_eq!(beijing_day(before) + 1, beijing_day(before + 1000));
    }

    #[test]
    fn a_frozen_clock_stands_and_a_shifted_one_runs() {
        let clock = Clock::new(Mode::Frozen(42));
        assert_eq!(clock.now_ms(), 42);
        clock.set(Mode::Shifted(-3_600_000));
        assert!(clock.now_ms() > 1_600_000_000_000);
    }
}
