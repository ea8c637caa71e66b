"""The official Python client plays the first walkthrough of the demo to its end, in each era and revision that it
supports.

usage: python_client.py URL legacy|auto|modern|REVISION
"""

import json
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version as installed

import anyio
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
TOOLS = {
    "list_walkthroughs",
    "select_walkthrough",
    "next_walkthrough_step",
    "get_walkthrough_status",
    "reset_walkthrough_progress",
}


def check(condition: bool, what: str, about: object = "") -> None:
    """An `assert` that `python -O` does not remove."""
    if not condition:
        raise AssertionError(f"{what}: {about}" if about else what)


def check_members(schema: dict, value: object, path: str) -> None:
    """Checks that all declared members are present and no others, because the schemas have no required members."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_members(schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict):
        check(set(value) == set(schema["properties"]), f"the members of {path}", sorted(value))
        for member, inner in value.items():
            check_members(schema["properties"][member], inner, f"{path}.{member}")


class CheckedClient:
    """A client that validates every tool result against the schema that the tool declares."""

    def __init__(self, client: Client, tools: list) -> None:
        self.client = client
        self.tools = {tool.name: tool for tool in tools}
        # Counts the validations by the client.
        self.validated = 0
        validate = client.session.validate_tool_result

        async def counted(name: str, result: object) -> None:
            self.validated += 1
            await validate(name, result)

        client.session.validate_tool_result = counted

    async def call(self, name: str, arguments: dict, *, error: bool = False) -> dict:
        before = self.validated
        result = await self.client.call_tool(name, arguments)
        content = result.structured_content
        check(result.is_error is error, f"{name}: unexpected `is_error`", content)
        check(bool(result.content[0].text), f"{name} has text")
        schema = self.tools[name].output_schema
        Draft202012Validator.check_schema(schema)
        # Includes errors, which this client does not validate.
        Draft202012Validator(schema).validate(content)
        if error:
            check(set(content) == {"error"}, name, content)
        else:
            check(self.validated == before + 1, "the client validates every structured content")
            properties = {member: inner for member, inner in schema["properties"].items() if member != "error"}
            check_members({**schema, "properties": properties}, content, name)
        return content

    async def complete_step(self, step: str, completed: int, arguments: dict) -> dict:
        """Completes the step and checks the number of completed steps."""
        result = await self.call("next_walkthrough_step", {**arguments, "current_step_id": step})
        progress = result["progress"]
        check(result["completed_step_id"] == step, "completed_step_id", result)
        check(progress["completed"] == completed, "completed", progress)
        check((result["step"] is None) == (completed == progress["total"]), "no step after the last", result)
        return result

    async def expect_error(self, name: str, arguments: dict, code: str) -> dict:
        """Checks that the tool's result is an error with the code."""
        error = (await self.call(name, arguments, error=True))["error"]
        check(error["code"] == code and bool(error["message"]), code, error)
        return error


class OlderRevisionStream:
    """A stream that requests an older revision, because the client always requests the newest one that it supports."""

    def __init__(self, inner, revision: str) -> None:
        self.inner = inner
        self.revision = revision

    async def send(self, item) -> None:
        if getattr(item.message, "method", None) == "initialize":
            item.message.params["protocolVersion"] = self.revision
        await self.inner.send(item)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def __aenter__(self):
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *error):
        return await self.inner.__aexit__(*error)


@asynccontextmanager
async def connect_older(url: str, revision: str):
    async with streamable_http_client(url) as (read, write):
        yield read, OlderRevisionStream(write, revision)


@asynccontextmanager
async def connect(url: str, era: str):
    server = url if era in MODES else connect_older(url, era)
    async with Client(server, mode=MODES.get(era, "legacy")) as client:
        tools = (await client.list_tools()).tools
        yield CheckedClient(client, tools)


