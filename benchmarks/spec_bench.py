"""Speculation against the target alone over first turns, by category, format and temperature.

python -m benchmarks.spec_bench PROMPTS [--model FILE | --formats Q4_1,Q8_0,BF16] [--limit 6]
                                [--temperatures 0,0.7] [--drafters auto] [--draft-quantization int4]
                                [--draft-vocab-size 32768] [--length auto] [--max-tokens 128] [--rounds 1]
                                [--picture FILE] [--json FILE] [--cache DIR]

PROMPTS: JSON lines as Spec-Bench has them; the files in prompts/, or what `benchmarks.edits` writes.
Without a model, SmolLM2 in each of the formats. The two are engines of their own, so that the target alone
does nothing for a drafter; a category is answered by one and then by the other, one request at a time.
Every output is compared. limit: conversations of each category. decoding: from the first token of an answer
on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.variants import cache_folder, smollm2
from outrider import LLM
from outrider.measurement.bench import AFRESH, AUTO, BenchRound, Result, Run, join_rounds, measure
from outrider.measurement.prompts import Conversation, read_conversations

MAX_MODEL_LEN = 8192
"""The context of both: in a cache of a given size 'auto' would find no room for a draft model's K and V."""


def answers(
    llm: LLM, conversations: Sequence[Conversation], temperature: float, args: argparse.Namespace
) -> Run:
    """One category by one engine."""
    measured = measure(
        llm,
        conversations,
        {AUTO: ""},
        batch_size=1,
        temperature=temperature,
        max_tokens=args.max_tokens,
        rounds=1,
        advance=lambda what, count: None,
    )
    return measured["all"][0][AUTO]


def compare(model: str, name: str, conversations: Sequence[Conversation], args: argparse.Namespace) -> Any:
    """Results by temperature and category, 'all' first."""
    options: dict[str, Any] = {"enable_prefix_caching": False, "max_model_len": MAX_MODEL_LEN}
    plain = LLM(model, **options)
    length = args.length if args.length == "auto" else int(args.length)
    speculative = LLM(
        model,
        speculative_model=args.drafters.split(","),
        num_speculative_tokens=length,
        draft_quantization=args.draft_quantization,
        draft_vocab_size=args.draft_vocab_size,
        **{**options, **AFRESH},
    )
    results = []
    for temperature in map(float, args.temperatures.split(",")):
        by_category: dict[str, list[BenchRound]] = {}
        for _ in range(args.rounds):
            for category in dict.fromkeys(c.category for c in conversations):
                asked = [c for c in conversations if c.category == category]
                runs = [answers(llm, asked, temperature, args) for llm in (plain, speculative)]
                by_category.setdefault(category, []).append(BenchRound(*runs))
                sys.stderr.write(
                    f"{name} {temperature:g} {category} {by_category[category][-1].speedup:.2f} "
                    f"decoding {by_category[category][-1].decoding_speedup:.2f}\n"
                )
        joined = [join_rounds(at) for at in zip(*by_category.values(), strict=True)]
        for category, rounds in {"all": joined, **by_category}.items():
            results.append(Result(1, category, temperature, tuple(rounds)))
    return results


def draw(table: dict[str, list[Result]], path: Path) -> None:
    """Speed-up by category, a bar for each format and temperature."""
    from matplotlib.figure import Figure

    series = {
        f"{name}, temperature {temperature:g}": {
            r.category: r.speedup for r in results if r.temperature == temperature
        }
        for name, results in table.items()
        for temperature in dict.fromkeys(r.temperature for r in results)
    }
    categories = list(next(iter(series.values())))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for number, (label, speedups) in enumerate(series.items()):
        places = [i + (number - (len(series) - 1) / 2) * width for i in range(len(categories))]
        axes.bar(places, [speedups[c] for c in categories], width, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(categories)), categories, rotation=30, ha="right")
    axes.set_ylabel("speculative over target-only")
    axes.legend(ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--model", help="a target in place of SmolLM2")
    parser.add_argument("--formats", default="Q4_1,Q8_0,BF16")
    parser.add_argument("--temperatures", default="0,0.7")
    parser.add_argument("--drafters", default="auto", help="'auto', or names and paths")
    parser.add_argument("--draft-quantization", help="of drafters: int8 or int4; default: as 'auto' chooses")
    parser.add_argument("--draft-vocab-size", type=int, help="of drafters; default: as 'auto' chooses")
    parser.add_argument("--length", default="auto", help="of drafts, or 'auto'")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    conversations = [
        replace(c, turns=c.turns[:1]) for c in read_conversations(args.prompts, limit=args.limit)
    ]
    with cache_folder(args.cache) as folder:
        names = [Path(args.model).stem] if args.model else args.formats.split(",")
        table = {
            name: compare(args.model or str(smollm2(name, folder)), name, conversations, args)
            for name in names
        }
    columns = (
        "weights",
        "temperature",
        "category",
        "tokens/s",
        "speed-up",
        "decoding",
        "acceptance",
        "identical",
    )
    sys.stdout.write(f"| {' | '.join(columns)} |\n")
    for name, results in table.items():
        for r in results:
            rates = [r.as_json()[key]["tokens_per_s"] for key in ("target_only", "speculative")]
            sys.stdout.write(
                f"| {name} | {r.temperature:g} | {r.category} | {rates[0]:.0f} / {rates[1]:.0f} | "
                f"{r.speedup:.2f} | {r.decoding_speedup:.2f} | {r.speculation.acceptance_length:.2f} | "
                f"{r.identical}/{r.compared} |\n"
            )
    if args.json:
        rows = {name: [r.as_json() for r in results] for name, results in table.items()}
        args.json.write_text(json.dumps(rows, indent=1))
    if args.picture:
        draw(table, args.picture)


if __name__ == "__main__":
    main()
