//! The functions of the fuzz targets, on what the ledger holds and on what is nearly that.

#[path = "../../../fuzz/shapes/ledger.rs"]
mod shapes;

use engine::audit::Frontier;
use engine::ledger::{Block, Entry, Side, SideRows};
use proptest::prelude::*;

fn block() -> Vec<u8> {
    let (mut block, mut tree, mut sides) = (Block::new(0, 10), Frontier::default(), SideRows::default());
    for at_ms in 0..5 {
        block.push(&Entry::SandboxReset { at_ms }, &mut Side::default(), &mut tree, &mut sides);
        block.push(
            &Entry::Erased { at_ms, records: 3, account: true },
            &mut Side::default(),
            &mut tree,
            &mut sides,
        );
    }
    block.as_bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_block_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = block();
        let length = bytes.len();
        changes.iter().for_each(|(at, byte)| bytes[at.index(length)] = *byte);
        shapes::block(&bytes);
        shapes::block(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>, text: String) {
        shapes::block(&bytes);
        shapes::proofs(&bytes);
        shapes::elements(&bytes);
        shapes::elements(text.as_bytes());
    }

    #[test]
    fn elements_nearly_right(name in "\\PC{0,6}", card in "[0-9 ]{0,20}", id in "[0-9X]{0,19}", mobile in "[+0-9]{0,14}") {
        shapes::elements(format!("{name}\n{card}\n{id}\n{mobile}").as_bytes());
    }
}
