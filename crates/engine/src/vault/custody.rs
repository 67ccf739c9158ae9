//! The root key sealed by a passphrase: Argon2id makes a key of it, AES-256-GCM seals.
//!
//! The root key itself is random; a passphrase can be changed without touching anything else.

use aes::cipher::{Array, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::random;

/// Fewer characters are guessed; what seals real data is best a few words drawn by dice.
pub const PASSPHRASE_CHARS_MIN: usize = 12;

/// 64 MiB and three passes: a second on a small machine, and on that machine for every guess.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// A file that was tampered with must not make the machine run out of memory.
const MEMORY_KIB_MAX: u32 = 4 << 20;
const PASSES_MAX: u32 = 64;

const PLACE: &[u8] = b"card4e root key under a passphrase";

/// Why a sealed root key is not opened, or none is made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// Not what was written.
    #[error("the sealed root key is damaged; restore it from a backup")]
    Damaged,
    /// Another passphrase sealed it, or somebody changed it.
    #[error("the passphrase does not open the root key")]
    WrongPassphrase,
    /// Too easy to guess.
    #[error("a passphrase has at least {PASSPHRASE_CHARS_MIN} characters; take five or six words at random")]
    TooShort,
    /// Not enough memory, most likely.
    #[error("no key can be made of the passphrase: {0}")]
    Argon2(String),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    sealed: String,
}

/// Seals a root key; gives the text of the file to keep.
pub fn seal_root_key(root: &[u8; 32], passphrase: &str) -> Result<String, CustodyError> {
    if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(CustodyError::TooShort);
    }
    let (salt, nonce) = (random::<16>(), random::<12>());
    let key = stretched(passphrase, &salt, MEMORY_KIB, PASSES)?;
    let payload = Payload { msg: root, aad: PLACE };
    let body = Aes256Gcm::new(&Array::from(*key)).encrypt(&Array::from(nonce), payload);
    let sealed = [&nonce[..], &body.map_err(|_| CustodyError::Damaged)?].concat();
    let stored = Stored {
        format: 1,
        kdf: "argon2id".into(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: crate::file::hex(&salt),
        sealed: crate::file::hex(&sealed),
    };
    let text = serde_json::to_string_pretty(&stored).map_err(|_| CustodyError::Damaged)?;
    Ok(text + "\n")
}

/// Opens what [`seal_root_key`] sealed.
pub fn open_root_key(text: &str, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, CustodyError> {
    let stored: Stored = serde_json::from_str(text).map_err(|_| CustodyError::Damaged)?;
    let is_known = stored.format == 1 && stored.kdf == "argon2id";
    if !is_known || stored.memory_kib > MEMORY_KIB_MAX || stored.passes > PASSES_MAX {
        return Err(CustodyError::Damaged);
    }
    let unhex = |text: &str| crate::file::unhex(text).ok_or(CustodyError::Damaged);
    let (salt, sealed) = (unhex(&stored.salt)?, unhex(&stored.sealed)?);
    let (nonce, body) = sealed.split_first_chunk::<12>().ok_or(CustodyError::Damaged)?;
    let key = stretched(passphrase, &salt, stored.memory_kib, stored.passes)?;
    let payload = Payload { msg: body, aad: PLACE };
    let plain = Aes256Gcm::new(&Array::from(*key)).decrypt(&Array::from(*nonce), payload);
    let plain = Zeroizing::new(plain.map_err(|_| CustodyError::WrongPassphrase)?);
    let root = plain[..].try_into().map_err(|_| CustodyError::Damaged)?;
    Ok(Zeroizing::new(root))
}

fn stretched(
    passphrase: &str,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Result<Zeroizing<[u8; 32]>, CustodyError> {
    let failed = |error: argon2::Error| CustodyError::Argon2(error.to_string());
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(passphrase.as_bytes(), salt, &mut key[..]).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
        let text = seal_root_key(&[7; 32], "correct horse battery").unwrap();
        assert!(!text.contains(&crate::file::hex(&[7; 32])));
        assert_eq!(*open_root_key(&text, "correct horse battery").unwrap(), [7; 32]);
        let wrong = open_root_key(&text, "correct horse batterz").unwrap_err();
        assert_eq!(wrong, CustodyError::WrongPassphrase);
        assert_eq!(seal_root_key(&[7; 32], "short").unwrap_err(), CustodyError::TooShort);
        for broken in ["{}", "", &text.replace("\"passes\": 3", "\"passes\": 4000000000")] {
            assert_eq!(open_root_key(broken, "correct horse battery").unwrap_err(), CustodyError::Damaged);
        }
    }

    #[test]
    fn changed_parameters_give_another_key() {
        let key =
            |memory_kib, passes| stretched("password", b"somesaltsomesalt", memory_kib, passes).unwrap();
        assert_ne!(*key(1024, 1), *key(1024, 2));
        assert_ne!(*key(1024, 1), *key(2048, 1));
    }
}
