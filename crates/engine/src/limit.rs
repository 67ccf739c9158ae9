//! Limits: requests a second, and attempts a day on the same card or person.
//!
//! Guessing works where every shop counts alone and each checks other fields; so attempts on a card
//! are counted across all callers and wires. They are counted under a key of the day that is deleted
//! afterwards, so that old counters tell nothing about anybody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::caller::{Action, ApplicationId, CallerId, Numbered};
use crate::clock::Millis;
use crate::outcome::{Class, Outcome};
use crate::vault::KeyedRef;

/// How often a day the same element may be asked about. `None` or 0 switches a limit off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttemptPolicy {
    /// On the same card, across callers and wires.
    pub per_card: Option<u32>,
    /// By one caller with the same value of an element that is switched on below.
    pub per_value: Option<u32>,
    /// Consecutive HOLDER_MISMATCH of one caller on one card that lock that pair until midnight.
    pub lock_after: Option<u32>,
    /// `per_value` counts card numbers.
    pub count_card: bool,
    /// `per_value` counts names; a common name can use up the limit alone.
    pub count_name: bool,
    /// `per_value` counts identity numbers.
    pub count_id: bool,
    /// `per_value` counts mobile numbers.
    pub count_mobile: bool,
}

impl Default for AttemptPolicy {
    /// 10 a day on a card, 500 a day by a caller on one value, a lock after 3 mismatches.
    fn default() -> Self {
        AttemptPolicy {
            per_card: Some(10),
            per_value: Some(500),
            lock_after: Some(3),
            count_card: true,
            count_name: true,
            count_id: true,
            count_mobile: true,
        }
    }
}

impl AttemptPolicy {
    /// Nothing is counted.
    pub const OFF: AttemptPolicy = AttemptPolicy {
        per_card: None,
        per_value: None,
        lock_after: None,
        count_card: false,
        count_name: false,
        count_id: false,
        count_mobile: false,
    };

    /// Whether anything is counted.
    pub fn counts(&self) -> bool {
        [self.per_card, self.per_value, self.lock_after].into_iter().any(|limit| on(limit).is_some())
    }

    /// Whether so many mismatches in a row lock a pair of caller and card.
    pub fn locks(&self, run: u32) -> bool {
        on(self.lock_after).is_some_and(|limit| run >= limit)
    }
}

/// A limit that is not switched off.
fn on(limit: Option<u32>) -> Option<u32> {
    limit.filter(|limit| *limit > 0)
}

/// The elements of one question as that day's counters know them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRefs {
    /// Beijing day under whose key they were made.
    pub day: u32,
    /// Who asked.
    pub caller: CallerId,
    /// Card, name, identity number, mobile; `None` where it is not counted, or not asked about.
    pub values: [Option<KeyedRef>; 4],
    /// What mismatches in a row lock: the element that records are found by, bound to the action. A pass
    /// of two elements must not forgive the guesses at four.
    pub card: KeyedRef,
    /// The card, counted across callers; `None` where nobody's holding of a card is asked about.
    pub across: Option<KeyedRef>,
}

/// Bytes that name a counter of a day in a store that nodes share.
pub(crate) const COUNTER_BYTES: usize = 21;

impl AttemptRefs {
    /// The counters of this question: what any policy may look at.
    pub(crate) fn counters(&self) -> impl Iterator<Item = [u8; COUNTER_BYTES]> + '_ {
        all_counters(self).map(Counter::bytes)
    }

    /// The pair of caller and element whose mismatches in a row are counted.
    pub(crate) fn pair(&self) -> [u8; COUNTER_BYTES] {
        self.run().bytes()
    }

    /// The same as a counter.
    pub(crate) fn run(&self) -> Counter {
        Counter { caller: self.caller, field: u8::MAX, value: self.card }
    }
}

/// Whose value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    caller: CallerId,
    field: u8,
    value: KeyedRef,
}

