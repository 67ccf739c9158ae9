"""Encrypted elements: envelopes made with Python's `cryptography` and with the openssl program."""

import base64
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import ROOT, SAMPLE, client_environment, need_module, need_tool
from tencent_clients import PythonSync

NAMES = ["Phone", "IdCard", "BankCard", "Name"]
ENVELOPES = 1000
PAGE = (ROOT / "docs" / "encryption.md").read_text(encoding="utf-8")


def b64(data):
    return base64.b64encode(data).decode()


def keys_of(sandbox):
    import requests

    return requests.get(f"{sandbox.url}/encryption-keys", timeout=10).json()


def lists():
    """Every subset that is not empty, over and over."""
    for turn in range(ENVELOPES):
        bits = turn % 15 + 1
        yield [name for at, name in enumerate(NAMES) if bits & (1 << at)]


def encryption(algorithm, names, blob, iv, tags=()):
    return {
        "EncryptList": names,
        "CiphertextBlob": b64(blob),
        "Iv": b64(iv),
        "Algorithm": algorithm,
        "TagList": [b64(tag) for tag in tags],
    }


def aes_by_cryptography(keys, names):
    need_module("cryptography")
    from cryptography.hazmat.primitives import padding, serialization
    from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key, iv = os.urandom(32), os.urandom(16)
    body = dict(SAMPLE)
    for name in names:
        padder = padding.PKCS7(128).padder()
        padded = padder.update(SAMPLE[name].encode()) + padder.finalize()
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        body[name] = b64(encryptor.update(padded) + encryptor.finalize())
    public = serialization.load_pem_public_key(keys["rsa"]["spki_pem"].encode())
    blob = public.encrypt(key, rsa_padding.PKCS1v15())
    return {**body, "Encryption": encryption("AES-256-CBC", names, blob, iv)}


def sm4_by_cryptography(keys, names):
    """SM4-GCM by `cryptography`; SM2 it has not, so the key is wrapped by openssl."""
    need_module("cryptography")
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    try:
        from cryptography.hazmat.decrepit.ciphers.algorithms import SM4
    except ImportError:
        from cryptography.hazmat.primitives.ciphers.algorithms import SM4

    key, nonce = os.urandom(16), os.urandom(12)
    body, tags = dict(SAMPLE), []
    for name in names:
        encryptor = Cipher(SM4(key), modes.GCM(nonce)).encryptor()
        body[name] = b64(encryptor.update(SAMPLE[name].encode()) + encryptor.finalize())
        tags.append(encryptor.tag)
    blob = raw_sm2(openssl("pkeyutl", "-encrypt", "-pubin", "-inkey", keys["sm2_file"], given=key))
    return {**body, "Encryption": encryption("SM4-GCM", names, blob, nonce, tags)}


def aes_by_openssl(keys, names):
    key, iv = os.urandom(32), os.urandom(16)
    body = dict(SAMPLE)
    for name in names:
        sealed = openssl("enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), given=SAMPLE[name].encode())
        body[name] = b64(sealed)
    blob = openssl("pkeyutl", "-encrypt", "-pubin", "-inkey", keys["rsa_file"], given=key)
    return {**body, "Encryption": encryption("AES-256-CBC", names, blob, iv)}


def openssl(*arguments, given):
    program = need_tool("openssl")
    return subprocess.run([program, *arguments], input=given, stdout=subprocess.PIPE, check=True, timeout=30).stdout


def raw_sm2(der):
    """SEQUENCE { x INTEGER, y INTEGER, C3 OCTET STRING, C2 OCTET STRING } to 04 x y C3 C2."""
    at = 2 if der[1] < 128 else 2 + (der[1] & 127)
    parts = []
    while at < len(der):
        length = der[at + 1]
        parts.append(der[at + 2 : at + 2 + length])
        at += 2 + length
    x, y = (int.from_bytes(part, "big").to_bytes(32, "big") for part in parts[:2])
    return b"\x04" + x + y + parts[2] + parts[3]


@pytest.fixture
def keys(sandbox, tmp_path):
    keys = keys_of(sandbox)
    for kind in ("rsa", "sm2"):
        (tmp_path / kind).write_text(keys[kind]["spki_pem"])
        keys[f"{kind}_file"] = str(tmp_path / kind)
    return keys


@pytest.mark.parametrize("make", [aes_by_cryptography, sm4_by_cryptography, aes_by_openssl])
def test_a_thousand_envelopes_open(sandbox, keys, make):
    client = PythonSync().client(sandbox.address)
    make(keys, NAMES)
    with ThreadPoolExecutor(4) as workers, sandbox.charged(ENVELOPES):
        for names, body in zip(lists(), workers.map(lambda names: make(keys, names), lists())):
            reply = client.call_json("BankCard4EVerification", body)
            assert reply["Response"]["Result"] == "0", (names, reply)


def snippet(kind):
    return re.search(rf"<!-- run: {kind} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_python_example_of_the_documentation(sandbox, keys):
    need_module("cryptography")
    names = {}
    exec(compile(snippet("python"), "docs/encryption.md", "exec"), names)  # our own page
    body = names["encrypted"](keys, SAMPLE, NAMES)
    reply = PythonSync().client(sandbox.address).call_json("BankCard4EVerification", body)
    assert reply["Response"]["Result"] == "0"


def test_the_curl_and_openssl_example_of_the_documentation(sandbox):
    need_tool("curl")
    need_tool("openssl")
    run = subprocess.run(
        ["sh", "-euc", snippet("sh")],
        env=client_environment(BASE=sandbox.url, TOKEN=sandbox.application("public")["bearer"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert b'"result":"0"' in run.stdout, (run.stdout, run.stderr)
