"""FastMCP's proxy: fastmcp_proxy.py URL PORT serves the MCP server at URL at http://127.0.0.1:PORT/mcp."""

import sys

from fastmcp.server import create_proxy

url, port = sys.argv[1:]
create_proxy(url, name="proxy").run(
    transport="http", host="127.0.0.1", port=int(port), path="/mcp", json_response=True, log_level="ERROR", show_banner=False
)
