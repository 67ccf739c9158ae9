//! The rest of the card family and the checks of people, over both wires, from the wire to the record.

use std::process::Command;

use serde_json::{Value, json};

use crate::serve::{Installation, card4e};
use crate::support::{Reply, Sandbox};
use crate::tencent::client::{Ask, key_of, post};

/// Name on the Tencent wire, path on the AceData wire, action.
const ACTIONS: [(&str, &str, &str); 7] = [
    ("BankCard4EVerification", "bankcard/check-4e", "bankcard-4e"),
    ("BankCardVerification", "bankcard/check-3e", "bankcard-3e"),
    ("BankCard2EVerification", "bankcard/check-2e", "bankcard-2e"),
    ("CheckBankCardInformation", "bankcard/check-1e", "bankcard-1e"),
    ("IdCardVerification", "idcard/check-2e", "idcard-2e"),
    ("PhoneVerification", "phone/check-3e", "phone-3e"),
    ("CheckPhoneAndName", "phone/check-2e", "phone-2e"),
];

/// Every member any action of the Tencent wire takes: those it does not know it ignores.
fn tencent(name: &str, card: &str, holder: &str, id: &str, phone: &str) -> Ask {
    let body =
        json!({"BankCard": card, "Name": holder, "IdCard": id, "Phone": phone, "Mobile": phone}).to_string();
    post(body).action(name)
}

fn guide(sandbox: &Sandbox, token: &str, path: &str, body: &Value) -> Reply {
    let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "application/json")];
    sandbox.request("POST", &format!("/identity/{path}"), &headers, body.to_string().as_bytes())
}

fn all_members(card: &str, holder: &str, id: &str, phone: &str) -> Value {
    json!({"bank_card": card, "name": holder, "id_card": id, "phone": phone, "mobile": phone,
        "validity_begin": "20160202", "validity_end": "00000000"})
}

const PUBLIC: &str = "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";

/// The sandbox lists a magic card, identity number or mobile for each code of each action; each answers
/// what the list says, on both wires, and is charged as the list says.
#[test]
fn every_code_of_every_action() {
    let sandbox = Sandbox::start();
    let listed = sandbox.control("GET", "cards", "");
    let mut asked = 0;
    for (name, path, action) in ACTIONS {
        for row in listed["actions"][action].as_array().unwrap() {
            let value = |element: &str| row[element].as_str().unwrap_or("?").to_owned();
            let (card, id, phone) = (value("bank_card"), value("id_card"), value("phone"));
            let names: &[&str] = match name {
                "PhoneVerification" => &[
                    "PhoneVerification",
                    "PhoneVerificationCMCC",
                    "PhoneVerificationCUCC",
                    "PhoneVerificationCTCC",
                ],
                _ => &[name],
            };
            for alias in names {
                let before = sandbox.charges();
                let reply = tencent(alias, &card, "?", &id, &phone).send(&sandbox);
                let result = &reply.json()["Response"]["Result"];
                // The carriers' table has no row for too many attempts.
                let busy = *alias != name && row["outcome"] == "ATTEMPTS_EXCEEDED";
                let expected = if busy { &json!("-11") } else { &row["tencent"] };
                assert_eq!(result, expected, "{alias} {row}");
                assert_eq!(sandbox.charges() - before, u64::from(row["charged"] == true), "{alias} {row}");
                asked += 1;
            }
            let reply = guide(&sandbox, PUBLIC, path, &all_members(&card, "?", &id, &phone));
            assert_eq!(reply.json()["result"], row["acedata"], "{path} {row}");
            assert_eq!(reply.header("x-charged"), Some(if row["charged"] == true { "1" } else { "0" }));
            asked += 1;
        }
    }
    assert_eq!(sandbox.control("GET", "ledger", "")["records"], asked);
    let usage = sandbox.control("GET", "usage?limit=1000", "");
    assert!(usage["rows"].as_array().unwrap().len() <= asked);
}

