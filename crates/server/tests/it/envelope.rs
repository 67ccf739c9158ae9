//! What a client needs to encrypt, as the sandbox publishes it; and one that does.

use serde_json::Value;
use wire::Element;
use wire::envelope::{Algorithm, Opener};

use crate::support::Sandbox;

#[expect(dead_code, reason = "the wire's own tests use more of it")]
#[path = "../../../wire/tests/envelope/seal.rs"]
pub mod seal;

/// The keys every sandbox has.
pub fn opener() -> Opener {
    seal::opener()
}

/// An envelope for a sandbox, as base64.
pub struct Sealed {
    pub algorithm: Algorithm,
    pub blob: String,
    pub iv: String,
    pub elements: Vec<(Element, String)>,
    pub tags: Vec<String>,
}

/// Encrypts these elements; `seed` makes another data key and IV.
pub fn sealed(algorithm: Algorithm, seed: u8, elements: &[(Element, &[u8])]) -> Sealed {
    let made = seal::Made::new(algorithm, &opener(), &[seed; 32], &[seed ^ 0xff; 16], elements);
    Sealed {
        algorithm,
        blob: base64(&made.blob),
        iv: base64(&made.iv),
        elements: made.elements.iter().map(|(element, bytes)| (*element, base64(bytes))).collect(),
        tags: made.tags.iter().map(|tag| base64(tag)).collect(),
    }
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn the_keys_are_published() {
    let sandbox = Sandbox::start();
    let reply = sandbox.get("/encryption-keys");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let keys = reply.json();
    assert_eq!(keys, serde_json::to_value(opener().published()).unwrap());
    let text = |at: &str| keys.pointer(at).and_then(Value::as_str).unwrap();
    assert!(text("/rsa/spki_pem").starts_with("-----BEGIN PUBLIC KEY-----\nMIIBIjAN"));
    assert!(text("/rsa/pkcs1_pem").starts_with("-----BEGIN RSA PUBLIC KEY-----\nMIIBCgKCAQEA"));
    assert!(
        text("/sm2/spki_pem").starts_with("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0D")
    );
    assert_eq!(text("/rsa/node"), base64(text("/rsa/pkcs1_pem").as_bytes()));
    assert_eq!(text("/sm2/node"), base64(text("/sm2/spki_pem").as_bytes()));
}
