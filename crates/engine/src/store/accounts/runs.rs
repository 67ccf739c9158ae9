//! The way of a large file into the accounts. Blind indexes are random: written as its rows come, each batch would
//! touch most pages of `accounts.db`. So they are put into runs first, some batches of rows sorted by index, one
//! behind the other in `accounts.runs`; from there they are written in order, and each page is touched once.
//!
//! A run is durable before `accounts.db` says that its rows were read; what is behind the last one it knows is
//! cut off. Then the rows are written a part of all indexes at a time, with how far it came in the same commit. Rows
//! are in the file as they are in `accounts.db`, and their authentication is looked at on the way.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rusqlite::{Connection, OptionalExtension, params};

use super::import::{self, Change, Import};
use super::table::TableMaker;
use super::{AccountRow, Accounts, Person, SCHEMA, holds, rewrap, table};
use crate::account::{AccountState, DocumentKind};
use crate::store::StoreError;
use crate::vault::{BlindIndex, Keys, Verifier, Verifiers};

/// Read at once from each of the runs.
const READ_BYTES: usize = 256 << 10;

/// Where the runs of a folder are.
pub(super) fn path_beside(accounts: &Path) -> PathBuf {
    accounts.with_file_name("accounts.runs")
}

/// Forgets all runs, in the commit of whoever calls; [`remove`] follows it.
pub(super) fn forget(db: &Connection) -> rusqlite::Result<()> {
    db.execute("DELETE FROM run", []).map(drop)
}

/// Removes the file.
pub(super) fn remove(accounts: &Path) -> Result<(), StoreError> {
    let path = path_beside(accounts);
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(StoreError::Folder { path, cause }),
        _ => Ok(()),
    }
}

/// Where the runs end that are known, the first first.
fn ends(db: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut ends = db.prepare_cached("SELECT ends FROM run ORDER BY number")?;
    ends.query_map([], |row| row.get::<_, i64>(0).map(|end| end as u64))?.collect()
}

