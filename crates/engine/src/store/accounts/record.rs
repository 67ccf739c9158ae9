//! The accounts of record, wherever they are kept: what changes them, or reads all of them, is said here.

use std::path::Path;
use std::sync::Arc;

use super::{
    AccountRow, Accounts, Batch, Census, Change, Done, Import, Order, Rewrap, SCHEMA, SharedAccounts, Source,
    TableMaker,
};
use crate::store::StoreError;
use crate::store::postgres::Database;
use crate::vault::{BlindIndex, Keys, Vault};
use crate::watch::LastImport;

/// The file of one machine, or the database of several.
#[derive(Debug)]
pub enum AccountsOfRecord {
    /// `accounts.db`.
    File(Accounts),
    /// The database; a node's `accounts.db` is a copy of it.
    Shared(SharedAccounts),
}

use AccountsOfRecord::{File, Shared};

impl AccountsOfRecord {
    /// Opens them to change some. With a database, those of the database.
    ///
    /// # Errors
    /// Also when there is no database and the file is a copy of one's accounts.
    pub fn open(folder: &Path, database: Option<&Arc<Database>>) -> Result<AccountsOfRecord, StoreError> {
        match database {
            None => {
                let accounts = Accounts::open(&folder.join("accounts.db"))?;
                accounts.is_of_record()?;
                Ok(File(accounts))
            }
            Some(database) => Ok(Shared(SharedAccounts::open(database)?)),
        }
    }

    /// Opens them to change many, alone; see [`Accounts::open_alone`].
    pub fn open_alone(
        folder: &Path,
        database: Option<&Arc<Database>>,
        vault: &Vault,
    ) -> Result<AccountsOfRecord, StoreError> {
        match database {
            None => {
                let accounts = Accounts::open_alone(folder, vault)?;
                accounts.is_of_record()?;
                Ok(File(accounts))
            }
            Some(database) => Ok(Shared(SharedAccounts::open_alone(database, vault)?)),
        }
    }

    /// Sees that these keys are theirs; see [`Accounts::agree_with`].
    pub fn agree_with(&mut self, keys: &Keys) -> Result<(), StoreError> {
        match self {
            File(accounts) => accounts.agree_with(keys),
            Shared(accounts) => accounts.agree_with(keys),
        }
    }

    /// The account of a card; see [`Accounts::find`].
    pub fn find(&mut self, card: &str, keys: &Keys) -> Result<Option<AccountRow>, StoreError> {
        match self {
            File(accounts) => accounts.find(card, keys),
            Shared(accounts) => accounts.find(card, keys),
        }
    }

    /// Adds accounts, or replaces those of the same cards; all or none.
    pub fn put(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        let orders: Vec<Order> = rows.iter().map(|row| Order::Put(row.clone())).collect();
        match self {
            File(accounts) => accounts.put(rows, vault),
            Shared(accounts) => accounts.carry_out(&orders, vault).map(drop),
        }
    }

    /// Makes these accounts the whole truth.
    pub fn replace_all(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        match self {
            File(accounts) => accounts.replace_all(rows, vault),
            Shared(accounts) => {
                let source = Source { identity: None, is_replacing: true, from_start: true };
                accounts.begin_import(&source)?;
                let put = rows.iter().map(|row| Change::put(row.clone(), vault)).collect();
                accounts.import(put, Import::default())?;
                while !accounts.sweep()?.1 {}
                Ok(())
            }
        }
    }

    /// Carries orders out in one commit; see [`Accounts::carry_out`].
    pub fn carry_out(&mut self, orders: &[Order], vault: &Vault) -> Result<Vec<Done>, StoreError> {
        match self {
            File(accounts) => accounts.carry_out(orders, vault),
            Shared(accounts) => accounts.carry_out(orders, vault),
        }
    }

    /// Removes the account of that index; whether there was one.
    pub fn delete(&mut self, index: &BlindIndex, keys: &Keys) -> Result<bool, StoreError> {
        match self {
            File(accounts) => accounts.delete(index, keys),
            Shared(accounts) => accounts.delete(index, keys),
        }
    }

