"""What a decoder is computed with: the operations of a forward pass, and the backends that run them.

A model defines its forward pass once, in terms of `Ops`. A backend may run that definition for every batch,
as PyTorch does, or run it once to record the operations and replay them, as the CPU's kernels do. So a
definition does nothing with values but hand them from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from outrider.cache.store import LayerCache, StateCache
from outrider.formats.format import Floats
from outrider.formats.weight import Weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from outrider.ops.batch import Span

Activation = Literal["silu", "gelu", "gelu_tanh", "swiglu_clamped"]
"""What a gated feed-forward does to its gate; `gelu_tanh` is the approximation by tanh.

`swiglu_clamped` is gpt-oss's: with gate at most 7 and up within 7 of zero, gate * sigmoid(1.702 gate) *
(up + 1).
"""


GateActivation = Literal["silu", "sigmoid"]
"""What a gate goes through before values are multiplied by it."""
Scoring = Literal["softmax", "sigmoid"]
"""What makes weights of experts of their scores."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., 2021).

    inv_freq: of each pair of dimensions, scaling applied; the first `2 * len(inv_freq)` dimensions of a head
    turn. factor multiplies cos and sin. interleaved: dimension 2 i turns with 2 i + 1; else i with i +
    len(inv_freq).
    """

    inv_freq: tuple[float, ...]
    factor: float = 1.0
    interleaved: bool = False


@dataclass(frozen=True)
class Temperature:
    """How scores grow with a query's position: they are multiplied by 1 + beta * ln(1 + position //
    length)."""

    beta: float
    length: int


@dataclass(frozen=True)
class AttentionShape:
    """The attention of one layer; query head h reads K/V head `h * kv_heads // heads`.

    scale multiplies scores, which `soft_cap * tanh(score / soft_cap)` then bounds. window: positions that a
    row sees, its own among them. norm_eps: of the norms of q and k, where a layer has them. temperature: see
    `Temperature`; None: scores do not grow.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    window: int | None = None
    soft_cap: float | None = None
    norm_eps: float = 0.0
    temperature: Temperature | None = None


@dataclass(frozen=True)
class ConvShape:
    """A causal convolution of each channel by itself. kernel: positions that a row sees, its own among them;
    silu: what it comes to goes through that."""

    channels: int
    kernel: int
    silu: bool = False

    @property
    def state(self) -> tuple[int, ...]:
        """The shape of its state: the inputs of the rows before."""
        return self.kernel - 1, self.channels


@dataclass(frozen=True)
class DeltaShape:
    """A gated delta rule (Yang et al., 2025). Value head v reads key head `v * key_heads // value_heads`, or,
    tiled, `v % key_heads`."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    tiled: bool = False

    @property
    def state(self) -> tuple[int, ...]:
        """The shape of its state: of each value head, what is found under each dimension of a key."""
        return self.value_heads, self.key_dim, self.value_dim


StateShape = ConvShape | DeltaShape


@dataclass(frozen=True)
class Routing:
    """How a mixture chooses experts: a row goes to the `chosen` of `count` experts that score highest.

    The weight of an expert is the softmax of scores, or the sigmoid of its own, times `factor`; normalised:
    those of the chosen experts add up to 1 before that. Of equal scores, the expert of the lower number
    ranks first.
    """

    count: int
    chosen: int
    normalised: bool
    scoring: Scoring = "softmax"
    factor: float = 1.0


class HeadVectors(NamedTuple):
    """What an attention layer may have beside its matrices, in the backend's form.

    q_norm, k_norm: weights of RMS norms of q and k before they turn: [head_dim], for each head by itself, or
    of all heads together. sinks: [heads], a logit that takes part in a head's softmax and has no value.
    """

    q_norm: Any = None
    k_norm: Any = None
    sinks: Any = None


Value = TypeVar("Value")
"""Activations [rows, features], or what stands for them in a recording."""

Packed = TypeVar("Packed", contravariant=True)
"""A linear layer's weight [out, in] with an optional bias [out], in the backend's own layout."""

Table = TypeVar("Table", contravariant=True)
"""An embedding table [vocab, hidden], in the backend's own layout."""


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
        attend causally to each row's own cached positions: [rows, heads * head_dim]."""

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


Cache = LayerCache | StateCache
Definition = Callable[[Any, Sequence[Any]], Any]
"""A model's forward pass: (Ops, what its layers keep) -> logits [rows with logits, vocab]."""


class Passed(NamedTuple):
    """What a forward pass yields.

    logits: float32 [sum of logit_rows, vocab]. kept: float32 [rows, sum of widths], of all rows or of those
    with logits; None where the definition keeps nothing.
    """

    logits: Tensor
    kept: Tensor | None


class Forward(Protocol):
    """A forward pass that is ready to run."""

    def __call__(self, spans: Sequence[Span], input: Tensor | None = None) -> Passed:
        """input: float32 [rows, width], for a definition that has one."""


class Backend(Protocol):
    """Where a model lives and how its operations are run. Chosen once, when an engine is built."""

    device: torch.device
    cache_dtype: torch.dtype
    exact: bool
    """Whether a row comes out the same, to the last bit, in any batch."""
    instruction_set: str | None
    """Of the native kernels; None where PyTorch computes."""
    num_threads: int
    """Threads of the processor that compute."""

    def undisturbed(self) -> AbstractContextManager[None]:
        """For a whole step, and while weights are laid out: nothing else takes the cores from that."""

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

    def vector(self, values: Floats) -> Any:
        """A vector such as a norm's weight, float32, where the backend reads it."""

    def new_cache(
        self, blocks: int, block_size: int, shapes: Sequence[AttentionShape]
    ) -> Sequence[LayerCache]:
        """Room for K and V of one layer for each shape; memory is taken as it is used."""

    def new_states(self, slots: int, shapes: Sequence[StateShape]) -> Sequence[StateCache]:
        """Room for so many states of one layer for each shape; memory is taken as it is used."""

    def compile(self, definition: Definition, cache: Sequence[Cache], block_size: int) -> Forward:
        """The definition as a function of spans."""
