"""Engines whose drafts branch, and whether they write what they would without drafts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from outrider import LLM, SamplingParams
from outrider.drafting.base import Draft
from outrider.drafting.grammar import forced_budget
from outrider.drafting.length import FixedLength
from outrider.drafting.plan import Plan
from outrider.engine.engine import Engine
from outrider.engine.request import Request
from outrider.ops.budget import Budget, Price
from tests.engine.helpers import PROMPTS, expected, load, token_ids
from tests.fakes import Memoryless

FREE = Price(row=0.0, token=-1.0, least=0, sure=(0.5,), second=(1.0,))
"""At which every token is worth it, and the next best one beside it."""
DEEPEST, BESIDE = 4, 8
CASES = [(prompt, temperature) for prompt in PROMPTS for temperature in (0.0, 0.9)]


class Branching(FixedLength):
    """Drafts of one length, with siblings wherever the drafter has any."""

    def _plan(self, request: Request) -> Plan:
        budget = Budget(self.longest, FREE, siblings=BESIDE)
        return Plan((forced_budget(request), *(budget,) * self.drafters))


class Hidden(Memoryless):
    """Knows what comes next, and hides it in a tree: behind a chain that goes wrong somewhere, the right
    tokens go on from there, among siblings that are wrong too."""

    def __init__(self, target: str, params: SamplingParams) -> None:
        self._target, self._params = target, params
        self._random = random.Random(0)

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        return [self._tree(request) for request in requests]

    def _tree(self, request: Request) -> Draft:
        prompt = request.tokens[: request.prompt_length]
        params = self._params.model_copy(update={"seed": request.noise.seed})
        (whole,) = token_ids(expected(self._target, prompt, params))
        right = whole[request.num_output : request.num_output + min(DEEPEST, request.room)]
        if not right:
            return Draft()
        fork = self._random.randrange(len(right))
        chain = [*right[:fork], *(token + 1 for token in right[fork:])]
        nodes = [(token, number - 1) for number, token in enumerate(chain)]
        nodes += [(self._random.randrange(200, 300), self._random.randrange(-1, len(chain) - 1))]
        last = fork - 1
        for token in right[fork : fork + self._random.randint(1, len(right))]:
            nodes.append((token, last))
            last = len(nodes) - 1
        tokens, parents = zip(*nodes, strict=True)
        return Draft(tokens, parents=parents)


def branching(engine: Engine) -> None:
    engine.scheduler.policy = Branching(DEEPEST, len(engine.drafters.drafters) - 1)


def hiding(target: str, params: SamplingParams, **options: Any) -> LLM:
    llm = load(target, "ngram", num_speculative_tokens=DEEPEST, **options)
    branching(llm.engine)
    grammar, _ = llm.engine.drafters.drafters
    llm.engine.drafters.drafters = (grammar, Hidden(target, params))
    return llm


def settings_of(temperature: float, **others: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": temperature, "max_tokens": 24, "ignore_eos": True} | others)


def differing(llm: LLM, target: str, **others: Any) -> list[int]:
    """Which of the cases come out otherwise than without drafts."""
    params = [settings_of(t, seed=seed, **others) for seed, (_, t) in enumerate(CASES)]
    outputs = llm.generate([prompt for prompt, _ in CASES], params, use_tqdm=False)
    found = zip(CASES, params, outputs, strict=True)
    return [
        n for n, ((p, _), one, o) in enumerate(found) if token_ids(o) != token_ids(expected(target, p, one))
    ]
