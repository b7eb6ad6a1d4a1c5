"""What is kept to learn from."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from outrider import SamplingParams
from outrider.adapting import traffic
from outrider.adapting.traffic import CONTEXT, LONGEST, SHORTEST
from outrider.formats.floats import bfloat16_to_float32
from tests.adapting.helpers import joined, passages_of
from tests.engine.helpers import BLOCK, PROMPTS, expected, load
from tests.engine.test_states import Reader
from tests.watchers import record

LAYERS = (0, 1, 2)
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)


def test_passages_are_what_was_said_with_its_states(target: str, head: str) -> None:
    """The states are those that any reader is given, rounded to 16 bits."""
    llm = load(target, head, num_speculative_tokens=3, enable_prefix_caching=False)
    kept, reader = passages_of(llm, LAYERS), Reader()
    llm.engine.read_states(reader)
    prompt = PROMPTS[2]
    assert len(prompt) > CONTEXT
    output = llm.generate([prompt], GREEDY, use_tqdm=False)[0].outputs[0]
    (passage,) = kept
    skipped = len(prompt) - CONTEXT
    text = [*prompt, *output.token_ids]
    assert passage.tokens.tolist() == text[skipped : skipped + len(passage.tokens)]
    assert len(text) - 1 <= skipped + len(passage.tokens) <= len(text)
    assert passage.own == CONTEXT
    states = np.stack(reader.states[prompt])[skipped:][: len(passage.tokens)]
    assert np.allclose(bfloat16_to_float32(passage.states), states, rtol=2**-8)


def test_long_answers_are_cut(target: str) -> None:
    """Nothing is lost between two passages, and none is longer than it may be."""
    llm = load(target)
    kept = passages_of(llm, LAYERS)
    params = GREEDY.model_copy(update={"max_tokens": 900})
    output = llm.generate([PROMPTS[1]], params, use_tqdm=False)[0].outputs[0]
    assert len(kept) > 1
    assert max(len(passage.tokens) for passage in kept) <= LONGEST
    assert [passage.own for passage in kept] == [len(PROMPTS[1]), *[1] * (len(kept) - 1)]
    assert joined(kept) == [*PROMPTS[1], *output.token_ids][:-1]


@pytest.mark.parametrize("chunk", [7, 512])
def test_of_long_prompts_little_is_kept(target: str, chunk: int) -> None:
    prompt = [7 + n % 200 for n in range(600)]
    llm = load(target, prompt_chunk_size=chunk)
    kept = passages_of(llm, LAYERS)
    llm.generate([prompt], GREEDY, use_tqdm=False)
    (passage,) = kept
    assert passage.own == CONTEXT
    assert passage.tokens.tolist()[:CONTEXT] == prompt[-CONTEXT:]


def test_short_answers_are_not_kept(target: str) -> None:
    llm = load(target)
    kept = passages_of(llm, LAYERS)
    llm.generate(PROMPTS, GREEDY.model_copy(update={"max_tokens": SHORTEST}), use_tqdm=False)
    assert not kept


def test_text_with_a_salt_is_left_out(target: str) -> None:
    """A tenant's own text does not teach what all draft with."""
    salted = PROMPTS[1]
    llm = load(target)
    kept = passages_of(llm, LAYERS)
    salts = ["tenant" if prompt == salted else None for prompt in PROMPTS]
    params = [GREEDY.model_copy(update={"cache_salt": salt}) for salt in salts]
    llm.generate(PROMPTS, params, use_tqdm=False)
    assert len(kept) == len(PROMPTS) - 1
    assert all(tuple(passage.tokens[: passage.own]) != salted for passage in kept)


def test_preempted_requests_are_kept_once_they_are_done(target: str) -> None:
    llm = load(target, kv_cache_memory=12 * BLOCK, max_model_len=160, enable_prefix_caching=False)
    kept, recorded = passages_of(llm, LAYERS), record(llm)
    llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert any(recorded.preempted)
    texts = [[*prompt, *expected(target, prompt, GREEDY).outputs[0].token_ids] for prompt in PROMPTS]
    for passage in kept:
        said = passage.tokens.tolist()
        assert any(said == text[first : first + len(said)] for text in texts for first in range(len(text))), (
            said
        )
    assert len(kept) == len(PROMPTS)


def test_what_the_prefix_cache_had_is_missing(target: str) -> None:
    """A passage then begins where the target computed."""
    llm = load(target)
    kept = passages_of(llm, LAYERS)
    for _ in range(2):
        llm.generate([PROMPTS[2]], GREEDY, use_tqdm=False)
    first, second = kept
    assert second.own < first.own
    assert second.tokens.tolist() == first.tokens.tolist()[first.own - second.own :]


def test_a_fault_ends_nothing(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be kept is not learnt from, and is told once."""
    llm = load(target)
    llm.engine.read_states(traffic.Traffic(LAYERS, lambda passage: 1 / 0))  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        outputs = llm.generate(PROMPTS[:2], GREEDY, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [
        expected(target, prompt, GREEDY).outputs[0].token_ids for prompt in PROMPTS[:2]
    ]
    assert len(caplog.records) == 1
