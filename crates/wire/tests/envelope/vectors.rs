//! The vectors of the helpers' own documentation, and a whole envelope of Tencent's Java helper.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wire::Element;
use wire::envelope::{Algorithm, Envelope, Opener, Parts};

use crate::seal::{RSA, rsa_wrapped, sm2_wrapped};

/// The SM2 key the Java helper's envelope was made for, a sample key known to everybody.
const SAMPLE_SM2: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqBHM9VAYItBG0wawIBAQQgb8ui75rgq5Arw73j
/5FdRLpMx4+I4vjn+JltO4zO7e6hRANCAAQm8fPvEieF0X04cMJDRlA2P99LL0UO
jtG2D9wfxvAZq9kZi9vvpYR27IIlEluM4+EKEA3Gl2zBidltpoievNN6
-----END PRIVATE KEY-----
";

fn opener() -> Opener {
    Opener::new(&[RSA], &[SAMPLE_SM2]).unwrap()
}

#[test]
fn an_envelope_of_the_java_helper() {
    let parts = Parts {
        algorithm: Algorithm::Sm4Gcm,
        ciphertext_blob: "BAaFi20fKqn/7sIINaLmjrTtEbqpHRC9PJKFbl3V5KlJoGty9qydYZsIgv1JJxl2rgjzQyAdjjilw+z2e2GhNTmTJkF1QTYaR8/pyZyy4cTO8WU+Kp0B8Bj17fJ6LTYMKm6vLhtzXdxxm1nIlPqQ/xU=",
        iv: "trDuio5jplvxDCwD",
        listed: &[
            (Element::Phone, "/j0eRATvjThIgFg="),
            (Element::IdCard, "+zoWRQXujDlJgVmeeMVmtDKY"),
            (Element::BankCard, "+TwUQQPphTBAiFCXccxvvQ=="),
            (Element::Name, "KIaXkqJvVa/xV9U4r0TvYpMD"),
        ],
        tags: &[
            "Rb5zCTc9NM3HYe7LNrOlSQ==",
            "YORDPWENodmNQcQ32OB+Kg==",
            "qO6uoU+GDxr5TFEux8c2hQ==",
            "a93XhRhuNAu80kcDQlaPUw==",
        ],
    };
    let opener = opener();
    let open = |parts: Parts<'_>| {
        let envelope = Envelope::read(parts).unwrap();
        envelope.open(&opener.unwrap(envelope.wrapped_key()))
    };
    let opened = open(parts).unwrap();
    assert_eq!(opened.or(Element::Name, ""), "爱新觉罗永琪");
    assert_eq!(opened.or(Element::IdCard, ""), "440111111111111111");
    assert_eq!(opened.or(Element::BankCard, ""), "6225768888888888");
    assert_eq!(opened.or(Element::Phone, ""), "13800000000");
    assert!(!opened.was_gbk());

    // Some implementations leave out the 4 before the point.
    let short = STANDARD.encode(&STANDARD.decode(parts.ciphertext_blob).unwrap()[1..]);
    assert!(open(Parts { ciphertext_blob: &short, ..parts }).is_ok());
    // Others break the lines of their base64.
    let broken = format!("{}\r\n{}\n", &parts.ciphertext_blob[..76], &parts.ciphertext_blob[76..]);
    assert!(open(Parts { ciphertext_blob: &broken, ..parts }).is_ok());
}

/// The helpers' documentation gives data keys and ciphertext; the wrapping is ours.
#[test]
fn elements_of_the_helpers_documentation() {
    let opener = opener();
    let open = |parts: Parts<'_>| {
        let envelope = Envelope::read(parts).unwrap();
        let opened = envelope.open(&opener.unwrap(envelope.wrapped_key())).unwrap();
        assert_eq!(opened.or(Element::IdCard, ""), "440111111111111111");
        assert_eq!(opened.or(Element::Name, ""), "爱新觉罗永琪");
        assert_eq!(opened.or(Element::Phone, "13800000000"), "13800000000", "not encrypted, not changed");
    };
    let aes_key = STANDARD.decode("XJKXDwFwoYHoORb/g1ReMJ+POptUa7Ax4R+CRI0GLgU=").unwrap();
    open(Parts {
        algorithm: Algorithm::Aes256Cbc,
        ciphertext_blob: &STANDARD.encode(rsa_wrapped(&opener, &aes_key)),
        iv: "vTjCqg1Xz6Lh0pJZCNjAAQ==",
        listed: &[
            (Element::IdCard, "8TEJyC4YWALmK5U9cw+R+1Rvs4LuNRAAm8LQkwrJEa4="),
            (Element::Name, "QR3meQHDzArXCIuJIyETLzRtOjg0vjRxcYdKQTOE7vw="),
        ],
        tags: &[],
    });
    let sm4_key = STANDARD.decode("t/dlVGSD3hMbSG21ocAylQ==").unwrap();
    open(Parts {
        algorithm: Algorithm::Sm4Gcm,
        ciphertext_blob: &STANDARD.encode(sm2_wrapped(&opener, sm4_key.as_slice().try_into().unwrap(), 7)),
        iv: "cHNm8k09p2d80owr",
        listed: &[(Element::IdCard, "oUfaRWLLjR9MclkyFF68M7Ot"), (Element::Name, "cvtbksVKVIn0pNWUw9815RI2")],
        tags: &["meBiloynTRhQtOtLR2xccQ==", "Anrq6V9s4jwBg+/mxW9Zeg=="],
    });
}
