"""What a draft is taught, and where a head begins, for targets of every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.head_config import HeadConfig
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from outrider.training.head_lesson import HeadLesson
from outrider.training.teacher import Teacher
from tests.models.factories import tiny_tokenizer, write_gguf, write_hf
from tests.models.families.table import FAMILIES, config

ROWS = 12
DEVICE = torch.device("cpu")
PLAIN: dict[str, Callable[[], Any]] = {
    "llama": config("LlamaConfig", num_hidden_layers=3),
    "tied": config("LlamaConfig", tie_word_embeddings=True, head_dim=20),
    "fused": config("Phi3Config"),
    "biased": config("Qwen2Config", num_hidden_layers=3),
    "scaled": config("GraniteConfig", attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.0),
}
"""Targets whose last layer is computed as a head's."""
AT_RANDOM = {
    "qwen2": "",
    "phi3": "",
    "qwen3": "self_attn.q_proj.weight, self_attn.k_proj.weight",
    "gemma2": "self_attn.o_proj.weight, mlp.down_proj.weight",
    "olmo2": "self_attn.q_proj.weight, self_attn.k_proj.weight, self_attn.o_proj.weight, "
    "mlp.down_proj.weight",
}


def states_of(checkpoint: Checkpoint, layer: int) -> tuple[Tensor, Tensor]:
    """Logits of some tokens, and the states that enter a layer."""
    model = Model(checkpoint, TorchBackend("cpu", "float32"))
    runner = ModelRunner(model, num_blocks=2, block_size=ROWS, prefix_caching=False, state_layers=(layer,))
    table = runner.table()
    table.extend(ROWS)
    passed = runner.run([Span(list(range(7, 7 + ROWS)), 0, table.tables, ROWS)])
    return torch.from_numpy(passed.logits), passed.kept


def lesson(checkpoint: Checkpoint, layers: int = 1) -> HeadLesson:
    """The lesson of a head that can say all tokens."""
    vocab = checkpoint.config.vocab_size
    head = HeadConfig.for_target(checkpoint.config, draft_vocab_size=vocab, layers=layers)
    return HeadLesson(head, Teacher.of(checkpoint, layers), torch.arange(vocab), device=DEVICE)


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "granite-tied"])
def test_logits_are_the_targets(family: str, tmp_path: Path) -> None:
    write_hf(tmp_path, FAMILIES[family].config())
    checkpoint = open_checkpoint(str(tmp_path))
    (logits, states), teacher = states_of(checkpoint, checkpoint.config.num_layers), Teacher.of(checkpoint)
    found = teacher.logits(states, teacher.output)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["folder", "gguf"])
@pytest.mark.parametrize("target", PLAIN)
def test_a_head_begins_as_the_targets_last_layers(
    target: str, kind: str, layers: int, tmp_path: Path
) -> None:
    """From the state before them, and an embedding that says nothing, it says what the target does."""
    written = write_hf(tmp_path / "hf", PLAIN[target]())
    path = tmp_path / "hf"
    if kind == "gguf":
        path = tmp_path / "model.gguf"
        architecture = {"fused": "phi3", "biased": "qwen2", "scaled": "granite"}.get(target, "llama")
        write_gguf(path, written, tiny_tokenizer(), architecture=architecture)
    checkpoint = open_checkpoint(str(path))
    logits, states = states_of(checkpoint, checkpoint.config.num_layers - layers)
    net = lesson(checkpoint, layers).net
    features = torch.zeros(1, ROWS, net.config.width)
    features[..., -states.shape[1] :] = states
    mask = torch.full((ROWS, ROWS), -torch.inf).triu(1)
    with torch.inference_mode():
        (state,) = net.unroll(features, torch.zeros(1, ROWS, states.shape[1]), mask, 1)
        found: Tensor = net.lm_head(state[0])
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", AT_RANDOM)
def test_what_begins_at_random_is_said(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_hf(tmp_path, FAMILIES[family].config())
    lesson(open_checkpoint(str(tmp_path)))
    said = [record.getMessage().partition("begin at random: ")[2] for record in caplog.records]
    assert [names for names in said if names] == [AT_RANDOM[family]] * bool(AT_RANDOM[family])
