//! Evidence that somebody else can check: JSON, one object a line, as `docs/audit.md` describes it.
//!
//! [`check`] needs the evidence and the public keys alone. It takes nothing in a file for granted: what
//! an entry says is read from its bytes again, and every hash is computed again.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, bail, ensure};
use engine::audit::{self, Checkpoint, Frontier, Hash, proof};
use engine::clock::{Millis, utc_text};
use engine::file::{hex, unhex};
use engine::ledger::{Credits, Entry};
use engine::outcome::Reason;
use engine::spending::Asking;
use engine::verify::uuid_text;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Version of the format; another one is refused.
pub const VERSION: u32 = 1;

/// One line of evidence.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// An export begins. The tree before its first entry is given by its peaks.
    Export { version: u32, since: Option<String>, until: Option<String>, first_leaf: u64, peaks: Vec<Hex> },
    /// An entry of an export.
    Entry(Stated),
    /// The tree as it was signed. In an export: after the entries before it; alone: to be kept.
    Checkpoint(Signed),
    /// An export ends: its tree is the beginning of a signed one.
    End { checkpoint: Signed, consistency: Vec<Hex> },
    /// One entry is in a signed tree.
    Inclusion { version: u32, entry: Stated, path: Vec<Hex>, checkpoint: Signed },
    /// One signed tree is the beginning of another.
    Growth { version: u32, old: Signed, new: Signed, consistency: Vec<Hex> },
}

/// An entry with its place in the tree.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// How many entries are before it.
    pub leaf: u64,
    /// To the side row, which may be erased.
    pub commitment: Hex,
    /// Its bytes.
    pub entry: Hex,
    /// The same for people; a check holds it against the bytes.
    pub says: Value,
}

impl Stated {
    /// Of a leaf.
    pub fn of(leaf: &engine::store::Leaf<'_>) -> Stated {
        let (commitment, entry) = (Hex(leaf.commitment.to_vec()), Hex(leaf.bytes.to_vec()));
        Stated { leaf: leaf.place, commitment, entry, says: says(leaf.entry) }
    }

    fn checked(&self) -> anyhow::Result<(Hash, Entry)> {
        let entry = Entry::from_bytes(&self.entry.0)
            .with_context(|| format!("the bytes of entry {} are no entry", self.leaf))?;
        ensure!(self.says == says(&entry), "entry {} says something else than its bytes", self.leaf);
        Ok((audit::leaf(&self.commitment.hash()?, &self.entry.0), entry))
    }
}

/// A checkpoint with the public key that it was signed with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// Number of leaves.
    pub size: u64,
    root: Hex,
    /// When, Unix milliseconds.
    pub at_ms: Millis,
    public_key: Hex,
    signature: Hex,
}

impl Signed {
    /// A checkpoint, signed with the key of this public half.
    pub fn of(checkpoint: &Checkpoint, public_key: &[u8; 32]) -> Signed {
        Signed {
            size: checkpoint.size,
            root: Hex(checkpoint.root.to_vec()),
            at_ms: checkpoint.at_ms,
            public_key: Hex(public_key.to_vec()),
            signature: Hex(checkpoint.signature.to_vec()),
        }
    }

    /// The root, when the signature holds and is of one of these keys.
    pub fn checked(&self, keys: &[[u8; 32]]) -> anyhow::Result<Hash> {
        let public_key = self.public_key.hash()?;
        ensure!(
            keys.contains(&public_key),
            "the checkpoint at {} is signed with {}, which is not a key you gave; `card4e audit key` on the \
             installation prints its keys",
            self.size,
            hex(&public_key)
        );
        let signature = self.signature.0[..].try_into().context("a signature has 64 bytes")?;
        let root = self.root.hash()?;
        let checkpoint = Checkpoint { size: self.size, root, at_ms: self.at_ms, signature, ..BARE };
        ensure!(checkpoint.holds(&public_key), "the signature of the checkpoint at {} is wrong", self.size);
        Ok(root)
    }
}

const BARE: Checkpoint = Checkpoint { size: 0, root: [0; 32], at_ms: 0, signature: [0; 64], key: 0 };

/// Bytes, written in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hex(pub Vec<u8>);

impl Hex {
    fn hash(&self) -> anyhow::Result<Hash> {
        self.0[..].try_into().context("a hash or a key has 32 bytes")
    }
}

