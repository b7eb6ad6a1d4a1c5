"""Measuring what the simulation is fed with: times of passes and drafts, what stands of drafts, and a stream.

python -m benchmarks.fleet.measure MODEL --drafter D --name NAME [--requests 48] [--tokens 96] [--load 0.6]
                                   [--seconds 20]

Writes benchmarks/results/fleet-NAME.json. The machine should have nothing else to do meanwhile. The requests
are the conversations that `outrider bench` asks, and all are greedy.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate, cycle, islice, pairwise

import numpy as np

from benchmarks.arrivals import serve
from benchmarks.fleet.measured import (
    Check,
    Drafting,
    Latencies,
    Machine,
    Measured,
    Steps,
    latencies,
    path_of,
    write,
)
from benchmarks.front_table import cpu_name, revision
from outrider import LLM, RequestOutput, SamplingParams
from outrider.drafting.auto import AutoLength
from outrider.drafting.chain import Chain
from outrider.drafting.length import FixedLength, LengthPolicy
from outrider.engine.profile import TargetTimer, draft_cost
from outrider.engine.seam import StepEngine
from outrider.engine.watcher import Watcher
from outrider.machine.cores import default_threads
from outrider.measurement.prompts import BUILT_IN
from outrider.outputs import Increment

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
DEEPEST = 8  # tokens of a draft whose fate is counted
MAX_NUM_SEQS, MAX_ROWS, PROMPT_ROWS = 32, 512, 64
PLAIN = FixedLength(0, 1)  # of an engine that has a drafter
TOGETHER = 8  # requests by which it is found what Python adds for each


class Counting(Watcher):
    """Counts how far drafts reach and stand, in the steps that gave a request tokens after its first."""

    def __init__(self) -> None:
        self.steps = 0
        self.offered = np.zeros(DEEPEST)
        self.stood = np.zeros(DEEPEST)
        self._known: set[str] = set()

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        for increment in increments:
            if increment.token_ids and increment.request_id in self._known:
                self.steps += 1
                self.offered[: increment.drafted] += 1
                self.stood[: increment.accepted] += 1
            elif increment.token_ids:
                self._known.add(increment.request_id)


class Subject:
    """An engine with a drafter, whose length policy is changed from one measurement to the next."""

    def __init__(self, model: str, drafter: str) -> None:
        self.llm = LLM(
            model,
            speculative_model=drafter,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=MAX_ROWS,
            prompt_chunk_size=PROMPT_ROWS,
            max_model_len=1024,
            enable_prefix_caching=False,
        )
        self.engine = self.llm.engine
        self.chain = self.engine.drafters
        policy = self.engine.scheduler.policy
        assert isinstance(policy, AutoLength)
        self.auto = policy
        self.drafter = drafter
        turns = (conversation.turns[0] for conversation in BUILT_IN)
        self.prompts = [self.llm.chat_prompt([{"role": "user", "content": turn}]) for turn in turns]

    def steps(self, seconds: float) -> Steps:
        """The quickest of many passes, in random order, and what Python adds."""
        timer = TargetTimer(
            self.engine.target, max_rows=MAX_ROWS, max_model_len=1024, clock=time.perf_counter
        )
        counts = [count for count in ROWS if count <= timer.rows]
        draw, least = random.Random(0), dict.fromkeys(counts, math.inf)
        deadline = time.perf_counter() + seconds
        with timer.ready():
            while math.inf in least.values() or time.perf_counter() < deadline:
                for count in draw.sample(counts, len(counts)):
                    least[count] = min(least[count], timer.seconds(count))
            position, pair = timer.attention()
        quickest = [*accumulate((least[count] for count in reversed(counts)), min)][::-1]
        return Steps(
            counts=tuple(counts),
            seconds=tuple(quickest),
            position=position,
            position_row=pair,
            request=self._of_python(),
            max_num_seqs=MAX_NUM_SEQS,
            prompt_rows=PROMPT_ROWS,
            max_rows=MAX_ROWS,
        )

    def drafting(self, tokens: int) -> Drafting:
        """With drafts of `DEEPEST` tokens in every step, one request at a time."""
        link = self.auto.links[0]
        cost = draft_cost(link.drafter, self.engine.target, self.llm.tokenizer, seconds=2.0)
        counting = Counting()
        self._use(self.chain, FixedLength(DEEPEST, 1))
        self.engine.watchers = [counting]
        for prompt in self.prompts:
            self._answer([prompt], tokens)
        self.engine.watchers = []
        return Drafting(
            drafter=self.drafter,
            fixed=cost.fixed,
            each=cost.each,
            first=cost.first,
            offered=tuple((counting.offered / counting.steps).tolist()),
            stood=tuple((counting.stood / counting.steps).tolist()),
        )

    def check(self, requests: int, tokens: int, load: float) -> Check:
        """The same Poisson stream alone and with automatic drafts. load: a share of the requests a second
        that the target alone answers when all are there at once."""
        prompts = [*islice(cycle(self.prompts), requests)]
        began = time.perf_counter()
        serve_at_once = [(0.0, prompt, tokens) for prompt in prompts[:MAX_NUM_SEQS]]
        serve(self.engine, Chain(), PLAIN, serve_at_once)
        capacity = len(serve_at_once) / (time.perf_counter() - began)
        draw = random.Random(0)
        times = [*accumulate(draw.expovariate(load * capacity) for _ in prompts)]
        arrivals = [(at, prompt, tokens) for at, prompt in zip(times, prompts, strict=True)]
        plain = serve(self.engine, Chain(), PLAIN, arrivals)
        auto = serve(self.engine, self.chain, self.auto, arrivals)
        assert all(a.outputs[0].token_ids == b.outputs[0].token_ids for a, b in zip(plain, auto, strict=True))
        lengths = tuple(len(prompt) for prompt in prompts)
        return Check(tuple(times), lengths, tokens, latencies_of(plain, times), latencies_of(auto, times))

    def _of_python(self) -> float:
        """Seconds a request and step, outside of the pass: of steps in which `TOGETHER` decode."""
        self._use(Chain(), PLAIN)
        rest: list[float] = []

        class Rest(Watcher):
            def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
                if len(increments) == TOGETHER:
                    rest.append(engine.report.whole - engine.report.verifying)

        self.engine.watchers = [Rest()]
        self._answer([*islice(cycle(self.prompts), TOGETHER)], 48)
        self.engine.watchers = []
        return float(np.median(rest)) / TOGETHER

    def _use(self, chain: Chain, policy: LengthPolicy) -> None:
        self.engine.drafters, self.engine.scheduler.policy = chain, policy

    def _answer(self, prompts: Sequence[Sequence[int]], tokens: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        ids = [self.engine.add(prompt, params) for prompt in prompts]
        while self.engine.unfinished:
            self.engine.step()
        for request_id in ids:
            self.engine.take(request_id)


def latencies_of(outputs: Sequence[RequestOutput], times: Sequence[float]) -> Latencies:
    """What those who asked at these times have seen. A request that comes while a step is computed is added
    after it; the first one finds the engine idle, so the clock is set by that."""
    first, gaps, each, ends = [], [], [], []
    began = outputs[0].metrics.arrival_time - times[0]
    for output, time_of in zip(outputs, times, strict=True):
        metrics = output.metrics
        assert metrics.first_token_time is not None
        assert metrics.finished_time is not None
        first.append(metrics.first_token_time - began - time_of)
        gaps += [after - before for (before, _), (after, _) in pairwise(metrics.token_times)]
        after_first = metrics.token_times[-1][0] - metrics.first_token_time
        each.append(after_first / (len(output.outputs[0].token_ids) - 1))
        ends.append(metrics.finished_time - began)
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return latencies(tokens / (max(ends) - times[0]), first, gaps, each)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--drafter", required=True)
    parser.add_argument("--name", required=True, help="of the file, and of the model in tables")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer")
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--seconds", type=float, default=20.0, help="to time passes for")
    args = parser.parse_args()
    shown = [f"--{name} {getattr(args, name)}" for name in ("drafter", "name", "requests", "tokens", "load")]
    machine = Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=default_threads(),
        date=datetime.now(UTC).date().isoformat(),
        revision=revision(),
        command=f"python -m benchmarks.fleet.measure MODEL {' '.join(shown)}",
    )
    subject = Subject(args.model, args.drafter)
    steps = subject.steps(args.seconds)
    drafting = subject.drafting(args.tokens)
    check = subject.check(args.requests, args.tokens, args.load)
    write(path_of(args.name), Measured(args.name, machine, steps, drafting, check))
    sys.stdout.write(f"{path_of(args.name)}\n")


if __name__ == "__main__":
    main()
