"""Gemma 2 (Gemma Team, 2024): norms on both sides, windows in half the layers, capped scores and logits."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Attention, Block, Decoder, Residual
from outrider.models.settings import Settings


def gemma2(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    rope, windows = c.rope(sizes.head_dim), c.windows(sizes.layers, lambda layer: layer % 2 == 0)
    scale, cap = score_scale(c, sizes, 46), c.optional_number("attn_logit_softcapping")

    def attention(layer: Layer) -> Attention:
        window = windows[layer.number]
        return layer.attention(rope, window=window, scale=scale, soft_cap=cap)

    return gemma(c, sizes, attention)


def gemma(c: Settings, sizes: Sizes, attention: Callable[[Layer], Attention]) -> Decoder:
    """The embedding's scale is not rounded to the type of the weights: as in llama.cpp, unlike in
    transformers."""
    activation = c.activation("hidden_activation", default="gelu_pytorch_tanh")
    c.activation("hidden_act", default="gelu_pytorch_tanh")  # older files have both

    def block(layer: Layer) -> Block:
        return Block(
            Residual(
                attention(layer),
                before=layer.norm("input_layernorm", "attn_norm"),
                after=layer.norm("post_attention_layernorm", "post_attention_norm"),
            ),
            Residual(
                layer.gated(activation),
                before=layer.norm("pre_feedforward_layernorm", "ffn_norm"),
                after=layer.norm("post_feedforward_layernorm", "post_ffw_norm"),
            ),
        )

    scale, cap = sizes.hidden**0.5, c.optional_number("final_logit_softcapping")
    return decoder(c, sizes, block, tied=True, less_one=True, scale=scale, logit_cap=cap)


def score_scale(c: Settings, sizes: Sizes, layers: int) -> float:
    """GGUF files do not say it: it comes of the heads' size, in the model of so many layers of their mean
    size."""
    usual = sizes.hidden // sizes.heads if sizes.layers == layers else sizes.head_dim
    return float(c.number("query_pre_attn_scalar", usual) ** -0.5)


USUAL = {"sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
DEFAULTS = {"head_dim": 256, "query_pre_attn_scalar": 256, **USUAL}
IN_GGUF = {"attention.sliding_window" if name == "sliding_window" else name: name for name in USUAL}
FAMILIES = (Family("Gemma 2", "Gemma2ForCausalLM", "gemma2", gemma2, DEFAULTS, "gemma2", IN_GGUF, USUAL),)
