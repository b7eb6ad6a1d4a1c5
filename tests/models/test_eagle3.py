"""EAGLE-3 heads: the public layout, read and written, and what it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.eagle3 import Eagle3
from outrider.models.head import HeadRunner
from outrider.models.head_checkpoint import HeadCheckpoint, quantized, save_head
from outrider.models.head_config import HeadConfig, usual_layers
from outrider.models.model import Model
from outrider.ops.span import Span
from outrider.training.net import HeadNet
from tests.models.factories import exact_backend, tiny_config, write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import (
    DRAFT_VOCAB,
    FEATURES,
    arrays,
    edit,
    plain_reading,
    random_head,
    shapes,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("target")
    write_hf(path, tiny_config(hidden_size=64, num_hidden_layers=8))
    return path


@pytest.fixture
def head(target: Path, tmp_path: Path) -> Path:
    random_head(tmp_path / "head", open_checkpoint(str(target)).config)
    return tmp_path / "head"


def drafted_logits(path: Path, model: Model, states: Tensor, tokens: list[int]) -> Tensor:
    """After the last of `states`, whose following tokens come first, and after each token behind them."""
    head = Eagle3(HeadCheckpoint(path), model.backend, model)
    runner, rows = HeadRunner(head, num_blocks=4, block_size=4, vocab=model.config.vocab_size), len(states)
    tables = ([2, 0, 3, 1],) * len(runner.pool.of_groups)
    passed = runner.reads([Span(tokens[:rows], 0, tables, 1)], states.numpy())
    logits = [passed.logits]
    for place in range(rows, len(tokens)):
        passed = runner.goes_on([Span([tokens[place]], place, tables, 1)], passed.kept)
        logits.append(passed.logits)
    return torch.from_numpy(np.concatenate(logits))


@pytest.mark.parametrize("feature", list(FEATURES)[1:-4])
def test_a_feature_changes_what_is_drafted(feature: str, target: Path, tmp_path: Path) -> None:
    """With the same weights. (Other states are other inputs in any case, and types only round.)"""
    model = Model(open_checkpoint(str(target)), exact_backend("native"))
    states, tokens = torch.randn(11, 3 * 64), list(range(2, 16))
    drafts = []
    for name in ("plain", feature):
        FEATURES[name](tmp_path / name, model.config)
        drafts.append(drafted_logits(tmp_path / name, model, states, tokens))
    assert drafts[0].shape != drafts[1].shape or (drafts[0] - drafts[1])[1:].abs().max() > 0.1


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("feature", FEATURES)
def test_logits_are_those_of_a_plain_reading(
    backend: str, feature: str, target: Path, tmp_path: Path
) -> None:
    """Whole and in pieces, then from its own states."""
    model = Model(open_checkpoint(str(target)), exact_backend(backend))
    FEATURES[feature](tmp_path, model.config)
    checkpoint = HeadCheckpoint(tmp_path)
    states = torch.randn(11, 64 * len(checkpoint.layers(model.config, "the target")))
    tokens, drafted = [7, 2, 99, 41, 5, 5, 17, 30, 8, 1, 64], [12, 3, 77]
    of_target = load_file(target / "model.safetensors")
    expected = plain_reading(tmp_path, of_target, tokens, states, drafted)
    head = Eagle3(checkpoint, model.backend, model)
    runner = HeadRunner(head, num_blocks=4, block_size=4, vocab=model.config.vocab_size)
    for pieces in ([11], [3, 8], [1] * 11):
        first, tables = 0, ([2, 0, 3, 1],) * len(runner.pool.of_groups)
        for piece in pieces:
            span = Span(tokens[first : first + piece], first, tables, 1)
            passed = runner.reads([span], states[first : first + piece].numpy())
            first += piece
        logits = [passed.logits]
        for token in drafted:
            passed = runner.goes_on([Span([token], first, tables, 1)], passed.kept)
            logits.append(passed.logits)
            first += 1
        torch.testing.assert_close(torch.from_numpy(np.concatenate(logits)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "granite"])
def test_the_targets_output_layer_comes_with_what_it_does_to_logits(family: str, tmp_path: Path) -> None:
    """A scale or a cap, which a head's own copy of that layer knows nothing of."""
    write_hf(tmp_path / "target", FAMILIES[family].config())
    model = Model(open_checkpoint(str(tmp_path / "target")), exact_backend("torch"))
    tree = model.tree
    assert (tree.logit_scale, tree.logit_cap) != (1.0, None)
    path, states = tmp_path / "head", torch.randn(5, 3 * tree.hidden_size)
    FEATURES["the target's output layer"](path, model.config)
    shared = drafted_logits(path, model, states, list(range(2, 9)))
    of_target = load_file(tmp_path / "target" / "model.safetensors")
    edit(path, **{"lm_head.weight": of_target.get("lm_head.weight", of_target["model.embed_tokens.weight"])})
    own = drafted_logits(path, model, states, list(range(2, 9))) * tree.logit_scale
    expected = own if tree.logit_cap is None else tree.logit_cap * torch.tanh(own / tree.logit_cap)
    torch.testing.assert_close(shared, expected)


