//! Golden files: what the code's own tables print is kept beside the tests and in `docs/`.

use std::path::Path;

/// Compares with the file, or writes it when `UPDATE_GOLDEN` is set.
///
/// # Panics
/// When they differ; the message says how to accept the new text.
pub fn check(path: &str, text: &str) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&full, text).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    }
    let kept = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(
        kept == text,
        "{path} differs from what the code says now; look at the difference, then run \
         UPDATE_GOLDEN=1 cargo test to accept it\n--- now\n{text}"
    );
}
