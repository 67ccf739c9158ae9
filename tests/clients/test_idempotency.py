"""A question that is sent again is charged once: with a key on both wires, or within the window."""

import threading

import pytest

import acedata_clients
import tencent_clients
from harness import MISMATCH, SAMPLE

KEY_HEADERS = ["Idempotency-Key", "X-Idempotency-Key"]


def tencent(sandbox, elements, headers=None):
    return tencent_clients.PythonSync().call(sandbox.address, elements, headers=headers).result


def acedata(sandbox, elements, headers=None):
    return acedata_clients.Sdk().call(sandbox.url, elements, headers=headers).result


WIRES = pytest.mark.parametrize(
    ("call", "mismatch"), [(tencent, "-6"), (acedata, "-4")], ids=["tencent", "acedata"]
)


@WIRES
def test_without_a_key_each_question_is_charged(sandbox, call, mismatch):
    with sandbox.charged(2, records=2):
        assert [call(sandbox, MISMATCH) for _ in range(2)] == [mismatch] * 2


@WIRES
@pytest.mark.parametrize("header", KEY_HEADERS)
def test_one_key_one_charge(sandbox, call, mismatch, header):
    with sandbox.charged(1, records=1):
        results = [call(sandbox, MISMATCH, {header: "order-4711"}) for _ in range(3)]
    assert results == [mismatch] * 3


@WIRES
def test_another_key_is_another_question(sandbox, call, mismatch):
    with sandbox.charged(2, records=2):
        for key in ("one", "two"):
            assert call(sandbox, MISMATCH, {"Idempotency-Key": key}) == mismatch


def test_a_key_with_another_payload_is_refused(sandbox):
    headers = {"Idempotency-Key": "order-4712"}
    with sandbox.charged(2, records=2):
        assert tencent(sandbox, SAMPLE, dict(headers)) == "0"
        with pytest.raises(tencent_clients.Refused) as caught:
            tencent(sandbox, MISMATCH, dict(headers))
        assert caught.value.code == "InvalidParameter"

        headers = {"Idempotency-Key": "order-4713"}
        assert acedata(sandbox, SAMPLE, headers) == "0"
        with pytest.raises(acedata_clients.Refused) as refused:
            acedata(sandbox, MISMATCH, headers)
        # Not 409: the official client would send it again.
        assert (refused.value.status, refused.value.code) == (400, "bad_request")


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "x" * 256},
        {"Idempotency-Key": "a b"},
        {"Idempotency-Key": "one", "X-Idempotency-Key": "two"},
    ],
    ids=["empty", "too-long", "blank", "two-keys"],
)
def test_a_key_that_cannot_be_kept_is_refused(sandbox, headers):
    """Never taken for "no key": its sender believes that a retry is free."""
    with sandbox.charged(0, records=0):
        with pytest.raises(tencent_clients.Refused) as caught:
            tencent(sandbox, SAMPLE, headers)
        assert caught.value.code == "InvalidParameter"
        with pytest.raises(acedata_clients.Refused) as refused:
            acedata(sandbox, SAMPLE, headers)
        assert (refused.value.status, refused.value.code) == (400, "bad_request")


def test_the_longest_key(sandbox):
    headers = {"Idempotency-Key": "x" * 255}
    with sandbox.charged(1, records=1):
        assert [tencent(sandbox, SAMPLE, headers) for _ in range(2)] == ["0", "0"]


def test_a_key_belongs_to_one_caller(sandbox):
    headers = {"Idempotency-Key": "shared"}
    trial = sandbox.application("trial")
    with sandbox.charged(2, records=2):
        assert acedata(sandbox, SAMPLE, headers) == "0"
        other = acedata_clients.Sdk().call(
            sandbox.url, MISMATCH, token=trial["bearer"], headers=headers
        )
        assert other.result == "-4"


@WIRES
def test_twins_in_flight_join_the_first(sandbox, call, mismatch):
    sandbox.fault({"delay_ms": 500})
    results = []
    with sandbox.charged(1, records=1):
        threads = [
            threading.Thread(
                target=lambda: results.append(call(sandbox, MISMATCH, {"Idempotency-Key": "twin"}))
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert results == [mismatch] * 5


def test_a_stored_answer_outlives_the_quota(sandbox):
    """An answer that was paid for is given again even when a new question would be refused."""
    token = sandbox.application("trial")["bearer"]
    sdk = acedata_clients.Sdk()
    headers = {"Idempotency-Key": "the-first"}
    assert sdk.call(sandbox.url, SAMPLE, token=token, headers=headers).result == "0"
    for _ in range(9):
        assert sdk.call(sandbox.url, SAMPLE, token=token).result == "0"
    with pytest.raises(acedata_clients.Refused) as caught:
        sdk.call(sandbox.url, SAMPLE, token=token)
    assert caught.value.code == "used_up"
    with sandbox.charged(0, records=0):
        assert sdk.call(sandbox.url, SAMPLE, token=token, headers=headers).result == "0"


@pytest.mark.parametrize(
    "adapter",
    [acedata_clients.Sdk, acedata_clients.SdkAsync],
    ids=["acedatacloud", "acedatacloud-async"],
)
@pytest.mark.parametrize(
    "effect", [{"status": 502, "when": "after"}, {"drop": "after"}], ids=["502", "drop"]
)
def test_the_official_client_sends_again_and_is_charged_once(window_sandbox, adapter, effect):
    """It re-sends a POST after 5xx and lost connections, with no key: the window absorbs that."""
    window_sandbox.fault(effect, wire="acedata")
    with window_sandbox.charged(1, records=1):
        answer = adapter().call(window_sandbox.url, MISMATCH, retries=2)
    assert answer.result == "-4"


def test_without_the_window_the_same_retry_is_charged_twice(sandbox):
    """The reason for the window, and why it is written down that it is off by default."""
    sandbox.fault({"status": 502, "when": "after"}, wire="acedata")
    with sandbox.charged(2, records=2):
        assert acedata_clients.Sdk().call(sandbox.url, MISMATCH, retries=2).result == "-4"


@WIRES
def test_the_window_on_both_wires(window_sandbox, call, mismatch):
    with window_sandbox.charged(2, records=2):
        assert [call(window_sandbox, MISMATCH) for _ in range(2)] == [mismatch] * 2
        assert call(window_sandbox, SAMPLE) == "0"


def test_the_window_ends(window_sandbox):
    with window_sandbox.charged(2, records=2):
        assert acedata(window_sandbox, SAMPLE) == "0"
        window_sandbox.shift_clock(61)
        assert acedata(window_sandbox, SAMPLE) == "0"


def test_the_tencent_retryer_is_charged_once_with_a_key(sandbox):
    """`StandardRetryer` is off by default, and has a bug: after one failure it goes on asking and
    in the end raises the old error, though a later answer was good. A key keeps that to one charge.
    """
    from tencentcloud.common.retry import StandardRetryer

    python = tencent_clients.PythonSync()
    client = python.client(sandbox.address)
    client.profile.retryer = StandardRetryer(max_attempts=3, backoff_fn=lambda n: 0)
    sandbox.fault({"status": 502, "when": "after"}, wire="tencent")
    with sandbox.charged(1, records=1):
        with pytest.raises(tencent_clients.Refused) as caught:
            python.send(client, SAMPLE, {"Idempotency-Key": "retryer"})
    assert caught.value.code == "ServerNetworkError"
    with sandbox.charged(0, records=0):
        assert tencent(sandbox, SAMPLE, {"Idempotency-Key": "retryer"}) == "0"
