"""Signs in and plays with the official Python client, in two runs, as play.mjs does for the other clients."""

import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

CONFIG = json.loads(sys.argv[1])
# Nothing listens on this port: the simulated user returns the URL to which the browser was redirected.
REDIRECT = "http://127.0.0.1:33419/callback"


def check(condition: bool, what: str, about: object = "") -> None:
    """An `assert` that `python -O` does not remove."""
    if not condition:
        raise AssertionError(f"{what}: {about}" if about else what)


class Store:
    """The data that the client stores between its runs."""

    def __init__(self) -> None:
        self.folder = Path(CONFIG["state"])

    def _read(self, name: str, model):
        file = self.folder / name
        return model.model_validate_json(file.read_text()) if file.exists() else None

    async def get_tokens(self) -> OAuthToken | None:
        return self._read("tokens.json", OAuthToken)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        (self.folder / "tokens.json").write_text(tokens.model_dump_json())

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._read("client.json", OAuthClientInformationFull)

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        (self.folder / "client.json").write_text(client_info.model_dump_json())


class User:
    """The simulated user who signs in (tests/support/user.rs)."""

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(base_url=CONFIG["user"], trust_env=False, timeout=60)
        self.callback = ""

    async def open(self, url: str) -> None:
        response = await self.http.get("/drive", params={"url": url})
        check(response.status_code == 200, "the user can sign in", response.text)
        self.callback = response.text

    async def callback_result(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self.callback).query)
        values = {name: query.get(name, [None])[0] for name in ("code", "state", "iss")}
        return AuthorizationCodeResult(**values)

    async def sign_ins(self) -> int:
        return int((await self.http.get("/sign-ins")).text)


async def call(client: Client, name: str, arguments: dict) -> dict:
    result = await client.call_tool(name, arguments)
    check(not result.is_error, name, result.structured_content)
    return result.structured_content


async def complete_step(client: Client, walkthrough: str, step: str, completed: int) -> dict:
    arguments = {"walkthrough_id": walkthrough, "current_step_id": step}
    result = await call(client, "next_walkthrough_step", arguments)
    check(result["completed_step_id"] == step and result["progress"]["completed"] == completed, "progress", result)
    check(result["progress_handle"] is None, "a signed-in user needs no handle")
    return result


@asynccontextmanager
async def connect(user: User):
    metadata = OAuthClientMetadata(
        client_name="Python client",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
    )
    auth = OAuthClientProvider(
        CONFIG["url"], metadata, Store(), user.open, user.callback_result, client_metadata_url=CONFIG["document"]
    )
    async with httpx2.AsyncClient(auth=auth, trust_env=False, timeout=60) as http:
        transport = streamable_http_client(CONFIG["url"], http_client=http)
        async with Client(transport, mode=CONFIG["era"]) as client:
            yield client


async def first() -> None:
    user = User()
    async with connect(user) as client:
        walkthrough = (await call(client, "list_walkthroughs", {}))["walkthroughs"][0]
        check(walkthrough["status"] == "not_started", "no walkthrough is started", walkthrough)
        expected = 1 if CONFIG["on_connect"] else 0
        check(await user.sign_ins() == expected, "connecting and listing require a sign-in only with on_connect")
        result = await call(client, "select_walkthrough", {"walkthrough_id": walkthrough["id"]})
        check(await user.sign_ins() == 1, "starting a walkthrough requires a sign-in")
        half = walkthrough["step_count"] // 2
        for done in range(1, half + 1):
            result = await complete_step(client, walkthrough["id"], result["step"]["id"], done)
        outcome = {"protocol_version": client.protocol_version, "at": result["step"]["id"], "completed": half}
        print(json.dumps(outcome), flush=True)
        # Waits until it is killed.
        await anyio.sleep_forever()


async def second() -> None:
    async with connect(User()) as client:
        walkthrough = (await call(client, "list_walkthroughs", {}))["walkthroughs"][0]
        check(walkthrough["status"] == "in_progress", "a client with a token is recognised when it lists walkthroughs", walkthrough)
        result = await call(client, "select_walkthrough", {"walkthrough_id": walkthrough["id"]})
        resumed, steps = result["step"]["id"], result["progress"]["completed"]
        while result["step"] is not None:
            steps += 1
            result = await complete_step(client, walkthrough["id"], result["step"]["id"], steps)
        check(steps == walkthrough["step_count"], "the number of steps matches the list", steps)
        end = await call(client, "get_walkthrough_status", {"walkthrough_id": walkthrough["id"]})
        check(end["progress"]["status"] == "completed", "the walkthrough is completed", end)
        outcome = {"protocol_version": client.protocol_version, "resumed": resumed, "steps": steps, "completed": True}
        print(json.dumps(outcome), flush=True)


async def main() -> None:
    # A client that never finishes must not block a build.
    with anyio.fail_after(180):
        await (first if CONFIG["run"] == "first" else second)()


if __name__ == "__main__":
    anyio.run(main)
