//! The way of a large file into the accounts. Blind indexes are random: written as its rows come, each batch would
//! touch most pages of `accounts.db`. So they are put into runs first, some batches of rows sorted by index, one
//! behind the other in `accounts.runs`; from there they are written in order, and each page is touched once.
//!
//! A run is durable before `accounts.db` says that its rows were read; what is behind the last one it knows is
//! cut off. Then the rows are written a part of all indexes at a time, with how far it came in the same commit. Rows
//! are in the file as they are in `accounts.db`, and their authentication is looked at on the way.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rusqlite::{Connection, OptionalExtension, params};

use super::import::{self, Import};
use super::leaves::{self, Batch, Edit, NoEdit, number};
use super::table::TableMaker;
use super::{Accounts, SCHEMA, rewrap, table};
use crate::file::Paced;
use crate::store::StoreError;
use crate::vault::{BlindIndex, Keys};

/// Read at once from each of the runs.
const READ_BYTES: usize = 256 << 10;

/// Rows written in one commit at most: a server on the same disk waits for what one of them syncs.
const PART_ROWS_MAX: usize = 25_000;
/// Pages the log may hold while they are written: 4 MiB.
const LOG_PAGES: i64 = 1024;

/// Where the runs of a folder are.
pub(super) fn path_beside(accounts: &Path) -> PathBuf {
    accounts.with_file_name("accounts.runs")
}

/// Forgets all runs, in the commit of whoever calls; [`remove`] follows it.
pub(super) fn forget(db: &Connection) -> rusqlite::Result<()> {
    db.execute("DELETE FROM left_alone", [])?;
    db.execute("DELETE FROM run", []).map(drop)
}

/// While there are runs, notes that they are older than the account of this index.
pub(super) fn leave_alone(db: &Connection, index: &BlindIndex) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO left_alone SELECT ?1 WHERE EXISTS (SELECT 1 FROM run)")?
        .execute([&index.0[..]])
        .map(drop)
}

/// The accounts that are newer than the runs.
fn left_alone(db: &Connection) -> rusqlite::Result<HashSet<BlindIndex>> {
    let mut left = db.prepare_cached("SELECT idx FROM left_alone")?;
    left.query_map([], |row| row.get(0).map(BlindIndex))?.collect()
}

/// Removes the file.
pub(super) fn remove(accounts: &Path) -> Result<(), StoreError> {
    super::remove(path_beside(accounts))
}

/// Where the runs end that are known, the first first.
fn ends(db: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut ends = db.prepare_cached("SELECT ends FROM run ORDER BY number")?;
    ends.query_map([], |row| row.get::<_, i64>(0).map(|end| end as u64))?.collect()
}

/// Whether there are runs that cannot be written: under other keys than the accounts are under by now, or without
/// their file, as after a restore.
pub(super) fn are_stale(db: &Connection, accounts: &Path) -> rusqlite::Result<bool> {
    let end = ends(db)?.last().copied().unwrap_or(0);
    if std::fs::metadata(path_beside(accounts)).map_or(0, |file| file.len()) < end {
        return Ok(true);
    }
    let (held, target) = rewrap::versions(db)?;
    let keys: Option<u32> = db.query_row("SELECT keys FROM run LIMIT 1", [], |row| row.get(0)).optional()?;
    Ok(target.is_some() || keys.is_some_and(|keys| keys != held))
}

impl Accounts {
    /// Removes the runs of an import that was interrupted: whoever is erased may be in one. That import begins
    /// again, because it cannot go on without them.
    pub fn drop_runs(&mut self) -> Result<(), StoreError> {
        self.change(None, |db| {
            let begins_again =
                "UPDATE import SET source = NULL, merged = NULL WHERE EXISTS (SELECT 1 FROM run)";
            db.execute(begins_again, [])?;
            forget(db)
        })?;
        remove(&self.path)
    }

