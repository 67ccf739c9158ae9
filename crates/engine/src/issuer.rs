//! Issuers: which bank a card number belongs to, and what that bank can verify.
//!
//! The built-in table (`issuer/table.csv`) names the large banks only. An operator's file adds to
//! it and wins over it; whoever needs every bank of the country brings a full list.
//!
//! Nothing here decides whether a card exists: prefixes are reassigned, and no list is complete.

use crate::subject::CardNumber;
use std::collections::{HashMap, HashSet};

const TABLE: &str = include_str!("issuer/table.csv");

/// More rows than any list of the world has; a file beyond it is not an issuer file.
const ROWS_MAX: usize = 200_000;

/// What a card lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CardKind {
    /// Spends what is in the account (借记卡).
    Debit,
    /// Spends on credit (贷记卡).
    Credit,
    /// Spends what was paid in, and then a little on credit (准贷记卡).
    SemiCredit,
    /// Spends what it was loaded with (预付费卡).
    Prepaid,
}

impl CardKind {
    /// Every kind.
    pub const ALL: [CardKind; 4] =
        [CardKind::Debit, CardKind::Credit, CardKind::SemiCredit, CardKind::Prepaid];

    /// The word for it in issuer files.
    pub const fn word(self) -> &'static str {
        match self {
            CardKind::Debit => "debit",
            CardKind::Credit => "credit",
            CardKind::SemiCredit => "semi_credit",
            CardKind::Prepaid => "prepaid",
        }
    }

    /// The kind an issuer file names by that word.
    pub fn from_word(word: &str) -> Option<CardKind> {
        CardKind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Cards of one bank that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The issuer identification number: the first 2 to 12 digits. Six or eight by ISO/IEC 7812-1;
    /// banks have used others.
    pub prefix: String,
    /// Digits of the whole card number, 13 to 19; `None` for any.
    pub length: Option<u8>,
    /// The bank's name in Chinese.
    pub bank_zh: String,
    /// The bank's name in English.
    pub bank_en: String,
    /// The kind of card.
    pub kind: CardKind,
    /// Whether the issuer takes part in verification at all.
    pub verifies: bool,
    /// Whether the issuer can compare the mobile number.
    pub phone_checked: bool,
}

/// How far a row of the built-in table can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Where it was found.
    pub source: &'static str,
    /// `high`, `medium` or `low`.
    pub confidence: &'static str,
}

/// Where each row of the built-in table comes from, by prefix and card length.
pub fn provenance() -> HashMap<(&'static str, Option<u8>), Provenance> {
    let rows = TABLE.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let row = |line: &'static str| {
        let columns: Vec<&str> = line.split(',').collect();
        let [prefix, length, .., source, confidence] = columns[..] else { return None };
        Some(((prefix, length.parse().ok()), Provenance { source, confidence }))
    };
    rows.filter_map(row).collect()
}

/// The rows of an operator's file alone, checked, in the order of the file.
///
/// # Errors
/// The first mistake, with its line.
pub fn read_operator_file(csv: &str) -> Result<Vec<Issuer>, IssuerError> {
    read_rows(csv)
}

/// Why an operator's issuer file cannot be used, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct IssuerError {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// What is wrong there and what to write instead.
    pub problem: String,
}

/// All known issuers, ready for look-up.
#[derive(Clone, Debug)]
pub struct Issuers {
    /// Sorted by [`Key`]; at most one for each.
    issuers: Vec<Issuer>,
    /// Of each the card length, close together: [`ANY_LENGTH`] for any.
    lengths: Vec<u8>,
    /// A tree of the prefixes, a digit a step; the first is its root.
    steps: Vec<Step>,
    /// By the first four digits: the step after them, or how they have to be walked.
    after_four: Vec<AfterFour>,
}

/// Where the first four digits of a card number lead.
#[derive(Clone, Copy, Debug)]
enum AfterFour {
    /// A prefix ends among them: each is a step.
    Each,
    /// No prefix begins like this.
    Nowhere,
    /// To that step, and no prefix has ended yet.
    Step(u32),
}

/// What is known after some digits of a card number.
#[derive(Clone, Debug, Default)]
struct Step {
    /// The next step for each digit; 0: no prefix goes on like this.
    next: [u32; 10],
    /// The issuers whose prefix ends here: the first, and how many.
    ending: (u32, u32),
}

