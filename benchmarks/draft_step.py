"""What one more drafted token costs, over a target's decoding step.

python -m benchmarks.draft_step [--drafter head] [--formats Q4_1,Q8_0,BF16] [--rounds 9] [--cache DIR]
python -m benchmarks.draft_step --model FILE --drafter DRAFTER [--rounds 9]

Both are timed as an engine does when it is built (`outrider.engine.profile`), in turn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

from benchmarks.variants import cache_folder, variant
from outrider import LLM
from outrider.engine.profile import draft_cost, target_cost

SECONDS = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--drafter", help="as `outrider generate -d` takes it; default: head, SmolLM2's")
    parser.add_argument("--model", help="a target of one's own, in place of --formats")
    parser.add_argument("--formats", default="Q4_1,Q8_0,BF16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cache", type=Path, help="keep the files of other formats there")
    given = parser.parse_args()
    if given.model and not given.drafter:
        parser.error("--model needs a --drafter")
    sys.stdout.write("target, ms a step, ms a drafted token, ratio\n")
    with cache_folder(given.cache) as folder:
        for name in [given.model] if given.model else given.formats.split(","):
            model = given.model or str(variant(name, folder))
            step, token = timed(model, given.drafter or "head", given.rounds)
            sys.stdout.write(f"{name}, {step * 1e3:.2f}, {token * 1e3:.3f}, {token / step:.3f}\n")


def timed(model: str, drafter_name: str, rounds: int) -> tuple[float, float]:
    """Seconds of the target's step and of a drafted token."""
    engine = LLM(model, speculative_model=drafter_name, num_speculative_tokens=1).engine
    _, drafter = engine.drafters.drafters  # behind grammars
    steps, tokens = [], []
    for _ in range(rounds):
        steps.append(target_cost(engine.target, max_rows=8, max_model_len=512).one_pass(1))
        cost = draft_cost(drafter, engine.target, engine.tokenizer, seconds=SECONDS)
        tokens.append(cost.fixed + cost.each)
    return median(steps), median(tokens)


if __name__ == "__main__":
    main()
