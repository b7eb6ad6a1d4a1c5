"""An EAGLE-3 head as PyTorch trains it, unrolled as it will draft (Li et al., 2025).

Root i of a sequence is a position whose hidden states the target has computed. The first step predicts, from
the states of root i and the token after it, the token after that one; each later step goes on from the head's
own state instead of the target's, as it does when it drafts ("training-time test"). A step's rows attend to
the first step's rows up to their root, and to their own root's rows of the steps between.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from outrider.models.head_config import HeadConfig


class HeadNorm(nn.RMSNorm):
    """In float32, also where the rest is in fewer bits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class HeadAttention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, config: HeadConfig, inputs: int) -> None:
        super().__init__()
        s = config.sizes
        self.heads, self.kv_heads, self.dim = s.heads, s.kv_heads, s.head_dim
        q, kv, bias = self.heads * self.dim, self.kv_heads * self.dim, config.attention_bias
        self.q_proj = nn.Linear(inputs, q, bias=bias)
        self.k_proj = nn.Linear(inputs, kv, bias=bias)
        self.v_proj = nn.Linear(inputs, kv, bias=bias)
        self.o_proj = nn.Linear(q, s.hidden, bias=bias)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """x: [batch, roots, inputs]; cos, sin: [roots, dim]; mask: [roots, roots], added; past: keys and
        values of the steps before, to which this step's are added."""
        batch, roots, _ = x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(batch, roots, heads, self.dim).transpose(1, 2)

        q = rotate(split(self.q_proj(x), self.heads), cos, sin) * self.dim**-0.5
        k = rotate(split(self.k_proj(x), self.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.kv_heads)
        shared = self.heads // self.kv_heads
        past.append((k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)))
        keys, values = past[0]
        scores = [q @ keys.transpose(-1, -2) + mask]
        scores += [(q * own).sum(-1, keepdim=True) for own, _ in past[1:]]
        weights = torch.cat(scores, -1).softmax(-1)
        attended = weights[..., :roots] @ values
        for step, (_, own) in enumerate(past[1:]):
            attended = attended + weights[..., roots + step, None] * own
        joined: Tensor = self.o_proj(attended.transpose(1, 2).reshape(batch, roots, -1))
        return joined


class MLP(nn.Module):
    """A SiLU-gated feed-forward."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class FirstLayer(nn.Module):
    """The decoder layer that reads [embedding, state]; names as in the public layout."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        size, eps = config.sizes.hidden, config.sizes.eps
        self.input_layernorm = HeadNorm(size, eps)
        self.hidden_norm = HeadNorm(size, eps)
        self.self_attn = HeadAttention(config, 2 * size)
        self.post_attention_layernorm = HeadNorm(size, eps)
        self.mlp = MLP(size, config.sizes.inner)

    def forward(
        self,
        embedded: Tensor,
        state: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        x = torch.cat([self.input_layernorm(embedded), self.hidden_norm(state)], -1)
        state = state + self.self_attn(x, cos, sin, mask, past)
        result: Tensor = state + self.mlp(self.post_attention_layernorm(state))
        return result


class FurtherLayer(nn.Module):
    """A layer after the first: a Llama's."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        size, eps = config.sizes.hidden, config.sizes.eps
        self.input_layernorm = HeadNorm(size, eps)
        self.self_attn = HeadAttention(config, size)
        self.post_attention_layernorm = HeadNorm(size, eps)
        self.mlp = MLP(size, config.sizes.inner)

    def forward(
        self, state: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        state = state + self.self_attn(self.input_layernorm(state), cos, sin, mask, past)
        result: Tensor = state + self.mlp(self.post_attention_layernorm(state))
        return result


class HeadNet(nn.Module):
    """The head; `state_dict()` has the names of the public layout."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config, self._rope = config, config.rope
        hidden, eps = config.sizes.hidden, config.sizes.eps
        self.fc = nn.Linear(config.width, hidden, bias=False)
        self.midlayer = FirstLayer(config)
        numbers = range(1, config.sizes.layers)
        self.layers = nn.ModuleDict({str(number): FurtherLayer(config) for number in numbers})
        self.norm = HeadNorm(hidden, eps)
        self.lm_head = nn.Linear(hidden, config.draft_vocab_size, bias=False)

    def matrices(self) -> list[nn.Parameter]:
        """Those of its layers."""
        layers = (self.midlayer, *self.layers.values())
        return [values for layer in layers for values in layer.parameters() if values.dim() == 2]

    def unroll(self, features: Tensor, embedded: Tensor, mask: Tensor, steps: int) -> Iterator[Tensor]:
        """What the output layer gets in each step: [batch, roots, hidden].

        features: the target's states [batch, roots, width]; embedded: of the tokens after each root
        [batch, roots + steps - 1, hidden]; mask: [roots, roots], added to scores, -inf where a root
        is not seen.
        """
        state = self.fc(features)
        roots = features.shape[1]
        past: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(1 + len(self.layers))]
        for step in range(steps):
            cos, sin = self.rotation(torch.arange(step, step + roots, device=state.device), state.dtype)
            state = self.midlayer(embedded[:, step : step + roots], state, cos, sin, mask, past[0])
            for layer, own in zip(self.layers.values(), past[1:], strict=True):
                state = layer(state, cos, sin, mask, own)
            yield self.norm(state)

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin [positions, head_dim] of the rotary embedding."""
        rope = self._rope
        angles = (positions[:, None] * torch.tensor(rope.inv_freq, device=positions.device)).repeat(1, 2)
        return (angles.cos() * rope.factor).to(dtype), (angles.sin() * rope.factor).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al., 2021) of [..., positions, dim], half-split layout."""
    first, second = x.chunk(2, -1)
    rotated: Tensor = x * cos + torch.cat([-second, first], -1) * sin
    return rotated
