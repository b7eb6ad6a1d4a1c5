"""Who computes what in a step: nobody starves, nobody holds up the others, and drafts cost nobody a thing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from outrider import LLM, ConfigError, Increment, SamplingParams
from outrider.drafting.base import Draft
from outrider.drafting.chain import Chain
from outrider.drafting.model import ModelDrafter
from outrider.engine import scheduler
from outrider.engine.admission import PRIORITY_SECONDS
from outrider.engine.engine import Engine
from outrider.engine.request import Request
from outrider.engine.scheduler import Schedule
from outrider.engine.seam import StepEngine
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from outrider.models.runner import ModelRunner
from outrider.ops.budget import Budget
from tests import planted
from tests.engine.helpers import PROMPTS, expected, load, token_ids
from tests.fakes import Clock, Memoryless
from tests.watchers import check, record

LONG = tuple(20 + i % 200 for i in range(120))


def greedy(max_tokens: int, length: int | None = None, **others: Any) -> SamplingParams:
    return SamplingParams(
        temperature=0, ignore_eos=True, max_tokens=max_tokens, num_speculative_tokens=length, **others
    )


def find(llm: LLM, request_id: str) -> Request:
    known = [*llm.engine.scheduler.running, *llm.engine.scheduler.waiting]
    return next(request for request in known if request.id == request_id)


def run(llm: LLM) -> list[str]:
    """Step to the end; requests in the order in which they finished."""
    order = []
    while llm.engine.unfinished:
        order += [i.request_id for i in llm.engine.step() if i.finish_reason is not None]
    return order


def one_at_a_time(target: str, clock: Clock) -> LLM:
    """Requests come when the clock says."""
    llm = load(target, max_num_seqs=1)
    llm.engine.now = clock
    return llm


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


class WrongDrafter(Memoryless):
    """Drafts the token 0, which `NOT_ZERO` rules out."""

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [Draft((0,) * budget.length) for budget in budgets]


NOT_ZERO = {0: -100.0}


# Prompts beside decoding


@pytest.mark.parametrize("own_length", [None, 4])
def test_a_long_prompt_holds_up_neither_decoding_nor_drafts_nor_they_the_prompt(
    target: str, own_length: int | None
) -> None:
    default = 0 if own_length else 4
    llm = load(target, target, num_speculative_tokens=default, max_num_batched_tokens=12, max_num_seqs=4)
    decoding = [llm.engine.add(prompt, greedy(250, own_length)) for prompt in PROMPTS[:3]]
    while sum(i.drafted > 0 for i in llm.engine.step()) < 3:
        pass
    reading = llm.engine.add(LONG, greedy(1))
    steps = 0
    while not llm.engine.finished(reading):
        before = find(llm, reading).table.filled
        increments = {i.request_id: i for i in llm.engine.step()}
        assert all(increments[i].token_ids for i in decoding)
        assert all(increments[i].drafted > 0 for i in decoding)
        if not llm.engine.finished(reading):
            assert find(llm, reading).table.filled >= before + 4
        steps += 1
    assert steps > 10


def test_a_prompt_that_needs_few_rows_leaves_them_to_drafts(target: str) -> None:
    llm = load(target, target, num_speculative_tokens=4, max_num_batched_tokens=12, max_num_seqs=4)
    decoding = [llm.engine.add(prompt, greedy(60)) for prompt in PROMPTS[:2]]
    while not all(find(llm, i).num_output for i in decoding):
        llm.engine.step()
    llm.engine.step()  # the draft model catches up
    llm.engine.add((5,), greedy(1))
    increments = {i.request_id: i for i in llm.engine.step()}
    assert [increments[i].drafted for i in decoding] == [4, 4]


def test_requests_that_do_not_draft_leave_their_rows_to_prompts(target: str) -> None:
    llm = load(target, "ngram", num_speculative_tokens=8, max_num_batched_tokens=12, max_num_seqs=4)
    decoding = [llm.engine.add(prompt, greedy(60, 0)) for prompt in PROMPTS[:2]]
    while not all(find(llm, i).num_output for i in decoding):
        llm.engine.step()
    reading = llm.engine.add(LONG, greedy(1))
    llm.engine.step()
    assert find(llm, reading).table.filled == 10


def test_prompts_take_no_more_than_a_chunk(target: str) -> None:
    llm = load(target, max_num_batched_tokens=64, prompt_chunk_size=8)
    read: list[int] = []

    class Reading(Watcher):
        def scheduled(self, schedule: Schedule) -> None:
            read.append(sum(work.count for work in schedule.work if work.request.pending > 1))

    llm.engine.watchers.append(Reading())
    llm.generate([LONG, PROMPTS[2], *PROMPTS], greedy(8), use_tqdm=False)
    assert max(read) == 8


# Starvation


def steps_among_short_ones(llm: LLM, limit: int) -> int:
    """Steps until a long prompt has been read, while more short ones come than can be served."""
    long: str | None = None
    for step in range(limit):
        llm.engine.add(tuple(range(30 + step % 100, 42 + step % 100)), greedy(1))
        if step == 2:
            long = llm.engine.add(LONG, greedy(1))
        llm.engine.step()
        if long is not None and llm.engine.finished(long):
            return step
    return limit


def test_short_prompts_do_not_starve_a_long_one(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"prompt_chunk_size": 8, "max_num_seqs": 4, "enable_prefix_caching": False}
    assert steps_among_short_ones(load(target, **options), 80) <= 2 + (3 * 12 + len(LONG)) / 8 + 1
    planted.serve_shortest_first(monkeypatch)
    assert steps_among_short_ones(load(target, **options), 80) == 80, "the planted fault was not seen"


# Priorities


def test_lower_priority_goes_first(target: str, clock: Clock) -> None:
    llm = one_at_a_time(target, clock)
    ids = {n: llm.engine.add(PROMPTS[0], greedy(3), priority=n) for n in (0, 2, -1, 1)}
    ids[3] = llm.engine.add(PROMPTS[0], greedy(3), priority=3)
    assert run(llm) == [ids[n] for n in (-1, 0, 1, 2, 3)]


def test_same_priority_is_first_come_first_served(target: str, clock: Clock) -> None:
    llm = one_at_a_time(target, clock)
    ids = [llm.engine.add(prompt, greedy(3)) for prompt in PROMPTS]
    assert run(llm) == ids


@pytest.mark.parametrize("priority", [1, 2])
@pytest.mark.parametrize(("later", "overtakes"), [(-1.0, True), (1.0, False)])
def test_who_came_long_enough_before_is_not_overtaken(
    target: str, clock: Clock, priority: int, later: float, overtakes: bool
) -> None:
    llm = one_at_a_time(target, clock)
    low = llm.engine.add(PROMPTS[0], greedy(3), priority=priority)
    clock.now += priority * PRIORITY_SECONDS + later
    high = llm.engine.add(PROMPTS[1], greedy(3), priority=0)
    assert run(llm) == ([high, low] if overtakes else [low, high])


def test_a_stream_of_higher_priority_starves_nobody(target: str, clock: Clock) -> None:
    """Before the low one go just those that come within `PRIORITY_SECONDS`."""
    llm = one_at_a_time(target, clock)
    low = llm.engine.add(PROMPTS[0], greedy(2), priority=1)
    came: dict[str, float] = {}
    order: list[str] = []
    begin = clock.now
    while low not in order:
        came[llm.engine.add(PROMPTS[1], greedy(2))] = clock.now - begin
        order += [i.request_id for i in llm.engine.step() if i.finish_reason is not None]
        clock.now += 1.0
        assert len(came) < 100
    assert order[:-1] == [i for i, seconds in came.items() if seconds < PRIORITY_SECONDS]


def test_generate_takes_priorities(target: str, clock: Clock) -> None:
    llm = one_at_a_time(target, clock)
    ranks: dict[tuple[int, ...], float] = {}

    class Ranks(Watcher):
        def scheduled(self, schedule: Schedule) -> None:
            for work in schedule.work:
                ranks[tuple(work.request.tokens)] = (work.request.turn - clock.now) / PRIORITY_SECONDS

    llm.engine.watchers.append(Ranks())
    prompts: Any = ["the end", [5, 6], {"prompt": "on"}]
    plain = llm.generate(prompts, greedy(4), use_tqdm=False)
    for priority, each in (
        (0, [0, 0, 0]),
        (-2, [-2, -2, -2]),
        ([3, 1, 2], [3, 1, 2]),
        ((0, 0, 5), [0, 0, 5]),
    ):
        outputs = llm.generate(prompts, greedy(4), use_tqdm=False, priority=priority)
        assert [token_ids(output) for output in outputs] == [token_ids(output) for output in plain]
        assert [ranks[tuple(output.prompt_token_ids)] for output in outputs] == each


@pytest.mark.parametrize("priority", [[], [1], [1, 2, 3]])
def test_one_priority_a_prompt(target: str, priority: list[int]) -> None:
    llm = load(target)
    with pytest.raises(
        ConfigError, match=f"2 prompts with {len(priority)} priority; give one for all or one"
    ):
        llm.generate([[5], [6]], greedy(4), use_tqdm=False, priority=priority)
    assert not llm.engine.unfinished


@pytest.mark.parametrize("priority", [1, -1, [0, 5], 10**30])
def test_in_order_of_arrival_there_are_no_priorities(target: str, priority: Any) -> None:
    llm = load(target, scheduling_policy="fcfs")
    plain = llm.generate([[5], [6]], greedy(4), use_tqdm=False, priority=0)
    with pytest.raises(ConfigError, match=r"^priority = -?\d+ with scheduling_policy = 'fcfs': .* priority$"):
        llm.generate([[5], [6]], greedy(4), use_tqdm=False, priority=priority)
    assert not llm.engine.unfinished
    again = load(target, scheduling_policy="priority").generate(
        [[5], [6]], greedy(4), use_tqdm=False, priority=[3, -3]
    )
    assert [token_ids(output) for output in again] == [token_ids(output) for output in plain]


@pytest.mark.parametrize("priority", [10**6 + 1, -(10**6) - 1, 2**63, 10**400, 0.5, None])
def test_a_priority_that_is_none(target: str, priority: Any) -> None:
    llm = load(target)
    with pytest.raises(ConfigError, match=r"^priority = .*: give an integer from -1000000 to 1000000$"):
        llm.generate([[5], [6]], greedy(4), use_tqdm=False, priority=priority)
    assert not llm.engine.unfinished


# Overload


def arrivals(seed: int) -> list[tuple[int, tuple[int, ...], SamplingParams, int]]:
    """Steps until the next comes, prompt, parameters, priority."""
    draw = random.Random(seed)
    return [
        (
            draw.randrange(4),
            draw.choice(PROMPTS),
            SamplingParams(
                temperature=draw.choice([0.0, 1.0]),
                seed=1,
                max_tokens=draw.choice([1, 20, 80]),
                num_speculative_tokens=draw.choice([0, 1, 3, 8]),
            ),
            draw.randint(-3, 3),
        )
        for _ in range(24)
    ]


class Fairness(Watcher):
    """Checks each step: the last in turn gives way, and nobody who decodes is held up."""

    def __init__(self, engine: Engine) -> None:
        self.scheduler = engine.scheduler
        self.before: list[Request] = []
        self.rows: list[int] = []

    def scheduled(self, schedule: Schedule) -> None:
        running, preempted = self.scheduler.running, schedule.preempted
        for queue in (running, self.scheduler.waiting):
            turns = [request.turn for request in queue]
            check(turns == sorted(turns), "a queue is not in order of turn")
        if preempted:
            first = min(r.turn for r in preempted)
            check(all(r.turn <= first for r in running), "another than the last gave way")
            check(
                {*self.before} == {*running, *preempted}, "somebody was lost, or began when others gave way"
            )
        decoding = {r for r in self.before if r.pending == 1 and r not in preempted}
        going_on = {work.request for work in schedule.work if work.catches_up}
        check(decoding <= going_on, "somebody who decodes was held up")

    def verified(self, judged: Sequence[Judged]) -> None:
        self.rows.append(sum(j.work.count + len(j.draft.tokens) for j in judged))

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        self.before = list(self.scheduler.running)


@pytest.mark.parametrize("drafter", ["ngram", "draft"])
@pytest.mark.parametrize("seed", range(3))
def test_overload(target: str, drafter: str, seed: int, request: pytest.FixtureRequest) -> None:
    """All finish, with the tokens that they have alone; the last in turn gives way; rows stay in bounds."""
    name = drafter if drafter == "ngram" else request.getfixturevalue(drafter)
    llm = load(
        target, name, kv_cache_memory=130_000 if drafter == "ngram" else 200_000, max_model_len=160,
        max_num_seqs=5, max_num_batched_tokens=11, num_speculative_tokens=4,
    )  # fmt: skip
    recorded, fairness = record(llm), Fairness(llm.engine)
    llm.engine.watchers.append(fairness)
    live = []
    for steps, prompt, params, priority in arrivals(seed):
        live.append((llm.engine.add(prompt, params, priority=priority), prompt, params))
        for _ in range(steps):
            llm.engine.step()
    run(llm)
    for request_id, prompt, params in live:
        assert token_ids(llm.engine.take(request_id)) == token_ids(expected(target, prompt, params))
    assert any(recorded.preempted)
    assert max(fairness.rows) == 11
    assert all(pool.num_free == pool.num_blocks for pool in pools(llm))


def test_unfairness_is_seen(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that finds a fault ends the step that it watches."""
    planted.serve_shortest_first(monkeypatch)
    llm = load(target, kv_cache_memory=130_000, max_model_len=160, max_num_seqs=5, max_num_batched_tokens=11)
    llm.engine.watchers.append(Fairness(llm.engine))
    with pytest.raises(pytest.fail.Exception, match="a queue is not in order of turn"):
        llm.generate([LONG, *PROMPTS], greedy(20), use_tqdm=False)


