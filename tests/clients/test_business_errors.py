"""One test for each business error of both sources' pages, as the official clients raise it.

The sandbox gives them by fault rules. None is charged, and none is written to the ledger.
"""

import pytest

import acedata_clients
import tencent_clients
from harness import SAMPLE, UUID4

TENCENT = [
    "FailedOperation.DecryptSystemError",
    "FailedOperation.StsUnAuthErrError",
    "FailedOperation.UnKnown",
    "InvalidParameter",
    "InvalidParameter.UnsupportEncryptField",
    "InvalidParameterValue",
    "UnauthorizedOperation.Arrears",
    "UnauthorizedOperation.ChargeStatusException",
    "UnauthorizedOperation.NonAuthorize",
    "UnauthorizedOperation.Nonactivated",
]

# Common errors that a client's users meet and that are hard to provoke otherwise.
TENCENT_COMMON = [
    "InternalError",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "AuthFailure.TokenFailure",
]


@pytest.mark.parametrize(
    "adapter",
    [tencent_clients.PythonSync, tencent_clients.PythonAsync],
    ids=["python", "python-async"],
)
@pytest.mark.parametrize("code", TENCENT + TENCENT_COMMON)
def test_tencent(sandbox, adapter, code):
    sandbox.fault({"error": code}, wire="tencent")
    with sandbox.charged(0, records=0):
        with pytest.raises(tencent_clients.Refused) as caught:
            adapter().call(sandbox.address, SAMPLE)
    assert caught.value.code == code
    assert caught.value.message
    assert UUID4.match(caught.value.request_id)
    assert adapter().call(sandbox.address, SAMPLE).result == "0", "the rule was for one request"


@pytest.mark.parametrize("code", TENCENT)
def test_tencent_texts_in_both_languages(sandbox, code):
    sandbox.fault({"error": code}, wire="tencent", count=2)
    texts = []
    for language in ("zh-CN", "en-US"):
        with pytest.raises(tencent_clients.Refused) as caught:
            tencent_clients.PythonSync().call(sandbox.address, SAMPLE, language=language)
        texts.append(caught.value.message)
    chinese, english = texts
    assert not chinese.isascii() and english.isascii(), texts


def test_tencent_by_tccli(sandbox, tmp_path):
    sandbox.fault({"error": "FailedOperation.UnKnown"}, wire="tencent")
    with pytest.raises(tencent_clients.Refused) as caught:
        tencent_clients.Tccli(tmp_path).call(sandbox.address, SAMPLE)
    assert caught.value.code == "FailedOperation.UnKnown"
    assert UUID4.match(caught.value.request_id)


# Status, code, exception of the official client.
ACEDATA = [
    (400, "token_mismatched", "TokenMismatchError"),
    (400, "api_not_implemented", "ValidationError"),
    (401, "invalid_token", "AuthenticationError"),
    (429, "too_many_requests", "RateLimitError"),
    (500, "api_error", "APIError"),
]

# The other rows of the client's own table that this wire has (a missing token is `invalid_token`).
ACEDATA_COMMON = [
    (401, "token_expired", "AuthenticationError"),
    (403, "used_up", "InsufficientBalanceError"),
    (403, "disabled", "ResourceDisabledError"),
    (400, "bad_request", "ValidationError"),
    (404, "no_api", "APIError"),
    (504, "timeout", "APIError"),
]


@pytest.mark.parametrize(
    "adapter",
    [acedata_clients.Sdk, acedata_clients.SdkAsync],
    ids=["acedatacloud", "acedatacloud-async"],
)
@pytest.mark.parametrize(
    ("status", "code", "exception"),
    ACEDATA + ACEDATA_COMMON,
    ids=[row[1] for row in ACEDATA + ACEDATA_COMMON],
)
def test_acedata(sandbox, adapter, status, code, exception):
    sandbox.fault({"error": code}, wire="acedata")
    with sandbox.charged(0, records=0):
        with pytest.raises(acedata_clients.Refused) as caught:
            adapter().call(sandbox.url, SAMPLE)
    error = caught.value
    assert type(error.original).__name__ == exception
    assert (error.status, error.code) == (status, code)
    assert UUID4.match(error.trace_id)
    assert error.message
    body = error.original.body
    assert set(body) <= {"error", "trace_id", "success"} and body.get("success", False) is False


