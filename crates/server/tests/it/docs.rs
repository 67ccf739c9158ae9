//! The documentation against the code: pages that are written from it, links that lead somewhere, lists
//! that name everything there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::outcome::Outcome;
use engine::subject::HolderName;
use serde_json::Value;
use wire::Language;

use super::acedata::NOT_ZHANG_WEI;
use super::screens::helps;
use super::support::{PLATFORM_TOKEN, Sandbox, TOKEN};

const BEARER: &str = "Bearer 4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares a page with what the code says now, or writes it when `UPDATE_GOLDEN` is set.
fn assert_page(name: &str, text: &str) {
    let path = root().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == kept,
        "{name} is not what the code says; to write it anew: UPDATE_GOLDEN=1\n--- now\n{text}"
    );
}

#[test]
fn the_command_line() {
    let mut text = String::from(
        "# Command line\n\nEvery command with its own help, as `card4e COMMAND --help` prints it. *A test writes this page.*\n",
    );
    for (command, help) in helps() {
        let name = [&["card4e".to_owned()], &command[..]].concat().join(" ");
        text += &format!("\n## {name}\n\n```text\n{}\n```\n", help.trim_end());
    }
    assert_page("docs/cli.md", &text);
}

#[test]
fn the_metrics() {
    let mut text = String::from(
        "# Metrics\n\n`GET /metrics`, in the text format of Prometheus. Counters begin at zero with each start; a row with labels is there \
         from its first count on. A server that waits for its passphrase has `card4e_locked 1` and nothing else. What to look at, \
         a dashboard and alert rules: [monitoring.md](monitoring.md). *A test writes this page.*\n\n\
         | Name | Kind | Labels | What |\n|---|---|---|---|\n",
    );
    for (name, metric) in metrics() {
        let labels =
            metric.labels.into_iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        text += &format!("| `{name}` | {} | {labels} | {} |\n", metric.kind, metric.help);
    }
    assert_page("docs/metrics.md", &text);
}

struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// What a sandbox counts after an answer and a refusal.
fn metrics() -> BTreeMap<String, Metric> {
    let sandbox = Sandbox::start();
    for (bearer, status) in [(BEARER, 200), ("Bearer nobody", 401)] {
        let headers = [("authorization", bearer)];
        let reply =
            sandbox.request("POST", "/identity/bankcard/check-4e", &headers, NOT_ZHANG_WEI.as_bytes());
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    let text = sandbox.get("/metrics").text();
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            let metric = Metric { kind: String::new(), help: help.to_owned(), labels: BTreeSet::new() };
            assert!(metrics.insert(name.to_owned(), metric).is_none(), "{name} twice");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            kind.clone_into(&mut metrics.get_mut(name).unwrap().kind);
        } else if let Some((sample, labels)) = line.split_once('{') {
            let (_, metric) = metrics.iter_mut().find(|(name, _)| is_sample_of(sample, name)).unwrap();
            let labels = labels.rsplit_once('}').unwrap().0.split(',');
            metric.labels.extend(labels.map(|label| label.split_once('=').unwrap().0.to_owned()));
        }
    }
    metrics
}

fn is_sample_of(sample: &str, name: &str) -> bool {
    sample.strip_prefix(name).is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
}

/// A dashboard of names that nothing counts looks like a quiet day.
#[test]
fn alerts_and_dashboard_ask_for_what_is_counted() {
    let mut known: Vec<String> = metrics().into_keys().collect();
    known.push("card4e_locked".to_owned());
    for file in ["packaging/prometheus/card4e.rules.yml", "packaging/grafana/card4e.json"] {
        let text = page(file);
        let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
        let named: BTreeSet<&str> =
            words.filter(|word| word.starts_with("card4e_") || word.starts_with("process_")).collect();
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in named {
            assert!(known.iter().any(|known| is_sample_of(name, known)), "{file}: nothing counts {name}");
        }
    }
    let advice = page("docs/monitoring.md");
    for line in page("packaging/prometheus/card4e.rules.yml").lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            assert!(
                advice.contains(&format!("| `{alert}` |")),
                "docs/monitoring.md does not say what to do about {alert}"
            );
        }
    }
    let dashboard: Value = serde_json::from_str(&page("packaging/grafana/card4e.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
    }
}

