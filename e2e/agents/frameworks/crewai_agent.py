"""CrewAI, with OpenAI's chat completions. Its MCP servers take headers, and no OAuth client."""

from crewai import LLM, Agent
from crewai.mcp import MCPServerHTTP

from given import HEADERS, MODEL, TURNS, URL


def main() -> None:
    model = LLM(model="openai/gpt-4o", base_url=f"{MODEL}/v1", api_key="dummy", stream=True)
    agent = Agent(
        role="Guide",
        goal="Guide the user",
        backstory="You guide users.",
        llm=model,
        mcps=[MCPServerHTTP(url=URL, headers=HEADERS or None)],
        max_iter=TURNS,
    )
    print(agent.kickoff("go").raw)


if __name__ == "__main__":
    main()
