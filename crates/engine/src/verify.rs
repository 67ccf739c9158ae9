//! One verification from admission to settlement: the product.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use subtle::Choice;

use crate::caller::{Action, Application, Credential, Purpose, Standing, Wire};
use crate::claim::Claim;
use crate::issuer::Issuer;
use crate::ledger::{Credits, Draft, IdempotencyRef, Recall, Side};
use crate::limit::{AttemptPolicy, AttemptRefs, Rate};
use crate::outcome::{Outcome, Reason, Row};
use crate::settle::{Desk, Settled, Settlement, Writing};
use crate::store::AccountRow;
use crate::subject::{CardNumber, Date, NameClass, ParseOptions, Subject};
use crate::vault::{Elements, Keys, Verifier, Verifiers, nonce};
use crate::{Engine, IssuerPolicy, Policy};

/// Why a question is not answered. Never charged, never written to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The application never activated this service.
    NotActivated,
    /// The credential may not be used for this.
    NotAllowed,
    /// The balance does not cover the price.
    Arrears,
    /// The operator suspended the caller.
    Suspended,
    /// The operator has not confirmed the caller.
    Unconfirmed,
    /// Too many requests in this second.
    TooFast(Rate),
    /// The idempotency key was used for another question.
    KeyReused,
    /// More questions are under way than may be.
    Overloaded,
    /// The store cannot be written, or does not answer.
    Stopped,
}

/// Leave to ask one question, with its price set aside.
pub struct Admission {
    /// Who asks.
    pub application: Arc<Application>,
    /// How the application stands in this second; absent when it was refused before.
    pub rate: Option<Rate>,
    hold: Result<Hold, Refusal>,
}

/// A price that is set aside; given back when the question is not asked after all.
struct Hold {
    engine: Arc<Engine>,
    application: Arc<Application>,
    price: Credits,
    kept: bool,
}

impl Hold {
    /// The hold goes to the writer with the question.
    fn keep(mut self) -> Credits {
        self.kept = true;
        self.price
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept {
            self.engine.release(&self.application, self.price);
        }
    }
}

/// What is asked, once the wire has been read.
pub struct Question<'a> {
    /// Over which wire.
    pub wire: Wire,
    /// What is asked.
    pub action: Action,
    /// With which credential.
    pub credential: &'a Credential,
    /// The elements as received.
    pub claim: &'a Claim,
    /// The caller's own key for this question, if it sent one.
    pub idempotency_key: Option<&'a str>,
    /// Why it is asked, where the wire has members for it; else the credential's.
    pub purpose: Option<&'a Purpose>,
    /// What the sandbox's script answers, before any validation.
    pub scripted: Option<Outcome>,
    /// The id the caller will see.
    pub request: [u8; 16],
    /// When the request began.
    pub began: Instant,
}

impl Engine {
    /// What the credential allows, entitlement, standing, balance, rate: in this order.
    ///
    /// A stored answer is returned even when balance or rate would refuse now; so with `may_recall`
    /// those two refusals wait in the admission until [`verify`] has looked the key up.
    pub fn admit(
        self: &Arc<Engine>,
        credential: &Credential,
        action: Action,
        may_recall: bool,
    ) -> Result<Admission, Refusal> {
        if !credential.allows(action) {
            return Err(Refusal::NotAllowed);
        }
        let directory = self.directory();
        let found = directory.application(credential.application);
        let (application, standing) = found.ok_or(Refusal::NotActivated)?;
        if !application.actions.contains(&action) {
            return Err(Refusal::NotActivated);
        }
        match standing {
            Standing::Active => {}
            Standing::Suspended => return Err(Refusal::Suspended),
            Standing::Unconfirmed => return Err(Refusal::Unconfirmed),
        }
        if self.writing() != Writing::Works {
            return Err(Refusal::Stopped);
        }
        if self.queue.under_way.load(Ordering::Relaxed) >= self.policy().under_way_max {
            return Err(Refusal::Overloaded);
        }
        let (hold, rate) = self.hold_and_count(&application, action);
        match hold {
            Err(refusal) if !may_recall => Err(refusal),
            hold => Ok(Admission { application, rate, hold }),
        }
    }

