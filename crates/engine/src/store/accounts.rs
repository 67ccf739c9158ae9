//! Accounts of record: found by blind index, compared by verifiers, no plaintext element.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};
use subtle::ConstantTimeEq;

use super::StoreError;
use super::sqlite::{Durability, Schema};
use crate::account::{AccountState, DocumentKind};
use crate::vault::{BlindIndex, Vault, Verifier, Verifiers};

const SCHEMA: Schema = Schema {
    file: "accounts.db",
    durability: Durability::Full,
    versions: &["
        CREATE TABLE account (
            idx        BLOB PRIMARY KEY,  -- blind index of the card number
            name_exact BLOB NOT NULL,     -- verifiers, bound to the card, each wrapped by its own key
            name_loose BLOB NOT NULL,
            id         BLOB NOT NULL,
            mobile     BLOB,              -- NULL: the bank has no mobile on file
            state      INTEGER NOT NULL,
            kind       INTEGER NOT NULL,  -- document the account was opened with
            mac        BLOB NOT NULL      -- over all of the above
        ) WITHOUT ROWID;
    "],
};

/// An account as it is stored.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// Where it is found.
    pub index: BlindIndex,
    /// What the holder's elements must match; `mobile` counts only with `has_mobile`.
    pub verifiers: Verifiers,
    /// Whether the bank has a mobile on file.
    pub has_mobile: bool,
    /// The card's state.
    pub state: AccountState,
    /// The document it was opened with.
    pub kind: DocumentKind,
}

impl AccountRow {
    /// Authenticates what the verifiers do not: state, kind, and the row they stand in.
    fn mac(&self, vault: &Vault) -> [u8; 16] {
        let plain = [u8::from(self.has_mobile), self.state.code(), self.kind.code()];
        let Verifiers { name_exact, name_loose, id, mobile } = &self.verifiers;
        vault.row_mac(&[&self.index.0, &plain, &name_exact.0, &name_loose.0, &id.0, &mobile.0])
    }
}

/// The accounts file, for one writer or one reader.
#[derive(Debug)]
pub struct Accounts {
    db: Connection,
}

impl Accounts {
    /// Opens the file to change accounts.
    pub fn open(path: &Path) -> Result<Accounts, StoreError> {
        Ok(Accounts { db: SCHEMA.open(path)? })
    }

    /// Opens the file to look accounts up.
    pub fn open_reader(path: &PathBuf) -> Result<Accounts, StoreError> {
        Ok(Accounts { db: SCHEMA.open_reader(path)? })
    }

    /// The account of a card.
    pub fn find(&self, index: &BlindIndex, vault: &Vault) -> Result<Option<AccountRow>, StoreError> {
        let found = self
            .db
            .prepare_cached(
                "SELECT name_exact, name_loose, id, mobile, state, kind, mac FROM account WHERE idx = ?1",
            )
            .and_then(|mut find| find.query_row([&index.0[..]], |row| read(*index, row)).optional())
            .map_err(|cause| SCHEMA.error(cause))?;
        let Some((row, mac)) = found else { return Ok(None) };
        if bool::from(row.mac(vault).ct_eq(&mac)) {
            Ok(Some(row))
        } else {
            Err(StoreError::Damaged {
                file: SCHEMA.file,
                what: "an account was changed outside card4e".into(),
            })
        }
    }

    /// Adds accounts, or replaces those of the same cards; all or none.
    pub fn put(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        self.change(|db| put_all(db, rows, vault))
    }

    /// Makes these accounts the whole truth.
    pub fn replace_all(&mut self, rows: &[AccountRow], vault: &Vault) -> Result<(), StoreError> {
        self.change(|db| {
            db.execute("DELETE FROM account", [])?;
            put_all(db, rows, vault)
        })
    }

    /// Number of accounts.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.db
            .query_row("SELECT count(*) FROM account", [], |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
            .map_err(|cause| SCHEMA.error(cause))
    }

    fn change(&mut self, change: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let run = |db: &mut Connection| {
            let transaction = db.transaction()?;
            change(&transaction)?;
            transaction.commit()
        };
        run(&mut self.db).map_err(|cause| SCHEMA.error(cause))
    }
}

fn put_all(db: &Connection, rows: &[AccountRow], vault: &Vault) -> rusqlite::Result<()> {
    let mut put =
        db.prepare_cached("INSERT OR REPLACE INTO account VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for row in rows {
        let v = &row.verifiers;
        let mobile = row.has_mobile.then_some(&v.mobile.0[..]);
        put.execute(params![
            &row.index.0[..],
            &v.name_exact.0[..],
            &v.name_loose.0[..],
            &v.id.0[..],
            mobile,
            row.state.code(),
            row.kind.code(),
            &row.mac(vault)[..],
        ])?;
    }
    Ok(())
}

fn read(index: BlindIndex, row: &Row<'_>) -> rusqlite::Result<(AccountRow, [u8; 16])> {
    let mobile: Option<[u8; 16]> = row.get(3)?;
    // A code nobody knows is the catch-all of its column: a later card4e may know more states.
    let state = AccountState::from_code(row.get(4)?).unwrap_or(AccountState::Abnormal);
    let kind = DocumentKind::from_code(row.get(5)?).unwrap_or(DocumentKind::Other);
    let verifiers = Verifiers {
        name_exact: Verifier(row.get(0)?),
        name_loose: Verifier(row.get(1)?),
        id: Verifier(row.get(2)?),
        mobile: Verifier(mobile.unwrap_or_default()),
    };
    let account = AccountRow { index, verifiers, has_mobile: mobile.is_some(), state, kind };
    Ok((account, row.get(6)?))
}
