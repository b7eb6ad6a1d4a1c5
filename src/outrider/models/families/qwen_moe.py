"""Qwen2-MoE and Qwen3-MoE (Yang et al., 2024, 2025): Qwen whose feed-forwards are mixtures, in some layers or
in all. In the first, all rows go to one more expert."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import HeadNorm, Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.qwen_mixture import IN_GGUF, feed_forwards
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def qwen2_moe(c: Settings) -> Decoder:
    bias, last = c.flag("qkv_bias", c.flag("attention_bias", True)), c.size("max_window_layers", 28)
    return _decoder(c, lambda layer: layer % 2 == 0 and layer < last, shared=True, qkv_bias=bias)


def qwen3_moe(c: Settings) -> Decoder:
    bias = c.flag("attention_bias", False)
    c.always("use_qk_norm", True)
    return _decoder(c, lambda layer: True, shared=False, qkv_bias=bias, out_bias=bias, norms="head")


def _decoder(
    c: Settings,
    slides: Callable[[int], bool],
    *,
    shared: bool,
    qkv_bias: bool,
    out_bias: bool = False,
    norms: HeadNorm | None = None,
) -> Decoder:
    sizes = Sizes.of(c)
    rope, used = c.rope(sizes.head_dim), c.flag("use_sliding_window", False)
    windows = c.windows(sizes.layers, lambda layer: used and slides(layer))
    feed_forward = feed_forwards(c, sizes, normalised=False, shared=shared)

    def block(layer: Layer) -> Block:
        window = windows[layer.number]
        attention = layer.attention(rope, window=window, qkv_bias=qkv_bias, out_bias=out_bias, norms=norms)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(feed_forward(layer), before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


NORMALISED = {"norm_topk_prob": True}  # as llama.cpp takes it to be
DEFAULTS = {"use_sliding_window": False}
FAMILIES = (
    Family("Qwen2-MoE", "Qwen2MoeForCausalLM", "qwen2_moe", qwen2_moe, DEFAULTS, "qwen2moe", IN_GGUF),
    Family(
        "Qwen3-MoE", "Qwen3MoeForCausalLM", "qwen3_moe", qwen3_moe, DEFAULTS, "qwen3moe", IN_GGUF, NORMALISED
    ),
)
