//! The elements as types that cannot be ill-formed.
//!
//! A claim arrives as raw strings. [`Subject::parse`] is the only way from there to the rest
//! of the engine; behind it nobody checks formats again. It decides rows 1 to 5 of
//! [`DECISIONS`](crate::outcome::DECISIONS), in that order, and touches neither records nor
//! counters, so that malformed input is answered without telling anything about anybody.
//!
//! The element types print only masks, and wipe their memory when dropped.

pub mod card;
pub mod date;
pub mod mobile;
pub mod name;
mod other_document;
pub mod resident_id;
mod text;

pub use card::CardNumber;
pub(crate) use card::is_test_card;
pub use date::Date;
pub use mobile::Mobile;
pub use name::{HolderName, NameClass};
pub use resident_id::ResidentId;

use zeroize::Zeroizing;

use crate::action::{Action, Element};
use crate::claim::{Claim, ClaimText};
use crate::outcome::{Outcome, Row};
use crate::vault::Elements;

/// Who is claimed to have what: the well-formed elements an action takes, not yet compared with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The card number.
    pub card: Option<CardNumber>,
    /// The holder's name, canonical after [`name::VERSION`].
    pub name: Option<HolderName>,
    /// The holder's resident identity number, 18 characters.
    pub id: Option<ResidentId>,
    /// The mobile number reserved with the bank.
    pub mobile: Option<Mobile>,
    /// The validity of the identity card, where it is asked about.
    pub validity: Option<Validity>,
}

/// How long an identity card is valid: begin and end, or no end.
#[derive(Clone, PartialEq, Eq)]
pub struct Validity(Zeroizing<String>);

impl Validity {
    /// `20200101-20400101`, or `20200101-00000000` for one without end. Both days exist, in this order.
    pub fn parse(text: &str) -> Option<Validity> {
        let (begin, end) = text.trim().split_once('-')?;
        let (begin, end) = (begin.trim(), end.trim());
        let from = day(begin)?;
        let is_sound = end == "00000000" || day(end).is_some_and(|until| from < until);
        is_sound.then(|| Validity(Zeroizing::new(format!("{begin}-{end}"))))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `YYYYMMDD`
fn day(text: &str) -> Option<Date> {
    let is_form = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |from, to| text.get(from..to)?.parse::<u16>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    is_form.then(|| Date::new(year, month as u8, day as u8))?
}

impl std::fmt::Debug for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Validity(…)")
    }
}

/// What well-formed depends on besides the text itself.
#[derive(Clone, Copy, Debug)]
pub struct ParseOptions {
    /// Accept identity numbers of province 99, which no authority issues: invented people only.
    pub test_land: bool,
    /// Accept names in Tibetan, Arabic (Uyghur, Kazakh), Mongolian and Cyrillic letters too.
    ///
    /// Off by default: banks record the Han or Latin spelling, so that with it off somebody who
    /// types the other one learns at once, and for free, that this is not the name to give.
    pub more_scripts: bool,
    /// Accounts are to be found by identity number and mobile too; of an account only.
    pub element_index: bool,
    /// The day it is in China (UTC+8); nobody was born after it.
    pub today: Date,
}

impl ParseOptions {
    /// What production uses: no test land, Han and Latin names.
    pub fn new(today: Date) -> Self {
        ParseOptions { test_land: false, more_scripts: false, element_index: false, today }
    }
}

impl Subject {
    /// The subject of a claim, or which format was wrong; only elements that the action takes are
    /// looked at.
    ///
    /// The claim's document kind is the number the published interfaces use: 0 is the resident identity
    /// card, and nothing else can be verified. An empty string is a wrong format like any other.
    pub fn parse(action: Action, claim: &Claim, options: &ParseOptions) -> Result<Subject, (Outcome, Row)> {
        Subject::of(action, &claim.text(), options)
    }

