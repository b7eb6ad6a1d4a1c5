"""Hermes' form, which Qwen and many others have, and which models without any are told.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

from __future__ import annotations

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.json_calls import object_of, read_object
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps

BEGIN, END = "<tool_call>", "</tool_call>"


class Hermes(ToolFormat):
    begins = (BEGIN,)
    tokens = (BEGIN, END)

    def is_of(self, template: str) -> bool:
        return BEGIN in template and "<function=" not in template and "<arg_key>" not in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        call = lark.one_of(object_of(lark, function) for function in use.functions)
        rest = lark.rule(f"{lark.literal(chr(10))} {call} {lark.literal(chr(10) + END)}")
        return f"{rest} ({lark.literal(chr(10) + BEGIN)} {rest})*" if use.many else rest

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(BEGIN)
        yield from reader.skip_space()
        yield from read_object(reader)
        yield from reader.skip_space()
        yield from reader.close(END)
