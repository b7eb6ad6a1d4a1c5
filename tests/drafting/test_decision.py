"""Deciding reads what is known and changes nothing of it; the same is decided of the same."""

from __future__ import annotations

import copy

import pytest

from outrider.drafting.costs import DraftCost
from outrider.drafting.decision import Estimate, decide
from outrider.drafting.length import Load
from outrider.drafting.plan import Plan
from outrider.drafting.pricing import NOTHING, priced
from tests.drafting.test_auto import CHEAP, DEAR
from tests.fakes import Player, World, stub, stubs

QUICK = DraftCost(1e-5, 1e-5)


def known(world: World, **others: float) -> Estimate:
    policy = world.policy
    return Estimate(policy.links, policy.target, policy.bounds, False, **others)


def test_deciding_changes_nothing() -> None:
    """The same is decided twice, after what two drafters and some hundred steps have taught."""
    world = World([Player(QUICK, lambda _: 0.8, offers=0.5), Player(CHEAP, lambda _: 0.7)])
    running = [*stubs(3), stub(3, num_speculative_tokens=2)]
    world.run(running, 100)
    before = known(world, rate=300.0, thinking=1e-4)
    costs = copy.deepcopy((before.target.as_json(), [link.cost for link in before.links]))
    curves = [[*link.forecast.curve(request)] for link in before.links for request in running]
    first, second = (decide(before, running, Load(4, 0, 0, budget=100)) for _ in range(2))
    assert first == second
    assert first.drafting == 3
    assert set(first.lengths) == set(running[:3])
    assert (before.target.as_json(), [link.cost for link in before.links]) == costs
    assert [[*link.forecast.curve(request)] for link in before.links for request in running] == curves


def test_time_to_think_is_part_of_the_price() -> None:
    world = World([Player(CHEAP, lambda _: 0.8)])
    running = stubs(1)
    load = Load(1, 0, 0, budget=100)
    assert decide(known(world), running, load).drafting == 1
    assert decide(known(world, thinking=50e-3), running, load).drafting == 0


@pytest.mark.parametrize("trial", [False, True])
def test_a_plan_is_made_of_a_decision(trial: bool) -> None:
    """A trial is for a token at least, at the price of all others; without one nothing is drafted."""
    world, nothing = World([Player(DEAR, lambda _: 0.1)]), Plan((NOTHING, NOTHING))
    before = known(world, thinking=1.0)
    (request,) = running = stubs(1)
    decision = decide(before, running, Load(1, 0, 0, budget=100))
    plan = priced(before, decision, request, [trial], nothing)
    assert (plan is nothing) == (not trial)
    if trial:
        assert plan.budgets[1].price is not None
        assert (plan.length, plan.budgets[1].price.least) == (1, 1)
        assert plan.budgets[1].price.row == decision.rate * decision.row


@pytest.mark.parametrize(
    ("cost", "recorded"),
    [
        (QUICK, "55 95 83 b3 a2 d1 c1 91 e1 f1 100 e1 b0 a1 f0 e0 d1 e0 c1 a0 90 b1 90 e0 c1 a3 93 c2 b3 c2"),
        (CHEAP, "33 33 44 33 33 44 33 33 33 43 33 33 43 43 53 53 63 63 73 73 53 42 52 42 52 42 32 42 52 63"),
    ],
    ids=["quick", "cheap"],
)
def test_decisions_of_a_scripted_trace(cost: DraftCost, recorded: str) -> None:
    """How much two requests may draft, step by step: of one most tokens stand, of the other few.

    The lengths are what the code does; others mean that something else is decided.
    """
    world = World([Player(cost, lambda request: 0.9 if request.id == "0" else 0.2)])
    running = stubs(2)
    lengths = ["".join(f"{plan.length:x}" for plan in world.step(running)) for _ in recorded.split()]
    assert lengths == recorded.split()
