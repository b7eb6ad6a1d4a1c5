"""Qwen3-Next (Qwen Team, 2025): gated attention and DeltaNets over mixtures with an expert for all rows."""

from __future__ import annotations

from outrider.models.families import qwen_hybrid, qwen_mixture
from outrider.models.families.build import Layer, Sizes
from outrider.models.families.delta_net import DeltaInputs
from outrider.models.families.family import Family
from outrider.models.families.qwen_mtp import mtp
from outrider.models.leaves import Linear
from outrider.models.parts import Decoder
from outrider.models.settings import Settings
from outrider.models.tensors import Place, parts
from outrider.ops.shapes import DeltaShape


def qwen3_next(c: Settings) -> Decoder:
    return qwen_hybrid.hybrid(c, inputs, _feed_forwards)


def _feed_forwards(c: Settings, sizes: Sizes) -> qwen_hybrid.FeedForward:
    return qwen_mixture.feed_forwards(c, sizes, normalised=True, shared=True)


def inputs(layer: Layer, shape: DeltaShape) -> DeltaInputs:
    """Stored for one head of keys after the other, with what belongs to it."""
    heads, hidden, each = shape.key_heads, layer.sizes.hidden, shape.value_heads // shape.key_heads
    rows = shape.key_dim, shape.key_dim, each * shape.value_dim, each * shape.value_dim
    in_hf = parts("linear_attn.in_proj_qkvz.weight", rows, hidden, times=heads)
    of_qkv = parts("attn_qkv.weight", tuple(heads * count for count in rows[:3]), hidden)
    in_gguf = (*of_qkv, Place("attn_gate.weight"))
    *qkv, gate = (
        layer.scope.tensor(one, other, (heads * count, hidden))
        for one, other, count in zip(in_hf, in_gguf, rows, strict=True)
    )
    write, forget = layer.turns("linear_attn.in_proj_ba", "ssm_ba", (each, each), hidden, times=heads)
    return DeltaInputs(Linear(tuple(qkv)), Linear((gate,)), write, forget)


FAMILIES = (
    Family(
        *("Qwen3-Next", "Qwen3NextForCausalLM", "qwen3_next", qwen3_next, qwen_hybrid.DEFAULTS, "qwen3next"),
        gguf_settings=qwen_hybrid.IN_GGUF | qwen_mixture.IN_GGUF,
        gguf_states=qwen_hybrid.LINEAR,
        mtp=mtp(_feed_forwards),
    ),
)
