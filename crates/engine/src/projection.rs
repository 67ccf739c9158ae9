//! Outcome to each wire's own code: the only place where an outcome becomes a number.
//!
//! The tables share no numbers on purpose: "holder wrong" is -6 on the Tencent wire and -4 on the
//! AceData wire, where -6 means "confiscated". `tests/projection.golden` holds all of them.

use serde::{Deserialize, Serialize};
use wire::acedata::CheckCode;
use wire::tencent::action::BankCard4ECode;

use crate::outcome::Outcome as O;

/// Tencent's code for `BankCard4EVerification`.
pub const fn tencent(outcome: O) -> BankCard4ECode {
    use BankCard4ECode as T;
    match outcome {
        O::Pass => T::Passed,
        O::Declined => T::NotPassed,
        O::NameInvalid => T::NameInvalid,
        O::IdInvalid => T::IdInvalid,
        O::PanMalformed => T::CardMalformed,
        O::PhoneInvalid => T::PhoneInvalid,
        O::HolderMismatch => T::HolderMismatch,
        O::CnpDisabled => T::CardlessNotEnabled,
        O::CardSeized => T::CardConfiscated,
        O::PanInvalid => T::CardInvalid,
        O::IssuerUnknown => T::NoIssuer,
        O::CardInactive => T::CardInactive,
        O::CardFraud => T::CardFraud,
        O::CardLost => T::CardLost,
        O::CardExpired => T::CardExpired,
        O::CardRestricted => T::CardRestricted,
        O::CardPinLocked => T::PinLocked,
        // Neither wire has a code for "the mobile cannot be checked": the issuer does not support it.
        O::IssuerUnsupported | O::PhoneUncheckable => T::IssuerUnsupported,
        O::SourceBusy => T::Busy,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::DocUnsupported => T::DocumentUnsupported,
        O::CardAbnormal => T::CardAbnormal,
    }
}

/// AceData's code for `bankcard/check-4e`, in the numbering its guide documents.
///
/// Four outcomes have no code there and answer -1 "not passed": never a success, never something
/// that invites a retry. Whether they are charged follows the outcome, not the number.
pub const fn acedata(outcome: O) -> CheckCode {
    use CheckCode as A;
    match outcome {
        O::Pass => A::Passed,
        O::Declined | O::IdInvalid | O::PhoneInvalid | O::DocUnsupported | O::CardAbnormal => A::NotPassed,
        O::NameInvalid => A::NameInvalid,
        O::PanMalformed => A::CardMalformed,
        O::HolderMismatch => A::HolderMismatch,
        O::CnpDisabled => A::CardlessNotEnabled,
        O::CardSeized => A::CardConfiscated,
        O::PanInvalid => A::CardInvalid,
        O::IssuerUnknown => A::NoIssuer,
        O::CardInactive => A::CardInactive,
        O::CardFraud => A::CardFraud,
        O::CardLost => A::CardLost,
        O::CardExpired => A::CardExpired,
        O::CardRestricted => A::CardRestricted,
        O::CardPinLocked => A::PinLocked,
        O::IssuerUnsupported | O::PhoneUncheckable => A::IssuerUnsupported,
        O::SourceBusy => A::Busy,
        O::AttemptsExceeded => A::AttemptsExceeded,
    }
}

/// Which numbers the AceData wire answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AceDataNumbering {
    /// The numbers of AceData's guide.
    #[default]
    Documented,
    /// Tencent's four-element numbers, which the live service may pass through.
    #[serde(rename = "upstream_4e")]
    Upstream4E,
}

