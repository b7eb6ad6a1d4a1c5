"""What headers say a model takes, against what it takes once it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from gguf import GGMLQuantizationType

from outrider.config import resolve
from outrider.engine.backend import choose_backend
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.folder import FolderCheckpoint
from outrider.models.gguf_file import GGUFCheckpoint
from outrider.models.llama import Llama
from outrider.models.runner import block_bytes
from outrider.ops.cpu import extension
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.cpu.layout import packed_bytes
from outrider.planning.footprint import Footprint, PassSize, model_footprint, total
from outrider.planning.layout import Step, layout_of
from outrider.quantization.quantize import convert
from outrider.quantization.weight import Format, Weight
from tests.models.factories import tiny_config, write_gguf, write_hf

FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "int8", "int8_channel", "int4", "int4_min")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16"},
    {"dtype": "float32"},
    {"quantization": "int8"},
    {"quantization": "int4"},
]
SIZE = PassSize(rows=8, logit_rows=2, positions=64)


def planned(path: Path, **options: Any) -> tuple[Footprint, Llama]:
    """The footprint, and the model itself."""
    config = resolve(str(path), device="cpu", **options)
    checkpoint: Checkpoint = open_checkpoint(str(path))
    footprint = model_footprint(checkpoint, layout_of(config, checkpoint), SIZE, config.block_size)
    return footprint, Llama(checkpoint, choose_backend(config, checkpoint))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (1, 1), (17, 40), (100, 576)])
def test_packed_bytes_are_those_of_the_kernels(format: Format, outputs: int, inputs: int) -> None:
    weight = convert(Weight("float32", torch.randn(outputs, inputs)), format)
    packed = extension.require().Matrix.pack(
        format, weight.values, scales=weight.scales, mins=weight.mins, bias=None
    )
    assert packed_bytes(format, outputs, inputs) == packed.nbytes


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_a_folder(tmp_path: Path, options: dict[str, Any], tied: bool) -> None:
    write_hf(tmp_path, tiny_config(tie_word_embeddings=tied))
    footprint, model = planned(tmp_path, **options)
    assert isinstance(model.backend, NativeBackend)
    assert footprint.weights == model.backend.weight_bytes
    assert footprint.block == block_bytes(model, 16)
    assert (footprint.read == footprint.weights) == tied


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("options", OPTIONS)
def test_weights_of_a_gguf_file(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    config = tiny_config(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", config), None, GGMLQuantizationType[kind])
    footprint, model = planned(tmp_path / "m.gguf", **options)
    assert isinstance(model.backend, NativeBackend)
    assert footprint.weights == model.backend.weight_bytes
    assert footprint.block == block_bytes(model, 16)


def test_weights_on_pytorch(tmp_path: Path) -> None:
    """A tied table lies there twice: as a table, and packed for the output layer."""
    weights = []
    for tied in (False, True):
        model = write_hf(tmp_path / str(tied), tiny_config(tie_word_embeddings=tied))
        matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2)
        table = model.get_input_embeddings().weight.numel()
        footprint, _ = planned(tmp_path / str(tied), backend="torch")
        assert footprint.weights == 4 * (matrices + (table if tied else 0))
        weights.append(footprint.weights)
    assert weights[0] == weights[1]


def test_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Any, name: str) -> NoReturn:
        raise AssertionError(f"{name} was read")

    model = write_hf(tmp_path, tiny_config())
    write_gguf(tmp_path / "m.gguf", model, None)
    for kind in (FolderCheckpoint, GGUFCheckpoint):
        monkeypatch.setattr(kind, "weight", read)
        monkeypatch.setattr(kind, "tensor", read)
    for path in (tmp_path, tmp_path / "m.gguf"):
        checkpoint = open_checkpoint(str(path))
        layout = layout_of(resolve(str(path), device="cpu"), checkpoint)
        assert model_footprint(checkpoint, layout, SIZE, 16).weights > 0


def test_what_passes_counts_while_it_is_there() -> None:
    assert total([Step(10, 90), Step(50, 30), Step(5)]) == (65, 100)
    assert total([Step(10, 20), Step(50, 60), Step(5)]) == (65, 120)
