"""The same story for every AceData client: the guide as printed, pass, mismatch, mapped errors."""

import json

import pytest

from acedata_clients import PATH, CurlSnippet, Refused, RequestsSnippet, Sdk, SdkAsync, body_of
from harness import CODES, MISMATCH, PUBLIC, SAMPLE, UUID4, Sandbox

CLIENTS = [CurlSnippet, RequestsSnippet, Sdk, SdkAsync]


@pytest.fixture(params=CLIENTS, ids=[client.name for client in CLIENTS])
def client(request):
    return request.param()


def refused(client, sandbox, status, code, elements=SAMPLE, **options):
    """The client sees our code and our trace id, and nothing was charged."""
    with sandbox.charged(0, records=0):
        with pytest.raises(Refused) as caught:
            client.call(sandbox.url, elements, **options)
    error = caught.value
    assert error.code == code, str(error)
    assert error.status in (None, status), str(error)
    assert UUID4.match(error.trace_id or ""), str(error)
    assert error.message
    return error


def test_the_guide_as_printed(client, sandbox):
    """All three numbers are literally `***` there, and the guide shows a pass."""
    answer = client.call(sandbox.url)
    assert (answer.result, answer.description) == ("0", "Authentication passed")


def test_pass(client, sandbox):
    with sandbox.charged(1, records=1):
        answer = client.call(sandbox.url, SAMPLE)
    assert (answer.result, answer.description) == ("0", "Authentication passed")


def test_mismatch(client, sandbox):
    with sandbox.charged(1, records=1):
        answer = client.call(sandbox.url, MISMATCH)
    assert (answer.result, answer.description) == ("-4", "Cardholder information is incorrect")


def test_bad_token(client, sandbox):
    refused(client, sandbox, 401, "invalid_token", token="0" * 32)


def test_a_platform_token_is_not_an_api_token(client, sandbox):
    refused(client, sandbox, 401, "invalid_token", token="platform-v1-" + "4e" * 32)


@pytest.mark.parametrize("member", ["Name", "BankCard", "Phone", "IdCard"])
def test_missing_member(client, sandbox, member):
    elements = {name: value for name, value in SAMPLE.items() if name != member}
    error = refused(client, sandbox, 400, "bad_request", elements)
    (absent,) = set(body_of(SAMPLE)) - set(body_of(elements))
    assert absent in error.message, error.message


@pytest.mark.parametrize(
    ("application", "status", "code"),
    [
        ("not-activated", 400, "token_mismatched"),
        ("arrears", 403, "used_up"),
        ("suspended", 403, "disabled"),
        ("unconfirmed", 403, "disabled"),
    ],
)
def test_account_states(client, sandbox, application, status, code):
    token = sandbox.application(application)["bearer"]
    refused(client, sandbox, status, code, token=token)


def test_rate_limit(client, sandbox):
    """Two a second are allowed, and the sandbox's clock stands still."""
    token = sandbox.application("rate-limited")["bearer"]
    flooder = Sdk()
    sandbox.freeze_clock()
    for _ in range(2):
        assert flooder.call(sandbox.url, SAMPLE, token=token).result == "0"
    refused(client, sandbox, 429, "too_many_requests", token=token)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("code", CODES, ids=[f"tencent{code['tencent']}" for code in CODES])
def test_every_magic_card(sandbox, code, language):
    """The card of each Tencent code gives the documented number of this wire."""
    elements = {"Name": "任", "BankCard": code["card"], "Phone": "1", "IdCard": "1"}
    headers = {"accept-language": "zh-CN,zh;q=0.9"} if language == "zh" else None
    with sandbox.charged(1 if code["charged"] else 0, records=1):
        answer = Sdk().call(sandbox.url, elements, headers=headers)
    assert answer.result == code["acedata"]
    assert answer.description == code[f"acedata_{language}"]


@pytest.mark.parametrize(
    "code",
    [code for code in CODES if code["tencent"] in ("-4", "-13", "-20")],
    ids=lambda code: code["tencent"],
)
def test_some_magic_cards(client, sandbox, code):
    answer = client.call(sandbox.url, {**SAMPLE, "BankCard": code["card"]})
    assert (answer.result, answer.description) == (code["acedata"], code["acedata_en"])


