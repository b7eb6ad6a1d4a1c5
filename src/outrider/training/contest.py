"""Which of several drafts the target decodes fastest with, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from outrider.llm import LLM
from outrider.params import SamplingParams

TEMPERATURES = (0.0, 0.7)
PROMPTS = 12
TOKENS = 96  # of each answer
ROUNDS = 3


def decoding_speeds(
    target: str,
    drafts: Mapping[str, Path],
    prompts: Sequence[Sequence[int]],
    *,
    device: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Output tokens a second with each draft, one request at a time: medians over rounds, in each of which
    every draft takes its turn. prompts: token ids; the draft length is the engine's choice."""
    engines = {
        name: LLM(
            target, device=device, speculative_model=str(path), enable_prefix_caching=False, max_num_seqs=1
        )
        for name, path in drafts.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in drafts}
    for number in range(ROUNDS + 1):
        for name, llm in engines.items():
            began, tokens = clock(), 0
            for seed, prompt in enumerate(prompts[:PROMPTS]):
                for temperature in TEMPERATURES:
                    params = SamplingParams(temperature=temperature, seed=seed, max_tokens=TOKENS)
                    (output,) = llm.generate([list(prompt)], params, use_tqdm=False)
                    tokens += len(output.outputs[0].token_ids)
            if number:  # the first round warms up, and teaches the engine how long a draft pays
                rates[name].append(tokens / (clock() - began))
    return {name: median(each) for name, each in rates.items()}
