//! What providers are asked and what they charge: the other side of the ledger's money.
//!
//! A purchase is two entries. [`Asking`] is durable before the question leaves and says what it may cost
//! at most; [`Bought`] says what became of it. Between the two the whole price counts as spent, so that no
//! cap is crossed however many questions are under way, and none is crossed after a crash either.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::caller::ApplicationId;
use crate::clock::{Millis, beijing_day};
use crate::ledger::Credits;
use crate::outcome::Outcome;
use crate::subject::Date;

/// Which purchase: the request it is for, and its number among those of that request.
pub type PurchaseId = ([u8; 16], u8);

/// Numbers from here on are of shadows: asked beside the live answer, and nobody's answer.
pub const SHADOWS: u8 = 100;

/// A provider is about to be asked. Nothing in it tells about whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// When, Unix milliseconds.
    pub at_ms: Millis,
    /// The request it is for.
    pub request: [u8; 16],
    /// Its number among the purchases for that request, from 0; from [`SHADOWS`] on a shadow.
    pub number: u8,
    /// For whom.
    pub application: ApplicationId,
    /// By which route.
    pub route: String,
    /// Which provider.
    pub provider: String,
    /// What is asked.
    pub action: Action,
    /// What it costs at most.
    pub most: Credits,
}

impl Asking {
    /// Which purchase it is.
    pub fn id(&self) -> PurchaseId {
        (self.request, self.number)
    }
}

/// What is added up of the purchases from a provider where nodes share a database, each its own part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub(crate) enum Sum {
    /// Spent on a day.
    Day,
    /// Spent in a month.
    Month,
    /// Spent since the beginning.
    All,
    /// Of it what may not have been charged.
    Uncertain,
    /// Number of purchases.
    Calls,
}

/// Provider, sum, and the day or month it is of; 0 where it is of none.
pub(crate) type SumOf = (String, Sum, i32);

/// Day and month of a time, in Asia/Shanghai.
pub(crate) fn periods(at: Millis) -> (i32, i32) {
    (beijing_day(at) as i32, month(at) as i32)
}

/// An amount that was found to be another one, in the sums of when it was asked.
fn changed(at: Millis, by: i64) -> [(Sum, i32, i64); 3] {
    let (day, month) = periods(at);
    [(Sum::Day, day, by), (Sum::Month, month, by), (Sum::All, 0, by)]
}

impl Asking {
    /// What it adds to sums. What it may cost was set aside in those of its day and month before.
    pub(crate) fn adds(&self) -> [(Sum, i32, i64); 2] {
        [(Sum::All, 0, self.most.0), (Sum::Calls, 0, 1)]
    }
}

impl Bought {
    /// What it adds to sums.
    pub(crate) fn adds(&self) -> impl Iterator<Item = (Sum, i32, i64)> + use<> {
        let uncertain = if self.ending.is_uncertain() { self.cost.0 } else { 0 };
        let all = changed(self.asking.at_ms, self.cost.0 - self.asking.most.0);
        all.into_iter().chain([(Sum::Uncertain, 0, uncertain)])
    }
}

impl Billed {
    /// What it adds to sums.
    pub(crate) fn adds(&self) -> impl Iterator<Item = (Sum, i32, i64)> + use<> {
        let all = changed(self.asking.at_ms, self.cost.0 - self.was.0);
        all.into_iter().chain([(Sum::Uncertain, 0, -self.was.0)])
    }
}

/// How a purchase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Answered.
    Answered,
    /// Refused, or never sent: it surely cost nothing.
    Free,
    /// It left and nothing usable came back: it may have been charged.
    Unclear,
    /// Found under way at a start: it may have been charged.
    Lost,
}

impl Ending {
    /// Its name where a program reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Ending::Answered => "answered",
            Ending::Free => "free",
            Ending::Unclear => "unclear",
            Ending::Lost => "lost",
        }
    }

    /// Whether nobody but the provider knows what it cost.
    pub const fn is_uncertain(self) -> bool {
        matches!(self, Ending::Unclear | Ending::Lost)
    }
}

