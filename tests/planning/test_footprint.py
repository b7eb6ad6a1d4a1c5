"""What headers say a model takes, against what it takes once it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from outrider.config import resolve
from outrider.engine.backend import choose_backend
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.models.folder import FolderCheckpoint
from outrider.models.gguf_file import GGUFCheckpoint
from outrider.models.model import Model
from outrider.models.runner import group_sizes
from outrider.models.tensors import Tensor
from outrider.ops.cpu import extension
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.shapes import AttentionShape
from outrider.planning.footprint import Footprint, model_footprint
from outrider.planning.ledger import NativeLedger, Outline, TorchLedger, ledger_of
from outrider.planning.passes import PassSize
from outrider.planning.plan import Ground, make_plan
from tests.models.factories import tiny_config, write_gguf, write_hf
from tests.models.families.table import FAMILIES, QWEN_3_MOE
from tests.models.families.table import config as family_config

OPTIONS: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16"},
    {"dtype": "float32"},
    {"quantization": "int8"},
    {"quantization": "int4"},
]
SIZE = PassSize(rows=8, logit_rows=2, requests=2, positions=64, ahead=5, drafted=3)


def planned(path: Path, **options: Any) -> tuple[Footprint, Model]:
    """The footprint, and the model itself."""
    config = resolve(str(path), device="cpu", **options)
    checkpoint: Checkpoint = open_checkpoint(str(path))
    ledger = ledger_of(config, checkpoint)
    footprint = model_footprint(Model(Outline(checkpoint), ledger), ledger, SIZE, config.block_size)
    return footprint, Model(checkpoint, choose_backend(config, checkpoint))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_a_folder(tmp_path: Path, options: dict[str, Any], tied: bool) -> None:
    write_hf(tmp_path, tiny_config(tie_word_embeddings=tied))
    footprint, model = planned(tmp_path, **options)
    assert isinstance(model.backend, NativeBackend)
    assert footprint.weights == model.backend.weight_bytes
    assert footprint.groups == group_sizes(model, 16, SIZE.ahead, SIZE.drafted)
    assert (footprint.read == footprint.weights) == tied


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("options", OPTIONS)
def test_weights_of_a_gguf_file(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    config = tiny_config(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", config), None, GGMLQuantizationType[kind])
    footprint, model = planned(tmp_path / "m.gguf", **options)
    assert isinstance(model.backend, NativeBackend)
    assert footprint.weights == model.backend.weight_bytes
    assert footprint.groups == group_sizes(model, 16, SIZE.ahead, SIZE.drafted)


MIXTURES = ("mixtral", "qwen3-moe-some-dense", "granite-moe-shared", "gpt-oss", "qwen2-moe")


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("options", OPTIONS)
def test_weights_of_a_mixture(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """A pass over one row reads the chosen experts and all that is not one."""
    write_hf(tmp_path, FAMILIES[name].config())
    footprint, model = planned(tmp_path, **options)
    assert isinstance(model.backend, NativeBackend)
    assert footprint.weights == model.backend.weight_bytes
    idle = sum(
        stack_bytes * (mixture.routing.count - mixture.routing.chosen) // mixture.routing.count
        for mixture in model.tree.mixtures
        for stack_bytes in [sum(model.packed(stack).nbytes for stack in mixture.stacks)]
    )
    assert idle > 0
    assert footprint.read == footprint.weights - model.table.nbytes - idle


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_weights_of_a_mixture_in_a_gguf_file(tmp_path: Path, kind: str) -> None:
    config = family_config("Qwen3MoeConfig", **QWEN_3_MOE | {"head_dim": 16, "hidden_size": 64})()
    model = write_hf(tmp_path / "hf", config)
    file = tmp_path / "m.gguf"
    write_gguf(file, model, None, GGMLQuantizationType[kind], architecture="qwen3moe")
    footprint, loaded = planned(file)
    assert isinstance(loaded.backend, NativeBackend)
    assert footprint.weights == loaded.backend.weight_bytes
    mixture = loaded.tree.mixtures[0]
    assert {loaded.packed(stack).format for stack in mixture.stacks} == {kind}
    assert [part.format for part in loaded.packed(mixture.router)] == ["F32"]


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
    def read(self: Any, tensor: Tensor) -> NoReturn:
        raise AssertionError(f"{tensor.hf.name} was read")

    model = write_hf(tmp_path, tiny_config())
    write_gguf(tmp_path / "m.gguf", model, None)
    for kind in (FolderCheckpoint, GGUFCheckpoint):
        monkeypatch.setattr(kind, "weight", read)
        monkeypatch.setattr(kind, "floats", read)
    for path in (tmp_path, tmp_path / "m.gguf"):
        checkpoint = open_checkpoint(str(path))
        ledger = ledger_of(resolve(str(path), device="cpu", quantization="int4"), checkpoint)
        assert model_footprint(Model(Outline(checkpoint), ledger), ledger, SIZE, 16).weights > 0


def matrix(rows: int, inputs: int) -> Weight:
    return Weight(FORMATS["F32"], np.zeros((rows, 4 * inputs), np.uint8), inputs)


def test_what_passes_counts_while_it_is_there() -> None:
    """The peak is the larger of what stays and what one weight takes while it is packed."""
    ledger = TorchLedger("float32")
    ledger.pack([matrix(16, 32)])
    alone = 16 * 32 * 4
    assert (ledger.stays, ledger.peak) == (alone, 3 * alone)
    ledger.pack([matrix(1, 32)])
    assert (ledger.stays, ledger.peak) == (alone + 128, 3 * alone)


def test_a_cache_of_8_bits_changes_no_weight() -> None:
    wide, narrow = TorchLedger("float32"), TorchLedger("float32", "int8")
    for ledger in (wide, narrow):
        ledger.pack([matrix(16, 32)])
    assert narrow.stays == wide.stays
    assert (wide.facts.head_bytes(64), narrow.facts.head_bytes(64)) == (256, 68)


def test_attention_in_pytorch_counts_what_it_holds() -> None:
    """Keys, values and scores of a chunk of a prompt, or of many requests that decode."""
    shape = AttentionShape(heads=4, kv_heads=2, head_dim=8, scale=1.0, rope=None)
    ledger = TorchLedger("float32")

    def counted(rows: int, requests: int) -> int:
        return ledger.workspace([shape], PassSize(rows, 1, requests, positions=100, ahead=1, drafted=0))

    stored, repeated = 2 * 8 * 100 * 4, 4 * 8 * 100 * 4
    assert counted(512, 1) == 2 * 4 * 512 * 100 * 4 + 2 * repeated + stored
    assert counted(8, 64) == 64 * (2 * 4 * 8 * 100 * 4 + 2 * repeated + stored)
    assert counted(512, 64) == 64 * (2 * 4 * 32 * 100 * 4 + 2 * repeated + stored)


def test_a_weight_is_packed_from_the_file_whatever_it_becomes() -> None:
    packed = extension.require().Matrix.bytes_of("F32", 16, 32)
    ledger = NativeLedger(None, None, "float32")
    ledger.pack([matrix(16, 32)])
    assert (ledger.stays, ledger.peak) == (packed, packed + 16 * 32 * 4)
    converting = NativeLedger(FORMATS["Q4_0"], None, "float32")
    converting.pack([matrix(16, 32)])
    assert converting.stays < packed
    assert converting.peak == converting.stays + 16 * 32 * 4


def test_threads_have_room_for_the_row_that_they_choose_from() -> None:
    """A copy that is edited, and one that is sorted. A draft has rooms of its own, for the same threads."""
    target = NativeLedger(None, None, "float32", threads=3)
    draft = target.with_formats(None, None, cache_dtype="bfloat16")
    assert target.choosing(1000, 5) == draft.choosing(1000, 5) == 3 * 2 * 4 * 1000


def test_as_many_logits_as_a_step_verifies(tmp_path: Path) -> None:
    """Also where passes are timed, of which many have more rows."""
    write_hf(tmp_path, tiny_config())
    ground = Ground(2**40, 0, open_checkpoint(str(tmp_path)), open_checkpoint)
    one, two, fixed = (
        make_plan(resolve(str(tmp_path), device="cpu", speculative_model="ngram", **options), ground)
        for options in (
            {"max_num_seqs": 1},
            {"max_num_seqs": 2},
            {"max_num_seqs": 1, "num_speculative_tokens": 32},
        )
    )
    vocab = ground.target.config.vocab_size
    assert 0 <= two.activations - one.activations - 33 * 4 * vocab < 2**16
    assert 0 <= one.activations - fixed.activations < 2**16
