"""Qwen3-MoE (Yang et al., 2025): Qwen3 whose feed-forwards are mixtures, in some layers or in all."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.mixture import Three, each, experts, routing
from outrider.models.parts import Block, Decoder, Experts, Gated, Residual
from outrider.models.settings import Settings


def qwen3_moe(c: Settings) -> Decoder:
    sizes, chosen = Sizes.of(c), routing(c, normalised=c.flag("norm_topk_prob", False))
    inner, step = c.size("moe_intermediate_size"), c.size("decoder_sparse_step", 1)
    dense = c.some_layers("mlp_only_layers", sizes.layers)
    rope, activation, bias = c.rope(sizes.head_dim), c.activation(), c.flag("attention_bias", False)
    c.always("use_qk_norm", True)
    windows = c.windows(sizes.layers, lambda layer: c.flag("use_sliding_window", False))

    def feed_forward(layer: Layer) -> Experts | Gated:
        if layer.number in dense or (layer.number + 1) % step:
            return layer.gated(activation)
        return experts(layer, chosen, inner, activation, "mlp.gate", WEIGHTS)

    def block(layer: Layer) -> Block:
        window = windows[layer.number]
        attention = layer.attention(rope, window=window, qkv_bias=bias, out_bias=bias, norms="head")
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(feed_forward(layer), before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


WEIGHTS = Three(*(each(f"mlp.experts.{{}}.{name}_proj.weight") for name in Three._fields))
IN_GGUF = {
    "expert_count": "num_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_used_count": "num_experts_per_tok",
}
NORMALISED = {"norm_topk_prob": True}  # as llama.cpp takes it to be
DEFAULTS = {"use_sliding_window": False}
FAMILIES = (
    Family(
        "Qwen3-MoE", "Qwen3MoeForCausalLM", "qwen3_moe", qwen3_moe, DEFAULTS, "qwen3moe", IN_GGUF, NORMALISED
    ),
)
