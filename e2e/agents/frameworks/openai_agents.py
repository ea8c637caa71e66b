"""The OpenAI Agents SDK, with the responses API."""

import asyncio

from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from openai import AsyncOpenAI

from run_config import HEADERS, MODEL, TURNS, URL, oauth


async def main() -> None:
    set_tracing_disabled(True)
    model = OpenAIResponsesModel("stub", AsyncOpenAI(base_url=f"{MODEL}/v1", api_key="dummy"))
    params = {"url": URL, "headers": HEADERS, "timeout": 60}
    if auth := oauth():
        params["auth"] = auth
    async with MCPServerStreamableHttp(params, client_session_timeout_seconds=60) as server:
        agent = Agent("Guide", instructions="You guide the user.", model=model, mcp_servers=[server])
        result = Runner.run_streamed(agent, "go", max_turns=TURNS)
        async for _ in result.stream_events():
            pass
        print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main())
