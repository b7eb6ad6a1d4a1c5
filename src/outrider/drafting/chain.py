"""Drafters in a row: the cheap one is asked first, and the next where it has nothing to offer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from outrider.drafting.base import Draft, Drafter, Extender, StateReader
from outrider.drafting.grammar import GrammarDrafter, within_grammar
from outrider.drafting.plan import Plan
from outrider.faults import Faults
from outrider.ops.budget import Budget, Meter, cell
from outrider.verification.accept import Verdict

if TYPE_CHECKING:
    from outrider.engine.request import Request

logger = logging.getLogger(__name__)


class Chain:
    """The drafters of an engine: none for plain decoding; otherwise what grammars force, and mostly one more.

    A drafter is asked for the requests whose plan gives it a length above zero and that have no draft yet;
    one that is not asked costs nothing. Those that can (`Extender`) go on behind what others drafted, as far
    as the plan goes. readers: those who read the target's states, drafters or not. clock: seconds.

    A fault of a drafter costs its drafts and ends no request. It forgets what it kept of the requests at
    hand, which may be half done, and begins anew with them.
    """

    def __init__(
        self,
        drafters: Sequence[Drafter] = (),
        readers: Sequence[StateReader] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.drafters = (GrammarDrafter(), *drafters) if drafters else ()
        self._clock = clock
        self._readers: tuple[StateReader, ...] = ()
        self._layers: tuple[int, ...] = ()
        self._all: tuple[Drafter | StateReader, ...] = self.drafters
        for reader in readers:
            self.add_reader(reader)
        self._faults = Faults(logger)
        self.seconds = [0.0] * len(self.drafters)
        """What each took for the drafts last returned."""

    @property
    def state_layers(self) -> tuple[int, ...]:
        """The layers whose states the target has to hand out, ascending: those of all readers."""
        return tuple(sorted({layer for reader in self._readers for layer in reader.state_layers}))

    def add_reader(self, reader: StateReader) -> None:
        """One more reads states, once the target hands out those of `state_layers`."""
        self._readers += (reader,)
        if id(reader) not in map(id, self._all):
            self._all += (reader,)
        self._layers = self.state_layers

    def draft(self, requests: Sequence[Request], plans: Sequence[Plan]) -> list[Draft]:
        """One draft a request, empty where nobody offers anything."""
        drafts = [Draft()] * len(requests)
        self.seconds = [0.0] * len(self.drafters)
        for source in range(len(self.drafters)):
            self._take_turn(source, requests, plans, drafts, first=True)
        for source, drafter in enumerate(self.drafters):
            if isinstance(drafter, Extender):
                self._take_turn(source, requests, plans, drafts, first=False)
        return [
            draft if request.sampler.grammar is None else self._in_grammar(request, draft)
            for request, draft in zip(requests, drafts, strict=True)
        ]

    def observe(self, requests: Sequence[Request], verdicts: Sequence[Verdict]) -> None:
        """The verdicts on the drafts last returned; `requests[i].tokens` does not hold them yet."""
        for drafter in self.drafters:
            try:
                drafter.observe(requests, verdicts)
            except Exception:
                self._forget(drafter, requests, "take verdicts")

    def read(self, request: Request, first: int, states: Any) -> None:
        """The states of committed tokens from position `first` on, of the layers of `state_layers`.

        Raises what a reader raises that is no drafter: it would lack them in what it writes down.
        """
        for reader in self._readers:
            try:
                reader.read(request, first, _of_layers(states, self._layers, tuple(reader.state_layers)))
            except Exception:
                if id(reader) not in map(id, self.drafters):
                    raise
                self._forget(reader, [request], "read states")

    def end(self, request: Request) -> None:
        """The request finished or was preempted."""
        for each in self._all:
            with self._faults.tolerated(f"{type(each).__name__} could not forget a request"):
                each.end(request)

    def _in_grammar(self, request: Request, draft: Draft) -> Draft:
        """A fault of the grammar ends the request where it chooses its next token, if it fails there too."""
        with self._faults.tolerated("a draft could not be checked against its grammar"):
            return within_grammar(request, draft)
        return Draft()

    def _take_turn(
        self,
        source: int,
        requests: Sequence[Request],
        plans: Sequence[Plan],
        drafts: list[Draft],
        *,
        first: bool,
    ) -> None:
        """Have a drafter begin drafts where there are none, if it is its first turn, and go on behind those
        of others."""
        drafter = self.drafters[source]
        began = self._clock()
        try:
            if first:
                self._begin(source, drafter, requests, plans, drafts)
            if isinstance(drafter, Extender):
                self._extend(source, drafter, requests, plans, drafts)
        except Exception:
            self._forget(drafter, requests, "draft")
        self.seconds[source] += self._clock() - began

    @staticmethod
    def _begin(
        source: int,
        drafter: Drafter,
        requests: Sequence[Request],
        plans: Sequence[Plan],
        drafts: list[Draft],
    ) -> None:
        asked = [
            i for i, plan in enumerate(plans) if not drafts[i].tokens and plan.budgets[source].length > 0
        ]
        if not asked:
            return
        offered = drafter.draft([requests[i] for i in asked], [plans[i].budgets[source] for i in asked])
        for i, draft in zip(asked, offered, strict=True):
            if draft.tokens:
                drafts[i] = replace(draft, sources=(source,) * draft.depth)

    @staticmethod
    def _extend(
        source: int,
        drafter: Extender,
        requests: Sequence[Request],
        plans: Sequence[Plan],
        drafts: list[Draft],
    ) -> None:
        budgets: dict[int, Budget] = {}
        for i, (request, plan, draft) in enumerate(zip(requests, plans, drafts, strict=True)):
            if not draft.tokens or draft.sources[-1] == source or not plan.budgets[source].length:
                continue
            budget = _left(plan, source, draft)
            if draft.tokens[draft.depth - 1] not in request.stop_tokens and Meter(budget).goes_on():
                budgets[i] = budget
        if not budgets:
            return
        begun = [drafts[i].tokens[: drafts[i].depth] for i in budgets]
        more = drafter.extend([requests[i] for i in budgets], begun, [*budgets.values()])
        for i, draft in zip(budgets, more, strict=True):
            if draft.tokens:
                drafts[i] = drafts[i].then(replace(draft, sources=(source,) * len(draft.tokens)))

    def _forget(self, drafter: Drafter | StateReader, requests: Sequence[Request], what: str) -> None:
        """What a drafter keeps of these requests, after a fault."""
        self._faults.tell(f"{type(drafter).__name__} could not {what}")
        for request in requests:
            with self._faults.tolerated(f"{type(drafter).__name__} could not forget a request"):
                drafter.end(request)


def _left(plan: Plan, source: int, draft: Draft) -> Budget:
    """What a drafter may add to what others drafted: it counts only where all of that stands."""
    chance = 1.0
    for by, confidence in zip(draft.sources, draft.confidences, strict=False):
        if (price := plan.budgets[by].price) is not None:
            chance *= price.sure[cell(confidence, len(price.sure))]
    budget = plan.budgets[source]
    length = min(budget.length - draft.depth, plan.rows - len(draft.tokens))
    price = None if budget.price is None else budget.price.behind(draft.depth, chance)
    return Budget(max(0, length), price)


def _of_layers(states: Any, layers: tuple[int, ...], wanted: tuple[int, ...]) -> Any:
    """The states of the layers that are wanted, from those of `layers` [rows, layers * hidden]."""
    if wanted == layers:
        return states
    size, first = states.shape[1] // len(layers), layers.index(wanted[0])
    if wanted == layers[first : first + len(wanted)]:
        return states[:, first * size : (first + len(wanted)) * size]
    places = (layers.index(layer) * size for layer in wanted)
    return states[:, [column for place in places for column in range(place, place + size)]]
