"""Throughput of replicas and of one engine, and the time to the first token behind Ray and without it."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import httpx

from benchmarks.cluster.asking import Asked, client, listen
from benchmarks.cluster.servers import DRAFTS, replicas_of
from benchmarks.server import server


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


async def first_tokens(urls: Sequence[str], rounds: int) -> list[list[float]]:
    """The times to the first token at each URL, in milliseconds; they take turns with the same prompts."""
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
    return seen


def throughput(args: argparse.Namespace) -> dict[str, Any]:
    with server([args.model, *DRAFTS, "-s", "num_threads=2"]) as (url, _):
        one = asyncio.run(rate(url, args.clients, args.tokens))
    with replicas_of(args.model, 2) as (url, _):
        two = asyncio.run(rate(url, args.clients, args.tokens))
    return {
        "one engine, two threads: tokens/s": round(one, 1),
        "two replicas, one thread each: tokens/s": round(two, 1),
        "two over one": round(two / one, 3),
    }


def latency(args: argparse.Namespace) -> dict[str, Any]:
    with (
        server([args.model, *DRAFTS, "-s", "num_threads=1"]) as (alone, _),
        replicas_of(args.model, 1) as (url, _),
    ):
        without, behind = asyncio.run(first_tokens([alone, url], args.rounds))
    differences = [theirs - ours for theirs, ours in zip(behind, without, strict=True)]
    return {
        "ttft without Ray: p50 ms": round(median(without), 2),
        "ttft behind Ray: p50 ms": round(median(behind), 2),
        "difference of these: ms": round(median(behind) - median(without), 2),
        "p50 of the differences with the same prompt: ms": round(median(differences), 2),
    }
