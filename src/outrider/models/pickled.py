"""The tensors of a pytorch_model.bin, which PyTorch reads: imported where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from outrider.errors import ModelError
from outrider.messages import reason
from outrider.models.shards import RawTensor

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls PyTorch's types."""


def open_pickled(file: Path) -> tuple[list[RawTensor], bool]:
    """What a file of safetensors would hold, and whether it lies in the file and can be read from it again.

    Raises ModelError for what is truncated, corrupt, or anything else than names and plain tensors.
    """
    mapped = is_zipfile(file)  # what older versions of PyTorch wrote cannot be mapped
    try:
        held: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # unpickling raises anything
        raise ModelError(f"{file} is truncated or corrupt: {reason(error)}") from error
    tensors = _checked(held, file)
    raw = [_raw(name, tensor, file) for name, tensor in tensors.items()]
    return raw, mapped and all(tensor.is_contiguous() for tensor in tensors.values())


def _checked(held: Any, file: Path) -> dict[str, Tensor]:
    """Tensors of plain memory; what a pickle holds may be anything."""
    if not isinstance(held, dict):
        raise ModelError(f"{file} holds a {type(held).__name__}; names and tensors are needed")
    size = file.stat().st_size
    for name, tensor in held.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(
                f"{file}: {name!r:.80} is a {type(tensor).__name__}; names and tensors are needed"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ModelError(f"{file}: tensor {name!r} is of another layout than plain; store its values")
        if tensor.nbytes > size:  # of strides that read the same values again and again
            raise ModelError(f"{file}: tensor {name!r} has {tensor.nbytes} bytes, and the file {size}")
    return held


def _raw(name: str, tensor: Tensor, file: Path) -> RawTensor:
    """What a file of safetensors would hold."""
    dtype = NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return RawTensor(name, dtype, tuple(tensor.shape), file, data)
