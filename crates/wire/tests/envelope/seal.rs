//! A client's side: wraps and encrypts, by the same steps as Tencent's helpers.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm3::{Digest, Sm3};
use wire::Element;
use wire::envelope::{Algorithm, CannotOpen, Envelope, Opened, Opener, Parts};

pub const RSA: &str = include_str!("../../../server/src/sandbox/public-test-rsa-key.pem");
pub const SM2: &str = include_str!("../../../server/src/sandbox/public-test-sm2-key.pem");

pub fn opener() -> Opener {
    Opener::new(&[RSA], &[SM2]).unwrap()
}

/// An envelope before base64, to be tampered with.
#[derive(Clone, Debug)]
pub struct Made {
    pub algorithm: Algorithm,
    pub blob: Vec<u8>,
    pub iv: Vec<u8>,
    pub elements: Vec<(Element, Vec<u8>)>,
    pub tags: Vec<Vec<u8>>,
}

impl Made {
    /// Encrypts for the newest key of an opener.
    pub fn new(
        algorithm: Algorithm,
        to: &Opener,
        key: &[u8; 32],
        iv: &[u8; 16],
        elements: &[(Element, &[u8])],
    ) -> Made {
        let mut made =
            Made { algorithm, blob: Vec::new(), iv: iv.to_vec(), elements: Vec::new(), tags: Vec::new() };
        match algorithm {
            Algorithm::Aes256Cbc => {
                made.blob = rsa_wrapped(to, key);
                for (element, text) in elements {
                    made.elements.push((*element, cbc(key, iv, text)));
                }
            }
            Algorithm::Sm4Gcm => {
                let key = key.first_chunk().unwrap();
                made.blob = sm2_wrapped(to, key, 0x1234_5678);
                made.iv.truncate(12);
                for (element, text) in elements {
                    let (sealed, tag) = gcm(key, made.iv.as_slice().try_into().unwrap(), text);
                    made.elements.push((*element, sealed));
                    made.tags.push(tag);
                }
            }
        }
        made
    }

    pub fn read(&self) -> Result<Envelope, CannotOpen> {
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let (blob, iv) = (text(&self.blob), text(&self.iv));
        let elements: Vec<_> = self.elements.iter().map(|(element, bytes)| (*element, text(bytes))).collect();
        let listed: Vec<_> = elements.iter().map(|(element, text)| (*element, text.as_str())).collect();
        let tags: Vec<_> = self.tags.iter().map(|tag| text(tag)).collect();
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        let algorithm = self.algorithm;
        Envelope::read(Parts { algorithm, ciphertext_blob: &blob, iv: &iv, listed: &listed, tags: &tags })
    }

    pub fn open(&self, opener: &Opener) -> Result<Opened, CannotOpen> {
        let envelope = self.read()?;
        envelope.open(&opener.unwrap(envelope.wrapped_key()))
    }
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

pub fn rsa_wrapped(to: &Opener, key: &[u8]) -> Vec<u8> {
    let public = PublicEncryptingKey::from_der(&der(&to.published().rsa.spki_pem)).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(public).unwrap();
    let mut blob = vec![0; public.ciphertext_size()];
    public.encrypt(key, &mut blob).unwrap().to_vec()
}

/// `04 x y C3 C2` with the nonce `k`.
pub fn sm2_wrapped(to: &Opener, key: &[u8; 16], k: u64) -> Vec<u8> {
    let spki = der(&to.published().sm2.spki_pem);
    let public = sm2::PublicKey::from_sec1_bytes(&spki[26..]).unwrap();
    let mut nonce = [0; 32];
    nonce[24..].copy_from_slice(&k.to_be_bytes());
    let nonce = sm2::SecretKey::from_slice(&nonce).unwrap();
    let c1 = nonce.public_key().to_sec1_point(false);
    let shared = (public.to_projective() * *nonce.to_nonzero_scalar()).to_affine().to_sec1_point(false);
    let (x2, y2) = shared.as_bytes()[1..].split_at(32);
    let mask = Sm3::new().chain_update(x2).chain_update(y2).chain_update([0, 0, 0, 1]).finalize();
    let c3 = Sm3::new().chain_update(x2).chain_update(key).chain_update(y2).finalize();
    let c2: Vec<u8> = key.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    [c1.as_bytes(), &c3, &c2].concat()
}

pub fn cbc(key: &[u8; 32], iv: &[u8; 16], text: &[u8]) -> Vec<u8> {
    let padding = 16 - text.len() % 16;
    let padded = [text, &vec![padding as u8; padding]].concat();
    let cipher = aes::Aes256::new(&Array::from(*key));
    let (mut before, mut sealed) = (*iv, Vec::new());
    for block in padded.as_chunks::<16>().0 {
        let mut mixed: Array<u8, _> = Array::from(*block);
        mixed.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
        cipher.encrypt_block(&mut mixed);
        before = mixed.into();
        sealed.extend(before);
    }
    sealed
}

pub fn gcm(key: &[u8; 16], nonce: &[u8; 12], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let cipher = AesGcm::<sm4::Sm4, U12>::new(&Array::from(*key));
    let mut sealed = text.to_vec();
    let tag = cipher.encrypt_inout_detached(&Array::from(*nonce), b"", sealed.as_mut_slice().into()).unwrap();
    (sealed, tag.to_vec())
}
