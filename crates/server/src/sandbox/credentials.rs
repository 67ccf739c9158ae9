//! Public test credentials, fixed for ever: one application for each state an account can be in.
//!
//! They are in documentation, in test suites and on this page: nothing real may hang on them, and
//! only the sandbox knows them.

use engine::Seed;
use engine::caller::{
    Action, Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Proof, Secret, Standing,
};
use engine::ledger::Credits;
use engine::vault::Vault;
use serde::Serialize;

/// `SecretId` of the public application.
pub const PUBLIC_SECRET_ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
/// `SecretKey` of the public application.
pub const PUBLIC_SECRET_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
/// Bearer token of the public application.
pub const PUBLIC_TOKEN: &str = "4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";
/// Platform token of the public account: the other kind of secret, refused on `/identity/*`.
pub const PUBLIC_PLATFORM_TOKEN: &str =
    "platform-v1-4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e4e";

/// Seals the sandbox's key ring. Public, so that starting needs no key; a sandbox holds nothing real.
pub const ROOT_KEY: [u8; 32] = *b"card4e sandbox: nothing is real.";

/// A test application as it is shown to people.
#[derive(Clone, Copy, Serialize)]
pub struct TestApplication {
    /// What it is for.
    pub name: &'static str,
    /// What is special about it.
    pub state: &'static str,
    /// For the Tencent wire.
    pub secret_id: &'static str,
    /// For the Tencent wire.
    pub secret_key: &'static str,
    /// Session token, where the key is a temporary one.
    pub token: Option<&'static str>,
    /// For the AceData wire.
    pub bearer: &'static str,
}

const fn app(
    name: &'static str,
    state: &'static str,
    secret_id: &'static str,
    secret_key: &'static str,
    bearer: &'static str,
) -> TestApplication {
    TestApplication { name, state, secret_id, secret_key, token: None, bearer }
}

/// All test applications. Their position is their number, so only append.
pub const APPLICATIONS: [TestApplication; 12] = [
    app("public", "everything works, no limits", PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN),
    app(
        "trial",
        "a free quota of 10 charged answers, then out of balance",
        "AKIDsandboxTrialEXAMPLE",
        "sandboxTrialEXAMPLE",
        "4e000000000000000000000000000001",
    ),
    app(
        "not-activated",
        "never activated the service",
        "AKIDsandboxNotActivatedEXAMPLE",
        "sandboxNotActivatedEXAMPLE",
        "4e000000000000000000000000000002",
    ),
    app(
        "arrears",
        "has no balance",
        "AKIDsandboxArrearsEXAMPLE",
        "sandboxArrearsEXAMPLE",
        "4e000000000000000000000000000003",
    ),
    app(
        "suspended",
        "suspended by the operator",
        "AKIDsandboxSuspendedEXAMPLE",
        "sandboxSuspendedEXAMPLE",
        "4e000000000000000000000000000004",
    ),
    app(
        "unconfirmed",
        "not confirmed by the operator yet",
        "AKIDsandboxUnconfirmedEXAMPLE",
        "sandboxUnconfirmedEXAMPLE",
        "4e000000000000000000000000000005",
    ),
    app(
        "rate-limited",
        "two requests a second",
        "AKIDsandboxRateLimitedEXAMPLE",
        "sandboxRateLimitedEXAMPLE",
        "4e000000000000000000000000000006",
    ),
    TestApplication {
        token: Some("sandbox-session-token-EXAMPLE"),
        ..app(
            "temporary",
            "a temporary key, valid only with its session token",
            "AKIDsandboxTemporaryEXAMPLE",
            "sandboxTemporaryEXAMPLE",
            "4e000000000000000000000000000007",
        )
    },
    app(
        "signed-only",
        "refuses UNSIGNED-PAYLOAD",
        "AKIDsandboxSignedOnlyEXAMPLE",
        "sandboxSignedOnlyEXAMPLE",
        "4e000000000000000000000000000008",
    ),
    app(
        "expired",
        "its key and token expired in 2020",
        "AKIDsandboxExpiredEXAMPLE",
        "sandboxExpiredEXAMPLE",
        "4e000000000000000000000000000009",
    ),
    app(
        "encrypted-only",
        "refuses elements that are not encrypted",
        "AKIDsandboxEncryptedOnlyEXAMPLE",
        "sandboxEncryptedOnlyEXAMPLE",
        "4e000000000000000000000000000010",
    ),
    app(
        "reasons",
        "is told by the native API which element differs",
        "AKIDsandboxReasonsEXAMPLE",
        "sandboxReasonsEXAMPLE",
        "4e000000000000000000000000000011",
    ),
];

const EXPIRED_MS: i64 = 1_577_836_800_000;

/// The test applications as the engine wants them.
pub fn seed() -> Seed {
    let numbered = || (1..).zip(APPLICATIONS);
    Seed {
        callers: numbered().map(|(number, app)| caller(number, app.name)).collect(),
        applications: numbered().map(|(number, app)| application(number, app.name)).collect(),
        credentials,
    }
}

fn caller(number: u32, name: &str) -> Caller {
    let standing = match name {
        "suspended" => Standing::Suspended,
        "unconfirmed" => Standing::Unconfirmed,
        _ => Standing::Active,
    };
    Caller { id: CallerId(number), name: name.into(), standing, operator: name == "public" }
}

fn application(number: u32, name: &str) -> (Application, Credits) {
    let application = Application {
        id: ApplicationId(number),
        caller: CallerId(number),
        name: name.into(),
        actions: if name == "not-activated" { vec![] } else { Action::ALL.to_vec() },
        unlimited: !matches!(name, "trial" | "arrears"),
        price: None,
        requests_per_second: (name == "rate-limited").then_some(2),
        attempts: None,
        encryption_required: name == "encrypted-only",
        reasons: name == "reasons",
    };
    let granted = if name == "trial" { Credits::whole(10) } else { Credits::ZERO };
    (application, granted)
}

fn credentials(vault: &Vault) -> Vec<Credential> {
    let both = (1..)
        .zip(APPLICATIONS)
        .flat_map(|(number, app)| [signing(number, &app), bearer(number, &app, vault)]);
    both.chain([platform(vault)]).collect()
}

fn credential(id: u32, number: u32, name: &str, proof: Proof) -> Credential {
    let expires_at_ms = (name == "expired").then_some(EXPIRED_MS);
    Credential {
        id: CredentialId(id),
        application: ApplicationId(number),
        proof,
        expires_at_ms,
        addresses: Vec::new(),
        actions: Vec::new(),
        purpose: None,
        limit: None,
    }
}

fn signing(number: u32, app: &TestApplication) -> Credential {
    let proof = Proof::Signature {
        secret_id: app.secret_id.into(),
        secret_key: Secret::new(app.secret_key),
        previous: None,
        session_token: app.token.map(Secret::new),
        signed_payload_only: app.name == "signed-only",
    };
    credential(2 * number, number, app.name, proof)
}

fn bearer(number: u32, app: &TestApplication, vault: &Vault) -> Credential {
    let proof = Proof::Bearer { hash: vault.token(app.bearer), last4: last4(app.bearer), previous: None };
    credential(2 * number + 1, number, app.name, proof)
}

fn platform(vault: &Vault) -> Credential {
    let hash = vault.token(PUBLIC_PLATFORM_TOKEN);
    credential(1, 1, "public", Proof::Platform { hash, last4: last4(PUBLIC_PLATFORM_TOKEN) })
}

fn last4(token: &str) -> String {
    token[token.len() - 4..].to_owned()
}
