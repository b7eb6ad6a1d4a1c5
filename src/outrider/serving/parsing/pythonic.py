"""Calls as a list in Python, of Llama 3.2 and Llama 4.

    [get_weather(city="Paris", days=3)]

Llama 4 may write it between `<|python_start|>` and `<|python_end|>`.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from outrider.serving.parsing.events import CallArguments
from outrider.serving.parsing.format import Function, ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Malformed, Reader, Steps
from outrider.serving.parsing.schema import ValueSchema, in_order

START, END = "<|python_start|>", "<|python_end|>"
WORDS = {"true": True, "false": False, "null": None}


class Pythonic(ToolFormat):
    anywhere = False

    def is_of(self, template: str) -> bool:
        return "func_name1(" in template or "func_name(" in template

    def marks(self, use: ToolUse) -> tuple[str, ...]:
        return tuple(f"[{function.name}(" for function in use.functions)

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        first = next(f for f in use.functions if mark.endswith(f"[{f.name}("))
        call = lark.one_of(
            f"{lark.literal(f'{function.name}(')} {self._arguments(lark, function)}"
            for function in use.functions
        )
        more = f"({lark.literal(', ')} {call})*" if use.many else ""
        return f"{self._arguments(lark, first)} {more} {lark.literal(']')}"

    def _arguments(self, lark: Lark, function: Function) -> str:
        schema = ValueSchema.of(function)
        pairs = {
            name: f"{lark.literal(f'{name}=')} {self._value(lark, value, function)}"
            for name, value in schema.properties.items()
        }
        return f"{in_order(lark, pairs, schema.required, ', ')} {lark.literal(')')}"

    def _value(self, lark: Lark, value: ValueSchema, function: Function) -> str:
        """As Python writes it; what is inside of lists and dictionaries is as JSON writes it."""
        if value.values is not None:
            return lark.one_of(lark.literal(_python(each)) for each in value.values)
        null = [lark.literal("None")] if value.nullable else []
        if value.type == "boolean":
            return lark.one_of([lark.literal("True"), lark.literal("False"), *null])
        return value.as_json(lark, lenient=not function.strict)

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        more = (yield from reader.expect("[")) is not None
        while more:
            yield from reader.skip_space()
            name, _ = yield from reader.through("(")
            text = yield from self._one(reader)
            index = yield from reader.begin_call(name)
            yield CallArguments(index, json.dumps(_arguments_of(text), ensure_ascii=False))
            yield from reader.skip_space()
            more = (yield from reader.begins(",")) is not None
        yield from reader.close("]")

    def _one(self, reader: Reader) -> Steps[str]:
        """The text of a call up to the bracket that ends it, under the name `f`. Raises Malformed."""
        text = "f("
        while True:
            part, _ = yield from reader.through(")")
            text += f"{part})"
            try:
                tree = ast.parse(_as_python(text), mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue  # the bracket is a part of a value
            if isinstance(tree.body, ast.Call):
                return text
            raise Malformed


class Llama4Pythonic(Pythonic):
    tokens = (START, END)

    def is_of(self, template: str) -> bool:
        return super().is_of(template) and "<|header_start|>" in template

    def marks(self, use: ToolUse) -> tuple[str, ...]:
        plain = super().marks(use)
        return (*plain, *(START + mark for mark in plain))

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        end = lark.literal(END) if mark.startswith(START) else ""
        return f"{super().after(lark, use, mark)} {end}"

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        begun = yield from reader.begins(START)
        yield from super().calls(reader, use)
        if begun is not None:
            yield from reader.close(END)


def _python(value: object) -> str:
    """A value as Python writes it, its strings as JSON does."""
    return str(value) if value is None or isinstance(value, bool) else json.dumps(value)


def _as_python(text: str) -> str:
    r"""JSON may write `\/` for a slash, and Python may not."""
    return re.sub(r"\\(.)", lambda found: "/" if found[1] == "/" else found[0], text, flags=re.DOTALL)


def _arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a call. Raises Malformed for what is no plain value."""
    call = ast.parse(_as_python(text), mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise Malformed
    try:
        return {keyword.arg or "": _value(keyword.value) for keyword in call.keywords}
    except (ValueError, TypeError, RecursionError):
        raise Malformed from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=word) if word in WORDS:
            return WORDS[word]
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {str(_value(key)): _value(value) for key, value in pairs if key is not None}
        case _:
            return ast.literal_eval(node)
