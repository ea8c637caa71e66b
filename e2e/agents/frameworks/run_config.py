"""The JSON argument of each script: `url`, the server's URL; `model`, the origin of the scripted model; `token`, a
preset access token, or null; `user`, the origin of the simulated user who signs in (tests/support/user.rs), or null;
`state`, a folder for the data that the client stores between its processes."""

import json
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import ProxyHandler, build_opener

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

CONFIG = json.loads(sys.argv[1])
URL = CONFIG["url"]
MODEL = CONFIG["model"]
HEADERS = {"Authorization": f"Bearer {CONFIG['token']}"} if CONFIG["token"] else {}
# Nothing listens on this port: the test returns the URL to which the browser was redirected.
REDIRECT = "http://127.0.0.1:33419/callback"
# More turns than any plan has.
TURNS = 40


class _Store:
    """Stores tokens and the client's registration in files."""

    def __init__(self) -> None:
        self.folder = Path(CONFIG["state"])

    def _read(self, name, model):
        file = self.folder / name
        return model.model_validate_json(file.read_text()) if file.exists() else None

    async def get_tokens(self):
        return self._read("tokens.json", OAuthToken)

    async def set_tokens(self, tokens):
        (self.folder / "tokens.json").write_text(tokens.model_dump_json())

    async def get_client_info(self):
        return self._read("client.json", OAuthClientInformationFull)

    async def set_client_info(self, client_info):
        (self.folder / "client.json").write_text(client_info.model_dump_json())


def oauth():
    """Returns the SDK's own OAuth client, for `auth` of the frameworks' HTTP clients, or `None` if no user signs in."""
    if not CONFIG["user"]:
        return None
    callback = ""

    async def redirect(url: str) -> None:
        nonlocal callback
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"{CONFIG['user']}/drive?{urlencode({'url': url})}", timeout=60) as response:
            callback = response.read().decode()

    async def callback_result():
        query = {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}
        try:
            from mcp.client.auth import AuthorizationCodeResult
        except ImportError:
            # Version 1 of the SDK.
            return query["code"], query.get("state")
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))

    metadata = OAuthClientMetadata(
        client_name="Agent framework",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
    )
    return OAuthClientProvider(URL, metadata, _Store(), redirect, callback_result)
