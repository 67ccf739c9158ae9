"""The AceData clients behind one shape: `call(...)` gives a result or raises Refused.

The guide's two snippets are kept as printed in `snippets/`; a test changes the address and the
token, and, where it asks something else, the four elements.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass

from harness import HERE, PUBLIC, client_environment, need_module, need_tool

PATH = "/identity/bankcard/check-4e"
GUIDE_HOST = "https://api.acedata.cloud"
# Spelling on this wire, in the order of the guide's snippets.
MEMBERS = {"name": "Name", "phone": "Phone", "id_card": "IdCard", "bank_card": "BankCard"}


def body_of(elements):
    """The four elements in this wire's spelling."""
    return {ours: elements[theirs] for ours, theirs in MEMBERS.items() if theirs in elements}


@dataclass
class Answer:
    result: str
    description: str


class Refused(Exception):
    """What came instead of an answer."""

    def __init__(self, status, code, message, trace_id, original):
        super().__init__(f"{status} {code}: {message} ({trace_id})")
        self.status = status
        self.code = code
        self.message = message
        self.trace_id = trace_id
        self.original = original


def read(text):
    """A reply as a person sees it who prints it: the snippets show no status."""
    reply = json.loads(text)
    if "error" in reply:
        error = reply["error"]
        raise Refused(None, error["code"], error["message"], reply["trace_id"], reply)
    assert set(reply) == {"result", "description"}, reply
    assert isinstance(reply["result"], str)
    return Answer(reply["result"], reply["description"])


def snippet(name, url, token, body):
    """A snippet of the guide with the address, the token and perhaps the elements changed."""
    text = (HERE / "snippets" / name).read_text(encoding="utf-8")
    text = text.replace(GUIDE_HOST, url).replace("{token}", token)
    if body is not None:
        indent = 2 if name.endswith(".sh") else 4
        start = text.index("{\n" + " " * indent + '"name"')
        end = text.index("\n}", start) + 2
        text = text[:start] + json.dumps(body, ensure_ascii=False, indent=indent) + text[end:]
    return text


class CurlSnippet:
    """The guide's curl command."""

    name = "curl"

    def call(self, url, elements=None, *, token=PUBLIC["bearer"], environment=None):
        need_tool("curl")
        body = None if elements is None else body_of(elements)
        done = subprocess.run(
            ["bash", "-c", snippet("check_4e.sh", url, token, body)],
            env=client_environment(**(environment or {})),
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return read(done.stdout)


class RequestsSnippet:
    """The guide's Python program."""

    name = "requests"

    def call(self, url, elements=None, *, token=PUBLIC["bearer"], environment=None):
        need_module("requests")
        body = None if elements is None else body_of(elements)
        done = subprocess.run(
            [sys.executable, "-c", snippet("check_4e.py", url, token, body)],
            env=client_environment(**(environment or {})),
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return read(done.stdout)


class Sdk:
    """PyPI acedatacloud; it has no method for identity, so its generic call."""

    name = "acedatacloud"

    def client(self, url, token, retries):
        need_module("acedatacloud")
        from acedatacloud import AceDataCloud

        return AceDataCloud(
            api_token=token,
            base_url=url,
            platform_base_url=url,
            timeout=20.0,
            max_retries=retries,
        )

    def call(
        self, url, elements=None, *, token=PUBLIC["bearer"], retries=0, headers=None, path=PATH
    ):
        with self.client(url, token, retries) as client:
            from acedatacloud import APIError

            try:
                reply = client._transport.request(
                    "POST", path, json=guide_body(elements), extra_headers=headers
                )
            except APIError as error:
                raise sdk_refusal(error) from error
        return Answer(reply["result"], reply["description"])


class SdkAsync(Sdk):
    """Its asynchronous twin."""

    name = "acedatacloud-async"

    def call(
        self, url, elements=None, *, token=PUBLIC["bearer"], retries=0, headers=None, path=PATH
    ):
        need_module("acedatacloud")
        return asyncio.run(self.call_async(url, elements, token, retries, headers, path))

    async def call_async(self, url, elements, token, retries, headers, path):
        from acedatacloud import APIError, AsyncAceDataCloud

        async with AsyncAceDataCloud(
            api_token=token,
            base_url=url,
            platform_base_url=url,
            timeout=20.0,
            max_retries=retries,
        ) as client:
            try:
                reply = await client._transport.request(
                    "POST", path, json=guide_body(elements), extra_headers=headers
                )
            except APIError as error:
                raise sdk_refusal(error) from error
        return Answer(reply["result"], reply["description"])


def guide_body(elements):
    if elements is None:
        return {"name": "胡印福", "phone": "***", "id_card": "***", "bank_card": "***"}
    return body_of(elements)


def sdk_refusal(error):
    return Refused(error.status_code, error.code, error.message, error.trace_id, error)
