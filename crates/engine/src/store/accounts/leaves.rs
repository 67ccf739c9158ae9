//! How rows lie in `accounts.db`: one behind the other in the order of their blind indexes, as many in a leaf as fill a
//! page of the file. To SQLite a leaf is one value: it takes longer for a value than a row takes to be sealed.
//!
//! A leaf is kept under the place of its first row, and has all rows up to that of the next leaf. One that has become too
//! long is split, one without rows goes.

use std::borrow::Borrow;
use std::ops::Range;

use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{AccountRow, Change, Person, holds};
use crate::account::{AccountState, DocumentKind};
use crate::store::StoreError;
use crate::vault::{BlindIndex, Keys, Verifier, Verifiers};

/// Bytes of a row before its columns of the element index: its own index, what is there, four verifiers.
const FIXED: usize = 16 + 4 + 64;
/// Bytes that are authenticated at most.
const COVERED_MOST: usize = FIXED + 6 * 16;
/// What authenticates them, and the version of its key.
const MAC_AND_KEYS: usize = 16 + 4;
/// The generation a row was written in, behind it.
const GENERATION: usize = 4;
/// So long a leaf is one cell of one page of 4 KiB.
const LEAF_BYTES: usize = 4056;
/// Rows authenticated side by side.
const TOGETHER: usize = 512;

/// What of a row is authenticated, as it is stored.
pub(super) struct Covered {
    bytes: [u8; COVERED_MOST],
    length: usize,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Covered {
    pub(super) fn of(row: &AccountRow) -> Covered {
        let Verifiers { name_exact, name_loose, id, mobile } = &row.verifiers;
        // What is not on file is not covered, and reads as nothing.
        let mobile = if row.has_mobile { mobile.0 } else { [0; 16] };
        let plain = [row.person.there(), u8::from(row.has_mobile), row.state.code(), row.kind.code()];
        let columns = row.person.columns();
        let parts: [&[u8]; 6] = [&row.index.0, &plain, &name_exact.0, &name_loose.0, &id.0, &mobile];
        let mut covered = Covered { bytes: [0; COVERED_MOST], length: 0 };
        for part in parts.into_iter().chain(columns.iter().flatten().map(|column| &column[..])) {
            covered.bytes[covered.length..covered.length + part.len()].copy_from_slice(part);
            covered.length += part.len();
        }
        covered
    }
}

/// A row as it is stored, without its generation.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// The row that bytes begin with; nothing when they end before it does.
    pub(super) fn first_of(bytes: &'a [u8]) -> Option<Packed<'a>> {
        let columns = (bytes.get(16)? & 0x3f).count_ones() as usize;
        bytes.get(..FIXED + 16 * columns + MAC_AND_KEYS).map(Packed)
    }

    pub(super) fn index(self) -> BlindIndex {
        BlindIndex(self.sixteen(0))
    }

    pub(super) fn state_and_kind(self) -> (u8, u8) {
        (self.0[18], self.0[19])
    }

    pub(super) fn has_mobile(self) -> bool {
        self.0[17] == 1
    }

    /// In the order of their columns.
    pub(super) fn verifiers(self) -> [[u8; 16]; 4] {
        [20, 36, 52, 68].map(|at| self.sixteen(at))
    }

    fn covered(self) -> &'a [u8] {
        &self.0[..self.0.len() - MAC_AND_KEYS]
    }

    pub(super) fn mac(self) -> [u8; 16] {
        self.sixteen(self.0.len() - MAC_AND_KEYS)
    }

    /// Version of the keys over it.
    pub(super) fn keys(self) -> u32 {
        self.0.last_chunk().map_or(0, |keys| u32::from_be_bytes(*keys))
    }

    pub(super) fn row(self) -> AccountRow {
        let [name_exact, name_loose, id, mobile] = self.verifiers().map(Verifier);
        let (state, kind) = self.state_and_kind();
        AccountRow {
            index: self.index(),
            verifiers: Verifiers { name_exact, name_loose, id, mobile },
            has_mobile: self.has_mobile(),
            // A code nobody knows is the catch-all of its column: a later card4e may know more states.
            state: AccountState::from_code(state).unwrap_or(AccountState::Abnormal),
            kind: DocumentKind::from_code(kind).unwrap_or(DocumentKind::Other),
            keys: self.keys(),
            person: self.person(),
            is_short: false,
        }
    }