#[test]
fn documented_samples() {
    let sandbox = Sandbox::start();
    let (wei, id, phone) = ("韦小宝", "11204416541220243X", "16137688175");
    let (one, other) = ("6225768888888888", " 6226090210146748");
    for (name, card, expected) in [
        ("BankCard4EVerification", one, json!({"Result": "0", "Description": "认证通过"})),
        ("BankCard4EVerification", other, json!({"Result": "-6", "Description": "持卡人信息有误"})),
        ("BankCardVerification", other, json!({"Result": "0", "Description": "认证通过"})),
        ("BankCardVerification", one, json!({"Result": "-1", "Description": "认证未通过"})),
        ("BankCard2EVerification", one, json!({"Result": "0", "Description": "认证通过"})),
        ("BankCard2EVerification", other, json!({"Result": "-4", "Description": "持卡人信息有误"})),
        (
            "CheckBankCardInformation",
            one,
            json!({"Result": "0", "Description": "查询成功", "AccountBank": "招商银行信用卡", "AccountType": 2}),
        ),
        (
            "CheckBankCardInformation",
            "6200000000100003",
            json!({"Result": "-1", "Description": "未查到信息", "AccountBank": "", "AccountType": -1}),
        ),
        ("IdCardVerification", "", json!({"Result": "0", "Description": "姓名和身份证号一致"})),
        ("PhoneVerification", "", json!({"Result": "0", "Description": "认证通过", "Isp": "电信"})),
        ("PhoneVerificationCMCC", "", json!({"Result": "0", "Description": "认证通过", "Isp": "移动"})),
        ("PhoneVerificationCUCC", "", json!({"Result": "0", "Description": "认证通过", "Isp": "联通"})),
        ("PhoneVerificationCTCC", "", json!({"Result": "0", "Description": "认证通过", "Isp": "电信"})),
        ("CheckPhoneAndName", "", json!({"Result": "0", "Description": "验证结果一致"})),
    ] {
        let reply = tencent(name, card, wei, id, phone).send(&sandbox);
        let mut response = reply.json()["Response"].take();
        response.as_object_mut().unwrap().remove("RequestId");
        assert_eq!(response, expected, "{name} {card}");
    }
    let liu = tencent("IdCardVerification", "", "刘洋", "440305199505132561", "").send(&sandbox);
    assert_eq!(liu.json()["Response"]["Result"], "-1");
    // AceData's snippets as printed.
    for (name, path, _) in ACTIONS {
        let reply = guide(&sandbox, PUBLIC, path, &all_members("***", "***", "***", "***"));
        assert_eq!(reply.json()["result"], "0", "{name} {path}: {}", reply.text());
    }
    let card = guide(&sandbox, PUBLIC, "bankcard/check-1e", &json!({"bank_card": "****"}));
    assert_eq!(
        card.json(),
        json!({"result": "0", "description": "Query successful",
            "account_bank": "Industrial and Commercial Bank of China", "account_type": 1})
    );
}

