"""What it costs to check M tokens: v(M), the time of a forward pass of M rows over that of one row.

python -m benchmarks.verification_cost [--json] [--formats bf16,int8,...] [--context 256] [--rounds 31]
                                       [--threads N] [--cache DIR]

For each format: v(M) for M = 1..16 with `context` positions in the cache, one request; the bytes of weights,
K and V that one row reads, per second, against the memory's measured read bandwidth; and the share of a
decoding step that is not native code. All formats are loaded and timed in turn, round by round. Those of 1.5B
are of a random model of that size, which no cache holds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.variants import cache_folder, variant
from outrider import LLM, SamplingParams
from outrider.models.runner import block_bytes
from outrider.ops.base import Passed
from outrider.ops.batch import Span
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.cpu.extension import physical_cores
from outrider.planning.bandwidth import read_bandwidth

ROWS = range(1, 17)
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("Q4_1", {"dtype": "float32"}),
    "bf16": ("BF16", {}),
    "int8": ("Q8_0", {}),
    "int8 own": ("BF16", {"quantization": "int8"}),
    "int4 (Q4_0)": ("Q4_0", {}),
    "int4 (Q4_1)": ("Q4_1", {}),
    "int4 own": ("BF16", {"quantization": "int4"}),
    "1.5B bf16": ("1.5B-BF16", {}),
    "1.5B int8": ("1.5B-Q8_0", {}),
    "1.5B int4": ("1.5B-Q4_1", {}),
}


@dataclass(frozen=True)
class Cost:
    """ms: median time of M rows; bytes_read: by one row; python_share: of a step of decoding."""

    format: str
    ms: dict[int, float]
    bytes_read: int
    bandwidth_share: float
    python_share: float

    @property
    def v(self) -> dict[int, float]:
        return {rows: ms / self.ms[1] for rows, ms in self.ms.items()}

    @property
    def gb_per_s(self) -> float:
        return self.bytes_read / self.ms[1] / 1e6


class Subject:
    """One format, ready to be timed."""

    def __init__(self, name: str, folder: Path, context: int, threads: int) -> None:
        kind, options = FORMATS[name]
        self.llm = LLM(str(variant(kind, folder)), num_threads=threads, max_model_len=1024, **options)
        self.runner = self.llm.engine.target
        self.context = context
        self.blocks = list(range(-(-(context + max(ROWS)) // self.runner.block_size)))
        for start in range(0, context, 64):
            self.runner.forward([Span([1] * min(64, context - start), start, self.blocks, 0)])

    def time(self, rows: int) -> float:
        """Milliseconds."""
        span = Span([1] * rows, self.context, self.blocks, rows)
        start = time.perf_counter()
        self.runner.forward([span])
        return (time.perf_counter() - start) * 1e3

    @property
    def bytes_read(self) -> int:
        model = self.runner.model
        assert isinstance(model.backend, NativeBackend)
        return model.backend.weight_bytes + self.context * block_bytes(model, 1)

    def python_share(self) -> float:
        """Of 128 steps of decoding, the time outside the native call."""
        inside = 0.0
        run = self.runner.run

        def timed(spans: Sequence[Span]) -> Passed:
            nonlocal inside
            start = time.perf_counter()
            passed = run(spans)
            inside += time.perf_counter() - start
            return passed

        params = SamplingParams(temperature=0, max_tokens=128, ignore_eos=True)
        self.llm.generate([1] * 8, params, use_tqdm=False)
        self.runner.run = timed  # type: ignore[method-assign]
        start = time.perf_counter()
        self.llm.generate([1] * 8, params, use_tqdm=False)
        whole = time.perf_counter() - start
        self.runner.run = run  # type: ignore[method-assign]
        return 1 - inside / whole


def measure(
    names: Sequence[str], folder: Path, context: int, rounds: int, threads: int
) -> tuple[float, list[Cost]]:
    """The read bandwidth in bytes a second, and each format's cost."""
    subjects = {name: Subject(name, folder, context, threads) for name in names}
    times: dict[str, dict[int, list[float]]] = {name: {rows: [] for rows in ROWS} for name in names}
    bandwidth = read_bandwidth(threads)
    draw = random.Random(0)
    for _ in range(rounds):
        for name, subject in subjects.items():
            subject.time(1)  # the caches hold another model
            for rows in draw.sample(ROWS, len(ROWS)):
                times[name][rows].append(subject.time(rows))
    bandwidth = max(bandwidth, read_bandwidth(threads))
    costs = []
    for name, subject in subjects.items():
        ms = {rows: median(values) for rows, values in times[name].items()}
        share = subject.bytes_read / (ms[1] / 1e3) / bandwidth
        costs.append(Cost(name, ms, subject.bytes_read, share, subject.python_share()))
    return bandwidth, costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    names = args.formats.split(",")
    if unknown := [name for name in names if name not in FORMATS]:
        parser.error(f"--formats: {unknown[0]!r} is not known; known are {', '.join(FORMATS)}")
    with cache_folder(args.cache) as folder:
        bandwidth, costs = measure(names, folder, args.context, args.rounds, args.threads)
    if args.json:
        formats = [asdict(cost) | {"v": cost.v, "gb_per_s": cost.gb_per_s} for cost in costs]
        result = {
            "read_bandwidth_gb_per_s": bandwidth / 1e9,
            "threads": args.threads,
            "context": args.context,
            "formats": formats,
        }
        json.dump(result, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(_table(bandwidth, costs, args.context))


def _table(bandwidth: float, costs: Sequence[Cost], context: int) -> str:
    headings = " ".join(f"v({rows})".rjust(5) for rows in ROWS)
    lines = [
        f"read bandwidth {bandwidth / 1e9:.1f} GB/s; context {context}",
        f"{'format':13} {'ms':>6} {'GB/s':>5} {'share':>5} {'python':>6}  {headings}",
    ]
    for cost in costs:
        start = f"{cost.format:13} {cost.ms[1]:6.2f} {cost.gb_per_s:5.1f} {cost.bandwidth_share:5.0%}"
        values = " ".join(f"{v:5.2f}" for v in cost.v.values())
        lines.append(f"{start} {cost.python_share:6.1%}  {values}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
