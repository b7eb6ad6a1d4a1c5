"""The first promise: the same tokens as the target alone, whatever drafts, however it is scheduled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.ops.span import Span
from tests import planted
from tests.engine.helpers import BLOCK, PROMPTS, expected, load, token_ids
from tests.watchers import record

TEMPERATURES = (0.0, 0.7, 1.0)


@pytest.fixture(scope="module", params=["ngram", "draft", "target", "head"])
def llm(request: pytest.FixtureRequest, target: str) -> LLM:
    drafter = request.param if request.param == "ngram" else request.getfixturevalue(request.param)
    return load(target, drafter)


def params(temperature: float, seed: int, length: int | None = None, **others: Any) -> SamplingParams:
    return SamplingParams(
        temperature=temperature, seed=seed, num_speculative_tokens=length, **{"max_tokens": 24} | others
    )


def drafted(outputs: list[Any]) -> int:
    return sum((o.outputs[0].speculation for o in outputs), SpeculationStats()).drafted


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("length", range(9))
def test_every_drafter_length_and_temperature(llm: LLM, target: str, temperature: float, length: int) -> None:
    requests = [params(temperature, seed, length) for seed in range(len(PROMPTS))]
    outputs = llm.generate(PROMPTS, requests, use_tqdm=False)
    for prompt, request, output in zip(PROMPTS, requests, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, request))
    assert (drafted(outputs) > 0) == (length > 0)


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(PROMPTS),
        st.sampled_from(TEMPERATURES),
        st.integers(0, 3),  # seed
        st.integers(0, 8),  # draft length
        st.integers(1, 30),  # max_tokens
        st.integers(0, 4),  # steps before the next request is added
        st.booleans(),  # whether it is aborted halfway
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(mix=REQUESTS)
def test_batch_mixes(llm: LLM, target: str, mix: list[Any]) -> None:
    """Requests that come and go at any time do not change one another."""
    added: list[Any] = []
    aborted: list[Any] = []
    for prompt, temperature, seed, length, max_tokens, steps, abort in mix:
        request = params(temperature, seed, length, max_tokens=max_tokens)
        request_id = llm.engine.add(prompt, request)
        (aborted if abort else added).append((request_id, prompt, request))
        for _ in range(steps):
            llm.engine.step()
    for request_id, _, _ in aborted:
        llm.engine.discard(request_id)
    while llm.engine.unfinished:
        llm.engine.step()
    for request_id, prompt, request in added:
        assert token_ids(llm.engine.take(request_id)) == token_ids(expected(target, prompt, request))


@pytest.mark.parametrize("drafter", ["ngram", "draft", "head", None])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_forced_preemption(
    target: str, drafter: str | None, temperature: float, request: pytest.FixtureRequest
) -> None:
    """A cache too small for all: requests are preempted, computed again, and none the wiser."""
    name = request.getfixturevalue(drafter) if drafter in ("draft", "head") else drafter
    block = BLOCK + {"draft": BLOCK, "head": BLOCK // 2}.get(drafter or "", 0)  # the drafter's too
    llm = load(target, name, kv_cache_memory=12 * block, max_model_len=192, max_num_seqs=8)
    recorded = record(llm)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    requests = [params(temperature, seed, 3 if name else None, max_tokens=70) for seed in range(8)]
    outputs = llm.generate(prompts, requests, use_tqdm=False)
    assert any(recorded.preempted)
    for prompt, one, output in zip(prompts, requests, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks


@pytest.mark.parametrize("max_num_batched_tokens", [4, 7, 33])
def test_prompts_in_chunks(target: str, draft: str, max_num_batched_tokens: int) -> None:
    llm = load(target, draft, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=4)
    requests = [params(0.7, seed, 4) for seed in range(len(PROMPTS))]
    for prompt, one, output in zip(
        PROMPTS, requests, llm.generate(PROMPTS, requests, use_tqdm=False), strict=True
    ):
        assert token_ids(output) == token_ids(expected(target, prompt, one))


def test_cold_and_warm_prefix_cache(llm: LLM, target: str) -> None:
    prompt = tuple(range(30, 110))
    for number in range(2):
        output = llm.generate(prompt, params(0.7, 5, 4), use_tqdm=False)[0]
        assert token_ids(output) == token_ids(expected(target, prompt, params(0.7, 5)))
        assert output.num_cached_tokens == (0 if number == 0 else 64)
    other = (*prompt[:50], 7, 8, 9)
    output = llm.generate(other, params(0.7, 5, 4), use_tqdm=False)[0]
    assert output.num_cached_tokens == 48
    assert token_ids(output) == token_ids(expected(target, other, params(0.7, 5)))


@pytest.fixture
def _restore_threads() -> Iterator[None]:
    yield
    torch.set_num_threads(2)


@pytest.mark.usefixtures("_restore_threads")
@pytest.mark.parametrize("threads", [1, 2])
def test_thread_counts(llm: LLM, target: str, threads: int) -> None:
    torch.set_num_threads(threads)
    requests = [params(1.0, seed, 5) for seed in range(len(PROMPTS))]
    outputs = llm.generate(PROMPTS, requests, use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
def test_target_as_its_own_draft_is_always_right(target: str, temperature: float, acceptance: str) -> None:
    llm = load(target, target, num_speculative_tokens=5, acceptance=acceptance)
    requests = [params(temperature, seed, ignore_eos=True, max_tokens=40) for seed in range(len(PROMPTS))]
    outputs = llm.generate(PROMPTS, requests, use_tqdm=False)
    stats = sum((o.outputs[0].speculation for o in outputs), SpeculationStats())
    assert stats.drafted > 100
    assert stats.accepted == stats.drafted


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_other_rules_are_exact_when_greedy(target: str, draft: str, acceptance: str) -> None:
    llm = load(target, draft, num_speculative_tokens=4, acceptance=acceptance)
    outputs = llm.generate(PROMPTS, params(0.0, 0), use_tqdm=False)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, params(0.0, 0)))
    assert 0 < sum(o.outputs[0].speculation.accepted for o in outputs) < drafted(outputs)


def test_planted_fault_wrong_position_of_noise(
    target: str, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verification that reads its noise one position late is caught by the equality above."""
    llm = load(target, draft, num_speculative_tokens=4)
    plain = expected(target, PROMPTS[0], params(1.0, 0))

    planted.read_noise_late(monkeypatch)
    output = llm.generate(PROMPTS[0], params(1.0, 0), use_tqdm=False)[0]
    assert token_ids(output) != token_ids(plain)


