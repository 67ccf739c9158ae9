//! A core that is behind refuses some questions, so that those it answers are answered in time.
//!
//! Whoever runs the core measures how far behind it is: how long something that is ready waits for its
//! turn. While that is too long, more and more is refused; while it is not, less and less. Refused
//! are first those who ask most: an application that asks much less than an equal share is let through.

use std::time::Duration;

use crate::caller::{ApplicationId, Numbered};

/// How much more is refused after each measurement that was too long, in thousandths.
const MORE: u32 = 100;

/// How much less after each that was not.
const LESS: u32 = 20;

/// Never all: what is answered shows when it gets better.
const MOST: u32 = 950;

/// How far behind one core is, and what it therefore refuses.
#[derive(Debug, Default)]
pub struct Lateness {
    /// Of a thousand questions so many are refused.
    refused: u32,
    /// The last measurement was too long.
    was_late: bool,
    /// What was refused less than it should have been, in thousandths of a question.
    owed: u32,
    /// Who asked how often since the last measurement, and the one before.
    asked: [Numbered<ApplicationId, u32>; 2],
}

impl Lateness {
    /// Something that was ready had to wait so long for its turn; `most` is how long it may be, zero for
    /// ever.
    pub fn measured(&mut self, waited: Duration, most: Duration) {
        let is_late = waited > most && !most.is_zero();
        self.refused = match (is_late, self.was_late) {
            (true, true) => (self.refused + MORE).min(MOST),
            // Once may be the machine's affair: it let somebody else run.
            (true, false) => self.refused,
            (false, _) => self.refused.saturating_sub(LESS),
        };
        self.was_late = is_late;
        self.asked.swap(0, 1);
        self.asked[0].clear();
    }

    /// Whether one more question of this application is refused.
    pub fn refuses(&mut self, application: ApplicationId) -> bool {
        *self.asked[0].entry(application).or_default() += 1;
        if self.refused == 0 || self.asks_little(application) {
            return false;
        }
        self.owed += self.refused;
        let is_due = self.owed >= 1000;
        self.owed -= if is_due { 1000 } else { 0 };
        is_due
    }

    /// Less than half of an equal share.
    fn asks_little(&self, application: ApplicationId) -> bool {
        let count = |of: &Numbered<ApplicationId, u32>| of.get(&application).copied().unwrap_or(0);
        let own = u64::from(self.asked.iter().map(count).sum::<u32>());
        let all: u64 = self.asked.iter().flat_map(|of| of.values()).map(|asked| u64::from(*asked)).sum();
        let asking = self.asked[0].len().max(self.asked[1].len()) as u64;
        own * asking * 2 < all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_WAIT: Duration = Duration::from_millis(250);
    const NOISY: ApplicationId = ApplicationId(1);
    const QUIET: ApplicationId = ApplicationId(2);

    fn refused(lateness: &mut Lateness, of: ApplicationId, questions: u32) -> u32 {
        (0..questions).map(|_| u32::from(lateness.refuses(of))).sum()
    }

    #[test]
    fn more_is_refused_the_longer_it_is_late_and_less_when_it_is_not() {
        let mut lateness = Lateness::default();
        assert_eq!(refused(&mut lateness, NOISY, 1000), 0);
        lateness.measured(MOST_WAIT, MOST_WAIT);
        assert_eq!(refused(&mut lateness, NOISY, 1000), 0, "just in time");
        lateness.measured(MOST_WAIT * 2, MOST_WAIT);
        assert_eq!(refused(&mut lateness, NOISY, 1000), 0, "late once");
        for share in [100, 200, 300] {
            lateness.measured(MOST_WAIT * 2, MOST_WAIT);
            assert_eq!(refused(&mut lateness, NOISY, 1000), share);
        }
        (0..100).for_each(|_| lateness.measured(MOST_WAIT * 2, MOST_WAIT));
        assert_eq!(refused(&mut lateness, NOISY, 1000), MOST, "never all");
        lateness.measured(Duration::ZERO, MOST_WAIT);
        assert_eq!(refused(&mut lateness, NOISY, 1000), MOST - LESS);
        (0..100).for_each(|_| lateness.measured(Duration::ZERO, MOST_WAIT));
        assert_eq!(refused(&mut lateness, NOISY, 1000), 0);
        (0..100).for_each(|_| lateness.measured(MOST_WAIT * 9, Duration::ZERO));
        assert_eq!(refused(&mut lateness, NOISY, 1000), 0, "switched off");
    }

    #[test]
    fn who_asks_little_is_let_through() {
        let mut lateness = Lateness::default();
        (0..100).for_each(|_| lateness.measured(MOST_WAIT * 2, MOST_WAIT));
        assert!(refused(&mut lateness, NOISY, 1000) > 900);
        assert_eq!(refused(&mut lateness, QUIET, 100), 0);
        lateness.measured(MOST_WAIT * 2, MOST_WAIT);
        assert_eq!(refused(&mut lateness, QUIET, 100), 0, "it is remembered for two measurements");
        assert!(refused(&mut lateness, NOISY, 1000) > 900);
        assert!(refused(&mut lateness, QUIET, 1000) > 0, "until it asks as much");
    }
}
