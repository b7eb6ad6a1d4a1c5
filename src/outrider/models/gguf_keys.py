"""The keys of a GGUF file's metadata that make the model what it is.

Nothing that would change an answer is passed over: a key of the architecture that is not applied has to
have the value with which it does nothing. llama.cpp passes over some of them, whatever their writer meant.
"""

from __future__ import annotations

import math
from typing import Any

from outrider.models.families.family import Family
from outrider.models.gguf_metadata import Metadata
from outrider.models.key_tables import is_off

QUANTIZATION_VERSION = 2  # of the layout of blocks
HARMLESS = frozenset(
    (
        "attention.layer_norm_epsilon",
        "expert_shared_feed_forward_length",
        "pooling_type",
        "rope.dimension_sections",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "ssm.conv_kernel",
        "ssm.group_count",
        "ssm.inner_size",
        "ssm.state_size",
        "ssm.time_step_rank",
    )
)
"""Keys of which no value would change an answer where they are not read: RMS norm has an epsilon of its own,
what sizes describe comes with tensors, which are refused where there is no use for them, and a text's
positions are the same in all sections of a rope. How embeddings are made changes no text."""
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
    "residual_scale": 1,
    "rope.scale_linear": 1,
    "rope.scaling.attn_factor": 1,
    "rope.scaling.factor": 1,
    "rope.scaling.type": "none",
    "rope.scaling.yarn_attn_factor": 1,
    "rope.scaling.yarn_beta_fast": 32,
    "rope.scaling.yarn_beta_slow": 1,
    "rope.scaling.yarn_ext_factor": 1,
    "tensor_data_layout": "Meta AI original pth",
    "use_parallel_residual": False,
}
"""Keys that not every family applies, and the only value with which they would change nothing."""


def check_whole(metadata: Metadata) -> None:
    """The file is a model, and its blocks are of the layout that is known."""
    kind = metadata.values.get("general.type", "model")
    if kind != "model":
        raise metadata.wrong("general.type", "the file is not a model by itself")
    if metadata.integer("general.quantization_version", QUANTIZATION_VERSION) != QUANTIZATION_VERSION:
        raise metadata.wrong("general.quantization_version", f"it has to be {QUANTIZATION_VERSION}")


def check_keys(metadata: Metadata, family: Family, head_dim: int) -> None:
    """Refuse what the forward pass would have to follow and does not: what was not read by now."""
    neutral = NEUTRAL | {"attention.scale": 1 / math.sqrt(head_dim)}
    for key in metadata:
        name = key.removeprefix(f"{family.gguf}.")
        if name == key or key in metadata.read or name in HARMLESS:
            continue
        if name not in neutral:
            if is_off(metadata.values[key]):
                continue
            raise metadata.wrong(key, "this setting is not known, and may change what the model computes")
        if not _is(metadata.values[key], neutral[name]):
            raise metadata.wrong(key, f"it is not supported; it has to be {neutral[name]!r}")


def _is(value: Any, neutral: Any) -> bool:
    """Equal, up to the rounding of float32; no number is a flag or a text."""
    if isinstance(neutral, bool | str) or isinstance(value, bool | str):
        return type(value) is type(neutral) and bool(value == neutral)
    return isinstance(value, int | float) and math.isclose(value, neutral, rel_tol=1e-6)
