"""The sandbox's control interface is for this machine's tests, not for web pages from elsewhere."""

import pytest
import requests

from acedata_clients import Sdk
from harness import PUBLIC, SAMPLE
from tencent_clients import PythonSync


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
    ],
    ids=["rebound-name", "other-site", "no-site"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "reset"), ("GET", "journal")])
def test_control_is_closed_to_other_sites(sandbox, method, path, headers):
    assert PythonSync().call(sandbox.address, SAMPLE).result == "0"
    reply = requests.request(method, f"{sandbox.url}/_sandbox/{path}", headers=headers, timeout=10)
    assert reply.status_code == 403, reply.text
    assert len(sandbox.journal()) == 1, "it was reset all the same"


def test_the_wires_give_no_permission_to_other_sites(sandbox):
    origin = {"Origin": "https://attacker.example"}
    for method in ("POST", "OPTIONS"):
        reply = requests.request(
            method,
            f"{sandbox.url}/identity/bankcard/check-4e",
            json={},
            headers={**origin, "authorization": f"Bearer {PUBLIC['bearer']}"},
            timeout=10,
        )
        assert "access-control-allow-origin" not in reply.headers


def test_reset_forgets_everything(sandbox):
    sandbox.fault({"outcome": "CARD_LOST"}, count=100)
    sandbox.shift_clock(1000)
    trial = sandbox.application("trial")["bearer"]
    for _ in range(3):
        assert Sdk().call(sandbox.url, SAMPLE, token=trial).result == "-11"
    sandbox.reset()
    assert sandbox.journal() == []
    assert sandbox.control("GET", "clock").json()["mode"] == "real"
    for _ in range(10):
        assert Sdk().call(sandbox.url, SAMPLE, token=trial).result == "0"


def test_a_rule_that_cannot_be_followed_is_refused(sandbox):
    for rule in (
        {},
        {"effect": {"error": "NoSuchError"}},
        {"wire": "acedata", "effect": {"error": "FailedOperation.UnKnown"}},
        {"wire": "telex", "effect": {"delay_ms": 1}},
        {"effect": {"outcome": "MAYBE"}},
        {"probability": 2, "effect": {"delay_ms": 1}},
    ):
        reply = sandbox.control("POST", "faults", rule, expect=None)
        assert reply.status == 400, (rule, reply.status, reply.text)
    assert PythonSync().call(sandbox.address, SAMPLE).result == "0"


def test_an_added_account_is_verified(sandbox):
    account = {
        "bank_card": "6217000000000000019",
        "name": "欧阳娜娜",
        "id_number": "110101199003070118",
        "phone": "13800138000",
    }
    sandbox.control("POST", "accounts", account)
    elements = {
        "Name": account["name"],
        "BankCard": account["bank_card"],
        "Phone": account["phone"],
        "IdCard": account["id_number"],
    }
    assert PythonSync().call(sandbox.address, elements).result == "0"
    assert PythonSync().call(sandbox.address, {**elements, "Phone": "13800138001"}).result == "-6"
    assert Sdk().call(sandbox.url, {**elements, "Name": "欧阳"}).result == "-4"
