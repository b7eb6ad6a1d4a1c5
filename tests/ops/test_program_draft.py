"""Drafts in one call: what they are by definition, each alone and a token at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ops import drafts, planted
from tests.ops.choosing import Filters, Price, add, bar
from tests.ops.drafts import (
    COLUMNS,
    HIDDEN,
    KINDS,
    LONGEST,
    SLOTS,
    TARGET,
    Drafter,
    Kind,
    Text,
    Wanted,
    alone,
    compare,
    random_drafts,
    some_texts,
    together,
)
from tests.ops.oracle import Array
from tests.ops.programs import attend, matrix, native, numbers, program

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("seed", range(20))
def test_drafts_by_their_definition(kind: Kind, seed: int) -> None:
    """Words, edits, prices, stops, and lanes of different lengths, some of them only read."""
    random_drafts(random.Random(seed), kind)


def many_drafts(kind: Kind) -> int:
    return sum(random_drafts(random.Random(seed), kind) for seed in range(20))


def test_drafts_have_tokens_to_compare() -> None:
    assert many_drafts("head") > 60


def one(kind: Kind = "model", seed: int = 0, vocab: int = COLUMNS) -> tuple[Drafter, Text]:
    return Drafter(kind, max(vocab, COLUMNS)), some_texts(random.Random(seed), 1, vocab)[0]


def drafted(wanted: Wanted, kind: Kind = "model", *, words: Array | None = None, vocab: int = COLUMNS) -> Any:
    drafter, text = one(kind, vocab=vocab)
    return together(drafter, [text], [wanted], words, vocab)[0]


@every_kind
def test_noise_is_that_of_the_position(kind: Kind) -> None:
    """A draft whose noise is off by one position is not the same."""
    wanted = Wanted(Filters(2.0), 5, 10, LONGEST)
    drafter, text = one(kind)
    expected = alone(drafter, text, wanted, None, COLUMNS)
    compare(drafted(wanted, kind), expected)
    wanted.position += 1
    assert drafted(wanted, kind).tokens != expected.tokens


@pytest.mark.parametrize("fault", ["input", "start", "state"])
def test_planted_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that goes on from the row, the position or the state before gives other drafts."""
    planted.draft_from_before(monkeypatch, fault)
    with pytest.raises(AssertionError):
        many_drafts("recurrent" if fault == "state" else "head")


def test_a_draft_ends_with_a_stop() -> None:
    tokens = drafted(Wanted(length=LONGEST)).tokens
    assert len(tokens) == LONGEST
    first = next(i for i, token in enumerate(tokens) if i > 1 and token not in tokens[:i])
    assert drafted(Wanted(length=LONGEST, stops=[-5, tokens[first]])).tokens == tokens[: first + 1]


def test_a_draft_ends_before_what_its_price_does_not_take() -> None:
    """The confidence of a token that is not taken is not told; `least` tokens are taken for nothing."""
    whole = drafted(Wanted(Filters(), length=LONGEST))
    for least in (0, 3):
        draft = drafted(Wanted(Filters(), length=LONGEST, price=Price(0.6, 0.0, least, [0.5], [])))
        assert (draft.tokens, len(draft.confidences)) == (whole.tokens[:least], least)


def test_a_draft_ends_where_its_price_does_not_go_on() -> None:
    whole = drafted(Wanted(Filters(), length=LONGEST))
    price = Price(0.0, 0.3, 0, [1.0], [1.0, 1.0, 1.0, 0.2])
    assert drafted(Wanted(Filters(), length=LONGEST, price=price)).tokens == whole.tokens[:3]


def test_padding_is_never_drafted() -> None:
    """Nor does it change how sure a draft is: the columns are as if they were not there."""
    vocab = 20
    wanted = Wanted(Filters(5.0), length=LONGEST, price=Price(0.0, 0.0, 0, [1.0], []))
    cut, padded = Drafter("model", COLUMNS, columns=vocab), Drafter("model", COLUMNS)
    padded.first = padded.then = padded_program(padded, vocab)
    text = some_texts(random.Random(1), 1, vocab)[0]
    expected, got = (together(one, [text], [wanted], None, vocab)[0] for one in (cut, padded))
    assert got.tokens == expected.tokens
    assert max(got.tokens) < vocab
    assert got.confidences == expected.confidences
    assert got.chances == expected.chances
    assert np.array_equal(got.scores, expected.scores)
    assert got.scores.shape == (LONGEST, vocab)


