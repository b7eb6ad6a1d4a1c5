"""Prompts as callers give them, and the tokens that the model reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from outrider.aside import aside
from outrider.errors import RequestError
from outrider.messages import shown
from outrider.models.characters import bound_of
from outrider.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or vLLM's `{"prompt": text}` and `{"prompt_token_ids": ids}`."""
Message = Mapping[str, Any]
"""OpenAI's: a `role` and a `content`."""
KEYS = ({"prompt"}, {"prompt_token_ids"}, {"prompt", "prompt_token_ids"})


class ChatLayout(TypedDict, total=False):
    """How a conversation is laid out; `LLM.chat_text` says what each means."""

    add_generation_prompt: bool
    continue_final_message: bool
    tools: Sequence[Mapping[str, Any]] | None
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None


class PromptReader:
    """Turns texts and conversations into token ids of a target. Threads may share it.

    max_model_len: tokens of a prompt and its output.
    """

    def __init__(self, tokenizer: Tokenizer, max_model_len: int) -> None:
        self.tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._bound = aside(lambda: bound_of(tokenizer.backend))  # wanted by the first text
        self._warned_of_bos = False

    def read(self, prompt: Prompt, last: int | None = None) -> tuple[Sequence[int], str | None]:
        """The prompt's token ids, and its text if it was given as text. Raises RequestError.

        last: how many tokens are read, from the end; None: all, and a text that has too many is refused
        before it is tokenized.
        """
        ids, text = self._whole(prompt, check=last is None)
        return ids if last is None else ids[-last:], text

    def _whole(self, prompt: Prompt, *, check: bool) -> tuple[Sequence[int], str | None]:
        given: object = prompt
        text = None
        if isinstance(prompt, Mapping):
            there = {key: value for key, value in prompt.items() if value is not None}
            if there.keys() not in KEYS:
                raise RequestError(
                    f"a prompt has the keys {sorted(there)}; give 'prompt' or 'prompt_token_ids'"
                )
            text = there.get("prompt")
            given = there.get("prompt_token_ids", text)
        if isinstance(given, str):
            if check:
                self.check_length(given)
            try:
                return self.encode(given), given
            except TypeError:
                raise RequestError("the prompt holds half of a surrogate pair; give the whole") from None
        if not hasattr(given, "__len__"):
            raise RequestError(f"a prompt is {shown(given)}; give text, a list of token ids, or a mapping")
        return cast(Sequence[int], given), text

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, as the model reads a prompt."""
        ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        bos = self.tokenizer.bos_token_id
        if add_special_tokens and bos is not None and ids[:2] == [bos, bos] and not self._warned_of_bos:
            self._warned_of_bos = True
            logger.warning(
                "a prompt begins with %r and the tokenizer adds another one, which few models are used to; "
                "leave it out of the text, or use `chat`",
                self.tokenizer.bos_token,
            )
        return ids

    def check_length(self, text: str) -> None:
        """Raise RequestError for a text of more characters than the tokens of a prompt can hold. That costs
        nothing, and tokenizing megabytes takes seconds."""
        limit = self._max_model_len
        bound = self._bound.result()
        if bound is not None and bound.excludes(text, limit - 1):
            raise RequestError(
                f"the prompt has {len(text)} characters, and no token more than {bound.longest}: with "
                f"max_model_len = {limit} it can have {limit - 1} tokens at most, and one is generated"
            )

    def lay_out(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """What `Tokenizer.lay_out` makes of a conversation. Raises what that does, and RequestError for a
        text that is too long."""
        text = self.tokenizer.lay_out(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            chat_template=chat_template,
            variables=chat_template_kwargs or {},
        )
        self.check_length(text)
        return text


def as_conversations(
    messages: Sequence[Message] | Sequence[Sequence[Message]],
) -> Sequence[Sequence[Message]]:
    """A list that begins with a list is several conversations."""
    several = isinstance(messages, Sequence) and messages and isinstance(messages[0], Sequence)
    return cast(Sequence[Sequence[Message]], messages if several else [messages])


def as_batch(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A non-empty sequence of integers is one prompt of token ids."""
    if isinstance(prompts, (str, Mapping)) or (prompts and isinstance(prompts[0], int)):
        return [cast(Prompt, prompts)]
    return list(cast(Sequence[Prompt], prompts))
