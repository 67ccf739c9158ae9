//! The key ring: every key with its use and version, sealed in a file by the root key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aes::cipher::{Array, KeyInit};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sm2::pkcs8::EncodePrivateKey;
use zeroize::Zeroizing;

use super::keys::keep_out_of_swap;
use super::random;
use crate::clock::{Clock, Millis, utc_text};

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
    /// Wraps what accounts are found and compared by without their card.
    WrapPerson,
    /// Authenticates account rows.
    Row,
    /// References to subjects in audit records.
    Subject,
    /// Hashes bearer and platform tokens.
    Token,
    /// Hashes idempotency keys and payloads.
    Idempotency,
    /// Names the jobs that callers call by an idempotency key; never replaced, as a job is known for ever.
    Job,
    /// Seals the erasable side rows of the audit.
    Side,
    /// Seals the secret keys of callers.
    Credential,
    /// Signs audit checkpoints (Ed25519 seed).
    Audit,
    /// Signs receipts (Ed25519 seed).
    Receipt,
    /// Opens envelopes with AES data keys (RSA-2048, PKCS#8).
    EnvelopeRsa,
    /// Opens envelopes with SM4 data keys (SM2, PKCS#8).
    EnvelopeSm2,
}

impl KeyUse {
    /// Those without which nothing works; a ring has envelope keys once somebody asked for them.
    const ALL: [KeyUse; 16] = [
        KeyUse::Inner,
        KeyUse::WrapIndex,
        KeyUse::WrapNameExact,
        KeyUse::WrapNameLoose,
        KeyUse::WrapId,
        KeyUse::WrapMobile,
        KeyUse::WrapPerson,
        KeyUse::Row,
        KeyUse::Subject,
        KeyUse::Token,
        KeyUse::Idempotency,
        KeyUse::Job,
        KeyUse::Side,
        KeyUse::Credential,
        KeyUse::Audit,
        KeyUse::Receipt,
    ];

    const fn opens_envelopes(self) -> bool {
        matches!(self, KeyUse::EnvelopeRsa | KeyUse::EnvelopeSm2)
    }
}

/// Keys that are replaced together. The inner key is in none: replacing it needs the accounts anew. Nor is the one that
/// names jobs: under another one what they have settled would be settled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyGroup {
    /// Those that wrap index and verifiers and authenticate the rows; all rows are wrapped again.
    Accounts,
    /// Seals side rows, snapshots and masks; what is sealed already is read with the old key.
    Side,
    /// Seals the secret keys of callers; all are sealed again.
    Credentials,
    /// Hashes tokens; a token given out before is found under the old key.
    Tokens,
    /// References to cards in the audit; older records are found under the old key.
    Subjects,
    /// Hashes idempotency keys; a question asked before is found under the old key.
    Idempotency,
    /// Signs checkpoints; of the old key the public half stays.
    Audit,
    /// Signs receipts; of the old key the public half stays, and is published.
    Receipts,
    /// Open what callers encrypt; the new public keys are published, the old keys open for a month more.
    Envelopes,
}

impl KeyGroup {
    /// Every group.
    pub const ALL: [KeyGroup; 9] = [
        KeyGroup::Accounts,
        KeyGroup::Side,
        KeyGroup::Credentials,
        KeyGroup::Tokens,
        KeyGroup::Subjects,
        KeyGroup::Idempotency,
        KeyGroup::Audit,
        KeyGroup::Receipts,
        KeyGroup::Envelopes,
    ];