    /// Removes the account of that index, and what else holds it: the sealed table, the runs of an import that was
    /// interrupted. With a database each node does so with its own as soon as it follows.
    pub fn erase(&mut self, index: &BlindIndex, keys: &Keys) -> Result<(), StoreError> {
        match self {
            File(accounts) => {
                accounts.delete(index, keys)?;
                accounts.drop_runs()?;
                accounts.drop_table()
            }
            Shared(accounts) => accounts.erase(index, keys),
        }
    }

    /// Goes on changing them alone, in work that takes long elsewhere.
    pub fn stay_alone(&mut self) -> Result<(), StoreError> {
        match self {
            File(_) => Ok(()),
            Shared(accounts) => accounts.stay_alone(),
        }
    }

    /// Overwrites the log of the file; see [`Accounts::overwrite_log`].
    pub fn overwrite_log(&mut self) -> Result<bool, StoreError> {
        match self {
            File(accounts) => accounts.overwrite_log(),
            Shared(_) => Ok(true),
        }
    }

    /// Begins an import, or goes on with one; see [`Accounts::begin_import`].
    pub fn begin_import(&mut self, source: &Source) -> Result<(Import, bool), StoreError> {
        match self {
            File(accounts) => accounts.begin_import(source),
            Shared(accounts) => accounts.begin_import(source),
        }
    }

    /// Writes a batch of an import; see [`Accounts::import`].
    pub fn import(&mut self, batch: Vec<Change>, read: Import) -> Result<Import, StoreError> {
        match self {
            File(accounts) => accounts.import(&batch, read),
            Shared(accounts) => accounts.import(batch, read),
        }
    }

    /// Whether a large file is written faster when its rows are sorted before. Rows in a database are sorted there.
    pub fn takes_runs(&self) -> bool {
        matches!(self, File(_))
    }

    /// Puts rows of a large file into a run; see [`Accounts::add_run`].
    ///
    /// # Errors
    /// Also where [`AccountsOfRecord::takes_runs`] says no.
    pub fn add_run(&mut self, batch: &[Batch], read: Import) -> Result<Import, StoreError> {
        match self {
            File(accounts) => accounts.add_run(batch, read),
            Shared(_) => Err(StoreError::Stopped),
        }
    }

    /// Writes all runs; see [`Accounts::merge_runs`].
    pub fn merge_runs(
        &mut self,
        part_rows: usize,
        keys: &Keys,
        told: impl FnMut(u64),
    ) -> Result<Option<TableMaker>, StoreError> {
        match self {
            File(accounts) => accounts.merge_runs(part_rows, keys, told),
            Shared(_) => Ok(None),
        }
    }

    /// Removes a part of what a file that is the whole truth does not have; see [`Accounts::sweep`].
    pub fn sweep(&mut self) -> Result<(Import, bool), StoreError> {
        match self {
            File(accounts) => accounts.sweep(),
            Shared(accounts) => accounts.sweep(),
        }
    }

    /// The newest import; `None` when there was none.
    pub fn last_import(&mut self) -> Result<Option<LastImport>, StoreError> {
        match self {
            File(accounts) => accounts.last_import(),
            Shared(accounts) => accounts.last_import(),
        }
    }

    /// Number of accounts.
    pub fn count(&mut self) -> Result<u64, StoreError> {
        match self {
            File(accounts) => accounts.count(),
            Shared(accounts) => accounts.count(),
        }
    }

    /// Reads every account; see [`Accounts::census`].
    pub fn census(&mut self, vault: &Vault) -> Result<Census, StoreError> {
        match self {
            File(accounts) => accounts.census(vault),
            Shared(accounts) => accounts.census(vault),
        }
    }

    /// How many of some accounts are not in the element index; see [`Accounts::missing_in_element_index`].
    pub fn missing_in_element_index(&mut self, most: u32) -> Result<u64, StoreError> {
        match self {
            File(accounts) => accounts.missing_in_element_index(most),
            Shared(accounts) => accounts.missing_in_element_index(most),
        }
    }

