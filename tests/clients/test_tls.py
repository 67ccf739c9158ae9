"""Every client over https, made to trust the sandbox's CA the way `card4e tls dev-ca` prints."""

import datetime
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from acedata_clients import CurlSnippet, RequestsSnippet, Sdk, SdkAsync
from harness import (
    HERE,
    MISMATCH,
    PUBLIC,
    SAMPLE,
    Sandbox,
    client_environment,
    missing,
    need_module,
    need_tool,
)
from tencent_clients import PythonAsync, PythonSync, Refused, Tccli


@pytest.fixture(scope="session")
def running_tls_sandbox(tmp_path_factory):
    data = tmp_path_factory.mktemp("tls-data")
    server = Sandbox(
        tmp_path_factory.mktemp("tls"),
        arguments=["--tls", "--data", str(data)],
        ca=str(data / "tls" / "ca.pem"),
    )
    yield server
    server.stop()


@pytest.fixture
def secured(running_tls_sandbox):
    """A sandbox that speaks TLS, reset."""
    running_tls_sandbox.reset()
    yield running_tls_sandbox


def test_the_greeting_says_how(secured):
    said = secured.log.read_text(encoding="utf-8")
    assert f"card4e sandbox answers on {secured.url}\n" in said
    for line in (
        f'HttpProfile(certification="{secured.ca}")',
        f"NODE_EXTRA_CA_CERTS={secured.ca}",
        f"SSL_CERT_FILE={secured.ca}",
        f"curl -s --cacert {secured.ca} {secured.url}/identity/bankcard/check-4e",
    ):
        assert line in said, line


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("sign_method", ["TC3-HMAC-SHA256", "HmacSHA1", "HmacSHA256"])
class TestPython:
    def test_sync(self, secured, method, sign_method):
        options = {"method": method, "sign_method": sign_method, "protocol": "https"}
        options["certification"] = secured.ca
        assert PythonSync().call(secured.address, SAMPLE, **options).result == "0"
        assert PythonSync().call(secured.address, MISMATCH, **options).result == "-6"

    def test_async(self, secured, monkeypatch, method, sign_method):
        monkeypatch.setenv("SSL_CERT_FILE", secured.ca)
        options = {"method": method, "sign_method": sign_method, "protocol": "https"}
        assert PythonAsync().call(secured.address, SAMPLE, **options).result == "0"
        assert PythonAsync().call(secured.address, MISMATCH, **options).result == "-6"


@pytest.mark.parametrize("adapter", [PythonSync, PythonAsync], ids=["python", "python-async"])
def test_a_client_that_was_told_nothing_does_not_ask(secured, adapter):
    # The asynchronous client lets httpx's own error through.
    with secured.charged(0, records=0), pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        adapter().call(secured.address, SAMPLE, protocol="https")


def test_a_client_that_speaks_plain_http_is_told(secured):
    with secured.charged(0, records=0), pytest.raises(Refused) as caught:
        PythonSync().call(secured.address, SAMPLE)
    assert "This port speaks TLS: use https" in str(caught.value.message)


def test_the_right_name_by_localhost(secured):
    port = secured.address.rsplit(":", 1)[1]
    options = {"protocol": "https", "certification": secured.ca}
    assert PythonSync().call(f"localhost:{port}", SAMPLE, **options).result == "0"


def test_one_client_keeps_its_connection(secured):
    python = PythonSync()
    client = python.client(secured.address, protocol="https", certification=secured.ca)
    for elements, result in [(SAMPLE, "0"), (MISMATCH, "-6")] * 10:
        assert python.send(client, elements).result == result


