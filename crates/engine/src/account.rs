//! What a bank's record says besides the four elements: the document shown when the account was
//! opened, and the state of the card.
//!
//! Both are words in an import file and one byte in the store. Numbers for kinds of document are
//! in use in the field and differ between vendors, so they are not used here.

use zeroize::Zeroizing;

use crate::action::Action;
use crate::outcome::{Outcome, Row};
use crate::store::{AccountRow, Person};
use crate::subject::{
    CardNumber, HolderName, Mobile, ParseOptions, ResidentId, Validity, canonical, is_test_card,
};
use crate::vault::{BlindIndex, Elements, Keys, Vault, Verifiers};

/// The kind of document an account was opened with. The codes are stored: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DocumentKind {
    /// The resident identity card, 18 characters (or 15, in old records).
    ResidentId = 0,
    /// A passport.
    Passport = 1,
    /// The permit with which people from Hong Kong and Macau travel to the mainland.
    HkMacauPermit = 2,
    /// The permit with which people from Taiwan travel to the mainland.
    TaiwanPermit = 3,
    /// The residence permit for people from Hong Kong, Macau or Taiwan: 18 characters beginning
    /// with 81, 82 or 83.
    ResidencePermit = 4,
    /// The card of a foreigner with permanent residence.
    ForeignPermanent = 5,
    /// The card of an officer of the armed forces.
    Officer = 6,
    /// The card of a soldier.
    Soldier = 7,
    /// The card of a police officer.
    Police = 8,
    /// Anything else.
    Other = 9,
}

impl DocumentKind {
    /// Every kind, in the order of the codes.
    pub const ALL: [DocumentKind; 10] = [
        DocumentKind::ResidentId,
        DocumentKind::Passport,
        DocumentKind::HkMacauPermit,
        DocumentKind::TaiwanPermit,
        DocumentKind::ResidencePermit,
        DocumentKind::ForeignPermanent,
        DocumentKind::Officer,
        DocumentKind::Soldier,
        DocumentKind::Police,
        DocumentKind::Other,
    ];

    /// The kind an import names by that word, blanks at the ends aside; no word is a resident
    /// identity card.
    pub fn from_word(word: &str) -> Option<DocumentKind> {
        match word.trim() {
            "" => Some(DocumentKind::ResidentId),
            word => DocumentKind::ALL.into_iter().find(|kind| kind.word() == word),
        }
    }

    /// The word for it in import files and documentation.
    pub const fn word(self) -> &'static str {
        match self {
            DocumentKind::ResidentId => "resident_id",
            DocumentKind::Passport => "passport",
            DocumentKind::HkMacauPermit => "hk_macau_permit",
            DocumentKind::TaiwanPermit => "taiwan_permit",
            DocumentKind::ResidencePermit => "residence_permit",
            DocumentKind::ForeignPermanent => "foreign_permanent",
            DocumentKind::Officer => "officer",
            DocumentKind::Soldier => "soldier",
            DocumentKind::Police => "police",
            DocumentKind::Other => "other",
        }
    }

    /// The byte stored for it.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind stored as that byte.
    pub fn from_code(code: u8) -> Option<DocumentKind> {
        DocumentKind::ALL.get(code as usize).copied()
    }

    /// Whether its number can be compared with the resident identity number of a claim: a
    /// residence permit's number has the same form and is given in the same place.
    pub const fn counts_as_resident_id(self) -> bool {
        matches!(self, DocumentKind::ResidentId | DocumentKind::ResidencePermit)
    }
}

/// The state of a card. The codes are stored: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccountState {
    /// May be used.
    Normal = 0,
    /// Confiscated, or reported stolen.
    Seized = 1,
    /// Marked as fraudulent.
    Fraud = 2,
    /// Reported lost.
    Lost = 3,
    /// Past its expiry.
    Expired = 4,
    /// Restricted, frozen or black-listed.
    Restricted = 5,
    /// Too many wrong PINs.
    PinLocked = 6,
    /// Not activated, or dormant.
    Inactive = 7,
    /// Card-not-present payment is switched off.
    CnpDisabled = 8,
    /// Any other state that is not normal.
    Abnormal = 9,
    /// Closed: as if there were no such account.
    Closed = 10,
}

