"""Answers drawn at servers that speak OpenAI's API: autodeco-server with its heads, others with fixed settings."""
