//! Card numbers.

use super::text::{Text, are_digits, fold_wide, is_separator};
use std::fmt;

/// A card number: 13 to 19 digits, not all the same.
///
/// ISO/IEC 7812 allows up to 19 digits. Nothing else is part of the form. Not the check digit:
/// genuine Chinese cards fail Luhn, among them old numbers of the banks' own and a published test
/// card of UnionPay. Not the first digit either: cards beginning with 1, 8 and 9 are in use.
#[derive(Clone, PartialEq, Eq)]
pub struct CardNumber(Text<19>);

impl CardNumber {
    /// The card number in a text as people write it: blanks and hyphens are left out, full-width
    /// digits are read as digits.
    pub fn parse(text: &str) -> Option<CardNumber> {
        // Nearly every number is only digits already.
        let digits = match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Text::<19>::of(text),
            false => Text::collect(text.chars().map(fold_wide).filter(|&c| !is_separator(c))),
        };
        let digits = digits?;
        is_well_formed(digits.as_bytes()).then_some(CardNumber(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether the last digit is right by Luhn (ISO/IEC 7812-1, modulus 10).
    ///
    /// Says something only about a number nobody has a record of.
    pub fn luhn_valid(&self) -> bool {
        luhn_holds(self.as_bytes())
    }

    /// Whether it begins with 620000, which no issuer uses: card4e's numbers for tests do.
    pub fn is_test_card(&self) -> bool {
        is_test_card(self.0.as_bytes())
    }

    /// First six and last four digits, as PCI DSS 3.4.1 allows to display: `622576******8888`.
    pub fn masked(&self) -> String {
        let digits = self.as_str();
        let hidden = digits.len() - 10;
        format!("{}{}{}", &digits[..6], "*".repeat(hidden), &digits[digits.len() - 4..])
    }
}

/// [`CardNumber::is_test_card`] of the digits.
pub(crate) fn is_test_card(digits: &[u8]) -> bool {
    digits.starts_with(b"620000")
}

/// Whether a text is what [`CardNumber::parse`] gives, as it stands.
#[inline]
pub(super) fn is_canonical(text: &[u8]) -> bool {
    text.len() <= 19 && is_well_formed(text)
}

fn is_well_formed(digits: &[u8]) -> bool {
    digits.len() >= 13 && are_digits(digits) && digits.iter().any(|digit| *digit != digits[0])
}

/// [`CardNumber::luhn_valid`] of the digits.
pub(crate) fn luhn_holds(digits: &[u8]) -> bool {
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(from_right, digit)| {
            let digit = u32::from(digit - b'0');
            let doubled = if from_right % 2 == 1 { digit * 2 } else { digit };
            doubled / 10 + doubled % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardNumber({})", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn card(text: &str) -> CardNumber {
        CardNumber::parse(text).unwrap()
    }

    #[test]
    fn written_as_people_write_it() {
        for text in [
            "6225768888888888",
            " 6225 7688 8888 8888\n",
            "6225-7688-8888-8888",
            "６２２５　７６８８８８８８８８８８",
        ] {
            assert_eq!(card(text).as_str(), "6225768888888888");
        }
    }

    #[test]
    fn thirteen_to_nineteen_digits_not_all_the_same() {
        assert!(CardNumber::parse("1234567890123").is_some());
        assert!(CardNumber::parse("1234567890123456789").is_some());
        for text in [
            "",
            "123456789012",
            "12345678901234567890",
            "2222222222222222",
            "622576888888888X",
            "622576********88",
            "٦٢٢٥٧٦٨٨٨٨٨٨٨٨٨٨",
        ] {
            assert_eq!(CardNumber::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_check_digit_is_told_not_demanded() {
        assert!(card("6225768888888888").luhn_valid());
        assert!(card("6226090210146748").luhn_valid());
        assert!(card("6216261000000000018").luhn_valid());
        // UnionPay's public test credit card.
        assert!(!card("6221558812340000").luhn_valid());
        assert!(card("6200000000000005").luhn_valid() && card("6200000000000005").is_test_card());
    }

    #[test]
    fn masks_keep_six_and_four() {
        assert_eq!(card("6225768888888888").masked(), "622576******8888");
        assert_eq!(card("1234567890123").masked(), "123456***0123");
    }

    proptest! {
        #[test]
        fn one_wrong_digit_breaks_luhn(digits in "[1-8][0-9]{11,16}9", at in 0usize..13, add in 1u8..10) {
            let mut wrong = card(&digits).as_str().as_bytes().to_vec();
            wrong[at] = (wrong[at] - b'0' + add) % 10 + b'0';
            let wrong = CardNumber::parse(str::from_utf8(&wrong).unwrap());
            if let Some(wrong) = wrong {
                prop_assert!(!(card(&digits).luhn_valid() && wrong.luhn_valid()));
            }
        }
    }
}