impl AccountState {
    /// Every state, in the order of the codes.
    pub const ALL: [AccountState; 11] = [
        AccountState::Normal,
        AccountState::Seized,
        AccountState::Fraud,
        AccountState::Lost,
        AccountState::Expired,
        AccountState::Restricted,
        AccountState::PinLocked,
        AccountState::Inactive,
        AccountState::CnpDisabled,
        AccountState::Abnormal,
        AccountState::Closed,
    ];

    /// The state an import names by that word, blanks at the ends aside; no word is normal.
    pub fn from_word(word: &str) -> Option<AccountState> {
        match word.trim() {
            "" => Some(AccountState::Normal),
            word => AccountState::ALL.into_iter().find(|state| state.word() == word),
        }
    }

    /// The word for it in import files and documentation.
    pub const fn word(self) -> &'static str {
        match self {
            AccountState::Normal => "normal",
            AccountState::Seized => "seized",
            AccountState::Fraud => "fraud",
            AccountState::Lost => "lost",
            AccountState::Expired => "expired",
            AccountState::Restricted => "restricted",
            AccountState::PinLocked => "pin_locked",
            AccountState::Inactive => "inactive",
            AccountState::CnpDisabled => "cnp_disabled",
            AccountState::Abnormal => "abnormal",
            AccountState::Closed => "closed",
        }
    }

    /// The byte stored for it.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state stored as that byte.
    pub fn from_code(code: u8) -> Option<AccountState> {
        AccountState::ALL.get(code as usize).copied()
    }

    /// What the state alone decides, and in which row of
    /// [`DECISIONS`](crate::outcome::DECISIONS) (10 to 19); nothing if it is normal.
    pub const fn decision(self) -> Option<(Outcome, Row)> {
        Some(match self {
            AccountState::Normal => return None,
            AccountState::Closed => (Outcome::PanInvalid, Row(10)),
            AccountState::Seized => (Outcome::CardSeized, Row(11)),
            AccountState::Fraud => (Outcome::CardFraud, Row(12)),
            AccountState::Lost => (Outcome::CardLost, Row(13)),
            AccountState::Expired => (Outcome::CardExpired, Row(14)),
            AccountState::Restricted => (Outcome::CardRestricted, Row(15)),
            AccountState::PinLocked => (Outcome::CardPinLocked, Row(16)),
            AccountState::Inactive => (Outcome::CardInactive, Row(17)),
            AccountState::CnpDisabled => (Outcome::CnpDisabled, Row(18)),
            AccountState::Abnormal => (Outcome::CardAbnormal, Row(19)),
        })
    }
}

/// One account as somebody hands it over: text of the import columns, not yet checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountText<'a> {
    /// Column `bank_card`.
    pub card: &'a str,
    /// Column `name`.
    pub name: &'a str,
    /// Column `id_type`.
    pub kind: &'a str,
    /// Column `id_number`.
    pub id: &'a str,
    /// Column `phone`; empty: the bank has none on file.
    pub mobile: &'a str,
    /// Column `status`.
    pub state: &'a str,
    /// Column `id_validity`; empty: not on file.
    pub validity: &'a str,
}

