"""Mistral (Jiang et al., 2023), Ministral and Ministral 3: Llama with windows, and with scores that grow."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings

GROWTH = ("llama_4_scaling_beta", "max_position_embeddings")
"""What Ministral 3 has among the settings of its rope; the second of them says nothing."""


def mistral(c: Settings) -> Decoder:
    """All layers have the window, if there is one and `layer_types` does not say otherwise."""
    sizes = Sizes.of(c)
    rope, activation = c.rope(sizes.head_dim, others=GROWTH), c.activation()
    windows = c.windows(sizes.layers, lambda layer: True)
    parameters = c.rope_parameters(others=GROWTH)
    temperature = c.temperature(
        parameters.get("llama_4_scaling_beta"), parameters.get("original_max_position_embeddings")
    )

    def block(layer: Layer) -> Block:
        attention = layer.attention(rope, window=windows[layer.number], temperature=temperature, paired=True)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(layer.gated(activation), before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


WINDOW = {"sliding_window": 4096}
MINISTRAL_3 = {"head_dim": 128, "rms_norm_eps": 1e-5, "num_key_value_heads": 8}

FAMILIES = (
    Family("Mistral", "MistralForCausalLM", "mistral", mistral, WINDOW, gguf="llama"),
    Family("Ministral", "MinistralForCausalLM", "ministral", mistral, WINDOW),
    Family("Ministral 3", "Ministral3ForCausalLM", "ministral3", mistral, MINISTRAL_3, gguf="mistral3"),
)
