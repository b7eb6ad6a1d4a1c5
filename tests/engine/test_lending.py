"""A drafter that is switched off for long gives its memory to a target that is short, and gets it back."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.cache.pool import BlockPool
from outrider.cache.pools import Pools
from outrider.drafting.model import ModelDrafter
from outrider.drafting.plan import Plan
from outrider.engine.lending import DRAFT_COUNTS, Lending, Patience
from outrider.models.runner import ModelRunner
from outrider.ops.budget import Budget
from tests import planted
from tests.engine.helpers import PROMPTS, drafters_of, expected, held_blocks, load, token_ids
from tests.fakes import overruled
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = (PROMPTS[0], PROMPTS[1], PROMPTS[3], PROMPTS[4])
SMALL: dict[str, Any] = {
    "kv_cache_memory": 250_000, "max_model_len": 160, "max_num_seqs": 8, "num_speculative_tokens": 4
}  # fmt: skip
"""20 blocks and as many to lend, of 16 positions; 8 requests of 80 positions fill both."""


def greedy(max_tokens: int, length: int | None = None) -> SamplingParams:
    return SamplingParams(
        temperature=0, ignore_eos=True, max_tokens=max_tokens, num_speculative_tokens=length
    )


SOON = Patience(idle=40)
"""What takes long does so in tests too, but not quite as long."""


class Drive:
    """An engine and what it is asked; every step checks that each block is free or in one request's table."""

    def __init__(self, llm: LLM, patience: Patience = SOON) -> None:
        llm.engine.lending.patience = patience
        self.llm, self.engine, self.pool = llm, llm.engine, llm.engine.target.pool
        self.live: dict[str, tuple[tuple[int, ...], SamplingParams]] = {}
        self.recorded = record(llm)

    @property
    def short(self) -> list[bool]:
        """Whether there were too few blocks, step by step."""
        return [schedule.short for schedule in self.recorded.schedules]

    def add(self, prompt: tuple[int, ...], params: SamplingParams) -> str:
        request_id = self.engine.add(prompt, params)
        self.live[request_id] = (prompt, params)
        return request_id

    def step(self) -> Any:
        increments = self.engine.step()
        for pool, held in held_blocks(self.engine):
            assert pool.num_free == pool.num_blocks - len(held)
            assert all(block < pool.num_blocks for block in held)
        return increments

    def crowd(self, max_tokens: int = 70, length: int | None = 0, seed: int = 0) -> None:
        """Keep 16 requests in the engine, twice as many as have a seat."""
        draw = random.Random(seed + len(self.live))
        while len(self.engine.scheduler.waiting) + len(self.engine.scheduler.running) < 16:
            self.add(draw.choice(SHORT), greedy(max_tokens, length))

    def until_lent(self, **crowd: Any) -> None:
        for _ in range(400):
            self.crowd(**crowd)
            self.step()
            if self.engine.lending.lent:
                return
        raise AssertionError("nothing was lent")

    def finish(self, target: str) -> None:
        while self.engine.unfinished:
            self.step()
        for request_id, (prompt, params) in self.live.items():
            assert token_ids(self.engine.take(request_id)) == token_ids(expected(target, prompt, params))
        self.live.clear()

    def accepted(self, target: str, params: SamplingParams) -> int:
        """By a request that runs alone."""
        request_id = self.add(SHORT[0], params)
        accepted = 0
        while not self.engine.finished(request_id):
            accepted += sum(i.accepted for i in self.step())
        self.finish(target)
        return accepted


def runner_of(llm: LLM) -> ModelRunner | None:
    (drafter,) = (d for d in llm.engine.drafters.drafters if isinstance(d, ModelDrafter))
    return drafter._runner


# In an engine


@pytest.mark.parametrize("options", [{}, {"backend": "torch"}, {"enable_prefix_caching": False}])
def test_memory_goes_to_the_target_and_comes_back(target: str, draft: str, options: dict[str, Any]) -> None:
    drive = Drive(load(target, draft, **SMALL, **options))
    own = drive.pool.num_blocks
    assert drive.accepted(target, greedy(70)) > 0
    drive.until_lent()
    assert drive.pool.num_blocks == 2 * own
    assert runner_of(drive.llm) is None
    before = drive.recorded.preempted
    running: list[int] = []
    for _ in range(100):
        drive.crowd()
        running.append(len(drive.step()))
    assert any(before)
    assert not any(drive.recorded.preempted[len(before) :])
    assert min(running[20:]) == 8, "all seats are taken"
    drive.finish(target)

    assert drive.accepted(target, greedy(100)) > 0, "it drafts again"
    assert not drive.engine.lending.lent
    assert drive.pool.num_blocks == own
    assert runner_of(drive.llm) is not None


