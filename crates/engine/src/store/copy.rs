//! Copies an installation from the files of one machine into a database that nodes share, or back.
//!
//! Both places are marked before anything is copied ([`Mark`]): the one does not change meanwhile, the other is not
//! served before it is whole. So a copy that was interrupted goes on where each table ends in the other place, and
//! what is verified at the end is what is served. The files become node 0, whose blocks have the numbers they had:
//! its tree goes on, and everything that was sealed for a place is still in it.

mod mark;
mod tables;

pub(super) use mark::{Mark, Place as Marked};

use std::path::{Path, PathBuf};

use self::mark::Plan;
use self::tables::{LEDGER, SNAPSHOT, Shares, copy_table};
use super::accounts::{AccountsOfRecord, Change, Import, SharedAccounts, Source};
use super::either::Either;
use super::ledger::{Check, LedgerFile, tables_of};
use super::node::{LedgerPlace, SharedStore};
use super::shared::Nodes;
use super::usage::UsageFile;
use super::{Folder, Platform, StoreError};
use crate::file::{create_private_dir, hex, write_durably};
use crate::vault::{KeyRing, RingError, Vault, random};

/// Where an installation is kept.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// In the files of this data folder.
    Files(PathBuf),
    /// In a database that nodes share, and the data folder of the node that is looking.
    Shared(SharedStore, PathBuf),
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is copied or read at the moment.
    pub what: &'static str,
    /// Rows of it that are copied.
    pub done: u64,
    /// Rows of it; 0: not known.
    pub all: u64,
}

/// What was copied, and found to be the same in both places.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// All trees, side rows and checkpoints, checked in both places.
    pub audit: Check,
    /// Accounts of record.
    pub accounts: u64,
    /// Digest of all of them, hex.
    pub accounts_digest: String,
    /// People, sessions, orders, vouchers and what belongs to them.
    pub platform_rows: u64,
    /// Applications that have a balance.
    pub balances: u64,
    /// Sum of these, in credits.
    pub credits: String,
}

/// Why an installation is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A place.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Not between these.
    #[error(
        "one of the two settings files must name a database (`server.store`) and the other none: files are copied to \
         files with `card4e backup` and `card4e restore`, a database with its own means"
    )]
    SameKind,
    /// Something is there.
    #[error(
        "{0} is not empty: an installation is there, or a part of another copy. Nothing was changed; begin with a new one"
    )]
    NotEmpty(String),
    /// Somebody is not through with something.
    #[error(
        "{0}; nothing was changed. Start the server once, which brings it to its end, then stop it and copy"
    )]
    Unfinished(&'static str),
    /// Nodes work on the database.
    #[error(
        "nodes are at work on this database, or were seconds ago: {0}. Nothing was changed; stop them first"
    )]
    NodesLive(String),
    /// One file has one tree.
    #[error(
        "several nodes have written to this database, each an audit tree of its own, and the files of one machine hold \
         one tree, that of node 0, which came from files: this installation stays in its database. Nothing was changed"
    )]
    SeveralTrees,
    /// It is elsewhere.
    #[error("it was copied to {0} before, where it goes on; nothing was changed")]
    Elsewhere(String),
    /// Another copy is not at its end.
    #[error(
        "it is being copied to {to} already, and nothing was changed: `card4e store copy` to there goes on with that, or \
         says that it is whole. To give that copy up instead, see that nobody serves it, then {unmark}"
    )]
    UnderWay {
        /// Where to.
        to: String,
        /// How the mark of it is taken away.
        unmark: String,
    },
    /// Nothing is there.
    #[error(
        "{0} has no installation: no server was ever started on it. Nothing was changed; look whether FROM and TO have \
         changed places"
    )]
    NotBegun(String),
    /// A mark was taken away or replaced meanwhile.
    #[error(
        "the copy was given up meanwhile: the mark of it is gone, or another copy's. It will not be served; begin again \
         with a new database or folder"
    )]
    GivenUp,
    /// The copy is not the same.
    #[error(
        "the copy is not the same: {what} are {from} there and {to} here. It will not be served; begin again with a new \
         database or folder, and look at what wrote there meanwhile"
    )]
    Differs {
        /// What was counted or summed.
        what: &'static str,
        /// In the first place.
        from: String,
        /// In the second.
        to: String,
    },
}

/// Copies an installation, or goes on with a copy that was interrupted. `None`: it was copied before, there is
/// nothing to do.
///
/// `tell` hears how far it is. Nobody may work with the installation meanwhile, which is seen to.
pub fn copy(
    from: &StorePlace,
    to: &StorePlace,
    root: &[u8; 32],
    tell: &mut dyn FnMut(Progress),
) -> Result<Option<Copied>, CopyError> {
    match (from, to) {
        (StorePlace::Files(folder), StorePlace::Shared(store, node)) => {
            into_database(folder, store, node, root, tell)
        }
        (StorePlace::Shared(store, node), StorePlace::Files(folder)) => {
            into_files(store, node, folder, root, tell)
        }
        _ => Err(CopyError::SameKind),
    }
}