/// Prefix length, prefix as a number, card length (0 for any).
type Key = (u8, u64, u8);

impl Issuers {
    /// The large banks of China.
    pub fn built_in() -> Issuers {
        Issuers::new(built_in_rows())
    }

    /// The built-in table with an operator's rows put over it.
    ///
    /// The file is CSV in UTF-8 with a header; columns `prefix`, `length`, `bank_zh`, `bank_en`,
    /// `kind`, `verifies` and `phone_checked` in any order, others are ignored, and so are empty
    /// lines and lines beginning with `#`. `kind` is `debit`, `credit`, `semi_credit` or `prepaid`;
    /// `verifies` and `phone_checked` are `true` or `false`.
    ///
    /// A row replaces the built-in one of the same prefix and length; a row without length stands
    /// for any length and replaces every built-in row of its prefix.
    pub fn with_operator_file(csv: &str) -> Result<Issuers, IssuerError> {
        let operator = read_rows(csv)?;
        let mut rows = built_in_rows();
        let any_length: HashSet<&str> = (operator.iter())
            .filter(|issuer| issuer.length.is_none())
            .map(|issuer| issuer.prefix.as_str())
            .collect();
        rows.retain(|issuer| !any_length.contains(issuer.prefix.as_str()));
        drop(any_length);
        rows.extend(operator);
        Ok(Issuers::new(rows))
    }

    /// The issuer of a card: of the prefixes that fit, the longest that has a row for the card's
    /// length or for any length.
    pub fn lookup(&self, card: &CardNumber) -> Option<&Issuer> {
        self.lookup_digits(card.as_bytes())
    }

    /// The same by the digits of a card number.
    pub(crate) fn lookup_digits(&self, digits: &[u8]) -> Option<&Issuer> {
        let (mut step, mut found, mut rest) = (self.steps.first()?, None, digits);
        if let Some((four, behind)) = digits.split_first_chunk()
            && let Some(after) = four_digits(four).and_then(|four| self.after_four.get(four))
        {
            match after {
                AfterFour::Each => {}
                AfterFour::Nowhere => return None,
                AfterFour::Step(at) => (step, rest) = (&self.steps[*at as usize], behind),
            }
        }
        for digit in rest {
            match step.next.get(usize::from(digit.wrapping_sub(b'0'))) {
                None | Some(0) => break,
                Some(next) => step = &self.steps[*next as usize],
            }
            let (first, count) = step.ending;
            let ending = &self.lengths[first as usize..(first + count) as usize];
            let of = |length: u8| ending.iter().position(|known| *known == length);
            let here = of(digits.len() as u8).or_else(|| of(ANY_LENGTH));
            found = here.map(|at| first as usize + at).or(found);
        }
        found.map(|at| &self.issuers[at])
    }

