"""The official Python client signs in and plays, in two runs; see play.mjs, which does the same for the others."""

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

GIVEN = json.loads(sys.argv[1])
# Nobody listens there: the user tells where the browser was sent.
REDIRECT = "http://127.0.0.1:33419/callback"


def check(condition: bool, what: str, about: object = "") -> None:
    """`assert` that `python -O` does not take away."""
    if not condition:
        raise AssertionError(f"{what}: {about}" if about else what)


class Store:
    """What the client keeps between its runs."""

    def __init__(self) -> None:
        self.folder = Path(GIVEN["state"])

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
    """Who signs in (tests/support/user.rs)."""

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(base_url=GIVEN["user"], trust_env=False, timeout=60)
        self.callback = ""

    async def open(self, url: str) -> None:
        answer = await self.http.get("/drive", params={"url": url})
        check(answer.status_code == 200, "the user can sign in", answer.text)
        self.callback = answer.text

    async def answer(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self.callback).query)
        values = {name: query.get(name, [None])[0] for name in ("code", "state", "iss")}
        return AuthorizationCodeResult(**values)

    async def sign_ins(self) -> int:
        return int((await self.http.get("/sign-ins")).text)


async def call(client: Client, name: str, arguments: dict) -> dict:
    result = await client.call_tool(name, arguments)
    check(not result.is_error, name, result.structured_content)
    return result.structured_content


async def next_step(client: Client, walkthrough: str, step: str, completed: int) -> dict:
    arguments = {"walkthrough_id": walkthrough, "current_step_id": step}
    result = await call(client, "next_walkthrough_step", arguments)
    check(result["completed_step_id"] == step and result["progress"]["completed"] == completed, "progress", result)
    check(result["progress_handle"] is None, "who is signed in needs no handle")
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
        GIVEN["url"], metadata, Store(), user.open, user.answer, client_metadata_url=GIVEN["document"]
    )
    async with httpx2.AsyncClient(auth=auth, trust_env=False, timeout=60) as http:
        transport = streamable_http_client(GIVEN["url"], http_client=http)
        async with Client(transport, mode=GIVEN["era"]) as client:
            yield client


async def first() -> None:
    user = User()
    async with connect(user) as client:
        walkthrough = (await call(client, "list_walkthroughs", {}))["walkthroughs"][0]
        check(walkthrough["status"] == "not_started", "nothing is started", walkthrough)
        wanted = 1 if GIVEN["on_connect"] else 0
        check(await user.sign_ins() == wanted, "connecting and listing need a sign-in only on_connect")
        result = await call(client, "select_walkthrough", {"walkthrough_id": walkthrough["id"]})
        check(await user.sign_ins() == 1, "starting does")
        half = walkthrough["step_count"] // 2
        for done in range(1, half + 1):
            result = await next_step(client, walkthrough["id"], result["step"]["id"], done)
        told = {"protocol_version": client.protocol_version, "at": result["step"]["id"], "completed": half}
        print(json.dumps(told), flush=True)
        # Until it is killed.
        await anyio.sleep_forever()


async def second() -> None:
    async with connect(User()) as client:
        walkthrough = (await call(client, "list_walkthroughs", {}))["walkthroughs"][0]
        check(walkthrough["status"] == "in_progress", "a client that has a token is known when it lists", walkthrough)
        result = await call(client, "select_walkthrough", {"walkthrough_id": walkthrough["id"]})
        resumed, steps = result["step"]["id"], result["progress"]["completed"]
        while result["step"] is not None:
            steps += 1
            result = await next_step(client, walkthrough["id"], result["step"]["id"], steps)
        check(steps == walkthrough["step_count"], "as many steps as the list said", steps)
        end = await call(client, "get_walkthrough_status", {"walkthrough_id": walkthrough["id"]})
        check(end["progress"]["status"] == "completed", "it is completed", end)
        told = {"protocol_version": client.protocol_version, "resumed": resumed, "steps": steps, "completed": True}
        print(json.dumps(told), flush=True)


async def main() -> None:
    # A client that waits for ever must not hold up a build.
    with anyio.fail_after(180):
        await (first if GIVEN["run"] == "first" else second)()


if __name__ == "__main__":
    anyio.run(main)
