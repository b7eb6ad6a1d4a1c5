"""How often a step crosses between Python and native code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.ops.cpu import extension
from tests.engine.helpers import PROMPTS, load

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMS = SamplingParams(temperature=0.7, seed=1, max_tokens=40, ignore_eos=True)
PLAIN = {"check_process": 1, "step": 1}
"""Whether this is a fork of the process that began, which has no threads; and the target's pass, with edits,
noise and choice."""
DRAFTED = PLAIN | {"draft": 1}
MOST = 3


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of native functions, by name. Values that only go along with such a call (choices, edits, lanes)
    are none."""
    native, counts = extension.require(), Counter[str]()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        return call

    functions = [
        (owner, name)
        for owner in (native, native.Program, native.Threads)
        for name in dir(owner)
        if not name.startswith("_") and callable(getattr(owner, name))
    ]
    for owner, name in functions:
        function = getattr(owner, name)
        if not isinstance(function, type):
            monkeypatch.setattr(owner, name, counted(name, function))
    return counts


def steps(llm: LLM, crossings: Counter[str], params: SamplingParams = PARAMS) -> list[dict[str, int]]:
    """What each step of one request crossed for, once its prompt is read and its first draft was made, for
    which passes are recorded."""
    llm.engine.add(PROMPTS[0], params)
    found, drafted = [], []
    while llm.engine.unfinished:
        crossings.clear()
        increments = llm.engine.step()
        found.append(dict(crossings))
        drafted.append(sum(increment.drafted for increment in increments))
    if llm.config.speculative is not None:
        found = [one for one, count in zip(found, drafted, strict=True) if count]
        assert len(found) > 4, "something was drafted"
    del found[:2]
    assert max(sum(one.values()) for one in found) <= MOST
    return found


@pytest.mark.parametrize("others", [{}, {"repetition_penalty": 1.5, "bad_words": ("the",)}], ids=str)
def test_a_plain_step(target: str, others: dict[str, Any], crossings: Counter[str]) -> None:
    assert steps(load(target), crossings, PARAMS.model_copy(update=others)) == [PLAIN] * 38


@pytest.mark.parametrize("drafter", ["draft", "head"])
def test_a_step_with_a_draft(
    target: str, drafter: str, crossings: Counter[str], request: pytest.FixtureRequest
) -> None:
    found = steps(load(target, request.getfixturevalue(drafter), num_speculative_tokens=4), crossings)
    assert found == [DRAFTED] * len(found)


def test_a_step_with_words_that_are_found_again(target: str, crossings: Counter[str]) -> None:
    few = PARAMS.model_copy(update={"allowed_token_ids": (5, 6, 7)})
    found = steps(load(target, "ngram", num_speculative_tokens=4), crossings, few)
    assert found == [PLAIN] * len(found)


def test_what_is_looked_at_is_asked_for(target: str, crossings: Counter[str]) -> None:
    """The check can fail: log-probabilities are a call for each token."""
    found = steps(load(target), crossings, PARAMS.model_copy(update={"logprobs": 2}))
    assert found == [PLAIN | {"ranked": 1}] * 38
