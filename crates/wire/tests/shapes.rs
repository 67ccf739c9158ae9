//! The functions of the fuzz targets, on what real clients sent and on what is nearly that.

#[path = "../../../fuzz/shapes/wire.rs"]
mod shapes;

use proptest::prelude::*;

fn captures() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tencent/captures");
    let files = std::fs::read_dir(folder).expect("the captures are there");
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
    files.map(|file| read(file).expect("a capture can be read")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_request_never_panics(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..12),
    ) {
        let all = captures();
        let mut bytes = all[which.index(all.len())].clone();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => _ = bytes.remove(at),
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        shapes::request(&bytes);
        shapes::body(&bytes);
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>) {
        shapes::request(&bytes);
        shapes::body(&bytes);
    }
}
