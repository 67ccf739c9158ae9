//! Elements whose answer is known: one card, identity number or mobile per code of each action, and the
//! samples of both documentations.

use engine::action::Element;
use engine::caller::{Action, Wire};
use engine::claim::Claim;
use engine::outcome::Outcome;
use engine::projection::outcome_of_number;
use wire::tencent::action::Action as Name;

use crate::synth::check_character;

/// Prefix of the magic cards: in no list of issuers.
const CARD: &str = "6200000000";
/// Place and day of birth of the magic people: there is no province 99.
const ID: &str = "99000019000101";
/// Beginning of the magic mobiles: of a range nobody has.
const MOBILE: &str = "161009900";

/// The outcomes that four elements have no code for, numbered on.
const MORE: [(u8, Outcome); 5] = [
    (31, Outcome::NoRecord),
    (32, Outcome::SourceError),
    (33, Outcome::SourceUpgrading),
    (34, Outcome::KindUnsupported),
    (35, Outcome::NumberRange),
];

/// What a magic number means, whatever the action: `CC` in it is a code of four elements without its
/// sign, or one of [`MORE`].
fn meaning(number: u8) -> Option<Outcome> {
    let more = MORE.into_iter().find(|(more, _)| *more == number);
    let code = |number: u8| outcome_of_number(Name::BankCard4EVerification, -i8::try_from(number).ok()?);
    more.map_or_else(|| code(number), |(_, outcome)| Some(outcome))
}

/// The magic value of a number: `620000 0000 CC 000` and a check digit, `990000 19000101 0CC` and a check
/// character, or `161 0099 00CC`.
fn value(found_by: Element, number: u8) -> Option<String> {
    match found_by {
        Element::Card => {
            let body = format!("{CARD}{number:02}000");
            Some(format!("{body}{}", luhn_check_digit(&body)))
        }
        Element::Id => {
            let body = format!("{ID}0{number:02}");
            Some(format!("{body}{}", check_character(&body)))
        }
        Element::Mobile => Some(format!("{MOBILE}{number:02}")),
        Element::Name => None,
    }
}

/// The outcome of a magic card, identity number or mobile, whichever the action finds records by. Blanks
/// and hyphens do not matter.
pub fn magic(action: Action, claim: &Claim) -> Option<Outcome> {
    let (text, place) = match action.found_by() {
        Element::Card => (&claim.card, CARD.len()),
        Element::Id => (&claim.id, ID.len() + 1),
        Element::Mobile => (&claim.mobile, MOBILE.len()),
        Element::Name => return None,
    };
    let text: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let number: u8 = text.get(place..place + 2)?.parse().ok()?;
    let is_magic = value(action.found_by(), number)?.eq_ignore_ascii_case(&text);
    is_magic.then(|| meaning(number))?.filter(|outcome| action.gives(*outcome))
}

/// What a magic value is called in journals.
pub fn magic_name(action: Action) -> &'static str {
    match action.found_by() {
        Element::Card => "magic-card",
        Element::Id => "magic-id",
        Element::Mobile => "magic-phone",
        Element::Name => "magic-name",
    }
}

/// All magic values of an action, with what they answer.
pub fn all(action: Action) -> impl Iterator<Item = (String, Outcome)> {
    let numbers = (0..=21).chain(MORE.map(|(number, _)| number));
    numbers.filter_map(move |number| {
        let outcome = meaning(number).filter(|outcome| action.gives(*outcome))?;
        Some((value(action.found_by(), number)?, outcome))
    })
}

/// ISO/IEC 7812-1, annex B.
fn luhn_check_digit(body: &str) -> u32 {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = body.chars().rev().filter_map(|c| c.to_digit(10)).enumerate();
    let sum: u32 = digits.map(|(at, digit)| if at % 2 == 0 { doubled(digit) } else { digit }).sum();
    (10 - sum % 10) % 10
}

/// Whether an element is blanked out, as AceData's guides print them.
pub fn is_blanked(text: &str) -> bool {
    matches!(text.trim(), "***" | "****")
}

