"""The length that chooses itself, against the best fixed length, in a world whose costs are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from outrider.drafting.auto import OVERHEAD, SAVE_EVERY
from outrider.drafting.base import Draft
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.decision import Decision, Estimate, decide
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import Load, Timing
from outrider.drafting.probing import SHARE
from outrider.drafting.trials import LONGEST_QUIET
from outrider.drafting.workloads import WORKLOADS
from tests.fakes import BOUND, CURVE, Clock, Player, World, stub, stubs, target_cost

if TYPE_CHECKING:
    from outrider.engine.request import Request

LONGEST = BOUND.most


def fixed_rate(chance: float, batch: int, cost: DraftCost, length: int) -> float:
    """Expected tokens a second with one length for all."""
    tokens = batch * sum(chance**n for n in range(length + 1))
    drafting = length * (cost.fixed + batch * cost.each) + batch * cost.first * bool(length)
    return tokens / (target_cost().one_pass(batch * (1 + length)) + drafting)


def best_rate(chance: float, batch: int, cost: DraftCost) -> float:
    return max(fixed_rate(chance, batch, cost, length) for length in range(LONGEST + 1))


FREE, CHEAP, DEAR = DraftCost(0.0, 2e-5), DraftCost(1e-3, 2e-5), DraftCost(4e-3, 1e-4)


@pytest.mark.parametrize(
    ("chance", "batch", "cost"),
    [
        (0.9, 1, FREE),
        (0.6, 1, FREE),
        (0.8, 1, CHEAP),
        (0.9, 1, DEAR),
        (0.8, 4, CHEAP),
        (0.6, 8, CHEAP),
        (0.9, 16, CHEAP),
        (0.7, 32, FREE),
    ],
)
def test_reaches_the_best_fixed_length(chance: float, batch: int, cost: DraftCost) -> None:
    """Beginning with what is learnt from nothing."""
    world = World([Player(cost, lambda _: chance)])
    rate = world.run(stubs(batch), max(300, 4000 // batch))
    assert rate >= 0.95 * best_rate(chance, batch, cost)


@pytest.mark.parametrize(
    ("chance", "batch", "cost"),
    [(0.02, 1, CHEAP), (0.3, 1, DEAR), (0.05, 8, CHEAP), (0.3, 64, CHEAP), (0.02, 1, FREE)],
)
def test_loses_little_where_drafting_never_pays(chance: float, batch: int, cost: DraftCost) -> None:
    assert best_rate(chance, batch, cost) <= 1.03 * fixed_rate(chance, batch, cost, 0)
    world = World([Player(cost, lambda _: chance)])
    rate = world.run(stubs(batch), 1500)
    assert rate >= 0.97 * fixed_rate(chance, batch, cost, 0)


def mixture_curve(count: int, chosen: int, dense: float = 0.3) -> tuple[list[int], list[float]]:
    """Milliseconds of a pass that reads every expert which some row goes to, each row to others at random;
    dense: what is read whatever the rows."""
    counts = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    read = [count * (1 - (1 - chosen / count) ** rows) / chosen for rows in counts]
    return counts, [10 * (dense + (1 - dense) * times) for times in read]


@pytest.mark.parametrize("chance", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("cost", [FREE, CHEAP])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_drafted_row_of_a_mixture_costs_the_experts_that_it_adds(
    chance: float, cost: DraftCost, batch: int
) -> None:
    """128 experts of which a row takes 8: two rows cost nearly two passes, and few drafts pay."""
    truth, believed = (target_cost(mixture_curve(128, 8)) for _ in range(2))
    world = World([Player(cost, lambda _: chance)], truth=truth, believed=believed)

    def rate_of(length: int) -> float:
        tokens = batch * sum(chance**n for n in range(length + 1))
        drafting = length * (cost.fixed + batch * cost.each)
        return tokens / (world.truth.one_pass(batch * (1 + length)) + drafting)

    rate = world.run(stubs(batch), 1500)
    assert rate >= 0.97 * rate_of(0)
    assert rate >= 0.9 * max(rate_of(length) for length in range(LONGEST + 1))
    if chance < 0.5:
        assert world.lengths(500) < 0.1


def test_nothing_under_load_and_something_when_it_falls() -> None:
    world, batch = World([Player(CHEAP, lambda _: 0.5)]), stubs(64)
    world.run(batch, 200)
    assert world.lengths(100) < 0.1
    world.run(batch[:2], 30)
    assert world.lengths(20) > 0.7
    world.run(batch, 30)
    assert world.lengths(20) < 0.1


@pytest.mark.parametrize(("before", "after", "steps"), [(0.95, 0.05, 60), (0.05, 0.95, 600)])
def test_a_jump_of_acceptance_is_followed(before: float, after: float, steps: int) -> None:
    """Upwards it takes until trials, for which time has to be saved up, have found out."""
    chance = before
    world, batch = World([Player(CHEAP, lambda _: chance)]), stubs(2)
    world.run(batch, 400)
    long_before = world.lengths(50) > 3
    assert long_before == (before > after)
    chance = after
    world.run(batch, steps)
    world.run(batch, 100)
    assert (world.lengths(100) > 3) == (not long_before)


def test_a_chain_after_a_step_without_stubs() -> None:
    """As when a prompt is read in chunks."""
    world = World([Player(FREE, lambda _: 0.9), Player(CHEAP, lambda _: 0.9)])
    assert world.policy.plans([], Load(8, 8, 64, 100)) == []
    world.policy.observe([], Timing([0.0] * 3, 0.01, 0.01))
    assert world.step([stub()])[0].rows > 0


def test_a_drafter_that_is_sure_is_followed() -> None:
    """Tokens that stand with 0.2 or with 0.8, and the drafter knows which: better than any fixed length."""
    cost = DraftCost(1e-4, 2e-5)
    world, batch = World([Player(cost, lambda _: 0.5, sure=True)]), stubs(16)
    world.run(batch, 300)
    assert world.run(batch, 2000) >= 1.02 * best_rate(0.5, 16, cost)
    blind = World([Player(cost, lambda _: 0.5)])
    blind.run(batch, 100)
    assert blind.run(batch, 300) >= 0.95 * best_rate(0.5, 16, cost)


@pytest.mark.parametrize(("room", "asked"), [(3, False), (10**6, True)])
def test_catching_up_has_to_be_worth_it(room: int, asked: bool) -> None:
    """Half a second of reading, for three tokens or for a long text."""
    player = Player(replace(CHEAP, catch_up=2e-4), lambda _: 0.9, unread=1500)
    world = World([player])
    world.step([stub(room=room)])
    assert bool(player.asked) == asked


def test_who_has_much_to_read_keeps_nobody_from_drafting() -> None:
    player = Player(replace(CHEAP, catch_up=2e-4), lambda _: 0.9, unread=1500)
    world, (near, far) = World([player]), (stub(0), stub(1, room=3))
    player.seen.add(near)
    for _ in range(20):
        world.step([near, far])
    assert player.asked == [near] * 20


@pytest.mark.parametrize("workload", ["structured", "creative"])
@pytest.mark.parametrize("chance", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("sure", [False, True])
def test_bounds_of_a_workload_hold(workload: str, chance: float, sure: bool) -> None:
    bounds = WORKLOADS[workload]
    assert (bounds.least, bounds.most) == {"structured": (5, 8), "creative": (2, 4)}[workload]
    world = World([Player(CHEAP, lambda _: chance, sure=sure)], bounds)
    world.run(stubs(3), 60)
    lengths = {len(draft.tokens) for drafts in world.drafts for draft in drafts}
    assert min(lengths) >= bounds.least
    assert max(lengths) <= bounds.most


@pytest.mark.parametrize("workload", [None, "structured"])
def test_a_request_may_name_its_own_length(workload: str | None) -> None:
    player = Player(FREE, lambda _: 0.9)
    world = World([player], WORKLOADS[workload])
    never, three, free = stub(0, num_speculative_tokens=0), stub(1, num_speculative_tokens=3), stub(2)
    for _ in range(200):
        world.step([never, three, free])
    assert never not in player.asked
    assert {len(drafts[1].tokens) for drafts in world.drafts} == {3}
    assert world.drafts[-1][2].tokens


def test_only_requests_with_lengths_of_their_own() -> None:
    world = World([Player(FREE, lambda _: 0.9)])
    for _ in range(5):
        world.step([stub(0, num_speculative_tokens=0), stub(1, num_speculative_tokens=2)])
    assert [[len(draft.tokens) for draft in drafts] for drafts in world.drafts] == [[0, 2]] * 5


def test_no_requests_at_all() -> None:
    world = World([Player(FREE, lambda _: 0.9)])
    assert world.policy.plans([], Load(8, 8, 64, 100)) == []
    world.policy.observe([], Timing([0.0] * 2, 0.01, 0.01))
    assert world.step([stub()])[0].rows > 0


def test_drafting_nothing_calls_nobody() -> None:
    """Between trials, which are few."""
    player = Player(DEAR, lambda _: 0.02)
    world, request = World([player]), stub()
    world.run([request], 300)
    quiet = len(player.asked)
    world.run([request], 2000)
    trials = len(player.asked) - quiet
    assert 1 <= trials <= 2000 * SHARE * 10 / 4 + 1  # of steps of 10 ms, for trials that cost 4 and more
    nothing = [world.policy.nothing] * 3
    before = len(player.asked)
    assert world.chain.draft(stubs(3), nothing) == [Draft()] * 3
    assert len(player.asked) == before


def test_a_trial_is_for_one_step() -> None:
    """A decision that stands for several steps tries but once."""
    player = Player(DEAR, lambda _: 0.0)
    world, request = World([player]), stub()
    world.run([request], 2000)
    asked = [bool(drafts[0].tokens) for drafts in world.drafts[-1000:]]
    assert any(asked)
    assert not any(first and second for first, second in pairwise(asked))


def test_a_chain_learns_whom_to_ask_for_whom() -> None:
    """The first is right for one request alone; the second is good for both, and costs more."""
    left, right = stub(0), stub(1)
    first = Player(DraftCost(1e-5, 1e-5), lambda request: 0.9 if request is left else 0.02)
    second = Player(DraftCost(2e-4, 2e-5), lambda _: 0.8)
    world = World([first, second])
    world.run([left, right], 400)
    sources = {left: [0, 0], right: [0, 0]}
    for drafts in world.drafts[-200:]:
        for request, draft in zip((left, right), drafts, strict=True):
            sources[request][draft.source - 1] += bool(draft.tokens)
    assert sources[left][0] > 150
    assert sources[right][1] > 150
    assert sources[right][0] < 20


def test_the_second_is_asked_where_the_first_is_silent() -> None:
    first = Player(DraftCost(1e-5, 1e-5), lambda _: 0.9, offers=0.4)
    second = Player(CHEAP, lambda _: 0.8)
    world, request = World([first, second]), stub()
    world.run([request], 300)
    sources = [draft.source for (draft,) in world.drafts[-200:] if draft.tokens]
    assert 40 < sources.count(1) < 120
    assert 60 < sources.count(2) < 160


def test_a_second_that_never_pays_leaves_what_the_first_gains() -> None:
    first, useless = Player(FREE, lambda _: 0.7), Player(DraftCost(20e-3, 1e-3), lambda _: 0.3)
    world, batch = World([first, useless]), stubs(2)
    world.run(batch, 200)
    assert world.run(batch, 1000) >= 0.93 * best_rate(0.7, 2, FREE)


@dataclass
class SlowDecision:
    """Decisions, each of which takes so many seconds of a clock."""

    seconds: float
    clock: Clock = field(default_factory=Clock)
    made: int = 0

    def __call__(self, known: Estimate, requests: Sequence[Request], load: Load) -> Decision:
        self.made += 1
        self.clock.now += self.seconds
        return decide(known, requests, load)


def test_deciding_takes_its_share_of_the_time_at_most() -> None:
    """Where a decision takes as long as a step does."""
    slow = SlowDecision(10e-3)
    world, batch = World([Player(CHEAP, lambda _: 0.8)], decide=slow, clock=slow.clock), stubs(1)
    world.run(batch, 1500)
    before, began = slow.made, world.seconds
    world.run(batch, 2000)
    assert 0 < (slow.made - before) * 10e-3 <= 1.6 * OVERHEAD * (world.seconds - began)


def test_a_decision_ends_with_its_batch() -> None:
    slow = SlowDecision(10e-3)
    world, batch = World([Player(CHEAP, lambda _: 0.8)], decide=slow, clock=slow.clock), stubs(3)
    world.run(batch, 500)
    before = slow.made
    for present in (batch[:2], batch, batch[1:]):
        world.step(present)
    assert slow.made == before + 3


def test_a_quiet_policy_decides_seldom_but_does() -> None:
    slow = SlowDecision(0.0)
    world = World([Player(DEAR, lambda _: 0.0)], decide=slow, clock=slow.clock)
    world.run(stubs(1), 500)
    before = slow.made
    world.run(stubs(1), 1 + 100 * LONGEST_QUIET)
    assert 100 <= slow.made - before <= 400


def test_ended_requests_are_forgotten() -> None:
    world = World([Player(CHEAP, lambda _: 0.8), Player(DEAR, lambda _: 0.5)])
    for number in range(20):
        request = stub(number)
        world.run([request], 10)
        world.policy.end(request)
    for probing in world.policy._trials._probing:
        assert not probing._tried
    for link in world.policy.links:
        assert isinstance(link.forecast, Forecast)
        for hazards in (link.forecast._positions, link.forecast._confidences, link.forecast._silences):
            assert not hazards._factors


def test_what_is_learnt_is_saved_now_and_then() -> None:
    saved: list[int] = []
    clock = Clock()
    world = World([Player(CHEAP, lambda _: 0.8)], save=lambda: saved.append(1), clock=clock)
    for _ in range(1000):
        world.step([stub()])
        clock.now += 0.3
    assert 3 <= len(saved) <= 1000 * 0.3 / SAVE_EVERY


def test_wrong_costs_are_corrected_by_what_steps_take() -> None:
    """Rows were measured as several times dearer than they are, and still something seems to pay."""
    counts, _ = CURVE
    slow = [(10 + 1.5 * (count - 1)) / 1000 for count in counts]
    world = World([Player(CHEAP, lambda _: 0.8)], believed=TargetCost(counts, slow))
    batch = stubs(4)
    world.run(batch, 3000)
    assert world.run(batch, 500) >= 0.9 * best_rate(0.8, 4, CHEAP)


@dataclass
class Ticking:
    """Every look at it costs a millisecond, of which a step that plans drafts and learns takes some."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.mark.parametrize(("chance", "pays"), [(0.3, False), (0.8, True)])
