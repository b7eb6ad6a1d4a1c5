"""GLM-4.5 to 4.7 (GLM Team, 2025): half of a head turns, and behind the first layers there are mixtures,
whose experts have sigmoids for weights, a bias where they are chosen, and one beside them for all rows."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.mixture import MOST, Three, each, experts, stacked
from outrider.models.mtp_parts import MtpParts, deepseeks, mtp_parts
from outrider.models.parts import Block, Decoder, Experts, Gated, Residual
from outrider.models.settings import Settings
from outrider.ops.shapes import Routing


def glm4_moe(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    return decoder(c, sizes, _blocks(c, sizes), tied=False)


def mtp(c: Settings) -> MtpParts | None:
    sizes = Sizes.of(c)
    if not c.get("num_nextn_predict_layers"):
        return None
    c.size("num_nextn_predict_layers")  # of which the first is read
    return mtp_parts(sizes, deepseeks(sizes.layers), _blocks(c, sizes))


def _blocks(c: Settings, sizes: Sizes) -> Callable[[Layer], Block]:
    rope, bias = c.rope(sizes.head_dim, partial=0.5), c.flag("attention_bias", False)
    norms, feed_forward = c.flag("use_qk_norm", False), _feed_forwards(c, sizes)

    def block(layer: Layer) -> Block:
        attention = layer.attention(rope, qkv_bias=bias, norms="head" if norms else None)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(
                feed_forward(layer), before=layer.norm("post_attention_layernorm", "post_attention_norm")
            ),
        )

    return block


def _feed_forwards(c: Settings, sizes: Sizes) -> Callable[[Layer], Gated | Experts]:
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
    count, chosen = c.size_of("n_routed_experts", "num_local_experts"), c.size("num_experts_per_tok")
    layers = c.size("num_hidden_layers")
    if count * layers > MOST:
        raise c.error("n_routed_experts", f"at most {MOST // layers} in each of {layers} layers")
    if chosen > count:
        raise c.error("num_experts_per_tok", f"at most the number of experts, {count}")
    for key in ("n_group", "topk_group"):
        c.always(key, 1)
    if c.get("expert_gating_func") not in (None, SIGMOID):
        raise c.error("expert_gating_func", f"{SIGMOID}, the sigmoid")
    return Routing(
        count,
        chosen,
        normalised=c.flag("norm_topk_prob", True),
        scoring="sigmoid",
        factor=c.number("routed_scaling_factor", 1.0),
    )


SIGMOID = 2  # in GGUF files
DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
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
FAMILIES = (
    Family(
        *("GLM-4.5, 4.6, 4.7", "Glm4MoeForCausalLM", "glm4_moe", glm4_moe, DEFAULTS, "glm4moe", IN_GGUF),
        gguf_flags={"use_qk_norm": "blk.0.attn_q_norm.weight"},
        mtp=mtp,
    ),
)
