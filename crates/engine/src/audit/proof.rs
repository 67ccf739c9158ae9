//! Proofs on the tree: that an entry is in it, and that it only ever grew (RFC 6962, section 2.1).
//!
//! A proof is a list of subtrees, each the entries of a range of leaves. Which ranges is arithmetic
//! ([`inclusion`], [`consistency`]); their roots are gathered in one reading of the leaves, so that
//! nothing but the blocks has to be stored. Checking needs the hashes alone.

use std::ops::Range;

use super::{Frontier, Hash, node};

/// The subtrees that prove that a leaf is in a tree of `size` leaves, lowest first.
///
/// Empty when there is no such leaf, and in a tree of one.
pub fn inclusion(leaf: u64, size: u64) -> Vec<Range<u64>> {
    let mut path = Vec::new();
    let mut within = 0..size;
    while within.contains(&leaf) && within.end - within.start > 1 {
        let split = within.start + split(within.end - within.start);
        let (left, right) = (within.start..split, split..within.end);
        let (inside, beside) = if leaf < split { (left, right) } else { (right, left) };
        path.push(beside);
        within = inside;
    }
    path.reverse();
    path
}

/// The subtrees that prove that a tree of `old` leaves is the beginning of one of `size`.
///
/// Empty when `old` is 0 or not smaller: then there is nothing to prove, or nothing true.
pub fn consistency(old: u64, size: u64) -> Vec<Range<u64>> {
    let mut path = Vec::new();
    if old == 0 || old >= size {
        return path;
    }
    let mut within = 0..size;
    // The checker has the root of the whole old tree; of a part of it, it must be told.
    let mut known = true;
    while old != within.end {
        let split = within.start + split(within.end - within.start);
        if old <= split {
            path.push(split..within.end);
            within = within.start..split;
        } else {
            path.push(within.start..split);
            within = split..within.end;
            known = false;
        }
    }
    if !known {
        path.push(within);
    }
    path.reverse();
    path
}

/// The largest power of two below a size of two or more.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Whether a leaf is at this place of the tree with this root, by the hashes of [`inclusion`].
pub fn includes(root: &Hash, size: u64, place: u64, leaf: &Hash, path: &[Hash]) -> bool {
    let ranges = inclusion(place, size);
    if place >= size || ranges.len() != path.len() {
        return false;
    }
    let up = |below: Hash, (beside, range): (&Hash, &Range<u64>)| match range.start > place {
        true => node(&below, beside),
        false => node(beside, &below),
    };
    path.iter().zip(&ranges).fold(*leaf, up) == *root
}

/// Whether the tree with the old root is the beginning of the one with the new root, by the hashes of
/// [`consistency`]. An empty tree is the beginning of every tree, a tree of itself.
pub fn extends(old: (u64, &Hash), new: (u64, &Hash), path: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == new_size || old_size == 0 {
        let empty = Frontier::default().root();
        let holds = if old_size == new_size { old_root == new_root } else { *old_root == empty };
        return holds && path.is_empty();
    }
    let ranges = consistency(old_size, new_size);
    if old_size > new_size || ranges.len() != path.len() {
        return false;
    }
    let mut hashes = path.iter().zip(&ranges);
    let first = match ranges.first() {
        // The old tree is a subtree of the new one: its root is where the path begins.
        Some(range) if range.start >= old_size => Some(*old_root),
        _ => hashes.next().map(|(hash, _)| *hash),
    };
    let Some(first) = first else { return false };
    let (mut old_up, mut new_up) = (first, first);
    for (beside, range) in hashes {
        if range.start >= old_size {
            new_up = node(&new_up, beside);
        } else {
            (old_up, new_up) = (node(beside, &old_up), node(beside, &new_up));
        }
    }
    old_up == *old_root && new_up == *new_root
}

/// Gathers the roots of subtrees while the leaves pass by in order.
pub struct Gathered(Vec<(Range<u64>, Frontier)>);

impl Gathered {
    /// To gather these; leaves are numbered from 0.
    pub fn new(ranges: Vec<Range<u64>>) -> Gathered {
        Gathered(ranges.into_iter().map(|range| (range, Frontier::default())).collect())
    }

    /// The leaf at a place passes by.
    pub fn pass(&mut self, place: u64, leaf: Hash) {
        let around = self.0.iter_mut().filter(|(range, _)| range.contains(&place));
        around.for_each(|(_, subtree)| subtree.push(leaf));
    }

