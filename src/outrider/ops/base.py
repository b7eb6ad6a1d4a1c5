"""What a decoder is computed with: the operations of a forward pass, and the backends that run them.

A model defines its forward pass once, in terms of `Ops`. A backend may run that definition for every batch,
as PyTorch does, or run it once to record the operations and replay them, as the CPU's kernels do. So a
definition does nothing with values but hand them from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from outrider.cache.store import LayerCache, StateCache
from outrider.formats.format import Floats, Format
from outrider.formats.weight import Weight
from outrider.ops.choice import Choice, Stepped
from outrider.ops.lane import DraftChain, Words
from outrider.ops.shapes import (
    Activation,
    AttentionShape,
    ConvShape,
    DeltaShape,
    GateActivation,
    HeadVectors,
    Routing,
    StateShape,
)
from outrider.ops.span import Span

Value = TypeVar("Value")
"""Activations [rows, features], or what stands for them in a recording."""

Packed = TypeVar("Packed", contravariant=True)
"""A linear layer's weight [out, in] with an optional bias [out], in the backend's own layout."""

Table = TypeVar("Table", contravariant=True)
"""An embedding table [vocab, hidden], in the backend's own layout."""

SCALE_BYTES = 4  # of what the 8-bit numbers of one position and head are multiplied by


def bytes_of(dtype: str) -> int:
    """The bytes of a number of this type, as `Facts` names types."""
    return {"float64": 8, "float32": 4, "int8": 1, "fp8": 1}.get(dtype, 2)