    fn person(self) -> Person {
        let mut at = FIXED;
        Person::of(std::array::from_fn(|column| {
            (self.0[16] & 1 << (5 - column) != 0).then(|| {
                at += 16;
                self.sixteen(at - 16)
            })
        }))
    }

    /// By what else the account is found.
    fn found_by(self) -> [Option<[u8; 16]>; 2] {
        match self.0[16] {
            0 => [None; 2],
            _ => {
                let Person { by_id, by_mobile } = self.person();
                [by_id.map(|id| id.index.0), by_mobile.map(|mobile| mobile.index.0)]
            }
        }
    }

    fn sixteen(self, at: usize) -> [u8; 16] {
        self.0[at..].first_chunk().copied().unwrap_or_default()
    }
}

/// Sees that rows are as they were written: many side by side.
pub(super) fn authenticate<'a>(
    rows: impl Iterator<Item = Packed<'a>>,
    keys: &Keys,
) -> Result<(), StoreError> {
    let mut rows = rows.peekable();
    let mut together = Vec::with_capacity(TOGETHER);
    while let Some(version) = rows.peek().map(|row| row.keys()) {
        let under = keys.account_version(version).ok_or(StoreError::OtherKeys)?;
        together.clear();
        while together.len() < TOGETHER
            && let Some(row) = rows.next_if(|row| row.keys() == version)
        {
            together.push(row);
        }
        let macs = under.row_macs(together.iter().map(|row| row.covered()));
        together.iter().zip(macs).try_for_each(|(row, mac)| holds(Some(mac), row.mac()))?;
    }
    Ok(())
}

/// What becomes of the row of an index.
#[derive(Clone, Copy)]
pub(super) enum Edit<'a> {
    /// This is it now.
    Put(Packed<'a>),
    /// There is none.
    Delete(BlindIndex),
    /// It stays as it is.
    Keep(BlindIndex),
}

impl<'a> Edit<'a> {
    /// The edit that bytes of a [`Batch`] begin with, and how long it is; nothing when they end before it does.
    ///
    /// # Errors
    /// They are none of a batch.
    pub(super) fn first_of(bytes: &'a [u8]) -> Result<Option<(Edit<'a>, usize)>, NoEdit> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        let index = || rest.first_chunk().copied().map(BlindIndex);
        let edit = match *kind {
            PUT => Packed::first_of(rest).map(|row| (Edit::Put(row), 1 + row.0.len())),
            DELETE => index().map(|index| (Edit::Delete(index), 17)),
            KEEP => index().map(|index| (Edit::Keep(index), 17)),
            _ => return Err(NoEdit),
        };
        Ok(edit)
    }

    pub(super) fn index(&self) -> BlindIndex {
        match self {
            Edit::Put(row) => row.index(),
            Edit::Delete(index) | Edit::Keep(index) => *index,
        }
    }

    pub(super) fn row(&self) -> Option<Packed<'a>> {
        match self {
            Edit::Put(row) => Some(*row),
            Edit::Delete(_) | Edit::Keep(_) => None,
        }
    }
}

/// Bytes that do not begin with an edit.
#[derive(Debug)]
pub(super) struct NoEdit;

const PUT: u8 = 0;
const DELETE: u8 = 1;
const KEEP: u8 = 2;

/// Changes in the bytes that are stored, so that whoever writes them need not compute anything.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// By index, as a number of the same order: where in the bytes a change is.
    places: Vec<(u128, usize)>,
}

impl Batch {
    /// Changes in the order in which they are made.
    pub fn of(changes: impl IntoIterator<Item = impl Borrow<Change>>) -> Batch {
        let mut batch = Batch::default();
        for change in changes {
            match change.borrow() {
                Change::Put(row, mac) => batch.put(row, *mac),
                Change::Delete(index) => batch.delete(index),
                Change::Keep(index) => batch.push(KEEP, index),
            }
        }
        batch
    }

