//! Mobile numbers of mainland China.

use super::text::{Text, are_digits, fold_wide, is_separator};
use std::fmt;

/// A mobile number: 11 digits, `1`, then `3` to `9`.
///
/// Which ranges are allocated is not looked at: they change every year, and since numbers can be
/// carried from one operator to another (2019) the range tells nothing about the operator.
#[derive(Clone, PartialEq, Eq)]
pub struct Mobile(Text<11>);

impl Mobile {
    /// The number in a text that holds nothing else but blanks at the ends.
    ///
    /// This is how strict the two wires are; existing clients rely on a refusal.
    pub fn parse(text: &str) -> Option<Mobile> {
        let digits = Text::<11>::of(text.trim())?;
        is_canonical(digits.as_bytes()).then_some(Mobile(digits))
    }

    /// The number as people and exports write it, for imports: full-width digits, blanks, hyphens
    /// and brackets, and the country code as `+86`, `0086` or `86`.
    pub fn parse_lenient(text: &str) -> Option<Mobile> {
        let digits = text.chars().map(fold_wide).filter(|&c| !is_separator(c) && c != '(' && c != ')');
        let digits = Text::<15>::collect(digits)?;
        let digits = digits.as_str();
        ["+86", "0086", "86"]
            .iter()
            .find_map(|code| digits.strip_prefix(code))
            .map_or_else(|| Mobile::parse(digits), Mobile::parse)
    }

    /// The 11 digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// First three and last four digits: `161****8175`.
    pub fn masked(&self) -> String {
        let digits = self.as_str();
        format!("{}****{}", &digits[..3], &digits[7..])
    }
}

/// Whether a text is what [`Mobile::parse`] gives, as it stands.
#[inline]
pub(super) fn is_canonical(text: &[u8]) -> bool {
    text.len() == 11 && text[0] == b'1' && (b'3'..=b'9').contains(&text[1]) && are_digits(text)
}

impl fmt::Debug for Mobile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mobile({})", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_trim_and_nothing_else() {
        assert_eq!(Mobile::parse(" 16137688175\t").unwrap().as_str(), "16137688175");
        assert_eq!(Mobile::parse("16137688175").unwrap().masked(), "161****8175");
        for text in [
            "",
            "1613768817",
            "161376881755",
            "12137688175",
            "26137688175",
            "+8616137688175",
            "161 3768 8175",
            "１６１３７６８８１７５",
            "02161376881",
            "1613768817x",
            "1440123456789", // a number for machines has 13 digits
        ] {
            assert_eq!(Mobile::parse(text), None, "{text}");
        }
    }

    #[test]
    fn imports_forgive_writing_habits() {
        for text in [
            "16137688175",
            "+86 161-3768-8175",
            "0086 16137688175",
            "8616137688175",
            "（+86）１６１ ３７６８ ８１７５",
        ] {
            assert_eq!(Mobile::parse_lenient(text).unwrap().as_str(), "16137688175", "{text}");
        }
        // Hong Kong: recorded as it is, it cannot match.
        for text in ["+852 6123 4567", "86", "+86+8616137688175", "010-62345678"] {
            assert_eq!(Mobile::parse_lenient(text), None, "{text}");
        }
    }
}
