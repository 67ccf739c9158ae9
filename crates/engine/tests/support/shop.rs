//! The one caller of an installation, and the one account of record it can ask about.

use engine::account::AccountText;
use engine::caller::{
    Application, ApplicationId, Caller, CallerId, Credential, CredentialId, Proof, Standing,
};
use engine::ledger::Credits;
use engine::subject::{Date, ParseOptions};
use engine::vault::Vault;
use engine::{Engine, Seed};

/// A caller that may ask everything, and was granted so much.
pub fn shop(granted: Credits) -> Seed {
    let caller = Caller { id: CallerId(1), name: "shop".into(), standing: Standing::Active, operator: false };
    let application = Application::of(ApplicationId(1), &caller);
    Seed {
        callers: vec![caller],
        applications: vec![(application, granted)],
        credentials: |vault| vec![credential(vault)],
    }
}

/// Its token.
pub fn credential(vault: &Vault) -> Credential {
    let proof = Proof::Bearer { hash: vault.token("token"), last4: "oken".into(), previous: None };
    Credential {
        id: CredentialId(1),
        application: ApplicationId(1),
        proof,
        expires_at_ms: None,
        addresses: vec![],
        actions: vec![],
        purpose: None,
        limit: None,
    }
}

/// Puts the account, in this state.
pub fn put(engine: &Engine, state: &str) {
    let text = AccountText {
        card: "6217000000000000012",
        name: "张伟",
        id: "99010119610202001X",
        mobile: "16100000001",
        state,
        ..AccountText::default()
    };
    let today = Date::new(2026, 11, 21).unwrap();
    let options = ParseOptions { test_land: true, ..ParseOptions::new(today) };
    let row = text.row(&options, &engine.vault).unwrap();
    engine.accounts_to_change().unwrap().put(&[row], &engine.vault).unwrap();
}
