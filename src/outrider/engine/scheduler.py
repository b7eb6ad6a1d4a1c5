"""Who computes what in the next step.

There is one rule: a request's computed tokens catch up with its known ones. A prompt in chunks, decoding,
and recomputation after a preemption are all that; a request that catches up may add a draft.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from outrider.cache.pool import OutOfBlocks
from outrider.drafting.length import LengthPolicy, Load
from outrider.engine.request import Request


@dataclass(frozen=True)
class Work:
    """Compute the next `count` known tokens of a request, then a draft of at most `draft_length`."""

    request: Request
    count: int
    draft_length: int

    @property
    def catches_up(self) -> bool:
        """Whether the request gets new tokens from this step."""
        return self.count == self.request.pending


@dataclass(frozen=True)
class Schedule:
    """work: of this step; preempted: requests whose cache was taken, to be computed again later."""

    work: tuple[Work, ...]
    preempted: tuple[Request, ...]


class Scheduler:
    """First come, first served, within `max_num_seqs` requests and `max_rows` rows a step.

    When the cache is full, the request that came last gives its blocks up and waits again. Drafts take
    only rows and blocks that nobody needs: none is ever the reason for a preemption.
    """

    def __init__(self, policy: LengthPolicy, *, max_num_seqs: int, max_rows: int) -> None:
        self.policy = policy
        self._max_num_seqs = max_num_seqs
        self._max_rows = max_rows
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request and free its blocks."""
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        request.table.truncate(0)

    def schedule(self) -> Schedule:
        """Choose the next step's work and reserve its blocks."""
        preempted: list[Request] = []
        counts = self._continue_running(preempted)
        if not preempted:
            self._admit(counts)
        return Schedule(self._add_drafts(counts), tuple(preempted))

    def _continue_running(self, preempted: list[Request]) -> dict[Request, int]:
        """Tokens for the running requests: those with the fewest to go first, so that a long prompt does
        not hold up the decoding of others."""
        counts: dict[Request, int] = {}
        budget = self._max_rows
        for request in sorted(self.running, key=lambda request: request.pending):
            count = min(request.pending, budget)
            if request in preempted or not count:
                continue
            if self._reserve(request, count, preempted):
                counts[request] = count
                budget -= count
        for request in preempted:
            budget += counts.pop(request, 0)
        return counts

    def _reserve(self, request: Request, count: int, preempted: list[Request]) -> bool:
        """Find room, at the expense of later requests; False if `request` itself had to give way."""
        while True:
            try:
                request.table.extend(request.table.filled + count)
            except OutOfBlocks:
                last = self.running.pop()
                last.table.truncate(0)
                self.waiting.appendleft(last)
                preempted.append(last)
                if last is request:
                    return False
            else:
                return True

    def _admit(self, counts: dict[Request, int]) -> None:
        """Start waiting requests while rows, seats and blocks last."""
        while self.waiting and len(self.running) < self._max_num_seqs:
            budget = self._max_rows - sum(counts.values())
            if not budget:
                return
            request = self.waiting[0]
            if not request.wants_prompt_logprobs:  # they need every row of the prompt computed
                request.table.adopt(request.tokens)
            count = min(request.pending, budget)
            try:
                request.table.extend(request.table.filled + count)
            except OutOfBlocks:
                request.table.truncate(0)
                return
            self.running.append(self.waiting.popleft())
            counts[request] = count

    def _add_drafts(self, counts: dict[Request, int]) -> tuple[Work, ...]:
        """Let requests that catch up draft, in rows and blocks that are left over."""
        ready = [request for request, count in counts.items() if count == request.pending]
        rows = sum(counts.values())
        budget = self._max_rows - rows
        chosen = dict(zip(ready, self.policy.lengths(ready, Load(rows, budget)), strict=True))
        work = []
        for request, count in counts.items():
            length = min(chosen.get(request, 0), request.room, budget)
            length = self._reserve_draft(request, count, length)
            budget -= length
            work.append(Work(request, count, length))
        return tuple(work)

    @staticmethod
    def _reserve_draft(request: Request, count: int, length: int) -> int:
        """The length for which blocks could be had: `length` or zero."""
        try:
            request.table.extend(request.table.filled + count + length)
        except OutOfBlocks:
            return 0
        return length
