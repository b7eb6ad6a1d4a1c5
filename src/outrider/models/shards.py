"""The safetensors of a folder: one file, or several with an index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from outrider.errors import ModelError
from outrider.messages import reason, shown
from outrider.models.json_file import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_NAME = 255  # bytes of a file's name, on the systems that there are


@dataclass(frozen=True)
class Stored:
    """Where a tensor is, and what the header of its file says of it. dtype: as safetensors names it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class WeightFiles:
    """Files are memory-mapped and read one tensor at a time. Raises ModelError for what is missing or broken.

    tensors: by name, in the order of the files.
    """

    def __init__(self, folder: Path) -> None:
        index, single = folder / INDEX, folder / SINGLE
        if index.exists():
            self.tensors = _of_index(index)
        elif single.is_file():
            self.tensors = _header(single)
        else:
            raise ModelError(f"{folder} holds neither {SINGLE} nor {INDEX}")
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def read(self, name: str) -> Tensor:
        """A tensor that is there, in the memory of the file."""
        file = self.tensors[name].file
        with _reading(file):
            if file not in self._open:
                self._open[file] = self._stack.enter_context(safe_open(file, framework="pt"))
            tensor: Tensor = self._open[file].get_tensor(name)
        return tensor


def _of_index(index: Path) -> dict[str, Stored]:
    """All that the files of an index hold, each tensor from the file that the index names for it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{index} has no 'weight_map'; it is truncated or corrupt")
    headers: dict[str, dict[str, Stored]] = {}
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
        headers[name] = _header(file)
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


def _header(file: Path) -> dict[str, Stored]:
    with _reading(file), safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: Stored(file, str(s.get_dtype()), tuple(s.get_shape())) for name, s in slices.items()}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file} is truncated or corrupt: {reason(error)}") from error
