"""Gemma 4's settings: as its files spell them, as transformers writes them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.parts import Decoder
from tests.models.factories import write_gguf, write_hf
from tests.models.families.table import FAMILIES, LOCAL, WIDE

PUBLISHED = {
    "gemma4": {"per_layer_config": None, "global_head_dim": 32, "num_global_key_value_heads": 1},
    "gemma4-small": {"per_layer_config": None, "global_head_dim": 32, "num_global_key_value_heads": None},
}


def tree(path: Path, **changes: Any) -> Decoder:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return open_checkpoint(str(path)).config.tree


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_files_are_the_same_model(family: str, tmp_path: Path) -> None:
    """They have the sizes of layers that see all once, and transformers writes them for each layer."""
    write_hf(tmp_path, FAMILIES[family].config())
    assert tree(tmp_path) == tree(tmp_path, **PUBLISHED[family])


def test_layers_read_the_last_of_their_kind(tmp_path: Path) -> None:
    write_hf(tmp_path, FAMILIES["gemma4-small"].config())
    found = tree(tmp_path)
    assert [block.reads for block in found.blocks] == [None, None, None, None, 3, 3, 1]
    assert len(found.cached) == 4


def test_matrices_that_nobody_reads_are_passed_over(tmp_path: Path) -> None:
    """Published files hold K and V of layers that read another's."""
    write_hf(tmp_path, FAMILIES["gemma4-small"].config())
    before, file = tree(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(file)
    for name in ("k_proj", "v_proj", "k_norm"):
        key = f"model.layers.{{}}.self_attn.{name}.weight"
        tensors[key.format(5)] = tensors[key.format(3)].clone()
    save_file(tensors, file, {"format": "pt"})
    assert tree(tmp_path) == before
    tensors["model.layers.5.self_attn.gate.weight"] = tensors["model.norm.weight"].clone()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"tensors that are not read, .*self_attn\.gate"):
        tree(tmp_path)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"enable_moe_block": True}, "enable_moe_block = True"),
    ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention = 'all'"),
    ({"layer_types": [WIDE] * 6 + [LOCAL]}, "a list whose last type is 'full_attention'"),
    ({"num_kv_shared_layers": 7}, "num_kv_shared_layers = 7; it has to be less than the number of layers"),
    ({"num_kv_shared_layers": 8}, "num_kv_shared_layers = 8"),
    ({"num_kv_shared_layers": 6}, "so few of 7 layers that some of each type are left before them"),
    ({"vocab_size_per_layer_input": 9}, "vocab_size_per_layer_input = 9; it has to be vocab_size"),
    ({"per_layer_config": {"0": {"head_dim": 32}}}, "per_layer_config"),
    ({"per_layer_config": {"1": {"head_dim": 32}, "6": {"head_dim": 16}}}, "per_layer_config"),
    ({"per_layer_config": {"1": {"gate": 1}, "6": {"gate": 1}}}, "per_layer_config"),
    ({"per_layer_config": None, "global_head_dim": 31}, "global_head_dim = 31; it has to be even"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    path = tmp_path_factory.mktemp("model")
    return write_hf(path, FAMILIES["gemma4-small"].config()), path


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=str)
def test_what_would_be_another_model_is_refused(
    written: tuple[Any, Path], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    _, path = written
    (tmp_path / "model.safetensors").symlink_to(path / "model.safetensors")
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    with pytest.raises(ModelError, match=said):
        tree(tmp_path, **changes)


NARROW = ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa")
IN_GGUF: list[tuple[dict[str, Any], str]] = [
    ({"attention.key_length": 64}, "attention.value_length = 32; it has to be gemma4.attention.key_length"),
    ({"rope.dimension_count_swa": 8}, "rope.dimension_count_swa = 8"),
    (dict.fromkeys(NARROW, 32), "of 32 dimensions each, does not fit tensor 'blk.0.attn_output.weight'"),
    ({"attention.head_count_kv": [2, 2, 1, 2, 2, 2, 2]}, "the same for all layers of type 'sliding"),
    ({"attention.head_count_kv": [2, 2]}, "head_count_kv = .* a number for each of 7 layers"),
    ({"feed_forward_length": [96, 96, 192, 96, 192, 192, 192]}, "the same or twice as much in layers"),
    ({"attention.shared_kv_layers": 9}, "shared_kv_layers"),
]


@pytest.mark.parametrize(("keys", "said"), IN_GGUF, ids=str)
def test_gguf_keys_that_do_not_fit(
    written: tuple[Any, Path], tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    file = tmp_path / "m.gguf"
    metadata = {f"gemma4.{key}": value for key, value in keys.items()}
    write_gguf(file, written[0], None, architecture="gemma4", metadata=metadata)
    with pytest.raises(ModelError, match=said):
        open_checkpoint(str(file))
