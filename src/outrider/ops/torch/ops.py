"""The operations of a forward pass in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import LayerCache, StateCache
from outrider.ops.shapes import (
    Activation,
    AttentionShape,
    ConvShape,
    DeltaShape,
    GateActivation,
    HeadVectors,
    Rope,
    Routing,
    Temperature,
)
from outrider.ops.torch import states
from outrider.ops.torch.attention import AttentionGroup, attend, group_requests
from outrider.ops.torch.batch import Batch
from outrider.ops.torch.codes import packed, spread
from outrider.ops.torch.linear import Linear


class TorchOps:
    """One pass. given: the input, if the pass has one."""

    def __init__(self, batch: Batch, dtype: torch.dtype, given: Tensor | None = None) -> None:
        self.batch = batch
        self.given = given
        self.kept: list[Tensor] = []
        self._dtype = dtype
        self._turns = cache(self._turns_of)  # of each rope once, as of each window
        self._groups = cache(self._groups_of)

    def input(self, width: int) -> Tensor:
        if self.given is None or self.given.shape[1] != width:
            found = None if self.given is None else tuple(self.given.shape)
            raise ValueError(f"the pass needs an input of shape ({self.batch.rows}, {width}); it has {found}")
        return self.given

    def embed(self, table: Tensor, scale: float = 1.0) -> Tensor:
        return F.embedding(self.batch.tokens, table) * scale

    def norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        y = F.rms_norm(x, weight.shape, weight.to(x), eps)
        return y if residual is None else residual + y

    def linear(self, x: Tensor, weight: Linear, residual: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y = weight(x) if scale == 1 else weight(x) * scale
        return y if residual is None else residual + y

    def gated(self, x: Tensor, gate: Linear, up: Linear, activation: Activation) -> Tensor:
        return GATES[activation](gate(x), up(x))

    def experts(
        self,
        x: Tensor,
        scores: Tensor,
        gates: Sequence[Linear],
        ups: Sequence[Linear],
        downs: Sequence[Linear],
        routing: Routing,
        activation: Activation,
        residual: Tensor | None = None,
        scale: float = 1.0,
        bias: Tensor | None = None,
    ) -> Tensor:
        softmax = routing.scoring == "softmax"
        weights = scores.softmax(dim=-1) if softmax else scores.sigmoid()
        order = scores if softmax else weights  # softmax rounds what is small to equal weights
        order = order if bias is None else order + bias.to(order)
        ranked = order.sort(descending=True, stable=True).indices[:, : routing.chosen]
        weights = weights.gather(1, ranked)  # [rows, chosen], by rank
        if routing.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        weights = routing.factor * weights
        expert_of = ranked.flatten()  # of each slot: a row and one of its experts
        slots, outputs = [], []
        for expert in sorted({*expert_of.tolist()}):
            own = (expert_of == expert).nonzero().flatten()
            inner = self.gated(x[own // routing.chosen], gates[expert], ups[expert], activation)
            slots.append(own)
            outputs.append(downs[expert](inner))
        by_rank = torch.cat(outputs)[torch.cat(slots).argsort()].view(len(x), routing.chosen, -1)
        y = torch.zeros_like(by_rank[:, 0])
        for rank in range(routing.chosen):
            y += weights[:, rank, None].to(y) * by_rank[:, rank]
        return scale * y if residual is None else residual + scale * y

    def attend(self, qkv: Tensor, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors) -> Tensor:
        ends = (shape.heads * shape.head_dim, (shape.heads + shape.kv_heads) * shape.head_dim)
        q, k, v = torch.tensor_split(qkv, ends, dim=1)
        q = self._turned(self._normed(q, vectors.q_norm, shape), shape.rope)
        if shape.temperature is not None:
            q = q * self._growth(shape.temperature)
        if cache.keys.dtype == torch.int8:
            q = spread(q)
        if shape.stores:
            self._store(k, k if shape.kv == "keys" else v, cache, shape, vectors)
        groups, unpad = self._groups(shape.window, cache.group)
        return attend(q, groups, shape, cache, vectors.sinks).index_select(0, unpad).flatten(1)

    def _store(
        self, k: Tensor, v: Tensor, cache: LayerCache, shape: AttentionShape, vectors: HeadVectors
    ) -> None:
        slots = self.batch.slots[cache.group]
        k = self._turned(self._normed(k, vectors.k_norm, shape), shape.rope)
        v = v.reshape(k.shape)
        if shape.values_normed:
            v = F.rms_norm(v, v.shape[2:], eps=shape.norm_eps)
        if cache.keys.dtype == torch.int8:
            cache.keys[slots], cache.values[slots] = packed(spread(k)), packed(v)
        else:
            cache.keys[slots], cache.values[slots] = k.to(cache.keys.dtype), v.to(cache.values.dtype)

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor.to(x)

    def columns(self, x: Tensor, first: int, count: int) -> Tensor:
        return x[:, first : first + count]

    def multiply(self, x: Tensor, gate: Tensor, activation: GateActivation | None = None) -> Tensor:
        return x * (gate if activation is None else FACTORS[activation](gate))

    def convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, cache: StateCache, shape: ConvShape
    ) -> Tensor:
        return states.convolve(x, weight, bias, cache, shape, self.batch)

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
        return states.delta(qkv, forget, write, rates, bias, cache, shape, self.batch)

    def norm_heads(self, x: Tensor, weight: Tensor, heads: int, eps: float) -> Tensor:
        by_head = x.reshape(len(x), heads, -1)
        return F.rms_norm(by_head, by_head.shape[2:], eps=eps).flatten(1) * weight.to(x)

    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        return cap * torch.tanh(x / cap)

    def select_logit_rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.batch.logit_rows)

    def keep(self, x: Tensor) -> None:
        self.kept.append(x)

    def _normed(self, x: Tensor, weight: Tensor | None, shape: AttentionShape) -> Tensor:
        """[rows, heads * head_dim] -> [rows, heads, head_dim], each head or the whole row normed if at
        all."""
        heads = x.reshape(len(x), -1, shape.head_dim)
        if weight is None:
            return heads
        if len(weight) == shape.head_dim and heads.shape[1] != 1:
            return self.norm(heads, weight, shape.norm_eps)
        return self.norm(x, weight, shape.norm_eps).view(heads.shape)

    def _turned(self, x: Tensor, rope: Rope | None) -> Tensor:
        """x [rows, heads, head_dim] with its first dimensions turned by the rows' positions."""
        if rope is None:
            return x
        cos, sin = self._turns(rope)  # [rows, 1, pairs]
        turning, still = x[..., : 2 * cos.shape[-1]], x[..., 2 * cos.shape[-1] :]
        if rope.interleaved:
            first, second = turning[..., ::2], turning[..., 1::2]
        else:
            first, second = turning.chunk(2, dim=-1)
        pair = (first * cos - second * sin, second * cos + first * sin)
        turned = torch.stack(pair, dim=-1).flatten(-2) if rope.interleaved else torch.cat(pair, dim=-1)
        return torch.cat([turned, still], dim=-1)

    def _growth(self, temperature: Temperature) -> Tensor:
        """[rows, 1, 1]"""
        times = (self.batch.positions // temperature.length + 1).float()
        return (1 + temperature.beta * torch.log(times)).to(self._dtype)[:, None, None]

    def _turns_of(self, rope: Rope) -> tuple[Tensor, Tensor]:
        inv_freq = torch.tensor(rope.inv_freq, device=self.batch.positions.device)
        angles = (self.batch.positions[:, None, None] + rope.ahead).float() * inv_freq
        return tuple((f(angles) * rope.factor).to(self._dtype) for f in (torch.cos, torch.sin))  # type: ignore[return-value]

    def _groups_of(self, window: int | None, layers: int) -> tuple[tuple[AttentionGroup, ...], Tensor]:
        return group_requests(self.batch, window, layers)


def _swiglu_clamped(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


FACTORS: dict[GateActivation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
}
GATES: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": lambda gate, up: F.silu(gate) * up,
    "gelu": lambda gate, up: F.gelu(gate) * up,
    "gelu_tanh": lambda gate, up: F.gelu(gate, approximate="tanh") * up,
    "swiglu_clamped": _swiglu_clamped,
}
