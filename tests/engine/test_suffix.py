"""Texts of finished requests that draft for others: the same tokens, for those of the same salt sooner."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, RequestOutput, SamplingParams
from outrider.drafting import suffix_store
from outrider.drafting.plan import Plan
from outrider.ops.budget import Budget
from tests.engine.helpers import PROMPTS, expected, load, token_ids
from tests.fakes import Overruled
from tests.watchers import record

TEMPERATURES = (0.0, 0.7, 1.0)
PROMPT = PROMPTS[2]


def params(salt: str | None = None, temperature: float = 0.8, seed: int = 3, **others: Any) -> SamplingParams:
    fields: dict[str, Any] = {
        "max_tokens": 24,
        "temperature": temperature,
        "seed": seed,
        "cache_salt": salt,
    } | others
    return SamplingParams(**fields)


def ask(llm: LLM, salt: str | None = None, **others: Any) -> RequestOutput:
    return llm.generate(PROMPT, params(salt, **others), use_tqdm=False)[0]


def accepted(output: RequestOutput) -> int:
    return output.outputs[0].speculation.accepted


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_what_was_said_before_is_drafted_and_stands(target: str, backend: str) -> None:
    llm = load(target, "suffix", num_speculative_tokens=4, backend=backend)
    first, again = ask(llm), ask(llm)
    assert token_ids(again) == token_ids(first) == token_ids(expected(target, PROMPT, params()))
    assert accepted(again) >= 16 > accepted(first)


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("length", [3, "auto"])
def test_the_same_tokens_whatever_others_said(target: str, acceptance: str, length: int | str) -> None:
    """At any temperature, in a batch, again and again, and where the cache is so small that requests wait."""
    llm = load(
        target, "suffix", num_speculative_tokens=length, acceptance=acceptance, prompt_lookup_min=1,
        kv_cache_memory=65_000, max_model_len=160, block_size=4, suffix_memory=2**18,
    )  # fmt: skip
    asked = [params(None, t, seed) for seed, t in zip(range(len(PROMPTS)), TEMPERATURES * 2, strict=False)]
    plain = [expected(target, prompt, each) for prompt, each in zip(PROMPTS, asked, strict=True)]
    for _ in range(3):
        outputs = llm.generate(PROMPTS, asked, use_tqdm=False)
        if acceptance == "coupled":
            assert [token_ids(each) for each in outputs] == [token_ids(each) for each in plain]
        greedy = [n for n, each in enumerate(asked) if each.temperature == 0]
        assert [token_ids(outputs[n]) for n in greedy] == [token_ids(plain[n]) for n in greedy]


def assert_separate(llm: LLM) -> None:
    """What a request of one salt said neither drafts for another one nor spares it reading the prompt."""
    fresh = ask(llm, "a")
    for salt in ("b", None):
        other = ask(llm, salt)
        assert (other.num_cached_tokens, accepted(other)) == (0, accepted(fresh))
        assert token_ids(other) == token_ids(fresh)
    same = ask(llm, "a")
    assert same.num_cached_tokens >= len(PROMPT) - 16
    assert accepted(same) > accepted(fresh)


def test_a_salt_keeps_requests_apart(target: str) -> None:
    assert_separate(load(target, "suffix", num_speculative_tokens=4))


def test_a_salt_keeps_the_blocks_of_a_draft_model_apart(target: str, draft: str) -> None:
    llm = load(target, draft, num_speculative_tokens=2)
    ask(llm, "a")
    pool = llm.engine.drafters.drafters[1].runner.pool  # type: ignore[attr-defined]
    (before,) = [len(each._block_of) for each in pool.of_groups]
    ask(llm, "b")
    assert [len(each._block_of) for each in pool.of_groups] == [2 * before]
    ask(llm, "a")
    assert [len(each._block_of) for each in pool.of_groups] == [2 * before]


def test_a_store_that_leaks_over_salts_is_found_out(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix_store, "_key", lambda salt: b"")
    with pytest.raises(AssertionError):
        assert_separate(load(target, "suffix", num_speculative_tokens=4))


def test_without_memory_nothing_is_shared(target: str) -> None:
    llm = load(target, "suffix", num_speculative_tokens=4, suffix_memory=0)
    assert accepted(ask(llm)) == accepted(ask(llm))


def test_measuring_leaves_no_texts_behind(target: str) -> None:
    llm = load(target, "suffix")
    assert llm.engine.drafters.drafters[1]._shared.bytes == 0  # type: ignore[attr-defined]


def test_texts_outlive_the_engine(target: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_speculative_tokens": 4, "suffix_file": str(tmp_path / "texts")}
    llm = load(target, "suffix", **options)
    first = ask(llm)
    llm.engine.drafters.drafters[1]._shared.save()  # type: ignore[attr-defined]  # as at the end of the process
    again = ask(load(target, "suffix", **options))
    assert accepted(again) > accepted(first)
    assert token_ids(again) == token_ids(first)


def test_a_store_that_fails_costs_no_request(
    target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llm = load(target, "suffix", num_speculative_tokens=4)

    def fail(self: object, salt: str | None, tokens: object) -> None:
        raise MemoryError

    monkeypatch.setattr(suffix_store.SuffixStore, "add", fail)
    with caplog.at_level(logging.ERROR):
        assert token_ids(ask(llm)) == token_ids(expected(target, PROMPT, params()))
    assert "could not forget a request" in caplog.text


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_lookup_goes_on_behind_a_draft_model(
    target: str, draft: str, acceptance: str, temperature: float
) -> None:
    """Each token is told with its drafter, and all rules take drafts of several."""
    llm = load(target, None, speculative_model=[draft, "suffix"], acceptance=acceptance, prompt_lookup_min=1)
    several = Plan((Budget(0), Budget(2), Budget(6)))
    scheduler = llm.engine.scheduler
    scheduler.policy = Overruled(scheduler.policy, lambda plan: several)
    told = record(llm)
    asked = params(temperature=temperature, max_tokens=60, trace_drafts=True)
    outputs = [llm.generate(PROMPT, asked, use_tqdm=False)[0] for _ in range(2)]
    if acceptance == "coupled" or temperature == 0:
        assert [token_ids(each) for each in outputs] == [token_ids(expected(target, PROMPT, asked))] * 2
        assert any(judged.draft.begun < judged.verdict.accepted for judged in told.judged)
    drafts = [each.draft for each in told.increments if each.draft is not None]
    assert all(len(each.sources) == len(each.tokens) <= 6 for each in drafts)
    mixed = [each.sources for each in drafts if len({*each.sources}) > 1]
    assert mixed
    assert {each[:2] for each in mixed} <= {(0, 0), (0, 1)}


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("edited", [{}, {"presence_penalty": 0.5, "bad_words": ["end"]}])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_draft_model_goes_on_behind_a_lookup(
    target: str, acceptance: str, edited: dict[str, Any], temperature: float
) -> None:
    """The target that drafts for itself: what it adds stands wherever the lookup was right."""
    llm = load(target, None, speculative_model=["suffix", target], acceptance=acceptance, prompt_lookup_min=1)
    scheduler = llm.engine.scheduler
    scheduler.policy = Overruled(scheduler.policy, lambda plan: Plan((Budget(0), Budget(2), Budget(5))))
    told = record(llm)
    asked = params(temperature=temperature, max_tokens=60, trace_drafts=True, **edited)
    for _ in range(2):  # the second time a lookup is right
        outputs = llm.generate([PROMPTS[1], PROMPT, PROMPTS[4]], asked, use_tqdm=False)
    if acceptance == "coupled" or temperature == 0:
        plain = [expected(target, prompt, asked) for prompt in (PROMPTS[1], PROMPT, PROMPTS[4])]
        assert [token_ids(each) for each in outputs] == [token_ids(each) for each in plain]
    mixed = [judged for judged in told.judged if judged.draft.sources == (1, 1, 2, 2, 2)]
    assert mixed
    if acceptance == "coupled":
        assert {judged.verdict.accepted for judged in mixed} <= {0, 1, 5}
        assert 5 in {judged.verdict.accepted for judged in mixed}
