"""From what a client sent to the tokens that the model reads, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from outrider.cache.pages import release_freed
from outrider.engine.generation import TextPrompt
from outrider.errors import RequestError
from outrider.models.chat_template import AT_ONCE
from outrider.prompts import PromptReader

LONG = 2**18
"""Characters from which texts are tokenized one call after the other: 4 MB of them take seconds, and
hundreds of megabytes."""


class Prompts:
    """The target's tokenizer and chat template. vocab_size: of its token ids.

    Tokenizing a long prompt takes long enough for the others' tokens to wait, so it is done in threads.
    """

    def __init__(self, reader: PromptReader, vocab_size: int) -> None:
        self._reader = reader
        self._tokenizer = reader.tokenizer
        self._vocab_size = vocab_size
        # Who waits for these holds none of the threads that everybody needs.
        self._long = asyncio.Semaphore()
        self._layouts = asyncio.Semaphore(AT_ONCE)

    async def of_input(
        self,
        given: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
        *,
        add_special_tokens: bool,
    ) -> list[TextPrompt]:
        """The prompts of a request that are one or several, each text or tokens. Raises RequestError."""
        several = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        texts = [text for text in several if isinstance(text, str)]
        if not texts:
            return [TextPrompt(cast(Sequence[int], tokens)) for tokens in several]
        for text in texts:
            self.check_length(text)
        return await self.of_texts(texts, add_special_tokens=add_special_tokens)

    async def of_texts(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[TextPrompt]:
        """One prompt a text."""

        def encode() -> list[TextPrompt]:
            special = add_special_tokens
            return [TextPrompt(self._reader.encode(text, add_special_tokens=special), text) for text in texts]

        if sum(map(len, texts)) < LONG:
            return await asyncio.to_thread(encode)
        async with self._long:
            prompts = await asyncio.to_thread(encode)
            await asyncio.to_thread(release_freed)  # the threads' heaps would keep it
            return prompts

    async def of_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> TextPrompt:
        """A conversation as the model's template lays it out. Raises RequestError where it does not."""
        if self._tokenizer.chat_template is None:
            raise RequestError("the model has no chat template; use /v1/completions")

        def lay_out() -> str:
            return self._reader.lay_out(
                messages,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs,
            )

        async with self._layouts:
            text = await asyncio.to_thread(lay_out)
        (prompt,) = await self.of_texts([text], add_special_tokens=False)  # the template has written them
        return prompt

    def check_length(self, text: str) -> None:
        """Raise RequestError for a text that is too long, as `PromptReader.check_length` does."""
        self._reader.check_length(text)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Special tokens included. Raises RequestError for a token id that the model does not have."""
        for token in tokens:
            if token >= self._vocab_size:
                last = self._vocab_size - 1
                raise RequestError(f"tokens holds token id {token}; the model's ids are 0 to {last}")
        return self._tokenizer.decode(tokens)

    def pieces_of(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return [self._tokenizer.decode([token]) for token in tokens]

    def names_of(self, tokens: Sequence[int]) -> list[str]:
        """Each token as the vocabulary writes it."""
        return [self._tokenizer.id_to_token(token) or "" for token in tokens]