/// What became of a purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bought {
    /// When, Unix milliseconds.
    pub at_ms: Millis,
    /// What was asked of whom.
    pub asking: Asking,
    /// How it ended.
    pub ending: Ending,
    /// What it cost; where that is not certain, what it may have cost.
    pub cost: Credits,
    /// What the provider's answer means.
    pub outcome: Option<Outcome>,
    /// The provider's own number or error code.
    pub code: String,
    /// The id the provider knows the question by.
    pub reference: String,
    /// Prefix of the card's issuer, from the issuer table.
    pub issuer: Option<String>,
    /// Of a shadow: what was answered to the caller.
    pub live: Option<Outcome>,
    /// From the call to its reply, milliseconds.
    pub elapsed_ms: u32,
}

/// What a purchase cost after all, by the provider's bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billed {
    /// When that was recorded, Unix milliseconds.
    pub at_ms: Millis,
    /// Which purchase.
    pub asking: Asking,
    /// What was counted for it.
    pub was: Credits,
    /// What it is by the bill.
    pub cost: Credits,
}

/// The most a provider may be paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// On a day of Asia/Shanghai.
    pub daily: Option<Credits>,
    /// In a calendar month there.
    pub monthly: Option<Credits>,
}

/// A cap leaves no room for another purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapReached;

/// What was spent on one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    day: u32,
    month: u32,
    /// On the newest day.
    pub of_day: Credits,
    /// In the newest month.
    pub of_month: Credits,
    /// Since the beginning.
    pub total: Credits,
    /// Of it what may not have been charged: nobody knows until a bill is held against it. Of one node among
    /// several it is below zero where its bills are about what others bought.
    pub uncertain: Credits,
    /// Purchases.
    pub calls: u64,
    /// Set aside for calls that are not durable yet.
    #[serde(skip)]
    held: Credits,
}

impl Spent {
    /// What was spent on each provider, from sums of all nodes.
    pub(crate) fn by_provider(sums: impl IntoIterator<Item = (String, Sum, i64)>) -> HashMap<String, Spent> {
        let mut all: HashMap<String, Spent> = HashMap::new();
        for (provider, sum, amount) in sums {
            let spent = all.entry(provider).or_default();
            match sum {
                Sum::Day => spent.of_day = Credits(amount),
                Sum::Month => spent.of_month = Credits(amount),
                Sum::All => spent.total = Credits(amount),
                Sum::Uncertain => spent.uncertain = Credits(amount),
                Sum::Calls => spent.calls = amount as u64,
            }
        }
        all
    }

    /// A new day or month begins at nothing. A clock that is put back opens no second budget.
    fn turn(&mut self, at: Millis) {
        let (day, month) = (beijing_day(at), month(at));
        if day > self.day {
            (self.day, self.of_day) = (day, Credits::ZERO);
        }
        if month > self.month {
            (self.month, self.of_month) = (month, Credits::ZERO);
        }
    }

    fn add(&mut self, at: Millis, amount: i64) {
        self.total.0 += amount;
        if beijing_day(at) >= self.day {
            self.of_day.0 += amount;
        }
        if month(at) >= self.month {
            self.of_month.0 += amount;
        }
    }
}

/// Months since year 0, in Asia/Shanghai.
fn month(at: Millis) -> u32 {
    let date = Date::in_beijing(at.div_euclid(1000));
    u32::from(date.year()) * 12 + u32::from(date.month())
}

/// That a provider, or the issuer behind it, does not check this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// When it last said so, Unix milliseconds.
    pub at_ms: Millis,
    /// How often in a row.
    pub times: u32,
}

/// Provider, prefix of the issuer, action.
pub type Capability = (String, String, Action);

/// Capabilities kept at most; more are not learned until some are forgotten.
const CAPABILITIES_MAX: usize = 10_000;

