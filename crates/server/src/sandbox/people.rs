//! The accounts a sandbox starts with: fictitious people for every state, document and kind of name.

use engine::account::{AccountError, AccountText};
use engine::store::AccountRow;
use engine::subject::ParseOptions;
use engine::vault::Vault;
use serde::{Deserialize, Serialize};

const SEEDED: &str = include_str!("people.csv");

/// An account in plain text: the sandbox can show its people, because they do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// 13 to 19 digits.
    pub bank_card: String,
    /// Holder.
    pub name: String,
    /// `resident_id` when empty.
    #[serde(default)]
    pub id_type: String,
    /// Number of that document.
    pub id_number: String,
    /// Empty: none on file.
    #[serde(default)]
    pub phone: String,
    /// `normal` when empty.
    #[serde(default)]
    pub status: String,
    /// How long the identity card is valid, `20200101-20400101`; empty: not on file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id_validity: String,
}

impl Person {
    /// What is stored of it.
    pub fn row(&self, options: &ParseOptions, vault: &Vault) -> Result<AccountRow, AccountError> {
        let text = AccountText {
            card: &self.bank_card,
            name: &self.name,
            kind: &self.id_type,
            id: &self.id_number,
            mobile: &self.phone,
            state: &self.status,
            validity: &self.id_validity,
        };
        text.row(options, vault)
    }
}

/// Everybody who has an account, as far as this run knows.
pub struct People(Vec<Person>);

impl People {
    /// Those every sandbox starts with.
    pub fn seeded() -> People {
        let lines = SEEDED.lines().skip(1).filter(|line| !line.starts_with('#'));
        People(lines.map(person).collect())
    }

    /// All of them.
    pub fn all(&self) -> &[Person] {
        &self.0
    }

    /// Adds people; a card that is there already gets its new holder.
    pub fn add(&mut self, people: Vec<Person>) {
        for person in people {
            self.0.retain(|known| known.bank_card != person.bank_card);
            self.0.push(person);
        }
    }
}

fn person(line: &str) -> Person {
    let mut columns = line.split(',').map(str::to_owned);
    let mut next = || columns.next().unwrap_or_default();
    Person {
        bank_card: next(),
        name: next(),
        id_type: next(),
        id_number: next(),
        phone: next(),
        status: next(),
        id_validity: next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::subject::Date;
    use engine::vault::KeyRing;

    #[test]
    fn everybody_can_be_stored() {
        let vault = Vault::new(&KeyRing::generate());
        let today = Date::new(2026, 11, 21).unwrap();
        let options = ParseOptions { test_land: true, ..ParseOptions::new(today) };
        let people = People::seeded();
        assert!(people.all().len() >= 40);
        for person in people.all() {
            assert_eq!(person.row(&options, &vault).err(), None, "{person:?}");
        }
    }

    #[test]
    fn a_card_has_one_holder() {
        let mut people = People::seeded();
        let count = people.all().len();
        let renamed = Person { name: "张三".into(), ..people.all()[3].clone() };
        people.add(vec![renamed.clone()]);
        assert_eq!(people.all().len(), count);
        assert_eq!(people.all().last(), Some(&renamed));
    }
}
