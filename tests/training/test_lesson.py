"""A draft is trained and evaluated as what will be stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.models.parts import Gated
from outrider.training import trainer as module
from outrider.training.batches import TrainingBatch, epoch
from outrider.training.head_lesson import OF_PROMPTS, HeadLesson
from outrider.training.kinds import HeadKind, StudentKind
from outrider.training.recorder import Recording
from outrider.training.trainer import Recipe, Trainer
from tests.factories import tiny_config, write_model
from tests.heads import record

ROWS = 256  # of a batch, so that there are several
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def whole_groups(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> str:
    """A target whose matrices divide into groups of 4 bits."""
    path = tmp_path_factory.mktemp("whole_groups")
    write_model(path, tiny_config(hidden_size=64, intermediate_size=96, head_dim=16))
    return str(path)


@pytest.fixture(scope="module")
def recordings(whole_groups: str) -> list[Recording]:
    return record(whole_groups, seeds=1)


def head_lesson(target: str, recordings: list[Recording], *, quantized: bool) -> HeadLesson:
    torch.manual_seed(0)
    kind = HeadKind.of(
        open_checkpoint(target),
        target,
        start=None,
        draft_vocab_size=128,
        layers=2,
        state_layers=(),
        quantized=quantized,
    )
    return kind.lesson(recordings, DEVICE)


def values(net: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("quantized", [False, True])
def test_a_head_as_saved(
    whole_groups: str, recordings: list[Recording], tmp_path: Path, quantized: bool
) -> None:
    lesson = head_lesson(whole_groups, recordings, quantized=quantized)
    with torch.no_grad():
        lesson.net.norm.weight.mul_(1.001)  # norms of 1 have nothing to round
    exact = values(lesson.net)
    with lesson.as_saved():
        meanwhile = values(lesson.net)
    after = values(lesson.net)
    lesson.save(tmp_path)
    saved = HeadCheckpoint(tmp_path)
    for name, value in meanwhile.items():
        assert np.array_equal(value, saved.stored[name].floats()), name
        assert torch.equal(after[name], exact[name]), name
    for name in ("midlayer.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight", "norm.weight"):
        assert not torch.equal(meanwhile[name], exact[name]), name


def test_a_student_as_saved(whole_groups: str, tmp_path: Path) -> None:
    lesson = StudentKind(open_checkpoint(whole_groups)).lesson([], DEVICE)
    exact = values(lesson.net)
    with lesson.as_saved():
        meanwhile = values(lesson.net)
    lesson.save(tmp_path)
    saved = open_checkpoint(str(tmp_path))
    tree = saved.config.tree
    up = tree.blocks[1].feed_forward.mixer
    assert isinstance(up, Gated)
    for tensor in (tree.table.tensor, up.up.matrices[0]):
        assert np.array_equal(meanwhile[tensor.hf.name], saved.weight(tensor).dequantize())
    assert all(torch.equal(value, exact[name]) for name, value in values(lesson.net).items())


def test_a_student_is_transformers_llama(whole_groups: str, tmp_path: Path) -> None:
    """What is trained is what others compute of the saved folder, whose tokenizer is the target's."""
    lesson = StudentKind(open_checkpoint(whole_groups)).lesson([], DEVICE)
    with torch.no_grad():
        for weight in lesson.net.parameters():
            weight.normal_(1 if weight.dim() == 1 else 0, 0.3)
    lesson.save(tmp_path)
    llama = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, llama.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), lesson.as_saved():
        assert torch.allclose(lesson.net(tokens), llama(tokens).logits, rtol=1e-4, atol=1e-4)
    saved, target = (AutoTokenizer.from_pretrained(path) for path in (tmp_path, whole_groups))
    assert saved.get_vocab() == target.get_vocab()
    assert saved.special_tokens_map == target.special_tokens_map
    assert saved.encode("the end<|im_end|>") == target.encode("the end<|im_end|>")


def test_the_end_trains_what_is_saved(
    whole_groups: str, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is that of the weights that its part is at, and the exact ones are what changes."""
    first = TrainingBatch.of(epoch(recordings, rows=ROWS, seed=0)[0])
    loss_at = {
        quantized: loss(whole_groups, recordings, first, quantized=quantized) for quantized in (False, True)
    }
    for first_rounded, at_saved in ((0.1, False), (0.0, True)):
        monkeypatch.setattr(module, "ROUNDED_FROM", first_rounded)
        lesson = head_lesson(whole_groups, recordings, quantized=True)
        start = values(lesson.net)
        recipe = Recipe(unrolled=(1,), rows=ROWS, rate=1e-4, warmup=0)
        found = next(Trainer(lesson, recordings, recipe, device=DEVICE).steps())
        assert abs(found - loss_at[at_saved]) < abs(found - loss_at[not at_saved]) / 10
        for name, value in values(lesson.net).items():
            assert 0 < (value - start[name]).abs().max() < 2e-4, name


def test_a_prompt_teaches_too(whole_groups: str, recordings: list[Recording]) -> None:
    """Training reads every position that is no padding, and evaluation the answer's alone."""
    lesson = head_lesson(whole_groups, recordings, quantized=False)
    whole = max(recordings, key=lambda r: len(r.tokens))
    part = replace(whole, tokens=whole.tokens[:9], states=whole.states[:9])
    answer, alone, both, short = (
        TrainingBatch.of(rs)
        for rs in ([whole], [replace(whole, own=len(whole.tokens))], [whole, part], [part])
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert lesson.agreement(answer, 0.7)[0].shape[1] > lesson.agreement(alone, 0.7)[0].shape[1]
        losses = [float(lesson.loss(batch, 1)) for batch in (answer, alone, both, short)]
    own = [max(0, len(r.tokens) - max(1, r.own - 1)) for r in (whole, part)]
    weights = [own[i] + OF_PROMPTS * (len(r.tokens) - 1 - own[i]) for i, r in enumerate((whole, part))]
    assert losses[2] == pytest.approx(
        (weights[0] * losses[0] + weights[1] * losses[3]) / sum(weights), rel=1e-2
    )
    assert losses[1] != losses[0]  # where prompts count, and less


def loss(target: str, recordings: list[Recording], batch: TrainingBatch, *, quantized: bool) -> float:
    lesson = head_lesson(target, recordings, quantized=quantized)
    with torch.no_grad(), lesson.as_saved(), torch.autocast("cpu", torch.bfloat16):
        return float(lesson.loss(batch, 1))
