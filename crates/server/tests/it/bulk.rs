//! Many questions at once: files and streams, killed and gone on with, charged once.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::postgres;
use super::serve::{Installation, card4e};
use super::support::Sandbox;

const HEADER: &str = "bank_card,name,id_type,id_number,phone";
const LI: &str = "6217000000000101017,李雷,resident_id,990101199001010019,16100000101";
/// Attempts are not counted.
const OFF: [(&str, &str); 3] = [
    ("per_card = 10", "per_card = 0"),
    ("per_value = 500", "per_value = 0"),
    ("lock_after = 3", "lock_after = 0"),
];
const ANSWERS: &str = "outcome,tencent_result,acedata_result,description,charged";

/// An installation with a caller who can pay, accounts of made-up people, and a place for files.
struct Bank {
    bank: Installation,
    files: TempDir,
}

impl Bank {
    fn new() -> Bank {
        Bank::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Bank {
        let bank = Bank { bank: Installation::new(settings), files: tempfile::tempdir().unwrap() };
        bank.bank.run(&["caller", "create", "shop"]);
        bank.bank.run(&["caller", "recharge", "shop", "1000000"]);
        bank
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.named(name)
    }

    fn named(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Imports made-up people and gives a file of questions about them: every 7th with another mobile, every
    /// 11th about nobody.
    fn people(&self, accounts: usize) -> String {
        let file = self.named("accounts.csv");
        let made = card4e(&["synth", "--accounts", &accounts.to_string(), "--seed", "3", "--out", &file]);
        assert!(made.status.success());
        self.bank.run(&["import", "accounts", &file]);
        let mut text = String::new();
        for (at, line) in self.read("accounts.csv").lines().enumerate() {
            let mut fields: Vec<&str> = line.split(',').take(5).collect();
            match at {
                0 => {}
                at if at % 7 == 0 => fields[4] = "16199999999",
                at if at % 11 == 0 => fields[0] = "6217000000009999999",
                _ => {}
            }
            text += &format!(
                "{},{}\n",
                fields.join(","),
                if at == 0 { "reference".into() } else { format!("r{at}") }
            );
        }
        self.file("questions.csv", text)
    }

    fn verify_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let config = self.bank.config.to_str().unwrap();
        let all = [&["verify-file", "--caller", "shop", "--config", config], arguments].concat();
        fed(&all, input)
    }

    fn verify(&self, arguments: &[&str]) -> Value {
        let done = self.verify_with(&[arguments, &["--json"]].concat(), b"");
        assert!(done.status.success(), "{}", said(&done));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// How many answers the ledger has, and what they were charged.
    fn ledger(&self) -> (u64, String) {
        let summary = self.bank.run(&["ledger", "summary"]);
        (summary["answers"].as_u64().unwrap(), summary["charged"].as_str().unwrap().to_owned())
    }

    fn audit_holds(&self) -> Value {
        self.bank.run(&["audit", "check"])
    }
}

fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_card4e"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // It may have refused before it read anything.
        let _ = stdin.write_all(&input);
    });
    let done = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    done
}

