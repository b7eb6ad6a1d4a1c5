"""The parts that decoders are made of.

A decoder is a tree of frozen values. Its leaves (`leaves.py`) name the tensors that they are loaded from; the
other parts say how the leaves are computed with. Whatever else there is to know about a model is a walk over
its tree: the tensors that a checkpoint has to have, loading, the bytes that it takes, and where hidden states
can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from outrider.models.leaves import Linear, Loaded, Stack, Table, Tied, Vector, leaves
from outrider.ops.base import Ops, Value
from outrider.ops.shapes import Activation, AttentionShape, HeadVectors, Routing, StateShape

if TYPE_CHECKING:
    from outrider.models.per_layer import PerLayerEmbedding, PerLayerInput


@dataclass(frozen=True)
class Norm:
    """Root-mean-square norm."""

    weight: Vector
    eps: float

    def forward(
        self, ops: Ops[Value, Any, Any], loaded: Loaded, x: Value, residual: Value | None = None
    ) -> Value:
        return ops.norm(x, loaded[self.weight], self.eps, residual)


class Mixer(Protocol):
    """What a residual branch computes."""

    @property
    def cached(self) -> tuple[AttentionShape | StateShape, ...]:
        """What it keeps of the rows before: K and V of an attention, or states."""

    @property
    def width(self) -> int:
        """Numbers of a row that it holds at once, beside what it reads and adds to."""

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        """residual + scale * its output. cache: what the backend has for each of `cached`."""


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention (Ainslie et al., 2023). qkv: the matrices of q, k and v, as far as `shape.kv`
    says that there are such. gate: of what was attended to, which is multiplied by its sigmoid."""

    qkv: Linear
    out: Linear
    shape: AttentionShape
    q_norm: Vector | None = None
    k_norm: Vector | None = None
    sinks: Vector | None = None
    gate: Linear | None = None

    @property
    def cached(self) -> tuple[AttentionShape, ...]:
        return (self.shape,) if self.shape.stores else ()

    @property
    def width(self) -> int:
        heads = self.shape.heads * (2 if self.gate else 1)
        return 2 * (heads + self.shape.kv_heads) * self.shape.head_dim

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        vectors = HeadVectors(*(leaf and loaded[leaf] for leaf in (self.q_norm, self.k_norm, self.sinks)))
        attended = ops.attend(ops.linear(x, loaded[self.qkv]), cache[0], self.shape, vectors)
        if self.gate is not None:
            attended = ops.multiply(attended, ops.linear(x, loaded[self.gate]), "sigmoid")
        return ops.linear(attended, loaded[self.out], residual, scale)


@dataclass(frozen=True)
class Gated:
    """A gated feed-forward (Shazeer, 2020). share: a score, by whose sigmoid the output is multiplied."""

    gate: Linear
    up: Linear
    down: Linear
    activation: Activation = "silu"
    share: Linear | None = None

    @property
    def cached(self) -> tuple[()]:
        return ()

    @property
    def width(self) -> int:
        return 2 * self.down.matrices[0].shape[1]

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        gated = ops.gated(x, loaded[self.gate], loaded[self.up], self.activation)
        if self.share is not None:
            gated = ops.multiply(gated, ops.linear(x, loaded[self.share]), "sigmoid")
        return ops.linear(gated, loaded[self.down], residual, scale)


@dataclass(frozen=True)
class Experts:
    """A mixture of gated feed-forwards (Shazeer et al., 2017). router: the scores of experts, by which
    `routing` chooses. shared: one that all rows go to, whose output is added (Dai et al., 2024). bias: of the
    choice alone, by which experts share the load (Wang et al., 2024)."""

    router: Linear
    gates: Stack
    ups: Stack
    downs: Stack
    routing: Routing
    activation: Activation = "silu"
    shared: Gated | None = None
    bias: Vector | None = None

    @property
    def cached(self) -> tuple[()]:
        return ()

    @property
    def stacks(self) -> tuple[Stack, Stack, Stack]:
        return self.gates, self.ups, self.downs

    @property
    def width(self) -> int:
        """The numbers that a row's experts read and compute, each in a copy for the kernels too."""
        outputs, inner = self.downs.matrices[0].shape
        own = 2 * self.routing.chosen * (outputs + inner) + 2 * self.routing.count
        return own + (self.shared.width + outputs if self.shared else 0)

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        residual: Value | None,
        scale: float,
    ) -> Value:
        if self.shared is not None:
            residual = self.shared.forward(ops, loaded, x, (), residual, scale)
        scores = ops.linear(x, loaded[self.router])
        gates, ups, downs = (loaded[stack] for stack in self.stacks)
        bias = None if self.bias is None else loaded[self.bias]
        return ops.experts(x, scores, gates, ups, downs, self.routing, self.activation, residual, scale, bias)


