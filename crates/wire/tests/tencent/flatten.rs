//! Nested members as flat parameters.

use serde_json::{Value, json};
use wire::tencent::flatten::{flatten, pairs, unflatten};

fn nested(raw: &str) -> Result<Value, String> {
    let pairs = pairs(raw).map_err(|fault| crate::support::refusal(&fault))?;
    unflatten(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
        .map(Value::Object)
        .map_err(|fault| crate::support::refusal(&fault))
}

#[test]
fn lists_are_rebuilt_by_index() {
    // Java sends parameters in hash order, and ten sorts before two.
    let raw = "E.L.10=k&E.L.2=c&E.L.0=a&Name=%E9%9F%A6&E.L.1=b&E.Iv=";
    let expected = json!({"Name": "韦", "E": {"L": ["a", "b", "c", "k"], "Iv": ""}});
    assert_eq!(nested(raw), Ok(expected));
    let raw = "Filters.0.Name=zone&Filters.0.Values.0=a&Filters.1.Name=b";
    let expected = json!({"Filters": [{"Name": "zone", "Values": ["a"]}, {"Name": "b"}]});
    assert_eq!(nested(raw), Ok(expected));
}

#[test]
fn spellings() {
    assert_eq!(nested(""), Ok(json!({})));
    assert_eq!(nested("&&A&B=&C=d=e&"), Ok(json!({"A": "", "B": "", "C": "d=e"})));
    assert_eq!(nested("A=x+y%20z%2B%zz"), Ok(json!({"A": "x y z+%zz"})));
    // PHP's own brackets are just an odd name, an index with a zero in front as well.
    assert_eq!(nested("E%5BL%5D%5B0%5D=N&F.01=x"), Ok(json!({"E[L][0]": "N", "F": {"01": "x"}})));
}

#[test]
fn contradictions() {
    for (raw, refused) in [
        ("A=1&A.B=2", "Parameter `A.B` is both a value and a structure."),
        ("A.B=2&A=1", "Parameter `A` is both a value and a structure."),
        ("A=1&A=1", "Parameter `A` is given twice."),
        ("A.0=1&A.0=2", "Parameter `A.0` is given twice."),
        ("A.0=1&A.B=2", "Parameter `A` is both a list and a structure."),
        ("A.=1", "Parameter `A.` has an empty level."),
        (".A=1", "Parameter `.A` has an empty level."),
        ("=1", "Parameter `` has an empty level."),
        ("A..B=1", "Parameter `A..B` has an empty level."),
        ("A.B.C.D.E.F.G.H.I=1", "Parameter `A.B.C.D.E.F.G.H.I` has too many levels."),
        ("A.1024=1", "Parameter `A` has too large an index."),
        ("A.99999999999999999999999=1", "Parameter `A` has too large an index."),
    ] {
        assert_eq!(nested(raw), Err(format!("InvalidParameter: {refused}")));
    }
    let many: Vec<_> = (0..1025).map(|n| format!("A{n}=")).collect();
    assert_eq!(
        nested(&many.join("&")),
        Err("InvalidParameter: The request has more than `1024` parameters.".to_owned())
    );
}

#[test]
fn what_disappears() {
    let members = json!({
        "Name": "韦小宝", "CertType": 0, "Strict": true, "Nothing": null,
        "Encryption": {"EncryptList": ["Name", "IdCard"], "TagList": [], "Iv": null},
    });
    let flat = flatten(members.as_object().unwrap());
    let flat: Vec<_> = flat.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        flat,
        [
            "CertType=0",
            "Encryption.EncryptList.0=Name",
            "Encryption.EncryptList.1=IdCard",
            "Name=韦小宝",
            "Strict=true",
        ]
    );
}
