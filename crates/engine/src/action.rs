//! What can be asked. Everything an action is, is data here: which elements it takes, what it can
//! answer, what that costs. Fronts, limits, ledger, sandbox and documentation read it from here.

use std::fmt::Write;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome as O;

/// A question somebody can ask. Each wire has a name of its own for it, the Tencent wire several.
///
/// The discriminants are written into audit records: never renumber, only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Do card number, holder name, identity number and mobile belong together?
    FourElements,
    /// Do card number, holder name and identity number?
    ThreeElements,
    /// Do card number and holder name?
    TwoElements,
    /// Which bank issued the card, and of which kind is it?
    CardInformation,
    /// Do name and identity number belong together?
    NameAndId,
    /// Do mobile, name and identity number?
    MobileNameAndId,
    /// Do mobile and name?
    MobileAndName,
}

/// An element of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Card number.
    Card,
    /// Holder name.
    Name,
    /// Identity number.
    Id,
    /// Mobile number.
    Mobile,
}

use Action as A;
use Element as E;

/// By action, a bit for each element it takes: it is asked several times a row.
const TAKES: [u8; Action::ALL.len()] = {
    let (mut takes, mut action) = ([0; Action::ALL.len()], 0);
    while action < takes.len() {
        let (elements, mut at) = (Action::ALL[action].elements(), 0);
        while at < elements.len() {
            takes[action] |= 1 << elements[at] as u8;
            at += 1;
        }
        action += 1;
    }
    takes
};

impl Action {
    /// Every action, in the order of the discriminants.
    pub const ALL: [Action; 7] = [
        A::FourElements,
        A::ThreeElements,
        A::TwoElements,
        A::CardInformation,
        A::NameAndId,
        A::MobileNameAndId,
        A::MobileAndName,
    ];

    /// The name used on the command line, in lists and in settings.
    pub const fn name(self) -> &'static str {
        match self {
            A::FourElements => "bankcard-4e",
            A::ThreeElements => "bankcard-3e",
            A::TwoElements => "bankcard-2e",
            A::CardInformation => "bankcard-1e",
            A::NameAndId => "idcard-2e",
            A::MobileNameAndId => "phone-3e",
            A::MobileAndName => "phone-2e",
        }
    }

    /// The elements it takes, all of them required. The first is the one a record is found by.
    pub const fn elements(self) -> &'static [Element] {
        match self {
            A::FourElements => &[E::Card, E::Name, E::Id, E::Mobile],
            A::ThreeElements => &[E::Card, E::Name, E::Id],
            A::TwoElements => &[E::Card, E::Name],
            A::CardInformation => &[E::Card],
            A::NameAndId => &[E::Id, E::Name],
            A::MobileNameAndId => &[E::Mobile, E::Name, E::Id],
            A::MobileAndName => &[E::Mobile, E::Name],
        }
    }

    /// Whether it takes this element.
    #[inline]
    pub const fn takes(self, element: Element) -> bool {
        TAKES[self as usize] >> element as u8 & 1 == 1
    }

    /// The element a record is found by.
    pub const fn found_by(self) -> Element {
        self.elements()[0]
    }

    /// Whether it asks whose card it is.
    pub const fn is_about_holder(self) -> bool {
        matches!(self, A::FourElements | A::ThreeElements | A::TwoElements)
    }

    /// Whether accounts must be found by identity number or mobile for it, which is an operator's choice.
    pub const fn needs_element_index(self) -> bool {
        !matches!(self.found_by(), E::Card)
    }

    /// Requests a second, where neither the operator nor the application says otherwise; the public
    /// service's default.
    pub const fn requests_per_second(self) -> u32 {
        if matches!(self, A::NameAndId) { 100 } else { 20 }
    }

    /// Everything it can answer.
    pub const fn outcomes(self) -> &'static [O] {
        match self {
            A::FourElements => &[
                O::Pass,
                O::HolderMismatch,
                O::Declined,
                O::NameInvalid,
                O::IdInvalid,
                O::DocUnsupported,
                O::PanMalformed,
                O::PhoneInvalid,
                O::AttemptsExceeded,
                O::IssuerUnknown,
                O::IssuerUnsupported,
                O::PhoneUncheckable,
                O::SourceBusy,
                O::PanInvalid,
                O::CardSeized,
                O::CardFraud,
                O::CardLost,
                O::CardExpired,
                O::CardRestricted,
                O::CardPinLocked,
                O::CardInactive,
                O::CnpDisabled,
                O::CardAbnormal,
            ],
            A::ThreeElements => &[
                O::Pass,
                O::HolderMismatch,
                O::Declined,
                O::NameInvalid,
                O::IdInvalid,
                O::DocUnsupported,
                O::PanMalformed,
                O::AttemptsExceeded,
                O::IssuerUnknown,
                O::IssuerUnsupported,
                O::SourceBusy,
                O::PanInvalid,
                O::CardSeized,
                O::CardFraud,
                O::CardLost,
                O::CardExpired,
                O::CardRestricted,
                O::CardPinLocked,
                O::CardInactive,
                O::CnpDisabled,
                O::CardAbnormal,
            ],
            A::TwoElements => &[
                O::Pass,
                O::HolderMismatch,
                O::Declined,
                O::NameInvalid,
                O::PanMalformed,
                O::AttemptsExceeded,
                O::IssuerUnknown,
                O::IssuerUnsupported,
                O::SourceBusy,
                O::PanInvalid,
                O::CardSeized,
                O::CardFraud,
                O::CardLost,
                O::CardExpired,
                O::CardRestricted,
                O::CardPinLocked,
                O::CardInactive,
                O::CnpDisabled,
                O::CardAbnormal,
            ],
            A::CardInformation => &[
                O::Pass,
                O::PanMalformed,
                O::AttemptsExceeded,
                O::IssuerUnknown,
                O::SourceBusy,
                O::PanInvalid,
                O::KindUnsupported,
            ],
            A::NameAndId => &[
                O::Pass,
                O::HolderMismatch,
                O::NameInvalid,
                O::IdInvalid,
                O::DocUnsupported,
                O::AttemptsExceeded,
                O::NoRecord,
                O::SourceBusy,
                O::SourceError,
                O::SourceUpgrading,
            ],
            A::MobileNameAndId => &[
                O::Pass,
                O::HolderMismatch,
                O::NameInvalid,
                O::IdInvalid,
                O::DocUnsupported,
                O::PhoneInvalid,
                O::AttemptsExceeded,
                O::NoRecord,
                O::SourceBusy,
                O::SourceError,
                O::NumberRange,
            ],
            A::MobileAndName => &[
                O::Pass,
                O::HolderMismatch,
                O::NameInvalid,
                O::PhoneInvalid,
                O::AttemptsExceeded,
                O::NoRecord,
                O::SourceBusy,
                O::SourceError,
                O::NumberRange,
            ],
        }
    }

    /// Whether it can answer this.
    pub fn gives(self, outcome: O) -> bool {
        self.outcomes().contains(&outcome)
    }

    /// Whether an answer with this outcome is charged. It follows the meaning, never a number. What the
    /// two documentations say of a card's issuer is the other way round from all else: there a malformed
    /// number is charged, and a card that does not exist is not.
    pub const fn charges(self, outcome: O) -> bool {
        match (self, outcome) {
            (A::CardInformation, O::PanMalformed) => true,
            (A::CardInformation, O::PanInvalid) => false,
            (_, outcome) => outcome.billable(),
        }
    }
}

