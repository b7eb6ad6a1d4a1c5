"""GLM-4 (GLM Team, 2024): half of a head turns, in neighbouring pairs; the second of the two has norms on
both sides."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def glm(c: Settings) -> Decoder:
    return _decoder(c, after=False)


def glm4(c: Settings) -> Decoder:
    return _decoder(c, after=True)


def _decoder(c: Settings, *, after: bool) -> Decoder:
    sizes = Sizes.of(c)
    rope, activation = c.rope(sizes.head_dim, partial=0.5, interleaved=True), c.activation()
    windows, bias = c.windows(sizes.layers), c.flag("attention_bias", True)

    def block(layer: Layer) -> Block:
        attention = layer.attention(rope, window=windows[layer.number], qkv_bias=bias)
        return Block(
            Residual(
                attention,
                before=layer.norm("input_layernorm", "attn_norm"),
                after=layer.norm("post_self_attn_layernorm", "post_attention_norm") if after else None,
            ),
            Residual(
                layer.gated(activation, fused=True),
                before=layer.norm("post_attention_layernorm", "ffn_norm"),
                after=layer.norm("post_mlp_layernorm", "post_ffw_norm") if after else None,
            ),
        )

    return decoder(c, sizes, block, tied=False)


DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1.5625e-7,
    "max_position_embeddings": 131072,
}
FAMILIES = (
    Family("GLM-4 (0414)", "Glm4ForCausalLM", "glm4", glm4, DEFAULTS, "glm4"),
    Family("GLM-4", "GlmForCausalLM", "glm", glm, DEFAULTS),
)
