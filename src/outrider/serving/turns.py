"""From a request of a chat to what the engine is asked, and to how its answer is read."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from outrider.engine.generation import TextPrompt
from outrider.errors import ConfigError
from outrider.llm import LLM
from outrider.models.tool_layout import in_text
from outrider.params import SamplingParams, StructuredOutputs
from outrider.serving.answers import plain_text
from outrider.serving.parsing.dialect import Dialect, Expected
from outrider.serving.parsing.events import Parser
from outrider.serving.parsing.format import ToolFormat
from outrider.serving.parsing.lark import Lark, ToolGrammar
from outrider.serving.parsing.reader import Reader, TextParser
from outrider.serving.parsing.registry import FALLBACK, dialect_of, format_of
from outrider.serving.prompts import Prompts
from outrider.serving.requests import ChatRequest
from outrider.serving.settings import ServerConfig
from outrider.serving.tools import tool_use

logger = logging.getLogger(__name__)

ID_LENGTH = 24


@dataclass(frozen=True)
class Turn:
    """What the engine is asked for an assistant's next message, and what reads the sequences of it."""

    prompt: TextPrompt
    params: SamplingParams
    parser: Callable[[int, bool], Parser] = plain_text


class Turns:
    """Makes the turns of one model.

    Raises ConfigError for parsers of the configuration that are not known, or do not fit the model.
    """

    def __init__(self, llm: LLM, config: ServerConfig, prompts: Prompts) -> None:
        self._llm = llm
        self._prompts = prompts
        template = llm.tokenizer.chat_template
        source = "" if template is None else template.source
        self._form: ToolFormat | None = format_of(source, config.tool_call_parser)
        self._dialect: Dialect = dialect_of(source, self._form or FALLBACK, config.reasoning_parser)
        added = llm.tokenizer.backend.get_added_tokens_decoder()
        self._added = {token.content: number for number, token in added.items()}
        self._special = frozenset(token.content for token in added.values() if token.special)

    async def of(self, body: ChatRequest, request_id: str) -> Turn:
        """Raises what a request is refused with."""
        params = body.sampling_params()
        use = tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
        if use is not None and params.ignore_eos:
            raise ConfigError(
                "ignore_eos = true with tools: a call ends with EOS; leave one out", "ignore_eos"
            )
        prompt = await self._lay_out(body)
        expected = Expected(use, self._dialect.state(prompt.text or ""))
        params = self._bound(params, expected)
        if self._dialect.is_plain(expected):
            return Turn(prompt, params)
        noise: frozenset[str] = frozenset()
        shown = self._special.intersection(self._dialect.shown(expected))
        if shown and params.skip_special_tokens:
            params = params.model_copy(update={"skip_special_tokens": False})
            noise = self._special - shown
        # The same request has the same ids if it is seeded, and no other one has them.
        key = f"{request_id if params.seed is None else params.seed} {list(prompt.token_ids)}"
        return Turn(prompt, params, partial(self._parser, expected, noise, key))

    async def _lay_out(self, body: ChatRequest) -> TextPrompt:
        variables = dict(body.chat_template_kwargs or {})
        if body.reasoning_effort is not None:
            if not self._reads("reasoning_effort"):
                raise ConfigError(
                    "reasoning_effort is not known to the model's chat template; leave it out",
                    "reasoning_effort",
                )
            variables["reasoning_effort"] = body.reasoning_effort
        tools = [tool.for_template() for tool in body.tools or ()] or None
        messages = _named([m.for_template(f"messages[{n}]") for n, m in enumerate(body.messages)])
        if self._lays_out_tools:
            messages = [self._dialect.tools.for_template(message) for message in messages]
        else:
            messages, tools = in_text(messages, tools or ()), None
        return await self._prompts.of_chat(messages, tools=tools, chat_template_kwargs=variables)

    def _reads(self, variable: str) -> bool:
        template = self._llm.tokenizer.chat_template
        return template is not None and variable in template.variables

    @cached_property
    def _lays_out_tools(self) -> bool:
        """Whether the model's template does, in a form that is known."""
        if self._form is not None and self._reads("tools"):
            return True
        logger.warning(
            "the model's chat template %s; tools are described in the system message, in Hermes' form",
            "lays out no tools" if not self._reads("tools") else "has no form of calls that is known",
        )
        return False

    def _bound(self, params: SamplingParams, expected: Expected) -> SamplingParams:
        """The parameters with a grammar for all that the answer may be, where it is not free."""
        wanted = params.structured_outputs
        if expected.use is None and (wanted is None or self._dialect.is_plain(expected)):
            return params
        lark = Lark(self._added)
        answer = None if wanted is None else lark.answer(wanted)
        if wanted is not None and answer is None:
            if expected.use is None:
                return params
            raise ConfigError(
                "structured_outputs.grammar with tools: a grammar leaves no room for calls; leave one out",
                "structured_outputs",
            )
        text = lark.grammar(self._dialect.start(lark, expected, answer))
        kind = StructuredOutputs if expected.use is None else ToolGrammar
        return params.model_copy(update={"structured_outputs": kind(grammar=text)})

    def _parser(self, expected: Expected, noise: frozenset[str], key: str, index: int, whole: bool) -> Parser:
        use = expected.calls
        names = [] if use is None else [function.name for function in use.functions]
        reader = Reader(names, lambda call: _call_id(f"{key} {index} {call}"), whole=whole, noise=noise)
        return TextParser(reader, lambda reader: self._dialect.read(reader, expected))


def _call_id(key: str) -> str:
    return f"call_{hashlib.sha256(key.encode()).hexdigest()[:ID_LENGTH]}"


def _named(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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