/// Why an account is not taken. Names the column, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not 13 to 19 digits.
    #[error("bank_card: not 13 to 19 digits")]
    Card,
    /// Cards of the sandbox's own prefix.
    #[error("bank_card: 620000 is reserved for test cards")]
    TestCard,
    /// Not a name after canonicalisation.
    #[error("name: not a name of 1 to 50 letters")]
    Name,
    /// A word nobody knows.
    #[error(
        "id_type: unknown; use one of resident_id, passport, hk_macau_permit, taiwan_permit, residence_permit, foreign_permanent, officer, soldier, police, other"
    )]
    Kind,
    /// Not an identity number of its kind.
    #[error("id_number: not a number of that document: length, check digit, date or province")]
    Id,
    /// Not a mobile number.
    #[error("phone: not a mobile number")]
    Mobile,
    /// A word nobody knows.
    #[error(
        "status: unknown; use one of normal, seized, fraud, lost, expired, restricted, pin_locked, inactive, cnp_disabled, abnormal, closed"
    )]
    State,
    /// Not two days.
    #[error("id_validity: not YYYYMMDD-YYYYMMDD, or YYYYMMDD-00000000 for one without end")]
    Validity,
}

/// One account as somebody hands it over, checked.
pub struct Account<'a>(Checked<'a>);

enum Checked<'a> {
    /// Each element is written as it is compared already, as nearly all are: nothing was copied.
    AsWritten {
        elements: Elements<'a>,
        kind: DocumentKind,
        state: AccountState,
    },
    Parsed(Box<Parsed>),
}

struct Parsed {
    card: CardNumber,
    name: HolderName,
    kind: DocumentKind,
    id: Zeroizing<String>,
    mobile: Option<Mobile>,
    state: AccountState,
    validity: Option<Validity>,
}

impl<'a> AccountText<'a> {
    /// Checks the text and makes the row that is stored; no plaintext survives in it.
    pub fn row(&self, options: &ParseOptions, vault: &Vault) -> Result<AccountRow, AccountError> {
        let (account, keys) = (self.read(options)?, vault.keys());
        let [index] = keys.index_many([account.elements().card].into_iter(), keys.accounts())[..] else {
            return Err(AccountError::Card);
        };
        let verifiers = keys.verifiers(&account.elements(), keys.accounts());
        Ok(account.row(index, verifiers, options, &keys))
    }

    /// Checks the text.
    pub fn read(&self, options: &ParseOptions) -> Result<Account<'a>, AccountError> {
        self.as_written(options).map_or_else(|| self.read_copied(options), |account| Ok(Account(account)))
    }

    /// The same for an account that outlives the text.
    pub fn read_copied(&self, options: &ParseOptions) -> Result<Account<'static>, AccountError> {
        self.parsed(options).map(|parsed| Account(Checked::Parsed(Box::new(parsed))))
    }

    /// The account where it needs no other form; of all others, right or wrong, nothing.
    fn as_written(&self, options: &ParseOptions) -> Option<Checked<'a>> {
        let AccountText { card, name, id, mobile, .. } = *self;
        let [card, name, id, mobile] = [card, name, id, mobile].map(str::as_bytes);
        let claimed = Elements { card, name_exact: name, name_loose: name, id, mobile };
        let elements = canonical(Action::FourElements, &claimed, true, options)?;
        let kind = DocumentKind::from_word(self.kind).filter(|kind| kind.counts_as_resident_id())?;
        let state = AccountState::from_word(self.state)?;
        let is_all = self.validity.is_empty() && !options.element_index;
        let may_be = options.test_land || !is_test_card(card);
        (is_all && may_be).then_some(Checked::AsWritten { elements, kind, state })
    }

    fn parsed(&self, options: &ParseOptions) -> Result<Parsed, AccountError> {
        let card = CardNumber::parse(self.card).ok_or(AccountError::Card)?;
        if card.is_test_card() && !options.test_land {
            return Err(AccountError::TestCard);
        }
        let name = HolderName::parse(self.name, options.more_scripts).ok_or(AccountError::Name)?;
        let kind = DocumentKind::from_word(self.kind).ok_or(AccountError::Kind)?;
        let id = document_number(self.id, kind, options).ok_or(AccountError::Id)?;
        let mobile = match self.mobile.trim() {
            "" => None,
            text => Some(Mobile::parse_lenient(text).ok_or(AccountError::Mobile)?),
        };
        let state = AccountState::from_word(self.state).ok_or(AccountError::State)?;
        let validity = match self.validity.trim() {
            "" => None,
            text => Some(Validity::parse(text).ok_or(AccountError::Validity)?),
        };
        Ok(Parsed { card, name, kind, id, mobile, state, validity })
    }
}

