"""Where conversations go: tokens of prompts that were found in a cache."""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from typing import Any

from benchmarks.cluster.asking import TEXTS, client
from benchmarks.cluster.servers import replicas_of
from benchmarks.server import server

BLOCK = 16  # tokens, as engines have them by default


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
    for name, serving in (
        ("by prefix", replicas_of(args.model, 2, "-s", f"kv_cache_memory={args.memory}")),
        ("round robin", server([args.model, args.memory], program="benchmarks.cluster.round_robin")),
    ):
        with serving as (url, _):
            told[name] = asyncio.run(cached_tokens(url, args))
    ours, theirs = told["by prefix"], told["round robin"]
    ratios = {key: round(ours[key] / max(1, theirs[key]), 2) for key in list(ours)[1:]}
    return {**told, "ratios": ratios}