def test_one_prompt_more_than_the_cache_holds(target: str) -> None:
    """The request that has to give way may be the one that asks for room."""
    llm = load(target, kv_cache_memory=70_000, max_model_len=160, max_num_seqs=4)
    outputs = llm.generate([PROMPTS[2]] * 4, greedy(80), use_tqdm=False)
    assert {token_ids(o)[0] for o in outputs} == {token_ids(expected(target, PROMPTS[2], greedy(80)))[0]}


# Drafts


@pytest.mark.parametrize(
    ("lengths", "drafted"),
    [
        ((4, 4, 4), [3, 2, 2]),  # 7 rows
        ((8, 8, 8), [3, 2, 2]),
        ((1, 8, 8), [1, 3, 3]),
        ((8, 0, 8), [4, 0, 3]),
        ((2, 2, 3), [2, 2, 3]),
        ((0, 0, 8), [0, 0, 7]),
    ],
)
def test_drafts_share_the_rows_that_are_left(
    target: str, lengths: tuple[int, ...], drafted: list[int]
) -> None:
    """Target as its own draft, which offers all that it may."""
    llm = load(target, target, max_num_batched_tokens=10, max_num_seqs=3)
    ids = [llm.engine.add(PROMPTS[0], greedy(100, length)) for length in lengths]
    while not all(find(llm, i).num_output for i in ids):
        llm.engine.step()
    llm.engine.step()  # the draft model catches up
    increments = {i.request_id: i for i in llm.engine.step()}
    assert [increments[i].drafted for i in ids] == drafted