impl Account<'_> {
    /// The rows of many accounts, as [`AccountText::row`] makes them one by one: enciphered side by side.
    pub fn rows(accounts: &[Account<'_>], options: &ParseOptions, keys: &Keys) -> Vec<AccountRow> {
        let elements: Vec<Elements<'_>> = accounts.iter().map(Account::elements).collect();
        let indexes = keys.index_many(elements.iter().map(|of| of.card), keys.accounts());
        let verifiers = keys.verify_many(&elements, keys.accounts());
        let each = accounts.iter().zip(indexes).zip(verifiers);
        each.map(|((account, index), verifiers)| account.row(index, verifiers, options, keys)).collect()
    }

    fn elements(&self) -> Elements<'_> {
        match &self.0 {
            Checked::AsWritten { elements, .. } => *elements,
            Checked::Parsed(parsed) => parsed.elements(),
        }
    }

    fn row(
        &self,
        index: BlindIndex,
        verifiers: Verifiers,
        options: &ParseOptions,
        keys: &Keys,
    ) -> AccountRow {
        let (kind, state, person) = match &self.0 {
            Checked::AsWritten { kind, state, .. } => (*kind, *state, Person::default()),
            Checked::Parsed(parsed) => (parsed.kind, parsed.state, parsed.person(options, keys)),
        };
        let has_mobile = !self.elements().mobile.is_empty();
        let keys = keys.accounts().version;
        AccountRow { is_short: false, index, verifiers, has_mobile, state, kind, keys, person }
    }
}

impl Parsed {
    fn elements(&self) -> Elements<'_> {
        Elements {
            card: self.card.as_bytes(),
            name_exact: self.name.e0(),
            name_loose: self.name.e1(),
            id: self.id.as_bytes(),
            mobile: self.mobile.as_ref().map_or(b"", Mobile::as_bytes),
        }
    }

    /// Its place in the element index, where the operator wants one.
    fn person(&self, options: &ParseOptions, keys: &Keys) -> Person {
        let Parsed { name, kind, id, mobile, validity, .. } = self;
        if !options.element_index {
            return Person::default();
        }
        let newest = keys.accounts();
        Person {
            by_id: kind
                .counts_as_resident_id()
                .then(|| keys.by_id(id, name.e1(), validity.as_ref().map(Validity::as_str), newest)),
            by_mobile: mobile.as_ref().map(|mobile| keys.by_mobile(mobile.as_str(), name.e1(), id, newest)),
        }
    }
}

