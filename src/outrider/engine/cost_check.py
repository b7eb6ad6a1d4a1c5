"""Whether kept costs are still true: a few passes and drafts, against what they are said to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from outrider.drafting.costs import DraftCost, TargetCost
from outrider.engine.profile import DEPTH, FEW, MANY, READ, DraftTimer, Measuring, TargetTimer, Timed

ROWS = (1, 4, 2, 8, 16)
"""The rows of the passes that are compared: most drafts are verified with these or between them."""
SECONDS, TRIES = 0.3, 5
"""The time that may go into one pass that is too slow, and how often it is tried however long it takes."""
NEGLIGIBLE = 0.05
"""A share of a pass over one row: a drafter that is off by less changes no decision."""


def costs_hold(
    target: TargetCost,
    timer: TargetTimer,
    drafting: Sequence[DraftCost],
    timers: Sequence[DraftTimer],
    measuring: Measuring,
) -> bool:
    """Whether the target's passes, and each drafter's drafts, still take what was kept."""
    drafts = replace(measuring, jitter=measuring.jitter + NEGLIGIBLE * target.one_pass(1))
    return _passes_hold(target, timer, measuring) and all(
        _drafts_hold(cost, timer, drafts) for cost, timer in zip(drafting, timers, strict=True)
    )


def _passes_hold(cost: TargetCost, timer: TargetTimer, measuring: Measuring) -> bool:
    with timer.ready():
        rows = [n for n in ROWS if n <= timer.rows]
        return all(_agrees(partial(_passed, timer, cost, n), measuring) for n in rows)


def _passed(timer: TargetTimer, cost: TargetCost, rows: int) -> tuple[float, float]:
    return timer.seconds(rows), cost.one_pass(rows)


def _drafts_hold(cost: DraftCost, timer: DraftTimer, measuring: Measuring) -> bool:
    with timer.ready():
        return all(
            _agrees(partial(_drafted, cost, n, 0, partial(timer.drafts, n, DEPTH)), measuring)
            for n in (FEW, MANY)
        ) and _agrees(partial(_drafted, cost, 1, READ - 1, timer.reading), measuring)


def _drafted(cost: DraftCost, requests: int, read: int, draft: Callable[[], Timed]) -> tuple[float, float]:
    timed = draft()
    return timed.seconds, cost.foreseen(requests, timed.tokens, timed.steps, read)


def _agrees(tried: Callable[[], tuple[float, float]], measuring: Measuring) -> bool:
    """Whether something takes about the seconds that are foreseen. tried: the seconds of both.

    Other work makes nothing quicker, so that once too quick is enough. What is too slow may have been
    disturbed, and is tried again.
    """
    spent, tries = 0.0, 0
    while tries < TRIES or spent < SECONDS:
        took, foreseen = tried()
        if took < foreseen / measuring.agrees - measuring.jitter:
            return False
        if took <= foreseen * measuring.agrees + measuring.jitter:
            return True
        spent += took
        tries += 1
    return False