fn said(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn every_row_has_its_answer_beside_it_in_its_order() {
    let bank = Bank::new();
    let accounts = bank.file("li.csv", format!("{HEADER},status\n{LI},normal\n"));
    bank.bank.run(&["import", "accounts", &accounts]);
    let file = bank.file(
        "in.csv",
        "name,note,bank_card,id_number,phone,id_type\r\n\
             李雷,a,6217000000000101017,990101199001010019,+86 161-0000-0101,resident_id\r\n\
             # a comment\n\
             李雷,b,6217000000000101017,990101199001010019,16100000102,\n\
             李雷,c,6217000000000101017,E12345678,16100000101,passport\n\
             李雷,d\n\
             李2,e,6217000000000101017,990101199001010019,16100000101,\n\
             \"李雷\",f,6217000000000109999,990101199001010019,16100000101,\n",
    );
    let summary = bank.verify(&[&file, &bank.named("out.csv")]);
    assert_eq!(
        bank.read("out.csv"),
        format!(
            "name,note,bank_card,id_number,phone,id_type,{ANSWERS}
李雷,a,6217000000000101017,990101199001010019,+86 161-0000-0101,resident_id,PASS,0,0,the elements belong together,1
李雷,b,6217000000000101017,990101199001010019,16100000102,,HOLDER_MISMATCH,-6,-4,\"name, identity number or mobile differs from the bank's\",1
李雷,c,6217000000000101017,E12345678,16100000101,passport,DOC_UNSUPPORTED,-20,-1,only resident identity cards of 18 characters can be verified,0
李雷,d,,,,\"not asked: the row has other columns than the header, or is not in the encoding of the file\",0
李2,e,6217000000000101017,990101199001010019,16100000101,,NAME_INVALID,-2,-2,the name is not a name,0
\"李雷\",f,6217000000000109999,990101199001010019,16100000101,,PAN_INVALID,-9,-7,\"there is no such account, or it is closed\",1
"
        )
    );
    assert_eq!(
        (&summary["rows"], &summary["not_asked"], &summary["charged"]),
        (&json!(6), &json!(1), &json!("3"))
    );
    assert_eq!(bank.ledger(), (5, "3".into()));
    let check = bank.audit_holds();
    assert_eq!((&check["answers"], &check["charges"]), (&json!(5), &json!(3)));
    for left in ["out.csv.part", "out.csv.job"] {
        assert!(!bank.path(left).exists(), "{left}");
    }
    let again = bank.verify_with(&[&file, &bank.named("out.csv")], b"");
    assert!(said(&again).contains("is there already"), "{}", said(&again));
}

/// Killed several times on the way, at moments that follow from a seed; beside a server and without one.
#[test]
fn killed_and_gone_on_with_it_is_charged_once_and_comes_to_the_same() {
    killed_and_gone_on_with(&OFF);
}

#[test]
fn and_where_nodes_share_a_database() {
    let Some(database) = postgres::shared() else { return };
    let store = format!("store = {:?}", database.url());
    killed_and_gone_on_with(&[&OFF[..], &[("store = \"\"", &store)]].concat());
}

fn killed_and_gone_on_with(settings: &[(&str, &str)]) {
    let bank = Bank::with(settings);
    let file = bank.people(24_000);
    let whole = bank.verify(&[&file, &bank.named("whole.csv")]);
    let (answers, charged) = bank.ledger();
    assert_eq!((answers, &json!(charged)), (24_000, &whole["charged"]));
    let config = bank.bank.config.to_str().unwrap().to_owned();
    let mut jobs = 1;
    for (round, is_served) in [(1_u64, false), (2, true)] {
        let server = is_served.then(|| Sandbox::serving(&bank.bank.config));
        let out = format!("killed-{round}.csv");
        let arguments = ["verify-file", "--caller", "shop", "--config", &config, &file, &bank.named(&out)];
        let (mut kills, mut dice) = (0, round);
        // Sooner and sooner, until it is not done before: how long it takes is the machine's affair.
        for most_ms in [500, 250, 125, 60, 30, 15] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_card4e"))
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(10 + (dice >> 33) % most_ms));
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                // It was done before.
                if kills > 0 {
                    break;
                }
                std::fs::remove_file(bank.path(&out)).unwrap();
                jobs += 1;
                continue;
            }
            kills += 1;
            assert!(!bank.path(&out).exists(), "an unfinished file is not called finished");
        }
        assert!(kills > 0, "it was never killed on the way");
        if !bank.path(&out).exists() {
            bank.verify(&[&file, &bank.named(&out)]);
        }
        assert!(bank.read(&out) == bank.read("whole.csv"), "the answers are others");
        if let Some(server) = server {
            server.stop();
        }
        jobs += 1;
        assert_eq!(bank.ledger().0, answers * jobs, "round {round}");
    }
    assert_eq!(bank.audit_holds()["answers"], answers * jobs);
}