impl Hash for Counter {
    /// The value is a hash under the key of the day: nobody can choose it so that counters collide.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.value;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        state.write_u32(self.caller.0);
    }
}

/// In place of a caller: across callers. No caller has that number.
const ALL_CALLERS: CallerId = CallerId(u32::MAX);

impl Counter {
    fn bytes(self) -> [u8; COUNTER_BYTES] {
        let mut bytes = [0; COUNTER_BYTES];
        bytes[..4].copy_from_slice(&self.caller.0.to_be_bytes());
        bytes[4] = self.field;
        bytes[5..].copy_from_slice(&self.value);
        bytes
    }
}

#[derive(PartialEq, Debug, Clone, Copy, Default)]
struct Count {
    settled: u32,
    held: u32,
}

/// Today's attempts, settled and under way.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug, PartialEq))]
pub struct Attempts {
    day: u32,
    counts: Numbered<Counter, Count>,
    mismatches: Numbered<Counter, Run>,
    /// Questions that were settled, to tell what was known when.
    settled: u64,
}

/// Mismatches in a row.
#[derive(PartialEq, Debug, Clone, Copy, Default)]
struct Run {
    length: u32,
    /// [`Attempts::settled`] when it last changed.
    changed: u64,
}

/// Counters a question has: its elements by this caller, and its card.
const PER_QUESTION: usize = 5;

impl Attempts {
    /// Whether there is no room for the counters of another question.
    pub fn is_full(&self, day: u32, most: usize) -> bool {
        day == self.day && self.counts.len() + PER_QUESTION > most
    }

    /// Whether there is room for the counters of so many more questions.
    pub fn has_room(&self, questions: usize, most: usize) -> bool {
        self.counts.len().saturating_add(questions.saturating_mul(PER_QUESTION)) <= most
    }

    /// Takes one attempt on each counted element, or says that one of them is used up.
    ///
    /// What is taken here is given back by [`Attempts::release`] or counted by [`Attempts::settle`].
    pub fn hold(&mut self, refs: &AttemptRefs, policy: &AttemptPolicy) -> Result<(), UsedUp> {
        self.turn(refs.day);
        if refs.day < self.day {
            // Asked just before midnight, held just after: yesterday's key is gone, nothing to count.
            return Ok(());
        }
        if self.run(refs).is_some_and(|run| policy.locks(run)) {
            return Err(UsedUp);
        }
        for (counter, limit) in counters(refs, policy) {
            let count = self.counts.get(&counter).copied().unwrap_or_default();
            if count.settled + count.held >= limit {
                return Err(UsedUp);
            }
        }
        for (counter, _) in counters(refs, policy) {
            self.counts.entry(counter).or_default().held += 1;
        }
        Ok(())
    }

    /// Mismatches in a row of this pair of caller and card; `None` when their day is over. Asked again
    /// when a question is settled, because questions under way at the same time can each still look
    /// innocent.
    pub fn run(&self, refs: &AttemptRefs) -> Option<u32> {
        let run = self.mismatches.get(&refs.run()).map_or(0, |run| run.length);
        (refs.day == self.day).then_some(run)
    }

    /// Gives back what [`Attempts::hold`] took.
    pub fn release(&mut self, refs: &AttemptRefs, policy: &AttemptPolicy) {
        if refs.day != self.day {
            return;
        }
        for (counter, _) in counters(refs, policy) {
            if let Entry::Occupied(mut at) = self.counts.entry(counter) {
                let count = at.get_mut();
                count.held = count.held.saturating_sub(1);
                if (count.held, count.settled) == (0, 0) {
                    at.remove();
                }
            }
        }
    }

    /// Counts an answered question; the same when a block is replayed after a restart.
    pub fn settle(&mut self, refs: &AttemptRefs, outcome: Outcome) {
        self.turn(refs.day);
        if refs.day < self.day || !is_counted(outcome) {
            return;
        }
        for counter in all_counters(refs) {
            self.counts.entry(counter).or_default().settled += 1;
        }
        self.count_run(refs, outcome);
    }

