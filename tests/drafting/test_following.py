"""Costs that are wrong or change: followed in tens of steps, and not for a step that was interrupted."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.tracking import QUICK_STEPS, SLOW_STEPS
from tests.drafting.test_auto import CHEAP, best_rate
from tests.fakes import CURVE, Player, World, link, stubs, target_cost

COUNTS = CURVE[0]
TRUTH = target_cost()


def passes(level: float = 1.0, rows: float = 1.0, first: int = 2) -> TargetCost:
    """All passes, and those of `first` rows and more, take so many times what is true."""
    seconds = [level * TRUTH.one_pass(count) * (rows if count >= first else 1.0) for count in COUNTS]
    return TargetCost(COUNTS, seconds)


def scaled(cost: DraftCost, times: float) -> DraftCost:
    return replace(cost, fixed=times * cost.fixed, each=times * cost.each)


def decided(
    chance: float, batch: int, believed: TargetCost, drafts: float, *, after: int = 64, steps: int = 32
) -> float:
    """Expected tokens a second of what is decided after so many tokens of each request."""
    player = Player(CHEAP, lambda _: chance)
    world = World([player], believed=believed, links=[link(player, cost=scaled(CHEAP, drafts))])
    running = stubs(batch)
    while world.tokens < after * batch:
        world.step(running)
    before = len(world.drafts)
    world.run(running, steps)
    tokens = seconds = 0.0
    for drafted in world.drafts[before:]:
        lengths = [len(draft.tokens) for draft in drafted]
        tokens += sum(chance**n for length in lengths for n in range(length + 1))
        seconds += TRUTH.one_pass(batch + sum(lengths))
        seconds += CHEAP.foreseen(batch, sum(lengths), max(lengths), 0)
    return tokens / seconds


@pytest.mark.parametrize(("chance", "batch"), [(0.8, 1), (0.6, 4), (0.95, 16)])
@pytest.mark.parametrize(
    ("believed", "drafts"),
    [
        ({"level": 4}, 1),
        ({"level": 0.25}, 1),
        ({"rows": 3}, 1),
        ({"rows": 1 / 3}, 1),
        ({"rows": 1 / 3, "first": 4}, 1),
        ({}, 5),
        ({}, 0.2),
        ({"rows": 4}, 5),
        ({"level": 4}, 0.2),
        ({"level": 0.25}, 5),
    ],
    ids=str,
)
def test_wrong_costs_are_followed_in_tens_of_steps(
    chance: float, batch: int, believed: dict[str, Any], drafts: float
) -> None:
    fresh = decided(chance, batch, passes(), 1.0)
    assert decided(chance, batch, passes(**believed), drafts) >= 0.95 * fresh


def observe(cost: TargetCost, rows: int, seconds: float) -> None:
    cost.observe(rows, 0.0, 1, seconds, 0.0)


@pytest.mark.parametrize(("times", "steps"), [(4.0, SLOW_STEPS), (0.25, QUICK_STEPS)])
def test_surprises_in_a_row_are_believed(times: float, steps: int) -> None:
    """Slower ones have to be more: a busy machine makes a step slower, and nothing makes it quicker."""
    cost = target_cost()
    for _ in range(steps - 1):
        observe(cost, 4, times * TRUTH.one_pass(4))
    assert cost.surprised
    assert abs(math.log(cost.one_pass(4) / TRUTH.one_pass(4))) < 0.25
    observe(cost, 4, times * TRUTH.one_pass(4))
    assert not cost.surprised
    assert cost.one_pass(4) == pytest.approx(times * TRUTH.one_pass(4), rel=0.1)
    assert cost.one_pass(1) == pytest.approx(times * TRUTH.one_pass(1), rel=0.2)  # nothing tells it apart
    assert not cost.doubtful(4)


def test_one_look_tells_whether_one_row_shares_in_what_others_showed() -> None:
    cost = target_cost()
    for _ in range(SLOW_STEPS):
        observe(cost, 16, 3 * TRUTH.one_pass(16))
    assert cost.one_pass(1) > 2 * TRUTH.one_pass(1)
    assert cost.doubtful(1)
    observe(cost, 1, TRUTH.one_pass(1))
    assert cost.one_pass(1) == pytest.approx(TRUTH.one_pass(1), rel=0.1)
    assert cost.one_pass(16) == pytest.approx(3 * TRUTH.one_pass(16), rel=0.1)
    assert not cost.doubtful(1)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_steps_that_are_interrupted_change_little(noise: float) -> None:
    """One in ten takes three times as long, and all vary."""
    cost, draw = target_cost(), random.Random(0)
    for step in range(1000):
        rows = draw.choice((1, 3, 4, 5))
        seconds = TRUTH.one_pass(rows) * draw.lognormvariate(0, noise) * (3 if draw.random() < 0.1 else 1)
        observe(cost, rows, seconds)
        if step > 20:
            assert cost.one_pass(rows) == pytest.approx(TRUTH.one_pass(rows), rel=0.3)
    for rows in (1, 2, 4, 8):
        assert cost.one_pass(rows) == pytest.approx(TRUTH.one_pass(rows), rel=0.2)


def test_prompts_teach_little_of_other_passes() -> None:
    """They have fewer logits than what was measured."""
    cost = target_cost()
    for _ in range(20):
        cost.observe(64, 0.0, 1, 0.3 * TRUTH.one_pass(64), 0.0, judged=False)
    assert cost.one_pass(1) > 0.3 * TRUTH.one_pass(1)
    assert not cost.surprised


@pytest.mark.parametrize(("times", "steps"), [(5.0, SLOW_STEPS), (0.2, QUICK_STEPS)])
def test_drafts_are_believed_alike(times: float, steps: int) -> None:
    cost = DraftCost(1e-3, 1e-4)
    for _ in range(steps - 1):
        cost.observe(1, 2, 2, 0, times * 2.2e-3)
    assert cost.fixed == pytest.approx(1e-3, rel=0.25)
    cost.observe(1, 2, 2, 0, times * 2.2e-3)
    assert cost.fixed == pytest.approx(times * 1e-3, rel=0.25)


@pytest.mark.parametrize("chance", [0.6, 0.8])
def test_a_machine_that_is_busy_now_and_then_decides_as_well(chance: float) -> None:
    """All takes twice as long for 15 steps of every 60. Rates are of the time that a quiet one takes."""
    player = Player(CHEAP, lambda _: chance)
    world, draw = World([player], believed=passes()), random.Random(0)
    running, undisturbed = stubs(1), 0.0
    for step in range(1500):
        busy = 2.0 if step % 60 < 15 else 1.0
        slower = busy * draw.lognormvariate(0, 0.1)
        world.truth = passes(level=slower)
        player.cost = scaled(CHEAP, slower)
        before = world.seconds
        world.step(running)
        undisturbed += (world.seconds - before) / slower
    assert world.tokens / undisturbed >= 0.93 * best_rate(chance, 1, CHEAP)