impl From<Hex> for String {
    fn from(bytes: Hex) -> String {
        hex(&bytes.0)
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Hex, String> {
        unhex(&text).map(Hex).ok_or_else(|| format!("`{text}` is not hex"))
    }
}

/// Hashes as they are written.
pub fn written(hashes: &[Hash]) -> Vec<Hex> {
    hashes.iter().map(|hash| Hex(hash.to_vec())).collect()
}

fn read(hashes: &[Hex]) -> anyhow::Result<Vec<Hash>> {
    hashes.iter().map(Hex::hash).collect()
}

/// An entry in the words of the documentation: numbers of callers and credentials, no names.
pub fn says(entry: &Entry) -> Value {
    match entry {
        Entry::Answer(answer) => json!({
            "kind": "answer",
            "request_id": uuid_text(&answer.request),
            "time": utc_text(answer.at_ms),
            "at_ms": answer.at_ms,
            "application": answer.application.0,
            "credential": answer.credential.0,
            "wire": answer.wire.name(),
            "action": answer.action.name(),
            "outcome": answer.outcome.name(),
            "row": answer.row.0,
            "name_class": answer.name_class.map(|class| class.name()),
            "charged": answer.charged.to_string(),
            "balance": answer.balance.map(|balance| balance.to_string()),
            "elapsed_us": answer.elapsed_us,
            "purpose": answer.purpose,
            "reasons": answer.reasons.as_ref().map(|all| all.iter().map(reason).collect::<Vec<_>>()),
            "attempts_left": answer.attempts_left,
        }),
        Entry::Grant { at_ms, application, amount } => json!({
            "kind": "grant",
            "time": utc_text(*at_ms),
            "at_ms": at_ms,
            "application": application.0,
            "amount": amount.to_string(),
        }),
        Entry::Payment { at_ms, application, amount, reference } => json!({
            "kind": "payment",
            "time": utc_text(*at_ms),
            "at_ms": at_ms,
            "application": application.0,
            "amount": amount.to_string(),
            "reference": hex(reference),
        }),
        Entry::Bulk(bulk) => json!({
            "kind": "bulk",
            "time": utc_text(bulk.at_ms),
            "at_ms": bulk.at_ms,
            "job": hex(&bulk.job),
            "application": bulk.application.0,
            "credential": bulk.credential.0,
            "wire": bulk.wire.name(),
            "action": bulk.action.name(),
            "first_row": bulk.first_row,
            "rows": bulk.rows,
            "outcomes": bulk.sums.iter().map(|sum| json!({
                "outcome": sum.outcome.name(),
                "answers": sum.answers,
                "charged": sum.charged.to_string(),
            })).collect::<Vec<_>>(),
            "price": bulk.price.to_string(),
            "charged": bulk.charged().to_string(),
            "balance": bulk.balance.map(|balance| balance.to_string()),
            "digest": hex(&bulk.digest),
            "purpose": bulk.purpose,
        }),
        Entry::SandboxReset { at_ms } => {
            json!({ "kind": "sandbox_reset", "time": utc_text(*at_ms), "at_ms": at_ms })
        }
        Entry::Seen { at_ms, node, size, root } => json!({
            "kind": "seen",
            "time": utc_text(*at_ms),
            "at_ms": at_ms,
            "node": node,
            "size": size,
            "root": hex(root),
        }),
        Entry::Erased { at_ms, records, account } => json!({
            "kind": "erased",
            "time": utc_text(*at_ms),
            "at_ms": at_ms,
            "records": records,
            "account": account,
        }),
        Entry::Asking(asking) => {
            let mut says = purchase(asking);
            says["kind"] = "asking".into();
            says
        }
        Entry::Bought(bought) => {
            let mut says = purchase(&bought.asking);
            says["kind"] = "bought".into();
            says["time"] = utc_text(bought.at_ms).into();
            says["at_ms"] = bought.at_ms.into();
            says["asked_at_ms"] = bought.asking.at_ms.into();
            says["ending"] = bought.ending.name().into();
            says["cost"] = bought.cost.to_string().into();
            says["outcome"] = bought.outcome.map(|outcome| outcome.name()).into();
            says["code"] = bought.code.as_str().into();
            says["reference"] = bought.reference.as_str().into();
            says["issuer"] = bought.issuer.as_deref().into();
            says["live"] = bought.live.map(|outcome| outcome.name()).into();
            says["elapsed_ms"] = bought.elapsed_ms.into();
            says
        }
        Entry::Billed(billed) => {
            let mut says = purchase(&billed.asking);
            says["kind"] = "billed".into();
            says["time"] = utc_text(billed.at_ms).into();
            says["at_ms"] = billed.at_ms.into();
            says["asked_at_ms"] = billed.asking.at_ms.into();
            says["was"] = billed.was.to_string().into();
            says["cost"] = billed.cost.to_string().into();
            says
        }
        Entry::Operator { at_ms, by, act } => json!({
            "kind": "operator",
            "time": utc_text(*at_ms),
            "at_ms": at_ms,
            "by": by,
            "act": in_credits(json!(act)),
        }),
    }
}

/// What was asked of which provider.
fn purchase(asking: &Asking) -> Value {
    json!({
        "time": utc_text(asking.at_ms),
        "at_ms": asking.at_ms,
        "request_id": uuid_text(&asking.request),
        "number": asking.number,
        "application": asking.application.0,
        "route": asking.route,
        "provider": asking.provider,
        "action": asking.action.name(),
        "most": asking.most.to_string(),
    })
}

/// Amounts are kept in millionths; people read credits.
fn in_credits(mut act: Value) -> Value {
    for member in act.as_object_mut().into_iter().flat_map(|act| act.values_mut()) {
        for name in ["amount", "price", "credits"] {
            if let Some(millionths) = member[name].as_i64() {
                member[name] = Credits(millionths).to_string().into();
            }
        }
    }
    act
}

fn reason(reason: &Reason) -> String {
    format!("{reason:?}")
}

/// What evidence shows.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Entries whose place in a signed tree is proven.
    pub entries: u64,
    /// The first of them has so many before it.
    pub first_leaf: Option<u64>,
    /// The last of them has this many up to it.
    pub end_leaf: Option<u64>,
    /// Answered questions among them.
    pub answers: u64,
    /// Credits charged for them.
    pub charged: String,
    /// When the first was settled.
    pub first: Option<String>,
    /// When the last was settled.
    pub last: Option<String>,
    /// Checkpoints whose signatures hold.
    pub checkpoints: u64,
    /// Entries of the newest signed tree, whose beginning all the others are.
    pub signed_size: u64,
    /// When that was signed.
    pub signed: String,
    /// Its root, hex.
    pub root: String,
    /// The only entry, where there is one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Value>,
}

