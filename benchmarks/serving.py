"""What speculation gains through the server, beside what it gains offline.

python -m benchmarks.serving [--model smollm2] [--drafter ngram] [--clients 1,4,16] [--tokens 96]
                             [--rounds 5] [--json]

In each round the same requests are run with and without speculation, by the offline engine as one batch and
by as many streaming clients of `outrider serve`, in random order. Rates are output tokens over wall time;
ratios are of one round, and medians over rounds are reported. All four give the same tokens, or it fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import httpx

from benchmarks.server import START_SECONDS, server
from outrider import LLM, SamplingParams
from outrider.measurement.bench import AFRESH
from outrider.measurement.prompts import BUILT_IN

Tokens = list[tuple[int, ...]]
PLAIN, SPECULATIVE = 0, None
"""Draft lengths of a request: none, and what the engine thinks best."""


@dataclass(frozen=True)
class Summary:
    """Rates in tokens/s. Ratios: speculation over target-only, offline and through the server; the one over
    the other; the server's target-only rate over the offline one."""

    clients: int
    offline_plain: float
    offline_speculative: float
    served_plain: float
    served_speculative: float
    offline_ratio: float
    served_ratio: float
    served_over_offline_ratio: float
    served_over_offline_plain: float


def body(prompt: Sequence[int], tokens: int, length: int | None) -> dict[str, Any]:
    return {
        "prompt": list(prompt),
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "num_speculative_tokens": length,
    }


def offline(llm: LLM, prompts: Sequence[Sequence[int]], tokens: int, length: int | None) -> Tokens:
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, num_speculative_tokens=length)
    outputs = llm.generate(list(prompts), params, use_tqdm=False)
    return [output.outputs[0].token_ids for output in outputs]


async def served(
    http: httpx.AsyncClient, prompts: Sequence[Sequence[int]], tokens: int, length: int | None
) -> list[bytes]:
    """Each prompt by a client of its own, which reads its stream to the end."""

    async def client(prompt: Sequence[int]) -> bytes:
        form = body(prompt, tokens, length) | {"stream": True, "return_token_ids": True}
        async with http.stream("POST", "/v1/completions", json=form) as response:
            return b"".join([part async for part in response.aiter_raw()])

    return list(await asyncio.gather(*map(client, prompts)))


def token_ids(stream: bytes) -> tuple[int, ...]:
    """The token ids of a whole stream. It is read only afterwards, so that the server has the machine."""
    events = [line.removeprefix(b"data: ") for line in stream.splitlines() if line]
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    return tuple(token for chunk in chunks for token in chunk["choices"][0]["token_ids"])


async def measure(llm: LLM, url: str, prompts: Sequence[Sequence[int]], tokens: int, rounds: int) -> Summary:
    """The medians of `rounds`, after one to warm up."""
    draw = random.Random(0)
    rates: dict[tuple[bool, int | None], list[float]] = {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=START_SECONDS, limits=limits) as http:
        for number in range(rounds + 1):
            given: list[Tokens] = []
            kinds = [(through, length) for through in (False, True) for length in (PLAIN, SPECULATIVE)]
            draw.shuffle(kinds)
            for through, length in kinds:
                began = time.perf_counter()
                if through:
                    streams = await served(http, prompts, tokens, length)
                    seconds = time.perf_counter() - began
                    given.append([token_ids(stream) for stream in streams])
                else:
                    given.append(offline(llm, prompts, tokens, length))
                    seconds = time.perf_counter() - began
                rate = sum(map(len, given[-1])) / seconds
                if number:
                    rates.setdefault((through, length), []).append(rate)
            if any(other != given[0] for other in given):
                raise SystemExit("the server, the offline engine or speculation gave other tokens")
    return summary(len(prompts), rates)


def summary(clients: int, rates: Mapping[tuple[bool, int | None], Sequence[float]]) -> Summary:
    plain, speculative = rates[False, PLAIN], rates[False, SPECULATIVE]
    served_plain, served_speculative = rates[True, PLAIN], rates[True, SPECULATIVE]

    def ratio(above: Sequence[float], below: Sequence[float]) -> float:
        return round(median(a / b for a, b in zip(above, below, strict=True)), 3)

    gains = [s / p for s, p in zip(speculative, plain, strict=True)]
    served_gains = [s / p for s, p in zip(served_speculative, served_plain, strict=True)]
    return Summary(
        clients=clients,
        offline_plain=round(median(plain), 1),
        offline_speculative=round(median(speculative), 1),
        served_plain=round(median(served_plain), 1),
        served_speculative=round(median(served_speculative), 1),
        offline_ratio=ratio(speculative, plain),
        served_ratio=ratio(served_speculative, served_plain),
        served_over_offline_ratio=ratio(served_gains, gains),
        served_over_offline_plain=ratio(served_plain, plain),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--drafter", default="ngram")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    afresh = [part for name, value in AFRESH.items() for part in ("-s", f"{name}={json.dumps(value)}")]
    llm = LLM(args.model, speculative_model=args.drafter, **AFRESH)
    texts = [turn for conversation in BUILT_IN for turn in conversation.turns]
    chats = [llm.chat_prompt([{"role": "user", "content": text}]) for text in texts]
    summaries = []
    with server([args.model, "-d", args.drafter, *afresh]) as (url, _):
        for clients in map(int, args.clients.split(",")):
            prompts = [chats[n % len(chats)] for n in range(clients)]
            summaries.append(asyncio.run(measure(llm, url, prompts, args.tokens, args.rounds)))
    if args.json:
        json.dump([asdict(s) for s in summaries], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for name in asdict(summaries[0]):
        values = "".join(f"{getattr(s, name):>10}" for s in summaries)
        sys.stdout.write(f"{name:<28}{values}\n")


if __name__ == "__main__":
    main()
