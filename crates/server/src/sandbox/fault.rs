//! Rules that make things go wrong on purpose, the same way for the same seed.

use engine::caller::Wire;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::tencent::action::Action as Name;

/// A rule as it is posted: which requests, how often, and what happens to them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Given by the sandbox.
    #[serde(default)]
    pub id: u64,
    /// `tencent` or `acedata`; absent: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
    /// `BankCard4EVerification`, `bankcard/check-4e`, or on every wire `bankcard-4e`; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Card number, digits as sent; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// Share of matching requests it applies to, 0 to 1; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Leave the first so many matching requests alone.
    #[serde(default)]
    pub skip: u64,
    /// Apply it so many times at most; absent: for ever, or to the end of the sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// What happens to the first, the second, … request it applies to; after the last the rule is
    /// over, unless `count` says how often to go round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequence: Vec<Effect>,
    /// Matching requests so far.
    #[serde(default)]
    pub matched: u64,
    /// Requests it was applied to.
    #[serde(default)]
    pub applied: u64,
}

/// What happens to a request. Several can happen at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Answer this outcome: a name, or a four-element code as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Answer this error code of the wire; nothing is charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answer after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Answer with this HTTP status and a body no client expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether `status` strikes before the question is asked (nothing is charged) or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Close the connection instead of answering, before or after the question is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<When>,
    /// Send so many bytes of the body, then close the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<usize>,
    /// Panic while answering.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
}

/// Before the question is asked, or after it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing is charged.
    Before,
    /// Charged and recorded, but the client does not learn it.
    After,
}

/// Rules kept at most.
const RULES_MAX: usize = 1000;

/// All rules, in the order they were posted; the first that applies wins.
pub struct Faults {
    seed: u64,
    next_id: u64,
    rules: Vec<Rule>,
}

impl Faults {
    /// No rules yet.
    pub fn new(seed: u64) -> Faults {
        Faults { seed, next_id: 1, rules: Vec::new() }
    }

    /// Adds a rule and gives it its id.
    ///
    /// # Errors
    /// What is wrong with it and how to say it right.
    pub fn add(&mut self, mut rule: Rule) -> Result<&Rule, String> {
        check(&rule)?;
        if self.rules.len() == RULES_MAX {
            return Err(format!("there are {RULES_MAX} rules already; DELETE /_sandbox/faults first"));
        }
        (rule.id, rule.matched, rule.applied) = (self.next_id, 0, 0);
        self.next_id += 1;
        self.rules.push(rule);
        Ok(&self.rules[self.rules.len() - 1])
    }

    /// All rules with their counts.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Removes one rule; `false` when there is none of that id.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.id != id);
        self.rules.len() < before
    }

    /// Removes all rules; ids start again, so that the same rules draw the same.
    pub fn clear(&mut self) {
        *self = Faults::new(self.seed);
    }

    /// What happens to this request.
    pub fn draw(&mut self, wire: Wire, action: [&str; 2], card: &str) -> Option<Effect> {
        let card: String = card.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        let seed = self.seed;
        self.rules.iter_mut().find_map(|rule| rule.strike(seed, wire, action, &card))
    }
}

impl Rule {
    fn strike(&mut self, seed: u64, wire: Wire, action: [&str; 2], card: &str) -> Option<Effect> {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        // A rule that asks for an error of the other wire is not about this one.
        let errors = self.effect.iter().chain(&self.sequence).filter_map(|effect| effect.error.as_deref());
        if !errors.into_iter().all(|code| knows_error(Some(wire.name()), code)) {
            return None;
        }
        let is_asked = action.iter().any(|name| is(&self.action, name));
        if !(is(&self.wire, wire.name()) && is_asked && is(&self.card, card)) || self.over() {
            return None;
        }
        self.matched += 1;
        if self.matched <= self.skip || !self.drawn(seed) {
            return None;
        }
        let steps = self.sequence.len() as u64;
        let effect = match steps {
            0 => self.effect.clone(),
            _ => self.sequence.get((self.applied % steps) as usize).cloned(),
        };
        self.applied += 1;
        effect
    }

    fn over(&self) -> bool {
        let once = (!self.sequence.is_empty()).then_some(self.sequence.len() as u64);
        self.count.or(once).is_some_and(|most| self.applied >= most)
    }

    /// A draw is a hash of seed, rule and that rule's count, never a shared stream: the same requests
    /// draw the same, in whatever order other rules are asked.
    fn drawn(&self, seed: u64) -> bool {
        let Some(probability) = self.probability else { return true };
        let mut hash = Sha256::new();
        [seed, self.id, self.matched].iter().for_each(|number| hash.update(number.to_be_bytes()));
        let drawn: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = drawn;
        f64::from(u32::from_be_bytes([a, b, c, d])) < probability * f64::from(u32::MAX)
    }
}

