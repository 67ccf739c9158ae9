//! What a verification can find out: the pivot between every wire and every source.
//!
//! A wire's number never meets another wire's number: each is projected from an [`Outcome`]
//! (`projection.rs`). The order in which outcomes are found is the [`DECISIONS`] table, from which
//! `docs/decision-table.md` is generated.

use serde::{Deserialize, Serialize};

/// The answer to a question, whichever it was. What each action can answer is in
/// [`Action::outcomes`](crate::action::Action::outcomes).
///
/// The discriminants are written into audit records: never renumber, only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// All elements belong together and the card may be used; or what was asked for was found.
    Pass,
    /// Holder name, identity number or mobile differs from the record.
    HolderMismatch,
    /// A source refused without saying why, or with a word nobody knows: fail closed.
    Declined,
    /// The holder name is not a name.
    NameInvalid,
    /// The identity number is not one: length, check digit, date or province.
    IdInvalid,
    /// A document kind that cannot be verified (anything but the 18-digit resident identity card).
    DocUnsupported,
    /// The card number is not 13 to 19 digits.
    PanMalformed,
    /// The mobile number is not a Chinese mobile number.
    PhoneInvalid,
    /// Too many attempts on one of the elements today.
    AttemptsExceeded,
    /// No issuer is known for the card number and the policy says so.
    IssuerUnknown,
    /// The issuer does not take part in verification.
    IssuerUnsupported,
    /// The issuer cannot check the mobile number.
    PhoneUncheckable,
    /// No source answered in time.
    SourceBusy,
    /// No such account, or it is closed, or the check digit is wrong.
    PanInvalid,
    /// Confiscated or reported stolen.
    CardSeized,
    /// Marked as fraudulent.
    CardFraud,
    /// Reported lost.
    CardLost,
    /// Past its expiry.
    CardExpired,
    /// Restricted, frozen or black-listed.
    CardRestricted,
    /// Too many wrong PINs.
    CardPinLocked,
    /// Never activated, or dormant.
    CardInactive,
    /// Card-not-present payment is switched off.
    CnpDisabled,
    /// Any other state that is not normal.
    CardAbnormal,
    /// Nobody is on record with this identity number or mobile.
    NoRecord,
    /// A source failed.
    SourceError,
    /// A source is being upgraded.
    SourceUpgrading,
    /// Cards of this kind are not served.
    KindUnsupported,
    /// Mobile numbers of this range cannot be verified.
    NumberRange,
}

/// What an outcome means for the caller's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The elements belong together.
    Pass,
    /// They do not, or the card must not be used.
    Mismatch,
    /// It cannot be told; asking again will not help.
    Unverifiable,
    /// The input could never have been verified.
    RejectedInput,
    /// Ask again later.
    Retryable,
}

use Class as C;
use Outcome as O;

impl Outcome {
    /// Every outcome, in the order of the discriminants.
    pub const ALL: [Outcome; 28] = [
        O::Pass,
        O::HolderMismatch,
        O::Declined,
        O::NameInvalid,
        O::IdInvalid,
        O::DocUnsupported,
        O::PanMalformed,
        O::PhoneInvalid,
        O::AttemptsExceeded,
        O::IssuerUnknown,
        O::IssuerUnsupported,
        O::PhoneUncheckable,
        O::SourceBusy,
        O::PanInvalid,
        O::CardSeized,
        O::CardFraud,
        O::CardLost,
        O::CardExpired,
        O::CardRestricted,
        O::CardPinLocked,
        O::CardInactive,
        O::CnpDisabled,
        O::CardAbnormal,
        O::NoRecord,
        O::SourceError,
        O::SourceUpgrading,
        O::KindUnsupported,
        O::NumberRange,
    ];

    /// What it means for the caller's next step.
    pub const fn class(self) -> Class {
        match self {
            O::Pass => C::Pass,
            O::HolderMismatch
            | O::Declined
            | O::PanInvalid
            | O::CardSeized
            | O::CardFraud
            | O::CardLost
            | O::CardExpired
            | O::CardRestricted
            | O::CardPinLocked
            | O::CardInactive
            | O::CnpDisabled
            | O::CardAbnormal => C::Mismatch,
            O::IssuerUnknown
            | O::IssuerUnsupported
            | O::PhoneUncheckable
            | O::NoRecord
            | O::KindUnsupported
            | O::NumberRange => C::Unverifiable,
            O::NameInvalid | O::IdInvalid | O::DocUnsupported | O::PanMalformed | O::PhoneInvalid => {
                C::RejectedInput
            }
            O::SourceBusy | O::AttemptsExceeded | O::SourceError | O::SourceUpgrading => C::Retryable,
        }
    }

