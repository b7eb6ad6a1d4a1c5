"""How long drafts should be, decided from what is known: expected tokens over foreseen seconds.

Every drafted position of every request is worth its chance to be reached and to stand (the product of the
chances up to it), and costs a row of the target's pass and its part of the drafting. Positions are admitted,
the most worth for their cost first, to where expected tokens a second are highest (`allot`): Leviathan et al.
(2023) for one request, the goodput of SmartSpec (Liu et al., 2024) for a batch. docs/draft-length.md has the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from outrider.drafting.allot import Position, Undrafted, allot
from outrider.drafting.costs import TargetCost
from outrider.drafting.length import Load
from outrider.drafting.link import Link
from outrider.drafting.workloads import Bounds

if TYPE_CHECKING:
    from outrider.engine.request import Request


class Estimate(NamedTuple):
    """What a decision is made from, and changes nothing of.

    links: the drafters, what each costs and promises; target: what a step costs without drafting; trees:
    whether drafts may have siblings; rate: expected tokens a second as last decided; thinking: seconds a
    request that planning drafts and learning from them take in a step.
    """

    links: Sequence[Link]
    target: TargetCost
    bounds: Bounds
    trees: bool
    rate: float = 1.0
    thinking: float = 0.0


class Decision(NamedTuple):
    """What to ask each drafter of the chain for, by request, 0 for nothing; and what rows cost then.

    Requests that name a length of their own are not among them. rate: expected tokens a second; row: seconds
    of one more row; drafting: requests that draft; plain: seconds of the step without drafts; looks: nothing
    is drafted, to see what that takes.
    """

    lengths: Mapping[Request, Sequence[int]]
    rate: float
    row: float
    drafting: int
    plain: float
    looks: bool


Decide = Callable[[Estimate, Sequence["Request"], Load], Decision]


def decide(known: Estimate, requests: Sequence[Request], load: Load) -> Decision:
    """What to draft for these requests, as long as they run and nothing much is learnt."""
    links, target, least = known.links, known.target, known.bounds.least
    own = [request.params.num_speculative_tokens for request in requests]
    free = [request for request, length in zip(requests, own, strict=True) if length is None]
    others = target.attention(load.positions, load.pairs) + target.request * len(requests)
    step = Undrafted(len(requests), load.rows + sum(length or 0 for length in own), others)
    used = [_worth_asking(known, request, target.row(step.rows), len(free)) for request in free]
    asked = [_asked(links, request, use) for request, use in zip(free, used, strict=True)]
    prospects = [_positions(known, request, chances) for request, chances in zip(free, asked, strict=True)]
    depths = [
        [link.deeper(request) * chance for link, chance in zip(links, of, strict=True)]
        for request, of in zip(free, asked, strict=True)
    ]
    allotment = allot(prospects, depths, step, target)
    # Costs that only steps with drafts were seen to have may be the drafts' or everybody's: look which.
    looks = load.rows == len(requests) and not least and target.doubtful(step.rows)
    wanted = [0 if looks else max(length, least) for length in allotment.lengths]
    lengths = {
        request: [length * asked for asked in use]
        for request, use, length in zip(free, used, wanted, strict=True)
    }
    return Decision(
        lengths,
        allotment.rate,
        target.row(allotment.rows),
        sum(length > 0 for length in wanted),
        target.one_pass(step.rows) + others,
        looks,
    )


def _asked(links: Sequence[Link], request: Request, used: Sequence[bool]) -> list[float]:
    """The chance of each drafter to be asked, which it is if those before it are silent."""
    chances, chance = [], 1.0
    for link, use in zip(links, used, strict=True):
        chances.append(chance * use)
        if use and len(links) > 1:
            chance *= 1 - link.forecast.first(request)[1]
    return chances


def _positions(known: Estimate, request: Request, asked: Sequence[float]) -> Iterator[Position]:
    """What the chain promises a request, if its drafters are asked with these chances."""
    thinking = known.thinking
    attention = known.target.attention(0, len(request.tokens))
    parts = [
        link.positions(request, chance) for link, chance in zip(known.links, asked, strict=True) if chance
    ]
    for at in zip(*parts, strict=True):
        tokens, rows, seconds = (sum(values) for values in zip(*at, strict=True))
        yield Position(tokens, rows, seconds + rows * attention + thinking)
        thinking = 0.0  # it is much the same for a longer draft


def _worth_asking(known: Estimate, request: Request, row: float, drafting: int) -> list[bool]:
    """Whether to ask each drafter for a request, or rather leave the request to those behind it."""
    links = known.links
    used = [True] * len(links)
    if len(used) == 1:
        return used
    rest = 0.0  # seconds that those behind save at best, where the current rate is had otherwise
    for n in reversed(range(len(links))):
        silent = 1 - links[n].forecast.first(request)[1]
        worth = links[n].worth(request, rate=known.rate, row=row, drafting=drafting)
        worth += silent * rest
        used[n] = worth >= rest
        rest = max(worth, rest)
    return used
