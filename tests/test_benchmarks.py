"""The files that benchmarks write, and what they count. What they measure is no test's pass condition."""

from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

from benchmarks.encoders import encoders
from benchmarks.loading import Loaded, forget, rows
from benchmarks.peers.base import PROMPT
from benchmarks.peers.llamacpp import Batches
from benchmarks.peers.measure import Measured, Result
from benchmarks.peers.report import rows as peer_rows
from benchmarks.peers.report import table
from benchmarks.random_models import MIXES, SHAPES, SPREAD, write_outline, write_random, write_tokenizer
from benchmarks.stored import packed_bytes, stored_bytes
from outrider import LLM, SamplingParams
from outrider.formats.convert import convert
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight

FEW = 9973  # random blocks, in place of 299,993
SMALL: dict[str, Any] = {
    "hidden": 256,
    "inner": 512,
    "layers": 8,
    "heads": 4,
    "kv_heads": 2,
    "vocab": 288,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> GGUFReader:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.gguf")


def test_a_mixed_file_is_as_llama_cpp_would_make_it(tokenizer: GGUFReader, tmp_path: Path) -> None:
    """The first of 8 layers, the last, and every third between them have more bits."""
    path, shape = tmp_path / "random.gguf", replace(SHAPES["qwen2-1.5B"], **SMALL)
    write_random(path, shape, MIXES["Q4_K_M"], tokenizer, blocks=FEW)
    reader = GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "qwen2"
    assert len(set(reader.fields["tokenizer.ggml.tokens"].contents())) == SMALL["vocab"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    more = {name for name, tensor in tensors.items() if tensor.tensor_type.name == "Q6_K"}
    favoured = {f"blk.{layer}.{part}.weight" for layer in (0, 3, 6, 7) for part in ("attn_v", "ffn_down")}
    assert more == favoured | {"output.weight"}
    assert tensors["token_embd.weight"].tensor_type.name == "Q4_K"
    assert tensors["blk.7.attn_k.bias"].data.std() == pytest.approx(SPREAD, rel=0.3)
    size = stored_bytes(path)
    assert size.total == sum(tensor.n_bytes for tensor in reader.tensors)
    assert size.read == size.total - tensors["token_embd.weight"].n_bytes


@pytest.mark.parametrize("mix", MIXES)
def test_random_weights_spread_like_trained_ones_and_run(
    mix: str, tokenizer: GGUFReader, tmp_path: Path
) -> None:
    path, shape = tmp_path / "random.gguf", replace(SHAPES["1.5B"], **SMALL)
    write_random(path, shape, MIXES[mix], tokenizer, blocks=FEW)
    for tensor in GGUFReader(path).tensors:
        if len(tensor.shape) == 2:
            stored = tensor.data[:256]
            weights = dequantize(stored, tensor.tensor_type)
            assert weights.std() == pytest.approx(SPREAD, rel=0.1)
            assert abs(weights.mean()) < 0.15 * SPREAD
            assert len(np.unique(stored, axis=0)) == len(stored)
    llm = LLM(str(path), max_model_len=64)
    params = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)
    (output,) = llm.generate([1, 2, 3], params, use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 4
    assert packed_bytes(llm) > 0.9 * stored_bytes(path).total


def test_an_outline_has_the_tensors_of_the_file_and_no_bytes(tokenizer: GGUFReader, tmp_path: Path) -> None:
    shape, mix = replace(SHAPES["1.5B"], **SMALL), MIXES["Q4_K_M"]
    write_random(tmp_path / "whole.gguf", shape, mix, tokenizer, blocks=FEW)
    write_outline(tmp_path / "outline.gguf", shape, mix, tokenizer)
    whole, outline = (GGUFReader(tmp_path / f"{name}.gguf").tensors for name in ("whole", "outline"))
    assert [(t.name, t.tensor_type, t.data_offset, t.n_bytes) for t in outline] == [
        (t.name, t.tensor_type, t.data_offset, t.n_bytes) for t in whole
    ]
    assert not any(tensor.data.any() for tensor in outline)


def test_all_parts_of_a_model_are_counted(tmp_path: Path) -> None:
    """And a table that is not the output layer is not read by a token."""
    table, head = np.zeros((8, 4), np.float32), np.zeros((8, 4), np.float16)
    save_file({"model.embed_tokens.weight": table}, tmp_path / "model-00001-of-00002.safetensors")
    assert stored_bytes(tmp_path).read == table.nbytes  # tied
    save_file({"lm_head.weight": head}, tmp_path / "model-00002-of-00002.safetensors", {"format": "pt"})
    assert stored_bytes(tmp_path).total == table.nbytes + head.nbytes
    assert stored_bytes(tmp_path).read == head.nbytes


def test_loads_are_judged_by_their_medians_and_by_the_worst_peak() -> None:
    slow, usual = Loaded(1, 9, 1, 120, 100, 50), Loaded(1, 2, 1, 100, 100, 50)
    found = {"first": [slow, usual, usual], "again": [usual], "cold": [usual]}
    values = {row.measure: (row.value, row.bar) for row in rows(found, 40)}
    assert values["loading, first, s"] == (2, 3.0)
    assert values["loading, again, s"] == (2, 1.0)
    assert values["peak over final"] == (1.2, 1.1)
    assert values["weights over tensors"] == (1.25, 1.02)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system keeps its page cache to itself")
def test_files_stay_whole_when_their_pages_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"1" * 10000)
    forget([tmp_path, file])
    assert file.read_bytes() == b"1" * 10000


def test_engines_are_compared_within_rounds() -> None:
    """And a share of the bandwidth stands where each token reads the weights once."""
    outputs: list[tuple[int, ...]] = [(1, 2), (3, 4)]
    ours = Result(
        "outrider", False, "", 1.0, [20.0, 10.0, 30.0], [100.0] * 3, outputs, {16: [90.0, 60.0, 80.0]}
    )
    drafted = Result("outrider", True, "", 1.0, [40.0, 20.0, 60.0], [], outputs)
    theirs = Result(
        "llama.cpp", False, "", 1.0, [10.0, 4.0, 20.0], [50.0] * 3, [(1, 2), (3, 5)], {16: [30.0, 30.0, 20.0]}
    )
    measured = Measured([ours, drafted, theirs], [], 0.0, bandwidth=100.0, token_bytes=4)
    found = {(row.engine, row.measure): row for row in peer_rows(measured)}
    plain = found["llama.cpp", "decode"]
    assert (plain.outrider_times, plain.bandwidth_share, plain.ms, plain.same) == (2.0, 0.4, 100.0, 1)
    assert found["outrider", "speculation"].gain == 2.0
    assert found["outrider", "speculation"].bandwidth_share is None
    assert found["llama.cpp", "prompt"].outrider_times == 2.0
    together = found["llama.cpp", "clients 16"]
    assert (together.tokens_per_s, together.outrider_times) == (30.0, 3.0)
    assert "80%" in table("file", measured, 2)


class Counting:
    """In place of llama.cpp: the token after n is n + 1, wherever it stands. It keeps what it computed."""

    def __init__(self) -> None:
        self.seen: list[
            dict[int, list[tuple[int, int]]]
        ] = []  # of each batch: tokens and positions of a sequence

    def llama_get_memory(self, context: str) -> str:
        return context

    def llama_memory_clear(self, memory: str, data: bool) -> None:
        self.seen.clear()

    def llama_decode(self, context: str, batch: SimpleNamespace) -> int:
        rows: dict[int, list[tuple[int, int]]] = {}
        for row in range(batch.n_tokens):
            rows.setdefault(batch.seq_id[row][0], []).append((batch.token[row], batch.pos[row]))
        self.seen.append(rows)
        self.chosen = {row: batch.token[row] + 1 for row in range(batch.n_tokens) if batch.logits[row]}
        return 0

    def llama_get_logits_ith(self, context: str, row: int) -> Any:
        logits = (ctypes.c_float * 999)()
        logits[self.chosen[row]] = 1.0
        return ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))


