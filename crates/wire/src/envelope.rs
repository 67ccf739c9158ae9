//! Encrypted elements: an envelope as either wire carries it, and how it is opened with given keys.
//!
//! A client makes a data key, encrypts some elements with it and wraps the data key for this server's
//! public key: AES-256-CBC with RSA PKCS#1 v1.5, or SM4-GCM with SM2 in the raw form `C1 C3 C2`.
//! [`Envelope::read`] sees to everything its sender can see too: base64, lengths, tags. From there on
//! nothing may tell how far decryption came. PKCS#1 v1.5 and CBC are padding oracles if it does, so
//! [`Opener::unwrap`] has no error: what cannot be unwrapped gives another key, always the same for the
//! same blob, and the elements do not decrypt. Reading no key from a file, caching and waiting for a
//! processor are the server's.

pub mod seal;

use std::fmt;

use aes::cipher::{Array, BlockCipherDecrypt};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sm2::elliptic_curve::pkcs8::DecodePrivateKey;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm3::Sm3;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use crate::Element;

/// How the elements are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `AES-256-CBC` with an RSA-wrapped key; what an absent `Algorithm` means.
    Aes256Cbc,
    /// `SM4-GCM` with an SM2-wrapped key.
    Sm4Gcm,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Algorithm; 2] = [Algorithm::Aes256Cbc, Algorithm::Sm4Gcm];

    /// The name on both wires. Other spellings are refused: no client was seen to send one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Aes256Cbc => "AES-256-CBC",
            Algorithm::Sm4Gcm => "SM4-GCM",
        }
    }

    /// The algorithm of that name.
    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Why an envelope is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotOpen {
    /// The data key was wrapped by Tencent's key management service (`…-k-…`), as accounts of before
    /// 2023 do it. Nobody but that service can unwrap it.
    KeyManagementService,
    /// Anything else; it is not told what.
    Failed,
}

/// An envelope's members as they stand on the wire.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// How the elements are encrypted.
    pub algorithm: Algorithm,
    /// The wrapped data key, base64.
    pub ciphertext_blob: &'a str,
    /// Initial vector or nonce, base64; one for all elements.
    pub iv: &'a str,
    /// What is encrypted, in the order of the tags: the element and its value on the wire.
    pub listed: &'a [(Element, &'a str)],
    /// SM4-GCM's tags, base64.
    pub tags: &'a [&'a str],
}

/// An envelope whose form is right; whether it opens is another question.
pub struct Envelope {
    wrapped: WrappedKey,
    sealed: Sealed,
}

/// A data key as it was wrapped for somebody.
#[derive(Clone)]
pub struct WrappedKey {
    algorithm: Algorithm,
    blob: Vec<u8>,
}

enum Sealed {
    Aes { iv: Block, elements: Vec<(Element, Vec<Block>)> },
    Sm4 { nonce: [u8; 12], elements: Vec<(Element, Vec<u8>, Block)> },
}

type Block = [u8; 16];

/// No element is longer, and nobody may keep a core busy with what is none.
const ELEMENT_BYTES_MAX: usize = 1024;

/// The largest RSA modulus: 4096 bits.
const BLOB_BYTES_MAX: usize = 512;

impl Envelope {
    /// Reads an envelope as far as anybody could without a key.
    ///
    /// # Errors
    /// [`CannotOpen`], from which a sender learns nothing it did not send.
    pub fn read(parts: Parts<'_>) -> Result<Envelope, CannotOpen> {
        if parts.ciphertext_blob.contains("-k-") {
            return Err(CannotOpen::KeyManagementService);
        }
        let blob = decoded(parts.ciphertext_blob).filter(|blob| blob.len() <= BLOB_BYTES_MAX);
        let blob = blob.ok_or(CannotOpen::Failed)?;
        let sealed = match parts.algorithm {
            Algorithm::Aes256Cbc => Sealed::aes(&parts),
            Algorithm::Sm4Gcm => Sealed::sm4(&parts),
        };
        let wrapped = WrappedKey { algorithm: parts.algorithm, blob };
        Ok(Envelope { wrapped, sealed: sealed.ok_or(CannotOpen::Failed)? })
    }

    /// The key that is to be unwrapped.
    pub fn wrapped_key(&self) -> &WrappedKey {
        &self.wrapped
    }