def test_a_request_at_its_end_leaves_its_share_to_the_others(target: str) -> None:
    llm = load(target, target, num_speculative_tokens=8, max_num_batched_tokens=10, max_num_seqs=3)
    ids = [llm.engine.add(PROMPTS[0], greedy(n)) for n in (100, 100, 1)]
    while not all(find(llm, i).num_output for i in ids[:2]):
        llm.engine.step()
    ids[2] = llm.engine.add((5,), greedy(1))  # its one token is all that it may have
    increments = {i.request_id: i for i in llm.engine.step()}
    assert [increments[i].drafted for i in ids] == [4, 3, 0]


def preemptions(llm: LLM, length: int) -> list[tuple[int, ...]]:
    """Who gave way, step by step, where no draft ever stands."""
    recorded = record(llm)
    number: dict[str, int] = {}
    draw = random.Random(5)
    for n in range(12):
        params = greedy(draw.choice([20, 50, 80]), length, logit_bias=NOT_ZERO)
        number[llm.engine.add(draw.choice(PROMPTS), params)] = n
        for _ in range(draw.randrange(3)):
            llm.engine.step()
    run(llm)
    drafted = [llm.engine.take(request_id).outputs[0].speculation for request_id in number]
    assert (sum(s.drafted for s in drafted) > 0) == (length > 0)
    assert not sum(s.accepted for s in drafted)
    return [tuple(number[request.id] for request in preempted) for preempted in recorded.preempted]


