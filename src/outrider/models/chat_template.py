"""A conversation as the text that a model reads, laid out by the model's chat template.

A template is a program that came with the model. It runs in a worker process, with limits of time, of memory
and of what it may write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from outrider.errors import ConfigError, RequestError
from outrider.models.tool_layout import in_text
from outrider.sandbox.workers import Refused, Task, Workers, task_file

SECONDS = 2.0
"""Of processor time for one conversation. SmolLM2's template lays out 10,000 messages in 0.1 s."""
MEMORY = 256 << 20
AT_ONCE = 2
LENGTH = 1 << 20
"""Characters that a template may write itself, besides what the messages say."""
REPEATED = 4
"""How often it may write what the messages say."""

OURS = ("messages", "tools", "add_generation_prompt")
"""Variables that are not among those that a caller may add."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""What clients call an assistant's reasoning. Templates read the first name, and gpt-oss's the second."""


def read_template(given: str) -> str:
    """The source of a template that is given by a file's name, or as it is. Raises ConfigError."""
    if "{" in given or "\n" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"chat_template = {given!r} cannot be read: {reason}; give a file, or a template itself"
        ) from None


@dataclass(frozen=True)
class ChatTemplate:
    """source: of a Jinja template; special_tokens: what it knows of the tokenizer, `bos_token` and so on."""

    source: str
    special_tokens: Mapping[str, str]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The text of a conversation, with all special tokens. Raises RequestError where there is none.

        messages: each has a `role` and a `content`, which is text or a list of OpenAI's text parts; only an
        assistant's may be null, and is then left out for the template. What else a message has is passed on.
        tools: in OpenAI's form, None for none; a template that lays out none gets them, and calls and their
        results, as text (`outrider.models.tool_layout`). variables: more of them, of JSON's types; one that
        the template does not read changes nothing.
        """
        if tools and "tools" not in self.variables:
            messages, tools = in_text(as_conversation(messages), _as_tools(tools)), None
        conversation = as_conversation(messages)
        offered = None if tools is None else _as_tools(tools)
        given = {
            **self.special_tokens,
            "documents": None,
            **_as_variables(variables),
            "messages": conversation,
            "tools": offered,
            "add_generation_prompt": add_generation_prompt,
        }
        told = [*(message.get("content", "") for message in conversation)]
        told += [json.dumps(calls) for message in conversation if (calls := message.get("tool_calls"))]
        told += [json.dumps(tool) for tool in offered or ()]
        limit = LENGTH + REPEATED * sum(map(len, told))
        try:
            return str(_workers(self.source).ask({"variables": given, "limit": limit}))
        except Refused as refused:
            reason = f"the model's chat template cannot lay out these messages: {refused}"
            raise RequestError(reason) from None

    @property
    def variables(self) -> frozenset[str]:
        """The names that the template reads, `messages`, `tools` and so on; none where it cannot be read."""
        return _variables(self.source)


@lru_cache(maxsize=4)
def _variables(source: str) -> frozenset[str]:
    try:
        return frozenset(_workers(source).ask({"variables": None}))
    except Refused:
        return frozenset()


@lru_cache(maxsize=4)
def _workers(source: str) -> Workers:
    return Workers(lambda: Task(task_file("template_task"), source, SECONDS, MEMORY), count=AT_ONCE)


def as_conversation(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as chat templates know them. Raises RequestError, which names the message."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise RequestError(f"a conversation is a list of messages, not {_kind(messages)}")
    if not messages:
        raise RequestError("the conversation is empty; give at least one message")
    return [_as_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _as_tools(tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise RequestError(f"tools is {_kind(tools)}; give a list of tools in OpenAI's form")
    try:
        return [_plain(tool, f"tools[{number}]") for number, tool in enumerate(tools)]
    except RecursionError:
        raise RequestError("tools is nested too deeply") from None


def _as_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(variables, Mapping):
        raise RequestError(f"chat_template_kwargs is {_kind(variables)}; give variables by name")
    for name in OURS:
        if name in variables:
            raise RequestError(f"chat_template_kwargs has {name!r}, which has an argument of its own")
    try:
        return {str(name): _plain(value, f"chat_template_kwargs.{name}") for name, value in variables.items()}
    except RecursionError:
        raise RequestError("chat_template_kwargs is nested too deeply") from None


def _as_message(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(f"{name} is {_kind(message)}; give a mapping with role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        given = "is missing" if role is None else f"= {role!r}"
        raise RequestError(f"{name}.role {given}; give a name, such as 'user'")
    content = _as_text(message.get("content"), f"{name}.content")
    if content is None and role != "assistant":
        raise RequestError(f"{name}.content is null; only an assistant's may be, give text")
    # The younger name for a system message is OpenAI's, and no template's.
    known = {"role": "system" if role == "developer" else role}
    if content is not None:
        known["content"] = content
    others = {key for key, value in message.items() if value is not None} - {"role", "content"}
    try:
        known |= {str(key): _plain(message[key], f"{name}.{key}") for key in others}
    except RecursionError:
        raise RequestError(f"{name} is nested too deeply") from None
    thought = [known[key] for key in REASONING if key in known]
    return {"thinking": thought[0]} | known | {"reasoning_content": thought[0]} if thought else known


def _as_text(content: Any, name: str) -> str | None:
    if isinstance(content, str) or content is None:
        return None if content is None else _whole(content, name)
    if isinstance(content, Mapping) or not isinstance(content, Sequence):
        raise RequestError(f"{name} is {_kind(content)}; give text, or a list of parts of the type 'text'")
    return "".join(_part(part, f"{name}[{number}]") for number, part in enumerate(content))


def _part(part: Any, name: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        what = f"has the type {kind!r}" if kind not in (None, "text") else "has no type 'text' with a text"
        raise RequestError(f"{name} {what}; only parts {{'type': 'text', 'text': ...}} can be read")
    return _whole(part["text"], name)


def _plain(value: Any, name: str) -> Any:
    """A value in JSON's types alone: a template calls what it is given."""
    match value:
        case str():
            return _whole(value, name)
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case Mapping():
            return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
        case Sequence():
            return [_plain(item, f"{name}[{number}]") for number, item in enumerate(value)]
        case _:
            raise RequestError(f"{name} is {_kind(value)}; give what JSON can hold")


def _whole(text: str, name: str) -> str:
    """Half of a surrogate pair is no text that a tokenizer could read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{name}: character {error.start} is half of a surrogate pair") from None
    return str(text)


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