def test_the_memory_comes_back_while_requests_run(target: str, draft: str) -> None:
    """Never are there none, and all begin alike: a prefix that all share does not hold the reserve."""
    drive = Drive(load(target, draft, **SMALL))
    prompt = PROMPTS[2][:40]
    for _ in range(150):
        while len(drive.engine.scheduler.waiting) < 4:
            drive.add(prompt, greedy(40, 0))
        drive.step()
    assert drive.engine.lending.lent
    drafted = 0
    for step in range(400):
        if step % 30 == 0:  # two at once, of which one is in the middle
            drive.add(prompt, greedy(50))
        drafted += sum(i.drafted for i in drive.step())
        if drafted:
            break
    assert drafted
    assert drive.engine.unfinished
    assert not drive.engine.lending.lent
    drive.finish(target)


def test_a_length_of_its_own_wakes_the_drafters_once_there_is_room(target: str, draft: str) -> None:
    drive = Drive(load(target, draft, **SMALL), replace(SOON, quiet=10**9))
    drive.until_lent()
    asking = drive.add(SHORT[0], greedy(70, 3))
    while not drive.engine.finished(asking):
        drive.crowd()
        stays = drive.engine.lending.lent and drive.pool.num_free < drive.pool.reserve
        drafted = any(i.drafted for i in drive.step())
        assert not (drafted and drive.engine.lending.lent)
        assert drive.engine.lending.lent or not stays, "it waits for room"
    drive.finish(target)
    drive.until_lent()
    drive.finish(target)
    assert drive.engine.lending.lent
    assert drive.accepted(target, greedy(60)) == 0
    assert drive.accepted(target, greedy(60, 3)) > 0
    assert not drive.engine.lending.lent


def test_nothing_is_lent_while_it_drafts(target: str, draft: str) -> None:
    drive = Drive(load(target, draft, **SMALL))
    for _ in range(150):
        drive.crowd(length=2)
        drive.step()
    assert sum(drive.short) > 40
    assert not drive.engine.lending.lent
    drive.finish(target)


@pytest.mark.parametrize("drafter", ["ngram", "draft", None])
def test_nothing_is_lent_where_there_is_no_need_or_nothing_to_lend(
    target: str, draft: str, drafter: str | None
) -> None:
    options = SMALL if drafter == "draft" else SMALL | {"kv_cache_memory": 125_000}
    if drafter is None:
        options = {key: options[key] for key in options if key != "num_speculative_tokens"}
    drive = Drive(load(target, draft if drafter == "draft" else drafter, **options))
    assert (drive.pool.reserve > 0) == (drafter == "draft")
    for _ in range(150):
        if drafter == "draft":
            if not drive.engine.unfinished:
                drive.add(SHORT[0], greedy(60, 0))
        else:
            drive.crowd()
        drive.step()
    assert any(drive.short) == (drafter != "draft")
    assert not drive.engine.lending.lent
    drive.finish(target)


def test_there_is_no_reserve_where_all_requests_fit(target: str, draft: str) -> None:
    llm = load(target, draft, **SMALL | {"kv_cache_memory": "8MiB"})
    assert (llm.engine.target.pool.num_blocks, llm.engine.target.pool.reserve) == (80, 0)


def test_prompt_lookup_goes_on_while_the_model_rests(target: str, draft: str) -> None:
    """Each drafter of a chain for itself: here the policy leaves the model out."""
    options: dict[str, Any] = {"prompt_lookup_min": 1, "speculative_model": ["ngram", draft]}
    drive = Drive(load(target, **options, **SMALL))
    nothing = drive.engine.scheduler.policy.nothing.budgets[2]
    with overruled(drive.llm, lambda plan: Plan((*plan.budgets[:2], nothing))):  # lookup only
        drive.until_lent(length=None)
        drafted = 0
        for _ in range(50):
            drive.crowd(length=None)
            drafted += sum(i.drafted for i in drive.step())
    assert drive.engine.lending.lent
    assert drafted > 0
    for _ in range(20):
        drive.crowd(length=None)
        drive.step()
    assert drive.engine.lending.lent
    assert runner_of(drive.llm) is None, "the model is not asked, whatever is planned"
    drive.finish(target)


def test_the_automatic_length_bears_to_be_silenced(target: str, draft: str) -> None:
    drive = Drive(load(target, draft, **SMALL | {"num_speculative_tokens": "auto"}))
    nothing = drive.engine.scheduler.policy.nothing
    with overruled(drive.llm, lambda _: nothing):
        drive.until_lent(length=None)
    with overruled(drive.llm, lambda _: Plan((Budget(0), Budget(3)))):
        for _ in range(30):
            drive.crowd(length=None)
            assert not any(i.drafted for i in drive.step())
        drive.finish(target)
        assert drive.accepted(target, greedy(70)) > 0
    assert drive.accepted(target, greedy(70, 3)) > 0


