//! Receipts: what was answered, signed, so that somebody else can check it with the public key alone.
//!
//! A receipt is a JSON Web Signature (RFC 7515, EdDSA by RFC 8037), so any JOSE library reads it too. It
//! names no element: it holds a commitment to the four, which only who has both the elements and the
//! opening can check.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use clap::{Args, Subcommand};
use engine::file::unhex;
use engine::vault::{Vault, signature_holds};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a receipt says; the names are those of JSON Web Tokens where they have one.
#[derive(Serialize)]
pub struct Receipt<'a> {
    /// Who answered.
    pub iss: &'a str,
    /// The answer's id.
    pub jti: &'a str,
    /// When, Unix seconds.
    pub iat: i64,
    /// What was asked: a pass of two elements must not be shown for one of four.
    pub action: &'a str,
    /// Who asked.
    pub caller: &'a str,
    /// Why.
    pub purpose: &'a str,
    /// With whose consent.
    pub consent: &'a str,
    /// What was answered.
    pub outcome: &'a str,
    /// And what that means.
    pub class: &'a str,
    /// How the name was found equal.
    pub name_match: Option<&'a str>,
    /// Version of the order of decisions.
    pub policy: &'a str,
    /// [`commitment`] to the elements.
    pub elements: String,
}

impl Receipt<'_> {
    /// The receipt with its signature, in the compact form: three parts of base64url.
    pub fn signed(&self, vault: &Vault) -> String {
        let keys = vault.keys();
        let header = json!({
            "alg": "EdDSA",
            "typ": "card4e-receipt+jwt",
            "kid": key_id(&keys.receipt_public_keys()[0]),
        });
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let signed = format!("{}.{}", part(header.to_string().as_bytes()), part(&payload));
        let signature = keys.sign_receipt(signed.as_bytes());
        format!("{signed}.{}", part(&signature))
    }
}

