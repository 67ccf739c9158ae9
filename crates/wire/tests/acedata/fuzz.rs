//! Whatever is sent, there is an answer, and whatever is answered, it is JSON.

use proptest::prelude::*;
use serde_json::{Value, json};
use wire::Language;
use wire::acedata::code::CheckCode;
use wire::acedata::{Accept, Check, Endpoint, ErrorCode, Extra, FOUR_ELEMENTS, Fault, failure, success};

/// JSON with the wire's own member names in likely and unlikely places.
fn almost_a_body() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "name",
        "bank_card",
        "phone",
        "id_card",
        "cert_type",
        "encryption",
        "encrypt_list",
        "algorithm",
        "mobile",
        "iv",
        "ciphertext_blob",
        "verify_mode",
        "validity_begin",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        name.clone().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|members| members.into_iter().collect()),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #[test]
    fn read_never_panics_on_bytes(body: Vec<u8>) {
        let _ = Check::read(&FOUR_ELEMENTS, &body);
    }

    #[test]
    fn read_never_panics_on_json(body in almost_a_body(), cut in 0_usize..64) {
        for endpoint in Endpoint::ALL {
            let _ = Check::read(endpoint.takes(), body.as_bytes()).map(|check| check.envelope());
        }
        let _ = Check::read(&FOUR_ELEMENTS, &body.as_bytes()[..cut.min(body.len())]);
    }

    #[test]
    fn elements_come_through(name: String, bank_card: String, phone: String, id_card: String) {
        let body = json!({"name": name, "bank_card": bank_card, "phone": phone, "id_card": id_card});
        let body = body.to_string();
        let call = Check::read(&FOUR_ELEMENTS, body.as_bytes()).unwrap();
        prop_assert_eq!(call.name, name.trim_ascii());
        prop_assert_eq!(call.bank_card, bank_card.trim_ascii());
        prop_assert_eq!(call.phone, phone.trim_ascii());
        prop_assert_eq!(call.id_card, id_card.trim_ascii());
    }

    #[test]
    fn success_is_json(bank: String, kind: i64, code in prop::sample::select(CheckCode::ALL.to_vec())) {
        let extra = Extra::Card { account_bank: &bank, account_type: kind };
        let body = success(code.row(), Language::English, extra, Accept::Ndjson);
        prop_assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&body).unwrap();
        let description = code.text(Language::English);
        prop_assert_eq!(
            read,
            json!({"result": code.number().to_string(), "description": description, "account_bank": bank,
                "account_type": kind})
        );
    }

    #[test]
    fn failure_is_json(code in prop::sample::select(ErrorCode::ALL.to_vec()), message: String, trace_id: String) {
        let body = failure(&Fault::with_message(code, message.clone()), &trace_id);
        let mut read: Value = serde_json::from_slice(&body).unwrap();
        let success = read.as_object_mut().unwrap().remove("success");
        prop_assert_eq!(success, code.behind_gateway().then_some(Value::Bool(false)));
        prop_assert_eq!(
            read,
            json!({"error": {"code": code.as_str(), "message": message}, "trace_id": trace_id})
        );
    }
}
