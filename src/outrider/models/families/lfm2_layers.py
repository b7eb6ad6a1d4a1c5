"""The mixers of LFM2, dense and of experts: short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from outrider.models.families.build import Layer, Sizes
from outrider.models.leaves import Vector
from outrider.models.parts import Attention
from outrider.models.recurrent_parts import ShortConvolution
from outrider.models.settings import FULL, Settings
from outrider.ops.shapes import ConvShape, Rope

CONV = "conv"


def mixers(c: Settings, sizes: Sizes) -> Callable[[Layer], Attention | ShortConvolution]:
    """Makes that of each layer."""
    rope, bias = c.rope(sizes.head_dim, theta=1e6), c.flag("conv_bias", False)
    kernel, attending = c.size("conv_L_cache", 3), c.some_layers("full_attn_idxs", sizes.layers)
    every = c.get("full_attn_idxs") is None

    def usual(layer: int) -> str:
        return FULL if every or layer in attending else CONV

    kinds = c.layer_types(sizes.layers, (FULL, CONV), usual)

    def mixer(layer: Layer) -> Attention | ShortConvolution:
        if kinds[layer.number] == FULL:
            return attention(layer, rope)
        return short_convolution(layer, kernel, bias=bias)

    return mixer


def attention(layer: Layer, rope: Rope) -> Attention:
    s = layer.sizes
    return replace(
        layer.attention(rope, norms="head"),
        out=layer.linear("self_attn.out_proj", "attn_output", s.hidden, s.heads * s.head_dim),
        q_norm=layer.vector("self_attn.q_layernorm", "attn_q_norm", s.head_dim),
        k_norm=layer.vector("self_attn.k_layernorm", "attn_k_norm", s.head_dim),
    )


def short_convolution(layer: Layer, kernel: int, *, bias: bool) -> ShortConvolution:
    """kernel: positions that a row sees, its own among them."""
    hidden = layer.sizes.hidden
    before, after, x = layer.turns("conv.in_proj", "shortconv.in_proj", (hidden,) * 3, hidden, bias=bias)
    out = layer.linear("conv.out_proj", "shortconv.out_proj", hidden, hidden, bias=bias)
    weight = layer.scope.tensor("conv.conv.weight", "shortconv.conv.weight", (hidden, kernel))
    added = layer.scope.tensor("conv.conv.bias", "shortconv.conv.bias", (hidden,))
    shape = ConvShape(hidden, kernel)
    return ShortConvolution(before, after, x, Vector(weight), out, shape, Vector(added) if bias else None)
