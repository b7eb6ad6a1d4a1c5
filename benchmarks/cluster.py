"""Replicas on Ray: streams that outlive theirs, throughput, latency, and where conversations go.

python -m benchmarks.cluster demo [--seconds 120] [--clients 32] [--kill-every 20] [--tokens 160]
python -m benchmarks.cluster throughput [--model smollm2] [--clients 16] [--tokens 96]
python -m benchmarks.cluster latency [--model smollm2] [--rounds 60]
python -m benchmarks.cluster prefixes [--model smollm2] [--conversations 12] [--memory 112MiB]

demo: 2 replicas of one thread each; streaming clients ask one request after the other, and every so often
a replica's process is killed (SIGKILL). Fails unless no request is lost, more than 10 streams went on
elsewhere, and the tokens and log-probabilities of every stream are those of the offline engine.
throughput: two replicas of one thread against one engine with two.
latency: the time to the first token behind Ray and without it, one thread and one client, alternating.
prefixes: tokens of prompts that were found in a cache, with conversations of 6 turns by prefix and round
robin. By default a cache holds about half of the conversations.
Prints one JSON object. Each needs the extra `cluster`; clients run on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Any

import httpx
import psutil
from ray.serve.config import RequestRouterConfig

from benchmarks.round_robin import RoundRobin
from benchmarks.server import START_SECONDS, server
from outrider import LLM, SamplingParams
from outrider.cluster.config import ClusterConfig
from outrider.cluster.replicas import application
from outrider.cluster.run import replicated
from outrider.measurement.prompts import BUILT_IN

DRAFTS = {"speculative_model": "suffix"}
TEXTS = [turn for conversation in BUILT_IN for turn in conversation.turns]
RESUMED_AT_LEAST = 10
BLOCK = 16  # tokens, as engines have them by default
TITLE = "ray::ServeReplica:outrider:Replica"


@contextmanager
def replicas_of(
    model: str, number: int, options: dict[str, Any], router: RequestRouterConfig | None = None
) -> Iterator[str]:
    """So many of one thread each, and their URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = {"model": model, "replicas": number, "cores": 1, "options": options}
    arguments["server"] = {"host": "127.0.0.1", "port": port}
    with replicated(
        arguments,
        address=None,
        host="127.0.0.1",
        port=port,
        build=lambda given: application(ClusterConfig(**given), router),
    ) as (_, url):
        yield url


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=START_SECONDS, limits=httpx.Limits(max_connections=None))


@dataclass(frozen=True)
class Asked:
    """One request. number: of its text."""

    number: int
    temperature: float
    seed: int
    tokens: int

    def body(self) -> dict[str, Any]:
        return {
            "prompt": TEXTS[self.number % len(TEXTS)],
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.tokens,
            "logprobs": 1,
            "stream": True,
            "return_token_ids": True,
            "speculation_trace": True,
        }

    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature, seed=self.seed, max_tokens=self.tokens, logprobs=1
        )


@dataclass
class Heard:
    """What a client was told: tokens, their log-probabilities, and by which replicas."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    replicas: list[str] = field(default_factory=list)
    finish: str | None = None
    error: str | None = None
    first: float | None = None
    """Seconds to the first token."""


async def listen(http: httpx.AsyncClient, body: dict[str, Any]) -> Heard:
    """One stream, to its end."""
    heard, began = Heard(), time.perf_counter()
    try:
        async with http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                heard.error = (await response.aread()).decode()
                return heard
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    heard.error = chunk["error"]["message"]
                    return heard
                for choice in chunk["choices"]:
                    if choice["token_ids"] and heard.first is None:
                        heard.first = time.perf_counter() - began
                    heard.tokens += choice["token_ids"]
                    heard.logprobs += (choice["logprobs"] or {}).get("token_logprobs", [])
                    heard.finish = choice["finish_reason"] or heard.finish
                if chunk.get("replica", "") not in ("", *heard.replicas[-1:]):
                    heard.replicas.append(chunk["replica"])
    except httpx.HTTPError as error:
        heard.error = f"{type(error).__name__}: {error}"
    return heard


def kill_one(draw: random.Random) -> bool:
    """Kill a replica's process, if there is one."""
    there = []
    for child in psutil.Process().children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith(TITLE):
                there.append(child)
        except psutil.Error:
            continue
    if there:
        draw.choice(there).kill()
    return bool(there)


