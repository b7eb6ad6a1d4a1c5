"""Outrider; its speculation is automatic length with the drafters that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.peers.base import CONTEXT, PROMPT, Setup
from outrider import LLM, SamplingParams
from outrider.measurement.bench import AFRESH


class Outrider:
    def __init__(self, setup: Setup) -> None:
        options: dict[str, Any] = {"enable_prefix_caching": False}
        if setup.speculate:
            options = {**AFRESH, "speculative_model": list(setup.drafters)}
        self.llm = LLM(
            str(setup.path),
            num_threads=setup.threads,
            max_model_len=CONTEXT,
            max_num_batched_tokens=PROMPT,
            **options,
        )

    @property
    def about(self) -> str:
        return version("outrider")

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        outputs = self.llm.generate([list(prompt) for prompt in prompts], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]
