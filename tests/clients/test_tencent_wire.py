"""What the SDKs can be set to: signatures, methods, hosts, proxies; and what they send wrong."""

import json
import socket

import pytest

from harness import MISMATCH, PUBLIC, SAMPLE, UUID4
from tencent_clients import PythonAsync, PythonSync, Refused, Tccli, keys

SIGNATURES = ["TC3-HMAC-SHA256", "HmacSHA1", "HmacSHA256"]


def refusal_of(call):
    with pytest.raises(Refused) as caught:
        call()
    assert UUID4.match(caught.value.request_id or ""), str(caught.value)
    return caught.value


@pytest.mark.parametrize("adapter", [PythonSync, PythonAsync], ids=["python", "python-async"])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("sign_method", SIGNATURES)
class TestSignatures:
    """Both generations of the signature, by both methods."""

    def test_pass(self, sandbox, adapter, method, sign_method):
        options = {"method": method, "sign_method": sign_method}
        assert adapter().call(sandbox.address, SAMPLE, **options).result == "0"
        english = adapter().call(sandbox.address, MISMATCH, language="en-US", **options)
        assert english.result == "-6"
        assert english.description == "Cardholder information is incorrect"

    def test_document_kind_zero_is_the_default(self, sandbox, adapter, method, sign_method):
        options = {"method": method, "sign_method": sign_method}
        elements = {**SAMPLE, "CertType": 0}
        assert adapter().call(sandbox.address, elements, **options).result == "0"

    def test_wrong_secret(self, sandbox, adapter, method, sign_method):
        error = refusal_of(
            lambda: adapter().call(
                sandbox.address,
                SAMPLE,
                method=method,
                sign_method=sign_method,
                secret_key="wrong",
            )
        )
        assert error.code == "AuthFailure.SignatureFailure"

    def test_unknown_key(self, sandbox, adapter, method, sign_method):
        error = refusal_of(
            lambda: adapter().call(
                sandbox.address,
                SAMPLE,
                method=method,
                sign_method=sign_method,
                secret_id="AKIDunknown",
            )
        )
        assert error.code == "AuthFailure.SecretIdNotFound"

    def test_clock(self, sandbox, adapter, method, sign_method):
        sandbox.shift_clock(1000)
        error = refusal_of(
            lambda: adapter().call(sandbox.address, SAMPLE, method=method, sign_method=sign_method)
        )
        assert error.code == "AuthFailure.SignatureExpire"

    def test_missing_member(self, sandbox, adapter, method, sign_method):
        elements = {name: SAMPLE[name] for name in ("Name", "BankCard", "IdCard")}
        error = refusal_of(
            lambda: adapter().call(
                sandbox.address, elements, method=method, sign_method=sign_method
            )
        )
        assert error.code == "MissingParameter"
        assert "`Phone`" in error.message

    def test_temporary_token(self, sandbox, adapter, method, sign_method):
        options = {"method": method, "sign_method": sign_method}
        temporary = keys(sandbox.application("temporary"))
        assert temporary["token"]
        assert adapter().call(sandbox.address, SAMPLE, **options, **temporary).result == "0"
        for token in ("wrong", None):
            error = refusal_of(
                lambda token=token: adapter().call(
                    sandbox.address, SAMPLE, **options, **{**temporary, "token": token}
                )
            )
            assert error.code == "AuthFailure.TokenFailure", token


def test_a_permanent_key_ignores_a_token(sandbox):
    assert PythonSync().call(sandbox.address, SAMPLE, token="left over").result == "0"


def test_tccli_with_a_temporary_token(sandbox, tmp_path):
    temporary = keys(sandbox.application("temporary"))
    client = Tccli(tmp_path)
    assert client.call(sandbox.address, SAMPLE, **temporary).result == "0"
    error = refusal_of(
        lambda: client.call(sandbox.address, SAMPLE, **{**temporary, "token": "wrong"})
    )
    assert error.code == "AuthFailure.TokenFailure"


@pytest.mark.parametrize("sign_method", SIGNATURES)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_apigw_endpoint(sandbox, method, sign_method):
    """The client signs faceid.tencentcloudapi.com, connects to us and sends our host."""
    answer = PythonSync().call(
        None, SAMPLE, apigw=sandbox.address, method=method, sign_method=sign_method
    )
    assert answer.result == "0"


def test_apigw_endpoint_still_needs_the_right_secret(sandbox):
    error = refusal_of(
        lambda: PythonSync().call(None, SAMPLE, apigw=sandbox.address, secret_key="wrong")
    )
    assert error.code == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("adapter", [PythonSync, PythonAsync], ids=["python", "python-async"])
def test_unsigned_payload(sandbox, adapter):
    assert adapter().call(sandbox.address, SAMPLE, unsigned=True).result == "0"