    fn hold_and_count(
        self: &Arc<Engine>,
        application: &Arc<Application>,
        action: Action,
    ) -> (Result<Hold, Refusal>, Option<Rate>) {
        let policy = self.policy();
        let price = application.price.unwrap_or(policy.price);
        if self.books().hold(application, price).is_err() {
            return (Err(Refusal::Arrears), None);
        }
        let hold =
            Hold { engine: Arc::clone(self), application: Arc::clone(application), price, kept: false };
        let limit = application.requests_per_second.unwrap_or(policy.requests_per_second);
        let rate = self.rates().count(application.id, action, limit, self.clock.now_ms());
        if rate.exceeded() {
            return (Err(Refusal::TooFast(rate)), Some(rate));
        }
        (Ok(hold), Some(rate))
    }

    /// Whether an answer may be recalled for this question without a key of the caller's own.
    pub fn recalls_by_content(&self) -> bool {
        self.policy().content_window_ms > 0
    }
}

/// Answers one question: recall, script or format, limits, look-up, decision, settlement.
///
/// There is nothing to wait for before the question is handed to the writer, so a client that goes
/// away can not leave it half asked; and after that it is settled in any case.
///
/// # Errors
/// A [`Refusal`]: nothing was charged or recorded.
pub async fn verify(desk: &Desk, admission: Admission, question: Question<'_>) -> Settlement {
    let (ticket, differs) = match ask(desk, admission, &question)? {
        Asked::Recalled(settled) => return Ok(settled),
        Asked::HandedOver(ticket, differs) => (ticket, differs),
    };
    let settled = desk.settled(ticket).await?;
    Ok(Settled { differs, ..settled })
}

enum Asked {
    Recalled(Settled),
    HandedOver(crate::settle::Ticket, Option<Differs>),
}

fn ask(desk: &Desk, admission: Admission, question: &Question<'_>) -> Result<Asked, Refusal> {
    let engine = &desk.engine;
    // One for the whole question, whatever is read again meanwhile.
    let policy = engine.policy();
    let options = ParseOptions {
        test_land: policy.test_land,
        more_scripts: policy.more_scripts,
        today: Date::in_beijing(engine.clock.now_ms().div_euclid(1000)),
    };
    let claim = question.claim;
    let subject =
        Subject::parse(&claim.name, &claim.card, &claim.id, &claim.mobile, claim.document_kind, &options);
    let (asked, keys) = loop {
        let keys = engine.vault.keys();
        let known_as =
            identities(engine, &policy, &keys, &admission.application, question, subject.as_ref().ok());
        let Some(asked) = known_as.first() else { break (None, keys) };
        let mut books = engine.books();
        if !engine.vault.is_current(&keys) {
            // A key was replaced just now: twins must not be known by different names.
            continue;
        }
        let now = engine.clock.now_ms();
        for asked in &known_as {
            match books.memory.recall(asked, now) {
                Recall::Answered(answer) => {
                    return Ok(Asked::Recalled(Settled { answer, replayed: true, differs: None }));
                }
                Recall::Conflict => return Err(Refusal::KeyReused),
                Recall::UnderWay => return Ok(Asked::HandedOver(desk.join(asked.key), None)),
                Recall::New => {}
            }
        }
        // Without room to remember it, asking it could charge it twice.
        if books.memory.is_full(policy.keys_max, now) {
            return Err(Refusal::Overloaded);
        }
        if admission.hold.is_ok() {
            books.memory.begin(asked, now);
        }
        break (Some(*asked), keys);
    };
    let hold = admission.hold?;
    let begun = Begun { engine, asked: asked.as_ref() };
    let found = find_out(desk, &policy, &keys, &admission.application, question, &subject)?;
    let purpose = question.purpose.or(question.credential.purpose.as_ref());
    // However it was written: who is erased later is found by the digits.
    let card = CardNumber::parse(&claim.card);
    let card = card.as_ref().map_or(claim.card.trim(), CardNumber::as_str);
    let side = Side {
        subject: Some(keys.subject(card)),
        masks: policy.keep_masks.then(|| claim.masked()),
        idempotency: asked,
        consent: purpose.map(|purpose| purpose.consent.clone()),
        attempts: found.attempts.as_ref().map(|(refs, _)| refs.clone()),
        ..Side::default()
    };
    let tells = question.wire == Wire::Native && admission.application.reasons;
    let draft = Draft {
        request: question.request,
        application: Arc::clone(&admission.application),
        credential: question.credential.id,
        wire: question.wire,
        action: question.action,
        outcome: found.outcome,
        row: found.row,
        name_class: found.name_class,
        purpose: purpose.map(|purpose| purpose.code.clone()),
        reasons: tells.then_some(found.reasons),
        price: hold.keep(),
        attempts: found.attempts,
        side,
        began: question.began,
    };
    begun.goes_on();
    Ok(Asked::HandedOver(desk.hand_over(draft), found.differs))
}

