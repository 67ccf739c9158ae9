//! Numbers of the resident identity card (GB 11643-1999).

use super::date::Date;
use super::text::{Text, are_digits, fold_wide};
use std::fmt;

/// A citizen identity number of 18 characters: area of first issue (6), birth date (8), sequence
/// (3; odd for men, even for women) and a check character, a digit or `X`.
#[derive(Clone, PartialEq, Eq)]
pub struct ResidentId(Text<18>);

impl ResidentId {
    /// The number in a text; blanks at the ends, full-width forms and a small `x` are forgiven.
    ///
    /// Of the area only the province is checked: codes of counties are abolished all the time but
    /// stay in issued numbers, so that a current list would refuse real people. `test_land` admits
    /// the province 99. The birth date lies between 1900-01-01 and `today`.
    pub fn parse(text: &str, test_land: bool, today: Date) -> Option<ResidentId> {
        // Nearly every number is as it should be already.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'X');
        let id = if is_plain { Text::<18>::of(text) } else { Text::collect(folded(text)) }?;
        is_canonical(id.as_bytes(), test_land, today).then_some(ResidentId(id))
    }

    /// The 18 characters that belong to a first-generation number of 15 digits, for records that
    /// still hold one: `19` before the year, and a check character.
    ///
    /// Sequences 996 to 999 were kept for people over a hundred, born in 18xx: `None`.
    pub fn upgrade_15(text: &str, test_land: bool) -> Option<ResidentId> {
        let old = first_generation(text, test_land)?;
        if is_sequence_of_centenarians(&old) {
            return None;
        }
        let body = with_century(&old, *b"19");
        let digits = body.iter().copied().chain([check_character(&body)]);
        Text::collect(digits.map(char::from)).map(ResidentId)
    }

    /// The 18 characters, the last one a digit or a capital `X`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The same as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// First and last character: `1****************X`.
    pub fn masked(&self) -> String {
        let id = self.as_str();
        format!("{}{}{}", &id[..1], "*".repeat(16), &id[17..])
    }
}

/// Whether a text is what [`ResidentId::parse`] gives, as it stands.
pub(super) fn is_canonical(text: &[u8], test_land: bool, today: Date) -> bool {
    let Some((&check, body)) = text.split_last() else { return false };
    let Ok(body) = <&[u8; 17]>::try_from(body) else { return false };
    are_digits(body)
        && check == check_character(body)
        && is_province(&body[..2], test_land)
        && date_in(&body[6..14]).is_some_and(|birth| birth.year() >= 1900 && birth <= today)
}

impl fmt::Debug for ResidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResidentId({})", self.masked())
    }
}

/// Whether it is a well-formed number of the first generation, 15 digits.
pub(super) fn is_first_generation(text: &str, test_land: bool) -> bool {
    first_generation(text, test_land).is_some()
}

/// Whether 18 characters are a permanent resident's card for foreigners in the form used since
/// December 2023: `9`, province of application, nationality (ISO 3166 numeric), birth date,
/// sequence, and the same check character as a citizen's number.
pub(super) fn is_foreign_permanent(text: &str, today: Date) -> bool {
    let Some((&check, body)) = text.as_bytes().split_last() else {
        return false;
    };
    let Ok(body) = <&[u8; 17]>::try_from(body) else {
        return false;
    };
    body.iter().all(u8::is_ascii_digit)
        && body[0] == b'9'
        && is_province(&body[1..3], false)
        && date_in(&body[6..14]).is_some_and(|birth| birth.year() >= 1900 && birth <= today)
        && check == check_character(body)
}

fn first_generation(text: &str, test_land: bool) -> Option<[u8; 15]> {
    let id = Text::<15>::collect(folded(text))?;
    let id: [u8; 15] = id.as_bytes().try_into().ok()?;
    let digits = id.iter().all(u8::is_ascii_digit);
    if !digits || !is_province(&id[..2], test_land) {
        return None;
    }
    let century = if is_sequence_of_centenarians(&id) { *b"18" } else { *b"19" };
    date_in(&with_century(&id, century)[6..14])?;
    Some(id)
}

fn is_sequence_of_centenarians(old: &[u8; 15]) -> bool {
    matches!(&old[12..], b"996" | b"997" | b"998" | b"999")
}

/// The first 17 of 18 digits: 15 with the century in front of the year.
fn with_century(old: &[u8; 15], century: [u8; 2]) -> [u8; 17] {
    let mut body = [0; 17];
    body[..6].copy_from_slice(&old[..6]);
    body[6..8].copy_from_slice(&century);
    body[8..].copy_from_slice(&old[6..]);
    body
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.trim().chars().map(fold_wide).map(|c| if c == 'x' { 'X' } else { c })
}

/// ISO 7064 MOD 11-2, spelled out with the weights that the standard prints.
fn check_character(body: &[u8; 17]) -> u8 {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = body.iter().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    b"10X98765432"[(sum % 11) as usize]
}

