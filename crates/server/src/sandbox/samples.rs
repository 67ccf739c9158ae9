//! Elements whose answer is known: one card per code, and the samples of both documentations.

use engine::caller::Wire;
use engine::claim::Claim;
use engine::outcome::Outcome;
use engine::projection::{outcome_of_tencent_number, tencent};

/// Prefix of the magic cards: in no list of issuers.
const MAGIC: &str = "6200000000";

/// The outcome of a magic card: `620000 0000 CC 000` and a check digit, CC the four-element code
/// without its sign. Blanks and hyphens do not matter.
pub fn magic_card(card: &str) -> Option<Outcome> {
    let digits: String = card.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let code = digits.strip_prefix(MAGIC)?.get(..2)?.parse().ok().filter(|code| (0..=21).contains(code))?;
    (number(code) == digits).then(|| outcome_of_tencent_number(-code))?
}

/// All magic cards: code, number, outcome.
pub fn magic_cards() -> impl Iterator<Item = (i8, String, Outcome)> {
    (0..=21).filter_map(|code| {
        let outcome = outcome_of_tencent_number(-code)?;
        Some((tencent(outcome).number(), number(code), outcome))
    })
}

fn number(code: i8) -> String {
    let body = format!("{MAGIC}{code:02}000");
    let check = luhn_check_digit(&body);
    format!("{body}{check}")
}

/// ISO/IEC 7812-1, annex B.
fn luhn_check_digit(body: &str) -> u32 {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = body.chars().rev().filter_map(|c| c.to_digit(10)).enumerate();
    let sum: u32 = digits.map(|(at, digit)| if at % 2 == 0 { doubled(digit) } else { digit }).sum();
    (10 - sum % 10) % 10
}

/// The answer of a documented sample.
///
/// Looked at before any validation: Tencent's sample person has an identity number with a wrong check
/// digit and a mobile of an unallocated range, and its documentation still says "passed".
pub fn documented(wire: Wire, claim: &Claim) -> Option<Outcome> {
    let is = |text: &str, value: &str| text.trim() == value;
    if wire == Wire::AceData && [&claim.card, &claim.id, &claim.mobile].iter().all(|text| is(text, "***")) {
        // The guide's snippets are printed with the elements blanked out.
        return Some(Outcome::Pass);
    }
    let person = (is(&claim.name, "韦小宝") || is(&claim.name, "Wei Xiaobao"))
        && is(&claim.mobile, "16137688175")
        && is(&claim.id, "11204416541220243X")
        && claim.document_kind == 0;
    match claim.card.trim() {
        "6225768888888888" if person => Some(Outcome::Pass),
        "6226090210146748" if person => Some(Outcome::HolderMismatch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_card_for_every_code() {
        let cards: Vec<_> = magic_cards().collect();
        assert_eq!(cards.len(), 22);
        for (code, card, outcome) in cards {
            assert_eq!(magic_card(&card), Some(outcome));
            assert_eq!(card[10..12].parse::<i8>().unwrap(), -code);
        }
        assert_eq!(magic_card("6200000000130000"), Some(Outcome::CardLost));
        assert_eq!(magic_card("6200 0000 0000 0005"), Some(Outcome::Pass));
        assert_eq!(magic_card("6200000000220009"), None);
        assert_eq!(magic_card("6200000000130001"), None, "wrong check digit");
    }

    #[test]
    fn samples_answer_as_documented() {
        let claim = |name, card| Claim::new(name, card, " 11204416541220243X", "16137688175", 0);
        for wire in [Wire::Tencent, Wire::AceData] {
            for name in ["韦小宝", "Wei Xiaobao"] {
                assert_eq!(documented(wire, &claim(name, "6225768888888888")), Some(Outcome::Pass));
                assert_eq!(
                    documented(wire, &claim(name, " 6226090210146748")),
                    Some(Outcome::HolderMismatch)
                );
            }
            assert_eq!(documented(wire, &claim("韦大宝", "6225768888888888")), None);
        }
        let blanked = Claim::new("胡印福", "***", "***", "***", 0);
        assert_eq!(documented(Wire::AceData, &blanked), Some(Outcome::Pass));
        assert_eq!(documented(Wire::Tencent, &blanked), None);
    }
}
