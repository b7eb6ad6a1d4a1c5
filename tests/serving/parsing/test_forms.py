"""Answers in every form: read in any pieces, bound by their grammars, and text where they are malformed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

from outrider.errors import ConfigError
from outrider.serving.parsing.dialect import Dialect, Expected
from outrider.serving.parsing.events import Said, message_of
from outrider.serving.parsing.format import ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, TextParser
from outrider.serving.parsing.registry import FALLBACK, TOOL_PARSERS, dialect_of, format_of
from tests.factories import tiny_tokenizer
from tests.serving.parsing.forms import FORMS, FUNCTIONS, USE, Form

EXPECTED = Expected(USE, "closed")
EOS = 2


def dialect(form: Form) -> Dialect:
    tools = format_of(form.template, form.parser)
    assert tools is not None
    return dialect_of(form.template, tools, None)


def parsed(dialect: Dialect, pieces: Sequence[str], *, whole: bool, expected: Expected = EXPECTED) -> Said:
    names = [function.name for function in FUNCTIONS]
    parser = TextParser(Reader(names, whole=whole), lambda reader: dialect.read(reader, expected))
    events = [event for piece in pieces for event in parser.feed(piece)]
    return message_of([*events, *parser.finish()])


def use(mode: Literal["none", "auto", "required"], *, many: bool) -> ToolUse:
    return ToolUse(FUNCTIONS, mode, many)


def text_before(form: Form) -> bool:
    """Whether text stands before the calls, which reasoning may, and the preambles of harmony."""
    return bool(form.content) and form.parser != "openai"


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


@cache
def tokenizer(special: bool, tokens: tuple[str, ...]) -> tuple[Tokenizer, LLTokenizer]:
    backend = tiny_tokenizer().backend_tokenizer
    add = backend.add_special_tokens if special else backend.add_tokens
    add([AddedToken(token, normalized=False, special=special) for token in tokens])
    vocab = backend.get_vocab_size()
    return backend, LLTokenizer(tokenizer=backend.to_str(), n_vocab=vocab, eos_token=[EOS])


def matcher(form: Form, expected: Expected, *, marks: str) -> tuple[Tokenizer, LLMatcher]:
    """marks: "text" where the tokenizer has none as tokens."""
    shown = () if marks == "text" else dialect(form).shown(expected)
    backend, vocabulary = tokenizer(marks == "special", tuple(shown))
    added = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    lark = Lark(added)
    text = lark.grammar(dialect(form).start(lark, expected, None))
    grammar = LLMatcher(vocabulary, llguidance.grammar_from("grammar", text), log_level=0)
    assert not grammar.is_error(), grammar.get_error()
    return backend, grammar


def fits(form: Form, text: str, expected: Expected, *, marks: str = "special") -> bool:
    backend, grammar = matcher(form, expected, marks=marks)
    tokens = [*backend.encode(text, add_special_tokens=False).ids, EOS]
    return grammar.validate_tokens(tokens) == len(tokens)


forms = pytest.mark.parametrize(
    "form", FORMS, ids=[f"{form.parser} {form.variant}".strip() for form in FORMS]
)


@forms
@settings(max_examples=30, deadline=None, derandomize=True)
@given(places=st.lists(st.integers(0, 1000), max_size=40), whole=st.booleans())
def test_any_pieces_are_the_same_message(form: Form, places: list[int], whole: bool) -> None:
    assert parsed(dialect(form), cut(form.text, places), whole=whole) == form.said


@forms
@pytest.mark.parametrize("marks", ["special", "added", "text"])
def test_the_grammar_takes_it(form: Form, marks: str) -> None:
    """Whether marks are special tokens, other ones, or spelled."""
    assert fits(form, form.text, EXPECTED, marks=marks)
    assert fits(form, form.text, Expected(use("auto", many=True), "closed"), marks=marks)
    required = Expected(use("required", many=True), "closed")
    assert fits(form, form.text, required, marks=marks) == (bool(form.calls) and not text_before(form))


@forms
def test_one_call_where_several_are_not_wanted(form: Form) -> None:
    alone = Expected(use("auto", many=False), "closed")
    assert fits(form, form.text, alone) == (len(form.calls) < 2)


@forms
def test_no_call_where_none_is_wanted(form: Form) -> None:
    none = Expected(use("none", many=True), "closed")
    assert fits(form, form.text, none) == (not form.calls)


@forms
def test_arguments_have_to_fit(form: Form) -> None:
    others = {"days": "weeks", "city": "village"}
    if form.parser != "pythonic":  # a list that begins with another name is text there
        others["get_weather"] = "set_weather"
    for word, other in others.items():
        wrong = form.text.replace(word, other)
        assert fits(form, wrong, EXPECTED) == (wrong == form.text)


@forms
@settings(max_examples=30, deadline=None, derandomize=True)
@given(length=st.integers(0, 1000), places=st.lists(st.integers(0, 1000), max_size=5))
def test_what_is_cut_off_is_text_or_whole(form: Form, length: int, places: list[int]) -> None:
    """Told whole, no call is half; told while it comes, what is told is the beginning of all."""
    text = form.text[: length % len(form.text)]
    told = parsed(dialect(form), cut(text, places), whole=True)
    assert told == parsed(dialect(form), [text], whole=True)
    assert all(call in form.said.calls for call in told.calls)
    streamed = parsed(dialect(form), cut(text, places), whole=False)
    assert streamed == parsed(dialect(form), [text], whole=False)
    for call, complete in zip(streamed.calls, form.said.calls, strict=False):
        assert call.name == complete.name
        assert complete.arguments.startswith(call.arguments)


@forms
def test_another_tools_call_is_text(form: Form) -> None:
    if form.calls and form.parser != "openai":
        wrong = form.text.replace("get_weather", "rm").replace("now", "rm")
        assert parsed(dialect(form), [wrong], whole=False) == Said(content=wrong)


@pytest.mark.parametrize("whole", [False, True])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_text_is_told(whole: bool, data: st.DataObject) -> None:
    """Whatever comes, in whatever pieces, is a message."""
    form = data.draw(st.sampled_from(FORMS))
    parts = [form.text[:9], form.text[9:30], form.text[-20:], '{"name": "now"', "}", "]", "\n", "é", "<"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=8)))
    places = data.draw(st.lists(st.integers(0, 1000), max_size=20))
    assert parsed(dialect(form), cut(text, places), whole=whole) == parsed(dialect(form), [text], whole=whole)


@forms
def test_the_form_is_found_in_the_template(form: Form) -> None:
    found = format_of(form.template, None)
    assert found in TOOL_PARSERS[form.parser]
    assert format_of(form.template, form.parser) is found


def test_the_form_can_be_named() -> None:
    assert format_of("{{ messages }}", None) is None
    assert format_of("{{ messages }}", "hermes") is FALLBACK
    with pytest.raises(
        ConfigError, match="tool_call_parser = 'hermess' is not known; give one of deepseek_v3"
    ):
        format_of("", "hermess")
    with pytest.raises(ConfigError, match="reasoning_parser = 'x' is not known; give one of deepseek_r1"):
        dialect_of("", FALLBACK, "x")