#[test]
fn another_file_is_not_gone_on_with() {
    let bank = Bank::new();
    bank.bank.run(&["caller", "create", "poor"]);
    let row = |at: u32| format!("62170000000001{at:05},李雷,,990101199001010019,16100000101\n");
    let rows = |from: u32| (from..from + 30).map(row).collect::<String>();
    let file = bank.file("in.csv", format!("{HEADER}\n{}", rows(10)));
    let config = bank.bank.config.to_str().unwrap();
    let out = bank.named("out.csv");
    let ask = |more: &[&str]| {
        fed(&[&["verify-file", "--caller", "poor", "--config", config, &file, &out], more].concat(), b"")
    };
    // A balance of ten: it is used up on the way.
    let stopped = said(&ask(&[]));
    assert!(stopped.contains("balance is used up") && stopped.contains("After 10 rows"), "{stopped}");
    assert_eq!(bank.ledger(), (10, "10".into()));
    bank.file("in.csv", format!("{HEADER}\n{}", rows(11)));
    let other = said(&ask(&[]));
    assert!(other.contains("these are not the rows that were settled"), "{other}");
    bank.file("in.csv", format!("{HEADER}\n{}", rows(10)));
    bank.bank.run(&["caller", "recharge", "poor", "15"]);
    assert!(said(&ask(&[])).contains("After 25 rows"));
    bank.bank.run(&["caller", "recharge", "poor", "5"]);
    let done = ask(&["--json"]);
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&summary["rows"], &summary["settled_before"]), (&json!(30), &json!(25)), "{}", said(&done));
    assert_eq!(bank.ledger(), (30, "30".into()));
    assert_eq!(bank.read("out.csv").lines().count(), 31);
}

#[test]
fn attempts_are_counted_as_with_single_questions_and_after_a_restart() {
    let bank = Bank::new();
    let accounts = bank.file("li.csv", format!("{HEADER},status\n{LI},normal\n"));
    bank.bank.run(&["import", "accounts", &accounts]);
    let wrong = LI.replace("16100000101", "16100000102");
    let file =
        bank.file("in.csv", format!("{HEADER}\n{wrong}\n{wrong}\n{LI}\n{wrong}\n{wrong}\n{wrong}\n{LI}\n"));
    bank.verify(&[&file, &bank.named("out.csv")]);
    let outcomes = |name: &str| -> Vec<String> {
        let text = bank.read(name);
        text.lines().skip(1).map(|line| line.split(',').nth(5).unwrap().to_owned()).collect()
    };
    let (no, yes, locked) = ("HOLDER_MISMATCH", "PASS", "ATTEMPTS_EXCEEDED");
    assert_eq!(outcomes("out.csv"), [no, no, yes, no, no, no, locked]);
    let file = bank.file("again.csv", format!("{HEADER}\n{LI}\n"));
    bank.verify(&[&file, &bank.named("again-out.csv")]);
    assert_eq!(outcomes("again-out.csv"), [locked], "read back from the ledger");
}

#[test]
fn parts_one_after_the_other_are_the_whole() {
    let bank = Bank::with(&OFF);
    let file = bank.people(997);
    bank.verify(&[&file, &bank.named("whole.csv")]);
    for parts in [2, 3, 7] {
        let mut joined = String::new();
        for part in 1..=parts {
            let out = format!("{part}-of-{parts}.csv");
            bank.verify(&["--range", &format!("{part}/{parts}"), &file, &bank.named(&out)]);
            joined += &bank.read(&out);
        }
        assert!(joined == bank.read("whole.csv"), "{parts} parts");
    }
    let tiny = bank.file("tiny.csv", format!("\u{feff}# first\n{HEADER}\n{LI}"));
    let mut joined = String::new();
    for part in 1..=9 {
        let out = format!("tiny-{part}.csv");
        bank.verify(&["--range", &format!("{part}/9"), &tiny, &bank.named(&out)]);
        joined += &bank.read(&out);
    }
    assert_eq!(joined.lines().count(), 2, "{joined}");
    let wrong = bank.verify_with(&["--range", "4/3", &file, "-"], b"");
    assert!(said(&wrong).contains("is not a part such as 2/4"));
}

