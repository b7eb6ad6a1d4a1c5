"""The offline API, by vLLM's name."""

from outrider.llm import LLM

__all__ = ["LLM"]
