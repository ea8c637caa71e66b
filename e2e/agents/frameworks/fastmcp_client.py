"""FastMCP's client has no model: this program asks the scripted model which tool to call next, and passes it everything
that the client returned."""

import asyncio
import json

import httpx2
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from run_config import CONFIG, HEADERS, MODEL, TURNS, URL, oauth


async def main() -> None:
    transport = StreamableHttpTransport(URL, headers=HEADERS, auth=oauth())
    async with Client(transport) as client, httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        described = [{"name": tool.name, "description": tool.description} for tool in await client.list_tools()]
        tools = [{"type": "function", "function": tool} for tool in described]
        instructions = getattr(client, "instructions", None) or client.initialize_result.instructions
        messages = [{"role": "system", "content": instructions or ""}, {"role": "user", "content": "go"}]
        for _ in range(TURNS):
            body = {"model": "stub", "messages": messages, "tools": tools}
            answer = (await http.post(f"{MODEL}/v1/chat/completions", json=body)).raise_for_status().json()
            message = answer["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                print(message["content"])
                return
            [call] = message["tool_calls"]
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            result = await client.call_tool(name, arguments, raise_on_error=False)
            shown = {"text": result.content[0].text, "structured": result.structured_content}
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(shown)})
    raise RuntimeError("the plan has more turns than this program")


if __name__ == "__main__":
    asyncio.run(main())
