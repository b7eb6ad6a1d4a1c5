"""Llama 2 and 3 (Touvron et al., 2023; Grattafiori et al., 2024), and models of the same build: SmolLM2,
TinyLlama."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def llama(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    rope, activation, windows = c.rope(sizes.head_dim), c.activation(), c.windows(sizes.layers)
    attention_bias, mlp_bias = c.flag("attention_bias", False), c.flag("mlp_bias", False)

    def block(layer: Layer) -> Block:
        attention = layer.attention(
            rope, window=windows[layer.number], qkv_bias=attention_bias, out_bias=attention_bias, paired=True
        )
        feed_forward = layer.gated(activation, bias=mlp_bias)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(feed_forward, before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


FAMILIES = (Family("Llama 2 and 3, SmolLM2, TinyLlama", "LlamaForCausalLM", "llama", llama, gguf="llama"),)