/// What was read so far.
#[derive(Default)]
struct Checker {
    shown: Shown,
    charged: Credits,
    /// The tree of the export under way.
    tree: Option<Frontier>,
    /// The tree at the end of the last export.
    ended: Option<Frontier>,
    /// By key, the smallest and the largest tree that it signed.
    signed_by: BTreeMap<usize, (u64, u64)>,
    newest_root: Option<Hash>,
}

/// Checks evidence; several exports must follow one another without a gap. `keys` are the public keys
/// of the installation, the oldest first.
///
/// # Errors
/// Says what does not hold, and in which line.
pub fn check(from: impl BufRead, keys: &[[u8; 32]]) -> anyhow::Result<Shown> {
    let mut checker = Checker::default();
    for (at, line) in from.lines().enumerate() {
        let line = line.context("cannot read the evidence")?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = || format!("line {}", at + 1);
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("line {} is no evidence of this version of card4e", at + 1))?;
        checker.take(&line, keys).with_context(wrong)?;
    }
    checker.end()
}

impl Checker {
    fn take(&mut self, line: &Line, keys: &[[u8; 32]]) -> anyhow::Result<()> {
        if let Line::Export { version, .. } | Line::Inclusion { version, .. } | Line::Growth { version, .. } =
            line
        {
            ensure!(*version == VERSION, "it is of version {version}; this card4e checks version {VERSION}");
        }
        match line {
            Line::Export { first_leaf, peaks, .. } => self.begin(*first_leaf, read(peaks)?),
            Line::Entry(stated) => {
                let Some(tree) = &mut self.tree else { bail!("an entry stands outside of an export") };
                ensure!(stated.leaf == tree.size(), "entry {} is missing", tree.size());
                let (leaf, entry) = stated.checked()?;
                tree.push(leaf);
                self.count(stated.leaf, &entry);
                Ok(())
            }
            Line::Checkpoint(signed) => {
                let root = self.signed(signed, keys)?;
                let Some(tree) = &self.tree else { return self.newest(signed, root) };
                ensure!(signed.size == tree.size(), "the checkpoint is of another size");
                ensure!(root == tree.root(), "these are not the entries that were signed");
                Ok(())
            }
            Line::End { checkpoint, consistency } => {
                let root = self.signed(checkpoint, keys)?;
                let Some(tree) = self.tree.take() else { bail!("an export ends that did not begin") };
                let whole = proof::extends(
                    (tree.size(), &tree.root()),
                    (checkpoint.size, &root),
                    &read(consistency)?,
                );
                ensure!(whole, "these are not the entries that were signed");
                self.ended = Some(tree);
                self.newest(checkpoint, root)
            }
            Line::Inclusion { entry: stated, path, checkpoint, .. } => {
                let root = self.signed(checkpoint, keys)?;
                let (leaf, entry) = stated.checked()?;
                let is_in = proof::includes(&root, checkpoint.size, stated.leaf, &leaf, &read(path)?);
                ensure!(is_in, "this entry is not in the signed tree");
                self.count(stated.leaf, &entry);
                self.shown.entry = (self.shown.entries == 1).then(|| stated.says.clone());
                self.newest(checkpoint, root)
            }
            Line::Growth { old, new, consistency, .. } => {
                let (old_root, new_root) = (self.signed(old, keys)?, self.signed(new, keys)?);
                let grew = proof::extends((old.size, &old_root), (new.size, &new_root), &read(consistency)?);
                ensure!(grew, "the newer tree does not begin with the older one: it was rewritten");
                self.newest(new, new_root)
            }
        }
    }

