"""The model's logits are transformers' logits, however the tokens are cut into forward passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from outrider.cache.pool import BlockPool
from outrider.cache.states import StateTable
from outrider.models.checkpoint import locate, open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from tests.models.factories import exact_backend, tiny_config, write_hf
from tests.models.families.table import FAMILIES

TOLERANCE = 1e-4  # of the largest |logit| of a row
BLOCK_SIZE = 8
Tables = tuple[Sequence[int], ...]
Logits = NDArray[np.float32]
STATES = 16  # slots
LENGTHS = (90, 1, 37, 8, 61)  # of the requests of a ragged batch; the first is also run alone


def _scaled(rope_type: str, **parameters: Any) -> Callable[[], Any]:
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0, **parameters}
    return lambda: tiny_config(rope_parameters=rope)


VARIANTS: dict[str, Callable[[], Any]] = {
    "multi-head": lambda: tiny_config(num_key_value_heads=4),
    "grouped-query": lambda: tiny_config(num_hidden_layers=3),
    "multi-query": lambda: tiny_config(num_key_value_heads=1),
    "rope-linear": _scaled("linear"),
    "rope-yarn": _scaled("yarn", original_max_position_embeddings=32),
    "rope-theta": lambda: tiny_config(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "tied": lambda: tiny_config(tie_word_embeddings=True),
    "head-dim": lambda: tiny_config(head_dim=20),
    **{name: tiny.config for name, tiny in FAMILIES.items()},
}


@dataclass(frozen=True)
class Case:
    """requests: token ids; expected: transformers' logits of each, [tokens, vocab]."""

    runner: ModelRunner
    requests: list[list[int]]
    expected: list[Logits]