    /// Every row, sorted by length of prefix, prefix and card length.
    pub fn all(&self) -> &[Issuer] {
        &self.issuers
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.issuers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Of rows with the same key the last wins.
    fn new(rows: Vec<Issuer>) -> Issuers {
        let mut by_key: Vec<(Key, Issuer)> = rows.into_iter().map(|issuer| (issuer.key(), issuer)).collect();
        // A stable sort keeps later rows later; then the earlier of two goes.
        by_key.sort_by_key(|(key, _)| *key);
        by_key.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let issuers: Vec<Issuer> = by_key.into_iter().map(|(_, issuer)| issuer).collect();
        let mut steps = vec![Step::default()];
        for (at, issuer) in issuers.iter().enumerate() {
            let mut step = 0;
            for digit in issuer.prefix.bytes().map(|digit| usize::from(digit - b'0')) {
                if steps[step].next[digit] == 0 {
                    steps[step].next[digit] = steps.len() as u32;
                    steps.push(Step::default());
                }
                step = steps[step].next[digit] as usize;
            }
            let (first, count) = &mut steps[step].ending;
            // Those of one prefix follow one another.
            *first = if *count == 0 { at as u32 } else { *first };
            *count += 1;
        }
        let after_four = (0..10_000).map(|four| after_four(&steps, four)).collect();
        let lengths = issuers.iter().map(|issuer| issuer.length.unwrap_or(ANY_LENGTH)).collect();
        Issuers { issuers, lengths, steps, after_four }
    }
}

fn four_digits(four: &[u8; 4]) -> Option<usize> {
    four.iter().try_fold(0, |sum, digit| {
        Some(10 * sum + usize::from(digit.wrapping_sub(b'0'))).filter(|_| digit.is_ascii_digit())
    })
}

fn after_four(steps: &[Step], four: usize) -> AfterFour {
    let mut at = 0;
    for digit in [four / 1000, four / 100 % 10, four / 10 % 10, four % 10] {
        at = steps[at].next[digit] as usize;
        match steps[at].ending {
            _ if at == 0 => return AfterFour::Nowhere,
            (_, 0) => {}
            _ => return AfterFour::Each,
        }
    }
    AfterFour::Step(at as u32)
}

/// In a [`Key`]: the row holds for cards of any length.
const ANY_LENGTH: u8 = 0;

impl Issuer {
    fn key(&self) -> Key {
        let prefix = self.prefix.parse().expect("2 to 12 digits, checked when read");
        (self.prefix.len() as u8, prefix, self.length.unwrap_or(ANY_LENGTH))
    }
}

fn built_in_rows() -> Vec<Issuer> {
    read_rows(TABLE).expect("the table in the source is tested to be readable")
}

fn read_rows(csv: &str) -> Result<Vec<Issuer>, IssuerError> {
    let csv = csv.strip_prefix('\u{FEFF}').unwrap_or(csv);
    let mut lines = (csv.lines().enumerate())
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));

    let Some((line, header)) = lines.next() else {
        return Err(error(1, format!("the file is empty; begin with the header `{HEADER}`")));
    };
    let columns = Columns::find(line, header)?;
    let mut rows: Vec<Issuer> = Vec::new();
    let mut seen: HashMap<Key, usize> = HashMap::new();
    for (line, text) in lines {
        let issuer = columns.read(line, text)?;
        if let Some(before) = seen.insert(issuer.key(), line) {
            let problem = format!(
                "prefix {} with this length is already on line {before}; remove one of the two",
                issuer.prefix
            );
            return Err(error(line, problem));
        }
        if rows.len() == ROWS_MAX {
            return Err(error(line, format!("more than {ROWS_MAX} rows; leave some out")));
        }
        rows.push(issuer);
    }
    Ok(rows)
}

const HEADER: &str = "prefix,length,bank_zh,bank_en,kind,verifies,phone_checked";

/// Where each column of [`HEADER`] stands in a file.
struct Columns {
    places: [usize; 7],
    count: usize,
}

impl Columns {
    fn find(line: usize, header: &str) -> Result<Columns, IssuerError> {
        let found = split(line, header)?;
        let mut places = [0; 7];
        for (place, wanted) in places.iter_mut().zip(HEADER.split(',')) {
            *place = found.iter().position(|name| name == wanted).ok_or_else(|| {
                error(line, format!("there is no column `{wanted}`; the header is `{HEADER}`"))
            })?;
        }
        Ok(Columns { places, count: found.len() })
    }

    fn read(&self, line: usize, text: &str) -> Result<Issuer, IssuerError> {
        let mut fields = split(line, text)?;
        if fields.len() != self.count {
            let (got, want) = (fields.len(), self.count);
            let problem = format!(
                "{got} fields where the header has {want}; put a field with a comma in double quotes"
            );
            return Err(error(line, problem));
        }
        let [prefix, length, bank_zh, bank_en, kind, verifies, phone_checked] =
            self.places.map(|place| std::mem::take(&mut fields[place]));
        Ok(Issuer {
            length: read_length(line, &length)?,
            prefix: read_prefix(line, prefix)?,
            bank_zh: read_bank(line, "bank_zh", bank_zh)?,
            bank_en: read_bank(line, "bank_en", bank_en)?,
            kind: CardKind::from_word(&kind).ok_or_else(|| {
                let words = "`debit`, `credit`, `semi_credit` or `prepaid`";
                error(line, format!("`kind` is `{kind}`; write {words}"))
            })?,
            verifies: read_bool(line, "verifies", &verifies)?,
            phone_checked: read_bool(line, "phone_checked", &phone_checked)?,
        })
    }
}

fn read_prefix(line: usize, prefix: String) -> Result<String, IssuerError> {
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (2..=12).contains(&prefix.len()) {
        return Ok(prefix);
    }
    // A whole card number pasted here by mistake must not reach a log.
    let shown = if prefix.len() > 12 { "too long" } else { &format!("`{prefix}`") };
    Err(error(line, format!("`prefix` is {shown}; write the first 2 to 12 digits of the cards")))
}