def padded_program(drafter: Drafter, vocab: int) -> Any:
    """The logits of a smaller drafter, and beside them columns that would win everything, and NaN."""
    other = Drafter("model", COLUMNS, columns=vocab)
    p = program()
    other.keys, other.values = drafter.keys, drafter.values
    x = p.embed(matrix(numbers(other.table, HIDDEN, seed=1)))
    qkv = p.linear(x, [drafts.weight(drafts.LAYER.width, HIDDEN, 2)])
    seen = attend(p, qkv, drafts.LAYER, drafter.keys, drafter.values)
    x = p.norm(p.linear(seen, [drafts.weight(HIDDEN, HIDDEN, 3)], x), np.ones(HIDDEN, np.float32), 1e-5)
    x = p.select_logit_rows(x)
    bias = np.full(COLUMNS - vocab, 1e9, np.float32)
    bias[3] = np.nan
    large = matrix(np.zeros((COLUMNS - vocab, HIDDEN)), bias)
    p.output(p.linear(x, [drafts.weight(vocab, HIDDEN, 4), large]))
    return p


def test_a_draft_ends_where_there_is_no_token() -> None:
    everything = [bar(range(COLUMNS))]
    draft = drafted(Wanted(edits=everything, price=Price(0.0, 0.0, 0, [1.0], [])))
    assert (draft.tokens, draft.confidences, draft.chances) == ([], [], [])
    assert draft.scores.shape == (0, COLUMNS)


def test_edits_of_what_no_word_is_change_nothing() -> None:
    words = np.arange(0, 2 * COLUMNS, 2)
    edits = [add([1, 3], np.full(2, 99, np.float32))]
    draft = drafted(Wanted(edits=edits), words=words, vocab=2 * COLUMNS)
    assert draft.tokens == drafted(Wanted(), words=words, vocab=2 * COLUMNS).tokens
    assert draft.scores.shape == (1, 2 * COLUMNS)


def test_what_is_not_wanted_is_not_there() -> None:
    drafter, text = one()
    lane = native.Lane(native.Choice(0, 1, None, 0, 0), 2, [], None, False, False)
    rows = len(text.tokens)
    [draft] = native.draft(
        drafter.first, drafter.then, text.tokens, [0], [rows], [[text.blocks]], [lane], None, COLUMNS
    )
    assert len(draft.tokens) == 2
    assert (draft.confidences, draft.chances, draft.scores) == ([], [], None)


def test_edits_without_a_change_are_none() -> None:
    """A draft with an empty list of changes may be long."""
    drafter, text = one()
    lane = native.Lane(native.Choice(0, 1, None, 0, 0, [[]]), LONGEST, [], None, False, False)
    rows = len(text.tokens)
    [draft] = native.draft(
        drafter.first, drafter.then, text.tokens, [0], [rows], [[text.blocks]], [lane], None, COLUMNS
    )
    assert draft.tokens == drafted(Wanted(length=LONGEST)).tokens


def test_scores_outlive_the_draft() -> None:
    scores = drafted(Wanted(Filters(), length=3)).scores
    before = scores.copy()
    drafted(Wanted(Filters(9.0), length=3))
    assert np.array_equal(scores, before)


TEXT = Text([1, 2, 3, 4, 5], 2, numbers(5, TARGET), [3, 1], [0, 1, 2, 3, 4])  # room for 8 positions
WORDS = np.arange(COLUMNS) + 7
CHOICE = native.Choice(0, 1, None, 0, 0)


def arguments(kind: Kind, length: int = 4, **changes: Any) -> dict[str, Any]:
    drafter = changes.pop("drafter", None) or Drafter(kind, 90)
    given = {
        "first": drafter.first,
        "then": drafter.then,
        "tokens": [3, 4, 5],
        "starts": [2],
        "rows": [3],
        "tables": [[[3, 1]]],
        "lanes": [native.Lane(CHOICE, length, [], None, False, False, [2, 3, 4])],
        "words": None,
        "vocab": COLUMNS,
    }
    if kind == "head":
        given["input"] = TEXT.target[2:]
    if kind == "recurrent":
        given |= {"states": [0], "new_states": [[-1, -1, 1]]}
    return given | changes


def lane(length: int = 4, wanted: Any = CHOICE, slots: Any = (2, 3, 4)) -> list[Any]:
    return [native.Lane(wanted, length, [], None, False, False, list(slots))]


def edits(*ids: int) -> Any:
    return native.Choice(0, 1, None, 0, 0, [[native.Change.bar(np.array(ids))]])


