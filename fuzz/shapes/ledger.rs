//! What the ledger and evidence files hold, read as a start and a check read it. Whatever the bytes are,
//! nothing panics, and what is read is written as it was.
//!
//! Used by the fuzz targets, and on every `cargo test` by `crates/engine/tests/shapes.rs`.

use engine::audit::{Frontier, Hash, proof};
use engine::caller::Action;
use engine::claim::Claim;
use engine::ledger::{Block, Entry};
use engine::subject::{Date, ParseOptions, Subject};

/// A block row.
pub fn block(bytes: &[u8]) {
    if let Ok(block) = Block::from_bytes(bytes) {
        let _ = block.decoded();
        let again = Block::from_bytes(block.as_bytes()).map(|again| again == block);
        assert!(again.is_ok_and(|same| same), "a block is written as it was read");
    }
    let _ = Entry::from_bytes(bytes);
}

/// A proof: two sizes, a place, then hashes.
pub fn proofs(bytes: &[u8]) {
    let (numbers, hashes) = bytes.split_at(bytes.len().min(24));
    let number =
        |at: usize| numbers.get(at..at + 8).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    let path: Vec<Hash> = hashes.chunks_exact(32).filter_map(|hash| hash.try_into().ok()).collect();
    let root = path.first().copied().unwrap_or_default();
    let _ = proof::includes(&root, number(0), number(8), &root, &path);
    let _ = proof::extends((number(0), &root), (number(16), &root), &path);
    if let Some(mut tree) = Frontier::of(number(0) >> 1, path) {
        tree.push(root);
        let _ = tree.root();
    }
}

/// The four elements, one a line.
pub fn elements(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (name, card, id, mobile) = (next(), next(), next(), next());
    let claim = Claim::new(name, card, id, mobile, 0);
    let is_long = card.chars().count() >= 13;
    assert!(!is_long || !format!("{claim:?}").contains(card), "a claim prints nothing of itself");
    if let Some(today) = Date::new(2026, 11, 21) {
        let options = ParseOptions { test_land: true, ..ParseOptions::new(today) };
        Action::ALL.into_iter().for_each(|action| _ = Subject::parse(action, &claim, &options));
    }
}
