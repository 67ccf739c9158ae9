//! Accounts that are looked up in the database itself, by a node that keeps no copy of them.
//!
//! What many questions look for is asked in one statement, and each takes its own out of what was found. Rows are
//! authenticated as those of a file are.

use std::collections::HashMap;

use tokio_postgres::{Error, Row};

use super::shared::{account, damaged, genuine};
use super::{AccountRow, Accounts, indexes, places};
use crate::store::StoreError;
use crate::store::postgres::Connection;
use crate::subject::Subject;
use crate::vault::{AccountKeys, BlindIndex, Keys};

/// By what an account is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum By {
    Card,
    Id,
    Mobile,
}

/// What one question looks for: two places are one, but while a rotation moves the accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    by: By,
    at: [BlindIndex; 2],
}

impl Wanted {
    /// What answers a question about this subject.
    pub(crate) fn of(subject: &Subject, keys: &Keys) -> Option<Wanted> {
        if let Some(card) = &subject.card {
            return Some(Wanted { by: By::Card, at: indexes(card.as_str(), keys) });
        }
        if let Some(mobile) = &subject.mobile {
            let index = |under: &AccountKeys| keys.by_mobile(mobile.as_str(), b"", "", under).index;
            return Some(Wanted { by: By::Mobile, at: places(keys, index) });
        }
        let id = subject.id.as_ref()?;
        let index = |under: &AccountKeys| keys.by_id(id.as_str(), b"", None, under).index;
        Some(Wanted { by: By::Id, at: places(keys, index) })
    }
}

/// A row that is not authenticated yet.
type Read = (AccountRow, [u8; 16]);

/// What the database has for one question.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// `None`: it cannot be read.
    rows: Vec<Option<Read>>,
    /// Versions of the keys that its rows are under.
    versions: Vec<u32>,
}

impl Looked {
    fn genuine(&self, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        // Rows that these keys could not find must not be taken for absent.
        if self.versions.is_empty()
            || self.versions.iter().any(|version| keys.account_version(*version).is_none())
        {
            return Err(StoreError::OtherKeys);
        }
        let read = |read: &Option<Read>| read.clone().ok_or_else(damaged);
        self.rows.iter().map(|row| read(row).and_then(|(row, mac)| genuine(row, mac, keys))).collect()
    }
}

/// What a node answers from.
pub(crate) enum Records<'a> {
    /// The file: its own accounts, or a copy of a database's.
    Here(&'a Accounts),
    /// What was looked up in the database for this question.
    There(&'a Looked),
}

impl Records<'_> {
    /// The account of a card; see [`Accounts::find`].
    pub(crate) fn find(&self, card: &str, keys: &Keys) -> Result<Option<AccountRow>, StoreError> {
        match self {
            Records::Here(accounts) => {
                accounts.look_with(keys)?;
                accounts.find(card, keys)
            }
            Records::There(looked) => Ok(looked.genuine(keys)?.pop()),
        }
    }

    /// The accounts of an identity number; see [`Accounts::find_by_id`].
    pub(crate) fn find_by_id(&self, id: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        match self {
            Records::Here(accounts) => {
                accounts.look_with(keys)?;
                accounts.find_by_id(id, keys)
            }
            Records::There(looked) => looked.genuine(keys),
        }
    }

    /// The accounts of a mobile number; see [`Accounts::find_by_mobile`].
    pub(crate) fn find_by_mobile(&self, mobile: &str, keys: &Keys) -> Result<Vec<AccountRow>, StoreError> {
        match self {
            Records::Here(accounts) => {
                accounts.look_with(keys)?;
                accounts.find_by_mobile(mobile, keys)
            }
            Records::There(looked) => looked.genuine(keys),
        }
    }
}

/// The accounts at some places, and the versions of the keys they are under at the same moment: also where there is
/// none, so that nobody is taken for absent who stands under keys that a node does not have yet.
macro_rules! look {
    ($column:literal) => {
        concat!(
            "SELECT found.*, version, target FROM account_state LEFT JOIN (
                unnest($1::BYTEA[]) AS place (at) CROSS JOIN LATERAL (
                    SELECT name_exact, name_loose, id, mobile, state, kind, keys, mac, idx, by_id, by_id_name,
                        by_id_validity, by_mobile, by_mobile_name, by_mobile_id
                    FROM account WHERE ",
            $column,
            " = place.at AND NOT gone LIMIT 256
                ) AS found
            ) ON TRUE WHERE one = 1"
        )
    };
}

