//! waypost-mcp
