"""Tensors of a head's file as weights, whichever of its two kinds it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.formats.floats import float32_to_bfloat16
from outrider.models.head_file import PICKLED, SAFETENSORS, HeadFile
from outrider.models.shards import save_safetensors


@pytest.mark.parametrize("name", [SAFETENSORS, PICKLED])
def test_names_and_values(tmp_path: Path, name: str) -> None:
    tensors = {
        "model.layers.0.mlp.up_proj.weight": torch.randn(4, 6).bfloat16(),
        "norm.weight": torch.randn(6).double(),
        "fc.weight": torch.randn(3, 4).half(),
        "d2t": torch.arange(5),
        "t2d": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / name) if name == SAFETENSORS else torch.save(tensors, tmp_path / name)
    file = HeadFile.open(tmp_path)
    public = ["midlayer.mlp.up_proj.weight", "norm.weight", "fc.weight", "d2t", "t2d"]
    assert file.tensors.keys() == set(public)
    for name, format in zip(public, ("BF16", "F32", "F16"), strict=False):
        (expected,) = (tensor for stored, tensor in tensors.items() if stored[-10:] == name[-10:])
        stored = file.weights()[name]
        assert (stored.name, stored.format.name, stored.shape) == (name, format, tuple(expected.shape))
        np.testing.assert_array_equal(stored.floats(), expected.float().numpy())
    assert file.tensors["d2t"].array().tolist() == [0, 1, 2, 3, 4]
    assert file.tensors["t2d"].array().tolist() == [True, False]


def test_a_matrix_in_4_bits(tmp_path: Path) -> None:
    """The first half of each 32 codes is in the low nibbles; a weight is scale * (code - 8)."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (3, 2, 32)).astype(np.uint8)
    scales = random.uniform(0.01, 0.1, (3, 2)).astype(np.float16)
    packed = (codes[..., :16] | codes[..., 16:] << 4).reshape(3, 32)
    parts = {"codes": torch.from_numpy(packed), "scales": torch.from_numpy(scales)}
    save_file({f"fc.weight.{end}": part for end, part in parts.items()}, tmp_path / SAFETENSORS)
    stored = HeadFile.open(tmp_path).weights()["fc.weight"]
    assert (stored.shape, stored.format.name) == ((3, 64), "Q4_0")
    expected = scales.astype(np.float64)[..., None] * (codes - 8.0)
    np.testing.assert_allclose(stored.floats(), expected.reshape(3, 64), rtol=1e-7)


def test_what_is_written_is_what_the_library_reads(tmp_path: Path) -> None:
    floats = torch.randn(5, 3)
    expected: dict[str, torch.Tensor] = {
        "odd bytes": torch.tensor([True, False, True]),
        "bfloat16": floats.bfloat16(),
        "float32": floats,
        "float16": floats.half(),
        "float64": floats.double(),
        "a number": torch.tensor(3),
        "nothing": torch.zeros(0, 4),
        "turned": floats.T,
        **{
            str(kind): torch.arange(4).to(kind)
            for kind in (torch.uint8, torch.int8, torch.int16, torch.int32)
        },
    }
    arrays: dict[str, NDArray[Any]] = {
        name: float32_to_bfloat16(floats.numpy()) if name == "bfloat16" else tensor.numpy()
        for name, tensor in expected.items()
    }
    save_safetensors(tmp_path / SAFETENSORS, arrays)
    found = load_file(tmp_path / SAFETENSORS)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_pickle_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / PICKLED)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModelError, match=rf"reading '.*{PICKLED}' needs the package 'torch', which"
    ) as caught:
        HeadFile.open(tmp_path)
    assert "pip install 'outrider[torch]' --extra-index-url" in str(caught.value)
