//! An engine's policy in tests, and one question of the shop about the one account there is, asked as a front asks it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use engine::Policy;
use engine::caller::{Action, Credential, Wire};
use engine::claim::Claim;
use engine::limit::AttemptPolicy;
use engine::settle::{Desk, Settlement};
use engine::verify::{Admission, Question, new_request_id, verify};

use super::park;

/// Made-up people, no limits, and no log grown beforehand.
pub fn policy() -> Policy {
    Policy {
        test_land: true,
        requests_per_second: [0; Action::ALL.len()],
        attempts: AttemptPolicy::OFF,
        log_bytes: 0,
        ..Policy::default()
    }
}

/// Asks whether the mobile belongs to the account, with this credential.
pub async fn asked(desk: &Desk, credential: &Credential, mobile: &str, key: Option<&str>) -> Settlement {
    let admission = desk.admit(credential, Action::FourElements, key.is_some()).await?;
    admitted(desk, admission, credential, mobile, key).await
}

/// The same, of a question that has been admitted.
pub async fn admitted(
    desk: &Desk,
    admission: Admission,
    credential: &Credential,
    mobile: &str,
    key: Option<&str>,
) -> Settlement {
    let claim = Claim::new("张伟", "6217000000000000012", "99010119610202001X", mobile, 0);
    let question = Question {
        wire: Wire::AceData,
        action: Action::FourElements,
        credential,
        claim: &claim,
        idempotency_key: key,
        purpose: None,
        detailed: false,
        scripted: None,
        request: new_request_id(),
        began: Instant::now(),
    };
    verify(desk, admission, question).await
}

/// Runs one future beside the desk's mail, on this thread.
pub fn wait<T>(desk: &Desk, work: impl Future<Output = T>) -> T {
    let waker = park::waker();
    let mut context = Context::from_waker(&waker);
    let (mut work, mut mail) = (pin!(work), pin!(desk.carry_mail()));
    loop {
        let _ = mail.as_mut().poll(&mut context);
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}
