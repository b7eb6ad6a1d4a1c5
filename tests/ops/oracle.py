"""Operations of a decoder by their definition, in float64 NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    x = x.astype(np.float64)
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight)


def silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def gelu(x: Array) -> Array:
    return np.asarray(x * np.vectorize(lambda value: math.erfc(-value / math.sqrt(2)) / 2)(x))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def soft_cap(x: Array, cap: float) -> Array:
    return cap * np.tanh(x.astype(np.float64) / cap)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def as_bfloat16(x: Array) -> Array:
    """float32 values rounded to the nearest bfloat16, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def spread(x: Array) -> Array:
    """x [..., head_dim] times an orthogonal matrix, over as many dimensions at a time as a power of two
    divides head_dim into."""
    size = x.shape[-1] & -x.shape[-1]
    hadamard: Array = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    return np.asarray((x.reshape(-1, size) @ hadamard / math.sqrt(size)).reshape(x.shape))


def as_int8(x: Array) -> Array:
    """Each head rounded to 255 steps, of the same size for all of its numbers."""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.asarray(np.rint(x / np.where(step > 0, step, 1)) * step)


def spread_as_int8(x: Array) -> Array:
    """The same, of what is spread meanwhile."""
    return spread(as_int8(spread(x)))  # the matrix is its own inverse


@dataclass(frozen=True)
class Rope:
    """inv_freq: float32 [pairs]."""

    inv_freq: Array
    factor: float = 1.0
    interleaved: bool = False

    def __call__(self, x: Array) -> Array:
        """x: [positions, heads, head_dim], of positions 0, 1, 2..."""
        pairs = len(self.inv_freq)
        at = np.arange(2 * pairs).reshape((pairs, 2) if self.interleaved else (2, pairs))
        low, high = at.T if self.interleaved else at
        # The angle in float32, as every implementation has it.
        angles = (np.arange(len(x), dtype=np.float32)[:, None] * self.inv_freq).astype(np.float64)[:, None]
        cos, sin = np.cos(angles) * self.factor, np.sin(angles) * self.factor
        y = x.copy()
        y[..., low] = x[..., low] * cos - x[..., high] * sin
        y[..., high] = x[..., high] * cos + x[..., low] * sin
        return y


@dataclass(frozen=True)
class Attention:
    """What a layer's attention is; as `Program.attend` has it."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    window: int | None = None
    soft_cap: float | None = None
    q_norm: Array | None = None
    k_norm: Array | None = None
    norm_eps: float = 1e-5
    sinks: Array | None = None

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def __call__(
        self, qkv: Array, stored: Callable[[Array], Array], keys: Callable[[Array], Array] | None = None
    ) -> Array:
        """[positions, heads * head_dim]. stored: how the cache rounds K and V; keys: how it rounds K, if
        another way."""
        x = qkv.astype(np.float64).reshape(len(qkv), -1, self.head_dim)
        q, k, v = np.split(x, [self.heads, self.heads + self.kv_heads], axis=1)
        q, k = self._placed(q, self.q_norm), self._placed(k, self.k_norm)
        k, v = (keys or stored)(k), stored(v)
        k, v = (part.astype(np.float64).repeat(self.heads // self.kv_heads, axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) * self.scale
        if self.soft_cap is not None:
            scores = soft_cap(scores, self.soft_cap)
        distance = np.arange(len(x))[:, None] - np.arange(len(x))
        scores[:, (distance < 0) | (distance >= (self.window or len(x)))] = -np.inf
        if self.sinks is not None:
            sinks = np.broadcast_to(self.sinks[:, None, None], (self.heads, len(x), 1))
            scores = np.concatenate([scores, sinks], axis=-1)
        weights = softmax(scores)[..., : len(x)]
        return np.asarray(np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1))

    def _placed(self, x: Array, norm: Array | None) -> Array:
        if norm is not None:
            x = rms_norm(x.reshape(len(x), -1, len(norm)), norm, self.norm_eps).reshape(x.shape)
        return x if self.rope is None else self.rope(x)


def relative_error(actual: Array, expected: Array) -> float:
    """The largest error of a row, of the largest value of that row."""
    error = np.abs(actual.astype(np.float64) - expected).max(axis=-1)
    return float((error / (np.abs(expected).max(axis=-1) + 1e-30)).max())


def swiglu_clamped(gate: Array, up: Array) -> Array:
    """gpt-oss's: the gate up to 7, the other half within -7 and 7 and one more."""
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return np.asarray(gate / (1 + np.exp(-1.702 * gate)) * (up + 1))


def gated(activation: str, gate: Array, up: Array) -> Array:
    with np.errstate(over="ignore"):
        if activation == "swiglu_clamped":
            return swiglu_clamped(gate, up)
        return np.asarray(ACTIVATIONS[activation](gate) * up)


@dataclass(frozen=True)
class Experts:
    """A mixture of experts; as `Program.experts` has it. gates, ups: [count, inner, hidden]; downs: [count,
    outputs, inner]."""

    gates: Array
    ups: Array
    downs: Array
    chosen: int
    activation: str = "silu"
    scoring: str = "softmax"
    normalised: bool = True
    factor: float = 1.0
    bias: Array | None = None

    def __call__(self, x: Array, scores: Array) -> Array:
        scores = scores.astype(np.float64)
        weights = softmax(scores) if self.scoring == "softmax" else 1 / (1 + np.exp(-scores))
        ranked = scores if self.scoring == "softmax" else weights
        ranked = ranked if self.bias is None else ranked + self.bias
        out = np.zeros((len(x), self.downs.shape[1]))
        for row, at in enumerate(np.argsort(-ranked, axis=1, kind="stable")[:, : self.chosen]):
            total = weights[row, at].sum() if self.normalised else 1
            for e in at:
                gate, up = (w[e].astype(np.float64) @ x[row] for w in (self.gates, self.ups))
                inner = gated(self.activation, gate, up)
                out[row] += self.factor * weights[row, e] / total * (self.downs[e].astype(np.float64) @ inner)
        return out