/// More than a block, so that several threads are at it: the same answers, however the lines are written.
#[test]
fn rows_of_many_blocks_are_answered_in_their_order_however_they_are_written() {
    let bank = Bank::with(&OFF);
    bank.people(1000);
    bank.verify(&[&bank.named("questions.csv"), &bank.named("once.csv")]);
    let (questions, once) = (bank.read("questions.csv"), bank.read("once.csv"));
    let (header, rows) = questions.split_once('\n').unwrap();
    let answers: Vec<&str> = once.lines().skip(1).collect();
    let many = rows.repeat(40);
    let plain = bank.file("many.csv", format!("{header}\n{many}"));
    bank.verify(&[&plain, &bank.named("plain.csv")]);
    assert!(bank.read("plain.csv").lines().skip(1).eq(answers.iter().copied().cycle().take(40_000)));
    let quoted = |line: &str| format!("\"{}\"\r\n", line.replace(',', "\",\""));
    let lines: String = many.lines().map(quoted).collect();
    let written = format!("\u{feff}{header}\r\n\r\n# a comment\n{}", lines.trim_end());
    let quoted = bank.file("quoted.csv", written);
    bank.verify(&[&quoted, &bank.named("out.csv")]);
    let outcomes = |name: &str| {
        let text = bank.read(name);
        let last = |line: &str| line.replace('"', "").splitn(7, ',').last().map(str::to_owned);
        text.lines().skip(1).map(last).collect::<Vec<_>>()
    };
    assert!(outcomes("out.csv") == outcomes("plain.csv"));
    assert_eq!(bank.ledger().0, 81_000);
    assert_eq!(bank.audit_holds()["answers"], 81_000);
}

#[test]
fn gzip_standard_input_and_standard_output() {
    let bank = Bank::with(&OFF);
    let file = bank.people(500);
    bank.verify(&[&file, &bank.named("whole.csv")]);
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(bank.read("questions.csv").as_bytes()).unwrap();
    let zip = zip.finish().unwrap();
    let done = bank.verify_with(&["-", "-"], &zip);
    assert!(done.status.success(), "{}", said(&done));
    assert!(String::from_utf8(done.stdout).unwrap() == bank.read("whole.csv"));
    let zipped = bank.file("in.csv.gz", &zip);
    bank.verify(&[&zipped, &bank.named("out.csv.gz")]);
    let mut text = String::new();
    let out = std::fs::File::open(bank.path("out.csv.gz")).unwrap();
    flate2::read::GzDecoder::new(out).read_to_string(&mut text).unwrap();
    assert!(text == bank.read("whole.csv"));
    let refused = bank.verify_with(&["--range", "1/2", &zipped, "-"], b"");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
}

#[test]
fn gbk_is_answered_in_gbk() {
    let bank = Bank::with(&OFF);
    bank.people(50);
    bank.verify(&[&bank.named("questions.csv"), &bank.named("whole.csv")]);
    let gbk = |text: &str| encoding_rs::GB18030.encode(text).0.into_owned();
    let file = bank.file("gbk.csv", gbk(&bank.read("questions.csv")));
    bank.verify(&["--encoding", "gbk", &file, &bank.named("gbk-out.csv")]);
    assert_eq!(std::fs::read(bank.path("gbk-out.csv")).unwrap(), gbk(&bank.read("whole.csv")));
}