/// The answer of a documented sample.
///
/// Looked at before any validation: Tencent's sample person has an identity number with a wrong check
/// digit and a mobile of an unallocated range, and its documentation still says "passed". No person could
/// have all the samples: with four elements one card is the person's, with three the other.
pub fn documented(wire: Wire, action: Action, claim: &Claim) -> Option<Outcome> {
    let text = |element: Element| match element {
        Element::Card => claim.card.trim(),
        Element::Name => claim.name.trim(),
        Element::Id => claim.id.trim(),
        Element::Mobile => claim.mobile.trim(),
    };
    let mut numbers = action.elements().iter().filter(|element| **element != Element::Name);
    if wire == Wire::AceData && numbers.all(|element| is_blanked(text(*element))) {
        return Some(Outcome::Pass);
    }
    if action == Action::NameAndId
        && (text(Element::Name), text(Element::Id)) == ("刘洋", "440305199505132561")
    {
        return Some(Outcome::HolderMismatch);
    }
    let is_sample_person = action.elements().iter().all(|element| match element {
        Element::Card => true,
        Element::Name => matches!(text(Element::Name), "韦小宝" | "Wei Xiaobao"),
        Element::Id => text(Element::Id) == "11204416541220243X",
        Element::Mobile => text(Element::Mobile) == "16137688175",
    });
    if !is_sample_person || claim.document_kind != 0 || claim.validity.is_some() {
        return None;
    }
    match (action, text(Element::Card)) {
        (Action::FourElements | Action::TwoElements | Action::CardInformation, "6225768888888888") => {
            Some(Outcome::Pass)
        }
        (Action::FourElements | Action::TwoElements, "6226090210146748") => Some(Outcome::HolderMismatch),
        (Action::ThreeElements, "6226090210146748") => Some(Outcome::Pass),
        (Action::ThreeElements, "6225768888888888") => Some(Outcome::Declined),
        (Action::NameAndId | Action::MobileNameAndId | Action::MobileAndName, _) => Some(Outcome::Pass),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::projection::{asked_by_name, tencent};
    use std::collections::BTreeSet;

    const FOUR: Action = Action::FourElements;

    fn with(action: Action, value: &str) -> Claim {
        let value = |element| if action.found_by() == element { value } else { "" };
        Claim::new("", value(Element::Card), value(Element::Id), value(Element::Mobile), 0)
    }

    #[test]
    fn a_magic_value_for_every_code_of_every_action() {
        assert_eq!(all(FOUR).count(), 22);
        for name in Name::ALL {
            let action = asked_by_name(*name);
            let number = |outcome| tencent(*name, outcome).unwrap().number;
            let reached: BTreeSet<i8> = all(action).map(|(_, outcome)| number(outcome)).collect();
            let there_are: BTreeSet<i8> = action.outcomes().iter().map(|outcome| number(*outcome)).collect();
            assert_eq!(reached, there_are, "{name:?}");
            for (value, outcome) in all(action) {
                assert_eq!(magic(action, &with(action, &value)), Some(outcome), "{name:?} {value}");
            }
        }
    }

    #[test]
    fn magic_values_are_well_formed() {
        let is = |action, value: &str| magic(action, &with(action, value));
        assert_eq!(is(FOUR, "6200000000130000"), Some(Outcome::CardLost));
        assert_eq!(is(FOUR, "6200 0000 0000 0005"), Some(Outcome::Pass));
        assert_eq!(is(FOUR, "6200000000220009"), None);
        assert_eq!(is(FOUR, "6200000000130001"), None, "wrong check digit");
        assert_eq!(is(Action::CardInformation, "6200000000130000"), None, "it never answers that");
        assert_eq!(is(Action::MobileAndName, "161 0099 0031"), Some(Outcome::NoRecord));
        for (value, _) in all(Action::NameAndId) {
            let today = engine::subject::Date::new(2026, 11, 21).unwrap();
            assert!(engine::subject::ResidentId::parse(&value, true, today).is_some(), "{value}");
        }
    }

    #[test]
    fn samples_answer_as_documented() {
        let claim = |name, card| Claim::new(name, card, " 11204416541220243X", "16137688175", 0);
        for wire in [Wire::Tencent, Wire::AceData] {
            for name in ["韦小宝", "Wei Xiaobao"] {
                let sample = |action, card| documented(wire, action, &claim(name, card));
                assert_eq!(sample(FOUR, "6225768888888888"), Some(Outcome::Pass));
                assert_eq!(sample(FOUR, " 6226090210146748"), Some(Outcome::HolderMismatch));
                assert_eq!(sample(Action::ThreeElements, "6226090210146748"), Some(Outcome::Pass));
                assert_eq!(sample(Action::ThreeElements, "6225768888888888"), Some(Outcome::Declined));
                assert_eq!(sample(Action::TwoElements, "6225768888888888"), Some(Outcome::Pass));
                assert_eq!(sample(Action::TwoElements, "6226090210146748"), Some(Outcome::HolderMismatch));
            }
            assert_eq!(documented(wire, FOUR, &claim("韦大宝", "6225768888888888")), None);
        }
        let blanked = Claim::new("胡印福", "***", "***", "***", 0);
        assert_eq!(documented(Wire::AceData, FOUR, &blanked), Some(Outcome::Pass));
        assert_eq!(documented(Wire::Tencent, FOUR, &blanked), None);
    }
}
