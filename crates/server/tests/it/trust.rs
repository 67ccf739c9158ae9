//! `docs/trust.md` and what it points at: every promise has a test that is there, and every invariant is
//! promised.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Cells of the rows of all tables with so many columns, without their headings.
fn rows(text: &str, columns: usize) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let tables = text.split("\n\n").filter(|part| part.contains("\n|---"));
    let rows = tables.flat_map(|table| table.lines().filter(|line| line.starts_with('|')).skip(2));
    rows.map(cells).filter(|cells| cells.len() == columns).collect()
}

/// What a cell names in back quotes.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `path::name`: a file from the root of the repository and a function of it.
fn is_there(test: &str) -> bool {
    let Some((path, name)) = test.split_once("::") else { return false };
    let text = std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default();
    ["fn ", "def "].iter().any(|word| text.contains(&format!("{word}{name}(")))
}

#[test]
fn every_promise_has_a_test_that_is_there() {
    let text = read("docs/trust.md");
    let promises = rows(&text, 4);
    assert!(promises.len() > 20, "{} promises", promises.len());
    for row in &promises {
        let [promise, _, tests, _] = &row[..] else { panic!("{row:?}") };
        assert!(named(tests).count() > 0, "{promise}: no test");
        for test in named(tests) {
            assert!(is_there(test), "{promise}: there is no test {test}");
        }
    }
    assert!(!is_there("crates/server/tests/it/trust.rs::no_such_test"));
}

#[test]
fn every_invariant_is_promised() {
    let invariants: BTreeSet<String> = rows(&read("ARCHITECTURE.md"), 3)
        .into_iter()
        .map(|row| row[0].clone())
        .filter(|number| number.parse::<u8>().is_ok())
        .collect();
    assert!(invariants.len() >= 9, "{invariants:?}");
    let promised: BTreeSet<String> = rows(&read("docs/trust.md"), 4)
        .iter()
        .flat_map(|row| row[1].split(", ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|number| !number.is_empty())
        .collect();
    assert_eq!(promised, invariants);
}

/// The threat model names tests by file, below `crates/`.
#[test]
fn what_the_threat_model_names_is_there() {
    for row in rows(&read("docs/threat-model.md"), 3) {
        let mut folder = String::new();
        for test in named(&row[2]) {
            // A file alone is beside the one before it.
            let beside =
                if test.contains("/src") || test.contains("/tests") { String::new() } else { folder.clone() };
            let path = Path::new(ROOT).join("crates").join(&beside).join(test);
            let is_function = !test.contains(['/', '.']);
            assert!(is_function || path.exists(), "{}: {}", row[0], path.display());
            if beside.is_empty() && !is_function {
                folder = test
                    .split_once("tests/it/")
                    .map_or(String::new(), |(before, _)| format!("{before}tests/it"));
            }
        }
    }
}
