//! `card4e verify`: one question from the machine itself, charged to a caller and audited like any other.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use engine::Engine;
use engine::action::Element;
use engine::caller::{Action, Credential, Purpose, Wire};
use engine::claim::Claim;
use engine::outcome::{Class, Outcome};
use engine::register::RegisterError;
use engine::settle::{Desk, Settled};
use engine::verify::{Question, Refusal, new_request_id, uuid_text, verify};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::installation::Place;
use crate::manage::{Request, ask};

/// `card4e verify`
#[derive(Args)]
#[command(after_help = "\
Examples:
  card4e verify --caller shop --config card4e.toml                    asks for the four elements
  card4e verify --caller shop --config card4e.toml < elements.json    {\"name\":\"…\",\"bank_card\":\"…\",\"id_card\":\"…\",\"phone\":\"…\"}
  card4e verify --caller shop --config card4e.toml --action phone-2e  asks for name and mobile

Ends with 0 for a pass, 3 for a mismatch, 4 when it cannot be told, 5 for input that could never be verified,
6 when it should be asked again later, and 1 when it was not answered.")]
pub struct Options {
    /// Who asks, and pays.
    #[arg(long, value_name = "NAME")]
    caller: String,

    /// What is asked: bankcard-4e, bankcard-3e, bankcard-2e, bankcard-1e, idcard-2e, phone-3e or phone-2e.
    #[arg(long, value_name = "ACTION", default_value = "bankcard-4e")]
    action: Action,

    /// Why: a word such as account_opening, kept in the evidence.
    #[arg(long, value_name = "WORD", requires = "consent")]
    purpose: Option<String>,

    /// Where the consent of whom it is about is on file.
    #[arg(long, value_name = "REFERENCE", requires = "purpose")]
    consent: Option<String>,

    /// Which installation.
    #[command(flatten)]
    place: Place,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The elements of one question.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elements {
    name: Zeroizing<String>,
    bank_card: Zeroizing<String>,
    id_card: Zeroizing<String>,
    phone: Zeroizing<String>,
    cert_type: i64,
}

impl fmt::Debug for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elements(…)")
    }
}

/// Asks on an engine at work, in a caller's name.
///
/// # Errors
/// Why it was not answered; nothing was charged then.
pub fn put(
    engine: &Arc<Engine>,
    desk: &Desk,
    caller: &str,
    action: Action,
    elements: &Elements,
    purpose: Option<Purpose>,
) -> anyhow::Result<Value> {
    let directory = engine.directory();
    let found = directory.applications().find(|application| application.name == caller);
    let application = found.ok_or_else(|| RegisterError::NoCaller(caller.into()))?;
    let credential = Credential { purpose, ..Credential::of_this_machine(application.id) };
    if credential.purpose.as_ref().is_some_and(|purpose| !purpose.is_sound()) {
        return Err(RegisterError::Purpose.into());
    }
    let phone = wire::native::national_mobile(elements.phone.trim());
    let (name, card, id) = (elements.name.trim(), elements.bank_card.trim(), elements.id_card.trim());
    let claim = Claim::new(name, card, id, &phone, elements.cert_type);
    let question = Question {
        wire: Wire::Native,
        action,
        credential: &credential,
        claim: &claim,
        idempotency_key: None,
        purpose: None,
        detailed: true,
        scripted: None,
        request: new_request_id(),
        began: Instant::now(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let asked = async {
        let admission = desk.admit(&credential, action, false).await?;
        verify(desk, admission, question).await
    };
    // With connections of its own: they end with the runtime.
    let settled = local.block_on(&runtime, async {
        tokio::select! {
            settled = asked => settled,
            () = desk.carry_mail() => Err(Refusal::Stopped),
        }
    });
    settled.map(|settled| told(&settled)).map_err(said)
}

fn told(Settled { answer, .. }: &Settled) -> Value {
    json!({
        "id": uuid_text(&answer.request),
        "outcome": answer.outcome.name(),
        "class": answer.outcome.class_name(),
        "row": answer.row.0,
        "name_match": answer.name_class.map(|class| class.name()),
        "reasons": answer.reasons,
        "attempts_left": answer.attempts_left,
        "charged": answer.charged.to_string(),
        "balance": answer.balance.map(|balance| balance.to_string()),
    })
}

/// Why it was not answered, for people.
pub fn said(refusal: Refusal) -> anyhow::Error {
    let why = match refusal {
        Refusal::NotActivated | Refusal::NotAllowed => {
            "this caller may not ask it; `card4e caller set NAME --action …` says what it may"
        }
        Refusal::NotConfigured => {
            "accounts are not found by identity number or mobile here; set element_index = true and import them"
        }
        Refusal::Arrears => {
            "this caller's balance is used up; `card4e caller recharge NAME AMOUNT` gives it credits"
        }
        Refusal::LimitReached => "the credential was charged as much as it may be",
        Refusal::Suspended => "this caller is suspended; `card4e caller resume NAME` lets it ask again",
        Refusal::Unconfirmed => "this caller is not confirmed yet",
        Refusal::TooFast(_) => "this caller has asked too often in this second; try again",
        Refusal::KeyReused => "the key was used for another question",
        Refusal::Overloaded => "the server has more to do than it can; try again",
        Refusal::Stopped => "the store is stopped; `/readyz` and the log say why",
    };
    anyhow!("not answered, not charged: {why}")
}

/// Runs `card4e verify`.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let purpose = options.purpose.clone().zip(options.consent.clone());
    let request = Request::Verify {
        caller: options.caller.clone(),
        action: options.action,
        elements: elements(options.action)?,
        purpose: purpose.map(|(code, consent)| Purpose { code, consent }),
    };
    let told = ask(&options.place, request)?;
    let outcome =
        told["outcome"].as_str().and_then(Outcome::named).context("the server's answer cannot be read")?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{told}")?;
    } else {
        print(&mut out, outcome, &told)?;
    }
    Ok(ExitCode::from(match outcome.class() {
        Class::Pass => 0,
        Class::Mismatch => 3,
        Class::Unverifiable => 4,
        Class::RejectedInput => 5,
        Class::Retryable => 6,
    }))
}