    /// Decrypts all elements.
    ///
    /// # Errors
    /// [`CannotOpen::Failed`] if one of them does not decrypt; the others have been decrypted too by
    /// then, so that time does not tell which.
    pub fn open(&self, key: &DataKey) -> Result<Opened, CannotOpen> {
        let plain = match (&self.sealed, &key.cipher) {
            (Sealed::Aes { iv, elements }, Cipher::Aes(cipher)) => {
                let open =
                    |(element, blocks): &(Element, Vec<Block>)| (*element, cbc_opened(cipher, iv, blocks));
                elements.iter().map(open).collect::<Vec<_>>()
            }
            (Sealed::Sm4 { nonce, elements }, Cipher::Sm4(cipher)) => {
                let open = |(element, bytes, tag): &(Element, Vec<u8>, Block)| {
                    (*element, gcm_opened(cipher, nonce, bytes, tag))
                };
                elements.iter().map(open).collect()
            }
            // A key of the other kind never belongs to this envelope.
            _ => return Err(CannotOpen::Failed),
        };
        let mut opened = Opened::default();
        for (element, bytes) in plain {
            let (text, was_gbk) = text_of(&bytes.ok_or(CannotOpen::Failed)?).ok_or(CannotOpen::Failed)?;
            opened.gbk |= was_gbk;
            opened.elements.push((element, text));
        }
        Ok(opened)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("algorithm", &self.wrapped.algorithm).finish_non_exhaustive()
    }
}

impl WrappedKey {
    /// What a cache of unwrapped keys may know it by: helpers of before August 2023 wrap a key once and
    /// send the same blob with many requests.
    pub fn fingerprint(&self) -> [u8; 32] {
        let hash = Sha256::new().chain_update(self.algorithm.as_str()).chain_update(&self.blob);
        hash.finalize().into()
    }
}

impl Sealed {
    fn aes(parts: &Parts<'_>) -> Option<Sealed> {
        let iv = decoded(parts.iv)?.try_into().ok()?;
        let read = |(element, text): &(Element, &str)| {
            let bytes = element_bytes(text)?;
            let (blocks, rest) = bytes.as_chunks::<16>();
            (!blocks.is_empty() && rest.is_empty()).then(|| (*element, blocks.to_vec()))
        };
        Some(Sealed::Aes { iv, elements: parts.listed.iter().map(read).collect::<Option<_>>()? })
    }

    fn sm4(parts: &Parts<'_>) -> Option<Sealed> {
        let nonce = decoded(parts.iv)?.try_into().ok()?;
        if parts.tags.len() != parts.listed.len() {
            return None;
        }
        let read = |((element, text), tag): (&(Element, &str), &&str)| {
            Some((*element, element_bytes(text)?, decoded(tag)?.try_into().ok()?))
        };
        let elements = parts.listed.iter().zip(parts.tags).map(read).collect::<Option<_>>()?;
        Some(Sealed::Sm4 { nonce, elements })
    }
}

fn element_bytes(text: &str) -> Option<Vec<u8>> {
    decoded(text).filter(|bytes| bytes.len() <= ELEMENT_BYTES_MAX)
}

