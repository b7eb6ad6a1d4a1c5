"""Granite 3 and 4 without experts and states (Granite Team, 2024, 2025): Llama with four multipliers."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Experts, Gated, Residual
from outrider.models.settings import Settings


def granite(c: Settings) -> Decoder:
    activation, bias = c.activation(), c.flag("mlp_bias", False)
    return decoder_with(c, Sizes.of(c), lambda layer: layer.gated(activation, bias=bias))


def decoder_with(c: Settings, sizes: Sizes, feed_forward: Callable[[Layer], Gated | Experts]) -> Decoder:
    scaled, turns = c.rope(sizes.head_dim), c.flag("rope_finetuned", True)  # as llama.cpp says it
    rope = scaled if turns else None
    windows, bias = c.windows(sizes.layers), c.flag("attention_bias", False)
    score_scale, scale = c.optional_number("attention_multiplier"), c.number("residual_multiplier", 1.0)

    def block(layer: Layer) -> Block:
        window = windows[layer.number]
        attention = layer.attention(
            rope, window=window, scale=score_scale, qkv_bias=bias, out_bias=bias, paired=True
        )
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm"), scale=scale),
            Residual(
                feed_forward(layer),
                before=layer.norm("post_attention_layernorm", "ffn_norm"),
                scale=scale,
            ),
        )

    return decoder(
        c,
        sizes,
        block,
        tied=False,
        scale=c.number("embedding_multiplier", 1.0),
        logit_scale=1 / c.number("logits_scaling", 1.0),
    )


IN_GGUF = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "logit_scale": "logits_scaling",
    "residual_scale": "residual_multiplier",
    "rope.scaling.finetuned": "rope_finetuned",
}
UNSCALED = {"attention_multiplier": 1.0}
FAMILIES = (Family("Granite 3, 4", "GraniteForCausalLM", "granite", granite, UNSCALED, "granite", IN_GGUF),)
