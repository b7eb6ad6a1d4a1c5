"""Qwen3.5 and 3.6, of text (Qwen Team, 2026): Qwen3-Next with feed-forwards of its own, or its mixtures."""

from __future__ import annotations

from outrider.models.families import qwen_hybrid, qwen_mixture
from outrider.models.families.build import Layer, Sizes
from outrider.models.families.delta_net import DeltaInputs
from outrider.models.families.family import Family
from outrider.models.families.qwen_mtp import mtp
from outrider.models.parts import Decoder
from outrider.models.settings import Settings
from outrider.ops.shapes import DeltaShape


def qwen3_5(c: Settings) -> Decoder:
    return qwen_hybrid.hybrid(c, inputs, _dense)


def qwen3_5_moe(c: Settings) -> Decoder:
    return qwen_hybrid.hybrid(c, inputs, _mixtures)


def _dense(c: Settings, sizes: Sizes) -> qwen_hybrid.FeedForward:
    activation = c.activation()
    return lambda layer: layer.gated(activation)


def _mixtures(c: Settings, sizes: Sizes) -> qwen_hybrid.FeedForward:
    return qwen_mixture.feed_forwards(c, sizes, normalised=True, shared=True)


def inputs(layer: Layer, shape: DeltaShape) -> DeltaInputs:
    hidden, heads = layer.sizes.hidden, shape.value_heads
    keys, values = shape.key_heads * shape.key_dim, heads * shape.value_dim
    return DeltaInputs(
        layer.linear("linear_attn.in_proj_qkv", "attn_qkv", 2 * keys + values, hidden),
        layer.linear("linear_attn.in_proj_z", "attn_gate", values, hidden),
        layer.linear("linear_attn.in_proj_b", "ssm_beta", heads, hidden),
        layer.linear("linear_attn.in_proj_a", "ssm_alpha", heads, hidden),
    )


DEFAULTS = qwen_hybrid.DEFAULTS | {"num_key_value_heads": 4}
OF_MIXTURE = qwen_hybrid.DEFAULTS | {"intermediate_size": 512}  # which no layer has
IN_TURNS = {"linear_heads_in_turns": True}  # as llama.cpp's converter writes them
FAMILIES = (
    Family(
        *("Qwen3.5, Qwen3.6", "Qwen3_5ForCausalLM", "qwen3_5_text", qwen3_5, DEFAULTS, "qwen35"),
        gguf_settings=qwen_hybrid.IN_GGUF,
        gguf_fixed=IN_TURNS,
        gguf_states=qwen_hybrid.LINEAR,
        mtp=mtp(_dense),
    ),
    Family(
        *("Qwen3.5-MoE, Qwen3.6-MoE", "Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", qwen3_5_moe),
        *(OF_MIXTURE, "qwen35moe", qwen_hybrid.IN_GGUF | qwen_mixture.IN_GGUF, IN_TURNS),
        gguf_states=qwen_hybrid.LINEAR,
        mtp=mtp(_mixtures),
    ),
)
