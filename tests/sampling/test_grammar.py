"""Which tokens may come next is a function of grammar and output, whatever was asked before."""

from __future__ import annotations

from threading import Event, Thread, Timer
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider import StructuredOutputs
from outrider.errors import RequestError
from outrider.ops.choice import Allow
from outrider.sampling.grammar import Grammar, GrammarLimits, Grammars, InGrammar
from outrider.sandbox.workers import GivenUp
from tests.factories import as_loaded, tiny_tokenizer

EOS = 2
TOKENIZER = as_loaded(tiny_tokenizer())


def within(**limits: Any) -> Grammars:
    return Grammars(TOKENIZER, len(TOKENIZER), [EOS], GrammarLimits(**limits))


GRAMMARS = within()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_mask_depends_on_the_output_alone(data: st.DataObject) -> None:
    """Not on what was asked before: an edit that has seen other outputs says what a new one says."""
    wanted = StructuredOutputs(regex="(ab|abc|b)*")
    outputs = [out for text in ("", "a", "ab", "abc", "abcb", "ba") for out in [TOKENIZER.encode(text)]]
    outputs += [[*outputs[2], EOS], [*outputs[1], 200, 67]]
    old = InGrammar(GRAMMARS, wanted)
    for output in data.draw(st.lists(st.sampled_from(outputs), min_size=1, max_size=12)):
        assert allowed(old, output) == allowed(InGrammar(GRAMMARS, wanted), output)
        more = data.draw(st.sampled_from(outputs))
        assert old.count(output, more) == InGrammar(GRAMMARS, wanted).count(output, more)


def test_where_the_library_gives_up_nothing_may_follow() -> None:
    """It would allow EOS there, and fail for all who ask for that grammar from then on."""
    grammars = within(tried=1, lexer_fuel=30)
    wanted, (a, b) = StructuredOutputs(regex="[ab]*(a|b)[ab]{6}(x|y)[ab]*z"), TOKENIZER.encode("ab")
    one, other = InGrammar(grammars, wanted), InGrammar(grammars, wanted)
    assert allowed(one, []) == {a, b}
    assert allowed(one, [a]) == set()
    assert allowed(other, []) == allowed(InGrammar(grammars, wanted), []) == {a, b}
    assert allowed(one, []) == {a, b}
    assert one.count([], [b]) == 1


def test_a_grammar_that_is_too_much_is_refused_before_it_is_used() -> None:
    """Each step would try it again, and all requests wait for a step."""
    wanted = StructuredOutputs(regex="[ab]*(a|b)[ab]{6}(x|y)[ab]*z")
    with pytest.raises(RequestError, match=r"structured_outputs\.regex cannot be used: .*too"):
        within(lexer_fuel=30).compile(wanted)


def test_many_choices_that_begin_alike() -> None:
    one = InGrammar(GRAMMARS, StructuredOutputs(choice=tuple(f"ab{i}" for i in range(3000))))
    assert allowed(one, TOKENIZER.encode("ab")) == {TOKENIZER.token_to_id(d) for d in "0123456789"}


def allowed(grammar: InGrammar, output: list[int]) -> set[int]:
    (change,) = grammar.changes(output)
    assert isinstance(change, Allow)
    assert change.mask.shape == (len(TOKENIZER),)
    return {*np.flatnonzero(change.mask).tolist()}


def test_a_grammar_that_takes_long_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compile, begun, go_on = Grammars._compile, Event(), Event()

    def slow(self: Grammars, kind: Any, text: str, given_up: Any) -> Grammar:
        if text == "slow":
            begun.set()
            assert go_on.wait(30)
        return compile(self, kind, text, given_up)

    monkeypatch.setattr(Grammars, "_compile", slow)
    thread = Thread(target=GRAMMARS.compile, args=[StructuredOutputs(regex="slow")])
    thread.start()
    assert begun.wait(30)
    GRAMMARS.compile(StructuredOutputs(regex="quick"))
    go_on.set()
    thread.join()


def test_a_grammar_is_compiled_once() -> None:
    grammars = within()
    one = grammars.compile(StructuredOutputs(regex="a+"))
    assert grammars.compile(StructuredOutputs(regex="a+")) is one
    for number in range(70):
        grammars.compile(StructuredOutputs(regex=f"a{{{number}}}"))
    assert len(grammars._compiled) == 64


ENDLESS = "start: A\nA: /.*a.{18}/ & /.*b.{17}/ & ~/.*c.{16}/"


