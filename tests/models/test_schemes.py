"""Checkpoints by schemes that are not known are refused by its name, or by the tensors that it left.

Schemes that are known: test_weight_schemes.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.key_tables import NEUTRAL, is_harmless
from outrider.models.schemes import KEYS

WEIGHTS = "model.safetensors"
NAME = "model.layers.0.mlp.down_proj"
MODELOPT = {
    "quant_algo": "FP8",
    "kv_cache_quant_algo": "FP8",
    "group_size": None,
    "exclude_modules": ["lm_head"],
}
PUBLIC: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes in 4 bits": (
        {
            "quantization_config": {
                "_load_in_4bit": True,
                "_load_in_8bit": False,
                "bnb_4bit_compute_dtype": "bfloat16",
                "bnb_4bit_quant_storage": "uint8",
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
                "llm_int8_enable_fp32_cpu_offload": False,
                "llm_int8_has_fp16_weight": False,
                "llm_int8_skip_modules": None,
                "llm_int8_threshold": 6.0,
                "load_in_4bit": True,
                "load_in_8bit": False,
                "quant_method": "bitsandbytes",
            },
            "unsloth_fixed": True,
        },
        "bitsandbytes with load_in_4bit = True",
    ),
    "bitsandbytes in 8 bits, of old": (
        {"quantization_config": {"llm_int8_threshold": 6.0, "load_in_8bit": True}},
        "bitsandbytes with load_in_8bit = True",
    ),
    "quanto": ({"quantization_config": {"quant_method": "quanto", "weights": "int4"}}, "quanto"),
    "HQQ": (
        {
            "quantization_config": {
                "quant_config": {"weight_quant_params": {"axis": 1, "group_size": 64, "nbits": 4}},
                "quant_method": "hqq",
                "skip_modules": ["lm_head"],
            }
        },
        "hqq",
    ),
    "modelopt": (
        {
            "quantization_config": {
                "config_groups": {"group_0": {"targets": ["Linear"]}},
                "ignore": ["lm_head"],
                "producer": {"name": "modelopt", "version": "0.33.0"},
                "quant_algo": "NVFP4",
                "quant_method": "modelopt",
            }
        },
        "modelopt with quant_algo = 'NVFP4'",
    ),
    "AQLM": (
        {
            "quantization_config": {
                "in_group_size": 8,
                "linear_weights_not_to_quantize": ["lm_head.weight"],
                "nbits_per_codebook": 16,
                "num_codebooks": 1,
                "out_group_size": 1,
                "quant_method": "aqlm",
            }
        },
        "aqlm",
    ),
    "torchao": (
        {
            "quantization_config": {
                "modules_to_not_convert": None,
                "quant_method": "torchao",
                "quant_type": "int4_weight_only",
                "quant_type_kwargs": {"group_size": 128},
            }
        },
        "torchao with quant_type = 'int4_weight_only'",
    ),
    "MLX": ({"quantization": {"bits": 4, "group_size": 64}}, "MLX with bits = 4 (quantization)"),
    "MLX, of late": (
        {
            "quantization": {"bits": 4, "group_size": 64, "mode": "affine"},
            "quantization_config": {"bits": 4, "group_size": 64, "mode": "affine"},
        },
        "MLX with bits = 4",
    ),
    "EETQ": (
        {
            "quantization_config": {
                "modules_to_not_convert": ["lm_head"],
                "quant_method": "eetq",
                "weights": "int8",
            }
        },
        "eetq",
    ),
    "GGUF in transformers": (
        {
            "quantization_config": {
                "compute_dtype": "float32",
                "modules_to_not_convert": [],
                "quant_method": "gguf",
            }
        },
        "gguf",
    ),
    "a list": ({"quantization_config": ["gptq"]}, "['gptq'] (quantization_config)"),
}
"""Configurations of quantised checkpoints, by hand from their documentation, and what is said of them."""
FILES: dict[str, tuple[str, dict[str, Any], str]] = {
    "modelopt": (
        "hf_quant_config.json",
        {"producer": {"name": "modelopt", "version": "0.19.0"}, "quantization": MODELOPT},
        "modelopt with quant_algo = 'FP8' (hf_quant_config.json)",
    ),
}


def edit_tensors(folder: Path, **changes: Tensor | None) -> None:
    """Replace tensors, add them, or take them out; names with dots as keywords."""
    file = folder / WEIGHTS
    tensors = load_file(file) | changes
    file.unlink()  # it may be mapped
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(folder))
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", PUBLIC)
def test_schemes_are_refused_by_name(folder: Path, name: str) -> None:
    keys, said = PUBLIC[name]
    file = folder / "config.json"
    plain = file.read_text()
    raw = json.loads(plain) | keys
    file.write_text(json.dumps(raw))
    refused = refusal(folder)
    assert f"weights quantised by {said}" in refused
    assert "supported are fp8, fbgemm_fp8, awq, gptq, compressed-tensors, mxfp4, unquantised" in refused
    known = NEUTRAL.keys() | KEYS.keys() | json.loads(plain).keys()
    assert not [key for key in raw if key not in known and not is_harmless(key)]


@pytest.mark.parametrize("name", FILES)
def test_schemes_in_a_file_of_their_own(folder: Path, name: str) -> None:
    file, content, said = FILES[name]
    (folder / file).write_text(json.dumps(content))
    assert f"weights quantised by {said}" in refusal(folder)


def codes(dtype: torch.dtype, rows: int = 16, columns: int = 16) -> Tensor:
    return torch.ones(rows, columns).to(dtype)


LEFT: dict[str, dict[str, Tensor | None]] = {
    "FP8": {
        "weight": codes(torch.float8_e4m3fn),
        "weight_scale": torch.ones(1),
        "input_scale": torch.ones(1),
    },
    "W8A8": {"weight": codes(torch.int8), "weight_scale": torch.ones(16, 1)},
    "GPTQ": {
        "weight": None,
        "qweight": codes(torch.int32, 2),
        "qzeros": codes(torch.int32, 1, 2),
        "scales": codes(torch.float16, 1),
        "g_idx": torch.zeros(16, dtype=torch.int32),
    },
    "AWQ": {"weight": None, "qweight": codes(torch.int32, 16, 2), "qzeros": codes(torch.int32, 1, 2)},
    "pack-quantized": {
        "weight": None,
        "weight_packed": codes(torch.int32, 16, 2),
        "weight_shape": torch.ones(2),
    },
    "bitsandbytes": {"weight": codes(torch.uint8, 128, 1), "weight.absmax": torch.ones(4)},
    "MLX": {"weight": codes(torch.uint32, 16, 2), "scales": torch.ones(16, 1), "biases": torch.ones(16, 1)},
    "scales of what was upcast": {"weight_scale": torch.ones(1)},
    "booleans": {"weight": codes(torch.bool)},
}
"""What a scheme leaves in a layer where a user has deleted its configuration."""


@pytest.mark.parametrize("scheme", LEFT)
def test_tensors_of_a_scheme_without_its_configuration(folder: Path, scheme: str) -> None:
    tensors = LEFT[scheme]
    edit_tensors(folder, **{f"{NAME}.{part}": tensor for part, tensor in tensors.items()})
    said = refusal(folder)
    for part in tensors:
        assert f"{NAME}.{part}'" in said
    if (weight := tensors.get("weight")) is not None:
        assert "supported are F32, F16, BF16" in said
        assert weight.dtype not in (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.input_layernorm.weight"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e5m2])
def test_vectors_of_other_types(folder: Path, name: str, dtype: torch.dtype) -> None:
    edit_tensors(folder, **{name: torch.ones(16).to(dtype)})
    assert f"tensor {name!r} is of type" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "score.weight",
    ],
)
def test_other_tensors_that_are_not_read(folder: Path, name: str) -> None:
    edit_tensors(folder, **{name: torch.ones(3)})
    assert f"{folder} has tensors that are not read, 1 in all: {name!r}" in refusal(folder)


def test_only_a_few_tensors_are_named(folder: Path) -> None:
    edit_tensors(folder, **{f"model.layers.{i}.mlp.down_proj.x{i}": torch.ones(1) for i in range(9)})
    said = refusal(folder)
    assert "has tensors that are not read, 9 in all" in said
    assert "'model.layers.0.mlp.down_proj.x0'" in said
    assert said.endswith("and 5 more")


def test_buffers_of_older_versions_need_not_be_read(folder: Path) -> None:
    """They were computed from the configuration, as here."""
    layer = "model.layers.0.self_attn"
    buffers = {f"{layer}.rotary_emb.inv_freq": torch.ones(2), f"{layer}.masked_bias": torch.ones(1)}
    edit_tensors(folder, **buffers)
    open_checkpoint(str(folder))


@pytest.mark.parametrize("same", [True, False])
def test_an_output_layer_that_is_tied_has_to_be_the_table(folder: Path, same: bool) -> None:
    """It is not read, which changes nothing only if it is equal."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    table = load_file(folder / WEIGHTS)["model.embed_tokens.weight"]
    edit_tensors(folder, **{"lm_head.weight": table.clone() if same else table + 1})
    checkpoint = open_checkpoint(str(folder))
    tensor = checkpoint.config.tree.table.tensor
    if same:
        assert torch.equal(torch.from_numpy(checkpoint.weight(tensor).dequantize()), table)
    else:
        with pytest.raises(ModelError, match="tie_word_embeddings has to be false"):
            checkpoint.weight(tensor)