    fn begin(&mut self, first_leaf: u64, peaks: Vec<Hash>) -> anyhow::Result<()> {
        ensure!(self.tree.is_none(), "the export before it has no end; it was cut");
        let tree = Frontier::of(first_leaf, peaks).context("the peaks are not those of such a tree")?;
        if let Some(ended) = &self.ended {
            ensure!(
                *ended == tree,
                "it begins at entry {first_leaf}, and the export before it ended at {}: they do not follow one another",
                ended.size()
            );
        }
        self.tree = Some(tree);
        Ok(())
    }

    fn signed(&mut self, signed: &Signed, keys: &[[u8; 32]]) -> anyhow::Result<Hash> {
        let root = signed.checked(keys)?;
        let key = keys.iter().position(|key| key[..] == signed.public_key.0).unwrap_or(0);
        let (least, most) = self.signed_by.entry(key).or_insert((signed.size, signed.size));
        (*least, *most) = (signed.size.min(*least), signed.size.max(*most));
        self.shown.checkpoints += 1;
        Ok(root)
    }

    fn newest(&mut self, signed: &Signed, root: Hash) -> anyhow::Result<()> {
        if signed.size == self.shown.signed_size
            && let Some(known) = self.newest_root
        {
            ensure!(known == root, "two different trees of {} entries were signed", signed.size);
        }
        if signed.size >= self.shown.signed_size {
            self.shown.signed_size = signed.size;
            self.shown.signed = utc_text(signed.at_ms);
            self.shown.root = hex(&root);
            self.newest_root = Some(root);
        }
        Ok(())
    }

    fn count(&mut self, leaf: u64, entry: &Entry) {
        let shown = &mut self.shown;
        shown.entries += 1;
        shown.first_leaf = shown.first_leaf.or(Some(leaf));
        shown.end_leaf = Some(leaf + 1);
        let answered = match entry {
            Entry::Answer(answer) => Some((answer.at_ms, 1, answer.charged)),
            Entry::Bulk(bulk) => Some((bulk.at_ms, bulk.answers(), bulk.charged())),
            _ => None,
        };
        if let Some((at_ms, answers, charged)) = answered {
            shown.answers += answers;
            self.charged.0 += charged.0;
            let time = utc_text(at_ms);
            shown.first.get_or_insert_with(|| time.clone());
            shown.last = Some(time);
        }
    }

    fn end(mut self) -> anyhow::Result<Shown> {
        ensure!(self.tree.is_none(), "the export has no end; it was cut");
        ensure!(self.shown.checkpoints > 0, "there is no evidence in it");
        // A key that was replaced signs nothing any more, whoever has got hold of it.
        let spans: Vec<(u64, u64)> = self.signed_by.into_values().collect();
        let in_turn = spans.is_sorted_by(|(_, until), (from, _)| until <= from);
        ensure!(in_turn, "a key that was replaced signed something later; were the keys given oldest first?");
        self.shown.charged = self.charged.to_string();
        Ok(self.shown)
    }
}
