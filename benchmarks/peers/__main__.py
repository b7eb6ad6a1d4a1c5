"""Outrider beside other engines: python -m benchmarks.peers [--json] [--formats BF16,Q8_0,... | --model FILE]
[--drafters ngram,...] [--engines llama.cpp,openvino,...] [--tokens 128] [--prompts FILE] [--limit N]
[--rounds 5] [--threads N] [--prompt-tokens 512] [--clients 1,4,16,32] [--cache DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import benchmarks.peers as package
from benchmarks.peers.base import CLIENT_PROMPT, CONTEXT, PROMPT
from benchmarks.peers.measure import OF_SMOLLM2, Measured, Plan, measure
from benchmarks.peers.prompts import client_prompts, long_prompt, token_ids
from benchmarks.peers.registry import OWN, PEERS
from benchmarks.peers.report import rows, table
from benchmarks.peers.worker import Unavailable
from benchmarks.variants import KINDS, LARGE, cache_folder, variant
from outrider.machine.cores import default_threads
from outrider.measurement.prompts import BUILT_IN, read_conversations

MOST_CLIENTS = 64  # that Outrider runs at once unless it is told otherwise


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--formats", default=",".join(KINDS), help=f"of {', '.join(KINDS + LARGE)}")
    parser.add_argument("--model", type=Path, help="a GGUF file of one's own, in place of --formats")
    parser.add_argument("--drafters", help="Outrider's; default: the head too for SmolLM2, else n-grams only")
    parser.add_argument("--engines", default=",".join(PEERS), help=f"{OWN} is always among them")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to generate for a prompt")
    parser.add_argument("--prompts", type=Path, help="JSON lines as Spec-Bench's; default: five built in")
    parser.add_argument("--limit", type=int, default=1000, help="prompts of each category at most")
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up")
    parser.add_argument("--threads", type=int, default=default_threads(), help="for every engine")
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT, help="of the long prompt")
    parser.add_argument(
        "--clients", type=_counts, default=[], help="how many at once, such as 1,4,16,32; default: none"
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    formats = [] if args.model else _chosen(parser, "--formats", args.formats, KINDS + LARGE)
    if args.model and not args.model.is_file():
        parser.error(f"--model: {args.model} is not a file")
    engines = [OWN, *(name for name in _chosen(parser, "--engines", args.engines, PEERS) if name != OWN)]
    for option, least, most in (
        ("tokens", 2, CONTEXT - PROMPT),
        ("prompt_tokens", 2, CONTEXT - 1),
        ("limit", 1, 1000),
        ("rounds", 1, 1000),
        ("threads", 1, 1024),
    ):
        if not least <= getattr(args, option) <= most:
            parser.error(f"--{option.replace('_', '-')}: {getattr(args, option)} is not in {least}..{most}")

    conversations = read_conversations(args.prompts, limit=args.limit) if args.prompts else BUILT_IN
    tokenizer = str(args.model or "smollm2")
    prompts = token_ids(tokenizer, conversations)
    longest = max(map(len, prompts))
    if longest + args.tokens > CONTEXT:
        parser.error(
            f"a prompt has {longest} tokens; with --tokens {args.tokens} there is room for {CONTEXT}"
        )
    plan = Plan(
        prompts,
        long_prompt(tokenizer, args.prompt_tokens),
        args.tokens,
        args.rounds,
        args.threads,
        args.clients,
        client_prompts(tokenizer, max(args.clients, default=0)),
    )
    results: dict[str, Measured] = {}
    with cache_folder(args.cache) as folder:
        for format in formats or [args.model.name]:
            drafters = args.drafters.split(",") if args.drafters else _drafters(format)
            try:
                path = args.model or variant(format, folder)
                results[format] = measure(path, drafters, engines, plan)
            except Unavailable as error:
                parser.exit(1, f"{format}: {error}\n")
            if not args.json:
                sys.stdout.write(table(format, results[format], len(prompts)))
                sys.stdout.flush()
    about = {
        result.engine: f"{result.about}; ready in {result.loading:.1f} s"
        for each in results.values()
        for result in each.results
        if not result.speculate
    }
    if args.json:
        report = {
            "about": about,
            "threads": args.threads,
            "tokens": args.tokens,
            "prompt_tokens": args.prompt_tokens,
            "client_prompt_tokens": CLIENT_PROMPT,
            "rounds": args.rounds,
            "formats": {
                format: {
                    "read_bandwidth_gb_per_s": each.bandwidth / 1e9,
                    "token_bytes": each.token_bytes,
                    "loading_s": {r.engine: r.loading for r in each.results if not r.speculate},
                    "rows": [asdict(row) | {"ms": row.ms} for row in rows(each)],
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


def _drafters(format: str) -> list[str]:
    """SmolLM2's; other models have no head that everybody has."""
    return OF_SMOLLM2 if format in KINDS else ["ngram"]


def _counts(text: str) -> list[int]:
    counts = sorted({int(count) for count in text.split(",")})
    if not 1 <= counts[0] <= counts[-1] <= MOST_CLIENTS:
        raise argparse.ArgumentTypeError(f"{text} names a number that is not in 1..{MOST_CLIENTS}")
    return counts


def _chosen(parser: argparse.ArgumentParser, option: str, names: str, known: Collection[str]) -> list[str]:
    chosen: list[str] = names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"{option}: {unknown[0]!r} is not known; known are {', '.join(known)}")
    return list(dict.fromkeys(chosen))


if __name__ == "__main__":
    main()
