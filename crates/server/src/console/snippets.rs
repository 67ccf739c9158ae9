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
    /// Whether the tests run it as it is copied from the page.
    pub is_run: bool,
    /// The code, with places that the form's script fills in.
    pub html: String,
}

/// A language, as it is kept here.
struct Form {
    id: &'static str,
    label: &'static str,
    /// What it needs, in English and in Chinese.
    needs: [&'static str; 2],
    /// Whether the tests run it as it is copied from the page.
    is_run: bool,
    /// `{url}`, `{host}`, `{scheme}`, `{token}`, `{body}`, `{tbody}`, `{action}` are filled in; a line with `{m}`
    /// and `{v}` stands once for each member.
    code: &'static str,
}

/// The languages in the order of the page, one wire after the other.
const ALL: [Form; 22] = [
    Form {
        id: "curl",
        label: "curl",
        needs: ["AceData, no dependency", "AceData，无依赖"],
        is_run: true,
        code: include_str!("snippets/curl.txt"),
    },
    Form {
        id: "python",
        label: "Python",
        needs: ["AceData, standard library", "AceData，标准库"],
        is_run: true,
        code: include_str!("snippets/python.txt"),
    },
    Form {
        id: "requests",
        label: "requests",
        needs: ["AceData, pip install requests", "AceData，pip install requests"],
        is_run: true,
        code: include_str!("snippets/requests.txt"),
    },
    Form {
        id: "node",
        label: "Node",
        needs: ["AceData, fetch of Node 18 and later", "AceData，Node 18+ fetch"],
        is_run: true,
        code: include_str!("snippets/node.txt"),
    },
    Form {
        id: "typescript",
        label: "TypeScript",
        needs: ["AceData, fetch", "AceData，fetch"],
        is_run: false,
        code: include_str!("snippets/typescript.txt"),
    },
    Form {
        id: "go",
        label: "Go",
        needs: ["AceData, standard library", "AceData，标准库"],
        is_run: true,
        code: include_str!("snippets/go.txt"),
    },
    Form {
        id: "java",
        label: "Java",
        needs: ["AceData, Java 15 and later", "AceData，Java 15+"],
        is_run: true,
        code: include_str!("snippets/java.txt"),
    },
    Form {
        id: "php",
        label: "PHP",
        needs: ["AceData, no extension", "AceData，无需扩展"],
        is_run: true,
        code: include_str!("snippets/php.txt"),
    },
    Form {
        id: "csharp",
        label: "C#",
        needs: ["AceData, .NET 7 and later", "AceData，.NET 7+"],
        is_run: false,
        code: include_str!("snippets/csharp.txt"),
    },
    Form {
        id: "ruby",
        label: "Ruby",
        needs: ["AceData, standard library", "AceData，标准库"],
        is_run: true,
        code: include_str!("snippets/ruby.txt"),
    },
    Form {
        id: "rust",
        label: "Rust",
        needs: ["AceData, ureq 2", "AceData，ureq 2"],
        is_run: false,
        code: include_str!("snippets/rust.txt"),
    },
    Form {
        id: "tc-curl",
        label: "Tencent curl",
        needs: ["POSIX shell, openssl, curl", "POSIX shell、openssl、curl"],
        is_run: true,
        code: include_str!("snippets/tc-curl.txt"),
    },
    Form {
        id: "tc-python",
        label: "Tencent Python",
        needs: ["pip install tencentcloud-sdk-python-faceid", "pip install tencentcloud-sdk-python-faceid"],
        is_run: true,
        code: include_str!("snippets/tc-python.txt"),
    },
    Form {
        id: "tc-node",
        label: "Tencent Node",
        needs: ["npm install tencentcloud-sdk-nodejs", "npm install tencentcloud-sdk-nodejs"],
        is_run: true,
        code: include_str!("snippets/tc-node.txt"),
    },
    Form {
        id: "tc-typescript",
        label: "Tencent TypeScript",
        needs: ["npm install tencentcloud-sdk-nodejs", "npm install tencentcloud-sdk-nodejs"],
        is_run: false,
        code: include_str!("snippets/tc-typescript.txt"),
    },
    Form {
        id: "tc-go",
        label: "Tencent Go",
        needs: [
            "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/faceid",
            "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/faceid",
        ],
        is_run: false,
        code: include_str!("snippets/tc-go.txt"),
    },
    Form {
        id: "tc-java",
        label: "Tencent Java",
        needs: [
            "com.tencentcloudapi:tencentcloud-sdk-java-faceid",
            "com.tencentcloudapi:tencentcloud-sdk-java-faceid",
        ],
        is_run: false,
        code: include_str!("snippets/tc-java.txt"),
    },
    Form {
        id: "tc-php",
        label: "Tencent PHP",
        needs: ["composer require tencentcloud/faceid", "composer require tencentcloud/faceid"],
        is_run: false,
        code: include_str!("snippets/tc-php.txt"),
    },
    Form {
        id: "tc-csharp",
        label: "Tencent C#",
        needs: ["dotnet add package TencentCloudSDK.Faceid", "dotnet add package TencentCloudSDK.Faceid"],
        is_run: false,
        code: include_str!("snippets/tc-csharp.txt"),
    },
    Form {
        id: "tc-ruby",
        label: "Tencent Ruby",
        needs: ["gem install tencentcloud-sdk-faceid", "gem install tencentcloud-sdk-faceid"],
        is_run: false,
        code: include_str!("snippets/tc-ruby.txt"),
    },
    Form {
        id: "tc-rust",
        label: "Tencent Rust",
        needs: [
            "no SDK: ureq 2, hmac 0.13, sha2 0.11, hex 0.4, chrono 0.4",
            "无 SDK：ureq 2、hmac 0.13、sha2 0.11、hex 0.4、chrono 0.4",
        ],
        is_run: false,
        code: include_str!("snippets/tc-rust.txt"),
    },
    Form {
        id: "tccli",
        label: "tccli",
        needs: ["pip install tccli", "pip install tccli"],
        is_run: true,
        code: include_str!("snippets/tccli.txt"),
    },
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
        html = html.replace("{tbody}", &escaped(&tencent_body(page)));
        for member in catalogue::members(page.action) {
            let value = format!("<span data-value=\"{0}\">{1}</span>", member.name, escaped(member.example));
            html = html.replace(&format!("{{v:{}}}", member.name), &value);
        }
        html
    };
    let snippet = |form: &Form| Snippet {
        id: form.id,
        label: form.label,
        note: form.needs[usize::from(visit.language == Language::Chinese)],
        is_run: form.is_run,
        html: filled(form.code),
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

/// The same as the Tencent wire names it, with places for the values.
fn tencent_body(page: &Page) -> String {
    let named = catalogue::members(page.action).into_iter().filter(|member| !member.tencent.is_empty());
    let member = |member: catalogue::Member| format!("{}:\"{{v:{}}}\"", json!(member.tencent), member.name);
    format!("{{{}}}", named.map(member).collect::<Vec<_>>().join(","))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