    /// Some accounts after an index, in their order.
    pub(in crate::store) fn page(&mut self, after: &[u8]) -> Result<Vec<(AccountRow, [u8; 16])>, StoreError> {
        match self {
            File(accounts) => accounts.page(after, 20_000).map_err(|cause| SCHEMA.error(cause)),
            Shared(accounts) => accounts.page(after),
        }
    }

    /// The greatest index; empty where there are no accounts.
    pub(in crate::store) fn last_index(&mut self) -> Result<Vec<u8>, StoreError> {
        match self {
            File(accounts) => accounts.last_index(),
            Shared(accounts) => accounts.last_index(),
        }
    }

    /// Begins to bring all rows under the newest keys; see [`Accounts::begin_rewrap`].
    pub fn begin_rewrap(&mut self, keys: &Keys) -> Result<(), StoreError> {
        match self {
            File(accounts) => accounts.begin_rewrap(keys),
            Shared(accounts) => accounts.begin_rewrap(keys),
        }
    }

    /// Moves some rows to them; see [`Accounts::rewrap`].
    pub fn rewrap(&mut self, keys: &Keys) -> Result<Rewrap, StoreError> {
        match self {
            File(accounts) => accounts.rewrap(keys),
            Shared(accounts) => accounts.rewrap(keys),
        }
    }

    /// Sees that all rows are under them; see [`Accounts::finish_rewrap`].
    pub fn finish_rewrap(&mut self, keys: &Keys) -> Result<u64, StoreError> {
        match self {
            File(accounts) => accounts.finish_rewrap(keys),
            Shared(accounts) => accounts.finish_rewrap(keys),
        }
    }