#[test]
fn the_errors() {
    let mut text = String::from(
        "# Errors\n\nAn error is not an answer: nothing was verified, nothing is charged, nothing is in the ledger. The numbers of answers are in \
         [actions.md](actions.md). Programs look at the code; the text is for people, often names what is wrong, and may change. \
         *A test writes this page from the tables of the wires.*\n\n\
         ## Tencent wire\n\nAlways HTTP status 200, because the SDKs want it so: `{\"Response\":{\"Error\":{\"Code\",\"Message\"},\"RequestId\"}}`. \
         The text is Chinese, or English with `X-TC-Language: en-US`.\n\n| Code | When | Text |\n|---|---|---|\n",
    );
    for code in wire::tencent::error::ErrorCode::ALL {
        let fault = wire::tencent::error::Fault::from(*code);
        let english = fault.message(Language::English);
        text += &format!("| `{}` | {} | {english} |\n", code.as_str(), code.about());
    }
    text += "\n## AceData wire\n\n`{\"error\":{\"code\",\"message\"},\"trace_id\"}`; the last two also have `\"success\":false`. The official SDKs send a \
        POST again after 408, 409, 429 and 5xx, so only what may be cured by that has such a status.\n\n\
        | Status | Code | Text |\n|---|---|---|\n";
    for code in wire::acedata::ErrorCode::ALL {
        text += &format!("| {} | `{}` | {} |\n", code.status().as_u16(), code.as_str(), code.message());
    }
    text += "\n`token_mismatched` is sent with 401 instead if `acedata.token_mismatched_status` says so.\n\n\
        ## Native API and management API\n\n`{\"detail\",\"code\",\"trace_id\"}`: [native-api.md](native-api.md) and [console.md](console.md).\n";
    assert_page("docs/errors.md", &text);
}

/// `METHOD /path` of every row of the page's tables.
fn documented_calls() -> BTreeSet<String> {
    let text = page("docs/http.md");
    let rows =
        text.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once("` | "));
    let rows = rows.filter(|(path, _)| path.starts_with('/'));
    let calls = rows.flat_map(|(path, rest)| {
        let methods = rest.split(" | ").next().unwrap().split(", ");
        methods.map(move |method| format!("{method} {path}")).collect::<Vec<_>>()
    });
    calls.collect()
}

/// The arms of the two big matches, and the paths of the actions.
fn calls_in_the_code() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for line in include_str!("../../src/platform.rs").lines() {
        let Some((methods, path)) = line.trim().strip_prefix("(\"").and_then(|arm| arm.split_once("\", ["))
        else {
            continue;
        };
        let path = path.split_once("])").unwrap().0;
        let parts = path.split(", ").map(|part| if part == "id" { "{id}" } else { part.trim_matches('"') });
        let path = parts.collect::<Vec<_>>().join("/");
        for path in path.split("\" | \"") {
            calls.extend(methods.split("\" | \"").map(|method| format!("{method} /api/v1/{path}")));
        }
    }
    for line in include_str!("../../src/sandbox/control.rs").lines() {
        let arm = line.trim().strip_prefix("(&Method::").and_then(|arm| arm.split_once(", \""));
        if let Some((method, what)) = arm {
            calls.insert(format!("{method} /_sandbox/{}", what.split('"').next().unwrap()));
        }
    }
    calls
}

#[test]
fn the_paths() {
    let documented = documented_calls();
    let code = calls_in_the_code();
    assert!(code.len() > 60, "{code:?}");
    let missing: Vec<_> = code.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/http.md does not have {missing:?}");
    let sandbox = Sandbox::start();
    let platform = format!("Bearer {PLATFORM_TOKEN}");
    for call in &documented {
        let (method, path) = call.split_once(' ').unwrap();
        let bearer = if path.starts_with("/identity/") { BEARER } else { platform.as_str() };
        let headers = [("authorization", bearer), ("connection", "close")];
        let known = path.contains("{id}");
        let reply = sandbox.request(method, &path.replace("{id}", "none"), &headers, b"");
        let is_there = known || path == "/_sandbox/faults/ID" || ![404, 405].contains(&reply.status);
        assert!(is_there && reply.status < 500, "{call}: {} {}", reply.status, reply.text());
        assert_ne!(reply.status, 405, "{call}: {}", reply.text());
    }
}