    /// Puts rows into a run, and notes them as read; they are not yet among the accounts. Gives how far it is.
    pub fn add_run(&mut self, batch: &[Batch], read: Import) -> Result<Import, StoreError> {
        let path = path_beside(&self.path);
        let failed = |cause| StoreError::Folder { path: path.clone(), cause };
        let start = ends(&self.db).map_err(|cause| SCHEMA.error(cause))?.last().copied().unwrap_or(0);
        let file = crate::file::private_to_go_on(&path).map_err(failed)?;
        let end = write_run(file, start, batch).map_err(failed)?;
        if start == 0 {
            crate::file::sync_folder_of(&path).map_err(failed)?;
        }
        self.change(batch.iter().find_map(Batch::version), |db| {
            let (held, _) = rewrap::versions(db)?;
            db.execute("INSERT INTO run (ends, keys) VALUES (?1, ?2)", params![end as i64, held])?;
            import::read_on(db, &read)
        })
    }

    /// Writes all runs in order, in parts of about so many rows, one durable commit each, and tells how many rows
    /// were written. Gives how far it is, and the sealed table of what is there now, if it is nothing else
    /// ([`Accounts::finish_table`]). The import goes on with [`Accounts::sweep`].
    pub fn merge_runs(
        &mut self,
        part_rows: usize,
        keys: &Keys,
        mut told: impl FnMut(u64),
    ) -> Result<Option<TableMaker>, StoreError> {
        let mut runs = self.runs(part_rows.min(PART_ROWS_MAX), keys)?;
        // In order no page is written twice: the log need not be long, and what is copied from it at once is little.
        let tuned = self.db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES);
        tuned.map_err(|cause| SCHEMA.error(cause))?;
        std::thread::scope(|scope| {
            // The next part is read, checked and put into the table while one is written.
            let (give, parts) = sync_channel(1);
            let reading = scope.spawn(move || {
                loop {
                    let part = runs.next(keys);
                    let is_last = part.as_ref().map_or(true, Part::is_last);
                    if give.send(part).is_err() || is_last {
                        return runs.table;
                    }
                }
            });
            for part in parts {
                let part = part?;
                let rows = part.edits.len() as u64;
                self.merge(part)?;
                told(rows);
            }
            Ok(reading.join().unwrap_or_default())
        })
    }

    /// All runs, to be written in order; from where a merge that was interrupted had come to. In parts of about so
    /// many rows.
    fn runs(&self, part_rows: usize, keys: &Keys) -> Result<Runs, StoreError> {
        let path = path_beside(&self.path);
        let failed = |cause| StoreError::Folder { path: path.clone(), cause };
        let find = || -> rusqlite::Result<_> {
            let merged = "SELECT coalesce(merged, x''), rows FROM import";
            let (merged, rows): (Vec<u8>, i64) =
                self.db.query_row(merged, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((ends(&self.db)?, merged, rows as u64))
        };
        let (ends, merged, rows) = find().map_err(|cause| SCHEMA.error(cause))?;
        let from = merged.first_chunk().map_or(0, |merged| u128::from_be_bytes(*merged));
        let table = match from == 0 && self.has_none()? {
            true => self.begin_table(rows, keys, table::OF_RUNS)?,
            false => {
                self.drop_unfinished(table::OF_RUNS)?;
                None
            }
        };
        // Asked behind its beginning: whoever changes an account from then on is told to it.
        let is_all = left_alone(&self.db).map_err(|cause| SCHEMA.error(cause))?.is_empty();
        let table = table.filter(|_| is_all);
        let mut runs = Vec::with_capacity(ends.len());
        let mut start = 0;
        for end in ends {
            let mut file = File::open(&path).map_err(failed)?;
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut run = Run { from: file.take(end - start), read: Vec::new(), at: 0 };
            run.skip(from).map_err(|cause| unread(&path, cause))?;
            runs.push(run);
            start = end;
        }
        let parts = (rows / part_rows.max(1) as u64).max(1);
        Ok(Runs { path, runs, from, table, part: (u128::MAX / u128::from(parts)).saturating_add(1) })
    }

    /// Writes the part that comes next, all or nothing; of several changes of one card the last one counts, and none
    /// of a card whose account was changed by itself meanwhile. Gives how far it is now.
    fn merge(&mut self, mut part: Part) -> Result<Import, StoreError> {
        drop(self.next_in_turn()?);
        let merged = self.change(part.edits.version(), |db| {
            table::begin_epoch(db)?;
            let left_alone = left_alone(db)?;
            if !left_alone.is_empty() {
                part.edits.retain(|index| !left_alone.contains(index));
            }
            let is = import::write_all(db, &part.edits)?;
            let until = part.until.map(u128::to_be_bytes);
            db.execute("UPDATE import SET merged = ?1", [until])?;
            if until.is_none() {
                forget(db)?;
            }
            Ok(is)
        })?;
        if part.until.is_none() {
            remove(&self.path)?;
        }
        Ok(merged)
    }
}

