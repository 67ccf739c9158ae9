//! Accounts of an installation whose settings name a database: every command about them works there.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::store::postgres::{Database, Session};
use engine::store::{Accounts, StoreError};
use serde_json::json;

use super::postgres;
use super::serve::{Installation, acedata, card4e, fed};
use super::support::Sandbox;

const CSV: &str = "\
bank_card,name,id_type,id_number,phone,status
6217000000000101017,李雷,resident_id,990101199001010019,16100000101,normal
6217000000000102015,韩梅梅,resident_id,990101199001010027,16100000102,lost
6217000000000103013,张三,resident_id,990101199001010019,,closed
not a card,张三,resident_id,990101199001010019,,normal
";

#[test]
fn commands_change_and_read_them_there() {
    let Some(server) = postgres::shared() else { return };
    let store = format!("store = {:?}", server.url());
    let bank = Installation::new(&[("store = \"\"", &store)]);
    let file = bank.folder().join("accounts.csv");
    std::fs::write(&file, CSV).unwrap();
    let done = bank.run(&["import", "accounts", file.to_str().unwrap()]);
    assert_eq!(
        [&done["put"], &done["rejected"], &done["accounts"]],
        [3, 1, 3].map(|count| json!(count)).each_ref()
    );

    let get = |bank: &Installation, card: &str| bank.run(&["accounts", "get", card])["status"].clone();
    assert_eq!(get(&bank, "6217000000000102015"), "lost");
    bank.run(&["accounts", "put", "6217000000000101017", "--status", "expired"]);
    assert_eq!(get(&bank, "6217000000000101017"), "expired");
    assert_eq!(bank.run(&["accounts", "delete", "6217000000000103013"]), json!({ "deleted": true }));
    assert!(bank.refused(&["accounts", "get", "6217000000000103013"]).contains("no account of that card"));

    let census = bank.run(&["accounts", "check"]);
    assert_eq!((&census["accounts"], &census["file_bytes"]), (&json!(2), &json!(null)), "{census}");
    let doctor = card4e(&["doctor", "--json", "--config", bank.config.to_str().unwrap()]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    let line = said.lines().find(|line| line.contains(r#""what":"accounts""#)).unwrap();
    assert!(line.contains("2 accounts"), "{line}");

    // The file of the data folder is a copy at most: it is never taken for the accounts themselves.
    let own = std::fs::read_to_string(&bank.config).unwrap().replace(&store, "store = \"\"");
    let config = bank.folder().join("own.toml");
    std::fs::write(&config, own).unwrap();
    let own = said_by(&config, "6217000000000101017");
    assert!(own.contains("is a copy of a database's accounts"), "{own}");
    let backup = bank.refused(&["backup", bank.folder().join("copy").to_str().unwrap()]);
    assert!(backup.contains("backed up with the database's own means"), "{backup}");
}

#[test]
fn a_server_without_a_copy_answers_from_the_database() {
    let Some(server) = postgres::shared() else { return };
    let store = format!("store = {:?}", server.url());
    let settings = [("store = \"\"", store.as_str()), ("accounts = \"copy\"", "accounts = \"database\"")];
    let bank = Installation::new(&settings);
    let shop = bank.shop();
    let file = bank.folder().join("accounts.csv");
    std::fs::write(
        &file,
        "bank_card,name,id_type,id_number,phone,status\n\
        6217000000000000012,张伟,resident_id,99010119610202001X,16100000001,normal\n",
    )
    .unwrap();
    bank.run(&["import", "accounts", file.to_str().unwrap()]);

    let running = Sandbox::serving(&bank.config);
    let recharged = |amount: &str| bank.run(&["caller", "recharge", "shop", amount])["balance"].clone();
    assert_eq!((recharged("7"), recharged("0.5")), (json!("17"), json!("17.5")), "known at once, too");
    let ask = || acedata(&running, &shop.token, "6217000000000000012").json()["result"].clone();
    assert_eq!(ask(), "0");
    bank.run(&["accounts", "put", "6217000000000000012", "--status", "lost"]);
    assert_ne!(ask(), "0", "it is known at once");
    assert_eq!(running.get("/readyz").status, 200);

    // Many at once are for nodes that keep a copy: that is said before anything is begun.
    let bearer = format!("Bearer {}", shop.token);
    let path = "/api/v1/verifications/batch?purpose=account_opening&consent=terms-7";
    let batch = running.bytes("POST", path, &[("authorization", &bearer)], b"{}\n");
    let refused = running.try_send(&batch).unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("ask at a node that keeps a copy"), "{}", refused.text());
    let out = bank.folder().join("answers.csv");
    let verify = ["verify-file", "--caller", "shop", file.to_str().unwrap(), out.to_str().unwrap()];
    let refused = bank.refused(&verify);
    assert!(refused.contains("ask at a node that keeps a copy"), "{refused}");
    assert!(!["answers.csv.job", "answers.csv.part"].iter().any(|name| bank.folder().join(name).exists()));
    running.stop();
    let count =
        Accounts::open_reader(&bank.folder().join("data/accounts.db")).map(|accounts| accounts.count());
    assert!(
        count.is_err() || count.is_ok_and(|count| count.is_ok_and(|count| count == 0)),
        "nothing is kept"
    );

    let own = bank.folder().join("own.toml");
    std::fs::write(&own, std::fs::read_to_string(&bank.config).unwrap().replace(&store, "store = \"\""))
        .unwrap();
    let said = said_by(&own, "6217000000000000012");
    assert!(said.contains("server.store names none"), "{said}");
}

#[test]
fn a_database_is_spoken_to_only_behind_its_own_certificate() {
    let Some(server) = postgres::Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let ca = |name: &str| {
        let out = folder.path().join(name);
        let made = card4e(&["tls", "dev-ca", "--out", out.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        out
    };
    let (own, other) = (ca("own"), ca("other"));
    let url = server.url();
    insist_on_encryption(&server, &own);

    let bank = |mode: &str, ca: &Path| {
        let store = format!("store = {:?}", format!("{url}?sslmode={mode}"));
        let ca = format!("store_ca = {:?}", ca.join("ca.pem"));
        Installation::new(&[("store = \"\"", &store), ("# store_ca = \"store-ca.pem\"", &ca)])
    };
    let first = bank("verify-full", &own);
    let file = first.folder().join("accounts.csv");
    std::fs::write(&file, CSV).unwrap();
    assert_eq!(first.run(&["import", "accounts", file.to_str().unwrap()])["put"], 3);

    let file = file.to_str().unwrap();
    let error = bank("require", &other).refused(&["import", "accounts", file]);
    assert!(error.contains("certificate"), "{error}");
    let error = bank("disable", &own).refused(&["import", "accounts", file]);
    assert!(error.contains("no encryption"), "{error}");
}

/// From then on the server has the certificate of a folder, and lets in nobody without encryption.
fn insist_on_encryption(server: &postgres::Postgres, tls: &Path) {
    let mut session = Session::new(server.database()).unwrap();
    let pem = |file: &str| std::fs::read_to_string(tls.join(file)).unwrap();
    let write = |text: &str, file: &str| {
        // As the server's own user, who alone may read a key.
        format!("COPY (SELECT unnest(string_to_array('{text}', E'\n'))) TO PROGRAM 'umask 077; cat > {file}'")
    };
    let hba = "hostssl all all 127.0.0.1/32 trust";
    let done = session.attempt(async |connection| {
        for sql in [
            &write(&pem("server.pem"), "server.crt"),
            &write(&pem("server-key.pem"), "server.key"),
            &write(hba, "pg_hba.conf"),
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            connection.client.batch_execute(sql).await.map_err(StoreError::Database)?;
        }
        Ok(())
    });
    done.unwrap();
}

fn said_by(config: &Path, card: &str) -> String {
    let done = fed(&["accounts", "get", "-", "--config", config.to_str().unwrap()], card);
    String::from_utf8(done.stderr).unwrap()
}

/// Something holds this node's row; the others would take it for dead, and it says so itself.
#[test]
fn a_node_that_cannot_say_that_it_lives_is_not_ready() {
    let Some(database) = postgres::shared() else { return };
    let url = database.url();
    let store = format!("store = {url:?}");
    let bank = Installation::new(&[("store = \"\"", &store)]);
    let server = Sandbox::serving(&bank.config);
    let began = Instant::now();
    let is = |status: u16| {
        let reply = server.get("/readyz");
        (reply.status == status).then(|| reply.json()["store"].as_str().unwrap().to_owned())
    };
    let soon = |status: u16| loop {
        if let Some(store) = is(status) {
            return store;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(soon(200), "ok");
    let holder = std::thread::spawn(move || {
        let database = Database::new(&url, None, postgres::plain()).unwrap();
        let mut session = Session::new(std::sync::Arc::new(database)).unwrap();
        let hold = "BEGIN; SELECT 1 FROM node FOR UPDATE; SELECT pg_sleep(12); COMMIT";
        session.read(async |connection| connection.client.batch_execute(hold).await).unwrap();
    });
    let held = Instant::now();
    let why = soon(503);
    assert!(why.contains("no sign of life") && held.elapsed() > Duration::from_secs(8), "{why}");
    holder.join().unwrap();
    assert_eq!(soon(200), "ok", "it goes on by itself");
    server.stop();
}