/// What the page of names says of each spelling is what the rules do with it.
#[test]
fn the_names() {
    let text = page("docs/names.md");
    let mut seen = 0;
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [written, held, expected, ..] = cells[..] else { panic!("{row}") };
        let written = spelled_out(written);
        let class = match (HolderName::parse(&written, false), HolderName::parse(held, false)) {
            (Some(asked), Some(held)) if asked.e0() == held.e0() => "E0",
            (Some(asked), Some(held)) if asked.e1() == held.e1() => "E1",
            (Some(_), Some(_)) => Outcome::HolderMismatch.name(),
            (None, _) => Outcome::NameInvalid.name(),
            (Some(_), None) => panic!("{held} is no name"),
        };
        assert_eq!(class, expected, "{row}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

/// Puts the character in place of `U+200B` and the like, which nobody could see in a table.
fn spelled_out(text: &str) -> String {
    let mut parts = text.split("<U+");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('>').unwrap();
        out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        out += rest;
    }
    out
}

/// What stands between single back-ticks in the prose of a page.
fn code_words(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// `section.name` of every setting, those that are switched off included.
fn settings() -> BTreeSet<String> {
    let (mut section, mut settings) = (String::new(), BTreeSet::new());
    for line in include_str!("../../src/card4e.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            name.trim_matches('[').clone_into(&mut section);
        } else if let Some((name, _)) = line.split_once(" = ") {
            settings.insert(format!("{section}.{name}"));
        }
    }
    settings
}

/// A setting, command, option or error code that a page names is one.
#[test]
fn the_words() {
    let (settings, helps) = (settings(), helps());
    let sections: BTreeSet<&str> = settings.iter().filter_map(|name| name.split('.').next()).collect();
    let errors: BTreeSet<&str> =
        wire::tencent::error::ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let mut seen = [0; 3];
    for name in pages() {
        for word in code_words(&page(&name)) {
            let (first, rest) = word.split_once('.').unwrap_or((&word, ""));
            let is_name =
                |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if sections.contains(first) && is_name(rest) && !FILES.contains(&rest) {
                assert!(settings.contains(&word), "{name}: there is no setting {word}");
                seen[0] += 1;
            } else if ["AuthFailure", "UnauthorizedOperation", "FailedOperation"].contains(&first)
                && !rest.is_empty()
            {
                assert!(errors.contains(word.as_str()), "{name}: there is no error {word}");
                seen[1] += 1;
            } else if let Some(arguments) = word.strip_prefix("card4e ") {
                let arguments: Vec<&str> = arguments.split([' ', '|']).collect();
                let found = helps
                    .iter()
                    .filter(|(command, _)| !command.is_empty() && is_beginning(command, &arguments));
                let Some((command, help)) = found.max_by_key(|(command, _)| command.len()) else {
                    assert!(!is_name(arguments[0]), "{name}: there is no command {word}");
                    continue;
                };
                for option in
                    arguments.iter().filter_map(|word| word.trim_start_matches('[').strip_prefix("--"))
                {
                    let option = option.trim_end_matches([']', ',', '.']);
                    assert!(
                        help.contains(&format!("--{option}")),
                        "{name}: {command:?} has no --{option}: {word}"
                    );
                }
                seen[2] += 1;
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen > 10), "{seen:?}");
}

/// How names of files end that look like settings, such as `platform.db`.
const FILES: [&str; 6] = ["rs", "db", "json", "toml", "md", "yml"];

fn is_beginning(command: &[String], of: &[&str]) -> bool {
    command.len() <= of.len() && command.iter().zip(of).all(|(a, b)| a == b)
}

/// Every page for people, from the root of the repository.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let is_ours = !name.starts_with('.')
                && !["target", "node_modules", "corpus", "artifacts"].contains(&name.as_str());
            if is_ours && entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if name.ends_with(".md") && !name.ends_with(".head.md") {
                pages.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

/// The lines of a page that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What its headings are called in addresses, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(text).filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
        let slug = kept.collect::<String>().replace(' ', "-");
        let again = (1..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(again).find(|slug| !anchors.contains(slug));
        anchors.extend(free);
    }
    anchors
}

fn targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(text) {
        for part in line.split("](").skip(1) {
            targets.extend(part.split([')', ' ']).next().map(str::to_owned));
        }
        for part in line.split("src=\"").skip(1) {
            targets.extend(part.split('"').next().map(str::to_owned));
        }
    }
    targets
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for name in pages() {
        let text = page(&name);
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = match path {
                "" => root().join(&name),
                path => root().join(&name).parent().unwrap().join(path),
            };
            assert!(to.exists(), "{name}: nothing at {target}");
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&to).unwrap();
                assert!(anchors(&there).contains(anchor), "{name}: no heading for {target}");
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed}");
}

#[test]
fn the_index_has_every_page() {
    let index = page("docs/README.md");
    let linked: BTreeSet<String> = targets(&index).into_iter().collect();
    for name in pages() {
        if let Some(below) = name.strip_prefix("docs/").filter(|below| *below != "README.md") {
            assert!(linked.contains(below), "docs/README.md has no link to {below}");
        }
    }
}

/// Its map is where a newcomer begins.
#[test]
fn the_architecture_page_has_every_file() {
    let text = page("ARCHITECTURE.md");
    let map = text.split("```").nth(1).unwrap();
    for part in ["wire", "engine", "server"] {
        let (_, room) = map.split_once(&format!("crates/{part}/")).unwrap();
        let room = room.split("\ncrates/").next().unwrap().split("\nclients/").next().unwrap();
        let folder = root().join("crates").join(part).join("src");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_named =
                room.contains(&name) || name == "lib.rs" || name == "code.rs" || name == "golden.rs";
            assert!(
                is_named || !name.ends_with(".rs"),
                "ARCHITECTURE.md does not name crates/{part}/src/{name}"
            );
        }
        for word in room.split([' ', '\n', ',', ';', '(', ')', ':']).filter(|word| word.ends_with(".rs")) {
            let path = root().join("crates").join(part).join("src").join(word);
            assert!(path.exists(), "ARCHITECTURE.md names crates/{part}/src/{word}, which is gone");
        }
    }
}

/// Both say the same commands.
#[test]
fn the_chinese_readme_has_the_same_commands() {
    let blocks = |name: &str| -> Vec<String> {
        let text = page(name);
        text.split("```").skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(blocks("README.zh.md"), blocks("README.md"));
    assert!(page("README.md").contains("README.zh.md") && page("README.md").contains(TOKEN));
}
