"""The Tencent clients behind one shape: `call(...)` gives an Answer or raises Refused.

Each adapter uses its client as its own documentation does; only the endpoint, the scheme and the
keys are ours. `Refused.original` is the client's own exception, untouched.
"""

import asyncio
import json
import re
import subprocess
from dataclasses import dataclass, field

from harness import PUBLIC, need_module, need_tool, client_environment

TIMEOUT = 20


@dataclass
class Answer:
    result: str
    description: str
    request_id: str
    reply: dict = field(default_factory=dict)  # the whole of it


FOUR = "BankCard4EVerification"


class Refused(Exception):
    """What the client raised."""

    def __init__(self, code, message, request_id, original):
        super().__init__(f"{code}: {message} ({request_id})")
        self.code = code
        self.message = message
        self.request_id = request_id
        self.original = original


def keys(application=None):
    """Keyword arguments with the keys of an application of the sandbox."""
    entry = application or PUBLIC
    return {
        "secret_id": entry["secret_id"],
        "secret_key": entry["secret_key"],
        "token": entry.get("token"),
    }


class PythonSync:
    """tencentcloud-sdk-python-faceid, `faceid_client`."""

    name = "python"

    def client(
        self,
        address,
        *,
        secret_id=PUBLIC["secret_id"],
        secret_key=PUBLIC["secret_key"],
        token=None,
        language=None,
        method="POST",
        sign_method=None,
        unsigned=False,
        apigw=None,
        proxy=None,
        protocol="http",
        certification=None,
    ):
        need_module("tencentcloud.common")
        from tencentcloud.common import credential
        from tencentcloud.common.profile.client_profile import ClientProfile
        from tencentcloud.common.profile.http_profile import HttpProfile
        from tencentcloud.faceid.v20180301 import faceid_client

        http = HttpProfile(
            protocol=protocol,
            endpoint=address,
            reqMethod=method,
            reqTimeout=TIMEOUT,
            proxy=proxy,
            certification=certification,
        )
        http.apigw_endpoint = apigw
        options = {"language": language} if language else {}
        profile = ClientProfile(signMethod=sign_method, httpProfile=http, **options)
        profile.unsignedPayload = unsigned
        key = credential.Credential(secret_id, secret_key, token)
        return faceid_client.FaceidClient(key, "", profile)

    def call(self, address, elements, *, headers=None, action=FOUR, **options):
        client = self.client(address, **options)
        return self.send(client, elements, headers, action)

    def send(self, client, elements, headers=None, action=FOUR):
        from tencentcloud.common.exception import TencentCloudSDKException

        try:
            reply = getattr(client, action)(self.request(elements, headers, action))
        except TencentCloudSDKException as error:
            raise refusal(error) from error
        return answer(reply)

    def request(self, elements, headers=None, action=FOUR):
        from tencentcloud.faceid.v20180301 import models

        request = getattr(models, f"{action}Request")()
        for member, value in elements.items():
            setattr(request, member, value)
        if headers:
            request.headers = dict(headers)  # the SDK writes its own into it
        return request


class PythonAsync(PythonSync):
    """tencentcloud-sdk-python-faceid, `faceid_client_async` (httpx)."""

    name = "python-async"

    def call(self, address, elements, *, headers=None, action=FOUR, **options):
        need_module("httpx")
        return asyncio.run(self.call_async(address, elements, headers, action, options))

    async def call_async(self, address, elements, headers, action, options):
        from tencentcloud.common.exception import TencentCloudSDKException
        from tencentcloud.faceid.v20180301 import faceid_client_async

        profiled = self.client(address, **options)
        async with faceid_client_async.FaceidClient(
            profiled.credential, "", profiled.profile
        ) as client:
            try:
                reply = await getattr(client, action)(self.request(elements, headers, action))
            except TencentCloudSDKException as error:
                raise refusal(error) from error
        return answer(reply)


class Tccli:
    """tccli, as a process of its own; over http its endpoint is a URL, and so is its Host."""

    name = "tccli"

    def __init__(self, home):
        self.home = home

    def call(
        self,
        address,
        elements,
        *,
        secret_id=PUBLIC["secret_id"],
        secret_key=PUBLIC["secret_key"],
        token=None,
        language=None,
        proxy=None,
        scheme="http",
        environment=None,
        action=FOUR,
    ):
        command = [need_tool("tccli"), "faceid", action]
        # It has no option for the scheme: https is what it makes of a bare address.
        endpoint = f"http://{address}" if scheme == "http" else address
        command += ["--endpoint", endpoint, "--timeout", str(TIMEOUT)]
        if language:
            command += ["--language", language]
        if proxy:
            command += ["--https-proxy", proxy]
        if action != FOUR or set(elements) >= {"Name", "BankCard", "Phone", "IdCard"}:
            for member, value in elements.items():
                command += [f"--{member}", str(value)]
        else:
            # As options tccli asks for every member itself; from a file it sends what is there.
            document = self.home / "input.json"
            document.write_text(json.dumps(elements), encoding="utf-8")
            command += ["--cli-input-json", f"file://{document}"]
        environment = client_environment(
            HOME=str(self.home),
            TENCENTCLOUD_SECRET_ID=secret_id,
            TENCENTCLOUD_SECRET_KEY=secret_key,
            **({"TENCENTCLOUD_TOKEN": token} if token else {}),
            **(environment or {}),
        )
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        if done.returncode == 0:
            reply = json.loads(done.stdout)
            return Answer(reply["Result"], reply["Description"], reply["RequestId"], reply)
        said = re.search(r"code:(\S+) message:(.*) requestId:(\S+)", done.stderr, re.DOTALL)
        assert said, f"tccli ended {done.returncode}: {done.stdout} {done.stderr}"
        code, message, request_id = said.groups()
        raise Refused(code, message, None if request_id == "None" else request_id, done)


def answer(reply):
    whole = json.loads(reply.to_json_string())
    return Answer(reply.Result, reply.Description, reply.RequestId, whole)


def refusal(error):
    return Refused(error.get_code(), error.get_message(), error.get_request_id(), error)
