//! The sealed table: all accounts once more, in a file that is looked into and never searched.
//!
//! `accounts.db` is the truth. This file is derived from it, is never changed, and can be dropped at any
//! time: it is written beside the one at work and takes its place by a rename. It has pages of 4 KiB, each
//! 63 slots of 64 bytes and an authentication tag; the blind index says which page and where to begin in it. A
//! page is authenticated when it is first looked into. A slot has a tag of its own too: where many accounts are looked
//! up once, as for a file of questions, it is enough, and says so without reading the whole page. That an account is
//! not there only the page can say.
//!
//! What happened since it was made is in `accounts.db`: single accounts by their index ([`Changes`]), which are
//! then looked up there; whatever changes many at once begins another *epoch*, in which this table is of no use.
//!
//! Verifiers are cut to 8 of their 16 bytes: `docs/decisions/0007-sealed-table.md` says why that is enough.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use memmap2::{Advice, Mmap};
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::leaves::{self, Batch, Packed};
use super::{AccountRow, Accounts, Person, SCHEMA, remove};
use crate::account::{AccountState, DocumentKind};
use crate::file::Paced;
use crate::store::StoreError;
use crate::vault::{BlindIndex, Cmac, Keys, Messages, Seal, Verifier, Verifiers, random};

const PAGE: usize = 4096;
const SLOT: usize = 64;
const SLOTS: usize = PAGE / SLOT - 1;
/// What a slot's tag covers, in front of it; the first 12 bytes of the tag follow.
const SLOT_TAGGED: usize = 52;
/// Accounts in a page on average: so full that few pages overflow, so empty that a look is short.
const FILL: u64 = 40;
/// Pages behind the last one, for what it has no room for.
const SPARE: u64 = 8;
const MAGIC: &[u8; 8] = b"c4etab02";
/// What the key of the pages is sealed for.
const PLACE: &[u8] = b"card4e accounts.table";
/// Fewer accounts than this are found as fast in `accounts.db`.
const WORTH_IT: u64 = 1000;
/// Single changes after which a table is made anew.
const CHANGES_MANY: usize = 50_000;
/// Single changes after which all of them are forgotten and another epoch begins.
const CHANGES_MAX: i64 = 1_000_000;
/// Rows authenticated together while one is made.
const TOGETHER: usize = 10_000;
/// How often somebody looks whether there is a newer table.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What `accounts.db` says of its own changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Tells the file from all others.
    id: [u8; 16],
    epoch: i64,
    /// Number of the last single change.
    last: i64,
}

impl State {
    fn of(db: &Connection) -> rusqlite::Result<State> {
        let find = "SELECT id, epoch, (SELECT coalesce(max(number), 0) FROM changed) FROM sealed";
        db.prepare_cached(find)?
            .query_row([], |row| Ok(State { id: row.get(0)?, epoch: row.get(1)?, last: row.get(2)? }))
    }
}

/// Notes in the same commit that many accounts change: no table made before is of use after it.
pub(super) fn begin_epoch(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE sealed SET epoch = epoch + 1")?.execute([])?;
    db.prepare_cached("DELETE FROM changed")?.execute([])?;
    Ok(())
}

/// Notes in the same commit that the account of this index changes.
pub(super) fn note_change(db: &Connection, index: &BlindIndex) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO changed (idx) VALUES (?1)")?.execute([&index.0[..]])?;
    if db.last_insert_rowid() % CHANGES_MAX == 0 { begin_epoch(db) } else { Ok(()) }
}

/// A table that is looked into.
#[derive(Debug)]
struct Table {
    map: Mmap,
    state: State,
    /// Version of the keys that wrap it.
    keys: u32,
    pages: u64,
    cipher: PageCipher,
    slots: SlotKey,
    /// By page: 0 not looked into, 1 authentic.
    checked: Vec<AtomicU8>,
    /// Tells the file from the one that takes its place.
    inode: u64,
}

struct PageCipher(Aes256Gcm);

impl std::fmt::Debug for PageCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageCipher(…)")
    }
}

/// The key that the tags of slots are made with.
struct SlotKey(Cmac);

impl std::fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlotKey(…)")
    }
}

impl SlotKey {
    /// Whether each of these slots was made with this key.
    fn made_all<'a>(&self, slots: impl Iterator<Item = &'a [u8; SLOT]> + Clone) -> bool {
        self.tags(slots.clone()).into_iter().zip(slots).all(|(tag, slot)| tag == slot[SLOT_TAGGED..])
    }

    fn tags<'a>(&self, slots: impl Iterator<Item = &'a [u8; SLOT]> + Clone) -> Vec<[u8; SLOT - SLOT_TAGGED]> {
        let mut messages = Messages::with_room_for(slots.clone().count());
        slots.for_each(|slot| messages.push(&self.0, &[&slot[..SLOT_TAGGED]]));
        let cut = |tag: &aes::Block| tag.0.first_chunk().copied().unwrap_or_default();
        self.0.tags(&messages).iter().map(cut).collect()
    }
}

