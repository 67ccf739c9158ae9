//! What the platform keeps: people, sessions, labels of credentials, packages, orders, vouchers, invitations;
//! in a file of one machine, or in the database of several.
//!
//! No verification waits for it. Codes and session keys are long and random, so a plain SHA-256 of them is
//! kept and nothing that lets anybody in.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::StoreError;
use super::either::{Either, Found, Statement, Table};
use super::postgres::{self, Database, Session};
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

/// The same in the database.
const SHARED: postgres::Schema = postgres::Schema {
    part: "platform",
    versions: &["
    CREATE TABLE person (
        caller        BIGINT PRIMARY KEY,
        login         TEXT NOT NULL UNIQUE,
        password      TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL
    );
    CREATE TABLE session (
        hash     BYTEA PRIMARY KEY,
        caller   BIGINT NOT NULL,
        until_ms BIGINT NOT NULL
    );
    CREATE TABLE invitation (
        hash     BYTEA PRIMARY KEY,
        until_ms BIGINT NOT NULL
    );
    CREATE TABLE reset (
        caller   BIGINT PRIMARY KEY,
        hash     BYTEA NOT NULL UNIQUE,
        until_ms BIGINT NOT NULL
    );
    CREATE TABLE acquired (
        application BIGINT PRIMARY KEY,
        at_ms       BIGINT NOT NULL
    );
    CREATE TABLE label (
        credential    BIGINT PRIMARY KEY,
        name          TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        updated_at_ms BIGINT NOT NULL,
        used_at_ms    BIGINT
    );
    CREATE TABLE package (
        id      TEXT PRIMARY KEY,
        title   TEXT NOT NULL,
        credits BIGINT NOT NULL,
        cents   BIGINT NOT NULL
    );
    CREATE TABLE purchase (
        id             TEXT PRIMARY KEY,
        caller         BIGINT NOT NULL,
        package        TEXT,
        description    TEXT NOT NULL,
        credits        BIGINT NOT NULL,
        cents          BIGINT NOT NULL,
        state          TEXT NOT NULL,
        pay_way        TEXT,
        created_at_ms  BIGINT NOT NULL,
        updated_at_ms  BIGINT NOT NULL,
        finished_at_ms BIGINT
    );
    CREATE INDEX purchase_by_caller ON purchase (caller, created_at_ms);
    CREATE TABLE voucher (
        hash          BYTEA PRIMARY KEY,
        last4         TEXT NOT NULL,
        credits       BIGINT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        redeemed_by   BIGINT
    );
"],
};

/// What the platform keeps, in the hands of its one writer of this process.
#[derive(Debug)]
pub struct Platform {
    db: Either,
}

type Stored<T> = Result<T, StoreError>;

/// Values of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($value.into()),*] };
}

impl Platform {
    /// Opens the file.
    pub fn open(path: &Path) -> Stored<Platform> {
        Ok(Platform { db: Either::File(SCHEMA.open(path)?, &SCHEMA) })
    }

    /// The tables of a database; makes them if need be. A session begun on one node is then known on all.
    pub fn shared(database: &Arc<Database>) -> Stored<Platform> {
        let mut session = Session::new(Arc::clone(database))?;
        session.migrate(&SHARED)?;
        Ok(Platform { db: Either::Shared(session.into()) })
    }

    /// Copies the file as it is now; see [`super::Accounts::copy`].
    pub fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> Stored<()> {
        SCHEMA.copy(from, to, progress)
    }

    /// Whether SQLite finds its own structures whole.
    pub fn check_structure(path: &Path) -> Stored<()> {
        SCHEMA.check_structure(path)
    }

    /// Puts everything into another store where it is not there yet; gives how many rows there are here. What
    /// was copied before and changed since stays as it was copied: nobody may write to either meanwhile.
    pub fn copy_to(&self, to: &Platform) -> Stored<u64> {
        TABLES.iter().map(|table| self.db.copy_table(&to.db, table)).sum()
    }

