"""One request that goes on elsewhere when its replica is lost, at the very token where it broke off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from outrider.cluster.news import NotServed, ReplicaCall, ReplicaLost, Replicas, Taken
from outrider.engine.generation import EngineFailed, Resumption
from outrider.outputs import Increment, Logprobs, RequestOutput, SpeculationStats

logger = logging.getLogger(__name__)

MOST_LOSSES = 6
"""Replicas that a request may lose without a token in between: it may be the request that kills them."""
FIRST_PAUSE = 0.05
"""Seconds after the first loss; twice as many after each that follows without a token."""


class ToldSoFar:
    """What was told of one sequence, by whichever replicas."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._logprobs: list[Logprobs] = []
        self._drafts = SpeculationStats()  # of this replica
        self._lost_drafts = SpeculationStats()  # of those before

    def add(self, increment: Increment) -> None:
        self._tokens += increment.token_ids
        self._logprobs += increment.logprobs or ()
        self._drafts += SpeculationStats.of_draft(increment.drafted, increment.accepted)

    def break_off(self) -> Resumption:
        """What the next replica has to know."""
        self._lost_drafts, self._drafts = self._lost_drafts + self._drafts, SpeculationStats()
        return Resumption(tuple(self._tokens), tuple(self._logprobs))

    def with_all_drafts(self, drafts: SpeculationStats) -> SpeculationStats:
        """drafts: of the last replica."""
        return self._lost_drafts + drafts


async def resuming(
    replicas: Replicas,
    call: ReplicaCall,
    *,
    taken: Callable[[str], object],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncGenerator[Increment | RequestOutput, None]:
    """Serve a call to its end, whatever replicas are lost: its increments, and at last the whole output.
    `call.params` has a seed.

    Tokens are a function of the request alone. So what was told is not computed again: the next replica takes
    it over, as text that is there already, and goes on behind it.

    taken: is told the name of each replica that takes it. Raises what it is refused with, and EngineFailed
    where one replica after the other is lost without a token in between.
    """
    told = [ToldSoFar() for _ in range(call.params.n)]
    losses = 0
    while True:
        stream = replicas.send(call)
        try:
            async for news in stream:
                match news:
                    case Taken(replica):
                        taken(replica)
                    case Increment():
                        losses = 0
                        told[news.index].add(news)
                        yield news
                    case NotServed(error):
                        raise error
                    case RequestOutput():
                        yield _with_all_drafts(news, told)
                        return
            raise ReplicaLost("its stream ended early")
        except ReplicaLost as lost:
            losses += 1
            if losses >= MOST_LOSSES:
                logger.error("a request was given up: it lost %d replicas without a token between", losses)
                raise EngineFailed(
                    f"{losses} replicas were lost one after the other before a token came; try again later"
                ) from None
            logger.warning("a replica was lost, and a request goes on elsewhere: %s", lost)
        finally:
            await stream.aclose()
        call = replace(call, prompt=replace(call.prompt, said=tuple(one.break_off() for one in told)))
        await pause(FIRST_PAUSE * 2 ** (losses - 1))


def _with_all_drafts(output: RequestOutput, told: list[ToldSoFar]) -> RequestOutput:
    return replace(
        output,
        outputs=tuple(
            replace(one, speculation=told[one.index].with_all_drafts(one.speculation))
            for one in output.outputs
        ),
    )
