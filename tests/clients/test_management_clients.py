"""The management API with AceData's own SDK, CLI and MCP server, unmodified, against a sandbox."""

import asyncio
import json
import subprocess

import pytest

from acedata_clients import PATH, body_of
from harness import PUBLIC, SAMPLE, client_environment, need_module, need_tool, wait_until

PLATFORM_TOKEN = "platform-v1-" + "4e" * 32


def sdk(sandbox, token):
    client = need_module("acedatacloud").AceDataCloud
    return client(api_token=token, base_url=sandbox.url, platform_base_url=sandbox.url)


def own_application(client):
    """The sandbox's public account has its application from the beginning."""
    (application,) = client.platform.applications.list(user_id="me")["items"]
    return application


def test_sdk_applications_and_catalogue(sandbox):
    client = sdk(sandbox, PLATFORM_TOKEN)
    application = own_application(client)
    assert client.platform.applications.get(application["id"])["service"]["alias"] == "identity"
    errors = need_module("acedatacloud._runtime.errors")
    with pytest.raises(errors.ValidationError):
        client.platform.applications.create(service_id=application["service_id"])
    assert client.platform.config.get()["features"]["registration"] == "open"
    assert client.platform.models.list() == {"count": 0, "items": []}


def test_sdk_a_key_is_made_used_rotated_and_deleted(sandbox):
    client = sdk(sandbox, PLATFORM_TOKEN)
    application = own_application(client)
    made = client.platform.credentials.create(application_id=application["id"], name="ci", limited_amount=1)
    assert len(made["token"]) == 32

    def ask(token):
        return sdk(sandbox, token)._transport.request("POST", PATH, json=body_of(SAMPLE))

    assert ask(made["token"])["result"] == "0"
    errors = need_module("acedatacloud._runtime.errors")
    with pytest.raises(errors.InsufficientBalanceError):
        ask(made["token"])
    listed = client.platform.credentials.list(application_id=application["id"])["items"]
    (again,) = [item for item in listed if item["id"] == made["id"]]
    assert again["token"].startswith("•") and again["token"].endswith(made["token"][-4:])
    assert (again["used_amount"], again["limited_amount"]) == (1, 1)

    rotated = client.platform.credentials.rotate(made["id"])
    assert rotated["id"] == made["id"] and rotated["token"] != made["token"]
    with pytest.raises(errors.AuthenticationError):
        ask(made["token"])
    # The SDK reads the body of a 204 as JSON, and repeats nothing; the key is gone all the same.
    with pytest.raises(json.JSONDecodeError):
        client.platform.credentials.delete(made["id"])
    with pytest.raises(errors.AuthenticationError):
        ask(rotated["token"])


def test_sdk_the_wrong_kind_of_token(sandbox):
    errors = need_module("acedatacloud._runtime.errors")
    with pytest.raises(errors.AuthenticationError):
        sdk(sandbox, PUBLIC["bearer"]).platform.applications.list()
    with pytest.raises(errors.AuthenticationError):
        sdk(sandbox, PLATFORM_TOKEN)._transport.request("POST", PATH, json=body_of(SAMPLE))


def adc(sandbox, *arguments, token=PUBLIC["bearer"]):
    environment = client_environment(
        ACEDATACLOUD_API_BASE_URL=sandbox.url, ACEDATACLOUD_API_TOKEN=token, HOME=str(sandbox.log.parent)
    )
    return subprocess.run(
        [need_tool("adc"), *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("arguments", [("serp", "google", "hello"), ("suno", "generate", "hello")])
def test_cli_errors_can_be_read(sandbox, arguments):
    """The CLI knows other services only: it is told so, in a sentence."""
    run = adc(sandbox, *arguments)
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "Traceback" not in said, said


class Mcp:
    """`mcp-acedatacloud` over stdio."""

    def __init__(self, sandbox):
        mcp = need_module("mcp")
        stdio = need_module("mcp.client.stdio")
        self.parameters = mcp.StdioServerParameters(
            command=need_tool("mcp-acedatacloud"),
            args=[],
            env=client_environment(
                ACEDATACLOUD_PLATFORM_TOKEN=PLATFORM_TOKEN, PLATFORM_API_BASE_URL=sandbox.url
            ),
        )
        self.session = mcp.ClientSession
        self.stdio = stdio.stdio_client

    def run(self, story):
        async def whole():
            async with self.stdio(self.parameters) as (read, write):
                async with self.session(read, write) as session:
                    await session.initialize()
                    await story(session)

        asyncio.run(asyncio.wait_for(whole(), 120))


async def tool(session, called, /, **arguments):
    answer = await session.call_tool(called, arguments)
    text = "".join(part.text for part in answer.content if part.type == "text")
    assert not answer.isError, f"{called}: {text}"
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def test_mcp_the_whole_story(sandbox):
    """The catalogue, a key's life, usage, money: what a person would ask of an assistant."""
    sdk(sandbox, PUBLIC["bearer"])._transport.request("POST", PATH, json=body_of(SAMPLE))

    async def story(session):
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert len(names) > 89, "tools that need permissions are offered"

        def call(what, /, **arguments):
            return tool(session, f"acedatacloud_{what}", **arguments)

        assert "public" in str(await call("get_user_info"))
        assert "identity" in str(await call("list_services", limit=300))
        assert "identity" in str(await call("get_service", service="identity"))
        assert "check-4e" in str(await call("list_apis", service="identity"))
        spec = await call("get_api_spec", path=PATH)
        assert "bank_card" in str(spec) and sandbox.url in str(spec)
        assert "check-4e" in str(await call("search_docs", query="bank card"))
        assert "check-4e" in str(await call("list_docs"))
        await call("get_pricing", service="identity")
        await call("get_balance")
        (application,) = (await call("list_applications"))["items"]
        await call("get_application", application_id=application["id"])

        made = await call("create_credential", application_id=application["id"], name="ci", confirm=True)
        key = find(made, "id")
        await call("list_credentials", application_id=application["id"])
        assert "renamed" in str(await call("update_credential", credential_id=key, name="renamed", confirm=True))
        await call("rotate_credential", credential_id=key, confirm=True)
        assert "deleted" in str(await call("delete_credential", credential_id=key, confirm=True))
        again = await call("create_credential", application_id=application["id"], name="again", confirm=True)
        assert find(again, "id") != key

        usage = await call("list_usage", status_code=[200, 500], days=1, limit=20)
        row = usage["items"][0]
        assert (row["status_code"], row["metadata"]["outcome"]) == (200, "PASS")
        assert row["metadata"]["masked"]["card"] != SAMPLE["BankCard"]
        await call("get_usage", usage_id=row["id"])
        await call("usage_summary", days=7)
        assert "200" in str(await call("list_usage_status_codes"))
        exported = await call("export_usage")
        assert row["id"] in str(exported) and "Usage ID" in str(exported)

        await call("list_orders", state=["Paid", "Finished"])
        await call("get_order_summary")
        await call("list_platform_tokens", limit=50)
        token = await call("create_platform_token", confirm=True)
        await call("delete_platform_token", token_id=find(token, "id"), confirm=True)
        await call("list_models")
        await call("list_announcements", limit=20)

    wait_until(lambda: sandbox.control("GET", "usage").json()["rows"], 10, "the usage row")
    Mcp(sandbox).run(story)


def find(answer, name):
    """A member of an answer, or of the object in it."""
    if name in answer:
        return answer[name]
    return next(value[name] for value in answer.values() if isinstance(value, dict) and name in value)
