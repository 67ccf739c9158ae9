//! What an installation leaves behind of the people it was asked about: nothing, in no spelling.

use std::collections::BTreeSet;

use serde_json::Value;

use super::keys::{Person, with_accounts};
use super::sandbox::privacy::{Search, files};
use super::serve::{Installation, card4e, error, fed, tencent};
use super::support::Sandbox;

/// Runs `card4e subject erase` with the card on standard input.
pub fn erase(bank: &Installation, card: &str) -> Value {
    let done = fed(&["subject", "erase", "--json", "--config", bank.config.to_str().unwrap()], card);
    assert!(done.status.success(), "{}", error(&done));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn a_person_is_erased_while_the_server_answers() {
    let (bank, shop, people) = with_accounts(50);
    let server = Sandbox::serving(&bank.config);
    let (gone, stays) = (&people[0], &people[1]);
    for person in [gone, stays, gone] {
        assert_eq!(person.result(&server, &shop.token), "0");
    }
    assert_eq!(tencent(&server, &shop.secret_id, &shop.secret_key, &gone.card), "-6");
    let told = erase(&bank, &format!("{}\n", gone.card));
    assert_eq!(told.to_string(), r#"{"account":true,"masks":3,"records":3}"#);
    assert_eq!(gone.result(&server, &shop.token), "-7", "there is no such account");
    assert_eq!(stays.result(&server, &shop.token), "0");
    server.stop();
    let audit = bank.run(&["audit", "check"]);
    assert_eq!((&audit["answers"], &audit["erased"]), (&6.into(), &3.into()), "{audit}");

    // With no server, and for somebody nobody knows.
    let told = erase(&bank, &gone.card);
    assert_eq!(told.to_string(), r#"{"account":false,"masks":1,"records":1}"#);
    assert_eq!(erase(&bank, "6217000000000000012")["records"], 0);
    assert_eq!(bank.run(&["audit", "check"])["erased"], 4);
    let said = bank.refused(&["subject", "erase"]);
    assert!(said.contains("no card number on standard input"), "{said}");
}

#[test]
fn no_element_is_left_of_an_installation() {
    let (bank, shop, people) = with_accounts(300);
    let csv = bank.config.with_file_name("people.csv");
    let mut text = std::fs::read_to_string(&csv).unwrap();
    text.push_str("6217000000000101017,司马相如七,resident_id,110105194912310021,13800138000,normal\n");
    text.push_str("6228480402564890,欧阳修竹,resident_id,11010519491231002X,1380013800x,normal\n");
    let more = bank.config.with_file_name("more.csv");
    std::fs::write(&more, text).unwrap();
    bank.run(&["import", "accounts", more.to_str().unwrap()]);
    let stranger = Person {
        card: "6228480402564890018".into(),
        name: "夏侯惇元".into(),
        id: "32031119770706001X".into(),
        phone: "13912345678".into(),
    };
    let server = Sandbox::serving(&bank.config);
    for person in people.iter().take(40).chain([&stranger]) {
        person.ask(&server, &shop.token).unwrap();
        tencent(&server, &shop.secret_id, &shop.secret_key, &person.card);
    }
    let wrong = server.request("POST", "/identity/bankcard/check-4e", &[], stranger.json().as_bytes());
    assert_eq!(wrong.status, 401);
    bank.run(&["keys", "rotate"]);
    people[50].ask(&server, &shop.token).unwrap();
    erase(&bank, &people[3].card);
    let first_log = server.log();
    // Once with everything still in the write-ahead logs, once after a snapshot.
    let folder = bank.config.with_file_name("data");
    let mut texts = vec![("first log".to_owned(), first_log.into_bytes())];
    let kept = |when: &str, texts: &mut Vec<(String, Vec<u8>)>| {
        let mut found = Vec::new();
        files(&folder, &mut found);
        for path in found.iter().filter(|path| !path.ends_with("control.sock")) {
            texts.push((format!("{} {when}", path.display()), std::fs::read(path).unwrap()));
        }
    };
    kept("at work", &mut texts);
    server.stop();
    kept("at rest", &mut texts);
    let config = bank.config.to_str().unwrap();
    for export in [
        ["ledger", "list", "--json"],
        ["audit", "check", "--json"],
        ["accounts", "check", "--json"],
        ["keys", "list", "--json"],
    ] {
        let done = card4e(&[&export[..], &["--config", config]].concat());
        assert!(done.status.success() && !done.stdout.is_empty(), "{}", error(&done));
        texts.push((export.join(" "), [done.stdout, done.stderr].concat()));
    }
    texts.push((
        "rejected".into(),
        std::fs::read(bank.config.with_file_name("more.csv.rejected.csv")).unwrap(),
    ));

    let mut elements = BTreeSet::new();
    for person in people.iter().chain([&stranger]) {
        elements.extend([&person.card, &person.name, &person.id, &person.phone].map(String::to_owned));
    }
    elements.extend(["司马相如七", "欧阳修竹", "110105194912310021", "6228480402564890"].map(str::to_owned));
    assert!(elements.len() > 800 && texts.len() > 14, "{} {}", elements.len(), texts.len());
    let search = Search::new(&elements);
    assert!(search.finds(&std::fs::read(&more).unwrap()).is_some(), "the file itself has them");
    for (place, bytes) in &texts {
        assert_eq!(search.finds(bytes), None, "in {place}");
    }
}
