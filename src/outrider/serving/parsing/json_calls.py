"""Calls as JSON objects that hold a name and arguments, which most forms have in one frame or another."""

from __future__ import annotations

import json

from outrider.serving.parsing.format import Function, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps


def read_object(reader: Reader) -> Steps[None]:
    """Read one call, whichever of their two names the arguments have. Raises Malformed."""
    for text in ("{", '"name"', ":"):
        yield from reader.expect(text)
        yield from reader.skip_space()
    name = yield from reader.string()
    yield from reader.skip_space()
    yield from reader.expect(",")
    yield from reader.skip_space()
    yield from reader.expect('"arguments"', '"parameters"')
    yield from reader.skip_space()
    yield from reader.expect(":")
    yield from reader.skip_space()
    yield from reader.arguments((yield from reader.begin_call(name)))
    yield from reader.skip_space()
    yield from reader.close("}")


def object_of(lark: Lark, function: Function, arguments: str = "arguments", *, begun: str = "") -> str:
    """The grammar of one call. begun: how much of its text is there already."""
    text = f'{{"name": {json.dumps(function.name)}, "{arguments}": '
    return f"{lark.literal(text.removeprefix(begun))} {lark.arguments(function)} {lark.literal('}')}"


def read_list(reader: Reader) -> Steps[None]:
    """Read a list of calls. Raises Malformed."""
    yield from reader.expect("[")
    more = True
    while more:
        yield from reader.skip_space()
        yield from read_object(reader)
        yield from reader.skip_space()
        more = (yield from reader.begins(",")) is not None
    yield from reader.close("]")


def list_of(lark: Lark, use: ToolUse, *, begun: str = "") -> str:
    """The grammar of a list of calls. begun: how much of its text is there already."""
    call = lark.one_of(object_of(lark, function) for function in use.functions)
    more = f"({lark.literal(', ')} {call})*" if use.many else ""
    return f"{lark.literal('['.removeprefix(begun))} {call} {more} {lark.literal(']')}"
