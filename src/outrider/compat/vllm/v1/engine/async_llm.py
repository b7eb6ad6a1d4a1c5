"""The engine behind an event loop, by vLLM's name."""

from outrider.async_llm import AsyncLLM

__all__ = ["AsyncLLM"]
