"""Draft models that say few of their tokens: the same answers, what they learn, and from whom they do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from outrider import LLM, ConfigError, SamplingParams, SpeculationStats
from outrider.drafting.model import Lockstep
from outrider.models import words
from outrider.models.runner import DraftRunner
from outrider.ops.cpu.chain import NativeChain
from tests.engine.helpers import PROMPTS, drafters_of, expected, load, token_ids
from tests.verification.chi_square import agrees
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

COUNT = 60
TOP = 4


@pytest.fixture(autouse=True)
def whatever_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of random models are of rare tokens, which would have all words said."""
    monkeypatch.setattr(words, "MANY_MISSED", 1.0)


def few_words(target: str, draft: str, count: int = COUNT, **options: Any) -> LLM:
    return load(target, draft, draft_vocab_size=count, **{"num_speculative_tokens": 4} | options)


def runner_of(llm: LLM) -> DraftRunner:
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, Lockstep)
    return drafter.runner


def said(llm: LLM) -> set[int]:
    ids = runner_of(llm)._words.words.ids
    assert ids is not None
    return set(ids.tolist())


def requests(temperature: float, **others: Any) -> list[SamplingParams]:
    return [
        SamplingParams(**{"temperature": temperature, "seed": seed, "max_tokens": 24} | others)
        for seed in range(len(PROMPTS))
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_same_tokens(target: str, draft: str, backend: str, temperature: float) -> None:
    llm = few_words(target, draft, backend=backend)
    params = requests(temperature)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    stats = sum((output.outputs[0].speculation for output in outputs), SpeculationStats())
    assert 0 < stats.accepted < stats.drafted
    if backend == "native":
        for prompt, one, output in zip(PROMPTS, params, outputs, strict=True):
            assert token_ids(output) == token_ids(expected(target, prompt, one))


@pytest.mark.parametrize("options", [{"draft_quantization": "int4"}, {"acceptance": "standard"}], ids=str)
def test_with_other_options(target: str, draft: str, options: dict[str, Any]) -> None:
    llm = few_words(target, draft, **options)
    for others in (
        {},
        {"repetition_penalty": 1.3, "logit_bias": {40: 2.0}},
        {"logprobs": 1, "trace_drafts": True},
    ):
        params = requests(0.0, **others)
        outputs = llm.generate(PROMPTS, params, use_tqdm=False)
        for prompt, one, output in zip(PROMPTS, params, outputs, strict=True):
            assert token_ids(output) == token_ids(expected(target, prompt, one))


def test_it_drafts_what_it_has_read_and_no_other_words(target: str, draft: str) -> None:
    llm = few_words(target, draft)
    recorded = record(llm)
    llm.generate(PROMPTS, requests(1.0), use_tqdm=False)
    drafted = {token for judged in recorded.judged for token in judged.draft.tokens}
    assert drafted - {*range(COUNT)}
    assert drafted <= said(llm)
    assert said(llm) - {*range(COUNT)} <= {token for text in PROMPTS for token in text} | {
        token for output in recorded.outputs for token in output.outputs[0].token_ids
    }


def test_all_words_where_few_miss_too_much(target: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of requests, and back."""
    monkeypatch.setattr(words, "MANY_MISSED", 0.12)
    llm = few_words(target, draft)
    whole = list[bool]()
    for prompt, length in ((PROMPTS[2], 24), ([1] * 300, 4), (range(200, 270), 24)):
        one = SamplingParams(temperature=0.7, seed=1, max_tokens=length)
        output = llm.generate(prompt, one, use_tqdm=False)[0]
        assert token_ids(output) == token_ids(expected(target, prompt, one))
        whole.append(runner_of(llm)._words.words.ids is None)
    assert whole == [True, False, True]


def test_a_salt_teaches_nothing(target: str, draft: str) -> None:
    """Others' time would tell of it."""
    llm = few_words(target, draft)
    before = said(llm)
    llm.generate(PROMPTS, requests(0.0, cache_salt="tenant"), use_tqdm=False)
    assert said(llm) == before
    llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    assert said(llm) > before


def test_a_target_that_drafts_for_itself(target: str) -> None:
    llm = few_words(target, "self:int8")
    outputs = llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(0.0), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    assert said(llm) > {*range(COUNT)}


# The rules that keep a distribution


def drawn(llm: LLM, count: int) -> Counter[tuple[int, ...]]:
    """Texts of two tokens behind the one that the prompt's pass chooses, with drafts of two tokens."""
    options: dict[str, Any] = {"top_k": TOP, "ignore_eos": True, "max_tokens": 3, "cache_salt": "unlearnt"}
    params = [SamplingParams(temperature=1.0, seed=seed, **options) for seed in range(count)]
    outputs = llm.generate([PROMPTS[1]] * count, params, use_tqdm=False)
    assert sum(output.outputs[0].speculation.drafted for output in outputs) > count / 2
    return Counter(output.outputs[0].token_ids for output in outputs)


def exact(llm: LLM) -> dict[tuple[int, ...], float]:
    """The chance of each, from the target's own log-probabilities."""
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        chances = {
            (*text, token): chance * share
            for text, chance in chances.items()
            for token, share in following(llm, [*PROMPTS[1], *text]).items()
        }
    return chances


def following(llm: LLM, text: Sequence[int]) -> dict[int, float]:
    one = SamplingParams(max_tokens=1, logprobs=TOP, temperature=0)
    logprobs = llm.generate(text, one, use_tqdm=False)[0].outputs[0].logprobs
    assert logprobs is not None
    best = sorted(logprobs[0], key=lambda token: -logprobs[0][token].logprob)[:TOP]
    weights = {token: math.exp(logprobs[0][token].logprob) for token in best}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_the_distribution_is_kept(
    target: str, draft: str, acceptance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft gave no chance to what it does not say; what is thought to have given some is caught."""
    want = exact(load(target))
    count = sorted({token for text in want for token in text})[len(want) // 3 % 40]
    options: dict[str, Any] = {"prompt_chunk_size": 1024, "max_num_batched_tokens": 1024}
    llm = few_words(target, draft, count, acceptance=acceptance, num_speculative_tokens=2, **options)
    assert {token < count for text in want for token in text} == {True, False}
    assert agrees(drawn(llm, 600), want)
    believed = NativeChain._probabilities

    def flat(*args: Any) -> Any:
        shares = believed(*args)
        return None if shares is None else (shares + 1 / shares.shape[1]) / 2

    monkeypatch.setattr(NativeChain, "_probabilities", flat)
    assert not agrees(drawn(llm, 600), want)


def test_for_drafts_alone(target: str) -> None:
    with pytest.raises(ConfigError, match="draft_vocab_size = 60 is for a draft model, and 'suffix' is none"):
        few_words(target, "ngram")
