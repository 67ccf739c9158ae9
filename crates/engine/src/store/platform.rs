//! The platform's file: people, sessions, labels of credentials, packages, orders, vouchers, invitations.
//!
//! No verification waits for it. Codes and session keys are long and random, so a plain SHA-256 of them is
//! kept and nothing that lets anybody in.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::StoreError;
use super::sqlite::{Durability, Schema};
use crate::caller::{ApplicationId, CallerId, CredentialId};
use crate::clock::Millis;
use crate::ledger::Credits;
use crate::platform::{Label, Order, OrderState, Package, PayWay, Person, Voucher};

const SCHEMA: Schema = Schema {
    file: "platform.db",
    durability: Durability::Full,
    versions: &["
        CREATE TABLE person (
            caller        INTEGER PRIMARY KEY,
            login         TEXT NOT NULL UNIQUE,   -- an e-mail address
            password      TEXT NOT NULL,          -- argon2id
            created_at_ms INTEGER NOT NULL
        );
        CREATE TABLE session (
            hash     BLOB PRIMARY KEY,
            caller   INTEGER NOT NULL,
            until_ms INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE invitation (
            hash     BLOB PRIMARY KEY,
            until_ms INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE reset (                      -- who may choose another password
            caller   INTEGER PRIMARY KEY,
            hash     BLOB NOT NULL UNIQUE,
            until_ms INTEGER NOT NULL
        );
        CREATE TABLE acquired (
            application INTEGER PRIMARY KEY,
            at_ms       INTEGER NOT NULL
        );
        CREATE TABLE label (
            credential    INTEGER PRIMARY KEY,
            name          TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL,
            updated_at_ms INTEGER NOT NULL,
            used_at_ms    INTEGER
        );
        CREATE TABLE package (
            id      TEXT PRIMARY KEY,
            title   TEXT NOT NULL,
            credits INTEGER NOT NULL,             -- millionths
            cents   INTEGER NOT NULL
        );
        CREATE TABLE purchase (
            id             TEXT PRIMARY KEY,
            caller         INTEGER NOT NULL,
            package        TEXT,
            description    TEXT NOT NULL,
            credits        INTEGER NOT NULL,      -- millionths
            cents          INTEGER NOT NULL,
            state          TEXT NOT NULL,
            pay_way        TEXT,
            created_at_ms  INTEGER NOT NULL,
            updated_at_ms  INTEGER NOT NULL,
            finished_at_ms INTEGER
        );
        CREATE INDEX purchase_by_caller ON purchase (caller, created_at_ms);
        CREATE TABLE voucher (
            hash          BLOB PRIMARY KEY,
            last4         TEXT NOT NULL,
            credits       INTEGER NOT NULL,       -- millionths
            created_at_ms INTEGER NOT NULL,
            redeemed_by   INTEGER
        ) WITHOUT ROWID;
    "],
};

/// The file in the hands of its one writer.
#[derive(Debug)]
pub struct PlatformFile {
    db: Connection,
}

type Stored<T> = Result<T, StoreError>;

impl PlatformFile {
    /// Opens the file.
    pub fn open(path: &Path) -> Stored<PlatformFile> {
        Ok(PlatformFile { db: SCHEMA.open(path)? })
    }

    /// Copies the file as it is now; see [`super::Accounts::copy`].
    pub fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> Stored<()> {
        SCHEMA.copy(from, to, progress)
    }

    /// Whether SQLite finds its own structures whole.
    pub fn check_structure(path: &Path) -> Stored<()> {
        SCHEMA.check_structure(path)
    }

    /// The person with this login.
    pub fn person(&self, login: &str) -> Stored<Option<Person>> {
        self.one(
            "SELECT caller, login, password, created_at_ms FROM person WHERE login = ?1",
            [login],
            person,
        )
    }

    /// The person who owns a caller.
    pub fn person_of(&self, caller: CallerId) -> Stored<Option<Person>> {
        let find = "SELECT caller, login, password, created_at_ms FROM person WHERE caller = ?1";
        self.one(find, [caller.0], person)
    }

    /// Adds a person; `false` when the login is taken.
    pub fn add_person(&self, person: &Person) -> Stored<bool> {
        let Person { caller, login, password, created_at_ms } = person;
        self.run(
            "INSERT INTO person VALUES (?1, ?2, ?3, ?4) ON CONFLICT (login) DO NOTHING",
            params![caller.0, login, password, created_at_ms],
        )
    }

    /// Everybody who logs in with a password, by login.
    pub fn people(&self) -> Stored<Vec<Person>> {
        self.many("SELECT caller, login, password, created_at_ms FROM person ORDER BY login", [], person)
    }

    /// Keeps another password, and ends all sessions of the person: both or neither.
    pub(crate) fn set_password(&mut self, caller: CallerId, password: &str) -> Stored<()> {
        let mut run = || -> rusqlite::Result<()> {
            let transaction = self.db.transaction()?;
            let set = "UPDATE person SET password = ?2 WHERE caller = ?1";
            transaction.execute(set, params![caller.0, password])?;
            transaction.execute("DELETE FROM session WHERE caller = ?1", [caller.0])?;
            transaction.execute("DELETE FROM reset WHERE caller = ?1", [caller.0])?;
            transaction.commit()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// Keeps a code that lets a person choose another password, in place of one before.
    pub(crate) fn allow_reset(&self, code: &str, caller: CallerId, until: Millis) -> Stored<()> {
        let put = "INSERT OR REPLACE INTO reset VALUES (?1, ?2, ?3)";
        self.run(put, params![caller.0, hash(code), until]).map(|_| ())
    }

    /// Who may choose another password with this code.
    pub fn reset_of(&self, code: &str, now: Millis) -> Stored<Option<CallerId>> {
        let find = "SELECT caller FROM reset WHERE hash = ?1 AND until_ms > ?2";
        self.one(find, params![hash(code), now], |row| row.get(0).map(CallerId))
    }

    /// Uses such a code up.
    pub(crate) fn take_reset(&self, code: &str, now: Millis) -> Stored<Option<CallerId>> {
        let take = "DELETE FROM reset WHERE hash = ?1 AND until_ms > ?2 RETURNING caller";
        self.one(take, params![hash(code), now], |row| row.get(0).map(CallerId))
    }

    /// Begins a session; those that are over are forgotten.
    pub fn begin_session(&self, key: &str, caller: CallerId, until: Millis, now: Millis) -> Stored<()> {
        self.run("DELETE FROM session WHERE until_ms <= ?1", [now])?;
        self.run("INSERT INTO session VALUES (?1, ?2, ?3)", params![hash(key), caller.0, until])?;
        Ok(())
    }

    /// Whose session this is.
    pub fn session(&self, key: &str, now: Millis) -> Stored<Option<CallerId>> {
        let find = "SELECT caller FROM session WHERE hash = ?1 AND until_ms > ?2";
        self.one(find, params![hash(key), now], |row| row.get(0).map(CallerId))
    }

    /// Ends a session.
    pub fn end_session(&self, key: &str) -> Stored<()> {
        self.run("DELETE FROM session WHERE hash = ?1", [hash(key)]).map(|_| ())
    }

    /// Keeps an invitation until its end.
    pub(crate) fn invite(&self, code: &str, until: Millis) -> Stored<()> {
        self.run("INSERT INTO invitation VALUES (?1, ?2)", params![hash(code), until]).map(|_| ())
    }

    /// Whether there is such an invitation.
    pub fn has_invitation(&self, code: &str, now: Millis) -> Stored<bool> {
        let find = "SELECT 1 FROM invitation WHERE hash = ?1 AND until_ms > ?2";
        Ok(self.one(find, params![hash(code), now], |_| Ok(()))?.is_some())
    }

    /// Uses an invitation up; `false` when there is none.
    pub fn take_invitation(&self, code: &str, now: Millis) -> Stored<bool> {
        self.run("DELETE FROM invitation WHERE hash = ?1 AND until_ms > ?2", params![hash(code), now])
    }

    /// Notes when the service was activated.
    pub fn acquired(&self, application: ApplicationId, at: Millis) -> Stored<()> {
        self.run("INSERT OR IGNORE INTO acquired VALUES (?1, ?2)", params![application.0, at]).map(|_| ())
    }

    /// When the service was activated; `None`: on the command line, or never.
    pub fn acquired_at(&self, application: ApplicationId) -> Stored<Option<Millis>> {
        self.one("SELECT at_ms FROM acquired WHERE application = ?1", [application.0], |row| row.get(0))
    }

    /// What a credential is called.
    pub fn label(&self, credential: CredentialId) -> Stored<Label> {
        let find = "SELECT name, created_at_ms, updated_at_ms, used_at_ms FROM label WHERE credential = ?1";
        let read = |row: &Row<'_>| {
            let (name, created_at_ms, updated_at_ms) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Label { name, created_at_ms, updated_at_ms, used_at_ms: row.get(3)? })
        };
        Ok(self.one(find, [credential.0], read)?.unwrap_or_default())
    }

    /// Names a credential, or only notes that it was changed.
    pub fn set_label(&self, credential: CredentialId, name: Option<&str>, now: Millis) -> Stored<()> {
        self.run(
            "INSERT INTO label VALUES (?1, coalesce(?2, ''), ?3, ?3, NULL) ON CONFLICT (credential)
               DO UPDATE SET name = coalesce(?2, name), updated_at_ms = ?3",
            params![credential.0, name, now],
        )
        .map(|_| ())
    }

    /// Notes that a credential was used; once a minute is enough.
    pub fn used(&self, credential: CredentialId, now: Millis) -> Stored<()> {
        self.run(
            "INSERT INTO label VALUES (?1, '', 0, 0, ?2) ON CONFLICT (credential)
               DO UPDATE SET used_at_ms = ?2 WHERE coalesce(used_at_ms, 0) < ?2 - 60000",
            params![credential.0, now],
        )
        .map(|_| ())
    }

    /// All packages, the smallest first.
    pub fn packages(&self) -> Stored<Vec<Package>> {
        let find = "SELECT id, title, credits, cents FROM package ORDER BY credits, id";
        self.many(find, [], |row| {
            let (id, title, price_cents) = (row.get(0)?, row.get(1)?, row.get(3)?);
            Ok(Package { id, title, credits: Credits(row.get(2)?), price_cents })
        })
    }

    /// Adds or changes a package.
    pub(crate) fn put_package(&self, package: &Package) -> Stored<()> {
        let Package { id, title, credits, price_cents } = package;
        self.run(
            "INSERT OR REPLACE INTO package VALUES (?1, ?2, ?3, ?4)",
            params![id, title, credits.0, price_cents],
        )
        .map(|_| ())
    }

    /// Takes a package off the shelf; orders of it stay. `false` when there was none.
    pub(crate) fn drop_package(&self, id: &str) -> Stored<bool> {
        self.run("DELETE FROM package WHERE id = ?1", [id])
    }

    /// Adds an order.
    pub fn add_order(&self, order: &Order) -> Stored<()> {
        add_order(&self.db, order).map_err(|cause| SCHEMA.error(cause))
    }

    /// One order.
    pub fn order(&self, id: &str) -> Stored<Option<Order>> {
        self.one("SELECT * FROM purchase WHERE id = ?1", [id], order)
    }

    /// Orders of one caller or of all, in one state or in any, the newest first; and how many there are.
    pub fn orders(
        &self,
        caller: Option<CallerId>,
        states: &[OrderState],
        page: (u32, u32),
    ) -> Stored<(u32, Vec<Order>)> {
        let caller = caller.map(|caller| caller.0);
        let states = states.iter().map(|state| state.name()).collect::<Vec<_>>().join(",");
        let of = "FROM purchase WHERE (?1 IS NULL OR caller = ?1)
                    AND (?2 = '' OR instr(',' || ?2 || ',', ',' || state || ',') > 0)";
        let count = self.one(&format!("SELECT count(*) {of}"), params![caller, states], |row| row.get(0))?;
        let (limit, offset) = page;
        let find = format!("SELECT * {of} ORDER BY created_at_ms DESC, id LIMIT ?3 OFFSET ?4");
        Ok((count.unwrap_or(0), self.many(&find, params![caller, states, limit, offset], order)?))
    }

    /// Whether a caller ever had an order that was carried out.
    pub fn has_finished_order(&self, caller: CallerId) -> Stored<bool> {
        let find = "SELECT 1 FROM purchase WHERE caller = ?1 AND state = 'Finished' LIMIT 1";
        Ok(self.one(find, [caller.0], |_| Ok(()))?.is_some())
    }

    /// What is paid and not carried out yet.
    pub fn paid_orders(&self) -> Stored<Vec<String>> {
        self.many("SELECT id FROM purchase WHERE state = 'Paid'", [], |row| row.get(0))
    }

    /// Gives an order that waits to be paid another price; `false` when it does not wait.
    pub(crate) fn set_price(&self, id: &str, price_cents: i64, now: Millis) -> Stored<bool> {
        self.run(
            "UPDATE purchase SET cents = ?2, updated_at_ms = ?3 WHERE id = ?1 AND state = 'Pending'",
            params![id, price_cents, now],
        )
    }

    /// Moves an order on.
    pub fn set_order(&self, id: &str, state: OrderState, pay_way: Option<PayWay>, now: Millis) -> Stored<()> {
        self.run(
            "UPDATE purchase SET state = ?2, pay_way = coalesce(?3, pay_way), updated_at_ms = ?4,
               finished_at_ms = CASE WHEN ?2 = 'Finished' THEN ?4 ELSE finished_at_ms END WHERE id = ?1",
            params![id, state.name(), pay_way.map(PayWay::name), now],
        )
        .map(|_| ())
    }

    /// Adds vouchers, all or none.
    pub(crate) fn add_vouchers(&mut self, codes: &[String], credits: Credits, now: Millis) -> Stored<()> {
        let mut run = || -> rusqlite::Result<()> {
            let transaction = self.db.transaction()?;
            for code in codes {
                let last4 = &code[code.len().saturating_sub(4)..];
                let put = "INSERT INTO voucher VALUES (?1, ?2, ?3, ?4, NULL)";
                transaction.prepare_cached(put)?.execute(params![hash(code), last4, credits.0, now])?;
            }
            transaction.commit()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    /// All vouchers, the newest first.
    pub fn vouchers(&self) -> Stored<Vec<Voucher>> {
        let find = "SELECT last4, credits, created_at_ms, redeemed_by FROM voucher
                      ORDER BY created_at_ms DESC, last4 LIMIT 1000";
        self.many(find, [], |row| {
            let (last4, created_at_ms) = (row.get(0)?, row.get(2)?);
            let redeemed_by = row.get::<_, Option<u32>>(3)?.map(CallerId);
            Ok(Voucher { last4, credits: Credits(row.get(1)?), created_at_ms, redeemed_by })
        })
    }

    /// Turns a voucher into a paid order, both or neither; `false` when it is nobody's or was redeemed.
    pub fn redeem(&mut self, code: &str, mut order: Order) -> Stored<bool> {
        let mut run = || -> rusqlite::Result<bool> {
            let transaction = self.db.transaction()?;
            let taken = transaction
                .query_row(
                    "UPDATE voucher SET redeemed_by = ?2 WHERE hash = ?1 AND redeemed_by IS NULL RETURNING credits",
                    params![hash(code), order.caller.0],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(credits) = taken else { return Ok(false) };
            order.credits = Credits(credits);
            add_order(&transaction, &order)?;
            transaction.commit()?;
            Ok(true)
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Stored<bool> {
        let changed = self.db.prepare_cached(sql).and_then(|mut run| run.execute(values));
        changed.map(|rows| rows > 0).map_err(|cause| SCHEMA.error(cause))
    }

    fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Stored<Option<T>> {
        let found = self.db.prepare_cached(sql).and_then(|mut find| find.query_row(values, read).optional());
        found.map_err(|cause| SCHEMA.error(cause))
    }

    fn many<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Stored<Vec<T>> {
        let run = || -> rusqlite::Result<Vec<T>> {
            self.db.prepare_cached(sql)?.query_map(values, read)?.collect()
        };
        run().map_err(|cause| SCHEMA.error(cause))
    }
}

/// What is kept of a code or a session's key.
fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

fn add_order(db: &Connection, order: &Order) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO purchase VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
            order.id,
            order.caller.0,
            order.package,
            order.description,
            order.credits.0,
            order.price_cents,
            order.state.name(),
            order.pay_way.map(PayWay::name),
            order.created_at_ms,
            order.updated_at_ms,
            order.finished_at_ms,
        ])?;
    Ok(())
}

fn person(row: &Row<'_>) -> rusqlite::Result<Person> {
    let (login, password, created_at_ms) = (row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Person { caller: CallerId(row.get(0)?), login, password, created_at_ms })
}

fn order(row: &Row<'_>) -> rusqlite::Result<Order> {
    let (state, pay_way): (String, Option<String>) = (row.get(6)?, row.get(7)?);
    let state = OrderState::ALL.into_iter().find(|known| known.name() == state);
    Ok(Order {
        id: row.get(0)?,
        caller: CallerId(row.get(1)?),
        package: row.get(2)?,
        description: row.get(3)?,
        credits: Credits(row.get(4)?),
        price_cents: row.get(5)?,
        state: state.ok_or(rusqlite::Error::InvalidQuery)?,
        pay_way: PayWay::ALL.into_iter().find(|known| pay_way.as_deref() == Some(known.name())),
        created_at_ms: row.get(8)?,
        updated_at_ms: row.get(9)?,
        finished_at_ms: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PlatformFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = PlatformFile::open(&dir.path().join("platform.db")).unwrap();
        (dir, file)
    }

    #[test]
    fn a_voucher_becomes_one_order() {
        let (_dir, mut file) = file();
        file.add_vouchers(&["ABCDEF".into()], Credits::whole(5), 1).unwrap();
        let order = |caller| Order::new(CallerId(caller), "Voucher".into(), Credits::ZERO, 2);
        assert!(!file.redeem("ABCDEX", order(1)).unwrap());
        assert!(file.redeem("ABCDEF", order(1)).unwrap());
        assert!(!file.redeem("ABCDEF", order(2)).unwrap(), "twice");
        let (count, orders) = file.orders(None, &[], (10, 0)).unwrap();
        assert_eq!((count, orders[0].credits, orders[0].caller), (1, Credits::whole(5), CallerId(1)));
        assert_eq!(file.vouchers().unwrap()[0].redeemed_by, Some(CallerId(1)));
    }

    #[test]
    fn sessions_and_invitations_end() {
        let (_dir, file) = file();
        file.begin_session("key", CallerId(7), 100, 1).unwrap();
        assert_eq!(file.session("key", 99).unwrap(), Some(CallerId(7)));
        assert_eq!(file.session("key", 100).unwrap(), None);
        file.end_session("key").unwrap();
        assert_eq!(file.session("key", 1).unwrap(), None);
        file.invite("code", 100).unwrap();
        assert!(!file.take_invitation("code", 100).unwrap());
        assert!(file.take_invitation("code", 99).unwrap());
        assert!(!file.take_invitation("code", 99).unwrap(), "once");
    }

    #[test]
    fn a_login_is_one_persons() {
        let (_dir, file) = file();
        let person = |caller| Person {
            caller: CallerId(caller),
            login: "a@example.com".into(),
            password: "hash".into(),
            created_at_ms: 1,
        };
        assert!(file.add_person(&person(1)).unwrap());
        assert!(!file.add_person(&person(2)).unwrap());
        assert_eq!(file.person("a@example.com").unwrap().unwrap().caller, CallerId(1));
    }
}
