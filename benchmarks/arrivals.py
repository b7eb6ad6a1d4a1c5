"""Requests that arrive as a Poisson stream: latencies with and without speculation.

python -m benchmarks.arrivals [--format int8] [--loads 0.5,0.9] [--requests 32] [--tokens 96]
                              [--acceptance 0.7] [--cost 0.1] [--rounds 5] [--json] [--cache DIR]

Loads are shares of what the target alone can do with all requests at once. In each round target-only and
automatic draft length serve the same arrivals. Latency is from arrival to the last token, TTFT to the first;
ITL is the time between two steps that gave a request tokens, also while a prompt of --long tokens, which
arrives in the middle, is read.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median, quantiles

from benchmarks.decoding import FORMATS, PLAIN, Bench, in_format, questions
from benchmarks.synthetic import always
from benchmarks.variants import cache_folder
from outrider import RequestOutput, SamplingParams
from outrider.drafting.chain import Chain
from outrider.drafting.length import LengthPolicy
from outrider.engine.engine import Engine

Arrival = tuple[float, list[int], int]
"""(second, prompt, tokens to generate)"""


@dataclass(frozen=True)
class Summary:
    """Milliseconds; latencies are medians over rounds of each round's percentile."""

    load: float
    policy: str
    latency_p50: float
    latency_p90: float
    ttft_p50: float
    itl_p50: float
    itl_p99: float
    itl_max: float


def serve(
    engine: Engine, chain: Chain, policy: LengthPolicy, arrivals: Sequence[Arrival]
) -> list[RequestOutput]:
    """Serve the requests as they arrive."""
    engine.drafters, engine.scheduler.policy = chain, policy
    ids: list[str] = []
    began = time.perf_counter()
    while len(ids) < len(arrivals) or engine.unfinished:
        now = time.perf_counter() - began
        while len(ids) < len(arrivals) and arrivals[len(ids)][0] <= now:
            _, prompt, tokens = arrivals[len(ids)]
            params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
            ids.append(engine.add(prompt, params))
        if engine.unfinished:
            engine.step()
    return [engine.take(request_id) for request_id in ids]


def percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def latency(output: RequestOutput) -> float:
    metrics = output.metrics
    assert metrics.finished_time is not None
    return metrics.finished_time - metrics.arrival_time


def summary(load: float, policy: str, rounds: Sequence[Sequence[RequestOutput]]) -> Summary:
    everyone = [output for outputs in rounds for output in outputs]
    first = [
        o.metrics.first_token_time - o.metrics.arrival_time for o in everyone if o.metrics.first_token_time
    ]
    gaps = [b[0] - a[0] for output in everyone for a, b in pairwise(output.metrics.token_times)]

    def of_rounds(percent: int) -> float:
        return median(percentile([latency(output) for output in outputs], percent) for outputs in rounds)

    seconds = (of_rounds(50), of_rounds(90), median(first), median(gaps), percentile(gaps, 99), max(gaps))
    return Summary(load, policy, *(round(1e3 * value, 1) for value in seconds))


def measure(args: argparse.Namespace, folder: Path) -> list[Summary]:
    llm = in_format(args.format, folder, max_num_seqs=args.requests + 1, enable_prefix_caching=False)
    bench, prompts = Bench(llm.engine), questions(llm, args.requests)
    step = bench.record(prompts, args.tokens)
    drafter = bench.drafter(always(args.acceptance), args.cost, args.requests, step)
    chain, auto = Chain([drafter]), bench.auto(drafter)
    engine = bench.engine
    at_once = [(0.0, prompt, args.tokens) for prompt in prompts]
    began = time.perf_counter()
    serve(engine, Chain(), PLAIN, at_once)
    capacity = args.requests / (time.perf_counter() - began)  # requests a second
    sys.stderr.write(f"capacity of the target alone: {capacity:.2f} requests/s\n")
    serve(engine, chain, auto, at_once)  # to learn in
    draw = random.Random(0)
    long = [draw.randrange(1000, 40000) for _ in range(args.long)]
    summaries = []
    for load in map(float, args.loads.split(",")):
        results: dict[str, list[list[RequestOutput]]] = {"target-only": [], "auto": []}
        for _ in range(args.rounds):
            times = list(accumulate(draw.expovariate(load * capacity) for _ in prompts))
            arrivals: list[Arrival] = [(t, p, args.tokens) for t, p in zip(times, prompts, strict=True)]
            if args.long:
                arrivals.insert(len(arrivals) // 2, (times[len(arrivals) // 2], long, 1))
            results["target-only"].append(serve(engine, Chain(), PLAIN, arrivals))
            results["auto"].append(serve(engine, chain, auto, arrivals))
            pairs = zip(results["target-only"][-1], results["auto"][-1], strict=True)
            assert all(a.outputs[0].token_ids == b.outputs[0].token_ids for a, b in pairs), "other tokens"
        summaries += [summary(load, name, rounds) for name, rounds in results.items()]
    return summaries


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", default="int8", choices=[*FORMATS])
    parser.add_argument("--loads", default="0.5,0.9")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--acceptance", type=float, default=0.7)
    parser.add_argument("--cost", type=float, default=0.1, help="of a draft step, in target steps")
    parser.add_argument("--long", type=int, default=0, help="tokens of a long prompt in the middle")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    with cache_folder(args.cache) as folder:
        summaries = measure(args, folder)
    if args.json:
        json.dump([asdict(s) for s in summaries], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    names = list(asdict(summaries[0]))
    sys.stdout.write("".join(f"{name:>12}" for name in names) + "\n")
    for s in summaries:
        sys.stdout.write("".join(f"{value:>12}" for value in asdict(s).values()) + "\n")


if __name__ == "__main__":
    main()