/// The keys of a file: of its pages, of its slots.
fn ciphers(key: &[u8]) -> Option<(PageCipher, SlotKey)> {
    let (pages, slots) = key.split_first_chunk()?;
    Some((PageCipher::new(pages), SlotKey(Cmac::new(slots.try_into().ok()?))))
}

impl PageCipher {
    fn new(key: &[u8; 32]) -> PageCipher {
        PageCipher(Aes256Gcm::new(key.into()))
    }

    /// The tag over a page: the key belongs to one file, a page has one number, so no nonce comes twice.
    fn tag(&self, number: u64, page: &[u8]) -> [u8; 16] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        let tag = self.0.encrypt(&nonce.into(), Payload { msg: b"", aad: page }).unwrap_or_default();
        tag.try_into().unwrap_or_default()
    }
}

/// The header: a page of its own before the others.
struct Header {
    state: State,
    keys: u32,
    pages: u64,
    accounts: u64,
    sealed_key: Vec<u8>,
}

/// Place of the tag in a page.
const TAG: usize = PAGE - 16;
/// Number of the header among the pages.
const HEADER: u64 = u64::MAX;

impl Header {
    fn to_page(&self, cipher: &PageCipher) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let fields = [
            &MAGIC[..],
            &self.state.id,
            &self.state.epoch.to_be_bytes(),
            &self.state.last.to_be_bytes(),
            &self.keys.to_be_bytes(),
            &self.pages.to_be_bytes(),
            &self.accounts.to_be_bytes(),
            &(self.sealed_key.len() as u32).to_be_bytes(),
            &self.sealed_key,
        ]
        .concat();
        page[..fields.len()].copy_from_slice(&fields);
        let tag = cipher.tag(HEADER, &page[..TAG]);
        page[TAG..].copy_from_slice(&tag);
        page
    }

    /// Reads the fields; whether they are authentic is known once the key is open.
    fn read(page: &[u8]) -> Option<Header> {
        let (magic, rest) = page.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let (keys, rest) = rest.split_first_chunk::<4>()?;
        let (pages, rest) = rest.split_first_chunk::<8>()?;
        let (accounts, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let sealed_key = rest.get(..u32::from_be_bytes(*length) as usize)?.to_vec();
        let state = State { id: *id, epoch: i64::from_be_bytes(*epoch), last: i64::from_be_bytes(*last) };
        (magic == MAGIC).then_some(Header {
            state,
            keys: u32::from_be_bytes(*keys),
            pages: u64::from_be_bytes(*pages),
            accounts: u64::from_be_bytes(*accounts),
            sealed_key,
        })
    }
}

/// The page an index belongs to; in the order of the indexes.
fn home(index: &BlindIndex, pages: u64) -> u64 {
    let high = index.0.first_chunk().map_or(0, |high| u64::from_be_bytes(*high));
    ((u128::from(high) * u128::from(pages)) >> 64) as u64
}

/// The slot where a look at a page begins.
fn first_slot(index: &BlindIndex) -> usize {
    let low = index.0.last_chunk().map_or(0, |low| u32::from_be_bytes(*low));
    low as usize % SLOTS
}

fn slot_of(row: Packed<'_>) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..16].copy_from_slice(&row.index().0);
    for (at, verifier) in row.verifiers().into_iter().enumerate() {
        slot[16 + 8 * at..24 + 8 * at].copy_from_slice(&verifier[..8]);
    }
    let (state, kind) = row.state_and_kind();
    slot[48..52].copy_from_slice(&[1, state, kind, u8::from(row.has_mobile())]);
    slot
}

#[inline]
pub(super) fn row_of(slot: &[u8], keys: u32) -> Option<AccountRow> {
    let verifier = |at: usize| {
        let mut verifier = [0; 16];
        verifier[..8].copy_from_slice(&slot[16 + 8 * at..24 + 8 * at]);
        Verifier(verifier)
    };
    Some(AccountRow {
        index: BlindIndex(*slot.first_chunk()?),
        verifiers: Verifiers {
            name_exact: verifier(0),
            name_loose: verifier(1),
            id: verifier(2),
            mobile: verifier(3),
        },
        has_mobile: slot[51] == 1,
        state: AccountState::from_code(slot[49]).unwrap_or(AccountState::Abnormal),
        kind: DocumentKind::from_code(slot[50]).unwrap_or(DocumentKind::Other),
        keys,
        person: Person::default(),
        is_short: true,
    })
}

/// What the table says of an index.
pub(super) enum Found {
    /// The slot, authentic.
    At([u8; SLOT]),
    /// There is no such account.
    Nowhere,
    /// The file has to be asked.
    Unknown,
}

/// A page is not what was written.
#[derive(Debug)]
struct Changed;