/// Whether there are runs under other keys than the accounts are under by now.
pub(super) fn are_stale(db: &Connection) -> rusqlite::Result<bool> {
    let (held, target) = rewrap::versions(db)?;
    let keys: Option<u32> = db
        .query_row("SELECT keys FROM run WHERE keys IS NOT NULL LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(target.is_some() || keys.is_some_and(|keys| keys != held))
}

impl Accounts {
    /// Puts rows into a run, and notes them as read; they are not yet among the accounts. Gives how far it is.
    pub fn add_run(&mut self, batch: Vec<Change>, read: Import) -> Result<Import, StoreError> {
        let path = path_beside(&self.path);
        let failed = |cause| StoreError::Folder { path: path.clone(), cause };
        let start = ends(&self.db).map_err(|cause| SCHEMA.error(cause))?.last().copied().unwrap_or(0);
        let file = crate::file::private_to_go_on(&path).map_err(failed)?;
        let end = write_run(file, start, &batch).map_err(failed)?;
        if start == 0 {
            crate::file::sync_folder_of(&path).map_err(failed)?;
        }
        let version = import::version_of(&batch);
        self.change(version, |db| {
            db.execute("INSERT INTO run (ends, keys) VALUES (?1, ?2)", params![end as i64, version])?;
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
        let mut runs = self.runs(part_rows, keys)?;
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
                self.merge(&part)?;
                told(part.changes.len() as u64);
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
        let table = match from == 0 && self.count()? == 0 {
            true => Some(self.begin_table(rows, keys, "table.import")?),
            false => None,
        };
        let mut runs = Vec::with_capacity(ends.len());
        let mut start = 0;
        for end in ends {
            let mut file = File::open(&path).map_err(failed)?;
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut run =
                Run { from: BufReader::with_capacity(READ_BYTES, file.take(end - start)), next: None };
            run.take(|next| next < from, drop).map_err(failed)?;
            runs.push(run);
            start = end;
        }
        let parts = (rows / part_rows.max(1) as u64).max(1);
        Ok(Runs { path, runs, from, table, part: (u128::MAX / u128::from(parts)).saturating_add(1) })
    }

    /// Writes the part that comes next, all or nothing; of several changes of one card the last one counts. Gives
    /// how far it is now.
    fn merge(&mut self, part: &Part) -> Result<Import, StoreError> {
        drop(self.next_in_turn()?);
        let merged = self.change(import::version_of(&part.changes), |db| {
            table::begin_epoch(db)?;
            let is = import::write_all(db, &part.changes)?;
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

fn write_run(mut file: File, start: u64, batch: &[Change]) -> io::Result<u64> {
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    let mut order: Vec<(u128, u32)> =
        batch.iter().zip(0..).map(|(change, at)| (number(change.index()), at)).collect();
    order.sort_unstable();
    let mut to = BufWriter::with_capacity(1 << 20, file);
    let mut end = start;
    let mut bytes = Vec::with_capacity(256);
    for (_, at) in order {
        bytes.clear();
        encode(&batch[at as usize], &mut bytes);
        to.write_all(&bytes)?;
        end += bytes.len() as u64;
    }
    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    Ok(end)
}

/// An index as a number: of the same order.
fn number(index: &BlindIndex) -> u128 {
    u128::from_be_bytes(index.0)
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
    changes: Vec<Change>,
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
        let mut changes = Vec::new();
        for run in &mut self.runs {
            let read = run.take(|next| until.is_none_or(|until| next < until), |change| changes.push(change));
            read.map_err(|cause| StoreError::Folder { path: self.path.clone(), cause })?;
        }
        // Stable: runs are in the order of the file. And quick, as each of them is sorted.
        changes.sort_by_key(|change| *change.index());
        let macs = AccountRow::macs(changes.iter().filter_map(Change::row), keys);
        let mut macs = macs.into_iter();
        for change in &changes {
            if let Change::Put(_, mac) = change {
                holds(macs.next().flatten(), *mac)?;
            }
        }
        if let Some(table) = &mut self.table {
            import::last_of_each(&changes).filter_map(Change::row).try_for_each(|row| table.put(row))?;
        }
        self.from = until.unwrap_or(0);
        Ok(Part { changes, until })
    }
}

/// One run.
struct Run {
    from: BufReader<io::Take<File>>,
    /// Read, and of a later part.
    next: Option<Change>,
}

impl Run {
    /// Gives the rows that come next, up to the first that is not taken.
    fn take(&mut self, is_taken: impl Fn(u128) -> bool, mut give: impl FnMut(Change)) -> io::Result<()> {
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => match decode(&mut self.from)? {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
            if !is_taken(number(next.index())) {
                self.next = Some(next);
                return Ok(());
            }
            give(next);
        }
    }
}

const PUT: u8 = 0;
const DELETE: u8 = 1;
const KEEP: u8 = 2;

/// Bytes of an account before those of the element index.
const FIXED: usize = 64 + 16 + 8;

fn encode(change: &Change, to: &mut Vec<u8>) {
    let (kind, index) = match change {
        Change::Put(row, _) => (PUT, &row.index),
        Change::Delete(index) => (DELETE, index),
        Change::Keep(index) => (KEEP, index),
    };
    to.push(kind);
    to.extend_from_slice(&index.0);
    let Change::Put(row, mac) = change else { return };
    let Verifiers { name_exact, name_loose, id, mobile } = &row.verifiers;
    [name_exact, name_loose, id, mobile].iter().for_each(|verifier| to.extend_from_slice(&verifier.0));
    to.extend_from_slice(mac);
    to.extend_from_slice(&row.keys.to_be_bytes());
    to.extend_from_slice(&[u8::from(row.has_mobile), row.state.code(), row.kind.code(), row.person.there()]);
    row.person.columns().iter().flatten().for_each(|column| to.extend_from_slice(column));
}

fn decode(from: &mut impl Read) -> io::Result<Option<Change>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut index = [0; 16];
    from.read_exact(&mut index)?;
    let index = BlindIndex(index);
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    match kind[0] {
        PUT => {}
        DELETE => return Ok(Some(Change::Delete(index))),
        KEEP => return Ok(Some(Change::Keep(index))),
        _ => return Err(wrong()),
    }
    let mut fixed = [0; FIXED];
    from.read_exact(&mut fixed)?;
    let mut columns = [None; 6];
    for (at, column) in columns.iter_mut().enumerate() {
        if fixed[FIXED - 1] & 1 << (5 - at) != 0 {
            let mut bytes = [0; 16];
            from.read_exact(&mut bytes)?;
            *column = Some(bytes);
        }
    }
    let sixteen = |at: usize| fixed[at..].first_chunk::<16>().copied().unwrap_or_default();
    let row = AccountRow {
        index,
        verifiers: Verifiers {
            name_exact: Verifier(sixteen(0)),
            name_loose: Verifier(sixteen(16)),
            id: Verifier(sixteen(32)),
            mobile: Verifier(sixteen(48)),
        },
        keys: u32::from_be_bytes(fixed[80..].first_chunk().copied().unwrap_or_default()),
        has_mobile: fixed[84] == 1,
        state: AccountState::from_code(fixed[85]).ok_or_else(wrong)?,
        kind: DocumentKind::from_code(fixed[86]).ok_or_else(wrong)?,
        person: Person::of(columns),
        is_short: false,
    };
    Ok(Some(Change::Put(row, sixteen(64))))
}
