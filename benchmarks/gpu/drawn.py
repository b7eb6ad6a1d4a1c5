"""Models whose weights are drawn on the device, in any shape and format, within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.random_models import SCALES, SPREAD, Mix, Shape, write_outline, write_tokenizer
from outrider.config import EngineConfig, resolve
from outrider.engine.backend import triton_formats
from outrider.engine.build import build_engine
from outrider.engine.engine import Engine
from outrider.formats.format import Floats, Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight, neighbours
from outrider.models.checkpoint import Checkpoint
from outrider.ops.cuda.backend import GpuBackend
from outrider.ops.cuda.formats import GPU_FORMATS
from outrider.ops.cuda.matrix import GpuMatrix

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BYTES: dict[str, dict[int, bytes]] = {  # offset in a block -> what has to stand there beside SCALES
    "MXFP4": {0: bytes([120])},
    "F8_BLOCK": {0: np.float32(1.7e-4).tobytes()},
    "U4_32": {0: np.float16(0.00434).tobytes() + bytes([8])},
    "U4_64": {0: np.float16(0.00434).tobytes() + bytes([8])},
    "U4_128": {0: np.float16(0.00434).tobytes() + bytes([8])},
}
HEADS = {"Q8_CHANNEL": 0.00027, "F8_E4M3": 1.7e-4}  # the float32 before a row
NAN = 127  # the lower bits of float8_e4m3fn's


def drawn(format: Format, rows: int, inputs: int, device: torch.device) -> Tensor:
    """Rows of weights as they are stored, of the spread of trained ones: uint8 [rows, bytes of a row]."""
    name = format.name
    if name in FLOATS:
        values = torch.randn(rows, inputs, device=device, dtype=FLOATS[name]) * SPREAD
        return values.view(torch.uint8)
    data = torch.randint(256, (rows, format.row_bytes(inputs)), dtype=torch.uint8, device=device)
    if name.startswith("F8"):
        data[(data & NAN) == NAN] -= 1
    if format.head:
        _put(data, 0, np.float32(HEADS[name]).tobytes())
    blocks = data[:, format.head :].view(rows, -1, format.size)
    halves = {at: np.float16(value).tobytes() for at, value in SCALES.get(name, {}).items()}
    for at, bytes_there in (halves | BYTES.get(name, {})).items():
        _put(blocks, at, bytes_there)
    return data


def _put(data: Tensor, at: int, what: bytes) -> None:
    data[..., at : at + len(what)] = torch.tensor([*what], dtype=torch.uint8, device=data.device)


def drawn_matrix(format: Format, outputs: int, inputs: int, device: torch.device) -> GpuMatrix:
    kind = GPU_FORMATS[format.name]
    return GpuMatrix(kind, kind.pack(drawn(format, outputs, inputs, device)), outputs, inputs)


class DrawnBackend(GpuBackend):
    """Of a weight that would be read, the shape and the format are all that counts. Vectors are ones.

    read: bytes of the matrices that a token reads."""

    read = 0

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[GpuMatrix, ...]:
        wanted = FORMATS["F32"] if float32 else self._linear
        packed = tuple(
            drawn_matrix(
                wanted or parts[0].format,
                sum(part.shape[0] for part in parts),
                parts[0].inputs,
                self.device,
            )
            for parts in neighbours(weights, wanted)
        )
        self.read += sum(matrix.nbytes for matrix in packed)
        return packed

    def table(self, weight: Weight) -> GpuMatrix:
        return drawn_matrix(self._table or weight.format, *weight.shape, self.device)

    def vector(self, values: Floats) -> Tensor:
        return torch.ones(values.shape, device=self.device)


def drawn_engine(
    shape: Shape, mix: Mix, device: str, *, formats: Format | None = None, **options: Any
) -> Engine:
    """An engine of such a model without drafters. formats: what all its weights are, in place of the mix."""

    def choosing(config: EngineConfig, checkpoint: Checkpoint) -> DrawnBackend:
        found = triton_formats(config, checkpoint)
        linear, table = (formats, formats) if formats is not None else (found.linear, found.table)
        return DrawnBackend(device, linear, table, cache_dtype=found.cache_dtype)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "outline.gguf"
        write_outline(path, shape, mix, write_tokenizer(Path(folder) / "tokenizer.gguf"))
        config = resolve(str(path), device=device, backend="triton", **options)
        return build_engine(config, choosing=choosing)


def read_by_a_token(engine: Engine) -> int:
    """Bytes of the weights that each token reads."""
    backend = engine.target.model.backend
    assert isinstance(backend, DrawnBackend)
    return backend.read
