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
        let mut text = [[0; PADDED_BYTES]; N];
        let mut blocks = [0; N];
        for ((text, blocks), message) in text.iter_mut().zip(&mut blocks).zip(&messages) {
            match self.padded(message, text) {
                Some(count) => *blocks = count,
                None => return messages.map(|message| self.mac(message)),
            }
        }
        let mut states = [Array::from([0; 16]); N];
        let mut tags = [[0; 16]; N];
        for at in 0..blocks.into_iter().max().unwrap_or(0) {
            for (state, text) in states.iter_mut().zip(&text) {
                add(state, &text[16 * at..16 * at + 16]);
            }
            self.cipher.encrypt_blocks(&mut states);
            for ((state, blocks), tag) in states.iter().zip(blocks).zip(&mut tags) {
                if at + 1 == blocks {
                    *tag = (*state).into();
                }
            }
        }
        tags
    }

    /// The tags of many messages, a few of the same length at a time side by side.
    pub fn tags(&self, messages: &Messages) -> Vec<aes::Block> {
        let mut tags = vec![aes::Block::default(); messages.count];
        for (blocks, group) in (1..).zip(&messages.groups) {
            let texts = group.blocks.chunks(Messages::LANES * blocks);
            for (texts, places) in texts.zip(group.places.chunks(Messages::LANES)) {
                let mut states = [aes::Block::default(); Messages::LANES];
                let states = &mut states[..places.len()];
                for at in 0..blocks {
                    for (state, text) in states.iter_mut().zip(texts[at..].iter().step_by(blocks)) {
                        add_block(state, text);
                    }
                    self.cipher.encrypt_blocks(states);
                }
                states.iter().zip(places).for_each(|(state, place)| tags[*place as usize] = *state);
            }
        }
        tags
    }

    /// Writes the message into `text`, which is zero, as whole blocks of which the last holds the subkey: how many.
    /// Nothing for a message that is too long.
    fn padded(&self, parts: &[&[u8]], text: &mut [u8]) -> Option<usize> {
        let mut length = 0;
        for part in parts {
            text.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        let blocks = length.div_ceil(16).max(1);
        let is_whole = length == 16 * blocks;
        if !is_whole {
            *text.get_mut(length)? = 0x80;
        }
        add(text.get_mut(16 * blocks - 16..16 * blocks)?, if is_whole { &self.whole } else { &self.padded });
        Some(blocks)
    }

    fn enciphered(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        self.cipher.encrypt_block(&mut block);
        block.into()
    }
}

/// So long a message is enciphered beside others; elements are shorter.
const PADDED_BYTES: usize = 256;

/// Messages under one key, for [`Cmac::tags`]. They are people's data: wiped, and not printed.
#[derive(Default)]
pub struct Messages {
    /// By their number of blocks, from 1.
    groups: Vec<Group>,
    count: usize,
    room: usize,
}

/// Messages of the same number of blocks.
#[derive(Default)]
struct Group {
    blocks: Vec<[u8; 16]>,
    /// Which each of them is among all messages.
    places: Vec<u32>,
}

impl Messages {
    /// So many are enciphered side by side: a few times as many blocks as the processor takes at once.
    const LANES: usize = 64;

    /// Room for so many messages: those that have to move leave a copy behind.
    pub fn with_room_for(messages: usize) -> Messages {
        Messages { room: messages, ..Messages::default() }
    }

    /// Adds a message under the key that its tag is made with.
    pub fn push(&mut self, key: &Cmac, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // There is room for it.
        let _ = key.padded(parts, self.add(length.div_ceil(16).max(1)).as_flattened_mut());
    }