fn read_length(line: usize, length: &str) -> Result<Option<u8>, IssuerError> {
    if length.is_empty() {
        return Ok(None);
    }
    let number = length.parse().ok().filter(|number| (13..=19).contains(number));
    number.map(Some).ok_or_else(|| {
        error(line, format!("`length` is `{length}`; write 13 to 19, or nothing for any length"))
    })
}

fn read_bank(line: usize, column: &str, bank: String) -> Result<String, IssuerError> {
    if bank.is_empty() {
        return Err(error(line, format!("`{column}` is empty; write the name of the bank")));
    }
    Ok(bank)
}

fn read_bool(line: usize, column: &str, word: &str) -> Result<bool, IssuerError> {
    match word {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(error(line, format!("`{column}` is `{word}`; write `true` or `false`"))),
    }
}

/// The fields of one line of CSV (RFC 4180, without line breaks inside of fields), trimmed.
fn split(line: usize, text: &str) -> Result<Vec<String>, IssuerError> {
    // As in the whole built-in table, which every start reads.
    if !text.contains('"') {
        return Ok(text.split(',').map(|field| field.trim().to_owned()).collect());
    }
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.trim().is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(error(line, "a double quote is not closed; close it on the same line".into()));
    }
    Ok(fields.into_iter().map(|field| field.trim().to_owned()).collect())
}

