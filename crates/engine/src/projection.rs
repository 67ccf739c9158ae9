//! Outcome to each action's own code on each wire: the only place where an outcome becomes a number.
//!
//! The tables share no numbers on purpose: "holder wrong" is -6 with four elements on the Tencent wire and
//! -4 on the AceData wire, where -6 means "confiscated". `docs/actions.md` holds all of them. What an
//! action never answers ([`Action::outcomes`]) has no number.

use serde::{Deserialize, Serialize};
use wire::acedata::Endpoint;
use wire::acedata::code as a;
use wire::code::ResultCode;
use wire::tencent::action::Action as Name;
use wire::tencent::code as t;

use crate::action::Action;
use crate::outcome::Outcome as O;

/// What is asked under a name of the Tencent wire. The carriers' three names ask the same: since numbers
/// can be ported nobody can tell a carrier by its numbers.
pub const fn asked_by_name(name: Name) -> Action {
    match name {
        Name::BankCard4EVerification => Action::FourElements,
        Name::BankCardVerification => Action::ThreeElements,
        Name::BankCard2EVerification => Action::TwoElements,
        Name::CheckBankCardInformation => Action::CardInformation,
        Name::IdCardVerification => Action::NameAndId,
        Name::PhoneVerification
        | Name::PhoneVerificationCMCC
        | Name::PhoneVerificationCUCC
        | Name::PhoneVerificationCTCC => Action::MobileNameAndId,
        Name::CheckPhoneAndName => Action::MobileAndName,
    }
}

/// The first name of an action on the Tencent wire.
pub const fn name_of(action: Action) -> Name {
    match action {
        Action::FourElements => Name::BankCard4EVerification,
        Action::ThreeElements => Name::BankCardVerification,
        Action::TwoElements => Name::BankCard2EVerification,
        Action::CardInformation => Name::CheckBankCardInformation,
        Action::NameAndId => Name::IdCardVerification,
        Action::MobileNameAndId => Name::PhoneVerification,
        Action::MobileAndName => Name::CheckPhoneAndName,
    }
}

/// What is asked at an endpoint of the AceData wire.
pub const fn asked_at(endpoint: Endpoint) -> Action {
    match endpoint {
        Endpoint::BankCard4E => Action::FourElements,
        Endpoint::BankCard3E => Action::ThreeElements,
        Endpoint::BankCard2E => Action::TwoElements,
        Endpoint::BankCard1E => Action::CardInformation,
        Endpoint::IdCard2E => Action::NameAndId,
        Endpoint::Phone3E => Action::MobileNameAndId,
        Endpoint::Phone2E => Action::MobileAndName,
    }
}

/// The endpoint of an action on the AceData wire.
pub const fn endpoint_of(action: Action) -> Endpoint {
    match action {
        Action::FourElements => Endpoint::BankCard4E,
        Action::ThreeElements => Endpoint::BankCard3E,
        Action::TwoElements => Endpoint::BankCard2E,
        Action::CardInformation => Endpoint::BankCard1E,
        Action::NameAndId => Endpoint::IdCard2E,
        Action::MobileNameAndId => Endpoint::Phone3E,
        Action::MobileAndName => Endpoint::Phone2E,
    }
}

/// Tencent's code; nothing where the action does not answer this.
pub fn tencent(name: Name, outcome: O) -> Option<ResultCode> {
    Some(match name {
        Name::BankCard4EVerification => four_elements(outcome)?.row(),
        Name::BankCardVerification => three_elements(outcome)?.row(),
        Name::BankCard2EVerification => two_elements(outcome)?.row(),
        Name::CheckBankCardInformation => card_information(outcome)?.row(),
        Name::IdCardVerification => id_card(outcome)?.row(),
        Name::PhoneVerification => phone(outcome)?.row(),
        Name::PhoneVerificationCMCC | Name::PhoneVerificationCUCC | Name::PhoneVerificationCTCC => {
            carrier_phone(outcome)?.row()
        }
        Name::CheckPhoneAndName => phone_and_name(outcome)?.row(),
    })
}