/// The number as claims are compared with it: a 15-digit one is brought to 18 digits.
fn document_number(text: &str, kind: DocumentKind, options: &ParseOptions) -> Option<Zeroizing<String>> {
    if kind.counts_as_resident_id() {
        let id = ResidentId::parse(text, options.test_land, options.today)
            .or_else(|| ResidentId::upgrade_15(text, options.test_land))?;
        return Some(Zeroizing::new(id.as_str().to_owned()));
    }
    let text = text.trim();
    (!text.is_empty() && text.chars().count() <= 64).then(|| Zeroizing::new(text.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::DECISIONS;
    use crate::store::AccountChange;
    use crate::subject::Date;
    use crate::vault::KeyRing;

    #[test]
    fn words_and_codes_are_found_again() {
        for (code, kind) in DocumentKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.code() as usize, code);
            assert_eq!(DocumentKind::from_code(kind.code()), Some(kind));
            assert_eq!(DocumentKind::from_word(kind.word()), Some(kind));
        }
        for (code, state) in AccountState::ALL.into_iter().enumerate() {
            assert_eq!(state.code() as usize, code);
            assert_eq!(AccountState::from_code(state.code()), Some(state));
            assert_eq!(AccountState::from_word(state.word()), Some(state));
        }
        assert_eq!(DocumentKind::from_word(" "), Some(DocumentKind::ResidentId));
        assert_eq!(AccountState::from_word(""), Some(AccountState::Normal));
        assert_eq!(DocumentKind::from_word("Passport"), None);
        assert_eq!(AccountState::from_word("stolen"), None);
        assert_eq!(DocumentKind::from_code(10), None);
        assert_eq!(AccountState::from_code(11), None);
    }

    /// Whether or not it needs another form, an account comes to the row that its parsed elements come to.
    #[test]
    fn what_is_taken_as_written_is_what_parsing_makes_of_it() {
        let vault = Vault::new(&KeyRing::generate());
        let options = ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2026, 1, 1).unwrap()) };
        let text = AccountText {
            card: "6225768888888888",
            name: "韦小宝",
            id: "990101199001010019",
            mobile: "16137688175",
            ..AccountText::default()
        };
        let one_by_one = |text: &AccountText<'_>, options: &ParseOptions| {
            let parsed = text.parsed(options).ok()?;
            let keys = vault.keys();
            let index = keys.index(parsed.card.as_str(), keys.accounts());
            let verifiers = keys.verifiers(&parsed.elements(), keys.accounts());
            let account = Account(Checked::Parsed(Box::new(parsed)));
            Some(account.row(index, verifiers, options, &keys))
        };
        // It covers the whole row.
        let mac = |row: &AccountRow| match AccountChange::put(row.clone(), &vault) {
            AccountChange::Put(_, mac) => mac,
            _ => unreachable!(),
        };
        let other = [
            text,
            AccountText { card: "6225 7688 8888 8888", ..text },
            AccountText { card: "6200000000000012", ..text },
            AccountText { card: "622576888888888x", ..text },
            AccountText { name: "Wei Xiaobao", ..text },
            AccountText { name: "韦 小宝", ..text },
            AccountText { name: "", ..text },
            AccountText { id: "11010119900307888x", ..text },
            AccountText { id: "990101199001010010", ..text },
            AccountText { kind: "passport", id: "E1234", ..text },
            AccountText { kind: "residence_permit", ..text },
            AccountText { kind: "card", ..text },
            AccountText { mobile: "", ..text },
            AccountText { mobile: "+86 161 3768 8175", ..text },
            AccountText { mobile: "12137688175", ..text },
            AccountText { state: "lost", ..text },
            AccountText { state: "stolen", ..text },
            AccountText { validity: "20200101-20300101", ..text },
            AccountText { validity: "x", ..text },
        ];
        let indexed = ParseOptions { element_index: true, ..options };
        let issued = ParseOptions { test_land: false, ..options };
        for (options, is_quick) in [(options, true), (indexed, false), (issued, false)] {
            assert_eq!(text.as_written(&options).is_some(), is_quick);
            for text in &other {
                let row = text.row(&options, &vault);
                let expected = one_by_one(text, &options);
                assert_eq!(row.as_ref().ok().map(mac), expected.as_ref().map(mac));
                assert_eq!(row.err(), text.parsed(&options).err());
            }
        }
    }

    #[test]
    fn states_decide_what_the_table_says() {
        assert_eq!(AccountState::Normal.decision(), None);
        let mut rows: Vec<u8> = (AccountState::ALL.into_iter())
            .filter_map(AccountState::decision)
            .map(|(outcome, row)| {
                assert_eq!(DECISIONS[row.0 as usize - 1].outcome, outcome);
                row.0
            })
            .collect();
        rows.sort();
        assert_eq!(rows, (10..=19).collect::<Vec<_>>());
    }
}