    pub(super) fn put(&mut self, row: &AccountRow, mac: [u8; 16]) {
        self.push(PUT, &row.index);
        self.bytes.extend_from_slice(&Covered::of(row).as_ref()[16..]);
        self.bytes.extend_from_slice(&mac);
        self.bytes.extend_from_slice(&row.keys.to_be_bytes());
    }

    pub(super) fn delete(&mut self, index: &BlindIndex) {
        self.push(DELETE, index);
    }

    fn push(&mut self, kind: u8, index: &BlindIndex) {
        self.places.push((number(index), self.bytes.len()));
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&index.0);
    }

    /// Adds a row in its bytes.
    pub(super) fn push_row(&mut self, row: Packed<'_>) {
        self.places.push((number(&row.index()), self.bytes.len()));
        self.bytes.push(PUT);
        self.bytes.extend_from_slice(row.0);
    }

    /// Adds an edit in its bytes.
    pub(super) fn push_bytes(&mut self, index: u128, edit: &[u8]) {
        self.places.push((index, self.bytes.len()));
        self.bytes.extend_from_slice(edit);
    }

    /// Brings the changes into the order of their indexes; those of one index stay in theirs.
    pub(super) fn sort(&mut self) {
        // What is made of a few sorted runs is sorted by merging them.
        self.places.sort();
        // The bytes too: they are gone through several times.
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for (_, place) in &mut self.places {
            let edit = bytes_at(&self.bytes, *place);
            *place = bytes.len();
            bytes.extend_from_slice(edit);
        }
        self.bytes = bytes;
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&BlindIndex) -> bool) {
        self.places.retain(|(index, _)| is_kept(&BlindIndex(index.to_be_bytes())));
    }

    /// Their places: index and what comes first in the order of the changes.
    pub(super) fn places(&self) -> &[(u128, usize)] {
        &self.places
    }

    /// The bytes of the change at a place.
    pub(super) fn bytes_at(&self, place: usize) -> &[u8] {
        bytes_at(&self.bytes, place)
    }

    pub(super) fn edits(&self) -> impl Iterator<Item = Edit<'_>> + Clone {
        let edit = |(_, at): &(u128, usize)| Edit::first_of(&self.bytes[*at..]).ok().flatten();
        self.places.iter().filter_map(edit).map(|(edit, _)| edit)
    }

    /// The rows that are put.
    pub(super) fn rows(&self) -> impl Iterator<Item = Packed<'_>> + Clone {
        self.edits().filter_map(|edit| edit.row())
    }

    /// The version of the keys that its rows are under.
    pub(super) fn version(&self) -> Option<u32> {
        self.rows().next().map(Packed::keys)
    }
}

/// The bytes of the edit at a place.
fn bytes_at(bytes: &[u8], place: usize) -> &[u8] {
    let from = &bytes[place..];
    let length = Edit::first_of(from).ok().flatten().map_or(0, |(_, length)| length);
    &from[..length]
}

/// An index as a number: of the same order.
pub(super) fn number(index: &BlindIndex) -> u128 {
    u128::from_be_bytes(index.0)
}

/// What counts of edits in the order of their indexes: one of each. One that keeps a row undoes nothing that came
/// before it.
pub(super) fn last_of_each<'a>(edits: impl Iterator<Item = Edit<'a>>) -> impl Iterator<Item = Edit<'a>> {
    let mut edits = edits.peekable();
    std::iter::from_fn(move || {
        let mut last = edits.next()?;
        while let Some(next) = edits.next_if(|next| next.index() == last.index()) {
            if !matches!(next, Edit::Keep(_)) {
                last = next;
            }
        }
        Some(last)
    })
}

/// The place of an index among the leaves: its first half, in its order.
fn place(index: &BlindIndex) -> i64 {
    let high = index.0.first_chunk().map_or(0, |high| u64::from_be_bytes(*high));
    (high ^ 1 << 63) as i64
}

/// The leaf that an index belongs to.
macro_rules! leaf_of {
    ($place:literal) => {
        concat!("SELECT first, rows FROM leaf WHERE first <= ", $place, " ORDER BY first DESC LIMIT 1")
    };
}

/// A row that was found, and what authenticates it.
pub(super) type Found = (AccountRow, [u8; 16]);

/// A row in a leaf, and the generation it was written in.
type Lying<'a> = (Packed<'a>, u32);

