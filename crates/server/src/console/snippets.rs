//! Code that runs when pasted: this server's address, the form's values, and the key while it is shown.

use serde_json::json;
use wire::Language;

use super::Visit;
use crate::platform::catalogue::{self, Page};

/// One language.
pub struct Snippet {
    /// Short name.
    pub id: &'static str,
    /// Name for people.
    pub label: &'static str,
    /// What it needs.
    pub note: &'static str,
    /// The code, with places that the form's script fills in.
    pub html: String,
}

/// Name, label, what it needs, code. `{url}`, `{host}`, `{scheme}`, `{token}`, `{body}`, `{action}` are filled in;
/// a line with `{m}` and `{v}` stands once for each member.
const ALL: [(&str, &str, [&str; 2], &str); 16] = [
    ("curl", "curl", ["AceData, no dependency", "AceData，无依赖"], include_str!("snippets/curl.txt")),
    (
        "python",
        "Python",
        ["AceData, standard library", "AceData，标准库"],
        include_str!("snippets/python.txt"),
    ),
    (
        "requests",
        "requests",
        ["AceData, pip install requests", "AceData，pip install requests"],
        include_str!("snippets/requests.txt"),
    ),
    (
        "node",
        "Node",
        ["AceData, fetch of Node 18 and later", "AceData，Node 18+ fetch"],
        include_str!("snippets/node.txt"),
    ),
    (
        "typescript",
        "TypeScript",
        ["AceData, fetch", "AceData，fetch"],
        include_str!("snippets/typescript.txt"),
    ),
    ("go", "Go", ["AceData, standard library", "AceData，标准库"], include_str!("snippets/go.txt")),
    ("java", "Java", ["AceData, Java 15 and later", "AceData，Java 15+"], include_str!("snippets/java.txt")),
    ("php", "PHP", ["AceData, no extension", "AceData，无需扩展"], include_str!("snippets/php.txt")),
    ("csharp", "C#", ["AceData, .NET 7 and later", "AceData，.NET 7+"], include_str!("snippets/csharp.txt")),
    ("ruby", "Ruby", ["AceData, standard library", "AceData，标准库"], include_str!("snippets/ruby.txt")),
    ("rust", "Rust", ["AceData, ureq 2", "AceData，ureq 2"], include_str!("snippets/rust.txt")),
    (
        "tc-python",
        "Tencent Python",
        ["tencentcloud-sdk-python-faceid", "tencentcloud-sdk-python-faceid"],
        include_str!("snippets/tc-python.txt"),
    ),
    (
        "tc-node",
        "Tencent Node",
        ["tencentcloud-sdk-nodejs", "tencentcloud-sdk-nodejs"],
        include_str!("snippets/tc-node.txt"),
    ),
    (
        "tc-go",
        "Tencent Go",
        ["tencentcloud-sdk-go", "tencentcloud-sdk-go"],
        include_str!("snippets/tc-go.txt"),
    ),
    (
        "tc-java",
        "Tencent Java",
        ["tencentcloud-sdk-java", "tencentcloud-sdk-java"],
        include_str!("snippets/tc-java.txt"),
    ),
    ("tccli", "tccli", ["pip install tccli", "pip install tccli"], include_str!("snippets/tccli.txt")),
];

/// The code of a page.
pub fn of(visit: &Visit, page: &Page, secret: Option<&str>) -> Vec<Snippet> {
    let host = visit.public_url.split_once("://").map_or(visit.host.as_str(), |(_, host)| host);
    let scheme = visit.public_url.split_once("://").map_or("http", |(scheme, _)| scheme);
    let base = visit.public_url.trim_end_matches('/');
    let body = body(page);
    let filled = |code: &str| {
        let mut html = escaped(&repeated(code.trim_end(), page));
        let pairs = [
            ("{url}", format!("{base}{}", page.path)),
            ("{base}", base.to_owned()),
            ("{host}", host.trim_end_matches('/').to_owned()),
            ("{scheme}", scheme.to_owned()),
            ("{SCHEME}", scheme.to_uppercase()),
            ("{action}", page.tencent.to_owned()),
        ];
        for (place, value) in pairs {
            html = html.replace(place, &escaped(&value));
        }
        let token = escaped(secret.unwrap_or("{token}"));
        html = html.replace("{token}", &format!("<span data-token>{token}</span>"));
        html = html.replace("{body}", &format!("<span data-body>{}</span>", escaped(&body)));
        for member in catalogue::members(page.action) {
            let value = format!("<span data-value=\"{0}\">{1}</span>", member.name, escaped(member.example));
            html = html.replace(&format!("{{v:{}}}", member.name), &value);
        }
        html
    };
    let snippet =
        |(id, label, note, code): &(&'static str, &'static str, [&'static str; 2], &'static str)| Snippet {
            id,
            label,
            note: note[usize::from(visit.language == Language::Chinese)],
            html: filled(code),
        };
    ALL.iter().map(snippet).collect()
}

/// A line with `{m}` stands once for each member of the Tencent wire.
fn repeated(code: &str, page: &Page) -> String {
    let members = catalogue::members(page.action);
    let line = |line: &str| -> Vec<String> {
        if !line.contains("{m}") {
            return vec![line.to_owned()];
        }
        let named = members.iter().filter(|member| !member.tencent.is_empty());
        named.map(|m| line.replace("{m}", m.tencent).replace("{v}", &format!("{{v:{}}}", m.name))).collect()
    };
    code.lines().flat_map(line).collect::<Vec<_>>().join("\n")
}

/// The example in the order of the form, in one line.
fn body(page: &Page) -> String {
    let member = |member: &catalogue::Member| format!("{}:{}", json!(member.name), json!(member.example));
    format!("{{{}}}", catalogue::members(page.action).iter().map(member).collect::<Vec<_>>().join(","))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
