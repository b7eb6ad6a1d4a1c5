"""Mutated GGUF files, in a process of their own that may die of them."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from outrider.errors import ModelError
from tests.fuzz.limits import FAILED, REFUSED, WORKS, Limits, attempt
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf
from tests.models.gguf_vocabularies import sentencepiece

ROOT = Path(__file__).parents[2]


def write_seeds(folder: Path) -> None:
    """Small files that between them have every part that is read."""
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    model = write_hf(folder / "hf", tiny_config(**small, attention_bias=True, tie_word_embeddings=True))
    divisors = {"rope_freqs.weight": np.ones(4, np.float32)}
    write_gguf(folder / "q8_0.gguf", model, tiny_tokenizer(), GGMLQuantizationType.Q8_0, tensors=divisors)
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    pieces = {f"ab{n}": -1.0 for n in range(10)}
    metadata = sentencepiece(pieces) | yarn
    vocab = len(metadata["tokenizer.ggml.tokens"])
    model = write_hf(folder / "hf", tiny_config(**small, vocab_size=vocab))
    write_gguf(folder / "sentencepiece.gguf", model, None, metadata=metadata)


def test_every_mutated_file_works_or_is_refused_in_one_line(
    fuzz_seconds: float, fuzz_seed: int, tmp_path: Path
) -> None:
    write_seeds(tmp_path)
    limits = ["--seconds", str(fuzz_seconds), "--seed", str(fuzz_seed)]
    command = [sys.executable, "-m", "tests.fuzz.gguf", str(tmp_path), *limits]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-2000:]}"
    assert "'works'" in run.stderr
    assert "'refused'" in run.stderr


def spin() -> None:
    while True:
        pass


def fill() -> None:
    bytearray(2**40)


def crash() -> None:
    faulthandler.disable()  # or the tests would show where it is
    os.abort()


def fail() -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("action", "said"),
    [(spin, "SIGXCPU"), (fill, "MemoryError"), (crash, "SIGABRT"), (fail, "KeyError: 'x'")],
)
def test_what_is_no_error_of_ours_is_found(action: object, said: str) -> None:
    outcome = attempt(action, Limits(cpu_seconds=1))  # type: ignore[arg-type]
    assert outcome.verdict == FAILED
    assert said in outcome.said


def test_verdicts() -> None:
    def raises(message: str) -> None:
        raise ModelError(message)

    assert attempt(lambda: None).verdict == WORKS
    assert attempt(lambda: raises("one line")).verdict == REFUSED
    assert attempt(lambda: raises("two\nlines")).verdict == FAILED
