"""Beam search finds what transformers' finds, the same with a drafter, and ends beams where they end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import BeamSearchParams, ConfigError, RequestOutput, RequestsFailed, SamplingParams
from outrider.beam_search import BeamSearchOutput, beam_search
from outrider.outputs import CompletionOutput, Logprob, RequestMetrics, SpeculationStats
from tests.engine.helpers import PROMPTS, load

pytestmark = pytest.mark.usefixtures("one_thread")

EOS = 9


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_beams_are_those_of_transformers(target: str, width: int) -> None:
    """With a length penalty of 0 both rank by log-probability; ends are left out, which count differently."""
    model = AutoModelForCausalLM.from_pretrained(target)
    llm = load(target)
    params = BeamSearchParams(beam_width=width, max_tokens=6, length_penalty=0.0, ignore_eos=True)
    outputs = llm.beam_search([list(prompt) for prompt in PROMPTS], params)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        wanted = model.generate(
            torch.tensor([prompt]),
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=6,
            do_sample=False,
            length_penalty=0.0,
            early_stopping="never",
            eos_token_id=None,
            pad_token_id=0,
        )
        assert [sequence.tokens for sequence in output.sequences] == wanted.tolist()
        scores = [sequence.cum_logprob for sequence in output.sequences]
        assert scores == sorted(scores, reverse=True)
        for sequence in output.sequences:
            own = sequence.tokens[len(prompt) :]
            told = [each[token].logprob for each, token in zip(sequence.logprobs, own, strict=True)]
            assert sum(told) == pytest.approx(sequence.cum_logprob)
            assert sequence.text == llm.tokenizer.decode(sequence.tokens)
            assert sequence.finish_reason == "length"


def test_a_drafter_changes_no_beam(target: str) -> None:
    params = BeamSearchParams(beam_width=4, max_tokens=8)
    prompts: list[Any] = [{"prompt": "the end"}, "the river"]
    plain, drafted = (load(target, drafter).beam_search(prompts, params) for drafter in (None, "ngram"))
    assert plain == drafted


def scripted(table: dict[tuple[int, ...], dict[int, float]], **options: Any) -> list[tuple[list[int], float]]:
    """The beams of a model whose log-probabilities stand in a table, and what they sum up to."""

    def generate(prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[RequestOutput]:
        return [answer(tuple(prompt)) for prompt in prompts]

    def answer(prompt: tuple[int, ...]) -> RequestOutput:
        logprobs = {token: Logprob(value, 1, "") for token, value in table[prompt].items()}
        completion = CompletionOutput(0, "", (0,), 0.0, (logprobs,), "length", None, SpeculationStats())
        times = RequestMetrics(0.0, None, None, None, None, ())
        return RequestOutput("0", None, prompt, None, (completion,), True, 0, times)

    limits = {"max_model_len": options.pop("max_model_len", 100)}
    (output,) = beam_search(
        [[1]], BeamSearchParams(**options), generate=generate, decode=str, eos=[EOS], **limits
    )
    assert isinstance(output, BeamSearchOutput)
    return [(sequence.tokens, sequence.cum_logprob) for sequence in output.sequences]


TABLE = {
    (1,): {2: -1.0, EOS: -1.5, 3: -2.0},
    (1, 2): {4: -1.0, EOS: -3.0},
    (1, 3): {4: -0.5, 5: -4.0},
    (1, 2, 4): {5: -0.1, 6: -9.0},
    (1, 3, 4): {5: -0.1, 6: -9.0},
    (1, EOS): {5: -0.1, 6: -9.0},
}


def test_a_beam_that_has_ended_stays() -> None:
    found = scripted(TABLE, beam_width=2, max_tokens=2, length_penalty=0.0)
    assert found == [([1, EOS], -1.5), ([1, 2, 4], -2.0)]


def test_the_length_penalty_prefers_longer_beams() -> None:
    """Scores are -1.5 / 1, the end not counted, -2.0 / 3 and -2.5 / 3."""
    found = scripted(TABLE, beam_width=2, max_tokens=2, length_penalty=1.0)
    assert found == [([1, 2, 4], -2.0), ([1, 3, 4], -2.5)]


def test_ends_may_be_ignored() -> None:
    found = scripted(TABLE, beam_width=2, max_tokens=2, length_penalty=0.0, ignore_eos=True)
    assert found == [([1, EOS, 5], -1.6), ([1, 2, 4], -2.0)]


def test_a_beam_ends_where_the_context_does() -> None:
    found = scripted(TABLE, beam_width=1, max_tokens=5, length_penalty=0.0, max_model_len=2)
    assert found == [([1, 2], -1.0)]


def test_what_is_refused(target: str) -> None:
    given: dict[str, Any] = {"beam_width": 2, "max_tokens": 2}
    for wrong in ({"beam_width": 0}, {"max_tokens": 0}, {"temperature": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            BeamSearchParams(**given | wrong)
    with pytest.raises(RequestsFailed, match="the prompt has"):
        load(target, max_model_len=16).beam_search([list(range(20, 50))], BeamSearchParams(**given))
