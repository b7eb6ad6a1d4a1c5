"""Replicas behind one engine's face."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, cast

import pytest

from outrider import SamplingParams
from outrider.cluster.engine import ReplicatedEngine
from outrider.engine.generation import EngineFailed, EngineStopped, Generation, QueueFull, TextPrompt
from outrider.errors import ConfigError, RequestError
from outrider.serving.model import ServedModel
from tests.cluster.fakes import REFUSED, DyingReplicas, answer

PROMPT = TextPrompt(list(range(1, 40)))


def engine_of(replicas: DyingReplicas, capacity: float = 8) -> ReplicatedEngine:
    facts: dict[str, Any] = {"block_size": 16, "seed": 7, "max_num_seqs": 4, "max_model_len": 100}
    others = {name: None for name in ServedModel.__dataclass_fields__ if name not in facts}
    engine = ReplicatedEngine(replicas, ServedModel(**cast(Any, facts | others)), capacity=capacity)
    engine.start()
    return engine


async def tokens_of(generation: Generation) -> list[tuple[int, ...]]:
    """The tokens of each sequence of each prompt, as a stream tells them."""
    told: dict[tuple[int, int], tuple[int, ...]] = {}
    async with generation:
        async for number, increment in generation:
            place = number, increment.index
            told[place] = told.get(place, ()) + increment.token_ids
    return [told[place] for place in sorted(told)]


def test_calls_go_on_elsewhere() -> None:
    """Each prompt of a call keeps the seed that the ingress has drawn for it."""

    async def run() -> None:
        replicas = DyingReplicas([3, 2, None, 1])
        engine = engine_of(replicas)
        generation = engine.generate([PROMPT, TextPrompt([40])], SamplingParams(n=2))
        told = await tokens_of(generation)
        seeds = {(call.prompt.token_ids[0], call.params.seed) for call in replicas.calls}
        assert len(replicas.calls) == 5
        assert len(seeds) == 2, "of five attempts at two prompts"
        (_, first), (_, second) = sorted(seeds)
        assert None not in (first, second)
        assert first != second
        assert told == [answer(seed or 0, index) for seed in (first, second) for index in (0, 1)]
        assert [output.outputs[1].token_ids for output in generation.outputs] == [told[1], told[3]]
        assert len(generation.replicas) >= 3
        assert (engine.num_sequences, replicas.open) == (0, 0)

    asyncio.run(run())


def test_a_prefix_is_that_of_the_cache() -> None:
    """Equal beginnings have equal digests, one a whole block, and a salt changes them all."""

    async def run() -> None:
        replicas = DyingReplicas([])
        engine = engine_of(replicas)
        longer = TextPrompt([*range(1, 33), 9, 9])
        for prompt, salt in ((PROMPT, None), (longer, None), (PROMPT, "s")):
            await tokens_of(engine.generate([prompt], SamplingParams(seed=1, cache_salt=salt)))
        first, second, salted = (call.prefix for call in replicas.calls)
        assert len(first) == 2
        assert first == second
        assert not set(first) & set(salted)

    asyncio.run(run())


def test_seats() -> None:
    async def run() -> None:
        replicas = DyingReplicas([])
        engine = engine_of(replicas, capacity=2)
        with pytest.raises(RequestError, match="3 sequences"):
            await tokens_of(engine.generate([PROMPT], SamplingParams(n=3)))
        replicas.gate.clear()
        async with engine.generate([PROMPT], SamplingParams(n=2)):
            with pytest.raises(QueueFull):
                await tokens_of(engine.generate([PROMPT], SamplingParams()))
        replicas.gate.set()
        await tokens_of(engine.generate([PROMPT], SamplingParams()))

    asyncio.run(run())


@pytest.mark.parametrize(("lives", "error"), [([], RequestError), ([-1] * 50, EngineFailed)])
def test_what_cannot_be_queued_is_raised_before_the_first_token(
    lives: list[int], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outrider.cluster.resuming.FIRST_PAUSE", 0.0)

    async def run() -> None:
        replicas = DyingReplicas(lives)
        engine = engine_of(replicas)
        prompts = [PROMPT, TextPrompt([0])]
        with pytest.raises(error, match=REFUSED if error is RequestError else "were lost"):
            await engine.enter(engine.generate(prompts, SamplingParams()))
        await asyncio.sleep(0.01)
        assert (engine.num_sequences, replicas.open) == (0, 0)

    asyncio.run(run())


def test_who_leaves_is_given_up() -> None:
    async def run() -> None:
        replicas = DyingReplicas([])
        engine = engine_of(replicas)
        replicas.gate.clear()
        async with engine.generate([PROMPT], SamplingParams(n=2)):
            assert engine.num_sequences == 2
        await asyncio.sleep(0.01)
        assert (engine.num_sequences, replicas.open) == (0, 0)

    asyncio.run(run())


def test_an_end() -> None:
    async def run() -> None:
        engine = engine_of(DyingReplicas([]))
        assert engine.stopped is None
        assert await engine.drain(1.0)
        assert engine.stopped == "the server is shutting down"
        with pytest.raises(EngineStopped):
            await tokens_of(engine.generate([PROMPT], SamplingParams()))
        with pytest.raises(EngineStopped):
            await engine.embed([1])

    asyncio.run(run())


def test_embeddings_and_metrics() -> None:
    async def run() -> None:
        engine = engine_of(DyingReplicas([1, 1]))
        assert (await engine.embed([3, 4])).tolist() == [3.0, 4.0]
        seen = await engine.metrics({"model_name": "m"})
        assert [(one.name, one.labels["replica"]) for one in seen] == [
            ("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")
        ]  # fmt: skip

    asyncio.run(run())


def test_what_a_replica_says_can_be_sent() -> None:
    for error in (QueueFull("full", 2.5), ConfigError("wrong", "field"), RequestError("no")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
