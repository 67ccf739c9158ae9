//! People on record: every state of a card, every kind of document and name.

use crate::support::Sandbox;

use super::client::{PASSED, answered, decision, elements, post, said};

const SEEDED: &str = include_str!("../../../src/sandbox/people.csv");

const MISMATCH: &str = "持卡人信息有误";

/// Everybody the sandbox knows, asked about as the record says.
#[test]
fn everybody_on_record() {
    let sandbox = Sandbox::start();
    let mut asked = 0;
    for line in SEEDED.lines().skip(1).filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split(',').take(6).collect();
        let [card, name, kind, id, phone, status] = columns.try_into().unwrap();
        let expected = match (status, kind) {
            ("seized", _) => answered(-8, "此卡被没收"),
            ("fraud", _) => answered(-12, "作弊卡、吞卡"),
            ("lost", _) => answered(-13, "此卡已挂失"),
            ("expired", _) => answered(-14, "该卡已过期"),
            ("restricted", _) => answered(-15, "受限制的卡"),
            ("pin_locked", _) => answered(-16, "密码错误次数超限"),
            ("inactive", _) => answered(-11, "该卡未初始化或睡眠卡"),
            ("cnp_disabled", _) => answered(-7, "未开通无卡支付"),
            ("abnormal", _) => answered(-21, "卡状态异常或卡号错误"),
            ("closed", _) => answered(-9, "无效卡号"),
            ("normal", "resident_id") if phone.is_empty() => answered(-6, MISMATCH),
            ("normal", "resident_id" | "residence_permit") => PASSED.to_owned(),
            // Nobody can be asked about by the number of another document.
            ("normal", _) => answered(-6, MISMATCH),
            other => panic!("{other:?}"),
        };
        let id = match id.len() {
            15 => "990101195001014011",
            _ if kind.starts_with("resid") => id,
            _ => "99010119610202001X",
        };
        let phone = if phone.is_empty() { "16100000035" } else { phone };
        assert_eq!(post(elements(name, card, phone, id)).said(&sandbox), expected, "{line}");
        asked += 1;
    }
    assert_eq!(sandbox.charges(), asked, "every one of these codes is charged");
}

/// Whoever asks is not told which element differs; whoever tests is.
#[test]
fn one_element_differs() {
    let sandbox = Sandbox::start();
    let (name, card, phone, id) = ("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    for (body, differs) in [
        (elements("张芳", card, phone, id), "name"),
        (elements(name, card, phone, "990101196203030022"), "id"),
        (elements(name, card, "16100000002", id), "mobile"),
        (elements("王芳", card, "16100000002", "990101196203030022"), "name,id,mobile"),
    ] {
        let reply = post(body).send(&sandbox);
        assert_eq!(said(&reply), answered(-6, MISMATCH));
        let expected = format!("row=23 outcome=HOLDER_MISMATCH by=records differs={differs}");
        assert_eq!(decision(&reply), expected);
    }
}

#[test]
fn unionpays_public_test_cards() {
    let sandbox = Sandbox::start();
    for card in ["6216261000000000018", "6221558812340000"] {
        let body = elements("胡印福", card, "13552535506", "341126197709218366");
        assert_eq!(post(body).said(&sandbox), PASSED, "{card}");
    }
}

/// Blanks, hyphens and full-width digits of a card number, a small `x`; but no country code.
#[test]
fn elements_as_people_type_them() {
    let sandbox = Sandbox::start();
    for (name, card, phone, id) in [
        (" 张伟 ", " 6217000000000000012", "16100000001 ", " 99010119610202001X "),
        ("张 伟", "6217 0000 0000 0000 012", "16100000001", "99010119610202001x"),
        ("张伟", "6217-0000-0000-0000-012", "16100000001", "99010119610202001X"),
        (
            "张\u{200B}伟",
            "６２１７０００００００００００００１２",
            "16100000001",
            "９９０１０１１９６１０２０２００１Ｘ",
        ),
    ] {
        let body = elements(name, card, phone, id);
        assert_eq!(post(body.clone()).said(&sandbox), PASSED, "{body}");
    }
}

/// Banks write the dot in a name in many ways and leave it out; all are the same name.
#[test]
fn dots_in_names() {
    let sandbox = Sandbox::start();
    let people = [
        ("6210960000000000163", "16100000016", "990101197605170161"), // on record with U+00B7
        ("6210960000000000171", "16100000017", "990101197706180174"), // with U+2022
        ("6210960000000000189", "16100000018", "990101197807190187"), // with U+FF0E
        ("6210960000000000197", "16100000019", "990101197908200196"), // with U+30FB
    ];
    for (card, phone, id) in people {
        for dot in ["·", "•", "．", "・", ".", "。", "‧", "･", ""] {
            let name = format!("买买提{dot}艾力");
            assert_eq!(post(elements(&name, card, phone, id)).said(&sandbox), PASSED, "{card} {name}");
        }
        let other = post(elements("买买提·艾山", card, phone, id)).said(&sandbox);
        assert_eq!(other, answered(-6, MISMATCH));
    }
}