const fn four_elements(outcome: O) -> Option<t::BankCard4ECode> {
    use t::BankCard4ECode as T;
    Some(match outcome {
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
        O::NoRecord | O::SourceError | O::SourceUpgrading | O::KindUnsupported | O::NumberRange => {
            return None;
        }
    })
}

const fn three_elements(outcome: O) -> Option<t::BankCard3ECode> {
    use t::BankCard3ECode as T;
    Some(match outcome {
        O::Pass => T::Passed,
        O::Declined => T::NotPassed,
        O::NameInvalid => T::NameInvalid,
        O::IdInvalid => T::IdInvalid,
        O::PanMalformed => T::CardMalformed,
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
        O::IssuerUnsupported => T::IssuerUnsupported,
        O::SourceBusy => T::Busy,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::DocUnsupported => T::DocumentUnsupported,
        O::CardAbnormal => T::CardAbnormal,
        O::PhoneInvalid | O::PhoneUncheckable => return None,
        O::NoRecord | O::SourceError | O::SourceUpgrading | O::KindUnsupported | O::NumberRange => {
            return None;
        }
    })
}

const fn two_elements(outcome: O) -> Option<t::BankCard2ECode> {
    use t::BankCard2ECode as T;
    Some(match outcome {
        O::Pass => T::Passed,
        O::Declined => T::NotPassed,
        O::NameInvalid => T::NameInvalid,
        O::PanMalformed => T::CardMalformed,
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
        O::IssuerUnsupported => T::IssuerUnsupported,
        O::SourceBusy => T::Busy,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::CardAbnormal => T::CardAbnormal,
        O::IdInvalid | O::DocUnsupported | O::PhoneInvalid | O::PhoneUncheckable => return None,
        O::NoRecord | O::SourceError | O::SourceUpgrading | O::KindUnsupported | O::NumberRange => {
            return None;
        }
    })
}

const fn card_information(outcome: O) -> Option<t::CardInformationCode> {
    use t::CardInformationCode as T;
    Some(match outcome {
        O::Pass => T::Found,
        O::IssuerUnknown => T::NotFound,
        O::SourceBusy => T::Busy,
        O::PanInvalid => T::CardAbsent,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::PanMalformed => T::CardMalformed,
        O::KindUnsupported => T::KindUnsupported,
        O::HolderMismatch | O::Declined | O::NameInvalid | O::IdInvalid | O::DocUnsupported => return None,
        O::PhoneInvalid | O::IssuerUnsupported | O::PhoneUncheckable | O::CardSeized => return None,
        O::CardFraud | O::CardLost | O::CardExpired | O::CardRestricted | O::CardPinLocked => return None,
        O::CardInactive | O::CnpDisabled | O::CardAbnormal | O::NoRecord | O::SourceError => return None,
        O::SourceUpgrading | O::NumberRange => return None,
    })
}

const fn id_card(outcome: O) -> Option<t::IdCardCode> {
    use t::IdCardCode as T;
    Some(match outcome {
        O::Pass => T::Consistent,
        O::HolderMismatch => T::Inconsistent,
        // Any number but an 18-character one is "illegal" here.
        O::IdInvalid | O::DocUnsupported => T::IdInvalid,
        O::NameInvalid => T::NameInvalid,
        O::SourceError | O::SourceBusy => T::SourceError,
        O::NoRecord => T::NoRecord,
        O::SourceUpgrading => T::Upgrading,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::Declined | O::PanMalformed | O::PhoneInvalid | O::IssuerUnknown => return None,
        O::IssuerUnsupported | O::PhoneUncheckable | O::PanInvalid | O::CardSeized => return None,
        O::CardFraud | O::CardLost | O::CardExpired | O::CardRestricted | O::CardPinLocked => return None,
        O::CardInactive | O::CnpDisabled | O::CardAbnormal | O::KindUnsupported => return None,
        O::NumberRange => return None,
    })
}

