//! Holder names, brought into one spelling so that equal names are equal bytes.
//!
//! The same person is written with different dots by different banks, with wide letters by an
//! input method, with invisible characters by a web page. `name-v1` removes what no eye can see
//! and nothing else: it has no scores, and never takes a pinyin spelling for a Han name.
//!
//! Not done here: traditional against simplified characters and other variants. They are
//! different names for a bank as well, unless somebody decides otherwise.

use super::text::{fold_wide, is_hyphen};
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// The version of the rules in this file, kept in audit records and with imported accounts.
///
/// Change what [`HolderName::parse`] gives for any name, and this has to change too.
pub const VERSION: &str = "name-v1";

/// Chinese banks are asked to provide at least 50 characters for a name (2016 notice of twelve
/// ministries on the names of minorities).
const CODE_POINTS_MAX: usize = 50;

/// Longer texts are not looked at: 50 code points, each with room for invisible company.
const RAW_BYTES_MAX: usize = 2048;

/// The dot within a name, as the same notice wants it: U+00B7, A1A4 in GB 18030.
const DOT: char = '\u{B7}';

/// How equal two names are. The discriminants are stored: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum NameClass {
    /// The same bytes after `name-v1`.
    E0 = 0,
    /// The same without dots, periods and blanks: banks disagree about them.
    E1 = 1,
}

impl NameClass {
    /// `E0` or `E1`.
    pub const fn name(self) -> &'static str {
        match self {
            NameClass::E0 => "E0",
            NameClass::E1 => "E1",
        }
    }

    /// Both classes, the stricter first.
    pub const ALL: [NameClass; 2] = [NameClass::E0, NameClass::E1];
}

/// A holder name after `name-v1`: 1 to 50 code points with at least one letter; nothing but
/// letters, dots (U+00B7), single blanks, apostrophes, hyphens and periods.
///
/// Letters are Han (with extensions A to J), Latin, and private-use characters: before 2005 fonts
/// for GBK kept rare Han characters there, and old records still do. Such a name matches only a
/// record that has the same private character.
#[derive(Clone, PartialEq, Eq)]
pub struct HolderName {
    canonical: Zeroizing<String>,
    /// Without dots, periods and blanks; `None` if there are none.
    undotted: Option<Zeroizing<String>>,
}

impl HolderName {
    /// The name in a text, or `None` if it is not a name.
    ///
    /// `more_scripts` admits Tibetan, Arabic (Uyghur, Kazakh), Mongolian and Cyrillic letters.
    pub fn parse(text: &str, more_scripts: bool) -> Option<HolderName> {
        let canonical = if is_plain_han(text.as_bytes()) {
            Zeroizing::new(text.to_owned())
        } else {
            canonical(text, more_scripts)?
        };
        let undotted = canonical.contains(is_left_out).then(|| {
            let mut undotted = Zeroizing::new(String::with_capacity(canonical.len()));
            undotted.extend(canonical.chars().filter(|&c| !is_left_out(c)));
            undotted
        });
        Some(HolderName { canonical, undotted })
    }

    /// The canonical name.
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// What is compared in class [`NameClass::E0`]: the canonical name in UTF-8.
    pub fn e0(&self) -> &[u8] {
        self.canonical.as_bytes()
    }

    /// What is compared in class [`NameClass::E1`]: the canonical name without dots, periods and
    /// blanks. Never empty.
    pub fn e1(&self) -> &[u8] {
        self.undotted.as_ref().unwrap_or(&self.canonical).as_bytes()
    }

    /// What is compared in that class.
    pub fn class(&self, class: NameClass) -> &[u8] {
        match class {
            NameClass::E0 => self.e0(),
            NameClass::E1 => self.e1(),
        }
    }

    /// The first character (`韦**`), or the initial of each word (`W** X**`); a word of a single
    /// character is hidden altogether.
    pub fn masked(&self) -> String {
        if self.canonical.contains(is_han) {
            return masked_word(&self.canonical);
        }
        self.canonical.split(' ').map(masked_word).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for HolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderName({})", self.masked())
    }
}

fn masked_word(word: &str) -> String {
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(_)) => format!("{first}**"),
        _ => "**".to_owned(),
    }
}

fn is_left_out(c: char) -> bool {
    matches!(c, DOT | '.' | ' ')
}