/// What all purchases add up to; part of the books.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub struct Spending {
    of: BTreeMap<String, Spent>,
    /// Under way: asked, and nothing recorded of how it ended.
    open: HashMap<PurchaseId, Asking>,
    lacking: BTreeMap<Capability, Lacking>,
}

impl Spending {
    /// Sets the price of one purchase aside, if the caps leave room for it.
    pub fn hold(
        &mut self,
        provider: &str,
        price: Credits,
        caps: &Caps,
        now: Millis,
    ) -> Result<(), CapReached> {
        if !self.of.contains_key(provider) {
            self.of.insert(provider.to_owned(), Spent::default());
        }
        let Some(spent) = self.of.get_mut(provider) else { return Err(CapReached) };
        spent.turn(now);
        let fits = |cap: Option<Credits>, spent_already: Credits, held: Credits| {
            cap.is_none_or(|cap| spent_already.0 + held.0 + price.0 <= cap.0)
        };
        if !fits(caps.daily, spent.of_day, spent.held) || !fits(caps.monthly, spent.of_month, spent.held) {
            return Err(CapReached);
        }
        spent.held.0 += price.0;
        Ok(())
    }

    /// Gives back what [`Spending::hold`] set aside: the call is durable now, or will not be made.
    pub fn release(&mut self, provider: &str, price: Credits) {
        if let Some(spent) = self.of.get_mut(provider) {
            spent.held.0 = (spent.held.0 - price.0).max(0);
        }
    }

    /// Counts a call that is about to be made, with all it may cost.
    pub fn asking(&mut self, asking: &Asking) {
        let spent = self.of.entry(asking.provider.clone()).or_default();
        spent.turn(asking.at_ms);
        spent.add(asking.at_ms, asking.most.0);
        spent.calls += 1;
        self.open.insert(asking.id(), asking.clone());
    }

    /// Counts what a call came to instead. Once: a purchase that is not under way is not counted again.
    pub fn bought(&mut self, bought: &Bought) {
        let asking = &bought.asking;
        if self.open.remove(&asking.id()).is_none() {
            return;
        }
        let spent = self.of.entry(asking.provider.clone()).or_default();
        spent.add(asking.at_ms, bought.cost.0 - asking.most.0);
        if bought.ending.is_uncertain() {
            spent.uncertain.0 += bought.cost.0;
        }
        self.learn(bought);
    }

    /// Counts what the bill says.
    pub fn billed(&mut self, billed: &Billed) {
        let spent = self.of.entry(billed.asking.provider.clone()).or_default();
        spent.add(billed.asking.at_ms, billed.cost.0 - billed.was.0);
        spent.uncertain.0 -= billed.was.0;
    }

    fn learn(&mut self, bought: &Bought) {
        let (Some(issuer), Some(outcome)) = (&bought.issuer, bought.outcome) else { return };
        let key = (bought.asking.provider.clone(), issuer.clone(), bought.asking.action);
        match outcome {
            Outcome::IssuerUnsupported | Outcome::PhoneUncheckable
                if self.lacking.len() < CAPABILITIES_MAX || self.lacking.contains_key(&key) =>
            {
                let lacking = self.lacking.entry(key).or_insert(Lacking { at_ms: 0, times: 0 });
                *lacking = Lacking { at_ms: bought.at_ms, times: lacking.times + 1 };
            }
            // It compared the elements, so it can.
            Outcome::Pass | Outcome::HolderMismatch => drop(self.lacking.remove(&key)),
            _ => {}
        }
    }

    /// Forgets what was learned before this.
    pub fn forget_lacking(&mut self, before: Millis) {
        self.lacking.retain(|_, lacking| lacking.at_ms >= before);
    }

    /// What providers were found not to check since then.
    pub fn lacking(&self, since: Millis) -> impl Iterator<Item = (&Capability, &Lacking)> {
        self.lacking.iter().filter(move |(_, lacking)| lacking.at_ms >= since)
    }

