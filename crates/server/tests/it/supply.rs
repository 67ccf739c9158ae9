//! What the binary is made of: every package from the registry, under a licence that `deny.toml` allows, none
//! that it forbids, and each direct dependency with its reason. What `cargo deny check licenses bans sources`
//! checks, without its long build; advisories need its database.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml::Table;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn policy() -> (String, Table) {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let table = text.parse().unwrap();
    (text, table)
}

/// All packages of the platforms in `deny.toml`; what Cargo has at hand, without the network.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone());
    let used: BTreeSet<String> = used.map(|id| id.as_str().unwrap().to_owned()).collect();
    let all = metadata["packages"].as_array().unwrap().iter();
    all.filter(|package| used.contains(package["id"].as_str().unwrap())).cloned().collect()
}

/// Whether a licence expression can be satisfied with what is allowed.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut words = expression.replace('(', " ( ").replace(')', " ) ");
    // An exception belongs to its licence.
    words = words.replace(" WITH ", "+WITH+");
    let words: Vec<&str> = words.split_whitespace().collect();
    any_of(&mut words.iter().copied().peekable(), allowed)
}

type Words<'a> = std::iter::Peekable<std::iter::Copied<std::slice::Iter<'a, &'a str>>>;

fn any_of(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut is = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is |= all_of(words, allowed);
    }
    is
}

fn all_of(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut is = one_of(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is &= one_of(words, allowed);
    }
    is
}

fn one_of(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => {
            let is = any_of(words, allowed);
            assert_eq!(words.next(), Some(")"), "a licence expression");
            is
        }
        word => word.is_some_and(|word| allowed.contains(&word.replace("+WITH+", " WITH ").as_str())),
    }
}

#[test]
fn licences_and_sources_are_those_we_allow() {
    let (_, policy) = policy();
    let allowed = policy["licenses"]["allow"].as_array().unwrap();
    let allowed: Vec<&str> = allowed.iter().map(|licence| licence.as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in packages() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name}: {licence}"));
        }
        match package["source"].as_str() {
            None => assert_eq!(licence, "Apache-2.0", "{name} is ours"),
            Some(source) => assert_eq!(source, REGISTRY, "{name}"),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(is_allowed("(MIT OR GPL-3.0) AND Zlib", &allowed) && is_allowed("GPL-3.0/MIT", &allowed));
    assert!(!is_allowed("MIT AND GPL-3.0", &allowed) && !is_allowed("GPL-3.0", &allowed));
}

#[test]
fn nothing_forbidden_is_there_and_each_direct_dependency_has_its_reason() {
    let (text, policy) = policy();
    let reasons: String = text.lines().filter(|line| line.starts_with('#')).collect();
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    for banned in policy["bans"]["deny"].as_array().unwrap() {
        assert!(!names.contains(banned["crate"].as_str().unwrap()), "{banned}");
    }
    let own = packages.iter().filter(|package| package["source"].is_null());
    let mut missing = BTreeSet::new();
    let direct = own.flat_map(|package| package["dependencies"].as_array().unwrap());
    for dependency in direct.filter(|dependency| !dependency["source"].is_null()) {
        let name = dependency["name"].as_str().unwrap();
        let mut words = reasons.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        if !words.any(|word| word == name) {
            missing.insert(name.to_owned());
        }
        assert_ne!(dependency["req"], "*", "{name}");
    }
    assert!(missing.is_empty(), "say in deny.toml why these are there: {missing:?}");
}

#[test]
fn no_feature_changes_what_the_binary_does_and_no_build_script_is_ours() {
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let name = &package["name"];
        assert_eq!(package["features"], serde_json::json!({}), "{name}");
        let targets = package["targets"].as_array().unwrap();
        assert!(targets.iter().all(|target| target["kind"][0] != "custom-build"), "{name}");
    }
}
