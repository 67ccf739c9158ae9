//! What somebody looks at who looks after the installation, while the engine works. All of it reads; none of
//! it holds anybody up, though a check of the whole ledger takes as long as that is.

use crate::Engine;
use crate::audit::Checkpoint;
use crate::ledger::Entry;
use crate::store::{Check, Import, LedgerFile, StoreError};

/// The newest import of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastImport {
    /// How far it is.
    pub is: Import,
    /// Whether it came to its end; else it runs, or was interrupted.
    pub is_done: bool,
    /// Whether its file is the whole truth.
    pub is_replacing: bool,
}

impl Engine {
    /// Recomputes the whole audit tree; see [`LedgerFile::check`].
    pub fn check_audit(&self) -> Result<Check, StoreError> {
        LedgerFile::check(self.ledger.clone(), &self.vault)
    }

    /// The newest signed checkpoint, held against signature and tree.
    pub fn last_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.ledger()?.last_checkpoint(&self.vault)
    }

    /// The newest entries that are no answers, at most so many, newest first; looks for them in the last
    /// blocks only.
    pub fn newest_acts(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        self.ledger()?.newest_acts(most)
    }

    /// The newest import of accounts; `None` when there was none.
    pub fn last_import(&self) -> Result<Option<LastImport>, StoreError> {
        self.accounts_to_change()?.last_import()
    }

    /// Bytes free where the data is; `None` where the file system does not tell.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.folder()).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