/// A question that others may join; should it end before it is handed over, they must not wait.
struct Begun<'a> {
    engine: &'a Engine,
    asked: Option<&'a IdempotencyRef>,
}

impl Begun<'_> {
    fn goes_on(mut self) {
        self.asked = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked {
            self.engine.forget(&asked.key);
        }
    }
}

/// What a question is known by when it is sent again: the caller's key, or its content. After a
/// rotation also what it was known by before.
fn identities(
    engine: &Engine,
    policy: &Policy,
    keys: &Keys,
    application: &Application,
    question: &Question<'_>,
    subject: Option<&Subject>,
) -> Vec<IdempotencyRef> {
    let window_ms = match question.idempotency_key {
        Some(_) => policy.key_kept_ms,
        None if policy.content_window_ms > 0 => policy.content_window_ms,
        None => return Vec::new(),
    };
    let claim = question.claim;
    // Canonical where there is a canonical form: clients escape and pad the same text differently.
    let (name, card, id, mobile) = match subject {
        Some(s) => (s.name.as_str(), s.card.as_str(), s.id.as_str(), s.mobile.as_str()),
        None => (claim.name.trim(), claim.card.trim(), claim.id.trim(), claim.mobile.trim()),
    };
    let owner = application.id.0.to_be_bytes();
    let action = [question.action as u8];
    let (purpose, consent) = question.purpose.map_or(("", ""), |why| (&why.code, &why.consent));
    let kind = claim.document_kind.to_be_bytes();
    let payloads = keys.idempotencies(&[
        b"payload",
        &owner,
        &action,
        &kind,
        name.as_bytes(),
        card.as_bytes(),
        id.as_bytes(),
        mobile.as_bytes(),
        purpose.as_bytes(),
        consent.as_bytes(),
    ]);
    let names = match question.idempotency_key {
        Some(key) => keys.idempotencies(&[b"key", &owner, key.as_bytes()]),
        None => payloads.clone(),
    };
    let until_ms = engine.clock.now_ms().saturating_add(window_ms);
    names.into_iter().zip(payloads).map(|(key, payload)| IdempotencyRef { key, payload, until_ms }).collect()
}

struct Found {
    outcome: Outcome,
    row: Row,
    name_class: Option<NameClass>,
    attempts: Option<(AttemptRefs, AttemptPolicy)>,
    differs: Option<Differs>,
    reasons: Vec<Reason>,
}

impl Found {
    fn by((outcome, row): (Outcome, Row)) -> Found {
        Found { outcome, row, name_class: None, attempts: None, differs: None, reasons: Vec::new() }
    }
}

fn find_out(
    desk: &Desk,
    policy: &Policy,
    keys: &Keys,
    application: &Application,
    question: &Question<'_>,
    subject: &Result<Subject, (Outcome, Row)>,
) -> Result<Found, Refusal> {
    if let Some(outcome) = question.scripted {
        return Ok(Found::by((outcome, Row::SCRIPT)));
    }
    let subject = match subject {
        Ok(subject) => subject,
        Err(decision) => return Ok(Found::by(*decision)),
    };
    let engine = &desk.engine;
    let counted = application.attempts.unwrap_or(policy.attempts);
    let attempts = if counted.counts() {
        let refs = engine.attempt_refs(application.caller, subject, &counted)?;
        let mut books = engine.books();
        if books.attempts.is_full(refs.day, policy.counters_max) {
            return Err(Refusal::Overloaded);
        }
        if books.attempts.hold(&refs, &counted).is_err() {
            return Ok(Found::by((Outcome::AttemptsExceeded, Row(6))));
        }
        Some((refs, counted))
    } else {
        None
    };
    match look_up(desk, policy, keys, subject) {
        Ok(found) => Ok(Found { attempts, ..found }),
        Err(refusal) => {
            if let Some((refs, counted)) = &attempts {
                engine.books().attempts.release(refs, counted);
            }
            Err(refusal)
        }
    }
}