/// From the records: who is on file, who is not, and how much of it is told.
#[test]
fn people_are_found_by_number_and_by_mobile() {
    let sandbox = Sandbox::start();
    let ask = |name: &str, holder: &str, id: &str, phone: &str| {
        let reply = tencent(name, "", holder, id, phone).send(&sandbox);
        let decision = reply.header("x-sandbox-decision").unwrap_or_default().to_owned();
        (reply.json()["Response"]["Result"].as_str().unwrap_or_default().to_owned(), decision)
    };
    let (id, phone) = ("99010119610202001X", "16100000001");
    let wei = |name| ask(name, "张伟", id, phone).0;
    assert_eq!(
        [wei("IdCardVerification"), wei("PhoneVerification"), wei("CheckPhoneAndName")],
        ["0", "0", "0"]
    );
    assert_eq!(
        ask("PhoneVerification", "张三", id, phone),
        ("-4".into(), "row=33 outcome=HOLDER_MISMATCH by=records differs=name".into())
    );
    assert_eq!(ask("CheckPhoneAndName", "张三", "", phone).0, "1");
    assert_eq!(ask("IdCardVerification", "张三", id, "").0, "-1");
    assert_eq!(
        ask("IdCardVerification", "张三", "990101199001010019", ""),
        ("-5".into(), "row=32 outcome=NO_RECORD by=records".into())
    );
    assert_eq!(ask("CheckPhoneAndName", "张三", "", "16199999999").0, "-1");
    // A closed account is none, and an account opened with a passport has no identity number.
    assert_eq!(ask("CheckPhoneAndName", "沈十", "", "16100000015").0, "-1");
    assert_eq!(ask("CheckPhoneAndName", "SMITH JOHN", "", "16100000031").0, "0");
    // Of one person with two cards, and of a name with another dot.
    assert_eq!(ask("IdCardVerification", "赵敏", "990101198503152012", "").0, "0");
    assert_eq!(ask("CheckPhoneAndName", "买买提•艾力", "", "16100000016").0, "0");
    // Formats in each action's own numbers.
    assert_eq!(ask("PhoneVerification", "张伟", "1", phone).0, "-7");
    assert_eq!(ask("PhoneVerification", "", id, phone).0, "-8");
    assert_eq!(ask("CheckPhoneAndName", "张伟", "", "1").0, "-5");
    assert_eq!(ask("IdCardVerification", "张伟", "110101491001001", "").0, "-2");
}

/// A mismatch is explained to who may be told, and stays explained when the answer is given again.
#[test]
fn a_mismatch_is_explained_to_who_may_be_told() {
    let sandbox = Sandbox::start();
    let detail = |application: &str, holder: &str, id: &str, mode: &str| {
        let body = json!({"Name": holder, "IdCard": id, "Phone": "16100000001", "VerifyMode": mode});
        let ask = post(body.to_string())
            .action("PhoneVerification")
            .header("Idempotency-Key", &format!("{}{mode}", &holder[..1]));
        let ask = if application.is_empty() { ask } else { ask.key(key_of(application)) };
        [ask.send(&sandbox), ask.send(&sandbox)].map(|reply| reply.json()["Response"]["ResultDetail"].clone())
    };
    let (id, other) = ("99010119610202001X", "990101196203030022");
    assert_eq!(detail("Reasons", "A B", id, "1"), [json!("PhoneNameMismatch"), json!("PhoneNameMismatch")]);
    assert_eq!(detail("Reasons", "C D", other, "1")[1], "PhoneNameIdCardMismatch");
    assert_eq!(detail("", "E F", id, "1")[0], "OtherMismatch");
    assert_eq!(detail("Reasons", "G H", id, "0")[0], Value::Null);
    let wrong = json!({"Name": "A", "IdCard": id, "Phone": "1", "VerifyMode": "2"}).to_string();
    let wrong = post(wrong).action("PhoneVerification").english().said(&sandbox);
    assert!(wrong.contains("InvalidParameterValue") && wrong.contains("`VerifyMode`"), "{wrong}");
}

/// AceData asks for the validity of the identity card too: compared where it is on file, never passed over.
#[test]
fn validity_is_part_of_the_question() {
    let sandbox = Sandbox::start();
    let ask = |holder: &str, id: &str, begin: &str, end: &str| {
        let body = json!({"name": holder, "id_card": id, "validity_begin": begin, "validity_end": end});
        guide(&sandbox, PUBLIC, "idcard/check-2e", &body).json()["result"].as_str().unwrap().to_owned()
    };
    let id = "99010119610202001X";
    assert_eq!(ask("张伟", id, "20160202", "00000000"), "0");
    assert_eq!(ask("张伟", id, "20160202", "20360202"), "-1");
    assert_eq!(ask("张三", id, "20160202", "00000000"), "-1");
    assert_eq!(ask("李娜", "990101196304040035", "20160202", "00000000"), "-5", "not on file");
    assert_eq!(ask("张伟", id, "20161302", "00000000"), "-2", "no such day");
}

