"""What a drafter of another vocabulary costs: by the tokens that it says, not by those that it offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from outrider.drafting.base import Draft
from outrider.drafting.costs import DraftCost
from outrider.drafting.pace import Paces
from outrider.ops.budget import Budget
from tests.fakes import Player, World, stubs

if TYPE_CHECKING:
    from outrider.engine.request import Request

STEP = DraftCost(2e-3, 1e-4)


@dataclass
class Wordy(Player):
    """A player that says `words` tokens for each that it offers to a request."""

    words: Callable[[Request], int] = lambda request: 1

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        drafts = [
            replace(draft, steps=self.words(request) * len(draft.tokens))
            for request, draft in zip(requests, super().draft(requests, budgets), strict=True)
        ]
        said = [max(1, draft.steps) for draft in drafts]
        self.seconds = self.cost.fixed * max(said) + self.cost.each * sum(said)
        return drafts


def drafted(world: World, number: int) -> int:
    """The drafts of a request in the last steps."""
    return sum(bool(drafts[number].tokens) for drafts in world.drafts[-500:])


def worlds() -> tuple[World, World]:
    """Four of five tokens stand; of one text each takes one of the draft model's, of the other eight."""
    return tuple(World([Wordy(STEP, lambda _: 0.8, words=lambda _, n=n: n)]) for n in (1, 8))  # type: ignore


def test_drafts_that_take_many_steps_do_not_pay() -> None:
    for world, pays in zip(worlds(), (True, False), strict=True):
        world.run(stubs(1), 1000)
        assert (drafted(world, 0) > 400) == pays
        assert (drafted(world, 0) < 50) == (not pays)
        assert world.policy.links[0].cost.fixed == pytest.approx(STEP.fixed, rel=0.05)


def test_each_request_has_its_own() -> None:
    """Of two that run together, in one step."""
    player = Wordy(DraftCost(0.0, 1.5e-3), lambda _: 0.8, words=lambda request: 1 + 9 * int(request.id))
    world = World([player])
    world.run(stubs(2), 1000)
    assert drafted(world, 0) > 400
    assert drafted(world, 1) < 50


def test_planted_fault_of_steps_that_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paces, "of", lambda self, request: 1.0)
    with pytest.raises(AssertionError):
        test_each_request_has_its_own()


def test_a_newcomer_is_taken_for_usual() -> None:
    paces, (known, other) = Paces(), stubs(2)
    for _ in range(10):
        paces.observe(known, 3, 3)
    assert paces.of(known) == paces.usual == 1.0
    for _ in range(100):
        paces.observe(known, 4, 2)
    assert paces.of(known) == pytest.approx(2.0, rel=1e-3)
    assert paces.of(other) == paces.usual == pytest.approx(2.0, rel=0.1)
    paces.observe(other, 1, 1)
    assert 1.0 < paces.of(other) < paces.of(known)
    paces.forget(other)
    assert paces.of(other) == paces.usual
