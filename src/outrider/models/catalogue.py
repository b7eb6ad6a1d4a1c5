"""What runs, as tables: families of models and weight formats."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.formats.registry import FORMATS
from outrider.models.registry import FAMILIES

FILES = {
    **dict.fromkeys(("F32", "F16", "BF16"), "GGUF, safetensors"),
    "Q8_0": "GGUF, compressed-tensors int8 in groups",
    "Q4_0": "GGUF, quantization='int4'",
    "MXFP4": "GGUF, MXFP4 safetensors",
    "Q8_CHANNEL": "compressed-tensors int8, quantization='int8'",
    **dict.fromkeys(("F8_E4M3", "F8_BLOCK"), "FP8, compressed-tensors float8"),
    **dict.fromkeys(("U4_32", "U4_64", "U4_128"), "AWQ, GPTQ, compressed-tensors int4"),
}
"""Where formats come from that are not GGUF's alone."""


@dataclass(frozen=True)
class FamilyRow:
    """architecture: in config.json; gguf: `general.architecture` of GGUF files, '-' where llama.cpp has
    none."""

    name: str
    architecture: str
    gguf: str


@dataclass(frozen=True)
class FormatRow:
    """bits: of a weight, scales included; comes_from: the files that have it."""

    name: str
    bits: float
    comes_from: str


def families() -> list[FamilyRow]:
    """In the order of the registry."""
    return [FamilyRow(family.name, family.architecture, family.gguf or "-") for family in FAMILIES]


def formats() -> list[FormatRow]:
    """In the order of the registry."""
    return [
        FormatRow(name, round(format.bits, 2), FILES.get(name, "GGUF")) for name, format in FORMATS.items()
    ]