    /// The word for it on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            KeyGroup::Accounts => "accounts",
            KeyGroup::Side => "side",
            KeyGroup::Credentials => "credentials",
            KeyGroup::Tokens => "tokens",
            KeyGroup::Subjects => "subjects",
            KeyGroup::Idempotency => "idempotency",
            KeyGroup::Audit => "audit",
            KeyGroup::Receipts => "receipts",
            KeyGroup::Envelopes => "envelopes",
        }
    }

    /// The group of that word.
    pub fn from_word(word: &str) -> Option<KeyGroup> {
        KeyGroup::ALL.into_iter().find(|group| group.word() == word)
    }

    const fn uses(self) -> &'static [KeyUse] {
        match self {
            KeyGroup::Accounts => &[
                KeyUse::WrapIndex,
                KeyUse::WrapNameExact,
                KeyUse::WrapNameLoose,
                KeyUse::WrapId,
                KeyUse::WrapMobile,
                KeyUse::WrapPerson,
                KeyUse::Row,
            ],
            KeyGroup::Side => &[KeyUse::Side],
            KeyGroup::Credentials => &[KeyUse::Credential],
            KeyGroup::Tokens => &[KeyUse::Token],
            KeyGroup::Subjects => &[KeyUse::Subject],
            KeyGroup::Idempotency => &[KeyUse::Idempotency],
            KeyGroup::Audit => &[KeyUse::Audit],
            KeyGroup::Receipts => &[KeyUse::Receipt],
            KeyGroup::Envelopes => &[KeyUse::EnvelopeRsa, KeyUse::EnvelopeSm2],
        }
    }
}

/// What is there of a version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// The newest: writes and reads.
    Active,
    /// Older: reads what it wrote.
    Reads,
    /// A replaced signing key of which only the public half is kept.
    Verifies,
    /// Nothing is left but this line.
    Destroyed,
}

/// A version of a key as it is listed: everything but its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedKey {
    /// What it is for.
    #[serde(rename = "use")]
    pub usage: KeyUse,
    /// 1, 2, and so on.
    pub version: u32,
    /// What is there of it.
    pub state: KeyState,
    /// When it was made, UTC.
    pub created: String,
    /// When a newer one took its place, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// Boxed, so that it stays where it is and can be kept out of swap space.
type Key = Box<Zeroizing<[u8; 32]>>;

enum Material {
    Secret(Key),
    /// A private key in PKCS#8.
    Private(Zeroizing<Vec<u8>>),
    /// Of a signing key whose secret half is destroyed.
    Public(Key),
    Destroyed,
}

struct RingKey {
    material: Material,
    created_ms: Millis,
    replaced_ms: Option<Millis>,
}

/// All keys of an installation, opened.
pub struct KeyRing {
    keys: BTreeMap<(KeyUse, u32), RingKey>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys.len())
    }
}

/// Why a key ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Nodes share the ring, and the others have another root key.
    #[error(
        "the key ring in the database is sealed by another root key than this node has: put the root key of the other \
         nodes in its place"
    )]
    OtherRootThere,
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
    created_ms: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_ms: Option<Millis>,
    /// Nonce, ciphertext and tag as hex; absent when the key is destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    /// Only the public half of a signing key is sealed here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    public: bool,
}

const FORMAT: u32 = 2;

impl KeyRing {
    /// A new ring: one random key for each use.
    pub fn generate() -> KeyRing {
        let created_ms = Clock::default().now_ms();
        KeyRing { keys: KeyUse::ALL.map(|usage| ((usage, 1), RingKey::new(usage, created_ms))).into() }
    }