fn print(out: &mut impl Write, outcome: Outcome, told: &Value) -> std::io::Result<()> {
    let text = |member: &str| told[member].as_str().unwrap_or_default();
    writeln!(out, "{}: {}.\n", outcome.name(), outcome.sentence())?;
    if let Some(class) = told["name_match"].as_str() {
        let how = if class == "E0" { "exactly" } else { "apart from dots and blanks" };
        writeln!(out, "  the name     is equal {how} ({class})")?;
    }
    writeln!(out, "  decided by   row {} of the decision table", told["row"])?;
    if let Some(left) = told["attempts_left"].as_u64() {
        writeln!(
            out,
            "  today        may be asked {left} more {}",
            if left == 1 { "time" } else { "times" }
        )?;
    }
    let credits = |amount: &str| format!("{amount} {}", if amount == "1" { "credit" } else { "credits" });
    let left =
        told["balance"].as_str().map_or(String::new(), |balance| format!(", {} left", credits(balance)));
    writeln!(out, "  charged      {}{left}", credits(text("charged")))?;
    writeln!(out, "  request      {}", text("id"))
}

/// The elements from standard input: JSON, or typed in at a terminal.
fn elements(action: Action) -> anyhow::Result<Elements> {
    const BYTES_MAX: u64 = 16 << 10;
    if std::io::stdin().is_terminal() {
        let mut elements = Elements::default();
        for element in action.elements() {
            *elements.of(*element) = typed(element.name())?;
        }
        return Ok(elements);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(BYTES_MAX).read_to_string(&mut text)?;
    // What serde says of a wrong value would show it.
    match serde_json::from_str(&text) {
        Ok(elements) => complete(elements, &text, action),
        Err(wrong) => bail!(
            "line {} column {}: not a question; its members are name, bank_card, id_card and phone",
            wrong.line(),
            wrong.column()
        ),
    }
}

/// Refuses a question that is about less than it says, or about more. Whether what is there is any good
/// is the engine's to say.
fn complete(elements: Elements, text: &str, action: Action) -> anyhow::Result<Elements> {
    let there: BTreeMap<String, IgnoredAny> = serde_json::from_str(text)?;
    for element in Element::ALL {
        match (action.takes(element), there.contains_key(element.name())) {
            (true, false) => bail!("{} is missing; {} asks about it", element.name(), action.name()),
            (false, true) => {
                bail!("{} is not asked about by {}; leave it out", element.name(), action.name())
            }
            _ => {}
        }
    }
    Ok(elements)
}

impl Elements {
    fn of(&mut self, element: Element) -> &mut Zeroizing<String> {
        match element {
            Element::Card => &mut self.bank_card,
            Element::Name => &mut self.name,
            Element::Id => &mut self.id_card,
            Element::Mobile => &mut self.phone,
        }
    }
}

fn typed(what: &str) -> anyhow::Result<Zeroizing<String>> {
    write!(std::io::stderr(), "{what}: ")?;
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}