    /// Whether a provider said since then that it cannot check this of cards of this issuer.
    pub fn lacks(&self, provider: &str, issuer: &str, action: Action, since: Millis) -> bool {
        let key = (provider.to_owned(), issuer.to_owned(), action);
        self.lacking.get(&key).is_some_and(|lacking| lacking.at_ms >= since)
    }

    /// What was spent on a provider, as of now.
    pub fn spent(&self, provider: &str, now: Millis) -> Spent {
        let mut spent = self.of.get(provider).copied().unwrap_or_default();
        spent.turn(now);
        spent
    }

    /// This node's part of the sums, as its entries have them.
    pub(crate) fn sums(&self) -> Vec<(SumOf, i64)> {
        let of = |(provider, spent): (&String, &Spent)| {
            let sums = [
                (Sum::Day, spent.day as i32, spent.of_day.0),
                (Sum::Month, spent.month as i32, spent.of_month.0),
                (Sum::All, 0, spent.total.0),
                (Sum::Uncertain, 0, spent.uncertain.0),
                (Sum::Calls, 0, spent.calls as i64),
            ];
            sums.map(|(sum, period, amount)| ((provider.clone(), sum, period), amount))
        };
        self.of.iter().flat_map(of).collect()
    }

    /// Everybody who was ever paid.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.of.keys().map(String::as_str)
    }

    /// Purchases under way.
    pub fn open(&self) -> impl Iterator<Item = &Asking> {
        self.open.values()
    }

    /// Purchases under way with a provider.
    pub fn open_with(&self, provider: &str) -> usize {
        self.open.values().filter(|asking| asking.provider == provider).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Millis = 1_795_233_600_000; // 2026-11-21 12:00 in Beijing
    const DAY: Millis = 86_400_000;
    const ONE: Credits = Credits::whole(1);

    fn asking(number: u8, at_ms: Millis) -> Asking {
        Asking {
            at_ms,
            request: [7; 16],
            number,
            application: ApplicationId(1),
            route: "all".into(),
            provider: "p".into(),
            action: Action::FourElements,
            most: ONE,
        }
    }

    fn bought(asking: Asking, ending: Ending, outcome: Option<Outcome>) -> Bought {
        let cost = if ending == Ending::Free { Credits::ZERO } else { asking.most };
        Bought {
            at_ms: asking.at_ms,
            asking,
            ending,
            cost,
            outcome,
            code: "0".into(),
            reference: "r".into(),
            issuer: Some("621700".into()),
            live: None,
            elapsed_ms: 3,
        }
    }

    #[test]
    fn caps_open_again_at_midnight_in_shanghai_and_on_the_first() {
        let caps = Caps { daily: Some(Credits::whole(2)), monthly: Some(Credits::whole(3)) };
        let mut spending = Spending::default();
        let mut buy = |at: Millis, number: u8| {
            let held = spending.hold("p", ONE, &caps, at);
            if held.is_ok() {
                spending.release("p", ONE);
                spending.asking(&asking(number, at));
            }
            held.is_ok()
        };
        assert_eq!([buy(NOON, 0), buy(NOON, 1), buy(NOON, 2)], [true, true, false]);
        let midnight = NOON + 12 * 3_600_000;
        assert!(!buy(midnight - 1, 3), "one millisecond before midnight in Shanghai");
        assert!(buy(midnight, 4));
        assert!(!buy(midnight + DAY, 5), "the month is full");
        assert!(!buy(NOON, 6), "a clock that is put back opens nothing");
        assert!(buy(NOON + 10 * DAY, 7), "the first of the month");
    }

    #[test]
    fn what_it_came_to_replaces_what_it_might_have_cost() {
        let mut spending = Spending::default();
        for number in 0..4 {
            spending.asking(&asking(number, NOON));
        }
        assert_eq!(spending.spent("p", NOON).of_day, Credits::whole(4));
        spending.bought(&bought(asking(0, NOON), Ending::Answered, Some(Outcome::Pass)));
        spending.bought(&bought(asking(1, NOON), Ending::Free, None));
        let unclear = bought(asking(2, NOON), Ending::Unclear, None);
        spending.bought(&unclear);
        spending.bought(&unclear);
        let spent = spending.spent("p", NOON);
        assert_eq!((spent.of_day, spent.uncertain), (Credits::whole(3), ONE), "each counts once");
        assert_eq!(spending.open_with("p"), 1);
        let billed = Billed { at_ms: NOON, asking: asking(2, NOON), was: ONE, cost: Credits::ZERO };
        spending.billed(&billed);
        let spent = spending.spent("p", NOON);
        assert_eq!((spent.of_month, spent.uncertain), (Credits::whole(2), Credits::ZERO));
    }

    #[test]
    fn what_an_issuer_cannot_check_is_remembered_until_it_can_or_until_it_is_old() {
        let mut spending = Spending::default();
        let mut answer = |outcome, number| {
            spending.asking(&asking(number, NOON));
            spending.bought(&bought(asking(number, NOON), Ending::Answered, Some(outcome)));
            spending.lacks("p", "621700", Action::FourElements, NOON - DAY)
        };
        assert!(!answer(Outcome::CardLost, 0));
        assert!(answer(Outcome::IssuerUnsupported, 1));
        assert!(!answer(Outcome::Pass, 2), "it can, after all");
        assert!(answer(Outcome::IssuerUnsupported, 3));
        assert!(!spending.lacks("p", "621700", Action::FourElements, NOON + 1), "that is old");
        assert!(!spending.lacks("q", "621700", Action::FourElements, 0));
        spending.forget_lacking(NOON + 1);
        assert_eq!(spending.lacking(0).count(), 0);
    }

    proptest! {
        /// However calls are begun, end, are lost in a crash or are billed: what was really charged never
        /// comes to more than the caps, on any day.
        #[test]
        fn no_cap_is_ever_crossed(
            steps in proptest::collection::vec((0u8..6, 0i64..3), 1..200),
            daily in 1i64..6, monthly in 4i64..12,
        ) {
            let caps =
                Caps { daily: Some(Credits::whole(daily)), monthly: Some(Credits::whole(monthly)) };
            let mut spending = Spending::default();
            let (mut now, mut number) = (NOON, 0u8);
            let (mut under_way, mut paid) = (Vec::new(), BTreeMap::<u32, i64>::new());
            for (step, hours) in steps {
                now += hours * 3_600_000;
                match step {
                    0..=2 if number < SHADOWS => {
                        if spending.hold("p", ONE, &caps, now).is_ok() {
                            spending.release("p", ONE);
                            number += 1;
                            spending.asking(&asking(number, now));
                            under_way.push(asking(number, now));
                        }
                    }
                    3 => {
                        if let Some(asking) = under_way.pop() {
                            *paid.entry(beijing_day(asking.at_ms)).or_default() += 1;
                            spending.bought(&bought(asking, Ending::Answered, Some(Outcome::Pass)));
                        }
                    }
                    4 => {
                        if let Some(asking) = under_way.pop() {
                            spending.bought(&bought(asking, Ending::Free, None));
                        }
                    }
                    _ => {
                        // A restart: the snapshot is read, all that was under way may have been charged.
                        spending = postcard::from_bytes(&crate::ledger::encoded(&spending)).unwrap();
                        for asking in under_way.drain(..) {
                            *paid.entry(beijing_day(asking.at_ms)).or_default() += 1;
                            spending.bought(&bought(asking, Ending::Lost, None));
                        }
                    }
                }
            }
            prop_assert!(paid.values().all(|paid| *paid <= daily));
            let mut months = BTreeMap::<u32, i64>::new();
            for (day, paid) in &paid {
                *months.entry(month(i64::from(*day) * DAY)).or_default() += paid;
            }
            prop_assert!(months.values().all(|paid| *paid <= monthly));
        }
    }
}
