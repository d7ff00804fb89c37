"""Tools of MCP servers: how they are configured, started, listed and called."""