@dataclass(frozen=True)
class Residual:
    """x + scale * after(mixer(before(x))), with the norms that there are."""

    mixer: Mixer
    before: Norm | None = None
    after: Norm | None = None
    scale: float = 1.0

    def forward(self, ops: Ops[Value, Any, Any], loaded: Loaded, x: Value, cache: Sequence[Any]) -> Value:
        read = x if self.before is None else self.before.forward(ops, loaded, x)
        if self.after is None:
            return self.mixer.forward(ops, loaded, read, cache, x, self.scale)
        mixed = self.mixer.forward(ops, loaded, read, cache, None, self.scale)
        return self.after.forward(ops, loaded, mixed, x)


@dataclass(frozen=True)
class Block:
    """A decoder layer.

    reads: the number of the layer whose K and V it attends to, where it has none of its own. per_layer: what
    it adds of the token itself. scale: a vector [1], of its output."""

    attention: Residual
    feed_forward: Residual
    reads: int | None = None
    per_layer: PerLayerInput | None = None
    scale: Vector | None = None

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        x: Value,
        cache: Sequence[Any],
        tokens: tuple[Value, Value] | None = None,
    ) -> Value:
        """tokens: what `PerLayerEmbedding` made of the tokens, where the layer has a part of it."""
        x = self.attention.forward(ops, loaded, x, cache)
        x = self.feed_forward.forward(ops, loaded, x, ())
        if self.per_layer is not None and tokens is not None:
            x = self.per_layer.forward(ops, loaded, x, tokens)
        return x if self.scale is None else ops.scale(x, loaded[self.scale])


@dataclass(frozen=True)
class Decoder:
    """A language model. scale: of embeddings; logit_scale and logit_cap: of logits, in this order.

    The largest weights come first: what loading needs beside them passes while little else is loaded.
    """

    table: Table
    output: Linear | Tied
    blocks: tuple[Block, ...]
    norm: Norm
    scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float | None = None
    per_layer: PerLayerEmbedding | None = None

    @property
    def vocab_size(self) -> int:
        return self.table.tensor.shape[0]

    @property
    def hidden_size(self) -> int:
        return self.table.tensor.shape[1]

    @property
    def tied(self) -> bool:
        """Whether the embedding table is the output layer too."""
        return isinstance(self.output, Tied)

    @property
    def width(self) -> int:
        """Numbers of a row that a pass holds at once."""
        mixers = (branch.mixer for block in self.blocks for branch in (block.attention, block.feed_forward))
        per_layer = 0 if self.per_layer is None else self.per_layer.width
        return 2 * self.hidden_size + per_layer + max(mixer.width for mixer in mixers)

    @property
    def linear(self) -> Linear:
        """A linear layer that stands for all."""
        return next(leaf for leaf in leaves(self.blocks) if isinstance(leaf, Linear))

    @property
    def looked_up(self) -> tuple[Table, ...]:
        """The tables of which a pass reads no more than the rows of its tokens."""
        tables = (self.table, None if self.per_layer is None else self.per_layer.table)
        return tuple(table for table in tables if table and not (self.tied and table == self.table))

    @property
    def mixtures(self) -> tuple[Experts, ...]:
        """The experts of the layers that have some."""
        mixers = (block.feed_forward.mixer for block in self.blocks)
        return tuple(mixer for mixer in mixers if isinstance(mixer, Experts))

    @property
    def cached(self) -> tuple[AttentionShape | StateShape, ...]:
        """What all layers keep of the rows before, in their order."""
        return tuple(shape for block in self.blocks for shape in block.attention.mixer.cached)

    @property
    def attention_shapes(self) -> tuple[AttentionShape, ...]:
        """The shape of each layer that keeps K and V."""
        return tuple(shape for shape in self.cached if isinstance(shape, AttentionShape))

    def forward(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        cache: Sequence[Any],
        *,
        state_layers: Sequence[int] = (),
        output: Any = None,
    ) -> Value:
        """As `hidden`; the logits [rows with logits, outputs]. output: another output layer."""
        x = self.hidden(ops, loaded, cache, state_layers=state_layers)
        logits = ops.linear(x, loaded[self.output] if output is None else output, None, self.logit_scale)
        return logits if self.logit_cap is None else ops.soft_cap(logits, self.logit_cap)

    def hidden(
        self,
        ops: Ops[Value, Any, Any],
        loaded: Loaded,
        cache: Sequence[Any],
        *,
        state_layers: Sequence[int] = (),
    ) -> Value:
        """Write what the layers keep of the rows to `cache`, which is that of `cached`; what the output layer
        reads: [rows with logits, hidden].

        state_layers: the layers whose inputs are kept, ascending; 0 is the embedding, the number of layers
        what the last one leaves.
        """
        x = ops.embed(loaded[self.table], self.scale)
        tokens = None if self.per_layer is None else self.per_layer.forward(ops, loaded, x)
        caches, kept = iter(cache), list[Sequence[Any]]()
        for number, block in enumerate(self.blocks):
            if number in state_layers:
                ops.keep(x)
            own = [next(caches) for _ in block.attention.mixer.cached]
            kept.append(own if block.reads is None else kept[block.reads])
            x = block.forward(ops, loaded, x, kept[-1], tokens)
        if len(self.blocks) in state_layers:
            ops.keep(x)
        return self.norm.forward(ops, loaded, ops.select_logit_rows(x))
