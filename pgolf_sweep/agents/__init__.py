"""Tools of the MCP server: small typed answers about one study, within a proposer's budget."""
