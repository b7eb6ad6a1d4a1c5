"""Who computes what in the next step.

There is one rule: a request's computed tokens catch up with its known ones. A prompt in chunks, decoding,
and recomputation after a preemption are all that; a request that catches up may add a draft.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.cache.pool import OutOfBlocks
from outrider.drafting.length import LengthPolicy, Load
from outrider.drafting.plan import Plan
from outrider.engine.request import Request
from outrider.ops.budget import Budget


@dataclass(frozen=True)
class Work:
    """Compute the next `count` known tokens of a request, then a draft as `plan` allows."""

    request: Request
    count: int
    plan: Plan

    @property
    def catches_up(self) -> bool:
        """Whether the request gets new tokens from this step."""
        return self.count == self.request.pending


@dataclass(frozen=True)
class Schedule:
    """work: of this step; preempted: requests whose cache was taken, to be computed again later; short:
    whether there were too few blocks for all that could have run."""

    work: tuple[Work, ...]
    preempted: tuple[Request, ...]
    short: bool


class Scheduler:
    """In order of `Request.turn`, within `max_num_seqs` requests and `max_rows` rows a step.

    Every decoding request gets its row in every step. Of the rows that are left, drafts and prompts can
    each count on half, and prompts take `prompt_rows` at most, so that neither holds up the other, nor the
    decoding of those that draft nothing. When the cache is full, the request whose turn is last gives its
    blocks up and waits again. Drafts take only blocks that nobody needs: none is ever the reason for a
    preemption.

    Nobody starves: a turn never changes, and from some time on all who come have later ones.

    resting: numbers of the drafters that are not to be asked, whatever the policy plans.
    """

    def __init__(
        self, policy: LengthPolicy, *, max_num_seqs: int, max_rows: int, prompt_rows: int | None = None
    ) -> None:
        self.policy = policy
        self._max_num_seqs = max_num_seqs
        self._max_rows = max_rows
        self._prompt_rows = prompt_rows or max_rows
        self.resting: Sequence[int] = ()
        self.waiting: list[Request] = []
        self.running: list[Request] = []

    def add(self, request: Request) -> None:
        insort(self.waiting, request, key=lambda request: request.turn)

    def remove(self, request: Request) -> None:
        """Forget a request, if it is still known, and free its blocks."""
        for queue in (self.running, self.waiting):
            if request in queue:
                queue.remove(request)
        request.table.truncate(0)

    @staticmethod
    def advance(request: Request, computed: int) -> None:
        """So many positions more are computed, and stay."""
        table = request.table
        # The last token is always still to be computed: its logits are what the next one is chosen from.
        table.advance(request.tokens, min(table.filled + computed, len(request.tokens) - 1))

    def schedule(self) -> Schedule:
        """Choose the next step's work and reserve its blocks."""
        return self._schedule(drafting=True)

    def schedule_plainly(self) -> Schedule:
        """The same without drafts and without asking the policy for them, also where `schedule` has failed:
        what that reserved is still the requests'."""
        return self._schedule(drafting=False)

    def _schedule(self, *, drafting: bool) -> Schedule:
        preempted: list[Request] = []
        decoding: list[tuple[Request, int]] = []
        reading: list[tuple[Request, int]] = []
        for request in self.running:
            pending = request.pending
            (decoding if pending == 1 else reading).append((request, pending))
        prompt_rows = self._rows_for_prompts(decoding, drafting) if reading or self.waiting else 0
        counts = self._continue_running(decoding, reading, prompt_rows, preempted)
        admitted = not preempted and self._admit(counts, prompt_rows)
        work = self._add_drafts(counts) if drafting else self._plain(counts)
        for request, count in counts.items():
            request.table.mark(request.table.filled + count)
        return Schedule(work, tuple(preempted), short=not admitted)

    def _rows_for_prompts(self, decoding: Sequence[tuple[Request, int]], drafting: bool) -> int:
        """Beside those that decode, and what drafts can count on."""
        left = self._max_rows - len(decoding)
        longest = sum(self._longest_draft(request) for request, _ in decoding) if drafting else 0
        return min(left - min(longest, left // 2), self._prompt_rows)

    def _continue_running(
        self,
        decoding: Sequence[tuple[Request, int]],
        reading: Sequence[tuple[Request, int]],
        prompt_rows: int,
        preempted: list[Request],
    ) -> dict[Request, int]:
        """Tokens for the running requests, which are given with what they lack: a row for each that decodes,
        then prompts in order."""
        counts: dict[Request, int] = {}
        for request, pending in [*decoding, *reading]:
            count = 1 if pending == 1 else min(pending, prompt_rows)
            if request in preempted or not count or not _ready(request):
                continue
            if self._reserve(request, count, preempted):
                counts[request] = count
                prompt_rows -= count if pending > 1 else 0
        for request in preempted:
            counts.pop(request, None)
        return counts

    def _reserve(self, request: Request, count: int, preempted: list[Request]) -> bool:
        """Find room, at the expense of later requests; False if `request` itself had to give way."""
        while True:
            try:
                request.table.extend(request.table.filled + count)
            except OutOfBlocks:
                last = self.running.pop()
                last.table.truncate(0)
                self.add(last)
                preempted.append(last)
                if last is request:
                    return False
            else:
                return True

    def _admit(self, counts: dict[Request, int], prompt_rows: int) -> bool:
        """Start waiting requests while rows, seats and blocks last; False if it was the blocks."""
        if not self.waiting:
            return True
        prompt_rows -= sum(count for request, count in counts.items() if request.pending > 1)
        while prompt_rows > 0 and len(self.running) < self._max_num_seqs:
            request = next(filter(_ready, self.waiting), None)
            if request is None:
                break
            if not request.wants_prompt_logprobs:  # they need every row of the prompt computed
                request.table.adopt(request.tokens)
            count = min(request.pending, prompt_rows)
            try:
                request.table.extend(request.table.filled + count)
            except OutOfBlocks:
                request.table.truncate(0)
                return False
            self.waiting.remove(request)
            insort(self.running, request, key=lambda request: request.turn)
            counts[request] = count
            prompt_rows -= count
        return True

    def _add_drafts(self, counts: dict[Request, int]) -> tuple[Work, ...]:
        """Let requests that catch up draft, in rows and blocks that are left over."""
        # A drafter that has to read the prompt does so when the first token is out.
        ready = [r for r, count in counts.items() if count == r.pending and r.num_output]
        load = self._load(counts)
        nothing = self.policy.nothing
        plans: dict[Request, Plan] = {}
        wanted: dict[Request, int] = {}
        # The policy is asked in any case: what it then observes is a step that it knows.
        for request, plan in zip(ready, self.policy.plans(ready, load), strict=True):
            if plan is nothing:
                continue
            plan = plan if not self.resting else _without(plan, self.resting)
            plans[request] = plan = plan.within(request.room)
            if plan.rows:
                wanted[request] = plan.rows
        for request, share in (_shared(wanted, load.budget) if wanted else wanted).items():
            rows = self._reserve_draft(request, counts[request], share)
            plans[request] = plans[request].in_rows(rows)
        return tuple([Work(request, count, plans.get(request, nothing)) for request, count in counts.items()])

    def _plain(self, counts: Mapping[Request, int]) -> tuple[Work, ...]:
        """The work without drafts."""
        return tuple(Work(request, count, self.policy.nothing) for request, count in counts.items())

    def _longest_draft(self, request: Request) -> int:
        """The longest draft that the request can have in this step."""
        if len(self.resting) + 1 >= len(self.policy.nothing.budgets):  # no drafter beside grammars
            return 0
        own = request.params.num_speculative_tokens
        return min(self.policy.longest if own is None else own, request.room)

    def _load(self, counts: Mapping[Request, int]) -> Load:
        rows = positions = pairs = 0
        for request, count in counts.items():
            end = request.table.filled + count
            rows += count
            positions += end
            pairs += end * count
        return Load(rows, positions, pairs, budget=self._max_rows - rows)

    @staticmethod
    def _reserve_draft(request: Request, count: int, length: int) -> int:
        """The length for which blocks could be had."""
        table = request.table
        try:
            table.extend(table.filled + count + length, length)
        except OutOfBlocks:
            return table.room_for_draft(count, length)
        return length


def _ready(request: Request) -> bool:
    """Whether what follows can be chosen in this step: a grammar may first have to be compiled again.

    One that fails may go on: it fails again where its token is chosen, which ends that request alone.
    """
    grammar = request.sampler.grammar
    try:
        return grammar is None or grammar.prepare(request.output)
    except Exception:
        return True


def _without(plan: Plan, drafters: Sequence[int]) -> Plan:
    """The plan, with nothing for some of the drafters."""
    return Plan([Budget(0) if n in drafters else budget for n, budget in enumerate(plan.budgets)])


def _shared(wanted: Mapping[Request, int], rows: int) -> Mapping[Request, int]:
    """What each gets of `rows`: as much as it wants, or an equal share where they are short.

    What one leaves of its share goes to the others, and what cannot be divided to those who come first.
    """
    if sum(wanted.values()) <= rows:
        return wanted
    shares: dict[Request, int] = {}
    for served, request in enumerate(sorted(wanted, key=lambda request: wanted[request])):
        share = -(-rows // (len(wanted) - served))
        shares[request] = min(wanted[request], share)
        rows -= shares[request]
    return shares
