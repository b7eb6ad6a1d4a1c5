"""Qwen3-Coder's form, in which text stands as it is.

<tool_call>
<function=get_weather>
<parameter=city>
Paris
</parameter>
</function>
</tool_call>
"""

from __future__ import annotations

import json

from outrider.serving.parsing.events import CallArguments
from outrider.serving.parsing.format import Function, ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Malformed, Reader, Steps
from outrider.serving.parsing.schema import ValueSchema, in_order

BEGIN, END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "\n</function>\n"
PARAMETER, VALUE_END = "\n<parameter=", "\n</parameter>"


class Qwen3Coder(ToolFormat):
    begins = (BEGIN,)
    tokens = (BEGIN, END)

    def is_of(self, template: str) -> bool:
        return BEGIN in template and FUNCTION in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        call = lark.one_of(self._call(lark, function) for function in use.functions)
        return f"{call} ({lark.literal(chr(10) + BEGIN)} {call})*" if use.many else call

    def _call(self, lark: Lark, function: Function) -> str:
        schema = ValueSchema.of(function)
        parameters = {
            name: f"{lark.literal(f'{PARAMETER}{name}>' + chr(10))} {self._value(lark, value, function)}"
            for name, value in schema.properties.items()
        }
        begin = lark.literal(f"\n{FUNCTION}{function.name}>")
        return f"{begin} {in_order(lark, parameters, schema.required)} {lark.literal(FUNCTION_END + END)}"

    def _value(self, lark: Lark, value: ValueSchema, function: Function) -> str:
        """A value, and what ends it."""
        if value.type != "string":
            return f"{value.as_json(lark, lenient=not function.strict)} {lark.literal(VALUE_END)}"
        if value.values is not None:
            return lark.one_of(lark.literal(_plain(each) + VALUE_END) for each in value.values)
        return value.text_through(lark, VALUE_END)

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(BEGIN)
        yield from reader.skip_space()
        yield from reader.expect(FUNCTION)
        name, _ = yield from reader.through(">")
        function = next((f for f in use.functions if f.name == name), None)
        if function is None:
            raise Malformed
        schema = ValueSchema.of(function).properties
        index = yield from reader.begin_call(name)
        yield CallArguments(index, "{")
        between = ""
        yield from reader.skip_space()
        while (yield from reader.expect("<parameter=", "</function>")) != "</function>":
            key, _ = yield from reader.through(">")
            yield from reader.begins("\n")
            text, _ = yield from reader.through(VALUE_END)
            value = _as_json(text, schema.get(key))
            yield CallArguments(index, f"{between}{json.dumps(key, ensure_ascii=False)}: {value}")
            between = ", "
            yield from reader.skip_space()
        yield CallArguments(index, "}")
        yield from reader.skip_space()
        yield from reader.close(END)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_json(text: str, schema: ValueSchema | None) -> str:
    """The JSON text of a parameter. What is no JSON is a text, whatever the schema says."""
    if schema is not None and schema.type == "string" and not (schema.nullable and text == "null"):
        return json.dumps(text, ensure_ascii=False)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text
