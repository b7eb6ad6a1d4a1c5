"""Texts of finished requests: who sees them, and how much of them is kept."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from outrider import SamplingParams
from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_store import GENERATIONS, SuffixStore
from outrider.engine.request import Request
from outrider.ops.budget import Budget
from tests.fakes import stub

TEXT = (*range(100, 130),)
SALTS = (None, "", "a", "b")


def request(tokens: Sequence[int], salt: str | None = None) -> Request:
    asked = stub()
    asked.tokens = [*tokens]
    if salt is not None:
        asked.params = SamplingParams.model_construct(cache_salt=salt)
    return asked


def drafted(store: SuffixStore, tokens: Sequence[int], salt: str | None = None) -> tuple[int, ...]:
    return SuffixDrafter(2, 64, store).draft([request(tokens, salt)], [Budget(4)])[0].tokens


def test_finished_requests_draft_for_others() -> None:
    store = SuffixStore(2**20)
    of, first = SuffixDrafter(2, 64, store), request(TEXT)
    of.draft([first], [Budget(4)])
    of.end(first)
    assert drafted(store, (7, 110, 111)) == (), "a request that was preempted or that failed is not finished"
    first.finish_reason = "error"
    of.end(first)
    assert drafted(store, (7, 110, 111)) == ()
    first.finish_reason = "stop"
    of.end(first)
    assert drafted(store, (7, 110, 111)) == (112, 113, 114, 115)
    assert drafted(store, (7, 110)) == (), "two tokens have to match"


@pytest.mark.parametrize("writes", SALTS)
@pytest.mark.parametrize("reads", SALTS)
def test_a_salt_shares_with_itself_alone(writes: str | None, reads: str | None) -> None:
    store = SuffixStore(2**20)
    store.add(writes, TEXT)
    assert bool(drafted(store, TEXT[:5], reads)) == (writes == reads)


def test_a_running_request_sees_what_comes_and_what_goes() -> None:
    store = SuffixStore(2**20)
    of, asked = SuffixDrafter(2, 64, store), request((1, 2, 110, 111))
    assert of.draft([asked], [Budget(2)])[0].tokens == ()
    store.add(None, TEXT)
    assert of.draft([asked], [Budget(2)])[0].tokens == (112, 113)
    asked.tokens += [112]
    store.add(None, (5, 111, 112, 9, 111, 112, 9))
    assert of.draft([asked], [Budget(2)])[0].tokens == (113, 114), "the longest match counts"
    draw = random.Random(0)
    for _ in range(40):
        store.add("other", [draw.randrange(5000) for _ in range(1000)])
    assert of.draft([asked], [Budget(2)])[0].tokens == ()


def test_its_own_text_counts_where_it_matches_as_long() -> None:
    store = SuffixStore(2**20)
    store.add(None, (1, 2, 3))
    assert drafted(store, (1, 2, 4, 1, 2))[:1] == (4,)
    assert drafted(store, (9, 1, 2))[:1] == (3,)


@pytest.mark.parametrize("limit", [0, 2**12, 2**18, 2**20, 3_000_000])
def test_it_keeps_within_its_memory(limit: int) -> None:
    """Whatever comes: many texts or long ones, of one salt or of many, such as repeat themselves or not."""
    store, draw = SuffixStore(limit), random.Random(limit)
    running = SuffixDrafter(1, 64, store)
    held = [request([1, 2], salt) for salt in SALTS]
    for number in range(150):
        length, kinds = draw.choice([1, 20, 500, 30_000 if number % 30 == 0 else 700]), draw.choice([2, 5000])
        store.add(draw.choice([*SALTS, f"tenant {number}"]), [draw.randrange(kinds) for _ in range(length)])
        running.draft(held[:2], [Budget(1)] * 2)
        kept = sum(each.automaton.bytes for each in store._generations)
        assert kept == store.bytes <= limit
    if limit >= 2**20:
        assert store.bytes > limit / 2


def test_the_oldest_texts_go_first() -> None:
    store, draw = SuffixStore(2**20), random.Random(0)
    texts = [[draw.randrange(50_000) for _ in range(500)] for _ in range(60)]
    for text in texts:
        store.add(None, text)
    known = [bool(drafted(store, text[:200])) for text in texts]
    assert known == sorted(known)
    assert not known[0]
    assert sum(known) > 60 * 0.3
    assert 2 < len(store._generations) <= 2 * GENERATIONS, "many of them, so that few texts go at a time"


def test_the_end_of_a_text_that_is_too_long_is_kept() -> None:
    store, text = SuffixStore(2**18), [*range(20_000)]
    store.add(None, text)
    assert drafted(store, text[100:110]) == ()
    assert drafted(store, text[-20:-10]) == tuple(text[-10:-6])
