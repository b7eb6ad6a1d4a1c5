"""GGUF files: every type of block, llama.cpp's names and row order, its metadata, and broken files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.ops.shapes import Rope
from tests.models.factories import read_all, tiny_config, tiny_tokenizer, write_gguf, write_hf

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_hf(tmp_path_factory.mktemp("hf"), tiny_config(**SMALL))


def rope_of(path: Path) -> Rope:
    rope = open_checkpoint(str(path)).config.tree.attention_shapes[0].rope
    assert rope is not None
    return rope


def use_everything(path: Path) -> None:
    read_all(path)
    open_checkpoint(str(path)).tokenizer().encode("some text, and 12")


@pytest.mark.parametrize("qtype", TYPES)
def test_every_type_equals_ggufs_own_values(tmp_path: Path, qtype: str) -> None:
    config = tiny_config(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    model = write_hf(tmp_path / "hf", config)
    held = write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer(), GGMLQuantizationType[qtype])
    tensors = read_all(tmp_path / "m.gguf")
    assert tensors.keys() == held.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(tensor, held[name]), name


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"head_dim": 20},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
    ],
)
def test_float32_equals_the_model(tmp_path: Path, overrides: dict[str, Any]) -> None:
    """Names, the order of Q and K rows in weights and biases, and what the metadata says of the shapes."""
    model = write_hf(tmp_path / "hf", tiny_config(**overrides))
    write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer())
    folder, gguf = open_checkpoint(str(tmp_path / "hf")), open_checkpoint(str(tmp_path / "m.gguf"))
    held, expected = read_all(tmp_path / "m.gguf"), read_all(tmp_path / "hf")
    assert held.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(held[name], values), name
    assert rope_of(tmp_path / "m.gguf") == rope_of(tmp_path / "hf")
    assert gguf.config.tree.norm.eps == pytest.approx(folder.config.tree.norm.eps)
    assert gguf.config.max_position_embeddings == folder.config.max_position_embeddings
    assert gguf.config.eos_token_ids == (0, 2)  # <|endoftext|> and <|im_end|>


def test_llama3_scaling_is_a_tensor_of_divisors(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "original_max_position_embeddings": 64, **scaling}
    model = write_hf(tmp_path / "hf", tiny_config(rope_parameters=rope))
    expected = np.array(rope_of(tmp_path / "hf").inv_freq)
    plain = 1e4 ** (-np.arange(0, 12, 2) / 12)
    divisors = (plain / expected).astype(np.float32)
    assert divisors.min() == pytest.approx(1.0)
    assert divisors.max() == pytest.approx(8.0)
    write_gguf(tmp_path / "m.gguf", model, None, tensors={"rope_freqs.weight": divisors})
    divided = rope_of(tmp_path / "m.gguf")
    assert divided.inv_freq == pytest.approx(expected.tolist(), rel=1e-6)
    assert divided.factor == 1.0

    write_gguf(tmp_path / "m.gguf", model, None, tensors={"rope_freqs.weight": divisors[:5]})
    with pytest.raises(ModelError, match=r"m\.gguf.*rope_freqs\.weight.*5 values.*6"):
        open_checkpoint(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("rope", "metadata"),
    [
        ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            {"type": "yarn", "factor": 4.0, "original_context_length": 64},
        ),
        ({"rope_type": "default"}, {"type": "none"}),
    ],
)
def test_scaling_in_the_metadata(tmp_path: Path, rope: dict[str, Any], metadata: dict[str, Any]) -> None:
    rope = {"rope_theta": 500.0, **rope}
    model = write_hf(tmp_path / "hf", tiny_config(rope_parameters=rope))
    keys = {f"llama.rope.scaling.{key}": value for key, value in metadata.items()}
    write_gguf(tmp_path / "m.gguf", model, None, metadata=keys)
    expected, scaled = rope_of(tmp_path / "hf"), rope_of(tmp_path / "m.gguf")
    assert scaled.inv_freq == pytest.approx(expected.inv_freq, rel=1e-6)
    assert scaled.factor == pytest.approx(expected.factor)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "longrope"),
        ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.factor"),
        ({"llama.rope.dimension_count": 2}, "partial_rotary_factor = 0.5 is not supported"),
        ({"llama.block_count": None}, "llama.block_count"),
        ({"llama.attention.head_count": None}, "llama.attention.head_count"),
        ({"llama.context_length": None}, "llama.context_length"),
        ({"llama.attention.head_count": 0}, ""),
        ({"llama.attention.head_count_kv": 0}, "num_key_value_heads = 0"),
        ({"llama.attention.head_count_kv": "two"}, ""),
        ({"llama.attention.head_count_kv": [2, 2]}, ""),
        ({"llama.attention.head_count_kv": 3}, "3 K/V heads"),
        ({"llama.embedding_length": 17}, ""),
    ],
)
def test_metadata_that_would_go_wrong(
    tmp_path: Path, model: Any, metadata: dict[str, Any], named: str
) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, None, metadata=metadata)
    with pytest.raises(ModelError) as caught:
        read_all(file)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)


def test_another_architecture(tmp_path: Path, model: Any) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, None)
    file.write_bytes(file.read_bytes().replace(b"llama", b"gemma", 2))  # the key's value comes first
    with pytest.raises(ModelError, match=rf"{file}.*'gemma' is not supported; near it are .*gemma2"):
        open_checkpoint(str(file))


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight"])
def test_missing_tensor(tmp_path: Path, model: Any, name: str) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, None, tensors={name: None})
    with pytest.raises(ModelError, match=rf"{file}: tensor '{name}'.* is missing"):
        read_all(file)


def test_wrong_shape(tmp_path: Path, model: Any) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, None, tensors={"blk.0.attn_k.weight": np.zeros((4, 16), np.float32)})
    with pytest.raises(ModelError, match=rf"{file}.*attn_k.*\(4, 16\); the metadata implies \(8, 16\)"):
        read_all(file)


def test_bad_magic(tmp_path: Path, model: Any) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, tiny_tokenizer())
    file.write_bytes(b"GGML" + file.read_bytes()[4:])
    with pytest.raises(ModelError, match=f"{file} is truncated or corrupt.*magic"):
        open_checkpoint(str(file))


def test_truncated(tmp_path: Path, model: Any) -> None:
    file = tmp_path / "m.gguf"
    write_gguf(file, model, tiny_tokenizer())
    reader = GGUFReader(file)
    data = int(reader.data_offset)
    end = max(int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors)
    whole = file.read_bytes()
    del reader
    for cut in (*range(0, data, 97), data - 1, data, *range(data + 1, end, 2999), end - 1):
        file.unlink()  # it may still be mapped
        file.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=f"{file} is truncated or corrupt"):
            use_everything(file)


def test_flipped_bits_before_the_tensors(tmp_path: Path, model: Any) -> None:
    """A flip in a string or a number may go unnoticed; nothing but a ModelError may come of the others."""
    file, draw = tmp_path / "m.gguf", random.Random(0)
    refused: list[str] = []
    write_gguf(file, model, tiny_tokenizer())
    whole = file.read_bytes()
    data = int(GGUFReader(file).data_offset)
    for place in draw.sample(range(data), 200):
        file.unlink()
        flipped = whole[place] ^ 1 << draw.randrange(8)
        file.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        try:
            use_everything(file)
        except ModelError as error:
            refused.append(str(error))
    assert all(str(file) in message for message in refused)
    assert len(refused) > 50
