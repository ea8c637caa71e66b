"""Pydantic AI, with Anthropic's messages."""

import asyncio

from anthropic import AsyncAnthropic
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from run_config import HEADERS, MODEL, URL, oauth


async def main() -> None:
    client = AsyncAnthropic(base_url=MODEL, api_key="dummy")
    model = AnthropicModel("claude-stub", provider=AnthropicProvider(anthropic_client=client))
    toolset = MCPToolset(URL, headers=HEADERS or None, auth=oauth())
    agent = Agent(model, instructions="You guide the user.", toolsets=[toolset])
    async with agent, agent.run_stream("go") as result:
        print(await result.get_output())


if __name__ == "__main__":
    asyncio.run(main())