fn damaged() -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, super::CHANGED.into())
}

/// The rows of the leaf that is at a place: a leaf that was put into the place of another is none.
fn rows_of(first: i64, mut leaf: &[u8]) -> impl Iterator<Item = rusqlite::Result<Lying<'_>>> {
    let mut is_at_place = leaf.first_chunk().is_none_or(|index| place(&BlindIndex(*index)) == first);
    std::iter::from_fn(move || {
        if leaf.is_empty() {
            return None;
        }
        let row = Packed::first_of(leaf).filter(|_| std::mem::replace(&mut is_at_place, true));
        let lying = row.and_then(|row| Some((row, leaf[row.0.len()..].first_chunk::<GENERATION>()?)));
        let Some((row, generation)) = lying else {
            leaf = &[];
            return Some(Err(damaged()));
        };
        leaf = &leaf[row.0.len() + GENERATION..];
        Some(Ok((row, u32::from_be_bytes(*generation))))
    })
}

/// The row of an account that stands at one of two indexes, in one look at the file.
pub(super) fn find(db: &Connection, at: [&BlindIndex; 2]) -> rusqlite::Result<Option<Found>> {
    let [newest, older] = at;
    let is_at = |row: &Packed<'_>| row.0[..16] == newest.0 || row.0[..16] == older.0;
    let both = concat!("SELECT * FROM (", leaf_of!("?1"), ") UNION ALL SELECT * FROM (", leaf_of!("?2"), ")");
    // Both are one but while a rotation moves the rows.
    let mut leaves = db.prepare_cached(if newest == older { leaf_of!("?1") } else { both })?;
    let mut leaves = match newest == older {
        true => leaves.query([place(newest)])?,
        false => leaves.query([place(newest), place(older)])?,
    };
    while let Some(leaf) = leaves.next()? {
        for row in rows_of(leaf.get(0)?, leaf.get_ref(1)?.as_blob()?) {
            let (row, _) = row?;
            if is_at(&row) {
                return Ok(Some((row.row(), row.mac())));
            }
        }
    }
    Ok(None)
}