/// Standard base64; line breaks occur where a helper used a MIME encoder.
fn decoded(text: &str) -> Option<Vec<u8>> {
    if text.len() > 4 * ELEMENT_BYTES_MAX {
        return None;
    }
    if !text.contains(['\r', '\n']) {
        return STANDARD.decode(text).ok();
    }
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

/// What was encrypted, in clear; the default is nothing.
#[derive(Default)]
pub struct Opened {
    elements: Vec<(Element, Zeroizing<String>)>,
    gbk: bool,
}

impl Opened {
    /// An element as its sender meant it: decrypted, without white space around it, or as it stood in
    /// the request where it was not encrypted.
    pub fn or<'a>(&'a self, element: Element, in_request: &'a str) -> &'a str {
        let found = self.elements.iter().find(|(listed, _)| *listed == element);
        found.map_or(in_request, |(_, text)| text.trim_ascii())
    }

    /// Whether a text was GBK: Tencent's Java helper before v1.0.4 encrypts bytes of the platform's
    /// charset. Worth a line in the log, for its owner to update it.
    pub fn was_gbk(&self) -> bool {
        self.gbk
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements: Vec<_> = self.elements.iter().map(|(element, _)| element).collect();
        f.debug_struct("Opened").field("elements", &elements).field("gbk", &self.gbk).finish()
    }
}

/// A data key, expanded; zeroised when it is dropped.
pub struct DataKey {
    cipher: Cipher,
}

enum Cipher {
    Aes(Box<aes::Aes256Dec>),
    Sm4(Box<Sm4Gcm>),
}

type Sm4Gcm = AesGcm<sm4::Sm4, U12>;

impl DataKey {
    fn aes(key: &[u8; 32]) -> DataKey {
        DataKey { cipher: Cipher::Aes(Box::new(aes::Aes256Dec::new(&Array::from(*key)))) }
    }

    fn sm4(key: &Block) -> DataKey {
        DataKey { cipher: Cipher::Sm4(Box::new(Sm4Gcm::new(&Array::from(*key)))) }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// Why a private key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// Not PEM of PKCS#8 (`-----BEGIN PRIVATE KEY-----`).
    NotPkcs8,
    /// Not an RSA key of 2048 to 4096 bits.
    NotRsa,
    /// Not a key on the SM2 curve.
    NotSm2,
    /// No key of a kind, or more than [`KEYS_MAX`].
    Number,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadKey::NotPkcs8 => "not a private key in PKCS#8 PEM; `openssl pkcs8 -topk8 -nocrypt` makes one",
            BadKey::NotRsa => "not an RSA key of 2048 to 4096 bits",
            BadKey::NotSm2 => "not a key on the curve SM2",
            BadKey::Number => "one to four private keys of each kind are needed, RSA and SM2",
        })
    }
}

impl std::error::Error for BadKey {}

/// Private keys of one kind that are live at once, at most: each costs every new envelope an operation.
pub const KEYS_MAX: usize = 4;

/// The private keys an installation opens envelopes with, the newest first.
pub struct Opener {
    rsa: Vec<RsaKey>,
    sm2: Vec<Sm2Key>,
    /// Gives the key for a blob that holds none.
    substitute: Zeroizing<[u8; 32]>,
}

struct RsaKey {
    private: Pkcs1PrivateDecryptingKey,
    spki: Vec<u8>,
    pkcs1: Vec<u8>,
}

struct Sm2Key {
    private: sm2::SecretKey,
    spki: Vec<u8>,
}

impl Opener {
    /// Takes private keys in PKCS#8 PEM; the first of each kind is the one to encrypt for.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn new(rsa: &[&str], sm2: &[&str]) -> Result<Opener, BadKey> {
        let ders = |pems: &[&str]| -> Result<Vec<_>, BadKey> {
            pems.iter().map(|pem| pkcs8_der(pem).ok_or(BadKey::NotPkcs8)).collect()
        };
        let (rsa, sm2) = (ders(rsa)?, ders(sm2)?);
        let [rsa, sm2]: [Vec<&[u8]>; 2] = [&rsa, &sm2].map(|ders| ders.iter().map(|der| &der[..]).collect());
        Opener::of_der(&rsa, &sm2)
    }

    /// Takes private keys in PKCS#8 DER; the first of each kind is the one to encrypt for.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn of_der(rsa: &[&[u8]], sm2: &[&[u8]]) -> Result<Opener, BadKey> {
        if ![rsa, sm2].iter().all(|keys| (1..=KEYS_MAX).contains(&keys.len())) {
            return Err(BadKey::Number);
        }
        // From the keys themselves, so that one blob meets one substitute also after a restart.
        let mut substitute = Sha256::new_with_prefix("card4e substitute for a data key");
        rsa.iter().chain(sm2).for_each(|der| substitute.update(der));
        Ok(Opener {
            rsa: rsa.iter().map(|der| RsaKey::read(der)).collect::<Result<_, _>>()?,
            sm2: sm2.iter().map(|der| Sm2Key::read(der)).collect::<Result<_, _>>()?,
            substitute: Zeroizing::new(substitute.finalize().into()),
        })
    }

    /// Unwraps a data key. Costs a private-key operation for each live key of the kind, whichever fits
    /// and whether any does: stopping at the first would make old keys, and bad padding, slower.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> DataKey {
        let mut key = self.substitute_for(wrapped);
        match wrapped.algorithm {
            Algorithm::Aes256Cbc => {
                // The oldest first, so that of two that fit the newest stays.
                for rsa in self.rsa.iter().rev() {
                    rsa.unwrap(&wrapped.blob, &mut key);
                }
                DataKey::aes(&key)
            }
            Algorithm::Sm4Gcm => {
                let mut key = Zeroizing::new(key.first_chunk::<16>().copied().unwrap_or_default());
                for sm2 in self.sm2.iter().rev() {
                    sm2.unwrap(&wrapped.blob, &mut key);
                }
                DataKey::sm4(&key)
            }
        }
    }

    /// The public keys to encrypt for, in the forms clients take them.
    pub fn published(&self) -> Published {
        let (rsa, sm2) = (&self.rsa[0], &self.sm2[0]);
        let pkcs1_pem = pem("RSA PUBLIC KEY", &rsa.pkcs1);
        let sm2_pem = pem("PUBLIC KEY", &sm2.spki);
        Published {
            rsa: PublishedRsa {
                spki_pem: pem("PUBLIC KEY", &rsa.spki),
                node: STANDARD.encode(&pkcs1_pem),
                pkcs1_pem,
            },
            sm2: PublishedSm2 { node: STANDARD.encode(&sm2_pem), spki_pem: sm2_pem },
        }
    }

    fn substitute_for(&self, wrapped: &WrappedKey) -> Zeroizing<[u8; 32]> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.substitute).expect("any length");
        mac.update(&wrapped.blob);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rsa, sm2) = (self.rsa.len(), self.sm2.len());
        f.debug_struct("Opener").field("rsa", &rsa).field("sm2", &sm2).finish_non_exhaustive()
    }
}

