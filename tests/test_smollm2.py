"""The promise on a real model, in float32 on PyTorch's kernels.

They are not row-invariant, so two tokens that score the same but for rounding may change places. Such a
near-tie is measured where it happens; any other difference fails.
"""

from __future__ import annotations

import pytest

from outrider import LLM
from outrider.measurement.prompts import BUILT_IN
from outrider.measurement.ties import Gap, first_difference, gap_at
from outrider.measurement.verify import verify
from outrider.params import SamplingParams


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("smollm2", device="cpu", speculative_model="ngram", num_speculative_tokens=5)


@pytest.fixture(scope="module")
def prompts(llm: LLM) -> list[list[int]]:
    return [llm.chat_prompt([{"role": "user", "content": c.turns[0]}]) for c in (BUILT_IN[0], BUILT_IN[-1])]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_same_tokens(llm: LLM, prompts: list[list[int]], temperature: float) -> None:
    settings = {"lengths": [2, 7], "temperatures": [temperature], "batch_sizes": [2], "max_tokens": 16}
    cases = list(verify(llm, "ngram", prompts, **settings))  # type: ignore[arg-type]
    assert [case for case in cases if case.outcome == "different"] == []
    assert sum(case.drafted for case in cases) > 0


def test_gap_between_likely_tokens_is_no_rounding(llm: LLM, prompts: list[list[int]]) -> None:
    """A real difference is never taken for a near-tie: the second likeliest token is far off."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=2)
    completion = llm.generate(prompts[0], params, use_tqdm=False)[0].outputs[0]
    assert completion.logprobs is not None
    best, second = sorted(completion.logprobs[0], key=lambda t: -completion.logprobs[0][t].logprob)[:2]  # type: ignore[index]
    gap = gap_at(llm.engine, prompts[0], [best], second, params)
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
