"""Phi-3 and Phi-4 (Abdin et al., 2024): Llama with fused matrices, and a rope for long texts."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def phi3(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    rope, activation = c.rope(sizes.head_dim, partial=1.0), c.activation()
    windows = c.windows(sizes.layers, lambda layer: True)

    def block(layer: Layer) -> Block:
        attention = layer.attention(rope, window=windows[layer.number], fused=True)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(
                layer.gated(activation, fused=True), before=layer.norm("post_attention_layernorm", "ffn_norm")
            ),
        )

    return decoder(c, sizes, block, tied=False)


DEFAULTS = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096}
IN_GGUF = {"attention.sliding_window": "sliding_window"}
FAMILIES = (Family("Phi-3, Phi-4", "Phi3ForCausalLM", "phi3", phi3, DEFAULTS, "phi3", IN_GGUF),)
