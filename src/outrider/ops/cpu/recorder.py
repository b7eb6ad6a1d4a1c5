"""Writing a definition down in a native program."""

from __future__ import annotations

from typing import Any

import numpy as np

from outrider.cache.store import LayerCache, StateCache
from outrider.formats.format import Floats
from outrider.ops.shapes import (
    Activation,
    AttentionShape,
    ConvShape,
    DeltaShape,
    GateActivation,
    HeadVectors,
    Routing,
)


class Recorder:
    """Operations written down in a native program. Values are the program's numbers for them."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def input(self, width: int) -> int:
        return int(self.program.input(width))

    def embed(self, table: Any, scale: float = 1.0) -> int:
        return int(self.program.embed(table, scale))

    def norm(self, x: int, weight: Floats, eps: float, residual: int | None = None) -> int:
        return int(self.program.norm(x, weight, eps, residual))

    def linear(self, x: int, weight: tuple[Any, ...], residual: int | None = None, scale: float = 1.0) -> int:
        return int(self.program.linear(x, list(weight), residual, scale))

    def gated(self, x: int, gate: tuple[Any, ...], up: tuple[Any, ...], activation: Activation) -> int:
        return int(self.program.gated(x, list(gate), list(up), activation))

    def experts(
        self,
        x: int,
        scores: int,
        gates: Any,
        ups: Any,
        downs: Any,
        routing: Routing,
        activation: Activation,
        residual: int | None = None,
        scale: float = 1.0,
        bias: Any = None,
    ) -> int:
        return int(
            self.program.experts(
                x,
                scores,
                gates,
                ups,
                downs,
                count=routing.count,
                chosen=routing.chosen,
                scoring=routing.scoring,
                normalised=routing.normalised,
                factor=routing.factor,
                bias=bias,
                activation=activation,
                residual=residual,
                scale=scale,
            )
        )

    def attend(self, qkv: int, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors) -> int:
        rope = shape.rope
        turns = None
        if rope is not None:
            turns = self.program.rope(
                np.array(rope.inv_freq, np.float32), rope.factor, rope.interleaved, rope.ahead
            )
        return int(
            self.program.attend(
                qkv,
                cache.keys,
                cache.values,
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                scale=shape.scale,
                rope=turns,
                window=shape.window,
                soft_cap=shape.soft_cap,
                q_norm=vectors.q_norm,
                k_norm=vectors.k_norm,
                norm_eps=shape.norm_eps,
                temperature=shape.temperature and (shape.temperature.beta, shape.temperature.length),
                sinks=vectors.sinks,
                group=cache.group,
                kv=shape.kv,
                v_norm=np.ones(shape.head_dim, np.float32) if shape.values_normed else None,
            )
        )

    def convolve(
        self, x: int, weight: Floats, bias: Floats | None, cache: StateCache, shape: ConvShape
    ) -> int:
        return int(self.program.convolve(x, weight, bias, cache.values, silu=shape.silu))

    def delta(
        self,
        qkv: int,
        forget: int,
        write: int,
        rates: Floats,
        bias: Floats,
        cache: StateCache,
        shape: DeltaShape,
    ) -> int:
        return int(
            self.program.delta(
                qkv,
                forget,
                write,
                rates,
                bias,
                cache.values,
                key_heads=shape.key_heads,
                value_heads=shape.value_heads,
                key_dim=shape.key_dim,
                value_dim=shape.value_dim,
                tiled=shape.tiled,
            )
        )

    def norm_heads(self, x: int, weight: Floats, heads: int, eps: float) -> int:
        return int(self.program.norm_heads(x, weight, heads, eps))

    def multiply(self, x: int, gate: int, activation: GateActivation | None = None) -> int:
        return int(self.program.multiply(x, gate, activation))

    def scale(self, x: int, factor: Floats) -> int:
        return int(self.program.scale(x, float(factor[0])))

    def columns(self, x: int, first: int, count: int) -> int:
        return int(self.program.columns(x, first, count))

    def soft_cap(self, x: int, cap: float) -> int:
        return int(self.program.soft_cap(x, cap))

    def select_logit_rows(self, x: int) -> int:
        return int(self.program.select_logit_rows(x))

    def keep(self, x: int) -> None:
        self.program.keep(x)
