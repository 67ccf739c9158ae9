"""The fixture with the real SDKs, and what it says when something is wrong."""

import json
import os
import urllib.request

import pytest
from pytest_card4e import PUBLIC_TOKEN, Sandbox, SandboxError

pytest_plugins = ["pytester"]

PASSES = {"Name": "韦小宝", "BankCard": "6225768888888888", "Phone": "16137688175", "IdCard": "11204416541220243X"}


def verify(card4e, **elements):
    """As an application does it with Tencent's SDK."""
    from tencentcloud.faceid.v20180301 import faceid_client, models

    client = faceid_client.FaceidClient(card4e.tencent_credential(), "", card4e.tencent_profile())
    request = models.BankCard4EVerificationRequest()
    request.from_json_string(json.dumps({**PASSES, **elements}))
    return client.BankCard4EVerification(request).Result


def test_a_pass_is_asked_and_charged_once(card4e):
    assert verify(card4e) == "0"
    [entry] = card4e.assert_asked(outcome="PASS", wire="tencent", action="BankCard4EVerification")
    assert entry["charged"] == "1" and "韦小宝" not in json.dumps(entry, ensure_ascii=False)
    assert card4e.charges == 1


def test_each_test_begins_anew(card4e):
    assert card4e.journal() == [] and card4e.charges == 0


def test_cards_and_answers_on_demand(card4e):
    assert verify(card4e, BankCard=card4e.card("CARD_LOST")) == "-13"
    card4e.answer_next("SOURCE_BUSY", "-13")
    assert [verify(card4e) for _ in range(3)] == ["-18", "-13", "0"]
    assert [entry["outcome"] for entry in card4e.journal()] == ["CARD_LOST", "SOURCE_BUSY", "CARD_LOST", "PASS"]
    with pytest.raises(SandboxError, match="no bankcard-4e is answered LOST; there is .*CARD_LOST"):
        card4e.card("LOST")


def test_errors_of_the_wire(card4e):
    from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

    card4e.fault({"error": "UnauthorizedOperation.Arrears"})
    with pytest.raises(TencentCloudSDKException) as refused:
        verify(card4e)
    assert refused.value.code == "UnauthorizedOperation.Arrears"
    card4e.shift_clock(3600)
    with pytest.raises(TencentCloudSDKException) as refused:
        verify(card4e)
    assert refused.value.code == "AuthFailure.SignatureExpire"
    assert card4e.charges == 0


def test_accounts_of_ones_own(card4e):
    mine = dict(bank_card="6217000000009999", name="张三", id_number="990101199001010019", phone="16100009999")
    card4e.add_account(**mine)
    elements = {"Name": "张三", "BankCard": "6217000000009999", "IdCard": "990101199001010019", "Phone": "16100009999"}
    assert verify(card4e, **elements) == "0"
    with pytest.raises(SandboxError, match="account 1"):
        card4e.add_account(bank_card="1")


def test_the_environment_leads_to_it(card4e):
    from tencentcloud.common.credential import EnvironmentVariableCredential

    assert EnvironmentVariableCredential().get_credential().secret_id.startswith("AKID")
    request = urllib.request.Request(
        os.environ["ACEDATACLOUD_API_BASE_URL"] + "/identity/bankcard/check-4e",
        data=json.dumps({"name": "A", "bank_card": "***", "phone": "***", "id_card": "***"}).encode(),
        headers={"authorization": f"Bearer {os.environ['ACEDATACLOUD_API_TOKEN']}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["result"] == "0"
    card4e.assert_asked(wire="acedata", outcome="PASS")
    assert os.environ["ACEDATACLOUD_API_TOKEN"] == PUBLIC_TOKEN


def test_what_an_assertion_says(card4e):
    verify(card4e)
    with pytest.raises(AssertionError, match=r"0 requests with outcome='CARD_LOST', expected 1; asked was\n.*PASS charged 1"):
        card4e.assert_asked(outcome="CARD_LOST")


def test_a_program_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CARD4E_BIN", "/nowhere/card4e")
    with pytest.raises(SandboxError, match="set CARD4E_BIN"):
        Sandbox()


def test_a_sandbox_that_does_not_start():
    with pytest.raises(SandboxError, match="unexpected argument"):
        Sandbox(arguments=["--no-such-thing"])


def test_nothing_is_left_behind():
    with Sandbox() as sandbox:
        process, folder = sandbox._process, sandbox._folder
    assert process.returncode == 0 and not folder.exists()


def test_in_a_project_of_its_own(pytester):
    pytester.makepyfile("def test_it(card4e):\n    assert card4e.control('GET', 'clock')['mode'] == 'real'\n")
    pytester.makeini(f"[pytest]\ncard4e_bin = {os.environ.get('CARD4E_BIN', 'card4e')}\ncard4e_args = --seed 7\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