    /// Number of rows of everything.
    pub fn rows(&self) -> Stored<u64> {
        let count = "SELECT (SELECT count(*) FROM person) + (SELECT count(*) FROM session)
            + (SELECT count(*) FROM invitation) + (SELECT count(*) FROM reset) + (SELECT count(*) FROM acquired)
            + (SELECT count(*) FROM label) + (SELECT count(*) FROM package) + (SELECT count(*) FROM purchase)
            + (SELECT count(*) FROM voucher)";
        Ok(self.db.one(count, values![], |row| row.get::<i64>(0))?.unwrap_or(0) as u64)
    }

    /// The person with this login.
    pub fn person(&self, login: &str) -> Stored<Option<Person>> {
        let find = "SELECT caller, login, password, created_at_ms FROM person WHERE login = $1";
        self.db.one(find, values![login], person)
    }

    /// The person who owns a caller.
    pub fn person_of(&self, caller: CallerId) -> Stored<Option<Person>> {
        let find = "SELECT caller, login, password, created_at_ms FROM person WHERE caller = $1";
        self.db.one(find, values![caller.0], person)
    }

    /// Adds a person; `false` when the login is taken.
    pub fn add_person(&self, person: &Person) -> Stored<bool> {
        let Person { caller, login, password, created_at_ms } = person;
        self.db.run(
            "INSERT INTO person VALUES ($1, $2, $3, $4) ON CONFLICT (login) DO NOTHING",
            values![caller.0, login.as_str(), password.as_str(), *created_at_ms],
        )
    }

    /// Everybody who logs in with a password, by login.
    pub fn people(&self) -> Stored<Vec<Person>> {
        let find = "SELECT caller, login, password, created_at_ms FROM person ORDER BY login";
        self.db.many(find, values![], person)
    }

    /// Keeps another password, and ends all sessions of the person: all or nothing.
    pub(crate) fn set_password(&self, caller: CallerId, password: &str) -> Stored<()> {
        let statements: [Statement; 3] = [
            ("UPDATE person SET password = $2 WHERE caller = $1", values![caller.0, password]),
            ("DELETE FROM session WHERE caller = $1", values![caller.0]),
            ("DELETE FROM reset WHERE caller = $1", values![caller.0]),
        ];
        self.db.all(&statements).map(drop)
    }

    /// Keeps a code that lets a person choose another password, in place of one before.
    pub(crate) fn allow_reset(&self, code: &str, caller: CallerId, until: Millis) -> Stored<()> {
        let put = "INSERT INTO reset VALUES ($1, $2, $3)
            ON CONFLICT (caller) DO UPDATE SET hash = excluded.hash, until_ms = excluded.until_ms";
        self.db.run(put, values![caller.0, hash(code), until]).map(drop)
    }

    /// Who may choose another password with this code.
    pub fn reset_of(&self, code: &str, now: Millis) -> Stored<Option<CallerId>> {
        let find = "SELECT caller FROM reset WHERE hash = $1 AND until_ms > $2";
        self.db.one(find, values![hash(code), now], caller)
    }

    /// Uses such a code up.
    pub(crate) fn take_reset(&self, code: &str, now: Millis) -> Stored<Option<CallerId>> {
        let take = "DELETE FROM reset WHERE hash = $1 AND until_ms > $2 RETURNING caller";
        let taken = self.db.take(take, values![hash(code), now])?;
        Ok(taken.map(|caller| CallerId(caller as u32)))
    }

    /// Begins a session; those that are over are forgotten.
    pub fn begin_session(&self, key: &str, caller: CallerId, until: Millis, now: Millis) -> Stored<()> {
        self.db.run("DELETE FROM session WHERE until_ms <= $1", values![now])?;
        let begin = "INSERT INTO session VALUES ($1, $2, $3)";
        self.db.run(begin, values![hash(key), caller.0, until]).map(drop)
    }

    /// Whose session this is.
    pub fn session(&self, key: &str, now: Millis) -> Stored<Option<CallerId>> {
        let find = "SELECT caller FROM session WHERE hash = $1 AND until_ms > $2";
        self.db.one(find, values![hash(key), now], caller)
    }

    /// Ends a session.
    pub fn end_session(&self, key: &str) -> Stored<()> {
        self.db.run("DELETE FROM session WHERE hash = $1", values![hash(key)]).map(drop)
    }

    /// Keeps an invitation until its end.
    pub(crate) fn invite(&self, code: &str, until: Millis) -> Stored<()> {
        self.db.run("INSERT INTO invitation VALUES ($1, $2)", values![hash(code), until]).map(drop)
    }

