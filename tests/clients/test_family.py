"""Every action through every client, by the client's own classes; where a client has none, generically."""

import pytest

from harness import UUID4
from tencent_clients import PythonAsync, PythonSync, Tccli

NAME, ID, PHONE = "韦小宝", "11204416541220243X", "16137688175"
CARD, OTHER = "6225768888888888", "6226090210146748"
PERSON = {"IdCard": ID, "Name": NAME, "Phone": PHONE}

# Action, members, what the documentation says is answered, and a member of the reply.
SAMPLES = [
    ("BankCard4EVerification", {**PERSON, "BankCard": CARD}, "0", {}),
    ("BankCard4EVerification", {**PERSON, "BankCard": OTHER}, "-6", {}),
    ("BankCardVerification", {"IdCard": ID, "Name": NAME, "BankCard": OTHER}, "0", {}),
    ("BankCardVerification", {"IdCard": ID, "Name": NAME, "BankCard": CARD}, "-1", {}),
    ("BankCard2EVerification", {"Name": NAME, "BankCard": CARD}, "0", {}),
    ("BankCard2EVerification", {"Name": NAME, "BankCard": OTHER}, "-4", {}),
    (
        "CheckBankCardInformation",
        {"BankCard": CARD},
        "0",
        {"AccountBank": "招商银行信用卡", "AccountType": 2},
    ),
    (
        "CheckBankCardInformation",
        {"BankCard": "6200000000100003"},
        "-1",
        {"AccountBank": "", "AccountType": -1},
    ),
    ("IdCardVerification", {"IdCard": ID, "Name": NAME}, "0", {}),
    ("IdCardVerification", {"IdCard": "440305199505132561", "Name": "刘洋"}, "-1", {}),
    ("PhoneVerification", PERSON, "0", {"Isp": "电信"}),
    ("PhoneVerificationCMCC", PERSON, "0", {"Isp": "移动"}),
    ("PhoneVerificationCUCC", PERSON, "0", {"Isp": "联通"}),
    ("PhoneVerificationCTCC", PERSON, "0", {"Isp": "电信"}),
    ("CheckPhoneAndName", {"Mobile": PHONE, "Name": NAME}, "0", {}),
    ("CheckPhoneAndName", {"Mobile": "16100000001", "Name": NAME}, "1", {}),
]
CLIENTS = ["python", "python-async", "tccli"]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("action", "members", "result", "more"),
    SAMPLES,
    ids=[f"{action}{result}" for action, _, result, _ in SAMPLES],
)
def test_sample(kind, action, members, result, more, sandbox, tmp_path):
    client = {"python": PythonSync, "python-async": PythonAsync, "tccli": lambda: Tccli(tmp_path)}[kind]()
    with sandbox.charged(1, records=1):
        answer = client.call(sandbox.address, members, action=action)
    assert answer.result == result
    assert UUID4.match(answer.request_id)
    assert answer.description
    assert {name: answer.reply[name] for name in more} == more
