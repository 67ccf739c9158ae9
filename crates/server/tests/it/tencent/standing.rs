//! How the one who asks stands: activated, confirmed, solvent.

use crate::support::Sandbox;

use super::client::{PASSED, SAMPLE, SAMPLE_MEMBERS, answered, elements, form, key_of, post, refused, said};

fn refusal_of(application: &str, code: &str, zh: &str, en: &str) {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).key(key_of(application));
    assert_eq!(ask.said(&sandbox), refused(code, zh));
    assert_eq!(ask.english().said(&sandbox), refused(code, en));
    assert_eq!(form(&SAMPLE_MEMBERS).key(key_of(application)).said(&sandbox), refused(code, zh));
    let ledger = sandbox.control("GET", "ledger", "");
    assert_eq!((&ledger["records"], &ledger["charges"]), (&0.into(), &0.into()));
}

#[test]
fn not_activated() {
    let code = "UnauthorizedOperation.Nonactivated";
    refusal_of("NotActivated", code, "未开通服务。", "The service has not been activated.");
}

#[test]
fn in_arrears() {
    refusal_of("Arrears", "UnauthorizedOperation.Arrears", "账号已欠费。", "The account is in arrears.");
}

#[test]
fn suspended() {
    let code = "UnauthorizedOperation.ChargeStatusException";
    refusal_of("Suspended", code, "计费状态异常。", "The billing status of the account is abnormal.");
}

#[test]
fn unconfirmed() {
    let code = "UnauthorizedOperation.NonAuthorize";
    refusal_of("Unconfirmed", code, "账号未实名。", "The account has not been verified.");
}

fn arrears() -> String {
    refused("UnauthorizedOperation.Arrears", "账号已欠费。")
}

fn balance(sandbox: &Sandbox) -> String {
    sandbox.control("GET", "ledger", "")["balances"]["trial"].as_str().unwrap().to_owned()
}

#[test]
fn ten_charged_answers_are_free_of_charge() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).key(key_of("Trial"));
    let free = post(elements("1", "1", "1", "1")).key(key_of("Trial"));
    let busy = post(elements("1", "6200000000180005", "1", "1")).key(key_of("Trial"));
    for left in (0..10).rev() {
        assert_eq!(ask.said(&sandbox), PASSED);
        if left > 0 {
            assert_eq!(free.said(&sandbox), answered(-2, "姓名校验不通过"), "free answers take nothing");
            assert_eq!(busy.said(&sandbox), answered(-18, "验证中心服务繁忙"));
        }
        assert_eq!(balance(&sandbox), left.to_string());
    }
    // Then even what would be free: nobody knows before it is asked.
    assert_eq!(
        [ask.said(&sandbox), free.said(&sandbox), ask.said(&sandbox)],
        [arrears(), arrears(), arrears()]
    );
    assert_eq!(sandbox.charges(), 10);
    sandbox.control("POST", "reset", "");
    assert_eq!(balance(&sandbox), "10");
    assert_eq!(ask.said(&sandbox), PASSED);
}

/// Sixteen at once with credits for three.
#[test]
fn requests_at_once_cannot_overspend() {
    let sandbox = Sandbox::start();
    let ask = post(SAMPLE).key(key_of("Trial"));
    for _ in 0..7 {
        assert_eq!(ask.said(&sandbox), PASSED);
    }
    assert_eq!(balance(&sandbox), "3");
    let request = ask.sign(&sandbox);
    let replies: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| said(&request.send(&sandbox)))).collect();
        asked.into_iter().map(|reply| reply.join().unwrap()).collect()
    });
    let passed = replies.iter().filter(|reply| *reply == PASSED).count();
    let refused = replies.iter().filter(|reply| **reply == arrears()).count();
    assert_eq!((passed, refused), (3, 13), "{replies:?}");
    assert_eq!((balance(&sandbox).as_str(), sandbox.charges()), ("0", 10));
}

#[test]
fn a_balance_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let ask = post(SAMPLE).key(key_of("Trial"));
    let first = Sandbox::keeping(data.path(), "");
    for _ in 0..4 {
        assert_eq!(ask.said(&first), PASSED);
    }
    first.kill();
    let second = Sandbox::keeping(data.path(), "");
    assert_eq!(balance(&second), "6");
    assert_eq!(second.charges(), 4);
}
