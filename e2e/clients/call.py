"""The official Python client calls tools and prints their results, one line of JSON each.

usage: call.py URL CALLS, with the token in MCP_TOKEN. CALLS is a JSON list of {name, arguments}.
"""

import json
import os
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, calls: list) -> None:
    headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        for call in calls:
            result = await client.call_tool(call["name"], call["arguments"])
            print(result.model_dump_json(by_alias=True, exclude_none=True))


anyio.run(main, sys.argv[1], json.loads(sys.argv[2]))