def test_a_draft_never_causes_a_preemption(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With drafts that never stand, the same requests give way in the same steps as without drafts."""
    llm = load(
        target, "ngram", num_speculative_tokens=8, kv_cache_memory=65_000, max_model_len=160, block_size=4,
        max_num_seqs=4, max_num_batched_tokens=200, prompt_chunk_size=16, enable_prefix_caching=False,
    )  # fmt: skip
    llm.engine.drafters = Chain([WrongDrafter()])
    plain = preemptions(llm, 0)
    assert any(plain)
    assert preemptions(llm, 8) == plain

    planted.keep_blocks_of_drafts(monkeypatch)
    assert preemptions(llm, 8) != plain, "the planted fault was not seen"


def pools(llm: LLM) -> list[Any]:
    runners: list[ModelRunner] = [llm.engine.target]
    runners += [d.runner for d in llm.engine.drafters.drafters if isinstance(d, ModelDrafter)]
    return [runner.pool for runner in runners]


def all_free_when_finished(llm: LLM, params: SamplingParams) -> bool:
    """Whether all blocks are free when the step returns in which the request ended, which is in a draft."""
    request_id = llm.engine.add(PROMPTS[0], params)
    while True:
        increments = llm.engine.step()
        if increments[0].finish_reason is not None:
            break
    assert increments[0].drafted > 1
    assert increments[0].accepted >= len(increments[0].token_ids) - 1
    free = [pool.num_free == pool.num_blocks for pool in pools(llm)]
    assert len(free) == 2
    llm.engine.take(request_id)
    return all(free)


ENDS = ("stop string", "stop token", "max_tokens")


def ending(target: str, how: str) -> SamplingParams:
    """Parameters with which the output ends at its seventh token or so."""
    output = expected(target, PROMPTS[0], greedy(40)).outputs[0]
    tokens = list(output.token_ids)
    last = next(i for i in range(6, 40) if tokens[i] not in tokens[:i])
    text = load(target).tokenizer.decode(tokens[last - 1 : last + 1])
    assert how != "stop string" or text in output.text
    return {
        "stop string": greedy(40, stop=text),
        "stop token": greedy(40, stop_token_ids=[tokens[last]]),
        "max_tokens": greedy(last + 1),
    }[how]


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("how", ENDS)
def test_who_ends_in_a_draft_has_its_blocks_free_at_once(
    target: str, how: str, prefix_caching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target, target, num_speculative_tokens=9, enable_prefix_caching=prefix_caching, block_size=2)
    assert all_free_when_finished(llm, ending(target, how))
    planted.release_nobody(monkeypatch)
    assert not all_free_when_finished(llm, ending(target, how)), "the planted fault was not seen"


def test_shares() -> None:
    """Never more than there is, nothing left over while somebody wants more, and equal but for one row."""
    draw = random.Random(0)
    for _ in range(300):
        wanted: Any = {n: draw.randrange(9) for n in range(draw.randrange(1, 8))}
        rows = draw.randrange(30)
        shares = scheduler._shared(wanted, rows)
        assert shares.keys() == wanted.keys()
        assert all(0 <= shares[n] <= wanted[n] for n in wanted)
        assert sum(shares.values()) == min(rows, sum(wanted.values()))
        cut = [shares[n] for n in wanted if shares[n] < wanted[n]]
        if cut:
            assert max(cut) - min(cut) <= 1
            assert max(shares.values()) <= max(cut) + 1