#[test]
fn a_dry_run_charges_nothing_and_says_nothing_about_anybody() {
    let bank = Bank::new();
    bank.people(100);
    let mut text = bank.read("questions.csv");
    text += "12,李雷,,990101199001010019,16100000101,x\n1,2\n";
    let file = bank.file("in.csv", text);
    let told = bank.verify(&["--dry-run", &file, "-"]);
    let wrong: u64 = told["wrong"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum();
    assert_eq!(
        (&told["rows"], &told["not_asked"], &told["wrong"]["PAN_MALFORMED"]),
        (&json!(102), &json!(1), &json!(1))
    );
    assert_eq!(told["well_formed"].as_u64().unwrap() + wrong + 1, 102);
    assert_eq!(bank.ledger().0, 0);
}

#[test]
fn a_large_file_needs_an_approval_which_is_in_the_ledger() {
    let bank = Bank::with(&[("bulk_rows_max = 1000000", "bulk_rows_max = 20")]);
    let file = bank.people(30);
    let refused = said(&bank.verify_with(&[&file, &bank.named("out.csv")], b""));
    assert!(refused.contains("more than 20 rows need an approval"), "{refused}");
    assert_eq!(bank.ledger().0, 0);
    bank.verify(&["--approve", "30", &file, &bank.named("out.csv")]);
    assert_eq!(bank.ledger().0, 30);
    let log = card4e(&["audit", "log", "--json", "--config", bank.bank.config.to_str().unwrap()]);
    let log = String::from_utf8(log.stdout).unwrap();
    assert!(log.contains("bulk_approved"), "{log}");
}

#[test]
fn a_file_of_no_use_ends_with_2() {
    let bank = Bank::new();
    for (text, why) in [
        ("bank_card,name,id_number\n", "there is no column phone"),
        ("bank_card,name,id_number,phone,outcome\n", "there is a column outcome already"),
        ("", "the file has no header"),
    ] {
        let file = bank.file("in.csv", text);
        let refused = bank.verify_with(&[&file, "-"], b"");
        assert_eq!(refused.status.code(), Some(2));
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
    let file = bank.file("in.csv", format!("{HEADER}\n"));
    let nobody = fed(
        &["verify-file", "--caller", "nobody", "--config", bank.bank.config.to_str().unwrap(), &file, "-"],
        b"",
    );
    assert!(said(&nobody).contains("nobody"), "{}", said(&nobody));
}

mod parquet_files {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::record::Field;

    use super::*;

    /// A file of questions, numbers as numbers, some mobiles absent, in two groups.
    fn questions(path: &Path, text: &str) {
        let schema = "message m { REQUIRED INT64 bank_card; OPTIONAL BYTE_ARRAY name (UTF8);
            REQUIRED BYTE_ARRAY id_number (UTF8); OPTIONAL INT64 phone; REQUIRED DOUBLE weight; }";
        let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema.into(), Default::default()).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
        for rows in rows.chunks(rows.len() / 2 + 1) {
            let mut group = writer.next_row_group().unwrap();
            for column in [0, 1, 3, 4, 9] {
                let mut to = group.next_column().unwrap().unwrap();
                let texts: Vec<ByteArray> =
                    rows.iter().filter(|_| column != 9).map(|row| ByteArray::from(row[column])).collect();
                let numbers =
                    || rows.iter().map(|row| row[column].parse::<i64>().unwrap_or(7)).collect::<Vec<_>>();
                let all = vec![1; rows.len()];
                match column {
                    0 => to.typed::<Int64Type>().write_batch(&numbers(), None, None).unwrap(),
                    4 => {
                        let levels: Vec<i16> = (0..rows.len()).map(|at| i16::from(at % 5 != 0)).collect();
                        let there = numbers().into_iter().zip(&levels).filter(|(_, level)| **level == 1);
                        let there: Vec<i64> = there.map(|(number, _)| number).collect();
                        to.typed::<Int64Type>().write_batch(&there, Some(&levels), None).unwrap()
                    }
                    1 => to.typed::<ByteArrayType>().write_batch(&texts, Some(&all), None).unwrap(),
                    3 => to.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap(),
                    _ => {
                        let weights: Vec<f64> = (0..rows.len()).map(|at| at as f64 / 2.0).collect();
                        to.typed::<parquet::data_type::DoubleType>()
                            .write_batch(&weights, None, None)
                            .unwrap()
                    }
                };
                to.close().unwrap();
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn rows(path: &Path) -> Vec<String> {
        let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        let told = |field: &Field| match field {
            Field::Null => Value::Null,
            Field::Str(text) => json!(text),
            Field::Long(number) => json!(number),
            Field::Double(number) => json!(number),
            other => panic!("{other}"),
        };
        let row = |row: parquet::record::Row| {
            let members = row.get_column_iter().map(|(name, field)| (name.clone(), told(field)));
            Value::from(members.collect::<serde_json::Map<_, _>>()).to_string()
        };
        file.get_row_iter(None).unwrap().map(|read| row(read.unwrap())).collect()
    }

    #[test]
    fn parquet_in_is_parquet_out_whole_and_in_parts() {
        let bank = Bank::with(&OFF);
        bank.people(300);
        let file = bank.path("in.parquet");
        questions(&file, &bank.read("questions.csv"));
        let file = file.to_str().unwrap();
        let summary = bank.verify(&[file, &bank.named("out.parquet")]);
        assert_eq!(summary["rows"], 300);
        let (before, after) = (rows(Path::new(file)), rows(&bank.path("out.parquet")));
        assert_eq!(after.len(), 300);
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let (before, mut after): (Value, Value) =
                (serde_json::from_str(before).unwrap(), serde_json::from_str(after).unwrap());
            let members = after.as_object_mut().unwrap();
            let outcome = members.remove("outcome").unwrap();
            for added in ["tencent_result", "acedata_result", "description", "charged"] {
                assert!(members.remove(added).unwrap().is_string());
            }
            assert_eq!(before, after, "row {at}");
            if after["phone"].is_null() {
                assert_ne!(outcome, "PASS");
            }
        }
        assert!(after.iter().any(|row| row.contains("\"PASS\"")));
        let mut joined = Vec::new();
        for part in ["1/3", "2/3", "3/3"] {
            let out = bank.path(&format!("{}.parquet", &part[..1]));
            bank.verify(&["--range", part, file, out.to_str().unwrap()]);
            joined.extend(rows(&out));
        }
        assert_eq!(joined, after);
        let refused = bank.verify_with(&[file, &bank.named("out.csv")], b"");
        assert!(said(&refused).contains("a Parquet file"), "{}", said(&refused));
    }
}

mod over_http {
    use super::*;
    use crate::acedata::token;
    use crate::support::{Reply, TOKEN};

    const PATH: &str = "/api/v1/verifications/batch";
    const WHY: &str = "?purpose=account_opening&consent=terms-7";

    fn post(sandbox: &Sandbox, token: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [&[("authorization", bearer.as_str()), ("connection", "close")], headers].concat();
        let request = sandbox.bytes("POST", &format!("{PATH}{query}"), &headers, body.as_bytes());
        let mut socket = std::net::TcpStream::connect(&sandbox.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.write_all(&request).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        let head = all.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let text = String::from_utf8_lossy(&all[..head]).into_owned();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = text.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { unchunked(&all[head..]) } else { all[head..].to_vec() };
        Reply { status, headers: Vec::new(), body }
    }

    fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let at = bytes.windows(2).position(|end| end == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
            if size == 0 {
                return body;
            }
            body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
            bytes = &bytes[at + 4 + size..];
        }
    }

    fn lines(reply: &Reply) -> Vec<Value> {
        reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn zhang_wei(phone: &str) -> String {
        let question = json!({
            "name": "张伟", "bank_card": "6217000000000000012", "phone": phone, "id_card": "99010119610202001X",
        });
        format!("{question}\n")
    }

    #[test]
    fn a_line_in_is_a_line_out() {
        let sandbox = Sandbox::start();
        let named = r#"{"ref":"a-1","name":"张伟","bank_card":"6217000000000000012","phone":"16100000001","id_card":"99010119610202001X"}"#;
        let body = format!(
            "{}\n{named}\n{{\"pin\":\"1\"}}\n{}",
            zhang_wei("+86 161-0000-0001"),
            zhang_wei("16100000002").trim()
        );
        let reply = post(&sandbox, TOKEN, WHY, &[], &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let pass = |line: u64| {
            json!({
                "line": line, "outcome": "PASS", "class": "pass", "tencent_result": "0", "acedata_result": "0",
                "description": "the elements belong together", "charged": "1",
            })
        };
        let mut second = pass(3);
        second["ref"] = json!("a-1");
        let told = lines(&reply);
        assert_eq!(told[..2], [pass(1), second]);
        assert_eq!(told[2]["line"], 4);
        assert!(told[2]["error"].as_str().unwrap().contains("not a question"));
        assert_eq!(
            (&told[3]["outcome"], &told[3]["acedata_result"]),
            (&json!("HOLDER_MISMATCH"), &json!("-4"))
        );
        assert_eq!(told.len(), 4);
        assert_eq!(sandbox.charges(), 3);
    }

    #[test]
    fn sent_again_under_its_key_it_is_told_again_and_gone_on_with() {
        let sandbox = Sandbox::start();
        let all: String = (0..300).map(|at| zhang_wei(&format!("161{at:08}"))).collect();
        let cut = all.lines().take(120).map(|line| format!("{line}\n")).collect::<String>();
        let key = [("idempotency-key", "monday")];
        let first = lines(&post(&sandbox, TOKEN, WHY, &key, &cut));
        assert_eq!((first.len(), sandbox.charges()), (120, 120));
        let again = lines(&post(&sandbox, TOKEN, WHY, &key, &all));
        assert_eq!((again.len(), sandbox.charges()), (300, 300));
        for (first, again) in first.iter().zip(&again) {
            assert_eq!(first["outcome"], again["outcome"]);
            assert_eq!((&again["charged"], &again["replayed"]), (&json!("0"), &json!(true)));
        }
        let other = lines(&post(&sandbox, TOKEN, WHY, &key, &all.replace("张伟", "张三")));
        assert!(other[0]["ended"].as_str().unwrap().contains("these are not the rows"), "{other:?}");
        assert_eq!(sandbox.charges(), 300);
    }

    #[test]
    fn another_node_tells_it_again_and_goes_on_with_it() {
        let Some(database) = super::postgres::shared() else { return };
        let store = format!("store = {:?}", database.url());
        let bank = super::Bank::with(&[&super::OFF[..], &[("store = \"\"", &store)]].concat());
        let issued = bank.bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
        let token = issued["secret"].as_str().unwrap();
        let other = bank.bank.beside("other");
        let nodes = [Sandbox::serving(&bank.bank.config), Sandbox::serving(&other)];
        let key = [("idempotency-key", "monday")];
        let all: String = (0..60).map(|at| zhang_wei(&format!("161{at:08}"))).collect();
        let cut = all.lines().take(40).map(|line| format!("{line}\n")).collect::<String>();
        let first = lines(&post(&nodes[0], token, WHY, &key, &cut));
        assert_eq!(first.len(), 40);
        let [killed, other] = nodes;
        killed.kill();
        let again = lines(&post(&other, token, WHY, &key, &all));
        assert_eq!(again.len(), 60, "{:?}", again.last());
        let replayed = again.iter().filter(|line| line["replayed"] == true).count();
        assert_eq!(replayed, 40);
        other.stop();
        assert_eq!(bank.ledger(), (60, "60".into()));
        assert_eq!(bank.audit_holds()["charges"], 60);
    }

    #[test]
    fn who_may_not_ask_is_told_so_first() {
        let sandbox = Sandbox::start();
        let status = |token: &str, query: &str| post(&sandbox, token, query, &[], &zhang_wei("1")).status;
        assert_eq!(status("nobody", WHY), 401);
        assert_eq!(status(TOKEN, ""), 400, "no purpose");
        assert_eq!(status(TOKEN, &format!("{WHY}&action=card-9e")), 400);
        assert_eq!(status(&token(5), WHY), 403, "not confirmed");
        let broke = lines(&post(&sandbox, &token(3), WHY, &[], &zhang_wei("16100000001")));
        assert!(broke[0]["ended"].as_str().unwrap().contains("balance is used up"), "{broke:?}");
        assert_eq!(sandbox.charges(), 0);
    }
}
