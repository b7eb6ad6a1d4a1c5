"""The tensors of a head on disk: model.safetensors, or pytorch_model.bin, by their public names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from outrider.errors import ModelError
from outrider.messages import reason

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
LAYER = "midlayer."
OTHER_LAYER = "layers.0."  # Speculators' and vLLM's name of the same
BUFFERS = "rotary_emb.inv_freq"  # end of a name; config.json says the same


@dataclass(frozen=True)
class HeadFile:
    """What a file holds, by the names of the EAGLE repository.

    mapped: whether tensors lie in the file, and are read from it again after their pages were given back.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    mapped: bool

    @classmethod
    def open(cls, folder: Path) -> HeadFile:
        """Raises ModelError for what is missing, broken, or no file of tensors."""
        single, pickled = folder / SAFETENSORS, folder / PICKLED
        file = single if single.is_file() else pickled
        if not file.is_file():
            raise ModelError(f"{folder} holds neither {SAFETENSORS} nor {PICKLED}")
        # What older versions of PyTorch wrote cannot be mapped.
        mapped = file is single or is_zipfile(file)
        try:
            if file is single:
                held: Any = load_file(file)
            else:
                held = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # unpickling raises anything
            raise ModelError(f"{file} is truncated or corrupt: {reason(error)}") from error
        tensors = dict(_named(held, file))
        mapped = mapped and all(tensor.is_contiguous() for tensor in tensors.values())
        return cls(file, {name: tensor.contiguous() for name, tensor in tensors.items()}, mapped)


def tensor_names(folder: Path) -> set[str]:
    """Names in a folder's safetensors as they are stored, from the header alone; none where there is none."""
    file = folder / SAFETENSORS
    try:
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError, ValueError):
        return set()


def _named(held: Any, file: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of plain memory with its public name; what a pickle holds may be anything."""
    if not isinstance(held, dict):
        raise ModelError(f"{file} holds a {type(held).__name__}; names and tensors are needed")
    size = file.stat().st_size
    seen: set[str] = set()
    for stored, tensor in held.items():
        if not isinstance(stored, str) or not isinstance(tensor, Tensor):
            raise ModelError(
                f"{file}: {stored!r:.80} is a {type(tensor).__name__}; names and tensors are needed"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ModelError(f"{file}: tensor {stored!r} is of another layout than plain; store its values")
        if tensor.nbytes > size:  # of strides that read the same values again and again
            raise ModelError(f"{file}: tensor {stored!r} has {tensor.nbytes} bytes, and the file {size}")
        name = stored.removeprefix("model.")
        if name.startswith(OTHER_LAYER):
            name = LAYER + name.removeprefix(OTHER_LAYER)
        if name in seen:
            raise ModelError(f"{file}: tensor {stored!r} is there twice, under another name too")
        seen.add(name)
        if not name.endswith(BUFFERS):
            yield name, tensor.detach()
