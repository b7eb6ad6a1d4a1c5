"""Small drafters, and what they draft by definition: a token at a time, each draft alone, in Python."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from tests.ops.choosing import Edit, Filters, Price, allow, bar, choice, edited, penalise, tokens_of
from tests.ops.oracle import Array, Attention, softmax
from tests.ops.programs import BEST, attend, matrix, native, new_cache, numbers, program

HIDDEN, TARGET, COLUMNS, BLOCK, BLOCKS, SLOTS = 16, 24, 60, 4, 120, 160
LAYER = Attention(2, 1, 8, 0.35)
Kind = Literal["model", "head", "recurrent"]
KINDS: tuple[Kind, ...] = ("model", "head", "recurrent")


def weight(outputs: int, inputs: int, seed: int) -> Any:
    return matrix(numbers(outputs, inputs, seed=seed, scale=2 * inputs**-0.5))


class Drafter:
    """Two programs over one cache, or twice the same. table: tokens that can be read.

    'head': the first reads a target's states, and hands its own on to the second. 'recurrent': a layer keeps
    states beside K and V.
    """

    def __init__(self, kind: Kind, table: int, *, columns: int = COLUMNS, threads: int = 1) -> None:
        self.kind, self.table, self.columns, self.threads = kind, table, columns, threads
        self.keys, self.values = new_cache(LAYER, BLOCKS, BLOCK)
        self.states = np.full((SLOTS, 2, HIDDEN), 7.5, np.float32)
        self.first = self._recorded(TARGET if kind == "head" else None)
        self.then = self._recorded(HIDDEN) if kind == "head" else self.first

    def _recorded(self, width: int | None) -> Any:
        p = program(BEST, self.threads)
        x = p.embed(matrix(numbers(self.table, HIDDEN, seed=1)))
        if width is not None:
            x = p.linear(p.input(width), [weight(HIDDEN, width, width)], x)
        if self.kind == "recurrent":
            taps = numbers(HIDDEN, 3, seed=6)
            x = p.linear(p.convolve(x, taps, None, self.states), [weight(HIDDEN, HIDDEN, 7)], x)
        seen = attend(p, p.linear(x, [weight(LAYER.width, HIDDEN, 2)]), LAYER, self.keys, self.values)
        x = p.norm(p.linear(seen, [weight(HIDDEN, HIDDEN, 3)], x), np.ones(HIDDEN, np.float32), 1e-5)
        x = p.select_logit_rows(x)
        if self.kind == "head":
            p.keep(x)
        p.output(p.linear(x, [weight(self.columns, HIDDEN, 4)]))
        return p


@dataclass
class Text:
    """A request: its tokens, of which `read` were computed before, and the target's states at them.

    blocks: enough for any draft; slots: of the states after what was read, after all of it, and after drafted
    tokens.
    """

    tokens: list[int]
    read: int
    target: Array
    blocks: list[int]
    slots: list[int]

    def state(self) -> int:
        return self.slots[0] if self.read else -1

    def new_states(self) -> list[int]:
        return [-1] * (len(self.tokens) - self.read - 1) + [self.slots[1]]


@dataclass
class Wanted:
    """What a lane asks for."""

    filters: Filters | None = None
    key: int = 1
    position: int = 0
    length: int = 1
    stops: list[int] = field(default_factory=list)
    price: Price | None = None
    edits: list[Edit] = field(default_factory=list)

    def lane(self, slots: Sequence[int] = ()) -> Any:
        edits = [self.edits] if self.edits else []
        wanted = choice(1, self.filters, self.key, self.position, edits)
        price = self.price and self.price.native
        return native.Lane(wanted, self.length, self.stops, price, True, True, list(slots))


@dataclass
class Draft:
    tokens: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    scores: list[Array] = field(default_factory=list)


def read(drafter: Drafter, text: Text) -> None:
    """Compute the beginning of a text."""
    if text.read:
        run(
            drafter,
            drafter.first,
            text.tokens[: text.read],
            0,
            text,
            text.target[: text.read],
            -1,
            text.slots[0],
        )


def run(
    drafter: Drafter,
    p: Any,
    tokens: list[int],
    start: int,
    text: Text,
    states: Array,
    before: int,
    after: int,
) -> tuple[Array, Array]:
    """One pass over a text: the logits of its last row, and what is kept of it."""
    kept = np.empty((1, HIDDEN), np.float32)
    head = drafter.kind == "head"
    slots = ([before], [[-1] * (len(tokens) - 1) + [after]]) if drafter.kind == "recurrent" else ()
    logits = p.run(
        tokens,
        [start],
        [len(tokens)],
        [[text.blocks]],
        [1],
        np.ascontiguousarray(states) if head else None,
        kept if head else None,
        *slots,
    )
    return logits[0], kept


def alone(drafter: Drafter, text: Text, wanted: Wanted, words: Array | None, vocab: int) -> Draft:
    """The draft by its definition."""
    read(drafter, text)
    tokens, start, slots = text.tokens[text.read :], text.read, text.slots
    logits, kept = run(
        drafter, drafter.first, tokens, start, text, text.target[start:], text.state(), slots[1]
    )
    start, draft, price = start + len(tokens), Draft(), wanted.price and replace(wanted.price)
    known = np.arange(min(drafter.columns, vocab)) if words is None else words
    while True:
        row = logits[: len(known)]
        shares = softmax(row.astype(np.float64))
        confidence = float(shares.max())
        if price is not None and not price.takes(confidence):
            return draft
        spread = np.full((1, vocab), -np.inf, np.float32)
        spread[0, known] = row
        spread[0] = edited(spread[0], wanted.edits)
        at = choice(1, wanted.filters, wanted.key, wanted.position + len(draft.tokens))
        token = tokens_of(spread, at)[0]
        if token < 0:
            return draft
        draft.tokens.append(token)
        draft.chances.append(float(shares[np.searchsorted(known, token)]))
        scores = native.scores(spread, at, BEST)[0]
        draft.scores.append(scores if wanted.edits else scores[known])
        if price is not None:
            draft.confidences.append(confidence)
        if token in wanted.stops or len(draft.tokens) >= wanted.length:
            return draft
        if price is not None and not price.goes_on():
            return draft
        done = len(draft.tokens)
        logits, kept = run(drafter, drafter.then, [token], start, text, kept, slots[done], slots[done + 1])
        start += 1


def together(
    drafter: Drafter, texts: Sequence[Text], wanted: Sequence[Wanted | None], words: Array | None, vocab: int
) -> list[Any]:
    """The drafts in one call."""
    for text in texts:
        read(drafter, text)
    slots: tuple[Any, ...] = ()
    if drafter.kind == "recurrent":
        slots = ([text.state() for text in texts], [text.new_states() for text in texts])
    states = np.concatenate([text.target[text.read :] for text in texts])
    return list(
        native.draft(
            drafter.first,
            drafter.then,
            [token for text in texts for token in text.tokens[text.read :]],
            [text.read for text in texts],
            [len(text.tokens) - text.read for text in texts],
            [[text.blocks] for text in texts],
            [
                None if one is None else one.lane(text.slots[2:])
                for text, one in zip(texts, wanted, strict=True)
            ],
            words,
            vocab,
            states if drafter.kind == "head" else None,
            *slots,
        )
    )


def compare(got: Any, expected: Draft) -> None:
    assert got.tokens == expected.tokens
    np.testing.assert_allclose(got.confidences, expected.confidences, rtol=1e-5)
    np.testing.assert_allclose(got.chances, expected.chances, rtol=1e-5)
    assert len(got.scores) == len(expected.scores)
    for row, wanted in zip(got.scores, expected.scores, strict=True):
        assert np.array_equal(row, wanted)


LONGEST = 7


def some_texts(draw: random.Random, count: int, table: int) -> list[Text]:
    blocks, slots = draw.sample(range(BLOCKS), BLOCKS), draw.sample(range(SLOTS), SLOTS)
    texts = []
    for _ in range(count):
        length = draw.randint(1, 14)
        needed = -(-(length + LONGEST) // BLOCK)
        texts.append(
            Text(
                [draw.randrange(table) for _ in range(length)],
                draw.randint(0, length - 1),
                numbers(length, TARGET, seed=draw.getrandbits(16)),
                [blocks.pop() for _ in range(needed)],
                [slots.pop() for _ in range(LONGEST + 1)],
            )
        )
    return texts


def some_wanted(draw: random.Random, vocab: int) -> Wanted:
    filters = draw.choice(
        (None, Filters(), Filters(0.6), Filters(1.5, top_k=5), Filters(1.0, 0.05), Filters(0.8, top_p=0.7))
    )
    wanted = Wanted(filters, draw.getrandbits(64), draw.randint(0, 1000), draw.randint(1, LONGEST))
    if draw.random() < 0.4:
        wanted.stops = draw.sample(range(vocab), vocab // 4)
    if draw.random() < 0.6:
        sure, reached = ([draw.uniform(0.3, 1) for _ in range(n)] for n in (12, draw.randint(0, 5)))
        row, token = draw.uniform(0, 0.5), draw.uniform(0, 0.4)
        wanted.price = Price(row, token, draw.randint(0, 3), sure, reached)
    if draw.random() < 0.3:
        wanted.length = 1
        half = draw.sample(range(vocab), vocab // 2)
        mask = np.zeros(vocab, bool)
        mask[half] = draw.random() < 0.9
        wanted.edits = draw.choice(([bar(half)], [allow(mask)], [penalise(half, 1.7), bar(half[:9])]))
    return wanted


def random_drafts(draw: random.Random, kind: Kind) -> int:
    """Some drafts in one call, each as it is alone; how many tokens they have."""
    vocab = draw.choice((50, COLUMNS, 90))
    words = None
    if draw.random() < 0.5:
        vocab = 90
        words = np.array(sorted(draw.sample(range(vocab), COLUMNS)), np.int64)
    table = max(vocab, COLUMNS)
    texts = some_texts(draw, draw.randint(1, 5), table)
    wanted = [some_wanted(draw, vocab) if draw.random() < 0.85 else None for _ in texts]
    drafter = Drafter(kind, table, threads=draw.randint(1, 3))
    got = together(drafter, texts, wanted, words, vocab)
    count = 0
    for text, one, draft in zip(texts, wanted, got, strict=True):
        if one is None:
            assert draft is None
        else:
            compare(draft, alone(Drafter(kind, table), text, one, words, vocab))
            count += len(draft.tokens)
    return count
