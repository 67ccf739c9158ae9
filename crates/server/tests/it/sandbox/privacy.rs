//! Nothing that identifies a person is left on the disk or in the log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

const MALFORMED: &str = r#"{"name":"司马相如-7","bank_card":"62284800402564890","phone":"1380013800x","id_card":"110105194912310029"}"#;
const STRANGER: &str = r#"{"name":"欧阳修竹","bank_card":"6228480402564890018","phone":"13800138001","id_card":"11010519491231002X"}"#;
const BLURTED: &str = r#"{"name":["夏侯惇元"],"bank_card":6222021234567890128,"id_card":"320311770706001""#;

/// Everything of the claims above, and of those who have an account.
fn elements(sandbox: &Sandbox) -> BTreeSet<String> {
    let mut elements =
        BTreeSet::from(["夏侯惇元", "6222021234567890128", "320311770706001"].map(str::to_owned));
    for claim in [ZHANG_WEI, NOT_ZHANG_WEI, SAMPLE, MALFORMED, STRANGER] {
        let claim: Value = serde_json::from_str(claim).unwrap();
        elements.extend(claim.as_object().unwrap().values().map(|text| text.as_str().unwrap().to_owned()));
    }
    for person in sandbox.control("GET", "accounts", "")["accounts"].as_array().unwrap() {
        for column in ["bank_card", "name", "id_number", "phone"] {
            elements.insert(person[column].as_str().unwrap().to_owned());
        }
    }
    elements.remove("");
    elements
}

/// How an element might be written; four bytes or so are too few to mean anything in sealed data.
pub fn spellings(element: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let utf8 = element.as_bytes().to_vec();
    let utf16: Vec<u8> = element.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let escaped: String = element.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let urlencoded: String = utf8.iter().map(|byte| format!("%{byte:02X}")).collect();
    let gbk = encoding_rs::GBK.encode(element).0.into_owned();
    let mut spellings = vec![
        ("hex", hex(&utf8).into_bytes()),
        ("upper-case hex", hex(&utf8).to_uppercase().into_bytes()),
        ("UTF-16 in hex", hex(&utf16).into_bytes()),
        ("UTF-8", utf8),
        ("UTF-16", utf16),
        ("GBK in hex", hex(&gbk).into_bytes()),
        ("JSON escapes", escaped.clone().into_bytes()),
        ("upper-case JSON escapes", escaped.replace("\\u", "\0").to_uppercase().replace('\0', "\\u").into()),
        ("a URL", urlencoded.to_lowercase().into_bytes()),
        ("an upper-case URL", urlencoded.into_bytes()),
    ];
    if !element.is_ascii() {
        spellings.push(("GBK", gbk.clone()));
    }
    for bytes in [element.as_bytes(), &gbk] {
        let aligned = [0, 1, 2].map(|before| base64_after(before, bytes));
        let url_safe = aligned.clone().map(|text| text.replace('+', "-").replace('/', "_"));
        spellings.extend(aligned.into_iter().chain(url_safe).map(|text| ("base64", text.into_bytes())));
    }
    spellings.retain(|(_, bytes)| bytes.len() >= 6);
    spellings
}

/// The letters that every base64 has in which these bytes stand after so many others.
fn base64_after(before: usize, bytes: &[u8]) -> String {
    use base64::Engine;
    let all = [&[0].repeat(before), bytes].concat();
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&all);
    let (first, end) = ((before * 8).div_ceil(6), all.len() * 8 / 6);
    text[first..end].to_owned()
}

pub fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Everything that is looked for, by its first two bytes: one pass over a file finds any of it.
pub struct Search(Vec<Vec<(Vec<u8>, String)>>);

impl Search {
    pub fn new(elements: &BTreeSet<String>) -> Search {
        let mut wanted = vec![Vec::new(); 1 << 16];
        for element in elements {
            for (spelling, bytes) in spellings(element) {
                let first = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                wanted[first].push((bytes, format!("{element} as {spelling}")));
            }
        }
        Search(wanted)
    }

    pub fn finds(&self, bytes: &[u8]) -> Option<&str> {
        let at = |at: usize| {
            let first = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            self.0[first].iter().find(|(wanted, _)| bytes[at..].starts_with(wanted))
        };
        (0..bytes.len().saturating_sub(1)).find_map(at).map(|(_, what)| what.as_str())
    }
}

#[test]
fn no_element_is_left_in_files_or_log() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::keeping(data.path(), "[attempts]\n[idempotency]\ncontent_window_seconds = 60\n");
    let key = [("Idempotency-Key", "order-4711")];
    for body in [ZHANG_WEI, NOT_ZHANG_WEI, SAMPLE, MALFORMED, STRANGER] {
        assert_eq!(ask(&sandbox, body).status, 200);
        ask_with(&sandbox, &key, body);
        tencent_result(&ask_tencent(&sandbox, now(), &[], body));
        // Wrongly signed: the log explains it.
        ask_tencent(&sandbox, now() - 3600, &[], body);
        ask_tencent(&sandbox, now(), &[("X-TC-Token", "x"), ("X-TC-Region", "ap-guangzhou")], body);
    }
    for body in [BLURTED, "{}"] {
        assert_eq!(ask(&sandbox, body).status, 400);
        assert!(ask_tencent(&sandbox, now(), &[], body).json()["Response"]["Error"].is_object());
    }
    sandbox.fault(r#"{"count":1,"effect":{"panic":true}}"#);
    assert_eq!(ask(&sandbox, ZHANG_WEI).status, 500);
    sandbox.control(
        "POST",
        "accounts",
        r#"{"bank_card":"6217000000000099995","name":"白素贞娘","id_number":"99010119610202001X","phone":"16100000099"}"#,
    );
    sandbox.control("POST", "reset", "");
    ask(&sandbox, STRANGER);
    let mut elements = elements(&sandbox);
    elements.extend(["6217000000000099995".to_owned(), "白素贞娘".to_owned(), "16100000099".to_owned()]);
    assert!(elements.len() > 100, "{}", elements.len());
    let log = sandbox.log();
    sandbox.stop();

    let search = Search::new(&elements);
    assert_eq!(search.finds(log.as_bytes()), None, "in the log:\n{log}");
    let mut found = Vec::new();
    files(data.path(), &mut found);
    assert!(found.len() >= 4, "{found:?}");
    for path in found {
        assert_eq!(search.finds(&std::fs::read(&path).unwrap()), None, "in {}", path.display());
    }
}

#[test]
fn the_search_would_find_one() {
    let search = Search::new(&BTreeSet::from(["6217000000000000012".to_owned(), "司马相如-7".to_owned()]));
    for element in ["6217000000000000012", "司马相如-7"] {
        for (spelling, bytes) in spellings(element) {
            let planted = [&b"before"[..], &bytes, b"after"].concat();
            assert!(search.finds(&planted).is_some_and(|what| what.starts_with(element)), "{spelling}");
            assert_eq!(search.finds(&planted[..planted.len() - 6]), None, "{spelling}");
        }
    }
}
