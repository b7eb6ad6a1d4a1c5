"""Random heads with everything that a head may have, and what they compute by nothing but PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.models.config import ModelConfig
from outrider.models.head_checkpoint import save_head
from outrider.models.head_config import HeadConfig
from outrider.models.head_parts import head_parts
from outrider.models.leaves import tensors as tensors_of

DRAFT_VOCAB = 96


def random_head(path: Path, target: ModelConfig, layers: int = 1, **changes: Any) -> dict[str, Tensor]:
    """Write a head with every weight random; returns its tensors by public name.

    What two heads have in common, they have in the same values.
    """
    config = HeadConfig.for_target(target, draft_vocab_size=DRAFT_VOCAB, layers=layers)
    config = replace(config, **changes)
    tensors = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(len(name) + sum(name.encode())))
        * (0.2 if len(shape) == 2 else 1.0)
        for name, shape in shapes(config).items()
    }
    draw = torch.Generator().manual_seed(3)
    targets = torch.randperm(target.vocab_size, generator=draw)[: config.draft_vocab_size].sort().values
    save_head(path, config, arrays(tensors), targets.numpy())
    return tensors


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """As `save_head` and `quantized` take them."""
    return {name: values.detach().numpy() for name, values in tensors.items()}


def shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor by its public name, besides the embedding table, which is the target's if it lacks."""
    return {tensor.hf.name: tensor.stored_shape(tensor.hf) for tensor in tensors_of(head_parts(config))}


def edit(path: Path, *gone: str, **added: Tensor) -> None:
    """Leave tensors out of a head's file, and put others in."""
    file = path / "model.safetensors"
    save_file({name: t for name, t in (load_file(file) | added).items() if name not in gone}, file)


def _with_table(path: Path, target: ModelConfig) -> None:
    draw = torch.Generator().manual_seed(8)
    table = torch.randn(target.vocab_size, target.hidden_size, generator=draw) * 0.2
    edit(path, **{"embed_tokens.weight": table})


def _own_table(path: Path, target: ModelConfig) -> None:
    random_head(path, target)
    _with_table(path, target)


def _many_types(path: Path, target: ModelConfig) -> None:
    tensors = random_head(path, target)
    layer = "midlayer.mlp"
    types = {
        f"{layer}.gate_proj.weight": torch.bfloat16,
        f"{layer}.up_proj.weight": torch.float16,
        "midlayer.self_attn.o_proj.weight": torch.float64,
        "midlayer.self_attn.k_proj.weight": torch.bfloat16,
        "norm.weight": torch.float16,
    }
    edit(path, **{name: tensors[name].to(dtype) for name, dtype in types.items()})


def _output_of_target(path: Path, target: ModelConfig) -> None:
    random_head(path, target, draft_vocab_size=target.vocab_size)
    edit(path, "lm_head.weight", "d2t", "t2d")


def _tied_output(path: Path, target: ModelConfig) -> None:
    random_head(path, target, draft_vocab_size=target.vocab_size, tie_word_embeddings=True)
    _with_table(path, target)
    edit(path, "lm_head.weight", "d2t", "t2d")


def _having(**changes: Any) -> Callable[[Path, ModelConfig], Any]:
    return lambda path, target: random_head(path, target, **changes)


FEATURES: dict[str, Callable[[Path, ModelConfig], Any]] = {
    "plain": random_head,
    "norm_before_residual": _having(norm_before_residual=True),
    "norm_before_fc": _having(norm_before_fc=True),
    "fc_norm": _having(fc_norm=True),
    "norm_output": _having(norm_output=True),
    "attention_bias": _having(attention_bias=True),
    "mlp_bias": _having(mlp_bias=True),
    "sliding_window": _having(windows=(5,)),
    "norms of queries and keys": _having(head_norms=True),
    "a part of each head turns": _having(rope_settings={"rope_theta": 500, "partial_rotary_factor": 0.5}),
    "own table": _own_table,
    "the target's output layer": _output_of_target,
    "tied output layer": _tied_output,
    "three layers": _having(layers=3),
    "two layers with everything": _having(
        layers=2,
        windows=(4, 4),
        attention_bias=True,
        mlp_bias=True,
        norm_before_residual=True,
        norm_output=True,
        head_norms=True,
    ),
    "layers that differ": _having(layers=3, windows=(None, 3, None)),
    "four states": _having(state_layers=(1, 2, 5, 8)),
    "one state": _having(state_layers=(4,)),
    "no states": _having(state_layers=None, reads_output=True),
    "many types": _many_types,
}
"""What heads have, by name: each writes a head for a target of 64 and 8 layers."""