/// Public keys, ready to be served as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// For AES-256-CBC.
    pub rsa: PublishedRsa,
    /// For SM4-GCM.
    pub sm2: PublishedSm2,
}

/// An RSA public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedRsa {
    /// `-----BEGIN PUBLIC KEY-----`: OpenSSL, Java, Go, Python.
    pub spki_pem: String,
    /// `-----BEGIN RSA PUBLIC KEY-----`
    pub pkcs1_pem: String,
    /// What Tencent's Node helper takes: the PKCS#1 PEM text, in base64 once more.
    pub node: String,
}

/// An SM2 public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedSm2 {
    /// `-----BEGIN PUBLIC KEY-----`
    pub spki_pem: String,
    /// What Tencent's Node helper takes: the SPKI PEM text, in base64 once more.
    pub node: String,
}

impl RsaKey {
    fn read(pkcs8: &[u8]) -> Result<RsaKey, BadKey> {
        let pair = KeyPair::from_pkcs8(pkcs8).map_err(|_| BadKey::NotRsa)?;
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| BadKey::NotRsa)?;
        if private.key_size_bytes() > BLOB_BYTES_MAX {
            return Err(BadKey::NotRsa);
        }
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| BadKey::NotRsa)?;
        Ok(RsaKey {
            spki: spki.as_ref().to_vec(),
            pkcs1: pair.public_key().as_ref().to_vec(),
            private: Pkcs1PrivateDecryptingKey::new(private).map_err(|_| BadKey::NotRsa)?,
        })
    }

    /// Replaces `key` if the blob holds one for this private key. Go's helper would split a long key
    /// into blocks; a data key is one block for every modulus that is accepted.
    fn unwrap(&self, blob: &[u8], key: &mut [u8; 32]) {
        // The length is the sender's own doing: nothing is given away by not trying.
        if blob.len() != self.private.key_size_bytes() {
            return;
        }
        let mut plain = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let len = self.private.decrypt(blob, &mut plain).map_or(0, |key| key.len());
        let is_key = (len as u64).ct_eq(&32);
        replace_if(is_key, key, &plain[..32]);
    }
}

impl Sm2Key {
    fn read(pkcs8: &[u8]) -> Result<Sm2Key, BadKey> {
        let private = sm2::SecretKey::from_pkcs8_der(pkcs8).map_err(|_| BadKey::NotSm2)?;
        let spki = [&SM2_SPKI_HEAD[..], private.public_key().to_sec1_point(false).as_bytes()].concat();
        Ok(Sm2Key { private, spki })
    }

