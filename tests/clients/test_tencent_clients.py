"""One story for every Python client of the Tencent wire: pass, mismatch, every mapped error."""

import threading
import time

import pytest

from harness import CODES, MISMATCH, PUBLIC, SAMPLE, UUID4
from tencent_clients import PythonAsync, PythonSync, Refused, Tccli, keys

CLIENTS = ["python", "python-async", "tccli"]


@pytest.fixture(params=CLIENTS)
def client(request, tmp_path):
    if request.param == "tccli":
        return Tccli(tmp_path)
    return {"python": PythonSync, "python-async": PythonAsync}[request.param]()


def refused(client, sandbox, code, elements=SAMPLE, **options):
    """The client's own exception carries our code and our RequestId, and nothing was charged."""
    with sandbox.charged(0, records=0):
        with pytest.raises(Refused) as caught:
            client.call(sandbox.address, elements, **options)
    assert caught.value.code == code, str(caught.value)
    assert UUID4.match(caught.value.request_id or ""), str(caught.value)
    assert caught.value.message
    return caught.value


def test_pass(client, sandbox):
    with sandbox.charged(1, records=1):
        answer = client.call(sandbox.address, SAMPLE)
    assert answer.result == "0"
    assert answer.description == "认证通过"
    assert UUID4.match(answer.request_id)


def test_pass_is_in_the_journal_under_its_request_id(client, sandbox):
    answer = client.call(sandbox.address, SAMPLE)
    entries = {entry["request_id"]: entry for entry in sandbox.journal()}
    assert answer.request_id in entries, entries
    entry = entries[answer.request_id]
    assert (entry["wire"], entry["action"]) == ("tencent", "BankCard4EVerification")
    assert (entry["outcome"], entry["result"]) == ("PASS", "0")
    assert SAMPLE["BankCard"] not in str(entry) and SAMPLE["IdCard"] not in str(entry)


def test_mismatch(client, sandbox):
    with sandbox.charged(1, records=1):
        answer = client.call(sandbox.address, MISMATCH)
    assert answer.result == "-6"
    assert answer.description == "持卡人信息有误"
    assert UUID4.match(answer.request_id)


def test_english(client, sandbox):
    answer = client.call(sandbox.address, MISMATCH, language="en-US")
    assert answer.result == "-6"
    assert answer.description == "Cardholder information is incorrect"


def test_unknown_key(client, sandbox):
    refused(
        client,
        sandbox,
        "AuthFailure.SecretIdNotFound",
        secret_id="AKIDz8krbsJ5yKBZQpn74WFkmLPx3UNKNOWN",
    )


def test_wrong_secret(client, sandbox):
    refused(
        client, sandbox, "AuthFailure.SignatureFailure", secret_key="not" + PUBLIC["secret_key"]
    )


def test_clock_a_thousand_seconds_off(client, sandbox):
    sandbox.shift_clock(1000)
    refused(client, sandbox, "AuthFailure.SignatureExpire")
    sandbox.shift_clock(-1000)
    refused(client, sandbox, "AuthFailure.SignatureExpire")
    sandbox.shift_clock(290)
    assert client.call(sandbox.address, SAMPLE).result == "0"


@pytest.mark.parametrize("member", ["Name", "BankCard", "Phone", "IdCard"])
def test_missing_member(client, sandbox, member):
    elements = {name: value for name, value in SAMPLE.items() if name != member}
    error = refused(client, sandbox, "MissingParameter", elements)
    assert f"`{member}`" in error.message, error.message


def test_not_activated(client, sandbox):
    application = sandbox.application("not-activated")
    refused(client, sandbox, "UnauthorizedOperation.Nonactivated", **keys(application))


@pytest.mark.parametrize(
    ("application", "code"),
    [
        ("arrears", "UnauthorizedOperation.Arrears"),
        ("suspended", "UnauthorizedOperation.ChargeStatusException"),
        ("unconfirmed", "UnauthorizedOperation.NonAuthorize"),
    ],
)
def test_other_account_states(client, sandbox, application, code):
    refused(client, sandbox, code, **keys(sandbox.application(application)))


def test_rate_limit_while_others_flood(client, sandbox):
    """Two a second are allowed; with the clock stopped the second does not end, so the third
    is refused however slowly a client starts."""
    application = sandbox.application("rate-limited")
    flooder = PythonSync()
    sandbox.freeze_clock()
    for _ in range(2):
        assert flooder.call(sandbox.address, SAMPLE, **keys(application)).result == "0"
    error = refused(client, sandbox, "RequestLimitExceeded", **keys(application))
    assert "`2`" in error.message, error.message


def test_rate_limit_by_real_time(sandbox):
    """A flood in real time: some pass, the rest are refused, and a second later all is well."""
    application = sandbox.application("rate-limited")
    passed, refused_codes = [], []

    def one():
        try:
            passed.append(PythonSync().call(sandbox.address, SAMPLE, **keys(application)))
        except Refused as error:
            refused_codes.append(error.code)

    before = sandbox.ledger()["charges"]
    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(passed) + len(refused_codes) == 12
    assert passed and refused_codes
    assert sandbox.ledger()["charges"] - before == len(passed), "a refused call was charged"
    assert set(refused_codes) == {"RequestLimitExceeded"}
    time.sleep(2.1)
    assert PythonSync().call(sandbox.address, SAMPLE, **keys(application)).result == "0"


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("code", CODES, ids=[code["tencent"] for code in CODES])
def test_every_magic_card(sandbox, code, language):
    """One card per code, whatever the other elements say; texts as both pages print them."""
    elements = {"Name": "任", "BankCard": code["card"], "Phone": "1", "IdCard": "1"}
    with sandbox.charged(1 if code["charged"] else 0, records=1):
        answer = PythonSync().call(
            sandbox.address, elements, language={"zh": "zh-CN", "en": "en-US"}[language]
        )
    assert answer.result == code["tencent"]
    assert answer.description == code[f"tencent_{language}"]
    assert UUID4.match(answer.request_id)


@pytest.mark.parametrize(
    "code",
    [code for code in CODES if code["tencent"] in ("0", "-2", "-13", "-21")],
    ids=lambda code: code["tencent"],
)
def test_some_magic_cards(client, sandbox, code):
    answer = client.call(sandbox.address, {**SAMPLE, "BankCard": code["card"]})
    assert (answer.result, answer.description) == (code["tencent"], code["tencent_zh"])