    /// Counts an answered question that [`Attempts::hold`] took an attempt for: [`Attempts::release`] and
    /// [`Attempts::settle`] in one.
    pub fn settle_held(&mut self, refs: &AttemptRefs, policy: &AttemptPolicy, outcome: Outcome) {
        if refs.day != self.day || !is_counted(outcome) {
            self.release(refs, policy);
            return self.settle(refs, outcome);
        }
        let (value, card) =
            (u32::from(on(policy.per_value).is_some()), u32::from(on(policy.per_card).is_some()));
        for counter in all_counters(refs) {
            let count = self.counts.entry(counter).or_default();
            count.settled += 1;
            count.held = count.held.saturating_sub(if counter.caller == ALL_CALLERS { card } else { value });
        }
        self.count_run(refs, outcome);
    }

    fn count_run(&mut self, refs: &AttemptRefs, outcome: Outcome) {
        self.settled += 1;
        match outcome {
            Outcome::HolderMismatch => {
                let run = self.mismatches.entry(refs.run()).or_default();
                *run = Run { length: run.length + 1, changed: self.settled };
            }
            Outcome::Pass => {
                if let Some(run) = self.mismatches.get_mut(&refs.run()) {
                    *run = Run { length: 0, changed: self.settled };
                }
            }
            _ => {}
        }
    }

    /// Day, counters and how far each is, as nodes share them.
    pub(crate) fn to_share(&self) -> (u32, Vec<([u8; COUNTER_BYTES], i64)>) {
        let counts = self.counts.iter().map(|(counter, count)| (counter.bytes(), i64::from(count.settled)));
        let runs = self.mismatches.iter().map(|(pair, run)| (pair.bytes(), i64::from(run.length)));
        (self.day, counts.chain(runs).filter(|(_, count)| *count > 0).collect())
    }

    /// How many questions were settled so far; see [`Attempts::know`].
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Takes one attempt of counters that nodes share, which were counted in the database: `counts` are
    /// theirs with this question in them, `run` is that of its pair, and `asked` is what
    /// [`Attempts::settled`] said before they were asked for: what this node has settled since is newer.
    ///
    /// # Errors
    /// One of them is used up. Nothing is taken here then; what was counted is to be given back.
    pub(crate) fn know(
        &mut self,
        refs: &AttemptRefs,
        policy: &AttemptPolicy,
        counts: &[i64],
        run: i64,
        asked: u64,
    ) -> Result<(), UsedUp> {
        self.turn(refs.day);
        if refs.day < self.day {
            return Ok(());
        }
        let pair = refs.run();
        let known = self.mismatches.get(&pair).copied().unwrap_or_default();
        if known.changed <= asked {
            let length = u32::try_from(run).unwrap_or(0);
            if length > 0 || known.length > 0 {
                self.mismatches.insert(pair, Run { length, ..known });
            }
        }
        if self.run(refs).is_some_and(|run| policy.locks(run)) {
            return Err(UsedUp);
        }
        // Those that are counted, in the order of `AttemptRefs::counters`.
        let all: Vec<(Counter, i64)> = all_counters(refs).zip(counts.iter().copied()).collect();
        let count_of =
            |counter: &Counter| all.iter().find(|(known, _)| known == counter).map_or(0, |(_, n)| *n);
        if counters(refs, policy).any(|(counter, limit)| count_of(&counter) > i64::from(limit)) {
            return Err(UsedUp);
        }
        for (counter, _) in counters(refs, policy) {
            let count = self.counts.entry(counter).or_default();
            count.held += 1;
            let counted = u32::try_from(count_of(&counter)).unwrap_or(0);
            count.settled = count.settled.max(counted.saturating_sub(count.held));
        }
        Ok(())
    }

