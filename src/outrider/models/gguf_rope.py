"""The settings of a GGUF file's rotary embedding by the names of config.json."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from outrider.errors import ModelError
from outrider.models.gguf_metadata import Metadata
from outrider.models.stored import StoredTensor

ROPE_FREQS = "rope_freqs.weight"
ROPE_FACTORS = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
YARN = {
    "rope.scaling.yarn_attn_factor": "attention_factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.yarn_log_multiplier": "mscale_all_dim",
    "attention.temperature_scale": "llama_4_scaling_beta",
}
"""Keys of YaRN's settings, and what each is called in config.json."""
Tensors = Mapping[str, StoredTensor]


def rope_tensors(tensors: Tensors) -> Collection[str]:
    """The names of the tensors that `rope_settings` reads of a file's."""
    return (ROPE_FREQS,) if ROPE_FREQS in tensors else tuple(ROPE_FACTORS.values())


def rope_settings(metadata: Metadata, gguf: str, tensors: Tensors, head_dim: int) -> dict[str, Any]:
    """gguf: the architecture, which keys begin with. Raises ModelError, as `Metadata` does."""
    turning = metadata.integer(f"{gguf}.rope.dimension_count", head_dim)
    if turning > head_dim:
        raise metadata.wrong(f"{gguf}.rope.dimension_count", f"heads have {head_dim} dimensions")
    return {
        "rope_theta": _theta(metadata, gguf),
        "rope_scaling": _scaling(metadata, gguf, tensors, turning // 2),
        "partial_rotary_factor": turning / head_dim,
    }


def _theta(metadata: Metadata, gguf: str) -> float:
    key = f"{gguf}.rope.freq_base"
    theta = metadata.positive(key, 10000.0)
    if theta <= 1:
        raise metadata.wrong(key, "it has to be greater than 1")
    return theta


def _scaling(metadata: Metadata, gguf: str, tensors: Tensors, pairs: int) -> dict[str, Any] | None:
    """As llama.cpp reads it: a factor without a type is linear, and has an older name; scaling that differs
    by frequency comes in tensors."""
    rope = f"{gguf}.rope.scaling"
    if ROPE_FREQS in tensors:
        return {"rope_type": "divisors", "divisors": _divisors(metadata, tensors, ROPE_FREQS, pairs)}
    if any(name in tensors for name in ROPE_FACTORS.values()):
        if metadata.text(f"{rope}.type", "longrope") != "longrope":
            raise metadata.wrong(f"{rope}.type", "the file has the divisors of 'longrope'")
        return {
            "rope_type": "longrope",
            "original_max_position_embeddings": _original(metadata, gguf),
            "attention_factor": metadata.positive(f"{rope}.attn_factor", 1.0),
            **{name: _divisors(metadata, tensors, tensor, pairs) for name, tensor in ROPE_FACTORS.items()},
        }
    factor, older = metadata.get(f"{rope}.factor"), metadata.get(f"{gguf}.rope.scale_linear")
    key = f"{gguf}.rope.scale_linear" if factor is None and older is not None else f"{rope}.factor"
    kind = metadata.text(f"{rope}.type", "linear" if key in metadata else "none")
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": kind, "factor": metadata.positive(key)}
    if kind == "yarn":
        return {"rope_type": kind, "factor": metadata.positive(key)} | _yarn(metadata, gguf)
    raise metadata.wrong(f"{rope}.type", "supported are 'none', 'linear' and 'yarn'")


def _yarn(metadata: Metadata, gguf: str) -> dict[str, Any]:
    found = {hf: metadata.get(f"{gguf}.{name}") or None for name, hf in YARN.items()}
    mscale = None if found["mscale_all_dim"] is None else 1.0  # as llama.cpp takes it to be
    return {**found, "mscale": mscale, "original_max_position_embeddings": _original(metadata, gguf)}


def _original(metadata: Metadata, gguf: str) -> int:
    """Positions that the model was first trained with."""
    key = f"{gguf}.rope.scaling.original_context_length"
    length = metadata.integer(key, metadata.integer(f"{gguf}.context_length"))
    if not length:
        raise metadata.wrong(key, "it has to be at least 1")
    return length


def _divisors(metadata: Metadata, tensors: Tensors, name: str, pairs: int) -> list[float]:
    """One for each frequency."""
    if name not in tensors:
        raise ModelError(f"{metadata.source}: tensor {name!r} is missing")
    values: list[float] = tensors[name].floats().reshape(-1).tolist()
    if len(values) != pairs:
        raise ModelError(
            f"{metadata.source}: tensor {name!r} has {len(values)} values; {pairs} pairs of dimensions turn"
        )
    if not all(2**-126 < value < math.inf for value in values):
        raise ModelError(
            f"{metadata.source}: tensor {name!r} holds numbers that are not finite and greater than 0, or "
            "are too small"
        )
    return values