fn error(line: usize, problem: String) -> IssuerError {
    IssuerError { line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bank<'a>(issuers: &'a Issuers, card: &str) -> Option<(&'a str, CardKind)> {
        let issuer = issuers.lookup(&CardNumber::parse(card).unwrap())?;
        Some((&issuer.bank_zh, issuer.kind))
    }

    fn operator(rows: &str) -> Result<Issuers, IssuerError> {
        Issuers::with_operator_file(&format!("{HEADER}\n{rows}"))
    }

    #[test]
    fn the_built_in_table_knows_the_large_banks() {
        let issuers = Issuers::built_in();
        assert!(issuers.len() > 500);
        for (card, name, kind) in [
            ("6225768888888888", "招商银行", CardKind::Credit),
            ("6226090210146748", "招商银行", CardKind::Debit),
            ("6222020000000000000", "中国工商银行", CardKind::Debit),
            ("9558800000000000001", "中国工商银行", CardKind::Debit),
            ("6228480000000000000", "中国农业银行", CardKind::Debit),
            ("9559900000000000001", "中国农业银行", CardKind::Debit),
            ("6217000000000000000", "中国建设银行", CardKind::Debit),
            ("6222600000000000000", "交通银行", CardKind::Debit),
            // UnionPay's public test cards.
            ("6216261000000000018", "平安银行", CardKind::Debit),
            ("6221558812340000", "平安银行", CardKind::Credit),
        ] {
            assert_eq!(bank(&issuers, card), Some((name, kind)), "{card}");
        }
        let banks: HashSet<_> = issuers.all().iter().map(|issuer| &issuer.bank_en).collect();
        assert_eq!(banks.len(), 15);
    }

    #[test]
    fn every_built_in_row_says_where_it_comes_from() {
        let provenance = provenance();
        for issuer in Issuers::built_in().all() {
            let Provenance { source, confidence } = provenance[&(&*issuer.prefix, issuer.length)];
            assert!(!source.is_empty() && ["high", "medium", "low"].contains(&confidence), "{issuer:?}");
        }
    }

    #[test]
    fn test_cards_have_no_issuer() {
        assert_eq!(bank(&Issuers::built_in(), "6200000000000005"), None);
        assert!(Issuers::built_in().all().iter().all(|issuer| !"620000".starts_with(&issuer.prefix)));
    }

    #[test]
    fn the_longest_prefix_wins_then_the_length() {
        let issuers = operator(
            "6299,,短,Short,debit,true,true\n\
             629912,16,十六,Sixteen,debit,true,true\n\
             629912,,任意,Any,credit,true,true\n\
             62991234,19,长,Long,prepaid,true,true",
        )
        .unwrap();
        let zh = |card| bank(&issuers, card).map(|(zh, _)| zh);
        assert_eq!(zh("6299000000000000"), Some("短"));
        assert_eq!(zh("6299120000000000"), Some("十六"));
        assert_eq!(zh("62991200000000000"), Some("任意"));
        assert_eq!(zh("6299123400000000000"), Some("长"));
        // The longest prefix has no row for 16 digits.
        assert_eq!(zh("6299123400000000"), Some("十六"));
    }

    #[test]
    fn an_operators_row_wins_over_the_built_in_one() {
        let card = CardNumber::parse("6225768888888888").unwrap();
        for length in ["16", ""] {
            let issuers =
                operator(&format!("622576,{length},某行,\"Bank, Some\",debit,false,false")).unwrap();
            let issuer = issuers.lookup(&card).unwrap();
            assert_eq!((&*issuer.bank_zh, &*issuer.bank_en), ("某行", "Bank, Some"));
            assert!(!issuer.verifies && !issuer.phone_checked);
            assert_eq!(issuers.len(), Issuers::built_in().len());
        }
        // Another length leaves the built-in row alone.
        let issuers = operator("622576,19,某行,Some Bank,debit,false,false").unwrap();
        assert_eq!(issuers.lookup(&card).unwrap().bank_zh, "招商银行");
    }

    #[test]
    fn columns_stand_in_any_order_and_more_are_ignored() {
        let issuers = Issuers::with_operator_file(
            "\u{FEFF}# our own cards\r\n\
             source,kind,prefix,length,bank_en,bank_zh,phone_checked,verifies\r\n\
             \r\n\
             ours,prepaid, 629900 ,16,\"The \"\"New\"\" Bank\",新行,false,true\r\n",
        )
        .unwrap();
        let issuer = issuers.lookup(&CardNumber::parse("6299001234567890").unwrap()).unwrap();
        assert_eq!((&*issuer.bank_en, issuer.kind), ("The \"New\" Bank", CardKind::Prepaid));
        assert!(issuer.verifies && !issuer.phone_checked);
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_their_cure() {
        for (rows, told) in [
            (
                "62257x,16,某,B,debit,true,true",
                "line 2: `prefix` is `62257x`; write the first 2 to 12 digits of the cards",
            ),
            (
                "6225768888888888,16,某,B,debit,true,true",
                "line 2: `prefix` is too long; write the first 2 to 12 digits of the cards",
            ),
            (
                "622576,20,某,B,debit,true,true",
                "line 2: `length` is `20`; write 13 to 19, or nothing for any length",
            ),
            ("622576,16,某,,debit,true,true", "line 2: `bank_en` is empty; write the name of the bank"),
            (
                "622576,16,某,B,debitt,true,true",
                "line 2: `kind` is `debitt`; write `debit`, `credit`, `semi_credit` or `prepaid`",
            ),
            ("622576,16,某,B,debit,yes,true", "line 2: `verifies` is `yes`; write `true` or `false`"),
            (
                "622576,16,某,B,debit,true",
                "line 2: 6 fields where the header has 7; put a field with a comma in double quotes",
            ),
            (
                "622576,16,某,\"B,debit,true,true",
                "line 2: a double quote is not closed; close it on the same line",
            ),
            (
                "\n622576,16,某,B,debit,true,true\n622576,16,某,B,credit,true,true",
                "line 4: prefix 622576 with this length is already on line 3; remove one of the two",
            ),
        ] {
            assert_eq!(operator(rows).unwrap_err().to_string(), told);
        }
        assert_eq!(
            Issuers::with_operator_file("").unwrap_err().to_string(),
            format!("line 1: the file is empty; begin with the header `{HEADER}`"),
        );
        assert_eq!(
            Issuers::with_operator_file("prefix,length").unwrap_err().to_string(),
            format!("line 1: there is no column `bank_zh`; the header is `{HEADER}`"),
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_reading_panic(csv: String, row: String) {
            let _ = Issuers::with_operator_file(&csv);
            let _ = operator(&row);
        }

        #[test]
        fn look_up_agrees_with_trying_every_row(card in "62[0-9]{11,17}") {
            let issuers = Issuers::built_in();
            prop_assume!(CardNumber::parse(&card).is_some());
            let best = (issuers.all().iter())
                .filter(|issuer| card.starts_with(&issuer.prefix))
                .filter(|issuer| issuer.length.is_none_or(|length| length as usize == card.len()))
                .max_by_key(|issuer| (issuer.prefix.len(), issuer.length));
            prop_assert_eq!(issuers.lookup(&CardNumber::parse(&card).unwrap()), best);
        }
    }
}