class Ops(Protocol[Value, Packed, Table]):
    """One pass over the rows of a batch; every row is computed from itself and its own K/V history."""

    def input(self, width: int) -> Value:
        """What the caller gives beside the tokens: [rows, width]. Once a definition."""

    def embed(self, table: Table, scale: float = 1.0) -> Value:
        """The rows' tokens, times `scale`: [rows, hidden]."""

    def norm(self, x: Value, weight: Any, eps: float, residual: Value | None = None) -> Value:
        """Root-mean-square norm (Zhang and Sennrich, 2019) of each row, added to `residual` if there is
        one."""

    def linear(self, x: Value, weight: Packed, residual: Value | None = None, scale: float = 1.0) -> Value:
        """scale times the layer's product and bias, [rows, in] -> [rows, out], added to `residual`."""

    def gated(self, x: Value, gate: Packed, up: Packed, activation: Activation) -> Value:
        """activation(gate(x)) * up(x): [rows, in] -> [rows, out]."""

    def experts(
        self,
        x: Value,
        scores: Value,
        gates: Any,
        ups: Any,
        downs: Any,
        routing: Routing,
        activation: Activation,
        residual: Value | None = None,
        scale: float = 1.0,
        bias: Any = None,
    ) -> Value:
        """A mixture of experts (Shazeer et al., 2017): scale times the weighted sum of what a row's experts
        compute, down(activation(gate(x)) * up(x)), added to `residual`: [rows, in] -> [rows, out].

        scores: [rows, count], of a linear layer of float32; gates, ups, downs: of `Backend.stack`; bias:
        [count], a vector that is added to scores, or to their sigmoids, where experts are chosen. A row's
        experts are added in the order of their rank, so that it does not matter which other rows went to
        them; rows that go to the same expert share the loads of its weights.
        """

    def attend(self, qkv: Value, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors) -> Value:
        """Norm and rotate q and k of [rows, (heads + 2 kv_heads) * head_dim], write k and v to the cache, and
        attend causally to each row's own cached positions: [rows, heads * head_dim]. Without v, or q alone,
        where `shape.kv` says so."""

    def scale(self, x: Value, factor: Any) -> Value:
        """factor * x. factor: a vector [1]."""

    def columns(self, x: Value, first: int, count: int) -> Value:
        """Some columns of x, from `first` on: [rows, count]."""

    def multiply(self, x: Value, gate: Value, activation: GateActivation | None = None) -> Value:
        """x * activation(gate), or x * gate: [rows, width]; a gate [rows, 1] holds for all columns."""

    def convolve(self, x: Value, weight: Any, bias: Any, cache: StateCache, shape: ConvShape) -> Value:
        """A causal convolution over each request's own rows and those before: [rows, channels] -> the same.

        weight: a vector [channels, kernel], whose last column is for the row itself; bias: [channels], or
        None.
        """

    def delta(
        self,
        qkv: Value,
        forget: Value,
        write: Value,
        rates: Any,
        bias: Any,
        cache: StateCache,
        shape: DeltaShape,
    ) -> Value:
        """A gated delta rule, row after row: [rows, (2 key_heads key_dim + value_heads value_dim)] ->
        [rows, value_heads * value_dim].

        With k and q of length 1, q / sqrt(key_dim), and S the state of a head: S decays by exp(rates *
        softplus(forget + bias)); then S += k (sigmoid(write) * (v - S^T k))^T; and S^T q is what comes out.
        forget, write: [rows, value_heads]; rates, bias: vectors [value_heads].
        """

    def norm_heads(self, x: Value, weight: Any, heads: int, eps: float) -> Value:
        """Root-mean-square norm of each head by itself: [rows, heads * dim]. weight: a vector
        [heads * dim]."""

    def soft_cap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap)."""

    def select_logit_rows(self, x: Value) -> Value:
        """The rows whose logits are wanted."""

    def keep(self, x: Value) -> None:
        """Hand x out beside the logits, to the right of what was kept before."""


@dataclass(frozen=True)
class Facts:
    """What has to be known of a backend.

    exact: whether a row comes out the same, to the last bit, in any batch. device: where it computes, as
    PyTorch names it; model: the name of that device, if it has one. kernels: the instruction set of native
    kernels; None where there are none. threads: of the processor, that compute. cache_dtype: of K and V:
    'float64', 'float32', 'bfloat16', 'float16' or 'int8'. lazy: whether a cache takes memory as it is used,
    and can give it back. warm_up: passes of one size until one takes its usual time, where their kernels are
    compiled and their launches recorded first.
    """

    exact: bool
    device: str
    kernels: str | None
    threads: int
    cache_dtype: str
    lazy: bool
    model: str = ""
    warm_up: int = 0

    @property
    def cache_bytes(self) -> int:
        """The bytes of a number of K or V."""
        return bytes_of(self.cache_dtype)

    def head_bytes(self, head_dim: int) -> int:
        """The bytes of K, or of V, of one position and head, with what 8-bit numbers are multiplied by."""
        return head_dim * self.cache_bytes + (SCALE_BYTES if self.cache_dtype == "int8" else 0)


class Passed(NamedTuple):
    """What a forward pass yields.

    logits: float32 [sum of logit_rows, vocab]. kept: of all rows or of those with logits, [rows, sum of
    widths] in the backend's own form; None where the definition keeps nothing.
    """

    logits: NDArray[np.float32]
    kept: Any


class Forward(Protocol):
    """A forward pass that is ready to run. input: [rows, width] in the backend's own form or NumPy's, for a
    definition that has one."""

    def __call__(self, spans: Sequence[Span], input: Any = None) -> Passed:
        """The logits themselves."""

    def step(
        self,
        spans: Sequence[Span],
        choices: Sequence[Choice | None],
        input: Any = None,
        *,
        looks: bool = False,
    ) -> Stepped:
        """Tokens in, tokens out. choices: one a span; looks: whether logits are to be looked at."""

    def move(self, tables: Sequence[Sequence[int]], places: Sequence[int], to: int) -> None:
        """Keep a path of a tree: move K and V from these places of a request's tables, ascending, to the
        places from `to` on, none of which lies behind the one that moves there."""


class Backend(Protocol):
    """Where a model lives and how its operations are run. Chosen once, when an engine is built."""

    @property
    def facts(self) -> Facts: ...

    def with_formats(self, linear: Format | None, table: Format | None, *, cache_dtype: str) -> Backend:
        """The same, for a model whose weights become these; None: they stay as they are stored. Raises
        ConfigError where it cannot."""

    def check_process(self) -> None:
        """Raises OutriderError in a fork of the process that made the backend, where it cannot compute."""

    def pack(self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False) -> Any:
        """Lay weights [out, in] out for `linear`, one below the other. bias: float32 [sum of out]. float32:
        in that type and computed in it, whatever the weights' is and others become."""

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Any:
        """Lay the same matrix [out, in] of each expert out for `experts`. bias: float32 [experts * out].
        Raises ModelError for experts that cannot be computed together."""

    def table(self, weight: Weight) -> Any:
        """Lay an embedding table [vocab, hidden] out for `embed`."""

    def tied(self, table: Any) -> Any:
        """The linear layer whose weight is an embedding table."""

    def as_one(self, layers: Sequence[Any]) -> Any:
        """Linear layers of the same inputs as one, whose outputs follow each other."""

    def vector(self, values: Floats) -> Any:
        """A vector such as a norm's weight, float32, where the backend reads it."""

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """Room for K and V of one layer for each shape."""

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        """Room for so many states of one layer for each shape."""

    def release(self, values: Any, first: int) -> None:
        """Free the memory of a part of a cache, from this index on, where that can be."""

    def own(self, kept: Any) -> Any:
        """What a pass kept, [rows, width], so that it stays after the next one. It may hold on to a few other
        rows of the pass."""

    def join(self, kept: Sequence[Any]) -> Any:
        """A copy of what passes kept, [rows, width] each, one below the other."""

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> Forward:
        """The definition as a function of spans."""

    def chain(self, first: Forward, then: Forward, words: Words, *, in_place: bool = False) -> DraftChain:
        """Drafting with two passes over one cache. What the first keeps of a row with logits is the input of
        the second, if that has one. in_place: the second writes nothing to the cache, and so computes each
        token at the place of the span's last row, and not behind it."""


Cache = LayerCache | StateCache
Definition = Callable[[Any, Sequence[Any]], Any]
"""A model's forward pass: (Ops, what its layers keep) -> logits [rows with logits, vocab]."""
