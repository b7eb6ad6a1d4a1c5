"""Files of random weights in the shapes of models that people run, which no cache holds; and outlines of such
files, of which only the headers are written, for weights that are drawn where they are used.

What such a model says is noise. It has SmolLM2's tokenizer, with tokens that no text becomes up to the size
of its vocabulary. Time and memory do not depend on what weights are, but equal rows would tie, so blocks are
random bytes, with scales that give weights the spread of trained ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

Described = tuple[str, int, int, GGMLQuantizationType]
"""A tensor: its name, rows, inputs and type; a vector has no rows."""
CONTEXT = 8192
UNUSED = 5  # of llama.cpp's types of tokens
ALIGNED = 32  # bytes that a tensor begins at
BLOCKS = 299_993  # random ones of a type, which tensors repeat: a prime, so that no two rows of one are equal
SPREAD = 0.02  # standard deviation of weights and biases
SCALES = {  # offset in a block -> float16 with which random codes have that spread around zero
    "Q4_0": {0: 0.00434},
    "Q4_1": {0: 0.00434, 2: -0.0325},
    "Q5_0": {0: 0.00217},
    "Q5_1": {0: 0.00217, 2: -0.0336},
    "Q8_0": {0: 0.00027},
    "IQ4_NL": {0: 0.00028},
    "IQ4_XS": {0: 1.6e-5},
    "Q2_K": {80: 0.00144, 82: 0.00216},
    "Q3_K": {108: 4.6e-4},
    "Q4_K": {0: 7.8e-5, 2: 5.85e-4},
    "Q5_K": {0: 3.8e-5, 2: 5.85e-4},
    "Q6_K": {208: 1.46e-5},
}


@dataclass(frozen=True)
class Shape:
    """tied: the table of tokens is the output layer too; biases: of queries, keys and values."""

    architecture: str
    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    rope_base: float
    tied: bool = False
    biases: bool = False


@dataclass(frozen=True)
class Mix:
    """The types that llama.cpp gives matrices: `more` to the output layer, and to values and down projections
    of half of the layers if `by_layer`. `table`: of a table of tokens that is not the output layer."""

    most: str
    table: str
    more: str
    by_layer: bool = False

    def type_of(self, part: str, layer: int, layers: int) -> str:
        if part == "token_embd":
            return self.table
        if part == "output" or (
            part in ("attn_v", "ffn_down") and self.by_layer and _favoured(layer, layers)
        ):
            return self.more
        return self.most


def _favoured(layer: int, layers: int) -> bool:
    """Whether llama.cpp gives the layer more bits (src/llama-quant.cpp, `use_more_bits`)."""
    first = layers // 8
    return layer < first or layer >= 7 * layers // 8 or (layer - first) % 3 == 2


SHAPES = {
    "1.5B": Shape("llama", 49152, 1536, 8960, 28, 12, 2, 1e5, tied=True),
    "qwen2-1.5B": Shape("qwen2", 151936, 1536, 8960, 28, 12, 2, 1e6, biases=True),
    "8B": Shape("llama", 128256, 4096, 14336, 32, 32, 8, 5e5),
}
"""Qwen2.5-1.5B as a Llama with SmolLM2's vocabulary, Qwen2.5-1.5B, and Llama-3-8B."""
MIXES = {
    "BF16": Mix("BF16", "BF16", "BF16"),
    "Q8_0": Mix("Q8_0", "Q8_0", "Q8_0"),
    "Q4_0": Mix("Q4_0", "Q4_0", "Q6_K"),
    "Q4_1": Mix("Q4_1", "Q8_0", "Q8_0"),
    "Q4_K_M": Mix("Q4_K", "Q4_K", "Q6_K", by_layer=True),
}
NAMES = ("1.5B-BF16", "1.5B-Q8_0", "1.5B-Q4_1", "1.5B-Q4_K_M", "qwen2-1.5B-Q4_K_M", "8B-Q4_0", "8B-Q4_K_M")


def write(path: Path, name: str, like: GGUFReader) -> None:
    """Write one of `NAMES`, a tensor at a time. like: the file whose tokenizer it gets."""
    shape_name, _, mix_name = name.rpartition("-")
    write_random(path, SHAPES[shape_name], MIXES[mix_name], like)


