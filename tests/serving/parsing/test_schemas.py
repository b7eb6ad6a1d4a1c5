"""Arguments in forms that are not JSON: what their schemas ask for, and messages as templates want them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outrider.serving.parsing.dialect import Expected
from outrider.serving.parsing.events import Said, message_of
from outrider.serving.parsing.format import Function, ToolUse
from outrider.serving.parsing.reader import Reader, TextParser
from outrider.serving.parsing.registry import TOOL_PARSERS
from tests.serving.parsing import test_forms
from tests.serving.parsing.forms import FORMS

NESTED = {
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
    "type": "object",
    "properties": {
        "at": {"$ref": "#/$defs/point"},
        "name": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        "any": {},
    },
    "required": ["at"],
}


def fits(parser: str, arguments: str) -> bool:
    """Whether a call of `f` with arguments in a parser's form is one that the grammar takes."""
    form = next(form for form in FORMS if form.parser == parser)
    use = ToolUse((Function("f", NESTED, strict=True),), "required", many=False)
    texts = {
        "functiongemma": "<start_function_call>call:f{%s}<end_function_call>",
        "pythonic": "[f(%s)]",
        "qwen3_coder": "<tool_call>\n<function=f>%s\n</function>\n</tool_call>",
        "hermes": '<tool_call>\n{"name": "f", "arguments": {%s}}\n</tool_call>',
    }
    return test_forms.fits(form, texts[parser] % arguments, Expected(use, "closed"))


@pytest.mark.parametrize(
    ("parser", "arguments", "fit"),
    [
        ("functiongemma", "at:{x:1.5}", True),
        ("functiongemma", "any:<escape>what<escape>,at:{x:1},name:null", True),
        ("functiongemma", "at:{x:1},name:<escape>abc<escape>", True),
        ("functiongemma", "at:{}", False),
        ("functiongemma", "at:{x:<escape>1<escape>}", False),
        ("functiongemma", "name:<escape>abc<escape>", False),
        ("pythonic", 'at={"x": 1.5}', True),
        ("pythonic", 'at={"x": 1}, name="abc"', True),
        ("pythonic", 'at={"x": 1}, name="abcd"', False),
        ("pythonic", 'name="abc"', False),
        ("qwen3_coder", '\n<parameter=at>\n{"x": 1}\n</parameter>', True),
        ("qwen3_coder", '\n<parameter=at>\n{"y": 1}\n</parameter>', False),
        ("qwen3_coder", "\n<parameter=name>\nabc\n</parameter>", False),
        ("hermes", '"at": {"x": 1}, "name": null', True),
        ("hermes", '"at": {"x": "1"}', False),
    ],
)
def test_schemas_bind(parser: str, arguments: str, fit: bool) -> None:
    assert fits(parser, arguments) == fit


@pytest.mark.parametrize("name", ["a-b", "a.b", "3"])
def test_names_that_are_none_in_python(name: str) -> None:
    (form,) = TOOL_PARSERS["pythonic"]
    use = ToolUse((Function(name, NESTED, strict=False),), "auto", many=True)
    parser = TextParser(Reader([name]), lambda reader: form.read(reader, use))
    said = message_of([*parser.feed(f'[{name}(name="x (")]'), *parser.finish()])
    assert [(call.name, call.arguments) for call in said.calls] == [(name, '{"name": "x ("}')]


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"é": 1}}}


def test_ids_as_mistrals_templates_take_them() -> None:
    (form, _) = TOOL_PARSERS["mistral"]
    called = form.for_template({"role": "assistant", "tool_calls": [CALL, CALL | {"id": "abcdefghi"}]})
    first, second = (call["id"] for call in called["tool_calls"])
    assert len(first) == 9
    assert first.isalnum()
    assert second == "abcdefghi"
    assert form.for_template({"role": "tool", "tool_call_id": "call_1"})["tool_call_id"] == first


def test_arguments_as_deepseeks_templates_take_them() -> None:
    (form,) = TOOL_PARSERS["deepseek_v3"]
    called: dict[str, Any] = form.for_template({"role": "assistant", "content": None, "tool_calls": [CALL]})
    assert json.loads(called["tool_calls"][0]["function"]["arguments"]) == {"é": 1}
    assert called["content"] == ""
    assert form.for_template({"role": "user", "content": "x"}) == {"role": "user", "content": "x"}


@pytest.mark.parametrize("whole", [True, False])
def test_malformed_calls_are_text(whole: bool) -> None:
    """Whatever is wrong before a call has begun, and in a whole answer wherever it is."""
    broken = ['{"name": "f"}', '{"name": 1, "arguments": {}}', '{"nome": "f", "arguments": {}}', "{", ""]
    if whole:
        broken += [
            '{"name": "f", "arguments": {"a": }}',
            '{"name": "f", "arguments": {"a": 1}',
            '{"name": "f", "arguments": []}',
        ]
    (form,) = TOOL_PARSERS["hermes"]
    use = ToolUse((Function("f", None, strict=False),), "auto", many=True)
    for body in broken:
        text = f"so <tool_call>\n{body}\n</tool_call> it is"
        parser = TextParser(Reader(["f"], whole=whole), lambda reader: form.read(reader, use))
        assert message_of([*parser.feed(text), *parser.finish()]) == Said(content=text), body


def test_every_form_has_an_answer_to_test_it() -> None:
    assert {form.parser for form in FORMS} == set(TOOL_PARSERS)