/// Whether nothing speaks against serving what is in a place: it was not copied elsewhere, and is not a copy that
/// is not whole.
///
/// # Errors
/// [`StoreError::Copying`] says what does; others, that it cannot be looked at.
pub fn is_to_be_served(place: &StorePlace) -> Result<(), StoreError> {
    match place {
        StorePlace::Files(folder) => Mark::of_folder(folder)?.check(&Marked::Folder(folder)),
        StorePlace::Shared(store, _) => Nodes::open(&store.database)?.is_to_be_served(),
    }
}

fn into_database(
    folder: &Path,
    store: &SharedStore,
    node: &Path,
    root: &[u8; 32],
    tell: &mut dyn FnMut(Progress),
) -> Result<Option<Copied>, CopyError> {
    let _alone = Folder::lock(folder)?;
    let mut database = Nodes::open(&store.database)?;
    let keys = folder.join("keys.json");
    let (vault, sealed) = keys_in(&keys, root)?;
    let mut from = Place::of_files(folder, &vault)?;
    let mut to = Place::of_database(store)?;
    let (files, shared) = (name_of(folder), store.database.to_string());
    let (here, there) = (Mark::of_folder(folder)?, database.copy_mark()?);
    let id = match Plan::of(&here, &there, &Marked::Folder(folder), &shared)? {
        Plan::Done => return here.done().keep_in(folder).map(|()| None).map_err(CopyError::from),
        Plan::GoOn => here.id(),
        Plan::Begin => {
            from.is_at_rest()?;
            to.is_empty(&shared)?;
            if has_installation(node) {
                return Err(CopyError::NotEmpty(node.display().to_string()));
            }
            let id = hex(&random::<16>());
            Mark::original(&id, &shared).keep_in(folder)?;
            database.begin_copy(&Mark::copy(&id, &files), &store.node)?;
            id
        }
    };
    copy_accounts(&mut from, &mut to, &vault, tell)?;
    copy_platform(&from, &to, tell)?;
    for table in LEDGER.iter().chain([&SNAPSHOT]) {
        copy_table(table, &from.ledger, &to.ledger, tell)?;
    }
    let shares = Shares::of_file(&folder.join("ledger.db"), &vault)?;
    shares.put(&to.ledger, tell)?;
    let arrived = Shares::of_database(&to.ledger)?;
    let copied = verify(&mut from, &mut to, [&shares, &arrived], &vault, tell)?;
    copy_usage(folder, node)?;
    let day_key = read_if_there(&folder.join("day.key"))?;
    // The original first: as long as it can be given up, the copy is not whole.
    let original = Mark::original(&id, &shared);
    original.is_still(&Mark::of_folder(folder)?)?;
    original.done().keep_in(folder)?;
    database.end_copy(&Mark::copy(&id, &files), &sealed, day_key.as_deref())?;
    Ok(Some(copied))
}

fn into_files(
    store: &SharedStore,
    node: &Path,
    folder: &Path,
    root: &[u8; 32],
    tell: &mut dyn FnMut(Progress),
) -> Result<Option<Copied>, CopyError> {
    let _alone = Folder::lock(folder)?;
    let mut database = Nodes::open(&store.database)?;
    let (files, shared) = (name_of(folder), store.database.to_string());
    let (here, there) = (database.copy_mark()?, Mark::of_folder(folder)?);
    let plan = Plan::of(&here, &there, &Marked::Database, &files)?;
    let sealed = database.known_key_ring()?.ok_or_else(|| CopyError::NotBegun(shared.clone()))?;
    let vault = at_rest(&KeyRing::unseal(&shared, &sealed, root)?)?;
    let mut from = Place::of_database(store)?;
    let id = match plan {
        Plan::Done => return database.end_original(&here).map(|()| None),
        Plan::GoOn => here.id(),
        Plan::Begin => {
            if has_installation(folder) {
                return Err(CopyError::NotEmpty(folder.display().to_string()));
            }
            // An import that runs comes first; none begins once the mark is there.
            let _no_import = SharedAccounts::open_to_copy(&store.database)?;
            let id = hex(&random::<16>());
            database.mark_original(&id, &files, &sealed)?;
            Mark::copy(&id, &shared).keep_in(folder)?;
            id
        }
    };
    write(&folder.join("keys.json"), &sealed)?;
    let mut to = Place::of_files(folder, &vault)?;
    copy_accounts(&mut from, &mut to, &vault, tell)?;
    copy_platform(&from, &to, tell)?;
    for table in &LEDGER {
        copy_table(table, &from.ledger, &to.ledger, tell)?;
    }
    let added_up = Shares::of_file(&folder.join("ledger.db"), &vault)?;
    let shares = Shares::of_database(&from.ledger)?;
    let copied = verify(&mut from, &mut to, [&shares, &added_up], &vault, tell)?;
    copy_usage(node, folder)?;
    if let Some((day, sealed)) = database.newest_day_key()? {
        write(&folder.join("day.key"), &[&day.to_be_bytes()[..], &sealed].concat())?;
    }
    // As above; and two that copy at once from two machines do not both come to an end.
    database.end_original(&Mark::original(&id, &files))?;
    Mark::copy(&id, &shared).done().keep_in(folder)?;
    Ok(Some(copied))
}