def test_unsigned_payload_can_be_refused_by_a_key(sandbox):
    application = keys(sandbox.application("signed-only"))
    assert PythonSync().call(sandbox.address, SAMPLE, **application).result == "0"
    error = refusal_of(
        lambda: PythonSync().call(sandbox.address, SAMPLE, unsigned=True, **application)
    )
    assert error.code == "AuthFailure.SignatureFailure"


def test_two_identical_requests_in_one_second(sandbox):
    """TC3 has no nonce: honest clients repeat a signature, so a replay cache would refuse them."""
    seen = []
    for _ in range(10):
        python = PythonSync()
        client = python.client(sandbox.address)
        client.request.conn._session.hooks["response"].append(
            lambda reply, *_, **__: seen.append(reply.request.headers["Authorization"])
        )
        with sandbox.charged(2, records=2):
            assert [python.send(client, SAMPLE).result for _ in range(2)] == ["0", "0"]
        if seen[-1] == seen[-2]:
            return
    pytest.fail("ten pairs, and none within one second")


def test_one_client_keeps_its_connection_for_many_calls(sandbox):
    python = PythonSync()
    client = python.client(sandbox.address)
    for elements, result in [(SAMPLE, "0"), (MISMATCH, "-6")] * 10:
        assert python.send(client, elements).result == result


def test_http_proxy_in_absolute_form(sandbox, tmp_path):
    """The SDK sends `POST http://host/` to its proxy, and here the proxy is the server itself."""
    proxy = sandbox.url
    for endpoint in (sandbox.address, "faceid.example.test", "faceid.example.test:8080"):
        for method in ("POST", "GET"):
            answer = PythonSync().call(endpoint, SAMPLE, proxy=proxy, method=method)
            assert answer.result == "0", (endpoint, method)
    v1 = PythonSync().call("faceid.example.test", SAMPLE, proxy=proxy, sign_method="HmacSHA256")
    assert v1.result == "0"
    error = refusal_of(
        lambda: PythonSync().call("faceid.example.test", SAMPLE, proxy=proxy, secret_key="wrong")
    )
    assert error.code == "AuthFailure.SignatureFailure"
    assert Tccli(tmp_path).call(sandbox.address, SAMPLE, proxy=proxy).result == "0"


def test_skipped_signature(sandbox):
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(sandbox.address)
    with pytest.raises(TencentCloudSDKException) as caught:
        client.call_json("BankCard4EVerification", dict(SAMPLE), options={"SkipSign": True})
    assert caught.value.get_code() == "AuthFailure.InvalidAuthorization"
    assert UUID4.match(caught.value.get_request_id())


def test_generic_client(sandbox):
    """`common_client`, as used where no product package is installed."""
    client = PythonSync().client(sandbox.address)
    from tencentcloud.common.common_client import CommonClient

    generic = CommonClient("faceid", "2018-03-01", client.credential, "", client.profile)
    reply = generic.call_json("BankCard4EVerification", dict(SAMPLE))
    assert reply["Response"]["Result"] == "0"


@pytest.mark.parametrize(
    ("version", "action", "code", "names"),
    [
        ("2018-03-01", "DescribeNothing", "InvalidAction", "BankCard4EVerification"),
        ("2018-07-24", "BankCard4EVerification", "NoSuchVersion", "2018-07-24"),
    ],
)
def test_unknown_action_and_version(sandbox, version, action, code, names):
    from tencentcloud.common.common_client import CommonClient
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(sandbox.address)
    generic = CommonClient("faceid", version, client.credential, "", client.profile)
    with pytest.raises(TencentCloudSDKException) as caught:
        generic.call_json(action, dict(SAMPLE))
    assert caught.value.get_code() == code
    assert names in caught.value.get_message()


@pytest.mark.parametrize("member", ["Name", "BankCard", "Phone", "IdCard"])
@pytest.mark.parametrize(
    "value", [13800000000, ["x"], {"a": "b"}, True], ids=["number", "list", "object", "bool"]
)
def test_wrong_type(sandbox, member, value):
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(sandbox.address)
    with sandbox.charged(0, records=0), pytest.raises(TencentCloudSDKException) as caught:
        client.call_json("BankCard4EVerification", {**SAMPLE, member: value})
    assert caught.value.get_code() == "InvalidParameter"
    assert f"`{member}`" in caught.value.get_message()


def test_other_document_kinds_are_a_free_answer(sandbox):
    elements = {**SAMPLE, "BankCard": "6222020000000000000", "CertType": 1}
    with sandbox.charged(0, records=1):
        assert PythonSync().call(sandbox.address, elements).result == "-20"


def test_an_empty_element_is_a_free_answer(sandbox):
    for member, result in [("Name", "-2"), ("IdCard", "-3"), ("BankCard", "-4"), ("Phone", "-5")]:
        elements = {
            "Name": "胡印福",
            "IdCard": "341126197709218366",
            "BankCard": "6216261000000000018",
            "Phone": "13552535506",
            member: "",
        }
        with sandbox.charged(0, records=1):
            assert PythonSync().call(sandbox.address, elements).result == result, member


