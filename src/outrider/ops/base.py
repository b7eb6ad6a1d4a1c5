"""What a decoder is computed with: the operations of a forward pass, and the backends that run them.

A model defines its forward pass once, in terms of `Ops`. A backend may run that definition for every batch,
as PyTorch does, or run it once to record the operations and replay them, as the CPU's kernels do. So a
definition does nothing with values but hand them from one operation to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.batch import Span
from outrider.quantization.weight import Weight


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., 2021) in the half-split layout.

    inv_freq: float32 [head_dim / 2], scaling applied; attention_factor multiplies cos and sin.
    """

    inv_freq: Tensor
    attention_factor: float


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one layer; query head h reads K/V head `h * kv_heads // heads`."""

    heads: int
    kv_heads: int
    head_dim: int
    sliding_window: int | None


@dataclass(frozen=True)
class CacheShape:
    """Blocks of K and V that every layer has."""

    layers: int
    num_blocks: int
    block_size: int


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

    def embed(self, table: Table) -> Value:
        """The rows' tokens: [rows, hidden]."""

    def rms_norm(self, x: Value, weight: Tensor, eps: float) -> Value:
        """Root-mean-square norm (Zhang and Sennrich, 2019) of each row."""

    def linear(self, x: Value, weight: Packed, residual: Value | None = None) -> Value:
        """[rows, in] -> [rows, out], added to `residual` if there is one."""

    def gated(self, x: Value, gate: Packed, up: Packed) -> Value:
        """silu(gate(x)) * up(x): [rows, in] -> [rows, out]."""

    def rotate_and_store(self, qkv: Value, cache: LayerCache) -> Value:
        """Rotate q and k of [rows, (heads + 2 kv_heads) * head_dim], write k and v to the cache, return q."""

    def attend(self, q: Value, cache: LayerCache) -> Value:
        """Causal attention of q over each row's own cached positions: [rows, heads * head_dim]."""

    def select_logit_rows(self, x: Value) -> Value:
        """The rows whose logits are wanted."""

    def keep(self, x: Value) -> None:
        """Hand x out beside the logits, to the right of what was kept before."""


Definition = Callable[[Any, Sequence[LayerCache]], Any]
"""A model's forward pass: (Ops, the layers' caches) -> logits [rows with logits, vocab]."""


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
    """Of the processor, that compute."""

    def undisturbed(self) -> AbstractContextManager[None]:
        """For a whole step, and while weights are laid out: nothing else takes the cores from that."""

    def pack(self, weights: Iterable[Weight], biases: Sequence[Tensor] | None = None) -> Any:
        """Lay weights [out, in] out for `linear`, one below the other."""

    def table(self, weight: Weight) -> Any:
        """Lay an embedding table [vocab, hidden] out for `embed`."""

    def tied(self, table: Any) -> Any:
        """The linear layer whose weight is an embedding table."""

    def new_cache(self, cache: CacheShape, shape: AttentionShape) -> Sequence[LayerCache]:
        """Room for K and V; memory is taken as it is used."""

    def compile(
        self,
        definition: Definition,
        cache: Sequence[LayerCache],
        block_size: int,
        shape: AttentionShape,
        rope: Rope,
    ) -> Forward:
        """The definition as a function of spans."""
