"""A replica: an engine with continuous batching, whose steps take what was measured.

As `outrider.engine.scheduler` does, each step gives every request that decodes a row and its draft, and
prompts so many rows as there may be, in the order of their arrival. While nothing comes or ends, steps are
alike, so several of them are one event; a request that comes in the middle is taken in after the step that
is being computed.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.fleet.costs import Costs, Length
from benchmarks.fleet.workload import Request

TOGETHER, READING = 32, 4  # steps of one event at most: contexts grow meanwhile, those of prompts quicker
BLOCK = 16  # tokens of a block of the cache


@dataclass(slots=True)
class Steps:
    """Steps that are being computed. each: seconds; chunks: rows of prompts, by request, in each; tokens:
    [count, decoding], what requests have after each step."""

    began: float
    each: float
    count: int
    chunks: list[tuple[Request, int]]
    tokens: npt.NDArray[np.int64]

    @property
    def end(self) -> float:
        return self.began + self.each * self.count


class Done(NamedTuple):
    """Steps that were computed until `end`, of `each` seconds: so many requests decoded in each, and so many
    tokens were written in all."""

    end: float
    each: float
    steps: int
    decoding: int
    tokens: int


class Replica:
    """load: requests that it has. steps: what it computes; None: it is idle. version: of its next event,
    which another one may have made void. done: what it has computed."""

    def __init__(self, costs: Costs, length: Length, cache_tokens: int, random: np.random.Generator) -> None:
        self._costs = costs
        self._length = length
        self._random = random
        self._size = cache_tokens
        self._held = 0
        self._cached: OrderedDict[int, int] = OrderedDict()
        self._waiting: deque[Request] = deque()
        self._reading: list[Request] = []
        self._decoding: list[Request] = []
        self.steps: Steps | None = None
        self.version = 0
        self.load = 0
        self.done: list[Done] = []

    def add(self, request: Request, now: float) -> float:
        """A request has come; returns when the next event of the replica is."""
        self.load += 1
        self._waiting.append(request)
        if self.steps is None:
            self._begin(now)
        elif self.steps.count > 1:
            done = math.floor((now - self.steps.began) / self.steps.each)
            self.steps.count = min(self.steps.count, done + 1)
        self.version += 1
        assert self.steps is not None
        return self.steps.end

    def step(self) -> tuple[list[Request], float | None]:
        """The steps have been computed: who has ended, and when the next event is."""
        steps = self.steps
        assert steps is not None
        now = steps.end
        decoding, written = len(self._decoding), 0
        for request, tokens in zip(self._decoding, steps.tokens[steps.count - 1].tolist(), strict=True):
            got = min(request.answer - request.written, tokens)
            request.written += got
            written += got
        for request, rows in steps.chunks:
            request.unread -= rows * steps.count
            if not request.unread:
                request.first, request.written = now, 1
                written += 1
                self._reading.remove(request)
                self._decoding.append(request)
        self.done.append(Done(now, steps.each, steps.count, decoding, written))
        ended = [request for request in self._decoding if request.written >= request.answer]
        for request in ended:
            request.ended = now
            self._decoding.remove(request)
            self._keep(request)
        self.load -= len(ended)
        self.version += 1
        self._begin(now)
        return ended, None if self.steps is None else self.steps.end

    def _begin(self, now: float) -> None:
        chunks = self._chunks()
        if not self._decoding and not chunks:
            self.steps = None
            return
        requests = [*self._decoding, *self._reading]
        rows = sum(rows for _, rows in chunks)
        context = sum(request.context for request in requests) / len(requests)
        lengths = self._length.lengths(len(self._decoding), rows, context)
        each = self._costs.seconds(lengths, rows, context, len(requests))
        count = self._most(chunks)
        tokens = self._costs.tokens(lengths, count, self._random).cumsum(axis=0)
        if count > 1 and self._decoding:
            left = np.array([request.answer - request.written for request in self._decoding])
            over = (tokens >= left).any(axis=1)
            count = int(over.argmax()) + 1 if over.any() else count
        self.steps = Steps(now, each, count, chunks, tokens)

    def _most(self, chunks: Sequence[tuple[Request, int]]) -> int:
        """Steps that are alike: nobody ends before the last one, and all read the same rows of one prompt."""
        most = min((request.answer - request.written for request in self._decoding), default=TOGETHER)
        if not chunks:
            return min(TOGETHER, most)
        (request, rows), *others = chunks
        alike = rows == self._costs.steps.prompt_rows and not others
        return min(READING, most, request.unread // rows) if alike else 1

    def _chunks(self) -> list[tuple[Request, int]]:
        """Rows of prompts in the next step; requests that wait are taken in where there is room."""
        steps = self._costs.steps
        left, chunks = steps.prompt_rows, []
        for request in self._reading:
            if left:
                chunks.append((request, min(left, request.unread)))
                left -= chunks[-1][1]
        while left and self._waiting and len(self._decoding) + len(self._reading) < steps.max_num_seqs:
            request = self._waiting.popleft()
            request.cached = self._found(request)
            request.unread = request.prompt - request.cached
            self._reading.append(request)
            chunks.append((request, min(left, request.unread)))
            left -= chunks[-1][1]
        return chunks

    def _found(self, request: Request) -> int:
        """Tokens of the prompt that are cached, in whole blocks; the last one is always computed."""
        kept = min(self._cached.get(request.conversation, 0), request.prompt - 1)
        return kept // BLOCK * BLOCK

    def _keep(self, request: Request) -> None:
        """Blocks stay until others need them; those that were used last go last."""
        self._held += request.context - self._cached.pop(request.conversation, 0)
        self._cached[request.conversation] = request.context
        while self._held > self._size:
            self._held -= self._cached.popitem(last=False)[1]