@pytest.mark.parametrize("client", ["domestic", "international"])
def test_node(secured, client):
    def call(elements, **environment):
        return subprocess.run(
            [
                need_tool("node"),
                str(HERE / "node" / "one_call.mjs"),
                client,
                secured.address,
                "https://",
            ],
            env=client_environment(
                **{k: v for k, v in os.environ.items() if k.startswith("CARD4E_")}, **environment
            ),
            input=json.dumps(elements),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    done = call(SAMPLE, NODE_EXTRA_CA_CERTS=secured.ca)
    if done.returncode == 3:
        missing(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "0"
    assert json.loads(call(MISMATCH, NODE_EXTRA_CA_CERTS=secured.ca).stdout)["result"] == "-6"
    with secured.charged(0, records=0):
        assert call(SAMPLE).returncode != 0, "without the CA"


def test_tccli(secured, tmp_path):
    """The CA appended to certifi's file: to that of a copy, which tccli finds first."""
    installed = Path(need_module("certifi").where()).parent
    shutil.copytree(installed, tmp_path / "certifi")
    with (tmp_path / "certifi" / "cacert.pem").open("a", encoding="utf-8") as bundle:
        bundle.write(Path(secured.ca).read_text(encoding="utf-8"))
    trusting = {"PYTHONPATH": str(tmp_path)}
    client = Tccli(tmp_path)
    answer = client.call(secured.address, SAMPLE, scheme="https", environment=trusting)
    assert answer.result == "0"


class TestAceData:
    def test_curl_snippet(self, secured):
        trusting = {"CURL_CA_BUNDLE": secured.ca}
        assert CurlSnippet().call(secured.url, environment=trusting).result == "0"
        assert CurlSnippet().call(secured.url, MISMATCH, environment=trusting).result == "-4"

    def test_requests_snippet(self, secured):
        trusting = {"REQUESTS_CA_BUNDLE": secured.ca}
        assert RequestsSnippet().call(secured.url, environment=trusting).result == "0"
        assert RequestsSnippet().call(secured.url, MISMATCH, environment=trusting).result == "-4"

    @pytest.mark.parametrize("adapter", [Sdk, SdkAsync], ids=["sdk", "sdk-async"])
    def test_sdk(self, secured, monkeypatch, adapter):
        monkeypatch.setenv("SSL_CERT_FILE", secured.ca)
        assert adapter().call(secured.url, SAMPLE).result == "0"
        assert adapter().call(secured.url, MISMATCH).result == "-4"


def tc3(host, body, query="", method="POST"):
    """Headers of a request signed by hand, as the documentation does it."""
    content_type = "application/json" if method == "POST" else "application/x-www-form-urlencoded"
    now = int(time.time())
    date = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime("%Y-%m-%d")
    digest = lambda text: hashlib.sha256(text.encode()).hexdigest()  # noqa: E731
    keyed = lambda key, text: hmac.new(key, text.encode(), hashlib.sha256).digest()  # noqa: E731
    canonical = "\n".join(
        [
            method,
            "/",
            query,
            f"content-type:{content_type}",
            f"host:{host}",
            "",
            "content-type;host",
            digest(body),
        ]
    )
    scope = f"{date}/faceid/tc3_request"
    key = f"TC3{PUBLIC['secret_key']}".encode()
    for part in (date, "faceid", "tc3_request"):
        key = keyed(key, part)
    signature = keyed(key, f"TC3-HMAC-SHA256\n{now}\n{scope}\n{digest(canonical)}").hex()
    return {
        "Content-Type": content_type,
        "X-TC-Action": "BankCard4EVerification",
        "X-TC-Version": "2018-03-01",
        "X-TC-Timestamp": str(now),
        "Authorization": f"TC3-HMAC-SHA256 Credential={PUBLIC['secret_id']}/{scope}, "
        f"SignedHeaders=content-type;host, Signature={signature}",
    }


def curl(secured, version, headers, *arguments, url=None):
    """What curl got: the version of HTTP, and the reply."""
    binary = need_tool("curl")
    about = subprocess.run([binary, "-V"], capture_output=True, encoding="utf-8", timeout=20).stdout
    if "HTTP2" not in about:
        missing("a curl that speaks HTTP/2")
    command = [binary, "-sS", "-q", f"--http{version}", "--cacert", secured.ca]
    command += ["-w", "\n%{http_version}", "--max-time", "20"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*command, *arguments, url or f"{secured.url}/"],
        env=client_environment(),
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    reply, spoken = done.stdout.rsplit("\n", 1)
    return spoken, json.loads(reply)


@pytest.mark.parametrize(("version", "spoken"), [("2", "2"), ("1.1", "1.1")])
class TestCurl:
    def test_signed_post(self, secured, version, spoken):
        """Over HTTP/2 there is no Host: what was signed comes as `:authority`."""
        for elements, result in [(SAMPLE, "0"), (MISMATCH, "-6")]:
            body = json.dumps(elements, ensure_ascii=False)
            headers = tc3(secured.address, body)
            with secured.charged(1, records=1):
                got, reply = curl(secured, version, headers, "--data-binary", body)
            assert (got, reply["Response"]["Result"]) == (spoken, result)

    def test_signed_get(self, secured, version, spoken):
        from urllib.parse import quote, urlencode

        query = urlencode(SAMPLE, quote_via=quote)
        headers = tc3(secured.address, "", query, "GET")
        got, reply = curl(secured, version, headers, url=f"{secured.url}/?{query}")
        assert (got, reply["Response"]["Result"]) == (spoken, "0"), reply

    def test_signed_for_another_host(self, secured, version, spoken):
        body = json.dumps(SAMPLE)
        headers = tc3("elsewhere.example.com", body)
        got, reply = curl(secured, version, headers, "--data-binary", body)
        assert got == spoken
        assert reply["Response"]["Error"]["Code"] == "AuthFailure.SignatureFailure"

    def test_a_large_body(self, secured, version, spoken):
        body = json.dumps({**SAMPLE, "Padding": "x" * 2_000_000})
        (path := Path(secured.log.parent / "body.json")).write_text(body, encoding="utf-8")
        headers = tc3(secured.address, body)
        got, reply = curl(secured, version, headers, "--data-binary", f"@{path}")
        assert got == spoken
        assert "Response" in reply and "SignatureFailure" not in json.dumps(reply), reply

    def test_acedata(self, secured, version, spoken):
        body = json.dumps({"name": "胡印福", "phone": "***", "id_card": "***", "bank_card": "***"})
        headers = {"authorization": f"Bearer {PUBLIC['bearer']}", "content-type": "application/json"}
        url = f"{secured.url}/identity/bankcard/check-4e"
        got, reply = curl(secured, version, headers, "-d", body, url=url)
        assert (got, reply["result"]) == (spoken, "0")
