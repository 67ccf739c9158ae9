//! Changes of single accounts, in their turn: between two batches of an import, or of a rotation of keys.
//!
//! While a rotation brings the rows under other keys, a change writes its row under the new ones, wherever
//! the row stood, and keeps the rotation's count and sum right, by which it is checked at its end.

use rusqlite::{Connection, TransactionBehavior, params};

use super::{AccountRow, Accounts, SCHEMA, authentic, delete_in, find_in, put_all, rewrap};
use crate::account::AccountState;
use crate::store::StoreError;
use crate::vault::{AccountKeys, BlindIndex, Keys, Vault};

/// Where the account of a card is, under one version of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    index: BlindIndex,
    keys: u32,
}

impl Spot {
    /// Of a card number, under the newest keys.
    pub fn of(card: &str, vault: &Vault) -> Spot {
        let keys = vault.keys();
        Spot { index: keys.index(card, keys.accounts()), keys: keys.accounts().version }
    }
}

/// One change of one account.
#[derive(Clone, Debug)]
pub enum Order {
    /// Adds the account, or replaces the one of the same card.
    Put(AccountRow),
    /// Gives the account that is there another state; its holder stays.
    SetState(Spot, AccountState),
    /// Removes the account.
    Delete(Spot),
}

/// What became of an order.
#[derive(Clone, Debug)]
pub enum Done {
    /// The account is like this now.
    Is(AccountRow),
    /// The account is gone.
    Deleted,
    /// There is no account of that card; nothing was changed.
    Absent,
}

impl Accounts {
    /// Carries out orders, in their turn and in one commit; waits for the batch of an import or a rotation
    /// if need be.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn carry_out(&mut self, orders: &[Order], vault: &Vault) -> Result<Vec<Done>, StoreError> {
        let keys = vault.keys();
        let _next = self.next_in_turn()?;
        let begin = self.db.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begin.map_err(failed)?;
        let mut writing = Writing::begin(&transaction, &keys)?;
        let done = orders.iter().map(|order| writing.carry_out(order)).collect::<Result<_, _>>()?;
        writing.end()?;
        transaction.commit().map_err(failed)?;
        Ok(done)
    }
}

fn failed(cause: rusqlite::Error) -> StoreError {
    SCHEMA.error(cause)
}

/// Rows as they are written at one moment.
struct Writing<'a> {
    db: &'a Connection,
    keys: &'a Keys,
    /// Version of all rows, or of those that a rotation has not moved yet.
    held: u32,
    /// The version a rotation moves them to, if one does; how many it has, and their sum.
    moving: Option<(u32, i64, u128)>,
}

impl Writing<'_> {
    fn begin<'a>(db: &'a Connection, keys: &'a Keys) -> Result<Writing<'a>, StoreError> {
        let (held, target) = rewrap::versions(db).map_err(failed)?;
        let moving = match target {
            None => None,
            Some(target) => {
                let (is, digest, _) = rewrap::progress(db).map_err(failed)?;
                Some((target, is.rows as i64, digest))
            }
        };
        Ok(Writing { db, keys, held, moving })
    }

    fn carry_out(&mut self, order: &Order) -> Result<Done, StoreError> {
        match order {
            Order::Put(row) => {
                self.take(&Spot { index: row.index, keys: row.keys })?;
                self.put(row.clone())
            }
            Order::SetState(spot, state) => match self.take(spot)? {
                Some((row, mac)) => {
                    let row = authentic(row, mac, self.keys)?;
                    self.put(AccountRow { state: *state, ..row })
                }
                None => Ok(Done::Absent),
            },
            Order::Delete(spot) => match self.take(spot)? {
                Some(_) => Ok(Done::Deleted),
                None => Ok(Done::Absent),
            },
        }
    }

    /// Removes the row of a card from wherever it stands.
    fn take(&mut self, spot: &Spot) -> Result<Option<(AccountRow, [u8; 16])>, StoreError> {
        let from = self.version(spot.keys)?;
        let at = |version| Ok::<_, StoreError>(from.index_under(&spot.index, self.version(version)?));
        let held = at(self.held)?;
        let moved = self.moving.map_or(Ok(held), |(target, ..)| at(target))?;
        let Some((row, mac)) = find_in(self.db, [&held, &moved]).map_err(failed)? else { return Ok(None) };
        delete_in(self.db, &row.index).map_err(failed)?;
        self.count(&row, -1)?;
        Ok(Some((row, mac)))
    }

    /// Writes a row under the version it must have now.
    fn put(&mut self, row: AccountRow) -> Result<Done, StoreError> {
        let to = self.version(self.moving.map_or(self.held, |(target, ..)| target))?;
        let row = if row.keys == to.version { row } else { row.under(self.version(row.keys)?, to) };
        put_all(self.db, std::slice::from_ref(&row), self.keys).map_err(failed)?;
        self.count(&row, 1)?;
        Ok(Done::Is(row))
    }

    /// Tells a rotation of a row under the new keys that came or went.
    fn count(&mut self, row: &AccountRow, by: i64) -> Result<(), StoreError> {
        let Some((target, rows, digest)) = self.moving.filter(|(target, ..)| *target == row.keys) else {
            return Ok(());
        };
        let fingerprint = row.fingerprint(self.version(target)?);
        let digest = match by {
            1 => digest.wrapping_add(fingerprint),
            _ => digest.wrapping_sub(fingerprint),
        };
        self.moving = Some((target, rows + by, digest));
        Ok(())
    }

    fn end(self) -> Result<(), StoreError> {
        let Some((_, rows, digest)) = self.moving else { return Ok(()) };
        self.db
            .prepare_cached("UPDATE rewrap SET rows = ?1, digest = ?2")
            .and_then(|mut note| note.execute(params![rows, &digest.to_be_bytes()[..]]))
            .map_err(failed)?;
        Ok(())
    }

    fn version(&self, version: u32) -> Result<&AccountKeys, StoreError> {
        self.keys.account_version(version).ok_or(StoreError::OtherKeys)
    }
}
