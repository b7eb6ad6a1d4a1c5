"""What is drafted and stands, on our engine and on vLLM: the first 8 built-in prompts, greedy, float32.

python -m benchmarks.acceptance FOLDER --engine vllm -d head -k 3
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Literal

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.measurement.prompts import BUILT_IN

PROMPTS, TOKENS = 8, 64
OPTIONS: dict[str, dict[str, Any]] = {
    "outrider": {"device": "cpu"},
    "vllm": {"max_model_len": 1024, "max_num_seqs": PROMPTS, "enforce_eager": True},
}


def acceptance(
    model: str, engine: Literal["outrider", "vllm"], drafter: str, length: int
) -> SpeculationStats:
    with LLM(
        model,
        engine=engine,
        dtype="float32",
        speculative_model=drafter,
        num_speculative_tokens=length,
        enable_prefix_caching=False,
        **OPTIONS[engine],
    ) as llm:
        prompts = [llm.chat_prompt([{"role": "user", "content": c.turns[0]}]) for c in BUILT_IN[:PROMPTS]]
        outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=TOKENS), use_tqdm=False)
    return sum((output.outputs[0].speculation for output in outputs), SpeculationStats())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--engine", choices=[*OPTIONS], default="outrider")
    parser.add_argument("-d", "--drafter", default="head")
    parser.add_argument("-k", "--length", type=int, default=3)
    given = parser.parse_args()
    stats = acceptance(given.model, given.engine, given.drafter, given.length)
    print(  # noqa: T201
        json.dumps(
            {
                **vars(given),
                "acceptance_length": round(stats.acceptance_length, 3),
                "accepted": stats.accepted,
                "drafted": stats.drafted,
            }
        )
    )
