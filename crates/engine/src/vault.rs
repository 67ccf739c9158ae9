//! Keys, and everything that is done with them: blind index, verifiers, sealing, signing.
//!
//! No plaintext element is ever stored. An account is found by a *blind index* of its card number
//! and compared by *verifiers* of its other elements; both are AES-256-CMAC (PCI DSS 4.0.1,
//! 3.5.1.1 names CMAC for keyed hashes of card numbers) under an inner key, bound to the field and
//! the card, then wrapped by one AES block under a versioned key of that column, so that a wrap key
//! can be replaced without any plaintext. The root key seals all others; nothing is derived from it.

mod cmac;
mod ring;

pub use cmac::Cmac;
pub use ring::{KeyRing, KeyUse, RingError};

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::Rng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// Where an account of record is found: keyed, so that the table alone tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct BlindIndex(pub [u8; 16]);

/// A keyed value of one element, bound to its card; compared in constant time only.
#[derive(Clone, Copy, Debug)]
pub struct Verifier(pub [u8; 16]);

impl Verifier {
    /// Whether both are of the same element, in constant time.
    pub fn matches(&self, other: &Verifier) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// A keyed reference to a person's element in records: 128 bits, useless without its key.
pub type KeyedRef = [u8; 16];

/// The columns of an account that hold verifiers; each has a wrap key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    /// Holder name, byte-equal canonical form.
    NameExact = 1,
    /// Holder name without dots and blanks.
    NameLoose = 2,
    /// Identity number.
    Id = 3,
    /// Mobile number reserved at the bank.
    Mobile = 4,
}

/// The four verifiers of an account, in the order of [`Column`].
#[derive(Clone, Copy, Debug)]
pub struct Verifiers {
    /// Holder name, byte-equal canonical form.
    pub name_exact: Verifier,
    /// Holder name without dots and blanks.
    pub name_loose: Verifier,
    /// Identity number.
    pub id: Verifier,
    /// Mobile number.
    pub mobile: Verifier,
}

/// The elements that verifiers are made of: canonical text.
#[derive(Clone, Copy)]
pub struct Elements<'a> {
    /// Card number, digits.
    pub card: &'a str,
    /// Canonical name.
    pub name_exact: &'a [u8],
    /// Canonical name without dots and blanks.
    pub name_loose: &'a [u8],
    /// Identity number.
    pub id: &'a str,
    /// Mobile number.
    pub mobile: &'a str,
}

/// Sealing or opening failed: wrong key, wrong place or changed bytes.
#[derive(Debug, thiserror::Error)]
#[error("sealed data does not open: it was changed, moved, or belongs to another key ring")]
pub struct Unsealed;

/// All keys in working form. Build once, share.
pub struct Vault {
    inner: Cmac,
    row: Cmac,
    subject: Cmac,
    token: Cmac,
    idempotency: Cmac,
    wrap_index: Aes256,
    wrap: [Aes256; 4],
    side: Aes256Gcm,
    credential: Aes256Gcm,
    signing: SigningKey,
    receipts: SigningKey,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// Which sealing key a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Erasable side rows of the audit: salts, references, masks.
    Side,
    /// Secret keys of callers, which must be recovered to verify a signature.
    Credential,
}

impl Vault {
    /// Puts the newest version of each key of the ring to work.
    pub fn new(ring: &KeyRing) -> Vault {
        let cipher = |usage| Aes256::new(&Array::from(*ring.newest(usage)));
        let gcm = |usage| Aes256Gcm::new(&Array::from(*ring.newest(usage)));
        Vault {
            inner: Cmac::new(ring.newest(KeyUse::Inner)),
            row: Cmac::new(ring.newest(KeyUse::Row)),
            subject: Cmac::new(ring.newest(KeyUse::Subject)),
            token: Cmac::new(ring.newest(KeyUse::Token)),
            idempotency: Cmac::new(ring.newest(KeyUse::Idempotency)),
            wrap_index: cipher(KeyUse::WrapIndex),
            wrap: [
                cipher(KeyUse::WrapNameExact),
                cipher(KeyUse::WrapNameLoose),
                cipher(KeyUse::WrapId),
                cipher(KeyUse::WrapMobile),
            ],
            side: gcm(KeyUse::Side),
            credential: gcm(KeyUse::Credential),
            signing: SigningKey::from_bytes(ring.newest(KeyUse::Audit)),
            receipts: SigningKey::from_bytes(ring.newest(KeyUse::Receipt)),
        }
    }

    /// Where the account of this card number is kept.
    pub fn index(&self, card: &str) -> BlindIndex {
        BlindIndex(wrapped(&self.wrap_index, self.inner.mac(&[&[0], card.as_bytes()])))
    }

    /// The verifiers of an account or of a claim; equal elements on one card give equal verifiers.
    pub fn verifiers(&self, of: &Elements<'_>) -> Verifiers {
        let verifier = |column: Column, value: &[u8]| {
            // The card's length goes first so that no card and value can be mistaken for another pair.
            let tag = [column as u8, of.card.len() as u8];
            let inner = self.inner.mac(&[&tag, of.card.as_bytes(), value]);
            Verifier(wrapped(&self.wrap[column as usize - 1], inner))
        };
        Verifiers {
            name_exact: verifier(Column::NameExact, of.name_exact),
            name_loose: verifier(Column::NameLoose, of.name_loose),
            id: verifier(Column::Id, of.id.as_bytes()),
            mobile: verifier(Column::Mobile, of.mobile.as_bytes()),
        }
    }

    /// Covers what the verifiers do not: state, kind, and which row they stand in.
    pub fn row_mac(&self, row: &[&[u8]]) -> [u8; 16] {
        self.row.mac(row)
    }

