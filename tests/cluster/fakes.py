"""Replicas in this process that die where a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import numpy as np

from outrider.cluster.news import NotServed, ReplicaCall, ReplicaLost, ReplicaNews, Taken
from outrider.engine.generation import Resumption
from outrider.errors import RequestError
from outrider.formats.format import Floats
from outrider.metrics import Counter, Metric
from outrider.outputs import (
    CompletionOutput,
    Increment,
    Logprob,
    Logprobs,
    Piece,
    RequestMetrics,
    RequestOutput,
    SpeculationStats,
)
from outrider.serving.ollama.card import Card

LENGTH = 12
REFUSED = "this one is refused"


def token(seed: int, index: int, position: int) -> int:
    """Tokens are a function of the request alone."""
    return (seed * 31 + index * 17 + position * 7) % 1000


def logprobs_of(one: int) -> Logprobs:
    return {one: Logprob(-one / 1000, 1, str(one))}


def answer(seed: int, index: int) -> tuple[int, ...]:
    return tuple(token(seed, index, position) for position in range(LENGTH))


class DyingReplicas:
    """Each attempt at a call lives for as many increments as `lives` says next, and then its replica dies;
    after the last of them, for ever. Sequences grow by one or two tokens at a time.

    gate: what they tell waits for it. broken: an attempt ignores what was told before, as a resumption that
    does not work would.
    """

    def __init__(self, lives: Sequence[int | None], *, broken: bool = False) -> None:
        self._lives: Iterator[int | None] = iter(lives)
        self._broken = broken
        self.calls: list[ReplicaCall] = []
        self.open = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        self.calls.append(call)
        left = next(self._lives, None)
        self.open += 1
        try:
            if left == -1:
                raise ReplicaLost("it died before it had the call")
            if call.prompt.token_ids[0] == 0:
                yield NotServed(RequestError(REFUSED))
                return
            yield Taken(f"replica-{len(self.calls)}")
            await self.gate.wait()
            for increment in self._increments(call):
                if left == 0:
                    raise ReplicaLost("it died")
                yield increment
                left = None if left is None else left - 1
            if left == 0:
                raise ReplicaLost("it died with all told but the end")
            yield self._output(call)
        finally:
            self.open -= 1

    def _increments(self, call: ReplicaCall) -> Iterator[Increment]:
        seed = call.params.seed
        assert seed is not None
        said = () if self._broken else call.prompt.said
        done = [len(one.token_ids) for one in said or [Resumption()] * call.params.n]
        assert all(one.logprobs == tuple(map(logprobs_of, one.token_ids)) for one in said)
        while any(end < LENGTH for end in done):
            for index, end in enumerate(done):
                if end == LENGTH:
                    continue
                new = answer(seed, index)[end : end + 1 + (end + seed) % 2]
                done[index] = end + len(new)
                yield Increment(
                    request_id="0",
                    index=index,
                    token_ids=new,
                    pieces=tuple(Piece(one, f"{one} ", "target") for one in new),
                    drafted=len(new) - 1,
                    accepted=len(new) - 1,
                    finish_reason="length" if done[index] == LENGTH else None,
                    stop_reason=None,
                    logprobs=tuple(map(logprobs_of, new)),
                )

    def _output(self, call: ReplicaCall) -> RequestOutput:
        outputs = tuple(
            CompletionOutput(
                index,
                "",
                answer(call.params.seed or 0, index),
                None,
                None,
                "length",
                None,
                SpeculationStats(),
            )
            for index in range(call.params.n)
        )
        times = RequestMetrics(0.0, None, None, None, None, ())
        return RequestOutput("0", None, tuple(call.prompt.token_ids), None, outputs, True, 0, times)

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        if next(self._lives, None) is not None:
            raise ReplicaLost("it died")
        return np.asarray(token_ids, np.float32)

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        return [Counter(name, {**labels, "replica": replica}, 1.0) for replica in "ab" for name in ("x", "y")]

    async def card(self, name: str, modified: str) -> Card:
        raise NotImplementedError


async def no_pause(_: float) -> Any:
    """For `resuming`."""