impl Table {
    /// Opens the file at a place, if there is one that these keys open.
    fn open(path: &Path, keys: &Keys) -> Option<Table> {
        let file = File::open(path).ok()?;
        let inode = file.metadata().ok()?.ino();
        #[expect(
            unsafe_code,
            reason = "the file is its owner's alone, never changed, and replaced by rename"
        )]
        let map = unsafe { Mmap::map(&file) }.ok()?;
        let header = Header::read(map.get(..PAGE)?)?;
        let key: Zeroizing<Vec<u8>> = keys.open(Seal::Side, PLACE, &header.sealed_key).ok()?;
        let (cipher, slots) = ciphers(&key)?;
        let is_whole = header.pages.checked_add(SPARE + 1)?.checked_mul(PAGE as u64)? == map.len() as u64;
        if !is_whole || cipher.tag(HEADER, &map[..TAG]) != map[TAG..PAGE] {
            return None;
        }
        let mut checked = Vec::new();
        checked.resize_with((header.pages + SPARE) as usize, AtomicU8::default);
        let _ = map.advise(Advice::Random);
        let (state, keys, pages) = (header.state, header.keys, header.pages);
        Some(Table { map, state, keys, pages, cipher, slots, checked, inode })
    }

    /// Reads the whole file ahead: what is cold costs more than a look-up. In parts, because meanwhile no other thread
    /// is given memory, nor can begin.
    fn populate(&self) {
        const PART: usize = 1 << 20;
        for from in (0..self.map.len()).step_by(PART) {
            let _ = self.map.advise_range(Advice::PopulateRead, from, PART.min(self.map.len() - from));
        }
    }

    fn page(&self, number: u64) -> Result<&[u8], Changed> {
        let start = (number as usize + 1) * PAGE;
        let page = &self.map[start..start + PAGE];
        let checked = &self.checked[number as usize];
        if checked.load(Ordering::Relaxed) == 0 {
            if self.cipher.tag(number, &page[..TAG]) != page[TAG..] {
                return Err(Changed);
            }
            checked.store(1, Ordering::Relaxed);
        }
        Ok(page)
    }

    /// The slot of an index and the number of its page, as they are; nobody has authenticated them.
    #[inline]
    fn slot(&self, index: &BlindIndex) -> Option<(&[u8; SLOT], u64)> {
        let (home, mut at) = (home(index, self.pages), first_slot(index));
        for number in home..self.pages + SPARE {
            let start = (number as usize + 1) * PAGE;
            let (slots, _) = self.map[start..start + TAG].as_chunks::<SLOT>();
            for _ in 0..SLOTS {
                let slot = &slots[at];
                if slot[48] == 0 {
                    return None;
                }
                if slot[..16] == index.0 {
                    return Some((slot, number));
                }
                at = if at + 1 == SLOTS { 0 } else { at + 1 };
            }
        }
        None
    }

    /// What is at many indexes: found by their slots, where these are whole.
    fn find_many(
        &self,
        indexes: &[BlindIndex],
        changed: &HashSet<BlindIndex>,
    ) -> Result<Vec<Found>, Changed> {
        let (mut found, mut unchecked) =
            (Vec::with_capacity(indexes.len()), Vec::with_capacity(indexes.len()));
        for (at, index) in indexes.iter().enumerate() {
            found.push(match self.slot(index).filter(|_| !changed.contains(index)) {
                Some((slot, page)) => {
                    if self.checked[page as usize].load(Ordering::Relaxed) == 0 {
                        unchecked.push(at);
                    }
                    Found::At(*slot)
                }
                None if changed.contains(index) || self.find(index)?.is_some() => Found::Unknown,
                None => Found::Nowhere,
            });
        }
        let slots = unchecked.iter().filter_map(|at| match &found[*at] {
            Found::At(slot) => Some(slot),
            Found::Nowhere | Found::Unknown => None,
        });
        if self.slots.made_all(slots) { Ok(found) } else { Err(Changed) }
    }

    fn find(&self, index: &BlindIndex) -> Result<Option<AccountRow>, Changed> {
        let (home, first) = (home(index, self.pages), first_slot(index));
        for number in home..self.pages + SPARE {
            let page = self.page(number)?;
            for at in 0..SLOTS {
                let at = (first + at) % SLOTS * SLOT;
                let slot = &page[at..at + SLOT];
                if slot[48] == 0 {
                    return Ok(None);
                }
                if slot[..16] == index.0 {
                    return Ok(row_of(slot, self.keys));
                }
            }
        }
        Ok(None)
    }
}

/// Where the table of a data folder is, and the one at work; shared by all who look accounts up.
#[derive(Debug)]
pub struct TablePlace {
    path: PathBuf,
    at_work: RwLock<Option<Arc<Table>>>,
    looked_at: Mutex<Option<Instant>>,
}

/// The question that opened the table goes first, with its commit: while the file is read ahead, the process gets new
/// memory between two parts of it only.
const AHEAD_AFTER: Duration = Duration::from_millis(200);

impl TablePlace {
    /// Beside the accounts of a folder.
    pub fn of(accounts: &Path) -> TablePlace {
        TablePlace { path: path_beside(accounts), at_work: RwLock::default(), looked_at: Mutex::default() }
    }

