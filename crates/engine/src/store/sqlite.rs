//! How every file is opened: write-ahead log, full durability, forward-only schema.

use std::os::raw::c_int;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, FileControl, OpenFlags};

use super::StoreError;

/// How much a file may lose when the power goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Nothing that was committed.
    Full,
    /// The last commits; for what can be rebuilt.
    Derived,
}

/// A file and its schema, one script a version; a file of an earlier version is brought forward.
pub(super) struct Schema {
    pub(super) file: &'static str,
    pub(super) durability: Durability,
    pub(super) versions: &'static [&'static str],
}

impl Schema {
    /// Opens the file for its one writer.
    pub(super) fn open(&self, path: &Path) -> Result<Connection, StoreError> {
        self.try_open(path).map_err(|cause| self.error(cause)).and_then(|db| self.migrated(db))
    }

    /// Opens the file for a reader; the writer must have opened it before.
    pub(super) fn open_reader(&self, path: &Path) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let db = Connection::open_with_flags(path, flags)?;
            db.busy_timeout(Duration::from_secs(5))?;
            db.pragma_update(None, "mmap_size", 1 << 30)?;
            Ok(db)
        };
        open().map_err(|cause| self.error(cause))
    }

    /// Copies the file as it is at one moment, while others go on writing.
    pub(super) fn copy(
        &self,
        from: &Path,
        to: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let from = self.open_reader(from)?;
        copy(&from, to, progress).map_err(|cause| self.error(cause))
    }

    /// Lets SQLite look for damage to its own structures.
    pub(super) fn check_structure(&self, path: &Path) -> Result<(), StoreError> {
        let db = self.open_reader(path)?;
        let found: String = db
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|cause| self.error(cause))?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(StoreError::Damaged { file: self.file, what: found }),
        }
    }

    pub(super) fn error(&self, cause: rusqlite::Error) -> StoreError {
        match cause {
            cause if is_full(&cause) => StoreError::Full { file: self.file },
            // What was read is not of the form in which it is written.
            rusqlite::Error::FromSqlConversionFailure(_, _, what) => {
                StoreError::Damaged { file: self.file, what: what.to_string() }
            }
            cause => StoreError::Sqlite { file: self.file, cause },
        }
    }

    fn try_open(&self, path: &Path) -> rusqlite::Result<Connection> {
        let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
        let db = Connection::open(path)?;
        // Longer than a batch of an import takes on a slow disk.
        db.busy_timeout(Duration::from_secs(30))?;
        if is_new {
            // There is nothing that a journal on the disk could bring back: one sync instead of four.
            db.pragma_update(None, "journal_mode", "MEMORY")?;
        }
        db.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if self.durability == Durability::Full { "FULL" } else { "NORMAL" };
        db.pragma_update(None, "synchronous", synchronous)?;
        // Erased rows must not linger in free pages.
        db.pragma_update(None, "secure_delete", "ON")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        // A log that is kept is overwritten in place: a commit then allocates no blocks, which is
        // what a group commit waits for most.
        let mut keep: c_int = 1;
        db.file_control(None::<&str>, FileControl::PersistWal(&mut keep))?;
        Ok(db)
    }

    fn migrated(&self, mut db: Connection) -> Result<Connection, StoreError> {
        let version = db
            .pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))
            .map_err(|cause| self.error(cause))?;
        let version = version as usize;
        if version > self.versions.len() {
            let what = format!("its schema ({version}) is newer than this card4e");
            return Err(StoreError::Damaged { file: self.file, what });
        }
        self.bring_forward(&mut db, version).map_err(|cause| self.error(cause))?;
        Ok(db)
    }

    /// In one commit, which has to be waited for.
    fn bring_forward(&self, db: &mut Connection, from: usize) -> rusqlite::Result<()> {
        let scripts = &self.versions[from..];
        if scripts.is_empty() {
            return Ok(());
        }
        let transaction = db.transaction()?;
        scripts.iter().try_for_each(|script| transaction.execute_batch(script))?;
        transaction.pragma_update(None, "user_version", self.versions.len() as u32)?;
        transaction.commit()
    }
}

/// Pages copied between two calls of `progress`.
const COPY_PAGES: i32 = 4096;

fn copy(from: &Connection, to: &Path, mut progress: impl FnMut(u64, u64)) -> rusqlite::Result<()> {
    // One look for the whole copy: without it, each commit of somebody else would begin it again.
    let look = from.unchecked_transaction()?;
    look.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let page_bytes: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let bytes = |pages: i32| (i64::from(pages) * page_bytes) as u64;
    let mut copied = Connection::open(to)?;
    // Whoever asked for the copy makes it durable when it is whole.
    copied.pragma_update(None, "synchronous", "OFF")?;
    let backup = Backup::new(from, &mut copied)?;
    loop {
        let step = backup.step(COPY_PAGES)?;
        let is = backup.progress();
        progress(bytes(is.pagecount - is.remaining), bytes(is.pagecount));
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else knows the copy, and a reader of a file with a log is never locked out.
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
        }
    }
    drop(backup);
    // One file that is whole by itself, instead of a file and a log.
    copied.pragma_update(None, "journal_mode", "DELETE")
}

/// Whether a write did not fit. Writes come before the sync and the last of them makes the commit, so
/// one that failed has left everything as it was. A sync that failed has not: it is never `true`.
fn is_full(cause: &rusqlite::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded};
    let Some(error) = cause.sqlite_error() else { return false };
    if error.code == rusqlite::ErrorCode::DiskFull {
        return true;
    }
    // SQLite tells a full disk from other failures, but not a quota or a limit on the size of files.
    // Should another call have failed since, then a write that failed is taken for a broken disk.
    error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE
        && matches!(std::io::Error::last_os_error().kind(), QuotaExceeded | FileTooLarge)
}

/// Grows the write-ahead log to about `bytes` once, so that later commits overwrite it.
pub(super) fn grow_log(db: &mut Connection, bytes: usize) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    transaction.execute_batch("CREATE TABLE ballast(bytes BLOB NOT NULL)")?;
    for _ in 0..bytes.div_ceil(1 << 20) {
        transaction.execute("INSERT INTO ballast VALUES (zeroblob(1048576))", [])?;
    }
    transaction.execute_batch("DROP TABLE ballast")?;
    transaction.commit()?;
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Overwrites the write-ahead log of the file at `path`, so that nothing erased lingers in it. `false`:
/// a reader was in the way for too long.
pub(super) fn overwrite_log(db: &mut Connection, path: &Path) -> rusqlite::Result<bool> {
    let log = path.with_extension("db-wal");
    let length = std::fs::metadata(log).map_or(0, |log| log.len());
    // Everything into the file; the next commit then begins at the first byte of the log.
    let is_busy: bool = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))?;
    if !is_busy {
        grow_log(db, length as usize)?;
    }
    Ok(!is_busy)
}