/// Nearly every name: common Han characters only. The rules leave such a text as it is.
#[inline]
pub(super) fn is_plain_han(text: &[u8]) -> bool {
    // Each of these characters has three bytes: U+4E00 is e4 b8 80, U+9FFF e9 bf bf.
    let (letters, rest) = text.as_chunks::<3>();
    let is_han = |[first, second, third]: &[u8; 3]| {
        let is_first = matches!(first, 0xe5..=0xe9) || *first == 0xe4 && *second >= 0xb8;
        is_first && second & 0xc0 == 0x80 && third & 0xc0 == 0x80
    };
    rest.is_empty() && (1..=CODE_POINTS_MAX).contains(&letters.len()) && letters.iter().all(is_han)
}

/// The steps of `name-v1`.
fn canonical(text: &str, more_scripts: bool) -> Option<Zeroizing<String>> {
    if text.len() > RAW_BYTES_MAX {
        return None;
    }
    let mut letters = Zeroizing::new(Vec::with_capacity(text.len()));
    letters.extend(
        (text.chars().filter(|&c| !is_invisible(c)).map(fold_wide)).nfc().map(fold_radical).map(fold_sign),
    );
    if letters.iter().any(|&c| is_han(c)) {
        letters.retain(|&c| c != ' ');
        map_stops_between_han(&mut letters);
    } else {
        // Pairs of blanks; those at the ends go below.
        letters.dedup_by(|next, previous| *next == ' ' && *previous == ' ');
        letters.iter_mut().for_each(|c| *c = upper_case(*c));
    }
    letters.dedup_by(|next, previous| *next == DOT && *previous == DOT);

    let mut name = Zeroizing::new(String::with_capacity(4 * letters.len()));
    // Again, because a combining mark may have lost the blank in front of it.
    name.extend(letters.iter().copied().nfc());
    let name = Zeroizing::new(name.trim_matches([DOT, ' ']).to_owned());
    is_well_formed(&name, more_scripts).then_some(name)
}

fn is_well_formed(name: &str, more_scripts: bool) -> bool {
    let is_letter = |c| is_han(c) || is_latin(c) || (more_scripts && is_of_more_scripts(c));
    let is_sign = |c| matches!(c, DOT | ' ' | '\'' | '-' | '.');
    name.chars().count() <= CODE_POINTS_MAX
        && name.chars().any(is_letter)
        && name.chars().all(|c| is_letter(c) || is_sign(c))
}

/// Zero-width characters, byte-order mark, direction controls, variation selectors, and the other
/// ignorable format characters of Unicode.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// A Kangxi radical, which looks like a Han character and is not one, as that character. Only
/// these 214: the rest of compatibility normalisation would change more than the eye sees.
fn fold_radical(c: char) -> char {
    match c {
        '\u{2F00}'..='\u{2FD5}' => std::iter::once(c).nfkc().next().unwrap_or(c),
        _ => c,
    }
}

/// One character for each of the signs that are typed for it: dot, blank, apostrophe, hyphen.
///
/// Full stops stay: they are dots only between Han characters.
fn fold_sign(c: char) -> char {
    match c {
        '\u{387}' | '\u{2022}' | '\u{2027}' | '\u{2219}' | '\u{22C5}' | '\u{25CF}' | '\u{30FB}'
        | '\u{FF65}' | '\u{2E31}' | '\u{2E33}' | '\u{A78F}' | '\u{16EB}' => DOT,
        '\u{FE52}' => '.',
        '\u{FF61}' => '。',
        '\u{2018}' | '\u{2019}' | '\u{2BC}' | '\u{2032}' => '\'',
        _ if is_hyphen(c) => '-',
        _ if c.is_whitespace() => ' ',
        _ => c,
    }
}

/// Full stops become dots where the nearest other characters on both sides are Han.
fn map_stops_between_han(letters: &mut [char]) {
    let is_stop = |c: char| matches!(c, '.' | '。');
    let is_joint = |c: char| is_stop(c) || c == DOT;
    let mut start = 0;
    while start < letters.len() {
        let len = letters[start..].iter().take_while(|&&c| is_joint(c)).count();
        let end = start + len;
        let between = start > 0 && is_han(letters[start - 1]) && letters.get(end).is_some_and(|&c| is_han(c));
        if between {
            letters[start..end].fill(DOT);
        }
        start = end + 1;
    }
}

