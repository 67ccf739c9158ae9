//! The Merkle tree over all ledger entries (RFC 6962) and its signed checkpoints.
//!
//! A leaf is `H(0x00 || commitment || entry)`, where `commitment = H(salt || side)` covers the
//! erasable side row (subject reference, masks, idempotency, attempts). Erasing a side row leaves
//! the commitment, so every leaf, root and proof can still be recomputed, and tells nothing about
//! whom the entry was about.

pub mod proof;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node of the tree: SHA-256.
pub type Hash = [u8; 32];

/// Commits an entry to its side row.
pub fn commitment(salt: &[u8; 16], side: &[u8]) -> Hash {
    digest(&[salt, side])
}

/// The leaf of an entry.
pub fn leaf(commitment: &Hash, entry: &[u8]) -> Hash {
    digest(&[&[0], commitment, entry])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    digest(&[&[1], left, right])
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// What must be remembered of a tree to let it grow: the roots of its perfect subtrees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// A tree of this many leaves with these peaks; `None` when there cannot be so many of them.
    pub fn of(size: u64, peaks: Vec<Hash>) -> Option<Frontier> {
        (peaks.len() == size.count_ones() as usize).then_some(Frontier { size, peaks })
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut top = leaf;
        // One merge for every trailing one bit: two equal subtrees become one of twice the size.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                top = node(&left, &top);
            }
        }
        self.peaks.push(top);
        self.size += 1;
    }

    /// Root of the tree; of an empty tree the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return digest(&[]) };
        peaks.fold(*last, |right, left| node(left, &right))
    }
}

/// A statement, signed by the node, of how its tree looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// When it was made, Unix milliseconds.
    pub at_ms: i64,
    /// Ed25519 over [`Checkpoint::message`].
    pub signature: [u8; 64],
    /// Version of the key that signed it.
    pub key: u32,
}

impl Checkpoint {
    /// The signed text: origin, size, root and time, one a line.
    pub fn message(size: u64, root: &Hash, at_ms: i64) -> String {
        format!("card4e audit v1\n{size}\n{}\n{at_ms}\n", crate::file::hex(root))
    }

    /// Whether the holder of the audit key made this statement.
    pub fn holds(&self, public_key: &[u8; 32]) -> bool {
        let message = Checkpoint::message(self.size, &self.root, self.at_ms);
        crate::vault::signature_holds(public_key, message.as_bytes(), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962, section 2.1, written as it stands there.
    pub(super) fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => digest(&[]),
            [one] => *one,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&root_by_definition(&leaves[..split]), &root_by_definition(&leaves[split..]))
            }
        }
    }

    pub(super) fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|i| leaf(&[0; 32], &i.to_be_bytes())).collect()
    }

    proptest! {
        #[test]
        fn the_frontier_grows_to_the_root_of_the_definition(count in 0usize..300) {
            let leaves = leaves(count);
            let mut frontier = Frontier::default();
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(frontier.size(), count as u64);
            prop_assert_eq!(frontier.root(), root_by_definition(&leaves));
        }
    }

    #[test]
    fn the_salt_hides_the_side_and_the_entry_changes_the_leaf() {
        let one = commitment(&[1; 16], b"side");
        assert_ne!(one, commitment(&[2; 16], b"side"));
        assert_ne!(leaf(&one, b"a"), leaf(&one, b"b"));
    }
}
