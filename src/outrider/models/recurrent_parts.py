"""Mixers that keep a state of what came before: of one size, however long the text is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outrider.models.leaves import Linear, Loaded, Vector
from outrider.models.parts import Norm
from outrider.ops.base import Ops, Value
from outrider.ops.shapes import ConvShape, DeltaShape


@dataclass(frozen=True)
class ShortConvolution:
    """A convolution over a few positions, gated before and after (LFM2). kernel: [channels, positions]."""

    before: Linear
    after: Linear
    x: Linear
    kernel: Vector
    out: Linear
    shape: ConvShape
    bias: Vector | None = None

    @property
    def cached(self) -> tuple[ConvShape]:
        return (self.shape,)

    @property
    def width(self) -> int:
        return 4 * self.shape.channels

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        gated = ops.multiply(ops.linear(x, loaded[self.x]), ops.linear(x, loaded[self.before]))
        bias = None if self.bias is None else loaded[self.bias]
        mixed = ops.convolve(gated, loaded[self.kernel], bias, cache[0], self.shape)
        gated = ops.multiply(mixed, ops.linear(x, loaded[self.after]))
        return ops.linear(gated, loaded[self.out], residual, scale)


@dataclass(frozen=True)
class DeltaNet:
    """Gated DeltaNet (Yang et al., 2025): a state of what was written under each key, which forgets, and in
    which a row corrects what stands under its own key.

    qkv: the matrices of q, k and v, which `kernel` [channels, positions] convolves over. gate: of the output,
    after its norm. write, forget: of each value head, how much of a correction is written, and how much of
    the state is lost, which `rates` and `bias` [value heads] scale and shift.
    """

    qkv: Linear
    gate: Linear
    write: Linear
    forget: Linear
    kernel: Vector
    rates: Vector
    bias: Vector
    norm: Norm
    out: Linear
    convolution: ConvShape
    shape: DeltaShape

    @property
    def cached(self) -> tuple[ConvShape, DeltaShape]:
        return self.convolution, self.shape

    @property
    def width(self) -> int:
        values = self.shape.value_heads * (self.shape.value_dim + 1)
        return 2 * self.convolution.channels + 3 * values

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        before, state = cache
        qkv = ops.linear(x, loaded[self.qkv])
        qkv = ops.convolve(qkv, loaded[self.kernel], None, before, self.convolution)
        write, forget = ops.linear(x, loaded[self.write]), ops.linear(x, loaded[self.forget])
        found = ops.delta(qkv, forget, write, loaded[self.rates], loaded[self.bias], state, self.shape)
        found = ops.norm_heads(found, loaded[self.norm.weight], self.shape.value_heads, self.norm.eps)
        gated = ops.multiply(found, ops.linear(x, loaded[self.gate]), "silu")
        return ops.linear(gated, loaded[self.out], residual, scale)
