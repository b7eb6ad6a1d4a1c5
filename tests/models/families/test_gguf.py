"""GGUF files of every family, as llama.cpp's converter writes them, are the model that was converted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import Vector, leaves
from outrider.models.leaves import tensors as tensors_of
from outrider.models.model import Model
from outrider.models.parts import Decoder
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from tests.models.factories import tiny_tokenizer, write_gguf, write_hf
from tests.models.families.table import FAMILIES, WINDOW, config

LENGTH = 40  # beyond the windows, and beyond what ropes were first trained with
WITH_GGUF = {name: tiny for name, tiny in FAMILIES.items() if tiny.gguf is not None}


class Written(NamedTuple):
    """The same model twice. architecture: of the GGUF file."""

    model: Any
    architecture: str
    folder: Path
    file: Path


def write(path: Path, tiny_config: Any, architecture: str) -> Written:
    model = write_hf(path / "hf", tiny_config)
    write_gguf(path / "m.gguf", model, tiny_tokenizer(), architecture=architecture)
    return Written(model, architecture, path / "hf", path / "m.gguf")


@pytest.fixture(scope="module", params=WITH_GGUF)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    tiny = WITH_GGUF[request.param]
    assert tiny.gguf is not None
    return write(tmp_path_factory.mktemp("model"), tiny.config(), tiny.gguf)


def tree(path: Path) -> Decoder:
    return open_checkpoint(str(path)).config.tree


def logits(path: Path) -> NDArray[np.float32]:
    runner = ModelRunner(
        Model(open_checkpoint(str(path)), TorchBackend("cpu", "float32")),
        num_blocks=LENGTH // 8,
        block_size=8,
        prefix_caching=False,
    )
    tokens = random.Random(1).sample(range(runner.model.config.vocab_size), LENGTH)
    return runner.forward([Span(tokens, 0, (range(LENGTH // 8),) * len(runner.pool.of_groups), LENGTH)])


def test_logits_are_those_of_the_folder(written: Written) -> None:
    """To the last bit, but where frequencies come as divisors: there, float32 is rounded once more; and where
    heads of values come in another order, in which outputs are summed."""
    expected, actual = logits(written.folder), logits(written.file)
    error = np.abs(actual - expected).max(axis=1) / np.abs(expected).max(axis=1)
    rounded = written.model.config.rope_parameters.get("rope_type") == "llama3"
    reordered = any(getattr(shape, "tiled", False) for shape in tree(written.file).cached)
    assert error.max() <= (1e-5 if rounded else 5e-5 if reordered else 0)


def test_all_that_is_not_a_weight_is_the_same(written: Written) -> None:
    """Norms' epsilons and frequencies are float32 in a GGUF file, and no more."""
    of_folder, of_file = tree(written.folder), tree(written.file)
    assert len(of_file.blocks) == len(of_folder.blocks)
    assert of_file.tied == of_folder.tied
    assert of_file.logit_cap == of_folder.logit_cap
    for name in ("scale", "logit_scale"):
        assert getattr(of_file, name) == pytest.approx(getattr(of_folder, name), rel=1e-6)
    for one, other in zip(of_file.attention_shapes, of_folder.attention_shapes, strict=True):
        assert (one.window, one.soft_cap) == (other.window, other.soft_cap)
        assert one.scale == pytest.approx(other.scale, rel=1e-6)
        assert (one.rope is None) == (other.rope is None)
        if one.rope is not None and other.rope is not None:
            assert one.rope.inv_freq == pytest.approx(other.rope.inv_freq, rel=1e-6)
            assert one.rope.factor == pytest.approx(other.rope.factor, rel=1e-6)
            assert one.rope.interleaved == other.rope.interleaved


def test_every_tensor_is_asked_for_by_both_names(written: Written, tmp_path: Path) -> None:
    """One of the first layer is left out, and named."""
    block = tree(written.file).blocks[0]
    chosen = random.Random(3).choice([*leaves(block)]).tensors[-1]
    tensor = next(tensor for tensor in tensors_of(block) if tensor.gguf.name == chosen.gguf.name)
    file = tmp_path / "m.gguf"
    write_gguf(file, written.model, None, architecture=written.architecture, tensors={tensor.gguf.name: None})
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(file))
    assert f"{tensor.gguf.name!r} ({tensor.hf.name!r}) is missing" in str(caught.value)


def test_a_shape_that_differs_is_named(written: Written, tmp_path: Path) -> None:
    norm = next(leaf for leaf in leaves(tree(written.file).blocks[0]) if isinstance(leaf, Vector)).tensor
    file, wide = tmp_path / "m.gguf", np.zeros(3 * norm.shape[0], np.float32)
    write_gguf(file, written.model, None, architecture=written.architecture, tensors={norm.gguf.name: wide})
    with pytest.raises(ModelError, match=rf"{norm.gguf.name}' has shape .*; the metadata implies"):
        open_checkpoint(str(file))


