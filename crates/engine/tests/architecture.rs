//! The direction of dependencies, read from the sources: server -> engine -> wire, nothing back; and
//! the wires' own words stay where they belong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

fn sources(of: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{of} has sources");
    found
}

/// Lines of code that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn nothing_points_back() {
    for (path, text) in sources("wire") {
        for line in code(&text) {
            let ours = line.trim_start().starts_with("use engine") || line.contains(" engine::");
            assert!(!ours, "{}: wire imports nothing of ours: {line}", path.display());
            for word in ["std::net", "std::fs", "SystemTime", "Instant::now", "async fn", "tokio"] {
                assert!(!line.contains(word), "{}: no IO, clock or async in wire: {line}", path.display());
            }
        }
    }
    for (path, text) in sources("engine") {
        for line in code(&text) {
            for word in ["hyper::", "http::", "card4e_server"] {
                assert!(!line.contains(word), "{}: the engine knows no HTTP: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_engine_sees_a_wire_only_where_an_outcome_becomes_a_code() {
    for (path, text) in sources("engine") {
        let allowed = path.ends_with("projection.rs") || path.to_string_lossy().contains("connector");
        let uses = code(&text).any(|line| line.contains("wire::tencent") || line.contains("wire::acedata"));
        assert!(allowed || !uses, "{} knows a wire", path.display());
    }
}

#[test]
fn spellings_of_the_wires_stay_out_of_the_engine() {
    for (path, text) in sources("engine") {
        for line in code(&text) {
            for word in ["BankCard\"", "IdCard\"", "EncryptList", "RequestId\"", "trace_id\"", "X-TC-"] {
                assert!(!line.contains(word), "{}: {word} is a wire's word: {line}", path.display());
            }
        }
    }
}

#[test]
fn rows_and_connections_stay_in_the_store() {
    for (path, text) in sources("engine") {
        let inside = path.to_string_lossy().contains("store");
        assert!(
            inside || !code(&text).any(|line| line.contains("rusqlite")),
            "{} knows SQLite",
            path.display()
        );
    }
    for (path, text) in sources("server") {
        assert!(!code(&text).any(|line| line.contains("rusqlite")), "{} knows SQLite", path.display());
    }
}