def test_what_is_trained_is_what_runs(target: Path, tmp_path: Path) -> None:
    """The unrolled steps of training compute the drafts that the engine will make."""
    torch.manual_seed(0)
    model = Model(open_checkpoint(str(target)), exact_backend("native"))
    config = HeadConfig.for_target(model.config, draft_vocab_size=DRAFT_VOCAB)
    net = HeadNet(config)
    save_head(tmp_path, config, arrays(net.state_dict()), np.arange(DRAFT_VOCAB))
    table = load_file(target / "model.safetensors")["model.embed_tokens.weight"]
    tokens, steps, roots = [4, 9, 8, 70, 22, 16, 3], 3, 5
    states = torch.randn(roots, 3 * 64)
    mask = torch.full((roots, roots), -torch.inf).triu(1)
    with torch.inference_mode():
        unrolled = net.unroll(states[None], table[torch.tensor(tokens)][None], mask, steps)
        trained = torch.stack([net.lm_head(state[0]) for state in unrolled])  # [steps, roots, draft vocab]
    head = Eagle3(HeadCheckpoint(tmp_path), model.backend, model)
    runner = HeadRunner(head, num_blocks=2, block_size=8, vocab=model.config.vocab_size)
    for root in range(roots):
        span = Span(tokens[: root + 1], 0, ([0, 1],), 1)
        passed = runner.reads([span], states[: root + 1].numpy())
        for step in range(steps):
            logits = torch.from_numpy(passed.logits[0])
            torch.testing.assert_close(logits, trained[step, root], rtol=1e-4, atol=1e-4)
            if step + 1 < steps:
                following = tokens[root + step + 1]
                passed = runner.goes_on([Span([following], root + step + 1, ([0, 1],), 1)], passed.kept)


def test_a_head_written_is_the_head_read(target: Path, tmp_path: Path) -> None:
    config = HeadConfig.for_target(open_checkpoint(str(target)).config, draft_vocab_size=DRAFT_VOCAB)
    tensors = random_head(tmp_path, open_checkpoint(str(target)).config)
    read = HeadCheckpoint(tmp_path)
    assert read.config == config
    assert all(np.array_equal(read.stored[name].floats(), tensor) for name, tensor in tensors.items())
    stored = load_file(tmp_path / "model.safetensors")
    targets = torch.from_numpy(read.targets())
    assert torch.equal(torch.arange(DRAFT_VOCAB) + stored["d2t"], targets)
    assert torch.equal(stored["t2d"].nonzero()[:, 0], targets)
    assert set(stored) == {*shapes(config), "d2t", "t2d"}