    /// How many more questions with these elements this caller may ask today once this one, which holds
    /// its attempt, is answered: the least that any counter leaves. `None`: nothing limits it.
    ///
    /// `run` is the number of mismatches in a row, those included that are not durable yet.
    pub fn left_after(
        &self,
        refs: &AttemptRefs,
        policy: &AttemptPolicy,
        outcome: Outcome,
        run: Option<u32>,
    ) -> Option<u32> {
        let given_back = u32::from(!is_counted(outcome));
        let left = |(counter, limit): (Counter, u32)| {
            let count = self.counts.get(&counter).copied().unwrap_or_default();
            let used = count.settled.saturating_add(count.held).saturating_sub(given_back);
            limit.saturating_sub(used)
        };
        let least = counters(refs, policy).map(left).min();
        if run.is_some_and(|run| policy.locks(run)) { Some(0) } else { least }
    }

    /// A new day: all counters start again. So they do when the clock was ahead by days and has been
    /// put right; but not around midnight, when yesterday's last questions are still under way.
    fn turn(&mut self, day: u32) {
        if day > self.day || day + 1 < self.day {
            *self = Attempts { day, ..Attempts::default() };
        }
    }
}

/// Whether an answer is an attempt: for the others nobody was asked.
fn is_counted(outcome: Outcome) -> bool {
    outcome.class() != Class::Retryable
}

/// A counter has no attempt left today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp;

fn across(refs: &AttemptRefs) -> Option<Counter> {
    Some(Counter { caller: ALL_CALLERS, field: 0, value: refs.across? })
}

/// Whatever the policy looks at.
fn all_counters(refs: &AttemptRefs) -> impl Iterator<Item = Counter> + '_ {
    let values = refs.values.iter().enumerate();
    let own = values.filter_map(|(field, value)| {
        Some(Counter { caller: refs.caller, field: field as u8, value: (*value)? })
    });
    own.chain(across(refs))
}

fn counters<'a>(
    refs: &'a AttemptRefs,
    policy: &AttemptPolicy,
) -> impl Iterator<Item = (Counter, u32)> + use<'a> {
    let per_value = on(policy.per_value);
    let values = refs.values.iter().enumerate();
    let own = values.filter_map(move |(field, value)| {
        let counter = Counter { caller: refs.caller, field: field as u8, value: (*value)? };
        Some((counter, per_value?))
    });
    own.chain(across(refs).zip(on(policy.per_card)))
}

/// Requests in the current second, per application and action.
///
/// One-second windows with a burst equal to the limit, so that a refusal can say how many were sent.
#[derive(Default)]
pub struct Rates(HashMap<(ApplicationId, Action), Window>);

#[derive(Clone, Copy, Default)]
struct Window {
    second: i64,
    sent: u32,
}

/// How an application stands in the current second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests allowed a second; 0: no limit.
    pub limit: u32,
    /// Requests sent in this second, this one included.
    pub sent: u32,
}

impl Rate {
    /// Whether this request is one too many.
    pub fn exceeded(&self) -> bool {
        self.limit != 0 && self.sent > self.limit
    }

    /// Requests left in this second.
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.sent)
    }
}

/// Counts requests for several nodes. The server's asks Redis or Valkey; a test's is whatever it says.
pub trait Limiter {
    /// Counts a request where the other nodes count theirs. `limit`: requests a second, not 0.
    fn count(&self, application: ApplicationId, action: Action, limit: u32) -> Counting;
}

/// How a request is counted across nodes.
pub enum Counting {
    /// Not at all: each node has its share of a limit.
    Here,
    /// The limiter is known to be away.
    Away,
    /// It was asked; `None` when it did not answer in time.
    Asked(Pin<Box<dyn Future<Output = Option<Rate>>>>),
}

/// What becomes of a limit while the limiter is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAway {
    /// This node grants its share of it.
    #[default]
    Share,
    /// Nothing is granted.
    Refuse,
}

