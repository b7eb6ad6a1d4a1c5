"""What it costs to check M tokens: v(M), the time of a forward pass of M rows over that of one row.

python -m benchmarks.verification_cost [--json] [--formats bf16,int8,... | --model FILE] [--context 256]
                                       [--rounds 31] [--threads N] [--cache DIR]

For each format, or for one model: v(M) for M = 1..16 with `context` positions in the cache, one request; the
bytes of weights, K and V that one row reads, per second, against the memory's measured read bandwidth; and
the share of a decoding step that is not native code. All formats are loaded and timed in turn, round by
round. Those of 1.5B are of a random model of that size, which no cache holds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.stored import packed_bytes
from benchmarks.variants import cache_folder, variant
from outrider import LLM, SamplingParams
from outrider.machine.cores import default_threads
from outrider.models.checkpoint import locate
from outrider.models.runner import group_sizes
from outrider.ops.base import Passed
from outrider.ops.span import Span
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
    """One model in one format, ready to be timed."""

    def __init__(self, path: Path, options: Mapping[str, Any], context: int, threads: int) -> None:
        self.path = path
        self.llm = LLM(str(path), num_threads=threads, max_model_len=1024, **options)
        self.runner = self.llm.engine.target
        self.context = context
        self.table = self.runner.table()
        while (start := self.table.filled) < context:
            end = min(start + 64, context)
            self.table.extend(end)
            self.runner.forward([Span([1] * (end - start), start, self.table.tables, 0, self.table.states)])
            self.table.settle(end)
        self.table.extend(context + max(ROWS), max(ROWS))

    def time(self, rows: int) -> float:
        """Milliseconds."""
        span = Span([1] * rows, self.context, self.table.tables, rows, self.table.states)
        start = time.perf_counter()
        self.runner.forward([span])
        return (time.perf_counter() - start) * 1e3

    def bytes_read(self) -> int:
        """By one row: a table of tokens that is not the output layer lies in memory and is not read."""
        model = self.runner.model
        unread = 0 if model.tree.tied else model.table.nbytes
        cached = sum(size.block_bytes * size.blocks(self.context) for size in group_sizes(model, 1, 1, 0))
        return packed_bytes(self.llm) - unread + cached

    def python_share(self) -> float:
        """The share of 128 steps of decoding that passes outside the native call."""
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


def measure(subjects: Mapping[str, Subject], rounds: int, threads: int) -> tuple[float, list[Cost]]:
    """The read bandwidth in bytes a second, and each subject's cost."""
    times: dict[str, dict[int, list[float]]] = {name: {rows: [] for rows in ROWS} for name in subjects}
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
        read = subject.bytes_read()
        share = read / (ms[1] / 1e3) / bandwidth
        costs.append(Cost(name, ms, read, share, subject.python_share()))
    return bandwidth, costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--model", help="one of one's own, in place of --formats")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    names = [] if args.model else args.formats.split(",")
    if unknown := [name for name in names if name not in FORMATS]:
        parser.error(f"--formats: {unknown[0]!r} is not known; known are {', '.join(FORMATS)}")
    with cache_folder(args.cache) as folder:
        models = {name: (variant(FORMATS[name][0], folder), FORMATS[name][1]) for name in names}
        if args.model:
            path = locate(args.model)
            models = {path.stem: (path, {})}
        subjects = {
            name: Subject(path, options, args.context, args.threads)
            for name, (path, options) in models.items()
        }
        bandwidth, costs = measure(subjects, args.rounds, args.threads)
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
    width = max(len(cost.format) for cost in costs)
    lines = [
        f"read bandwidth {bandwidth / 1e9:.1f} GB/s; context {context}",
        f"{'format':{width}} {'ms':>6} {'GB/s':>5} {'share':>5} {'python':>6}  {headings}",
    ]
    for cost in costs:
        start = f"{cost.format:{width}} {cost.ms[1]:6.2f} {cost.gb_per_s:5.1f} {cost.bandwidth_share:5.0%}"
        values = " ".join(f"{v:5.2f}" for v in cost.v.values())
        lines.append(f"{start} {cost.python_share:6.1%}  {values}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
