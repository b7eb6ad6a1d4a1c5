"""The engine behind an event loop, by vLLM's older name."""

from outrider.async_llm import AsyncLLM as AsyncLLMEngine

__all__ = ["AsyncLLMEngine"]