    /// The reference to a card in audit records; lives in the erasable side row.
    pub fn subject(&self, card: &str) -> KeyedRef {
        self.subject.mac(&[card.as_bytes()])
    }

    /// Keyed hash of a bearer or platform token: tokens are found by it and never stored.
    pub fn token(&self, token: &str) -> KeyedRef {
        self.token.mac(&[token.as_bytes()])
    }

    /// Keyed hash of parts that must not run into one another.
    pub fn idempotency(&self, parts: &[&[u8]]) -> KeyedRef {
        let mut framed = Zeroizing::new(Vec::with_capacity(256));
        for part in parts {
            framed.extend_from_slice(&(part.len() as u32).to_be_bytes());
            framed.extend_from_slice(part);
        }
        self.idempotency.mac(&[&framed])
    }

    /// Encrypts and binds to `place`: what is moved elsewhere does not open there.
    pub fn seal(&self, with: Seal, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = nonce();
        let payload = Payload { msg: plain, aad: place };
        let sealed = self.gcm(with).encrypt(&Array::from(nonce), payload);
        // AES-GCM refuses only plaintexts of 64 GiB and more.
        let mut out = nonce.to_vec();
        out.extend(sealed.unwrap_or_default());
        out
    }

    /// Opens what [`Vault::seal`] sealed for the same place.
    pub fn open(&self, with: Seal, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
        let (nonce, body) = sealed.split_first_chunk::<12>().ok_or(Unsealed)?;
        let payload = Payload { msg: body, aad: place };
        let plain = self.gcm(with).decrypt(&Array::from(*nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| Unsealed)
    }

    /// Signs an audit checkpoint (Ed25519).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The public half of the audit key.
    pub fn audit_public_key(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// Signs a receipt (Ed25519).
    pub fn sign_receipt(&self, message: &[u8]) -> [u8; 64] {
        self.receipts.sign(message).to_bytes()
    }

    /// The public half of the receipt key.
    pub fn receipt_public_key(&self) -> [u8; 32] {
        self.receipts.verifying_key().to_bytes()
    }

    /// What a receipt's commitment to the elements is opened with: of one answer always the same, so
    /// that it need not be kept.
    pub fn opening(&self, request: &[u8; 16]) -> [u8; 16] {
        self.idempotency(&[b"opening", request])
    }

    fn gcm(&self, with: Seal) -> &Aes256Gcm {
        match with {
            Seal::Side => &self.side,
            Seal::Credential => &self.credential,
        }
    }
}

/// Whether `signature` over `message` was made by the holder of the audit key.
pub fn signature_holds(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

fn wrapped(key: &Aes256, inner: [u8; 16]) -> [u8; 16] {
    let mut block = Array::from(inner);
    key.encrypt_block(&mut block);
    block.into()
}

/// Random bytes for nonces, salts and ids: as unpredictable, without a system call each. From a
/// generator of this thread (ChaCha, seeded by the operating system and again after each 64 KiB); keys
/// and secrets are made by [`random`].
pub fn nonce<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Random bytes from the operating system, for keys and secrets.
///
/// # Panics
/// When the operating system has no randomness to give; nothing that needs keys may go on then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness no key, salt or id may be made")]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vault() -> Vault {
        Vault::new(&KeyRing::generate())
    }

    fn elements<'a>(card: &'a str, id: &'a str) -> Elements<'a> {
        Elements {
            card,
            name_exact: "韦小宝".as_bytes(),
            name_loose: "韦小宝".as_bytes(),
            id,
            mobile: "16137688175",
        }
    }

    #[test]
    fn a_verifier_is_bound_to_its_card_and_its_field() {
        let vault = vault();
        let one = vault.verifiers(&elements("6225768888888888", "16137688175"));
        let other = vault.verifiers(&elements("6226090210146748", "16137688175"));
        assert!(bool::from(one.id.matches(&one.id)));
        assert!(!bool::from(one.id.matches(&other.id)), "same value, other card");
        assert!(!bool::from(one.id.matches(&one.mobile)), "same value, other field");
        assert_ne!(vault.index("6225768888888888"), vault.index("6226090210146748"));
    }

    #[test]
    fn two_rings_have_nothing_in_common() {
        assert_ne!(vault().index("6225768888888888"), vault().index("6225768888888888"));
    }

    #[test]
    fn a_checkpoint_signature_holds_for_its_message_only() {
        let vault = vault();
        let signature = vault.sign(b"card4e\n1\n");
        let key = vault.audit_public_key();
        assert!(signature_holds(&key, b"card4e\n1\n", &signature));
        assert!(!signature_holds(&key, b"card4e\n2\n", &signature));
    }

    proptest! {
        #[test]
        fn sealed_data_opens_only_in_its_place(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(),
        ) {
            let vault = vault();
            let mut sealed = vault.seal(Seal::Side, b"block 1", &plain);
            prop_assert_eq!(&*vault.open(Seal::Side, b"block 1", &sealed).unwrap(), &plain);
            prop_assert!(vault.open(Seal::Side, b"block 2", &sealed).is_err());
            prop_assert!(vault.open(Seal::Credential, b"block 1", &sealed).is_err());
            let at = flip.index(sealed.len());
            sealed[at] ^= 1;
            prop_assert!(vault.open(Seal::Side, b"block 1", &sealed).is_err());
        }

        #[test]
        fn idempotency_parts_do_not_run_into_one_another(a in ".{0,8}", b in ".{1,8}") {
            let vault = vault();
            let joined = format!("{a}{b}");
            prop_assert_ne!(
                vault.idempotency(&[a.as_bytes(), b.as_bytes()]),
                vault.idempotency(&[joined.as_bytes(), b""])
            );
        }
    }
}
