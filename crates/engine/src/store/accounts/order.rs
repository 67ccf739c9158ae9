//! Changes of single accounts, in their turn: between two batches of an import, or of a rotation of keys.
//!
//! While a rotation brings the rows under other keys, a change writes its row under the new ones, wherever
//! the row stood, and keeps the rotation's count and sum right, by which it is checked at its end.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, TransactionBehavior, params};

use super::{AccountRow, Accounts, SCHEMA, authentic, delete_in, leaves, put_all, rewrap};
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

impl Order {
    fn spot(&self) -> Spot {
        match self {
            Order::Put(row) => Spot { index: row.index, keys: row.keys },
            Order::SetState(spot, _) | Order::Delete(spot) => *spot,
        }
    }
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
        let mut plan = plan(&transaction, &keys)?;
        for index in plan.places(orders)? {
            plan.found(leaves::find(&transaction, [&index, &index]).map_err(failed)?);
        }
        let done = orders.iter().map(|order| plan.carry_out(order)).collect::<Result<_, _>>()?;
        write(&transaction, &plan).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(done)
    }
}

fn failed(cause: rusqlite::Error) -> StoreError {
    SCHEMA.error(cause)
}

fn plan<'a>(db: &Connection, keys: &'a Keys) -> Result<Plan<'a>, StoreError> {
    let (held, target) = rewrap::versions(db).map_err(failed)?;
    let moving = target.map(|target| {
        let (is, digest, _) = rewrap::progress(db).map_err(failed)?;
        Ok::<_, StoreError>(Moving { target, rows: is.rows as i64, digest })
    });
    Ok(Plan::new(keys, held, moving.transpose()?))
}

fn write(db: &Connection, plan: &Plan<'_>) -> rusqlite::Result<()> {
    for index in plan.gone() {
        delete_in(db, index)?;
    }
    put_all(db, &plan.put(), plan.keys)?;
    let Some(moving) = &plan.moving else { return Ok(()) };
    db.prepare_cached("UPDATE rewrap SET rows = ?1, digest = ?2")?
        .execute(params![moving.rows, &moving.digest.to_be_bytes()[..]])?;
    Ok(())
}

/// A rotation under way: the version it moves the rows to, how many it has, and their sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    pub(super) target: u32,
    pub(super) rows: i64,
    pub(super) digest: u128,
}

/// The rows that orders are about, as they are found and as they are left: worked out before anything is
/// written.
pub(super) struct Plan<'a> {
    keys: &'a Keys,
    /// Version of all rows, or of those that a rotation has not moved yet.
    held: u32,
    pub(super) moving: Option<Moving>,
    rows: HashMap<BlindIndex, (AccountRow, [u8; 16])>,
    changed: BTreeSet<BlindIndex>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(keys: &'a Keys, held: u32, moving: Option<Moving>) -> Plan<'a> {
        Plan { keys, held, moving, rows: HashMap::new(), changed: BTreeSet::new() }
    }

    /// Where the accounts of the orders may stand; what stands there must be told to [`Plan::found`].
    pub(super) fn places(&self, orders: &[Order]) -> Result<BTreeSet<BlindIndex>, StoreError> {
        let places = orders.iter().map(|order| self.places_of(&order.spot()));
        Ok(places.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    pub(super) fn found(&mut self, row: impl IntoIterator<Item = (AccountRow, [u8; 16])>) {
        self.rows.extend(row.into_iter().map(|(row, mac)| (row.index, (row, mac))));
    }

    pub(super) fn carry_out(&mut self, order: &Order) -> Result<Done, StoreError> {
        let before = self.take(&order.spot())?;
        match (order, before) {
            (Order::Put(row), _) => self.leave(row.clone()),
            (Order::SetState(_, state), Some((row, mac))) => {
                let row = authentic(row, mac, self.keys)?;
                self.leave(AccountRow { state: *state, ..row })
            }
            (Order::Delete(_), Some(_)) => Ok(Done::Deleted),
            (_, None) => Ok(Done::Absent),
        }
    }

    /// Rows that are to be removed.
    pub(super) fn gone(&self) -> impl Iterator<Item = &BlindIndex> {
        self.changed.iter().filter(|index| !self.rows.contains_key(index))
    }

    /// Rows that are to be written.
    pub(super) fn put(&self) -> Vec<AccountRow> {
        self.changed.iter().filter_map(|index| self.rows.get(index)).map(|(row, _)| row.clone()).collect()
    }

    /// Under the version of the rows, and under the one they are moved to.
    fn places_of(&self, spot: &Spot) -> Result<[BlindIndex; 2], StoreError> {
        let from = self.version(spot.keys)?;
        let at = |version| Ok::<_, StoreError>(from.index_under(&spot.index, self.version(version)?));
        let held = at(self.held)?;
        Ok([held, self.moving.map_or(Ok(held), |moving| at(moving.target))?])
    }

    /// Removes the row of a card from wherever it stands.
    fn take(&mut self, spot: &Spot) -> Result<Option<(AccountRow, [u8; 16])>, StoreError> {
        let [held, moved] = self.places_of(spot)?;
        let Some((row, mac)) = self.rows.remove(&held).or_else(|| self.rows.remove(&moved)) else {
            return Ok(None);
        };
        self.changed.insert(row.index);
        self.count(&row, -1)?;
        Ok(Some((row, mac)))
    }

    /// Leaves a row under the version it must have now.
    fn leave(&mut self, row: AccountRow) -> Result<Done, StoreError> {
        let to = self.version(self.moving.map_or(self.held, |moving| moving.target))?;
        let row = if row.keys == to.version { row } else { row.under(self.version(row.keys)?, to) };
        let mac = row.mac(self.keys).ok_or(StoreError::OtherKeys)?;
        self.changed.insert(row.index);
        self.rows.insert(row.index, (row.clone(), mac));
        self.count(&row, 1)?;
        Ok(Done::Is(row))
    }

    /// Tells a rotation of a row under the new keys that came or went.
    fn count(&mut self, row: &AccountRow, by: i64) -> Result<(), StoreError> {
        let Some(moving) = self.moving.filter(|moving| moving.target == row.keys) else { return Ok(()) };
        let fingerprint = row.fingerprint(self.version(moving.target)?);
        let digest = match by {
            1 => moving.digest.wrapping_add(fingerprint),
            _ => moving.digest.wrapping_sub(fingerprint),
        };
        self.moving = Some(Moving { rows: moving.rows + by, digest, ..moving });
        Ok(())
    }

    fn version(&self, version: u32) -> Result<&'a AccountKeys, StoreError> {
        self.keys.account_version(version).ok_or(StoreError::OtherKeys)
    }
}
