"""Plain decoding of SmolLM2 against transformers' `generate`, in turn in one process.

Run: python -m benchmarks.against_transformers [--json]. Needs the `test` extra, which brings accelerate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import AutoModelForCausalLM

from outrider import LLM, SamplingParams
from outrider.measurement.prompts import BUILT_IN
from outrider.models.checkpoint import locate

TOKENS = 64
ROUNDS = 5


def timed(run: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """Tokens a second, and the tokens."""
    began = time.perf_counter()
    tokens = run()
    return TOKENS / (time.perf_counter() - began), tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable result on stdout")
    arguments = parser.parse_args()

    llm = LLM("smollm2", device="cpu", dtype="float32", enable_prefix_caching=False)
    path = locate("smollm2")
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    prompt = llm.chat_prompt([{"role": "user", "content": BUILT_IN[-1].turns[0]}])
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)

    def outrider() -> list[int]:
        return list(llm.generate(prompt, params, use_tqdm=False)[0].outputs[0].token_ids)

    @torch.inference_mode()
    def transformers() -> list[int]:
        ids = torch.tensor([prompt])
        output = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
        )
        tokens: list[int] = output[0, len(prompt) :].tolist()
        return tokens

    ours, peers, same = [], [], True
    for number in range(ROUNDS + 1):
        a, tokens = timed(outrider)
        b, their_tokens = timed(transformers)
        if number:  # the first is the warm-up
            ours.append(a)
            peers.append(b)
            same &= tokens == their_tokens
    result = {
        "model": "smollm2 (float32)",
        "outrider_tokens_per_s": round(median(ours), 2),
        "transformers_tokens_per_s": round(median(peers), 2),
        "ratio": round(median(a / b for a, b in zip(ours, peers, strict=True)), 2),
        "same_tokens": same,
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{name:28} {value}\n" for name, value in result.items())


if __name__ == "__main__":
    main()