REFUSED: list[tuple[Kind, Callable[[], dict[str, Any]], str]] = [
    ("model", lambda: {"lanes": []}, "lanes has 0 values; there are 1 spans"),
    ("model", lambda: {"rows": [2]}, "tokens has 3 values; the spans have 2 rows"),
    ("model", lambda: {"rows": []}, "of one length"),
    ("model", lambda: {"lanes": lane(5)}, "table 0 of lane 0 holds 2 blocks of 4; 9 positions need more"),
    ("model", lambda: {"tables": [[[3, 400]]]}, "table 0 of span 0 names block 400"),
    ("model", lambda: {"tables": [[[3, 1, -1]]], "lanes": lane(5)}, "table 0 of lane 0 names block -1"),
    ("model", lambda: {"starts": [2**30 - 3]}, "table 0 of span 0 holds 2 blocks"),
    ("model", lambda: {"lanes": lane(1, native.Choice(1, 1, None, 0, 0))}, "skip = 1 and rows = 1"),
    ("model", lambda: {"lanes": lane(1, native.Choice(0, 2, None, 0, 0))}, "skip = 0 and rows = 2"),
    ("model", lambda: {"lanes": lane(2, edits(3))}, "length of lane 0 = 2 and siblings = 0; a draft with"),
    ("model", lambda: {"lanes": lane(1, edits(COLUMNS))}, "names the token 60; the row has 60"),
    ("model", lambda: {"vocab": 0}, "vocab has 0 tokens"),
    ("model", lambda: {"vocab": -1}, "vocab has 0 tokens"),
    ("model", lambda: {"words": WORDS}, "words holds 60 at 53; its ids have to ascend, below vocab = 60"),
    ("model", lambda: {"words": WORDS[1:], "vocab": 90}, r"words has shape \(59\)"),
    ("model", lambda: {"words": WORDS[::-1].copy(), "vocab": 90}, "words holds 65 at 1; its ids"),
    ("model", lambda: {"words": WORDS * 0, "vocab": 90}, "words holds 0 at 1; its ids"),
    ("model", lambda: {"words": WORDS - 8, "vocab": 90}, "words holds -1 at 0"),
    ("model", lambda: {"words": WORDS.astype(np.int32)}, "words is int32; it has to be int64"),
    ("model", lambda: {"words": WORDS + 40, "vocab": 110}, "words of lane 0 lead to token 106.* table of 90"),
    ("model", lambda: {"then": Drafter("model", 90, columns=9).first}, "has width 9; .*that of words, 60"),
    ("model", lambda: {"then": program()}, "no output yet"),
    ("model", lambda: {"input": TEXT.target[2:]}, "input: the program takes none"),
    ("head", lambda: {"input": None}, "input: the program needs one"),
    ("head", lambda: {"input": TEXT.target}, r"input has shape \(5, 24\); it has to be \(3, 24\)"),
    ("head", lambda: {"first": Drafter("model", 90).first, "input": None}, "then has width 16; .* keep 0"),
    ("head", lambda: {"then": Drafter("head", 90).first}, "input of then has width 24; .* keep 16"),
    ("recurrent", lambda: {"states": None, "new_states": None}, "state of span 0 = -1"),
    ("recurrent", lambda: {"new_states": [[-1, -1, -1]]}, "state of lane 0 = -1; .* begins at 5 needs"),
    ("recurrent", lambda: {"new_states": [[]]}, "state of lane 0 = -1"),
    ("recurrent", lambda: {"lanes": lane(slots=[2, 3])}, "slots of lane 0 has 2 values; .* 4 tokens needs 3"),
    ("recurrent", lambda: {"lanes": lane(slots=[2, -1, 4])}, "state of lane 0 = -1; .* begins at 7 needs"),
    ("recurrent", lambda: {"lanes": lane(slots=[2, 2, 4])}, "new_states of lane 0 names slot 2"),
    ("recurrent", lambda: {"lanes": lane(slots=[2, 3, 999])}, "new_states of lane 0 names slot 999"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED)
def test_what_is_refused_leaves_all_as_it_was(
    kind: Kind, changes: Callable[[], dict[str, Any]], message: str
) -> None:
    drafter = Drafter(kind, 90)
    drafts.read(drafter, TEXT)
    keys, states = drafter.keys.copy(), drafter.states.copy()
    with pytest.raises((ValueError, TypeError), match=message):
        native.draft(**arguments(kind, drafter=drafter) | changes())
    assert np.array_equal(drafter.keys, keys, equal_nan=True)
    assert np.array_equal(drafter.states, states)
    [draft] = native.draft(**arguments(kind, drafter=drafter))
    assert len(draft.tokens) == 4
    assert not np.array_equal(drafter.keys, keys, equal_nan=True)


def test_the_last_state_of_a_draft_need_not_be_kept() -> None:
    drafter = Drafter("recurrent", 90)
    drafts.read(drafter, TEXT)
    [draft] = native.draft(**arguments("recurrent", drafter=drafter, lanes=lane(slots=[2, 3, -1])))
    assert len(draft.tokens) == 4
    assert draft.tokens == native.draft(**arguments("recurrent", drafter=drafter))[0].tokens
    assert (drafter.states[SLOTS - 1] == 7.5).all()


MADE: list[tuple[Callable[[], Any], str]] = [
    (lambda: native.Price(0.1, 0.1, 0, [], []), "sure is empty"),
    (lambda: native.Price(0.1, 0.1, -1, [1.0], []), "least = -1"),
    (lambda: native.Lane(CHOICE, 0, [], None, False, False), "length = 0 has to be 1 to 4096"),
    (lambda: native.Lane(CHOICE, 4097, [], None, False, False), "length = 4097"),
]


@pytest.mark.parametrize(("make", "message"), MADE)
def test_values_are_checked_as_they_are_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