fn check(rule: &Rule) -> Result<(), String> {
    if let Some(wire) = &rule.wire
        && !Wire::ALL.iter().any(|known| known.name() == wire)
    {
        return Err(format!("`wire` is `{wire}`; use \"tencent\", \"acedata\" or \"native\""));
    }
    if rule.probability.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        return Err("`probability` is a share between 0 and 1".into());
    }
    match (&rule.effect, rule.sequence.is_empty()) {
        (Some(_), false) => Err("give `effect` or `sequence`, not both".into()),
        (None, true) => {
            Err("give an `effect`, for example {\"effect\":{\"outcome\":\"SOURCE_BUSY\"}}".into())
        }
        _ => rule.effect.iter().chain(&rule.sequence).try_for_each(|effect| check_effect(effect, rule)),
    }
}

fn check_effect(effect: &Effect, rule: &Rule) -> Result<(), String> {
    if *effect == Effect::default() {
        return Err(
            "an effect says at least one of outcome, error, delay_ms, status, drop, truncate, panic".into()
        );
    }
    if let Some(outcome) = &effect.outcome
        && !Name::ALL.iter().any(|name| super::outcome(*name, outcome).is_some())
    {
        return Err(format!(
            "`outcome` is `{outcome}`; use a name such as CARD_LOST or a code such as \"-13\""
        ));
    }
    if let Some(error) = &effect.error
        && !knows_error(rule.wire.as_deref(), error)
    {
        return Err(format!("no wire that this rule covers has an error code `{error}`"));
    }
    if effect.status.is_some_and(|status| !(200..=599).contains(&status)) {
        return Err("`status` is an HTTP status between 200 and 599".into());
    }
    Ok(())
}

fn knows_error(wire: Option<&str>, code: &str) -> bool {
    let tencent = || wire::tencent::error::ErrorCode::ALL.iter().any(|known| known.as_str() == code);
    let acedata = || wire::acedata::ErrorCode::ALL.iter().any(|known| known.as_str() == code);
    match wire {
        Some("tencent") => tencent(),
        Some("acedata" | "native") => acedata(),
        _ => tencent() || acedata(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    fn draws(faults: &mut Faults, times: usize) -> Vec<Option<String>> {
        let draw = |_| {
            faults
                .draw(Wire::Tencent, ["BankCard4EVerification", "bankcard-4e"], "62")
                .and_then(|e| e.outcome)
        };
        (0..times).map(draw).collect()
    }

    #[test]
    fn a_sequence_runs_once() {
        let mut faults = Faults::new(1);
        faults
            .add(rule(r#"{"sequence":[{"outcome":"SOURCE_BUSY"},{"outcome":"-18"},{"outcome":"PASS"}]}"#))
            .unwrap();
        let drawn = draws(&mut faults, 4);
        assert_eq!(drawn, [Some("SOURCE_BUSY".into()), Some("-18".into()), Some("PASS".into()), None]);
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        let drawn = |seed| {
            let mut faults = Faults::new(seed);
            faults.add(rule(r#"{"probability":0.5,"effect":{"outcome":"PASS"}}"#)).unwrap();
            draws(&mut faults, 64)
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let hits = drawn(7).iter().flatten().count();
        assert!((16..48).contains(&hits), "{hits} of 64 at one half");
    }

    #[test]
    fn a_rule_covers_what_it_says() {
        let mut faults = Faults::new(1);
        faults
            .add(rule(r#"{"wire":"acedata","card":"6225","skip":1,"count":1,"effect":{"delay_ms":5}}"#))
            .unwrap();
        assert_eq!(faults.draw(Wire::Tencent, ["x", "y"], "6225"), None);
        assert_eq!(faults.draw(Wire::AceData, ["x", "y"], "6226"), None);
        assert_eq!(faults.draw(Wire::AceData, ["x", "y"], "6225"), None, "skipped");
        assert_eq!(faults.draw(Wire::AceData, ["x", "y"], "62 25").unwrap().delay_ms, Some(5));
        assert_eq!(faults.draw(Wire::AceData, ["x", "y"], "6225"), None, "over");
    }

    #[test]
    fn mistakes_are_refused_with_what_to_write() {
        let mut faults = Faults::new(1);
        for (json, said) in [
            (r#"{}"#, "give an `effect`"),
            (r#"{"effect":{}}"#, "at least one of"),
            (r#"{"wire":"soap","effect":{"outcome":"PASS"}}"#, "tencent"),
            (r#"{"effect":{"outcome":"LOST"}}"#, "CARD_LOST"),
            (r#"{"wire":"acedata","effect":{"error":"MissingParameter"}}"#, "MissingParameter"),
            (r#"{"probability":2,"effect":{"outcome":"PASS"}}"#, "between 0 and 1"),
        ] {
            let error = faults.add(rule(json)).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