    /// The roots, in the order of the ranges; `None` when not all of the leaves passed by.
    pub fn roots(&self) -> Option<Vec<Hash>> {
        let whole = |(range, subtree): &(Range<u64>, Frontier)| {
            (subtree.size() == range.end - range.start).then(|| subtree.root())
        };
        self.0.iter().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{leaves, root_by_definition};
    use super::*;
    use proptest::prelude::*;

    /// `PATH(m, D[n])` of RFC 6962, section 2.1.1, written as it stands there.
    fn path_by_definition(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        let n = leaves.len();
        if n <= 1 {
            return Vec::new();
        }
        let k = n.next_power_of_two() / 2;
        if m < k {
            [path_by_definition(m, &leaves[..k]), vec![root_by_definition(&leaves[k..])]].concat()
        } else {
            [path_by_definition(m - k, &leaves[k..]), vec![root_by_definition(&leaves[..k])]].concat()
        }
    }

    /// `SUBPROOF(m, D[n], b)` of RFC 6962, section 2.1.2, written as it stands there.
    fn subproof_by_definition(m: usize, leaves: &[Hash], b: bool) -> Vec<Hash> {
        let n = leaves.len();
        if m == n {
            return if b { Vec::new() } else { vec![root_by_definition(leaves)] };
        }
        let k = n.next_power_of_two() / 2;
        if m <= k {
            [subproof_by_definition(m, &leaves[..k], b), vec![root_by_definition(&leaves[k..])]].concat()
        } else {
            let right = subproof_by_definition(m - k, &leaves[k..], false);
            [right, vec![root_by_definition(&leaves[..k])]].concat()
        }
    }

    fn gathered(ranges: Vec<Range<u64>>, leaves: &[Hash]) -> Vec<Hash> {
        let mut gathered = Gathered::new(ranges);
        leaves.iter().enumerate().for_each(|(place, leaf)| gathered.pass(place as u64, *leaf));
        gathered.roots().unwrap()
    }

    #[test]
    fn every_proof_of_every_small_tree_is_that_of_the_definition_and_holds() {
        let all = leaves(70);
        for size in 1..all.len() {
            let (tree, root) = (&all[..size], root_by_definition(&all[..size]));
            for place in 0..size {
                let path = gathered(inclusion(place as u64, size as u64), tree);
                assert_eq!(path, path_by_definition(place, tree), "{place} of {size}");
                assert!(includes(&root, size as u64, place as u64, &tree[place], &path));
            }
            for old in 1..=size {
                let path = gathered(consistency(old as u64, size as u64), tree);
                assert_eq!(path, subproof_by_definition(old, tree, true), "{old} of {size}");
                let old_root = root_by_definition(&tree[..old]);
                assert!(extends((old as u64, &old_root), (size as u64, &root), &path));
            }
        }
    }

    proptest! {
        #[test]
        fn a_proof_of_something_else_does_not_hold(
            size in 1usize..200, at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
            byte in 0usize..32, bit in 0u8..8,
        ) {
            let tree = leaves(size);
            let root = root_by_definition(&tree);
            let (place, other) = (at.index(size), other.index(size));
            let path = gathered(inclusion(place as u64, size as u64), &tree);
            let holds = |leaf: &Hash, place: usize, path: &[Hash]| {
                includes(&root, size as u64, place as u64, leaf, path)
            };
            prop_assert!(holds(&tree[place], place, &path));
            prop_assert_eq!(holds(&tree[other], place, &path), other == place);
            prop_assert_eq!(holds(&tree[place], other, &path), other == place);
            prop_assert!(!holds(&tree[place], size, &path));
            prop_assert!(!holds(&tree[place], place, &[&path[..], &[root]].concat()));
            if !path.is_empty() {
                prop_assert!(!holds(&tree[place], place, &path[1..]));
                let mut changed = path.clone();
                changed[at.index(path.len())][byte] ^= 1 << bit;
                prop_assert!(!holds(&tree[place], place, &changed));
            }
        }

        #[test]
        fn a_tree_that_was_rewritten_extends_nothing(
            size in 2usize..200, at in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>(),
        ) {
            let mut tree = leaves(size);
            let old = 1 + at.index(size - 1);
            let old_root = root_by_definition(&tree[..old]);
            tree[changed.index(old)][0] ^= 1;
            let (old, new) = ((old as u64, &old_root), (size as u64, &root_by_definition(&tree)));
            let path = gathered(consistency(old.0, new.0), &tree);
            prop_assert!(!extends(old, new, &path));
            prop_assert!(!extends(new, old, &path), "and none shrinks");
        }

        #[test]
        fn nonsense_is_refused_and_never_panics(
            old in any::<u64>(), new in any::<u64>(), place in any::<u64>(),
            path in proptest::collection::vec(any::<[u8; 32]>(), 0..70), root in any::<[u8; 32]>(),
        ) {
            prop_assert!(!includes(&root, new, place, &[0; 32], &path));
            prop_assert!(!extends((old, &[0; 32]), (new, &root), &path));
        }
    }
}
