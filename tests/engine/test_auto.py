"""The first promise with lengths that choose themselves, and with budgets of every kind."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.drafting.costs import TargetCost
from outrider.drafting.forecast import Forecast
from outrider.drafting.grammar import forced_budget
from outrider.drafting.length import FixedLength, Load, Outcome, Timing
from outrider.drafting.plan import Plan
from outrider.drafting.workloads import WORKLOADS
from outrider.engine.profile import FREE
from outrider.engine.request import Request
from outrider.ops.budget import Budget, Price
from tests import fakes, planted
from tests.engine.helpers import BLOCK, PROMPTS, drafters_of, expected, load, token_ids
from tests.fakes import Unclocked
from tests.verification.chi_square import agrees
from tests.watchers import record

TEMPERATURES = (0.0, 0.7, 1.0)
DRAFTERS: dict[str, tuple[str, ...]] = {
    "ngram": ("ngram",),
    "draft": ("draft",),
    "target": ("target",),
    "chain": ("ngram", "draft"),
    "backwards": ("draft", "ngram"),
}


PASSES = (1, 2, 64), (10e-3, 10.1e-3, 30e-3)
"""Numbers of rows, and what a pass over them takes."""


class Arbitrary:
    """Budgets that have nothing to do with what pays: fixed, priced, long, short, none, never the same."""

    longest = 12

    def __init__(self, drafters: int, seed: int) -> None:
        self._drafters = drafters
        self._draw = random.Random(seed)
        self._forecast = Forecast(12, 0.5)

    @property
    def nothing(self) -> Plan:
        return Plan((Budget(0),) * (self._drafters + 1))

    def plans(self, requests: Sequence[Request], load: Load) -> list[Plan]:
        return [
            Plan([forced_budget(request), *(self._budget(request) for _ in range(self._drafters))])
            for request in requests
        ]

    def _budget(self, request: Request) -> Budget:
        draw = self._draw
        length = draw.choice([0, 0, 1, 2, 3, 5, 8, 12])
        if draw.random() < 0.4:
            return Budget(length, FREE if draw.random() < 0.5 else None)
        row, token = draw.random(), draw.random()
        forecast = self._forecast
        price = Price(row, token, draw.randrange(3), forecast.sure(request), forecast.reached(request))
        return Budget(length, price)

    def observe(self, outcomes: Sequence[Outcome], timing: Timing) -> None:
        for outcome in outcomes:
            if outcome.plan.rows:
                self._forecast.observe(outcome.request, outcome.draft, outcome.plan.rows, outcome.verdict)
        self._forecast.refresh()

    def end(self, request: Request) -> None:
        self._forecast.forget(request)


def drafted_by(name: str, request: pytest.FixtureRequest) -> list[str]:
    return [part if part == "ngram" else request.getfixturevalue(part) for part in DRAFTERS[name]]


def automatic(target: str, drafters: list[str], workload: str | None = None, **options: Any) -> LLM:
    """An engine whose draft lengths choose themselves, with costs that are known: nothing is measured."""
    options = {"num_speculative_tokens": WORKLOADS[workload].most, "prompt_lookup_min": 1} | options
    llm = load(target, None, speculative_model=drafters, **options)
    llm.engine.scheduler.policy = Unclocked(fakes.automatic(llm, TargetCost(*PASSES), workload))
    return llm


def params(temperature: float, seed: int, **others: Any) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=seed, **{"max_tokens": 32} | others)


def check(
    llm: LLM, target: str, prompts: Sequence[Sequence[int]], requests: list[SamplingParams]
) -> SpeculationStats:
    """Every output is the target's own; returns what was drafted for it."""
    outputs = llm.generate(prompts, requests, use_tqdm=False)
    for prompt, one, output in zip(prompts, requests, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks
    return sum((o.outputs[0].speculation for o in outputs), SpeculationStats())


@pytest.fixture(params=DRAFTERS)
def llm(request: pytest.FixtureRequest, target: str) -> LLM:
    return automatic(target, drafted_by(request.param, request))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_same_tokens(llm: LLM, target: str, temperature: float) -> None:
    found = check(llm, target, PROMPTS, [params(temperature, seed) for seed in range(len(PROMPTS))])
    assert found.drafted > 0


def test_same_tokens_in_mixed_batches(llm: LLM, target: str) -> None:
    """Lengths of one's own, none, and automatic ones, with requests that come at any time."""
    draw, added = random.Random(0), []
    for number in range(24):
        own = draw.choice([None, None, 0, 3])
        one = params(
            draw.choice(TEMPERATURES), number, num_speculative_tokens=own, max_tokens=draw.randint(1, 40)
        )
        prompt = draw.choice(PROMPTS)
        added.append((llm.engine.add(prompt, one), prompt, one))
        for _ in range(draw.randrange(5)):
            llm.engine.step()
    while llm.engine.unfinished:
        llm.engine.step()
    for request_id, prompt, one in added:
        output = llm.engine.take(request_id)
        assert token_ids(output) == token_ids(expected(target, prompt, one))
        if one.num_speculative_tokens == 0:
            assert output.outputs[0].speculation.drafted == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_same_tokens_with_arbitrary_budgets(llm: LLM, target: str, temperature: float, seed: int) -> None:
    scheduler = llm.engine.scheduler
    before = scheduler.policy
    scheduler.policy = Arbitrary(len(drafters_of(llm)), seed)
    try:
        requests = [params(temperature, number) for number in range(2 * len(PROMPTS))]
        assert check(llm, target, PROMPTS * 2, requests).drafted > 0
    finally:
        scheduler.policy = before


@pytest.mark.parametrize(
    ("rows", "drafter"),
    [
        (4, "draft"),
        (7, "draft"),
        (33, "draft"),
        (4, "chain"),
        (7, "chain"),
        (33, "chain"),
    ],
)
def test_same_tokens_with_prompts_in_chunks(
    target: str, drafter: str, rows: int, request: pytest.FixtureRequest
) -> None:
    llm = automatic(target, drafted_by(drafter, request), max_num_batched_tokens=rows, max_num_seqs=4)
    check(llm, target, PROMPTS, [params(0.7, seed) for seed in range(len(PROMPTS))])


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_same_tokens_with_preemption(target: str, drafter: str, request: pytest.FixtureRequest) -> None:
    names = drafted_by(drafter, request)
    block = BLOCK * (1 if names == ["ngram"] else 2)  # the draft model's too
    llm = automatic(target, names, kv_cache_memory=12 * block, max_model_len=192, max_num_seqs=8)
    llm.engine.scheduler.policy = Arbitrary(len(names), 1)
    recorded = record(llm)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    found = check(llm, target, prompts, [params(0.7, seed, max_tokens=70) for seed in range(8)])
    assert any(recorded.preempted)
    assert found.drafted > 0


@pytest.mark.parametrize(("workload", "least", "most"), [("structured", 5, 8), ("creative", 2, 4)])
def test_workloads(target: str, draft: str, workload: str, least: int, most: int) -> None:
    """Shorter drafts are only those that end the output."""
    llm = automatic(target, [draft], workload=workload)
    lengths: list[int] = []
    for prompt in PROMPTS:
        one = params(0.7, 3, max_tokens=64, ignore_eos=True)
        request_id = llm.engine.add(prompt, one)
        while llm.engine.unfinished:
            lengths += [increment.drafted for increment in llm.engine.step() if increment.token_ids]
        output = llm.engine.take(request_id)
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    assert max(lengths) <= most
    assert sum(length >= least for length in lengths) > 0.7 * len(lengths)


def test_zero_tokens_by_request_is_plain_decoding(llm: LLM, target: str) -> None:
    requests = [params(0.7, seed, num_speculative_tokens=0) for seed in range(len(PROMPTS))]
    assert check(llm, target, PROMPTS, requests).drafted == 0


def test_reading_a_long_prompt_is_no_silence(target: str, draft: str) -> None:
    """A draft model that still reads has nothing to offer yet, which says nothing of what it will offer."""
    llm = automatic(target, [draft], prompt_chunk_size=8)
    inner = llm.engine.scheduler.policy
    assert isinstance(inner, Unclocked)
    prompt = [5 + i % 90 for i in range(200)]
    llm.engine.add(prompt, params(0.0, 0, max_tokens=8, ignore_eos=True))
    while llm.engine.unfinished:
        llm.engine.step()
    (link,) = inner.policy.links  # type: ignore[attr-defined]
    newcomer = next(iter(llm.engine._groups.values())).requests[0]
    assert link.forecast.first(newcomer)[1] > 0.8


# The rules that keep a distribution

FEW = (20, 21, 22)
"""Three tokens make 27 texts of three, whose chances are known from the target alone."""


AT_ONCE: dict[str, Any] = {"prompt_chunk_size": 1024, "max_num_batched_tokens": 1024}
"""So that the draft model has read every prompt when the first token is due."""


def texts(llm: LLM, count: int) -> Counter[tuple[int, ...]]:
    options: dict[str, Any] = {"allowed_token_ids": FEW, "ignore_eos": True, "max_tokens": 3}
    counts: Counter[tuple[int, ...]] = Counter()
    requests = [SamplingParams(temperature=1.0, seed=seed, **options) for seed in range(count)]
    drafted = 0
    for output in llm.generate([PROMPTS[1]] * count, requests, use_tqdm=False):
        counts[output.outputs[0].token_ids] += 1
        drafted += output.outputs[0].speculation.drafted
    assert drafted > count / 2
    return counts


def exact(llm: LLM) -> dict[tuple[int, ...], float]:
    """The chance of every text of three tokens, from the target's own log-probabilities."""
    every = llm.engine.target.model.config.vocab_size
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer: dict[tuple[int, ...], float] = {}
        for text, chance in chances.items():
            one = SamplingParams(max_tokens=1, logprobs=every, seed=0)
            output = llm.generate([*PROMPTS[1], *text], one, use_tqdm=False)[0].outputs[0]
            assert output.logprobs is not None
            weights = {token: math.exp(output.logprobs[0][token].logprob) for token in FEW}
            for token, weight in weights.items():
                longer[(*text, token)] = chance * weight / sum(weights.values())
        chances = longer
    return chances


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_the_distribution_is_kept(target: str, draft: str, acceptance: str) -> None:
    llm = automatic(target, [draft], acceptance=acceptance, **AT_ONCE)
    want = exact(load(target))
    assert agrees(texts(llm, 800), want)
    llm.engine.scheduler.policy = Arbitrary(1, 5)
    assert agrees(texts(llm, 800), want)


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_planted_fault_a_draft_that_ends_by_what_a_token_turned_out_to_be(
    target: str, draft: str, acceptance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = automatic(target, [draft], acceptance=acceptance, **AT_ONCE)
    llm.engine.scheduler.policy = Unclocked(FixedLength(2, 1))
    want = exact(load(target))
    assert agrees(texts(llm, 800), want)
    planted.drop_token(monkeypatch, FEW[2])
    assert not agrees(texts(llm, 800), want)
