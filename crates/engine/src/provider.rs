//! A provider that is paid for answers: what it costs, how much it may be asked, and how it is doing.
//!
//! Pure: time is handed in, nothing is sent. `route.rs` asks.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::action::Action;
use crate::clock::Millis;
use crate::connector::Connector;
use crate::ledger::Credits;
use crate::limit::share;
use crate::spending::Caps;

/// A provider as it is configured.
#[derive(Debug)]
pub struct Provider {
    /// Its name, in the ledger too.
    pub name: String,
    /// How it is spoken to.
    pub connector: Connector,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What it charges for a charged answer.
    pub price: Credits,
    /// Of an action, where it is another; by [`Action`]'s discriminant.
    pub prices: [Option<Credits>; Action::ALL.len()],
    /// The most it may be paid.
    pub caps: Caps,
    /// One call may take so long, milliseconds; never longer than what is left of the route's time.
    pub timeout_ms: u32,
    /// Connecting may take so long, milliseconds.
    pub connect_timeout_ms: u32,
    /// When it is left alone.
    pub limits: Limits,
    /// Why it cannot be asked at all: its secret is missing. Only offline commands get that far.
    pub off: bool,
}

/// Where a provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Over TLS.
    pub tls: bool,
    /// The CAs to trust, a PEM file; `None`: those of the system.
    pub ca: Option<std::path::PathBuf>,
}

impl Endpoint {
    /// Whether what is sent there stays on this machine.
    pub fn is_this_machine(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// The host as it goes into a request: with its port unless that is the scheme's own.
    pub fn authority(&self) -> String {
        let own = if self.tls { 443 } else { 80 };
        if self.port == own { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// When a provider is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way at most.
    pub concurrent_max: u32,
    /// Calls a second at most; 0: no limit.
    pub requests_per_second: u32,
    /// Failures in a row that open the breaker; 0: it never opens.
    pub failures: u32,
    /// How long it stays open before one call may try, milliseconds; doubled while that fails, up to 16
    /// times.
    pub open_ms: u32,
}

impl Limits {
    /// What one of so many nodes may ask at once and in a second: its share, so that all of them together ask at
    /// most `nodes - 1` too many.
    pub fn share_of(&self, nodes: u32) -> Limits {
        Limits {
            concurrent_max: share(self.concurrent_max, nodes),
            requests_per_second: share(self.requests_per_second, nodes),
            ..*self
        }
    }
}

impl Provider {
    /// What a charged answer to this action costs.
    pub fn price_of(&self, action: Action) -> Credits {
        self.prices[action as usize].unwrap_or(self.price)
    }
}

/// Whether a provider is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// It is; so many failures in a row so far.
    #[default]
    Closed,
    /// It is not, until then.
    Open {
        /// Unix milliseconds.
        until_ms: Millis,
    },
    /// One call is trying.
    HalfOpen,
}

impl Breaker {
    /// `closed`, `open` or `half_open`.
    pub const fn name(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Open { .. } => "open",
            Breaker::HalfOpen => "half_open",
        }
    }
}

/// Why a provider is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftAlone {
    /// Its breaker is open.
    BreakerOpen,
    /// As many calls are under way as may be.
    Concurrency,
    /// As many calls were made in this second as may be.
    Rate,
}

/// How a provider is doing.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Whether it is asked.
    pub breaker: Breaker,
    failures: u32,
    /// Times the breaker opened without a success in between.
    opened_in_a_row: u32,
    /// Calls under way.
    pub under_way: u32,
    second: Millis,
    sent_in_second: u32,
    /// What was counted since the start.
    pub counted: Counted,
}

/// What is counted of a provider since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Calls that were answered.
    pub answered: u64,
    /// Refused by the provider, for free.
    pub refused: u64,
    /// Never sent.
    pub unsent: u64,
    /// Sent, and nothing usable came back.
    pub unclear: u64,
    /// Answers with a number nobody knows.
    pub unknown: u64,
    /// Times it was not asked because its breaker was open, or it was asked too much already.
    pub left_alone: u64,
    /// Times a cap was reached.
    pub capped: u64,
    /// Times the breaker opened.
    pub opened: u64,
    /// Time the answered calls took, milliseconds.
    pub answered_ms: u64,
}

/// How a call ended, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The provider answers.
    Works,
    /// It does not: no connection, no time, errors.
    Fails,
    /// It never came to a call.
    NotMade,
}

impl Health {
    /// Takes a place for a call. Give it back with [`Health::leave`].
    pub fn enter(&mut self, limits: &Limits, now: Millis) -> Result<(), LeftAlone> {
        match self.breaker {
            Breaker::Open { until_ms } if now < until_ms => return Err(LeftAlone::BreakerOpen),
            Breaker::HalfOpen => return Err(LeftAlone::BreakerOpen),
            _ => {}
        }
        if self.under_way >= limits.concurrent_max {
            return Err(LeftAlone::Concurrency);
        }
        let second = now.div_euclid(1000);
        if second != self.second {
            (self.second, self.sent_in_second) = (second, 0);
        }
        if limits.requests_per_second > 0 && self.sent_in_second >= limits.requests_per_second {
            return Err(LeftAlone::Rate);
        }
        if matches!(self.breaker, Breaker::Open { .. }) {
            self.breaker = Breaker::HalfOpen;
        }
        self.sent_in_second += 1;
        self.under_way += 1;
        Ok(())
    }