fn write_run(mut file: File, start: u64, batches: &[Batch]) -> io::Result<u64> {
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    // By the first half of the index, which tells nearly all apart, and by where it is: small, to be sorted quickly. The
    // others are brought into their order when they are written.
    let mut order: Vec<(u64, u32, usize)> = Vec::with_capacity(batches.iter().map(Batch::len).sum());
    for (batch, number) in batches.iter().zip(0..) {
        order.extend(batch.places().iter().map(|(index, at)| ((index >> 64) as u64, number, *at)));
    }
    order.sort_unstable();
    let mut to = Paced::new(file)?;
    let mut end = start;
    for (_, batch, at) in order {
        let bytes = batches[batch as usize].bytes_at(at);
        to.write_all(bytes)?;
        end += bytes.len() as u64;
    }
    to.finish()?;
    Ok(end)
}

/// Why a run cannot be read.
fn unread(path: &Path, cause: io::Error) -> StoreError {
    match cause.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(),
        _ => StoreError::Folder { path: path.to_owned(), cause },
    }
}

fn damaged() -> StoreError {
    let what = "it is not as the import wrote it; import the file again with --from-start".into();
    StoreError::Damaged { file: "accounts.runs", what }
}

/// The rows of all runs.
struct Runs {
    path: PathBuf,
    runs: Vec<Run>,
    /// The next part begins with this index.
    from: u128,
    /// So many indexes are in a part.
    part: u128,
    /// The sealed table that is made of the same rows, where they are all there is.
    table: Option<TableMaker>,
}

/// Changes that follow one another by index.
struct Part {
    /// In the order of indexes; those of one card in the order of the file.
    edits: Batch,
    /// The index that the next part begins with; `None`: this is the last.
    until: Option<u128>,
}

impl Part {
    /// Whether no other comes after it.
    fn is_last(&self) -> bool {
        self.until.is_none()
    }
}

impl Runs {
    /// The next part, until one is the last. Every row in it is authentic.
    ///
    /// # Errors
    /// Also when the file is not as it was written.
    fn next(&mut self, keys: &Keys) -> Result<Part, StoreError> {
        let until = self.from.checked_add(self.part);
        let mut edits = Batch::default();
        // In the order of the file: so those of one card stay in it.
        for run in &mut self.runs {
            run.take(until, &mut edits).map_err(|cause| unread(&self.path, cause))?;
        }
        edits.sort();
        // Also where its keys are unknown: runs under others are not begun with.
        leaves::authenticate(edits.rows(), keys).map_err(|_| damaged())?;
        if let Some(table) = &mut self.table {
            leaves::last_of_each(edits.edits())
                .filter_map(|edit| edit.row())
                .try_for_each(|row| table.put(row))?;
        }
        self.from = until.unwrap_or(0);
        Ok(Part { edits, until })
    }
}

/// One run.
struct Run {
    from: io::Take<File>,
    /// What was read last, and how much of it was taken.
    read: Vec<u8>,
    at: usize,
}

impl Run {
    /// Adds the edits that come next, up to an index.
    fn take(&mut self, until: Option<u128>, to: &mut Batch) -> io::Result<()> {
        while let Some((index, length)) = self.next()? {
            if until.is_some_and(|until| index >= until) {
                break;
            }
            to.push_bytes(index, &self.read[self.at..self.at + length]);
            self.at += length;
        }
        Ok(())
    }