def plain_reading(
    path: Path, target: Mapping[str, Tensor], tokens: list[int], states: Tensor, drafted: list[int]
) -> Tensor:
    """Draft logits after the last row of `states` and after each drafted token, from the files alone.

    target: its tensors. tokens: those after each row.
    """
    w = {name: tensor.float() for name, tensor in load_file(path / "model.safetensors").items()}
    config = json.loads((path / "config.json").read_text())
    heads, kv_heads, dim = (config[f] for f in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    table = w.get("embed_tokens.weight", target["model.embed_tokens.weight"])
    output = w.get("lm_head.weight", table if config["tie_word_embeddings"] else target["lm_head.weight"])
    types = config.get("layer_types", ["full_attention"] * config["num_hidden_layers"])
    reaches = [config["sliding_window"] if kind == "sliding_attention" else 10**6 for kind in types]
    turning = int(dim * config.get("partial_rotary_factor", 1))

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        scale: float = (x.pow(2).mean() + config["rms_norm_eps"]).rsqrt().item()
        return x * scale * weight

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def joined(state: Tensor) -> Tensor:
        if not config["eagle_config"]["use_aux_hidden_state"]:
            return norm(state, target["model.norm.weight"])
        if config["norm_before_fc"]:
            state = norm(state, w["input_norm.weight"])
        if config["fc_norm"]:
            parts = enumerate(state.view(-1, config["target_hidden_size"]))
            state = torch.cat([norm(x, w[f"fc_norm.{i}.weight"]) for i, x in parts])
        return linear(state, "fc")

    def turned(x: Tensor, position: int) -> Tensor:
        theta: float = config["rope_theta"]
        angles = position * torch.tensor(theta).pow(-torch.arange(0, turning, 2) / turning)
        cos, sin = angles.cos().repeat(2), angles.sin().repeat(2)
        x, rest = x[..., :turning], x[..., turning:]
        half = turning // 2
        return torch.cat([x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin, rest], -1)

    def heads_of(x: Tensor, name: str) -> Tensor:
        """Each by itself, normed where there is a norm."""
        each = x.view(-1, dim)
        weight = w.get(f"{name}.weight")
        return each if weight is None else torch.stack([norm(one, weight) for one in each])

    cached: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in range(config["num_hidden_layers"])]

    def attended(x: Tensor, number: int, row: int) -> Tensor:
        scope, (keys, values) = f"{names[number]}.self_attn", cached[number]
        q, k, v = (linear(x, f"{scope}.{name}_proj") for name in "qkv")
        reach = reaches[number]
        keys.append(turned(heads_of(k, f"{scope}.k_norm"), row))
        values.append(v.view(kv_heads, dim))
        mixed = []
        for head, query in enumerate(turned(heads_of(q, f"{scope}.q_norm"), row)):
            shared = head * kv_heads // heads
            scores = torch.stack([key[shared] @ query for key in keys[-reach:]]) / dim**0.5
            mixed.append(scores.softmax(0) @ torch.stack([value[shared] for value in values[-reach:]]))
        return linear(torch.cat(mixed), f"{scope}.o_proj")

    names = ["midlayer", *(f"layers.{number}" for number in range(1, len(cached)))]
    state, logits = torch.zeros(0), []
    for row, token in enumerate([*tokens, *drafted]):
        if row < len(states):
            state = joined(states[row])
        for number, name in enumerate(names):
            normed = norm(state, w[f"{name}.{'input_layernorm' if number else 'hidden_norm'}.weight"])
            x = normed
            if number == 0:
                x = torch.cat([norm(table[token], w["midlayer.input_layernorm.weight"]), normed])
                state = normed if config["norm_before_residual"] else state
            state = state + attended(x, number, row)
            y = norm(state, w[f"{name}.post_attention_layernorm.weight"])
            gate, up = (linear(y, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
            state = state + linear(F.silu(gate) * up, f"{name}.mlp.down_proj")
        normed = norm(state, w["norm.weight"])
        logits.append(output @ normed)
        state = normed if config["norm_output"] else state
    return torch.stack(logits[len(states) - 1 :])