    /// The table there is now. A newer one is noticed soon.
    fn current(&self, keys: &Keys) -> Option<Arc<Table>> {
        let at_work = || self.at_work.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if looked_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return at_work();
        }
        *looked_at = Some(Instant::now());
        let inode = std::fs::metadata(&self.path).ok().map(|file| file.ino());
        let known = at_work();
        if known.as_ref().map(|table| table.inode) == inode {
            return known;
        }
        let table = Table::open(&self.path, keys).map(Arc::new);
        *self.at_work.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        if let Some(table) = table.clone() {
            // Nobody waits for it, and whoever waits for an answer goes first.
            let populate = move || {
                let _ = rustix::process::nice(15);
                std::thread::sleep(AHEAD_AFTER);
                table.populate();
            };
            let _ = std::thread::Builder::new().name("card4e-ahead".into()).spawn(populate);
        }
        table
    }

    /// One that was changed is not looked into again.
    fn drop_changed(&self) {
        tracing::error!(
            "accounts.table is not as it was written; accounts are looked up in accounts.db until it is made anew"
        );
        let _ = std::fs::remove_file(&self.path);
        *self.at_work.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A reader's table, and the single accounts that changed since it was made.
#[derive(Debug)]
pub(super) struct Changes {
    place: Arc<TablePlace>,
    table: Option<Arc<Table>>,
    /// Up to here the changes are known.
    seen: i64,
    changed: HashSet<BlindIndex>,
    /// Whether it may be used in this look.
    is_fresh: bool,
}

impl Changes {
    pub(super) fn new(place: Arc<TablePlace>) -> Changes {
        Changes { place, table: None, seen: 0, changed: HashSet::new(), is_fresh: false }
    }

    /// Sees what happened, in the look that has just begun.
    pub(super) fn look(&mut self, db: &Connection, keys: &Keys) -> rusqlite::Result<()> {
        self.is_fresh = false;
        let current = self.place.current(keys);
        let Some(table) = current else {
            self.table = None;
            return Ok(());
        };
        if self.table.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &table)) {
            self.changed.clear();
            self.seen = table.state.last;
            self.table = Some(Arc::clone(&table));
        }
        let state = State::of(db)?;
        if (state.id, state.epoch) != (table.state.id, table.state.epoch)
            || table.keys != keys.accounts().version
        {
            return Ok(());
        }
        if state.last < table.state.last {
            // Somebody has put an older accounts.db in place of the one it was made of.
            self.place.drop_changed();
            return Ok(());
        }
        if state.last > self.seen {
            let mut find = db.prepare_cached("SELECT idx FROM changed WHERE number > ?1")?;
            for index in find.query_map([self.seen], |row| row.get(0).map(BlindIndex))? {
                self.changed.insert(index?);
            }
            self.seen = state.last;
        }
        self.is_fresh = true;
        Ok(())
    }

    pub(super) fn look_away(&mut self) {
        self.is_fresh = false;
    }

    fn fetch(&self, indexes: &[BlindIndex]) {
        let Some(table) = self.table.as_ref().filter(|_| self.is_fresh) else { return };
        let mut sum = 0u8;
        for index in indexes {
            let (page, slot) = (home(index, table.pages) as usize, first_slot(index));
            let start = (page + 1) * PAGE;
            // One in three is in the next slot or behind it.
            sum ^= table.map[start + slot * SLOT] ^ table.map[start + (slot + 1) % SLOTS * SLOT];
            sum ^= table.checked[page].load(Ordering::Relaxed);
        }
        std::hint::black_box(sum);
    }

    /// What the table says; nothing when `accounts.db` must be asked.
    ///
    /// The index is one under the newest of these keys, which may be newer than those of the look.
    pub(super) fn find(&self, index: &BlindIndex, keys: &Keys) -> Option<Option<AccountRow>> {
        let table = self.table.as_ref().filter(|_| self.is_fresh)?;
        if table.keys != keys.accounts().version {
            return None;
        }
        if self.changed.contains(index) {
            return None;
        }
        table.find(index).map_err(|Changed| self.place.drop_changed()).ok()
    }

    /// The same of many at once.
    pub(super) fn find_many(&self, indexes: &[BlindIndex], keys: &Keys) -> Option<Vec<Found>> {
        let table = self.table.as_ref().filter(|_| self.is_fresh)?;
        if table.keys != keys.accounts().version {
            return None;
        }
        table.find_many(indexes, &self.changed).map_err(|Changed| self.place.drop_changed()).ok()
    }
}

fn path_beside(accounts: &Path) -> PathBuf {
    accounts.with_file_name("accounts.table")
}

/// What the name of a table ends in until it is finished: of one that is made of all accounts, and of one that is made
/// of the runs of an import.
const OF_ACCOUNTS: &str = "table.next";
pub(super) const OF_RUNS: &str = "table.import";