def test_time_to_think_is_not_forgotten_while_nothing_is_drafted(chance: float, pays: bool) -> None:
    """Drafts of which three in ten stand would pay if thinking took no time, and do not as it is."""
    assert best_rate(chance, 1, CHEAP) > 1.1 * fixed_rate(chance, 1, CHEAP, 0)
    world = World([Player(CHEAP, lambda _: chance)], clock=Ticking())
    batch = stubs(1)
    world.run(batch, 1000)
    world.run(batch, 2000)
    drafted = sum(bool(drafts[0].tokens) for drafts in world.drafts[-2000:])
    assert (drafted > 1900) == pays
    assert (drafted < 100) == (not pays)


def test_thinking_that_was_interrupted_is_soon_forgotten() -> None:
    """One step in twenty waits for 50 ms in the middle of planning."""
    clock = Clock()
    world, batch = World([Player(CHEAP, lambda _: 0.8)], clock=clock), stubs(1)
    behind = world.players[0].behind

    def interrupted(request: Request) -> int:
        clock.now += 0.05 if len(world.drafts) % 20 == 19 else 0.0
        return behind(request)

    world.players[0].behind = interrupted  # type: ignore[method-assign]
    world.run(batch, 500)
    assert world.run(batch, 2000) >= 0.9 * best_rate(0.8, 1, CHEAP)
