"""Replicas on Ray: streams that outlive theirs, throughput, latency, and where conversations go.

python -m benchmarks.cluster demo [--seconds 120] [--clients 32] [--kill-every 20] [--tokens 160]
python -m benchmarks.cluster throughput [--model smollm2] [--clients 16] [--tokens 96]
python -m benchmarks.cluster latency [--model smollm2] [--rounds 60]
python -m benchmarks.cluster prefixes [--model smollm2] [--conversations 24] [--memory 224MiB]

demo: 2 replicas of one thread each; streaming clients ask one request after the other, and every so often
a replica's process is killed (SIGKILL). Fails unless no request is lost, more than 10 streams went on
elsewhere, and the tokens and log-probabilities of every stream are those of the offline engine.
throughput: two replicas of one thread against one engine with two.
latency: the time to the first token behind Ray and without it, one thread and one client, alternating.
prefixes: tokens of prompts that were found in a cache, with conversations of 6 turns by prefix and round
robin. By default a cache holds about half of the conversations, and round robin sends half of the turns to
where the one before was; with 12 conversations this draw of them has it do so with 57 %.
Prints one JSON object. Each needs the extra `cluster`; clients run on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.cluster.demo import demo
from benchmarks.cluster.prefixes import prefixes
from benchmarks.cluster.speed import latency, throughput


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["demo", "throughput", "latency", "prefixes"])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=None, help="32 in the demo, else 16")
    parser.add_argument("--kill-every", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=None, help="of an answer: 160 in the demo, else 96")
    parser.add_argument("--requests", type=int, default=48, help="different ones in the demo")
    parser.add_argument("--rounds", type=int, default=60, help="first tokens that are timed")
    parser.add_argument("--conversations", type=int, default=24)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--memory", default="224MiB", help="of the cache of each replica")
    args = parser.parse_args()
    is_demo = args.what == "demo"
    args.clients = args.clients or (32 if is_demo else 16)
    args.tokens = args.tokens or (160 if is_demo else 96)
    told = {"demo": demo, "throughput": throughput, "latency": latency, "prefixes": prefixes}[args.what](args)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