/// What a table was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Accounts in it.
    pub accounts: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Accounts {
    /// Removes the table: it holds what was just deleted. Whoever looks into it does so no more from the next
    /// look on; another is made in the background.
    pub fn drop_table(&mut self) -> Result<(), StoreError> {
        self.change(None, begin_epoch)?;
        let path = path_beside(&self.path);
        remove(path)?;
        self.drop_unfinished(OF_ACCOUNTS)?;
        self.drop_unfinished(OF_RUNS)
    }

    /// Removes a table that was not finished because whoever made it was killed: it holds accounts like any other. One
    /// that is being made stays; it is refused or removed by whoever makes it.
    pub(super) fn drop_unfinished(&self, beside: &str) -> Result<(), StoreError> {
        let next = path_beside(&self.path).with_extension(beside);
        if !next.exists() {
            return Ok(());
        }
        match crate::file::private_alone(&next) {
            Ok(Some(_held)) => remove(next),
            Ok(None) => Ok(()),
            Err(cause) => Err(StoreError::Folder { path: next, cause }),
        }
    }

    /// Brings the places of these accounts nearer, all at once: each alone would be waited for.
    pub(crate) fn fetch(&self, indexes: &[BlindIndex]) {
        if let Some(table) = self.table.as_ref().filter(|_| self.looking.get().is_some()) {
            table.borrow().fetch(indexes);
        }
    }

    /// How often many accounts were changed at once: while an import runs it is always another number.
    pub fn epoch(&self) -> Result<i64, StoreError> {
        State::of(&self.db).map(|state| state.epoch).map_err(|cause| SCHEMA.error(cause))
    }

    /// Whether a table would help and there is none that does, or one with many changes since.
    pub fn table_is_due(&self, keys: &Keys) -> Result<bool, StoreError> {
        let state = State::of(&self.db).map_err(|cause| SCHEMA.error(cause))?;
        if self.count()? < WORTH_IT {
            return Ok(false);
        }
        let path = path_beside(&self.path);
        let known = Table::open(&path, keys).filter(|table| table.keys == keys.accounts().version);
        Ok(known.is_none_or(|table| {
            (table.state.id, table.state.epoch) != (state.id, state.epoch)
                || state.last - table.state.last > CHANGES_MANY as i64
        }))
    }

    /// Makes the table anew, from one state of the accounts, and puts it in its place. `go_on` is asked from time
    /// to time; when it says no, everything stays as it was, and so it does while somebody else makes one: an import at
    /// its end and a server look whether one is due by themselves.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] at the first account that was changed outside card4e.
    pub fn make_table(&self, keys: &Keys, go_on: impl Fn() -> bool) -> Result<Option<Made>, StoreError> {
        let look = self.db.unchecked_transaction().map_err(|cause| SCHEMA.error(cause))?;
        let state = State::of(&look).map_err(|cause| SCHEMA.error(cause))?;
        let Some(mut table) = self.begin_table(self.count()?, keys, OF_ACCOUNTS)? else { return Ok(None) };
        let mut after = Vec::new();
        while go_on() {
            let mut rows = Batch::default();
            let read = leaves::scan(&look, &after, |row, _| {
                rows.push_row(row);
                Ok(rows.len() < TOGETHER)
            });
            read.map_err(|cause| SCHEMA.error(cause))?;
            let Some(last) = rows.rows().last() else { return table.finish(state).map(Some) };
            after = last.index().0.to_vec();
            leaves::authenticate(rows.rows(), keys)?;
            if rows.rows().any(|row| row.keys() != table.keys) {
                // A rotation moves the rows just now.
                return Ok(None);
            }
            rows.rows().try_for_each(|row| table.put(row))?;
        }
        Ok(None)
    }

    /// Begins a table of accounts that come in the order of their indexes; `at_most` so many. Until it is finished its
    /// name ends in `beside`. `None` while somebody else makes one under that name.
    pub(super) fn begin_table(
        &self,
        at_most: u64,
        keys: &Keys,
        beside: &str,
    ) -> Result<Option<TableMaker>, StoreError> {
        let path = path_beside(&self.path);
        let next = path.with_extension(beside);
        let failed = |cause| StoreError::Folder { path: next.clone(), cause };
        let Some(file) = crate::file::private_alone(&next).map_err(failed)? else { return Ok(None) };
        let key: Zeroizing<[u8; 64]> = Zeroizing::new(random());
        let Some((cipher, slots)) = ciphers(&key[..]) else { return Ok(None) };
        let pages = at_most.div_ceil(FILL).max(1);
        // The header comes last: without it, it is no table.
        let mut to = Paced::new(file).map_err(failed)?;
        to.write_all(&[0; PAGE]).map_err(failed)?;
        let to = Pages { to, cipher, slots, pages, page: [0; PAGE], number: 0, used: 0 };
        let epoch_of_others = data_version(&self.db).map_err(|cause| SCHEMA.error(cause))?;
        Ok(Some(TableMaker {
            path,
            next,
            to: Some(to),
            keys: keys.accounts().version,
            sealed_key: keys.seal(Seal::Side, PLACE, &key[..]),
            made: 0,
            epoch_of_others,
        }))
    }

    /// Puts a table of all accounts in its place, if nobody but this connection has changed any since it was begun.
    pub fn finish_table(&self, table: TableMaker) -> Result<Option<Made>, StoreError> {
        let look = self.db.unchecked_transaction().map_err(|cause| SCHEMA.error(cause))?;
        let state = State::of(&look).map_err(|cause| SCHEMA.error(cause))?;
        let others = data_version(&look).map_err(|cause| SCHEMA.error(cause))?;
        if others != table.epoch_of_others || self.count()? != table.made {
            return Ok(None);
        }
        table.finish(state).map(Some)
    }
}

