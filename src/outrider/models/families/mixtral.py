"""Mixtral (Jiang et al., 2024): Mistral with eight feed-forwards a layer, of which a token takes two."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.mixture import LIKE_MIXTRAL, Three, each, experts, routing
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def mixtral(c: Settings) -> Decoder:
    sizes, chosen = Sizes.of(c), routing(c)
    rope, activation = c.rope(sizes.head_dim, theta=1e6), c.activation()
    windows = c.windows(sizes.layers, lambda layer: True)

    def block(layer: Layer) -> Block:
        mixture = experts(layer, chosen, sizes.inner, activation, "block_sparse_moe.gate", WEIGHTS)
        attention = layer.attention(rope, window=windows[layer.number], paired=True)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(mixture, before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


WEIGHTS = Three(*(each(f"block_sparse_moe.experts.{{}}.{name}.weight") for name in ("w1", "w3", "w2")))
DEFAULTS = {
    "max_position_embeddings": 131072,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
FAMILIES = (
    Family(
        *("Mixtral", "MixtralForCausalLM", "mixtral", mixtral, DEFAULTS),
        gguf="llama",
        gguf_settings=LIKE_MIXTRAL,
        gguf_mark="expert_count",
    ),
)