/// Characters beyond the sixteen-bit ones are others than those that look like them.
#[test]
fn rare_characters() {
    let sandbox = Sandbox::start();
    let ask = |name: &str| post(elements(name, "6216690000000000225", "16100000022", "990101198211230226"));
    assert_eq!(ask("李𠅤").said(&sandbox), PASSED);
    assert_eq!(ask("李亮").said(&sandbox), answered(-6, MISMATCH));
    // The same in JSON's escapes, as Python sends it.
    let escaped = r#"{"Name":"\u674e\ud840\udd64","BankCard":"6216690000000000225","Phone":"16100000022","IdCard":"990101198211230226"}"#;
    assert_eq!(post(escaped).said(&sandbox), PASSED);
}

#[test]
fn latin_names() {
    let sandbox = Sandbox::start();
    for (name, expected) in [
        ("Wei Lan", PASSED.to_owned()),
        ("WEI LAN", PASSED.to_owned()),
        ("Ｗｅｉ　 Ｌａｎ", PASSED.to_owned()),
        ("WeiLan", PASSED.to_owned()),
        // A pinyin spelling is not the Han name, nor the other way round.
        ("魏兰", answered(-6, MISMATCH)),
        ("Lan Wei", answered(-6, MISMATCH)),
    ] {
        let body = elements(name, "6226900000000279", "16100000027", "990101198704280272");
        assert_eq!(post(body).said(&sandbox), expected, "{name}");
    }
    for name in ["O'NEIL ANN-MARIE", "o’neil ann‐marie"] {
        let body = elements(name, "6226900000000287", "16100000028", "99010119880501028X");
        assert_eq!(post(body).said(&sandbox), PASSED, "{name}");
    }
}

/// An old record has 15 digits; who is asked about gives the 18 of today.
#[test]
fn a_first_generation_number_on_record() {
    let sandbox = Sandbox::start();
    let ask = |id: &str| post(elements("郭老", "6227000000000000342", "16100000034", id)).send(&sandbox);
    let passed = ask("990101195001014011");
    assert_eq!((said(&passed).as_str(), decision(&passed)), (PASSED, "row=25 outcome=PASS by=records"));
    assert_eq!(said(&ask("990101500101401")), answered(-20, "该证件号暂不支持核验，当前仅支持二代身份证"));
}

#[test]
fn an_account_opened_with_a_passport() {
    let sandbox = Sandbox::start();
    let body = elements("SMITH JOHN", "6225880000000316", "16100000031", "99010119610202001X");
    let reply = post(body).send(&sandbox);
    assert_eq!(said(&reply), answered(-6, MISMATCH));
    assert!(decision(&reply).starts_with("row=20 outcome=HOLDER_MISMATCH by=records"));
    let body = elements("SMITH JOHN", "6225880000000316", "16100000031", "E12345678");
    assert_eq!(post(body).said(&sandbox), answered(-20, "该证件号暂不支持核验，当前仅支持二代身份证"));
}

#[test]
fn an_account_without_a_phone() {
    let sandbox = Sandbox::start();
    let reply =
        post(elements("钱无", "6226600000000358", "16100000035", "990101199512080350")).send(&sandbox);
    assert_eq!(said(&reply), answered(-6, MISMATCH));
    assert!(decision(&reply).starts_with("row=21 outcome=HOLDER_MISMATCH by=records"));
}

/// The state of a card is told before its holder is looked at.
#[test]
fn a_lost_card_is_lost_whoever_asks() {
    let sandbox = Sandbox::start();
    let reply =
        post(elements("张伟", "6222020000000000083", "16100000001", "99010119610202001X")).send(&sandbox);
    assert_eq!(said(&reply), answered(-13, "此卡已挂失"));
    assert_eq!(decision(&reply), "row=13 outcome=CARD_LOST by=records differs=name,id,mobile");
}

#[test]
fn an_account_nobody_has() {
    let sandbox = Sandbox::start();
    let body = elements("张伟", "6217000000000000020", "16100000001", "99010119610202001X");
    let reply = post(body.clone()).send(&sandbox);
    assert_eq!(said(&reply), answered(-9, "无效卡号"));
    assert_eq!(decision(&reply), "row=10 outcome=PAN_INVALID by=records");
    // Until somebody has it.
    let account = r#"{"bank_card":"6217000000000000020","name":"张伟","id_number":"99010119610202001X","phone":"16100000001"}"#;
    assert_eq!(sandbox.control("POST", "accounts", account)["added"], 1);
    assert_eq!(post(body.clone()).said(&sandbox), PASSED);
    sandbox.control("POST", "reset", "");
    assert_eq!(post(body).said(&sandbox), answered(-9, "无效卡号"));
}
