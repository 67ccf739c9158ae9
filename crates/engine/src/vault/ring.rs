//! The key ring: every key with its use and version, sealed in a file by the root key.

use std::collections::BTreeMap;
use std::path::Path;

use aes::cipher::{Array, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::random;

/// What a key is for. One key, one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// Inner key of index and verifiers; replaced only record by record or by re-import.
    Inner,
    /// Wraps the blind index.
    WrapIndex,
    /// Wraps the exact name verifier.
    WrapNameExact,
    /// Wraps the loose name verifier.
    WrapNameLoose,
    /// Wraps the identity number verifier.
    WrapId,
    /// Wraps the mobile verifier.
    WrapMobile,
    /// Authenticates account rows.
    Row,
    /// References to subjects in audit records.
    Subject,
    /// Hashes bearer and platform tokens.
    Token,
    /// Hashes idempotency keys and payloads.
    Idempotency,
    /// Seals the erasable side rows of the audit.
    Side,
    /// Seals the secret keys of callers.
    Credential,
    /// Signs audit checkpoints (Ed25519 seed).
    Audit,
    /// Signs receipts (Ed25519 seed).
    Receipt,
}

impl KeyUse {
    const ALL: [KeyUse; 14] = [
        KeyUse::Inner,
        KeyUse::WrapIndex,
        KeyUse::WrapNameExact,
        KeyUse::WrapNameLoose,
        KeyUse::WrapId,
        KeyUse::WrapMobile,
        KeyUse::Row,
        KeyUse::Subject,
        KeyUse::Token,
        KeyUse::Idempotency,
        KeyUse::Side,
        KeyUse::Credential,
        KeyUse::Audit,
        KeyUse::Receipt,
    ];
}

type Key = Zeroizing<[u8; 32]>;

/// All keys of an installation, opened.
pub struct KeyRing {
    keys: BTreeMap<(KeyUse, u32), Key>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys.len())
    }
}

/// Why a key ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The file cannot be read or written.
    #[error("key ring {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The file is not a key ring.
    #[error(
        "key ring {path} is damaged: {cause}; restore it from a backup, without it no account can be read"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The root key is another one.
    #[error("key ring {path} was sealed by another root key")]
    OtherRoot {
        /// The file.
        path: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    #[serde(rename = "use")]
    usage: KeyUse,
    version: u32,
    /// Nonce, ciphertext and tag as hex.
    sealed: String,
}

impl KeyRing {
    /// A new ring: one random key for each use.
    pub fn generate() -> KeyRing {
        let keys = KeyUse::ALL.map(|usage| ((usage, 1), Zeroizing::new(random::<32>())));
        KeyRing { keys: keys.into() }
    }

    /// Opens the ring in `path`, or makes one there when the file does not exist.
    pub fn open_or_create(path: &Path, root: &[u8; 32]) -> Result<KeyRing, RingError> {
        match std::fs::read(path) {
            Ok(bytes) => KeyRing::unseal(&path.display().to_string(), &bytes, root),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                let ring = KeyRing::generate();
                ring.write(path, root)?;
                Ok(ring)
            }
            Err(cause) => Err(RingError::File { path: path.display().to_string(), cause }),
        }
    }

    /// The newest key of a use.
    pub fn newest(&self, usage: KeyUse) -> &[u8; 32] {
        let newest = self.keys.range((usage, 0)..=(usage, u32::MAX)).next_back();
        #[expect(clippy::expect_used, reason = "`unseal` refuses a ring in which a use is missing")]
        let (_, key) = newest.expect("a ring has a key for every use");
        key
    }

    fn write(&self, path: &Path, root: &[u8; 32]) -> Result<(), RingError> {
        let failed = |cause| RingError::File { path: path.display().to_string(), cause };
        let stored = Stored { format: 1, keys: self.sealed(root) };
        let bytes = serde_json::to_vec_pretty(&stored).map_err(|e| failed(e.into()))?;
        crate::file::write_durably(path, &bytes).map_err(failed)
    }

    fn sealed(&self, root: &[u8; 32]) -> Vec<StoredKey> {
        let root = Aes256Gcm::new(&Array::from(*root));
        let seal = |(&(usage, version), key): (&(KeyUse, u32), &Key)| {
            let nonce: [u8; 12] = random();
            let aad = place(usage, version);
            let payload = Payload { msg: &key[..], aad: aad.as_bytes() };
            let body = root.encrypt(&Array::from(nonce), payload).unwrap_or_default();
            StoredKey { usage, version, sealed: crate::file::hex(&[&nonce[..], &body].concat()) }
        };
        self.keys.iter().map(seal).collect()
    }

    fn unseal(path: &str, bytes: &[u8], root: &[u8; 32]) -> Result<KeyRing, RingError> {
        let damaged = |cause: String| RingError::Damaged { path: path.to_owned(), cause };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if stored.format != 1 {
            return Err(damaged(format!("format {} is newer than this card4e", stored.format)));
        }
        let root = Aes256Gcm::new(&Array::from(*root));
        let mut keys = BTreeMap::new();
        for key in stored.keys {
            let sealed = crate::file::unhex(&key.sealed).ok_or_else(|| damaged("a key is not hex".into()))?;
            let (nonce, body) =
                sealed.split_first_chunk::<12>().ok_or_else(|| damaged("a key is too short".into()))?;
            let aad = place(key.usage, key.version);
            let plain = root
                .decrypt(&Array::from(*nonce), Payload { msg: body, aad: aad.as_bytes() })
                .map_err(|_| RingError::OtherRoot { path: path.to_owned() })?;
            let plain = Zeroizing::new(plain);
            let opened: [u8; 32] =
                plain[..].try_into().map_err(|_| damaged("a key has the wrong length".into()))?;
            keys.insert((key.usage, key.version), Zeroizing::new(opened));
        }
        for usage in KeyUse::ALL {
            if keys.range((usage, 0)..=(usage, u32::MAX)).next().is_none() {
                return Err(damaged(format!("the key for {usage:?} is missing")));
            }
        }
        Ok(KeyRing { keys })
    }
}

/// Binds a sealed key to its use, so that two of them cannot be swapped in the file.
fn place(usage: KeyUse, version: u32) -> String {
    format!("card4e key {usage:?} {version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_made_once_and_opens_with_its_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let made = KeyRing::open_or_create(&path, &[7; 32]).unwrap();
        let opened = KeyRing::open_or_create(&path, &[7; 32]).unwrap();
        assert_eq!(made.newest(KeyUse::Inner), opened.newest(KeyUse::Inner));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&crate::file::hex(made.newest(KeyUse::Inner))));

        let other = KeyRing::open_or_create(&path, &[8; 32]).unwrap_err();
        assert!(matches!(other, RingError::OtherRoot { .. }), "{other}");
    }

    #[test]
    fn swapped_keys_and_missing_keys_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        KeyRing::open_or_create(&path, &[7; 32]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();

        std::fs::write(&path, text.replace("\"wrap-id\"", "\"wrap-mobile\"")).unwrap();
        assert!(KeyRing::open_or_create(&path, &[7; 32]).is_err());
        std::fs::write(&path, "{}").unwrap();
        let error = KeyRing::open_or_create(&path, &[7; 32]).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
