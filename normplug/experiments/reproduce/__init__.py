"""The published tables: every row is a config, one command a table."""
