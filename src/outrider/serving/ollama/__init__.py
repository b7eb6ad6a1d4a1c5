"""Ollama's API, by conversion to chat."""