const fn phone(outcome: O) -> Option<t::PhoneCode> {
    use t::PhoneCode as T;
    Some(match outcome {
        O::Pass => T::Passed,
        O::HolderMismatch => T::Inconsistent,
        O::PhoneInvalid => T::PhoneInvalid,
        O::IdInvalid | O::DocUnsupported => T::IdInvalid,
        O::NameInvalid => T::NameInvalid,
        O::NoRecord => T::NoRecord,
        O::SourceBusy | O::SourceError => T::Busy,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::NumberRange => T::NumberRange,
        O::Declined | O::PanMalformed | O::IssuerUnknown | O::IssuerUnsupported => return None,
        O::PhoneUncheckable | O::PanInvalid | O::CardSeized | O::CardFraud | O::CardLost => return None,
        O::CardExpired | O::CardRestricted | O::CardPinLocked | O::CardInactive => return None,
        O::CnpDisabled | O::CardAbnormal | O::KindUnsupported | O::SourceUpgrading => return None,
    })
}

const fn carrier_phone(outcome: O) -> Option<t::CarrierPhoneCode> {
    use t::CarrierPhoneCode as T;
    Some(match outcome {
        O::Pass => T::Passed,
        O::HolderMismatch => T::Inconsistent,
        O::PhoneInvalid => T::PhoneInvalid,
        O::IdInvalid | O::DocUnsupported => T::IdInvalid,
        O::NameInvalid => T::NameInvalid,
        O::NoRecord => T::NoRecord,
        // This table has no row for too many attempts: ask later, and nothing is charged.
        O::SourceBusy | O::SourceError | O::AttemptsExceeded => T::Busy,
        O::NumberRange => T::NumberRange,
        O::Declined | O::PanMalformed | O::IssuerUnknown | O::IssuerUnsupported => return None,
        O::PhoneUncheckable | O::PanInvalid | O::CardSeized | O::CardFraud | O::CardLost => return None,
        O::CardExpired | O::CardRestricted | O::CardPinLocked | O::CardInactive => return None,
        O::CnpDisabled | O::CardAbnormal | O::KindUnsupported | O::SourceUpgrading => return None,
    })
}

const fn phone_and_name(outcome: O) -> Option<t::PhoneAndNameCode> {
    use t::PhoneAndNameCode as T;
    Some(match outcome {
        O::Pass => T::Consistent,
        O::HolderMismatch => T::Inconsistent,
        O::NoRecord => T::NoRecord,
        O::SourceError => T::EngineUnknown,
        O::SourceBusy => T::EngineFailed,
        O::NameInvalid => T::NameInvalid,
        O::PhoneInvalid => T::PhoneInvalid,
        O::AttemptsExceeded => T::AttemptsExceeded,
        O::NumberRange => T::NumberRange,
        O::Declined | O::IdInvalid | O::DocUnsupported | O::PanMalformed | O::IssuerUnknown => return None,
        O::IssuerUnsupported | O::PhoneUncheckable | O::PanInvalid | O::CardSeized => return None,
        O::CardFraud | O::CardLost | O::CardExpired | O::CardRestricted | O::CardPinLocked => return None,
        O::CardInactive | O::CnpDisabled | O::CardAbnormal | O::KindUnsupported => return None,
        O::SourceUpgrading => return None,
    })
}

/// AceData's code, in the numbering of its guides or in that of the service it descends from; nothing
/// where the action does not answer this.
///
/// Where a guide's table has no row for an outcome, its answer is never a success and never something
/// that invites a retry; whether it is charged follows the outcome, not the number.
pub fn acedata(numbering: AceDataNumbering, endpoint: Endpoint, outcome: O) -> Option<ResultCode> {
    let action = asked_at(endpoint);
    if numbering == AceDataNumbering::Upstream4E {
        return tencent(name_of(action), outcome);
    }
    if !action.gives(outcome) {
        return None;
    }
    match endpoint {
        Endpoint::BankCard2E | Endpoint::BankCard3E | Endpoint::BankCard4E => Some(check(outcome)?.row()),
        Endpoint::BankCard1E => Some(check_information(outcome)?.row()),
        Endpoint::IdCard2E => Some(check_id_card(outcome)?.row()),
        Endpoint::Phone2E | Endpoint::Phone3E => Some(check_phone(outcome)?.row()),
    }
}

const fn check(outcome: O) -> Option<a::CheckCode> {
    use a::CheckCode as A;
    Some(match outcome {
        O::Pass => A::Passed,
        // The last four have no row.
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
        O::NoRecord | O::SourceError | O::SourceUpgrading | O::KindUnsupported | O::NumberRange => {
            return None;
        }
    })
}

