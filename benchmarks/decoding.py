"""Decoding a batch with a length policy of one's choice: what the benchmarks of draft length time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.synthetic import Acceptance, SyntheticDrafter
from benchmarks.variants import smollm2
from outrider import LLM, SamplingParams
from outrider.drafting.auto import AutoLength
from outrider.drafting.chain import Chain
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import FixedLength, LengthPolicy
from outrider.drafting.link import Link
from outrider.drafting.workloads import WORKLOADS
from outrider.engine.engine import Engine
from outrider.engine.profile import draft_cost, target_cost

TOPICS = ("rivers", "bread", "clocks", "bridges", "glass", "wool", "maps", "salt")
FORMATS: Mapping[str, str] = {"int8": "Q8_0", "bf16": "BF16", "int4": "Q4_1"}
PLAIN = FixedLength(0, 0)
CONTEXT = 1024  # positions of a request


@dataclass(frozen=True)
class Decoded:
    """tokens, seconds: while all requests of the batch were decoding; outputs: token ids by request.

    So the time ends with the request that ends first: a batch that has shrunk is another batch, and would
    reward lengths that let all requests end together.
    """

    tokens: int
    seconds: float
    outputs: tuple[tuple[int, ...], ...]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def in_format(format: str, folder: Path, **options: Any) -> LLM:
    """SmolLM2 in one of `FORMATS`."""
    return LLM(str(smollm2(FORMATS[format], folder)), max_model_len=CONTEXT, **options)


def questions(llm: LLM, count: int) -> list[list[int]]:
    """Different short prompts."""
    asked = (f"Write {n + 2} sentences about {TOPICS[n % len(TOPICS)]}." for n in range(count))
    return [llm.chat_prompt([{"role": "user", "content": question}]) for question in asked]


class Bench:
    """One target, whose drafter and length policy are changed from run to run."""

    def __init__(self, engine: Engine, *, max_rows: int = 512) -> None:
        self.engine = engine
        self.target = target_cost(engine.target, max_rows=max_rows, max_model_len=engine.max_model_len)
        self.answers: dict[tuple[int, ...], Sequence[int]] = {}

    def record(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """What the target alone answers, for `SyntheticDrafter`; returns its seconds a step."""
        plain = self.decode(Chain(), PLAIN, prompts, tokens)
        self.answers |= {
            tuple(prompt): [*prompt, *output] for prompt, output in zip(prompts, plain.outputs, strict=True)
        }
        return plain.seconds * len(prompts) / plain.tokens

    def drafter(self, acceptance: Acceptance, cost: float, batch: int, step: float) -> SyntheticDrafter:
        """One whose step costs the share `cost` of a target step, which takes `step` seconds for `batch`
        requests, and for fewer what the target's pass over as many rows would."""
        whole = self.target.one_pass(batch)
        seconds = [cost * step * self.target.one_pass(max(1, n)) / whole for n in range(batch + 1)]
        vocab = self.engine.target.model.config.vocab_size
        return SyntheticDrafter(self.answers, acceptance, lambda n: seconds[min(n, batch)], vocab)

    def auto(self, drafter: SyntheticDrafter) -> AutoLength:
        """The policy, which has measured the drafter and knows nothing else of it yet."""
        cost = draft_cost(drafter, self.engine.target, self.engine.tokenizer, seconds=0.1)
        bounds = WORKLOADS[None]
        link = Link(drafter, cost, Forecast(bounds.most, bounds.acceptance))
        return AutoLength([link], self.target, bounds, save=lambda: None)

    def decode(
        self,
        chain: Chain,
        policy: LengthPolicy,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        *,
        seconds: float = float("inf"),
    ) -> Decoded:
        """Answer all prompts together, greedily, with so many tokens each or what there is time for."""
        engine = self.engine
        engine.drafters, engine.scheduler.policy = chain, policy
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        ids = [engine.add(prompt, params) for prompt in prompts]
        running = engine.scheduler.running
        while len(running) < len(ids) or not all(request.num_output for request in running):
            engine.step()
        counted, spent = 0, 0.0
        while len(running) == len(ids) and spent < seconds:
            began = time.perf_counter()
            increments = engine.step()
            if len(running) == len(ids):
                spent += time.perf_counter() - began
                counted += sum(len(increment.token_ids) for increment in increments)
        for request_id in ids:
            if seconds < float("inf"):
                engine.abort(request_id)
        while engine.unfinished:
            engine.step()
        return Decoded(counted, spent, tuple(engine.take(i).outputs[0].token_ids for i in ids))

    def check(self, prompts: Sequence[Sequence[int]], decoded: Decoded) -> None:
        """Raise AssertionError unless the tokens are those of the target alone."""
        for prompt, output in zip(prompts, decoded.outputs, strict=True):
            answer = tuple(self.answers[tuple(prompt)][len(prompt) :])
            assert output == answer[: len(output)], f"other tokens than the target alone: {output}"
