"""The feed-forwards of GLM-4.5: mixtures behind the first layers, with experts that all rows go to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from outrider.models.families.build import Layer, Sizes
from outrider.models.families.mixture import Three, each, experts, routing, stacked
from outrider.models.parts import Experts, Gated
from outrider.models.settings import Settings
from outrider.ops.shapes import Routing


def feed_forwards(c: Settings, sizes: Sizes) -> Callable[[Layer], Gated | Experts]:
    activation, inner = c.activation(), c.size("moe_intermediate_size")
    dense = c.size("first_k_dense_replace") if c.get("first_k_dense_replace") else 0
    chosen, of_shared = _routing(c), inner * c.size("n_shared_experts", 1)
    weights = Three(*(each(f"mlp.experts.{{}}.{name}_proj.weight") for name in Three._fields))
    pairs = "mlp.experts.gate_up_proj", chosen.count, 2 * inner, sizes.hidden
    down = stacked("mlp.experts.down_proj", chosen.count, sizes.hidden, inner)
    fused = Three(stacked(*pairs), stacked(*pairs, first=inner), down)
    names = tuple(f"mlp.shared_experts.{name}_proj" for name in Three._fields)

    def feed_forward(layer: Layer) -> Gated | Experts:
        if layer.number < dense:
            return layer.gated(activation)
        shared = layer.gated(activation, hf=names, gguf="ffn_{}_shexp", inner=of_shared)
        return experts(
            *(layer, chosen, inner, activation, "mlp.gate", weights),
            shared=shared,
            or_weights=fused,
            bias="mlp.gate.e_score_correction_bias",
        )

    return feed_forward


def _routing(c: Settings) -> Routing:
    for key in ("n_group", "topk_group"):
        c.always(key, 1)
    if c.get("expert_gating_func") not in (None, SIGMOID):
        raise c.error("expert_gating_func", f"{SIGMOID}, the sigmoid")
    chosen = routing(c, normalised=c.flag("norm_topk_prob", True))
    return replace(chosen, scoring="sigmoid", factor=c.number("routed_scaling_factor", 1.0))


SIGMOID = 2  # in GGUF files
IN_GGUF = {
    "expert_count": "n_routed_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_gating_func": "expert_gating_func",
    "expert_shared_count": "n_shared_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_weights_norm": "norm_topk_prob",
    "expert_weights_scale": "routed_scaling_factor",
    "leading_dense_block_count": "first_k_dense_replace",
    "nextn_predict_layers": "num_nextn_predict_layers",
}