/// One of the two places, opened.
struct Place {
    accounts: AccountsOfRecord,
    platform: Platform,
    ledger: Either,
    place: LedgerPlace,
}

impl Place {
    fn of_files(folder: &Path, vault: &Vault) -> Result<Place, StoreError> {
        let place = LedgerPlace::File(folder.join("ledger.db"));
        Ok(Place {
            accounts: AccountsOfRecord::open_alone(folder, None, vault)?,
            platform: Platform::open(&folder.join("platform.db"))?,
            ledger: tables_of(&place)?,
            place,
        })
    }

    fn of_database(store: &SharedStore) -> Result<Place, StoreError> {
        let SharedStore { database, node } = store.clone();
        let accounts = AccountsOfRecord::open(Path::new(""), Some(&database))?;
        let platform = Platform::shared(&database)?;
        let place = LedgerPlace::Shared { database, node };
        Ok(Place { accounts, platform, ledger: tables_of(&place)?, place })
    }

    /// That nothing in it waits to be gone on with, which would not know of another place.
    fn is_at_rest(&self) -> Result<(), CopyError> {
        match self.number("SELECT count(*) FROM erasure")? {
            0 => Ok(()),
            _ => Err(CopyError::UNERASED),
        }
    }

    fn is_empty(&mut self, place: &str) -> Result<(), CopyError> {
        let rows = "SELECT (SELECT count(*) FROM node) + (SELECT count(*) FROM key_ring) + (SELECT count(*) FROM caller)";
        if self.number(rows)? > 0 || self.accounts.count()? > 0 || self.platform.rows()? > 0 {
            return Err(CopyError::NotEmpty(place.to_owned()));
        }
        Ok(())
    }

    fn number(&self, sql: &'static str) -> Result<i64, StoreError> {
        Ok(self.ledger.one(sql, vec![], |row| row.get(0))?.unwrap_or(0))
    }
}

/// The keys of a folder, at work and as they are there.
fn keys_in(path: &Path, root: &[u8; 32]) -> Result<(Vault, Vec<u8>), CopyError> {
    let vault = at_rest(&KeyRing::open(path, root)?)?;
    Ok((vault, read_if_there(path)?.unwrap_or_default()))
}

fn at_rest(ring: &KeyRing) -> Result<Vault, CopyError> {
    match ring.is_rotating() {
        true => Err(CopyError::Unfinished("a rotation of keys is not finished")),
        false => Ok(Vault::new(ring)),
    }
}

/// A folder's name in a mark, the same wherever the command is run.
fn name_of(folder: &Path) -> String {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).display().to_string()
}

/// As an import, which can be gone on with: accounts come in the order of their indexes.
fn copy_accounts(
    from: &mut Place,
    to: &mut Place,
    vault: &Vault,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), CopyError> {
    let (from, to) = (&mut from.accounts, &mut to.accounts);
    to.agree_with(&vault.keys())?;
    let (all, mut done) = (from.count()?, to.count()?);
    if done < all {
        to.begin_import(&Source { identity: Some([0; 32]), is_replacing: false, from_start: false })?;
    }
    let mut after = to.last_index()?;
    while done < all {
        tell(Progress { what: "accounts", done, all });
        let page = from.page(&after)?;
        let Some((last, _)) = page.last() else { break };
        after = last.index.0.to_vec();
        let rows = page.len() as u64;
        let changes = page.into_iter().map(|(row, mac)| Change::Put(row, mac)).collect();
        to.import(changes, Import { rows, put: rows, ..Import::default() })?;
        done += rows;
    }
    if to.last_import()?.is_some_and(|last| !last.is_done) {
        while !to.sweep()?.1 {}
    }
    CopyError::unless_same("accounts", all, to.count()?)
}

fn copy_platform(from: &Place, to: &Place, tell: &mut dyn FnMut(Progress)) -> Result<(), CopyError> {
    let all = from.platform.rows()?;
    tell(Progress { what: "people and orders", done: to.platform.rows()?, all });
    from.platform.copy_to(&to.platform)?;
    CopyError::unless_same("people and orders", all, to.platform.rows()?)
}

