//! What a block changes beside itself where several nodes share the store: slices of balances, stored
//! answers, attempts, credits, what was spent on providers. All of it is told by the entries and their side rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::caller::CredentialId;
use crate::clock::Millis;
use crate::ledger::{Answer, Credits, Entry, IdempotencyRef, Side, encoded};
use crate::limit::{AttemptRefs, COUNTER_BYTES};
use crate::outcome::{Class, Outcome};
use crate::spending::{Sum, SumOf};
use crate::store::shared::Purse;
use crate::vault::KeyedRef;

/// Day and counter.
type Counter = (i32, [u8; COUNTER_BYTES]);

/// All of it, of one block.
#[derive(Default)]
pub(super) struct Effects {
    /// Charged, millionths of a credit.
    pub(super) charged: BTreeMap<(i16, i64), i64>,
    /// Stored answers, by each key they can be asked for with.
    pub(super) answered: BTreeMap<KeyedRef, Kept>,
    /// Runs of mismatches that end here.
    pub(super) ended: BTreeSet<Counter>,
    /// Mismatches to add to a run, and attempts to give back, because nobody was asked.
    pub(super) moved: BTreeMap<Counter, i64>,
    /// Credits: to whom, how much, and the reference of an order.
    pub(super) credits: Vec<(i64, i64, Option<[u8; 16]>)>,
    /// Passes that may be given again, and until when.
    pub(super) passed: BTreeMap<KeyedRef, Millis>,
    /// Keys of questions that this node may have claimed to ask providers, and does not any more.
    pub(super) claimed: BTreeSet<KeyedRef>,
    /// Spent on providers, millionths of a credit; of calls, their number.
    pub(super) spent: BTreeMap<SumOf, i64>,
}

/// A stored answer.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) payload: KeyedRef,
    pub(super) until_ms: Millis,
    pub(super) answer: Vec<u8>,
    /// The newest of its keys, under which all of them are erased.
    pub(super) name: KeyedRef,
}

impl Effects {
    pub(super) fn of(
        entries: &[Entry],
        sides: &[&Side],
        also_known_as: &[(KeyedRef, IdempotencyRef)],
    ) -> Effects {
        let mut all = Effects::default();
        for (entry, side) in entries.iter().zip(sides) {
            all.add(entry, side);
        }
        for (name, asked) in also_known_as {
            // One that is not kept is not known by its other names either.
            if let Some(kept) = all.answered.get(name).cloned() {
                all.answered.insert(asked.key, Kept { payload: asked.payload, ..kept });
            }
        }
        all.end_claims(entries, sides, also_known_as);
        all
    }

    /// What was bought for a question is in the same block as its answer; where nobody could be asked, it is busy.
    fn end_claims(
        &mut self,
        entries: &[Entry],
        sides: &[&Side],
        also_known_as: &[(KeyedRef, IdempotencyRef)],
    ) {
        let bought = entries.iter().filter_map(|entry| match entry {
            Entry::Bought(bought) => Some(bought.asking.request),
            _ => None,
        });
        let bought: HashSet<[u8; 16]> = bought.collect();
        for (entry, side) in entries.iter().zip(sides) {
            if let (Entry::Answer(answer), Some(asked)) = (entry, side.idempotency)
                && (bought.contains(&answer.request) || answer.outcome == Outcome::SourceBusy)
            {
                self.claimed.insert(asked.key);
            }
        }
        let others = also_known_as.iter().filter(|(name, _)| self.claimed.contains(name));
        let others: Vec<KeyedRef> = others.map(|(_, asked)| asked.key).collect();
        self.claimed.extend(others);
    }

    fn spend(&mut self, provider: &str, sums: impl IntoIterator<Item = (Sum, i32, i64)>) {
        for (sum, period, amount) in sums.into_iter().filter(|(.., amount)| *amount != 0) {
            *self.spent.entry((provider.to_owned(), sum, period)).or_default() += amount;
        }
    }

    fn add(&mut self, entry: &Entry, side: &Side) {
        match entry {
            Entry::Answer(answer) => {
                self.charge(
                    answer.application.0,
                    answer.credential,
                    answer.charged,
                    answer.balance.is_some(),
                );
                if let Some(refs) = &side.attempts {
                    self.count(refs, answer.outcome);
                }
                if let Some(asked) = side.idempotency.filter(|_| is_kept(answer)) {
                    self.keep(&asked, answer);
                }
                if let Some(reuse) = side.reuse.filter(|_| answer.outcome == Outcome::Pass) {
                    self.passed.insert(reuse.key, reuse.until_ms);
                }
            }
            Entry::Bulk(bulk) => {
                self.charge(bulk.application.0, bulk.credential, bulk.charged(), bulk.balance.is_some());
                let rows = side.bulk.iter().flat_map(|bulk| bulk.attempts.iter().zip(bulk.outcomes()));
                for (refs, outcome) in rows {
                    if let Some((refs, outcome)) = refs.as_ref().zip(outcome) {
                        self.count(refs, outcome);
                    }
                }
            }
            Entry::Grant { application, amount, .. } => {
                self.credits.push((i64::from(application.0), amount.0, None));
            }
            Entry::Payment { application, amount, reference, .. } => {
                self.credits.push((i64::from(application.0), amount.0, Some(*reference)));
            }
            Entry::Asking(asking) => self.spend(&asking.provider, asking.adds()),
            Entry::Bought(bought) => self.spend(&bought.asking.provider, bought.adds()),
            Entry::Billed(billed) => self.spend(&billed.asking.provider, billed.adds()),
            _ => {}
        }
    }

    fn charge(&mut self, application: u32, credential: CredentialId, charged: Credits, is_limited: bool) {
        if charged <= Credits::ZERO {
            return;
        }
        if is_limited {
            *self.charged.entry(Purse::application(application)).or_default() += charged.0;
        }
        *self.charged.entry(Purse::credential(credential.0)).or_default() += charged.0;
    }

    fn count(&mut self, refs: &AttemptRefs, outcome: Outcome) {
        let day = refs.day as i32;
        if outcome.class() == Class::Retryable {
            // Counted before the look-up; nobody was asked.
            refs.counters().for_each(|counter| *self.moved.entry((day, counter)).or_default() -= 1);
            return;
        }
        let pair = (day, refs.pair());
        match outcome {
            Outcome::HolderMismatch => *self.moved.entry(pair).or_default() += 1,
            Outcome::Pass => {
                self.moved.remove(&pair);
                self.ended.insert(pair);
            }
            _ => {}
        }
    }

    fn keep(&mut self, asked: &IdempotencyRef, answer: &Answer) {
        let IdempotencyRef { key, payload, until_ms } = *asked;
        self.answered.insert(key, Kept { payload, until_ms, answer: encoded(answer), name: key });
    }
}

/// "Busy" and "too many attempts" invite to ask again: the next one must be asked, not recalled.
fn is_kept(answer: &Answer) -> bool {
    answer.outcome.class() != Class::Retryable
}
