"""A client that asks for streams and keeps what it hears."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.server import START_SECONDS
from outrider import SamplingParams
from outrider.measurement.prompts import BUILT_IN

TEXTS = [turn for conversation in BUILT_IN for turn in conversation.turns]


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
