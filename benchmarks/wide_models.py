"""The tiny models of the tests, made wide: a few layers of every family whose weights are tens of megabytes,
and a Llama in every weight format of files. What they say is noise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.formats.registry import FORMATS as ALL
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf
from tests.models.families.table import FAMILIES as TINY

FAMILIES = tuple(TINY)
FORMATS = (*(name for name in ALL if name in GGMLQuantizationType.__members__), "fp8", "gptq")
WIDE = {
    "vocab_size": 2048,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
}
INNER, OF_EXPERT, HEAD_DIM = 2048, 512, 64
TIMES = 3  # as many layers as the tiny models have
GROUP = 128  # inputs that share a scale


def write_tiny(path: Path) -> Path:
    write_hf(path, tiny_config())
    return path


def write_family(folder: Path, name: str) -> Path:
    """In bfloat16; the one that was written before is taken away."""
    return _write(folder / "model", _wide(TINY[name].config()))[0]


def write_format(folder: Path, name: str) -> Path:
    """A Llama in a format of GGUF, or quantised by a scheme; what was written before is taken away."""
    path, model = _write(folder / "model", _wide(tiny_config()))
    if name in ALL:
        file = folder / "model.gguf"
        file.unlink(missing_ok=True)
        write_gguf(file, model, tiny_tokenizer(), GGMLQuantizationType[name])
        return file
    _quantise(path, name)
    return path


def _wide(config: Any) -> Any:
    raw = config.to_dict()
    experts = raw.get("num_local_experts") is not None and "moe_intermediate_size" not in raw
    wide = WIDE | {"intermediate_size": OF_EXPERT if experts else INNER}
    if raw.get("head_dim") is not None:
        wide["head_dim"] = HEAD_DIM
    if "moe_intermediate_size" in raw:
        wide["moe_intermediate_size"] = OF_EXPERT
    wide["num_hidden_layers"] = TIMES * raw["num_hidden_layers"]
    for each in ("layer_types", "no_rope_layers"):
        if raw.get(each) is not None:
            wide[each] = TIMES * raw[each]
    rope = raw.get("rope_parameters") or {}
    if rope.get("rope_type") == "longrope":
        pairs = int(HEAD_DIM * rope.get("partial_rotary_factor", 1.0)) // 2
        rope |= dict.fromkeys(("short_factor", "long_factor"), [1.0] * pairs)
    return type(config)(**raw | wide)


def _write(path: Path, config: Any) -> tuple[Path, Any]:
    shutil.rmtree(path, ignore_errors=True)
    model = write_hf(path, config)
    model.to(torch.bfloat16).save_pretrained(path)
    return path, model


def _quantise(path: Path, scheme: str) -> None:
    """Random codes in place of all linear layers' weights but the output layer's."""
    file = path / "model.safetensors"
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(file).items():
        if name.endswith("proj.weight"):
            layer = name.removesuffix(".weight")
            tensors |= {f"{layer}.{end}": part for end, part in PARTS[scheme](*tensor.shape)}
        else:
            tensors[name] = tensor.clone()
    file.unlink()
    save_file(tensors, file)
    raw = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(raw | {"quantization_config": SETTINGS[scheme]}))


def _fp8(outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    yield "weight", torch.randn(outputs, inputs).to(torch.float8_e4m3fn)
    yield "weight_scale", torch.full((outputs, 1), 0.02)


def _gptq(outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    def words(*shape: int) -> Tensor:
        return torch.randint(-(2**31), 2**31, shape, dtype=torch.int64).to(torch.int32)

    yield "qweight", words(inputs // 8, outputs)
    yield "qzeros", words(inputs // GROUP, outputs // 8)
    yield "scales", torch.full((inputs // GROUP, outputs), 0.005, dtype=torch.float16)


PARTS = {"fp8": _fp8, "gptq": _gptq}
SETTINGS: dict[str, dict[str, Any]] = {
    "fp8": {
        "quant_method": "fbgemm_fp8",
        "activation_scale_ub": 1200.0,
        "modules_to_not_convert": ["lm_head"],
    },
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False},
}
