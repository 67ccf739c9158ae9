//! How a settings file changes what is answered.

use crate::support::Sandbox;

use super::client::{PASSED, answered, decision, elements, post, said};

const MISMATCH: &str = "持卡人信息有误";

/// By default a card's state is told to anybody; in this order only to who knows its holder.
#[test]
fn privacy_order() {
    let sandbox = Sandbox::configured("[policy]\nprivacy_order = true\n");
    let lost = "6222020000000000083";
    let of_its_holder = post(elements("吴三", lost, "16100000008", "990101196809090089"));
    assert_eq!(of_its_holder.said(&sandbox), answered(-13, "此卡已挂失"));
    let of_another = post(elements("张伟", lost, "16100000001", "99010119610202001X")).send(&sandbox);
    assert_eq!(said(&of_another), answered(-6, MISMATCH));
    assert_eq!(decision(&of_another), "row=23 outcome=HOLDER_MISMATCH by=records differs=name,id,mobile");

    // A card that does not exist, or not any more, looks like any other mismatch; even to its holder.
    let nobodys = post(elements("张伟", "6217000000000000020", "16100000001", "99010119610202001X"));
    assert_eq!(nobodys.said(&sandbox), answered(-6, MISMATCH));
    let closed = post(elements("沈十", "6222020000000000158", "16100000015", "990101197504160159"));
    assert_eq!(closed.said(&sandbox), answered(-6, MISMATCH));

    let open = post(elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X"));
    assert_eq!(open.said(&sandbox), PASSED);
}

/// 6299… is in no list of issuers.
#[test]
fn an_unknown_prefix_is_the_sources_question() {
    let sandbox = Sandbox::start();
    let reply =
        post(elements("张伟", "6299000000000000018", "16100000001", "99010119610202001X")).send(&sandbox);
    assert_eq!(said(&reply), answered(-9, "无效卡号"));
    assert_eq!(decision(&reply), "row=10 outcome=PAN_INVALID by=records");
}

#[test]
fn an_unknown_prefix_may_be_an_unknown_issuer() {
    let sandbox = Sandbox::configured("[policy]\nissuer = \"issuer_unknown\"\n");
    let body = elements("张伟", "6299000000000000018", "16100000001", "99010119610202001X");
    let reply = post(body.clone()).send(&sandbox);
    assert_eq!(said(&reply), answered(-10, "此卡无对应发卡行"));
    assert_eq!(decision(&reply), "row=7 outcome=ISSUER_UNKNOWN by=records");
    // A known prefix, and a card on record whatever its prefix, are not affected.
    let known = post(elements("张伟", "6217000000000000020", "16100000001", "99010119610202001X"));
    assert_eq!(known.said(&sandbox), answered(-9, "无效卡号"));
    let account = r#"{"bank_card":"6299000000000000018","name":"张伟","id_number":"99010119610202001X","phone":"16100000001"}"#;
    sandbox.control("POST", "accounts", account);
    assert_eq!(post(body).said(&sandbox), PASSED);
}

/// The operator knows better which bank takes part, and which can compare a mobile number.
#[test]
fn the_operators_issuers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuers.csv");
    let rows = "prefix,length,bank_zh,bank_en,kind,verifies,phone_checked\n\
                621700,19,中国建设银行,China Construction Bank,debit,false,true\n\
                622848,,中国农业银行,Agricultural Bank of China,debit,true,false\n";
    std::fs::write(&file, rows).unwrap();
    let sandbox = Sandbox::configured(&format!("[policy]\nissuers_file = {:?}\n", file.to_str().unwrap()));
    let unsupported = answered(-17, "发卡行不支持此交易");

    let takes_no_part = post(elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X"));
    let reply = takes_no_part.send(&sandbox);
    assert_eq!(said(&reply), unsupported);
    assert!(decision(&reply).starts_with("row=8 outcome=ISSUER_UNSUPPORTED"), "{}", decision(&reply));

    // Never silently three elements instead of four.
    let no_mobile = post(elements("王芳", "6228480000000000026", "16100000002", "990101196203030022"));
    let reply = no_mobile.send(&sandbox);
    assert_eq!(said(&reply), unsupported);
    assert!(decision(&reply).starts_with("row=22 outcome=PHONE_UNCHECKABLE"), "{}", decision(&reply));

    let untouched = post(elements("李娜", "6216610000000000032", "16100000003", "990101196304040035"));
    assert_eq!(untouched.said(&sandbox), PASSED);
}

#[test]
fn names_in_more_scripts() {
    let body = elements("Иванов", "6217000000000000012", "16100000001", "99010119610202001X");
    let strict = Sandbox::start();
    assert_eq!(post(body.clone()).said(&strict), answered(-2, "姓名校验不通过"));
    let open = Sandbox::configured("[policy]\nmore_scripts = true\n");
    assert_eq!(post(body).said(&open), answered(-6, MISMATCH));
}

#[test]
fn the_price() {
    let sandbox = Sandbox::configured("[policy]\nprice = \"0.057\"\n");
    let body = elements("张伟", "6217000000000000012", "16100000001", "99010119610202001X");
    assert_eq!(post(body.clone()).said(&sandbox), PASSED);
    assert_eq!(post(body).key(super::client::key_of("Trial")).said(&sandbox), PASSED);
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!(ledger["charged_credits"], "0.114");
    assert_eq!(ledger["balances"]["trial"], "9.943");
}
