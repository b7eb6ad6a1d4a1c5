"""Replicas in turn, whatever is cached where: what `benchmarks.cluster` compares with."""

from __future__ import annotations

from itertools import count
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class RoundRobin(RequestRouter):  # type: ignore[misc]
    """What prefixes are compared with: one replica after the other."""

    def initialize_state(self, **options: Any) -> None:
        self._next = count()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        there = sorted(candidate_replicas, key=lambda replica: str(replica.replica_id))
        first = next(self._next) % max(1, len(there))
        return [[replica] for replica in [*there[first:], *there[:first]]]