    /// The same of a claim that was not copied.
    pub fn of(
        action: Action,
        claim: &ClaimText<'_>,
        options: &ParseOptions,
    ) -> Result<Subject, (Outcome, Row)> {
        let (mut name, mut id, mut card, mut mobile) = (None, None, None, None);
        if action.takes(Element::Name) {
            let parsed = HolderName::parse(claim.name, options.more_scripts);
            name = Some(parsed.ok_or((Outcome::NameInvalid, Row(1)))?);
        }
        if action.takes(Element::Id) {
            if claim.document_kind != 0 {
                return Err((Outcome::DocUnsupported, Row(2)));
            }
            let parsed = ResidentId::parse(claim.id, options.test_land, options.today);
            id = Some(parsed.ok_or_else(|| why_not_resident_id(claim.id, options))?);
        }
        let validity = match claim.validity {
            Some(text) => Some(Validity::parse(text).ok_or((Outcome::IdInvalid, Row(3)))?),
            None => None,
        };
        if action.takes(Element::Card) {
            card = Some(CardNumber::parse(claim.card).ok_or((Outcome::PanMalformed, Row(4)))?);
        }
        if action.takes(Element::Mobile) {
            mobile = Some(Mobile::parse(claim.mobile).ok_or((Outcome::PhoneInvalid, Row(5)))?);
        }
        Ok(Subject { card, name, id, mobile, validity })
    }
}

/// The elements of a claim, where each is written as it is compared already, as nearly all are: nothing is
/// copied. Of all others, right or wrong, nothing; [`Subject::of`] says what they are.
pub(crate) fn canonical<'a>(
    action: Action,
    claimed: &Elements<'a>,
    is_resident_id: bool,
    options: &ParseOptions,
) -> Option<Elements<'a>> {
    let is_id = |id: &[u8]| is_resident_id && resident_id::is_canonical(id, options.test_land, options.today);
    let name = taken(action, Element::Name, claimed.name_exact, name::is_plain_han)?;
    Some(Elements {
        card: taken(action, Element::Card, claimed.card, card::is_canonical)?,
        name_exact: name,
        name_loose: name,
        id: taken(action, Element::Id, claimed.id, is_id)?,
        mobile: taken(action, Element::Mobile, claimed.mobile, mobile::is_canonical)?,
    })
}

/// What an action takes of a text: all if it is canonical, or nothing of an element it does not ask about.
#[inline]
fn taken(
    action: Action,
    element: Element,
    text: &[u8],
    is_canonical: impl Fn(&[u8]) -> bool,
) -> Option<&[u8]> {
    match action.takes(element) {
        true => is_canonical(text).then_some(text),
        false => Some(&[]),
    }
}

