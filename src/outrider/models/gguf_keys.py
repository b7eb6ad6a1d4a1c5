"""The keys of a GGUF file's metadata that make the model what it is.

Nothing that would change an answer is passed over: a key of the architecture that is not applied has to
have the value with which it does nothing. llama.cpp passes over some of them, whatever their writer meant.
"""

from __future__ import annotations

import math
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.gguf_metadata import Metadata

ARCHITECTURE = "llama"
QUANTIZATION_VERSION = 2  # of the layout of blocks
APPLIED = frozenset(
    (
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scale_linear",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
        "vocab_size",
    )
)
HARMLESS = frozenset(("attention.layer_norm_epsilon", "rope.scaling.finetuned"))
"""Keys of which no value would change an answer: RMS norm has an epsilon of its own."""
NEUTRAL: dict[str, Any] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0,
    "attention.max_alibi_bias": 0,
    "attention.sliding_window": 0,
    "attn_logit_softcapping": 0,
    "embedding_scale": 1,
    "expert_count": 0,
    "expert_feed_forward_length": 0,
    "expert_group_count": 0,
    "expert_group_used_count": 0,
    "expert_shared_count": 0,
    "expert_used_count": 0,
    "final_logit_softcapping": 0,
    "leading_dense_block_count": 0,
    "logit_scale": 1,
    "nextn_predict_layers": 0,
    "pooling_type": 0,
    "residual_scale": 1,
    "rope.scaling.attn_factor": 1,
    "rope.scaling.yarn_attn_factor": 1,
    "rope.scaling.yarn_beta_fast": 32,
    "rope.scaling.yarn_beta_slow": 1,
    "rope.scaling.yarn_ext_factor": 1,
    "tensor_data_layout": "Meta AI original pth",
    "use_parallel_residual": False,
}
"""Keys that are not applied, and the only value with which they would change nothing."""


def check_whole(metadata: Metadata) -> None:
    """The file is a model, all of it, of an architecture that is supported."""
    parts = metadata.integer("split.count", 1)
    if parts > 1:
        number = metadata.integer("split.no", 0) + 1
        raise ModelError(
            f"{metadata.source} is part {number} of {parts} of a model; merge them first: "
            "llama-gguf-split --merge FIRST_PART MERGED"
        )
    architecture = metadata.values.get("general.architecture")
    kind = metadata.values.get("general.type", "model")
    if kind != "model":
        raise metadata.wrong("general.type", "the file is not a model by itself")
    if architecture != ARCHITECTURE:
        raise ModelError(
            f"{metadata.source}: architecture {shown(architecture)} is not supported; supported in GGUF is "
            f"{ARCHITECTURE!r}"
        )
    experts = metadata.values.get("llama.expert_count", 0)
    if experts != 0:
        raise metadata.wrong("llama.expert_count", "mixtures of experts are not supported")
    if metadata.integer("general.quantization_version", QUANTIZATION_VERSION) != QUANTIZATION_VERSION:
        raise metadata.wrong("general.quantization_version", f"it has to be {QUANTIZATION_VERSION}")


def check_keys(metadata: Metadata, head_dim: int) -> None:
    """Refuse what the forward pass would have to follow and does not."""
    neutral = NEUTRAL | {"attention.scale": 1 / math.sqrt(head_dim)}
    for key in metadata:
        name = key.removeprefix(f"{ARCHITECTURE}.")
        if name == key or name in APPLIED or name in HARMLESS:
            continue
        if name not in neutral:
            raise metadata.wrong(key, "this setting is not known; a model that needs it is not supported")
        if not _is(metadata.values[key], neutral[name]):
            raise metadata.wrong(key, f"it is not supported; it has to be {neutral[name]!r}")
    for name in ("attention.value_length", "rope.dimension_count"):
        value = key_of(metadata, name, head_dim)
        if value != head_dim:
            raise ModelError(
                f"{metadata.source}: {name} = {value} of head_dim = {head_dim}; only equal numbers are "
                "supported"
            )


def _is(value: Any, neutral: Any) -> bool:
    """Equal, up to the rounding of float32; no number is a flag or a text."""
    if isinstance(neutral, bool | str) or isinstance(value, bool | str):
        return type(value) is type(neutral) and bool(value == neutral)
    return isinstance(value, int | float) and math.isclose(value, neutral, rel_tol=1e-6)


def key_of(metadata: Metadata, name: str, default: int | None = None) -> int:
    """A size, by its name below the architecture's. Raises ModelError, as `Metadata.integer`."""
    return metadata.integer(f"{ARCHITECTURE}.{name}", default)