    /// Opens the ring in `path`.
    pub fn open(path: &Path, root: &[u8; 32]) -> Result<KeyRing, RingError> {
        let shown = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => KeyRing::unseal(&shown, &bytes, root),
            Err(cause) => Err(RingError::File { path: shown, cause }),
        }
    }

    /// Opens the ring in `path`, or makes one there when the file does not exist.
    pub fn open_or_create(path: &Path, root: &[u8; 32]) -> Result<KeyRing, RingError> {
        match KeyRing::open(path, root) {
            Err(RingError::File { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                let ring = KeyRing::generate();
                ring.write(path, root)?;
                Ok(ring)
            }
            opened => opened,
        }
    }

    /// The newest key of a use, and its version.
    pub fn newest(&self, usage: KeyUse) -> (u32, &[u8; 32]) {
        #[expect(clippy::expect_used, reason = "`unseal` refuses a ring in which a use has no key")]
        self.secrets(usage).next().expect("a ring has a key for every use")
    }

    /// One version of a key, unless it is destroyed.
    pub(super) fn secret(&self, usage: KeyUse, version: u32) -> Option<&[u8; 32]> {
        self.secrets(usage).find(|(known, _)| *known == version).map(|(_, key)| key)
    }

    /// All versions of a key that are not destroyed, the newest first.
    pub(super) fn secrets(&self, usage: KeyUse) -> impl Iterator<Item = (u32, &[u8; 32])> {
        self.versions(usage).rev().filter_map(|(version, key)| match &key.material {
            Material::Secret(secret) => Some((version, &***secret)),
            Material::Private(_) | Material::Public(_) | Material::Destroyed => None,
        })
    }

    fn versions(&self, usage: KeyUse) -> impl DoubleEndedIterator<Item = (u32, &RingKey)> {
        self.keys.range((usage, 0)..=(usage, u32::MAX)).map(|((_, version), key)| (*version, key))
    }

    /// The public halves of all signing keys of a use there ever were, the oldest first.
    pub(super) fn public_keys(&self, usage: KeyUse) -> Vec<(u32, [u8; 32])> {
        let public = |(version, key): (u32, &RingKey)| match &key.material {
            Material::Secret(seed) => Some((version, public_half(seed))),
            Material::Public(public) => Some((version, ***public)),
            Material::Private(_) | Material::Destroyed => None,
        };
        self.versions(usage).filter_map(public).collect()
    }

    /// Private keys for envelopes that are not destroyed, the newest first, in PKCS#8.
    pub(super) fn private_keys(&self, usage: KeyUse) -> Vec<(u32, Zeroizing<Vec<u8>>)> {
        let private = |(version, key): (u32, &RingKey)| match &key.material {
            Material::Private(der) => Some((version, der.clone())),
            _ => None,
        };
        self.versions(usage).rev().filter_map(private).collect()
    }

    /// Adds a new version of each key of a group. A signing key it replaces loses its secret half at
    /// once: it has nothing to read.
    pub(crate) fn add(&mut self, group: KeyGroup, now: Millis) {
        for &usage in group.uses() {
            let newest = self.newest_version(usage);
            if let Some(replaced) = self.keys.get_mut(&(usage, newest)) {
                replaced.replaced_ms = Some(now);
                if let (KeyUse::Audit | KeyUse::Receipt, Material::Secret(seed)) = (usage, &replaced.material)
                {
                    replaced.material = Material::Public(Box::new(Zeroizing::new(public_half(seed))));
                }
            }
            self.keys.insert((usage, newest + 1), RingKey::new(usage, now));
        }
    }

    /// 0 when there is none yet.
    pub(crate) fn newest_version(&self, usage: KeyUse) -> u32 {
        self.versions(usage).next_back().map_or(0, |(version, _)| version)
    }

    /// Destroys those older versions of a group that `is_needed` does not ask to keep.
    pub(crate) fn destroy_older(&mut self, group: KeyGroup, is_needed: impl Fn(u32, Option<Millis>) -> bool) {
        for &usage in group.uses() {
            let newest = self.newest_version(usage);
            for ((_, version), key) in self.keys.range_mut((usage, 0)..(usage, newest)) {
                let is_there = matches!(key.material, Material::Secret(_) | Material::Private(_));
                if is_there && !is_needed(*version, key.replaced_ms) {
                    key.material = Material::Destroyed;
                }
            }
        }
    }

    /// Versions of a group that are not destroyed.
    pub(crate) fn live(&self, group: KeyGroup) -> usize {
        group.uses().iter().map(|usage| self.secrets(*usage).count()).max().unwrap_or(0)
    }

    /// Whether a rotation was begun whose rows are not all under the newest keys yet.
    pub fn is_rotating(&self) -> bool {
        self.live(KeyGroup::Accounts) > 1 || self.live(KeyGroup::Credentials) > 1
    }

    /// Every version of every key, without its value.
    pub fn list(&self) -> Vec<ListedKey> {
        let listed = |((usage, version), key): (&(KeyUse, u32), &RingKey)| ListedKey {
            usage: *usage,
            version: *version,
            state: match &key.material {
                Material::Secret(_) | Material::Private(_) if key.replaced_ms.is_none() => KeyState::Active,
                Material::Secret(_) | Material::Private(_) => KeyState::Reads,
                Material::Public(_) => KeyState::Verifies,
                Material::Destroyed => KeyState::Destroyed,
            },
            created: utc_text(key.created_ms),
            replaced: key.replaced_ms.map(utc_text),
        };
        self.keys.iter().map(listed).collect()
    }

    /// Keeps it out of swap space; whether the system let us.
    pub(super) fn keep_out_of_swap(&self) -> bool {
        self.keys.values().all(|key| match &key.material {
            Material::Secret(secret) => keep_out_of_swap(&secret[..]),
            Material::Private(der) => keep_out_of_swap(der),
            Material::Public(_) | Material::Destroyed => true,
        })
    }

    pub(super) fn write(&self, path: &Path, root: &[u8; 32]) -> Result<(), RingError> {
        let failed = |cause| RingError::File { path: path.display().to_string(), cause };
        let bytes = self.sealed_bytes(root).map_err(failed)?;
        crate::file::write_durably(path, &bytes).map_err(failed)
    }

    fn sealed_bytes(&self, root: &[u8; 32]) -> std::io::Result<Vec<u8>> {
        let stored = Stored { format: FORMAT, keys: self.sealed(root) };
        Ok(serde_json::to_vec_pretty(&stored)?)
    }

    fn sealed(&self, root: &[u8; 32]) -> Vec<StoredKey> {
        let root = Aes256Gcm::new(&Array::from(*root));
        let seal = |(&(usage, version), key): (&(KeyUse, u32), &RingKey)| {
            let (plain, public) = match &key.material {
                Material::Secret(secret) => (Some(&secret[..]), false),
                Material::Private(der) => (Some(&der[..]), false),
                Material::Public(public) => (Some(&public[..]), true),
                Material::Destroyed => (None, false),
            };
            let sealed = plain.map(|plain| {
                let nonce: [u8; 12] = random();
                let aad = place(usage, version, public);
                let payload = Payload { msg: plain, aad: aad.as_bytes() };
                let body = root.encrypt(&Array::from(nonce), payload).unwrap_or_default();
                crate::file::hex(&[&nonce[..], &body].concat())
            });
            let RingKey { created_ms, replaced_ms, .. } = *key;
            StoredKey { usage, version, created_ms, replaced_ms, sealed, public }
        };
        self.keys.iter().map(seal).collect()
    }

    /// Opens a ring that is kept elsewhere; `path` says where.
    pub(crate) fn unseal(path: &str, bytes: &[u8], root: &[u8; 32]) -> Result<KeyRing, RingError> {
        let damaged = |cause: String| RingError::Damaged { path: path.to_owned(), cause };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if stored.format != FORMAT {
            return Err(damaged(format!("its format {} is not one this card4e reads", stored.format)));
        }
        let root = Aes256Gcm::new(&Array::from(*root));
        let open = |key: &StoredKey, sealed: &str| {
            let sealed = crate::file::unhex(sealed).ok_or_else(|| damaged("a key is not hex".into()))?;
            let (nonce, body) =
                sealed.split_first_chunk::<12>().ok_or_else(|| damaged("a key is too short".into()))?;
            let aad = place(key.usage, key.version, key.public);
            let plain = root
                .decrypt(&Array::from(*nonce), Payload { msg: body, aad: aad.as_bytes() })
                .map_err(|_| RingError::OtherRoot { path: path.to_owned() })?;
            Ok::<_, RingError>(Zeroizing::new(plain))
        };
        let of_32_bytes = |plain: Zeroizing<Vec<u8>>| {
            let opened: [u8; 32] =
                plain[..].try_into().map_err(|_| damaged("a key has the wrong length".into()))?;
            Ok::<_, RingError>(Box::new(Zeroizing::new(opened)))
        };
        let mut keys = BTreeMap::new();
        for key in stored.keys {
            let material = match &key.sealed {
                None => Material::Destroyed,
                Some(sealed) if key.public => Material::Public(of_32_bytes(open(&key, sealed)?)?),
                Some(sealed) if key.usage.opens_envelopes() => Material::Private(open(&key, sealed)?),
                Some(sealed) => Material::Secret(of_32_bytes(open(&key, sealed)?)?),
            };
            let StoredKey { usage, version, created_ms, replaced_ms, .. } = key;
            keys.insert((usage, version), RingKey { material, created_ms, replaced_ms });
        }
        let ring = KeyRing { keys };
        for usage in KeyUse::ALL {
            // The newest must be whole: an older one in its place would write what nobody expects.
            let newest = ring.versions(usage).next_back();
            if !newest.is_some_and(|(_, key)| matches!(key.material, Material::Secret(_))) {
                return Err(damaged(format!("the key for {usage:?} is missing")));
            }
        }
        Ok(ring)
    }
}

