//! Nested values as flat parameters, in both directions: `Encryption.EncryptList.0=Name`.
//!
//! A dot leads to a member, a zero-based index to an element of a list, recursively. This is how
//! GET and form requests carry structures (Tencent's page on common parameters; the same in eight
//! of its SDKs).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{ErrorCode, Fault};

/// Levels a flat name may have: `A.B` has two.
pub const DEPTH_MAX: usize = 8;
/// First index that is refused, so that a name cannot ask for a huge list.
pub const INDEX_END: usize = 1024;
/// Parameters of one request; the card actions need two dozen.
pub const PARAMETERS_MAX: usize = 1024;

/// One parameter, decoded.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Splits and decodes a query string or form body.
///
/// Both `+` and `%20` are a space: Go, Java and PHP write the first, Python, Node, .NET and Ruby the
/// second. Empty pieces are skipped, a piece without `=` has an empty value.
///
/// # Errors
/// `InvalidParameter` for text that does not decode to UTF-8 and for more than
/// [`PARAMETERS_MAX`] parameters.
pub fn pairs(raw: &str) -> Result<Vec<Pair<'_>>, Fault> {
    let mut pairs = Vec::new();
    for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
        if pairs.len() == PARAMETERS_MAX {
            return Err(too_many());
        }
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

/// Rebuilds the nested members from flat parameters; every scalar stays text.
///
/// Lists are put in order by index, because Java sends them in hash order; gaps are closed. A name
/// given twice is refused: which of the two was meant cannot be told. PHP's form spelling
/// `Encryption[EncryptList][0]` has no dots and stays a member of that odd name.
///
/// # Errors
/// `InvalidParameter` naming the parameter: given twice, both a value and a structure, both a list
/// and a structure, an empty level, too deep, or an index beyond the limit.
pub fn unflatten<'a, I>(pairs: I) -> Result<Map<String, Value>, Fault>
where
    I: IntoIterator<Item = (&'a str, &'a str)>,
{
    let mut root = BTreeMap::new();
    for (name, value) in pairs {
        insert(&mut root, name, value)?;
    }
    let mut members = Map::new();
    for (name, node) in root {
        let value = node.into_value(name)?;
        members.insert(name.to_owned(), value);
    }
    Ok(members)
}

/// Flattens members for a GET or form request; the inverse of [`unflatten`] but for types.
///
/// Nulls, empty lists and empty structures disappear, booleans become `true` and `false`, as in
/// Tencent's SDKs.
pub fn flatten(members: &Map<String, Value>) -> Vec<(String, String)> {
    let mut flat = Vec::new();
    for (name, value) in members {
        flatten_into(&mut flat, name.clone(), value);
    }
    flat
}

fn flatten_into(flat: &mut Vec<(String, String)>, name: String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(truth) => flat.push((name, truth.to_string())),
        Value::Number(number) => flat.push((name, number.to_string())),
        Value::String(text) => flat.push((name, text.clone())),
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten_into(flat, format!("{name}.{index}"), value);
            }
        }
        Value::Object(members) => {
            for (member, value) in members {
                flatten_into(flat, format!("{name}.{member}"), value);
            }
        }
    }
}

/// A value on its way from flat to nested; whether a branch is a list is known only at the end.
enum Node<'a> {
    Leaf(&'a str),
    Branch(BTreeMap<&'a str, Node<'a>>),
}

impl Node<'_> {
    fn into_value(self, name: &str) -> Result<Value, Fault> {
        let branch = match self {
            Node::Leaf(text) => return Ok(Value::String(text.to_owned())),
            Node::Branch(branch) => branch,
        };
        match branch.keys().filter(|key| is_index(key)).count() {
            0 => structure(branch, name),
            indices if indices == branch.len() => list(branch, name),
            _ => Err(Fault::parameter(name, "既是列表又是结构", "is both a list and a structure")),
        }
    }
}

fn structure(branch: BTreeMap<&str, Node<'_>>, name: &str) -> Result<Value, Fault> {
    let mut members = Map::new();
    for (member, node) in branch {
        members.insert(member.to_owned(), node.into_value(name)?);
    }
    Ok(Value::Object(members))
}

fn list(branch: BTreeMap<&str, Node<'_>>, name: &str) -> Result<Value, Fault> {
    let mut by_index = BTreeMap::new();
    for (index, node) in branch {
        match index.parse::<usize>() {
            Ok(index) if index < INDEX_END => by_index.insert(index, node.into_value(name)?),
            _ => return Err(Fault::parameter(name, "下标过大", "has too large an index")),
        };
    }
    Ok(Value::Array(by_index.into_values().collect()))
}

/// Plain decimal without leading zeros: `01` is a member's name.
fn is_index(key: &str) -> bool {
    key == "0" || (!key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit()))
}

fn insert<'a>(root: &mut BTreeMap<&'a str, Node<'a>>, name: &'a str, value: &'a str) -> Result<(), Fault> {
    if name.split('.').count() > DEPTH_MAX {
        return Err(Fault::parameter(name, "层级过深", "has too many levels"));
    }
    let (path, last) = match name.rsplit_once('.') {
        Some((path, last)) => (Some(path), last),
        None => (None, name),
    };
    let mut branch = root;
    for level in path.into_iter().flat_map(|path| path.split('.')) {
        branch = descend(branch, level, name)?;
    }
    if last.is_empty() {
        return Err(Fault::parameter(name, "名称有误", "has an empty level"));
    }
    match branch.insert(last, Node::Leaf(value)) {
        None => Ok(()),
        Some(Node::Leaf(_)) => Err(Fault::parameter(name, "重复", "is given twice")),
        Some(Node::Branch(_)) => Err(both(name)),
    }
}

fn descend<'a, 'b>(
    branch: &'b mut BTreeMap<&'a str, Node<'a>>,
    level: &'a str,
    name: &str,
) -> Result<&'b mut BTreeMap<&'a str, Node<'a>>, Fault> {
    if level.is_empty() {
        return Err(Fault::parameter(name, "名称有误", "has an empty level"));
    }
    match branch.entry(level).or_insert_with(|| Node::Branch(BTreeMap::new())) {
        Node::Branch(next) => Ok(next),
        Node::Leaf(_) => Err(both(name)),
    }
}

fn both(name: &str) -> Fault {
    Fault::parameter(name, "既是值又是结构", "is both a value and a structure")
}

fn too_many() -> Fault {
    Fault::new(
        ErrorCode::InvalidParameter,
        format!("参数个数超过 `{PARAMETERS_MAX}`。"),
        format!("The request has more than `{PARAMETERS_MAX}` parameters."),
    )
}

/// Percent and plus decoding; borrows when there is nothing to decode.
fn decode(raw: &str) -> Result<Cow<'_, str>, Fault> {
    let decoded = if raw.contains('+') {
        let spaced = raw.replace('+', " ");
        let text = percent_encoding::percent_decode_str(&spaced).decode_utf8();
        text.map(|text| Cow::Owned(text.into_owned()))
    } else {
        percent_encoding::percent_decode_str(raw).decode_utf8()
    };
    decoded.map_err(|_| {
        Fault::new(
            ErrorCode::InvalidParameter,
            "请求参数不是有效的 UTF-8 编码。",
            "The request's parameters are not valid UTF-8.",
        )
    })
}