def test_a_pickled_checkpoint_is_read(head: Path) -> None:
    tensors = load_file(head / "model.safetensors")
    torch.save(tensors, head / "pytorch_model.bin")
    (head / "model.safetensors").unlink()
    assert np.array_equal(HeadCheckpoint(head).stored["fc.weight"].floats(), tensors["fc.weight"])


def test_four_bits_are_the_nearest_of_that_format(target: Path, tmp_path: Path) -> None:
    config = HeadConfig.for_target(open_checkpoint(str(target)).config, draft_vocab_size=DRAFT_VOCAB)
    tensors = random_head(tmp_path / "whole", open_checkpoint(str(target)).config)
    targets = HeadCheckpoint(tmp_path / "whole").targets()
    save_head(tmp_path / "small", config, quantized(arrays(tensors)), targets)
    small = HeadCheckpoint(tmp_path / "small")
    weight = small.stored["midlayer.mlp.up_proj.weight"].weight()
    assert weight.format.name == "Q4_0"
    exact = tensors["midlayer.mlp.up_proj.weight"]
    step = exact.view(len(exact), -1, 32).abs().amax(-1, keepdim=True) / 7
    found = torch.from_numpy(weight.dequantize())
    assert ((found - exact).view(len(exact), -1, 32).abs() <= step).all()
    size = (tmp_path / "small" / "model.safetensors").stat().st_size
    assert size < (tmp_path / "whole" / "model.safetensors").stat().st_size / 5
    Eagle3(small, exact_backend("native"), Model(open_checkpoint(str(target)), exact_backend("native")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_hidden_size": 48}, "hidden size is 48, and 64"),
        ({"vocab_size": 12345}, "vocabulary size is 12345"),
        ({"target_num_hidden_layers": 30}, "number of layers is 30, and 8"),
        (
            {
                "eagle_aux_hidden_state_layer_ids": [2, 4, 9],
                "eagle_config": {},
                "target_num_hidden_layers": None,
            },
            r"reads layers \(2, 4, 9\), and the target has 8",
        ),
        ({"hidden_size": 128}, "shared embeddings is 128, and 64"),
    ],
)
def test_a_head_for_another_target_is_refused(
    head: Path, target: Path, change: dict[str, Any], message: str
) -> None:
    file = head / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        HeadCheckpoint(head).layers(open_checkpoint(str(target)).config, "the target")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [4, 2, 6]}}, r"\[4, 2, 6\]"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_a_configuration_that_is_no_heads_is_refused(
    head: Path, change: dict[str, Any], message: str
) -> None:
    file = head / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        HeadCheckpoint(head)


def test_broken_files_are_refused(head: Path) -> None:
    file = head / "model.safetensors"
    tensors = load_file(file)
    whole = file.read_bytes()

    def refused(changed: dict[str, Tensor], message: str) -> None:
        save_file(changed, file)
        with pytest.raises(ModelError, match=message):
            HeadCheckpoint(head).targets()

    refused({name: t for name, t in tensors.items() if name != "fc.weight"}, "'fc.weight' is missing")
    refused(tensors | {"fc.weight": torch.zeros(3, 5)}, r"shape \(3, 5\)")
    refused({name: t for name, t in tensors.items() if name != "d2t"}, "'d2t' is missing")
    refused(tensors | {"d2t": tensors["d2t"] + 10**6}, "'d2t' does not lead")
    refused(tensors | {"t2d": ~tensors["t2d"]}, "'t2d' does not mark")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="truncated or corrupt"):
        HeadCheckpoint(head)
    file.unlink()
    with pytest.raises(ModelError, match="neither"):
        HeadCheckpoint(head)


def test_usual_layers_are_three_that_every_target_has() -> None:
    assert usual_layers(30) == (2, 15, 27)
    for count in range(2, 40):
        low, middle, late = usual_layers(count)
        assert 0 <= low < middle < late <= count