impl RingKey {
    fn new(usage: KeyUse, created_ms: Millis) -> RingKey {
        let material = match usage {
            KeyUse::EnvelopeRsa => Material::Private(rsa_key()),
            KeyUse::EnvelopeSm2 => Material::Private(sm2_key()),
            _ => Material::Secret(Box::new(Zeroizing::new(random()))),
        };
        RingKey { material, created_ms, replaced_ms: None }
    }
}

/// A new RSA key, PKCS#8. Of 2048 bits, because Tencent's helpers take blobs of 256 bytes.
fn rsa_key() -> Zeroizing<Vec<u8>> {
    let made = || {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).ok()?;
        let der: Pkcs8V1Der<'_> = key.as_der().ok()?;
        Some(Zeroizing::new(der.as_ref().to_vec()))
    };
    #[expect(clippy::expect_used, reason = "as with `random`: without randomness no key may be made")]
    made().expect("the operating system gives random bytes")
}

/// A new SM2 key, PKCS#8.
fn sm2_key() -> Zeroizing<Vec<u8>> {
    loop {
        let scalar = Zeroizing::new(random::<32>());
        // All but one in four billion numbers are keys.
        if let Ok(key) = sm2::SecretKey::from_slice(&scalar[..])
            && let Ok(der) = key.to_pkcs8_der()
        {
            return Zeroizing::new(der.as_bytes().to_vec());
        }
    }
}

