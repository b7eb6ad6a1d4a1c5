"""LFM2-MoE (Liquid AI, 2025): LFM2 with mixtures behind the first layers, whose experts have sigmoids for
weights, and a bias where they are chosen."""

from __future__ import annotations

from dataclasses import replace

from outrider.models.families import lfm2
from outrider.models.families.build import Layer, Sizes
from outrider.models.families.family import Family
from outrider.models.families.lfm2_layers import CONV
from outrider.models.families.mixture import Three, each, experts, routing
from outrider.models.parts import Decoder, Experts, Gated
from outrider.models.settings import Settings


def lfm2_moe(c: Settings) -> Decoder:
    sizes, activation, inner = Sizes.of(c), c.activation(), c.size("moe_intermediate_size")
    dense = c.size("num_dense_layers") if c.get("num_dense_layers") else 0
    bias = "feed_forward.expert_bias" if c.flag("use_expert_bias", True) else None
    if c.get("expert_gating_func") not in (None, SIGMOID):
        raise c.error("expert_gating_func", f"{SIGMOID}, the sigmoid")
    chosen = replace(
        routing(c, normalised=c.flag("norm_topk_prob", True)),
        scoring="sigmoid",
        factor=c.number("routed_scaling_factor", 1.0),
    )

    def feed_forward(layer: Layer) -> Gated | Experts:
        if layer.number < dense:
            return layer.gated(activation, hf=lfm2.MATRICES)
        return experts(layer, chosen, inner, activation, "feed_forward.gate", WEIGHTS, bias=bias)

    return lfm2.decoder_with(c, sizes, feed_forward)


WEIGHTS = Three(*(each(f"feed_forward.experts.{{}}.{name}.weight") for name in ("w1", "w3", "w2")))
SIGMOID = 2  # in GGUF files
DEFAULTS = lfm2.DEFAULTS | {"num_dense_layers": 2}
IN_GGUF = lfm2.IN_GGUF | {
    "expert_count": "num_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_gating_func": "expert_gating_func",
    "expert_used_count": "num_experts_per_tok",
    "leading_dense_block_count": "num_dense_layers",
}
FAMILIES = (
    Family(
        *("LFM2-MoE", "Lfm2MoeForCausalLM", "lfm2_moe", lfm2_moe, DEFAULTS, "lfm2moe", IN_GGUF),
        gguf_states=CONV,
    ),
)