/// The first two digits of GB/T 2260: 11 Beijing to 65 Xinjiang, 71 Taiwan, and 81, 82 and 83 for
/// residence permits. 99 is assigned to nobody and therefore safe for invented people.
fn is_province(digits: &[u8], test_land: bool) -> bool {
    match digits {
        [b'1', b'1'..=b'5'] | [b'2', b'1'..=b'3'] | [b'3', b'1'..=b'7'] => true,
        [b'4', b'1'..=b'6'] | [b'5', b'0'..=b'4'] | [b'6', b'1'..=b'5'] => true,
        [b'7', b'1'] | [b'8', b'1'..=b'3'] => true,
        [b'9', b'9'] => test_land,
        _ => false,
    }
}

/// `YYYYMMDD`.
fn date_in(digits: &[u8]) -> Option<Date> {
    let digits: &[u8; 8] = digits.try_into().ok().filter(|digits: &&[u8; 8]| are_digits(&digits[..]))?;
    let number = |two: usize| u16::from(10 * (digits[two] - b'0') + (digits[two + 1] - b'0'));
    Date::new(100 * number(0) + number(2), number(4) as u8, number(6) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn today() -> Date {
        Date::new(2025, 6, 1).unwrap()
    }

    fn parse(text: &str) -> Option<ResidentId> {
        ResidentId::parse(text, false, today())
    }

    /// The same check character by the other description: the 17 digits read as a number n in base
    /// 13 give (1 - 2n) mod 11, with 10 written X.
    fn check_character_base_13(body: &[u8; 17]) -> u8 {
        let n = body.iter().fold(0u128, |n, digit| n * 13 + u128::from(digit - b'0'));
        b"0123456789X"[((1 + 11 * 2 * n - 2 * n) % 11) as usize]
    }

    #[test]
    fn published_samples() {
        assert!(parse("340103202308176095").is_some());
        assert!(parse("341126197709218366").is_some());
        // Tencent's documentation: the check digit is wrong, and the year 1654.
        assert_eq!(parse("11204416541220243X"), None);
        assert_eq!(parse("990101199001010019"), None);
        assert!(ResidentId::parse("990101199001010019", true, today()).is_some());
    }

    #[test]
    fn small_x_blanks_and_full_width_are_forgiven() {
        for text in ["11010519491231002X", " 11010519491231002x\n", "　１１０１０５１９４９１２３１００２ｘ"]
        {
            assert_eq!(parse(text).unwrap().as_str(), "11010519491231002X");
        }
        for text in ["", "11010519491231002Y", "110105 19491231 002X", "1101051949123100２X0"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// With the right check character, so that only the rest can be wrong.
    fn with_check(body: &str) -> String {
        let check = check_character(body.as_bytes().try_into().unwrap());
        format!("{body}{}", check as char)
    }

    #[test]
    fn the_birth_date_exists_and_lies_between_1900_and_today() {
        for body in ["11010119000101001", "11010120240229001", "11010120250601001"] {
            assert!(parse(&with_check(body)).is_some(), "{body}");
        }
        for body in [
            "11010118991231001",
            "11010120230229001",
            "11010120250602001",
            "11010119901301001",
            "11010119900001001",
        ] {
            assert_eq!(parse(&with_check(body)), None, "{body}");
        }
    }

    #[test]
    fn provinces_and_permits() {
        // 81 to 83: residence permits for people from Hong Kong, Macau and Taiwan, in this form since 2018.
        for province in 0..100 {
            let id = parse(&with_check(&format!("{province:02}010119900307001")));
            let known = matches!(province,
                11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83);
            assert_eq!(id.is_some(), known, "{province}");
        }
    }

    #[test]
    fn records_of_the_first_generation_are_upgraded() {
        let id = ResidentId::upgrade_15("110105491231002", false).unwrap();
        assert_eq!(id.as_str(), "11010519491231002X");
        assert_eq!(id.masked(), "1****************X");
        for text in [
            "110105491231996",
            "110105491331002",
            "000105491231002",
            "11010549123100",
            "11010519491231002X",
            "",
        ] {
            assert_eq!(ResidentId::upgrade_15(text, false), None, "{text}");
        }
        assert!(is_first_generation("110105491231996", false));
    }

    proptest! {
        #[test]
        fn both_descriptions_of_the_check_character_agree(body in "[0-9]{17}") {
            let body = body.as_bytes().try_into().unwrap();
            prop_assert_eq!(check_character(body), check_character_base_13(body));
        }

        #[test]
        fn upgraded_numbers_are_well_formed(yy in 0u8..100, sequence in 0u16..996) {
            let id = ResidentId::upgrade_15(&format!("110105{yy:02}0517{sequence:03}"), false).unwrap();
            prop_assert_eq!(parse(id.as_str()), Some(id));
        }
    }
}