def test_international_sample_and_stray_blanks(sandbox):
    """The pages print `Wei Xiaobao`, and blanks around two of the values."""
    international = {**SAMPLE, "Name": "Wei Xiaobao"}
    assert PythonSync().call(sandbox.address, international, language="en-US").result == "0"
    blanks = {**SAMPLE, "IdCard": " 11204416541220243X", "BankCard": " 6226090210146748"}
    assert PythonSync().call(sandbox.address, blanks).result == "-6"


def test_an_encrypt_list_without_an_envelope_is_refused(sandbox):
    """Text is never verified as if it had been decrypted; an empty list means that nothing is encrypted."""
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(sandbox.address)
    encryption = {
        "EncryptList": ["Name"],
        "CiphertextBlob": "QUJD+/==",
        "Iv": "AAECAwQFBgcICQoLDA0ODw==",
        "Algorithm": "AES-256-CBC",
    }
    with sandbox.charged(0, records=0), pytest.raises(TencentCloudSDKException) as caught:
        client.call_json("BankCard4EVerification", {**SAMPLE, "Encryption": encryption})
    assert caught.value.get_code() == "FailedOperation.DecryptSystemError"
    encryption["EncryptList"] = []
    reply = client.call_json("BankCard4EVerification", {**SAMPLE, "Encryption": encryption})
    assert reply["Response"]["Result"] == "0"


@pytest.mark.parametrize("path", ["/", "/nothing/here"])
def test_replies_are_200_and_exactly_application_json(sandbox, path):
    """With a charset behind it the Python SDK takes an error for a success."""
    import requests

    for headers, body in [
        ({"X-TC-Action": "BankCard4EVerification"}, b"{}"),
        ({"X-TC-Action": "BankCard4EVerification"}, b"not json"),
        ({"X-TC-Version": "2018-03-01"}, b""),
        ({"Authorization": "TC3-HMAC-SHA256 nonsense"}, b"{}"),
    ]:
        reply = requests.post(
            sandbox.url + path,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=20,
        )
        assert reply.status_code == 200, reply.text
        assert reply.headers["Content-Type"] == "application/json"
        response = json.loads(reply.text)["Response"]
        assert set(response) == {"Error", "RequestId"}
        assert UUID4.match(response["RequestId"])


def test_large_bodies_are_refused_in_the_protocols_own_words(sandbox):
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(sandbox.address)
    reply = client.call_json("BankCard4EVerification", {**SAMPLE, "Padding": "x" * 3_000_000})
    assert reply["Response"]["Result"] == "0"
    with pytest.raises(TencentCloudSDKException) as caught:
        client.call_json("BankCard4EVerification", {**SAMPLE, "Padding": "x" * 11_000_000})
    assert caught.value.get_code() == "RequestSizeLimitExceeded"


@pytest.mark.parametrize(
    ("method", "sign_method", "size", "code"),
    [
        ("GET", "TC3-HMAC-SHA256", 20_000, None),
        ("GET", "TC3-HMAC-SHA256", 40_000, "RequestSizeLimitExceeded"),
        ("POST", "HmacSHA256", 900_000, None),
        ("POST", "HmacSHA256", 1_200_000, "AuthFailure.SignatureFailure"),
    ],
)
def test_sizes_by_method_and_signature(sandbox, method, sign_method, size, code):
    """32 KB for GET, 1 MB for the older signature, which says so in its own way."""
    from tencentcloud.common.exception import TencentCloudSDKException

    client = PythonSync().client(
        sandbox.address, method=method, sign_method=sign_method, language="en-US"
    )
    elements = {**SAMPLE, "Padding": "x" * size}
    if code is None:
        reply = client.call_json("BankCard4EVerification", elements)
        assert reply["Response"]["Result"] == "0"
        return
    with sandbox.charged(0, records=0), pytest.raises(TencentCloudSDKException) as caught:
        client.call_json("BankCard4EVerification", elements)
    assert caught.value.get_code() == code
    assert UUID4.match(caught.value.get_request_id())
    if sign_method != "TC3-HMAC-SHA256":
        assert "TC3-HMAC-SHA256" in caught.value.get_message()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /?Action=x&a=" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (
            b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n",
            431,
        ),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ],
    ids=["long-line", "many-headers", "illegal-byte", "illegal-length"],
)
def test_what_http_cannot_read_is_still_answered(sandbox, head, status):
    """There is no request yet that could get a RequestId, but silence helps nobody."""
    with socket.create_connection(sandbox.address.split(":"), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 %d " % status)
    assert PythonSync().call(sandbox.address, SAMPLE).result == "0"


def test_a_key_with_a_blank_is_refused_by_the_client_itself(sandbox):
    """So the server never sees one from this SDK; others send it."""
    from tencentcloud.common.exception import TencentCloudSDKException

    with pytest.raises(TencentCloudSDKException) as caught:
        PythonSync().client(sandbox.address, secret_id=PUBLIC["secret_id"] + " ")
    assert caught.value.get_code() == "InvalidCredential"