fn look_up(desk: &Desk, policy: &Policy, keys: &Keys, subject: &Subject) -> Result<Found, Refusal> {
    let engine = &desk.engine;
    let card = subject.card.as_str();
    let found = desk.accounts.look().and_then(|()| desk.accounts.find(card, keys));
    let record = found.map_err(|error| {
        tracing::error!(%error, "an account could not be read");
        Refusal::Stopped
    })?;
    let elements = Elements {
        card,
        name_exact: subject.name.e0(),
        name_loose: subject.name.e1(),
        id: subject.id.as_str(),
        mobile: subject.mobile.as_str(),
    };
    let version = record.as_ref().and_then(|row| keys.account_version(row.keys));
    let claimed = keys.verifiers(&elements, version.unwrap_or(keys.accounts()));
    // Without a record the comparison is made all the same, so that its time tells nothing.
    let compared = Compared::of(record.as_ref().map_or(&dummy(), |row| &row.verifiers), &claimed);
    let issuers = engine.issuers();
    let facts = Facts {
        record: record.as_ref(),
        compared,
        issuer: issuers.lookup(&subject.card),
        issuer_policy: policy.issuer,
        privacy_order: policy.privacy_order,
    };
    let decision = decide(&facts);
    let name_class = (decision.0 == Outcome::Pass).then_some(compared.name_class);
    let differs = record.is_some().then(|| compared.differs());
    let reasons = reasons(decision.1, &facts);
    Ok(Found { name_class, differs, reasons, ..Found::by(decision) })
}

/// What an entitled caller is told besides the outcome. In privacy order nothing: it would tell what
/// that order hides.
fn reasons(row: Row, facts: &Facts<'_>) -> Vec<Reason> {
    let differs = facts.compared.differs();
    match row {
        _ if facts.privacy_order => Vec::new(),
        Row(10) if facts.record.is_some() => vec![Reason::AccountClosed],
        Row(10) => vec![Reason::AccountAbsent],
        Row(20) => vec![Reason::DocumentDiffers],
        Row(21) => vec![Reason::PhoneAbsent],
        Row(23) => [
            (differs.name, Reason::NameDiffers),
            (differs.id, Reason::IdDiffers),
            (differs.mobile, Reason::PhoneDiffers),
        ]
        .into_iter()
        .filter_map(|(differs, reason)| differs.then_some(reason))
        .collect(),
        _ => Vec::new(),
    }
}

/// Verifiers that nothing matches.
fn dummy() -> Verifiers {
    let verifier = || Verifier(nonce());
    Verifiers { name_exact: verifier(), name_loose: verifier(), id: verifier(), mobile: verifier() }
}

/// How the elements of a claim stand to those of a record; all are always compared.
#[derive(Clone, Copy, Debug)]
struct Compared {
    name: bool,
    id: bool,
    mobile: bool,
    name_class: NameClass,
}

/// Which elements of a claim differ from the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differs {
    /// The holder name.
    pub name: bool,
    /// The identity number.
    pub id: bool,
    /// The mobile number.
    pub mobile: bool,
}

impl Compared {
    fn differs(&self) -> Differs {
        Differs { name: !self.name, id: !self.id, mobile: !self.mobile }
    }

    fn of(record: &Verifiers, claimed: &Verifiers) -> Compared {
        let exact: Choice = record.name_exact.matches(&claimed.name_exact);
        let loose: Choice = record.name_loose.matches(&claimed.name_loose);
        let id = record.id.matches(&claimed.id);
        let mobile = record.mobile.matches(&claimed.mobile);
        Compared {
            name: (exact | loose).into(),
            id: id.into(),
            mobile: mobile.into(),
            name_class: if exact.into() { NameClass::E0 } else { NameClass::E1 },
        }
    }
}