    /// Replaces `key` if the blob holds one for this private key: GB/T 32918.4, with the point first,
    /// then the digest, then the ciphertext. Some implementations leave out the point's leading 4.
    fn unwrap(&self, blob: &[u8], key: &mut Block) {
        let mut c1 = [4; 65];
        let Some((point, rest)) = split_point(blob) else { return };
        c1[1..].copy_from_slice(point);
        let (c3, c2) = rest.split_at(32);
        // Refuses what is not on the curve; the point at infinity has no such form.
        let Ok(public) = sm2::PublicKey::from_sec1_bytes(&c1) else { return };
        let shared = public.to_projective() * *self.private.to_nonzero_scalar();
        let shared = shared.to_affine().to_sec1_point(false);
        let mut shared = Zeroizing::new(shared.as_bytes()[1..].to_vec());
        let (x2, y2) = shared.split_at(32);
        // The key derivation's first block, which is longer than a data key.
        let mut mask = Zeroizing::new([0; 32]);
        mask.copy_from_slice(
            &Sm3::new().chain_update(x2).chain_update(y2).chain_update([0, 0, 0, 1]).finalize(),
        );
        let is_masked = !mask[..16].ct_eq(&[0; 16]);
        for (byte, sealed) in mask.iter_mut().zip(c2) {
            *byte ^= sealed;
        }
        let digest = Sm3::new().chain_update(x2).chain_update(&mask[..16]).chain_update(y2).finalize();
        replace_if(digest[..].ct_eq(c3) & is_masked, key, &mask[..16]);
        shared.zeroize();
    }
}

/// `04 x y C3 C2` or `x y C3 C2` with a C2 of 16 bytes.
fn split_point(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let raw = match blob.len() {
        113 => blob.strip_prefix(&[4])?,
        112 => blob,
        _ => return None,
    };
    Some(raw.split_at(64))
}

fn replace_if(replace: Choice, key: &mut [u8], with: &[u8]) {
    for (byte, new) in key.iter_mut().zip(with) {
        byte.conditional_assign(new, replace);
    }
}

/// Decrypts CBC and takes PKCS#7's padding off, `None` if it is none.
fn cbc_opened(cipher: &aes::Aes256Dec, iv: &Block, sealed: &[Block]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(16 * sealed.len()));
    for (at, block) in sealed.iter().enumerate() {
        let mut opened = Array::from(*block);
        cipher.decrypt_block(&mut opened);
        let before = if at == 0 { iv } else { &sealed[at - 1] };
        plain.extend(opened.iter().zip(before).map(|(byte, before)| byte ^ before));
        opened.zeroize();
    }
    let padded = plain.last_chunk::<16>()?;
    let padding = padded[15];
    let mut is_padding = Choice::from(u8::from((1..=16).contains(&padding)));
    for (at, byte) in padded.iter().enumerate() {
        let is_inside = Choice::from(u8::from(at as u8 >= 16u8.saturating_sub(padding)));
        is_padding &= byte.ct_eq(&padding) | !is_inside;
    }
    if !bool::from(is_padding) {
        return None;
    }
    let len = plain.len() - usize::from(padding);
    plain.truncate(len);
    Some(plain)
}

fn gcm_opened(cipher: &Sm4Gcm, nonce: &[u8; 12], sealed: &[u8], tag: &Block) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(sealed.to_vec());
    let (nonce, tag) = (Array::from(*nonce), Array::from(*tag));
    cipher.decrypt_inout_detached(&nonce, b"", plain.as_mut_slice().into(), &tag).ok()?;
    Some(plain)
}

/// The text in these bytes and whether it was GBK.
///
/// GBK where UTF-8 is impossible, and also where UTF-8 gives neither Han nor ASCII letters while GBK
/// gives only Han: one in thirty two-character names in GBK happens to be valid UTF-8.
fn text_of(bytes: &[u8]) -> Option<(Zeroizing<String>, bool)> {
    let as_gbk = || {
        let text = encoding_rs::GBK.decode_without_bom_handling_and_without_replacement(bytes);
        text.map(|text| Zeroizing::new(text.into_owned()))
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return as_gbk().map(|text| (text, true)) };
    let is_likely = text.is_ascii() || text.chars().any(|c| is_han(c) || c.is_ascii_alphabetic());
    if !is_likely && let Some(gbk) = as_gbk().filter(|gbk| gbk.chars().all(is_han)) {
        return Some((gbk, true));
    }
    Some((Zeroizing::new(text.to_owned()), false))
}

fn is_han(c: char) -> bool {
    matches!(c, '\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// SubjectPublicKeyInfo of a point on the curve SM2, up to the point.
const SM2_SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x81,
    0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00,
];

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// What stands before the block, such as a warning that the key is public, is no part of it.
fn pkcs8_der(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    STANDARD.decode(&*body).ok().map(Zeroizing::new)
}
