//! How every file is opened: write-ahead log, full durability, forward-only schema.

use std::os::raw::c_int;
use std::path::Path;
use std::time::Duration;

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

    pub(super) fn error(&self, cause: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { file: self.file, cause }
    }

    fn try_open(&self, path: &Path) -> rusqlite::Result<Connection> {
        let db = Connection::open(path)?;
        // Longer than a batch of an import takes on a slow disk.
        db.busy_timeout(Duration::from_secs(30))?;
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

    fn bring_forward(&self, db: &mut Connection, from: usize) -> rusqlite::Result<()> {
        for (at, script) in self.versions.iter().enumerate().skip(from) {
            let transaction = db.transaction()?;
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "user_version", at as u32 + 1)?;
            transaction.commit()?;
        }
        Ok(())
    }
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