/// Everything rows 7 to 25 look at.
struct Facts<'a> {
    record: Option<&'a AccountRow>,
    compared: Compared,
    issuer: Option<&'a Issuer>,
    issuer_policy: IssuerPolicy,
    privacy_order: bool,
}

/// Rows 7 to 25 of the decision table, in their order.
fn decide(facts: &Facts<'_>) -> (Outcome, Row) {
    let record = facts.record;
    if record.is_none() && facts.issuer.is_none() && facts.issuer_policy == IssuerPolicy::IssuerUnknown {
        return (Outcome::IssuerUnknown, Row(7));
    }
    if facts.issuer.is_some_and(|issuer| !issuer.verifies) {
        return (Outcome::IssuerUnsupported, Row(8));
    }
    let state = record.map(|record| record.state.decision());
    let state = match state {
        None => Some((Outcome::PanInvalid, Row(10))),
        Some(decision) => decision,
    };
    let elements = record.and_then(|record| elements(record, facts));
    let first = if facts.privacy_order {
        // Only somebody who knows the holder is told how the card stands; to everybody else a card
        // that does not exist looks like any other mismatch.
        match state {
            Some((Outcome::PanInvalid, row)) => Some((Outcome::HolderMismatch, row)),
            _ => elements.or(state),
        }
    } else {
        state.or(elements)
    };
    first.unwrap_or((Outcome::Pass, Row(25)))
}

/// Rows 20 to 23.
fn elements(record: &AccountRow, facts: &Facts<'_>) -> Option<(Outcome, Row)> {
    let compared = &facts.compared;
    if !record.kind.counts_as_resident_id() {
        Some((Outcome::HolderMismatch, Row(20)))
    } else if !record.has_mobile {
        Some((Outcome::HolderMismatch, Row(21)))
    } else if facts.issuer.is_some_and(|issuer| !issuer.phone_checked) {
        Some((Outcome::PhoneUncheckable, Row(22)))
    } else if !(compared.name && compared.id && compared.mobile) {
        Some((Outcome::HolderMismatch, Row(23)))
    } else {
        None
    }
}

