"""How likely drafted tokens are to stand, learnt from the verdicts on earlier ones.

A drafted token that follows accepted ones stands or falls: that is one trial. What comes after a token that
fell, and what a draft that stood as a whole did not reach, was never tried and says nothing: as in survival
analysis such drafts are censored, not failures of the positions beyond.

The chance to fall (the hazard) has a base that all requests share, by position in the draft or by the
drafter's confidence, times a factor of the request's own (its frailty, as statisticians call it). A request
that nobody knows yet begins with factor 1, which is what the engine has seen of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

from outrider.ops.budget import cell

if TYPE_CHECKING:
    from outrider.drafting.base import Draft
    from outrider.engine.request import Request
    from outrider.verification.accept import Verdict

MEMORIES = (0.8, 0.95, 0.99)
"""A factor is learnt with three memories, of some 5, 20 and 100 trials: what they keep at each new one."""
LIKELIHOOD_MEMORY = 0.9
"""The memory of how well each of these foretold the trials: the one that did best lately is believed most."""
OWN_WEIGHT = 10.0
"""Trials that a factor of 1 is worth, against those of the request itself."""
HOPELESS = 0.02
"""The share of requests for which nothing stands, whatever does for others, as where a draft model of English
is to go on in Chinese. A few tokens that fall show it; a factor of 1 is outvoted much later."""
BASE_MEMORY = 0.995
BASE_WEIGHT = 4.0
"""Trials that the average over all cells is worth in one of them."""
MOST_WEIGHT = 1e6
"""The weight that a draft may have, before all are weighed anew."""
MOST, LEAST = 0.98, 0.005
"""Bounds of a hazard: nothing is certain."""
CONFIDENCE_CELLS = 12


class Base:
    """The hazard of each cell over all requests."""

    def __init__(self, cells: int, hazard: float) -> None:
        self._fell = [0.0] * cells
        self._tried = [0.0] * cells
        self._weight = 1.0  # of the next draft: it grows, instead of all others shrinking
        self._prior = hazard
        self._learnt = True  # all that was added
        self.hazards = [hazard] * cells

    def add(self, cells: Sequence[int], fell: bool, factor: float) -> None:
        """Trials in these cells, of which the last fell or all stood; `hazards` learns it in `refresh`.

        A trial counts by the factor of its request, as in the model: otherwise the far cells, which only
        requests with small factors reach, would seem safer than they are.
        """
        self._learnt = False
        self._weight /= BASE_MEMORY
        for each in cells:
            self._tried[each] += self._weight * factor
        if fell:
            self._fell[cells[-1]] += self._weight

    def refresh(self) -> None:
        if self._learnt:
            return
        self._learnt = True
        weight, fell, tried = self._weight, self._fell, self._tried
        trust = BASE_WEIGHT * weight
        fallen = trust * (sum(fell) + trust * self._prior) / (sum(tried) + trust)
        self.hazards = [
            (some + fallen) / (all_of_them + trust) for some, all_of_them in zip(fell, tried, strict=True)
        ]
        if weight > MOST_WEIGHT:
            self._fell = [each / weight for each in fell]
            self._tried = [each / weight for each in tried]
            self._weight = 1.0


@dataclass(eq=False)
class Factor:
    """How much likelier than the base a request's tokens are to fall: what each memory says and, until a
    token has stood, that nothing does, each weighed by how well it foretold the last trials."""

    value: float = 1.0
    _fell: list[float] = field(default_factory=lambda: [0.0] * len(MEMORIES))
    _expected: list[float] = field(default_factory=lambda: [0.0] * len(MEMORIES))
    _weights: list[float] = field(default_factory=lambda: [(1.0 - HOPELESS) / len(MEMORIES)] * len(MEMORIES))
    _hopeless: float = field(default_factory=lambda: HOPELESS)

    def observe(self, hazards: Sequence[float], fell: bool) -> None:
        """Trials with these bases, of which the last fell or all stood. Their mean stands for each."""
        tried, mean = len(hazards), sum(hazards) / len(hazards)
        prior, forgotten = OWN_WEIGHT * mean, LIKELIHOOD_MEMORY**tried
        total = value = 0.0
        for i, memory in enumerate(MEMORIES):
            foretold = (self._fell[i] + prior) / (self._expected[i] + prior) * mean
            foretold = LEAST if foretold < LEAST else foretold if foretold < MOST else MOST
            likelihood = (1.0 - foretold) ** (tried - 1) * (foretold if fell else 1.0 - foretold)
            weight = self._weights[i] ** forgotten * likelihood
            kept = memory**tried
            self._fell[i] = own = kept * self._fell[i] + fell
            self._expected[i] = expected = kept * self._expected[i] + mean * (1.0 - kept) / (1.0 - memory)
            self._weights[i] = weight = weight if weight > 1e-9 else 1e-9
            total += weight
            value += weight * (own + prior) / (expected + prior)
        weight = self._hopeless**forgotten if fell and tried == 1 else 0.0
        total += weight
        value += weight * MOST / mean
        self._weights = [weight / total for weight in self._weights]
        self._hopeless = weight / total
        self.value = value / total


class Hazards:
    """Base and factors for one way of telling trials apart."""

    def __init__(self, cells: int, hazard: float) -> None:
        self._base = Base(cells, hazard)
        self._factors: dict[Request, Factor] = {}

    def curve(self, request: Request) -> list[float]:
        """The chance that a token falls, cell by cell."""
        own = self._factors.get(request)
        return _bounded(self._base.hazards, 1.0 if own is None else own.value)

    def shared(self) -> list[float]:
        """The same for a request that nobody knows yet."""
        return _bounded(self._base.hazards, 1.0)

    def stands(self, request: Request) -> tuple[float, ...]:
        """The chance that a token does not fall, cell by cell."""
        return tuple([1 - fall for fall in self.curve(request)])

    def observe(self, request: Request, cells: Sequence[int], fell: bool) -> None:
        """A request's trials in these cells, of which the last fell or all stood."""
        own = self._factors.get(request)
        if own is None:
            own = self._factors[request] = Factor()
        hazards = self._base.hazards
        self._base.add(cells, fell, own.value)
        own.observe([hazards[cell] for cell in cells], fell)

    def refresh(self) -> None:
        """Let the base learn what was observed."""
        self._base.refresh()

    def forget(self, request: Request) -> None:
        self._factors.pop(request, None)


