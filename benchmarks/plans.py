"""Whether a plan holds for every family and every weight format: what a model takes beside the process.

python -m benchmarks.plans [--json] [--only NAME ...]

`benchmarks.memory` compares whole processes, most of which is Python and libraries. Here those are there
before: a fresh process runs a tiny model first, and what it takes from then on is compared with the plan's
weights, K and V, and passes. Each family has a model of random weights, 20 to 100 MB of them, as stored in
bfloat16, and at 8 and 4 bits, and some on PyTorch; and a Llama has them in every format of GGUF, and in
safetensors in FP8 and as GPTQ has them. Requests fill the cache. "ratio" is the peak over the plan.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import PEAK_RESET, ROOM
from benchmarks.process import status
from benchmarks.wide_models import FAMILIES, FORMATS, write_family, write_format, write_tiny
from outrider import LLM, SamplingParams
from outrider.cache.pages import release_freed
from outrider.config import resolve
from outrider.models.checkpoint import open_checkpoint
from outrider.planning.plan import Ground, make_plan

OUTPUT = 8  # tokens of each request
SIZE = {"max_model_len": 1024, "max_num_seqs": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "as stored": {},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
}
ON_PYTORCH = {"float32 on PyTorch": {"backend": "torch", "dtype": "float32"}}
FOR_PYTORCH = ("llama", "gemma3", "mixtral", "glm4")  # families that run there too
LIBRARIES = ["outrider.llm", "outrider.planning.plan"]


@dataclass(frozen=True)
class Measured:
    """Bytes beside the process: planned weights, K and V, and passes, and in all; and the peak."""

    model: str
    options: str
    weights: int
    cache: int
    passes: int
    planned: int
    peak: int

    @property
    def ratio(self) -> float:
        """The peak over the plan."""
        return self.peak / self.planned


def measure(name: str, path: Path, tiny: Path, options: str = "as stored", **size: int) -> Measured:
    """In a process of its own, which has the libraries from the start. tiny: a model that it runs before."""
    given = {**OPTIONS, **ON_PYTORCH}[options] | SIZE | size
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(LIBRARIES)
    with processes.Pool(1) as pool:
        return Measured(name, options, **pool.apply(_child, (str(path), str(tiny), given)))


def _child(model: str, tiny: str, options: dict[str, Any]) -> dict[str, int]:
    """Run the tiny model, plan for the other, load it, and fill its cache."""
    _fill(tiny, {**options, "max_model_len": 64, "kv_cache_memory": 2**22})
    plan = make_plan(resolve(model, **options), Ground(ROOM, 0, open_checkpoint(model), open_checkpoint))
    release_freed()
    before = status("VmRSS")
    PEAK_RESET.write_text("5")
    _fill(model, {**options, "kv_cache_memory": plan.kv_cache_memory})
    return {
        "weights": plan.target,
        "cache": plan.cache,
        "passes": plan.activations,
        "planned": plan.total - plan.runtime,
        "peak": status("VmHWM") - before,
    }


def _fill(model: str, options: dict[str, Any]) -> None:
    llm, draw = LLM(model, **options), random.Random(0)
    vocab, length = llm.engine.target.model.config.vocab_size, options["max_model_len"] - OUTPUT
    prompts = [[draw.randrange(vocab) for _ in range(length)] for _ in range(options["max_num_seqs"])]
    llm.generate(prompts, SamplingParams(max_tokens=OUTPUT, ignore_eos=True, temperature=0), use_tqdm=False)


def measurements(folder: Path, only: list[str]) -> Iterator[Measured]:
    tiny = write_tiny(folder / "tiny")
    for name in (*FAMILIES, *FORMATS):
        if only and name not in only:
            continue
        path = write_family(folder, name) if name in FAMILIES else write_format(folder, name)
        every = (*OPTIONS, *(ON_PYTORCH if name in FOR_PYTORCH else ()))
        for options in every if name in FAMILIES else ("as stored",):
            yield measure(name, path, tiny, options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="families and formats")
    args = parser.parse_args()
    found: list[Measured] = []
    if not args.json:
        titles = f"{'weights':>8} {'K/V':>6} {'passes':>7} {'planned':>8} {'peak':>8} {'ratio':>6}"
        sys.stdout.write(f"{'model':22} {'options':18} {titles}   MiB\n")
    with tempfile.TemporaryDirectory() as folder:
        for m in measurements(Path(folder), args.only):
            found.append(m)
            if not args.json:
                parts = f"{m.weights / 2**20:8.1f} {m.cache / 2**20:6.1f} {m.passes / 2**20:7.1f}"
                whole = f"{m.planned / 2**20:8.1f} {m.peak / 2**20:8.1f} {m.ratio:6.2f}"
                sys.stdout.write(f"{m.model:22} {m.options:18} {parts} {whole}\n")
                sys.stdout.flush()
    if args.json:
        json.dump([asdict(m) | {"ratio": m.ratio} for m in found], sys.stdout, indent=2)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
