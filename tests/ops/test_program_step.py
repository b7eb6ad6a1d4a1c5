"""Tokens chosen in a pass: by their definition, from the rows that are asked for, and to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ops import choosing
from tests.ops.choosing import (
    INFINITE,
    NAN,
    NOTHING,
    Edit,
    Filters,
    add,
    allow,
    bar,
    choice,
    chosen,
    edited,
    penalise,
    rows_program,
    tokens_of,
)
from tests.ops.oracle import Array
from tests.ops.programs import BEST, INSTRUCTION_SETS, matrix, native, numbers, program
from tests.ops.test_program_states import CHANNELS, LAYERS, SLOTS

VOCAB = 201
KINDS = [None, Filters(), Filters(0.7, 0.02, 40, 0.9), Filters(4.0, top_k=3), Filters(0.3, top_p=0.5)]
every_kind = pytest.mark.parametrize("filters", KINDS, ids=str)
KEY = 0xF123456789ABCDEF
ONE = np.ones(1, np.float32)
LOGITS = numbers(12, VOCAB, seed=3, scale=2)


def given(spans: list[int], logits: list[int] | None = None) -> list[Any]:
    """The arguments of a run of rows that need no cache."""
    rows = sum(spans)
    return [[0] * rows, [0] * len(spans), spans, [[]] * len(spans), spans if logits is None else logits]


@every_kind
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_tokens_by_their_definition(filters: Filters | None, instruction_set: str, threads: int) -> None:
    expected = [chosen(row, filters, KEY, 7 + i) for i, row in enumerate(LOGITS)]
    wanted = choice(len(LOGITS), filters, KEY, 7)
    assert tokens_of(LOGITS, wanted, instruction_set=instruction_set, threads=threads) == expected


def test_threads_choose_in_memory_of_their_own() -> None:
    """Long rows, edited and filtered, so that threads are at it at the same time: in steps and in drafts."""
    logits, filters = numbers(60, 20_000, seed=8), Filters(1.0, top_k=5000, top_p=0.99)
    edits = [[bar(range(i, 20_000, 60))] for i in range(60)]
    expected = tokens_of(logits, choice(60, filters, KEY, 0, edits))
    for _ in range(5):
        assert tokens_of(logits, choice(60, filters, KEY, 0, edits), threads=4) == expected
    p = program(count=4)
    p.output(p.select_logit_rows(p.embed(matrix(logits))))
    lanes = [
        native.Lane(choice(1, filters, KEY, i, edits[i : i + 1]), 1, [], None, False, False)
        for i in range(60)
    ]
    rows = [list(range(60)), [0] * 60, [1] * 60, [[]] * 60]
    for _ in range(5):
        drafts = native.draft(p, p, *rows, lanes, None, 20_000)
        assert [draft.tokens[0] for draft in drafts] == expected


@pytest.mark.parametrize(("key", "position"), [(KEY, 8), (KEY + 1, 7)])
def test_another_position_or_key_gives_other_tokens(key: int, position: int) -> None:
    """What the test above would miss if noise did not depend on them."""
    tokens = tokens_of(LOGITS, choice(len(LOGITS), Filters(), key, position))
    assert tokens != [chosen(row, Filters(), KEY, 7 + i) for i, row in enumerate(LOGITS)]


@every_kind
def test_rows_of_several_spans(filters: Filters | None) -> None:
    """Some are skipped, some are not chosen from, some spans have no choice; some rows have no logits."""
    x = numbers(14, VOCAB, seed=5)
    spans, logit_rows = [4, 3, 2, 5], [3, 3, 0, 5]
    choices = [choice(2, filters, 1, 100, skip=1), None, None, choice(3, filters, 2, 5, skip=0)]
    p = rows_program(VOCAB, BEST, 2)
    tokens, seen = p.step(*given(spans, logit_rows), choices, x, looks=True)
    assert tokens == [
        [chosen(x[2 + i], filters, 1, 100 + i) for i in range(2)],
        [],
        [],
        [chosen(x[9 + i], filters, 2, 5 + i) for i in range(3)],
    ]
    assert np.array_equal(seen, x[[1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13]])
    assert p.step(*given(spans, logit_rows), choices, x) == (tokens, None)


def test_logits_that_are_looked_at_stay() -> None:
    """Each step that looks has an array of its own."""
    p, x = rows_program(VOCAB), LOGITS[:2].copy()
    _, seen = p.step(*given([2]), [choice(2)], x, looks=True)
    p.step(*given([2]), [choice(2)], LOGITS[2:4].copy())
    p.step(*given([2]), [choice(2)], LOGITS[2:4].copy(), looks=True)
    assert np.array_equal(seen, x)


EDITS: dict[str, Callable[[], list[Edit]]] = {
    "bar": lambda: [bar([0, 5, VOCAB - 1])],
    "bar the largest": lambda: [bar(np.argsort(-LOGITS[0])[:50].tolist())],
    "bar nothing": lambda: [bar([])],
    "allow": lambda: [allow(np.arange(VOCAB) % 3 == 0)],
    "allow by bytes": lambda: [allow((np.arange(VOCAB) % 5 < 2).astype(np.uint8) * 7)],
    "add": lambda: [add([3, 4, 3], np.array([9, -5, 0.25], np.float32))],
    "penalise": lambda: [penalise(range(0, VOCAB, 2), 1.3)],
    "penalise the other way": lambda: [penalise(range(0, VOCAB, 2), 0.4)],
    "in order": lambda: [add([3], np.full(1, 20, np.float32)), penalise([3], 20.0), bar([7]), add([7], ONE)],
}  # fmt: skip


@every_kind
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_edits_change_what_is_chosen_from(edits: Callable[[], list[Edit]], filters: Filters | None) -> None:
    """Rows with and without edits side by side; what can be looked at stays as it was. Changes are reused."""
    changes = edits()
    of_rows = [changes if i % 3 else [] for i in range(len(LOGITS))]
    expected = [
        chosen(edited(row, changes), filters, KEY, i)
        for i, (row, changes) in enumerate(zip(LOGITS, of_rows, strict=True))
    ]
    wanted = choice(len(LOGITS), filters, KEY, 0, of_rows)
    p = rows_program(VOCAB, BEST, 2)
    for _ in range(2):
        tokens, seen = p.step(*given([len(LOGITS)]), [wanted], LOGITS, looks=True)
        assert tokens == [expected]
        assert np.array_equal(seen, LOGITS)


def test_changes_keep_what_they_were_made_of() -> None:
    mask, ids = np.zeros(VOCAB, bool), np.array([4], np.int64)
    mask[[4, 9]] = True
    changes = [native.Change.allow(mask), native.Change.bar(ids)]
    mask[:], ids[:] = True, 9
    assert tokens_of(LOGITS[:1], native.Choice(0, 1, None, 0, 0, [changes])) == [9]


def broken() -> Array:
    x = LOGITS[:8].copy()
    x[0, 3], x[1, 3] = np.nan, np.inf
    x[2] = -np.inf
    x[3, [0, 9]] = np.inf, np.nan
    x[4] = np.nan
    x[5], x[5, 8] = -np.inf, np.nan
    x[6], x[6, 8] = -np.inf, -1e30
    return x


@every_kind
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_why_there_is_no_token(filters: Filters | None, instruction_set: str) -> None:
    tokens = tokens_of(broken(), choice(8, filters, KEY), instruction_set=instruction_set)
    assert tokens[:6] == [NAN, INFINITE, NOTHING, NAN, NAN, NAN]
    assert tokens[6:] == [8, chosen(LOGITS[7], filters, KEY, 7)]
    assert (native.NAN, native.INFINITE, native.NOTHING) == (NAN, INFINITE, NOTHING)


@every_kind
def test_edits_may_leave_no_token_or_mend_a_row(filters: Filters | None) -> None:
    x = np.stack([LOGITS[0], broken()[1]])
    edits = [[allow(np.zeros(VOCAB, bool))], [bar([3])]]
    assert tokens_of(x, choice(2, filters, KEY, 0, edits)) == [
        NOTHING,
        chosen(edited(x[1], edits[1]), filters, KEY, 1),
    ]


def model(threads: int = 1) -> Any:
    """Logits of a layer with its state, and what is kept of each row."""
    values = np.zeros((SLOTS, *LAYERS["convolution"].shape.state), np.float32)
    p = program(count=threads)
    hidden = LAYERS["convolution"].record(p, values)
    p.keep(hidden)
    p.output(p.linear(p.select_logit_rows(hidden), [matrix(numbers(VOCAB, CHANNELS, seed=9, scale=0.2))]))
    return p


@every_kind
def test_a_step_is_a_run_and_a_choice(filters: Filters | None) -> None:
    """With input, what is kept, and states."""
    x = numbers(5, CHANNELS)
    kept, also = np.empty((2, 5, CHANNELS), np.float32)
    states = ([-1, -1], [[-1, 0, 1], [2, 3]])
    logits = model().run([0] * 5, [0, 0], [3, 2], [[], []], [2, 1], x, kept, *states)
    p = model(2)
    choices = [choice(2, filters, 3, 4), choice(1, filters, 5, 6)]
    tokens, seen = p.step([0] * 5, [0, 0], [3, 2], [[], []], [2, 1], choices, x, also, *states, looks=True)
    assert np.array_equal(seen, logits)
    assert np.array_equal(also, kept)
    expected = [chosen(logits[i], filters, key, at) for i, (key, at) in enumerate([(3, 4), (3, 5), (5, 6)])]
    assert tokens == [expected[:2], expected[2:]]
    after = numbers(1, CHANNELS, seed=1)
    next_row = p.step([0], [2], [1], [[]], [1], [choice(1)], after, also[:1], [0], [[-1]], looks=True)[1]
    whole = np.concatenate([x[:2], after])
    alone = model().run([0] * 3, [0], [3], [[]], [1], whole, np.empty_like(whole), [-1], [[-1] * 3])
    assert np.array_equal(next_row, alone)


REFUSED: list[tuple[Callable[[], list[Any]], str]] = [
    (lambda: [], "choices has 0 values; there are 1 spans"),
    (lambda: [choice(1), None], "choices has 2 values; there are 1 spans"),
    (lambda: [choice(2, skip=1)], "choice of span 0 has skip = 1 and rows = 2; logit_rows = 2"),
    (lambda: [choice(2**31 - 1, skip=2**31 - 1)], "logit_rows = 2"),
    (lambda: [choice(2, None, 0, 0, [[], [bar([VOCAB])]])], "names the token 201; the row has 201"),
    (lambda: [choice(1, None, 0, 0, [[bar([2**40])]])], "names the token 1099511627776"),
    (lambda: [choice(1, None, 0, 0, [[add([VOCAB], ONE)]])], "names the token 201"),
    (lambda: [choice(1, None, 0, 0, [[penalise([VOCAB], 2.0)]])], "names the token 201"),
    (lambda: [choice(1, None, 0, 0, [[allow(np.ones(VOCAB + 1, bool))]])], "mask of 202 tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "message"), REFUSED)
def test_what_is_refused_leaves_all_as_it_was(choices: Callable[[], list[Any]], message: str) -> None:
    p, x, kept = model(), numbers(2, CHANNELS), np.full((2, CHANNELS), 7, np.float32)
    arguments = [[0, 0], [0], [2], [[]], [2]]
    with pytest.raises(ValueError, match=message):
        p.step(*arguments, choices(), x, kept, [-1], [[0, 1]])
    assert (kept == 7).all()
    p.step(*arguments, [choice(2)], x, kept, [-1], [[0, 1]])
    assert not (kept == 7).any()


def test_rows_that_all_have_an_output_are_refused() -> None:
    p = program()
    p.output(p.norm(p.input(VOCAB), np.ones(VOCAB, np.float32), 1e-5))
    with pytest.raises(ValueError, match="output has all rows"):
        p.step(*given([1], [1]), [choice(1)], LOGITS[:1].copy())


IDS = np.arange(3)
MADE: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: native.Choice(-1, 1, None, 0, 0), ValueError, "skip = -1"),
    (lambda: native.Choice(0, -1, None, 0, 0), ValueError, "rows = -1"),
    (lambda: native.Choice(0, 2, None, 0, 0, [[]]), ValueError, "edits has 1 lists.*rows = 2"),
    (lambda: native.Choice(0, 1, None, -1, 0), TypeError, "incompatible"),
    (lambda: native.Choice(0, 1, None, 2**64, 0), TypeError, "incompatible"),
    (lambda: native.Choice(0, 1, None, 0, 0, [[None]]), TypeError, "incompatible"),
    (lambda: native.Change.bar(IDS - 1), ValueError, "ids holds -1"),
    (lambda: native.Change.bar(IDS.astype(np.int32)), TypeError, "ids is int32; it has to be int64"),
    (lambda: native.Change.bar(IDS[None]), ValueError, r"ids has shape \(1, 3\)"),
    (lambda: native.Change.bar(np.arange(6)[::2]), ValueError, "ids has to be C-contiguous"),
    (lambda: native.Change.allow(IDS), TypeError, "mask is int64; it has to be uint8"),
    (lambda: native.Change.add(IDS, np.ones(2, np.float32)), ValueError, "values has 2 values; ids has 3"),
    (lambda: native.Change.add(IDS, np.ones(3)), TypeError, "values is another type"),
    (lambda: native.Change.penalise(IDS, 0.0), ValueError, "factor = 0"),
    (lambda: native.Change.penalise(IDS, -1.0), ValueError, "factor = -1"),
    (lambda: native.Change.penalise(IDS, np.inf), ValueError, "factor = inf"),
    (lambda: native.Change.penalise(IDS, np.nan), ValueError, "factor = nan"),
    (lambda: native.Change(IDS), TypeError, "Change"),
]


@pytest.mark.parametrize(("make", "error", "message"), MADE)
def test_values_are_checked_as_they_are_made(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@every_kind
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_scores(filters: Filters | None, instruction_set: str) -> None:
    """Edited and filtered, and NaN where there is no token."""
    x, edits = broken(), [[bar([7]), penalise(range(50), 2.0)]] * 8
    scores = native.scores(x, choice(8, filters, edits=edits), instruction_set)
    expected = [choosing.scores(edited(row, changes), filters) for row, changes in zip(x, edits, strict=True)]
    np.testing.assert_allclose(scores, np.array(expected), rtol=1e-6)
    tokens = tokens_of(x, choice(8, filters, KEY, 0, edits))
    for row, token in zip(scores, tokens, strict=True):
        assert row[token] > -np.inf if token >= 0 else np.isnan(row).all()


def test_scores_of_rows_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"logits has shape \(12, 201\); it has to be \(11, any\)"):
        native.scores(LOGITS, choice(11), BEST)
    with pytest.raises(ValueError, match="names the token 201"):
        native.scores(LOGITS[:1], choice(1, None, 0, 0, [[bar([VOCAB])]]), BEST)