/// Another number after each commit of another connection, and only then.
pub(super) fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// A table that is being made. Dropped, it leaves nothing behind.
pub struct TableMaker {
    path: PathBuf,
    next: PathBuf,
    /// Nothing once it is finished.
    to: Option<Pages>,
    keys: u32,
    sealed_key: Vec<u8>,
    made: u64,
    epoch_of_others: i64,
}

impl Drop for TableMaker {
    fn drop(&mut self) {
        if self.to.is_some() {
            let _ = std::fs::remove_file(&self.next);
        }
    }
}

impl TableMaker {
    /// Adds the account that comes next.
    pub(super) fn put(&mut self, row: Packed<'_>) -> Result<(), StoreError> {
        self.made += 1;
        let put = self.to.as_mut().map_or(Ok(()), |to| to.put(row));
        put.map_err(|cause| StoreError::Folder { path: self.next.clone(), cause })
    }

    /// Makes it durable as the table of the accounts in that state.
    fn finish(mut self, state: State) -> Result<Made, StoreError> {
        let next = self.next.clone();
        let failed = |cause| StoreError::Folder { path: next.clone(), cause };
        let Some(to) = self.to.as_mut() else { return Ok(Made { accounts: 0, bytes: 0 }) };
        let pages = to.pages;
        let sealed_key = std::mem::take(&mut self.sealed_key);
        let header = Header { state, keys: self.keys, pages, accounts: self.made, sealed_key };
        let page = header.to_page(&to.cipher);
        let file = to.finish().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&page)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&next, &self.path)
            .and_then(|()| crate::file::sync_folder_of(&self.path))
            .map_err(failed)?;
        self.to = None;
        Ok(Made { accounts: self.made, bytes: (pages + SPARE + 1) * PAGE as u64 })
    }
}

/// Pages that are filled one after the other: accounts come in the order of their pages.
struct Pages {
    to: Paced,
    cipher: PageCipher,
    slots: SlotKey,
    pages: u64,
    page: [u8; PAGE],
    number: u64,
    used: usize,
}

impl Pages {
    fn put(&mut self, row: Packed<'_>) -> std::io::Result<()> {
        let index = row.index();
        while self.number < home(&index, self.pages) || self.used == SLOTS {
            if self.number + 1 == self.pages + SPARE {
                return Err(std::io::Error::other("the accounts are not spread as blind indexes are"));
            }
            self.turn()?;
        }
        let first = first_slot(&index);
        let free = (0..SLOTS).map(|at| (first + at) % SLOTS * SLOT).find(|at| self.page[at + 48] == 0);
        if let Some(at) = free {
            self.page[at..at + SLOT].copy_from_slice(&slot_of(row));
            self.used += 1;
        }
        Ok(())
    }

