"""LangChain's agent with the tools of its MCP adapters, and OpenAI's chat completions."""

import asyncio

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI

from run_config import HEADERS, MODEL, TURNS, URL, oauth


async def main() -> None:
    connection = {"transport": "streamable_http", "url": URL, "headers": HEADERS}
    if auth := oauth():
        connection["auth"] = auth
    tools = await MultiServerMCPClient({"wp": connection}).get_tools()
    model = ChatOpenAI(model="stub", base_url=f"{MODEL}/v1", api_key="dummy", streaming=True, use_responses_api=False)
    agent = create_agent(model, tools, system_prompt="You guide the user.")
    result = await agent.ainvoke({"messages": [("user", "go")]}, {"recursion_limit": 3 * TURNS})
    print(result["messages"][-1].content)


if __name__ == "__main__":
    asyncio.run(main())