/// Rows of usage pages are made of the ledger; what they know of refused requests nothing else knows.
fn copy_usage(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (from.join("usage.db"), to.join("usage.db"));
    if !from.exists() {
        return Ok(());
    }
    let failed = |cause| StoreError::Folder { path: to.clone(), cause };
    create_private_dir(to.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    // Whole under its name, or not there.
    let part = to.with_extension("db.copy");
    let _ = std::fs::remove_file(&part);
    UsageFile::copy(&from, &part)?;
    std::fs::rename(&part, &to).map_err(failed)
}

/// Reads everything in both places.
fn verify(
    from: &mut Place,
    to: &mut Place,
    shares: [&Shares; 2],
    vault: &Vault,
    tell: &mut dyn FnMut(Progress),
) -> Result<Copied, CopyError> {
    tell(Progress { what: "checking the audit", done: 0, all: 0 });
    let checked = LedgerFile::check(from.place.clone(), vault)?;
    let audit = LedgerFile::check(to.place.clone(), vault)?;
    let shown = |check: &Check| serde_json::to_string(check).unwrap_or_default();
    CopyError::unless_same("the audit's trees", shown(&checked), shown(&audit))?;
    tell(Progress { what: "checking the accounts", done: 0, all: 0 });
    let [before, after] = [from.accounts.census(vault)?, to.accounts.census(vault)?];
    CopyError::unless_same("the accounts", hex(&before.digest), hex(&after.digest))?;
    let [before, arrived] = shares.map(|shares| format!("{:?}", shares.known()));
    CopyError::unless_same("the balances", before, arrived)?;
    let (balances, credits) = shares[1].balances();
    Ok(Copied {
        audit,
        accounts: after.accounts,
        accounts_digest: hex(&after.digest),
        platform_rows: to.platform.rows()?,
        balances,
        credits: credits.to_string(),
    })
}

impl CopyError {
    pub(super) const UNERASED: CopyError = CopyError::Unfinished("an erasure of a person is not finished");

    fn unless_same<T: PartialEq + ToString>(what: &'static str, from: T, to: T) -> Result<(), CopyError> {
        match from == to {
            true => Ok(()),
            false => Err(CopyError::Differs { what, from: from.to_string(), to: to.to_string() }),
        }
    }
}

fn has_installation(folder: &Path) -> bool {
    ["accounts.db", "ledger.db", "keys.json"].iter().any(|name| folder.join(name).exists())
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(StoreError::Folder { path: path.to_owned(), cause }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_durably(path, bytes).map_err(|cause| StoreError::Folder { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::erase::Pending;
    use crate::store::postgres::Session;
    use crate::store::postgres_server;

    fn is_copying<T>(done: Result<T, StoreError>) -> bool {
        matches!(done, Err(StoreError::Copying(_)))
    }

    #[test]
    fn a_node_has_no_place_in_a_database_that_is_copied_and_changes_nothing_there() {
        let Some(server) = postgres_server::shared() else { return };
        let store = SharedStore { database: server.database(), node: "a".into() };
        let vault = Vault::new(&KeyRing::generate());
        let _tables = SharedAccounts::open(&store.database).unwrap();
        let mut nodes = Nodes::open(&store.database).unwrap();
        let (_, version) = nodes.key_ring(b"keys").unwrap();
        let lease = Arc::new(nodes.take_place(&store, version).unwrap());
        let place = LedgerPlace::Shared { database: Arc::clone(&store.database), node: store.node.clone() };
        let mut ledger = LedgerFile::open_shared(place, Arc::clone(&lease), &vault).unwrap().file;
        assert!(matches!(nodes.mark_original("1", "there", b"keys"), Err(CopyError::NodesLive(_))));
        let execute = |sql| {
            let mut session = Session::new(Arc::clone(&store.database)).unwrap();
            session.read(async |connection| connection.client.batch_execute(sql).await).unwrap();
        };
        execute("UPDATE node SET alive_until = 0");
        assert!(nodes.mark_original("1", "there", b"others").is_err(), "they were replaced meanwhile");
        nodes.mark_original("1", "there", b"keys").unwrap();

        assert!(matches!(nodes.sign_of_life(&lease), Err(StoreError::Fenced)));
        assert!(is_copying(ledger.look_back(None)));
        assert!(is_copying(nodes.take_place(&store, version)));
        assert!(is_copying(nodes.replace_key_ring(b"new", version)));
        // About nobody.
        let pending: Pending = postcard::from_bytes(&[0; 19]).unwrap();
        assert!(is_copying(ledger.begin_erasure(&pending, &vault)));
        // Given up: whoever has no place any more takes one first.
        execute("UPDATE copy_mark SET mark = ''");
        assert!(matches!(ledger.look_back(None), Err(StoreError::Fenced)));
        assert!(nodes.take_place(&store, version).is_ok());
    }
}