    /// Whether an answer with this outcome is charged, unless the action says otherwise
    /// ([`Action::charges`](crate::action::Action::charges)).
    ///
    /// Follows the meaning, never a number: rejected input and retryable answers are free, and so is an
    /// answer that says nothing about anybody.
    pub const fn billable(self) -> bool {
        let nothing_said = matches!(self, O::NoRecord | O::KindUnsupported | O::NumberRange);
        !matches!(self.class(), C::RejectedInput | C::Retryable) && !nothing_said
    }

    /// The class's name where a program reads it.
    pub const fn class_name(self) -> &'static str {
        match self.class() {
            C::Pass => "pass",
            C::Mismatch => "mismatch",
            C::Unverifiable => "unverifiable",
            C::RejectedInput => "rejected_input",
            C::Retryable => "retryable",
        }
    }

    /// The name used in headers, configuration, journals and documentation.
    pub const fn name(self) -> &'static str {
        match self {
            O::Pass => "PASS",
            O::HolderMismatch => "HOLDER_MISMATCH",
            O::Declined => "DECLINED",
            O::NameInvalid => "NAME_INVALID",
            O::IdInvalid => "ID_INVALID",
            O::DocUnsupported => "DOC_UNSUPPORTED",
            O::PanMalformed => "PAN_MALFORMED",
            O::PhoneInvalid => "PHONE_INVALID",
            O::AttemptsExceeded => "ATTEMPTS_EXCEEDED",
            O::IssuerUnknown => "ISSUER_UNKNOWN",
            O::IssuerUnsupported => "ISSUER_UNSUPPORTED",
            O::PhoneUncheckable => "PHONE_UNCHECKABLE",
            O::SourceBusy => "SOURCE_BUSY",
            O::PanInvalid => "PAN_INVALID",
            O::CardSeized => "CARD_SEIZED",
            O::CardFraud => "CARD_FRAUD",
            O::CardLost => "CARD_LOST",
            O::CardExpired => "CARD_EXPIRED",
            O::CardRestricted => "CARD_RESTRICTED",
            O::CardPinLocked => "CARD_PIN_LOCKED",
            O::CardInactive => "CARD_INACTIVE",
            O::CnpDisabled => "CNP_DISABLED",
            O::CardAbnormal => "CARD_ABNORMAL",
            O::NoRecord => "NO_RECORD",
            O::SourceError => "SOURCE_ERROR",
            O::SourceUpgrading => "SOURCE_UPGRADING",
            O::KindUnsupported => "KIND_UNSUPPORTED",
            O::NumberRange => "NUMBER_RANGE",
        }
    }

    /// What it means, for people; a sentence without its full stop.
    pub const fn sentence(self) -> &'static str {
        match self {
            O::Pass => "the elements belong together",
            O::HolderMismatch => "name, identity number or mobile differs from the bank's",
            O::Declined => "refused without a reason",
            O::NameInvalid => "the name is not a name",
            O::IdInvalid => "the identity number is not one",
            O::DocUnsupported => "only resident identity cards of 18 characters can be verified",
            O::PanMalformed => "a card number has 13 to 19 digits",
            O::PhoneInvalid => "the mobile is not a Chinese mobile number",
            O::AttemptsExceeded => "asked too often today",
            O::IssuerUnknown => "no bank is known for the card number",
            O::IssuerUnsupported => "the card's bank does not take part in verification",
            O::PhoneUncheckable => "the card's bank cannot check the mobile",
            O::SourceBusy => "no source answered in time",
            O::PanInvalid => "there is no such account, or it is closed",
            O::CardSeized => "the card is confiscated or reported stolen",
            O::CardFraud => "the card is marked as fraudulent",
            O::CardLost => "the card is reported lost",
            O::CardExpired => "the card has expired",
            O::CardRestricted => "the card is restricted or frozen",
            O::CardPinLocked => "the card is locked after too many wrong PINs",
            O::CardInactive => "the card was never activated, or is dormant",
            O::CnpDisabled => "payment without the card present is switched off",
            O::CardAbnormal => "the card is in some state that is not normal",
            O::NoRecord => "nobody is on record with this identity number or mobile",
            O::SourceError => "a source failed",
            O::SourceUpgrading => "a source is being upgraded",
            O::KindUnsupported => "cards of this kind are not served",
            O::NumberRange => "mobile numbers of this range cannot be verified",
        }
    }

    /// The outcome of that name, exactly spelled.
    pub fn named(name: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// More than the outcome tells. Told only to applications with an entitlement of its own: whoever
/// learns which element differs can guess one at a time.
///
/// The discriminants are written into audit records: never renumber, only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The holder name differs.
    NameDiffers,
    /// The identity number differs.
    IdDiffers,
    /// The mobile number differs.
    PhoneDiffers,
    /// The account was opened with another kind of document.
    DocumentDiffers,
    /// The bank has no mobile on file.
    PhoneAbsent,
    /// There is no such account.
    AccountAbsent,
    /// The account is closed.
    AccountClosed,
}

