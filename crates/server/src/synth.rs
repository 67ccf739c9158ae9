//! `card4e synth`: accounts of people who do not exist, and questions about them.
//!
//! Everything follows from the seed and an account's number, so any part of a file can be made again.
//! Nobody can be meant: identity numbers are of province 99, which does not exist, mobiles of the
//! range 161, which is not allocated. Cards have prefixes of real banks and right check digits, so
//! that issuers are found; never the prefix of the sandbox's test cards.

mod names;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use engine::account::{AccountState, DocumentKind};
use engine::issuer::{Issuer, Issuers};
use engine::outcome::Outcome;

/// Cards that differ in nine digits after the prefix.
const ACCOUNTS_MAX: u64 = 1_000_000_000;

/// `card4e synth`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e synth --accounts 1000000 --seed 7 --out accounts.csv --claims claims.csv
  card4e synth --accounts 100000 | card4e import accounts --data ./card4e-data -

An installation takes their identity numbers only with test_land = true; a sandbox does.")]
pub struct Options {
    /// How many accounts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ACCOUNTS_MAX))]
    pub accounts: u64,

    /// The same seed gives the same people.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub seed: u64,

    /// Where to write accounts; by default to standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Write questions about these accounts too, right and wrong, with the outcome of each.
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,

    /// How many questions; by default one an account.
    #[arg(long, value_name = "N", requires = "claims")]
    pub questions: Option<u64>,
}

