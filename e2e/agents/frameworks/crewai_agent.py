"""CrewAI, with OpenAI's chat completions. Its MCP servers accept headers, but no OAuth client."""

import asyncio

from crewai import LLM, Agent
from crewai.mcp import MCPServerHTTP
from crewai.tools.mcp_native_tool import MCPNativeTool

from run_config import HEADERS, MODEL, TURNS, URL

# Version 1.15.30 calls `asyncio.run` while it handles the error that no event loop is running, and on Python 3.11
# mistakes that error for a connection failure: every call seems to have failed, although the server has answered it.
MCPNativeTool._run = lambda self, **arguments: asyncio.run(self._run_async(**arguments))


def main() -> None:
    model = LLM(model="openai/gpt-4o", base_url=f"{MODEL}/v1", api_key="dummy", stream=True)
    server = MCPServerHTTP(url=URL, headers=HEADERS or None)
    agent = Agent(
        role="Guide", goal="Guide the user", backstory="You guide users.", llm=model, mcps=[server], max_iter=TURNS
    )
    print(agent.kickoff("go").raw)


if __name__ == "__main__":
    main()