/// A new version 4 UUID: `RequestId` on one wire, `trace_id` on the other.
pub fn new_request_id() -> [u8; 16] {
    let mut id: [u8; 16] = nonce();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// `74e742e8-f91d-49c3-9744-c20f3baca117`
pub fn uuid_text(id: &[u8; 16]) -> String {
    let hex = crate::file::hex(id);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountState, DocumentKind};
    use crate::issuer::CardKind;
    use crate::outcome::DECISIONS;
    use crate::vault::BlindIndex;

    fn record(state: AccountState) -> AccountRow {
        let index = BlindIndex([0; 16]);
        AccountRow {
            index,
            verifiers: dummy(),
            has_mobile: true,
            state,
            kind: DocumentKind::ResidentId,
            keys: 1,
        }
    }

    fn issuer(verifies: bool, phone_checked: bool) -> Issuer {
        let text = String::new;
        let (bank_zh, bank_en) = (text(), text());
        Issuer {
            prefix: "621700".into(),
            length: None,
            bank_zh,
            bank_en,
            kind: CardKind::Debit,
            verifies,
            phone_checked,
        }
    }

    fn compared(same: bool) -> Compared {
        Compared { name: same, id: same, mobile: same, name_class: NameClass::E0 }
    }

    struct Case {
        record: Option<AccountRow>,
        issuer: Option<Issuer>,
        same: bool,
        unknown_prefix_is: IssuerPolicy,
    }

    impl Case {
        fn of(record: AccountRow) -> Case {
            Case {
                record: Some(record),
                issuer: Some(issuer(true, true)),
                same: true,
                unknown_prefix_is: IssuerPolicy::AskSource,
            }
        }

        fn decided(&self, privacy_order: bool) -> (Outcome, u8) {
            let facts = Facts {
                record: self.record.as_ref(),
                compared: compared(self.same),
                issuer: self.issuer.as_ref(),
                issuer_policy: self.unknown_prefix_is,
                privacy_order,
            };
            let (outcome, row) = decide(&facts);
            (outcome, row.0)
        }
    }

    /// Each row of the table from 7 on that accounts of record can reach, with everything after it
    /// true as well: the first row wins.
    #[test]
    fn the_first_row_that_holds_wins() {
        let everything_wrong = |state| {
            let record = AccountRow { has_mobile: false, kind: DocumentKind::Passport, ..record(state) };
            Case { same: false, ..Case::of(record) }
        };
        let unknown = Case { record: None, issuer: None, ..everything_wrong(AccountState::Lost) };
        let unknown = Case { unknown_prefix_is: IssuerPolicy::IssuerUnknown, ..unknown };
        assert_eq!(unknown.decided(false), (Outcome::IssuerUnknown, 7));
        let silent = Case { issuer: Some(issuer(false, false)), ..everything_wrong(AccountState::Lost) };
        assert_eq!(silent.decided(false), (Outcome::IssuerUnsupported, 8));
        let absent = Case { record: None, ..everything_wrong(AccountState::Lost) };
        assert_eq!(absent.decided(false), (Outcome::PanInvalid, 10));
        for state in AccountState::ALL.into_iter().filter(|state| *state != AccountState::Normal) {
            let (outcome, row) = state.decision().unwrap();
            assert_eq!(everything_wrong(state).decided(false), (outcome, row.0), "{state:?}");
        }
        assert_eq!(everything_wrong(AccountState::Normal).decided(false), (Outcome::HolderMismatch, 20));

        let no_phone = AccountRow { has_mobile: false, ..record(AccountState::Normal) };
        let no_phone = Case { same: false, issuer: Some(issuer(true, false)), ..Case::of(no_phone) };
        assert_eq!(no_phone.decided(false), (Outcome::HolderMismatch, 21));
        let unchecked =
            Case { same: false, issuer: Some(issuer(true, false)), ..Case::of(record(AccountState::Normal)) };
        assert_eq!(unchecked.decided(false), (Outcome::PhoneUncheckable, 22));
        let differs = Case { same: false, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(differs.decided(false), (Outcome::HolderMismatch, 23));
        assert_eq!(Case::of(record(AccountState::Normal)).decided(false), (Outcome::Pass, 25));
    }

    #[test]
    fn an_unknown_prefix_is_the_sources_affair_unless_the_policy_says_otherwise() {
        let mut case = Case { record: None, issuer: None, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(case.decided(false), (Outcome::PanInvalid, 10));
        case.unknown_prefix_is = IssuerPolicy::IssuerUnknown;
        assert_eq!(case.decided(false), (Outcome::IssuerUnknown, 7));
        case.record = Some(record(AccountState::Normal));
        assert_eq!(case.decided(false), (Outcome::Pass, 25), "a record is proof enough of an issuer");
    }

    /// In privacy order nobody learns how a card stands, or whether it exists, without its holder.
    #[test]
    fn privacy_order_tells_the_state_only_to_who_knows_the_holder() {
        for state in AccountState::ALL {
            let stranger = Case { same: false, ..Case::of(record(state)) };
            assert_eq!(stranger.decided(true).0, Outcome::HolderMismatch, "{state:?}");
            let closed = state == AccountState::Closed;
            let expected =
                if closed { Outcome::HolderMismatch } else { Case::of(record(state)).decided(false).0 };
            assert_eq!(Case::of(record(state)).decided(true).0, expected, "{state:?}");
        }
        let absent = Case { record: None, ..Case::of(record(AccountState::Normal)) };
        assert_eq!(absent.decided(true).0, Outcome::HolderMismatch);
    }

    #[test]
    fn every_decision_is_a_row_of_the_published_table() {
        for state in AccountState::ALL {
            for (same, privacy) in [(true, false), (false, false), (true, true), (false, true)] {
                let (outcome, row) = Case { same, ..Case::of(record(state)) }.decided(privacy);
                let published = DECISIONS.iter().find(|decision| decision.row.0 == row).unwrap();
                let hidden = privacy && outcome == Outcome::HolderMismatch && row == 10;
                assert!(published.outcome == outcome || hidden, "{state:?} {row} {outcome:?}");
            }
        }
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let text = uuid_text(&new_request_id());
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
    }
}
