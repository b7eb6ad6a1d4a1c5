"""GGUF files: every type of block, llama.cpp's names and row order, its metadata, and broken files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from outrider import LLM, SamplingParams
from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.gguf_blocks import TYPES
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_hf(tmp_path_factory.mktemp("hf"), tiny_config(**SMALL))


def read_all(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = open_checkpoint(str(path))
    return {name: checkpoint.tensor(name) for name in checkpoint.config.shapes()}


def use_everything(path: Path) -> None:
    read_all(path)
    open_checkpoint(str(path)).tokenizer()("some text, and 12")


@pytest.mark.parametrize("qtype", TYPES)
def test_every_type_equals_ggufs_own_values(tmp_path: Path, qtype: str) -> None:
    config = tiny_config(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    model = write_hf(tmp_path / "hf", config)
    held = write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer(), GGMLQuantizationType[qtype])
    tensors = read_all(tmp_path / "m.gguf")
    assert tensors.keys() == held.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, torch.from_numpy(held[name])), name


def test_a_type_that_is_changed_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = write_hf(tmp_path / "hf", tiny_config(hidden_size=64, intermediate_size=64, num_hidden_layers=2))
    for kind, said in (("Q5_1", 1), ("Q8_0", 0)):
        write_gguf(tmp_path / f"{kind}.gguf", model, None, GGMLQuantizationType[kind])
        checkpoint = open_checkpoint(str(tmp_path / f"{kind}.gguf"))
        caplog.clear()
        for layer in range(2):
            checkpoint.weight(f"model.layers.{layer}.mlp.up_proj.weight")
        assert len(caplog.records) == said
        assert said == 0 or "Q5_1 become 8 bits" in caplog.text


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
    assert gguf.config.shapes() == folder.config.shapes()
    for name in folder.config.shapes():
        assert torch.equal(gguf.tensor(name), folder.tensor(name)), name
    assert gguf.config.rope_inv_freq == folder.config.rope_inv_freq
    assert gguf.config.rms_norm_eps == pytest.approx(folder.config.rms_norm_eps)
    assert gguf.config.max_position_embeddings == folder.config.max_position_embeddings
    assert gguf.config.eos_token_ids == (0, 2)  # <|endoftext|> and <|im_end|>


def test_llama3_scaling_is_a_tensor_of_divisors(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "original_max_position_embeddings": 64, **scaling}
    model = write_hf(tmp_path / "hf", tiny_config(rope_parameters=rope))
    expected = np.array(open_checkpoint(str(tmp_path / "hf")).config.rope_inv_freq)
    plain = 1e4 ** (-np.arange(0, 12, 2) / 12)
    divisors = (plain / expected).astype(np.float32)
    assert divisors.min() == pytest.approx(1.0)
    assert divisors.max() == pytest.approx(8.0)
    write_gguf(tmp_path / "m.gguf", model, None, tensors={"rope_freqs.weight": divisors})
    config = open_checkpoint(str(tmp_path / "m.gguf")).config
    assert config.rope_inv_freq == pytest.approx(expected.tolist(), rel=1e-6)
    assert config.rope_attention_factor == 1.0

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
    expected = open_checkpoint(str(tmp_path / "hf")).config
    config = open_checkpoint(str(tmp_path / "m.gguf")).config
    assert config.rope_inv_freq == pytest.approx(expected.rope_inv_freq, rel=1e-6)
    assert config.rope_attention_factor == pytest.approx(expected.rope_attention_factor)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "longrope"),
        ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.factor"),
        ({"llama.rope.dimension_count": 2}, "rope.dimension_count = 2"),
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
    file.write_bytes(file.read_bytes().replace(b"llama", b"qwen2", 2))  # the key's value comes first
    with pytest.raises(ModelError, match=rf"{file}.*'qwen2' is not supported; supported in GGUF is 'llama'"):
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


def test_type_that_is_not_supported(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    config = tiny_config(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    write_gguf(file, write_hf(tmp_path / "hf", config), None, GGMLQuantizationType.TQ2_0)
    with pytest.raises(ModelError, match=rf"{file}.*is of type TQ2_0; supported are F32, F16"):
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


@pytest.mark.parametrize(
    ("other", "format"), [("Q8_0", "int8"), ("Q4_0", "int8"), ("BF16", "float32"), ("F32", "float32")]
)
def test_gate_and_up_of_two_types(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str, format: str
) -> None:
    """As mixed quantisations have them: a kernel reads both in one pass, in what holds either."""
    model = write_hf(tmp_path / "hf", tiny_config(hidden_size=64, intermediate_size=64, num_hidden_layers=1))
    file, types = tmp_path / "m.gguf", {"blk.0.ffn_gate.weight": GGMLQuantizationType[other]}
    held = write_gguf(file, model, tiny_tokenizer(), GGMLQuantizationType.Q4_1, types=types)
    checkpoint = open_checkpoint(str(file))
    for part in ("gate_proj", "up_proj"):
        name = f"model.layers.0.mlp.{part}.weight"
        weight = checkpoint.weight(name)
        assert weight.format == checkpoint.format(name) == format
        off = (weight.dequantize() - torch.from_numpy(held[name])).abs().max()
        assert off <= (0 if format == "float32" else 0.01) * np.abs(held[name]).max()
    assert f"type Q4_1 become {format} where gate and up of a layer differ" in caplog.text
    assert checkpoint.format("model.layers.0.mlp.down_proj.weight") == "int4_min"
    LLM(str(file), device="cpu", kv_cache_memory=2**22).generate([[1]], SamplingParams(max_tokens=2))