def test_planted_fault_draft_believed(target: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that lets the first drafted token stand unchecked is caught by the equality above."""
    llm = load(target, draft, num_speculative_tokens=4)
    plain = expected(target, PROMPTS[0], params(0.0, 0))
    planted.believe_drafts(monkeypatch)
    output = llm.generate(PROMPTS[0], params(0.0, 0), use_tqdm=False)[0]
    assert token_ids(output) != token_ids(plain)


def test_planted_fault_blocks_shared_by_unequal_prompts(
    target: str, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix cache that forgets what came before a block is caught by the equality above."""
    llm = load(target, draft, num_speculative_tokens=4)

    planted.share_unequal_prefixes(monkeypatch)
    first, second = [tuple([start] * 16 + list(range(60, 96))) for start in (50, 51)]
    llm.generate(first, params(0.0, 0), use_tqdm=False)
    published = llm.engine.target.table()  # as an unrelated request with the same first block would
    published.extend(16)
    llm.engine.target.forward([Span(list(second[:16]), 0, published.tables, 1)])
    published.advance(second[:16], 16)
    output = llm.generate(second, params(0.0, 0), use_tqdm=False)[0]
    assert output.num_cached_tokens > 16
    assert token_ids(output) != token_ids(expected(target, second, params(0.0, 0)))
