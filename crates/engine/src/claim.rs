//! The elements as a caller sent them, before anybody asked whether they are well-formed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a caller claims to belong together; raw text that never prints. Elements that the action does not
/// take are empty and never looked at.
pub struct Claim {
    /// Holder name.
    pub name: Zeroizing<String>,
    /// Card number.
    pub card: Zeroizing<String>,
    /// Identity number.
    pub id: Zeroizing<String>,
    /// Mobile number reserved at the bank.
    pub mobile: Zeroizing<String>,
    /// Document kind as both wires number it; 0 is the resident identity card.
    pub document_kind: i64,
    /// How long the identity card is valid: `YYYYMMDD-YYYYMMDD`, where that is asked about.
    pub validity: Option<Zeroizing<String>>,
}

/// The elements where they stand, for whoever needs no copy of them; of the same meaning as in [`Claim`].
#[derive(Clone, Copy)]
pub struct ClaimText<'a> {
    /// Holder name.
    pub name: &'a str,
    /// Card number.
    pub card: &'a str,
    /// Identity number.
    pub id: &'a str,
    /// Mobile number.
    pub mobile: &'a str,
    /// Document kind.
    pub document_kind: i64,
    /// Validity of the identity card.
    pub validity: Option<&'a str>,
}

impl Claim {
    /// The elements where they stand.
    pub fn text(&self) -> ClaimText<'_> {
        ClaimText {
            name: &self.name,
            card: &self.card,
            id: &self.id,
            mobile: &self.mobile,
            document_kind: self.document_kind,
            validity: self.validity.as_ref().map(|validity| validity.as_str()),
        }
    }

    /// Takes the elements out of a request.
    pub fn new(name: &str, card: &str, id: &str, mobile: &str, document_kind: i64) -> Claim {
        let text = |raw: &str| Zeroizing::new(raw.to_owned());
        Claim {
            name: text(name),
            card: text(card),
            id: text(id),
            mobile: text(mobile),
            document_kind,
            validity: None,
        }
    }

    /// Asks about the validity of the identity card too.
    pub fn with_validity(self, validity: Option<(&str, &str)>) -> Claim {
        let validity = validity.map(|(begin, end)| Zeroizing::new(format!("{begin}-{end}")));
        Claim { validity, ..self }
    }

    /// The elements as they may be shown to somebody who looks after the system.
    pub fn masked(&self) -> Masks {
        // Somebody may have put a name where a number belongs: of numbers only digits are shown.
        let digit = |letter: char| letter.is_ascii_digit() || matches!(letter, 'X' | 'x');
        Masks {
            name: mask(&self.name, 1, 0, |_| true),
            card: mask(&self.card, 6, 4, digit),
            id: mask(&self.id, 1, 1, digit),
            mobile: mask(&self.mobile, 3, 4, digit),
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(…)")
    }
}

/// Masked elements: first six and last four digits of a card (PCI DSS 3.4.1), less of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masks {
    /// `韦**`
    pub name: String,
    /// `622576******8888`
    pub card: String,
    /// `1****************X`
    pub id: String,
    /// `161****8175`
    pub mobile: String,
}

/// Keeps the first and last characters if they may be shown; keeps nothing of a text so short that most
/// would show.
fn mask(text: &str, first: usize, last: usize, may_show: impl Fn(char) -> bool) -> String {
    // Numbers: by far the most, and without decoding and encoding a tenth of the work.
    let is_ascii = text.is_ascii();
    let count = if is_ascii { text.len() } else { text.chars().count() }.min(64);
    let shows = count >= first + last + 3 || (last == 0 && count > first);
    let (first, last) = if shows { (first, last) } else { (0, 0) };
    if is_ascii {
        let mut masked = vec![b'*'; count];
        for at in (0..first).chain(count - last..count) {
            if may_show(text.as_bytes()[at].into()) {
                masked[at] = text.as_bytes()[at];
            }
        }
        return String::from_utf8(masked).unwrap_or_default();
    }
    let is_end = |at: usize| at < first || at >= count - last;
    let letters = text.chars().take(count).enumerate();
    letters.map(|(at, letter)| if is_end(at) && may_show(letter) { letter } else { '*' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_show_what_is_allowed_and_a_claim_shows_nothing() {
        let claim = Claim::new("韦小宝", "6225768888888888", "11204416541220243X", "16137688175", 0);
        let masks = claim.masked();
        assert_eq!(masks.name, "韦**");
        assert_eq!(masks.card, "622576******8888");
        assert_eq!(masks.id, "1****************X");
        assert_eq!(masks.mobile, "161****8175");
        assert_eq!(format!("{claim:?}"), "Claim(…)");
    }

    #[test]
    fn a_name_in_place_of_a_number_is_not_shown() {
        let masks =
            Claim::new("", "韦小宝 6225768888888888", "韦小宝韦小宝", "韦小宝韦小宝韦小宝韦小宝", 0).masked();
        assert_eq!(masks.card, "****62**********8888");
        assert!(masks.id.chars().chain(masks.mobile.chars()).all(|c| c == '*'), "{masks:?}");
    }

    #[test]
    fn short_text_shows_nothing() {
        let masks = Claim::new("韦", "62257", "1", "***", 0).masked();
        assert_eq!(
            masks,
            Masks { name: "*".into(), card: "*****".into(), id: "*".into(), mobile: "***".into() }
        );
    }
}