/// Writes the files.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.out.is_none() || options.out != options.claims, "--out and --claims are the same file");
    let land = Land::new(options.seed);
    let mut out: Box<dyn Write> = match &options.out {
        Some(path) => Box::new(create(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    land.write_accounts(options.accounts, &mut out).or_else(unread)?;
    if let Some(path) = &options.claims {
        let questions = options.questions.unwrap_or(options.accounts);
        land.write_claims(questions, options.accounts, &mut create(path)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// A reader that has seen enough, such as `head`, is no error.
fn unread(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Somebody's account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    card: String,
    name: String,
    kind: &'static str,
    id: String,
    mobile: String,
    state: &'static str,
}

/// A question and its answer in the default order of decisions.
struct Question {
    card: String,
    name: String,
    id: String,
    mobile: String,
    outcome: Outcome,
}

/// What of ten thousand accounts is in which state; the rest is normal.
const STATES: [(AccountState, u64); 10] = [
    (AccountState::Closed, 200),
    (AccountState::Inactive, 120),
    (AccountState::Expired, 80),
    (AccountState::Lost, 60),
    (AccountState::CnpDisabled, 50),
    (AccountState::Restricted, 40),
    (AccountState::PinLocked, 25),
    (AccountState::Abnormal, 15),
    (AccountState::Fraud, 6),
    (AccountState::Seized, 4),
];

/// All of its people.
struct Land {
    seed: u64,
    issuers: Vec<Issuer>,
}

/// What a number is drawn for. The draws of an account do not depend on one another.
#[derive(Clone, Copy)]
enum For {
    Issuer,
    Name,
    Birth,
    Sequence,
    Mobile,
    State,
    Kind,
    Question,
    Wrong,
}

impl Land {
    fn new(seed: u64) -> Land {
        let usable = |issuer: &&Issuer| {
            // Of one length of prefix, so that none lies inside another.
            issuer.prefix.len() == 6
                && issuer.length.is_some_and(|length| length >= 16)
                && issuer.verifies
                && issuer.phone_checked
                && issuer.prefix != "620000"
        };
        Land { seed, issuers: Issuers::built_in().all().iter().filter(usable).cloned().collect() }
    }

    /// SplitMix64 of what is asked.
    fn draw(&self, number: u64, what: For) -> u64 {
        let mix = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        mix(mix(self.seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(mix(number << 8 | what as u64)))
    }

    fn account(&self, number: u64) -> Account {
        // One in eight people has two cards.
        let person = if number % 8 == 7 { number - 1 } else { number };
        let of_ten_thousand = self.draw(person, For::Kind) % 10_000;
        let kind = match of_ten_thousand {
            0..60 => DocumentKind::Passport,
            60..100 => DocumentKind::HkMacauPermit,
            100..130 => DocumentKind::TaiwanPermit,
            130..170 => DocumentKind::ResidencePermit,
            170..180 => DocumentKind::ForeignPermanent,
            180..190 => DocumentKind::Soldier,
            _ => DocumentKind::ResidentId,
        };
        let has_mobile = !self.draw(number, For::Mobile).is_multiple_of(50);
        Account {
            card: self.card(number),
            name: names::name(self.draw(person, For::Name)),
            kind: kind.word(),
            id: if kind.counts_as_resident_id() {
                self.id(person)
            } else {
                format!("T{:09}", self.draw(person, For::Sequence) % 1_000_000_000)
            },
            mobile: if has_mobile { self.mobile(person) } else { String::new() },
            state: self.state(number).word(),
        }
    }

    fn card(&self, number: u64) -> String {
        let issuer = &self.issuers[(self.draw(number, For::Issuer) % self.issuers.len() as u64) as usize];
        let digits = usize::from(issuer.length.unwrap_or(16)) - issuer.prefix.len() - 1;
        // A step that has no factor in common with 10 visits every number once: no card twice.
        let scattered =
            (number.wrapping_mul(387_420_489).wrapping_add(self.seed % ACCOUNTS_MAX)) % ACCOUNTS_MAX;
        let mut card = format!("{}{scattered:0digits$}", issuer.prefix);
        card.push(luhn_digit(&card));
        card
    }

    fn id(&self, person: u64) -> String {
        let birth = self.draw(person, For::Birth);
        let (year, month, day) = (1945 + birth % 63, 1 + (birth >> 8) % 12, 1 + (birth >> 16) % 28);
        let county = 101 + (birth >> 24) % 20;
        let mut id =
            format!("990{county:03}{year}{month:02}{day:02}{:03}", self.draw(person, For::Sequence) % 995);
        id.push(check_character(&id));
        id
    }

    fn mobile(&self, person: u64) -> String {
        format!("161{:08}", (self.draw(person, For::Mobile) >> 8) % 100_000_000)
    }

    fn state(&self, number: u64) -> AccountState {
        let mut drawn = self.draw(number, For::State) % 10_000;
        for (state, share) in STATES {
            if drawn < share {
                return state;
            }
            drawn -= share;
        }
        AccountState::Normal
    }

    fn write_accounts(&self, accounts: u64, out: &mut dyn Write) -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 18, out);
        writeln!(out, "bank_card,name,id_type,id_number,phone,status")?;
        for number in 0..accounts {
            let Account { card, name, kind, id, mobile, state } = self.account(number);
            writeln!(out, "{card},{name},{kind},{id},{mobile},{state}")?;
        }
        out.flush()
    }

    /// Seven in ten as the holder would ask, the others with one element wrong or an unknown card.
    fn question(&self, number: u64, accounts: u64) -> Question {
        let of = self.draw(number, For::Question) % accounts;
        let Account { card, name, kind, mut id, mobile, state } = self.account(of);
        let kind = DocumentKind::from_word(kind).unwrap_or(DocumentKind::Other);
        // A form asks for an identity number and a mobile, whatever the bank has on file.
        if !kind.counts_as_resident_id() {
            id = self.id(of);
        }
        let has_mobile = !mobile.is_empty();
        let mobile = self.mobile(of - u64::from(of % 8 == 7));
        let mut question = Question { card, name, id, mobile, outcome: Outcome::Pass };
        let wrong = self.draw(number, For::Wrong);
        let other = of.wrapping_add(2 + wrong % 5) | 1 << 40;
        match wrong >> 8 & 1023 {
            0..80 => question.name.insert(0, '钟'),
            80..160 => question.id = self.id(other),
            160..260 => question.mobile = self.mobile(other),
            260..300 => question.card = self.card(accounts + of % (ACCOUNTS_MAX - accounts).max(1)),
            _ => {}
        }
        let is_right = wrong >> 8 & 1023 >= 300;
        let state = AccountState::from_word(state).and_then(AccountState::decision);
        question.outcome = match (wrong >> 8 & 1023, state) {
            (260..300, _) => Outcome::PanInvalid,
            (_, Some((outcome, _))) => outcome,
            _ if is_right && has_mobile && kind.counts_as_resident_id() => Outcome::Pass,
            _ => Outcome::HolderMismatch,
        };
        question
    }

    fn write_claims(&self, questions: u64, accounts: u64, out: &mut dyn Write) -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 18, out);
        writeln!(out, "bank_card,name,id_number,phone,outcome")?;
        for number in 0..questions {
            let Question { card, name, id, mobile, outcome } = self.question(number, accounts);
            writeln!(out, "{card},{name},{id},{mobile},{}", outcome.name())?;
        }
        out.flush()
    }
}

/// The digit that makes a card number right by Luhn.
fn luhn_digit(card: &str) -> char {
    let sum: u32 = (card.bytes().rev().enumerate())
        .map(|(from_right, digit)| {
            let digit = u32::from(digit - b'0') * if from_right % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    char::from(b'0' + ((10 - sum % 10) % 10) as u8)
}

/// ISO 7064 MOD 11-2: the 17 digits read in base 13, n; the character is 1 - 2n modulo 11.
pub fn check_character(id: &str) -> char {
    let n = id.bytes().fold(0, |n, digit| (n * 13 + u32::from(digit - b'0')) % 11);
    match (1 + 2 * 11 - 2 * n) % 11 {
        10 => 'X',
        digit => char::from(b'0' + digit as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::account::AccountText;
    use engine::caller::Action;
    use engine::claim::Claim;
    use engine::subject::{CardNumber, Date, ParseOptions, Subject};
    use engine::vault::{KeyRing, Vault};
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn options() -> ParseOptions {
        ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2025, 6, 1).unwrap()) }
    }

    proptest! {
        #[test]
        fn everybody_can_be_stored_and_asked_about(seed: u64, number in 0..ACCOUNTS_MAX) {
            let land = Land::new(seed);
            let account = land.account(number);
            prop_assert_eq!(&account, &land.account(number));
            let text = AccountText {
                card: &account.card, name: &account.name, kind: account.kind, id: &account.id,
                mobile: &account.mobile, state: account.state, validity: "",
            };
            let vault = Vault::new(&KeyRing::generate());
            prop_assert!(text.row(&options(), &vault).is_ok(), "{:?}", account);
            let card = CardNumber::parse(&account.card).unwrap();
            prop_assert!(card.luhn_valid() && !card.is_test_card());
            prop_assert!(Issuers::built_in().lookup(&card).is_some());
            prop_assert!(account.mobile.is_empty() || account.mobile.starts_with("161"));
            let Question { card, name, id, mobile, .. } = land.question(number, ACCOUNTS_MAX);
            let claim = Claim::new(&name, &card, &id, &mobile, 0);
            prop_assert!(Subject::parse(Action::FourElements, &claim, &options()).is_ok());
        }
    }

    #[test]
    fn cards_differ_and_every_state_and_kind_is_there() {
        let land = Land::new(7);
        let accounts: Vec<_> = (0..50_000).map(|number| land.account(number)).collect();
        let cards: HashSet<_> = accounts.iter().map(|account| &account.card).collect();
        assert_eq!(cards.len(), accounts.len());
        let mut states: HashMap<_, u32> = HashMap::new();
        accounts.iter().for_each(|account| *states.entry(account.state).or_default() += 1);
        assert_eq!(states.len(), AccountState::ALL.len());
        assert!((46_500..47_500).contains(&states["normal"]), "{states:?}");
        for has in ["·", "𠅤", " "] {
            assert!(accounts.iter().any(|account| account.name.contains(has)), "no name with {has:?}");
        }
        assert!(accounts.iter().any(|account| account.kind == "passport"));
        assert_eq!(accounts[6].id, accounts[7].id, "one person, two cards");
    }

    #[test]
    fn questions_are_right_and_wrong() {
        let land = Land::new(7);
        let mut outcomes: HashMap<_, u32> = HashMap::new();
        (0..10_000)
            .for_each(|at| *outcomes.entry(land.question(at, 10_000).outcome.name()).or_default() += 1);
        assert!(outcomes["PASS"] > 6000 && outcomes["HOLDER_MISMATCH"] > 2000, "{outcomes:?}");
        assert!(outcomes["PAN_INVALID"] > 300 && outcomes["CARD_LOST"] > 20, "{outcomes:?}");
    }
}