/// Which row of [`DECISIONS`] gave the answer; kept in the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Row(pub u8);

impl Row {
    /// Not a row of the table: the sandbox answered from its script.
    pub const SCRIPT: Row = Row(0);
    /// Not a row of the table either: a pass that was bought before is given again.
    pub const REUSED: Row = Row(37);
}

/// Version of [`DECISIONS`]: it changes when the same facts could be answered otherwise.
pub const POLICY: &str = "decisions-v2";

/// One row of the decision table.
pub struct Decision {
    /// Position; the first row whose fact holds gives the answer.
    pub row: Row,
    /// Where in a verification it is looked at.
    pub stage: &'static str,
    /// What has to hold.
    pub fact: &'static str,
    /// What is answered then.
    pub outcome: Outcome,
    /// Why it stands here.
    pub why: &'static str,
}

/// The rows of the other actions, which come after rows 1 to 6; numbered on, and read like the first
/// table: of those that can be answered to an action, the first that holds wins.
pub const FAMILY_DECISIONS: [Decision; 11] = [
    row(
        26,
        "routing",
        "no issuer is known for the prefix",
        O::IssuerUnknown,
        "`bankcard-1e` is answered from the issuer table",
    ),
    row(
        27,
        "routing",
        "the issuer's row says that its cards are not verified here",
        O::KindUnsupported,
        "an operator's way to leave cards out",
    ),
    row(
        28,
        "account",
        "the check digit fails and there is no such account",
        O::PanInvalid,
        "a slip in typing; nothing else about accounts is told here, so that nobody can enumerate them for free",
    ),
    row(
        29,
        "routing",
        "no source covers mobiles of this range",
        O::NumberRange,
        "accounts of record cover all ranges: only a provider says so",
    ),
    row(30, "source", "a source failed", O::SourceError, "never a pass, never a charge"),
    row(31, "source", "a source is being upgraded", O::SourceUpgrading, "never a pass, never a charge"),
    row(
        32,
        "records",
        "no open account has this identity number, or this mobile",
        O::NoRecord,
        "says nothing about anybody, so it is free",
    ),
    row(
        33,
        "elements",
        "no record with this identity number, or this mobile, has the other elements",
        O::HolderMismatch,
        "all records are always compared; which element differs is not told",
    ),
    row(
        34,
        "elements",
        "the validity of the identity card is asked about, and the records that fit have none",
        O::NoRecord,
        "never silently two elements instead of three",
    ),
    row(35, "source", "no source answered in time", O::SourceBusy, "never a pass, never a charge"),
    row(36, "-", "otherwise", O::Pass, ""),
];

const fn row(
    row: u8,
    stage: &'static str,
    fact: &'static str,
    outcome: Outcome,
    why: &'static str,
) -> Decision {
    Decision { row: Row(row), stage, fact, outcome, why }
}

