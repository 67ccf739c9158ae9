//! Keys, and everything that is done with them: blind index, verifiers, sealing, signing.
//!
//! No plaintext element is ever stored. An account is found by a *blind index* of its card number
//! and compared by *verifiers* of its other elements; both are AES-256-CMAC (PCI DSS 4.0.1,
//! 3.5.1.1 names CMAC for keyed hashes of card numbers) under an inner key, bound to the field and
//! the card, then wrapped by one AES block under a versioned key of that column, so that a wrap key
//! can be replaced without any plaintext. The root key seals all others; nothing is derived from it.

mod cmac;
pub mod custody;
mod keys;
mod ring;

pub use cmac::Cmac;
use cmac::Head;
pub(crate) use cmac::Messages;
pub(crate) use keys::Unwrapped;
pub use keys::{AccountKeys, Keys};
pub use ring::{KeyGroup, KeyRing, KeyState, KeyUse, ListedKey, RingError, RingFile};

use std::sync::{Arc, PoisonError, RwLock};

use ed25519_dalek::{Signature, VerifyingKey};
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

    /// The same by their first bytes alone, where no more is known.
    ///
    /// By words, not bytes: each comparison in constant time hides its result from the compiler, which costs.
    #[inline]
    pub fn begins_like(&self, other: &Verifier, bytes: usize) -> Choice {
        let differs = u128::from_be_bytes(self.0) ^ u128::from_be_bytes(other.0);
        let differs = differs.checked_shr(8 * (16 - bytes as u32)).unwrap_or(0);
        (differs as u64 | (differs >> 64) as u64).ct_eq(&0)
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

/// All columns, in their order.
const COLUMNS: [Column; 4] = [Column::NameExact, Column::NameLoose, Column::Id, Column::Mobile];

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
    pub card: &'a [u8],
    /// Canonical name.
    pub name_exact: &'a [u8],
    /// Canonical name without dots and blanks.
    pub name_loose: &'a [u8],
    /// Identity number.
    pub id: &'a [u8],
    /// Mobile number.
    pub mobile: &'a [u8],
}

impl Elements<'_> {
    /// What stands in a column.
    fn column(&self, column: Column) -> &[u8] {
        match column {
            Column::NameExact => self.name_exact,
            Column::NameLoose => self.name_loose,
            Column::Id => self.id,
            Column::Mobile => self.mobile,
        }
    }
}

/// Where an account is found by its holder's identity number, and what is compared then. Bound to that
/// number, as the verifiers of an account are to its card.
#[derive(Clone, Copy, Debug)]
pub struct ById {
    /// Where.
    pub index: BlindIndex,
    /// Holder name without dots and blanks.
    pub name: Verifier,
    /// Validity of the identity card; `None`: not on record, or not asked about.
    pub validity: Option<Verifier>,
}

/// Where an account is found by its mobile number, and what is compared then; bound to that number.
#[derive(Clone, Copy, Debug)]
pub struct ByMobile {
    /// Where.
    pub index: BlindIndex,
    /// Holder name without dots and blanks.
    pub name: Verifier,
    /// Identity number.
    pub id: Verifier,
}

/// Sealing or opening failed: wrong key, wrong place or changed bytes.
#[derive(Debug, thiserror::Error)]
#[error("sealed data does not open: it was changed, moved, or belongs to another key ring")]
pub struct Unsealed;