def test_llama_cpp_gets_the_batches_that_its_server_would_fill() -> None:
    """Tokens that decode come first, prompts fill the rest, and every position is computed once, in order."""
    library = Counting()
    batches = Batches.__new__(Batches)
    batches.library, batches.context, batches.vocab = library, "context", 999
    batches.batch = SimpleNamespace(
        n_tokens=0, **{name: [0] * PROMPT for name in ("token", "pos", "logits", "n_seq_id")}
    )
    batches.batch.seq_id = [[0] for _ in range(PROMPT)]
    prompts = [[*range(first, first + 300)] for first in (0, 100, 200)]
    outputs = batches.generate(prompts, 4)
    assert outputs == [[*range(first + 300, first + 304)] for first in (0, 100, 200)]
    assert [sum(map(len, rows.values())) for rows in library.seen] == [512, 1 + 388, 3, 3, 2]
    assert next(iter(library.seen[1])) == 0  # it decodes
    for n, first in enumerate((0, 100, 200)):
        rows = [row for batch in library.seen for row in batch.get(n, [])]
        assert rows == [(first + position, position) for position in range(303)]


@pytest.mark.parametrize("name", encoders())
def test_weights_are_brought_into_formats_that_are_only_read(name: str) -> None:
    """With an error that fits the bits, also where rows end within a block."""
    values = np.random.default_rng(0).normal(size=(48, 600)).astype(np.float32)
    format = encoders()[name]
    made = convert(Weight(FORMATS["F32"], values.view(np.uint8), 600), format)
    assert made.data.shape == (48, format.row_bytes(600))
    error = np.square(made.dequantize() - values).mean() ** 0.5
    if format.is_float or name.startswith("F8"):
        assert error < (2e-3 if format.is_float else 0.03)
    else:
        assert 2.0**-format.bits < error < 3 * 2.0**-format.bits
