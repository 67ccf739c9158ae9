"""Schemathesis asks by our OpenAPI documents: what they allow is answered, what they do not is refused,
in the form they tell, and nothing is a fault of the server.

CARD4E_EXAMPLES sets how much is tried of each operation, CARD4E_SEED what.
"""

import json
import os
import subprocess
import urllib.request

import pytest

import openapi
from harness import PUBLIC, Sandbox, client_environment, need_tool

EXAMPLES = os.environ.get("CARD4E_EXAMPLES", "20")
PLATFORM_TOKEN = "platform-v1-" + "4e" * 32
SEED = os.environ.get("CARD4E_SEED", "20261122")

ALIASES = [
    "identity-bankcard-check-4e",
    "identity-bankcard-check-3e",
    "identity-bankcard-check-2e",
    "identity-bankcard-check-1e",
    "identity-idcard-check-2e",
    "identity-phone-check-3e",
    "identity-phone-check-2e",
]


@pytest.fixture(scope="module")
def own_sandbox(tmp_path_factory):
    """A sandbox of its own: what is made there stays."""
    server = Sandbox(tmp_path_factory.mktemp("openapi"))
    yield server
    server.stop()


def get(server, path):
    with urllib.request.urlopen(server.url + path, timeout=10) as reply:
        return json.load(reply)


def run(server, folder, document, token, *more):
    file = folder / "openapi.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    command = [
        need_tool("schemathesis"), "run", str(file), "--url", server.url, "--header", f"Authorization: Bearer {token}",
        "--max-examples", EXAMPLES, "--seed", SEED, "--phases", "examples,coverage,fuzzing",
        "--request-timeout", "10", "--no-color", *more,
    ]
    done = subprocess.run(
        command, cwd=folder, env=client_environment(HOME=str(folder)), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert "error" not in done.stderr.lower(), done.stderr
    assert "panicked" not in server.tail(), server.tail()


@pytest.mark.parametrize("alias", ALIASES)
def test_acedata_documents(own_sandbox, tmp_path, alias):
    document = get(own_sandbox, f"/api/v1/documents/{alias}/openapi.json")
    ((operation,),) = (item.values() for item in document["paths"].values())
    # A key belongs to one question, which a description cannot say: another one with it is refused.
    operation["parameters"] = [each for each in operation["parameters"] if each["name"] != "idempotency-key"]
    # Nor that ciphertext must be somebody's.
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    del body["properties"]["encryption"]
    # More is taken than is documented, on purpose: numbers for text, an object where an array is asked for.
    run(own_sandbox, tmp_path, document, PUBLIC["bearer"], "--exclude-checks", "negative_data_rejection")


def test_all_documents_are_asked(own_sandbox):
    items = get(own_sandbox, "/api/v1/documents")["items"]
    assert sorted(item["alias"] for item in items) == sorted(ALIASES)


def test_the_native_wire(own_sandbox, tmp_path):
    outcomes = sorted(card["outcome"] for card in get(own_sandbox, "/_sandbox/cards")["cards"])
    run(own_sandbox, tmp_path, openapi.native(outcomes), PUBLIC["bearer"])


def test_the_management_api(own_sandbox, tmp_path):
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    run(own_sandbox, tmp_path, openapi.management(), PLATFORM_TOKEN, "--checks", checks)
