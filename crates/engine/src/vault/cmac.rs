//! AES-256-CMAC (NIST SP 800-38B, RFC 4493) over block calls of the `aes` crate.
//!
//! The `cmac` crate sets up a context per call and costs 183-327 ns; a verification needs five, and
//! bulk import millions. This keeps the key schedule and both subkeys.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

/// A CMAC key in working form.
pub struct Cmac {
    cipher: Aes256,
    whole: [u8; 16],
    padded: [u8; 16],
}

impl Cmac {
    /// Prepares the key schedule and the subkeys.
    pub fn new(key: &[u8; 32]) -> Cmac {
        let cipher = Aes256::new(&Array::from(*key));
        let mut zero = Array::from([0u8; 16]);
        cipher.encrypt_block(&mut zero);
        let whole = doubled(zero.into());
        Cmac { cipher, whole, padded: doubled(whole) }
    }

    /// The tag over the parts, one after the other; they are not framed.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut state = [0u8; 16];
        let mut filled = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                // A block is enciphered only when another byte follows: the last one is treated apart.
                if filled == 16 {
                    state = self.enciphered(state);
                    filled = 0;
                }
                let (next, later) = rest.split_at(rest.len().min(16 - filled));
                state[filled..].iter_mut().zip(next).for_each(|(byte, next)| *byte ^= next);
                filled += next.len();
                rest = later;
            }
        }
        let subkey = if filled == 16 {
            &self.whole
        } else {
            state[filled] ^= 0x80;
            &self.padded
        };
        for (byte, key) in state.iter_mut().zip(subkey) {
            *byte ^= key;
        }
        self.enciphered(state)
    }

    /// The tags of several messages, enciphered side by side: a block waits for the one before it in its own
    /// message only, so several messages take hardly longer than the longest.
    pub fn macs<const N: usize>(&self, messages: [&[&[u8]]; N]) -> [[u8; 16]; N] {
        let padded = messages.map(Padded::of);
        if padded.iter().any(Option::is_none) {
            return messages.map(|message| self.mac(message));
        }
        let padded = padded.map(Option::unwrap_or_default);
        let mut states = [Array::from([0u8; 16]); N];
        let mut tags = [[0; 16]; N];
        let longest = padded.iter().map(|message| message.blocks).max().unwrap_or(0);
        for at in 0..longest {
            for (state, message) in states.iter_mut().zip(&padded) {
                let block = &message.text[16 * at..16 * at + 16];
                state.iter_mut().zip(block).for_each(|(state, byte)| *state ^= byte);
                if at + 1 == message.blocks {
                    let subkey = if message.is_whole { &self.whole } else { &self.padded };
                    state.iter_mut().zip(subkey).for_each(|(state, byte)| *state ^= byte);
                }
            }
            self.cipher.encrypt_blocks(&mut states);
            for ((state, message), tag) in states.iter().zip(&padded).zip(&mut tags) {
                if at + 1 == message.blocks {
                    *tag = (*state).into();
                }
            }
        }
        tags
    }

    fn enciphered(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        self.cipher.encrypt_block(&mut block);
        block.into()
    }
}

/// So long a message is enciphered beside others; elements are shorter.
const PADDED_BYTES: usize = 256;

/// A message in one piece, padded to whole blocks.
#[derive(Clone, Copy)]
struct Padded {
    text: [u8; PADDED_BYTES],
    blocks: usize,
    is_whole: bool,
}

impl Default for Padded {
    fn default() -> Padded {
        Padded { text: [0; PADDED_BYTES], blocks: 1, is_whole: false }
    }
}

impl Padded {
    /// Nothing for a message that is too long.
    fn of(parts: &[&[u8]]) -> Option<Padded> {
        let mut text = [0; PADDED_BYTES];
        let mut length = 0;
        for part in parts {
            text.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        let is_whole = length > 0 && length.is_multiple_of(16);
        if !is_whole {
            *text.get_mut(length)? = 0x80;
        }
        Some(Padded { text, blocks: length.div_ceil(16).max(1), is_whole })
    }
}

/// Multiplication by x in GF(2^128), in constant time.
fn doubled(block: [u8; 16]) -> [u8; 16] {
    let value = u128::from_be_bytes(block);
    let reduced = (value << 1) ^ (0x87 & (value >> 127).wrapping_neg());
    reduced.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f,
        0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
    ];
    const MESSAGE: [u8; 64] = [
        0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a, 0xae,
        0x2d, 0x8a, 0x57, 0x1e, 0x03, 0xac, 0x9c, 0x9e, 0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51, 0x30, 0xc8,
        0x1c, 0x46, 0xa3, 0x5c, 0xe4, 0x11, 0xe5, 0xfb, 0xc1, 0x19, 0x1a, 0x0a, 0x52, 0xef, 0xf6, 0x9f, 0x24,
        0x45, 0xdf, 0x4f, 0x9b, 0x17, 0xad, 0x2b, 0x41, 0x7b, 0xe6, 0x6c, 0x37, 0x10,
    ];

    fn hex(text: &str) -> [u8; 16] {
        u128::from_str_radix(text, 16).unwrap().to_be_bytes()
    }

    /// NIST SP 800-38B, appendix D.3 (AES-256).
    #[test]
    fn nist_vectors() {
        let cmac = Cmac::new(&KEY);
        assert_eq!(cmac.mac(&[]), hex("028962f61b7bf89efc6b551f4667d983"));
        assert_eq!(cmac.mac(&[&MESSAGE[..16]]), hex("28a7023f452e8f82bd4bf28d8c37c35c"));
        assert_eq!(cmac.mac(&[&MESSAGE[..40]]), hex("aaf3d8f1de5640c232f5b169b9c911e6"));
        assert_eq!(cmac.mac(&[&MESSAGE]), hex("e1992190549f6ed5696a2c056c315410"));
    }

    #[test]
    fn side_by_side_each_message_has_its_own_tag() {
        let cmac = Cmac::new(&KEY);
        let long = [7; 3 * PADDED_BYTES];
        let parts: Vec<[&[u8]; 2]> = [0, 1, 15, 16, 17, 40, 64, PADDED_BYTES - 1, PADDED_BYTES]
            .map(|at| [&MESSAGE[..at.min(5)], &long[..at - at.min(5)]])
            .into();
        for message in &parts {
            let tags = cmac.macs([&message[..], &[&MESSAGE[..16]], &[], &[&MESSAGE[..40]]]);
            let alone =
                [cmac.mac(message), cmac.mac(&[&MESSAGE[..16]]), cmac.mac(&[]), cmac.mac(&[&MESSAGE[..40]])];
            assert_eq!(tags, alone);
        }
        assert_eq!(
            cmac.macs([&[&long], &[b"x"]]),
            [cmac.mac(&[&long]), cmac.mac(&[b"x"])],
            "too long to be padded"
        );
    }

    #[test]
    fn parts_are_one_message() {
        let cmac = Cmac::new(&KEY);
        assert_eq!(cmac.mac(&[&MESSAGE[..7], &[], &MESSAGE[7..40]]), cmac.mac(&[&MESSAGE[..40]]));
    }
}
