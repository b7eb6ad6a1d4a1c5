"""A student as PyTorch trains it: a plain Llama of a few narrow layers (Touvron et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from outrider.models.config import ModelConfig
from outrider.training.net import MLP, HeadNorm, rotate

LAYERS, SHARE = 3, 3  # layers of a student, and how many times narrower than its target it is
HEAD_DIM = 32
THETA = 10_000.0
SPREAD = 0.02  # standard deviation of the weights that training starts from


@dataclass(frozen=True)
class StudentConfig:
    """vocab, positions, eps and eos are the target's."""

    vocab: int
    hidden: int
    inner: int
    heads: int
    positions: int
    eps: float
    eos: tuple[int, ...]

    @classmethod
    def for_target(cls, target: ModelConfig) -> StudentConfig:
        heads = max(1, round(target.hidden_size / SHARE / HEAD_DIM))
        hidden = heads * HEAD_DIM
        inner = hidden * 8 // 3 // 32 * 32 or 32
        eps = target.tree.norm.eps
        return cls(
            target.vocab_size, hidden, inner, heads, target.max_position_embeddings, eps, target.eos_token_ids
        )

    def as_json(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "rope_theta": THETA,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.eps,
            "tie_word_embeddings": True,
            "eos_token_id": list(self.eos),
            "torch_dtype": "bfloat16",
        }


class StudentAttention(nn.Module):
    """Causal attention."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.k_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.v_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [batch, rows, hidden]; cos, sin: [rows, head_dim]."""
        q, k, v = (
            layer(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        joined: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return joined


class StudentLayer(nn.Module):
    """A decoder layer; names as in the public layout."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.input_layernorm = HeadNorm(config.hidden, config.eps)
        self.self_attn = StudentAttention(config)
        self.post_attention_layernorm = HeadNorm(config.hidden, config.eps)
        self.mlp = MLP(config.hidden, config.inner)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class StudentLayers(nn.Module):
    """All but the output layer."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(StudentLayer(config) for _ in range(LAYERS))
        self.norm = HeadNorm(config.hidden, config.eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """What the output layer gets: [batch, rows, hidden]."""
        x: Tensor = self.embed_tokens(tokens)
        frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2, device=x.device) / HEAD_DIM)
        angles = (torch.arange(x.shape[1], device=x.device)[:, None] * frequencies).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        result: Tensor = self.norm(x)
        return result


class StudentNet(nn.Module):
    """The student; `state_dict()` has the names of the public layout. Its output layer is its table."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.model = StudentLayers(config)
        for values in self.parameters():
            if values.dim() == 2:
                nn.init.normal_(values, std=SPREAD)

    def matrices(self) -> list[nn.Parameter]:
        """Those of its layers."""
        return [values for values in self.model.layers.parameters() if values.dim() == 2]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [batch, rows, vocab] of tokens [batch, rows]."""
        return F.linear(self.model(tokens), self.model.embed_tokens.weight)
