"""A model's tensors as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.models.gguf_metadata import LLAMA_LIKE

Values = NDArray[np.float32]
Named = tuple[str, Values]
LESS_ONE = ("gemma2", "gemma3", "qwen3next", "qwen35", "qwen35moe")
"""Architectures whose norms are stored less 1 by transformers."""


def less_one(name: str, architecture: str) -> bool:
    """Whether llama.cpp has a tensor plus 1. name: Hugging Face's."""
    return (
        architecture in LESS_ONE
        and name.endswith("norm.weight")
        and not name.endswith("linear_attn.norm.weight")
    )


def converted(model: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors that llama.cpp's converter makes of a model's: those of experts as stacks [experts, out,
    in] of each matrix, which transformers has fused."""
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = parameter.float().numpy()
        begins, found, fused = name.partition(".experts.")
        if not found:
            yield from _not_of_experts(name, values, model.config)
            continue
        interleaved = model.config.model_type == "gpt_oss"
        kind = "bias" if fused.endswith("_bias") else "weight"
        if interleaved and kind == "weight":
            values = values.swapaxes(1, 2)
        parts = {"down_proj": values}
        if fused.startswith("gate_up"):
            gate, up = np.split(values, 2, axis=1)
            if interleaved:
                gate, up = values[:, ::2], values[:, 1::2]
            parts = {"gate_proj": gate, "up_proj": up}
        for part, own in parts.items():
            yield (
                f"{begins.replace('block_sparse_moe', 'mlp')}.experts.{part}.{kind}",
                np.ascontiguousarray(own),
            )


def _not_of_experts(name: str, values: Values, config: Any) -> Iterator[Named]:
    layer, _, own = name.rpartition(".linear_attn.")
    if layer:
        yield from _of_delta_net(f"{layer}.linear_attn.", own, values, config)
    elif name.endswith("shared_mlp.input_linear.weight"):
        begins = name.replace("shared_mlp.input_linear.weight", "mlp.shared_expert.")
        for half, part in zip(np.split(values, 2), ("gate_proj", "up_proj"), strict=True):
            yield f"{begins}{part}.weight", half
    elif "conv.conv" in name:
        yield name, values.squeeze(1) if values.ndim > 1 else values
    elif name.endswith(".e_score_correction_bias"):
        yield name.replace("correction_bias", "correction.bias"), values
    elif name.endswith(".layer_scalar"):
        yield f"{name}.weight", values
    elif name.endswith(".expert_bias"):
        yield f"{name}.bias", values
    else:
        stem = name.replace("block_sparse_moe.router.", "block_sparse_moe.router.layer.")
        stem = stem.replace("shared_mlp.output_linear", "mlp.shared_expert.down_proj")
        yield f"{stem}.weight" if stem.endswith("sinks") else stem, values


def _of_delta_net(layer: str, name: str, values: Values, config: Any) -> Iterator[Named]:
    """Heads of values take turns in files of Qwen3.5: the first of each head of keys, then the second."""
    keys, heads = config.linear_num_key_heads, config.linear_num_value_heads
    key_dim, dim = config.linear_key_head_dim, config.linear_value_head_dim
    turned = not config.model_type.startswith("qwen3_next")

    def heads_of_values(rows: Values, size: int) -> Values:
        grouped = rows.reshape(keys, heads // keys, size, *rows.shape[1:])
        return grouped.swapaxes(0, 1).reshape(rows.shape) if turned else rows

    def behind_keys(rows: Values) -> Values:
        first = 2 * keys * key_dim
        return np.concatenate([rows[:first], heads_of_values(rows[first:], dim)])

    if name == "A_log":
        yield f"{layer}A_log", -np.exp(heads_of_values(values, 1))
    elif name == "dt_bias":
        yield f"{layer}dt_proj.bias", heads_of_values(values, 1)
    elif name == "conv1d.weight":
        yield layer + name, behind_keys(values.squeeze(1))
    elif name == "in_proj_qkvz.weight":
        sizes = (key_dim, key_dim, dim * heads // keys, dim * heads // keys)
        parts = np.split(values.reshape(keys, -1, values.shape[1]), np.cumsum(sizes)[:-1], axis=1)
        q, k, v, z = (part.reshape(-1, values.shape[1]) for part in parts)
        yield f"{layer}in_proj_qkv.weight", np.concatenate([q, k, v])
        yield f"{layer}in_proj_z.weight", z
    elif name == "in_proj_qkv.weight":
        yield layer + name, behind_keys(values)
    elif name == "in_proj_z.weight":
        yield layer + name, heads_of_values(values, dim)
    elif name in ("in_proj_a.weight", "in_proj_b.weight"):
        yield layer + name, heads_of_values(values, 1)
    elif name == "out_proj.weight":
        yield layer + name, np.ascontiguousarray(heads_of_values(values.T, dim).T)
    else:
        yield layer + name, values


def rope_tensors(config: Any, architecture: str) -> dict[str, NDArray[np.float32]]:
    """What llama.cpp's converter writes of scaling that differs by frequency."""
    rope = config.rope_parameters
    if architecture == "gemma4":
        wide = rope["full_attention"]
        dims = config.per_layer_config[config.layer_types.index("full_attention")].head_dim
        turning = int(dims * wide["partial_rotary_factor"] / 2)
        return {"rope_freqs.weight": np.repeat([1, 1e30], [turning, dims // 2 - turning]).astype(np.float32)}
    if rope.get("rope_type") == "llama3" and architecture in LLAMA_LIKE:
        head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        plain = 1 / rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        return {"rope_freqs.weight": (plain / scaled.numpy()).astype(np.float32)}
    if rope.get("rope_type") == "longrope" and architecture == "phi3":
        return {
            f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], np.float32)
            for length in ("long", "short")
        }
    return {}


def permuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The order of Q and K rows in GGUF, as in llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))