fn public_half(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// A key ring with its file and the key that opens it, for whoever may change it.
pub struct RingFile {
    path: PathBuf,
    root: Key,
    /// The keys.
    pub ring: KeyRing,
}

impl RingFile {
    /// Opens the ring in `path`, or makes one there when the file does not exist.
    pub fn open_or_create(path: &Path, root: &[u8; 32]) -> Result<RingFile, RingError> {
        let ring = KeyRing::open_or_create(path, root)?;
        Ok(RingFile { path: path.to_owned(), root: kept(root), ring })
    }

    /// Seals the ring with another root key, in one step: after a crash one of the two opens it.
    ///
    /// # Errors
    /// One of the two opens it all the same; which, only trying tells.
    pub fn replace_root(&mut self, root: &[u8; 32]) -> Result<(), RingError> {
        let written = self.ring.write(&self.path, root);
        // Whatever is on the disk now is whole, and is what counts.
        if written.is_ok() || KeyRing::open(&self.path, root).is_ok() {
            self.root = kept(root);
        }
        written
    }

    /// The ring sealed by another root key; see [`RingFile::take_over`].
    pub(crate) fn sealed_by(&self, root: &[u8; 32]) -> Result<Vec<u8>, RingError> {
        self.ring.sealed_bytes(root).map_err(|cause| self.failed(cause))
    }

    /// Keeps it so from now on.
    pub(crate) fn take_over(&mut self, root: &[u8; 32], sealed: &[u8]) -> Result<(), RingError> {
        self.root = kept(root);
        self.keep(sealed)
    }

    /// What opens it.
    pub(crate) fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Reads the file again, which was replaced.
    pub(crate) fn reopen(&mut self) -> Result<(), RingError> {
        self.ring = KeyRing::open(&self.path, &self.root)?;
        Ok(())
    }

    /// Makes a change in memory; gives what is to be kept of it, see [`RingFile::keep`].
    pub(crate) fn changed(&mut self, change: impl FnOnce(&mut KeyRing)) -> Result<Vec<u8>, RingError> {
        change(&mut self.ring);
        self.ring.sealed_bytes(&self.root).map_err(|cause| self.failed(cause))
    }

    /// Makes it durable in the file.
    pub(crate) fn keep(&self, sealed: &[u8]) -> Result<(), RingError> {
        crate::file::write_durably(&self.path, sealed).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: std::io::Error) -> RingError {
        RingError::File { path: self.path.display().to_string(), cause }
    }

    /// Makes a change durable; if that fails, the ring is as it was.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut KeyRing)) -> Result<(), RingError> {
        change(&mut self.ring);
        let written = self.ring.write(&self.path, &self.root);
        if written.is_err() {
            // Whatever is on the disk now is whole, and is what counts.
            self.ring = KeyRing::open(&self.path, &self.root)?;
        }
        written
    }
}

