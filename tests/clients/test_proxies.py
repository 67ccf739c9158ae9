"""Behind nginx: right with `$http_host`, wrong with the default, and the error says which."""

import json
import subprocess

import pytest

import acedata_clients
import tencent_clients
from harness import HERE, MISMATCH, SAMPLE, client_environment, need_tool


def node(address, elements, client="domestic"):
    """One call by a Node client, printed as JSON."""
    done = subprocess.run(
        [need_tool("node"), str(HERE / "node" / "one_call.mjs"), client, address],
        input=json.dumps(elements),
        env=client_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    if done.returncode == 3:
        from harness import missing

        missing(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "adapter",
    [tencent_clients.PythonSync, tencent_clients.PythonAsync],
    ids=["python", "python-async"],
)
@pytest.mark.parametrize("sign_method", ["TC3-HMAC-SHA256", "HmacSHA1", "HmacSHA256"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_python_through_nginx(sandbox, nginx, adapter, sign_method, method):
    options = {"sign_method": sign_method, "method": method}
    with sandbox.charged(2, records=2):
        assert adapter().call(nginx.keeping, SAMPLE, **options).result == "0"
        assert adapter().call(nginx.keeping, MISMATCH, **options).result == "-6"


def test_python_through_nginx_unsigned_payload(sandbox, nginx):
    assert tencent_clients.PythonSync().call(nginx.keeping, SAMPLE, unsigned=True).result == "0"


@pytest.mark.parametrize("client", ["domestic", "international"])
def test_node_through_nginx(sandbox, nginx, client):
    assert node(nginx.keeping, SAMPLE, client)["result"] == "0"
    assert node(nginx.keeping, MISMATCH, client)["result"] == "-6"


@pytest.mark.parametrize(
    "adapter",
    [acedata_clients.CurlSnippet, acedata_clients.RequestsSnippet, acedata_clients.Sdk],
    ids=["curl", "requests", "acedatacloud"],
)
def test_acedata_through_nginx(sandbox, nginx, adapter):
    url = f"http://{nginx.keeping}"
    assert adapter().call(url).result == "0"
    assert adapter().call(url, SAMPLE).result == "0"
    assert adapter().call(url, MISMATCH).result == "-4"


def test_a_refusal_through_nginx_is_still_readable(sandbox, nginx):
    with pytest.raises(tencent_clients.Refused) as caught:
        tencent_clients.PythonSync().call(nginx.keeping, SAMPLE, secret_key="wrong")
    assert caught.value.code == "AuthFailure.SignatureFailure"
    with pytest.raises(acedata_clients.Refused) as refused:
        acedata_clients.Sdk().call(f"http://{nginx.keeping}", SAMPLE, token="0" * 32)
    assert (refused.value.status, refused.value.code) == (401, "invalid_token")


@pytest.mark.parametrize(
    "adapter",
    [tencent_clients.PythonSync, tencent_clients.PythonAsync],
    ids=["python", "python-async"],
)
def test_nginx_as_installed_rewrites_host_and_breaks_signatures(sandbox, nginx, adapter):
    """`proxy_pass` alone sends the upstream's address as Host, which nobody signed."""
    with sandbox.charged(0, records=0):
        with pytest.raises(tencent_clients.Refused) as caught:
            adapter().call(nginx.rewriting, SAMPLE)
    assert caught.value.code == "AuthFailure.SignatureFailure"


def test_a_rewritten_host_does_not_matter_where_it_is_not_signed(sandbox, nginx):
    """AceData signs nothing; Node signs the name without its port, and that is the same here;
    and with an ApigwEndpoint the signed name never was the Host."""
    assert acedata_clients.Sdk().call(f"http://{nginx.rewriting}", SAMPLE).result == "0"
    assert node(nginx.rewriting, SAMPLE)["result"] == "0"
    answer = tencent_clients.PythonSync().call(None, SAMPLE, apigw=nginx.rewriting)
    assert answer.result == "0"


def test_tccli_over_http_cannot_pass_nginx(sandbox, nginx, tmp_path):
    """Over plain http tccli's Host is a URL; nginx answers 400 before the server sees it."""
    with sandbox.charged(0, records=0):
        with pytest.raises(tencent_clients.Refused) as caught:
            tencent_clients.Tccli(tmp_path).call(nginx.keeping, SAMPLE)
    assert caught.value.code == "ServerNetworkError"
