"""Drafts in one native call: those of the loop in plain Python, over the same logits, siblings included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.ops.budget import Budget, Price
from outrider.ops.choice import Choice, Filters
from outrider.ops.cpu.chain import NativeChain
from outrider.ops.cpu.forward import NativeForward
from outrider.ops.lane import Grown, Lane, Words
from outrider.ops.span import Span
from outrider.ops.torch.chain import TorchChain
from tests.ops.drafts import BLOCK, COLUMNS, TARGET, Drafter

pytestmark = pytest.mark.usefixtures("one_thread")
POSITIONS = 24


def forward(program: Any) -> NativeForward:
    """A pass over a program that is recorded already."""
    made = NativeForward.__new__(NativeForward)
    made.program, made._instruction_set, made._has_states = program, "", False
    return made


def over_native(pass_: NativeForward) -> Any:
    """The same pass, with PyTorch's tensors."""

    def run(spans: Sequence[Span], input: Any) -> Any:
        logits, kept = pass_(spans, None if input is None else np.asarray(input))
        return torch.from_numpy(logits), None if kept is None else torch.from_numpy(kept)

    return run


def price(chances: st.SearchStrategy[float]) -> st.SearchStrategy[Price]:
    cells = st.lists(chances, min_size=12, max_size=12).map(tuple)
    return st.builds(
        Price,
        row=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
        token=st.sampled_from([0.0, 0.1, 0.5]),
        least=st.integers(0, 2),
        sure=cells,
        reached=st.one_of(st.just(()), cells),
        second=st.one_of(st.just(()), cells),
    )


LANES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 49), min_size=1, max_size=6),  # what is read
        st.sampled_from([None, Filters(1.0), Filters(0.5, 0.05, 7, 0.9)]),
        st.integers(0, 2**64 - 1),  # key
        st.builds(
            Budget,
            st.integers(1, 6),
            st.one_of(st.none(), price(st.floats(0.05, 1.0))),
            st.integers(0, 4),
        ),
        st.lists(st.integers(0, 49), max_size=3),  # stops
        st.booleans(),  # whether chances are wanted
    ),
    min_size=1,
    max_size=4,
)


def both(kind: Any, wanted: list[Any], words: Words) -> tuple[list[Grown], list[Grown]]:
    """What one native call drafts, and what the loop does."""
    drafter = Drafter(kind, 80)
    first, then = forward(drafter.first), forward(drafter.then)
    each = POSITIONS // BLOCK
    lanes: list[Lane | Span] = []
    for number, (tokens, filters, key, budget, stops, chances) in enumerate(wanted):
        span = Span(tokens, 0, (range(number * each, (number + 1) * each),), 1)
        lanes.append(Lane(span, Choice(1, filters, key, number), budget, stops, chances))
    rows = sum(len(tokens) for tokens, *_ in wanted)
    draw = np.random.default_rng(rows)
    states = draw.normal(size=(rows, TARGET)).astype(np.float32) if kind == "head" else None
    looped = TorchChain(over_native(first), over_native(then), words)
    return NativeChain(first, then, words)(lanes, states), looped(lanes, states)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.sampled_from(["model", "head"]), wanted=LANES, some=st.booleans())
def test_a_draft_is_that_of_the_loop(kind: Any, wanted: list[Any], some: bool) -> None:
    words = Words(80, np.arange(COLUMNS, dtype=np.int64) + 15) if some else Words(50)
    for native, loop in zip(*both(kind, wanted, words), strict=True):
        assert native.tokens == loop.tokens
        assert [max(-1, second) for second in native.seconds] == list(loop.seconds)
        assert native.confidences == pytest.approx(loop.confidences, rel=1e-4)
        assert native.chances == pytest.approx(loop.chances, rel=1e-4)


@pytest.mark.parametrize("filters", [None, Filters(1.0)])
def test_siblings_are_other_words(filters: Filters | None) -> None:
    free = Price(0.0, 0.0, 0, (0.5,) * 12, second=(1.0,) * 12)
    wanted: list[Any] = [([3, 4], filters, 7, Budget(5, free, siblings=4), [], False)]
    (grown,), _ = both("model", wanted, Words(50))
    assert [second >= 0 for second in grown.seconds] == [True] * 4 + [False]
    assert all(
        second not in (token, -1) for second, token in zip(grown.seconds[:4], grown.tokens, strict=False)
    )