@pytest.mark.parametrize(
    "wanted",
    [
        {"grammar": ENDLESS},
        {"json": {"properties": {f"property_{n}": {"type": "string"} for n in range(8000)}}},
    ],
    ids=["104 bytes", "8,000 fields"],
)
def test_what_takes_too_long_to_compile_is_refused(
    wanted: dict[str, Any],
) -> None:
    """The process that tried it is gone, and the next grammar finds another."""
    grammars = within(seconds=0.3)
    with pytest.raises(RequestError) as refused:
        grammars.compile(StructuredOutputs(**wanted))
    assert str(refused.value).endswith(" cannot be used: it takes more than 0.3 s of processor time")
    assert not grammars._workers.processes
    grammars.compile(StructuredOutputs(regex="a"))
    assert len(grammars._workers.processes) == 1


def test_what_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(RequestError, match=r"cannot be used: it takes more than 20 MiB of memory"):
        within(memory=20 << 20).compile(StructuredOutputs(grammar=ENDLESS))


def test_a_grammar_can_be_given_up() -> None:
    grammars, given_up = within(seconds=60.0), Event()
    Timer(0.1, given_up.set).start()
    with pytest.raises(GivenUp):
        grammars.compile(StructuredOutputs(grammar=ENDLESS), given_up)
    assert not grammars._workers.processes


def test_a_grammar_that_is_too_long() -> None:
    with pytest.raises(RequestError, match="cannot be used: it has 11 characters, and 10 are taken"):
        within(length=10).compile(StructuredOutputs(regex="a" * 11))


def test_a_grammar_is_kept_while_it_is_held() -> None:
    """So that the engine's thread finds compiled what a request brought along, whatever came in between."""
    grammars = within()
    one = grammars.compile(StructuredOutputs(regex="a+"))
    grammars._compiled.clear()
    assert grammars.compile(StructuredOutputs(regex="a+")) is one


def test_a_grammar_that_is_spoilt_is_not_ready_until_it_is_compiled_again() -> None:
    grammars = within(tried=1, lexer_fuel=30)
    wanted, (a, b) = StructuredOutputs(regex="[ab]*(a|b)[ab]{6}(x|y)[ab]*z"), TOKENIZER.encode("ab")
    one, other = InGrammar(grammars, wanted), InGrammar(grammars, wanted)
    with grammars._renewing, grammars._renewing:
        assert other.prepare([])
        assert not one.prepare([a])
        assert other.prepare([])  # known before
        assert not other.ready([b])
        assert other.count([], [b]) == 0
        assert other.forced([]) == ()
        assert not one.ready([a])
    for each in (one, other):
        assert each._renewal is not None
        each._renewal.result(30)
    assert one.ready([a])
    assert allowed(one, [a]) == set()
    assert allowed(other, []) == {a, b}
    assert other.count([], [b]) == 1


@pytest.mark.parametrize(
    ("text", "spaces"),
    [('{"a":', True), ('{"a": ', False), ('{"a": 1', False), ('{"a": [1,', True), ('{"a": [1, ', False)],
)
@pytest.mark.parametrize(
    "wanted", [{"json_object": True}, {"json": {"type": "object"}}], ids=["json_object", "json"]
)
def test_json_has_one_space_at_most(text: str, spaces: bool, wanted: dict[str, Any]) -> None:
    """And a space only behind commas and colons: a model that is unsure may write blanks without end."""
    blanks = {TOKENIZER.token_to_id(byte) for byte in ("\u0120", "\u010a", "\u010d", "\u0109")}
    found = allowed(InGrammar(GRAMMARS, StructuredOutputs(**wanted)), TOKENIZER.encode(text))
    assert found & blanks == ({TOKENIZER.token_to_id("\u0120")} if spaces else set())
    assert found - blanks


def test_a_schema_may_want_other_spaces() -> None:
    wanted: Any = {"json": {"type": "object", "x-guidance": {"whitespace_flexible": True}}}
    found = allowed(InGrammar(GRAMMARS, StructuredOutputs(**wanted)), TOKENIZER.encode('{"a": '))
    assert TOKENIZER.token_to_id("\u010a") in found


@pytest.mark.parametrize("schema", ['{"type": "object"}', ' {"type" : "object"} '])
def test_a_schema_as_text_has_them_too(schema: str) -> None:
    wanted: Any = {"json": schema}
    found = allowed(InGrammar(GRAMMARS, StructuredOutputs(**wanted)), TOKENIZER.encode('{"a": '))
    assert not found & {TOKENIZER.token_to_id("\u0120"), TOKENIZER.token_to_id("\u010a")}


@pytest.mark.parametrize("schema", ["{", "[1]", "[" * 10**5, '{"type": "object", "x-guidance": 3}'])
def test_a_schema_that_is_none(schema: str) -> None:
    wanted: Any = {"json": schema}
    with pytest.raises(RequestError, match=r"structured_outputs\.json cannot be used"):
        GRAMMARS.compile(StructuredOutputs(**wanted))