/// Where Unicode has a single capital for it; `ß` stays.
fn upper_case(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

/// Han characters, by block, up to extension J (Unicode 17), with `〇` and `々`, which occur in
/// names, and the private-use areas.
fn is_han(c: char) -> bool {
    matches!(c,
        '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{3005}' | '\u{3007}'
        // Normalisation leaves twelve of the compatibility block: they are characters of their own.
        | '\u{FA0E}'..='\u{FA29}'
        | '\u{20000}'..='\u{2A6DF}' | '\u{2A700}'..='\u{2EE5F}'
        | '\u{30000}'..='\u{3347F}'
        | '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}')
}

/// Letters of Latin-1, Latin Extended A and B, and Latin Extended Additional (Vietnamese).
fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}') && c.is_alphabetic()
}

/// Tibetan with its vowel signs and syllable point, Arabic letters, Mongolian, Cyrillic.
fn is_of_more_scripts(c: char) -> bool {
    matches!(c,
        '\u{F40}'..='\u{F84}' | '\u{F90}'..='\u{FBC}' | '\u{F0B}'
        | '\u{620}'..='\u{63F}' | '\u{641}'..='\u{64A}' | '\u{66E}'..='\u{6D3}' | '\u{6D5}'
        | '\u{1820}'..='\u{1878}' | '\u{1880}'..='\u{18AA}'
        | '\u{400}'..='\u{481}' | '\u{48A}'..='\u{52F}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> String {
        HolderName::parse(text, false).unwrap_or_else(|| panic!("not a name: {text}")).as_str().to_owned()
    }

    #[test]
    fn names_as_they_are() {
        for text in
            ["韦小宝", "爱新觉罗永琪", "买买提·艾力", "胡印福", "WEI XIAOBAO", "O'NEIL-SMITH JR.", "Ý NGUYỄN"]
        {
            assert_eq!(name(text), text);
        }
        assert_eq!(name("Wei  Xiaobao "), "WEI XIAOBAO");
        assert_eq!(name("José Groß"), "JOSÉ GROß");
    }

    #[test]
    fn every_dot_in_use_is_the_same_dot() {
        for dot in "··•‧∙⋅●・･．﹒.。｡⸱⸳ꞏ᛫".chars() {
            for text in [
                format!("买买提{dot}艾力"),
                format!("买买提 {dot} 艾力"),
                format!("买买提{dot}{dot}艾力"),
                format!("买买提·{dot}艾力"),
            ] {
                assert_eq!(name(&text), "买买提·艾力", "{dot:?}");
            }
        }
        assert_eq!(name("·买买提·艾力・"), "买买提·艾力");
    }

    #[test]
    fn full_stops_are_dots_only_between_han() {
        assert_eq!(name("J. Smith"), "J. SMITH");
        assert_eq!(name("J．Smith"), "J.SMITH");
        assert_eq!(name("买买提.A"), "买买提.A");
        assert_eq!(HolderName::parse("Smith。", false), None);
    }

    #[test]
    fn what_no_eye_can_see_is_gone() {
        for text in [
            "\u{FEFF}韦小宝",
            "韦\u{200B}小\u{FE00}宝",
            "韦 小　宝\n",
            "\u{202A}韦小宝\u{202C}",
            "韦小宝\u{E0100}",
        ] {
            assert_eq!(name(text), "韦小宝");
        }
        assert_eq!(name("ＷＥＩ　ｘｉａｏｂａｏ"), "WEI XIAOBAO");
        assert_eq!(name("O’Neil – Ng"), "O'NEIL - NG");
    }

    #[test]
    fn look_alikes_of_unicode_become_the_character() {
        assert_eq!(name("\u{2F08}"), "人", "Kangxi radical");
        assert_eq!(name("\u{F900}"), "豈", "compatibility ideograph");
        assert_eq!(name("\u{2F800}"), "丽", "the same, of the supplement");
        assert_eq!(name("Jose\u{301}"), "JOSÉ", "combining accent");
        for (radical, han) in [('\u{2F00}', '一'), ('\u{2F5F}', '玉'), ('\u{2FD5}', '龠')] {
            assert_eq!(fold_radical(radical), han);
        }
        assert!(
            ('\u{2F00}'..='\u{2FD5}')
                .all(|radical| is_plain_han(fold_radical(radical).to_string().as_bytes()))
        );
        for own in
            "\u{FA0E}\u{FA0F}\u{FA11}\u{FA13}\u{FA14}\u{FA1F}\u{FA21}\u{FA23}\u{FA24}\u{FA27}\u{FA28}\u{FA29}"
                .chars()
        {
            assert_eq!(name(&own.to_string()), own.to_string(), "not a look-alike");
        }
    }

    #[test]
    fn rare_characters_are_letters() {
        let extensions_a_to_j = [
            '\u{3400}',
            '\u{20000}',
            '\u{2A700}',
            '\u{2B740}',
            '\u{2B820}',
            '\u{2CEB0}',
            '\u{2EBF0}',
            '\u{30000}',
            '\u{31350}',
            '\u{323B0}',
        ];
        for rare in extensions_a_to_j.into_iter().chain(['〇', '\u{E815}', '\u{F0000}']) {
            let text = format!("王{rare}.明");
            assert_eq!(name(&text), format!("王{rare}·明"));
        }
    }

    #[test]
    fn what_is_not_a_name() {
        let too_long = "永".repeat(51);
        for text in [
            "",
            " ",
            "·",
            ".",
            "-",
            "王2",
            "王😀",
            "***",
            "王□",
            "王?",
            "\u{FFFD}",
            "\u{2E8F}",
            "さくら",
            "x\u{30C}",
            "·'-",
            &too_long,
            &" ".repeat(5000),
        ] {
            assert_eq!(HolderName::parse(text, false), None, "{text}");
        }
        assert_eq!(name(&"永".repeat(50)), "永".repeat(50));
    }

    #[test]
    fn more_scripts_are_a_switch() {
        for text in ["བཀྲ་ཤིས", "ئەلى", "ᠪᠠᠲᠤ", "Айгүл"] {
            assert_eq!(HolderName::parse(text, false), None, "{text}");
            assert!(HolderName::parse(text, true).is_some(), "{text}");
        }
        assert_eq!(HolderName::parse("Айгүл", true).unwrap().as_str(), "АЙГҮЛ");
    }

    #[test]
    fn classes_forgive_dots_and_blanks_and_nothing_else() {
        let e1 = |text| HolderName::parse(text, false).unwrap().e1().to_vec();
        assert_eq!(e1("买买提·艾力"), e1("买买提艾力"));
        assert_eq!(e1("Wei Xiaobao"), e1("WEIXIAOBAO"));
        assert_eq!(e1("J. Smith"), e1("J Smith"));
        assert_ne!(e1("Wei Xiaobao"), e1("韦小宝"));
        assert_ne!(e1("Xiaobao Wei"), e1("Wei Xiaobao"));
        let dotted = HolderName::parse("买买提·艾力", false).unwrap();
        assert_eq!(dotted.class(NameClass::E0), "买买提·艾力".as_bytes());
        assert_eq!(dotted.class(NameClass::E1), "买买提艾力".as_bytes());
    }

    #[test]
    fn masks_show_initials() {
        for (text, mask) in [
            ("韦小宝", "韦**"),
            ("韦", "**"),
            ("Wei Xiaobao", "W** X**"),
            ("J Li", "** L**"),
            ("买买提·艾力", "买**"),
        ] {
            assert_eq!(HolderName::parse(text, false).unwrap().masked(), mask);
        }
    }

    /// Texts made of what the rules look at.
    fn likely_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[韦小宝买]",
            "[a-zß]",
            "[A-Z]",
            "[ .。·•･．﹒｡'’–]",
            "[\u{F0B}\u{F40}\u{F71}-\u{F7C}]",
            "[\u{2F00}-\u{2FD5}]",
            "[\u{F900}-\u{FAD9}]",
            "[\u{E0}-\u{24F}]",
            "[\u{300}-\u{306}]",
            "[\u{1E00}-\u{1EFF}]",
            "[\u{400}-\u{45F}]",
            "[\u{620}-\u{660}]",
            "[\u{200B}\u{3000}]",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_canonical_name(text in likely_text(), more_scripts: bool) {
            if let Some(name) = HolderName::parse(&text, more_scripts) {
                let again = HolderName::parse(name.as_str(), more_scripts);
                prop_assert_eq!(again.as_ref(), Some(&name));
                prop_assert!(!name.e1().is_empty());
            }
        }

        #[test]
        fn any_text_is_handled(text: String) {
            if let Some(name) = HolderName::parse(&text, true) {
                prop_assert_eq!(HolderName::parse(name.as_str(), true), Some(name));
            }
        }

        #[test]
        fn the_short_way_for_plain_han_is_the_long_way(text in "[\u{4E00}-\u{9FFF}]{1,50}") {
            prop_assert!(is_plain_han(text.as_bytes()));
            let long_way = canonical(&text, false).unwrap();
            prop_assert_eq!(long_way.as_str(), text);
        }
    }
}