    /// Whether there is such an invitation.
    pub fn has_invitation(&self, code: &str, now: Millis) -> Stored<bool> {
        let find = "SELECT until_ms FROM invitation WHERE hash = $1 AND until_ms > $2";
        Ok(self.db.one(find, values![hash(code), now], |_| Ok(()))?.is_some())
    }

    /// Uses an invitation up; `false` when there is none.
    pub fn take_invitation(&self, code: &str, now: Millis) -> Stored<bool> {
        self.db.run("DELETE FROM invitation WHERE hash = $1 AND until_ms > $2", values![hash(code), now])
    }

    /// Notes when the service was activated.
    pub fn acquired(&self, application: ApplicationId, at: Millis) -> Stored<()> {
        let note = "INSERT INTO acquired VALUES ($1, $2) ON CONFLICT (application) DO NOTHING";
        self.db.run(note, values![application.0, at]).map(drop)
    }

    /// When the service was activated; `None`: on the command line, or never.
    pub fn acquired_at(&self, application: ApplicationId) -> Stored<Option<Millis>> {
        let find = "SELECT at_ms FROM acquired WHERE application = $1";
        self.db.one(find, values![application.0], |row| row.get(0))
    }

    /// What a credential is called.
    pub fn label(&self, credential: CredentialId) -> Stored<Label> {
        let find = "SELECT name, created_at_ms, updated_at_ms, used_at_ms FROM label WHERE credential = $1";
        let read = |row: &Found<'_>| {
            let (name, created_at_ms, updated_at_ms) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Label { name, created_at_ms, updated_at_ms, used_at_ms: row.get(3)? })
        };
        Ok(self.db.one(find, values![credential.0], read)?.unwrap_or_default())
    }

    /// Names a credential, or only notes that it was changed.
    pub fn set_label(&self, credential: CredentialId, name: Option<&str>, now: Millis) -> Stored<()> {
        let set = "INSERT INTO label VALUES ($1, coalesce($2, ''), $3, $3, NULL) ON CONFLICT (credential)
               DO UPDATE SET name = coalesce($2, label.name), updated_at_ms = $3";
        self.db.run(set, values![credential.0, name, now]).map(drop)
    }

    /// Notes that a credential was used; once a minute is enough.
    pub fn used(&self, credential: CredentialId, now: Millis) -> Stored<()> {
        let note = "INSERT INTO label VALUES ($1, '', 0, 0, $2) ON CONFLICT (credential)
               DO UPDATE SET used_at_ms = $2 WHERE coalesce(label.used_at_ms, 0) < $2 - 60000";
        self.db.run(note, values![credential.0, now]).map(drop)
    }

    /// All packages, the smallest first.
    pub fn packages(&self) -> Stored<Vec<Package>> {
        let find = "SELECT id, title, credits, cents FROM package ORDER BY credits, id";
        self.db.many(find, values![], |row| {
            let (id, title, price_cents) = (row.get(0)?, row.get(1)?, row.get(3)?);
            Ok(Package { id, title, credits: Credits(row.get(2)?), price_cents })
        })
    }

    /// Adds or changes a package.
    pub(crate) fn put_package(&self, package: &Package) -> Stored<()> {
        let Package { id, title, credits, price_cents } = package;
        let put = "INSERT INTO package VALUES ($1, $2, $3, $4) ON CONFLICT (id)
            DO UPDATE SET title = excluded.title, credits = excluded.credits, cents = excluded.cents";
        self.db.run(put, values![id.as_str(), title.as_str(), credits.0, *price_cents]).map(drop)
    }

    /// Takes a package off the shelf; orders of it stay. `false` when there was none.
    pub(crate) fn drop_package(&self, id: &str) -> Stored<bool> {
        self.db.run("DELETE FROM package WHERE id = $1", values![id])
    }

    /// Adds an order.
    pub fn add_order(&self, order: &Order) -> Stored<()> {
        let add = "INSERT INTO purchase VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let Order { id, caller, package, description, credits, price_cents, .. } = order;
        self.db
            .run(
                add,
                values![
                    id.as_str(),
                    caller.0,
                    package.as_deref(),
                    description.as_str(),
                    credits.0,
                    *price_cents,
                    order.state.name(),
                    order.pay_way.map(PayWay::name),
                    order.created_at_ms,
                    order.updated_at_ms,
                    order.finished_at_ms,
                ],
            )
            .map(drop)
    }

    /// One order.
    pub fn order(&self, id: &str) -> Stored<Option<Order>> {
        self.db.one("SELECT * FROM purchase WHERE id = $1", values![id], order)
    }

    /// Orders of one caller or of all, in one state or in any, the newest first; and how many there are.
    pub fn orders(
        &self,
        caller: Option<CallerId>,
        states: &[OrderState],
        page: (u32, u32),
    ) -> Stored<(u32, Vec<Order>)> {
        macro_rules! of {
            () => {
                "FROM purchase WHERE (CAST($1 AS BIGINT) IS NULL OR caller = $1)
                   AND (CAST($2 AS TEXT) = '' OR ',' || CAST($2 AS TEXT) || ',' LIKE '%,' || state || ',%')"
            };
        }
        let caller = caller.map(|caller| i64::from(caller.0));
        let states = states.iter().map(|state| state.name()).collect::<Vec<_>>().join(",");
        let count = concat!("SELECT count(*) ", of!());
        let count = self.db.one(count, values![caller, states.as_str()], |row| row.get::<i64>(0))?;
        let (limit, offset) = page;
        let find = concat!("SELECT * ", of!(), " ORDER BY created_at_ms DESC, id LIMIT $3 OFFSET $4");
        let found = self.db.many(find, values![caller, states.as_str(), limit, offset], order)?;
        Ok((count.unwrap_or(0) as u32, found))
    }

    /// Whether a caller ever had an order that was carried out.
    pub fn has_finished_order(&self, caller: CallerId) -> Stored<bool> {
        let find = "SELECT id FROM purchase WHERE caller = $1 AND state = 'Finished' LIMIT 1";
        Ok(self.db.one(find, values![caller.0], |_| Ok(()))?.is_some())
    }

    /// What is paid and not carried out yet.
    pub fn paid_orders(&self) -> Stored<Vec<String>> {
        self.db.many("SELECT id FROM purchase WHERE state = 'Paid'", values![], |row| row.get(0))
    }

    /// Gives an order that waits to be paid another price; `false` when it does not wait.
    pub(crate) fn set_price(&self, id: &str, price_cents: i64, now: Millis) -> Stored<bool> {
        self.db.run(
            "UPDATE purchase SET cents = $2, updated_at_ms = $3 WHERE id = $1 AND state = 'Pending'",
            values![id, price_cents, now],
        )
    }

    /// Moves an order on.
    pub fn set_order(&self, id: &str, state: OrderState, pay_way: Option<PayWay>, now: Millis) -> Stored<()> {
        let set = "UPDATE purchase SET state = $2, pay_way = coalesce($3, pay_way), updated_at_ms = $4,
               finished_at_ms = CASE WHEN $2 = 'Finished' THEN $4 ELSE finished_at_ms END WHERE id = $1";
        self.db.run(set, values![id, state.name(), pay_way.map(PayWay::name), now]).map(drop)
    }

    /// Adds vouchers, all or none.
    pub(crate) fn add_vouchers(&self, codes: &[String], credits: Credits, now: Millis) -> Stored<()> {
        let add = |code: &String| -> Statement {
            let last4 = &code[code.len().saturating_sub(4)..];
            ("INSERT INTO voucher VALUES ($1, $2, $3, $4, NULL)", values![hash(code), last4, credits.0, now])
        };
        self.db.all(&codes.iter().map(add).collect::<Vec<_>>()).map(drop)
    }

    /// All vouchers, the newest first.
    pub fn vouchers(&self) -> Stored<Vec<Voucher>> {
        let find = "SELECT last4, credits, created_at_ms, redeemed_by FROM voucher
                      ORDER BY created_at_ms DESC, last4 LIMIT 1000";
        self.db.many(find, values![], |row| {
            let (last4, created_at_ms) = (row.get(0)?, row.get(2)?);
            let redeemed_by = row.get::<Option<i64>>(3)?.map(|caller| CallerId(caller as u32));
            Ok(Voucher { last4, credits: Credits(row.get(1)?), created_at_ms, redeemed_by })
        })
    }

    /// Turns a voucher into a paid order, both or neither; `false` when it is nobody's or was redeemed. On
    /// several nodes too: whoever comes second finds it redeemed.
    pub fn redeem(&self, code: &str, order: &Order) -> Stored<bool> {
        let Order { id, caller, description, created_at_ms, .. } = order;
        let redeem: Statement = (
            "UPDATE voucher SET redeemed_by = $2 WHERE hash = $1 AND redeemed_by IS NULL",
            values![hash(code), caller.0],
        );
        let add: Statement = (
            "INSERT INTO purchase SELECT $2, $3, NULL, $4, credits, 0, $5, $6, $7, $7, NULL
               FROM voucher WHERE hash = $1",
            values![
                hash(code),
                id.as_str(),
                caller.0,
                description.as_str(),
                order.state.name(),
                order.pay_way.map(PayWay::name),
                *created_at_ms,
            ],
        );
        self.db.all(&[redeem, add])
    }
}