fn kept(root: &[u8; 32]) -> Key {
    let root = Box::new(Zeroizing::new(*root));
    keep_out_of_swap(&root[..]);
    root
}

/// Binds a sealed key to its use, so that two of them cannot be swapped in the file.
fn place(usage: KeyUse, version: u32, public: bool) -> String {
    let half = if public { " public half" } else { "" };
    format!("card4e key {usage:?} {version}{half}")
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
        assert!(!text.contains(&crate::file::hex(made.newest(KeyUse::Inner).1)));

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

    #[test]
    fn replaced_keys_are_listed_and_destroyed_ones_are_gone_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let mut file = RingFile::open_or_create(&path, &[7; 32]).unwrap();
        file.change(|ring| KeyGroup::ALL.iter().for_each(|group| ring.add(*group, 86_400_000))).unwrap();
        let ring = KeyRing::open(&path, &[7; 32]).unwrap();
        assert!(ring.is_rotating());
        assert_eq!((ring.newest(KeyUse::Inner).0, ring.newest(KeyUse::Row).0), (1, 2));
        file.change(|ring| {
            ring.destroy_older(KeyGroup::Accounts, |_, _| false);
            ring.destroy_older(KeyGroup::Credentials, |_, _| false);
            ring.destroy_older(KeyGroup::Side, |version, _| version == 1);
        })
        .unwrap();
        let ring = KeyRing::open(&path, &[7; 32]).unwrap();
        assert!(!ring.is_rotating());
        let state = |usage, version| {
            let listed = ring.list();
            listed.into_iter().find(|key| (key.usage, key.version) == (usage, version)).unwrap().state
        };
        assert_eq!(state(KeyUse::WrapId, 1), KeyState::Destroyed);
        assert_eq!(state(KeyUse::WrapId, 2), KeyState::Active);
        assert_eq!(state(KeyUse::Side, 1), KeyState::Reads);
        assert_eq!(state(KeyUse::Audit, 1), KeyState::Verifies);
        assert_eq!(ring.public_keys(KeyUse::Audit).len(), 2);
    }

    #[test]
    fn another_root_key_opens_the_same_keys_and_goes_on_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let mut file = RingFile::open_or_create(&path, &[7; 32]).unwrap();
        let before = *file.ring.newest(KeyUse::Inner).1;
        file.replace_root(&[8; 32]).unwrap();
        assert!(matches!(KeyRing::open(&path, &[7; 32]), Err(RingError::OtherRoot { .. })));
        file.change(|ring| ring.add(KeyGroup::Side, 86_400_000)).unwrap();
        let ring = KeyRing::open(&path, &[8; 32]).unwrap();
        assert_eq!((ring.newest(KeyUse::Inner).1, ring.newest(KeyUse::Side).0), (&before, 2));
        // What cannot be written changes nothing.
        std::fs::create_dir(dir.path().join("keys.next")).unwrap();
        assert!(file.replace_root(&[9; 32]).is_err());
        std::fs::remove_dir(dir.path().join("keys.next")).unwrap();
        file.change(|ring| ring.add(KeyGroup::Side, 86_400_000)).unwrap();
        assert_eq!(KeyRing::open(&path, &[8; 32]).unwrap().newest(KeyUse::Side).0, 3);
    }

    #[test]
    fn a_ring_whose_newest_key_was_cut_out_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        KeyRing::open_or_create(&path, &[7; 32]).unwrap();
        let mut stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        stored["keys"][3].as_object_mut().unwrap().remove("sealed");
        std::fs::write(&path, stored.to_string()).unwrap();
        let error = KeyRing::open(&path, &[7; 32]).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }
}
