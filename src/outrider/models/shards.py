"""The safetensors of a folder: one file, or several with an index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from outrider.errors import ModelError
from outrider.formats.floats import F32, bfloat16_to_float32
from outrider.formats.format import Bytes, Floats
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.messages import listed, reason, shown
from outrider.models.json_file import read_json
from outrider.models.stored import MadeTensor, MappedTensor, StoredTensor, UnreadTensor, inputs_of, map_file

METADATA = "__metadata__"  # what a header holds beside tensors
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_NAME = 255  # bytes of a file's name, on the systems that there are
FLOATS = ("F32", "F16", "BF16")  # types of weights that are used as they are, and of scales
KINDS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""NumPy's types of the same size, by safetensors' names; of BF16 and FP8, integers that hold the bits."""
WRITTEN = {dtype: name for name, dtype in KINDS.items() if name != "F8_E4M3"}
"""The names of NumPy's types in a file that is written; uint16 are the bits of BF16."""


@dataclass(frozen=True)
class RawTensor:
    """A tensor of a safetensors file. dtype: as the file names it; data: its bytes in the mapped file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    data: Bytes

    def array(self) -> NDArray[Any]:
        """The numbers, or their bits: see `KINDS`."""
        return self.data.view(KINDS[self.dtype]).reshape(self.shape)

    def floats(self) -> Floats:
        """float32 of a tensor of floating-point numbers but FP8."""
        numbers = self.array()
        return bfloat16_to_float32(numbers) if self.dtype == "BF16" else numbers.astype(np.float32)

    def stored(self, beside: Sequence[str] = ()) -> StoredTensor:
        """The tensor as a weight, which one of another type than floating-point is not, nor is one of FP8.

        beside: names of what is stored of the same layer, for messages.
        """
        if self.dtype in FLOATS:
            format, rows = FORMATS[self.dtype], math.prod(self.shape[:-1])
            data = self.data.reshape(rows, format.row_bytes(inputs_of(self.shape)))
            return MappedTensor(self.name, self.shape, format, self.file, data)
        if self.dtype == "F64":
            return MadeTensor(self.name, self.shape, F32, self.file, self._float32, [self.data])
        others = [name for name in beside if name != self.name]
        supported = f"is of type {self.dtype}; supported are {', '.join(FLOATS)}, F64"
        more = f": {listed(others)}" if others else ""
        said = f"{supported}; no scheme is known by which others become weights{more}"
        return UnreadTensor(self.name, self.shape, self.file, said)

    def _float32(self) -> Weight:
        rows = self.floats().reshape(-1, inputs_of(self.shape))
        return Weight(F32, rows.view(np.uint8), rows.shape[1])


def open_shards(folder: Path) -> dict[str, RawTensor]:
    """The tensors of a folder, in the order of the files. Raises ModelError for what is missing or broken."""
    index, single = folder / INDEX, folder / SINGLE
    if index.exists():
        return _of_index(index)
    if single.is_file():
        return open_safetensors(single)
    raise ModelError(f"{folder} holds neither {SINGLE} nor {INDEX}")


def _of_index(index: Path) -> dict[str, RawTensor]:
    """All that the files of an index hold, each tensor from the file that the index names for it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{index} has no 'weight_map'; it is truncated or corrupt")
    headers: dict[str, dict[str, RawTensor]] = {}
    for name in weight_map.values():
        if isinstance(name, str) and name in headers:
            continue
        if not _is_bare(name):
            raise ModelError(
                f"{index} names {shown(name)}; it has to be the name of a file in the same folder"
            )
        file = index.parent / name
        if not file.is_file():
            raise ModelError(f"{file} is missing, though {INDEX} names it")
        headers[name] = open_safetensors(file)
    for tensor, name in weight_map.items():
        if tensor not in headers[name]:
            raise ModelError(
                f"{index.parent / name}: tensor {shown(tensor)} is missing, though {INDEX} names it"
            )
    everything = {tensor: stored for header in headers.values() for tensor, stored in header.items()}
    return everything | {tensor: headers[name][tensor] for tensor, name in weight_map.items()}


def _is_bare(name: Any) -> bool:
    """Whether it is the name of a file, and no path to somewhere else."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and not {"/", "\\"} & set(name)
        and name not in ("", ".", "..")
        and len(name.encode("utf-8")) <= LONGEST_NAME
    )


def open_safetensors(file: Path) -> dict[str, RawTensor]:
    """The tensors of one file, whose header the library checks. Raises ModelError."""
    with _reading(file):
        with safe_open(file, framework="np"):
            data = map_file(file)
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        return {
            name: _raw(name, stored, file, data[start:])
            for name, stored in header.items()
            if name != METADATA
        }


def save_safetensors(file: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a file of tensors whose types are in `WRITTEN`. The library's function for NumPy has no BF16."""
    arrays = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()
    }
    header: dict[str, Any] = {}
    end = 0
    # The widest first, so that each begins at a multiple of its width.
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": WRITTEN[array.dtype],
            "shape": list(np.shape(tensors[name])),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.writelines(arrays[name].tobytes() for name in header)


def in_memory(tensors: Mapping[str, NDArray[Any]], file: Path) -> dict[str, RawTensor]:
    """Arrays as a file would hold them that `save_safetensors` writes. file: for messages."""
    found = {}
    for name, values in tensors.items():
        array = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        data = array.reshape(-1).view(np.uint8)
        found[name] = RawTensor(name, WRITTEN[array.dtype], values.shape, file, data)
    return found


def _raw(name: str, stored: Any, file: Path, data: Bytes) -> RawTensor:
    begin, end = stored["data_offsets"]
    return RawTensor(name, stored["dtype"], tuple(stored["shape"]), file, data[begin:end])


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file} is truncated or corrupt: {reason(error)}") from error
