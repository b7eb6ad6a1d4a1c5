"""Phi-4-mini's form.

functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]
"""

from __future__ import annotations

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.json_calls import list_of, read_list
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps

BEGIN = "functools["


class Phi4Mini(ToolFormat):
    begins = (BEGIN,)

    def is_of(self, template: str) -> bool:
        return "functools" in template or "<|tool|>" in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        return list_of(lark, use, begun="[")

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect("functools")
        yield from read_list(reader)
