//! Where a ledger is, and a node's right to write into one that it shares with others.
//!
//! A node has a number, the process that holds it, and an epoch; the last two are random numbers. Every
//! commit checks the epoch in the same transaction. Another node that finds this one dead replaces the epoch
//! and gives back what it had taken of balances: should it wake up, its commits fail, it takes a new epoch
//! and counts anew. A new process of the same name replaces the holder too: the older one stops for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::postgres::Database;
use crate::vault::random;

/// Where a ledger is.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    /// In a file of the data folder.
    File(PathBuf),
    /// In a database that several nodes share.
    Shared {
        /// The database.
        database: Arc<Database>,
        /// Name of the node that is looking.
        node: String,
    },
}

impl From<&Path> for LedgerPlace {
    fn from(path: &Path) -> LedgerPlace {
        LedgerPlace::File(path.to_owned())
    }
}

impl From<&PathBuf> for LedgerPlace {
    fn from(path: &PathBuf) -> LedgerPlace {
        LedgerPlace::File(path.clone())
    }
}

/// A database that several equal nodes share, and how this one is called there.
#[derive(Clone, Debug)]
pub struct SharedStore {
    /// The database.
    pub database: Arc<Database>,
    /// The node's name: the same after a restart, and no other node's.
    pub node: String,
}

/// This node's right to write.
#[derive(Debug)]
pub struct Lease {
    /// The node's number; it is the beginning of its blocks' numbers.
    pub number: i64,
    /// This process, as long as it lives; another one of the same name takes its place for good.
    pub(super) holder: i64,
    epoch: AtomicI64,
    /// Version of the callers that this node knows.
    callers: AtomicI64,
}

impl Lease {
    pub(super) fn new(number: i64, holder: i64, epoch: i64, callers: i64) -> Lease {
        Lease { number, holder, epoch: AtomicI64::new(epoch), callers: AtomicI64::new(callers) }
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::SeqCst);
    }

    pub(crate) fn callers(&self) -> i64 {
        self.callers.load(Ordering::SeqCst)
    }

    pub(crate) fn set_callers(&self, version: i64) {
        self.callers.store(version, Ordering::SeqCst);
    }
}

/// A number that nobody else makes.
pub(super) fn new_epoch() -> i64 {
    i64::from_be_bytes(random())
}

/// Bits of a block's number below that of its node.
const BLOCK_BITS: u32 = 40;

/// What is before the first block of a node. A file has those of node 0, which begin with 1.
pub(super) fn first_block(node: i64) -> i64 {
    node << BLOCK_BITS
}

/// Whose block that is.
pub(super) fn node_of(seq: i64) -> i64 {
    seq >> BLOCK_BITS
}
