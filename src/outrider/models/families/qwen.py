"""Qwen 2, 2.5 (Yang et al., 2024) and 3 (Yang et al., 2025)."""

from __future__ import annotations

from outrider.models.families.build import HeadNorm, Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def qwen2(c: Settings) -> Decoder:
    """Llama with biases on q, k and v."""
    return _decoder(c, qkv_bias=c.flag("attention_bias", True), out_bias=False)


def qwen3(c: Settings) -> Decoder:
    """Norms of q's and k's heads in place of biases."""
    bias = c.flag("attention_bias", False)
    c.always("use_qk_norm", True)
    return _decoder(c, qkv_bias=bias, out_bias=bias, norms="head")


def _decoder(c: Settings, *, qkv_bias: bool, out_bias: bool, norms: HeadNorm | None = None) -> Decoder:
    sizes = Sizes.of(c)
    rope, activation = c.rope(sizes.head_dim), c.activation()
    slide_from = c.size("max_window_layers", 28) if c.flag("use_sliding_window", False) else sizes.layers
    windows = c.windows(sizes.layers, lambda layer: layer >= slide_from)

    def block(layer: Layer) -> Block:
        attention = layer.attention(
            rope, window=windows[layer.number], qkv_bias=qkv_bias, out_bias=out_bias, norms=norms
        )
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(layer.gated(activation), before=layer.norm("post_attention_layernorm", "ffn_norm")),
        )

    return decoder(c, sizes, block, tied=False)


FAMILIES = (
    Family("Qwen2, Qwen2.5", "Qwen2ForCausalLM", "qwen2", qwen2, gguf="qwen2"),
    Family("Qwen3", "Qwen3ForCausalLM", "qwen3", qwen3, gguf="qwen3"),
)