const fn check_information(outcome: O) -> Option<a::CardInformationCode> {
    use a::CardInformationCode as A;
    Some(match card_information(outcome) {
        None => return None,
        Some(t::CardInformationCode::Found) => A::Found,
        Some(t::CardInformationCode::NotFound) => A::NotFound,
        Some(t::CardInformationCode::CardAbsent) => A::CardAbsent,
        // These three have no row. A malformed number is charged like any other that is not found.
        Some(t::CardInformationCode::CardMalformed | t::CardInformationCode::KindUnsupported) => A::NotFound,
        Some(t::CardInformationCode::Busy | t::CardInformationCode::AttemptsExceeded) => A::Busy,
    })
}

const fn check_id_card(outcome: O) -> Option<a::IdCardCode> {
    use a::IdCardCode as A;
    Some(match id_card(outcome) {
        None => return None,
        Some(t::IdCardCode::Consistent) => A::Consistent,
        Some(t::IdCardCode::Inconsistent) => A::Inconsistent,
        Some(t::IdCardCode::IdInvalid) => A::IdInvalid,
        Some(t::IdCardCode::NameInvalid) => A::NameInvalid,
        Some(t::IdCardCode::SourceError) => A::SourceError,
        Some(t::IdCardCode::NoRecord) => A::NoRecord,
        Some(t::IdCardCode::Upgrading) => A::Upgrading,
        Some(t::IdCardCode::AttemptsExceeded) => A::AttemptsExceeded,
    })
}

const fn check_phone(outcome: O) -> Option<a::PhoneCode> {
    use a::PhoneCode as A;
    Some(match outcome {
        O::Pass => A::Consistent,
        O::HolderMismatch => A::Inconsistent,
        // The last three have no row.
        O::NoRecord | O::IdInvalid | O::DocUnsupported | O::NumberRange => A::NoRecord,
        O::SourceError => A::EngineUnknown,
        O::SourceBusy => A::EngineFailed,
        O::NameInvalid => A::NameInvalid,
        O::PhoneInvalid => A::PhoneInvalid,
        O::AttemptsExceeded => A::AttemptsExceeded,
        O::Declined | O::PanMalformed | O::IssuerUnknown | O::IssuerUnsupported => return None,
        O::PhoneUncheckable | O::PanInvalid | O::CardSeized | O::CardFraud | O::CardLost => return None,
        O::CardExpired | O::CardRestricted | O::CardPinLocked | O::CardInactive => return None,
        O::CnpDisabled | O::CardAbnormal | O::KindUnsupported | O::SourceUpgrading => return None,
    })
}

/// Which numbers the AceData wire answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AceDataNumbering {
    /// The numbers of AceData's guides.
    #[default]
    Documented,
    /// Tencent's numbers of the same action, which the live service may pass through.
    #[serde(rename = "upstream_4e")]
    Upstream4E,
}

/// The outcome a sandbox user asks for by a code of the Tencent wire such as -13; the first that has it.
pub fn outcome_of_number(name: Name, number: i8) -> Option<O> {
    let has = |outcome: &O| tencent(name, *outcome).is_some_and(|code| code.number == number);
    asked_by_name(name).outcomes().iter().copied().find(has)
}

/// What a provider's reply means in the table it is said to answer with, and whether that table charges
/// it; the first outcome that has the number. Nothing where no outcome has it, and where the text beside
/// the number is that of another table's row: then the provider numbers otherwise than was stated.
pub fn outcome_of_reply(
    number: &str,
    text: &str,
    code_of: impl Fn(O) -> Option<ResultCode>,
) -> Option<(O, bool)> {
    let number: i8 = number.trim().parse().ok()?;
    let has = |outcome: &O| code_of(*outcome).is_some_and(|code| code.number == number);
    // In the order of the discriminants: "declined" stands before what only shares its number.
    let outcome = O::ALL.into_iter().find(has)?;
    let code = code_of(outcome)?;
    let is_own = is_text_of(text, code);
    (is_own || !is_text_of_check(text)).then_some((outcome, code.charged))
}

