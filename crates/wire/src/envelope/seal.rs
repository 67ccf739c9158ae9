//! Sealing elements for somebody else: the other side of an [`Opener`](super::Opener), by the steps of
//! Tencent's own helpers. Randomness is handed in.

use std::fmt;

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::AeadInOut;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm3::{Digest, Sm3};
use zeroize::{Zeroize, Zeroizing};

use super::{Algorithm, BadKey, Block, CannotOpen, SM2_SPKI_HEAD, Sm4Gcm};
use crate::Element;

/// A provider's public key, to seal elements for it: what [`Opener`](super::Opener) opens.
pub enum Recipient {
    /// AES-256-CBC under a data key wrapped by RSA with PKCS#1 v1.5 padding.
    Rsa(Pkcs1PublicEncryptingKey),
    /// SM4-GCM under a data key wrapped by SM2.
    Sm2(sm2::PublicKey),
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Recipient::Rsa(_) => "Recipient(RSA)",
            Recipient::Sm2(_) => "Recipient(SM2)",
        })
    }
}

/// What has to be drawn for one envelope. Does not print.
pub struct Drawn {
    /// The data key; SM4 takes its first half.
    pub key: Zeroizing<[u8; 32]>,
    /// The initial vector; SM4-GCM takes its first 12 bytes.
    pub iv: [u8; 16],
    /// The ephemeral SM2 key.
    pub nonce: Zeroizing<[u8; 32]>,
}

/// Sealed elements as they go on the wire: all of it base64.
pub struct Sealed {
    /// With what.
    pub algorithm: Algorithm,
    /// The wrapped data key.
    pub ciphertext_blob: String,
    /// The initial vector.
    pub iv: String,
    elements: Vec<(Element, String)>,
    /// One tag an element, for SM4-GCM.
    pub tags: Vec<String>,
}

impl Sealed {
    /// One of the elements, if it is sealed.
    pub fn get(&self, element: Element) -> Option<&str> {
        self.elements.iter().find(|(known, _)| *known == element).map(|(_, text)| text.as_str())
    }
}

impl Recipient {
    /// Reads a public key: `-----BEGIN PUBLIC KEY-----`, RSA or SM2.
    ///
    /// # Errors
    /// It is neither.
    pub fn from_pem(pem: &str) -> Result<Recipient, BadKey> {
        let body = pem
            .split_once("-----BEGIN PUBLIC KEY-----")
            .and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"));
        let Some((body, _)) = body else { return Err(BadKey::NotRsa) };
        let der = STANDARD.decode(body.split_ascii_whitespace().collect::<String>());
        let der = der.map_err(|_| BadKey::NotRsa)?;
        if let Some(point) = der.strip_prefix(&SM2_SPKI_HEAD) {
            return Ok(Recipient::Sm2(sm2::PublicKey::from_sec1_bytes(point).map_err(|_| BadKey::NotSm2)?));
        }
        let key = PublicEncryptingKey::from_der(&der).map_err(|_| BadKey::NotRsa)?;
        Ok(Recipient::Rsa(Pkcs1PublicEncryptingKey::new(key).map_err(|_| BadKey::NotRsa)?))
    }

    /// Seals elements, in this order.
    ///
    /// # Errors
    /// The drawn SM2 key is none, which nobody will ever see.
    pub fn seal(&self, elements: &[(Element, &str)], drawn: &Drawn) -> Result<Sealed, CannotOpen> {
        match self {
            Recipient::Rsa(key) => {
                let mut blob = vec![0; key.ciphertext_size()];
                let blob = key.encrypt(&drawn.key[..], &mut blob).map_err(|_| CannotOpen::Failed)?;
                let cipher = aes::Aes256Enc::new(&Array::from(*drawn.key));
                let sealed = |(element, text): &(Element, &str)| {
                    (*element, STANDARD.encode(cbc_sealed(&cipher, &drawn.iv, text.as_bytes())))
                };
                Ok(Sealed {
                    algorithm: Algorithm::Aes256Cbc,
                    ciphertext_blob: STANDARD.encode(blob),
                    iv: STANDARD.encode(drawn.iv),
                    elements: elements.iter().map(sealed).collect(),
                    tags: Vec::new(),
                })
            }
            Recipient::Sm2(key) => {
                let Some((data_key, _)) = drawn.key.split_first_chunk::<16>() else {
                    return Err(CannotOpen::Failed);
                };
                let Some((iv, _)) = drawn.iv.split_first_chunk::<12>() else {
                    return Err(CannotOpen::Failed);
                };
                let cipher = Sm4Gcm::new(&Array::from(*data_key));
                let (mut sealed, mut tags) = (Vec::new(), Vec::new());
                for (element, text) in elements {
                    let mut bytes = text.as_bytes().to_vec();
                    let tag = cipher
                        .encrypt_inout_detached(&Array::from(*iv), b"", bytes.as_mut_slice().into())
                        .map_err(|_| CannotOpen::Failed)?;
                    sealed.push((*element, STANDARD.encode(bytes)));
                    tags.push(STANDARD.encode(tag));
                }
                Ok(Sealed {
                    algorithm: Algorithm::Sm4Gcm,
                    ciphertext_blob: STANDARD.encode(sm2_wrapped(key, data_key, &drawn.nonce)?),
                    iv: STANDARD.encode(iv),
                    elements: sealed,
                    tags,
                })
            }
        }
    }
}

/// `04 x y C3 C2`, GB/T 32918.4.
fn sm2_wrapped(to: &sm2::PublicKey, key: &[u8; 16], nonce: &[u8; 32]) -> Result<Vec<u8>, CannotOpen> {
    let nonce = sm2::SecretKey::from_slice(nonce).map_err(|_| CannotOpen::Failed)?;
    let c1 = nonce.public_key().to_sec1_point(false);
    let shared = (to.to_projective() * *nonce.to_nonzero_scalar()).to_affine().to_sec1_point(false);
    let mut shared = Zeroizing::new(shared.as_bytes()[1..].to_vec());
    let (x2, y2) = shared.split_at(32);
    let mask = Zeroizing::new(<[u8; 32]>::from(
        Sm3::new().chain_update(x2).chain_update(y2).chain_update([0, 0, 0, 1]).finalize(),
    ));
    let c3 = Sm3::new().chain_update(x2).chain_update(key).chain_update(y2).finalize();
    let c2: Vec<u8> = key.iter().zip(mask.iter()).map(|(byte, mask)| byte ^ mask).collect();
    shared.zeroize();
    Ok([c1.as_bytes(), &c3, &c2].concat())
}

/// Encrypts with CBC and PKCS#7's padding.
fn cbc_sealed(cipher: &aes::Aes256Enc, iv: &Block, text: &[u8]) -> Vec<u8> {
    let padding = 16 - text.len() % 16;
    let padded = Zeroizing::new([text, &vec![padding as u8; padding]].concat());
    let (mut before, mut sealed) = (*iv, Vec::with_capacity(padded.len()));
    for block in padded.as_chunks::<16>().0 {
        let mut mixed: Array<u8, _> = Array::from(*block);
        mixed.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
        cipher.encrypt_block(&mut mixed);
        before = mixed.into();
        sealed.extend(before);
    }
    sealed
}