/// Another document, or just wrong. A document is recognised only by forms that no slip in typing
/// an 18-digit number can produce, so a typing error is always [`Outcome::IdInvalid`].
fn why_not_resident_id(id: &str, options: &ParseOptions) -> (Outcome, Row) {
    let other = resident_id::is_first_generation(id, options.test_land)
        || other_document::is_recognised(id, options.today);
    if other { (Outcome::DocUnsupported, Row(2)) } else { (Outcome::IdInvalid, Row(3)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "韦小宝";
    const CARD: &str = "6225768888888888";
    const ID: &str = "340103202308176095";
    const MOBILE: &str = "16137688175";

    fn options() -> ParseOptions {
        ParseOptions::new(Date::new(2025, 6, 1).unwrap())
    }

    fn elements<'a>(name: &'a str, card: &'a str, id: &'a str, mobile: &'a str) -> Elements<'a> {
        let [name, card, id, mobile] = [name, card, id, mobile].map(str::as_bytes);
        Elements { card, name_exact: name, name_loose: name, id, mobile }
    }

    fn row(name: &str, card: &str, id: &str, mobile: &str, kind: i64) -> Option<(Outcome, u8)> {
        let claim = Claim::new(name, card, id, mobile, kind);
        let parsed = Subject::parse(Action::FourElements, &claim, &options());
        parsed.err().map(|(outcome, row)| (outcome, row.0))
    }

    #[test]
    fn the_first_wrong_format_answers_in_the_order_of_the_rows() {
        assert_eq!(row(NAME, CARD, ID, MOBILE, 0), None);
        assert_eq!(row("", "", "", "", 1), Some((Outcome::NameInvalid, 1)));
        assert_eq!(row(NAME, "", "", "", 1), Some((Outcome::DocUnsupported, 2)));
        assert_eq!(row(NAME, "", "", "", 0), Some((Outcome::IdInvalid, 3)));
        assert_eq!(row(NAME, "", ID, "", 0), Some((Outcome::PanMalformed, 4)));
        assert_eq!(row(NAME, CARD, ID, "", 0), Some((Outcome::PhoneInvalid, 5)));
    }

    #[test]
    fn other_documents_are_unsupported_and_typing_errors_are_invalid() {
        let outcome = |id: &str| row(NAME, CARD, id, MOBILE, 0).map(|(outcome, _)| outcome);
        for other in [
            "110101491001001",    // first generation, 15 digits
            "110101491001996",    // the same, of somebody born in the 19th century
            "E12345678",          // passport
            "ea1234567",          // passport, letters before digits
            "H12345678",          // Hong Kong permit
            "M1234567890",        // Macau permit of the older form
            "12345678",           // Taiwan permit
            "0123456789",         // the same, older form
            "军字第2001988号",    // officer
            "士字第P011816X号",   // soldier
            "Z字第1234567号",     // soldier
            "警字第123456号",     // police
            "USA110199001019",    // foreign permanent resident, before 2023
            "911840199001010018", // the same, since 2023
        ] {
            assert_eq!(outcome(other), Some(Outcome::DocUnsupported), "{other}");
        }
        for slip in [
            "11204416541220243X",  // the published sample: born in 1654
            "340103202308176096",  // check digit
            "34010320230817609",   // one digit lost
            "3401032023081760955", // one digit twice
            "34010320230817609O",  // letter O for 0
            "O40103202308176095",
            "EA0103202308176095",
            "911840199001010019", // foreign permanent resident with a wrong check digit
            "990101199001010019", // test land, outside of test land
            "340103991317609",    // 15 digits, month 13
            "000000000000000",
            "123456",
        ] {
            assert_eq!(outcome(slip), Some(Outcome::IdInvalid), "{slip}");
        }
    }

    #[test]
    fn elements_that_are_not_asked_about_are_not_looked_at() {
        let only = |action, name, card, id, mobile| {
            Subject::parse(action, &Claim::new(name, card, id, mobile, 0), &options()).err()
        };
        assert_eq!(only(Action::ThreeElements, NAME, CARD, ID, ""), None);
        assert_eq!(only(Action::TwoElements, NAME, CARD, "", ""), None);
        assert_eq!(only(Action::CardInformation, "", CARD, "", ""), None);
        assert_eq!(only(Action::NameAndId, NAME, "", ID, ""), None);
        assert_eq!(only(Action::MobileNameAndId, NAME, "", ID, MOBILE), None);
        assert_eq!(only(Action::MobileAndName, NAME, "", "", MOBILE), None);
        assert_eq!(only(Action::MobileAndName, NAME, CARD, ID, ""), Some((Outcome::PhoneInvalid, Row(5))));
    }

    #[test]
    fn a_validity_is_two_days_in_their_order() {
        let canonical = |text| Validity::parse(text).map(|validity| validity.as_str().to_owned());
        assert_eq!(canonical(" 20200101 - 20400101"), Some("20200101-20400101".into()));
        assert_eq!(canonical("20200229-00000000"), Some("20200229-00000000".into()));
        for wrong in
            ["", "20200101", "20200101-", "20210229-20400101", "20400101-20200101", "***-***", "长期"]
        {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn test_land_is_a_switch() {
        let id = "990101199001010019";
        let claim = Claim::new(NAME, CARD, id, MOBILE, 0);
        let parse = |options| Subject::parse(Action::FourElements, &claim, &options);
        assert_eq!(parse(options()).err(), Some((Outcome::IdInvalid, Row(3))));
        assert!(parse(ParseOptions { test_land: true, ..options() }).is_ok());
    }

    #[test]
    fn the_short_way_is_taken_by_a_usual_row() {
        let claimed = elements(NAME, CARD, ID, MOBILE);
        assert!(canonical(Action::FourElements, &claimed, true, &options()).is_some());
        assert!(canonical(Action::FourElements, &claimed, false, &options()).is_none());
        let without_id = elements(NAME, CARD, "", MOBILE);
        assert!(canonical(Action::TwoElements, &without_id, false, &options()).is_some());
    }

    #[test]
    fn debug_is_masked() {
        let claim = Claim::new(NAME, CARD, ID, MOBILE, 0).with_validity(Some(("20200101", "00000000")));
        let subject = Subject::parse(Action::FourElements, &claim, &options()).unwrap();
        assert_eq!(
            format!("{subject:?}"),
            "Subject { card: Some(CardNumber(622576******8888)), name: Some(HolderName(韦**)), \
             id: Some(ResidentId(3****************5)), mobile: Some(Mobile(161****8175)), \
             validity: Some(Validity(…)) }"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(name: String, card: String, id: String, mobile: String) {
            // A good name, so that the later elements are looked at too.
            for (name, id) in [(&*name, &*id), (NAME, &*id), (NAME, ID)] {
                let claim = Claim::new(name, &card, id, &mobile, 0).with_validity(Some((&card, &mobile)));
                for action in Action::ALL {
                    let _ = Subject::parse(action, &claim, &options());
                }
            }
            let _ = (Mobile::parse(&mobile), Mobile::parse_lenient(&mobile));
            let _ = (ResidentId::upgrade_15(&id, true), HolderName::parse(&name, true));
        }

        #[test]
        fn nothing_nearly_a_resident_id_is_taken_for_another_document(
            at in 0usize..18, wrong in "[0-9A-Z]",
        ) {
            let mut id = ID.to_owned();
            id.replace_range(at..=at, &wrong);
            prop_assume!(id != ID);
            prop_assert_eq!(row(NAME, CARD, &id, MOBILE, 0), Some((Outcome::IdInvalid, 3)));
        }

        /// Texts that are nearly canonical: what the short way takes, the long way gives too.
        #[test]
        fn the_short_way_takes_what_the_long_way_leaves_as_it_is(
            name in "[\u{4E00}-\u{4E05}·a ]{0,4}|韦小宝", card in "[0-9]{12,20}|6{15}|62257688 88888888",
            id in "340103202308176095|34010320230817609[0-9X]|990101199001010019|[0-9]{15}",
            mobile in "1[2-9][0-9]{9}| ?1[3-9][0-9]{9}|[0-9]{10,12}", kind in 0i64..2,
        ) {
            let claim = ClaimText { name: &name, card: &card, id: &id, mobile: &mobile, document_kind: kind, validity: None };
            for action in Action::ALL {
                let long = Subject::of(action, &claim, &options());
                let claimed = elements(&name, &card, &id, &mobile);
                let Some(short) = canonical(action, &claimed, kind == 0, &options()) else { continue };
                let long = long.unwrap();
                let bytes = |text: Option<&[u8]>| text.unwrap_or_default().to_vec();
                prop_assert_eq!(short.card, bytes(long.card.as_ref().map(CardNumber::as_bytes)));
                prop_assert_eq!(short.name_exact, bytes(long.name.as_ref().map(HolderName::e0)));
                prop_assert_eq!(short.name_loose, bytes(long.name.as_ref().map(HolderName::e1)));
                prop_assert_eq!(short.id, bytes(long.id.as_ref().map(ResidentId::as_bytes)));
                prop_assert_eq!(short.mobile, bytes(long.mobile.as_ref().map(Mobile::as_bytes)));
            }
        }

        #[test]
        fn debug_never_contains_the_input(
            name in "[\u{4E00}-\u{9FFF}]{2,50}", card in "[1-8]{6}[0-9]{6,12}9", mobile in "1[3-9][0-9]{9}",
        ) {
            let claim = Claim::new(&name, &card, ID, &mobile, 0);
            let subject = Subject::parse(Action::FourElements, &claim, &options()).unwrap();
            let printed = format!("{subject:?}");
            for input in [&name, &card, &mobile, ID] {
                prop_assert!(!printed.contains(input));
            }
        }
    }
}
