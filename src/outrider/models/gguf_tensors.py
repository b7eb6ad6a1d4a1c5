"""A GGUF model, in one file or several: its metadata, and its tensors in our formats."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from outrider.formats.registry import FORMATS
from outrider.models.gguf_header import GGUFHeader, TensorInfo
from outrider.models.gguf_split import read_parts
from outrider.models.gguf_substitutes import SUBSTITUTES, substitute
from outrider.models.stored import MadeTensor, MappedTensor, StoredTensor, UnreadTensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GGUFFile:
    """path: of the first part; metadata: of the same; tensors: of all parts, by llama.cpp's names."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def open_gguf(path: Path) -> GGUFFile:
    """A model of which `path` is the file, or any part. Raises ModelError."""
    headers = read_parts(path)
    _tell(headers)
    tensors = {
        name: stored_tensor(info, header) for header in headers for name, info in header.tensors.items()
    }
    return GGUFFile(headers[0].path, headers[0].metadata, tensors)


def stored_tensor(info: TensorInfo, header: GGUFHeader) -> StoredTensor:
    name, type, shape, path = info.name, info.type, info.shape, header.path
    data = header.data[info.offset : info.offset + info.nbytes].reshape(info.rows, -1)
    if type.name in FORMATS:
        return MappedTensor(name, shape, FORMATS[type.name], path, data)
    if type.name in SUBSTITUTES:
        make = partial(substitute, type, data, shape[-1])
        return MadeTensor(name, shape, FORMATS[SUBSTITUTES[type.name]], path, make, [data])
    supported = ", ".join([*(name for name in FORMATS if name in type.__class__.__members__), *SUBSTITUTES])
    return UnreadTensor(name, shape, path, f"is of type {type.name}; supported are {supported}")


def _tell(headers: Sequence[GGUFHeader]) -> None:
    """Say once what becomes of each type that is not computed with."""
    types = {info.type.name for header in headers for info in header.tensors.values()}
    for name in sorted(types & SUBSTITUTES.keys()):
        logger.warning("%s: tensors of type %s become %s", headers[0].path, name, SUBSTITUTES[name])
