"""SmolLM3 (Bakouch et al., 2025): Llama without a rope in every fourth layer."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def smollm3(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    rope, activation = c.rope(sizes.head_dim, theta=2e6), c.activation()
    turns = c.turning(sizes.layers, 4)
    windows = c.windows(sizes.layers, lambda layer: c.flag("use_sliding_window", False) and not turns[layer])
    attention_bias, mlp_bias = c.flag("attention_bias", False), c.flag("mlp_bias", False)

    def block(layer: Layer) -> Block:
        attention = layer.attention(
            rope if turns[layer.number] else None,
            window=windows[layer.number],
            qkv_bias=attention_bias,
            out_bias=attention_bias,
            paired=True,
        )
        feed_forward = layer.gated(activation, bias=mlp_bias)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(feed_forward, before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=True)


DEFAULTS = {"max_position_embeddings": 32768, "num_key_value_heads": 4, "use_sliding_window": False}
FAMILIES = (Family("SmolLM3", "SmolLM3ForCausalLM", "smollm3", smollm3, DEFAULTS, gguf="smollm3"),)