    /// Adds a message of two parts, of which the first is short: it is copied as a whole, whatever its length, and
    /// has this first byte.
    #[inline]
    pub fn push_behind(&mut self, key: &Cmac, head: &Head, first: u8, rest: &[u8]) {
        let length = head.length + rest.len();
        let blocks = self.add(length.div_ceil(16).max(1));
        let taken = blocks.len().min(2);
        blocks[..taken].copy_from_slice(&head.blocks[..taken]);
        blocks[0][0] = first;
        blocks.as_flattened_mut()[head.length..length].copy_from_slice(rest);
        let is_whole = length == 16 * blocks.len();
        if !is_whole {
            blocks.as_flattened_mut()[length] = 0x80;
        }
        if let Some(last) = blocks.last_mut() {
            let subkey = if is_whole { &key.whole } else { &key.padded };
            *last = (u128::from_ne_bytes(*last) ^ u128::from_ne_bytes(*subkey)).to_ne_bytes();
        }
    }

    /// A place for a message of so many blocks, which are zero.
    #[inline]
    fn add(&mut self, blocks: usize) -> &mut [[u8; 16]] {
        if self.groups.len() < blocks {
            self.groups.resize_with(blocks, Group::default);
        }
        let group = &mut self.groups[blocks - 1];
        if group.places.is_empty() {
            group.blocks.reserve(self.room * blocks);
            group.places.reserve(self.room);
        }
        let first = group.blocks.len();
        group.blocks.resize(first + blocks, [0; 16]);
        group.places.push(self.count as u32);
        self.count += 1;
        &mut group.blocks[first..]
    }
}

/// The first part of a message: a tag and a card number, with zeroes up to the end of the second block.
pub struct Head {
    blocks: [[u8; 16]; 2],
    length: usize,
}

impl Head {
    /// Nothing of more than 30 bytes.
    pub fn new(tag: [u8; 2], text: &[u8]) -> Option<Head> {
        let mut head = Head { blocks: [[0; 16]; 2], length: 2 + text.len() };
        let bytes = head.blocks.as_flattened_mut();
        bytes[..2].copy_from_slice(&tag);
        bytes.get_mut(2..head.length)?.copy_from_slice(text);
        Some(head)
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.blocks = [[0; 16]; 2];
        zeroize::optimization_barrier(&self.blocks);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.blocks.fill([0; 16]);
        zeroize::optimization_barrier(&self.blocks[..]);
    }
}

#[inline]
fn add_block(block: &mut aes::Block, other: &[u8; 16]) {
    let sum = u128::from_ne_bytes(block.0) ^ u128::from_ne_bytes(*other);
    block.0 = sum.to_ne_bytes();
}

fn add(block: &mut [u8], other: &[u8]) {
    block.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
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

    proptest::proptest! {
        #[test]
        fn many_messages_have_the_tags_they_have_alone(
            messages in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..100), 0..150),
        ) {
            let cmac = Cmac::new(&KEY);
            let mut many = Messages::default();
            for message in &messages {
                let (head, tail) = message.split_at(message.len() / 3);
                many.push(&cmac, &[head, tail]);
            }
            let mut behind = Messages::default();
            for message in messages.iter().filter(|message| message.len() >= 2) {
                let (head, tail) = message[2..].split_at((message.len() - 2).min(19));
                behind.push_behind(&cmac, &Head::new([0, message[1]], head).unwrap(), message[0], tail);
            }
            let long = messages.iter().filter(|message| message.len() >= 2);
            let alone: Vec<_> = long.map(|message| aes::Block::from(cmac.mac(&[message]))).collect();
            proptest::prop_assert_eq!(cmac.tags(&behind), alone);
            let alone: Vec<[u8; 16]> = messages.iter().map(|message| cmac.mac(&[message])).collect();
            let tags: Vec<[u8; 16]> = cmac.tags(&many).into_iter().map(|tag| tag.0).collect();
            proptest::prop_assert_eq!(tags, alone);
        }
    }

    #[test]
    fn parts_are_one_message() {
        let cmac = Cmac::new(&KEY);
        assert_eq!(cmac.mac(&[&MESSAGE[..7], &[], &MESSAGE[7..40]]), cmac.mac(&[&MESSAGE[..40]]));
    }
}
