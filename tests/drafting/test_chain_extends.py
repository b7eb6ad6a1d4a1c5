"""Drafts that another drafter goes on with: whose tokens are whose, how many there may be, what is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from outrider.drafting.base import Draft
from outrider.drafting.chain import Chain
from outrider.drafting.costs import DraftCost
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import Outcome
from outrider.drafting.link import Link
from outrider.drafting.plan import Plan
from outrider.engine.request import Request
from outrider.ops.budget import Budget, Price
from outrider.verification.accept import Verdict
from tests.fakes import Memoryless, stub

NOTHING, NO_DRAFT = Budget(0), Draft()


@dataclass
class Fixed(Memoryless):
    """It begins a draft with the same tokens always."""

    begins: Draft = NO_DRAFT

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [self.begins] * len(requests)


@dataclass
class GoesOn(Fixed):
    """And goes on with 7, as long as it may, behind what it is told."""

    behind_which: list[tuple[int, ...]] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)

    def extend(
        self, requests: Sequence[Request], begun: Sequence[Sequence[int]], budgets: Sequence[Budget]
    ) -> list[Draft]:
        self.behind_which += map(tuple, begun)
        self.budgets += budgets
        return [Draft((7,) * b.length, confidences=(0.9,) * b.length) for b in budgets]


def draft_of(drafters: Sequence[Fixed], *budgets: Budget, request: Request | None = None) -> Draft:
    chain = Chain(drafters)
    return chain.draft([request or stub()], [Plan((NOTHING, *budgets))])[0]


def test_what_one_began_another_goes_on_with() -> None:
    cheap, dear = GoesOn(), Fixed(Draft((1, 2), confidences=(0.5, 0.6)))
    draft = draft_of([cheap, dear], Budget(5), Budget(2))
    assert draft == Draft((1, 2, 7, 7, 7), None, (0.5, 0.6, 0.9, 0.9, 0.9), sources=(2, 2, 1, 1, 1))
    assert cheap.behind_which == [(1, 2)]
    assert (draft.source, draft.begun, draft.span(1), draft.span(2)) == (2, 2, range(2, 5), range(2))
    assert draft.span(3) == range(0)


def test_each_may_go_on_in_its_turn() -> None:
    first, second = GoesOn(Draft((1,))), GoesOn()
    draft = draft_of([first, second], Budget(4), Budget(2))
    assert (draft.tokens, draft.sources) == ((1, 7, 7, 7), (1, 2, 1, 1))
    assert (first.behind_which, second.behind_which) == ([(1, 7)], [(1,)])


@pytest.mark.parametrize("length", [0, 2, 3])
def test_a_fixed_length_is_that_of_all_together(length: int) -> None:
    of = GoesOn()
    assert len(draft_of([of, Fixed(Draft((1, 2)))], Budget(length), Budget(2)).tokens) == max(2, length)
    assert bool(of.behind_which) == (length > 2)


def test_nobody_goes_on_behind_the_end_of_a_text() -> None:
    request = stub()
    request.stop_tokens = frozenset({2})
    assert draft_of([GoesOn(), Fixed(Draft((1, 2)))], Budget(5), Budget(2), request=request).tokens == (1, 2)


def test_what_comes_behind_others_counts_where_they_stand() -> None:
    price = Price(0.2, 0.1, 2, sure=(0.5,), reached=(0.9, 0.8))
    cheap, dear = GoesOn(), Fixed(Draft((1,), confidences=(0.3,)))
    draft_of([cheap, dear], Budget(4, price, siblings=2), Budget(1, price))
    assert cheap.budgets == [Budget(3, Price(0.4, 0.2, 1, sure=(0.5,), reached=(0.9, 0.8)))]
    costly = Price(0.2, 0.6, 0, sure=(0.5,), reached=(0.9,))
    draft_of([cheap, dear], Budget(4, costly), Budget(1, price))
    assert len(cheap.budgets) == 1, "one in two times 0.9 is worth less than 0.6"


def test_siblings_stay_behind_the_chain() -> None:
    begun = Draft((1, 2, 8, 9), confidences=(0.5, 0.5), parents=(-1, 0, -1, 0))
    draft = draft_of([GoesOn(), Fixed(begun)], Budget(4, siblings=2), Budget(2, siblings=2))
    assert draft.tokens == (1, 2, 7, 7, 8, 9)
    assert draft.parents == (-1, 0, 1, 2, -1, 0)
    assert (draft.depth, len(draft.sources)) == (4, 4)


def test_rows_are_never_more_than_reserved() -> None:
    begun = Draft((1, 2, 8, 9), confidences=(0.5, 0.5), parents=(-1, 0, -1, 0))
    assert len(draft_of([GoesOn(), Fixed(begun)], Budget(5), Budget(2, siblings=2)).tokens) == 5


def test_distributions_are_joined() -> None:
    """A rule that looks at them sees all mass on a token that was looked up."""
    known = np.array([[0.5, 0.5] + [0.0] * 8])
    draft = draft_of([GoesOn(), Fixed(Draft((1,), known))], Budget(3), Budget(1))
    assert draft.probs is not None
    assert draft.probs.tolist() == [known[0].tolist(), *[[0.0] * 7 + [1.0, 0.0, 0.0]] * 2]


def test_each_drafter_learns_from_its_own_tokens() -> None:
    links = [Link(Fixed(), DraftCost(0.0, 1e-3), Forecast(8, 0.6), name) for name in ("cheap", "dear")]
    plan = Plan((NOTHING, Budget(5), Budget(2)))
    draft = Draft((1, 2, 7, 7, 7), None, (0.5, 0.5, 0.99, 0.99, 0.99), sources=(2, 2, 1, 1, 1))
    request = stub()
    before = [(link.forecast.first(request), link.forecast.sure(request)) for link in links]

    def learn(accepted: int, times: int = 30) -> list[bool]:
        outcome = Outcome(request, plan, draft, Verdict(accepted, (0,) * (accepted + 1)))
        for number, link in enumerate(links, start=1):
            for _ in range(times):
                link.learn(number, [outcome], (), read=0, seconds=1e-3)
            link.forecast.refresh()
        return [
            link.forecast.sure(request)[-1] > sure[-1] for link, (_, sure) in zip(links, before, strict=True)
        ]

    assert learn(1) == [False, False]
    assert links[0].forecast.sure(request) == before[0][1], "what was not reached was not tried"
    assert links[1].forecast.curve(request) is not None
    assert links[1].forecast.first(request)[0] > before[1][0][0], "the first of its tokens stood"
    assert links[0].forecast.first(request)[1] < before[0][0][1], "it had nothing to begin with"
    assert learn(5)[0], "its tokens stood behind those of the other"
