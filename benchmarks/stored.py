"""How many bytes the weights of a model have, in its files and in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFReader

from outrider import LLM
from outrider.ops.cpu.backend import NativeBackend

PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")  # of a file that was split
TABLES = ("token_embd.weight", "model.embed_tokens.weight")
OUTPUTS = ("output.weight", "lm_head.weight")


@dataclass(frozen=True)
class Stored:
    """Bytes of tensors. read: of those that every token reads, which is all but for a table of tokens that is
    not the output layer too."""

    total: int
    read: int


def stored_bytes(model: Path) -> Stored:
    """What a GGUF file holds, all parts of one that was split, or a folder of either kind of file."""
    sizes: dict[str, int] = {}
    for file in _files(model):
        sizes |= _gguf(file) if file.suffix == ".gguf" else _safetensors(file)
    total = sum(sizes.values())
    untied = any(name in sizes for name in OUTPUTS)
    return Stored(total, total - sum(sizes.get(name, 0) for name in TABLES if untied))


def _files(model: Path) -> Iterator[Path]:
    if model.is_dir():
        yield from sorted(model.glob("*.safetensors")) or sorted(model.glob("*.gguf"))
    elif part := PART.search(model.name):
        yield from sorted(model.parent.glob(f"{model.name[: part.start()]}-*-of-{part[1]}.gguf"))
    else:
        yield model


def _gguf(file: Path) -> dict[str, int]:
    return {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(file).tensors}


def _safetensors(file: Path) -> dict[str, int]:
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    offsets = {name: about["data_offsets"] for name, about in header.items() if name != "__metadata__"}
    return {name: last - first for name, (first, last) in offsets.items()}


def packed_bytes(llm: LLM) -> int:
    """The bytes of the target's matrices as they lie in memory."""
    backend = llm.engine.target.model.backend
    assert isinstance(backend, NativeBackend), "only the native kernels count what they pack"
    return backend.weight_bytes
