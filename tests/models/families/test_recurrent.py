"""Families whose layers keep states: the same bits however tokens come, and what GGUF files say of layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outrider.cache.states import StateTable
from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.shapes import AttentionShape
from outrider.ops.span import Span
from tests.models.factories import exact_backend, write_gguf, write_hf
from tests.models.families.table import FAMILIES

Logits = NDArray[np.float32]
TOKENS = list(range(30, 70))
DRAFTED = 6


@pytest.fixture(scope="module", params=["qwen3-next", "qwen3.5", "lfm2-bias", "lfm2-moe"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    path: Path = tmp_path_factory.mktemp("model")
    write_hf(path, FAMILIES[request.param].config())
    model = Model(open_checkpoint(str(path)), exact_backend("native"))
    return ModelRunner(model, num_blocks=10, block_size=8, prefix_caching=False)


def states_of(runner: ModelRunner) -> StateTable:
    assert runner.pool.states is not None
    return StateTable(runner.pool.states)


def compute(runner: ModelRunner, states: StateTable, start: int, tokens: Sequence[int], each: bool) -> Logits:
    """each: whether the states after every row are kept, or only those after the last."""
    end = start + len(tokens)
    states.extend(range(start + 1, end + 1) if each else [end])
    tables = (range(10),) * len(runner.pool.of_groups)
    return runner.forward([Span(tokens, start, tables, len(tokens), states.slots)])


@pytest.fixture(scope="module")
def whole(runner: ModelRunner) -> Logits:
    states = states_of(runner)
    logits = compute(runner, states, 0, TOKENS, each=False)
    states.keep(0)
    return logits


@pytest.mark.parametrize("size", [1, 3, 13])
def test_chunks_are_cut_anywhere(runner: ModelRunner, whole: Logits, size: int) -> None:
    states, logits = states_of(runner), []
    for start in range(0, len(TOKENS), size):
        chunk = TOKENS[start : start + size]
        logits.append(compute(runner, states, start, chunk, each=False))
        states.keep(start + len(chunk))
    states.keep(0)
    assert np.array_equal(np.concatenate(logits), whole)


@pytest.mark.parametrize("accepted", range(DRAFTED + 1))
def test_a_draft_is_rolled_back_to_any_of_its_rows(runner: ModelRunner, whole: Logits, accepted: int) -> None:
    """What stood of it is the text; the rest is wrong, and leaves nothing behind."""
    start, states = 10, states_of(runner)
    compute(runner, states, 0, TOKENS[:start], each=False)
    stands = start + 1 + accepted
    drafted = [*TOKENS[start:stands], *[200] * (DRAFTED - accepted)]
    first = compute(runner, states, start, drafted, each=True)
    states.keep(stands)
    rest = compute(runner, states, stands, TOKENS[stands:], each=False)
    states.keep(0)
    assert np.array_equal(np.concatenate([first[: accepted + 1], rest]), whole[start:])


def test_another_state_is_another_text(runner: ModelRunner, whole: Logits) -> None:
    """The tests above would see a slot that is taken from the wrong row."""
    states = states_of(runner)
    compute(runner, states, 0, TOKENS[:8], each=True)
    states.extend([16])
    tables = (range(10),) * len(runner.pool.of_groups)
    right, wrong = (
        runner.forward([Span(TOKENS[8:16], 8, tables, 8, {8: states.slots[row], 16: states.slots[16]})])
        for row in (8, 7)
    )
    states.keep(0)
    assert np.array_equal(right, whole[8:16])
    assert not np.array_equal(wrong, whole[8:16])


def kinds(file: Path) -> list[bool]:
    """Which layers keep K and V."""
    blocks = open_checkpoint(str(file)).config.tree.blocks
    return [isinstance(block.attention.mixer.cached[0], AttentionShape) for block in blocks]


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("qwen35", {"attention.recurrent_layers": [True, False]}, "for each of 5 layers"),
        ("qwen35", {"attention.recurrent_layers": [1, 1, 1, 0, 1]}, "true or false for each of 5 layers"),
        ("qwen35", {"full_attention_interval": "4"}, "full_attention_interval = '4'"),
        ("qwen35", {"ssm.group_count": 4}, "has to be a multiple of linear_num_key_heads, which is 4"),
        ("qwen35", {"ssm.conv_kernel": 5}, "ssm_conv1d.weight' has shape"),
        ("lfm2", {"attention.head_count_kv": [0, 2, 0, 1]}, "the same number for all 4 layers"),
        ("lfm2", {"attention.head_count_kv": [0, 2]}, "the same number for all 4 layers"),
        ("lfm2", {"shortconv.l_cache": 4}, "shortconv.conv.weight' has shape"),
    ],
    ids=str,
)
def test_gguf_keys_that_fit_nothing(tmp_path: Path, name: str, keys: dict[str, Any], said: str) -> None:
    tiny = next(tiny for tiny in FAMILIES.values() if tiny.gguf == name)
    file, own = tmp_path / "m.gguf", {f"{name}.{key}": value for key, value in keys.items()}
    write_gguf(file, write_hf(tmp_path / "hf", tiny.config()), None, architecture=name, metadata=own)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(file))
    assert said in str(caught.value)


def test_layers_that_a_gguf_file_names_one_by_one(tmp_path: Path) -> None:
    """Where it does not, every fourth of Qwen's has K and V."""
    file, model = tmp_path / "m.gguf", write_hf(tmp_path / "hf", FAMILIES["qwen3.5"].config())
    every_fourth = [False, False, False, True, False]
    key, interval = "qwen35.attention.recurrent_layers", "qwen35.full_attention_interval"
    for metadata in ({interval: None}, {interval: None, key: [not attends for attends in every_fourth]}):
        write_gguf(file, model, None, architecture="qwen35", metadata=metadata)
        assert kinds(file) == every_fourth
