"""Lending the draft models' cache memory to the target while they draft nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outrider.drafting.base import Drafter
from outrider.engine.scheduler import Schedule
from outrider.models.runner import ModelRunner

DRAFT_COUNTS = 16
"""Idle steps that one with a draft takes back: a trial now and then does not keep the memory."""


@dataclass(frozen=True)
class Patience:
    """When memory goes to and fro.

    idle: steps without a draft after which a drafter counts as switched off; quiet: steps with room to spare
    after which the memory is taken back; spare: the share of the target's own blocks that is free then,
    since with less there would soon be a preemption again.
    """

    idle: int = 256
    quiet: int = 64
    spare: float = 0.25


class Lending:
    """The draft models rest, and the target has their memory, once both are so: none of them has drafted for
    long, and the target's cache is short of blocks.

    They come back when there has been room without the reserve for a while, or at once then if a request
    asks for a draft length of its own. Never is a request preempted for that. Whatever happens, the drafters'
    memory and the reserve are not in use at the same time.

    cached: the drafters with a cache, by their number in the chain; target: whose reserve is as large.
    """

    def __init__(
        self, target: ModelRunner, cached: Mapping[int, Drafter], patience: Patience = Patience()
    ) -> None:
        self._target = target
        self._cached = cached
        self.patience = patience
        self._idle = 0
        self._quiet = 0
        self.lent = False

    @property
    def resting(self) -> Sequence[int]:
        """Numbers of the drafters that may not be asked."""
        return tuple(self._cached) if self.lent else ()

    def observe(self, schedule: Schedule) -> None:
        """What is scheduled next, and not drafted yet."""
        if not self._cached:
            return
        if self.lent:
            self._maybe_take_back(schedule)
        else:
            self._maybe_lend(schedule)

    def _maybe_lend(self, schedule: Schedule) -> None:
        asked = any(work.plan.budgets[n].length for work in schedule.work for n in self._cached)
        self._idle = max(0, self._idle - DRAFT_COUNTS) if asked else min(self._idle + 1, self.patience.idle)
        if self._idle == self.patience.idle and schedule.short and self._target.pool.reserve:
            for drafter in self._cached.values():
                drafter.rest()
            self._target.pool.lend()
            self.lent = True
            self._quiet = 0

    def _maybe_take_back(self, schedule: Schedule) -> None:
        pool = self._target.pool
        roomy = not schedule.short and pool.spare(self.patience.spare)
        self._quiet = self._quiet + 1 if roomy else 0
        demanded = any(work.request.params.num_speculative_tokens for work in schedule.work)
        if roomy and (demanded or self._quiet >= self.patience.quiet):
            self.lent = not self._target.reclaim()
