"""Gemma's forms, in which strings stand between marks as they are.

<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>
<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>
"""

from __future__ import annotations

import json

from outrider.serving.parsing.events import CallArguments
from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Malformed, Reader, Steps
from outrider.serving.parsing.schema import DEEPEST, ValueSchema, in_order


class FunctionGemma(ToolFormat):
    begin, end, quote = "<start_function_call>", "<end_function_call>", "<escape>"
    begins = (begin,)
    tokens = (begin, end, quote)

    def is_of(self, template: str) -> bool:
        return self.begin in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        call = lark.one_of(
            f"{lark.literal(f'call:{function.name}')} {self._object(lark, ValueSchema.of(function))} "
            f"{lark.literal(self.end)}"
            for function in use.functions
        )
        return f"{call} ({lark.literal(self.begin)} {call})*" if use.many else call

    def _value(self, lark: Lark, schema: ValueSchema) -> str:
        quote = lark.literal(self.quote)
        if schema.values is not None:
            return lark.one_of(lark.literal(self._written(each)) for each in schema.values)
        null = [lark.literal("null")] if schema.nullable else []
        match schema.type:
            case "string":
                return lark.one_of([f"{quote} {schema.text_through(lark, self.quote)}", *null])
            case "object" if schema.properties and schema.depth < DEEPEST:
                return lark.one_of([self._object(lark, schema), *null])
            case "array" if schema.depth < DEEPEST:
                item = self._value(lark, schema.items)
                items = f"({item} ({lark.literal(',')} {item})*)?"
                return lark.one_of([f"{lark.literal('[')} {items} {lark.literal(']')}", *null])
            case "integer" | "number" | "boolean" | "null":
                return schema.as_json(lark, lenient=True)
            case _:
                return self._any(lark)

    def _object(self, lark: Lark, schema: ValueSchema) -> str:
        pairs = {
            name: f"{lark.literal(f'{name}:')} {self._value(lark, value)}"
            for name, value in sorted(schema.properties.items())  # as the templates have them
        }
        return f"{lark.literal('{')} {in_order(lark, pairs, schema.required, ',')} {lark.literal('}')}"

    def _any(self, lark: Lark) -> str:
        """A value without a schema: a text, a number or a word of JSON's."""
        quote = lark.literal(self.quote)
        plain = lark.json({"type": ["number", "boolean", "null"]})
        return lark.one_of([f"{quote} {lark.text_through(self.quote)}", plain])

    def _written(self, value: object) -> str:
        if isinstance(value, str):
            return f"{self.quote}{value}{self.quote}"
        return json.dumps(value, ensure_ascii=False)

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(self.begin)
        yield from reader.expect("call:")
        name, _ = yield from reader.through("{")
        index = yield from reader.begin_call(name)
        yield from self._read_object(reader, index)
        yield from reader.close(self.end)

    def _read_object(self, reader: Reader, index: int) -> Steps[None]:
        """Read the rest of an object."""
        yield CallArguments(index, "{")
        between = ""
        while (yield from reader.begins("}")) is None:
            if between:
                yield from reader.expect(",")
            key, _ = yield from reader.through(":")
            yield CallArguments(index, f"{between}{json.dumps(key, ensure_ascii=False)}: ")
            yield from self._read_value(reader, index)
            between = ", "
        yield CallArguments(index, "}")

    def _read_value(self, reader: Reader, index: int) -> Steps[None]:
        begun = yield from reader.begins(self.quote, "{", "[")
        if begun == self.quote:
            text, _ = yield from reader.through(self.quote)
            yield CallArguments(index, json.dumps(text, ensure_ascii=False))
        elif begun == "{":
            yield from self._read_object(reader, index)
        elif begun == "[":
            yield CallArguments(index, "[")
            between = ""
            while (yield from reader.begins("]")) is None:
                if between:
                    yield from reader.expect(",")
                    yield CallArguments(index, ", ")
                yield from self._read_value(reader, index)
                between = ", "
            yield CallArguments(index, "]")
        else:
            word = yield from reader.before(",", "}", "]")
            try:
                json.loads(word)
            except ValueError:
                raise Malformed from None
            yield CallArguments(index, word)


class Gemma4(FunctionGemma):
    begin, end, quote = "<|tool_call>", "<tool_call|>", '<|"|>'
    begins = (begin,)
    tokens = (begin, end, quote)
