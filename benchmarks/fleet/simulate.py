"""The events of a fleet: a request comes, and a replica's steps have been computed.

The events are in a heap of our own. SimPy is made for processes that wait for each other; here the only
resource is a replica, whose next event is moved whenever a request comes, which in SimPy is an interrupted
process, three events in place of one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fleet.costs import Costs, Length
from benchmarks.fleet.measured import Latencies
from benchmarks.fleet.replica import Done, Replica
from benchmarks.fleet.routers import Router
from benchmarks.fleet.workload import Request, Workload

MakeRouter = Callable[[Sequence[Replica], np.random.Generator], Router]


@dataclass(frozen=True)
class Fleet:
    """cache_tokens: positions that a replica keeps of requests that have ended."""

    costs: Costs
    length: Length
    router: MakeRouter
    replicas: int
    cache_tokens: int = 65536


@dataclass(frozen=True)
class Seen(Latencies):
    """What was seen of a fleet in a while. busy: the share of the replicas' time that they computed; cached:
    of the prompts' tokens; length: tokens that a request got in a step."""

    requests: int
    busy: float
    cached: float
    length: float


@dataclass
class Ran:
    """A run from the first request to the end of the last. system: the sum of the seconds that requests were
    there, by how many there were between events."""

    replicas: int
    requests: list[Request] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    end: float = 0.0
    system: float = 0.0

    def seen(self, since: float, until: float) -> Seen:
        """What was seen of the requests that came in that time, and of the steps that ended in it."""
        requests = [request for request in self.requests if since <= request.arrived <= until]
        first = np.array([request.first - request.arrived for request in requests])
        done = [each for each in self.done if since <= each.end <= until]
        seconds, steps, decoding, tokens = np.array([each[1:] for each in done]).T
        gaps = steps * decoding
        read = sum(request.first <= until for request in requests)  # first tokens, to which no gap belongs
        return Seen(
            requests=len(requests),
            tokens_per_second=float(tokens.sum() / (until - since)),
            ttft_mean=float(first.mean()),
            ttft_p50=float(np.quantile(first, 0.5)),
            ttft_p99=float(np.quantile(first, 0.99)),
            itl_mean=float(np.average(seconds, weights=gaps)),
            itl_p50=quantile(seconds, gaps, 0.5),
            itl_p99=quantile(seconds, gaps, 0.99),
            tpot_mean=float(
                np.mean([(r.ended - r.first) / (r.answer - 1) for r in requests if r.answer > 1])
            ),
            busy=float((seconds * steps).sum() / (until - since) / self.replicas),
            cached=sum(request.cached for request in requests) / sum(request.prompt for request in requests),
            length=float((tokens.sum() - read) / gaps.sum()),
        )


def quantile(values: npt.NDArray[Any], weights: npt.NDArray[Any], share: float) -> float:
    """The least value such that this share of the weight lies at it or below."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def conversations(fleet: Fleet, workload: Workload, rate: float, seconds: float, seed: int) -> Ran:
    """Conversations that begin as a Poisson stream for so many seconds, and ask `rate` requests a second
    together. Those that would be on their way at the beginning are: each thinks before one of its turns."""
    random = np.random.default_rng(seed)
    of_conversations = rate / workload.turns
    starts = np.cumsum(random.exponential(1 / of_conversations, int(of_conversations * seconds)))
    requests = [workload.first(number, at, random) for number, at in enumerate(starts.tolist())]
    numbers = count(len(requests))
    for _ in range(int(of_conversations * (workload.turns - 1) * workload.think)):
        requests.append(workload.underway(next(numbers), random))
    return run(fleet, requests, lambda last: workload.next(last, random), random)


def run(
    fleet: Fleet,
    requests: Iterable[Request],
    following: Callable[[Request], Request | None],
    random: np.random.Generator,
) -> Ran:
    """Serve these requests, and those that follow each when it has ended, to the end of all."""
    replicas = [Replica(fleet.costs, fleet.length, fleet.cache_tokens, random) for _ in range(fleet.replicas)]
    router = fleet.router(replicas, random)
    ran, number = Ran(fleet.replicas), count()
    events: list[tuple[float, int, Request | int, int]] = []
    for request in requests:
        events.append((request.arrived, next(number), request, 0))
    heapq.heapify(events)
    now, there = 0.0, 0
    while events:
        at, _, what, version = heapq.heappop(events)
        if isinstance(what, Request):
            ran.system += there * (at - now)
            now = at
            there += 1
            ran.requests.append(what)
            chosen = router.choose(what)
            end = replicas[chosen].add(what, now)
            router.changed(chosen)
            heapq.heappush(events, (end, next(number), chosen, replicas[chosen].version))
            continue
        replica = replicas[what]
        if version != replica.version:
            continue  # a request came meanwhile
        ran.system += there * (at - now)
        now = at
        ended, end_of_next = replica.step()
        there -= len(ended)
        if ended:
            router.changed(what)
            router.ended(len(ended))
        for request in ended:
            if (after := following(request)) is None:
                router.forget(request.conversation)
            else:
                heapq.heappush(events, (after.arrived, next(number), after, 0))
        if end_of_next is not None:
            heapq.heappush(events, (end_of_next, next(number), what, replica.version))
    ran.end = now
    ran.done = [done for replica in replicas for done in replica.done]
    return ran