/// Whoever knows name and card must not get new guesses at the rest by asking for two elements in between.
#[test]
fn a_pass_of_two_elements_forgives_no_guess_at_four() {
    let sandbox = Sandbox::configured("[attempts]\nper_card = 0\nlock_after = 3\n");
    let card = "6217000000000000012";
    let guess = |phone: &str| {
        let reply =
            tencent("BankCard4EVerification", card, "张伟", "99010119610202001X", phone).send(&sandbox);
        reply.json()["Response"]["Result"].as_str().unwrap_or_default().to_owned()
    };
    for phone in ["16100000091", "16100000092", "16100000093"] {
        assert_eq!(guess(phone), "-6");
        let two = tencent("BankCard2EVerification", card, "张伟", "", "").send(&sandbox);
        assert_eq!(two.json()["Response"]["Result"], "0");
    }
    assert_eq!(guess("16100000001"), "-19", "locked, even for the right one");
}

#[test]
fn a_card_is_told_its_bank() {
    let sandbox = Sandbox::start();
    let ask = |card: &str| {
        let reply = tencent("CheckBankCardInformation", card, "", "", "").english().send(&sandbox);
        let response = reply.json()["Response"].take();
        (response["Result"].clone(), response["AccountBank"].clone(), response["AccountType"].clone())
    };
    let icbc = json!("Industrial and Commercial Bank of China");
    assert_eq!(ask("6222020000000000067"), (json!("0"), icbc.clone(), json!(1)));
    assert_eq!(ask("6222100000000007"), (json!("0"), icbc, json!(2)), "nobody's, and that is not told");
    assert_eq!(ask("6222020000000000068"), (json!("-3"), json!(""), json!(-1)), "a slip in the check digit");
    assert_eq!(ask("1234560000000000").0, json!("-1"));
    assert_eq!(ask("62").0, json!("-5"));
}

const PEOPLE: &str = "bank_card,name,id_type,id_number,phone,status,id_validity\n\
    6217000000000000012,张伟,,99010119610202001X,16100000001,,20160202-00000000\n";

/// Without the element index these actions are refused, in each wire's words; with it, and an import,
/// they are answered, also after a restart.
#[test]
fn the_element_index_is_the_operators_choice() {
    let bank = Installation::new(&[]);
    let file = bank.config.with_file_name("people.csv");
    std::fs::write(&file, PEOPLE).unwrap();
    bank.run(&["import", "accounts", file.to_str().unwrap()]);
    bank.run(&["caller", "create", "shop"]);
    let issued = bank.run(&["credential", "create", "shop", "--kind", "acedata"]);
    let token = issued["secret"].as_str().unwrap().to_owned();
    let people = json!({"name": "张伟", "mobile": "16100000001"});
    let ask = |server: &Sandbox| guide(server, &token, "phone/check-2e", &people);

    let server = Sandbox::serving(&bank.config);
    let two = json!({"name": "张伟", "bank_card": "6217000000000000012"});
    assert_eq!(guide(&server, &token, "bankcard/check-2e", &two).json()["result"], "0");
    let refused = ask(&server).json();
    assert_eq!(refused["error"]["code"], "token_mismatched", "a new caller gets what there is");
    bank.run(&["caller", "set", "shop", "--action", "bankcard-4e", "--action", "phone-2e"]);
    let refused = ask(&server).json();
    assert_eq!(refused["error"]["code"], "api_not_implemented");
    assert!(refused["error"]["message"].as_str().unwrap().contains("element_index"), "{refused}");
    assert_eq!(guide(&server, &token, "bankcard/check-2e", &two).json()["error"]["code"], "token_mismatched");
    server.stop();

    let settings = std::fs::read_to_string(&bank.config).unwrap();
    std::fs::write(&bank.config, settings.replace("element_index = false", "element_index = true")).unwrap();
    // Whoever forgets to import them again is told, by the server and by the doctor.
    let server = Sandbox::serving(&bank.config);
    assert_eq!(ask(&server).json()["result"], "-1", "as if there were no such account");
    assert!(server.log().contains("import them again"), "{}", server.log());
    server.stop();
    let doctor = |said: &str| {
        let done = card4e(&["doctor", "--json", "--config", bank.config.to_str().unwrap()]);
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.contains(said), "{text}");
    };
    doctor("of 1 looked at, 1 cannot be found by identity number or mobile");
    bank.run(&["import", "accounts", file.to_str().unwrap(), "--from-start"]);
    doctor(r#""what":"accounts","state":"ok""#);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(ask(&server).json()["result"], "0");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("action=\"phone-2e\",outcome=\"PASS\"} 1"), "{metrics}");
    server.stop();
    bank.run(&["keys", "rotate"]);
    let server = Sandbox::serving(&bank.config);
    assert_eq!(ask(&server).json()["result"], "0", "after a restart, under other keys");
    server.stop();
    let listed = Command::new(env!("CARGO_BIN_EXE_card4e"))
        .args(["ledger", "list", "--json", "--config", bank.config.to_str().unwrap()])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.matches("\"action\":\"phone-2e\"").count(), 3, "{listed}");
    assert_eq!(bank.run(&["accounts", "check"])["in_element_index"], 1);
}