async def check_prompts_and_resources(client: Client, walkthrough: dict) -> None:
    names = {prompt.name for prompt in (await client.list_prompts()).prompts}
    check(walkthrough["slug"] in names, "prompts/list has the walkthrough", names)
    messages = (await client.get_prompt(walkthrough["slug"])).messages
    check(any(walkthrough["id"] in message.content.text for message in messages), "the prompt names the walkthrough")
    uri = f"walkthrough://{walkthrough['id']}"
    uris = {str(resource.uri) for resource in (await client.list_resources()).resources}
    check(uri in uris, "resources/list has the walkthrough", uris)
    [outline] = (await client.read_resource(uri)).contents
    check(str(outline.uri) == uri and walkthrough["title"] in outline.text, "the outline has the title", outline)


async def play(url: str, era: str) -> dict:
    legacy = era not in ("auto", "modern")
    expected = era if era not in MODES else "2025-11-25" if legacy else "2026-07-28"
    async with connect(url, era) as first:
        version = first.client.protocol_version
        check(version == expected, "the negotiated version", version)
        check(set(first.tools) >= TOOLS, "tools/list", sorted(first.tools))
        listed = (await first.call("list_walkthroughs", {}))["walkthroughs"]
        check(bool(listed) and listed[0]["status"] == "not_started", "the demo has walkthroughs", listed)
        walkthrough = listed[0]
        await check_prompts_and_resources(first.client, walkthrough)

        # The first half. A session identifies the user; without one, the handle is passed.
        anonymous = {"walkthrough_id": walkthrough["id"]}
        result = await first.call("select_walkthrough", anonymous)
        check(bool(result["progress_handle"]), "progress without an account has a handle")
        with_handle = {**anonymous, "progress_handle": result["progress_handle"]}
        half = walkthrough["step_count"] // 2
        for done in range(half):
            result = await first.complete_step(result["step"]["id"], done + 1, anonymous if legacy else with_handle)
        current_step = result["step"]["id"]
        if not legacy:
            await first.expect_error("next_walkthrough_step", anonymous, "no_active_walkthrough")

    # The same user, identified by the handle, in a new client.
    async with connect(url, era) as second:
        result = await second.call("select_walkthrough", with_handle)
        check(result["step"]["id"] == current_step, "a new client with the handle is at the same step", result)

        # A step that is not the current one, and a repeated request.
        other_step = {**with_handle, "current_step_id": "ws_none"}
        wrong = await second.expect_error("next_walkthrough_step", other_step, "step_mismatch")
        check(current_step in json.dumps(wrong), "step_mismatch names the current step", wrong)
        status = await second.call("get_walkthrough_status", with_handle)
        states = [step["state"] for step in status["steps"]]
        check(states.count("completed") == half, "half of the steps are completed", states)
        repeated = {**with_handle, "current_step_id": status["steps"][0]["id"]}
        result = await second.call("next_walkthrough_step", repeated)
        check(result["completed_step_id"] is None, "a repeated request changes nothing", result)
        check(result["step"]["id"] == current_step, "a repeated request changes nothing", result)

        steps = half
        while result["step"] is not None:
            steps += 1
            result = await second.complete_step(result["step"]["id"], steps, with_handle)
        check(steps == walkthrough["step_count"], "the number of steps matches the list", steps)
        end = await second.call("get_walkthrough_status", with_handle)
        progress = end["progress"]
        check((progress["status"], progress["percent"]) == ("completed", 100), "the status at the end", progress)
        check(all(step["state"] == "completed" for step in end["steps"]), "every step is completed", end)

    return {
        "client": f"python mcp {installed('mcp')}",
        "era": era,
        "protocol_version": version,
        "walkthrough": walkthrough["slug"],
        "steps": steps,
        "resumed": True,
        # This client uses one session for all its calls, but cannot resume another client's session.
        "resumed_by_session": False,
        "completed": True,
    }


async def main(url: str, era: str) -> None:
    # A client that never finishes must not block a build.
    with anyio.fail_after(180):
        print(json.dumps(await play(url, era), separators=(",", ":")))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in {*MODES, *HANDSHAKE_PROTOCOL_VERSIONS}:
        sys.exit(__doc__)
    anyio.run(main, *sys.argv[1:])
