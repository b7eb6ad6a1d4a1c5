"""From what a client sent to the tokens that the model reads, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from outrider.engine.generation import TextPrompt
from outrider.errors import RequestError
from outrider.llm import LLM
from outrider.serving.requests import Message


class Prompts:
    """The target's tokenizer and chat template.

    Tokenizing a long prompt takes long enough for the others' tokens to wait, so it is done in threads.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    @property
    def _tokenizer(self) -> Any:
        return self._llm.tokenizer

    async def of_texts(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[TextPrompt]:
        """One prompt a text."""

        def encode() -> list[TextPrompt]:
            special = add_special_tokens
            return [TextPrompt(self._llm.encode(text, add_special_tokens=special), text) for text in texts]

        return await asyncio.to_thread(encode)

    async def of_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> TextPrompt:
        """A conversation as the model's template lays it out. Raises RequestError where it does not."""
        if not getattr(self._tokenizer, "chat_template", None):
            raise RequestError("the model has no chat template; use /v1/completions")
        plain = [message.for_template() for message in messages]

        def lay_out() -> list[int]:
            return self._llm.chat_prompt(plain, add_generation_prompt=add_generation_prompt)

        return TextPrompt(await asyncio.to_thread(lay_out))

    def text_of(self, tokens: Sequence[int]) -> str:
        """Special tokens included. Raises RequestError for a token id that the model does not have."""
        vocab = self._llm.engine.target.model.config.vocab_size
        for token in tokens:
            if token >= vocab:
                raise RequestError(f"tokens holds token id {token}; the model's ids are 0 to {vocab - 1}")
        return str(self._tokenizer.decode(list(tokens)))

    def pieces_of(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [str(self._tokenizer.decode([token])) for token in tokens]

    def names_of(self, tokens: Sequence[int]) -> list[str]:
        """Each token as the vocabulary writes it."""
        return [str(name) for name in self._tokenizer.convert_ids_to_tokens(list(tokens))]