    /// Gives a place back, and says how the call ended. True when the breaker opens by it.
    pub fn leave(&mut self, limits: &Limits, end: CallEnd, now: Millis) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        let tried = self.breaker == Breaker::HalfOpen;
        match end {
            CallEnd::Works => {
                (self.breaker, self.failures, self.opened_in_a_row) = (Breaker::Closed, 0, 0);
                false
            }
            // The next one may try.
            CallEnd::NotMade if tried => {
                self.breaker = Breaker::Open { until_ms: now };
                false
            }
            CallEnd::NotMade => false,
            CallEnd::Fails => {
                self.failures = self.failures.saturating_add(1);
                let opens = limits.failures > 0 && (tried || self.failures >= limits.failures);
                // Calls that were under way when it opened tell nothing new.
                if opens && !matches!(self.breaker, Breaker::Open { .. }) {
                    let wait = i64::from(limits.open_ms) << self.opened_in_a_row.min(4);
                    self.breaker = Breaker::Open { until_ms: now + wait };
                    self.opened_in_a_row += 1;
                    self.failures = 0;
                    self.counted.opened += 1;
                    return true;
                }
                false
            }
        }
    }
}

/// How all providers are doing, by name.
pub type Providers = BTreeMap<String, Health>;

/// A provider as it is shown to whoever looks after the installation.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub connector: &'static str,
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// Calls under way.
    pub under_way: u32,
    /// Spent today, in Asia/Shanghai, with all that calls under way may cost.
    pub spent_today: String,
    /// The daily cap.
    pub daily_cap: Option<String>,
    /// Spent this month.
    pub spent_this_month: String,
    /// The monthly cap.
    pub monthly_cap: Option<String>,
    /// Spent since the beginning.
    pub spent: String,
    /// Of it, what may not have been charged.
    pub uncertain: String,
    /// Purchases since the beginning.
    pub calls: u64,
    /// What it was found not to check.
    pub lacking: Vec<LackingStatus>,
    /// What was counted since the start.
    #[serde(flatten)]
    pub counted: Counted,
}

/// What a provider was found not to check.
#[derive(Clone, Debug, Serialize)]
pub struct LackingStatus {
    /// Prefix of the issuer.
    pub issuer: String,
    /// What it does not answer about its cards.
    pub action: &'static str,
    /// How often in a row it said so.
    pub times: u32,
    /// When last, UTC.
    pub last: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { concurrent_max: 2, requests_per_second: 3, failures: 2, open_ms: 100 };

    #[test]
    fn the_breaker_opens_lets_one_call_try_and_closes() {
        let mut health = Health::default();
        let limits = Limits { requests_per_second: 0, ..LIMITS };
        for now in [0, 1] {
            health.enter(&limits, now).unwrap();
            assert_eq!(health.leave(&limits, CallEnd::Fails, now), now == 1);
        }
        assert_eq!(health.enter(&limits, 100), Err(LeftAlone::BreakerOpen));
        assert_eq!(health.enter(&limits, 101), Ok(()), "one may try");
        assert_eq!(health.enter(&limits, 101), Err(LeftAlone::BreakerOpen), "and only one");
        assert!(health.leave(&limits, CallEnd::Fails, 110));
        assert_eq!(health.enter(&limits, 309), Err(LeftAlone::BreakerOpen), "twice as long");
        assert_eq!(health.enter(&limits, 310), Ok(()));
        health.leave(&limits, CallEnd::Works, 311);
        assert_eq!(health.breaker, Breaker::Closed);
        health.enter(&limits, 312).unwrap();
        assert!(!health.leave(&limits, CallEnd::Fails, 312), "it counts from the beginning again");
    }

    #[test]
    fn a_try_that_comes_to_nothing_leaves_the_next_one_to_try() {
        let mut health = Health { breaker: Breaker::Open { until_ms: 5 }, ..Health::default() };
        health.enter(&LIMITS, 5).unwrap();
        health.leave(&LIMITS, CallEnd::NotMade, 6);
        assert_eq!(health.enter(&LIMITS, 6), Ok(()));
    }

    #[test]
    fn no_more_at_once_or_in_a_second_than_allowed() {
        let mut health = Health::default();
        assert_eq!((health.enter(&LIMITS, 0), health.enter(&LIMITS, 0)), (Ok(()), Ok(())));
        assert_eq!(health.enter(&LIMITS, 0), Err(LeftAlone::Concurrency));
        health.leave(&LIMITS, CallEnd::Works, 1);
        assert_eq!(health.enter(&LIMITS, 2), Ok(()));
        health.leave(&LIMITS, CallEnd::Works, 3);
        assert_eq!(health.enter(&LIMITS, 999), Err(LeftAlone::Rate));
        assert_eq!(health.enter(&LIMITS, 1000), Ok(()));
    }

    proptest! {
        /// Whatever happens in whatever order: places are given back, never more than allowed are taken,
        /// a provider that works again is asked again.
        #[test]
        fn places_and_states_stay_whole(steps in proptest::collection::vec((0u8..4, 0i64..200), 1..300)) {
            let (mut health, mut now, mut inside) = (Health::default(), 0, 0u32);
            for (step, later) in steps {
                now += later;
                if step == 0 {
                    inside += u32::from(health.enter(&LIMITS, now).is_ok());
                } else if inside > 0 {
                    let end = [CallEnd::Works, CallEnd::Fails, CallEnd::NotMade][usize::from(step) - 1];
                    health.leave(&LIMITS, end, now);
                    inside -= 1;
                }
                prop_assert_eq!(health.under_way, inside);
                prop_assert!(inside <= LIMITS.concurrent_max);
            }
            while inside > 0 {
                health.leave(&LIMITS, CallEnd::NotMade, now);
                inside -= 1;
            }
            now += 3_600_000;
            prop_assert!(health.enter(&LIMITS, now).is_ok());
            health.leave(&LIMITS, CallEnd::Works, now);
            prop_assert_eq!(health.breaker, Breaker::Closed);
        }
    }
}
