//! One byte changed, of each kind there is: the envelope does not open, whichever it was.

use wire::Element;
use wire::envelope::{Algorithm, CannotOpen};

use crate::seal::{Made, opener, rsa_wrapped};

const NAME: &str = "爱新觉罗永琪";
const CARD: &str = "6225768888888888";

fn made(algorithm: Algorithm) -> Made {
    let elements = [(Element::Name, NAME.as_bytes()), (Element::BankCard, CARD.as_bytes())];
    Made::new(algorithm, &opener(), b"0123456789abcdefghijklmnopqrstuv", b"ABCDEFGHIJKLMNOP", &elements)
}

fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 0x40;
    changed
}

#[test]
fn each_byte_of_an_sm4_envelope() {
    let (opener, made) = (opener(), made(Algorithm::Sm4Gcm));
    assert!(made.open(&opener).is_ok());
    let refused = |tampered: Made, what: &str, at: usize| {
        assert_eq!(tampered.open(&opener).unwrap_err(), CannotOpen::Failed, "{what} {at}");
    };
    for at in 0..made.blob.len() {
        refused(Made { blob: changed(&made.blob, at), ..made.clone() }, "blob", at);
    }
    for at in 0..made.iv.len() {
        refused(Made { iv: changed(&made.iv, at), ..made.clone() }, "nonce", at);
    }
    for element in 0..2 {
        for at in 0..made.elements[element].1.len() {
            let mut tampered = made.clone();
            tampered.elements[element].1 = changed(&made.elements[element].1, at);
            refused(tampered, "ciphertext", at);
        }
        for at in 0..16 {
            let mut tampered = made.clone();
            tampered.tags[element] = changed(&made.tags[element], at);
            refused(tampered, "tag", at);
        }
    }
    let mut swapped = made.clone();
    swapped.tags.swap(0, 1);
    refused(swapped, "tags swapped", 0);
}

/// CBC has no tag: where nothing can be noticed, another text comes out, never the same one.
#[test]
fn each_byte_of_an_aes_envelope() {
    let (opener, made) = (opener(), made(Algorithm::Aes256Cbc));
    assert!(made.open(&opener).is_ok());
    let changes = |tampered: Made, what: &str, at: usize| {
        let Ok(opened) = tampered.open(&opener) else { return false };
        let same = opened.or(Element::Name, "") == NAME && opened.or(Element::BankCard, "") == CARD;
        assert!(!same, "{what} {at}");
        true
    };
    let blobs = (0..made.blob.len())
        .filter(|at| changes(Made { blob: changed(&made.blob, *at), ..made.clone() }, "blob", *at));
    // A substitute key makes a padding of one element in 256, of two in 65536.
    assert_eq!(blobs.count(), 0);
    for at in 0..16 {
        changes(Made { iv: changed(&made.iv, at), ..made.clone() }, "iv", at);
    }
    for element in 0..2 {
        for at in 0..made.elements[element].1.len() {
            let mut tampered = made.clone();
            tampered.elements[element].1 = changed(&made.elements[element].1, at);
            changes(tampered, "ciphertext", at);
        }
    }
}

#[test]
fn lengths_that_cannot_be() {
    let opener = opener();
    for algorithm in Algorithm::ALL {
        let made = made(algorithm);
        let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
        let grown = |bytes: &[u8]| [bytes, &[0]].concat();
        let mut wrong = Vec::new();
        for other in [cut, grown] {
            wrong.push(Made { blob: other(&made.blob), ..made.clone() });
            wrong.push(Made { iv: other(&made.iv), ..made.clone() });
            let mut element = made.clone();
            element.elements[0].1 = other(&made.elements[0].1);
            wrong.push(element);
        }
        wrong.push(Made { blob: Vec::new(), ..made.clone() });
        wrong.push(Made { iv: Vec::new(), ..made.clone() });
        wrong.push(Made { blob: vec![1; 513], ..made.clone() });
        let mut long = made.clone();
        long.elements[0].1 = vec![0; 1040];
        wrong.push(long);
        if algorithm == Algorithm::Sm4Gcm {
            wrong.push(Made { tags: made.tags[..1].to_vec(), ..made.clone() });
            wrong.push(Made { tags: [&made.tags[..], &made.tags[..1]].concat(), ..made.clone() });
        }
        for tampered in wrong {
            assert_eq!(tampered.open(&opener).unwrap_err(), CannotOpen::Failed, "{tampered:?}");
        }
    }
}

/// What is wrapped must be a data key: 32 bytes, no more and no fewer.
#[test]
fn wrapped_keys_of_another_length() {
    let opener = opener();
    for len in [0, 1, 16, 31, 33, 200] {
        let blob = rsa_wrapped(&opener, &vec![b'k'; len]);
        let tampered = Made { blob, ..made(Algorithm::Aes256Cbc) };
        assert_eq!(tampered.open(&opener).unwrap_err(), CannotOpen::Failed, "{len}");
    }
}

/// A blob that holds no key gives the same stand-in each time: were it another each time, sending a
/// request again would show that its padding was wrong.
#[test]
fn what_cannot_be_unwrapped_stays_the_same() {
    let one = made(Algorithm::Aes256Cbc);
    let blob = changed(&one.blob, 100);
    // With some element the stand-in's padding happens to fit; whichever that is, it fits always.
    let outcomes = || -> Vec<bool> {
        let fits = |last: u8| {
            let mut sealed = [0; 32];
            sealed[15] = last;
            let elements = vec![(Element::Name, sealed.to_vec())];
            Made { blob: blob.clone(), elements, ..one.clone() }.open(&opener()).is_ok()
        };
        (0..=255).map(fits).collect()
    };
    assert_eq!(outcomes(), outcomes());
}
