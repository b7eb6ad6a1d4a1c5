"""Whether a process takes what was planned: peak resident memory of fresh processes, against their plans.

python -m benchmarks.memory [--json] [--cache DIR] [--context 1024] [--requests 4]
python -m benchmarks.memory --parts

Each format runs without a drafter, with n-grams, with the head that comes with the package, with a chain of
the two, with the target itself at 4 bits, and with a draft model (the same one in Q8_0, so that there is one
with the vocabulary); n-grams and the chain choose the draft length by themselves. A process plans, loads, and
serves as many requests as the plan allows at once, each up to the longest context, so that all caches fill
up; its peak is VmHWM, which only Linux has. --parts measures the constants in
src/outrider/planning/process.py, and what an n-gram index takes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.process import status
from benchmarks.variants import cache_folder, smollm2

PEAK_RESET = Path("/proc/self/clear_refs")
ROOM = 2**40  # bytes: a limit that limits nothing
OUTPUT = 192  # tokens of each request, of which a draft model reads the prompt 64 rows a step
FORMATS: dict[str, dict[str, Any]] = {
    "as stored (Q4_1)": {},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
    "float32 on PyTorch": {"backend": "torch"},
}
MORE_BITS = ("float32", "bfloat16", "int8")  # formats of which the native kernels can draft at 4 bits


@dataclass(frozen=True)
class Case:
    """options: of LLM, the number of requests and their length among them."""

    format: str
    drafter: str
    model: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Bytes. planned, peak: of the process."""

    case: Case
    planned: int
    peak: int

    @property
    def ratio(self) -> float:
        """The peak over the plan."""
        return self.peak / self.planned


def cases(folder: Path, context: int, requests: int) -> Iterator[Case]:
    fixed = {"num_speculative_tokens": 4}
    drafters: dict[str, dict[str, Any]] = {
        "none": {},
        "ngram": {"speculative_model": "ngram"},
        "head": {"speculative_model": "head"} | fixed,
        "ngram, head": {"speculative_model": ["ngram", "head"]},
        "self:int4": {"speculative_model": "self:int4"} | fixed,
        "Q8_0": {"speculative_model": str(smollm2("Q8_0", folder))} | fixed,
    }
    size = {"max_model_len": context, "max_num_seqs": requests}
    for format, options in FORMATS.items():
        for drafter, speculation in drafters.items():
            if drafter == "self:int4" and format not in MORE_BITS:
                continue
            yield Case(format, drafter, "smollm2", {**options, **speculation, **size})


def measure(case: Case) -> Measured:
    """In a process of its own. Raises RuntimeError, with what it said, if that fails."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(asdict(case))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{case}: {run.stderr}")
    return Measured(case, **json.loads(run.stdout.splitlines()[-1]))


def child(model: str, options: dict[str, Any]) -> dict[str, int]:
    """Plan, load, and fill the cache. With a `memory_limit`, what is planned is that."""
    from outrider import LLM, SamplingParams
    from outrider.config import resolve
    from outrider.planning.allowed import Limit
    from outrider.planning.limit import survey

    planned = options.get("memory_limit")
    if planned is None:
        plan = survey(resolve(model, **options), Limit(ROOM, "limit")).given.plan
        planned, options = plan.total, {**options, "kv_cache_memory": plan.kv_cache_memory}
    llm = LLM(model, **options)
    draw = random.Random(0)
    vocab = llm.engine.target.model.config.vocab_size
    length = options["max_model_len"] - OUTPUT
    prompts = [[draw.randrange(vocab) for _ in range(length)] for _ in range(options["max_num_seqs"])]
    llm.generate(prompts, SamplingParams(max_tokens=OUTPUT, ignore_eos=True, temperature=0), use_tqdm=False)
    return {"planned": planned, "peak": status("VmHWM")}


def parts() -> dict[str, float]:
    """What is not there to be measured when a plan is made: bytes for each token of a vocabulary, in all, and
    for each token of a text that is matched with itself."""
    from outrider import LLM, SamplingParams
    from outrider.cache.pages import release_freed
    from outrider.drafting.vocabulary import Vocabulary, check_same_vocabulary
    from outrider.models.checkpoint import open_checkpoint
    from outrider.models.runner import group_sizes
    from outrider.ops.cpu import extension

    def resident() -> int:
        release_freed()
        return status("VmRSS")

    imported = resident()
    llm = LLM("smollm2")
    llm.generate("Once upon a time", SamplingParams(max_tokens=16, temperature=0), use_tqdm=False)
    loaded = resident()
    target = llm.engine.target.model
    cache = 2 * sum(size.block_bytes for size in group_sizes(target, 16, 1, 0))  # of 20 positions
    PEAK_RESET.write_text("5")  # what all is imported for is there by now
    checkpoint = open_checkpoint("smollm2")
    tokenizer = checkpoint.tokenizer()
    made = status("VmHWM") - loaded
    vocab = checkpoint.config.vocab_size
    del checkpoint
    kept = resident() - loaded
    # Python keeps memory that it has freed, which would serve these two: it is asked what they allocate.
    tracemalloc.start()
    check_same_vocabulary(Vocabulary.of("a", llm.tokenizer, vocab), Vocabulary.of("b", tokenizer, vocab))
    compared = tracemalloc.get_traced_memory()[1]
    text, tokens = extension.require().SuffixText(), llm.tokenizer.encode(Path(__file__).read_text())
    text.add(tokens)
    late = loaded - imported - kept - cache - getattr(target.backend, "weight_bytes", 0)
    return {
        "late": late,
        "tokenizer": kept / vocab,
        "making": made / vocab,
        "vocabularies": compared / vocab,
        "matched": text.bytes / len(tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    parser.add_argument("--context", type=int, default=1024, help="positions of a request")
    parser.add_argument("--requests", type=int, default=4, help="at a time")
    parser.add_argument("--parts", action="store_true", help="measure the constants of a plan")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        case = json.loads(args.child)
        sys.stdout.write(json.dumps(child(case["model"], case["options"])) + "\n")
        return
    if args.parts:
        for name, size in parts().items():
            sys.stdout.write(f"{name:16} {size:12.0f} bytes\n")
        return
    if args.context <= OUTPUT:
        parser.error(f"--context has to be more than {OUTPUT}")
    found: list[Measured] = []
    if not args.json:
        sys.stdout.write(
            f"{'weights':18} {'drafter':11} {'planned':>8} {'peak':>8} {'peak/plan':>10}   MiB\n"
        )
    with cache_folder(args.cache) as folder:
        for case in cases(folder, args.context, args.requests):
            m = measure(case)
            found.append(m)
            if not args.json:
                sizes = f"{m.planned / 2**20:8.0f} {m.peak / 2**20:8.0f} {m.ratio:10.2f}"
                sys.stdout.write(f"{case.format:18} {case.drafter:11} {sizes}\n")
                sys.stdout.flush()
    if args.json:
        json.dump([asdict(m) | {"ratio": m.ratio} for m in found], sys.stdout, indent=2)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