    fn turn(&mut self) -> std::io::Result<()> {
        let (slots, _) = self.page[..TAG].as_chunks_mut::<SLOT>();
        let tags = self.slots.tags(slots.iter());
        for (slot, tag) in slots.iter_mut().zip(tags).filter(|(slot, _)| slot[48] != 0) {
            slot[SLOT_TAGGED..].copy_from_slice(&tag);
        }
        let tag = self.cipher.tag(self.number, &self.page[..TAG]);
        self.page[TAG..].copy_from_slice(&tag);
        self.to.write_all(&self.page)?;
        (self.page, self.used) = ([0; PAGE], 0);
        self.number += 1;
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<&mut File> {
        while self.number < self.pages + SPARE {
            self.turn()?;
        }
        self.to.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountText;
    use crate::store::{AccountChange, AccountOrder, AccountSpot, Import, Source};
    use crate::subject::{Date, ParseOptions};
    use crate::vault::{KeyRing, Vault};

    struct Folder {
        dir: tempfile::TempDir,
        vault: Vault,
    }

    fn row(card: u64, state: &str, vault: &Vault) -> AccountRow {
        let text = AccountText {
            card: &format!("621700{card:010}"),
            name: "李雷",
            kind: "",
            id: "990101199001010019",
            mobile: "16100000101",
            state,
            validity: "",
        };
        let mut options = ParseOptions::new(Date::new(2026, 1, 1).unwrap());
        options.test_land = true;
        text.row(&options, vault).unwrap()
    }

    impl Folder {
        fn with(accounts: u64) -> Folder {
            let folder =
                Folder { dir: tempfile::tempdir().unwrap(), vault: Vault::new(&KeyRing::generate()) };
            let rows: Vec<_> = (0..accounts).map(|card| row(card, "", &folder.vault)).collect();
            folder.accounts().put(&rows, &folder.vault).unwrap();
            folder
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("accounts.db")
        }

        fn accounts(&self) -> Accounts {
            Accounts::open(&self.path()).unwrap()
        }

        fn make(&self) -> Made {
            self.accounts().make_table(&self.vault.keys(), || true).unwrap().unwrap()
        }

        fn reader(&self) -> Accounts {
            Accounts::open_reader_of(&self.path(), Arc::new(TablePlace::of(&self.path()))).unwrap()
        }

        /// The states of many cards' accounts, and whether the table was enough to tell them.
        fn told_many(&self, reader: &Accounts, cards: &[u64]) -> (Vec<Option<AccountState>>, bool) {
            let keys = self.vault.keys();
            reader.look_with(&keys).unwrap();
            let index = |card: &u64| keys.index(&format!("621700{card:010}"), keys.accounts());
            let indexes: Vec<BlindIndex> = cards.iter().map(index).collect();
            let mut is_short = true;
            let told = reader.find_many(&indexes, &keys, |_, row| {
                is_short &= row.is_none_or(|row| row.is_short);
                row.map(|row| row.state)
            });
            reader.look_away();
            (told.unwrap(), is_short)
        }

        /// The state of a card's account, and whether the table was enough to tell it.
        fn told(&self, reader: &Accounts, card: u64) -> (Option<AccountState>, bool) {
            let keys = self.vault.keys();
            reader.look_with(&keys).unwrap();
            let card = format!("621700{card:010}");
            let short = reader.in_table(&keys.index(&card, keys.accounts()), &keys).is_some();
            let found = reader.find(&card, &keys).unwrap();
            reader.look_away();
            (found.map(|row| row.state), short)
        }
    }

    #[test]
    fn every_account_is_found_and_no_other() {
        let folder = Folder::with(3000);
        assert!(folder.accounts().table_is_due(&folder.vault.keys()).unwrap());
        assert_eq!(folder.make().accounts, 3000);
        assert!(!folder.accounts().table_is_due(&folder.vault.keys()).unwrap());
        let reader = folder.reader();
        for card in 0..3000 {
            assert_eq!(folder.told(&reader, card), (Some(AccountState::Normal), true), "{card}");
        }
        for card in 3000..6000 {
            assert_eq!(folder.told(&reader, card), (None, true), "{card}");
        }
    }

    #[test]
    fn one_whose_maker_was_killed_goes_with_the_table_and_one_at_work_stays() {
        let folder = Folder::with(3000);
        let (keys, mut accounts) = (folder.vault.keys(), folder.accounts());
        let of_runs = folder.path().with_extension(OF_RUNS);
        let of_accounts = folder.path().with_extension(OF_ACCOUNTS);
        std::fs::write(&of_runs, b"accounts").unwrap();
        let at_work = folder.accounts().begin_table(3000, &keys, OF_ACCOUNTS).unwrap().unwrap();
        accounts.drop_table().unwrap();
        assert!(!of_runs.exists() && of_accounts.exists());
        drop(at_work);
        std::fs::write(&of_accounts, b"accounts").unwrap();
        accounts.drop_table().unwrap();
        assert!(!of_accounts.exists());
    }

    /// A server looks whether one is due while an import makes one at its end.
    #[test]
    fn of_those_who_make_it_at_once_one_does() {
        let folder = Folder::with(3000);
        let keys = folder.vault.keys();
        let one = folder.accounts().begin_table(3000, &keys, OF_ACCOUNTS).unwrap().unwrap();
        assert!(folder.accounts().make_table(&keys, || true).unwrap().is_none());
        drop(one);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        folder.accounts().make_table(&keys, || true).unwrap();
                    }
                });
            }
        });
        let reader = folder.reader();
        assert_eq!(folder.told(&reader, 2999), (Some(AccountState::Normal), true));
        assert!(!folder.accounts().table_is_due(&keys).unwrap());
    }

    #[test]
    fn many_are_found_by_their_slots_and_what_is_not_there_is_not() {
        let folder = Folder::with(3000);
        folder.make();
        let cards: Vec<u64> = (0..6000).step_by(7).collect();
        let there: Vec<_> = cards.iter().map(|card| (*card < 3000).then_some(AccountState::Normal)).collect();
        let reader = folder.reader();
        for _ in 0..2 {
            assert_eq!(folder.told_many(&reader, &cards), (there.clone(), true));
        }
        let spot = AccountSpot::of("6217000000000007", &folder.vault);
        let lost = AccountOrder::SetState(spot, AccountState::Lost);
        folder.accounts().carry_out(&[lost], &folder.vault).unwrap();
        let (told, is_short) = folder.told_many(&reader, &cards);
        assert_eq!((told[1], is_short), (Some(AccountState::Lost), false));
        assert!(told[2..] == there[2..]);
    }

    #[test]
    fn a_single_change_is_seen_at_once() {
        let folder = Folder::with(1200);
        folder.make();
        let (reader, vault) = (folder.reader(), &folder.vault);
        assert_eq!(folder.told(&reader, 7), (Some(AccountState::Normal), true));
        let spot = |card: u64| AccountSpot::of(&format!("621700{card:010}"), vault);
        let lost = AccountOrder::SetState(spot(7), AccountState::Lost);
        let orders = [lost, AccountOrder::Delete(spot(8)), AccountOrder::Put(row(9000, "", vault))];
        folder.accounts().carry_out(&orders, vault).unwrap();
        assert_eq!(folder.told(&reader, 7), (Some(AccountState::Lost), false));
        assert_eq!(folder.told(&reader, 8), (None, false));
        assert_eq!(folder.told(&reader, 9000), (Some(AccountState::Normal), false));
        assert_eq!(folder.told(&reader, 9), (Some(AccountState::Normal), true));
        let keys = vault.keys();
        folder.accounts().delete(&keys.index("6217000000000009", keys.accounts()), &keys).unwrap();
        assert_eq!(folder.told(&reader, 9), (None, false));
    }

    #[test]
    fn after_an_import_the_table_is_of_no_use_until_it_is_made_anew() {
        let folder = Folder::with(1200);
        folder.make();
        let (reader, vault) = (folder.reader(), &folder.vault);
        let mut accounts = folder.accounts();
        let source = Source { identity: None, is_replacing: false, from_start: true };
        accounts.begin_import(&source).unwrap();
        assert_eq!(folder.told(&reader, 7), (Some(AccountState::Normal), true));
        let change = AccountChange::put(row(7, "lost", vault), vault);
        accounts.import(&[change], Import::default()).unwrap();
        assert_eq!(folder.told(&reader, 7), (Some(AccountState::Lost), false));
        assert!(accounts.table_is_due(&vault.keys()).unwrap());
        folder.make();
        assert_eq!(folder.told(&folder.reader(), 7), (Some(AccountState::Lost), true));
    }

    #[test]
    fn a_changed_byte_anywhere_is_never_believed() {
        let folder = Folder::with(1500);
        folder.make();
        let path = folder.dir.path().join("accounts.table");
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(977) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &changed).unwrap();
            let reader = folder.reader();
            for card in (0..1500).step_by(100) {
                assert_eq!(folder.told(&reader, card).0, Some(AccountState::Normal), "byte {at}");
            }
            std::fs::write(&path, &changed).unwrap();
            let all: Vec<u64> = (0..1500).collect();
            let (told, is_short) = folder.told_many(&folder.reader(), &all);
            assert!(told.iter().all(|state| *state == Some(AccountState::Normal)), "byte {at}");
            // Whether anybody looks at a byte by which no account is told, is another matter.
            let (page, within) = (at / PAGE, at % PAGE);
            let slot = &whole[page * PAGE + within / SLOT * SLOT..][..SLOT];
            if page > 0 && within < TAG - SLOT && slot[48] != 0 {
                assert!(!is_short, "byte {at}");
            }
            std::fs::write(&path, &whole).unwrap();
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(folder.told(&folder.reader(), 1), (Some(AccountState::Normal), false));
    }

    #[test]
    fn keys_that_were_replaced_in_the_middle_of_a_look_do_not_hide_an_account() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = KeyRing::generate();
        let vault = Vault::new(&ring);
        let path = dir.path().join("accounts.db");
        let rows: Vec<_> = (0..1200).map(|card| row(card, "", &vault)).collect();
        Accounts::open(&path).unwrap().put(&rows, &vault).unwrap();
        Accounts::open(&path).unwrap().make_table(&vault.keys(), || true).unwrap();
        let reader = Accounts::open_reader_of(&path, Arc::new(TablePlace::of(&path))).unwrap();
        reader.look_with(&vault.keys()).unwrap();
        ring.add(crate::vault::KeyGroup::Accounts, 7);
        let newer = Vault::new(&ring);
        assert!(reader.find("6217000000000007", &newer.keys()).unwrap().is_some());
    }

    #[test]
    fn an_older_file_put_in_its_place_is_believed_and_not_the_table() {
        let folder = Folder::with(1200);
        let older = folder.dir.path().join("older.db");
        Accounts::copy(&folder.path(), &older, |_, _| ()).unwrap();
        let spot = AccountSpot::of("6217000000000007", &folder.vault);
        let lost = AccountOrder::SetState(spot, AccountState::Lost);
        folder.accounts().carry_out(&[lost], &folder.vault).unwrap();
        folder.make();
        assert_eq!(folder.told(&folder.reader(), 7).0, Some(AccountState::Lost));
        for end in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(folder.path().with_extension(end));
        }
        std::fs::copy(older, folder.path()).unwrap();
        assert_eq!(folder.told(&folder.reader(), 7), (Some(AccountState::Normal), false));
        assert!(!folder.dir.path().join("accounts.table").exists());
    }

    #[test]
    fn the_table_of_another_file_is_not_believed() {
        let (one, other) = (Folder::with(1200), Folder::with(1300));
        other.make();
        let table = |folder: &Folder| folder.dir.path().join("accounts.table");
        std::fs::copy(table(&other), table(&one)).unwrap();
        assert_eq!(one.told(&one.reader(), 7), (Some(AccountState::Normal), false));
        // The same keys, another file.
        let twin = Folder { dir: tempfile::tempdir().unwrap(), vault: Vault::new(&KeyRing::generate()) };
        let twin = Folder { vault: other.vault, ..twin };
        twin.accounts().put(&[row(1, "", &twin.vault)], &twin.vault).unwrap();
        std::fs::copy(
            table(&Folder { dir: other.dir, vault: Vault::new(&KeyRing::generate()) }),
            table(&twin),
        )
        .unwrap();
        assert_eq!(twin.told(&twin.reader(), 7), (None, false));
    }
}
