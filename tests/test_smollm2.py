"""The promise on a real model: to the last bit on native kernels, up to measured rounding on PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from pydoc_data.topics import topics

import pytest
import torch
import torch.nn.functional as F

from outrider import LLM, ConfigError, SpeculationStats
from outrider.measurement.loads import at_all_lengths
from outrider.measurement.prompts import BUILT_IN
from outrider.measurement.ties import Gap, first_difference, gap_at
from outrider.measurement.verify import Case, verify
from outrider.models.head_checkpoint import locate_head
from outrider.ops.span import Span
from outrider.params import SamplingParams
from tests.ops import planted


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("smollm2", device="cpu", speculative_model="ngram", num_speculative_tokens=5)


@pytest.fixture(scope="module")
def on_pytorch() -> LLM:
    return LLM("smollm2", device="cpu", backend="torch", speculative_model="ngram", num_speculative_tokens=5)


@pytest.fixture(scope="module")
def prompts(llm: LLM) -> list[list[int]]:
    chosen = (BUILT_IN[0], BUILT_IN[1], BUILT_IN[-1])
    return [llm.chat_prompt([{"role": "user", "content": c.turns[0]}]) for c in chosen]


def cases(llm: LLM, prompts: list[list[int]], temperatures: Sequence[float], max_tokens: int) -> list[Case]:
    settings = {"lengths": [2, 7], "temperatures": temperatures, "batch_sizes": [1, 3]}
    return list(verify(at_all_lengths(llm), "ngram", lambda _: prompts, max_tokens=max_tokens, **settings))  # type: ignore[arg-type]


def test_same_tokens_to_the_last_bit(llm: LLM, prompts: list[list[int]]) -> None:
    found = cases(llm, prompts, [0.0, 0.7, 1.0], 48)
    assert [case.outcome for case in found] == ["equal"] * 12
    assert sum(case.accepted for case in found) > 0


@pytest.mark.parametrize("drafter", ["self:int4", "self:int8"])
def test_a_target_that_drafts_for_itself_at_fewer_bits(prompts: list[list[int]], drafter: str) -> None:
    """Same tokens to the last bit, and of the first drafted ones most stand."""
    own = LLM("smollm2", device="cpu", dtype="bfloat16", speculative_model=drafter, num_speculative_tokens=4)
    settings = {"lengths": [1], "temperatures": [0.0, 0.7], "batch_sizes": [3], "max_tokens": 16}
    found = list(verify(at_all_lengths(own), drafter, lambda _: prompts, **settings))  # type: ignore[arg-type]
    assert [case.outcome for case in found] == ["equal"] * 2
    assert sum(case.accepted for case in found) > 0.5 * sum(case.drafted for case in found) > 0


def test_a_self_draft_of_the_file_as_it_is_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 bits already \(format Q4_1\)"):
        LLM("smollm2", device="cpu", speculative_model="self:int4")


def test_planted_fault_last_bits_that_depend_on_the_rows(
    llm: LLM, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be a near-tie on other kernels is a difference here."""
    planted.round_rows(monkeypatch, llm)
    assert "different" in {case.outcome for case in cases(llm, prompts, [0.0], 48)}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_head_that_comes_with_the_package(llm: LLM, prompts: list[list[int]], temperature: float) -> None:
    """Small, the same tokens, and of its first guesses a third stand at least: random ones hardly ever do."""
    assert sum(file.stat().st_size for file in locate_head("head").iterdir()) <= 8_000_000
    with_head = LLM("smollm2", device="cpu", speculative_model="head", num_speculative_tokens=4)
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=48)
    plain = params.model_copy(update={"num_speculative_tokens": 0})
    outputs = with_head.generate(prompts, params, use_tqdm=False)
    expected = llm.generate(prompts, plain, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in expected]
    stats = sum((o.outputs[0].speculation for o in outputs), SpeculationStats())
    assert stats.accepted_by_position[0] > stats.drafted_by_position[0] / 3


def test_same_tokens_on_pytorch(on_pytorch: LLM, prompts: list[list[int]]) -> None:
    settings = {"lengths": [5], "temperatures": [0.7], "batch_sizes": [2], "max_tokens": 12}
    found = list(verify(at_all_lengths(on_pytorch), "ngram", lambda _: prompts[:2], **settings))  # type: ignore[arg-type]
    assert [case for case in found if case.outcome == "different"] == []
    assert sum(case.drafted for case in found) > 0


def test_perplexity_is_that_of_the_dequantised_weights(llm: LLM) -> None:
    """Activations rounded to 8 bits, and K and V to bfloat16, cost less than half a percent."""
    exact = LLM("smollm2", device="cpu", dtype="float32")
    tokens = llm.tokenizer.encode("\n\n".join(topics.values()))[:1025]

    def loss(llm: LLM) -> float:
        span = Span(tokens, 0, (list(range(-(-len(tokens) // 16))),), len(tokens))
        logits = llm.engine.target.forward([span])
        return float(F.cross_entropy(torch.from_numpy(logits[:-1]), torch.tensor(tokens[1:])))

    assert loss(llm) == pytest.approx(loss(exact), abs=0.005)


def test_gap_between_likely_tokens_is_no_rounding(on_pytorch: LLM, prompts: list[list[int]]) -> None:
    """A real difference is never taken for a near-tie: the second likeliest token is far off."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=2)
    completion = on_pytorch.generate(prompts[0], params, use_tqdm=False)[0].outputs[0]
    assert completion.logprobs is not None
    best, second = sorted(completion.logprobs[0], key=lambda t: -completion.logprobs[0][t].logprob)[:2]  # type: ignore[index]
    gap = gap_at(on_pytorch.engine, prompts[0], [best], second, params)
    assert gap.size == pytest.approx(
        completion.logprobs[0][best].logprob - completion.logprobs[0][second].logprob, abs=1e-3
    )
    assert not gap.is_rounding
    assert gap.rounding < 1e-3


def test_a_gap_of_rounding_size_is_rounding() -> None:
    assert Gap((1e-6, -1e-6, 2e-6)).is_rounding
    assert not Gap((1e-3, 1e-3 + 1e-6)).is_rounding
    assert not Gap((0.5, 0.5)).is_rounding  # an exact backend: every difference is real
    assert not Gap((0.0, 0.0)).is_rounding  # nor do exact ties change places there


def test_first_difference() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
