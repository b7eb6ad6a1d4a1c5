"""Random damage to a head's folder, made again by its seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 64, 65, 2**20, 2**31 - 1, 2**31, 2**56, 10**300),
    *(0.0, 0.5, -1.5, 1e-30, 1e300, float("nan"), float("inf")),
    *(
        "",
        "silu",
        "llama",
        "a\nb",
        "x" * 5000,
        [],
        [0],
        [2, 4, 5],
        [4, 2],
        ["2"],
        [[2]],
        [1.5],
        list(range(999)),
    ),
    *({}, {"rope_type": "yarn"}, {"rope_type": "linear", "factor": 0}, {"type": "mrope"}, {"a": {"b": {}}}),
)
KEYS = (
    *("norm_before_fc", "fc_norm", "norm_output", "norm_before_residual", "attention_bias", "mlp_bias"),
    *("eagle_config", "eagle_aux_hidden_state_layer_ids", "transformer_layer_config", "speculators_config"),
    *(
        "rope_scaling",
        "rope_parameters",
        "sliding_window",
        "layer_types",
        "num_aux_hidden_states",
        "num_labels",
    ),
    *("quantization_config", "bias", "medusa_num_heads", "use_aux_hidden_state", "new_field", "id2label"),
)
EXTRA = (
    *("fc.bias", "fc.weight.codes", "fc.weight.scales", "lm_head.weight.codes", "embed_tokens.weight"),
    *("input_norm.weight", "fc_norm.0.weight", "mask_hidden", "layers.0.hidden_norm.weight", "x" * 300),
    *(
        "midlayer.self_attn.q_norm.weight",
        "midlayer.self_attn.o_proj.bias",
        "midlayer.mlp.up_proj.weight.codes",
    ),
)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64, torch.bool)
Tensors = dict[str, Tensor]


def mutate(folder: Path, seed: int) -> str:
    """Damage a head's config.json or its tensors in one to three places; returns what was done."""
    draw = random.Random(seed)
    return "; ".join(
        draw.choice((_config, _config, _tensors))(folder, draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))
    )


def _config(folder: Path, draw: random.Random) -> str:
    file = folder / "config.json"
    if draw.random() < 0.05:
        text = draw.choice(
            ("", "[]", "7", "null", '{"architectures": ', "[" * 50, "\x00", '"LlamaForCausalLM"')
        )
        file.write_text(text)
        return f"config.json is {text!r}"
    try:
        raw = json.loads(file.read_text())
    except ValueError:
        return "nothing"
    if not isinstance(raw, dict):
        return "nothing"
    within = raw
    if draw.random() < 0.2 and isinstance(raw.get("eagle_config"), dict):
        within = raw["eagle_config"]
    key = draw.choice((*within, *KEYS))
    if draw.random() < 0.2:
        within.pop(key, None)
        said = f"no {key}"
    else:
        within[key] = draw.choice(VALUES)
        said = f"{key} = {within[key]!r:.40}"
    file.write_text(json.dumps(raw))
    return said


def _tensors(folder: Path, draw: random.Random) -> str:
    file, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if not file.is_file():
        return "nothing"
    if draw.random() < 0.1:
        content = bytearray(file.read_bytes())
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(min(len(content), 4000))] = draw.randrange(256)
        file.write_bytes(content[: draw.choice((None, draw.randrange(len(content))))])
        return "bytes of the file"
    try:
        tensors = load_file(file)
    except Exception as error:  # damaged before
        return type(error).__name__
    name = draw.choice(sorted(tensors))
    done = draw.choice(TENSOR_MUTATIONS)
    changed = done(tensors, name, draw)
    if draw.random() < 0.2:
        file.unlink()
        torch.save(changed, pickled, _use_new_zipfile_serialization=draw.random() < 0.5)
    else:
        save_file(changed, file)
    return f"{done.__name__} {name}"


def _missing(tensors: Tensors, name: str, draw: random.Random) -> Tensors:
    return {other: tensor for other, tensor in tensors.items() if other != name}


def _extra(tensors: Tensors, name: str, draw: random.Random) -> Tensors:
    return tensors | {draw.choice(EXTRA): tensors[name].clone()}


def _of_dtype(tensors: Tensors, name: str, draw: random.Random) -> Tensors:
    return tensors | {name: tensors[name].to(draw.choice(DTYPES))}


def _of_shape(tensors: Tensors, name: str, draw: random.Random) -> Tensors:
    tensor = tensors[name]
    shapes: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda t: t.reshape(-1),
        lambda t: t.reshape(1, *t.shape),
        lambda t: t.reshape(-1)[:1].reshape(()),
        lambda t: t[:0],
        lambda t: t[:-1],
        lambda t: torch.cat([t, t]),
    )
    return tensors | {name: draw.choice(shapes)(tensor).clone().contiguous()}


def _of_values(tensors: Tensors, name: str, draw: random.Random) -> Tensors:
    value = draw.choice((0, -1, 1, 2**40, float("nan"), float("inf"), 1e38))
    tensor = tensors[name]
    if tensor.is_floating_point():  # full_like refuses what the type holds as an infinity
        return tensors | {name: torch.full_like(tensor, value, dtype=torch.float64).to(tensor.dtype)}
    if not isinstance(value, int):
        value = -(2**62)
    return tensors | {name: torch.full_like(tensor, bool(value) if tensor.dtype == torch.bool else value)}


TENSOR_MUTATIONS = (_missing, _extra, _of_dtype, _of_shape, _of_values)
