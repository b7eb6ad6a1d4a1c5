"""Mutated GGUF files, each of which has to work, or to be refused in one line.

    python -m tests.fuzz.gguf SEEDS --seconds 3600 --seed 1

SEEDS: a folder of well-formed files. A file that fails is kept in the folder `failed` beside them, by the
number that makes it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from outrider import LLM, RequestError, SamplingParams
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import tensors
from tests.fuzz.limits import FAILED, attempt
from tests.fuzz.mutate import mutated_gguf

PROMPT = [1, 2, 1]


def use(path: Path) -> None:
    """Everything that is done with a model: each tensor is read, a text tokenized, an answer generated."""
    checkpoint = open_checkpoint(str(path))
    tokenizer = checkpoint.tokenizer()
    tokenizer.decode(tokenizer.encode("some text, and 12 <|im_end|> é"))
    for tensor in tensors(checkpoint.config.tree):
        checkpoint.floats(tensor)
    llm = LLM(str(path), device="cpu", num_threads=1, kv_cache_memory=2**22)
    try:
        llm.generate([PROMPT], SamplingParams(max_tokens=3, seed=0), use_tqdm=False)
    except RequestError as error:
        if "internal error" in str(error):
            raise RuntimeError(str(error)) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one file that has failed")
    options = parser.parse_args()
    torch.set_num_threads(1)  # none besides this one: a fork has no others
    seeds = [path.read_bytes() for path in sorted(options.seeds.glob("*.gguf"))]
    kept = options.seeds / "failed"
    kept.mkdir(exist_ok=True)
    path = options.seeds / "mutated" / "m.gguf"
    path.parent.mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    number = -1 if options.only is None else options.only - 1
    while time.monotonic() < end and not (options.only is not None and counts):
        number += 1
        draw = random.Random(f"{options.seed} {number}")
        path.unlink(missing_ok=True)  # it may still be mapped
        path.write_bytes(mutated_gguf(draw, draw.choice(seeds)))
        outcome = attempt(partial(use, path))
        counts[outcome.verdict] += 1
        if outcome.verdict == FAILED:
            path.replace(kept / f"{options.seed}-{number}.gguf")
            sys.stdout.write(f"--seed {options.seed} --only {number}: {outcome.said}\n")
            sys.stdout.flush()
    sys.stderr.write(f"{dict(counts)}\n")
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
