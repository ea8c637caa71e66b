"""mcp-use's agent, with OpenAI's chat completions."""

import asyncio

from langchain_openai import ChatOpenAI
from mcp_use import MCPAgent, MCPClient

from run_config import HEADERS, MODEL, TURNS, URL, oauth


async def main() -> None:
    server = {"url": URL, "headers": HEADERS}
    if auth := oauth():
        server["auth"] = auth
    client = MCPClient.from_dict({"mcpServers": {"wp": server}})
    model = ChatOpenAI(model="stub", base_url=f"{MODEL}/v1", api_key="dummy", streaming=True, use_responses_api=False)
    agent = MCPAgent(llm=model, client=client, max_steps=TURNS)
    try:
        print(await agent.run("go"))
    finally:
        await client.close_all_sessions()


if __name__ == "__main__":
    asyncio.run(main())