    /// After an import: puts the sealed table that was made with it in its place, or makes one anew where it is beside
    /// these accounts. A node makes the one beside its copy by itself.
    pub fn make_table_if_due(&self, made: Option<TableMaker>, keys: &Keys) -> Result<(), StoreError> {
        let File(accounts) = self else { return Ok(()) };
        if let Some(made) = made
            && accounts.finish_table(made)?.is_some()
        {
            return Ok(());
        }
        if accounts.table_is_due(keys)? { accounts.make_table(keys, || true).map(drop) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::account::{AccountState, AccountText};
    use crate::store::accounts::shared::{CHUNK_ROWS, DELETION_KEPT_MS};
    use crate::store::accounts::{Follower, Freshness, Spot};
    use crate::store::postgres_server::{self, Postgres};
    use crate::subject::{Date, ParseOptions};
    use crate::vault::{KeyGroup, KeyRing};

    /// A place for accounts, and the keys over them.
    struct Place {
        dir: tempfile::TempDir,
        database: Option<Arc<Database>>,
        ring: Arc<Mutex<KeyRing>>,
        vault: Vault,
    }

    impl Place {
        fn new(database: Option<Arc<Database>>) -> Place {
            let ring = KeyRing::generate();
            let vault = Vault::new(&ring);
            Place { dir: tempfile::tempdir().unwrap(), database, vault, ring: Arc::new(Mutex::new(ring)) }
        }

        /// Another node with the same keys.
        fn other_node(&self) -> Place {
            let (dir, database) = (tempfile::tempdir().unwrap(), self.database.clone());
            let vault = Vault::new(&self.ring.lock().unwrap());
            Place { dir, database, vault, ring: Arc::clone(&self.ring) }
        }

        fn accounts(&self) -> AccountsOfRecord {
            AccountsOfRecord::open(self.dir.path(), self.database.as_ref()).unwrap()
        }

        fn alone(&self) -> AccountsOfRecord {
            AccountsOfRecord::open_alone(self.dir.path(), self.database.as_ref(), &self.vault).unwrap()
        }

        fn follower(&self) -> (Follower, Arc<Freshness>) {
            let fresh = Arc::new(Freshness::new(Duration::from_secs(60)));
            let file = self.dir.path().join("accounts.db");
            (Follower::open(self.database.as_ref().unwrap(), &file, Arc::clone(&fresh)).unwrap(), fresh)
        }

        /// Brings the node's copy up to date, if it has one; gives how many accounts were taken over.
        fn catch_up(&self) -> u64 {
            if self.database.is_none() {
                return 0;
            }
            let (mut follower, fresh) = self.follower();
            let mut rows = 0;
            loop {
                let is = follower.step(&self.vault.keys()).unwrap();
                rows += is.rows;
                if is.is_current {
                    fresh.check().unwrap();
                    return rows;
                }
            }
        }

        /// The account of a card as a question finds it: in the file.
        fn told(&self, card: u64) -> Option<AccountState> {
            self.catch_up();
            let reader = Accounts::open_reader(&self.dir.path().join("accounts.db")).unwrap();
            let found = reader.find(&number(card), &self.vault.keys()).unwrap();
            assert_eq!(
                found.as_ref().map(|row| row.state),
                self.accounts().find(&number(card), &self.vault.keys()).unwrap().map(|row| row.state)
            );
            found.map(|row| row.state)
        }

        /// The digest of the accounts of record, and of the copy.
        fn digests(&self) -> [[u8; 32]; 2] {
            self.catch_up();
            let copy = Accounts::open(&self.dir.path().join("accounts.db")).unwrap();
            let of_record = self.accounts().census(&self.vault).unwrap();
            let copy = copy.census(&self.vault).unwrap();
            assert_eq!((copy.accounts, copy.states), (of_record.accounts, of_record.states));
            [of_record.digest, copy.digest]
        }

        fn put(&self, cards: impl Iterator<Item = u64>, state: &str) -> Vec<Change> {
            cards.map(|card| Change::put(row(card, state, &self.vault), &self.vault)).collect()
        }

        fn spot(&self, card: u64) -> Spot {
            Spot::of(&number(card), &self.vault)
        }
    }

    fn number(card: u64) -> String {
        format!("621700{card:010}")
    }

    fn row(card: u64, state: &str, vault: &Vault) -> AccountRow {
        let text = AccountText {
            card: &number(card),
            name: "李雷",
            id: "990101199001010019",
            mobile: "16100000101",
            state,
            ..AccountText::default()
        };
        let today = Date::new(2026, 1, 1).unwrap();
        let options = ParseOptions {
            test_land: true,
            element_index: card.is_multiple_of(2),
            ..ParseOptions::new(today)
        };
        text.row(&options, vault).unwrap()
    }

    /// One case on both stores.
    fn both(case: impl Fn(Place)) {
        case(Place::new(None));
        let Some(server) = postgres_server::shared() else { return };
        case(Place::new(Some(server.database())));
    }

    fn on_nodes(case: impl FnOnce(Place)) {
        let Some(server) = postgres_server::shared() else { return };
        case(Place::new(Some(server.database())));
    }

    const NORMAL: Option<AccountState> = Some(AccountState::Normal);
    const LOST: Option<AccountState> = Some(AccountState::Lost);

    fn rows(rows: u64, put: u64) -> Import {
        Import { rows, put, ..Import::default() }
    }

    #[test]
    fn orders_change_single_accounts() {
        both(|place| {
            place.accounts().put(&[row(1, "", &place.vault)], &place.vault).unwrap();
            assert_eq!((place.told(1), place.told(2)), (NORMAL, None));
            let orders = [
                Order::Put(row(2, "", &place.vault)),
                Order::SetState(place.spot(2), AccountState::Lost),
                Order::Delete(place.spot(1)),
                Order::Delete(place.spot(1)),
                Order::SetState(place.spot(3), AccountState::Lost),
            ];
            let done = place.accounts().carry_out(&orders, &place.vault).unwrap();
            assert!(matches!(
                done[..],
                [Done::Is(_), Done::Is(_), Done::Deleted, Done::Absent, Done::Absent]
            ));
            assert_eq!((place.told(1), place.told(2)), (None, LOST));
            place.accounts().put(&[row(1, "", &place.vault)], &place.vault).unwrap();
            assert_eq!(place.told(1), NORMAL, "it comes back where it was deleted");
            let BlindIndex(index) = place.vault.index(&number(1));
            assert!(place.accounts().delete(&BlindIndex(index), &place.vault.keys()).unwrap());
            assert!(!place.accounts().delete(&BlindIndex(index), &place.vault.keys()).unwrap());
            assert_eq!((place.told(1), place.accounts().count().unwrap()), (None, 1));
        });
    }

    #[test]
    fn an_import_goes_on_where_it_was_interrupted() {
        both(|place| {
            let source = Source { identity: Some([7; 32]), is_replacing: false, from_start: false };
            let mut accounts = place.alone();
            assert_eq!(accounts.last_import().unwrap(), None);
            assert_eq!(accounts.begin_import(&source).unwrap(), (Import::default(), false));
            // Of several rows of a card the last one counts, and a rejected one undoes nothing.
            let mut batch = place.put(0..3, "lost");
            batch.extend(place.put(1..2, ""));
            batch.push(Change::Delete(place.vault.index(&number(2))));
            batch.push(Change::Keep(place.vault.index(&number(1))));
            let read = Import { rejected: 1, rejected_bytes: 9, ..rows(6, 4) };
            let is = accounts.import(batch, read).unwrap();
            assert_eq!((is.rows, is.put, is.deleted, is.rejected, is.rejected_bytes), (6, 4, 0, 1, 9));
            drop(accounts);
            let mut accounts = place.alone();
            assert_eq!(accounts.begin_import(&source).unwrap(), (is, false), "goes on");
            let is =
                accounts.import(vec![Change::Delete(place.vault.index(&number(0)))], rows(1, 0)).unwrap();
            assert_eq!((is.rows, is.deleted), (7, 1));
            assert!(accounts.sweep().unwrap().1);
            let last = accounts.last_import().unwrap().unwrap();
            assert_eq!((last.is, last.is_done, last.is_replacing), (is, true, false));
            assert_eq!(accounts.begin_import(&source).unwrap().0, Import::default(), "begins again");
            let other = Source { identity: Some([8; 32]), ..source };
            assert!(accounts.begin_import(&other).unwrap().1, "another file: the first is given up");
            drop(accounts);
            assert_eq!([0, 1, 2].map(|card| place.told(card)), [None, NORMAL, None]);
        });
    }

    #[test]
    fn a_file_that_is_the_whole_truth_removes_what_it_does_not_have() {
        both(|place| {
            place
                .accounts()
                .put(&[row(1, "", &place.vault), row(2, "", &place.vault)], &place.vault)
                .unwrap();
            assert_eq!(place.told(2), NORMAL);
            let source = Source { identity: Some([7; 32]), is_replacing: true, from_start: false };
            let mut accounts = place.alone();
            accounts.begin_import(&source).unwrap();
            let mut batch = place.put(3..5, "");
            batch.push(Change::Keep(place.vault.index(&number(1))));
            accounts.import(batch, rows(3, 2)).unwrap();
            let mut swept = accounts.sweep().unwrap();
            while !swept.1 {
                swept = accounts.sweep().unwrap();
            }
            assert_eq!(swept.0.removed, 1);
            drop(accounts);
            assert_eq!([1, 2, 3, 4, 5].map(|card| place.told(card)), [NORMAL, None, NORMAL, NORMAL, None]);
            place.accounts().replace_all(&[row(9, "lost", &place.vault)], &place.vault).unwrap();
            assert_eq!([1, 3, 9].map(|card| place.told(card)), [None, None, LOST]);
        });
    }

    #[test]
    fn a_second_import_is_refused_and_may_begin_when_the_first_has_ended() {
        both(|place| {
            let first = place.alone();
            // The first renews its lease, as one that writes batches does.
            let busy = std::thread::scope(|scope| {
                let second = scope.spawn(|| {
                    AccountsOfRecord::open_alone(place.dir.path(), place.database.as_ref(), &place.vault)
                });
                let mut first = first;
                while !second.is_finished() {
                    let source = Source { identity: None, is_replacing: false, from_start: false };
                    first.begin_import(&source).unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                }
                second.join().unwrap().unwrap_err()
            });
            assert!(matches!(busy, StoreError::Importing(_) | StoreError::ImportingShared), "{busy}");
            drop(place.alone());
        });
    }

    /// Rows are found at every moment of a rotation, and orders go on.
    #[test]
    fn accounts_are_brought_under_other_keys_while_orders_go_on() {
        both(|place| {
            let many: Vec<_> = (0..6000).map(|card| row(card, "", &place.vault)).collect();
            many.chunks(3000).for_each(|rows| place.accounts().put(rows, &place.vault).unwrap());
            let mut accounts = place.alone();
            assert_eq!(place.told(5), NORMAL);
            place.ring.lock().unwrap().add(KeyGroup::Accounts, 0);
            place.vault.replace(&place.ring.lock().unwrap());
            let keys = place.vault.keys();
            accounts.begin_rewrap(&keys).unwrap();
            let source = Source { identity: None, is_replacing: false, from_start: false };
            let refused = accounts.begin_import(&source).and_then(|_| accounts.import(vec![], rows(0, 0)));
            assert!(matches!(refused, Err(StoreError::Rewrapping)), "{refused:?}");
            let is = accounts.rewrap(&keys).unwrap();
            assert_eq!((is.rows, is.is_moved), (5000, false));
            for card in [0, 1, 2, 3000, 5999] {
                assert_eq!(place.told(card), NORMAL, "card {card}, half moved");
            }
            let orders = (0..50).map(|card| Order::SetState(place.spot(card), AccountState::Lost));
            let others = [Order::Delete(place.spot(60)), Order::Put(row(7000, "", &place.vault))];
            let orders: Vec<Order> = orders.chain(others).collect();
            place.accounts().carry_out(&orders, &place.vault).unwrap();
            while !accounts.rewrap(&keys).unwrap().is_moved {}
            assert_eq!(accounts.finish_rewrap(&keys).unwrap(), 6000);
            assert_eq!(
                [0, 49, 50, 60, 7000].map(|card| place.told(card)),
                [LOST, LOST, NORMAL, None, NORMAL]
            );
            let [of_record, copy] = place.digests();
            assert_eq!(of_record, copy);
        });
    }

    /// It would find nobody under the names it knows, so it must not go on as if there were nobody.
    #[test]
    fn a_node_without_the_new_keys_does_not_follow() {
        on_nodes(|place| {
            place.accounts().put(&[row(1, "", &place.vault)], &place.vault).unwrap();
            let late = place.other_node();
            assert_eq!(late.told(1), NORMAL);
            let mut accounts = place.alone();
            place.ring.lock().unwrap().add(KeyGroup::Accounts, 0);
            place.vault.replace(&place.ring.lock().unwrap());
            accounts.begin_rewrap(&place.vault.keys()).unwrap();
            let (mut follower, fresh) = late.follower();
            for _ in 0..2 {
                let followed = follower.step(&late.vault.keys());
                assert!(matches!(followed, Err(StoreError::OtherKeys)), "{followed:?}");
                assert!(fresh.check().is_err());
                while !accounts.rewrap(&place.vault.keys()).unwrap().is_moved {}
            }
            late.vault.replace(&late.ring.lock().unwrap());
            assert_eq!(late.told(1), NORMAL);
        });
    }

    #[test]
    fn the_same_accounts_have_one_digest_in_either_store() {
        on_nodes(|place| {
            let rows: Vec<_> = (0..100).map(|card| row(card, "", &place.vault)).collect();
            place.accounts().put(&rows, &place.vault).unwrap();
            let mut file = Accounts::open(&place.dir.path().join("other.db")).unwrap();
            file.put(&rows, &place.vault).unwrap();
            let [of_record, copy] = place.digests();
            assert_eq!([of_record, copy], [file.census(&place.vault).unwrap().digest; 2]);
            let census = place.accounts().census(&place.vault).unwrap();
            assert_eq!((census.accounts, census.in_element_index, census.file_bytes), (100, 50, None));
            assert_eq!(place.accounts().missing_in_element_index(100).unwrap(), 50);
        });
    }

    #[test]
    fn a_row_that_was_changed_in_the_database_is_not_answered_from() {
        on_nodes(|place| {
            place.accounts().put(&[row(1, "lost", &place.vault)], &place.vault).unwrap();
            let mut session = crate::store::postgres::Session::new(place.database.clone().unwrap()).unwrap();
            let change = "UPDATE account SET state = 0, changed = 2; UPDATE account_state SET number = 2";
            session
                .attempt(async |it| it.client.batch_execute(change).await.map_err(StoreError::Database))
                .unwrap();
            place.catch_up();
            let reader = Accounts::open_reader(&place.dir.path().join("accounts.db")).unwrap();
            let found = reader.find(&number(1), &place.vault.keys());
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
            let found = place.accounts().find(&number(1), &place.vault.keys());
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
        });
    }

    #[test]
    fn a_new_node_copies_everything_and_then_follows() {
        on_nodes(|place| {
            // More than a page, and more than one number of an import.
            let most = 2 * CHUNK_ROWS as u64 + 500;
            let source = Source { identity: None, is_replacing: false, from_start: false };
            let mut accounts = place.alone();
            accounts.begin_import(&source).unwrap();
            accounts.import(place.put(0..most, ""), rows(most, most)).unwrap();
            assert_eq!(place.catch_up(), most);
            accounts.import(place.put(0..most, "lost"), rows(most, most)).unwrap();
            let gone = (100..20_100).map(|card| Change::Delete(place.vault.index(&number(card)))).collect();
            accounts.import(gone, rows(1, 0)).unwrap();
            let late = place.other_node();
            assert_eq!((late.catch_up(), late.told(99), late.told(100)), (most - 20_000, LOST, None));
            assert_eq!((place.told(99), place.told(100), place.catch_up()), (LOST, None, 0));
            assert_eq!(place.digests()[0], late.digests()[1]);
        });
    }

    #[test]
    fn a_node_that_was_away_for_too_long_copies_everything_again() {
        on_nodes(|place| {
            let put = |cards: std::ops::Range<u64>| {
                let rows: Vec<_> = cards.map(|card| row(card, "", &place.vault)).collect();
                place.accounts().put(&rows, &place.vault).unwrap();
            };
            put(0..10);
            let away = place.other_node();
            assert_eq!(away.catch_up(), 10);
            place.accounts().carry_out(&[Order::Delete(place.spot(3))], &place.vault).unwrap();
            place.catch_up();
            let (mut follower, _) = place.follower();
            // Noted, then forgotten when the time is over.
            for now in [DELETION_KEPT_MS, 2 * DELETION_KEPT_MS - 1] {
                follower.forget_deletions(now).unwrap();
            }
            assert_eq!(place.other_node().catch_up(), 9);
            follower.forget_deletions(2 * DELETION_KEPT_MS).unwrap();
            put(20..21);
            assert_eq!((place.catch_up(), away.catch_up()), (1, 10), "one follows, the other begins again");
            assert_eq!((away.told(3), away.told(20)), (None, NORMAL));
            assert_eq!(place.digests(), away.digests());
        });
    }

    #[test]
    fn a_copy_is_whole_whoever_changes_accounts_meanwhile() {
        on_nodes(|place| {
            let away = place.other_node();
            std::thread::scope(|scope| {
                for writer in 0..4 {
                    let place = &place;
                    scope.spawn(move || {
                        let mut accounts = place.accounts();
                        for round in 0..30u64 {
                            let card = (writer * 7 + round * 3) % 40;
                            let order = match round % 3 {
                                0 => Order::Delete(place.spot(card)),
                                1 => Order::SetState(place.spot(card), AccountState::Lost),
                                _ => Order::Put(row(card, "", &place.vault)),
                            };
                            accounts.carry_out(&[order], &place.vault).unwrap();
                        }
                    });
                }
                let (mut follower, _) = away.follower();
                for _ in 0..200 {
                    follower.step(&away.vault.keys()).unwrap();
                }
            });
            let [of_record, copy] = away.digests();
            assert_eq!(of_record, copy);
        });
    }

    #[test]
    fn a_copy_is_not_answered_from_when_it_is_old_or_not_whole() {
        let Some(mut server) = Postgres::start() else { return };
        let place = Place::new(Some(server.database()));
        place.accounts().put(&[row(1, "", &place.vault)], &place.vault).unwrap();
        let fresh = Arc::new(Freshness::new(Duration::from_millis(500)));
        let file = place.dir.path().join("accounts.db");
        let mut follower =
            Follower::open(place.database.as_ref().unwrap(), &file, Arc::clone(&fresh)).unwrap();
        let reader = Accounts::open_reader(&file).unwrap().while_fresh(Arc::clone(&fresh));
        let keys = place.vault.keys();
        let said = reader.look_with(&keys).unwrap_err().to_string();
        assert!(said.contains("not whole yet"), "{said}");
        while !follower.step(&keys).unwrap().is_current {}
        reader.look_with(&keys).unwrap();
        assert!(reader.find(&number(1), &keys).unwrap().is_some());
        server.kill();
        let began = std::time::Instant::now();
        while fresh.check().is_ok() {
            assert!(follower.step(&keys).is_err());
            std::thread::sleep(Duration::from_millis(20));
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        let said = reader.look_with(&keys).unwrap_err().to_string();
        assert!(said.contains("server.accounts_stale_max"), "{said}");
        server.run();
        while !follower.step(&keys).is_ok_and(|is| is.is_current) {}
        reader.look_with(&keys).unwrap();
    }

    #[test]
    fn accounts_of_its_own_are_not_overwritten_by_those_of_a_database_nor_a_copy_taken_for_them() {
        on_nodes(|place| {
            let own = Place { database: None, ..place.other_node() };
            own.accounts().put(&[row(1, "", &own.vault)], &own.vault).unwrap();
            let file = own.dir.path().join("accounts.db");
            let fresh = Arc::new(Freshness::new(Duration::from_secs(60)));
            let said =
                Follower::open(place.database.as_ref().unwrap(), &file, fresh).unwrap_err().to_string();
            assert!(said.contains("has accounts of its own"), "{said}");
            place.catch_up();
            let said =
                AccountsOfRecord::open_alone(place.dir.path(), None, &place.vault).unwrap_err().to_string();
            assert!(said.contains("is a copy of a database's accounts"), "{said}");
        });
    }

    #[test]
    fn nothing_is_left_at_any_node_of_a_person_who_was_erased() {
        on_nodes(|place| {
            let rows: Vec<_> = (0..2000).map(|card| row(card, "", &place.vault)).collect();
            place.accounts().put(&rows, &place.vault).unwrap();
            place.catch_up();
            let path = place.dir.path().join("accounts.db");
            let keys = place.vault.keys();
            Accounts::open(&path).unwrap().make_table(&keys, || true).unwrap().unwrap();
            let index = place.vault.index(&number(7));
            let verifier = rows[7].verifiers.name_exact.0;
            let traces = || {
                let files = std::fs::read_dir(place.dir.path()).unwrap().map(|file| file.unwrap().path());
                let has = |path: std::path::PathBuf| {
                    let bytes = std::fs::read(path).unwrap();
                    bytes.windows(8).any(|bytes| bytes == &verifier[..8])
                };
                files.filter(|path| has(path.clone())).count()
            };
            assert!(traces() >= 2, "the file or its log, and the table");
            place.accounts().erase(&index, &keys).unwrap();
            place.catch_up();
            assert_eq!((traces(), place.told(7), place.told(8)), (0, None, NORMAL));
        });
    }

    #[test]
    fn keys_of_another_installation_are_refused() {
        both(|place| {
            place.accounts().put(&[row(1, "", &place.vault)], &place.vault).unwrap();
            let mut ring = KeyRing::generate();
            ring.add(KeyGroup::Accounts, 0);
            ring.destroy_older(KeyGroup::Accounts, |_, _| false);
            let said = place.accounts().agree_with(&Vault::new(&ring).keys()).unwrap_err().to_string();
            assert!(said.contains("from another backup"), "{said}");
        });
    }
}