def _case(checkpoint: str, reference: Any, requests: list[list[int]], backend: str) -> Case:
    model = Model(open_checkpoint(checkpoint), exact_backend(backend))
    blocks = sum(-(-len(tokens) // BLOCK_SIZE) for tokens in requests)
    runner = ModelRunner(model, num_blocks=blocks, block_size=BLOCK_SIZE, prefix_caching=False)
    with torch.inference_mode():
        expected = [_logits(reference, tokens) for tokens in requests]
    return Case(runner, requests, expected)


def _logits(reference: Any, tokens: list[int]) -> Logits:
    """[tokens, vocab], in a text of the longest request's length: LongRoPE goes by it in transformers."""
    padded = tokens + [0] * (max(LENGTHS) - len(tokens))
    logits = reference(torch.tensor([padded])).logits[0, : len(tokens)].float()
    return np.asarray(logits)


@pytest.fixture(scope="module", params=["torch", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=VARIANTS)
def case(backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path: Path = tmp_path_factory.mktemp("model")
    reference = write_hf(path, VARIANTS[request.param]())
    draw = random.Random(1)
    requests = [[draw.randrange(reference.config.vocab_size) for _ in range(length)] for length in LENGTHS]
    return _case(str(path), reference, requests, backend)


@pytest.fixture(scope="module")
def smollm2(backend: str) -> Case:
    checkpoint = open_checkpoint("smollm2")
    path = locate("smollm2", None)
    reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    text = (
        "<|im_start|>user\nWhat is 2024 * 17? Answer in Español: ¿cuánto?<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = checkpoint.tokenizer().encode(text)
    return _case("smollm2", reference.eval(), [tokens, tokens[::-1][:10]], backend)


def scattered(case: Case, seed: int) -> list[Tables]:
    """Block tables for each request, of each group of layers from its blocks in random order."""
    draw, needed = random.Random(seed), [-(-len(tokens) // BLOCK_SIZE) for tokens in case.requests]
    groups = []
    for pool in case.runner.pool.of_groups:
        blocks = draw.sample(range(pool.num_blocks), sum(needed))
        groups.append([[blocks.pop() for _ in range(count)] for count in needed])
    return list(zip(*groups, strict=True))


def assert_close(actual: Logits, expected: Logits) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    error = np.abs(actual - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert error.max() < TOLERANCE


def in_chunks(case: Case, request: int, tables: Tables, sizes: Callable[[], int]) -> Logits:
    """The logits of one request, computed alone in chunks of the given sizes."""
    tokens, logits, start, states = case.requests[request], [], 0, state_table(case)
    while start < len(tokens):
        chunk = tokens[start : start + sizes()]
        states.extend([start + len(chunk)])
        logits.append(case.runner.forward([Span(chunk, start, tables, len(chunk), states.slots)]))
        start += len(chunk)
        states.keep(start)
    states.keep(0)
    return np.concatenate(logits)


def state_table(case: Case) -> StateTable:
    """Slots for the states of one request, if the model has any."""
    return StateTable(case.runner.pool.states or BlockPool(STATES))


def check_one_chunk(case: Case) -> None:
    tables = scattered(case, seed=2)
    assert_close(in_chunks(case, 0, tables[0], lambda: len(case.requests[0])), case.expected[0])


def check_random_chunks(case: Case) -> None:
    tables, draw = scattered(case, seed=3), random.Random(4)
    assert_close(in_chunks(case, 0, tables[0], lambda: draw.choice((1, 2, 7, 33))), case.expected[0])


def check_ragged(case: Case) -> None:
    """Every step computes some rows of some requests, and asks for the logits of some."""
    tables, draw = scattered(case, seed=5), random.Random(6)
    done, states = [0] * len(case.requests), [state_table(case) for _ in case.requests]
    while unfinished := [i for i, tokens in enumerate(case.requests) if done[i] < len(tokens)]:
        chosen = draw.sample(unfinished, draw.randint(1, len(unfinished)))
        spans: list[Span] = []
        expected: list[Logits] = []
        for i in chosen:
            chunk = case.requests[i][done[i] : done[i] + draw.choice((1, 5, 40))]
            wanted = draw.randint(0 if len(chosen) > 1 and spans else 1, len(chunk))
            spans.append(Span(chunk, done[i], tables[i], wanted, states[i].slots))
            done[i] += len(chunk)
            states[i].extend([done[i]])
            expected.append(case.expected[i][done[i] - wanted : done[i]])
        assert_close(case.runner.forward(spans), np.concatenate(expected))
        for i in chosen:
            states[i].keep(done[i])
    for of_request in states:
        of_request.keep(0)


def test_one_chunk(case: Case) -> None:
    check_one_chunk(case)


def test_chunks_of_random_sizes(case: Case) -> None:
    check_random_chunks(case)


def test_ragged_batch_with_scattered_blocks(case: Case) -> None:
    check_ragged(case)


def test_decoding_after_truncated_drafts(case: Case) -> None:
    """Drafts are all wrong, and rolled back; what they left in the cache is never seen, nor what a window has
    left behind."""
    tokens, draw = case.requests[0], random.Random(7)
    table, logits, done = case.runner.table(), [], 60
    table.extend(done)
    logits.append(case.runner.forward([Span(tokens[:done], 0, table.tables, done, table.states)]))
    table.advance(tokens, done)
    while done < len(tokens):
        draft = [draw.randrange(case.runner.model.config.vocab_size) for _ in range(draw.randint(0, 12))]
        table.extend(done + 1 + len(draft), len(draft))
        span = Span([tokens[done], *draft], done, table.tables, 1 + len(draft), table.states)
        out = case.runner.forward([span])
        logits.append(out[:1])
        done += 1
        table.settle(done)
    assert_close(np.concatenate(logits), case.expected[0])
    table.truncate(0)
    assert case.runner.pool.num_free == case.runner.pool.num_blocks


def test_smollm2(smollm2: Case) -> None:
    check_one_chunk(smollm2)
    check_random_chunks(smollm2)
    check_ragged(smollm2)


def test_no_logits_wanted(case: Case) -> None:
    """The first chunks of a long prompt need none."""
    tables = scattered(case, seed=8)
    logits = case.runner.forward([Span(case.requests[0][:5], 0, tables[0], 0)])
    assert logits.shape == (0, case.runner.model.config.vocab_size)