def write_random(path: Path, shape: Shape, mix: Mix, like: GGUFReader, *, blocks: int = BLOCKS) -> None:
    tensors = list(_tensors(shape, mix))
    writer = _with_headers(path, shape, tensors, like)
    draw = np.random.default_rng(0)
    pools: dict[GGMLQuantizationType, NDArray[np.uint8]] = {}
    for name, rows, inputs, kind in tensors:
        if rows:
            pool = pools[kind] if kind in pools else pools.setdefault(kind, _blocks(kind, blocks, draw))
            count = rows * _row_bytes(inputs, kind) // pool.shape[1]
            writer.write_tensor_data(_taken(pool, int(draw.integers(len(pool))), count))
        elif name.endswith("bias"):
            writer.write_tensor_data(SPREAD * draw.standard_normal(inputs, dtype=np.float32))
        else:
            writer.write_tensor_data(np.ones(inputs, dtype=np.float32))
    writer.close()


def write_outline(path: Path, shape: Shape, mix: Mix, like: GGUFReader) -> None:
    """A file with headers alone: its tensors are a hole, which takes no place on a disk and is read as
    zeros."""
    tensors = list(_tensors(shape, mix))
    _with_headers(path, shape, tensors, like).close()
    sizes = [path.stat().st_size, *(max(rows, 1) * _row_bytes(n, kind) for _, rows, n, kind in tensors)]
    os.truncate(path, sum(-(-size // ALIGNED) * ALIGNED for size in sizes))


def write_tokenizer(path: Path) -> GGUFReader:
    """A file with a byte-level tokenizer of 258 tokens, and nothing else."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "<|endoftext|>"])
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(257)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return GGUFReader(path)


def _with_headers(path: Path, shape: Shape, tensors: Sequence[Described], like: GGUFReader) -> GGUFWriter:
    """A file of which all is written but the tensors' data."""
    writer = GGUFWriter(path, shape.architecture)
    _add_settings(writer, shape)
    _add_tokenizer(writer, shape.vocab, like)
    for name, rows, inputs, kind in tensors:
        size = _row_bytes(inputs, kind)
        dims = (rows, size) if rows else (size,)
        writer.add_tensor_info(name, dims, np.dtype(np.uint8), max(rows, 1) * size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def _add_settings(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_quantization_version(2)


def _add_tokenizer(writer: GGUFWriter, vocab: int, like: GGUFReader) -> None:
    for name, field in like.fields.items():
        if not name.startswith("tokenizer."):
            continue
        value = field.contents()
        if name == "tokenizer.ggml.tokens":
            value = [*value, *(f"[UNUSED_{i}]" for i in range(len(value), vocab))]
        elif name == "tokenizer.ggml.token_type":
            value = [*value, *[UNUSED] * (vocab - len(value))]
        sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type)


def _tensors(shape: Shape, mix: Mix) -> Iterator[Described]:
    hidden, inner, head_dim = shape.hidden, shape.inner, shape.hidden // shape.heads
    kv = shape.kv_heads * head_dim
    vector = GGMLQuantizationType.F32

    def matrix(name: str, part: str, rows: int, inputs: int, layer: int = 0) -> Described:
        return name, rows, inputs, GGMLQuantizationType[mix.type_of(part, layer, shape.layers)]

    yield matrix("token_embd.weight", "output" if shape.tied else "token_embd", shape.vocab, hidden)
    if not shape.tied:
        yield matrix("output.weight", "output", shape.vocab, hidden)
    yield "output_norm.weight", 0, hidden, vector
    for layer in range(shape.layers):
        for part in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{part}.weight", 0, hidden, vector
        for part, rows, inputs in (
            ("attn_q", hidden, hidden),
            ("attn_k", kv, hidden),
            ("attn_v", kv, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            yield matrix(f"blk.{layer}.{part}.weight", part, rows, inputs, layer)
            if shape.biases and part in ("attn_q", "attn_k", "attn_v"):
                yield f"blk.{layer}.{part}.bias", 0, rows, vector


def _row_bytes(inputs: int, kind: GGMLQuantizationType) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    return int(inputs // block * size)


def _blocks(kind: GGMLQuantizationType, count: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """Random ones: uint8 [count, bytes of one]."""
    if kind == GGMLQuantizationType.BF16:
        floats = SPREAD * draw.standard_normal(count, dtype=np.float32)
        return floats.view(np.uint8).reshape(count, 4)[:, 2:]  # the upper half of a float32
    size = GGML_QUANT_SIZES[kind][1]
    blocks = draw.integers(256, size=(count, size), dtype=np.uint8)
    for offset, scale in SCALES[kind.name].items():
        blocks[:, offset : offset + 2] = np.array([scale], dtype="<f2").view(np.uint8)
    return blocks


def _taken(pool: NDArray[np.uint8], start: int, count: int) -> NDArray[np.uint8]:
    """So many blocks from `start` on, and from the first again after the last."""
    whole = np.empty((count, pool.shape[1]), dtype=np.uint8)
    at = 0
    while at < count:
        part = pool[start : start + count - at]
        whole[at : at + len(part)] = part
        at, start = at + len(part), 0
    return whole
