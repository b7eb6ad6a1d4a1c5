"""Streams that go on while replicas are killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from itertools import count
from typing import Any

import httpx
import psutil

from benchmarks.cluster.asking import Asked, Heard, client, listen
from benchmarks.cluster.servers import processes, replicas_of
from outrider import LLM

RESUMED_AT_LEAST = 10


async def demo_clients(
    url: str, server: psutil.Process, args: argparse.Namespace
) -> tuple[list[tuple[Asked, Heard]], int]:
    """All that was asked and heard, and how many replicas of the server were killed."""
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
            if there := processes(server):
                draw.choice(there).kill()
                killed += 1

    async with client(url) as http:
        killing = asyncio.create_task(killer())
        await asyncio.gather(*(one(http) for _ in range(args.clients)))
        killing.cancel()
    return results, killed


def demo(args: argparse.Namespace) -> dict[str, Any]:
    with replicas_of(args.model, 2) as (url, server):
        began = time.monotonic()
        results, killed = asyncio.run(demo_clients(url, server, args))
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