/// Commits to name, card number, identity number and mobile as they were sent, without white space
/// around them.
pub fn commitment(opening: &[u8; 16], elements: [&str; 4]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"card4e receipt elements v1\0");
    hash.update(opening);
    for element in elements.map(str::trim) {
        hash.update((element.len() as u32).to_be_bytes());
        hash.update(element.as_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Public keys as a JSON Web Key Set.
pub fn published(public_keys: &[[u8; 32]]) -> Value {
    let published = |public_key: &[u8; 32]| {
        let x = BASE64_URL_SAFE_NO_PAD.encode(public_key);
        let kid = key_id(public_key);
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA" })
    };
    json!({ "keys": public_keys.iter().map(published).collect::<Vec<_>>() })
}

/// The key's thumbprint (RFC 7638).
fn key_id(public_key: &[u8; 32]) -> String {
    let x = BASE64_URL_SAFE_NO_PAD.encode(public_key);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

/// `card4e receipt`
#[derive(Subcommand)]
pub enum Command {
    /// Check that a receipt was signed with a key, and print what it says; ends with 1 if it was not.
    ///
    /// Needs the public key alone: no installation, no network.
    #[command(after_help = "\
Examples:
  curl -s https://verify.example.com/api/v1/receipt-keys > keys.json
  card4e receipt check --key keys.json answer.json
  card4e receipt check --key keys.json --elements - answer.json < elements.json

answer.json is the whole answer, or the receipt alone; elements.json has name, bank_card, id_card and phone as
they were sent, as far as they were. With the whole answer it can be checked that the receipt is about them.")]
    Check(Check),
}

/// `card4e receipt check`
#[derive(Args)]
pub struct Check {
    /// The answer or the receipt; `-` is standard input.
    #[arg(value_name = "FILE")]
    receipt: PathBuf,

    /// The public keys as `/api/v1/receipt-keys` gives them.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The four elements as JSON, to check that the receipt is about them; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    elements: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Elements {
    name: Zeroizing<String>,
    bank_card: Zeroizing<String>,
    id_card: Zeroizing<String>,
    phone: Zeroizing<String>,
}

/// Runs `card4e receipt …`.
pub fn run(Command::Check(check): &Command) -> anyhow::Result<()> {
    let given = read(&check.receipt)?;
    let keys = read(&check.key)?;
    let keys: Value = serde_json::from_str(&keys)
        .with_context(|| format!("{} is no JSON Web Key Set", check.key.display()))?;
    let answer: Value = serde_json::from_str(given.trim()).unwrap_or(Value::Null);
    let receipt = answer["receipt"].as_str().unwrap_or(given.trim());
    let says = checked(receipt, &public_keys(&keys)?)?;
    let about = match &check.elements {
        None => None,
        Some(file) => {
            let opening = answer["receipt_opening"]
                .as_str()
                .context("the opening is missing: give the whole answer, with receipt and receipt_opening")?;
            let text = Zeroizing::new(read(file)?);
            let elements: Elements = serde_json::from_str(&text).map_err(|_| {
                anyhow::anyhow!("{} does not have name, bank_card, id_card and phone", file.display())
            })?;
            let opening = unhex(opening).and_then(|bytes| bytes.try_into().ok());
            let opening: [u8; 16] = opening.context("receipt_opening is not 32 hex digits")?;
            let phone = wire::native::national_mobile(&elements.phone);
            let of = commitment(&opening, [&elements.name, &elements.bank_card, &elements.id_card, &phone]);
            ensure!(
                says["elements"] == of.as_str(),
                "the receipt is genuine, but it is not about these elements"
            );
            Some(true)
        }
    };
    let mut out = std::io::stdout().lock();
    if check.json {
        writeln!(out, "{}", json!({ "genuine": true, "about_these_elements": about, "says": says }))?;
        return Ok(());
    }
    writeln!(
        out,
        "The receipt is genuine{}.\n",
        if about.is_some() { ", and about these elements" } else { "" }
    )?;
    for member in ["iss", "jti", "caller", "outcome", "class", "name_match", "purpose", "consent", "policy"] {
        if let Some(text) = says[member].as_str() {
            writeln!(out, "  {member:<11} {text}")?;
        }
    }
    let at = says["iat"].as_i64().unwrap_or(0).saturating_mul(1000);
    writeln!(out, "  {:<11} {}", "answered", engine::clock::utc_text(at))?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    const MOST: u64 = 1 << 20;
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut text)?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.take(MOST).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// The Ed25519 keys of a set, or of a single key.
fn public_keys(set: &Value) -> anyhow::Result<Vec<[u8; 32]>> {
    let listed = set["keys"].as_array().cloned().unwrap_or_else(|| vec![set.clone()]);
    let ours = listed.iter().filter(|key| key["crv"] == "Ed25519");
    let keys: Vec<[u8; 32]> = ours
        .filter_map(|key| BASE64_URL_SAFE_NO_PAD.decode(key["x"].as_str()?).ok()?.try_into().ok())
        .collect();
    ensure!(!keys.is_empty(), "there is no Ed25519 key; `/api/v1/receipt-keys` of the installation gives it");
    Ok(keys)
}

fn checked(receipt: &str, keys: &[[u8; 32]]) -> anyhow::Result<Value> {
    let parts: Vec<&str> = receipt.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        bail!("this is no receipt: it has three parts with dots between them")
    };
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).context("a part is not base64url");
    let header: Value = serde_json::from_slice(&decoded(header)?).context("its header is not JSON")?;
    ensure!(header["alg"] == "EdDSA", "it is not signed with EdDSA");
    let signature: [u8; 64] =
        decoded(signature)?.try_into().map_err(|_| anyhow::anyhow!("its signature has another length"))?;
    let (signed, _) = receipt.rsplit_once('.').unwrap_or_default();
    let genuine = keys.iter().any(|key| signature_holds(key, signed.as_bytes(), &signature));
    ensure!(genuine, "the receipt is not genuine: it was changed, or signed with another key");
    serde_json::from_slice(&decoded(payload)?).context("what it says is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::vault::KeyRing;
    use proptest::prelude::*;

    fn receipt(vault: &Vault) -> String {
        let elements =
            commitment(&[7; 16], ["韦小宝", "6225768888888888", "11204416541220243X", "16137688175"]);
        let receipt = Receipt {
            iss: "card4e",
            jti: "74e742e8-f91d-49c3-9744-c20f3baca117",
            action: "bankcard-4e",
            iat: 1_795_276_799,
            caller: "shop",
            purpose: "account_opening",
            consent: "terms-7",
            outcome: "PASS",
            class: "pass",
            name_match: Some("E0"),
            policy: "decisions-v1",
            elements,
        };
        receipt.signed(vault)
    }

    #[test]
    fn a_receipt_is_checked_with_the_published_key_alone() {
        let vault = Vault::new(&KeyRing::generate());
        let keys = public_keys(&published(vault.keys().receipt_public_keys())).unwrap();
        let says = checked(&receipt(&vault), &keys).unwrap();
        assert_eq!((&says["outcome"], &says["purpose"]), (&json!("PASS"), &json!("account_opening")));
        let other = Vault::new(&KeyRing::generate()).keys().receipt_public_keys()[0];
        assert!(checked(&receipt(&vault), &[other]).is_err());
    }

    /// The example of RFC 8037, appendix A.3.
    #[test]
    fn a_key_is_known_by_its_thumbprint() {
        let x = BASE64_URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(key_id(&x.try_into().unwrap()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    proptest! {
        #[test]
        fn a_changed_receipt_is_not_genuine(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let vault = Vault::new(&KeyRing::generate());
            let genuine = receipt(&vault);
            let at = at.index(genuine.len());
            let changed = format!("{}{to}{}", &genuine[..at], &genuine[at + 1..]);
            // The last letter of a part carries bits that say nothing; the decoder refuses them.
            prop_assert_eq!(checked(&changed, vault.keys().receipt_public_keys()).is_ok(), changed == genuine);
        }

        #[test]
        fn a_commitment_is_of_these_elements(a in "[0-9]{0,6}", b in "[0-9]{1,6}") {
            let one = commitment(&[1; 16], [&a, &b, "", ""]);
            prop_assert_ne!(&one, &commitment(&[2; 16], [&a, &b, "", ""]));
            prop_assert_ne!(&one, &commitment(&[1; 16], [&format!("{a}{b}"), "", "", ""]));
        }
    }
}
