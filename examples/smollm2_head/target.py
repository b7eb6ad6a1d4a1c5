"""A Llama in plain PyTorch: whole sequences, and many sequences token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.models.checkpoint import Checkpoint
from outrider.models.leaves import Tied
from outrider.models.parts import Attention, Gated, Norm
from outrider.ops.shapes import AttentionShape
from outrider.training.net import rotate
from outrider.training.teacher import matrix

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(q [n, heads, dim], keys, values [n, kv_heads, most, dim], positions [n]) -> [n, heads, dim], each row
over positions 0 to its own."""


@dataclass(frozen=True)
class Layer:
    """Weights of a layer; qkv and gate_up are joined."""

    before: Tensor
    qkv: Tensor
    out: Tensor
    between: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Cache:
    """Keys and values of each layer: [layers, slots, kv_heads, most, dim]."""

    keys: Tensor
    values: Tensor


class Target:
    """A checkpoint of plain Llama layers on a device.

    most: positions of a sequence at most.
    """

    def __init__(self, checkpoint: Checkpoint, most: int, device: torch.device, dtype: torch.dtype) -> None:
        tree = checkpoint.config.tree

        def put(values: Tensor) -> Tensor:
            return values.to(device, dtype if values.dim() == 2 else torch.float32)

        self.table = put(matrix(checkpoint, tree.table.tensor))
        self.norm = put(_vector(checkpoint, tree.norm))
        output = tree.output
        self.output = self.table if isinstance(output, Tied) else put(matrix(checkpoint, output.matrices[0]))
        self.eps, self.most = tree.norm.eps, most
        self.layers: list[Layer] = []
        for block in tree.blocks:
            attention, feed_forward = block.attention.mixer, block.feed_forward.mixer
            assert isinstance(attention, Attention)
            assert isinstance(feed_forward, Gated)
            self.shape: AttentionShape = attention.shape
            qkv, gate_up = attention.qkv.matrices, (*feed_forward.gate.matrices, *feed_forward.up.matrices)
            self.layers.append(
                Layer(
                    put(_vector(checkpoint, block.attention.before)),
                    put(torch.cat([matrix(checkpoint, one) for one in qkv])),
                    put(matrix(checkpoint, attention.out.matrices[0])),
                    put(_vector(checkpoint, block.feed_forward.before)),
                    put(torch.cat([matrix(checkpoint, one) for one in gate_up])),
                    put(matrix(checkpoint, feed_forward.down.matrices[0])),
                )
            )
        assert self.shape.rope is not None
        angles = torch.arange(most, device=device)[:, None] * torch.tensor(
            self.shape.rope.inv_freq, device=device
        )
        self._cos, self._sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def cache(self, slots: int) -> Cache:
        size = (len(self.layers), slots, self.shape.kv_heads, self.most, self.shape.head_dim)
        return Cache(*(torch.zeros(size, dtype=self.table.dtype, device=self.table.device) for _ in range(2)))

    def normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), weight, self.eps).to(x.dtype)

    def whole(
        self,
        tokens: Tensor,
        *,
        keep: Collection[int] = (),
        cache: Cache | None = None,
        slots: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Whole sequences, tokens [n, length]: the inputs of the layers in `keep`, and what the last layer
        leaves, each [n, length, hidden]. Keys and values go to these slots of a cache."""
        length, x = tokens.shape[1], F.embedding(tokens, self.table)
        cos, sin = self._cos[:length], self._sin[:length]
        kept = []
        for number, layer in enumerate(self.layers):
            if number in keep:
                kept.append(x)
            q, k, v = (part.transpose(1, 2) for part in self._heads(self.normed(x, layer.before), layer))
            q, k = self._turned(q, cos, sin), self._turned(k, cos, sin)
            if cache is not None:
                cache.keys[number][slots, :, :length] = k
                cache.values[number][slots, :, :length] = v
            shared = self.shape.heads // self.shape.kv_heads
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.shape.scale)
            x = self._rest(x, mixed.transpose(1, 2).flatten(2), layer)
        return kept, x

    def step(self, tokens: Tensor, positions: Tensor, cache: Cache, attend: Attend) -> Tensor:
        """One token of each slot, [n] each: logits [n, vocab]."""
        rows, x = torch.arange(len(tokens), device=tokens.device), F.embedding(tokens, self.table)
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        for number, layer in enumerate(self.layers):
            q, k, v = self._heads(self.normed(x, layer.before), layer)
            keys, values = cache.keys[number], cache.values[number]
            keys[rows, :, positions] = self._turned(k, cos, sin)
            values[rows, :, positions] = v
            mixed = attend(self._turned(q, cos, sin), keys, values, positions)
            x = self._rest(x, mixed.flatten(1), layer)
        return F.linear(self.normed(x, self.norm), self.output)

    def _heads(self, x: Tensor, layer: Layer) -> tuple[Tensor, ...]:
        s = self.shape
        joined = F.linear(x, layer.qkv).view(*x.shape[:-1], -1, s.head_dim)
        return torch.split(joined, [s.heads, s.kv_heads, s.kv_heads], -2)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(x.float(), cos, sin).to(x.dtype)

    def _rest(self, x: Tensor, mixed: Tensor, layer: Layer) -> Tensor:
        x = x + F.linear(mixed, layer.out)
        gate, up = F.linear(self.normed(x, layer.between), layer.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, layer.down)


def _vector(checkpoint: Checkpoint, norm: Norm | None) -> Tensor:
    assert norm is not None
    return torch.from_numpy(checkpoint.floats(norm.weight.tensor).copy())
