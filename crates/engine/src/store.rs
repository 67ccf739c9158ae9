//! Where everything is kept: one folder, four SQLite files, each with one writer; or, for several equal
//! nodes, a database that they share, in place of the first three.
//!
//! * `accounts.db`: accounts of record, written by imports;
//! * `ledger.db`: blocks of entries with their side rows, checkpoints, callers; written by the
//!   settlement thread alone;
//! * `platform.db`: people, sessions, orders, vouchers: what the console needs and no verification does; in the
//!   database where several nodes have one;
//! * `usage.db`: the ledger as rows to query; derived, droppable, rebuilt from the blocks.
//!
//! Several files, so that neither an import nor a report ever stands in the way of a settlement.
//! Verbs are domain verbs; no row, statement or transaction leaves this module.

mod accounts;
mod copy;
mod either;
mod ledger;
mod node;
mod platform;
pub mod postgres;
#[cfg(test)]
#[path = "../tests/support/postgres.rs"]
mod postgres_server;
mod shared;
mod sqlite;
mod usage;

pub use accounts::{
    AccountRow, Accounts, AccountsOfRecord, Batch as AccountBatch, Census, Change as AccountChange,
    Done as AccountDone, Followed, Follower, Freshness, Import, Made as MadeTable, Order as AccountOrder,
    Person, Rewrap, SharedAccounts, Source, Spot as AccountSpot, TableMaker, TablePlace,
};
pub(crate) use accounts::{Looked, Records, Wanted};
pub use copy::{Copied, CopyError, Progress as CopyProgress, StorePlace, copy, is_to_be_served};
pub use ledger::{Check, Commit, Leaf, LedgerFile, LedgerReader, LookedBack, Newest, Opened, Put, Unerased};
pub use node::{Lease, LedgerPlace, SharedStore};
pub use platform::Platform;
pub(crate) use shared::{Counter, Nodes, Purse, PurseId, Slice};
pub use usage::{DayUse, Refusal, RefusalCount, RefusalRow, Refusals, UsageFile, UsageFilter, UsageRow};

use std::fs::File;
use std::path::{Path, PathBuf};

use self::copy::{Mark, Marked};

/// Why a store cannot do what it was asked. Internal: never a pass, never a charge.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("{file}: {cause}")]
    Sqlite {
        /// Which file.
        file: &'static str,
        /// What SQLite said.
        #[source]
        cause: rusqlite::Error,
    },
    /// The database refused, or could not be reached. Nothing was changed.
    #[error("the database: {}", in_words(.0))]
    Database(#[source] tokio_postgres::Error),
    /// The connection was lost while a commit was under way: whether it was made is not known.
    #[error("the database was lost during a commit: {}", in_words(.0))]
    Unknown(#[source] tokio_postgres::Error),
    /// The database did not answer.
    #[error("the database did not answer within {} s", .0.as_secs())]
    DatabaseSlow(std::time::Duration),
    /// Another process has this node's place.
    #[error(
        "another process works under the name of this node, or it was found dead by the others; it answers \
         nothing until it is started again, and no two nodes may have one name (`server.node`)"
    )]
    Fenced,
    /// A question of a block was answered before, here or at another node.
    #[error("a question was answered before")]
    Answered,
    /// Less is left than is to be taken back.
    #[error("less is left of the balance")]
    Spent,
    /// Callers were changed by another node at the same moment.
    #[error("callers were changed at another node at the same moment; do it again")]
    ChangedElsewhere,
    /// Waiting for the database is not possible.
    #[error("no runtime for the database: {0}")]
    Runtime(#[source] std::io::Error),
    /// The folder cannot be used.
    #[error("{}: {cause}", .path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: std::io::Error,
    },
    /// The disk, or what this user may have of it, is used up. Nothing was changed.
    #[error("the disk is full: {file} was not changed; make room, then try again")]
    Full {
        /// Which file.
        file: &'static str,
    },
    /// A commit failed before; only a restart knows what is on the disk.
    #[error("the store is stopped because a commit failed; look at the log, mend the disk, restart")]
    Stopped,
    /// Another server works in this folder.
    #[error("{} is in use by another card4e; stop that one first, or give this one a folder of its own", .0.display())]
    InUse(PathBuf),
    /// Somebody else changes the accounts of this folder.
    #[error("the accounts in {} are being changed by another card4e (an import, or a rotation of keys?); try again when it is done", .0.display())]
    Importing(PathBuf),
    /// Somebody else changes the accounts of this database.
    #[error(
        "the accounts are being changed by another card4e, on this node or another (an import, an erasure, or a rotation of keys?); try again when it is done"
    )]
    ImportingShared,
    /// An erasure of another card is noted.
    #[error("an erasure of another card is not at its end yet; do the same again")]
    Erasing,
    /// This node's copy of the accounts is not to be answered from.
    #[error("{0}")]
    Stale(String),
    /// A file of accounts is not what its installation says it is.
    #[error("{0}")]
    OtherAccounts(&'static str),
    /// The keys over the accounts are being replaced; nothing else is written to them meanwhile.
    #[error(
        "the keys of the accounts are being replaced; `card4e keys rotate` shows how far that is and finishes it; try again then"
    )]
    Rewrapping,
    /// The accounts are under keys this process does not have.
    #[error("the keys of the accounts were replaced meanwhile; run the command again")]
    OtherKeys,
    /// It is being copied elsewhere, or was, or is a copy that is not whole.
    #[error("{0}")]
    Copying(String),
    /// A log could not be overwritten.
    #[error(
        "everything was removed, but a reader of {0} is in the way of overwriting its log; do the same again"
    )]
    LogInUse(&'static str),
    /// What was read is not what was written.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// Which file.
        file: &'static str,
        /// What does not fit.
        what: String,
    },
}

/// The driver's error names only its kind; what the server or the network said is behind it.
fn in_words(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl StoreError {
    /// Whether the disk is the reason, and not what was to be written.
    pub fn is_of_the_disk(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
        let StoreError::Sqlite { cause, .. } = self else { return matches!(self, StoreError::Full { .. }) };
        matches!(cause.sqlite_error_code(), Some(SystemIoFailure | DatabaseCorrupt | NotADatabase))
    }
}

/// A data folder that this process has to itself.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be and takes it; a second server is refused, and so is one where `card4e store
    /// copy` has begun.
    pub fn take(path: &Path) -> Result<Folder, StoreError> {
        let folder = Folder::lock(path)?;
        Mark::of_folder(path)?.check(&Marked::Folder(path))?;
        Ok(folder)
    }

    /// The same for whoever copies it.
    fn lock(path: &Path) -> Result<Folder, StoreError> {
        let failed = |cause| StoreError::Folder { path: path.to_owned(), cause };
        crate::file::create_private_dir(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// Bytes that a user without privileges may still write to its file system.
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        let file_system = rustix::fs::statvfs(&self.path)?;
        Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(dir.path()).unwrap();
        let error = Folder::take(dir.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another card4e"), "{error}");
        drop(first);
        Folder::take(dir.path()).unwrap();
    }
}
