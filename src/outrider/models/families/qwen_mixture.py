"""The feed-forwards of Qwen's mixtures: of Qwen2-MoE, Qwen3-MoE, Qwen3-Next and Qwen3.5-MoE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from outrider.models.families.build import Layer, Sizes
from outrider.models.families.mixture import Three, each, experts, routing, stacked
from outrider.models.parts import Experts, Gated
from outrider.models.settings import Settings


def feed_forwards(
    c: Settings, sizes: Sizes, *, normalised: bool, shared: bool
) -> Callable[[Layer], Gated | Experts]:
    """Makes that of each layer: a mixture in some or in all, and else one as wide as the settings say.

    normalised: whether the weights of a row's experts sum to 1, where the settings do not say it. shared: all
    rows go to one more expert, which has a share by a score of its own.
    """
    chosen, activation = routing(c, normalised=c.flag("norm_topk_prob", normalised)), c.activation()
    inner, step = c.size("moe_intermediate_size"), c.size("decoder_sparse_step", 1)
    dense = c.some_layers("mlp_only_layers", sizes.layers)
    of_shared = c.size("shared_expert_intermediate_size", sizes.inner) if shared else 0
    weights = Three(*(each(f"mlp.experts.{{}}.{name}_proj.weight") for name in Three._fields))
    pairs = "mlp.experts.gate_up_proj", chosen.count, 2 * inner, sizes.hidden
    down = stacked("mlp.experts.down_proj", chosen.count, sizes.hidden, inner)
    fused = Three(stacked(*pairs), stacked(*pairs, first=inner), down)

    def shared_expert(layer: Layer) -> Gated:
        score = layer.linear("mlp.shared_expert_gate", "ffn_gate_inp_shexp", 1, sizes.hidden)
        names = tuple(f"mlp.shared_expert.{name}_proj" for name in Three._fields)
        gated = layer.gated(activation, hf=names, gguf="ffn_{}_shexp", inner=of_shared)
        return replace(gated, share=replace(score, float32=True))

    def feed_forward(layer: Layer) -> Gated | Experts:
        if layer.number in dense or (layer.number + 1) % step:
            return layer.gated(activation)
        own = shared_expert(layer) if shared else None
        return experts(layer, chosen, inner, activation, "mlp.gate", weights, shared=own, or_weights=fused)

    return feed_forward


IN_GGUF = {
    "expert_count": "num_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_used_count": "num_experts_per_tok",
}
