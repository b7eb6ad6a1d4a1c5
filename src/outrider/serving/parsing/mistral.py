"""Mistral's forms: a list of calls, or, of younger models, a name and arguments for each.

[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
"""

from __future__ import annotations

import hashlib
from typing import Any

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.json_calls import list_of, read_list
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Malformed, Reader, Steps

BEGIN, ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
ID_LENGTH = 9


class Mistral(ToolFormat):
    begins = (BEGIN,)
    tokens = (BEGIN, ARGUMENTS)

    def is_of(self, template: str) -> bool:
        return BEGIN in template and ARGUMENTS not in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        return f"{lark.literal(' ')}? {list_of(lark, use)}"

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(BEGIN)
        yield from reader.skip_space()
        yield from read_list(reader)

    def for_template(self, message: dict[str, Any]) -> dict[str, Any]:
        """The templates refuse ids that are not of nine letters and digits."""
        if "tool_call_id" in message:
            message = message | {"tool_call_id": _short(message["tool_call_id"])}
        if "tool_calls" in message:
            calls = [call | {"id": _short(call["id"])} for call in message["tool_calls"]]
            message = message | {"tool_calls": calls}
        return message


class MistralNamed(Mistral):
    def is_of(self, template: str) -> bool:
        return BEGIN in template and ARGUMENTS in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        call = lark.one_of(
            f"{lark.literal(function.name + ARGUMENTS)} {lark.arguments(function)}"
            for function in use.functions
        )
        return f"{call} ({lark.literal(BEGIN)} {call})*" if use.many else call

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(BEGIN)
        name, mark = yield from reader.through(ARGUMENTS, "{")
        if mark != ARGUMENTS:
            raise Malformed
        yield from reader.arguments((yield from reader.begin_call(name)))


def _short(call_id: str) -> str:
    """The same id for the same one, in the form that the templates take."""
    if len(call_id) == ID_LENGTH and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:ID_LENGTH]
