"""Prompts, by vLLM's names."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from outrider.prompts import Prompt as PromptType


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids, and the text that they were made of, if that is to come back."""

    prompt_token_ids: Sequence[int]
    prompt: NotRequired[str]


__all__ = ["PromptType", "TextPrompt", "TokensPrompt"]