fn is_text_of(text: &str, code: ResultCode) -> bool {
    [wire::Language::Chinese, wire::Language::English].into_iter().any(|language| code.text(language) == text)
}

/// Whether this is the text of some row of the tables that are mistaken for one another.
fn is_text_of_check(text: &str) -> bool {
    let tencent = t::BankCard4ECode::ALL.iter().map(|code| code.row());
    let acedata = a::CheckCode::ALL.iter().map(|code| code.row());
    tencent.chain(acedata).any(|code| is_text_of(text, code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Element;
    use crate::outcome::{DECISIONS, FAMILY_DECISIONS};
    use std::fmt::Write;
    use wire::Language;

    const GUIDES: AceDataNumbering = AceDataNumbering::Documented;

    /// Every table of the Tencent wire.
    fn table(name: Name) -> Vec<ResultCode> {
        match name {
            Name::BankCard4EVerification => t::BankCard4ECode::ALL.map(|code| code.row()).into(),
            Name::BankCardVerification => t::BankCard3ECode::ALL.map(|code| code.row()).into(),
            Name::BankCard2EVerification => t::BankCard2ECode::ALL.map(|code| code.row()).into(),
            Name::CheckBankCardInformation => t::CardInformationCode::ALL.map(|code| code.row()).into(),
            Name::IdCardVerification => t::IdCardCode::ALL.map(|code| code.row()).into(),
            Name::PhoneVerification => t::PhoneCode::ALL.map(|code| code.row()).into(),
            Name::PhoneVerificationCMCC | Name::PhoneVerificationCUCC | Name::PhoneVerificationCTCC => {
                t::CarrierPhoneCode::ALL.map(|code| code.row()).into()
            }
            Name::CheckPhoneAndName => t::PhoneAndNameCode::ALL.map(|code| code.row()).into(),
        }
    }

    /// Every table of the AceData wire.
    fn guide(endpoint: Endpoint) -> Vec<ResultCode> {
        match endpoint {
            Endpoint::BankCard1E => a::CardInformationCode::ALL.map(|code| code.row()).into(),
            Endpoint::BankCard2E | Endpoint::BankCard3E | Endpoint::BankCard4E => {
                a::CheckCode::ALL.map(|code| code.row()).into()
            }
            Endpoint::IdCard2E => a::IdCardCode::ALL.map(|code| code.row()).into(),
            Endpoint::Phone2E | Endpoint::Phone3E => a::PhoneCode::ALL.map(|code| code.row()).into(),
        }
    }

    #[test]
    fn names_and_endpoints_lead_back() {
        for action in Action::ALL {
            assert_eq!(asked_by_name(name_of(action)), action);
            assert_eq!(asked_at(endpoint_of(action)), action);
        }
        assert!(Endpoint::ALL.into_iter().all(|endpoint| endpoint_of(asked_at(endpoint)) == endpoint));
    }

    /// The members of a call are the elements of its action, on both wires.
    #[test]
    fn calls_take_the_elements_of_their_action() {
        let of = |element: &Element| match element {
            Element::Card => wire::Element::BankCard,
            Element::Name => wire::Element::Name,
            Element::Id => wire::Element::IdCard,
            Element::Mobile => wire::Element::Phone,
        };
        let same = |action: Action, taken: &[(wire::Element, &str)]| {
            let wanted: Vec<_> = action.elements().iter().map(of).collect();
            taken.len() == wanted.len() && taken.iter().all(|(element, _)| wanted.contains(element))
        };
        for name in Name::ALL {
            assert!(same(asked_by_name(*name), name.members().elements), "{name:?}");
        }
        for endpoint in Endpoint::ALL {
            assert!(same(asked_at(endpoint), endpoint.takes().elements), "{endpoint:?}");
        }
    }

    /// An action answers what it says it answers, through its own table and no other.
    #[test]
    fn no_number_comes_through_another_actions_table() {
        for outcome in O::ALL {
            for name in Name::ALL {
                let code = tencent(*name, outcome);
                assert_eq!(code.is_some(), asked_by_name(*name).gives(outcome), "{name:?} {outcome:?}");
                assert!(code.is_none_or(|code| table(*name).contains(&code)), "{name:?} {outcome:?}");
            }
            for endpoint in Endpoint::ALL {
                let action = asked_at(endpoint);
                let code = acedata(GUIDES, endpoint, outcome);
                assert_eq!(code.is_some(), action.gives(outcome), "{endpoint:?} {outcome:?}");
                assert!(code.is_none_or(|code| guide(endpoint).contains(&code)), "{endpoint:?} {outcome:?}");
                let upstream = acedata(AceDataNumbering::Upstream4E, endpoint, outcome);
                assert_eq!(upstream, tencent(name_of(action), outcome));
            }
        }
    }

    #[test]
    fn every_code_of_every_table_has_an_outcome_and_the_charge_agrees() {
        for name in Name::ALL {
            let action = asked_by_name(*name);
            for code in table(*name) {
                let has = |outcome: &O| tencent(*name, *outcome) == Some(code);
                let outcomes: Vec<O> = O::ALL.into_iter().filter(has).collect();
                assert!(!outcomes.is_empty(), "{name:?} {code:?}");
                for outcome in outcomes {
                    assert_eq!(action.charges(outcome), code.charged, "{name:?} {outcome:?}");
                }
            }
        }
        // Documented as charged but reached by outcomes that are free: exactly those without a row.
        let mut unlisted = Vec::new();
        for endpoint in Endpoint::ALL {
            for code in guide(endpoint) {
                let has = |outcome: &O| acedata(GUIDES, endpoint, *outcome) == Some(code);
                let outcomes: Vec<O> = O::ALL.into_iter().filter(has).collect();
                // Two of the three checks of a holder lack an element the shared table has no row for.
                assert!(!outcomes.is_empty(), "{endpoint:?} {code:?}");
                let differ = |outcome: &O| asked_at(endpoint).charges(*outcome) != code.charged;
                unlisted.extend(outcomes.into_iter().filter(differ).map(|outcome| (endpoint, outcome)));
            }
        }
        assert_eq!(
            unlisted,
            [
                (Endpoint::BankCard1E, O::KindUnsupported),
                (Endpoint::BankCard3E, O::IdInvalid),
                (Endpoint::BankCard3E, O::DocUnsupported),
                (Endpoint::BankCard4E, O::IdInvalid),
                (Endpoint::BankCard4E, O::DocUnsupported),
                (Endpoint::BankCard4E, O::PhoneInvalid),
            ]
        );
    }

    #[test]
    fn only_a_pass_passes() {
        for outcome in O::ALL {
            let passes = outcome == O::Pass;
            for code in Name::ALL.iter().filter_map(|name| tencent(*name, outcome)) {
                assert_eq!(code.number == 0, passes, "{outcome:?}");
            }
            for code in Endpoint::ALL.into_iter().filter_map(|endpoint| acedata(GUIDES, endpoint, outcome)) {
                assert_eq!(code.number == 0, passes, "{outcome:?}");
            }
        }
    }

    fn number(code: Option<ResultCode>) -> String {
        code.map_or_else(String::new, |code| code.number.to_string())
    }

    fn price(charged: bool) -> &'static str {
        if charged { "charged" } else { "free" }
    }

    /// `docs/actions.md`: every action, every table, side by side.
    #[test]
    fn documentation_of_actions() {
        let mut text = String::from(include_str!("../tests/actions.head.md"));
        text.push_str("\n| Action | Elements | Tencent wire | AceData wire | Requests a second | Element index |\n|---|---|---|---|---|---|\n");
        for action in Action::ALL {
            let names = Name::ALL.iter().filter(|name| asked_by_name(**name) == action);
            let names: Vec<_> = names.map(|name| format!("`{}`", name.name())).collect();
            let elements: Vec<_> = action.elements().iter().map(|element| element.name()).collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | `{}` | {} | {} |",
                action.name(),
                elements.join(", "),
                names.join(", "),
                endpoint_of(action).path(),
                action.requests_per_second(),
                if action.needs_element_index() { "needed" } else { "" },
            );
        }
        text.push_str("\n## All numbers side by side\n\nTencent's number / AceData's; **bold** where an answer is charged.\n\n| Outcome |");
        let heads: String = Action::ALL.map(|action| format!(" `{}` |", action.name())).concat();
        let _ = writeln!(text, "{heads}\n|---|{}", "---|".repeat(Action::ALL.len()));
        for outcome in O::ALL {
            let _ = write!(text, "| {} |", outcome.name());
            for action in Action::ALL {
                let both = [tencent(name_of(action), outcome), acedata(GUIDES, endpoint_of(action), outcome)];
                let [tencent, acedata] = both.map(number);
                let bold = if action.charges(outcome) { "**" } else { "" };
                let cell = if tencent.is_empty() {
                    String::new()
                } else {
                    format!("{bold}{tencent} / {acedata}{bold}")
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        for name in Name::ALL {
            if matches!(name, Name::PhoneVerificationCUCC | Name::PhoneVerificationCTCC) {
                continue;
            }
            let _ = write!(text, "\n## `{}`", name.name());
            if *name == Name::PhoneVerificationCMCC {
                text.push_str(", `PhoneVerificationCUCC`, `PhoneVerificationCTCC`");
            }
            codes(&mut text, table(*name));
        }
        let titles = [
            "bankcard/check-1e",
            "bankcard/check-2e`, `-3e`, `-4e",
            "idcard/check-2e",
            "phone/check-2e`, `-3e",
        ];
        let guides = [Endpoint::BankCard1E, Endpoint::BankCard2E, Endpoint::IdCard2E, Endpoint::Phone2E];
        for (title, endpoint) in titles.into_iter().zip(guides) {
            let _ = write!(text, "\n## `/identity/{title}`");
            codes(&mut text, guide(endpoint));
        }
        crate::golden::check("../../docs/actions.md", &text);
    }

    fn codes(text: &mut String, codes: Vec<ResultCode>) {
        text.push_str("\n\n| Code | Price | zh | en |\n|---|---|---|---|\n");
        for code in codes {
            let (zh, en) = (code.text(Language::Chinese), code.text(Language::English));
            let _ = writeln!(text, "| {} | {} | {zh} | {en} |", code.number, price(code.charged));
        }
    }

    /// `docs/decision-table.md`, from the code's own tables.
    #[test]
    fn documentation_of_decisions() {
        let mut text = String::from(include_str!("../tests/decision-table.head.md"));
        text.push_str("\n| # | Stage | What has to hold | Outcome | Tencent | AceData | Price | Why here |\n|---|---|---|---|---|---|---|---|\n");
        for decision in &DECISIONS {
            let outcome = decision.outcome;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                decision.row.0,
                decision.stage,
                decision.fact,
                outcome.name(),
                number(tencent(Name::BankCard4EVerification, outcome)),
                number(acedata(GUIDES, Endpoint::BankCard4E, outcome)),
                price(outcome.billable()),
                decision.why,
            );
        }
        text.push_str("\n## The other actions\n\nRows 1 to 6 come first, as far as the action takes the element.\n\n| # | Stage | What has to hold | Outcome | Actions | Why here |\n|---|---|---|---|---|---|\n");
        for decision in &FAMILY_DECISIONS {
            let asks = |action: &Action| !action.is_about_holder() && action.gives(decision.outcome);
            let about_card = (26..=28).contains(&decision.row.0);
            let about_person = matches!(decision.row.0, 29..=34);
            let actions: Vec<_> = Action::ALL
                .into_iter()
                .filter(asks)
                .filter(|action| !(about_card && action.needs_element_index()))
                .filter(|action| !about_person || action.needs_element_index())
                .filter(|action| decision.row.0 != 34 || *action == Action::NameAndId)
                .map(|action| format!("`{}`", action.name()))
                .collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                decision.row.0,
                decision.stage,
                decision.fact,
                decision.outcome.name(),
                actions.join(", "),
                decision.why,
            );
        }
        text.push_str("\n## Outcomes\n\nWhich number each is on each wire: [actions](actions.md).\n\n| Outcome | Class | Price | What it means |\n|---|---|---|---|\n");
        for outcome in O::ALL {
            let _ = writeln!(
                text,
                "| {} | {:?} | {} | {} |",
                outcome.name(),
                outcome.class(),
                price(outcome.billable()),
                outcome.sentence(),
            );
        }
        crate::golden::check("../../docs/decision-table.md", &text);
    }
}