    /// Leaves edits out, up to an index.
    fn skip(&mut self, until: u128) -> io::Result<()> {
        while let Some((index, length)) = self.next()?
            && index < until
        {
            self.at += length;
        }
        Ok(())
    }

    /// Index and length of the edit that comes next; nothing at the end.
    fn next(&mut self) -> io::Result<Option<(u128, usize)>> {
        loop {
            let rest = &self.read[self.at..];
            match Edit::first_of(rest) {
                Ok(Some((edit, length))) => return Ok(Some((number(&edit.index()), length))),
                Ok(None) => {}
                Err(NoEdit) => return Err(io::ErrorKind::InvalidData.into()),
            }
            self.read.drain(..self.at);
            self.at = 0;
            if self.from.by_ref().take(READ_BYTES as u64).read_to_end(&mut self.read)? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountState, AccountText};
    use crate::store::accounts::{AccountRow, AccountsOfRecord, Change, Order, Source, Spot};
    use crate::subject::{Date, ParseOptions};
    use crate::vault::{KeyRing, Vault};

    struct Place {
        dir: tempfile::TempDir,
        vault: Vault,
    }

    const SOURCE: Source = Source { identity: Some([7; 32]), is_replacing: false, from_start: false };

    impl Place {
        fn new() -> Place {
            Place { dir: tempfile::tempdir().unwrap(), vault: Vault::new(&KeyRing::generate()) }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("accounts.db")
        }

        fn accounts(&self) -> Accounts {
            Accounts::open(&self.path()).unwrap()
        }

        fn put(&self, cards: std::ops::Range<u64>, state: &str) -> Vec<Change> {
            let options =
                ParseOptions { test_land: true, ..ParseOptions::new(Date::new(2026, 1, 1).unwrap()) };
            let row = |card| {
                let number = format!("621700{card:010}");
                let (name, id) = ("李雷", "990101199001010019");
                let mobile = "16100000101";
                let text = AccountText { card: &number, name, id, mobile, state, ..AccountText::default() };
                // Some with a place in the element index.
                let options = ParseOptions { element_index: card % 2 == 0, ..options };
                text.row(&options, &self.vault).unwrap()
            };
            Change::put_all(cards.map(row).collect(), &self.vault.keys()).collect()
        }

        fn index(&self, card: u64) -> BlindIndex {
            self.vault.index(&format!("621700{card:010}"))
        }

        fn state(&self, card: u64) -> Option<AccountState> {
            let found = self.accounts().find(&format!("621700{card:010}"), &self.vault.keys());
            found.unwrap().map(|row| row.state)
        }

        /// Three batches that change some accounts several times.
        fn batches(&self) -> [Vec<Change>; 3] {
            let mut second = self.put(1500..2500, "lost");
            second.push(Change::Delete(self.index(10)));
            second.push(Change::Delete(self.index(1600)));
            let mut third = self.put(1600..1601, "");
            third.extend(self.put(11..12, "lost"));
            third.push(Change::Keep(self.index(11)));
            [self.put(0..2000, ""), second, third]
        }

        fn digest(&self) -> [u8; 32] {
            self.accounts().census(&self.vault).unwrap().digest
        }
    }

    fn row_of(change: &Change) -> Option<AccountRow> {
        match change {
            Change::Put(row, _) => Some(row.clone()),
            Change::Delete(_) | Change::Keep(_) => None,
        }
    }

    fn rows(rows: u64) -> Import {
        Import { rows, put: rows, ..Import::default() }
    }

    /// What is beside the accounts in the file is compared with them: an import believes it.
    #[test]
    fn a_wrong_number_or_element_index_is_found() {
        let wrongs = [
            ("UPDATE total SET accounts = 0", "says 0"),
            ("DELETE FROM leaf WHERE first = (SELECT max(first) FROM leaf)", "says 2000"),
            ("DELETE FROM person", "index"),
            ("UPDATE person SET idx = zeroblob(16) WHERE idx = (SELECT min(idx) FROM person)", "index"),
        ];
        for (wrong, said) in wrongs {
            let place = Place::new();
            let mut accounts = place.accounts();
            accounts.begin_import(&SOURCE).unwrap();
            accounts.import(&place.put(0..2000, ""), rows(2000)).unwrap();
            assert_eq!(accounts.census(&place.vault).unwrap().accounts, 2000);
            let sqlite = rusqlite::Connection::open(place.path()).unwrap();
            sqlite.execute_batch(wrong).unwrap();
            let error = accounts.census(&place.vault).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    /// An empty file that says it has accounts is no reason to look for them for ever.
    #[test]
    fn nothing_is_drawn_from_no_accounts() {
        let place = Place::new();
        let accounts = place.accounts();
        rusqlite::Connection::open(place.path())
            .unwrap()
            .execute("UPDATE total SET accounts = 5", [])
            .unwrap();
        assert_eq!(accounts.time_look_ups(10, &place.vault).unwrap(), [vec![], vec![]]);
    }

    /// The same accounts as without runs, wherever it was interrupted; rows of a run that was not finished do not count.
    #[test]
    fn sorted_rows_come_to_the_same() {
        let (direct, sorted) = (Place::new(), Place::new());
        for batch in direct.batches() {
            let mut accounts = direct.accounts();
            accounts.begin_import(&SOURCE).unwrap();
            accounts.import(&batch, rows(1)).unwrap();
        }
        for batch in sorted.batches() {
            let (is, _) = sorted.accounts().begin_import(&SOURCE).unwrap();
            assert!(!is.is_merging);
            let file = File::options().append(true).create(true).open(path_beside(&sorted.path()));
            file.unwrap().write_all(b"a run that was not finished").unwrap();
            sorted.accounts().add_run(&[Batch::of(batch)], rows(2000)).unwrap();
            assert_eq!(sorted.state(1), None, "not among the accounts yet");
        }
        let keys = sorted.vault.keys();
        let mut parts = 0;
        // Each part by another process.
        loop {
            let mut accounts = sorted.accounts();
            let (is, gave_up) = accounts.begin_import(&SOURCE).unwrap();
            assert!((is.rows, is.has_runs, is.is_merging, gave_up) == (6000, true, parts > 0, false));
            let part = accounts.runs(700, &keys).unwrap().next(&keys).unwrap();
            let is_last = part.is_last();
            accounts.merge(part).unwrap();
            parts += 1;
            if is_last {
                break;
            }
        }
        assert!(parts >= 6000 / 700, "{parts}");
        let (is, _) = sorted.accounts().begin_import(&SOURCE).unwrap();
        // Only what was there before counts as deleted.
        assert_eq!((is.rows, is.deleted, is.has_runs, is.is_merging), (6000, 0, false, false));
        assert!(!path_beside(&sorted.path()).exists());
        let lost = Some(AccountState::Lost);
        let normal = Some(AccountState::Normal);
        for place in [&direct, &sorted] {
            let states = [9, 10, 11, 1499, 1500, 1600, 2499, 2500].map(|card| place.state(card));
            assert_eq!(states, [normal, None, lost, normal, lost, normal, lost, None]);
            assert_eq!(place.accounts().count().unwrap(), 2499);
        }
    }

    #[test]
    fn one_pass_makes_the_sealed_table_too() {
        let place = Place::new();
        let (mut accounts, keys) = (place.accounts(), place.vault.keys());
        accounts.begin_import(&SOURCE).unwrap();
        for batch in place.batches() {
            accounts.add_run(&[Batch::of(batch)], rows(1000)).unwrap();
        }
        let mut written = 0;
        let table = accounts.merge_runs(500, &keys, |rows| written += rows).unwrap().unwrap();
        while !accounts.sweep().unwrap().1 {}
        assert_eq!(written, 3005);
        assert_eq!(accounts.finish_table(table).unwrap().unwrap().accounts, 2499);
        assert!(!accounts.table_is_due(&keys).unwrap());
        let digest = place.digest();
        let reader = Accounts::open_reader_of(
            &place.path(),
            std::sync::Arc::new(super::super::TablePlace::of(&place.path())),
        );
        let reader = reader.unwrap();
        reader.look_with(&keys).unwrap();
        for (card, state) in [(9, Some(AccountState::Normal)), (10, None), (1500, Some(AccountState::Lost))] {
            let found = reader.in_table(&place.index(card), &keys).expect("the table tells");
            assert_eq!(found.map(|row| row.state), state);
        }
        assert_eq!(place.digest(), digest);
    }

    /// A change by somebody else is in the accounts and not in the runs.
    #[test]
    fn no_table_is_made_of_runs_when_somebody_else_changed_an_account() {
        let place = Place::new();
        let (mut accounts, keys) = (place.accounts(), place.vault.keys());
        accounts.begin_import(&SOURCE).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..2000, ""))], rows(2000)).unwrap();
        let table = accounts.merge_runs(500, &keys, |_| ()).unwrap().unwrap();
        let spot = Spot::of("6217000000000007", &place.vault);
        place.accounts().carry_out(&[Order::SetState(spot, AccountState::Lost)], &place.vault).unwrap();
        while !accounts.sweep().unwrap().1 {}
        assert!(accounts.finish_table(table).unwrap().is_none());
        assert_eq!(
            std::fs::read_dir(place.dir.path())
                .unwrap()
                .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("table"))
                .count(),
            0
        );
        assert_eq!(place.state(7), Some(AccountState::Lost));
    }

    #[test]
    fn a_run_that_was_changed_is_not_believed() {
        let place = Place::new();
        let (mut accounts, keys) = (place.accounts(), place.vault.keys());
        accounts.begin_import(&SOURCE).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        let path = path_beside(&place.path());
        let whole = std::fs::read(&path).unwrap();
        for at in (1..whole.len()).step_by(53) {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            std::fs::write(&path, changed).unwrap();
            let refused = accounts.merge_runs(1000, &keys, |_| ()).err().unwrap();
            assert!(refused.to_string().contains("--from-start"), "byte {at}: {refused}");
            assert_eq!(accounts.count().unwrap(), 0);
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(accounts.merge_runs(1000, &keys, |_| ()).is_err());
    }

    #[test]
    fn another_file_or_other_keys_leave_nothing_of_the_runs() {
        let place = Place::new();
        let mut accounts = place.accounts();
        accounts.begin_import(&SOURCE).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        let (is, gave_up) = accounts.begin_import(&Source { identity: Some([8; 32]), ..SOURCE }).unwrap();
        assert!((is, gave_up) == (Import::default(), true));
        assert!(!path_beside(&place.path()).exists());
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        accounts.db.execute("UPDATE rewrap SET version = 2", []).unwrap();
        let (is, _) = accounts.begin_import(&Source { identity: Some([8; 32]), ..SOURCE }).unwrap();
        assert_eq!(is, Import::default());
        assert!(!path_beside(&place.path()).exists());
        accounts.add_run(&[Batch::of([Change::Keep(place.index(1))])], rows(50)).unwrap();
        std::fs::remove_file(path_beside(&place.path())).unwrap();
        let (is, _) = accounts.begin_import(&Source { identity: Some([8; 32]), ..SOURCE }).unwrap();
        assert_eq!(is, Import::default());
    }

    /// Not even the keys of an index are in a row that only deletes.
    #[test]
    fn deletions_that_were_read_under_other_keys_are_read_again() {
        let place = Place::new();
        place.accounts().begin_import(&SOURCE).unwrap();
        let deletions: Vec<_> = (0..50).map(|card| Change::Delete(place.index(card))).collect();
        place.accounts().add_run(&[Batch::of(deletions)], rows(50)).unwrap();
        assert_eq!(place.accounts().begin_import(&SOURCE).unwrap().0.rows, 50);
        place.accounts().db.execute("UPDATE rewrap SET version = 2", []).unwrap();
        assert_eq!(place.accounts().begin_import(&SOURCE).unwrap().0, Import::default());
    }

    /// As without runs: the row was read before the change.
    #[test]
    fn what_was_changed_by_itself_since_its_row_was_read_stays() {
        let place = Place::new();
        let keys = place.vault.keys();
        let spot = |card: u64| Spot::of(&format!("621700{card:010}"), &place.vault);
        let lost = |card| Order::SetState(spot(card), AccountState::Lost);
        let carry_out = |order| place.accounts().carry_out(&[order], &place.vault).unwrap();
        let mut accounts = place.accounts();
        let there: Vec<_> = place.put(0..3, "").iter().filter_map(row_of).collect();
        accounts.put(&there, &place.vault).unwrap();
        carry_out(lost(0));
        let replacing = Source { is_replacing: true, ..SOURCE };
        accounts.begin_import(&replacing).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        carry_out(lost(1));
        carry_out(Order::Delete(spot(2)));
        let part = accounts.runs(25, &keys).unwrap().next(&keys).unwrap();
        let is_done = |card| part.until.is_some_and(|until| number(&place.index(card)) < until);
        let [done, waits] = [true, false].map(|is| (3..50).find(|card| is_done(*card) == is).unwrap());
        accounts.merge(part).unwrap();
        carry_out(lost(done));
        carry_out(Order::Put(row_of(&place.put(waits..waits + 1, "lost")[0]).unwrap()));
        assert!(accounts.merge_runs(25, &keys, |_| ()).unwrap().is_none());
        while !accounts.sweep().unwrap().1 {}
        let (normal, lost) = (Some(AccountState::Normal), Some(AccountState::Lost));
        assert_eq!([0, 1, 2, done, waits].map(|card| place.state(card)), [normal, lost, None, lost, lost]);
        assert_eq!(accounts.count().unwrap(), 49);
        // The next file says what is true again, and a table of it has nothing that was left out.
        accounts.begin_import(&Source { identity: Some([8; 32]), ..replacing }).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        accounts.merge_runs(25, &keys, |_| ()).unwrap();
        assert_eq!([1, 2, done].map(|card| place.state(card)), [normal; 3]);
    }

    #[test]
    fn no_table_is_made_of_rows_that_are_left_out() {
        let place = Place::new();
        let (mut accounts, keys) = (place.accounts(), place.vault.keys());
        accounts.begin_import(&SOURCE).unwrap();
        accounts.add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        let row = row_of(&place.put(7..8, "")[0]).unwrap();
        let spot = Spot::of("6217000000000007", &place.vault);
        place.accounts().carry_out(&[Order::Put(row), Order::Delete(spot)], &place.vault).unwrap();
        assert!(accounts.merge_runs(500, &keys, |_| ()).unwrap().is_none());
        assert_eq!((accounts.count().unwrap(), place.state(7)), (49, None));
    }

    #[test]
    fn who_is_erased_is_in_no_run_and_the_import_begins_again() {
        let place = Place::new();
        place.accounts().begin_import(&SOURCE).unwrap();
        place.accounts().add_run(&[Batch::of(place.put(0..50, ""))], rows(50)).unwrap();
        let keys = place.vault.keys();
        let mut accounts = AccountsOfRecord::open(place.dir.path(), None).unwrap();
        accounts.erase(&place.index(7), &keys).unwrap();
        assert!(!path_beside(&place.path()).exists());
        assert_eq!(place.accounts().begin_import(&SOURCE).unwrap().0, Import::default());
        place.accounts().add_run(&[Batch::of(place.put(8..50, ""))], rows(42)).unwrap();
        let mut accounts = place.accounts();
        accounts.merge_runs(500, &keys, |_| ()).unwrap();
        while !accounts.sweep().unwrap().1 {}
        assert_eq!((accounts.count().unwrap(), place.state(7)), (42, None));
        // An import that has no runs goes on as it was.
        accounts.begin_import(&SOURCE).unwrap();
        accounts.import(&place.put(0..5, ""), rows(5)).unwrap();
        AccountsOfRecord::open(place.dir.path(), None).unwrap().erase(&place.index(1), &keys).unwrap();
        assert_eq!(accounts.begin_import(&SOURCE).unwrap().0.rows, 5);
    }
}
