"""The operations of a forward pass as launches of kernels.

What is added up along the layers is float32. What a linear layer reads has the type of K and V. All shapes
are those of the batch with its padding, and nothing else of the batch is known here: so what is launched
depends on them alone, and can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from outrider.cache.store import LayerCache, StateCache
from outrider.ops.cuda import states
from outrider.ops.cuda.attention import attend
from outrider.ops.cuda.embedding import look_up
from outrider.ops.cuda.experts import experts
from outrider.ops.cuda.gates import gate_by
from outrider.ops.cuda.heads import place_heads
from outrider.ops.cuda.layout import GpuBatch
from outrider.ops.cuda.linear import linear
from outrider.ops.cuda.matrix import GpuMatrix
from outrider.ops.cuda.norms import norm
from outrider.ops.shapes import (
    Activation,
    AttentionShape,
    ConvShape,
    DeltaShape,
    GateActivation,
    HeadVectors,
    Rope,
    Routing,
)

Parts = Sequence[GpuMatrix]


class GpuOps:
    """One pass. dtype: of what linear layers read; frequencies: of a rope, on the device; given: the input,
    [padded rows, width], if the pass has one. keeps_logit_rows: whether what is kept is of rows with
    logits alone."""

    def __init__(
        self,
        batch: GpuBatch,
        dtype: torch.dtype,
        frequencies: Callable[[Rope | None], Tensor],
        given: Tensor | None = None,
    ) -> None:
        self.batch = batch
        self.given = given
        self.kept: list[Tensor] = []
        self._dtype = dtype
        self._frequencies = frequencies
        self.keeps_logit_rows = False
        self._selected = False

    def input(self, width: int) -> Tensor:
        if self.given is None or self.given.shape[1] != width:
            found = None if self.given is None else tuple(self.given.shape)
            rows = len(self.batch.tokens)
            raise ValueError(f"the pass needs an input of shape ({rows}, {width}); it has {found}")
        return self.given

    def embed(self, table: GpuMatrix, scale: float = 1.0) -> Tensor:
        return look_up(self.batch.tokens, table, scale)

    def norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        return norm(x, weight, eps, self._dtype, residual)

    def linear(self, x: Tensor, weight: Parts, residual: Tensor | None = None, scale: float = 1.0) -> Tensor:
        return linear(x.to(self._dtype), weight, residual, scale)

    def gated(self, x: Tensor, gate: Parts, up: Parts, activation: Activation) -> Tensor:
        return gate_by(self.linear(x, gate), self.linear(x, up), activation, self._dtype)

    def experts(
        self,
        x: Tensor,
        scores: Tensor,
        gates: GpuMatrix,
        ups: GpuMatrix,
        downs: GpuMatrix,
        routing: Routing,
        activation: Activation,
        residual: Tensor | None = None,
        scale: float = 1.0,
        bias: Tensor | None = None,
    ) -> Tensor:
        read = x.to(self._dtype)
        stacks = (gates, ups, downs)
        return experts(read, scores, stacks, routing, activation, self.batch.positions, residual, scale, bias)

    def attend(self, qkv: Tensor, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors) -> Tensor:
        frequencies = self._frequencies(shape.rope)
        q = place_heads(qkv, self.batch, cache, shape, vectors, frequencies, self._dtype)
        return attend(q, self.batch, cache, shape, vectors.sinks)

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def columns(self, x: Tensor, first: int, count: int) -> Tensor:
        return x[:, first : first + count].contiguous()

    def multiply(self, x: Tensor, gate: Tensor, activation: GateActivation | None = None) -> Tensor:
        return gate_by(gate, x, activation, x.dtype)

    def convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, cache: StateCache, shape: ConvShape
    ) -> Tensor:
        return states.convolve(x, weight, bias, cache, shape, self.batch.states)

    def delta(
        self,
        qkv: Tensor,
        forget: Tensor,
        write: Tensor,
        rates: Tensor,
        bias: Tensor,
        cache: StateCache,
        shape: DeltaShape,
    ) -> Tensor:
        return states.delta(qkv, forget, write, rates, bias, cache, shape, self.batch.states)

    def norm_heads(self, x: Tensor, weight: Tensor, heads: int, eps: float) -> Tensor:
        return norm(x, weight, eps, self._dtype, heads=heads)

    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        return cap * torch.tanh(x / cap)

    def select_logit_rows(self, x: Tensor) -> Tensor:
        self._selected = True
        return x.index_select(0, self.batch.selected)

    def keep(self, x: Tensor) -> None:
        self.kept.append(x)
        self.keeps_logit_rows = self._selected
