"""The engine that its caller steps, by vLLM's name."""

from outrider.llm_engine import LLMEngine

__all__ = ["LLMEngine"]
