"""Layers of gated DeltaNets by the usual names."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from outrider.formats.format import Floats
from outrider.models.families.build import Layer
from outrider.models.leaves import Linear, Vector
from outrider.models.parts import Norm
from outrider.models.recurrent_parts import DeltaNet
from outrider.models.settings import Settings
from outrider.ops.shapes import ConvShape, DeltaShape


class DeltaInputs(NamedTuple):
    """What a DeltaNet makes of a row: see its fields of the same names."""

    qkv: Linear
    gate: Linear
    write: Linear
    forget: Linear


def delta_shape(c: Settings) -> DeltaShape:
    keys, values = c.size("linear_num_key_heads", 16), c.size("linear_num_value_heads", 32)
    if values % keys:
        raise c.error("linear_num_value_heads", f"a multiple of linear_num_key_heads, which is {keys}")
    key_dim = c.size("linear_key_head_dim", 128)
    value_dim = c.size("linear_value_head_dim", key_dim)  # which GGUF files say once for both
    return DeltaShape(keys, values, key_dim, value_dim, tiled=c.flag("linear_heads_in_turns", False))


def delta_net(layer: Layer, shape: DeltaShape, kernel: int, inputs: DeltaInputs) -> DeltaNet:
    """kernel: positions that its convolution sees, a row's own among them."""
    keys, values = shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim
    channels, heads = 2 * keys + values, (shape.value_heads,)
    scope = layer.scope
    norm = scope.tensor("linear_attn.norm.weight", "ssm_norm.weight", (shape.value_dim,))
    return DeltaNet(
        *inputs,
        kernel=Vector(scope.tensor("linear_attn.conv1d.weight", "ssm_conv1d.weight", (channels, kernel))),
        rates=Vector(scope.tensor("linear_attn.A_log", "ssm_a", heads, from_hf=_rates)),
        bias=Vector(scope.tensor("linear_attn.dt_bias", "ssm_dt.bias", heads)),
        norm=Norm(Vector(norm, shape.value_heads), layer.sizes.eps),
        out=layer.linear("linear_attn.out_proj", "ssm_out", layer.sizes.hidden, values),
        convolution=ConvShape(channels, kernel, silu=True),
        shape=shape,
    )


def _rates(logarithms: Floats) -> Floats:
    return -np.exp(logarithms)
