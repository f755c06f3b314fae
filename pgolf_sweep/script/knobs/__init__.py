"""The environment variables that a script reads, with types and defaults."""