/// Gives all rows after an index in their order, with their generations, as long as they are wanted.
pub(super) fn scan(
    db: &Connection,
    after: &[u8],
    mut give: impl FnMut(Packed<'_>, u32) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let from = after.first_chunk().map_or(i64::MIN, |index| place(&BlindIndex(*index)));
    let mut leaves = db.prepare_cached(
        "SELECT first, rows FROM leaf WHERE first >= coalesce((SELECT max(first) FROM leaf WHERE first <= ?1), ?1)
         ORDER BY first",
    )?;
    let mut leaves = leaves.query([from])?;
    while let Some(leaf) = leaves.next()? {
        for row in rows_of(leaf.get(0)?, leaf.get_ref(1)?.as_blob()?) {
            let (row, generation) = row?;
            if row.0[..16] > *after && !give(row, generation)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// So many rows after an index.
pub(super) fn page(db: &Connection, after: &[u8], rows: usize) -> rusqlite::Result<Vec<Found>> {
    let mut page = Vec::with_capacity(rows);
    scan(db, after, |row, _| {
        page.push((row.row(), row.mac()));
        Ok(page.len() < rows)
    })?;
    Ok(page)
}

/// The greatest index; empty where there are no rows.
pub(super) fn last_index(db: &Connection) -> rusqlite::Result<Vec<u8>> {
    let last = "SELECT first, rows FROM leaf ORDER BY first DESC LIMIT 1";
    let last: Option<(i64, Vec<u8>)> =
        db.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (first, rows) = last.unwrap_or_default();
    let last = rows_of(first, &rows).last().transpose()?;
    Ok(last.map_or(Vec::new(), |(row, _)| row.index().0.to_vec()))
}

/// Number of rows.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT accounts FROM total")?
        .query_row([], |row| row.get::<_, i64>(0).map(|all| all as u64))
}

/// Indexes of rows that are found by one of these identity or mobile numbers.
pub(super) fn found_by(db: &Connection, at: [BlindIndex; 2], most: i64) -> rusqlite::Result<Vec<BlindIndex>> {
    let find = "SELECT idx FROM person WHERE found_by IN (?1, ?2) LIMIT ?3";
    let [newest, older] = at;
    let mut find = db.prepare_cached(find)?;
    find.query_map(params![newest.0, older.0, most], |row| row.get(0).map(BlindIndex))?.collect()
}

/// What the element index comes to: how many entries, and a sum over all of them in whatever order. Both halves of an
/// entry are keyed references, so what was changed by accident or by hand does not come to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    number: u64,
    sum: u128,
}

impl Entries {
    /// One more: what finds it, and which account that is.
    pub(super) fn add(&mut self, found_by: &BlindIndex, index: &BlindIndex) {
        self.number += 1;
        self.sum = self.sum.wrapping_add(number(found_by).wrapping_mul(number(index) | 1));
    }

    /// Those that are there.
    pub(super) fn of(db: &Connection) -> rusqlite::Result<Entries> {
        let mut entries = Entries::default();
        let mut read = db.prepare("SELECT found_by, idx FROM person")?;
        let mut read = read.query([])?;
        while let Some(entry) = read.next()? {
            entries.add(&BlindIndex(entry.get(0)?), &BlindIndex(entry.get(1)?));
        }
        Ok(entries)
    }
}

/// Removes all rows.
pub(super) fn clear(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("DELETE FROM leaf; DELETE FROM person; UPDATE total SET accounts = 0")
}

/// Writes edits that are in the order of their indexes, one of each; rows that are put or kept are of this generation
/// then. Gives how many rows went.
pub(super) fn write<'a>(
    db: &Connection,
    edits: impl Iterator<Item = Edit<'a>>,
    generation: u32,
) -> rusqlite::Result<u64> {
    write_each(db, edits.map(|edit| (edit, generation)))
}

/// The same, each of its own generation.
pub(super) fn write_each<'a>(
    db: &Connection,
    edits: impl Iterator<Item = (Edit<'a>, u32)>,
) -> rusqlite::Result<u64> {
    let mut find = db.prepare_cached(leaf_of!("?1"))?;
    let mut lowest = db.prepare_cached("SELECT first, rows FROM leaf ORDER BY first LIMIT 1")?;
    let mut next = db.prepare_cached("SELECT min(first) FROM leaf WHERE first > ?1")?;
    let mut writer = Writer::new(db)?;
    let mut edits = edits.peekable();
    while let Some((edit, _)) = edits.peek() {
        let at = place(&edit.index());
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<(i64, Vec<u8>)> = match find.query_row([at], read).optional()? {
            // What comes before all others goes to the first of them.
            None => lowest.query_row([], read).optional()?,
            found => found,
        };
        let (first, before) = found.unwrap_or((i64::MIN, Vec::new()));
        let end: Option<i64> = next.query_row([first], |row| row.get(0))?;
        let of_leaf = |edit: &(Edit<'a>, u32)| end.is_none_or(|end| place(&edit.0.index()) < end);
        let mut old = rows_of(first, &before).collect::<rusqlite::Result<Vec<_>>>()?.into_iter().peekable();
        let mut leaf = Leaf::default();
        while let Some((edit, generation)) = edits.next_if(of_leaf) {
            let index = edit.index();
            while let Some((row, generation)) = old.next_if(|(row, _)| row.0[..16] < index.0[..]) {
                leaf.push(row, generation);
            }
            let was = old.next_if(|(row, _)| row.0[..16] == index.0).map(|(row, _)| row);
            let is = match edit {
                Edit::Put(row) => Some(row),
                Edit::Delete(_) => None,
                Edit::Keep(_) => was,
            };
            writer.note(was, is)?;
            is.into_iter().for_each(|row| leaf.push(row, generation));
        }
        old.for_each(|(row, generation)| leaf.push(row, generation));
        if leaf.bytes != before {
            writer.put(first, &leaf, end.is_none())?;
        }
    }
    writer.finish(db)
}

/// Rows that are to be one leaf, or several.
#[derive(Default)]
struct Leaf {
    bytes: Vec<u8>,
    /// Where each row begins.
    starts: Vec<usize>,
}

impl Leaf {
    fn push(&mut self, row: Packed<'_>, generation: u32) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(row.0);
        self.bytes.extend_from_slice(&generation.to_be_bytes());
    }

    fn place(&self, row: usize) -> i64 {
        self.bytes[self.starts[row]..].first_chunk().map_or(0, |index| place(&BlindIndex(*index)))
    }

    fn end(&self, row: usize) -> usize {
        self.starts.get(row + 1).copied().unwrap_or(self.bytes.len())
    }

    /// Rows that go into one leaf each: at the end of all leaves as many as there is room for, elsewhere as evenly as
    /// it goes, because others will come between them.
    fn pieces(&self, is_end: bool) -> Vec<Range<usize>> {
        let even = self.bytes.len().div_ceil(self.bytes.len().div_ceil(LEAF_BYTES).max(1));
        let enough = if is_end { LEAF_BYTES } else { even };
        let (mut pieces, mut from) = (Vec::new(), 0);
        for row in 1..self.starts.len() {
            let bytes = |until: usize| until - self.starts[from];
            let is_full = bytes(self.starts[row]) >= enough || bytes(self.end(row)) > LEAF_BYTES;
            // Leaves are told apart by the first place in them.
            if is_full && self.place(row) != self.place(row - 1) {
                pieces.push(from..row);
                from = row;
            }
        }
        pieces.push(from..self.starts.len());
        pieces
    }
}

/// Writes leaves, and keeps count of what is in them.
struct Writer<'a> {
    put: CachedStatement<'a>,
    remove: CachedStatement<'a>,
    find: CachedStatement<'a>,
    lose: CachedStatement<'a>,
    gone: u64,
    came: u64,
}

impl Writer<'_> {
    fn new(db: &Connection) -> rusqlite::Result<Writer<'_>> {
        Ok(Writer {
            put: db.prepare_cached("INSERT OR REPLACE INTO leaf (first, rows) VALUES (?1, ?2)")?,
            remove: db.prepare_cached("DELETE FROM leaf WHERE first = ?1")?,
            find: db.prepare_cached("INSERT OR IGNORE INTO person (found_by, idx) VALUES (?1, ?2)")?,
            lose: db.prepare_cached("DELETE FROM person WHERE found_by = ?1 AND idx = ?2")?,
            gone: 0,
            came: 0,
        })
    }

    /// Takes note of what a row was and is.
    fn note(&mut self, was: Option<Packed<'_>>, is: Option<Packed<'_>>) -> rusqlite::Result<()> {
        self.gone += u64::from(was.is_some() && is.is_none());
        self.came += u64::from(was.is_none() && is.is_some());
        let found_by = |row: Option<Packed<'_>>| row.map_or([None; 2], Packed::found_by);
        let (lost, found) = (found_by(was), found_by(is));
        if lost == found {
            return Ok(());
        }
        let Some(index) = was.or(is).map(Packed::index) else { return Ok(()) };
        for by in lost.into_iter().flatten() {
            self.lose.execute([by, index.0])?;
        }
        for by in found.into_iter().flatten() {
            self.find.execute([by, index.0])?;
        }
        Ok(())
    }

    /// Writes what is now of the leaf that was at this place.
    fn put(&mut self, was: i64, leaf: &Leaf, is_end: bool) -> rusqlite::Result<()> {
        if leaf.starts.is_empty() || leaf.place(0) != was {
            self.remove.execute([was])?;
        }
        if leaf.starts.is_empty() {
            return Ok(());
        }
        for rows in leaf.pieces(is_end) {
            let first = leaf.place(rows.start);
            let bytes = &leaf.bytes[leaf.starts[rows.start]..leaf.end(rows.end - 1)];
            self.put.execute(params![first, bytes])?;
        }
        Ok(())
    }

    fn finish(self, db: &Connection) -> rusqlite::Result<u64> {
        let more = self.came as i64 - self.gone as i64;
        if more != 0 {
            db.prepare_cached("UPDATE total SET accounts = accounts + ?1")?.execute([more])?;
        }
        Ok(self.gone)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::accounts::Accounts;
    use crate::vault::{ById, ByMobile, KeyRing};

    struct File {
        _dir: tempfile::TempDir,
        accounts: Accounts,
    }

    impl File {
        fn new() -> File {
            let dir = tempfile::tempdir().unwrap();
            let accounts = Accounts::open(&dir.path().join("accounts.db")).unwrap();
            File { _dir: dir, accounts }
        }

        fn db(&self) -> &Connection {
            &self.accounts.db
        }

        fn write(&self, changes: &[Change], generation: u32) -> u64 {
            let mut batch = Batch::of(changes);
            batch.sort();
            let transaction = self.db().unchecked_transaction().unwrap();
            let gone = write(&transaction, last_of_each(batch.edits()), generation).unwrap();
            transaction.commit().unwrap();
            gone
        }

        /// All rows: index, the byte they were made with, generation.
        fn rows(&self, after: &[u8]) -> Vec<(BlindIndex, u8, u32)> {
            let mut rows = Vec::new();
            let give = |row: Packed<'_>, generation| {
                rows.push((row.index(), row.verifiers()[0][0], generation));
                Ok(true)
            };
            scan(self.db(), after, give).unwrap();
            rows
        }

        fn leaves(&self) -> Vec<i64> {
            let mut lengths = self.db().prepare("SELECT length(rows) FROM leaf ORDER BY first").unwrap();
            lengths.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        }
    }

    /// Few places, so that rows meet, and some with the same first half.
    fn index(at: u16) -> BlindIndex {
        let mut index = [0; 16];
        index[..2].copy_from_slice(&(at / 2 * 10).to_be_bytes());
        index[15] = (at % 2) as u8;
        BlindIndex(index)
    }

    fn put(at: u16, byte: u8) -> Change {
        let verifier = Verifier([byte; 16]);
        let found_by = |by: u8| BlindIndex([by; 16]);
        let person = Person {
            by_id: byte.is_multiple_of(3).then(|| ById {
                index: found_by(byte),
                name: verifier,
                validity: byte.is_multiple_of(2).then_some(verifier),
            }),
            by_mobile: byte.is_multiple_of(5).then(|| ByMobile {
                index: found_by(byte),
                name: verifier,
                id: verifier,
            }),
        };
        let row = AccountRow {
            index: index(at),
            verifiers: Verifiers {
                name_exact: verifier,
                name_loose: verifier,
                id: verifier,
                mobile: verifier,
            },
            has_mobile: true,
            state: AccountState::Lost,
            kind: DocumentKind::Passport,
            keys: 1,
            person,
            is_short: false,
        };
        Change::Put(row, [byte; 16])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, u8),
        Delete(u16),
        Keep(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0..1500u16;
        prop_oneof![
            6 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Step::Put(at, byte)),
            2 => at.clone().prop_map(Step::Delete),
            1 => at.prop_map(Step::Keep),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn leaves_hold_what_a_map_holds(batches in prop::collection::vec(prop::collection::vec(step(), 0..600), 1..8)) {
            let (file, mut map) = (File::new(), BTreeMap::new());
            for (batch, generation) in batches.iter().zip(1..) {
                let before = map.clone();
                let mut changes = Vec::new();
                for step in batch {
                    match *step {
                        Step::Put(at, byte) => {
                            changes.push(put(at, byte));
                            map.insert(index(at), (byte, generation));
                        }
                        Step::Delete(at) => {
                            changes.push(Change::Delete(index(at)));
                            map.remove(&index(at));
                        }
                        Step::Keep(at) => {
                            changes.push(Change::Keep(index(at)));
                            map.entry(index(at)).and_modify(|row| row.1 = generation);
                        }
                    }
                }
                let gone = before.keys().filter(|index| !map.contains_key(index)).count() as u64;
                prop_assert_eq!(file.write(&changes, generation), gone);
                let all: Vec<_> = map.iter().map(|(index, (byte, from))| (*index, *byte, *from)).collect();
                prop_assert_eq!(file.rows(&[]), &all[..]);
                prop_assert_eq!(count(file.db()).unwrap(), all.len() as u64);
                let last = all.last().map_or(Vec::new(), |(index, ..)| index.0.to_vec());
                prop_assert_eq!(last_index(file.db()).unwrap(), last);
                let after = index(701);
                let later: Vec<_> = all.iter().filter(|row| row.0 > after).copied().collect();
                prop_assert_eq!(file.rows(&after.0), later);
            }
            for at in 0..1500 {
                let [here, next] = [index(at), index((at + 1) % 1500)];
                let byte = |found: Option<(AccountRow, [u8; 16])>| found.map(|(_, mac)| mac[0]);
                let expected = map.get(&here).map(|row| row.0);
                prop_assert_eq!(byte(find(file.db(), [&here, &here]).unwrap()), expected);
                // As during a rotation, when an account stands at one of two.
                if !map.contains_key(&next) {
                    prop_assert_eq!(byte(find(file.db(), [&next, &here]).unwrap()), expected);
                }
            }
            for by in 0..=255u8 {
                let mut found = found_by(file.db(), [BlindIndex([by; 16]); 2], 10_000).unwrap();
                found.sort();
                let is_found = by.is_multiple_of(3) || by.is_multiple_of(5);
                let expected: Vec<_> =
                    map.iter().filter(|(_, row)| is_found && row.0 == by).map(|(index, _)| *index).collect();
                prop_assert_eq!(found, expected);
            }
            // Two with the same first half cannot be parted, so one leaf may be longer by a row.
            prop_assert!(file.leaves().iter().all(|length| (1..=LEAF_BYTES as i64 + 208).contains(length)));
        }
    }

    /// Rows that come in order fill their pages; rows that come between them find room in pages next to each other.
    #[test]
    fn a_leaf_is_a_page() {
        let file = File::new();
        let page =
            |at: usize| (0..1000).map(move |row| put((2 * (at * 1000 + row)) as u16, 1)).collect::<Vec<_>>();
        (0..3).for_each(|at| assert_eq!(file.write(&page(at), 1), 0));
        let full = LEAF_BYTES / 108;
        assert_eq!(file.leaves().len(), 3000_usize.div_ceil(full));
        assert!(file.leaves().iter().all(|length| *length <= LEAF_BYTES as i64));
        let pages: i64 = file.db().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        assert!(pages <= file.leaves().len() as i64 + 15, "{pages}");
        let before = file.leaves().len();
        file.write(&[put(1, 1)], 1);
        assert_eq!(file.leaves().len(), before + 1);
        assert!(file.leaves()[..2].iter().all(|length| *length > LEAF_BYTES as i64 / 3));
        file.write(&(0..6000).map(|at| Change::Delete(index(at))).collect::<Vec<_>>(), 1);
        assert_eq!(file.leaves(), [] as [i64; 0]);
    }

    #[test]
    fn a_leaf_that_was_cut_or_changed_is_not_believed() {
        let keys = Keys::new(&KeyRing::generate());
        let row = |at| {
            let Change::Put(row, _) = put(at, 15) else { unreachable!() };
            let mac = row.mac(&keys).unwrap();
            Change::Put(row, mac)
        };
        let file = File::new();
        file.write(&[row(2), row(4), row(6)], 1);
        let whole: Vec<u8> = file.db().query_row("SELECT rows FROM leaf", [], |row| row.get(0)).unwrap();
        let tell = |leaf: &[u8]| {
            file.db().execute("UPDATE leaf SET rows = ?1", [leaf]).unwrap();
            let found =
                find(file.db(), [&index(6), &index(6)]).map_err(|cause| super::super::SCHEMA.error(cause))?;
            found.map(|(row, mac)| super::super::authentic(row, mac, &keys).map(|_| ())).transpose()
        };
        assert!(matches!(tell(&whole), Ok(Some(()))));
        // The place of another.
        let later: Vec<_> = (50..100).map(|at| row(2 * at)).collect();
        file.write(&later, 1);
        let other = "SELECT rows FROM leaf ORDER BY first DESC LIMIT 1";
        let other: Vec<u8> = file.db().query_row(other, [], |row| row.get(0)).unwrap();
        file.write(&(50..100).map(|at| Change::Delete(index(2 * at))).collect::<Vec<_>>(), 1);
        assert!(matches!(tell(&other), Err(StoreError::Damaged { .. })));
        assert!(matches!(tell(&whole[..whole.len() - 1]), Err(StoreError::Damaged { .. })));
        let last = whole.len() / 3 * 2;
        for at in last + 16..whole.len() - GENERATION - 4 {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            assert!(tell(&changed).is_err(), "byte {at}");
        }
    }
}