/// The outcome a sandbox user asks for by a four-element code such as -13; the first that has it.
pub fn outcome_of_tencent_number(number: i8) -> Option<O> {
    O::ALL.into_iter().find(|outcome| tencent(*outcome).number() == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::DECISIONS;
    use std::fmt::Write;
    use wire::Language;

    /// Both tables side by side, with what is charged and where the same number means two things.
    #[test]
    fn golden() {
        let mut text = String::from(
            "outcome            class          billed  tencent  acedata  tencent zh / acedata zh\n",
        );
        for outcome in O::ALL {
            let (t, a) = (tencent(outcome), acedata(outcome));
            let _ = writeln!(
                text,
                "{:<18} {:<14} {:<7} {:>7}  {:>7}  {} / {}",
                outcome.name(),
                format!("{:?}", outcome.class()),
                outcome.billable(),
                t.number(),
                a.number(),
                t.text(Language::Chinese),
                a.text(Language::Chinese),
            );
        }
        text.push_str("\nsame number, different meaning:\n");
        for t in BankCard4ECode::ALL {
            let same = |a: &CheckCode| a.number() == t.number();
            if let Some(a) = CheckCode::ALL.into_iter().find(same)
                && outcomes_of(|o| tencent(o) == t) != outcomes_of(|o| acedata(o) == a)
            {
                let _ = writeln!(
                    text,
                    "{:>4}  tencent: {} | acedata: {}",
                    t.number(),
                    t.text(Language::English),
                    a.text(Language::English)
                );
            }
        }
        crate::golden::check("tests/projection.golden", &text);
    }

    /// `docs/decision-table.md`, from the code's own tables.
    #[test]
    fn documentation() {
        let mut text = String::from(include_str!("../tests/decision-table.head.md"));
        text.push_str(
            "\n| # | Stage | What has to hold | Outcome | Tencent | AceData | Price | Why here |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for decision in &DECISIONS {
            let outcome = decision.outcome;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                decision.row.0,
                decision.stage,
                decision.fact,
                outcome.name(),
                tencent(outcome).number(),
                acedata(outcome).number(),
                price(outcome),
                decision.why,
            );
        }
        text.push_str("\n## Outcomes and what each wire says\n\n| Outcome | Class | Price | Tencent | zh | en | AceData | zh | en |\n|---|---|---|---|---|---|---|---|---|\n");
        for outcome in O::ALL {
            let (t, a) = (tencent(outcome), acedata(outcome));
            let _ = writeln!(
                text,
                "| {} | {:?} | {} | {} | {} | {} | {} | {} | {} |",
                outcome.name(),
                outcome.class(),
                price(outcome),
                t.number(),
                t.text(Language::Chinese),
                t.text(Language::English),
                a.number(),
                a.text(Language::Chinese),
                a.text(Language::English),
            );
        }
        crate::golden::check("../../docs/decision-table.md", &text);
    }

    fn price(outcome: O) -> &'static str {
        if outcome.billable() { "charged" } else { "free" }
    }

    fn outcomes_of(has: impl Fn(O) -> bool) -> Vec<O> {
        O::ALL.into_iter().filter(|outcome| has(*outcome)).collect()
    }

    #[test]
    fn every_code_of_both_tables_has_an_outcome_and_the_charge_agrees() {
        for code in BankCard4ECode::ALL {
            let outcomes = outcomes_of(|o| tencent(o) == code);
            assert!(!outcomes.is_empty(), "{code:?}");
            for outcome in outcomes {
                assert_eq!(outcome.billable(), code.charged(), "{outcome:?}");
            }
        }
        for code in CheckCode::ALL {
            assert!(O::ALL.into_iter().any(|o| acedata(o) == code), "{code:?}");
        }
        // Documented as charged but reached by outcomes that are free: exactly the unlisted ones.
        let free_minus_one = outcomes_of(|o| acedata(o) == CheckCode::NotPassed && !o.billable());
        assert_eq!(free_minus_one, [O::IdInvalid, O::DocUnsupported, O::PhoneInvalid]);
    }

    #[test]
    fn only_a_pass_passes() {
        for outcome in O::ALL {
            assert_eq!(tencent(outcome).number() == 0, outcome == O::Pass);
            assert_eq!(acedata(outcome).number() == 0, outcome == O::Pass);
        }
    }
}