/// One node's share of a limit, so that all shares together are no less than it: between them they grant at
/// most `nodes - 1` requests a second too many.
pub fn share(limit: u32, nodes: u32) -> u32 {
    limit.div_ceil(nodes.max(1))
}

impl Rates {
    /// Counts a request.
    pub fn count(&mut self, application: ApplicationId, action: Action, limit: u32, now: Millis) -> Rate {
        if limit == 0 {
            return Rate { limit, sent: 0 };
        }
        let second = now.div_euclid(1000);
        let window = self.0.entry((application, action)).or_default();
        if window.second != second {
            *window = Window { second, sent: 0 };
        }
        window.sent = window.sent.saturating_add(1);
        Rate { limit, sent: window.sent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: AttemptPolicy = AttemptPolicy {
        per_card: Some(10),
        per_value: Some(4),
        lock_after: Some(3),
        count_card: true,
        count_name: false,
        count_id: true,
        count_mobile: true,
    };

    fn refs(caller: u32, card: u8, day: u32) -> AttemptRefs {
        AttemptRefs {
            day,
            caller: CallerId(caller),
            values: [Some([card; 16]), None, Some([0x1d; 16]), Some([0x0b; 16])],
            card: [card; 16],
            across: Some([card; 16]),
        }
    }

    fn ask(attempts: &mut Attempts, refs: &AttemptRefs, outcome: Outcome) -> Result<(), UsedUp> {
        attempts.hold(refs, &POLICY)?;
        attempts.release(refs, &POLICY);
        attempts.settle(refs, outcome);
        Ok(())
    }

    #[test]
    fn the_same_value_may_be_asked_so_often_by_one_caller() {
        let mut attempts = Attempts::default();
        for card in 0..4 {
            assert_eq!(ask(&mut attempts, &refs(1, card, 1), Outcome::Pass), Ok(()));
        }
        assert_eq!(ask(&mut attempts, &refs(1, 9, 1), Outcome::Pass), Err(UsedUp), "same id, fifth time");
        assert_eq!(ask(&mut attempts, &refs(2, 9, 1), Outcome::Pass), Ok(()), "another caller");
        assert_eq!(ask(&mut attempts, &refs(1, 9, 2), Outcome::Pass), Ok(()), "another day");
    }

    #[test]
    fn a_card_is_counted_across_callers() {
        let mut attempts = Attempts::default();
        for caller in 0..10 {
            assert_eq!(ask(&mut attempts, &refs(caller, 7, 1), Outcome::CardLost), Ok(()));
        }
        assert_eq!(ask(&mut attempts, &refs(11, 7, 1), Outcome::Pass), Err(UsedUp));
    }

    #[test]
    fn three_mismatches_in_a_row_lock_the_pair_and_a_pass_resets() {
        let mut attempts = Attempts::default();
        let pair = refs(1, 7, 1);
        let mismatch = |attempts: &mut Attempts| ask(attempts, &pair, Outcome::HolderMismatch);
        assert_eq!(mismatch(&mut attempts), Ok(()));
        assert_eq!(mismatch(&mut attempts), Ok(()));
        assert_eq!(ask(&mut attempts, &pair, Outcome::Pass), Ok(()));
        assert_eq!(mismatch(&mut attempts), Ok(()));

        let mut attempts = Attempts::default();
        for _ in 0..3 {
            assert_eq!(mismatch(&mut attempts), Ok(()));
        }
        assert_eq!(mismatch(&mut attempts), Err(UsedUp));
        assert_eq!(ask(&mut attempts, &refs(2, 7, 1), Outcome::Pass), Ok(()), "only that caller is locked");
        assert_eq!(ask(&mut attempts, &refs(1, 7, 2), Outcome::Pass), Ok(()), "until midnight");
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let off = AttemptPolicy { per_card: Some(0), per_value: Some(0), lock_after: Some(0), ..POLICY };
        assert!(!off.counts());
        let mut attempts = Attempts::default();
        for _ in 0..20 {
            assert_eq!(attempts.hold(&refs(1, 7, 1), &off), Ok(()));
            attempts.settle(&refs(1, 7, 1), Outcome::HolderMismatch);
        }
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_switch_the_limits_off() {
        let mut attempts = Attempts::default();
        assert_eq!(ask(&mut attempts, &refs(1, 7, 30), Outcome::Pass), Ok(()), "ten days ahead");
        for _ in 0..3 {
            assert_eq!(ask(&mut attempts, &refs(1, 7, 20), Outcome::HolderMismatch), Ok(()));
        }
        assert_eq!(ask(&mut attempts, &refs(1, 7, 20), Outcome::HolderMismatch), Err(UsedUp));
        assert_eq!(ask(&mut attempts, &refs(1, 7, 21), Outcome::Pass), Ok(()));
        assert_eq!(ask(&mut attempts, &refs(1, 7, 20), Outcome::Pass), Ok(()), "the last of yesterday");
    }

    #[test]
    fn shares_are_no_less_than_the_limit_and_hardly_more() {
        for limit in 0..200 {
            for nodes in 1..12 {
                let all = share(limit, nodes) * nodes;
                assert!(all >= limit && all < limit + nodes, "{limit} on {nodes}: {all}");
            }
        }
    }

    #[test]
    fn questions_under_way_hold_their_attempts() {
        let mut attempts = Attempts::default();
        for card in 0..4 {
            assert_eq!(attempts.hold(&refs(1, card, 1), &POLICY), Ok(()));
        }
        assert_eq!(attempts.hold(&refs(1, 4, 1), &POLICY), Err(UsedUp));
        attempts.release(&refs(1, 0, 1), &POLICY);
        assert_eq!(attempts.hold(&refs(1, 4, 1), &POLICY), Ok(()));
    }

    #[test]
    fn busy_takes_no_attempt() {
        let mut attempts = Attempts::default();
        for _ in 0..20 {
            assert_eq!(ask(&mut attempts, &refs(1, 7, 1), Outcome::SourceBusy), Ok(()));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_held_is_settled_as_if_it_was_released_first(
            asked in proptest::collection::vec((1u32..3, 0u8..3, 1u32..3, 0usize..28), 1..40),
            per_card: Option<bool>,
            per_value: Option<bool>,
        ) {
            // On, off by 0, or not set.
            let limit = |is_on: Option<bool>| is_on.map(|on| if on { 1000 } else { 0 });
            let policy = AttemptPolicy { per_card: limit(per_card), per_value: limit(per_value), ..POLICY };
            let (mut apart, mut at_once) = (Attempts::default(), Attempts::default());
            for attempts in [&mut apart, &mut at_once] {
                asked.iter().for_each(|(caller, card, day, _)| {
                    let _ = attempts.hold(&refs(*caller, *card, *day), &policy);
                });
            }
            for (caller, card, day, outcome) in &asked {
                let (refs, outcome) = (refs(*caller, *card, *day), Outcome::ALL[*outcome]);
                apart.release(&refs, &policy);
                apart.settle(&refs, outcome);
                at_once.settle_held(&refs, &policy, outcome);
                proptest::prop_assert_eq!(&apart, &at_once);
            }
        }
    }

    #[test]
    fn a_second_holds_as_many_requests_as_the_limit_says() {
        let mut rates = Rates::default();
        let mut at = |now| rates.count(ApplicationId(1), Action::FourElements, 2, now);
        assert!(!at(1000).exceeded());
        assert!(!at(1999).exceeded());
        let third = at(1999);
        assert!(third.exceeded());
        assert_eq!((third.sent, third.limit), (3, 2));
        assert!(!at(2000).exceeded());
    }
}