/// One header asks for an outcome; what an action never answers is refused and not sent.
#[test]
fn an_outcome_of_another_action_is_refused() {
    let sandbox = Sandbox::start();
    let ask = |outcome: &str| {
        tencent("CheckPhoneAndName", "", "张伟", "", "16100000001")
            .english()
            .header("X-Sandbox-Outcome", outcome)
            .said(&sandbox)
    };
    assert!(ask("-13").contains("\"Result\":\"-13\""), "the action's own number: {}", ask("-13"));
    assert!(ask("NUMBER_RANGE").contains("\"Result\":\"-13\""));
    assert!(ask("CARD_LOST").contains("phone-2e never answers CARD_LOST"), "{}", ask("CARD_LOST"));
}

/// An operator's issuers: checked with the line of a mistake, and held against the built-in table.
#[test]
fn issuers_are_checked_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuers.csv");
    let header = "prefix,length,bank_zh,bank_en,kind,verifies,phone_checked\n";
    let run = |rows: &str, what: &[&str]| {
        std::fs::write(&file, format!("{header}{rows}")).unwrap();
        let arguments = [&["issuers"], what, &[file.to_str().unwrap()]].concat();
        let done = Command::new(env!("CARGO_BIN_EXE_card4e")).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let cmb = "622576,16,招商银行,China Merchants Bank,credit,true,true\n";
    let rows =
        &format!("{cmb}622202,19,某行,Some Bank,debit,false,true\n629999,,新行,New Bank,prepaid,true,true\n");
    let (code, said, _) = run(rows, &["check"]);
    assert_eq!(
        (code, said.contains("3 rows of 3 banks, 1 of them not verifying")),
        (Some(0), true),
        "{said}"
    );
    let (code, said, _) = run(rows, &["diff"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        said,
        "- 622202        19  Industrial and Commercial Bank of China debit (two public lists, confidence high)\n\
         + 622202        19  Some Bank debit, does not verify\n\
         + 629999       any  New Bank prepaid\n\
         \n3 rows: 1 as in the built-in table, 2 not\n"
    );
    let (_, said, _) = run(rows, &["diff", "--json"]);
    let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&first["built_in"]["kind"], &first["confidence"]), (&json!("debit"), &json!("high")));
    let (code, _, error) = run("622576,20,招商银行,B,credit,true,true\n", &["check"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("line 2: `length` is `20`; write 13 to 19"), "{error}");
}
