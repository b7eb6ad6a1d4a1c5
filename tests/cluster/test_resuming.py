"""A stream goes on at the very token where its replica died."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import SamplingParams
from outrider.cluster.news import ReplicaCall
from outrider.cluster.resuming import MOST_LOSSES, resuming
from outrider.engine.generation import EngineFailed, TextPrompt
from outrider.errors import RequestError
from outrider.outputs import Increment, RequestOutput
from tests.cluster.fakes import DyingReplicas, answer, logprobs_of, no_pause

CALL = ReplicaCall(TextPrompt([1, 2, 3]), SamplingParams(seed=5, n=2, logprobs=1), 0, ())


def told(replicas: DyingReplicas, call: ReplicaCall = CALL) -> list[Increment | RequestOutput]:
    async def listen() -> list[Increment | RequestOutput]:
        stream = resuming(replicas, call, taken=lambda _: None, pause=no_pause)
        return [news async for news in stream]

    return asyncio.run(listen())


def check(news: list[Increment | RequestOutput], seed: int, sequences: int) -> None:
    """No token twice, none missing, each with what belongs to it."""
    *increments, output = news
    assert isinstance(output, RequestOutput)
    for index in range(sequences):
        own = [i for i in increments if isinstance(i, Increment) and i.index == index]
        tokens = tuple(token for i in own for token in i.token_ids)
        assert tokens == answer(seed, index) == output.outputs[index].token_ids
        assert [piece.token_id for i in own for piece in i.pieces] == list(tokens)
        assert [one for i in own for one in i.logprobs or ()] == list(map(logprobs_of, tokens))
        assert [i.finish_reason for i in own if i.finish_reason] == ["length"]


@given(
    lives=st.lists(st.integers(-1, 30), max_size=8),
    seed=st.integers(0, 2**63 - 1),
    sequences=st.integers(1, 4),
)
def test_no_token_twice_and_none_missing(lives: list[int], seed: int, sequences: int) -> None:
    """Wherever replicas die: before they have the call, before a token, within, and before the end."""
    lives = [life if life > 0 or n % 3 else 1 for n, life in enumerate(lives)]  # not six in vain in a row
    replicas = DyingReplicas(lives)
    call = replace(CALL, params=SamplingParams(seed=seed, n=sequences, logprobs=1))
    check(told(replicas, call), seed, sequences)
    assert replicas.open == 0
    for before, after in zip(replicas.calls, replicas.calls[1:], strict=False):
        assert after.params == before.params, "the seed is that of the first try"


def test_a_replica_that_begins_anew_would_be_seen() -> None:
    """The fault that these tests are there for."""
    with pytest.raises(AssertionError):
        check(told(DyingReplicas([3], broken=True)), 5, 2)


def test_drafts_of_all_replicas_are_counted() -> None:
    news = told(DyingReplicas([3, 4]))
    drafted = [sum(i.drafted for i in news[:-1] if isinstance(i, Increment) and i.index == n) for n in (0, 1)]
    assert isinstance(news[-1], RequestOutput)
    lost = [one.speculation.drafted for one in news[-1].outputs]
    assert 0 < sum(lost) < sum(drafted), "the fake tells nothing of the last replica's"


def test_a_request_that_kills_replicas_is_given_up() -> None:
    replicas = DyingReplicas([0] * 100)
    with pytest.raises(EngineFailed, match=f"{MOST_LOSSES} replicas were lost one after the other"):
        told(replicas)
    assert len(replicas.calls) == MOST_LOSSES


def test_who_gets_a_token_each_time_is_not() -> None:
    check(told(DyingReplicas([1] * 20)), 5, 2)


def test_what_is_refused_is_not_tried_elsewhere() -> None:
    replicas = DyingReplicas([])
    with pytest.raises(RequestError, match="this one is refused"):
        told(replicas, replace(CALL, prompt=TextPrompt([0])))
    assert len(replicas.calls) == 1


def test_pauses_grow() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def listen() -> None:
        async for _ in resuming(DyingReplicas([0, -1, 0, 2, 0]), CALL, taken=lambda _: None, pause=pause):
            pass

    asyncio.run(listen())
    assert pauses == [0.05, 0.1, 0.2, 0.05, 0.1]