/// The keys at work, which a rotation replaces while others use them.
///
/// Who needs several keys of one moment, such as a look-up, takes them once with [`Vault::keys`] and
/// holds them until it is done: a rotation moves nothing as long as somebody holds the keys before it.
pub struct Vault(RwLock<Arc<Keys>>);

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
    /// Puts the keys of a ring to work.
    pub fn new(ring: &KeyRing) -> Vault {
        Vault(RwLock::new(at_work(ring)))
    }

    /// The keys as of now.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these are still the keys as of now.
    pub fn is_current(&self, keys: &Arc<Keys>) -> bool {
        Arc::ptr_eq(keys, &self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another ring to work; gives the keys before it.
    pub(crate) fn replace(&self, ring: &KeyRing) -> Arc<Keys> {
        let keys = at_work(ring);
        std::mem::replace(&mut self.0.write().unwrap_or_else(PoisonError::into_inner), keys)
    }

    /// Where a new account of this card number is kept.
    pub fn index(&self, card: &str) -> BlindIndex {
        let keys = self.keys();
        keys.index(card, keys.accounts())
    }

    /// Keyed hash of a new bearer or platform token: tokens are found by it and never stored.
    pub fn token(&self, token: &str) -> KeyedRef {
        self.keys().token(token)
    }

    /// Signs with the newest audit key.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.keys().sign(message).1
    }

    /// Whether the newest audit key signed this.
    pub fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let keys = self.keys();
        let newest = keys.audit_public_key(keys.audit_version());
        newest.is_some_and(|key| signature_holds(&key, message, signature))
    }

    /// Encrypts and binds to `place`: what is moved elsewhere does not open there.
    pub fn seal(&self, with: Seal, place: &[u8], plain: &[u8]) -> Vec<u8> {
        self.keys().seal(with, place, plain)
    }

    /// Opens what [`Vault::seal`] sealed for the same place.
    pub fn open(&self, with: Seal, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealed> {
        self.keys().open(with, place, sealed)
    }
}

fn at_work(ring: &KeyRing) -> Arc<Keys> {
    let keys = Arc::new(Keys::new(ring));
    if !(keys.keep_out_of_swap() && ring.keep_out_of_swap()) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                "keys may be written to swap space: the limit for locked memory is too low; raise it \
                 (LimitMEMLOCK=, ulimit -l), or switch swap off for card4e"
            );
        });
    }
    keys
}

/// Whether `signature` over `message` was made by the holder of the audit key.
pub fn signature_holds(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Overwrites bytes that are given up, such as people's rows, and whatever room is behind them; none are left. As
/// [`zeroize`] does, but not byte by byte, which is slow for the rows of a file.
pub fn wipe(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    bytes.fill(0);
    zeroize::optimization_barrier(&bytes[..]);
    bytes.clear();
}

/// Bytes that [`wipe`] overwrites when they are given up.
#[derive(Default)]
pub struct Wiped(pub Vec<u8>);

impl Wiped {
    /// Adds some.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Makes room for so many more; where all have to move for it, what they leave is overwritten.
    pub fn reserve(&mut self, bytes: usize) {
        if self.0.capacity() - self.0.len() < bytes {
            let mut more = Vec::with_capacity((2 * self.0.capacity()).max(self.0.len() + bytes).max(4096));
            more.extend_from_slice(&self.0);
            wipe(&mut std::mem::replace(&mut self.0, more));
        }
    }
}

impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wiped({}, …)", self.0.len())
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
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

    #[test]
    fn two_rings_have_nothing_in_common() {
        assert_ne!(vault().index("6225768888888888"), vault().index("6225768888888888"));
    }

    #[test]
    fn a_checkpoint_signature_holds_for_its_message_only() {
        let keys = vault().keys();
        let (version, signature) = keys.sign(b"card4e\n1\n");
        let key = keys.audit_public_key(version).unwrap();
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
        fn verifiers_begin_alike_as_their_bytes_do(one: [u8; 16], at in 0usize..16, flip: u8, bytes in 0usize..=16) {
            let mut other = one;
            other[at] ^= flip;
            let alike = Verifier(one).begins_like(&Verifier(other), bytes);
            prop_assert_eq!(bool::from(alike), one[..bytes] == other[..bytes]);
        }

        #[test]
        fn idempotency_parts_do_not_run_into_one_another(a in ".{0,8}", b in ".{1,8}") {
            let keys = vault().keys();
            let joined = format!("{a}{b}");
            prop_assert_ne!(
                keys.idempotency(&[a.as_bytes(), b.as_bytes()]),
                keys.idempotency(&[joined.as_bytes(), b""])
            );
        }
    }
}
