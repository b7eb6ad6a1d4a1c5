"""Per-layer embeddings, as Gemma 3n and Gemma 4 have them: what each layer is told of a row's token by
itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outrider.models.leaves import Linear, Loaded, Table, Vector
from outrider.ops.base import Ops, Value


@dataclass(frozen=True)
class PerLayerEmbedding:
    """The parts of all layers, side by side: from a table [vocab, layers * width], times `scale`, and from
    the usual embedding by `projection`, times `projection_scale`."""

    table: Table
    projection: Linear
    scale: float
    projection_scale: float

    @property
    def width(self) -> int:
        """Numbers of a row that it holds while the layers are computed."""
        return 2 * self.table.tensor.shape[1]

    def forward(self, ops: Ops[Value, Any, Any], loaded: Loaded, embedded: Value) -> tuple[Value, Value]:
        """The two kinds of parts, [rows, layers * width] each. embedded: the usual embedding [rows,
        hidden]."""
        of_token = ops.embed(loaded[self.table], self.scale)
        return of_token, ops.linear(embedded, loaded[self.projection], None, self.projection_scale)


@dataclass(frozen=True)
class PerLayerInput:
    """What a layer adds to its output: its columns `first`.. of both parts, added, behind a gate that reads
    the output. norm: of the projected part; after: of what is added; scale: of both parts together."""

    first: int
    norm: Vector
    gate: Linear
    out: Linear
    after: Vector
    eps: float
    scale: float = 2**-0.5

    def forward(
        self, ops: Ops[Value, Any, Any], loaded: Loaded, x: Value, parts: tuple[Value, Value]
    ) -> Value:
        (width,) = self.norm.tensor.shape
        of_token, projected = (ops.columns(part, self.first, width) for part in parts)
        both = ops.norm(projected, loaded[self.norm], self.eps, of_token)
        gated = ops.multiply(both, ops.linear(x, loaded[self.gate]), "gelu_tanh")
        return ops.norm(
            ops.linear(gated, loaded[self.out], None, self.scale), loaded[self.after], self.eps, x
        )
