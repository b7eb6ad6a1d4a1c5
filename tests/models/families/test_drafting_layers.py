"""Layers that predict further tokens (multi-token prediction) are left out of the model, and that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.models.factories import read_all, write_gguf, write_hf

WEIGHTS = "model.safetensors"
SAID = "tensors of layers that predict further tokens (MTP) are left out"
BEHIND = {f"blk.2.{name}": np.ones((4, 4), np.float32) for name in ("attn_q.weight", "nextn.eh_proj.weight")}


@pytest.mark.parametrize("begins", ["mtp.", "model.mtp."])
def test_in_a_folder(tmp_path: Path, begins: str, caplog: pytest.LogCaptureFixture) -> None:
    write_hf(tmp_path)
    expected = read_all(tmp_path)
    assert SAID not in caplog.text
    stored = load_file(tmp_path / WEIGHTS)
    stored |= {f"{begins}layers.0.mlp.up_proj.weight": torch.ones(4, 4), f"{begins}fc.weight": torch.ones(4)}
    save_file(stored, tmp_path / WEIGHTS, {"format": "pt"})
    found = read_all(tmp_path)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], values) for name, values in expected.items())
    assert f"{tmp_path}: 2 {SAID}" in caplog.text


def test_in_a_gguf_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, model = tmp_path / "m.gguf", write_hf(tmp_path / "hf")
    write_gguf(file, model, None)
    expected = open_checkpoint(str(file)).config.tree
    assert SAID not in caplog.text
    keys = {"llama.block_count": 3, "llama.nextn_predict_layers": 1}
    write_gguf(file, model, None, metadata=keys, tensors=BEHIND)
    assert open_checkpoint(str(file)).config.tree == expected
    assert f"{file}: 2 {SAID}" in caplog.text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "has no use for: 'blk.2.attn_q.weight'"),
        ({"llama.block_count": 3}, "has no use for: 'blk.2.nextn.eh_proj.weight'"),
        ({"llama.nextn_predict_layers": 2}, "nextn_predict_layers = 2; it has to be less than block_count"),
        ({"llama.nextn_predict_layers": "1"}, "nextn_predict_layers = '1'; it has to be a whole number"),
    ],
    ids=str,
)
def test_layers_that_are_not_said_to_be_such(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    file, model = tmp_path / "m.gguf", write_hf(tmp_path / "hf")
    write_gguf(file, model, None, metadata=keys, tensors=BEHIND)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(file))
    assert said in str(caught.value)