def test_a_resting_model_keeps_no_memory(target: str) -> None:
    llm = load(target, target, **SMALL)
    gc.collect()
    gc.disable()
    try:
        llm.generate([SHORT[0]], greedy(40), use_tqdm=False)
        runner = runner_of(llm)
        assert runner is not None
        kept: list[Any] = [weakref.ref(x) for x in (runner, *(layer.keys for layer in runner._cache))]
        request_id = llm.engine.add(SHORT[0], greedy(60))
        increments = [i for _ in range(8) for i in llm.engine.step()]
        (drafter,) = drafters_of(llm)
        del runner
        drafter.rest()
        assert [reference() for reference in kept] == [None] * len(kept)
        while llm.engine.unfinished:  # it goes on in the middle of a request, and has forgotten nothing
            increments += llm.engine.step()
    finally:
        gc.enable()
    assert sum(i.accepted for i in increments) == sum(i.drafted for i in increments) > 0
    assert token_ids(llm.engine.take(request_id)) == token_ids(expected(target, SHORT[0], greedy(60)))


def comes_and_goes(target: str, draft: str, seed: int, spare: float = 0.0) -> bool:
    """Whether all is well where the memory goes to and fro, with requests of all kinds."""
    drive = Drive(load(target, draft, **SMALL), Patience(idle=1, quiet=1, spare=spare))
    draw = random.Random(seed)
    lent = []
    try:
        for _ in range(4):
            for _ in range(draw.randrange(20, 40)):
                drive.add(
                    draw.choice(PROMPTS), greedy(draw.randrange(1, 80), draw.choice([0, 0, 0, 0, 0, 3]))
                )
            while len(drive.engine.scheduler.running) > draw.randrange(3) or drive.engine.scheduler.waiting:
                drive.step()
                lent.append(drive.engine.lending.lent)
        drive.finish(target)
    except (AssertionError, IndexError):
        return False
    assert sum(a != b for a, b in pairwise(lent)) > 4
    return True


def test_to_and_fro(target: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert comes_and_goes(target, draft, 0)
    assert comes_and_goes(target, draft, 1)

    planted.reclaim_what_is_in_use(monkeypatch)
    assert not comes_and_goes(target, draft, 0, spare=-10.0), "the planted fault was not seen"


# When


class Steps:
    """Lending alone, told of steps that are made up."""

    def __init__(self) -> None:
        self.pool = BlockPool(8, reserve=8)
        self.rests = 0
        drafter: Any = SimpleNamespace(rest=self._rest)
        pools = Pools([self.pool])
        target: Any = SimpleNamespace(pool=pools, reclaim=pools.reclaim)
        self.lending = Lending(target, {0: drafter})

    def _rest(self) -> None:
        assert self.pool.num_blocks == 8, "first it rests"
        self.rests += 1

    def step(self, *drafts: int, short: bool = False, own: int | None = None) -> bool:
        """drafts: planned, by request."""
        request = SimpleNamespace(params=SimpleNamespace(num_speculative_tokens=own))
        work = [SimpleNamespace(request=request, plan=Plan((Budget(n),))) for n in drafts]
        schedule: Any = SimpleNamespace(work=work, preempted=(), short=short)
        self.lending.observe(schedule)
        assert self.lending.resting == ((0,) if self.lending.lent else ())
        assert self.pool.num_blocks == (16 if self.lending.lent else 8)
        return self.lending.lent


def test_both_are_needed() -> None:
    steps = Steps()
    assert not any(steps.step(0, 0, short=True) for _ in range(Patience.idle - 1))
    assert not any(steps.step(0, 0) for _ in range(2 * Patience.idle))
    assert steps.step(0, 0, short=True)
    assert steps.rests == 1


def test_one_of_many_that_drafts_is_enough_and_a_trial_is_not() -> None:
    steps = Steps()
    assert not any(steps.step(*[0] * 30, 1, short=True) for _ in range(2 * Patience.idle))
    trials = [steps.step(int(i % (3 * DRAFT_COUNTS) == 0), short=True) for i in range(2 * Patience.idle)]
    assert trials[-1]


def lent_out() -> Steps:
    steps = Steps()
    for _ in range(Patience.idle):
        steps.step(0, short=True)
    assert steps.lending.lent
    return steps


def test_it_takes_quiet_steps_in_a_row() -> None:
    steps = lent_out()
    for _ in range(3):
        assert all(steps.step(0) for _ in range(Patience.quiet - 1))
        assert steps.step(0, short=True)
    assert all(steps.step(0) for _ in range(Patience.quiet - 1))
    assert not steps.step(0)
    assert steps.step(0, short=True), "nobody has drafted since"


def test_it_takes_room_to_spare_and_an_unused_reserve() -> None:
    steps = lent_out()
    own = [steps.pool.allocate() for _ in range(7)]
    assert all(steps.step(0, own=4) for _ in range(2 * Patience.quiet))
    reserved = [steps.pool.allocate() for _ in range(2)][1]
    for block in own:
        steps.pool.release(block)
    assert all(steps.step(0, own=4) for _ in range(2 * Patience.quiet))
    steps.pool.release(reserved)
    assert steps.step(0, own=0, short=True)
    assert steps.step(0, own=0), "none is a length for which nobody has to wake"
    assert not steps.step(0, own=4)
