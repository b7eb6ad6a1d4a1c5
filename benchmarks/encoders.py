"""Turning floats into every weight format, those included that the package only reads.

Formats of GGUF are made by its own libraries: `gguf` in Python, and for the others ggml, which comes with
llama.cpp's Python binding (see peers in README.md); without it those are left out.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from numpy.typing import NDArray

from outrider.formats.channel import FP8_BLOCK
from outrider.formats.format import Bytes, Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.zero_points import u4_rows

E4M3_MOST = 448.0
Encode = Callable[[Floats], Bytes]


def encoders() -> dict[str, Format]:
    """The formats by name, each with an `encode`; without those for which a library is missing."""
    return {name: replace(format, encode=encode) for name, format, encode in _all()}


def _all() -> Iterator[tuple[str, Format, Encode]]:
    ggml = _ggml()
    for name, format in FORMATS.items():
        if name in OWN:
            yield name, format, OWN[name]
        elif name in GGUF:
            yield name, format, partial(_by_gguf, format)
        elif format.encode is not None:
            yield name, format, format.encode
        elif ggml is not None:
            yield name, format, partial(_by_ggml, ggml, format)


def _padded(values: Floats, block: int) -> Floats:
    """Rows of whole blocks, with zeros at the end."""
    return np.ascontiguousarray(np.pad(values, ((0, 0), (0, -values.shape[1] % block))))


def _by_gguf(format: Format, values: Floats) -> Bytes:
    encoded: Bytes = quantize(_padded(values, format.block), GGMLQuantizationType[format.name])
    return encoded


def _ggml() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in (Path(folder) / "lib").glob("*ggml-base.*"):
            ggml = ctypes.CDLL(str(library))
            ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
            return ggml
    return None


def _by_ggml(ggml: ctypes.CDLL, format: Format, values: Floats) -> Bytes:
    """By llama.cpp's own quantisation, without an importance matrix."""
    rows = _padded(values, format.block)
    data = np.empty((len(rows), format.row_bytes(rows.shape[1])), np.uint8)
    floats, place = (array.ctypes.data_as(ctypes.c_void_p) for array in (rows, data))
    first, count, inputs = (ctypes.c_int64(number) for number in (0, *rows.shape))
    kind = ctypes.c_int(GGMLQuantizationType[format.name])
    ggml.ggml_quantize_chunk(kind, floats, place, first, count, inputs, None)
    return data


def _u4(group: int, values: Floats) -> Bytes:
    """A range that holds zero, as quantisers for AWQ and GPTQ have it without a search."""
    groups = _padded(values, group).reshape(len(values), -1, group)
    least, most = groups.min(axis=-1).clip(max=0), groups.max(axis=-1).clip(min=0)
    scales = ((most - least) / np.float32(15)).astype(np.float16)
    factors = np.where(scales == 0, 1, scales).astype(np.float32)
    zeros = np.rint(-least / factors).clip(0, 15)
    codes = (np.rint(groups / factors[..., None]) + zeros[..., None]).clip(0, 15)
    return u4_rows(codes.astype(np.uint8), zeros.astype(np.uint8), scales)


def _e4m3(groups: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Scales [..., 1] and codes of groups that have one each."""
    most = np.abs(groups).max(axis=-1, keepdims=True)
    scales = np.where(most == 0, 1, most / np.float32(E4M3_MOST)).astype(np.float32)
    codes = torch.from_numpy(groups / scales).to(torch.float8_e4m3fn).view(torch.uint8)
    return scales, codes.numpy()


def _f8_e4m3(values: Floats) -> Bytes:
    scales, codes = _e4m3(values)
    return np.concatenate([scales.view(np.uint8), codes], axis=-1)


def _f8_block(values: Floats) -> Bytes:
    scales, codes = _e4m3(_padded(values, FP8_BLOCK).reshape(len(values), -1, FP8_BLOCK))
    return np.concatenate([scales.view(np.uint8), codes], axis=-1).reshape(len(values), -1)


OWN: dict[str, Encode] = {
    "F8_E4M3": _f8_e4m3,
    "F8_BLOCK": _f8_block,
    **{f"U4_{group}": partial(_u4, group) for group in (32, 64, 128)},
}
GGUF = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4")
"""Formats that the library `gguf` makes."""
