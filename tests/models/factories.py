"""Tiny random checkpoints, in Hugging Face's layout and in llama.cpp's, with every weight random."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from outrider.ops.base import Backend
from outrider.ops.cpu.backend import Formats, NativeBackend
from outrider.ops.torch import TorchBackend
from outrider.quantization.quantize import convert
from outrider.quantization.weight import Weight
from tests import factories
from tests.factories import tiny_tokenizer

__all__ = ["exact_backend", "permuted", "tiny_config", "tiny_tokenizer", "write_gguf", "write_hf"]

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SCALES_AT = {
    "Q2_K": slice(80, 84),
    "Q3_K": slice(108, 110),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
}  # bytes of a block: f16
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type


def exact_backend(name: str) -> Backend:
    """PyTorch, or the native kernels on float32 weights."""
    if name == "torch":
        return TorchBackend(torch.device("cpu"), torch.float32)

    def exact(weight: Weight) -> Weight:
        return convert(weight, "float32")

    return NativeBackend(Formats(exact, exact), cache_dtype=torch.float32, num_threads=2)


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
) -> Any:
    """Save a random model and its tokenizer, in about `shards` files; returns the transformers model.

    Norms and biases are random too: transformers starts them at one and zero, which hides mistakes.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config or tiny_config(), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(path, max_shard_size=size // shards + 1)
    (tokenizer or tiny_tokenizer()).save_pretrained(path)
    return model


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    qtype: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[np.float32] | None] | None = None,
    types: Mapping[str, GGMLQuantizationType] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Write `model` as llama.cpp does; returns, by Hugging Face name and order, the values it holds.

    Matrices are of type `qtype`, vectors F32. gguf cannot quantise to Q4_K, Q5_K and Q6_K: there the matrices
    are random blocks instead of the model's. metadata and tensors (by llama.cpp's name) come on top; None
    leaves one out. types: of single matrices, by llama.cpp's name.
    """
    writer = GGUFWriter(path, "llama")
    for key, value in (_metadata(model.config, tokenizer) | dict(metadata or {})).items():
        _add(writer, key, value)

    held: dict[str, NDArray[np.float32]] = {}
    extra = dict(tensors or {})
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = parameter.float().numpy()
        own = (types or {}).get(gguf_name(name), qtype)
        kind = own if values.ndim == 2 else GGMLQuantizationType.F32
        stored = _random_blocks(values.shape, kind, len(held)) if kind.name in SCALES_AT else None
        stored = quantize(values, kind) if stored is None else stored
        held[name] = dequantize(stored, kind).astype(np.float32)
        heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
        part = name.split(".")[-2]
        if part in heads:
            stored = permuted(stored, heads[part])
        if gguf_name(name) not in extra:
            writer.add_tensor(gguf_name(name), stored, raw_dtype=kind)
    for name, array in extra.items():
        if array is not None:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    stem, kind = name.rsplit(".", 1)
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{kind}"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"


def permuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The order of Q and K rows in GGUF, as in llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


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


def _metadata(config: Any, tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any]:
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    metadata = {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": head_dim,
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "llama.vocab_size": config.vocab_size,
    }
    if tokenizer is None:
        return metadata
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens) | set(factories.SPECIAL)
    return metadata | {
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