def test_a_key_that_is_not_known_is_refused(written: Written, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    for name, said in (("attention.new_in_the_next", "not known"), ("expert_group_count", "it has to be 0")):
        key = f"{written.architecture}.{name}"
        write_gguf(file, written.model, None, architecture=written.architecture, metadata={key: 3})
        with pytest.raises(ModelError, match=f"{key} = 3; .*{said}"):
            open_checkpoint(str(file))
        file.unlink()


@pytest.mark.parametrize(("layers", "scalar"), [(46, 12), (45, 16)])
def test_the_scale_of_scores_of_gemma_2(tmp_path: Path, layers: int, scalar: int) -> None:
    """Which no GGUF file says: the model of 46 layers is the one that scales by hidden size over heads."""
    settings = {"head_dim": 16, "num_hidden_layers": layers, "query_pre_attn_scalar": scalar}
    make = config("Gemma2Config", **settings, sliding_window=WINDOW, tie_word_embeddings=True)
    scale = scalar**-0.5
    written = write(tmp_path, make(), "gemma2")
    assert tree(written.file).attention_shapes[0].scale == pytest.approx(scale)
    assert tree(written.folder).attention_shapes[0].scale == pytest.approx(scale)


def test_gemma_3_without_windows(tmp_path: Path) -> None:
    """The converter leaves the key out where no layer has one."""
    written = write(tmp_path, FAMILIES["gemma3"].config(), "gemma3")
    write_gguf(
        written.file,
        written.model,
        None,
        architecture="gemma3",
        metadata={"gemma3.attention.sliding_window": None, "gemma3.rope.freq_base_swa": None},
    )
    shapes = tree(written.file).attention_shapes
    assert {shape.window for shape in shapes} == {None}
    assert {shape.rope for shape in shapes} == {tree(written.folder).attention_shapes[5].rope}


def test_patterns_of_windows(tmp_path: Path) -> None:
    """As a number, and as flags."""
    written = write(tmp_path, FAMILIES["gemma3"].config(), "gemma3")
    key = "gemma3.attention.sliding_window_pattern"
    for pattern, windows in (
        (3, [WINDOW, WINDOW, None, WINDOW, WINDOW, None, WINDOW]),
        ([True, False, False, True, True, False, True], [WINDOW, None, None, WINDOW, WINDOW, None, WINDOW]),
    ):
        write_gguf(written.file, written.model, None, architecture="gemma3", metadata={key: pattern})
        assert [shape.window for shape in tree(written.file).attention_shapes] == windows
    write_gguf(written.file, written.model, None, architecture="gemma3", metadata={key: [True]})
    with pytest.raises(ModelError, match=r"sliding_window_pattern = \[True\]; .* for each of 7 layers"):
        tree(written.file)


def test_granite_4_says_its_heads_for_each_layer(tmp_path: Path) -> None:
    """It is converted as a hybrid that has attention in all layers; nothing turns if it says so."""
    written = write(tmp_path, FAMILIES["granite"].config(), "granite")
    of_hybrids = {
        "attention.head_count_kv": [2, 2],
        "expert_count": 0,
        "expert_shared_feed_forward_length": 96,
        "rope.scaling.finetuned": True,
        "ssm.conv_kernel": 4,
    }
    keys = {f"granite.{name}": value for name, value in of_hybrids.items()}
    before = tree(written.file)
    write_gguf(written.file, written.model, None, architecture="granite", metadata=keys)
    assert tree(written.file) == before
    keys["granite.rope.scaling.finetuned"] = False
    write_gguf(written.file, written.model, None, architecture="granite", metadata=keys)
    assert {shape.rope for shape in tree(written.file).attention_shapes} == {None}
    keys["granite.attention.head_count_kv"] = [2, 1]
    write_gguf(written.file, written.model, None, architecture="granite", metadata=keys)
    with pytest.raises(ModelError, match="the same number for all 2 layers"):
        tree(written.file)


def test_long_texts_of_phi_3(tmp_path: Path) -> None:
    """Which list of divisors is used is a matter of the positions that requests may have."""
    written = write(tmp_path, FAMILIES["phi3-long"].config(), "phi3")
    for path in (written.folder, written.file):
        ropes = {
            positions: open_checkpoint(str(path), positions=positions).config.tree.attention_shapes[0].rope
            for positions in (None, 512, 65, 64, 9)
        }
        assert ropes[None] == ropes[512] == ropes[65] != ropes[64] == ropes[9]
    write_gguf(
        written.file, written.model, None, architecture="phi3", tensors={"rope_factors_short.weight": None}
    )
    with pytest.raises(ModelError, match=r"'rope_factors_short\.weight' is missing"):
        tree(written.file)
