//! Answers as they are kept: of one application many in a row of the table, each in as many bytes as the others.
//!
//! A row of the table for each answer, with an index by time and one by application, took three times the work of
//! everything that is done here now, on a core that has questions to answer. Whoever looks for answers reads all of an
//! application in the time that is asked about: a row of the table says which it has answers of.

use super::query::Wanted;
use super::{SCHEMA, StoreError, UsageRow};
use crate::action::Action;
use crate::caller::Wire;
use crate::ledger::{Answer, Credits};
use crate::outcome::Outcome;
use crate::verify::uuid_text;

/// Bytes of an answer.
pub(super) const BYTES: usize = 72;

/// Answers in a row of the table at most. One that is not full is written again when others come, so that more would
/// write more where little is asked.
pub(super) const ANSWERS_MAX: usize = 128;

/// An answer without its masks. The order is that of usage pages: by time, then as in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed {
    pub(super) at_ms: i64,
    /// The block, whose side row has the masks until it is erased.
    pub(super) seq: i64,
    /// Which entry of the block.
    pub(super) at: u32,
    pub(super) outcome: u8,
    pub(super) request: [u8; 16],
    pub(super) credential: u32,
    pub(super) wire: u8,
    pub(super) action: u8,
    pub(super) row: u8,
    /// Millionths of a credit.
    pub(super) charged: i64,
    /// Millionths of a credit; `None`: unlimited.
    pub(super) balance: Option<i64>,
    pub(super) elapsed_us: u32,
    /// 1, or how many rows of a file.
    pub(super) answers: u64,
}

/// In place of a balance where there is none.
const UNLIMITED: i64 = i64::MIN;

impl Packed {
    pub(super) fn new(seq: i64, at: usize, answer: &Answer, answers: u64) -> Packed {
        Packed {
            at_ms: answer.at_ms,
            seq,
            at: at as u32,
            outcome: answer.outcome as u8,
            request: answer.request,
            credential: answer.credential.0,
            wire: answer.wire as u8,
            action: answer.action as u8,
            row: answer.row.0,
            charged: answer.charged.0,
            balance: answer.balance.map(|balance| balance.0),
            elapsed_us: answer.elapsed_us,
            answers,
        }
    }

    pub(super) fn write(&self, into: &mut Vec<u8>) {
        into.extend(self.request);
        for number in [self.at_ms, self.seq, self.charged, self.balance.unwrap_or(UNLIMITED)] {
            into.extend(number.to_le_bytes());
        }
        into.extend(self.answers.to_le_bytes());
        for number in [self.at, self.credential, self.elapsed_us] {
            into.extend(number.to_le_bytes());
        }
        into.extend([self.wire, self.action, self.outcome, self.row]);
    }

    fn read(bytes: &[u8; BYTES]) -> Packed {
        let long = |at: usize| i64::from_le_bytes(array(bytes, at));
        let short = |at: usize| u32::from_le_bytes(array(bytes, at));
        let balance = long(40);
        Packed {
            request: array(bytes, 0),
            at_ms: long(16),
            seq: long(24),
            charged: long(32),
            balance: (balance != UNLIMITED).then_some(balance),
            answers: long(48) as u64,
            at: short(56),
            credential: short(60),
            elapsed_us: short(64),
            wire: bytes[68],
            action: bytes[69],
            outcome: bytes[70],
            row: bytes[71],
        }
    }

    /// Those in a row of the table that are wanted.
    pub(super) fn wanted<'a>(bytes: &'a [u8], wanted: &'a Wanted) -> impl Iterator<Item = Packed> + use<'a> {
        let (answers, _) = bytes.as_chunks::<BYTES>();
        answers.iter().map(Packed::read).filter(|answer| wanted.fits(answer))
    }

    /// The answer for people; its masks are still to be added.
    pub(super) fn row(&self, application: u32) -> Result<UsageRow, StoreError> {
        let (action, outcome) = self.kind()?;
        let wire = Wire::ALL.get(usize::from(self.wire)).ok_or_else(|| self.unknown())?;
        Ok(UsageRow {
            request_id: uuid_text(&self.request),
            at_ms: self.at_ms,
            application,
            credential: self.credential,
            wire: wire.name().into(),
            action: action.name().into(),
            outcome: outcome.name().into(),
            row: self.row,
            charged: Credits(self.charged).to_string(),
            balance: self.balance.map(|balance| Credits(balance).to_string()),
            elapsed_us: self.elapsed_us,
            answers: self.answers,
            masks: None,
        })
    }

    /// What was asked, and what was answered.
    pub(super) fn kind(&self) -> Result<(Action, Outcome), StoreError> {
        let action = Action::ALL.get(usize::from(self.action)).copied();
        let outcome = Outcome::ALL.get(usize::from(self.outcome)).copied();
        action.zip(outcome).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> StoreError {
        let what =
            format!("an answer of block {} is of a kind nobody knows; remove it, it is made again", self.seq);
        StoreError::Damaged { file: SCHEMA.file, what }
    }
}

/// Of bytes that are there: each place in an answer is a constant.
fn array<const N: usize>(bytes: &[u8; BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