/// The order of decisions about a card's holder: the first row that holds wins, and the last always
/// holds. Rows 1 to 6 are looked at for every action, as far as it takes the element.
///
/// No provider publishes which code wins when several facts hold; this table is card4e's promise.
/// With `privacy_order` rows 10 to 19 are looked at after rows 20 to 23, and rows 10 answers
/// HOLDER_MISMATCH, so that the state of a card is told only to somebody who knows its holder.
pub const DECISIONS: [Decision; 25] = [
    row(
        1,
        "format",
        "the name is not a name after `name-v1`",
        O::NameInvalid,
        "the order of the published numbers: name, identity number, card, phone",
    ),
    row(
        2,
        "format",
        "document kind other than 0, a 15-digit first-generation number, or another recognised document",
        O::DocUnsupported,
        "the published text: only the second-generation identity card",
    ),
    row(
        3,
        "format",
        "identity number is not 18 characters, or check digit, date or province is impossible",
        O::IdInvalid,
        "only the province is checked: county codes are abolished but stay in issued numbers",
    ),
    row(
        4,
        "format",
        "card number is not 13 to 19 digits",
        O::PanMalformed,
        "the check digit is not part of the format: genuine cards fail Luhn",
    ),
    row(
        5,
        "format",
        "mobile is not 11 digits `1[3-9]…`",
        O::PhoneInvalid,
        "prefixes tell neither operator nor allocation any more",
    ),
    row(
        6,
        "limits",
        "an attempt counter of the card, the pair or an element is used up",
        O::AttemptsExceeded,
        "before any look-up, so that it cannot be used as an oracle; malformed input never counts",
    ),
    row(
        7,
        "routing",
        "no issuer for the prefix, no record, policy `issuer_unknown`",
        O::IssuerUnknown,
        "answered by the switch, before an issuer looks",
    ),
    row(
        8,
        "routing",
        "the issuer does not take part in verification",
        O::IssuerUnsupported,
        "answered by the switch, before an issuer looks",
    ),
    row(9, "source", "no source answered in time", O::SourceBusy, "never a pass, never a charge"),
    row(
        10,
        "account",
        "no such account, closed, or no record and the check digit fails",
        O::PanInvalid,
        "field 39 = 14 covers all three",
    ),
    row(11, "status", "confiscated or stolen", O::CardSeized, "capture class first"),
    row(12, "status", "fraud mark", O::CardFraud, "capture class"),
    row(13, "status", "reported lost", O::CardLost, "capture class"),
    row(14, "status", "expired", O::CardExpired, "terminal"),
    row(
        15,
        "status",
        "restricted, frozen or black-listed",
        O::CardRestricted,
        "terminal until the bank lifts it",
    ),
    row(16, "status", "too many wrong PINs", O::CardPinLocked, "the holder can cure it"),
    row(17, "status", "not activated, or dormant", O::CardInactive, "the holder can cure it"),
    row(
        18,
        "status",
        "card-not-present payment is off",
        O::CnpDisabled,
        "a service flag, after the card's own state",
    ),
    row(19, "status", "any other state that is not normal", O::CardAbnormal, "makes the table total"),
    row(
        20,
        "elements",
        "the account was opened with another kind of document",
        O::HolderMismatch,
        "field 39 = 05: document kind differs",
    ),
    row(
        21,
        "elements",
        "the record has no mobile",
        O::HolderMismatch,
        "filed under \"inconsistent\" in the field",
    ),
    row(
        22,
        "elements",
        "the issuer cannot check the mobile",
        O::PhoneUncheckable,
        "never silently three elements instead of four",
    ),
    row(
        23,
        "elements",
        "name, identity number or mobile differs (all three are always compared)",
        O::HolderMismatch,
        "which one differs is not told",
    ),
    row(24, "source", "a source refused without cause or with an unknown code", O::Declined, "fail closed"),
    row(25, "-", "otherwise", O::Pass, ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_in_order_and_names_are_found_again() {
        for (index, decision) in DECISIONS.iter().chain(&FAMILY_DECISIONS).enumerate() {
            assert_eq!(decision.row.0 as usize, index + 1);
        }
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
            assert_eq!(Outcome::named(outcome.name()), Some(outcome));
        }
        assert_eq!(Outcome::named("pass"), None);
    }
}
