"""Two replicas that get requests in turn, whatever is cached where: what prefixes are compared with."""

from __future__ import annotations

import argparse
from itertools import count
from typing import Any

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from outrider.cluster.run import log_replicas, serve_replicas


class RoundRobin(RequestRouter):  # type: ignore[misc]
    """One replica after the other."""

    def initialize_state(self, **options: Any) -> None:
        self._next = count()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        there = sorted(candidate_replicas, key=lambda replica: str(replica.replica_id))
        first = next(self._next) % max(1, len(there))
        return [[replica] for replica in [*there[first:], *there[:first]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("memory", help="of the cache of each replica")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log-level")
    args = parser.parse_args()
    serve_replicas(
        {
            "model": args.model,
            "replicas": 2,
            "cores": 1,
            "options": {"speculative_model": "suffix", "kv_cache_memory": args.memory},
            "server": {"host": "127.0.0.1", "port": args.port},
        },
        address=None,
        announce=log_replicas,
        router=RequestRouterConfig(request_router_class=RoundRobin),
    )


if __name__ == "__main__":
    main()
