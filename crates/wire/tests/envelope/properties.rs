//! Whatever is sealed opens to the same; every live key opens; nothing wrong is read.

use proptest::prelude::*;
use wire::Element;
use wire::envelope::{Algorithm, BadKey, CannotOpen, Opener};

use crate::seal::{Made, RSA, SM2, opener};

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::Aes256Cbc), Just(Algorithm::Sm4Gcm)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens(
        algorithm in algorithm(),
        key: [u8; 32],
        iv: [u8; 16],
        order in Just(Element::ALL.to_vec()).prop_shuffle(),
        // A `·` alone could be 路 in GBK, and is read so.
        texts in prop::collection::vec("[0-9]{0,19}|[a-zA-Z\u{4e00}-\u{9fa5}][a-zA-Z0-9\u{4e00}-\u{9fa5}·]{0,40}", 1..=4),
    ) {
        let opener = opener();
        let elements: Vec<_> = order.iter().zip(&texts).map(|(element, text)| (*element, text.as_bytes())).collect();
        let opened = Made::new(algorithm, &opener, &key, &iv, &elements).open(&opener).unwrap();
        for (element, text) in order.iter().zip(&texts) {
            prop_assert_eq!(opened.or(*element, "plain"), text);
        }
        for element in &order[texts.len()..] {
            prop_assert_eq!(opened.or(*element, "plain"), "plain");
        }
        prop_assert!(!opened.was_gbk());
    }

    #[test]
    fn nothing_panics(
        algorithm in algorithm(),
        blob in prop::collection::vec(any::<u8>(), 0..300),
        iv in prop::collection::vec(any::<u8>(), 0..20),
        sealed in prop::collection::vec(any::<u8>(), 0..40),
        tags in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3),
    ) {
        let made = Made { algorithm, blob, iv, elements: vec![(Element::Name, sealed)], tags };
        prop_assert!(made.open(&opener()).is_err());
    }
}

/// Another pair of keys.
const OTHER_SM2: &str = include_str!("other-sm2-key.pem");
const OTHER_RSA: &str = include_str!("other-rsa-key.pem");

#[test]
fn old_keys_open_while_they_are_live() {
    let (before, after) = (opener(), Opener::new(&[OTHER_RSA, RSA], &[OTHER_SM2, SM2]).unwrap());
    let retired = Opener::new(&[OTHER_RSA], &[OTHER_SM2]).unwrap();
    assert_eq!(after.published(), retired.published(), "the newest is the one to encrypt for");
    for algorithm in Algorithm::ALL {
        let made =
            |to: &Opener| Made::new(algorithm, to, &[7; 32], &[9; 16], &[(Element::Name, "张伟".as_bytes())]);
        let (old, new) = (made(&before), made(&after));
        assert_eq!(old.open(&after).unwrap().or(Element::Name, ""), "张伟");
        assert_eq!(new.open(&after).unwrap().or(Element::Name, ""), "张伟");
        assert_eq!(new.open(&retired).unwrap().or(Element::Name, ""), "张伟");
        assert_eq!(old.open(&retired).unwrap_err(), CannotOpen::Failed);
        assert_eq!(new.open(&before).unwrap_err(), CannotOpen::Failed);
    }
}

#[test]
fn keys_that_are_not_taken() {
    let refusal = |rsa: &[&str], sm2: &[&str]| Opener::new(rsa, sm2).unwrap_err();
    assert_eq!(refusal(&[], &[SM2]), BadKey::Number);
    assert_eq!(refusal(&[RSA; 5], &[SM2]), BadKey::Number);
    assert_eq!(refusal(&[RSA], &[]), BadKey::Number);
    assert_eq!(refusal(&[SM2], &[SM2]), BadKey::NotRsa);
    assert_eq!(refusal(&[RSA], &[RSA]), BadKey::NotSm2);
    assert_eq!(refusal(&["key"], &[SM2]), BadKey::NotPkcs8);
    let shown = format!("{:?}", opener());
    assert_eq!(shown, "Opener { rsa: 1, sm2: 1, .. }", "keys do not print");
}

fn opened(text: &[u8]) -> Option<(String, bool)> {
    let opener = opener();
    let made = Made::new(Algorithm::Sm4Gcm, &opener, &[1; 32], &[2; 16], &[(Element::Name, text)]);
    let opened = made.open(&opener).ok()?;
    Some((opened.or(Element::Name, "").to_owned(), opened.was_gbk()))
}

/// Tencent's Java helper before v1.0.4 encrypted what the platform's charset made of a name.
#[test]
fn names_in_gbk() {
    let gbk = |text: &str| encoding_rs::GBK.encode(text).0.into_owned();
    for name in ["张伟", "爱新觉罗永琪", "买买提·吐尔逊", "王A"] {
        assert_eq!(opened(&gbk(name)), Some((name.to_owned(), true)), "{name}");
        assert_eq!(opened(name.as_bytes()), Some((name.to_owned(), false)), "{name}");
    }
    // Valid UTF-8 too, of two letters no name here has: the GBK reading is the likely one.
    let both = gbk("隆露");
    assert!(std::str::from_utf8(&both).is_ok());
    assert_eq!(opened(&both), Some(("隆露".to_owned(), true)));
    // What cannot be GBK with only Han stays what it is.
    for text in ["", "13800000000", "Wei Xiaobao", "é1", " 韦小宝 "] {
        assert_eq!(opened(text.as_bytes()), Some((text.trim_ascii().to_owned(), false)), "{text}");
    }
    assert_eq!(opened(b"\xff\xff"), None, "neither");
}
