"""What attention costs when the context is long.

python -m benchmarks.long_context [--json] [--model FILE] [--contexts 8192,32768] [--caches bfloat16,int8]
                                  [--rounds 9] [--threads N]

For each type of cache and each length of context: the time of a forward pass of one row, attention's share
of it, and v(M), the time of M rows over that of one. Attention is what a row behind the context takes
longer than one behind 16 positions. "over limit" is its time over that in which the memory could have
handed out the K and V that it reads, at the read bandwidth of the same run. K and V are those of 64 tokens,
again and again: what they are changes no time. Positions may go beyond those that the model was trained
with.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from outrider.machine.cores import default_threads
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner, group_sizes
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.span import Span
from outrider.planning.bandwidth import read_bandwidth

BLOCK, WRITTEN, NEAR = 16, 64, 16
ROWS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Cost:
    """ms: median time of M rows behind the context; near_ms: of one row behind hardly any; bytes_read: K
    and V of the context; limit_ms: in which the memory hands them out."""

    cache: str
    context: int
    ms: dict[int, float]
    near_ms: float
    bytes_read: int
    limit_ms: float

    @property
    def attention_ms(self) -> float:
        return self.ms[1] - self.near_ms

    @property
    def share(self) -> float:
        """Attention's, of the time of one row."""
        return self.attention_ms / self.ms[1]

    @property
    def over_limit(self) -> float:
        return self.attention_ms / self.limit_ms

    @property
    def v(self) -> dict[int, float]:
        return {rows: ms / self.ms[1] for rows, ms in self.ms.items()}


class Subject:
    """A model with one type of cache, with room for the longest context."""

    def __init__(self, path: str, cache: str, longest: int, threads: int) -> None:
        self.cache = cache
        self.model = Model(open_checkpoint(path), NativeBackend(cache_dtype=cache, num_threads=threads))
        blocks = (longest + max(ROWS)) // BLOCK + 1
        self.runner = ModelRunner(self.model, num_blocks=blocks, block_size=BLOCK, prefix_caching=False)
        self.table = self.runner.table()
        self.table.extend(longest + max(ROWS))
        self.pass_of(WRITTEN, 0)
        for layer in self.runner._cache:
            for values in (layer.keys, layer.values):
                for first in range(WRITTEN // BLOCK, len(values), WRITTEN // BLOCK):
                    rest = values[first : first + WRITTEN // BLOCK]
                    rest[:] = values[: len(rest)]

    def pass_of(self, rows: int, context: int) -> float:
        """Milliseconds of a pass over so many rows behind so many positions."""
        span = Span([1 + row for row in range(rows)], context, self.table.tables, rows)
        start = time.perf_counter()
        self.runner.forward([span])
        return (time.perf_counter() - start) * 1e3

    def bytes_read(self, context: int) -> int:
        """By one row, of K and V; a layer with a window reads no more than that."""
        sizes = group_sizes(self.model, BLOCK, 1, 0)
        return sum(size.block_bytes * size.blocks(context) for size in sizes)


def measure(
    subjects: Sequence[Subject], contexts: Sequence[int], rounds: int, threads: int
) -> tuple[float, list[Cost]]:
    """The read bandwidth in bytes a second, and the cost of each subject and context."""
    bandwidth = read_bandwidth(threads)
    draw = random.Random(0)
    places = [(NEAR, 1)] + [(context, rows) for context in contexts for rows in ROWS]
    times: dict[tuple[str, int, int], list[float]] = {}
    for _ in range(rounds):
        for subject in subjects:
            subject.pass_of(1, NEAR)  # the caches hold another subject
            for context, rows in draw.sample(places, len(places)):
                times.setdefault((subject.cache, context, rows), []).append(subject.pass_of(rows, context))
    bandwidth = max(bandwidth, read_bandwidth(threads))
    return bandwidth, list(
        _costs(subjects, contexts, {key: median(of) for key, of in times.items()}, bandwidth)
    )


def _costs(
    subjects: Sequence[Subject],
    contexts: Sequence[int],
    times: dict[tuple[str, int, int], float],
    bandwidth: float,
) -> Iterator[Cost]:
    for subject in subjects:
        for context in contexts:
            read = subject.bytes_read(context)
            ms = {rows: times[subject.cache, context, rows] for rows in ROWS}
            near = times[subject.cache, NEAR, 1]
            yield Cost(subject.cache, context, ms, near, read, read / bandwidth * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default="smollm2", help="a GGUF file, or what `outrider generate` takes")
    parser.add_argument("--contexts", default="8192,32768", help="positions in the cache")
    parser.add_argument("--caches", default="bfloat16,int8", help="values of kv_cache_dtype")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=default_threads())
    args = parser.parse_args()
    contexts = [int(one) for one in args.contexts.split(",")]
    subjects = [Subject(args.model, cache, max(contexts), args.threads) for cache in args.caches.split(",")]
    bandwidth, costs = measure(subjects, contexts, args.rounds, args.threads)
    if args.json:
        derived = ("attention_ms", "share", "over_limit", "v")
        found = [asdict(cost) | {name: getattr(cost, name) for name in derived} for cost in costs]
        result = {"read_bandwidth_gb_per_s": bandwidth / 1e9, "threads": args.threads, "costs": found}
        json.dump(result, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(_table(bandwidth, args.threads, costs))


def _table(bandwidth: float, threads: int, costs: Sequence[Cost]) -> str:
    lines = [
        f"read bandwidth {bandwidth / 1e9:.1f} GB/s; threads {threads}",
        "cache    context      ms attention share  K/V MB over limit  "
        + " ".join(f"v({rows})" for rows in ROWS[1:]),
    ]
    for cost in costs:
        values = " ".join(f"{cost.v[rows]:4.2f}" for rows in ROWS[1:])
        lines.append(
            f"{cost.cache:8} {cost.context:7} {cost.ms[1]:7.2f} {cost.attention_ms:9.2f} {cost.share:5.0%} "
            f"{cost.bytes_read / 1e6:7.0f} {cost.over_limit:10.2f}  {values}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
