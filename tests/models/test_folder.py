"""Checkpoints in Hugging Face's layout: what is read is what was saved, and what is broken is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.models.factories import read_all, tiny_config, write_hf

WEIGHTS = "model.safetensors"


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "overrides", [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}]
)
def test_tensors_equal_those_of_transformers(tmp_path: Path, shards: int, overrides: dict[str, Any]) -> None:
    model = write_hf(tmp_path, tiny_config(**overrides), shards=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards > 1)
    tensors = read_all(tmp_path)
    parameters = dict(model.named_parameters())  # tied weights once
    assert tensors.keys() == parameters.keys()
    for name, tensor in tensors.items():
        assert torch.equal(torch.from_numpy(tensor), parameters[name]), name


def test_stop_tokens_of_both_files_are_joined(folder: Path) -> None:
    edit_json(folder / "config.json", eos_token_id=2)
    edit_json(folder / "generation_config.json", eos_token_id=[0, 2])
    assert open_checkpoint(str(folder)).config.eos_token_ids == (0, 2)


def test_tokenizer_of_another_folder(folder: Path, tmp_path: Path) -> None:
    """A folder of nothing but a tokenizer will do."""
    other = tmp_path / "tokenizer"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(other / name)
    with pytest.raises(ModelError, match=f"{folder}.*tokenizer"):
        open_checkpoint(str(folder)).tokenizer()
    tokenizer = open_checkpoint(str(folder), tokenizer=str(other)).tokenizer()
    assert tokenizer.decode(tokenizer.encode("the end of 12")) == "the end of 12"


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=rf"{folder} holds no config\.json"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("text", ["", "{", '{"model_type": ', "[1]", "\0", "null"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_bad_json(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=f"{folder / name} is not"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("changes", "near"),
    [
        ({"architectures": ["BertModel"]}, ""),
        ({"architectures": ["Qwen2VLForCausalLM"], "model_type": "qwen2_vl"}, "Qwen2ForCausalLM"),
        ({"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}, "Gemma2ForCausalLM"),
        ({"architectures": ["NoSuchThing"], "model_type": "no_such_thing"}, ""),
        ({"architectures": None, "model_type": "gemma"}, "gemma2"),
        ({"architectures": 3}, ""),
    ],
)
def test_unsupported_architecture_names_those_that_are_near(
    folder: Path, changes: dict[str, Any], near: str
) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(folder))
    assert str(folder) in str(caught.value)
    assert near in str(caught.value)
    assert ("; near it are " in str(caught.value)) == bool(near)
    assert "`outrider models` lists what is" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ({"num_key_value_heads": 3}, "3 K/V heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads = 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"max_position_embeddings": 0}, "max_position_embeddings = 0"),
        ({"head_dim": 3}, "even"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"rope_parameters": []}, "rope_parameters = []"),
        ({"hidden_size": 15, "head_dim": None}, "hidden size (15) is not a multiple"),
    ],
)
def test_settings_that_would_go_wrong(folder: Path, changes: dict[str, Any], named: str) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(folder))
    assert str(folder) in str(caught.value)
    assert named in str(caught.value)


def test_shapes_that_config_contradicts(folder: Path) -> None:
    edit_json(folder / "config.json", intermediate_size=24)
    with pytest.raises(ModelError, match=r"mlp\..*\(16, 16\).*config.json implies \(24, 16\)"):
        read_all(folder)


def test_missing_tensor(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(ModelError, match=rf"{folder}.*model\.layers\.1\..* is missing"):
        read_all(folder)


def test_no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=f"{folder} holds neither"):
        open_checkpoint(str(folder))


def test_missing_shard(tmp_path: Path) -> None:
    write_hf(tmp_path, shards=3)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"{shard} is missing"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": ["a"]}])
def test_index_without_a_map(folder: Path, index: dict[str, Any]) -> None:
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"{file} has no 'weight_map'"):
        open_checkpoint(str(folder))


def test_index_that_names_a_tensor_its_shard_lacks(folder: Path) -> None:
    names = ["lm_head.weight", "model.norm.bias"]
    index = {"weight_map": dict.fromkeys(names, WEIGHTS)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"{folder}.*missing"):
        read_all(folder)


def test_truncated_weights(folder: Path) -> None:
    file = folder / WEIGHTS
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    cuts = [*range(0, header, 61), header - 1, header, *range(header + 1, len(whole), 1999), len(whole) - 1]
    for cut in cuts:
        file.unlink()  # it may still be mapped
        file.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=str(file)):
            read_all(folder)


def test_truncated_shard(tmp_path: Path) -> None:
    write_hf(tmp_path, shards=3)
    file = sorted(tmp_path.glob("*.safetensors"))[-1]
    whole = file.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.unlink()
        file.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=str(file)):
            read_all(tmp_path)


def test_flipped_bits_in_the_header(folder: Path) -> None:
    """Every flip is either refused with the folder's name or harmless, as one in the header's metadata."""
    file, draw = folder / WEIGHTS, random.Random(0)
    refused: list[str] = []
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    flips = [(i, 1 << draw.randrange(8)) for i in [*range(8), *draw.sample(range(8, header), 150)]]
    for place, bit in flips:
        file.unlink()
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            read_all(folder)
        except ModelError as error:
            refused.append(str(error))
    assert all(str(folder) in message for message in refused)
    assert len(refused) > 0.9 * len(flips)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "a/b", "a\\b", "..", "", "x" * 256, "a\nb", "\0", 3, None, ["a"]],
)
def test_an_index_names_files_of_its_folder_only(folder: Path, name: Any) -> None:
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ModelError, match="it has to be the name of a file in the same folder") as caught:
        open_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_links_to_weights_are_followed(folder: Path, tmp_path: Path) -> None:
    """The hub's cache is made of them."""
    (folder / WEIGHTS).rename(tmp_path / "blob")
    (folder / WEIGHTS).symlink_to(tmp_path / "blob")
    assert read_all(folder)


def test_tensors_of_a_shard_that_the_index_leaves_out(tmp_path: Path) -> None:
    write_hf(tmp_path, shards=3)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    shard = index["weight_map"]["model.norm.weight"]
    tensors = load_file(tmp_path / shard)
    (tmp_path / shard).unlink()
    save_file(tensors | {"model.norm.weight_scale": torch.ones(1)}, tmp_path / shard)
    with pytest.raises(ModelError, match=r"not read, 1 in all: 'model\.norm\.weight_scale'"):
        open_checkpoint(str(tmp_path))