/// How a table with this key, and so many columns, is copied.
macro_rules! table {
    ($table:literal, $key:literal, $values:literal) => {
        Table {
            page: concat!(
                "SELECT * FROM ",
                $table,
                " WHERE ",
                $key,
                " > $1 OR $1 IS NULL ORDER BY ",
                $key,
                " LIMIT 1000"
            ),
            put: concat!(
                "INSERT INTO ",
                $table,
                " VALUES (",
                $values,
                ") ON CONFLICT (",
                $key,
                ") DO NOTHING"
            ),
        }
    };
}

/// Everything; the key is each table's first column.
const TABLES: [Table; 9] = [
    table!("person", "caller", "$1, $2, $3, $4"),
    table!("session", "hash", "$1, $2, $3"),
    table!("invitation", "hash", "$1, $2"),
    table!("reset", "caller", "$1, $2, $3"),
    table!("acquired", "application", "$1, $2"),
    table!("label", "credential", "$1, $2, $3, $4, $5"),
    table!("package", "id", "$1, $2, $3, $4"),
    table!("purchase", "id", "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11"),
    table!("voucher", "hash", "$1, $2, $3, $4, $5"),
];

/// What is kept of a code or a session's key.
fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

fn caller(row: &Found<'_>) -> Stored<CallerId> {
    row.get::<i64>(0).map(|caller| CallerId(caller as u32))
}