impl Element {
    /// Every element.
    pub const ALL: [Element; 4] = [E::Card, E::Name, E::Id, E::Mobile];

    /// Its name in messages and lists.
    pub const fn name(self) -> &'static str {
        match self {
            E::Card => "bank_card",
            E::Name => "name",
            E::Id => "id_card",
            E::Mobile => "phone",
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        Action::ALL
            .into_iter()
            .find(|action| action.name() == text)
            .ok_or_else(|| format!("there is no action `{text}`; there is {}", names(&Action::ALL)))
    }
}

/// `bankcard-4e, bankcard-3e`
pub fn names(actions: &[Action]) -> String {
    let mut text = String::new();
    for action in actions {
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ", " }, action.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_each_outcome_is_listed_once() {
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
            assert_eq!(action.name().parse(), Ok(action));
            let outcomes = action.outcomes();
            assert!(outcomes.iter().all(|one| outcomes.iter().filter(|other| one == *other).count() == 1));
            assert!(
                action.gives(O::Pass) && action.gives(O::SourceBusy) && action.gives(O::AttemptsExceeded)
            );
        }
        assert_eq!(
            "bankcard-5e".parse::<Action>(),
            Err("there is no action `bankcard-5e`; there is bankcard-4e, bankcard-3e, bankcard-2e, \
                 bankcard-1e, idcard-2e, phone-3e, phone-2e"
                .into())
        );
    }

    /// A format is judged only where the element is taken.
    #[test]
    fn an_action_judges_the_elements_it_takes() {
        for action in Action::ALL {
            for (outcome, element) in [
                (O::NameInvalid, E::Name),
                (O::IdInvalid, E::Id),
                (O::DocUnsupported, E::Id),
                (O::PanMalformed, E::Card),
                (O::PhoneInvalid, E::Mobile),
            ] {
                assert_eq!(action.gives(outcome), action.takes(element), "{action:?} {outcome:?}");
            }
        }
    }
}