def test_upstream_numbering(tmp_path):
    """By configuration the wire answers the four-element numbers of the page it was copied from."""
    server = Sandbox(tmp_path / "sandbox", config='[acedata]\nnumbering = "upstream_4e"\n')
    try:
        for code in CODES:
            answer = Sdk().call(server.url, {**SAMPLE, "BankCard": code["card"]})
            assert answer.result == code["tencent"]
        assert Sdk().call(server.url, MISMATCH).result == "-6"
        assert CurlSnippet().call(server.url).result == "0"
    finally:
        server.stop()


# What no official client reads and no page documents, but ours promise.


def post(sandbox, body=None, *, token=PUBLIC["bearer"], path=PATH, method="POST", **headers):
    import requests

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        named["authorization"] = f"Bearer {token}"
    return requests.request(
        method,
        sandbox.url + path,
        json=body_of(SAMPLE) if body is None else body,
        headers={"accept": "application/json", **named},
        allow_redirects=False,
        timeout=20,
    )


def test_headers_of_an_answer(sandbox):
    reply = post(sandbox)
    assert reply.status_code == 200
    assert UUID4.match(reply.headers["x-trace-id"])
    assert float(reply.headers["x-charged"]) > 0
    assert reply.headers["x-trace-id"] in {entry["request_id"] for entry in sandbox.journal()}
    free = post(sandbox, body_of({**SAMPLE, "BankCard": "6200000000180005"}))
    assert (free.json()["result"], float(free.headers["x-charged"])) == ("-16", 0.0)


def test_free_answers_without_a_code_of_their_own_say_so(sandbox):
    """-1 is a charged number on this wire; -3, -5 and -20 of the other are not charged."""
    for code in CODES:
        reply = post(sandbox, body_of({**SAMPLE, "BankCard": code["card"]}))
        assert reply.json()["result"] == code["acedata"]
        assert (float(reply.headers["x-charged"]) > 0) == code["charged"], code


def test_remaining_credits_count_down(sandbox):
    token = sandbox.application("trial")["bearer"]
    left = []
    for _ in range(10):
        reply = post(sandbox, token=token)
        assert reply.status_code == 200, reply.text
        left.append(float(reply.headers["x-credits-remaining"]))
    assert left == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    refused = post(sandbox, token=token)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "used_up")
    assert refused.headers["x-trace-id"] == refused.json()["trace_id"]


def test_a_rate_refusal_says_when_to_come_back(sandbox):
    token = sandbox.application("rate-limited")["bearer"]
    sandbox.freeze_clock()
    replies = [post(sandbox, token=token) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert int(replies[2].headers["Retry-After"]) >= 1
    assert any(name.lower().startswith("ratelimit") for name in replies[2].headers)


def test_both_slash_forms_and_no_redirect(sandbox):
    for path in (PATH, PATH + "/"):
        assert post(sandbox, path=path).json()["result"] == "0"


def test_accept_header(sandbox):
    for accept in ("application/json", "*/*", "text/event-stream", "application/xml"):
        reply = post(sandbox, accept=accept)
        assert reply.status_code == 200 and reply.json()["result"] == "0", accept
        assert reply.headers["content-type"].startswith("application/json")
    lines = post(sandbox, accept="application/x-ndjson")
    assert lines.text.endswith("\n") and lines.text.count("\n") == 1
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(lines.text) == {"result": "0", "description": "Authentication passed"}


def test_no_token_unknown_path_and_wrong_method(sandbox):
    reply = post(sandbox, token=None)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_token")
    reply = post(sandbox, path="/identity/bankcard/check-9e")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_api")
    reply = post(sandbox, path="/serp/google")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_api")
    reply = post(sandbox, method="PUT")
    assert reply.status_code == 405
    assert UUID4.match(reply.json()["trace_id"])


def test_members_of_the_wrong_type(sandbox):
    for member in ("name", "phone", "id_card", "bank_card"):
        reply = post(sandbox, {**body_of(SAMPLE), member: 1})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
        assert member in reply.json()["error"]["message"]


def test_document_kind_as_number_or_text(sandbox):
    for kind in (0, "0"):
        assert post(sandbox, {**body_of(SAMPLE), "cert_type": kind}).json()["result"] == "0"


def test_an_encrypt_list_without_an_envelope_is_refused(sandbox):
    for encryption in (
        [{"encrypt_list": ["name"], "ciphertext_blob": 1, "iv": "x" * 16}],
        {"encrypt_list": ["Name"], "ciphertext_blob": "x", "iv": "x" * 16},
    ):
        with sandbox.charged(0, records=0):
            reply = post(sandbox, {**body_of(SAMPLE), "encryption": encryption})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
        assert "encryption" in reply.json()["error"]["message"]