/// Looks all of it up: one statement for each way to find an account, one in all where questions are about cards.
pub(in crate::store) async fn look_up(
    connection: &Connection,
    wanted: &[Wanted],
) -> Result<Vec<(By, Row)>, Error> {
    let mut rows = Vec::new();
    for (by, look) in [(By::Card, look!("idx")), (By::Id, look!("by_id")), (By::Mobile, look!("by_mobile"))] {
        let mut at: Vec<&[u8]> = wanted
            .iter()
            .filter(|wanted| wanted.by == by)
            .flat_map(|wanted| &wanted.at)
            .map(|at| &at.0[..])
            .collect();
        at.sort_unstable();
        at.dedup();
        if !at.is_empty() {
            let found = connection.client.query(&connection.prepared(look).await?, &[&at]).await?;
            rows.extend(found.into_iter().map(|row| (by, row)));
        }
    }
    Ok(rows)
}

/// Who wanted what of it, in their order.
pub(in crate::store) fn sorted(rows: &[(By, Row)], wanted: &[Wanted]) -> Vec<Looked> {
    let mut versions: Vec<u32> = Vec::new();
    let mut found: HashMap<(By, BlindIndex), Vec<Option<Read>>> = HashMap::new();
    for (by, row) in rows {
        for version in [row.get::<_, Option<i32>>(15), row.get(16)].into_iter().flatten() {
            versions.push(version as u32);
        }
        let place = match by {
            By::Card => 8,
            By::Id => 9,
            By::Mobile => 12,
        };
        // Where no account is, there is only the state.
        if let Some(place) = row.get::<_, Option<&[u8]>>(place).and_then(|place| place.try_into().ok()) {
            // One that is damaged is nobody else's matter.
            found.entry((*by, BlindIndex(place))).or_default().push(account(row).ok());
        }
    }
    versions.sort_unstable();
    versions.dedup();
    let of = |wanted: &Wanted| {
        // Outside of a rotation both are one.
        let places = if wanted.at[0] == wanted.at[1] { &wanted.at[..1] } else { &wanted.at[..] };
        let rows = places.iter().filter_map(|at| found.get(&(wanted.by, *at))).flatten().cloned().collect();
        Looked { rows, versions: versions.clone() }
    };
    wanted.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::account::AccountText;
    use crate::action::Action;
    use crate::claim::Claim;
    use crate::store::accounts::{Order, SharedAccounts};
    use crate::store::postgres::Session;
    use crate::store::postgres_server;
    use crate::subject::{Date, ParseOptions};
    use crate::vault::{KeyRing, Vault};

    const ID: &str = "99010119610202001X";

    fn options() -> ParseOptions {
        let today = Date::new(2026, 11, 22).unwrap();
        ParseOptions { test_land: true, element_index: true, ..ParseOptions::new(today) }
    }

    fn card(number: u64) -> String {
        format!("621700{number:010}")
    }

    fn mobile(number: u64) -> String {
        format!("161{number:08}")
    }

    /// So many accounts of one person.
    fn fill(accounts: &mut SharedAccounts, count: u64, vault: &Vault) {
        let put = |number: u64| {
            let (card, mobile) = (card(number), mobile(number));
            let text =
                AccountText {
                    card: &card, name: "张伟", id: ID, mobile: &mobile, ..AccountText::default()
                };
            Order::Put(text.row(&options(), vault).unwrap())
        };
        let orders: Vec<Order> = (0..count).map(put).collect();
        orders.chunks(5000).for_each(|orders| drop(accounts.carry_out(orders, vault).unwrap()));
    }

    fn wanted(action: Action, card: &str, mobile: &str, keys: &Keys) -> Wanted {
        let claim = Claim::new("张伟", card, ID, mobile, 0);
        Wanted::of(&Subject::parse(action, &claim, &options()).unwrap(), keys).unwrap()
    }

    fn looked(session: &mut Session, wanted: &[Wanted]) -> Result<Vec<Looked>, StoreError> {
        let rows = session.read(async |connection| look_up(connection, wanted).await)?;
        Ok(sorted(&rows, wanted))
    }

    #[test]
    fn each_question_of_many_has_its_own_accounts() {
        let Some(server) = postgres_server::shared() else { return };
        let (database, vault) = (server.database(), Vault::new(&KeyRing::generate()));
        let mut accounts = SharedAccounts::open_alone(&database, &vault).unwrap();
        let keys = vault.keys();
        let mut session = Session::new(database).unwrap();
        let asked = [
            wanted(Action::FourElements, &card(1), &mobile(1), &keys),
            wanted(Action::MobileAndName, "", &mobile(2), &keys),
            wanted(Action::FourElements, &card(9), &mobile(9), &keys),
            wanted(Action::NameAndId, "", "", &keys),
            wanted(Action::FourElements, &card(1), &mobile(1), &keys),
        ];
        let found = |session: &mut Session| -> Vec<usize> {
            let looked = looked(session, &asked).unwrap();
            looked.iter().map(|looked| looked.genuine(&keys).unwrap().len()).collect()
        };
        assert_eq!(found(&mut session), [0, 0, 0, 0, 0], "nobody is there, and these keys would find them");
        fill(&mut accounts, 5, &vault);
        assert_eq!(found(&mut session), [1, 1, 0, 5, 1]);
        let all = looked(&mut session, &asked).unwrap();
        assert_eq!(all[0].genuine(&keys).unwrap()[0].index, keys.index(&card(1), keys.accounts()));
        // One that is damaged is refused, and nobody else.
        let cut = "UPDATE account SET name_exact = 'x' WHERE idx = $1";
        let index = all[0].genuine(&keys).unwrap()[0].index;
        session.read(async |connection| connection.client.execute(cut, &[&&index.0[..]]).await).unwrap();
        let found = looked(&mut session, &asked).unwrap();
        let is_refused: Vec<bool> = found.iter().map(|looked| looked.genuine(&keys).is_err()).collect();
        assert_eq!(is_refused, [true, false, false, true, true]);
        let others = Vault::new(&KeyRing::generate());
        assert!(all[0].genuine(&others.keys()).is_err(), "another installation's");
    }

    /// A node whose keys are older than the accounts finds nobody, and must not say that there is nobody.
    #[test]
    fn what_nobody_looked_up_or_is_under_other_keys_is_not_absent() {
        let vault = Vault::new(&KeyRing::generate());
        let keys = vault.keys();
        assert!(matches!(Looked::default().genuine(&keys), Err(StoreError::OtherKeys)));
        let under = |versions: &[u32]| Looked { rows: Vec::new(), versions: versions.to_vec() };
        let own = keys.accounts().version;
        assert!(under(&[own]).genuine(&keys).unwrap().is_empty());
        assert!(matches!(under(&[own, own + 1]).genuine(&keys), Err(StoreError::OtherKeys)));
    }

    /// Beside the driver alone, on one connection each.
    #[test]
    #[ignore = "a measurement"]
    fn look_ups_a_second() {
        const ACCOUNTS: u64 = 50_000;
        let Some(server) = postgres_server::shared() else { return };
        let (database, vault) = (server.database(), Vault::new(&KeyRing::generate()));
        let keys = vault.keys();
        fill(&mut SharedAccounts::open_alone(&database, &vault).unwrap(), ACCOUNTS, &vault);
        let mut session = Session::new(database).unwrap();
        for at_once in [1, 16, 64, 256] {
            let rounds = (40_000 / at_once).min(8_000);
            let batches: Vec<Vec<Wanted>> = (0..rounds)
                .map(|round| {
                    let card = |at: u64| card((round * at_once + at) * 7919 % ACCOUNTS);
                    (0..at_once)
                        .map(|at| wanted(Action::FourElements, &card(at), &mobile(1), &keys))
                        .collect()
                })
                .collect();
            // In turns, so that what else the machine does is shared.
            let (mut own, mut driver) = (Duration::ZERO, Duration::ZERO);
            for batch in &batches {
                let began = Instant::now();
                let looked = looked(&mut session, batch).unwrap();
                assert!(looked.iter().all(|looked| looked.genuine(&keys).is_ok_and(|rows| rows.len() == 1)));
                own += began.elapsed();
                let began = Instant::now();
                let at: Vec<&[u8]> = batch.iter().map(|wanted| &wanted.at[0].0[..]).collect();
                let rows = session.read(async |connection| {
                    let find = connection.prepared("SELECT * FROM account WHERE idx = ANY ($1)").await?;
                    connection.client.query(&find, &[&at]).await
                });
                assert!(!rows.unwrap().is_empty());
                driver += began.elapsed();
            }
            let a_second = |took: Duration| (rounds * at_once) as f64 / took.as_secs_f64();
            eprintln!(
                "{at_once:>4} questions in a statement: {:>8.0} look-ups/s authenticated, {:>8.0}/s by the driver alone",
                a_second(own),
                a_second(driver)
            );
        }
    }
}