fn person(row: &Found<'_>) -> Stored<Person> {
    let (login, password, created_at_ms) = (row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Person { caller: caller(row)?, login, password, created_at_ms })
}

fn order(row: &Found<'_>) -> Stored<Order> {
    let (state, pay_way): (String, Option<String>) = (row.get(6)?, row.get(7)?);
    let state = OrderState::ALL.into_iter().find(|known| known.name() == state);
    let unknown = || StoreError::Damaged { file: SCHEMA.file, what: "an order is in no known state".into() };
    Ok(Order {
        id: row.get(0)?,
        caller: row.get::<i64>(1).map(|caller| CallerId(caller as u32))?,
        package: row.get(2)?,
        description: row.get(3)?,
        credits: Credits(row.get(4)?),
        price_cents: row.get(5)?,
        state: state.ok_or_else(unknown)?,
        pay_way: PayWay::ALL.into_iter().find(|known| pay_way.as_deref() == Some(known.name())),
        created_at_ms: row.get(8)?,
        updated_at_ms: row.get(9)?,
        finished_at_ms: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres_server;

    /// The file and the database, each with nothing in it.
    fn both(case: impl Fn(Platform)) {
        let dir = tempfile::tempdir().unwrap();
        case(Platform::open(&dir.path().join("platform.db")).unwrap());
        let Some(server) = postgres_server::shared() else { return };
        case(Platform::shared(&server.database()).unwrap());
    }

    fn voucher_order(caller: u32) -> Order {
        let order = Order::new(CallerId(caller), "Voucher".into(), Credits::ZERO, 2);
        Order { state: OrderState::Paid, pay_way: Some(PayWay::RechargeCard), ..order }
    }

    fn person(caller: u32, login: &str) -> Person {
        Person { caller: CallerId(caller), login: login.into(), password: "hash".into(), created_at_ms: 1 }
    }

    #[test]
    fn a_voucher_becomes_one_order() {
        both(|platform| {
            platform.add_vouchers(&["ABCDEF".into()], Credits::whole(5), 1).unwrap();
            assert!(!platform.redeem("ABCDEX", &voucher_order(1)).unwrap());
            assert!(platform.redeem("ABCDEF", &voucher_order(1)).unwrap());
            assert!(!platform.redeem("ABCDEF", &voucher_order(2)).unwrap(), "twice");
            let (count, orders) = platform.orders(None, &[], (10, 0)).unwrap();
            let want = Order { credits: Credits::whole(5), id: orders[0].id.clone(), ..voucher_order(1) };
            assert_eq!((count, &orders[0]), (1, &want));
            assert_eq!(platform.vouchers().unwrap()[0].redeemed_by, Some(CallerId(1)));
            assert_eq!(platform.paid_orders().unwrap(), [want.id]);
        });
    }

    #[test]
    fn nodes_that_redeem_a_voucher_together_make_one_order_of_it() {
        let Some(server) = postgres_server::shared() else { return };
        let database = server.database();
        let platform = Platform::shared(&database).unwrap();
        let codes: Vec<String> = (0..20).map(|_| crate::platform::new_code()).collect();
        platform.add_vouchers(&codes, Credits::whole(5), 1).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let node = Platform::shared(&database).unwrap();
                let codes = &codes;
                scope.spawn(move || {
                    for code in codes {
                        node.redeem(code, &voucher_order(caller)).unwrap();
                    }
                });
            }
        });
        let (count, orders) = platform.orders(None, &[], (100, 0)).unwrap();
        assert_eq!((count, orders.len()), (20, 20));
        assert!(platform.vouchers().unwrap().iter().all(|voucher| voucher.redeemed_by.is_some()));
    }

    #[test]
    fn sessions_and_invitations_end() {
        both(|platform| {
            platform.begin_session("key", CallerId(7), 100, 1).unwrap();
            assert_eq!(platform.session("key", 99).unwrap(), Some(CallerId(7)));
            assert_eq!(platform.session("key", 100).unwrap(), None);
            platform.end_session("key").unwrap();
            assert_eq!(platform.session("key", 1).unwrap(), None);
            platform.invite("code", 100).unwrap();
            assert!(platform.has_invitation("code", 99).unwrap());
            assert!(!platform.take_invitation("code", 100).unwrap());
            assert!(platform.take_invitation("code", 99).unwrap());
            assert!(!platform.take_invitation("code", 99).unwrap(), "once");
        });
    }

    #[test]
    fn another_password_ends_sessions_and_the_code_for_it() {
        both(|platform| {
            assert!(platform.add_person(&person(7, "a@example.com")).unwrap());
            platform.begin_session("key", CallerId(7), 100, 1).unwrap();
            platform.allow_reset("old", CallerId(7), 100).unwrap();
            platform.allow_reset("new", CallerId(7), 100).unwrap();
            assert_eq!(platform.reset_of("old", 1).unwrap(), None);
            assert_eq!(platform.reset_of("new", 1).unwrap(), Some(CallerId(7)));
            assert_eq!(platform.take_reset("new", 1).unwrap(), Some(CallerId(7)));
            assert_eq!(platform.take_reset("new", 1).unwrap(), None, "once");
            platform.set_password(CallerId(7), "other").unwrap();
            assert_eq!(platform.person_of(CallerId(7)).unwrap().unwrap().password, "other");
            assert_eq!(platform.session("key", 1).unwrap(), None);
        });
    }

    #[test]
    fn a_login_is_one_persons() {
        both(|platform| {
            assert!(platform.add_person(&person(1, "a@example.com")).unwrap());
            assert!(!platform.add_person(&person(2, "a@example.com")).unwrap());
            assert_eq!(platform.person("a@example.com").unwrap().unwrap().caller, CallerId(1));
            assert_eq!(platform.people().unwrap().len(), 1);
        });
    }

    #[test]
    fn an_order_goes_from_state_to_state() {
        both(|platform| {
            let package =
                Package { id: "p".into(), title: "P".into(), credits: Credits::whole(9), price_cents: 900 };
            platform.put_package(&package).unwrap();
            platform.put_package(&Package { price_cents: 800, ..package.clone() }).unwrap();
            assert_eq!(platform.packages().unwrap()[0].price_cents, 800);
            let order = Order::new(CallerId(3), "P".into(), Credits::whole(9), 10);
            let order = Order { package: Some("p".into()), ..order };
            platform.add_order(&order).unwrap();
            assert_eq!(platform.order(&order.id).unwrap().unwrap(), order);
            assert!(platform.set_price(&order.id, 700, 11).unwrap());
            let bank = Some(PayWay::BankTransfer);
            platform.set_order(&order.id, OrderState::Paid, bank, 12).unwrap();
            assert!(!platform.set_price(&order.id, 600, 13).unwrap(), "it is paid");
            assert!(!platform.has_finished_order(CallerId(3)).unwrap());
            platform.set_order(&order.id, OrderState::Finished, None, 14).unwrap();
            assert!(platform.has_finished_order(CallerId(3)).unwrap());
            let is = platform.order(&order.id).unwrap().unwrap();
            assert_eq!((is.price_cents, is.pay_way, is.finished_at_ms), (700, bank, Some(14)));
            let count = |caller, states: &[_]| platform.orders(caller, states, (10, 0)).unwrap().0;
            assert_eq!(count(Some(CallerId(3)), &[OrderState::Finished, OrderState::Failed]), 1);
            assert_eq!(count(Some(CallerId(4)), &[]) + count(None, &[OrderState::Pending]), 0);
            assert!(platform.drop_package("p").unwrap() && !platform.drop_package("p").unwrap());
        });
    }

    #[test]
    fn a_credential_has_a_name_and_was_used_once_a_minute() {
        both(|platform| {
            let id = CredentialId(5);
            assert_eq!(platform.label(id).unwrap(), Label::default());
            platform.set_label(id, Some("till"), 10).unwrap();
            platform.set_label(id, None, 20).unwrap();
            platform.used(id, 100_000).unwrap();
            platform.used(id, 130_000).unwrap();
            let want = Label {
                name: "till".into(),
                created_at_ms: 10,
                updated_at_ms: 20,
                used_at_ms: Some(100_000),
            };
            assert_eq!(platform.label(id).unwrap(), want);
            platform.acquired(ApplicationId(5), 7).unwrap();
            platform.acquired(ApplicationId(5), 8).unwrap();
            assert_eq!(platform.acquired_at(ApplicationId(5)).unwrap(), Some(7));
        });
    }

    #[test]
    fn everything_goes_to_the_database_and_back() {
        let Some(server) = postgres_server::shared() else { return };
        let dir = tempfile::tempdir().unwrap();
        let file = Platform::open(&dir.path().join("platform.db")).unwrap();
        let codes: Vec<String> = (0..1500).map(|_| crate::platform::new_code()).collect();
        file.add_vouchers(&codes, Credits::whole(5), 1).unwrap();
        file.redeem(&codes[0], &voucher_order(1)).unwrap();
        file.add_person(&person(1, "a@example.com")).unwrap();
        file.set_label(CredentialId(5), Some("till"), 10).unwrap();
        file.begin_session("key", CallerId(1), 100, 1).unwrap();
        let database = Platform::shared(&server.database()).unwrap();
        assert_eq!(file.copy_to(&database).unwrap(), 1504);
        assert_eq!(file.copy_to(&database).unwrap(), 1504, "again, as after a kill");
        assert_eq!((file.rows().unwrap(), database.rows().unwrap()), (1504, 1504));
        let back = Platform::open(&dir.path().join("back.db")).unwrap();
        database.copy_to(&back).unwrap();
        assert_eq!(back.vouchers().unwrap(), file.vouchers().unwrap());
        assert_eq!(back.orders(None, &[], (9, 0)).unwrap(), file.orders(None, &[], (9, 0)).unwrap());
        assert_eq!(back.label(CredentialId(5)).unwrap(), file.label(CredentialId(5)).unwrap());
        assert_eq!(back.session("key", 1).unwrap(), Some(CallerId(1)));
    }
}
