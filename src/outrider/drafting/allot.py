"""Which drafted positions of a batch are worth their cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from outrider.drafting.costs import TargetCost

GAIN_AT_LEAST = 1.03
"""Gains below this share are within what the estimates are wrong by: nothing is drafted for them."""
HOPELESS = 0.5
"""A position that yields less than this share of what plain decoding does for the same time is not looked at.
It is below 1, since rows may cost less further on than here."""
PATIENCE = 3
"""Depths without gain after which no deeper one is looked at."""


class Position(NamedTuple):
    """What one drafted position of a request promises and costs: expected tokens that stand, rows to verify,
    and seconds for drafting and attention."""

    tokens: float
    rows: float
    seconds: float


Depths = Sequence[float]
"""By drafter, seconds for drafting one token deeper, whatever the number of requests that do so; 0 where a
request does not ask it."""


@dataclass(frozen=True)
class Undrafted:
    """A step without drafts: the tokens that it yields, its rows, its seconds besides the pass over those."""

    tokens: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Allotment:
    """lengths: of each request's draft; rate: expected tokens a second; rows: expected, of the whole step."""

    lengths: list[int]
    rate: float
    rows: float


def allot(
    prospects: Sequence[Iterable[Position]], depths: Sequence[Depths], base: Undrafted, target: TargetCost
) -> Allotment:
    """The lengths at which expected tokens a second are highest.

    prospects: each request's positions, from the first on; depths: of each request. Positions are ranked by
    what they yield for what they cost, later ones of a request never before earlier ones; every beginning of
    the ranking is weighed, since the cost of rows may have steps. Where depth has a cost of its own, so is
    every ranking of positions up to some depth.
    """
    plain = base.tokens / (target.one_pass(base.rows) + base.seconds)
    ranked = _ranked(prospects, HOPELESS * plain, target.row(base.rows))
    deepest = max((number for _, _, number, _ in ranked), default=-1) + 1
    chosen, best = ranked[:0], Allotment([], plain * GAIN_AT_LEAST, base.rows)
    worse = 0
    for cap in range(1, deepest + 1) if any(map(any, depths)) else [deepest]:
        within = ranked if cap == deepest else [at for at in ranked if at[2] < cap]
        count, rate, rows = _best_beginning(within, depths, base, target)
        worse += 1
        if rate > best.rate:
            chosen, best, worse = within[:count], Allotment([], rate, rows), 0
        elif worse == PATIENCE:
            break
    lengths = [0] * len(prospects)
    for _, request, _, _ in chosen:
        lengths[request] += 1
    return replace(best, lengths=lengths) if chosen else Allotment(lengths, plain, base.rows)


Ranked = list[tuple[float, int, int, Position]]
"""(-worth, request, number of the position, position), the most worth first."""


def _ranked(prospects: Sequence[Iterable[Position]], hopeless: float, row: float) -> Ranked:
    ranked: Ranked = []
    for request, positions in enumerate(prospects):
        worth = float("inf")
        for number, position in enumerate(positions):
            worth = min(worth, position.tokens / (position.rows * row + position.seconds + 1e-12))
            if worth < hopeless:
                break
            ranked.append((-worth, request, number, position))
    ranked.sort()
    return ranked


def _best_beginning(
    ranked: Ranked, depths: Sequence[Depths], base: Undrafted, target: TargetCost
) -> tuple[int, float, float]:
    """How many of the positions to take, and the tokens a second and rows of the step then."""
    best, best_rate, best_rows = 0, 0.0, 0.0
    tokens, rows, seconds = float(base.tokens), float(base.rows), base.seconds
    deepest = [0] * len(depths[0]) if depths else []
    for count, (_, request, number, position) in enumerate(ranked, start=1):
        tokens += position.tokens
        rows += position.rows
        seconds += position.seconds
        for drafter, deeper in enumerate(depths[request]):
            if deeper and number == deepest[drafter]:
                deepest[drafter] += 1
                seconds += deeper
        rate = tokens / (target.one_pass(rows) + seconds)
        if rate > best_rate:
            best, best_rate, best_rows = count, rate, rows
    return best, best_rate, best_rows
