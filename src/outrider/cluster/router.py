"""Ray Serve's choice of a replica for each request: its interface for request routers, with our order.

Ray has a router for prefixes as well (`ray.serve.llm`). That one compares texts, in a tree that an actor
holds, so that each request waits for two calls to it; here blocks of tokens are compared, salt included, as
the caches of the engines do, in a table of the process that routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from outrider.cluster.news import ReplicaCall
from outrider.cluster.prefixes import PrefixTable

MODEL = "model"
"""The argument of a call, and the replica's own word, that says which model it is: an identity."""


class PrefixRouter(RequestRouter):  # type: ignore[misc]
    """Orders the replicas by `PrefixTable.ranked`, where a call names its model those that have it."""

    def initialize_state(self, **options: Any) -> None:
        self._table = PrefixTable()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The best first, of those that have the model of the request: Serve takes the next where one has all
        requests that it may. Where none has it, whichever is asked says so."""
        wanted = None if pending_request is None else pending_request.kwargs.get(MODEL)
        fitting = [each for each in candidate_replicas if each.replica_metadata.get(MODEL) == wanted]
        candidates = fitting or candidate_replicas
        there = {replica.replica_id.unique_id: replica for replica in candidates}
        order = self._table.ranked(_prefix(pending_request), await self._loads(candidates))
        return [[there[name]] for name in order]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        self._table.learn(replica_id.unique_id, _prefix(pending_request))

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._table.keep([replica.replica_id.unique_id for replica in replicas])

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._table.keep([each.unique_id for each in self.curr_replicas])

    async def _loads(self, replicas: Sequence[RunningReplica]) -> dict[str, int]:
        """The requests of each. Those of which nothing was heard for a while are asked."""
        known = {replica: self.replica_queue_len_cache.get(replica.replica_id) for replica in replicas}
        unknown = [replica for replica, load in known.items() if load is None]
        known |= dict(await self._probe_queue_lens(unknown, 0))
        return {replica.replica_id.unique_id: load or 0 for replica, load in known.items()}


def _prefix(pending: PendingRequest | None) -> Sequence[bytes]:
    call = pending.args[0] if pending is not None and pending.args else None
    return call.prefix if isinstance(call, ReplicaCall) else ()
