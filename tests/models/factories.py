"""Tiny random checkpoints, in Hugging Face's layout and in llama.cpp's, with every weight random."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from outrider.formats.registry import FORMATS
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import tensors as tensors_of
from outrider.ops.base import Backend
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.torch import TorchBackend
from tests import factories
from tests.factories import tiny_tokenizer
from tests.models.gguf_converted import converted, less_one, permuted, rope_tensors
from tests.models.gguf_metadata import LLAMA_LIKE, model_metadata

__all__ = ["exact_backend", "permuted", "read_all", "tiny_config", "tiny_tokenizer", "write_gguf", "write_hf"]

SCALES_AT = {
    "Q2_K": slice(80, 84),
    "Q3_K": slice(108, 110),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
    "IQ4_NL": slice(0, 2),
    "IQ4_XS": slice(0, 2),
}  # bytes of a block: f16
ARCHITECTURES = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type


def exact_backend(name: str) -> Backend:
    """PyTorch, or the native kernels on float32 weights."""
    if name == "torch":
        return TorchBackend("cpu", "float32")
    exact = FORMATS["F32"]
    return NativeBackend(exact, exact, cache_dtype="float32", num_threads=2)


def tiny_config(**overrides: Any) -> LlamaConfig:
    """Two layers, grouped queries, and weights large enough that logits are well spread."""
    return factories.tiny_config(**{"max_position_embeddings": 512, "initializer_range": 0.4} | overrides)


def write_hf(
    path: Path,
    config: Any = None,
    *,
    seed: int = 0,
    shards: int = 1,
    tokenizer: PreTrainedTokenizerFast | None = None,
    auto_class: Any = AutoModelForCausalLM,
) -> Any:
    """Save a random model and its tokenizer, in about `shards` files; returns the transformers model.

    Norms and biases are random too: transformers starts them at one and zero, which hides mistakes.
    """
    torch.manual_seed(seed)
    make = auto_class.from_config if auto_class is AutoModelForCausalLM else auto_class._from_config
    model = make(config or tiny_config(), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith(("expert_bias", "correction_bias")):
                nn.init.normal_(buffer, std=0.3)
            if name.endswith("layer_scalar"):
                nn.init.uniform_(buffer, 0.6, 1.4)
    size = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    model.save_pretrained(path, max_shard_size=size // shards + 1)
    (tokenizer or tiny_tokenizer()).save_pretrained(path)
    return model


def read_all(path: Path) -> dict[str, NDArray[np.float32]]:
    """The values of a checkpoint's tensors by Hugging Face's names, in float32."""
    checkpoint = open_checkpoint(str(path))
    return {
        tensor.hf.name: checkpoint.weight(tensor).dequantize()
        if len(tensor.shape) == 2
        else checkpoint.floats(tensor)
        for tensor in tensors_of(checkpoint.config.tree)
    }


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    qtype: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[np.float32] | None] | None = None,
    types: Mapping[str, GGMLQuantizationType] | None = None,
    architecture: str = "llama",
) -> dict[str, NDArray[np.float32]]:
    """Write `model` as llama.cpp does; returns, by Hugging Face name and order, the values it holds.

    Matrices are of type `qtype`, vectors F32. What gguf cannot quantise to, as Q4_K, has random blocks
    in place of the model's. metadata and tensors (by llama.cpp's name) come on top; None
    leaves one out. types: of single matrices, by llama.cpp's name.
    """
    model.config.allow_global_per_layer_attribute_access = (
        True  # where layers of two kinds have sizes of their own
    )
    writer = GGUFWriter(path, architecture)
    described = model_metadata(model.config, architecture) | vocabulary_metadata(tokenizer)
    for key, value in (described | dict(metadata or {})).items():
        _add(writer, key, value)
    names = get_tensor_name_map(ARCHITECTURES[architecture], model.config.num_hidden_layers)

    held: dict[str, NDArray[np.float32]] = {}
    extra = rope_tensors(model.config, architecture) | dict(tensors or {})
    for name, values in converted(model):
        llama_cpp = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert llama_cpp is not None, name
        own = (types or {}).get(llama_cpp, qtype)
        kind = own if values.ndim > 1 and name.endswith("weight") else GGMLQuantizationType.F32
        stored: Any = _random_blocks(values.shape, kind, len(held)) if kind.name in SCALES_AT else None
        stored = quantize(values, kind) if stored is None else stored
        held[name] = dequantize(stored, kind).astype(np.float32)
        if less_one(name, architecture):
            stored = stored + np.float32(1)
        heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
        part = name.split(".")[-2]
        if part in heads and architecture in LLAMA_LIKE:
            stored = permuted(stored, heads[part])
        if llama_cpp not in extra:
            writer.add_tensor(llama_cpp, stored, raw_dtype=kind)
    for name, array in extra.items():
        if array is not None:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _random_blocks(shape: tuple[int, ...], kind: GGMLQuantizationType, seed: int) -> NDArray[np.uint8]:
    """Bytes that are valid blocks: anything is, as long as the float16 scales are finite."""
    values, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (shape[0], shape[1] // values, size), dtype=np.uint8)
    scales = SCALES_AT[kind.name]
    count = (scales.stop - scales.start) // 2
    drawn = random.uniform(0.0001, 0.01, (*blocks.shape[:2], count)).astype("<f2")
    blocks[..., scales] = drawn.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def vocabulary_metadata(tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any]:
    """The metadata of a tokenizer of bytes, as `tiny_tokenizer` makes them."""
    if tokenizer is None:
        return {}
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens) | set(factories.SPECIAL)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in special else NORMAL for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in _merges(tokenizer)],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def _merges(tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges]


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            pass
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
