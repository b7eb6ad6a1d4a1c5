"""Many streaming clients at one server, some of which leave or ask for nonsense: is every answer right?

python -m benchmarks.soak [--model smollm2] [--drafter ngram] [--clients 64] [--seconds 120] [--queue 16]
                          [--tokens 96] [--json]

Starts `outrider serve`, lets the clients at it, and afterwards compares each answer, also those that were
broken off, with what the offline engine says to the same request. Latencies are the clients': from a
request to its first tokens (TTFT), and between two chunks that brought tokens (ITL). Memory is the server's.
Exit status 1 if an answer differs, a block is not free in the end, or a request is answered in a way that
was not foreseen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from benchmarks.server import START_SECONDS, server
from outrider import LLM, SamplingParams
from outrider.measurement.prompts import BUILT_IN

LEAVING, NONSENSE = 0.15, 0.1
"""Shares of the requests that are broken off by their client, and that cannot be served."""
REFUSED: Sequence[dict[str, Any]] = (
    {"prompt": "x", "temperature": -1},
    {"prompt": "x", "temprature": 1},
    {"prompt": ""},
    {"prompt": [2**31 - 1]},
    {"prompt": "x", "n": 10**9},
)


@dataclass(frozen=True)
class Plan:
    """A request that can be served. The seed makes the answer the same every time."""

    prompt: str
    temperature: float
    seed: int
    max_tokens: int
    num_speculative_tokens: int | None

    def body(self) -> dict[str, Any]:
        return {**asdict(self), "stream": True, "return_token_ids": True}

    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature, seed=self.seed, max_tokens=self.max_tokens, num_speculative_tokens=0
        )


@dataclass(frozen=True)
class Answer:
    """What a client got to see. complete: up to the end of the stream; otherwise the client left."""

    plan: Plan
    token_ids: tuple[int, ...]
    text: str
    complete: bool


@dataclass
class Tally:
    """What the clients saw. Times in seconds; unforeseen: answers that nobody should get."""

    answers: list[Answer] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unforeseen: list[str] = field(default_factory=list)


def plans(prompts: Sequence[str], tokens: int) -> list[Plan]:
    """Each prompt greedily, sampled, and with a draft length of its own."""
    kinds: Sequence[tuple[float, int | None]] = ((0.0, None), (0.8, None), (1.0, 3), (0.7, 0))
    return [
        Plan(prompt, temperature, seed, 8 + (seed * 37) % tokens, length)
        for seed, (prompt, (temperature, length)) in enumerate((p, k) for p in prompts for k in kinds)
    ]


async def soak(
    url: str, choices: Sequence[Plan], *, clients: int, going_on: Callable[[Tally], bool], seed: int = 0
) -> Tally:
    """Let `clients` ask for one of `choices` after the other while `going_on` says so."""
    tally = Tally()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS, limits=limits) as http:

        async def client(draw: random.Random) -> None:
            while going_on(tally):
                kind = draw.random()
                if kind < NONSENSE:
                    await nonsense(http, draw.choice(REFUSED), tally)
                else:
                    leaves_after = draw.randrange(1, 24) if kind < NONSENSE + LEAVING else None
                    await ask(http, draw.choice(choices), leaves_after, tally)

        await asyncio.gather(*(client(random.Random(f"{seed} {number}")) for number in range(clients)))
    return tally


async def nonsense(http: httpx.AsyncClient, body: dict[str, Any], tally: Tally) -> None:
    response = await http.post("/v1/completions", json=body)
    tally.statuses[response.status_code] += 1
    if response.status_code not in (400, 429) or response.json().keys() != {"error"}:
        tally.unforeseen.append(f"{body}: {response.status_code} {response.text}")


async def ask(http: httpx.AsyncClient, plan: Plan, leaves_after: int | None, tally: Tally) -> None:
    """One request, told to come back as often as the queue is full. leaves_after: chunks."""
    while True:
        asked = time.perf_counter()
        async with http.stream("POST", "/v1/completions", json=plan.body()) as response:
            tally.statuses[response.status_code] += 1
            if response.status_code == 200:
                tally.answers.append(await read(response, plan, leaves_after, asked, tally))
                return
            if response.status_code != 429:
                tally.unforeseen.append(f"{plan}: {response.status_code}")
                return
        # Sooner than the server says, so that the queue stays full.
        await asyncio.sleep(min(0.2, float(response.headers["Retry-After"])))


async def read(
    response: httpx.Response, plan: Plan, leaves_after: int | None, before: float, tally: Tally
) -> Answer:
    tokens: list[int] = []
    text, ended = "", False
    async for line in response.aiter_lines():
        if not line:
            continue
        if line == "data: [DONE]":
            return Answer(plan, tuple(tokens), text, complete=ended)
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            tally.unforeseen.append(f"{plan}: {chunk}")
            break
        now = time.perf_counter()
        (tally.gaps if tokens else tally.first).append(now - before)
        before = now
        (choice,) = chunk["choices"]
        tokens += choice["token_ids"]
        text += choice["text"]
        ended = choice["finish_reason"] is not None
        if leaves_after is not None and not ended:
            leaves_after -= 1
            if leaves_after <= 0:
                break
    return Answer(plan, tuple(tokens), text, complete=False)


def differences(answers: Sequence[Answer], llm: LLM) -> list[str]:
    """The answers that the offline engine does not give. One that was broken off has to be the beginning."""
    asked = list(dict.fromkeys(answer.plan for answer in answers))
    outputs = llm.generate([plan.prompt for plan in asked], [plan.params() for plan in asked], use_tqdm=False)
    expected = {plan: output.outputs[0] for plan, output in zip(asked, outputs, strict=True)}
    found = []
    for answer in answers:
        right = expected[answer.plan]
        if answer.complete:
            same = (answer.token_ids, answer.text) == (right.token_ids, right.text)
        else:
            same = right.token_ids[: len(answer.token_ids)] == answer.token_ids
            same = same and right.text.startswith(answer.text)
        if not same:
            found.append(f"{answer.plan}: {answer.text!r} and not {right.text!r}")
    return found


def still_held(metrics: str) -> list[str]:
    """What `/metrics` says that an idle server should not: sequences in the engine, blocks in use."""
    names = "num_requests_running|num_requests_waiting|kv_cache_usage_perc"
    values = re.findall(rf"^outrider:({names}){{.*}} (\S+)$", metrics, re.MULTILINE)
    assert len(values) == 3, metrics
    return [f"{name} = {value}" for name, value in values if float(value) != 0]


async def watched(
    url: str, process: psutil.Process, choices: Sequence[Plan], clients: int, seconds: float
) -> tuple[Tally, list[int], list[str]]:
    """The tally, the server's memory every second, and what it still held in the end."""
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    end = time.monotonic() + seconds
    tally = await soak(url, choices, clients=clients, going_on=lambda _: time.monotonic() < end)
    watching.cancel()
    await asyncio.sleep(1)
    return tally, memory, still_held(httpx.get(f"{url}/metrics").text)


def percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--drafter", default="ngram")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--queue", type=int, default=16, help="sequences that may wait")
    parser.add_argument("--seats", type=int, default=32, help="sequences that may run")
    parser.add_argument("--tokens", type=int, default=96, help="of the longest answer, and eight")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    choices = plans([conversation.turns[0] for conversation in BUILT_IN], args.tokens)
    arguments = [
        args.model,
        "-d",
        args.drafter,
        "-s",
        f"max_num_seqs={args.seats}",
        "--max-queue",
        str(args.queue),
    ]
    with server(arguments) as (url, process):
        tally, memory, held = asyncio.run(watched(url, process, choices, args.clients, args.seconds))
    wrong = differences(tally.answers, LLM(args.model))
    third = max(1, len(memory) // 3)
    report = {
        "model": args.model,
        "speculative_model": args.drafter,
        "clients": args.clients,
        "seconds": args.seconds,
        "answers": len(tally.answers),
        "broken_off": sum(not answer.complete for answer in tally.answers),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "tokens_per_s": round(sum(len(a.token_ids) for a in tally.answers) / args.seconds, 1),
        "ttft_ms": {f"p{p}": round(1e3 * percentile(tally.first, p), 1) for p in (50, 99)},
        "itl_ms": {f"p{p}": round(1e3 * percentile(tally.gaps, p), 1) for p in (50, 99)},
        "memory_mib": {
            "middle_third": round(median(memory[third : 2 * third]) / 2**20, 1),
            "last_third": round(median(memory[2 * third :]) / 2**20, 1),
        },
        "different": wrong,
        "still_held": held,
        "unforeseen": tally.unforeseen,
    }
    if args.json:
        json.dump(report, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in report.items()))
    if wrong or held or tally.unforeseen:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
