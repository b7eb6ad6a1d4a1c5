"""A conversation as the text that a model reads, laid out by the model's chat template.

A template is a program that came with the model. It runs in a worker process, with limits of time, of memory
and of what it may write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from outrider.errors import RequestError
from outrider.sandbox.workers import Refused, Task, Workers, task_file

SECONDS = 2.0
"""Of processor time for one conversation. SmolLM2's template lays out 10,000 messages in 0.1 s."""
MEMORY = 256 << 20
AT_ONCE = 2
LENGTH = 1 << 20
"""Characters that a template may write itself, besides what the messages say."""
REPEATED = 4
"""How often it may write what the messages say."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""What clients call an assistant's reasoning. Templates read the first name, and gpt-oss's the second."""


@dataclass(frozen=True)
class ChatTemplate:
    """source: of a Jinja template; special_tokens: what it knows of the tokenizer, `bos_token` and so on."""

    source: str
    special_tokens: Mapping[str, str]

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        """The text of a conversation, with all special tokens. Raises RequestError where there is none.

        messages: each has a `role` and a `content`, which is text or a list of OpenAI's text parts; only an
        assistant's may be null, and is then left out for the template. What else a message has is passed on.
        """
        conversation = as_conversation(messages)
        variables = {
            "messages": conversation,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self.special_tokens,
        }
        limit = LENGTH + REPEATED * sum(len(message.get("content", "")) for message in conversation)
        try:
            return str(_workers(self.source).ask({"variables": variables, "limit": limit}))
        except Refused as refused:
            reason = f"the model's chat template cannot lay out these messages: {refused}"
            raise RequestError(reason) from None


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
