"""The states that the engine hands to those who read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outrider import SamplingParams
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.engine.request import Request
from tests.engine.helpers import PROMPTS, output_of

LAYERS: tuple[int, ...] = (0, 1, 2)


class Reader:
    """Keeps the states of every position of every request, by its prompt."""

    def __init__(self) -> None:
        self.state_layers = LAYERS
        self.states: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}

    def read(self, request: Request, first: int, states: Any) -> None:
        rows = self.states.setdefault(tuple(request.tokens[: request.prompt_length]), [])
        assert first <= len(rows)
        del rows[first:]
        rows.extend(states.copy())

    def end(self, request: Request) -> None:
        pass


def _states(target: str, params: SamplingParams, prompts: Sequence[Sequence[int]], **options: Any) -> Reader:
    reader = Reader()
    options = {"device": "cpu", "enable_prefix_caching": False} | options
    engine = build_engine(resolve(target, **options), observer=reader)
    for prompt in prompts:
        engine.add(prompt, params)
    while engine.unfinished:
        engine.step()
    return reader


@pytest.mark.parametrize(
    "options",
    [
        {"speculative_model": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1},
        {"speculative_model": "draft", "num_speculative_tokens": 3, "max_num_batched_tokens": 64},
        {"prompt_chunk_size": 7},
        {"kv_cache_memory": 12 * 4 * 2 * 2 * 2 * 12 * 16},  # twelve blocks: requests are preempted
    ],
    ids=["ngram", "draft model", "chunks", "preemption"],
)
def test_states_are_those_of_plain_decoding(target: str, draft: str, options: dict[str, Any]) -> None:
    params = SamplingParams(temperature=0.8, max_tokens=40, seed=3)
    options = {name: draft if value == "draft" else value for name, value in options.items()}
    read = _states(target, params, PROMPTS, **options).states
    for prompt in PROMPTS:
        alone = _states(target, params, [prompt]).states[prompt]
        # The last token of an output is never computed; a draft may have gone beyond it.
        count = len(prompt) + 39
        assert np.array_equal(np.stack(read[prompt][:count]), np.stack(alone[:count]))


@pytest.mark.parametrize("layers", [(0, 1), (2,), (0, 2)], ids=["first", "last", "apart"])
def test_readers_of_different_layers_get_theirs(target: str, head: str, layers: tuple[int, ...]) -> None:
    """Beside a head that reads other ones, and that drafts as it does without them."""
    params = SamplingParams(temperature=0, max_tokens=40)
    drafting = {"speculative_model": head, "num_speculative_tokens": 3, "enable_prefix_caching": False}
    alone = build_engine(resolve(target, device="cpu", **drafting))
    whole = _states(target, params, PROMPTS).states
    reader, expected = Reader(), output_of(alone, PROMPTS[1], params)
    reader.state_layers = layers
    engine = build_engine(resolve(target, device="cpu", **drafting))
    engine.read_states(reader)
    output = output_of(engine, PROMPTS[1], params)
    assert output.outputs[0].token_ids == expected.outputs[0].token_ids
    assert output.outputs[0].speculation == expected.outputs[0].speculation
    columns = [layer * 48 + column for layer in layers for column in range(48)]
    rows = len(PROMPTS[1]) + 39
    read = np.stack(reader.states[PROMPTS[1]][:rows])
    assert np.array_equal(read, np.stack(whole[PROMPTS[1]])[:rows, columns])
