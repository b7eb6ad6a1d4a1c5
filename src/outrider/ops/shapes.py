"""What the operations of a forward pass are told of a layer, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Activation = Literal["silu", "gelu", "gelu_tanh", "swiglu_clamped"]
"""What a gated feed-forward does to its gate; `gelu_tanh` is the approximation by tanh.

`swiglu_clamped` is gpt-oss's: with gate at most 7 and up within 7 of zero, gate * sigmoid(1.702 gate) *
(up + 1).
"""


GateActivation = Literal["silu", "sigmoid", "gelu_tanh"]
"""What a gate goes through before values are multiplied by it."""
KeyValues = Literal["own", "keys", "shared"]
"""Where K and V of a layer's rows come from: 'own' matrices; V is the 'keys' before their norm and rope; or
they are 'shared': another layer has written them to the cache that this one reads."""
Scoring = Literal["softmax", "sigmoid"]
"""What makes weights of experts of their scores."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al., 2021).

    inv_freq: of each pair of dimensions, scaling applied; the first `2 * len(inv_freq)` dimensions of a head
    turn. factor multiplies cos and sin. interleaved: dimension 2 i turns with 2 i + 1; else i with i +
    len(inv_freq). ahead: positions behind its own by which a row turns.
    """

    inv_freq: tuple[float, ...]
    factor: float = 1.0
    interleaved: bool = False
    ahead: int = 0


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
    row sees, its own among them. norm_eps: of the norms of q, k and v, where a layer has them. temperature:
    see `Temperature`; None: scores do not grow. kv: see `KeyValues`; values_normed: each head of V goes
    through an RMS norm without a weight."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    window: int | None = None
    soft_cap: float | None = None
    norm_eps: float = 0.0
    temperature: Temperature | None = None
    kv: KeyValues = "own"
    values_normed: bool = False

    @property
    def stores(self) -> bool:
        """Whether the layer writes K and V of its rows."""
        return self.kv != "shared"


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
