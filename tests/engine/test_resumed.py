"""A request that begins behind what another engine has told of it goes on as if nothing had happened."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider import LLM, SamplingParams
from outrider.engine.engine import Engine
from outrider.engine.generation import Resumption
from outrider.outputs import Increment, RequestOutput
from tests.engine.helpers import load

PROMPT = [5, 9, 2, 7, 1, 4, 4, 8, 3, 11, 6, 2, 13, 5, 9, 2, 7, 1, 4]
PARAMS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.9, "seed": 3, "logprobs": 2},
    {"temperature": 1.2, "seed": 4, "n": 3, "top_p": 0.9, "presence_penalty": 1.5},
    {"temperature": 1.0, "seed": 5, "stop": ["e t", "zzzz"], "min_tokens": 6, "frequency_penalty": 0.4},
    {"temperature": 1.0, "seed": 6, "structured_outputs": {"regex": "[a-z ]{12,40}"}, "max_tokens": 200},
]


@pytest.fixture(scope="module")
def llm(target: str, draft: str) -> LLM:
    return load(target, draft, num_speculative_tokens=3)


def run(
    engine: Engine, params: SamplingParams, said: list[Resumption]
) -> tuple[list[Increment], RequestOutput]:
    """All increments, and the whole output."""
    group = engine.prepare(PROMPT, params, said=said)
    engine.queue(group)
    increments = []
    while engine.unfinished:
        increments += engine.step()
    return increments, engine.take(group.id)


@pytest.mark.parametrize("given_params", PARAMS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_goes_on_at_the_very_token(llm: LLM, given_params: dict[str, Any], data: st.DataObject) -> None:
    """Whatever has been told of each sequence, all of it included, and whatever drafts there were."""
    params = SamplingParams(**{"max_tokens": 40, **given_params})
    whole_increments, whole = run(llm.engine, params, [])
    ends = [data.draw(st.integers(0, len(output.token_ids))) for output in whole.outputs]
    said = [
        Resumption(output.token_ids[:end], (output.logprobs or ())[:end])
        for output, end in zip(whole.outputs, ends, strict=True)
    ]
    llm.reset_prefix_cache()
    rest, resumed = run(llm.engine, params.model_copy(update={"num_speculative_tokens": 0}), said)
    for output, again, end in zip(whole.outputs, resumed.outputs, ends, strict=True):
        assert again.token_ids == output.token_ids
        assert (again.text, again.finish_reason, again.stop_reason) == (
            output.text, output.finish_reason, output.stop_reason
        )  # fmt: skip
        assert again.logprobs == output.logprobs
        told = [token for i in rest if i.index == output.index for token in i.token_ids]
        assert tuple(told) == output.token_ids[end:], "neither twice nor left out"
        before = "".join(
            piece.text for piece in _pieces(whole_increments, output.index)[: _shown(rest, output)]
        )
        assert before + "".join(i.text for i in rest if i.index == output.index) == output.text


def _pieces(increments: list[Increment], index: int) -> list[Any]:
    return [piece for i in increments if i.index == index for piece in i.pieces]


def _shown(rest: list[Increment], output: Any) -> int:
    """How many pieces came before the rest."""
    return len(output.token_ids) - len(_pieces(rest, output.index))


def test_what_the_cache_has_of_the_output_is_none_of_the_prompt(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    _, whole = run(llm.engine, params, [])
    _, resumed = run(llm.engine, params, [Resumption(whole.outputs[0].token_ids[:30])])
    assert resumed.num_cached_tokens <= len(PROMPT)
