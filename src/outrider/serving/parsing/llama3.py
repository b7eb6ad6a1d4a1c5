"""Llama 3's form: the whole answer is a call.

    {"name": "get_weather", "parameters": {"city": "Paris"}}

Llama 3.1 may write a token `<|python_tag|>` before it. Several calls are separated by semicolons.
"""

from __future__ import annotations

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.json_calls import object_of, read_object
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps

TAG = "<|python_tag|>"
BEGIN = '{"name": '


class Llama3Json(ToolFormat):
    begins = (BEGIN, TAG)
    anywhere = False
    tokens = (TAG,)

    def is_of(self, template: str) -> bool:
        return '"parameters": ' in template and ("<|start_header_id|>" in template or TAG in template)

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        begun = BEGIN if mark == BEGIN else ""
        first = lark.one_of(object_of(lark, f, "parameters", begun=begun) for f in use.functions)
        call = lark.one_of(object_of(lark, function, "parameters") for function in use.functions)
        return f"{first} ({lark.literal('; ')} {call})*" if use.many else first

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.begins(TAG)
        more = True
        while more:
            yield from reader.skip_space()
            yield from read_object(reader)
            yield from reader.skip_space()
            more = (yield from reader.begins(";")) is not None