@pytest.mark.parametrize(
    ("status", "exception"), [(403, "ModerationError"), (409, "APIError"), (502, "APIError")]
)
def test_acedata_statuses_without_a_code_of_ours(sandbox, status, exception):
    """What a gateway in front of us could answer."""
    sandbox.fault({"status": status, "when": "before"}, wire="acedata")
    with sandbox.charged(0, records=0):
        with pytest.raises(acedata_clients.Refused) as caught:
            acedata_clients.Sdk().call(sandbox.url, SAMPLE)
    assert type(caught.value.original).__name__ == exception
    assert caught.value.status == status


@pytest.mark.parametrize(
    "adapter",
    [acedata_clients.CurlSnippet, acedata_clients.RequestsSnippet],
    ids=["curl", "requests"],
)
@pytest.mark.parametrize(("status", "code", "exception"), ACEDATA, ids=[row[1] for row in ACEDATA])
def test_acedata_by_the_guides_snippets(sandbox, adapter, status, code, exception):
    sandbox.fault({"error": code}, wire="acedata")
    with pytest.raises(acedata_clients.Refused) as caught:
        adapter().call(sandbox.url, SAMPLE)
    assert caught.value.code == code
    assert UUID4.match(caught.value.trace_id)


def test_a_busy_source_is_an_answer_and_free(sandbox):
    """Never a pass, never a charge, and not an error that an SDK would retry."""
    sandbox.fault({"outcome": "SOURCE_BUSY"}, count=2)
    with sandbox.charged(0, records=2):
        assert tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result == "-18"
        assert acedata_clients.Sdk().call(sandbox.url, SAMPLE).result == "-16"


def test_a_sequence_busy_busy_pass(sandbox):
    sandbox.fault(
        count=3,
        sequence=[{"outcome": "SOURCE_BUSY"}, {"outcome": "SOURCE_BUSY"}, {"outcome": "PASS"}],
    )
    results = [tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result for _ in range(3)]
    assert results == ["-18", "-18", "0"]


def test_a_rule_for_one_card_leaves_the_others_alone(sandbox):
    sandbox.fault({"outcome": "CARD_LOST"}, card=SAMPLE["BankCard"])
    other = {**SAMPLE, "BankCard": "6200000000070008"}
    assert tencent_clients.PythonSync().call(sandbox.address, other).result == "-7"
    assert tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result == "-13"
    assert tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result == "0"


def test_forced_outcome_by_request_header(sandbox):
    python = tencent_clients.PythonSync()
    for outcome in ("CARD_LOST", "-13"):
        headers = {"X-Sandbox-Outcome": outcome}
        assert python.call(sandbox.address, SAMPLE, headers=headers).result == "-13"
        assert acedata_clients.Sdk().call(sandbox.url, SAMPLE, headers=headers).result == "-11"


@pytest.mark.parametrize(
    ("effect", "code", "charges"),
    [
        ({"status": 502, "when": "before"}, "ServerNetworkError", 0),
        ({"status": 502, "when": "after"}, "ServerNetworkError", 1),
        ({"drop": "before"}, "ClientNetworkError", 0),
        ({"drop": "after"}, "ClientNetworkError", 1),
    ],
    ids=["502-before", "502-after", "drop-before", "drop-after"],
)
def test_what_the_network_does(sandbox, effect, code, charges):
    """A verification that was done is charged even if its answer was lost, and can be looked up."""
    sandbox.fault(effect, wire="tencent")
    with sandbox.charged(charges, records=charges):
        with pytest.raises(tencent_clients.Refused) as caught:
            tencent_clients.PythonSync().call(sandbox.address, SAMPLE)
    assert caught.value.code == code
    assert tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result == "0"


def test_a_truncated_reply_is_no_answer(sandbox):
    sandbox.fault({"truncate": 20}, wire="tencent")
    with sandbox.charged(1, records=1):
        with pytest.raises(tencent_clients.Refused):
            tencent_clients.PythonSync().call(sandbox.address, SAMPLE)


def test_a_delay_is_only_a_delay(sandbox):
    import time

    sandbox.fault({"delay_ms": 700})
    began = time.monotonic()
    assert tencent_clients.PythonSync().call(sandbox.address, SAMPLE).result == "0"
    assert time.monotonic() - began >= 0.7