async def demo_clients(url: str, args: argparse.Namespace) -> tuple[list[tuple[Asked, Heard]], int]:
    """All that was asked and heard, and how many replicas were killed."""
    draw = random.Random(0)
    numbers, results = count(), []
    end = time.monotonic() + args.seconds
    killed = 0

    async def one(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            number = next(numbers) % args.requests
            asked = Asked(number, (0.0, 0.8, 1.2)[number % 3], number, args.tokens)
            results.append((asked, await listen(http, asked.body())))

    async def killer() -> None:
        nonlocal killed
        while True:
            await asyncio.sleep(args.kill_every)
            killed += kill_one(draw)

    async with client(url) as http:
        killing = asyncio.create_task(killer())
        await asyncio.gather(*(one(http) for _ in range(args.clients)))
        killing.cancel()
    return results, killed


def demo(args: argparse.Namespace) -> dict[str, Any]:
    with replicas_of(args.model, 2, DRAFTS) as url:
        began = time.monotonic()
        results, killed = asyncio.run(demo_clients(url, args))
        seconds = time.monotonic() - began
    llm = LLM(args.model, speculative_model="suffix")
    distinct = sorted({asked for asked, _ in results}, key=lambda asked: asked.number)
    outputs = llm.generate(
        [asked.body()["prompt"] for asked in distinct], [a.params() for a in distinct], use_tqdm=False
    )
    expected = {}
    for asked, output in zip(distinct, outputs, strict=True):
        (whole,) = output.outputs
        logprobs = [of[t].logprob for t, of in zip(whole.token_ids, whole.logprobs or (), strict=True)]
        expected[asked] = (list(whole.token_ids), [max(one, -9999.0) for one in logprobs])
    lost = [heard for _, heard in results if heard.error is not None or heard.finish is None]
    wrong = [
        asked
        for asked, heard in results
        if heard not in lost and (heard.tokens, heard.logprobs) != expected[asked]
    ]
    resumed = sum(len(heard.replicas) > 1 for _, heard in results)
    told = {
        "requests": len(results),
        "lost": len(lost),
        "not as offline": len(wrong),
        "replicas killed": killed,
        "streams that went on elsewhere": resumed,
        "times that one went on": sum(len(heard.replicas) - 1 for _, heard in results if heard.replicas),
        "tokens per second": round(sum(len(heard.tokens) for _, heard in results) / seconds, 1),
        "seconds": round(seconds, 1),
        "errors": Counter(heard.error for heard in lost),
    }
    if lost or wrong or resumed <= RESUMED_AT_LEAST:
        sys.stderr.write(json.dumps(told, indent=1) + "\n")
        raise SystemExit("a request was lost, a stream is not as offline, or too few went on elsewhere")
    return told


async def rate(url: str, clients: int, tokens: int) -> float:
    """Tokens/s of so many clients, with one round before to warm up."""
    bodies = [
        Asked(n, 0.0, n, tokens).body() | {"ignore_eos": True, "logprobs": None} for n in range(clients)
    ]
    async with client(url) as http:
        for _ in range(2):
            began = time.perf_counter()
            heard = await asyncio.gather(*(listen(http, body) for body in bodies))
            seconds = time.perf_counter() - began
    if errors := [one.error for one in heard if one.error is not None]:
        raise SystemExit(errors[0])
    return sum(len(one.tokens) for one in heard) / seconds


async def first_tokens(urls: Sequence[str], rounds: int) -> list[float]:
    """The median time to the first token at each URL, in milliseconds; they take turns."""
    seen: list[list[float]] = [[] for _ in urls]
    async with client("") as http:
        for number in range(-3, rounds):
            for url, times in zip(urls, seen, strict=True):
                body = Asked(number + 3, 0.0, 0, 2).body() | {"cache_salt": f"{number}"}
                http.base_url = httpx.URL(url)
                heard = await listen(http, body)
                assert heard.first is not None, heard.error
                if number >= 0:
                    times.append(1000 * heard.first)
    return [median(times) for times in seen]


def throughput(args: argparse.Namespace) -> dict[str, Any]:
    drafts = ["-d", "suffix"]
    with server([args.model, *drafts, "-s", "num_threads=2"]) as (url, _):
        one = asyncio.run(rate(url, args.clients, args.tokens))
    with replicas_of(args.model, 2, DRAFTS) as url:
        two = asyncio.run(rate(url, args.clients, args.tokens))
    return {
        "one engine, two threads: tokens/s": round(one, 1),
        "two replicas, one thread each: tokens/s": round(two, 1),
        "two over one": round(two / one, 3),
    }


def latency(args: argparse.Namespace) -> dict[str, Any]:
    with (
        server([args.model, "-d", "suffix", "-s", "num_threads=1"]) as (alone, _),
        replicas_of(args.model, 1, DRAFTS) as url,
    ):
        without, behind = asyncio.run(first_tokens([alone, url], args.rounds))
    return {
        "ttft without Ray: p50 ms": round(without, 2),
        "ttft behind Ray: p50 ms": round(behind, 2),
        "overhead: ms": round(behind - without, 2),
    }


async def cached_tokens(url: str, args: argparse.Namespace) -> Counter[str]:
    """Counts over all turns: tokens of prompts, those that were found in a cache, and turns after the first
    that found the whole prompt of the turn before there (its full blocks)."""
    draw, found = random.Random(1), Counter[str]()
    before: Counter[int] = Counter()
    talks: list[list[dict[str, str]]] = [[] for _ in range(args.conversations)]
    async with client(url) as http:

        async def turn(number: int) -> dict[str, Any]:
            talk = talks[number]
            asked = TEXTS[(number + len(talk) * 7) % len(TEXTS)]
            talk.append({"role": "user", "content": f"({number}) {asked}"})
            body = {"messages": talk, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
            answer = (await http.post("/v1/chat/completions", json=body)).json()
            talk.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
            return dict(answer["usage"])

        for _ in range(args.turns):
            order = list(range(args.conversations))
            draw.shuffle(order)
            for at in range(0, len(order), 4):  # four people at a time
                four = order[at : at + 4]
                for number, usage in zip(four, await asyncio.gather(*map(turn, four)), strict=True):
                    cached = usage["prompt_tokens_details"]["cached_tokens"]
                    found["prompt tokens"] += usage["prompt_tokens"]
                    found["tokens found"] += cached
                    found["turns that found the one before"] += 0 < before[number] <= cached
                    before[number] = usage["prompt_tokens"] // BLOCK * BLOCK
    return found


def prefixes(args: argparse.Namespace) -> dict[str, Any]:
    told = {}
    for name, router in (
        ("by prefix", None),
        ("round robin", RequestRouterConfig(request_router_class=RoundRobin)),
    ):
        with replicas_of(args.model, 2, {**DRAFTS, "kv_cache_memory": args.memory}, router) as url:
            told[name] = asyncio.run(cached_tokens(url, args))
    ours, theirs = told["by prefix"], told["round robin"]
    ratios = {key: round(ours[key] / max(1, theirs[key]), 2) for key in list(ours)[1:]}
    return {**told, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["demo", "throughput", "latency", "prefixes"])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=None, help="32 in the demo, else 16")
    parser.add_argument("--kill-every", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=None, help="of an answer: 160 in the demo, else 96")
    parser.add_argument("--requests", type=int, default=48, help="different ones in the demo")
    parser.add_argument("--rounds", type=int, default=60, help="first tokens that are timed")
    parser.add_argument("--conversations", type=int, default=12)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--memory", default="112MiB", help="of the cache of each replica")
    args = parser.parse_args()
    is_demo = args.what == "demo"
    args.clients = args.clients or (32 if is_demo else 16)
    args.tokens = args.tokens or (160 if is_demo else 96)
    told = {"demo": demo, "throughput": throughput, "latency": latency, "prefixes": prefixes}[args.what](args)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