class Forecast:
    """What to expect of one drafter: how often it offers a token, and whether the token stands.

    longest: positions that are told apart; acceptance: what is expected before anything is known.
    """

    def __init__(self, longest: int, acceptance: float) -> None:
        self.longest = longest
        self._positions = Hazards(longest, 1 - acceptance)
        self._confidences = Hazards(CONFIDENCE_CELLS, 1 - acceptance)
        self._seconds = Hazards(CONFIDENCE_CELLS, 0.7)  # of next best tokens, where the best has fallen
        self._silences = Hazards(longest, 0.05)  # that no token is offered after those before
        self.informed = False
        """Whether the drafter says how sure it is."""

    def curve(self, request: Request) -> Iterator[tuple[float, float]]:
        """Position by position, the chances that the tokens up to it stand if they are offered, and that they
        are offered at all."""
        survival = offered = 1.0
        falls, silences = self._positions.curve(request), self._silences.curve(request)
        for fall, silence in zip(falls, silences, strict=True):
            survival *= 1 - fall
            offered *= 1 - silence
            yield survival, offered

    def first(self, request: Request) -> tuple[float, float]:
        """The first pair of `curve`."""
        return next(self.curve(request))

    def shared(self) -> Iterator[float]:
        """Position by position, the chance that the tokens up to it stand if they are offered, for a request
        that nobody knows yet."""
        return accumulate((1 - fall for fall in self._positions.shared()), mul)

    def sure(self, request: Request) -> tuple[float, ...]:
        """The chance that a token stands, given those before it, by how sure the drafter is of it
        (`outrider.ops.budget.cell`)."""
        return self._confidences.stands(request)

    def reached(self, request: Request) -> tuple[float, ...]:
        """The same by its position, of a drafter that says how sure it is; empty for others."""
        return self._positions.stands(request) if self.informed else ()

    def second(self, request: Request) -> tuple[float, ...]:
        """The chance that the next best token stands where the best has fallen, by how sure the drafter was
        of that."""
        return self._seconds.stands(request) if self.informed else ()

    def observe(self, request: Request, draft: Draft, length: int, verdict: Verdict) -> None:
        """The drafter was asked for `length` tokens at most and began `draft`, of which some stood."""
        offered, accepted = min(draft.begun, self.longest), verdict.straight
        silent = offered < min(length, self.longest)
        self._silences.observe(request, range(offered + silent), silent)
        tried = min(accepted + 1, offered)
        if not tried:
            return
        fell = accepted < tried
        self._positions.observe(request, range(tried), fell)
        if draft.confidences:
            cells = self._observe_confidences(request, draft.confidences[:tried], fell)
            beside = next(
                (n for n, p in enumerate(draft.parents) if n >= draft.depth and p == accepted - 1), 0
            )
            if fell and beside:
                self._seconds.observe(request, cells[-1:], beside not in verdict.path)

    def observe_behind(self, request: Request, draft: Draft, own: range, verdict: Verdict) -> None:
        """The drafter went on behind others with these tokens of `draft`. That tells what its confidence is
        worth, where all before them stood, and nothing of what it offers when it begins."""
        accepted = verdict.straight - own.start
        if accepted < 0 or not draft.confidences:
            return
        tried = min(accepted + 1, len(own))
        self._observe_confidences(
            request, draft.confidences[own.start : own.start + tried], fell=accepted < tried
        )

    def _observe_confidences(
        self, request: Request, confidences: Sequence[float], fell: bool
    ) -> Sequence[int]:
        """Tokens of which the drafter was so sure were tried. Returns their cells."""
        self.informed = True
        cells = [cell(confidence, CONFIDENCE_CELLS) for confidence in confidences]
        self._confidences.observe(request, cells, fell)
        return cells

    def refresh(self) -> None:
        """Let what all requests share learn from what was observed since."""
        for hazards in (self._positions, self._confidences, self._seconds, self._silences):
            hazards.refresh()

    def forget(self, request: Request) -> None:
        """The request has ended; what it taught about others stays."""
        for hazards in (self._positions, self._confidences, self._seconds, self._silences):
            hazards.forget(request)


def _bounded(hazards: Sequence[float], factor: float) -> list[float]:
    """Each hazard times the factor, within bounds."""
    return [
        LEAST if (fall := factor * hazard) < LEAST else fall if fall < MOST else MOST for hazard in hazards
    ]
