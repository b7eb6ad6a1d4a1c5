"""Outrider beside other engines: python -m benchmarks.peers [--json] [--formats BF16,Q8_0,...]
[--engines llama.cpp,openvino,...] [--tokens 128] [--prompts 5] [--rounds 5] [--threads N] [--cache DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from dataclasses import asdict
from itertools import chain, cycle, islice
from pathlib import Path

import benchmarks.peers as package
from benchmarks.peers.base import CONTEXT, PROMPT
from benchmarks.peers.measure import Measured, Plan, measure
from benchmarks.peers.registry import OWN, PEERS
from benchmarks.peers.report import rows, table
from benchmarks.peers.worker import Unavailable
from benchmarks.variants import KINDS, cache_folder, smollm2
from outrider.measurement.prompts import BUILT_IN
from outrider.models.checkpoint import open_checkpoint
from outrider.ops.cpu.extension import physical_cores


def token_ids(count: int) -> list[list[int]]:
    """The first `count` built-in prompts, as the model's chat template lays them out."""
    tokenizer = open_checkpoint("smollm2").tokenizer()
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": conversation.turns[0]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for conversation in BUILT_IN[:count]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--formats", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--engines", default=",".join(PEERS), help=f"{OWN} is always among them")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to generate for a prompt")
    parser.add_argument("--prompts", type=int, default=len(BUILT_IN), help="of the built-in ones")
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="for every engine")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    formats = _chosen(parser, "--formats", args.formats, KINDS)
    engines = [OWN, *(name for name in _chosen(parser, "--engines", args.engines, PEERS) if name != OWN)]
    for option, least, most in (
        ("tokens", 2, CONTEXT - PROMPT),
        ("prompts", 1, len(BUILT_IN)),
        ("rounds", 1, 1000),
        ("threads", 1, 1024),
    ):
        if not least <= getattr(args, option) <= most:
            parser.error(f"--{option}: {getattr(args, option)} is not in {least}..{most}")

    long_prompt = list(islice(cycle(chain.from_iterable(token_ids(len(BUILT_IN)))), PROMPT))
    plan = Plan(token_ids(args.prompts), long_prompt, args.tokens, args.rounds, args.threads)
    results: dict[str, Measured] = {}
    with cache_folder(args.cache) as folder:
        for format in formats:
            try:
                results[format] = measure(smollm2(format, folder), engines, plan)
            except Unavailable as error:
                parser.exit(1, f"{format}: {error}\n")
            if not args.json:
                sys.stdout.write(table(format, results[format], args.prompts))
                sys.stdout.flush()
    about = {result.engine: result.about for each in results.values() for result in each.results}
    if args.json:
        report = {
            "about": about,
            "threads": args.threads,
            "tokens": args.tokens,
            "rounds": args.rounds,
            "formats": {
                format: {
                    "rows": [asdict(row) for row in rows(each)],
                    "skipped": [asdict(skip) for skip in each.skipped],
                    "foreign_load": each.foreign_load,
                }
                for format, each in results.items()
            },
        }
        json.dump(report, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{engine}: {text}\n" for engine, text in about.items())


def _chosen(parser: argparse.ArgumentParser, option: str, names: str, known: Collection[str]) -> list[str]:
    chosen: list[str] = names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"{option}: {unknown[0]!r} is not known; known are {', '.join(known)}")
    return list(dict.fromkeys(chosen))


if __name__ == "__main__":
    main()
