"""From a request of a chat to what the engine is asked, and to how its answer is read."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from outrider.engine.generation import TextPrompt
from outrider.errors import ConfigError
from outrider.models.tokenizer import Tokenizer
from outrider.models.tool_layout import in_text
from outrider.params import SamplingParams
from outrider.serving.answers import plain_text
from outrider.serving.parsing.dialect import Dialect, Expected
from outrider.serving.parsing.events import Parser
from outrider.serving.parsing.lark import AnswerGrammar, Lark
from outrider.serving.parsing.reader import Reader, TextParser
from outrider.serving.parsing.registry import FALLBACK, dialect_of, format_of
from outrider.serving.prompts import Prompts
from outrider.serving.requests import ChatRequest, TokenizeRequest
from outrider.serving.settings import ServerConfig
from outrider.serving.tools import tool_use

logger = logging.getLogger(__name__)

ID_LENGTH = 24
Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Turn:
    """What the engine is asked for an assistant's next message, and what reads the sequences of it."""

    prompt: TextPrompt
    params: SamplingParams
    parser: Callable[[int, bool], Parser] = plain_text


class Turns:
    """Makes the turns of one model. defaults: of sampling, by the names of SamplingParams.

    Raises ConfigError for parsers of the configuration that are not known, or do not fit the model.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: ServerConfig, prompts: Prompts, defaults: Mapping[str, Any]
    ) -> None:
        self._prompts = prompts
        self._defaults = defaults
        self._config = config
        self._defaults = defaults
        self._template = tokenizer.chat_template
        self._source = "" if self._template is None else self._template.source
        self._form = format_of(self._source, config.tool_call_parser)
        self._plain = dialect_of(self._source, self._form or FALLBACK, config.reasoning_parser)
        added = tokenizer.backend.get_added_tokens_decoder()
        self._added = {token.content: number for number, token in added.items()}
        self._special = frozenset(token.content for token in added.values() if token.special)

    async def of(self, body: ChatRequest, request_id: str) -> Turn:
        """Raises what a request is refused with."""
        params = body.sampling_params(self._defaults)
        use = tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
        if use is not None and params.ignore_eos:
            raise ConfigError(
                "ignore_eos = true with tools: a call ends with EOS; leave one out", "ignore_eos"
            )
        prompt = await self.lay_out(body)
        # Whoever has tools has asked for the form in which they are laid out.
        dialect = self._plain if use is None else self._with_tools
        lark = Lark(self._added)
        wanted = params.structured_outputs
        answer = None if wanted is None else lark.answer(wanted)
        if wanted is not None and answer is None:
            if use is not None:
                raise ConfigError(
                    "structured_outputs.grammar with tools: it leaves no room for calls; leave one out",
                    "structured_outputs",
                )
            return Turn(prompt, params)  # all of the answer is the client's
        expected = Expected(use, dialect.state(prompt.text or ""))
        if use is not None or (wanted is not None and not dialect.is_plain(expected)):
            text = lark.grammar(dialect.start(lark, expected, answer))
            name = "tools" if wanted is None or use is not None else wanted.name
            params = params.model_copy(update={"structured_outputs": AnswerGrammar.of(text, name)})
        if dialect.is_plain(expected):
            return Turn(prompt, params)
        noise: frozenset[str] = frozenset()
        shown = self._special.intersection(dialect.shown(expected))
        if shown and params.skip_special_tokens:
            params = params.model_copy(update={"skip_special_tokens": False})
            noise = self._special - shown
        # The same request has the same ids if it is seeded, and no other one has them.
        key = _digest(f"{request_id if params.seed is None else params.seed} {list(prompt.token_ids)}")
        return Turn(prompt, params, partial(_parser, dialect, expected, noise, key))

    async def lay_out(
        self, body: ChatRequest | TokenizeRequest, *, add_generation_prompt: bool = True
    ) -> TextPrompt:
        """The prompt of a conversation. Raises what a request is refused with."""
        messages = [message.for_template(f"messages[{n}]") for n, message in enumerate(body.messages or ())]
        tools = [tool.for_template() for tool in body.tools or ()] or None
        variables = dict(body.chat_template_kwargs or {})
        if tools or any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            messages, tools = await asyncio.to_thread(self._tools_laid_out, _named(messages), tools)
        if body.reasoning_effort is not None:
            if not await asyncio.to_thread(self._reads, "reasoning_effort"):
                raise ConfigError(
                    "reasoning_effort is not known to the model's chat template; leave it out",
                    "reasoning_effort",
                )
            variables["reasoning_effort"] = body.reasoning_effort
        return await self._prompts.of_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            chat_template_kwargs=variables,
        )

    def _tools_laid_out(
        self, messages: Conversation, tools: Conversation | None
    ) -> tuple[Conversation, Conversation | None]:
        """The messages and the tools that the model's template is given."""
        form = self._with_tools.tools
        if self._is_native:
            return [form.for_template(message) for message in messages], tools
        return in_text(messages, tools or ()), None

    def _reads(self, variable: str) -> bool:
        """Whether the chat template does. It is asked in a process, for which the loop should not wait."""
        return self._template is not None and variable in self._template.variables

    @cached_property
    def _is_native(self) -> bool:
        """Whether the model's template lays tools out, in a form that is known."""
        return self._form is not None and self._reads("tools")

    @cached_property
    def _with_tools(self) -> Dialect:
        """How the model answers where it has tools."""
        if self._is_native:
            return self._plain
        if self._form is not FALLBACK and self._config.tool_call_parser is not None:
            raise ConfigError(
                f"tool_call_parser = {self._config.tool_call_parser!r} needs a chat template that lays out "
                "tools, which the model's does not; leave it out, or give another template"
            )
        logger.warning(
            "the model's chat template lays out no tools, or in no form that is known; they are described "
            "in the system message, in Hermes' form"
        )
        return dialect_of(self._source, FALLBACK, self._config.reasoning_parser)


def _parser(
    dialect: Dialect, expected: Expected, noise: frozenset[str], key: str, index: int, whole: bool
) -> Parser:
    use = expected.calls
    names = [] if use is None else [function.name for function in use.functions]
    reader = Reader(names, lambda call: _call_id(f"{key} {index} {call}"), whole=whole, noise=noise)
    return TextParser(reader, lambda reader: dialect.read(reader, expected))


def _call_id(key: str) -> str:
    return f"call_{_digest(key)[:ID_LENGTH]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _named(messages: Conversation) -> Conversation:
    """The messages, with the names of the tools whose results they are, which some templates write."""
    names = {
        call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", ())
    }
    return [
        {"name": names[message["tool_call_id"]]} | message
        if message.get("tool_call_id") in names
        else message
        for message in messages
    ]
